//! Structural similarity.
use crate::loss::difference;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

/// Pixels of the window along an axis, and the spread of its Gaussian weights.
const WINDOW: usize = 11;
const SPREAD: f64 = 1.5;

/// The structural similarity of each image [B, C, H, W] with its target (Wang et al. 2004): Gaussian windows of 11×11 that lie within
/// the image, the mean over pixels and channels; [B] in f64. `range` is the largest possible value minus the smallest.
///
/// Errors: shapes that differ or are not images of at least 11×11 pixels, a range that is not above 0.
pub fn ssim(x: &Tensor, target: &Tensor, range: f64) -> Result<Tensor> {
    if !(range > 0.0 && range.is_finite()) {
        return Err(Error::value(format!("ssim: the range must be a finite number above 0, not {range}")));
    }
    difference("ssim", x, target)?;
    let (b, c, h, w) = match *x.dims() {
        [b, c, h, w] if h >= WINDOW && w >= WINDOW => (b, c, h, w),
        ref dims => {
            let m = format!("ssim: needs images [B, C, H, W] of at least {WINDOW}×{WINDOW} pixels, not {dims:?}");
            return Err(Error::shape(m, &[dims]));
        }
    };
    let flat = |t: &Tensor| -> Result<Vec<f64>> {
        Ok(t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    };
    let (x, y) = (flat(x)?, flat(target)?);
    let plane = h * w;
    let one = |i: usize| {
        let planes = (0..c).map(|k| {
            let at = (i * c + k) * plane;
            of_plane(&x[at..at + plane], &y[at..at + plane], [h, w], range)
        });
        planes.sum::<f64>() / c as f64
    };
    let each: Vec<f64> = (0..b).into_par_iter().map(one).collect();
    Ok(Tensor::from_vec(each, b, &Device::Cpu)?)
}

/// The mean over one channel.
fn of_plane(x: &[f64], y: &[f64], size: [usize; 2], range: f64) -> f64 {
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let [mx, my] = [x, y].map(|v| blurred(v, size));
    let [xx, yy, xy] = [product(x, x), product(y, y), product(x, y)].map(|v| blurred(&v, size));
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let one = |i: usize| {
        let (mx, my) = (mx[i], my[i]);
        let (vx, vy, cov) = (xx[i] - mx * mx, yy[i] - my * my, xy[i] - mx * my);
        ((2.0 * mx * my + c1) * (2.0 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    };
    (0..mx.len()).map(one).sum::<f64>() / mx.len() as f64
}

/// The weighted mean in each window that lies within the plane.
fn blurred(x: &[f64], [h, w]: [usize; 2]) -> Vec<f64> {
    let at = |i: usize| (-0.5 * ((i as f64 - (WINDOW / 2) as f64) / SPREAD).powi(2)).exp();
    let sum: f64 = (0..WINDOW).map(at).sum();
    let taps: Vec<f64> = (0..WINDOW).map(|i| at(i) / sum).collect();
    let (oh, ow) = (h + 1 - WINDOW, w + 1 - WINDOW);
    let along =
        |x: &[f64], i: usize, step: usize| taps.iter().enumerate().map(|(k, t)| t * x[i + k * step]).sum::<f64>();
    let rows: Vec<f64> = (0..h).flat_map(|i| (0..ow).map(move |j| i * w + j)).map(|i| along(x, i, 1)).collect();
    (0..oh * ow).map(|i| along(&rows, i, ow)).collect()
}
