//! Rhai functions for plans, solvers, `solve` and `sample`.
pub(super) mod solve;
mod solvers;

use super::error::RhaiResult;
use super::files::convert;
use super::identity::Own;
use super::options::{Given, number_of};
use crate::denoise::Prediction;
use crate::noise::Noise;
use crate::plan::{Plan, Tracked, prediction_name};
use crate::schema::{Kind as Of, Opt, Schema, text, value, word};
use crate::solve::Solver;
use crate::{Error, Kind};
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, ImmutableString, Map};

/// A solver as scripts hold it.
#[derive(Clone)]
pub enum ScriptSolver {
    /// A native one.
    Native(Solver),
    /// `|schedule| plan`.
    FromPlan(Own),
    /// `|step| x`, called for each step.
    FromFn(Own),
}

impl ScriptSolver {
    /// Its name: of a native one that in the table, of others the one that the script gave, or that of the function that made it.
    pub fn name(&self) -> &str {
        match self {
            ScriptSolver::Native(s) => s.name(),
            ScriptSolver::FromPlan(own) => own.name.as_deref().unwrap_or("from_plan"),
            ScriptSolver::FromFn(own) => own.name.as_deref().unwrap_or("from_fn"),
        }
    }
    /// One line: the solver's name and what differs from its defaults.
    pub fn describe(&self) -> String {
        match self {
            ScriptSolver::Native(s) => s.describe(),
            ScriptSolver::FromPlan(own) | ScriptSolver::FromFn(own) => {
                own.name.clone().unwrap_or_else(|| format!("{}({})", self.name(), own.function.fn_name()))
            }
        }
    }
    /// Name and options, for results.
    ///
    /// # Errors
    /// The solvers that are made of a script's functions.
    pub fn to_json(&self) -> crate::Result<serde_json::Value> {
        match self {
            ScriptSolver::Native(s) => Ok(s.to_json()),
            _ => {
                let e = Error::new(
                    Kind::Type,
                    format!("{} is made of a function and cannot be written as JSON", self.describe()),
                );
                Err(e.hint("write its name instead"))
            }
        }
    }
    fn native(&self, what: &str) -> RhaiResult<&Solver> {
        match self {
            ScriptSolver::Native(s) => Ok(s),
            _ => {
                let e = Error::new(Kind::Type, format!("{what} is not known for {}", self.describe()));
                Err(e.hint("it is a function of the script's own").into())
            }
        }
    }
}

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<ScriptSolver>("Solver");
    engine.register_type_with_name::<Tracked>("Plan");
    let mut solver = rhai::exported_module!(solvers::api);
    solvers::add_to(&mut solver);
    engine.register_static_module("solver", solver.into());
    engine.register_static_module("plan", rhai::exported_module!(plan_api).into());
    engine.register_global_module(rhai::exported_module!(solvers::methods).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
    engine.register_global_module(rhai::exported_module!(solve::api).into());
}

/// An index or count from a script.
fn index(what: &str, i: INT) -> RhaiResult<usize> {
    Ok(usize::try_from(i).map_err(|_| Error::value(format!("{what} must not be negative, but is {i}")))?)
}

/// An entry of a list of `n`, negative from the end. (One beyond the end is the plan's to report.)
fn entry(what: &str, i: INT, n: usize) -> RhaiResult<usize> {
    let at = if i < 0 { i.checked_add_unsigned(n as u64) } else { Some(i) };
    let missing = || Error::value(format!("there is no {what} {i}: the plan's matrix has {n}"));
    Ok(at.and_then(|at| usize::try_from(at).ok()).ok_or_else(missing)?)
}

