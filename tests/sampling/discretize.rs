//! Schedules and τ_ξ: reference values and gradients, properties, the exact inverse, hostile input, the script functions.
use crate::cases::cases;
use crate::caught::caught;
use candle_core::{DType, Device, Tensor};
use ld3sh::discretize::{
    BASELINES, Compat, Heuristic, Interval, Schedule, Space, TauOptions, from_function, tau, tau_inverse,
    tau_inverse_eval,
};
use ld3sh::host::Quiet;
use ld3sh::noise::{Noise, from_spec};
use ld3sh::real::host_values;
use ld3sh::tensor::grad;
use ld3sh::{Error, Kind};
use proptest::prelude::*;
use rhai::{Dynamic, Engine, Scope};
use serde_json::{Value, json};

fn noise(name: &str) -> Noise {
    let spec = match name {
        "ve_edm" => json!({"name": "edm"}),
        "vp_discrete_sd" => json!({"name": "vp_discrete", "preset": "sd"}),
        name => json!({"name": name}),
    };
    from_spec(&spec).unwrap()
}

fn fixture(part: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../fixtures/discretize.json")).unwrap();
    all[part].as_array().unwrap().clone()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn tensor(v: &[f64]) -> Tensor {
    Tensor::new(v, &Device::Cpu).unwrap()
}

/// The largest difference, relative to each entry (to the largest entry, where `of_largest`).
fn error(ours: &[f64], want: &[f64], of_largest: bool) -> f64 {
    assert_eq!(ours.len(), want.len());
    let largest = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
    ours.iter()
        .zip(want)
        .map(|(a, b)| (a - b).abs() / if of_largest { largest } else { b.abs() }.max(1e-300))
        .fold(0.0, f64::max)
}

#[test]
fn heuristics_match_the_reference() {
    let (mut rows, mut worst) = (0, 0.0f64);
    for row in fixture("discretizations") {
        let name = match row["kind"].as_str().unwrap() {
            "time_uniform" => "uniform",
            "time_quadratic" => "quadratic",
            "logSNR" => "logsnr",
            "edm" => "edm",
            _ => continue,
        };
        let n = row["nfe"].as_u64().unwrap() as usize;
        let noise = noise(row["schedule"].as_str().unwrap());
        let s = Heuristic::named(name).unwrap().schedule(&noise, n, Interval::default()).unwrap();
        assert_eq!((s.nfe(), s.name.as_str()), (n, name));
        let e = error(&s.times().unwrap(), &numbers(&row["t"]), false);
        assert!(e < 1e-9, "{name} on {} with {n}: {e}", row["schedule"]);
        (rows, worst) = (rows + 1, worst.max(e));
    }
    assert_eq!(rows, 48);
    println!("{rows} rows, worst relative error {worst:.1e}");
}

#[test]
fn tau_matches_the_reference() {
    let rows = fixture("tau");
    assert_eq!(rows.len(), 12);
    let mut worst = [0.0f64; 4];
    for row in rows {
        let noise = noise(row["schedule"].as_str().unwrap());
        let var = |key: &str| grad::variable(&tensor(&numbers(&row[key]))).unwrap();
        let (xi, xi_c) = (var("xi"), var("xi_c"));
        let opts = TauOptions {
            space: Some(Space::named(row["mode"].as_str().unwrap()).unwrap()),
            compat: Compat::Reference,
            ..TauOptions::default()
        };
        let s = tau(&noise, &xi, Some(&xi_c), &opts).unwrap();
        let t_eval = s.t_eval.clone().unwrap();
        let cots = [(s.t.clone(), tensor(&numbers(&row["cot_t"]))), (t_eval, tensor(&numbers(&row["cot_t_eval"])))];
        let g = grad::vjp(&Quiet, &cots, &[xi, xi_c]).unwrap();
        let errors = [
            error(&s.times().unwrap(), &numbers(&row["t"]), false),
            error(&s.eval_times().unwrap(), &numbers(&row["t_eval"]), false),
            error(&host_values(&g[0]).unwrap(), &numbers(&row["grad_xi"]), true),
            error(&host_values(&g[1]).unwrap(), &numbers(&row["grad_xi_c"]), true),
        ];
        for (w, e) in worst.iter_mut().zip(errors) {
            assert!(e < 1e-9, "{} in {}, NFE {}: {errors:?}", row["schedule"], row["mode"], row["nfe"]);
            *w = w.max(e);
        }
    }
    println!("worst relative errors of t, t_eval, grad xi, grad xi_c: {worst:?}");
}

#[test]
fn other_heuristics_are_what_they_say() {
    for name in ["ve_edm", "vp_linear", "vp_cosine", "vp_discrete_sd"] {
        let noise = noise(name);
        let ends = Interval { from: Some(0.9), to: Some(0.05) };
        for h in Heuristic::NAMES {
            let s = Heuristic::named(h).unwrap().schedule(&noise, 7, ends).unwrap();
            let t = s.times().unwrap();
            assert_eq!((t[0], t[7], t.len()), (0.9, 0.05, 8), "{h} on {name}");
        }
        let even = |x: Vec<f64>| {
            let d: Vec<f64> = x.windows(2).map(|w| w[1] - w[0]).collect();
            assert!(d.iter().all(|v| (v / d[0] - 1.0).abs() < 1e-8), "{name}: {d:?}");
        };
        let of = |h: Heuristic| h.schedule(&noise, 7, ends).unwrap();
        let sigmas = |s: &Schedule| host_values(&s.sigmas().unwrap()).unwrap();
        even(sigmas(&of(Heuristic::Cosine)).iter().map(|s| s.atan()).collect());
        even(sigmas(&of(Heuristic::Edm { rho: 5.0, in_sigma: true })).iter().map(|s| s.powf(0.2)).collect());
        even(of(Heuristic::Edm { rho: 5.0, in_sigma: false }).times().unwrap().iter().map(|s| s.powf(0.2)).collect());
        even(host_values(&of(Heuristic::LogSnr).lambdas().unwrap()).unwrap());
        let cubic = of(Heuristic::Polynomial { rho: 3.0 }).times().unwrap();
        even(cubic.iter().map(|t| ((t - 0.05) / 0.85).cbrt()).collect());
    }
    // on EDM's own schedule both forms are one
    let [a, b] = [true, false].map(|in_sigma| {
        let h = Heuristic::Edm { rho: 7.0, in_sigma };
        h.schedule(&noise("ve_edm"), 9, Interval::default()).unwrap().times().unwrap()
    });
    assert_eq!(a, b);
    // a flow keeps its ends, also where σ/α is infinite there
    for h in ["uniform", "quadratic", "edm", "cosine"] {
        let t = Heuristic::named(h).unwrap().schedule(&noise("flow"), 4, Interval::default()).unwrap().times().unwrap();
        assert_eq!((t[0], t[4]), (1.0, 0.0), "{h}");
    }
    for h in Heuristic::NAMES {
        assert_eq!(
            Heuristic::named(h).unwrap().schedule(&noise("vp_linear"), 1, Interval::default()).unwrap().nfe(),
            1
        );
    }
    assert!(BASELINES.iter().all(|b| Heuristic::NAMES.contains(b)));
}

/// ξ and ξᶜ of the same length.
fn parameters(spread: f64) -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    (2usize..14)
        .prop_flat_map(move |n| (prop::collection::vec(-spread..spread, n), prop::collection::vec(-0.3f64..0.3, n)))
}

