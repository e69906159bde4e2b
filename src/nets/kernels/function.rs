//! Functions of each value, with their slopes, of forms that the compiler turns into vectors.
use super::pointwise::{each, exp};
use super::{Frozen, View, pool};
use crate::tensor::elementwise as el;
use candle_core::Tensor;

/// A function of each value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Function {
    /// e^x.
    Exp,
    /// ln x.
    Log,
    /// √x.
    Sqrt,
    /// 1/√x.
    Rsqrt,
    /// 1/x.
    Recip,
    /// x².
    Square,
    /// −x.
    Neg,
    /// sin x.
    Sin,
    /// cos x.
    Cos,
    /// tanh x.
    Tanh,
    /// 1/(1 + e^−x).
    Sigmoid,
    /// GELU's tanh form.
    GeluTanh,
}

/// The functions by the names that they have in scripts.
pub const FUNCTIONS: [(&str, Function); 14] = [
    ("exp", Function::Exp),
    ("log", Function::Log),
    ("ln", Function::Log),
    ("sqrt", Function::Sqrt),
    ("rsqrt", Function::Rsqrt),
    ("recip", Function::Recip),
    ("square", Function::Square),
    ("sqr", Function::Square),
    ("neg", Function::Neg),
    ("sin", Function::Sin),
    ("cos", Function::Cos),
    ("tanh", Function::Tanh),
    ("sigmoid", Function::Sigmoid),
    ("gelu_tanh", Function::GeluTanh),
];

/// e^x over the whole range: the fast form stops at e^88 and e^−87.
#[inline(always)]
fn exp_all(x: f32) -> f32 {
    let y = exp(x);
    let y = if x < -87.0 { 0.0 } else { y };
    let y = if x > 88.722_83 { f32::INFINITY } else { y };
    if x.is_nan() { x } else { y }
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x: by a quotient, and near 0 by the series, where the quotient loses digits.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    let s = x * x;
    let near = x * (1.0 + s * (-0.333_333_33 + s * (0.133_333_33 + s * (-0.053_968_254 + s * 0.021_869_488))));
    if s < 0.04 { near } else { far }
}

/// √(2/π), and the cubic's factor.
const GELU: (f32, f32) = (0.797_884_6, 0.044_715);

#[inline(always)]
fn gelu_tanh(x: f32) -> (f32, f32) {
    let t = tanh(GELU.0 * (x + GELU.1 * x * x * x));
    let inner = GELU.0 * (1.0 + 3.0 * GELU.1 * x * x);
    (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
}

impl Frozen for Function {
    fn name(&self) -> &'static str {
        FUNCTIONS.iter().find(|(_, f)| f == self).map_or("function", |(name, _)| name)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let x = inputs[0].data;
        match self {
            Function::Exp => each(x, x, out, par, |x, _| exp_all(x)),
            Function::Log => each(x, x, out, par, |x, _| x.ln()),
            Function::Sqrt => each(x, x, out, par, |x, _| x.sqrt()),
            Function::Rsqrt => each(x, x, out, par, |x, _| 1.0 / x.sqrt()),
            Function::Recip => each(x, x, out, par, |x, _| 1.0 / x),
            Function::Square => each(x, x, out, par, |x, _| x * x),
            Function::Neg => each(x, x, out, par, |x, _| -x),
            Function::Sin => each(x, x, out, par, |x, _| x.sin()),
            Function::Cos => each(x, x, out, par, |x, _| x.cos()),
            Function::Tanh => each(x, x, out, par, |x, _| tanh(x)),
            Function::Sigmoid => each(x, x, out, par, |x, _| sigmoid(x)),
            Function::GeluTanh => each(x, x, out, par, |x, _| gelu_tanh(x).0),
        }
    }
    fn saves(&self) -> bool {
        *self != Function::Neg
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (x, mut grad) = (inputs[0].data, pool::take(cot.len()));
        let to = &mut grad;
        match self {
            Function::Exp => each(x, cot, to, par, |x, g| g * exp_all(x)),
            Function::Log => each(x, cot, to, par, |x, g| g / x),
            Function::Sqrt => each(x, cot, to, par, |x, g| 0.5 * g / x.sqrt()),
            Function::Rsqrt => each(x, cot, to, par, |x, g| -0.5 * g / (x * x.sqrt())),
            Function::Recip => each(x, cot, to, par, |x, g| -g / (x * x)),
            Function::Square => each(x, cot, to, par, |x, g| 2.0 * x * g),
            Function::Neg => each(cot, cot, to, par, |g, _| -g),
            Function::Sin => each(x, cot, to, par, |x, g| g * x.cos()),
            Function::Cos => each(x, cot, to, par, |x, g| -g * x.sin()),
            Function::Tanh => each(x, cot, to, par, |x, g| g * (1.0 - tanh(x) * tanh(x))),
            Function::Sigmoid => each(x, cot, to, par, |x, g| g * sigmoid(x) * (1.0 - sigmoid(x))),
            Function::GeluTanh => each(x, cot, to, par, |x, g| g * gelu_tanh(x).1),
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let f: el::Unary = match self {
            Function::Exp => el::exp,
            Function::Log => el::log,
            Function::Sqrt => el::sqrt,
            Function::Rsqrt => el::rsqrt,
            Function::Recip => el::recip,
            Function::Square => el::square,
            Function::Neg => crate::tensor::arith::neg,
            Function::Sin => el::sin,
            Function::Cos => el::cos,
            Function::Tanh => el::tanh,
            Function::Sigmoid => el::sigmoid,
            Function::GeluTanh => el::gelu_tanh,
        };
        f(inputs[0]).map_err(|e| candle_core::Error::Msg(e.to_string()))
    }
}
