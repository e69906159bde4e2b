//! What Tab offers, by what is known where the cursor is.
use ld3sh::script::context::SharedRun;
use ld3sh::shell::catalogue::Catalogue;
use ld3sh::shell::repl::completion::types::Shape;
use ld3sh::shell::repl::completion::{Imported, Known, complete};
use ld3sh::shell::show;
use rhai::{Dynamic, Engine};

/// Completes at `|`, with some variables, functions and imports.
struct Session {
    commands: Vec<(String, &'static str)>,
    engine: Engine,
    catalogue: Catalogue,
    folder: tempfile::TempDir,
}

impl Session {
    fn new() -> Self {
        let run = SharedRun::default();
        let mut engine = ld3sh::script::engine::new(&run);
        show::register(&mut engine, &run);
        let catalogue = Catalogue::of(&engine);
        let folder = tempfile::tempdir().unwrap();
        for f in ["steps.json", "step two.png", ".hidden", "mine.rhai"] {
            std::fs::write(folder.path().join(f), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/inner.npy"), "").unwrap();
        let commands = [(":time", "how long"), (":type", "the type"), (":load", "a file")];
        let commands = commands.map(|(name, what)| (name.to_string(), what)).into();
        Session { commands, engine, catalogue, folder }
    }
    fn known(&self) -> Known<'_> {
        let code = "#{ x: ones([2]), run: #{ loss: 0.5, schedule: schedule::edm(noise::edm(), 3) },
                      nets: [denoiser::gaussian(#{ mean: [0.5], std: 0.3 })], n: 3, s: \"a\", edm: noise::edm() }";
        let values = self.engine.eval::<Dynamic>(code).unwrap();
        let Shape::Map(variables) = Shape::from_value(&self.engine, &values) else { panic!() };
        let mine = Imported {
            built_in: None,
            functions: vec!["train(net, steps)".into(), "valid(x)".into()],
            variables: vec!["total".into()],
        };
        let method = Imported { built_in: Some("ld3".into()), ..Imported::default() };
        Known {
            catalogue: &self.catalogue,
            variables,
            functions: vec!["my_loss(x, y)".into()],
            imports: [("mine".to_string(), mine), ("method".to_string(), method)].into(),
            commands: &self.commands,
            folder: self.folder.path().to_path_buf(),
        }
    }
    /// The text before the candidates, and their texts.
    fn at(&self, marked: &str) -> (String, Vec<String>) {
        let at = marked.find('|').unwrap();
        let text = marked.replacen('|', "", 1);
        let (start, found) = complete(&mut self.known(), &text, at);
        (text[..start].to_string(), found.into_iter().map(|c| c.text).collect())
    }
    #[track_caller]
    fn has(&self, marked: &str, start: &str, some: &[&str], none: &[&str]) {
        let (before, found) = self.at(marked);
        assert_eq!(before, start, "{marked}");
        for s in some {
            assert!(found.iter().any(|f| f == s), "{marked}: no {s} among {found:?}");
        }
        for n in none {
            assert!(!found.iter().any(|f| f == n), "{marked}: {n} among {found:?}");
        }
    }
    #[track_caller]
    fn is(&self, marked: &str, all: &[&str]) {
        assert_eq!(self.at(marked).1, all, "{marked}");
    }
}

#[test]
fn names() {
    let s = Session::new();
    s.has("sch|", "", &["schedule::"], &["x"]);
    s.has("f(my|", "f(", &["my_loss"], &[]);
    s.has("let y = nois|", "let y = ", &["noise", "noise::"], &[]);
    s.has("|", "", &["x", "my_loss", "solver::", "method::"], &["let", "abs"]);
    s.has("ret|", "", &["return"], &[]);
    s.is("nothing_like_it|", &[]);
    s.has("a + x|", "a + ", &["x"], &[]);
    // in the middle of a text
    s.has("f(my|, 3)", "f(", &["my_loss"], &[]);
}

#[test]
fn names_of_the_input_itself() {
    let s = Session::new();
    s.has("fn half(value) { va|", "fn half(value) { ", &["value"], &[]);
    s.has("let total_loss = 1;\ntot|", "let total_loss = 1;\n", &["total_loss"], &[]);
    s.has("fn half(v) { v } ha|", "fn half(v) { v } ", &["half"], &[]);
    s.has("for index in 0..3 { ind|", "for index in 0..3 { ", &["index"], &[]);
    // here the bar is a closure's, so the cursor is marked by the text's end
    let text = "xs.map(|value| va";
    let (start, found) = complete(&mut s.known(), text, text.len());
    assert_eq!(&text[start..], "va");
    assert!(found.iter().any(|c| c.text == "value"), "{found:?}");
}

#[test]
fn modules() {
    let s = Session::new();
    s.has("solver::|", "solver::", &["unipc", "ddim", "heun"], &["edm"]);
    s.has("solver::un|", "solver::", &["unipc"], &["ddim"]);
    s.has("sample(net, solver::un|", "sample(net, solver::", &["unipc"], &[]);
    s.is("mine::tr|", &["train"]);
    s.is("mine::t|", &["total", "train"]);
    s.has("method::tra|", "method::", &["train"], &[]);
    s.is("nowhere::|", &[]);
}

#[test]
fn members_of_values() {
    let s = Session::new();
    s.has("x.|", "x.", &["shape", "sum", "mean"], &["with_matrix"]);
    s.has("x.sha|", "x.", &["shape"], &["sum"]);
    s.has("run.|", "run.", &["loss", "schedule", "keys"], &["shape"]);
    s.has("run.schedule.|", "run.schedule.", &["nfe", "sigmas"], &["loss"]);
    s.has("nets[0].|", "nets[0].", &["denoise", "classes"], &["sigmas"]);
    s.has("s.|", "s.", &["to_upper", "len"], &["denoise"]);
    s.has("edm.|", "edm.", &["sigma", "alpha"], &["denoise"]);
    s.has("x?.sha|", "x?.", &["shape"], &[]);
}

#[test]
fn members_of_calls_and_literals() {
    let s = Session::new();
    s.has("noise::edm().al|", "noise::edm().", &["alpha"], &[]);
    s.has("solver::unipc(#{ order: 3 }).|", "solver::unipc(#{ order: 3 }).", &["plan"], &["sigmas"]);
    s.has("schedule::edm(edm, 5).|", "schedule::edm(edm, 5).", &["nfe"], &["plan"]);
    s.has("solver::unipc().plan(run.schedule).|", "solver::unipc().plan(run.schedule).", &["matrix"], &["nothing"]);
    s.has("ones([2]).su|", "ones([2]).", &["sum"], &[]);
    s.has("x.sum().|", "x.sum().", &["item"], &[]);
    s.has("(x).|", "(x).", &["shape"], &[]);
    s.has("x[0].|", "x[0].", &["shape"], &[]);
    s.has("\"a\".|", "\"a\".", &["len"], &["shape"]);
    s.has("[1, 2].|", "[1, 2].", &["push", "map"], &["shape"]);
    s.has("#{ a: x }.a.|", "#{ a: x }.a.", &["shape"], &[]);
    s.has("let y = x.sum();\ny.|", "let y = x.sum();\ny.", &["item"], &["plan"]);
    // of unknown type: what was begun, of all of ld3sh's types
    s.is("what().|", &[]);
    s.has("what().with_m|", "what().", &["with_matrix"], &[]);
}

#[test]
fn option_keys() {
    let s = Session::new();
    s.has("solver::unipc(#{ |", "solver::unipc(#{ ", &["order: ", "variant: "], &["x"]);
    s.has("solver::unipc(#{ or|", "solver::unipc(#{ ", &["order: "], &["variant: "]);
    s.has("solver::unipc(#{ order: 3, |", "solver::unipc(#{ order: 3, ", &["variant: "], &["order: "]);
    s.has("image::grid(x, #{ |", "image::grid(x, #{ ", &["cols: ", "scale: "], &["order: "]);
    s.has("nets[0].guided(2.0, #{ |", "nets[0].guided(2.0, #{ ", &["interval: "], &[]);
    // a value stands behind the colon
    s.has("solver::unipc(#{ order: |", "solver::unipc(#{ order: ", &["x"], &["variant: "]);
    // of a map that is no function's options
    s.has("let m = #{ |", "let m = #{ ", &["x"], &["order: "]);
}

#[test]
fn files_and_modules() {
    let s = Session::new();
    s.is("load(\"ste|", &["step two.png", "steps.json"]);
    s.is("load(\"|", &["mine.rhai", "step two.png", "steps.json", "sub/"]);
    s.is("load(\"sub/|", &["inner.npy"]);
    s.is("load(\".h|", &[".hidden"]);
    s.is("load(\"nowhere/|", &[]);
    s.is("load(`ste|", &["step two.png", "steps.json"]);
    s.is(
        "import \"|",
        &[
            "amed",
            "ays",
            "bezier",
            "bns",
            "cache",
            "coefficients",
            "discriminator",
            "dyweight",
            "epd",
            "experiment",
            "free",
            "ggdm",
            "gits",
            "gs",
            "ld3",
            "learn",
            "measure",
            "mine",
            "nn",
            "oss",
            "s4s",
            "shapes",
            "shares",
            "squares",
            "sub/",
            "tools",
            "train",
        ],
    );
    s.is("import \"l|", &["ld3", "learn"]);
    s.is(":load mi|", &["mine.rhai"]);
    s.is("!cat ste|", &["step two.png", "steps.json"]);
    assert_eq!(s.at("load(\"sub/in|").0, "load(\"sub/");
}

#[test]
fn commands() {
    let s = Session::new();
    s.is(":t|", &[":time", ":type"]);
    s.is(":|", &[":load", ":time", ":type"]);
    s.has(":time x.|", ":time x.", &["shape"], &[]);
    s.has("help solver::un|", "help ", &["solver::unipc"], &[]);
    s.has("help Tens|", "help ", &["Tensor"], &[]);
}

#[test]
fn nothing_in_comments() {
    let s = Session::new();
    for text in ["// x|", "/* x|", "1 // |"] {
        s.is(text, &[]);
    }
}

#[test]
fn indentation() {
    let s = Session::new();
    s.is("fn f() {\n|", &["    "]);
    s.is("fn f() {\n  |", &["    "]);
    s.is("fn f() {\n    |", &[]);
    s.is("f(g(#{\n|", &["    "]);
}

#[test]
fn signatures_and_descriptions() {
    let s = Session::new();
    let (_, found) = complete(&mut s.known(), "solver::uni", 11);
    assert_eq!(found[0].signature, "unipc(options: map) -> Solver", "{found:?}");
    assert!(found[0].doc.len() > 10, "{found:?}");
    let (_, found) = complete(&mut s.known(), "x.sha", 5);
    assert!(found.iter().any(|c| c.text == "shape" && c.signature.starts_with("shape: ")), "{found:?}");
}

#[test]
fn any_text_at_any_place() {
    let s = Session::new();
    for text in [
        "x.y::z(#{ a: [1, \"b\\\"",
        ")]}.",
        "é.ü::",
        "`${x.",
        "#{#{#{",
        "..",
        "::",
        "? ?.",
        "'",
        "1.",
        "((x)",
        "x[",
        "\n\n",
    ] {
        for at in 0..=text.len() + 2 {
            let (start, _) = complete(&mut s.known(), text, at);
            assert!(start <= text.len(), "{text:?} at {at}");
        }
    }
}
