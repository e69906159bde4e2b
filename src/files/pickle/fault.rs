//! Why a file could not be read.
use std::fmt;

/// One sentence about what is wrong, and the byte of the file where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The offset from the beginning of the file.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

/// The result of reading.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A fault at a byte.
    pub fn new(at: usize, message: impl Into<String>) -> Fault {
        Fault { at, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.message)
    }
}
