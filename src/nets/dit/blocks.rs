//! What diffusion transformers are made of: embeddings, modulated norms, attention within and between image and text, maps.
use crate::nets::build::{Builder, Id};
use crate::nets::kernels::{Cut, Gated, Gelu, Join, LayerNorm, Modulate, RmsNorm, Rotary, Waves};
use crate::nets::ldm::Shapes;
use crate::nets::weights::wide;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// The eps of all norms.
const EPS: f64 = 1e-6;
/// Channels of the embeddings of numbers.
const WAVES: usize = 256;

/// What all blocks need to know.
pub struct Blocks<'a> {
    /// Shapes by name.
    pub shapes: &'a Shapes,
    /// Heads of each attention.
    pub heads: usize,
    /// Tokens of the image.
    pub tokens: usize,
    /// How queries and keys of the image are turned by their place.
    pub rotary: Option<(Vec<f64>, usize)>,
    /// Of everything.
    pub dtype: DType,
    /// Where the weights are.
    pub device: Device,
}

/// The parts of a modulation, in order.
pub struct Parts(Vec<Id>);

impl Parts {
    /// From the parts themselves.
    pub fn of(parts: Vec<Id>) -> Parts {
        Parts(parts)
    }
    /// Part `i`.
    pub fn at(&self, i: usize) -> Result<Id> {
        self.0.get(i).copied().ok_or_else(|| Error::new(Kind::Internal, "a modulation of too few parts"))
    }
}

impl Blocks<'_> {
    /// Whether there is a weight of this name.
    pub fn has(&self, place: &str, name: &str) -> bool {
        self.shapes.has(&format!("{place}.{name}"))
    }

    /// The outputs of the linear map at a place.
    pub fn width(&self, place: &str) -> Result<usize> {
        Ok(self.shapes.of(&format!("{place}.weight"), 2)?[0])
    }

    /// The linear map at a place.
    pub fn linear(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let width = self.width(place)?;
        b.under(place).linear(x, width)
    }

    /// Two maps with SiLU between them.
    pub fn embedding(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let h = self.linear(b, &format!("{place}.linear_1"), x)?;
        let h = b.under(place).under("silu").silu(h)?;
        self.linear(b, &format!("{place}.linear_2"), h)
    }

    /// The embedding of a number of each sample; `endpoint` as [`Waves::positional`] has it.
    pub fn number(&self, b: &mut Builder, place: &str, x: Id, endpoint: bool) -> Result<Id> {
        let waves = b.under(place).under("waves").apply(Waves::positional(WAVES, endpoint, false), &[x])?;
        self.embedding(b, place, waves)
    }

    /// A layer norm without weights.
    fn norm(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let c = b.channels(x);
        let ones = Tensor::ones(c, wide(self.dtype), &self.device)?;
        let norm = LayerNorm::new(ones.clone(), ones.zeros_like()?, EPS)?;
        b.under(place).apply(norm, &[x])
    }

    /// The parts of a modulation by SiLU of the embedding.
    pub fn modulation(&self, b: &mut Builder, place: &str, emb: Id, c: usize) -> Result<Parts> {
        let all = self.linear(b, place, emb)?;
        let n = b.channels(all) / c.max(1);
        Ok(Parts(b.under(place).under("parts").split(all, &vec![c; n])?))
    }

    /// The norm of tokens, shifted and scaled.
    pub fn normed(&self, b: &mut Builder, place: &str, x: Id, [shift, scale]: [Id; 2]) -> Result<Id> {
        let h = self.norm(b, &format!("{place}.norm"), x)?;
        b.under(place).apply(Modulate, &[h, shift, scale])
    }

    /// x + gate · h.
    pub fn gated(&self, b: &mut Builder, place: &str, x: Id, h: Id, gate: Id) -> Result<Id> {
        b.under(place).apply(Gated, &[x, h, gate])
    }

    /// Two maps with GELU between them.
    pub fn maps(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let h = self.linear(b, &format!("{place}.net.0.proj"), x)?;
        let h = b.under(place).under("gelu").gelu(h, Gelu::Tanh)?;
        self.linear(b, &format!("{place}.net.2"), h)
    }

    /// Queries, keys and values of tokens, from one map or three; queries and keys normed where there are norms for it.
    pub fn qkv(&self, b: &mut Builder, place: &str, x: Id, names: &Names) -> Result<[Id; 3]> {
        let parts = match self.has(place, &format!("{}.weight", names.all)) {
            true => {
                let all = self.linear(b, &format!("{place}.{}", names.all), x)?;
                let c = b.channels(all) / 3;
                b.under(place).under(names.all).under("parts").split(all, &[c; 3])?
            }
            false => {
                names.each.iter().map(|n| self.linear(b, &format!("{place}.{n}"), x)).collect::<Result<Vec<_>>>()?
            }
        };
        let [q, k, v] = parts[..] else { return Err(Error::new(Kind::Internal, "q, k and v are not three")) };
        let (q, k) = (self.head_norm(b, place, names.norms[0], q)?, self.head_norm(b, place, names.norms[1], k)?);
        Ok([q, k, v])
    }

    /// The norm of each head, where there is one.
    pub fn head_norm(&self, b: &mut Builder, place: &str, name: &str, x: Id) -> Result<Id> {
        if !self.has(place, &format!("{name}.weight")) {
            return Ok(x);
        }
        let mut b = b.under(place);
        let mut b = b.under(name);
        let (w, weight) = b.weight("weight", &[b.channels(x) / self.heads.max(1)], &[])?;
        Ok(b.add(Arc::new(RmsNorm::new(w, EPS)?), &[x], vec![weight])?[0])
    }

    /// Attention over all tokens, those of the image last.
    pub fn attention(&self, b: &mut Builder, place: &str, [q, k, v]: [Id; 3]) -> Result<Id> {
        let (mut q, mut k) = (q, k);
        if let Some((angles, pairs)) = &self.rotary {
            q = b.under(place).under("turned_q").apply(Rotary::new(angles, *pairs), &[q])?;
            k = b.under(place).under("turned_k").apply(Rotary::new(angles, *pairs), &[k])?;
        }
        b.under(place).under("attention").cross_attention([q, k, v], self.heads, false)
    }

    /// Tokens of the text before those of the image.
    pub fn join(&self, b: &mut Builder, place: &str, text: Id, image: Id) -> Result<Id> {
        b.under(place).apply(Join::tokens(), &[text, image])
    }

    /// The text's tokens and the image's.
    pub fn cut(&self, b: &mut Builder, place: &str, all: Id) -> Result<[Id; 2]> {
        match b.under(place).add(Arc::new(Cut { last: self.tokens }), &[all], vec![])?[..] {
            [text, image] => Ok([text, image]),
            _ => Err(Error::new(Kind::Internal, "text and image are not two")),
        }
    }
}

/// How the maps and norms of an attention are called.
pub struct Names {
    each: [&'static str; 3],
    all: &'static str,
    norms: [&'static str; 2],
}

/// Those of the image.
pub const IMAGE: Names = Names { each: ["to_q", "to_k", "to_v"], all: "to_qkv", norms: ["norm_q", "norm_k"] };
/// Those of the text.
pub const TEXT: Names =
    Names { each: ["add_q_proj", "add_k_proj", "add_v_proj"], all: "add_qkv", norms: ["norm_added_q", "norm_added_k"] };
