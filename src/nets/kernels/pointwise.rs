//! The small operations between the large ones: sums, concatenation, resampling, SiLU.
#[path = "gpu/pointwise.rs"]
mod gpu;

use super::gpu::Gpu;
use super::simd::dispatch;
use super::{Frozen, View, pool};
use candle_core::Tensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Elements that one task of an element-wise loop takes.
const PIECE: usize = 1 << 15;

/// y / (1 + exp(−y)) and its derivative, of a form that the compiler turns into vectors.
#[inline(always)]
pub(super) fn silu_and_slope(y: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-y));
    (y * s, s * (1.0 + y * (1.0 - s)))
}

/// exp to 2 units in the last place over the finite range (Cephes' polynomial).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(t.to_bits() << 23))
}

/// An element-wise loop with the best instruction set: out[i] = f(a[i], b[i]).
struct Each<'a, F>(&'a [f32], &'a [f32], &'a mut [f32], F);
impl<F: Fn(f32, f32) -> f32> WithSimd for Each<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Each(a, b, out, f) = self;
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = f(*a, *b);
        }
    }
}

/// out[i] = f(a[i], b[i]), spread over threads where that is allowed.
pub(super) fn each(a: &[f32], b: &[f32], out: &mut [f32], par: bool, f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) {
    if par && out.len() > PIECE {
        let pieces = a.par_chunks(PIECE).zip(b.par_chunks(PIECE)).zip(out.par_chunks_mut(PIECE));
        pieces.for_each(|((a, b), o)| dispatch(Each(a, b, o, f)));
    } else {
        dispatch(Each(a, b, out, f));
    }
}

/// a += b.
pub(crate) fn accumulate(a: &mut [f32], b: &[f32], par: bool) {
    let add = |(a, b): (&mut [f32], &[f32])| a.iter_mut().zip(b).for_each(|(a, b)| *a += *b);
    if par && a.len() > PIECE {
        a.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE)).for_each(add);
    } else {
        add((a, b));
    }
}

/// (a + b) · scale, of equal shapes.
pub struct AddScale(pub f64);

