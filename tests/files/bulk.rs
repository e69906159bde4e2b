//! `generate`: folders and archives, the same bits for any batch and shard, resuming, and what it refuses.
use candle_core::{DType, Tensor};
use ld3sh::files::image::Image;
use ld3sh::files::npy::read_npz;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn ld3sh(dir: &Path, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
    c.current_dir(dir).args(args).stdin(Stdio::null()).env_remove("LD3SH_PATH").env("LD3SH_CACHE", dir.join("cache"));
    c
}

/// A call of `generate` on the built-in model with two evaluations; `changes` stand in its options.
fn code(n: usize, options: &str) -> String {
    format!(
        "let net = denoiser::load(\"fashion28\"); \
         let r = generate(net, solver::unipc(), schedule::logsnr(net.noise, 2), {n}, #{{ {options} }}); \
         print(`${{r.samples}} ${{r.made}} ${{r.complete}} ${{r.out}}`);"
    )
}

#[track_caller]
fn run(dir: &Path, args: &[&str], code: i32) -> Output {
    let o = ld3sh(dir, args).output().unwrap();
    let err = String::from_utf8_lossy(&o.stderr);
    assert_eq!(o.status.code(), Some(code), "{args:?}\n{}{err}", String::from_utf8_lossy(&o.stdout));
    assert!(!err.contains("panicked"), "{err}");
    o
}

#[track_caller]
fn ok(dir: &Path, n: usize, options: &str) -> String {
    let o = run(dir, &["--quiet", "-e", &code(n, options)], 0);
    String::from_utf8(o.stdout).unwrap().trim().to_string()
}

#[track_caller]
fn fails(dir: &Path, code: &str, wanted: &[&str]) {
    let err = String::from_utf8(run(dir, &["--quiet", "-e", code], 1).stderr).unwrap();
    for w in wanted {
        assert!(err.contains(w), "`{w}` is not in\n{err}");
    }
}

