//! `solve` and `sample`.
use super::super::denoise::{cond_of, drawn_cond, value_of};
use super::super::error::{RhaiResult, carry};
use super::super::host::{ScriptHost, callback};
use super::super::options::SEED;
use super::{ScriptSolver, solvers};
use crate::denoise::{Cond, DynDenoiser, State};
use crate::discretize::Schedule;
use crate::host::{Callback, Host, Value};
use crate::noise::Noise;
use crate::plan::steps::{self, Step};
use crate::plan::tracked::prior_scale;
use crate::plan::{Remat, SolveOptions, StepInfo, Tracked};
use crate::real::{Real, through_tensors};
use crate::schema::{Kind as Of, Opt, Schema, count, flag, number, value};
use crate::tensor::device::default_device;
use crate::tensor::dtype::FLOAT;
use crate::tensor::random::{self, stream};
use crate::{Error, Kind};
use candle_core::{DType, Shape, Tensor};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Map, NativeCallContext};
use std::rc::Rc;

/// What a sampler is asked to do, once its options are read.
struct Request {
    options: SolveOptions,
    callback: Option<Callback>,
}

/// Rows that `sample` draws at a time when nothing is differentiated.
const BATCH: usize = 64;

const NOISES: &str = "noise of SDE solvers and classes drawn are those of samples `first`, `first` + 1, … of this seed";
/// What a sampler may be told.
const RUN: &[Opt] = &[
    value(
        "cond",
        Of::Any,
        "classes drawn by seed for a network that has them",
        "a class, an array of classes, rows [B, …] or \"none\"",
    ),
    Opt { doc: NOISES, ..SEED },
    count("first", 0, [0, usize::MAX], NOISES),
    flag("trajectory", false, "return `#{ x, trajectory, t, nfe }`, with the state at the end of each step"),
    value(
        "callback",
        Of::Function,
        "none",
        "a function `|s|` with `s.step`, `s.t`, `s.x`, `s.output`, called at the end of each step",
    ),
    count("batch", BATCH, [1, usize::MAX], "rows at a time where nothing is differentiated"),
    value(
        "remat",
        Of::Either(&[Of::Flag, Of::Word(&["auto"])]),
        "\"auto\"",
        "in the reverse pass, true repeats evaluations, false keeps their activations; \"auto\" keeps those of as many evaluations as \
         `budget` holds",
    ),
    number("budget", 4.0, [0.0, f64::INFINITY], "GiB of activations under \"auto\""),
];
const SOLVE: Schema = Schema::new("solve", RUN);
const SAMPLE: Schema = Schema::new("sample", RUN);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[SOLVE, SAMPLE];

fn request(what: Schema, map: Map, net: &DynDenoiser, x: &Tensor) -> RhaiResult<Request> {
    let o = what.read(map)?;
    let (seed, first_sample) = (o.seed(), o.count("first") as u64);
    let remat = match o.get("remat").map(|v| v.as_bool()) {
        Some(Ok(true)) => Remat::Always,
        Some(Ok(false)) => Remat::Never,
        _ => Remat::Auto,
    };
    let cond = match o.get("cond") {
        None => drawn_cond(net, x, seed, first_sample)?,
        Some(v) => cond_of(net, x, v).map_err(|e| e.context(what.of))?,
    };
    let options = SolveOptions {
        cond,
        seed,
        first_sample,
        remat,
        budget: (o.number("budget") * (1u64 << 30) as f64) as u64,
        trajectory: o.flag("trajectory"),
        batch: o.count("batch"),
    };
    Ok(Request { options, callback: o.function("callback").map(callback) })
}

