//! Singlestep DPM-Solver-1, -2, -3 (Lu et al. 2022a, algorithms 1, 2 and appendix) on the noise prediction, and the same of
//! DPM-Solver++ on the data prediction, with the published list of orders for a given number of evaluations.
use super::expo::{Expo, phi};
use super::grid::{Draft, Point};
use super::row::{Cost, Row};
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Node, Plan};
use crate::schema::{Opt, Values, count, number, word};
use crate::{Error, Result};

/// How second-order terms are formed where papers leave a choice: half the first-order coefficient (`"dpmsolver"` or `"midpoint"` in
/// the references), or the Taylor expansion integrated exactly (`"heun"` in diffusers and k-diffusion).
pub(super) const TYPE: Opt = word("solver_type", &["midpoint", "taylor"], "how second-order terms are formed")
    .aliases(&[("heun", "taylor")])
    .said("{}");
const ORDER: Opt = count("order", 3, [1, 3], "").always("{}");
const NFE: Opt = count("nfe", 0, [0, usize::MAX], "evaluations; the steps then follow the published list of orders")
    .or("as many per step as the order");
const R1: Opt = number("r1", 0.0, [1e-6, 1.0], "where in λ the first inner point is, as a fraction of the step")
    .or("0.5, of order 3: 1/3");
const R2: Opt = number("r2", 0.0, [1e-6, 1.0], "where the second inner point of order 3 is").or("2/3");

pub(super) static DPM: Row = Row {
    name: "dpm",
    title: "Singlestep DPM-Solver on the noise prediction",
    notes: "Lu et al., 2022.",
    example: "`solver::dpm(#{ order: 2, nfe: 7 })`",
    order: 3,
    cost: Cost::Order,
    options: &[ORDER, NFE, TYPE, R1, R2],
    forms: &[],
    check: |o| check("dpm", o.count("order"), o),
    plan: |d, o| plan(d, o.count("order"), Prediction::Noise, o),
};

pub(super) static DPM2: Row = Row {
    name: "dpm2",
    title: "Singlestep DPM-Solver of order 2",
    example: "`solver::dpm2(#{ nfe: 7 }).plan(schedule::logsnr(noise::edm(), 4)).nfe` is 7",
    order: 2,
    options: &[NFE, TYPE, R1],
    check: |o| check("dpm2", 2, o),
    plan: |d, o| plan(d, 2, Prediction::Noise, o),
    ..DPM
};

pub(super) static DPM3: Row = Row {
    name: "dpm3",
    title: "Singlestep DPM-Solver of order 3",
    example: "`solver::dpm3(#{ nfe: 10 })`",
    options: &[NFE, TYPE, R1, R2],
    check: |o| check("dpm3", 3, o),
    plan: |d, o| plan(d, 3, Prediction::Noise, o),
    ..DPM
};

pub(super) static DPMPP_SINGLESTEP: Row = Row {
    name: "dpmpp_singlestep",
    title: "Singlestep DPM-Solver++ on the data prediction",
    notes: "Lu et al., 2022b.",
    example: "`solver::dpmpp_singlestep(#{ order: 3, nfe: 7 })`",
    check: |o| check("dpmpp_singlestep", o.count("order"), o),
    plan: |d, o| plan(d, o.count("order"), Prediction::Data, o),
    ..DPM
};

pub(super) static DPMPP_2S: Row = Row {
    name: "dpmpp_2s",
    title: "Singlestep DPM-Solver++ of order 2: k-diffusion's `dpmpp_2s_ancestral` and `dpmpp_sde` at η = 0",
    notes: "Lu et al., 2022b.",
    example: "`solver::dpmpp_2s(#{ nfe: 7 }).plan(schedule::logsnr(noise::edm(), 4)).nfe` is 7",
    order: 2,
    options: &[NFE, TYPE, R1],
    check: |o| check("dpmpp_2s", 2, o),
    plan: |d, o| plan(d, 2, Prediction::Data, o),
    ..DPM
};

