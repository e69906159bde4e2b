//! Class labels: one-hot rows, and labels drawn by seed.
use crate::Result;
use crate::tensor::index;
use crate::tensor::random::{generator, stream};
use candle_core::{DType, Device, Tensor};
use rand_chacha::rand_core::Rng;

/// One-hot rows [len, classes].
///
/// # Errors
/// No class, a label that is not from 0 to `classes` − 1.
pub fn one_hot(labels: &[i64], classes: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let labels = Tensor::from_slice(labels, labels.len(), &Device::Cpu)?;
    Ok(index::one_hot(&labels, classes)?.to_dtype(dtype)?.to_device(device)?)
}

/// Labels of samples `first..first + n`, uniform over `classes`. Sample i's label depends on (seed, i) only.
pub fn draw_labels(seed: u64, first: u64, n: usize, classes: usize) -> Vec<i64> {
    (0..n as u64)
        .map(|i| {
            let mut rng = generator(seed, stream::CONDITION, first.wrapping_add(i));
            // the high word of a 64×64-bit product: uniform up to classes/2⁶⁴
            ((u128::from(rng.next_u64()) * classes as u128) >> 64) as i64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_depend_on_seed_and_index_alone() {
        let all = draw_labels(7, 0, 1000, 10);
        assert_eq!(all[400..410], draw_labels(7, 400, 10, 10));
        assert_ne!(all, draw_labels(8, 0, 1000, 10));
        for class in 0..10 {
            let n = all.iter().filter(|l| **l == class).count();
            assert!((60..150).contains(&n), "class {class} was drawn {n} times in 1000");
        }
    }
    #[test]
    fn labels_out_of_range_are_named() {
        for bad in [-1, 10, i64::MAX] {
            let e = one_hot(&[0, bad], 10, DType::F32, &Device::Cpu).unwrap_err();
            assert!(e.message().contains(&bad.to_string()), "{e}");
        }
    }
}
