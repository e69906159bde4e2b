//! Adams–Bashforth solvers on the noise prediction: iPNDM with the weights of equal steps (Zhang & Chen 2023; Liu et
//! al. 2022), iPNDM-v with those of the actual steps in the VE noise level, and DEIS tAB (Zhang & Chen 2023, eq. 15), which
//! extrapolates in t and integrates exactly; and the latter two as other tools compute them.
use super::expo::Expo;
use super::grid::{Draft, order_at};
use super::row::{Cost, Row, any};
use crate::Result;
use crate::denoise::Prediction;
use crate::plan::{Label, Lin, Plan};
use crate::real::Real;
use crate::schema::{Opt, Values, count, word};

const ORDER: Opt = count("order", 3, [1, 4], "the number of predictions used").always("{}");

/// iPNDM.
pub static IPNDM: Row = Row {
    name: "ipndm",
    title: "iPNDM: Adams–Bashforth weights for equal steps on the noise prediction",
    notes: "Zhang & Chen, 2023; Liu et al., 2022.",
    example: "`solver::ipndm(#{ order: 3 })`",
    order: 3,
    cost: Cost::One,
    options: &[ORDER],
    forms: &[],
    check: any,
    plan: |d, o| plan(d, o, Weights::Equal),
};

pub(super) static IPNDM_V: Row = Row {
    name: "ipndm_v",
    title: "iPNDM with Adams–Bashforth weights for the actual steps in the VE noise level",
    notes: "k-diffusion's `lms`. The `ipndm_v` of ComfyUI, Forge and diff-sampler has a bracket misplaced in the terms of orders 3 and 4: \
            `compat: \"k-diffusion\"` does the same.",
    example: "`solver::ipndm_v(#{ order: 4 })`",
    options: &[
        ORDER,
        word("compat", &["exact", "k-diffusion"], "\"k-diffusion\": as the `ipndm_v` of tools").said("{}"),
    ],
    plan: |d, o| plan(d, o, if o.is("compat", "k-diffusion") { Weights::Misplaced } else { Weights::Sigma }),
    ..IPNDM
};

pub(super) static LMS: Row = Row {
    name: "lms",
    title: "LMS of k-diffusion: Adams–Bashforth weights for the actual steps in the VE noise level",
    notes: "The same as `solver::ipndm_v`, under the name and with the order of k-diffusion and ComfyUI.",
    example: "`solver::lms().order` is 4",
    order: 4,
    options: &[count("order", 4, [1, 4], "the number of predictions used").always("{}")],
    plan: |d, o| plan(d, o, Weights::Sigma),
    ..IPNDM
};

pub(super) static DEIS: Row = Row {
    name: "deis",
    title: "DEIS tAB: the noise prediction extrapolated in t and integrated exactly",
    notes: "Zhang & Chen, 2023. In other tools: \"k-diffusion\" (ComfyUI, Forge) extrapolates in the time of a VP schedule fitted to σ 0.002 … 80, \
            \"diffusers\" in ln σ, with lower orders at the end below 15 steps.",
    example: "`solver::deis(#{ order: 3 })`",
    options: &[ORDER, word("compat", &["exact", "k-diffusion", "diffusers"], "in what it extrapolates").said("{}")],
    plan: |d, o| {
        let weights = [("k-diffusion", Weights::FittedTime), ("diffusers", Weights::LogSigma)];
        plan(d, o, weights.iter().find(|w| o.is("compat", w.0)).map_or(Weights::Time, |w| w.1))
    },
    ..IPNDM
};

/// Adams–Bashforth weights for equal steps, newest first.
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// How the history is weighted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weights {
    /// Those of equal steps, inside the exponential-integrator first-order update.
    Equal,
    /// The extrapolation in the VE noise level σ/α, integrated exactly.
    Sigma,
    /// The extrapolation in t, integrated over σ/α.
    Time,
    /// Those of `ipndm_v` in ComfyUI, Forge and diff-sampler.
    Misplaced,
    /// The extrapolation in the time of a VP-linear schedule fitted to σ from 0.002 to 80.
    FittedTime,
    /// The extrapolation in ln σ.
    LogSigma,
}

