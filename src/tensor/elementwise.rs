//! Element-wise functions. Integers become f32 first; kinks take the gradient that PyTorch gives them (0 for `abs` and
//! `relu` at 0).
use super::custom::op1;
use super::dtype::to_float;
use super::{arith, create};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// A function of one tensor.
pub type Unary = fn(&Tensor) -> Result<Tensor>;

/// e^x.
pub fn exp(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.exp()?)
}
/// ln x; −∞ at 0, NaN below.
pub fn log(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.log()?)
}
/// log₂ x.
pub fn log2(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.log()?.affine(std::f64::consts::LOG2_E, 0.0)?)
}
/// log₁₀ x.
pub fn log10(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.log()?.affine(std::f64::consts::LOG10_E, 0.0)?)
}
/// √x; NaN below 0, gradient ∞ at 0.
pub fn sqrt(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.sqrt()?)
}
/// 1/√x.
pub fn rsqrt(x: &Tensor) -> Result<Tensor> {
    recip(&sqrt(x)?)
}
/// 1/x.
pub fn recip(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.recip()?)
}
/// x².
pub fn square(x: &Tensor) -> Result<Tensor> {
    match x.dtype().is_float() {
        true => Ok(x.sqr()?),
        false => arith::binary(arith::Op::Mul, x, x),
    }
}
/// sin x.
pub fn sin(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.sin()?)
}
/// cos x.
pub fn cos(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.cos()?)
}
/// tan x.
pub fn tan(x: &Tensor) -> Result<Tensor> {
    let x = to_float(x)?;
    Ok(x.sin()?.div(&x.cos()?)?)
}
/// tanh x.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    Ok(to_float(x)?.tanh()?)
}
/// The error function.
pub fn erf(x: &Tensor) -> Result<Tensor> {
    let x = to_float(x)?;
    let out = x.detach().erf()?;
    op1("erf", &x, out, |x, _, g| Ok((g * x.sqr()?.neg()?.exp()?)?.affine(std::f64::consts::FRAC_2_SQRT_PI, 0.0)?))
}

/// A function that candle lacks, computed on the host in f64.
fn host(name: &'static str, x: &Tensor, f: fn(f64) -> f64, df: fn(f64) -> f64) -> Result<Tensor> {
    fn map(x: &Tensor, f: fn(f64) -> f64) -> Result<Tensor> {
        let mut values = create::to_f64(x)?;
        for part in values.chunks_mut(1 << 18) {
            crate::host::check_cancelled()?;
            part.iter_mut().for_each(|v| *v = f(*v));
        }
        create::from_f64(values, x.dims(), x.dtype(), x.device())
    }
    let x = to_float(x)?;
    op1(name, &x, map(&x, f)?, move |x, _, g| Ok((g * map(x, df)?)?))
}
/// arcsin x.
pub fn asin(x: &Tensor) -> Result<Tensor> {
    host("asin", x, f64::asin, |x| 1.0 / (1.0 - x * x).sqrt())
}
/// arccos x.
pub fn acos(x: &Tensor) -> Result<Tensor> {
    host("acos", x, f64::acos, |x| -1.0 / (1.0 - x * x).sqrt())
}
/// arctan x.
pub fn atan(x: &Tensor) -> Result<Tensor> {
    host("atan", x, f64::atan, |x| 1.0 / (1.0 + x * x))
}
/// sinh x.
pub fn sinh(x: &Tensor) -> Result<Tensor> {
    host("sinh", x, f64::sinh, f64::cosh)
}
/// cosh x.
pub fn cosh(x: &Tensor) -> Result<Tensor> {
    host("cosh", x, f64::cosh, f64::sinh)
}
/// e^x − 1, exact near 0.
pub fn expm1(x: &Tensor) -> Result<Tensor> {
    host("expm1", x, f64::exp_m1, f64::exp)
}
/// ln(1 + x), exact near 0.
pub fn log1p(x: &Tensor) -> Result<Tensor> {
    host("log1p", x, f64::ln_1p, |x| 1.0 / (1.0 + x))
}

