//! The Rhai engine: one binding file per area, errors, options, closures, parameters, modules.
pub mod closures;
pub mod context;
pub mod denoise;
pub mod discretize;
pub mod engine;
pub mod error;
pub mod files;
pub mod host;
pub mod loss;
pub mod modules;
pub mod noise;
pub mod numbers;
pub mod optim;
pub mod options;
pub mod params;
pub mod plan;
pub mod tensor;
