//! Whatever a session shows goes to its front; and what the terminal's front does where it is none.
use crate::process::{err, faults, ld3sh, out};
use ld3sh::script::engine::STACK;
use ld3sh::script::front::{Buffer, Drawing, Front, Look, Quiet, Shared};
use ld3sh::shell::outcome::Outcome;
use ld3sh::shell::report;
use ld3sh::shell::session::{Session, Settings};
use std::cell::Cell;
use std::rc::Rc;

/// Runs `check` with a session on `front`.
fn with_session(check: impl FnOnce(&Buffer, fn(Shared) -> Session) + Send + 'static) {
    let session = |front: Shared| Session::with_front(Settings { seed: 0, out: "out".into() }, front);
    let body = move || check(&Buffer::default(), session);
    std::thread::Builder::new().stack_size(STACK).spawn(body).unwrap().join().unwrap();
}

const SHOWN: &str = "print(1 + 1);
    debug(\"beside\");
    show(zeros([3, 8, 8]));
    let bar = progress(\"steps\", 4); bar.advance(3);
    schedule_from_map(#{ noise: #{ name: \"edm\" }, t: [80, 1, 0.002] });
    schedule_from_map(#{ noise: #{ name: \"edm\" }, t: [80, 1, 0.002] });
    let net = denoiser::gaussian(#{ mean: [0.5], std: 0.3 });
    generate(net, solver::euler(), schedule::edm(net.noise, 2), 2, #{ out: \"never\", format: \"none\" })";

#[test]
fn all_that_is_shown_goes_there() {
    with_session(|buffer, session| {
        let mut s = session(Shared::new(buffer.clone()));
        let failed = s.evaluate_line(SHOWN).err().expect("`format` is no option");
        report::tell(failed, &s);
        assert_eq!(buffer.results(), "2\n");
        let reports = buffer.reports();
        assert!(reports.contains("beside") && reports.contains("error: "), "{reports}");
        assert_eq!(reports.matches("`schedule_from_map` is `schedule::from_map` now").count(), 1, "{reports}");
        assert_eq!(buffer.pictures().len(), 1);
        assert_eq!(buffer.progress(), [("steps".to_string(), 3)]);
    });
}

#[test]
fn a_quiet_front_shows_all_but_progress() {
    with_session(|buffer, session| {
        let mut s = session(Shared::new(Quiet(Shared::new(buffer.clone()))));
        assert!(s.evaluate_line("let bar = progress(\"steps\", 4); bar.advance(3); print(7);").is_ok());
        assert_eq!((buffer.results().as_str(), buffer.progress().len()), ("7\n", 0));
    });
}

/// Two sessions of one thread do not see each other's fronts.
#[test]
fn a_front_belongs_to_its_session() {
    with_session(|first, session| {
        let second = Buffer::default();
        let (mut a, mut b) = (session(Shared::new(first.clone())), session(Shared::new(second.clone())));
        assert!(a.evaluate_line("print(\"a\"); progress(\"a\", 1).advance();").is_ok());
        assert!(b.evaluate_line("print(\"b\"); progress(\"b\", 1).advance();").is_ok());
        assert_eq!((first.results().as_str(), second.results().as_str()), ("a\n", "b\n"));
        assert_eq!(first.progress(), [("a".to_string(), 1)]);
        assert_eq!(second.progress(), [("b".to_string(), 1)]);
    });
}

/// A front that takes two lines.
#[derive(Clone, Default)]
struct Narrow(Rc<Cell<usize>>);

impl Front for Narrow {
    fn print(&self, _: &str) {
        self.0.set(self.0.get() + 1);
    }
    fn report(&self, _: &str) {}
    fn progress(&self, label: &str, total: u64) -> Box<dyn ld3sh::host::Progress> {
        Front::progress(&Buffer::default(), label, total)
    }
    fn draw(&self, _: &dyn Drawing, _: Option<usize>) -> ld3sh::Result<bool> {
        Ok(false)
    }
    fn look(&self) -> Look {
        Look { columns: Some(30), ..Look::default() }
    }
    fn is_closed(&self) -> bool {
        self.0.get() >= 2
    }
}

#[test]
fn a_script_ends_when_nobody_sees_its_results() {
    with_session(|_, session| {
        let narrow = Narrow::default();
        let mut s = session(Shared::new(narrow.clone()));
        let ended = s.evaluate_line("for i in 0..1000 { try { print(i); } catch { } }");
        assert!(ended.is_err_and(|f| f.cancelled()));
        assert_eq!(narrow.0.get(), 2);
        // and values are set to the front's width
        let Ok(Outcome::Value(v)) =
            session(Shared::new(Narrow::default())).evaluate_line("#{ a: [1, 2, 3], b: \"c\" }")
        else {
            panic!("no value");
        };
        assert!(s.show(&v).lines().all(|l| l.chars().count() <= 30), "{}", s.show(&v));
    });
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> std::process::Output {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("s.rhai"), "print(1);\nlet x = ones([2]) + ones([3]);\n").unwrap();
    ld3sh(dir.path(), cache.path()).args(args).envs(variables.iter().copied()).output().unwrap()
}

/// A result that cannot be written must not look as if all went well; a reader that has gone away is no error.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_exit_code_1() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for args in [&["-e", "print(1); print(2);"][..], &["-e", "1 + 1"], &["models"], &["--help"], &["man"]] {
        let o = ld3sh(dir.path(), cache.path()).args(args).stdout(full()).output().unwrap();
        assert_eq!(faults(&o, 1, &["cannot write to standard output"]), Vec::<String>::new(), "{args:?}");
    }
}

#[test]
fn commands_share_their_flags_and_have_help() {
    for args in [&["--threads", "1", "models"][..], &["models", "--quiet"], &["--quiet", "models", "path"]] {
        let o = run(args, &[]);
        assert!(o.status.success(), "{args:?}: {}", err(&o));
    }
    for command in ["check", "models", "convert", "bench", "definitions", "reference", "completions", "man"] {
        let o = run(&[command, "--help"], &[]);
        assert!(o.status.success() && out(&o).contains("Usage: ld3sh"), "{command}: {}{}", out(&o), err(&o));
    }
    let o = run(&["convert", "--threads", "0", "a", "b"], &[]);
    assert_eq!(faults(&o, 2, &["--threads must be from 1 to 4096"]), Vec::<String>::new());
    // a script of a command's name comes first
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("models"), "print(param(\"n\", 1, \"a number\"));").unwrap();
    for args in [&["models"][..], &["--threads", "1", "models"], &["models", "--set", "n=1"]] {
        let o = ld3sh(dir.path(), cache.path()).args(args).output().unwrap();
        assert_eq!(out(&o), "1\n", "{args:?}: {}", err(&o));
    }
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = out(&run(&["completions", shell], &[]));
        assert!(text.contains("convert") && text.contains("exact-conv"), "{shell}: {text}");
    }
    assert!(out(&run(&["man"], &[])).contains(".TH ld3sh"));
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let o = ld3sh(dir.path(), cache.path()).args(["man", "pages"]).output().unwrap();
    assert!(o.status.success(), "{}", err(&o));
    for name in ["ld3sh.1", "ld3sh-bench.1", "ld3sh-models.1"] {
        assert!(dir.path().join("pages").join(name).is_file(), "{name}");
    }
}
