//! Dtypes by name, which dtype an operation computes in, and checks of dimensions and sizes.
use super::memory;
use crate::error::Compared;
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};

/// The dtype of new floating-point tensors unless told otherwise, as in PyTorch.
pub const FLOAT: DType = DType::F32;

/// The names of dtypes.
pub const NAMES: [&str; 9] = ["u8", "u32", "i16", "i32", "i64", "bf16", "f16", "f32", "f64"];
const TYPES: [DType; 9] =
    [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64, DType::BF16, DType::F16, DType::F32, DType::F64];

/// The dtype called `name` (`"f32"`, `"i64"`, …; masks are `"u8"`). An unknown name is an error that lists them.
pub fn parse(name: &str) -> Result<DType> {
    let found = NAMES.iter().position(|n| *n == name);
    found.map(|i| TYPES[i]).ok_or_else(|| Error::unknown("dtype", name, NAMES))
}

/// The dtype in which `a` and `b` meet: floats win over integers, more bits over fewer, f16 with bf16 gives f32, and
/// different integers give i64.
pub fn promote(a: DType, b: DType) -> DType {
    match (a.is_float(), b.is_float()) {
        _ if a == b => a,
        (true, false) => a,
        (false, true) => b,
        (false, false) => DType::I64,
        (true, true) if a == DType::F64 || b == DType::F64 => DType::F64,
        (true, true) => DType::F32,
    }
}

/// The dtype of a result that cannot be an integer: `d` itself if floating point, else [`FLOAT`].
pub fn floating(d: DType) -> DType {
    if d.is_float() { d } else { FLOAT }
}

/// `t` in a floating-point dtype (integers become [`FLOAT`]).
pub fn to_float(t: &Tensor) -> Result<Tensor> {
    Ok(t.to_dtype(floating(t.dtype()))?)
}

/// Fails unless `t` is floating point; `what` names the caller.
pub fn want_float(what: &str, t: &Tensor) -> Result<()> {
    if t.dtype().is_float() {
        return Ok(());
    }
    let m = format!("{what}: expected a floating-point tensor, got dtype {}", t.dtype().as_str());
    Err(Error::new(Kind::Type, m).hint("convert it first: `x.to(\"f32\")`"))
}

/// The dimension that `dim` means in a tensor of shape `dims`: negative ones count from the end.
pub fn dim(what: &str, dims: &[usize], dim: i64) -> Result<usize> {
    let rank = dims.len() as i64;
    if (-rank..rank).contains(&dim) {
        return Ok(if dim < 0 { dim + rank } else { dim } as usize);
    }
    let m = format!("{what}: dimension {dim} does not exist in a tensor of {rank} dimensions");
    Err(Error::shape(m, &[dims]))
}

/// Several dimensions as [`dim`] reads them, none twice; `None` means all.
pub fn dims(what: &str, shape: &[usize], list: Option<&[i64]>) -> Result<Vec<usize>> {
    let Some(list) = list else { return Ok((0..shape.len()).collect()) };
    let mut out = vec![];
    for &d in list {
        let d = dim(what, shape, d)?;
        if out.contains(&d) {
            return Err(Error::shape(format!("{what}: dimension {d} is named twice"), &[shape]));
        }
        out.push(d);
    }
    Ok(out)
}

/// The shape to which `a` and `b` broadcast (numpy's rule).
pub fn broadcast(what: &str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let n = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < n { 1 } else { s[i + s.len() - n] };
    (0..n)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(Error::shape(format!("{what}: shapes {a:?} and {b:?} do not broadcast"), &[a, b])
                .compared(Compared::Broadcast)
                .hint("dimensions are compared from the last; each pair must be equal or contain a 1")),
        })
        .collect()
}

/// How many values a tensor of this shape has, where that can be counted. Of an empty one the other sizes must be countable too: strides
/// are made of them.
pub fn elements(shape: &[usize]) -> Option<usize> {
    let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul((*d).max(1)))?;
    Some(if shape.contains(&0) { 0 } else { n })
}

/// Fails where a tensor of this shape could not be addressed or would not fit into the memory that is left, before memory
/// is taken. Tensors of any size count.
pub fn check_size(what: &str, shape: &[usize], dtype: DType) -> Result<usize> {
    let n = elements(shape);
    let bytes = n.and_then(|n| n.checked_mul(dtype.size_in_bytes())).filter(|b| *b <= MAX_BYTES);
    let (Some(n), Some(bytes)) = (n, bytes) else {
        let size = n.and_then(|n| n.checked_mul(dtype.size_in_bytes()));
        let size = size.map_or("more than can be addressed".into(), |b| memory::size(b as u64));
        return Err(too_large(what, shape, dtype, &size).hint("is a size wrong?"));
    };
    memory::room(what, bytes).map(|()| n).map_err(|e| {
        let hint = e.fix().unwrap_or_default().to_string();
        too_large(what, shape, dtype, &memory::size(bytes as u64)).hint(hint)
    })
}

fn too_large(what: &str, shape: &[usize], dtype: DType, size: &str) -> Error {
    let m = format!("{what}: a tensor of shape {shape:?} and dtype {} is too large ({size})", dtype.as_str());
    Error::new(Kind::Memory, m).shapes(&[shape])
}

/// No tensor is larger than this (1 TiB), whatever the system says.
const MAX_BYTES: usize = 1 << 40;
