//! The CUDA kernels: compiled for the host and compared with the CPU's, and on a GPU where there is one.
mod gpu;
mod host;
mod kernels;
mod networks;
mod transformers;
