//! Recording: while a function is traced, every tensor operation of scripts leaves a call in the log.
use super::log::{Arg, Call, Log, Ran};
use super::native;
use crate::tensor::grad::no_grad;
use candle_core::Tensor;
use rhai::{
    Array, Dynamic, EvalAltResult, INT, ImmutableString, Map, NativeCallContext, Position, RhaiFunc, RhaiNativeFunc,
    Shared,
};
use std::any::TypeId;
use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

thread_local! {
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Functions that read no values, whatever they return.
const BLIND: [&str; 8] =
    ["get$shape", "get$dtype", "get$device", "get$ndim", "get$size", "get$len", "get$tracked", "len"];

/// Operations whose results a graph cannot have.
const NEVER: [&str; 6] = ["variable", "grad", "vjp", "checkpoint", "save", "load"];

/// Notes that something stands in the way of a graph, where one is being recorded.
pub fn refuse(why: &str) {
    LOG.with_borrow_mut(|log| {
        if let Some(log) = log {
            log.refuse(why, Position::NONE);
        }
    });
}

/// Runs `f` on tensors and records what is done to them.
pub fn record<E>(batch: usize, inputs: &[Tensor], f: impl FnOnce() -> Result<Tensor, E>) -> Result<Ran, E> {
    let mut log = Log::default();
    inputs.iter().for_each(|t| {
        log.value(t);
    });
    let before = LOG.replace(Some(log));
    let done = no_grad(f);
    let log = LOG.replace(before).unwrap_or_default();
    let output = done.map(|t| log.number(&t))?;
    Ok(Ran { log, batch, output })
}

/// A function as scripts call it.
pub type Native = dyn Fn(Option<NativeCallContext>, &mut [&mut Dynamic]) -> Result<Dynamic, Box<EvalAltResult>>;

/// What an argument is to the log.
fn told(log: &Log, v: &Dynamic, depth: usize) -> Option<Arg> {
    if depth > 8 {
        return None;
    }
    if let Some(t) = v.read_lock::<Tensor>() {
        return Some(log.number(&t).map_or_else(|| Arg::Const(t.detach()), Arg::Value));
    }
    if let Some(list) = v.read_lock::<Array>() {
        return Some(Arg::List(list.iter().map(|v| told(log, v, depth + 1)).collect::<Option<Vec<_>>>()?));
    }
    if let Some(map) = v.read_lock::<Map>() {
        let each = map.iter().map(|(k, v)| Some((k.to_string(), told(log, v, depth + 1)?)));
        return Some(Arg::Map(each.collect::<Option<Vec<_>>>()?));
    }
    if let Some(r) = v.read_lock::<Range<INT>>() {
        return Some(Arg::Range(r.start, r.end, false));
    }
    if let Some(r) = v.read_lock::<RangeInclusive<INT>>() {
        return Some(Arg::Range(*r.start(), *r.end(), true));
    }
    if let Some(s) = v.read_lock::<ImmutableString>() {
        return Some(Arg::Text(s.to_string()));
    }
    let plain = v.as_int().map(Arg::Int).or(v.as_float().map(Arg::Float)).or(v.as_bool().map(Arg::Bool));
    plain.ok().or(v.is_unit().then_some(Arg::Unit))
}

/// Whether a value of the log is among the arguments.
fn concerns(log: &Log, v: &Dynamic) -> bool {
    if let Some(t) = v.read_lock::<Tensor>() {
        return log.number(&t).is_some();
    }
    if let Some(list) = v.read_lock::<Array>() {
        return list.iter().any(|v| concerns(log, v));
    }
    v.read_lock::<Map>().is_some_and(|m| m.values().any(|v| concerns(log, v)))
}

/// The tensors that a function returned: one, or an array of them.
pub(super) fn tensors(v: &Dynamic) -> Option<Vec<Tensor>> {
    if let Some(t) = v.read_lock::<Tensor>() {
        return Some(vec![t.clone()]);
    }
    let list = v.read_lock::<Array>()?;
    list.iter().map(|v| v.clone().try_cast::<Tensor>()).collect::<Option<Vec<_>>>().filter(|l| !l.is_empty())
}

/// Enters a call with what it gave.
fn enter(log: &mut Log, name: &str, args: Option<Vec<Arg>>, result: &Dynamic, at: Position) {
    if NEVER.contains(&name) {
        return log.refuse(format!("`{name}` in it"), at);
    }
    let Some(results) = tensors(result) else {
        // `x == ()` looks at no value
        let blind = BLIND.contains(&name) || args.iter().flatten().any(|a| matches!(a, Arg::Unit));
        if !blind {
            log.refuse(format!("`{}` reads values", name.trim_start_matches("get$")), at);
        }
        return;
    };
    // the very same tensor is the same value
    if results.iter().all(|t| log.number(t).is_some()) {
        return;
    }
    let Some(args) = args else { return log.refuse(format!("an argument of `{name}`"), at) };
    let results = results.iter().map(|t| log.value(t)).collect();
    log.calls.push(Call { name: name.into(), args, results, at });
}

/// Enters a call of `name` with what it gave, where a function is being traced: for what does not come by a call.
fn note(name: &str, args: &[Dynamic], done: &Dynamic) {
    LOG.with_borrow_mut(|log| {
        let Some(log) = log.as_mut().filter(|log| args.iter().any(|a| concerns(log, a))) else { return };
        let given = args.iter().map(|a| told(log, a, 0)).collect();
        enter(log, name, given, done, Position::NONE);
    });
}

/// `note` of what `f` gives.
pub fn noted<E>(name: &str, args: &[Dynamic], f: impl FnOnce() -> Result<Tensor, E>) -> Result<Tensor, E> {
    let done = f()?;
    note(name, args, &Dynamic::from(done.clone()));
    Ok(done)
}

/// Whether a tensor depends on the arguments of a function that is being traced.
pub fn is_traced(t: &Tensor) -> bool {
    LOG.with_borrow(|log| log.as_ref().is_some_and(|log| log.number(t).is_some()))
}

/// `f`, recorded under `name` where a function is being traced. An index setter gives its first argument.
pub fn watched(name: &str, f: Shared<Native>, with_context: bool, sets: bool) -> Shared<Native> {
    let name = name.to_string();
    Shared::new(move |context: Option<NativeCallContext>, args: &mut [&mut Dynamic]| {
        let concerned = LOG.with_borrow(|log| log.as_ref().is_some_and(|log| args.iter().any(|a| concerns(log, a))));
        if !concerned {
            return f(context.filter(|_| with_context), args);
        }
        let at = context.as_ref().map_or(Position::NONE, NativeCallContext::call_position);
        let given = LOG.with_borrow(|log| {
            let log = log.as_ref()?;
            args.iter().map(|a| told(log, a, 0)).collect::<Option<Vec<_>>>()
        });
        let result = f(context.filter(|_| with_context), args)?;
        LOG.with_borrow_mut(|log| {
            if let Some(log) = log {
                enter(log, &name, given, if sets { args[0] } else { &result }, at);
            }
        });
        Ok(result)
    })
}

/// A native function under its name: as Rhai calls it, it is recorded, and `native` knows it.
pub struct Watched<T> {
    /// The name.
    pub name: String,
    /// The function.
    pub f: T,
}

impl<A: 'static, const N: usize, const X: bool, R: 'static, const F: bool, T> RhaiNativeFunc<A, N, X, R, F>
    for Watched<T>
where
    T: RhaiNativeFunc<A, N, X, R, F>,
{
    fn into_rhai_function(self, pure: bool, volatile: bool) -> RhaiFunc {
        let Watched { name, f } = self;
        let sets = name == FN_IDX_SET;
        let make = |func: Shared<Native>, with_context| {
            native::know(&name, T::param_types().to_vec(), &func, with_context);
            watched(&name, func, with_context, sets)
        };
        match f.into_rhai_function(pure, volatile) {
            RhaiFunc::Pure { func, has_context, is_pure, is_volatile } => {
                RhaiFunc::Pure { func: make(func, has_context), has_context: true, is_pure, is_volatile }
            }
            RhaiFunc::Method { func, has_context, is_pure, is_volatile } => {
                RhaiFunc::Method { func: make(func, has_context), has_context: true, is_pure, is_volatile }
            }
            other => other,
        }
    }
    fn param_types() -> [TypeId; N] {
        T::param_types()
    }
    fn param_names() -> [&'static str; N] {
        T::param_names()
    }
}

/// The name of what assigns to a part.
pub(super) const FN_IDX_SET: &str = "index$set$";
