//! Vector quantization: each pixel's nearest code.
use super::held::like;
use super::{Frozen, View, host_f32, pool};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Pixels that one task takes.
const PIECE: usize = 256;

/// [.., C] → the nearest of some codes [n, C], by squared distance; the first of two that are as near. Its gradient is that of the
/// identity ("straight through"). On a GPU the codes are looked up on the host: it happens once in a decoder.
pub struct Nearest {
    weight: Tensor,
    codes: Vec<f32>,
    width: usize,
}

impl Nearest {
    /// From codes [n, C].
    pub fn new(weight: Tensor) -> candle_core::Result<Self> {
        let (n, width) = weight.dims2()?;
        if n * width == 0 {
            candle_core::bail!("a quantizer needs codes, got {:?}", weight.dims());
        }
        Ok(Nearest { codes: host_f32(&weight)?, weight, width })
    }
    /// The number of a pixel's nearest code.
    fn find(&self, x: &[f32]) -> usize {
        let distance = |c: &[f32]| c.iter().zip(x).map(|(c, x)| (*c as f64 - *x as f64).powi(2)).sum::<f64>();
        let nearer = |best: (usize, f64), (i, c): (usize, &[f32])| {
            let d = distance(c);
            if d < best.1 { (i, d) } else { best }
        };
        self.codes.chunks_exact(self.width).enumerate().fold((0, f64::INFINITY), nearer).0
    }
}

impl Frozen for Nearest {
    fn name(&self) -> &'static str {
        "quantization"
    }
    fn detail(&self) -> String {
        format!("{} codes of {}", self.codes.len() / self.width, self.width)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs[0].last() {
            Some(c) if *c == self.width => Ok(inputs[0].to_vec()),
            _ => Err(format!("expected [.., {}], got {:?}", self.width, inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let (x, c) = (inputs[0].data, self.width);
        let piece = |(x, out): (&[f32], &mut [f32])| {
            for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
                out.copy_from_slice(&self.codes[self.find(x) * c..][..c]);
            }
        };
        if par {
            x.par_chunks(PIECE * c).zip(out.par_chunks_mut(PIECE * c)).for_each(piece);
        } else {
            piece((x, out));
        }
    }
    fn pull(&self, _: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        grad.copy_from_slice(cot);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        self.compose_with(inputs, &self.weights()?)
    }
    fn weights(&self) -> candle_core::Result<Vec<Tensor>> {
        Ok(vec![self.weight.clone()])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let values: Vec<f32> = host_f32(&x.detach())?;
        let found: Vec<u32> = values.par_chunks(self.width).map(|x| self.find(x) as u32).collect();
        let found = Tensor::from_vec(found, x.elem_count() / self.width, &Device::Cpu)?.to_device(x.device())?;
        let codes = like(&weights[0], x)?.index_select(&found, 0)?.reshape(x.dims())?;
        // the value of the code, the gradient of x
        x + (codes - x.detach())?
    }
}
