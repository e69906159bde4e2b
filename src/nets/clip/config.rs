//! The sizes of a text encoder: from the shapes of its weights, and, where shapes do not tell, from its configuration or from what the
//! published ones have in common.
use super::place::Place;
use crate::nets::stated::{self, eps, missing, shape, unknown};
use crate::nets::weights::File;
use crate::{Error, Kind, Result};
use serde_json::Value;

/// Where a text ends, for the pooled output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At the first of its largest token numbers: how old configurations have it, and OpenCLIP.
    Largest,
    /// At the first token of this number, or at the first one where there is none.
    First(u32),
}

impl End {
    /// The place of the end among these tokens.
    pub fn place(self, tokens: &[u32]) -> usize {
        let wanted = match self {
            End::Largest => tokens.iter().copied().max().unwrap_or_default(),
            End::First(id) => id,
        };
        tokens.iter().position(|t| *t == wanted).unwrap_or_default()
    }
}

/// What distinguishes a text encoder from others.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding of tokens.
    pub tokens: usize,
    /// Tokens that it reads at a time.
    pub positions: usize,
    /// Channels.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of attention; divides the width.
    pub heads: usize,
    /// Channels between the two maps of a layer.
    pub inner: usize,
    /// Channels of the pooled output, where it is mapped.
    pub projection: Option<usize>,
    /// Quick GELU in the place of the exact one.
    pub quick: bool,
    /// What norms add to the variance.
    pub eps: f64,
    /// Where texts end.
    pub end: End,
}

/// The metadata entry by which a user says which GELU it is, `quick_gelu` or `gelu`, whatever the configuration says.
pub const GELU: &str = "hidden_act";

/// The metadata entry by which whoever loads an encoder says that its row for a whole text is not mapped, whatever the file holds.
pub const BARE: &str = "pooled_bare";

/// The widths of OpenCLIP's H and bigG.
const OPEN_CLIP: [usize; 2] = [1024, 1280];

/// The most layers, heads, … that are believed.
const MOST: u64 = 1 << 20;

impl Config {
    /// That of the encoder at a place of a file. The metadata entry `config` is what transformers writes beside the weights.
    pub fn read(place: &Place, file: &File) -> Result<Config> {
        let json = stated::config(file)?;
        // a whole CLIP has one for each tower
        let json = if json["text_config"].is_object() { &json["text_config"] } else { &json };
        let names = place.names;
        let [tokens, width] = shape(file, &place.full(names.table))?;
        let [positions, _] = shape(file, &place.full(names.places))?;
        let [inner, _] = shape(file, &place.of_layer(0, &format!("{}.weight", names.maps[0])))?;
        let layers = (0..).take_while(|i| file.has(&place.of_layer(*i, &format!("{}.weight", names.norms[0])))).count();
        if layers == 0 {
            return Err(missing(&place.of_layer(0, &format!("{}.weight", names.norms[0]))));
        }
        let projection = file.dims(&place.full(names.projection)).map(<[usize]>::to_vec);
        let projection = match projection.as_deref() {
            Some([out, _]) if place.is_transformers() => Some(*out),
            Some([_, out]) => Some(*out),
            _ => None,
        };
        let projection = projection.filter(|_| file.metadata(BARE).is_none());
        let quick = match file.metadata(GELU).or(json["hidden_act"].as_str()) {
            Some("quick_gelu") => true,
            Some("gelu") => false,
            Some(other) => return Err(unknown("hidden_act", other, "`quick_gelu` and `gelu`")),
            None => quick(place, width)?,
        };
        let eps = eps(json, "layer_norm_eps", 1e-5)?;
        // 2 stood in the configurations before it was read
        let end = match json["eos_token_id"].as_u64().filter(|n| *n != 2) {
            Some(n) => End::First(u32::try_from(n).unwrap_or(u32::MAX)),
            None => End::Largest,
        };
        let heads = heads(json, width)?;
        Ok(Config { tokens, positions, width, layers, heads, inner, projection, quick, eps, end })
    }
}

/// Whether an encoder without a configuration has quick GELU. OpenAI's have, and OpenCLIP's have not.
fn quick(place: &Place, width: usize) -> Result<bool> {
    match (OPEN_CLIP.contains(&width) || !place.root.is_empty(), place.is_transformers()) {
        (true, transformers) => Ok(transformers && !OPEN_CLIP.contains(&width)),
        (false, true) => Ok(true),
        (false, false) => {
            let m = "nothing says whether this text encoder is OpenAI's, which has quick GELU, or OpenCLIP's, which has not";
            Err(Error::new(Kind::Format, m).hint("`text::load(path, #{ gelu: \"quick\" })`, or \"exact\""))
        }
    }
}

/// The number of heads: those published have 64 channels each.
fn heads(json: &Value, width: usize) -> Result<usize> {
    let given = &json["num_attention_heads"];
    match given.as_u64().filter(|n| (1..MOST).contains(n)).map(|n| n as usize) {
        Some(n) if width.is_multiple_of(n) => Ok(n),
        Some(n) => {
            Err(Error::new(Kind::Format, format!("the text encoder's width {width} cannot be cut into {n} heads"))
                .hint("is its `config.json` that of another network?"))
        }
        None if !given.is_null() => Err(unknown("num_attention_heads", &given.to_string(), "whole numbers above 0")),
        None if width.is_multiple_of(64) => Ok(width / 64),
        None => {
            Err(Error::new(Kind::Format, format!("nothing says how many heads this text encoder of width {width} has"))
                .hint("its `config.json` does: load the folder that it is in"))
        }
    }
}
