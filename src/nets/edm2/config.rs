//! The configuration of an EDM2 network, as the arguments with which it was made say it, with bounds checked before use.
use crate::{Error, Kind, Result};
use serde::Deserialize;

/// Names and defaults are those of EDM2's code.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Height and width of what is denoised.
    pub img_resolution: usize,
    /// Its channels.
    pub img_channels: usize,
    /// Classes for one-hot conditions; 0 for an unconditional network.
    pub label_dim: usize,
    /// Whether the network was meant to run in half precision on a GPU.
    pub use_fp16: bool,
    /// The standard deviation of the training data.
    pub sigma_data: f64,
    /// Channels at the highest resolution.
    pub model_channels: usize,
    /// Channels at each resolution, as multiples of `model_channels`; each level halves the resolution.
    pub channel_mult: Vec<usize>,
    /// Width of the noise embedding, as a multiple of `model_channels`; that of the first level without.
    pub channel_mult_noise: Option<usize>,
    /// Width of the embedding that blocks see; the widest level's without.
    pub channel_mult_emb: Option<usize>,
    /// Residual blocks at each resolution.
    pub num_blocks: usize,
    /// Resolutions with self-attention.
    pub attn_resolutions: Vec<usize>,
    /// Between noise embedding (0) and class embedding (1).
    pub label_balance: f64,
    /// Between skip connections (0) and main path (1).
    pub concat_balance: f64,
    /// The resampling filter of each axis.
    pub resample_filter: Vec<f64>,
    /// Channels of an attention head.
    pub channels_per_head: usize,
    /// Between main branch (0) and residual branch (1).
    pub res_balance: f64,
    /// The same of attention.
    pub attn_balance: f64,
    /// Where activations are clipped.
    pub clip_act: Option<f64>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            img_resolution: 0,
            img_channels: 0,
            label_dim: 0,
            use_fp16: true,
            sigma_data: 0.5,
            model_channels: 192,
            channel_mult: vec![1, 2, 3, 4],
            channel_mult_noise: None,
            channel_mult_emb: None,
            num_blocks: 3,
            attn_resolutions: vec![16, 8],
            label_balance: 0.5,
            concat_balance: 0.5,
            resample_filter: vec![1.0, 1.0],
            channels_per_head: 64,
            res_balance: 0.3,
            attn_balance: 0.3,
            clip_act: Some(256.0),
        }
    }
}

fn bad(message: String) -> Error {
    Error::new(Kind::Format, format!("the network's configuration is not usable: {message}"))
        .hint("EDM2's networks are read as its training code makes them")
}

impl Config {
    /// Parses and checks the JSON of a checkpoint.
    pub fn parse(json: &str) -> Result<Config> {
        let config: Config = serde_json::from_str(json).map_err(|e| bad(format!("it cannot be read: {e}")))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let counts = [
            ("img_resolution", self.img_resolution, 1, 4096),
            ("img_channels", self.img_channels, 1, 64),
            ("label_dim", self.label_dim, 0, 100_000),
            ("model_channels", self.model_channels, 1, 2048),
            ("channel_mult_noise", self.channel_mult_noise.unwrap_or(1), 1, 16),
            ("channel_mult_emb", self.channel_mult_emb.unwrap_or(1), 1, 16),
            ("num_blocks", self.num_blocks, 1, 32),
            ("channels_per_head", self.channels_per_head, 1, 2048),
            ("the length of channel_mult", self.channel_mult.len(), 1, 8),
        ];
        let many = self.channel_mult.iter().map(|m| ("channel_mult", *m, 1, 16));
        if let Some((name, v, lo, hi)) = counts.into_iter().chain(many).find(|(_, v, lo, hi)| !(lo..=hi).contains(&v)) {
            return Err(bad(format!("`{name}` is {v}, expected {lo} to {hi}")));
        }
        let halvings = self.channel_mult.len() - 1;
        if !self.img_resolution.is_multiple_of(1 << halvings) {
            return Err(bad(format!("`img_resolution` {} cannot be halved {halvings} times", self.img_resolution)));
        }
        let balances = [self.label_balance, self.concat_balance, self.res_balance, self.attn_balance];
        if balances.iter().any(|t| !(0.0..=1.0).contains(t)) {
            return Err(bad(format!("its balances {balances:?} are not all between 0 and 1")));
        }
        if !(self.sigma_data > 0.0 && self.sigma_data.is_finite())
            || self.clip_act.is_some_and(|c| c.is_nan() || c <= 0.0)
        {
            return Err(bad(format!("`sigma_data` is {}, `clip_act` {:?}", self.sigma_data, self.clip_act)));
        }
        let (f, sum) = (&self.resample_filter, self.resample_filter.iter().sum::<f64>());
        if !f.len().is_multiple_of(2) || !(2..=16).contains(&f.len()) || sum.abs() < 1e-6 || !sum.is_finite() {
            return Err(bad(format!("`resample_filter` must be 2, 4, … 16 numbers whose sum is not 0, not {f:?}")));
        }
        Ok(())
    }

    /// Resolution and channels of each level, the highest resolution first.
    pub fn levels(&self) -> Vec<(usize, usize)> {
        let level = |(l, m): (usize, &usize)| (self.img_resolution >> l, self.model_channels * m);
        self.channel_mult.iter().enumerate().map(level).collect()
    }

    /// Width of the noise embedding.
    pub fn noise(&self) -> usize {
        self.model_channels * self.channel_mult_noise.unwrap_or(self.channel_mult[0])
    }

    /// Width of the embedding that blocks see.
    pub fn embedding(&self) -> usize {
        let widest = self.channel_mult.iter().copied().max().unwrap_or(1);
        self.model_channels * self.channel_mult_emb.unwrap_or(widest)
    }
}
