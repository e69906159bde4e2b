//! Softmax attention over the pixels of an image, one head at a time; the pull-back recomputes the probabilities.
#[path = "gpu/attention.rs"]
mod gpu;

use super::gpu::Gpu;
use super::pointwise::exp;
use super::simd::{MatMul, Packed, dispatch};
use super::{Frozen, View, pool};
use candle_core::{D, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;

/// softmax(q kᵀ / √d) v for each head: [B, H, W, 3C] = q | k | v, heads in order within each → [B, H, W, C].
pub struct Attention {
    /// The number of heads; divides C.
    pub heads: usize,
}

/// Memory that one head needs, kept per thread.
#[derive(Default)]
struct Scratch {
    packed: Packed,
    p: Vec<f32>,
    dp: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Rows of probabilities, in place.
struct Softmax<'a>(&'a mut [f32], usize, f32);
impl WithSimd for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Softmax(p, n, scale) = self;
        for row in p.chunks_exact_mut(n) {
            let max = |m: f32, v: &f32| if *v > m { *v } else { m };
            // sixteen running maxima and sums: a fixed order that vectors can follow
            let mut lanes = [f32::NEG_INFINITY; 16];
            for part in row.chunks(16) {
                lanes.iter_mut().zip(part).for_each(|(l, v)| *l = max(*l, v));
            }
            let top = lanes.iter().fold(f32::NEG_INFINITY, max);
            row.iter_mut().for_each(|v| *v = exp((*v - top) * scale));
            let mut lanes = [0f32; 16];
            for part in row.chunks(16) {
                lanes.iter_mut().zip(part).for_each(|(l, v)| *l += v);
            }
            let total = 1.0 / lanes.iter().sum::<f32>();
            row.iter_mut().for_each(|v| *v *= total);
        }
    }
}

/// dS = P ∘ (dP − ⟨P, dP⟩ by row), into dP.
struct SoftmaxPull<'a>(&'a [f32], &'a mut [f32], usize, f32);
impl WithSimd for SoftmaxPull<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let SoftmaxPull(p, dp, n, scale) = self;
        for (p, d) in p.chunks_exact(n).zip(dp.chunks_exact_mut(n)) {
            let mut lanes = [0f32; 16];
            for (p, d) in p.chunks(16).zip(d.chunks(16)) {
                lanes.iter_mut().zip(p).zip(d).for_each(|((l, p), d)| *l += p * d);
            }
            let dot: f32 = lanes.iter().sum();
            d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - dot) * scale);
        }
    }
}

/// Where one head's q, k and v lie within a sample, and its sizes.
#[derive(Clone, Copy)]
struct Head {
    tokens: usize,
    c: usize,
    d: usize,
    at: usize,
}

impl Head {
    fn scale(&self) -> f32 {
        1.0 / (self.d.max(1) as f32).sqrt()
    }
    /// P, into `s.p`.
    fn probabilities(&self, qkv: &[f32], s: &mut Scratch) {
        let Head { tokens: t, c, d, at } = *self;
        s.packed.pack_columns(d, t, &qkv[c + at..], 3 * c);
        s.p.resize(t * t, 0.0);
        product(&qkv[at..], [3 * c, 1], t, &s.packed, &mut s.p, t);
        dispatch(Softmax(&mut s.p, t, self.scale()));
    }
    /// The head's columns of `out` [tokens, C].
    fn run(&self, qkv: &[f32], out: &mut [f32], s: &mut Scratch) {
        let Head { tokens: t, c, d, at } = *self;
        self.probabilities(qkv, s);
        s.packed.pack_rows(t, d, &qkv[2 * c + at..], 3 * c);
        product(&s.p, [t, 1], t, &s.packed, &mut out[at..], c);
    }
    /// The head's columns of `grad` [tokens, 3C].
    fn pull(&self, qkv: &[f32], cot: &[f32], grad: &mut [f32], s: &mut Scratch) {
        let Head { tokens: t, c, d, at } = *self;
        self.probabilities(qkv, s);
        // dV = Pᵀ dO
        s.packed.pack_rows(t, d, &cot[at..], c);
        product(&s.p, [1, t], t, &s.packed, &mut grad[2 * c + at..], 3 * c);
        // dP = dO Vᵀ, then dS
        s.dp.resize(t * t, 0.0);
        s.packed.pack_columns(d, t, &qkv[2 * c + at..], 3 * c);
        product(&cot[at..], [c, 1], t, &s.packed, &mut s.dp, t);
        dispatch(SoftmaxPull(&s.p, &mut s.dp, t, self.scale()));
        // dQ = dS K
        s.packed.pack_rows(t, d, &qkv[c + at..], 3 * c);
        product(&s.dp, [t, 1], t, &s.packed, &mut grad[at..], 3 * c);
        // dK = dSᵀ Q
        s.packed.pack_rows(t, d, &qkv[at..], 3 * c);
        product(&s.dp, [1, t], t, &s.packed, &mut grad[c + at..], 3 * c);
    }
}

/// out = a · w with a's two strides.
fn product(a: &[f32], [lda, step]: [usize; 2], m: usize, w: &Packed, out: &mut [f32], ldc: usize) {
    MatMul { a, lda, step, m, w, panels: w.panels(), out, ldc }.run();
}

impl Attention {
    fn each_head(&self, dims: &[usize]) -> impl Iterator<Item = Head> {
        let (tokens, c) = (dims[1] * dims[2], dims[3] / 3);
        let d = c / self.heads.max(1);
        (0..self.heads).map(move |h| Head { tokens, c, d, at: h * d })
    }
}

impl Frozen for Attention {
    fn name(&self) -> &'static str {
        "frozen attention"
    }
    fn detail(&self) -> String {
        format!("{} heads", self.heads)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c3] if self.heads > 0 && c3 % (3 * self.heads) == 0 && c3 > 0 => Ok(vec![b, h, w, c3 / 3]),
            ref d => Err(format!("expected [B, H, W, 3C] with C a multiple of {} heads, got {d:?}", self.heads)),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let View { data, dims } = inputs[0];
        let size = dims[1..].iter().product::<usize>().max(1);
        let sample = |(x, out): (&[f32], &mut [f32])| {
            SCRATCH.with_borrow_mut(|s| self.each_head(dims).for_each(|h| h.run(x, out, s)));
        };
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
        let mut grad = pool::take(data.len());
        let sample = |((x, cot), grad): ((&[f32], &[f32]), &mut [f32])| {
            SCRATCH.with_borrow_mut(|s| self.each_head(dims).for_each(|h| h.pull(x, cot, grad, s)));
        };
        let third = (size / 3).max(1);
        if par {
            data.par_chunks(size).zip(cot.par_chunks(third)).zip(grad.par_chunks_mut(size)).for_each(sample);
        } else {
            data.chunks(size).zip(cot.chunks(third)).zip(grad.chunks_mut(size)).for_each(sample);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let (b, h, w, c3) = inputs[0].dims4()?;
        let (c, n, t) = (c3 / 3, self.heads, h * w);
        let d = c / n;
        let part = |i: usize| {
            let x = inputs[0].narrow(3, i * c, c)?.contiguous()?;
            x.reshape((b, t, n, d))?.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let s = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? / (d as f64).sqrt())?;
        // not softmax_last_dim: it has no gradient; the shift by the maximum is a constant
        let e = s.broadcast_sub(&s.detach().max_keepdim(D::Minus1)?)?.exp()?;
        let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
        p.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, h, w, c))
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
