//! Generators of point clouds against numbers from the public code: PointwiseNet, its flow prior, its checkpoint, schedule and loops.
use super::helpers::{fixture, read, values};
use super::latent::{graph, near, net};
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Denoiser, Network, Prediction, Query};
use ld3sh::discretize::Schedule;
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source, through};
use ld3sh::nets::family::{Parts, Role};
use ld3sh::plan::{Plan, Source as From};
use ld3sh::solve::Solver;
use ld3sh::tensor::grad;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

type Named = HashMap<String, Tensor>;

/// The largest difference, relative to the largest entry.
fn off(a: &Tensor, b: &Tensor) -> f64 {
    super::helpers::error(a, b)
}

/// A file of these weights as the family has them, with training arguments.
fn written(weights: &Named, places: &[(&str, &str)], args: Value) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("points.safetensors");
    let mut out = Named::new();
    for (from, to) in places {
        out.extend(weights.iter().filter_map(|(n, t)| Some((format!("{to}{}", n.strip_prefix(from)?), t.clone()))));
    }
    let metadata = [("pointcloud".to_string(), args.to_string())].into();
    safetensors::serialize_to_file(&out, Some(metadata), &path).unwrap();
    (dir, path)
}

fn args(points: usize) -> Value {
    json!({ "model": "gaussian", "latent_dim": 8, "num_steps": 12, "beta_1": 1e-4, "beta_T": 0.02, "sched_mode": "linear", "residual": true, "points": points })
}

fn load(path: &Path, dtype: DType) -> ld3sh::Result<Parts> {
    model::load(&Source::Path(path.into()), &Device::Cpu, dtype)
}

fn message(path: &Path) -> String {
    load(path, DType::F32).err().unwrap().to_string()
}

fn told(z: &Tensor) -> Cond {
    Cond::Named([("z".to_string(), z.clone())].into())
}

/// PointwiseNet of the fixture, at its widths as published.
fn pointwise(dtype: DType) -> (Parts, Named) {
    let io = read("points/net.safetensors");
    let (_dir, path) = written(&io, &[("w.", "diffusion.net.")], args(24));
    (load(&path, dtype).unwrap(), io)
}

#[test]
fn pointwise_net_and_all_its_gradients_are_those_of_the_code() {
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 2e-6)] {
        let (parts, io) = pointwise(dtype);
        let of = |name: &str| io[name].to_dtype(dtype).unwrap();
        let runner = net(parts).runner().clone();
        let (x, beta, z) = (of("net.x"), of("net.beta"), of("net.context"));
        let given = [("x", &x), ("c_noise", &beta), ("z", &z)];
        let (outs, pull) = runner.linearize(&given, &["x", "c_noise", "z"]).unwrap();
        let grads = pull(&[Some(&of("net.grad_y"))]).unwrap();
        let mut found = vec![("y", &outs[0])];
        found.extend(["grad_x", "grad_beta", "grad_context"].into_iter().zip(&grads));
        let far = of("net.beta_far");
        let y_far = runner.forward(&[("x", &x), ("c_noise", &far), ("z", &z)]).unwrap();
        found.push(("y_far", &y_far[0]));
        for (name, got) in found {
            let e = off(got, &io[&format!("net.{name}")]);
            eprintln!("{dtype:?} {name}: {e:.1e}");
            assert!(e < tolerance, "{dtype:?} {name}: {e:e}");
        }
    }
}

/// All states that end a step of a plan, with these noises for its columns.
fn states(plan: &Plan, net: &dyn Denoiser, x: &Tensor, noises: &[Tensor], cond: &Cond) -> Vec<Tensor> {
    let mut all: Vec<Tensor> = vec![];
    for state in &plan.states {
        let mut v: Option<Tensor> = None;
        for term in &state.terms {
            let source = match term.source {
                From::State(k) => all[k].clone(),
                From::Noise(c) => noises[c].clone(),
                From::Output(s) => {
                    let e = &plan.evals[s];
                    let q = Query { x: &(&all[e.state]).into(), t: &[e.t.v()], cond };
                    net.eval(&Quiet, &q, e.want).unwrap().into_tensor().unwrap()
                }
            };
            let part = (source * term.coef.v()).unwrap();
            v = Some(v.map_or(part.clone(), |v| (v + &part).unwrap()));
        }
        all.push(v.unwrap_or_else(|| x.clone()));
    }
    plan.trajectory.iter().map(|k| all[*k].clone()).collect()
}

fn steps(net: &dyn Denoiser, of: &[f64]) -> Schedule {
    Schedule::from_steps(net.noise().clone(), &of.iter().map(|k| k / 12.0).collect::<Vec<_>>(), "test").unwrap()
}

