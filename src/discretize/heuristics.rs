//! Heuristic schedules: uniform, polynomial, EDM, logSNR and cosine, and a function of one's own.
use super::{Schedule, Space};
use crate::noise::{Noise, NoiseSchedule, check_time};
use crate::real::Real;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// The baselines of the paper's tables (appendix D.2), by the names that [`Heuristic::named`] takes.
pub const BASELINES: [&str; 4] = ["uniform", "quadratic", "edm", "logsnr"];

/// A rule that spreads N+1 times over an interval: even steps u = 0, 1/N, …, 1 in some coordinate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Heuristic {
    /// t_i = to + (1 − i/N)^ρ (from − to), eq. 10 of the paper: ρ = 1 is uniform, 2 quadratic.
    Polynomial {
        /// ρ > 0.
        rho: f64,
    },
    /// Even in t^(1/ρ), or in σ^(1/ρ) of the VE noise level (eq. 11, Karras et al., 2022), which is the same on EDM's own schedule.
    Edm {
        /// ρ > 0; 7 in the literature.
        rho: f64,
        /// Whether σ is spread instead of t. The published LD3 numbers were made with t.
        in_sigma: bool,
    },
    /// Even in λ (eq. 12).
    LogSnr,
    /// Even in the angle arctan(σ/α): the noise levels of a cosine schedule (α = cos φ, σ = sin φ) at even times.
    Cosine,
}

impl Heuristic {
    /// Every name that [`Heuristic::named`] takes.
    pub const NAMES: [&'static str; 6] = ["uniform", "quadratic", "polynomial", "edm", "logsnr", "cosine"];
    /// ρ of `"polynomial"` where none is given.
    pub const POLYNOMIAL_RHO: f64 = 2.0;
    /// ρ of `"edm"` where none is given.
    pub const EDM_RHO: f64 = 7.0;

    /// The heuristic of that name, with default options.
    pub fn named(name: &str) -> Result<Heuristic> {
        Ok(match name {
            "uniform" => Heuristic::Polynomial { rho: 1.0 },
            "quadratic" => Heuristic::Polynomial { rho: 2.0 },
            "polynomial" => Heuristic::Polynomial { rho: Self::POLYNOMIAL_RHO },
            "edm" => Heuristic::Edm { rho: Self::EDM_RHO, in_sigma: false },
            "logsnr" => Heuristic::LogSnr,
            "cosine" => Heuristic::Cosine,
            _ => return Err(Error::unknown("schedule", name, Self::NAMES)),
        })
    }
    /// The name under which schedules carry it.
    pub fn name(&self) -> &'static str {
        match self {
            Heuristic::Polynomial { rho: 1.0 } => "uniform",
            Heuristic::Polynomial { rho: 2.0 } => "quadratic",
            Heuristic::Polynomial { .. } => "polynomial",
            Heuristic::Edm { .. } => "edm",
            Heuristic::LogSnr => "logsnr",
            Heuristic::Cosine => "cosine",
        }
    }
    /// The schedule with `n` ≥ 1 steps over `interval`. The ends are exactly the interval's.
    pub fn schedule(&self, noise: &Noise, n: usize, interval: Interval) -> Result<Schedule> {
        check_count(n)?;
        let (from, to) = interval.resolve(noise.as_ref())?;
        if let Heuristic::Polynomial { rho } | Heuristic::Edm { rho, .. } = self
            && !(*rho > 0.0 && rho.is_finite())
        {
            return Err(Error::value(format!("schedule::{}: `rho` = {rho} must be finite and above 0", self.name())));
        }
        let inner = self.inner(noise.as_ref(), n, from, to)?;
        let t: Vec<f64> = [from].into_iter().chain(inner).chain([to]).collect();
        Schedule::from_steps(noise.clone(), &t, self.name())
    }
    /// t_1 … t_{N−1}.
    fn inner(&self, noise: &dyn NoiseSchedule, n: usize, from: f64, to: f64) -> Result<Vec<f64>> {
        let sigma = |t: f64| noise.ve_sigma(&t.into()).v();
        let t_of_sigma = |s: f64| noise.t_of_sigma(&s.into()).v();
        // even steps between a and b in a coordinate, mapped back to time
        let even = |a: f64, b: f64, back: &dyn Fn(f64) -> f64| -> Vec<f64> {
            (1..n).map(|i| back(a + (b - a) * (i as f64 / n as f64))).collect()
        };
        Ok(match *self {
            Heuristic::Polynomial { rho } => even(1.0, 0.0, &|u| to + u.powf(rho) * (from - to)),
            Heuristic::Edm { rho, in_sigma: false } => even(from.powf(1.0 / rho), to.powf(1.0 / rho), &|r| r.powf(rho)),
            Heuristic::Edm { rho, in_sigma: true } => {
                let ends = [from, to].map(sigma);
                finite("schedule::edm in sigma", "σ/α", [from, to], ends)?;
                let [a, b] = ends.map(|s| s.powf(1.0 / rho));
                even(a, b, &|r| t_of_sigma(r.powf(rho)))
            }
            Heuristic::LogSnr => {
                let ends = Space::Lambda.ends("schedule::logsnr", noise, from, to)?;
                even(ends.0, ends.1, &|l| noise.inverse_lambda(&l.into()).v())
            }
            Heuristic::Cosine => even(sigma(from).atan(), sigma(to).atan(), &|a| t_of_sigma(a.tan())),
        })
    }
}

