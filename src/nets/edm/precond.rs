//! How D(x; σ) is made from each kind of network (Karras et al. 2022, table 1, and the paper's appendix C for iDDPM).
use super::config::Config;
use crate::denoise::{Predicts, TimeInput};
use crate::nets::weights::Weights;
use crate::{Error, Kind, Result};
use std::sync::Arc;

/// EDM's sampler runs between these noise levels, as far as a network knows them.
const SAMPLED: [f64; 2] = [0.002, 80.0];

/// A network's preconditioning, with the numbers that belong to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Precond {
    /// The kind's short name: "EDM", "VP", "VE", "iDDPM".
    pub name: &'static str,
    /// What the network's output means.
    pub predicts: Predicts,
    /// What the network is told about the noise.
    pub time: TimeInput,
    /// The noise levels σ/α that the network knows, lowest and highest.
    pub trained: [f64; 2],
}

impl Precond {
    /// From a checked configuration; iDDPM's table of noise levels `u` comes with the weights.
    pub(super) fn build(config: &Config, weights: &mut dyn Weights) -> Result<Precond> {
        let steps = config.steps;
        let (name, predicts, time, own) = match &*config.precond {
            "VPPrecond" => {
                let sigma = |t: f64| (0.5 * config.beta_d * t * t + config.beta_min * t).exp_m1().sqrt();
                let time = TimeInput::VpSteps { beta_d: config.beta_d, beta_min: config.beta_min, steps };
                ("VP", Predicts::UnitNoise, time, [sigma(config.epsilon_t), sigma(1.0)])
            }
            "VEPrecond" => ("VE", Predicts::NegativeNoise, TimeInput::LnHalfSigma, [0.02, 100.0]),
            "iDDPMPrecond" => {
                let u = table(config, weights)?;
                let own = [u[steps - 1], u[0]];
                ("iDDPM", Predicts::UnitNoise, TimeInput::Nearest(u), own)
            }
            _ => ("EDM", Predicts::EdmF { sigma_data: config.sigma_data }, TimeInput::LnSigmaOver4, SAMPLED),
        };
        // a bound of 0 or ∞ says that there is none
        let given = [config.sigma_min.filter(|s| *s > 0.0), config.sigma_max.filter(|s| s.is_finite())];
        let trained = [given[0].unwrap_or(own[0]), given[1].unwrap_or(own[1])];
        if !(trained[0] < trained[1] && trained[1].is_finite()) {
            let m = format!("{name} preconditioning with noise levels from {} to {}", trained[0], trained[1]);
            return Err(Error::new(Kind::Format, m).hint("check sigma_min, sigma_max and the schedule's constants"));
        }
        Ok(Precond { name, predicts, time, trained })
    }

    /// The noise levels between which it is sampled by default: EDM's 0.002 to 80, as far as the network knows them. A file
    /// that states other bounds for an EDM network is taken at its word.
    pub fn sampled(&self) -> [f64; 2] {
        let both = [self.trained[0].max(SAMPLED[0]), self.trained[1].min(SAMPLED[1])];
        if self.name == "EDM" || both[0] >= both[1] { self.trained } else { both }
    }
}

/// iDDPM's noise levels u_0 > … > u_M = 0.
fn table(config: &Config, weights: &mut dyn Weights) -> Result<Arc<[f64]>> {
    let m = config.steps;
    let alpha_bar = |j: usize| (0.5 * std::f64::consts::PI * j as f64 / m as f64 / (config.c_2 + 1.0)).sin().powi(2);
    let mut u = vec![0.0; m + 1];
    for j in (1..=m).rev() {
        let ratio = (alpha_bar(j - 1) / alpha_bar(j)).max(config.c_1);
        u[j - 1] = f64::sqrt((u[j] * u[j] + 1.0) / ratio - 1.0);
    }
    let u = weights.buffer("u", &[m + 1], &u)?;
    if u.windows(2).any(|w| w[0] <= w[1]) || u[m] != 0.0 {
        let e = Error::new(Kind::Format, "`u`, iDDPM's table of noise levels, does not fall to 0 from entry to entry");
        return Err(e.hint("check the file, or M, C_1 and C_2 in its `config`"));
    }
    Ok(u.into())
}
