//! Launches of sums, SiLU, concatenation and plain resampling.
use super::{AddScale, Concat, Down2, Silu, Up2, last};
use crate::nets::kernels::gpu::{Array, Gpu, Input, Machine, args, count};
use candle_core::Result;

impl Gpu for AddScale {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let (a, b, n) = (inputs[0].array, inputs[1].array, count(inputs[0].dims));
        let out = m.alloc(n, a.dtype)?;
        m.each("add_scale", a.dtype, n, args![a, b, out, self.0 as f32])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        if self.0 == 1.0 {
            return Ok(vec![cot, cot]);
        }
        let n = count(inputs[0].dims);
        let grad = m.alloc(n, cot.dtype)?;
        m.each("scale", cot.dtype, n, args![cot, grad, self.0 as f32])?;
        Ok(vec![grad, grad])
    }
}

impl Gpu for Silu {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let (x, n) = (inputs[0].array, count(inputs[0].dims));
        let out = m.alloc(n, x.dtype)?;
        m.each("silu", x.dtype, n, args![x, out])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let (x, n) = (inputs[0].array, count(inputs[0].dims));
        let grad = m.alloc(n, x.dtype)?;
        m.each("silu_pull", x.dtype, n, args![x, cot, grad])?;
        Ok(vec![grad])
    }
}

impl Gpu for Concat {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let t = inputs[0].array.dtype;
        let widths = [last(inputs[0].dims), last(inputs[1].dims)];
        let all = widths[0] + widths[1];
        let out = m.alloc(count(inputs[0].dims) + count(inputs[1].dims), t)?;
        for (input, (width, at)) in inputs.iter().zip(widths.into_iter().zip([0, widths[0]])) {
            m.each("columns", t, count(input.dims), args![input.array, out, width, width, 0usize, all, at])?;
        }
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let widths = [last(inputs[0].dims), last(inputs[1].dims)];
        let all = widths[0] + widths[1];
        let mut grads = vec![];
        for (input, (width, at)) in inputs.iter().zip(widths.into_iter().zip([0, widths[0]])) {
            let n = count(input.dims);
            let grad = m.alloc(n, cot.dtype)?;
            m.each("columns", cot.dtype, n, args![cot, grad, width, all, at, width, 0usize])?;
            grads.push(grad);
        }
        Ok(grads)
    }
}

/// Doubles an image of width `w`, whose elements `n` counts, times `s`.
fn spread(m: &mut dyn Machine, x: Array, n: usize, [w, c]: [usize; 2], s: f32) -> Result<Array> {
    let out = m.alloc(4 * n, x.dtype)?;
    m.each("spread", x.dtype, 4 * n, args![x, out, w, c, s])?;
    Ok(out)
}

/// Sums squares of four pixels, times `s`; `n` and `w` are the result's.
fn gather(m: &mut dyn Machine, x: Array, n: usize, [w, c]: [usize; 2], s: f32) -> Result<Array> {
    let out = m.alloc(n, x.dtype)?;
    m.each("gather", x.dtype, n, args![x, out, w, c, s])?;
    Ok(out)
}

impl Gpu for Up2 {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array, dims } = inputs[0];
        spread(m, array, count(dims), [dims[2], dims[3]], 1.0)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let dims = inputs[0].dims;
        Ok(vec![gather(m, cot, count(dims), [dims[2], dims[3]], 1.0)?])
    }
}

impl Gpu for Down2 {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array, dims } = inputs[0];
        gather(m, array, count(dims) / 4, [dims[2] / 2, dims[3]], 0.25)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let dims = inputs[0].dims;
        Ok(vec![spread(m, cot, count(dims) / 4, [dims[2] / 2, dims[3]], 0.25)?])
    }
}