#[test]
fn the_published_loop_and_the_ode_are_those_of_the_code() {
    let (parts, io) = pointwise(DType::F64);
    let net = net(parts).denoiser().unwrap();
    let cond = told(&io["net.context"]);
    let all: Vec<f64> = (1..=12).rev().map(f64::from).collect();
    let plan = |name: &str, options: &[(&str, f64)], t: &[f64]| {
        let json =
            options.iter().map(|(k, v)| (k.to_string(), json!(v))).chain([("denoise_to_zero".into(), json!(true))]);
        let mut spec: serde_json::Map<String, Value> = json.collect();
        spec.insert("name".into(), json!(name));
        Solver::from_json(&Value::Object(spec)).unwrap().plan(&steps(&net, t)).unwrap().plan().clone()
    };
    let rows = |t: &Tensor| (0..t.dim(0).unwrap()).map(|i| t.get(i).unwrap()).collect::<Vec<_>>();
    let check = |what: &str, got: Vec<Tensor>, wanted: &Tensor| {
        assert_eq!(got.len(), wanted.dim(0).unwrap(), "{what}");
        for (i, (a, b)) in got.iter().zip(rows(wanted)).enumerate() {
            assert!(off(a, &b) < 1e-10, "{what}, state {i}: {:e}", off(a, &b));
        }
    };
    for (case, flexibility) in [("anc0", 0.0), ("anc0.37", 0.37)] {
        let p = plan("ddpm", &[("flexibility", flexibility)], &all);
        assert_eq!((p.nfe(), p.noise_columns), (12, 11));
        let noises = rows(&io[&format!("{case}.noise")]);
        let got = states(&p, &net, &io[&format!("{case}.x_T")], &noises, &cond);
        check(case, got, &io[&format!("{case}.states")]);
    }
    let none = vec![io["mean.x_T"].zeros_like().unwrap(); 11];
    check("mean", states(&plan("ddpm", &[], &all), &net, &io["mean.x_T"], &none, &cond), &io["mean.states"]);
    check("ddim", states(&plan("ddim", &[], &all), &net, &io["mean.x_T"], &[], &cond), &io["ddim_all.states"]);
    let some: Vec<f64> = io["ddim_sub.steps"].to_vec1::<i64>().unwrap().into_iter().map(|t| t as f64).collect();
    let (last, inner) = some.split_last().unwrap();
    assert_eq!(*last, 0.0);
    check("ddim of some", states(&plan("ddim", &[], inner), &net, &io["mean.x_T"], &[], &cond), &io["ddim_sub.states"]);
    // the loss of its training, at the fixture's steps
    let (x0, noise) = (&io["loss.x0"], &io["loss.noise"]);
    let t: Vec<f64> = io["loss.t"].to_vec1::<i64>().unwrap().into_iter().map(|t| t as f64 / 12.0).collect();
    let level = |f: &dyn Fn(f64) -> f64| {
        Tensor::from_vec(t.iter().map(|t| f(*t)).collect::<Vec<f64>>(), (2, 1, 1), &Device::Cpu).unwrap()
    };
    let (alpha, sigma) = (level(&|t| net.noise().alpha(&t.into()).v()), level(&|t| net.noise().sigma(&t.into()).v()));
    let x = (x0.broadcast_mul(&alpha).unwrap() + noise.broadcast_mul(&sigma).unwrap()).unwrap();
    let guess = net
        .eval(&Quiet, &Query { x: &x.into(), t: &t, cond: &cond }, Prediction::Noise)
        .unwrap()
        .into_tensor()
        .unwrap();
    let loss = (guess - noise).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
    assert!((loss / values(&io["loss.value"])[0] - 1.0).abs() < 1e-10, "{loss}");
}

#[test]
fn with_flexibility_0_the_loop_is_ddim_with_eta_1() {
    let (parts, io) = pointwise(DType::F64);
    let net = net(parts).denoiser().unwrap();
    let t = [12.0, 7.0, 4.0, 1.0];
    let noises: Vec<Tensor> = (0..3).map(|i| io["anc0.noise"].get(i).unwrap()).collect();
    let run = |spec: Value| {
        let plan = Solver::from_json(&spec).unwrap().plan(&steps(&net, &t)).unwrap();
        states(plan.plan(), &net, &io["anc0.x_T"], &noises, &told(&io["net.context"])).pop().unwrap()
    };
    let (a, b) = (run(json!({ "name": "ddpm" })), run(json!({ "name": "ddim", "eta": 1.0 })));
    assert!(off(&a, &b) < 1e-12);
}

