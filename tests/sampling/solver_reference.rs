//! Every solver and option without reference numbers against step-by-step implementations written from the papers, on
//! plain vectors, and finite-difference gradients for all. Where a method integrates an interpolating polynomial, the check
//! integrates that polynomial by brute force.
use crate::common::*;
use crate::methods::*;
use crate::simple::Simple;
use crate::small::small;
use candle_core::{Device, Tensor};
use ld3sh::denoise::{Cond, Denoiser, Prediction, Query};
use ld3sh::discretize::Schedule;
use ld3sh::noise::Noise;
use ld3sh::plan::{SolveOptions, Tracked, rows};
use ld3sh::real::Real;
use ld3sh::solve::Solver;
use ld3sh::tensor::grad;
use std::rc::Rc;

type V = Vec<f64>;

/// Σ c v.
fn lin(terms: &[(f64, &V)]) -> V {
    let mut out = vec![0.0; terms[0].1.len()];
    for (c, v) in terms {
        out.iter_mut().zip(*v).for_each(|(o, x)| *o += c * x);
    }
    out
}

/// One case: a noise schedule, steps, decoupled evaluation times, a start, a denoiser.
struct Case {
    net: Rc<Gmm>,
    noise: Noise,
    t: Vec<f64>,
    t_eval: Vec<f64>,
    x: V,
}

const ROWS: usize = 2;

impl Case {
    fn new(name: &str, n: usize) -> Case {
        let noise = Simple::make(name);
        // uneven steps over a stretch that all schedules have
        let (hi, lo): (f64, f64) = match name {
            "ve_edm" => (40.0, 0.02),
            "flow" => (0.97, 0.02),
            _ => (0.98, 0.013),
        };
        let t: Vec<f64> = (0..=n)
            .map(|i| {
                let u = i as f64 / n as f64;
                let u = u + 0.06 * (7.0 * u).sin() * (1.0 - u) * u;
                (hi.powf(1.0 / 3.0) * (1.0 - u) + lo.powf(1.0 / 3.0) * u).powi(3)
            })
            .collect();
        let t_eval = t.iter().enumerate().map(|(i, t)| t * (1.0 + 0.004 * (1.0 + i as f64).cos())).collect();
        Case { net: small(noise.clone()), noise, t, t_eval, x: vec![3.1, -1.7, -0.4, 2.2] }
    }
    fn a(&self, t: f64) -> f64 {
        self.noise.alpha(&t.into()).v()
    }
    fn s(&self, t: f64) -> f64 {
        self.noise.sigma(&t.into()).v()
    }
    fn l(&self, t: f64) -> f64 {
        self.noise.lambda(&t.into()).v()
    }
    fn tl(&self, l: f64) -> f64 {
        self.noise.inverse_lambda(&l.into()).v()
    }
    fn tensor(&self, x: &V) -> Tensor {
        Tensor::from_vec(x.clone(), (ROWS, 1, 1, 2), &Device::Cpu).unwrap()
    }
    fn eval(&self, x: &V, t: f64, want: Prediction) -> V {
        let q = Query { x: &(&self.tensor(x)).into(), t: &[t], cond: &Cond::None };
        values(&self.net.eval(&HOST, &q, want).unwrap().into_tensor().unwrap())
    }
    fn eps(&self, x: &V, t: f64) -> V {
        self.eval(x, t, Prediction::Noise)
    }
    fn data(&self, x: &V, t: f64) -> V {
        self.eval(x, t, Prediction::Data)
    }
    fn noise_column(&self, c: usize) -> V {
        values(&rows::normal_like(5, 0, c, &self.tensor(&self.x)).unwrap())
    }
    fn n(&self) -> usize {
        self.t.len() - 1
    }
    fn steps(&self) -> impl Iterator<Item = (usize, f64, f64)> + '_ {
        (0..self.n()).map(|i| (i, self.t[i], self.t[i + 1]))
    }
    fn plan(&self, solver: &Solver) -> Tracked {
        Solver::plan(solver, &self.schedule(&self.t, &self.t_eval)).unwrap()
    }
    fn schedule(&self, t: &[f64], t_eval: &[f64]) -> Schedule {
        let of = |v: &[f64]| Tensor::from_slice(v, v.len(), &Device::Cpu).unwrap();
        Schedule {
            noise: self.noise.clone(),
            t: of(t),
            t_eval: Some(of(t_eval)),
            name: "test".into(),
            record: Default::default(),
        }
    }

    /// The exact step s → t when the prediction is the polynomial in u(λ) through `nodes`: composite Gauss quadrature.
    fn integrate(&self, x: &V, s: f64, t: f64, want: Prediction, nodes: &[(f64, V)], u: &dyn Fn(f64) -> f64) -> V {
        let (ls, lt) = (self.l(s), self.l(t));
        let panels = 400;
        let w = (lt - ls) / panels as f64;
        let mut sum = vec![0.0; x.len()];
        for p in 0..panels {
            for g in [-(0.6f64.sqrt()), 0.0, 0.6f64.sqrt()] {
                let l = ls + w * (p as f64 + 0.5 + g / 2.0);
                let weight = w / 2.0 * if g == 0.0 { 8.0 / 9.0 } else { 5.0 / 9.0 };
                let e = if want == Prediction::Data { l.exp() } else { (-l).exp() };
                for (j, (uj, m)) in nodes.iter().enumerate() {
                    let mut c = weight * e;
                    for (k, (uk, _)) in nodes.iter().enumerate() {
                        if k != j {
                            c *= (u(l) - uk) / (uj - uk);
                        }
                    }
                    sum.iter_mut().zip(m).for_each(|(s, m)| *s += c * m);
                }
            }
        }
        match want {
            Prediction::Data => lin(&[(self.s(t) / self.s(s), x), (self.s(t), &sum)]),
            Prediction::Noise => lin(&[(self.a(t) / self.a(s), x), (-self.a(t), &sum)]),
        }
    }
    fn in_lambda(&self, x: &V, s: f64, t: f64, want: Prediction, nodes: &[(f64, V)]) -> V {
        let nodes: Vec<(f64, V)> = nodes.iter().map(|(t, m)| (self.l(*t), m.clone())).collect();
        self.integrate(x, s, t, want, &nodes, &|l| l)
    }
}