fn spaces() -> impl Iterator<Item = (Noise, Option<Space>, Interval)> {
    ["ve_edm", "vp_linear", "vp_cosine", "vp_discrete_sd", "flow"].into_iter().flat_map(|name| {
        [None, Some(Space::Lambda), Some(Space::Time)].into_iter().map(move |space| {
            let inner = name == "flow" && space == Some(Space::Lambda);
            let interval = if inner { Interval { from: Some(0.99), to: Some(0.01) } } else { Interval::default() };
            (noise(name), space, interval)
        })
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn tau_is_monotone_for_any_xi((xi, xi_c) in parameters(8.0), wild in parameters(1e3)) {
        for (noise, space, interval) in spaces() {
            let opts = TauOptions { space, interval, ..TauOptions::default() };
            let s = tau(&noise, &tensor(&xi), Some(&tensor(&xi_c)), &opts).unwrap();
            let (t, e) = (s.times().unwrap(), s.eval_times().unwrap());
            let n = s.nfe();
            prop_assert!(t.windows(2).all(|w| w[1] < w[0]));
            // half of the smallest gap: evaluation times never pass each other, up to rounding
            prop_assert!(e.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-12)), "{e:?}");
            let ends = (interval.from.unwrap_or(noise.t_max()), interval.to.unwrap_or(noise.t_min()));
            prop_assert_eq!((t[0], t[n]), ends);
            prop_assert_eq!((e[0], e[n]), ends);
            // however wild: monotone, or refused
            match tau(&noise, &tensor(&wild.0), None, &opts) {
                Ok(s) => prop_assert!(s.times().unwrap().windows(2).all(|w| w[1] < w[0])),
                Err(e) => prop_assert!(e.kind() == Kind::Value && e.message().contains("coincide"), "{e}"),
            }
        }
    }

    #[test]
    fn tau_undoes_its_inverse(gaps in prop::collection::vec(0.02f64..1.0, 2..12), shifts in prop::collection::vec(-1.0f64..1.0, 13), cut in 0.0f64..0.2) {
        for (noise, space, interval) in spaces() {
            // any schedule, with any ends
            let (hi, lo) = interval.resolve(noise.as_ref()).unwrap();
            let (hi, lo) = (hi - cut * (hi - lo), lo + 0.3 * cut * (hi - lo));
            let total: f64 = gaps.iter().sum();
            let mut t = vec![hi];
            for g in &gaps[..gaps.len() - 1] {
                t.push(t[t.len() - 1] - g / total * (hi - lo));
            }
            t.push(lo);
            let n = gaps.len();
            let smallest = t.windows(2).map(|w| w[0] - w[1]).fold(f64::INFINITY, f64::min);
            // in λ the bound is on λ: small shifts in time are inside it
            let size = if space == Some(Space::Time) { 0.49 } else { 1e-4 } * smallest;
            let e: Vec<f64> = (0..=n).map(|i| if i == 0 || i == n { t[i] } else { t[i] + size * shifts[i] }).collect();
            let s = Schedule::from_steps(noise.clone(), &t, "x").unwrap().with_eval(Some(&tensor(&e))).unwrap();
            let opts = TauOptions { space, interval: Interval { from: Some(hi), to: Some(lo) }, ..TauOptions::default() };
            let (xi, xi_c) = (tau_inverse(&s, space).unwrap(), tau_inverse_eval(&s, space).unwrap());
            let values = host_values(&xi).unwrap();
            prop_assert_eq!(values[0], 0.0);
            prop_assert!(values.iter().sum::<f64>().abs() < 1e-12 * n as f64);
            let back = tau(&noise, &xi, Some(&xi_c), &opts).unwrap();
            let (et, ee) = (error(&back.times().unwrap(), &t, false), error(&back.eval_times().unwrap(), &e, false));
            prop_assert!(et < 1e-10 && ee < 1e-9, "{} {space:?}: {et} {ee}", noise.name());
            // and the other way, up to the constant and ξ_0
            let again = host_values(&tau_inverse(&back, space).unwrap()).unwrap();
            prop_assert!(again.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-9), "{again:?} {values:?}");
        }
    }

    #[test]
    fn gradients_match_finite_differences((xi, xi_c) in parameters(2.0), shrink in prop::sample::select(vec![1e-3, 0.1, 1.0])) {
        for (noise, space, interval) in spaces() {
            if noise.name() == "vp_discrete" && space == Some(Space::Lambda) {
                continue; // its inverse λ has kinks at 1000 knots
            }
            let xi_c: Vec<f64> = xi_c.iter().map(|c| c * shrink).collect();
            for compat in [Compat::Exact, Compat::Reference] {
                let opts = TauOptions { space, interval, compat, win_rate: 0.4 };
                let run = |xi: &Tensor, c: &Tensor| tau(&noise, xi, Some(c), &opts);
                let x = [grad::variable(&tensor(&xi)).unwrap(), grad::variable(&tensor(&xi_c)).unwrap()];
                // the reference's bound may let evaluation times leave the interval: refused
                let Ok(s) = run(&x[0], &x[1]) else {
                    prop_assert_eq!(compat, Compat::Reference);
                    continue;
                };
                // weights that see each entry, relative to its size
                let w = |t: &[f64], k: f64| t.iter().enumerate().map(|(i, t)| (1.3 * i as f64 + k).sin() / (t + 0.01)).collect::<Vec<_>>();
                let (wt, we) = (w(&s.times().unwrap(), 0.4), w(&s.eval_times().unwrap(), 1.9));
                let cots = [(s.t.clone(), tensor(&wt)), (s.t_eval.clone().unwrap(), tensor(&we))];
                let g = grad::vjp(&Quiet, &cots, &x).unwrap();
                let value = |xi: &[f64], c: &[f64]| -> Option<f64> {
                    let s = run(&tensor(xi), &tensor(c)).ok()?;
                    let dot = |a: Vec<f64>, b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                    Some(dot(s.times().unwrap(), &wt) + dot(s.eval_times().unwrap(), &we))
                };
                // to the published gradient of ξ the bound of ξᶜ is a constant: runs of the published trainer are the test of it
                for which in usize::from(compat == Compat::Reference)..2 {
                    let g = host_values(&g[which]).unwrap();
                    for i in 0..xi.len() {
                        let at = |h: f64| {
                            let mut p = [xi.clone(), xi_c.clone()];
                            p[which][i] += h;
                            value(&p[0], &p[1])
                        };
                        // the slope over ±h, and how much the slopes of the two sides differ
                        let slopes = |h: f64| -> Option<(f64, f64)> {
                            let (a, m, b) = (at(h)?, at(0.0)?, at(-h)?);
                            Some(((a - b) / (2.0 * h), (a - 2.0 * m + b) / h))
                        };
                        let (Some((fd, bent)), Some((_, half))) = (slopes(1e-5), slopes(5e-6)) else { continue };
                        // what differs by curvature halves with the step; at a kink of the bound it does not
                        let kink = (bent - 2.0 * half).abs() > 1e-6 * (1.0 + fd.abs());
                        prop_assert!(kink || (g[i] - fd).abs() < 1e-5 * (1.0 + fd.abs()),
                            "{} {space:?} {compat:?} d/dp{which}[{i}]: {} {fd}", noise.name(), g[i]);
                    }
                }
            }
        }
    }
}

