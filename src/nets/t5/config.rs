//! The sizes of a T5 encoder: from the shapes of its weights, and, where shapes do not tell, from its configuration or as published.
use super::place::Place;
use crate::nets::stated::{self, eps, shape, unknown};
use crate::nets::weights::File;
use crate::{Error, Kind, Result};
use std::collections::BTreeMap;

/// What distinguishes an encoder from others.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding of tokens.
    pub tokens: usize,
    /// Channels.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Channels of all heads together.
    pub attended: usize,
    /// Channels between the maps of a layer.
    pub inner: usize,
    /// Rows of the bias of attention.
    pub buckets: usize,
    /// From how far on tokens are all the same distance apart.
    pub farthest: usize,
    /// Two maps, GELU of the first one times the second, in the place of one map and its positive part.
    pub gated: bool,
    /// Layers that have a bias of their own beside the first one's.
    pub biased: bool,
    /// What norms add to the mean square.
    pub eps: f64,
    /// What the outputs of maps are multiplied by, by the maps' names: of weights that are stored in 8 bits in units of their own.
    pub scales: BTreeMap<String, f64>,
}

/// The most distance that is believed.
const MOST: u64 = 1 << 16;

impl Config {
    /// That of the encoder at a place of a file. The metadata entry `config` is what transformers writes beside the weights.
    pub fn read(place: &Place, file: &mut File) -> Result<Config> {
        let json = stated::config(file)?;
        let [tokens, width] = shape(file, &place.table(file))?;
        let attention =
            |i: usize, of: &str| place.full(&format!("encoder.block.{i}.layer.0.SelfAttention.{of}.weight"));
        let maps = |of: &str| place.full(&format!("encoder.block.0.layer.1.DenseReluDense.{of}.weight"));
        let layers = (0..).take_while(|i| file.has(&attention(*i, "q"))).count();
        let [attended, _] = shape(file, &attention(0, "q"))?;
        let [buckets, heads] = shape(file, &attention(0, "relative_attention_bias"))?;
        let gated = file.has(&maps("wi_0"));
        let [inner, _] = shape(file, &maps(if gated { "wi_0" } else { "wi" }))?;
        if !attended.is_multiple_of(heads) || !buckets.is_multiple_of(4) {
            let m = format!("attention over {attended} channels with a bias of {buckets}×{heads} is not T5's");
            return Err(Error::new(Kind::Format, m).hint("the file may be damaged, or of another kind of network"));
        }
        let known = ["gated-gelu", "relu"][usize::from(!gated)];
        match json["feed_forward_proj"].as_str() {
            Some(other) if other != known => {
                return Err(unknown("feed_forward_proj", other, &format!("`{known}`, by its weights")));
            }
            _ => {}
        }
        let eps = eps(&json, "layer_norm_epsilon", 1e-6)?;
        let farthest = match json["relative_attention_max_distance"].as_u64() {
            Some(n) if n > buckets as u64 / 4 && n <= MOST => n as usize,
            Some(n) => {
                return Err(unknown(
                    "relative_attention_max_distance",
                    &n.to_string(),
                    &format!("those above {}", buckets / 4),
                ));
            }
            None => 128,
        };
        let scales = scales(place, file)?;
        let biased = file.has(&attention(1, "relative_attention_bias"));
        Ok(Config { tokens, width, layers, heads, attended, inner, buckets, farthest, gated, biased, eps, scales })
    }

    /// The bucket of each distance key − query from −`farthest` to `farthest`: one for each small distance, then wider ones, those of
    /// keys behind the query in the second half.
    pub fn places(&self) -> Vec<u32> {
        let (half, far) = (self.buckets / 2, self.farthest as i64);
        let exact = half / 2;
        let one = |distance: i64| {
            let n = distance.unsigned_abs() as usize;
            let wide = || {
                // in f32, as the reference has it: some distances are on an edge
                let ratio = (n as f32 / exact as f32).ln() / (self.farthest as f64 / exact as f64).ln() as f32;
                (exact + (ratio * (half - exact) as f32) as usize).min(half - 1)
            };
            let bucket = if n < exact { n } else { wide() };
            (bucket + if distance > 0 { half } else { 0 }) as u32
        };
        (-far..=far).map(one).collect()
    }
}

/// The units of weights in 8 bits, by the name of the map.
fn scales(place: &Place, file: &mut File) -> Result<BTreeMap<String, f64>> {
    const UNIT: &str = ".scale_weight";
    let mut all = BTreeMap::new();
    let names: Vec<String> = file.names(place.root).iter().map(|n| n.to_string()).collect();
    for name in names {
        let Some(map) = name.strip_suffix(UNIT) else { continue };
        match file.take_values(&name)?.as_deref() {
            Some(&[unit]) if unit != 0.0 => {
                all.insert(map[place.root.len()..].to_string(), unit);
            }
            found => {
                let m = format!(
                    "`{name}` is {} numbers, not the unit of the weights beside it",
                    found.map_or(0, <[f64]>::len)
                );
                return Err(Error::new(Kind::Format, m).hint("files in f16, bf16 and FP8 with one unit a map are read"));
            }
        }
    }
    Ok(all)
}
