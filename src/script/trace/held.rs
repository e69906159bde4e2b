//! What a function holds: the values that it captures and reads, and whether they are still the same.
use crate::noise::Noise;
use crate::script::closures::{parts, replaced};
use candle_core::Tensor;
use rhai::{Array, Dynamic, FnPtr, ImmutableString, Map, NativeCallContext};
use std::fmt::Write;

/// Values inside values: as deep as anything meant.
const DEEPEST: usize = 40;

/// All that a function captures and reads. Shared variables stay shared: what a script does to them is seen.
pub struct Held(Vec<Dynamic>);

impl Held {
    /// Of a function; `None` where that cannot be known.
    pub fn of(context: &NativeCallContext, f: &FnPtr) -> Option<Held> {
        let mut all = vec![];
        collect(context, f, &mut all, 0)?;
        Some(Held(all))
    }

    /// What tells these values, and the functions by their names, from others while the process lives; `None` where something is among them that may change unseen.
    pub fn now(&self) -> Option<String> {
        let mut told = format!("{};", replaced());
        self.0.iter().try_for_each(|v| tell(v, &mut told, 0))?;
        Some(told)
    }
}

fn collect(context: &NativeCallContext, f: &FnPtr, all: &mut Vec<Dynamic>, depth: usize) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    let reads = parts(context, f)?.reads.into_values();
    for v in f.iter_curry().cloned().chain(reads) {
        nested(context, &v, all, depth + 1)?;
        all.push(v);
    }
    Some(())
}

/// What the functions in a value hold.
fn nested(context: &NativeCallContext, v: &Dynamic, all: &mut Vec<Dynamic>, depth: usize) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    if let Some(f) = v.read_lock::<FnPtr>() {
        return collect(context, &f, all, depth + 1);
    }
    if let Some(list) = v.read_lock::<Array>() {
        return list.iter().try_for_each(|v| nested(context, v, all, depth + 1));
    }
    if let Some(map) = v.read_lock::<Map>() {
        return map.values().try_for_each(|v| nested(context, v, all, depth + 1));
    }
    Some(())
}

fn tell(v: &Dynamic, told: &mut String, depth: usize) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    if let Some(t) = v.read_lock::<Tensor>() {
        // a tensor never changes, and no other gets its number
        write!(told, "t{:?};", t.id()).ok()
    } else if let Some(list) = v.read_lock::<Array>() {
        told.push('[');
        list.iter().try_for_each(|v| tell(v, told, depth + 1))?;
        told.push(']');
        Some(())
    } else if let Some(map) = v.read_lock::<Map>() {
        map.iter().try_for_each(|(k, v)| {
            write!(told, "{k:?}=").ok()?;
            tell(v, told, depth + 1)
        })
    } else if let Some(f) = v.read_lock::<FnPtr>() {
        write!(told, "f{};", f.fn_name()).ok()
    } else if let Some(n) = v.read_lock::<Noise>() {
        write!(told, "n{};", n.spec()).ok()
    } else if let Some(s) = v.read_lock::<ImmutableString>() {
        write!(told, "{s:?};").ok()
    } else if let Ok(x) = v.as_float() {
        write!(told, "{:x};", x.to_bits()).ok()
    } else if let Ok(i) = v.as_int() {
        write!(told, "{i};").ok()
    } else if let Ok(b) = v.as_bool() {
        write!(told, "{b};").ok()
    } else if v.is_unit() {
        told.push_str("();");
        Some(())
    } else {
        None
    }
}
