//! SA-Solver at τ = 0 (Xue et al., 2023): exponential Adams–Bashforth predictor and Adams–Moulton corrector on the data prediction, as
//! diffusers has it, with its modified forms of order 2.
use super::expo::Expo;
use super::grid::{Draft, usable};
use super::ipndm::{integrals, panels_in_lambda};
use super::row::{Cost, Row, any};
use crate::Result;
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Node, Plan};
use crate::real::Real;
use crate::schema::{Values, count, flag};

pub(super) static SA: Row = Row {
    name: "sa",
    title: "SA-Solver at τ = 0: predictor and corrector of any order up to 4 on the data prediction",
    notes: "Xue et al., 2023, \"SA-Solver\"; as diffusers has it.",
    example: "`solver::sa(#{ order: 3, corrector: 4 })`",
    order: 2,
    cost: Cost::One,
    options: &[
        count("order", 2, [1, 4], "of the predictor").always("{}"),
        count("corrector", 2, [0, 4], "the order of the corrector; 0 is none").said("corrector {}"),
        flag("lower_order_final", true, "let the order fall to 1 over the last steps").said("full order to the end"),
    ],
    forms: &[],
    check: any,
    plan,
};

/// σ_t ∫ e^λ L_j(λ) dλ over the step to step end `i`, for the Lagrange polynomials on the λ of step ends `newest`, `newest - 1`, ….
fn weights(d: &Draft, i: usize, newest: usize, order: usize) -> Vec<Real> {
    let ratio = |i: usize| &d.pts[i].alpha / &d.pts[i].sigma;
    let nodes: Vec<Real> = (0..order).map(|j| d.pts[newest - j].lambda.clone()).collect();
    // dy = e^λ dλ for y = e^λ
    let panels = panels_in_lambda(&ratio(i - 1), &ratio(i));
    integrals(&nodes, &panels, Real::ln).into_iter().map(|c| c * &d.pts[i].sigma).collect()
}

/// The step to step end `i` from `x`, over the predictions `m` (newest first) at step ends `newest`, `newest - 1`, ….
fn step(d: &Draft, i: usize, newest: usize, order: usize, x: Node, m: &[Lin]) -> Lin {
    let expo = Expo::new(&d.pts[i - 1], &d.pts[i], Prediction::Data);
    let base = x * &expo.a;
    if order == 1 {
        return base - &m[0] * &expo.first;
    }
    let mut w = weights(d, i, newest, order);
    if order == 2 {
        // the modification that the method makes for few steps, of order h³
        let h = &expo.h;
        let rest = h.square() * 0.5 - (h - 1.0 + (-h).exp());
        let gap = &d.pts[newest].lambda - &d.pts[newest - 1].lambda;
        let term = rest / gap * &d.pts[i].alpha;
        w = vec![&w[0] + &term, &w[1] - &term];
    }
    m.iter().zip(w).fold(base, |v, (m, w)| v + m * w)
}

/// N evaluations for N steps.
fn plan(mut d: Draft, o: &Values) -> Result<Plan> {
    let (order, corrector, lower) = (o.count("order"), o.count("corrector"), o.flag("lower_order_final"));
    let n = d.steps();
    let most = order.max(corrector.saturating_sub(1));
    let (mut x, mut seen) = (d.start(), d.start());
    let mut m: Vec<Lin> = vec![];
    for i in 1..=n {
        m.insert(0, d.eval(seen, i - 1, Prediction::Data));
        m.truncate(most + 1);
        if i > 1 && corrector > 0 {
            // to the point where the network was just asked; the order was chosen a step ago
            let final_ = if lower { n + 3 - i } else { corrector };
            let warm = (i - 2).min(most) + 2;
            let p = corrector.min(final_).min(warm).min(1 + usable(&d.pts, i - 1, corrector.min(i - 1)));
            let v = if d.pts[i - 2].is_inner() { step(&d, i - 1, i - 1, p, x, &m) } else { seen.v() };
            x = d.step(v, i - 1, Label::Corrected);
        } else if i > 1 {
            x = seen;
        }
        let p = if lower { order.min(n + 1 - i) } else { order };
        let p = usable(&d.pts, i, p.min((i - 1).min(most) + 1));
        let v = step(&d, i, i - 1, p, x, &m);
        let end = i == n || corrector == 0;
        seen = if end { d.step(v, i, Label::Step) } else { d.inner(v, &d.pts[i].t.clone(), Label::Predicted) };
    }
    d.finish(seen)
}
