//! Rhai functions for losses: module `loss`.
mod perceptual;

use super::error::RhaiResult;
use crate::loss::{Loss, Reduction};
use crate::schema::{Opt, Schema, above, word};
use crate::tensor::aside;
use crate::{Error, Kind};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Dynamic, Engine, FnPtr, Map};

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    let mut loss = rhai::exported_module!(loss_api);
    loss.combine(rhai::exported_module!(perceptual::perceptual_api));
    engine.register_static_module("loss", loss.into());
}

const fn reduction(doc: &'static str) -> Opt {
    word("reduction", &Reduction::NAMES, doc)
}
const REDUCTION: Opt = reduction("\"sum\", or \"none\": the mean of each sample, [B]");
const DELTA: Opt = above("delta", 1.0, [0.0, f64::MAX], "where the loss turns from squared to absolute");
const L1: Schema = Schema::new("loss::l1", &[REDUCTION]);
const L2: Schema = Schema::new("loss::l2", &[REDUCTION]);
const HUBER: Schema = Schema::new("loss::huber", &[DELTA, REDUCTION]);
const PSEUDO_HUBER: Schema = Schema::new("loss::pseudo_huber", &[DELTA, REDUCTION]);
const CHAMFER: Schema =
    Schema::new("loss::chamfer", &[reduction("over the batch; \"sum\", or \"none\": one value for each cloud, [B]")]);
/// The losses that `loss::get` knows.
const BY_NAME: &[Schema] = &[L1, L2, HUBER, PSEUDO_HUBER];
/// Options of this area's functions.
pub const SCHEMAS: &[&[Schema]] = &[BY_NAME, &[CHAMFER], perceptual::SCHEMAS];

fn read(name: &str, map: Map) -> RhaiResult<(Loss, Reduction)> {
    let o = Schema::among(BY_NAME, &format!("loss::{name}"))?.read(map)?;
    let delta = ["huber", "pseudo_huber"].contains(&name).then(|| o.number("delta"));
    Ok((Loss::of(name, delta)?, Reduction::of(o.word("reduction"))?))
}

fn eval(name: &str, x: Tensor, target: Tensor, map: Map) -> RhaiResult<Tensor> {
    let (loss, reduction) = read(name, map)?;
    Ok(aside::run(aside::load(&[&x, &target]), move || loss.eval(&x, &target, reduction))?)
}

fn function(name: &str, map: Map) -> RhaiResult<FnPtr> {
    let (loss, reduction) = read(Loss::of(name, None)?.name(), map)?;
    of_two(loss.name(), move |x, target| {
        let (load, x, target) = (aside::load(&[x, target]), x.clone(), target.clone());
        aside::run(load, move || loss.eval(&x, &target, reduction))
    })
}

/// A function value of two tensors.
fn of_two(name: &'static str, f: impl Fn(&Tensor, &Tensor) -> crate::Result<Tensor> + 'static) -> RhaiResult<FnPtr> {
    // `from_fn` is marked deprecated by rhai only to say that its signature may change
    #[allow(deprecated)]
    FnPtr::from_fn(name, move |_, args| {
        let tensor = |i: usize| -> crate::Result<Tensor> {
            let wrong = |came: &str| {
                let m = format!("{name}: takes two tensors, (x, target), but argument {} is {came}", i + 1);
                Error::new(Kind::Type, m)
            };
            let arg = args.get(i).ok_or_else(|| wrong("missing"))?;
            arg.read_lock::<Tensor>().map(|t| t.clone()).ok_or_else(|| wrong(crate::script::error::type_of(arg)))
        };
        Ok(Dynamic::from(f(&tensor(0)?, &tensor(1)?)?))
    })
}

