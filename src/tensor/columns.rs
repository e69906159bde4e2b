//! Convolutions on the CPU as matrix products: the image is laid out in columns, one for each output pixel, and the weight's
//! matrix is multiplied with them. Candle's own convolution takes several times as long.
use super::conv::Geometry;
use crate::Result;
use crate::host::check_cancelled;
use candle_core::{CpuStorage, DType, Storage, Tensor, WithDType};
use rayon::prelude::*;

/// Values that the columns of a product may take: some tens of megabytes, and some tens of milliseconds between two looks at
/// Ctrl-C.
const BLOCK: usize = 1 << 23;

/// Whether this file's functions take tensors like `t`.
pub fn takes(t: &Tensor) -> bool {
    t.device().is_cpu() && matches!(t.dtype(), DType::F32 | DType::F64)
}

/// One image's part in a convolution, all its channels: input and output height and width, and the kernel's.
#[derive(Clone, Copy)]
struct Plane {
    input: [usize; 2],
    output: [usize; 2],
    kernel: [usize; 2],
    g: Geometry,
}

impl Plane {
    fn new(x: &Tensor, kernel: [usize; 2], g: Geometry) -> Result<Plane> {
        let (_, _, h, w) = x.dims4()?;
        let size = |n: usize, k: usize| (n + 2 * g.padding - g.dilation * (k - 1) - 1) / g.stride + 1;
        Ok(Plane { input: [h, w], output: [size(h, kernel[0]), size(w, kernel[1])], kernel, g })
    }
    /// Whether the image is its own columns.
    fn is_plain(&self) -> bool {
        self.kernel == [1, 1] && self.g.stride == 1 && self.g.padding == 0
    }
    /// Rows of the output, block by block.
    fn blocks(&self, channels: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let row = channels * self.kernel[0] * self.kernel[1] * self.output[1];
        let (per, rows) = ((BLOCK / row.max(1)).max(1), self.output[0]);
        (0..rows).step_by(per).map(move |at| (at, per.min(rows - at)))
    }
    /// The columns of output rows `at..at + rows` for image `x` [C, H, W]: [C·kh·kw, rows·ow].
    fn columns(&self, x: &Tensor, at: usize, rows: usize) -> Result<Tensor> {
        let channels = x.dims()[0];
        let wide = channels * self.kernel[0] * self.kernel[1];
        let n = rows * self.output[1];
        if self.is_plain() {
            return Ok(x.narrow(1, at, rows)?.reshape((channels, n))?);
        }
        let x = x.contiguous()?;
        let (storage, layout) = x.storage_and_layout();
        let from = layout.start_offset()..layout.start_offset() + x.elem_count();
        let columns = match &*storage {
            Storage::Cpu(CpuStorage::F32(v)) => self.filled(&v[from], at, rows, (wide, n), x.device()),
            Storage::Cpu(CpuStorage::F64(v)) => self.filled(&v[from], at, rows, (wide, n), x.device()),
            _ => Err(candle_core::Error::Msg("columns of another type or device".into())),
        };
        Ok(columns?)
    }
    fn filled<T: WithDType>(
        &self,
        x: &[T],
        at: usize,
        rows: usize,
        shape: (usize, usize),
        device: &candle_core::Device,
    ) -> candle_core::Result<Tensor> {
        let mut out = vec![T::zero(); shape.0 * shape.1];
        let ([h, w], [kh, kw]) = (self.input, self.kernel);
        let channel = |(x, out): (&[T], &mut [T])| {
            for (tap, out) in out.chunks_mut(shape.1).enumerate() {
                let (dy, dx) = (tap / kw * self.g.dilation, tap % kw * self.g.dilation);
                for (oy, out) in out.chunks_mut(self.output[1]).enumerate() {
                    if let Some(y) = inside((at + oy) * self.g.stride + dy, self.g.padding, h) {
                        self.row(&x[y * w..(y + 1) * w], dx, out);
                    }
                }
            }
        };
        if shape.1 > 0 && h * w > 0 {
            x.par_chunks(h * w).zip(out.par_chunks_mut(kh * kw * shape.1)).for_each(channel);
        }
        debug_assert_eq!(rows * self.output[1], shape.1);
        Tensor::from_vec(out, shape, device)
    }
    /// What one tap, `dx` behind the window's start, sees of an image's row; zeros outside stay.
    fn row<T: Copy>(&self, x: &[T], dx: usize, out: &mut [T]) {
        let (s, p) = (self.g.stride, self.g.padding);
        // the output pixels with p ≤ o·s + dx < p + w
        let low = p.saturating_sub(dx).div_ceil(s).min(out.len());
        let high = (p + x.len()).saturating_sub(dx).div_ceil(s).clamp(low, out.len());
        let out = &mut out[low..high];
        if out.is_empty() {
            return;
        }
        let x = &x[low * s + dx - p..];
        match s {
            1 => out.copy_from_slice(&x[..out.len()]),
            _ => out.iter_mut().zip(x.iter().step_by(s)).for_each(|(o, x)| *o = *x),
        }
    }

