//! What a stranger's script may touch, by running the binary; and that no source file goes around the check.
#[path = "../common/http.rs"]
mod http;
#[path = "../common/terminal.rs"]
mod terminal;

mod downloads;
mod escapes;
mod source;
mod untrusted;
mod world;
mod writes;
