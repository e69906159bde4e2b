//! An operation that computes in a wider type than the values around it.
use super::gpu::Gpu;
use super::{Frozen, View, apply};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// `op` on its inputs converted to `dtype`, its result in the first input's own type: sums over many half-precision values
/// (norms, softmax) lose too much, or overflow.
pub struct Within {
    /// The operation.
    pub op: Arc<dyn Frozen>,
    /// The type in which it computes.
    pub dtype: DType,
}

impl Frozen for Within {
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.op.dims(inputs)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        self.op.run(inputs, out, par);
    }
    fn saves(&self) -> bool {
        self.op.saves()
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        self.op.pull(inputs, cot, par)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        // kernels sum in f32 whatever they read and write
        self.op.gpu()
    }
    fn detail(&self) -> String {
        format!("{} in {}", self.op.detail(), self.dtype.as_str())
    }
    fn weights(&self) -> candle_core::Result<Vec<Tensor>> {
        self.op.weights()
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> candle_core::Result<Tensor> {
        let wide = inputs.iter().map(|t| t.to_dtype(self.dtype)).collect::<candle_core::Result<Vec<_>>>()?;
        self.op.compose_with(&wide.iter().collect::<Vec<_>>(), weights)?.to_dtype(inputs[0].dtype())
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let wide = inputs.iter().map(|t| t.to_dtype(self.dtype)).collect::<candle_core::Result<Vec<_>>>()?;
        apply(&self.op, &wide.iter().collect::<Vec<_>>())?.to_dtype(inputs[0].dtype())
    }
}
