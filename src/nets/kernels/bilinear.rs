//! Bilinear resizing to a fixed size, as the libraries do it that feature networks were published with.
use super::{Frozen, View, pool};
use candle_core::{Device, Tensor};

/// Where pixel i of the result looks in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corners {
    /// At i · from / to, as TensorFlow 1 (`resize_bilinear` with `align_corners=False`).
    TensorFlow1,
    /// At (i + ½) · from / to − ½, the centres of pixels, as PyTorch (`interpolate` with `align_corners=False`).
    Centres,
}

/// Each pixel a mean of the four around it: [B, H, W, C] → [B, size, size, C], without a filter when it shrinks.
pub struct Bilinear {
    /// Height and width of the result.
    pub size: usize,
    /// Where pixels lie.
    pub corners: Corners,
}

impl Bilinear {
    /// The two entries of an axis of `n` that entry `i` of the result lies between, and the weight of the second.
    fn source(&self, i: usize, n: usize) -> (usize, usize, f32) {
        // in f32, as both libraries have it
        let scale = n as f32 / self.size as f32;
        let at = match self.corners {
            Corners::TensorFlow1 => i as f32 * scale,
            Corners::Centres => ((i as f32 + 0.5) * scale - 0.5).max(0.0),
        };
        let low = (at.floor() as usize).min(n - 1);
        (low, (low + 1).min(n - 1), at - at.floor())
    }
    /// One axis of `n` entries with `inner` values each.
    fn axis(&self, x: &[f32], out: &mut [f32], n: usize, inner: usize) {
        for (x, out) in x.chunks_exact(n * inner).zip(out.chunks_exact_mut(self.size * inner)) {
            for (i, to) in out.chunks_exact_mut(inner).enumerate() {
                let (low, high, part) = self.source(i, n);
                let (a, b) = (&x[low * inner..][..inner], &x[high * inner..][..inner]);
                to.iter_mut().zip(a).zip(b).for_each(|((t, a), b)| *t = a + (b - a) * part);
            }
        }
    }
    /// Its transpose.
    fn axis_back(&self, cot: &[f32], grad: &mut [f32], n: usize, inner: usize) {
        grad.fill(0.0);
        for (cot, grad) in cot.chunks_exact(self.size * inner).zip(grad.chunks_exact_mut(n * inner)) {
            for (i, cot) in cot.chunks_exact(inner).enumerate() {
                let (low, high, part) = self.source(i, n);
                grad[low * inner..][..inner].iter_mut().zip(cot).for_each(|(g, v)| *g += (1.0 - part) * v);
                grad[high * inner..][..inner].iter_mut().zip(cot).for_each(|(g, v)| *g += part * v);
            }
        }
    }
    /// One axis as a matrix [size, n].
    fn matrix(&self, n: usize, like: &Tensor) -> candle_core::Result<Tensor> {
        let mut m = vec![0f64; self.size * n];
        for i in 0..self.size {
            let (low, high, part) = self.source(i, n);
            m[i * n + low] += 1.0 - f64::from(part);
            m[i * n + high] += f64::from(part);
        }
        Tensor::from_vec(m, (self.size, n), &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
    }
}

impl Frozen for Bilinear {
    fn name(&self) -> &'static str {
        "bilinear resizing"
    }
    fn detail(&self) -> String {
        format!("to {0}×{0}, {1:?}", self.size, self.corners)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] if h * w > 0 => Ok(vec![b, self.size, self.size, c]),
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let [b, h, w, c] = *inputs[0].dims else { return };
        let mut columns = pool::take(b * h * self.size * c);
        self.axis(inputs[0].data, &mut columns, w, c);
        self.axis(&columns, out, h, self.size * c);
        pool::give(columns);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let [b, h, w, c] = *inputs[0].dims else { return vec![] };
        let mut columns = pool::take(b * h * self.size * c);
        self.axis_back(cot, &mut columns, h, self.size * c);
        let mut grad = pool::take(b * h * w * c);
        self.axis_back(&columns, &mut grad, w, c);
        pool::give(columns);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let (b, h, w, c) = x.dims4()?;
        let rows = self.matrix(h, x)?.unsqueeze(0)?.broadcast_matmul(&x.reshape((b, h, w * c))?)?;
        let both = self.matrix(w, x)?.unsqueeze(0)?.broadcast_matmul(&rows.reshape((b * self.size, w, c))?)?;
        both.reshape((b, self.size, self.size, c))
    }
}
