//! Networks as graphs: what makes and runs them, a folder for each family, the frozen kernels that they share, and scripts' way to these.
pub mod build;
pub mod clip;
pub mod constant;
pub mod dit;
pub mod edm;
pub mod family;
pub mod features;
pub mod graph;
pub mod instead;
pub mod kernels;
pub mod ldm;
pub mod network;
pub mod profile;
pub mod runner;
pub mod tape;
pub(crate) mod threads;
pub mod weights;