/// Numbers: a tensor as it is, or an array of numbers (of any depth two or less) as an f64 tensor.
fn numbers(what: &str, v: Dynamic) -> RhaiResult<Tensor> {
    let bad = |v: &Dynamic| {
        Error::new(
            Kind::Type,
            format!("{what} must be a tensor or an array of numbers, not {}", crate::script::error::type_of(v)),
        )
    };
    if let Some(t) = v.clone().try_cast::<Tensor>() {
        return Ok(t);
    }
    let number = |v: &Dynamic| number_of(v).ok_or_else(|| bad(v));
    let rows: Array = v.clone().try_cast::<Array>().ok_or_else(|| bad(&v))?;
    if rows.first().is_some_and(Dynamic::is_array) {
        let mut flat = vec![];
        let mut width = None;
        for row in &rows {
            let row = row.clone().try_cast::<Array>().ok_or_else(|| bad(row))?;
            if *width.get_or_insert(row.len()) != row.len() {
                return Err(Error::shape(format!("{what}: rows of different lengths"), &[]).into());
            }
            for x in &row {
                flat.push(number(x)?);
            }
        }
        return Ok(Tensor::from_vec(flat, (rows.len(), width.unwrap_or(0)), &Device::Cpu).map_err(Error::from)?);
    }
    let flat = rows.iter().map(number).collect::<crate::Result<Vec<f64>>>()?;
    let n = flat.len();
    Ok(Tensor::from_vec(flat, n, &Device::Cpu).map_err(Error::from)?)
}

const PREDICTS: Opt = word("predicts", &["data", "noise"], "or \"noise\"; what the outputs are");
const FROM_STEPS: Schema = Schema::new(
    "plan::from_steps",
    &[
        PREDICTS,
        value("t_eval", Of::NUMBERS, "the times of the states", "[k], the times that the denoiser is told"),
        value(
            "inner",
            Of::List(&Of::COUNT, 0),
            "[]",
            "numbers of the states that stand inside a step, for trajectories",
        ),
        text("name", "from_steps", "what the plan is called"),
    ],
);
const FROM_MATRIX: Schema = Schema::new("plan::from_matrix", &[PREDICTS]);
/// Options of this area's functions.
pub const SCHEMAS: &[&[Schema]] = &[&[FROM_STEPS, FROM_MATRIX], solve::SCHEMAS, solvers::SCHEMAS];

fn prediction(o: &Given) -> Prediction {
    if o.is("predicts", "noise") { Prediction::Noise } else { Prediction::Data }
}

fn from_steps(states: Dynamic, outputs: Dynamic, t: Dynamic, options: Map) -> RhaiResult<Tracked> {
    let o = FROM_STEPS.read(options)?;
    let t_eval = o.get("t_eval").map(|t| numbers("plan::from_steps: t_eval", t)).transpose()?;
    let inner = o.counts("inner").unwrap_or_default();
    let states = numbers("plan::from_steps: states", states)?;
    let outputs = numbers("plan::from_steps: outputs", outputs)?;
    let t = numbers("plan::from_steps: t", t)?;
    Ok(Tracked::from_steps(&o.text("name"), &states, &outputs, &t, t_eval.as_ref(), prediction(&o), &inner)?)
}

fn from_matrix(a: Dynamic, t_eval: Dynamic, options: Map) -> RhaiResult<Tracked> {
    let want = prediction(&FROM_MATRIX.read(options)?);
    let a = numbers("plan::from_matrix: the matrix", a)?;
    let t = numbers("plan::from_matrix: t_eval", t_eval)?;
    Ok(Tracked::from_matrix(&a, &t, want)?)
}

