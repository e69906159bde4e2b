//! Matrix products by numpy's rules, with a backward that leaves constants alone.
use super::custom::{op, sum_to};
use super::device::meeting;
use super::dtype::{broadcast, promote};
use crate::error::Compared;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// `a @ b`: matrices in the last two dimensions, broadcast over the others; a vector is a row on the left, a column on
/// the right. Integers give i64.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mismatch = || {
        let m = format!("matmul: shapes {:?} and {:?} do not fit", a.dims(), b.dims());
        let e = Error::shape(m, &[a.dims(), b.dims()]).compared(Compared::Product);
        e.hint("the last dimension of the first must equal the second-to-last of the second")
    };
    if a.rank() == 0 || b.rank() == 0 {
        return Err(mismatch());
    }
    let device = meeting("matmul", [a, b])?;
    let (a, b) = (&a.to_device(&device)?, &b.to_device(&device)?);
    let dtype = promote(a.dtype(), b.dtype());
    // candle multiplies f16, f32 and f64 on the CPU
    let inner = match dtype {
        d if d.is_int() => DType::F64,
        DType::BF16 if a.device().is_cpu() => DType::F32,
        d => d,
    };
    let (x, y) = (a.to_dtype(inner)?, b.to_dtype(inner)?);
    let x = if a.rank() == 1 { x.unsqueeze(0)? } else { x };
    let y = if b.rank() == 1 { y.unsqueeze(1)? } else { y };
    let (m, k, k2, n) = {
        let (xd, yd) = (x.dims(), y.dims());
        (xd[xd.len() - 2], xd[xd.len() - 1], yd[yd.len() - 2], yd[yd.len() - 1])
    };
    let lead = broadcast("matmul", &x.dims()[..x.rank() - 2], &y.dims()[..y.rank() - 2]).map_err(|_| mismatch())?;
    if k != k2 {
        return Err(mismatch());
    }
    let out = product(&x.detach(), &y.detach(), &lead)?;
    let out = op("matmul", &[&x, &y], out, move |c| {
        let (x, y) = (&c.args[0], &c.args[1]);
        let gx = if c.want[0] { Some(sum_to(&product(c.g, &y.t()?, &lead)?, x.dims())?) } else { None };
        let gy = match c.want[1] {
            false => None,
            // one matrix for the whole batch: fold the batch into the sum
            true if y.rank() == 2 => {
                let rows = c.g.elem_count() / n.max(1);
                let x = x.broadcast_as([lead.as_slice(), &[m, k]].concat())?.reshape((rows, k))?;
                Some(product(&x.t()?, &c.g.reshape((rows, n))?, &[])?)
            }
            true => Some(sum_to(&product(&x.t()?, c.g, &lead)?, y.dims())?),
        };
        Ok(vec![gx, gy])
    })?;
    let out = if a.rank() == 1 { out.squeeze(out.rank() - 2)? } else { out };
    let out = if b.rank() == 1 { out.squeeze(out.rank() - 1)? } else { out };
    Ok(out.to_dtype(dtype)?)
}

/// The product of detached tensors of rank ≥ 2, broadcast to the leading dimensions `lead`.
fn product(x: &Tensor, y: &Tensor, lead: &[usize]) -> Result<Tensor> {
    let (m, k) = (x.dims()[x.rank() - 2], x.dims()[x.rank() - 1]);
    let n = y.dims()[y.rank() - 1];
    let shape = [lead, &[m, n]].concat();
    super::dtype::check_size("matmul", &shape, x.dtype())?;
    if shape.iter().product::<usize>() == 0 || k == 0 {
        return super::create::zeros(&shape, x.dtype(), x.device());
    }
    if y.rank() == 2 {
        // a batch of rows against one matrix is one product
        let x = x.broadcast_as([lead, &[m, k]].concat())?;
        let rows = x.elem_count() / k;
        let (x, y) = (x.reshape((rows, k))?, plain(y)?);
        return Ok(in_blocks(rows, k * n, |at, len| Ok(x.narrow(0, at, len)?.matmul(&y)?))?.reshape(shape)?);
    }
    let batch: usize = lead.iter().product();
    let x = x.broadcast_as([lead, &[m, k]].concat())?.reshape((batch, m, k))?;
    let y = y.broadcast_as([lead, &[k, n]].concat())?.reshape((batch, k, n))?;
    let part = |at, len| Ok(x.narrow(0, at, len)?.matmul(&y.narrow(0, at, len)?)?);
    Ok(in_blocks(batch, m * k * n, part)?.reshape(shape)?)
}

/// Rows `0..rows` of a product, each of which costs `cost` multiplications, in blocks between which Ctrl-C is heard. The
/// blocks depend on sizes only.
fn in_blocks(rows: usize, cost: usize, part: impl Fn(usize, usize) -> Result<Tensor>) -> Result<Tensor> {
    let size = (BLOCK / cost.max(1)).clamp(1, rows.max(1));
    if size >= rows {
        return part(0, rows);
    }
    let blocks = (0..rows).step_by(size).map(|at| {
        crate::host::check_cancelled()?;
        part(at, size.min(rows - at))
    });
    Ok(Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)?)
}

/// Multiplications in a block: some tens of milliseconds on one core.
const BLOCK: usize = 1 << 30;

/// A matrix in a layout that every backend multiplies: itself, or transposed in memory, as it is; else copied.
fn plain(y: &Tensor) -> Result<Tensor> {
    match y.is_contiguous() || y.t()?.is_contiguous() {
        true => Ok(y.clone()),
        false => Ok(y.contiguous()?),
    }
}
