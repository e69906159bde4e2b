//! The script runner and the REPL: one [`session::Session`] under both.
pub mod bench;
pub mod check;
pub mod cli;
pub mod names;
pub mod repl;
pub mod report;
pub mod session;
pub mod tools;
