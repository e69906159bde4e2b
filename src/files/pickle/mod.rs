//! Python pickles, protocols 0 to 5, read as data: nothing is imported, called or executed.
//!
//! A pickle is a program for a small stack machine. Here its instructions only build a [`Tree`]: numbers, texts, lists, dictionaries,
//! names of classes, and [`Record`]s ("this class was called with these arguments, and given this state"). What a record means
//! is for [`crate::files::torch`] to say, for the few kinds that it knows; all others stay records.
//!
//! Every instruction makes at most a few nodes, and their number is bounded; text and bytes stay where they are in the
//! file; so memory is bounded by the file's size and a constant. Objects that refer to one another, even in circles, are nodes
//! with numbers: nothing here recurs. This folder and `files/torch/` use nothing else of the crate, so that the fuzz
//! target in `fuzz/` compiles in seconds.
mod fault;
mod literal;
mod machine;
mod shared;
mod value;

pub use fault::{Fault, Outcome};
pub use machine::parse;
pub use shared::Shared;
pub use value::{Blob, Id, LONGEST_NAME, Record, Tree, Value};
