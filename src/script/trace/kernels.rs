//! The kernels for operations of scripts on values of any shape.
use super::log::{Arg, Call};
use super::lower::{Id, Lower, constant, count, dimension, only_options, option};
use crate::Result;
use crate::nets::graph::Size;
use crate::nets::kernels::{
    Arithmetic, Broadcast, CrossAttention, FUNCTIONS, Fixed, Gelu, Join, LayerNorm, Linear, Op, Product, Reduce, Relu,
    Reshaped, Side, Silu, Softmax, Strided,
};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// The arithmetic operators by name.
pub(super) const OPERATORS: [(&str, Arithmetic); 4] =
    [("+", Arithmetic::Sum), ("-", Arithmetic::Difference), ("*", Arithmetic::Product), ("/", Arithmetic::Quotient)];

/// The operation for a function of each value.
pub(super) fn pointwise(call: &Call) -> Option<Arc<dyn Op>> {
    if call.args.len() != 1 {
        let square = matches!(&*call.name, "**" | "pow") && matches!(call.args[1], Arg::Int(2) | Arg::Float(2.0));
        return square.then(|| Arc::new(crate::nets::kernels::Function::Square) as Arc<dyn Op>);
    }
    Some(match &*call.name {
        "silu" => Arc::new(Silu),
        "gelu" => Arc::new(Gelu::Exact),
        "relu" => Arc::new(Relu),
        "-" => Arc::new(crate::nets::kernels::Function::Neg),
        name => Arc::new(FUNCTIONS.iter().find(|(n, _)| *n == name)?.1),
    })
}

/// A number or a constant as one side of an operation; `None` for what is neither.
pub(super) fn fixed(a: &Arg) -> Option<Tensor> {
    let one = |x: f64| Tensor::full(x as f32, (), &candle_core::Device::Cpu).ok();
    match a {
        Arg::Int(i) => one(*i as f64),
        Arg::Float(x) => one(*x),
        // wider constants make wider results
        Arg::Const(t) | Arg::Rows(t, _) if t.dtype() == DType::F32 => Some(t.clone()),
        _ => None,
    }
}

/// Adds the kernels for a call; false where there are none for it.
pub(super) fn lower(low: &mut Lower, call: &Call) -> Result<bool> {
    let made = match &*call.name {
        "reshape" | "flatten" | "squeeze" | "unsqueeze" => reshape(low, call)?,
        "permute" | "transpose" | "t" | "get$T" => permute(low, call)?,
        "expand" => expand(low, call)?,
        "narrow" | "select" | "slice" | "index$get$" => slice(low, call)?,
        "split" | "chunk" => return split(low, call),
        "sum" | "mean" => reduce(low, call)?,
        "softmax" => softmax(low, call)?,
        "matmul" | "dot" => matmul(low, call)?,
        "linear" => linear(low, call)?,
        "layer_norm" => layer_norm(low, call)?,
        "attention" => attention(low, call)?,
        "cat" => cat(low, call)?,
        _ => match OPERATORS.iter().find(|(n, _)| *n == call.name).filter(|_| call.args.len() == 2) {
            Some((_, op)) => arithmetic(low, call, *op)?,
            None => function(low, call)?,
        },
    };
    if let Some(id) = made {
        low.is(call.results[0], id);
    }
    Ok(made.is_some())
}

/// The traced value that is an argument.
pub(super) fn value(call: &Call, i: usize) -> Option<usize> {
    match call.args.get(i)? {
        Arg::Value(v) => Some(*v),
        _ => None,
    }
}

fn function(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let (Some(op), Some(x)) = (pointwise(call), value(call, 0)) else { return Ok(None) };
    let x = low.plain(x)?;
    low.add_shared(op, &[x]).map(Some)
}

fn arithmetic(low: &mut Lower, call: &Call, op: Arithmetic) -> Result<Option<Id>> {
    let (mut sides, mut inputs) = (vec![], vec![]);
    for a in &call.args {
        sides.push(match (a, fixed(a)) {
            (Arg::Value(v), _) => {
                inputs.push(low.plain(*v)?);
                Side::Input
            }
            (_, Some(t)) => Side::Fixed(Fixed::new(&t)?),
            _ => return Ok(None),
        });
    }
    let Ok(sides) = <[Side; 2]>::try_from(sides) else { return Ok(None) };
    low.add(Broadcast { op, sides }, &inputs).map(Some)
}

