//! From noise to sample: noise schedules, steps, denoisers, solvers, natively and from scripts.
#[path = "../common/cases.rs"]
mod cases;
#[path = "../common/caught.rs"]
mod caught;
#[path = "../common/mod.rs"]
mod common;
mod denoise;
mod discretize;
mod elsewhere;
mod exports;
#[path = "../common/fixtures.rs"]
mod fixtures;
#[path = "../common/methods.rs"]
mod methods;
mod noise;
mod plans;
mod poses;
mod script_solvers;
mod searches;
#[path = "../common/simple.rs"]
mod simple;
#[path = "../common/small.rs"]
mod small;
mod solver_reference;
mod solvers;
mod states;
