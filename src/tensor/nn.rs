//! Functional layers: linear, normalization, softmax, attention, resizing. Differentiable in every argument.
use super::arith::{self, Op};
use super::custom::op1;
use super::dtype::{dim, to_float, want_float};
use super::linalg::matmul;
use super::{create, index, pool, reduce, shape};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// x Wᵀ + b: x [.., in], weight [out, in], bias [out].
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if weight.rank() != 2 || x.dims().last() != Some(&weight.dims()[1]) {
        let m = format!("linear: x {:?} does not fit a weight [out, in] of shape {:?}", x.dims(), weight.dims());
        return Err(Error::shape(m, &[x.dims(), weight.dims()]));
    }
    add_bias(matmul(x, &weight.t()?)?, bias, "linear", weight.dims()[0], &[])
}

/// Adds a bias [n], followed by `tail` dimensions of size 1.
pub(super) fn add_bias(y: Tensor, bias: Option<&Tensor>, what: &str, n: usize, tail: &[usize]) -> Result<Tensor> {
    let Some(b) = bias else { return Ok(y) };
    if b.dims() != [n] {
        return Err(Error::shape(format!("{what}: the bias must have shape [{n}], got {:?}", b.dims()), &[b.dims()]));
    }
    arith::binary(Op::Add, &y, &b.reshape([&[n], tail].concat())?)
}

/// Rows of x [n, m] brought to mean 0 and variance 1 (with `eps` added to the variance).
fn standardize(x: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    // half precision loses the variance
    let wide = if matches!(dtype, DType::F16 | DType::BF16) { x.to_dtype(DType::F32)? } else { x.clone() };
    let parts = move |x: &Tensor| -> Result<(Tensor, Tensor)> {
        let centred = x.broadcast_sub(&x.mean_keepdim(1)?)?;
        let scale = (centred.sqr()?.mean_keepdim(1)? + eps)?.sqrt()?.recip()?;
        Ok((centred.broadcast_mul(&scale)?, scale))
    };
    let out = parts(&wide.detach())?.0;
    let y = op1("standardize", &wide, out, move |x, y, g| {
        let scale = parts(x)?.1;
        let along = y.broadcast_mul(&(g * y)?.mean_keepdim(1)?)?;
        Ok((g.broadcast_sub(&g.mean_keepdim(1)?)? - along)?.broadcast_mul(&scale)?)
    })?;
    Ok(y.to_dtype(dtype)?)
}

/// Group normalization of x [B, C, …] in `groups` groups of channels, with optional weight and bias [C].
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    want_float("group_norm", x)?;
    let c = x.dims().get(1).copied().unwrap_or(0);
    if x.rank() < 2 || groups == 0 || !c.is_multiple_of(groups) || x.elem_count() == 0 {
        let m = format!("group_norm: x must be [B, C, …] with C divisible by {groups} groups, got {:?}", x.dims());
        return Err(Error::shape(m, &[x.dims()]));
    }
    let rows = x.dims()[0] * groups;
    let y = standardize(&x.reshape((rows, x.elem_count() / rows))?, eps)?.reshape(x.shape())?;
    scale_channels(y, weight, bias, "group_norm")
}

fn scale_channels(y: Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, what: &str) -> Result<Tensor> {
    let (c, tail) = (y.dims()[1], vec![1; y.rank() - 2]);
    let y = match weight {
        None => y,
        Some(w) if w.dims() == [c] => arith::binary(Op::Mul, &y, &w.reshape([&[c], tail.as_slice()].concat())?)?,
        Some(w) => {
            let m = format!("{what}: the weight must have shape [{c}], got {:?}", w.dims());
            return Err(Error::shape(m, &[w.dims()]));
        }
    };
    add_bias(y, bias, what, c, &tail)
}

