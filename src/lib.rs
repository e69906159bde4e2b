//! `ld3sh`: a scripting environment for few-step sampling of diffusion models.
//!
//! The house, from the ground up; each floor knows only those below it:
//!
//! - [`error`], [`host`]: what every part shares: errors with a kind and a fix, and the handle through which
//!   long computations poll for cancellation, report progress and call back into a script.
//! - [`access`]: the one door to files, and what a script may touch.
//! - [`tensor`]: tensors on candle: numpy-like operations, random numbers, display, and the two-tape `grad`.
//! - [`real`]: the differentiable f64 scalar in which noise schedules and solver coefficients are written.
//! - [`schema`]: what an option may be, as data.
//! - [`noise`]: noise schedules α, σ, λ.
//! - [`denoise`]: the denoiser trait, adapters for what a network predicts, guidance, closed forms.
//! - [`nets`]: networks as graphs, a folder for each family, and the frozen kernels that they share.
//! - [`plan`]: a sampler as data, its executor and its reverse pass.
//! - [`solve`]: solvers, each a function from time steps to a plan.
//! - [`discretize`]: heuristic schedules and τ_ξ.
//! - [`optim`], [`loss`], [`metric`]: what a trainer needs.
//! - [`files`]: checkpoints, arrays, images, plots and results on disk.
//! - [`zoo`]: published files (networks, trunks of perceptual losses) by name: where they are, and how they get here.
//! - [`model`]: published models: found by name or file, told by their content.
//! - [`script`]: all of the above as Rhai functions.
//! - [`shell`]: the script runner and the REPL.
#![warn(missing_docs)]

pub mod access;
pub mod denoise;
pub mod discretize;
pub mod error;
pub mod files;
pub mod host;
pub mod loss;
pub mod metric;
pub mod model;
pub mod nets;
pub mod noise;
pub mod optim;
pub mod plan;
pub mod real;
pub mod schema;
pub mod script;
pub mod shell;
pub mod solve;
pub mod tensor;
pub mod zoo;

pub use error::{Error, Kind, Result};

/// The version of this crate, as recorded in results and tested by `require`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
