//! The script runner and the REPL: one [`session::Session`] under both.
pub mod bench;
pub mod catalogue;
pub mod check;
pub mod cli;
pub mod commands;
mod convert;
pub mod help;
pub mod hints;
pub mod models;
pub mod names;
pub mod reference;
pub mod repl;
pub mod report;
pub mod screen;
pub mod session;
pub mod show;
pub mod tools;