/// Differentiable losses between tensors of one shape.
#[export_module]
mod loss_api {
    /// The mean absolute difference of two tensors of one shape.
    ///
    /// Example: `loss::l1(tensor([1.0, 3.0]), tensor([1.0, 1.0])).item()` is 1
    #[rhai_fn(return_raw)]
    pub fn l1(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        eval("l1", x, target, Map::new())
    }
    /// The absolute difference of two tensors of one shape, reduced. Its gradient at equality is 0.
    ///
    /// Example: `loss::l1(tensor([1.0, 3.0]), tensor([1.0, 1.0]), #{ reduction: "none" })` is [0, 2]
    #[rhai_fn(name = "l1", return_raw)]
    pub fn l1_with(x: Tensor, target: Tensor, options: Map) -> RhaiResult<Tensor> {
        eval("l1", x, target, options)
    }
    /// The mean squared difference of two tensors of one shape.
    ///
    /// Example: `loss::l2(tensor([1.0, 3.0]), tensor([1.0, 1.0])).item()` is 2
    #[rhai_fn(return_raw)]
    pub fn l2(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        eval("l2", x, target, Map::new())
    }
    /// The squared difference of two tensors of one shape, reduced.
    ///
    /// Example: `loss::l2(tensor([1.0, 3.0]), tensor([1.0, 1.0]), #{ reduction: "sum" }).item()` is 4
    #[rhai_fn(name = "l2", return_raw)]
    pub fn l2_with(x: Tensor, target: Tensor, options: Map) -> RhaiResult<Tensor> {
        eval("l2", x, target, options)
    }
    /// The Huber loss with delta 1: squared near 0, absolute beyond.
    ///
    /// Example: `loss::huber(tensor([1.0, 3.0]), tensor([1.0, 1.0])).item()` is 0.75
    #[rhai_fn(return_raw)]
    pub fn huber(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        eval("huber", x, target, Map::new())
    }
    /// The Huber loss: d²/2 where |d| is at most delta, delta·(|d| − delta/2) beyond (as `torch.nn.HuberLoss`).
    ///
    /// Example: `loss::huber(tensor([1.0, 3.0]), tensor([1.0, 1.0]), #{ delta: 0.1 })`
    #[rhai_fn(name = "huber", return_raw)]
    pub fn huber_with(x: Tensor, target: Tensor, options: Map) -> RhaiResult<Tensor> {
        eval("huber", x, target, options)
    }
    /// The pseudo-Huber loss with delta 1: a smooth form of the Huber loss.
    ///
    /// Example: `loss::pseudo_huber(tensor([1.0, 3.0]), tensor([1.0, 1.0]))`
    #[rhai_fn(return_raw)]
    pub fn pseudo_huber(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        eval("pseudo_huber", x, target, Map::new())
    }
    /// The pseudo-Huber loss delta²·(√(1 + (d/delta)²) − 1), element by element.
    ///
    /// Example: `loss::pseudo_huber(tensor([1.0, 3.0]), tensor([1.0, 1.0]), #{ delta: 0.03 })`
    #[rhai_fn(name = "pseudo_huber", return_raw)]
    pub fn pseudo_huber_with(x: Tensor, target: Tensor, options: Map) -> RhaiResult<Tensor> {
        eval("pseudo_huber", x, target, options)
    }
    /// The Chamfer distance of clouds [B, N, 3] and [B, M, 3], the mean over the batch; differentiable in both.
    ///
    /// Example: `loss::chamfer(zeros([2, 4, 3]), ones([2, 5, 3])).item()` is 6
    #[rhai_fn(return_raw)]
    pub fn chamfer(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        chamfer_with(x, target, Map::new())
    }
    /// The Chamfer distance of clouds [B, N, 3] and [B, M, 3] (see `metric::chamfer`); differentiable in both, nearest points held constant.
    ///
    /// Example: `loss::chamfer(zeros([2, 4, 3]), ones([2, 5, 3]), #{ reduction: "none" })` is [6, 6]
    #[rhai_fn(name = "chamfer", return_raw)]
    pub fn chamfer_with(x: Tensor, target: Tensor, options: Map) -> RhaiResult<Tensor> {
        let reduction = Reduction::of(CHAMFER.read(options)?.word("reduction"))?;
        // every point meets every other
        let load = aside::load_of_pairs(&[&x, &target]);
        Ok(aside::run(load, move || {
            let each = crate::metric::clouds::chamfer_loss(&x, &target)?;
            Ok(match reduction {
                Reduction::Mean => each.mean_all()?,
                Reduction::Sum => each.sum_all()?,
                Reduction::None => each,
            })
        })?)
    }
    /// The loss of that name as a function value: "l1", "l2", "huber" or "pseudo_huber".
    ///
    /// Example: `let f = loss::get("l2"); f.call(tensor([1.0, 3.0]), tensor([1.0, 1.0])).item()` is 2
    #[rhai_fn(return_raw)]
    pub fn get(name: &str) -> RhaiResult<FnPtr> {
        function(name, Map::new())
    }
    /// The loss of that name as a function value with the given options, to pass wherever a closure `|x, target|` goes.
    ///
    /// The options are those of the loss. Errors on an unknown name.
    ///
    /// Example: `let f = loss::get("huber", #{ delta: 0.1 }); f.call(tensor([1.0, 3.0]), tensor([1.0, 1.0]))`
    #[rhai_fn(name = "get", return_raw)]
    pub fn get_with(name: &str, options: Map) -> RhaiResult<FnPtr> {
        function(name, options)
    }
}
