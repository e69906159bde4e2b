//! Our solvers against what k-diffusion's, ComfyUI's and diffusers' samplers gave on the same denoiser.
use crate::common::*;
use crate::fixtures::{fixture, numbers, tensor};
use candle_core::Tensor;
use ld3sh::discretize::Schedule;
use ld3sh::noise::{Noise, from_spec};
use ld3sh::plan::SolveOptions;
use ld3sh::schema::Value as Setting;
use ld3sh::solve::Solver;
use serde_json::{Value, json};

fn solver(name: &str, options: &[(&str, Setting)]) -> Solver {
    options.iter().fold(Solver::named(name).unwrap(), |s, (o, v)| s.with(o, *v).unwrap())
}
fn order(n: usize) -> (&'static str, Setting) {
    ("order", Setting::Count(n))
}

/// From x_T at the first of `t` to the last.
fn run(g: &Value, noise: Noise, t: &[f64], solver: &Solver, x: &Tensor) -> Tensor {
    let net = Gmm::new(noise.clone(), tensor(&g["means"]), numbers(&g["stds"]), numbers(&g["weights"]));
    let plan = solver.plan(&Schedule::from_steps(noise, t, "list").unwrap()).unwrap();
    let done = plan.solve(&dynamic(&net), &HOST, &(x).into(), &SolveOptions::default(), None).unwrap();
    done.x.into_tensor().unwrap()
}

fn ve(first: f64) -> Noise {
    from_spec(&json!({ "name": "edm", "sigma_min": 0.0, "sigma_max": first })).unwrap()
}

#[test]
fn k_diffusion() {
    let g = &fixture("solvers.json")["gmm"];
    let all = fixture("learned/kdiffusion.json");
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 34);
    let compat = ("compat", Setting::Word("k-diffusion"));
    let taylor = ("solver_type", Setting::Word("taylor"));
    for c in cases {
        let o = &c["options"];
        let most = order(o["max_order"].as_u64().or(o["order"].as_u64()).unwrap_or(4) as usize);
        let name = c["sampler"].as_str().unwrap();
        let s = match name {
            "euler" => solver("euler", &[]),
            "heun" => solver("heun", &[]),
            "dpm_2" => solver("dpm2", &[]),
            "lms" => solver("lms", &[most]),
            "dpmpp_2m" => solver("dpmpp", &[order(2), ("lower_order_final", Setting::Flag(false))]),
            "dpmpp_2s_ancestral" | "dpmpp_sde" => solver("dpmpp_2s", &[]),
            "dpmpp_2m_sde" if o["solver_type"] == "heun" => {
                solver("sde_dpmpp", &[("eta", Setting::Number(0.0)), taylor])
            }
            "dpmpp_2m_sde" => solver("sde_dpmpp", &[("eta", Setting::Number(0.0))]),
            "dpmpp_3m_sde" => solver("dpmpp_3m", &[]),
            "ipndm" => solver("ipndm", &[most]),
            "ipndm_v" => solver("ipndm_v", &[most, compat]),
            "deis" => solver("deis", &[most, compat]),
            "heunpp2" => solver("heunpp2", &[]),
            other => panic!("{other}"),
        };
        let sigmas = numbers(&c["sigmas"]);
        let x = run(g, ve(sigmas[0]), &sigmas, &s, &tensor(&c["x_T"]));
        let d = distance(&values(&x), &numbers(&c["x_0"]));
        let least = if name == "deis" { 3e-4 } else { 1e-9 };
        assert!(d < least, "{name} {o} from {}: {d:e}", sigmas[0]);
        // the evaluations are asked where theirs were
        assert_eq!(
            s.plan(&Schedule::from_steps(ve(sigmas[0]), &sigmas, "").unwrap()).unwrap().plan().nfe(),
            numbers(&c["sigma_seen"]).len()
        );
    }
}

