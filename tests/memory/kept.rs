//! What a network says that its pull-back keeps is what it keeps, by a counting allocator; and `remat` spends what it says.
use crate::alone;
use crate::counting::{LIVE, PEAK};
use crate::methods::*;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Counting, Denoiser, DynDenoiser, Network, Prediction, Query};
use ld3sh::discretize::Schedule;
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source};
use ld3sh::nets::edm::{self, Config};
use ld3sh::nets::network::Net;
use ld3sh::plan::{Remat, SolveOptions};
use ld3sh::solve::Solver;
use ld3sh::tensor::{grad, random};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

fn input(net: &Net, batch: usize, dtype: DType) -> (Tensor, Tensor, Cond) {
    let shape = [&[batch], &net.sample_shape().unwrap()[..]].concat();
    let x = random::normal(1, 0, &shape, 0, dtype, &Device::Cpu).unwrap();
    let c = Tensor::full(0.2, batch, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let cond = match net.classes() {
        0 => Cond::None,
        n => Cond::classes(Tensor::ones((batch, n), dtype, &Device::Cpu).unwrap()),
    };
    (x, c, cond)
}

/// Compares what `net` says with what it holds between linearization and pull-back, within a factor of 1 ± `off`.
fn check(name: &str, net: &Net, batch: usize, dtype: DType, off: f64) {
    let (x, c, cond) = input(net, batch, dtype);
    // the first run packs weights and makes workspaces
    let (y, pull) = net.linearize(&Quiet, &x, &c, &cond).unwrap();
    pull(&Quiet, &y).unwrap();
    let before = LIVE.load(Relaxed);
    let (y, pull) = net.linearize(&Quiet, &x, &c, &cond).unwrap();
    let held = (LIVE.load(Relaxed) - before) as f64;
    pull(&Quiet, &y).unwrap();
    let said = net.kept(batch).unwrap() as f64;
    println!(
        "{name}, batch {batch}: holds {:.2} MiB, says {:.2} MiB ({:.3})",
        held / 1048576.0,
        said / 1048576.0,
        said / held
    );
    assert!((said / held - 1.0).abs() < off, "{name}, batch {batch}: holds {held}, says {said}");
}

fn builtin(dtype: DType) -> Net {
    model::denoiser(&Source::Builtin("fashion28"), &Device::Cpu, dtype).unwrap()
}

#[test]
fn the_built_in_network_knows_what_it_keeps() {
    let _alone = alone();
    let net = builtin(DType::F32);
    for batch in [1, 2, 7] {
        check("fashion28", &net, batch, DType::F32, 0.03);
    }
    // candle's graph: an estimate from the number of operations
    check("fashion28 in f64", &builtin(DType::F64), 1, DType::F64, 0.35);
}

#[test]
fn other_architectures_know_what_they_keep() {
    let _alone = alone();
    let small = r#""img_resolution": 16, "img_channels": 3, "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]"#;
    let ncsn = r#", "embedding_type": "fourier", "encoder_type": "residual", "resample_filter": [1, 3, 3, 1]"#;
    let adm = r#", "model_type": "DhariwalUNet", "label_dim": 5"#;
    for (name, more) in [("DDPM++", ""), ("NCSN++", ncsn), ("ADM", adm)] {
        let config = Config::parse(&format!("{{{small}{more}}}")).unwrap();
        check(name, &edm::random(&config, 1, &Device::Cpu).unwrap(), 2, DType::F32, 0.05);
    }
}

#[test]
#[ignore = "builds a network of 55.7 million parameters"]
fn a_network_of_cifar10s_size_knows_what_it_keeps() {
    let _alone = alone();
    // as in `ld3sh bench`
    let json = r#"{"img_resolution": 32, "img_channels": 3, "augment_dim": 9, "channel_mult": [2, 2, 2]}"#;
    let net = edm::random(&Config::parse(json).unwrap(), 1, &Device::Cpu).unwrap();
    for batch in [1, 2] {
        check("CIFAR-10 DDPM++", &net, batch, DType::F32, 0.03);
    }
}

struct Cost {
    nfe: u64,
    linearized: u64,
    pulled: u64,
    peak: usize,
    grads: Vec<Vec<f64>>,
}

/// One differentiated solve of 5 steps, counted.
fn solve(net: &DynDenoiser, remat: Remat, budget: u64) -> Cost {
    let counted = Counting::new(net.clone());
    let net: DynDenoiser = Rc::new(counted);
    let n = 5;
    let t: Vec<f64> = (0..=n).map(|i| 80.0 * (0.002f64 / 80.0).powf(i as f64 / n as f64)).collect();
    let t = grad::variable(&Tensor::from_vec(t, n + 1, &Device::Cpu).unwrap()).unwrap();
    let s = Schedule::new(net.noise().clone(), &t, "test").unwrap();
    let shape = [&[2], &net.sample_shape().unwrap()[..]].concat();
    let z = grad::variable(&random::normal(3, 0, &shape, 0, DType::F32, &Device::Cpu).unwrap()).unwrap();
    let solver = Solver::from(Method::Unipc { order: 3, options: UnipcOptions::default() });
    let plan = solver.plan(&s).unwrap();
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let opts = SolveOptions { remat, budget, ..SolveOptions::default() };
    let y = plan.solve(&net, &Quiet, &(&z).into(), &opts, None).unwrap().x.into_tensor().unwrap();
    let g = grad::grad(&Quiet, &y.sqr().unwrap().sum_all().unwrap(), &[t, z]).unwrap();
    let c = net.counter().unwrap();
    Cost {
        nfe: c.nfe(),
        linearized: c.linearizations(),
        pulled: c.pulls(),
        peak: PEAK.load(Relaxed) - before,
        grads: g.iter().map(|g| ld3sh::tensor::create::to_f64(g).unwrap()).collect(),
    }
}

#[test]
fn remat_costs_one_more_forward_for_each_evaluation_that_is_not_kept() {
    let _alone = alone();
    let net: DynDenoiser = Rc::new(builtin(DType::F32).denoiser().unwrap());
    let each = net.kept(2).unwrap();
    solve(&net, Remat::Always, 0);
    let never = solve(&net, Remat::Never, 0);
    let always = solve(&net, Remat::Always, 0);
    assert_eq!((never.nfe, never.linearized, never.pulled), (5, 5, 5), "one forward and one pull-back each");
    assert_eq!((always.nfe, always.linearized, always.pulled), (10, 5, 5), "one forward more each");
    assert_eq!(never.grads, always.grads);
    for (budget, kept) in [(0, 0), (each - 1, 0), (each, 1), (3 * each, 3), (5 * each - 1, 4), (5 * each, 5)] {
        let auto = solve(&net, Remat::Auto, budget);
        assert_eq!((auto.nfe, auto.linearized, auto.pulled), (10 - kept, 5, 5), "a budget of {kept} evaluations");
        assert_eq!(auto.grads, never.grads);
        // one evaluation is under work besides those that are kept, and its workspaces
        let most = always.peak as f64 + kept.saturating_sub(1) as f64 * each as f64;
        let (peak, mib) = (auto.peak as f64, 1048576.0);
        println!("{kept} kept: peak {:.2} MiB, at most {:.2} MiB expected", peak / mib, most / mib);
        assert!(peak < 1.05 * most, "{kept} kept: {peak} against {most}");
    }
}

#[test]
fn a_script_s_network_is_known_after_its_first_linearization() {
    use ld3sh::denoise::{FnNetwork, Preconditioned, Predicts};
    use ld3sh::host::{Callback, Host, Progress, Value};
    /// Calls Rust functions in the place of a script's.
    struct Calls;
    type F = fn(&Tensor) -> candle_core::Result<Tensor>;
    impl Host for Calls {
        fn call(&self, f: &Callback, args: Vec<Value>) -> ld3sh::Result<Value> {
            let Value::Tensor(x) = &args[0] else { panic!("no tensor") };
            Ok(Value::Tensor(f.0.downcast_ref::<F>().unwrap()(x)?))
        }
        fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
            Quiet.progress(label, total)
        }
    }
    let _alone = alone();
    // ten new values for each value of x, held until the pull-back
    let f: F = |x| (0..10).try_fold(x.clone(), |y, _| y.sin());
    let net = FnNetwork::new(Callback(Rc::new(f)), Some(vec![1000]), 0);
    let noise = ld3sh::noise::from_spec(&serde_json::json!({ "name": "edm" })).unwrap();
    let net = Preconditioned::new(Rc::new(net), noise, Predicts::EdmF { sigma_data: 0.5 }).unwrap();
    assert_eq!(net.kept(3), None);
    let x = random::normal(3, 0, &[2, 1000], 0, DType::F32, &Device::Cpu).unwrap();
    let _held =
        net.linearize(&Calls, &Query { x: &(&x).into(), t: &[1.0], cond: &Cond::None }, Prediction::Data).unwrap();
    assert_eq!(net.kept(3), Some(3 * 11 * 4000), "x and ten results");
}
