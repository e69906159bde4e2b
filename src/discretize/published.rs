//! Schedules that were published as tables, by name.
use super::{Resampling, Schedule};
use crate::noise::{Noise, from_spec};
use crate::{Error, Result};
use serde_json::json;

/// In which form a table was published.
enum Form {
    /// Noise levels σ/α, down from the first to `sigma_min`: EDM's schedule between them.
    Sigmas,
    /// Indices of the 1000 training steps of Stable Diffusion; its last step (σ = 0.0292) ends the schedule.
    Timesteps,
    /// t ∈ [1/1000, 1] of Stable Diffusion's noise schedule.
    Times,
    /// σ of a flow model.
    Flow,
}

/// A published table.
pub struct Published {
    /// Its name.
    pub name: &'static str,
    /// Where it is from, and for what.
    pub about: &'static str,
    form: Form,
    values: &'static [f64],
}

const fn table(name: &'static str, about: &'static str, form: Form, values: &'static [f64]) -> Published {
    Published { name, about, form, values }
}

/// All tables.
pub static PUBLISHED: [Published; 8] = [
    table(
        "ays_sd15",
        "AYS (Sabour et al., 2024) for Stable Diffusion 1.5, 10 steps",
        Form::Timesteps,
        &[999.0, 850.0, 736.0, 645.0, 545.0, 455.0, 343.0, 233.0, 124.0, 24.0],
    ),
    table(
        "ays_sdxl",
        "AYS (Sabour et al., 2024) for SDXL, 10 steps",
        Form::Timesteps,
        &[999.0, 845.0, 730.0, 587.0, 443.0, 310.0, 193.0, 116.0, 53.0, 13.0],
    ),
    table(
        "ays_svd",
        "AYS (Sabour et al., 2024) for Stable Video Diffusion, 10 steps",
        Form::Sigmas,
        &[700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
    ),
    table(
        "gits_sd_4",
        "GITS (Chen et al., 2024) for Stable Diffusion 1.5, 4 steps",
        Form::Times,
        &[1.0, 0.6837, 0.3673, 0.1176, 0.001],
    ),
    table(
        "gits_sd_5",
        "GITS for Stable Diffusion 1.5, 5 steps",
        Form::Times,
        &[1.0, 0.7669, 0.4839, 0.2341, 0.0676, 0.001],
    ),
    table(
        "gits_sd_6",
        "GITS for Stable Diffusion 1.5, 6 steps",
        Form::Times,
        &[1.0, 0.7836, 0.5504, 0.3340, 0.1508, 0.0343, 0.001],
    ),
    table(
        "gits_sd_7",
        "GITS for Stable Diffusion 1.5, 7 steps",
        Form::Times,
        &[1.0, 0.8502, 0.6004, 0.4006, 0.2175, 0.0843, 0.0176, 0.001],
    ),
    table(
        "oss_flux",
        "OSS (Pei et al., 2025) for FLUX, 10 steps",
        Form::Flow,
        &[0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001],
    ),
];

/// The published schedule of that name, in the time of its own noise schedule; with `steps`, resampled log-linearly.
pub fn published(name: &str, steps: Option<usize>) -> Result<Schedule> {
    let Some(table) = PUBLISHED.iter().find(|t| t.name == name) else {
        return Err(Error::unknown("published schedule", name, PUBLISHED.iter().map(|t| t.name)));
    };
    let v = table.values;
    let sd = || from_spec(&json!({ "name": "vp_discrete", "preset": "sd" }));
    let (noise, t): (Noise, Vec<f64>) = match table.form {
        Form::Sigmas => {
            let ends = json!({ "name": "edm", "sigma_min": v[v.len() - 1], "sigma_max": v[0] });
            (from_spec(&ends)?, v.to_vec())
        }
        Form::Timesteps => (sd()?, v.iter().map(|k| (k + 1.0) / 1000.0).chain([0.001]).collect()),
        Form::Times => (sd()?, v.to_vec()),
        Form::Flow => (from_spec(&json!({ "name": "flow" }))?, v.to_vec()),
    };
    let schedule = Schedule::from_steps(noise, &t, name)?;
    match steps {
        Some(n) if n != schedule.nfe() => schedule.resample(n, Resampling::LogLinear, None),
        _ => Ok(schedule),
    }
}
