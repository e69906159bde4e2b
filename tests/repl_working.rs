//! Commands, Ctrl-C and scripts in the REPL, in a real pseudo-terminal at 80 and at 40 columns.
#![cfg(unix)]
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ROWS: u16 = 60;

struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    // kept open as long as the child lives
    _master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    fn open(home: &Path, columns: u16, args: &[&str]) -> Self {
        let size = PtySize { rows: ROWS, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_ld3sh"));
        command.cwd(home);
        command.args(args);
        for folder in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "LD3SH_CACHE", "HOME"] {
            command.env(folder, home.join(folder.to_lowercase()));
        }
        command.env("TERM", "xterm");
        command.env("NO_COLOR", "1");
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS.try_into().unwrap(), columns.try_into().unwrap(), 0)));
        let (mut reader, seen) = (pair.master.try_clone_reader().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..n]);
            }
        });
        let mut t = Terminal { screen, keys: pair.master.take_writer().unwrap(), child, _master: pair.master };
        t.wait_until("the prompt", |s| s.trim_end().ends_with("ld3>"));
        t
    }
    fn contents(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }
    #[track_caller]
    fn wait(&mut self, text: &str) {
        self.wait_until(text, |s| s.contains(text));
    }
    #[track_caller]
    fn wait_until(&mut self, what: &str, ok: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !ok(&self.contents()) {
            assert!(start.elapsed() < Duration::from_secs(30), "waited for {what}; the screen:\n{}", self.contents());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    fn send(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }
    /// Sends keys and waits until a prompt with nothing behind it is the last line again.
    #[track_caller]
    fn press(&mut self, keys: &str) {
        let prompts = |s: &str| s.matches("ld3>").count();
        let before = prompts(&self.contents());
        self.send(keys);
        self.wait_until("the next prompt", |s| prompts(s) > before && s.trim_end().ends_with("ld3>"));
    }
    /// Enters a line on a clean screen and returns what is shown between it and the next prompt.
    #[track_caller]
    fn enter(&mut self, line: &str) -> String {
        // Ctrl-L
        self.send("\x0c");
        self.wait_until("a clean screen", |s| s.trim() == "ld3>");
        self.press(&format!("{line}\r"));
        self.answer(line)
    }
    /// What the screen shows between the line that was entered, which may be wrapped, and the next prompt.
    fn answer(&self, line: &str) -> String {
        let all = self.contents();
        let all = all.trim_end().strip_suffix("ld3>").unwrap();
        let mut rest = all.trim_start().strip_prefix("ld3>").unwrap().chars();
        for c in line.chars().filter(|c| !c.is_whitespace()) {
            let shown = rest.by_ref().find(|c| !c.is_whitespace());
            assert_eq!(shown, Some(c), "the screen does not show {line}:\n{all}");
        }
        let rest = rest.as_str();
        let rest = rest.split_once('\n').map_or("", |(_, r)| r);
        rest.lines().map(|l| format!("{}\n", l.trim_end())).collect()
    }
    fn exit_code(&mut self) -> u32 {
        self.child.wait().unwrap().exit_code()
    }
}

const SCRIPT: &str = "// Makes a list.
let n = param(\"n\", 3, \"how many\");
let name = param(\"name\", \"a b\");
fn twice(x) { x * 2 }
let made = [];
for i in 0..n { made.push(twice(i)); }
";

fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn scripts_run_in_the_session_and_are_read_again() {
    for columns in [80, 40] {
        let home =
            home(&[("s.rhai", SCRIPT), ("lib.rhai", "fn f(x) { x + 1 }"), ("bad.rhai", "let a = 1;\nnothing(a);\n")]);
        let mut t = Terminal::open(home.path(), columns, &[]);
        assert_eq!(t.enter(":load s.rhai"), "");
        assert_eq!(t.enter("made"), "[0, 2, 4]\n");
        assert_eq!(t.enter(":run s.rhai --set n=5"), "");
        assert_eq!(t.enter("[twice(21), made.len()]"), "[42, 5]\n");
        let e = t.enter(":run s.rhai --set nn=5");
        assert!(e.starts_with("error: unknown parameter in --set: `nn`") && e.contains("did you mean `n`"), "{e}");
        // an error in a script names its line, and the session lives on
        let e = t.enter(":load bad.rhai");
        assert!(e.starts_with("error: unknown function `nothing`\n --> bad.rhai:2:1\n"), "{e}");
        assert_eq!(t.enter("a"), "1\n");
        t.enter(":load s.rhai");
        // modules and the last file, changed
        assert_eq!(t.enter("import \"lib\" as lib;"), "");
        assert_eq!(t.enter("let old = || lib::f(1);"), "");
        assert_eq!(t.enter("lib::f(1)"), "2\n");
        std::fs::write(home.path().join("lib.rhai"), "fn f(x) { x + 10 }").unwrap();
        std::fs::write(home.path().join("s.rhai"), "let made = 7;").unwrap();
        assert_eq!(t.enter(":reload"), "reloaded lib.rhai\nreloaded s.rhai\n");
        assert_eq!(t.enter("[lib::f(1), made, old.call()]"), "[11, 7, 11]\n");
        // a module that is broken leaves the working one in place
        std::fs::write(home.path().join("lib.rhai"), "fn f(x) { x + }").unwrap();
        let e = t.enter(":reload");
        assert!(e.contains("error: syntax error") && e.contains("lib.rhai:1:15"), "{e}");
        assert_eq!(t.enter("lib::f(1)"), "11\n");
        let e = t.enter(":laod s.rhai");
        assert!(e.contains("unknown command `:laod`") && e.contains("did you mean `:load`?"), "{e}");
        t.send(":quit\r");
        assert_eq!(t.exit_code(), 0);
    }
}

#[test]
fn what_was_entered_is_saved_as_a_script_that_runs() {
    let home = home(&[("s.rhai", SCRIPT)]);
    let mut t = Terminal::open(home.path(), 80, &[]);
    t.enter("fn g(x) { x + 1 }");
    t.enter(":run s.rhai --set n=2 --set name=q");
    t.enter("let first = made; // as it was");
    t.enter("nothing(1)");
    t.enter(":run s.rhai --set n=4");
    t.enter("fn g(x) { x + first.len() }");
    t.enter("let all = [first, made, name, g(1)]");
    assert_eq!(t.enter("all"), "[[0, 2], [0, 2, 4, 6], \"a b\", 3]\n");
    assert_eq!(t.enter(":save kept"), "saved kept.rhai\n");
    let e = t.enter(":save kept");
    assert!(e.contains("`kept.rhai` is there already") && e.contains("`:save! kept`"), "{e}");
    assert_eq!(t.enter(":save! kept"), "saved kept.rhai\n");
    assert_eq!(t.enter(":clear"), "");
    assert!(t.enter("all").contains("unknown variable `all`"));
    assert_eq!(t.enter(":load kept.rhai"), "");
    assert_eq!(t.enter("all"), "[[0, 2], [0, 2, 4, 6], \"a b\", 3]\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    let text = std::fs::read_to_string(home.path().join("kept.rhai")).unwrap();
    assert!(!text.contains("nothing") && !text.contains("param(") && text.matches("fn g(").count() == 1, "{text}");
    let strays = std::fs::read_dir(home.path())
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(strays.count(), 0);
}

const NET: &str = "let net = denoiser::gaussian(#{ mean: 0.0, std: 1.0, shape: [1, 2, 2] });";

#[test]
fn times_and_profiles() {
    for columns in [80, 40] {
        let home = home(&[]);
        let mut t = Terminal::open(home.path(), columns, &[]);
        t.enter(NET);
        t.enter("let s = schedule::edm(net.noise, 5);");
        t.enter("fn one(x) { sample(net, solver::euler(), s, x) }");
        t.enter("fn all(n) { for i in 0..n { one(noise([2, 1, 2, 2])); } n }");
        let shown = t.enter(":time all(3)");
        assert!(
            shown.starts_with("3\n") && shown.contains("s, 15 network evaluations\n") || shown.contains("s, CPU"),
            "{shown}"
        );
        assert!(shown.contains("15 network evaluations"), "{shown}");
        let shown = t.enter(":profile all(4)");
        let row = |f: &str| -> Vec<&str> {
            let line = shown.lines().find(|l| l.trim_end().ends_with(&format!(" {f}")));
            line.unwrap_or_else(|| panic!("no row {f}:\n{shown}")).split_whitespace().collect()
        };
        assert_eq!(
            shown.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>(),
            ["self", "total", "calls", "evals", "function"]
        );
        // self, total, calls, evaluations, name
        assert_eq!(row("sample")[2..], ["4", "20", "sample"]);
        assert_eq!(row("one")[2..], ["4", "20", "one"]);
        assert_eq!(row("all")[2..], ["1", "20", "all"]);
        assert_eq!(row("noise")[2..], ["4", "noise"]);
        assert!(shown.lines().all(|l| l.chars().count() <= 80) && shown.contains("20 network evaluations"), "{shown}");
        // the calls of the line itself, and of a chain behind an index
        let shown = t.enter(":profile [sample(net, solver::euler(), s, 2)][0][0].abs().mean()");
        for f in ["sample", "solver::euler"] {
            assert!(shown.lines().any(|l| l.trim_end().ends_with(&format!(" {f}"))), "no row {f}:\n{shown}");
        }
        assert!(!shown.contains("error"), "{shown}");
        // of every input
        t.enter(":time on");
        let shown = t.enter("1 + 1");
        assert!(shown.starts_with("2\n") && shown.trim_end().ends_with('s') && shown.lines().count() == 2, "{shown}");
        t.enter(":time off");
        assert_eq!(t.enter("1 + 1"), "2\n");
        t.send("\x04");
        assert_eq!(t.exit_code(), 0);
    }
}

#[test]
fn the_shell_and_folders() {
    let home = home(&[("inner/x.txt", "hello")]);
    let mut t = Terminal::open(home.path(), 80, &[]);
    assert_eq!(t.enter("!cat inner/x.txt && echo"), "hello\n");
    assert_eq!(t.enter("!exit 3"), "exit code 3\n");
    assert!(t.enter(":cd inner").trim_end().ends_with("/inner"));
    assert_eq!(t.enter("!ls"), "x.txt\n");
    assert!(t.enter(":pwd").trim_end().ends_with("/inner"));
    assert!(t.enter(":cd nowhere").contains("cannot change to `nowhere`"));
    // Ctrl-C ends a command that does not end itself
    t.enter("let kept = 5;");
    t.send("!trap '' INT; while true; do sleep 0.01; done\r");
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    t.press("\x03");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(t.enter("kept"), "5\n");
}

#[test]
fn ctrl_c_stops_loops_and_kernels_and_says_where() {
    for columns in [80, 40] {
        let home = home(&[]);
        let mut t = Terminal::open(home.path(), columns, &[]);
        t.enter("let kept = [1, 2];");
        t.enter("fn inner(x) { loop { x += 1; } }");
        t.enter("fn outer(x) { inner(x) }");
        t.send("\x0couter(3)\r");
        std::thread::sleep(Duration::from_millis(300));
        t.press("\x03");
        let shown = t.contents();
        for want in ["stopped by Ctrl-C", "was running here", "in `inner`, called here", "in `outer`, called here"] {
            assert!(shown.contains(want), "{want} in\n{shown}");
        }
        assert_eq!(t.enter("kept"), "[1, 2]\n");
        // in the middle of a network, with a progress bar on the screen
        t.enter("let net = denoiser::load(\"fashion28\");");
        t.enter("let s = schedule::edm(net.noise, 200);");
        t.send("\x0clet x = sample(net, solver::euler(), s, noise([32, 1, 28, 28]));\r");
        // bars appear where a run takes more than two seconds
        t.wait("/200");
        let start = Instant::now();
        t.press("\x03");
        let took = start.elapsed();
        let shown = t.contents();
        assert!(shown.contains("stopped by Ctrl-C") && shown.contains(" of 200, t = "), "{shown}");
        assert!(!shown.contains("░"), "the bar is gone:\n{shown}");
        // one evaluation takes milliseconds where everything is optimized
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(t.enter("s.t.shape"), "[201]\n");
        assert!(t.enter("x").contains("unknown variable"), "{}", t.contents());
        // a product of large matrices
        t.enter("let a = noise([3000, 3000]);");
        t.send("\x0clet b = a; for i in 0..1000 { b = a.matmul(b); }\r");
        std::thread::sleep(Duration::from_millis(300));
        t.press("\x03");
        assert!(t.contents().contains("stopped by Ctrl-C"), "{}", t.contents());
        assert_eq!(t.enter("b.shape"), "[3000, 3000]\n");
        // nothing of all that ends the session
        t.press("\x03");
        t.send("exit\r");
        assert_eq!(t.exit_code(), 0);
    }
}

#[test]
fn output_during_a_bar_goes_above_it() {
    for columns in [80, 40] {
        let home = home(&[]);
        let mut t = Terminal::open(home.path(), columns, &[]);
        t.enter("let slow = |x, s, c| { let t = timestamp(); while t.elapsed < 0.03 { } if s[0].item() < 1.0 { print(`low`); } x * 0.5 };");
        t.enter("let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, slow);");
        t.enter("let s = schedule::edm(net.noise, 120);");
        t.send("\x0csample(net, solver::euler(), s, noise([1, 1, 2, 2])).shape\r");
        t.wait("/120");
        t.wait("[1, 1, 2, 2]\n");
        let shown = t.contents();
        let lows = shown.lines().filter(|l| l.trim_end() == "low").count();
        assert!(lows > 5, "{shown}");
        assert!(!shown.contains('█') && !shown.contains("/120"), "{shown}");
    }
}

#[test]
fn a_script_is_inspected() {
    let home = home(&[
        ("s.rhai", SCRIPT),
        ("bad.rhai", "let before = 4;\nfn f(x) { x + before }\nbefore.nothing();\nlet after = 1;\n"),
    ]);
    let mut t = Terminal::open(home.path(), 80, &["--inspect", "s.rhai", "--set", "n=2"]);
    assert_eq!(t.enter("[made, twice(4)]"), "[[0, 2], 8]\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    // also after an error
    let mut t = Terminal::open(home.path(), 40, &["-i", "bad.rhai"]);
    assert!(t.contents().contains("bad.rhai:3:8"), "{}", t.contents());
    assert_eq!(t.enter("f(1)"), "5\n");
    assert!(t.enter("after").contains("unknown variable"));
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn the_startup_file() {
    let file = "xdg_config_home/ld3sh/startup.rhai";
    let home = home(&[(file, "let greeting = \"hi\"; fn hello(x) { greeting + x }\n")]);
    let mut t = Terminal::open(home.path(), 80, &[]);
    assert_eq!(t.enter("hello(\" you\")"), "\"hi you\"\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    let mut t = Terminal::open(home.path(), 80, &["--no-startup"]);
    assert!(t.enter("greeting").contains("unknown variable `greeting`"));
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    // its errors are told, and the session starts anyway
    std::fs::write(home.path().join(file), "let early = 1;\nnothing();\n").unwrap();
    let mut t = Terminal::open(home.path(), 80, &[]);
    assert!(t.contents().contains("startup.rhai:2:1"), "{}", t.contents());
    assert_eq!(t.enter("early"), "1\n");
}
