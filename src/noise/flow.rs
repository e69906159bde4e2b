//! Rectified flow (Liu et al., 2023): α = 1 − t, σ = t, with the resolution shift of Stable Diffusion 3 and FLUX.
use super::vp::sigmoid;
use super::{NoiseSchedule, check_option};
use crate::Result;
use crate::real::Real;

/// σ(t) = s t / (1 + (s − 1) t), α = 1 − σ for t ∈ [t_min, t_max] ⊂ [0, 1]; without a shift (s = 1) σ = t. A shift moves λ by −ln s.
/// A network trained for flow matching takes σ(t) as its time.
pub struct Flow {
    shift: f64,
    t_min: f64,
    t_max: f64,
    spec: serde_json::Value,
}

impl Flow {
    /// Checks s > 0 and 0 ≤ t_min < t_max ≤ 1.
    pub(super) fn new(shift: f64, t_min: f64, t_max: f64, spec: serde_json::Value) -> Result<Flow> {
        check_option("flow", "shift", shift, shift > 0.0, "finite and above 0")?;
        check_option("flow", "t_min", t_min, t_min >= 0.0, "at least 0")?;
        check_option("flow", "t_max", t_max, t_max > t_min && t_max <= 1.0, "above t_min and at most 1")?;
        Ok(Flow { shift, t_min, t_max, spec })
    }
    /// 1 − t, never negative (a t rounded up from 1 keeps its logarithm).
    fn rest(t: &Real) -> Real {
        Real::custom((1.0 - t.v()).max(0.0), &[(t, -1.0)])
    }
    /// 1 + (s − 1) t.
    fn scale(&self, t: &Real) -> Real {
        t * (self.shift - 1.0) + 1.0
    }
}

impl NoiseSchedule for Flow {
    fn name(&self) -> &str {
        "flow"
    }
    fn spec(&self) -> serde_json::Value {
        self.spec.clone()
    }
    fn t_max(&self) -> f64 {
        self.t_max
    }
    fn t_min(&self) -> f64 {
        self.t_min
    }
    fn log_alpha(&self, t: &Real) -> Real {
        // ln(1 − t) by ln_1p: exact near t = 0
        let rest = Real::custom((-t.v().min(1.0)).ln_1p(), &[(t, -1.0 / Self::rest(t).v())]);
        rest - (t * (self.shift - 1.0)).ln_1p()
    }
    fn log_sigma(&self, t: &Real) -> Real {
        t.ln() - (t * (self.shift - 1.0)).ln_1p() + self.shift.ln()
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        -self.shift / (Self::rest(t) * self.scale(t))
    }
    fn dlambda(&self, t: &Real) -> Real {
        -1.0 / (t * Self::rest(t))
    }
    fn inverse_lambda(&self, lambda: &Real) -> Real {
        let t = sigmoid(-lambda.v() - self.shift.ln());
        Real::custom(t, &[(lambda, -t * (1.0 - t))])
    }
    fn prior_std(&self, t: f64) -> f64 {
        self.sigma(&t.into()).v()
    }
    // rational, so exact and with finite derivatives at both ends, which the logarithms do not have
    fn alpha(&self, t: &Real) -> Real {
        Self::rest(t) / self.scale(t)
    }
    fn sigma(&self, t: &Real) -> Real {
        t * self.shift / self.scale(t)
    }
    fn lambda(&self, t: &Real) -> Real {
        let (t0, rest) = (t.v(), Self::rest(t).v());
        let v = (-t0.min(1.0)).ln_1p() - t0.ln() - self.shift.ln();
        Real::custom(v, &[(t, -1.0 / (t0 * rest))])
    }
    fn ve_sigma(&self, t: &Real) -> Real {
        t * self.shift / Self::rest(t)
    }
    fn t_of_sigma(&self, sigma: &Real) -> Real {
        match sigma.v().is_infinite() {
            true => Real::custom(1.0, &[(sigma, 0.0)]),
            false => sigma / (sigma + self.shift),
        }
    }
}
