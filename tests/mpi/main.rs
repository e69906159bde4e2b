//! Ranks of MPI on this machine: `cargo test --release --features mpi --test mpi`, where `mpirun` is. The same bits for any number of ranks, one
//! message where a rank fails, and nothing lost where one is killed.
#[path = "../common/process.rs"]
mod process;

use process::{err, files, out};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Teacher pairs, a training of LD3, statistics, samples and cells: of a closed form where many evaluations are needed, since it is not the network
/// that is looked at here.
const WORK: &str = r#"
import "cache" as cache; import "ld3" as ld3; import "measure" as measure;
let net = denoiser::gaussian(#{ mean: 0.2 * ones([1, 28, 28]), std: 0.5 });
let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 6), #{ train: 6, valid: 5, batch: 4 });
print(`pairs ${hash_of(#{ x: pairs.train.target, y: pairs.valid.target })}`);
let run = ld3::train(net, solver::ipndm(), pairs, #{ nfe: 3, batch: 4, phase1: 1, phase2: 2, pairwise: true, checkpoint: out("ld3.state") });
print(`training ${hash_of(#{ xi: run.xi, xi_c: run.xi_c, loss: run.loss, history: run.history })} ${run.iterations}`);
let steps = schedule::edm(net.noise, 1);
let s = measure::stats(net, solver::ddim(), steps, 300, #{});
print(`statistics ${hash_of(#{ mean: s.mean, cov: s.cov })}`);
generate(net, solver::ddim(), steps, 5, #{ out: out("pictures") });
let drawn = denoiser::load("fashion28");
let all = generate(drawn, solver::ddim(), schedule::edm(drawn.noise, 1), 9, #{ out: out("all.npz") });
print(`samples ${all.complete}`);
let t = cache::cells("squares", [1, 2, 3].map(|n| #{ n: n }), |l| #{ n: l.n }, |l| #{ square: l.n * l.n }, #{});
print(`cells ${t.values}`);
"#;

/// `mpirun` of so many ranks of ld3sh; plain ld3sh for 0.
fn ranks(dir: &Path, n: usize, args: &[&str]) -> Command {
    let exe = env!("CARGO_BIN_EXE_ld3sh");
    let mut c = Command::new(if n == 0 { exe } else { "mpirun" });
    if n > 0 {
        // Open MPI wants to be told that more ranks than cores, and root, are meant; MPICH takes both as they come
        if out(&Command::new("mpirun").arg("--version").output().unwrap()).contains("Open MPI") {
            c.args(["--oversubscribe", "--allow-run-as-root"]);
        }
        c.args(["-n", &n.to_string(), exe]);
    }
    c.args(["--quiet", "--threads", "1"]).args(args);
    c.current_dir(dir).env("LD3SH_CACHE", dir.join(format!("cache{n}"))).env_remove("LD3SH_SHARD");
    c
}

#[track_caller]
fn ran(o: Output) -> String {
    assert!(o.status.success(), "{}\n{}{}", o.status, out(&o), err(&o));
    out(&o)
}

fn workplace() -> tempfile::TempDir {
    assert!(
        Command::new("mpirun").arg("--version").output().is_ok(),
        "these tests need mpirun (openmpi-bin, or mpich)"
    );
    let d = tempfile::tempdir().unwrap();
    std::fs::write(d.path().join("work.rhai"), WORK).unwrap();
    d
}

#[test]
fn any_number_of_ranks_gives_the_same_bits() {
    let d = workplace();
    let one = ran(ranks(d.path(), 0, &["work.rhai", "--out", "0"]).output().unwrap());
    assert!(one.contains("training ") && one.contains("samples true"), "{one}");
    let kept = |n: usize| -> Vec<_> {
        let folder = d.path().join(n.to_string());
        let all = files(&folder).into_iter().map(|(p, b)| (p.strip_prefix(&folder).unwrap().to_path_buf(), b));
        all.filter(|(p, _)| p.extension().is_some_and(|e| e != "jsonl")).collect()
    };
    for n in [1, 2, 4] {
        let several = ran(ranks(d.path(), n, &["work.rhai", "--out", &n.to_string()]).output().unwrap());
        assert_eq!(several, one, "{n} ranks");
        assert_eq!(kept(n), kept(0), "{n} ranks");
        // one record, by the first rank
        let record = std::fs::read_to_string(d.path().join(n.to_string()).join("run.jsonl")).unwrap();
        assert_eq!(record.matches("\"event\":\"start\"").count(), 1, "{record}");
    }
}

#[test]
fn a_failure_ends_all_ranks_with_one_message() {
    let d = workplace();
    for (code, says) in [
        ("let x = ones([2]) + ones([3]);", "error:"),
        // the others wait for it in a message
        ("if world().rank == 2 { ones([2]) + ones([3]); } gather(1);", "rank 2 of 3 ended the run"),
    ] {
        let began = Instant::now();
        let o = ranks(d.path(), 3, &["-e", code]).output().unwrap();
        assert!(!o.status.success() && began.elapsed() < Duration::from_secs(60), "{}", o.status);
        let text = err(&o);
        assert!(text.contains(says) && text.matches("error:").count() == 1, "{text}");
    }
}

#[test]
fn a_killed_rank_loses_nothing() {
    let d = workplace();
    let whole = ran(ranks(d.path(), 2, &["work.rhai", "--out", "whole"]).output().unwrap());
    // a rank that is gone in the middle of the training
    let text = WORK.replace("pairwise: true,", "pairwise: true, callback: |s| { if s.iteration == 3 && world().rank == 1 && !file_exists(\"killed\") { json::save(\"killed\", 1); sleep(600); } },");
    std::fs::write(d.path().join("work.rhai"), text).unwrap();
    let mut child = ranks(d.path(), 2, &["work.rhai", "--out", "hit", "--allow-write=killed"]).spawn().unwrap();
    let began = Instant::now();
    while !d.path().join("killed").exists() {
        assert!(began.elapsed() < Duration::from_secs(300), "the training did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    // the rank, a child of mpirun's (by its script's folder), not mpirun
    let listed = Command::new("ps").args(["-eo", "pid,args"]).output().unwrap();
    let victim = out(&listed).lines().rfind(|l| l.contains("--out hit") && !l.contains("mpirun")).map(str::to_string);
    let pid = victim.unwrap().split_whitespace().next().unwrap().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    assert!(!child.wait().unwrap().success());
    assert!(d.path().join("hit/ld3.state").exists(), "no checkpoint");
    let again = ran(ranks(d.path(), 4, &["work.rhai", "--out", "hit", "--allow-write=killed"]).output().unwrap());
    assert_eq!(again, whole);
}
