//! Indexing, slicing, gathering, and assignment that makes a new tensor.
use super::arith::Operand;
use super::create;
use super::custom::{op, op1};
use super::dtype::{check_size, dim, to_float};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};

/// One entry of an index; entries apply to the dimensions in turn, and lists select independently of each other
/// (the outer product of the selections, where numpy would pair them).
#[derive(Clone)]
pub enum Index {
    /// The whole dimension.
    All,
    /// One position, which removes the dimension; negative from the end.
    At(i64),
    /// start, end (exclusive), step; bounds are clipped as in Python, `None` is the natural end.
    Slice(Option<i64>, Option<i64>, i64),
    /// The positions in an integer tensor, whose shape replaces the dimension.
    List(Tensor),
    /// Where a mask (u8, not 0) is set; it covers as many dimensions as it has.
    Mask(Tensor),
    /// A new dimension of size 1.
    New,
}

impl Index {
    /// The index that a tensor stands for: a u8 tensor is a mask, any other integer tensor a list.
    pub fn from_tensor(t: &Tensor) -> Result<Index> {
        match t.dtype() {
            DType::U8 => Ok(Index::Mask(t.detach())),
            d if d.is_int() => Ok(Index::List(t.detach())),
            d => {
                let m = format!("an index must be an integer tensor or a mask (u8), got dtype {}", d.as_str());
                Err(Error::new(Kind::Type, m).hint("convert it: `idx.to(\"i64\")`"))
            }
        }
    }
}

/// Position `i` of a dimension of size `n`, negative from the end.
fn position(i: i64, n: usize, d: usize, shape: &[usize]) -> Result<usize> {
    let at = if i < 0 { i.checked_add(n as i64).unwrap_or(-1) } else { i };
    if at >= 0 && (at as u64) < n as u64 {
        return Ok(at as usize);
    }
    let m = format!("index {i} is out of range for dimension {d} of size {n}");
    let e = Error::shape(m, &[shape]);
    Err(match n {
        0 => e,
        _ => e.hint(format!("valid are {}..={} (negative ones count from the end)", -(n as i64), n - 1)),
    })
}

/// The positions that a slice selects, by Python's rules.
fn slice_positions(start: Option<i64>, end: Option<i64>, step: i64, n: usize) -> Result<Vec<i64>> {
    if step == 0 {
        return Err(Error::value("a slice's step must not be 0"));
    }
    let n = n as i64;
    let clip = |v: i64, low: i64, high: i64| (if v < 0 { v.saturating_add(n) } else { v }).clamp(low, high);
    let (mut at, end) = if step > 0 {
        (start.map_or(0, |s| clip(s, 0, n)), end.map_or(n, |e| clip(e, 0, n)))
    } else {
        (start.map_or(n - 1, |s| clip(s, -1, n - 1)), end.map_or(-1, |e| clip(e, -1, n - 1)))
    };
    let mut out = vec![];
    while if step > 0 { at < end } else { at > end } {
        out.push(at);
        at = at.saturating_add(step);
    }
    Ok(out)
}

/// Rows `rows` (checked: 0 ≤ row < size) of dimension `d`, which is replaced by `shape`.
pub fn take(x: &Tensor, d: usize, rows: &[i64], shape: &[usize]) -> Result<Tensor> {
    let out_shape = [&x.dims()[..d], shape, &x.dims()[d + 1..]].concat();
    if rows.is_empty() {
        return create::zeros(&out_shape, x.dtype(), x.device());
    }
    let ids = Tensor::from_vec(rows.to_vec(), rows.len(), &Device::Cpu)?.to_device(x.device())?;
    let out = x.detach().contiguous()?.index_select(&ids, d)?;
    let out = op1("index", x, out, move |x, _, g| Ok(x.zeros_like()?.contiguous()?.index_add(&ids, g, d)?))?;
    Ok(out.reshape(out_shape)?)
}

