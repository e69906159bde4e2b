//! What a cloud's points meet in each layer of PointwiseNet: a gate and a shift for the whole cloud, and a leaky ReLU.
use super::function::sigmoid;
use super::simd::dispatch;
use super::{Frozen, View, pool};
use crate::tensor::elementwise;
use candle_core::{Result, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// leaky(x · sigmoid(gate) + shift): x [B, .., C], gate [B, C], shift [B, C] → as x. Below 0, and at it, the slope is `slope`; 1 is none.
pub struct Squash {
    /// The leaky ReLU's slope below 0.
    pub slope: f64,
}

/// A sample by its number, with the gradients of its values, gate and shift.
type Part<'a> = (usize, ((&'a mut [f32], &'a mut [f32]), &'a mut [f32]));

/// One sample's rows: out = leaky(x · s + h).
struct Forward<'a>(&'a [f32], [&'a [f32]; 2], f32, &'a mut [f32]);
impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Forward(x, [s, h], slope, out) = self;
        for (x, out) in x.chunks_exact(s.len()).zip(out.chunks_exact_mut(s.len())) {
            for (((o, x), s), h) in out.iter_mut().zip(x).zip(s).zip(h) {
                let a = x * s + h;
                *o = if a > 0.0 { a } else { slope * a };
            }
        }
    }
}

/// The pull-back of one sample's rows: to x, and Σ g and Σ g·x by channel, over blocks of rows in f32 and over all in f64.
struct Back<'a>(&'a [f32], &'a [f32], [&'a [f32]; 2], f32, &'a mut [f32], [&'a mut [f64]; 2]);
impl WithSimd for Back<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Back(x, g, [s, h], slope, to, [sum, product]) = self;
        let c = s.len();
        let (mut near, mut near_product) = (vec![0f32; c], vec![0f32; c]);
        for ((x, g), to) in x.chunks(BLOCK * c).zip(g.chunks(BLOCK * c)).zip(to.chunks_mut(BLOCK * c)) {
            near.fill(0.0);
            near_product.fill(0.0);
            for ((x, g), to) in x.chunks_exact(c).zip(g.chunks_exact(c)).zip(to.chunks_exact_mut(c)) {
                let own = to.iter_mut().zip(x).zip(g).zip(s).zip(h).zip(&mut near).zip(&mut near_product);
                for ((((((t, x), g), s), h), n), p) in own {
                    let g = if x * s + h > 0.0 { *g } else { slope * g };
                    *t = g * s;
                    *n += g;
                    *p += g * x;
                }
            }
            sum.iter_mut().zip(&near).for_each(|(a, b)| *a += f64::from(*b));
            product.iter_mut().zip(&near_product).for_each(|(a, b)| *a += f64::from(*b));
        }
    }
}

/// Points that are summed in f32.
const BLOCK: usize = 64;

/// Values of a sample, and channels.
fn sizes(dims: &[usize]) -> (usize, usize) {
    (dims[1..].iter().product::<usize>().max(1), dims.last().copied().unwrap_or(1).max(1))
}

fn gates(row: &[f32]) -> Vec<f32> {
    row.iter().map(|v| sigmoid(*v)).collect()
}

impl Frozen for Squash {
    fn name(&self) -> &'static str {
        "gate and shift"
    }
    fn detail(&self) -> String {
        if self.slope == 1.0 { String::new() } else { format!("leaky {}", self.slope) }
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs[0] {
            [b, .., c] if inputs[0].len() > 1 && inputs[1..].iter().all(|r| *r == [*b, *c]) => Ok(inputs[0].to_vec()),
            other => Err(format!("expected [B, .., C] and rows [B, C], got {other:?} and {:?}", &inputs[1..])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let ((size, c), slope) = (sizes(inputs[0].dims), self.slope as f32);
        let [x, gate, shift] = [0, 1, 2].map(|i| inputs[i].data);
        let one = |(i, out): (usize, &mut [f32])| {
            let rows = [&gates(&gate[i * c..][..c])[..], &shift[i * c..][..c]];
            dispatch(Forward(&x[i * size..][..size], rows, slope, out));
        };
        match par {
            true => out.par_chunks_mut(size).enumerate().for_each(one),
            false => out.chunks_mut(size).enumerate().for_each(one),
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let ((size, c), slope) = (sizes(inputs[0].dims), self.slope as f32);
        let [x, gate, shift] = [0, 1, 2].map(|i| inputs[i].data);
        let mut grad = pool::take(cot.len());
        let (mut to_gate, mut to_shift) = (pool::take(gate.len()), pool::take(gate.len()));
        let one = |(i, ((to, to_gate), to_shift)): Part<'_>| {
            let s = gates(&gate[i * c..][..c]);
            let (mut sum, mut product) = (vec![0f64; c], vec![0f64; c]);
            let (x, g) = (&x[i * size..][..size], &cot[i * size..][..size]);
            dispatch(Back(x, g, [&s, &shift[i * c..][..c]], slope, to, [&mut sum, &mut product]));
            to_shift.iter_mut().zip(sum).for_each(|(o, v)| *o = v as f32);
            for ((o, v), s) in to_gate.iter_mut().zip(product).zip(&s) {
                *o = (v * f64::from(s * (1.0 - s))) as f32;
            }
        };
        match par {
            true => {
                let parts = grad.par_chunks_mut(size).zip(to_gate.par_chunks_mut(c)).zip(to_shift.par_chunks_mut(c));
                parts.enumerate().for_each(one);
            }
            false => {
                let parts = grad.chunks_mut(size).zip(to_gate.chunks_mut(c)).zip(to_shift.chunks_mut(c));
                parts.enumerate().for_each(one);
            }
        }
        vec![grad, to_gate, to_shift]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        let spread = |row: &Tensor| {
            let mut dims = vec![1; x.rank()];
            (dims[0], dims[x.rank() - 1]) = (row.dim(0)?, row.dim(1)?);
            row.reshape(dims)
        };
        let s = elementwise::sigmoid(inputs[1]).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        let a = x.broadcast_mul(&spread(&s)?)?.broadcast_add(&spread(inputs[2])?)?;
        if self.slope == 1.0 {
            return Ok(a);
        }
        let above = a.detach().gt(0.0)?.to_dtype(a.dtype())?;
        &a * above.affine(1.0 - self.slope, self.slope)?
    }
}
