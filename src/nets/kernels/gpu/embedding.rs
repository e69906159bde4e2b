//! Launches of the noise embedding.
use super::Waves;
use crate::nets::kernels::gpu::{Array, Gpu, Input, Machine, args};
use candle_core::{DType, Result};

impl Waves {
    /// Frequencies as sums of two floats.
    fn split(&self, m: &mut dyn Machine) -> Result<Array> {
        let high = |f: &f64| *f as f32;
        let low = |f: &f64| (f - *f as f32 as f64) as f32;
        let all = || Ok(self.frequencies.iter().map(high).chain(self.frequencies.iter().map(low)).collect());
        m.constant(&self.kept, "frequencies", DType::F32, &all)
    }
}

impl Gpu for Waves {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: level, dims } = inputs[0];
        let (numbers, count, (s, c)) = (dims.iter().product::<usize>(), self.frequencies.len(), self.places());
        let f = self.split(m)?;
        let out = m.alloc(2 * numbers * count, level.dtype)?;
        m.each("waves", level.dtype, numbers * count, args![level, f, out, count, s, c])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let Input { array: level, dims } = inputs[0];
        let (numbers, count, (s, c)) = (dims.iter().product::<usize>(), self.frequencies.len(), self.places());
        let f = self.split(m)?;
        let grad = m.alloc(numbers, level.dtype)?;
        m.each("waves_pull", level.dtype, numbers, args![level, f, cot, grad, count, s, c])?;
        Ok(vec![grad])
    }
}
