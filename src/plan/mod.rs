//! A sampler as data: the plan, its views, its executor and its reverse pass.
//!
//! A plan is a recurrence over named vectors. `states[0]` is x_T; every other state is a linear combination of earlier
//! states, of model outputs and of noise columns; every evaluation shows one state to the denoiser at one time:
//!
//! ```text
//! state_k  = Σ coef · (state_j | output_s | noise_c)        j < k, outputs of evaluations at states before k
//! output_s = denoiser(state_{evals[s].state}, evals[s].t)
//! x_0      = state_result
//! ```
//!
//! Coefficients and times are [`Real`]s, so their gradients reach the time steps by way of a [`crate::real::Tape`].
pub mod build;
pub mod lin;
pub mod matrix;
pub mod recurrence;
pub mod reverse;
pub mod rows;
pub mod run;
pub mod steps;
pub mod tracked;

pub use build::{Builder, Node};
pub use lin::Lin;
pub use run::{Keep, OnStep, RunOptions, StepInfo};
pub use tracked::{Remat, Solution, SolveOptions, Tracked};

use crate::denoise::{Geometry, Prediction};
use crate::files::hash::sha256;
use crate::real::Real;
use crate::{Error, Kind, Result};
use serde_json::{Value, json};

/// A vector that a plan computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A state; `State(0)` is x_T.
    State(usize),
    /// The result of an evaluation.
    Output(usize),
    /// A column of unit-variance noise.
    Noise(usize),
}

/// One term of a linear combination.
#[derive(Debug, Clone)]
pub struct Term {
    /// The vector.
    pub source: Source,
    /// Its coefficient.
    pub coef: Real,
}

/// What a state is, for printing and trajectories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// x_T.
    Start,
    /// The end of a step.
    Step,
    /// The end of a step as predicted, before a corrector.
    Predicted,
    /// The end of a step, corrected.
    Corrected,
    /// A point inside a step.
    Inner,
    /// The state after noise was added to it.
    Churned,
    /// The result of `denoise_to_zero`.
    Denoised,
}

impl Label {
    /// All labels.
    pub const ALL: [Label; 7] =
        [Label::Start, Label::Step, Label::Predicted, Label::Corrected, Label::Inner, Label::Churned, Label::Denoised];
    /// The word that tables and trajectories show.
    pub fn name(self) -> &'static str {
        match self {
            Label::Start => "start",
            Label::Step => "step",
            Label::Predicted => "predicted",
            Label::Corrected => "corrected",
            Label::Inner => "inner",
            Label::Churned => "churned",
            Label::Denoised => "denoised",
        }
    }
}

/// A state and how it comes about.
#[derive(Debug, Clone)]
pub struct State {
    /// The linear combination; empty for x_T.
    pub terms: Vec<Term>,
    /// The time that it belongs to, in the noise schedule's units.
    pub t: Real,
    /// What it is.
    pub label: Label,
}

/// An evaluation of the denoiser.
#[derive(Debug, Clone)]
pub struct Eval {
    /// The state that the denoiser sees.
    pub state: usize,
    /// The time that the denoiser is told.
    pub t: Real,
    /// What it should return.
    pub want: Prediction,
}

/// A sampler as data.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it came from (`"unipc(3, bh1)"`), for printing.
    pub name: String,
    /// The states in the order of computation; the first is x_T.
    pub states: Vec<State>,
    /// The evaluations, ordered by the state that they see.
    pub evals: Vec<Eval>,
    /// The states that end the steps; the first is x_T.
    pub trajectory: Vec<usize>,
    /// The state that is the result.
    pub result: usize,
    /// The number of noise columns.
    pub noise_columns: usize,
}

/// The word for a prediction in tables, options and JSON.
pub fn prediction_name(p: Prediction) -> &'static str {
    match p {
        Prediction::Data => "data",
        Prediction::Noise => "noise",
    }
}

impl Plan {
    /// The number of evaluations of the denoiser.
    pub fn nfe(&self) -> usize {
        self.evals.len()
    }
    /// The times that the denoiser is told, one per evaluation.
    pub fn t_eval(&self) -> Vec<f64> {
        self.evals.iter().map(|e| e.t.v()).collect()
    }
    /// Whether a noise column is used: results then depend on a seed.
    pub fn is_stochastic(&self) -> bool {
        self.noise_columns > 0
    }
    /// The number of the step that computes state `k`, from 1; 0 for x_T.
    pub fn step_of(&self, k: usize) -> usize {
        self.trajectory.iter().filter(|e| **e < k).count()
    }