#[test]
fn the_flow_is_that_of_the_code_and_differentiable() {
    let (net_io, io) = (read("points/net.safetensors"), read("points/flow.safetensors"));
    let mut all = net_io;
    all.retain(|n, _| n.starts_with("w."));
    all.extend(io.iter().filter(|(n, _)| n.starts_with("w.chain.")).map(|(n, t)| (format!("f{n}"), t.clone())));
    let mut args = args(24);
    args["model"] = json!("flow");
    let (_dir, path) = written(&all, &[("w.", "diffusion.net."), ("fw.", "flow.")], args);
    let prior = graph(&load(&path, DType::F64).unwrap(), Role::Prior);
    let z = through(&prior, "w", 0, &io["w_in"]).unwrap();
    assert!(off(&z, &io["z"]) < 1e-12, "{:e}", off(&z, &io["z"]));
    // its gradient, against differences
    let w = grad::variable(&io["w_in"]).unwrap();
    let sum = |w: &Tensor| through(&prior, "w", 0, w).unwrap().sqr().unwrap().sum_all().unwrap();
    let g = grad::grad(&Quiet, &sum(&w), std::slice::from_ref(&w)).unwrap().remove(0);
    let way = io["w_back"].affine(0.3, 0.1).unwrap();
    let h = 1e-5;
    let at = |s: f64| sum(&(&io["w_in"] + (&way * s).unwrap()).unwrap()).to_scalar::<f64>().unwrap();
    let slope = (g * way.clone()).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    let difference = (at(h) - at(-h)) / (2.0 * h);
    assert!((slope / difference - 1.0).abs() < 1e-7, "{slope} {difference}");
    // in f32, by the kernels
    let quick = graph(&load(&path, DType::F32).unwrap(), Role::Prior);
    let z32 = through(&quick, "w", 0, &io["w_in"].to_dtype(DType::F32).unwrap()).unwrap();
    near("flow in f32", &z32, &io["z"], 3e-6);
}

#[test]
fn a_checkpoint_as_the_repository_saves_it() {
    let io = read("points/ckpt.io.safetensors");
    let path = fixture("points/ckpt.pt");
    let given = [("points".to_string(), json!(20))].into();
    let mut parts = model::load_given(&Source::Path(path.clone()), &Device::Cpu, DType::F32, given).unwrap();
    let z = through(&graph(&parts, Role::Prior), "w", 0, &io["w"]).unwrap();
    assert!(off(&z, &io["z"]) < 1e-6, "{:e}", off(&z, &io["z"]));
    let net = net(std::mem::take(&mut parts));
    let of = |n: &str| io[n].to_dtype(DType::F32).unwrap();
    let eps = net.forward(&Quiet, &of("x"), &of("beta"), &told(&of("z"))).unwrap();
    assert!(off(&eps, &io["eps"]) < 1e-6, "{:e}", off(&eps, &io["eps"]));
    assert!(net.notes().is_empty(), "{:?}", net.notes());
    let d = net.denoiser().unwrap();
    assert_eq!(d.conditions(), ["z"]);
    assert_eq!(d.sample_shape(), Some(vec![20, 3]));
    // its schedule: that of its buffers, in exact numbers
    let bars = values(&io["sched32.alpha_bars"]);
    for (t, bar) in bars.iter().enumerate().skip(1) {
        let a = d.noise().alpha(&(t as f64 / 12.0).into()).v();
        assert!((a * a - bar).abs() < 2e-7, "{t}: {} {bar}", a * a);
    }
    // as many points as are asked for; 2048 are published
    let whole = model::denoiser(&Source::Path(path), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(whole.sample_shape(), Some(vec![2048, 3]));
    let without = whole.forward(
        &Quiet,
        &Tensor::zeros((1, 2048, 3), DType::F32, &Device::Cpu).unwrap(),
        &of("beta").narrow(0, 0, 1).unwrap(),
        &Cond::None,
    );
    assert!(without.unwrap_err().to_string().contains("needs its input `z`"));
}

#[test]
fn the_published_schedule() {
    let all: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("points/schedule_100.json")).unwrap()).unwrap();
    let of = |name: &str, i: usize| all[name][i].as_f64().unwrap();
    let noise = ld3sh::noise::from_spec(&json!({ "name": "vp_discrete", "preset": "dmpg" })).unwrap();
    for t in 1..=100usize {
        let at = (t as f64 / 100.0).into();
        let (a, s) = (noise.alpha(&at).v(), noise.sigma(&at).v());
        assert!((a * a - of("alpha_bars", t)).abs() < 1e-12, "{t}");
        assert!((s * s - (1.0 - of("alpha_bars", t))).abs() < 1e-12, "{t}");
    }
    assert!((noise.ve_sigma(&1.0.into()).v() - 1.3231).abs() < 1e-4);
}

