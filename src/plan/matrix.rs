//! The expanded view of a plan: the lower-triangular matrix A over (x_T, m_1 … m_S, noise), and plans made from one.
use super::{Eval, Label, Plan, Source, State, Term, prediction_name};
use crate::denoise::Prediction;
use crate::noise::Noise;
use crate::real::Real;
use crate::{Error, Result};
use std::fmt::{self, Write};

impl Plan {
    /// The matrix A: row s (0-based, s < NFE) gives the state that evaluation s sees, the last row the result. Columns are
    /// x_T, the outputs m_1 … m_S, and the noise columns.
    pub fn matrix(&self) -> Vec<Vec<Real>> {
        let outputs = self.nfe();
        let width = 1 + outputs + self.noise_columns;
        let mut expanded: Vec<Vec<Real>> = Vec::with_capacity(self.states.len());
        for (k, state) in self.states.iter().enumerate() {
            let mut row = vec![Real::from(0.0); width];
            if k == 0 {
                row[0] = 1.0.into();
            }
            for Term { source, coef } in &state.terms {
                match source {
                    Source::Output(s) => row[1 + s] = &row[1 + s] + coef,
                    Source::Noise(c) => row[1 + outputs + c] = &row[1 + outputs + c] + coef,
                    Source::State(j) => {
                        for (r, x) in row.iter_mut().zip(&expanded[*j]) {
                            if x.is_tracked() || x.v() != 0.0 {
                                *r = &*r + coef * x;
                            }
                        }
                    }
                }
            }
            expanded.push(row);
        }
        self.evals.iter().map(|e| e.state).chain([self.result]).map(|k| expanded[k].clone()).collect()
    }

    /// A plan from its matrix: `a` has one row per evaluation and one for the result, over the columns x_T, m_1 … m_S, and
    /// any number of noise columns. Row s may use only outputs before evaluation s.
    ///
    /// # Errors
    /// Rows or columns that do not fit `t_eval`, or an entry above the diagonal that is not zero.
    pub fn from_matrix(a: &[Vec<Real>], t_eval: &[Real], want: &[Prediction], name: &str) -> Result<Plan> {
        let s = t_eval.len();
        let width = a.first().map_or(0, Vec::len);
        if s == 0 {
            return Err(Error::value("plan::from_matrix: t_eval is empty: a plan needs at least one evaluation"));
        }
        if a.len() != s + 1 || width < s + 1 || a.iter().any(|r| r.len() != width) || want.len() != s {
            let m = format!(
                "plan::from_matrix: {s} evaluation times need a matrix of {} rows and at least {} columns",
                s + 1,
                s + 1
            );
            return Err(Error::shape(m, &[&[a.len(), width], &[s]]).hint(
                "rows: one per evaluation and the result; columns: x_T, one per evaluation, then noise columns",
            ));
        }
        let mut states = vec![State { terms: vec![], t: t_eval[0].clone(), label: Label::Start }];
        for (r, row) in a.iter().enumerate() {
            let mut terms = vec![];
            for (c, coef) in row.iter().enumerate() {
                let zero = coef.v() == 0.0;
                if c > r && c <= s {
                    if !zero {
                        let m = format!(
                            "plan::from_matrix: entry [{r}, {c}] is {}: row {r} comes before output m_{c}",
                            coef.v()
                        );
                        return Err(Error::value(m)
                            .hint("everything right of the diagonal must be zero, noise columns excepted"));
                    }
                    continue;
                }
                if zero && !coef.is_tracked() {
                    continue;
                }
                let source = match c {
                    0 => Source::State(0),
                    c if c <= s => Source::Output(c - 1),
                    c => Source::Noise(c - 1 - s),
                };
                terms.push(Term { source, coef: coef.clone() });
            }
            states.push(State { terms, t: t_eval[r.min(s - 1)].clone(), label: Label::Step });
        }
        let evals = (0..s).map(|i| Eval { state: i + 1, t: t_eval[i].clone(), want: want[i] }).collect();
        let trajectory = std::iter::once(0).chain(2..=s + 1).collect();
        let noise_columns = width - 1 - s;
        let plan = Plan { name: name.into(), states, evals, trajectory, result: s + 1, noise_columns };
        plan.check()?;
        Ok(plan)
    }