// ---- the methods, step by step ------------------------------------------------------------------------------------

fn slope(c: &Case, x: &V, t: f64, told: f64) -> V {
    // dx/dt = f x + g²/(2σ) ε
    let t = Real::from(t);
    let f = c.noise.dlog_alpha(&t).v();
    let g2 = -2.0 * c.noise.sigma(&t).v().powi(2) * c.noise.dlambda(&t).v();
    lin(&[(f, x), (g2 / (2.0 * c.noise.sigma(&t).v()), &c.eps(x, told))])
}

fn heun(c: &Case, odd: bool, churn: Option<Churn>) -> V {
    let mut x = c.x.clone();
    let mut column = 0;
    for (i, mut s, t) in c.steps() {
        let mut told = c.t_eval[i];
        if let Some(k) = churn {
            let sigma = c.s(s) / c.a(s);
            let gamma = if sigma >= k.s_min && sigma <= k.s_max {
                (k.s_churn / c.n() as f64).min(2f64.sqrt() - 1.0)
            } else {
                0.0
            };
            if gamma > 0.0 {
                let hat = sigma * (1.0 + gamma);
                let t_hat = c.tl(-hat.ln());
                let z = c.noise_column(column);
                column += 1;
                let up = c.a(t_hat) * (hat * hat - sigma * sigma).sqrt() * k.s_noise;
                x = lin(&[(c.a(t_hat) / c.a(s), &x), (up, &z)]);
                (s, told) = (t_hat, t_hat);
            }
        }
        let d = slope(c, &x, s, told);
        let e = lin(&[(1.0, &x), (t - s, &d)]);
        x = if odd && i + 1 == c.n() {
            e
        } else {
            let d2 = slope(c, &e, t, c.t_eval[i + 1]);
            lin(&[(1.0, &x), ((t - s) / 2.0, &d), ((t - s) / 2.0, &d2)])
        };
    }
    x
}

