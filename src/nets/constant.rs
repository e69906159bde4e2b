//! Convolutions of scripts through the frozen networks' kernels: with constant weights, which are packed once, and with weights that
//! learn, whose gradient is a sum of products with the image's columns.
use super::kernels::{Conv, Frozen, Linear, View};
use crate::tensor::columns;
use crate::tensor::conv::{self, Geometry};
use crate::tensor::custom::{op, op1};
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

/// [`conv::conv2d`], by frozen kernels where x is f32 on the CPU, and there are neither groups nor gaps between taps.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: Geometry) -> Result<Tensor> {
    let plain = |t: &Tensor| t.dtype() == DType::F32 && t.device().is_cpu() && t.elem_count() > 0;
    let constant = |t: &Tensor| plain(t) && !is_tracked(t) && !t.is_variable();
    let fits = plain(x)
        && x.rank() == 4
        && plain(weight)
        && weight.rank() == 4
        && bias.is_none_or(plain)
        && (g.groups, g.dilation) == (1, 1)
        && g.stride > 0;
    let fixed = constant(weight) && bias.is_none_or(constant);
    if !fits || (fixed && weight.dims()[2..] == [1, 1]) {
        return conv::conv2d(x, weight, bias, g);
    }
    let (cin, cout) = (weight.dims()[1], weight.dims()[0]);
    let channels_last = [x.dims()[0], x.dims()[2], x.dims()[3], x.dims()[1]];
    let bias_fits = bias.is_none_or(|b| b.dims() == [cout]);
    if cin != channels_last[3] || !bias_fits {
        // which says what does not fit
        return conv::conv2d(x, weight, bias, g);
    }
    if !fixed {
        return learned(x, weight, bias, g);
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

/// [`conv::conv2d`] of f32 on the CPU, with a weight or a bias that learns.
fn learned(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: Geometry) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let sizes = [b, h, w, c];
    let constant = match bias {
        Some(b) => b.detach().contiguous()?,
        None => Tensor::zeros(weight.dims()[0], DType::F32, &Device::Cpu)?,
    };
    let frozen = weight.detach().contiguous()?;
    let kernel: Arc<dyn Frozen> = match (&weight.dims()[2..], g.stride, g.padding) {
        ([1, 1], 1, 0) => Arc::new(Linear::new(&frozen.flatten_from(1)?, constant)?),
        _ => Arc::new(Conv::with(frozen, constant, g.stride, g.padding)?),
    };
    let Ok(dims) = kernel.dims(&[&sizes]) else { return conv::conv2d(x, weight, bias, g) };
    let image = turned(&x.detach())?;
    let mut out = vec![0.0; dims.iter().product()];
    kernel.run(&[View { data: &image, dims: &sizes }], &mut out, true);
    let out = image_of(&out, &dims)?;
    let args: Vec<&Tensor> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
    op("conv2d", &args, out, move |back| {
        let mut all = vec![None; back.args.len()];
        if back.want[0] {
            let cot = turned(back.g)?;
            let grads = kernel.pull(&[View { data: &[], dims: &sizes }], &cot, true);
            all[0] = Some(image_of(grads.first().map_or(&[], |g| g), &sizes)?);
        }
        if back.want[1] {
            all[1] = Some(columns::weight_gradient(&back.args[0], back.g, back.args[1].dims(), g)?);
        }
        if back.want.get(2) == Some(&true) {
            all[2] = Some(channel_sums(back.g)?);
        }
        Ok(all)
    })
}

/// The sum of each channel of images [B, C, H, W], in the order of the images.
fn channel_sums(g: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = g.dims4()?;
    let g = g.contiguous()?;
    let (storage, layout) = g.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(v)) = &*storage else {
        return Err(Error::new(crate::Kind::Internal, "a sum of another type or device"));
    };
    let (v, size) = (&v[layout.start_offset()..], h * w);
    let sum = |k: usize| {
        let channel =
            |i: usize| v[(i * c + k) * size..][..size].chunks(256).map(|p| p.iter().sum::<f32>()).sum::<f32>();
        (0..b).map(channel).sum::<f32>()
    };
    let sums: Vec<f32> = (0..c).into_par_iter().map(sum).collect();
    Ok(Tensor::from_vec(sums, c, &Device::Cpu)?)
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
