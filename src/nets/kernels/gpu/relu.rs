//! Launches of ReLU and of the scaling of channels.
use super::{Channels, Relu};
use crate::nets::kernels::gpu::{Array, Gpu, Input, Machine, args, count};
use candle_core::{DType, Result};

impl Gpu for Relu {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let (x, n) = (inputs[0].array, count(inputs[0].dims));
        let out = m.alloc(n, x.dtype)?;
        m.each("relu", x.dtype, n, args![x, out])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let (x, n) = (inputs[0].array, count(inputs[0].dims));
        let grad = m.alloc(n, x.dtype)?;
        m.each("relu_pull", x.dtype, n, args![x, cot, grad])?;
        Ok(vec![grad])
    }
}

impl Channels {
    fn map(&self, m: &mut dyn Machine) -> Result<Array> {
        let both = || Ok(self.scale.iter().chain(&self.shift).map(|v| *v as f32).collect());
        m.constant(&self.kept, "map", DType::F32, &both)
    }
}

impl Gpu for Channels {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: x, dims } = inputs[0];
        let (from, to) = (dims.last().copied().unwrap_or(1), self.scale.len());
        let n = count(dims) / from.max(1) * to;
        let map = self.map(m)?;
        let out = m.alloc(n, x.dtype)?;
        m.each("affine", x.dtype, n, args![x, map, out, to, from])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let dims = inputs[0].dims;
        let (from, to) = (dims.last().copied().unwrap_or(1), self.scale.len());
        let map = self.map(m)?;
        let grad = m.alloc(count(dims), cot.dtype)?;
        m.each("affine_pull", cot.dtype, count(dims), args![cot, map, grad, to, from])?;
        Ok(vec![grad])
    }
}
