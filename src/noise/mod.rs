//! Noise schedules: α(t), σ(t) and λ(t) = ln α − ln σ (half log-SNR) of x_t = α x_0 + σ ε, differentiable, f64.
use crate::real::Real;
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
