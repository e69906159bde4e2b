//! Sums, differences, products and quotients of two values, or of a value and a constant, broadcast together.
use super::lines::{Lines, broadcast, broadcast_strides, strides};
use super::pointwise::each;
use super::simd::dispatch;
use super::{Frozen, View, host_f32, pool};
use crate::tensor::arith;
use candle_core::Tensor;
use pulp::{Simd, WithSimd};
use std::sync::Arc;

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arithmetic {
    /// a + b.
    Sum,
    /// a − b.
    Difference,
    /// a · b.
    Product,
    /// a / b.
    Quotient,
}

/// A constant array.
#[derive(Clone)]
pub struct Fixed {
    data: Arc<[f32]>,
    tensor: Tensor,
}

impl Fixed {
    /// The values of a tensor, in f32.
    pub fn new(t: &Tensor) -> candle_core::Result<Fixed> {
        let tensor = t.detach().contiguous()?;
        Ok(Fixed { data: host_f32(&tensor)?.into(), tensor })
    }
    /// Its values and shape.
    pub fn view(&self) -> View<'_> {
        View { data: &self.data, dims: self.tensor.dims() }
    }
    /// As a tensor beside `x`.
    pub fn like(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.tensor.to_device(x.device())?.to_dtype(x.dtype())
    }
}

/// One side of an operation on two.
#[derive(Clone)]
pub enum Side {
    /// A value of the graph.
    Input,
    /// A constant.
    Fixed(Fixed),
}

/// The two sides, given the inputs.
pub(super) fn sides<'a>(of: &'a [Side; 2], inputs: &[View<'a>]) -> [View<'a>; 2] {
    let mut given = inputs.iter().copied();
    let mut one = |s: &'a Side| match s {
        Side::Input => given.next().unwrap_or(View { data: &[], dims: &[] }),
        Side::Fixed(f) => f.view(),
    };
    let [a, b] = of;
    [one(a), one(b)]
}

/// The two sides as tensors.
pub(super) fn tensor_sides(of: &[Side; 2], inputs: &[&Tensor]) -> candle_core::Result<[Tensor; 2]> {
    let mut given = inputs.iter();
    let mut one = |s: &Side| match s {
        Side::Input => {
            given.next().map(|t| (*t).clone()).ok_or_else(|| candle_core::Error::Msg("a side is missing".into()))
        }
        Side::Fixed(f) => f.like(inputs[0]),
    };
    let [a, b] = of;
    Ok([one(a)?, one(b)?])
}

/// How the constant sides of an operation print.
pub(super) fn told(of: &[Side; 2]) -> String {
    let one = |s: &Side| match s {
        Side::Input => "…".to_string(),
        Side::Fixed(f) if f.data.len() == 1 => format!("{}", f.data[0]),
        Side::Fixed(f) => format!("constant {:?}", f.tensor.dims()),
    };
    format!("{}, {}", one(&of[0]), one(&of[1]))
}

/// The element-wise operation on two sides, of which one may be constant.
pub struct Broadcast {
    /// What is computed.
    pub op: Arithmetic,
    /// Left and right.
    pub sides: [Side; 2],
}

/// Values that are summed in f32 before the sum goes into f64; a multiple of 16.
const BLOCK: usize = 4096;

/// Lines of an element-wise operation: out = f(a, b).
struct Forward<'a, F>(&'a Lines<3>, [&'a [f32]; 2], &'a mut [f32], F);
impl<F: Fn(f32, f32) -> f32> WithSimd for Forward<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Forward(lines, [a, b], out, f) = self;
        let (n, [_, sa, sb]) = (lines.len(), lines.along());
        lines.each(1, [0; 3], |[o, ia, ib]| {
            let out = &mut out[o..o + n];
            match (sa, sb) {
                (1, 1) => out.iter_mut().zip(&a[ia..ia + n]).zip(&b[ib..ib + n]).for_each(|((o, a), b)| *o = f(*a, *b)),
                (1, 0) => {
                    let b = b[ib];
                    out.iter_mut().zip(&a[ia..ia + n]).for_each(|(o, a)| *o = f(*a, b));
                }
                (0, 1) => {
                    let a = a[ia];
                    out.iter_mut().zip(&b[ib..ib + n]).for_each(|(o, b)| *o = f(a, *b));
                }
                _ => {
                    let (sa, sb) = (sa as usize, sb as usize);
                    out.iter_mut().enumerate().for_each(|(i, o)| *o = f(a[ia + i * sa], b[ib + i * sb]));
                }
            }
        });
    }
}

