//! Module `solver`: the solvers as scripts make them, and their methods.
use super::super::error::RhaiResult;
use super::super::files::convert;
use super::super::identity::Own;
use super::super::options::read;
use super::{ScriptSolver, index};
use crate::discretize::Schedule;
use crate::plan::Tracked;
use crate::schema::{Kind as Of, Opt, Schema, text, value};
use crate::solve::{Row, Solver, TABLE};
use crate::{Error, Kind};
use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, FuncRegistration, INT, ImmutableString, Map, Module, NativeCallContext};

/// The native solver `name` from its options.
fn build(name: &str, mut map: Map) -> RhaiResult<ScriptSolver> {
    let of = format!("solver::{name}");
    for (form, other) in Solver::named(name)?.row().forms {
        let asked = map.remove_entry(form.name).into_iter().collect();
        if read(&of, std::iter::once(form), asked)?.flag(form.name) {
            return build(other, map);
        }
    }
    let given = |row: &'static Row| read(&of, row.all_options(), map).map(|o| o.values().collect());
    Ok(ScriptSolver::Native(Solver::build(name, given)?))
}

/// Adds a function for each row of the table, without options and with them.
pub(super) fn add_to(module: &mut Module) {
    for &row in TABLE {
        let doc: Vec<String> = row.doc().lines().map(|l| format!("/// {l}")).collect();
        let (of, to) = ("options: Map", "RhaiResult<ScriptSolver>");
        let name = row.name;
        let bare = FuncRegistration::new(name).with_params_info([to]).with_comments([doc.join("\n")]);
        bare.set_into_module(module, move || build(name, Map::new()));
        let with = FuncRegistration::new(name).with_params_info([of, to]);
        with.set_into_module(module, move |options: Map| build(name, options));
    }
}