/// `x[index…]`: entries for the first dimensions, the rest is taken whole.
pub fn get(x: &Tensor, index: &[Index]) -> Result<Tensor> {
    let shape = x.dims().to_vec();
    let (mut x, mut d) = (x.clone(), 0);
    for ix in index {
        let covers = match ix {
            Index::New => 0,
            Index::Mask(m) => m.rank(),
            _ => 1,
        };
        if d + covers > x.rank() {
            let m = format!("too many indices for a tensor of {} dimensions", shape.len());
            return Err(Error::shape(m, &[&shape]));
        }
        match ix {
            Index::All => d += 1,
            Index::New => {
                x = x.unsqueeze(d)?;
                d += 1;
            }
            Index::At(i) => {
                let at = position(*i, x.dims()[d], d, &shape)?;
                x = x.narrow(d, at, 1)?.squeeze(d)?;
            }
            Index::Slice(start, end, step) => {
                let rows = slice_positions(*start, *end, *step, x.dims()[d])?;
                x = match rows.first() {
                    // a view
                    Some(&first) if *step == 1 => x.narrow(d, first as usize, rows.len())?,
                    _ => take(&x, d, &rows, &[rows.len()])?,
                };
                d += 1;
            }
            Index::List(list) => {
                let n = x.dims()[d];
                let rows = create::to_i64(list)?
                    .into_iter()
                    .map(|i| Ok(position(i, n, d, &shape)? as i64))
                    .collect::<Result<Vec<_>>>()?;
                x = take(&x, d, &rows, list.dims())?;
                d += list.rank();
            }
            Index::Mask(mask) => {
                let k = mask.rank();
                if mask.dims() != &x.dims()[d..d + k] {
                    let m = format!("a mask of shape {:?} does not fit shape {:?}", mask.dims(), &x.dims()[d..d + k]);
                    return Err(Error::shape(m, &[&shape, mask.dims()]));
                }
                let rows = nonzero(mask)?;
                let merged = [&x.dims()[..d], &[mask.elem_count()], &x.dims()[d + k..]].concat();
                x = take(&x.reshape(merged)?, d, &rows, &[rows.len()])?;
                d += 1;
            }
        }
    }
    Ok(x)
}

/// Where `mask` is not zero, counted in row-major order.
pub fn nonzero(mask: &Tensor) -> Result<Vec<i64>> {
    let v = create::to_f64(mask)?;
    Ok(v.iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i as i64).collect())
}

/// A copy of `x` in which the part that `get(x, index)` would return is replaced by `value` (broadcast to that part's
/// shape, cast to x's dtype). Differentiable in both. Where a list names a position twice, the last value counts.
pub fn set(x: &Tensor, index: &[Index], value: &Operand) -> Result<Tensor> {
    let n = x.elem_count();
    let places = get(&Tensor::arange(0i64, n as i64, &Device::Cpu)?.reshape(x.dims())?, index)?;
    let v = match value {
        Operand::Tensor(t) => t.to_dtype(x.dtype())?.to_device(x.device())?,
        Operand::Float(f) => create::full(&[], *f, x.dtype(), x.device())?,
        Operand::Int(i) => create::full_int(&[], *i, x.dtype(), x.device())?,
    };
    // leading dimensions of size 1 may be left over (x[0] = tensor of shape [1, …])
    let mut own = v.dims();
    while own.len() > places.rank() && own[0] == 1 {
        own = &own[1..];
    }
    let fits = super::dtype::broadcast("index assignment", own, places.dims()).is_ok_and(|s| s == places.dims());
    if !fits {
        let m = format!("cannot assign a value of shape {:?} to a part of shape {:?}", v.dims(), places.dims());
        return Err(Error::shape(m, &[v.dims(), places.dims()]));
    }
    let part = v.reshape(own.to_vec())?.broadcast_as(places.shape())?.flatten_all()?;
    let (ids, part) = last_of_each(create::to_i64(&places)?, part, n)?;
    if ids.is_empty() {
        return Ok(x.clone());
    }
    let ids = Tensor::from_vec(ids.clone(), ids.len(), &Device::Cpu)?.to_device(x.device())?;
    let flat = x.detach().flatten_all()?.contiguous()?;
    let out = flat.scatter(&ids, &part.detach().contiguous()?, 0)?.reshape(x.shape())?;
    op("assign", &[x, &part], out, move |k| {
        let g = k.g.flatten_all()?;
        let gx = match k.want[0] {
            true => Some(g.scatter(&ids, &ids.zeros_like()?.to_dtype(g.dtype())?, 0)?.reshape(k.g.shape())?),
            false => None,
        };
        Ok(vec![gx, Some(g.index_select(&ids, 0)?)])
    })
}

