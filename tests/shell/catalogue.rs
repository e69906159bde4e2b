//! What the catalogue knows of the functions that scripts can call.
use ld3sh::script::engine::STACK;
use ld3sh::shell::catalogue::{Catalogue, Kind, Origin};
use ld3sh::shell::session::{Session, Settings};

fn with_catalogue(check: impl FnOnce(&Catalogue) + Send + 'static) {
    let body = move || check(Session::new(Settings { seed: 0, out: "out".into() }).catalogue());
    std::thread::Builder::new().stack_size(STACK).spawn(body).expect("a thread").join().expect("the test");
}

/// The engine of the library alone reads all that the shell's does: a module that does not parse is in no help.
#[test]
fn every_built_in_module_is_read() {
    let engine = ld3sh::script::engine::new(&Default::default());
    for (name, text) in ld3sh::script::modules::STDLIB {
        engine.compile(*text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn names_and_signatures() {
    with_catalogue(|c| {
        let unipc = &c.get("solver::unipc")[0];
        assert_eq!((unipc.kind, unipc.returns.as_deref()), (Kind::Function, Some("Solver")));
        assert_eq!(unipc.signatures, ["solver::unipc() -> Solver", "solver::unipc(options: map) -> Solver"]);
        let alpha = &c.get("alpha")[0];
        assert_eq!((alpha.kind, alpha.title().as_str()), (Kind::Method, "Noise.alpha"));
        assert_eq!(alpha.signatures, ["alpha(t)"]);
        let sum = &c.get("sum")[0];
        assert_eq!((sum.kind, sum.receiver.as_deref()), (Kind::Function, Some("Tensor")));
        assert_eq!(sum.as_method()[1], "sum(dims: array) -> Tensor");
        let lr = &c.get("lr")[0];
        assert!(lr.writable && lr.kind == Kind::Property);
        assert_eq!(c.find("Tensor.shape")[0].signatures, ["shape: array"]);
        assert!(c.get("ld3::train")[0].origin == Origin::Stdlib);
        assert!(c.get("no_such_function").is_empty());
        assert!(c.get("for")[0].kind == Kind::Keyword && c.get("Tensor")[0].kind == Kind::Type);
        assert!(c.iter().all(|e| e.name.starts_with(|c: char| c.is_alphabetic())), "an operator is no name");
    });
}

/// A type of Rust that no user knows must not show.
#[test]
fn types_are_the_users() {
    with_catalogue(|c| {
        for e in c.iter().filter(|e| e.kind != Kind::Keyword) {
            for s in &e.signatures {
                assert!(!s.contains("::<") && !s.contains("Dyn") && !s.contains("Box") && !s.contains("i64"), "{s}");
                assert!(!s.replace("fn", "").contains('&'), "{s}");
            }
            let empty = e.signatures.is_empty() && !matches!(e.kind, Kind::Module | Kind::Type);
            assert!(!empty, "`{}` has no signature that a user can read", e.title());
            assert!(!e.summary.is_empty() || e.origin == Origin::Rhai, "`{}` has no summary", e.title());
        }
    });
}

#[test]
fn finding() {
    with_catalogue(|c| {
        assert_eq!(c.find("unipc")[0].name, "solver::unipc");
        assert_eq!(c.find("Noise.alpha")[0].name, "alpha");
        assert!(c.find("save").len() >= 3);
        assert_eq!(c.nearest("unipcc").as_deref(), Some("solver::unipc"));
        assert_eq!(c.nearest("solver::unipx").as_deref(), Some("solver::unipc"));
        assert_eq!(c.nearest("Noise.alhpa").as_deref(), Some("Noise.alpha"));
        assert_eq!(c.nearest("qqqqqqqqqqqq"), None);
        let found: Vec<_> = c.search("schedule").iter().map(|e| e.title()).collect();
        assert!(found[0].to_lowercase().contains("schedule"), "{found:?}");
        assert!(found.contains(&"tau".to_string()), "{found:?}");
        assert!(c.search("logsnr steps").iter().any(|e| e.name == "schedule::logsnr"));
        assert!(c.search("qqqqqq").is_empty());
        assert!(c.methods_of("Tensor").any(|e| e.name == "sum") && c.methods_of("Tensor").any(|e| e.name == "shape"));
        assert!(c.methods_of("array").any(|e| e.name == "push") && c.methods_of("string").any(|e| e.name == "trim"));
        assert!(c.namespace("noise").any(|e| e.bare() == "edm"));
        assert!(c.namespaces().contains("solver") && !c.namespaces().contains("ld3"));
    });
}

/// Functions of a type that the catalogue has no words for would be in no help, no reference and no test of examples.
#[test]
fn every_type_of_the_engine_is_in_the_catalogue() {
    let body = || {
        let session = Session::new(Settings { seed: 0, out: "out".into() });
        let json = session.engine().gen_fn_metadata_to_json(false).expect("metadata");
        let whole: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let types = whole["customTypes"].as_array().expect("types");
        assert!(types.len() > 20, "{}", types.len());
        let known = |name: &str| session.catalogue().get(name).iter().any(|e| e.kind == Kind::Type);
        let names = types.iter().filter_map(|t| t["displayName"].as_str());
        let missing: Vec<&str> = names.filter(|n| !known(n)).collect();
        assert!(missing.is_empty(), "src/shell/catalogue/words.rs has no words for {missing:?}");
    };
    std::thread::Builder::new().stack_size(STACK).spawn(body).expect("a thread").join().expect("the test");
}
