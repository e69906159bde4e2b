//! Losses between a sample and its target.
