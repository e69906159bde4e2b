//! Resampling of images by a separable filter at half or double the resolution, and zero padding.
#[path = "gpu/resample.rs"]
mod gpu;

use super::gpu::{Gpu, Kept};
use super::simd::dispatch;
use super::{Frozen, View, pool};
use candle_core::{Device, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// A filter of even length along both axes, with zeros outside the image, as EDM's networks resample:
/// down: out[i] = Σ_k taps[k] · x[2i + k − pad]; up is twice its transpose on each axis.
pub struct Resample {
    /// Sums to 1.
    taps: Vec<f64>,
    pad: usize,
    up: bool,
    kept: Kept,
}

impl Resample {
    /// Halves height and width by a filter, normalized here, as wide outside the image as within: even sizes only.
    pub fn down(filter: &[f64]) -> Self {
        Resample { taps: normalized(filter), pad: filter.len().saturating_sub(1) / 2, up: false, kept: Kept::default() }
    }
    /// Doubles height and width.
    pub fn up(filter: &[f64]) -> Self {
        Resample { up: true, ..Resample::down(filter) }
    }
    /// Halves an image that has already been padded, by [`Resample::padding`] on each side, as if it were not.
    pub fn down_inside(filter: &[f64]) -> Self {
        Resample { pad: 0, ..Resample::down(filter) }
    }
    /// How far a filter reaches over the edge.
    pub fn padding(filter: &[f64]) -> usize {
        filter.len().saturating_sub(1) / 2
    }
    /// The weights of one axis: those of the transpose are the same.
    fn gains(&self) -> Vec<f64> {
        let gain = if self.up { 2.0 } else { 1.0 };
        self.taps.iter().map(|t| gain * t).collect()
    }
    /// The size after filtering `n` entries; `None` where there is no such size.
    fn size(&self, n: usize) -> Option<usize> {
        match self.up {
            true => (2 * n + self.taps.len()).checked_sub(2 + 2 * self.pad),
            false => (n + 2 * self.pad).checked_sub(self.taps.len()).filter(|d| d % 2 == 0).map(|d| d / 2 + 1),
        }
    }
    /// Both axes of `x` [b, h, w, c] into `out` [b, to, to', c]; `up` says which of the two directions to take.
    fn both(&self, x: &[f32], [b, h, w, c]: [usize; 4], [h2, w2]: [usize; 2], up: bool, out: &mut [f32], par: bool) {
        let taps: Vec<f32> = self.gains().iter().map(|t| *t as f32).collect();
        let axis = |from, to, inner| Axis { taps: &taps, pad: self.pad, up, from, to, inner };
        let mut rows = pool::take(b * h2 * w * c);
        axis(h, h2, w * c).all(x, &mut rows, par);
        axis(w, w2, c).all(&rows, out, par);
        pool::give(rows);
    }
    /// The same along one axis as a matrix [to, from].
    fn matrix(&self, from: usize, to: usize, like: &Tensor) -> candle_core::Result<Tensor> {
        let mut m = vec![0.0; to * from];
        for (k, t) in self.gains().iter().enumerate() {
            for small in 0..from.min(to) {
                if let Some(large) = (2 * small + k).checked_sub(self.pad).filter(|l| *l < from.max(to)) {
                    let at = if self.up { large * from + small } else { small * from + large };
                    m[at] += t;
                }
            }
        }
        Tensor::from_vec(m, (to, from), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
    }
}

fn normalized(filter: &[f64]) -> Vec<f64> {
    let sum: f64 = filter.iter().sum();
    filter.iter().map(|t| t / sum).collect()
}

/// One axis: [.., from, inner] → [.., to, inner].
#[derive(Clone, Copy)]
struct Axis<'a> {
    taps: &'a [f32],
    pad: usize,
    up: bool,
    from: usize,
    to: usize,
    inner: usize,
}

impl Axis<'_> {
    fn all(self, x: &[f32], out: &mut [f32], par: bool) {
        let (from, to) = ((self.from * self.inner).max(1), (self.to * self.inner).max(1));
        if par {
            x.par_chunks(from).zip(out.par_chunks_mut(to)).for_each(|(x, out)| dispatch(Line(self, x, out)));
        } else {
            x.chunks(from).zip(out.chunks_mut(to)).for_each(|(x, out)| dispatch(Line(self, x, out)));
        }
    }
    /// Where tap `k` of entry `i` of the result reads, if inside.
    #[inline(always)]
    fn source(&self, i: usize, k: usize) -> Option<usize> {
        let j = match self.up {
            true => (i + self.pad).checked_sub(k).filter(|d| d % 2 == 0)? / 2,
            false => (2 * i + k).checked_sub(self.pad)?,
        };
        (j < self.from).then_some(j)
    }
}

