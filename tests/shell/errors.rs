//! Uncaught errors as users see them, word for word: `fixtures/errors.txt` holds code and the report that it must give.
//! `BLESS=1 cargo test --test errors` writes the reports anew; read them before they are committed.
use ld3sh::script::engine::STACK;
use ld3sh::shell::report;
use ld3sh::shell::session::{Outcome, Session, Settings};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Does it on a thread with the stack that an engine needs.
fn on_a_large_stack<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK).spawn(f).unwrap().join().unwrap()
}

fn session() -> Session {
    Session::new(Settings { seed: 0, out: "out".into() })
}

/// Runs a script; the report of its error, or what it gave.
fn report_of(code: &str) -> String {
    let mut s = session();
    let result = s.parse("case.rhai", code).and_then(|ast| s.evaluate(&ast));
    match result {
        Err(f) => report::render(f, &s, false),
        Ok(Outcome::Value(v) | Outcome::Exit(v)) => format!("no error, but {}", s.show(&v)),
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/errors.txt")
}

const RULE: &str = "────";

#[test]
fn reports_word_for_word() {
    let text = std::fs::read_to_string(fixture()).unwrap();
    // code, a rule, the report, an empty line and a rule
    let cases: Vec<(String, String)> = text
        .split(&format!("{RULE}{RULE}\n"))
        .filter(|c| !c.trim().is_empty())
        .map(|c| {
            let (code, report) = c.split_once(&format!("{RULE}\n")).unwrap_or((c, ""));
            (code.trim_end().to_string(), report.trim_end().to_string())
        })
        .collect();
    assert!(cases.len() > 60, "{} cases", cases.len());
    let codes: Vec<String> = cases.iter().map(|(code, _)| code.clone()).collect();
    let now = on_a_large_stack(move || codes.iter().map(|c| report_of(c)).collect::<Vec<_>>());
    if std::env::var_os("BLESS").is_some() {
        let text: Vec<String> = cases
            .iter()
            .zip(&now)
            .map(|((code, _), report)| format!("{code}\n{RULE}\n{}\n", report.trim_end()))
            .collect();
        std::fs::write(fixture(), text.join(&format!("{RULE}{RULE}\n"))).unwrap();
        return;
    }
    let mut wrong = String::new();
    for ((code, expected), now) in cases.iter().zip(&now) {
        if expected != now.trim_end() {
            wrong += &format!("\n{code}\n--- expected\n{expected}\n--- now\n{now}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_report_has_a_place_and_none_a_bug() {
    let text = std::fs::read_to_string(fixture()).unwrap();
    for case in text.split(&format!("{RULE}{RULE}\n")) {
        let (code, report) = case.split_once(&format!("{RULE}\n")).unwrap();
        let errors = report.lines().filter(|l| l.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{case}");
        assert!(report.contains(" --> ") && report.contains('^'), "no place: {case}");
        for never in ["itself failed", "panicked", "Dynamic", "core::", "alloc::", "anon$"] {
            assert!(!report.contains(never), "{never} in the report of {code}");
        }
    }
}

#[test]
fn memory_that_is_not_there_is_an_error_to_catch() {
    let answers = on_a_large_stack(|| {
        let mut s = session();
        // more than any machine has, by each way in which a tensor becomes large
        [
            "zeros([1000000, 1000000])",
            "ones([4000000, 1]) + ones([1, 4000000])",
            "ones([4000000, 1]).matmul(ones([1, 4000000]))",
            "ones([1, 1]).expand([4000000, 4000000])",
            "ones([10]).repeat([1000000000000])",
            "noise([4000000, 4000000])",
            "full([4000000, 4000000], 1)",
            "eye(4000000)",
            "arange(1000000000000)",
        ]
        .map(|code| {
            let text = format!("let r = `made`; try {{ {code}; }} catch (e) {{ r = `${{e.kind}} ${{e.message}}`; }} r");
            match s.evaluate_line(&text) {
                Ok(Outcome::Value(v)) => v.to_string(),
                Ok(Outcome::Exit(_)) => "exit".into(),
                Err(f) => report::render(f, &s, false),
            }
        })
    });
    for a in &answers {
        assert!(a.starts_with("memory ") && a.contains("too large") || a.contains("too many"), "{answers:?}");
    }
}

#[test]
fn panics_of_native_code_are_errors_to_catch() {
    // other tests of this program tell of their panics by the hook that is put back
    let hook = std::panic::take_hook();
    ld3sh::script::panics::quiet();
    let (caught, alive, uncaught) = on_a_large_stack(|| {
        let mut s = session();
        s.engine_mut().register_fn("boom", |i: i64| -> i64 { vec![1i64][i as usize] });
        let code = "let kept = 7;
            fn inner(x) { let local = 3; boom(x) }
            let e = try_it(5); fn try_it(n) { let got = (); try { let deep = 1; got = inner(n); } catch (e) { got = e; } got }
            [kept, e.kind, e.message.contains(\"index out of bounds\"), try_it(0)]";
        let show = |s: &mut Session, code: &str| match s.evaluate_line(code) {
            Ok(Outcome::Value(v)) => s.show(&v),
            Ok(Outcome::Exit(_)) => "exit".into(),
            Err(f) => report::render(f, s, false),
        };
        let caught = show(&mut s, code);
        let alive = show(&mut s, "kept + try_it(0)");
        let uncaught = show(&mut s, "boom(9)");
        (caught, alive, uncaught + show(&mut s, "kept").as_str())
    });
    std::panic::set_hook(hook);
    assert_eq!(caught, "[7, \"internal\", true, 1]");
    assert_eq!(alive, "8");
    assert!(uncaught.contains("ld3sh itself failed: index out of bounds") && uncaught.ends_with('7'), "{uncaught}");
}

#[test]
fn check_tells_all_errors_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let code = "let a = 1;\nprint(b);\nfn f(x) { y + a }\nif false { nothing(a); }\nzeros();\n";
    std::fs::write(dir.path().join("s.rhai"), code).unwrap();
    let run = |args: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
        c.current_dir(dir.path()).args(args).output().unwrap()
    };
    let o = run(&["check", "s.rhai"]);
    let text = String::from_utf8(o.stderr).unwrap();
    let places: Vec<&str> = text.lines().filter_map(|l| l.trim().strip_prefix("--> s.rhai:")).collect();
    assert_eq!((o.status.code(), places), (Some(1), vec!["2:7", "3:11", "4:12", "5:1"]), "{text}");
}

#[test]
fn help_of_a_script_leaves_out_what_is_for_the_tests() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("s.rhai"), "// Adds.\n// small: --set n=1\n\nlet n = param(\"n\", 3);\n").unwrap();
    let o =
        Command::new(env!("CARGO_BIN_EXE_ld3sh")).current_dir(dir.path()).args(["s.rhai", "--help"]).output().unwrap();
    let text = String::from_utf8(o.stdout).unwrap();
    assert!(text.contains("Adds.") && text.contains("n=3") && !text.contains("small"), "{text}");
}
