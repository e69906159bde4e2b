//! Arithmetic, comparison and logic between tensors and numbers, with broadcasting and numpy's mixing of dtypes.
//!
//! A number adapts to the tensor it meets (an f32 tensor times 2.5 stays f32); an integer tensor with a float number
//! becomes f32. Arithmetic between integers is done in i64 (masks are u8, and `mask - 1` must not wrap); `/` always
//! gives floats.
use super::custom::{op, sum_to};
use super::device::meeting;
use super::dtype::{FLOAT, broadcast, check_size, floating, promote};
use super::{create, elementwise};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// One side of an operation.
#[derive(Clone)]
pub enum Operand {
    /// A tensor.
    Tensor(Tensor),
    /// A floating-point number.
    Float(f64),
    /// An integer.
    Int(i64),
}

impl From<&Tensor> for Operand {
    fn from(t: &Tensor) -> Self {
        Operand::Tensor(t.clone())
    }
}
impl From<f64> for Operand {
    fn from(x: f64) -> Self {
        Operand::Float(x)
    }
}
impl From<i64> for Operand {
    fn from(i: i64) -> Self {
        Operand::Int(i)
    }
}

impl Operand {
    fn tensor(&self) -> Option<&Tensor> {
        match self {
            Operand::Tensor(t) => Some(t),
            _ => None,
        }
    }
    fn in_dtype(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        match self {
            Operand::Tensor(t) => Ok(t.to_device(device)?.to_dtype(dtype)?),
            Operand::Float(x) => create::full(&[], *x, dtype, device),
            Operand::Int(i) => create::full_int(&[], *i, dtype, device),
        }
    }
    fn number(&self) -> Option<f64> {
        match self {
            Operand::Tensor(_) => None,
            Operand::Float(x) => Some(*x),
            Operand::Int(i) => Some(*i as f64),
        }
    }
}

/// The dtype in which `a` and `b` meet.
fn meet(a: &Operand, b: &Operand) -> DType {
    use Operand::*;
    match (a, b) {
        (Tensor(a), Tensor(b)) => promote(a.dtype(), b.dtype()),
        (Tensor(t), Float(_)) | (Float(_), Tensor(t)) => floating(t.dtype()),
        (Tensor(t), Int(_)) | (Int(_), Tensor(t)) => t.dtype(),
        (Int(_), Int(_)) => DType::I64,
        _ => FLOAT,
    }
}

/// Both sides as tensors of the dtype in which they meet, on one device, not yet broadcast.
fn both(what: &str, a: &Operand, b: &Operand, dtype: DType) -> Result<(Tensor, Tensor, Vec<usize>)> {
    let device = meeting(what, [a, b].into_iter().filter_map(Operand::tensor))?;
    let (a, b) = (a.in_dtype(dtype, &device)?, b.in_dtype(dtype, &device)?);
    let shape = broadcast(what, a.dims(), b.dims())?;
    check_size(what, &shape, dtype)?;
    Ok((a, b, shape))
}

/// The operations of [`binary`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a · b.
    Mul,
    /// a / b, always floating point.
    Div,
    /// a − b·⌊a/b⌋: the remainder with the sign of b, as in Python.
    Rem,
    /// a^b.
    Pow,
    /// The larger; NaN if either is NaN; the gradient is shared where both are equal.
    Maximum,
    /// The smaller, likewise.
    Minimum,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Add => "+",
            Op::Sub => "-",
            Op::Mul => "*",
            Op::Div => "/",
            Op::Rem => "%",
            Op::Pow => "**",
            Op::Maximum => "maximum",
            Op::Minimum => "minimum",
        }
    }
}

/// `a op b` with broadcasting. Errors: shapes that do not broadcast, different devices, an integer remainder by zero, an
/// integer to a negative integer power.
pub fn binary(o: Op, a: impl Into<Operand>, b: impl Into<Operand>) -> Result<Tensor> {
    let (a, b) = (a.into(), b.into());
    let dtype = match meet(&a, &b) {
        d if o == Op::Div => floating(d),
        d if matches!(o, Op::Maximum | Op::Minimum) => d,
        d if o == Op::Pow && matches!(b, Operand::Int(e) if e < 0) => floating(d),
        d if d.is_int() => DType::I64,
        d => d,
    };
    // numbers fold into one affine pass
    if dtype.is_float() {
        match (o, &a, &b, b.number(), a.number()) {
            (Op::Add, Operand::Tensor(t), _, Some(c), _) | (Op::Add, _, Operand::Tensor(t), _, Some(c)) => {
                return Ok(t.to_dtype(dtype)?.affine(1.0, c)?);
            }
            (Op::Sub, Operand::Tensor(t), _, Some(c), _) => return Ok(t.to_dtype(dtype)?.affine(1.0, -c)?),
            (Op::Sub, _, Operand::Tensor(t), _, Some(c)) => return Ok(t.to_dtype(dtype)?.affine(-1.0, c)?),
            (Op::Mul, Operand::Tensor(t), _, Some(c), _) | (Op::Mul, _, Operand::Tensor(t), _, Some(c))
                if c.is_finite() && c != 0.0 =>
            {
                return Ok(t.to_dtype(dtype)?.affine(c, 0.0)?);
            }
            (Op::Pow, Operand::Tensor(t), _, Some(e), _) => return elementwise::powf(&t.to_dtype(dtype)?, e),
            _ => {}
        }
    }
    let (a, b, shape) = both(o.name(), &a, &b, dtype)?;
    match o {
        Op::Add => Ok(a.broadcast_add(&b)?),
        Op::Sub => Ok(a.broadcast_sub(&b)?),
        Op::Mul => mul(&a, &b),
        Op::Div => div(&a, &b, &shape),
        Op::Rem => rem(&a, &b, &shape),
        Op::Pow => pow(&a, &b, &shape),
        Op::Maximum => extremum("maximum", &a, &b, &shape),
        Op::Minimum => extremum("minimum", &a, &b, &shape),
    }
}