fn reshape(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let Some(x) = value(call, 0) else { return Ok(None) };
    let sizes = low.sizes(call.results[0]).iter().map(|s| s.fixed()).collect();
    let x = low.plain(x)?;
    low.add(Reshaped(sizes), &[x]).map(Some)
}

fn permute(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let Some(x) = value(call, 0) else { return Ok(None) };
    let rank = low.sizes(x).len();
    let mut order: Vec<usize> = (0..rank).collect();
    match (&*call.name, &call.args[1..]) {
        ("t" | "get$T", []) if rank > 1 => order.swap(rank - 1, rank - 2),
        ("transpose", [a, b]) => match (dimension(a, rank), dimension(b, rank)) {
            (Some(a), Some(b)) => order.swap(a, b),
            _ => return Ok(None),
        },
        ("permute", list) => {
            let list = if let [Arg::List(l)] = list { l } else { list };
            match list.iter().map(|a| dimension(a, rank)).collect::<Option<Vec<_>>>() {
                Some(o) if o.len() == rank => order = o,
                _ => return Ok(None),
            }
        }
        _ => return Ok(None),
    }
    let x = low.plain(x)?;
    low.add(Strided::Permute(order), &[x]).map(Some)
}

fn expand(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let Some(x) = value(call, 0) else { return Ok(None) };
    let (have, want) = (low.sizes(x), low.sizes(call.results[0]));
    let new = want.len() - have.len();
    let one = |(i, w): (usize, &Size)| match (i.checked_sub(new).map(|i| have[i]), w.fixed()) {
        (Some(h), _) if h == *w => Some(None),
        (_, Some(n)) => Some(Some(n)),
        // repeated for each sample: not from what is one sample's
        _ => None,
    };
    let Some(to) = want.iter().enumerate().map(one).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let x = low.plain(x)?;
    low.add(Strided::Expand(to), &[x]).map(Some)
}

/// Cuts a dimension whose size does not depend on the batch.
fn cut(low: &mut Lower, x: Id, dim: usize, start: usize, len: usize, step: usize) -> Result<Id> {
    low.add(Strided::Slice { dim, start, len, step }, &[x])
}

fn slice(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let Some(v) = value(call, 0) else { return Ok(None) };
    let rank = low.sizes(v).len();
    // what is taken of each dimension: one entry, or a range
    let mut taken: Vec<(usize, Arg)> = vec![];
    match (&*call.name, &call.args[1..]) {
        ("narrow", [d, start, len]) => match (dimension(d, rank), count(start), count(len)) {
            (Some(d), Some(a), Some(n)) => taken.push((d, Arg::Range(a as i64, (a + n) as i64, false))),
            _ => return Ok(None),
        },
        ("select", [d, at]) => match dimension(d, rank) {
            Some(d) => taken.push((d, at.clone())),
            None => return Ok(None),
        },
        ("index$get$", [Arg::List(all)]) if all.len() <= rank => taken.extend(all.iter().cloned().enumerate()),
        ("index$get$", [one]) => taken.push((0, one.clone())),
        _ => return Ok(None),
    }
    let mut cuts = vec![];
    for (d, at) in &taken {
        let size = match (at, low.fixed(v, *d)) {
            (Arg::Unit, _) => continue,
            (_, Some(n)) => n as i64,
            _ => return Ok(None),
        };
        let end = |i: i64| (if i < 0 { i + size } else { i }).clamp(0, size);
        cuts.push(match at {
            Arg::Int(i) if (-size..size).contains(i) => (*d, i.rem_euclid(size) as usize, 1),
            Arg::Range(a, b, whole) => {
                let b = if *whole { if *b == -1 { size } else { end(b + 1) } } else { end(*b) };
                let a = end(*a);
                if b <= a {
                    return Ok(None);
                }
                (*d, a as usize, (b - a) as usize)
            }
            _ => return Ok(None),
        });
    }
    let mut x = low.plain(v)?;
    for (d, start, len) in cuts {
        x = cut(low, x, d, start, len, 1)?;
    }
    // entries that were picked lose their dimension
    if low.dims(x).len() != low.sizes(call.results[0]).len() {
        let sizes = low.sizes(call.results[0]).iter().map(|s| s.fixed()).collect();
        x = low.add(Reshaped(sizes), &[x])?;
    }
    Ok(Some(x))
}

