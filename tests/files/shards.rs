//! Work that is shared out: by `--shard` and by what schedulers say, the same bits as one process, joined by the last or by `ld3sh merge`,
//! on again after a kill, and parts that do not fit.
use crate::process::{err, files, kill, out};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn ld3sh(dir: &Path, args: &[&str]) -> Command {
    let mut c = crate::process::ld3sh(dir, &dir.join("cache"));
    for name in ["LD3SH_SHARD", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_STEP_ID", "SLURM_ARRAY_TASK_ID"] {
        c.env_remove(name);
    }
    c.args(["--quiet", "--threads", "1"]).args(args);
    c
}

#[track_caller]
fn run(dir: &Path, args: &[&str], code: i32) -> Output {
    let o = ld3sh(dir, args).output().unwrap();
    assert_eq!(o.status.code(), Some(code), "{args:?}\n{}{}", out(&o), err(&o));
    o
}

/// Statistics of 600 samples in three pieces, nine samples as an archive and five as pictures, teacher pairs, and a table of four cells.
const WORK: &str = r#"
import "cache" as cache; import "ld3" as ld3; import "measure" as measure;
let net = denoiser::load("fashion28");
let steps = schedule::edm(net.noise, 1);
let pairs = ld3::pairs(net, solver::ddim(), steps, #{ train: 5, valid: 4, seed: seed(), batch: 2 });
print(`pairs ${hash_of(#{ x: pairs.train.target, y: pairs.valid.target })}`);
generate(net, solver::ddim(), steps, 9, #{ out: out("all.npz"), seed: seed() });
generate(net, solver::ddim(), steps, 5, #{ out: out("all"), seed: seed() });
let s = measure::stats(net, solver::ddim(), steps, 600, #{ name: "features", seed: seed() });
if s == () { print("others are still to come"); } else { print(`stats ${hash_of(#{ x: s.mean, y: s.cov })}`); }
let list = [1, 2, 3, 4].map(|n| #{ n: n, who: "a" });
let t = cache::cells("squares", list, |l| #{ n: l.n, seed: seed() }, |l| #{ square: l.n * l.n }, #{});
print(`cells ${t.missing} ${t.values}`);
"#;

/// The work in a folder, by one process.
fn alone() -> (tempfile::TempDir, String) {
    let d = tempfile::tempdir().unwrap();
    std::fs::write(d.path().join("work.rhai"), WORK).unwrap();
    let o = out(&run(d.path(), &["work.rhai", "--out", "one"], 0));
    assert!(o.contains("stats ") && o.contains("cells 0"), "{o}");
    (d, o)
}

/// What a folder of samples, pieces and cells holds, without records and what one process alone has.
fn kept(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let all = files(dir).into_iter().map(|(p, b)| (p.strip_prefix(dir).unwrap().display().to_string(), b));
    all.filter(|(p, _)| !p.ends_with(".jsonl") && !p.ends_with("-cells.csv") && p != "features.npz").collect()
}

#[test]
fn shards_give_the_bits_of_one_process_and_the_last_one_joins_them() {
    let (d, whole) = alone();
    // the second pieces are the others': the first shard waits for nobody
    let first = out(&run(d.path(), &["work.rhai", "--out", "two", "--shard", "1/2"], 0));
    assert!(first.contains("others are still to come") && first.contains("cells 2"), "{first}");
    // as srun starts the second of two tasks
    let mut second = ld3sh(d.path(), &["work.rhai", "--out", "two", "--shard", "auto"]);
    let second =
        second.envs([("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_PROCID", "1")]).output().unwrap();
    assert_eq!(out(&second), whole, "{}", err(&second));
    assert_eq!(kept(&d.path().join("two")), kept(&d.path().join("one")));
    // run again, a shard finds everything done, however many shards there are now; LD3SH_SHARD is as good
    let again = ld3sh(d.path(), &["work.rhai", "--out", "two"]).env("LD3SH_SHARD", "3/3").output().unwrap();
    assert_eq!(out(&again), whole, "{}", err(&again));

    let runs = out(&run(d.path(), &["runs", "two"], 0));
    for shard in ["1/2", "2/2", "3/3"] {
        assert!(runs.contains(shard), "{runs}");
    }
    run(d.path(), &["report", "one", "two"], 0);
    assert!(std::fs::read_to_string(d.path().join("report.html")).unwrap().contains("square a"));
}

#[test]
fn merge_joins_what_shards_wrote_in_folders_of_their_own() {
    let (d, _) = alone();
    for i in ["1", "2", "3"] {
        run(d.path(), &["work.rhai", "--out", &format!("part{i}"), "--shard", &format!("{i}/3")], 0);
    }
    let missing = err(&run(d.path(), &["merge", "part1", "part3", "--into", "early"], 1));
    for says in
        ["lacks shard 2/3 (samples 3 to 5)", "lacks samples 1 to 2", "lacks pieces 1 of 3", "lacks cells 2 of 4"]
    {
        assert!(missing.contains(says), "`{says}` is not in\n{missing}");
    }
    let said = out(&run(d.path(), &["merge", "part1", "part2", "part3", "--into", "all"], 0));
    assert!(said.contains("statistics of 600 samples") && said.contains("squares-cells.csv: 4 cells"), "{said}");
    let all = kept(&d.path().join("all"));
    for (name, bytes) in kept(&d.path().join("one")) {
        let found = all.iter().find(|(n, _)| *n == name);
        assert!(found.is_some_and(|(_, b)| *b == bytes), "{name} differs, or is not there");
    }
    let table = std::fs::read_to_string(d.path().join("all/squares-cells.csv")).unwrap();
    assert_eq!(table, "n,who,square\n1,a,1\n2,a,4\n3,a,9\n4,a,16\n");
    // the statistics are those of one process
    run(d.path(), &["merge", "one"], 0);
    let of = |folder: &str| std::fs::read(d.path().join(folder).join("features.npz")).unwrap();
    assert_eq!(of("one"), of("all"));
    // once more changes nothing
    run(d.path(), &["merge", "part1", "part2", "part3", "--into", "all"], 0);
    assert_eq!(of("one"), of("all"));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let d = tempfile::tempdir().unwrap();
    std::fs::write(d.path().join("work.rhai"), WORK).unwrap();
    run(d.path(), &["work.rhai", "--out", "a", "--shard", "1/2"], 0);
    run(d.path(), &["work.rhai", "--out", "b", "--shard", "2/2", "--seed", "1"], 0);
    let other = err(&run(d.path(), &["merge", "a", "b"], 1));
    assert!(other.contains("are of different runs") && !d.path().join("merged").exists(), "{other}");
    // a shard with another seed into the folder of the first
    let o = run(d.path(), &["work.rhai", "--out", "a", "--shard", "2/2", "--seed", "1"], 1);
    assert!(err(&o).contains("differs in seed"), "{}", err(&o));

    // a damaged piece
    run(d.path(), &["work.rhai", "--out", "e", "--shard", "1/2"], 0);
    run(d.path(), &["work.rhai", "--out", "c", "--shard", "2/2"], 0);
    let piece = d.path().join("c/features.pieces/000001.state");
    let mut bytes = std::fs::read(&piece).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&piece, &bytes).unwrap();
    let e = err(&run(d.path(), &["merge", "e", "c", "--into", "d"], 1));
    assert!(e.contains("000001.state") && e.contains("hash"), "{e}");
    // its shard makes it anew
    let o = run(d.path(), &["work.rhai", "--out", "c", "--shard", "2/2"], 0);
    assert!(err(&o).contains("is made anew"), "{}", err(&o));
    run(d.path(), &["merge", "e", "c", "--into", "d"], 0);

    for (args, says) in [
        (&["work.rhai", "--shard", "auto"][..], "no scheduler says"),
        (&["work.rhai", "--shard", "0/2"], "there is no shard 0/2"),
    ] {
        assert!(err(&run(d.path(), args, 2)).contains(says), "{args:?}");
    }
    assert!(err(&run(d.path(), &["merge", "nowhere"], 1)).contains("there is no folder `nowhere`"));
    // copies that do not know of each other are told so, once
    let told = |rank: &str| {
        let mut c = ld3sh(d.path(), &["-e", "shard().count"]);
        let o = c.envs([("PMI_RANK", rank), ("PMI_SIZE", "2")]).env_remove("PMIX_RANK").output().unwrap();
        (out(&o), err(&o))
    };
    if !cfg!(feature = "mpi") {
        assert!(told("0").1.contains("mpirun started 2 processes, and each does all of the work"));
        assert_eq!(told("1"), ("1\n".into(), String::new()));
    }
}

#[test]
fn a_table_goes_on_after_a_kill() {
    let d = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("scripts/fashion_table2.rhai").display().to_string();
    let small = [
        "samples=12",
        "replicates=2",
        "pairs=1",
        "epochs=[0,1]",
        "nfes=[3]",
        "solvers=[ipndm]",
        "gits_samples=2",
        "points=9",
        "methods=[edm,gits,logsnr,ld3]",
    ];
    let args = |out: &str| {
        let mut all = vec![script.clone(), "--out".into(), out.into()];
        all.extend(small.iter().flat_map(|s| ["--set".to_string(), s.to_string()]));
        all
    };
    let start = |out: &str| {
        let all = args(out);
        ld3sh(d.path(), &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut child = start("killed").spawn().unwrap();
    let (begin, first) = (Instant::now(), d.path().join("killed/table2-ipndm-3-edm.json"));
    while !first.exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no cell came");
        std::thread::sleep(Duration::from_millis(2));
    }
    kill(&child, "-KILL");
    child.wait().unwrap();
    assert!(!d.path().join("killed/fashion_table2.csv").exists());
    let before = std::fs::metadata(&first).unwrap().modified().unwrap();
    let o = start("killed").output().unwrap();
    assert!(o.status.success(), "{}", err(&o));
    assert!(start("whole").output().unwrap().status.success());
    let table = |out: &str| std::fs::read_to_string(d.path().join(out).join("fashion_table2.csv")).unwrap();
    assert_eq!(table("killed"), table("whole"));
    assert_eq!(std::fs::metadata(&first).unwrap().modified().unwrap(), before, "a finished cell was made again");
    let runs = out(&run(d.path(), &["runs", "killed", "whole"], 0));
    assert!(runs.contains("value ipndm ld3") || runs.contains("value edm ipndm"), "{runs}");
}
