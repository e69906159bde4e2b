//! DDPM's ancestral sampling (Ho et al. 2020), with the choice of its variance that diffusion-point-cloud calls flexibility.
use super::grid::Draft;
use super::row::{Cost, Row, any};
use crate::Result;
use crate::denoise::Prediction;
use crate::plan::{Label, Plan};
use crate::schema::{Values, number};

pub(super) static DDPM: Row = Row {
    name: "ddpm",
    title: "DDPM's ancestral sampling",
    notes: "Ho et al., 2020. The published loop of a network of N training steps is `ddpm(#{ denoise_to_zero: true })` on all of its N noise levels, `schedule::uniform(net.noise, N - 1)`: \
        its last step, to no noise, is the data prediction. With `flexibility` 0 it is `ddim(#{ eta: 1.0 })`.",
    example: "`solver::ddpm(#{ flexibility: 1.0 })`",
    order: 1,
    cost: Cost::One,
    options: &[
        number(
            "flexibility",
            0.0,
            [0.0, 1.0],
            "the fresh noise's standard deviation, from that of the posterior given the data (0) to that of the forward step (1)",
        )
        .said("flexibility {}"),
    ],
    forms: &[],
    check: any,
    plan,
};

/// N evaluations for N steps.
fn plan(mut d: Draft, o: &Values) -> Result<Plan> {
    let flexibility = o.number("flexibility");
    let mut x = d.start();
    for i in 1..=d.steps() {
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        let (mut v, eps) = d.first_order(x, i, Prediction::Noise);
        if t.sigma.v() > 0.0 {
            // the forward step from t to s adds σ_s² (1 − e^(−2h)), the posterior has σ_t² (1 − e^(−2h)); without signal h is infinite
            let share = if s.is_inner() { -((&t.lambda - &s.lambda) * -2.0).exp_m1() } else { 1.0.into() };
            let replaced = &t.sigma * (1.0 - (1.0 - &share).sqrt());
            let scale = &t.sigma * (1.0 - flexibility) + &s.sigma * flexibility;
            v = v - eps * replaced + d.noise() * (scale * share.sqrt());
        }
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}
