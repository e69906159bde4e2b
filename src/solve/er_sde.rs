//! ER-SDE-Solver (Cui et al., 2023, "Elucidating the solution space of extended reverse-time SDE"), orders 1 to 3, with the noise scale of
//! ComfyUI's `er_sde`: φ(σ) = σ (e^{σ^0.3} + 10).
use super::grid::{Draft, usable};
use super::ipndm::panels_in_lambda;
use super::row::{Cost, Row, any};
use crate::Result;
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Plan};
use crate::real::Real;
use crate::schema::{Values, count, number};

pub(super) static ER_SDE: Row = Row {
    name: "er_sde",
    title: "ER-SDE-Solver, multistep of order 1 to 3 on the data prediction",
    notes: "Cui et al., 2023, with the noise scale of ComfyUI's `er_sde`; integrals are exact there a sum of 200 points is taken.",
    example: "`solver::er_sde(#{ order: 2 })`",
    order: 3,
    cost: Cost::One,
    options: &[count("order", 3, [1, 3], "").always("{}"), number("s_noise", 1.0, [0.0, 1e3], "a factor on the noise")],
    forms: &[],
    check: any,
    plan,
};

/// φ, the noise scale.
fn scale(sigma: &Real) -> Real {
    sigma * (sigma.powf(0.3).exp() + 10.0)
}

/// N evaluations for N steps.
fn plan(mut d: Draft, o: &Values) -> Result<Plan> {
    let (order, s_noise) = (o.count("order"), o.number("s_noise"));
    let mut x = d.start();
    let mut m: Vec<Lin> = vec![];
    let level = |d: &Draft, i: usize| &d.pts[i].sigma / &d.pts[i].alpha;
    for i in 1..=d.steps() {
        m.insert(0, d.eval(x, i - 1, Prediction::Data));
        m.truncate(3);
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        if t.sigma.v() == 0.0 || s.alpha.v() == 0.0 {
            // the limits: no noise is left, or nothing but noise was there
            let mut v = &m[0] * &t.alpha;
            if t.sigma.v() > 0.0 && s_noise > 0.0 {
                v = v + d.noise() * (&t.sigma * s_noise);
            }
            x = d.step(v, i, Label::Step);
            continue;
        }
        let (from, to) = (level(&d, i - 1), level(&d, i));
        let end = scale(&to);
        let ratio = &end / scale(&from);
        let mut v = x * &(&t.alpha / &s.alpha * &ratio) + &m[0] * (&t.alpha * (1.0 - &ratio));
        let p = usable(&d.pts, i, order.min(m.len()));
        if p > 1 {
            let dt = &to - &from;
            // ∫ dσ/φ and ∫ (σ − σ_s) dσ/φ over the step
            let panels = panels_in_lambda(&to, &from);
            let (mut sum, mut bend) = (Real::from(0.0), Real::from(0.0));
            for (sigma, weight) in &panels {
                let share = weight / scale(sigma);
                bend = bend + (sigma - &from) * &share;
                sum = sum + share;
            }
            let before = level(&d, i - 2);
            let slope = (&m[0] - &m[1]) * (1.0 / (&from - &before));
            v = v + &slope * (&t.alpha * (&dt + sum * &end));
            if p > 2 {
                let older = level(&d, i - 3);
                let slope_before = (&m[1] - &m[2]) * (1.0 / (&before - &older));
                let curve = (slope - slope_before) * (2.0 / (&from - &older));
                v = v + curve * (&t.alpha * (dt.square() * 0.5 + bend * &end));
            }
        }
        if s_noise > 0.0 {
            let fresh = (to.square() - (&from * &ratio).square()).sqrt();
            v = v + d.noise() * (&t.alpha * fresh * s_noise);
        }
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}
