//! Rhai functions for optimizers: module `optim`, types `Optimizer` and `Plateau`, `clip_norm`, `project_ball`.
use super::error::RhaiResult;
use super::options::Options;
use super::tree::Tree;
use crate::optim::{Optimizer, Plateau, Rule, Slot, State};
use crate::{Error, Kind};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, Map};
use std::cell::RefCell;
use std::rc::Rc;

/// An optimizer as scripts hold it: copies are the same optimizer.
#[derive(Clone)]
pub struct SharedOptimizer(Rc<RefCell<Optimizer>>);

/// A plateau counter as scripts hold it: copies are the same counter.
#[derive(Clone)]
pub struct SharedPlateau(Rc<RefCell<Plateau>>);

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<SharedOptimizer>("Optimizer");
    engine.register_type_with_name::<SharedPlateau>("Plateau");
    engine.register_static_module("optim", rhai::exported_module!(optim_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

fn make(name: &str, map: Map) -> RhaiResult<SharedOptimizer> {
    let mut o = Options::new(&format!("optim::{name}"), map);
    let mut rule = match name {
        "sgd" => Rule::sgd(),
        "rmsprop" => Rule::rmsprop(),
        "adam" => Rule::adam(),
        "muon" => Rule::muon(),
        _ => Rule::adamw(),
    };
    let set = |o: &mut Options, key: &'static str, v: &mut f64| -> RhaiResult<()> {
        *v = o.float(key)?.unwrap_or(*v);
        Ok(())
    };
    match &mut rule {
        Rule::Sgd { momentum, dampening, weight_decay, nesterov } => {
            set(&mut o, "momentum", momentum)?;
            set(&mut o, "dampening", dampening)?;
            set(&mut o, "weight_decay", weight_decay)?;
            *nesterov = o.bool("nesterov")?.unwrap_or(*nesterov);
        }
        Rule::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
            set(&mut o, "alpha", alpha)?;
            set(&mut o, "eps", eps)?;
            set(&mut o, "weight_decay", weight_decay)?;
            set(&mut o, "momentum", momentum)?;
            *centered = o.bool("centered")?.unwrap_or(*centered);
        }
        Rule::Adam { betas, eps, weight_decay, amsgrad, .. } => {
            *betas = betas_of(name, &mut o)?.unwrap_or(*betas);
            set(&mut o, "eps", eps)?;
            set(&mut o, "weight_decay", weight_decay)?;
            *amsgrad = o.bool("amsgrad")?.unwrap_or(*amsgrad);
        }
        Rule::Muon { momentum, nesterov, weight_decay, steps, rms, betas, eps, ratio, others } => {
            set(&mut o, "momentum", momentum)?;
            set(&mut o, "weight_decay", weight_decay)?;
            set(&mut o, "eps", eps)?;
            set(&mut o, "ratio", ratio)?;
            *nesterov = o.bool("nesterov")?.unwrap_or(*nesterov);
            *steps = o.count("steps")?.unwrap_or(*steps);
            *rms = o.one_of("adjust", &["rms", "original"])?.is_none_or(|a| a == "rms");
            *betas = betas_of(name, &mut o)?.unwrap_or(*betas);
            if let Some(a) = o.array("others")? {
                let text = |v: &Dynamic| v.clone().into_string().ok();
                let wrong = || Error::new(Kind::Type, "optim::muon: option `others` must be an array of texts");
                *others = a.iter().map(text).collect::<Option<Vec<String>>>().ok_or_else(wrong)?;
            }
        }
    }
    let lr = o.float("lr")?.unwrap_or_else(|| rule.default_lr());
    o.finish()?;
    Ok(SharedOptimizer(Rc::new(RefCell::new(Optimizer::new(rule, lr)?))))
}

