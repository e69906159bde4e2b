//! Frozen convolutions of any window, stride and padding: windows are copied into rows, and rows times weights are the
//! result. For what Winograd cannot do (AlexNet's 11×11 and 5×5, SqueezeNet's strides).
use super::simd::{MatMul, Packed, dispatch};
use super::{Frozen, View, host_f32, image, pool};
use crate::tensor::conv::{Geometry, conv2d};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::OnceLock;

/// A convolution: [B, H, W, in] → [B, H', W', out].
pub struct Conv2d {
    cin: usize,
    cout: usize,
    /// The window's height and width.
    window: (usize, usize),
    stride: usize,
    padding: usize,
    weight: Tensor,
    bias: Tensor,
    packed: OnceLock<[Packed; 2]>,
    host: Vec<f32>,
    host_bias: Vec<f32>,
}

impl Conv2d {
    /// From weights [out, in, kh, kw] and bias [out], in the dtype and on the device that the composed form shall use.
    /// The stride is at least 1.
    pub fn new(weight: Tensor, bias: Tensor, stride: usize, padding: usize) -> candle_core::Result<Self> {
        let (cout, cin, kh, kw) = weight.dims4()?;
        if weight.elem_count() == 0 || stride == 0 {
            candle_core::bail!("a convolution of {:?} with stride {stride} is empty", weight.dims())
        }
        let (host, host_bias) = (host_f32(&weight)?, host_f32(&bias)?);
        let packed = OnceLock::new();
        Ok(Conv2d { cin, cout, window: (kh, kw), stride, padding, weight, bias, packed, host, host_bias })
    }
    /// The weights for both directions, packed at first use; a row holds the window's pixels, channels innermost.
    fn packed(&self) -> &[Packed; 2] {
        self.packed.get_or_init(|| {
            let (taps, depth) = (self.window.0 * self.window.1, self.depth());
            let at = |k: usize, co: usize| self.host[(co * self.cin + k % self.cin) * taps + k / self.cin];
            [
                Packed::new(1, depth, self.cout, &self.host_bias, |_, k, co| at(k, co)),
                Packed::new(1, self.cout, depth, &[], |_, co, k| at(k, co)),
            ]
        })
    }
    fn depth(&self) -> usize {
        self.window.0 * self.window.1 * self.cin
    }
    fn out(&self, n: usize, k: usize) -> Option<usize> {
        Some((n + 2 * self.padding).checked_sub(k)? / self.stride + 1)
    }
    /// The size of the result for an image of h×w pixels; none where the window does not fit.
    pub fn size(&self, h: usize, w: usize) -> Option<(usize, usize)> {
        Some((self.out(h, self.window.0)?, self.out(w, self.window.1)?))
    }
    /// For each row of the window of output pixel `at` (counted through the batch): the run of pixels inside the image, as
    /// (first float in the row of the window, first float in the image, number of floats).
    fn runs(&self, [h, w]: [usize; 2], [oh, ow]: [usize; 2], at: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let (n, y, x) = (at / (oh * ow), at / ow % oh * self.stride, at % ow * self.stride);
        let (c, pad, (kh, kw)) = (self.cin, self.padding, self.window);
        // columns x + kx − pad that lie in 0..w
        let first = pad.saturating_sub(x).min(kw);
        let last = (w + pad).saturating_sub(x).min(kw).max(first);
        let inside = move |ky: &usize| last > first && (pad..h + pad).contains(&(y + ky));
        (0..kh).filter(inside).map(move |ky| {
            let pixel = (n * h + y + ky - pad) * w + x + first - pad;
            ((ky * kw + first) * c, pixel * c, (last - first) * c)
        })
    }
}

/// Output pixels that one product takes: its rows should stay in the second-level cache.
fn block(depth: usize, cout: usize) -> usize {
    (128 * 1024 / (depth + cout).max(1)).clamp(6, 240)
}

impl Frozen for Conv2d {
    fn name(&self) -> &'static str {
        "frozen convolution"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [b, h, w, _] = image(inputs[0], self.cin)?;
        match self.size(h, w) {
            Some((oh, ow)) => Ok(vec![b, oh, ow, self.cout]),
            None => Err(format!("a window of {:?} pixels does not fit into {:?}", self.window, inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let View { data, dims } = inputs[0];
        let Some((oh, ow)) = self.size(dims[1], dims[2]) else { return };
        let (w, depth) = (&self.packed()[0], self.depth());
        let per = block(depth, self.cout);
        let piece = |(i, out): (usize, &mut [f32])| {
            let m = out.len() / self.cout;
            let mut rows = pool::take(m * depth);
            rows.fill(0.0);
            for (j, row) in rows.chunks_exact_mut(depth).enumerate() {
                for (to, from, n) in self.runs([dims[1], dims[2]], [oh, ow], i * per + j) {
                    row[to..to + n].copy_from_slice(&data[from..from + n]);
                }
            }
            dispatch(MatMul { a: &rows, lda: depth, m, w, out, ldc: self.cout });
            pool::give(rows);
        };
        if par {
            out.par_chunks_mut(per * self.cout).enumerate().for_each(piece);
        } else {
            out.chunks_mut(per * self.cout).enumerate().for_each(piece);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let dims = inputs[0].dims;
        let mut grad = pool::take(dims.iter().product());
        grad.fill(0.0);
        let Some((oh, ow)) = self.size(dims[1], dims[2]) else { return vec![grad] };
        let (w, depth) = (&self.packed()[1], self.depth());
        let per = block(depth, self.cout);
        // an image's windows overlap, so that one thread adds them up, in order; images are apart
        let one = |(cot, grad): (&[f32], &mut [f32])| {
            for (i, cot) in cot.chunks(per * self.cout).enumerate() {
                let m = cot.len() / self.cout;
                let mut rows = pool::take(m * depth);
                dispatch(MatMul { a: cot, lda: self.cout, m, w, out: &mut rows, ldc: depth });
                for (j, row) in rows.chunks_exact(depth).enumerate() {
                    for (from, to, n) in self.runs([dims[1], dims[2]], [oh, ow], i * per + j) {
                        for (g, r) in grad[to..to + n].iter_mut().zip(&row[from..from + n]) {
                            *g += r;
                        }
                    }
                }
                pool::give(rows);
            }
        };
        let (cots, grads) = (oh * ow * self.cout, dims[1] * dims[2] * dims[3]);
        if par {
            cot.par_chunks(cots).zip(grad.par_chunks_mut(grads)).for_each(one);
        } else {
            cot.chunks(cots).zip(grad.chunks_mut(grads)).for_each(one);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0].permute((0, 3, 1, 2))?.contiguous()?;
        let geometry = Geometry { stride: self.stride, padding: self.padding, ..Geometry::default() };
        let y =
            conv2d(&x, &self.weight, Some(&self.bias), geometry).map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        y.permute((0, 2, 3, 1))?.contiguous()
    }
}
