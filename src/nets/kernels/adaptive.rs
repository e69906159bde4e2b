//! What diffusion transformers do with a row for each sample: shift and scale of its tokens, and gates.
use super::{Frozen, View, pool};
use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// x · (1 + scale) + shift: x [B, .., C], shift [B, C], scale [B, C] → as x.
pub struct Modulate;

/// x + gate · h: x and h [B, .., C], gate [B, C] → as x.
pub struct Gated;

/// Values of a sample, and channels.
fn sizes(dims: &[usize]) -> (usize, usize) {
    (dims[1..].iter().product::<usize>().max(1), dims.last().copied().unwrap_or(1).max(1))
}

/// The shape of `dims`, whose rows are `rows`.
fn check(dims: &[usize], rows: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
    match dims {
        [b, .., c] if dims.len() > 1 && rows.iter().all(|r| *r == [*b, *c]) => Ok(dims.to_vec()),
        _ => Err(format!("expected [B, .., C] and rows [B, C], got {dims:?} and {rows:?}")),
    }
}

/// Fills a buffer sample by sample.
fn by_sample(out: &mut [f32], size: usize, par: bool, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    match par {
        true => out.par_chunks_mut(size).enumerate().for_each(|(i, out)| f(i, out)),
        false => out.chunks_mut(size).enumerate().for_each(|(i, out)| f(i, out)),
    }
}

/// Σ of f over the tokens of each sample, by channel, in order.
fn sums(a: &[f32], b: &[f32], size: usize, c: usize, par: bool, f: impl Fn(f32, f32) -> f32 + Sync + Send) -> Vec<f32> {
    let mut out = pool::take(a.len() / size * c);
    by_sample(&mut out, c, par, |i, out| {
        let mut total = vec![0f64; c];
        let (a, b) = (&a[i * size..][..size], &b[i * size..][..size]);
        for (a, b) in a.chunks_exact(c).zip(b.chunks_exact(c)) {
            total.iter_mut().zip(a).zip(b).for_each(|((t, a), b)| *t += f64::from(f(*a, *b)));
        }
        out.iter_mut().zip(total).for_each(|(o, t)| *o = t as f32);
    });
    out
}

/// A row for each sample in the shape of tokens.
fn spread(row: &Tensor, x: &Tensor) -> Result<Tensor> {
    let mut dims = vec![1; x.rank()];
    (dims[0], dims[x.rank() - 1]) = (row.dim(0)?, row.dim(1)?);
    row.reshape(dims)
}

impl Frozen for Modulate {
    fn name(&self) -> &'static str {
        "modulation"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        check(inputs[0], &inputs[1..])
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let (size, c) = sizes(inputs[0].dims);
        let [x, shift, scale] = [0, 1, 2].map(|i| inputs[i].data);
        by_sample(out, size, par, |i, out| {
            let (shift, scale) = (&shift[i * c..][..c], &scale[i * c..][..c]);
            for (x, out) in x[i * size..][..size].chunks_exact(c).zip(out.chunks_exact_mut(c)) {
                for (((o, x), a), b) in out.iter_mut().zip(x).zip(scale).zip(shift) {
                    *o = x * (1.0 + a) + b;
                }
            }
        });
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (size, c) = sizes(inputs[0].dims);
        let (x, scale) = (inputs[0].data, inputs[2].data);
        let mut grad = pool::take(cot.len());
        by_sample(&mut grad, size, par, |i, out| {
            let scale = &scale[i * c..][..c];
            for (g, out) in cot[i * size..][..size].chunks_exact(c).zip(out.chunks_exact_mut(c)) {
                out.iter_mut().zip(g).zip(scale).for_each(|((o, g), a)| *o = g * (1.0 + a));
            }
        });
        vec![grad, sums(cot, cot, size, c, par, |g, _| g), sums(cot, x, size, c, par, |g, x| g * x)]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        x.broadcast_mul(&(spread(inputs[2], x)? + 1.0)?)?.broadcast_add(&spread(inputs[1], x)?)
    }
}

impl Frozen for Gated {
    fn name(&self) -> &'static str {
        "gated sum"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs[0] == inputs[1] {
            true => check(inputs[0], &inputs[2..]),
            false => Err(format!("shapes differ: {:?} and {:?}", inputs[0], inputs[1])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let (size, c) = sizes(inputs[0].dims);
        let [x, h, gate] = [0, 1, 2].map(|i| inputs[i].data);
        by_sample(out, size, par, |i, out| {
            let (x, h, gate) = (&x[i * size..][..size], &h[i * size..][..size], &gate[i * c..][..c]);
            for ((x, h), out) in x.chunks_exact(c).zip(h.chunks_exact(c)).zip(out.chunks_exact_mut(c)) {
                for (((o, x), h), a) in out.iter_mut().zip(x).zip(h).zip(gate) {
                    *o = x + a * h;
                }
            }
        });
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (size, c) = sizes(inputs[0].dims);
        let (h, gate) = (inputs[1].data, inputs[2].data);
        let (mut own, mut grad) = (pool::take(cot.len()), pool::take(cot.len()));
        own.copy_from_slice(cot);
        by_sample(&mut grad, size, par, |i, out| {
            let gate = &gate[i * c..][..c];
            for (g, out) in cot[i * size..][..size].chunks_exact(c).zip(out.chunks_exact_mut(c)) {
                out.iter_mut().zip(g).zip(gate).for_each(|((o, g), a)| *o = g * a);
            }
        });
        vec![own, grad, sums(cot, h, size, c, par, |g, h| g * h)]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        inputs[0] + inputs[1].broadcast_mul(&spread(inputs[2], inputs[0])?)?
    }
}
