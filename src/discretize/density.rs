//! A density over λ → steps: quantiles. TORS, SharpEuler, SDM and CRS are of this form, each with a density of its own.
use super::heuristics::check_count;
use super::{Interval, Schedule, Space};
use crate::noise::Noise;
use crate::{Error, Result};

/// Points at which a density that is a function is asked.
pub const POINTS: usize = 513;

/// The steps at even quantiles of a density over λ, given by its values at points that ascend and reach from one end of the interval to
/// the other; between points it is linear. A factor does not matter.
pub fn from_density(noise: &Noise, n: usize, lambda: &[f64], density: &[f64], interval: Interval) -> Result<Schedule> {
    check_count(n)?;
    let (from, to) = interval.resolve(noise.as_ref())?;
    let (a, b) = Space::Lambda.ends("schedule::from_density", noise.as_ref(), from, to)?;
    if lambda.len() != density.len() || lambda.len() < 2 {
        let m = format!("schedule::from_density: {} values at {} points", density.len(), lambda.len());
        return Err(Error::value(m).hint("give one value for each point, and at least two"));
    }
    if let Some(i) = density.iter().position(|d| !(*d >= 0.0 && d.is_finite())) {
        let m = format!("schedule::from_density: the density at λ = {} is {}", lambda[i], density[i]);
        return Err(Error::value(m).hint("a density is finite and at least 0"));
    }
    if lambda.iter().any(|l| l.is_nan()) || lambda.windows(2).any(|w| w[1] <= w[0]) {
        return Err(Error::value("schedule::from_density: the points must ascend in λ"));
    }
    let slack = 1e-9 * (b - a);
    if lambda[0] > a + slack || lambda[lambda.len() - 1] < b - slack {
        let m =
            format!("schedule::from_density: the points cover λ from {} to {}", lambda[0], lambda[lambda.len() - 1]);
        return Err(Error::value(m).hint(format!("they must cover {a} to {b}")));
    }
    // cumulated from a to each point
    let at = |l: f64| {
        let k = lambda.partition_point(|x| *x <= l).clamp(1, lambda.len() - 1);
        let u = (l - lambda[k - 1]) / (lambda[k] - lambda[k - 1]);
        density[k - 1] + (density[k] - density[k - 1]) * u.clamp(0.0, 1.0)
    };
    let mut x = vec![a];
    x.extend(lambda.iter().copied().filter(|l| *l > a && *l < b));
    x.push(b);
    let y: Vec<f64> = x.iter().map(|l| at(*l)).collect();
    let mut mass = vec![0.0];
    for i in 1..x.len() {
        mass.push(mass[i - 1] + 0.5 * (y[i] + y[i - 1]) * (x[i] - x[i - 1]));
    }
    let all = mass[mass.len() - 1];
    if all <= 0.0 {
        return Err(Error::value("schedule::from_density: the density is 0 over the whole interval"));
    }
    let quantile = |q: f64| {
        let k = mass.partition_point(|m| *m < q).clamp(1, x.len() - 1);
        let (h, rest) = (x[k] - x[k - 1], q - mass[k - 1]);
        let (p, slope) = (y[k - 1], (y[k] - y[k - 1]) / h);
        // p u + slope u²/2 = rest, in the form that also holds for slope → 0
        let root = (p * p + 2.0 * slope * rest).max(0.0).sqrt();
        x[k - 1] + if p + root > 0.0 { (2.0 * rest / (p + root)).clamp(0.0, h) } else { 0.0 }
    };
    let inner = (1..n).map(|i| noise.inverse_lambda(&quantile(all * i as f64 / n as f64).into()).v());
    let t: Vec<f64> = [from].into_iter().chain(inner).chain([to]).collect();
    Schedule::from_steps(noise.clone(), &t, "density")
}
