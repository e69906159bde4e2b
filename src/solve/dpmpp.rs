//! DPM-Solver++ multistep, orders 1 to 3 (Lu et al. 2022b, algorithm 2 and appendix), and its stochastic second-order form
//! SDE-DPM-Solver++(2M) (eq. 19, with η as in k-diffusion). Both predict the data.
use super::expo::{Expo, phi};
use super::grid::{Draft, Point, order_at, usable};
use super::row::{Cost, Row, any};
use super::singlestep::TYPE;
use crate::Result;
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Node, Plan};
use crate::real::Real;
use crate::schema::{Values, count, flag, number};

pub(super) static DPMPP: Row = Row {
    name: "dpmpp",
    title: "DPM-Solver++ on the data prediction, multistep",
    notes: "Lu et al., 2022b. The published coefficients of 3M are of second order; \"taylor\" is of third.",
    example: "`solver::dpmpp(#{ order: 2 })`, `solver::dpmpp(#{ singlestep: true, nfe: 7 })`",
    order: 3,
    cost: Cost::One,
    options: &[
        count("order", 3, [1, 3], "").always("{}"),
        TYPE,
        flag("lower_order_final", true, "let the order fall to 1 over the last steps").said("full order to the end"),
    ],
    forms: &[(flag("singlestep", false, "`solver::dpmpp_singlestep` instead, with its options"), "dpmpp_singlestep")],
    check: any,
    plan: multistep,
};

pub(super) static SDE_DPMPP: Row = Row {
    name: "sde_dpmpp",
    title: "SDE-DPM-Solver++(2M)",
    notes: "",
    example: "`solver::sde_dpmpp(#{ eta: 0.5 })`",
    order: 2,
    cost: Cost::One,
    options: &[
        TYPE,
        number("eta", 1.0, [0.0, 1e3], "0 is DPM-Solver++(2M), 1 the SDE").always("eta {}"),
        number("s_noise", 1.0, [0.0, 1e3], "a factor on the noise"),
        flag("lower_order_final", false, "make the last step of order 1"),
    ],
    forms: &[],
    check: any,
    plan: sde,
};

pub(super) static DPMPP_3M: Row = Row {
    name: "dpmpp_3m",
    title: "DPM-Solver++(3M) as k-diffusion's and ComfyUI's `dpmpp_3m_sde` at η = 0",
    notes: "Its second step is \"taylor\", the others are those of `solver::dpmpp`; full order to the end.",
    example: "`solver::dpmpp_3m().order` is 3",
    options: &[],
    forms: &[],
    plan: three,
    ..DPMPP
};

pub(super) static RES: Row = Row {
    name: "res",
    title: "RES, the refined exponential solver (Zhang et al., 2023), multistep of order 2: ComfyUI's `res_multistep`",
    notes: "`solver::dpmpp(#{ order: 2, solver_type: \"taylor\", lower_order_final: false })` under its other name.",
    example: "`solver::res().order` is 2",
    order: 2,
    options: &[],
    forms: &[],
    plan: |d, _| each(d, |i, _| (i.min(2), true)),
    ..DPMPP
};

/// 3M of k-diffusion: N evaluations for N steps.
fn three(d: Draft, _: &Values) -> Result<Plan> {
    each(d, |i, _| (i.min(3), i == 2))
}

/// N evaluations for N steps, of the order and kind (`taylor`) that `of` says for step end i of n, as far as the history allows.
fn each(mut d: Draft, of: impl Fn(usize, usize) -> (usize, bool)) -> Result<Plan> {
    let n = d.steps();
    let mut x = d.start();
    let mut m: Vec<Lin> = vec![];
    for i in 1..=n {
        m.insert(0, d.eval(x, i - 1, Prediction::Data));
        m.truncate(3);
        let (order, taylor) = of(i, n);
        let v = update(&d.pts, i, usable(&d.pts, i, order), taylor, x, &m);
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}

/// N evaluations for N steps.
fn multistep(d: Draft, o: &Values) -> Result<Plan> {
    let (order, lower, taylor) = (o.count("order"), o.flag("lower_order_final"), o.is("solver_type", "taylor"));
    each(d, |i, n| (order_at(order, i, n, lower), taylor))
}

/// The step to step end `i` from the predictions `m`, newest first.
fn update(pts: &[Point], i: usize, order: usize, taylor: bool, x: Node, m: &[Lin]) -> Lin {
    let step = Expo::new(&pts[i - 1], &pts[i], Prediction::Data);
    let first = x * &step.a - &m[0] * &step.first;
    if order == 1 {
        return first;
    }
    // the spacings of the history in units of this step, and h m′ over the last one
    let r = |j: usize| (&pts[i - 1 - j].lambda - &pts[i - 2 - j].lambda) / &step.h;
    let r0 = r(0);
    let d10 = (&m[0] - &m[1]) * (1.0 / &r0);
    if order == 2 {
        return if taylor { first - d10 * step.psi(2) } else { first - d10 * (&step.first * 0.5) };
    }
    let r1 = r(1);
    let d11 = (&m[1] - &m[2]) * (1.0 / &r1);
    let bend = d10.clone() - d11;
    let d1 = d10 + &bend * (&r0 / (&r0 + &r1));
    // the published method takes half of h² m″ here, and is of second order; `taylor` takes all of it
    let scale = if taylor { 2.0 } else { 1.0 };
    let d2 = bend * (Real::from(scale) / (r0 + r1));
    first - d1 * step.psi(2) - d2 * step.psi(3)
}

/// SDE-DPM-Solver++(2M): N evaluations for N steps.
fn sde(mut d: Draft, o: &Values) -> Result<Plan> {
    let (eta, s_noise) = (o.number("eta"), o.number("s_noise"));
    let (lower, taylor) = (o.flag("lower_order_final"), o.is("solver_type", "taylor"));
    let n = d.steps();
    let mut x = d.start();
    let mut m: Vec<Lin> = vec![];
    for i in 1..=n {
        m.insert(0, d.eval(x, i - 1, Prediction::Data));
        m.truncate(2);
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        let p = usable(&d.pts, i, order_at(2, i, n, lower));
        let h = &t.lambda - &s.lambda;
        if !h.v().is_finite() {
            // no signal at the start or no noise at the end: the limit of the coefficients, all noise is fresh or none
            let step = Expo::new(&s, &t, Prediction::Data);
            let v = if eta > 0.0 && t.sigma.v() > 0.0 {
                let z = d.noise();
                &m[0] * &t.alpha + z * (&t.sigma * s_noise)
            } else {
                x * &step.a - &m[0] * &step.first
            };
            x = d.step(v, i, Label::Step);
            continue;
        }
        let z = &h * -(1.0 + eta);
        let a = &t.sigma / &s.sigma * (&h * -eta).exp();
        let first = &t.alpha * z.exp_m1();
        let mut v = x * &a - &m[0] * &first;
        if p == 2 {
            let d1 = (&m[0] - &m[1]) * (&h / (&s.lambda - &d.pts[i - 2].lambda));
            v = if taylor { v - d1 * (&t.alpha * &z * phi(2, &z)) } else { v - d1 * (first * 0.5) };
        }
        if eta > 0.0 && s_noise != 0.0 {
            let fresh = (-(&h * (-2.0 * eta)).exp_m1()).sqrt();
            v = v + d.noise() * (&t.sigma * fresh * s_noise);
        }
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}