fn ddim(c: &Case, eta: f64) -> V {
    let mut x = c.x.clone();
    for (i, s, t) in c.steps() {
        let e = c.eps(&x, c.t_eval[i]);
        let x0 = lin(&[(1.0 / c.a(s), &x), (-c.s(s) / c.a(s), &e)]);
        let var = c.s(s).powi(2) - (c.s(t) * c.a(s) / c.a(t)).powi(2);
        let up = eta * c.s(t) / c.s(s) * var.sqrt();
        let z = if eta > 0.0 { c.noise_column(i) } else { vec![0.0; 4] };
        x = lin(&[(c.a(t), &x0), ((c.s(t).powi(2) - up * up).sqrt(), &e), (up, &z)]);
    }
    x
}

/// DPM-Solver and DPM-Solver++ singlestep; orders from `list`.
fn singlestep(c: &Case, list: &[usize], want: Prediction, taylor: bool, r: (Option<f64>, Option<f64>)) -> V {
    let mut x = c.x.clone();
    for ((i, s, t), order) in c.steps().zip(list) {
        let (ls, h) = (c.l(s), c.l(t) - c.l(s));
        let m = c.eval(&x, c.t_eval[i], want);
        let first = |to: f64, m: &V| match want {
            Prediction::Data => lin(&[(c.s(to) / c.s(s), &x), (-c.a(to) * (-(c.l(to) - ls)).exp_m1(), m)]),
            Prediction::Noise => lin(&[(c.a(to) / c.a(s), &x), (-c.s(to) * (c.l(to) - ls).exp_m1(), m)]),
        };
        x = match order {
            1 => first(t, &m),
            2 => {
                let r1 = r.0.unwrap_or(0.5);
                let s1 = c.tl(ls + r1 * h);
                let m1 = c.eval(&first(s1, &m), s1, want);
                match taylor {
                    true => c.in_lambda(&x, s, t, want, &[(s, m), (s1, m1)]),
                    // the prediction used is m + (m1 − m)/(2 r1)
                    false => first(t, &lin(&[(1.0 - 0.5 / r1, &m), (0.5 / r1, &m1)])),
                }
            }
            _ => {
                let (r1, r2) = (r.0.unwrap_or(1.0 / 3.0), r.1.unwrap_or(2.0 / 3.0));
                let (s1, s2) = (c.tl(ls + r1 * h), c.tl(ls + r2 * h));
                let m1 = c.eval(&first(s1, &m), s1, want);
                let x2 = c.in_lambda(&x, s, s2, want, &[(s, m.clone()), (s1, m1.clone())]);
                let m2 = c.eval(&x2, s2, want);
                match taylor {
                    true => c.in_lambda(&x, s, t, want, &[(s, m), (s1, m1), (s2, m2)]),
                    false => c.in_lambda(&x, s, t, want, &[(s, m), (s2, m2)]),
                }
            }
        };
    }
    x
}

fn order_of(order: usize, i: usize, n: usize, lower: bool) -> usize {
    let order = order.min(n);
    if i + 1 < order {
        i + 1
    } else if lower {
        order.min(n - i)
    } else {
        order
    }
}

fn dpmpp(c: &Case, order: usize, taylor: bool, lower: bool) -> V {
    let mut x = c.x.clone();
    let mut m: Vec<(f64, V)> = vec![];
    for (i, s, t) in c.steps() {
        m.insert(0, (s, c.data(&x, c.t_eval[i])));
        let p = order_of(order, i, c.n(), lower);
        let h = c.l(t) - c.l(s);
        x = if p == 1 || taylor {
            c.in_lambda(&x, s, t, Prediction::Data, &m[..p])
        } else if p == 2 {
            let r0 = (c.l(s) - c.l(m[1].0)) / h;
            let d = lin(&[(1.0 + 0.5 / r0, &m[0].1), (-0.5 / r0, &m[1].1)]);
            lin(&[(c.s(t) / c.s(s), &x), (-c.a(t) * (-h).exp_m1(), &d)])
        } else {
            let (r0, r1) = ((c.l(s) - c.l(m[1].0)) / h, (c.l(m[1].0) - c.l(m[2].0)) / h);
            let d10 = lin(&[(1.0 / r0, &m[0].1), (-1.0 / r0, &m[1].1)]);
            let d11 = lin(&[(1.0 / r1, &m[1].1), (-1.0 / r1, &m[2].1)]);
            let d1 = lin(&[(1.0 + r0 / (r0 + r1), &d10), (-r0 / (r0 + r1), &d11)]);
            let d2 = lin(&[(1.0 / (r0 + r1), &d10), (-1.0 / (r0 + r1), &d11)]);
            let e = (-h).exp_m1();
            let a = c.a(t);
            lin(&[
                (c.s(t) / c.s(s), &x),
                (-a * e, &m[0].1),
                (a * (e / h + 1.0), &d1),
                (-a * ((e + h) / (h * h) - 0.5), &d2),
            ])
        };
    }
    x
}

