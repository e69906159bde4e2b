//! Noise schedules: α(t), σ(t) and λ(t) = ln α − ln σ (half log-SNR) of x_t = α x_0 + σ ε, differentiable, f64.
mod discrete;
mod flow;
mod spec;
pub mod table;
mod ve;
mod vp;

pub use discrete::{PRESETS, Run, preset_alphas};
pub use spec::{NAMES, Spec, from_spec};

use crate::real::Real;
use crate::{Error, Result};
use std::rc::Rc;

/// A noise schedule, shared by whatever is expressed in it.
pub type Noise = Rc<dyn NoiseSchedule>;

/// α, σ, λ and the inverse of λ over a time interval [t_min, t_max].
pub trait NoiseSchedule {
    /// The name under which scripts make it (`"edm"`, `"vp_linear"`, …).
    fn name(&self) -> &str;
    /// Everything needed to make it again, for results and hashes.
    fn spec(&self) -> serde_json::Value;
    /// The end with the most noise, T.
    fn t_max(&self) -> f64;
    /// The end with the least noise.
    fn t_min(&self) -> f64;
    /// ln α(t).
    fn log_alpha(&self, t: &Real) -> Real;
    /// ln σ(t).
    fn log_sigma(&self, t: &Real) -> Real;
    /// f(t) = d ln α / dt, the drift of the forward process.
    fn dlog_alpha(&self, t: &Real) -> Real;
    /// dλ/dt (negative).
    fn dlambda(&self, t: &Real) -> Real;
    /// The t at which λ(t) is the given value.
    fn inverse_lambda(&self, lambda: &Real) -> Real;
    /// The standard deviation that `sample` gives x_T at time `t`: σ(t) for VE and flow, 1 for VP.
    fn prior_std(&self, t: f64) -> f64;

    /// α(t).
    fn alpha(&self, t: &Real) -> Real {
        self.log_alpha(t).exp()
    }
    /// σ(t).
    fn sigma(&self, t: &Real) -> Real {
        self.log_sigma(t).exp()
    }
    /// λ(t) = ln α(t) − ln σ(t).
    fn lambda(&self, t: &Real) -> Real {
        self.log_alpha(t) - self.log_sigma(t)
    }
    /// The VE noise level σ/α at time t, called "sigma" in the scripting API.
    fn ve_sigma(&self, t: &Real) -> Real {
        (-self.lambda(t)).exp()
    }
    /// The time at which the VE noise level σ/α is `sigma`.
    fn t_of_sigma(&self, sigma: &Real) -> Real {
        self.inverse_lambda(&-sigma.ln())
    }
}

/// Times that were rounded to f32 on their way may lie this much, relatively, outside of [t_min, t_max].
const SLACK: f64 = 1e-7;

/// Fails unless `t` is a time of this schedule: finite, and in [t_min, t_max] up to rounding to f32.
pub fn check_time(noise: &dyn NoiseSchedule, t: f64) -> Result<()> {
    let (lo, hi) = (noise.t_min(), noise.t_max());
    if t >= lo - SLACK * lo.abs() && t <= hi + SLACK * hi.abs() {
        return Ok(());
    }
    let e = Error::value(format!("t = {t} is outside [{lo}, {hi}], the times of noise schedule `{}`", noise.name()));
    Err(match t.is_nan() {
        true => e.hint("NaN usually comes from 0/0 or from a diverged computation further up"),
        false => e.hint(format!("give a time between {lo} (least noise) and {hi} (most noise)")),
    })
}

/// Fails unless `name` = `x` is finite and satisfies `ok`, described by `range`.
fn check_option(of: &str, name: &str, x: f64, ok: bool, range: &str) -> Result<()> {
    match ok && x.is_finite() {
        true => Ok(()),
        false => Err(Error::value(format!("noise::{of}: `{name}` = {x} must be {range}"))),
    }
}
