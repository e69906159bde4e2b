//! Solvers, plans, `solve` and `sample` as scripts use them.
use crate::common::*;
use crate::small::small;
use candle_core::{Device, Tensor};
use ld3sh::denoise::DynDenoiser;
use ld3sh::noise::Noise;
use ld3sh::script;
use ld3sh::script::error::Caught;
use ld3sh::tensor::grad;
use rhai::{Array, Dynamic, Engine, EvalAltResult, Map, Scope};

/// An engine with this area's functions, a few tensor operations, and a mixture denoiser `net` with noise `z`.
fn engine() -> (Engine, Scope<'static>) {
    let mut e = Engine::new();
    script::noise::register(&mut e);
    script::discretize::register(&mut e);
    script::plan::register(&mut e);
    e.register_type_with_name::<Tensor>("Tensor");
    e.register_type_with_name::<DynDenoiser>("Denoiser");
    e.register_fn("add", |a: Tensor, b: Tensor| a.broadcast_add(&b).unwrap());
    e.register_fn("sub", |a: Tensor, b: Tensor| a.broadcast_sub(&b).unwrap());
    e.register_fn("mul", |a: Tensor, b: Tensor| a.broadcast_mul(&b).unwrap());
    e.register_fn("div", |a: Tensor, b: Tensor| a.broadcast_div(&b).unwrap());
    e.register_fn("eps", |net: DynDenoiser, x: Tensor, t: Tensor| {
        let t = [t.to_scalar::<f64>().unwrap()];
        let q = ld3sh::denoise::Query { x: &(&x).into(), t: &t, cond: &ld3sh::denoise::Cond::None };
        net.eval(&HOST, &q, ld3sh::denoise::Prediction::Noise).unwrap().into_tensor().unwrap()
    });
    let noise: Noise = ld3sh::noise::from_spec(&serde_json::json!({ "name": "edm" })).unwrap();
    let net = dynamic(&small(noise.clone()));
    let mut scope = Scope::new();
    scope.push("net", net);
    scope.push("noise", noise);
    scope.push("z", Tensor::new(&[[[[0.3, -0.7]]], [[[-0.4, 1.2]]]], &Device::Cpu).unwrap());
    (e, scope)
}
fn eval(code: &str) -> Result<Dynamic, Box<EvalAltResult>> {
    let (e, mut scope) = engine();
    e.eval_with_scope(&mut scope, code)
}
fn tensor(code: &str) -> Vec<f64> {
    values(&eval(code).unwrap().cast::<Tensor>())
}
/// The message and hint that a script's error shows.
fn message(code: &str) -> String {
    match *eval(code).err().unwrap_or_else(|| panic!("{code} should fail")) {
        EvalAltResult::ErrorRuntime(v, _) => v.cast::<Caught>().0.to_string(),
        other => other.to_string(),
    }
}

#[test]
fn every_solver_samples_with_and_without_options() {
    for solver in ld3sh::solve::TABLE.iter().map(|row| row.name) {
        let x = tensor(&format!("sample(net, solver::{solver}(), schedule::logsnr(noise, 4), z)"));
        let y = tensor(&format!("sample(net, solver::{solver}(#{{}}), schedule::logsnr(noise, 4), z, #{{ seed: 0 }})"));
        let w = tensor(&format!("sample(net, solver::named(\"{solver}\", #{{}}), schedule::logsnr(noise, 4), z)"));
        assert!(x.iter().all(|x| x.is_finite()));
        assert_eq!((&x, &x), (&y, &w), "{solver}");
    }
    let n = eval("solver::dpmpp(#{ order: 3, singlestep: true, nfe: 7 }).steps(7)").unwrap();
    assert_eq!(n.as_int().unwrap(), 3);
    assert_eq!(eval("solver::heun().for_nfe(7).nfe(4)").unwrap().as_int().unwrap(), 7);
    let name = eval("solver::from_json(solver::unipc(#{ variant: \"bh2\" }).json).describe()").unwrap();
    assert_eq!(name.into_string().unwrap(), "unipc(3, bh2)");
}

