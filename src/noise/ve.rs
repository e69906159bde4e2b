//! The variance-exploding schedule of EDM (Karras et al., 2022): α = 1, σ(t) = t.
use super::{NoiseSchedule, check_option};
use crate::Result;
use crate::real::Real;

/// α = 1, σ(t) = t for t ∈ [σ_min, σ_max].
pub struct Edm {
    sigma_min: f64,
    sigma_max: f64,
    spec: serde_json::Value,
}

impl Edm {
    /// Checks 0 ≤ σ_min < σ_max < ∞.
    pub(super) fn new(sigma_min: f64, sigma_max: f64, spec: serde_json::Value) -> Result<Edm> {
        check_option("edm", "sigma_min", sigma_min, sigma_min >= 0.0, "at least 0")?;
        check_option("edm", "sigma_max", sigma_max, sigma_max > sigma_min, "finite and above sigma_min")?;
        Ok(Edm { sigma_min, sigma_max, spec })
    }
}

impl NoiseSchedule for Edm {
    fn name(&self) -> &str {
        "edm"
    }
    fn spec(&self) -> serde_json::Value {
        self.spec.clone()
    }
    fn t_max(&self) -> f64 {
        self.sigma_max
    }
    fn t_min(&self) -> f64 {
        self.sigma_min
    }
    fn log_alpha(&self, _: &Real) -> Real {
        0.0.into()
    }
    fn log_sigma(&self, t: &Real) -> Real {
        t.ln()
    }
    fn dlog_alpha(&self, _: &Real) -> Real {
        0.0.into()
    }
    fn dlambda(&self, t: &Real) -> Real {
        -1.0 / t
    }
    fn inverse_lambda(&self, lambda: &Real) -> Real {
        (-lambda).exp()
    }
    fn prior_std(&self, t: f64) -> f64 {
        t
    }
    // exact, and with finite derivatives at t = 0, which the logarithms do not have
    fn alpha(&self, _: &Real) -> Real {
        1.0.into()
    }
    fn sigma(&self, t: &Real) -> Real {
        t.clone()
    }
    fn ve_sigma(&self, t: &Real) -> Real {
        t.clone()
    }
    fn t_of_sigma(&self, sigma: &Real) -> Real {
        sigma.clone()
    }
}
