//! Embeddings of the noise level: sines and cosines at fixed frequencies.
#[path = "gpu/embedding.rs"]
mod gpu;

use super::gpu::{Gpu, Kept};
use super::{Frozen, View};
use candle_core::Tensor;

/// cos and sin of c_noise at fixed frequencies: [B] → [B, 2·frequencies]; of several numbers side by side, [B, n] → [B, n·2·frequencies].
pub struct Waves {
    frequencies: Vec<f64>,
    sines_first: bool,
    kept: Kept,
}

impl Waves {
    /// Geometrically spaced frequencies f_i = 10000^(−i/n), n = channels / 2; with `endpoint` 10000^(−i/(n − 1)), so that the
    /// last one is 1/10000 (Vaswani et al. 2017, in the two forms that diffusion networks use). An even number of channels, at least 4.
    pub fn positional(channels: usize, endpoint: bool, sines_first: bool) -> Self {
        let n = (channels / 2).max(1);
        let last = if endpoint { n.max(2) - 1 } else { n };
        let frequencies = (0..n).map(|i| 1e-4f64.powf(i as f64 / last as f64)).collect();
        Waves { frequencies, sines_first, kept: Kept::default() }
    }
    /// Random Fourier features at 2π times the given frequencies (Tancik et al. 2020).
    pub fn fourier(frequencies: &[f64], sines_first: bool) -> Self {
        Waves {
            frequencies: frequencies.iter().map(|f| std::f64::consts::TAU * f).collect(),
            sines_first,
            kept: Kept::default(),
        }
    }
    /// Where the sines and the cosines begin in a row.
    fn places(&self) -> (usize, usize) {
        let n = self.frequencies.len();
        if self.sines_first { (0, n) } else { (n, 0) }
    }
}

impl Frozen for Waves {
    fn name(&self) -> &'static str {
        "noise embedding"
    }
    fn detail(&self) -> String {
        let first = if self.sines_first { "sines" } else { "cosines" };
        format!("{} frequencies, {first} first", self.frequencies.len())
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match *inputs[0] {
            [b] => Ok(vec![b, 2 * self.frequencies.len()]),
            [b, n] => Ok(vec![b, n * 2 * self.frequencies.len()]),
            ref d => Err(format!("expected [B] or [B, n], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let (s, c) = self.places();
        for (level, row) in inputs[0].data.iter().zip(out.chunks_mut(2 * self.frequencies.len())) {
            for (i, f) in self.frequencies.iter().enumerate() {
                let (sin, cos) = (*level as f64 * f).sin_cos();
                (row[s + i], row[c + i]) = (sin as f32, cos as f32);
            }
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let (s, c) = self.places();
        let of = |(level, g): (&f32, &[f32])| {
            let term = |(i, f): (usize, &f64)| {
                let (sin, cos) = (*level as f64 * f).sin_cos();
                f * (g[s + i] as f64 * cos - g[c + i] as f64 * sin)
            };
            self.frequencies.iter().enumerate().map(term).sum::<f64>() as f32
        };
        vec![inputs[0].data.iter().zip(cot.chunks(2 * self.frequencies.len())).map(of).collect()]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let (c, b) = (inputs[0].flatten_all()?, inputs[0].dim(0)?);
        let f = Tensor::new(&self.frequencies[..], &candle_core::Device::Cpu)?;
        let f = f.to_dtype(c.dtype())?.to_device(c.device())?.unsqueeze(0)?;
        let angle = c.unsqueeze(1)?.broadcast_mul(&f)?;
        let (sin, cos) = (angle.sin()?, angle.cos()?);
        let all = if self.sines_first { Tensor::cat(&[sin, cos], 1)? } else { Tensor::cat(&[cos, sin], 1)? };
        all.reshape((b, all.elem_count() / b.max(1)))
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
