//! max(x, 0), and a constant scale and shift of each channel.
#[path = "gpu/relu.rs"]
mod gpu;

use super::gpu::{Gpu, Kept};
use super::{Frozen, View, pool};
use candle_core::{Device, Tensor};

/// max(x, 0); its slope at 0 is 0, as PyTorch's (candle's own has 1). NaN stays NaN.
pub struct Relu;

impl Frozen for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        for (o, x) in out.iter_mut().zip(inputs[0].data) {
            *o = if *x < 0.0 { 0.0 } else { *x };
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        for ((o, g), x) in grad.iter_mut().zip(cot).zip(inputs[0].data) {
            *o = if *x <= 0.0 { 0.0 } else { *g };
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let on = x.detach().le(0.0)?.eq(0.0)?.to_dtype(x.dtype())?;
        x * on
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}

/// out[.., c] = scale[c] · x[.., c] + shift[c]; a single input channel is used for all of them.
pub struct Channels {
    scale: Vec<f64>,
    shift: Vec<f64>,
    kept: Kept,
}

impl Channels {
    /// From one (scale, shift) for each channel of the result.
    pub fn new(each: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let (scale, shift) = each.into_iter().unzip();
        Channels { scale, shift, kept: Kept::default() }
    }
}

impl Frozen for Channels {
    fn name(&self) -> &'static str {
        "scaling of channels"
    }
    fn detail(&self) -> String {
        format!("{:?} {:?}", self.scale, self.shift)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let n = self.scale.len();
        match inputs[0].split_last() {
            Some((c, rest)) if *c == 1 || *c == n => Ok([rest, &[n]].concat()),
            _ => Err(format!("expected [.., {n}] or [.., 1], got {:?}", inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let n = self.scale.len();
        let c = inputs[0].dims.last().copied().unwrap_or(1);
        let map: Vec<(f32, f32)> = self.scale.iter().zip(&self.shift).map(|(a, b)| (*a as f32, *b as f32)).collect();
        for (x, out) in inputs[0].data.chunks_exact(c).zip(out.chunks_exact_mut(n)) {
            for (i, (o, (a, b))) in out.iter_mut().zip(&map).enumerate() {
                *o = a * x[i % c] + b;
            }
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let n = self.scale.len();
        let c = inputs[0].dims.last().copied().unwrap_or(1);
        let mut grad = pool::take(inputs[0].dims.iter().product());
        grad.fill(0.0);
        let scale: Vec<f32> = self.scale.iter().map(|a| *a as f32).collect();
        for (g, x) in cot.chunks_exact(n).zip(grad.chunks_exact_mut(c)) {
            for (i, (g, a)) in g.iter().zip(&scale).enumerate() {
                x[i % c] += a * g;
            }
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let row = |v: &[f64]| Tensor::new(v, &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device());
        x.broadcast_mul(&row(&self.scale)?)?.broadcast_add(&row(&self.shift)?)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
