//! Typing and seeing at the prompt, in a real pseudo-terminal; what is asserted is the screen that a user sees.
use crate::terminal::Terminal;

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The prompt's last line.
fn typed(t: &Terminal) -> String {
    t.contents().lines().rev().find(|l| l.starts_with("ld3>")).unwrap_or_default().trim_end().to_string()
}

#[test]
fn tab_completes_lists_and_goes_through() {
    let home = home();
    let mut t = Terminal::open(home.path(), 80, &[]);
    // one that fits, then its beginning
    t.send("solver::unip\t");
    t.wait("ld3> solver::unipc");
    t.press("\x03");
    // several: what they share, and a list with signatures and descriptions
    t.send("solver::dp\t");
    t.wait_until("a list", |s| s.contains("dpmpp(options: map) -> Solver") && s.contains("data prediction"));
    t.wait_until("the prompt below", |s| s.trim_end().ends_with("ld3> solver::dpm(options: map) -> Solver"));
    // again: through them, one after the other
    t.send("\t\t");
    t.wait("\nld3> solver::dpm2");
    t.press("\x03");
    // members of the value before the dot, keys of options
    t.enter("let steps = schedule::edm(noise::edm(), 3);");
    t.send("steps.sig\t");
    t.wait("ld3> steps.sigmas");
    t.press("\x03");
    t.send("solver::unipc(#{ vari\t");
    t.wait("ld3> solver::unipc(#{ variant:");
    t.press("\x03");
    t.send("import \"ld\t");
    t.wait("ld3> import \"ld3");
    t.press("\x03");
    t.send("\x04");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn lists_fit_forty_columns() {
    let home = home();
    let mut t = Terminal::open(home.path(), 40, &[("NO_COLOR", "1")]);
    t.send("solver::dp\t");
    t.wait_until("the prompt below", |s| s.trim_end().ends_with("ld3> solver::dpm") && s.contains('…'));
    let list: Vec<String> = t.contents().lines().filter(|l| l.starts_with("dpm")).map(Into::into).collect();
    // a row each: none is folded
    assert!(list.len() >= 2 && list.iter().all(|l| l.chars().count() < 40), "{list:?}");
    t.press("\x03");
    t.enter("schedule::edm(noise::edm(), 3)");
    t.wait("steps in ln sigma ");
    t.enter("#{ name: \"a long name that does not fit\", steps: [80.0, 24.4, 5.8, 0.96, 0.085] }");
    t.wait("  name:  \"a long");
    // what is wider than the terminal shows as one longer line here
    let contents = t.contents();
    let echoed = contents.lines().skip_while(|l| !l.starts_with("schedule `edm`"));
    assert!(echoed.filter(|l| !l.starts_with("ld3>")).all(|l| l.chars().count() <= 40), "{contents}");
}

#[test]
fn hints_and_colours() {
    let home = home();
    let mut t = Terminal::open(home.path(), 80, &[]);
    t.enter("let alpha_value = 41;");
    t.send("let al");
    t.wait_until("a hint", |s| s.matches("ld3> let alpha_value = 41;").count() == 2);
    assert_eq!(t.color_of("pha_value"), Some(8), "the hint is grey");
    assert_eq!(t.color_of("let"), Some(5), "a keyword");
    // the right arrow takes it
    t.press("\x1b[C\x7f + 1;\r");
    t.enter("alpha_value");
    t.wait("\n42\n");
    // parameters behind an opening parenthesis
    t.send("solver::unipc(");
    t.wait("ld3> solver::unipc(options: map)");
    t.press("\x03");
    // search backwards
    t.send("\x12alpha_value =");
    t.wait("reverse-i-search");
    t.wait("let alpha_value = 41 + 1;");
    t.press("\r");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);

    // no colours, no hints that could not be told from what was typed
    let mut t = Terminal::open(home.path(), 80, &[("NO_COLOR", "1")]);
    t.send("let al");
    t.wait("ld3> let al");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(typed(&t), "ld3> let al");
    assert_eq!(t.color_of("let"), None);
}

