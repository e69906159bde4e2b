//! DPM-Solver++ multistep, orders 1 to 3 (Lu et al. 2022b, algorithm 2 and appendix), and its stochastic second-order form
//! SDE-DPM-Solver++(2M) (eq. 19, with η as in k-diffusion). Both predict the data.
use super::expo::{Expo, phi};
use super::grid::{Draft, Point, order_at, usable};
use super::{Expansion, MultistepOptions, SdeOptions};
use crate::Result;
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Node, Plan};
use crate::real::Real;

/// N evaluations for N steps.
pub(super) fn multistep(mut d: Draft, order: usize, o: &MultistepOptions) -> Result<Plan> {
    let n = d.steps();
    let mut x = d.start();
    let mut m: Vec<Lin> = vec![];
    for i in 1..=n {
        m.insert(0, d.eval(x, i - 1, Prediction::Data));
        m.truncate(3);
        let p = usable(&d.pts, i, order_at(order, i, n, o.lower_order_final));
        let v = update(&d.pts, i, p, o.solver_type, x, &m)?;
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}

/// The step to step end `i` from the predictions `m`, newest first.
fn update(pts: &[Point], i: usize, order: usize, kind: Expansion, x: Node, m: &[Lin]) -> Result<Lin> {
    let step = Expo::new(&pts[i - 1], &pts[i], Prediction::Data)?;
    let first = x * &step.a - &m[0] * &step.first;
    if order == 1 {
        return Ok(first);
    }
    // the spacings of the history in units of this step, and h m′ over the last one
    let r = |j: usize| (&pts[i - 1 - j].lambda - &pts[i - 2 - j].lambda) / &step.h;
    let r0 = r(0);
    let d10 = (&m[0] - &m[1]) * (1.0 / &r0);
    if order == 2 {
        return Ok(match kind {
            Expansion::Midpoint => first - d10 * (&step.first * 0.5),
            Expansion::Taylor => first - d10 * step.psi(2),
        });
    }
    let r1 = r(1);
    let d11 = (&m[1] - &m[2]) * (1.0 / &r1);
    let bend = d10.clone() - d11;
    let d1 = d10 + &bend * (&r0 / (&r0 + &r1));
    // the published method takes half of h² m″ here, and is of second order; `taylor` takes all of it
    let scale = match kind {
        Expansion::Midpoint => 1.0,
        Expansion::Taylor => 2.0,
    };
    let d2 = bend * (Real::from(scale) / (r0 + r1));
    Ok(first - d1 * step.psi(2) - d2 * step.psi(3))
}

/// SDE-DPM-Solver++(2M): N evaluations for N steps.
pub(super) fn sde(mut d: Draft, o: &SdeOptions) -> Result<Plan> {
    let n = d.steps();
    let mut x = d.start();
    let mut m: Vec<Lin> = vec![];
    for i in 1..=n {
        m.insert(0, d.eval(x, i - 1, Prediction::Data));
        m.truncate(2);
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        let p = usable(&d.pts, i, order_at(2, i, n, o.lower_order_final));
        let h = &t.lambda - &s.lambda;
        if !h.v().is_finite() {
            // no signal at the start or no noise at the end: the limit of the coefficients, all noise is fresh or none
            let step = Expo::new(&s, &t, Prediction::Data)?;
            let v = if o.eta > 0.0 && t.sigma.v() > 0.0 {
                let z = d.noise();
                &m[0] * &t.alpha + z * (&t.sigma * o.s_noise)
            } else {
                x * &step.a - &m[0] * &step.first
            };
            x = d.step(v, i, Label::Step);
            continue;
        }
        let z = &h * -(1.0 + o.eta);
        let a = &t.sigma / &s.sigma * (&h * -o.eta).exp();
        let first = &t.alpha * z.exp_m1();
        let mut v = x * &a - &m[0] * &first;
        if p == 2 {
            let d1 = (&m[0] - &m[1]) * (&h / (&s.lambda - &d.pts[i - 2].lambda));
            v = match o.solver_type {
                Expansion::Midpoint => v - d1 * (first * 0.5),
                Expansion::Taylor => v - d1 * (&t.alpha * &z * phi(2, &z)),
            };
        }
        if o.eta > 0.0 && o.s_noise != 0.0 {
            let fresh = (-(&h * (-2.0 * o.eta)).exp_m1()).sqrt();
            v = v + d.noise() * (&t.sigma * fresh * o.s_noise);
        }
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}
