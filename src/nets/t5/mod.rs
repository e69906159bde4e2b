//! T5's encoder, which Stable Diffusion 3, FLUX.1 and PixArt read their texts with: attention with a bias by distance, root-mean-square
//! norms, gated maps.
mod config;
mod place;

pub use config::Config;
pub use place::{Place, place};

use super::build::{Builder, Id, graph};
use super::clip;
use super::family::{Described, Family, Part, Parts, Role};
use super::graph::{Absent, Dim, Graph, Layout};
use super::kernels::{Arithmetic, Broadcast, Gelu, Op, RelativeAttention, RmsNorm, Side};
use super::runner::Runner;
use super::weights::{File, Names, Weights};
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::borrow::Cow;
use std::sync::Arc;

/// Encoders in files of their own. One in a file with other parts is found by [`place`].
pub const FAMILY: Family = Family { name: "T5", recognises, build, builtin: &[] };

const ADVICE: &str = "the file must hold a T5 encoder, whole";
/// The input of token numbers [B, T].
const TOKENS: &str = "tokens";
/// A length of texts, where the graph is printed.
const USUAL: usize = 256;

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let tensors = clip::state(checkpoint);
    // beside a denoiser it is a part of something larger
    let alone = place(&tensors).is_some_and(|p| p.root.is_empty());
    Ok(alone.then_some((tensors, Cow::Borrowed(checkpoint.metadata()))))
}

fn build(file: &mut File) -> Result<Parts> {
    Ok([(Role::Text, Part::T5(Encoder::build(&Place { root: "" }, file)?))].into())
}

/// A T5 encoder; cheap to clone.
#[derive(Clone)]
pub struct Encoder {
    runner: Runner,
    config: Arc<Config>,
}

impl Encoder {
    /// The encoder that stands at this place of a file. Weights of 8 and 16 bits stay in 16 on the CPU.
    pub fn build(place: &Place, file: &mut File) -> Result<Encoder> {
        let config = Config::read(place, file)?;
        file.allow_more(ADVICE);
        let table = place.table(file);
        let table = table[place.root.len()..].to_string();
        let (device, dtype) = (file.device.clone(), super::weights::wide(file.dtype));
        let runner = Runner::new(transformer(file, place, &config, &table, dtype)?, &device, dtype);
        Ok(Encoder { runner, config: Arc::new(config) })
    }

    /// Its sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What runs it.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// One line for printing.
    pub fn describe(&self) -> String {
        let Config { tokens, width, layers, .. } = &*self.config;
        format!("T5 encoder, {layers} layers of {width}, {tokens} tokens")
    }

    /// A row for each token of texts of one length: [B, T, width].
    ///
    /// Fails where there is none, where lengths differ, and where a token is beyond the embedding.
    pub fn encode(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let length = texts.first().map_or(0, Vec::len);
        if length == 0 {
            return Err(Error::value("there is no text to encode"));
        }
        if let Some(t) = texts.iter().find(|t| t.len() != length) {
            let m = format!("texts that are encoded together have one length, got {length} and {}", t.len());
            return Err(Error::shape(m, &[&[length], &[t.len()]]));
        }
        let tokens = self.config.tokens;
        if let Some(id) = texts.iter().flatten().find(|id| **id as usize >= tokens) {
            return Err(Error::value(format!("token {id} is beyond the text encoder's {tokens}"))
                .hint("is the tokenizer that of another network?"));
        }
        let ids: Vec<f64> = texts.iter().flatten().map(|id| f64::from(*id)).collect();
        let ids = Tensor::from_vec(ids, (texts.len(), length), &Device::Cpu)?;
        let ids = ids.to_dtype(self.runner.dtype())?.to_device(self.runner.device())?;
        let out = self.runner.forward(&[(TOKENS, &ids)])?.pop();
        out.ok_or_else(|| Error::new(Kind::Internal, "a text encoder without a result"))
    }
}