    /// The transpose of [`Plane::columns`]: adds columns [C·kh·kw, rows·ow] of output rows from `at` on to an image [C, H, W].
    fn add<T: WithDType + std::ops::AddAssign>(&self, columns: &[T], at: usize, n: usize, image: &mut [T]) {
        let ([h, w], [kh, kw]) = (self.input, self.kernel);
        let channel = |(columns, image): (&[T], &mut [T])| {
            for (tap, columns) in columns.chunks(n).enumerate() {
                let (dy, dx) = (tap / kw * self.g.dilation, tap % kw * self.g.dilation);
                for (oy, row) in columns.chunks(self.output[1]).enumerate() {
                    if let Some(y) = inside((at + oy) * self.g.stride + dy, self.g.padding, h) {
                        self.add_row(row, dx, &mut image[y * w..(y + 1) * w]);
                    }
                }
            }
        };
        if n > 0 && h * w > 0 {
            columns.par_chunks(kh * kw * n).zip(image.par_chunks_mut(h * w)).for_each(channel);
        }
    }
    /// The transpose of [`Plane::row`].
    fn add_row<T: Copy + std::ops::AddAssign>(&self, row: &[T], dx: usize, image: &mut [T]) {
        let (s, p) = (self.g.stride, self.g.padding);
        let low = p.saturating_sub(dx).div_ceil(s).min(row.len());
        let high = (p + image.len()).saturating_sub(dx).div_ceil(s).clamp(low, row.len());
        let row = &row[low..high];
        if !row.is_empty() {
            let image = &mut image[low * s + dx - p..];
            image.iter_mut().step_by(s).zip(row).for_each(|(to, v)| *to += *v);
        }
    }
}

/// The transpose of [`convolve`] with respect to x, of height and width `size`: the products of the weight's matrix with each output
/// pixel, added up where their windows lie.
pub fn transposed(y: &Tensor, w: &Tensor, g: Geometry, size: (usize, usize)) -> Result<Tensor> {
    let ((b, _, oh, ow), (cout, per, kh, kw)) = (y.dims4()?, w.dims4()?);
    let plane = Plane { input: [size.0, size.1], output: [oh, ow], kernel: [kh, kw], g };
    let (inside, wide) = (cout / g.groups, per * kh * kw);
    // [groups, columns, channels]
    let matrix = w.contiguous()?.reshape((g.groups, inside, wide))?.transpose(1, 2)?.contiguous()?;
    let mut images = vec![];
    for i in 0..b {
        let y = y.get(i)?;
        for k in 0..g.groups {
            let (y, matrix) = (y.narrow(0, k * inside, inside)?, matrix.get(k)?);
            images.push(match y.dtype() {
                DType::F64 => plane.image::<f64>(&y, &matrix, per)?,
                _ => plane.image::<f32>(&y, &matrix, per)?,
            });
        }
    }
    let x = if images.len() == 1 { images.remove(0) } else { Tensor::cat(&images, 0)? };
    Ok(x.reshape((b, g.groups * per, size.0, size.1))?)
}

