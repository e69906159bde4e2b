//! τ_ξ: a learnable, always monotone schedule, the cumulative softmax of parameters ξ; and its exact inverse.
//!
//! With w = softmax(ξ_1, …, ξ_N), the steps divide the interval between the ends in the proportions w: in time, the gap
//! t_i → t_{i+1} is w_{N−i} of the whole; in λ, it is w_{i+1}. ξ_0 is inert in both, as in the published code (the
//! paper writes the indices differently; the family of schedules is the same). ξᶜ moves the evaluation times against
//! the steps in the same coordinate, within a bound that keeps them in order; the ends stay.
use super::{Interval, Schedule};
use crate::noise::{Noise, NoiseSchedule};
use crate::real::{Real, host_values, through_tensors};
use crate::{Error, Result};
use candle_core::{Device, Shape, Tensor};

/// The coordinate in which τ_ξ divides the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// λ = ln α − ln σ.
    Lambda,
    /// t.
    Time,
}

impl Space {
    /// What the published experiments use: time for latent models (discrete VP) and for flows, λ otherwise.
    pub fn default_for(noise: &dyn NoiseSchedule) -> Space {
        match noise.name() {
            "vp_discrete" | "flow" => Space::Time,
            _ => Space::Lambda,
        }
    }
    /// The space named `"lambda"` or `"time"`.
    pub fn named(name: &str) -> Result<Space> {
        match name {
            "lambda" => Ok(Space::Lambda),
            "time" => Ok(Space::Time),
            _ => Err(Error::unknown("space", name, ["lambda", "time"])),
        }
    }
    /// The coordinate of time `t`.
    pub(super) fn of(self, noise: &dyn NoiseSchedule, t: &Real) -> Real {
        match self {
            Space::Lambda => noise.lambda(t),
            Space::Time => t.clone(),
        }
    }
    /// The time at coordinate `x`.
    pub(super) fn time(self, noise: &dyn NoiseSchedule, x: &Real) -> Real {
        match self {
            Space::Lambda => noise.inverse_lambda(x),
            Space::Time => x.clone(),
        }
    }
    /// The index into w = softmax(ξ_1…ξ_N) (from 0) of the gap i → i+1.
    fn weight_of_gap(self, n: usize, i: usize) -> usize {
        match self {
            Space::Lambda => i,
            Space::Time => n - 1 - i,
        }
    }
}

/// From what the bound on ξᶜ is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compat {
    /// The smallest gap between neighbouring steps.
    #[default]
    Exact,
    /// In λ, the smallest difference between neighbouring raw parameters ξ, a slip of the published code: zero while
    /// ξ is constant, and no bound on the order of the evaluation times. In time, as `Exact`.
    Reference,
}

/// Options of [`tau`].
#[derive(Debug, Clone, PartialEq)]
pub struct TauOptions {
    /// The coordinate that is divided; [`Space::default_for`] the noise schedule if `None`.
    pub space: Option<Space>,
    /// ξᶜ is limited to ± this share of the smallest gap, in [0, 1].
    pub win_rate: f64,
    /// From what the bound on ξᶜ is taken.
    pub compat: Compat,
    /// The ends, when not T and t_min.
    pub interval: Interval,
}

impl Default for TauOptions {
    fn default() -> Self {
        TauOptions { space: None, win_rate: 0.5, compat: Compat::Exact, interval: Interval::default() }
    }
}

/// Fails unless `x` is [N+1] with N ≥ 1 and finite.
fn check_parameters(what: &str, x: &Tensor) -> Result<()> {
    if x.rank() != 1 || x.elem_count() < 2 {
        let e =
            Error::shape(format!("tau: {what} must have shape [N+1] for N ≥ 1 steps, not {:?}", x.dims()), &[x.dims()]);
        return Err(e.hint("for example zeros([7]) for 6 steps"));
    }
    match host_values(x)?.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => {
            let e = Error::value(format!("tau: {what}[{i}] is not finite"));
            Err(e.hint("a step of the optimizer may have diverged: lower its learning rate, or clip the gradient"))
        }
    }
}

