//! Optimizers: update rules, gradient clipping, projection to a ball, and learning-rate decay on a plateau.
mod clip;
pub mod fused;
mod muon;
mod optimizer;
mod plateau;
mod rules;
mod update;

pub use clip::{clip_norm, clip_norm_named, project_ball};
pub use optimizer::{Optimizer, Slot, State};
pub use plateau::Plateau;
pub use rules::Rule;

use crate::{Error, Result};

/// A number that must be finite and within [lo, hi].
pub(crate) fn in_range(what: &str, v: f64, lo: f64, hi: f64) -> Result<f64> {
    if v >= lo && v <= hi && v.is_finite() {
        return Ok(v);
    }
    let range = if hi == f64::INFINITY { format!("finite and at least {lo}") } else { format!("within [{lo}, {hi}]") };
    Err(Error::value(format!("{what} must be {range}, not {v}")))
}