#[test]
fn the_bound_on_xi_c_follows_the_smallest_gap() {
    let edm = noise("ve_edm");
    let xi = grad::variable(&tensor(&[9.0, 0.0, 1.0, 2.0])).unwrap();
    let xi_c = grad::variable(&tensor(&[5.0, 100.0, -100.0, 5.0])).unwrap();
    for (space, win_rate) in [(Space::Lambda, 0.5), (Space::Time, 0.25)] {
        let opts = TauOptions { space: Some(space), win_rate, ..TauOptions::default() };
        let s = tau(&edm, &xi, Some(&xi_c), &opts).unwrap();
        let at = |t: &[f64]| t.iter().map(|t| if space == Space::Time { *t } else { -t.ln() }).collect::<Vec<_>>();
        let (x, e) = (at(&s.times().unwrap()), at(&s.eval_times().unwrap()));
        let gap = x.windows(2).map(|w| (w[1] - w[0]).abs()).fold(f64::INFINITY, f64::min);
        for (i, want) in [0.0, win_rate * gap, -win_rate * gap, 0.0].iter().enumerate() {
            assert!((e[i] - x[i] - want).abs() < 1e-10, "{space:?} {i}: {} {want}", e[i] - x[i]);
        }
        // clamped: no gradient to ξᶜ, but one to ξ through the bound
        let g = grad::vjp(&Quiet, &[(s.t_eval.unwrap(), tensor(&[0.0, 1.0, 0.0, 0.0]))], &[xi.clone(), xi_c.clone()])
            .unwrap();
        assert_eq!(host_values(&g[1]).unwrap(), [0.0; 4]);
        let g = host_values(&g[0]).unwrap();
        assert!(g[0] == 0.0 && g[1] != 0.0, "{g:?}");
    }
    // the reference's slip: constant ξ bounds ξᶜ to nothing in λ
    let ones = tensor(&[1.0; 4]);
    let shift = tensor(&[0.0, 0.1, 0.1, 0.0]);
    let with = |compat| tau(&edm, &ones, Some(&shift), &TauOptions { compat, ..TauOptions::default() }).unwrap();
    assert_eq!(with(Compat::Reference).times().unwrap(), with(Compat::Reference).eval_times().unwrap());
    assert_ne!(with(Compat::Exact).times().unwrap(), with(Compat::Exact).eval_times().unwrap());
}

