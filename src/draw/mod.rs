//! Pictures that are drawn: plots of lines and schedules, and contact sheets.
mod axis;
pub mod charts;
pub mod cloud;
pub mod plot;
mod scene;
pub mod sheet;
mod text;

pub use scene::escape;
