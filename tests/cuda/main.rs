//! The CUDA kernels: compiled for the host and compared with the CPU's, on a pretend driver, and on a GPU where there is one.
mod gpu;
mod host;
mod kernels;
mod networks;
#[cfg(all(feature = "cudnn", unix))]
mod pretend;
mod races;
mod transformers;
