//! Launches of resampling by a filter, and of padding.
use super::{Pad, Resample};
use crate::nets::kernels::gpu::{Array, Gpu, Input, Machine, args, count};
use candle_core::{DType, Result};

impl Resample {
    /// One direction, from [b, h, w, c] to the size [oh, ow].
    fn launch(
        &self,
        m: &mut dyn Machine,
        x: Array,
        [b, h, w, c]: [usize; 4],
        [oh, ow]: [usize; 2],
        up: bool,
    ) -> Result<Array> {
        let gains = || Ok(self.gains().iter().map(|t| *t as f32).collect());
        let taps = m.constant(&self.kept, "taps", DType::F32, &gains)?;
        let n = b * oh * ow * c;
        let out = m.alloc(n, x.dtype)?;
        m.each("resample", x.dtype, n, args![x, taps, out, h, w, c, oh, ow, self.taps.len(), self.pad, up])?;
        Ok(out)
    }
    /// The sizes of both sides.
    fn sides(&self, d: &[usize]) -> ([usize; 4], [usize; 2]) {
        let size = |n| self.size(n).unwrap_or(0);
        ([d[0], d[1], d[2], d[3]], [size(d[1]), size(d[2])])
    }
}

impl Gpu for Resample {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let (from, to) = self.sides(inputs[0].dims);
        self.launch(m, inputs[0].array, from, to, self.up)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let ([b, h, w, c], [oh, ow]) = self.sides(inputs[0].dims);
        Ok(vec![self.launch(m, cot, [b, oh, ow, c], [h, w], !self.up)?])
    }
}

impl Gpu for Pad {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: x, dims: d } = inputs[0];
        let (h, w, c) = (d[1], d[2], d[3]);
        let (oh, ow) = (h + 2 * self.0, w + 2 * self.0);
        let n = d[0] * oh * ow * c;
        let out = m.alloc(n, x.dtype)?;
        m.each("window", x.dtype, n, args![x, out, h, w, c, oh, ow, -(self.0 as isize)])?;
        Ok(out)
    }
    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let d = inputs[0].dims;
        let (h, w, c) = (d[1], d[2], d[3]);
        let grad = m.alloc(count(d), cot.dtype)?;
        let sizes = args![cot, grad, h + 2 * self.0, w + 2 * self.0, c, h, w, self.0];
        m.each("window", cot.dtype, count(d), sizes)?;
        Ok(vec![grad])
    }
}