/// Fails where a coordinate is infinite at an end of the interval.
pub(super) fn finite(of: &str, what: &str, t: [f64; 2], values: [f64; 2]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => {
            let e = Error::value(format!("{of}: {what} is {} at the end t = {}", values[i], t[i]));
            Err(e.hint("give ends at which it is finite with `from` and `to`, e.g. #{ from: 0.999, to: 0.001 }"))
        }
    }
}

/// Where a schedule starts and ends, when not at the noise schedule's T and t_min.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Interval {
    /// The first time (most noise); T if `None`.
    pub from: Option<f64>,
    /// The last time (least noise); t_min if `None`.
    pub to: Option<f64>,
}

impl Interval {
    /// (from, to), checked: times of the noise schedule, from > to.
    pub fn resolve(&self, noise: &dyn NoiseSchedule) -> Result<(f64, f64)> {
        let (from, to) = (self.from.unwrap_or(noise.t_max()), self.to.unwrap_or(noise.t_min()));
        check_time(noise, from).map_err(|e| e.context("option `from`"))?;
        check_time(noise, to).map_err(|e| e.context("option `to`"))?;
        match from > to {
            true => Ok((from, to)),
            false => {
                let e = Error::value(format!("a schedule must descend, but goes from {from} to {to}"));
                Err(e.hint("`from` is the end with the most noise, `to` the one with the least"))
            }
        }
    }
}

/// N that is a typing slip, not a schedule.
const MOST_STEPS: usize = 1_000_000;

/// Fails for a number of steps that no schedule has.
pub(super) fn check_count(n: usize) -> Result<()> {
    match (1..=MOST_STEPS).contains(&n) {
        true => Ok(()),
        false => Err(Error::value(format!("a schedule has 1 to {MOST_STEPS} steps, not {n}"))),
    }
}

/// The schedule t_i = f(i/N) for a function of one's own, which returns a tensor with one element (tracked where it is
/// to be learned). `f(0)` is the end with the most noise.
pub fn from_function(noise: &Noise, n: usize, mut f: impl FnMut(f64) -> Result<Tensor>) -> Result<Schedule> {
    check_count(n)?;
    let t = (0..=n)
        .map(|i| {
            crate::host::check_cancelled()?;
            let t = f(i as f64 / n as f64)?;
            if t.elem_count() != 1 {
                let m = "schedule::from_fn: the function must return one number for each u";
                return Err(Error::shape(m, &[t.dims()]));
            }
            Ok(t.reshape(1)?.to_dtype(candle_core::DType::F64)?.to_device(&Device::Cpu)?)
        })
        .collect::<Result<Vec<_>>>()?;
    Schedule::new(noise.clone(), &Tensor::cat(&t, 0)?, "function")
}

impl Space {
    /// The coordinates of both ends, checked to be finite.
    pub(super) fn ends(self, of: &str, noise: &dyn NoiseSchedule, from: f64, to: f64) -> Result<(f64, f64)> {
        let [a, b] = [from, to].map(|t| self.of(noise, &Real::from(t)).v());
        finite(of, "λ", [from, to], [a, b])?;
        Ok((a, b))
    }
}
