//! Noise schedules: reference values, exact derivatives, inverses, the ends of time, plain-data specs, and the script functions.
use crate::cases::cases;
use crate::caught::caught;
use candle_core::{DType, Device, Tensor};
use ld3sh::host::Quiet;
use ld3sh::noise::{Noise, check_time, from_spec};
use ld3sh::real::{Real, Tape, host_values};
use ld3sh::tensor::grad;
use ld3sh::{Error, Kind};
use proptest::prelude::*;
use rhai::{Dynamic, Engine, Scope};
use serde_json::{Value, json};

fn noise(spec: Value) -> Noise {
    from_spec(&spec).unwrap()
}

/// One of each, with and without options.
fn all() -> Vec<Noise> {
    [
        json!({"name": "edm"}),
        json!({"name": "edm", "sigma_min": 0.01, "sigma_max": 160}),
        json!({"name": "vp_linear"}),
        json!({"name": "vp_linear", "beta_min": 5.0, "beta_max": 5.0}),
        json!({"name": "vp_cosine"}),
        json!({"name": "vp_cosine", "s": 0.0, "t_min": 1e-4, "t_max": 0.99}),
        json!({"name": "vp_discrete", "preset": "sd"}),
        json!({"name": "vp_discrete", "preset": "ldm"}),
        json!({"name": "vp_discrete", "betas": [0.1, 0.2, 0.3, 0.4]}),
        json!({"name": "flow", "t_min": 0.001, "t_max": 0.999}),
        json!({"name": "flow", "shift": 3.0, "t_min": 0.001, "t_max": 0.999}),
        json!({
            "name": "table", "t": [0.1, 0.4, 1.0], "log_alpha": [0.0, -0.1, -2.0], "dlog_alpha": [0.0, -1.0, -5.0],
            "log_sigma": [-3.0, -1.0, 0.0], "dlog_sigma": [8.0, 3.0, 0.5]
        }),
    ]
    .into_iter()
    .map(noise)
    .collect()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn values_match_the_reference() {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/discretize.json")).unwrap();
    let rows = fixture["noise"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        let n = noise(match row["schedule"].as_str().unwrap() {
            "ve_edm" => json!({"name": "edm"}),
            "vp_discrete_sd" => json!({"name": "vp_discrete", "preset": "sd"}),
            "vp_discrete_lsun" => json!({"name": "vp_discrete", "preset": "ldm"}),
            name => json!({"name": name}),
        });
        assert_eq!(n.t_max(), row["T"].as_f64().unwrap());
        assert_eq!(n.t_min(), row["eps"].as_f64().unwrap());
        let (lambda, t) = (numbers(&row["lam"]), numbers(&row["t"]));
        let mut worst: f64 = 0.0;
        let mut near = |what: &str, i: usize, ours: Real, want: f64| {
            let e = (ours.v() - want).abs() / want.abs();
            worst = worst.max(e);
            assert!(e < 1e-9, "{} {what}[{i}]: {} against {want}", n.name(), ours.v());
        };
        for (i, t) in t.iter().enumerate() {
            let r = Real::from(*t);
            near("alpha", i, n.alpha(&r), row["alpha"][i].as_f64().unwrap());
            near("sigma", i, n.sigma(&r), row["sigma"][i].as_f64().unwrap());
            near("inverse", i, n.inverse_lambda(&lambda[i].into()), row["inv"][i].as_f64().unwrap());
            near("lambda", i, n.lambda(&r), lambda[i]);
        }
        println!("{}: worst relative error {worst:.1e}", row["schedule"]);
    }
}

/// d f / d x by the tape.
fn derivative(f: impl Fn(&Real) -> Real, x: f64) -> f64 {
    let tape = Tape::new();
    let x = tape.leaf(x);
    tape.backward(&[(&f(&x), 1.0)]).of(&x)
}

type Function<'a> = &'a dyn Fn(&Real) -> Real;

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn everything_agrees_with_everything(u in 0.0f64..1.0) {
        for n in all() {
            // geometric, to see the small times too; and away from the knots of the tables
            let mut t = n.t_min() * (n.t_max() / n.t_min()).powf(u);
            if n.name() == "vp_discrete" {
                let knots = if n.t_min() > 0.1 { 4.0 } else { 1000.0 };
                t = ((t * knots).floor() + 0.3 + 0.4 * u).clamp(1.3, knots - 0.3) / knots;
            }
            let name = n.spec().to_string().chars().take(60).collect::<String>();
            let near = |what: &str, a: f64, b: f64, tol: f64| {
                prop_assert!((a - b).abs() <= tol * (1e-300 + a.abs().max(b.abs())), "{name}, t = {t}: {what}: {a} {b}");
                Ok(())
            };
            let r = Real::from(t);
            let (a, s, l) = (n.alpha(&r).v(), n.sigma(&r).v(), n.lambda(&r).v());
            near("ln alpha", n.log_alpha(&r).v().exp(), a, 1e-13)?;
            near("ln sigma", n.log_sigma(&r).v().exp(), s, 1e-13)?;
            near("lambda", l.exp(), a / s, 1e-12)?;
            near("ve sigma", n.ve_sigma(&r).v(), s / a, 1e-12)?;
            if n.name().starts_with("vp") {
                near("variance", a * a + s * s, 1.0, 1e-13)?;
                prop_assert_eq!(n.prior_std(t), 1.0);
            } else {
                near("prior", n.prior_std(t), s, 1e-15)?;
            }
            near("inverse", n.inverse_lambda(&l.into()).v(), t, 1e-11)?;
            near("inverse sigma", n.t_of_sigma(&(s / a).into()).v(), t, 1e-11)?;
            // every derivative, by the tape against finite differences and against the closed forms
            let h = 1e-4 * t.min(1.0 / 1000.0);
            let fd = |f: &dyn Fn(&Real) -> Real| {
                let at = |d: f64| f(&(t + d).into()).v();
                (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
            };
            let functions: [(&str, Function); 7] = [
                ("log_alpha'", &|t| n.log_alpha(t)),
                ("log_sigma'", &|t| n.log_sigma(t)),
                ("dlog_alpha'", &|t| n.dlog_alpha(t)),
                ("dlambda'", &|t| n.dlambda(t)),
                ("alpha'", &|t| n.alpha(t)),
                ("sigma'", &|t| n.sigma(t)),
                ("ve_sigma'", &|t| n.ve_sigma(t)),
            ];
            for (what, f) in functions {
                let (d, e) = (derivative(f, t), fd(f));
                // rounding of the difference quotient: values of order f/h · ε
                let noise = 1e-15 * (1.0 + f(&r).v().abs()) / h;
                prop_assert!((d - e).abs() <= 1e-6 * d.abs() + 20.0 * noise, "{name}, t = {t}: {what}: {d} {e}");
            }
            near("f", derivative(|t| n.log_alpha(t), t), n.dlog_alpha(&r).v(), 1e-12)?;
            near("lambda'", derivative(|t| n.lambda(t), t), n.dlambda(&r).v(), 1e-10)?;
            near("inverse'", derivative(|l| n.inverse_lambda(l), l) * n.dlambda(&r).v(), 1.0, 1e-9)?;
        }
    }
}

#[test]
fn small_times_lose_no_digits() {
    // σ² = 1 − α² to full precision where α is nearly 1
    let n = noise(json!({"name": "vp_linear", "t_min": 1e-12}));
    let t = 1e-9f64;
    let x = 0.1 * t + 0.5 * 19.9 * t * t; // −2 ln α
    let want = (x - x * x / 2.0).sqrt();
    assert!((n.sigma(&t.into()).v() / want - 1.0).abs() < 1e-15);
    let n = noise(json!({"name": "vp_cosine", "t_min": 1e-12}));
    let back = n.inverse_lambda(&n.lambda(&1e-9.into())).v();
    assert!((back / 1e-9 - 1.0).abs() < 1e-7, "{back}");
    // λ of a flow at both ends
    let n = noise(json!({"name": "flow"}));
    assert!((n.inverse_lambda(&40.0.into()).v() / (-40f64).exp() - 1.0).abs() < 1e-15);
}

#[test]
fn a_flow_works_at_both_ends() {
    for shift in [1.0, 3.0] {
        let n = noise(json!({"name": "flow", "shift": shift}));
        let at = |t: f64| [n.alpha(&t.into()).v(), n.sigma(&t.into()).v(), n.lambda(&t.into()).v()];
        assert_eq!(at(0.0), [1.0, 0.0, f64::INFINITY]);
        assert_eq!(at(1.0), [0.0, 1.0, f64::NEG_INFINITY]);
        assert_eq!(n.ve_sigma(&0.0.into()).v(), 0.0);
        assert_eq!(n.inverse_lambda(&f64::INFINITY.into()).v(), 0.0);
        assert_eq!(n.inverse_lambda(&f64::NEG_INFINITY.into()).v(), 1.0);
        assert_eq!(n.t_of_sigma(&f64::INFINITY.into()).v(), 1.0);
        assert_eq!(derivative(|t| n.alpha(t), 0.0), -shift);
        assert_eq!(derivative(|t| n.sigma(t), 0.0), shift);
        assert!((derivative(|t| n.sigma(t), 1.0) - 1.0 / shift).abs() < 1e-15);
        // σ of the shifted flow by its definition
        let s = n.sigma(&0.4.into()).v();
        assert!((s - shift * 0.4 / (1.0 + (shift - 1.0) * 0.4)).abs() < 1e-16);
    }
    let ve = noise(json!({"name": "edm", "sigma_min": 0.0}));
    assert_eq!(ve.sigma(&0.0.into()).v(), 0.0);
    assert_eq!(derivative(|t| ve.ve_sigma(t), 0.0), 1.0);
}

#[test]
fn a_table_gives_back_its_knots() {
    let a = [0.99, 0.8, 0.35, 0.02];
    let n = noise(json!({"name": "vp_discrete", "alphas_cumprod": a}));
    assert_eq!(n.t_min(), 0.25);
    for (i, a) in a.iter().enumerate() {
        let t = (i + 1) as f64 / 4.0;
        assert!((n.alpha(&t.into()).v().powi(2) / a - 1.0).abs() < 1e-14);
    }
    // betas and their cumulative products are the same schedule
    let betas = noise(json!({"name": "vp_discrete", "betas": [0.01, 0.2, 0.5]}));
    let products = noise(json!({"name": "vp_discrete", "alphas_cumprod": [0.99, 0.99 * 0.8, 0.99 * 0.8 * 0.5]}));
    for t in [0.4, 0.61, 0.77, 1.0] {
        let [x, y] = [&betas, &products].map(|n| n.lambda(&t.into()).v());
        assert!((x - y).abs() < 1e-13);
    }
}

#[test]
fn a_spec_makes_the_same_schedule_again() {
    for n in all() {
        let text = n.spec().to_string();
        let again = noise(serde_json::from_str(&text).unwrap());
        assert_eq!(again.spec(), n.spec());
        assert_eq!((again.t_min(), again.t_max(), again.name()), (n.t_min(), n.t_max(), n.name()));
        let t = 0.5 * (n.t_min() + n.t_max());
        assert_eq!(again.lambda(&t.into()).v().to_bits(), n.lambda(&t.into()).v().to_bits());
    }
    assert_eq!(
        noise(json!({"name": "edm"})).spec().to_string(),
        r#"{"name":"edm","sigma_min":0.002,"sigma_max":80.0}"#
    );
}

fn refused(spec: Value) -> Error {
    match from_spec(&spec) {
        Ok(n) => panic!("{spec} was accepted as {}", n.spec()),
        Err(e) => e,
    }
}

#[test]
fn wrong_specs_are_refused() {
    let cases = [
        (json!({"name": "vp_liner"}), Kind::Name, "vp_liner"),
        (json!(7), Kind::Format, "name"),
        (json!({"sigma_max": 3}), Kind::Format, "name"),
        (json!({"name": "edm", "sigma_mix": 0.1}), Kind::Format, "sigma_mix"),
        (
            json!({"name": "table", "t": [0, 1], "log_alpha": [0, 0], "dlog_alpha": [0], "log_sigma": [0, 1], "dlog_sigma": [1, 1]}),
            Kind::Value,
            "2 values, but 1 slopes",
        ),
        (
            json!({"name": "table", "t": [1, 0], "log_alpha": [0, 0], "dlog_alpha": [0, 0], "log_sigma": [0, 1], "dlog_sigma": [1, 1]}),
            Kind::Value,
            "times must ascend",
        ),
        (json!({"name": "edm", "sigma_max": "big"}), Kind::Format, "big"),
        (json!({"name": "edm", "sigma_min": 90}), Kind::Value, "sigma_max"),
        (json!({"name": "edm", "sigma_min": -1}), Kind::Value, "sigma_min"),
        (json!({"name": "vp_linear", "beta_min": -0.1}), Kind::Value, "beta_min"),
        (json!({"name": "vp_linear", "t_min": 0}), Kind::Value, "t_min"),
        (json!({"name": "vp_linear", "t_max": 1.5}), Kind::Value, "t_max"),
        (json!({"name": "vp_cosine", "t_max": 1}), Kind::Value, "t_max"),
        (json!({"name": "flow", "shift": 0}), Kind::Value, "shift"),
        (json!({"name": "flow", "t_max": 0}), Kind::Value, "t_max"),
        (json!({"name": "vp_discrete"}), Kind::Value, "exactly one"),
        (json!({"name": "vp_discrete", "preset": "sd", "betas": [0.1, 0.2]}), Kind::Value, "exactly one"),
        (json!({"name": "vp_discrete", "preset": "sdd"}), Kind::Name, "sdd"),
        (json!({"name": "vp_discrete", "betas": []}), Kind::Value, "at least 2"),
        (json!({"name": "vp_discrete", "betas": [0.1]}), Kind::Value, "at least 2"),
        (json!({"name": "vp_discrete", "betas": [0.1, 1.0]}), Kind::Value, "betas[1] = 1"),
        (json!({"name": "vp_discrete", "betas": [0.9, 1e-30]}), Kind::Value, "descend"),
        (json!({"name": "vp_discrete", "alphas_cumprod": [0.9, 0.95]}), Kind::Value, "descend"),
        (json!({"name": "vp_discrete", "alphas_cumprod": [0.9, 0.0]}), Kind::Value, "alphas_cumprod[1] = 0"),
    ];
    for (spec, kind, part) in cases {
        let e = refused(spec.clone());
        assert_eq!(e.kind(), kind, "{spec}: {e}");
        assert!(e.message().contains(part), "{spec}: {e}");
    }
    assert!(refused(json!({"name": "vp_liner"})).fix().unwrap().contains("did you mean `vp_linear`?"));
    assert!(refused(json!({"name": "vp_discrete", "alphas_cumprod": [0.9, 0.0]})).fix().unwrap().contains("terminal"));
}

#[test]
fn times_are_checked() {
    let n = noise(json!({"name": "vp_cosine"}));
    for t in [n.t_min(), n.t_max(), 0.5, 0.9946f32 as f64, 0.001f32 as f64] {
        check_time(n.as_ref(), t).unwrap();
    }
    for t in [0.0009, 0.995, 0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(check_time(n.as_ref(), t).unwrap_err().kind(), Kind::Value, "{t}");
    }
    assert!(check_time(n.as_ref(), 2.0).unwrap_err().message().contains("[0.001, 0.9946]"));
    let flow = noise(json!({"name": "flow"}));
    check_time(flow.as_ref(), 0.0).unwrap();
    assert!(check_time(flow.as_ref(), -1e-12).is_err());
    // a time that rounding pushed beyond 1 still gives a number
    check_time(flow.as_ref(), 1.0 + 1e-9).unwrap();
    assert_eq!(flow.alpha(&(1.0 + 1e-9).into()).v(), 0.0);
    assert_eq!(flow.lambda(&(1.0 + 1e-9).into()).v(), f64::NEG_INFINITY);
}

fn engine() -> Engine {
    let mut engine = Engine::new();
    ld3sh::script::noise::register(&mut engine);
    engine
}

fn eval(script: &str) -> f64 {
    let v: Dynamic = engine().eval(script).unwrap_or_else(|e| panic!("{script}: {e}"));
    v.as_float().unwrap_or_else(|_| panic!("{script} gave {}", v.type_name()))
}

fn fails(script: &str) -> (Kind, String) {
    let e = caught(script, engine().eval::<Dynamic>(script));
    (e.kind(), e.to_string())
}

#[test]
fn scripts_make_and_ask_schedules() {
    for (script, want) in [
        ("noise::edm().t_max", 80.0),
        ("noise::edm(#{ sigma_max: 160 }).t_max", 160.0),
        ("noise::edm().sigma(3)", 3.0),
        ("noise::edm().inverse_lambda(0)", 1.0),
        ("noise::vp_linear().t_min", 1e-3),
        ("noise::vp_linear(#{ beta_min: 1, beta_max: 1 }).alpha(1.0)", (-0.5f64).exp()),
        ("noise::vp_cosine(#{ s: 0 }).alpha(0.5)", 0.5f64.sqrt()),
        ("noise::vp_discrete(\"ldm\").t_min", 1e-3),
        ("noise::vp_discrete(#{ alphas_cumprod: [0.9, 0.25] }).alpha(1)", 0.5),
        ("noise::vp_discrete(#{ betas: [0.1, 0.2] }).ve_sigma(1.0)", (0.28f64 / 0.72).sqrt()),
        ("noise::vp_discrete(#{ preset: \"sd\" }).sigma(1.0)", 0.99766723),
        ("noise::flow().alpha(0.25)", 0.75),
        ("noise::flow(#{ shift: 3 }).sigma(0.5)", 0.75),
        ("noise::flow(#{ mu: 0.0 }).sigma(0.5)", 0.5),
        ("noise::flow().lambda(0.5)", 0.0),
        ("let n = noise::vp_linear(); n.t_of_sigma(n.ve_sigma(0.3))", 0.3),
    ] {
        assert!((eval(script) - want).abs() < 1e-7, "{script}: {} against {want}", eval(script));
    }
    let text: String = engine().eval("noise::vp_discrete(#{ betas: [0.1, 0.2] }).to_string()").unwrap();
    assert_eq!(text, "noise::vp_discrete(#{ betas: [2 values] })");
    let text: String = engine().eval("noise::flow().to_string()").unwrap();
    assert_eq!(engine().eval::<String>(&format!("({text}).to_string()")).unwrap(), text);
    assert_eq!(engine().eval::<String>("noise::vp_cosine().name").unwrap(), "vp_cosine");
}

#[test]
fn scripts_are_told_what_is_wrong() {
    for (script, kind, part) in [
        ("noise::edm(#{ sigma_mx: 3 })", Kind::Name, "did you mean `sigma_max`?"),
        ("noise::edm(#{ sigma_max: \"3\" })", Kind::Type, "must be a number"),
        ("noise::edm(#{ sigma_max: -3 })", Kind::Value, "sigma_max"),
        ("noise::flow(#{ shift: 3, mu: 1 })", Kind::Value, "one of the two"),
        ("noise::flow(#{ mu: 1000 })", Kind::Value, "shift"),
        ("noise::vp_discrete(\"sdxx\")", Kind::Name, "did you mean `sd`?"),
        ("noise::vp_discrete(#{})", Kind::Value, "exactly one"),
        ("noise::vp_discrete(#{ betas: [0.1, \"a\"] })", Kind::Type, "[1]"),
        ("noise::vp_discrete(#{ betas: 3 })", Kind::Type, "betas"),
        ("noise::edm().alpha(0.001)", Kind::Value, "outside [0.002, 80]"),
        ("noise::edm().lambda(0.0/0.0)", Kind::Value, "NaN"),
        ("noise::edm().alpha(\"x\")", Kind::Type, "expected a number or a tensor"),
        ("noise::edm().t_of_sigma(-1)", Kind::Value, "at least 0"),
    ] {
        let (k, message) = fails(script);
        assert_eq!(k, kind, "{script}: {message}");
        assert!(message.contains(part), "{script}: {message}");
    }
}

/// A schedule of functions is that of the same name, to the digits that its table is to have, and so is what is sampled with it.
#[test]
fn functions_of_a_script_make_a_schedule() {
    let engine = ld3sh::script::engine::new(&Default::default());
    let schedules = [
        ("noise::edm()", "alpha: |t| 1.0, sigma: |t| t, t_min: 0.002, t_max: 80.0"),
        (
            "noise::vp_linear()",
            "alpha: |t| (-4.975 * t * t - 0.05 * t).exp(), sigma: |t| (1.0 - (-9.95 * t * t - 0.1 * t).exp()).sqrt()",
        ),
        ("noise::flow(#{ t_min: 0.001, t_max: 0.999 })", "alpha: |t| 1.0 - t, sigma: |t| t, t_max: 0.999"),
    ];
    for (known, functions) in schedules {
        let script = format!(
            "let a = {known}; let b = noise::from_map(noise::from_fn(#{{ {functions} }}).to_map());
             let worst = 0.0;
             let off = |x, y| {{ let d = (x / y - 1.0).abs().max().item(); if d > worst {{ worst = d; }} }};
             let t = a.t_max * (a.t_min / a.t_max) ** linspace(0.0, 1.0, 301, #{{ dtype: \"f64\" }});
             off.call(b.alpha(t), a.alpha(t)); off.call(b.sigma(t), a.sigma(t)); off.call(b.ve_sigma(t), a.ve_sigma(t));
             off.call(b.inverse_lambda(a.lambda(t)), t);
             let net = |n| denoiser::mixture(#{{ means: [[-1.0], [1.0]], stds: 0.2, noise: n }});
             let z = randn([4, 1], #{{ seed: 0, dtype: \"f64\" }});
             let x = [a, b].map(|n| sample(net.call(n), solver::unipc(), schedule::logsnr(n, 6), z));
             off.call(x[1], x[0]);
             [worst, b.to_map().t.len()]"
        );
        let found: rhai::Array = engine.eval(&script).unwrap_or_else(|e| panic!("{script}: {e}"));
        let (worst, knots) = (found[0].as_float().unwrap(), found[1].as_int().unwrap());
        println!("{known}: off by {worst:.1e} with {knots} knots");
        assert!(worst < 1e-8 && knots < 1500, "{known}: off by {worst:e} with {knots} knots");
    }
    for (functions, kind, words) in [
        ("alpha: |t| 1.0", Kind::Value, "needs the option `sigma`"),
        ("alpha: |t| \"a\", sigma: |t| t", Kind::Type, "alpha must return a number, or one for each"),
        ("alpha: |t| 1.0, sigma: |t| t.sum()", Kind::Type, "sigma must return"),
        ("alpha: |t| 1.0 - t, sigma: |t| t", Kind::Value, "alpha is 0"),
        ("alpha: |t| 1.0, sigma: |t| 2.0 - t", Kind::Value, "must grow with t"),
        ("alpha: |t| 1.0, sigma: |t| t / t.mean()", Kind::Value, "cannot be followed"),
        (
            "alpha: |t| 1.0, sigma: |t| t + (t - 0.3).sign() * 0.01 + 0.02",
            Kind::Value,
            "cannot be followed to 8 digits near t = 0.3",
        ),
        ("alpha: |t| 1.0, sigma: |t| t, t_min: 2.0", Kind::Value, "must be below t_max"),
    ] {
        let script = format!("noise::from_fn(#{{ {functions} }})");
        let e = caught(&script, engine.eval::<Dynamic>(&script));
        assert!(e.kind() == kind && e.to_string().contains(words), "{script}: {e}");
    }
}

#[test]
fn scripts_differentiate_through_tensors() {
    let t = grad::variable(&Tensor::new(&[[0.1f32, 0.4], [0.7, 1.0]], &Device::Cpu).unwrap()).unwrap();
    let n = noise(json!({"name": "vp_linear"}));
    for (method, f) in [
        ("lambda", (|n, t| n.lambda(t)) as fn(&Noise, &Real) -> Real),
        ("alpha", |n, t| n.alpha(t)),
        ("sigma", |n, t| n.sigma(t)),
        ("ve_sigma", |n, t| n.ve_sigma(t)),
        ("inverse_lambda", |n, t| n.inverse_lambda(t)),
        ("t_of_sigma", |n, t| n.t_of_sigma(t)),
    ] {
        let mut scope = Scope::new();
        scope.push("t", t.clone());
        let y: Tensor = engine().eval_with_scope(&mut scope, &format!("noise::vp_linear().{method}(t)")).unwrap();
        assert_eq!((y.dims(), y.dtype()), (&[2usize, 2][..], DType::F32));
        let g = grad::grad(&Quiet, &y.sum_all().unwrap(), std::slice::from_ref(&t)).unwrap();
        for ((t, y), g) in
            host_values(&t).unwrap().iter().zip(host_values(&y).unwrap()).zip(host_values(&g[0]).unwrap())
        {
            assert_eq!(y as f32, f(&n, &(*t).into()).v() as f32, "{method}");
            assert_eq!(g as f32, derivative(|t| f(&n, t), *t) as f32, "{method}'");
        }
    }
}
