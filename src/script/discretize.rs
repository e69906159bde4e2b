//! Rhai functions for schedules and τ_ξ: module `schedule`, the methods of type `Schedule`, `tau` and its inverse.
use super::error::RhaiResult;
use super::host::{ScriptHost, callback};
use super::noise::numbers;
use super::options::Given;
use crate::discretize::{
    BASELINES, Compat, Heuristic, Interval, Schedule, Space, TauOptions, from_function, tau, tau_inverse,
    tau_inverse_eval,
};
use crate::host::{Host, Value};
use crate::noise::Noise;
use crate::real::Real;
use crate::schema::{Kind as Of, Opt, Schema, above, number, value, word};
use crate::{Error, Kind};
use candle_core::{DType, Device, Tensor};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FnPtr, INT, ImmutableString, Map, NativeCallContext};

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Schedule>("Schedule");
    let mut schedule = rhai::exported_module!(schedule_api);
    schedule.combine(rhai::exported_module!(super::files::schedule::in_schedule));
    schedule.combine(rhai::exported_module!(super::search::in_schedule));
    engine.register_static_module("schedule", schedule.into());
    engine.register_global_module(rhai::exported_module!(methods).into());
    engine.register_global_module(rhai::exported_module!(tau_api).into());
}

/// A number of steps, or an index.
pub(super) fn count(what: &str, n: INT) -> crate::Result<usize> {
    usize::try_from(n).map_err(|_| Error::value(format!("{what} must not be negative, but is {n}")))
}

/// The ends of an interval of time.
pub(super) const ENDS: &[Opt] =
    &[value("from", Of::NUMBER, "T", "the ends"), value("to", Of::NUMBER, "t_min", "the ends")];
const SPACE: Opt = word("space", &["lambda", "time"], "");
const INVERSE_SPACE: &[Opt] = &[Opt { doc: "that of τ_ξ, \"time\" or \"lambda\"", ..SPACE.or(DEFAULT_SPACE) }];
const DEFAULT_SPACE: &str = "\"time\" for `vp_discrete` and `flow`, otherwise \"lambda\"";
const ABOVE_0: [f64; 2] = [0.0, f64::MAX];
const UNIFORM: Schema = Schema::new("schedule::uniform", &[]).with(&[ENDS]);
const QUADRATIC: Schema = Schema::new("schedule::quadratic", &[]).with(&[ENDS]);
const POLYNOMIAL: Schema =
    Schema::new("schedule::polynomial", &[above("rho", 2.0, ABOVE_0, "the power of (1 − i/n)")]).with(&[ENDS]);
const EDM: Schema = Schema::new(
    "schedule::edm",
    &[
        above("rho", 7.0, ABOVE_0, "the root of time that is even"),
        word(
            "space",
            &["time", "sigma"],
            "spreads t, as the published LD3 numbers do; \"sigma\" spreads the VE noise level σ/α (the same on `noise::edm`)",
        ),
    ],
)
.with(&[ENDS]);
const LOGSNR: Schema = Schema::new("schedule::logsnr", &[]).with(&[ENDS]);
const COSINE: Schema = Schema::new("schedule::cosine", &[]).with(&[ENDS]);
const TAU: Schema = Schema::new(
    "tau",
    &[
        Opt { doc: "what the softmax divides into parts, \"time\" or \"lambda\"", ..SPACE.or(DEFAULT_SPACE) },
        number("win_rate", 0.5, [0.0, 1.0], "ξᶜ is limited to ± this share of the smallest gap between steps"),
        word(
            "compat",
            &["exact", "reference"],
            "or \"reference\": bound ξᶜ in λ by the gaps of the raw ξ, as the published code does",
        ),
    ],
)
.with(&[ENDS]);
const TAU_INVERSE: Schema = Schema::new("tau_inverse", INVERSE_SPACE);
const TAU_INVERSE_EVAL: Schema = Schema::new("tau_inverse_eval", INVERSE_SPACE);
/// The heuristics.
const HEURISTICS: &[Schema] = &[UNIFORM, QUADRATIC, POLYNOMIAL, EDM, LOGSNR, COSINE];
/// Options of this area's functions.
pub const SCHEMAS: &[&[Schema]] = &[HEURISTICS, &[TAU, TAU_INVERSE, TAU_INVERSE_EVAL]];

