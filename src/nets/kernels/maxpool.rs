//! Max pooling without padding; the gradient goes to the first largest value of a window, as PyTorch's.
#[path = "gpu/maxpool.rs"]
mod gpu;

use super::gpu::Gpu;
use super::{Frozen, View, pool};
use candle_core::Tensor;

/// The largest value in square windows: [B, H, W, C] → [B, H', W', C].
pub struct MaxPool {
    /// The window's height and width.
    pub window: usize,
    /// The distance between windows.
    pub stride: usize,
    /// Windows may reach over the edge (PyTorch's `ceil_mode`), where they see only what is there.
    pub ceil: bool,
}

impl MaxPool {
    /// How many windows fit into `n` pixels; 0 where none does.
    pub fn windows(&self, n: usize) -> usize {
        let over = if self.ceil { self.stride - 1 } else { 0 };
        match (n + over).checked_sub(self.window) {
            Some(rest) => rest / self.stride + 1,
            None => 0,
        }
    }
    /// Calls `f(window, pixel, first)` for each pixel of each window, row by row; both are counted through the batch.
    fn each(&self, dims: &[usize], mut f: impl FnMut(usize, usize, bool)) {
        let &[b, h, w, _] = dims else { return };
        let (oh, ow) = (self.windows(h), self.windows(w));
        for at in 0..b * oh * ow {
            let (n, y, x) = (at / (oh * ow), at / ow % oh * self.stride, at % ow * self.stride);
            for py in y..(y + self.window).min(h) {
                for px in x..(x + self.window).min(w) {
                    f(at, (n * h + py) * w + px, py == y && px == x);
                }
            }
        }
    }
}

impl Frozen for MaxPool {
    fn name(&self) -> &'static str {
        "max pooling"
    }
    fn detail(&self) -> String {
        format!("window {}, stride {}{}", self.window, self.stride, if self.ceil { ", over the edge" } else { "" })
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] if self.windows(h) * self.windows(w) > 0 => Ok(vec![b, self.windows(h), self.windows(w), c]),
            ref d => Err(format!("expected [B, H, W, C] of at least {0}×{0} pixels, got {d:?}", self.window)),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let View { data, dims } = inputs[0];
        let c = dims[3];
        self.each(dims, |at, pixel, first| {
            let (out, x) = (&mut out[at * c..][..c], &data[pixel * c..][..c]);
            if first {
                return out.copy_from_slice(x);
            }
            for (o, x) in out.iter_mut().zip(x) {
                *o = if *x > *o || x.is_nan() { *x } else { *o };
            }
        });
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let View { data, dims } = inputs[0];
        let c = dims[3];
        // where the largest value of each window stands: the first of equal ones, and NaN before all
        let mut top = pool::take(cot.len());
        let mut place = vec![0u32; cot.len()];
        self.each(dims, |at, pixel, first| {
            let (top, place) = (&mut top[at * c..][..c], &mut place[at * c..][..c]);
            for ((t, p), x) in top.iter_mut().zip(place).zip(&data[pixel * c..][..c]) {
                if first || *x > *t || x.is_nan() {
                    (*t, *p) = (*x, pixel as u32);
                }
            }
        });
        pool::give(top);
        let mut grad = pool::take(data.len());
        grad.fill(0.0);
        for (g, place) in cot.chunks_exact(c).zip(place.chunks_exact(c)) {
            for (i, (g, p)) in g.iter().zip(place).enumerate() {
                grad[*p as usize * c + i] += g;
            }
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let (_, h, w, _) = x.dims4()?;
        // the pixels at one place of all windows; behind the edge the last pixel again, which is then not the first
        let taps = |n: usize, k: usize| -> candle_core::Result<Tensor> {
            let at: Vec<u32> = (0..self.windows(n)).map(|i| (i * self.stride + k).min(n - 1) as u32).collect();
            Tensor::new(at, x.device())
        };
        let mut views = vec![];
        for ky in 0..self.window {
            let rows = x.index_select(&taps(h, ky)?, 1)?;
            for kx in 0..self.window {
                views.push(rows.index_select(&taps(w, kx)?, 2)?);
            }
        }
        let mut top = views[0].detach();
        for v in &views[1..] {
            top = top.maximum(&v.detach())?;
        }
        let mut left = top.ones_like()?;
        let mut out = top.zeros_like()?;
        for v in &views {
            let here = (v.detach().eq(&top)?.to_dtype(top.dtype())? * &left)?;
            left = (left - &here)?;
            out = (out + (v * here)?)?;
        }
        Ok(out)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