struct Line<'a>(Axis<'a>, &'a [f32], &'a mut [f32]);
impl WithSimd for Line<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Line(axis, x, out) = self;
        for (i, to) in out.chunks_exact_mut(axis.inner).enumerate() {
            to.fill(0.0);
            for (k, t) in axis.taps.iter().enumerate() {
                if let Some(j) = axis.source(i, k) {
                    let row = &x[j * axis.inner..][..axis.inner];
                    to.iter_mut().zip(row).for_each(|(o, v)| *o += t * v);
                }
            }
        }
    }
}

impl Frozen for Resample {
    fn name(&self) -> &'static str {
        "resampling by a filter"
    }
    fn detail(&self) -> String {
        format!("{} by {:?}, padding {}", if self.up { "up" } else { "down" }, self.taps, self.pad)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] if h * w > 0 => match (self.size(h), self.size(w)) {
                (Some(h), Some(w)) => Ok(vec![b, h, w, c]),
                _ => Err(format!("{h}×{w} pixels cannot be resampled by a filter of {}", self.taps.len())),
            },
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let [b, h, w, c] = *inputs[0].dims else { return };
        let size = |n| self.size(n).unwrap_or(0);
        self.both(inputs[0].data, [b, h, w, c], [size(h), size(w)], self.up, out, par);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let [b, h, w, c] = *inputs[0].dims else { return vec![] };
        let size = |n| self.size(n).unwrap_or(0);
        let mut grad = pool::take(b * h * w * c);
        self.both(cot, [b, size(h), size(w), c], [h, w], !self.up, &mut grad, par);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let (b, h, w, c) = x.dims4()?;
        let (h2, w2) = (self.size(h).unwrap_or(0), self.size(w).unwrap_or(0));
        let rows = self.matrix(h, h2, x)?.unsqueeze(0)?.broadcast_matmul(&x.reshape((b, h, w * c))?)?;
        let columns = self.matrix(w, w2, x)?.unsqueeze(0)?.broadcast_matmul(&rows.reshape((b * h2, w, c))?)?;
        columns.reshape((b, h2, w2, c))
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

/// Zeros around an image, this many pixels on each side.
pub struct Pad(pub usize);

impl Pad {
    /// Pairs of (offset in the small image, offset in the large one), a row of pixels each.
    fn rows(&self, d: &[usize]) -> impl Iterator<Item = (usize, usize)> {
        let (p, h, row, wide) = (self.0, d[1], d[2] * d[3], (d[2] + 2 * self.0) * d[3]);
        let at = p * d[3];
        (0..d[0] * h).map(move |i| (i * row, (i / h * (h + 2 * p) + p + i % h) * wide + at))
    }
}

impl Frozen for Pad {
    fn name(&self) -> &'static str {
        "zero padding"
    }
    fn detail(&self) -> String {
        self.0.to_string()
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] => Ok(vec![b, h + 2 * self.0, w + 2 * self.0, c]),
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let View { data, dims } = inputs[0];
        let row = dims[2] * dims[3];
        out.fill(0.0);
        for (from, to) in self.rows(dims) {
            out[to..to + row].copy_from_slice(&data[from..from + row]);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let dims = inputs[0].dims;
        let row = dims[2] * dims[3];
        let mut grad = pool::take(dims.iter().product());
        for (to, from) in self.rows(dims) {
            grad[to..to + row].copy_from_slice(&cot[from..from + row]);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        inputs[0].pad_with_zeros(1, self.0, self.0)?.pad_with_zeros(2, self.0, self.0)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
