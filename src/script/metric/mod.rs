//! Rhai functions for metrics: module `metric`.
mod clouds;
mod compare;
mod stats;

use super::error::RhaiResult;
use crate::Error;
use crate::schema::{Kind as Of, Opt, Schema, above, value};
use crate::tensor::aside;
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Dynamic, Engine, FLOAT, Map};

const RANGE: Opt = above("range", 2.0, [0.0, f64::MAX], "the largest possible value minus the smallest");
const PSNR: Schema = Schema::new("metric::psnr", &[RANGE]);
const SSIM: Schema = Schema::new("metric::ssim", &[RANGE]);
/// A Gaussian as `metric::gaussian` returns it.
const GAUSSIAN: Schema = Schema::new(
    "metric::frechet",
    &[value("mean", Of::TENSOR, "", "").needed("f.mean"), value("cov", Of::TENSOR, "", "").needed("f.cov")],
);
/// Options of this area's functions.
pub const SCHEMAS: &[&[Schema]] = &[&[PSNR, SSIM], clouds::SCHEMAS, compare::SCHEMAS, stats::SCHEMAS];

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    let mut metric = rhai::exported_module!(metric_api);
    metric.combine(rhai::exported_module!(clouds::clouds_api));
    metric.combine(rhai::exported_module!(compare::compare_api));
    metric.combine(rhai::exported_module!(stats::stats_api));
    engine.register_static_module("metric", metric.into());
    stats::register(engine);
}

/// Metrics; nothing here is differentiated.
#[export_module]
mod metric_api {
    /// The mean squared error of each sample, a tensor [B] in f64.
    ///
    /// Example: `metric::mse(ones([2, 3]), zeros([2, 3]))` is [1, 1]
    #[rhai_fn(return_raw)]
    pub fn mse(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        Ok(aside::run(aside::load(&[&x, &target]), move || crate::metric::mse(&x, &target))?)
    }
    /// The peak signal-to-noise ratio of each sample in dB, for images in [−1, 1]; a tensor [B] in f64.
    ///
    /// Example: `metric::psnr(ones([1, 4]), 0.9 * ones([1, 4]))` is about 26
    #[rhai_fn(return_raw)]
    pub fn psnr(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        psnr_with(x, target, Map::new())
    }
    /// The peak signal-to-noise ratio of each sample in dB, a tensor [B] in f64.
    ///
    /// Example: `metric::psnr(ones([1, 4]), zeros([1, 4]), #{ range: 255 })`
    #[rhai_fn(name = "psnr", return_raw)]
    pub fn psnr_with(x: Tensor, target: Tensor, options: Map) -> RhaiResult<Tensor> {
        let range = PSNR.read(options)?.number("range");
        Ok(aside::run(aside::load(&[&x, &target]), move || crate::metric::psnr(&x, &target, range))?)
    }
    /// The structural similarity of each image with its target, for images [B, C, H, W] in [−1, 1] of at least 11×11 pixels; a tensor [B] in f64.
    ///
    /// Gaussian windows of 11×11 pixels (σ = 1.5) that lie within the image; the mean over pixels and channels. Wang et al. 2004.
    ///
    /// Example: `metric::ssim(ones([1, 1, 12, 12]), ones([1, 1, 12, 12]))` is [1]
    #[rhai_fn(return_raw)]
    pub fn ssim(x: Tensor, target: Tensor) -> RhaiResult<Tensor> {
        ssim_with(x, target, Map::new())
    }
    /// The structural similarity of each image with its target, a tensor [B] in f64.
    ///
    /// Example: `metric::ssim(zeros([1, 1, 12, 12]), ones([1, 1, 12, 12]), #{ range: 1 })`
    #[rhai_fn(name = "ssim", return_raw)]
    pub fn ssim_with(x: Tensor, target: Tensor, options: Map) -> RhaiResult<Tensor> {
        let range = SSIM.read(options)?.number("range");
        // some 100 operations for each value
        let load = aside::load(&[&x, &target]).saturating_mul(100);
        Ok(aside::run(load, move || crate::metric::ssim(&x, &target, range))?)
    }
    /// The mean and the covariance of features [N, D], as a map `#{ mean, cov }` of tensors [D] and [D, D] in f64.
    ///
    /// Example: `metric::gaussian(randn([100, 3], #{ seed: 0 })).mean`
    #[rhai_fn(return_raw)]
    pub fn gaussian(features: Tensor) -> RhaiResult<Map> {
        let load = aside::load_of_pairs(&[&features, &features]);
        let (mean, cov) = aside::run(load, move || crate::metric::gaussian(&features))?;
        Ok(Map::from([("mean".into(), Dynamic::from(mean)), ("cov".into(), Dynamic::from(cov))]))
    }
    /// The Fréchet distance between two Gaussians (FID, when they are of Inception features), in f64.
    ///
    /// Arguments: two maps `#{ mean: [D], cov: [D, D] }` as `metric::gaussian` returns them.
    ///
    /// Dowson & Landau, 1982; Heusel et al., 2017.
    ///
    /// Example: `let f = metric::gaussian(randn([100, 3], #{ seed: 0 })); metric::frechet(f, f)` is 0
    #[rhai_fn(return_raw)]
    pub fn frechet(a: Map, b: Map) -> RhaiResult<FLOAT> {
        let read = |map: Map| -> RhaiResult<(Tensor, Tensor)> {
            let o = GAUSSIAN.read(map)?;
            match (o.native("mean"), o.native("cov")) {
                (Some(m), Some(c)) => Ok((m, c)),
                _ => Err(Error::value("metric::frechet: a Gaussian needs `mean` and `cov`").into()),
            }
        };
        let ((m1, c1), (m2, c2)) = (read(a)?, read(b)?);
        // roots and eigenvalues take the cube of D
        let load = aside::load_of_pairs(&[&c1, &c2]);
        Ok(aside::run(load, move || crate::metric::frechet_distance(&m1, &c1, &m2, &c2))?)
    }
}
