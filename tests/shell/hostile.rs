//! Hostile input, tried on the real binary: each case must end with one clear error, no panic, and nothing half-written.
#![cfg(unix)]
use crate::process::{err, faults, files, kill, ld3sh, out};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

const MODEL: &[u8] = include_bytes!("../../models/fashion28-edm.safetensors");

/// A small exact denoiser.
const NET: &str = "let net = denoiser::mixture(#{ means: [[[[-1.0, 0.5]]], [[[1.0, 0.0]]]], stds: 0.2 });\n";
/// It, and pairs to train on.
const PAIRS: &str = "import \"ld3\" as ld3;
    let net = denoiser::mixture(#{ means: [[[[-1.0, 0.5]]], [[[1.0, 0.0]]]], stds: 0.2 });
    let p = ld3::pairs(net, #{ train: 4, valid: 4 });\n";

/// A kind of hostility, a script, and words that the message must contain.
type Case = (&'static str, String, &'static [&'static str]);

fn case(script: &str, words: &'static [&'static str]) -> (String, &'static [&'static str]) {
    (script.to_string(), words)
}

fn of(kind: &'static str, cases: Vec<(String, &'static [&'static str])>) -> Vec<Case> {
    cases.into_iter().map(|(s, w)| (kind, s, w)).collect()
}

fn load(name: &str, words: &'static [&'static str]) -> (String, &'static [&'static str]) {
    (format!("let net = denoiser::load(\"{name}\");"), words)
}

/// Runs every case in one folder with the files that `prepare` puts there; reports all failures together.
#[track_caller]
fn try_all(cases: Vec<Case>, least: usize, prepare: impl Fn(&Path)) {
    assert!(cases.len() >= least);
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prepare(dir.path());
    let mut report = String::new();
    for (kind, script, words) in cases {
        std::fs::write(dir.path().join("case.rhai"), &script).unwrap();
        let before = files(dir.path());
        // devices that refuse to be written, too
        let allowed = ["--allow-write", "/dev", "--allow-write", "/sys"];
        let o = ld3sh(dir.path(), cache.path()).arg("case.rhai").args(allowed).output().unwrap();
        let mut wrong = faults(&o, 1, words);
        if files(dir.path()) != before {
            wrong.push("it left or changed files".into());
        }
        let stray = |p: &&std::path::PathBuf| p.to_string_lossy().ends_with(".part");
        if files(cache.path()).keys().any(|p| stray(&p)) {
            wrong.push("it left a temporary file in the cache".into());
        }
        if !wrong.is_empty() {
            report += &format!("\n[{kind}] {script}\n  {}\n{}{}\n", wrong.join("\n  "), out(&o), err(&o));
        }
    }
    assert!(report.is_empty(), "{report}");
}

/// A safetensors file with this header.
fn safetensors(header: &Value, data: &[u8]) -> Vec<u8> {
    let head = header.to_string().into_bytes();
    [&(head.len() as u64).to_le_bytes(), &head[..], data].concat()
}

/// The built-in model with some entries of its configuration replaced.
fn reconfigured(changes: Value) -> Vec<u8> {
    let length = u64::from_le_bytes(*MODEL.first_chunk().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&MODEL[8..8 + length]).unwrap();
    let mut config: Value = serde_json::from_str(header["__metadata__"]["config"].as_str().unwrap()).unwrap();
    for (k, v) in changes.as_object().unwrap() {
        config[k] = v.clone();
    }
    header["__metadata__"]["config"] = config.to_string().into();
    safetensors(&header, &MODEL[8 + length..])
}

#[test]
fn files_that_are_missing() {
    let cases = of(
        "missing file",
        vec![
            load("nope.safetensors", &["nope.safetensors", "No such file"]),
            load("weigths.safetensors", &["did you mean `./weights.safetensors`?"]),
            case("schedule::load(\"nope.json\");", &["nope.json", "No such file", "case.rhai:1:1"]),
            case("image::load(\"nope.png\");", &["nope.png", "No such file"]),
            case("load(\"nope.npy\");", &["nope.npy", "No such file"]),
            case("state::load(\"nope.state\");", &["nope.state", "No such file"]),
            case("import \"nope\" as n;", &["there is no module `nope`", "case.rhai:1:8"]),
        ],
    );
    try_all(cases, 3, |dir| std::fs::write(dir.join("weights.safetensors"), "").unwrap());
}

#[test]
fn checkpoints_that_lie() {
    let kind = "hostile checkpoint";
    let cases = of(
        kind,
        vec![
            load("long.safetensors", &["long.safetensors", "header too large"]),
            load("longer.safetensors", &["header too large"]),
            load("empty.safetensors", &["empty.safetensors", "an empty file"]),
            load("cut.safetensors", &["cut.safetensors", "truncated"]),
            load("overlap.safetensors", &["overlap.safetensors", "invalid offset for tensor `b`"]),
            load("dtype.safetensors", &["dtype.safetensors", "invalid shape, data type, or offset"]),
            load("unknown.safetensors", &["unknown variant `F99`"]),
            load("endless.safetensors", &["overflow"]),
            load("plain.safetensors", &["no `precond`", "EDMPrecond"]),
            load("wide.safetensors", &["`model_channels` is 1000000000, expected 4 to 2048"]),
            load("negative.safetensors", &["configuration cannot be read", "-28"]),
            load("levels.safetensors", &["channel_mult` is 0, expected 1 to 8"]),
            load("sigma.safetensors", &["expected sigma_data > 0"]),
            load("other.safetensors", &["has shape", "expected"]),
            load("blocks.safetensors", &["is missing"]),
            load("nan.safetensors", &["nan.safetensors", "holds NaN or infinite values"]),
            load("folder.safetensors", &["folder.safetensors", "is a folder without a model"]),
            case("load(\"overlap.safetensors\");", &["invalid offset for tensor `b`"]),
            case("load(\"endless.safetensors\");", &["overflow"]),
            case("schedule::load(\"cut.json\");", &["cut.json", "not valid JSON"]),
            case("state::load(\"cut.state\");", &["cut.state", "not a complete state file"]),
        ],
    );
    try_all(cases, 15, |dir| {
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.join(format!("{name}.safetensors")), bytes).unwrap();
        let one = |dtype: &str, shape: Value| json!({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, 8]}});
        put("long", &[&u64::MAX.to_le_bytes()[..], b"{}"].concat());
        put("longer", &[&1_000_000_000u64.to_le_bytes()[..], b"{}"].concat());
        put("empty", b"");
        put("cut", &MODEL[..MODEL.len() / 2]);
        let pair = json!({
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        });
        put("overlap", &safetensors(&pair, &[0; 12]));
        put("dtype", &safetensors(&one("F64", json!([2])), &[0; 8]));
        put("unknown", &safetensors(&one("F99", json!([2])), &[0; 8]));
        put("endless", &safetensors(&one("F32", json!([1u64 << 40, 1u64 << 40])), &[0; 8]));
        put("plain", &safetensors(&one("F32", json!([2])), &[0; 8]));
        put("wide", &reconfigured(json!({"model_channels": 1_000_000_000})));
        put("negative", &reconfigured(json!({"img_resolution": -28})));
        put("levels", &reconfigured(json!({"channel_mult": []})));
        put("sigma", &reconfigured(json!({"sigma_data": 0})));
        put("other", &reconfigured(json!({"model_channels": 64})));
        put("blocks", &reconfigured(json!({"num_blocks": 9})));
        let mut nan = MODEL.to_vec();
        let length = u64::from_le_bytes(*MODEL.first_chunk().unwrap()) as usize;
        nan[8 + length..12 + length].copy_from_slice(&f32::NAN.to_le_bytes());
        put("nan", &nan);
        std::fs::create_dir(dir.join("folder.safetensors")).unwrap();
        std::fs::write(dir.join("cut.json"), "{\n  \"format\": \"ld3sh.sch").unwrap();
        std::fs::write(dir.join("cut.state"), &MODEL[..100]).unwrap();
    });
}

