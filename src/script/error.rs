//! Errors between native code and Rhai: a native [`crate::Error`] becomes a catchable value with its kind and shapes.
use super::closures::Stopped;
use crate::{Error, Kind};
use rhai::{Dynamic, EvalAltResult, Position};
use std::rc::Rc;

/// What `catch (e)` receives for a native error; uncaught it prints as message and fix. Getters: `kind`, `message`,
/// `hint`, `shapes`.
#[derive(Clone)]
pub struct Caught(pub Rc<Error>);

/// The result of every fallible function that is registered with the engine.
pub type RhaiResult<T> = Result<T, Box<EvalAltResult>>;

/// A Rhai error that native code received from a script's function and carries to the outside.
#[derive(Debug)]
pub struct Carried(pub Box<EvalAltResult>);
impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl std::error::Error for Carried {}

impl From<Error> for Box<EvalAltResult> {
    fn from(mut e: Error) -> Self {
        if e.kind() == Kind::Cancelled {
            let what =
                e.message().strip_suffix(Error::CANCELLED).unwrap_or_default().trim_end_matches([' ', ':']).to_string();
            let mut inner = match e.take_source().map(|s| s.downcast::<Carried>()) {
                Some(Ok(carried)) => carried.0,
                _ => EvalAltResult::ErrorTerminated(Dynamic::from(Stopped::default()), Position::NONE).into(),
            };
            if let EvalAltResult::ErrorTerminated(token, _) = &mut *inner
                && let Some(mut s) = token.write_lock::<Stopped>()
                && s.what.is_empty()
            {
                s.what = what;
            }
            return inner;
        }
        // an error of the script's own that only passed through native code comes out as it was
        if e.kind() == Kind::Script {
            match e.take_source().map(|s| s.downcast::<Carried>()) {
                Some(Ok(carried)) => return carried.0,
                Some(Err(other)) => {
                    return EvalAltResult::ErrorSystem(e.to_string(), other.to_string().into()).into();
                }
                None => {}
            }
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
        EvalAltResult::ErrorTerminated(..) => Error::cancelled().source(Carried(e)),
        _ => Error::new(Kind::Script, innermost(&e).to_string()).source(Carried(e)),
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
