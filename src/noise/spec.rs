//! What a noise schedule is made of, as plain data: options with their defaults, to and from JSON.
use super::discrete::Table;
use super::flow::Flow;
use super::table::{Knots, Tabled};
use super::ve::Edm;
use super::vp::{Cosine, Linear, Vp};
use super::{Noise, check_option};
use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// The names of all noise schedules.
pub const NAMES: [&str; 6] = ["edm", "vp_linear", "vp_cosine", "vp_discrete", "flow", "table"];

/// A noise schedule as data. In JSON an object with its `name`; every other entry may be left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Spec {
    /// VE as in EDM: α = 1, σ = t.
    Edm {
        /// t_min, 0.002.
        #[serde(default = "default::sigma_min")]
        sigma_min: f64,
        /// T, 80.
        #[serde(default = "default::sigma_max")]
        sigma_max: f64,
    },
    /// VP with β linear in time.
    VpLinear {
        /// β(0), 0.1.
        #[serde(default = "default::beta_min")]
        beta_min: f64,
        /// β(1), 20.
        #[serde(default = "default::beta_max")]
        beta_max: f64,
        /// 1e-3.
        #[serde(default = "default::t_min")]
        t_min: f64,
        /// 1.
        #[serde(default = "default::one")]
        t_max: f64,
    },
    /// VP with α a cosine of time.
    VpCosine {
        /// The offset at t = 0, 0.008.
        #[serde(default = "default::s")]
        s: f64,
        /// 1e-3.
        #[serde(default = "default::t_min")]
        t_min: f64,
        /// 0.9946, as in DPM-Solver.
        #[serde(default = "default::cosine_t_max")]
        t_max: f64,
    },
    /// VP of a network trained at N discrete steps, t ∈ [1/N, 1]: exactly one of the three entries.
    VpDiscrete {
        /// A name among [`super::PRESETS`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        preset: Option<String>,
        /// β_1…β_N.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        betas: Option<Vec<f64>>,
        /// α_1²…α_N².
        #[serde(default, skip_serializing_if = "Option::is_none")]
        alphas_cumprod: Option<Vec<f64>>,
    },
    /// Rectified flow: σ = t, α = 1 − t, possibly shifted.
    Flow {
        /// s in σ = s t / (1 + (s − 1) t), 1. FLUX's μ is ln s.
        #[serde(default = "default::one")]
        shift: f64,
        /// 0.
        #[serde(default)]
        t_min: f64,
        /// 1.
        #[serde(default = "default::one")]
        t_max: f64,
    },
    /// Any α and σ, cubic in their logarithms between knots.
    Table {
        /// Times, ascending.
        t: Vec<f64>,
        /// ln α at each.
        log_alpha: Vec<f64>,
        /// ln σ at each.
        log_sigma: Vec<f64>,
        /// d ln α/dt at each.
        dlog_alpha: Vec<f64>,
        /// d ln σ/dt at each.
        dlog_sigma: Vec<f64>,
    },
}

/// The values that options have when they are left out.
mod default {
    pub fn sigma_min() -> f64 {
        0.002
    }
    pub fn sigma_max() -> f64 {
        80.0
    }
    pub fn beta_min() -> f64 {
        0.1
    }
    pub fn beta_max() -> f64 {
        20.0
    }
    pub fn t_min() -> f64 {
        1e-3
    }
    pub fn s() -> f64 {
        0.008
    }
    pub fn cosine_t_max() -> f64 {
        0.9946
    }
    pub fn one() -> f64 {
        1.0
    }
}

impl Spec {
    /// Reads `{"name": …, …}`; an unknown name or entry is an error.
    pub fn from_json(v: &serde_json::Value) -> Result<Spec> {
        let Some(name) = v.get("name").and_then(|n| n.as_str()) else {
            let e = Error::new(Kind::Format, "a noise schedule must be an object with a string `name`");
            return Err(e.hint(r#"for example {"name": "edm"}"#));
        };
        if !NAMES.contains(&name) {
            return Err(Error::unknown("noise schedule", name, NAMES));
        }
        Spec::deserialize(v).map_err(|e| Error::new(Kind::Format, format!("noise schedule `{name}`: {e}")))
    }
    /// Makes the schedule; values out of range are errors.
    pub fn build(&self) -> Result<Noise> {
        let json = serde_json::to_value(self)
            .map_err(|e| Error::new(Kind::Internal, format!("a noise schedule cannot be written as JSON: {e}")))?;
        Ok(match self {
            Spec::Edm { sigma_min, sigma_max } => Rc::new(Edm::new(*sigma_min, *sigma_max, json)?),
            Spec::VpLinear { beta_min, beta_max, t_min, t_max } => {
                Rc::new(Vp::new(Linear::new(*beta_min, *beta_max)?, *t_min, *t_max, json)?)
            }
            Spec::VpCosine { s, t_min, t_max } => {
                check_option("vp_cosine", "t_max", *t_max, *t_max < 1.0, "below 1 (at t = 1 the log-SNR is −∞)")?;
                Rc::new(Vp::new(Cosine::new(*s)?, *t_min, *t_max, json)?)
            }
            Spec::VpDiscrete { preset, betas, alphas_cumprod } => {
                let table = match (preset, betas, alphas_cumprod) {
                    (Some(name), None, None) => Table::preset(name)?,
                    (None, Some(b), None) => Table::from_betas(b)?,
                    (None, None, Some(a)) => Table::from_alphas_cumprod(a)?,
                    _ => {
                        let m = "noise::vp_discrete: exactly one of `preset`, `betas`, `alphas_cumprod` must be given";
                        return Err(Error::value(m));
                    }
                };
                let t_min = 1.0 / table.steps() as f64;
                Rc::new(Vp::new(table, t_min, 1.0, json)?)
            }
            Spec::Table { t, log_alpha, log_sigma, dlog_alpha, dlog_sigma } => {
                let pairs = |a: &[f64], b: &[f64]| match a.len() == b.len() {
                    true => Ok(a.iter().zip(b).map(|(a, b)| [*a, *b]).collect()),
                    false => Err(Error::value(format!("noise::table: {} values, but {} slopes", a.len(), b.len()))),
                };
                let (alpha, sigma) = (pairs(log_alpha, dlog_alpha)?, pairs(log_sigma, dlog_sigma)?);
                Rc::new(Tabled::new(Knots { t: t.clone(), alpha, sigma }, json)?)
            }
            Spec::Flow { shift, t_min, t_max } => Rc::new(Flow::new(*shift, *t_min, *t_max, json)?),
        })
    }
}

/// Makes a noise schedule from what [`super::NoiseSchedule::spec`] returned (or a shorter form: entries that are left out
/// have their defaults).
pub fn from_spec(v: &serde_json::Value) -> Result<Noise> {
    Spec::from_json(v)?.build()
}
