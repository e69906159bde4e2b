//! Arguments of the denoiser functions: numbers, noise levels, labels, conditions, tensors from nested arrays.
use crate::denoise::{Cond, DynDenoiser, draw_labels, one_hot};
use crate::real::host_values;
use crate::script::options::number_of;
use crate::tensor::device::default_device;
use crate::tensor::dtype::floating;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rhai::{Array, Dynamic, Identifier, ImmutableString, Map};
use std::rc::Rc;

fn wrong(what: &str, expected: &str, v: &Dynamic) -> Error {
    Error::new(Kind::Type, format!("{what} must be {expected}, not {}", crate::script::error::type_of(v)))
}

/// A number, integer or float.
pub fn number(what: &str, v: &Dynamic) -> Result<f64> {
    number_of(v).ok_or_else(|| wrong(what, "a number", v))
}

/// A noise level: a number or a tensor, tracked or not.
pub fn level(v: &Dynamic) -> Result<Tensor> {
    match v.clone().try_cast::<Tensor>() {
        Some(t) => Ok(t),
        None if v.is_int() || v.is_float() => Ok(Tensor::new(number("sigma", v)?, &Device::Cpu)?),
        None => Err(wrong("sigma", "a number or a tensor", v)),
    }
}

/// Class labels: an integer, an array of integers, or a tensor of whole numbers.
pub fn labels_of(what: &str, v: Dynamic) -> Result<Vec<i64>> {
    if let Ok(i) = v.as_int() {
        return Ok(vec![i]);
    }
    if let Some(t) = v.clone().try_cast::<Tensor>() {
        let bad = |x: &f64| Error::value(format!("{what}: {x} is not a label: labels are whole numbers"));
        return host_values(&t)?
            .iter()
            .map(|x| if x.fract() == 0.0 && x.abs() < 1e15 { Ok(*x as i64) } else { Err(bad(x)) })
            .collect();
    }
    let Some(array) = v.clone().try_cast::<Array>() else {
        return Err(wrong(what, "an array of labels", &v));
    };
    let label = |(i, v): (usize, &Dynamic)| v.as_int().map_err(|_| wrong(&format!("{what}: [{i}]"), "an integer", v));
    array.iter().enumerate().map(label).collect()
}

/// One-hot rows for the states `x`: on their device, in their dtype.
fn rows(net: &DynDenoiser, labels: &[i64], x: &Tensor) -> Result<Cond> {
    Ok(Cond::classes(one_hot(labels, net.classes(), floating(x.dtype()), x.device())?))
}

/// The condition that `cond` means for the states `x` [B, …] of `net`: labels (an array, a tensor [B] of integers, or one for
/// all) become one-hot rows, other tensors are rows already, a map gives a network's conditions by name, with one row for all or one
/// for each, `()` and "none" are none;
/// anything else goes to a network of `denoiser::from_fn` as it is.
///
/// # Errors
/// A wrong number of labels or rows, a label that is not a class, or what a class-conditional denoiser cannot take.
pub fn cond_of(net: &DynDenoiser, x: &Tensor, cond: Dynamic) -> Result<Cond> {
    if is_none(&cond) {
        return Ok(Cond::None);
    }
    let batch = x.dims().first().copied().unwrap_or(0);
    let check = |found: usize, what: &str| {
        let m = format!("cond: expected {batch} {what}, one per sample, got {found}");
        if found == batch { Ok(()) } else { Err(Error::shape(m, &[&[found], &[batch]])) }
    };
    if let Some(all) = by_name(net, &cond)? {
        return all.map(|name, t| {
            let t = match t.dims() {
                [1, one @ ..] if batch > 1 => t.broadcast_as([&[batch], one].concat())?.contiguous()?,
                _ => t.clone(),
            };
            check(t.dims().first().copied().unwrap_or(0), &format!("rows of `{name}`"))?;
            Ok(t.to_device(x.device())?)
        });
    }
    let classes = net.classes();
    let one = match cond.read_lock::<Tensor>() {
        Some(t) if classes > 0 && t.rank() <= 1 && t.dtype().is_int() => t.rank() == 0,
        Some(t) => {
            check(t.dims().first().copied().unwrap_or(0), "rows")?;
            return Ok(Cond::classes(t.to_device(x.device())?));
        }
        None => cond.is_int(),
    };
    if classes == 0 {
        return Ok(Cond::Opaque(Rc::new(cond)));
    }
    let labels = labels_of("cond", cond)?;
    if one {
        return rows(net, &labels.repeat(batch), x);
    }
    check(labels.len(), "labels")?;
    rows(net, &labels, x)
}

