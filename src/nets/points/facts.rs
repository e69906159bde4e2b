//! What a generator of point clouds is: from its training arguments, the shapes of its tensors, and the user.
use super::ENTRY;
use super::graphs::How;
use crate::nets::ldm::Shapes;
use crate::nets::weights::File;
use crate::schema::{Opt, Value, count};
use crate::{Error, Kind, Result};
use serde_json::{Value as Json, json};

const POINTS: Opt =
    count("points", 2048, [1, 1 << 20], "points of a cloud, of networks of these").or("the file's, or 2048");

/// The options of this family.
pub const OPTIONS: [Opt; 1] = [POINTS];

/// The published schedule: its name among the presets of `noise::vp_discrete`, its steps, and β at its ends.
const PUBLISHED: (&str, usize, f64, f64) = ("dmpg", 100, 1e-4, 0.02);

/// All that is needed beside the weights.
pub struct Facts {
    /// Of the denoiser's graph.
    pub how: How,
    /// β of each training step.
    pub betas: Vec<f64>,
    /// The noise schedule.
    pub noise: Json,
    /// Whether there is a prior of the latent: not for an autoencoder.
    pub prior: bool,
    /// Widths of the hidden layers of each coupling of the prior's flow; none for a Gaussian prior.
    pub couplings: Vec<[usize; 2]>,
    /// What users should know.
    pub notes: Vec<String>,
}

fn format(m: impl Into<String>) -> Error {
    Error::new(Kind::Format, m)
}

fn number(args: &Json, key: &str) -> Option<f64> {
    args.get(key).and_then(Json::as_f64)
}

impl Facts {
    /// Of a file with these tensors of the denoiser and of the flow.
    pub fn new(file: &mut File, net: &Shapes, flow: &Shapes) -> Result<Facts> {
        let args: Json = match file.metadata(ENTRY) {
            Some(text) => {
                serde_json::from_str(text).map_err(|e| format(format!("`{ENTRY}` in the metadata is no JSON: {e}")))?
            }
            None => Json::Null,
        };
        let mut notes = vec![];
        let depth = net.count("layers");
        if depth == 0 {
            return Err(format("the file holds no `diffusion.net.layers`").hint(super::ADVICE));
        }
        let mut widths = vec![net.of("layers.0._layer.weight", 2)?[1]];
        for i in 0..depth {
            widths.push(net.of(&format!("layers.{i}._layer.weight"), 2)?[0]);
        }
        if (widths[0], widths[depth]) != (3, 3) {
            let m = format!(
                "its layers go from {} to {} numbers for each point, not from 3 to 3",
                widths[0], widths[depth]
            );
            return Err(format(m).hint("clouds here are points [x, y, z]"));
        }
        let told = net.of("layers.0._hyper_bias.weight", 2)?[1];
        let latent = told.checked_sub(3).filter(|n| *n > 0);
        let latent = latent
            .ok_or_else(|| format(format!("its layers are told {told} numbers, not β, sin β, cos β and a latent")))?;
        if let Some(said) = number(&args, "latent_dim").filter(|n| *n != latent as f64) {
            return Err(format(format!(
                "`latent_dim` is {said}, but its layers are told {latent} numbers beside the noise level"
            )));
        }
        let residual = match args.get("residual") {
            None => {
                notes.push("the file does not say whether the network adds its input to its output (`residual`): it is taken to, as published".into());
                true
            }
            Some(v) => v
                .as_bool()
                .or(v.as_i64().map(|n| n != 0))
                .ok_or_else(|| format(format!("`residual` must be true or false, not {v}")))?,
        };
        let points = match file.option(&POINTS)? {
            Value::Count(n) => n,
            _ => args.get("points").and_then(Json::as_u64).map_or(2048, |n| n as usize),
        };
        let (betas, noise) = schedule(file, &args)?;
        let (prior, couplings) = prior(&args, flow, latent)?;
        if !prior {
            notes.push("it is an autoencoder, which has no prior: its condition `z` comes from an encoder".into());
        }
        Ok(Facts { how: How { points, latent, widths, residual }, betas, noise, prior, couplings, notes })
    }
}

