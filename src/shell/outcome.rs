//! How a piece of code ended, and what follows from it.
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

/// The exit code that `exit(v)` asks for.
pub fn exit_code(v: &Dynamic) -> u8 {
    v.as_int().ok().and_then(|i| u8::try_from(i).ok()).unwrap_or(0)
}
