//! Rhai functions for schedules and plans in other tools: `export` and the list of tools.
use super::error::RhaiResult;
use super::plan::ScriptSolver;
use crate::discretize::Schedule;
use crate::export::{End, Exported, Levels, TOOLS, export as for_tool, flow_of, plan_function, tool as named};
use crate::noise::{Noise, from_spec};
use crate::plan::Tracked;
use crate::schema::{Kind as Of, Schema, value, word};
use crate::{Error, Kind};
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, Map};
use serde_json::json;

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(methods).into());
}

/// The schedule that a tool runs, in a time in which σ = 0 is possible.
fn as_run(done: &Exported, levels: &Levels) -> crate::Result<Schedule> {
    let (spec, t): (_, Vec<f64>) = if levels.is_flow() {
        (json!({ "name": "flow" }), done.given.iter().map(|s| flow_of(*s)).collect())
    } else {
        let first = done.given.first().copied().unwrap_or(0.0);
        (json!({ "name": "edm", "sigma_min": 0.0, "sigma_max": first }), done.given.clone())
    };
    Schedule::from_steps(from_spec(&spec)?, &t, levels.name.clone())
}

fn list(values: &[f64]) -> crate::Result<Dynamic> {
    Ok(Dynamic::from(Tensor::new(values, &Device::Cpu)?))
}

const EXPORT: Schema = Schema::new(
    "export",
    &[
        word(
            "end",
            &End::NAMES,
            "of a schedule that ends above σ = 0: \"append\" a 0 (one evaluation more), \"replace\" the end by 0, or \"keep\" it",
        )
        .or("the tool's usual one"),
        value(
            "solver",
            Of::Native("ScriptSolver", "solver"),
            "none",
            "what is to run, for the tool's sampler of that name",
        ),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[EXPORT];

fn exported(schedule: &Schedule, tool: &str, map: Map) -> RhaiResult<Map> {
    let o = EXPORT.read(map)?;
    let end = o.some_word("end").map(End::named).transpose()?;
    let solver = match o.native("solver") {
        None => None,
        Some(ScriptSolver::Native(s)) => Some(s),
        Some(other) => {
            let m = format!("export: {} is made of a function: no tool has it", other.describe());
            return Err(Error::new(Kind::Type, m)
                .hint("make its plan and write that: `solver.plan(steps).python(noise)`")
                .into());
        }
    };
    if tool == "python" {
        let Some(solver) = solver else {
            return Err(Error::value("export: a Python function runs a solver")
                .hint("name it: #{ solver: solver::unipc() }")
                .into());
        };
        let plan = solver.plan(schedule)?;
        return Ok(Map::from([
            ("tool".into(), "python".into()),
            ("text".into(), plan_function(plan.plan(), &schedule.noise).into()),
            ("file".into(), "sampler.py".into()),
            ("nfe".into(), Dynamic::from_int(plan.plan().nfe() as i64)),
            ("lost".into(), Array::new().into()),
            ("sigmas".into(), Dynamic::from(schedule.sigmas()?.detach())),
            ("errors".into(), list(&vec![0.0; schedule.nfe() + 1])?),
            ("schedule".into(), Dynamic::from(schedule.clone())),
        ]));
    }
    let levels = Levels::of(schedule, solver)?;
    let tool = named(tool, &levels)?;
    let done = for_tool(&levels, tool, end)?;
    let lost: Array = done.lost.iter().map(|l| Dynamic::from(l.clone())).collect();
    Ok(Map::from([
        ("tool".into(), tool.name.into()),
        ("text".into(), done.text.clone().into()),
        ("file".into(), done.file.into()),
        ("nfe".into(), Dynamic::from_int(done.given.len() as i64 - 1)),
        ("lost".into(), lost.into()),
        ("sigmas".into(), list(&done.given)?),
        ("errors".into(), list(&done.errors())?),
        ("schedule".into(), Dynamic::from(as_run(&done, &levels)?)),
    ]))
}

#[export_module]
mod methods {
    /// The schedule as another tool takes it, with its usual end.
    ///
    /// Example: `schedule::published("ays_sd15").export("comfyui").nfe` is 11
    #[rhai_fn(name = "export", return_raw, pure)]
    pub fn export_to(schedule: &mut Schedule, tool: &str) -> RhaiResult<Map> {
        exported(schedule, tool, Map::new())
    }
    /// The schedule as another tool takes it.
    ///
    /// Tools: those of `export_tools()`, "diffusers" (its scheduler that fits solver and model), and "python", a self-contained function
    /// with learned coefficients and told times, which needs `solver`.
    ///
    /// Returns a map: `text` to paste or save as `file`; `lost`, sentences with numbers; `sigmas`, the levels σ/α at which the tool
    /// steps, and `errors`, how far each is from what was wanted; `nfe`; and `schedule`, what the tool runs, to compare losses with.
    ///
    /// Example: `schedule::edm(noise::edm(), 4).export("k-diffusion", #{ solver: solver::heun() }).lost.len()` is 0
    #[rhai_fn(name = "export", return_raw, pure)]
    pub fn export_with(schedule: &mut Schedule, tool: &str, options: Map) -> RhaiResult<Map> {
        exported(schedule, tool, options)
    }
    /// The plan as a self-contained Python function that needs torch alone: the plan as data, and thirty lines that run it.
    ///
    /// Argument: the noise schedule in whose time the plan is.
    ///
    /// Example: `solver::unipc().plan(schedule::edm(noise::edm(), 5)).python(noise::edm()).contains("def sample")` is true
    #[rhai_fn(return_raw, pure)]
    pub fn python(plan: &mut Tracked, noise: Noise) -> RhaiResult<String> {
        Ok(plan_function(plan.plan(), &noise))
    }
    /// The tools that `export` and `ld3sh schedule --as` write for: maps with `name`, `about` and `ends`.
    ///
    /// Example: `export_tools().len()` is 14
    pub fn export_tools() -> Array {
        let ends = |e: &[End]| -> Array { e.iter().map(|e| Dynamic::from(e.name())).collect() };
        let row = |t: &&crate::export::Tool| {
            Dynamic::from_map(Map::from([
                ("name".into(), t.name.into()),
                ("about".into(), t.about.into()),
                ("ends".into(), ends(t.ends).into()),
            ]))
        };
        TOOLS.iter().map(row).collect()
    }
}
