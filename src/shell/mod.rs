//! The script runner and the REPL.
