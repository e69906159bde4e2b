//! `help`, `apropos`, `name?`, and what `:source`, `:vars`, `:type` answer.
use ld3sh::script::engine::STACK;
use ld3sh::shell::help::{self, page::Style};
use ld3sh::shell::session::{Session, Settings};

/// Runs `check` in a session that has evaluated `lines`.
fn after(lines: &'static [&'static str], check: impl FnOnce(&mut Session) + Send + 'static) {
    let body = move || {
        let mut s = Session::new(Settings { seed: 0, out: "out".into() });
        for l in lines {
            assert!(s.evaluate_line(l).is_ok(), "{l}");
        }
        check(&mut s);
    };
    std::thread::Builder::new().stack_size(STACK).spawn(body).expect("a thread").join().expect("the test");
}

fn ask(s: &Session, line: &str) -> String {
    help::answer_in(s, line, Style { width: 80, color: false }).unwrap_or_else(|| panic!("`{line}` is no question"))
}

#[test]
fn pages() {
    after(&[], |s| {
        for line in ["help unipc", "help(\"solver::unipc\")", "unipc?", "solver::unipc?"] {
            let page = ask(s, line);
            assert!(page.starts_with("solver::unipc") && page.contains("Options") && page.contains("order"), "{page}");
            assert!(page.contains("Example") && page.contains("solver::unipc("), "{page}");
        }
        let overview = ask(s, "help");
        for word in ["Sampling", "apropos", "solver", "ld3"] {
            assert!(overview.contains(word), "{overview}");
        }
        assert!(ask(s, "help solver").contains("heun"));
        assert!(ask(s, "help Tensor").contains("cumsum"));
        assert!(ask(s, "help switch").contains("=>"));
        assert!(ask(s, "help functions").contains("tau_inverse"));
        assert!(ask(s, "help ld3").contains("import \"ld3\""));
        assert!(ask(s, "help save").contains("Also"));
        assert!(ask(s, "apropos even steps").contains("schedule::uniform"));
        assert!(ask(s, "help unipcc").contains("Did you mean `solver::unipc`?"));
        assert!(ask(s, "apropos qqqqqq").contains("Nothing"));
        assert!(help::answer_in(s, "1 + 1", Style::PLAIN).is_none());
    });
}

/// The overview names nothing that is not there.
#[test]
fn the_overview_is_true() {
    after(&[], |s| {
        let overview = help::answer_in(s, "help", Style { width: 1000, color: false }).expect("a page");
        let topics = overview.split("\nModules\n").next().expect("a part");
        let names: Vec<&str> =
            topics.lines().filter_map(|l| l.strip_prefix("  ")).flat_map(|l| l.split(", ")).collect();
        assert!(names.len() > 30, "{overview}");
        for name in names {
            assert!(!s.catalogue().find(name).is_empty(), "`{name}` is in the overview only");
        }
    });
}

#[test]
fn pages_fit_the_screen() {
    after(&[], |s| {
        for width in [40, 80] {
            for line in ["help", "help tau", "help solver", "apropos schedule", "help Tensor"] {
                let page = help::answer_in(s, line, Style { width, color: false }).expect("a page");
                // code is not broken, so that it can be copied
                let long: Vec<&str> = page
                    .split("\nExample\n")
                    .next()
                    .expect("a part")
                    .lines()
                    .filter(|l| l.chars().count() > width)
                    .collect();
                assert!(long.is_empty(), "{width}: {long:#?}");
            }
        }
        let page = help::answer_in(s, "help tau", Style { width: 80, color: true }).expect("a page");
        assert!(page.contains("\x1b[1mtau\x1b[0m"), "{page:?}");
    });
}

#[test]
fn variables_and_their_methods() {
    after(&["let n = noise::edm();", "let x = ones([2, 3]);", "/// Twice.\nfn twice(a) { 2 * a }"], |s| {
        assert!(ask(s, "n.alpha?").starts_with("Noise.alpha"));
        assert!(ask(s, "x.sum?").starts_with("sum"));
        assert!(ask(s, "x?").contains("Tensor"));
        assert!(ask(s, "x.summ?").contains("Did you mean"));
        let own = ask(s, "help twice");
        assert!(own.contains("twice(a)") && own.contains("Twice."), "{own}");
    });
}

#[test]
fn sources() {
    after(&["fn f(x) { x }", "/// Doc.\nfn f(x) {\n    x + 1\n}", "import \"ld3\" as m;"], |s| {
        let newest = help::source(s, "f").expect("a function");
        assert_eq!(newest, "// input 2\n/// Doc.\nfn f(x) {\n    x + 1\n}");
        assert!(help::source(s, "ld3::train").expect("stdlib").contains("fn train(net, solver, pairs, options) {"));
        assert!(help::source(s, "m::defaults").expect("an alias").contains("fn defaults(nfe)"));
        assert!(help::source(s, "ld3").expect("a module").contains("//! LD3"));
        assert!(help::source(s, "unipc").expect_err("native").to_string().contains("native"));
        assert!(help::source(s, "qqqq").expect_err("unknown").to_string().contains("qqqq"));
    });
}

#[test]
fn variables_and_types() {
    after(&["let x = ones([2, 3]);", "const N = 3; let list = [1, 2]; let x = zeros([128, 1024]);"], |s| {
        let table = help::vars(s, "").expect("a table");
        let x = table.lines().find(|l| l.starts_with("x ")).expect("a row");
        for part in ["Tensor", "[128, 1024]", "f32", "512 KiB"] {
            assert!(x.contains(part), "{table}");
        }
        assert!(table.contains("const int") && table.contains("array"), "{table}");
        assert_eq!(table.matches("Tensor").count(), 1, "{table}");
        assert!(!help::vars(s, "list").expect("a part").contains("Tensor"));
        let mut ty = |e: &str| help::type_of(s, e).map_err(|f| f.error).expect("a type");
        assert_eq!(ty("x.sum()"), "Tensor [] f32");
        assert_eq!(ty("1.5"), "float");
        assert_eq!(ty("|a| a"), "function");
        assert_eq!(ty("[1, 2]"), "array of length 2");
        assert_eq!(ty("solver::heun()"), "Solver");
        assert!(help::type_of(s, "no_such()").is_err());
    });
}
