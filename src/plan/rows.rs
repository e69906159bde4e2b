//! Noise columns and class labels per sample: sample i depends on (seed, i) alone, never on the batch it is in.
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// What random numbers are for: different uses of one seed are independent.
#[derive(Debug, Clone, Copy)]
pub enum Use {
    /// Noise column c of a stochastic sampler.
    Column(usize),
    /// Class labels.
    Labels,
    /// The noise to start from.
    Start,
}

fn rng(seed: u64, sample: u64, what: Use) -> ChaCha8Rng {
    let (tag, index) = match what {
        Use::Column(c) => (1u64, c as u64),
        Use::Labels => (2, 0),
        Use::Start => (3, 0),
    };
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&tag.to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(sample);
    rng
}

/// Unit-variance noise of the shape, dtype and device of `like` [B, …]; row i belongs to sample `first + i`.
pub fn normal_like(seed: u64, first: u64, column: usize, like: &Tensor) -> Result<Tensor> {
    normal(seed, first, Use::Column(column), like)
}

/// Unit-variance noise to start from, by the same rule.
pub fn start_like(seed: u64, first: u64, like: &Tensor) -> Result<Tensor> {
    normal(seed, first, Use::Start, like)
}

fn normal(seed: u64, first: u64, what: Use, like: &Tensor) -> Result<Tensor> {
    let rows = like.dims().first().copied().unwrap_or(1);
    let per_row = like.elem_count().checked_div(rows).unwrap_or(0);
    let mut v: Vec<f64> = Vec::with_capacity(like.elem_count());
    for i in 0..rows {
        let mut rng = rng(seed, first.wrapping_add(i as u64), what);
        v.extend((0..per_row).map(|_| -> f64 { StandardNormal.sample(&mut rng) }));
    }
    let t = Tensor::from_vec(v, like.shape(), &Device::Cpu)?;
    Ok(t.to_dtype(like.dtype())?.to_device(like.device())?)
}

/// The class of a sample, uniform over `classes` ≥ 1 by seed.
pub fn uniform_label(seed: u64, sample: u64, classes: usize) -> usize {
    let u = rng(seed, sample, Use::Labels).next_u64();
    ((u128::from(u) * classes as u128) >> 64) as usize
}

/// Class labels for samples `first..first + rows`, uniform over `classes`, as one-hot rows [rows, classes].
pub fn uniform_labels(
    seed: u64,
    first: u64,
    rows: usize,
    classes: usize,
    dtype: DType,
    dev: &Device,
) -> Result<Tensor> {
    let labels: Vec<usize> = (0..rows).map(|i| uniform_label(seed, first.wrapping_add(i as u64), classes)).collect();
    one_hot(&labels, classes, dtype, dev)
}

/// One-hot rows [B, classes]; an index past the last class is an error.
pub fn one_hot(labels: &[usize], classes: usize, dtype: DType, dev: &Device) -> Result<Tensor> {
    let mut v = vec![0f32; labels.len() * classes];
    for (i, l) in labels.iter().enumerate() {
        if *l >= classes {
            return Err(Error::value(format!(
                "class {l} does not exist: the network has classes 0 to {}",
                classes - 1
            )));
        }
        v[i * classes + l] = 1.0;
    }
    Ok(Tensor::from_vec(v, (labels.len(), classes), &Device::Cpu)?.to_dtype(dtype)?.to_device(dev)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_depend_on_seed_sample_and_column_only() -> Result<()> {
        let like = Tensor::zeros((5, 3, 2), DType::F64, &Device::Cpu)?;
        let all = normal_like(7, 0, 1, &like)?;
        let tail = normal_like(7, 3, 1, &like.narrow(0, 0, 2)?)?;
        assert_eq!(all.narrow(0, 3, 2)?.flatten_all()?.to_vec1::<f64>()?, tail.flatten_all()?.to_vec1::<f64>()?);
        for other in [normal_like(8, 0, 1, &like)?, normal_like(7, 1, 1, &like)?, normal_like(7, 0, 2, &like)?] {
            assert_ne!(all.flatten_all()?.to_vec1::<f64>()?, other.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok(())
    }
}