/// Where the inner points are.
fn inner(order: usize, o: &Values) -> (f64, f64) {
    let r2 = if o.has("r2") { o.some_number("r2") } else { None };
    (o.some_number("r1").unwrap_or(if order == 3 { 1.0 / 3.0 } else { 0.5 }), r2.unwrap_or(2.0 / 3.0))
}

fn check(name: &str, order: usize, o: &Values) -> Result<()> {
    let (r1, r2) = inner(order, o);
    if order == 3 && r2 < r1 + 1e-6 {
        return Err(Error::value(format!("{name}: r2 must be between {} and 1, not {r2}", r1 + 1e-6)));
    }
    Ok(())
}

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
fn plan(mut d: Draft, order: usize, want: Prediction, o: &Values) -> Result<Plan> {
    let n = d.steps();
    let list = d.evaluations.map_or_else(|| vec![order; n], |nfe| orders(order, nfe));
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
        let v = match order {
            1 => d.first_order(x, i, want).0,
            _ => {
                let m = d.eval(x, i - 1, want);
                let inner = if order == 2 { second } else { third };
                inner(&mut d, &s, &t, want, x, &m, o)
            }
        };
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}

fn first(s: &Point, t: &Point, want: Prediction, x: Node, m: &Lin) -> Lin {
    let step = Expo::new(s, t, want);
    x * &step.a - m * step.first
}

/// The point a fraction `r` of the way from `s` to `t` in λ.
fn between(d: &Draft, s: &Point, t: &Point, r: f64) -> Point {
    Point::of_lambda(d.noise, &s.lambda + (&t.lambda - &s.lambda) * r)
}

fn second(d: &mut Draft, s: &Point, t: &Point, want: Prediction, x: Node, m: &Lin, o: &Values) -> Lin {
    let (r1, _) = inner(2, o);
    let step = Expo::new(s, t, want);
    let s1 = between(d, s, t, r1);
    let v = first(s, &s1, want, x, m);
    let x1 = d.inner(v, &s1.t, Label::Inner);
    let m1 = d.eval_point(x1, &s1, None, want);
    let d1 = (m1 - m) * (1.0 / r1);
    let base = x * &step.a - m * &step.first;
    if o.is("solver_type", "taylor") { base - d1 * step.psi(2) } else { base - d1 * (&step.first * 0.5) }
}

fn third(d: &mut Draft, s: &Point, t: &Point, want: Prediction, x: Node, m: &Lin, o: &Values) -> Lin {
    let (r1, r2) = inner(3, o);
    let step = Expo::new(s, t, want);
    let (s1, s2) = (between(d, s, t, r1), between(d, s, t, r2));
    let v = first(s, &s1, want, x, m);
    let x1 = d.inner(v, &s1.t, Label::Inner);
    let m1 = d.eval_point(x1, &s1, None, want);
    let to2 = Expo::new(s, &s2, want);
    // (r2/r1) e z₂ φ₂(z₂) (m1 − m), z₂ = r2 z
    let bend = &to2.e * &to2.z * phi(2, &to2.z) * (r2 / r1);
    let v = x * &to2.a - m * &to2.first - (&m1 - m) * bend;
    let x2 = d.inner(v, &s2.t, Label::Inner);
    let m2 = d.eval_point(x2, &s2, None, want);
    let base = x * &step.a - m * &step.first;
    if !o.is("solver_type", "taylor") {
        return base - (m2 - m) * (step.psi(2) * (1.0 / r2));
    }
    let (d10, d11) = ((m1 - m) * (1.0 / r1), (m2 - m) * (1.0 / r2));
    let d1 = (&d10 * r2 - &d11 * r1) * (1.0 / (r2 - r1));
    let d2 = (d11 - d10) * (2.0 / (r2 - r1));
    base - d1 * step.psi(2) - d2 * step.psi(3)
}
