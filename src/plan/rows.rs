//! Noise columns per sample: sample i depends on (seed, column, i) alone, never on the batch it is in.
use crate::Result;
use crate::denoise::State;
use crate::tensor::random::{normal, stream};
use candle_core::Tensor;

/// Noise column `column` for each part of `like`: parts after the first have generators of their own.
pub fn normal_state(seed: u64, first: u64, column: usize, like: &State) -> Result<State> {
    let part = |(i, t): (usize, &Tensor)| normal_part(seed, first, column, i, t);
    Ok(like.with_values(like.values().enumerate().map(part).collect::<Result<Vec<_>>>()?))
}

/// Noise column `column` of a stochastic sampler: unit-variance noise of the shape, dtype and device of `like` [B, …]; row i
/// belongs to sample `first + i`.
pub fn normal_like(seed: u64, first: u64, column: usize, like: &Tensor) -> Result<Tensor> {
    normal_part(seed, first, column, 0, like)
}

/// The same for part `part` of a state.
fn normal_part(seed: u64, first: u64, column: usize, part: usize, like: &Tensor) -> Result<Tensor> {
    // the columns share the samplers' stream number, each with a high half of its own, whose highest byte is the part
    let stream = stream::SAMPLER | (column as u64) << 32 | (part as u64) << 56;
    normal(seed, first, like.dims(), stream, like.dtype(), like.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

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
