//! Schedules and plans for the tools that run them: a row of [`TOOLS`] each, and what is lost there, in numbers.
pub mod list;
mod python;
mod samplers;
mod tools;

pub use python::plan_function;
pub use samplers::{SAMPLERS, Sampler, sampler};
pub use tools::{TOOLS, Tool, tool};

use crate::discretize::Schedule;
use crate::noise::Noise;
use crate::real::host_values;
use crate::solve::Solver;
use crate::{Error, Result};

/// What becomes of the end of a schedule that stops above σ = 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It stays the end.
    Keep,
    /// A 0 is put behind it: one evaluation more.
    Append,
    /// A 0 takes its place: as many evaluations, another last step.
    Replace,
}

impl End {
    /// All names.
    pub const NAMES: [&'static str; 3] = ["keep", "append", "replace"];
    /// The end of that name.
    pub fn named(name: &str) -> Result<End> {
        Ok(match name {
            "keep" => End::Keep,
            "append" => End::Append,
            "replace" => End::Replace,
            _ => return Err(Error::unknown("end", name, Self::NAMES)),
        })
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            End::Keep => "keep",
            End::Append => "append",
            End::Replace => "replace",
        }
    }
}

/// Noise levels as tools know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// σ/α: VE and VP models.
    Sigma,
    /// σ of a flow model, in [0, 1], after its shift.
    Flow,
    /// Indices of training steps.
    Timestep,
}

/// Noise levels on their way into a tool.
#[derive(Clone)]
pub struct Levels {
    /// σ/α, descending; the last may be 0 (and with a flow model the first infinite).
    pub sigma: Vec<f64>,
    /// In whose time the schedule was.
    pub noise: Noise,
    /// What it is called.
    pub name: String,
    /// σ/α at which the network was told to be, where that was learned.
    pub told: Option<Vec<f64>>,
    /// The solver that is to run over them, where known.
    pub solver: Option<Solver>,
}

impl Levels {
    /// The levels of a schedule.
    pub fn of(schedule: &Schedule, solver: Option<Solver>) -> Result<Levels> {
        let noise = schedule.noise.clone();
        let level = |t: f64| noise.ve_sigma(&t.into()).v();
        let told = match &schedule.t_eval {
            Some(_) => Some(schedule.eval_times()?.into_iter().map(level).collect()),
            None => None,
        };
        Ok(Levels {
            sigma: host_values(&schedule.sigmas()?.detach())?,
            noise,
            name: schedule.name.clone(),
            told,
            solver,
        })
    }
    /// Whether this is a flow model's.
    pub fn is_flow(&self) -> bool {
        self.noise.name() == "flow"
    }
    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.sigma.len().saturating_sub(1)
    }
    /// Whether the last level is σ = 0.
    pub fn ends_at_zero(&self) -> bool {
        self.sigma.last() == Some(&0.0)
    }
    /// With the end that was asked for.
    pub fn ended(&self, end: End) -> Levels {
        let mut out = self.clone();
        if self.ends_at_zero() {
            return out;
        }
        match end {
            End::Keep => {}
            End::Append => out.sigma.push(0.0),
            End::Replace => {
                if let Some(last) = out.sigma.last_mut() {
                    *last = 0.0;
                }
            }
        }
        out
    }
}

/// A schedule as a tool takes it.
pub struct Exported {
    /// Ready to paste, or the file's content.
    pub text: String,
    /// The name for a file with it.
    pub file: &'static str,
    /// The levels σ/α at which the tool steps, N + 1.
    pub given: Vec<f64>,
    /// The levels that were wanted, with the end that was chosen.
    pub wanted: Vec<f64>,
    /// What was lost: a sentence each, in numbers.
    pub lost: Vec<String>,
}

impl Exported {
    /// |σ given − σ wanted| / σ wanted for each step; where 0 is wanted, the σ given.
    pub fn errors(&self) -> Vec<f64> {
        let each = |(g, w): (&f64, &f64)| match g == w {
            true => 0.0,
            false if *w == 0.0 => *g,
            false => (g - w).abs() / w,
        };
        self.given.iter().zip(&self.wanted).map(each).collect()
    }
}

/// The schedule for that tool. Without `end`, the tool's first.
///
/// # Errors
/// An end that the tool does not take; noise levels or a solver that it does not have.
pub fn export(levels: &Levels, tool: &Tool, end: Option<End>) -> Result<Exported> {
    check(levels, tool)?;
    let end = chosen(levels, tool, end)?;
    let ended = levels.ended(end);
    let given = (tool.given)(&ended)?;
    let mut done = Exported {
        text: (tool.write)(&ended, &given)?,
        file: tool.file,
        given,
        wanted: ended.sigma.clone(),
        lost: of_end(levels, end).into_iter().chain(of_told(levels)).collect(),
    };
    done.lost.extend(of_levels(&done, tool));
    Ok(done)
}