/// Samplers as data: plans made from coefficients.
#[export_module]
mod plan_api {
    /// A plan from its matrix of coefficients.
    ///
    /// `a`: [S+1, 1+S+noise], a tensor (may be a variable: gradients reach it) or nested arrays. Row s gives the state that
    /// evaluation s sees, the last row the result; columns are x_T, the outputs m_1 … m_S, then noise columns.
    /// `t_eval`: [S], the times that the denoiser is told.
    ///
    /// Errors where an entry right of the diagonal is not zero.
    ///
    /// Example: `plan::from_matrix([[1, 0], [0.1, 0.9]], [80.0], #{ predicts: "data" })`
    #[rhai_fn(name = "from_matrix", return_raw)]
    pub fn from_matrix_default(a: Dynamic, t_eval: Dynamic) -> RhaiResult<Tracked> {
        from_matrix(a, t_eval, Map::new())
    }
    /// A plan from its matrix of coefficients, with options.
    #[rhai_fn(name = "from_matrix", return_raw)]
    pub fn from_matrix_options(a: Dynamic, t_eval: Dynamic, options: Map) -> RhaiResult<Tracked> {
        from_matrix(a, t_eval, options)
    }
    /// A plan from the coefficients of its steps: x_{i+1} = Σ states[i, j] x_j + Σ outputs[i, s] output_s over the states x_0 = x_T … x_n.
    ///
    /// `states`: [n, n], `outputs`: [n, k] with k ≤ n, `t`: [n+1], the times of the states; tensors (may be variables: gradients reach
    /// them) or arrays. The k outputs are those of the evaluations at the last k of the states x_0 … x_{n−1}: with k = n − 1 the first
    /// step asks no network.
    ///
    /// Errors where a row uses a state or an output that comes after it.
    ///
    /// Example: `plan::from_steps([[1, 0], [0, 1]], [[-79, 0], [0, -0.9]], [80.0, 1.0, 0.1], #{ predicts: "noise" }).nfe` is 2
    #[rhai_fn(name = "from_steps", return_raw)]
    pub fn from_steps_default(states: Dynamic, outputs: Dynamic, t: Dynamic) -> RhaiResult<Tracked> {
        from_steps(states, outputs, t, Map::new())
    }
    /// A plan from the coefficients of its steps, with options.
    #[rhai_fn(name = "from_steps", return_raw)]
    pub fn from_steps_options(states: Dynamic, outputs: Dynamic, t: Dynamic, options: Map) -> RhaiResult<Tracked> {
        from_steps(states, outputs, t, options)
    }
    /// The plan that `to_map` described.
    ///
    /// Errors, kind `format`, on anything else.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); plan::from_map(p.to_map()).hash == p.hash` is true
    #[rhai_fn(return_raw)]
    pub fn from_map(map: Map) -> RhaiResult<Tracked> {
        let json = convert::to_json(&Dynamic::from_map(map), false)?;
        Ok(Tracked::constant(Plan::from_json(&json)?))
    }
}

