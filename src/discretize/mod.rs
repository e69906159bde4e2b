//! Time discretizations: heuristic schedules, the learnable τ_ξ, and searches that need no gradients of a network.
mod density;
mod dmn;
mod heuristics;
mod klub;
mod minimize;
mod path;
mod published;
mod resample;
mod schedule;
mod tau;

pub use density::{POINTS, from_density};
pub use dmn::{DataError, DmnOptions, Start, dmn, dmn_bound};
pub use heuristics::{BASELINES, Heuristic, Interval, from_function};
pub use klub::{klub, klub_of, klub_optimum, klub_quantiles};
pub use path::{Level, Metric, carry, cheapest_path, jump_costs};
pub use published::{PUBLISHED, Published, published};
pub use resample::{Resampling, log_linear};
pub use tau::{Compat, Space, TauOptions, tau, tau_inverse, tau_inverse_eval};

use crate::noise::Noise;
use candle_core::Tensor;
use std::rc::Rc;

/// Time steps t_0 = T > t_1 > … > t_N for a solver, and optionally decoupled evaluation times. Both are f64 tensors on the
/// CPU, and may be tracked by autograd.
#[derive(Clone)]
pub struct Schedule {
    /// The noise schedule in whose time the steps are.
    pub noise: Noise,
    /// Steps, [N+1], strictly descending.
    pub t: Tensor,
    /// Times at which the denoiser is told to be, [N+1] (the last is unused by multistep solvers), if decoupled.
    pub t_eval: Option<Tensor>,
    /// Where it came from (`"logsnr"`, `"ld3"`, …), for printing and results.
    pub name: String,
    /// What made it (solver, model, losses, provenance), for the file that it is saved to; empty when nobody said.
    pub record: Rc<serde_json::Map<String, serde_json::Value>>,
}