#[test]
fn default_spaces_are_those_of_the_published_experiments() {
    for (name, space) in [
        ("ve_edm", Space::Lambda),
        ("vp_linear", Space::Lambda),
        ("vp_cosine", Space::Lambda),
        ("vp_discrete_sd", Space::Time),
        ("flow", Space::Time),
    ] {
        assert_eq!(Space::default_for(noise(name).as_ref()), space);
    }
    // constant ξ in λ is logSNR, in time uniform
    let s = tau(&noise("ve_edm"), &tensor(&[1.0; 6]), None, &TauOptions::default()).unwrap();
    let logsnr = Heuristic::LogSnr.schedule(&noise("ve_edm"), 5, Interval::default()).unwrap();
    assert!(error(&s.times().unwrap(), &logsnr.times().unwrap(), false) < 1e-13);
    let s = tau(&noise("flow"), &tensor(&[1.0; 6]), None, &TauOptions::default()).unwrap();
    assert!(error(&s.times().unwrap()[..5], &[1.0, 0.8, 0.6, 0.4, 0.2], false) < 1e-13);
}

#[test]
fn records_end_with_their_schedules() {
    let xi = grad::variable(&tensor(&[0.1f64, 0.2, 0.3]).to_dtype(DType::F32).unwrap()).unwrap();
    let before = grad::live_records();
    let s = tau(&noise("ve_edm"), &xi, None, &TauOptions::default()).unwrap();
    assert!(grad::is_tracked(&s.t));
    let loss = s.sigmas().unwrap().sum_all().unwrap();
    assert_eq!(grad::grad(&Quiet, &loss, std::slice::from_ref(&xi)).unwrap()[0].dtype(), DType::F32);
    assert!(grad::live_records() > before);
    drop((s, loss));
    assert_eq!(grad::live_records(), before);
    let s = grad::no_grad(|| tau(&noise("ve_edm"), &xi, None, &TauOptions::default())).unwrap();
    assert!(!grad::is_tracked(&s.t));
}

