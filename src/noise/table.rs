//! A noise schedule from a table: ln α and ln σ as cubics between knots, with the slopes there.
use super::NoiseSchedule;
use crate::real::Real;
use crate::{Error, Result};
use serde_json::Value;

/// Times, ln α and ln σ there, and their slopes: what a schedule of this kind is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Knots {
    /// Ascending.
    pub t: Vec<f64>,
    /// ln α and d ln α/dt.
    pub alpha: Vec<[f64; 2]>,
    /// ln σ and d ln σ/dt.
    pub sigma: Vec<[f64; 2]>,
}

/// As many knots as a table may have.
pub const MOST: usize = 8192;

/// The coefficients of 1, u, u², u³ between two knots, u from 0 to 1 over the length `h`.
fn cubic([a, da]: [f64; 2], [b, db]: [f64; 2], h: f64) -> [f64; 4] {
    let (s, e) = (da * h, db * h);
    [a, s, 3.0 * (b - a) - 2.0 * s - e, 2.0 * (a - b) + s + e]
}

impl Knots {
    /// The cubic of a curve at a time, in u = (t − start) / length: its coefficients, start and length. Straight beyond the ends.
    fn piece(&self, curve: &[[f64; 2]], t: f64) -> ([f64; 4], f64, f64) {
        let last = self.t.len() - 1;
        let straight = |end: usize| ([curve[end][0], curve[end][1], 0.0, 0.0], self.t[end], 1.0);
        if t < self.t[0] {
            return straight(0);
        }
        if t > self.t[last] {
            return straight(last);
        }
        let i = self.t.partition_point(|k| *k <= t).saturating_sub(1).min(last - 1);
        let h = self.t[i + 1] - self.t[i];
        (cubic(curve[i], curve[i + 1], h), self.t[i], h)
    }
    /// A curve at a time.
    fn at(&self, curve: &[[f64; 2]], t: &Real) -> Real {
        let ([a, b, c, d], start, h) = self.piece(curve, t.v());
        let u = (t - start) * (1.0 / h);
        ((&u * d + c) * &u + b) * &u + a
    }
    /// A curve's slope at a time.
    fn slope(&self, curve: &[[f64; 2]], t: &Real) -> Real {
        let ([_, b, c, d], start, h) = self.piece(curve, t.v());
        let u = (t - start) * (1.0 / h);
        ((&u * (3.0 * d) + 2.0 * c) * &u + b) * (1.0 / h)
    }
    /// Fails unless this is a schedule.
    ///
    /// # Errors
    /// Lists of different lengths, numbers that are not finite, times that do not ascend, and σ/α that does not grow with them.
    pub fn check(&self) -> Result<()> {
        let n = self.t.len();
        if !(2..=MOST).contains(&n) || self.alpha.len() != n || self.sigma.len() != n {
            let m = format!(
                "{n} times, {} of α and {} of σ: there must be as many of each, 2 to {MOST}",
                self.alpha.len(),
                self.sigma.len()
            );
            return Err(Error::value(m));
        }
        let all = self.alpha.iter().chain(&self.sigma).flatten().chain(&self.t);
        if all.into_iter().any(|x| !x.is_finite()) {
            return Err(Error::value("a number is not finite: α and σ must be above 0 from end to end"));
        }
        if let Some(i) = self.t.windows(2).position(|w| w[0] >= w[1]) {
            let m = format!("times must ascend, but {} is followed by {}", self.t[i], self.t[i + 1]);
            return Err(Error::value(m));
        }
        // between knots λ may not turn either: its slope is a parabola there
        for w in self.t.windows(2) {
            for k in 0..=4 {
                let t = (w[0] + (w[1] - w[0]) * f64::from(k) / 4.0).into();
                let slope = self.slope(&self.alpha, &t).v() - self.slope(&self.sigma, &t).v();
                // NaN is refused, too
                if !matches!(slope.partial_cmp(&0.0), Some(std::cmp::Ordering::Less)) {
                    let e = Error::value(format!("the noise level σ/α must grow with t, but not so at t = {}", t.v()));
                    return Err(e.hint("time runs from the least noise, t_min, to the most, t_max"));
                }
            }
        }
        Ok(())
    }
    /// ln α or ln σ in the middle of a piece, as the table has it.
    pub fn middle(curve: &[[f64; 2]], t: &[f64], i: usize) -> f64 {
        let [a, b, c, d] = cubic(curve[i], curve[i + 1], t[i + 1] - t[i]);
        a + b / 2.0 + c / 4.0 + d / 8.0
    }
}

/// A noise schedule from [`Knots`].
pub(super) struct Tabled {
    knots: Knots,
    /// λ at each, falling.
    lambda: Vec<f64>,
    spec: Value,
    /// Whether α² + σ² = 1.
    preserving: bool,
}

impl Tabled {
    pub(super) fn new(knots: Knots, spec: Value) -> Result<Tabled> {
        knots.check().map_err(|e| e.context("noise::table"))?;
        let n = knots.t.len();
        let unit = |i: usize| (2.0 * knots.alpha[i][0]).exp() + (2.0 * knots.sigma[i][0]).exp();
        let preserving = (0..n).all(|i| (unit(i) - 1.0).abs() < 1e-6);
        let lambda = (0..n).map(|i| knots.alpha[i][0] - knots.sigma[i][0]).collect();
        Ok(Tabled { knots, lambda, spec, preserving })
    }
}

impl NoiseSchedule for Tabled {
    fn name(&self) -> &str {
        "table"
    }
    fn spec(&self) -> Value {
        self.spec.clone()
    }
    fn t_max(&self) -> f64 {
        self.knots.t[self.knots.t.len() - 1]
    }
    fn t_min(&self) -> f64 {
        self.knots.t[0]
    }
    fn log_alpha(&self, t: &Real) -> Real {
        self.knots.at(&self.knots.alpha, t)
    }
    fn log_sigma(&self, t: &Real) -> Real {
        self.knots.at(&self.knots.sigma, t)
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        self.knots.slope(&self.knots.alpha, t)
    }
    fn dlambda(&self, t: &Real) -> Real {
        self.knots.slope(&self.knots.alpha, t) - self.knots.slope(&self.knots.sigma, t)
    }
    fn inverse_lambda(&self, lambda: &Real) -> Real {
        let (wanted, last) = (lambda.v(), self.knots.t.len() - 1);
        let slope = |t: f64| self.dlambda(&t.into()).v();
        let t = if !(wanted < self.lambda[0] && wanted > self.lambda[last]) {
            let end = if wanted <= self.lambda[last] { last } else { 0 };
            self.knots.t[end] + (wanted - self.lambda[end]) / slope(self.knots.t[end])
        } else {
            let i = self.lambda.partition_point(|l| *l >= wanted).clamp(1, last) - 1;
            // Newton's steps, each kept between the times that are known to lie on either side
            let (mut low, mut high) = (self.knots.t[i], self.knots.t[i + 1]);
            let mut t = 0.5 * (low + high);
            for _ in 0..60 {
                let off = self.lambda(&t.into()).v() - wanted;
                if off > 0.0 {
                    low = t
                } else {
                    high = t
                }
                let next = t - off / slope(t);
                let next = if next > low && next < high { next } else { 0.5 * (low + high) };
                if next == t {
                    break;
                }
                t = next;
            }
            t
        };
        Real::custom(t, &[(lambda, 1.0 / slope(t))])
    }
    fn prior_std(&self, t: f64) -> f64 {
        if self.preserving { 1.0 } else { self.sigma(&t.into()).v() }
    }
}
