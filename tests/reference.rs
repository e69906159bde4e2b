//! The documentation of every function: an example that runs, the options that it really takes, pages that are not stale.
#[path = "common/trunks.rs"]
mod trunks;
use ld3sh::schema::{self, Opt, Schema};
use ld3sh::script::engine::STACK;
use ld3sh::script::options;
use ld3sh::shell::catalogue::{self, Catalogue, Entry, Kind, Origin};
use ld3sh::shell::reference;
use ld3sh::shell::report;
use ld3sh::shell::session::{Outcome, Session, Settings};
use ld3sh::solve::TABLE;
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

/// The working folder of the examples, with the files that they read.
fn folder() -> &'static Path {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let made = FOLDER.get_or_init(|| {
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
        // SAFETY: no other thread of this test program reads the environment meanwhile: all wait for this folder
        unsafe { std::env::set_var("LD3SH_CACHE", dir.path().join("cache")) };
        dir
    });
    made.path()
}

/// Maps with keys that are no options: they are written by one function and read by another.
const NO_OPTIONS: [&str; 4] = ["load_state", "schedule::from_map", "schedule_from_map", "metric::frechet"];

/// Functions whose options are those of another one, by its name.
const BY_NAME: [&str; 3] = ["solver::named", "schedule::named", "loss::get"];

/// Whether an entry is the function whose options these are.
fn has(e: &Entry, s: &Schema) -> bool {
    let takes = e.signatures.iter().any(|s| s.contains("options: map"));
    takes && e.name == s.of && (s.receiver.is_empty() || e.receiver.as_deref() == Some(s.receiver))
}

#[test]
fn every_schema_is_of_a_function_and_every_function_has_one() {
    on_a_thread(|| {
        let s = session(Path::new("out"));
        let native = |e: &&Entry| e.origin == Origin::Native;
        let mut problems = vec![];
        for schema in catalogue::schemas() {
            let found: Vec<&Entry> = s.catalogue().iter().filter(native).filter(|e| has(e, &schema)).collect();
            let names: Vec<&str> = schema.options().map(|o| o.name).collect();
            let lists = |e: &&Entry| e.options.iter().map(|o| o.name.as_str()).eq(names.iter().copied());
            if found.len() != 1 || !found.iter().all(lists) {
                problems.push(format!("the options of `{}` stand at {} functions", schema.of, found.len()));
            }
            let unique: BTreeSet<&str> = names.iter().copied().collect();
            if unique.len() != names.len() {
                problems.push(format!("`{}` has an option twice", schema.of));
            }
        }
        let takes = |e: &&Entry| e.signatures.iter().any(|s| s.contains("options: map"));
        let lists = |e: &Entry| !e.options.is_empty() || BY_NAME.contains(&e.name.as_str());
        for e in s.catalogue().iter().filter(native).filter(takes).filter(|e| !lists(e)) {
            problems.push(format!("{} takes options and has no schema", e.title()));
        }
        list(problems);
    });
}

/// Where the bracket at `at` closes; texts are skipped.
fn closing(code: &str, at: usize) -> Option<usize> {
    let (mut depth, mut text, mut escaped) = (0, false, false);
    for (i, c) in code.char_indices().filter(|(i, _)| *i >= at) {
        match c {
            _ if escaped => escaped = false,
            '\\' if text => escaped = true,
            '"' => text = !text,
            _ if text => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i);
        }
    }
    None
}

/// What stands between commas outside of brackets, and where it begins.
fn parts(code: &str) -> Vec<(usize, &str)> {
    let (mut from, mut at, mut all) = (0, 0, vec![]);
    while let Some(c) = code[at..].chars().next() {
        if matches!(c, '(' | '[' | '{') {
            at = closing(code, at).unwrap_or(at);
        } else if c == '"' {
            at += 1 + code[at + 1..].find('"').unwrap_or(0);
        } else if c == ',' {
            all.push((from, &code[from..at]));
            from = at + 1;
        }
        at += code[at..].chars().next().map_or(1, char::len_utf8);
    }
    all.push((from, &code[from..]));
    all
}

