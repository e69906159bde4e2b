//! What the documents say is so.
mod book;
mod layers;
mod walks;