#[test]
fn schedules_are_checked() {
    let edm = noise("ve_edm");
    let of = |t: &[f64]| Schedule::from_steps(edm.clone(), t, "x").err().expect("was accepted");
    let e = of(&[80.0, 3.0, 4.0, 0.002]);
    assert_eq!(e.message(), "steps must descend, but t[1] = 3 is followed by 4");
    assert!(of(&[80.0, 3.0, 3.0]).message().contains("t[1] = 3 is followed by 3"));
    assert!(of(&[80.0, f64::NAN, 3.0]).message().contains("t[1]: t = NaN"));
    assert!(of(&[81.0, 3.0]).message().contains("t[0]: t = 81 is outside [0.002, 80]"));
    assert!(of(&[3.0, 0.0]).message().contains("t[1]"));
    assert!(of(&[3.0]).message().contains("at least 2"));
    assert!(of(&[]).message().contains("at least 2"));
    let square = Tensor::ones((2, 2), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(Schedule::new(edm.clone(), &square, "x").err().unwrap().kind(), Kind::Shape);
    // times that went through f32 are accepted
    let f32s = tensor(&[80.0, 1.0, 0.002]).to_dtype(DType::F32).unwrap();
    assert_eq!(Schedule::new(edm.clone(), &f32s, "x").unwrap().t.dtype(), DType::F64);

    let s = Schedule::from_steps(edm.clone(), &[80.0, 9.0, 1.0, 0.002], "mine").unwrap();
    let eval = |t: &[f64]| s.clone().with_eval(Some(&tensor(t))).err().expect("was accepted");
    assert_eq!(eval(&[80.0, 9.0]).kind(), Kind::Shape);
    assert!(eval(&[80.0, 9.0, 100.0, 0.002]).message().contains("t_eval[2]"));
    let s = s.with_eval(Some(&tensor(&[80.0, 9.5, 0.9, 0.002]))).unwrap();
    let part = s.slice(1, 3).unwrap();
    assert_eq!((part.times().unwrap(), part.eval_times().unwrap()), (vec![9.0, 1.0, 0.002], vec![9.5, 0.9, 0.002]));
    for (i, j) in [(1, 1), (2, 1), (0, 4), (7, 9)] {
        assert_eq!(s.slice(i, j).err().unwrap().kind(), Kind::Value);
    }
    assert_eq!(s.with_eval(None).unwrap().eval_times().unwrap(), [80.0, 9.0, 1.0, 0.002]);

    let interval = |from, to| Interval { from: Some(from), to: Some(to) };
    let ask = |noise: &Noise, n, interval, h: &str| -> Result<Schedule, Error> {
        Heuristic::named(h)?.schedule(noise, n, interval)
    };
    for (e, kind, part) in [
        (ask(&edm, 0, Interval::default(), "edm"), Kind::Value, "not 0"),
        (ask(&edm, usize::MAX, Interval::default(), "edm"), Kind::Value, "1000000"),
        (ask(&edm, 3, Interval::default(), "edn"), Kind::Name, "edn"),
        (ask(&edm, 3, interval(1.0, 2.0), "edm"), Kind::Value, "goes from 1 to 2"),
        (ask(&edm, 3, interval(f64::NAN, 2.0), "edm"), Kind::Value, "`from`"),
        (ask(&edm, 3, interval(3.0, 0.0), "edm"), Kind::Value, "`to`"),
        (ask(&noise("flow"), 3, Interval::default(), "logsnr"), Kind::Value, "inf"),
        (Heuristic::Polynomial { rho: -1.0 }.schedule(&edm, 3, Interval::default()), Kind::Value, "rho"),
        (Heuristic::Polynomial { rho: 1e6 }.schedule(&edm, 3, Interval::default()), Kind::Value, "descend"),
    ] {
        let e = e.err().expect(part);
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.message().contains(part), "{e}");
    }
}