fn unipc(c: &Case, order: usize, o: &UnipcOptions) -> V {
    let want = o.predicts;
    let mut x = c.x.clone();
    let mut m: Vec<(f64, V)> = vec![(c.t[0], c.eval(&x, c.t_eval[0], want))];
    for (i, s, t) in c.steps() {
        let p = order_of(order, i, c.n(), o.lower_order_final);
        let h = c.l(t) - c.l(s);
        let z = if want == Prediction::Data { -h } else { h };
        let b = if o.variant == Variant::Bh1 { z } else { z.exp_m1() };
        let (a, e) = match want {
            Prediction::Data => (c.s(t) / c.s(s), c.a(t)),
            Prediction::Noise => (c.a(t) / c.a(s), c.s(t)),
        };
        let base = lin(&[(a, &x), (-e * z.exp_m1(), &m[0].1)]);
        // orders 1 and 2 have their own simplified forms; from 3 on the method integrates the interpolating polynomial
        let guess = match p {
            1 => base.clone(),
            2 => {
                let r = (c.l(m[1].0) - c.l(s)) / h;
                lin(&[(1.0, &base), (-e * b * 0.5 / r, &m[1].1), (e * b * 0.5 / r, &m[0].1)])
            }
            _ => c.in_lambda(&x, s, t, want, &m[..p]),
        };
        if i + 1 == c.n() {
            return guess;
        }
        let next = c.eval(&guess, c.t_eval[i + 1], want);
        x = match (o.corrector, p) {
            (false, _) => guess,
            (true, 1) => lin(&[(1.0, &base), (-e * b * 0.5, &next), (e * b * 0.5, &m[0].1)]),
            (true, _) => {
                let mut nodes = m[..p].to_vec();
                nodes.push((t, next.clone()));
                c.in_lambda(&x, s, t, want, &nodes)
            }
        };
        m.insert(0, (t, next));
    }
    x
}

/// Adams–Bashforth in σ/α or in t, integrated by brute force.
fn adams(c: &Case, order: usize, in_time: bool) -> V {
    let mut x = c.x.clone();
    let mut m: Vec<(f64, V)> = vec![];
    for (i, s, t) in c.steps() {
        m.insert(0, (s, c.eps(&x, c.t_eval[i])));
        m.truncate(order);
        let nodes: Vec<(f64, V)> =
            m.iter().map(|(t, e)| (if in_time { *t } else { (-c.l(*t)).exp() }, e.clone())).collect();
        let u: &dyn Fn(f64) -> f64 = if in_time { &|l| c.tl(l) } else { &|l: f64| (-l).exp() };
        x = c.integrate(&x, s, t, Prediction::Noise, &nodes, u);
    }
    x
}

/// k-diffusion's sample_dpmpp_2m_sde, carried over from x/α to x.
fn sde(c: &Case, o: &SdeOptions) -> V {
    let mut x = c.x.clone();
    let mut old: Option<(f64, V)> = None;
    for (i, s, t) in c.steps() {
        let m = c.data(&x, c.t_eval[i]);
        let h = c.l(t) - c.l(s);
        let eta_h = o.eta * h;
        let mut next = lin(&[(c.s(t) / c.s(s) * (-eta_h).exp(), &x), (-c.a(t) * (-h - eta_h).exp_m1(), &m)]);
        if let Some((h_last, old)) = old.filter(|_| !(o.lower_order_final && i + 1 == c.n())) {
            let r = h_last / h;
            let k = match o.solver_type {
                Expansion::Taylor => (-(-h - eta_h).exp_m1() / (-h - eta_h) + 1.0) / r,
                Expansion::Midpoint => 0.5 * -(-h - eta_h).exp_m1() / r,
            };
            next = lin(&[(1.0, &next), (c.a(t) * k, &m), (-c.a(t) * k, &old)]);
        }
        if o.eta > 0.0 {
            let z = c.noise_column(i);
            next = lin(&[(1.0, &next), (c.s(t) * (-(-2.0 * eta_h).exp_m1()).sqrt() * o.s_noise, &z)]);
        }
        old = Some((h, m));
        x = next;
    }
    x
}

