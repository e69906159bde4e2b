//! `ld3sh`: a scripting environment for few-step sampling of diffusion models.
//!
//! Sampling with a teacher, learning the steps of a student of four evaluations, and saving them:
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use ld3sh::denoise::{DynDenoiser, Mixture};
//! use ld3sh::discretize::{Heuristic, Interval, Schedule, TauOptions, tau, tau_inverse};
//! use ld3sh::files::result;
//! use ld3sh::host::Quiet;
//! use ld3sh::optim::{Optimizer, Rule};
//! use ld3sh::plan::SolveOptions;
//! use ld3sh::solve::{Solver, UNIPC};
//! use ld3sh::tensor::{grad, random};
//! use std::rc::Rc;
//!
//! # fn main() -> ld3sh::Result<()> {
//! let noise = ld3sh::noise::from_spec(&serde_json::json!({ "name": "edm" }))?;
//! let means = Tensor::new(&[[-1.0, 0.0], [1.0, 0.5]], &Device::Cpu)?;
//! let net: DynDenoiser = Rc::new(Mixture::new(&means, &[0.2, 0.2], None, noise.clone())?);
//! let z = random::normal(0, 0, &[16, 2], 0, DType::F64, &Device::Cpu)?;
//! let solver = Solver::of(&UNIPC).with("order", 2)?;
//! let sample = |steps: &Schedule| -> ld3sh::Result<Tensor> {
//!     let plan = solver.plan(steps)?;
//!     Ok(plan.sample(&noise, &net, &Quiet, &(&z).into(), &SolveOptions::default(), None)?.x.into_tensor()?)
//! };
//!
//! let logsnr = Heuristic::named("logsnr")?;
//! let target = sample(&logsnr.schedule(&noise, 20, Interval::default())?)?;
//!
//! let mut xi = grad::variable(&tau_inverse(&logsnr.schedule(&noise, 4, Interval::default())?, None)?)?;
//! let mut adam = Optimizer::new(Rule::adam(), 0.05)?;
//! let mut losses = vec![];
//! for _ in 0..20 {
//!     let steps = tau(&noise, &xi, None, &TauOptions::default())?;
//!     let loss = (sample(&steps)? - &target)?.sqr()?.mean_all()?;
//!     losses.push(loss.to_scalar::<f64>()?);
//!     let gradient = grad::grad(&Quiet, &loss, &[xi.clone()])?;
//!     xi = grad::variable(&adam.step(&[xi.clone()], &gradient)?[0])?;
//! }
//! assert!(losses[19] < 0.9 * losses[0]);
//!
//! let learned = tau(&noise, &xi.detach(), None, &TauOptions::default())?.with_name("ld3");
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let path = folder.path().join("steps.json");
//! result::save(&path, &learned, Default::default())?;
//! assert_eq!(result::load(&path, false)?.schedule.nfe(), 4);
//! # Ok(())
//! # }
//! ```
//!
//! The house, from the ground up; each floor knows only those below it:
//!
//! - [`error`], [`host`]: what every part shares: errors with a kind and a fix, and the handle through which
//!   long computations poll for cancellation, report progress and call back into a script.
//! - [`world`]: the processes that share a run's work.
//! - [`access`]: the one door to files, and what a script may touch.
//! - [`tensor`]: tensors on candle: numpy-like operations, random numbers, display, and the two-tape `grad`.
//! - [`real`]: the differentiable f64 scalar in which noise schedules and solver coefficients are written.
//! - [`geometry`]: how molecules move: rotations, rigid motions and torsions with their gradients.
//! - [`schema`]: what an option may be, as data.
//! - [`noise`]: noise schedules α, σ, λ.
//! - [`denoise`]: the denoiser trait, adapters for what a network predicts, guidance, closed forms.
//! - [`discretize`]: heuristic schedules and τ_ξ.
//! - [`files`]: checkpoints, arrays, images and results on disk.
//! - [`data`]: pictures with labels, read as they are asked for.
//! - [`draw`]: plots of lines and schedules, contact sheets.
//! - [`nets`]: networks as graphs, a folder for each family, and the frozen kernels that they share.
//! - [`text`]: tokens, and what text encoders make of them.
//! - [`plan`]: a sampler as data, its executor and its reverse pass.
//! - [`solve`]: solvers, each a function from time steps to a plan.
//! - [`optim`], [`loss`], [`metric`]: what a trainer needs.
//! - [`zoo`]: published files (networks, trunks of perceptual losses) by name: where they are, and how they get here.
//! - [`model`]: published models: found by name or file, told by their content.
//! - [`script`]: all of the above as Rhai functions, and the front on which scripts show things.
//! - [`shell`]: the script runner and the REPL.
#![warn(missing_docs)]
// shapes stand in brackets: `[B]` is no link
#![allow(rustdoc::broken_intra_doc_links)]

pub mod access;
pub mod data;
pub mod denoise;
pub mod discretize;
pub mod draw;
pub mod error;
pub mod export;
pub mod files;
pub mod geometry;
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
pub mod text;
pub mod world;
pub mod zoo;

pub use error::{Error, Kind, Result};

/// The version of this crate, as recorded in results and tested by `require`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
