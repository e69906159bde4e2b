//! What learns, and what it minimizes: losses, optimizers, LD3 and the paper's experiments.
#[path = "../common/cases.rs"]
mod cases;
#[path = "../common/caught.rs"]
mod caught;
mod clouds;
#[path = "../common/code.rs"]
mod code;
mod discriminator;
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
mod trained;
mod trees;
#[path = "../common/trunks.rs"]
mod trunks;
mod vision;
