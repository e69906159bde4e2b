//! A tensor as a view of data in a file.
use super::data::Data;
use super::dtype::size;
use crate::files::pickle::{Fault, Outcome, Shared};
use safetensors::Dtype;

/// A view that is larger than its data (one value expanded to many) may have this many bytes.
const EXPANDED: usize = 1 << 28;
/// The most dimensions of a tensor, as in PyTorch.
pub const DIMENSIONS: usize = 64;

/// A tensor that lies in a file: which of its bytes, in which order. All of them are inside the storage.
#[derive(Debug, Clone)]
pub struct View {
    dtype: Dtype,
    shape: Vec<usize>,
    /// In values, as many as there are dimensions.
    strides: Vec<usize>,
    /// Of the first value, in values.
    offset: usize,
    storage: Data,
    big_endian: bool,
    sign: Sign,
}

/// What reading a tensor does to its values: PyTorch negates and conjugates by setting a bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sign {
    /// Every value is the negative of what is stored.
    pub negated: bool,
    /// Every complex value is the conjugate of what is stored.
    pub conjugated: bool,
}

/// The strides of a shape whose values lie in order, or in Fortran's order.
pub fn strides(shape: &[usize], fortran: bool) -> Vec<usize> {
    let mut out = vec![1usize; shape.len()];
    let mut step = 1usize;
    for i in 0..shape.len() {
        let i = if fortran { i } else { shape.len() - 1 - i };
        out[i] = step;
        step = step.saturating_mul(shape[i].max(1));
    }
    out
}

impl View {
    /// A view, if it stays inside its storage; otherwise what is wrong with it.
    pub fn new(
        storage: Data,
        dtype: Dtype,
        big_endian: bool,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<View, String> {
        let width = size(dtype);
        if shape.len() != strides.len() {
            return Err(format!("a tensor with {} dimensions and {} strides", shape.len(), strides.len()));
        }
        if shape.len() > DIMENSIONS {
            return Err(format!("a tensor with {} dimensions, more than {DIMENSIONS}", shape.len()));
        }
        if width == 0 {
            return Err(format!("a tensor of type {dtype:?}, whose values are smaller than a byte"));
        }
        let empty = shape.contains(&0);
        // strides are made of the other sizes of an empty one, too
        let bytes = shape.iter().try_fold(width, |n, d| n.checked_mul((*d).max(1)));
        let bytes = bytes.map(|n| if empty { 0 } else { n });
        let last = shape
            .iter()
            .zip(&strides)
            .filter(|_| !empty)
            .try_fold(offset, |at, (d, s)| (d - 1).checked_mul(*s)?.checked_add(at));
        let end = last.and_then(|l| l.checked_add(!empty as usize)?.checked_mul(width));
        match (bytes, end) {
            (Some(bytes), Some(end)) if empty || end <= storage.len() => match bytes <= storage.len().max(EXPANDED) {
                true => Ok(View { dtype, shape, strides, offset, storage, big_endian, sign: Sign::default() }),
                false => Err(format!(
                    "a tensor of shape {shape:?} that repeats {} bytes of data into {bytes}",
                    storage.len()
                )),
            },
            _ => Err(format!(
                "a tensor of shape {shape:?}, strides {strides:?} and offset {offset} that reaches beyond its {} bytes of data",
                storage.len()
            )),
        }
    }
    /// The same with its values negated or conjugated as they are read.
    pub fn signed(self, sign: Sign) -> View {
        View { sign, ..self }
    }
    /// The bytes that it takes beyond those of its data, where it repeats them.
    pub fn repeated(&self) -> usize {
        self.len().saturating_sub(self.storage.len())
    }
    /// The strides of a tensor whose values lie in row-major order.
    pub fn row_major(shape: &[usize]) -> Vec<usize> {
        strides(shape, false)
    }
    /// The type of its values.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// The number of its values.
    pub fn count(&self) -> usize {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().product() }
    }
    /// The number of bytes of its values.
    pub fn len(&self) -> usize {
        self.count() * size(self.dtype)
    }
    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }
    /// The values in row-major order, little-endian: where they lie so in memory, that part of it, otherwise a copy. Faults where the
    /// file was changed since it was opened, or does not have the checksum that it should.
    pub fn bytes(&self) -> Outcome<Shared> {
        let width = size(self.dtype);
        if self.is_empty() {
            return Ok(Shared::new([]));
        }
        let last: usize = self.shape.iter().zip(&self.strides).map(|(d, s)| (d - 1) * s).sum();
        let touched = self.storage.part(self.offset * width, (last + 1) * width);
        let outside = || Fault::new(self.storage.start(), "a tensor that reaches beyond its data");
        let data = touched.ok_or_else(outside)?.read()?;
        let plain = strides(&self.shape, false);
        let along = self.shape.iter().zip(self.strides.iter().zip(&plain)).all(|(d, (a, b))| *d < 2 || a == b);
        // a complex number is two values, each with its own order of bytes
        let word = if self.dtype == Dtype::C64 { 4 } else { width };
        let turned = self.big_endian && word > 1;
        if along && !turned && self.sign == Sign::default() {
            return Ok(data);
        }
        let mut out = if along { data.to_vec() } else { self.gather(&data, width) };
        if turned {
            out.chunks_exact_mut(word).for_each(<[u8]>::reverse);
        }
        self.sign.apply(&mut out, self.dtype, word);
        Ok(Shared::new(out))
    }
    fn gather(&self, data: &[u8], width: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        loop {
            out.extend_from_slice(data.get(at * width..(at + 1) * width).unwrap_or_default());
            // the next index, the last dimension fastest
            let mut dim = self.shape.len();
            loop {
                if dim == 0 {
                    return out;
                }
                dim -= 1;
                index[dim] += 1;
                at += self.strides[dim];
                if index[dim] < self.shape[dim] {
                    break;
                }
                at -= index[dim] * self.strides[dim];
                index[dim] = 0;
            }
        }
    }
}

