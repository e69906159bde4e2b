//! The frames in which clouds are compared: a place and a size of each, as diffusion-point-cloud normalizes them.
use super::sizes;
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Where clouds lie and how large they are: x = (cloud − shift) / scale.
#[derive(Debug, Clone)]
pub struct Frame {
    /// [B, 1, 3], or [1, 3] of one cloud.
    pub shift: Tensor,
    /// [B, 1, 1], or [1, 1] of one cloud.
    pub scale: Tensor,
}

impl Frame {
    /// The names of the frames.
    pub const NAMES: [&str; 5] = ["bbox", "unit", "half", "34", "global"];

    /// The clouds in it.
    pub fn normalized(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.detach().broadcast_sub(&self.shift)?.broadcast_div(&self.scale)?)
    }
}

/// The frame of each cloud of [B, N, 3] (or of one cloud), in the clouds' own type:
///
/// - "bbox": the middle of the bounding box, and half of its largest side, so that coordinates are in [−1, 1]
/// - "unit": the mean, and the standard deviation of all numbers of the cloud together (n − 1 in its denominator)
/// - "half", "34": the mean, and twice that, or 4/3 of it
/// - "global": the mean of the cloud, and the standard deviation of all numbers of the whole set
///
/// Errors: a cloud without extent, whose scale would be 0.
pub fn frame(x: &Tensor, how: &str) -> Result<Frame> {
    let (count, points) = sizes("cloud", x)?;
    let single = x.rank() == 2;
    let y = x.detach().reshape((count, points, 3))?.to_dtype(DType::F64)?;
    let deviation = |all: &[f64]| {
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        (all.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)).sqrt()
    };
    let each: Vec<Vec<f64>> = y.reshape((count, 3 * points))?.to_vec2()?;
    if let Some(i) = each.iter().position(|c| c.iter().any(|v| !v.is_finite())) {
        return Err(Error::value(format!("cloud: cloud {i} has values that are not finite")));
    }
    let per_cloud = |factor: f64| each.iter().map(|c| factor * deviation(c)).collect::<Vec<f64>>();
    let (shift, scale) = match how {
        "bbox" => {
            let (low, high) = (y.min_keepdim(1)?, y.max_keepdim(1)?);
            let sides: Vec<Vec<f64>> = (&high - &low)?.reshape((count, 3))?.to_vec2()?;
            let half = sides.iter().map(|s| 0.5 * s.iter().copied().fold(0.0, f64::max)).collect();
            (((low + high)? * 0.5)?, half)
        }
        "unit" => (y.mean_keepdim(1)?, per_cloud(1.0)),
        "half" => (y.mean_keepdim(1)?, per_cloud(1.0 / 0.5)),
        "34" => (y.mean_keepdim(1)?, per_cloud(1.0 / 0.75)),
        "global" => (y.mean_keepdim(1)?, vec![deviation(&each.concat()); count]),
        other => return Err(Error::unknown("frame of clouds", other, Frame::NAMES)),
    };
    if let Some(i) = scale.iter().position(|s| !(*s > 0.0 && s.is_finite())) {
        let m = format!("cloud: cloud {i} has no extent: all of its points are at one place");
        return Err(Error::value(m).hint("leave such clouds out"));
    }
    let scale = Tensor::from_vec(scale, (count, 1, 1), &candle_core::Device::Cpu)?.to_device(x.device())?;
    let fit = |t: Tensor| -> Result<Tensor> {
        let t = t.to_dtype(x.dtype())?;
        Ok(if single { t.squeeze(0)? } else { t })
    };
    Ok(Frame { shift: fit(shift)?, scale: fit(scale)? })
}