/// The option `betas`.
fn betas_of(name: &str, o: &mut Options) -> RhaiResult<Option<(f64, f64)>> {
    let Some(a) = o.array("betas")? else { return Ok(None) };
    let number = |v: &Dynamic| v.as_float().ok().or_else(|| v.as_int().ok().map(|i| i as f64));
    match a.iter().map(number).collect::<Option<Vec<f64>>>().as_deref() {
        Some(&[b1, b2]) => Ok(Some((b1, b2))),
        _ => {
            let m = format!("optim::{name}: option `betas` must be two numbers, like [0.9, 0.999]");
            Err(Error::new(Kind::Type, m).into())
        }
    }
}

fn required<T>(what: &str, v: Option<T>) -> RhaiResult<T> {
    v.ok_or_else(|| Error::value(format!("load_state: the state has no `{what}`")).into())
}

fn read_state(map: Map) -> RhaiResult<State> {
    let mut o = Options::new("load_state", map);
    let rule = required("rule", o.string("rule")?)?;
    let lr = required("lr", o.float("lr")?)?;
    let mut slots = vec![];
    for slot in required("slots", o.array("slots")?)? {
        let Some(mut slot) = slot.try_cast::<Map>() else {
            return Err(Error::new(Kind::Type, "load_state: each of `slots` must be a map").into());
        };
        let step = slot.remove("step").and_then(|v| v.as_int().ok()).and_then(|i| u64::try_from(i).ok());
        let mut one = Slot { step: required("step", step)?, ..Slot::default() };
        for (name, v) in slot {
            let Some(t) = v.try_cast::<Tensor>() else {
                return Err(Error::new(Kind::Type, format!("load_state: `{name}` must be a tensor")).into());
            };
            one.buffers.insert(name.into(), t);
        }
        slots.push(one);
    }
    let paths = o.array("paths")?.unwrap_or_default();
    o.finish()?;
    let path = |v: Dynamic| {
        v.into_string()
            .map_err(|t| Error::new(Kind::Type, format!("load_state: each of `paths` must be a text, not {t}")))
    };
    let paths = paths.into_iter().map(path).collect::<Result<_, Error>>()?;
    Ok(State { rule, lr, slots, paths })
}

