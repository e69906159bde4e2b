//! The Inception Score.
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// exp of the mean KL divergence of each sample's classes from those of all (Salimans et al. 2016), from logits [N, C]: mean and
/// standard deviation (of the population) over `splits` runs of samples in their order.
///
/// Errors: logits that are not [N, C] or not finite, fewer samples than splits.
pub fn inception_score(logits: &Tensor, splits: usize) -> Result<(f64, f64)> {
    let &[n, c] = logits.dims() else {
        let m = format!("inception_score: logits must be [N, C], not {:?}", logits.dims());
        return Err(Error::shape(m, &[logits.dims()]));
    };
    if splits == 0 || n < splits || c == 0 {
        return Err(Error::value(format!("inception_score: {n} samples of {c} classes cannot be in {splits} parts")));
    }
    let mut p: Vec<f64> = logits.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    if let Some(i) = p.iter().position(|v| !v.is_finite()) {
        return Err(Error::value(format!("inception_score: row {} of the logits is not finite", i / c)));
    }
    for row in p.chunks_exact_mut(c) {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|v| *v = (*v - top).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
    }
    let part = |i: usize| {
        let rows = &p[i * n / splits * c..(i + 1) * n / splits * c];
        let count = (rows.len() / c) as f64;
        let mut all = vec![0.0; c];
        rows.chunks_exact(c).for_each(|row| all.iter_mut().zip(row).for_each(|(a, v)| *a += v / count));
        // 0 · ln 0 is 0
        let divergence = |(v, a): (&f64, &f64)| if *v > 0.0 { v * (v.ln() - a.ln()) } else { 0.0 };
        let sum: f64 = rows.chunks_exact(c).map(|row| row.iter().zip(&all).map(divergence).sum::<f64>()).sum();
        (sum / count).exp()
    };
    let each: Vec<f64> = (0..splits).map(part).collect();
    let mean = each.iter().sum::<f64>() / splits as f64;
    let variance = each.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / splits as f64;
    Ok((mean, variance.sqrt()))
}
