//! The command line, by running the binary: parameters, check, exit codes, imports, error reports, pipes.
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn ld3sh(dir: &Path, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
    c.current_dir(dir).args(args).stdin(Stdio::null()).env_remove("LD3SH_PATH");
    c
}

fn out(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).unwrap()
}
fn err(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).unwrap()
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// Runs in `dir`; asserts the exit code; returns stdout and stderr.
#[track_caller]
fn run(dir: &Path, args: &[&str], code: i32) -> (String, String) {
    let o = ld3sh(dir, args).output().unwrap();
    assert_eq!(o.status.code(), Some(code), "{args:?}\n{}{}", out(&o), err(&o));
    assert!(!err(&o).contains("panicked"), "{}", err(&o));
    (out(&o), err(&o))
}

const PARAMS: &str = "// Learns nothing.
// In two lines.

let nfe = param(\"nfe\", 10, \"network evaluations\");
let all = [param(\"lr\", -0.5, \"rate\"), param(\"on\", true), param(\"name\", \"a b\", \"who\"), param(\"sizes\", [1, 2], \"how many\")];
print(`${nfe} ${all}`);
";

#[test]
fn parameters_are_listed_and_set() {
    let d = folder(&[("p.rhai", PARAMS)]);
    let (help, _) = run(d.path(), &["p.rhai", "--help"], 0);
    for want in
        ["Learns nothing.\nIn two lines.", "nfe=10", "int", "network evaluations", "lr=-0.5", "sizes=[1,2]", "[int]"]
    {
        assert!(help.contains(want), "{want} in\n{help}");
    }
    assert_eq!(run(d.path(), &["p.rhai"], 0).0, "10 [-0.5, true, \"a b\", [1, 2]]\n");
    let set = [
        "--set",
        "nfe=6",
        "p.rhai",
        "--set",
        "lr=2",
        "--set",
        "on=false",
        "--set",
        "name=x=y",
        "--set",
        "sizes=[3, 4]",
    ];
    assert_eq!(run(d.path(), &set, 0).0, "6 [2.0, false, \"x=y\", [3, 4]]\n");
}

#[test]
fn a_group_of_parameters_is_described_by_its_function() {
    let script = "let p = params(\"experiment::run\", #{ pairs: 50, nfe: 10, epochs: [2, 5] });\nprint(p);";
    let d = folder(&[("p.rhai", script)]);
    let (help, _) = run(d.path(), &["p.rhai", "--help"], 0);
    for want in ["nfe=10", "evaluations of the student", "pairs=50", "teacher pairs for training", "epochs=[2,5]"] {
        assert!(help.contains(want), "{want} in\n{help}");
    }
    assert!(help.find("pairs=50") < help.find("nfe=10"), "in the order of the text:\n{help}");
    let (out, _) = run(d.path(), &["p.rhai", "--set", "nfe=4"], 0);
    assert_eq!(out, "#{\"epochs\": [2, 5], \"nfe\": 4, \"pairs\": 50}\n");
    for (of, key, want) in [("experiment::run", "npairs", "`pairs`"), ("experiment::rnu", "pairs", "`experiment::run`")]
    {
        let d = folder(&[("p.rhai", &format!("let p = params(\"{of}\", #{{ {key}: 1 }});"))]);
        for args in [&["check", "p.rhai"][..], &["p.rhai", "--help"]] {
            let (_, stderr) = run(d.path(), args, 1);
            assert!(stderr.contains(want), "{stderr}");
        }
    }
}

#[test]
fn a_wrong_set_fails_before_any_work() {
    let d = folder(&[("p.rhai", &format!("print(\"working\");\n{PARAMS}"))]);
    for (set, want) in [
        ("nfee=3", "did you mean `nfe`?"),
        ("nfe=3.5", "is not of type int"),
        ("nfe=", "is not of type int"),
        ("nfe=99999999999999999999", "is not of type int"),
        ("on=yes", "is not of type bool"),
        ("sizes=[1,x]", "is not of type [int]"),
        ("nfe", "there is no `=`"),
    ] {
        let (stdout, stderr) = run(d.path(), &["p.rhai", "--set", set], 2);
        assert!(stdout.is_empty() && stderr.contains(want), "{set}: {stdout}{stderr}");
    }
    let twice = run(d.path(), &["p.rhai", "--set", "nfe=1", "--set", "nfe=2"], 2).1;
    assert!(twice.contains("given twice"), "{twice}");
}

#[test]
fn parameters_that_cannot_be_read_from_the_text() {
    for (script, want) in [
        ("let n = 3; let k = param(\"k\", n, \"\");", "must be a literal"),
        ("let k = param(\"k\" + \"l\", 3);", "name must be a literal"),
        ("if true { param(\"k\", 3); }", "top level"),
        ("fn f() { param(\"k\", 3) }", "top level"),
        ("let f = || param(\"k\", 3);", "top level"),
        ("for i in 0..3 { print(param(\"k\", 3)); }", "top level"),
        ("let k = param(\"k\", [], \"\");", "empty array"),
        ("let k = param(\"k\", [1, \"a\"], \"\");", "mixed types"),
        ("let k = param(\"k\", #{}, \"\");", "default of `k` is"),
        ("let a = param(\"k\", 1); let b = param(\"k\", 1);", "declared twice"),
        ("let a = param(\"nfe\", 1); let p = params(\"experiment::run\", #{ nfe: 1 });", "declared twice"),
        ("let n = 3; let p = params(\"experiment::run\", #{ nfe: n });", "must be a literal"),
        ("let n = #{}; let p = params(\"experiment::run\", n);", "written out"),
        ("fn f() { params(\"experiment::run\", #{ nfe: 1 }) }", "top level"),
    ] {
        let d = folder(&[("p.rhai", script)]);
        for args in [&["p.rhai"][..], &["check", "p.rhai"], &["p.rhai", "--help"]] {
            let (_, stderr) = run(d.path(), args, 1);
            assert!(stderr.contains(want) && stderr.contains("p.rhai:1:"), "{script} {args:?}\n{stderr}");
        }
    }
}

#[test]
fn check_finds_what_can_be_known() {
    let ok = "import \"cache\" as c;\nfn f(x) { g(x) } fn g(x) { x }\nlet h = |x| f(x);\nif false { h.call(1); c::get(\"a\", #{}, || 1); }\nprint(\"ran\");";
    let d = folder(&[("ok.rhai", ok)]);
    assert_eq!(run(d.path(), &["check", "ok.rhai"], 0).0, "ok.rhai: ok\n");
    for (script, want) in [
        ("let a = ;", "syntax error"),
        ("if false { nothing(1); }", "unknown function `nothing`"),
        ("fn f(x) { x } if false { f(1, 2); }", "`f` takes 1 arguments, not 2"),
        ("if false { seeed(); }", "did you mean `seed`?"),
        ("let a = 1; if false { print(b); }", "unknown variable `b`"),
        ("import \"nowhere\" as n;", "there is no module `nowhere`"),
        ("import \"cache\" as c; if false { c::gett(\"a\", #{}, || 1); }", "did you mean `get`?"),
        ("if false { cache::get(); }", "unknown module `cache`"),
    ] {
        let d = folder(&[("bad.rhai", script)]);
        let (stdout, stderr) = run(d.path(), &["check", "bad.rhai"], 1);
        assert!(stdout.is_empty() && stderr.contains(want), "{script}\n{stderr}");
    }
}

#[test]
fn modules_are_searched_in_order_and_recorded() {
    let show = "import \"cache\" as c;\nlet m = provenance().modules.find(|m| m.name == \"cache\");\nprint(`${m.name} ${m.origin} ${m.hash.len()}`);";
    let d = folder(&[("main.rhai", show), ("path/cache.rhai", "fn f() { 1 }")]);
    assert_eq!(run(d.path(), &["main.rhai"], 0).0, "cache stdlib/cache.rhai 64\n");
    let path = d.path().join("path");
    let o = ld3sh(d.path(), &["main.rhai"]).env("LD3SH_PATH", &path).output().unwrap();
    assert_eq!(out(&o), format!("cache {} 64\n", path.join("cache.rhai").display()));
    std::fs::write(d.path().join("cache.rhai"), "fn f() { 2 }").unwrap();
    let o = ld3sh(d.path(), &["main.rhai"]).env("LD3SH_PATH", &path).output().unwrap();
    assert_eq!(out(&o), "cache cache.rhai 64\n");
}

#[test]
fn bad_modules() {
    let d =
        folder(&[("a.rhai", "import \"b\" as b;"), ("b.rhai", "import \"c\" as c;"), ("c.rhai", "import \"b\" as b;")]);
    let (_, stderr) = run(d.path(), &["a.rhai"], 1);
    assert!(stderr.contains("circle: b.rhai → c.rhai → b.rhai") && stderr.contains("c.rhai:1:"), "{stderr}");

    let d = folder(&[("a.rhai", "import \"b\" as b;"), ("b.rhai", "fn f() {\n  let x = ;\n}")]);
    let (_, stderr) = run(d.path(), &["a.rhai"], 1);
    assert!(stderr.contains("b.rhai:2:11") && stderr.contains("a.rhai:1:"), "{stderr}");

    let d = folder(&[("a.rhai", "import \"b\" as b;")]);
    std::fs::write(d.path().join("b.rhai"), b"let a = 1;\nlet b = \"\xff\";").unwrap();
    let (_, stderr) = run(d.path(), &["a.rhai"], 1);
    assert!(stderr.contains("not UTF-8") && stderr.contains("line 2"), "{stderr}");
    std::fs::write(d.path().join("c.rhai"), b"\xff\xfe").unwrap();
    assert!(run(d.path(), &["c.rhai"], 1).1.contains("UTF-16"));
    let (_, stderr) = run(d.path(), &["."], 1);
    assert!(stderr.contains("cannot read `.`"), "{stderr}");
}

#[test]
fn errors_show_the_chain_of_calls() {
    let d = folder(&[
        (
            "main.rhai",
            "import \"lib\" as lib;\nfn start(x) {\n    lib::apply(|y| lib::deep(y), x)\n}\nlet a = \"ä\"; start(1);",
        ),
        ("lib.rhai", "fn apply(f, x) { f.call(x) }\nfn deep(x) {\n    let a = [x];\n    a[7]\n}"),
    ]);
    let (_, stderr) = run(d.path(), &["main.rhai"], 1);
    let order = [
        "error: ",
        "lib.rhai:4:",
        "a[7]",
        "in `deep`",
        "main.rhai:3:",
        "in this closure",
        "lib.rhai:1:",
        "in `apply`",
        "in `start`",
        "main.rhai:5:14",
    ];
    let mut rest = stderr.as_str();
    for want in order {
        let at = rest.find(want).unwrap_or_else(|| panic!("`{want}` is missing, or out of order, in\n{stderr}"));
        rest = &rest[at..];
    }
}

#[test]
fn options_and_exit_codes() {
    let d = folder(&[("s.rhai", "print(`${seed()} ${out(\"a/b.txt\")} ${device()}`);"), ("x.rhai", "exit(3);")]);
    assert_eq!(run(d.path(), &["--seed", "5", "s.rhai", "--out", "res"], 0).0, "5 res/a/b.txt cpu\n");
    assert!(d.path().join("res/a").is_dir());
    assert_eq!(run(d.path(), &["s.rhai", "--seed", "-5", "--threads", "1", "--quiet"], 0).0, "-5 out/a/b.txt cpu\n");
    run(d.path(), &["x.rhai"], 3);
    assert_eq!(run(d.path(), &["-e", "12 / 5"], 0).0, "2.4\n");
    assert_eq!(run(d.path(), &["-e", "let f = |x| x + 1; f.call(2)"], 0).0, "3\n");
    assert_eq!(run(d.path(), &["-e", "\"a\\nb\""], 0).0, "a\nb\n");
    assert!(run(d.path(), &["--version"], 0).0.starts_with("ld3sh 0.1"));
    let help = run(d.path(), &["--help"], 0).0;
    for word in ["ld3sh SCRIPT", "check", "convert", "--threads", "LD3SH_PATH"] {
        assert!(help.contains(word), "{word}:\n{help}");
    }
    for (args, want) in [
        (&["--device", "tpu", "s.rhai"][..], "unknown device `tpu`"),
        (&["--threads", "0", "s.rhai"], "--threads must be"),
        (&["--seed", "x", "s.rhai"], "invalid value"),
        (&["z.rhai"], "there is no script `z.rhai`"),
        (&["ss.rhai"], "did you mean `s.rhai`?"),
        (&["s.rhai", "nfe=3"], "--set nfe=3"),
        (&["--sed", "1"], "--seed"),
        (&["check"], "<SCRIPT>"),
        (&["s.rhai", "models"], "models"),
        (&["modles"], "ld3sh models"),
    ] {
        assert!(run(d.path(), args, 2).1.contains(want), "{args:?}: {}", run(d.path(), args, 2).1);
    }
    if cfg!(not(feature = "cuda")) {
        assert!(run(d.path(), &["--device", "cuda", "s.rhai"], 2).1.contains("no CUDA"));
    }
    assert!(run(d.path(), &["-e", "throw 1"], 1).1.starts_with("error: 1"));
}

#[test]
fn standard_input_and_closed_pipes() {
    let d = folder(&[
        ("many.rhai", "for i in 0..200000 { print(i); }"),
        ("bang.rhai", "#!/usr/bin/env ld3sh\nprint(1);\nnothing();"),
    ]);
    let mut c = ld3sh(d.path(), &["-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    c.stdin.take().unwrap().write_all(b"print(6 * 7);").unwrap();
    assert_eq!(out(&c.wait_with_output().unwrap()), "42\n");

    let mut c = ld3sh(d.path(), &["many.rhai"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    c.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let o = c.wait_with_output().unwrap();
    assert_eq!((first, o.status.code(), err(&o)), (*b"0\n1\n", Some(141), String::new()));

    let (stdout, stderr) = run(d.path(), &["bang.rhai"], 1);
    assert!(stdout == "1\n" && stderr.contains("bang.rhai:3:1"), "{stdout}{stderr}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_a_script() {
    let d = folder(&[("loop.rhai", "print(\"go\"); let i = 0; loop { i += 1; }")]);
    let mut c = ld3sh(d.path(), &["loop.rhai"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut go = [0; 3];
    c.stdout.as_mut().unwrap().read_exact(&mut go).unwrap();
    Command::new("kill").args(["-INT", &c.id().to_string()]).status().unwrap();
    let o = c.wait_with_output().unwrap();
    assert_eq!(o.status.code(), Some(130));
    assert!(err(&o).contains("stopped by Ctrl-C") && err(&o).contains("loop.rhai:1:"), "{}", err(&o));
}

#[test]
fn bench_times_a_case_and_names_what_it_knows() {
    let d = folder(&[]);
    let cases = [
        r#"{"what": "conv", "channels": 8, "size": 8, "batch": 1, "gradient": true}"#,
        r#"{"what": "step", "net": "fashion28", "batch": 1, "nfe": 2, "solver": "ipndm", "remat": true}"#,
        r#"{"what": "pairs", "net": "fashion28", "batch": 1, "nfe": 3}"#,
    ];
    let (text, _) = run(d.path(), &["bench", cases[0], cases[1], cases[2], "--json"], 0);
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for l in &lines {
        assert!(l["ms"].as_f64().unwrap() > 0.0 && l["ms"].as_f64() <= l["median_ms"].as_f64(), "{l}");
        assert!(l["runs"].as_u64().unwrap() >= 3, "{l}");
    }
    assert!(lines[0]["outside"].is_null());
    let outside = lines[1]["outside"].as_f64().unwrap();
    assert!((0.0..1.0).contains(&outside), "{outside}");
    let (text, _) = run(d.path(), &["bench", cases[1], "--profile"], 0);
    assert!(text.contains("frozen convolution") && text.contains("frozen group norm"), "{text}");
    let (_, e) = run(d.path(), &["bench", "cnv"], 1);
    assert!(e.contains("conv"), "{e}");
    let (_, e) = run(d.path(), &["bench", r#"{"what": "conv"}"#], 1);
    assert!(e.contains("channels"), "{e}");
}
