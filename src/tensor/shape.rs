//! Shape operations: views where candle has them, copies elsewhere.
use super::create;
use super::device::meeting;
use super::dtype::elements;
use super::dtype::{check_size, dim, dims, promote};
use super::index::take;
use crate::{Error, Result};
use candle_core::Tensor;

/// `x` with the same values in a new shape; one entry may be −1 and is inferred.
pub fn reshape(x: &Tensor, shape: &[i64]) -> Result<Tensor> {
    let n = x.elem_count();
    let wrong = |why: String| {
        let m = format!("reshape: {why}");
        Error::shape(m, &[x.dims()])
    };
    let holes = shape.iter().filter(|d| **d == -1).count();
    if holes > 1 || shape.iter().any(|d| *d < -1) {
        return Err(wrong(format!("the shape {shape:?} may have one −1 and no other negative entry")));
    }
    let given: Vec<usize> = shape.iter().filter_map(|d| usize::try_from(*d).ok()).collect();
    let known = elements(&given);
    let does_not_fit = || wrong(format!("{n} values of shape {:?} do not fit into shape {shape:?}", x.dims()));
    let known = known.ok_or_else(does_not_fit)?;
    let hole = match holes {
        0 => 0,
        _ if known != 0 && n.is_multiple_of(known) => n / known,
        _ => return Err(does_not_fit()),
    };
    let to: Vec<usize> = shape.iter().map(|d| if *d == -1 { hole } else { *d as usize }).collect();
    if to.iter().product::<usize>() != n {
        return Err(does_not_fit());
    }
    Ok(x.reshape(to)?)
}

/// `x` with its dimensions in a new order.
pub fn permute(x: &Tensor, order: &[i64]) -> Result<Tensor> {
    let order = dims("permute", x.dims(), Some(order))?;
    if order.len() != x.rank() {
        let m = format!("permute: needs all {} dimensions, got {}", x.rank(), order.len());
        return Err(Error::shape(m, &[x.dims()]));
    }
    Ok(x.permute(order)?)
}

/// Two dimensions exchanged.
pub fn transpose(x: &Tensor, a: i64, b: i64) -> Result<Tensor> {
    Ok(x.transpose(dim("transpose", x.dims(), a)?, dim("transpose", x.dims(), b)?)?)
}

/// The last two dimensions exchanged; vectors and scalars stay as they are.
pub fn t(x: &Tensor) -> Result<Tensor> {
    if x.rank() < 2 { Ok(x.clone()) } else { Ok(x.t()?) }
}

/// Without the dimensions of size 1 (all of them, or those named, which must have size 1).
pub fn squeeze(x: &Tensor, which: Option<&[i64]>) -> Result<Tensor> {
    let gone: Vec<usize> = match which {
        None => (0..x.rank()).filter(|&i| x.dims()[i] == 1).collect(),
        Some(list) => dims("squeeze", x.dims(), Some(list))?,
    };
    if let Some(&d) = gone.iter().find(|&&i| x.dims()[i] != 1) {
        let m = format!("squeeze: dimension {d} has size {}, not 1", x.dims()[d]);
        return Err(Error::shape(m, &[x.dims()]));
    }
    let left: Vec<usize> = (0..x.rank()).filter(|i| !gone.contains(i)).map(|i| x.dims()[i]).collect();
    Ok(x.reshape(left)?)
}

/// With a new dimension of size 1 at `at` (negative: from the end of the result).
pub fn unsqueeze(x: &Tensor, at: i64) -> Result<Tensor> {
    let mut longer = x.dims().to_vec();
    longer.push(1);
    let at = dim("unsqueeze", &longer, at)?;
    Ok(x.unsqueeze(at)?)
}

/// Dimensions `start` to `end` (both included) merged into one; a scalar becomes a vector.
pub fn flatten(x: &Tensor, start: i64, end: i64) -> Result<Tensor> {
    if x.rank() == 0 {
        return Ok(x.reshape(1)?);
    }
    let (s, e) = (dim("flatten", x.dims(), start)?, dim("flatten", x.dims(), end)?);
    if s > e {
        return Err(Error::shape(format!("flatten: the start {start} lies behind the end {end}"), &[x.dims()]));
    }
    let merged = x.dims()[s..=e].iter().product();
    Ok(x.reshape([&x.dims()[..s], &[merged], &x.dims()[e + 1..]].concat())?)
}

