//! What is read from and written to disk: checkpoints, arrays, images, plots, results.
