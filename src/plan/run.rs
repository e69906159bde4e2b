//! The executor: runs any plan, on any device, in any floating-point type.
use super::{Plan, Source, rows};
use crate::denoise::query::list;
use crate::denoise::{Cond, Denoiser, Pullback, Query, State};
use crate::host::{Host, Progress, check_cancelled};
use crate::tensor::vector::Scalar;
use crate::{Error, Result};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// What a run keeps for the reverse pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: vectors are freed after their last use.
    Nothing,
    /// States and outputs; evaluations are repeated in the reverse pass (rematerialization).
    States,
    /// States, outputs and every evaluation's pull-back.
    Pullbacks,
    /// States, outputs and the pull-backs of as many evaluations as this many bytes hold: the last ones, which the reverse pass
    /// needs (and frees) first.
    Within(u64),
}

impl Keep {
    /// Whether the pull-back of an evaluation is to be kept, with `left` evaluations to come, itself among them. What is not known
    /// (closed forms keep little more than the state) counts as fitting.
    fn fits(self, net: &dyn Denoiser, batch: usize, left: u64) -> bool {
        match self {
            Keep::Nothing | Keep::States => false,
            Keep::Pullbacks => true,
            Keep::Within(bytes) => net.kept(batch).is_none_or(|each| each.saturating_mul(left) <= bytes),
        }
    }
}

/// What the end of a step reports.
pub struct StepInfo<'a> {
    /// The number of the step, from 1.
    pub step: usize,
    /// The time that it reached.
    pub t: f64,
    /// The state there.
    pub x: &'a State,
    /// The newest model output, if there is one.
    pub output: Option<&'a State>,
}

/// What is called at the end of each step; an error ends the run.
pub type OnStep<'a> = &'a mut dyn FnMut(&StepInfo) -> Result<()>;

/// How to run a plan.
pub struct RunOptions<'a> {
    /// The conditions of the samples.
    pub cond: &'a Cond,
    /// The seed of the noise columns.
    pub seed: u64,
    /// The number of the first sample: row i of x_T is sample `first_sample + i`.
    pub first_sample: u64,
    /// What to keep for the reverse pass.
    pub keep: Keep,
    /// Whether to return the state at the end of each step.
    pub trajectory: bool,
}

/// What the reverse pass needs of a run.
pub struct Kept {
    /// States that other states are made of; the rest can be computed from these and `outputs` in one step.
    states: Vec<Option<State>>,
    pub(super) outputs: Vec<Option<State>>,
    pub(super) pullbacks: RefCell<Vec<Option<Pullback>>>,
    pub(super) cond: Cond,
    seed: u64,
    first_sample: u64,
}

/// A finished run.
pub struct Run {
    /// The result.
    pub x: State,
    /// The states that end the steps, x_T first, if asked for.
    pub trajectory: Vec<State>,
    /// How many times the denoiser was evaluated.
    pub nfe: usize,
    /// What the reverse pass needs, if anything was to be kept.
    pub kept: Option<Kept>,
}

/// The position after which each vector is not needed any more: the last state that uses it.
struct LastUse {
    states: Vec<usize>,
    outputs: Vec<usize>,
}

impl LastUse {
    fn of(plan: &Plan) -> LastUse {
        let mut last = LastUse { states: vec![0; plan.states.len()], outputs: vec![0; plan.nfe()] };
        for (k, state) in plan.states.iter().enumerate() {
            last.states[k] = last.states[k].max(k);
            for term in &state.terms {
                match term.source {
                    Source::State(j) => last.states[j] = k,
                    Source::Output(s) => last.outputs[s] = k,
                    Source::Noise(_) => {}
                }
            }
        }
        last.states[plan.result] = usize::MAX;
        last
    }
}

impl Kept {
    /// The value of a source, recomputed where it was not kept.
    pub(super) fn value(&self, plan: &Plan, source: Source) -> Result<State> {
        let missing = || Error::new(crate::Kind::Internal, "a vector that the reverse pass needs was not kept");
        match source {
            Source::Output(s) => self.outputs.get(s).cloned().flatten().ok_or_else(missing),
            Source::Noise(c) => {
                let like = self.states.first().and_then(Option::as_ref).ok_or_else(missing)?;
                rows::normal_state(self.seed, self.first_sample, c, like)
            }
            Source::State(k) => match self.states.get(k).cloned().flatten() {
                Some(x) => Ok(x),
                None => {
                    let state = plan.states.get(k).filter(|s| !s.terms.is_empty()).ok_or_else(missing)?;
                    let values = state.terms.iter().map(|t| self.value(plan, t.source)).collect::<Result<Vec<_>>>()?;
                    let terms: Vec<_> = state.terms.iter().zip(&values).map(|(t, v)| (t.coef.v(), v)).collect();
                    State::combine(&terms, values.first().ok_or_else(missing)?)
                }
            },
        }
    }
}

