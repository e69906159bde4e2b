//! DMN (Xue et al., 2024, "Accelerating diffusion sampling with optimized time steps"): the steps for which errors of the network
//! weigh least in the result of a multistep method of order 3. No network is asked.
use super::minimize::{log_gaps, minimize, points};
use super::{Heuristic, Interval, Schedule, Space};
use crate::noise::Noise;
use crate::real::Real;
use crate::{Error, Result};

/// The error that an evaluation is taken to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataError {
    /// σ/α: networks on pixels.
    #[default]
    Pixel,
    /// σ²/α with α² + σ² = 1: networks on latents.
    Latent,
}

/// Where the search starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Steps even in λ.
    LogSnr,
    /// Steps even in time.
    Time,
}

/// Options of [`dmn`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DmnOptions {
    /// The error weight.
    pub error: DataError,
    /// Where the search starts; λ for pixels, time for latents if `None`.
    pub start: Option<Start>,
    /// The first steps whose weights are not summed up with those of others; 3 if `None`. The published rule is 3 for N ≤ 7 and 0
    /// beyond, where its optimizer stops early: at the least bound of that form errors cancel between steps, and the samples are far worse.
    pub apart: Option<usize>,
    /// The ends.
    pub interval: Interval,
}

/// [`DmnOptions::apart`] where it is not given.
const APART: usize = 3;

/// The steps that minimize the bound, and its value.
pub fn dmn(noise: &Noise, n: usize, o: &DmnOptions) -> Result<(Schedule, f64)> {
    let (from, to) = o.interval.resolve(noise.as_ref())?;
    let ends = Space::Lambda.ends("schedule::dmn", noise.as_ref(), from, to)?;
    let apart = o.apart.unwrap_or(APART);
    let start = match (o.start, o.error) {
        (Some(s), _) => s,
        (None, DataError::Pixel) => Start::LogSnr,
        (None, DataError::Latent) => Start::Time,
    };
    let start = match start {
        Start::LogSnr => Heuristic::LogSnr,
        Start::Time => Heuristic::Polynomial { rho: 1.0 },
    };
    let lambda = |t: &f64| noise.lambda(&Real::from(*t)).v();
    let start: Vec<f64> = start.schedule(noise, n, o.interval)?.times()?.iter().map(lambda).collect();
    let objective = |xi: &[Real]| bound(&points(ends.0, ends.1, xi), o.error, apart);
    let (xi, value) = minimize(objective, log_gaps(&start))?;
    let xi: Vec<Real> = xi.into_iter().map(Real::from).collect();
    let found = points(ends.0, ends.1, &xi);
    let inner = found[1..n].iter().map(|l| noise.inverse_lambda(l).v());
    let t: Vec<f64> = [from].into_iter().chain(inner).chain([to]).collect();
    Ok((Schedule::from_steps(noise.clone(), &t, "dmn")?, value))
}

/// The bound at the steps of a schedule.
pub fn dmn_bound(schedule: &Schedule, error: DataError, apart: Option<usize>) -> Result<f64> {
    let lambdas = crate::real::host_values(&schedule.lambdas()?)?;
    if let Some(i) = lambdas.iter().position(|l| !l.is_finite()) {
        return Err(Error::value(format!("dmn: λ of step {i} is {}", lambdas[i])).hint("end above σ = 0"));
    }
    let apart = apart.unwrap_or(APART);
    let lambdas: Vec<Real> = lambdas.into_iter().map(Real::from).collect();
    Ok(bound(&lambdas, error, apart).v())
}

/// ∫ e^{λ_s + u} (u^k) du over a step of width h, up to e^{λ_s}… as eˢ-moments: H_0 = e^h − 1, H_k = e^h h^k − k H_{k−1}.
fn moments(h: &Real) -> [Real; 3] {
    let e = h.exp();
    let h0 = h.exp_m1();
    let h1 = &e * h - &h0;
    let h2 = &e * h * h - &h1 * 2.0;
    [h0, h1, h2]
}

fn abs(x: Real) -> Real {
    if x.v() < 0.0 { -x } else { x }
}

/// Σ_i ε_i |Σ_s w_s,i|: w_s,i is the weight of evaluation i in the step from s to s + 1, the integral of e^λ times its Lagrange
/// polynomial; the weights of the first `apart` steps are not joined with those of others.
fn bound(lambda: &[Real], error: DataError, apart: usize) -> Real {
    let n = lambda.len() - 1;
    let h: Vec<Real> = lambda.windows(2).map(|w| &w[1] - &w[0]).collect();
    let e: Vec<Real> = lambda.iter().map(Real::exp).collect();
    let weight: Vec<Real> = lambda
        .iter()
        .map(|l| {
            let ratio = (-l).exp();
            match error {
                DataError::Pixel => ratio,
                // σ²/α at α² + σ² = 1, with σ/α = e^−λ
                DataError::Latent => ratio.square() / (ratio.square() + 1.0).sqrt(),
            }
        })
        .collect();
    let mut joined = vec![Real::from(0.0); n];
    let mut sum = Real::from(0.0);
    for s in 0..n {
        let [h0, h1, h2] = moments(&h[s]);
        // of order 1 at both ends, 2 beside them, else 3
        let order = (s + 1).min(n - s).min(3);
        let w: Vec<(usize, Real)> = match order {
            1 => vec![(s, &e[s + 1] - &e[s])],
            2 => {
                let a = &h[s - 1];
                let c = &e[s] / a;
                vec![(s - 1, -(&c * &h1)), (s, &c * (&h1 + a * &h0))]
            }
            _ => {
                let (a, b) = (&h[s - 2], &h[s - 1]);
                let c = &e[s];
                vec![
                    (s - 2, c * (&h2 + b * &h1) / (a * (a + b))),
                    (s - 1, -(c * (&h2 + (a + b) * &h1) / (a * b))),
                    (s, c * (&h2 + (b * 2.0 + a) * &h1 + b * (a + b) * &h0) / (b * (a + b))),
                ]
            }
        };
        if order == 1 {
            sum = sum + abs(&weight[s] * &w[0].1);
        } else if s < apart {
            let squares: Real = w.iter().map(|(i, w)| (&weight[*i] * w).square()).sum();
            sum = sum + squares.sqrt();
        } else {
            for (i, w) in w {
                joined[i] = &joined[i] + &weight[i] * w;
            }
        }
    }
    joined.into_iter().fold(sum, |sum, c| sum + abs(c))
}
