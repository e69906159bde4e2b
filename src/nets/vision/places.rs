//! The table of places, brought to the grid of patches that a picture has.
use super::names::Names;
use crate::Result;
use crate::nets::weights::{File, Weights};
use candle_core::{DType, Device, Tensor};

/// DINOv2 takes a side of its grid for this much longer than it is.
const LONGER: f64 = 0.1;

/// Rows [1 + grid², width] from the file's table, the class's first; those of another grid are interpolated by cubic curves as PyTorch has them.
pub(super) fn table(file: &mut File, names: &Names, grid: usize, width: usize) -> Result<Tensor> {
    let dims = file.dims(names.places).unwrap_or_default().to_vec();
    let all = file.take(names.places, &dims)?.reshape(((), width))?;
    let side = (all.dim(0)? - 1).isqrt();
    if side == grid {
        return Ok(all);
    }
    let rows: Vec<f64> = all.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    let (class, from) = rows.split_at(width);
    let taps: Vec<[(usize, f64); 4]> = (0..grid).map(|i| taps(i, side, (grid as f64 + LONGER) / side as f64)).collect();
    let mut out = class.to_vec();
    for down in &taps {
        for across in &taps {
            let mut row = vec![0.0; width];
            for (y, v) in down {
                for (x, w) in across {
                    let at = &from[(y * side + x) * width..][..width];
                    row.iter_mut().zip(at).for_each(|(r, t)| *r += v * w * t);
                }
            }
            out.extend(row);
        }
    }
    let out = Tensor::from_vec(out, (1 + grid * grid, width), &Device::Cpu)?;
    Ok(out.to_dtype(all.dtype())?.to_device(all.device())?)
}

/// The entries of an axis of `n` that entry `i` of the result lies between, and their weights; beyond the edge is the edge.
fn taps(i: usize, n: usize, scale: f64) -> [(usize, f64); 4] {
    const A: f64 = -0.75;
    let at = (i as f64 + 0.5) / scale - 0.5;
    let (low, t) = (at.floor(), at - at.floor());
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    std::array::from_fn(|k| ((low + k as f64 - 1.0).clamp(0.0, n as f64 - 1.0) as usize, weights[k]))
}
