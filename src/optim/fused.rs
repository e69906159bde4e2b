//! Passes over all tensors of a tree at once: updates, running means, norms and checks. On the CPU in f32 and f64 every value is touched
//! once, in pieces that the threads share; elsewhere the same is composed of candle's operations.
use crate::{Error, Kind, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rayon::prelude::*;

/// Values in a piece: as a rule of sizes alone, so that sums do not depend on threads.
pub(super) const PIECE: usize = 1 << 14;

/// f32 and f64.
pub(super) trait Value: candle_core::WithDType + Send + Sync + 'static {
    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
    fn root(self) -> Self;
    fn most(self, other: Self) -> Self;
    fn values(s: &CpuStorage) -> Option<&[Self]>;
}

macro_rules! value {
    ($t:ty, $kind:ident) => {
        impl Value for $t {
            fn of(x: f64) -> Self {
                x as $t
            }
            fn wide(self) -> f64 {
                f64::from(self)
            }
            fn root(self) -> Self {
                self.sqrt()
            }
            fn most(self, other: Self) -> Self {
                self.max(other)
            }
            fn values(s: &CpuStorage) -> Option<&[Self]> {
                if let CpuStorage::$kind(v) = s { Some(v) } else { None }
            }
        }
    };
}
value!(f32, F32);
value!(f64, F64);

/// Whether these passes take `t` as it is.
pub(super) fn takes(t: &Tensor) -> bool {
    t.device().is_cpu() && matches!(t.dtype(), DType::F32 | DType::F64)
}

/// The values of a tensor on the CPU.
pub(super) fn with<T: Value, R>(t: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(s) => T::values(s).map(|v| f(&v[layout.start_offset()..][..t.elem_count()])),
        _ => None,
    }
    .ok_or_else(|| Error::new(Kind::Internal, "values of another type or device"))
}

/// The values of a tensor on the CPU, copied.
pub(super) fn copied<T: Value>(t: &Tensor) -> Result<Vec<T>> {
    with(t, <[T]>::to_vec)
}

/// Whether every value of `t` is a finite number.
pub fn finite(t: &Tensor) -> Result<bool> {
    fn all<T: Value>(v: &[T]) -> bool {
        v.par_chunks(PIECE).all(|v| v.iter().all(|x| x.wide().is_finite()))
    }
    let t = t.detach();
    match t.dtype() {
        DType::F32 if takes(&t) => with(&t, all::<f32>),
        DType::F64 if takes(&t) => with(&t, all::<f64>),
        _ => {
            // x·0 is 0 for finite x and NaN otherwise, and NaN survives the sum
            let s = (t.to_dtype(DType::F64)? * 0.0)?.sum_all()?.to_scalar::<f64>()?;
            Ok(s == 0.0)
        }
    }
}

/// Σ x² in f64.
pub(super) fn square(t: &Tensor) -> Result<f64> {
    fn sum<T: Value>(v: &[T]) -> f64 {
        // a chain of its own for each of eight lanes would change the bits of what is short
        let piece = |v: &[T]| v.iter().fold(0.0, |s, x| s + x.wide() * x.wide());
        v.par_chunks(PIECE).map(piece).collect::<Vec<f64>>().iter().sum()
    }
    let t = t.detach();
    match t.dtype() {
        DType::F32 if takes(&t) => with(&t, sum::<f32>),
        DType::F64 if takes(&t) => with(&t, sum::<f64>),
        _ => Ok(t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?),
    }
}

/// x·a + y·b for each tensor x of `a` and its y of `b`, of x's type.
///
/// Errors: lists of other lengths, shapes that differ.
pub fn blend(a: &[Tensor], b: &[Tensor], wa: f64, wb: f64) -> Result<Vec<Tensor>> {
    if a.len() != b.len() {
        return Err(Error::value(format!("{} tensors and {} do not fit together", a.len(), b.len())));
    }
    a.iter().zip(b).map(|(a, b)| one(&a.detach(), &b.detach(), wa, wb)).collect()
}

fn one(a: &Tensor, b: &Tensor, wa: f64, wb: f64) -> Result<Tensor> {
    fn mix<T: Value>(a: &Tensor, b: &Tensor, wa: f64, wb: f64) -> Result<Tensor> {
        let mut out = copied::<T>(a)?;
        let (wa, wb) = (T::of(wa), T::of(wb));
        with(b, |b: &[T]| {
            let pieces = out.par_chunks_mut(PIECE).zip(b.par_chunks(PIECE));
            pieces.for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a = *a * wa + *b * wb));
        })?;
        Ok(Tensor::from_vec(out, a.shape(), &Device::Cpu)?)
    }
    if a.dims() != b.dims() {
        let m = format!("tensors of shapes {:?} and {:?} do not fit together", a.dims(), b.dims());
        return Err(Error::shape(m, &[a.dims(), b.dims()]));
    }
    let b = b.to_device(a.device())?.to_dtype(a.dtype())?;
    match a.dtype() {
        DType::F32 if takes(a) => mix::<f32>(a, &b, wa, wb),
        DType::F64 if takes(a) => mix::<f64>(a, &b, wa, wb),
        _ => Ok(((a * wa)? + (b * wb)?)?),
    }
}
