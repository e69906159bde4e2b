//! Plans written as a recurrence, and plans as JSON: what methods written as scripts make, and what is kept of them.
use super::{Eval, Label, Plan, Source, State, Term};
use crate::denoise::Prediction;
use crate::real::Real;
use crate::{Error, Kind, Result};
use serde_json::Value;

/// The numbers of a recurrence x_{i+1} = Σ_{j ≤ i} S[i][j] x_j + Σ E[i][s] output_s over the states x_0 = x_T … x_n.
pub struct Recurrence<'a> {
    /// S, a row per state behind x_T: coefficients of x_0 … x_{n−1}.
    pub states: &'a [Vec<Real>],
    /// E, a row per state behind x_T: coefficients of the k ≤ n outputs. Output s is the evaluation at state n − k + s.
    pub outputs: &'a [Vec<Real>],
    /// The times of the n + 1 states.
    pub t: &'a [Real],
    /// The times that the denoiser is told, one per output; those of the states where not given.
    pub t_eval: Option<&'a [Real]>,
    /// What the outputs are.
    pub want: Prediction,
    /// The states that stand inside a step.
    pub inner: &'a [usize],
}

impl Recurrence<'_> {
    /// The plan called `name`.
    ///
    /// # Errors
    /// Sizes that do not fit one another; a row that uses what comes after it; numbers that are not finite.
    pub fn plan(&self, name: &str) -> Result<Plan> {
        let n = self.t.len().saturating_sub(1);
        let k = self.outputs.first().map_or(0, Vec::len);
        self.check_sizes(n, k)?;
        let first = n - k;
        let mut states = vec![State { terms: vec![], t: self.t[0].clone(), label: Label::Start }];
        for i in 0..n {
            let mut terms = vec![];
            self.add(&mut terms, &self.states[i], "states", i, i + 1, Source::State)?;
            self.add(&mut terms, &self.outputs[i], "outputs", i, (i + 1).saturating_sub(first), Source::Output)?;
            let label = if self.inner.contains(&(i + 1)) { Label::Inner } else { Label::Step };
            states.push(State { terms, t: self.t[i + 1].clone(), label });
        }
        let told = |s: usize| self.t_eval.map_or(&self.t[first + s], |e| &e[s]).clone();
        let evals = (0..k).map(|s| Eval { state: first + s, t: told(s), want: self.want }).collect();
        let trajectory = (0..=n).filter(|i| !self.inner.contains(i)).collect();
        let plan = Plan { name: name.into(), states, evals, trajectory, result: n, noise_columns: 0 };
        plan.check()?;
        Ok(plan)
    }

    fn check_sizes(&self, n: usize, k: usize) -> Result<()> {
        let shape = |m: &[Vec<Real>]| [m.len(), m.first().map_or(0, Vec::len)];
        let even = |m: &[Vec<Real>]| m.iter().all(|r| r.len() == m[0].len());
        let fits = n > 0
            && (1..=n).contains(&k)
            && shape(self.states) == [n, n]
            && shape(self.outputs) == [n, k]
            && even(self.states)
            && even(self.outputs);
        if !fits {
            let m = format!(
                "plan::from_steps: {} times need states [{n}, {n}] and outputs [{n}, k] with k from 1 to {n}",
                self.t.len()
            );
            return Err(Error::shape(m, &[&shape(self.states), &shape(self.outputs), &[self.t.len()]]).hint(
                "row i gives state i + 1 from states 0 … i and the outputs before it; the k outputs are those at the last k states but the result",
            ));
        }
        if let Some(e) = self.t_eval.filter(|e| e.len() != k) {
            let m = format!("plan::from_steps: {} told times for {k} outputs", e.len());
            return Err(Error::shape(m, &[&[e.len()], &[k]]));
        }
        if let Some(i) = self.inner.iter().find(|i| !(1..n).contains(*i)) {
            return Err(Error::value(format!(
                "plan::from_steps: state {i} cannot stand inside a step: it is x_T, the result, or none"
            )));
        }
        Ok(())
    }

    /// The terms of a row, of whose entries the first `known` may be other than 0.
    fn add(
        &self,
        terms: &mut Vec<Term>,
        row: &[Real],
        what: &str,
        i: usize,
        known: usize,
        source: fn(usize) -> Source,
    ) -> Result<()> {
        for (j, coef) in row.iter().enumerate() {
            if j >= known {
                if coef.v() != 0.0 {
                    let m = format!("plan::from_steps: {what}[{i}, {j}] is {}, but comes after row {i}", coef.v());
                    return Err(Error::value(m).hint("everything that a row cannot know yet must be zero"));
                }
            } else if coef.is_tracked() || coef.v() != 0.0 {
                terms.push(Term { source: source(j), coef: coef.clone() });
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The plan that [`Plan::to_json`] wrote, under the name that stands beside its numbers.
    ///
    /// # Errors
    /// [`Kind::Format`] on anything else.
    pub fn from_json(v: &Value) -> Result<Plan> {
        let list = |v: &Value, key: &str| -> Result<Vec<Value>> {
            v[key].as_array().cloned().ok_or_else(|| wrong(&format!("`{key}` is no list")))
        };
        let states = list(v, "states")?.iter().map(state).collect::<Result<_>>()?;
        let evals = list(v, "evals")?.iter().map(eval).collect::<Result<_>>()?;
        let trajectory = list(v, "trajectory")?.iter().map(count).collect::<Result<_>>()?;
        let name = v["name"].as_str().unwrap_or("from_map").to_string();
        let (result, noise_columns) = (count(&v["result"])?, count(&v["noise_columns"])?);
        let plan = Plan { name, states, evals, trajectory, result, noise_columns };
        plan.check()?;
        Ok(plan)
    }
}

fn wrong(m: &str) -> Error {
    Error::new(Kind::Format, format!("a plan as data: {m}")).hint("`plan.to_map()` writes such data")
}

fn count(v: &Value) -> Result<usize> {
    v.as_u64().map(|n| n as usize).ok_or_else(|| wrong(&format!("{v} is no count")))
}

fn number(v: &Value) -> Result<Real> {
    v.as_f64().map(Real::from).ok_or_else(|| wrong(&format!("{v} is no number")))
}

fn term(v: &Value) -> Result<Term> {
    let at = count(&v[0][1])?;
    let source = match v[0][0].as_str() {
        Some("x") => Source::State(at),
        Some("m") => Source::Output(at),
        Some("z") => Source::Noise(at),
        _ => return Err(wrong(&format!("{} names no vector", v[0]))),
    };
    Ok(Term { source, coef: number(&v[1])? })
}

fn state(v: &Value) -> Result<State> {
    let label = Label::ALL.into_iter().find(|l| v["label"] == l.name());
    let label = label.ok_or_else(|| wrong(&format!("{} is no label of a state", v["label"])))?;
    let terms = v["terms"].as_array().ok_or_else(|| wrong("a state has no `terms`"))?;
    Ok(State { terms: terms.iter().map(term).collect::<Result<_>>()?, t: number(&v["t"])?, label })
}

fn eval(v: &Value) -> Result<Eval> {
    let want = match v["predicts"].as_str() {
        Some("data") => Prediction::Data,
        Some("noise") => Prediction::Noise,
        _ => return Err(wrong(&format!("{} is no prediction", v["predicts"]))),
    };
    Ok(Eval { state: count(&v["state"])?, t: number(&v["t"])?, want })
}
