//! Blocks of pixels: every pixel repeated to a block, and every block summed to a pixel. Each is the other's transpose, so nearest
//! enlargement and averages of blocks that lie side by side are differentiated by them.
use super::custom::op1;
use crate::Result;
use candle_core::{CpuStorage, DType, Device, Storage, Tensor, WithDType};
use rayon::prelude::*;

/// Whether this file takes images like `x`.
pub fn takes(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64) && x.rank() == 4 && x.elem_count() > 0
}

/// x [B, C, H, W] with every pixel `fh` × `fw` times.
pub fn repeated(x: &Tensor, fh: usize, fw: usize) -> Result<Tensor> {
    let out = repeat(&x.detach(), fh, fw, 1.0)?;
    op1("upsample", x, out, move |_, _, g| sums(g, fh, fw, 1.0))
}

/// The mean of every block of `fh` × `fw` pixels of x [B, C, H, W], which has whole ones.
pub fn means(x: &Tensor, fh: usize, fw: usize) -> Result<Tensor> {
    let share = 1.0 / (fh * fw) as f64;
    let out = sums(&x.detach(), fh, fw, share)?;
    op1("avg_pool2d", x, out, move |_, _, g| repeat(g, fh, fw, share))
}

/// The pixels of every block times `scale`, each `fh` × `fw` times.
fn repeat(x: &Tensor, fh: usize, fw: usize, scale: f64) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    by_rows(
        x,
        (b, c, h * fh, w * fw),
        w,
        fh * fw * w,
        |x: &[f32], out| repeat_row(x, fw, scale as f32, out),
        |x, out| repeat_row(x, fw, scale, out),
    )
}

/// Repeats a row of pixels over a row of blocks.
fn repeat_row<T: WithDType>(x: &[T], fw: usize, scale: T, out: &mut [T]) {
    let (first, rest) = out.split_at_mut(x.len() * fw);
    first.chunks_exact_mut(fw).zip(x).for_each(|(o, x)| o.fill(*x * scale));
    rest.chunks_exact_mut(first.len()).for_each(|r| r.copy_from_slice(first));
}

/// The sum of every block times `scale`.
fn sums(x: &Tensor, fh: usize, fw: usize, scale: f64) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    by_rows(
        x,
        (b, c, h / fh, w / fw),
        fh * w,
        w / fw,
        |x: &[f32], out| sum_row(x, w, fw, scale as f32, out),
        |x, out| sum_row(x, w, fw, scale, out),
    )
}

/// Sums the blocks of a row of blocks.
fn sum_row<T: WithDType>(x: &[T], w: usize, fw: usize, scale: T, out: &mut [T]) {
    out.fill(T::zero());
    for row in x.chunks_exact(w) {
        out.iter_mut().zip(row.chunks_exact(fw)).for_each(|(o, x)| *o += x.iter().fold(T::zero(), |s, x| s + *x));
    }
    out.iter_mut().for_each(|o| *o *= scale);
}

/// An image of size `to`, whose pieces of `give` values come each from `take` values.
fn by_rows(
    x: &Tensor,
    to: (usize, usize, usize, usize),
    take: usize,
    give: usize,
    f: impl Fn(&[f32], &mut [f32]) + Sync,
    d: impl Fn(&[f64], &mut [f64]) + Sync,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let from = layout.start_offset()..layout.start_offset() + x.elem_count();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(v)) => pieces(&v[from], to, take, give, f),
        Storage::Cpu(CpuStorage::F64(v)) => pieces(&v[from], to, take, give, d),
        _ => Err(crate::Error::new(crate::Kind::Internal, "blocks of another type or device")),
    }
}

fn pieces<T: WithDType>(
    x: &[T],
    to: (usize, usize, usize, usize),
    take: usize,
    give: usize,
    f: impl Fn(&[T], &mut [T]) + Sync,
) -> Result<Tensor> {
    /// Pieces that a thread takes at a time.
    const ROWS: usize = 64;
    let mut out = vec![T::zero(); to.0 * to.1 * to.2 * to.3];
    let parts = x.par_chunks(take * ROWS).zip(out.par_chunks_mut(give * ROWS));
    parts.for_each(|(x, out)| x.chunks(take).zip(out.chunks_mut(give)).for_each(|(x, out)| f(x, out)));
    Ok(Tensor::from_vec(out, to, &Device::Cpu)?)
}