/// Steps from which on diffusers keeps the order to the end.
const MANY: usize = 15;

impl Weights {
    /// The number of predictions used in the step to step end `i` of `n`.
    fn order(self, order: usize, i: usize, n: usize, to_zero: bool) -> usize {
        match self {
            Weights::FittedTime if to_zero => 1,
            Weights::LogSigma if to_zero => 1,
            Weights::LogSigma => order_at(order, i, n, n < MANY),
            _ => order.min(i),
        }
    }
}

/// The weights of `ipndm_v` in ComfyUI, Forge and diff-sampler for steps of widths `h`, newest first: exact up to order 2.
fn misplaced(h: &[Real]) -> Vec<Real> {
    let h0 = &h[0];
    let Some(h1) = h.get(1) else { return vec![1.0.into()] };
    let half = h0 / h1 * 0.5;
    let (mut c0, mut c1) = (&half + 1.0, -&half);
    let [Some(h2), h3] = [h.get(2), h.get(3)] else { return vec![c0, c1] };
    // 1 − h0/(3 (h0 + h1)) × …, where (1 − h0/(3 (h0 + h1))) × … would be exact
    let third = h0 / ((h0 + h1) * 3.0);
    let a = (1.0 - &third * (h0 * (h0 + h1)) / (h1 * (h1 + h2))) * 0.5;
    let q = h1 / h2;
    c0 = c0 + &a;
    c1 = c1 - (&q + 1.0) * &a;
    let mut c2 = &a * &q;
    let Some(h3) = h3 else { return vec![c0, c1, c2] };
    let b = ((1.0 - third) * 0.5 + (1.0 - h0 / ((h0 + h1) * 2.0)) * h0 / ((h0 + h1 + h2) * 6.0))
        * (h0 * (h0 + h1) * (h0 + h1 + h2))
        / (h1 * (h1 + h2) * (h1 + h2 + h3));
    let s = h1 * (h1 + h2) / (h2 * (h2 + h3));
    c0 = c0 + &b;
    c1 = c1 - (&q + &s + 1.0) * &b;
    c2 = c2 + (&q + &s * (h2 / h3 + 1.0)) * &b;
    vec![c0, c1, c2, -(b * s * q)]
}

/// The time of the VP-linear schedule that ComfyUI's `deis` fits to σ from 0.002 to 80.
fn fitted_time(sigma: &Real) -> Real {
    let (least, most): (f64, f64) = (0.002f64.powi(2).ln_1p(), 80f64.powi(2).ln_1p());
    let rise = 2.0 * (least / 1e-3 - most) / (1e-3 - 1.0);
    let start = most - 0.5 * rise;
    ((sigma.square().ln_1p() * (2.0 * rise) + start * start).sqrt() - start) * (1.0 / rise)
}

