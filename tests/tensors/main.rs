//! Tensors: what scripts see of them, and gradients of every operation.
mod autograd;
mod gradients;
mod values;
