//! Convolutions of scripts whose weights are constant go through the frozen networks' kernels: only the image's gradient is wanted.
use super::kernels::{Conv, Frozen, View};
use crate::tensor::conv::{self, Geometry};
use crate::tensor::custom::op1;
use crate::tensor::grad::is_tracked;
use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor, TensorId};
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;

/// Bytes of packed weights that are kept for the next call.
const KEEP: usize = 256 << 20;

/// What a packed weight was made from; a tensor never changes, and no other gets its id.
type Key = (TensorId, Option<TensorId>, usize, usize);

thread_local! {
    /// The latest used last.
    static PACKED: RefCell<Vec<(Key, Arc<Conv>)>> = const { RefCell::new(vec![]) };
}

/// [`conv::conv2d`], by frozen kernels where x is f32 on the CPU, the weight is constant, and there are neither groups nor gaps
/// between taps.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: Geometry) -> Result<Tensor> {
    let plain = |t: &Tensor| t.dtype() == DType::F32 && t.device().is_cpu() && t.elem_count() > 0;
    let constant = |t: &Tensor| plain(t) && !is_tracked(t) && !t.is_variable();
    let fits = plain(x)
        && x.rank() == 4
        && constant(weight)
        && weight.rank() == 4
        && bias.is_none_or(constant)
        && (g.groups, g.dilation) == (1, 1)
        && g.stride > 0;
    if !fits || weight.dims()[2..] == [1, 1] {
        return conv::conv2d(x, weight, bias, g);
    }
    let (cin, cout) = (weight.dims()[1], weight.dims()[0]);
    let channels_last = [x.dims()[0], x.dims()[2], x.dims()[3], x.dims()[1]];
    let bias_fits = bias.is_none_or(|b| b.dims() == [cout]);
    if cin != channels_last[3] || !bias_fits {
        // which says what does not fit
        return conv::conv2d(x, weight, bias, g);
    }
    let kernel = packed(weight, bias, g)?;
    let Ok(dims) = kernel.dims(&[&channels_last]) else { return conv::conv2d(x, weight, bias, g) };
    let image = turned(&x.detach())?;
    let mut out = vec![0.0; dims.iter().product()];
    kernel.run(&[View { data: &image, dims: &channels_last }], &mut out, true);
    let out = image_of(&out, &dims)?;
    op1("conv2d", x, out, move |_, _, cot| {
        let cot = turned(cot)?;
        let grads = kernel.pull(&[View { data: &[], dims: &channels_last }], &cot, true);
        image_of(grads.first().map_or(&[], |g| g), &channels_last)
    })
}

/// The kernel for a weight and bias, packed or found.
fn packed(weight: &Tensor, bias: Option<&Tensor>, g: Geometry) -> Result<Arc<Conv>> {
    let key = (weight.id(), bias.map(Tensor::id), g.stride, g.padding);
    let found = PACKED.with_borrow_mut(|all| {
        let at = all.iter().position(|(k, _)| *k == key)?;
        let entry = all.remove(at);
        all.push(entry.clone());
        Some(entry.1)
    });
    if let Some(conv) = found {
        return Ok(conv);
    }
    let bias = match bias {
        Some(b) => b.detach(),
        None => Tensor::zeros(weight.dims()[0], DType::F32, &Device::Cpu)?,
    };
    let conv = Arc::new(Conv::with(weight.detach(), bias, g.stride, g.padding)?);
    PACKED.with_borrow_mut(|all| {
        all.push((key, conv.clone()));
        let mut total: usize = all.iter().map(|(_, c)| c.bytes()).sum();
        while total > KEEP && all.len() > 1 {
            total -= all.remove(0).1.bytes();
        }
    });
    Ok(conv)
}

/// The values of images [B, C, H, W] as [B, H, W, C].
fn turned(x: &Tensor) -> Result<Vec<f32>> {
    let x = x.contiguous()?;
    let (b, c, h, w) = x.dims4()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(v)) = &*storage else {
        return Err(Error::new(crate::Kind::Internal, "a frozen convolution of another type or device"));
    };
    let mut out = vec![0.0; b * c * h * w];
    transpose(&v[layout.start_offset()..layout.start_offset() + out.len()], c, h * w, &mut out);
    Ok(out)
}

/// Images [B, C, H, W] from values in the order of `dims` = [B, H, W, C].
fn image_of(values: &[f32], dims: &[usize]) -> Result<Tensor> {
    let &[b, h, w, c] = dims else {
        return Err(Error::new(crate::Kind::Internal, "a frozen convolution without an image"));
    };
    let mut out = vec![0.0; values.len()];
    transpose(values, h * w, c, &mut out);
    Ok(Tensor::from_vec(out, (b, c, h, w), &Device::Cpu)?)
}

/// Matrices of `rows` × `cols`, one after the other, each transposed; in tiles that stay in the first-level cache.
fn transpose(from: &[f32], rows: usize, cols: usize, to: &mut [f32]) {
    const TILE: usize = 16;
    if rows * cols == 0 {
        return;
    }
    for (from, to) in from.chunks(rows * cols).zip(to.chunks_mut(rows * cols)) {
        to.par_chunks_mut(TILE * rows).enumerate().for_each(|(i, to)| {
            let (first, wide) = (i * TILE, to.len() / rows);
            for at in (0..rows).step_by(TILE) {
                for r in at..(at + TILE).min(rows) {
                    let from = &from[r * cols + first..r * cols + first + wide];
                    for (k, v) in from.iter().enumerate() {
                        to[k * rows + r] = *v;
                    }
                }
            }
        });
    }
}
