//! Rhai functions for optimizers: module `optim`, types `Optimizer` and `Plateau`, `clip_norm`, `project_ball`.
use super::error::RhaiResult;
use super::tree::Tree;
use crate::optim::{Optimizer, Plateau, Rule, Slot, State};
use crate::schema::{Kind as Of, Opt, Schema, Span, above, count, flag, number, value, word};
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

const POSITIVE: [f64; 2] = [0.0, f64::MAX];
const UNIT: [f64; 2] = [0.0, 1.0];
const fn lr(default: f64) -> Opt {
    number("lr", default, POSITIVE, "the learning rate")
}
const fn eps(doc: &'static str) -> Opt {
    number("eps", 1e-8, POSITIVE, doc)
}
const fn decay(default: f64, doc: &'static str) -> Opt {
    number("weight_decay", default, POSITIVE, doc)
}
/// Weight decay that is a part of the gradient, and such that is apart from it.
const L2: &str = "times the parameter, added to the gradient";
const APART: &str = "how much of lr times the parameter goes at each step";
const BETA: Of = Of::Number(Span { low: 0.0, high: 1.0, open: [false, true] });
const fn betas(doc: &'static str) -> Opt {
    value("betas", Of::List(&BETA, 2), "[0.9, 0.999]", doc)
}
const AMSGRAD: Opt = flag("amsgrad", false, "divide by the largest running mean so far");
const SGD_TERMS: &str = "b ← momentum·b + (1 − dampening)·g";
const SGD: Schema = Schema::new(
    "optim::sgd",
    &[
        lr(0.001),
        number("momentum", 0.0, POSITIVE, SGD_TERMS),
        number("dampening", 0.0, [-1e6, 1e6], SGD_TERMS),
        decay(0.0, L2),
        flag("nesterov", false, "look ahead along the momentum"),
    ],
);
const RMSPROP: Schema = Schema::new(
    "optim::rmsprop",
    &[
        lr(0.01),
        number("alpha", 0.99, UNIT, "of the running mean of g²"),
        eps("added to its root"),
        decay(0.0, L2),
        number("momentum", 0.0, POSITIVE, "of the update"),
        flag("centered", false, "subtract the squared running mean of g"),
    ],
);
const MEANS: &str = "of the running means of g and g²";
const ADAM: Schema =
    Schema::new("optim::adam", &[lr(0.001), betas(MEANS), eps("added to the root"), decay(0.0, L2), AMSGRAD]);
const ADAMW: Schema =
    Schema::new("optim::adamw", &[lr(0.001), betas(MEANS), eps("added to the root"), decay(0.01, APART), AMSGRAD]);
