//! The Chamfer distance as a loss: differentiable in both clouds, its nearest points found natively.
use super::{Clouds, nearest, sizes};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};

/// Squared distances of the points of `x` [B, N, 3] to those of `y` that `which` names, [B, N].
fn to_nearest(x: &Tensor, y: &Tensor, which: Vec<u32>) -> Result<Tensor> {
    let ((b, n, _), (_, m, _)) = (x.dims3()?, y.dims3()?);
    let rows: Vec<u32> = which.iter().enumerate().map(|(i, k)| (i / n * m) as u32 + k).collect();
    let rows = Tensor::from_vec(rows, b * n, &Device::Cpu)?.to_device(y.device())?;
    let picked = y.reshape((b * m, 3))?.index_select(&rows, 0)?.reshape((b, n, 3))?;
    Ok((x - picked)?.sqr()?.sum(2)?)
}

/// The Chamfer distance of each cloud [B, N, 3] to the one at its place in `y` [B, M, 3], [B] in x's type; differentiable in both, with
/// the nearest points as constants.
pub fn chamfer_loss(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let of = "chamfer";
    let ((b, n), (c, m)) = (sizes(of, x)?, sizes(of, y)?);
    for t in [x, y] {
        if !t.dtype().is_float() {
            return Err(Error::new(Kind::Type, format!("{of}: needs floating-point tensors, not {:?}", t.dtype())));
        }
    }
    if b != c {
        return Err(Error::shape(format!("{of}: {b} and {c} clouds cannot be paired"), &[x.dims(), y.dims()]));
    }
    if b * n.max(m) > u32::MAX as usize {
        return Err(Error::shape(format!("{of}: more than 2³² points"), &[x.dims(), y.dims()])
            .hint("take fewer clouds at a time"));
    }
    let (x, y) = (x.reshape((b, n, 3))?, y.reshape((b, m, 3))?.to_dtype(x.dtype())?);
    let exact = x.dtype() == DType::F64;
    let read = |t: &Tensor| Clouds::new(of, &if exact { t.clone() } else { t.to_dtype(DType::F32)? });
    let (xs, ys) = (read(&x)?, read(&y)?);
    let there = to_nearest(&x, &y, nearest(&xs, &ys))?.mean(1)?;
    let back = to_nearest(&y, &x, nearest(&ys, &xs))?.mean(1)?;
    Ok((there + back)?)
}
