//! The REPL in a real pseudo-terminal; what is asserted is the screen that a user sees.
use crate::terminal::Terminal;
use std::path::Path;
use std::time::Duration;

fn open(home: &Path, columns: u16) -> Terminal {
    let mut t = Terminal::open(home, columns, &[("NO_COLOR", "1")]);
    t.patience = Duration::from_secs(15);
    t
}

#[test]
fn a_session() {
    let home = tempfile::tempdir().unwrap();
    let mut t = open(home.path(), 80);
    t.enter("let a = 20;");
    t.enter("fn add(x) { x + 1 }");
    t.enter("let f = |x| add(x) + a;");
    t.enter("f.call(1)");
    t.wait("\n22\n");
    t.enter("a + 111;");
    assert!(!t.contents().contains("\n131"), "`;` silences the echo:\n{}", t.contents());
    t.enter("nothing(1)");
    t.wait("unknown function `nothing`");
    // several lines while a bracket is open
    t.send("let v = [\r1,\r");
    t.wait("[\n1,");
    t.enter("2];");
    t.enter("v");
    t.wait("\n[1, 2]\n");
    // Ctrl-C at the prompt clears the line
    t.send("let b = 5");
    t.wait("let b = 5");
    t.press("\x03");
    t.enter("a - 3");
    t.wait("\n17\n");
    // Ctrl-C during a computation stops it, and the session lives on
    t.send("loop { a += 1; }\r");
    std::thread::sleep(Duration::from_millis(300));
    t.press("\x03");
    t.wait("stopped by Ctrl-C");
    t.enter("if a > 20 { \"alive\" }");
    t.wait("\n\"alive\"\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    let history = std::fs::read_to_string(home.path().join("ld3sh/history.txt")).unwrap();
    assert!(history.contains("let a = 20;"), "{history}");

    // the history is there in the next session
    let mut t = open(home.path(), 40);
    t.send("\x1b[A\x1b[A");
    t.wait("\"alive\"");
    t.press("\x03");
    t.send("\x04");
    assert_eq!(t.exit_code(), 0);
}

/// What never looks for Ctrl-C is left behind by the second press, after a word of warning.
#[test]
#[cfg(unix)]
fn two_presses_always_bring_the_prompt_back() {
    let home = tempfile::tempdir().unwrap();
    let mut t = open(home.path(), 100);
    t.enter("let a = 20;");
    // Rhai compares texts of its own, letter by letter, for many seconds
    t.enter("let s = \"\"; s.pad(30000000, \"x\"); let l = []; l.pad(100000, s);");
    t.send("l.sort()\r");
    std::thread::sleep(Duration::from_millis(300));
    t.send("\x03");
    t.wait("has not heard Ctrl-C yet");
    t.press("\x03");
    t.wait("this is a new session");
    t.enter("[1 + 1, is_def_var(\"a\")]");
    t.wait("\n[2, false]\n");
    // what hears it is never left behind
    t.send("loop { }\r");
    std::thread::sleep(Duration::from_millis(300));
    t.press("\x03");
    t.enter("let b = 7;");
    t.enter("b + 35");
    t.wait("\n42\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
    let history = std::fs::read_to_string(home.path().join("ld3sh/history.txt")).unwrap();
    assert!(history.contains("let a = 20;") && history.contains("l.sort()"), "{history}");
}

#[test]
fn a_network_from_earlier_lines() {
    let home = tempfile::tempdir().unwrap();
    let mut t = open(home.path(), 120);
    t.enter("fn half(x) { x * 0.5 }");
    t.enter("let k = 3.0;");
    t.enter("let f = |x, sigma, cond| half(x) * k;");
    t.enter("let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\" }, f);");
    t.enter("let n = 7;");
    t.enter("net.denoise(ones([1, 2]), 1.0).sum().item()");
    t.wait("\n3.0\n");
    // a new function of the same name counts, as it does for any caller
    t.enter("fn half(x) { x * 5.0 }");
    t.enter("net.denoise(ones([1, 2]), 1.0).sum().item()");
    t.wait("\n30.0\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
}

/// A terminal that knows no escape sequences gets none, at the prompt and from a script.
#[test]
fn a_dumb_terminal_gets_no_escapes() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("s.rhai"), "print(1 + 1);\nnothing(1);\n").unwrap();
    let mut t = Terminal::open(home.path(), 80, &[("TERM", "dumb")]);
    t.patience = Duration::from_secs(15);
    t.send("1 + 10\r");
    t.wait("\n11\n");
    t.send(":load s.rhai\r");
    t.wait("unknown function `nothing`");
    assert!(!t.raw().contains('\u{1b}'), "{:?}", t.raw());
}

/// What went wrong can be read without scrolling back.
#[test]
fn a_report_longer_than_the_screen_ends_with_its_message() {
    let home = tempfile::tempdir().unwrap();
    let calls: String = (0..12).map(|i| format!("fn f{i}() {{\n    f{}()\n}}\n", i + 1)).collect();
    std::fs::write(home.path().join("s.rhai"), format!("{calls}fn f12() {{ missing_one(1) }}\nf0();\n")).unwrap();
    for (rows, told) in [(12, 1), (120, 1)] {
        let mut t = Terminal::open_with(home.path(), rows, 80, &[], &[("NO_COLOR", "1")]);
        t.patience = Duration::from_secs(15);
        t.enter(":load s.rhai");
        t.wait("unknown function `missing_one`");
        t.enter("20 + 1");
        t.wait("\n21\n");
        // in twelve rows the first one is out of sight
        assert_eq!(t.contents().matches("error: unknown function").count(), told, "{}", t.contents());
    }
}
