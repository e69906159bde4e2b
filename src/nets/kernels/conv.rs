//! Frozen convolutions and linear maps over channels (1×1 convolutions), with bias.
#[path = "gpu/conv.rs"]
mod gpu;

use super::direct::{self, Walk};
use super::gpu::{Gpu, Kept};
use super::half::Raw;
use super::held::{Held, Pack, like};
use super::simd::{MatMul, PANEL, Packed, share};
use super::winograd::{self, Taps};
use super::{Frozen, View, image, pool};
use crate::tensor::conv::{Geometry, conv2d};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static EXACT: AtomicBool = AtomicBool::new(false);

/// Makes every convolution from here on sum its products directly, without Winograd's rounding error and speed.
pub fn set_exact(on: bool) {
    EXACT.store(on, Ordering::Relaxed);
}

/// Whether [`set_exact`] is on.
pub fn exact() -> bool {
    EXACT.load(Ordering::Relaxed)
}

/// Convolution: [B, H, W, in] → [B, H', W', out], H' = (H + padding before and after − kernel) / stride + 1.
///
/// 3×3 with stride 1 and padding 1 goes by Winograd's F(4×4, 3×3) unless [`exact`] is on; all others sum directly.
pub struct Conv {
    cin: usize,
    cout: usize,
    kernel: [usize; 2],
    stride: usize,
    /// Zeros before and after, along each axis.
    padding: [[usize; 2]; 2],
    held: Held<Taps>,
    /// Packed when a gradient is first asked for.
    backward: OnceLock<Taps>,
    kept: Kept,
}

impl Conv {
    /// Stride 1 and a padding of half the kernel, from weights [out, in, kh, kw] and bias [out], in the dtype and on the
    /// device that the composed form shall use.
    pub fn new(weight: Tensor, bias: Tensor) -> candle_core::Result<Self> {
        let padding = weight.dims4()?.2 / 2;
        Conv::with(weight, bias, 1, padding)
    }

    /// The same with a stride ≥ 1 and a padding on all sides.
    pub fn with(weight: Tensor, bias: Tensor, stride: usize, padding: usize) -> candle_core::Result<Self> {
        Conv::padded(weight, bias, stride, [padding; 2])
    }

    /// The same with one padding above and to the left, and another below and to the right.
    pub fn padded(weight: Tensor, bias: Tensor, stride: usize, padding: [usize; 2]) -> candle_core::Result<Self> {
        Conv::oblong(weight, bias, stride, [padding; 2])
    }

    /// The same with zeros above and below, and others to the left and to the right.
    pub fn oblong(weight: Tensor, bias: Tensor, stride: usize, padding: [[usize; 2]; 2]) -> candle_core::Result<Self> {
        let (cout, cin, kh, kw) = weight.dims4()?;
        if stride == 0 || kh * kw == 0 {
            candle_core::bail!("a convolution needs a stride and a kernel of at least 1, got {stride} and {kh}×{kw}");
        }
        let held = Held::new(&weight, &bias, |w, bias| pack(cin, cout, kh * kw, w, bias))?;
        let (kernel, backward) = ([kh, kw], OnceLock::new());
        Ok(Conv { cin, cout, kernel, stride, padding, held, backward, kept: Kept::default() })
    }