/// The tensors that a checkpoint of this configuration holds, by name and shape. It builds the network with zeros, so it takes the memory
/// of one.
pub fn tensors(config: &Config) -> Result<Vec<(String, Vec<usize>)>> {
    let mut names = Names::default();
    transformer(&mut names, &Place { root: "" }, config, "shared.weight", DType::F32)?;
    Ok(names.0)
}

fn transformer(weights: &mut dyn Weights, place: &Place, c: &Config, table: &str, dtype: DType) -> Result<Graph> {
    graph(weights, place.root, dtype, |b| {
        b.wide(c.width >= 64);
        let ids = b.input(TOKENS, &[Dim::About(USUAL)], Layout::Plain, Absent::Error)?;
        let mut x = b.under(table.trim_end_matches(".weight")).tokens(ids, [c.tokens, c.width])?;
        let mut bias = None;
        for i in 0..c.layers {
            let at = format!("encoder.block.{i}");
            let own = i == 0 || c.biased;
            let attention = match (bias.take(), own) {
                (Some(shared), false) => shared,
                _ => relative(b, c, &at)?,
            };
            x = block(b, c, &at, x, &attention)?;
            bias = Some(attention);
        }
        let y = norm(b, "encoder.final_layer_norm", c, x)?;
        b.output("context", y, Layout::Plain);
        Ok(())
    })
}

/// Attention with the weight of its bias.
type Biased = (Arc<dyn Op>, super::graph::Weight);

fn relative(b: &mut Builder, c: &Config, at: &str) -> Result<Biased> {
    let mut b = b.under(at);
    let mut b = b.under("layer.0.SelfAttention.relative_attention_bias");
    let (table, weight) = b.weight("weight", &[c.buckets, c.heads], &[])?;
    Ok((Arc::new(RelativeAttention::new(table, c.places())?), weight))
}

fn norm(b: &mut Builder, at: &str, c: &Config, x: Id) -> Result<Id> {
    let mut b = b.under(at);
    let (w, weight) = b.weight("weight", &[c.width], &[])?;
    Ok(b.add(Arc::new(RmsNorm::new(w, c.eps)?), &[x], vec![weight])?[0])
}

fn map(b: &mut Builder, at: &str, c: &Config, x: Id, width: usize) -> Result<Id> {
    let y = b.under(at).linear_unbiased(x, width)?;
    match c.scales.get(at) {
        Some(unit) => b.under(at).under("unit").scale(y, *unit),
        None => Ok(y),
    }
}

/// Attention, and maps; a norm before each.
fn block(b: &mut Builder, c: &Config, at: &str, x: Id, (attention, bias): &Biased) -> Result<Id> {
    let place = format!("{at}.layer.0.SelfAttention");
    let h = norm(b, &format!("{at}.layer.0.layer_norm"), c, x)?;
    let mut qkv = vec![];
    for part in ["q", "k", "v"] {
        qkv.push(map(b, &format!("{place}.{part}"), c, h, c.attended)?);
    }
    let h = b.under(&place).under("attention").add(attention.clone(), &qkv, vec![bias.clone()])?[0];
    let h = map(b, &format!("{place}.o"), c, h, c.width)?;
    let x = b.under(at).under("attended").sum(x, h, 1.0)?;
    let place = format!("{at}.layer.1.DenseReluDense");
    let h = norm(b, &format!("{at}.layer.1.layer_norm"), c, x)?;
    let h = match c.gated {
        true => {
            let gate = map(b, &format!("{place}.wi_0"), c, h, c.inner)?;
            let gate = b.under(&place).under("gelu").gelu(gate, Gelu::Tanh)?;
            let linear = map(b, &format!("{place}.wi_1"), c, h, c.inner)?;
            let product = Broadcast { op: Arithmetic::Product, sides: [Side::Input, Side::Input] };
            b.under(&place).under("gated").apply(product, &[gate, linear])?
        }
        false => {
            let h = map(b, &format!("{place}.wi"), c, h, c.inner)?;
            b.under(&place).under("relu").relu(h)?
        }
    };
    let h = map(b, &format!("{place}.wo"), c, h, c.width)?;
    b.under(at).under("mapped").sum(x, h, 1.0)
}