#[test]
fn solve_starts_from_x_t_and_a_plan_stands_for_solver_and_schedule() {
    let a = tensor("let s = schedule::logsnr(noise, 4); solve(net, solver::unipc(), s, z)");
    let b = tensor("let s = schedule::logsnr(noise, 4); solve(net, solver::unipc().plan(s), z)");
    let c = tensor(
        "let s = schedule::logsnr(noise, 4); let p = solver::unipc().plan(s); solve(net, plan::from_matrix(p.matrix, p.t_eval), z)",
    );
    let d =
        tensor("let s = schedule::logsnr(noise, 4); solve(net, solver::from_plan(|s| solver::unipc().plan(s)), s, z)");
    assert_eq!((&a, &a), (&b, &d));
    assert!(distance(&c, &a) < 1e-12);
    let edited = tensor(
        "let p = solver::unipc().plan(schedule::logsnr(noise, 4)); solve(net, p.with_coef(4, 0, 1).scale_row(4, 0.5), z)",
    );
    assert!(distance(&edited, &a) > 1e-3);
    let table = eval("solver::unipc().plan(schedule::logsnr(noise, 2)).to_string()").unwrap().into_string().unwrap();
    assert!(table.starts_with("unipc(3, bh1): 2 evaluations, predicts data"), "{table}");
}

#[test]
fn rows_of_a_plan_count_from_the_end() {
    let a = tensor("solver::euler().plan(schedule::logsnr(noise, 3)).scale_row(-1, 0.5).with_coef(-2, 0, 2).matrix");
    let b = tensor("solver::euler().plan(schedule::logsnr(noise, 3)).scale_row(3, 0.5).with_coef(2, 0, 2).matrix");
    assert_eq!(a, b);
}

#[test]
fn a_stepped_solver_counts_its_evaluations() {
    let heun = "solver::from_fn(|s| {
        let h = s.t_next.sub(s.t);
        let d = s.net.eps(s.x, s.t);
        let e = s.net.eps(s.x.add(d.mul(h)), s.t_next);
        s.x.add(d.add(e).mul(h))
    })";
    let n = eval(&format!("sample(net, {heun}, schedule::logsnr(noise, 3), z, #{{ trajectory: true }}).nfe"));
    assert_eq!(n.unwrap().as_int().unwrap(), 6);
}

#[test]
fn the_start_of_a_stepped_solver_has_a_gradient_in_the_first_time() {
    let (e, mut scope) = engine();
    let t = grad::variable(&Tensor::new(&[70.0, 5.0, 0.5, 0.01], &Device::Cpu).unwrap()).unwrap();
    scope.push("t", t.clone());
    // x_0 = z t_0 · t_3 / t_0: nothing depends on t_0 once unit-variance noise is scaled by it
    let code = "sample(net, solver::from_fn(|s| s.x.mul(s.t_next.div(s.t))), schedule::list(noise, t), z)";
    let x = e.eval_with_scope::<Tensor>(&mut scope, code).unwrap();
    let g = values(&grad::grad(&HOST, &x.sum_all().unwrap(), &[t]).unwrap()[0]);
    let sum: f64 = tensor("z").iter().sum();
    assert!(g.iter().zip([0.0, 0.0, 0.0, sum]).all(|(a, b)| (a - b).abs() < 1e-12), "{g:?}");
}

#[test]
fn a_solver_written_step_by_step_is_the_native_one() {
    let own = "solver::from_fn(|s| {
        // Euler in sigma
        let d = s.net.eps(s.x, s.t);
        #{ x: s.x.add(d.mul(s.t_next.sub(s.t))), memory: d }
    })";
    let a = tensor(&format!("sample(net, {own}, schedule::logsnr(noise, 5), z)"));
    let b = tensor("sample(net, solver::euler(), schedule::logsnr(noise, 5), z)");
    assert!(distance(&a, &b) < 1e-12);
    let seen = eval(&format!(
        "let seen = []; let r = sample(net, {own}, schedule::logsnr(noise, 3), z, #{{ trajectory: true, callback: |s| seen.push(s.step) }}); [seen, r.trajectory.len(), r.nfe]"
    ))
    .unwrap()
    .cast::<Array>();
    assert_eq!(seen[0].clone().cast::<Array>().len(), 3);
    assert_eq!(seen[1].as_int().unwrap(), 4);
}

