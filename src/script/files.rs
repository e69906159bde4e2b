//! Rhai functions for files: checkpoints, images, plots, tables, JSON, CSV, schedules, and state to resume from.
mod checkpoint;
mod cloud;
pub(super) mod convert;
mod data;
mod folders;
mod picture;
pub(super) mod schedule;

pub use cloud::drawn;
pub use convert::{from_data, from_json, to_data, to_json};
pub use picture::ScriptPlot;

use crate::schema::Schema;
use rhai::Engine;

/// Options of this area's functions.
pub const SCHEMAS: &[&[Schema]] = &[cloud::SCHEMAS, data::SCHEMAS, picture::SCHEMAS, schedule::SCHEMAS];

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    checkpoint::register(engine);
    cloud::register(engine);
    data::register(engine);
    folders::register(engine);
    picture::register(engine);
    schedule::register(engine);
}
