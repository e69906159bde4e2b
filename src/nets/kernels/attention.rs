//! Softmax attention: over the pixels of an image from q | k | v together, and of any queries to any keys and values.
mod biased;
#[path = "gpu/attention.rs"]
mod gpu;

pub use biased::{MaskedAttention, RelativeAttention};

use super::gpu::Gpu;
use super::heads::{Bias, Heads, Place, usual};
use super::{Frozen, View, pool};
use candle_core::{D, Device, Result, Tensor};
use rayon::prelude::*;

/// softmax(q kᵀ / √d) v for each head: [B, H, W, 3C] = q | k | v, heads in order within each → [B, H, W, C].
pub struct Attention {
    /// The number of heads; divides C.
    pub heads: usize,
}

/// softmax(q kᵀ / √d) v for each head: q [B, .., C], k [B, .., C], v [B, .., C] → [B, .., C] as q. Everything between the first
/// and the last dimension counts tokens; keys and values have as many, queries may have others.
pub struct CrossAttention {
    /// The number of heads; divides C.
    pub heads: usize,
    /// Whether token i sees the tokens up to itself only; then there are as many keys as queries.
    pub causal: bool,
}

/// Tokens of one sample of this shape.
fn tokens(dims: &[usize]) -> usize {
    dims[1..dims.len() - 1].iter().product()
}

/// The elements of each sample of an input.
fn samples<'a>(v: &View<'a>) -> impl Fn(usize) -> &'a [f32] + use<'a> {
    let (data, size) = (v.data, v.dims[1..].iter().product::<usize>());
    move |i| &data[i * size..][..size]
}

/// The attention of queries to keys and values in arrays of their own, of these shapes.
fn apart(heads: usize, inputs: &[&[usize]]) -> Heads<'static> {
    let c = inputs[0].last().copied().unwrap_or_default();
    let place = |buffer: usize| Place { buffer, at: 0, stride: c };
    let (d, queries, keys) = (c / heads.max(1), tokens(inputs[0]), tokens(inputs[1]));
    Heads { heads, d, queries, keys, causal: false, scale: usual(d), bias: Bias::None, places: [0, 1, 2].map(place) }
}

/// Whether queries, keys and values of these shapes belong together.
fn fits(heads: usize, causal: bool, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
    let ends = |d: &[usize]| (d.len() > 2).then(|| (d[0], tokens(d), d[d.len() - 1]));
    let all: Option<Vec<_>> = inputs.iter().map(|d| ends(d)).collect();
    match all.as_deref() {
        Some([(b, queries, c), k, v])
            if heads > 0
                && *c > 0
                && c % heads == 0
                && k == v
                && k.1 > 0
                && (k.0, k.2) == (*b, *c)
                && (!causal || k.1 == *queries) =>
        {
            Ok(inputs[0].to_vec())
        }
        _ => Err(format!(
            "expected q, k and v of shape [B, tokens, C], C a multiple of {heads} heads, k and v alike{}, got {inputs:?}",
            if causal { ", with as many tokens as q" } else { "" }
        )),
    }
}

/// Runs an attention, given for each sample, from arrays of their own.
fn run_apart<'a>(of: impl Fn(usize) -> Heads<'a> + Sync, inputs: &[View], out: &mut [f32], par: bool) {
    let size = inputs[0].dims[1..].iter().product::<usize>().max(1);
    let [q, k, v] = [0, 1, 2].map(|i| samples(&inputs[i]));
    let sample = |(i, out): (usize, &mut [f32])| of(i).run(&[q(i), k(i), v(i)], out, par);
    if par {
        out.par_chunks_mut(size).enumerate().for_each(sample);
    } else {
        out.chunks_mut(size).enumerate().for_each(sample);
    }
}

/// The gradients of the same.
fn pull_apart<'a>(of: impl Fn(usize) -> Heads<'a> + Sync, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
    let [q, k, v] = [0, 1, 2].map(|i| samples(&inputs[i]));
    let [nq, nk] = [0, 1].map(|i| inputs[i].dims[1..].iter().product::<usize>().max(1));
    let [mut gq, mut gk, mut gv] = [0, 1, 2].map(|i| pool::take(inputs[i].data.len()));
    type Each<'a> = ((&'a mut [f32], &'a mut [f32]), &'a mut [f32]);
    let sample = |(i, ((gq, gk), gv)): (usize, Each)| {
        of(i).pull(&[q(i), k(i), v(i)], &cot[i * nq..][..nq], &mut [gq, gk, gv], par);
    };
    if par {
        let each = gq.par_chunks_mut(nq).zip(gk.par_chunks_mut(nk)).zip(gv.par_chunks_mut(nk));
        each.enumerate().for_each(sample);
    } else {
        let each = gq.chunks_mut(nq).zip(gk.chunks_mut(nk)).zip(gv.chunks_mut(nk));
        each.enumerate().for_each(sample);
    }
    vec![gq, gk, gv]
}

