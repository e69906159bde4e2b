//! Why a file could not be read.
use std::fmt;

/// One sentence about what is wrong, and the byte of the file where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The offset from the beginning of the file.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
    /// The value there is sound, but of a kind that is not read: what stands beside it can be.
    pub unknown: bool,
}

/// The result of reading.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// Damage at a byte.
    pub fn new(at: usize, message: impl Into<String>) -> Fault {
        Fault { at, message: message.into(), unknown: false }
    }
    /// A value at a byte that is of a kind that is not read.
    pub fn unknown(at: usize, message: impl Into<String>) -> Fault {
        Fault { unknown: true, ..Fault::new(at, message) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.message)
    }
}
