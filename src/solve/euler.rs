//! Euler and Heun in t on the probability-flow ODE dx/dt = f x + g²/(2σ) ε̂ (Song et al. 2021, eq. 13; paper, eq. 3),
//! with f = d ln α/dt and g² = −2 σ² dλ/dt; and Karras et al. 2022's stochastic sampler, which is Heun with churn.
use super::grid::{Draft, Point};
use super::row::{Cost, Row, any};
use crate::denoise::Prediction;
use crate::noise::Noise;
use crate::plan::{Label, Lin, Node, Plan};
use crate::real::{Real, Tape};
use crate::schema::{Opt, Values, count, number};
use crate::{Error, Result};

pub(super) static EULER: Row = Row {
    name: "euler",
    title: "Euler in t on the probability-flow ODE",
    notes: "",
    example: "`solver::euler()`",
    order: 1,
    cost: Cost::One,
    options: &[],
    forms: &[],
    check: any,
    plan: euler,
};

const NFE: Opt =
    count("nfe", 0, [0, usize::MAX], "evaluations; an odd number makes the last step an Euler step").or("two per step");

pub(super) static HEUN: Row = Row {
    name: "heun",
    title: "Heun's method of EDM",
    notes: "Karras et al., 2022, algorithm 1.",
    example: "`solver::heun(#{ nfe: 7 })`",
    order: 2,
    cost: Cost::Two,
    options: &[NFE],
    forms: &[],
    check: any,
    plan: |d, _| heun(d, None),
};

pub(super) static EDM_STOCHASTIC: Row = Row {
    name: "edm_stochastic",
    title: "EDM's stochastic sampler: Heun with churn",
    notes: "Karras et al., 2022, algorithm 2. Noise levels are VE (σ/α).",
    example: "`solver::edm_stochastic(#{ s_churn: 40, s_min: 0.05, s_max: 50, s_noise: 1.003 })`",
    order: 2,
    cost: Cost::Two,
    options: &[
        number("s_churn", 0.0, [0.0, 1e6], "the total amount of churn, over all steps").always("churn {}"),
        number("s_min", 0.0, [0.0, f64::MAX], "the lowest noise level with churn"),
        number("s_max", f64::INFINITY, [0.0, f64::INFINITY], "the highest noise level with churn"),
        number("s_noise", 1.0, [0.0, 1e3], "a factor on the noise"),
        NFE,
    ],
    forms: &[],
    check: any,
    plan: |d, o| heun(d, Some(&Churn::new(o))),
};

/// The churn of [`EDM_STOCHASTIC`], named as in the paper.
struct Churn {
    s_churn: f64,
    s_min: f64,
    s_max: f64,
    s_noise: f64,
}

/// dx/dt at (x, p) as a linear combination; evaluates once. `node`: the step end that `p` is, if it is one.
fn slope(d: &mut Draft, x: Node, p: &Point, node: Option<usize>) -> Lin {
    if p.sigma.v() == 0.0 || p.alpha.v() == 0.0 {
        // λ is infinite: the same slope in terms of the data, α′ m + σ′ (x − α m)/σ, has a limit
        let m = d.eval_point(x, p, node, Prediction::Data);
        let (da, ds) = (derivative(d.noise, &p.t, |n, t| n.alpha(t)), derivative(d.noise, &p.t, |n, t| n.sigma(t)));
        let growth = Real::from(ds) / &p.sigma;
        return x * &growth + m * (Real::from(da) - &p.alpha * &growth);
    }
    let eps = d.eval_point(x, p, node, Prediction::Noise);
    let f = d.noise.dlog_alpha(&p.t);
    let noise = -(&p.sigma * d.noise.dlambda(&p.t));
    x * &f + eps * noise
}

/// d/dt of a function of the noise schedule, as a constant: exact up to second derivatives, which vanish for flow.
fn derivative(noise: &Noise, t: &Real, f: impl Fn(&Noise, &Real) -> Real) -> f64 {
    let tape = Tape::new();
    let t = tape.leaf(t.v());
    let y = f(noise, &t);
    tape.backward(&[(&y, 1.0)]).of(&t)
}

/// Euler: N evaluations for N steps.
fn euler(mut d: Draft, _: &Values) -> Result<Plan> {
    let mut x = d.start();
    for i in 1..=d.steps() {
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].t.clone());
        let dx = slope(&mut d, x, &s, Some(i - 1));
        x = d.step(x.v() + dx * (t - &s.t), i, Label::Step);
    }
    d.finish(x)
}

/// Heun (Karras et al. 2022, algorithm 1) and, with churn, their algorithm 2. The last step is an Euler step when it ends
/// at σ = 0, or when the number of evaluations is odd.
fn heun(mut d: Draft, churn: Option<&Churn>) -> Result<Plan> {
    let mut x = d.start();
    let n = d.steps();
    let odd = match d.evaluations {
        Some(nfe) if nfe.div_ceil(2) != n => {
            let m = format!("{nfe} evaluations take {} steps, the schedule has {n}", nfe.div_ceil(2));
            return Err(Error::value(m).hint("make the schedule with `solver.steps(nfe)` steps"));
        }
        nfe => nfe.is_some_and(|nfe| nfe % 2 == 1),
    };
    for i in 1..=n {
        let (mut s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        let mut node = Some(i - 1);
        if let Some((raised, up)) = churn.and_then(|c| c.raise(d.noise, &s, n)) {
            let z = d.noise();
            let v = x * &(&raised.alpha / &s.alpha) + z * up;
            x = d.inner(v, &raised.t, Label::Churned);
            (s, node) = (raised, None);
        }
        let h = &t.t - &s.t;
        let d1 = slope(&mut d, x, &s, node);
        let euler = x.v() + &d1 * &h;
        if t.sigma.v() == 0.0 || (odd && i == n) {
            x = d.step(euler, i, Label::Step);
            continue;
        }
        let end = d.inner(euler, &t.t, Label::Predicted);
        let d2 = slope(&mut d, end, &t, Some(i));
        x = d.step(x.v() + (d1 + d2) * (h * 0.5), i, Label::Corrected);
    }
    d.finish(x)
}

impl Churn {
    fn new(o: &Values) -> Churn {
        let [s_churn, s_min, s_max, s_noise] = ["s_churn", "s_min", "s_max", "s_noise"].map(|name| o.number(name));
        Churn { s_churn, s_min, s_max, s_noise }
    }
    /// The point to which noise is raised before a step from `s`, and the coefficient of the noise; `None` where it is not.
    fn raise(&self, noise: &Noise, s: &Point, steps: usize) -> Option<(Point, Real)> {
        let sigma = &s.sigma / &s.alpha;
        let gamma = (self.s_churn / steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
        if gamma <= 0.0 || !sigma.v().is_finite() || sigma.v() < self.s_min || sigma.v() > self.s_max {
            return None;
        }
        let raised = Point::new(noise, &noise.t_of_sigma(&(&sigma * (1.0 + gamma))));
        let up = &raised.alpha * &sigma * ((1.0 + gamma).powi(2) - 1.0).sqrt() * self.s_noise;
        Some((raised, up))
    }
}