#[test]
fn trajectories_and_callbacks() {
    let r = eval("let seen = []; let r = sample(net, solver::unipc(), schedule::logsnr(noise, 4), z, #{ trajectory: true, callback: |s| seen.push(s.t) }); r.seen = seen; r")
        .unwrap()
        .cast::<Map>();
    assert_eq!(r["trajectory"].clone().cast::<Array>().len(), 5);
    assert_eq!(r["seen"].clone().cast::<Array>().len(), 4);
    assert_eq!(r["nfe"].as_int().unwrap(), 4);
    assert_eq!(r["t"].clone().cast::<Array>()[0].as_float().unwrap(), 80.0);
}

#[test]
fn gradients_reach_noise_and_steps_from_a_script() {
    let (e, mut scope) = engine();
    let z = grad::variable(&scope.get_value::<Tensor>("z").unwrap()).unwrap();
    let t = grad::variable(&Tensor::new(&[80.0, 5.0, 0.5, 0.01], &Device::Cpu).unwrap()).unwrap();
    scope.push("v", z.clone());
    scope.push("t", t.clone());
    let x: Tensor = e
        .eval_with_scope(&mut scope, "sample(net, solver::unipc(), schedule::list(noise, t), v, #{ remat: true })")
        .unwrap();
    let loss = x.sqr().unwrap().sum_all().unwrap();
    let g = grad::grad(&HOST, &loss, &[z, t]).unwrap();
    assert!(values(&g[0]).iter().all(|g| g.abs() > 1e-12));
    assert!(values(&g[1])[1..3].iter().all(|g| g.abs() > 1e-12));
}

#[test]
fn errors_say_what_and_how() {
    for (code, parts) in [
        ("solver::unipc(#{ ordre: 3 })", ["unknown option", "order"].as_slice()),
        ("solver::unipc(#{ variant: \"bh3\" })", &["bh3", "bh1"]),
        ("solver::ipndm(#{ order: 7 })", &["option `order` must be an integer from 1 to 4, not 7"]),
        ("solver::ipndm(#{ order: -1 })", &["order", "-1"]),
        ("solver::ddim(#{ eta: \"x\" })", &["eta", "a number"]),
        ("solver::named(\"unipx\", #{})", &["unipx", "unipc"]),
        ("solver::from_json(\"{\")", &["from_json"]),
        ("solver::from_json(\"{\\\"name\\\":\\\"ipndm\\\",\\\"order\\\":9}\")", &["from 1 to 4"]),
        ("solver::from_fn(|s| s.x).plan(schedule::logsnr(noise, 3))", &["has no plan", "from_plan"]),
        ("sample(net, solver::from_plan(|s| 3), schedule::logsnr(noise, 3), z)", &["must return a Plan, not int"]),
        ("sample(net, solver::from_fn(|s| 3), schedule::logsnr(noise, 3), z)", &["must return a tensor", "int"]),
        ("sample(net, solver::euler(), schedule::logsnr(noise, 3), z, #{ remat: 3 })", &["remat", "auto"]),
        ("sample(net, solver::euler(), schedule::logsnr(noise, 3), z, #{ batch: 0 })", &["batch"]),
        ("sample(net, solver::euler(), schedule::logsnr(noise, 3), z, #{ sed: 0 })", &["seed"]),
        ("sample(net, solver::euler(), schedule::logsnr(noise, 3), 4)", &["does not fix the shape", "noise("]),
        ("sample(net, solver::euler(), schedule::logsnr(noise::vp_linear(), 3), z)", &["vp_linear", "net.noise"]),
        ("plan::from_matrix([[1, 0], [1]], [80.0])", &["rows of different lengths"]),
        ("plan::from_matrix([[1, 2], [1, 1]], [80.0])", &["[0, 1]", "diagonal"]),
        ("plan::from_matrix([[1]], [80.0])", &["2 rows"]),
        ("plan::from_matrix([], [])", &["two dimensions"]),
        ("plan::from_matrix(\"a\", [80.0])", &["array of numbers"]),
        ("solver::euler().plan(schedule::logsnr(noise, 3)).with_coef(9, 0, 1)", &["[9, 0]", "4 rows"]),
        ("solver::euler().plan(schedule::logsnr(noise, 3)).with_coef(-9, 0, 1)", &["-9"]),
        ("solver::euler().plan(schedule::logsnr(noise, 3)).scale_row(9, 0.5)", &["no row 9"]),
    ] {
        let m = message(code);
        for part in parts {
            assert!(m.contains(part), "{code}: `{m}` does not say `{part}`");
        }
    }
}