/// a · b for tensors of one dtype; constants get no cotangent.
fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.track_op() == b.track_op() {
        return Ok(a.broadcast_mul(b)?);
    }
    let out = a.detach().broadcast_mul(&b.detach())?;
    op("mul", &[a, b], out, |k| {
        let (a, b) = (&k.args[0], &k.args[1]);
        let ga = if k.want[0] { Some(sum_to(&k.g.broadcast_mul(b)?, a.dims())?) } else { None };
        let gb = if k.want[1] { Some(sum_to(&k.g.broadcast_mul(a)?, b.dims())?) } else { None };
        Ok(vec![ga, gb])
    })
}

fn div(a: &Tensor, b: &Tensor, _shape: &[usize]) -> Result<Tensor> {
    let out = a.detach().broadcast_div(&b.detach())?;
    op("div", &[a, b], out, |k| {
        let (a, b) = (&k.args[0], &k.args[1]);
        let ga = k.g.broadcast_div(b)?;
        let gb = if k.want[1] { Some(sum_to(&ga.mul(k.out)?.neg()?, b.dims())?) } else { None };
        Ok(vec![Some(sum_to(&ga, a.dims())?), gb])
    })
}

fn host_f64(a: &Tensor, b: &Tensor, shape: &[usize], f: impl Fn(f64, f64) -> f64) -> Result<Tensor> {
    let (x, y) = (create::to_f64(&a.broadcast_as(shape)?)?, create::to_f64(&b.broadcast_as(shape)?)?);
    let values = x.iter().zip(&y).map(|(x, y)| f(*x, *y)).collect();
    create::from_f64(values, shape, a.dtype(), a.device())
}
fn host_i64(a: &Tensor, b: &Tensor, shape: &[usize], f: impl Fn(i64, i64) -> Result<i64>) -> Result<Tensor> {
    let (x, y) = (create::to_i64(&a.broadcast_as(shape)?)?, create::to_i64(&b.broadcast_as(shape)?)?);
    let values = x.iter().zip(&y).map(|(x, y)| f(*x, *y)).collect::<Result<Vec<_>>>()?;
    create::from_i64(values, shape, a.dtype(), a.device())
}

fn rem(a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if a.dtype().is_int() {
        return host_i64(a, b, shape, |x, y| match x.checked_rem(y) {
            _ if y == 0 => Err(Error::value("%: an integer remainder by zero")),
            // i64::MIN % −1 overflows in hardware; it is 0
            None => Ok(0),
            Some(r) if r != 0 && (r < 0) != (y < 0) => Ok(r + y),
            Some(r) => Ok(r),
        });
    }
    let out = host_f64(a, b, shape, |x, y| {
        let r = x % y;
        if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
    })?;
    op("rem", &[a, b], out, |k| {
        let (a, b) = (&k.args[0], &k.args[1]);
        let q = a.broadcast_sub(k.out)?.broadcast_div(b)?.round()?;
        Ok(vec![Some(sum_to(k.g, a.dims())?), Some(sum_to(&k.g.mul(&q)?.neg()?, b.dims())?)])
    })
}

fn pow(a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if a.dtype().is_int() {
        return host_i64(a, b, shape, |x, y| {
            let e = Error::value(format!("**: the integer {x} to the negative power {y} is not an integer"));
            let y = u32::try_from(y).map_err(|_| e.hint("make one side floating point: `x.to(\"f32\") ** y`"))?;
            Ok(x.wrapping_pow(y))
        });
    }
    let out = host_f64(a, b, shape, f64::powf)?;
    op("pow", &[a, b], out, |k| {
        let (a, b, dims) = (&k.args[0], &k.args[1], k.out.dims());
        let ga = if k.want[0] {
            let d = host_f64(a, b, dims, |x, y| if y == 0.0 { 0.0 } else { y * x.powf(y - 1.0) })?;
            Some(sum_to(&k.g.mul(&d)?, a.dims())?)
        } else {
            None
        };
        let gb = if k.want[1] {
            let d = host_f64(a, b, dims, |x, y| if x == 0.0 && y >= 0.0 { 0.0 } else { x.powf(y) * x.ln() })?;
            Some(sum_to(&k.g.mul(&d)?, b.dims())?)
        } else {
            None
        };
        Ok(vec![ga, gb])
    })
}