/// Options `from` and `to`.
pub(super) fn interval(o: &Given) -> Interval {
    Interval { from: o.some_number("from"), to: o.some_number("to") }
}

/// Times of a list, as they are; an end that is outside the schedule's range by no more than the rounding of published lists
/// (three digits, f32) is moved to it, with a note.
fn within(noise: &Noise, times: Tensor) -> crate::Result<Tensor> {
    // a tensor on the tape keeps its gradients: what it holds is not rounded
    let flat = times.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let level = |t: f64| (-noise.lambda(&Real::from(t)).v()).exp();
    let (mut moved, mut notes) = (flat.clone(), Vec::new());
    for (at, t) in flat.iter().enumerate() {
        let end = t.clamp(noise.t_min(), noise.t_max());
        if end == *t || !t.is_finite() {
            continue;
        }
        let (given, nearest) = (level(*t), level(end));
        let off = (given - nearest).abs();
        let rounded = (t - end).abs() <= 1e-6 * end.abs() || (off <= 5e-4 * nearest.max(1.0) && off <= 0.02 * nearest);
        if !rounded {
            let e = Error::value(format!(
                "step t[{at}]: t = {t} is outside [{}, {}], the times of noise schedule `{}` (as σ/α: {given:.6}, where its end is {nearest:.6})",
                noise.t_min(),
                noise.t_max(),
                noise.name()
            ));
            return Err(e.hint(format!(
                "give a time between {} (least noise) and {} (most noise)",
                noise.t_min(),
                noise.t_max()
            )));
        }
        moved[at] = end;
        notes.push(format!("σ/α {given:.6} to {nearest:.6}"));
    }
    if notes.is_empty() {
        return Ok(times);
    }
    crate::host::note(&format!("schedule::list: moved into the range of `{}`: {}", noise.name(), notes.join(", ")));
    Ok(Tensor::from_vec(moved, times.shape(), times.device())?)
}

/// Makes the heuristic schedule of that name from its options.
fn build(name: &str, noise: &Noise, n: INT, map: Map) -> RhaiResult<Schedule> {
    let mut heuristic = Heuristic::named(name)?;
    let of = format!("schedule::{name}");
    let o = Schema::among(HEURISTICS, &of)?.read(map)?;
    match &mut heuristic {
        Heuristic::Polynomial { rho } if name == "polynomial" => *rho = o.number("rho"),
        Heuristic::Edm { rho, in_sigma } => (*rho, *in_sigma) = (o.number("rho"), o.is("space", "sigma")),
        _ => {}
    }
    Ok(heuristic.schedule(noise, count(&format!("{of}: the number of steps"), n)?, interval(&o))?)
}

/// Option `space`.
pub(super) fn space(o: &Given) -> crate::Result<Option<Space>> {
    o.some_word("space").map(Space::named).transpose()
}

fn tau_options(map: Map) -> RhaiResult<TauOptions> {
    let o = TAU.read(map)?;
    let compat = if o.is("compat", "reference") { Compat::Reference } else { Compat::Exact };
    Ok(TauOptions { space: space(&o)?, win_rate: o.number("win_rate"), compat, interval: interval(&o) })
}

fn run_tau(noise: &Noise, xi: Dynamic, xi_c: Dynamic, options: Map) -> RhaiResult<Schedule> {
    let xi = numbers("tau: ξ", xi)?;
    let xi_c = match xi_c.is_unit() {
        true => None,
        false => Some(numbers("tau: ξᶜ", xi_c)?),
    };
    Ok(tau(noise, &xi, xi_c.as_ref(), &tau_options(options)?)?)
}

