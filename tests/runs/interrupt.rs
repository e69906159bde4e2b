//! An interrupted LD3 run goes on from its checkpoint and ends with the same bits as one that was never interrupted.
use crate::process::{err, faults, files, kill, ld3sh, out};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::time::{Duration, Instant};

/// LD3 on a mixture of Gaussians: every part of the state matters (both sets of noises move, patience runs out, rates decay).
/// Prints the iterations that this process made, and all.
const SCRIPT: &str = r#"
import "ld3" as ld3;
let every = param("every", 1, "iterations between checkpoints");
let net = denoiser::mixture(#{ means: [[[[-1.0, 0.5], [0.2, 1.0]]], [[[1.0, 0.0], [-0.6, -1.0]]]], stds: [0.2, 0.3] });
let pairs = ld3::pairs(net, #{ train: 16, valid: 12, seed: 3 });
let here = 0;
let run = ld3::train(net, solver::unipc(#{ order: 3 }), pairs, #{
    nfe: 4, phase1: 1, phase2: 4, patience: 2, valid_batch: 4, gamma: 0.05, seed: 3,
    checkpoint: out("run.state"), checkpoint_every: every, callback: |state| { here += 1; },
});
run.schedule.save(out("schedule.json"));
print(`${here} of ${run.iterations}`);
"#;

struct Bench {
    dir: tempfile::TempDir,
    cache: tempfile::TempDir,
    every: usize,
}

impl Bench {
    fn new(every: usize) -> Self {
        let bench = Bench { dir: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap(), every };
        std::fs::write(bench.dir.path().join("run.rhai"), SCRIPT).unwrap();
        bench
    }
    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn start(&self, name: &str) -> Child {
        let mut c = ld3sh(self.dir.path(), self.cache.path());
        c.args(["run.rhai", "--out", name, "--set", &format!("every={}", self.every)]).spawn().unwrap()
    }
    fn checkpoint(&self, name: &str) -> PathBuf {
        self.folder(name).join("run.state")
    }
    /// Waits until the run has a checkpoint; false when it ended before.
    fn started(&self, name: &str, child: &mut Child) -> bool {
        loop {
            if self.checkpoint(name).exists() {
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    /// The hash of the schedule that a run ended with, and the iterations of its last process, and all.
    #[track_caller]
    fn ended(&self, name: &str, o: &Output) -> (String, usize, usize) {
        assert_eq!(o.status.code(), Some(0), "{}", err(o));
        assert!(!out(o).contains("another run"), "{}", out(o));
        assert!(!self.checkpoint(name).exists(), "a finished run keeps no checkpoint");
        let text = out(o);
        let (here, all) = text.trim().rsplit_once('\n').map_or(text.trim(), |l| l.1).split_once(" of ").unwrap();
        (sha(&self.folder(name)), here.parse().unwrap(), all.parse().unwrap())
    }
}

fn sha(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("schedule.json")).unwrap();
    let v: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        v["losses"]["valid"].as_f64().unwrap() < v["losses"]["heuristics"]["edm"].as_f64().unwrap(),
        "nothing was learned: {text}"
    );
    v["sha256"].as_str().unwrap().to_string()
}

/// Kills runs at random moments until `kills` of them were at work, and compares every one that ends.
fn killed(kills: usize, every: usize, seed: u64) {
    let bench = Bench::new(every);
    let whole = bench.start("whole").wait_with_output().unwrap();
    let (expected, here, all) = bench.ended("whole", &whole);
    assert!(here == all && all >= 20);
    // the time from the first checkpoint to the end, with pairs in the cache
    let mut again = bench.start("again");
    assert!(bench.started("again", &mut again));
    let start = Instant::now();
    let o = again.wait_with_output().unwrap();
    let time = start.elapsed();
    assert_eq!(bench.ended("again", &o), (expected.clone(), all, all), "two whole runs differ");

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut done, mut run, mut resumed) = (0, 0, 0);
    while done < kills {
        let name = format!("killed-{run}");
        let had = bench.checkpoint(&name).exists();
        let mut child = bench.start(&name);
        // from before the first checkpoint to well into the run
        let part = f64::from(rng.next_u32()) / f64::from(u32::MAX);
        if part > 0.1 {
            bench.started(&name, &mut child);
            std::thread::sleep(time.mul_f64(0.5 * (part - 0.1)));
        } else {
            std::thread::sleep(time.mul_f64(part));
        }
        if child.try_wait().unwrap().is_none() {
            kill(&child, "-KILL");
            child.wait().unwrap();
            done += 1;
            resumed += usize::from(had);
        } else {
            let o = child.wait_with_output().unwrap();
            assert_eq!(bench.ended(&name, &o).0, expected, "run {run} (seed {seed}), after {done} kills");
            run += 1;
        }
    }
    let name = format!("killed-{run}");
    let had = bench.checkpoint(&name).exists();
    let o = bench.start(&name).wait_with_output().unwrap();
    let (hash, here, all) = bench.ended(&name, &o);
    assert_eq!(hash, expected, "run {run} (seed {seed}), after {done} kills");
    assert_eq!(had, here < all, "a run with a checkpoint goes on, one without starts anew");
    assert!(kills < 3 || resumed + usize::from(had) > 0, "no kill came after a checkpoint");
}

#[test]
fn kill_at_three_random_moments() {
    killed(3, 1, 1);
}

#[test]
fn kill_with_checkpoints_far_apart() {
    killed(1, 3, 2);
}

#[test]
#[ignore = "a minute; continuous integration runs it"]
fn kill_at_twenty_random_moments() {
    killed(20, 1, 3);
    killed(10, 5, 4);
}

#[test]
fn ctrl_c_keeps_the_checkpoint_and_the_run_goes_on() {
    let bench = Bench::new(1);
    let whole = bench.start("whole").wait_with_output().unwrap();
    let expected = bench.ended("whole", &whole).0;
    let mut child = bench.start("stopped");
    assert!(bench.started("stopped", &mut child), "the run ended before it could be stopped");
    kill(&child, "-INT");
    let o = child.wait_with_output().unwrap();
    assert_eq!(faults(&o, 130, &["stopped by Ctrl-C"]), Vec::<String>::new(), "{}", err(&o));
    let left: Vec<PathBuf> = files(&bench.folder("stopped")).into_keys().collect();
    let record = bench.folder("stopped").join("run.jsonl");
    assert_eq!(left, [record, bench.checkpoint("stopped")], "only the run's record and the checkpoint are there");
    let o = bench.start("stopped").wait_with_output().unwrap();
    let (hash, here, all) = bench.ended("stopped", &o);
    assert!(hash == expected && here < all, "{hash} {expected} {here} of {all}");
}

#[test]
fn checkpoints_that_do_not_belong_are_not_taken_up() {
    let bench = Bench::new(1);
    let whole = bench.start("whole").wait_with_output().unwrap();
    let (_, _, all) = bench.ended("whole", &whole);
    // a checkpoint that is cut off is an error, not a start from nothing
    let stop = |name: &str| {
        let mut child = bench.start(name);
        assert!(bench.started(name, &mut child));
        kill(&child, "-KILL");
        child.wait().unwrap();
    };
    stop("cut");
    let text = std::fs::read(bench.checkpoint("cut")).unwrap();
    std::fs::write(bench.checkpoint("cut"), &text[..text.len() / 2]).unwrap();
    let o = bench.start("cut").wait_with_output().unwrap();
    assert_eq!(faults(&o, 1, &["run.state", "not a complete state file"]), Vec::<String>::new(), "{}", err(&o));
    // one of another method is another run's
    stop("other");
    let method = concat!(include_str!("../../stdlib/ld3.rhai"), "\n// changed\n");
    std::fs::write(bench.dir.path().join("ld3.rhai"), method).unwrap();
    let text = std::fs::read(bench.checkpoint("other")).unwrap();
    let o = bench.start("other").wait_with_output().unwrap();
    assert_eq!(faults(&o, 1, &["run.state", "checkpoint of another run"]), Vec::<String>::new(), "{}", err(&o));
    assert!(std::fs::read(bench.checkpoint("other")).unwrap() == text, "it is left as it is");
    // once it is gone the run starts
    std::fs::remove_file(bench.checkpoint("other")).unwrap();
    let o = bench.start("other").wait_with_output().unwrap();
    assert!(out(&o).contains(&format!("{all} of {all}")), "{}{}", out(&o), err(&o));
}
