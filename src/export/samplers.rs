//! The samplers of other tools that compute what a solver computes.
use crate::solve::Solver;

/// A solver and its names elsewhere.
pub struct Sampler {
    /// The solver's name here.
    pub solver: &'static str,
    /// Its order, where the name elsewhere says so.
    pub order: Option<usize>,
    /// Its option `compat`, where it has one.
    pub compat: &'static str,
    /// The call in k-diffusion, behind `sampling.`.
    pub k_diffusion: Option<&'static str>,
    /// The name in ComfyUI's list.
    pub comfyui: Option<&'static str>,
}

const NONE: Sampler = Sampler { solver: "", order: None, compat: "exact", k_diffusion: None, comfyui: None };
const EULER: Sampler = Sampler { k_diffusion: Some("sample_euler(model, x, sigmas)"), comfyui: Some("euler"), ..NONE };
const LMS: Sampler = Sampler {
    order: Some(4),
    k_diffusion: Some("sample_lms(model, x, sigmas, order=4)"),
    comfyui: Some("lms"),
    ..NONE
};

/// All that compute the same.
pub static SAMPLERS: [Sampler; 17] = [
    Sampler { solver: "euler", ..EULER },
    Sampler { solver: "ddim", ..EULER },
    Sampler { solver: "heun", k_diffusion: Some("sample_heun(model, x, sigmas)"), comfyui: Some("heun"), ..NONE },
    Sampler { solver: "dpm2", k_diffusion: Some("sample_dpm_2(model, x, sigmas)"), comfyui: Some("dpm_2"), ..NONE },
    Sampler { solver: "dpmpp_2s", k_diffusion: Some("sample_dpmpp_2s_ancestral(model, x, sigmas, eta=0.0)"), ..NONE },
    Sampler {
        solver: "dpmpp",
        order: Some(2),
        k_diffusion: Some("sample_dpmpp_2m(model, x, sigmas)"),
        comfyui: Some("dpmpp_2m"),
        ..NONE
    },
    Sampler { solver: "dpmpp_3m", k_diffusion: Some("sample_dpmpp_3m_sde(model, x, sigmas, eta=0.0)"), ..NONE },
    Sampler {
        solver: "sde_dpmpp",
        k_diffusion: Some("sample_dpmpp_2m_sde(model, x, sigmas, solver_type=\"midpoint\")"),
        comfyui: Some("dpmpp_2m_sde"),
        ..NONE
    },
    Sampler { solver: "lms", ..LMS },
    Sampler { solver: "ipndm_v", ..LMS },
    Sampler { solver: "lms", order: Some(3), k_diffusion: Some("sample_lms(model, x, sigmas, order=3)"), ..NONE },
    Sampler { solver: "ipndm", order: Some(4), comfyui: Some("ipndm"), ..NONE },
    Sampler { solver: "ipndm_v", order: Some(4), compat: "k-diffusion", comfyui: Some("ipndm_v"), ..NONE },
    Sampler { solver: "deis", order: Some(3), compat: "k-diffusion", comfyui: Some("deis"), ..NONE },
    Sampler { solver: "res", comfyui: Some("res_multistep"), ..NONE },
    Sampler { solver: "er_sde", order: Some(3), comfyui: Some("er_sde"), ..NONE },
    Sampler { solver: "heunpp2", comfyui: Some("heunpp2"), ..NONE },
];

/// The row for a solver.
pub fn sampler(solver: &Solver) -> Option<&'static Sampler> {
    let json = solver.to_json();
    let compat = json["compat"].as_str().unwrap_or("exact");
    SAMPLERS
        .iter()
        .find(|r| r.solver == solver.name() && r.compat == compat && r.order.is_none_or(|o| o == solver.order()))
}
