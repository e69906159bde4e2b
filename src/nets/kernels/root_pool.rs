//! Pooling by the root of a mean of squares, as DISTS has it in the place of the largest value.
use super::windows::Windows;
use super::{Frozen, View, pool};
use crate::tensor::conv::{Geometry, conv2d};
use candle_core::{Device, Tensor};

/// √(Σ w x² + 1e-12) over windows of 3×3 pixels around every second pixel, zeros outside, with the products of ¼, ½, ¼ for weights:
/// [B, H, W, C] → [B, ⌈H/2⌉, ⌈W/2⌉, C].
pub struct RootPool;

const WINDOWS: Windows = Windows { size: [3; 2], stride: [2; 2], dilation: [1; 2], padding: [[1; 2]; 2] };
const HANN: [f32; 3] = [0.25, 0.5, 0.25];
/// What keeps the slope finite where all is 0.
const EPS: f32 = 1e-12;

fn weight(k: usize) -> f32 {
    HANN[k / 3] * HANN[k % 3]
}

fn size(dims: &[usize]) -> [usize; 2] {
    [dims[1].div_ceil(2), dims[2].div_ceil(2)]
}

/// The result for one image of `dims`.
fn roots(x: &[f32], dims: &[usize], out: &mut [f32]) {
    let c = dims[3];
    out.fill(EPS);
    WINDOWS.each([dims[1], dims[2]], size(dims), |to, k, pixel| {
        let (x, w) = (&x[pixel * c..][..c], weight(k));
        out[to * c..][..c].iter_mut().zip(x).for_each(|(o, x)| *o += w * x * x);
    });
    out.iter_mut().for_each(|o| *o = o.sqrt());
}

impl Frozen for RootPool {
    fn name(&self) -> &'static str {
        "root mean square pooling"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, h, w, c] if h * w * c > 0 => Ok(vec![b, h.div_ceil(2), w.div_ceil(2), c]),
            ref d => Err(format!("expected [B, H, W, C], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let View { data, dims } = inputs[0];
        let n = dims[0].max(1);
        let lens = [data.len() / n, out.len() / n];
        Windows::images(data, out, lens, par, |x, out| roots(x, dims, out));
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let View { data, dims } = inputs[0];
        let (n, c) = (dims[0].max(1), dims[3]);
        let mut grad = pool::zeros(data.len());
        let mut out = pool::take(cot.len() / n);
        let lens = [data.len() / n, cot.len() / n];
        for ((x, grad), cot) in
            data.chunks_exact(lens[0]).zip(grad.chunks_exact_mut(lens[0])).zip(cot.chunks_exact(lens[1]))
        {
            roots(x, dims, &mut out);
            // ∂√s/∂x = w x / √s
            out.iter_mut().zip(cot).for_each(|(o, g)| *o = g / *o);
            WINDOWS.each([dims[1], dims[2]], size(dims), |from, k, pixel| {
                let (x, g, w) = (&x[pixel * c..][..c], &out[from * c..][..c], weight(k));
                grad[pixel * c..][..c].iter_mut().zip(x).zip(g).for_each(|((o, x), g)| *o += w * x * g);
            });
        }
        pool::give(out);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0].permute((0, 3, 1, 2))?.contiguous()?;
        let c = x.dim(1)?;
        let taps: Vec<f32> = (0..9).map(weight).collect();
        let taps = Tensor::from_vec(taps, (1, 1, 3, 3), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
        let geometry = Geometry { stride: 2, padding: 1, groups: c, ..Geometry::default() };
        let mean = conv2d(&x.sqr()?, &taps.repeat((c, 1, 1, 1))?, None, geometry);
        let mean = mean.map_err(|e| candle_core::Error::Msg(e.to_string()))?;
        (mean + f64::from(EPS))?.sqrt()?.permute((0, 2, 3, 1))?.contiguous()
    }
}
