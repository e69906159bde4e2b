//! Network architectures, a folder each, and the frozen kernels that they share.
