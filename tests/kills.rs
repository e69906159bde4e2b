//! Runs that are killed at random moments: the next one goes on with the same bits, and nothing stays behind.
#![cfg(unix)]
#[path = "common/process.rs"]
mod process;
use process::{err, files, ld3sh};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::time::{Duration, Instant};

/// Bulk sampling, states that replace each other, tables cell by cell, and a cache.
const SCRIPT: &str = r#"
import "cache" as cache;
let net = denoiser::gaussian(#{ mean: 0.1, std: 0.5, shape: [1, 8, 8] });
let steps = schedule::edm(net.noise, 3);
for i in 0..30 {
    state::save(out("run.state"), #{ i: i, x: noise([40000], #{ seed: i }) }, #{ owner: "kills" });
    cache::get(`piece-${i}`, #{ i: i }, || noise([2000], #{ seed: i }));
    cache::cell(`cell-${i}`, #{ i: i }, || i * 2);
}
generate(net, solver::euler(), steps, 60, #{ out: out("many"), seed: 3, batch: 4 });
generate(net, solver::euler(), steps, 60, #{ out: out("many.npz"), seed: 3, batch: 4 });
print("done");
"#;

#[test]
fn killed_runs_are_gone_on_with_and_leave_nothing() {
    let kills = std::env::var("LD3SH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let run = |dir: &tempfile::TempDir| {
        let mut c = ld3sh(dir.path(), &dir.path().join("cache"));
        c.args(["--quiet", "--threads", "1", "s.rhai"]);
        c
    };
    let folder = || {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s.rhai"), SCRIPT).unwrap();
        dir
    };
    let whole = folder();
    let start = Instant::now();
    let o = run(&whole).output().unwrap();
    assert!(o.status.success(), "{}", err(&o));
    let long = start.elapsed().as_micros() as u64;

    let (broken, mut random) = (folder(), ChaCha8Rng::seed_from_u64(1));
    for _ in 0..kills {
        let mut child = run(&broken).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.next_u64() % long));
        // one that is done already was not killed
        let _ = child.kill();
        child.wait().unwrap();
    }
    let o = run(&broken).output().unwrap();
    assert!(o.status.success(), "{}", err(&o));
    let named = |dir: &tempfile::TempDir| -> std::collections::BTreeMap<_, _> {
        files(dir.path()).into_iter().map(|(p, b)| (p.strip_prefix(dir.path()).unwrap().to_path_buf(), b)).collect()
    };
    let (a, b) = (named(&whole), named(&broken));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, bytes) in a {
        assert!(b[&path] == bytes, "{}", path.display());
    }
}