#[test]
fn shapes_that_do_not_fit() {
    let fashion = "let net = denoiser::load(\"fashion28\");\n";
    let cases = of(
        "wrong shape",
        vec![
            case(
                &format!("{fashion}net.denoise(noise([2, 1, 14, 14]), 1.0);"),
                &["[B, 1, 28, 28]", "[2, 1, 14, 14]", "case.rhai:2:5"],
            ),
            case(
                &format!("{fashion}sample(net, solver::unipc(), schedule::edm(net.noise, 3), noise([2, 3, 28, 28]));"),
                &["[2, 3, 28, 28]", "[1, 28, 28]"],
            ),
            case(&format!("{fashion}net.denoise(noise([2, 1, 28, 28]), 1.0, [3]);"), &["2 labels", "got 1"]),
            case("zeros([2, 3]) + zeros([4]);", &["[2, 3] and [4] do not broadcast"]),
            case("zeros([2, 3]).matmul(zeros([2, 3]));", &["[2, 3] and [2, 3] do not fit"]),
            case("zeros([2, 3]).reshape([4]);", &["6 values", "[4]"]),
            case("loss::l2(zeros([2, 3]), zeros([2, 4]));", &["[2, 3] and [2, 4]"]),
            case(
                "let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, |x, sigma, cond| x[0]);
                 sample(net, solver::euler(), schedule::edm(net.noise, 3), noise([2, 1, 1, 2]));",
                &["must return its input's shape [2, 1, 1, 2], not [1, 1, 2]"],
            ),
        ],
    );
    try_all(cases, 3, |_| {});
}

