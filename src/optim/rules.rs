//! Update rules with PyTorch's semantics and defaults: SGD, RMSprop, Adam and AdamW.
use super::{all_finite, in_range};
use crate::tensor::grad::variable;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// An update rule with its constants (names and defaults as in `torch.optim`).
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// `torch.optim.SGD`.
    Sgd {
        /// Factor on the previous update; 0 for none.
        momentum: f64,
        /// Damping of the gradient that enters the momentum.
        dampening: f64,
        /// L2 penalty added to the gradient.
        weight_decay: f64,
        /// Nesterov momentum (needs momentum > 0 and dampening 0).
        nesterov: bool,
    },
    /// `torch.optim.RMSprop`.
    RmsProp {
        /// Smoothing of the squared gradient.
        alpha: f64,
        /// Added to the root for stability.
        eps: f64,
        /// L2 penalty added to the gradient.
        weight_decay: f64,
        /// Factor on the previous update; 0 for none.
        momentum: f64,
        /// Divide by the standard deviation instead of the root mean square.
        centered: bool,
    },
    /// `torch.optim.Adam`, or with `decoupled` `torch.optim.AdamW`.
    Adam {
        /// Smoothing of the gradient and of its square.
        betas: (f64, f64),
        /// Added to the root for stability.
        eps: f64,
        /// L2 penalty added to the gradient, or decay of the parameter itself when `decoupled`.
        weight_decay: f64,
        /// Divide by the largest second moment so far.
        amsgrad: bool,
        /// Decay the parameter instead of adding to the gradient (AdamW).
        decoupled: bool,
    },
}

impl Rule {
    /// Plain gradient descent.
    pub fn sgd() -> Self {
        Rule::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
    /// RMSprop with α = 0.99, ε = 1e-8.
    pub fn rmsprop() -> Self {
        Rule::RmsProp { alpha: 0.99, eps: 1e-8, weight_decay: 0.0, momentum: 0.0, centered: false }
    }
    /// Adam with β = (0.9, 0.999), ε = 1e-8.
    pub fn adam() -> Self {
        Rule::Adam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, amsgrad: false, decoupled: false }
    }
    /// AdamW with β = (0.9, 0.999), ε = 1e-8, decay 0.01.
    pub fn adamw() -> Self {
        Rule::Adam { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, amsgrad: false, decoupled: true }
    }
    /// The name under which scripts make it.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Sgd { .. } => "sgd",
            Rule::RmsProp { .. } => "rmsprop",
            Rule::Adam { decoupled: false, .. } => "adam",
            Rule::Adam { decoupled: true, .. } => "adamw",
        }
    }
    /// PyTorch's default learning rate.
    pub fn default_lr(&self) -> f64 {
        if matches!(self, Rule::RmsProp { .. }) { 1e-2 } else { 1e-3 }
    }
    /// The tensors that one parameter's state may hold.
    fn buffer_names(&self) -> &'static [&'static str] {
        match self {
            Rule::Sgd { .. } => &["momentum"],
            Rule::RmsProp { .. } => &["square_avg", "grad_avg", "momentum"],
            Rule::Adam { .. } => &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
        }
    }
    fn check(&self) -> Result<()> {
        let inf = f64::INFINITY;
        // the largest f64 below 1: the smoothing factors live in [0, 1)
        let one = 1.0 - f64::EPSILON / 2.0;
        match *self {
            Rule::Sgd { momentum, dampening, weight_decay, nesterov } => {
                in_range("momentum", momentum, 0.0, inf)?;
                in_range("weight_decay", weight_decay, 0.0, inf)?;
                in_range("dampening", dampening, -1e6, 1e6)?;
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    let e = Error::value("nesterov needs a momentum above 0 and dampening 0");
                    return Err(e.hint("for example #{ momentum: 0.9, nesterov: true }"));
                }
            }
            Rule::RmsProp { alpha, eps, weight_decay, momentum, .. } => {
                in_range("alpha", alpha, 0.0, 1.0)?;
                in_range("eps", eps, 0.0, inf)?;
                in_range("weight_decay", weight_decay, 0.0, inf)?;
                in_range("momentum", momentum, 0.0, inf)?;
            }
            Rule::Adam { betas, eps, weight_decay, .. } => {
                in_range("the first beta", betas.0, 0.0, one)?;
                in_range("the second beta", betas.1, 0.0, one)?;
                in_range("eps", eps, 0.0, inf)?;
                in_range("weight_decay", weight_decay, 0.0, inf)?;
            }
        }
        Ok(())
    }
}

