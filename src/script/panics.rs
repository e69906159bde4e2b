//! Panics of native code as errors: a slip in this program or in a library of it must not end a session.
use crate::{Error, Kind};
use std::any::Any;
use std::sync::Mutex;

/// The place of the latest panic, for the error that it becomes.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Keeps panics of this process from printing: the error that each becomes tells what and where it was.
pub fn quiet() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line()));
        if let Ok(mut p) = PLACE.lock() {
            *p = place;
        }
    }));
}

/// The error for a caught panic: kind `internal`, or `memory` where a collection could not grow.
pub fn error(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into());
    let place = PLACE.lock().ok().and_then(|mut p| p.take()).unwrap_or_else(|| "unknown place".into());
    let first = text.lines().next().unwrap_or_default();
    if first == "capacity overflow" {
        return Error::new(Kind::Memory, "there is not so much memory").hint("is a size or a shape wrong?");
    }
    Error::new(Kind::Internal, format!("ld3sh itself failed: {first} ({place})"))
        .hint("this is a bug in ld3sh: please report it with the script that led here")
}
