//! The vector arithmetic of plans: fused linear combinations, inner products and checks. One pass over memory on the
//! CPU, candle operations elsewhere.
use crate::Result;
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

/// Elements that are accumulated at a time: small enough for the first-level cache.
const CHUNK: usize = 1024;

/// Gives `f` the CPU slice of a contiguous f32 or f64 tensor; `None` for anything else.
fn on_cpu<T>(t: &Tensor, f: impl FnOnce(Slice) -> T) -> Option<T> {
    let (storage, layout) = t.storage_and_layout();
    let (start, end) = layout.contiguous_offsets()?;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(v)) => Some(f(Slice::F32(&v[start..end]))),
        Storage::Cpu(CpuStorage::F64(v)) => Some(f(Slice::F64(&v[start..end]))),
        _ => None,
    }
}
#[derive(Clone, Copy)]
enum Slice<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

fn fast(t: &Tensor) -> bool {
    matches!(t.device(), Device::Cpu) && matches!(t.dtype(), DType::F32 | DType::F64)
}

/// Σ c · v, of the shape, dtype and device of `like`. Sums in f64 on the CPU, in at least f32 elsewhere.
pub fn combine(terms: &[(f64, &Tensor)], like: &Tensor) -> Result<Tensor> {
    let terms: Vec<(f64, Tensor)> =
        terms.iter().filter(|(c, _)| *c != 0.0).map(|(c, v)| Ok((*c, v.contiguous()?))).collect::<Result<_>>()?;
    if terms.is_empty() {
        return Ok(like.zeros_like()?.detach());
    }
    if fast(like) && terms.iter().all(|(_, v)| fast(v) && v.dtype() == like.dtype() && v.dims() == like.dims()) {
        return combine_cpu(&terms, like);
    }
    let wide = match like.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let mut sum: Option<Tensor> = None;
    for (c, v) in &terms {
        let v = v.to_dtype(wide)?.affine(*c, 0.0)?;
        sum = Some(match sum {
            Some(s) => (s + v)?,
            None => v,
        });
    }
    match sum {
        Some(s) => Ok(s.to_dtype(like.dtype())?.detach()),
        None => Ok(like.zeros_like()?.detach()),
    }
}

fn combine_cpu(terms: &[(f64, Tensor)], like: &Tensor) -> Result<Tensor> {
    let n = like.elem_count();
    let mut out32 = Vec::new();
    let mut out64 = Vec::new();
    match like.dtype() {
        DType::F32 => out32.reserve_exact(n),
        _ => out64.reserve_exact(n),
    }
    let mut acc = [0.0f64; CHUNK];
    let mut at = 0;
    while at < n {
        let len = CHUNK.min(n - at);
        let acc = &mut acc[..len];
        acc.fill(0.0);
        for (c, v) in terms {
            on_cpu(v, |s| match s {
                Slice::F32(v) => acc.iter_mut().zip(&v[at..at + len]).for_each(|(a, x)| *a += c * f64::from(*x)),
                Slice::F64(v) => acc.iter_mut().zip(&v[at..at + len]).for_each(|(a, x)| *a += c * x),
            });
        }
        match like.dtype() {
            DType::F32 => out32.extend(acc.iter().map(|a| *a as f32)),
            _ => out64.extend_from_slice(acc),
        }
        at += len;
    }
    Ok(match like.dtype() {
        DType::F32 => Tensor::from_vec(out32, like.shape(), like.device())?,
        _ => Tensor::from_vec(out64, like.shape(), like.device())?,
    })
}

/// A number that a CPU knows, and that a GPU will have computed by the time it is asked for: asking waits for all that was
/// enqueued, so it is done once for many.
pub enum Scalar {
    /// The number.
    Known(f64),
    /// An f64 scalar on a device.
    Later(Tensor),
}