#[test]
fn tau_refuses_what_it_cannot_use() {
    let edm = noise("ve_edm");
    let go = |noise: &Noise, xi: &[f64], c: Option<&[f64]>, opts: TauOptions| {
        tau(noise, &tensor(xi), c.map(tensor).as_ref(), &opts).err().expect("was accepted")
    };
    let d = TauOptions::default;
    for (e, kind, part) in [
        (go(&edm, &[1.0], None, d()), Kind::Shape, "[N+1]"),
        (go(&edm, &[1.0, f64::NAN, 2.0], None, d()), Kind::Value, "ξ[1] is not finite"),
        (go(&edm, &[1.0, 2.0], Some(&[0.0]), d()), Kind::Shape, "ξᶜ"),
        (go(&edm, &[1.0, 2.0], Some(&[0.0, 0.0, 0.0]), d()), Kind::Shape, "same shape"),
        (go(&edm, &[1.0, 2.0], Some(&[0.0, f64::INFINITY]), d()), Kind::Value, "ξᶜ[1]"),
        (go(&edm, &[1.0, 2.0], None, TauOptions { win_rate: 1.5, ..d() }), Kind::Value, "win_rate"),
        (go(&edm, &[0.0, -99.0, 99.0], None, d()), Kind::Value, "coincide"),
        (
            go(&noise("flow"), &[1.0, 2.0], None, TauOptions { space: Some(Space::Lambda), ..d() }),
            Kind::Value,
            "λ is -inf",
        ),
    ] {
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.message().contains(part), "{e}");
    }
    assert_eq!(Space::named("lamda").err().unwrap().fix().unwrap(), "did you mean `lambda`? Known: lambda, time");
    let flow = Heuristic::Cosine.schedule(&noise("flow"), 3, Interval::default()).unwrap();
    assert!(tau_inverse(&flow, Some(Space::Lambda)).err().unwrap().message().contains("λ"));
}

#[test]
fn a_function_of_ones_own_may_be_learned() {
    let flow = noise("flow");
    let a = grad::variable(&tensor(&[1.5])).unwrap();
    // t = (1 − u)^a
    let s =
        from_function(&flow, 4, |u| Ok(if u == 1.0 { (&a * 0.0)? } else { (&a * (1.0 - u).ln())?.exp()? })).unwrap();
    let want: Vec<f64> = (0..=4).map(|i| (1.0 - i as f64 / 4.0).powf(1.5)).collect();
    assert!(s.times().unwrap().iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-15));
    let g = grad::grad(&Quiet, &s.t.sum_all().unwrap(), std::slice::from_ref(&a)).unwrap();
    let d: f64 = (1..4).map(|i| 1.0 - i as f64 / 4.0).map(|v| v.ln() * v.powf(1.5)).sum();
    assert!((host_values(&g[0]).unwrap()[0] - d).abs() < 1e-12);
    let e = from_function(&flow, 4, |_| Ok(tensor(&[1.0, 2.0]))).err().unwrap();
    assert_eq!(e.kind(), Kind::Shape);
}

fn engine() -> Engine {
    let mut engine = Engine::new();
    ld3sh::script::noise::register(&mut engine);
    ld3sh::script::discretize::register(&mut engine);
    engine
}

fn schedule(script: &str) -> Schedule {
    engine().eval(script).unwrap_or_else(|e| panic!("{script}: {e}"))
}

