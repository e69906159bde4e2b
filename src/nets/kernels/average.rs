//! Means of pixels: in windows around each pixel, and over the whole image.
use super::{Frozen, View, pool};
use candle_core::{Device, Tensor};

/// The mean of the pixels in a square window around each pixel, of those that lie within the image: [B, H, W, C] → [B, H, W, C].
pub struct AveragePool {
    /// The window's height and width, an odd number.
    pub window: usize,
}

impl AveragePool {
    /// The pixels that the window around pixel `i` of `n` covers.
    fn span(&self, i: usize, n: usize) -> std::ops::Range<usize> {
        let half = self.window / 2;
        i.saturating_sub(half)..(i + half + 1).min(n)
    }
    /// Adds each row of `from` to those of `to` around it, along an axis of `n` entries with `inner` values each; `transposed` weighs by the
    /// window of the row that is read, else by that of the row that is written.
    fn axis(&self, from: &[f32], to: &mut [f32], n: usize, inner: usize, transposed: bool) {
        for (from, to) in from.chunks_exact(n * inner).zip(to.chunks_exact_mut(n * inner)) {
            for (i, to) in to.chunks_exact_mut(inner).enumerate() {
                to.fill(0.0);
                let own = 1.0 / self.span(i, n).len() as f32;
                // windows are symmetric: j is in that of i where i is in that of j
                for j in self.span(i, n) {
                    let share = if transposed { 1.0 / self.span(j, n).len() as f32 } else { own };
                    to.iter_mut().zip(&from[j * inner..][..inner]).for_each(|(t, f)| *t += share * f);
                }
            }
        }
    }
    fn both(&self, x: &[f32], dims: &[usize], out: &mut [f32], transposed: bool) {
        let mut rows = pool::take(x.len());
        self.axis(x, &mut rows, dims[1], dims[2] * dims[3], transposed);
        self.axis(&rows, out, dims[2], dims[3], transposed);
        pool::give(rows);
    }
    /// One axis as a matrix [n, n].
    fn matrix(&self, n: usize, like: &Tensor) -> candle_core::Result<Tensor> {
        let mut m = vec![0f64; n * n];
        for i in 0..n {
            let span = self.span(i, n);
            let share = 1.0 / span.len() as f64;
            span.for_each(|j| m[i * n + j] = share);
        }
        Tensor::from_vec(m, (n, n), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
    }
}

impl Frozen for AveragePool {
    fn name(&self) -> &'static str {
        "average pooling"
    }
    fn detail(&self) -> String {
        format!("window {}, of the pixels within", self.window)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [_, h, w, _] if h * w > 0 && self.window % 2 == 1 => Ok(inputs[0].to_vec()),
            ref d => Err(format!("expected [B, H, W, C] and an odd window, got {d:?} and {}", self.window)),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        self.both(inputs[0].data, inputs[0].dims, out, false);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        self.both(cot, inputs[0].dims, &mut grad, true);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let (b, h, w, c) = x.dims4()?;
        let rows = self.matrix(h, x)?.unsqueeze(0)?.broadcast_matmul(&x.reshape((b, h, w * c))?)?;
        let both = self.matrix(w, x)?.unsqueeze(0)?.broadcast_matmul(&rows.reshape((b * h, w, c))?)?;
        both.reshape((b, h, w, c))
    }
}

/// The mean over all pixels: [B, H, W, C] → [B, C].
pub struct GlobalMean;

impl Frozen for GlobalMean {
    fn name(&self) -> &'static str {
        "mean over pixels"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] if h * w > 0 => Ok(vec![b, c]),
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let View { data, dims } = inputs[0];
        let (pixels, c) = (dims[1] * dims[2], dims[3]);
        for (x, out) in data.chunks_exact(pixels * c).zip(out.chunks_exact_mut(c)) {
            out.fill(0.0);
            x.chunks_exact(c).for_each(|pixel| out.iter_mut().zip(pixel).for_each(|(o, v)| *o += v));
            out.iter_mut().for_each(|o| *o /= pixels as f32);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let dims = inputs[0].dims;
        let (pixels, c) = (dims[1] * dims[2], dims[3]);
        let mut grad = pool::take(dims.iter().product());
        for (g, cot) in grad.chunks_exact_mut(pixels * c).zip(cot.chunks_exact(c)) {
            g.chunks_exact_mut(c).for_each(|g| g.iter_mut().zip(cot).for_each(|(g, v)| *g = v / pixels as f32));
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        inputs[0].mean((1, 2))
    }
}
