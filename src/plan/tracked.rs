//! A plan together with the tensors that its numbers came from, so that [`crate::tensor::grad`] reaches time steps,
//! evaluation times and coefficients through a solve.
use super::recurrence::Recurrence;
use super::run::{Keep, OnStep, RunOptions, run};
use super::{Plan, reverse};
use crate::denoise::{Cond, DynDenoiser, Prediction, State};
use crate::host::Host;
use crate::noise::Noise;
use crate::real::{Real, Tape};
use crate::tensor::grad;
use crate::tensor::vector::Scalar;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::rc::Rc;

/// Whether the reverse pass repeats evaluations (less memory) or keeps their pull-backs (less work).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Remat {
    /// Repeat them: only states and outputs are kept.
    Always,
    /// Keep every evaluation's pull-back.
    Never,
    /// Keep the pull-backs of as many evaluations as [`SolveOptions::budget`] holds, by what the network says of their size
    /// ([`crate::denoise::Denoiser::kept`]), and repeat the others.
    #[default]
    Auto,
}

/// The standard deviation of x_T at time `t0`, differentiable: σ(t_0) for VE and flow, the constant 1 for VP.
pub(crate) fn prior_scale(noise: &Noise, t0: &Real) -> Real {
    let prior = noise.prior_std(t0.v());
    let sigma = noise.sigma(t0);
    if (sigma.v() - prior).abs() <= 1e-12 * prior.abs() { sigma } else { prior.into() }
}

/// How to solve.
#[derive(Clone)]
pub struct SolveOptions {
    /// Conditions, one row per sample.
    pub cond: Cond,
    /// The seed of noise columns.
    pub seed: u64,
    /// The number of the first sample, for noise columns.
    pub first_sample: u64,
    /// Whether the reverse pass repeats evaluations.
    pub remat: Remat,
    /// Bytes that pull-backs may take under [`Remat::Auto`].
    pub budget: u64,
    /// Whether to return the states that end the steps.
    pub trajectory: bool,
    /// Rows that are sampled at a time when no gradient is recorded.
    pub batch: usize,
}

impl Default for SolveOptions {
    fn default() -> Self {
        SolveOptions {
            cond: Cond::None,
            seed: 0,
            first_sample: 0,
            remat: Remat::Auto,
            budget: 4 << 30,
            trajectory: false,
            batch: usize::MAX,
        }
    }
}

/// What a solve returns.
pub struct Solution {
    /// The result, of x_T's parts, shapes, dtypes and devices.
    pub x: State,
    /// The states that end the steps, x_T first, if asked for.
    pub trajectory: Vec<State>,
    /// How many times the denoiser was evaluated (per batch).
    pub nfe: usize,
}

/// A plan, the tape of its numbers, and the tensors behind the tape's leaves.
#[derive(Clone)]
pub struct Tracked {
    plan: Rc<Plan>,
    tape: Tape,
    inputs: Vec<(Tensor, Vec<Real>)>,
}

/// The numbers of a tensor, flat, as leaves of `tape` where the tensor is tracked.
fn reals(tape: &Tape, inputs: &mut Vec<(Tensor, Vec<Real>)>, t: &Tensor) -> Result<Vec<Real>> {
    let v = t.detach().to_dtype(DType::F64)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f64>()?;
    if !grad::is_tracked(t) {
        return Ok(v.into_iter().map(Real::from).collect());
    }
    if let Some((_, leaves)) = inputs.iter().find(|(x, _)| x.id() == t.id()) {
        return Ok(leaves.clone());
    }
    let leaves = tape.leaves(&v);
    inputs.push((t.clone(), leaves.clone()));
    Ok(leaves)
}

fn rows(tape: &Tape, inputs: &mut Vec<(Tensor, Vec<Real>)>, a: &Tensor) -> Result<Vec<Vec<Real>>> {
    let (_, cols) = a.dims2().map_err(|_| {
        Error::shape(format!("a plan's matrix must have two dimensions, not {:?}", a.dims()), &[a.dims()])
    })?;
    Ok(reals(tape, inputs, a)?.chunks(cols.max(1)).map(<[Real]>::to_vec).collect())
}