/// |x|; integers in i64.
pub fn abs(x: &Tensor) -> Result<Tensor> {
    if x.dtype().is_int() {
        let x = x.to_dtype(DType::I64)?;
        return arith::binary(arith::Op::Maximum, &x, &arith::neg(&x)?);
    }
    op1("abs", x, x.detach().abs()?, |x, _, g| Ok((g * sign_of(x)?)?))
}
/// −1, 0 or 1 (NaN stays); no gradient.
pub fn sign(x: &Tensor) -> Result<Tensor> {
    sign_of(&x.detach())
}
fn sign_of(x: &Tensor) -> Result<Tensor> {
    let zero = x.zeros_like()?;
    let d = if x.dtype().is_int() { DType::I64 } else { x.dtype() };
    let s = (x.gt(&zero)?.to_dtype(d)? - x.lt(&zero)?.to_dtype(d)?)?;
    // x·0 is 0, or NaN where x is
    if d.is_float() { Ok(x.ne(x)?.where_cond(x, &s)?) } else { Ok(s) }
}
/// The largest integer ≤ x, as a float; no gradient. Integers stay.
pub fn floor(x: &Tensor) -> Result<Tensor> {
    step(x, Tensor::floor)
}
/// The smallest integer ≥ x; no gradient.
pub fn ceil(x: &Tensor) -> Result<Tensor> {
    step(x, Tensor::ceil)
}
/// The nearest integer, halves to the even one as in numpy; no gradient.
pub fn round(x: &Tensor) -> Result<Tensor> {
    step(x, |x| {
        let half = (x - x.floor()?)?.eq(&(x.zeros_like()? + 0.5)?)?;
        half.where_cond(&x.affine(0.5, 0.0)?.round()?.affine(2.0, 0.0)?, &x.round()?)
    })
}
/// x cut towards zero; no gradient.
pub fn trunc(x: &Tensor) -> Result<Tensor> {
    step(x, |x| x.ge(&x.zeros_like()?)?.where_cond(&x.floor()?, &x.ceil()?))
}
fn step(x: &Tensor, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Tensor> {
    // candle's where needs contiguous arguments on some devices
    if x.dtype().is_int() { Ok(x.clone()) } else { Ok(f(&x.detach().contiguous()?)?) }
}

/// 1 / (1 + e^−x).
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    let x = to_float(x)?;
    op1("sigmoid", &x, sigmoid_of(&x.detach())?, |_, y, g| Ok(((g * y)? * y.affine(-1.0, 1.0)?)?))
}
fn sigmoid_of(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}
/// max(x, 0); gradient 0 at 0.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if x.dtype().is_int() {
        return arith::binary(arith::Op::Maximum, x, 0i64);
    }
    op1("relu", x, x.detach().relu()?, |x, _, g| Ok((g * x.gt(&x.zeros_like()?)?.to_dtype(x.dtype())?)?))
}
/// x · sigmoid(x), also called swish.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    let x = to_float(x)?;
    op1("silu", &x, x.detach().silu()?, |x, y, g| {
        let s = sigmoid_of(x)?;
        let d = (&s + (y * s.affine(-1.0, 1.0)?)?)?;
        Ok((g * d)?)
    })
}
/// x Φ(x), with the exact normal distribution function (PyTorch's default).
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    let x = to_float(x)?;
    let cdf =
        |x: &Tensor| -> Result<Tensor> { Ok(x.affine(std::f64::consts::FRAC_1_SQRT_2, 0.0)?.erf()?.affine(0.5, 0.5)?) };
    let d = x.detach();
    let out = d.mul(&cdf(&d)?)?;
    op1("gelu", &x, out, move |x, _, g| {
        let pdf = x.sqr()?.affine(-0.5, 0.0)?.exp()?.affine(1.0 / (2.0 * std::f64::consts::PI).sqrt(), 0.0)?;
        Ok((g * (cdf(x)? + (x * pdf)?)?)?)
    })
}
/// GELU's tanh approximation: x/2 (1 + tanh(√(2/π)(x + 0.044715 x³))).
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    let x = to_float(x)?;
    let c = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let inner = (x.sqr()?.affine(0.044715 * c, c)? * &x)?;
    Ok((x.affine(0.5, 0.0)? * inner.tanh()?.affine(1.0, 1.0)?)?)
}
/// ln(1 + e^x), without overflow.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    let x = to_float(x)?;
    let d = x.detach();
    let tail = log1p(&d.abs()?.neg()?.exp()?)?;
    op1("softplus", &x, (d.relu()? + tail)?, |x, _, g| Ok((g * sigmoid_of(x)?)?))
}