/// Time steps from T down to t_min for a solver with N evaluations.
#[export_module]
mod schedule_api {
    /// Steps even in time, from T to t_min.
    #[rhai_fn(return_raw)]
    pub fn uniform(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        build("uniform", &noise, n, Map::new())
    }
    /// Steps even in time.
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Example: `schedule::uniform(noise::edm(), 10, #{ from: 40.0 })`
    #[rhai_fn(name = "uniform", return_raw)]
    pub fn uniform_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        build("uniform", &noise, n, options)
    }
    /// Steps even in √t: t_i = t_min + (1 − i/n)² (T − t_min).
    #[rhai_fn(return_raw)]
    pub fn quadratic(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        build("quadratic", &noise, n, Map::new())
    }
    /// Quadratic steps: t_i = to + (1 − i/n)² (from − to) (eq. 10 of the paper with ρ = 2).
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Example: `schedule::quadratic(noise::vp_linear(), 10, #{ to: 0.01 })`
    #[rhai_fn(name = "quadratic", return_raw)]
    pub fn quadratic_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        build("quadratic", &noise, n, options)
    }
    /// Polynomial steps with ρ = 2, from T to t_min.
    #[rhai_fn(return_raw)]
    pub fn polynomial(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        build("polynomial", &noise, n, Map::new())
    }
    /// Polynomial steps: t_i = to + (1 − i/n)^ρ (from − to) (eq. 10 of the paper). For Karras' ρ see `schedule::edm`.
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Example: `schedule::polynomial(noise::vp_linear(), 10, #{ rho: 3 })`
    #[rhai_fn(name = "polynomial", return_raw)]
    pub fn polynomial_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        build("polynomial", &noise, n, options)
    }
    /// The steps of EDM: even in t^(1/7), from T to t_min.
    #[rhai_fn(return_raw)]
    pub fn edm(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        build("edm", &noise, n, Map::new())
    }
    /// The steps of EDM (Karras et al., 2022): even in t^(1/ρ).
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Example: `schedule::edm(noise::vp_linear(), 10, #{ space: "sigma" })`
    #[rhai_fn(name = "edm", return_raw)]
    pub fn edm_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        build("edm", &noise, n, options)
    }
    /// Steps even in λ = ln α − ln σ, from T to t_min.
    #[rhai_fn(return_raw)]
    pub fn logsnr(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        build("logsnr", &noise, n, Map::new())
    }
    /// Steps even in λ = ln α − ln σ, half the log signal-to-noise ratio (eq. 12 of the paper).
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Errors where λ is
    /// infinite at an end (rectified flow at 0 and 1).
    ///
    /// Example: `schedule::logsnr(noise::flow(), 10, #{ from: 0.999, to: 0.001 })`
    #[rhai_fn(name = "logsnr", return_raw)]
    pub fn logsnr_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        build("logsnr", &noise, n, options)
    }
    /// Steps even in the angle arctan(σ/α), from T to t_min.
    #[rhai_fn(return_raw)]
    pub fn cosine(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        build("cosine", &noise, n, Map::new())
    }
    /// Steps even in the angle arctan(σ/α): the noise levels that a cosine schedule has at even times.
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Example: `schedule::cosine(noise::edm(), 10, #{ from: 40.0 })`
    #[rhai_fn(name = "cosine", return_raw)]
    pub fn cosine_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        build("cosine", &noise, n, options)
    }
    /// The heuristic schedule of that name, with its default options.
    #[rhai_fn(return_raw)]
    pub fn named(noise: Noise, name: &str, n: INT) -> RhaiResult<Schedule> {
        build(name, &noise, n, Map::new())
    }
    /// The heuristic schedule of that name: "uniform", "quadratic", "polynomial", "edm", "logsnr" or "cosine".
    ///
    /// Arguments: the noise schedule, the name, the number of steps n ≥ 1; options as the function of that name takes them.
    ///
    /// Example: `for h in schedule::heuristics() { print(schedule::named(noise::edm(), h, 3)); }`
    #[rhai_fn(name = "named", return_raw)]
    pub fn named_with(noise: Noise, name: &str, n: INT, options: Map) -> RhaiResult<Schedule> {
        build(name, &noise, n, options)
    }
    /// The names of the paper's four baselines: "uniform", "quadratic", "edm", "logsnr".
    ///
    /// Example: `schedule::heuristics().len()` is 4
    pub fn heuristics() -> Array {
        BASELINES.iter().map(|n| Dynamic::from(*n)).collect()
    }
    /// A schedule with the given times, n + 1 of them, descending.
    ///
    /// Arguments: the noise schedule; the times, an array of numbers or a 1-D tensor (gradients flow through it). Errors unless
    /// they are finite, strictly descending and within [t_min, t_max].
    ///
    /// Example: `schedule::list(noise::edm(), [80, 10, 2.5, 0.5, 0.002])`
    #[rhai_fn(return_raw)]
    pub fn list(noise: Noise, times: Dynamic) -> RhaiResult<Schedule> {
        let times = within(&noise, numbers("schedule::list: the times", times)?)?;
        Ok(Schedule::new(noise, &times, "list")?)
    }
    /// A schedule from a function of one's own: t_i = f(i/n).
    ///
    /// Arguments: the noise schedule; the number of steps n ≥ 1; the function, from u ∈ [0, 1] to a time, a number or a
    /// tensor with one element (gradients flow through it). f(0.0) is where sampling starts. Errors unless the times descend within [t_min, t_max].
    ///
    /// Example: `schedule::from_fn(noise::flow(), 8, |u| 1.0 - u)`
    #[rhai_fn(return_raw)]
    pub fn from_fn(context: NativeCallContext, noise: Noise, n: INT, f: FnPtr) -> RhaiResult<Schedule> {
        let (host, f) = (ScriptHost::new(&context), callback(f));
        let n = count("schedule::from_fn: the number of steps", n)?;
        Ok(from_function(&noise, n, |u| match host.call(&f, vec![Value::Float(u)])? {
            Value::Tensor(t) => Ok(t),
            Value::Float(x) => Ok(Tensor::new(&[x], &Device::Cpu)?),
            Value::Int(i) => Ok(Tensor::new(&[i as f64], &Device::Cpu)?),
            _ => Err(Error::new(
                Kind::Type,
                "schedule::from_fn: the function must return a number (or a tensor with one)",
            )),
        })?)
    }
}

