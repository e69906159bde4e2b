//! Errors of work that is spread over threads.
use crate::{Error, Kind, Result};

/// An error that can cross threads.
pub(crate) type Portable = (Kind, String);

/// What of an error can cross threads.
pub(crate) fn portable(e: Error) -> Portable {
    (e.kind(), e.message().to_string())
}

/// The results of all parts, or the error of the first that failed.
pub(crate) fn collect<T>(parts: Vec<std::result::Result<T, Portable>>) -> Result<Vec<T>> {
    parts.into_iter().map(|p| p.map_err(|(kind, message)| Error::new(kind, message))).collect()
}
