//! Reductions over all or some dimensions, and running sums. f16 and bf16 are summed in f32; integers in i64.
use super::custom::op1;
use super::dtype::{dim, dims, floating, to_float};
use super::{arith, create};
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};

/// A reduction: the tensor, the dimensions (`None`: all), and whether they stay with size 1.
pub type Reduction = fn(&Tensor, Option<&[i64]>, bool) -> Result<Tensor>;

/// The shape after reducing `over`.
fn after(x: &Tensor, over: &[usize], keepdim: bool) -> Vec<usize> {
    let all = x.dims().iter().enumerate();
    all.filter(|(i, _)| keepdim || !over.contains(i)).map(|(i, d)| if over.contains(&i) { 1 } else { *d }).collect()
}

fn wide(x: &Tensor) -> Result<Tensor> {
    Ok(match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32)?,
        d if d.is_int() => x.to_dtype(DType::I64)?,
        _ => x.clone(),
    })
}
/// `wide` left again: floats return to x's own dtype, integers stay in i64.
fn narrow(y: Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(if x.dtype().is_float() { y.to_dtype(x.dtype())? } else { y })
}

fn sum_over(x: &Tensor, over: &[usize]) -> Result<Tensor> {
    if over.is_empty() {
        return Ok(x.clone());
    }
    if x.elem_count() == 0 {
        return create::zeros(&after(x, over, true), x.dtype(), x.device());
    }
    Ok(x.sum_keepdim(over)?)
}

/// Σ x.
pub fn sum(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    let over = dims("sum", x.dims(), over)?;
    narrow(sum_over(&wide(x)?, &over)?.reshape(after(x, &over, keepdim))?, x)
}

/// The mean, floating point (NaN of nothing).
pub fn mean(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    let over = dims("mean", x.dims(), over)?;
    let n: usize = over.iter().map(|d| x.dims()[*d]).product();
    // integers are summed exactly before they are rounded
    let total = sum_over(&wide(x)?, &over)?;
    let total = if total.dtype().is_int() { total.to_dtype(DType::F64)? } else { total };
    let mean = match n {
        0 => total.affine(f64::NAN, f64::NAN)?,
        n => total.affine(1.0 / n as f64, 0.0)?,
    };
    Ok(mean.reshape(after(x, &over, keepdim))?.to_dtype(floating(x.dtype()))?)
}

/// Σ (x − mean)² / (n − correction).
pub fn var_corrected(x: &Tensor, over: Option<&[i64]>, keepdim: bool, correction: f64) -> Result<Tensor> {
    let over = dims("var", x.dims(), over)?;
    let n: usize = over.iter().map(|d| x.dims()[*d]).product();
    let y = wide(&to_float(x)?)?;
    let list: Vec<i64> = over.iter().map(|d| *d as i64).collect();
    let centred = y.broadcast_sub(&mean(&y, Some(&list), true)?)?;
    let left = n as f64 - correction;
    let total = sum_over(&centred.sqr()?, &over)?;
    // fewer values than the correction: undefined, as in PyTorch
    let scale = if left > 0.0 { 1.0 / left } else { f64::NAN };
    Ok(total.affine(scale, 0.0)?.reshape(after(x, &over, keepdim))?.to_dtype(floating(x.dtype()))?)
}

/// The variance with n − 1 in the denominator, PyTorch's default.
pub fn var(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    var_corrected(x, over, keepdim, 1.0)
}

/// The standard deviation with n − 1 in the denominator; its gradient is 0 where it is 0.
pub fn std(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    root(&var(x, over, keepdim)?)
}

/// √x with gradient 0 at 0: what norms and standard deviations need.
pub fn root(x: &Tensor) -> Result<Tensor> {
    op1("root", x, x.detach().sqrt()?, |_, y, g| {
        let zero = y.eq(&y.zeros_like()?)?;
        let d = (g / y)?.affine(0.5, 0.0)?;
        Ok(zero.where_cond(&g.zeros_like()?, &d)?)
    })
}

/// The Euclidean norm √Σx²; its gradient is 0 at 0.
pub fn norm(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    root(&sum(&to_float(x)?.sqr()?, over, keepdim)?)
}

fn extremum(x: &Tensor, over: Option<&[i64]>, keepdim: bool, max: bool) -> Result<Tensor> {
    let name = if max { "max" } else { "min" };
    let over = dims(name, x.dims(), over)?;
    if over.iter().any(|d| x.dims()[*d] == 0) {
        return Err(Error::shape(format!("{name}: of no values is not defined"), &[x.dims()]));
    }
    let mut out = x.detach().contiguous()?;
    if x.elem_count() > 0 {
        let mut nan = out.ne(&out)?;
        for d in &over {
            out = if max { out.max_keepdim(*d)? } else { out.min_keepdim(*d)? };
            nan = nan.max_keepdim(*d)?;
        }
        if x.dtype().is_float() {
            let nans = create::full(out.dims(), f64::NAN, out.dtype(), out.device())?;
            out = nan.where_cond(&nans, &out)?;
        }
    }
    let shape = after(x, &over, keepdim);
    let out = op1(name, x, out, move |x, out, g| {
        let hit = x.broadcast_eq(out)?.to_dtype(g.dtype())?;
        let share = g.div(&sum_over(&hit, &over)?)?;
        Ok(hit.broadcast_mul(&share)?)
    })?;
    Ok(out.reshape(shape)?)
}