/// What a schedule can be asked, and what can be made from it.
#[export_module]
mod methods {
    /// The time steps, a tensor [N+1], descending.
    #[rhai_fn(get = "t", pure)]
    pub fn t(schedule: &mut Schedule) -> Tensor {
        schedule.t.clone()
    }
    /// The times at which the denoiser is told to be, a tensor [N+1], or () where they are the steps themselves.
    #[rhai_fn(get = "t_eval", pure)]
    pub fn t_eval(schedule: &mut Schedule) -> Dynamic {
        schedule.t_eval.clone().map_or(Dynamic::UNIT, Dynamic::from)
    }
    /// The VE noise levels σ/α at the steps, a tensor [N+1].
    #[rhai_fn(get = "sigmas", return_raw, pure)]
    pub fn sigmas(schedule: &mut Schedule) -> RhaiResult<Tensor> {
        Ok(schedule.sigmas()?)
    }
    /// λ = ln α − ln σ at the steps, a tensor [N+1].
    #[rhai_fn(get = "lambdas", return_raw, pure)]
    pub fn lambdas(schedule: &mut Schedule) -> RhaiResult<Tensor> {
        Ok(schedule.lambdas()?)
    }
    /// The number of steps N, which is the number of network evaluations of a multistep solver.
    #[rhai_fn(get = "nfe", pure)]
    pub fn nfe(schedule: &mut Schedule) -> INT {
        schedule.nfe() as INT
    }
    /// The noise schedule in whose time the steps are.
    #[rhai_fn(get = "noise", pure)]
    pub fn schedule_noise(schedule: &mut Schedule) -> Noise {
        schedule.noise.clone()
    }
    /// Where the schedule came from: "logsnr", "list", "tau", …
    #[rhai_fn(get = "name", pure)]
    pub fn schedule_name(schedule: &mut Schedule) -> ImmutableString {
        schedule.name.as_str().into()
    }
    /// The schedule in a few words: its name, the number of its steps, and its noise schedule.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).describe()` is "edm, 5 steps in the time of edm"
    #[rhai_fn(pure)]
    pub fn describe(schedule: &mut Schedule) -> String {
        format!("{}, {} steps in the time of {}", schedule.name, schedule.nfe(), schedule.noise.name())
    }
    /// The same schedule under another name.
    ///
    /// Example: `schedule::list(noise::edm(), [80, 1, 0.002]).with_name("mine")`
    #[rhai_fn(pure)]
    pub fn with_name(schedule: &mut Schedule, name: ImmutableString) -> Schedule {
        schedule.clone().with_name(name)
    }
    /// The same steps with evaluation times: what the denoiser is told instead of t.
    ///
    /// Argument: N+1 times (an array or a tensor; the last is unused by multistep solvers), or () for the steps themselves.
    /// Errors unless each is within [t_min, t_max].
    ///
    /// Example: `schedule::list(noise::edm(), [80, 1, 0.002]).with_eval([80, 1.1, 0.002])`
    #[rhai_fn(return_raw, pure)]
    pub fn with_eval(schedule: &mut Schedule, t_eval: Dynamic) -> RhaiResult<Schedule> {
        let t_eval = match t_eval.is_unit() {
            true => None,
            false => Some(numbers("with_eval: the evaluation times", t_eval)?),
        };
        Ok(schedule.clone().with_eval(t_eval.as_ref())?)
    }
    /// Steps `i` to `j` of the schedule, both included: a partial interval.
    ///
    /// Errors unless 0 ≤ i < j ≤ N.
    ///
    /// Example: `schedule::edm(noise::edm(), 10).slice(3, 10).nfe` is 7
    #[rhai_fn(return_raw, pure)]
    pub fn slice(schedule: &mut Schedule, i: INT, j: INT) -> RhaiResult<Schedule> {
        Ok(schedule.slice(count("slice: the first index", i)?, count("slice: the last index", j)?)?)
    }
    /// A table of the steps with their noise levels.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn schedule_to_string(schedule: &mut Schedule) -> String {
        schedule.to_string()
    }
}