#[test]
fn names_that_are_not_known() {
    let cases = of(
        "unknown name",
        vec![
            case("solver::unipc(#{ ordr: 3 });", &["option of solver::unipc `ordr`", "did you mean `order`?"]),
            case("solver::unipc(#{ variant: \"bh3\" });", &["`bh3`", "did you mean `bh1`?"]),
            case("solver::named(\"unpic\", #{});", &["unknown solver `unpic`", "did you mean `unipc`?"]),
            case("solver::unip();", &["unknown function `solver::unip`", "did you mean `solver::unipc`?"]),
            case("loss::get(\"l3\");", &["unknown loss `l3`", "did you mean `l1`?"]),
            case("schedule::named(noise::edm(), \"lognsr\", 5);", &["unknown schedule", "did you mean `logsnr`?"]),
            case("denoiser::load(\"fashion29\");", &["`fashion29`", "did you mean `fashion28`?"]),
            case(
                &format!("{PAIRS}ld3::train(net, solver::euler(), p, #{{ nef: 3 }});"),
                &["ld3::train `nef`", "did you mean `nfe`?"],
            ),
            case(
                &format!("{PAIRS}ld3::train(net, solver::euler(), p, #{{ loss: \"huberr\" }});"),
                &["unknown value for option `loss`", "`huber`"],
            ),
            case(
                &format!("{PAIRS}ld3::pairs(net, #{{ trian: 2 }});"),
                &["ld3::pairs `trian`", "did you mean `train`?"],
            ),
            case("let schedule_a = 1; schedul_a;", &["did you mean `schedule_a`?"]),
        ],
    );
    try_all(cases, 3, |_| {});
    // and on the command line
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("s.rhai"), "let nfe = param(\"nfe\", 5, \"\"); print(\"ran\");").unwrap();
    for (args, words) in [
        (&["s.rhai", "--set", "nef=3"][..], &["did you mean `nfe`?"][..]),
        (&["s.rhai", "--set", "nfe=many"], &["nfe", "int"]),
        (&["t.rhai"], &["there is no script `t.rhai`", "did you mean `s.rhai`?"]),
    ] {
        let o = ld3sh(dir.path(), cache.path()).args(args).output().unwrap();
        assert_eq!((faults(&o, 2, words), out(&o)), (vec![], String::new()), "{args:?}\n{}", err(&o));
    }
}

