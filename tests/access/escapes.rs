//! What a terminal would obey is shown.
use crate::terminal;
use crate::world::World;
use std::path::Path;

/// A title that a terminal would take, and what else it would obey.
const ESCAPES: &str = "\\x1b]0;owned\\x07\\x1b[2J\\u009b31m\\r";

/// Whether text holds what a terminal obeys.
fn obeyed(text: &str) -> bool {
    text.contains("\x1b]0;owned") || text.contains("\x1b[2J") || text.contains('\u{9b}') || text.contains("\x1b[31m")
}

#[test]
fn names_from_files_are_shown_not_obeyed() {
    let w = World::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/strangers");
    for f in ["safetensors-escape-name-print.safetensors", "schedule-name-escape.json"] {
        std::fs::copy(fixtures.join(f), w.at("work").join(f)).unwrap();
    }
    for code in [
        "let c = checkpoint::open(\"safetensors-escape-name-print.safetensors\");",
        "let c = load_schedule(\"schedule-name-escape.json\", #{ accept_edits: true });",
    ] {
        for rest in ["print(c)", "print(c.to_string())", "c", "print([c])", "throw c", "c.no_such_method()", "show(c)"]
        {
            let o = w.run(&["-e", &format!("{code} {rest}")]);
            let text = [o.stdout, o.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{code} {rest}: {text:?}");
        }
    }
    let o = w.run(&["-e", "print(checkpoint::open(\"safetensors-escape-name-print.safetensors\"))"]);
    assert!(String::from_utf8_lossy(&o.stdout).contains('␛'));
}

/// Whatever a script or a file brings is shown on a terminal, and our own colours work beside it.
#[test]
fn a_terminal_is_shown_not_told() {
    let w = World::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/strangers");
    let schedule = fixtures.join("schedule-name-escape.json").display().to_string();
    w.put(
        "work/m.rhai",
        &format!(
            "/// {} f\nfn f(x) {{ x }}\nfn g() {{ throw \"{ESCAPES}\" }}",
            ESCAPES.replace("\\x1b", "\x1b").replace("\\x07", "\x07")
        ),
    );
    w.put(
        "work/s.rhai",
        &format!("// {}\nprint(\"{ESCAPES}\"); print(1);", ESCAPES.replace("\\x1b", "\x1b").replace("\\x07", "\x07")),
    );
    std::fs::write(w.at("work").join("\x1b]0;owned\x07.npy"), "").unwrap();
    let mut t = terminal::Terminal::open_with(&w.at("work"), 40, 100, &[], &[]);
    for line in [
        format!("print(\"{ESCAPES}\")"),
        format!("debug(\"{ESCAPES}\")"),
        format!("throw \"{ESCAPES}\""),
        format!("\"{ESCAPES}\""),
        format!("table([[\"{ESCAPES}\"]])"),
        format!("#{{ \"{ESCAPES}\": 1 }}"),
        format!("json::load(\"{ESCAPES}\")"),
        format!(
            "let bar = progress(\"{ESCAPES}\", 3); bar.note(\"{ESCAPES}\"); for i in 0..3 {{ bar.advance(); sleep(0.15); }}"
        ),
        "import \"m\" as m; m::g()".into(),
        "m::f?".into(),
        ":source m::f".into(),
        ":source m".into(),
        ":load s.rhai".into(),
        format!("let c = load_schedule(\"{schedule}\", #{{ accept_edits: true }})"),
        "c".into(),
        "c?".into(),
        "show(c)".into(),
        "show([c])".into(),
        ":time c".into(),
        ":vars".into(),
        "!true".into(),
    ] {
        let before = t.raw().len();
        t.enter(&line);
        let shown = t.raw()[before..].to_string();
        assert!(!obeyed(&shown), "{line}: {shown:?}");
    }
    for typed in ["load(\"\t", "m::\t", "m::f(", "f\t"] {
        t.send(typed);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(!obeyed(&t.raw()), "{typed:?}");
        t.send("\x03");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(t.raw().contains('␛') && t.raw().contains("\x1b[1m"), "pictures, and the prompt's own colour");
}

/// What a script writes to a file or a pipe is what it wrote.
#[test]
fn pipes_get_what_was_written() {
    let w = World::new();
    let (_, text) = w.script("print(\"\\x1b[1mbold\")", &[]);
    assert_eq!(text, "\x1b[1mbold\n");
}
