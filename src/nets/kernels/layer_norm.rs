//! Frozen layer normalization: over the last dimension, of tokens.
#[path = "gpu/layer_norm.rs"]
mod gpu;

use super::gpu::{Gpu, Kept};
use super::simd::dispatch;
use super::{Frozen, View, host_f32, pool};
use candle_core::{D, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Rows that one task takes.
const PIECE: usize = 64;

/// y = norm(x) · weight + bias over the last dimension: [.., C] → the same.
pub struct LayerNorm {
    eps: f64,
    weight: Tensor,
    bias: Tensor,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    kept: Kept,
}

impl LayerNorm {
    /// From weight and bias [C].
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> candle_core::Result<Self> {
        let (gamma, beta) = (host_f32(&weight)?, host_f32(&bias)?);
        if gamma.is_empty() || gamma.len() != beta.len() {
            candle_core::bail!("layer norm: weight {:?} and bias {:?} must be alike", weight.dims(), bias.dims());
        }
        Ok(LayerNorm { eps, weight, bias, gamma, beta, kept: Kept::default() })
    }
    fn channels(&self) -> usize {
        self.gamma.len()
    }
}

/// The sum of f over a row: sixteen running sums, a fixed order that vectors can follow.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((l, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *l += f(*a, *b);
        }
    }
    lanes.iter().sum()
}

/// A row's mean, and the reciprocal of its deviation.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, x, |x, _| x) / n;
    let var = sum(x, x, |x, _| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (var + eps).sqrt())
}

struct Forward<'a>(&'a LayerNorm, &'a [f32], &'a mut [f32]);
impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Forward(op, x, out) = self;
        let c = op.channels();
        for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
            let (mean, rstd) = moments(x, op.eps as f32);
            for (((o, x), g), b) in out.iter_mut().zip(x).zip(&op.gamma).zip(&op.beta) {
                *o = (x - mean) * rstd * g + b;
            }
        }
    }
}

/// x̄ = rstd · (γ ȳ − mean(γ ȳ) − n · mean(γ ȳ n)), n = (x − mean) · rstd.
struct Back<'a>(&'a LayerNorm, &'a [f32], &'a [f32], &'a mut [f32]);
impl WithSimd for Back<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Back(op, x, cot, grad) = self;
        let c = op.channels();
        for ((x, cot), grad) in x.chunks_exact(c).zip(cot.chunks_exact(c)).zip(grad.chunks_exact_mut(c)) {
            let (mean, rstd) = moments(x, op.eps as f32);
            for ((o, y), g) in grad.iter_mut().zip(cot).zip(&op.gamma) {
                *o = y * g;
            }
            let m1 = sum(grad, grad, |u, _| u) / c as f32;
            let m2 = sum(grad, x, |u, x| u * ((x - mean) * rstd)) / c as f32;
            for (o, x) in grad.iter_mut().zip(x) {
                *o = rstd * (*o - m1 - (x - mean) * rstd * m2);
            }
        }
    }
}

impl Frozen for LayerNorm {
    fn name(&self) -> &'static str {
        "frozen layer norm"
    }
    fn detail(&self) -> String {
        format!("{} channels, eps {:e}", self.channels(), self.eps)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs[0].last() {
            Some(c) if *c == self.channels() => Ok(inputs[0].to_vec()),
            _ => Err(format!("expected [.., {}], got {:?}", self.channels(), inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let (x, size) = (inputs[0].data, PIECE * self.channels());
        if par {
            x.par_chunks(size).zip(out.par_chunks_mut(size)).for_each(|(x, out)| dispatch(Forward(self, x, out)));
        } else {
            dispatch(Forward(self, x, out));
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (x, size) = (inputs[0].data, PIECE * self.channels());
        let mut grad = pool::take(cot.len());
        if par {
            let pieces = x.par_chunks(size).zip(cot.par_chunks(size)).zip(grad.par_chunks_mut(size));
            pieces.for_each(|((x, cot), grad)| dispatch(Back(self, x, cot, grad)));
        } else {
            dispatch(Back(self, x, cot, &mut grad));
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        self.compose_with(inputs, &self.weights()?)
    }
    fn weights(&self) -> candle_core::Result<Vec<Tensor>> {
        Ok(vec![self.weight.clone(), self.bias.clone()])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> candle_core::Result<Tensor> {
        let (x, n) = (inputs[0], self.channels() as f64);
        let like = |w: &Tensor| w.to_device(x.device())?.to_dtype(x.dtype());
        // not candle's own: its kernel has no gradient
        let x = x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / n)?)?;
        let var = (x.sqr()?.sum_keepdim(D::Minus1)? / n)?;
        let x = x.broadcast_div(&(var + self.eps)?.sqrt()?)?;
        x.broadcast_mul(&like(&weights[0])?)?.broadcast_add(&like(&weights[1])?)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