/// Fails where the tool does not run such models or solvers.
fn check(levels: &Levels, tool: &Tool) -> Result<()> {
    if let (Some(s), Some(names)) = (&levels.solver, tool.runs)
        && !names.contains(&s.name())
    {
        let e = Error::value(format!("{}: it does not run solver {}", tool.name, s.describe()));
        return Err(e.hint(format!("it runs {}; any solver's plan can be exported as \"python\"", names.join(", "))));
    }
    if tool.flow.is_some_and(|flow| flow != levels.is_flow()) {
        let (is, needs) = if levels.is_flow() { ("a flow model's", "VE or VP") } else { (levels.noise.name(), "flow") };
        let m = format!("{}: the schedule is {is}, but this takes those of {needs} models", tool.name);
        return Err(Error::value(m).hint("`ld3sh schedule --tools` lists the tools"));
    }
    Ok(())
}

/// The end that was asked for, or the tool's own; one at 0 stays.
fn chosen(levels: &Levels, tool: &Tool, end: Option<End>) -> Result<End> {
    match (end, levels.ends_at_zero()) {
        (_, true) => Ok(End::Keep),
        (None, false) => Ok(tool.ends[0]),
        (Some(e), false) if tool.ends.contains(&e) => Ok(e),
        (Some(e), false) => {
            let ends: Vec<String> = tool.ends.iter().map(|e| format!("\"{}\"", e.name())).collect();
            let m = format!("{}: the end \"{}\" is not possible there", tool.name, e.name());
            Err(Error::value(m).hint(format!("give {}", ends.join(" or "))))
        }
    }
}

/// What the end costs.
fn of_end(levels: &Levels, end: End) -> Option<String> {
    let (n, last) = (levels.steps(), number(levels.sigma.last().copied().unwrap_or(0.0), 6));
    match end {
        End::Keep => None,
        End::Append => Some(format!("one evaluation more: {} instead of {n}, the last from σ = {last} to 0", n + 1)),
        End::Replace => {
            Some(format!("the last step ends at 0 instead of σ = {last}: its result is the network's own x̂₀"))
        }
    }
}

/// What is lost of decoupled evaluation times: all, since no tool has a place for them.
fn of_told(levels: &Levels) -> Option<String> {
    let told = levels.told.as_ref()?;
    let shift = told.iter().zip(&levels.sigma).filter(|(a, b)| **a > 0.0 && **b > 0.0);
    let most = shift.map(|(a, b)| (a / b).ln().abs()).fold(0.0, f64::max);
    Some(format!("the decoupled evaluation times: up to {most:.3} in ln σ (the tool has no place for them)"))
}

/// How far the tool's levels are from those that were wanted.
fn of_levels(done: &Exported, tool: &Tool) -> Option<String> {
    let errors = done.errors();
    let largest = errors.iter().copied().fold(0.0, f64::max);
    let list: Vec<String> = errors.iter().map(|e| format!("{:.2} %", 100.0 * e)).collect();
    (largest > 1e-6)
        .then(|| format!("σ by up to {:.2} % ({}); by step {}", 100.0 * largest, tool.rounds, list.join(", ")))
}

/// A number in plain decimals, without exponent, to so many significant digits.
pub fn number(x: f64, digits: usize) -> String {
    if x == 0.0 || !x.is_finite() {
        return format!("{x:.1}");
    }
    let rounded: f64 = format!("{x:.*e}", digits.max(1) - 1).parse().unwrap_or(x);
    // Display of an f64 never has an exponent
    let text = rounded.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

/// Numbers as [`number`] writes them, separated by commas.
pub fn numbers(values: &[f64], digits: usize) -> String {
    values.iter().map(|v| number(*v, digits)).collect::<Vec<_>>().join(", ")
}

/// σ of a flow model at σ/α.
pub fn flow_of(sigma: f64) -> f64 {
    if sigma.is_infinite() { 1.0 } else { sigma / (1.0 + sigma) }
}
/// σ/α at σ of a flow model.
pub fn of_flow(flow: f64) -> f64 {
    flow / (1.0 - flow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_exponents() {
        assert_eq!(number(14.614642, 5), "14.615");
        assert_eq!(number(1e-7, 3), "0.0000001");
        assert_eq!(number(1.5e20, 3), "150000000000000000000.0");
        assert_eq!(numbers(&[700.0, 0.0], 4), "700.0, 0.0");
    }
}