/// Broadcast to `shape`; −1 keeps a dimension's size.
pub fn expand(x: &Tensor, shape: &[i64]) -> Result<Tensor> {
    let wrong = || {
        let m = format!("expand: shape {:?} does not expand to {shape:?}", x.dims());
        Error::shape(m, &[x.dims()]).hint("only dimensions of size 1 (and new ones in front) can be expanded")
    };
    let new = shape.len().checked_sub(x.rank()).ok_or_else(wrong)?;
    let mut to = vec![];
    for (i, &d) in shape.iter().enumerate() {
        let have = if i < new { 1 } else { x.dims()[i - new] };
        to.push(match usize::try_from(d) {
            Ok(d) if d == have || have == 1 => d,
            Err(_) if d == -1 && i >= new => have,
            _ => return Err(wrong()),
        });
    }
    check_size("expand", &to, x.dtype())?;
    Ok(x.broadcast_as(to)?)
}

/// `x` tiled: `times[i]` copies along dimension i (more entries than dimensions add dimensions in front).
pub fn repeat(x: &Tensor, times: &[usize]) -> Result<Tensor> {
    if times.len() < x.rank() {
        let m = format!("repeat: needs at least {} counts, got {}", x.rank(), times.len());
        return Err(Error::shape(m, &[x.dims()]));
    }
    let own = [vec![1; times.len() - x.rank()], x.dims().to_vec()].concat();
    let out: Vec<usize> = own.iter().zip(times).map(|(a, b)| a.saturating_mul(*b)).collect();
    check_size("repeat", &out, x.dtype())?;
    // [t0, d0, t1, d1, …] holds the copies side by side
    let apart: Vec<usize> = own.iter().flat_map(|d| [1, *d]).collect();
    let wide: Vec<usize> = own.iter().zip(times).flat_map(|(d, t)| [*t, *d]).collect();
    Ok(x.reshape(apart)?.broadcast_as(wide)?.reshape(out)?)
}

/// Reversed along the named dimensions.
pub fn flip(x: &Tensor, which: &[i64]) -> Result<Tensor> {
    let mut x = x.clone();
    for d in dims("flip", x.dims(), Some(which))? {
        let n = x.dims()[d] as i64;
        x = take(&x, d, &(0..n).rev().collect::<Vec<_>>(), &[n as usize])?;
    }
    Ok(x)
}

/// Shifted along `d` by `shift` places; what leaves at one end comes in at the other.
pub fn roll(x: &Tensor, shift: i64, d: i64) -> Result<Tensor> {
    let d = dim("roll", x.dims(), d)?;
    let n = x.dims()[d];
    let cut = if n == 0 { 0 } else { n - shift.rem_euclid(n as i64) as usize };
    if cut == 0 || cut == n {
        return Ok(x.clone());
    }
    Ok(Tensor::cat(&[x.narrow(d, cut, n - cut)?, x.narrow(d, 0, cut)?], d)?)
}

fn together(what: &str, list: &[Tensor]) -> Result<Vec<Tensor>> {
    let Some(first) = list.first() else {
        return Err(Error::value(format!("{what}: needs at least one tensor")));
    };
    let dtype = list.iter().fold(first.dtype(), |d, t| promote(d, t.dtype()));
    let device = meeting(what, list)?;
    list.iter().map(|t| Ok(t.to_device(&device)?.to_dtype(dtype)?)).collect()
}

/// Tensors joined along an existing dimension.
pub fn cat(list: &[Tensor], d: i64) -> Result<Tensor> {
    let list = together("cat", list)?;
    let first = list[0].dims();
    let d = dim("cat", first, d)?;
    for t in &list {
        let fits = t.rank() == first.len() && (0..first.len()).all(|i| i == d || t.dims()[i] == first[i]);
        if !fits {
            let m = format!("cat: shapes {first:?} and {:?} differ in more than dimension {d}", t.dims());
            return Err(Error::shape(m, &[first, t.dims()]));
        }
    }
    Ok(Tensor::cat(&list, d)?)
}

