//! The samplers of other tools that compute what a solver computes.
use crate::solve::Solver;

/// A solver and its names elsewhere.
pub struct Sampler {
    /// The solver's name here.
    pub solver: &'static str,
    /// Its order, where the name elsewhere says so.
    pub order: Option<usize>,
    /// The call in k-diffusion, behind `sampling.`.
    pub k_diffusion: Option<&'static str>,
    /// The name in ComfyUI's list (as of Forge's).
    pub comfyui: Option<&'static str>,
    /// The scheduler of diffusers, with its options.
    pub diffusers: Option<&'static str>,
}

const fn row(
    solver: &'static str,
    order: Option<usize>,
    k_diffusion: Option<&'static str>,
    comfyui: Option<&'static str>,
    diffusers: Option<&'static str>,
) -> Sampler {
    Sampler { solver, order, k_diffusion, comfyui, diffusers }
}

const DPMPP2: &str = "DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, solver_order=2, solver_type=\"midpoint\", lower_order_final=True)";
const DPMPP3: &str =
    "DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, solver_order=3, lower_order_final=True)";
const EULER: &str = "EulerDiscreteScheduler.from_config(pipe.scheduler.config)";

/// All that compute the same; the first that fits is taken.
pub static SAMPLERS: [Sampler; 17] = [
    row("euler", None, Some("sample_euler(model, x, sigmas)"), Some("euler"), Some(EULER)),
    row("ddim", None, Some("sample_euler(model, x, sigmas)"), Some("euler"), Some(EULER)),
    row(
        "heun",
        None,
        Some("sample_heun(model, x, sigmas)"),
        Some("heun"),
        Some("HeunDiscreteScheduler.from_config(pipe.scheduler.config)"),
    ),
    row("dpm2", None, Some("sample_dpm_2(model, x, sigmas)"), Some("dpm_2"), None),
    row("dpmpp_2s", None, Some("sample_dpmpp_2s_ancestral(model, x, sigmas, eta=0.0)"), None, None),
    row("dpmpp", Some(2), Some("sample_dpmpp_2m(model, x, sigmas)"), Some("dpmpp_2m"), Some(DPMPP2)),
    row("dpmpp", Some(3), None, None, Some(DPMPP3)),
    row("dpmpp_3m", None, Some("sample_dpmpp_3m_sde(model, x, sigmas, eta=0.0)"), Some("dpmpp_3m_sde"), None),
    row("sde_dpmpp", None, Some("sample_dpmpp_2m_sde(model, x, sigmas)"), Some("dpmpp_2m_sde"), None),
    row("lms", Some(4), Some("sample_lms(model, x, sigmas, order=4)"), Some("lms"), None),
    row("lms", Some(3), Some("sample_lms(model, x, sigmas, order=3)"), None, None),
    row("lms", Some(2), Some("sample_lms(model, x, sigmas, order=2)"), None, None),
    row("ipndm_v", Some(4), Some("sample_lms(model, x, sigmas, order=4)"), Some("lms"), None),
    row("ipndm", Some(4), None, Some("ipndm"), None),
    row("ipndm_v_kd", Some(4), None, Some("ipndm_v"), None),
    row("deis_kd", Some(3), None, Some("deis"), None),
    row("unipc", None, None, None, Some("UniPCMultistepScheduler.from_config(pipe.scheduler.config, solver_order=3)")),
];

/// The row for a solver.
pub fn sampler(solver: &Solver) -> Option<&'static Sampler> {
    SAMPLERS.iter().find(|r| r.solver == solver.name() && r.order.is_none_or(|o| o == solver.order()))
}
