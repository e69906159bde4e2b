//! Rotations, rigid motions and torsions of molecules, with their gradients, and the norms of scores on rotations and angles.
mod align;
mod pose;
mod rotation;
pub mod so3;
mod torsions;
pub mod torus;
pub mod vectors;
pub mod wigner;

pub use align::{Aligned, align};
pub use pose::{Motion, Moved};
pub use rotation::rotation;
pub use torsions::{Torsions, Turn, Turned};
pub use vectors::{Mat3, Vec3};
