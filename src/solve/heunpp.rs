//! Heun++ (heunpp2 of ComfyUI and Forge): Heun's method with a second look ahead, weighted by noise levels. In VE scaling.
use super::expo::Expo;
use super::grid::Draft;
use super::row::{Cost, Row, any};
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Node, Plan};
use crate::real::Real;
use crate::schema::{Values, count};
use crate::{Error, Result};

pub(super) static HEUNPP: Row = Row {
    name: "heunpp2",
    title: "Heun++ of ComfyUI and Forge: slopes at the next two noise levels, weighted by these levels",
    notes: "Of first order: the weights depend on the first noise level of the list.",
    example: "`solver::heunpp2().plan(schedule::edm(noise::edm(), 4)).nfe` is 9",
    order: 1,
    cost: Cost::Tapered,
    options: &[count(
        "nfe",
        0,
        [0, usize::MAX],
        "evaluations; looks ahead that are too many are left out from the end on",
    )
    .or("as many as the steps take")],
    forms: &[],
    check: any,
    plan,
};

/// The state at step end `i` from `x` at step end `i - 1`, along noise prediction `e`.
fn along(d: &Draft, i: usize, x: Node, e: &Lin) -> Lin {
    let step = Expo::new(&d.pts[i - 1], &d.pts[i], Prediction::Noise);
    x * &step.a - e * &step.first
}

/// The looks ahead of each of `n` steps: none in the last, one in the last but one, else two; fewer from the end on for a number of
/// evaluations.
fn looks(n: usize, evaluations: Option<usize>) -> Result<Vec<usize>> {
    let mut looks: Vec<usize> = (1..=n).map(|i| (n - i).min(2)).collect();
    let all = n + looks.iter().sum::<usize>();
    let Some(surplus) = all.checked_sub(evaluations.unwrap_or(all)).filter(|s| *s < 3) else {
        let m = format!("{} evaluations do not take {n} steps", evaluations.unwrap_or(all));
        return Err(Error::value(m).hint("make the schedule with `solver.steps(nfe)` steps"));
    };
    for _ in 0..surplus {
        if let Some(last) = looks.iter_mut().rev().find(|l| **l > 0) {
            *last -= 1;
        }
    }
    Ok(looks)
}

fn plan(mut d: Draft, _: &Values) -> Result<Plan> {
    let n = d.steps();
    let mut x = d.start();
    let level = |d: &Draft, i: usize| &d.pts[i].sigma / &d.pts[i].alpha;
    let first = level(&d, 0);
    let looks_of = looks(n, d.evaluations)?;
    for i in 1..=n {
        let (straight, e1) = d.first_order(x, i, Prediction::Noise);
        let looks = looks_of[i - 1];
        let mut slopes = vec![e1];
        let mut at = x;
        for k in 0..looks {
            let v = if k == 0 { straight.clone() } else { along(&d, i + k, at, &slopes[k]) };
            let t = d.pts[i + k].t.clone();
            at = d.inner(v, &t, Label::Predicted);
            slopes.push(d.eval(at, i + k, Prediction::Noise));
        }
        let whole = &first * (looks + 1) as f64;
        let ahead: Vec<Real> = (0..looks).map(|k| level(&d, i + k) / &whole).collect();
        let own = ahead.iter().fold(Real::from(1.0), |own, w| own - w);
        let weights = [own].into_iter().chain(ahead);
        let e = slopes.iter().zip(weights).fold(Lin::default(), |sum, (e, w)| sum + e * w);
        // from pure noise the weights of what lies ahead vanish
        let v = if d.pts[i - 1].is_inner() { along(&d, i, x, &e) } else { straight };
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}