fn split(low: &mut Lower, call: &Call) -> Result<bool> {
    let Some(v) = value(call, 0) else { return Ok(false) };
    let rank = low.sizes(v).len();
    let Some(d) = call.args.get(2).map_or(Some(0), |a| dimension(a, rank)) else { return Ok(false) };
    let lens: Option<Vec<usize>> = call.results.iter().map(|r| low.fixed(*r, d)).collect();
    let Some(lens) = lens.filter(|_| low.fixed(v, d).is_some()) else { return Ok(false) };
    let x = low.plain(v)?;
    let mut start = 0;
    for (result, len) in call.results.iter().zip(lens) {
        let part = cut(low, x, d, start, len, 1)?;
        low.is(*result, part);
        start += len;
    }
    Ok(true)
}

fn reduce(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let (Some(v), Some(over)) = (value(call, 0), call.args.get(1)) else { return Ok(None) };
    let rank = low.sizes(v).len();
    let list = if let Arg::List(l) = over { &l[..] } else { std::slice::from_ref(over) };
    let Some(dims) = list.iter().map(|a| dimension(a, rank)).collect::<Option<Vec<_>>>() else { return Ok(None) };
    if dims.is_empty() || dims.iter().any(|d| low.fixed(v, *d).is_none()) {
        return Ok(None);
    }
    let keep = matches!(call.args.get(2), Some(Arg::Bool(true)));
    let x = low.plain(v)?;
    low.add(Reduce { mean: call.name == "mean", dims, keep }, &[x]).map(Some)
}

fn softmax(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let Some(v) = value(call, 0) else { return Ok(None) };
    let rank = low.sizes(v).len();
    match call.args.get(1).map_or(rank.checked_sub(1), |a| dimension(a, rank)) {
        Some(d) if d + 1 == rank && low.fixed(v, d).is_some() => {}
        _ => return Ok(None),
    }
    let x = low.plain(v)?;
    low.add(Softmax, &[x]).map(Some)
}

/// x Wᵀ + b for a constant weight [out, in], with the constant that is added next taken along.
fn mapped(low: &mut Lower, call: &Call, x: usize, w: &Tensor, bias: Option<Tensor>) -> Result<Option<Id>> {
    let out = w.dim(0)?;
    let mut result = call.results[0];
    let mut bias = bias;
    if bias.is_none()
        && let Some(next) = low.only_user(result).filter(|c| c.name == "+" && c.results.len() == 1)
        && let [Arg::Value(_), Arg::Const(b)] | [Arg::Const(b), Arg::Value(_)] = &next.args[..]
        && b.dims() == [out]
        && b.dtype() == DType::F32
    {
        (bias, result) = (Some(b.clone()), next.results[0]);
    }
    let bias = match bias {
        Some(b) => b,
        None => Tensor::zeros(out, DType::F32, w.device())?,
    };
    let x = low.plain(x)?;
    let id = low.add(Linear::new(&w.contiguous()?, bias)?, &[x])?;
    low.is(result, id);
    Ok(Some(id))
}

fn matmul(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let rank = |a: &Arg| match a {
        Arg::Value(v) => low.sizes(*v).len(),
        Arg::Const(t) => t.rank(),
        _ => 0,
    };
    if call.args.iter().any(|a| rank(a) < 2) {
        return Ok(None);
    }
    let contracted = match &call.args[0] {
        Arg::Value(v) => low.fixed(*v, low.sizes(*v).len() - 1).is_some(),
        _ => true,
    };
    match &call.args[..] {
        [Arg::Value(x), Arg::Const(w)] if w.rank() == 2 && w.dtype() == DType::F32 => {
            mapped(low, call, *x, &w.t()?.contiguous()?, None)
        }
        [Arg::Value(_) | Arg::Const(_), Arg::Value(_) | Arg::Const(_)] if contracted => {
            let (mut sides, mut inputs) = (vec![], vec![]);
            for a in &call.args {
                match (a, fixed(a)) {
                    (Arg::Value(v), _) => {
                        inputs.push(low.plain(*v)?);
                        sides.push(Side::Input);
                    }
                    (_, Some(t)) => sides.push(Side::Fixed(Fixed::new(&t)?)),
                    _ => return Ok(None),
                }
            }
            let Ok(sides) = <[Side; 2]>::try_from(sides) else { return Ok(None) };
            low.add(Product(sides), &inputs).map(Some)
        }
        _ => Ok(None),
    }
}

