//! The tensor operations of scripts, each at three sizes, by the functions that scripts call.
use super::cases::{Case, Inputs, Run, Tensors};
use crate::host::Quiet;
use crate::nets::{constant, normal, pointwise};
use crate::tensor::arith::Op;
use crate::tensor::conv::{self, Geometry};
use crate::tensor::{elementwise, grad, linalg, reduce};
use crate::{Error, Result};
use candle_core::Tensor;

/// The shapes of an operation's inputs, small, medium and large. Those after the first are weights.
type Shapes = fn(usize) -> Vec<Vec<usize>>;
/// The operation.
type Apply = fn(&[Tensor]) -> Result<Tensor>;

/// Side and channels of images and tokens: small, medium, large.
const SIDE: [usize; 3] = [8, 16, 32];
const CHANNELS: [usize; 3] = [32, 64, 128];

fn images(k: usize) -> Vec<usize> {
    vec![4, CHANNELS[k], SIDE[k], SIDE[k]]
}
fn tokens(k: usize) -> Vec<usize> {
    vec![4, SIDE[k] * SIDE[k], CHANNELS[k]]
}
fn weighted(k: usize) -> Vec<Vec<usize>> {
    vec![tokens(k), vec![CHANNELS[k]], vec![CHANNELS[k]]]
}
fn geometry(stride: usize, padding: usize) -> Geometry {
    Geometry { stride, padding, ..Geometry::default() }
}

/// The operations by name.
const OPERATIONS: [(&str, Shapes, Apply); 14] = [
    ("silu", |k| vec![images(k)], |t| pointwise::by(pointwise::kernel("silu").as_ref(), &t[0], elementwise::silu)),
    (
        "sigmoid",
        |k| vec![images(k)],
        |t| pointwise::by(pointwise::kernel("sigmoid").as_ref(), &t[0], elementwise::sigmoid),
    ),
    ("gelu", |k| vec![images(k)], |t| pointwise::by(pointwise::kernel("gelu").as_ref(), &t[0], elementwise::gelu)),
    ("exp", |k| vec![images(k)], |t| elementwise::exp(&t[0])),
    ("sum of two", |k| vec![images(k), images(k)], |t| pointwise::binary(Op::Add, &t[0], &t[1])),
    (
        "product with channels",
        |k| vec![images(k), vec![CHANNELS[k], 1, 1]],
        |t| pointwise::binary(Op::Mul, &t[0], &t[1]),
    ),
    ("sum over pixels", |k| vec![images(k)], |t| reduce::sum(&t[0], Some(&[2, 3]), false)),
    ("softmax", |k| vec![tokens(k)], |t| pointwise::softmax(&t[0], -1)),
    ("layer_norm", weighted, |t| normal::layer_norm(&t[0], Some(&t[1]), Some(&t[2]), 1e-5)),
    (
        "group_norm",
        |k| vec![images(k), vec![CHANNELS[k]], vec![CHANNELS[k]]],
        |t| normal::group_norm(&t[0], 8, Some(&t[1]), Some(&t[2]), 1e-5),
    ),
    ("matmul", |k| vec![tokens(k), vec![CHANNELS[k], CHANNELS[k]]], |t| linalg::matmul(&t[0], &t[1])),
    (
        "linear",
        |k| vec![tokens(k), vec![CHANNELS[k], CHANNELS[k]], vec![CHANNELS[k]]],
        |t| pointwise::linear(&t[0], &t[1], Some(&t[2])),
    ),
    (
        "conv2d",
        |k| vec![images(k), vec![CHANNELS[k], CHANNELS[k], 3, 3], vec![CHANNELS[k]]],
        |t| constant::conv2d(&t[0], &t[1], Some(&t[2]), geometry(1, 1)),
    ),
    (
        "conv_transpose2d",
        |k| vec![images(k), vec![CHANNELS[k], CHANNELS[k] / 2, 4, 4], vec![CHANNELS[k] / 2]],
        |t| conv::conv_transpose2d(&t[0], &t[1], Some(&t[2]), geometry(2, 1), 0),
    ),
];

/// All operations at all sizes, forward, and with the gradients of everything.
pub(super) fn cases() -> Vec<Case> {
    let sizes = |(name, ..): &(&str, Shapes, Apply)| {
        let name = name.to_string();
        (0..6).map(move |i| Case::Op { op: name.clone(), size: i / 2, gradient: i % 2 == 1 })
    };
    OPERATIONS.iter().flat_map(sizes).collect()
}

/// Milliseconds that one run should take at least, so that clocks see it.
const LONG_ENOUGH: f64 = 5.0;

/// Makes an operation ready to run.
pub(super) fn prepare(op: &str, size: usize, gradient: bool, inputs: &Inputs) -> Result<Run> {
    let Some((_, shapes, apply)) = OPERATIONS.iter().find(|(name, ..)| *name == op).copied() else {
        return Err(Error::unknown("operation of `bench`", op, OPERATIONS.iter().map(|o| o.0)));
    };
    if size > 2 {
        return Err(Error::value(format!("the sizes of an operation are 0, 1 and 2, not {size}")));
    }
    let each = shapes(size).into_iter().enumerate().map(|(i, dims)| inputs.get(&format!("in{i}"), &dims));
    let given = each.collect::<Result<Vec<_>>>()?;
    let once = move || -> Result<Tensors> {
        if !gradient {
            return Ok([("y".to_string(), grad::no_grad(|| apply(&given))?)].into());
        }
        let vars = given.iter().map(grad::variable).collect::<Result<Vec<_>>>()?;
        let y = apply(&vars)?;
        let cot = y.ones_like()?.detach();
        let grads = grad::vjp(&Quiet, &[(y.clone(), cot)], &vars)?;
        let named = grads.into_iter().enumerate().map(|(i, g)| (format!("g{i}"), g));
        Ok(named.chain([("y".to_string(), y.detach())]).collect())
    };
    let start = std::time::Instant::now();
    once()?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    Ok(Run::repeated(once, (LONG_ENOUGH / ms.max(1e-3)).ceil().clamp(1.0, 1000.0) as u32))
}
