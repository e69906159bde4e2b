//! Small noise schedules, written down independently of the library's.
use ld3sh::noise::{Noise, NoiseSchedule};
use ld3sh::real::Real;
use std::rc::Rc;

/// A noise schedule from ln α, ln σ and the inverse of λ.
pub struct Simple {
    pub name: &'static str,
    pub ends: (f64, f64),
    pub ve: bool,
}

/// √β linear, as Stable Diffusion: ln α_n at the 1000 training steps, t = n/1000.
fn sd_knots() -> Vec<f64> {
    let (a, b) = (0.00085f64.sqrt(), 0.012f64.sqrt());
    let mut sum = 0.0;
    (0..1000)
        .map(|i| {
            let beta = (a + (b - a) * f64::from(i) / 999.0).powi(2);
            sum += 0.5 * (-beta).ln_1p();
            sum
        })
        .collect()
}

thread_local! { static KNOTS: Vec<f64> = sd_knots(); }

fn slope_at(t: f64) -> (usize, f64) {
    let i = ((t * 1000.0 - 1.0).floor().max(0.0) as usize).min(998);
    (i, KNOTS.with(|k| (k[i + 1] - k[i]) * 1000.0))
}

impl Simple {
    pub fn make(name: &str) -> Noise {
        Rc::new(match name {
            "ve_edm" => Simple { name: "ve_edm", ends: (80.0, 0.002), ve: true },
            "vp_linear" => Simple { name: "vp_linear", ends: (1.0, 1e-3), ve: false },
            "vp_discrete_sd" => Simple { name: "vp_discrete_sd", ends: (1.0, 1e-3), ve: false },
            "flow" => Simple { name: "flow", ends: (1.0, 0.0), ve: true },
            other => panic!("{other}"),
        })
    }
}

impl NoiseSchedule for Simple {
    fn name(&self) -> &str {
        self.name
    }
    fn spec(&self) -> serde_json::Value {
        serde_json::json!(self.name)
    }
    fn t_max(&self) -> f64 {
        self.ends.0
    }
    fn t_min(&self) -> f64 {
        self.ends.1
    }
    fn log_alpha(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" => 0.0.into(),
            "vp_linear" => t.square() * (-0.25 * 19.9) - t * 0.05,
            "flow" => (1.0 - t).ln(),
            _ => {
                let (i, slope) = slope_at(t.v());
                (t - (i + 1) as f64 / 1000.0) * slope + KNOTS.with(|k| k[i])
            }
        }
    }
    fn log_sigma(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" | "flow" => t.ln(),
            _ => (-(self.log_alpha(t) * 2.0).exp_m1()).ln() * 0.5,
        }
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" => 0.0.into(),
            "vp_linear" => t * (-0.5 * 19.9) - 0.05,
            "flow" => -1.0 / (1.0 - t),
            _ => slope_at(t.v()).1.into(),
        }
    }
    fn dlambda(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" => -1.0 / t,
            "flow" => -1.0 / (1.0 - t) - 1.0 / t,
            _ => self.dlog_alpha(t) / self.sigma(t).square(),
        }
    }
    fn inverse_lambda(&self, l: &Real) -> Real {
        match self.name {
            "ve_edm" => (-l).exp(),
            "flow" => 1.0 / (l.exp() + 1.0),
            _ => {
                // ln α = −½ ln(1 + e^(−2λ))
                let la = (l * -2.0).exp().ln_1p() * -0.5;
                if self.name == "vp_linear" {
                    let root = (0.05f64.powi(2) - la * (4.0 * 0.25 * 19.9)).sqrt();
                    return (root - 0.05) / Real::from(2.0 * 0.25 * 19.9);
                }
                KNOTS.with(|k| {
                    let i = k.partition_point(|x| *x > la.v()).clamp(1, 999) - 1;
                    (la - k[i]) / Real::from((k[i + 1] - k[i]) * 1000.0) + (i + 1) as f64 / 1000.0
                })
            }
        }
    }
    fn prior_std(&self, t: f64) -> f64 {
        if self.ve { t } else { 1.0 }
    }
    fn alpha(&self, t: &Real) -> Real {
        match self.name {
            "flow" => 1.0 - t,
            _ => self.log_alpha(t).exp(),
        }
    }
    fn sigma(&self, t: &Real) -> Real {
        if self.ve { t.clone() } else { self.log_sigma(t).exp() }
    }
}
