//! The same values in another shape of a sample.
use super::{Frozen, View, pool};
use candle_core::Tensor;

/// [B, …] → [B, these sizes], of as many values.
pub struct Shaped(pub Vec<usize>);

impl Frozen for Shaped {
    fn name(&self) -> &'static str {
        "reshaping"
    }
    fn detail(&self) -> String {
        format!("{:?}", self.0)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs[0].split_first() {
            Some((b, rest)) if rest.iter().product::<usize>() == self.0.iter().product::<usize>() => {
                Ok([&[*b], &self.0[..]].concat())
            }
            _ => Err(format!("expected as many values as {:?} has, got {:?}", self.0, inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        out.copy_from_slice(inputs[0].data);
    }
    fn pull(&self, _: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        grad.copy_from_slice(cot);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        inputs[0].contiguous()?.reshape([&[inputs[0].dim(0)?], &self.0[..]].concat())
    }
}