/// Keeps, of values that go to the same place, the last.
fn last_of_each(ids: Vec<i64>, part: Tensor, n: usize) -> Result<(Vec<i64>, Tensor)> {
    let mut last = vec![usize::MAX; n];
    for (k, i) in ids.iter().enumerate() {
        last[*i as usize] = k;
    }
    let keep: Vec<usize> = (0..ids.len()).filter(|k| last[ids[*k] as usize] == *k).collect();
    if keep.len() == ids.len() {
        return Ok((ids, part));
    }
    let rows: Vec<i64> = keep.iter().map(|k| *k as i64).collect();
    let part = take(&part, 0, &rows, &[rows.len()])?;
    Ok((keep.iter().map(|k| ids[*k]).collect(), part))
}

/// `len` rows of dimension `d` from `start`: the strict form of slicing, where everything must be in range.
pub fn narrow(x: &Tensor, d: i64, start: usize, len: usize) -> Result<Tensor> {
    let d = dim("narrow", x.dims(), d)?;
    if start.checked_add(len).is_none_or(|end| end > x.dims()[d]) {
        let m = format!("narrow: {len} rows from {start} exceed dimension {d} of size {}", x.dims()[d]);
        return Err(Error::shape(m, &[x.dims()]));
    }
    Ok(x.narrow(d, start, len)?)
}

/// The index that applies `ix` to dimension `d` alone.
pub fn on_dim(x: &Tensor, d: i64, ix: Index) -> Result<Vec<Index>> {
    let d = dim("index", x.dims(), d)?;
    let mut list = vec![Index::All; d];
    list.push(ix);
    Ok(list)
}

/// PyTorch's `gather`: out[i][j] = x[i][ids[i][j]] for d = 1; `ids` has x's rank and its sizes elsewhere.
pub fn gather(x: &Tensor, d: i64, ids: &Tensor) -> Result<Tensor> {
    let d = dim("gather", x.dims(), d)?;
    let fits = ids.rank() == x.rank() && (0..x.rank()).all(|i| i == d || ids.dims()[i] == x.dims()[i]);
    if !fits || !ids.dtype().is_int() {
        let m = format!(
            "gather: the indices ({}, shape {:?}) must be integers with the shape {:?} except in dimension {d}",
            ids.dtype().as_str(),
            ids.dims(),
            x.dims()
        );
        return Err(Error::shape(m, &[x.dims(), ids.dims()]));
    }
    let n = x.dims()[d];
    let rows = create::to_i64(ids)?
        .into_iter()
        .map(|i| Ok(position(i, n, d, x.dims())? as i64))
        .collect::<Result<Vec<_>>>()?;
    let ids = Tensor::from_vec(rows, ids.dims(), &Device::Cpu)?.to_device(x.device())?;
    if ids.elem_count() == 0 {
        return create::zeros(ids.dims(), x.dtype(), x.device());
    }
    let out = x.detach().contiguous()?.gather(&ids, d)?;
    op1("gather", x, out, move |x, _, g| Ok(x.zeros_like()?.contiguous()?.scatter_add(&ids, g, d)?))
}

/// One-hot rows: ids [..] to [.., classes], in f32 on the device of `ids`.
///
/// # Errors
/// No class, ids that are no integers or not from 0 to `classes` − 1.
pub fn one_hot(ids: &Tensor, classes: usize) -> Result<Tensor> {
    if !ids.dtype().is_int() {
        let m = format!("one_hot: labels must be integers, got dtype {}", ids.dtype().as_str());
        return Err(Error::new(Kind::Type, m).hint("convert them: `labels.to(\"i64\")`"));
    }
    if classes == 0 {
        return Err(Error::value("one_hot: the number of classes must be at least 1"));
    }
    let shape = [ids.dims(), &[classes]].concat();
    let mut rows = vec![0f32; check_size("one_hot", &shape, DType::F32)?];
    for (i, label) in create::to_i64(ids)?.into_iter().enumerate() {
        match usize::try_from(label) {
            Ok(l) if l < classes => rows[i * classes + l] = 1.0,
            _ => {
                let e = Error::value(format!("label {label} (number {i}) is not a class: there are {classes}"));
                return Err(e.hint(format!("labels count from 0 to {}", classes - 1)));
            }
        }
    }
    Ok(Tensor::from_vec(rows, shape, ids.device())?)
}

/// Rows of `weight` [n, d] for integer `ids` [..]: [.., d].
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Result<Tensor> {
    if weight.rank() != 2 || !ids.dtype().is_int() {
        let m = format!(
            "embedding: needs a weight [n, d] and integer ids, got {:?} and ids of dtype {}",
            weight.dims(),
            ids.dtype().as_str()
        );
        return Err(Error::shape(m, &[weight.dims(), ids.dims()]));
    }
    get(&to_float(weight)?, &[Index::List(ids.clone())])
}
