//! Runs that are killed at random moments: the next one goes on with the same bits, and nothing stays behind.
#![cfg(unix)]
#[path = "common/http.rs"]
mod http;
#[path = "common/process.rs"]
mod process;
use process::{err, files, ld3sh};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is killed: a name, a script, what of its files may differ from run to run.
const RUNS: [(&str, &str, &str); 4] = [
    ("sampling, states, tables and a cache", SAMPLING, ""),
    ("training", TRAINING, ""),
    ("a sweep", SWEEP, ""),
    // the record of a download says when it came
    ("a download", DOWNLOAD, "edm-cifar10-32x32-uncond-vp.pkl.json"),
];

const SAMPLING: &str = r#"
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
"#;

const TRAINING: &str = r#"
import "ld3" as ld3;
let net = denoiser::mixture(#{ means: [[-1.0], [1.0]], stds: 0.2 });
let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 6, valid: 4 });
ld3::train(net, solver::unipc(), pairs, #{ nfe: 4, checkpoint: out("run.state"), out: out("steps.json") });
"#;

const SWEEP: &str = r#"
import "ld3" as ld3;
import "experiment" as experiment;
let net = denoiser::mixture(#{ means: [[-1.0], [1.0]], stds: 0.2 });
let setup = #{ net: net, pairs: ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 20), #{ train: 4, valid: 4 }) };
for nfe in 3..6 {
    for s in [solver::unipc(), solver::ipndm(), solver::ddim()] {
        experiment::learned(setup, `${s.name}-${nfe}`, s, nfe, #{ epochs: [1, 1] }, #{});
    }
}
"#;

const DOWNLOAD: &str = r#"
let net = denoiser::load("edm-cifar10-32x32-uncond-vp");
generate(net, solver::euler(), schedule::edm(net.noise, 2), 2, #{ out: out("two") });
"#;

#[test]
fn killed_runs_are_gone_on_with_and_leave_nothing() {
    let kills = std::env::var("LD3SH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let network =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/edm/ddpmpp_edm.weights.safetensors"));
    let network = network.unwrap();
    let server = http::Server::start(move |seen, _| http::file(seen, &network, "\"a\"").slow(200_000, 10));
    for (what, script, differs) in RUNS {
        let run = |dir: &tempfile::TempDir| {
            let mut c = ld3sh(dir.path(), &dir.path().join("cache"));
            for v in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "LD3SH_OFFLINE"] {
                c.env_remove(v).env_remove(v.to_lowercase());
            }
            c.env("LD3SH_MIRROR", server.url()).args(["--quiet", "--threads", "1", "s.rhai"]);
            c
        };
        let folder = || {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("s.rhai"), script).unwrap();
            dir
        };
        let ends = |dir: &tempfile::TempDir| {
            let o = run(dir).output().unwrap();
            assert!(o.status.success(), "{what}: {}", err(&o));
        };
        let whole = folder();
        let start = Instant::now();
        ends(&whole);
        let long = start.elapsed().as_micros() as u64;

        let same = |broken: &tempfile::TempDir| {
            ends(broken);
            let (a, b) = (named(&whole), named(broken));
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
            for (path, bytes) in a {
                let same = b[&path] == bytes || path.file_name().is_some_and(|n| n == differs);
                assert!(same, "{what}: {}", path.display());
            }
        };
        let (mut broken, mut random, mut ended) = (folder(), ChaCha8Rng::seed_from_u64(1), 0);
        let mut killed = 0;
        while killed < kills {
            let mut child = run(&broken).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.next_u64() % long));
            let _ = child.kill();
            if child.wait().unwrap().code().is_none() {
                killed += 1;
            } else {
                // it was done before: judged, and begun anew
                same(&broken);
                (broken, ended) = (folder(), ended + 1);
            }
        }
        same(&broken);
        println!("{what}: {kills} kills, {} runs", ended + 1);
    }
}

/// Every file below a folder, by its path from there.
fn named(dir: &tempfile::TempDir) -> BTreeMap<PathBuf, Vec<u8>> {
    files(dir.path())
        .into_iter()
        .map(|(p, b)| (p.strip_prefix(dir.path()).unwrap().to_path_buf(), undated(b)))
        .collect()
}

/// A file's bytes without the dates that schedules carry, "date":"2026-01-01T00:00:00Z".
fn undated(mut bytes: Vec<u8>) -> Vec<u8> {
    let (key, long) = (b"\"date\":\"", 20);
    let places: Vec<_> = bytes.windows(key.len()).enumerate().filter(|(_, w)| w == key).map(|(i, _)| i).collect();
    for at in places.into_iter().map(|i| i + key.len()) {
        bytes[at..at + long].fill(b'0');
    }
    bytes
}
