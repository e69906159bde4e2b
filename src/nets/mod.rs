//! Network architectures, a folder each, and the frozen kernels that they share.
pub mod edm;
pub mod kernels;
pub mod tape;
