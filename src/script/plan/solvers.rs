//! Module `solver`: the solvers as scripts make them, and their methods.
use super::super::error::RhaiResult;
use super::super::options::Options;
use super::{ScriptSolver, index, prediction};
use crate::discretize::Schedule;
use crate::plan::Tracked;
use crate::solve::{
    Churn, Expansion, Method, MultistepOptions, SdeOptions, SinglestepOptions, Solver, UnipcOptions, Variant,
};
use crate::{Error, Kind};
use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, INT, ImmutableString, Map, NativeCallContext};

/// The names under which module `solver` makes native solvers.
pub(super) const NAMES: [&str; 13] = [
    "euler",
    "ddim",
    "heun",
    "dpm",
    "dpm2",
    "dpm3",
    "dpmpp",
    "unipc",
    "ipndm",
    "ipndm_v",
    "deis",
    "edm_stochastic",
    "sde_dpmpp",
];

fn expansion(o: &mut Options) -> RhaiResult<Expansion> {
    Ok(match o.one_of("solver_type", &["midpoint", "taylor", "heun"])? {
        None | Some("midpoint") => Expansion::Midpoint,
        Some(_) => Expansion::Taylor,
    })
}

fn inner_points(o: &mut Options) -> RhaiResult<SinglestepOptions> {
    Ok(SinglestepOptions { solver_type: expansion(o)?, r1: o.float("r1")?, r2: o.float("r2")? })
}

/// The native solver `name` from its options.
pub(super) fn build(name: &str, map: Map) -> RhaiResult<ScriptSolver> {
    let mut o = Options::new(&format!("solver::{name}"), map);
    let (afs, denoise_to_zero) = (o.bool("afs")?.unwrap_or(false), o.bool("denoise_to_zero")?.unwrap_or(false));
    let method = match name {
        "euler" => Method::Euler,
        "ddim" => Method::Ddim { eta: o.float("eta")?.unwrap_or(0.0) },
        "heun" => Method::Heun { nfe: o.count("nfe")? },
        "dpm2" => Method::Dpm { order: 2, nfe: o.count("nfe")?, options: inner_points(&mut o)? },
        "dpm3" => Method::Dpm { order: 3, nfe: o.count("nfe")?, options: inner_points(&mut o)? },
        "dpm" => {
            Method::Dpm { order: o.count("order")?.unwrap_or(3), nfe: o.count("nfe")?, options: inner_points(&mut o)? }
        }
        "dpmpp" if o.bool("singlestep")?.unwrap_or(false) => Method::DpmppSinglestep {
            order: o.count("order")?.unwrap_or(3),
            nfe: o.count("nfe")?,
            options: inner_points(&mut o)?,
        },
        "dpmpp" => Method::Dpmpp {
            order: o.count("order")?.unwrap_or(3),
            options: MultistepOptions {
                solver_type: expansion(&mut o)?,
                lower_order_final: o.bool("lower_order_final")?.unwrap_or(true),
            },
        },
        "unipc" => Method::Unipc {
            order: o.count("order")?.unwrap_or(3),
            options: UnipcOptions {
                variant: match o.one_of("variant", &["bh1", "bh2"])? {
                    Some("bh2") => Variant::Bh2,
                    _ => Variant::Bh1,
                },
                corrector: o.bool("corrector")?.unwrap_or(true),
                lower_order_final: o.bool("lower_order_final")?.unwrap_or(true),
                predicts: prediction(&mut o)?.unwrap_or(UnipcOptions::default().predicts),
            },
        },
        "ipndm" => Method::Ipndm { order: o.count("order")?.unwrap_or(3) },
        "ipndm_v" => Method::IpndmV { order: o.count("order")?.unwrap_or(3) },
        "deis" => Method::Deis { order: o.count("order")?.unwrap_or(3) },
        "edm_stochastic" => {
            let default = Churn::default();
            let churn = Churn {
                s_churn: o.float("s_churn")?.unwrap_or(default.s_churn),
                s_min: o.float("s_min")?.unwrap_or(default.s_min),
                s_max: o.float("s_max")?.unwrap_or(default.s_max),
                s_noise: o.float("s_noise")?.unwrap_or(default.s_noise),
            };
            Method::EdmStochastic { churn, nfe: o.count("nfe")? }
        }
        "sde_dpmpp" => {
            let default = SdeOptions::default();
            let options = SdeOptions {
                solver_type: expansion(&mut o)?,
                eta: o.float("eta")?.unwrap_or(default.eta),
                s_noise: o.float("s_noise")?.unwrap_or(default.s_noise),
                lower_order_final: o.bool("lower_order_final")?.unwrap_or(default.lower_order_final),
            };
            Method::SdeDpmpp { options }
        }
        _ => return Err(Error::unknown("solver", name, NAMES).into()),
    };
    o.finish()?;
    let solver = Solver { method, afs, denoise_to_zero };
    solver.check()?;
    Ok(ScriptSolver::Native(solver))
}