/// Queries, keys and values as [B, tokens, C].
fn flat(inputs: &[&Tensor]) -> Result<[Tensor; 3]> {
    let one = |t: &Tensor| t.reshape((t.dim(0)?, tokens(t.dims()), t.dim(D::Minus1)?));
    Ok([one(inputs[0])?, one(inputs[1])?, one(inputs[2])?])
}

/// The composed form, of tensors [B, tokens, C]: scores divided by `over`, and a bias that fits [B, heads, queries, keys].
fn composed(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    causal: bool,
    over: Option<f64>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (b, t, c) = q.dims3()?;
    let d = c / heads;
    let apart = |x: &Tensor| x.reshape((b, x.dim(1)?, heads, d))?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (apart(q)?, apart(k)?, apart(v)?);
    let mut s = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / over.unwrap_or((d as f64).sqrt()))?;
    if let Some(bias) = bias {
        s = s.broadcast_add(bias)?;
    }
    if causal {
        let unseen = (0..t * t).map(|i| if i % t > i / t { f32::NEG_INFINITY } else { 0.0 }).collect::<Vec<_>>();
        let mask = Tensor::from_vec(unseen, (t, t), &Device::Cpu)?;
        s = s.broadcast_add(&mask.to_dtype(s.dtype())?.to_device(s.device())?)?;
    }
    // not softmax_last_dim: it has no gradient; the shift by the maximum is a constant
    let e = s.broadcast_sub(&s.detach().max_keepdim(D::Minus1)?)?.exp()?;
    let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
    p.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, t, c))
}

impl Attention {
    fn heads_of(&self, dims: &[usize]) -> Heads<'static> {
        let (tokens, c) = (tokens(dims), dims[3] / 3);
        let place = |i: usize| Place { buffer: 0, at: i * c, stride: 3 * c };
        let (heads, d) = (self.heads, c / self.heads.max(1));
        let places = [0, 1, 2].map(place);
        Heads { heads, d, queries: tokens, keys: tokens, causal: false, scale: usual(d), bias: Bias::None, places }
    }
}

impl Frozen for Attention {
    fn name(&self) -> &'static str {
        "frozen attention"
    }
    fn detail(&self) -> String {
        format!("{} heads", self.heads)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c3] if self.heads > 0 && c3 % (3 * self.heads) == 0 && c3 > 0 => Ok(vec![b, h, w, c3 / 3]),
            ref d => Err(format!("expected [B, H, W, 3C] with C a multiple of {} heads, got {d:?}", self.heads)),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let View { data, dims } = inputs[0];
        let size = dims[1..].iter().product::<usize>().max(1);
        let heads = self.heads_of(dims);
        let sample = |(x, out): (&[f32], &mut [f32])| heads.run(&[x], out, par);
        if par {
            data.par_chunks(size).zip(out.par_chunks_mut((size / 3).max(1))).for_each(sample);
        } else {
            data.chunks(size).zip(out.chunks_mut((size / 3).max(1))).for_each(sample);
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let View { data, dims } = inputs[0];
        let size = dims[1..].iter().product::<usize>().max(1);
        let heads = self.heads_of(dims);
        let mut grad = pool::take(data.len());
        let sample = |((x, cot), grad): ((&[f32], &[f32]), &mut [f32])| heads.pull(&[x], cot, &mut [grad], par);
        let third = (size / 3).max(1);
        if par {
            data.par_chunks(size).zip(cot.par_chunks(third)).zip(grad.par_chunks_mut(size)).for_each(sample);
        } else {
            data.chunks(size).zip(cot.chunks(third)).zip(grad.chunks_mut(size)).for_each(sample);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (b, h, w, c3) = inputs[0].dims4()?;
        let part = |i: usize| inputs[0].narrow(3, i * (c3 / 3), c3 / 3)?.contiguous()?.reshape((b, h * w, c3 / 3));
        composed([&part(0)?, &part(1)?, &part(2)?], self.heads, false, None, None)?.reshape((b, h, w, c3 / 3))
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

impl CrossAttention {
    fn heads_of(&self, inputs: &[&[usize]]) -> Heads<'static> {
        Heads { causal: self.causal, ..apart(self.heads, inputs) }
    }
}

impl Frozen for CrossAttention {
    fn name(&self) -> &'static str {
        "frozen cross-attention"
    }
    fn detail(&self) -> String {
        format!("{} heads{}", self.heads, if self.causal { ", causal" } else { "" })
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        fits(self.heads, self.causal, inputs)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        run_apart(|_| self.heads_of(&[inputs[0].dims, inputs[1].dims]), inputs, out, par);
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        pull_apart(|_| self.heads_of(&[inputs[0].dims, inputs[1].dims]), inputs, cot, par)
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let [q, k, v] = flat(inputs)?;
        composed([&q, &k, &v], self.heads, self.causal, None, None)?.reshape(inputs[0].dims())
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
