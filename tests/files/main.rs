//! What is read from outside and written: arrays, checkpoints, records, downloads.
mod arrays_on_disk;
mod bulk;
#[path = "../common/cases.rs"]
mod cases;
#[path = "../common/caught.rs"]
mod caught;
mod clouds;
#[path = "../common/code.rs"]
mod code;
mod complexes;
mod data_sets;
#[path = "../common/http.rs"]
mod http;
mod hub;
mod pickle;
#[path = "../common/process.rs"]
mod process;
mod records;
mod shards;
mod zoo;