#[test]
fn scripts_make_schedules() {
    for (script, want) in [
        ("schedule::uniform(noise::flow(), 4)", &[1.0, 0.75, 0.5, 0.25, 0.0][..]),
        ("schedule::uniform(noise::edm(), 2, #{ from: 3, to: 1 })", &[3.0, 2.0, 1.0]),
        ("schedule::quadratic(noise::flow(), 2)", &[1.0, 0.25, 0.0]),
        ("schedule::polynomial(noise::flow(), 2)", &[1.0, 0.25, 0.0]),
        ("schedule::polynomial(noise::flow(), 2, #{ rho: 3 })", &[1.0, 0.125, 0.0]),
        ("schedule::edm(noise::flow(), 2)", &[1.0, 1.0 / 128.0, 0.0]),
        ("schedule::edm(noise::flow(#{ t_max: 0.5 }), 2, #{ space: \"sigma\", rho: 1 })", &[0.5, 1.0 / 3.0, 0.0]),
        ("schedule::logsnr(noise::edm(), 2, #{ from: 4, to: 1 })", &[4.0, 2.0, 1.0]),
        ("schedule::cosine(noise::flow(), 2)", &[1.0, 0.5, 0.0]),
        ("schedule::named(noise::flow(), \"quadratic\", 2)", &[1.0, 0.25, 0.0]),
        ("schedule::named(noise::flow(), \"polynomial\", 2, #{ rho: 3.0 })", &[1.0, 0.125, 0.0]),
        ("schedule::list(noise::edm(), [80, 2.5, 1])", &[80.0, 2.5, 1.0]),
        ("schedule::list(noise::edm(), schedule::list(noise::edm(), [3, 2]).t)", &[3.0, 2.0]),
        ("let k = 2.0; schedule::from_fn(noise::edm(), 2, |u| 5.0 - k * u)", &[5.0, 4.0, 3.0]),
        ("schedule::from_fn(noise::edm(), 1, |u| if u == 0.0 { 3 } else { 2 })", &[3.0, 2.0]),
        ("schedule::list(noise::edm(), [80, 9, 2.5, 1]).slice(1, 3)", &[9.0, 2.5, 1.0]),
        ("tau(noise::flow(), [0, 0, 0])", &[1.0, 0.5, 0.0]),
        ("tau(noise::edm(), [7, 0, 0], (), #{ space: \"lambda\", from: 4, to: 1 })", &[4.0, 2.0, 1.0]),
        ("tau(noise::edm(), [7, 0, 0], #{ space: \"time\", from: 3, to: 1 })", &[3.0, 2.0, 1.0]),
        (
            "let s = schedule::edm(noise::edm(), 4); tau(s.noise, tau_inverse(s))",
            &[80.0, 17.5278319646, 2.51521897615, 0.169752756269, 0.002],
        ),
        (
            "let s = schedule::edm(noise::edm(), 2); tau(s.noise, tau_inverse(s, #{ space: \"time\" }), #{ space: \"time\" })",
            &[80.0, 2.51521897615, 0.002],
        ),
    ] {
        let t = schedule(script).times().unwrap();
        assert!(t.len() == want.len() && t.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-9), "{script}: {t:?}");
    }
    let eval = |script: &str| schedule(script).eval_times().unwrap();
    assert_eq!(eval("schedule::list(noise::edm(), [3, 2, 1]).with_eval([3, 2.5, 1])"), [3.0, 2.5, 1.0]);
    assert_eq!(eval("schedule::list(noise::edm(), [3, 2, 1]).with_eval([3, 2.5, 1]).with_eval(())"), [3.0, 2.0, 1.0]);
    let e = eval("tau(noise::flow(), [0, 0, 0], [1, 0.125, 1])");
    assert!((e[1] - 0.625).abs() < 1e-12);
    let e = eval("tau(noise::flow(), [0, 0, 0], [1, 0.4, 1], #{ win_rate: 0.5 })");
    assert!((e[1] - 0.75).abs() < 1e-12);
    let e = eval(
        "let s = schedule::list(noise::edm(), [80, 2, 0.002]).with_eval([80, 2.5, 0.002]); tau(s.noise, tau_inverse(s), tau_inverse_eval(s))",
    );
    assert!((e[1] - 2.5).abs() < 1e-12);
    let names: Vec<String> = engine()
        .eval::<rhai::Array>("schedule::heuristics()")
        .unwrap()
        .into_iter()
        .map(|d| d.into_string().unwrap())
        .collect();
    assert_eq!(names, BASELINES);
    let facts: rhai::Array = engine()
        .eval("let s = schedule::logsnr(noise::edm(), 3); [s.nfe, s.name, s.with_name(\"a\").name, s.noise.name, s.t_eval == (), s.sigmas, s.lambdas]")
        .unwrap();
    let text: Vec<String> = facts[..5].iter().map(Dynamic::to_string).collect();
    assert_eq!(text, ["3", "logsnr", "a", "edm", "true"]);
    let sigmas = facts[5].clone().cast::<Tensor>();
    assert_eq!(host_values(&sigmas).unwrap()[0], 80.0);
    assert!((host_values(&facts[6].clone().cast::<Tensor>()).unwrap()[3] + 0.002f64.ln()).abs() < 1e-14);
}

