//! Update rules with PyTorch's semantics and defaults: SGD, RMSprop, Adam, AdamW and Muon.
use super::in_range;
use crate::{Error, Result};
use std::borrow::Cow;

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
    /// `torch.optim.Muon` for matrices (and for the weights of convolutions, as matrices of a row for each output); AdamW for all else.
    Muon {
        /// Smoothing of the gradient.
        momentum: f64,
        /// Look ahead along the momentum.
        nesterov: bool,
        /// Decay of the parameter itself.
        weight_decay: f64,
        /// Steps of the iteration that makes the update orthogonal.
        steps: usize,
        /// Scale updates to the size that AdamW's have (0.2·√max(rows, columns)), so that both take one learning rate; otherwise by
        /// √max(1, rows/columns), as Muon was published.
        rms: bool,
        /// AdamW's, for what is no matrix.
        betas: (f64, f64),
        /// AdamW's.
        eps: f64,
        /// AdamW's learning rate over Muon's.
        ratio: f64,
        /// Beginnings of the paths of matrices that AdamW updates too.
        others: Vec<String>,
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
    /// Muon with momentum 0.95, decay 0.1, five steps.
    pub fn muon() -> Self {
        Rule::Muon {
            momentum: 0.95,
            nesterov: true,
            weight_decay: 0.1,
            steps: 5,
            rms: true,
            betas: (0.9, 0.999),
            eps: 1e-8,
            ratio: 1.0,
            others: vec![],
        }
    }
    /// The rule for one parameter, and the factor on the learning rate: Muon leaves to AdamW what is no matrix.
    pub(super) fn of(&self, path: &str, dims: &[usize]) -> (Cow<'_, Rule>, f64) {
        let Rule::Muon { weight_decay, betas, eps, ratio, others, .. } = self else {
            return (Cow::Borrowed(self), 1.0);
        };
        let named =
            |o: &String| path.strip_prefix(o.as_str()).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']));
        if dims.len() > 1 && !others.iter().any(named) {
            return (Cow::Borrowed(self), 1.0);
        }
        let (betas, eps, weight_decay) = (*betas, *eps, *weight_decay);
        (Cow::Owned(Rule::Adam { betas, eps, weight_decay, amsgrad: false, decoupled: true }), *ratio)
    }
    /// The name under which scripts make it.
    pub fn name(&self) -> &'static str {
        match self {
            Rule::Sgd { .. } => "sgd",
            Rule::RmsProp { .. } => "rmsprop",
            Rule::Adam { decoupled: false, .. } => "adam",
            Rule::Adam { decoupled: true, .. } => "adamw",
            Rule::Muon { .. } => "muon",
        }
    }
    /// PyTorch's default learning rate.
    pub fn default_lr(&self) -> f64 {
        if matches!(self, Rule::RmsProp { .. }) { 1e-2 } else { 1e-3 }
    }
    /// The tensors that one parameter's state may hold.
    pub(super) fn buffer_names(&self) -> &'static [&'static str] {
        match self {
            Rule::Sgd { .. } => &["momentum"],
            Rule::RmsProp { .. } => &["square_avg", "grad_avg", "momentum"],
            Rule::Adam { .. } => &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
            Rule::Muon { .. } => &["momentum", "exp_avg", "exp_avg_sq"],
        }
    }
    pub(super) fn check(&self) -> Result<()> {
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
            Rule::Muon { momentum, weight_decay, steps, betas, eps, ratio, .. } => {
                in_range("momentum", momentum, 0.0, one)?;
                in_range("weight_decay", weight_decay, 0.0, inf)?;
                in_range("the first beta", betas.0, 0.0, one)?;
                in_range("the second beta", betas.1, 0.0, one)?;
                in_range("eps", eps, 0.0, inf)?;
                in_range("ratio", ratio, 0.0, inf)?;
                if steps == 0 || steps > 100 {
                    return Err(Error::value(format!("steps must be from 1 to 100, not {steps}")));
                }
            }
        }
        Ok(())
    }
}