/// Layer normalization over the last dimensions, as many as `weight` (or `bias`) has, else the last one.
pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    want_float("layer_norm", x)?;
    let k = weight.or(bias).map_or(1, |w| w.rank());
    let over = x.rank().checked_sub(k).map(|s| x.dims()[s..].to_vec());
    let fits = |w: Option<&Tensor>| w.is_none_or(|w| Some(w.dims()) == over.as_deref());
    let m: usize = over.iter().flatten().product();
    if over.is_none() || k == 0 || m == 0 || !fits(weight) || !fits(bias) {
        let shapes: Vec<&[usize]> = [Some(x), weight, bias].into_iter().flatten().map(|t| t.dims()).collect();
        let m = format!("layer_norm: weight and bias must have the shape of x's last dimensions, got {shapes:?}");
        return Err(Error::shape(m, &shapes));
    }
    let mut y = standardize(&x.reshape((x.elem_count() / m, m))?, eps)?.reshape(x.shape())?;
    if let Some(w) = weight {
        y = arith::binary(Op::Mul, &y, w)?;
    }
    if let Some(b) = bias {
        y = arith::binary(Op::Add, &y, b)?;
    }
    Ok(y)
}

/// e^x / Σ e^x along `d`.
pub fn softmax(x: &Tensor, d: i64) -> Result<Tensor> {
    let x = &to_float(x)?;
    let d = dim("softmax", x.dims(), d)?;
    let out = log_softmax_of(&x.detach(), d)?.exp()?;
    op1("softmax", x, out, move |_, y, g| {
        let gy = (g * y)?;
        Ok((&gy - y.broadcast_mul(&gy.sum_keepdim(d)?)?)?)
    })
}

/// ln softmax(x) along `d`, without underflow.
pub fn log_softmax(x: &Tensor, d: i64) -> Result<Tensor> {
    let x = &to_float(x)?;
    let d = dim("log_softmax", x.dims(), d)?;
    let out = log_softmax_of(&x.detach(), d)?;
    op1("log_softmax", x, out, move |_, y, g| Ok((g - y.exp()?.broadcast_mul(&g.sum_keepdim(d)?)?)?))
}
fn log_softmax_of(x: &Tensor, d: usize) -> Result<Tensor> {
    Ok(x.broadcast_sub(&reduce::logsumexp(x, Some(&[d as i64]), true)?)?)
}

