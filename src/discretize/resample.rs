//! A schedule with another number of steps: by interpolation as tools do it, or through the smooth density of its ξ.
use super::heuristics::check_count;
use super::minimize::log_gaps;
use super::{Schedule, Space};
use crate::real::Real;
use crate::{Error, Result};

/// How a schedule is resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resampling {
    /// Linear in ln σ between neighbouring steps, as tools do with AYS's tables.
    #[default]
    LogLinear,
    /// Through τ_ξ: ξ, the logarithms of the gaps, is interpolated over the steps.
    Tau,
}

/// The coordinate at fractional index `u` of `x`.
fn interpolated(x: &[f64], u: f64) -> f64 {
    let k = (u.floor() as usize).min(x.len() - 2);
    x[k] + (x[k + 1] - x[k]) * (u - k as f64)
}

/// The values at `n` + 1 even indices of a list whose logarithms are taken to be linear between its entries. A last value of 0 stays,
/// and what is before it is interpolated, as ComfyUI does with its tables; so does an end beyond which λ is infinite.
pub fn log_linear(values: &[f64], n: usize) -> Vec<f64> {
    let m = values.len() - 1;
    if n == m {
        return values.to_vec();
    }
    let log: Vec<f64> = values.iter().map(|v| v.ln()).collect();
    // a step to 0 keeps its place at the end
    let zero = values[m] == 0.0;
    let (m, n_inner) = if zero { (m - 1, n - 1) } else { (m, n) };
    let mut out: Vec<f64> = (0..=n_inner)
        .map(|i| match i {
            0 => values[0],
            i if i == n_inner => values[m],
            i if m > 0 => interpolated(&log[..=m], i as f64 * m as f64 / n_inner as f64).exp(),
            _ => values[0],
        })
        .collect();
    if zero {
        out.push(0.0);
    }
    out
}

impl Schedule {
    /// The schedule with `n` steps between the same ends; evaluation times go with their steps.
    ///
    /// # Errors
    /// n = 0; a list that ends at σ = 0 in fewer than two steps; ξ of an interval in which λ is infinite.
    pub fn resample(&self, n: usize, how: Resampling, space: Option<Space>) -> Result<Schedule> {
        check_count(n)?;
        let noise = self.noise.as_ref();
        let t = self.times()?;
        let space = space.unwrap_or(Space::Lambda);
        let of = |t: &f64| space.of(noise, &Real::from(*t)).v();
        let mut x: Vec<f64> = t.iter().map(of).collect();
        let m = t.len() - 1;
        // what is at an end without noise (or without signal) stays there
        let keep_last = usize::from(!x[m].is_finite());
        let keep_first = usize::from(!x[0].is_finite());
        let kept = keep_last + keep_first;
        if kept > 0 && (n < 1 + kept || m < 1 + kept) {
            let m = format!("resample: {n} steps are too few for a schedule with an end where λ is infinite");
            return Err(Error::value(m).hint("slice the end off, or ask for more steps"));
        }
        x.truncate(m + 1 - keep_last);
        x.drain(..keep_first);
        let (from, to) = (x.len() - 1, n - kept);
        let new: Vec<f64> = match how {
            Resampling::LogLinear => (0..=to).map(|i| interpolated(&x, i as f64 * from as f64 / to as f64)).collect(),
            Resampling::Tau => by_gaps(&x, to),
        };
        let inner = |i: usize| space.time(noise, &new[i].into()).v();
        let mut steps: Vec<f64> = (0..=to).map(inner).collect();
        // the ends are those that it had, to the last bit
        steps[0] = t[keep_first];
        steps[to] = t[m - keep_last];
        if keep_first == 1 {
            steps.insert(0, t[0]);
        }
        if keep_last == 1 {
            steps.push(t[m]);
        }
        let out = Schedule::from_steps(self.noise.clone(), &steps, self.name.clone())?;
        if self.t_eval.is_none() {
            return Ok(out);
        }
        self.with_shifts(out, kept)
    }
    /// Evaluation times of `out` that are as far from its steps as this schedule's are from its own.
    fn with_shifts(&self, out: Schedule, kept: usize) -> Result<Schedule> {
        let (t, e, new) = (self.times()?, self.eval_times()?, out.times()?);
        let noise = self.noise.as_ref();
        let level = |t: f64| noise.ve_sigma(&t.into()).v().ln();
        // in ln σ, where every step has one; nowhere else
        let shift: Vec<f64> =
            t.iter().zip(&e).map(|(t, e)| level(*e) - level(*t)).map(|d| if d.is_finite() { d } else { 0.0 }).collect();
        let (m, n) = (t.len() - 1, new.len() - 1);
        let at = |(i, t): (usize, &f64)| match kept == 0 || level(*t).is_finite() {
            true => {
                let d = interpolated(&shift, i as f64 * m as f64 / n as f64);
                let moved = noise.t_of_sigma(&(level(*t) + d).exp().into()).v();
                if d == 0.0 { *t } else { moved.clamp(noise.t_min(), noise.t_max()) }
            }
            false => *t,
        };
        let eval: Vec<f64> = new.iter().enumerate().map(at).collect();
        out.with_eval(Some(&candle_core::Tensor::new(eval, &candle_core::Device::Cpu)?))
    }
}

/// `n` + 1 coordinates from x_0 to x_m whose log gaps are those of `x`, interpolated at the middles of the steps.
fn by_gaps(x: &[f64], n: usize) -> Vec<f64> {
    let m = x.len() - 1;
    let xi = log_gaps(x);
    let at = |j: usize| {
        let u = ((j as f64 + 0.5) / n as f64 * m as f64 - 0.5).clamp(0.0, (m - 1) as f64);
        if m == 1 { xi[0] } else { interpolated(&xi, u) }
    };
    let gaps: Vec<f64> = (0..n).map(|j| at(j).exp()).collect();
    let whole: f64 = gaps.iter().sum();
    let mut sum = 0.0;
    let mut out = vec![x[0]];
    for g in gaps {
        sum += g;
        out.push(x[0] + (x[m] - x[0]) * (sum / whole));
    }
    out
}
