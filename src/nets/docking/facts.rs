//! What the training parameters of a docking network say: `model_parameters.yml`, one flat map.
use crate::{Error, Kind, Result};
use serde_json::{Map, Value};

/// Lowest and highest noise of a part of a pose.
pub type Span = [f64; 2];

/// All that a network is built and run by.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Scalars of a node, and vectors of each kind.
    pub ns: usize,
    /// Vectors of each kind.
    pub nv: usize,
    /// Rounds of messages.
    pub layers: usize,
    /// Entries of the embedding of time.
    pub level: usize,
    /// Bumps along distances within a molecule.
    pub near: usize,
    /// Bumps along distances between molecules.
    pub far: usize,
    /// What time is multiplied by before it is embedded.
    pub scale: f64,
    /// Up to which distance ligand atoms hear each other, in Å.
    pub radius: f64,
    /// The last bump between molecules, and up to which distance they hear each other where that does not follow the noise.
    pub cross: f64,
    /// Whether that distance is 3 σ + 20.
    pub dynamic: bool,
    /// Whether nodes have features of kind 2.
    pub second: bool,
    /// Whether messages are normalized.
    pub norm: bool,
    /// Whether torsions are predicted.
    pub torsion: bool,
    /// Whether scores are scaled by the noise.
    pub scaled: bool,
    /// Noise of the shift, in Å; of the rotation and of each torsion, in radians.
    pub sigma: [Span; 3],
}

/// The numbers, words and truths of a flat map in YAML, as training scripts write it; lists are skipped.
pub fn flat_yaml(text: &str) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for (n, line) in text.lines().enumerate() {
        let bare = line.split(" #").next().unwrap_or_default().trim_end();
        if bare.is_empty() || bare.starts_with(['#', '-', ' ']) || bare == "{}" {
            continue;
        }
        let Some((key, value)) = bare.split_once(':') else {
            let m = format!("line {} of model_parameters.yml is `{line}`, which is no `name: value`", n + 1);
            return Err(Error::new(Kind::Format, m).hint("it must be the file that training wrote"));
        };
        let value = value.trim().trim_matches(['\'', '"']);
        let value = match value {
            "" | "null" | "~" => continue,
            "true" | "True" => Value::Bool(true),
            "false" | "False" => Value::Bool(false),
            other => match other.parse::<f64>() {
                Ok(number) => Value::from(number),
                Err(_) => Value::from(other),
            },
        };
        out.insert(key.trim().into(), value);
    }
    Ok(out)
}

fn wrong(name: &str, value: &Value, wanted: &str) -> Error {
    let m = format!("`{name}` of model_parameters.yml must be {wanted}, not {value}");
    Error::new(Kind::Format, m).hint("it must be the file that training wrote beside these weights")
}

fn number(map: &Map<String, Value>, name: &str, default: Option<f64>) -> Result<f64> {
    match (map.get(name), default) {
        (None, Some(default)) => Ok(default),
        (None, None) => {
            let m = format!("model_parameters.yml has no `{name}`");
            Err(Error::new(Kind::Format, m).hint("put the file that training wrote beside the weights"))
        }
        (Some(value), _) => match value.as_f64().or_else(|| value.as_str()?.parse().ok()) {
            Some(v) if v.is_finite() => Ok(v),
            _ => Err(wrong(name, value, "a number")),
        },
    }
}

fn count(map: &Map<String, Value>, name: &str, default: Option<usize>, least: usize) -> Result<usize> {
    let v = number(map, name, default.map(|d| d as f64))?;
    match v.fract() == 0.0 && (least as f64..=4096.0).contains(&v) {
        true => Ok(v as usize),
        false => Err(wrong(name, &Value::from(v), &format!("a whole number from {least} to 4096"))),
    }
}

fn truth(map: &Map<String, Value>, name: &str, default: bool) -> Result<bool> {
    match map.get(name) {
        None => Ok(default),
        Some(Value::Bool(b)) => Ok(*b),
        Some(other) => Err(wrong(name, other, "true or false")),
    }
}

fn span(map: &Map<String, Value>, part: &str) -> Result<Span> {
    let (low, high) = (format!("{part}_sigma_min"), format!("{part}_sigma_max"));
    let (least, most) = (number(map, &low, None)?, number(map, &high, None)?);
    match 0.0 < least && least < most {
        true => Ok([least, most]),
        false => Err(wrong(&high, &Value::from(most), &format!("above a {low} ({least}) above 0"))),
    }
}

impl Facts {
    /// From the parameters of a training run.
    ///
    /// # Errors
    /// One that is missing or out of range, and what no published network has.
    pub fn new(map: &Map<String, Value>) -> Result<Facts> {
        if let Some(kind) = map.get("embedding_type").and_then(Value::as_str).filter(|k| *k != "sinusoidal") {
            let m = format!("an embedding of time of type `{kind}` is not read here");
            return Err(Error::new(Kind::Format, m).hint("the published networks have `sinusoidal`"));
        }
        Ok(Facts {
            ns: count(map, "ns", None, 1)?,
            nv: count(map, "nv", None, 1)?,
            layers: count(map, "num_conv_layers", None, 1)?,
            level: count(map, "sigma_embed_dim", Some(32), 4)?,
            near: count(map, "distance_embed_dim", Some(32), 2)?,
            far: count(map, "cross_distance_embed_dim", Some(32), 2)?,
            scale: number(map, "embedding_scale", Some(10000.0))?,
            radius: number(map, "max_radius", Some(5.0))?,
            cross: number(map, "cross_max_distance", Some(250.0))?,
            dynamic: truth(map, "dynamic_max_cross", false)?,
            second: truth(map, "use_second_order_repr", false)?,
            norm: match map.contains_key("batch_norm") {
                true => truth(map, "batch_norm", true)?,
                false => !truth(map, "no_batch_norm", false)?,
            },
            torsion: !truth(map, "no_torsion", false)?,
            scaled: truth(map, "scale_by_sigma", true)?,
            sigma: [span(map, "tr")?, span(map, "rot")?, span(map, "tor")?],
        })
    }

    /// The noise of shift, rotation and torsions at a time from 0 to 1.
    pub fn sigmas(&self, t: f64) -> [f64; 3] {
        self.sigma.map(|[low, high]| low.powf(1.0 - t) * high.powf(t))
    }

    /// Up to which distance ligand and receptor hear each other at a noise of the shift.
    pub fn reach(&self, sigma: f64) -> f64 {
        if self.dynamic { 3.0 * sigma + 20.0 } else { self.cross }
    }

    /// The embedding of a time, in f32 as networks were trained with it: its argument reaches 10,000 radians.
    pub fn embedding(&self, t: f64) -> Vec<f32> {
        let half = self.level / 2;
        let step = (10000f64.ln() / (half.max(2) - 1) as f64) as f32;
        let t = (t * self.scale) as f32;
        let angle = |k: usize| t * (k as f32 * -step).exp();
        let mut out: Vec<f32> = (0..half).map(|k| angle(k).sin()).chain((0..half).map(|k| angle(k).cos())).collect();
        // an odd width has a zero at its end
        out.resize(self.level, 0.0);
        out
    }
}
