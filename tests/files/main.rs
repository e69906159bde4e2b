//! What is read from outside and written: arrays, checkpoints, records, downloads.
mod arrays_on_disk;
mod bulk;
#[path = "../common/caught.rs"]
mod caught;
#[path = "../common/http.rs"]
mod http;
mod hub;
mod pickle;
#[path = "../common/process.rs"]
mod process;
mod records;
mod zoo;
