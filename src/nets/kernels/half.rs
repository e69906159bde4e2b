//! Weights in the bits of the checkpoint: in f32, or in 16 bits that are widened, exactly, when a kernel reads them.
use super::simd::Aligned;
use candle_core::{CpuStorage, DType, Result, Storage, Tensor};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// How numbers lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// 32 bits.
    F32,
    /// IEEE's 16 bits.
    F16,
    /// The upper 16 bits of an f32.
    Bf16,
}

impl Form {
    /// The number that these bits are.
    #[inline(always)]
    pub fn value(self, bits: u32) -> f32 {
        match self {
            Form::F32 => f32::from_bits(bits),
            Form::F16 => of_f16(bits as u16),
            Form::Bf16 => of_bf16(bits as u16),
        }
    }
}

#[inline(always)]
fn of_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Of a finite number; branches would keep the compiler from using vectors.
#[inline(always)]
fn of_f16(bits: u16) -> f32 {
    let (sign, rest) = ((bits as u32 & 0x8000) << 16, (bits as u32 & 0x7fff) << 13);
    // below 2⁻¹⁴ there is no leading 1 to count
    let tiny = f32::from_bits(rest + (113 << 23)) - f32::from_bits(113 << 23);
    let bits = if rest < 1 << 23 { tiny.to_bits() } else { rest + (112 << 23) };
    f32::from_bits(bits | sign)
}

struct Widen<'a>(Form, &'a [u16], &'a mut [f32]);
impl WithSimd for Widen<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Widen(form, from, to) = self;
        match form {
            Form::Bf16 => to.iter_mut().zip(from).for_each(|(to, bits)| *to = of_bf16(*bits)),
            _ => to.iter_mut().zip(from).for_each(|(to, bits)| *to = of_f16(*bits)),
        }
    }
}

/// Many numbers in one form.
pub enum Store {
    /// In f32, from a cache line on.
    Wide(Aligned),
    /// In 16 bits.
    Half(Form, Vec<u16>),
}

impl Default for Store {
    fn default() -> Self {
        Store::Wide(Aligned::default())
    }
}

impl Store {
    /// Zeros.
    pub fn zeros(form: Form, n: usize) -> Store {
        match form {
            Form::F32 => Store::Wide(Aligned::zeros(n)),
            _ => Store::Half(form, vec![0; n]),
        }
    }
    /// Writes the bits that `at` gives for the places of `range`.
    pub fn set(&mut self, range: Range<usize>, at: impl Fn(usize) -> u32) {
        match self {
            Store::Wide(all) => {
                let n = all.slice().len();
                let part = &mut all.take(n)[range];
                part.iter_mut().enumerate().for_each(|(i, to)| *to = f32::from_bits(at(i)));
            }
            Store::Half(_, all) => all[range].iter_mut().enumerate().for_each(|(i, to)| *to = at(i) as u16),
        }
    }
    /// How they lie.
    pub fn form(&self) -> Form {
        match self {
            Store::Wide(_) => Form::F32,
            Store::Half(form, _) => *form,
        }
    }
    /// The bits of number `i`.
    #[inline(always)]
    pub fn bits(&self, i: usize) -> u32 {
        match self {
            Store::Wide(all) => all.slice()[i].to_bits(),
            Store::Half(_, all) => all[i] as u32,
        }
    }
    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        match self {
            Store::Wide(all) => 4 * all.slice().len(),
            Store::Half(_, all) => 2 * all.len(),
        }
    }
    /// Some of them in f32, widened into `scratch` where need be.
    #[inline(always)]
    pub fn part<'a, S: Simd>(&'a self, simd: S, range: Range<usize>, scratch: &'a mut Aligned) -> &'a [f32] {
        match self {
            Store::Wide(all) => &all.slice()[range],
            Store::Half(form, all) => {
                let to = scratch.take(range.len());
                simd.vectorize(Widen(*form, &all[range], to));
                to
            }
        }
    }
}

/// A weight's bits in the order in which the checkpoint has them.
pub enum Raw {
    /// In f32.
    Wide(Vec<f32>),
    /// In 16 bits.
    Half(Form, Vec<u16>),
}

impl Raw {
    /// Of a tensor on the CPU; none where it is in no 16 bits.
    pub fn half(t: &Tensor) -> Result<Option<Raw>> {
        let form = match t.dtype() {
            DType::F16 => Form::F16,
            DType::BF16 => Form::Bf16,
            _ => return Ok(None),
        };
        let t = t.contiguous()?;
        let (storage, layout) = t.storage_and_layout();
        let (from, n) = (layout.start_offset(), t.elem_count());
        let bits = match &*storage {
            Storage::Cpu(CpuStorage::F16(v)) => v[from..from + n].iter().map(|v| v.to_bits()).collect(),
            Storage::Cpu(CpuStorage::BF16(v)) => v[from..from + n].iter().map(|v| v.to_bits()).collect(),
            _ => return Ok(None),
        };
        Ok(Some(Raw::Half(form, bits)))
    }
    /// How they lie.
    pub fn form(&self) -> Form {
        match self {
            Raw::Wide(_) => Form::F32,
            Raw::Half(form, _) => *form,
        }
    }
    /// The bits of number `i`.
    #[inline(always)]
    pub fn bits(&self, i: usize) -> u32 {
        match self {
            Raw::Wide(all) => all[i].to_bits(),
            Raw::Half(_, all) => all[i] as u32,
        }
    }
}