/// N evaluations for N steps; warms up through the lower orders.
fn plan(mut d: Draft, o: &Values, weights: Weights) -> Result<Plan> {
    let order = o.count("order");
    let mut x = d.start();
    let mut eps: Vec<Lin> = vec![];
    for i in 1..=d.steps() {
        let (s, t) = (d.pts[i - 1].clone(), d.pts[i].clone());
        let (first, m) = d.first_order(x, i, Prediction::Noise);
        eps.insert(0, m);
        eps.truncate(order);
        let p = weights.order(eps.len(), i, d.steps(), t.sigma.v() == 0.0);
        if p == 1 {
            x = d.step(first, i, Label::Step);
            continue;
        }
        let step = Expo::new(&s, &t, Prediction::Noise);
        // Σ w = α_t (σ_s/α_s − σ_t/α_t): minus the coefficient of a constant prediction
        let w: Vec<Real> = if weights == Weights::Equal {
            WEIGHTS[p - 1].iter().map(|w| &step.first * *w).collect()
        } else {
            let sigma = |i: usize| &d.pts[i].sigma / &d.pts[i].alpha;
            // what was predicted without signal is at σ/α = ∞ and has no weight at finite levels
            let finite = (1..=p).map(|j| i - j).take_while(|k| d.pts[*k].alpha.v() > 0.0);
            let nodes: Vec<Real> = finite.map(sigma).collect();
            let panels = || panels_in_lambda(&sigma(i), &sigma(i - 1));
            let of = |u: &dyn Fn(&Real) -> Real| {
                let nodes: Vec<Real> = nodes.iter().map(u).collect();
                integrals(&nodes, &panels(), u)
            };
            let c = match weights {
                Weights::Time => {
                    let nodes: Vec<Real> = (0..p).map(|j| d.pts[i - 1 - j].t.clone()).collect();
                    integrals(&nodes, &panels(), |s| d.noise.t_of_sigma(s))
                }
                Weights::FittedTime => of(&fitted_time),
                Weights::LogSigma => of(&Real::ln),
                Weights::Misplaced => {
                    let h: Vec<Real> = (0..nodes.len()).map(|j| sigma(i - j) - sigma(i - 1 - j)).collect();
                    misplaced(&h).into_iter().map(|c| -(&h[0] * c)).collect()
                }
                _ => integrals(&nodes, &panels_in_sigma(&sigma(i), &nodes[0]), |s| s.clone()),
            };
            c.into_iter().map(|c| c * &t.alpha).collect()
        };
        let v = eps.iter().take(p).zip(w).fold(x * &step.a, |v, (e, w)| v - e * w);
        x = d.step(v, i, Label::Step);
    }
    d.finish(x)
}

/// Points and weights of a quadrature over σ.
pub(super) type Quadrature = Vec<(Real, Real)>;

/// ∫ L_j(u(σ)) dσ for the Lagrange polynomials L_j on `nodes`.
pub(super) fn integrals(nodes: &[Real], quadrature: &Quadrature, u: impl Fn(&Real) -> Real) -> Vec<Real> {
    let mut sums = vec![Real::from(0.0); nodes.len()];
    for (sigma, weight) in quadrature {
        let u = u(sigma);
        for (j, sum) in sums.iter_mut().enumerate() {
            let l = nodes.iter().enumerate().filter(|(k, _)| *k != j);
            let l = l.fold(weight.clone(), |l, (_, n)| l * (&u - n) / (&nodes[j] - n));
            *sum = &*sum + l;
        }
    }
    sums
}

/// Gauss–Legendre with 8 points on [-1, 1]: exact for polynomials up to degree 15.
const GAUSS: [(f64, f64); 4] = [
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_5),
    (0.960_289_856_497_536_3, 0.101_228_536_290_376_3),
];

/// One panel in σ over [lo, hi]: enough for polynomials in σ.
fn panels_in_sigma(lo: &Real, hi: &Real) -> Quadrature {
    let (mid, half) = ((hi + lo) * 0.5, (hi - lo) * 0.5);
    let signed = GAUSS.iter().flat_map(|(x, w)| [(*x, *w), (-*x, *w)]);
    signed.map(|(x, w)| (&mid + &half * x, &half * w)).collect()
}

/// Panels of equal width in ln σ over [lo, hi], none wider than 1/2, so that what is smooth in λ is integrated to rounding; from
/// σ = 0 the first panel is in σ.
pub(super) fn panels_in_lambda(lo: &Real, hi: &Real) -> Quadrature {
    let mut quadrature = vec![];
    let floor = if lo.v() > 0.0 {
        lo.clone()
    } else {
        let floor = hi * 1e-3;
        quadrature = panels_in_sigma(lo, &floor);
        floor
    };
    let (a, b) = (floor.ln(), hi.ln());
    let n = (((b.v() - a.v()) * 2.0).ceil() as usize).clamp(1, 200);
    let width = (&b - &a) * (1.0 / n as f64);
    for k in 0..n {
        let from = &a + &width * (k as f64);
        for (u, w) in panels_in_sigma(&from, &(&from + &width)) {
            let sigma = u.exp();
            quadrature.push((sigma.clone(), w * sigma));
        }
    }
    quadrature
}
