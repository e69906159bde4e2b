//! The KLUB of AYS (Sabour et al., 2024) for Gaussian data in closed form: what an optimizer over a network is tested by, and the
//! density from which AYS draws the times at which it asks the network.
use super::heuristics::check_count;
use super::minimize::{log_gaps, minimize, points};
use super::{Interval, Schedule};
use crate::noise::Noise;
use crate::real::{Real, host_values};
use crate::{Error, Result};

/// The share of one step from σ = `hi` to `lo`, per dimension, for data of standard deviation `s`:
/// ∫ s⁴ [1/(s² + t²) − 1/(s² + hi²)] t⁻³ dt.
fn piece(s: f64, hi: &Real, lo: &Real) -> Real {
    let s2 = s * s;
    // ∫ dt / (t³ (s² + t²)), without the constant
    let whole = |t: &Real| {
        let t2 = t.square();
        (1.0 + s2 / &t2).ln() * (0.5 / (s2 * s2)) - 0.5 / (t2 * s2)
    };
    let constant = (0.5 / lo.square() - 0.5 / hi.square()) / (hi.square() + s2);
    (whole(hi) - whole(lo) - constant) * (s2 * s2)
}

fn check(s: f64) -> Result<()> {
    match s > 0.0 && s.is_finite() {
        true => Ok(()),
        false => Err(Error::value(format!("klub: the standard deviation {s} of the data must be above 0"))),
    }
}

/// The KLUB per dimension of Gaussian data of standard deviation `std` for noise levels `sigmas` (σ/α, descending, the last above 0).
pub fn klub(sigmas: &[f64], std: f64) -> Result<f64> {
    check(std)?;
    if sigmas.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
        return Err(Error::value("klub: the bound is infinite where a schedule reaches σ = 0").hint("end above 0"));
    }
    Ok(sigmas.windows(2).map(|w| piece(std, &w[0].into(), &w[1].into()).v()).sum())
}

/// The KLUB of a schedule.
pub fn klub_of(schedule: &Schedule, std: f64) -> Result<f64> {
    klub(&host_values(&schedule.sigmas()?)?, std)
}

/// The schedule with the least KLUB for Gaussian data of standard deviation `std`.
pub fn klub_optimum(noise: &Noise, n: usize, std: f64, interval: Interval) -> Result<Schedule> {
    check(std)?;
    check_count(n)?;
    let (from, to) = interval.resolve(noise.as_ref())?;
    let [hi, lo] = [from, to].map(|t| noise.ve_sigma(&t.into()).v());
    if !(lo > 0.0 && hi.is_finite()) {
        let m = format!("schedule::klub: the noise levels run from {hi} to {lo}, where the bound is infinite");
        return Err(Error::value(m).hint("give ends with `from` and `to` at which σ/α is finite and above 0"));
    }
    // even in ln σ below the data's own scale, above which steps cost nothing
    let upper = hi.min(std).max(lo * 1.5).min(hi);
    let start: Vec<f64> = (0..=n)
        .map(|i| match i {
            0 => hi.ln(),
            _ => upper.ln() + (lo.ln() - upper.ln()) * (i as f64 / n as f64),
        })
        .collect();
    let objective = |xi: &[Real]| {
        let sigma: Vec<Real> = points(hi.ln(), lo.ln(), xi).iter().map(Real::exp).collect();
        sigma.windows(2).map(|w| piece(std, &w[0], &w[1])).sum()
    };
    let (xi, _) = minimize(objective, log_gaps(&start))?;
    let xi: Vec<Real> = xi.into_iter().map(Real::from).collect();
    let found = points(hi.ln(), lo.ln(), &xi);
    let inner = found[1..n].iter().map(|l| noise.inverse_lambda(&-l).v());
    let t: Vec<f64> = [from].into_iter().chain(inner).chain([to]).collect();
    Schedule::from_steps(noise.clone(), &t, "klub")
}

/// Noise levels in [lo, hi] at the quantiles `u` of the density t⁻³ (1/(t² + c²) − 1/(hi² + c²)), and for each the factor by which a
/// mean of ‖D(x_t, t) − D(x_hi, hi)‖² becomes the step's share of the KLUB.
pub fn klub_quantiles(hi: f64, lo: f64, u: &[f64], c: f64) -> Result<(Vec<f64>, Vec<f64>)> {
    check(c)?;
    if !(lo > 0.0 && lo < hi && hi.is_finite()) {
        return Err(Error::value(format!("klub: noise levels must descend above 0, not from {hi} to {lo}")));
    }
    if let Some(u) = u.iter().find(|u| !(0.0..=1.0).contains(*u)) {
        return Err(Error::value(format!("klub: quantiles are in [0, 1], not {u}")));
    }
    let below = |t: f64| piece_to(c, hi, lo, t);
    let all = below(hi);
    let at = |u: f64| {
        // the density vanishes at the upper end
        if u >= 1.0 {
            return hi;
        }
        let (mut a, mut b) = (lo.ln(), hi.ln());
        for _ in 0..100 {
            let m = 0.5 * (a + b);
            if below(m.exp()) < u * all { a = m } else { b = m }
        }
        (0.5 * (a + b)).exp().clamp(lo, hi)
    };
    let t: Vec<f64> = u.iter().map(|u| at(*u)).collect();
    let c2 = c * c;
    let factor = |t: &f64| {
        let density = (hi - t) * (hi + t) / ((t * t + c2) * (hi * hi + c2));
        if density > 0.0 { all / (c2 * c2 * density) } else { 0.0 }
    };
    let w = t.iter().map(factor).collect();
    Ok((t, w))
}

/// The part of [`piece`] between `lo` and `t` ≤ hi.
fn piece_to(s: f64, hi: f64, lo: f64, t: f64) -> f64 {
    let s2 = s * s;
    let whole = |t: f64| (1.0 + s2 / (t * t)).ln() * (0.5 / (s2 * s2)) - 0.5 / (t * t * s2);
    let constant = (0.5 / (lo * lo) - 0.5 / (t * t)) / (hi * hi + s2);
    (whole(t) - whole(lo) - constant) * (s2 * s2)
}
