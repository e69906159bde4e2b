//! Builds a plan state by state.
use super::{Eval, Label, Lin, Plan, Source, State};
use crate::Result;
use crate::denoise::Prediction;
use crate::real::Real;

/// A state that a builder has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node(usize);

impl Node {
    /// The state as a vector to compute with.
    pub fn v(self) -> Lin {
        Lin::of(Source::State(self.0))
    }
}
impl std::ops::Mul<&Real> for Node {
    type Output = Lin;
    fn mul(self, c: &Real) -> Lin {
        self.v() * c
    }
}

/// A plan under construction.
#[derive(Debug)]
pub struct Builder(Plan);

impl Builder {
    /// Starts with x_T at time `t`.
    pub fn new(name: impl Into<String>, t: &Real) -> (Builder, Node) {
        let start = State { terms: vec![], t: t.clone(), label: Label::Start };
        let plan = Plan {
            name: name.into(),
            states: vec![start],
            evals: vec![],
            trajectory: vec![0],
            result: 0,
            noise_columns: 0,
        };
        (Builder(plan), Node(0))
    }
    /// Evaluates the denoiser at state `x`, telling it time `t`.
    pub fn eval(&mut self, x: Node, t: &Real, want: Prediction) -> Lin {
        self.0.evals.push(Eval { state: x.0, t: t.clone(), want });
        Lin::of(Source::Output(self.0.evals.len() - 1))
    }
    /// A fresh column of noise.
    pub fn noise(&mut self) -> Lin {
        self.0.noise_columns += 1;
        Lin::of(Source::Noise(self.0.noise_columns - 1))
    }
    /// A new state. Terms whose coefficient is the constant zero are left out.
    pub fn state(&mut self, v: Lin, t: &Real, label: Label) -> Node {
        let terms = v.0.into_iter().filter(|t| t.coef.is_tracked() || t.coef.v() != 0.0).collect();
        self.0.states.push(State { terms, t: t.clone(), label });
        Node(self.0.states.len() - 1)
    }
    /// Marks `x` as the end of a step.
    pub fn end_step(&mut self, x: Node) {
        self.0.trajectory.push(x.0);
    }
    /// The number of evaluations so far.
    pub fn evals(&self) -> usize {
        self.0.evals.len()
    }
    /// The finished plan, with `x` as its result.
    pub fn finish(mut self, x: Node) -> Result<Plan> {
        self.0.result = x.0;
        self.0.check()?;
        Ok(self.0)
    }
}
