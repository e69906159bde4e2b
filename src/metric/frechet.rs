//! The Fréchet distance between Gaussians.
use super::stats::Stats;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use nalgebra::DMatrix;

/// The mean [D] and the unbiased covariance [D, D] of features [N, D], N ≥ 2, in f64 on the CPU.
pub fn gaussian(features: &Tensor) -> Result<(Tensor, Tensor)> {
    let shape = features.dims();
    let &[n, _] = shape else {
        return Err(Error::shape(format!("gaussian: features must be [N, D], not {shape:?}"), &[shape]));
    };
    if n < 2 {
        return Err(Error::shape(format!("gaussian: a covariance needs at least 2 rows, not {n}"), &[shape]));
    }
    let x = features.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let mean = x.mean(0)?;
    let c = x.broadcast_sub(&mean)?;
    let cov = (c.t()?.matmul(&c)? / (n - 1) as f64)?;
    Ok((mean, cov))
}

/// ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) for means [D] and covariances [D, D], in f64 (FID, on Inception features).
///
/// With Σ₁ = LLᵀ the trace of the root is Σ√λ over the eigenvalues of LᵀΣ₂L, which is symmetric: no root of a general matrix
/// is taken, and singular covariances need no offset.
///
/// Errors: shapes, values that are not finite, covariances that are not symmetric (1e-6) or have an eigenvalue
/// clearly below 0.
pub fn frechet_distance(mean1: &Tensor, cov1: &Tensor, mean2: &Tensor, cov2: &Tensor) -> Result<f64> {
    let (m1, s1) = checked("frechet: the first", mean1, cov1)?;
    let (m2, s2) = checked("frechet: the second", mean2, cov2)?;
    if m1.len() != m2.len() {
        let m = format!("frechet: the two have {} and {} dimensions", m1.len(), m2.len());
        return Err(Error::shape(m, &[mean1.dims(), mean2.dims()]));
    }
    // a covariance is told to be none by its factor
    factor(s2.clone(), m2.len())?;
    Root::of(m1, s1)?.distance(&m2, s2)
}

/// The Fréchet distance between the Gaussians of two sets of features.
///
/// Errors: other widths, features of other networks or made otherwise, fewer than 2 samples.
pub fn frechet(a: &Stats, b: &Stats) -> Result<f64> {
    same_features(a, b)?;
    let ((m1, s1), (m2, s2)) = (a.moments()?, b.moments()?);
    frechet_distance(&m1, &s1, &m2, &s2)
}

/// Fails where two statistics say that their features are of different networks, or of images resized differently.
pub(super) fn same_features(a: &Stats, b: &Stats) -> Result<()> {
    if a.width() != b.width() {
        let m = format!("frechet: features of width {} and {} are of different networks", a.width(), b.width());
        return Err(Error::shape(m, &[&[a.width()], &[b.width()]]));
    }
    for key in ["network", "resize", "layer"] {
        if let (Some(x), Some(y)) = (a.about.get(key), b.about.get(key))
            && x != y
        {
            let e = Error::value(format!("frechet: `{key}` is {x} in one and {y} in the other"));
            return Err(e.hint("compare features that were made in the same way"));
        }
    }
    Ok(())
}

/// One side of Fréchet distances that are taken to many others.
pub(super) struct Root {
    mean: Vec<f64>,
    trace: f64,
    /// Its covariance is LLᵀ.
    factor: DMatrix<f64>,
}

