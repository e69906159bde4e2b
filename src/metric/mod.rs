//! Metrics: how far samples are from a reference, per sample or as distributions.
mod bootstrap;
pub mod clouds;
mod extract;
mod frechet;
mod inception_score;
mod kernel;
mod neighbours;
pub mod poses;
mod rows;
mod ssim;
mod stats;

pub use bootstrap::{Interval, bootstrap, nearer};
pub use extract::{Extractor, NAMES, Reads};
pub use frechet::{frechet, frechet_distance, gaussian};
pub use inception_score::inception_score;
pub use kernel::{Tested, cmmd, kid, paired, two_sample};
pub use neighbours::{Neighbours, neighbours};
pub use rows::Rows;
pub use ssim::ssim;
pub use stats::{Stats, few};

use crate::loss::{difference, per_sample};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// The mean squared error of each sample [B, …] against its target, [B] in f64; not differentiated.
pub fn mse(x: &Tensor, target: &Tensor) -> Result<Tensor> {
    let (x, target) = (x.detach().to_dtype(DType::F64)?, target.detach().to_dtype(DType::F64)?);
    per_sample("mse", &difference("mse", &x, &target)?.sqr()?)
}

/// The peak signal-to-noise ratio of each sample in dB, 10 log₁₀(range² / mse), [B] in f64; infinite where equal.
/// `range` is the distance between the largest and smallest possible value: 2 for images in [−1, 1].
pub fn psnr(x: &Tensor, target: &Tensor, range: f64) -> Result<Tensor> {
    if !(range > 0.0 && range.is_finite()) {
        return Err(Error::value(format!("psnr: the range must be a finite number above 0, not {range}")));
    }
    let e: Vec<f64> = mse(x, target)?.to_vec1()?;
    let db: Vec<f64> = e.iter().map(|e| 10.0 * (range * range / e).log10()).collect();
    let n = db.len();
    Ok(Tensor::from_vec(db, n, x.device())?)
}
