//! Network architectures and feature networks, a folder each, and the frozen kernels that they share.
pub mod edm;
pub mod features;
pub mod kernels;
pub mod tape;
