//! Errors between native code and Rhai: a native [`crate::Error`] becomes a catchable value with its kind and shapes.
use super::closures::Stopped;
use crate::{Error, Kind};
use rhai::{Dynamic, EvalAltResult, Position};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What `catch (e)` receives for a native error; uncaught it prints as message and fix. Getters: `kind`, `message`,
/// `hint`, `shapes`.
#[derive(Clone)]
pub struct Caught(pub Rc<Error>);

/// The result of every fallible function that is registered with the engine.
pub type RhaiResult<T> = Result<T, Box<EvalAltResult>>;

thread_local! {
    /// The errors that are being carried: a script's values never leave its thread, errors do.
    static CARRIED: RefCell<BTreeMap<u64, Box<EvalAltResult>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A Rhai error that native code received from a script's function and carries to the outside: a ticket for it, on the thread
/// that it is from.
#[derive(Debug)]
pub struct Carried(u64);

impl Carried {
    fn new(e: Box<EvalAltResult>) -> Carried {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let ticket = NEXT.fetch_add(1, Ordering::Relaxed);
        CARRIED.with_borrow_mut(|all| all.insert(ticket, e));
        Carried(ticket)
    }
    /// The error, on its own thread.
    fn take(&self) -> Option<Box<EvalAltResult>> {
        CARRIED.with_borrow_mut(|all| all.remove(&self.0))
    }
}
impl Drop for Carried {
    fn drop(&mut self) {
        // at the thread's end the errors go with it
        let dropped = CARRIED.try_with(|all| all.borrow_mut().remove(&self.0));
        drop(dropped);
    }
}
impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        CARRIED.with_borrow(|all| match all.get(&self.0) {
            Some(e) => e.fmt(f),
            None => f.write_str("an error of a script"),
        })
    }
}
impl std::error::Error for Carried {}

/// The script's error that an error carries.
fn carried(e: &mut Error) -> Option<Box<EvalAltResult>> {
    e.take_source()?.downcast::<Carried>().ok()?.take()
}

impl From<Error> for Box<EvalAltResult> {
    fn from(mut e: Error) -> Self {
        if e.kind() == Kind::Cancelled {
            let what =
                e.message().strip_suffix(Error::CANCELLED).unwrap_or_default().trim_end_matches([' ', ':']).to_string();
            let stopped = || EvalAltResult::ErrorTerminated(Dynamic::from(Stopped::default()), Position::NONE).into();
            let mut inner = carried(&mut e).unwrap_or_else(stopped);
            if let EvalAltResult::ErrorTerminated(token, _) = &mut *inner
                && let Some(mut s) = token.write_lock::<Stopped>()
                && s.what.is_empty()
            {
                s.what = what;
            }
            return inner;
        }
        // an error of the script's own that only passed through native code comes out as it was
        if e.kind() == Kind::Script
            && let Some(inner) = carried(&mut e)
        {
            return inner;
        }
        EvalAltResult::ErrorRuntime(Dynamic::from(Caught(Rc::new(e))), Position::NONE).into()
    }
}

/// How messages name the type of a value.
pub fn type_of(v: &Dynamic) -> &'static str {
    match v.type_name() {
        "i64" => "int",
        "f64" => "float",
        "Fn" => "function",
        n => n.rsplit("::").next().unwrap_or(n).trim_end_matches('>'),
    }
}

/// Wraps an error of a script's function for its way through native code.
pub fn carry(e: Box<EvalAltResult>) -> Error {
    match innermost(&e) {
        EvalAltResult::ErrorTerminated(..) => Error::cancelled().source(Carried::new(e)),
        _ => Error::new(Kind::Script, innermost(&e).to_string()).source(Carried::new(e)),
    }
}

/// What went wrong at the end of a chain of calls. (The text of a whole chain, made anew at each passage through native
/// code, would grow with the square of its length.)
fn innermost(mut e: &EvalAltResult) -> &EvalAltResult {
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = e {
        e = inner;
    }
    e
}

/// The byte of a text at a position in it.
pub fn offset(text: &str, at: Position) -> Option<usize> {
    let line = at.line()?;
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest = text.get(start..)?;
    let column = at.position().unwrap_or(1).max(1) - 1;
    Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(i, _)| i))
}
