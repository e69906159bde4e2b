//! Losses: differentiable, over tensors of one shape, with a choice of reduction.
mod kept;
mod measure;
pub mod perceptual;

use crate::{Error, Kind, Result};
use candle_core::Tensor;

/// How a loss's elements become its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// The mean over all elements, a scalar.
    #[default]
    Mean,
    /// The sum over all elements, a scalar.
    Sum,
    /// The mean over all but the first dimension: one number per sample, [B].
    None,
}

impl Reduction {
    /// The names that [`Reduction::of`] knows.
    pub const NAMES: [&'static str; 3] = ["mean", "sum", "none"];
    /// The reduction called `name`.
    pub fn of(name: &str) -> Result<Self> {
        match name {
            "mean" => Ok(Reduction::Mean),
            "sum" => Ok(Reduction::Sum),
            "none" => Ok(Reduction::None),
            _ => Err(Error::unknown("reduction", name, Reduction::NAMES)),
        }
    }
}

/// A loss by name and constants; [`Loss::eval`] computes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// |d|.
    L1,
    /// d² (mean squared error).
    L2,
    /// d²/2 up to |d| = δ, δ(|d| − δ/2) beyond (`torch.nn.HuberLoss`).
    Huber(
        /// δ > 0.
        f64,
    ),
    /// δ²(√(1 + (d/δ)²) − 1), the smooth form of Huber.
    PseudoHuber(
        /// δ > 0.
        f64,
    ),
}

impl Loss {
    /// The names that [`Loss::of`] knows.
    pub const NAMES: [&'static str; 4] = ["l1", "l2", "huber", "pseudo_huber"];
    /// The loss called `name`; `delta` is for the two Huber losses (1 when absent).
    pub fn of(name: &str, delta: Option<f64>) -> Result<Self> {
        let loss = match name {
            "l1" => Loss::L1,
            "l2" => Loss::L2,
            "huber" => Loss::Huber(delta.unwrap_or(1.0)),
            "pseudo_huber" => Loss::PseudoHuber(delta.unwrap_or(1.0)),
            _ => return Err(Error::unknown("loss", name, Loss::NAMES)),
        };
        match loss {
            Loss::Huber(d) | Loss::PseudoHuber(d) if !(d > 0.0 && d.is_finite()) => {
                Err(Error::value(format!("{name}: delta must be a finite number above 0, not {d}")))
            }
            Loss::L1 | Loss::L2 if delta.is_some() => {
                Err(Error::new(Kind::Name, format!("{name} has no delta")).hint("leave it out, or use `huber`"))
            }
            _ => Ok(loss),
        }
    }
    /// The name under which scripts make it.
    pub fn name(&self) -> &'static str {
        match self {
            Loss::L1 => "l1",
            Loss::L2 => "l2",
            Loss::Huber(_) => "huber",
            Loss::PseudoHuber(_) => "pseudo_huber",
        }
    }

    /// The loss between `x` and `target` (same shape; `target` is cast to x's dtype), differentiable in both. The
    /// gradient of |d| at 0 is 0.
    ///
    /// Errors: shapes that differ (nothing is broadcast), integers, no samples, `None` without a batch dimension.
    pub fn eval(&self, x: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
        let d = difference(self.name(), x, target)?;
        let each = match *self {
            Loss::L1 => absolute(&d)?,
            Loss::L2 => d.sqr()?,
            Loss::Huber(delta) => {
                // with c = min(|d|, δ) held constant, c|d| − c²/2 has Huber's value and its gradient c·sign(d)
                let a = absolute(&d)?;
                let c = a.detach().clamp(0.0, delta)?;
                ((&c * a)? - (c.sqr()? * 0.5)?)?
            }
            Loss::PseudoHuber(delta) => {
                // d² / (√(1 + (d/δ)²) + 1) does not cancel near 0
                let s = d.sqr()?;
                let root = (s.affine(1.0 / (delta * delta), 1.0)?.sqrt()? + 1.0)?;
                (s / root)?
            }
        };
        reduce(self.name(), &each, reduction)
    }
}

fn reduce(what: &str, each: &Tensor, reduction: Reduction) -> Result<Tensor> {
    match reduction {
        Reduction::Mean => Ok(each.mean_all()?),
        Reduction::Sum => Ok(each.sum_all()?),
        Reduction::None => per_sample(what, each),
    }
}

/// Fails unless both are floating-point tensors of one shape with at least one element.
fn check_pair(what: &str, x: &Tensor, target: &Tensor) -> Result<()> {
    if x.dims() != target.dims() {
        let m = format!("{what}: the shapes differ: {:?} and {:?}", x.dims(), target.dims());
        return Err(Error::shape(m, &[x.dims(), target.dims()]).hint("losses do not broadcast"));
    }
    for t in [x, target] {
        if !t.dtype().is_float() {
            let m = format!("{what}: needs floating-point tensors, not {:?}", t.dtype());
            return Err(Error::new(Kind::Type, m));
        }
    }
    if x.elem_count() == 0 {
        return Err(Error::shape(format!("{what}: the tensors are empty ({:?})", x.dims()), &[x.dims()]));
    }
    Ok(())
}

/// x − target after checking that both are floating-point tensors of one shape with at least one element.
pub(crate) fn difference(what: &str, x: &Tensor, target: &Tensor) -> Result<Tensor> {
    check_pair(what, x, target)?;
    let target = if target.dtype() == x.dtype() { target.clone() } else { target.to_dtype(x.dtype())? };
    Ok((x - target)?)
}

/// |d| with gradient 0 at 0 (candle's own has 1).
fn absolute(d: &Tensor) -> Result<Tensor> {
    Ok((d * d.detach().sign()?)?)
}

/// The mean over all but the first dimension.
pub(crate) fn per_sample(what: &str, each: &Tensor) -> Result<Tensor> {
    match each.rank() {
        0 => Err(Error::shape(format!("{what}: one number per sample needs a batch dimension"), &[&[]])),
        1 => Ok(each.clone()),
        _ => Ok(each.flatten_from(1)?.mean(1)?),
    }
}
