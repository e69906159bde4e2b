//! Sums and means over dimensions, and the softmax over the last.
use super::lines::{Lines, strides};
use super::pointwise::{exp, last};
use super::simd::dispatch;
use super::{Frozen, View, pool};
use candle_core::{D, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// The sum over dimensions, or their mean.
pub struct Reduce {
    /// Whether it is the mean.
    pub mean: bool,
    /// The dimensions.
    pub dims: Vec<usize>,
    /// Whether they stay, with size 1.
    pub keep: bool,
}

struct Add<'a>(&'a Lines<2>, &'a [f32], &'a mut [f32]);
impl WithSimd for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Add(lines, x, out) = self;
        let (n, [_, step]) = (lines.len(), lines.along());
        lines.each(1, [0; 2], |[i, o]| {
            let x = &x[i..i + n];
            if step == 0 {
                // sixteen running sums, a fixed order that vectors can follow
                let mut lanes = [0f32; 16];
                for x in x.chunks(16) {
                    lanes.iter_mut().zip(x).for_each(|(l, x)| *l += x);
                }
                out[o] += lanes.iter().sum::<f32>();
            } else {
                out[o..o + n].iter_mut().zip(x).for_each(|(o, x)| *o += x);
            }
        });
    }
}

impl Reduce {
    /// The result's strides where the original's shape is walked: 0 along what is summed.
    fn lines(&self, dims: &[usize]) -> Lines<2> {
        let kept: Vec<usize> =
            dims.iter().enumerate().map(|(i, n)| if self.dims.contains(&i) { 1 } else { *n }).collect();
        let mut by = strides(&kept);
        self.dims.iter().for_each(|d| by[*d] = 0);
        Lines::new(dims, [strides(dims), by])
    }
    fn factor(&self, dims: &[usize]) -> f32 {
        let n: usize = self.dims.iter().map(|d| dims[*d]).product();
        if self.mean { 1.0 / n as f32 } else { 1.0 }
    }
}

impl Frozen for Reduce {
    fn name(&self) -> &'static str {
        if self.mean { "mean" } else { "sum over dimensions" }
    }
    fn detail(&self) -> String {
        format!("over {:?}{}", self.dims, if self.keep { ", kept" } else { "" })
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let dims = inputs[0];
        if self.dims.iter().any(|d| *d >= dims.len()) {
            return Err(format!("{dims:?} has not the dimensions {:?}", self.dims));
        }
        let each = dims.iter().enumerate().filter_map(|(i, n)| match self.dims.contains(&i) {
            true => self.keep.then_some(1),
            false => Some(*n),
        });
        Ok(each.collect())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        out.fill(0.0);
        dispatch(Add(&self.lines(inputs[0].dims), inputs[0].data, out));
        if self.mean {
            let factor = self.factor(inputs[0].dims);
            out.iter_mut().for_each(|o| *o *= factor);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let (lines, factor) = (self.lines(inputs[0].dims), self.factor(inputs[0].dims));
        let mut grad = pool::take(inputs[0].dims.iter().product());
        let (n, [_, step]) = (lines.len(), lines.along());
        lines.each(1, [0; 2], |[i, o]| match step {
            0 => grad[i..i + n].fill(cot[o] * factor),
            _ => grad[i..i + n].iter_mut().zip(&cot[o..o + n]).for_each(|(to, g)| *to = g * factor),
        });
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let (x, dims) = (inputs[0], self.dims.clone());
        match (self.mean, self.keep) {
            (false, true) => x.sum_keepdim(dims),
            (false, false) => x.sum(dims),
            (true, true) => x.mean_keepdim(dims),
            (true, false) => x.mean(dims),
        }
    }
}

/// e^x / Σ e^x over the last dimension.
pub struct Softmax;

/// Rows that one task takes.
const PIECE: usize = 64;

#[inline(always)]
fn softmax(x: &[f32], out: &mut [f32]) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for x in x.chunks(16) {
        lanes.iter_mut().zip(x).for_each(|(l, x)| *l = if *x > *l { *x } else { *l });
    }
    let most = lanes.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let mut sums = [0f32; 16];
    for (x, out) in x.chunks(16).zip(out.chunks_mut(16)) {
        for ((s, x), o) in sums.iter_mut().zip(x).zip(out) {
            let e = exp(x - most);
            *o = if *x - most < -87.0 { 0.0 } else { e };
            *s += *o;
        }
    }
    let scale = 1.0 / sums.iter().sum::<f32>();
    out.iter_mut().for_each(|o| *o *= scale);
}

struct Rows<'a>(&'a [f32], &'a mut [f32], usize);
impl WithSimd for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Rows(x, out, n) = self;
        x.chunks_exact(n).zip(out.chunks_exact_mut(n)).for_each(|(x, out)| softmax(x, out));
    }
}

struct RowsBack<'a>(&'a [f32], &'a [f32], &'a mut [f32], usize);
impl WithSimd for RowsBack<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let RowsBack(x, cot, grad, n) = self;
        for ((x, cot), grad) in x.chunks_exact(n).zip(cot.chunks_exact(n)).zip(grad.chunks_exact_mut(n)) {
            softmax(x, grad);
            let mut lanes = [0f32; 16];
            for (y, g) in grad.chunks(16).zip(cot.chunks(16)) {
                lanes.iter_mut().zip(y).zip(g).for_each(|((l, y), g)| *l += y * g);
            }
            let along = lanes.iter().sum::<f32>();
            grad.iter_mut().zip(cot).for_each(|(y, g)| *y *= g - along);
        }
    }
}

impl Frozen for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs[0].last() {
            Some(n) if *n > 0 => Ok(inputs[0].to_vec()),
            _ => Err(format!("expected a dimension of at least 1, got {:?}", inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let n = last(inputs[0].dims);
        if par {
            let pieces = inputs[0].data.par_chunks(n * PIECE).zip(out.par_chunks_mut(n * PIECE));
            pieces.for_each(|(x, out)| dispatch(Rows(x, out, n)));
        } else {
            dispatch(Rows(inputs[0].data, out, n));
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (x, n) = (inputs[0].data, last(inputs[0].dims));
        let mut grad = pool::take(x.len());
        if par {
            let size = n * PIECE;
            let pieces = x.par_chunks(size).zip(cot.par_chunks(size)).zip(grad.par_chunks_mut(size));
            pieces.for_each(|((x, cot), grad)| dispatch(RowsBack(x, cot, grad, n)));
        } else {
            dispatch(RowsBack(x, cot, &mut grad, n));
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let e = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
        e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
    }
}
