//! Launches of GELU and of its gate.
use super::{Geglu, Gelu, last};
use crate::nets::kernels::gpu::{Array, Gpu, Input, Machine, args, count};
use candle_core::Result;

impl Gpu for Gelu {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let (x, n) = (inputs[0].array, count(inputs[0].dims));
        let out = m.alloc(n, x.dtype)?;
        m.each("gelu", x.dtype, n, args![x, out, *self == Gelu::Quick])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let (x, n) = (inputs[0].array, count(inputs[0].dims));
        let grad = m.alloc(n, x.dtype)?;
        m.each("gelu_pull", x.dtype, n, args![x, cot, grad, *self == Gelu::Quick])?;
        Ok(vec![grad])
    }
}

impl Gpu for Geglu {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: x, dims } = inputs[0];
        let n = count(dims) / 2;
        let out = m.alloc(n, x.dtype)?;
        m.each("geglu", x.dtype, n, args![x, out, last(dims) / 2])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let Input { array: x, dims } = inputs[0];
        let n = count(dims) / 2;
        let grad = m.alloc(2 * n, x.dtype)?;
        m.each("geglu_pull", x.dtype, n, args![x, cot, grad, last(dims) / 2])?;
        Ok(vec![grad])
    }
}
