//! The documentation of every function: an example that runs, the options that it really takes, pages that are not stale.
#[path = "common/trunks.rs"]
mod trunks;
use ld3sh::script::engine::STACK;
use ld3sh::script::options;
use ld3sh::shell::catalogue::{Catalogue, Entry, Kind, Origin};
use ld3sh::shell::reference;
use ld3sh::shell::report;
use ld3sh::shell::session::{Outcome, Session, Settings};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn on_a_thread(check: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(check).expect("a thread").join().expect("the test");
}

fn session(out: &Path) -> Session {
    Session::new(Settings { seed: 0, out: out.into() })
}

/// Functions to be documented. What prints a value is there for every type and needs no example.
fn functions(c: &Catalogue) -> impl Iterator<Item = &Entry> {
    c.iter().filter(|e| {
        matches!(e.kind, Kind::Function | Kind::Method | Kind::Constant)
            && e.origin != Origin::Rhai
            && !["to_string", "to_debug"].contains(&e.name.as_str())
    })
}

fn list(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn every_function_has_an_example() {
    on_a_thread(|| {
        let s = session(Path::new("out"));
        list(functions(s.catalogue()).filter(|e| e.example.is_none()).map(Entry::title).collect());
    });
}

/// Every option in a comment stands in the list that help, completion and the reference read.
#[test]
fn options_are_listed() {
    on_a_thread(|| {
        let s = session(Path::new("out"));
        let unlisted = |e: &&Entry| e.doc.contains("Options: ") || e.doc.contains("Options, ");
        list(s.catalogue().iter().filter(|e| e.origin != Origin::Rhai).filter(unlisted).map(Entry::title).collect());
        let empty = |e: &Entry| {
            e.options
                .iter()
                .filter(|o| o.doc.is_empty())
                .map(|o| format!("{} {}", e.title(), o.name))
                .collect::<Vec<_>>()
        };
        list(s.catalogue().iter().flat_map(empty).collect());
    });
}

/// Whether two values are the same, numbers to six digits.
fn near(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    match (a.as_f64(), b.as_f64(), a.as_array(), b.as_array()) {
        (Some(x), Some(y), ..) => (x - y).abs() <= 1e-6 * (1.0 + y.abs()),
        (_, _, Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| near(x, y)),
        _ => a == b,
    }
}

/// What the example's value is, if its comment says otherwise. Comments that are no value in Rhai are taken as words.
fn contradiction(s: &mut Session, example: &str, said: &str) -> Option<String> {
    let code = example.lines().map(|l| l.split("  // ").next().unwrap_or(l)).collect::<Vec<_>>().join("\n");
    // imports must stand outside of blocks to reach the functions of their module
    let json =
        |s: &mut Session, code: &str| match s.evaluate_line(&format!("let it = {{ {code} }}; json::stringify(it)")) {
            Ok(Outcome::Value(v)) => serde_json::from_str::<serde_json::Value>(&v.to_string()).ok(),
            _ => None,
        };
    let wanted = json(s, said)?;
    let Some(value) = json(s, &code) else { return Some(format!("cannot see the value of `{code}`")) };
    (!near(&value, &wanted)).then(|| format!("the value of `{code}` is {value}, not {said}"))
}

/// Maps with keys that are no options: they are written by one function and read by another.
const NO_OPTIONS: [&str; 4] = ["load_state", "schedule::from_map", "schedule_from_map", "metric::frechet"];

/// Runs every example; the functions called in them tell which options they know.
#[test]
fn examples_run_and_options_are_the_documented_ones() {
    on_a_thread(|| {
        let dir = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(root().join("models"), dir.path().join("models")).expect("a link");
        std::os::unix::fs::symlink(root().join("tests/fixtures/latent/sd-tiny"), dir.path().join("sd15"))
            .expect("a link");
        std::os::unix::fs::symlink(root().join("tests/fixtures/onnx/mixer.onnx"), dir.path().join("network.onnx"))
            .expect("a link");
        std::env::set_current_dir(dir.path()).expect("a folder");
        let trunk: std::collections::HashMap<_, _> = trunks::state("squeeze").into_iter().collect();
        candle_core::safetensors::save(&trunk, "squeezenet.safetensors").expect("a file");
        let autoencoder = root().join("tests/fixtures/latent/vq_f4.weights.safetensors");
        std::os::unix::fs::symlink(autoencoder, "autoencoder.safetensors").expect("a link");
        // SAFETY: no other thread of this test program reads the environment meanwhile
        unsafe { std::env::set_var("LD3SH_CACHE", dir.path().join("cache")) };
        let asked = session(dir.path());
        let c = asked.catalogue();
        let mut problems = Vec::new();
        options::collect_keys();
        for e in c.iter().filter(|e| e.origin != Origin::Rhai || e.kind == Kind::Keyword) {
            let Some(example) = &e.example else { continue };
            let mut s = session(dir.path());
            let clock = std::time::Instant::now();
            if let Err(f) = s.evaluate_line(example) {
                problems.push(format!("{}:\n{}", e.title(), report::render(f, &s, false)));
            }
            let claims = example.lines().last().and_then(|l| l.split_once("  // ")).map(|(_, said)| said);
            if let (Some(said), true) = (claims, e.kind != Kind::Keyword)
                && let Some(wrong) = contradiction(&mut s, example, said)
            {
                problems.push(format!("{}: {wrong}", e.title()));
            }
            let took = clock.elapsed();
            if took.as_millis() > 300 {
                println!("{}: {took:?}", e.title());
            }
        }
        let known = options::collected_keys();
        for (of, keys) in &known {
            // parts of options have options of their own
            if of.contains(": ") || of.contains(", ") || NO_OPTIONS.contains(&of.as_str()) {
                continue;
            }
            let found = c.find(of);
            if found.is_empty() {
                problems.push(format!("`{of}` has options but is no function"));
                continue;
            }
            let documented: BTreeSet<String> = found.iter().flat_map(|e| &e.options).map(|o| o.name.clone()).collect();
            for k in keys.difference(&documented) {
                problems.push(format!("{of}: option `{k}` is not documented"));
            }
            for k in documented.difference(keys) {
                problems.push(format!("{of}: option `{k}` is documented but not known to it"));
            }
        }
        for e in functions(c).filter(|e| !e.options.is_empty()) {
            let label = |of: &String| c.find(of).iter().any(|f| f.title() == e.title());
            if !known.keys().any(label) {
                problems.push(format!("{}: its example does not come to its options", e.title()));
            }
        }
        list(problems);
    });
}

/// `ld3sh reference` writes the pages anew.
#[test]
fn pages_are_fresh() {
    on_a_thread(|| {
        let fresh = reference::pages(session(Path::new("out")).catalogue());
        let dir = root().join("docs/reference");
        let there: BTreeSet<String> = std::fs::read_dir(&dir)
            .map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let wanted: BTreeSet<String> = fresh.iter().map(|(n, _)| n.clone()).collect();
        let mut stale: Vec<String> = there.symmetric_difference(&wanted).cloned().collect();
        let differs =
            |(name, text): &&(String, String)| std::fs::read_to_string(dir.join(name)).is_ok_and(|t| t != *text);
        stale.extend(fresh.iter().filter(differs).map(|(n, _)| n.clone()));
        assert!(stale.is_empty(), "stale: {stale:?}; write them anew with `ld3sh reference`");
    });
}

#[test]
fn definitions_for_editors() {
    on_a_thread(|| {
        let files = reference::definitions(session(Path::new("out")).engine());
        let text = |n: &str| &files.iter().find(|(name, _)| name == n).unwrap_or_else(|| panic!("{n}")).1;
        assert!(text("solver.d.rhai").starts_with("module solver;\n"));
        assert!(text("solver.d.rhai").contains("fn unipc(options: map) -> Solver;"), "{}", text("solver.d.rhai"));
        assert!(text("ld3.d.rhai").contains("fn train(net: ?, solver: ?, pairs: ?, options: ?) -> ?;"));
        assert!(text("__static__.d.rhai").contains("/// The matrix product"));
        for (name, file) in &files {
            let code = file.lines().filter(|l| !l.trim_start().starts_with("///"));
            for l in code.filter(|l| l.contains("fn ")) {
                assert!(!l.contains("RhaiResult") && !l.contains("Dyn") && !l.contains("Box<"), "{name}: {l}");
            }
        }
    });
}