/// Fails when the times of a schedule mean other noise levels to the denoiser.
fn same_noise(schedule: &Noise, net: &Noise, t: &Tensor) -> RhaiResult<()> {
    let times = t.detach().to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1::<f64>()).map_err(Error::from)?;
    for t in times {
        let (a, b) = (schedule.lambda(&Real::from(t)).v(), net.lambda(&Real::from(t)).v());
        // equal infinities have no difference
        let same = a == b || (a - b).abs() <= 1e-9 * (1.0 + a.abs());
        if !same {
            let m = format!(
                "the schedule's times are those of {}, the denoiser's those of {}",
                schedule.name(),
                net.name()
            );
            return Err(Error::value(m)
                .hint("make the schedule with the denoiser's own noise schedule, `net.noise`")
                .into());
        }
    }
    Ok(())
}

/// A result as scripts get it: the tensor, or a map with the trajectory.
fn result(x: Tensor, trajectory: Vec<Tensor>, t: Vec<f64>, nfe: usize, wanted: bool) -> Dynamic {
    if !wanted {
        return Dynamic::from(x);
    }
    let trajectory: Array = trajectory.into_iter().map(Dynamic::from).collect();
    let t: Array = t.into_iter().map(Dynamic::from_float).collect();
    Dynamic::from_map(Map::from([
        ("x".into(), Dynamic::from(x)),
        ("trajectory".into(), trajectory.into()),
        ("t".into(), t.into()),
        ("nfe".into(), Dynamic::from_int(nfe as i64)),
    ]))
}

fn step_map(step: usize, t: f64, x: &Tensor, output: Option<&Tensor>) -> Value {
    let map = Map::from([
        ("step".into(), Dynamic::from_int(step as i64)),
        ("t".into(), Dynamic::from_float(t)),
        ("x".into(), Dynamic::from(x.clone())),
        ("output".into(), output.map_or(Dynamic::UNIT, |m| Dynamic::from(m.clone()))),
    ]);
    Value::Opaque(Rc::new(Dynamic::from_map(map)))
}

/// Runs a plan; `prior`: x is unit-variance noise.
fn run_plan(
    ctx: &NativeCallContext,
    what: Schema,
    net: &DynDenoiser,
    plan: &Tracked,
    x: &Tensor,
    prior: bool,
    map: Map,
) -> RhaiResult<Dynamic> {
    let host = ScriptHost::new(ctx);
    let request = request(what, map, net, x)?;
    let mut on_step = on_step(&host, request.callback);
    let on_step = on_step.as_mut().map(|f| f as &mut dyn FnMut(&StepInfo) -> crate::Result<()>);
    let opts = &request.options;
    let done = match prior {
        true => plan.sample(net.noise(), net, &host, &x.into(), opts, on_step)?,
        false => plan.solve(net, &host, &x.into(), opts, on_step)?,
    };
    let t = plan.plan().trajectory.iter().map(|k| plan.plan().states[*k].t.v()).collect();
    let trajectory = done.trajectory.iter().map(|s| Ok(s.tensor()?.clone())).collect::<crate::Result<_>>()?;
    Ok(result(done.x.tensor()?.clone(), trajectory, t, done.nfe, opts.trajectory))
}

/// x_T = prior_std(t_0) · z, differentiable in z and in the schedule's first time.
fn from_prior(schedule: &Schedule, z: &Tensor) -> Result<Tensor, Error> {
    let scale = through_tensors(&[schedule.t.get(0)?], |t| {
        Ok(vec![(vec![prior_scale(&schedule.noise, &t[0][0])], Shape::from(()))])
    })?;
    Ok(z.broadcast_mul(&scale[0].to_dtype(z.dtype())?.to_device(z.device())?)?)
}