/// The largest value; NaN if any is; the gradient is shared equally among ties.
pub fn max(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    extremum(x, over, keepdim, true)
}
/// The smallest value, likewise.
pub fn min(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    extremum(x, over, keepdim, false)
}

/// Where the largest (smallest) value is, the first of equals: i64; without a dimension, in the flattened tensor.
pub fn arg_extremum(x: &Tensor, over: Option<i64>, keepdim: bool, max: bool) -> Result<Tensor> {
    let name = if max { "argmax" } else { "argmin" };
    let (y, d) = match over {
        Some(d) => (x.detach(), dim(name, x.dims(), d)?),
        None => (x.detach().flatten_all()?, 0),
    };
    if y.dims()[d] == 0 {
        return Err(Error::shape(format!("{name}: of no values is not defined"), &[x.dims()]));
    }
    let y = y.contiguous()?;
    let at = if max { y.argmax_keepdim(d)? } else { y.argmin_keepdim(d)? };
    let over = if over.is_some() { vec![d] } else { (0..x.rank()).collect() };
    Ok(at.to_dtype(DType::I64)?.reshape(after(x, &over, keepdim))?)
}

/// Π x; exact gradients also where factors are 0.
pub fn prod(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    let over = dims("prod", x.dims(), over)?;
    let mut y = wide(x)?;
    for &d in &over {
        if y.dims()[d] == 0 {
            let mut shape = y.dims().to_vec();
            shape[d] = 1;
            y = create::ones(&shape, y.dtype(), y.device())?;
        }
        // a tree of products of halves: no division, so zeros do no harm
        while y.dims()[d] > 1 {
            let n = y.dims()[d];
            let half = n / 2;
            let p = (y.narrow(d, 0, half)? * y.narrow(d, half, half)?)?;
            y = if n % 2 == 1 { Tensor::cat(&[p, y.narrow(d, n - 1, 1)?], d)? } else { p };
        }
    }
    narrow(y.reshape(after(x, &over, keepdim))?, x)
}

/// ln Σ e^x, without overflow.
pub fn logsumexp(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    let x = &to_float(x)?;
    let over = dims("logsumexp", x.dims(), over)?;
    let list: Vec<i64> = over.iter().map(|d| *d as i64).collect();
    let top = max(&x.detach(), Some(&list), true)?;
    // a row of −∞ (or one with ∞) must not give ∞ − ∞
    let finite = super::elementwise::isfinite(&top)?;
    let top = finite.where_cond(&top, &top.zeros_like()?)?;
    let total = sum(&x.broadcast_sub(&top)?.exp()?, Some(&list), true)?;
    Ok((total.log()? + top)?.reshape(after(x, &over, keepdim))?)
}

/// 1 where all are not zero (1 for none).
pub fn all(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    arith::not(&sum(&arith::not(x)?, over, keepdim)?)
}
/// 1 where any is not zero (0 for none).
pub fn any(x: &Tensor, over: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
    arith::mask(&sum(&arith::mask(x)?, over, keepdim)?)
}

/// Running sums along `d`.
pub fn cumsum(x: &Tensor, d: i64) -> Result<Tensor> {
    let d = dim("cumsum", x.dims(), d)?;
    fn run(x: &Tensor, d: usize) -> Result<Tensor> {
        let (n, mut x, mut step) = (x.dims()[d], x.clone(), 1);
        // after k rounds every entry holds the sum of the last 2^k
        while step < n {
            crate::host::check_cancelled()?;
            let shifted = (x.narrow(d, step, n - step)? + x.narrow(d, 0, n - step)?)?;
            x = Tensor::cat(&[x.narrow(d, 0, step)?, shifted], d)?;
            step *= 2;
        }
        Ok(x)
    }
    let y = wide(x)?;
    let out = run(&y.detach(), d)?;
    let back = move |g: &Tensor| -> Result<Tensor> {
        // the sum of everything behind: Σ g − cumsum(g) + g
        let forward = run(g, d)?;
        let last = forward.narrow(d, g.dims()[d] - 1, 1)?;
        Ok(last.broadcast_sub(&forward)?.add(g)?)
    };
    narrow(op1("cumsum", &y, out, move |_, _, g| back(g))?, x)
}

/// The single value in `t` as f64.
pub fn item(t: &Tensor) -> Result<f64> {
    match t.elem_count() {
        1 => Ok(create::to_f64(t)?[0]),
        n => {
            let e = Error::new(Kind::Shape, format!("item: needs a tensor with one value, got {n}"));
            Err(e.shapes(&[t.dims()]).hint("reduce it first, e.g. `x.mean()`"))
        }
    }
}