/// The plan of any solver that has one.
pub(super) fn plan_of(ctx: &NativeCallContext, solver: &ScriptSolver, schedule: &Schedule) -> RhaiResult<Tracked> {
    match solver {
        ScriptSolver::Native(s) => Ok(s.plan(schedule)?),
        ScriptSolver::FromPlan(f) => {
            let made: Dynamic = f.call_raw(ctx, None, [Dynamic::from(schedule.clone())])?;
            let kind = crate::script::error::type_of(&made);
            made.try_cast::<Tracked>().ok_or_else(|| {
                let e =
                    Error::new(Kind::Type, format!("solver::from_plan: the function must return a Plan, not {kind}"));
                e.hint("make one with plan::from_matrix, or edit another solver's").into()
            })
        }
        ScriptSolver::FromFn(_) => {
            let e =
                Error::new(Kind::Type, "a solver made with solver::from_fn has no plan: it is a function of tensors");
            Err(e.hint("use solver::from_plan to define a solver by its coefficients").into())
        }
    }
}

/// Solvers: what turns time steps into a sampler.
#[export_module]
pub mod api {
    /// Euler in t on the probability-flow ODE; one evaluation per step.
    ///
    /// Options:
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::euler()`
    #[rhai_fn(name = "euler", return_raw)]
    pub fn euler() -> RhaiResult<ScriptSolver> {
        build("euler", Map::new())
    }
    /// Euler, with options.
    #[rhai_fn(name = "euler", return_raw)]
    pub fn euler_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("euler", options)
    }
    /// DDIM: first order in λ on the noise prediction; one evaluation per step.
    ///
    /// Song et al., 2021.
    ///
    /// Options:
    /// - `eta` (0.0): 0 is the ODE, 1 ancestral sampling
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::ddim(#{ eta: 0.5 })`
    #[rhai_fn(name = "ddim", return_raw)]
    pub fn ddim() -> RhaiResult<ScriptSolver> {
        build("ddim", Map::new())
    }
    /// DDIM, with options.
    #[rhai_fn(name = "ddim", return_raw)]
    pub fn ddim_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("ddim", options)
    }
    /// Heun's method of EDM; two evaluations per step.
    ///
    /// Karras et al., 2022, algorithm 1.
    ///
    /// Options:
    /// - `nfe` (two per step): evaluations; an odd number makes the last step an Euler step
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::heun(#{ nfe: 7 })`
    #[rhai_fn(name = "heun", return_raw)]
    pub fn heun() -> RhaiResult<ScriptSolver> {
        build("heun", Map::new())
    }
    /// Heun, with options.
    #[rhai_fn(name = "heun", return_raw)]
    pub fn heun_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("heun", options)
    }
    /// Singlestep DPM-Solver of order 2; two evaluations per step.
    ///
    /// Lu et al., 2022.
    ///
    /// Options:
    /// - `nfe` (two per step): evaluations; the steps then follow the published list of orders
    /// - `solver_type` ("midpoint"): or "taylor"; how second-order terms are formed ("heun" is another name of "taylor")
    /// - `r1` (0.5): where in λ the inner point is, as a fraction of the step
    /// - `r2` (2/3): of order 3 only
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::dpm2(#{ nfe: 7 }).plan(schedule::logsnr(noise::edm(), 4)).nfe` is 7
    #[rhai_fn(name = "dpm2", return_raw)]
    pub fn dpm2() -> RhaiResult<ScriptSolver> {
        build("dpm2", Map::new())
    }
    /// Singlestep DPM-Solver of order 2, with options.
    #[rhai_fn(name = "dpm2", return_raw)]
    pub fn dpm2_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("dpm2", options)
    }
    /// Singlestep DPM-Solver of order 3; three evaluations per step.
    ///
    /// Lu et al., 2022.
    ///
    /// Options:
    /// - `nfe` (three per step): evaluations; the steps then follow the published list of orders
    /// - `solver_type` ("midpoint"): or "taylor"; how second-order terms are formed ("heun" is another name of "taylor")
    /// - `r1` (1/3), `r2` (2/3): where in λ the inner points are, as fractions of the step
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::dpm3(#{ nfe: 10 })`
    #[rhai_fn(name = "dpm3", return_raw)]
    pub fn dpm3() -> RhaiResult<ScriptSolver> {
        build("dpm3", Map::new())
    }
    /// Singlestep DPM-Solver of order 3, with options.
    #[rhai_fn(name = "dpm3", return_raw)]
    pub fn dpm3_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("dpm3", options)
    }
    /// DPM-Solver++ on the data prediction, multistep unless told otherwise; one evaluation per step.
    ///
    /// Lu et al., 2022b. The published coefficients of 3M are of second order; "taylor" is of third.
    ///
    /// Options:
    /// - `order` (3): 1 to 3
    /// - `lower_order_final` (true): let the order fall to 1 over the last steps (multistep only)
    /// - `solver_type` ("midpoint"): the published one, or "taylor" ("heun" is another name of it)
    /// - `singlestep` (false): several evaluations per step instead of earlier ones
    /// - `nfe` (`order` per step): of singlestep: evaluations; the steps then follow the published list of orders
    /// - `r1` (0.5, of order 3: 1/3), `r2` (2/3): of singlestep: where in λ the inner points are, as fractions of the step
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::dpmpp(#{ order: 2 })`, `solver::dpmpp(#{ singlestep: true, nfe: 7 })`
    #[rhai_fn(name = "dpmpp", return_raw)]
    pub fn dpmpp() -> RhaiResult<ScriptSolver> {
        build("dpmpp", Map::new())
    }
    /// DPM-Solver++, with options.
    #[rhai_fn(name = "dpmpp", return_raw)]
    pub fn dpmpp_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("dpmpp", options)
    }
    /// UniPC of any order; one evaluation per step.
    ///
    /// Zhao et al., 2023. The network sees the predicted state, the corrected one is what the next step builds on.
    ///
    /// Options:
    /// - `order` (3): at least 1
    /// - `variant` ("bh1"): B(h) = h, or "bh2": B(h) = e^h − 1
    /// - `corrector` (true): correct each state with the next evaluation
    /// - `lower_order_final` (true): let the order fall to 1 over the last steps
    /// - `predicts` ("data"): or "noise"; which prediction is expanded in λ
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::unipc(#{ order: 3, variant: "bh1" })`
    #[rhai_fn(name = "unipc", return_raw)]
    pub fn unipc() -> RhaiResult<ScriptSolver> {
        build("unipc", Map::new())
    }
    /// UniPC, with options.
    #[rhai_fn(name = "unipc", return_raw)]
    pub fn unipc_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("unipc", options)
    }
    /// iPNDM: Adams–Bashforth weights for equal steps on the noise prediction; one evaluation per step.
    ///
    /// Zhang & Chen, 2023; Liu et al., 2022.
    ///
    /// Options:
    /// - `order` (3): 1 to 4
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::ipndm(#{ order: 3 })`
    #[rhai_fn(name = "ipndm", return_raw)]
    pub fn ipndm() -> RhaiResult<ScriptSolver> {
        build("ipndm", Map::new())
    }
    /// iPNDM, with options.
    #[rhai_fn(name = "ipndm", return_raw)]
    pub fn ipndm_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("ipndm", options)
    }
    /// iPNDM with Adams–Bashforth weights for the actual steps in the VE noise level.
    ///
    /// Options:
    /// - `order` (3): 1 to 4
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::ipndm_v(#{ order: 4 })`
    #[rhai_fn(name = "ipndm_v", return_raw)]
    pub fn ipndm_v() -> RhaiResult<ScriptSolver> {
        build("ipndm_v", Map::new())
    }
    /// iPNDM-v, with options.
    #[rhai_fn(name = "ipndm_v", return_raw)]
    pub fn ipndm_v_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("ipndm_v", options)
    }
    /// DEIS tAB: the noise prediction extrapolated in t and integrated exactly; one evaluation per step.
    ///
    /// Zhang & Chen, 2023.
    ///
    /// Options:
    /// - `order` (3): 1 to 4, the number of predictions used
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::deis(#{ order: 3 })`
    #[rhai_fn(name = "deis", return_raw)]
    pub fn deis() -> RhaiResult<ScriptSolver> {
        build("deis", Map::new())
    }
    /// DEIS, with options.
    #[rhai_fn(name = "deis", return_raw)]
    pub fn deis_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("deis", options)
    }
    /// EDM's stochastic sampler: Heun with churn; two evaluations per step.
    ///
    /// Karras et al., 2022, algorithm 2. Noise levels are VE (σ/α).
    ///
    /// Options:
    /// - `s_churn` (0.0): the total amount of churn, over all steps
    /// - `s_min` (0.0), `s_max` (∞): the noise levels between which there is churn
    /// - `s_noise` (1.0): a factor on the noise
    /// - `nfe` (two per step): evaluations; an odd number makes the last step an Euler step
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::edm_stochastic(#{ s_churn: 40, s_min: 0.05, s_max: 50, s_noise: 1.003 })`
    #[rhai_fn(name = "edm_stochastic", return_raw)]
    pub fn edm_stochastic() -> RhaiResult<ScriptSolver> {
        build("edm_stochastic", Map::new())
    }
    /// EDM's stochastic sampler, with options.
    #[rhai_fn(name = "edm_stochastic", return_raw)]
    pub fn edm_stochastic_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("edm_stochastic", options)
    }
    /// SDE-DPM-Solver++(2M); one evaluation per step.
    ///
    /// Options:
    /// - `eta` (1.0): 0 is DPM-Solver++(2M), 1 the SDE
    /// - `s_noise` (1.0): a factor on the noise
    /// - `solver_type` ("midpoint"): or "heun" ("taylor" is another name of it); how the second-order term is formed
    /// - `lower_order_final` (false): make the last step of order 1
    /// - `afs` (false): replace the first evaluation by the analytical ε̂ = x/√(α² + σ²) (Dockhorn et al., 2022), which costs
    ///   nothing
    /// - `denoise_to_zero` (false): end with one more evaluation, whose data prediction is the result
    ///
    /// Example: `solver::sde_dpmpp(#{ eta: 0.5 })`
    #[rhai_fn(name = "sde_dpmpp", return_raw)]
    pub fn sde_dpmpp() -> RhaiResult<ScriptSolver> {
        build("sde_dpmpp", Map::new())
    }
    /// SDE-DPM-Solver++(2M), with options.
    #[rhai_fn(name = "sde_dpmpp", return_raw)]
    pub fn sde_dpmpp_with(options: Map) -> RhaiResult<ScriptSolver> {
        build("sde_dpmpp", options)
    }
    /// The solver of that name.
    ///
    /// The options are those of the function of that name. Errors on an unknown name, with the nearest.
    ///
    /// Example: `solver::named("unipc", #{ order: 2 })`
    #[rhai_fn(return_raw)]
    pub fn named(name: &str, options: Map) -> RhaiResult<ScriptSolver> {
        build(name, options)
    }
    /// The solver that `solver.json` describes.
    ///
    /// Errors on text that is not such JSON.
    ///
    /// Example: `solver::from_json(solver::unipc().json).name`
    #[rhai_fn(return_raw)]
    pub fn from_json(text: &str) -> RhaiResult<ScriptSolver> {
        let parsed: Result<Solver, _> = serde_json::from_str(text);
        let solver = parsed.map_err(|e| Error::new(Kind::Format, format!("solver::from_json: {e}")))?;
        solver.check()?;
        Ok(ScriptSolver::Native(solver))
    }
    /// A solver by its coefficients: a function `|schedule| plan`.
    ///
    /// The function is called with each schedule. Gradients reach the schedule through the plan.
    ///
    /// Example: `solver::from_plan(|s| solver::ipndm().plan(s).scale_row(0, 1.01)).plan(schedule::edm(noise::edm(), 4))`
    pub fn from_plan(f: FnPtr) -> ScriptSolver {
        ScriptSolver::FromPlan(f)
    }
    /// A solver step by step with tensors: a function `|s| x` that returns the state at the end of a step.
    ///
    /// `s` is a map: `net`, `cond`, `x` (the state), `i` (the step, from 0), `n` (the number of steps), `t`, `t_next`, `t_eval` (scalar
    /// tensors through which gradients reach the schedule), `schedule`, and `memory`. Return the new state, or
    /// `#{ x, memory }` to carry something (model outputs, say) to the next step.
    ///
    /// # Example
    /// ```rhai
    /// let euler = solver::from_fn(|s| s.x + (s.t_next - s.t) * s.net.predict_noise(s.x, s.t, s.cond));  // in EDM t is σ
    /// let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 });
    /// sample(net, euler, schedule::edm(net.noise, 4), 2).shape  // [2, 2]
    /// ```
    pub fn from_fn(f: FnPtr) -> ScriptSolver {
        ScriptSolver::FromFn(f)
    }
}