#[test]
fn steps_that_do_not_descend() {
    let cases = of(
        "steps",
        vec![
            case(
                "schedule::list(noise::edm(), [80.0, 1.0, 2.0, 0.002]);",
                &["steps must descend", "t[1] = 1 is followed by 2"],
            ),
            case("schedule::list(noise::edm(), [80.0, 1.0, 1.0, 0.002]);", &["steps must descend"]),
            case("schedule::list(noise::edm(), [0.002, 1.0, 80.0]);", &["steps must descend", "from the most noise"]),
            case("schedule::list(noise::edm(), [80.0, 0.0 / 0.0, 0.002]);", &["t[1]", "NaN"]),
            case("schedule::list(noise::edm(), [90000.0, 1.0, 0.002]);", &["t = 90000", "outside [0.002, 80]"]),
            case("schedule::list(noise::edm(), []);", &["at least 2 times"]),
            case("schedule::from_map(#{ noise: #{ name: \"edm\" }, t: [1, 2, 3] });", &["steps must descend"]),
            case("schedule::edm(noise::edm(), 0);", &["not 0"]),
            case(
                "tau(noise::edm(), tensor([1.0, 0.0 / 0.0, 1.0]), tensor([0.0, 0.0, 0.0]), #{});",
                &["ξ[1] is not finite"],
            ),
        ],
    );
    try_all(cases, 3, |_| {});
}

#[test]
fn losses_and_denoisers_that_are_not_finite() {
    let train = |options: &str| format!("{PAIRS}ld3::train(net, solver::euler(), p, #{{ nfe: 3, {options} }});");
    let net = |body: &str| {
        format!(
            "let net = denoiser::from_fn(#{{ noise: noise::edm(), predicts: \"data\", shape: [1, 1, 2] }}, |x, s, cond| {body});
             sample(net, solver::euler(), schedule::edm(net.noise, 3), noise([2, 1, 1, 2]));"
        )
    };
    let cases = of(
        "NaN",
        vec![
            case(&train("loss: |x, y| loss::l2(x, y) * (0.0 / 0.0)"), &["ld3::train: the loss is NaN", "case.rhai:4:"]),
            case(&train("init: \"edm\", loss: |x, y| (x - x).sum().sqrt()"), &["NaN", "case.rhai:4:"]),
            case(
                &train("init: \"edm\", loss: |x, y| loss::l2(x, y) * (1.0 / 0.0)"),
                &["ld3::train: the loss is inf", "iteration 0"],
            ),
            case(&train("loss: |x, y| throw \"no loss today\""), &["no loss today"]),
            case(&train("batch: 0"), &["option `batch` must be an integer ≥ 1, not 0"]),
            case(&train("valid_batch: -1"), &["option `valid_batch` must be an integer ≥ 1, not -1"]),
            case(&train("checkpoint_every: 0"), &["option `checkpoint_every` must be an integer ≥ 1, not 0"]),
            case(
                &format!(
                    "{PAIRS}ld3::train(net, solver::euler(), ld3::pairs(net, #{{ train: 4, valid: 0 }}), #{{ nfe: 3 }});"
                ),
                &["there are no pairs in pairs.valid"],
            ),
            case(&net("x * (0.0 / 0.0)"), &["the denoiser's output has NaN", "t = 80", "case.rhai:2:"]),
            case(
                &net("if s[0].item() < 10.0 { x * (1.0 / 0.0) } else { x }"),
                &["infinite values in step 1 of 3", "t = 9.72"],
            ),
            case(
                &format!(
                    "{NET}sample(net, solver::euler(), schedule::edm(net.noise, 3), noise([2, 1, 1, 2]) * (0.0 / 0.0));"
                ),
                &["the state has NaN", "at the start"],
            ),
        ],
    );
    try_all(cases, 3, |_| {});
}

