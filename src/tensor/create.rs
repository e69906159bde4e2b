//! New tensors: constants, ranges, and host values.
use super::dtype::{check_size, floating};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// A tensor of `shape` filled with `value` (rounded towards zero for integer dtypes).
pub fn full(shape: &[usize], value: f64, dtype: DType, device: &Device) -> Result<Tensor> {
    check_size("full", shape, dtype)?;
    // made in f64 for floats, in i64 for integers, so that no value is rounded twice
    let one = if dtype.is_float() {
        Tensor::full(value, (), device)?.to_dtype(dtype)?
    } else {
        Tensor::full(value as i64, (), device)?.to_dtype(dtype)?
    };
    Ok(one.broadcast_as(shape)?.contiguous()?)
}

/// A tensor of `shape` filled with the integer `value` (exact in integer dtypes).
pub fn full_int(shape: &[usize], value: i64, dtype: DType, device: &Device) -> Result<Tensor> {
    check_size("full", shape, dtype)?;
    Ok(Tensor::full(value, (), device)?.to_dtype(dtype)?.broadcast_as(shape)?.contiguous()?)
}

/// A tensor of zeros.
pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    check_size("zeros", shape, dtype)?;
    Ok(Tensor::zeros(shape, dtype, device)?)
}

/// A tensor of ones.
pub fn ones(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    check_size("ones", shape, dtype)?;
    Ok(Tensor::ones(shape, dtype, device)?)
}

/// Values in a tensor of `shape` and `dtype`: f64 on the host, cast once.
pub fn from_f64(values: Vec<f64>, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

/// Integers in a tensor of `shape` and `dtype`.
pub fn from_i64(values: Vec<i64>, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

fn count(what: &str, start: f64, end: f64, step: f64) -> Result<usize> {
    if step == 0.0 || !start.is_finite() || !end.is_finite() || !step.is_finite() {
        return Err(Error::value(format!("{what}: needs finite bounds and a step that is not 0, got step {step}")));
    }
    let n = ((end - start) / step).ceil().max(0.0);
    if n > 1e12 {
        return Err(Error::value(format!("{what}: {n:e} values are too many")));
    }
    Ok(n as usize)
}

/// `start, start + step, …` up to and without `end`, [n].
pub fn arange(start: f64, end: f64, step: f64, dtype: DType, device: &Device) -> Result<Tensor> {
    let n = count("arange", start, end, step)?;
    check_size("arange", &[n], DType::F64)?;
    from_f64((0..n).map(|i| start + step * i as f64).collect(), &[n], floating(dtype), device)?
        .to_dtype(dtype)
        .map_err(Into::into)
}

/// Integers `start, start + step, …` up to and without `end`, [n].
pub fn arange_int(start: i64, end: i64, step: i64, dtype: DType, device: &Device) -> Result<Tensor> {
    let n = count("arange", start as f64, end as f64, step as f64)?;
    check_size("arange", &[n], DType::F64)?;
    let at = |i: usize| start.wrapping_add(step.wrapping_mul(i as i64));
    from_i64((0..n).map(at).collect(), &[n], dtype, device)
}

/// `n` values from `start` to `end`, both included, equally spaced, [n].
pub fn linspace(start: f64, end: f64, n: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    check_size("linspace", &[n], DType::F64)?;
    let last = n.saturating_sub(1);
    // from the nearer end, so that both ends are exact and the values symmetric
    let at = |i: usize| match last {
        0 => start,
        _ if 2 * i <= last => start + (end - start) * (i as f64 / last as f64),
        _ => end - (end - start) * ((last - i) as f64 / last as f64),
    };
    from_f64((0..n).map(at).collect(), &[n], dtype, device)
}

/// The identity matrix, [n, n].
pub fn eye(n: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    check_size("eye", &[n, n], DType::F64)?;
    let i = Tensor::arange(0i64, n as i64, device)?;
    Ok(i.reshape((n, 1))?.broadcast_eq(&i.reshape((1, n))?)?.to_dtype(dtype)?)
}

/// The values of `t` in row-major order, as f64 (exact for all dtypes but large i64).
pub fn to_f64(t: &Tensor) -> Result<Vec<f64>> {
    let t = t.detach().to_device(&Device::Cpu)?.flatten_all()?;
    Ok(t.to_dtype(DType::F64)?.to_vec1()?)
}

/// The values of `t` in row-major order, as i64 (floats are cut towards zero).
pub fn to_i64(t: &Tensor) -> Result<Vec<i64>> {
    let t = t.detach().to_device(&Device::Cpu)?.flatten_all()?;
    Ok(t.to_dtype(DType::I64)?.to_vec1()?)
}
