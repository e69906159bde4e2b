//! Launches of convolutions and linear maps: cuDNN where it is built in and can, otherwise gathered pixels times the weights.
use super::{Conv, Linear, Walk};
use crate::nets::kernels::gpu::{Array, Convolution, Gemm, Gpu, Input, Machine, Matrix, args, count, index};
use candle_core::Result;

/// One direction of a convolution: from `from` [B, h, w, c] to `to`, with weights [c of `to`, taps, c of `from`].
struct Direction {
    from: [usize; 4],
    to: [usize; 4],
    weight: Array,
    walks: [Walk; 2],
    /// Whether there are as many zeros after the image as before it, which libraries need.
    even: bool,
}

impl Direction {
    fn enqueue(&self, m: &mut dyn Machine, x: Array, bias: Option<Array>) -> Result<Array> {
        let Direction { from: [_, h, w, cin], to: [b, oh, ow, cout], weight, walks: [wy, wx], even } = *self;
        let (t, taps) = (x.dtype, wy.size * wx.size);
        let (pixels, width) = (b * oh * ow, taps * cin);
        let out = m.alloc(pixels * cout, t)?;
        if wy.div == 1
            && even
            && let (Ok(py), Ok(px)) = (usize::try_from(wy.pad), usize::try_from(wx.pad))
            && m.convolve(&Convolution {
                x,
                x_dims: self.from,
                weight,
                kernel: [wy.size, wx.size],
                stride: wy.mul,
                padding: [py, px],
                out,
                out_dims: self.to,
            })?
        {
            if let Some(bias) = bias {
                m.each("add_rows", t, pixels * cout, args![bias, out, cout])?;
            }
            return Ok(out);
        }
        if let Some(bias) = bias {
            m.each("fill_rows", t, pixels * cout, args![bias, out, cout])?;
        }
        let rows = (m.room() / width.max(1)).clamp(1, pixels.max(1));
        index(pixels)?;
        let gathered = m.alloc(rows * width, t)?;
        for first in (0..pixels).step_by(rows) {
            let n = rows.min(pixels - first);
            let walks = args![taps / wx.size, wx.size, wy.mul, wy.div, wy.pad, wx.pad];
            let sizes = args![x, gathered, first, h, w, cin, oh, ow];
            m.each("im2col", t, n * width, &[sizes, walks].concat())?;
            m.gemm(&Gemm {
                size: [n, cout, width],
                a: Matrix::new(gathered, width),
                b: Matrix::new(weight, width).t(),
                out: Matrix::new(out.at(first * cout), cout),
                add: bias.is_some(),
                batch: 1,
            })?;
        }
        Ok(out)
    }
}

impl Conv {
    /// Sizes of image and result.
    fn sizes(&self, dims: &[usize]) -> ([usize; 4], [usize; 4]) {
        let [h, w] = self.size(dims);
        ([dims[0], dims[1], dims[2], self.cin], [dims[0], h, w, self.cout])
    }
}

impl Gpu for Conv {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: x, dims } = inputs[0];
        let (from, to) = self.sizes(dims);
        let (taps, cin) = (self.taps(), self.cin);
        let weight = m.constant(&self.kept, "forward", x.dtype, &|| {
            let w = self.held.values()?;
            let at = |i: usize| w[(i / cin / taps * cin + i % cin) * taps + i / cin % taps];
            Ok((0..self.cout * taps * cin).map(at).collect())
        })?;
        let bias = m.constant(&self.kept, "bias", x.dtype, &|| self.held.bias())?;
        let (walks, even) = ([self.walk(0, false), self.walk(1, false)], self.padding.iter().all(|[a, b]| a == b));
        Direction { from, to, weight, walks, even }.enqueue(m, x, Some(bias))
    }

    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let (to, from) = self.sizes(inputs[0].dims);
        let (taps, cin, cout) = (self.taps(), self.cin, self.cout);
        // the same convolution with the kernel flipped and transposed
        let weight = m.constant(&self.kept, "backward", cot.dtype, &|| {
            let w = self.held.values()?;
            let at = |i: usize| w[(i % cout * cin + i / cout / taps) * taps + taps - 1 - i / cout % taps];
            Ok((0..cin * taps * cout).map(at).collect())
        })?;
        let (walks, even) = ([self.walk(0, true), self.walk(1, true)], self.padding.iter().all(|[a, b]| a == b));
        Ok(vec![Direction { from, to, weight, walks, even }.enqueue(m, cot, None)?])
    }
}

/// out [rows, n] = x [rows, k] · weight + bias.
fn product(
    m: &mut dyn Machine,
    x: Array,
    rows: usize,
    [k, n]: [usize; 2],
    b: Matrix,
    bias: Option<Array>,
) -> Result<Array> {
    let out = m.alloc(rows * n, x.dtype)?;
    if let Some(bias) = bias {
        m.each("fill_rows", x.dtype, rows * n, args![bias, out, n])?;
    }
    let add = bias.is_some();
    m.gemm(&Gemm { size: [rows, n, k], a: Matrix::new(x, k), b, out: Matrix::new(out, n), add, batch: 1 })?;
    Ok(out)
}

impl Gpu for Linear {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: x, dims } = inputs[0];
        let rows = count(&dims[..dims.len() - 1]);
        let weight = m.constant(&self.kept, "weight", x.dtype, &|| self.held.values())?;
        let bias = m.constant(&self.kept, "bias", x.dtype, &|| self.held.bias())?;
        product(m, x, rows, [self.cin, self.cout], Matrix::new(weight, self.cin).t(), Some(bias))
    }

    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let dims = inputs[0].dims;
        let rows = count(&dims[..dims.len() - 1]);
        // one array for both directions
        let weight = m.constant(&self.kept, "weight", cot.dtype, &|| self.held.values())?;
        Ok(vec![product(m, cot, rows, [self.cout, self.cin], Matrix::new(weight, self.cin), None)?])
    }
}
