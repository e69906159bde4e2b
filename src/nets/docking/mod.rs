//! Networks of docking (DiffDock, ICLR 2023): the score model, which says how a ligand's pose is to move, and the confidence model.
mod confidence;
mod denoiser;
mod facts;
mod layers;
mod load;
mod model;
mod row;
mod scene;
mod score;
mod walk;

pub use denoiser::{Docking, Variable};
pub use facts::Facts;
pub use load::{PARAMETERS, holds};
pub use model::{Confidence, ConfidencePull, Level, PosePull, Poses, Score};
pub use row::FAMILY;
pub use walk::Noises;
