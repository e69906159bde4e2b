//! The [`Host`] of a running script: calls its functions for native code, and shows progress where its session shows things.
use super::error::carry;
use super::front::Shared;
use crate::host::{Callback, Host, Progress, Value};
use crate::real::host_values;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::{Dynamic, FLOAT, FnPtr, INT, NativeCallContext};
use std::rc::Rc;

/// What native code may ask of the script that called it. Made from the call context of a native function, and valid
/// for that call.
pub struct ScriptHost<'a> {
    context: &'a NativeCallContext<'a>,
}

impl<'a> ScriptHost<'a> {
    /// The host for the native call that `context` describes.
    pub fn new(context: &'a NativeCallContext<'a>) -> Self {
        ScriptHost { context }
    }
}

/// A script's function as native objects store it.
pub fn callback(f: FnPtr) -> Callback {
    Callback(Rc::new(f))
}

/// The number that a function of a script returned, by itself or as a tensor with one element, if it did.
pub fn number(v: Value) -> Result<Option<f64>> {
    Ok(match v {
        Value::Float(x) => Some(x),
        Value::Int(i) => Some(i as f64),
        Value::Tensor(t) if t.elem_count() == 1 => host_values(&t)?.first().copied(),
        _ => None,
    })
}

/// A native value as scripts see it.
pub fn to_dynamic(v: Value) -> Dynamic {
    match v {
        Value::Tensor(t) => Dynamic::from(t),
        Value::Float(x) => Dynamic::from_float(x),
        Value::Int(i) => Dynamic::from_int(i),
        Value::Opaque(o) => o.downcast_ref::<Dynamic>().cloned().unwrap_or(Dynamic::UNIT),
        Value::Named(all) => {
            let entry = |(name, t): (String, Tensor)| (name.into(), Dynamic::from(t));
            Dynamic::from_map(all.into_iter().map(entry).collect())
        }
        Value::Unit => Dynamic::UNIT,
    }
}

/// A script's value as native code sees it: what native code does not know is handed through as it is.
pub fn from_dynamic(v: Dynamic) -> Value {
    let v = v.flatten();
    if v.is_unit() {
        Value::Unit
    } else if let Ok(x) = v.as_float() as std::result::Result<FLOAT, _> {
        Value::Float(x)
    } else if let Ok(i) = v.as_int() as std::result::Result<INT, _> {
        Value::Int(i)
    } else {
        match v.try_cast_result::<Tensor>() {
            Ok(t) => Value::Tensor(t),
            Err(v) => Value::Opaque(Rc::new(v)),
        }
    }
}

impl Host for ScriptHost<'_> {
    fn call(&self, f: &Callback, args: Vec<Value>) -> Result<Value> {
        let Some(f) = f.0.downcast_ref::<FnPtr>() else {
            return Err(Error::new(Kind::Internal, "a callback that is not a script's function"));
        };
        crate::host::check_cancelled()?;
        let args: Vec<Dynamic> = args.into_iter().map(to_dynamic).collect();
        f.call_raw(self.context, None, args).map(from_dynamic).map_err(carry)
    }

    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        Shared::of(self.context.engine()).progress(label, total)
    }
}
