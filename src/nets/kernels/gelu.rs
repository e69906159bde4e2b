//! GELU in its two forms, and the gate that transformers of diffusion networks put it into.
#[path = "gpu/gelu.rs"]
mod gpu;

use super::gpu::Gpu;
use super::pointwise::{each, exp, last};
use super::simd::dispatch;
use super::{Frozen, View, pool};
use crate::tensor::elementwise;
use candle_core::{D, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// A smooth step of each value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gelu {
    /// x Φ(x) with the normal distribution's Φ: PyTorch's default, not the tanh form.
    Exact,
    /// x / (1 + exp(−1.702 x)): CLIP's.
    Quick,
    /// ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))): that of diffusion transformers.
    Tanh,
}

/// The first half of the channels times GELU of the second: [.., 2C] → [.., C].
pub struct Geglu;

/// What quick GELU multiplies its argument by.
const QUICK: f32 = 1.702;

/// x Φ(x) and its derivative. Φ is a fit to erfc with a relative error of 1.2e-7 (Press et al., Numerical Recipes, erfcc).
#[inline(always)]
fn exact(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = 0.170_872_76;
    let p = p * t - 0.822_152_26;
    let p = p * t + 1.488_515_9;
    let p = p * t - 1.135_204;
    let p = p * t + 0.278_868_08;
    let p = p * t - 0.186_288_06;
    let p = p * t + 0.096_784_18;
    let p = p * t + 0.374_091_95;
    let p = p * t + 1.000_023_7;
    let p = p * t - 1.265_512_2;
    let half = exp(-0.5 * x * x);
    // the tail beyond |x|; exp of a sum would lose digits where z² is large
    let tail = 0.5 * t * half * exp(p);
    let phi = if x < 0.0 { tail } else { 1.0 - tail };
    /// 1/√(2π)
    const DENSITY: f32 = 0.398_942_3;
    (x * phi, phi + x * DENSITY * half)
}

#[inline(always)]
fn quick(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-QUICK * x));
    (x * s, s * (1.0 + QUICK * x * (1.0 - s)))
}

/// ½ (1 + tanh u) is 1 / (1 + exp(−2u)).
#[inline(always)]
fn tanh(x: f32) -> (f32, f32) {
    /// 2 √(2/π)
    const TWICE: f32 = 1.595_769;
    const CUBE: f32 = 0.044_715;
    let s = 1.0 / (1.0 + exp(-TWICE * (x + CUBE * x * x * x)));
    (x * s, s + x * s * (1.0 - s) * TWICE * (1.0 + 3.0 * CUBE * x * x))
}

impl Frozen for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }
    fn detail(&self) -> String {
        format!("{self:?}").to_lowercase()
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let x = inputs[0].data;
        match self {
            Gelu::Exact => each(x, x, out, par, |x, _| exact(x).0),
            Gelu::Quick => each(x, x, out, par, |x, _| quick(x).0),
            Gelu::Tanh => each(x, x, out, par, |x, _| tanh(x).0),
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (x, mut grad) = (inputs[0].data, pool::take(cot.len()));
        match self {
            Gelu::Exact => each(x, cot, &mut grad, par, |x, g| exact(x).1 * g),
            Gelu::Quick => each(x, cot, &mut grad, par, |x, g| quick(x).1 * g),
            Gelu::Tanh => each(x, cot, &mut grad, par, |x, g| tanh(x).1 * g),
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        match self {
            // not candle's: the constants of its gradient have six digits
            Gelu::Exact => elementwise::gelu(inputs[0]).map_err(|e| candle_core::Error::Msg(e.to_string())),
            Gelu::Quick => inputs[0].affine(QUICK as f64, 0.0)?.silu()? / QUICK as f64,
            Gelu::Tanh => {
                let x = inputs[0];
                let u = ((x.sqr()? * 0.044715)? + 1.0)?.mul(x)?;
                // silu(2u)/(2u) is the sigmoid
                let u = (u * (2.0 * (2.0 / std::f64::consts::PI).sqrt()))?;
                x.mul(&((u.neg()?.exp()? + 1.0)?.recip()?))
            }
        }
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        // there is a kernel for the two others
        (*self != Gelu::Tanh).then_some(self as &dyn Gpu)
    }
}

struct Gate<'a>(&'a [f32], &'a mut [f32], usize);
impl WithSimd for Gate<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Gate(x, out, c) = self;
        for (x, out) in x.chunks_exact(2 * c).zip(out.chunks_exact_mut(c)) {
            let (value, gate) = x.split_at(c);
            for ((o, v), g) in out.iter_mut().zip(value).zip(gate) {
                *o = v * exact(*g).0;
            }
        }
    }
}

struct GatePull<'a>(&'a [f32], &'a [f32], &'a mut [f32], usize);
impl WithSimd for GatePull<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let GatePull(x, cot, grad, c) = self;
        for ((x, cot), grad) in x.chunks_exact(2 * c).zip(cot.chunks_exact(c)).zip(grad.chunks_exact_mut(2 * c)) {
            let ((value, gate), (dv, dg)) = (x.split_at(c), grad.split_at_mut(c));
            for ((((dv, dg), v), g), y) in dv.iter_mut().zip(dg).zip(value).zip(gate).zip(cot) {
                let (of, slope) = exact(*g);
                (*dv, *dg) = (y * of, y * v * slope);
            }
        }
    }
}

/// Rows that one task takes.
const PIECE: usize = 32;

impl Frozen for Geglu {
    fn name(&self) -> &'static str {
        "gelu gate"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs[0].split_last() {
            Some((c, rest)) if c % 2 == 0 && *c > 0 => Ok([rest, &[c / 2]].concat()),
            _ => Err(format!("expected [.., 2C], got {:?}", inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let (x, c) = (inputs[0].data, last(inputs[0].dims) / 2);
        if par {
            let pieces = x.par_chunks(2 * c * PIECE).zip(out.par_chunks_mut(c * PIECE));
            pieces.for_each(|(x, out)| dispatch(Gate(x, out, c)));
        } else {
            dispatch(Gate(x, out, c));
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (x, c) = (inputs[0].data, last(inputs[0].dims) / 2);
        let mut grad = pool::take(x.len());
        if par {
            let pieces =
                x.par_chunks(2 * c * PIECE).zip(cot.par_chunks(c * PIECE)).zip(grad.par_chunks_mut(2 * c * PIECE));
            pieces.for_each(|((x, cot), grad)| dispatch(GatePull(x, cot, grad, c)));
        } else {
            dispatch(GatePull(x, cot, &mut grad, c));
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let c = inputs[0].dim(D::Minus1)? / 2;
        let half = |at: usize| inputs[0].narrow(D::Minus1, at, c)?.contiguous();
        half(0)? * Gelu::Exact.compose(&[&half(c)?])?
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