/// x^e for a number e: 0^0 = 1; the gradient e·x^(e−1) is 0 for e = 0, also at 0.
pub fn powf(x: &Tensor, e: f64) -> Result<Tensor> {
    let x = to_float(x)?;
    let raise = |x: &Tensor, e: f64| -> Result<Tensor> {
        Ok(match e {
            0.0 => x.ones_like()?,
            1.0 => x.clone(),
            2.0 => x.sqr()?,
            -1.0 => x.recip()?,
            0.5 => x.sqrt()?,
            _ => x.powf(e)?,
        })
    };
    op1("pow", &x, raise(&x.detach(), e)?, move |x, _, g| match e {
        0.0 => Ok(g.zeros_like()?),
        _ => Ok((g * raise(x, e - 1.0)?.affine(e, 0.0)?)?),
    })
}

/// x limited to [low, high] (either may be absent); the gradient is 0 outside, 1 inside and on the bounds.
pub fn clamp(x: &Tensor, low: Option<f64>, high: Option<f64>) -> Result<Tensor> {
    if let (Some(l), Some(h)) = (low, high)
        && l > h
    {
        return Err(Error::value(format!("clamp: the lower bound {l} is above the upper bound {h}")));
    }
    let x = if x.dtype().is_int() && [low, high].iter().flatten().all(|b| b.fract() == 0.0) {
        x.to_dtype(DType::I64)?
    } else {
        to_float(x)?
    };
    let bound = |v: f64| -> Result<Tensor> {
        Ok(create::full(&[], v, x.dtype(), x.device())?.broadcast_as(x.dims())?.contiguous()?)
    };
    let d = x.detach().contiguous()?;
    let (mut out, mut inside) = (d.clone(), d.eq(&d)?);
    if let Some(l) = low {
        let l = bound(l)?;
        out = d.lt(&l)?.where_cond(&l, &out)?;
        inside = inside.mul(&d.ge(&l)?)?;
    }
    if let Some(h) = high {
        let h = bound(h)?;
        out = d.gt(&h)?.where_cond(&h, &out)?;
        inside = inside.mul(&d.le(&h)?)?;
    }
    op1("clamp", &x, out, move |_, _, g| Ok((g * inside.to_dtype(g.dtype())?)?))
}

/// 1 where x is NaN.
pub fn isnan(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach().ne(&x.detach())?)
}
/// 1 where x is +∞ or −∞.
pub fn isinf(x: &Tensor) -> Result<Tensor> {
    let x = x.detach();
    if x.dtype().is_int() {
        return Ok(x.zeros_like()?.to_dtype(DType::U8)?);
    }
    let inf = create::full(x.dims(), f64::INFINITY, x.dtype(), x.device())?;
    Ok(x.abs()?.eq(&inf)?)
}
/// 1 where x is neither NaN nor infinite.
pub fn isfinite(x: &Tensor) -> Result<Tensor> {
    arith::not(&arith::or(&isnan(x)?, &isinf(x)?)?)
}