/// The names and contents of a folder's files, except the manifest.
fn pngs(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = vec![];
    let mut todo = vec![dir.to_path_buf()];
    while let Some(d) = todo.pop() {
        for e in std::fs::read_dir(d).unwrap() {
            let path = e.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "png") {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                out.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    out.sort();
    out
}

fn array(path: &Path, name: &str) -> Tensor {
    read_npz(path).unwrap().into_iter().find(|(n, _)| n == name).unwrap().1
}

fn names(dir: &Path) -> Vec<String> {
    let mut v: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    v.sort();
    v
}

#[test]
fn batches_and_shards_give_the_same_files() {
    let d = tempfile::tempdir().unwrap();
    assert_eq!(ok(d.path(), 9, "out: \"a\", seed: 3, batch: 4"), "9 9 true a");
    ok(d.path(), 9, "out: \"b\", seed: 3, batch: 9");
    assert_eq!(ok(d.path(), 9, "out: \"c\", seed: 3, shard: \"2/2\""), "9 5 false c");
    let flag = run(d.path(), &["--quiet", "--shard", "1/2", "-e", &code(9, "out: \"c\", seed: 3")], 0);
    assert_eq!(String::from_utf8_lossy(&flag.stdout).trim(), "9 4 true c");
    ok(d.path(), 5, "out: \"d\", seed: 3, first: 4");
    let a = pngs(&d.path().join("a"));
    assert_eq!(a.len(), 9);
    assert_eq!(a[8].0, "000008.png");
    assert!(a == pngs(&d.path().join("b")) && a == pngs(&d.path().join("c")));
    assert!(a[4..] == pngs(&d.path().join("d")));
    ok(d.path(), 1, "out: \"e\", seed: 4");
    assert_ne!(a[0], pngs(&d.path().join("e"))[0]);

    ok(d.path(), 9, "out: \"a.npz\", seed: 3, batch: 2");
    ok(d.path(), 9, "out: \"b.npz\", seed: 3, batch: 64");
    for (shard, answer) in [
        ("3/3", "9 3 false c.shard-3-of-3.npz"),
        ("1/3", "9 3 false c.shard-1-of-3.npz"),
        ("1/3", "9 0 false c.shard-1-of-3.npz"),
        ("2/3", "9 3 true c.npz"),
        ("2/3", "9 0 true c.npz"),
    ] {
        assert_eq!(ok(d.path(), 9, &format!("out: \"c.npz\", seed: 3, shard: \"{shard}\"")), answer);
    }
    let bytes = |name: &str| std::fs::read(d.path().join(name)).unwrap();
    assert!(bytes("a.npz") == bytes("b.npz") && bytes("a.npz") == bytes("c.npz"));
    assert!(!names(d.path()).iter().any(|n| n.contains("shard") || n.contains("parts")), "{:?}", names(d.path()));

    // the archive holds the pictures, and the classes that `sample` would draw
    let x = array(&d.path().join("a.npz"), "arr_0");
    assert_eq!((x.dims(), x.dtype()), (&[9, 28, 28, 1][..], DType::U8));
    let flat = x.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let pictures: Vec<u8> = a.iter().flat_map(|(_, png)| Image::from_png(png).unwrap().data).collect();
    assert_eq!(flat, pictures);
    let labels = array(&d.path().join("a.npz"), "arr_1").to_vec1::<i64>().unwrap();
    assert!(labels.len() == 9 && labels.iter().any(|l| *l != labels[0]) && labels.iter().all(|l| (0..10).contains(l)));
}

#[test]
fn samples_are_those_of_sample() {
    let d = tempfile::tempdir().unwrap();
    ok(d.path(), 3, "out: \"a.npz\", seed: 5, first: 7");
    run(
        d.path(),
        &[
            "--quiet",
            "-e",
            "let net = denoiser::load(\"fashion28\"); \
             let x = sample(net, solver::unipc(), schedule::logsnr(net.noise, 2), 3, #{ seed: 5, first: 7 }); \
             save(\"x.npz\", #{ x: x })",
        ],
        0,
    );
    let x = array(&d.path().join("x.npz"), "x").permute((0, 2, 3, 1)).unwrap();
    let x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let wanted: Vec<u8> = x.iter().map(|v| (f64::from(*v) * 127.5 + 128.0).clamp(0.0, 255.0) as u8).collect();
    assert_eq!(array(&d.path().join("a.npz"), "arr_0").flatten_all().unwrap().to_vec1::<u8>().unwrap(), wanted);
}

#[test]
fn classes_follow_the_rule() {
    let d = tempfile::tempdir().unwrap();
    for (cond, labels) in [("\"cycle\"", vec![9, 0, 1]), ("4", vec![4, 4, 4])] {
        ok(d.path(), 3, &format!("out: \"c.npz\", first: 9, cond: {cond}, overwrite: true"));
        assert_eq!(array(&d.path().join("c.npz"), "arr_1").to_vec1::<i64>().unwrap(), labels);
    }
    ok(d.path(), 3, "out: \"n.npz\", cond: \"none\"");
    assert_eq!(read_npz(d.path().join("n.npz")).unwrap().len(), 1);
}

#[test]
fn folders_grow_and_fill_gaps() {
    let d = tempfile::tempdir().unwrap();
    let s = d.path().join("s");
    ok(d.path(), 4, "out: \"s\", first: 998, subfolders: true, batch: 3");
    assert_eq!(
        pngs(&s).iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
        ["000000/000998.png", "000000/000999.png", "001000/001000.png", "001000/001001.png"]
    );
    let before = pngs(&s);
    std::fs::remove_file(s.join("000000/000999.png")).unwrap();
    assert_eq!(ok(d.path(), 6, "out: \"s\", first: 998, subfolders: true"), "6 3 true s");
    let after = pngs(&s);
    assert_eq!(after.len(), 6);
    assert!(before[..] == after[..4]);
}

#[test]
fn files_of_another_run_are_refused() {
    let d = tempfile::tempdir().unwrap();
    ok(d.path(), 2, "out: \"s\"");
    ok(d.path(), 2, "out: \"s.npz\"");
    fails(d.path(), &code(2, "out: \"s\", seed: 1"), &["`s` is in the way", "differs in seed", "overwrite"]);
    fails(d.path(), &code(2, "out: \"s.npz\", cond: 3"), &["`s.npz` is in the way", "differs in cond"]);
    fails(d.path(), &code(3, "out: \"s.npz\""), &["differs in numbers"]);
    let before = pngs(&d.path().join("s"));
    assert_eq!(ok(d.path(), 1, "out: \"s\", seed: 1, overwrite: true"), "1 1 true s");
    let after = pngs(&d.path().join("s"));
    assert!(after.len() == 1 && after[0] != before[0]);
    assert_eq!(ok(d.path(), 3, "out: \"s.npz\", overwrite: true"), "3 3 true s.npz");

    // files that generate did not make
    std::fs::create_dir(d.path().join("p")).unwrap();
    std::fs::write(d.path().join("p/000000.png"), b"mine").unwrap();
    std::fs::write(d.path().join("m.npz"), b"mine").unwrap();
    for out in ["p", "m.npz"] {
        fails(d.path(), &code(1, &format!("out: \"{out}\"")), &["was not made by `generate`"]);
    }
    std::fs::write(d.path().join("p/generate.json"), b"{").unwrap();
    fails(d.path(), &code(1, "out: \"p\""), &["was not made by `generate`"]);
    assert_eq!(std::fs::read(d.path().join("p/000000.png")).unwrap(), b"mine");
    // a folder may hold other things
    std::fs::create_dir(d.path().join("q")).unwrap();
    std::fs::write(d.path().join("q/notes.txt"), b"mine").unwrap();
    ok(d.path(), 1, "out: \"q\"");
    fails(d.path(), &code(1, "out: \"q/notes.txt\""), &["q/notes.txt"]);
}

/// What the function reads may change, and a number that it reads decides what it does: neither its text nor a graph says what it is.
const OWN: &str = "let half = 0.5; \
                   let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\", shape: [1, 4, 4] }, |x, t, c| if x.sum().item() > 1e9 { x } else { x * half }); \
                   half += 0.0; \
                   let s = schedule::logsnr(net.noise, 2); ";

#[test]
fn a_function_of_the_scripts_own_needs_a_key_to_go_on() {
    let d = tempfile::tempdir().unwrap();
    let call = |options: &str| {
        format!("{OWN} let r = generate(net, solver::unipc(), s, 3, #{{ {options} }}); print(`${{r.made}}`);")
    };
    let answer = |options: &str| {
        let o = run(d.path(), &["--quiet", "-e", &call(options)], 0);
        String::from_utf8(o.stdout).unwrap().trim().to_string()
    };
    assert_eq!(answer("out: \"a\""), "3");
    fails(d.path(), &call("out: \"a\""), &["cannot be told", "key"]);
    assert_eq!(answer("out: \"a\", overwrite: true"), "3");
    fails(d.path(), &call("out: \"b\", shard: \"1/2\""), &["key"]);
    assert_eq!(answer("out: \"b\", key: \"one\""), "3");
    assert_eq!(answer("out: \"b\", key: \"one\""), "0");
    fails(d.path(), &call("out: \"b\", key: \"two\""), &["differs in key"]);
    assert_eq!(answer("out: \"b.npz\""), "3");
    fails(d.path(), &call("out: \"b.npz\""), &["cannot be told"]);
    assert_eq!(answer("out: \"b.npz\", overwrite: true"), "3");
}

#[test]
fn own_solvers_and_plans_generate_what_native_ones_do() {
    let d = tempfile::tempdir().unwrap();
    let code = format!(
        "{OWN} let o = |out| #{{ out: out, key: \"k\", seed: 1 }}; \
         generate(net, solver::euler(), s, 3, o.call(\"a.npz\")); \
         generate(net, solver::euler().plan(s), 3, o.call(\"b.npz\")); \
         let f = solver::from_fn(|s| s.x + (s.t_next - s.t) * s.net.predict_noise(s.x, s.t)); \
         generate(net, f, s, 3, o.call(\"c.npz\"));"
    );
    run(d.path(), &["--quiet", "-e", &code], 0);
    let of = |n: &str| array(&d.path().join(n), "arr_0").flatten_all().unwrap().to_vec1::<u8>().unwrap();
    assert_eq!(of("a.npz"), of("b.npz"));
    assert!(of("a.npz").iter().zip(of("c.npz")).all(|(a, b)| a.abs_diff(b) <= 1));
}

#[test]
fn wrong_options_are_named() {
    let d = tempfile::tempdir().unwrap();
    for (n, options, wanted) in [
        (1, "", "needs the option `out`"),
        (1, "out: \"\"", "names neither a folder"),
        (1, "out: \"a.png\"", "names neither a folder"),
        (0, "out: \"a\"", "must be from 1"),
        (1, "out: \"a\", batch: 0", "`batch` must be an integer ≥ 1, not 0"),
        (1, "out: \"a\", sede: 1", "did you mean `seed`?"),
        (1, "out: \"a\", first: -1", "`first` must be an integer ≥ 0, not -1"),
        (1, "out: \"a\", first: 9223372036854775807, shape: [65536, 65536, 1]", "cannot be stored"),
        (1, "out: \"a\", shape: [0, 1, 1]", "`shape` must be an array of integers ≥ 1, not [0, 1, 1]: [0] is int (0)"),
        (1, "out: \"a\", cond: 10", "class 10 does not exist"),
        (1, "out: \"a\", cond: \"unifrom\"", "did you mean `uniform`?"),
        (1, "out: \"a\", cond: 1.5", "`cond` must be an integer"),
        (1, "out: \"a\", shard: \"0/4\"", "shards count from 1"),
        (1, "out: \"a\", shard: \"5/4\"", "no shard 5/4"),
        (1, "out: \"a\", shard: 2", "`shard` must be a text"),
        (1, "out: \"a\", shape: [2, 28, 28]", "1 or 3 channels, not 2"),
        (1, "out: \"a\", shape: [28, 28]", "must be images [C, H, W]"),
        (1, "out: \"a.npz\", subfolders: true", "`subfolders` is for folders"),
    ] {
        fails(d.path(), &code(n, options), &[wanted]);
    }
    assert!(names(d.path()).is_empty(), "{:?}", names(d.path()));
    run(d.path(), &["--shard", "1", "-e", "1"], 2);
    run(d.path(), &["--shard", "3/2", "-e", "1"], 2);
    let o = run(d.path(), &["--shard", "2/3", "-e", "shard().index * 10 + shard().count"], 0);
    assert_eq!(o.stdout, b"23\n");
}

/// Starts a long run, lets `stop` end it when `there` says so, and returns how many files it left.
fn interrupted(dir: &Path, options: &str, there: impl Fn() -> usize, stop: &str) -> usize {
    let mut child = ld3sh(dir, &["--quiet", "-e", &code(240, options)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while there() == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was made");
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args([stop, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    if stop == "-INT" {
        assert_eq!(status.code(), Some(130));
    }
    there()
}

#[test]
fn an_interrupted_run_goes_on() {
    let d = tempfile::tempdir().unwrap();
    let count = |dir: PathBuf| {
        move || {
            std::fs::read_dir(&dir).map_or(0, |d| {
                d.filter(|e| {
                    let name = e.as_ref().unwrap().file_name().into_string().unwrap();
                    !name.starts_with('.') && (name.ends_with(".png") || name.ends_with(".u8"))
                })
                .count()
            })
        }
    };
    ok(d.path(), 240, "out: \"whole\"");
    ok(d.path(), 240, "out: \"whole.npz\"");
    for stop in ["-KILL", "-INT"] {
        let folder = format!("s{stop}");
        let left = interrupted(d.path(), &format!("out: \"{folder}\", batch: 2"), count(d.path().join(&folder)), stop);
        assert!(left < 240, "it was not interrupted");
        assert_eq!(ok(d.path(), 240, &format!("out: \"{folder}\"")), format!("240 {} true {folder}", 240 - left));
        assert!(pngs(&d.path().join("whole")) == pngs(&d.path().join(&folder)));

        let file = format!("s{stop}.npz");
        let parts = d.path().join(format!("{file}.parts"));
        let left = interrupted(d.path(), &format!("out: \"{file}\", batch: 2"), count(parts.clone()), stop);
        assert!(left < 120, "it was not interrupted");
        fails(d.path(), &code(240, &format!("out: \"{file}\", seed: 1")), &["differs in seed"]);
        let answer = ok(d.path(), 240, &format!("out: \"{file}\", batch: 7"));
        assert_eq!(answer, format!("240 {} true {file}", 240 - 2 * left));
        let bytes = |n: &str| std::fs::read(d.path().join(n)).unwrap();
        assert!(bytes("whole.npz") == bytes(&file));
        assert!(!parts.exists());
    }
}

#[test]
fn a_run_without_shard_takes_the_shards_that_are_there() {
    let d = tempfile::tempdir().unwrap();
    ok(d.path(), 6, "out: \"whole.npz\"");
    ok(d.path(), 6, "out: \"s.npz\", shard: \"2/3\"");
    assert_eq!(ok(d.path(), 6, "out: \"s.npz\""), "6 4 true s.npz");
    let bytes = |n: &str| std::fs::read(d.path().join(n)).unwrap();
    assert!(bytes("whole.npz") == bytes("s.npz"));
    assert_eq!(names(d.path()), ["s.npz", "whole.npz"]);
}