#[test]
fn what_is_no_such_network_is_named() {
    let io = read("points/net.safetensors");
    let whole: Named = io.into_iter().filter(|(n, _)| n.starts_with("w.")).collect();
    let place = [("w.", "diffusion.net.")];
    let with = |change: &dyn Fn(&mut Named, &mut Value)| {
        let (mut weights, mut args) = (whole.clone(), args(24));
        change(&mut weights, &mut args);
        let (_dir, path) = written(&weights, &place, args);
        message(&path)
    };
    type Damage<'a> = &'a dyn Fn(&mut Named, &mut Value);
    let wanted: [(Damage, &str); 8] = [
        (&|w, _| drop(w.remove("w.layers.3._hyper_gate.bias")), "`diffusion.net.layers.3._hyper_gate.bias` is missing"),
        (&|_, a| a["latent_dim"] = json!(256), "`latent_dim` is 256"),
        (&|_, a| a["model"] = json!("flow"), "holds no `flow.chain`"),
        (&|_, a| a["model"] = json!("gan"), "`gan` is not known"),
        (&|_, a| a["sched_mode"] = json!("cosine"), "mode `cosine` is not known"),
        (&|_, a| a["num_steps"] = json!(1.5), "`num_steps` must be a whole number"),
        (&|_, a| a["residual"] = json!("yes"), "`residual` must be true or false"),
        (
            &|w, _| drop(w.insert("w.layers.9.extra".into(), w["w.layers.0._layer.bias"].clone())),
            "such as `diffusion.net.layers.9.extra`",
        ),
    ];
    for (change, words) in wanted {
        let m = with(change);
        assert!(m.contains(words), "{words}: {m}");
    }
    // bare weights say nothing of their schedule; with its buffer they are read, and what is not known is told
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bare.safetensors");
    let mut bare: Named = whole.iter().map(|(n, t)| (n.replacen("w.", "diffusion.net.", 1), t.clone())).collect();
    safetensors::serialize_to_file(&bare, None, &path).unwrap();
    assert!(message(&path).contains("nothing of its noise schedule"), "{}", message(&path));
    let betas = Tensor::new(&[0.0f32, 1e-3, 2e-3, 4e-3], &Device::Cpu).unwrap();
    bare.insert("diffusion.var_sched.betas".into(), betas);
    safetensors::serialize_to_file(&bare, None, &path).unwrap();
    let parts = load(&path, DType::F32).unwrap();
    assert!(!parts.contains_key(&Role::Prior));
    let net = net(parts);
    assert_eq!(net.notes().len(), 2, "{:?}", net.notes());
    assert_eq!(net.denoiser().unwrap().noise().spec()["betas"].as_array().unwrap().len(), 3);
    bare.insert(
        "diffusion.net.layers.0._layer.weight_orig".into(),
        bare["diffusion.net.layers.0._layer.weight"].clone(),
    );
    safetensors::serialize_to_file(&bare, None, &path).unwrap();
    assert!(message(&path).contains("spectral normalization"), "{}", message(&path));
}

#[test]
fn the_generator_that_is_compiled_in_is_that_of_its_training() {
    let io = read("points/shapes.io.safetensors");
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
        let given = [("points".to_string(), json!(48))].into();
        let parts = model::load_given(&Source::Builtin("shapes"), &Device::Cpu, dtype, given).unwrap();
        let of = |name: &str| io[name].to_dtype(dtype).unwrap();
        let z = through(&graph(&parts, Role::Prior), "w", 0, &of("w")).unwrap();
        assert!(off(&z, &io["z"]) < tolerance, "z: {:e}", off(&z, &io["z"]));
        let (y, pull) = net(parts).linearize(&Quiet, &of("x"), &of("beta"), &told(&of("z"))).unwrap();
        let (x, beta) = pull(&Quiet, &of("cotangent")).unwrap();
        for (name, got) in [("y", y), ("grad_x", x), ("grad_beta", beta)] {
            assert!(off(&got, &io[name]) < tolerance, "{dtype:?} {name}: {:e}", off(&got, &io[name]));
        }
    }
    let own = model::denoiser(&Source::Builtin("shapes"), &Device::Cpu, DType::F32).unwrap();
    assert!(own.notes().is_empty());
    assert_eq!(own.sample_shape(), Some(vec![512, 3]));
    assert_eq!(own.denoiser().unwrap().noise().spec()["preset"], "dmpg");
}
