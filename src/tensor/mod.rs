//! Tensors on candle: numpy-like operations, random numbers, display, and the two-tape `grad`.
pub mod device;
pub mod grad;
