//! The kernels for operations of scripts on images: with channels last, which stay there from one operation to the next.
use super::kernels::{OPERATORS, fixed, pointwise, value};
use super::log::{Arg, Call};
use super::lower::{Lower, constant, count, dimension, only_options, option};
use crate::Result;
use crate::nets::kernels::{
    Broadcast, Concat, Conv, Down2, Fixed, GroupNorm, Linear, Modulation, Reshaped, Side, Strided, Up2,
};
use candle_core::DType;

/// Adds the kernels for a call on images; false where there are none for it.
pub(super) fn lower(low: &mut Lower, call: &Call) -> Result<bool> {
    let &[result] = &call.results[..] else { return Ok(false) };
    if !low.is_image(result) {
        return Ok(false);
    }
    match &*call.name {
        "conv2d" => conv2d(low, call),
        "conv_transpose2d" => patches(low, call),
        "group_norm" => group_norm(low, call),
        "upsample" | "downsample" | "avg_pool2d" => resample(low, call),
        "cat" => cat(low, call),
        _ if touches_last(low, call) => each(low, call),
        _ => Ok(false),
    }
}

/// Whether an argument lies with channels last only, so that what is done to each value should leave it so.
fn touches_last(low: &Lower, call: &Call) -> bool {
    call.args.iter().any(|a| matches!(a, Arg::Value(v) if low.is_image(*v) && low.only_last(*v)))
}

/// What is done to each value.
fn each(low: &mut Lower, call: &Call) -> Result<bool> {
    let result = call.results[0];
    if let (Some(op), Some(x)) = (pointwise(call), value(call, 0)) {
        let x = low.last(x)?;
        let id = low.add_shared(op, &[x])?;
        low.is_last(result, id);
        return Ok(true);
    }
    let Some((_, op)) = OPERATORS.iter().find(|(n, _)| *n == call.name).filter(|_| call.args.len() == 2) else {
        return Ok(false);
    };
    let images = |a: &Arg| match a {
        Arg::Value(v) => low.is_image(*v),
        a => fixed(a).is_some_and(|t| t.rank() <= 4),
    };
    if !call.args.iter().all(images) {
        return Ok(false);
    }
    let (mut sides, mut inputs) = (vec![], vec![]);
    for a in &call.args {
        sides.push(match (a, fixed(a)) {
            (Arg::Value(v), _) => {
                inputs.push(low.last(*v)?);
                Side::Input
            }
            (_, Some(t)) if t.elem_count() == 1 => Side::Fixed(Fixed::new(&t.reshape(())?)?),
            (_, Some(t)) => {
                let whole = [&vec![1; 4 - t.rank()], t.dims()].concat();
                Side::Fixed(Fixed::new(&t.reshape(whole)?.permute((0, 2, 3, 1))?)?)
            }
            _ => return Ok(false),
        });
    }
    let Ok(sides) = <[Side; 2]>::try_from(sides) else { return Ok(false) };
    let id = low.add(Broadcast { op: *op, sides }, &inputs)?;
    low.is_last(result, id);
    Ok(true)
}

fn conv2d(low: &mut Lower, call: &Call) -> Result<bool> {
    let (Some(x), Some(Arg::Const(w))) = (value(call, 0), call.args.get(1)) else { return Ok(false) };
    let number = |name: &str, default: usize| option(call, name).map_or(Some(default), count);
    let (stride, padding) = (number("stride", 1), number("padding", 0));
    let plain = [number("dilation", 1), number("groups", 1)] == [Some(1); 2];
    let (Some(stride), Some(padding), true) = (stride, padding, plain && low.is_image(x)) else { return Ok(false) };
    if w.dtype() != DType::F32 || w.rank() != 4 || stride == 0 {
        return Ok(false);
    }
    let (out, cin) = (w.dim(0)?, w.dim(1)?);
    let Some(bias) = constant(option(call, "bias"), &[out], 0.0) else { return Ok(false) };
    let x = low.last(x)?;
    let id = match (&w.dims()[2..], stride, padding) {
        ([1, 1], 1, 0) => low.add(Linear::new(&w.reshape((out, cin))?, bias)?, &[x])?,
        _ => low.add(Conv::with(w.contiguous()?, bias, stride, padding)?, &[x])?,
    };
    low.is_last(call.results[0], id);
    Ok(true)
}