impl Sign {
    fn apply(self, values: &mut [u8], dtype: Dtype, word: usize) {
        use Dtype::*;
        let float = matches!(dtype, F64 | F32 | F16 | BF16 | C64 | F8_E4M3 | F8_E5M2);
        for (i, v) in values.chunks_exact_mut(word).enumerate() {
            let imaginary = dtype == C64 && i % 2 == 1;
            if self.negated == (self.conjugated && imaginary) {
                continue;
            }
            match v {
                [.., top] if float => *top ^= 0x80,
                // two's complement: invert, add one
                _ => {
                    let mut carry = true;
                    for b in v {
                        (*b, carry) = (!*b).overflowing_add(carry as u8);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(offset: usize, shape: &[usize], strides: &[usize]) -> Result<View, String> {
        let data: Vec<u8> = (0..24).collect();
        View::new(Shared::new(data).into(), Dtype::I16, false, offset, shape.to_vec(), strides.to_vec())
    }

    #[test]
    fn values_come_in_the_order_of_their_indices() {
        let values = |v: View| v.bytes().unwrap().chunks_exact(2).map(|b| b[0] / 2).collect::<Vec<_>>();
        assert_eq!(values(view(0, &[3, 4], &[4, 1]).unwrap()), (0..12).collect::<Vec<_>>());
        assert_eq!(view(2, &[2, 4], &[4, 1]).unwrap().bytes().unwrap()[0], 4);
        assert_eq!(values(view(0, &[4, 3], &[1, 4]).unwrap()), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(values(view(5, &[2, 3], &[0, 0]).unwrap()), [5; 6]);
        assert_eq!(values(view(11, &[], &[]).unwrap()), [11]);
        assert_eq!(values(view(1, &[3, 1], &[4, 99]).unwrap()), [1, 5, 9]);
        assert!(values(view(99, &[0, 7], &[1, 1]).unwrap()).is_empty());
    }

    #[test]
    fn values_are_negated_and_conjugated_as_they_are_read() {
        let read = |dtype, data: &[u8], sign| {
            let n = data.len() / size(dtype);
            let v = View::new(Shared::new(data.to_vec()).into(), dtype, false, 0, vec![n], vec![1]).unwrap();
            v.signed(sign).bytes().unwrap().to_vec()
        };
        let neg = Sign { negated: true, conjugated: false };
        let conj = Sign { negated: false, conjugated: true };
        assert_eq!(read(Dtype::I16, &[1, 0, 0, 0, 0, 1], neg), [255, 255, 0, 0, 0, 255]);
        assert_eq!(read(Dtype::F32, &1.5f32.to_le_bytes(), neg), (-1.5f32).to_le_bytes());
        let complex = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
        assert_eq!(read(Dtype::C64, &complex, conj), [1f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        let both = Sign { negated: true, conjugated: true };
        assert_eq!(read(Dtype::C64, &complex, both), [(-1f32).to_le_bytes(), 2f32.to_le_bytes()].concat());
    }

    #[test]
    fn no_view_reaches_beyond_its_data() {
        for (offset, shape, strides) in [
            (1, &[3usize, 4][..], &[4usize, 1][..]),
            (12, &[], &[]),
            (0, &[2], &[12]),
            (usize::MAX, &[1], &[1]),
            (0, &[usize::MAX, usize::MAX], &[0, 0]),
            (0, &[2, 2], &[usize::MAX, usize::MAX]),
            (0, &[1 << 40], &[0]),
            (0, &[2, 2], &[1]),
            (0, &[1; 65], &[1; 65]),
        ] {
            assert!(view(offset, shape, strides).is_err(), "{offset} {shape:?} {strides:?}");
        }
    }
}
