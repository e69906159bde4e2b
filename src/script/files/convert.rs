//! Between script values and plain data: JSON, and state with tensors.
use crate::discretize::Schedule;
use crate::files::state::Data;
use crate::host::check_cancelled;
use crate::script::plan::ScriptSolver;
use crate::tensor::device::default_device;
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};
use rhai::{Array, Dynamic, INT, Map};
use serde_json::Value;

/// Deeper nesting than this is a value that contains itself, or a slip.
const DEEPEST: usize = 60;

/// A text of its own: many values may share one in the script.
fn text_of(v: &Dynamic) -> Result<String> {
    let length = v.as_immutable_string_ref().map_or(4, |s| s.len());
    memory::room("a text", length)?;
    Ok(v.to_string())
}

fn deep() -> Error {
    Error::value(format!("the value is nested more than {DEEPEST} levels deep"))
}

fn unknown(v: &Dynamic, what: &str, at: &str) -> Error {
    let place = if at.is_empty() { String::new() } else { format!(" at `{at}`") };
    let ty = crate::script::error::type_of(v);
    let e = Error::new(Kind::Type, format!("a value of type {ty}{place} cannot be {what}"));
    e.hint("plain data is (), true, false, numbers, strings, tensors, arrays and maps")
}

fn inside(at: &str, key: impl std::fmt::Display) -> String {
    if at.is_empty() { key.to_string() } else { format!("{at}.{key}") }
}

/// A script value as JSON: tensors become nested arrays, schedules the map that `to_map` gives, solvers the
/// object that `json` spells.
///
/// Errors: functions and other values that are not data; NaN and infinities, which JSON lacks, unless `text` asks for the
/// strings "nan", "inf" and "-inf".
pub fn to_json(v: &Dynamic, text: bool) -> Result<Value> {
    json(v, text, "", 0)
}

fn json(v: &Dynamic, text: bool, at: &str, depth: usize) -> Result<Value> {
    if depth > DEEPEST {
        return Err(deep());
    }
    check_cancelled()?;
    if v.is_unit() {
        Ok(Value::Null)
    } else if let Ok(b) = v.as_bool() {
        Ok(b.into())
    } else if let Ok(i) = v.as_int() {
        Ok(i.into())
    } else if let Ok(f) = v.as_float() {
        float(f, text, at)
    } else if v.is_string() || v.is_char() {
        Ok(text_of(v)?.into())
    } else if let Some(a) = v.read_lock::<Array>() {
        let items = a.iter().enumerate().map(|(i, v)| json(v, text, &inside(at, i), depth + 1));
        Ok(Value::Array(items.collect::<Result<_>>()?))
    } else if let Some(m) = v.read_lock::<Map>() {
        let items = m.iter().map(|(k, v)| Ok((k.to_string(), json(v, text, &inside(at, k), depth + 1)?)));
        Ok(Value::Object(items.collect::<Result<_>>()?))
    } else if let Some(t) = v.read_lock::<Tensor>() {
        nested(&t.detach(), text, at)
    } else if let Some(s) = v.read_lock::<Schedule>() {
        json(&Dynamic::from(super::schedule::map_of(&s)?), text, at, depth + 1)
    } else if let Some(s) = v.read_lock::<ScriptSolver>() {
        s.to_json()
    } else {
        Err(unknown(v, "written as JSON", at))
    }
}

fn float(f: f64, text: bool, at: &str) -> Result<Value> {
    match serde_json::Number::from_f64(f) {
        Some(n) => Ok(Value::Number(n)),
        None if text => Ok(if f.is_nan() {
            "nan"
        } else if f > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .into()),
        None => {
            let place = if at.is_empty() { String::new() } else { format!(" at `{at}`") };
            Err(Error::value(format!("JSON has no {f}{place}")).hint("keep such numbers with `state::save`"))
        }
    }
}

fn nested(t: &Tensor, text: bool, at: &str) -> Result<Value> {
    if t.rank() > 0 {
        check_cancelled()?;
        memory::room("JSON", t.dim(0)?.saturating_mul(size_of::<Value>()))?;
        let rows = (0..t.dim(0)?).map(|i| nested(&t.get(i)?, text, at));
        return Ok(Value::Array(rows.collect::<Result<_>>()?));
    }
    match t.dtype() {
        d if d.is_float() => float(t.to_dtype(DType::F64)?.to_scalar()?, text, at),
        _ => Ok(t.to_dtype(DType::I64)?.to_scalar::<i64>()?.into()),
    }
}

/// JSON as a script value: objects become maps, null becomes ().
pub fn from_json(v: &Value) -> Dynamic {
    match v {
        Value::Null => Dynamic::UNIT,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => match n.as_i64() {
            Some(i) => Dynamic::from_int(i as INT),
            None => Dynamic::from_float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => s.clone().into(),
        Value::Array(a) => a.iter().map(from_json).collect::<Array>().into(),
        Value::Object(m) => m.iter().map(|(k, v)| (k.as_str().into(), from_json(v))).collect::<Map>().into(),
    }
}

/// A script value as state, tensors as they are. Errors: functions and other values that are not data.
pub fn to_data(v: &Dynamic) -> Result<Data> {
    data(v, "", 0)
}

fn data(v: &Dynamic, at: &str, depth: usize) -> Result<Data> {
    if depth > DEEPEST {
        return Err(deep());
    }
    check_cancelled()?;
    if v.is_unit() {
        Ok(Data::Unit)
    } else if let Ok(b) = v.as_bool() {
        Ok(Data::Bool(b))
    } else if let Ok(i) = v.as_int() {
        Ok(Data::Int(i))
    } else if let Ok(f) = v.as_float() {
        Ok(Data::Float(f))
    } else if v.is_string() || v.is_char() {
        Ok(Data::Str(text_of(v)?))
    } else if let Some(a) = v.read_lock::<Array>() {
        let items = a.iter().enumerate().map(|(i, v)| data(v, &inside(at, i), depth + 1));
        Ok(Data::Array(items.collect::<Result<_>>()?))
    } else if let Some(m) = v.read_lock::<Map>() {
        let items = m.iter().map(|(k, v)| Ok((k.to_string(), data(v, &inside(at, k), depth + 1)?)));
        Ok(Data::Map(items.collect::<Result<_>>()?))
    } else if let Some(t) = v.read_lock::<Tensor>() {
        Ok(Data::Tensor(t.clone()))
    } else {
        let e = unknown(v, "saved as state", at);
        Err(if v.is::<Schedule>() {
            e.hint("save `schedule.to_map()`, and read it with `schedule::from_map`")
        } else {
            e
        })
    }
}

/// State as a script value; tensors come to the device for new ones, as those that were saved had been made there.
pub fn from_data(d: Data) -> crate::Result<Dynamic> {
    Ok(match d {
        Data::Unit => Dynamic::UNIT,
        Data::Bool(b) => b.into(),
        Data::Int(i) => Dynamic::from_int(i),
        Data::Float(f) => Dynamic::from_float(f),
        Data::Str(s) => s.into(),
        Data::Tensor(t) => Dynamic::from(t.to_device(&default_device())?),
        Data::Array(a) => a.into_iter().map(from_data).collect::<crate::Result<Array>>()?.into(),
        Data::Map(m) => {
            m.into_iter().map(|(k, v)| Ok((k.into(), from_data(v)?))).collect::<crate::Result<Map>>()?.into()
        }
    })
}
