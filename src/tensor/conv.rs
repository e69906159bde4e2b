//! Convolutions, differentiable in image, weight and bias. Input gradients are convolutions too (candle's transposed
//! convolution is slow, and its backward mixes up height and width).
use super::columns;
use super::custom::op;
use super::dtype::{floating, promote};
use super::nn::{add_bias, pad2d};
use super::pool::spread;
use super::shape::{Fill, flip};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// How a convolution moves: the same numbers in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Distance between windows, ≥ 1.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Distance between a window's taps, ≥ 1.
    pub dilation: usize,
    /// Channels in separate groups.
    pub groups: usize,
}

impl Default for Geometry {
    fn default() -> Self {
        Geometry { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// x [B, Cin, H, W] convolved with weight [Cout, Cin/groups, kh, kw], plus bias [Cout].
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: Geometry) -> Result<Tensor> {
    let (x, w) = prepare("conv2d", x, weight, g)?;
    let (cin, cout) = (x.dims()[1], w.dims()[0]);
    let reach = |k: usize| g.dilation * (k - 1) + 1;
    let fits = w.dims()[1] * g.groups == cin
        && cout.is_multiple_of(g.groups)
        && x.dims()[2] + 2 * g.padding >= reach(w.dims()[2])
        && x.dims()[3] + 2 * g.padding >= reach(w.dims()[3]);
    if !fits {
        return Err(mismatch("conv2d", &x, &w, g, "[Cout, Cin/groups, kh, kw]"));
    }
    let out = forward(&x.detach(), &w.detach(), g)?;
    let out = op("conv2d", &[&x, &w], out, move |c| {
        let (x, w) = (&c.args[0], &c.args[1]);
        let gx = if c.want[0] { Some(input_grad(c.g, w, g, (x.dims()[2], x.dims()[3]))?) } else { None };
        let gw = if c.want[1] { Some(weight_grad(x, c.g, w.dims(), g)?) } else { None };
        Ok(vec![gx, gw])
    })?;
    add_bias(out, bias, "conv2d", cout, &[1, 1])
}

/// The transposed convolution: x [B, Cin, H, W] with weight [Cin, Cout/groups, kh, kw] and bias [Cout]; the output has
/// size (H − 1)·stride − 2·padding + dilation·(kh − 1) + 1 + output_padding.
pub fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    g: Geometry,
    output_padding: usize,
) -> Result<Tensor> {
    let (x, w) = prepare("conv_transpose2d", x, weight, g)?;
    let cout = w.dims()[1] * g.groups;
    let size = |n: usize, k: usize| {
        ((n - 1) * g.stride + g.dilation * (k - 1) + 1 + output_padding).checked_sub(2 * g.padding).filter(|s| *s > 0)
    };
    let sizes = (size(x.dims()[2], w.dims()[2]), size(x.dims()[3], w.dims()[3]));
    let ((Some(h), Some(wd)), true) = (sizes, w.dims()[0] == x.dims()[1] && w.dims()[0].is_multiple_of(g.groups))
    else {
        return Err(mismatch("conv_transpose2d", &x, &w, g, "[Cin, Cout/groups, kh, kw]"));
    };
    if output_padding >= g.stride.max(g.dilation) {
        let m = format!("conv_transpose2d: the output padding {output_padding} must be below stride or dilation");
        return Err(Error::value(m));
    }
    super::dtype::check_size("conv_transpose2d", &[x.dims()[0], cout, h, wd], x.dtype())?;
    let out = input_grad(&x.detach(), &w.detach(), g, (h, wd))?;
    let out = op("conv_transpose2d", &[&x, &w], out, move |c| {
        let (x, w) = (&c.args[0], &c.args[1]);
        // with stride 1, output padding makes room for one window more than there was
        let fit = |y: Tensor| -> Result<Tensor> { Ok(y.narrow(2, 0, x.dims()[2])?.narrow(3, 0, x.dims()[3])?) };
        let gx = if c.want[0] { Some(fit(forward(c.g, w, g)?)?) } else { None };
        let gw = if c.want[1] { Some(weight_grad(c.g, x, w.dims(), g)?) } else { None };
        Ok(vec![gx, gw])
    })?;
    add_bias(out, bias, "conv_transpose2d", cout, &[1, 1])
}

fn prepare(what: &str, x: &Tensor, w: &Tensor, g: Geometry) -> Result<(Tensor, Tensor)> {
    if g.stride == 0 || g.dilation == 0 || g.groups == 0 {
        return Err(Error::value(format!("{what}: stride, dilation and groups must be at least 1")));
    }
    if g.stride.max(g.dilation).max(g.padding) > 1 << 20 {
        return Err(Error::value(format!("{what}: stride, dilation and padding must be at most 2^20")));
    }
    if x.rank() != 4 || w.rank() != 4 || x.elem_count() == 0 || w.elem_count() == 0 {
        let m =
            format!("{what}: needs x [B, C, H, W] and a weight of 4 dimensions, got {:?}, {:?}", x.dims(), w.dims());
        return Err(Error::shape(m, &[x.dims(), w.dims()]));
    }
    let d = floating(promote(x.dtype(), w.dtype()));
    Ok((x.to_dtype(d)?, w.to_dtype(d)?))
}

fn mismatch(what: &str, x: &Tensor, w: &Tensor, g: Geometry, want: &str) -> Error {
    let (xd, wd) = (x.dims(), w.dims());
    let m = format!("{what}: x {xd:?} does not fit the weight {wd:?} ({want}) with {g:?}");
    Error::shape(m, &[xd, wd])
}

fn forward(x: &Tensor, w: &Tensor, g: Geometry) -> Result<Tensor> {
    if columns::takes(x) {
        return columns::convolve(x, w, g);
    }
    if half(x) {
        // candle's CPU product knows no bf16
        return Ok(columns::convolve(&x.to_dtype(DType::F32)?, &w.to_dtype(DType::F32)?, g)?.to_dtype(x.dtype())?);
    }
    gathered(x, w, g)
}

/// On a GPU: each tap's pixels are gathered, and the weight's matrix multiplied with them. candle's own convolution there is cuDNN's in
/// its default arithmetic, which is TF32 for f32, and sums in f16 for f16.
fn gathered(x: &Tensor, w: &Tensor, g: Geometry) -> Result<Tensor> {
    let (cout, per, kh, kw) = w.dims4()?;
    let (b, _, h, width) = x.dims4()?;
    let size = |n: usize, k: usize| (n + 2 * g.padding - g.dilation * (k - 1) - 1) / g.stride + 1;
    let (oh, ow) = (size(h, kh), size(width, kw));
    let w = w.contiguous()?.reshape((1, g.groups, cout / g.groups, per * kh * kw))?;
    Ok(w.broadcast_matmul(&seen(x, [kh, kw], [oh, ow], g)?)?.reshape((b, cout, oh, ow))?)
}

/// What each output pixel's window sees of an image [B, C, H, W]: [B, groups, C/groups·kh·kw, oh·ow].
fn seen(x: &Tensor, [kh, kw]: [usize; 2], [oh, ow]: [usize; 2], g: Geometry) -> Result<Tensor> {
    let padded = pad2d(x, [g.padding; 4], Fill::Constant(0.0))?;
    let (b, c, _, _) = padded.dims4()?;
    let taps = |n: usize, k: usize| {
        let at = (0..n).map(|i| (i * g.stride + k * g.dilation) as u32).collect::<Vec<_>>();
        Tensor::from_vec(at, n, x.device())
    };
    let mut all = Vec::with_capacity(kh * kw);
    for ky in 0..kh {
        let rows = padded.index_select(&taps(oh, ky)?, 2)?;
        for kx in 0..kw {
            all.push(rows.index_select(&taps(ow, kx)?, 3)?);
        }
    }
    Ok(Tensor::stack(&all, 2)?.reshape((b, g.groups, c / g.groups * kh * kw, oh * ow))?)
}

/// Whether `t` is of half precision on the CPU: computed in f32.
fn half(t: &Tensor) -> bool {
    t.device().is_cpu() && matches!(t.dtype(), DType::F16 | DType::BF16)
}

/// The transpose of [`forward`] with respect to x of size `size`: the cotangent, spread out by the stride, convolved with
/// the flipped weight whose in- and output channels change places within each group.
fn input_grad(gy: &Tensor, w: &Tensor, g: Geometry, size: (usize, usize)) -> Result<Tensor> {
    let (cout, per, kh, kw) = w.dims4()?;
    let inside = cout / g.groups;
    let swapped = w.reshape((g.groups, inside, per, kh, kw))?.transpose(1, 2)?;
    let swapped = flip(&swapped.reshape((g.groups * per, inside, kh, kw))?, &[2, 3])?;
    let (b, _, oh, ow) = gy.dims4()?;
    let reach = g.dilation * (kh - 1);
    let plain = |o: usize, n: usize| o + reach == n + 2 * g.padding;
    if g.stride == 1 && kh == kw && g.padding <= reach && plain(oh, size.0) && plain(ow, size.1) {
        return forward(gy, &swapped, Geometry { padding: reach - g.padding, ..g });
    }
    if g.stride > 1 && columns::takes(gy) {
        return columns::transposed(gy, w, g, size);
    }
    // one tap to the left of every window start must be there: reach − 1 zeros, then cut to the image behind the padding
    let plan = |o: usize, k: usize, n: usize| {
        let before = (g.dilation * (k - 1)) as i64 - g.padding as i64;
        let spread = (o - 1) * g.stride + 1;
        let after = (n + g.dilation * (k - 1)) as i64 - spread as i64 - before;
        (spread, before, after)
    };
    let ((sh, top, bottom), (sw, left, right)) = (plan(oh, kh, size.0), plan(ow, kw, size.1));
    let apart = spread(gy, (0, 0), (g.stride, g.stride), (sh, sw))?;
    let cut = |v: i64| (-v).max(0) as usize;
    let add = |v: i64| v.max(0) as usize;
    let (rows, cols) = (sh - (cut(top) + cut(bottom)).min(sh), sw - (cut(left) + cut(right)).min(sw));
    if rows == 0 || cols == 0 {
        return super::create::zeros(&[b, g.groups * per, size.0, size.1], gy.dtype(), gy.device());
    }
    let inner = apart.narrow(2, cut(top), rows)?.narrow(3, cut(left), cols)?;
    let padded = pad2d(&inner, [add(left), add(right), add(top), add(bottom)], Fill::Constant(0.0))?;
    forward(&padded, &swapped, Geometry { stride: 1, padding: 0, ..g })
}

/// The gradient with respect to a weight of shape `shape`: x and the cotangent convolved over the batch.
fn weight_grad(x: &Tensor, gy: &Tensor, shape: &[usize], g: Geometry) -> Result<Tensor> {
    if columns::takes(x) {
        return columns::weight_gradient(x, gy, shape, g);
    }
    if half(x) {
        let grad = columns::weight_gradient(&x.to_dtype(DType::F32)?, &gy.to_dtype(DType::F32)?, shape, g)?;
        return Ok(grad.to_dtype(x.dtype())?);
    }
    let (b, _, oh, ow) = gy.dims4()?;
    let (kernel, inside) = ([shape[2], shape[3]], shape[0] / g.groups);
    let gy = gy.contiguous()?.reshape((b, g.groups, inside, oh * ow))?;
    let grad = gy.matmul(&seen(x, kernel, [oh, ow], g)?.transpose(2, 3)?)?.sum(0)?;
    Ok(grad.reshape(shape)?)
}
