//! Rhai functions for optimizers.
use rhai::Engine;

/// Adds this area's types and functions to `engine`.
pub fn register(_engine: &mut Engine) {}
