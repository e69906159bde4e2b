//! The native error that a script ended with.
use ld3sh::Error;
use ld3sh::script::error::Caught;
use rhai::EvalAltResult;
use std::rc::Rc;

/// The native error of a failed script; panics if the script did not fail, or failed by itself.
#[track_caller]
pub fn caught<T>(script: &str, result: Result<T, Box<EvalAltResult>>) -> Rc<Error> {
    let mut e = *result.err().unwrap_or_else(|| panic!("{script} was accepted"));
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) = e {
        e = *inner;
    }
    match e {
        EvalAltResult::ErrorRuntime(v, _) if v.is::<Caught>() => v.cast::<Caught>().0,
        e => panic!("{script}: {e}"),
    }
}