/// Tensors of one shape joined along a new dimension at `d`.
pub fn stack(list: &[Tensor], d: i64) -> Result<Tensor> {
    let list = together("stack", list)?;
    let first = list[0].dims();
    if let Some(t) = list.iter().find(|t| t.dims() != first) {
        let m = format!("stack: needs tensors of one shape, got {first:?} and {:?}", t.dims());
        return Err(Error::shape(m, &[first, t.dims()]));
    }
    let parts = list.iter().map(|t| unsqueeze(t, d)).collect::<Result<Vec<_>>>()?;
    let at = dim("stack", parts[0].dims(), d)?;
    Ok(Tensor::cat(&parts, at)?)
}

/// Pieces of the given sizes along `d`; the sizes must add up.
pub fn split_sizes(x: &Tensor, sizes: &[usize], d: i64) -> Result<Vec<Tensor>> {
    let d = dim("split", x.dims(), d)?;
    if sizes.iter().try_fold(0usize, |s, n| s.checked_add(*n)) != Some(x.dims()[d]) {
        let m = format!("split: sizes {sizes:?} do not add up to {}", x.dims()[d]);
        return Err(Error::shape(m, &[x.dims()]));
    }
    let mut start = 0;
    sizes
        .iter()
        .map(|&n| {
            start += n;
            Ok(x.narrow(d, start - n, n)?)
        })
        .collect()
}

/// Pieces of `size` along `d`; the last may be smaller.
pub fn split(x: &Tensor, size: usize, d: i64) -> Result<Vec<Tensor>> {
    let n = x.dims()[dim("split", x.dims(), d)?];
    if size == 0 {
        return Err(Error::value("split: the size of a piece must be at least 1"));
    }
    let sizes: Vec<usize> = (0..n).step_by(size).map(|s| size.min(n - s)).collect();
    split_sizes(x, &sizes, d)
}

/// At most `n` pieces of equal size along `d` (the last may be smaller), as PyTorch's `chunk`.
pub fn chunk(x: &Tensor, n: usize, d: i64) -> Result<Vec<Tensor>> {
    if n == 0 {
        return Err(Error::value("chunk: needs at least 1 chunk"));
    }
    let len = x.dims()[dim("chunk", x.dims(), d)?];
    split(x, len.div_ceil(n).max(1), d)
}

/// What [`pad`] puts around a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// A constant.
    Constant(f64),
    /// The values mirrored at the edge (which is not repeated).
    Reflect,
    /// The edge value.
    Replicate,
}

/// `x` with `before` and `after` values added along `d`.
pub fn pad(x: &Tensor, d: i64, before: usize, after: usize, fill: Fill) -> Result<Tensor> {
    let d = dim("pad", x.dims(), d)?;
    let n = x.dims()[d];
    let mut shape = x.dims().to_vec();
    shape[d] = n.saturating_add(before).saturating_add(after);
    check_size("pad", &shape, x.dtype())?;
    if before == 0 && after == 0 {
        return Ok(x.clone());
    }
    if let Fill::Constant(c) = fill {
        let side = |k: usize| {
            let mut shape = shape.clone();
            shape[d] = k;
            create::full(&shape, c, x.dtype(), x.device())
        };
        let mut parts = vec![x.clone()];
        if before > 0 {
            parts.insert(0, side(before)?);
        }
        if after > 0 {
            parts.push(side(after)?);
        }
        return Ok(Tensor::cat(&parts, d)?);
    }
    let most = if fill == Fill::Reflect { n.saturating_sub(1) } else { usize::MAX };
    if n == 0 || before > most || after > most {
        let m = format!("pad: dimension {d} of size {n} is too short for {before} before and {after} after");
        return Err(Error::shape(m, &[x.dims()]));
    }
    let last = n as i64 - 1;
    let at = |i: i64| match fill {
        Fill::Reflect if i < 0 => -i,
        Fill::Reflect if i > last => 2 * last - i,
        _ => i.clamp(0, last),
    };
    let rows: Vec<i64> = (-(before as i64)..=last + after as i64).map(at).collect();
    take(x, d, &rows, &[rows.len()])
}
