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
    /// The piece in which a time lies; beyond the ends, the outermost.
    fn piece(&self, t: f64) -> usize {
        self.t.partition_point(|k| *k <= t).saturating_sub(1).min(self.t.len() - 2)
    }
    /// A curve at a time, straight beyond the ends.
    fn at(&self, curve: &[[f64; 2]], t: &Real) -> Real {
        let (first, last) = (0, self.t.len() - 1);
        for (end, outside) in [(first, t.v() < self.t[first]), (last, t.v() > self.t[last])] {
            if outside {
                return (t - self.t[end]) * curve[end][1] + curve[end][0];
            }
        }
        let i = self.piece(t.v());
        let h = self.t[i + 1] - self.t[i];
        let [a, b, c, d] = cubic(curve[i], curve[i + 1], h);
        let u = (t - self.t[i]) * (1.0 / h);
        ((&u * d + c) * &u + b) * &u + a
    }
    /// A curve's slope at a time.
    fn slope(&self, curve: &[[f64; 2]], t: &Real) -> Real {
        let (first, last) = (0, self.t.len() - 1);
        for (end, outside) in [(first, t.v() < self.t[first]), (last, t.v() > self.t[last])] {
            if outside {
                return curve[end][1].into();
            }
        }
        let i = self.piece(t.v());
        let h = self.t[i + 1] - self.t[i];
        let [_, b, c, d] = cubic(curve[i], curve[i + 1], h);
        let u = (t - self.t[i]) * (1.0 / h);
        ((&u * (3.0 * d) + 2.0 * c) * &u + b) * (1.0 / h)
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
    spec: Value,
    /// Whether α² + σ² = 1.
    preserving: bool,
}

impl Tabled {
    pub(super) fn new(knots: Knots, spec: Value) -> Result<Tabled> {
        let wrong = |m: String| Error::value(format!("noise::table: {m}"));
        let n = knots.t.len();
        if !(2..=MOST).contains(&n) || knots.alpha.len() != n || knots.sigma.len() != n {
            let m = format!(
                "{n} times, {} of α and {} of σ: there must be as many of each, 2 to {MOST}",
                knots.alpha.len(),
                knots.sigma.len()
            );
            return Err(wrong(m));
        }
        let all = knots.alpha.iter().chain(&knots.sigma).flatten().chain(&knots.t);
        if all.into_iter().any(|x| !x.is_finite()) {
            return Err(wrong("a number is not finite: α and σ must be above 0 from end to end".into()));
        }
        if let Some(i) = knots.t.windows(2).position(|w| w[0] >= w[1]) {
            return Err(wrong(format!("times must ascend, but {} is followed by {}", knots.t[i], knots.t[i + 1])));
        }
        // between knots λ may not turn either: its slope is a parabola there
        for i in 0..n - 1 {
            for k in 0..=4 {
                let t = (knots.t[i] + (knots.t[i + 1] - knots.t[i]) * f64::from(k) / 4.0).into();
                let slope = knots.slope(&knots.alpha, &t).v() - knots.slope(&knots.sigma, &t).v();
                // NaN is refused, too
                if !matches!(slope.partial_cmp(&0.0), Some(std::cmp::Ordering::Less)) {
                    let e = wrong(format!("the noise level σ/α must grow with t, but not so at t = {}", t.v()));
                    return Err(e.hint("time runs from the least noise, t_min, to the most, t_max"));
                }
            }
        }
        let unit = |i: usize| (2.0 * knots.alpha[i][0]).exp() + (2.0 * knots.sigma[i][0]).exp();
        let preserving = (0..n).all(|i| (unit(i) - 1.0).abs() < 1e-6);
        Ok(Tabled { knots, spec, preserving })
    }
    fn lambda_at(&self, i: usize) -> f64 {
        self.knots.alpha[i][0] - self.knots.sigma[i][0]
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
        let (wanted, n) = (lambda.v(), self.knots.t.len());
        let slope = |t: f64| self.dlambda(&t.into()).v();
        let t = if !(wanted < self.lambda_at(0) && wanted > self.lambda_at(n - 1)) {
            let end = if wanted <= self.lambda_at(n - 1) { n - 1 } else { 0 };
            self.knots.t[end] + (wanted - self.lambda_at(end)) / slope(self.knots.t[end])
        } else {
            let ahead: Vec<usize> = (0..n).collect();
            let i = ahead.partition_point(|i| self.lambda_at(*i) >= wanted).clamp(1, n - 1) - 1;
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
