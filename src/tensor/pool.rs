//! Pooling with any window, stride and padding.
use super::custom::op1;
use super::dtype::want_float;
use super::shape::Fill;
use super::{nn, shape};
use crate::{Error, Result};
use candle_core::Tensor;

type Pair = (usize, usize);

/// Every `stride`-th value from `at`, `n` of them, in each of the last two dimensions.
fn strided(x: &Tensor, at: Pair, stride: Pair, n: Pair) -> Result<Tensor> {
    let mut x = x.clone();
    for (d, (at, (stride, n))) in [(2, (at.0, (stride.0, n.0))), (3, (at.1, (stride.1, n.1)))] {
        let have = x.dims()[d] - at;
        let need = stride * n;
        let mut y = x.narrow(d, at, have.min(need))?;
        if have < need {
            y = shape::pad(&y, d as i64, 0, need - have, Fill::Constant(0.0))?;
        }
        let dims = y.dims().to_vec();
        let apart = [&dims[..d], &[n, stride], &dims[d + 1..]].concat();
        x = y.reshape(apart)?.narrow(d + 1, 0, 1)?.squeeze(d + 1)?;
    }
    Ok(x)
}

/// The transpose of [`strided`]: values put back to their places among zeros, in a plane of size `size`.
pub(super) fn spread(g: &Tensor, at: Pair, stride: Pair, size: Pair) -> Result<Tensor> {
    let mut g = g.clone();
    for (d, (at, (stride, size))) in [(2, (at.0, (stride.0, size.0))), (3, (at.1, (stride.1, size.1)))] {
        let n = g.dims()[d];
        let y = shape::pad(&g.unsqueeze(d + 1)?, d as i64 + 1, 0, stride - 1, Fill::Constant(0.0))?;
        let dims = g.dims().to_vec();
        let y = y.reshape([&dims[..d], &[n * stride], &dims[d + 1..]].concat())?;
        // the last value's zeros may reach over the edge
        let y = y.narrow(d, 0, (n * stride).min(size - at))?;
        g = shape::pad(&y, d as i64, at, size - at - y.dims()[d], Fill::Constant(0.0))?;
    }
    Ok(g)
}

fn check(what: &str, x: &Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Result<Pair> {
    want_float(what, x)?;
    let wrong = |m: String| Err(Error::shape(m, &[x.dims()]));
    let &[_, _, h, w] = x.dims() else {
        return wrong(format!("{what}: needs images [B, C, H, W], got {:?}", x.dims()));
    };
    if kernel.0 == 0 || kernel.1 == 0 || stride.0 == 0 || stride.1 == 0 {
        return wrong(format!("{what}: window and stride must be at least 1, got {kernel:?} and {stride:?}"));
    }
    if padding.0 > kernel.0 / 2 || padding.1 > kernel.1 / 2 {
        return wrong(format!("{what}: the padding {padding:?} must be at most half the window {kernel:?}"));
    }
    if h + 2 * padding.0 < kernel.0 || w + 2 * padding.1 < kernel.1 {
        return wrong(format!("{what}: the window {kernel:?} is larger than the padded image"));
    }
    Ok(((h + 2 * padding.0 - kernel.0) / stride.0 + 1, (w + 2 * padding.1 - kernel.1) / stride.1 + 1))
}

fn offsets(kernel: Pair) -> impl Iterator<Item = Pair> {
    (0..kernel.0).flat_map(move |i| (0..kernel.1).map(move |j| (i, j)))
}

/// The mean over windows of x [B, C, H, W]; zeros of the padding count, as by PyTorch's default.
pub fn avg_pool2d(x: &Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Result<Tensor> {
    check("avg_pool2d", x, kernel, stride, padding)?;
    let whole = padding == (0, 0) && x.dims()[2].is_multiple_of(kernel.0) && x.dims()[3].is_multiple_of(kernel.1);
    if kernel == stride && whole && super::blocks::takes(x) {
        return super::blocks::means(x, kernel.0, kernel.1);
    }
    let x = &nn::pad2d(x, [padding.1, padding.1, padding.0, padding.0], Fill::Constant(0.0))?;
    let out = x.detach().contiguous()?.avg_pool2d_with_stride(kernel, stride)?;
    op1("avg_pool2d", x, out, move |x, _, g| {
        let size = (x.dims()[2], x.dims()[3]);
        let g = g.affine(1.0 / (kernel.0 * kernel.1) as f64, 0.0)?;
        let mut gx = x.zeros_like()?;
        for at in offsets(kernel) {
            gx = (gx + spread(&g, at, stride, size)?)?;
        }
        Ok(gx)
    })
}

/// The largest value in windows of x [B, C, H, W]; the gradient is shared equally among ties.
pub fn max_pool2d(x: &Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Result<Tensor> {
    let n = check("max_pool2d", x, kernel, stride, padding)?;
    let x = &nn::pad2d(x, [padding.1, padding.1, padding.0, padding.0], Fill::Constant(f64::NEG_INFINITY))?;
    let out = x.detach().contiguous()?.max_pool2d_with_stride(kernel, stride)?;
    op1("max_pool2d", x, out, move |x, out, g| {
        let size = (x.dims()[2], x.dims()[3]);
        let hit = |at: Pair| -> Result<Tensor> { Ok(strided(x, at, stride, n)?.eq(out)?.to_dtype(g.dtype())?) };
        let mut count = out.zeros_like()?;
        for at in offsets(kernel) {
            count = (count + hit(at)?)?;
        }
        let share = (g / count)?;
        let mut gx = x.zeros_like()?;
        for at in offsets(kernel) {
            gx = (gx + spread(&(&share * hit(at)?)?, at, stride, size)?)?;
        }
        Ok(gx)
    })
}
