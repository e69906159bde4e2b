//! Long runs in the real binary: deep graphs, interruptions, Ctrl-C.
#![cfg(unix)]
mod chains;
mod interrupt;
#[path = "../common/process.rs"]
mod process;
mod stopping;
#[path = "../common/terminal.rs"]
mod terminal;