impl Root {
    /// Of a mean and a covariance, row by row.
    pub fn of(mean: Vec<f64>, cov: Vec<f64>) -> Result<Root> {
        let d = mean.len();
        let trace = (0..d).map(|i| cov[i * d + i]).sum();
        Ok(Root { factor: factor(cov, d)?, mean, trace })
    }
    /// Of statistics.
    pub fn of_stats(stats: &Stats) -> Result<Root> {
        let (mean, cov) = stats.moments()?;
        let (mean, cov) = checked("frechet: the reference", &mean, &cov)?;
        Root::of(mean, cov)
    }
    /// The distance to another mean and covariance, row by row.
    pub fn distance(&self, mean: &[f64], cov: Vec<f64>) -> Result<f64> {
        let d = self.mean.len();
        let square: f64 = self.mean.iter().zip(mean).map(|(a, b)| (a - b) * (a - b)).sum();
        let other = DMatrix::from_vec(d, d, cov);
        let trace = other.trace();
        crate::host::check_cancelled()?;
        let mut inner = self.factor.transpose() * other * &self.factor;
        crate::host::check_cancelled()?;
        symmetric(inner.as_mut_slice(), self.factor.ncols());
        let root: f64 = inner.symmetric_eigenvalues().iter().map(|l| l.max(0.0).sqrt()).sum();
        Ok((square + self.trace + trace - 2.0 * root).max(0.0))
    }
}

/// A mean and a symmetric covariance row by row, after checking that they are these.
pub(super) fn checked(which: &str, mean: &Tensor, cov: &Tensor) -> Result<(Vec<f64>, Vec<f64>)> {
    let d = mean.elem_count();
    if mean.rank() != 1 || cov.dims() != [d, d] {
        let m = format!("{which}: needs mean [D] and cov [D, D], not {:?} and {:?}", mean.dims(), cov.dims());
        return Err(Error::shape(m, &[mean.dims(), cov.dims()]));
    }
    let flat = |t: &Tensor| -> Result<Vec<f64>> {
        Ok(t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    };
    let (mean, mut cov) = (flat(mean)?, flat(cov)?);
    if mean.iter().chain(&cov).any(|v| !v.is_finite()) {
        return Err(Error::value(format!("{which} mean or covariance is not finite")));
    }
    let size = cov.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let uneven = |i: usize| (0..i).any(|j| (cov[i * d + j] - cov[j * d + i]).abs() > 1e-6 * size);
    if (0..d).any(uneven) {
        return Err(Error::value(format!("{which} covariance is not symmetric")));
    }
    symmetric(&mut cov, d);
    Ok((mean, cov))
}

/// Replaces each entry and its mirror image by their mean.
pub(super) fn symmetric(m: &mut [f64], d: usize) {
    for i in 0..d {
        for j in 0..i {
            let mean = 0.5 * (m[i * d + j] + m[j * d + i]);
            (m[i * d + j], m[j * d + i]) = (mean, mean);
        }
    }
}

/// L [D, R] with LLᵀ a positive semi-definite matrix of rank R, by Cholesky's method with the largest pivot first.
fn factor(mut m: Vec<f64>, d: usize) -> Result<DMatrix<f64>> {
    let size = m.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    // what rounding leaves of a pivot that is 0
    let least = d as f64 * f64::EPSILON * size;
    let mut left: Vec<usize> = (0..d).collect();
    let mut columns: Vec<f64> = vec![];
    let mut rank = 0;
    while !left.is_empty() {
        crate::host::check_cancelled()?;
        let pivot = |i: &usize| m[i * d + i];
        let (at, _) = left.iter().enumerate().max_by(|a, b| pivot(a.1).total_cmp(&pivot(b.1))).unwrap_or((0, &0));
        let k = left[at];
        if m[k * d + k] <= least {
            break;
        }
        left.swap_remove(at);
        let root = m[k * d + k].sqrt();
        let mut column = vec![0.0; d];
        column[k] = root;
        left.iter().for_each(|i| column[*i] = m[k * d + i] / root);
        for i in &left {
            let f = column[*i];
            let row = &mut m[i * d..][..d];
            row.iter_mut().zip(&column).for_each(|(r, c)| *r -= f * c);
        }
        columns.extend(column);
        rank += 1;
    }
    // what is left of a positive semi-definite matrix is rounding
    let rest = left.iter().flat_map(|i| left.iter().map(|j| m[*i * d + *j].abs())).fold(0.0, f64::max);
    if rest > 1e-6 * size {
        return Err(Error::value("frechet: a covariance has a negative eigenvalue"));
    }
    Ok(DMatrix::from_vec(d, rank, columns))
}
