//! Denoisers in scripts: every binding, gradients through them, networks that are script functions, errors.
use super::helpers::*;
use crate::caught::caught;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::*;
use ld3sh::host::Quiet;
use ld3sh::script::error::RhaiResult;
use ld3sh::script::host::ScriptHost;
use ld3sh::tensor::grad;
use rhai::{Dynamic, Engine, EvalAltResult, INT, NativeCallContext, Scope};

/// An engine with the bindings under test and the few tensor functions that the scripts below need.
fn engine() -> Engine {
    let mut e = Engine::new();
    e.set_max_expr_depths(0, 0);
    ld3sh::script::noise::register(&mut e);
    ld3sh::script::denoise::register(&mut e);
    let err = |e: candle_core::Error| Box::<EvalAltResult>::from(ld3sh::Error::from(e));
    e.register_type_with_name::<Tensor>("Tensor")
        .register_fn("states", |b: INT| wave(&[b as usize, 1, 2], 0.4))
        .register_fn("column", |t: Tensor| t.reshape((t.elem_count(), 1, 1)).unwrap())
        .register_fn("sine", |t: Tensor| t.sin().unwrap())
        .register_fn("times", move |a: Tensor, b: Tensor| a.broadcast_mul(&b).map_err(err))
        .register_fn("plus", move |a: Tensor, b: Tensor| a.broadcast_add(&b).map_err(err))
        .register_fn("total_rows", |t: Tensor| {
            (t.to_dtype(DType::F64).unwrap() * wave(t.dims(), 0.3)).unwrap().sum(1).unwrap()
        })
        .register_fn("one_hot", |labels: rhai::Array, n: INT| -> RhaiResult<Tensor> {
            let labels: Vec<i64> = labels.iter().map(|l| l.as_int().unwrap()).collect();
            Ok(one_hot(&labels, n as usize, DType::F32, &Device::Cpu)?)
        })
        .register_fn("total", |t: Tensor| t.sum_all().unwrap())
        .register_fn("variable", |t: Tensor| grad::variable(&t).unwrap())
        .register_fn("grad", |c: NativeCallContext, loss: Tensor, v: Tensor| -> RhaiResult<Tensor> {
            Ok(grad::grad(&ScriptHost::new(&c), &loss, &[v])?.remove(0))
        });
    e
}
fn run(text: &str) -> Dynamic {
    engine().eval::<Dynamic>(text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}
fn tensor(text: &str) -> Tensor {
    run(text).cast::<Tensor>()
}
/// The native error that a script ends with.
fn failure(text: &str) -> (String, String) {
    let e = caught(text, engine().eval::<Dynamic>(text));
    (e.kind().name().to_string(), e.to_string())
}

const NET: &str = r#"
    let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: "edm", sigma_data: 0.6, time: "log", shape: [1, 2], classes: 3 },
        |x, c, cond| {
            let h = sine(plus(x, column(c)));
            if cond == () { h } else { plus(h, sine(column(total_rows(cond)))) }
        });
"#;

fn with_net(rest: &str) -> String {
    NET.to_string() + rest
}

#[test]
fn a_script_function_denoises_like_its_formula() {
    let out = tensor(&with_net("net.denoise(states(3), 2)"));
    let x = wave(&[3, 1, 2], 0.4);
    let (q, d) = (4.0 + 0.36f64, 0.6);
    let f = ((&x / q.sqrt()).unwrap() + 2f64.ln() / 4.0).unwrap().sin().unwrap();
    let expected = ((&x * (d * d / q)).unwrap() + (f * (2.0 * d / q.sqrt())).unwrap()).unwrap();
    close(&out, &expected, 1e-13);
    let eps = tensor(&with_net("net.predict_noise(states(3), 2.0)"));
    close(&eps, &((x - out).unwrap() / 2.0).unwrap(), 1e-13);
    // the second argument is the VE noise level unless asked otherwise, also in a VP schedule
    let same = tensor(
        r#"denoiser::from_fn(#{ noise: noise::vp_linear(), predicts: "data" }, |x, sigma, cond| times(x, column(sigma)))
            .denoise(states(2), 0.25)"#,
    );
    close(&same, &(wave(&[2, 1, 2], 0.4) * 0.25).unwrap(), 1e-12);
}

