//! DDIM (Song et al. 2021a, eq. 12): first order in λ on the noise prediction, with η between the ODE (0) and ancestral
//! sampling (1). For any noise schedule: the noise that enters at t has σ_η = η σ_t √(1 − e^(−2h)).
use super::grid::Draft;
use super::row::{Cost, Row, any};
use crate::Result;
use crate::denoise::Prediction;
use crate::plan::{Label, Plan};
use crate::real::Real;
use crate::schema::{Values, number};

pub(super) static DDIM: Row = Row {
    name: "ddim",
    title: "DDIM: first order in λ on the noise prediction",
    notes: "Song et al., 2021.",
    example: "`solver::ddim(#{ eta: 0.5 })`",
    order: 1,
    cost: Cost::One,
    options: &[number("eta", 0.0, [0.0, 1.0], "0 is the ODE, 1 ancestral sampling").said("eta {}")],
    forms: &[],
    check: any,
    plan,
};

/// DDIM: N evaluations for N steps.
fn plan(mut d: Draft, o: &Values) -> Result<Plan> {
    let eta = o.number("eta");
    let mut x = d.start();
    for i in 1..=d.steps() {
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        let (mut v, eps) = d.first_order(x, i, Prediction::Noise);
        if eta > 0.0 && t.sigma.v() > 0.0 {
            // σ_t² − σ_η² = σ_t² (1 − η² (1 − e^(−2h))); from a state without signal h is infinite
            let all = if s.is_inner() { -((&t.lambda - &s.lambda) * -2.0).exp_m1() } else { 1.0.into() };
            let fresh = all * (eta * eta);
            let replaced: Real = &t.sigma * (1.0 - (1.0 - &fresh).sqrt());
            v = v - eps * replaced + d.noise() * (&t.sigma * fresh.sqrt());
        }
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}