#[test]
fn several_lines() {
    let home = home();
    let mut t = Terminal::open(home.path(), 40, &[]);
    t.send("fn twice(x) {\r");
    // Tab indents an empty line
    t.send("\tx *\r");
    t.wait("\n    x *");
    t.send("2\r");
    t.press("}\r");
    t.enter("twice(4)");
    t.wait("\n8\n");
    // it comes back as a whole; up and down move in it
    t.send("\x1b[A\x1b[A");
    t.wait_until("the function again", |s| s.matches("fn twice(x) {").count() == 2);
    t.send("\x1b[A\x1b[A\x1b[A");
    t.press("\x05\x7f{ // edited\r");
    t.enter("twice(5)");
    t.wait("\n10\n");
    // a pasted script with blank lines and comments is one input
    t.press(
        "\x1b[200~// a script\nlet a = 1;\n\nfn inc(x) {\n    x + 1 // one more\n}\n\n/* the end */\ninc(a)\x1b[201~\r",
    );
    t.wait("\n2\n");
    // Ctrl-C clears a line that was begun
    t.send("let nonsense = (");
    t.press("\x03");
    t.enter("a");
    t.wait("\n1\n");
    t.send("\x04");
    assert_eq!(t.exit_code(), 0);
    let history = std::fs::read_to_string(home.path().join("ld3sh/history.txt")).unwrap();
    assert!(history.contains("// a script\\nlet a = 1;\\n\\nfn inc(x) {\\n    x + 1"), "{history}");
    // each input once
    assert_eq!(history.lines().filter(|l| *l == "twice(4)").count(), 1);
}

#[test]
fn the_last_value() {
    let home = home();
    let mut t = Terminal::open(home.path(), 80, &[]);
    t.enter("_");
    t.wait("_");
    t.enter("20 + 1");
    t.wait("\n21\n");
    t.enter("_ * 2;");
    assert!(!t.contents().contains("\n42"), "`;` silences the echo");
    t.enter("nothing_here(1)");
    t.enter("`${_} after an error`");
    t.wait("\n\"42 after an error\"\n");
    t.enter("let x = 3;");
    t.enter("switch _ { 1 => 2, _ => _.len() }");
    t.wait("\n17\n");
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
}

#[test]
fn pictures() {
    let home = home();
    let at = |graphics: &str, columns| Terminal::open(home.path(), columns, &[("LD3SH_GRAPHICS", graphics)]);
    let mut t = at("blocks", 40);
    t.enter("show(ones([2, 3, 8, 8]))");
    t.wait("▀▀▀▀");
    assert!(t.contents().lines().filter(|l| l.contains('▀')).all(|l| l.chars().count() <= 40));
    t.enter("show([3.0, 2.0, 0.5])");
    t.wait(" 3.0│");
    t.enter("show(schedule::edm(noise::edm(), 5))");
    t.wait("σ/α: 80");
    t.enter("show(1)");
    t.wait("cannot draw");
    drop(t);
    for (graphics, begins) in
        [("kitty", "\x1b_Ga=T,f=100,q=2,"), ("sixel", "\x1bP"), ("iterm", "\x1b]1337;File=inline=1")]
    {
        let mut t = at(graphics, 80);
        t.enter("show(zeros([8, 8]))");
        assert!(t.raw().contains(begins), "{graphics}");
    }
    let mut t = at("none", 80);
    t.enter("show(zeros([8, 8]))");
    t.wait("saved `out/show-1.png`");
    assert!(std::fs::read(home.path().join("out/show-1.png")).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn lines_are_added_and_ended_by_hand() {
    let home = tempfile::tempdir().unwrap();
    for columns in [80, 40] {
        let mut t = Terminal::open(home.path(), columns, &[]);
        // Alt-Enter adds a line to what Enter would end
        t.send("let a = 20;\x1b\ra + 1");
        t.wait("a + 1");
        t.press("\r");
        t.wait_until("the value", |s| s.lines().any(|l| l.trim() == "21"));
        // an empty line ends what only waits, and the parser says for what
        t.send("let b =\r");
        t.press("\r");
        t.wait("the script ends in the middle");
        t.enter("let c = 5 if a else 3");
        t.wait("syntax error");
        assert_eq!(t.ask("a"), "20\n");
        // what Tab completed shows its parameters
        t.send("solver::ipndm_\t");
        t.wait("solver::ipndm_v(");
        t.press("\x03");
    }
}

#[test]
fn reports_fold_at_40_columns() {
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::open(home.path(), 40, &[("NO_COLOR", "1")]);
    let shown = t.ask("matmul(ones([2, 3]), ones([2, 3]))");
    assert!(shown.starts_with("error: matmul: shapes [2, 3] and [2, 3]\n       do not fit\n"), "{shown}");
    let shown = t.ask("schedule::edm(noise::edm(), \"many\", 1, 2)");
    assert!(shown.contains("\n  = note: no version of it fits these\n"), "{shown}");
    assert!(shown.lines().all(|l| l.chars().count() <= 40), "{shown}");
}