/// Runs a script's own stepping function.
fn run_steps(
    ctx: &NativeCallContext,
    what: Schema,
    net: &DynDenoiser,
    f: &rhai::FnPtr,
    schedule: &Schedule,
    x: &Tensor,
    map: Map,
) -> RhaiResult<Dynamic> {
    let host = ScriptHost::new(ctx);
    let request = request(what, map, net, x)?;
    let cond = value_of(&request.options.cond);
    let mut step = |s: Step<Dynamic>| {
        let given = Map::from([
            ("net".into(), Dynamic::from(s.net.clone())),
            ("cond".into(), cond.clone()),
            ("x".into(), Dynamic::from(s.x.clone())),
            ("i".into(), Dynamic::from_int(s.i as i64)),
            ("n".into(), Dynamic::from_int(s.n as i64)),
            ("t".into(), Dynamic::from(s.t)),
            ("t_next".into(), Dynamic::from(s.t_next)),
            ("t_eval".into(), Dynamic::from(s.t_eval)),
            ("schedule".into(), Dynamic::from(schedule.clone())),
            ("memory".into(), s.memory.clone()),
        ]);
        let made: Dynamic = f.call_raw(ctx, None, [Dynamic::from_map(given)]).map_err(carry)?;
        let kind = crate::script::error::type_of(&made);
        let (made, memory) = match made.try_cast_result::<Map>() {
            Ok(mut map) => {
                let mut take = |key: &str| map.remove(key).unwrap_or(Dynamic::UNIT);
                (take("x"), take("memory"))
            }
            Err(other) => (other, s.memory),
        };
        let wrong = || format!("solver::from_fn: the function must return a tensor or #{{ x, memory }}, not {kind}");
        let next = made.try_cast::<Tensor>().ok_or_else(|| Error::new(Kind::Type, wrong()))?;
        Ok((next, memory))
    };
    let mut on_step = on_step(&host, request.callback);
    let on_step = on_step.as_mut().map(|f| f as &mut dyn FnMut(&StepInfo) -> crate::Result<()>);
    let times = (&schedule.t, schedule.t_eval.as_ref());
    let wanted = request.options.trajectory;
    let done = steps::walk(net, times, x, Dynamic::UNIT, wanted, &mut step, on_step)?;
    Ok(result(done.x, done.trajectory, done.t, done.nfe, wanted))
}

/// What calls a script's callback at the end of each step.
fn on_step<'a>(
    host: &'a ScriptHost,
    callback: Option<Callback>,
) -> Option<impl FnMut(&StepInfo) -> crate::Result<()> + use<'a>> {
    callback.map(|f| {
        move |s: &StepInfo| {
            let output = s.output.map(State::tensor).transpose()?;
            host.call(&f, vec![step_map(s.step, s.t, s.x.tensor()?, output)]).map(|_| ())
        }
    })
}

/// A sampler that draws batch after batch, for `generate`.
pub enum Sampler {
    /// By a plan.
    Plan(Tracked),
    /// By a script's own stepping function.
    Steps(rhai::FnPtr, Schedule),
}

impl Sampler {
    /// `solver` over the steps of `schedule`.
    pub fn new(
        ctx: &NativeCallContext,
        net: &DynDenoiser,
        solver: &ScriptSolver,
        schedule: &Schedule,
    ) -> RhaiResult<Sampler> {
        same_noise(&schedule.noise, net.noise(), &schedule.t)?;
        match solver {
            ScriptSolver::FromFn(own) => Ok(Sampler::Steps(own.function.clone(), schedule.clone())),
            other => Ok(Sampler::Plan(solvers::plan_of(ctx, other, schedule)?)),
        }
    }
    /// The samples that unit-variance noise `z` leads to: as `sample`, without gradients.
    pub fn draw(
        &self,
        ctx: &NativeCallContext,
        host: &dyn Host,
        net: &DynDenoiser,
        z: &Tensor,
        options: &SolveOptions,
    ) -> RhaiResult<Tensor> {
        match self {
            Sampler::Plan(plan) => {
                Ok(plan.sample(net.noise(), net, host, &z.into(), options, None)?.x.tensor()?.clone())
            }
            Sampler::Steps(f, schedule) => {
                let x = from_prior(schedule, z)?;
                let cond = match &options.cond {
                    Cond::None => "none".into(),
                    given => value_of(given),
                };
                let made = run_steps(ctx, SAMPLE, net, f, schedule, &x, Map::from([("cond".into(), cond)]))?;
                let kind = crate::script::error::type_of(&made);
                let wrong = || Error::new(Kind::Internal, format!("a solver returned {kind}")).into();
                made.try_cast::<Tensor>().ok_or_else(wrong)
            }
        }
    }
}

