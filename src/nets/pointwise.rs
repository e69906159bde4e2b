//! Functions of each value and softmax in scripts by the networks' kernels, in f32 on the CPU: candle's of these are several times as slow.
use super::kernels::{Frozen, Function, Gelu, Silu, Softmax, apply};
use crate::Result;
use crate::tensor::nn;
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// The function of that name in scripts, where a kernel is worth it.
pub fn kernel(name: &str) -> Option<Arc<dyn Frozen>> {
    Some(match name {
        "silu" => Arc::new(Silu),
        "sigmoid" => Arc::new(Function::Sigmoid),
        "gelu" => Arc::new(Gelu::Exact),
        "gelu_tanh" => Arc::new(Function::GeluTanh),
        _ => return None,
    })
}

/// `op` where x is f32 on the CPU, else `or`.
pub fn by(op: Option<&Arc<dyn Frozen>>, x: &Tensor, or: fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match op {
        Some(op) if x.dtype() == DType::F32 && x.device().is_cpu() => Ok(apply(op, &[x])?),
        _ => or(x),
    }
}

/// [`nn::softmax`], by its kernel along the last dimension: the exponential of a logarithm loses digits where values are large.
pub fn softmax(x: &Tensor, d: i64) -> Result<Tensor> {
    let last = d == -1 || d + 1 == x.rank() as i64;
    let softmax: Arc<dyn Frozen> = Arc::new(Softmax);
    match last && x.rank() > 0 && x.elem_count() > 0 && x.dtype() == DType::F32 && x.device().is_cpu() {
        true => Ok(apply(&softmax, &[x])?),
        false => nn::softmax(x, d),
    }
}