#[export_module]
pub mod methods {
    /// The solver's plan for the steps of a schedule.
    ///
    /// Errors for a solver of `solver::from_fn`, which has none.
    ///
    /// Example: `print(solver::unipc().plan(schedule::logsnr(noise::edm(), 3)));`
    #[rhai_fn(pure, return_raw)]
    pub fn plan(ctx: NativeCallContext, solver: &mut ScriptSolver, schedule: Schedule) -> RhaiResult<Tracked> {
        let solver = solver.clone();
        plan_of(&ctx, &solver, &schedule)
    }
    /// The number of evaluations that a schedule of `steps` steps takes.
    ///
    /// Example: `solver::heun().nfe(3)` is 6
    #[rhai_fn(pure, return_raw)]
    pub fn nfe(solver: &mut ScriptSolver, steps: INT) -> RhaiResult<INT> {
        Ok(solver.native("nfe")?.nfe(index("steps", steps)?) as INT)
    }
    /// The number of steps that a schedule for `nfe` evaluations has.
    ///
    /// Example: `schedule::logsnr(noise::edm(), solver::heun().steps(10)).nfe` is 5
    #[rhai_fn(pure, return_raw)]
    pub fn steps(solver: &mut ScriptSolver, nfe: INT) -> RhaiResult<INT> {
        let nfe = index("nfe", nfe)?;
        match solver {
            ScriptSolver::Native(s) => Ok(s.steps_for_nfe(nfe) as INT),
            _ => Ok(nfe as INT),
        }
    }
    /// The same solver fixed to `nfe` evaluations, where the number of steps does not determine them (Heun, singlestep).
    ///
    /// Example: `solver::heun().for_nfe(7).plan(schedule::edm(noise::edm(), 4)).nfe` is 7
    #[rhai_fn(pure, return_raw)]
    pub fn for_nfe(solver: &mut ScriptSolver, nfe: INT) -> RhaiResult<ScriptSolver> {
        let nfe = index("nfe", nfe)?;
        Ok(match solver {
            ScriptSolver::Native(s) => ScriptSolver::Native(s.for_nfe(nfe)),
            other => other.clone(),
        })
    }
    /// The solver's name, with its order and options where they differ from the defaults.
    ///
    /// Example: `solver::unipc(#{ order: 2 }).name`
    #[rhai_fn(get = "name", pure)]
    pub fn name(solver: &mut ScriptSolver) -> ImmutableString {
        solver.describe().into()
    }
    /// The solver as JSON, for results; `solver::from_json` reads it.
    ///
    /// Example: `solver::unipc().json`
    #[rhai_fn(get = "json", pure, return_raw)]
    pub fn json(solver: &mut ScriptSolver) -> RhaiResult<ImmutableString> {
        let text = serde_json::to_string(solver.native("json")?);
        Ok(text.map_err(|e| Error::new(Kind::Internal, e.to_string()))?.into())
    }
    /// The order of the solver.
    ///
    /// Example: `solver::ipndm().order` is 3
    #[rhai_fn(get = "order", pure, return_raw)]
    pub fn order(solver: &mut ScriptSolver) -> RhaiResult<INT> {
        Ok(solver.native("order")?.order() as INT)
    }
    /// The solver's name.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(solver: &mut ScriptSolver) -> ImmutableString {
        solver.describe().into()
    }
}