/// `solve` (x is x_T) or `sample` (x is unit-variance noise) with a solver and a schedule.
fn with_schedule(
    ctx: &NativeCallContext,
    net: &DynDenoiser,
    solver: &ScriptSolver,
    schedule: &Schedule,
    x: &Tensor,
    prior: bool,
    map: Map,
) -> RhaiResult<Dynamic> {
    let what = if prior { SAMPLE } else { SOLVE };
    same_noise(&schedule.noise, net.noise(), &schedule.t)?;
    match solver {
        ScriptSolver::FromFn(own) => {
            let start = if prior { from_prior(schedule, x)? } else { x.clone() };
            run_steps(ctx, what, net, &own.function, schedule, &start, map)
        }
        other => run_plan(ctx, what, net, &solvers::plan_of(ctx, other, schedule)?, x, prior, map),
    }
}

/// Unit-variance noise for samples `first..first + n`, of the denoiser's own shape: that of `noise([n] + net.shape, …)`.
fn unit_noise(net: &DynDenoiser, n: i64, map: &Map) -> RhaiResult<Tensor> {
    let n = usize::try_from(n)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| Error::value(format!("sample: the number of samples must be at least 1, but is {n}")))?;
    let Some(shape) = net.sample_shape() else {
        let e = Error::value("sample: this denoiser does not fix the shape of its samples");
        return Err(e.hint("give the noise itself, e.g. `noise([16, 3, 32, 32])`, in place of a number").into());
    };
    let get = |key: &str| map.get(key).and_then(|v| v.as_int().ok()).unwrap_or(0) as u64;
    let shape: Vec<usize> = std::iter::once(n).chain(shape).collect();
    Ok(random::normal(get("seed"), get("first"), &shape, stream::NORMAL, FLOAT, &default_device())?)
}

