//! Variance-preserving schedules, α² + σ² = 1: what they share, and the linear and cosine curves.
use super::{NoiseSchedule, check_option};
use crate::Result;
use crate::real::Real;
use std::f64::consts::FRAC_PI_2;

/// A curve ln α(t); everything else about a variance-preserving schedule follows from it.
pub trait Curve {
    /// The name under which scripts make the schedule.
    const NAME: &'static str;
    /// ln α(t).
    fn log_alpha(&self, t: &Real) -> Real;
    /// d ln α / dt.
    fn dlog_alpha(&self, t: &Real) -> Real;
    /// The value of t at which ln α is `log_alpha` and σ² is `sigma2` (two views of one number, each precise where
    /// the other is not), and d ln α / dt there.
    fn invert(&self, log_alpha: f64, sigma2: f64) -> (f64, f64);
}

/// A variance-preserving schedule: α² + σ² = 1, t ∈ [t_min, t_max].
pub struct Vp<C: Curve> {
    curve: C,
    t_min: f64,
    t_max: f64,
    spec: serde_json::Value,
}

impl<C: Curve> Vp<C> {
    /// Checks 0 < t_min < t_max ≤ 1 (at t = 0 there is no noise, and λ is infinite).
    pub(super) fn new(curve: C, t_min: f64, t_max: f64, spec: serde_json::Value) -> Result<Self> {
        check_option(C::NAME, "t_min", t_min, t_min > 0.0, "above 0 (at t = 0 the log-SNR is infinite)")?;
        check_option(C::NAME, "t_max", t_max, t_max > t_min && t_max <= 1.0, "above t_min and at most 1")?;
        Ok(Vp { curve, t_min, t_max, spec })
    }
}

/// ln(1 + eˣ).
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1 / (1 + e⁻ˣ).
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// σ² = 1 − α² from ln α.
fn sigma2(log_alpha: &Real) -> Real {
    -(log_alpha * 2.0).exp_m1()
}

impl<C: Curve> NoiseSchedule for Vp<C> {
    fn name(&self) -> &str {
        C::NAME
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
        self.curve.log_alpha(t)
    }
    fn log_sigma(&self, t: &Real) -> Real {
        sigma2(&self.curve.log_alpha(t)).ln() * 0.5
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        self.curve.dlog_alpha(t)
    }
    fn dlambda(&self, t: &Real) -> Real {
        self.curve.dlog_alpha(t) / sigma2(&self.curve.log_alpha(t))
    }
    fn inverse_lambda(&self, lambda: &Real) -> Real {
        let l = lambda.v();
        let sigma2 = sigmoid(-2.0 * l);
        let (t, slope) = self.curve.invert(-0.5 * softplus(-2.0 * l), sigma2);
        // dλ/dt = (d ln α / dt) / σ²
        Real::custom(t, &[(lambda, sigma2 / slope)])
    }
    fn prior_std(&self, _: f64) -> f64 {
        1.0
    }
}

/// β(t) = β_min + t (β_max − β_min) (Song et al., 2021): ln α = −t² (β_max − β_min)/4 − t β_min/2.
pub struct Linear {
    beta_min: f64,
    beta_max: f64,
}

impl Linear {
    /// Checks 0 ≤ β_min ≤ β_max, β_max > 0.
    pub(super) fn new(beta_min: f64, beta_max: f64) -> Result<Linear> {
        check_option("vp_linear", "beta_min", beta_min, beta_min >= 0.0, "at least 0")?;
        let ok = beta_max >= beta_min && beta_max > 0.0;
        check_option("vp_linear", "beta_max", beta_max, ok, "finite, above 0 and not below beta_min")?;
        Ok(Linear { beta_min, beta_max })
    }
}

impl Curve for Linear {
    const NAME: &'static str = "vp_linear";
    fn log_alpha(&self, t: &Real) -> Real {
        t * (t * (-0.25 * (self.beta_max - self.beta_min)) - 0.5 * self.beta_min)
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        t * (-0.5 * (self.beta_max - self.beta_min)) - 0.5 * self.beta_min
    }
    fn invert(&self, log_alpha: f64, _: f64) -> (f64, f64) {
        // the root of the quadratic in the form without cancellation
        let root = (self.beta_min * self.beta_min - 4.0 * (self.beta_max - self.beta_min) * log_alpha).sqrt();
        (-4.0 * log_alpha / (root + self.beta_min), -0.5 * root)
    }
}

/// α(t) = cos((t + s)/(1 + s) · π/2) / cos(s/(1 + s) · π/2) (Nichol & Dhariwal, 2021; continuous in t as in DPM-Solver).
pub struct Cosine {
    s: f64,
    /// π/2 / (1 + s): the angle is a = (t + s) c.
    c: f64,
}

impl Cosine {
    /// Checks 0 ≤ s < ∞.
    pub(super) fn new(s: f64) -> Result<Cosine> {
        check_option("vp_cosine", "s", s, s >= 0.0, "at least 0")?;
        Ok(Cosine { s, c: FRAC_PI_2 / (1.0 + s) })
    }
    /// tan a, as 1/tan(π/2 − a): precise towards t = 1.
    fn tan(&self, t: &Real) -> Real {
        1.0 / ((1.0 - t) * self.c).tan()
    }
}

impl Curve for Cosine {
    const NAME: &'static str = "vp_cosine";
    fn log_alpha(&self, t: &Real) -> Real {
        let (a0, d) = (self.s * self.c, t.v() * self.c);
        // 1 − α² = sin(a − a₀) sin(a + a₀) / cos² a₀: no cancellation where α is near 1
        let sigma2 = d.sin() * (d + 2.0 * a0).sin() / a0.cos().powi(2);
        let v = match sigma2 < 0.5 {
            true => 0.5 * (-sigma2).ln_1p(),
            false => (((1.0 - t.v()) * self.c).max(0.0).sin() / a0.cos()).ln(),
        };
        Real::custom(v, &[(t, -self.c * self.tan(&t.detach()).v())])
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        self.tan(t) * -self.c
    }
    fn invert(&self, log_alpha: f64, sigma2: f64) -> (f64, f64) {
        let (sin0, cos0) = (self.s * self.c).sin_cos();
        // sin² a = sin² a₀ + σ² cos² a₀, cos a = α cos a₀
        let (sin, cos) = ((sin0 * sin0 + sigma2 * cos0 * cos0).sqrt(), log_alpha.exp() * cos0);
        (sin.atan2(cos) / self.c - self.s, -self.c * sin / cos)
    }
}
