//! The configuration of an EDM network, as its checkpoint's metadata carries it, with bounds checked before use.
use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// The architecture and preconditioning of an EDM network; names and defaults are those of EDM's code, where an option that is
/// left out has the default of its architecture.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Height and width of an image in pixels.
    pub img_resolution: usize,
    /// Colour channels of an image.
    pub img_channels: usize,
    /// Classes for one-hot conditions; 0 for an unconditional network.
    #[serde(default)]
    pub label_dim: usize,
    /// How D(x; σ) is made from the network (see [`PRECONDS`]); in a checkpoint it stands beside this configuration.
    #[serde(skip_deserializing, default = "default::precond")]
    pub precond: String,
    /// The standard deviation of the training data (EDM).
    #[serde(default = "default::sigma_data")]
    pub sigma_data: f64,
    /// The lowest noise level that the network is meant for. Left out, null or 0: the preconditioning's own.
    #[serde(default)]
    pub sigma_min: Option<f64>,
    /// The highest noise level that the network is meant for. Left out or null: the preconditioning's own.
    #[serde(default)]
    pub sigma_max: Option<f64>,
    /// The slope β_d of VP's noise schedule.
    #[serde(default = "default::beta_d")]
    pub beta_d: f64,
    /// β at VP's t = 0.
    #[serde(default = "default::beta_min")]
    pub beta_min: f64,
    /// The lowest t of VP training.
    #[serde(default = "default::epsilon_t")]
    pub epsilon_t: f64,
    /// Training steps M of VP and iDDPM.
    #[serde(default = "default::steps", rename = "M")]
    pub steps: usize,
    /// iDDPM's bound on the ratio of neighbouring ᾱ.
    #[serde(default = "default::c_1", rename = "C_1")]
    pub c_1: f64,
    /// iDDPM's offset of the cosine schedule.
    #[serde(default = "default::c_2", rename = "C_2")]
    pub c_2: f64,
    /// `"SongUNet"` (DDPM++, NCSN++) or `"DhariwalUNet"` (ADM).
    pub model_type: String,
    /// `"positional"` (DDPM++, ADM) or `"fourier"` (NCSN++).
    pub embedding_type: String,
    /// `"standard"` (DDPM++, ADM), `"residual"` (NCSN++) or `"skip"`.
    pub encoder_type: String,
    /// `"standard"` or `"skip"`.
    pub decoder_type: String,
    /// The resampling filter of each axis, up to a factor: [1, 1] is the mean of two pixels, NCSN++ has [1, 3, 3, 1].
    pub resample_filter: Vec<f64>,
    /// Channels at the highest resolution.
    pub model_channels: usize,
    /// Channels at each resolution, as multiples of `model_channels`; each level halves the resolution.
    pub channel_mult: Vec<usize>,
    /// Width of the embedding, as a multiple of `model_channels`.
    pub channel_mult_emb: usize,
    /// Width of the noise embedding, as a multiple of `model_channels`.
    pub channel_mult_noise: usize,
    /// Residual blocks at each resolution.
    pub num_blocks: usize,
    /// Resolutions with self-attention.
    pub attn_resolutions: Vec<usize>,
    /// Width of the augmentation labels of training; 0 without.
    #[serde(default)]
    pub augment_dim: usize,
    /// Dropout in training; not used in sampling.
    #[serde(default)]
    pub dropout: f64,
    /// Label dropout in training; not used in sampling.
    #[serde(default)]
    pub label_dropout: f64,
    /// Whether the network was meant to run in half precision on a GPU. Here the caller says in which type it runs.
    #[serde(default)]
    pub use_fp16: bool,
}

/// The preconditionings by the names that checkpoints give them.
pub const PRECONDS: [&str; 4] = ["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"];

/// The architectures, each with the defaults of what may be left out.
const ARCHITECTURES: [(&str, &str); 2] = [
    (
        "SongUNet",
        r#"{"embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1],
        "model_channels": 128, "channel_mult": [1, 2, 2, 2], "channel_mult_emb": 4, "channel_mult_noise": 1, "num_blocks": 4, "attn_resolutions": [16]}"#,
    ),
    (
        "DhariwalUNet",
        r#"{"embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1],
        "model_channels": 192, "channel_mult": [1, 2, 3, 4], "channel_mult_emb": 4, "channel_mult_noise": 1, "num_blocks": 3, "attn_resolutions": [32, 16, 8]}"#,
    ),
];

