//! The prompt in a pseudo-terminal.
#![cfg(unix)]
mod edit;
mod session;
#[path = "../common/terminal.rs"]
mod terminal;
mod tour;
mod working;
