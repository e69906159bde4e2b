//! Networks and their layers, against reference values.
mod edm;
mod helpers;
mod nets;
#[path = "../common/process.rs"]
mod process;
