//! The experiments go on where they stopped, and draw what they were asked for.
use crate::process::{err, files, ld3sh, out};
use std::path::Path;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
const NETWORK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/edm/ddpmpp_edm.weights.safetensors");

#[track_caller]
fn run(dir: &Path, more: &[&str]) -> String {
    let mut c = ld3sh(dir, &dir.join("cache"));
    c.args(["--quiet", &format!("{SCRIPTS}/cifar10_ipndm.rhai"), "--set", &format!("model={NETWORK}")]);
    for set in ["loss=l2", "nfe=2", "pairs=1", "epochs=[0,1]", "fresh=1"].iter().chain(more) {
        c.args(["--set", set]);
    }
    let o = c.output().unwrap();
    assert_eq!(o.status.code(), Some(0), "{}", err(&o));
    out(&o)
}

#[test]
fn a_finished_student_is_not_learned_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("out").join(name);
    let first = run(dir.path(), &[]);
    assert!(first.contains("ld3") && first.contains("logsnr") && !at("cifar10_ipndm-2-samples").exists(), "{first}");
    for name in ["cifar10_ipndm-2.json", "cifar10_ipndm-2.csv", "cifar10_ipndm-2.png"] {
        assert!(at(name).exists(), "{name}");
    }
    let schedule = std::fs::read_to_string(at("cifar10_ipndm-2.json")).unwrap();
    let schedule: serde_json::Value = serde_json::from_str(&schedule).unwrap();
    assert_eq!(schedule["notes"]["options"]["loss"], "l2");
    assert!(
        schedule["notes"]["options"].get("distance").is_none(),
        "what was computed from the options is not recorded"
    );

    // a mark in what was kept comes back, so it was not made anew
    let kept = at("cifar10_ipndm-2-run.json");
    let mut run_json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    run_json["value"]["iterations"] = 4711.into();
    std::fs::write(&kept, run_json.to_string()).unwrap();
    let again = run(dir.path(), &["samples=3"]);
    assert!(again.contains("4711 iterations") && again.contains("3 samples drawn now"), "{again}");
    let pictures = files(&at("cifar10_ipndm-2-samples"));
    assert_eq!(pictures.keys().filter(|p| p.extension().is_some_and(|e| e == "png")).count(), 3);
    assert!(run(dir.path(), &["samples=3"]).contains("0 samples drawn now"));
}

#[test]
fn other_settings_learn_anew() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &[]);
    let kept = dir.path().join("out/cifar10_ipndm-2-run.json");
    let first = std::fs::read_to_string(&kept).unwrap();
    run(dir.path(), &["valid_every=2"]);
    assert_ne!(std::fs::read_to_string(&kept).unwrap(), first);
}