/// Optimizers with PyTorch's update rules and defaults.
#[export_module]
mod optim_api {
    /// Gradient descent with learning rate 0.001.
    #[rhai_fn(return_raw)]
    pub fn sgd() -> RhaiResult<SharedOptimizer> {
        make("sgd", Map::new())
    }
    /// Gradient descent, as `torch.optim.SGD`.
    ///
    /// Options:
    /// - `lr` (0.001): the learning rate
    /// - `momentum` (0.0), `dampening` (0.0): b ← momentum·b + (1 − dampening)·g
    /// - `weight_decay` (0.0): times the parameter, added to the gradient
    /// - `nesterov` (false): look ahead along the momentum
    ///
    /// Example: `optim::sgd(#{ lr: 0.1, momentum: 0.9 })`
    #[rhai_fn(name = "sgd", return_raw)]
    pub fn sgd_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make("sgd", options)
    }
    /// RMSprop with learning rate 0.01.
    #[rhai_fn(return_raw)]
    pub fn rmsprop() -> RhaiResult<SharedOptimizer> {
        make("rmsprop", Map::new())
    }
    /// RMSprop, as `torch.optim.RMSprop`.
    ///
    /// Options:
    /// - `lr` (0.01): the learning rate
    /// - `alpha` (0.99): of the running mean of g²
    /// - `eps` (1e-8): added to its root
    /// - `weight_decay` (0.0): times the parameter, added to the gradient
    /// - `momentum` (0.0): of the update
    /// - `centered` (false): subtract the squared running mean of g
    ///
    /// Example: `optim::rmsprop(#{ lr: 0.005, momentum: 0.9 })`
    #[rhai_fn(name = "rmsprop", return_raw)]
    pub fn rmsprop_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make("rmsprop", options)
    }
    /// Adam with learning rate 0.001.
    #[rhai_fn(return_raw)]
    pub fn adam() -> RhaiResult<SharedOptimizer> {
        make("adam", Map::new())
    }
    /// Adam, as `torch.optim.Adam`.
    ///
    /// Options:
    /// - `lr` (0.001): the learning rate
    /// - `betas` ([0.9, 0.999]): of the running means of g and g²
    /// - `eps` (1e-8): added to the root
    /// - `weight_decay` (0.0): times the parameter, added to the gradient
    /// - `amsgrad` (false): divide by the largest running mean so far
    ///
    /// Example: `optim::adam(#{ lr: 0.01, betas: [0.9, 0.99] })`
    #[rhai_fn(name = "adam", return_raw)]
    pub fn adam_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make("adam", options)
    }
    /// AdamW with learning rate 0.001 and weight decay 0.01.
    #[rhai_fn(return_raw)]
    pub fn adamw() -> RhaiResult<SharedOptimizer> {
        make("adamw", Map::new())
    }
    /// AdamW, as `torch.optim.AdamW`: weight decay apart from the gradient.
    ///
    /// Options:
    /// - `lr` (0.001): the learning rate
    /// - `betas` ([0.9, 0.999]): of the running means of g and g²
    /// - `eps` (1e-8): added to the root
    /// - `weight_decay` (0.01): how much of lr times the parameter goes at each step
    /// - `amsgrad` (false): divide by the largest running mean so far
    ///
    /// Example: `optim::adamw(#{ weight_decay: 0.1 })`
    #[rhai_fn(name = "adamw", return_raw)]
    pub fn adamw_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make("adamw", options)
    }
    /// Muon with learning rate 0.001 and weight decay 0.1.
    #[rhai_fn(return_raw)]
    pub fn muon() -> RhaiResult<SharedOptimizer> {
        make("muon", Map::new())
    }
    /// Muon: the momentum of every matrix made orthogonal (Jordan et al., 2024), as `torch.optim.Muon` but in the parameters' precision.
    ///
    /// The weight of a convolution is a matrix with a row for each output. What has fewer than two dimensions goes by AdamW.
    ///
    /// Options:
    /// - `lr` (0.001): the learning rate
    /// - `momentum` (0.95): of the running mean of g
    /// - `nesterov` (true): look ahead along the momentum
    /// - `weight_decay` (0.1): how much of lr times the parameter goes at each step
    /// - `steps` (5): of the Newton–Schulz iteration
    /// - `adjust` ("rms"): the size of updates: as large as AdamW's, 0.2·√max(rows, columns), for the same rates; or "original", √max(1, rows/columns)
    /// - `betas` ([0.9, 0.999]), `eps` (1e-8): of AdamW
    /// - `ratio` (1.0): AdamW's learning rate over Muon's
    /// - `others` ([]): beginnings of the paths of matrices that go by AdamW too, such as embeddings and the last layer
    ///
    /// Example: `optim::muon(#{ lr: 0.02, adjust: "original", ratio: 0.05, others: ["out"] })`
    #[rhai_fn(name = "muon", return_raw)]
    pub fn muon_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make("muon", options)
    }
    /// A counter that says when to decay a learning rate: factor 0.8 after 5 losses without improvement.
    #[rhai_fn(return_raw)]
    pub fn plateau() -> RhaiResult<SharedPlateau> {
        plateau_with(Map::new())
    }
    /// A counter that says when to decay a learning rate, because a validation loss stopped improving.
    ///
    /// Options:
    /// - `factor` (0.8): what a rate is multiplied by, in (0, 1]
    /// - `patience` (5): losses without improvement before a decay
    /// - `floor` (0.0): no rate decays below it
    ///
    /// Example: `let p = optim::plateau(#{ patience: 1, floor: 5e-5 }); p.step(0.5); p.step(0.6); p.decay(0.1)`
    #[rhai_fn(name = "plateau", return_raw)]
    pub fn plateau_with(options: Map) -> RhaiResult<SharedPlateau> {
        let mut o = Options::new("optim::plateau", options);
        let factor = o.float("factor")?.unwrap_or(0.8);
        let patience = o.count("patience")?.unwrap_or(5) as u64;
        let floor = o.float("floor")?.unwrap_or(0.0);
        o.finish()?;
        Ok(SharedPlateau(Rc::new(RefCell::new(Plateau::new(factor, patience, floor)?))))
    }
}

