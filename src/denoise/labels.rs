//! Class labels: one-hot rows, and labels drawn by seed.
use crate::tensor::random::{generator, stream};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rand_chacha::rand_core::Rng;

/// One-hot rows [len, classes].
pub fn one_hot(labels: &[i64], classes: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    if classes == 0 {
        return Err(Error::value("the number of classes must be at least 1"));
    }
    if labels.is_empty() {
        return Err(Error::value("one_hot needs at least one label"));
    }
    let size = labels.len().checked_mul(classes).filter(|n| *n <= 1 << 31);
    let Some(size) = size else {
        return Err(Error::value(format!("{} rows of {classes} classes are too many", labels.len())));
    };
    let mut rows = vec![0f32; size];
    for (i, &label) in labels.iter().enumerate() {
        match usize::try_from(label) {
            Ok(l) if l < classes => rows[i * classes + l] = 1.0,
            _ => {
                let e = Error::value(format!("label {label} (number {i}) is not a class: there are {classes}"));
                return Err(e.hint(format!("labels count from 0 to {}", classes - 1)));
            }
        }
    }
    Ok(Tensor::from_vec(rows, (labels.len(), classes), device)?.to_dtype(dtype)?)
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