    /// The same plan with another matrix (of the same shape as [`Plan::matrix`]): evaluation times and predictions stay.
    pub fn with_matrix(&self, a: &[Vec<Real>]) -> Result<Plan> {
        let t: Vec<Real> = self.evals.iter().map(|e| e.t.clone()).collect();
        let want: Vec<Prediction> = self.evals.iter().map(|e| e.want).collect();
        let width = 1 + self.nfe() + self.noise_columns;
        if a.iter().any(|r| r.len() != width) {
            let got = [a.len(), a.first().map_or(0, Vec::len)];
            return Err(Error::shape(
                "plan: the new matrix must have the old one's shape",
                &[&got, &[self.nfe() + 1, width]],
            ));
        }
        let name = if self.name.ends_with(", edited") { self.name.clone() } else { format!("{}, edited", self.name) };
        let mut plan = Plan::from_matrix(a, &t, &want, &name)?;
        let times = self.evals.iter().map(|e| e.state).chain([self.result]).map(|k| self.states[k].t.clone());
        for (state, t) in plan.states.iter_mut().skip(1).zip(times) {
            state.t = t;
        }
        plan.states[0].t = self.states[0].t.clone();
        Ok(plan)
    }

    /// The same sampler with outputs of another kind: each output is replaced by what it is in the other kind and the state that its
    /// evaluation saw, with α and σ at the evaluation's time.
    pub fn predicting(&self, want: Prediction, noise: &Noise) -> Result<Plan> {
        let mut plan = self.clone();
        for state in &mut plan.states {
            let mut terms = vec![];
            for Term { source, coef } in state.terms.drain(..) {
                match source {
                    Source::Output(s) if self.evals[s].want != want => {
                        let Eval { state, t, .. } = &self.evals[s];
                        let (alpha, sigma) = (noise.alpha(t), noise.sigma(t));
                        // m = (x − σ ε)/α, ε = (x − α m)/σ
                        let (of, by) = if want == Prediction::Noise { (sigma, alpha) } else { (alpha, sigma) };
                        terms.push(Term { source: Source::State(*state), coef: &coef / &by });
                        terms.push(Term { source, coef: -(coef * of / by) });
                    }
                    source => terms.push(Term { source, coef }),
                }
            }
            state.terms = merged(terms);
        }
        plan.evals.iter_mut().for_each(|e| e.want = want);
        plan.check()?;
        Ok(plan)
    }

    /// The same plan with other evaluation times, one per evaluation.
    pub fn with_t_eval(&self, t: &[Real]) -> Result<Plan> {
        if t.len() != self.nfe() {
            let m = format!("plan: {} evaluation times given, the plan has {} evaluations", t.len(), self.nfe());
            return Err(Error::shape(m, &[&[t.len()], &[self.nfe()]]));
        }
        let mut plan = self.clone();
        for (e, t) in plan.evals.iter_mut().zip(t) {
            e.t = t.clone();
        }
        plan.check()?;
        Ok(plan)
    }
}

/// Terms of one vector joined.
fn merged(terms: Vec<Term>) -> Vec<Term> {
    let mut all: Vec<Term> = vec![];
    for term in terms {
        match all.iter_mut().find(|t| t.source == term.source) {
            Some(t) => t.coef = &t.coef + &term.coef,
            None => all.push(term),
        }
    }
    all
}

/// Significant digits that a table shows.
fn number(x: f64) -> String {
    match x {
        0.0 => "·".into(),
        x if x.abs() >= 1e5 || x.abs() < 1e-4 => format!("{x:.3e}"),
        x => format!("{x:.*}", (4 - x.abs().log10().floor() as i32).clamp(0, 6) as usize),
    }
}

impl fmt::Display for Plan {
    /// A table of A: a row per evaluation with its time, then the result.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.nfe();
        let mut header = vec![String::new(), "t_eval".into(), "x_T".into()];
        header.extend((1..=n).map(|s| format!("m{s}")));
        header.extend((1..=self.noise_columns).map(|c| format!("z{c}")));
        let mut rows = vec![header];
        for (s, row) in self.matrix().iter().enumerate() {
            let (name, t) = match self.evals.get(s) {
                Some(e) => (format!("y{}", s + 1), number(e.t.v())),
                None => ("x_0".into(), String::new()),
            };
            rows.push([name, t].into_iter().chain(row.iter().map(|c| number(c.v()))).collect());
        }
        let wants: Vec<&str> = self.evals.iter().map(|e| prediction_name(e.want)).collect();
        let same = wants.windows(2).all(|w| w[0] == w[1]);
        let predicts = if same { wants.first().copied().unwrap_or("nothing").into() } else { wants.join(", ") };
        writeln!(f, "{}: {n} evaluations, predicts {predicts}", self.name)?;
        let width: Vec<usize> =
            (0..rows[0].len()).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
        for row in &rows {
            let mut line = String::new();
            for (cell, w) in row.iter().zip(&width) {
                write!(line, "{}{cell}  ", " ".repeat(w - cell.chars().count()))?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