/// Lines of its pull-back to one side: to += g · slope(a, b), summed where the side was repeated.
struct Back<'a, F>(&'a Lines<4>, [&'a [f32]; 3], &'a mut [f32], F);
impl<F: Fn(f32, f32, f32) -> f32> WithSimd for Back<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Back(lines, [g, a, b], to, f) = self;
        let (n, [sg, sa, sb, st]) = (lines.len(), lines.along());
        let [sg, sa, sb] = [sg, sa, sb].map(|s| s as usize);
        lines.each(1, [0; 4], |[ig, ia, ib, it]| {
            // a stride that the compiler knows makes vectors
            macro_rules! line {
                ($sa:expr, $sb:expr) => {
                    if st == 0 {
                        // sixteen running sums, in blocks short enough for f32
                        let mut all = 0.0;
                        for block in (0..n).step_by(BLOCK) {
                            let mut lanes = [0f32; 16];
                            for at in (block..(block + BLOCK).min(n)).step_by(16) {
                                for (j, lane) in lanes[..(n - at).min(16)].iter_mut().enumerate() {
                                    let i = at + j;
                                    *lane += f(g[ig + i * sg], a[ia + i * $sa], b[ib + i * $sb]);
                                }
                            }
                            all += f64::from(lanes.iter().sum::<f32>());
                        }
                        to[it] += all as f32;
                    } else {
                        let to = &mut to[it..it + n];
                        let g = &g[ig..ig + n];
                        for (i, (t, g)) in to.iter_mut().zip(g).enumerate() {
                            *t += f(*g, a[ia + i * $sa], b[ib + i * $sb]);
                        }
                    }
                };
            }
            match (sa, sb) {
                (1, 1) => line!(1, 1),
                (1, 0) => line!(1, 0),
                (0, 1) => line!(0, 1),
                (0, 0) => line!(0, 0),
                _ => line!(sa, sb),
            }
        });
    }
}

impl Broadcast {
    fn forward(&self, [a, b]: [View; 2], out: &mut [f32], par: bool, f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send) {
        if a.dims == b.dims {
            return each(a.data, b.data, out, par, f);
        }
        if let ([b], true) = (b.data, a.data.len() == out.len()) {
            let b = *b;
            return each(a.data, a.data, out, par, move |a, _| f(a, b));
        }
        if let ([a], true) = (a.data, b.data.len() == out.len()) {
            let a = *a;
            return each(b.data, b.data, out, par, move |b, _| f(a, b));
        }
        let dims = broadcast(a.dims, b.dims).unwrap_or_default();
        let lines =
            Lines::new(&dims, [strides(&dims), broadcast_strides(a.dims, &dims), broadcast_strides(b.dims, &dims)]);
        dispatch(Forward(&lines, [a.data, b.data], out, f));
    }

    /// The gradient of one side, of shape `dims`; `f` is the slope times the cotangent.
    fn back(&self, [a, b]: [View; 2], cot: &[f32], to: &[usize], f: impl Fn(f32, f32, f32) -> f32 + Copy) -> Vec<f32> {
        let dims = broadcast(a.dims, b.dims).unwrap_or_default();
        let unread = [0.0];
        // a sum does not keep its sides, and does not look at them
        let side = |v: View| if v.data.is_empty() { vec![0; dims.len()] } else { broadcast_strides(v.dims, &dims) };
        let (sa, sb) = (side(a), side(b));
        let da = if a.data.is_empty() { &unread[..] } else { a.data };
        let db = if b.data.is_empty() { &unread[..] } else { b.data };
        let mut grad = pool::zeros(to.iter().product());
        let lines = Lines::new(&dims, [strides(&dims), sa, sb, broadcast_strides(to, &dims)]);
        dispatch(Back(&lines, [cot, da, db], &mut grad, f));
        grad
    }
}

impl Frozen for Broadcast {
    fn name(&self) -> &'static str {
        match self.op {
            Arithmetic::Sum => "sum",
            Arithmetic::Difference => "difference",
            Arithmetic::Product => "product",
            Arithmetic::Quotient => "quotient",
        }
    }
    fn detail(&self) -> String {
        told(&self.sides)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let views: Vec<View> = inputs.iter().map(|dims| View { data: &[], dims }).collect();
        let [a, b] = sides(&self.sides, &views);
        broadcast(a.dims, b.dims).ok_or_else(|| format!("shapes do not broadcast: {:?} and {:?}", a.dims, b.dims))
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let s = sides(&self.sides, inputs);
        match self.op {
            Arithmetic::Sum => self.forward(s, out, par, |a, b| a + b),
            Arithmetic::Difference => self.forward(s, out, par, |a, b| a - b),
            Arithmetic::Product => self.forward(s, out, par, |a, b| a * b),
            Arithmetic::Quotient => self.forward(s, out, par, |a, b| a / b),
        }
    }
    fn saves(&self) -> bool {
        matches!(self.op, Arithmetic::Product | Arithmetic::Quotient)
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let s = sides(&self.sides, inputs);
        let mut grads = vec![];
        for (k, side) in self.sides.iter().enumerate() {
            if matches!(side, Side::Fixed(_)) {
                continue;
            }
            let to = s[k].dims;
            grads.push(match (self.op, k) {
                (Arithmetic::Sum, _) | (Arithmetic::Difference, 0) => self.back(s, cot, to, |g, _, _| g),
                (Arithmetic::Difference, _) => self.back(s, cot, to, |g, _, _| -g),
                (Arithmetic::Product, 0) => self.back(s, cot, to, |g, _, b| g * b),
                (Arithmetic::Product, _) => self.back(s, cot, to, |g, a, _| g * a),
                (Arithmetic::Quotient, 0) => self.back(s, cot, to, |g, _, b| g / b),
                (Arithmetic::Quotient, _) => self.back(s, cot, to, |g, a, b| -g * a / (b * b)),
            });
        }
        grads
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let [a, b] = tensor_sides(&self.sides, inputs)?;
        let op = match self.op {
            Arithmetic::Sum => arith::Op::Add,
            Arithmetic::Difference => arith::Op::Sub,
            Arithmetic::Product => arith::Op::Mul,
            Arithmetic::Quotient => arith::Op::Div,
        };
        arith::binary(op, &a, &b).map_err(|e| candle_core::Error::Msg(e.to_string()))
    }
}
