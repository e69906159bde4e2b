//! Closures that keep their home: a function pointer always runs with the functions, imports and constants of the
//! script or module that made it, wherever it is called from.
//!
//! Rhai resolves a closure by name in whatever environment calls it, so a closure handed to a module would see the
//! module's functions before its own script's. [`bind`] rewrites a parsed script: each closure becomes a native function
//! pointer that carries its environment; and a captured object handle that is never assigned to is captured by value, so
//! that `net.f(|x| net.g(x))` holds no lock on `net`.
//!
//! It also lets functions read the variables and constants of the top level of their script (or of the REPL), as they are
//! at the time of the call: each such variable that some function reads is recorded (`record`) when it is declared.
use super::error::RhaiResult;
use super::numbers;
use rhai::{
    Dynamic, EncapsulatedEnviron, Engine, EvalAltResult, EvalContext, FnPtr, ImmutableString, Map, Module,
    NativeCallContext, Position, Shared,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

mod bind;
mod body;
mod record;
mod sugar;
mod text;

pub use bind::{assigned, bind, unknown_modules, unknown_variables};
pub use body::{Place, Stopped};
pub use text::{Parts, parts};

/// Marks a captured variable in a `Share` statement that [`on_variable`] decides about. No script can write this name.
const CAPTURE: &str = "capture$";
/// The native function that records a script's imports and constants as they stand.
const RECORD: &str = "__record_environment";
/// The custom syntax that stands for a rewritten function body. Rhai lets nobody outside build the body of a function,
/// but a parsed body that is this one symbol can evaluate any block in the function's own scope.
const BODY: &str = "__rewritten_body";

/// The custom syntax that stands around a call in a namespace: Rhai gives errors of native functions their place, but
/// not those of functions in a namespace (`solver::unipc(…)`).
const PLACED: &str = "__placed";

thread_local! {
    /// The environments of this thread: of the session, and of the modules that are loaded.
    static HOMES: RefCell<Vec<Weak<RefCell<Home>>>> = const { RefCell::new(vec![]) };
}

/// What a script or module sees at its top level; shared by its closures, and filled in while it runs.
#[derive(Clone)]
pub struct Environment(Rc<RefCell<Home>>);

struct Home {
    environ: EncapsulatedEnviron,
    /// The names that functions read and do not define.
    free: BTreeSet<ImmutableString>,
    /// The variables and constants among them that the top level has declared so far.
    variables: BTreeMap<ImmutableString, Dynamic>,
    /// What the functions are made of.
    texts: BTreeMap<ImmutableString, text::Text>,
}

impl Default for Environment {
    fn default() -> Self {
        let environ = EncapsulatedEnviron { lib: Default::default(), imports: Default::default(), constants: None };
        Environment(Rc::new(RefCell::new(Home {
            environ,
            free: Default::default(),
            variables: Default::default(),
            texts: Default::default(),
        })))
    }
}

thread_local! {
    /// How often functions of this thread's scripts were replaced by others of the same name.
    static REPLACED: Cell<u64> = const { Cell::new(0) };
}

/// Says that functions were replaced by others of the same name: what was learned of those that call them holds no longer.
pub fn replace_functions() {
    REPLACED.set(REPLACED.get() + 1);
}
/// How often functions were replaced so far.
pub fn replaced() -> u64 {
    REPLACED.get()
}

impl Environment {
    /// An environment whose functions can read the variables that it records.
    pub fn with_variables() -> Self {
        let new = Environment::default();
        HOMES.with_borrow_mut(|homes| {
            homes.retain(|h| h.strong_count() > 0);
            homes.push(Rc::downgrade(&new.0));
        });
        new
    }
    /// Replaces the functions.
    pub fn set_functions(&self, lib: Shared<Module>) {
        self.0.borrow_mut().environ.lib = std::iter::once(lib).collect();
    }
    /// Takes over the imports and constants of a running script (its functions stay).
    fn record(&self, now: &rhai::GlobalRuntimeState) {
        let now = EncapsulatedEnviron::from(now);
        let mut home = self.0.borrow_mut();
        home.environ.imports = now.imports;
        home.environ.constants = now.constants;
    }
    /// Calls function `name` in this environment.
    fn call(&self, name: &str, context: &NativeCallContext, args: &mut [&mut Dynamic]) -> rhai_result::Result {
        let outer = context.global_runtime_state();
        let env = self.0.borrow().environ.clone();
        let at_home = match (outer.lib.as_slice(), env.lib.as_slice()) {
            ([a], [b]) => Rc::ptr_eq(a, b),
            _ => false,
        };
        if at_home {
            return context.call_fn_raw(name, false, false, args);
        }
        let mut global = outer.clone();
        global.source = env.lib.last().and_then(|m| m.id()).map(Into::into);
        for (alias, module) in &env.imports {
            global.push_import(alias.clone(), module.clone());
        }
        global.lib = env.lib;
        // before the first import or constant is recorded, those of the caller are the only ones there are
        if env.constants.is_some() {
            global.constants = env.constants;
        }
        let source = global.source.clone();
        let inner = NativeCallContext::new_with_all_fields(
            context.engine(),
            name,
            source.as_deref(),
            &global,
            context.call_position(),
        );
        inner.call_fn_raw(name, false, false, args)
    }
    /// A function pointer to `name` (with `params` parameters, the first of them for the `captured` variables, where there
    /// is only one such function) that is at home here.
    fn pointer(&self, name: &ImmutableString, params: Option<usize>, captured: usize) -> Option<FnPtr> {
        let (env, f) = (self.clone(), name.clone());
        // Rhai refuses its own names of closures here; this is what prints
        let shown: ImmutableString = if name.contains('$') { "closure".into() } else { name.clone() };
        let visible = shown.clone();
        // deprecated only to say that the interface may change; the version of rhai is pinned by Cargo.lock
        #[allow(deprecated)]
        FnPtr::from_fn(visible, move |context: NativeCallContext, args: &mut [&mut Dynamic]| {
            if args.last().is_some_and(|a| a.is::<text::WhatAreYou>()) {
                return Ok(env.parts(&f).map_or(Dynamic::UNIT, Dynamic::from));
            }
            let this = params.filter(|n| n + 1 == args.len()).and_then(|n| unused_this(n, captured, args));
            match params {
                // this very error makes `map`, `filter`, … try again with another number of arguments
                Some(n) if n != args.len() && this.is_none() => {
                    let types: Vec<&str> = args.iter().map(|a| context.engine().map_type_name(a.type_name())).collect();
                    let signature = format!("{shown} ({})", types.join(", "));
                    Err(EvalAltResult::ErrorFunctionNotFound(signature, Position::NONE).into())
                }
                _ => {
                    // `filter`, `find`, … pass the array's own element first, in case the function has a `this` for it;
                    // the call would take it out of the array
                    let mut first = args.first().map(|a| Dynamic::clone(a));
                    let rest = args.iter_mut().skip(1).map(|a| &mut **a);
                    let mut all: Vec<&mut Dynamic> = first.iter_mut().chain(rest).collect();
                    if let Some(at) = this {
                        all.remove(at);
                    }
                    env.call(&f, &context, &mut all)
                }
            }
        })
        .ok()
    }
}

/// Where the object is that stands too many among the arguments because the closure does not ask for `this`: first of all the
/// map in `m.f(x)`; behind what was captured, whatever it is, if the closure takes nothing (`a.map(|| 7)`).
fn unused_this(params: usize, captured: usize, args: &[&mut Dynamic]) -> Option<usize> {
    let holds_functions = |m: &Dynamic| m.read_lock::<Map>().is_some_and(|m| m.values().any(Dynamic::is_fnptr));
    match args.first() {
        Some(first) if holds_functions(first) => Some(0),
        _ => (params == captured && captured < args.len()).then_some(captured),
    }
}

mod rhai_result {
    /// What a Rhai function returns.
    pub type Result = std::result::Result<rhai::Dynamic, Box<rhai::EvalAltResult>>;
}

/// Registers what bound scripts call.
pub fn register(engine: &mut Engine) {
    engine.register_fn(RECORD, |context: NativeCallContext, env: Environment| {
        env.record(context.global_runtime_state());
    });
    body::register(engine);
    record::register(engine);
    sugar::register(engine);
    #[allow(deprecated)]
    engine.on_var(on_variable);
    // Rhai's own pass a native function pointer (value, key) where the closure takes (key, value)
    engine.register_fn("filter", |context: NativeCallContext, map: &mut Map, f: FnPtr| -> RhaiResult<Map> {
        let mut kept = Map::new();
        for (key, value) in map.iter_mut() {
            if holds(&context, &f, key, value)? {
                kept.insert(key.clone(), value.clone());
            }
        }
        Ok(kept)
    });
    for (name, keep) in [("retain", true), ("drain", false)] {
        engine.register_fn(name, move |context: NativeCallContext, map: &mut Map, f: FnPtr| -> RhaiResult<Map> {
            let mut taken = Map::new();
            for (key, mut value) in std::mem::take(map) {
                let stays = holds(&context, &f, &key, &mut value)? == keep;
                (if stays { &mut *map } else { &mut taken }).insert(key, value);
            }
            Ok(taken)
        });
    }
    engine.register_custom_syntax_without_look_ahead_raw(
        PLACED,
        |_, _| Ok(None),
        false,
        |context, inputs, _| match inputs.first() {
            Some(call) => context.eval_expression_tree(call).map_err(|mut e| {
                if e.position().is_none() {
                    e.set_position(call.position());
                }
                e
            }),
            None => Ok(Dynamic::UNIT),
        },
    );
}

/// Asks `f(key, value)`, or `f(key)` with the value as `this`.
fn holds(context: &NativeCallContext, f: &FnPtr, key: &str, value: &mut Dynamic) -> RhaiResult<bool> {
    let key = Dynamic::from(ImmutableString::from(key));
    let unknown = |e: &EvalAltResult| matches!(e, EvalAltResult::ErrorFunctionNotFound(..));
    let answer = match f.call_raw(context, None, [key.clone(), value.clone()]) {
        Err(e) if unknown(&e) => match f.call_raw(context, Some(value), [key.clone()]) {
            Err(e) if unknown(&e) => f.call_raw(context, None, [key]),
            other => other,
        },
        other => other,
    };
    Ok(answer?.as_bool().unwrap_or(false))
}

/// Called for each variable that a script reads: decides how closures capture, and makes `f` a value where `f` is a function.
fn on_variable(name: &str, index: usize, mut context: EvalContext) -> Result<Option<Dynamic>, Box<EvalAltResult>> {
    if let Some(captured) = name.strip_prefix(CAPTURE) {
        if context.scope().contains(captured) {
            if let Some(value) = context.scope_mut().get_mut(captured)
                && !is_handle(value)
                && !value.is_shared()
            {
                *value = std::mem::take(value).into_shared();
            }
        } else if function_pointer(captured, &context).is_none()
            && record::find(captured, &context).is_none()
            && numbers::constant(captured).is_none()
        {
            return Err(EvalAltResult::ErrorVariableNotFound(captured.into(), Position::NONE).into());
        }
        return Ok(Some(Dynamic::UNIT));
    }
    if index > 0 || context.scope().contains(name) {
        return Ok(None);
    }
    let own = record::find(name, &context).or_else(|| function_pointer(name, &context));
    Ok(own.or_else(|| numbers::constant(name)))
}

/// Whether a value is a native object: a cheap handle, which a closure may as well copy. Tensors are values.
fn is_handle(v: &Dynamic) -> bool {
    v.is_variant() && !v.is::<candle_core::Tensor>()
}

/// A pointer to the script function `name` that the running code sees, bound to where it is defined.
fn function_pointer(name: &str, context: &EvalContext) -> Option<Dynamic> {
    let global = context.global_runtime_state();
    let defines = |m: &&Shared<Module>| m.iter_script_fn_info().any(|(_, _, f, _, _)| f == name);
    let lib = global.lib.iter().rev().find(defines)?;
    let env = Environment::default();
    env.set_functions(lib.clone());
    env.record(global);
    env.pointer(&name.into(), None, 0).map(Dynamic::from)
}
