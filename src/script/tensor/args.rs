//! Reading arguments: numbers where tensors may stand, shapes, dimensions, dtype and device options.
use crate::schema::{Opt, Schema, word};
use crate::script::error::RhaiResult;
use crate::script::options::{DEVICE, Given, number_of};
use crate::tensor::arith::Operand;
use crate::tensor::dtype::NAMES;
use crate::{Error, Kind};
use candle_core::{DType, Device, Tensor};
use rhai::{Array, Dynamic, Map};

/// An error about an argument's type.
pub fn wrong_type(what: &str, want: &str, got: &Dynamic) -> Error {
    Error::new(Kind::Type, format!("{what}: expected {want}, got {}", name_of(got)))
}
fn name_of(v: &Dynamic) -> &str {
    match crate::script::error::type_of(v) {
        "Tensor" => "a tensor",
        n => n,
    }
}

/// A number, an integer among them.
pub fn number(what: &str, v: &Dynamic) -> Result<f64, Error> {
    number_of(v).ok_or_else(|| wrong_type(what, "a number", v))
}
/// A whole number ≥ 0.
pub fn count(what: &str, v: i64) -> Result<usize, Error> {
    usize::try_from(v).map_err(|_| Error::value(format!("{what}: expected a count (≥ 0), got {v}")))
}
/// A tensor.
pub fn tensor(what: &str, v: &Dynamic) -> Result<Tensor, Error> {
    v.clone().flatten().try_cast_result::<Tensor>().map_err(|v| wrong_type(what, "a tensor", &v))
}
/// A tensor or nothing.
pub fn maybe_tensor(what: &str, v: &Dynamic) -> Result<Option<Tensor>, Error> {
    if v.is_unit() { Ok(None) } else { tensor(what, v).map(Some) }
}
/// A tensor, a number, or true and false (as a mask).
pub fn operand(what: &str, v: &Dynamic) -> Result<Operand, Error> {
    if let Ok(x) = v.as_float() {
        Ok(Operand::Float(x))
    } else if let Ok(i) = v.as_int() {
        Ok(Operand::Int(i))
    } else if let Ok(b) = v.as_bool() {
        Ok(Operand::Tensor(Tensor::new(b as u8, &Device::Cpu).map_err(Error::from)?))
    } else {
        tensor(what, v).map(Operand::Tensor).map_err(|_| wrong_type(what, "a tensor or a number", v))
    }
}
/// One integer, or an array of them.
pub fn ints(what: &str, v: &Dynamic) -> Result<Vec<i64>, Error> {
    if let Ok(i) = v.as_int() {
        return Ok(vec![i]);
    }
    let wrong = || wrong_type(what, "an integer or an array of integers", v);
    let list = v.read_lock::<Array>().ok_or_else(wrong)?;
    list.iter().map(|d| d.as_int().map_err(|_| wrong_type(what, "an array of integers", d))).collect()
}
/// A shape: an integer, or an array of sizes.
pub fn shape(what: &str, v: &Dynamic) -> Result<Vec<usize>, Error> {
    ints(what, v)?.into_iter().map(|d| count(&format!("{what}: a size"), d)).collect()
}
/// Dimensions: an integer, an array, or `()` for all.
pub fn dims(what: &str, v: &Dynamic) -> Result<Option<Vec<i64>>, Error> {
    if v.is_unit() { Ok(None) } else { ints(what, v).map(Some) }
}
/// Tensors in an array.
pub fn tensors(what: &str, list: &Array) -> Result<Vec<Tensor>, Error> {
    list.iter().map(|t| tensor(what, t)).collect()
}
/// Tensors as scripts hold them.
pub fn to_array(list: Vec<Tensor>) -> Array {
    list.into_iter().map(|t| Dynamic::from(crate::tensor::grad::result(t))).collect()
}
/// One number for both directions, or a pair.
pub fn pair(what: &str, v: &Dynamic) -> Result<(usize, usize), Error> {
    match shape(what, v)?.as_slice() {
        [a] => Ok((*a, *a)),
        [a, b] => Ok((*a, *b)),
        _ => Err(wrong_type(what, "an integer or a pair of them", v)),
    }
}

/// The option `dtype` of a function whose result has this one where nothing is said.
pub const fn dtype(default: &'static str, doc: &'static str) -> Opt {
    word("dtype", &NAMES, doc).or(default)
}
/// Of which type of numbers a tensor is, and where it is.
pub const PLACE: &[Opt] =
    &[dtype("\"f32\"", "\"f64\", \"f32\", \"f16\", \"bf16\", \"i64\", \"i32\", \"i16\", \"u32\" or \"u8\""), DEVICE];

/// The options in `v`, a map; a string alone is a dtype.
pub fn place(schema: Schema, v: Dynamic) -> RhaiResult<(Option<DType>, Device, Given)> {
    let what = schema.of;
    let mut map = Map::new();
    if v.is_string() {
        map.insert("dtype".into(), v);
    } else if v.is_map() {
        map = v.cast::<Map>();
    } else if !v.is_unit() {
        let e = wrong_type(what, "options like #{ dtype: \"f64\" }", &v);
        return Err(if v.is_int() { e.hint(format!("a shape is one list: `{what}([2, 3])`")) } else { e }.into());
    }
    let o = schema.read(map)?;
    Ok((o.dtype()?, o.device()?, o))
}