    /// Bytes that the weights take on the host: once for values, and once more when gradients have been asked for.
    pub fn bytes(&self) -> usize {
        self.held.bytes() + self.backward.get().map_or(0, Taps::bytes)
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn forward(&self) -> &Taps {
        self.held.packed(|w, bias| pack(self.cin, self.cout, self.taps(), w, bias))
    }

    fn fast(&self) -> bool {
        self.kernel == [3, 3] && self.stride == 1 && self.padding == [[1; 2]; 2] && !exact()
    }

    /// Windows along an axis of `n` pixels, if any fits.
    fn windows(&self, n: usize, axis: usize) -> Option<usize> {
        let all = n + self.padding[axis][0] + self.padding[axis][1];
        all.checked_sub(self.kernel[axis]).map(|n| n / self.stride + 1)
    }

    /// Height and width of the result, of an image that [`Frozen::dims`] has checked.
    fn size(&self, dims: &[usize]) -> [usize; 2] {
        [self.windows(dims[1], 0).unwrap_or(0), self.windows(dims[2], 1).unwrap_or(0)]
    }

    fn walk(&self, axis: usize, transposed: bool) -> Walk {
        let (size, s, before) = (self.kernel[axis], self.stride, self.padding[axis][0] as isize);
        match transposed {
            false => Walk { size, mul: s, div: 1, pad: before },
            true => Walk { size, mul: 1, div: s, pad: size as isize - 1 - before },
        }
    }
}

/// Weights in the order [out, in, taps] as the kernels read them.
fn pack(cin: usize, cout: usize, taps: usize, w: &Raw, bias: &[f32]) -> Taps {
    Taps::of_bits(w.form(), cin, cout, taps, bias, |co, ci, t| w.bits((co * cin + ci) * taps + t))
}

impl Pack for Taps {
    fn unpack(&self) -> Vec<f32> {
        let each = |i: usize| (0..self.cin * self.taps()).map(move |k| self.at(i, k / self.taps(), k % self.taps()));
        (0..self.cout).flat_map(each).collect()
    }
    fn bytes(&self) -> usize {
        Taps::bytes(self)
    }
}

impl Pack for Packed {
    fn unpack(&self) -> Vec<f32> {
        (0..self.n * self.k).map(|i| self.at(i % self.k, i / self.k)).collect()
    }
    fn bytes(&self) -> usize {
        Packed::bytes(self)
    }
}

impl Frozen for Conv {
    fn name(&self) -> &'static str {
        "frozen convolution"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [b, h, w, _] = image(inputs[0], self.cin)?;
        match (self.windows(h, 0), self.windows(w, 1)) {
            (Some(h), Some(w)) => Ok(vec![b, h, w, self.cout]),
            _ => Err(format!("a kernel of {:?} does not fit an image of {h}×{w}", self.kernel)),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let d = inputs[0].dims;
        let dims = [d[0], d[1], d[2]];
        if self.fast() {
            return winograd::convolve(self.forward(), inputs[0].data, dims, out, par);
        }
        let [wy, wx] = [self.walk(0, false), self.walk(1, false)];
        direct::convolve(self.forward(), [wy, wx], inputs[0].data, dims, out, self.size(d), par);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        // the input gradient is the same convolution with the kernel flipped and transposed
        let op = self.backward.get_or_init(|| {
            let (taps, forward) = (self.taps(), self.forward());
            let at = |co, ci, t: usize| forward.bits(ci, co, taps - 1 - t);
            Taps::of_bits(forward.form(), self.cout, self.cin, taps, &[], at)
        });
        let d = inputs[0].dims;
        let mut grad = pool::take(d.iter().product());
        if self.fast() {
            winograd::convolve(op, cot, [d[0], d[1], d[2]], &mut grad, par);
        } else {
            let [h, w] = self.size(d);
            let dims = [d[0], h, w];
            let walks = [self.walk(0, true), self.walk(1, true)];
            direct::convolve(op, walks, cot, dims, &mut grad, [d[1], d[2]], par);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        self.compose_with(inputs, &self.weights()?)
    }
    fn weights(&self) -> candle_core::Result<Vec<Tensor>> {
        self.held.tensors(&[self.cout, self.cin, self.kernel[0], self.kernel[1]])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> candle_core::Result<Tensor> {
        let (weight, bias) = (like(&weights[0], inputs[0])?, like(&weights[1], inputs[0])?);
        let mut x = inputs[0].permute((0, 3, 1, 2))?.contiguous()?;
        // as many as there are on all four sides belong to the convolution
        let both = self.padding.iter().flatten().copied().min().unwrap_or(0);
        for (axis, [before, after]) in self.padding.into_iter().enumerate().filter(|(_, p)| *p != [both; 2]) {
            x = x.pad_with_zeros(2 + axis, before - both, after - both)?;
        }
        // its gradient is right for every stride, and not by candle's slow transposed convolution
        let geometry = Geometry { stride: self.stride, padding: both, ..Geometry::default() };
        let y = conv2d(&x, &weight, Some(&bias), geometry).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        y.permute((0, 2, 3, 1))?.contiguous()
    }
    fn detail(&self) -> String {
        let Conv { cin, cout, kernel: [kh, kw], stride, padding: [y, x], .. } = self;
        let ends = |[before, after]: &[usize; 2]| match before == after {
            true => before.to_string(),
            false => format!("{before} and {after}"),
        };
        let across = if x == y { String::new() } else { format!(" × {}", ends(x)) };
        format!("{kh}×{kw}, {cin} → {cout}, stride {stride}, padding {}{across}", ends(y))
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

/// A linear map of the last dimension: [.., in] → [.., out]; on images a 1×1 convolution.
pub struct Linear {
    cin: usize,
    cout: usize,
    held: Held<Packed>,
    /// Packed when a gradient is first asked for.
    backward: OnceLock<Packed>,
    kept: Kept,
}

impl Linear {
    /// From weights [out, in] and bias [out], in the dtype and on the device that the composed form shall use.
    pub fn new(weight: &Tensor, bias: Tensor) -> candle_core::Result<Self> {
        let (cout, cin) = weight.dims2()?;
        let held = Held::new(weight, &bias, |w, bias| columns_of(cin, cout, w, bias))?;
        Ok(Linear { cin, cout, held, backward: OnceLock::new(), kept: Kept::default() })
    }
    fn forward(&self) -> &Packed {
        self.held.packed(|w, bias| columns_of(self.cin, self.cout, w, bias))
    }
    /// Bytes that the weights take on the host: once for values, and once more when gradients have been asked for.
    pub fn bytes(&self) -> usize {
        self.held.bytes() + self.backward.get().map_or(0, Packed::bytes)
    }
}

/// Weights in the order [out, in] as the kernel reads them.
fn columns_of(cin: usize, cout: usize, w: &Raw, bias: &[f32]) -> Packed {
    Packed::of_bits(w.form(), cin, cout, bias, |k, n| w.bits(n * cin + k))
}

/// Weights from which on it pays to give each thread some of the columns where rows are few.
const WIDE: usize = 1 << 15;

/// out = bias + a · w over rows, in pieces that keep a thread busy for some microseconds.
fn rows(a: &[f32], w: &Packed, out: &mut [f32], par: bool) {
    if w.n == 0 || w.k == 0 {
        return out.fill(0.0);
    }
    let piece = |(a, out): (&[f32], &mut [f32])| {
        MatMul { a, lda: w.k, step: 1, m: out.len() / w.n, w, panels: w.panels(), out, ldc: w.n }.run();
    };
    let m = out.len() / w.n;
    let per = (64 * 1024 / (w.n + w.k)).clamp(24, 240);
    if par && m > per {
        a.par_chunks(per * w.k).zip(out.par_chunks_mut(per * w.n)).for_each(piece);
    } else if par && w.n * w.k >= WIDE {
        columns(a, w, out, m);
    } else {
        a.chunks(per * w.k).zip(out.chunks_mut(per * w.n)).for_each(piece);
    }
}

/// The same for few rows: each thread reads its own part of the weights.
fn columns(a: &[f32], w: &Packed, out: &mut [f32], m: usize) {
    let panels = w.panels().len();
    let parts = rayon::current_num_threads().min(panels);
    let part = |i: usize| {
        let panels = share(panels, parts, i);
        let (from, to) = (panels.start * PANEL, (panels.end * PANEL).min(w.n));
        let mut own = vec![0.0; m * (to - from)];
        MatMul { a, lda: w.k, step: 1, m, w, panels, out: &mut own, ldc: to - from }.run();
        (from..to, own)
    };
    let done: Vec<_> = (0..parts).into_par_iter().with_max_len(1).map(part).collect();
    for (columns, own) in done {
        for (to, own) in out.chunks_exact_mut(w.n).zip(own.chunks_exact(columns.len())) {
            to[columns.clone()].copy_from_slice(own);
        }
    }
}

impl Frozen for Linear {
    fn name(&self) -> &'static str {
        "frozen linear map"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs[0].split_last() {
            Some((c, rest)) if *c == self.cin => Ok([rest, &[self.cout]].concat()),
            _ => Err(format!("expected [.., {}], got {:?}", self.cin, inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        rows(inputs[0].data, self.forward(), out, par);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(inputs[0].dims.iter().product());
        let backward = self.backward.get_or_init(|| {
            let forward = self.forward();
            Packed::of_bits(forward.form(), self.cout, self.cin, &[], |k, n| forward.bits(n, k))
        });
        rows(cot, backward, &mut grad, par);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        self.compose_with(inputs, &self.weights()?)
    }
    fn weights(&self) -> candle_core::Result<Vec<Tensor>> {
        self.held.tensors(&[self.cout, self.cin])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let (weight, bias) = (like(&weights[0], x)?.t()?.contiguous()?, like(&weights[1], x)?);
        let rows = x.elem_count() / self.cin.max(1);
        let y = x.reshape((rows, self.cin))?.matmul(&weight)?.broadcast_add(&bias)?;
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.cout;
        }
        y.reshape(dims)
    }
    fn detail(&self) -> String {
        format!("{} → {}", self.cin, self.cout)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
