//! What learns, and what it minimizes: losses, optimizers, LD3 and the paper's experiments.
#[path = "../common/caught.rs"]
mod caught;
mod clouds;
mod experiments;
mod families;
mod features;
mod losses;
mod lpips;
mod method;
mod optim;
#[path = "../common/process.rs"]
mod process;
mod published;
#[path = "../common/trunks.rs"]
mod trunks;
