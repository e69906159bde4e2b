//! Denoisers, natively and from scripts.
mod adapters;
#[path = "../common/caught.rs"]
mod caught;
mod closed_forms;
mod helpers;
mod scripts;
