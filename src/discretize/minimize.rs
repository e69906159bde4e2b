//! Minimizing a function of a few numbers with exact gradients: BFGS with a line search that also serves functions with kinks
//! (Lewis & Overton, 2013).
use crate::Result;
use crate::real::{Real, Tape};
use crate::tensor::memory;

/// Steps of BFGS at most.
const STEPS: usize = 2000;
/// Halvings and doublings of one line search.
const TRIES: usize = 60;

/// The value of `f` at `x` with its gradient.
fn at(f: &impl Fn(&[Real]) -> Real, x: &[f64]) -> (f64, Vec<f64>) {
    let tape = Tape::new();
    let leaves = tape.leaves(x);
    let y = f(&leaves);
    let grads = tape.backward(&[(&y, 1.0)]);
    let g = leaves.iter().map(|l| grads.of(l)).collect();
    (if y.v().is_finite() { y.v() } else { f64::INFINITY }, g)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The x near `start` where `f` is least, and its value there. Deterministic; ends where no descent is left.
///
/// # Errors
/// Ctrl-C; more numbers than there is memory for.
pub(super) fn minimize(f: impl Fn(&[Real]) -> Real, start: Vec<f64>) -> Result<(Vec<f64>, f64)> {
    let n = start.len();
    memory::room("a search for so many steps", n.saturating_mul(n).saturating_mul(8))?;
    let identity =
        || -> Vec<Vec<f64>> { (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect() };
    let (mut x, mut inverse, mut fresh) = (start, identity(), true);
    let (mut value, mut g) = at(&f, &x);
    for _ in 0..STEPS {
        crate::host::check_cancelled()?;
        let d: Vec<f64> = inverse.iter().map(|row| -dot(row, &g)).collect();
        let slope = dot(&d, &g);
        let found = if slope < 0.0 { search(&f, &x, &d, value, slope) } else { None };
        let Some((next, v, gn)) = found else {
            if fresh {
                break;
            }
            (inverse, fresh) = (identity(), true);
            continue;
        };
        let (s, y): (Vec<f64>, Vec<f64>) = (0..n).map(|i| (next[i] - x[i], gn[i] - g[i])).unzip();
        let gained = value - v;
        (x, value, g) = (next, v, gn);
        let sy = dot(&s, &y);
        if sy > 0.0 {
            if fresh {
                let scale = sy / dot(&y, &y);
                inverse.iter_mut().enumerate().for_each(|(i, row)| row[i] = scale);
            }
            update(&mut inverse, &s, &y, sy);
            fresh = false;
        }
        if gained <= 1e-14 * value.abs() {
            if fresh {
                break;
            }
            (inverse, fresh) = (identity(), true);
        }
    }
    Ok((x, value))
}

/// A point along `d` with sufficient decrease whose slope has flattened, with value and gradient.
fn search(
    f: &impl Fn(&[Real]) -> Real,
    x: &[f64],
    d: &[f64],
    value: f64,
    slope: f64,
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    // parameters are logarithms of gaps: no step multiplies a gap by more than e³
    let longest = d.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let (mut low, mut high, mut t) = (0.0, f64::INFINITY, (3.0 / longest).min(1.0));
    let mut best = None;
    for _ in 0..TRIES {
        let next: Vec<f64> = x.iter().zip(d).map(|(x, d)| x + t * d).collect();
        let (v, g) = at(f, &next);
        if v > value + 1e-4 * t * slope || v >= value {
            high = t;
        } else if dot(&g, d) < 0.9 * slope {
            low = t;
            best = Some((next, v, g));
        } else {
            return Some((next, v, g));
        }
        t = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
    }
    best
}

/// The BFGS update of the inverse Hessian.
fn update(inverse: &mut [Vec<f64>], s: &[f64], y: &[f64], sy: f64) {
    let hy: Vec<f64> = inverse.iter().map(|row| dot(row, y)).collect();
    let scale = (1.0 + dot(y, &hy) / sy) / sy;
    for (row, (si, hi)) in inverse.iter_mut().zip(s.iter().zip(&hy)) {
        for (entry, (sj, hj)) in row.iter_mut().zip(s.iter().zip(&hy)) {
            *entry += scale * si * sj - (hi * sj + si * hj) / sy;
        }
    }
}

/// Points from `a` to `b` whose gaps have the logarithms `xi`, up to a common factor; the ends are exact.
pub(super) fn points(a: f64, b: f64, xi: &[Real]) -> Vec<Real> {
    let largest = xi.iter().map(Real::v).fold(f64::NEG_INFINITY, f64::max);
    let gaps: Vec<Real> = xi.iter().map(|x| (x - largest).exp()).collect();
    let whole: Real = gaps.iter().cloned().sum();
    let scale = (b - a) / whole;
    let mut sum = Real::from(0.0);
    let inner = gaps[..gaps.len() - 1].iter().map(|g| {
        sum = &sum + g;
        &sum * &scale + a
    });
    let inner: Vec<Real> = inner.collect();
    [Real::from(a)].into_iter().chain(inner).chain([Real::from(b)]).collect()
}

/// The logarithms of the gaps of `x`.
pub(super) fn log_gaps(x: &[f64]) -> Vec<f64> {
    x.windows(2).map(|w| (w[1] - w[0]).abs().ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooth_and_kinked_functions_are_minimized() {
        let rosenbrock = |x: &[Real]| {
            let bend = &x[1] - x[0].square();
            (1.0 - &x[0]).square() + bend.square() * 100.0
        };
        let (x, v) = minimize(rosenbrock, vec![-1.2, 1.0]).unwrap();
        assert!(v < 1e-18 && (x[0] - 1.0).abs() < 1e-8, "{x:?} {v}");
        let abs = |x: Real| if x.v() < 0.0 { -x } else { x };
        let kinked = |x: &[Real]| abs(&x[0] - &x[1]) * 10.0 + (&x[0] - 2.0).square() + abs(x[1].clone());
        let (_, v) = minimize(kinked, vec![5.0, -3.0]).unwrap();
        assert!((v - 1.75).abs() < 1e-6, "{v}");
    }
}