#[export_module]
pub mod api {
    /// Solves the sampling ODE or SDE from x_T with a solver over the steps of a schedule.
    ///
    /// `x_t`: [B, …] at time `schedule.t[0]`, in the noise schedule's own scaling; a partial interval starts from any x at its
    /// t. A plan in place of solver and schedule runs as it is. Gradients reach x_T, the schedule's `t` and `t_eval`, and what
    /// a plan was made from.
    ///
    /// Errors where a state is not finite, naming the step and the time; where the schedule's noise levels are not the
    /// denoiser's.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); solve(net, solver::unipc(), schedule::logsnr(net.noise, 5), 80.0 * randn([4, 2]), #{ trajectory: true }).nfe` is 5
    #[rhai_fn(name = "solve", return_raw)]
    pub fn solve(
        ctx: NativeCallContext,
        net: DynDenoiser,
        solver: ScriptSolver,
        schedule: Schedule,
        x_t: Tensor,
    ) -> RhaiResult<Dynamic> {
        with_schedule(&ctx, &net, &solver, &schedule, &x_t, false, Map::new())
    }
    /// Solves from x_T, with options.
    #[rhai_fn(name = "solve", return_raw)]
    pub fn solve_with(
        ctx: NativeCallContext,
        net: DynDenoiser,
        solver: ScriptSolver,
        schedule: Schedule,
        x_t: Tensor,
        options: Map,
    ) -> RhaiResult<Dynamic> {
        with_schedule(&ctx, &net, &solver, &schedule, &x_t, false, options)
    }
    /// Runs a plan from x_T; gradients reach x_T and whatever the plan was made from.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); solve(net, plan::from_matrix([[1, 0], [0.1, 0.9]], [80.0]), 80.0 * randn([4, 2]))`
    #[rhai_fn(name = "solve", return_raw)]
    pub fn solve_plan(ctx: NativeCallContext, net: DynDenoiser, plan: Tracked, x_t: Tensor) -> RhaiResult<Dynamic> {
        run_plan(&ctx, SOLVE, &net, &plan, &x_t, false, Map::new())
    }
    /// Runs a plan from x_T, with the options of `solve`.
    #[rhai_fn(name = "solve", return_raw)]
    pub fn solve_plan_with(
        ctx: NativeCallContext,
        net: DynDenoiser,
        plan: Tracked,
        x_t: Tensor,
        options: Map,
    ) -> RhaiResult<Dynamic> {
        run_plan(&ctx, SOLVE, &net, &plan, &x_t, false, options)
    }
    /// Samples from unit-variance noise: `solve` from x_T = prior_std(t_0) · z.
    ///
    /// `z`: noise [B, …] of unit variance (not scaled by σ_T), or a number of samples, whose noise is drawn by `seed` and
    /// `first`. A plan in place of solver and schedule runs as it is. Gradients reach z, the schedule's `t` and `t_eval`, and
    /// what a plan was made from.
    ///
    /// Errors where a state is not finite, naming the step and the time; where the schedule's noise levels are not the
    /// denoiser's.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); sample(net, solver::unipc(), schedule::logsnr(net.noise, 5), noise([4, 2], #{ seed: 0 }), #{ batch: 2 })`
    #[rhai_fn(name = "sample", return_raw)]
    pub fn sample(
        ctx: NativeCallContext,
        net: DynDenoiser,
        solver: ScriptSolver,
        schedule: Schedule,
        z: Tensor,
    ) -> RhaiResult<Dynamic> {
        with_schedule(&ctx, &net, &solver, &schedule, &z, true, Map::new())
    }
    /// Samples from unit-variance noise, with options.
    #[rhai_fn(name = "sample", return_raw)]
    pub fn sample_with(
        ctx: NativeCallContext,
        net: DynDenoiser,
        solver: ScriptSolver,
        schedule: Schedule,
        z: Tensor,
        options: Map,
    ) -> RhaiResult<Dynamic> {
        with_schedule(&ctx, &net, &solver, &schedule, &z, true, options)
    }
    /// Draws `n` samples; their noise comes from seed 0.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); sample(net, solver::unipc(), schedule::logsnr(net.noise, 5), 16)`
    #[rhai_fn(name = "sample", return_raw)]
    pub fn sample_n(
        ctx: NativeCallContext,
        net: DynDenoiser,
        solver: ScriptSolver,
        schedule: Schedule,
        n: i64,
    ) -> RhaiResult<Dynamic> {
        sample_n_with(ctx, net, solver, schedule, n, Map::new())
    }
    /// Draws `n` samples, with options.
    #[rhai_fn(name = "sample", return_raw)]
    pub fn sample_n_with(
        ctx: NativeCallContext,
        net: DynDenoiser,
        solver: ScriptSolver,
        schedule: Schedule,
        n: i64,
        options: Map,
    ) -> RhaiResult<Dynamic> {
        let z = unit_noise(&net, n, &options)?;
        with_schedule(&ctx, &net, &solver, &schedule, &z, true, options)
    }
    /// Runs a plan from unit-variance noise.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 }); sample(net, solver::ddim().plan(schedule::edm(net.noise, 5)), noise([4, 2]))`
    #[rhai_fn(name = "sample", return_raw)]
    pub fn sample_plan(ctx: NativeCallContext, net: DynDenoiser, plan: Tracked, z: Tensor) -> RhaiResult<Dynamic> {
        run_plan(&ctx, SAMPLE, &net, &plan, &z, true, Map::new())
    }
    /// Runs a plan from unit-variance noise, with the options of `solve`.
    #[rhai_fn(name = "sample", return_raw)]
    pub fn sample_plan_with(
        ctx: NativeCallContext,
        net: DynDenoiser,
        plan: Tracked,
        z: Tensor,
        options: Map,
    ) -> RhaiResult<Dynamic> {
        run_plan(&ctx, SAMPLE, &net, &plan, &z, true, options)
    }
}
