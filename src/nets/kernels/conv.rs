//! Frozen 3×3 convolutions and linear maps over channels (1×1 convolutions), with bias.
use super::simd::{MatMul, Packed, dispatch};
use super::{Frozen, View, Winograd, host_f32, image, pool};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::OnceLock;

/// 3×3 convolution, stride 1, padding 1: [B, H, W, in] → [B, H, W, out].
pub struct Conv3x3 {
    cin: usize,
    cout: usize,
    weight: Tensor,
    bias: Tensor,
    /// The weights and bias on the host until both directions are packed; packed at first use, because each direction
    /// takes four times the weights' memory.
    host: Vec<f32>,
    host_bias: Vec<f32>,
    forward: OnceLock<Winograd>,
    backward: OnceLock<Winograd>,
}

impl Conv3x3 {
    /// From weights [out, in, 3, 3] and bias [out], in the dtype and on the device that the composed form shall use.
    pub fn new(weight: Tensor, bias: Tensor) -> candle_core::Result<Self> {
        let (cout, cin, _, _) = weight.dims4()?;
        let (host, host_bias) = (host_f32(&weight)?, host_f32(&bias)?);
        let (forward, backward) = (OnceLock::new(), OnceLock::new());
        Ok(Conv3x3 { cin, cout, weight, bias, host, host_bias, forward, backward })
    }
}

impl Frozen for Conv3x3 {
    fn name(&self) -> &'static str {
        "frozen 3×3 convolution"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [b, h, w, _] = image(inputs[0], self.cin)?;
        Ok(vec![b, h, w, self.cout])
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let op = self.forward.get_or_init(|| {
            let at = |co: usize, ci: usize, tap: usize| self.host[(co * self.cin + ci) * 9 + tap];
            Winograd::new(self.cin, self.cout, &self.host_bias, at)
        });
        let d = inputs[0].dims;
        op.run(inputs[0].data, [d[0], d[1], d[2]], out, par);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        // the input gradient is the same convolution with the kernel flipped and transposed
        let op = self.backward.get_or_init(|| {
            let at = |co: usize, ci: usize, tap: usize| self.host[(ci * self.cin + co) * 9 + 8 - tap];
            Winograd::new(self.cout, self.cin, &[], at)
        });
        let d = inputs[0].dims;
        let mut grad = pool::take(d.iter().product());
        op.run(cot, [d[0], d[1], d[2]], &mut grad, par);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0].permute((0, 3, 1, 2))?.contiguous()?;
        x.conv2d(&self.weight, 1, 1, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()?.broadcast_add(&self.bias)
    }
}

/// A linear map of the last dimension: [.., in] → [.., out]; on images a 1×1 convolution.
pub struct Linear {
    cin: usize,
    cout: usize,
    /// [in, out].
    weight: Tensor,
    bias: Tensor,
    forward: Packed,
    backward: Packed,
}

impl Linear {
    /// From weights [out, in] and bias [out].
    pub fn new(weight: &Tensor, bias: Tensor) -> candle_core::Result<Self> {
        let (cout, cin) = weight.dims2()?;
        let w = host_f32(weight)?;
        let forward = Packed::new(1, cin, cout, &host_f32(&bias)?, |_, k, n| w[n * cin + k]);
        let backward = Packed::new(1, cout, cin, &[], |_, k, n| w[k * cin + n]);
        Ok(Linear { cin, cout, weight: weight.t()?.contiguous()?, bias, forward, backward })
    }
}

/// out = bias + a · w over rows, in pieces that keep a thread busy for some microseconds.
fn rows(a: &[f32], w: &Packed, out: &mut [f32], par: bool) {
    if w.n == 0 || w.k == 0 {
        return out.fill(0.0);
    }
    let piece = |(a, out): (&[f32], &mut [f32])| {
        dispatch(MatMul { a, lda: w.k, m: out.len() / w.n, w, out, ldc: w.n });
    };
    let m = out.len() / w.n;
    let per = (64 * 1024 / (w.n + w.k)).clamp(6, 240);
    if par && m > per {
        a.par_chunks(per * w.k).zip(out.par_chunks_mut(per * w.n)).for_each(piece);
    } else {
        a.chunks(per * w.k).zip(out.chunks_mut(per * w.n)).for_each(piece);
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
        rows(inputs[0].data, &self.forward, out, par);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(inputs[0].dims.iter().product());
        rows(cot, &self.backward, &mut grad, par);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let rows = x.elem_count() / self.cin.max(1);
        let y = x.reshape((rows, self.cin))?.matmul(&self.weight)?.broadcast_add(&self.bias)?;
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.cout;
        }
        y.reshape(dims)
    }
}