/// The plan of any solver that has one.
pub(super) fn plan_of(ctx: &NativeCallContext, solver: &ScriptSolver, schedule: &Schedule) -> RhaiResult<Tracked> {
    match solver {
        ScriptSolver::Native(s) => Ok(s.plan(schedule)?),
        ScriptSolver::FromPlan(own) => {
            let made: Dynamic = own.function.call_raw(ctx, None, [Dynamic::from(schedule.clone())])?;
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

const KEY: Opt = value("key", Of::Any, "a hash of the function", "data by which caches and checkpoints know it");
const FROM_PLAN: Schema = Schema::new("solver::from_plan", &[text("name", "from_plan", "in tables and records"), KEY]);
const FROM_FN: Schema = Schema::new("solver::from_fn", &[text("name", "from_fn", "in tables and records"), KEY]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[FROM_PLAN, FROM_FN];

/// Solvers: what turns time steps into a sampler.
#[export_module]
pub mod api {
    /// The solver of that name.
    ///
    /// The options are those of the function of that name. Errors on an unknown name, with the nearest.
    ///
    /// Example: `solver::named("unipc", #{ order: 2 })`
    #[rhai_fn(return_raw)]
    pub fn named(name: &str, options: Map) -> RhaiResult<ScriptSolver> {
        build(name, options)
    }
    /// The solver that `to_map` described: `#{ name, … }` with its options.
    ///
    /// Errors on unknown names and options, and on values out of range.
    ///
    /// Example: `solver::from_map(#{ name: "unipc", order: 2 }).order` is 2
    #[rhai_fn(return_raw)]
    pub fn from_map(map: Map) -> RhaiResult<ScriptSolver> {
        let json = convert::to_json(&Dynamic::from_map(map), false)?;
        Ok(ScriptSolver::Native(Solver::from_json(&json)?))
    }
    /// The solver that `solver.json` describes.
    ///
    /// Errors on text that is not such JSON.
    ///
    /// Example: `solver::from_json(solver::unipc().json).name`
    #[rhai_fn(return_raw)]
    pub fn from_json(text: &str) -> RhaiResult<ScriptSolver> {
        let json = serde_json::from_str(text);
        let json = json.map_err(|e| Error::new(Kind::Format, format!("solver::from_json: {e}")))?;
        Ok(ScriptSolver::Native(Solver::from_json(&json)?))
    }
    /// A solver by its coefficients: a function `|schedule| plan`.
    ///
    /// The function is called with each schedule. Gradients reach the schedule through the plan.
    ///
    /// Example: `solver::from_plan(|s| solver::ipndm().plan(s).scale_row(0, 1.01)).plan(schedule::edm(noise::edm(), 4))`
    pub fn from_plan(f: FnPtr) -> ScriptSolver {
        ScriptSolver::FromPlan(Own::plain(f))
    }
    /// A solver by its coefficients, under a name of its own.
    ///
    /// Example: `solver::from_plan(#{ name: "mine", key: 1 }, |s| solver::ipndm().plan(s)).describe()` is "mine"
    #[rhai_fn(name = "from_plan", return_raw)]
    pub fn from_plan_named(ctx: NativeCallContext, options: Map, f: FnPtr) -> RhaiResult<ScriptSolver> {
        Ok(ScriptSolver::FromPlan(Own::new(&ctx, &FROM_PLAN.read(options)?, f)?))
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
        ScriptSolver::FromFn(Own::plain(f))
    }
    /// A solver step by step with tensors, under a name of its own.
    ///
    /// Example: `solver::from_fn(#{ name: "idle", key: 1 }, |s| s.x).describe()` is "idle"
    #[rhai_fn(name = "from_fn", return_raw)]
    pub fn from_fn_named(ctx: NativeCallContext, options: Map, f: FnPtr) -> RhaiResult<ScriptSolver> {
        Ok(ScriptSolver::FromFn(Own::new(&ctx, &FROM_FN.read(options)?, f)?))
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
    /// The solver's name, a key for `solver::named`: "unipc".
    ///
    /// A solver that is made of a script's function has the name that it was given, or that of what made it, "from_plan" or "from_fn".
    ///
    /// Example: `solver::named(solver::unipc().name, #{ order: 2 }).name` is "unipc"
    #[rhai_fn(get = "name", pure)]
    pub fn name(solver: &mut ScriptSolver) -> ImmutableString {
        solver.name().into()
    }
    /// The solver in a few words: its name, its order, and options where they differ from the defaults.
    ///
    /// Example: `solver::unipc(#{ order: 2 }).describe()` is "unipc(2, bh1)"
    #[rhai_fn(pure)]
    pub fn describe(solver: &mut ScriptSolver) -> ImmutableString {
        solver.describe().into()
    }
    /// The solver as plain data, `#{ name, … }` with its options, for JSON, hashes and `solver::from_map`.
    ///
    /// Errors for a solver that is made of a script's function.
    ///
    /// Example: `solver::unipc(#{ order: 2 }).to_map().order` is 2
    #[rhai_fn(pure, return_raw)]
    pub fn to_map(solver: &mut ScriptSolver) -> RhaiResult<Dynamic> {
        Ok(convert::from_json(&solver.to_json()?))
    }
    /// The solver as JSON, for results; `solver::from_json` reads it.
    ///
    /// Example: `solver::unipc().json`
    #[rhai_fn(get = "json", pure, return_raw)]
    pub fn json(solver: &mut ScriptSolver) -> RhaiResult<ImmutableString> {
        Ok(solver.native("json")?.to_json().to_string().into())
    }
    /// The order of the solver.
    ///
    /// Example: `solver::ipndm().order` is 3
    #[rhai_fn(get = "order", pure, return_raw)]
    pub fn order(solver: &mut ScriptSolver) -> RhaiResult<INT> {
        Ok(solver.native("order")?.order() as INT)
    }
    /// The solver in a few words.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(solver: &mut ScriptSolver) -> ImmutableString {
        solver.describe().into()
    }
}
