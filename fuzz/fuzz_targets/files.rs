//! The readers, compiled without the rest of the crate.
#[path = "../../src/files/pickle/mod.rs"]
pub mod pickle;
#[path = "../../src/files/torch/mod.rs"]
pub mod torch;
