//! Optimizers, learning-rate decay, gradient clipping and projection.