/// The schedule of parameters ξ [N+1], and with ξᶜ [N+1] its decoupled evaluation times; both tracked where ξ or ξᶜ are,
/// with exact gradients (also through the bound on ξᶜ). Fails where ξ is so extreme that two steps coincide in f64.
pub fn tau(noise: &Noise, xi: &Tensor, xi_c: Option<&Tensor>, opts: &TauOptions) -> Result<Schedule> {
    check_parameters("ξ", xi)?;
    if let Some(c) = xi_c {
        check_parameters("ξᶜ", c)?;
        if c.dims() != xi.dims() {
            return Err(Error::shape("tau: ξ and ξᶜ must have the same shape", &[xi.dims(), c.dims()]));
        }
    }
    if !(0.0..=1.0).contains(&opts.win_rate) {
        return Err(Error::value(format!("tau: `win_rate` = {} must be in [0, 1]", opts.win_rate)));
    }
    let space = opts.space.unwrap_or_else(|| Space::default_for(noise.as_ref()));
    let (from, to) = opts.interval.resolve(noise.as_ref())?;
    let ends = space.ends("tau in λ", noise.as_ref(), from, to).map_err(|e| match noise.name() {
        "flow" => e.hint("use #{ space: \"time\" }, or ends inside (0, 1) with `from` and `to`"),
        _ => e,
    })?;
    let inputs: Vec<Tensor> = [Some(xi), xi_c].into_iter().flatten().cloned().collect();
    let shape: Shape = xi.shape().clone();
    let mut out = through_tensors(&inputs, |p| {
        let x = steps(space, ends, &p[0]);
        if smallest_gap(&x).v() < SMALLEST_SHARE * (ends.0 - ends.1).abs() {
            return Err(extreme());
        }
        // the ends are those that were asked for, to the last bit
        let pinned = |x: &[Real]| -> Vec<Real> {
            let n = x.len() - 1;
            let inner = x[1..n].iter().map(|x| space.time(noise.as_ref(), x));
            [from.into()].into_iter().chain(inner).chain([to.into()]).collect()
        };
        let mut out = vec![(pinned(&x), shape.clone())];
        if let Some(c) = p.get(1) {
            let bound = match (space, opts.compat) {
                (Space::Lambda, Compat::Reference) => smallest_gap(&p[0]),
                _ => smallest_gap(&x),
            } * opts.win_rate;
            // a number there, through which nothing is learned
            let bound = if opts.compat == Compat::Reference { bound.v().into() } else { bound };
            out.push((pinned(&shifted(&x, c, &bound)), shape.clone()));
        }
        Ok(out)
    })?;
    let t_eval = if xi_c.is_some() { out.pop() } else { None };
    // possible where the interval itself is a few roundings wide
    if host_values(&out[0].detach())?.windows(2).any(|w| w[1] >= w[0]) {
        return Err(extreme());
    }
    let schedule = Schedule::new(noise.clone(), &out[0], "tau")?;
    schedule.with_eval(t_eval.as_ref()).map_err(|e| match opts.compat {
        Compat::Reference => e.hint("only compat: \"reference\" lets evaluation times leave the interval"),
        Compat::Exact => e,
    })
}

/// A gap with a smaller share of the whole is lost in the rounding of the steps beside it.
const SMALLEST_SHARE: f64 = 1e-14;

fn extreme() -> Error {
    let e = Error::value("tau: ξ is so extreme that two steps coincide");
    e.hint("keep all of ξ within about 30 of its largest entry: lower the learning rate, or clip the gradient")
}

/// The N+1 coordinates of the steps. Summed from the last step on: there time steps are smallest, and precise so.
fn steps(space: Space, (a, b): (f64, f64), xi: &[Real]) -> Vec<Real> {
    let n = xi.len() - 1;
    let largest = xi[1..].iter().map(Real::v).fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<Real> = xi[1..].iter().map(|x| (x - largest).exp()).collect();
    // the same order of summation as below: the tail of all gaps is the whole, exactly
    let mut tail = Real::from(0.0);
    let mut tails = vec![tail.clone()];
    for i in (0..n).rev() {
        tail = tail + &e[space.weight_of_gap(n, i)];
        tails.push(tail.clone());
    }
    let per_weight = (a - b) / tail;
    tails.iter().rev().map(|t| t * &per_weight + b).collect()
}

