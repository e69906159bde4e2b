//! What a user meets: the language, errors, help, the command line, and hostile input to all of it.
mod asking;
mod catalogue;
mod cli;
mod completion;
mod drawing;
mod echo;
mod errors;
mod front;
mod hostile;
#[path = "../common/process.rs"]
mod process;
mod runs;
mod schedule;
mod scripting;
