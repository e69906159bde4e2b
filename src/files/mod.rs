//! Files: atomic writes, hashes, images, plots, tables, learned schedules, and state to resume from.
pub mod atomic;
pub mod bulk;
pub mod cache;
pub mod hash;
pub mod image;
pub mod npy;
pub mod plot;
mod plot_axis;
pub mod result;
pub mod safetensors;
mod scene;
pub mod sheet;
pub mod state;
pub mod table;
mod text;
