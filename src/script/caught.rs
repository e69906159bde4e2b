//! What `catch (e)` receives: an error with a kind, whatever failed. And errors of which the language must know the cause.
use super::error::Caught;
use crate::{Error, Kind};
use rhai::{Dynamic, EvalAltResult, EvalContext, Position};
use std::cell::Cell;
use std::rc::Rc;

/// An error on its way to `catch` or to its report, with its cause.
#[derive(Clone)]
pub struct Blamed(pub Rc<Error>, pub Cause);

/// Why a [`Blamed`] error came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A map was asked for a key that it has not: `??` goes on.
    MissingKey,
    /// The function that failed was called wrongly: the report marks the call, not the place inside it.
    Caller,
}

impl From<Blamed> for Box<EvalAltResult> {
    fn from(e: Blamed) -> Self {
        EvalAltResult::ErrorRuntime(Dynamic::from(e), Position::NONE).into()
    }
}

/// The cause of an error, if the language must know it.
pub fn cause(e: &EvalAltResult) -> Option<Cause> {
    match e {
        EvalAltResult::ErrorRuntime(v, _) => v.read_lock::<Blamed>().map(|b| b.1),
        _ => None,
    }
}

/// The error that a thrown value is, if it is one.
pub fn error_of(v: &Dynamic) -> Option<Rc<Error>> {
    v.read_lock::<Caught>().map(|c| c.0.clone()).or_else(|| v.read_lock::<Blamed>().map(|b| b.0.clone()))
}

/// How an error of the language is told: message and hint, with its kind.
pub type Teller = fn(&EvalAltResult, &EvalContext) -> Error;

thread_local! {
    /// Set by whoever knows the names for hints.
    static TELLER: Cell<Option<Teller>> = const { Cell::new(None) };
}

/// Sets how errors of the language are told to scripts of this thread.
pub fn set_teller(teller: Teller) {
    TELLER.set(Some(teller));
}

/// Makes what a `try` block failed with the error that `catch` receives: with a kind, whatever it was. Values other than texts
/// that the script threw stay as they are.
pub fn to_catch(mut e: Box<EvalAltResult>, context: &EvalContext) -> Box<EvalAltResult> {
    if e.is_pseudo_error() || !e.is_catchable() {
        return e;
    }
    let mut innermost = &mut *e;
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = innermost
    {
        innermost = inner;
    }
    // the place stands beside the message, not in it
    let at = innermost.take_position();
    let error = match innermost {
        EvalAltResult::ErrorRuntime(v, _) => {
            let text = v.as_immutable_string_ref().ok().map(|text| Rc::new(Error::new(Kind::Script, text.as_str())));
            error_of(v).or(text)
        }
        ref other => Some(Rc::new(match TELLER.get() {
            Some(tell) => tell(other, context),
            None => Error::new(kind(other), other.to_string()),
        })),
    };
    match error {
        Some(error) => *innermost = EvalAltResult::ErrorRuntime(Dynamic::from(Caught(error)), at),
        None => drop(innermost.set_position(at)),
    }
    e
}

/// The kind of an error of the language.
pub fn kind(e: &EvalAltResult) -> Kind {
    use EvalAltResult as E;
    match e {
        E::ErrorVariableNotFound(..)
        | E::ErrorFunctionNotFound(..)
        | E::ErrorModuleNotFound(..)
        | E::ErrorPropertyNotFound(..)
        | E::ErrorIndexNotFound(..)
        | E::ErrorDotExpr(..) => Kind::Name,
        E::ErrorMismatchDataType(..) | E::ErrorMismatchOutputType(..) | E::ErrorIndexingType(..) | E::ErrorFor(..) => {
            Kind::Type
        }
        E::ErrorArrayBounds(..) | E::ErrorStringBounds(..) | E::ErrorBitFieldBounds(..) | E::ErrorArithmetic(..) => {
            Kind::Value
        }
        E::ErrorDataTooLarge(..) => Kind::Memory,
        _ => Kind::Script,
    }
}
