//! Optimizers: update rules, gradient clipping, projection to a ball, and learning-rate decay on a plateau.
mod clip;
mod plateau;
mod rules;

pub use clip::{clip_norm, project_ball};
pub use plateau::Plateau;
pub use rules::{Optimizer, Rule, Slot, State};

use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Whether every element of `t` is a finite number.
pub(crate) fn all_finite(t: &Tensor) -> Result<bool> {
    // x·0 is 0 for finite x and NaN otherwise, and NaN survives the sum
    let s = (t.to_dtype(DType::F64)? * 0.0)?.sum_all()?.to_scalar::<f64>()?;
    Ok(s == 0.0)
}

/// A number that must be finite and within [lo, hi].
pub(crate) fn in_range(what: &str, v: f64, lo: f64, hi: f64) -> Result<f64> {
    if v >= lo && v <= hi && v.is_finite() {
        return Ok(v);
    }
    let range = if hi == f64::INFINITY { format!("finite and at least {lo}") } else { format!("within [{lo}, {hi}]") };
    Err(Error::value(format!("{what} must be {range}, not {v}")))
}
