//! Tensors on candle: numpy-like operations, random numbers, display, and the two-tape `grad`.
//!
//! Shapes, dtypes and names follow numpy and PyTorch. Every operation here that accepts floating-point tensors is
//! differentiated rightly by [`grad`]: where candle's own backward is wrong, missing or wasteful, the operation goes
//! through [`custom`] with a backward of its own. Scripts reach candle only through this folder.
pub mod arith;
pub mod aside;
pub(crate) mod blocks;
pub(crate) mod columns;
pub mod conv;
pub mod create;
pub mod custom;
pub mod device;
pub mod display;
pub mod dtype;
pub mod einsum;
pub mod elementwise;
pub mod grad;
pub mod index;
pub mod linalg;
pub mod memory;
pub mod nn;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod shape;
pub mod sort;
pub mod vector;
