//! What a file of a diffusion transformer does not say of itself: from the user, from the configuration beside it, and by what is published.
use super::graphs::How;
use super::names::Kind as Which;
use crate::denoise::{Predicts, TimeInput};
use crate::nets::ldm::Shapes;
use crate::nets::ldm::{BREADTH, HEADS, HEIGHT, SIZE};
use crate::nets::weights::File;
use crate::schema::{Opt, Value, word as choice};
use crate::{Error, Kind, Result};
use serde_json::{Value as Json, json};

/// Metadata entries that say which network it is, and whether its names were the original code's.
pub const KIND: &str = "transformer.kind";
pub const ORIGINAL: &str = "transformer.original";

const PREDICTS: Opt =
    choice("predicts", &["noise", "velocity"], "of DiT's networks: \"noise\" is DiT, \"velocity\" SiT").or("\"noise\"");

/// The options of this family, beside those of autoencoders.
pub const OPTIONS: [Opt; 5] = [HEADS, SIZE, HEIGHT, BREADTH, PREDICTS];

/// All that is needed beside shapes.
pub struct Facts {
    /// What it is, in a word.
    pub title: &'static str,
    /// For the graph.
    pub how: How,
    /// What the output means.
    pub predicts: Predicts,
    /// What it is told about the noise.
    pub time: TimeInput,
    /// Its noise schedule.
    pub noise: Json,
    /// Factor and shift of its published autoencoder.
    pub stage: [f64; 2],
    /// What users should know.
    pub notes: Vec<String>,
}

/// The word for a network in [`KIND`].
pub fn word(kind: Which) -> &'static str {
    match kind {
        Which::Dit => "dit",
        Which::Sd3 => "sd3",
        Which::Flux => "flux",
        Which::PixArt => "pixart",
    }
}

fn whole(json: &Json, key: &str) -> Option<usize> {
    json.get(key).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
}

/// Heads of the published networks: by the width of DiT's, by the channels of a head of the others.
fn heads(kind: Which, width: usize) -> Option<usize> {
    match kind {
        Which::Dit => [(1152, 16), (1024, 16), (768, 12), (384, 6)].iter().find(|(w, _)| *w == width).map(|(_, n)| *n),
        Which::Sd3 => width.is_multiple_of(64).then_some(width / 64),
        Which::Flux => width.is_multiple_of(128).then_some(width / 128),
        Which::PixArt => width.is_multiple_of(72).then_some(width / 72),
    }
}

impl Facts {
    /// Of a file with these shapes.
    pub fn new(file: &mut File, shapes: &Shapes) -> Result<Facts> {
        let kind = match file.metadata(KIND) {
            Some("sd3") => Which::Sd3,
            Some("flux") => Which::Flux,
            Some("pixart") => Which::PixArt,
            _ => Which::Dit,
        };
        let original = file.metadata(ORIGINAL) == Some("true");
        let config =
            file.metadata("transformer.config").and_then(|t| serde_json::from_str(t).ok()).unwrap_or(Json::Null);
        let set = |v: Value| if let Value::Count(n) = v { Some(n) } else { None };
        let velocity = kind == Which::Dit && file.option(&PREDICTS)? == Value::Word("velocity");
        let first = if kind == Which::Flux { "x_embedder.weight" } else { "pos_embed.proj.weight" };
        let width = shapes.of(first, 2)?[0];
        let told = set(file.option(&HEADS)?).or(whole(&config, "num_attention_heads"));
        let Some(heads) = told.or(heads(kind, width)).filter(|n| width.is_multiple_of(*n)) else {
            let m = format!("how many heads attention over {width} channels has cannot be read off the weights");
            return Err(Error::value(m).hint("give the option `heads`"));
        };
        // DiT's original files hold places for one size
        let placed = shapes.dim("pos_embed.table", 1).map(|n| {
            let patch = shapes.dim("pos_embed.proj.weight", 2).unwrap_or(1);
            (n as f64).sqrt().round() as usize * patch
        });
        let published = if kind == Which::Dit { 32 } else { 128 };
        let trained = placed.or(whole(&config, "sample_size")).unwrap_or(published);
        let size = set(file.option(&SIZE)?).unwrap_or(trained);
        let size = [set(file.option(&HEIGHT)?).unwrap_or(size), set(file.option(&BREADTH)?).unwrap_or(size)];
        let axes = config.get("axes_dims_rope").and_then(Json::as_array).map(|a| {
            a.iter().map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)).collect::<Vec<_>>()
        });
        let axes: [usize; 3] = match axes.as_deref() {
            None => [16, 56, 56],
            Some(&[a, b, c]) => [a, b, c],
            Some(other) => {
                let m = format!("`axes_dims_rope` has {} entries, not 3", other.len());
                return Err(Error::new(Kind::Format, m));
            }
        };
        if kind == Which::Flux && (axes.iter().sum::<usize>() * heads != width || axes.iter().any(|n| n % 2 == 1)) {
            let m = format!("its rotary embedding turns {axes:?} channels of heads of {}", width / heads);
            return Err(Error::value(m).hint("do `heads` and the configuration fit this file?"));
        }
        let patch = shapes.dim("pos_embed.proj.weight", 2).unwrap_or(1).max(1);
        let base = (trained / patch).max(1);
        // how far apart places are, of networks that were first trained with fewer
        let apart = match kind {
            Which::PixArt => config
                .get("interpolation_scale")
                .and_then(Json::as_f64)
                .filter(|s| *s > 0.0 && s.is_finite())
                .unwrap_or((trained / 64).max(1) as f64),
            _ => 1.0,
        };
        let flow = json!({ "name": "flow" });
        let mut notes = vec![];
        if kind == Which::Dit && !velocity {
            notes.push(
                "it is taken to be DiT; SiT, whose files have the same names, needs `predicts: \"velocity\"`".into(),
            );
        }
        let (title, predicts, time, noise, stage) = match (kind, velocity) {
            (Which::Dit, false) => {
                let noise = json!({ "name": "vp_discrete", "preset": "iddpm_linear" });
                ("DiT", Predicts::Noise, TimeInput::Discrete { steps: 1000 }, noise, [0.18215, 0.0])
            }
            (Which::Dit, true) => ("SiT", Predicts::Flow, TimeInput::FlowTime, flow, [0.18215, 0.0]),
            (Which::Sd3, _) => ("SD3", Predicts::Flow, TimeInput::Scaled(1000.0), flow, [1.5305, 0.0609]),
            (Which::PixArt, _) => {
                let noise = json!({ "name": "vp_discrete", "preset": "iddpm_linear" });
                ("PixArt", Predicts::Noise, TimeInput::Discrete { steps: 1000 }, noise, [0.13025, 0.0])
            }
            (Which::Flux, _) => ("FLUX.1", Predicts::Flow, TimeInput::FlowTime, flow, [0.3611, 0.1159]),
        };
        let how = How { kind, original, size, heads, velocity, axes, base, apart };
        Ok(Facts { title, how, predicts, time, noise, stage, notes })
    }
}
