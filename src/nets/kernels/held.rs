//! An operation's weights in memory once: packed for the CPU's kernels, or as tensors for the composed form and for GPUs.
use super::half::Raw;
use super::host_f32;
use candle_core::{DType, Device, Result, Tensor};
use std::sync::OnceLock;

/// Weights as a kernel reads them, which can give them back.
pub(super) trait Pack {
    /// The elements in the order [out, in, taps].
    fn unpack(&self) -> Vec<f32>;
    /// Bytes that they take.
    fn bytes(&self) -> usize;
}

/// A weight [out, in, …] and a bias [out].
pub(super) enum Held<P> {
    /// In f32 on the CPU: packed, in the 16 bits of the checkpoint where it has those, with the bias beside it.
    Packed(P, Vec<f32>),
    /// Otherwise as tensors, packed only if the CPU's kernels are asked for. Those for a GPU's kernels stay on the host: the GPU has
    /// its own layout for each direction.
    Tensors(Tensor, Tensor, OnceLock<P>),
}

impl<P: Pack> Held<P> {
    /// A weight of 16 bits beside a bias in f32 stays in them on the CPU, and is widened as it is used.
    pub fn new(weight: &Tensor, bias: &Tensor, pack: impl FnOnce(&Raw, &[f32]) -> P) -> Result<Self> {
        if weight.device().is_cpu() && bias.dtype() == DType::F32 {
            let raw = match Raw::half(weight)? {
                None if weight.dtype() == DType::F32 => Some(Raw::Wide(host_f32(weight)?)),
                other => other,
            };
            if let Some(raw) = raw {
                let b = host_f32(bias)?;
                return Ok(Held::Packed(pack(&raw, &b), b));
            }
        }
        let place = |t: &Tensor| match t.dtype() {
            DType::F64 => Ok(t.clone()),
            _ => t.to_device(&Device::Cpu),
        };
        Ok(Held::Tensors(place(weight)?, place(bias)?, OnceLock::new()))
    }

    /// As the kernels read it.
    pub fn packed(&self, pack: impl FnOnce(&Raw, &[f32]) -> P) -> &P {
        match self {
            Held::Packed(p, _) => p,
            // tensors on the host are read, which cannot fail
            Held::Tensors(w, b, packed) => packed.get_or_init(|| {
                let [w, b] = [w, b].map(|t| host_f32(t).unwrap_or_default());
                pack(&Raw::Wide(w), &b)
            }),
        }
    }

    /// The weight's values in f32, in the order [out, in, taps].
    pub fn values(&self) -> Result<Vec<f32>> {
        match self {
            Held::Packed(p, _) => Ok(p.unpack()),
            Held::Tensors(w, ..) => host_f32(w),
        }
    }

    /// The bias's values in f32.
    pub fn bias(&self) -> Result<Vec<f32>> {
        match self {
            Held::Packed(_, b) => Ok(b.clone()),
            Held::Tensors(_, b, _) => host_f32(b),
        }
    }

    /// Weight of shape `dims` and bias as tensors.
    pub fn tensors(&self, dims: &[usize]) -> Result<Vec<Tensor>> {
        Ok(match self {
            Held::Packed(p, b) => {
                vec![Tensor::from_vec(p.unpack(), dims, &Device::Cpu)?, Tensor::from_slice(b, b.len(), &Device::Cpu)?]
            }
            Held::Tensors(w, b, _) => vec![w.reshape(dims)?, b.clone()],
        })
    }

    /// Bytes that they take on the host.
    pub fn bytes(&self) -> usize {
        match self {
            Held::Packed(p, b) => p.bytes() + 4 * b.len(),
            Held::Tensors(w, b, p) => {
                let of = |t: &Tensor| t.elem_count() * t.dtype().size_in_bytes();
                of(w) + of(b) + p.get().map_or(0, P::bytes)
            }
        }
    }
}

/// A weight where the inputs are, and of their type.
pub(super) fn like(weight: &Tensor, x: &Tensor) -> Result<Tensor> {
    weight.to_device(x.device())?.to_dtype(x.dtype())
}
