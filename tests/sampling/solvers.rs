//! The public solvers against the reference numbers of `fixtures/solvers.json`: samples and all three gradients.
use crate::common::*;
use crate::fixtures::{fixture, numbers, tensor};
use crate::methods::*;
use crate::simple::Simple;
use candle_core::DType;
use ld3sh::discretize::Schedule;
use ld3sh::plan::{Remat, SolveOptions};
use ld3sh::solve::Solver;
use ld3sh::tensor::grad;
use serde_json::Value;

fn solver(case: &Value) -> Solver {
    let order = case["order"].as_u64().unwrap() as usize;
    let variant = match case["variant"].as_str() {
        Some("bh2") => Variant::Bh2,
        _ => Variant::Bh1,
    };
    match case["solver"].as_str().unwrap() {
        "euler" => Method::Euler,
        "ipndm" => Method::Ipndm { order },
        "dpm_solver++" => Method::Dpmpp { order, options: MultistepOptions::default() },
        "uni_pc" => Method::Unipc { order, options: UnipcOptions { variant, ..UnipcOptions::default() } },
        other => panic!("{other}"),
    }
    .into()
}

#[test]
fn every_reference_case_in_f64_with_gradients_and_in_f32() {
    let all = fixture("solvers.json");
    let g = &all["gmm"];
    let mut worst = [0.0f64; 5];
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 72);
    for case in cases {
        let noise = Simple::make(case["schedule"].as_str().unwrap());
        let net = Gmm::new(noise.clone(), tensor(&g["means"]), numbers(&g["stds"]), numbers(&g["weights"]));
        let t = grad::variable(&tensor(&case["t"])).unwrap();
        let t_eval = grad::variable(&tensor(&case["t_eval"])).unwrap();
        let schedule = Schedule {
            noise,
            t: t.clone(),
            t_eval: Some(t_eval.clone()),
            name: "fixture".into(),
            record: Default::default(),
        };
        let x_t = grad::variable(&tensor(&case["x_T"])).unwrap();
        let plan = Solver::plan(&solver(case), &schedule).unwrap();
        let label = format!("{} {} {} {}", case["schedule"], plan.plan().name, case["nfe"], case["variant"]);
        let want = numbers(&case["x_0"]);
        for remat in [Remat::Always, Remat::Never] {
            net.evals.set(0);
            let opts = SolveOptions { remat, ..SolveOptions::default() };
            let x = plan.solve(&dynamic(&net), &HOST, &(&x_t).into(), &opts, None).unwrap();
            assert_eq!(x.nfe, case["nfe"].as_u64().unwrap() as usize, "{label}");
            let d = distance(&values(x.x.tensor().unwrap()), &want);
            worst[0] = worst[0].max(d);
            assert!(d < 1e-9, "{label}: sample {d:e}");
            let loss = (x.x.tensor().unwrap() * tensor(&case["cotangent"])).unwrap().sum_all().unwrap();
            let grads = grad::grad(&HOST, &loss, &[t.clone(), t_eval.clone(), x_t.clone()]).unwrap();
            for (i, (got, name)) in grads.iter().zip(["grad_t", "grad_t_eval", "grad_x_T"]).enumerate() {
                let (mut got, mut want) = (values(got), numbers(&case[name]));
                if name == "grad_t" && case["schedule"] == "vp_discrete_sd" {
                    // both ends sit on knots of the piecewise-linear ln α, where the derivative is one-sided
                    let n = got.len();
                    (got, want) = (got[1..n - 1].to_vec(), want[1..n - 1].to_vec());
                }
                let d = distance(&got, &want);
                worst[1 + i] = worst[1 + i].max(d);
                assert!(d < 1e-6, "{label}: {name} {d:e}\n{got:?}\n{want:?}");
            }
        }
        let x32 = tensor(&case["x_T"]).to_dtype(DType::F32).unwrap();
        let x = plan
            .solve(&dynamic(&net), &HOST, &(&x32).into(), &SolveOptions::default(), None)
            .unwrap()
            .x
            .into_tensor()
            .unwrap();
        assert_eq!(x.dtype(), DType::F32);
        let d = values(&x).iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        worst[4] = worst[4].max(d);
        assert!(d < 3e-5, "{label}: f32 {d:e}");
    }
    println!(
        "worst: sample {:e}, t {:e}, t_eval {:e}, x_T {:e}, f32 {:e}",
        worst[0], worst[1], worst[2], worst[3], worst[4]
    );
}
