//! Changing the method from outside, and functions of a script inside native objects, through the real binary.
use crate::process::{err, ld3sh, out};
use std::path::Path;

const LD3: &str = include_str!("../../stdlib/ld3.rhai");
const LEARN: &str = include_str!("../../stdlib/learn.rhai");

#[track_caller]
fn run(dir: &Path, cache: &Path, script: &str) -> String {
    std::fs::write(dir.join("main.rhai"), script).unwrap();
    let o = ld3sh(dir, cache).arg("main.rhai").output().unwrap();
    assert!(o.status.success(), "{script}\n{}", err(&o));
    out(&o)
}

#[test]
fn a_copy_beside_the_script_replaces_the_method() {
    let script = r#"
        import "ld3" as ld3;
        let net = denoiser::mixture(#{ means: [[[[-1.0, 0.5]]], [[[1.0, 0.0]]]], stds: [0.2, 0.3] });
        let pairs = ld3::pairs(net, #{ train: 6, valid: 6, seed: 1 });
        let run = ld3::train(net, solver::unipc(#{ order: 3 }), pairs, #{ nfe: 4, phase1: 1, phase2: 2 });
        let m = provenance().modules.find(|m| m.name == "ld3");
        print(`${m.origin} ${m.hash}`);
        print(run.schedule.t.to_array());
        run.schedule.save("schedule.json");
        print(schedule::info("schedule.json").provenance.modules.find(|m| m.name == "ld3").origin);"#;
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let own = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let parts = |s: &str| s.lines().map(str::to_string).collect::<Vec<String>>();

    let built_in = parts(&run(dir.path(), cache.path(), script));
    assert!(built_in[0].starts_with("stdlib/ld3.rhai ") && built_in[2] == "stdlib/ld3.rhai", "{built_in:?}");

    own("ld3.rhai", LD3);
    let copy = parts(&run(dir.path(), cache.path(), script));
    let hash = |l: &str| l.split_once(' ').unwrap().1.to_string();
    assert_eq!((copy[2].as_str(), &copy[1], hash(&copy[0])), ("ld3.rhai", &built_in[1], hash(&built_in[0])));

    // the loop that it shares with other methods is replaced likewise
    let projection: Vec<&str> = LEARN.lines().filter(|l| l.contains("project_ball")).collect();
    // for all pairs together, and pair by pair
    assert_eq!(projection.len(), 2, "{projection:?}");
    own("learn.rhai", &LEARN.replace(projection[0], ""));
    let free = parts(&run(dir.path(), cache.path(), script));
    assert_eq!((free[2].as_str(), hash(&free[0])), ("ld3.rhai", hash(&copy[0])));
    assert_ne!(free[1], copy[1], "without the projection the result is the same");
}

#[test]
fn a_learned_schedule_is_not_recorded_further() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let script = r#"
        import "ld3" as ld3;
        let net = denoiser::mixture(#{ means: [[-1.0, 0.5], [1.0, 0.0]], stds: [0.2, 0.3] });
        let pairs = ld3::pairs(net, #{ train: 6, valid: 6, seed: 1 });
        let run = ld3::train(net, solver::unipc(), pairs, #{ nfe: 4, phase1: 1, phase2: 1 });
        let s = run.schedule;
        print([run.loss < run.tried[run.start], s.t.tracked, s.t_eval.tracked, run.xi.tracked, run.xi_c.tracked]);"#;
    assert_eq!(run(dir.path(), cache.path(), script).trim(), "[true, false, false, false, false]");
}

/// A network of the script in every place from which a function may come.
#[test]
fn functions_of_a_script_as_networks() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(
        dir.path().join("nets.rhai"),
        "const K = 0.5;
         fn scale(x) { x * global::K }
         fn shrink(noise) { denoiser::from_fn(#{ noise: noise, predicts: \"data\" }, |x, sigma, cond| scale(x)) }
         fn keep(noise, f) { denoiser::from_fn(#{ noise: noise, predicts: \"data\" }, f) }
         fn shrunk(x) { sample(shrink(noise::edm()), solver::euler(), schedule::edm(noise::edm(), 4), x) }",
    )
    .unwrap();
    // the exact answer: Euler on D(x) = x/2 multiplies by (1 + t_{i+1}/t_i)/2 at each step
    let head = "import \"nets\" as nets;
        let n = noise::edm();
        let steps = schedule::edm(n, 4);
        let z = noise([3, 1, 2, 2], #{ seed: 5 }).to(\"f64\");
        let t = steps.t.to_array();
        let want = z * t[0];
        for i in 0..4 { want = want * (0.5 + 0.5 * t[i + 1] / t[i]); }
        fn check(x, want) { print((x - want).abs().max().item() < 1e-9 * want.abs().max().item()); }
        fn draw(net, steps, z) { sample(net, solver::euler(), steps, z) }
        const K = 100.0;
        fn scale(x) { x * global::K }\n";
    for (what, script) in [
        ("made here", "check(draw(denoiser::from_fn(#{ noise: n, predicts: \"data\" }, |x, s, c| x * 0.5), steps, z), want);"),
        ("made in a module, beside a function of the same name", "check(draw(nets::shrink(n), steps, z), want);"),
        ("made here, kept by a module", "check(draw(nets::keep(n, |x, s, c| scale(x) * 0.005), steps, z), want);"),
        ("run by a module", "check(nets::shrunk(z), want);"),
        (
            "captures the denoiser that it is given to",
            "let net = nets::shrink(n);
             let seen = [];
             let x = sample(net, solver::euler(), steps, z, #{ callback: |s| { seen.push(net.denoise(s.x, 1.0).shape); } });
             check(x, want);
             print(seen == [[3, 1, 2, 2], [3, 1, 2, 2], [3, 1, 2, 2], [3, 1, 2, 2]]);",
        ),
        (
            "captures a denoiser that it wraps",
            "let inner = nets::shrink(n);
             let net = nets::keep(n, |x, sigma, cond| inner.denoise(x, sigma));
             check(draw(net, steps, z), want);",
        ),
        (
            "takes gradients",
            "let net = nets::shrink(n);
             let v = variable(z);
             let g = grad(draw(net, steps, v).sum(), [v])[0];
             check(g * z, want);",
        ),
        (
            "named function",
            "fn half(x, sigma, cond) { x * 0.5 }
             check(draw(nets::keep(n, half), steps, z), want);
             check(draw(nets::keep(n, Fn(\"half\")), steps, z), want);",
        ),
    ] {
        let got = run(dir.path(), cache.path(), &format!("{head}{script}"));
        assert!(!got.is_empty() && got.lines().all(|l| l == "true"), "{what}:\n{got}");
    }
}

/// What is trained is what the tool runs, and its export is that; each level has the gradient of the one that it was rounded from.
#[test]
fn steps_are_learned_for_the_tool_that_runs_them() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let script = r#"
        import "ld3" as ld3; import "tools" as tools;
        let net = denoiser::mixture(#{ means: [[-1.0, 0.5], [1.0, 0.0]], stds: [0.2, 0.3], noise: noise::vp_discrete("sd") });
        let student = solver::dpmpp(#{ order: 2 });
        let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 8, valid: 8 });
        let same = [];
        for end in ["append", "replace"] {
            let run = ld3::train(net, student, pairs, #{ nfe: 4, phase1: 1, phase2: 1, tool: "diffusers:dpmsolver++", end: end });
            let v = pairs.valid;
            let x = sample(net.with_noise(run.exported.schedule.noise), student, run.exported.schedule, v.z, #{ cond: v.cond });
            same.push((loss::get("l2").call(x, v.target).item() - run.loss).abs() < 1e-6 * run.loss);
            same.push(run.exported.nfe == 4 && run.schedule.t_eval == ());
        }
        print(same);
        let xi = variable(tensor([1.0, 1.2, 0.9, 1.1], #{ dtype: "f64" }));
        let steps = tau(net.noise, xi, (), #{});
        let run = tools::as_run(steps, "diffusers:dpmsolver++", #{ end: "append" });
        let off = (run.sigmas[0..4] / steps.sigmas - 1.0).abs().max().item();
        print([run.nfe, off > 0.0 && off < 0.01]);
        let w = tensor([0.3, -1.0, 0.7, 0.2], #{ dtype: "f64" });
        print((grad((w * run.sigmas[0..4]).sum(), xi) - grad((w * steps.sigmas).sum(), xi)).abs().max().item());"#;
    assert_eq!(run(dir.path(), cache.path(), script).trim(), "[true, true, true, true]\n[4, true]\n0.0");
}