/// β of each step, and the noise schedule: by the training arguments, unless the file's own buffers say otherwise.
fn schedule(file: &mut File, args: &Json) -> Result<(Vec<f64>, Json)> {
    let (_, steps, first, last) = PUBLISHED;
    let stored = file.take_values("diffusion.var_sched.betas")?;
    let mode = args.get("sched_mode").and_then(Json::as_str).unwrap_or("linear");
    let said = match (args, mode) {
        (Json::Null, _) if stored.is_none() => {
            return Err(format("the file says nothing of its noise schedule")
                .hint("it needs the tensor `diffusion.var_sched.betas`, or the training arguments"));
        }
        (Json::Null, _) => None,
        (_, "linear") => {
            let n = number(args, "num_steps").unwrap_or(steps as f64);
            if !((2.0..=1e6).contains(&n) && n.fract() == 0.0) {
                return Err(format(format!("`num_steps` must be a whole number of at least 2, not {n}")));
            }
            let (a, b) = (number(args, "beta_1").unwrap_or(first), number(args, "beta_T").unwrap_or(last));
            Some((0..n as usize).map(|i| a + (b - a) * i as f64 / (n - 1.0)).collect::<Vec<f64>>())
        }
        (_, other) if stored.is_none() => {
            return Err(format(format!("a schedule of mode `{other}` is not known")).hint("known is `linear`"));
        }
        _ => None,
    };
    // buffers are f32 and begin with a β of 0 for t = 0; where they mean the same, the exact numbers count
    let buffer = stored.map(|b| if b.first() == Some(&0.0) { b[1..].to_vec() } else { b });
    let near =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
    let betas = match (said, buffer) {
        (Some(said), None) => said,
        (Some(said), Some(buffer)) if near(&buffer, &said) => said,
        (_, Some(buffer)) => buffer,
        (None, None) => return Err(format("the file says nothing of its noise schedule")),
    };
    let published: Vec<f64> = (0..steps).map(|i| first + (last - first) * i as f64 / (steps - 1) as f64).collect();
    Ok(match near(&betas, &published) {
        true => (published, json!({ "name": "vp_discrete", "preset": PUBLISHED.0 })),
        false => {
            let noise = json!({ "name": "vp_discrete", "betas": betas });
            (betas, noise)
        }
    })
}

/// Whether there is a prior, and the widths of its flow.
fn prior(args: &Json, flow: &Shapes, latent: usize) -> Result<(bool, Vec<[usize; 2]>)> {
    let depth = flow.count("chain");
    match args.get("model").and_then(Json::as_str) {
        Some("gaussian") => return Ok((true, vec![])),
        Some("flow") | None if depth > 0 => {}
        Some("flow") => {
            return Err(format("it is said to have a flow as its prior, but holds no `flow.chain`").hint(super::ADVICE));
        }
        // an autoencoder's arguments name no model
        None => return Ok((false, vec![])),
        Some(other) => {
            return Err(
                format(format!("a model of kind `{other}` is not known")).hint("known are `flow` and `gaussian`")
            );
        }
    }
    if latent % 2 == 1 {
        let m = format!("a flow of {latent} numbers, which is odd: its inverse is not one in the published code");
        return Err(format(m).hint("use a model whose latent has an even number of entries"));
    }
    let width =
        |i: usize, layer: usize| -> Result<usize> { Ok(flow.of(&format!("chain.{i}.net_s_t.{layer}.weight"), 2)?[0]) };
    let couplings = (0..depth).map(|i| Ok([width(i, 0)?, width(i, 2)?])).collect::<Result<_>>()?;
    Ok((true, couplings))
}