    /// Fails with [`Kind::Value`] unless every reference points backwards and every number is finite.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::new(Kind::Value, format!("plan {}: {what}", self.name)));
        if self.states.is_empty() || !self.states[0].terms.is_empty() {
            return bad("the first state must be x_T, without terms".into());
        }
        if self.result >= self.states.len() || self.trajectory.iter().any(|k| *k >= self.states.len()) {
            return bad("the result or trajectory names a state that does not exist".into());
        }
        if self.evals.windows(2).any(|w| w[0].state > w[1].state) {
            return bad("evaluations must be ordered by the state that they see".into());
        }
        for (s, e) in self.evals.iter().enumerate() {
            if e.state >= self.states.len() {
                return bad(format!("evaluation {} sees a state that does not exist", s + 1));
            }
            if !e.t.v().is_finite() {
                return bad(format!("the time of evaluation {} is {}", s + 1, e.t.v()));
            }
        }
        for (k, state) in self.states.iter().enumerate() {
            for term in &state.terms {
                let known = match term.source {
                    Source::State(j) => j < k,
                    Source::Output(s) => self.evals.get(s).is_some_and(|e| e.state < k),
                    Source::Noise(c) => c < self.noise_columns,
                };
                if !known {
                    return bad(format!("state {k} uses {:?} before it exists", term.source));
                }
                if !term.coef.v().is_finite() {
                    let t = state.t.v();
                    let e = Error::value(format!(
                        "plan {}: a coefficient of step {} (to t = {t}) is {}",
                        self.name,
                        self.step_of(k),
                        term.coef.v()
                    ));
                    return Err(e.hint("two steps may be too close together, or a step outside the noise schedule"));
                }
            }
        }
        Ok(())
    }

    /// Fails unless every row is one that each part of `x` can follow: in a curved part a state is one state moved by tangents, so its
    /// row has one state, with coefficient 1.
    pub fn check_parts(&self, x: &crate::denoise::State) -> Result<()> {
        let Some(part) = x.parts().iter().find(|p| p.geometry != Geometry::Euclidean) else { return Ok(()) };
        for (k, state) in self.states.iter().enumerate().skip(1) {
            let from: Vec<f64> = state
                .terms
                .iter()
                .filter(|t| matches!(t.source, Source::State(_)) && t.coef.v() != 0.0)
                .map(|t| t.coef.v())
                .collect();
            let noisy = state.terms.iter().any(|t| matches!(t.source, Source::Noise(_)));
            if noisy && matches!(part.geometry, Geometry::Pose(_)) {
                let m = format!(
                    "plan {}: state {k} takes noise, and that of a pose has another size in each of its parts",
                    self.name
                );
                return Err(Error::value(m).hint("`Docking::walk` is the published stochastic sampler"));
            }
            if from != [1.0] {
                let m = format!(
                    "plan {}: state {k} is not one state moved by tangents, as the part `{}` on {} needs: its row has states with coefficients {from:?}",
                    self.name,
                    part.name,
                    part.geometry.name(),
                );
                return Err(Error::value(m).hint(
                    "choose a solver whose steps start from one state, such as Euler or DDIM in the tangent space",
                ));
            }
        }
        Ok(())
    }

    /// The plan's numbers as JSON: what [`Plan::hash`] hashes, and what results store.
    pub fn to_json(&self) -> Value {
        let source = |s: &Source| match s {
            Source::State(j) => json!(["x", j]),
            Source::Output(s) => json!(["m", s]),
            Source::Noise(c) => json!(["z", c]),
        };
        let state = |s: &State| {
            let terms: Vec<Value> = s.terms.iter().map(|t| json!([source(&t.source), t.coef.v()])).collect();
            json!({ "t": s.t.v(), "label": s.label.name(), "terms": terms })
        };
        let eval = |e: &Eval| json!({ "state": e.state, "t": e.t.v(), "predicts": prediction_name(e.want) });
        json!({
            "states": self.states.iter().map(state).collect::<Vec<_>>(),
            "evals": self.evals.iter().map(eval).collect::<Vec<_>>(),
            "trajectory": self.trajectory,
            "result": self.result,
            "noise_columns": self.noise_columns,
        })
    }
    /// SHA-256 of the plan's numbers, in hex. The name does not enter.
    pub fn hash(&self) -> String {
        sha256(self.to_json().to_string().as_bytes())
    }
}