/// Which states must be kept: those that other states are made of.
fn kept_states(plan: &Plan) -> Vec<bool> {
    let mut keep = vec![false; plan.states.len()];
    keep[0] = true;
    for term in plan.states.iter().flat_map(|s| &s.terms) {
        if let Source::State(j) = term.source {
            keep[j] = true;
        }
    }
    keep
}

/// A progress report that appears only when a run takes long enough to wait for.
struct Patience<'a> {
    host: &'a dyn Host,
    start: Instant,
    total: u64,
    done: u64,
    shown: Option<Box<dyn Progress>>,
}

impl Patience<'_> {
    fn advance(&mut self) {
        self.done += 1;
        match &mut self.shown {
            Some(p) => p.advance(1),
            None if self.start.elapsed() > Duration::from_secs(2) => {
                let mut p = self.host.progress("sampling", self.total);
                p.advance(self.done);
                self.shown = Some(p);
            }
            None => {}
        }
    }
}

/// Checks of values that a GPU has not computed yet: to wait for each would keep it idle, so they are read at the end.
#[derive(Default)]
struct Doubts {
    oddities: Vec<Scalar>,
    errors: Vec<Error>,
}

impl Doubts {
    fn check(&mut self, x: &State, error: impl Fn() -> Error) -> Result<()> {
        for oddity in x.oddities()? {
            match oddity {
                Scalar::Known(0.0) => {}
                Scalar::Known(_) => return Err(error()),
                later => {
                    self.oddities.push(later);
                    self.errors.push(error());
                }
            }
        }
        Ok(())
    }
    /// The error of the first value that was not finite.
    fn settle(self) -> Result<()> {
        let odd = Scalar::read(self.oddities)?.into_iter().zip(self.errors).find(|(v, _)| *v != 0.0);
        odd.map_or(Ok(()), |(_, e)| Err(e))
    }
}

/// Runs `plan` from `x_t` [B, …] with `net`; `on_step` is called at the end of each step.
///
/// # Errors
/// A state or an output that is not finite (names the step and the time), an output of the wrong shape or type,
/// cancellation, and whatever the denoiser or `on_step` fails with.
pub fn run(
    plan: &Plan,
    net: &dyn Denoiser,
    host: &dyn Host,
    x_t: &State,
    opts: &RunOptions,
    mut on_step: Option<OnStep>,
) -> Result<Run> {
    plan.check()?;
    plan.check_parts(x_t)?;
    check_input(net, x_t)?;
    let last = LastUse::of(plan);
    let keep = (opts.keep != Keep::Nothing).then(|| kept_states(plan));
    let x_t = x_t.map(|t| Ok(t.detach().contiguous()?))?;
    let mut states: Vec<Option<State>> = vec![None; plan.states.len()];
    let mut outputs: Vec<Option<State>> = vec![None; plan.nfe()];
    let mut pullbacks: Vec<Option<Pullback>> = (0..plan.nfe()).map(|_| None).collect();
    let mut trajectory = vec![];
    let mut newest: Option<usize> = None;
    let mut nfe = 0;
    let mut doubts = Doubts::default();
    let mut progress = Patience { host, start: Instant::now(), total: plan.nfe() as u64, done: 0, shown: None };
    for (k, state) in plan.states.iter().enumerate() {
        let at = |e| stopped_at(e, plan, k, state.t.v());
        check_cancelled().map_err(at)?;
        let x = match k {
            0 => x_t.clone(),
            _ => {
                let mut values = Vec::with_capacity(state.terms.len());
                for term in &state.terms {
                    values.push(match term.source {
                        Source::State(j) => taken(&states, j)?,
                        Source::Output(s) => taken(&outputs, s)?,
                        Source::Noise(c) => rows::normal_state(opts.seed, opts.first_sample, c, &x_t)?,
                    });
                }
                let terms: Vec<_> = state.terms.iter().zip(&values).map(|(t, v)| (t.coef.v(), v)).collect();
                State::combine(&terms, &x_t)?
            }
        };
        doubts.check(&x, || not_finite(plan, k, "the state", state.t.v()))?;
        if opts.trajectory && plan.trajectory.contains(&k) {
            trajectory.push(x.clone());
        }
        // the start ends no step
        let step = plan.trajectory.iter().position(|e| *e == k).filter(|step| *step > 0);
        if let (Some(f), Some(step)) = (on_step.as_mut(), step) {
            let output = newest.and_then(|s| outputs[s].as_ref());
            f(&StepInfo { step, t: state.t.v(), x: &x, output })?;
        }
        states[k] = Some(x.clone());
        for (s, eval) in plan.evals.iter().enumerate().filter(|(_, e)| e.state == k) {
            check_cancelled().map_err(at)?;
            let q = Query { x: &x, t: &[eval.t.v()], cond: opts.cond };
            let left = (plan.nfe() - nfe) as u64;
            let m = if opts.keep.fits(net, x_t.batch(), left) {
                let (m, pull) = net.linearize(host, &q, eval.want).map_err(at)?;
                // a script's network knows only now
                if opts.keep.fits(net, x_t.batch(), left) {
                    pullbacks[s] = Some(pull);
                }
                m
            } else {
                net.eval(host, &q, eval.want).map_err(at)?
            };
            nfe += 1;
            progress.advance();
            same_shapes(&m, &x)?;
            doubts.check(&m, || not_finite(plan, k, "the denoiser's output", eval.t.v()))?;
            outputs[s] = Some(m.map(|t| Ok(t.detach().contiguous()?))?);
            newest = Some(s);
        }
        // the newest output stays for the callback
        for (j, slot) in states.iter_mut().enumerate().take(k + 1) {
            if last.states[j] <= k && !keep.as_ref().is_some_and(|w| w[j]) {
                *slot = None;
            }
        }
        if keep.is_none() {
            for (s, slot) in outputs.iter_mut().enumerate() {
                if plan.evals[s].state < k && last.outputs[s] <= k && newest != Some(s) {
                    *slot = None;
                }
            }
        }
    }
    doubts.settle()?;
    let x = taken(&states, plan.result)?;
    let kept = keep.map(|w| {
        for (slot, wanted) in states.iter_mut().zip(w) {
            if !wanted {
                *slot = None;
            }
        }
        let (cond, seed, first_sample) = (opts.cond.clone(), opts.seed, opts.first_sample);
        Kept { states, outputs, pullbacks: RefCell::new(pullbacks), cond, seed, first_sample }
    });
    Ok(Run { x, trajectory, nfe, kept })
}