// ---- the comparison -----------------------------------------------------------------------------------------------

fn options() -> SolveOptions {
    SolveOptions { seed: 5, ..SolveOptions::default() }
}

fn compare(name: &str, n: usize, solver: impl Into<Solver>, expected: impl Fn(&Case) -> V) {
    let c = Case::new(name, n);
    let solver = solver.into();
    let plan = c.plan(&solver);
    let got = plan.solve(&dynamic(&c.net), &HOST, &(&c.tensor(&c.x)).into(), &options(), None).unwrap();
    let d = distance(&values(got.x.tensor().unwrap()), &expected(&c));
    assert!(d < 1e-10, "{name}, {n} steps, {}: {d:e}", plan.plan().name);
    if n > 2 {
        gradients(&c, &solver);
    }
}

/// ⟨x_0, cotangent⟩ and its gradients in t, t_eval, x_T and the coefficients against central differences.
fn gradients(c: &Case, solver: &Solver) {
    let cot = c.tensor(&vec![0.7, -1.1, 0.4, 0.9]);
    let loss = |plan: &Tracked, x: &Tensor| {
        let x0 = plan.solve(&dynamic(&c.net), &HOST, &(x).into(), &options(), None).unwrap().x.into_tensor().unwrap();
        (x0 * &cot).unwrap().sum_all().unwrap()
    };
    let at = |t: &[f64], te: &[f64], x: &V| -> f64 {
        let plan = Solver::plan(solver, &c.schedule(t, te)).unwrap();
        loss(&plan, &c.tensor(x)).to_scalar().unwrap()
    };
    let mut s = c.schedule(&c.t, &c.t_eval);
    let (t, te) = (grad::variable(&s.t).unwrap(), grad::variable(s.t_eval.as_ref().unwrap()).unwrap());
    (s.t, s.t_eval) = (t.clone(), Some(te.clone()));
    let x = grad::variable(&c.tensor(&c.x)).unwrap();
    let plan = solver.plan(&s).unwrap();
    let name = &plan.plan().name;
    let g = grad::grad(&HOST, &loss(&plan, &x), &[t, te, x]).unwrap();
    let central = |v: &[f64], step: f64, f: &dyn Fn(&[f64]) -> f64| -> V {
        (0..v.len())
            .map(|i| {
                // fourth order: second differences of the expanded coefficients are large
                let h = step * (v[i].abs() + if step < 1e-6 { 0.1 } else { 1e-3 });
                let mut w = v.to_vec();
                let mut at = |d: f64| {
                    w[i] = v[i] + d;
                    f(&w)
                };
                (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
            })
            .collect()
    };
    let check = |what: &str, got: &[f64], want: &[f64]| {
        let d = distance(got, want);
        assert!(d < 2e-6, "{} {name}: {what} {d:e}\n{got:?}\n{want:?}", c.noise.name());
    };
    check("grad t", &values(&g[0]), &central(&c.t, 4e-6, &|v| at(v, &c.t_eval, &c.x)));
    check("grad t_eval", &values(&g[1]), &central(&c.t_eval, 4e-6, &|v| at(&c.t, v, &c.x)));
    check("grad x_T", &values(&g[2]), &central(&c.x, 4e-6, &|v| at(&c.t, &c.t_eval, &v.to_vec())));
    // coefficients: the entries below the diagonal, as the solver has them
    let plan = c.plan(solver);
    let a0 = plan.matrix().unwrap();
    let shape = a0.dims().to_vec();
    let a = grad::variable(&a0).unwrap();
    let edited = plan.with_matrix(&a).unwrap();
    let ga = values(&grad::grad(&HOST, &loss(&edited, &c.tensor(&c.x)), &[a]).unwrap()[0]);
    let entries: Vec<usize> = (0..ga.len())
        .filter(|i| {
            let (r, k) = (i / shape[1], i % shape[1]);
            k <= r || k >= shape[0]
        })
        .collect();
    let v = values(&a0);
    let fd = central(&entries.iter().map(|i| v[*i]).collect::<Vec<_>>(), 4e-7, &|w| {
        let mut full = v.clone();
        entries.iter().zip(w).for_each(|(i, w)| full[*i] = *w);
        let a = Tensor::from_vec(full, shape.clone(), &Device::Cpu).unwrap();
        loss(&plan.with_matrix(&a).unwrap(), &c.tensor(&c.x)).to_scalar().unwrap()
    });
    check("grad A", &entries.iter().map(|i| ga[*i]).collect::<Vec<_>>(), &fd);
}

const SCHEDULES: [&str; 3] = ["ve_edm", "vp_linear", "flow"];

#[test]
fn euler_ddim_and_heun() {
    for name in SCHEDULES {
        compare(name, 5, Method::Euler, |c| {
            c.steps().fold(c.x.clone(), |x, (i, s, t)| lin(&[(1.0, &x), (t - s, &slope(c, &x, s, c.t_eval[i]))]))
        });
        for eta in [0.0, 0.6, 1.0] {
            compare(name, 5, Method::Ddim { eta }, |c| ddim(c, eta));
        }
        compare(name, 4, Method::Heun { nfe: None }, |c| heun(c, false, None));
        compare(name, 4, Method::Heun { nfe: Some(8) }, |c| heun(c, false, None));
        compare(name, 4, Method::Heun { nfe: Some(7) }, |c| heun(c, true, None));
    }
}

#[test]
fn edm_churn() {
    for name in SCHEDULES {
        for churn in [
            Churn::default(),
            Churn { s_churn: 1.2, s_min: 0.05, s_max: 10.0, s_noise: 1.003 },
            Churn { s_churn: 40.0, ..Churn::default() },
        ] {
            compare(name, 4, Method::EdmStochastic { churn, nfe: None }, |c| heun(c, false, Some(churn)));
            compare(name, 4, Method::EdmStochastic { churn, nfe: Some(7) }, |c| heun(c, true, Some(churn)));
        }
    }
}

#[test]
fn dpm_solver_and_dpm_solver_pp_singlestep() {
    for name in SCHEDULES {
        for (order, nfe, list) in [
            (1, None, vec![1, 1, 1]),
            (2, None, vec![2, 2, 2]),
            (3, None, vec![3, 3, 3]),
            (2, Some(5), vec![2, 2, 1]),
            (2, Some(6), vec![2, 2, 2]),
            (3, Some(6), vec![3, 2, 1]),
            (3, Some(7), vec![3, 3, 1]),
            (3, Some(8), vec![3, 3, 2]),
        ] {
            for (solver_type, r1, r2) in [
                (Expansion::Midpoint, None, None),
                (Expansion::Taylor, None, None),
                (Expansion::Midpoint, Some(0.4), Some(0.75)),
            ] {
                let options = SinglestepOptions { solver_type, r1, r2 };
                let taylor = solver_type == Expansion::Taylor;
                compare(name, 3, Method::Dpm { order, nfe, options }, |c| {
                    singlestep(c, &list, Prediction::Noise, taylor, (r1, r2))
                });
                compare(name, 3, Method::DpmppSinglestep { order, nfe, options }, |c| {
                    singlestep(c, &list, Prediction::Data, taylor, (r1, r2))
                });
            }
        }
    }
}

#[test]
fn dpm_solver_pp_multistep() {
    for name in SCHEDULES {
        for n in [1, 2, 6] {
            for order in 1..=3 {
                for (solver_type, taylor) in [(Expansion::Midpoint, false), (Expansion::Taylor, true)] {
                    for lower_order_final in [true, false] {
                        let options = MultistepOptions { solver_type, lower_order_final };
                        compare(name, n, Method::Dpmpp { order, options }, |c| {
                            dpmpp(c, order, taylor, lower_order_final)
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn unipc_of_any_order() {
    for name in SCHEDULES {
        for n in [2, 6] {
            for order in 1..=5 {
                for variant in [Variant::Bh1, Variant::Bh2] {
                    for (corrector, lower_order_final) in [(true, true), (true, false), (false, true)] {
                        for predicts in [Prediction::Data, Prediction::Noise] {
                            if (predicts == Prediction::Noise || !lower_order_final) && variant == Variant::Bh1 && n < 6
                            {
                                continue;
                            }
                            let options = UnipcOptions { variant, corrector, lower_order_final, predicts };
                            compare(name, n, Method::Unipc { order, options }, |c| unipc(c, order, &options));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn adams_bashforth_in_sigma_and_deis() {
    for name in SCHEDULES {
        for order in 1..=4 {
            compare(name, 6, Method::IpndmV { order }, |c| adams(c, order, false));
            compare(name, 6, Method::Deis { order }, |c| adams(c, order, true));
        }
    }
}

#[test]
fn ipndm_of_order_one_is_ddim() {
    for name in SCHEDULES {
        compare(name, 4, Method::Ipndm { order: 1 }, |c| ddim(c, 0.0));
    }
}

#[test]
fn sde_dpm_solver_pp() {
    for name in SCHEDULES {
        for eta in [0.0, 0.5, 1.0] {
            for solver_type in [Expansion::Midpoint, Expansion::Taylor] {
                for lower_order_final in [false, true] {
                    let options = SdeOptions { solver_type, eta, s_noise: 1.01, lower_order_final };
                    compare(name, 5, Method::SdeDpmpp { options }, |c| sde(c, &options));
                }
            }
        }
    }
}

#[test]
fn analytical_first_step_and_denoise_to_zero() {
    // AFS: the solver with its first evaluation replaced, seen through the plan's matrix; denoise_to_zero: one more evaluation
    for name in SCHEDULES {
        let methods = [
            Method::Euler,
            Method::Ddim { eta: 0.0 },
            Method::Heun { nfe: None },
            Method::Dpm { order: 2, nfe: None, options: SinglestepOptions::default() },
            Method::Dpmpp { order: 3, options: MultistepOptions::default() },
            Method::Unipc { order: 3, options: UnipcOptions::default() },
            Method::Ipndm { order: 3 },
            Method::IpndmV { order: 3 },
            Method::Deis { order: 3 },
            Method::SdeDpmpp { options: SdeOptions::default() },
        ];
        for method in methods {
            let c = Case::new(name, 4);
            let plain: Solver = method.into();
            let afs = with_ends(&plain, true, false);
            // substitute m_1 = x_T · k into the plain plan's matrix
            let m = c.plan(&plain);
            let (a, s) = (c.a(c.t[0]), c.s(c.t[0]));
            let root = a.hypot(s);
            let k = match m.plan().evals[0].want {
                Prediction::Noise => 1.0 / root,
                Prediction::Data => (1.0 - s / root) / a,
            };
            let rows: Vec<V> = m.plan().matrix()[1..]
                .iter()
                .map(|r| {
                    let r: V = r.iter().map(Real::v).collect();
                    [&[r[0] + k * r[1]], &r[2..]].concat()
                })
                .collect();
            let got: Vec<V> = c.plan(&afs).plan().matrix().iter().map(|r| r.iter().map(Real::v).collect()).collect();
            assert!(distance(&got.concat(), &rows.concat()) < 1e-10, "{name} {}", afs.describe());
            gradients(&c, &afs);
            let zero = with_ends(&plain, false, true);
            let x = c
                .plan(&plain)
                .solve(&dynamic(&c.net), &HOST, &(&c.tensor(&c.x)).into(), &options(), None)
                .unwrap()
                .x
                .into_tensor()
                .unwrap();
            let want = c.data(&values(&x), c.t_eval[4]);
            let got = c
                .plan(&zero)
                .solve(&dynamic(&c.net), &HOST, &(&c.tensor(&c.x)).into(), &options(), None)
                .unwrap()
                .x
                .into_tensor()
                .unwrap();
            assert!(distance(&values(&got), &want) < 1e-10, "{name} {}", zero.describe());
            gradients(&c, &zero);
        }
    }
}
