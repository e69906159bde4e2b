//! What PyTorch and numpy put into pickles, and the files that PyTorch puts pickles into.
//!
//! Three containers: a bare pickle; the zip archive of `torch.save` since 1.6 (`…/data.pkl` beside the tensors' data); and
//! its older stream (five pickles, then the data), which also stands inside bare pickles as `torch.storage._load_from_bytes`.
//! The data of an archive stay in the file until they are asked for; a tensor is a [`View`] of them. Everything is checked against
//! the size of the storage before anything is read.
mod data;
mod document;
mod dtype;
mod item;
mod legacy;
mod names;
mod view;
mod zip;

pub use data::Data;
pub use document::{Document, Storage};
pub use item::{Item, Object};
pub use names::{Contents, Part};
pub use view::View;
pub use zip::{Archive, RATIO, SUSPICIOUS, is_zip};