/// What optimizers and plateau counters do, clipping and projection.
#[export_module]
mod methods {
    /// Updates parameters by their gradients: returns new variables with the new values.
    ///
    /// Arguments: a tree of tensors (a tensor, or maps and arrays of them, one in the other) and one of gradients, of the same structure
    /// and shapes; what comes back has that structure too. State is kept for each leaf. Errors name the leaf: another structure or
    /// shape than before, gradients that are not finite; the state is then as it was.
    ///
    /// Example: `let opt = optim::sgd(#{ lr: 0.1 }); let p = variable(#{ w: tensor([1.0]) }); opt.step(p, grad((p.w * p.w).sum(), p)).w` is [0.8]
    #[rhai_fn(return_raw, pure)]
    pub fn step(optimizer: &mut SharedOptimizer, parameters: Dynamic, gradients: Dynamic) -> RhaiResult<Dynamic> {
        let p = Tree::read("step: the parameters", &parameters)?;
        let g = p.like("the parameters", "step: the gradients", &gradients)?;
        let new = optimizer.0.borrow_mut().step_named(&p.paths, &p.leaves, &g.leaves)?;
        Ok(p.build(new))
    }
    /// The learning rate.
    #[rhai_fn(get = "lr", pure)]
    pub fn lr(optimizer: &mut SharedOptimizer) -> FLOAT {
        optimizer.0.borrow().lr()
    }
    /// Changes the learning rate.
    #[rhai_fn(set = "lr", return_raw)]
    pub fn set_lr(optimizer: &mut SharedOptimizer, lr: FLOAT) -> RhaiResult<()> {
        Ok(optimizer.0.borrow_mut().set_lr(lr)?)
    }
    /// Changes the learning rate.
    #[rhai_fn(set = "lr", return_raw)]
    pub fn set_lr_int(optimizer: &mut SharedOptimizer, lr: INT) -> RhaiResult<()> {
        Ok(optimizer.0.borrow_mut().set_lr(lr as f64)?)
    }
    /// The number of updates so far.
    #[rhai_fn(get = "steps", pure)]
    pub fn steps(optimizer: &mut SharedOptimizer) -> INT {
        INT::try_from(optimizer.0.borrow().steps()).unwrap_or(INT::MAX)
    }
    /// All that is needed to go on with the same bits, a map for `load_state` and `state::save`.
    ///
    /// Its fields: `rule`, the optimizer's name; `lr`; `slots`, a map for each parameter in their order: `step`, and the moments that
    /// the rule keeps, tensors by name; `paths`, where each stands in its tree.
    ///
    /// Example: `let opt = optim::adam(); opt.step([ones([2])], [ones([2])]); opt.state().lr` is 0.001
    #[rhai_fn(name = "state", pure)]
    pub fn optimizer_state(optimizer: &mut SharedOptimizer) -> Map {
        let state = optimizer.0.borrow().state();
        let slot = |s: Slot| {
            let step = INT::try_from(s.step).unwrap_or(INT::MAX);
            let mut m: Map = s.buffers.into_iter().map(|(k, t)| (k.into(), Dynamic::from(t))).collect();
            m.insert("step".into(), step.into());
            Dynamic::from(m)
        };
        Map::from([
            ("rule".into(), state.rule.into()),
            ("lr".into(), state.lr.into()),
            ("slots".into(), state.slots.into_iter().map(slot).collect::<Array>().into()),
            ("paths".into(), state.paths.into_iter().map(Dynamic::from).collect::<Array>().into()),
        ])
    }
    /// Restores what `state()` returned, into an optimizer of the same kind.
    ///
    /// Errors on the state of another kind of optimizer.
    ///
    /// Example: `let opt = optim::adam(); let again = optim::adam(); again.load_state(opt.state());`
    #[rhai_fn(name = "load_state", return_raw, pure)]
    pub fn load_optimizer(optimizer: &mut SharedOptimizer, state: Map) -> RhaiResult<()> {
        let state = read_state(state)?;
        Ok(optimizer.0.borrow_mut().load_state(state)?)
    }
    /// One line about the optimizer.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn optimizer_to_string(optimizer: &mut SharedOptimizer) -> String {
        let o = optimizer.0.borrow();
        format!("{} (lr {}, {} steps)", o.rule().name(), o.lr(), o.steps())
    }

    /// Takes the next validation loss; true when it is time to decay (patience ran out, and counts again from 0).
    ///
    /// Example: `let p = optim::plateau(#{ patience: 1 }); p.step(0.5)` is false
    #[rhai_fn(name = "step", pure)]
    pub fn plateau_step(plateau: &mut SharedPlateau, loss: FLOAT) -> bool {
        plateau.0.borrow_mut().step(loss)
    }
    /// Takes the next validation loss; true when it is time to decay.
    #[rhai_fn(name = "step", pure)]
    pub fn plateau_step_int(plateau: &mut SharedPlateau, loss: INT) -> bool {
        plateau.0.borrow_mut().step(loss as f64)
    }
    /// Takes the next validation loss, a tensor with one element; true when it is time to decay.
    #[rhai_fn(name = "step", return_raw, pure)]
    pub fn plateau_step_tensor(plateau: &mut SharedPlateau, loss: Tensor) -> RhaiResult<bool> {
        let values = crate::real::host_values(&loss.detach())?;
        let [loss] = values[..] else {
            let m = format!("step: the loss must be a number, not a tensor of shape {:?}", loss.dims());
            return Err(Error::shape(m, &[loss.dims()]).into());
        };
        Ok(plateau.0.borrow_mut().step(loss))
    }
    /// The learning rate after a decay, not below the floor; counts in `floored` when it was there already.
    ///
    /// Example: `optim::plateau(#{ factor: 0.5 }).decay(0.1)` is 0.05
    #[rhai_fn(pure)]
    pub fn decay(plateau: &mut SharedPlateau, lr: FLOAT) -> FLOAT {
        plateau.0.borrow_mut().decay(lr)
    }
    /// The learning rate after a decay, not below the floor.
    #[rhai_fn(name = "decay", pure)]
    pub fn decay_int(plateau: &mut SharedPlateau, lr: INT) -> FLOAT {
        plateau.0.borrow_mut().decay(lr as f64)
    }
    /// The lowest loss so far; infinite before the first.
    #[rhai_fn(get = "best", pure)]
    pub fn best(plateau: &mut SharedPlateau) -> FLOAT {
        plateau.0.borrow().best
    }
    /// The number of losses since the last improvement or decay.
    #[rhai_fn(get = "bad", pure)]
    pub fn bad(plateau: &mut SharedPlateau) -> INT {
        plateau.0.borrow().bad as INT
    }
    /// How often `step` said to decay.
    #[rhai_fn(get = "decays", pure)]
    pub fn decays(plateau: &mut SharedPlateau) -> INT {
        plateau.0.borrow().decays as INT
    }
    /// How often `decay` was called with a rate that was at the floor already.
    #[rhai_fn(get = "floored", pure)]
    pub fn floored(plateau: &mut SharedPlateau) -> INT {
        plateau.0.borrow().floored as INT
    }
    /// The counters, a map for `load_state` and `state::save`.
    ///
    /// Its fields: `best`, the lowest loss; `bad`, validations since then or since the last decay; `decays`, how many were asked for;
    /// `floored`, how many rates were at the floor already.
    ///
    /// Example: `optim::plateau().state().bad` is 0
    #[rhai_fn(name = "state", pure)]
    pub fn plateau_state(plateau: &mut SharedPlateau) -> Map {
        let p = plateau.0.borrow();
        Map::from([
            ("best".into(), p.best.into()),
            ("bad".into(), (p.bad as INT).into()),
            ("decays".into(), (p.decays as INT).into()),
            ("floored".into(), (p.floored as INT).into()),
        ])
    }
    /// Restores what `state()` returned.
    ///
    /// Example: `let p = optim::plateau(); optim::plateau().load_state(p.state());`
    #[rhai_fn(name = "load_state", return_raw, pure)]
    pub fn load_plateau(plateau: &mut SharedPlateau, state: Map) -> RhaiResult<()> {
        let mut o = Options::new("load_state", state);
        let best = required("best", o.float("best")?)?;
        let bad = required("bad", o.count("bad")?)? as u64;
        let decays = required("decays", o.count("decays")?)? as u64;
        let floored = required("floored", o.count("floored")?)? as u64;
        o.finish()?;
        let mut p = plateau.0.borrow_mut();
        (p.best, p.bad, p.decays, p.floored) = (best, bad, decays, floored);
        Ok(())
    }
    /// One line about the counter.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn plateau_to_string(plateau: &mut SharedPlateau) -> String {
        let p = plateau.0.borrow();
        format!("plateau (best {}, {} of {} without improvement, {} decays)", p.best, p.bad, p.patience, p.decays)
    }

    /// Scales gradients so that their total L2 norm is at most `max`, as `torch.nn.utils.clip_grad_norm_`.
    ///
    /// Arguments: a tree of tensors (a tensor, or maps and arrays of them), the largest norm. Returns `#{ grads, norm }` with the tree and the
    /// norm before clipping. Errors where the norm is not finite, and names the leaf.
    ///
    /// Example: `clip_norm([tensor([3.0, 4.0])], 1.0).norm` is 5
    #[rhai_fn(name = "clip_norm", return_raw)]
    pub fn clip_norm_float(gradients: Dynamic, max: FLOAT) -> RhaiResult<Map> {
        let tree = Tree::read("clip_norm: the gradients", &gradients)?;
        let (grads, norm) = crate::optim::clip_norm_named(&tree.paths, &tree.leaves, max)?;
        Ok(Map::from([("grads".into(), tree.build(grads)), ("norm".into(), norm.into())]))
    }
    /// Scales gradients so that their total L2 norm is at most `max`.
    #[rhai_fn(name = "clip_norm", return_raw)]
    pub fn clip_norm_int(gradients: Dynamic, max: INT) -> RhaiResult<Map> {
        clip_norm_float(gradients, max as f64)
    }
    /// Moves each sample of `x` [B, …] that is further than `r` from the same sample of `center` back to that distance.
    ///
    /// Distances are L2 over all but the first dimension (LD3, Algorithm 1, line 6). Not differentiated.
    ///
    /// Example: `project_ball(tensor([[3.0, 4.0]]), zeros([1, 2]), 1.0)` is [[0.6, 0.8]]
    #[rhai_fn(name = "project_ball", return_raw)]
    pub fn project_ball_float(x: Tensor, center: Tensor, r: FLOAT) -> RhaiResult<Tensor> {
        Ok(crate::optim::project_ball(&x, &center, r)?)
    }
    /// Moves each sample of `x` that is further than `r` from the same sample of `center` back to that distance.
    #[rhai_fn(name = "project_ball", return_raw)]
    pub fn project_ball_int(x: Tensor, center: Tensor, r: INT) -> RhaiResult<Tensor> {
        project_ball_float(x, center, r as f64)
    }
}
