//! Files: atomic writes, hashes, images, tables, learned schedules, and state to resume from.
pub mod atomic;
pub mod bulk;
pub mod cache;
pub mod checkpoint;
pub mod hash;
pub mod image;
pub mod json;
mod literal;
pub mod npy;
pub mod pickle;
pub mod record;
pub mod result;
pub mod safetensors;
pub mod sniff;
pub mod state;
pub mod table;
pub mod torch;
pub mod utf8;
