//! Schedules and plans for other tools: what is written, and what is said to be lost.
use ld3sh::discretize::{Heuristic, Interval, Schedule, published};
use ld3sh::export::list::{self, Form, Given};
use ld3sh::export::{End, Levels, TOOLS, export, tool};
use ld3sh::noise::{Noise, from_spec};
use ld3sh::solve::Solver;
use serde_json::{Value, json};

fn noise(spec: Value) -> Noise {
    from_spec(&spec).unwrap()
}
fn sd() -> Levels {
    Levels::of(&published("ays_sd15", None).unwrap(), None).unwrap()
}
fn flow() -> Levels {
    Levels::of(&published("oss_flux", None).unwrap(), None).unwrap()
}

#[test]
fn every_tool_writes_numbers_without_exponents() {
    // the smallest and the largest σ that are in use
    let s = Schedule::from_steps(
        noise(json!({ "name": "edm", "sigma_min": 1e-7, "sigma_max": 7e5 })),
        &[7e5, 1.0, 1e-7],
        "wide",
    );
    let wide = Levels::of(&s.unwrap(), None).unwrap();
    for t in TOOLS {
        for levels in [sd(), flow(), wide.clone()] {
            for end in [End::Keep, End::Append, End::Replace] {
                let Ok(done) = export(&levels, t, Some(end)) else { continue };
                assert!(done.given.windows(2).all(|w| w[1] < w[0]), "{}", t.name);
                assert_eq!(done.given.len(), done.wanted.len());
                if t.name != "json" && t.name != "comfyui-workflow" {
                    let exponent = |w: &str| w.parse::<f64>().is_ok() && w.contains(['e', 'E']);
                    assert!(!done.text.split([' ', ',', '[', ']', '"']).any(exponent), "{}: {}", t.name, done.text);
                }
            }
        }
    }
}

#[test]
fn ends_are_what_was_asked_for() {
    let comfy = tool("comfyui", &sd()).unwrap();
    let of = |end| export(&sd(), comfy, Some(end)).unwrap();
    assert_eq!(of(End::Append).given.len(), 12);
    assert!(of(End::Append).lost[0].contains("11 instead of 10"));
    assert_eq!((of(End::Replace).given.len(), of(End::Replace).given[10]), (11, 0.0));
    assert!(of(End::Replace).lost[0].contains("0.0291672"));
    assert!(of(End::Keep).lost.is_empty() && of(End::Keep).given[10] > 0.029);
    // 0 is there already: nothing is put behind it
    let zero = sd().ended(End::Append);
    assert_eq!(export(&zero, comfy, None).unwrap().given.len(), 12);
    assert!(export(&sd(), tool("a1111", &sd()).unwrap(), Some(End::Keep)).is_err());
}

#[test]
fn whole_timesteps_are_said_to_move_sigma() {
    let s = Heuristic::named("edm").unwrap().schedule(
        &noise(json!({ "name": "vp_discrete", "preset": "sd" })),
        6,
        Interval::default(),
    );
    let levels = Levels::of(&s.unwrap(), None).unwrap();
    let done = export(&levels, tool("diffusers:dpmsolver++", &levels).unwrap(), None).unwrap();
    let errors = done.errors();
    let largest = errors.iter().copied().fold(0.0, f64::max);
    assert!(largest > 1e-5 && largest < 0.2, "{errors:?}");
    assert!(
        done.lost.iter().any(|l| l.contains("integers") && l.contains(&format!("{:.2} %", 100.0 * largest))),
        "{:?}",
        done.lost
    );
    // σ are taken as they are
    let done = export(&levels, tool("diffusers:euler", &levels).unwrap(), None).unwrap();
    assert!(done.lost.is_empty() && done.errors().iter().all(|e| *e < 1e-7));
}