impl Scalar {
    /// The number, now.
    pub fn get(self) -> Result<f64> {
        Ok(Scalar::read(vec![self])?[0])
    }
    /// All numbers, with one transfer.
    pub fn read(all: Vec<Scalar>) -> Result<Vec<f64>> {
        let later: Vec<&Tensor> =
            all.iter().filter_map(|s| if let Scalar::Later(t) = s { Some(t) } else { None }).collect();
        let read: Vec<f64> = if later.is_empty() { vec![] } else { Tensor::stack(&later, 0)?.to_vec1()? };
        let mut read = read.into_iter();
        let number = |s: &Scalar| match s {
            Scalar::Known(v) => *v,
            Scalar::Later(_) => read.next().unwrap_or(f64::NAN),
        };
        Ok(all.iter().map(number).collect())
    }
}

/// ⟨a, b⟩ in f64, in an order that depends on the length alone.
pub fn dot(a: &Tensor, b: &Tensor) -> Result<Scalar> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let sum = on_cpu(&a, |a| {
        on_cpu(&b, |b| match (a, b) {
            (Slice::F32(a), Slice::F32(b)) => lanes(a, b, |x| f64::from(*x)),
            (Slice::F64(a), Slice::F64(b)) => lanes(a, b, |x| *x),
            _ => f64::NAN,
        })
    });
    match sum.flatten() {
        Some(s) if a.dtype() == b.dtype() => Ok(Scalar::Known(s)),
        _ => Ok(Scalar::Later((a.to_dtype(DType::F64)? * b.to_dtype(DType::F64)?)?.sum_all()?)),
    }
}

fn lanes<T>(a: &[T], b: &[T], wide: impl Fn(&T) -> f64) -> f64 {
    let mut acc = [0.0f64; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (s, (a, b)) in acc.iter_mut().zip(a.iter().zip(b)) {
            *s += wide(a) * wide(b);
        }
    }
    acc.iter().sum()
}

/// Whether no element is NaN or infinite.
pub fn is_finite(t: &Tensor) -> Result<bool> {
    Ok(oddity(t)?.get()? == 0.0)
}

/// 0 if all elements are finite, anything else (NaN) if not.
pub fn oddity(t: &Tensor) -> Result<Scalar> {
    let t = t.contiguous()?;
    let cpu = on_cpu(&t, |s| match s {
        Slice::F32(v) => v.iter().all(|x| x.is_finite()),
        Slice::F64(v) => v.iter().all(|x| x.is_finite()),
    });
    match cpu {
        Some(ok) => Ok(Scalar::Known(if ok { 0.0 } else { f64::NAN })),
        // 0 · x is 0 for finite x and NaN for the rest; the sum cannot overflow
        None => Ok(Scalar::Later(t.affine(0.0, 0.0)?.sum_all()?.to_dtype(DType::F64)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_agree_with_candle_operations_in_both_precisions() -> Result<()> {
        for dtype in [DType::F32, DType::F64] {
            let a = Tensor::randn(0.0, 1.0, (3, 1001), &Device::Cpu)?.to_dtype(dtype)?;
            let b = Tensor::randn(0.0, 1.0, (1001, 3), &Device::Cpu)?.to_dtype(dtype)?.t()?;
            let ours = combine(&[(0.5, &a), (0.0, &a), (-2.0, &b)], &a)?;
            let theirs = (a.affine(0.5, 0.0)? + b.affine(-2.0, 0.0)?)?;
            let d: f64 = (ours - theirs)?.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar()?;
            assert!(d < 1e-6, "{d}");
            let theirs: f64 = (&a * &b)?.to_dtype(DType::F64)?.sum_all()?.to_scalar()?;
            assert!((dot(&a, &b)?.get()? - theirs).abs() < 1e-4);
        }
        Ok(())
    }

    #[test]
    fn a_single_bad_element_is_found() -> Result<()> {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut v = vec![1.0; 2000];
            v[1999] = bad;
            assert!(!is_finite(&Tensor::new(v.as_slice(), &Device::Cpu)?)?);
        }
        assert!(is_finite(&Tensor::full(f64::MAX, 2000, &Device::Cpu)?)?);
        Ok(())
    }
}
