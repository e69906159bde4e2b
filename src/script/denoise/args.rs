//! Arguments of the denoiser functions: numbers, noise levels, labels, conditions, tensors from nested arrays.
use crate::denoise::{Cond, DynDenoiser, one_hot};
use crate::real::host_values;
use crate::tensor::device::default_device;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rhai::{Array, Dynamic};
use std::rc::Rc;

fn wrong(what: &str, expected: &str, v: &Dynamic) -> Error {
    Error::new(Kind::Type, format!("{what} must be {expected}, not {}", v.type_name()))
}

/// A number, integer or float.
pub fn number(what: &str, v: &Dynamic) -> Result<f64> {
    let found = v.as_float().ok().or_else(|| v.as_int().ok().map(|i| i as f64));
    found.ok_or_else(|| wrong(what, "a number", v))
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

/// One-hot rows on `device`.
pub fn rows(labels: &[i64], classes: usize, device: &Device) -> Result<Tensor> {
    one_hot(labels, classes, DType::F32, device)
}

/// The condition that `cond` means for `batch` samples of `net`, on `device`: labels (an array, a tensor [B] of integers, or
/// one for all) become one-hot rows, tensors are rows already, `()` is none; anything else goes to a network of
/// `denoiser::from_fn` as it is.
pub fn cond_of(net: &DynDenoiser, batch: usize, cond: Dynamic, device: &Device) -> Result<Cond> {
    if cond.is_unit() {
        return Ok(Cond::None);
    }
    let classes = net.classes();
    let integers = |t: &Tensor| t.rank() == 1 && t.dtype().is_int();
    let labels = match cond.clone().try_cast::<Tensor>() {
        Some(t) if classes > 0 && integers(&t) => labels_of("cond", cond)?,
        Some(t) => return Ok(Cond::Rows(t.to_device(device)?)),
        None if classes == 0 => return Ok(Cond::Opaque(Rc::new(cond))),
        None if cond.is_int() => vec![labels_of("cond", cond)?[0]; batch],
        None => labels_of("cond", cond)?,
    };
    if labels.len() != batch {
        let m = format!("cond: expected {batch} labels, one per sample, got {}", labels.len());
        return Err(Error::shape(m, &[&[labels.len()], &[batch]]));
    }
    Ok(Cond::Rows(rows(&labels, classes, device)?))
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