/// The example with `key: value` among the options of its call of that function.
fn with_option(example: &str, schema: &Schema, key: &str, value: &str) -> Option<String> {
    let name = format!("{}(", schema.of);
    let calls = example.match_indices(&name).map(|(at, call)| at + call.len() - 1);
    let calls: Vec<(usize, usize)> = calls.filter_map(|open| Some((open, closing(example, open)?))).collect();
    let name = |entry: &str| entry.split(':').next().unwrap_or_default().trim().to_string();
    for (open, close) in &calls {
        for (at, part) in parts(&example[open + 1..*close]) {
            let Some(map) = part.trim().strip_prefix("#{").and_then(|m| m.strip_suffix('}')) else { continue };
            let entries: Vec<&str> = parts(map).into_iter().map(|(_, e)| e).filter(|e| !e.trim().is_empty()).collect();
            if !entries.iter().all(|e| schema.options().any(|o| o.name == name(e))) {
                continue;
            }
            let kept = entries.into_iter().filter(|e| name(e) != key);
            let all: Vec<String> = kept.map(|e| e.trim().to_string()).chain([format!("{key}: {value}")]).collect();
            let (before, after) = (&example[..open + 1 + at], &example[open + 1 + at + part.len()..]);
            return Some(format!("{before} #{{ {} }}{after}", all.join(", ")));
        }
    }
    // its example has no options: they are the last argument
    let (_, close) = calls.first()?;
    Some(format!("{}, #{{ {key}: {value} }}{}", &example[..*close], &example[*close..]))
}

/// Values that an option of this kind does not take, as scripts write them.
fn refused(kind: &schema::Kind) -> Vec<String> {
    use schema::Kind;
    let number = |x: f64| format!("{x:?}");
    match *kind {
        Kind::Any => vec![],
        Kind::Count(lo, hi) => {
            let most = i64::try_from(hi).ok().and_then(|n| n.checked_add(1));
            let ends = [Some(lo as i64 - 1), most].into_iter().flatten();
            ends.map(|n| n.to_string()).chain(["\"no\"".into(), "0.5".into()]).collect()
        }
        Kind::Integer => vec!["0.5".into()],
        Kind::Number(span) => {
            let below = (span.low > -1e300).then(|| if span.open[0] { span.low } else { span.low - 1.0 });
            let beyond = (span.high < 1e300).then(|| if span.open[1] { span.high } else { span.high + 1.0 });
            let ends = below.into_iter().chain(beyond);
            ends.map(number).chain(["\"no\"".into(), "0.0 / 0.0".into()]).collect()
        }
        Kind::Word(_) => vec!["\"no such word\"".into(), "1".into()],
        Kind::List(inner, n) => {
            let wrong = refused(inner).into_iter().map(|v| format!("[{}]", vec![v; n.max(1)].join(", ")));
            wrong.chain(["1".into()]).collect()
        }
        Kind::Native(..) => vec!["\"no\"".into()],
        Kind::Either(_) => vec!["'c'".into()],
        Kind::Flag | Kind::Text | Kind::Function | Kind::Map => vec!["1".into()],
    }
}

/// What is wrong with how an option refuses values, in the calls that `call` makes of them.
fn refusals(s: &mut Session, of: &str, o: &'static Opt, call: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let one = |value: String| {
        let Some(code) = call(&value) else { return Some(format!("{of}: its example does not call it")) };
        match s.evaluate_line(&code) {
            // what an example catches it gives by its kind
            Ok(Outcome::Value(kind)) if ["type", "value", "name"].contains(&kind.to_string().as_str()) => None,
            Ok(_) => Some(format!("{of} takes `{}: {value}`", o.name)),
            Err(f) => {
                let told = report::render(f, s, false);
                let named = told.contains(&format!("option `{}`", o.name)) && told.contains(of);
                (!named).then(|| format!("{of}, `{}: {value}`:\n{told}", o.name))
            }
        }
    };
    refused(&o.kind).into_iter().filter_map(one).collect()
}

/// Runs every example; the functions called in them tell which options they know.
#[test]
fn examples_run_and_options_are_the_documented_ones() {
    on_a_thread(|| {
        let dir = folder();
        let asked = session(dir);
        let c = asked.catalogue();
        let mut problems = Vec::new();
        options::collect_keys();
        for e in c.iter().filter(|e| e.origin != Origin::Rhai || e.kind == Kind::Keyword) {
            let Some(example) = &e.example else { continue };
            let mut s = session(dir);
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

/// Each option of each function is given what it does not take, in the example of the function.
#[test]
fn every_option_refuses_what_it_does_not_take() {
    on_a_thread(|| {
        let mut s = session(folder());
        let asked = session(folder());
        let mut problems = vec![];
        for schema in catalogue::schemas() {
            let example = asked.catalogue().iter().find(|e| has(e, &schema)).and_then(|e| e.example.as_deref());
            for o in schema.options() {
                let call = |value: &str| with_option(example?, &schema, o.name, value);
                problems.extend(refusals(&mut s, schema.of, o, call));
            }
        }
        for row in TABLE {
            let of = format!("solver::{}", row.name);
            for o in row.all_options() {
                let call = |value: &str| Some(format!("{of}(#{{ {}: {value} }})", o.name));
                problems.extend(refusals(&mut s, &of, o, call));
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
