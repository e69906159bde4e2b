//! Commands, Ctrl-C and scripts in the REPL, in a real pseudo-terminal at 80 and at 40 columns.
use crate::terminal::Terminal;
use std::path::Path;
use std::time::{Duration, Instant};

fn open(home: &Path, columns: u16, args: &[&str]) -> Terminal {
    let folders = ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "LD3SH_CACHE", "HOME"];
    let folders = folders.map(|f| (f, home.join(f.to_lowercase()).display().to_string()));
    let mut variables: Vec<(&str, &str)> = folders.iter().map(|(f, path)| (*f, path.as_str())).collect();
    variables.push(("NO_COLOR", "1"));
    let mut t = Terminal::open_with(home, 60, columns, args, &variables);
    t.patience = Duration::from_secs(30);
    t
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
        let mut t = open(home.path(), columns, &[]);
        assert_eq!(t.ask(":load s.rhai"), "");
        assert_eq!(t.ask("made"), "[0, 2, 4]\n");
        assert_eq!(t.ask(":run s.rhai --set n=5"), "");
        assert_eq!(t.ask("[twice(21), made.len()]"), "[42, 5]\n");
        let e = t.ask(":run s.rhai --set nn=5");
        assert!(e.starts_with("error: unknown parameter in --set: `nn`") && e.contains("did you mean `n`"), "{e}");
        // an error in a script names its line, and the session lives on
        let e = t.ask(":load bad.rhai");
        assert!(e.starts_with("error: unknown function `nothing`\n --> bad.rhai:2:1\n"), "{e}");
        assert_eq!(t.ask("a"), "1\n");
        t.ask(":load s.rhai");
        // modules and the last file, changed
        assert_eq!(t.ask("import \"lib\" as lib;"), "");
        assert_eq!(t.ask("let old = || lib::f(1);"), "");
        assert_eq!(t.ask("lib::f(1)"), "2\n");
        std::fs::write(home.path().join("lib.rhai"), "fn f(x) { x + 10 }").unwrap();
        std::fs::write(home.path().join("s.rhai"), "let made = 7;").unwrap();
        assert_eq!(t.ask(":reload"), "reloaded lib.rhai\nreloaded s.rhai\n");
        assert_eq!(t.ask("[lib::f(1), made, old.call()]"), "[11, 7, 11]\n");
        // a module that is broken leaves the working one in place
        std::fs::write(home.path().join("lib.rhai"), "fn f(x) { x + }").unwrap();
        let e = t.ask(":reload");
        assert!(e.contains("error: syntax error") && e.contains("lib.rhai:1:15"), "{e}");
        assert_eq!(t.ask("lib::f(1)"), "11\n");
        let e = t.ask(":laod s.rhai");
        assert!(e.contains("unknown command `:laod`") && e.contains("did you mean `:load`?"), "{e}");
        t.send(":quit\r");
        assert_eq!(t.exit_code(), 0);
    }
}

#[test]
fn what_was_entered_is_saved_as_a_script_that_runs() {
    let home = home(&[("s.rhai", SCRIPT)]);
    let mut t = open(home.path(), 80, &[]);
    t.ask("fn g(x) { x + 1 }");
    t.ask(":run s.rhai --set n=2 --set name=q");
    t.ask("let first = made; // as it was");
    t.ask("nothing(1)");
    t.ask(":run s.rhai --set n=4");
    t.ask("fn g(x) { x + first.len() }");
    t.ask("let all = [first, made, name, g(1)]");
    assert_eq!(t.ask("all"), "[[0, 2], [0, 2, 4, 6], \"a b\", 3]\n");
    assert_eq!(t.ask(":save kept"), "saved kept.rhai\n");
    let e = t.ask(":save kept");
    assert!(e.contains("`kept.rhai` is there already") && e.contains("`:save! kept`"), "{e}");
    assert_eq!(t.ask(":save! kept"), "saved kept.rhai\n");
    assert_eq!(t.ask(":clear"), "");
    assert!(t.ask("all").contains("unknown variable `all`"));
    assert_eq!(t.ask(":load kept.rhai"), "");
    assert_eq!(t.ask("all"), "[[0, 2], [0, 2, 4, 6], \"a b\", 3]\n");
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
        let mut t = open(home.path(), columns, &[]);
        t.ask(NET);
        t.ask("let s = schedule::edm(net.noise, 5);");
        t.ask("fn one(x) { sample(net, solver::euler(), s, x) }");
        t.ask("fn all(n) { for i in 0..n { one(noise([2, 1, 2, 2])); } n }");
        let shown = t.ask(":time all(3)");
        assert!(
            shown.starts_with("3\n") && shown.contains("s, 15 network evaluations\n") || shown.contains("s, CPU"),
            "{shown}"
        );
        assert!(shown.contains("15 network evaluations"), "{shown}");
        let shown = t.ask(":profile all(4)");
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
        let shown = t.ask(":profile [sample(net, solver::euler(), s, 2)][0][0].abs().mean()");
        for f in ["sample", "solver::euler", "abs", "mean"] {
            assert!(shown.lines().any(|l| l.trim_end().ends_with(&format!(" {f}"))), "no row {f}:\n{shown}");
        }
        assert!(!shown.contains("error"), "{shown}");
        // what a method changes in place stays changed, behind an index and a property too
        t.ask("let list = [[1], #{ a: [2], b: [[3]] }];");
        for (code, f) in
            [("list[0].push(4)", "push"), ("list[1].a.push(5)", "push"), ("list[1].b[0].append([6])", "append")]
        {
            let shown = t.ask(&format!(":profile {code}"));
            assert!(shown.lines().any(|l| l.trim_end().ends_with(&format!(" 1        {f}"))), "no row {f}:\n{shown}");
        }
        let all = t.ask(":profile list[1].b[0].filter(|x| x > 3)[0]");
        assert!(all.starts_with("6\n") && all.contains(" filter"), "{all}");
        assert_eq!(t.ask("list[0] + list[1].a + list[1].b[0]"), "[1, 4, 2, 5, 3, 6]\n");
        // of every input
        t.ask(":time on");
        let shown = t.ask("1 + 1");
        assert!(shown.starts_with("2\n") && shown.trim_end().ends_with('s') && shown.lines().count() == 2, "{shown}");
        t.ask(":time off");
        assert_eq!(t.ask("1 + 1"), "2\n");
        t.send("\x04");
        assert_eq!(t.exit_code(), 0);
    }
}

