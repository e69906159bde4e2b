//! How a piece of code ended, and what follows from it.
use crate::script::front::Front;
use rhai::{Dynamic, EvalAltResult};

/// How a piece of code ended well.
pub enum Outcome {
    /// With this value.
    Value(Dynamic),
    /// By `exit(value)`.
    Exit(Dynamic),
}

/// An uncaught error of a script, and the name of the source in which it surfaced.
pub struct Failure {
    /// What Rhai reports.
    pub error: Box<EvalAltResult>,
    /// The source that was running.
    pub source: String,
}

impl Failure {
    /// Whether Ctrl-C stopped the script.
    pub fn cancelled(&self) -> bool {
        let mut e = &*self.error;
        while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) = e {
            e = inner;
        }
        matches!(e, EvalAltResult::ErrorTerminated(..))
    }
}

/// What happens after an input of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next prompt.
    Prompt,
    /// The session ends with this exit code.
    Leave(u8),
}

/// A script ended with an error.
const FAILED: u8 = 1;

/// The exit code that `exit(v)` asks for: v itself, 0 for none. What no process can end with is told, and counts as a failure.
pub fn exit_code(v: &Dynamic, front: &dyn Front) -> u8 {
    if v.is_unit() {
        return 0;
    }
    let told = match v.as_int().map(u8::try_from) {
        Ok(Ok(code)) => return code,
        Ok(Err(_)) => format!("error: exit({v}): an exit code is from 0 to 255"),
        Err(_) => format!("error: exit: {v}"),
    };
    front.report(&front.foreign_report(&told));
    FAILED
}
