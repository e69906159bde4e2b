//! Denoisers, natively and from scripts.
mod adapters;
mod closed_forms;
mod helpers;
mod scripts;