#[test]
fn a_schedule_prints_as_a_table() {
    let text: String = engine()
        .eval("schedule::list(noise::edm(), [80, 2.5, 0.00200]).with_eval([80, 2.25, 0.002]).to_string()")
        .unwrap();
    let want = "\
schedule `list`: 2 steps in the time of edm
   i          t      sigma    lambda     t_eval
   0    80.0000    80.0000   -4.3820    80.0000
   1    2.50000    2.50000   -0.9163    2.25000
   2 0.00200000 0.00200000    6.2146 0.00200000";
    assert_eq!(text, want);
    let text = schedule("schedule::uniform(noise::flow(), 1)").to_string();
    assert!(text.contains("1 step in") && text.contains("inf"), "{text}");
    let long = schedule("schedule::uniform(noise::flow(), 100)").to_string();
    assert_eq!(long.lines().count(), 2 + 10 + 1 + 10, "{long}");
}

#[test]
fn scripts_are_told_what_is_wrong() {
    for (script, kind, part) in [
        ("schedule::uniform(noise::edm(), 0)", Kind::Value, "not 0"),
        ("schedule::uniform(noise::edm(), -4)", Kind::Value, "must not be negative"),
        ("schedule::uniform(noise::edm(), 4, #{ form: 3 })", Kind::Name, "did you mean `from`?"),
        ("schedule::uniform(noise::edm(), 4, #{ rho: 3 })", Kind::Name, "unknown option of schedule::uniform"),
        ("schedule::edm(noise::edm(), 4, #{ space: \"sgima\" })", Kind::Name, "did you mean `sigma`?"),
        ("schedule::named(noise::edm(), \"logsnrr\", 4)", Kind::Name, "did you mean `logsnr`?"),
        ("schedule::list(noise::edm(), [1, 2])", Kind::Value, "t[0] = 1 is followed by 2"),
        ("schedule::list(noise::edm(), [2, \"1\"])", Kind::Type, "[1]"),
        ("schedule::list(noise::edm(), 3)", Kind::Type, "array of numbers"),
        ("schedule::from_fn(noise::edm(), 2, |u| \"a\")", Kind::Type, "must return a number"),
        ("schedule::from_fn(noise::edm(), 2, |u| u)", Kind::Value, "outside"),
        ("schedule::edm(noise::edm(), 3).slice(-1, 2)", Kind::Value, "negative"),
        ("schedule::edm(noise::edm(), 3).slice(0, 4)", Kind::Value, "0 to 3"),
        ("schedule::edm(noise::edm(), 3).with_eval([1])", Kind::Shape, "1 evaluation times for 4 steps"),
        ("tau(noise::edm(), [1])", Kind::Shape, "[N+1]"),
        ("tau(noise::edm(), \"a\")", Kind::Type, "ξ"),
        ("tau(noise::edm(), [1, 2], #{ spase: \"time\" })", Kind::Name, "did you mean `space`?"),
        ("tau(noise::edm(), [1, 2], (), #{ compat: \"paper\" })", Kind::Name, "exact, reference"),
        ("tau_inverse(schedule::edm(noise::edm(), 3), #{ win_rate: 1 })", Kind::Name, "tau_inverse"),
    ] {
        let e = caught(script, engine().eval::<Dynamic>(script));
        assert_eq!(e.kind(), kind, "{script}: {e}");
        assert!(e.to_string().contains(part), "{script}: {e}");
    }
    // an error of the script's own function comes out as it was
    let e = engine().eval::<Dynamic>("schedule::from_fn(noise::edm(), 2, |u| throw \"mine\")").unwrap_err();
    assert!(e.to_string().contains("mine"), "{e}");
}

#[test]
fn scripts_differentiate_through_schedules() {
    let xi = grad::variable(&tensor(&[0.0, 0.3, -0.2, 0.1])).unwrap();
    let mut scope = Scope::new();
    scope.push("xi", xi.clone());
    let t: Tensor = engine().eval_with_scope(&mut scope, "tau(noise::vp_linear(), xi).slice(1, 3).lambdas").unwrap();
    let g = grad::grad(&Quiet, &t.sum_all().unwrap(), &[xi]).unwrap();
    // Σ λ_i over i = 1..3 with λ_3 fixed: d/dξ_k of Σ_i span · cumulative softmax
    let (n, e) = (noise("vp_linear"), [0.3f64, -0.2, 0.1].map(f64::exp));
    let span = n.lambda(&n.t_min().into()).v() - n.lambda(&n.t_max().into()).v();
    let sum: f64 = e.iter().sum();
    let w = e.map(|e| e / sum);
    let mean = 2.0 * w[0] + w[1]; // Σ_i λ_i − const = span (2 w_0 + w_1)
    let want = [0.0, span * w[0] * (2.0 - mean), span * w[1] * (1.0 - mean), span * w[2] * (0.0 - mean)];
    assert!(error(&host_values(&g[0]).unwrap(), &want, true) < 1e-12);
}
