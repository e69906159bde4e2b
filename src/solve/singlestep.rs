//! Singlestep DPM-Solver-1, -2, -3 (Lu et al. 2022a, algorithms 1, 2 and appendix) on the noise prediction, and the same of
//! DPM-Solver++ on the data prediction, with the published list of orders for a given number of evaluations.
use super::expo::{Expo, phi};
use super::grid::{Draft, Point};
use super::{Expansion, SinglestepOptions};
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Node, Plan};
use crate::{Error, Result};

/// The orders of the steps for `nfe` evaluations with order `order` ("DPM-Solver-fast"): as many full steps as fit, lower
/// ones to use up the rest.
pub(super) fn orders(order: usize, nfe: usize) -> Vec<usize> {
    let full = |n: usize, tail: &[usize]| [vec![order; n], tail.to_vec()].concat();
    match (order, nfe % order.max(1)) {
        (3, 0) if nfe >= 3 => full(nfe / 3 - 1, &[2, 1]),
        (_, 0) => full(nfe / order.max(1), &[]),
        (_, rest) => full(nfe / order, &[rest]),
    }
}

/// One step of each order in `orders`; without a list, all of order `order`. A step to σ = 0 is of first order.
pub(super) fn plan(
    mut d: Draft,
    order: usize,
    nfe: Option<usize>,
    want: Prediction,
    o: &SinglestepOptions,
) -> Result<Plan> {
    let n = d.steps();
    let list = nfe.map_or_else(|| vec![order; n], |nfe| orders(order, nfe));
    if list.len() != n {
        let m = format!(
            "{} evaluations of order {order} take {} steps, the schedule has {n}",
            list.iter().sum::<usize>(),
            list.len()
        );
        return Err(Error::value(m).hint("make the schedule with `solver.steps(nfe)` steps"));
    }
    let mut x = d.start();
    for (i, order) in (1..).zip(list) {
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        let order = if s.is_inner() && t.is_inner() { order } else { 1 };
        let m = d.eval(x, i - 1, want);
        let v = match order {
            1 => first(&s, &t, want, x, &m)?,
            2 => second(&mut d, &s, &t, want, x, &m, o)?,
            _ => third(&mut d, &s, &t, want, x, &m, o)?,
        };
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}

fn first(s: &Point, t: &Point, want: Prediction, x: Node, m: &Lin) -> Result<Lin> {
    let step = Expo::new(s, t, want)?;
    Ok(x * &step.a - m * step.first)
}

/// The point a fraction `r` of the way from `s` to `t` in λ.
fn between(d: &Draft, s: &Point, t: &Point, r: f64) -> Point {
    Point::of_lambda(d.noise, &s.lambda + (&t.lambda - &s.lambda) * r)
}

fn second(
    d: &mut Draft,
    s: &Point,
    t: &Point,
    want: Prediction,
    x: Node,
    m: &Lin,
    o: &SinglestepOptions,
) -> Result<Lin> {
    let r1 = o.r1.unwrap_or(0.5);
    let step = Expo::new(s, t, want)?;
    let s1 = between(d, s, t, r1);
    let v = first(s, &s1, want, x, m)?;
    let x1 = d.inner(v, &s1.t, Label::Inner);
    let m1 = d.eval_point(x1, &s1, None, want);
    let d1 = (m1 - m) * (1.0 / r1);
    let base = x * &step.a - m * &step.first;
    Ok(match o.solver_type {
        Expansion::Midpoint => base - d1 * (&step.first * 0.5),
        Expansion::Taylor => base - d1 * step.psi(2),
    })
}

fn third(
    d: &mut Draft,
    s: &Point,
    t: &Point,
    want: Prediction,
    x: Node,
    m: &Lin,
    o: &SinglestepOptions,
) -> Result<Lin> {
    let (r1, r2) = (o.r1.unwrap_or(1.0 / 3.0), o.r2.unwrap_or(2.0 / 3.0));
    let step = Expo::new(s, t, want)?;
    let (s1, s2) = (between(d, s, t, r1), between(d, s, t, r2));
    let v = first(s, &s1, want, x, m)?;
    let x1 = d.inner(v, &s1.t, Label::Inner);
    let m1 = d.eval_point(x1, &s1, None, want);
    let to2 = Expo::new(s, &s2, want)?;
    // (r2/r1) e z₂ φ₂(z₂) (m1 − m), z₂ = r2 z
    let bend = &to2.e * &to2.z * phi(2, &to2.z) * (r2 / r1);
    let v = x * &to2.a - m * &to2.first - (&m1 - m) * bend;
    let x2 = d.inner(v, &s2.t, Label::Inner);
    let m2 = d.eval_point(x2, &s2, None, want);
    let base = x * &step.a - m * &step.first;
    Ok(match o.solver_type {
        Expansion::Midpoint => base - (m2 - m) * (step.psi(2) * (1.0 / r2)),
        Expansion::Taylor => {
            let (d10, d11) = ((m1 - m) * (1.0 / r1), (m2 - m) * (1.0 / r2));
            let d1 = (&d10 * r2 - &d11 * r1) * (1.0 / (r2 - r1));
            let d2 = (d11 - d10) * (2.0 / (r2 - r1));
            base - d1 * step.psi(2) - d2 * step.psi(3)
        }
    })
}