/// A transposed convolution whose windows lie side by side: a linear map of each pixel to a patch.
fn patches(low: &mut Lower, call: &Call) -> Result<bool> {
    let (Some(x), Some(Arg::Const(w))) = (value(call, 0), call.args.get(1)) else { return Ok(false) };
    let stride = option(call, "stride").map_or(Some(1), count);
    if !low.is_image(x) || w.dtype() != DType::F32 || w.rank() != 4 || !only_options(call, &["stride", "bias"]) {
        return Ok(false);
    }
    let (cin, out, k, width) = w.dims4()?;
    let (Some(h), Some(wide)) = (low.fixed(x, 2), low.fixed(x, 3)) else { return Ok(false) };
    let Some(bias) = constant(option(call, "bias"), &[out], 0.0) else { return Ok(false) };
    if stride != Some(k) || k != width || k == 0 {
        return Ok(false);
    }
    let each = bias.reshape((out, 1))?.broadcast_as((out, k * k))?.contiguous()?.flatten_all()?;
    let matrix = w.reshape((cin, out * k * k))?.t()?.contiguous()?;
    let x = low.last(x)?;
    let y = low.add(Linear::new(&matrix, each)?, &[x])?;
    let y = low.add(Reshaped([&[None][..], &[h, wide, out, k, k].map(Some)].concat()), &[y])?;
    let y = low.add(Strided::Permute(vec![0, 3, 1, 4, 2, 5]), &[y])?;
    let y = low.add(Reshaped(vec![None, Some(out), Some(h * k), Some(wide * k)]), &[y])?;
    low.is(call.results[0], y);
    Ok(true)
}

fn group_norm(low: &mut Lower, call: &Call) -> Result<bool> {
    let (Some(x), Some(groups)) = (value(call, 0), call.args.get(1).and_then(count)) else { return Ok(false) };
    let Some(c) = low.fixed(x, 1).filter(|_| low.is_image(x)) else { return Ok(false) };
    let (w, b) = (constant(option(call, "weight"), &[c], 1.0), constant(option(call, "bias"), &[c], 0.0));
    let eps = match option(call, "eps") {
        None => Some(1e-5),
        Some(Arg::Float(e)) => Some(*e),
        _ => None,
    };
    let (Some(w), Some(b), Some(eps)) = (w, b, eps) else { return Ok(false) };
    // a SiLU that follows goes into the same pass
    let next = low.only_user(call.results[0]).filter(|c| c.name == "silu").map(|c| c.results[0]);
    let x = low.last(x)?;
    let id = low.add(GroupNorm::new(w, b, groups, eps, Modulation::None, next.is_some())?, &[x])?;
    low.is_last(next.unwrap_or(call.results[0]), id);
    if next.is_some() {
        // nobody else asks for what lies between
        low.is_last(call.results[0], id);
    }
    Ok(true)
}

fn resample(low: &mut Lower, call: &Call) -> Result<bool> {
    let (Some(x), Some(2)) = (value(call, 0), call.args.get(1).and_then(count)) else { return Ok(false) };
    let even = [2, 3].iter().all(|d| low.fixed(x, *d).is_some_and(|n| n % 2 == 0));
    let nearest = match option(call, "mode") {
        None => true,
        Some(Arg::Text(t)) => t == "nearest",
        _ => false,
    };
    let plain = if call.name == "upsample" { nearest } else { even && only_options(call, &[]) };
    if !plain || !low.is_image(x) {
        return Ok(false);
    }
    let x = low.last(x)?;
    let id = if call.name == "upsample" { low.add(Up2, &[x])? } else { low.add(Down2, &[x])? };
    low.is_last(call.results[0], id);
    Ok(true)
}

/// Channels side by side.
fn cat(low: &mut Lower, call: &Call) -> Result<bool> {
    let Some(Arg::List(all)) = call.args.first() else { return Ok(false) };
    let channels = call.args.get(1).and_then(|a| dimension(a, 4)) == Some(1);
    let values: Option<Vec<usize>> = all.iter().map(|a| if let Arg::Value(v) = a { Some(*v) } else { None }).collect();
    let Some(values) = values.filter(|v| channels && v.len() > 1 && v.iter().any(|v| low.only_last(*v))) else {
        return Ok(false);
    };
    let mut sum = low.last(values[0])?;
    for v in &values[1..] {
        let next = low.last(*v)?;
        sum = low.add(Concat, &[sum, next])?;
    }
    low.is_last(call.results[0], sum);
    Ok(true)
}
