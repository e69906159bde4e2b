//! Launches of layer norm: one in each direction, a block of threads for each row.
use super::LayerNorm;
use crate::nets::kernels::gpu::{Array, Gpu, Input, Machine, args, count};
use candle_core::{DType, Result};

impl LayerNorm {
    fn affine(&self, m: &mut dyn Machine) -> Result<[Array; 2]> {
        let gamma = m.constant(&self.kept, "gamma", DType::F32, &|| Ok(self.gamma.clone()))?;
        Ok([gamma, m.constant(&self.kept, "beta", DType::F32, &|| Ok(self.beta.clone()))?])
    }
}

impl Gpu for LayerNorm {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: x, dims } = inputs[0];
        let (n, c) = (count(dims), self.channels());
        let [gamma, beta] = self.affine(m)?;
        let out = m.alloc(n, x.dtype)?;
        m.rows("layer_norm", x.dtype, n / c, args![x, gamma, beta, out, c, self.eps as f32])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let Input { array: x, dims } = inputs[0];
        let (n, c) = (count(dims), self.channels());
        let [gamma, _] = self.affine(m)?;
        let grad = m.alloc(n, x.dtype)?;
        m.rows("layer_norm_pull", x.dtype, n / c, args![x, cot, gamma, grad, c, self.eps as f32])?;
        Ok(vec![grad])
    }
}