#[test]
fn the_shell_and_folders() {
    let home = home(&[("inner/x.txt", "hello")]);
    let mut t = open(home.path(), 80, &[]);
    assert_eq!(t.ask("!cat inner/x.txt && echo"), "hello\n");
    assert_eq!(t.ask("!exit 3"), "exit code 3\n");
    assert!(t.ask(":cd inner").trim_end().ends_with("/inner"));
    assert_eq!(t.ask("!ls"), "x.txt\n");
    assert!(t.ask(":pwd").trim_end().ends_with("/inner"));
    assert!(t.ask(":cd nowhere").contains("cannot change to `nowhere`"));
    // Ctrl-C ends a command that does not end itself
    t.ask("let kept = 5;");
    t.send("!trap '' INT; while true; do sleep 0.01; done\r");
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    t.press("\x03");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(t.ask("kept"), "5\n");
}

#[test]
fn ctrl_c_stops_loops_and_kernels_and_says_where() {
    for columns in [80, 40] {
        let home = home(&[]);
        let mut t = open(home.path(), columns, &[]);
        t.ask("let kept = [1, 2];");
        t.ask("fn inner(x) { loop { x += 1; } }");
        t.ask("fn outer(x) { inner(x) }");
        t.send("\x0couter(3)\r");
        std::thread::sleep(Duration::from_millis(300));
        t.press("\x03");
        let shown = t.contents();
        for want in ["stopped by Ctrl-C", "was running here", "in `inner`, called here", "in `outer`, called here"] {
            assert!(shown.contains(want), "{want} in\n{shown}");
        }
        assert_eq!(t.ask("kept"), "[1, 2]\n");
        // in the middle of a network, with a progress bar on the screen
        t.ask("let net = denoiser::load(\"fashion28\");");
        t.ask("let s = schedule::edm(net.noise, 200);");
        t.send("\x0clet x = sample(net, solver::euler(), s, noise([32, 1, 28, 28]));\r");
        // bars appear where a run takes more than two seconds
        t.wait("/200");
        let start = Instant::now();
        t.press("\x03");
        let took = start.elapsed();
        let shown = t.contents();
        let told = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains("stopped by Ctrl-C") && told.contains(" of 200, t = "), "{shown}");
        assert!(!shown.contains("░"), "the bar is gone:\n{shown}");
        // one evaluation takes milliseconds where everything is optimized
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert_eq!(t.ask("s.t.shape"), "[201]\n");
        assert!(t.ask("x").contains("unknown variable"), "{}", t.contents());
        // a product of large matrices
        t.ask("let a = noise([3000, 3000]);");
        t.send("\x0clet b = a; for i in 0..1000 { b = a.matmul(b); }\r");
        std::thread::sleep(Duration::from_millis(300));
        t.press("\x03");
        assert!(t.contents().contains("stopped by Ctrl-C"), "{}", t.contents());
        assert_eq!(t.ask("b.shape"), "[3000, 3000]\n");
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
        let mut t = open(home.path(), columns, &[]);
        t.ask("let slow = |x, s, c| { let t = timestamp(); while t.elapsed < 0.03 { } if s[0].item() < 1.0 { print(`low`); } x * 0.5 };");
        t.ask("let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, slow);");
        t.ask("let s = schedule::edm(net.noise, 120);");
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
    let mut t = open(home.path(), 80, &["--inspect", "s.rhai", "--set", "n=2"]);
    assert_eq!(t.ask("[made, twice(4)]"), "[[0, 2], 8]\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    // also after an error
    let mut t = open(home.path(), 40, &["-i", "bad.rhai"]);
    assert!(t.contents().contains("bad.rhai:3:8"), "{}", t.contents());
    assert_eq!(t.ask("f(1)"), "5\n");
    assert!(t.ask("after").contains("unknown variable"));
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn the_startup_file() {
    let file = "xdg_config_home/ld3sh/startup.rhai";
    let home = home(&[(file, "let greeting = \"hi\"; fn hello(x) { greeting + x }\n")]);
    let mut t = open(home.path(), 80, &[]);
    assert_eq!(t.ask("hello(\" you\")"), "\"hi you\"\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    let mut t = open(home.path(), 80, &["--no-startup"]);
    assert!(t.ask("greeting").contains("unknown variable `greeting`"));
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    // its errors are told, and the session starts anyway
    std::fs::write(home.path().join(file), "let early = 1;\nnothing();\n").unwrap();
    let mut t = open(home.path(), 80, &[]);
    assert!(t.contents().contains("startup.rhai:2:1"), "{}", t.contents());
    assert_eq!(t.ask("early"), "1\n");
}