impl Tracked {
    /// The plan that `make` gives for steps `t` and the times that the denoiser is told, where these differ; both may be tracked.
    pub fn over(
        t: &Tensor,
        t_eval: Option<&Tensor>,
        make: impl FnOnce(&[Real], Option<&[Real]>) -> Result<Plan>,
    ) -> Result<Tracked> {
        let (tape, mut inputs) = (Tape::new(), vec![]);
        let t = reals(&tape, &mut inputs, t)?;
        let t_eval = t_eval.map(|e| reals(&tape, &mut inputs, e)).transpose()?;
        let plan = make(&t, t_eval.as_deref())?;
        Ok(Tracked { plan: Rc::new(plan), tape, inputs })
    }
    /// A plan from its matrix [S+1, 1+S+noise] and evaluation times [S]; both may be tracked.
    pub fn from_matrix(a: &Tensor, t_eval: &Tensor, want: Prediction) -> Result<Tracked> {
        let (tape, mut inputs) = (Tape::new(), vec![]);
        let a = rows(&tape, &mut inputs, a)?;
        let t = reals(&tape, &mut inputs, t_eval)?;
        let plan = Plan::from_matrix(&a, &t, &vec![want; t.len()], "from_matrix")?;
        Ok(Tracked { plan: Rc::new(plan), tape, inputs })
    }
    /// A plan from the coefficients of its steps ([`Recurrence`]): states [n, n], outputs [n, k], times [n+1], told times [k]; all may be
    /// tracked.
    pub fn from_steps(
        name: &str,
        states: &Tensor,
        outputs: &Tensor,
        t: &Tensor,
        t_eval: Option<&Tensor>,
        want: Prediction,
        inner: &[usize],
    ) -> Result<Tracked> {
        let (tape, mut inputs) = (Tape::new(), vec![]);
        let states = rows(&tape, &mut inputs, states)?;
        let outputs = rows(&tape, &mut inputs, outputs)?;
        let t = reals(&tape, &mut inputs, t)?;
        let t_eval = t_eval.map(|e| reals(&tape, &mut inputs, e)).transpose()?;
        let made = Recurrence { states: &states, outputs: &outputs, t: &t, t_eval: t_eval.as_deref(), want, inner };
        Ok(Tracked { plan: Rc::new(made.plan(name)?), tape, inputs })
    }
    /// A plan without gradients to its numbers.
    pub fn constant(plan: Plan) -> Tracked {
        Tracked { plan: Rc::new(plan), tape: Tape::new(), inputs: vec![] }
    }
    /// The plan itself.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
    /// The same plan with matrix `a`, which may be tracked.
    pub fn with_matrix(&self, a: &Tensor) -> Result<Tracked> {
        let mut inputs = self.inputs.clone();
        let a = rows(&self.tape, &mut inputs, a)?;
        Ok(Tracked { plan: Rc::new(self.plan.with_matrix(&a)?), tape: self.tape.clone(), inputs })
    }
    /// The same sampler with outputs of another kind ([`Plan::predicting`]).
    pub fn predicting(&self, want: Prediction, noise: &Noise) -> Result<Tracked> {
        Ok(Tracked { plan: Rc::new(self.plan.predicting(want, noise)?), ..self.clone() })
    }
    /// The same plan with entry [row, col] of its matrix replaced by `f` of the old one.
    pub fn map_entry(&self, row: usize, col: usize, f: impl FnOnce(&Real) -> Real) -> Result<Tracked> {
        let mut a = self.plan.matrix();
        let shape = [a.len(), a.first().map_or(0, Vec::len)];
        match a.get_mut(row).and_then(|r| r.get_mut(col)) {
            Some(x) => *x = f(x),
            None => {
                let m =
                    format!("plan: no entry [{row}, {col}] in a matrix of {} rows and {} columns", shape[0], shape[1]);
                return Err(Error::shape(m, &[&[row, col], &shape]));
            }
        }
        Ok(Tracked { plan: Rc::new(self.plan.with_matrix(&a)?), ..self.clone() })
    }
    /// The same plan with all coefficients of matrix row `row` multiplied by `factor`.
    pub fn scale_row(&self, row: usize, factor: f64) -> Result<Tracked> {
        let mut a = self.plan.matrix();
        let rows = a.len();
        match a.get_mut(row) {
            Some(r) => r.iter_mut().for_each(|x| *x = &*x * factor),
            None => return Err(Error::value(format!("plan: no row {row} in a matrix of {rows} rows"))),
        }
        Ok(Tracked { plan: Rc::new(self.plan.with_matrix(&a)?), ..self.clone() })
    }
    /// The same plan with other evaluation times [S], which may be tracked.
    pub fn with_t_eval(&self, t: &Tensor) -> Result<Tracked> {
        let mut inputs = self.inputs.clone();
        let t = reals(&self.tape, &mut inputs, t)?;
        Ok(Tracked { plan: Rc::new(self.plan.with_t_eval(&t)?), tape: self.tape.clone(), inputs })
    }
    /// The matrix as an f64 tensor [S+1, 1+S+noise] on the CPU, tracked where the plan is.
    pub fn matrix(&self) -> Result<Tensor> {
        let a = self.plan.matrix();
        let shape = vec![a.len(), a.first().map_or(0, Vec::len)];
        self.tensor(a.into_iter().flatten().collect(), shape)
    }
    /// The evaluation times as an f64 tensor [S] on the CPU, tracked where the plan is.
    pub fn t_eval(&self) -> Result<Tensor> {
        let t: Vec<Real> = self.plan.evals.iter().map(|e| e.t.clone()).collect();
        let n = t.len();
        self.tensor(t, vec![n])
    }
    /// Numbers of the plan's tape as a tensor.
    fn tensor(&self, values: Vec<Real>, shape: Vec<usize>) -> Result<Tensor> {
        let t = Tensor::from_vec(values.iter().map(Real::v).collect::<Vec<_>>(), shape, &Device::Cpu)?;
        let this = self.clone();
        let inputs: Vec<Tensor> = self.inputs.iter().map(|(t, _)| t.clone()).collect();
        let pullback = move |_: &dyn Host, cots: &[Option<Tensor>]| {
            let Some(Some(cot)) = cots.first() else { return Ok(vec![None; this.inputs.len()]) };
            let cot = cot.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            let seeds: Vec<(Real, f64)> = values.iter().cloned().zip(cot).collect();
            this.input_grads(&seeds)
        };
        let mut out = grad::record(vec![t], &inputs, Box::new(pullback))?;
        out.pop().ok_or_else(|| Error::new(Kind::Internal, "record returned nothing"))
    }
    /// Gradients with respect to the tensors behind the plan's numbers.
    fn input_grads(&self, seeds: &[(Real, f64)]) -> Result<Vec<Option<Tensor>>> {
        let seeds: Vec<(&Real, f64)> = seeds.iter().map(|(r, s)| (r, *s)).collect();
        let grads = self.tape.backward(&seeds);
        self.inputs
            .iter()
            .map(|(t, leaves)| {
                let g: Vec<f64> = leaves.iter().map(|l| grads.of(l)).collect();
                Ok(Some(Tensor::from_vec(g, t.shape(), &Device::Cpu)?.to_device(t.device())?))
            })
            .collect()
    }

