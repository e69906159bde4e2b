//! Launches of group norm: three forward, five back.
use super::{GroupNorm, Modulation};
use crate::nets::kernels::gpu::{Arg, Array, Gpu, Input, Machine, args, narrowed, widened};
use candle_core::{DType, Result};

/// What the launches of one call share.
struct Call {
    x: Array,
    t: DType,
    batch: usize,
    channels: usize,
    per: usize,
    pixels: usize,
    /// Pixels that one thread takes of a channel, and how many such pieces an image has.
    size: usize,
    pieces: usize,
    e: Option<Array>,
    gamma: Array,
    beta: Array,
    mode: usize,
    silu: bool,
    eps: f32,
    stats: Array,
}

impl Call {
    /// Threads of a launch that works on pieces.
    fn threads(&self) -> usize {
        self.batch * self.pieces * self.channels
    }
    /// What follows the arrays in kernels that normalize.
    fn rest(&self) -> [Arg; 8] {
        let Call { channels, per, pixels, size, pieces, mode, silu, eps, .. } = *self;
        [channels.into(), per.into(), pixels.into(), size.into(), pieces.into(), mode.into(), silu.into(), eps.into()]
    }
}

impl GroupNorm {
    /// Statistics of each channel, and what else a pass needs.
    fn begin(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Call> {
        let Input { array: x, dims } = inputs[0];
        let (t, c, f32) = (x.dtype, self.channels, DType::F32);
        let (batch, pixels) = (dims[0], dims[1] * dims[2]);
        // pieces long enough to be worth joining, and enough of them to keep a GPU busy
        let size = (pixels / 64).clamp(8, 64);
        let pieces = pixels.div_ceil(size);
        let e = inputs.get(1).map(|e| widened(m, *e)).transpose()?;
        let gamma = m.constant(&self.kept, "weight", f32, &|| Ok(self.gamma.clone()))?;
        let beta = m.constant(&self.kept, "bias", f32, &|| Ok(self.beta.clone()))?;
        let mode = match self.modulation {
            Modulation::None => 0,
            Modulation::Add => 1,
            Modulation::ScaleShift => 2,
        };
        let part = m.alloc(2 * batch * pieces * c, f32)?;
        let stats = m.alloc(2 * batch * c, f32)?;
        m.each("norm_sums", t, batch * pieces * c, args![x, part, c, pixels, size, pieces])?;
        m.each("norm_channels", t, batch * c, args![part, stats, c, pixels, size, pieces])?;
        let (per, silu, eps) = (c / self.groups, self.silu, self.eps as f32);
        Ok(Call { x, t, batch, channels: c, per, pixels, size, pieces, e, gamma, beta, mode, silu, eps, stats })
    }
}

impl Gpu for GroupNorm {
    fn mixed(&self) -> bool {
        true
    }

    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let call = self.begin(m, inputs)?;
        let Call { x, t, stats, e, gamma, beta, .. } = call;
        let out = m.alloc(call.batch * call.pixels * call.channels, t)?;
        let arrays = args![x, stats, e, gamma, beta, out];
        m.each("norm_apply", t, call.threads(), &[arrays, &call.rest()].concat())?;
        Ok(out)
    }

    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let call = self.begin(m, inputs)?;
        let Call { x, t, stats, e, gamma, beta, batch, channels: c, .. } = call;
        let part = m.alloc(2 * batch * call.pieces * c, DType::F32)?;
        let sums = m.alloc(2 * batch * c, DType::F32)?;
        let arrays = args![x, cot, stats, e, gamma, beta, part];
        m.each("norm_pull_sums", t, call.threads(), &[arrays, &call.rest()].concat())?;
        m.each("norm_pull_channels", t, batch * c, args![part, sums, c, call.pieces])?;
        let grad = m.alloc(batch * call.pixels * c, t)?;
        let width = batch * self.embedding_width();
        let e_grad = if width > 0 { Some(m.alloc(width, DType::F32)?) } else { None };
        let arrays = args![x, cot, stats, sums, e, gamma, beta, grad, e_grad];
        m.each("norm_pull_apply", t, call.threads(), &[arrays, &call.rest()].concat())?;
        let mut grads = vec![grad];
        if let (Some(g), Some(e)) = (e_grad, inputs.get(1)) {
            grads.push(narrowed(m, g, width, e.array.dtype)?);
        }
        Ok(grads)
    }
}
