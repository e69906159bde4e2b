//! Launches of max pooling.
use super::MaxPool;
use crate::nets::kernels::gpu::{Arg, Array, Gpu, Input, Machine, args, count};
use candle_core::Result;

impl MaxPool {
    fn sizes(&self, d: &[usize]) -> [Arg; 7] {
        let (oh, ow) = (self.windows(d[1]), self.windows(d[2]));
        [d[1].into(), d[2].into(), d[3].into(), oh.into(), ow.into(), self.window.into(), self.stride.into()]
    }
}

impl Gpu for MaxPool {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: x, dims: d } = inputs[0];
        let n = d[0] * self.windows(d[1]) * self.windows(d[2]) * d[3];
        let out = m.alloc(n, x.dtype)?;
        m.each("maxpool", x.dtype, n, &[args![x, out], &self.sizes(d)[..]].concat())?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let Input { array: x, dims: d } = inputs[0];
        let grad = m.alloc(count(d), x.dtype)?;
        m.each("maxpool_pull", x.dtype, count(d), &[args![x, cot, grad], &self.sizes(d)[..]].concat())?;
        Ok(vec![grad])
    }
}