/// What an optimizer remembers about one parameter.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// Updates made so far.
    pub step: u64,
    /// Running averages by name, each of the parameter's shape.
    pub buffers: BTreeMap<String, Tensor>,
}

/// All that is needed to go on with the same bits: see [`Optimizer::state`].
#[derive(Debug, Clone)]
pub struct State {
    /// The rule's name; restoring into another rule is an error.
    pub rule: String,
    /// The learning rate.
    pub lr: f64,
    /// One entry per parameter, by position.
    pub slots: Vec<Slot>,
}

/// An update rule, its learning rate, and its state by the position of each parameter.
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    lr: f64,
    slots: Vec<Slot>,
}

impl Optimizer {
    /// An optimizer without history. `lr` must be finite and not negative.
    pub fn new(rule: Rule, lr: f64) -> Result<Self> {
        rule.check()?;
        Ok(Optimizer { lr: in_range("the learning rate", lr, 0.0, f64::INFINITY)?, rule, slots: vec![] })
    }
    /// The update rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.lr
    }
    /// Changes the learning rate (finite, not negative).
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.lr = in_range("the learning rate", lr, 0.0, f64::INFINITY)?;
        Ok(())
    }
    /// Updates made to the first parameter so far.
    pub fn steps(&self) -> u64 {
        self.slots.first().map_or(0, |s| s.step)
    }

    /// One update: from parameters and their gradients (same shapes) to fresh variables with the new values. State is
    /// kept by position, so parameters come in the same order every time. On any error the state is as before.
    ///
    /// Errors: another number of parameters than before, shapes that differ, gradients that are not finite.
    pub fn step(&mut self, params: &[Tensor], grads: &[Tensor]) -> Result<Vec<Tensor>> {
        if params.len() != grads.len() {
            let m = format!("step: {} parameters but {} gradients", params.len(), grads.len());
            return Err(Error::value(m).hint("pass one gradient per parameter, in the same order"));
        }
        if !self.slots.is_empty() && self.slots.len() != params.len() {
            let m = format!("step: {} parameters, but there were {} before", params.len(), self.slots.len());
            return Err(Error::value(m).hint("state is kept by position: use one optimizer per list of parameters"));
        }
        let mut slots = self.slots.clone();
        slots.resize_with(params.len(), Slot::default);
        let mut out = Vec::with_capacity(params.len());
        for (i, ((p, g), slot)) in params.iter().zip(grads).zip(&mut slots).enumerate() {
            if p.dims() != g.dims() {
                let m =
                    format!("step: parameter {i} has shape {:?} but its gradient has shape {:?}", p.dims(), g.dims());
                return Err(Error::shape(m, &[p.dims(), g.dims()]));
            }
            if let Some(b) = slot.buffers.values().find(|b| b.dims() != p.dims()) {
                let m = format!("step: parameter {i} has shape {:?}, but had {:?} before", p.dims(), b.dims());
                return Err(Error::shape(m, &[p.dims(), b.dims()]));
            }
            if !p.dtype().is_float() {
                let m = format!("step: parameter {i} must be floating point, not {:?}", p.dtype());
                return Err(Error::new(Kind::Type, m));
            }
            if !all_finite(g)? {
                let e = Error::value(format!("step: the gradient of parameter {i} is not finite (NaN or infinite)"));
                return Err(
                    e.hint("look at the loss that it came from; lower the learning rate or clip with clip_norm")
                );
            }
            let g = g.detach().to_dtype(p.dtype())?;
            let new = self.update(&p.detach(), &g, slot)?;
            slot.step += 1;
            out.push(variable(&new)?);
        }
        self.slots = slots;
        Ok(out)
    }

    /// The new value of one parameter. Expressions follow `torch/optim/*.py` (single-tensor form) term by term.
    fn update(&self, p: &Tensor, g: &Tensor, slot: &mut Slot) -> Result<Tensor> {
        let lr = self.lr;
        let penalized = |decay: f64| if decay == 0.0 { Ok(g.clone()) } else { g + (p * decay)? };
        match self.rule {
            Rule::Sgd { momentum, dampening, weight_decay, nesterov } => {
                let g = penalized(weight_decay)?;
                let d = if momentum == 0.0 {
                    g
                } else {
                    let buf = match slot.buffers.get("momentum") {
                        Some(b) => ((b * momentum)? + (&g * (1.0 - dampening))?)?,
                        None => g.clone(),
                    };
                    slot.buffers.insert("momentum".into(), buf.clone());
                    if nesterov { (g + (buf * momentum)?)? } else { buf }
                };
                Ok((p - (d * lr)?)?)
            }
            Rule::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
                let g = penalized(weight_decay)?;
                let square = average(slot, "square_avg", &g.sqr()?, alpha)?;
                let var = match centered {
                    true => (square - average(slot, "grad_avg", &g, alpha)?.sqr()?)?,
                    false => square,
                };
                let d = (g / (var.sqrt()? + eps)?)?;
                let d = if momentum > 0.0 {
                    let buf = match slot.buffers.get("momentum") {
                        Some(b) => ((b * momentum)? + d)?,
                        None => d,
                    };
                    slot.buffers.insert("momentum".into(), buf.clone());
                    buf
                } else {
                    d
                };
                Ok((p - (d * lr)?)?)
            }
            Rule::Adam { betas: (b1, b2), eps, weight_decay, amsgrad, decoupled } => {
                let (p, g) = match decoupled {
                    true => ((p * (1.0 - lr * weight_decay))?, g.clone()),
                    false => (p.clone(), penalized(weight_decay)?),
                };
                let t = (slot.step + 1) as f64;
                let m = average(slot, "exp_avg", &g, b1)?;
                let mut v = average(slot, "exp_avg_sq", &g.sqr()?, b2)?;
                if amsgrad {
                    v = match slot.buffers.get("max_exp_avg_sq") {
                        Some(old) => old.maximum(&v)?,
                        None => v,
                    };
                    slot.buffers.insert("max_exp_avg_sq".into(), v.clone());
                }
                let (c1, c2) = (1.0 - b1.powf(t), 1.0 - b2.powf(t));
                let denom = ((v.sqrt()? / c2.sqrt())? + eps)?;
                Ok((p - (m / denom)?.affine(lr / c1, 0.0)?)?)
            }
        }
    }

    /// Everything needed to continue with the same bits.
    pub fn state(&self) -> State {
        State { rule: self.rule.name().into(), lr: self.lr, slots: self.slots.clone() }
    }
    /// Restores what [`Optimizer::state`] returned, into an optimizer of the same rule (its constants are this
    /// optimizer's own). Errors leave the state as it was.
    pub fn load_state(&mut self, state: State) -> Result<()> {
        if state.rule != self.rule.name() {
            let m = format!("load_state: this is the state of `{}`, not of `{}`", state.rule, self.rule.name());
            return Err(Error::value(m).hint("make the optimizer with the rule that it was saved with"));
        }
        let lr = in_range("load_state: the learning rate", state.lr, 0.0, f64::INFINITY)?;
        for slot in &state.slots {
            for name in slot.buffers.keys() {
                if !self.rule.buffer_names().contains(&name.as_str()) {
                    let what = format!("buffer in the state of `{}`", self.rule.name());
                    return Err(Error::unknown(&what, name, self.rule.buffer_names().iter().copied()));
                }
            }
        }
        self.lr = lr;
        self.slots = state.slots;
        Ok(())
    }
}

/// Exponential moving average `old·a + new·(1 − a)` from zero, kept in `slot`.
fn average(slot: &mut Slot, name: &str, new: &Tensor, a: f64) -> Result<Tensor> {
    let avg = match slot.buffers.get(name) {
        Some(old) => ((old * a)? + (new * (1.0 - a))?)?,
        None => (new * (1.0 - a))?,
    };
    slot.buffers.insert(name.into(), avg.clone());
    Ok(avg)
}