/// Scaled dot-product attention: softmax(q kᵀ · scale + mask) v, for q [.., n, d], k [.., m, d], v [.., m, e].
/// `mask` [.., n, m]: u8 (0 hides) or floating point (added); `causal` hides what comes later; `scale` is 1/√d by default.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
    scale: Option<f64>,
) -> Result<Tensor> {
    let fits = q.rank() >= 2
        && k.rank() >= 2
        && v.rank() >= 2
        && q.dims().last() == k.dims().last()
        && k.dims()[k.rank() - 2] == v.dims()[v.rank() - 2];
    if !fits {
        let m = format!(
            "attention: needs q [.., n, d], k [.., m, d], v [.., m, e], got {:?}, {:?}, {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
        return Err(Error::shape(m, &[q.dims(), k.dims(), v.dims()]));
    }
    let (n, d, m) = (q.dims()[q.rank() - 2], q.dims()[q.rank() - 1], k.dims()[k.rank() - 2]);
    let scale = scale.unwrap_or(1.0 / (d.max(1) as f64).sqrt());
    let mut w = matmul(&to_float(q)?.affine(scale, 0.0)?, &k.t()?)?;
    if let Some(mask) = mask {
        w = match mask.dtype().is_int() {
            true => arith::where_(mask, &w, f64::NEG_INFINITY)?,
            false => arith::binary(Op::Add, &w, mask)?,
        };
    }
    if causal {
        let i = Tensor::arange(0i64, n as i64, w.device())?.reshape((n, 1))?;
        let j = Tensor::arange(0i64, m as i64, w.device())?.reshape((1, m))?;
        w = arith::where_(&i.broadcast_ge(&j)?, &w, f64::NEG_INFINITY)?;
    }
    matmul(&softmax(&w, -1)?, v)
}

fn want_image(what: &str, x: &Tensor) -> Result<(usize, usize)> {
    match x.dims() {
        &[_, _, h, w] if h > 0 && w > 0 => Ok((h, w)),
        d => Err(Error::shape(format!("{what}: needs images [B, C, H, W], got {d:?}"), &[d])),
    }
}

/// Images [B, C, H, W] to size `h` × `w` by repeating pixels (PyTorch's `nearest`).
pub fn upsample_nearest(x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    let (ih, iw) = want_image("upsample", x)?;
    check_target(x, h, w)?;
    if h.is_multiple_of(ih) && w.is_multiple_of(iw) {
        if super::blocks::takes(x) {
            return super::blocks::repeated(x, h / ih, w / iw);
        }
        let (b, c) = (x.dims()[0], x.dims()[1]);
        let y = x.reshape(vec![b, c, ih, 1, iw, 1])?.broadcast_as(vec![b, c, ih, h / ih, iw, w / iw])?;
        return Ok(y.reshape((b, c, h, w))?);
    }
    let rows = |n: usize, m: usize| -> Vec<i64> { (0..m).map(|i| (i * n / m) as i64).collect() };
    index::take(&index::take(x, 2, &rows(ih, h), &[h])?, 3, &rows(iw, w), &[w])
}

fn check_target(x: &Tensor, h: usize, w: usize) -> Result<()> {
    if h == 0 || w == 0 {
        return Err(Error::value(format!("resizing: the size must be at least 1×1, got {h}×{w}")));
    }
    super::dtype::check_size("resizing", &[x.dims()[0], x.dims()[1], h, w], x.dtype()).map(|_| ())
}

/// Images [B, C, H, W] to size `h` × `w` by linear interpolation, with PyTorch's conventions.
pub fn upsample_bilinear(x: &Tensor, h: usize, w: usize, align_corners: bool) -> Result<Tensor> {
    want_float("upsample", x)?;
    let (ih, iw) = want_image("upsample", x)?;
    check_target(x, h, w)?;
    let weights = |n: usize, m: usize| -> Result<Tensor> {
        super::dtype::check_size("resizing", &[n, m], DType::F64)?;
        let mut v = vec![0.0; n * m];
        for i in 0..m {
            let at = if align_corners {
                if m > 1 { i as f64 * (n - 1) as f64 / (m - 1) as f64 } else { 0.0 }
            } else {
                ((i as f64 + 0.5) * n as f64 / m as f64 - 0.5).max(0.0)
            };
            let low = (at.floor() as usize).min(n - 1);
            let high = (low + 1).min(n - 1);
            let part = at - low as f64;
            v[low * m + i] += 1.0 - part;
            v[high * m + i] += part;
        }
        create::from_f64(v, &[n, m], x.dtype(), x.device())
    };
    let wide = matmul(x, &weights(iw, w)?)?;
    Ok(matmul(&wide.t()?, &weights(ih, h)?)?.t()?)
}

/// Images [B, C, H, W] to a `factor` times smaller size by averaging blocks; H and W must be divisible.
pub fn downsample(x: &Tensor, factor: usize) -> Result<Tensor> {
    let (h, w) = want_image("downsample", x)?;
    if factor == 0 || !h.is_multiple_of(factor) || !w.is_multiple_of(factor) {
        let m = format!("downsample: images of size {h}×{w} are not divisible by {factor}");
        return Err(Error::shape(m, &[x.dims()]));
    }
    pool::avg_pool2d(x, (factor, factor), (factor, factor), (0, 0))
}

/// x padded with `fill` on all four sides of its last two dimensions: (left, right, top, bottom).
pub fn pad2d(x: &Tensor, sides: [usize; 4], fill: shape::Fill) -> Result<Tensor> {
    if x.rank() < 2 {
        return Err(Error::shape(format!("pad: needs at least 2 dimensions, got {:?}", x.dims()), &[x.dims()]));
    }
    let wide = shape::pad(x, -1, sides[0], sides[1], fill)?;
    shape::pad(&wide, -2, sides[2], sides[3], fill)
}