    /// Solves from `x_t` [B, …]; differentiable in x_T and in whatever the plan's numbers came from.
    pub fn solve(
        &self,
        net: &DynDenoiser,
        host: &dyn Host,
        x_t: &State,
        opts: &SolveOptions,
        on_step: Option<OnStep>,
    ) -> Result<Solution> {
        self.solve_scaled(net, host, x_t, None, opts, on_step)
    }

    /// Samples from unit-variance noise `z` [B, …]: x_T = prior_std(t_0) · z; differentiable also in t_0 where
    /// the prior's scale depends on it.
    pub fn sample(
        &self,
        noise: &Noise,
        net: &DynDenoiser,
        host: &dyn Host,
        z: &State,
        opts: &SolveOptions,
        on_step: Option<OnStep>,
    ) -> Result<Solution> {
        let scale = prior_scale(noise, &self.plan.states[0].t);
        self.solve_scaled(net, host, z, Some(scale), opts, on_step)
    }

    fn solve_scaled(
        &self,
        net: &DynDenoiser,
        host: &dyn Host,
        z: &State,
        scale: Option<Real>,
        opts: &SolveOptions,
        on_step: Option<OnStep>,
    ) -> Result<Solution> {
        if scale.is_some() && z.is_curved() {
            return Err(Error::value("`sample` makes states of unit noise, which poses are not")
                .hint("start from poses: `solver.solve(net, schedule, x)`"));
        }
        let x_t = match &scale {
            Some(s) => z.map(|t| Ok(t.detach().affine(s.v(), 0.0)?))?,
            None => z.detach(),
        };
        let inputs: Vec<Tensor> = z.values().chain(self.inputs.iter().map(|(t, _)| t)).cloned().collect();
        let tracked = inputs.iter().any(grad::is_tracked);
        let rows = x_t.batch();
        if !tracked && on_step.is_none() && opts.batch < rows && opts.batch > 0 {
            return self.in_batches(net, host, &x_t, opts);
        }
        let keep = match opts.remat {
            _ if !tracked => Keep::Nothing,
            Remat::Always => Keep::States,
            Remat::Never => Keep::Pullbacks,
            Remat::Auto => Keep::Within(opts.budget),
        };
        let run_opts = RunOptions {
            cond: &opts.cond,
            seed: opts.seed,
            first_sample: opts.first_sample,
            keep,
            trajectory: opts.trajectory,
        };
        let done = run(&self.plan, net.as_ref(), host, &x_t, &run_opts, on_step)?;
        let Some(kept) = done.kept else {
            return Ok(Solution { x: done.x, trajectory: done.trajectory, nfe: done.nfe });
        };
        let mut ends = vec![self.plan.result];
        let mut outputs = vec![done.x];
        if opts.trajectory {
            ends.extend(&self.plan.trajectory);
            outputs.extend(done.trajectory);
        }
        // the tape knows tensors: the parts of all states, one after the other
        let (parts, like) = (z.parts().len(), z.detach());
        let joined: Vec<Tensor> = outputs.iter().flat_map(State::values).cloned().collect();
        let (this, net, z) = (self.clone(), net.clone(), z.detach());
        let pullback = move |host: &dyn Host, cots: &[Option<Tensor>]| {
            let mut outs: Vec<(usize, State)> = vec![];
            for (k, cots) in ends.iter().zip(cots.chunks(parts)) {
                if cots.iter().any(Option::is_some) {
                    let each = cots.iter().zip(z.values()).map(|(c, z)| match c {
                        Some(c) => Ok(c.clone()),
                        None => z.zeros_like(),
                    });
                    outs.push((*k, z.with_values(each.collect::<candle_core::Result<Vec<_>>>()?)));
                }
            }
            let mut back = reverse::pull_back(&this.plan, net.as_ref(), host, &kept, &outs)?;
            if let (Some(s), Some(x)) = (&scale, &mut back.x) {
                if s.is_tracked() {
                    let bar: f64 = Scalar::read(x.dot(&z)?)?.iter().sum();
                    back.seeds.push((s.clone(), bar));
                }
                *x = x.map(|t| Ok(t.affine(s.v(), 0.0)?))?;
            }
            let mut grads: Vec<Option<Tensor>> = match &back.x {
                Some(x) => x.values().cloned().map(Some).collect(),
                None => vec![None; parts],
            };
            grads.extend(this.input_grads(&back.seeds)?);
            Ok(grads)
        };
        let out = grad::record(joined, &inputs, Box::new(pullback))?;
        let mut states = out.chunks(parts).map(|values| like.with_values(values.iter().cloned()));
        let x = states.next().ok_or_else(|| Error::new(Kind::Internal, "record returned nothing"))?;
        Ok(Solution { x, trajectory: states.collect(), nfe: done.nfe })
    }

    /// Splits the rows of `x_t`: samples do not depend on one another, so only the time it takes changes.
    fn in_batches(&self, net: &DynDenoiser, host: &dyn Host, x_t: &State, opts: &SolveOptions) -> Result<Solution> {
        let rows = x_t.batch();
        let mut parts: Vec<Solution> = vec![];
        let mut progress = host.progress("sampling", rows as u64);
        for start in (0..rows).step_by(opts.batch) {
            let len = opts.batch.min(rows - start);
            let mut part = opts.clone();
            part.cond = opts.cond.narrow(start, len)?;
            part.first_sample = opts.first_sample + start as u64;
            part.batch = usize::MAX;
            parts.push(self.solve(net, host, &x_t.narrow(start, len)?, &part, None)?);
            progress.advance(len as u64);
        }
        let points = parts.first().map_or(0, |p| p.trajectory.len());
        let point = |i: usize| State::cat(&parts.iter().map(|p| &p.trajectory[i]).collect::<Vec<_>>());
        let trajectory = (0..points).map(point).collect::<Result<_>>()?;
        let x = State::cat(&parts.iter().map(|p| &p.x).collect::<Vec<_>>())?;
        Ok(Solution { x, trajectory, nfe: self.plan.nfe() })
    }
}