#[export_module]
mod methods {
    /// The plan's matrix A as an f64 tensor [S+1, 1+S+noise]; gradients flow through it to the schedule.
    ///
    /// Example: `solver::unipc().plan(schedule::logsnr(noise::edm(), 3)).matrix.shape` is [4, 4]
    #[rhai_fn(get = "matrix", pure, return_raw)]
    pub fn matrix(plan: &mut Tracked) -> RhaiResult<Tensor> {
        Ok(plan.matrix()?)
    }
    /// The times that the denoiser is told, one per evaluation: an f64 tensor [S].
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.t_eval`
    #[rhai_fn(get = "t_eval", pure, return_raw)]
    pub fn t_eval(plan: &mut Tracked) -> RhaiResult<Tensor> {
        Ok(plan.t_eval()?)
    }
    /// The number of evaluations of the denoiser.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.nfe` is 3
    #[rhai_fn(get = "nfe", pure)]
    pub fn plan_nfe(plan: &mut Tracked) -> INT {
        plan.plan().nfe() as INT
    }
    /// What the plan was made by.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.name`
    #[rhai_fn(get = "name", pure)]
    pub fn plan_name(plan: &mut Tracked) -> ImmutableString {
        plan.plan().name.as_str().into()
    }
    /// The plan in a few words: what it was made by, and its evaluations.
    ///
    /// Example: `solver::unipc().plan(schedule::logsnr(noise::edm(), 3)).describe()` is "unipc(3, bh1), 3 evaluations"
    #[rhai_fn(name = "describe", pure)]
    pub fn plan_describe(plan: &mut Tracked) -> String {
        format!("{}, {} evaluations", plan.plan().name, plan.plan().nfe())
    }
    /// What each evaluation returns: an array of "data" and "noise".
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.predicts` is ["data", "data", "data"]
    #[rhai_fn(get = "predicts", pure)]
    pub fn predicts(plan: &mut Tracked) -> Array {
        plan.plan().evals.iter().map(|e| prediction_name(e.want).into()).collect()
    }
    /// SHA-256 of the plan's numbers, in hex.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.hash`
    #[rhai_fn(get = "hash", pure)]
    pub fn hash(plan: &mut Tracked) -> ImmutableString {
        plan.plan().hash().into()
    }
    /// The states that end the steps: an array of `#{ t, label }`, x_T first.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.steps[1].label`
    #[rhai_fn(get = "steps", pure)]
    pub fn steps(plan: &mut Tracked) -> Array {
        let plan = plan.plan();
        let state = |k: &usize| {
            let s = &plan.states[*k];
            Dynamic::from_map(Map::from([("t".into(), s.t.v().into()), ("label".into(), s.label.name().into())]))
        };
        plan.trajectory.iter().map(state).collect()
    }
    /// The plan as plain data, for JSON (`json::save(path, plan.to_map())`), hashes and `plan::from_map`. Its numbers come back to the bit.
    ///
    /// Times are those of the noise schedule that it was made for, which is not among them.
    ///
    /// Example: `solver::unipc().plan(schedule::logsnr(noise::edm(), 3)).to_map().evals.len()` is 3
    #[rhai_fn(pure)]
    pub fn to_map(plan: &mut Tracked) -> Dynamic {
        let mut json = plan.plan().to_json();
        json["name"] = plan.plan().name.as_str().into();
        convert::from_json(&json)
    }
    /// The plan as a table of its coefficients.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); print(p);`
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_string(plan: &mut Tracked) -> ImmutableString {
        plan.plan().to_string().into()
    }
    /// The same plan with another matrix of the same shape: a tensor (may be a variable) or nested arrays.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.with_matrix(variable(p.matrix)).nfe` is 3
    #[rhai_fn(pure, return_raw)]
    pub fn with_matrix(plan: &mut Tracked, a: Dynamic) -> RhaiResult<Tracked> {
        Ok(plan.with_matrix(&numbers("with_matrix: the matrix", a)?)?)
    }
    /// The same plan with other evaluation times, one per evaluation: a tensor (may be a variable) or an array.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.with_t_eval(p.t_eval * 0.99).t_eval`
    #[rhai_fn(pure, return_raw)]
    pub fn with_t_eval(plan: &mut Tracked, t: Dynamic) -> RhaiResult<Tracked> {
        Ok(plan.with_t_eval(&numbers("with_t_eval: the times", t)?)?)
    }
    /// The same sampler with "data" or "noise" predictions as its outputs: other coefficients, the same samples.
    ///
    /// `noise`: the noise schedule in whose time the plan is. Errors, kind `value`, where α or σ is 0 at a time that the denoiser is told.
    ///
    /// Example: `let n = noise::edm(); solver::ipndm().plan(schedule::logsnr(n, 3)).predicting("data", n).predicts[0]` is "data"
    #[rhai_fn(pure, return_raw)]
    pub fn predicting(plan: &mut Tracked, what: &str, noise: Noise) -> RhaiResult<Tracked> {
        let kinds = [Prediction::Data, Prediction::Noise];
        let want = kinds.into_iter().find(|k| prediction_name(*k) == what);
        let want = want.ok_or_else(|| Error::unknown("prediction", what, kinds.map(prediction_name)))?;
        Ok(plan.predicting(want, &noise)?)
    }
    /// The same plan with entry [row, col] of its matrix replaced; negative ones count from the end.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.with_coef(0, 0, 1.01).matrix[0]`
    #[rhai_fn(name = "with_coef", pure, return_raw)]
    pub fn with_coef(plan: &mut Tracked, row: INT, col: INT, value: FLOAT) -> RhaiResult<Tracked> {
        let (rows, cols) = (1 + plan.plan().nfe(), 1 + plan.plan().nfe() + plan.plan().noise_columns);
        Ok(plan.map_entry(entry("row", row, rows)?, entry("column", col, cols)?, |_| value.into())?)
    }
    /// The same plan with entry [row, col] of its matrix replaced by an integer.
    #[rhai_fn(name = "with_coef", pure, return_raw)]
    pub fn with_coef_int(plan: &mut Tracked, row: INT, col: INT, value: INT) -> RhaiResult<Tracked> {
        with_coef(plan, row, col, value as FLOAT)
    }
    /// The same plan with a row of its matrix multiplied by a factor; row −1 is the result's.
    ///
    /// Example: `let p = solver::unipc().plan(schedule::logsnr(noise::edm(), 3)); p.scale_row(2, 0.99).matrix[2]`
    #[rhai_fn(name = "scale_row", pure, return_raw)]
    pub fn scale_row(plan: &mut Tracked, row: INT, factor: FLOAT) -> RhaiResult<Tracked> {
        Ok(plan.scale_row(entry("row", row, 1 + plan.plan().nfe())?, factor)?)
    }
}