#[test]
fn gradients_flow_through_script_networks_to_x_and_sigma() {
    let loss = |x: &Tensor, s: f64| {
        let mut scope = Scope::new();
        scope.push("x", x.clone()).push("s", s);
        let text =
            with_net("total(sine(net.guided(2).thresholded(#{ percentile: 0.5, max: 0.4 }).denoise(x, s, [0, 2])))");
        let t = engine().eval_with_scope::<Tensor>(&mut scope, &text).unwrap();
        t.to_scalar::<f64>().unwrap()
    };
    let script = |of: &str| {
        with_net(&format!(
            r#"let x = variable(states(2)); let s = variable(levels());
               let y = net.guided(2).thresholded(#{{ percentile: 0.5, max: 0.4 }}).denoise(x, s, [0, 2]);
               grad(total(sine(y)), {of})"#
        ))
    };
    let gradient = |of: &str| {
        let mut e = engine();
        e.register_fn("levels", || Tensor::new(0.8f64, &Device::Cpu).unwrap());
        e.eval::<Tensor>(&script(of)).unwrap()
    };
    let (x, h) = (wave(&[2, 1, 2], 0.4), 1e-5);
    let by_x = gradient("x");
    let v = wave(&[2, 1, 2], 0.77);
    let step = (&v * h).unwrap();
    let fd = (loss(&(&x + &step).unwrap(), 0.8) - loss(&(&x - &step).unwrap(), 0.8)) / (2.0 * h);
    assert!((fd - dot(&by_x, &v)).abs() < 1e-8, "{fd} against {}", dot(&by_x, &v));
    let by_s = gradient("s");
    let fd = (loss(&x, 0.8 + h) - loss(&x, 0.8 - h)) / (2.0 * h);
    assert!((fd - values(&by_s)[0]).abs() < 1e-8, "{fd} against {by_s}");
}

#[test]
fn one_noise_level_per_sample() {
    let mut e = engine();
    e.register_fn("levels", || Tensor::new(&[0.5f64, 3.0], &Device::Cpu).unwrap());
    let net = "denoiser::mixture(#{ means: [[[-1, 0.5]], [[1, 0]]], stds: 0.2, weights: [1, 3] })";
    let both = e.eval::<Tensor>(&format!("{net}.denoise(states(2), levels())")).unwrap();
    for (i, s) in [0.5, 3.0].iter().enumerate() {
        let one = e.eval::<Tensor>(&format!("{net}.denoise(states(2), {s:?})")).unwrap();
        close(&both.narrow(0, i, 1).unwrap(), &one.narrow(0, i, 1).unwrap(), 1e-14);
    }
    let s =
        e.eval::<Tensor>(&format!("let s = variable(levels()); grad(total({net}.denoise(states(2), s)), s)")).unwrap();
    assert_eq!(s.dims(), [2]);
    assert!(values(&s).iter().all(|v| *v != 0.0));
    // x is in the denoiser's own scaling: a VP state at the same level is α times the VE state
    let vp = e.eval::<Tensor>(&format!("{net}.with_noise(noise::vp_linear()).denoise(states(2), 1.0)")).unwrap();
    let d = Mixture::new(
        &Tensor::new(&[[[-1.0f64, 0.5]], [[1.0, 0.0]]], &Device::Cpu).unwrap(),
        &[0.2],
        Some(&[1.0, 3.0]),
        edm(),
    )
    .unwrap();
    let x = (wave(&[2, 1, 2], 0.4) * 2f64.sqrt()).unwrap();
    close(&vp, &eval(&d, &x, &[1.0], &Cond::None, Prediction::Data), 1e-12);
}

#[test]
fn exact_denoisers_are_made_from_options() {
    let g = tensor("denoiser::gaussian(#{ mean: 0.5, std: 2, shape: [1, 2] }).denoise(states(1), 1.0)");
    let x = wave(&[1, 1, 2], 0.4);
    close(&g, &((&x - 0.5).unwrap() * (4.0 / 5.0)).unwrap().affine(1.0, 0.5).unwrap(), 1e-14);
    let g = tensor(
        "denoiser::gaussian(#{ mean: [[0.5, 1.0]], std: [[1, 2.0]], noise: noise::flow() }).denoise(states(1), 1.0)",
    );
    assert_eq!(g.dims(), [1, 1, 2]);
    let data = tensor("denoiser::empirical(states(5), #{ noise: noise::edm() }).denoise(states(1), 0.002)");
    close(&data, &x, 1e-12);
    for (text, kind, part) in [
        ("denoiser::gaussian(#{ std: 1.0 })", "value", "shape"),
        ("denoiser::gaussian(#{ maen: 1.0 })", "name", "mean"),
        ("denoiser::gaussian(#{ mean: [[1.0], [2.0, 3.0]] })", "shape", "one shape"),
        ("denoiser::gaussian(#{ mean: \"x\" })", "type", "string"),
        ("denoiser::mixture(#{ stds: 1.0 })", "value", "means"),
        ("denoiser::mixture(#{ means: [[0.0]], stds: [1.0, 2.0] })", "shape", "1 standard deviations"),
        ("denoiser::mixture(#{ means: [], stds: 1.0 })", "value", "empty"),
        ("denoiser::empirical(states(2), #{ noise: 3 })", "type", "noise schedule"),
        ("denoiser::from_fn(#{ predicts: \"data\" }, |x, s, c| x)", "value", "`noise`"),
        ("denoiser::from_fn(#{ noise: noise::edm() }, |x, s, c| x)", "value", "`predicts`"),
        ("denoiser::from_fn(#{ noise: noise::edm(), predicts: \"nois\" }, |x, s, c| x)", "name", "noise"),
        (
            "denoiser::from_fn(#{ noise: noise::edm(), predicts: \"v\", time: \"steps\" }, |x, s, c| x)",
            "value",
            "vp_discrete",
        ),
        (
            "denoiser::from_fn(#{ noise: noise::edm(), predicts: \"v\", sigma_data: 1 }, |x, s, c| x)",
            "value",
            "sigma_data",
        ),
        ("denoiser::load(\"fashion82\")", "name", "fashion28"),
        ("denoiser::load(\"no/such/file.safetensors\")", "io", "no/such/file"),
        ("denoiser::load(\"fashion28\", #{ dtype: \"f8\" })", "name", "f32"),
    ] {
        let (k, message) = failure(text);
        assert!(k == kind && message.contains(part), "{text}: {k}: {message}");
    }
}

#[test]
fn wrong_evaluations_are_named() {
    for (rest, kind, part) in [
        ("net.denoise(states(2), 0)", "value", "above 0"),
        ("net.denoise(states(2), -1.0)", "value", "above 0"),
        ("net.denoise(states(2), 0.0 / 0.0)", "value", "NaN"),
        ("net.denoise(states(2), 1000)", "value", "range"),
        ("net.denoise(states(2), \"x\")", "type", "number or a tensor"),
        ("net.denoise(column(states(1)), 1.0)", "shape", "[B, 1, 2]"),
        ("net.denoise(states(2), states(2))", "shape", "one per sample"),
        ("net.denoise(states(2), 1.0, [1])", "shape", "2 labels"),
        ("net.denoise(states(2), 1.0, [1, 3])", "value", "label 3"),
        ("net.denoise(states(2), 1.0, [-1, 0])", "value", "label -1"),
        ("net.denoise(states(2), 1.0, 3)", "value", "label 3"),
        ("net.denoise(states(2), 1.0, [1, 0.5])", "type", "integer"),
        ("net.denoise(states(2), 1.0, #{})", "type", "labels"),
        ("net.denoise(states(2), 1.0, one_hot([0, 1], 4))", "shape", "[2, 3]"),
        ("net.cond([0, 5])", "value", "label 5"),
        ("net.nfe", "value", "counted"),
        ("net.guided(\"x\")", "type", "number"),
        ("net.guided(2, #{ interval: [3.0] })", "value", "array of 2 numbers"),
        ("net.guided(2, #{ intervall: [3.0, 4.0] })", "name", "interval"),
        ("net.thresholded(#{ percentile: 99 })", "value", "percentile"),
        ("net.clamped(1, -1)", "value", "lo < hi"),
        ("net.labels(0)", "value", "number of labels"),
        ("denoiser::gaussian(#{ mean: [0.5] }).labels(3)", "value", "class-conditional"),
        ("denoiser::gaussian(#{ mean: [[0.5, 1.0]] }).denoise(states(1), 1.0, [2])", "value", "no condition"),
    ] {
        let (k, message) = failure(&with_net(rest));
        assert!(k == kind && message.contains(part), "{rest}: {k}: {message}");
    }
    // an error of the function's own comes out as it was
    let e = engine()
        .eval::<Dynamic>(
            r#"denoiser::from_fn(#{ noise: noise::edm(), predicts: "data" }, |x, s, c| throw "mine").denoise(states(1), 1.0)"#,
        )
        .unwrap_err();
    assert!(e.to_string().contains("mine"), "{e}");
    let (k, message) = failure(
        r#"denoiser::from_fn(#{ noise: noise::edm(), predicts: "data" }, |x, s, c| 3).denoise(states(1), 1.0)"#,
    );
    assert!(k == "type" && message.contains("must return a tensor"), "{message}");
}

#[test]
fn properties_labels_and_counts() {
    let text = r#"
        let n = net.counted();
        let g = n.guided(2.5, #{ interval: [0.1, 10] }).with_noise(noise::vp_linear());
        g.denoise(states(2), 1.0, net.cond([0, 2]));
        g.predict_noise(states(2), 1.0);
        let nfe = g.nfe;
        n.reset();
        [nfe, n.nfe, g.runs, g.classes, g.shape, g.noise.name, net.hash, `${g}`, net.labels(4, #{ seed: 3 }),
            net.labels(2, #{ seed: 3, first: 2 }), net.labels(4)]
    "#;
    let a = run(&with_net(text)).cast::<rhai::Array>();
    let int = |i: usize| a[i].as_int().unwrap();
    assert_eq!((int(0), int(1), int(2), int(3)), (2, 0, 2, 3));
    assert_eq!(a[4].clone().into_typed_array::<INT>().unwrap(), [1, 2]);
    assert_eq!(a[5].clone().into_string().unwrap(), "vp_linear");
    assert!(a[6].is_unit(), "a function has no hash");
    assert!(a[7].clone().into_string().unwrap().contains("guided by 2.5"));
    let labels = |i: usize| a[i].clone().into_typed_array::<INT>().unwrap();
    assert_eq!(labels(8)[2..], labels(9));
    assert!(labels(8).iter().chain(&labels(10)).all(|l| (0..3).contains(l)));
    let rows = tensor("one_hot([2, 0], 3)");
    assert_eq!(rows.to_vec2::<f32>().unwrap(), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]);
}

#[test]
fn a_condition_of_the_scripts_own_reaches_its_network() {
    let text = r#"
        let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: "data" }, |x, s, c| if c == () { x } else { times(x, c.factor) });
        net.guided(3).denoise(states(2), 1.0, #{ factor: total(states(1)) })
    "#;
    // guidance of a condition that has no rows: two evaluations, x + 3 (f x − x)
    let f = values(&wave(&[1, 1, 2], 0.4)).iter().sum::<f64>();
    close(&tensor(text), &(wave(&[2, 1, 2], 0.4) * (1.0 + 3.0 * (f - 1.0))).unwrap(), 1e-12);
}

#[test]
fn the_built_in_network_matches_its_reference() {
    let io = candle_core::safetensors::load("tests/fixtures/fashion28-edm.io.safetensors", &Device::Cpu).unwrap();
    let named = |n: &str| io.get(&format!("io.{n}")).cloned();
    let (x, sigma, labels) = (named("x").unwrap(), named("sigma").unwrap(), named("class_labels").unwrap());
    let mut scope = Scope::new();
    scope.push("x", x.clone()).push("sigma", sigma.clone()).push("rows", labels.clone());
    let text = r#"
        let net = denoiser::load("fashion28");
        [net, net.denoise(x, sigma, rows)]
    "#;
    let a = engine().eval_with_scope::<rhai::Array>(&mut scope, text).unwrap();
    let net = a[0].clone().cast::<DynDenoiser>();
    assert_eq!((net.classes(), net.sample_shape(), net.runs_per_eval()), (10, Some(vec![1, 28, 28]), 1));
    assert!(net.hash().is_some());
    close(&a[1].clone().cast::<Tensor>(), &named("denoised").unwrap().to_dtype(DType::F32).unwrap(), 1e-4);

    // both gradients, against the reference's
    let t = values(&sigma);
    let cond = Cond::classes(labels);
    let (_, pull) = net.linearize(&Quiet, &Query { x: &(&x).into(), t: &t, cond: &cond }, Prediction::Data).unwrap();
    let g = pull(&Quiet, &named("cotangent").unwrap().into()).unwrap();
    close(g.x.tensor().unwrap(), &named("grad_x").unwrap(), 2e-4);
    assert!(gap(&g.t, &values(&named("grad_sigma").unwrap())) < 2e-4);
}
