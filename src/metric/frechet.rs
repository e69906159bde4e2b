//! The Fréchet distance between Gaussians.
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
/// The trace of the root is Σ√λ over the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric: no root of a general matrix
/// is taken, and singular covariances need no offset.
///
/// Errors: shapes, values that are not finite, covariances that are not symmetric (1e-6) or have an eigenvalue
/// clearly below 0.
pub fn frechet_distance(mean1: &Tensor, cov1: &Tensor, mean2: &Tensor, cov2: &Tensor) -> Result<f64> {
    let (m1, s1) = read("the first", mean1, cov1)?;
    let (m2, s2) = read("the second", mean2, cov2)?;
    if m1.len() != m2.len() {
        let m = format!("frechet: the two have {} and {} dimensions", m1.len(), m2.len());
        return Err(Error::shape(m, &[mean1.dims(), mean2.dims()]));
    }
    let square: f64 = m1.iter().zip(&m2).map(|(a, b)| (a - b) * (a - b)).sum();
    let traces = s1.trace() + s2.trace();
    let root = square_root(s1)?;
    crate::host::check_cancelled()?;
    let mut inner = &root * s2 * &root;
    symmetrize(&mut inner);
    let trace_root: f64 = inner.symmetric_eigenvalues().iter().map(|l| l.max(0.0).sqrt()).sum();
    Ok((square + traces - 2.0 * trace_root).max(0.0))
}

fn read(which: &str, mean: &Tensor, cov: &Tensor) -> Result<(Vec<f64>, DMatrix<f64>)> {
    let d = mean.elem_count();
    if mean.rank() != 1 || cov.dims() != [d, d] {
        let m = format!("frechet: {which}: needs mean [D] and cov [D, D], not {:?} and {:?}", mean.dims(), cov.dims());
        return Err(Error::shape(m, &[mean.dims(), cov.dims()]));
    }
    let flat = |t: &Tensor| -> Result<Vec<f64>> {
        Ok(t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    };
    let (mean, cov) = (flat(mean)?, flat(cov)?);
    if mean.iter().chain(&cov).any(|v| !v.is_finite()) {
        return Err(Error::value(format!("frechet: {which} mean or covariance is not finite")));
    }
    let mut cov = DMatrix::from_row_slice(d, d, &cov);
    let size = cov.amax();
    if (&cov - cov.transpose()).amax() > 1e-6 * size {
        return Err(Error::value(format!("frechet: {which} covariance is not symmetric")));
    }
    symmetrize(&mut cov);
    Ok((mean, cov))
}

fn symmetrize(m: &mut DMatrix<f64>) {
    *m = (&*m + m.transpose()) * 0.5;
}

/// The symmetric root of a positive semi-definite matrix.
fn square_root(m: DMatrix<f64>) -> Result<DMatrix<f64>> {
    let size = m.amax();
    let e = m.symmetric_eigen();
    if let Some(l) = e.eigenvalues.iter().find(|l| **l < -1e-6 * size) {
        return Err(Error::value(format!("frechet: a covariance has the negative eigenvalue {l:e}")));
    }
    let scaled = DMatrix::from_fn(e.eigenvectors.nrows(), e.eigenvectors.ncols(), |i, j| {
        e.eigenvectors[(i, j)] * e.eigenvalues[j].max(0.0).sqrt()
    });
    Ok(scaled * e.eigenvectors.transpose())
}