/// τ_ξ and its inverse.
#[export_module]
mod tau_api {
    /// The learnable schedule τ_ξ of parameters ξ [N+1], with default options.
    #[rhai_fn(name = "tau", return_raw)]
    pub fn tau_xi(noise: Noise, xi: Dynamic) -> RhaiResult<Schedule> {
        run_tau(&noise, xi, Dynamic::UNIT, Map::new())
    }
    /// The learnable schedule τ_ξ, with either evaluation times by ξᶜ [N+1] or options.
    #[rhai_fn(name = "tau", return_raw)]
    pub fn tau_xi_c(noise: Noise, xi: Dynamic, xi_c: Dynamic) -> RhaiResult<Schedule> {
        match xi_c.try_cast_result::<Map>() {
            Ok(options) => run_tau(&noise, xi, Dynamic::UNIT, options),
            Err(xi_c) => run_tau(&noise, xi, xi_c, Map::new()),
        }
    }
    /// The learnable schedule τ_ξ: a cumulative softmax of ξ, monotone for every ξ, with gradients to ξ and ξᶜ.
    ///
    /// Arguments: the noise schedule; ξ [N+1] (tensor or array; ξ[0] is inert); ξᶜ [N+1], shifts of the evaluation times
    /// against the steps in the chosen space (its ends are inert), or (). Tong et al., 2025, section 4.3.
    ///
    /// Example: `tau(noise::edm(), [0, 0, 0, 0, 0, 0], (), #{ space: "time" }).nfe` is 5
    #[rhai_fn(name = "tau", return_raw)]
    pub fn tau_with(noise: Noise, xi: Dynamic, xi_c: Dynamic, options: Map) -> RhaiResult<Schedule> {
        run_tau(&noise, xi, xi_c, options)
    }
    /// The ξ [N+1] of which τ_ξ is this schedule, in the default space of its noise schedule.
    #[rhai_fn(name = "tau_inverse", return_raw)]
    pub fn inverse(schedule: Schedule) -> RhaiResult<Tensor> {
        Ok(tau_inverse(&schedule, None)?)
    }
    /// The ξ [N+1] of which τ_ξ (with the schedule's own ends) is this schedule: exact, with mean 0 and ξ[0] = 0.
    ///
    /// Example: `variable(tau_inverse(schedule::logsnr(noise::edm(), 5), #{ space: "lambda" }))`
    #[rhai_fn(name = "tau_inverse", return_raw)]
    pub fn inverse_with(schedule: Schedule, options: Map) -> RhaiResult<Tensor> {
        Ok(tau_inverse(&schedule, space(&TAU_INVERSE.read(options)?)?)?)
    }
    /// The ξᶜ [N+1] of this schedule's evaluation times, in the default space of its noise schedule.
    #[rhai_fn(name = "tau_inverse_eval", return_raw)]
    pub fn inverse_eval(schedule: Schedule) -> RhaiResult<Tensor> {
        Ok(tau_inverse_eval(&schedule, None)?)
    }
    /// The ξᶜ [N+1] of this schedule's evaluation times: their distance from the steps in the chosen space, 0 at both ends.
    ///
    /// Example: `tau_inverse_eval(schedule::logsnr(noise::edm(), 5), #{ space: "lambda" })`
    #[rhai_fn(name = "tau_inverse_eval", return_raw)]
    pub fn inverse_eval_with(schedule: Schedule, options: Map) -> RhaiResult<Tensor> {
        Ok(tau_inverse_eval(&schedule, space(&TAU_INVERSE_EVAL.read(options)?)?)?)
    }
}