fn linear(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let (Some(x), Some(Arg::Const(w))) = (value(call, 0), call.args.get(1)) else { return Ok(None) };
    let bias = match call.args.get(2) {
        None | Some(Arg::Unit) => None,
        Some(Arg::Const(b)) if b.dtype() == DType::F32 => Some(b.clone()),
        _ => return Ok(None),
    };
    if w.dtype() != DType::F32 || w.rank() != 2 {
        return Ok(None);
    }
    mapped(low, call, x, w, bias)
}

fn eps(call: &Call) -> Option<f64> {
    match option(call, "eps") {
        None => Some(1e-5),
        Some(Arg::Float(e)) => Some(*e),
        Some(Arg::Int(e)) => Some(*e as f64),
        _ => None,
    }
}

fn layer_norm(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let Some(v) = value(call, 0) else { return Ok(None) };
    let (weight, bias) = match call.args.len() {
        3 => (call.args.get(1), call.args.get(2)),
        _ => (option(call, "weight"), option(call, "bias")),
    };
    // over as many of the last dimensions as the weights have
    let rank = |a: Option<&Arg>| if let Some(Arg::Const(t)) = a { Some(t.rank()) } else { None };
    let (sizes, over) = (low.sizes(v).to_vec(), rank(weight).or(rank(bias)).unwrap_or(1));
    let Some(first) = sizes.len().checked_sub(over) else { return Ok(None) };
    let Some(dims) = sizes[first..].iter().map(|s| s.fixed()).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let (w, b) = (constant(weight, &dims, 1.0), constant(bias, &dims, 0.0));
    let (Some(w), Some(b), Some(eps)) = (w, b, eps(call)) else { return Ok(None) };
    let x = low.plain(v)?;
    if over == 1 {
        return low.add(LayerNorm::new(w, b, eps)?, &[x]).map(Some);
    }
    let flat = low.add(Reshaped(vec![None, Some(dims.iter().product())]), &[x])?;
    let y = low.add(LayerNorm::new(w.flatten_all()?, b.flatten_all()?, eps)?, &[flat])?;
    low.add(Reshaped(sizes.iter().map(|s| s.fixed()).collect()), &[y]).map(Some)
}

fn attention(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|i| value(call, i)) else { return Ok(None) };
    let [sq, sk, sv] = [q, k, v].map(|v| low.sizes(v).to_vec());
    let ([lq, .., dq], rank) = (&sq[..], sq.len()) else { return Ok(None) };
    let fits = rank > 2
        && sk == sv
        && sk.len() == rank
        && sk[..rank - 2] == sq[..rank - 2]
        && sk[rank - 1] == sq[rank - 1]
        && (lq.fixed().is_none() || sq[1..rank - 2].iter().any(|s| s.fixed().is_none()))
        && only_options(call, &["causal"]);
    let causal = match option(call, "causal") {
        None => Some(false),
        Some(Arg::Bool(b)) => Some(*b),
        _ => None,
    };
    let (Some(d), [Some(n), Some(m)]) = (dq.fixed(), [&sq, &sk].map(|s| s[rank - 2].fixed())) else { return Ok(None) };
    let Some(causal) = causal.filter(|c| fits && (!*c || n == m)) else { return Ok(None) };
    let mut flat = |v: usize, n: usize| -> Result<Id> {
        let x = low.plain(v)?;
        low.add(Reshaped(vec![None, Some(n), Some(d)]), &[x])
    };
    let inputs = [flat(q, n)?, flat(k, m)?, flat(v, m)?];
    let y = low.add(CrossAttention { heads: 1, causal }, &inputs)?;
    let sizes = sq.iter().map(|s| s.fixed()).collect();
    low.add(Reshaped(sizes), &[y]).map(Some)
}

fn cat(low: &mut Lower, call: &Call) -> Result<Option<Id>> {
    let Some(Arg::List(all)) = call.args.first() else { return Ok(None) };
    let rank = low.sizes(call.results[0]).len();
    let dim = match call.args.get(1) {
        None => Some(0),
        Some(a) => dimension(a, rank),
    };
    let Some(dim) = dim.filter(|d| low.fixed(call.results[0], *d).is_some()) else { return Ok(None) };
    let (mut parts, mut inputs) = (vec![], vec![]);
    for a in all {
        parts.push(match a {
            Arg::Value(v) => {
                inputs.push(low.plain(*v)?);
                Side::Input
            }
            Arg::Const(t) | Arg::Rows(t, _) if t.dtype() == DType::F32 && t.rank() == rank => {
                Side::Fixed(Fixed::new(t)?)
            }
            _ => return Ok(None),
        });
    }
    low.add(Join { dim, parts }, &inputs).map(Some)
}