/// The smallest |x_i − x_{i+1}|; among equals, the first.
fn smallest_gap(x: &[Real]) -> Real {
    let mut best: Option<Real> = None;
    for w in x.windows(2) {
        let d = &w[0] - &w[1];
        let d = if d.v() < 0.0 { -d } else { d };
        if best.as_ref().is_none_or(|b| d.v() < b.v()) {
            best = Some(d);
        }
    }
    best.unwrap_or(Real::from(0.0))
}

/// x + ξᶜ limited to ± `bound`, the ends unmoved.
fn shifted(x: &[Real], c: &[Real], bound: &Real) -> Vec<Real> {
    let n = x.len() - 1;
    let limited = |c: &Real| match c.v() {
        v if v > bound.v() => bound.clone(),
        v if v < -bound.v() => -bound,
        _ => c.clone(),
    };
    (0..=n).map(|i| if i == 0 || i == n { x[i].clone() } else { &x[i] + limited(&c[i]) }).collect()
}

/// The coordinates of times.
fn coordinates(noise: &dyn NoiseSchedule, space: Space, t: &[f64]) -> Result<Vec<f64>> {
    space.ends("tau_inverse in λ", noise, t[0], t[t.len() - 1])?;
    Ok(t.iter().map(|t| space.of(noise, &Real::from(*t)).v()).collect())
}

/// The ξ [N+1] for which [`tau`] over the schedule's own ends gives its steps: logarithms of the gaps. Every
/// schedule has one; it is unique up to a constant and to the inert ξ_0, fixed here by mean 0 over ξ_1…ξ_N and ξ_0 = 0. Not
/// tracked.
pub fn tau_inverse(schedule: &Schedule, space: Option<Space>) -> Result<Tensor> {
    let noise = schedule.noise.as_ref();
    let space = space.unwrap_or_else(|| Space::default_for(noise));
    let x = coordinates(noise, space, &checked_times(schedule)?)?;
    let n = x.len() - 1;
    let mut xi = vec![0.0; n + 1];
    for i in 0..n {
        xi[space.weight_of_gap(n, i) + 1] = (x[i + 1] - x[i]).abs().ln();
    }
    let mean = xi[1..].iter().sum::<f64>() / n as f64;
    xi[1..].iter_mut().for_each(|v| *v -= mean);
    Ok(Tensor::new(xi, &Device::Cpu)?)
}

/// The ξᶜ [N+1] for which [`tau`] gives the schedule's evaluation times: their distance from the steps in the
/// coordinate, zero at both ends (which τ_ξ cannot move) and where none are decoupled. Exact for shifts within the bound. Not tracked.
pub fn tau_inverse_eval(schedule: &Schedule, space: Option<Space>) -> Result<Tensor> {
    let noise = schedule.noise.as_ref();
    let space = space.unwrap_or_else(|| Space::default_for(noise));
    let t = checked_times(schedule)?;
    let mut c = vec![0.0; t.len()];
    if schedule.t_eval.is_some() {
        let inner = 1..t.len() - 1;
        for (i, e) in schedule.eval_times()?.iter().enumerate().filter(|(i, _)| inner.contains(i)) {
            let [e, t] = [*e, t[i]].map(|t| space.of(noise, &Real::from(t)).v());
            c[i] = e - t;
        }
    }
    Ok(Tensor::new(c, &Device::Cpu)?)
}

/// The steps of a schedule, whose fields are public: checked again before they are indexed.
fn checked_times(schedule: &Schedule) -> Result<Vec<f64>> {
    Schedule::new(schedule.noise.clone(), &schedule.t, "")?.times()
}
