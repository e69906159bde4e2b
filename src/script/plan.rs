//! Rhai functions for plans, solvers, `solve` and `sample`.
use rhai::Engine;

/// Adds this area's types and functions to `engine`.
pub fn register(_engine: &mut Engine) {}
