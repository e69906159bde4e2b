//! Sorting and what follows from it: median and quantiles. NaN sorts last; equal values keep their order.
use super::dtype::{dim, to_float};
use super::{create, index};
use crate::host::Stop;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The order that sorts `x` along `d`, i64 of x's shape.
pub fn argsort(x: &Tensor, d: i64, descending: bool) -> Result<Tensor> {
    if x.rank() == 0 {
        return create::zeros(&[], DType::I64, x.device());
    }
    let d = dim("sort", x.dims(), d)?;
    let last = x.rank() - 1;
    let moved = x.detach().transpose(d, last)?.contiguous()?;
    let n = moved.dims()[last];
    let ids = if moved.elem_count() == 0 {
        vec![]
    } else if x.dtype().is_int() {
        orders(&create::to_i64(&moved)?, n, descending, |a, b| a.cmp(b))?
    } else {
        orders(&create::to_f64(&moved)?, n, descending, |a, b| {
            // all NaNs are one value, whatever their sign
            a.is_nan().cmp(&b.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
        })?
    };
    let ids = Tensor::from_vec(ids, moved.dims(), &Device::Cpu)?.to_device(x.device())?;
    Ok(ids.transpose(d, last)?.contiguous()?)
}

/// Comparisons between two looks at Ctrl-C.
const LOOK: u32 = 1 << 18;

/// A sort was left because of Ctrl-C.
struct Left;

fn orders<T>(v: &[T], n: usize, descending: bool, cmp: impl Fn(&T, &T) -> std::cmp::Ordering) -> Result<Vec<i64>> {
    let mut out = Vec::with_capacity(v.len());
    let (stop, looks) = (Stop::here(), Cell::new(0u32));
    for row in v.chunks(n) {
        let mut ids: Vec<i64> = (0..n as i64).collect();
        // the only way out of a sort is to unwind
        let sorted = catch_unwind(AssertUnwindSafe(|| {
            ids.sort_by(|a, b| {
                looks.set(looks.get().wrapping_add(1));
                if looks.get().is_multiple_of(LOOK) && stop.requested() {
                    resume_unwind(Box::new(Left));
                }
                let o = cmp(&row[*a as usize], &row[*b as usize]);
                if descending { o.reverse() } else { o }
            });
        }));
        match sorted {
            Ok(()) => out.extend(ids),
            Err(why) if why.is::<Left>() => return Err(Error::cancelled()),
            Err(panic) => resume_unwind(panic),
        }
    }
    Ok(out)
}

/// The values of `x` in order along `d`.
pub fn sort(x: &Tensor, d: i64, descending: bool) -> Result<Tensor> {
    match x.rank() {
        0 => Ok(x.clone()),
        _ => index::gather(x, d, &argsort(x, d, descending)?),
    }
}

/// The q-quantile (0 ≤ q ≤ 1), linear between neighbours as in numpy; along `d`, or of all values.
pub fn quantile(x: &Tensor, q: f64, d: Option<i64>, keepdim: bool) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&q) {
        return Err(Error::value(format!("quantile: q must lie in [0, 1], got {q}")));
    }
    let x = &to_float(x)?;
    let (y, at) = match d {
        Some(d) => (x.clone(), dim("quantile", x.dims(), d)?),
        None => (x.flatten_all()?, 0),
    };
    let n = y.dims()[at];
    if n == 0 {
        return Err(Error::shape("quantile: of no values is not defined", &[x.dims()]));
    }
    let sorted = sort(&y, at as i64, false)?;
    let place = q * (n - 1) as f64;
    let low = place.floor() as usize;
    let part = place - low as f64;
    let mut out = sorted.narrow(at, low, 1)?;
    if part > 0.0 {
        out = (out.affine(1.0 - part, 0.0)? + sorted.narrow(at, low + 1, 1)?.affine(part, 0.0)?)?;
    }
    Ok(match (d, keepdim) {
        (_, false) => out.squeeze(at)?,
        (Some(_), true) => out,
        (None, true) => out.reshape(vec![1; x.rank()])?,
    })
}