/// The conditions in a map, for a network that takes some by name.
fn by_name(net: &DynDenoiser, cond: &Dynamic) -> Result<Option<Cond>> {
    let Some(all) = cond.read_lock::<Map>().filter(|_| !net.conditions().is_empty()) else { return Ok(None) };
    let entry =
        |(name, v): (&Identifier, &Dynamic)| Ok((name.to_string(), tensor_of(&format!("cond: `{name}`"), v.clone())?));
    Ok(Some(Cond::Named(all.iter().map(entry).collect::<Result<_>>()?)))
}

/// The condition from which guidance leads away: as [`cond_of`], with one row for all samples or one for each.
pub fn negative_of(net: &DynDenoiser, cond: Dynamic) -> Result<Cond> {
    if is_none(&cond) {
        return Ok(Cond::None);
    }
    if let Some(all) = by_name(net, &cond)? {
        return Ok(all);
    }
    if let Some(rows) = cond.read_lock::<Tensor>() {
        return Ok(Cond::classes(rows.clone()));
    }
    match net.classes() {
        0 => Ok(Cond::Opaque(Rc::new(cond))),
        classes => {
            let labels = labels_of("guided: `negative`", cond)?;
            Ok(Cond::classes(one_hot(&labels, classes, DType::F32, &default_device())?))
        }
    }
}

/// Whether a script's value says that there is no condition.
fn is_none(cond: &Dynamic) -> bool {
    cond.is_unit() || cond.read_lock::<ImmutableString>().is_some_and(|s| *s == "none")
}

/// What a script sees of a condition.
pub fn value_of(cond: &Cond) -> Dynamic {
    match cond {
        Cond::None => Dynamic::UNIT,
        Cond::Named(all) => match cond.rows() {
            Some(rows) => Dynamic::from(rows.clone()),
            None => Dynamic::from_map(all.iter().map(|(n, t)| (n.into(), Dynamic::from(t.clone()))).collect()),
        },
        Cond::Opaque(v) => v.downcast_ref::<Dynamic>().cloned().unwrap_or(Dynamic::UNIT),
    }
}

/// The condition of samples `first..` where a script gives none: classes drawn by seed, for a network that has classes.
pub fn drawn_cond(net: &DynDenoiser, x: &Tensor, seed: u64, first: u64) -> Result<Cond> {
    match net.classes() {
        0 => Ok(Cond::None),
        classes => rows(net, &draw_labels(seed, first, x.dims().first().copied().unwrap_or(0), classes), x),
    }
}

/// A tensor, a number, an array of tensors (stacked), or a nested array of numbers (f64).
pub fn tensor_of(what: &str, v: Dynamic) -> Result<Tensor> {
    if let Some(t) = v.clone().try_cast::<Tensor>() {
        return Ok(t);
    }
    if v.is_int() || v.is_float() {
        return Ok(Tensor::new(number(what, &v)?, &default_device())?);
    }
    let Some(array) = v.clone().try_cast::<Array>() else {
        return Err(wrong(what, "a tensor or an array of numbers", &v));
    };
    if array.is_empty() {
        return Err(Error::value(format!("{what} must not be an empty array")));
    }
    let parts = array.into_iter().map(|v| tensor_of(what, v)).collect::<Result<Vec<_>>>()?;
    if let Some(p) = parts.iter().find(|p| p.dims() != parts[0].dims()) {
        let m = format!("{what}: the parts of an array must have one shape");
        return Err(Error::shape(m, &[parts[0].dims(), p.dims()]));
    }
    Ok(Tensor::stack(&parts, 0)?)
}