impl Frozen for AddScale {
    fn name(&self) -> &'static str {
        "scaled sum"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if inputs[0] == inputs[1] {
            Ok(inputs[0].to_vec())
        } else {
            Err(format!("shapes differ: {:?} and {:?}", inputs[0], inputs[1]))
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let s = self.0 as f32;
        each(inputs[0].data, inputs[1].data, out, par, |a, b| (a + b) * s);
    }
    fn pull(&self, _: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let s = self.0 as f32;
        let grad = || {
            let mut grad = pool::take(cot.len());
            each(cot, cot, &mut grad, par, |g, _| g * s);
            grad
        };
        vec![grad(), grad()]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        (inputs[0] + inputs[1])? * self.0
    }
    fn detail(&self) -> String {
        format!("{}", self.0)
    }
    fn joins(&self) -> bool {
        // half a mean is no mean
        self.0 == 1.0
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

/// x · factor; on a GPU one of candle's operations.
pub struct Scale(pub f64);

impl Frozen for Scale {
    fn name(&self) -> &'static str {
        "scaling"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let s = self.0 as f32;
        each(inputs[0].data, inputs[0].data, out, par, |a, _| a * s);
    }
    fn pull(&self, _: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        let s = self.0 as f32;
        each(cot, cot, &mut grad, par, |g, _| g * s);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        inputs[0] * self.0
    }
    fn detail(&self) -> String {
        format!("{}", self.0)
    }
}

/// x / (1 + exp(−x)).
pub struct Silu;

impl Frozen for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        each(inputs[0].data, inputs[0].data, out, par, |x, _| silu_and_slope(x).0);
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        each(inputs[0].data, cot, &mut grad, par, |x, g| silu_and_slope(x).1 * g);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        inputs[0].silu()
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

/// Concatenation along the last dimension.
pub struct Concat;

impl Frozen for Concat {
    fn name(&self) -> &'static str {
        "concatenation"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match (inputs[0].split_last(), inputs[1].split_last()) {
            (Some((a, rest)), Some((b, other))) if rest == other => Ok([rest, &[a + b]].concat()),
            _ => Err(format!("shapes differ before the last dimension: {:?} and {:?}", inputs[0], inputs[1])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let (a, b) = (inputs[0], inputs[1]);
        let (na, nb) = (last(a.dims), last(b.dims));
        let join = |((a, b), o): ((&[f32], &[f32]), &mut [f32])| {
            for ((a, b), o) in a.chunks(na).zip(b.chunks(nb)).zip(o.chunks_mut(na + nb)) {
                o[..na].copy_from_slice(a);
                o[na..].copy_from_slice(b);
            }
        };
        if par {
            let rows = PIECE.div_ceil(na + nb);
            let (pa, pb) = (a.data.par_chunks(rows * na), b.data.par_chunks(rows * nb));
            pa.zip(pb).zip(out.par_chunks_mut(rows * (na + nb))).for_each(join);
        } else {
            join(((a.data, b.data), out));
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (na, nb) = (last(inputs[0].dims), last(inputs[1].dims));
        let rows = cot.len() / (na + nb);
        let (mut a, mut b) = (pool::take(rows * na), pool::take(rows * nb));
        let part = |((g, a), b): ((&[f32], &mut [f32]), &mut [f32])| {
            for ((g, a), b) in g.chunks(na + nb).zip(a.chunks_mut(na)).zip(b.chunks_mut(nb)) {
                a.copy_from_slice(&g[..na]);
                b.copy_from_slice(&g[na..]);
            }
        };
        if par {
            let rows = PIECE.div_ceil(na + nb);
            let (pa, pb) = (a.par_chunks_mut(rows * na), b.par_chunks_mut(rows * nb));
            cot.par_chunks(rows * (na + nb)).zip(pa).zip(pb).for_each(part);
        } else {
            part(((cot, &mut a), &mut b));
        }
        vec![a, b]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        Tensor::cat(inputs, candle_core::D::Minus1)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

/// The last size, at least 1.
pub(super) fn last(dims: &[usize]) -> usize {
    dims.last().copied().unwrap_or(1).max(1)
}

/// Doubles height and width by repetition.
pub struct Up2;
/// Halves height and width by the mean of 2×2 pixels.
pub struct Down2;

/// out[2y+i, 2x+j] = s · x[y, x] in rows of the small image [.., w, c].
fn spread(x: &[f32], [w, c]: [usize; 2], s: f32, out: &mut [f32], par: bool) {
    let row = |(row, to): (&[f32], &mut [f32])| {
        let (first, second) = to.split_at_mut(2 * w * c);
        for (px, to) in row.chunks(c).zip(first.chunks_mut(2 * c)) {
            let (left, right) = to.split_at_mut(c);
            for ((l, r), v) in left.iter_mut().zip(right).zip(px) {
                (*l, *r) = (s * v, s * v);
            }
        }
        second.copy_from_slice(first);
    };
    if par && out.len() > PIECE {
        let rows = PIECE.div_ceil(4 * w * c);
        x.par_chunks(w * c).zip(out.par_chunks_mut(4 * w * c)).with_min_len(rows).for_each(row);
    } else {
        x.chunks(w * c).zip(out.chunks_mut(4 * w * c)).for_each(row);
    }
}

/// out[y, x] = s · Σ x[2y+i, 2x+j] in rows of the small image [.., w, c].
fn gather(x: &[f32], [w, c]: [usize; 2], s: f32, out: &mut [f32], par: bool) {
    let row = |(rows, to): (&[f32], &mut [f32])| {
        let (first, second) = rows.split_at(2 * w * c);
        for ((a, b), to) in first.chunks(2 * c).zip(second.chunks(2 * c)).zip(to.chunks_mut(c)) {
            for (i, t) in to.iter_mut().enumerate() {
                *t = s * ((a[i] + a[c + i]) + (b[i] + b[c + i]));
            }
        }
    };
    if par && x.len() > PIECE {
        let rows = PIECE.div_ceil(4 * w * c);
        x.par_chunks(4 * w * c).zip(out.par_chunks_mut(w * c)).with_min_len(rows).for_each(row);
    } else {
        x.chunks(4 * w * c).zip(out.chunks_mut(w * c)).for_each(row);
    }
}

impl Frozen for Up2 {
    fn name(&self) -> &'static str {
        "upsampling"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] => Ok(vec![b, 2 * h, 2 * w, c]),
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let d = inputs[0].dims;
        spread(inputs[0].data, [d[2], d[3]], 1.0, out, par);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let d = inputs[0].dims;
        let mut grad = pool::take(d.iter().product());
        gather(cot, [d[2], d[3]], 1.0, &mut grad, par);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        // not upsample_nearest2d: its gradient is wrong
        let (b, h, w, c) = inputs[0].dims4()?;
        let x = inputs[0].reshape((b, h, 1, w, 1, c))?.broadcast_as((b, h, 2, w, 2, c))?;
        x.contiguous()?.reshape((b, 2 * h, 2 * w, c))
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

impl Frozen for Down2 {
    fn name(&self) -> &'static str {
        "downsampling"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] if h % 2 == 0 && w % 2 == 0 => Ok(vec![b, h / 2, w / 2, c]),
            ref d => Err(format!("expected [B, H, W, C] with even H and W, got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let d = inputs[0].dims;
        gather(inputs[0].data, [d[2] / 2, d[3]], 0.25, out, par);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let d = inputs[0].dims;
        let mut grad = pool::take(d.iter().product());
        spread(cot, [d[2] / 2, d[3]], 0.25, &mut grad, par);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let (b, h, w, c) = inputs[0].dims4()?;
        (inputs[0].reshape((b, h / 2, 2, w / 2, 2, c))?.sum(4)?.sum(2)? * 0.25)?.contiguous()
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
