//! Solvers: each a function from time steps to a plan, a file each.