#[test]
fn solvers_choose_samplers_and_are_refused_where_no_tool_has_them() {
    let with = |name: &str, levels: Levels| Levels { solver: Some(Solver::named(name).unwrap()), ..levels };
    let text = |l: &Levels, t: &str| export(l, tool(t, l).unwrap(), None).unwrap().text;
    assert!(text(&with("heun", sd()), "k-diffusion").contains("sample_heun"));
    assert!(text(&with("lms", sd()), "comfyui-workflow").contains("\"lms\""));
    assert!(text(&with("dpmpp", sd()), "diffusers").contains("solver_order=3"));
    assert!(text(&with("unipc", flow()), "diffusers").contains("bh2"));
    assert!(tool("diffusers", &with("unipc", sd())).is_err());
    let l = with("unipc", sd());
    assert!(export(&l, tool("diffusers:euler", &l).unwrap(), None).is_err());
    let e = tool("comfy", &sd()).err().unwrap().to_string();
    assert!(e.contains("comfyui"), "{e}");
    assert!(export(&flow(), tool("diffusers:euler", &flow()).unwrap(), None).is_err());
}

#[test]
fn workflows_are_connected() {
    let l = sd();
    let all: Value =
        serde_json::from_str(&export(&l, tool("comfyui-workflow", &l).unwrap(), None).unwrap().text).unwrap();
    let nodes = all["nodes"].as_array().unwrap();
    let node = |id: &Value| nodes.iter().find(|n| n["id"] == *id).unwrap();
    let links = all["links"].as_array().unwrap();
    assert_eq!(links.len(), 11);
    for l in links {
        let (from, to) = (node(&l[1]), node(&l[3]));
        let (out, into) =
            (&from["outputs"][l[2].as_u64().unwrap() as usize], &to["inputs"][l[4].as_u64().unwrap() as usize]);
        assert!(out["links"].as_array().unwrap().contains(&l[0]) && into["link"] == l[0]);
        assert_eq!((&out["type"], &into["type"]), (&l[5], &l[5]));
    }
    for n in nodes {
        for i in n["inputs"].as_array().unwrap() {
            assert!(links.iter().any(|l| l[0] == i["link"]), "{n}");
        }
    }
}

#[test]
fn lists_as_people_publish_them() {
    let sd = list::noise_named("sd", None).unwrap();
    let parse = |text: &str| match list::parse(text).unwrap() {
        Given::Numbers(v) => v,
        Given::Saved(_) => panic!("a list"),
    };
    for text in ["14.615 6.475, 0.029", "[14.615, 6.475, 0.029]", "tensor([14.615, 6.475, 0.029])"] {
        match list::parse(text) {
            Ok(Given::Numbers(v)) => assert_eq!(v, [14.615, 6.475, 0.029], "{text}"),
            other => assert!(text.starts_with("tensor") && other.is_err(), "{text}"),
        }
    }
    let (l, notes) = list::levels(&parse("14.615 6.475 0.029"), Form::Sigmas, &sd).unwrap();
    assert_eq!(notes.len(), 2);
    assert!((l.sigma[0] - 14.6146).abs() < 1e-3 && (l.sigma[2] - 0.02917).abs() < 1e-4);
    // there and back, in every form
    for form in [Form::Sigmas, Form::Timesteps, Form::Lambdas, Form::Times, Form::Flow] {
        let values = list::in_form(&l, form).unwrap();
        let (again, _) = list::levels(&values, form, &sd).unwrap();
        for (a, b) in again.sigma.iter().zip(&l.sigma) {
            assert!((a / b - 1.0).abs() < 1e-9, "{form:?} {a} {b}");
        }
    }
    let flow = list::noise_named("flow", Some(3.0)).unwrap();
    let (l, _) = list::levels(&[1.0, 0.5, 0.0], Form::Times, &flow).unwrap();
    assert_eq!(list::in_form(&l, Form::Sigmas).unwrap(), [1.0, 0.75, 0.0]);
    for (text, form) in [
        ("1", Form::Sigmas),
        ("1 2", Form::Sigmas),
        ("2 1", Form::Lambdas),
        ("20 1", Form::Sigmas),
        ("nan 1", Form::Sigmas),
        ("1 1", Form::Sigmas),
        ("2 -1", Form::Sigmas),
    ] {
        assert!(list::levels(&parse(text), form, &sd).is_err(), "{text}");
    }
    assert!(list::parse("1 two").is_err() && list::parse("14.6 … 0.029").is_err());
    assert!(list::noise_named("sd", Some(3.0)).is_err() && list::noise_named("sdd", None).is_err());
    assert!(list::levels(&[1.0, 0.5], Form::Timesteps, &list::noise_named("edm", None).unwrap()).is_err());
}