#[test]
fn places_that_cannot_be_written() {
    let edm = "schedule::edm(noise::edm(), 4)";
    let cases = of(
        "full disk",
        vec![
            case(&format!("{edm}.save(\"full.json\");"), &["full.json", "No space left", "the disk is full"]),
            case("image::grid(zeros([2, 1, 4, 4])).save(\"full.png\");", &["full.png", "the disk is full"]),
            case("save(\"full.npy\", zeros([3]));", &["full.npy", "the disk is full"]),
            case("state::save(\"/dev/full\", #{ a: 1 });", &["/dev/full", "the disk is full"]),
            case("csv::save(\"full.csv\", [[1, 2]]);", &["full.csv", "the disk is full"]),
            case(&format!("{edm}.save(\"file/x.json\");"), &["file/x.json", "a part of the path is a file"]),
            case(&format!("{edm}.save(\"nowhere/x.json\");"), &["nowhere/x.json", "its directory does not exist"]),
            case(&format!("{edm}.save(\"folder.json\");"), &["folder.json", "it is a directory"]),
            case(&format!("{edm}.save(\"kept.json\");"), &["kept.json", "it is read-only"]),
            case(&format!("{edm}.save(\"/sys/ld3sh.json\");"), &["cannot write `/sys/ld3sh.json`"]),
        ],
    );
    try_all(cases, 3, |dir| {
        for name in ["json", "png", "npy", "csv"] {
            symlink("/dev/full", dir.join(format!("full.{name}"))).unwrap();
        }
        std::fs::write(dir.join("file"), "").unwrap();
        std::fs::create_dir(dir.join("folder.json")).unwrap();
        std::fs::write(dir.join("kept.json"), "old").unwrap();
        std::fs::set_permissions(dir.join("kept.json"), std::fs::Permissions::from_mode(0o444)).unwrap();
    });
}

/// The old file stays whole when the disk runs full in the middle of the new one.
#[test]
fn a_disk_that_runs_full_while_writing() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("old.npy"), "old").unwrap();
    std::fs::write(dir.path().join("s.rhai"), "save(\"old.npy\", zeros([256, 256]));").unwrap();
    let before = files(dir.path());
    let limited = format!("trap '' XFSZ; ulimit -f 16; exec '{}' s.rhai", env!("CARGO_BIN_EXE_ld3sh"));
    let mut c = Command::new("sh");
    c.args(["-c", &limited]).current_dir(dir.path()).env("LD3SH_CACHE", cache.path());
    let o = c.output().unwrap();
    assert_eq!(faults(&o, 1, &["old.npy", "nothing was changed"]), Vec::<String>::new(), "{}", err(&o));
    assert_eq!(files(dir.path()), before);

    // what is printed must arrive, too
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let o = ld3sh(dir.path(), cache.path()).args(["-e", "print(1); 2"]).stdout(full()).output().unwrap();
    assert_eq!(faults(&o, 1, &["cannot write to standard output", "No space left"]), Vec::<String>::new());
    let o = ld3sh(dir.path(), cache.path()).args(["-e", "1 +"]).stderr(full()).output().unwrap();
    assert_eq!(o.status.code(), Some(1));
}

#[test]
fn ctrl_c_wherever_it_comes() {
    let cases = of(
        "Ctrl-C",
        vec![
            case(
                "let net = denoiser::load(\"fashion28\");
                 let x = noise([4096, 1, 28, 28]);
                 print(\"go\");
                 sample(net, solver::unipc(), schedule::edm(net.noise, 100), x).save(\"x.npy\");",
                &["stopped by Ctrl-C", "case.rhai:4:"],
            ),
            case("print(\"go\"); let i = 0; while true { i += 1; }", &["stopped by Ctrl-C", "case.rhai:1:"]),
            case(
                "let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, |x, s, cond| x * 0.5);
                 print(\"go\");
                 loop { sample(net, solver::euler(), schedule::edm(net.noise, 50), noise([2, 1, 4, 4])); }",
                &["stopped by Ctrl-C"],
            ),
            case(
                &format!(
                    "{PAIRS}print(\"go\"); ld3::train(net, solver::euler(), p, #{{ nfe: 5, phase2: 100_000, patience: 100_000 }});"
                ),
                &["stopped by Ctrl-C", "case.rhai:4:"],
            ),
        ],
    );
    for (kind, script, words) in cases {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("case.rhai"), &script).unwrap();
        let before = files(dir.path());
        let mut child = ld3sh(dir.path(), cache.path()).arg("case.rhai").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "go");
        std::thread::sleep(std::time::Duration::from_millis(100));
        kill(&child, "-INT");
        let o = child.wait_with_output().unwrap();
        assert_eq!(faults(&o, 130, words), Vec::<String>::new(), "[{kind}] {script}\n{}", err(&o));
        assert_eq!(files(dir.path()), before, "{script}");
    }
}