/// The values that options have when they are left out, whatever the architecture.
mod default {
    pub fn precond() -> String {
        "EDMPrecond".into()
    }
    pub fn sigma_data() -> f64 {
        0.5
    }
    pub fn beta_d() -> f64 {
        19.9
    }
    pub fn beta_min() -> f64 {
        0.1
    }
    pub fn epsilon_t() -> f64 {
        1e-5
    }
    pub fn steps() -> usize {
        1000
    }
    pub fn c_1() -> f64 {
        0.001
    }
    pub fn c_2() -> f64 {
        0.008
    }
}

impl Config {
    /// Resolution and channels of each level, the highest resolution first.
    pub(super) fn levels(&self) -> Vec<(usize, usize)> {
        let level = |(l, m): (usize, &usize)| (self.img_resolution >> l, self.model_channels * m);
        self.channel_mult.iter().enumerate().map(level).collect()
    }
    /// Parses and checks the JSON of a checkpoint; a `SongUNet` unless it says otherwise, with EDM preconditioning
    /// (change that by [`Config::with_precond`]).
    pub fn parse(json: &str) -> Result<Config> {
        Config::parse_as(json, "SongUNet")
    }
    /// As [`Config::parse`], with the architecture that is meant where the JSON does not name one.
    pub fn parse_as(json: &str, model_type: &str) -> Result<Config> {
        let unreadable = |e: serde_json::Error| {
            Error::new(Kind::Format, format!("the network's configuration cannot be read: {e}")).hint(
                "`config` in the metadata must be a JSON object with img_resolution, img_channels, model_channels, …",
            )
        };
        let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).map_err(unreadable)?;
        let given = json.entry("model_type").or_insert_with(|| model_type.into()).as_str().unwrap_or_default();
        let Some((_, defaults)) = ARCHITECTURES.iter().find(|(name, _)| *name == given) else {
            let known = ARCHITECTURES.iter().map(|(name, _)| *name);
            return Err(one_of("model_type", given, known));
        };
        let defaults: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(defaults).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        for (key, value) in defaults {
            json.entry(key).or_insert(value);
        }
        let config: Config = serde_json::from_value(json.into()).map_err(unreadable)?;
        config.check()?;
        Ok(config)
    }
    /// The same network with another preconditioning.
    pub fn with_precond(mut self, name: &str) -> Result<Config> {
        self.precond = name.into();
        self.check()?;
        Ok(self)
    }

    /// Checks every value against what the architectures can be, and against absurd sizes.
    pub fn check(&self) -> Result<()> {
        let within = |name: &str, v: usize, low: usize, high: usize| match (low..=high).contains(&v) {
            true => Ok(()),
            false => Err(bad(format!("`{name}` is {v}, expected {low} to {high}"))),
        };
        let number = |name: &str, v: f64, ok: bool, what: &str| match ok && v.is_finite() {
            true => Ok(()),
            false => Err(bad(format!("expected {name} {what}, got {v}"))),
        };
        let word = |name: &str, v: &str, known: &[&'static str]| match known.contains(&v) {
            true => Ok(()),
            false => Err(one_of(name, v, known.iter().copied())),
        };
        word("precond", &self.precond, &PRECONDS)?;
        word("model_type", &self.model_type, &ARCHITECTURES.map(|(name, _)| name))?;
        word("embedding_type", &self.embedding_type, &["positional", "fourier"])?;
        word("encoder_type", &self.encoder_type, &["standard", "skip", "residual"])?;
        word("decoder_type", &self.decoder_type, &["standard", "skip"])?;
        within("img_resolution", self.img_resolution, 1, 4096)?;
        within("img_channels", self.img_channels, 1, 64)?;
        within("label_dim", self.label_dim, 0, 100_000)?;
        within("augment_dim", self.augment_dim, 0, 1024)?;
        within("model_channels", self.model_channels, 4, 2048)?;
        within("channel_mult_emb", self.channel_mult_emb, 1, 16)?;
        within("channel_mult_noise", self.channel_mult_noise, 1, 16)?;
        within("num_blocks", self.num_blocks, 1, 32)?;
        within("the length of channel_mult", self.channel_mult.len(), 1, 8)?;
        within("the length of attn_resolutions", self.attn_resolutions.len(), 0, 16)?;
        for m in &self.channel_mult {
            within("channel_mult", *m, 1, 16)?;
        }
        within("M", self.steps, 2, 100_000)?;
        if !(self.model_channels * self.channel_mult_noise).is_multiple_of(2) {
            return Err(bad("model_channels · channel_mult_noise must be even".into()));
        }
        let halvings = self.channel_mult.len() - 1;
        if !self.img_resolution.is_multiple_of(1 << halvings) {
            return Err(bad(format!(
                "`img_resolution` {} cannot be halved {halvings} times, as `channel_mult` {:?} asks",
                self.img_resolution, self.channel_mult
            )));
        }
        let (filter, sum) = (&self.resample_filter, self.resample_filter.iter().sum::<f64>());
        let even = filter.len().is_multiple_of(2) && (2..=16).contains(&filter.len());
        let bounded = filter.iter().all(|f| f.abs() <= 1e6);
        if !even || !bounded || sum.abs() < 1e-6 {
            let m = format!("`resample_filter` must be 2, 4, … 16 numbers whose sum is not 0, not {filter:?}");
            return Err(bad(m));
        }
        let fixed = [self.embedding_type == "positional", self.encoder_type == "standard"];
        let fixed = fixed.into_iter().chain([self.decoder_type == "standard", self.channel_mult_noise == 1]);
        let names = ["embedding_type", "encoder_type", "decoder_type", "channel_mult_noise", "resample_filter"];
        if self.model_type == "DhariwalUNet" {
            let box_filter = filter.windows(2).all(|f| f[0] == f[1]) && filter.len() == 2;
            if let Some((_, name)) = fixed.chain([box_filter]).zip(names).find(|(ok, _)| !ok) {
                return Err(bad(format!("`{name}` is not an option of DhariwalUNet")));
            }
        }
        number("sigma_data", self.sigma_data, self.sigma_data > 0.0, "> 0")?;
        number("beta_d", self.beta_d, self.beta_d > 0.0, "> 0")?;
        number("beta_min", self.beta_min, self.beta_min >= 0.0, ">= 0")?;
        number("epsilon_t", self.epsilon_t, self.epsilon_t > 0.0 && self.epsilon_t < 1.0, "between 0 and 1")?;
        number("C_1", self.c_1, self.c_1 > 0.0 && self.c_1 < 1.0, "between 0 and 1")?;
        number("C_2", self.c_2, self.c_2 >= 0.0, ">= 0")?;
        let (low, high) = (self.sigma_min.unwrap_or(0.0), self.sigma_max.unwrap_or(f64::INFINITY));
        if !(low >= 0.0 && low < high) {
            return Err(bad(format!("expected 0 <= sigma_min < sigma_max, got {low} and {high}")));
        }
        Ok(())
    }

    /// The published name of this architecture.
    pub fn architecture(&self) -> &'static str {
        match (&*self.model_type, &*self.embedding_type, &*self.encoder_type) {
            ("DhariwalUNet", ..) => "ADM",
            (_, "positional", "standard") => "DDPM++",
            (_, "fourier", "residual") => "NCSN++",
            _ => "SongUNet",
        }
    }
}

fn one_of(name: &str, v: &str, known: impl IntoIterator<Item = &'static str>) -> Error {
    let known: Vec<&str> = known.into_iter().collect();
    let e = Error::new(Kind::Format, format!("`{name}` is \"{v}\", which is none of {}", known.join(", ")));
    e.hint("the networks that can be loaded are EDM's DDPM++, NCSN++ and ADM")
}

fn bad(message: String) -> Error {
    Error::new(Kind::Format, format!("the network's configuration is not usable: {message}"))
}