impl Plane {
    /// One image of [`transposed`].
    fn image<T: WithDType + std::ops::AddAssign>(
        &self,
        y: &Tensor,
        matrix: &Tensor,
        channels: usize,
    ) -> Result<Tensor> {
        let mut image = vec![T::zero(); channels * self.input[0] * self.input[1]];
        for (at, rows) in self.blocks(channels) {
            check_cancelled()?;
            let n = rows * self.output[1];
            let y = y.narrow(1, at, rows)?.reshape((y.dims()[0], n))?;
            let columns = matrix.matmul(&y)?.contiguous()?;
            let (storage, layout) = columns.storage_and_layout();
            let Storage::Cpu(values) = &*storage else {
                return Err(candle_core::Error::Msg("columns of another device".into()).into());
            };
            self.add(&values.as_slice::<T>()?[layout.start_offset()..][..columns.elem_count()], at, n, &mut image);
        }
        let [h, w] = self.input;
        Ok(Tensor::from_vec(image, (channels, h, w), y.device())?)
    }
}

/// `at` counted from the edge of the padding, as a place in the image.
fn inside(at: usize, padding: usize, size: usize) -> Option<usize> {
    at.checked_sub(padding).filter(|y| *y < size)
}

/// x [B, Cin, H, W] convolved with w [Cout, Cin/groups, kh, kw], both detached.
pub fn convolve(x: &Tensor, w: &Tensor, g: Geometry) -> Result<Tensor> {
    let (cout, per, kh, kw) = w.dims4()?;
    let plane = Plane::new(x, [kh, kw], g)?;
    let inside = cout / g.groups;
    let matrix = w.contiguous()?.reshape((cout, per * kh * kw))?;
    let mut images = vec![];
    for b in 0..x.dims()[0] {
        let image = x.get(b)?;
        for k in 0..g.groups {
            let image = image.narrow(0, k * per, per)?;
            let matrix = matrix.narrow(0, k * inside, inside)?;
            let mut blocks = vec![];
            for (at, rows) in plane.blocks(per) {
                check_cancelled()?;
                blocks.push(matrix.matmul(&plane.columns(&image, at, rows)?)?);
            }
            images.push(if blocks.len() == 1 { blocks.remove(0) } else { Tensor::cat(&blocks, 1)? });
        }
    }
    let y = if images.len() == 1 { images.remove(0) } else { Tensor::cat(&images, 0)? };
    Ok(y.reshape((x.dims()[0], cout, plane.output[0], plane.output[1]))?)
}

/// Parts of a batch whose weight gradients are summed each by itself: a number of its own, so that bits do not depend on threads.
const PARTS: usize = 8;

/// The gradient with respect to a weight of shape `shape`, from x and the cotangent of [`convolve`]'s result.
pub fn weight_gradient(x: &Tensor, cot: &Tensor, shape: &[usize], g: Geometry) -> Result<Tensor> {
    let (cout, per, kernel) = (shape[0], shape[1], [shape[2], shape[3]]);
    // a transposed convolution's output padding makes room for windows that it has not
    let plane = Plane { output: [cot.dims()[2], cot.dims()[3]], ..Plane::new(x, kernel, g)? };
    let (inside, batch) = (cout / g.groups, x.dims()[0]);
    let mut groups = vec![];
    for k in 0..g.groups {
        let part = |p: usize| -> Result<Option<Tensor>> {
            let mut sum: Option<Tensor> = None;
            for b in batch * p / PARTS..batch * (p + 1) / PARTS {
                let (image, cot) = (x.get(b)?.narrow(0, k * per, per)?, cot.get(b)?.narrow(0, k * inside, inside)?);
                for (at, rows) in plane.blocks(per) {
                    check_cancelled()?;
                    let cot = cot.narrow(1, at, rows)?.contiguous()?.reshape((inside, rows * plane.output[1]))?;
                    let part = cot.matmul(&plane.columns(&image, at, rows)?.t()?)?;
                    sum = Some(match sum {
                        Some(sum) => (sum + part)?,
                        None => part,
                    });
                }
            }
            Ok(sum)
        };
        let parts = (0..PARTS).into_par_iter().map(part).collect::<Result<Vec<_>>>()?;
        let sum = parts.into_iter().flatten().try_fold(None, |sum: Option<Tensor>, part| {
            Ok::<_, crate::Error>(Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            }))
        })?;
        groups.extend(sum);
    }
    Ok(Tensor::cat(&groups, 0)?.reshape(shape)?)
}
