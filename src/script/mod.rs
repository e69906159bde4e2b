//! The Rhai engine: one binding file per area, errors, options, cancellation, help.
pub mod denoise;
pub mod discretize;
pub mod error;
pub mod files;
pub mod host;
pub mod loss;
pub mod noise;
pub mod optim;
pub mod options;
pub mod plan;
pub mod tensor;