/// Fails unless an output has the shapes and types of its state.
fn same_shapes(m: &State, x: &State) -> Result<()> {
    for (m, at) in m.values().zip(x.parts()) {
        let x = &at.value;
        if m.dims() != at.geometry.tangents(x.dims()) || m.dtype() != x.dtype() {
            let (mt, md, xt, xd) = (m.dtype(), m.dims(), x.dtype(), x.dims());
            let message = format!("the denoiser returned {mt:?} {md:?} for a state {xt:?} {xd:?}");
            return Err(Error::shape(message, &[md, xd]));
        }
    }
    Ok(())
}

fn taken(from: &[Option<State>], i: usize) -> Result<State> {
    from.get(i)
        .cloned()
        .flatten()
        .ok_or_else(|| Error::new(crate::Kind::Internal, "a plan uses a vector after it was freed"))
}

fn check_input(net: &dyn Denoiser, state: &State) -> Result<()> {
    for x in state.values() {
        if !x.dtype().is_float() {
            let e = Error::new(crate::Kind::Type, format!("x_T must be floating point, not {:?}", x.dtype()));
            return Err(e.hint("convert it, e.g. `x.to(\"f32\")`"));
        }
        if x.rank() == 0 || x.elem_count() == 0 {
            return Err(Error::shape("x_T must have a batch dimension and at least one element", &[x.dims()]));
        }
    }
    let Ok(x) = state.tensor() else { return Ok(()) };
    if let Some(shape) = net.sample_shape().filter(|shape| x.dims()[1..] != shape[..]) {
        let e = Error::shape(
            format!("x_T has shape {:?}, but {} takes samples of shape {shape:?}", x.dims(), net.describe()),
            &[x.dims(), &shape],
        );
        return Err(e.hint(format!("x_T must be [batch, {}]", list(&shape))));
    }
    Ok(())
}

/// Says where Ctrl-C stopped a solve; other errors stay as they are.
fn stopped_at(e: Error, plan: &Plan, k: usize, t: f64) -> Error {
    match e.kind() {
        crate::Kind::Cancelled => {
            let steps = plan.trajectory.len().saturating_sub(1);
            // what is evaluated at the end of a step belongs to the next
            let step = plan.step_of(k) + usize::from(plan.trajectory.contains(&k));
            e.context(format!("{}, step {} of {steps}, t = {t:.4}", plan.name, step.min(steps)))
        }
        _ => e,
    }
}

fn not_finite(plan: &Plan, k: usize, what: &str, t: f64) -> Error {
    let at = match plan.step_of(k) {
        0 => "at the start".to_string(),
        step => format!("in step {step} of {}", plan.trajectory.len() - 1),
    };
    Error::value(format!("{what} has NaN or infinite values {at} (t = {t})"))
        .hint("look at x_T, the steps and the coefficients (`print(plan)`), and the precision of the network")
}