const MUON: Schema = Schema::new(
    "optim::muon",
    &[
        lr(0.001),
        number("momentum", 0.95, UNIT, "of the running mean of g"),
        flag("nesterov", true, "look ahead along the momentum"),
        decay(0.1, APART),
        count("steps", 5, [1, 100], "of the Newton–Schulz iteration"),
        word(
            "adjust",
            &["rms", "original"],
            "the size of updates: as large as AdamW's, 0.2·√max(rows, columns), for the same rates; or \"original\", √max(1, rows/columns)",
        ),
        betas("of AdamW"),
        eps("of AdamW"),
        number("ratio", 1.0, POSITIVE, "AdamW's learning rate over Muon's"),
        value(
            "others",
            Of::TEXTS,
            "[]",
            "beginnings of the paths of matrices that go by AdamW too, such as embeddings and the last layer",
        ),
    ],
);
const PLATEAU: Schema = Schema::new(
    "optim::plateau",
    &[
        above("factor", 0.8, UNIT, "what a rate is multiplied by"),
        count("patience", 5, [1, usize::MAX], "losses without improvement before a decay"),
        number("floor", 0.0, POSITIVE, "no rate decays below it"),
    ],
);
/// What `state()` of an optimizer returns.
const STATE: Schema = Schema::new(
    "load_state",
    &[
        value("rule", Of::Text, "", ""),
        value("lr", Of::NUMBER, "", ""),
        value("slots", Of::List(&Of::Map, 0), "", ""),
        value("paths", Of::TEXTS, "", ""),
    ],
);
/// What `state()` of a plateau counter returns.
const PLATEAU_STATE: Schema = Schema::new(
    "load_state",
    &[
        value("best", Of::NUMBER, "", ""),
        value("bad", Of::COUNT, "", ""),
        value("decays", Of::COUNT, "", ""),
        value("floored", Of::COUNT, "", ""),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[SGD, RMSPROP, ADAM, ADAMW, MUON, PLATEAU];

fn make(schema: Schema, map: Map) -> RhaiResult<SharedOptimizer> {
    let o = schema.read(map)?;
    let pair = |default: (f64, f64)| match o.numbers("betas").as_deref() {
        Some(&[a, b]) => (a, b),
        _ => default,
    };
    let rule = match schema.of {
        "optim::sgd" => Rule::Sgd {
            momentum: o.number("momentum"),
            dampening: o.number("dampening"),
            weight_decay: o.number("weight_decay"),
            nesterov: o.flag("nesterov"),
        },
        "optim::rmsprop" => Rule::RmsProp {
            alpha: o.number("alpha"),
            eps: o.number("eps"),
            weight_decay: o.number("weight_decay"),
            momentum: o.number("momentum"),
            centered: o.flag("centered"),
        },
        "optim::muon" => Rule::Muon {
            momentum: o.number("momentum"),
            nesterov: o.flag("nesterov"),
            weight_decay: o.number("weight_decay"),
            steps: o.count("steps"),
            rms: o.is("adjust", "rms"),
            betas: pair((0.9, 0.999)),
            eps: o.number("eps"),
            ratio: o.number("ratio"),
            others: o.texts("others"),
        },
        of => Rule::Adam {
            betas: pair((0.9, 0.999)),
            eps: o.number("eps"),
            weight_decay: o.number("weight_decay"),
            amsgrad: o.flag("amsgrad"),
            decoupled: of == "optim::adamw",
        },
    };
    Ok(SharedOptimizer(Rc::new(RefCell::new(Optimizer::new(rule, o.number("lr"))?))))
}

fn required<T>(what: &str, v: Option<T>) -> RhaiResult<T> {
    v.ok_or_else(|| Error::value(format!("load_state: the state has no `{what}`")).into())
}

fn read_state(map: Map) -> RhaiResult<State> {
    let o = STATE.read(map)?;
    let rule = required("rule", o.some_text("rule"))?;
    let lr = required("lr", o.some_number("lr"))?;
    let mut slots = vec![];
    for slot in required("slots", o.array("slots"))? {
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
    let paths = o.texts("paths");
    Ok(State { rule, lr, slots, paths })
}

/// Optimizers with PyTorch's update rules and defaults.
#[export_module]
mod optim_api {
    /// Gradient descent with learning rate 0.001.
    #[rhai_fn(return_raw)]
    pub fn sgd() -> RhaiResult<SharedOptimizer> {
        make(SGD, Map::new())
    }
    /// Gradient descent, as `torch.optim.SGD`.
    ///
    /// Example: `optim::sgd(#{ lr: 0.1, momentum: 0.9 })`
    #[rhai_fn(name = "sgd", return_raw)]
    pub fn sgd_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make(SGD, options)
    }
    /// RMSprop with learning rate 0.01.
    #[rhai_fn(return_raw)]
    pub fn rmsprop() -> RhaiResult<SharedOptimizer> {
        make(RMSPROP, Map::new())
    }
    /// RMSprop, as `torch.optim.RMSprop`.
    ///
    /// Example: `optim::rmsprop(#{ lr: 0.005, momentum: 0.9 })`
    #[rhai_fn(name = "rmsprop", return_raw)]
    pub fn rmsprop_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make(RMSPROP, options)
    }
    /// Adam with learning rate 0.001.
    #[rhai_fn(return_raw)]
    pub fn adam() -> RhaiResult<SharedOptimizer> {
        make(ADAM, Map::new())
    }
    /// Adam, as `torch.optim.Adam`.
    ///
    /// Example: `optim::adam(#{ lr: 0.01, betas: [0.9, 0.99] })`
    #[rhai_fn(name = "adam", return_raw)]
    pub fn adam_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make(ADAM, options)
    }
    /// AdamW with learning rate 0.001 and weight decay 0.01.
    #[rhai_fn(return_raw)]
    pub fn adamw() -> RhaiResult<SharedOptimizer> {
        make(ADAMW, Map::new())
    }
    /// AdamW, as `torch.optim.AdamW`: weight decay apart from the gradient.
    ///
    /// Example: `optim::adamw(#{ weight_decay: 0.1 })`
    #[rhai_fn(name = "adamw", return_raw)]
    pub fn adamw_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make(ADAMW, options)
    }
    /// Muon with learning rate 0.001 and weight decay 0.1.
    #[rhai_fn(return_raw)]
    pub fn muon() -> RhaiResult<SharedOptimizer> {
        make(MUON, Map::new())
    }
    /// Muon: the momentum of every matrix made orthogonal (Jordan et al., 2024), as `torch.optim.Muon` but in the parameters' precision.
    ///
    /// The weight of a convolution is a matrix with a row for each output. What has fewer than two dimensions goes by AdamW.
    ///
    /// Example: `optim::muon(#{ lr: 0.02, adjust: "original", ratio: 0.05, others: ["out"] })`
    #[rhai_fn(name = "muon", return_raw)]
    pub fn muon_with(options: Map) -> RhaiResult<SharedOptimizer> {
        make(MUON, options)
    }
    /// A counter that says when to decay a learning rate: factor 0.8 after 5 losses without improvement.
    #[rhai_fn(return_raw)]
    pub fn plateau() -> RhaiResult<SharedPlateau> {
        plateau_with(Map::new())
    }
    /// A counter that says when to decay a learning rate, because a validation loss stopped improving.
    ///
    /// Example: `let p = optim::plateau(#{ patience: 1, floor: 5e-5 }); p.step(0.5); p.step(0.6); p.decay(0.1)`
    #[rhai_fn(name = "plateau", return_raw)]
    pub fn plateau_with(options: Map) -> RhaiResult<SharedPlateau> {
        let o = PLATEAU.read(options)?;
        let (factor, patience, floor) = (o.number("factor"), o.count("patience") as u64, o.number("floor"));
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
        let o = PLATEAU_STATE.read(state)?;
        let count = |key| required(key, o.some_count(key).map(|n| n as u64));
        let best = required("best", o.some_number("best"))?;
        let (bad, decays, floored) = (count("bad")?, count("decays")?, count("floored")?);
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