/// The solver that a scheduler of diffusers is, where there is one.
fn diffusers_solver(name: &str, config: &Value, n: usize) -> Option<Solver> {
    let given = |k: &str, or: u64| config[k].as_u64().unwrap_or(or) as usize;
    let o = order(given("solver_order", 2));
    let kind = (
        "solver_type",
        Setting::Word(if config["solver_type"] == "heun" && o.1 == Setting::Count(2) { "taylor" } else { "midpoint" }),
    );
    // orders fall at the end of short lists alone
    let lower = ("lower_order_final", Setting::Flag(n < 15 && config["lower_order_final"] != false));
    Some(match name {
        "EulerDiscreteScheduler" | "EDMEulerScheduler" | "FlowMatchEulerDiscreteScheduler" => solver("euler", &[]),
        "HeunDiscreteScheduler" | "FlowMatchHeunDiscreteScheduler" => solver("heun", &[]),
        // its network was asked at the levels of its list, not at those between them
        "KDPM2DiscreteScheduler" => return None,
        "LMSDiscreteScheduler" => solver("lms", &[]),
        "DPMSolverMultistepScheduler" if config["algorithm_type"] == "dpmsolver" => return None,
        // its steps of order 2 are of another kind than those of order 3
        _ if config["solver_type"] == "heun" && config["solver_order"] == 3 => return None,
        "DPMSolverMultistepScheduler" | "EDMDPMSolverMultistepScheduler" => solver("dpmpp", &[o, kind, lower]),
        "UniPCMultistepScheduler" if config["disable_corrector"].is_array() => return None,
        "UniPCMultistepScheduler" => {
            let variant = Setting::Word(if config["solver_type"] == "bh1" { "bh1" } else { "bh2" });
            let lower = ("lower_order_final", Setting::Flag(config["lower_order_final"] != false));
            let predicts = Setting::Word(if config["predict_x0"] == false { "noise" } else { "data" });
            solver("unipc", &[o, ("variant", variant), lower, ("predicts", predicts)])
        }
        "DEISMultistepScheduler" => solver("deis", &[o, ("compat", Setting::Word("diffusers"))]),
        "SASolverScheduler" => {
            let corrector = ("corrector", Setting::Count(given("corrector_order", 2)));
            solver("sa", &[order(given("predictor_order", 2)), corrector])
        }
        _ => return None,
    })
}

#[test]
fn diffusers() {
    let g = &fixture("solvers.json")["gmm"];
    let all = fixture("learned/diffusers.json");
    let (mut same, mut none) = (0, vec![]);
    for (i, c) in all["cases"].as_array().unwrap().iter().enumerate() {
        let name = c["scheduler"].as_str().unwrap();
        let mut sigmas = c["sigmas"].as_array().map(|_| numbers(&c["sigmas"])).unwrap_or_default();
        // those of two evaluations per step have levels twice
        sigmas.dedup();
        let n = sigmas.len().saturating_sub(1);
        let descends = n > 0 && sigmas.windows(2).all(|w| w[1] < w[0]);
        let Some(s) = diffusers_solver(name, &c["config"], n).filter(|_| descends) else {
            none.push(format!("{i} {name} {}", c["config"]));
            continue;
        };
        let (x, flow) = (tensor(&c["x_T"]), c["space"] == "flow");
        let root = |s: f64| if c["space"] == "vp" { (1.0 + s * s).sqrt() } else { 1.0 };
        let noise = if flow { from_spec(&json!({ "name": "flow" })).unwrap() } else { ve(sigmas[0]) };
        let x = (x * root(sigmas[0])).unwrap();
        let got = (run(g, noise, &sigmas, &s, &x) / root(sigmas[n])).unwrap();
        let d = distance(&values(&got), &numbers(&c["x_0"]));
        assert!(d < 1e-6, "{i} {name} {} by {}: {d:e}", c["config"], s.describe());
        same += 1;
    }
    assert_eq!(same + none.len(), 62);
    assert!(same >= 45, "{same} are ours; not:\n{}", none.join("\n"));
}
