//! Functions of each value and softmax in scripts by the networks' kernels, in f32 on the CPU: candle's of these are several times as slow.
use super::kernels::{Arithmetic, Broadcast, Frozen, Function, Gelu, Side, Silu, Softmax, apply};
use crate::Result;
use crate::tensor::arith::{self, Op};
use crate::tensor::dtype::broadcast;
use crate::tensor::grad::is_tracked;
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
        "tanh" => Arc::new(Function::Tanh),
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

/// [`arith::binary`] of two tensors, by a kernel where they are broadcast and differentiated: candle sums the gradient of what was
/// repeated in many passes.
pub fn binary(op: Op, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let arithmetic = match op {
        Op::Add => Arithmetic::Sum,
        Op::Sub => Arithmetic::Difference,
        Op::Mul => Arithmetic::Product,
        Op::Div => Arithmetic::Quotient,
        _ => return arith::binary(op, a, b),
    };
    let plain = |t: &Tensor| t.dtype() == DType::F32 && t.device().is_cpu() && t.elem_count() > 0;
    let worth = plain(a)
        && plain(b)
        && a.dims() != b.dims()
        && (is_tracked(a) || is_tracked(b))
        && broadcast("", a.dims(), b.dims()).is_ok();
    if !worth {
        return arith::binary(op, a, b);
    }
    let op: Arc<dyn Frozen> = Arc::new(Broadcast { op: arithmetic, sides: [Side::Input, Side::Input] });
    Ok(apply(&op, &[a, b])?)
}

/// [`nn::linear`], its bias added by [`binary`].
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(b) if weight.rank() == 2 && b.dims() == [weight.dims()[0]] => {
            binary(Op::Add, &nn::linear(x, weight, None)?, b)
        }
        _ => nn::linear(x, weight, bias),
    }
}