fn extremum(name: &'static str, a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let (x, y) = (a.detach().broadcast_as(shape)?, b.detach().broadcast_as(shape)?);
    let better = |x: &Tensor, y: &Tensor| if name == "maximum" { x.gt(y) } else { x.lt(y) };
    // a NaN on the left wins by the second term, one on the right because no comparison with it holds
    let left = better(&x, &y)?.add(&x.ne(&x)?)?;
    let out = left.where_cond(&x.contiguous()?, &y.contiguous()?)?;
    op(name, &[a, b], out, move |k| {
        let (a, b, dims) = (&k.args[0], &k.args[1], k.out.dims());
        let (x, y) = (a.broadcast_as(dims)?, b.broadcast_as(dims)?);
        let better = if name == "maximum" { x.gt(&y)? } else { x.lt(&y)? };
        let left = (better.to_dtype(k.g.dtype())? + x.eq(&y)?.to_dtype(k.g.dtype())?.affine(0.5, 0.0)?)?;
        let ga = k.g.mul(&left)?;
        let gb = k.g.sub(&ga)?;
        Ok(vec![Some(sum_to(&ga, a.dims())?), Some(sum_to(&gb, b.dims())?)])
    })
}

/// The comparisons of [`compare`].
pub use candle_core::op::CmpOp;

/// `a op b` element by element, as a mask (u8, 1 where true), with broadcasting. NaN compares as in IEEE 754.
pub fn compare(o: CmpOp, a: impl Into<Operand>, b: impl Into<Operand>) -> Result<Tensor> {
    let (a, b) = (a.into(), b.into());
    let dtype = match meet(&a, &b) {
        d if d.is_int() => DType::I64,
        d => d,
    };
    let (a, b, _) = both("comparison", &a, &b, dtype)?;
    let (a, b) = (a.detach(), b.detach());
    Ok(match o {
        CmpOp::Eq => a.broadcast_eq(&b)?,
        CmpOp::Ne => a.broadcast_ne(&b)?,
        CmpOp::Lt => a.broadcast_lt(&b)?,
        CmpOp::Le => a.broadcast_le(&b)?,
        CmpOp::Gt => a.broadcast_gt(&b)?,
        CmpOp::Ge => a.broadcast_ge(&b)?,
    })
}

/// 1 where `t` is not zero, else 0 (u8).
pub fn mask(t: &Tensor) -> Result<Tensor> {
    Ok(t.detach().ne(&t.zeros_like()?.detach())?)
}

/// 1 where both are not zero.
pub fn and(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    broadcast("&", a.dims(), b.dims())?;
    Ok(mask(a)?.broadcast_mul(&mask(b)?)?)
}

/// 1 where either is not zero.
pub fn or(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    broadcast("|", a.dims(), b.dims())?;
    Ok(mask(a)?.broadcast_maximum(&mask(b)?)?)
}

/// 1 where exactly one is not zero.
pub fn xor(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    broadcast("^", a.dims(), b.dims())?;
    Ok(mask(a)?.broadcast_ne(&mask(b)?)?)
}

/// 1 where `t` is zero.
pub fn not(t: &Tensor) -> Result<Tensor> {
    Ok(t.detach().eq(&t.zeros_like()?.detach())?)
}

/// `a` where `cond` is not zero, else `b`, all broadcast together. What was not chosen gets the gradient 0
/// (which a function with an infinite slope there, like √ at 0, still turns into NaN).
pub fn where_(cond: &Tensor, a: impl Into<Operand>, b: impl Into<Operand>) -> Result<Tensor> {
    let (a, b) = (a.into(), b.into());
    let a = match (&a, &b) {
        (Operand::Tensor(_), _) | (_, Operand::Tensor(_)) => a,
        // two numbers: the condition says where
        _ => Operand::Tensor(a.in_dtype(meet(&a, &b), cond.device())?),
    };
    let (a, b, shape) = both("where", &a, &b, meet(&a, &b))?;
    let shape = broadcast("where", &shape, cond.dims())?;
    let c = mask(&cond.to_device(a.device())?)?.broadcast_as(shape.as_slice())?.contiguous()?;
    let (x, y) = (a.detach().broadcast_as(shape.as_slice())?, b.detach().broadcast_as(shape.as_slice())?);
    let out = c.where_cond(&x.contiguous()?, &y.contiguous()?)?;
    op("where", &[&a, &b], out, move |k| {
        let zeros = k.g.zeros_like()?;
        let ga = c.where_cond(k.g, &zeros)?;
        let gb = c.where_cond(&zeros, k.g)?;
        Ok(vec![Some(sum_to(&ga, k.args[0].dims())?), Some(sum_to(&gb, k.args[1].dims())?)])
    })
}

/// −t (integers in i64).
pub fn neg(t: &Tensor) -> Result<Tensor> {
    match t.dtype().is_float() {
        true => Ok(t.neg()?),
        false => binary(Op::Sub, 0i64, t),
    }
}
