//! A schedule's construction with its checks, its views, and how it prints.
use super::Schedule;
use crate::noise::{Noise, check_time};
use crate::real::{Real, host_values, through_tensors};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::fmt;

/// Fails unless `t` is finite, strictly descending, within the noise schedule's times, and has at least two entries.
fn check_steps(noise: &Noise, t: &[f64]) -> Result<()> {
    if t.len() < 2 {
        let e = Error::value(format!("a schedule needs at least 2 times (N + 1 for N steps), not {}", t.len()));
        return Err(e.hint("the first is where sampling starts, the last where it ends"));
    }
    for (i, v) in t.iter().enumerate() {
        check_time(noise.as_ref(), *v).map_err(|e| e.context(format!("step t[{i}]")))?;
    }
    match t.windows(2).position(|w| w[1] >= w[0]) {
        None => Ok(()),
        Some(i) => {
            let e = Error::value(format!("steps must descend, but t[{i}] = {} is followed by {}", t[i], t[i + 1]));
            Err(e.hint("sampling goes from the most noise to the least: t[0] is the largest"))
        }
    }
}

/// A 1-D tensor of times as f64 on the CPU (still tracked if it was).
fn as_times(what: &str, t: &Tensor) -> Result<Tensor> {
    if t.rank() != 1 {
        return Err(Error::shape(format!("{what} must have one dimension, not shape {:?}", t.dims()), &[t.dims()]));
    }
    Ok(t.to_dtype(DType::F64)?.to_device(&Device::Cpu)?)
}

impl Schedule {
    /// A schedule with the steps `t`, [N+1] of any dtype and device. Fails unless they are finite, strictly
    /// descending and within the noise schedule's times.
    pub fn new(noise: Noise, t: &Tensor, name: impl Into<String>) -> Result<Schedule> {
        let t = as_times("a schedule's steps", t)?;
        check_steps(&noise, &host_values(&t)?)?;
        Ok(Schedule { noise, t, t_eval: None, name: name.into(), record: Default::default() })
    }
    /// A schedule with the given numbers as steps; checked as in [`Schedule::new`].
    pub fn from_steps(noise: Noise, t: &[f64], name: impl Into<String>) -> Result<Schedule> {
        Schedule::new(noise, &Tensor::new(t, &Device::Cpu)?, name)
    }
    /// The same steps with evaluation times [N+1] (`None`: the steps themselves). Each must be a time of the noise
    /// schedule; they need not descend.
    pub fn with_eval(mut self, t_eval: Option<&Tensor>) -> Result<Schedule> {
        self.t_eval = None;
        if let Some(e) = t_eval {
            let e = as_times("evaluation times", e)?;
            if e.dims() != self.t.dims() {
                let m = format!("{} evaluation times for {} steps t", e.dims()[0], self.t.dims()[0]);
                return Err(Error::shape(m, &[e.dims(), self.t.dims()]).hint("give one for each entry of t"));
            }
            for (i, v) in host_values(&e)?.into_iter().enumerate() {
                check_time(self.noise.as_ref(), v).map_err(|e| e.context(format!("evaluation time t_eval[{i}]")))?;
            }
            self.t_eval = Some(e);
        }
        Ok(self)
    }
    /// The same schedule with a record of what made it, which its file will carry.
    pub fn with_record(mut self, record: serde_json::Map<String, serde_json::Value>) -> Schedule {
        self.record = std::rc::Rc::new(record);
        self
    }
    /// The same schedule under another name.
    pub fn with_name(mut self, name: impl Into<String>) -> Schedule {
        self.name = name.into();
        self
    }
    /// The number of steps N (one less than the number of times): the NFE of a multistep solver.
    pub fn nfe(&self) -> usize {
        self.t.elem_count().saturating_sub(1)
    }
    /// The steps as numbers, N+1.
    pub fn times(&self) -> Result<Vec<f64>> {
        host_values(&self.t)
    }
    /// The evaluation times as numbers, N+1; the steps themselves where none are decoupled.
    pub fn eval_times(&self) -> Result<Vec<f64>> {
        host_values(self.t_eval.as_ref().unwrap_or(&self.t))
    }
    /// Entries `i` to `j` of the schedule, both included: a partial interval with j − i steps.
    pub fn slice(&self, i: usize, j: usize) -> Result<Schedule> {
        if i >= j || j > self.nfe() {
            let e = Error::value(format!("slice({i}, {j}) of a schedule with entries 0 to {}", self.nfe()));
            return Err(e.hint(format!("give 0 ≤ i < j ≤ {}", self.nfe())));
        }
        let cut = |t: &Tensor| t.narrow(0, i, j - i + 1);
        let t_eval = self.t_eval.as_ref().map(cut).transpose()?;
        Ok(Schedule {
            noise: self.noise.clone(),
            t: cut(&self.t)?,
            t_eval,
            name: self.name.clone(),
            record: Default::default(),
        })
    }
    /// A function of the noise schedule at each step, [N+1], tracked if the steps are.
    fn at_steps(&self, f: impl Fn(&Real) -> Real) -> Result<Tensor> {
        let shape = self.t.shape().clone();
        let mut out =
            through_tensors(std::slice::from_ref(&self.t), |x| Ok(vec![(x.iter().flatten().map(f).collect(), shape)]))?;
        Ok(out.remove(0))
    }
    /// The VE noise levels σ/α at the steps, [N+1], tracked if the steps are.
    pub fn sigmas(&self) -> Result<Tensor> {
        self.at_steps(|t| self.noise.ve_sigma(t))
    }
    /// λ = ln α − ln σ at the steps, [N+1], tracked if the steps are.
    pub fn lambdas(&self) -> Result<Tensor> {
        self.at_steps(|t| self.noise.lambda(t))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noise = self.noise.name();
        // the name may come from a file
        let name = crate::access::clean(&self.name);
        let (Ok(t), Ok(eval)) = (self.times(), self.eval_times()) else {
            return write!(f, "schedule `{}` in the time of {noise}, on a device that cannot be read", name);
        };
        let plural = if self.nfe() == 1 { "" } else { "s" };
        write!(
            f,
            "schedule `{}`: {} step{plural} in the time of {noise}\n   i          t      sigma    lambda",
            name,
            self.nfe()
        )?;
        if self.t_eval.is_some() {
            write!(f, "     t_eval")?;
        }
        for (i, (t, e)) in t.iter().zip(&eval).enumerate() {
            // a long schedule shows its ends
            if self.nfe() > 40 && (10..self.nfe() - 9).contains(&i) {
                if i == 10 {
                    write!(f, "\n   …")?;
                }
                continue;
            }
            let r = Real::from(*t);
            let (sigma, lambda) = (self.noise.ve_sigma(&r).v(), self.noise.lambda(&r).v());
            write!(f, "\n{i:4} {} {} {lambda:9.4}", number(*t), number(sigma))?;
            if self.t_eval.is_some() {
                write!(f, " {}", number(*e))?;
            }
        }
        Ok(())
    }
}

/// Six significant digits in ten columns.
fn number(x: f64) -> String {
    match x != 0.0 && x.is_finite() && !(1e-4..1e6).contains(&x.abs()) {
        true => format!("{x:10.3e}"),
        false => {
            let digits = if x == 0.0 || !x.is_finite() { 0 } else { x.abs().log10().floor() as i32 };
            format!("{x:10.*}", (5 - digits).clamp(0, 8) as usize)
        }
    }
}
