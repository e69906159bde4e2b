//! The configuration of an EDM network, as its checkpoint's metadata carries it, with bounds checked before use.
use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

/// The architecture of an EDM network; names and defaults are those of the EDM code's `SongUNet`.
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
    /// The standard deviation of the training data.
    #[serde(default = "half")]
    pub sigma_data: f64,
    /// The lowest noise level that the network is meant for.
    #[serde(default = "sigma_min")]
    pub sigma_min: f64,
    /// The highest noise level that the network is meant for.
    #[serde(default = "sigma_max")]
    pub sigma_max: f64,
    /// `"SongUNet"` is the one known so far.
    #[serde(default = "song_unet")]
    pub model_type: String,
    /// `"positional"` is the one known so far.
    #[serde(default = "positional")]
    pub embedding_type: String,
    /// `"standard"` is the one known so far.
    #[serde(default = "standard")]
    pub encoder_type: String,
    /// `"standard"` is the one known so far.
    #[serde(default = "standard")]
    pub decoder_type: String,
    /// The resampling filter; `[1, 1]` is the one known so far.
    #[serde(default = "box_filter")]
    pub resample_filter: Vec<f64>,
    /// Channels at the highest resolution.
    #[serde(default = "n128")]
    pub model_channels: usize,
    /// Channels at each resolution, as multiples of `model_channels`; each level halves the resolution.
    #[serde(default = "levels")]
    pub channel_mult: Vec<usize>,
    /// Width of the embedding, as a multiple of `model_channels`.
    #[serde(default = "four")]
    pub channel_mult_emb: usize,
    /// Width of the noise embedding, as a multiple of `model_channels`.
    #[serde(default = "one")]
    pub channel_mult_noise: usize,
    /// Residual blocks at each resolution.
    #[serde(default = "four")]
    pub num_blocks: usize,
    /// Resolutions with self-attention.
    #[serde(default = "sixteen")]
    pub attn_resolutions: Vec<usize>,
    /// Width of the augmentation labels of training; not used in sampling.
    #[serde(default)]
    pub augment_dim: usize,
    /// Dropout in training; not used in sampling.
    #[serde(default)]
    pub dropout: f64,
    /// Label dropout in training; not used in sampling.
    #[serde(default)]
    pub label_dropout: f64,
    /// Half precision in training; not used here.
    #[serde(default)]
    pub use_fp16: bool,
}

fn half() -> f64 {
    0.5
}
fn sigma_min() -> f64 {
    0.002
}
fn sigma_max() -> f64 {
    80.0
}
fn song_unet() -> String {
    "SongUNet".into()
}
fn positional() -> String {
    "positional".into()
}
fn standard() -> String {
    "standard".into()
}
fn box_filter() -> Vec<f64> {
    vec![1.0, 1.0]
}
fn n128() -> usize {
    128
}
fn levels() -> Vec<usize> {
    vec![1, 2, 2, 2]
}
fn one() -> usize {
    1
}
fn four() -> usize {
    4
}
fn sixteen() -> Vec<usize> {
    vec![16]
}

impl Config {
    /// Parses and checks the JSON of a checkpoint.
    pub fn parse(json: &str) -> Result<Config> {
        let config: Config = serde_json::from_str(json).map_err(|e| {
            Error::new(Kind::Format, format!("the network's configuration cannot be read: {e}")).hint(
                "`config` in the metadata must be a JSON object with img_resolution, img_channels, model_channels, …",
            )
        })?;
        config.check()?;
        Ok(config)
    }

    /// Checks every value against what this architecture can be, and against absurd sizes.
    pub fn check(&self) -> Result<()> {
        let within = |name: &str, v: usize, low: usize, high: usize| match (low..=high).contains(&v) {
            true => Ok(()),
            false => Err(bad(format!("`{name}` is {v}, expected {low} to {high}"))),
        };
        let only = |name: &str, v: &str, known: &str| match v == known {
            true => Ok(()),
            false => Err(Error::new(Kind::Format, format!("`{name}` is \"{v}\", supported is \"{known}\""))
                .hint("only DDPM++ networks (SongUNet, positional, standard) can be loaded")),
        };
        only("model_type", &self.model_type, "SongUNet")?;
        only("embedding_type", &self.embedding_type, "positional")?;
        only("encoder_type", &self.encoder_type, "standard")?;
        only("decoder_type", &self.decoder_type, "standard")?;
        if self.resample_filter != [1.0, 1.0] {
            return Err(bad(format!("`resample_filter` is {:?}, supported is [1, 1]", self.resample_filter)));
        }
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
        let ordered = self.sigma_min >= 0.0 && self.sigma_min < self.sigma_max;
        if !(self.sigma_data > 0.0 && self.sigma_data.is_finite() && ordered) {
            return Err(bad(format!(
                "expected sigma_data > 0 and 0 <= sigma_min < sigma_max, got {}, {} and {}",
                self.sigma_data, self.sigma_min, self.sigma_max
            )));
        }
        Ok(())
    }
}

fn bad(message: String) -> Error {
    Error::new(Kind::Format, format!("the network's configuration is not usable: {message}"))
}
