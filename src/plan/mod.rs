//! A sampler as data: the plan, its executor, and its reverse pass.
