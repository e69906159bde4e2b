//! `ld3::train` says what it was given wrongly, judges itself as it judges heuristics, loses nothing and deletes nothing of others; and
//! functions of the script pass through every entry point.
#[path = "common/process.rs"]
mod process;
use process::{err, ld3sh, out};
use std::path::Path;
use std::process::Output;

const HEAD: &str = "import \"ld3\" as ld3; import \"cache\" as cache; import \"experiment\" as experiment;
let net = denoiser::mixture(#{ means: [[-1.0], [1.0]], stds: 0.2 });
let p = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 2, valid: 4 });
";
/// The line of the code behind [`HEAD`].
const LINE: &str = "main.rhai:4:";

fn run(dir: &Path, code: &str) -> Output {
    std::fs::write(dir.join("main.rhai"), format!("{HEAD}{code}")).unwrap();
    ld3sh(dir, &dir.join("cache")).args(["--quiet", "--threads", "1", "main.rhai"]).output().unwrap()
}

#[track_caller]
fn prints(dir: &Path, code: &str) -> (String, String) {
    let o = run(dir, code);
    assert!(o.status.success(), "{code}\n{}", err(&o));
    (out(&o).trim().to_string(), err(&o))
}

/// Each call fails with these words, and the report marks the call.
#[track_caller]
fn refused(cases: &[(&str, &[&str])]) {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (code, words) in cases {
        let text = err(&run(dir.path(), code));
        let place = text.lines().find(|l| l.trim_start().starts_with("-->")).unwrap_or_default().to_string();
        if !text.contains("error: ") || !place.contains(LINE) || words.iter().any(|w| !text.contains(w)) {
            wrong.push(format!("{code}\n  lacks some of {words:?} or its place:\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn options_are_checked_by_name_type_and_range() {
    refused(&[
        ("ld3::train(net, solver::ddim(), p, #{ phase1: -1 })", &["option `phase1` must be an integer ≥ 0, not -1"]),
        (
            "ld3::train(net, solver::ddim(), p, #{ phase1: 1.5 })",
            &["option `phase1` must be an integer ≥ 0, not float"],
        ),
        ("ld3::train(net, solver::ddim(), p, #{ phase1: 0, phase2: 0 })", &["there is nothing to train"]),
        ("ld3::train(net, solver::ddim(), p, #{ nfe: 0 })", &["option `nfe` must be an integer ≥ 1"]),
        ("ld3::train(net, solver::ddim(), p, #{ patience: -3 })", &["option `patience`"]),
        (
            "ld3::train(net, solver::ddim(), p, #{ decay: 5.0 })",
            &["option `decay` must be a number > 0 and ≤ 1, not 5"],
        ),
        ("ld3::train(net, solver::ddim(), p, #{ lr_xi: 0.0 / 0.0 })", &["option `lr_xi`"]),
        ("ld3::train(net, solver::ddim(), p, #{ soft: \"no\" })", &["option `soft` must be true or false, not string"]),
        ("ld3::train(net, solver::ddim(), p, #{ validation: \"sparce\" })", &["`sparce`", "did you mean `sparse`?"]),
        ("ld3::train(net, solver::ddim(), p, #{ init: \"logsnrr\" })", &["did you mean `logsnr`?"]),
        ("ld3::train(net, solver::ddim(), p, #{ loss: \"l3\" })", &["`l3`", "Known: l1, l2"]),
        (
            "ld3::train(net, solver::ddim(), p, #{ phase_1: 1 })",
            &["unknown option of ld3::train `phase_1`", "did you mean `phase1`?"],
        ),
        ("ld3::pairs(net, #{ train: -1 })", &["option `train` must be an integer ≥ 0"]),
        ("ld3::pairs(net, #{ train: 0, valid: 0 })", &["there are no pairs to make"]),
        (
            "ld3::pairs(net, solver::ddim(), schedule::edm(net.noise, 4), #{ probe: 3 })",
            &["option probe is for pairs whose steps ld3 chooses"],
        ),
        ("ld3::best_teacher(net, solver::ddim(), 4, #{ exact: 0 })", &["option `exact` must be an integer ≥ 1"]),
        ("ld3::defaults(0)", &["option `nfe`"]),
        (
            "let o = with_defaults(#{ a: option(1, \"int\", \"1..3\", \"a number\") }, #{ a: 4 }, \"mine\")",
            &["option `a` must be an integer from 1 to 3, not 4"],
        ),
    ]);
}

#[test]
fn what_is_no_loss_no_noise_and_no_pairs_is_refused_by_name() {
    refused(&[
        (
            "ld3::train(net, solver::ddim(), p, #{ phase1: 1, loss: |x, y| (x - y).abs().mean().item() })",
            &["the loss must return a tensor", "not a float"],
        ),
        ("ld3::train(net, solver::ddim(), p, #{ phase1: 1, loss: |x, y| 3 })", &["not an integer"]),
        (
            "ld3::train(net, solver::ddim(), p, #{ phase1: 1, loss: |x, y| cat([x, y], 1) })",
            &["a scalar or one value per sample, [4]", "shape [4, 2]"],
        ),
        (
            "ld3::train(net, solver::ddim(), p, #{ phase1: 1, loss: |x, y| (x - y).detach().abs().mean() })",
            &["the loss has no gradient"],
        ),
        (
            "p.train.z *= 80; ld3::train(net, solver::ddim(), p, #{ phase1: 1 })",
            &["pairs.train.z has standard deviation", "unit-variance noise"],
        ),
        ("p.remove(\"valid\"); ld3::train(net, solver::ddim(), p, #{ phase1: 1 })", &["pairs has no valid"]),
        ("p.train.remove(\"cond\"); ld3::train(net, solver::ddim(), p, #{ phase1: 1 })", &["pairs.train has no cond"]),
        (
            "ld3::train(net, solver::ddim(), p, #{ nfe: 3, phase1: 1, phase2: 0, callback: |s| 1 })",
            &["the callback must return", "not an integer"],
        ),
        (
            "let f = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, |x, s, c| x * 0.5); ld3::pairs(f)",
            &["does not fix the shape"],
        ),
    ]);
}

#[test]
fn what_teaches_nothing_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let (_, notes) = prints(dir.path(), "ld3::train(net, solver::ddim(), p, #{ nfe: 20, phase1: 1, phase2: 0 });");
    assert!(notes.contains("the teacher takes 20 evaluations, the student 20"), "{notes}");
    let (_, notes) = prints(
        dir.path(),
        "ld3::train(net, solver::ddim(), p, #{ nfe: 3, phase1: 1, phase2: 0, loss: |x, y| (x * 0.0).abs().mean() + 1.0 });",
    );
    assert!(notes.contains("gradient of the loss is zero"), "{notes}");
    let (_, notes) = prints(dir.path(), "ld3::train(net, solver::ddim(), p, #{ nfe: 4, phase1: 1, phase2: 0 });");
    assert!(!notes.contains("the teacher takes"), "{notes}");
}

/// `loss` and `tried` are of the same pairs from the same noises, whatever training looked at.
#[test]
fn the_result_is_judged_as_heuristics_are() {
    let dir = tempfile::tempdir().unwrap();
    let judge =
        "fn judge(net, steps, p) { loss::l2(sample(net, solver::ddim(), steps, p.valid.z), p.valid.target).item() }
        fn near(a, b) { (a - b).abs() <= 1e-5 * b }";
    let (text, _) = prints(
        dir.path(),
        &format!(
            "{judge}
            for batch in [1, 50] {{
                let r = ld3::train(net, solver::ddim(), p, #{{ nfe: 4, phase1: 1, phase2: 2, valid_batch: batch }});
                print([near(r.loss, judge(net, r.schedule, p)), near(r.start_loss, r.tried[r.start]), r.improved == (r.loss < r.start_loss)]);
            }}"
        ),
    );
    assert_eq!(text, "[true, true, true]\n[true, true, true]");
    // nothing learned: the start, under its own name, said so
    for init in ["\"best\"", "\"uniform\"", "\"edm\"", "schedule::edm(net.noise, 4)"] {
        let code = format!(
            "let r = ld3::train(net, solver::ddim(), p, #{{ nfe: 4, phase1: 1, phase2: 1, valid_batch: 1, init: {init}, lr_xi: 0, lr_xi_c: 0, lr_x: 0, floor_xi: 0, floor_xi_c: 0 }});
            print([r.improved, r.schedule.name == r.start, r.schedule.name == \"ld3\", r.loss == r.start_loss]);
            r.schedule.save(\"steps.json\"); print([schedule_info(\"steps.json\").name == r.start, schedule_info(\"steps.json\").notes.improved]);"
        );
        let (text, notes) = prints(dir.path(), &code);
        assert_eq!(text, "[false, true, false, true]\n[true, false]", "{init}");
        assert!(notes.contains("nothing that was learned beats its start"), "{init}: {notes}");
    }
}

#[test]
fn files_hold_numbers_or_null() {
    let dir = tempfile::tempdir().unwrap();
    // the first heuristic that is tried has an infinite loss
    let (text, _) = prints(
        dir.path(),
        "let asked = 0;
        let far = |x, y| { asked += 1; let d = (x - y).abs().mean([1]); if asked == 1 { d * INF } else { d } };
        let r = ld3::train(net, solver::ddim(), p, #{ nfe: 4, phase1: 1, phase2: 0, loss: far, out: \"steps.json\" });
        print(r.tried.values().filter(|l| l == INF).len());",
    );
    assert_eq!(text, "1");
    let text = std::fs::read_to_string(dir.path().join("steps.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(!text.contains("\"inf\"") && !text.contains("\"NaN\""), "{text}");
    assert!(file["losses"]["valid"].is_number() || file["losses"]["valid"].is_null(), "{}", file["losses"]);
    assert!(file["losses"]["heuristics"].as_object().unwrap().values().any(|l| l.is_null()));
}

#[test]
fn a_checkpoint_never_takes_the_place_of_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = [
        ("state.state", "state::save(\"state.state\", #{ my: \"results of a week\" });"),
        ("other.state", "state::save(\"other.state\", #{ key: 1, state: 2 });"),
        ("text.txt", "csv::save(\"text.txt\", [[1, 2]]);"),
    ];
    for (name, make) in foreign {
        prints(dir.path(), make);
        let before = std::fs::read(dir.path().join(name)).unwrap();
        let o = run(
            dir.path(),
            &format!(
                "ld3::train(net, solver::ddim(), p, #{{ nfe: 3, phase1: 1, phase2: 0, checkpoint: \"{name}\" }});"
            ),
        );
        assert_eq!(o.status.code(), Some(1), "{name}: {}", err(&o));
        assert!(err(&o).contains(name), "{}", err(&o));
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), before, "{name}");
    }
    // that of another run of ld3::train, left by one that was stopped
    let stop = "let r = ld3::train(net, solver::ddim(), p, #{ nfe: 3, phase1: 2, phase2: 0, checkpoint: \"run.state\", callback: |s| { if s.iteration == 2 { throw \"stopped here\"; } } });";
    assert!(err(&run(dir.path(), stop)).contains("stopped here"));
    let before = std::fs::read(dir.path().join("run.state")).unwrap();
    let o = run(
        dir.path(),
        "ld3::train(net, solver::ddim(), p, #{ nfe: 4, phase1: 2, phase2: 0, checkpoint: \"run.state\" });",
    );
    assert!(err(&o).contains("checkpoint of another run") && err(&o).contains("{key}"), "{}", err(&o));
    assert_eq!(std::fs::read(dir.path().join("run.state")).unwrap(), before);
    // its own run goes on from it, and takes it away at the end
    let (text, _) = prints(
        dir.path(),
        "let n = 0; let r = ld3::train(net, solver::ddim(), p, #{ nfe: 3, phase1: 2, phase2: 0, checkpoint: \"run.state\", callback: |s| { n += 1; } }); print(n < r.iterations);",
    );
    assert_eq!((text.as_str(), dir.path().join("run.state").exists()), ("true", false));
}

#[test]
fn a_sweep_keeps_its_checkpoints_apart() {
    let dir = tempfile::tempdir().unwrap();
    for nfe in [3, 4] {
        let stop = format!(
            "ld3::train(net, solver::ddim(), p, #{{ nfe: {nfe}, phase1: 1, phase2: 0, checkpoint: out(\"sweep-{{key}}.state\"), callback: |s| {{ throw \"stopped\"; }} }});"
        );
        // a first state is there only after the first minibatch, which the second iteration finds
        let stop = stop
            .replace("throw \"stopped\";", "if s.at > 0 { throw \"stopped\"; }")
            .replace("phase1: 1", "phase1: 1, batch: 1");
        assert!(err(&run(dir.path(), &stop)).contains("stopped"));
    }
    let left: Vec<_> = std::fs::read_dir(dir.path().join("out")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_failing_save_or_cache_costs_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let (text, notes) = prints(
        dir.path(),
        "let r = ld3::train(net, solver::ddim(), p, #{ nfe: 3, phase1: 1, phase2: 0, out: \"no/folder/steps.json\", checkpoint: \"run.state\" }); print(r.schedule.nfe);",
    );
    assert_eq!(text, "3");
    assert!(notes.contains("could not be saved") && notes.contains("run.state stays"), "{notes}");
    assert!(dir.path().join("run.state").exists());
    let (text, _) = prints(
        dir.path(),
        "let r = ld3::train(net, solver::ddim(), p, #{ nfe: 3, phase1: 1, phase2: 0, out: \"steps.json\" }); print(load_schedule(\"steps.json\").nfe);",
    );
    assert_eq!(text, "3");
    // no place for a cache
    std::fs::write(dir.path().join("main.rhai"), format!("{HEAD}print(p.train.z.len);")).unwrap();
    let mut c = ld3sh(dir.path(), Path::new("/dev/null/cache"));
    let o = c.arg("main.rhai").output().unwrap();
    assert_eq!((out(&o).trim(), o.status.code()), ("2", Some(0)), "{}", err(&o));
    assert!(err(&o).contains("`pairs` is not kept in the cache"), "{}", err(&o));
    // a damaged entry is made anew
    let (_, _) = prints(dir.path(), "1;");
    let entries: Vec<_> = std::fs::read_dir(dir.path().join("cache")).unwrap().flatten().map(|e| e.path()).collect();
    assert!(!entries.is_empty());
    for e in entries.iter().filter(|e| e.extension().is_some_and(|x| x == "state")) {
        std::fs::write(e, "damaged").unwrap();
    }
    let (text, notes) = prints(dir.path(), "print(p.train.z.len);");
    assert!(text == "2" && notes.contains("made anew"), "{notes}");
    let (text, notes) = prints(dir.path(), "print(p.train.z.len);");
    assert!(text == "2" && !notes.contains("anew"), "{notes}");
}

/// Solvers, networks, losses, conditions and schedules made of functions of the script, through every entry point.
#[test]
fn functions_of_the_script_pass_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = "
let nets = #{
    native: net,
    own: denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\", shape: [1] }, |x, s, c| x * 0.5),
};
let solvers = #{
    steps: solver::from_fn(|s| s.x + (s.t_next - s.t) * (s.x - s.net.denoise(s.x, s.t)) / s.t),
    plan: solver::from_plan(|steps| solver::ddim().plan(steps)),
};
let losses = #{ scalar: |x, y| (x - y).abs().mean(), each: |x, y| (x - y).abs().mean([1]) };
";
    let (text, _) = prints(
        dir.path(),
        &format!(
            "{kinds}
for n in nets.keys() {{
    let net = nets[n];
    let listed = schedule::list(net.noise, [80.0, 10.0, 1.0, 0.002]);
    for s in solvers.keys() {{
        let solver = solvers[s];
        // as the teacher, with and without conditions
        let p = ld3::pairs(net, solver, schedule::logsnr(net.noise, 12), #{{ train: 2, valid: 2 }});
        let q = if n == \"own\" {{ ld3::pairs(net, solver, listed, #{{ train: 2, valid: 2, cond: [[1], [2], [3], [4]] }}) }} else {{ p }};
        for l in losses.keys() {{
            for init in [\"best\", listed] {{
                let r = ld3::train(net, solver, q, #{{ nfe: 3, phase1: 1, phase2: 0, loss: losses[l], init: init, out: out(`${{n}}-${{s}}-${{l}}.json`), checkpoint: out(\"c-{{key}}.state\") }});
                let info = schedule_info(out(`${{n}}-${{s}}-${{l}}.json`));
                if type_of(info.solver.key) != \"string\" {{ throw \"the record has no key\"; }}
                r.schedule.save(out(\"again.json\"));
            }}
            let each = experiment::each_loss(net, solver, listed, p.valid, losses.each);
            if each.len() != 2 {{ throw \"each_loss\"; }}
        }}
        print(`${{n}} ${{s}} ${{p.teacher.solver.name}}`);
    }}
}}"
        ),
    );
    assert_eq!(text.lines().count(), 4, "{text}");
    // pictures: generate
    let (text, _) = prints(
        dir.path(),
        &format!(
            "{kinds}
let image = denoiser::from_fn(#{{ noise: noise::edm(), predicts: \"data\", shape: [1, 2, 2] }}, |x, s, c| x * 0.1);
for s in solvers.keys() {{ print(generate(image, solvers[s], schedule::edm(image.noise, 3), 2, #{{ out: out(s) }}).made); }}"
        ),
    );
    assert_eq!(text, "2\n2");
}

/// A function is known by its text and by what it captures and reads.
#[test]
fn keys_tell_functions_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (text, _) = prints(
        dir.path(),
        "fn helper(x) { x + 1 }
        let k = 2; let other = 2;
        const C = 5;
        fn add(n) { |x| x + n }
        fn reads(x) { x * C }
        let s = |f| key_of(solver::from_fn(f));
        print(key_of(|x| x * 2) == key_of(|x| x * 3));
        print(key_of(add(1)) == key_of(add(2)));
        print(key_of(add(1)) == key_of(add(1)));
        print(key_of(|x| helper(x)) == key_of(|x| x));
        print(s.call(|s| s.x) == s.call(|s| s.x * 1.0));
        print(type_of(key_of(reads)));
        print(key_of(#{ f: |x| x, name: \"mine\", key: 1 }) == key_of(#{ f: |x| x + 1, name: \"mine\", key: 1 }));
        let d = |o, f| key_of(denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" } + o, f));
        print(d.call(#{}, |x, s, c| x) == d.call(#{}, |x, s, c| x * 2));
        print(d.call(#{ name: \"a\", key: 1 }, |x, s, c| x) == d.call(#{ name: \"a\", key: 1 }, |x, s, c| x * 2));
        print(d.call(#{ name: \"a\", key: 1 }, |x, s, c| x) == d.call(#{ name: \"a\", key: 2 }, |x, s, c| x));
        print(d.call(#{ shape: [2] }, |x, s, c| x) == d.call(#{ shape: [3] }, |x, s, c| x));
        // what it captures may change after it is made
        let scale = 1; let changing = |x, s, c| x * scale; scale += 1;
        print(d.call(#{}, changing));
        print(key_of(solver::from_fn(#{ name: \"a\", key: 1 }, |s| s.x)) == key_of(solver::from_fn(#{ name: \"a\", key: 1 }, |s| s.x * 1.0)));
        print(key_of(solver::from_plan(#{ name: \"a\", key: 1 }, |s| s)) == key_of(solver::from_plan(#{ name: \"a\", key: 2 }, |s| s)));
        print(key_of(schedule::edm(noise::edm(), 4)) == key_of(schedule::edm(noise::edm(), 5)));",
    );
    assert_eq!(text, "false\nfalse\ntrue\nfalse\nfalse\nstring\ntrue\nfalse\ntrue\nfalse\nfalse\n\ntrue\nfalse\nfalse");
    // the text counts, not its place; a constant or helper that changed counts too
    let key = |code: &str| prints(dir.path(), code).0;
    let base = key("const C = 5;\nfn helper(x) { x + C }\nprint(key_of(|x| helper(x)));");
    assert_eq!(
        base,
        key("// moved\n\nconst C = 5;\nfn helper(x) { x + C }\nprint(key_of(|x| helper(x)));").to_string()
    );
    assert_ne!(base, key("const C = 6;\nfn helper(x) { x + C }\nprint(key_of(|x| helper(x)));"));
    assert_ne!(base, key("const C = 5;\nfn helper(x) { x - C }\nprint(key_of(|x| helper(x)));"));
}

/// What a method needs not be told.
#[test]
fn maps_of_options_may_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (text, _) = prints(
        dir.path(),
        "print(ld3::best_teacher(net, solver::unipc(), 6, #{ probe: 2, exact: 20 }).nfe);
        let q = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 6)); print([q.train.z.len, q.valid.z.len]);",
    );
    assert_eq!(text, "6\n[50, 50]");
}
