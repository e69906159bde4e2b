//! Rhai functions for denoisers: module `denoiser`, and the methods of type `Denoiser`.
mod args;
mod make;
pub mod onnx;

pub use args::{cond_of, drawn_cond, value_of};
pub use make::{LOADING, Loading, denoiser_of};

use super::error::RhaiResult;
use super::host::ScriptHost;
use super::options::SESSION_SEED;
use crate::denoise::precond::nearest;
use crate::denoise::{
    Counting, DynDenoiser, Guided, Prediction, Reparam, Rule, Thresholded, at_level, draw_labels, hidden_at_level,
    one_hot,
};
use crate::noise::Noise;
use crate::real::host_values;
use crate::schema::{Kind as Of, Opt, Schema, above, count, value};
use crate::tensor::device::default_device;
use crate::{Error, Kind};
use args::{labels_of, level, negative_of, number};
use candle_core::{DType, Tensor};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};
use std::rc::Rc;

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<DynDenoiser>("Denoiser");
    engine.register_static_module("denoiser", rhai::exported_module!(make::denoiser_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

/// Evaluates at a VE noise level, recorded where x or sigma is tracked.
fn predict(
    context: &NativeCallContext,
    net: &DynDenoiser,
    x: &Tensor,
    sigma: &Dynamic,
    cond: Dynamic,
    want: Prediction,
) -> RhaiResult<Tensor> {
    let host = ScriptHost::new(context);
    Ok(at_level(&host, net, x, &level(sigma)?, &cond_of(net, x, cond)?, want)?)
}

/// What the network computes at a place, without gradient.
fn inside(
    context: &NativeCallContext,
    net: &DynDenoiser,
    x: &Tensor,
    sigma: &Dynamic,
    cond: Dynamic,
    place: &str,
) -> RhaiResult<Tensor> {
    let host = ScriptHost::new(context);
    Ok(hidden_at_level(&host, net, x, &level(sigma)?, &cond_of(net, x, cond)?, place)?)
}

const THRESHOLDED: Schema = Schema::new(
    "thresholded",
    &[
        above("percentile", 0.995, [0.0, 1.0], "the quantile of |x̂_0| that s is"),
        above("max", 1.0, [0.0, f64::MAX], "the data's largest value, and the least s"),
    ],
);
/// The number of the first of several samples.
pub const FIRST: Opt = count("first", 0, [0, usize::MAX], "number of the first sample");
const LABELS: Schema = Schema::new("labels", &[SESSION_SEED, FIRST]);
/// A denoiser.
const DENOISER: Of = Of::Native("Denoiser", "denoiser");
const GUIDED: Schema = Schema::new(
    "guided",
    &[
        value("interval", Of::List(&Of::NUMBER, 2), "everywhere", "[lo, hi], guides only at noise levels σ/α between"),
        value(
            "negative",
            Of::Any,
            "rows of zeros",
            "the condition of the other run, a null or negative prompt's: a tensor [1, …] or [B, …], a label, or a map of tensors by the \
             names of the network's conditions",
        ),
        value("uncond", Of::Any, "none", "the same by its older name"),
        value(
            "by",
            DENOISER,
            "none",
            "another denoiser, whose prediction guidance leads away from: a smaller or less trained one under the same condition \
             (autoguidance), or one without conditions",
        ),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[&[Schema]] = &[&[THRESHOLDED, LABELS, GUIDED], make::SCHEMAS];

fn thresholded_with(net: &DynDenoiser, options: Map) -> RhaiResult<DynDenoiser> {
    let o = THRESHOLDED.read(options)?;
    let (percentile, max) = (o.number("percentile"), o.number("max"));
    Ok(Rc::new(Thresholded::new(net.clone(), Rule::Dynamic { percentile, max })?))
}

fn draw(net: &DynDenoiser, n: INT, options: Map) -> RhaiResult<Array> {
    let o = LABELS.read(options)?;
    if net.classes() == 0 {
        return Err(Error::value("labels: this denoiser is not class-conditional").into());
    }
    let count = usize::try_from(n).ok().filter(|n| (1..=1 << 24).contains(n));
    let Some(count) = count else {
        return Err(Error::value(format!("labels: the number of labels must be from 1 to {}, not {n}", 1 << 24)).into());
    };
    let labels = draw_labels(o.seed(), o.count("first") as u64, count, net.classes());
    Ok(labels.into_iter().map(Dynamic::from_int).collect())
}

/// What a denoiser can be asked, and the adapters around it.
#[export_module]
mod methods {
    /// The noise levels nearest to `sigma` among those that the network was trained at.
    ///
    /// `sigma` is a number or a tensor of VE noise levels σ/α; the result is of the same kind (a tensor in f64). Networks with
    /// iDDPM preconditioning know only their training steps' levels; for all others this changes nothing.
    ///
    /// Example: `denoiser::load("fashion28").round_sigma(2.5)`
    #[rhai_fn(return_raw, pure)]
    pub fn round_sigma(net: &mut DynDenoiser, sigma: Dynamic) -> RhaiResult<Dynamic> {
        let Some(levels) = net.known_levels() else { return Ok(sigma) };
        let near = |s: &f64| levels.get(nearest(levels, *s)).copied().unwrap_or(*s);
        let given = level(&sigma)?;
        let rounded: Vec<f64> = host_values(&given)?.iter().map(near).collect();
        Ok(match rounded[..] {
            [s] if !sigma.is::<Tensor>() => s.into(),
            _ => {
                let t = Tensor::from_vec(rounded, given.dims(), &candle_core::Device::Cpu).map_err(Error::from)?;
                Dynamic::from(t.to_device(given.device()).map_err(Error::from)?)
            }
        })
    }
    /// The data prediction: the denoiser's estimate of x_0 from `x`, of x's shape.
    ///
    /// `x` [B, …] is in the denoiser's own scaling α x_0 + σ ε (for EDM x_0 + σ ε), `sigma` the VE noise level σ/α: a number, or
    /// a tensor [B] with one per sample. A class-conditional denoiser runs without a class. Differentiable in `x` and in
    /// `sigma`. Errors on a wrong shape, sigma ≤ 0 or NaN, and levels outside the network's range.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); net.denoise(randn([4, 2]), 2.5)`
    #[rhai_fn(return_raw, pure)]
    pub fn denoise(context: NativeCallContext, net: &mut DynDenoiser, x: Tensor, sigma: Dynamic) -> RhaiResult<Tensor> {
        predict(&context, net, &x, &sigma, Dynamic::UNIT, Prediction::Data)
    }
    /// The names of the places in the network at which `hidden` can look, in the order in which they are computed; empty for closed forms and
    /// functions.
    ///
    /// Example: `"dec.14x14_block1.conv1" in denoiser::load("fashion28").places` is true
    #[rhai_fn(get = "places", pure)]
    pub fn places(net: &mut DynDenoiser) -> Array {
        net.places().into_iter().map(Dynamic::from).collect()
    }
    /// What the network computes at a place on its way, without gradient: features of `x` at noise level `sigma`, for a method that adapts to each sample.
    ///
    /// `x` and `sigma` as for `denoise`. `place`: one of `places`, or the beginning of some up to a dot, which stands for the last of them (a whole block).
    /// Images of features are [B, C, H, W]. It runs the network up to there, which is counted as an evaluation; of a guided denoiser, the conditional one.
    ///
    /// Errors: kind `name` for a place that is not there, with the nearest.
    ///
    /// Example: `denoiser::load("fashion28").hidden(randn([2, 1, 28, 28]), 2.5, "enc.7x7_block0").shape[2]` is 7
    #[rhai_fn(return_raw, pure)]
    pub fn hidden(
        context: NativeCallContext,
        net: &mut DynDenoiser,
        x: Tensor,
        sigma: Dynamic,
        place: &str,
    ) -> RhaiResult<Tensor> {
        inside(&context, net, &x, &sigma, Dynamic::UNIT, place)
    }
    /// What the network computes at a place under a condition, which is given as for `denoise`.
    ///
    /// Example: `denoiser::load("fashion28").hidden(randn([2, 1, 28, 28]), 2.5, [3, 5], "enc.7x7_block0").shape[0]` is 2
    #[rhai_fn(name = "hidden", return_raw, pure)]
    pub fn hidden_cond(
        context: NativeCallContext,
        net: &mut DynDenoiser,
        x: Tensor,
        sigma: Dynamic,
        cond: Dynamic,
        place: &str,
    ) -> RhaiResult<Tensor> {
        inside(&context, net, &x, &sigma, cond, place)
    }
    /// The data prediction under a condition.
    ///
    /// `cond` is an array of labels (one per sample), a single label for all, rows [B, classes], a map of conditions by name with one
    /// row per sample or one for all (as a text encoder's `encode` makes them), `()` for none, or whatever value a network of
    /// `denoiser::from_fn` takes. Otherwise as without condition.
    ///
    /// Example: `let net = denoiser::load("fashion28"); net.denoise(randn([2, 1, 28, 28]), 2.5, [3, 5]).shape` is [2, 1, 28, 28]
    #[rhai_fn(name = "denoise", return_raw, pure)]
    pub fn denoise_cond(
        context: NativeCallContext,
        net: &mut DynDenoiser,
        x: Tensor,
        sigma: Dynamic,
        cond: Dynamic,
    ) -> RhaiResult<Tensor> {
        predict(&context, net, &x, &sigma, cond, Prediction::Data)
    }
    /// The noise prediction: the denoiser's estimate of ε = (x − α x_0)/σ, of x's shape.
    ///
    /// Arguments and errors as for `denoise`.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); net.predict_noise(randn([4, 2]), 2.5)`
    #[rhai_fn(return_raw, pure)]
    pub fn predict_noise(
        context: NativeCallContext,
        net: &mut DynDenoiser,
        x: Tensor,
        sigma: Dynamic,
    ) -> RhaiResult<Tensor> {
        predict(&context, net, &x, &sigma, Dynamic::UNIT, Prediction::Noise)
    }
    /// The noise prediction under a condition.
    ///
    /// Arguments and errors as for `denoise`.
    ///
    /// Example: `let net = denoiser::load("fashion28"); net.predict_noise(randn([1, 1, 28, 28]), 2.5, 3).shape` is [1, 1, 28, 28]
    #[rhai_fn(name = "predict_noise", return_raw, pure)]
    pub fn predict_noise_cond(
        context: NativeCallContext,
        net: &mut DynDenoiser,
        x: Tensor,
        sigma: Dynamic,
        cond: Dynamic,
    ) -> RhaiResult<Tensor> {
        predict(&context, net, &x, &sigma, cond, Prediction::Noise)
    }

    /// The denoiser under classifier-free guidance: m_u + scale·(m_c − m_u), from the conditional and the unconditional run.
    ///
    /// Ho & Salimans, 2022. 1 is no guidance, 0 ignores the condition. Both runs go through the network as one batch, and count
    /// as one evaluation. "No condition" is a row of zeros. Without a condition nothing is guided.
    ///
    /// Example: `let net = denoiser::load("fashion28"); net.guided(2.0).runs` is 2
    #[rhai_fn(return_raw, pure)]
    pub fn guided(net: &mut DynDenoiser, scale: Dynamic) -> RhaiResult<DynDenoiser> {
        Ok(Rc::new(Guided::new(net.clone(), number("guided", &scale)?)?))
    }
    /// The denoiser under classifier-free guidance, within an interval of noise levels or away from a condition of one's own.
    ///
    /// Example: `let net = denoiser::load("fashion28"); net.guided(2.0, #{ interval: [0.3, 5.0] })`
    #[rhai_fn(name = "guided", return_raw, pure)]
    pub fn guided_with(net: &mut DynDenoiser, scale: Dynamic, options: Map) -> RhaiResult<DynDenoiser> {
        let mut guided = Guided::new(net.clone(), number("guided", &scale)?)?;
        let o = GUIDED.read(options)?;
        if let Some(&[lo, hi]) = o.numbers("interval").as_deref() {
            guided = guided.interval(lo, hi)?;
        }
        if let Some(cond) = o.get("negative").or(o.get("uncond")) {
            guided = guided.uncond(negative_of(net, cond)?);
        }
        if let Some(other) = o.native("by") {
            guided = guided.by(other)?;
        }
        Ok(Rc::new(guided))
    }
    /// The denoiser with its data prediction limited to [−1, 1]; no gradient flows where it is outside.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); net.clamped()`
    #[rhai_fn(return_raw, pure)]
    pub fn clamped(net: &mut DynDenoiser) -> RhaiResult<DynDenoiser> {
        Ok(Rc::new(Thresholded::new(net.clone(), Rule::Clamp { lo: -1.0, hi: 1.0 })?))
    }
    /// The denoiser with its data prediction limited to [lo, hi]; no gradient flows where it is outside.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); net.clamped(0.0, 1.0).denoise(randn([1, 2]), 0.5)`
    #[rhai_fn(name = "clamped", return_raw, pure)]
    pub fn clamped_to(net: &mut DynDenoiser, lo: Dynamic, hi: Dynamic) -> RhaiResult<DynDenoiser> {
        let rule = Rule::Clamp { lo: number("clamped", &lo)?, hi: number("clamped", &hi)? };
        Ok(Rc::new(Thresholded::new(net.clone(), rule)?))
    }
    /// The denoiser with dynamic thresholding (Imagen) at the 0.995 quantile.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); net.thresholded()`
    #[rhai_fn(return_raw, pure)]
    pub fn thresholded(net: &mut DynDenoiser) -> RhaiResult<DynDenoiser> {
        thresholded_with(net, Map::new())
    }
    /// The denoiser with dynamic thresholding (Imagen): each sample's data prediction is limited to [−s, s] and multiplied by max/s.
    ///
    /// Saharia et al., 2022. Gradients flow through the quantile too, and not where x̂_0 is outside.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); net.thresholded(#{ percentile: 0.99 })`
    #[rhai_fn(name = "thresholded", return_raw, pure)]
    pub fn thresholded_options(net: &mut DynDenoiser, options: Map) -> RhaiResult<DynDenoiser> {
        thresholded_with(net, options)
    }
    /// The denoiser, counted from zero: `.nfe` tells the evaluations that went through it, `.work` the samples; `.reset()` starts again.
    ///
    /// Adapters around a counted denoiser show its count too. A guided evaluation counts as one.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); let net = net.counted(); sample(net, solver::heun(), schedule::edm(net.noise, 3), 2); net.nfe` is 6
    #[rhai_fn(pure)]
    pub fn counted(net: &mut DynDenoiser) -> DynDenoiser {
        Rc::new(Counting::new(net.clone()))
    }
    /// The evaluations that a counted denoiser has made. Errors on one that is not counted.
    #[rhai_fn(get = "nfe", return_raw, pure)]
    pub fn denoiser_nfe(net: &mut DynDenoiser) -> RhaiResult<INT> {
        Ok(counter(net)?.nfe() as INT)
    }
    /// What a counted denoiser was asked for, sample by sample: `evaluated`, `pulled` (samples differentiated), and `units` =
    /// evaluated + 2 · pulled, as a pull-back costs about two evaluations. Errors on one that is not counted.
    #[rhai_fn(get = "work", return_raw, pure)]
    pub fn denoiser_work(net: &mut DynDenoiser) -> RhaiResult<Map> {
        let c = counter(net)?;
        let entry = |name: &str, n: u64| (name.into(), Dynamic::from_int(n as INT));
        let (evaluated, pulled) = (c.samples(), c.pulled());
        Ok([entry("evaluated", evaluated), entry("pulled", pulled), entry("units", evaluated + 2 * pulled)].into())
    }
    /// Sets the count of a counted denoiser back to zero.
    ///
    /// Errors on a denoiser that is not counted.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5] }).counted(); net.denoise(ones([1, 1]), 1.0); net.reset(); net.nfe` is 0
    #[rhai_fn(return_raw, pure)]
    pub fn reset(net: &mut DynDenoiser) -> RhaiResult<()> {
        counter(net)?.reset();
        Ok(())
    }
    /// The same denoiser expressed in another noise schedule: same noise levels σ/α, another scaling and another time.
    ///
    /// Gradients stay exact. Noise levels that the network was not trained at remain errors.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); net.with_noise(noise::vp_linear()).noise.name` is "vp_linear"
    #[rhai_fn(pure)]
    pub fn with_noise(net: &mut DynDenoiser, noise: Noise) -> DynDenoiser {
        Reparam::wrap(net.clone(), noise)
    }

    /// The noise schedule in which the denoiser's x and t are expressed.
    #[rhai_fn(get = "noise", pure)]
    pub fn denoiser_noise(net: &mut DynDenoiser) -> Noise {
        net.noise().clone()
    }
    /// The number of classes; 0 for a denoiser that is not class-conditional.
    #[rhai_fn(get = "classes", pure)]
    pub fn denoiser_classes(net: &mut DynDenoiser) -> INT {
        net.classes() as INT
    }
    /// The shape of one sample as an array, without the batch dimension; `()` where any shape will do.
    #[rhai_fn(get = "shape", pure)]
    pub fn denoiser_shape(net: &mut DynDenoiser) -> Dynamic {
        let array = |s: Vec<usize>| s.into_iter().map(|d| Dynamic::from_int(d as INT)).collect::<Array>();
        net.sample_shape().map_or(Dynamic::UNIT, |s| array(s).into())
    }
    /// A hash of all that determines the denoiser's outputs; `()` where it cannot be known (a script's function).
    #[rhai_fn(get = "hash", pure)]
    pub fn denoiser_hash(net: &mut DynDenoiser) -> Dynamic {
        net.hash().map_or(Dynamic::UNIT, Dynamic::from)
    }
    /// How many runs of the network one evaluation costs (2 under guidance).
    #[rhai_fn(get = "runs", pure)]
    pub fn denoiser_runs(net: &mut DynDenoiser) -> INT {
        net.runs_per_eval() as INT
    }
    /// The denoiser in a few words.
    ///
    /// Example: `denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }).describe()`
    #[rhai_fn(name = "describe", pure)]
    pub fn denoiser_describe(net: &mut DynDenoiser) -> ImmutableString {
        net.describe().into()
    }
    /// One line that says what the denoiser is.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn denoiser_text(net: &mut DynDenoiser) -> ImmutableString {
        net.describe().into()
    }

    /// The condition rows [labels, classes] of a class-conditional denoiser for an array or tensor of labels.
    ///
    /// Errors on a label that is not a class, and on a denoiser without classes.
    ///
    /// Example: `let net = denoiser::load("fashion28"); net.cond([3, 5]).shape` is [2, 10]
    #[rhai_fn(return_raw, pure)]
    pub fn cond(net: &mut DynDenoiser, labels: Dynamic) -> RhaiResult<Tensor> {
        if net.classes() == 0 {
            return Err(Error::value("cond: this denoiser is not class-conditional").into());
        }
        Ok(one_hot(&labels_of("cond", labels)?, net.classes(), DType::F32, &default_device())?)
    }
    /// `n` labels drawn uniformly from the denoiser's classes by the session's seed, others at each call, as an array.
    ///
    /// Example: `let net = denoiser::load("fashion28"); net.cond(net.labels(16)).shape` is [16, 10]
    #[rhai_fn(return_raw, pure)]
    pub fn labels(net: &mut DynDenoiser, n: INT) -> RhaiResult<Array> {
        draw(net, n, Map::new())
    }
    /// `n` labels drawn uniformly from the denoiser's classes, as an array. Label i depends on the seed and on i only.
    ///
    /// `sample` and `solve` draw the same labels where they are given no `cond`.
    ///
    /// Example: `let net = denoiser::load("fashion28"); net.labels(4, #{ seed: 1 })`
    #[rhai_fn(name = "labels", return_raw, pure)]
    pub fn labels_with(net: &mut DynDenoiser, n: INT, options: Map) -> RhaiResult<Array> {
        draw(net, n, options)
    }
}

fn counter(net: &DynDenoiser) -> crate::Result<&crate::denoise::Counter> {
    net.counter().ok_or_else(|| {
        Error::new(Kind::Value, "this denoiser is not counted").hint("count with `let net = net.counted();`")
    })
}
