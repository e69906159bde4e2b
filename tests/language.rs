//! What scripts mean: loops, keys, parts, modules, caught errors, hints. The cases are in `fixtures/language/`.
#[path = "common/code.rs"]
mod code;
#[path = "common/process.rs"]
mod process;
use code::{session, shown};
use ld3sh::shell::catalogue::{Kind, Origin};
use ld3sh::shell::names::Names;
use ld3sh::shell::session::{Session, Settings};
use process::{err, ld3sh, out};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/language")
}

/// Output, standard error and exit code of a case.
fn case(name: &str, more: &[&str]) -> (String, String, Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let o = ld3sh(dir.path(), &dir.path().join("cache")).arg(fixtures().join(name)).args(more).output().unwrap();
    (out(&o), err(&o), o.status.code())
}

/// The value of each piece of code in a session of its own, or the report of its error.
fn values(codes: &[&str]) -> Vec<String> {
    let codes: Vec<String> = codes.iter().map(|c| c.to_string()).collect();
    codes.into_iter().map(|c| session(move |s| shown(s, &c))).collect()
}

#[track_caller]
fn all(cases: &[(&str, &str)]) {
    let codes: Vec<&str> = cases.iter().map(|c| c.0).collect();
    let wrong: Vec<String> = values(&codes)
        .into_iter()
        .zip(cases)
        .filter(|(got, (_, want))| got != want)
        .map(|(got, (code, want))| format!("{code}\n  is {got}\n  not {want}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each piece of code fails with a report that holds all these words.
#[track_caller]
fn fail(cases: &[(&str, &[&str])]) {
    let codes: Vec<&str> = cases.iter().map(|c| c.0).collect();
    let mut wrong = Vec::new();
    for (got, (code, words)) in values(&codes).into_iter().zip(cases) {
        if !got.starts_with("error: ") || words.iter().any(|w| !got.contains(w)) {
            wrong.push(format!("{code}\n{got}\n  lacks some of {words:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cases() {
    for (name, output) in [
        ("module_top_level/main.rhai", "6\n"),
        ("closures_in_loop.rhai", "[0, 1, 2]\n[0.10000000149011612, 0.5]\n"),
        ("array_slice.rhai", "[1.0, 2.0]\n"),
        ("closure_reads_its_array.rhai", "[1.0, 0.3333333333333333, 0.6666666666666666]\n"),
    ] {
        let (out, err, code) = case(name, &[]);
        assert_eq!((out.as_str(), code), (output, Some(0)), "{name}: {err}");
    }
    let (out, err, code) = case("catch_language_error.rhai", &[]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.len(), code), (4, Some(0)), "{out}{err}");
    for (line, kind) in lines.iter().zip(["value", "name", "type", "name"]) {
        assert!(line.starts_with(&format!("[\"Error\", \"{kind}\", ")), "{line}");
        assert!(!line.contains("anon$") && !line.contains("i64") && !line.contains("::Noise"), "{line}");
    }
    for (name, words, never) in [
        ("hint_in_try.rhai", vec!["scape sequence", "a backslash is written"], "try {"),
        ("half_range.rhai", vec!["(n / 2).to_int()"], "panicked"),
        (
            "loss_returns_number.rhai",
            vec!["the loss must return a tensor", "not a float", "loss_returns_number.rhai:4"],
            "shape`",
        ),
    ] {
        let (_, err, code) = case(name, &["--quiet"]);
        let title = err.lines().chain(err.lines().filter(|l| l.contains("help"))).collect::<Vec<_>>().join("\n");
        assert_eq!(code, Some(1), "{name}: {err}");
        assert!(words.iter().all(|w| err.contains(w)), "{name}: {err}");
        let hints: String = title.lines().filter(|l| l.contains("help:")).collect();
        assert!(!hints.contains(never), "{name}: {err}");
    }
    let (out, err, code) = case("sigma_list_rounded.rhai", &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.lines().next().unwrap_or_default().matches(',').count() == 10
            && err.contains("note: schedule::list: moved into the range"),
        "{out}{err}"
    );
    let (out, ..) = case("shebang_help.rhai", &["--help"]);
    assert!(out.starts_with("Draws samples."), "{out}");
    let (out, err, code) = case("help_checkpoint.rhai", &[]);
    assert!(code == Some(0) && out.starts_with("checkpoint::open"), "{out}{err}");
}

#[test]
fn each_pass_of_a_loop_has_variables_of_its_own() {
    all(&[
        ("let fs = []; for i in 0..3 { fs.push(|| i); } fs.map(|f| f.call())", "[0, 1, 2]"),
        ("let fs = []; for (x, i) in [7, 8] { fs.push(|| [x, i]); } fs.map(|f| f.call())", "[[7, 0], [8, 1]]"),
        // also past `continue`, and where the loop's own body changes the variable
        (
            "let fs = []; for i in 0..3 { fs.push(|| i); if i == 1 { continue; } i += 10; } fs.map(|f| f.call())",
            "[10, 1, 12]",
        ),
        (
            "let fs = []; for i in 0..2 { for j in 0..2 { fs.push(|| 10 * i + j); } } fs.map(|f| f.call())",
            "[0, 1, 10, 11]",
        ),
        (
            "fn make() { let fs = []; for i in 0..3 { fs.push(|| || i); } fs } make().map(|f| f.call().call())",
            "[0, 1, 2]",
        ),
        ("let last = for i in 0..9 { let f = || i; if f.call() == 4 { break f; } }; last.call()", "4"),
        // a closure and its pass share one variable
        ("let got = []; for i in 0..2 { let add = || i += 1; add.call(); got.push(i); } got", "[1, 2]"),
        ("let fs = []; let i = 0; while i < 3 { let k = i; fs.push(|| k); i += 1; } fs.map(|f| f.call())", "[0, 1, 2]"),
    ]);
}

#[test]
fn a_missing_key_is_an_error_unless_asked_for() {
    all(&[
        ("let m = #{ a: 1 }; m.b = 2; m[\"c\"] = 3; let k = \"d\"; m[k] = 4; m.keys()", "[\"a\", \"b\", \"c\", \"d\"]"),
        ("let m = #{ inn: #{} }; m.inn.b = 2; m[\"inn\"][\"c\"] = 3; m.inn", "#{ b: 2, c: 3 }"),
        ("let m = #{ list: [#{}] }; m.list[0].x = 5; m.list[0].x += 1; m.list[0].x", "6"),
        ("let m = #{}; m.f = || 3; m.f()", "3"),
        ("fn fill() { this.x = 1; } let m = #{}; m.fill(); m.x", "1"),
        (
            "let m = #{ a: 1 }; [m.b ?? 7, m.a ?? 7, m[\"c\"] ?? 8, m.get(\"b\"), \"b\" in m, m.x ?? m.a]",
            "[7, 1, 8, (), false, 1]",
        ),
        ("let m = #{ a: #{} }; [m.a.b ?? 2, m?.a?.b ?? 3]", "[2, 3]"),
    ]);
    fail(&[
        ("let m = #{ valid: 1, train: 2 }; m.vaild", &["no key `vaild`", "did you mean `valid`?", " --> "]),
        ("let m = #{ valid: 1 }; m[\"valdi\"]", &["no key `valdi`", "did you mean `valid`?"]),
        ("let m = #{}; m.count += 1", &["no key `count`"]),
        ("let m = #{}; m.a.b = 1", &["no key `a`"]),
        ("let m = #{ list: [] }; m.lits.push(1)", &["no key `lits`", "did you mean `list`?"]),
        // only the last key may be absent: one before it is a slip
        ("let m = #{ inner: #{} }; m.iner.x ?? 3", &["no key `iner`"]),
        // and so is one inside of what is called
        ("fn f(m) { m.nothing } let m = #{ a: 1 }; f(m) ?? 3", &["no key `nothing`"]),
        ("let m = #{ g: |x| x }; let n = #{}; m.g(n.b) ?? 3", &["no key `b`"]),
        ("let x = ones([2]); x.shpe ?? 3", &["a tensor has no property `shpe`"]),
    ]);
}

#[test]
fn parts_of_arrays() {
    all(&[
        (
            "let a = [0, 1, 2, 3, 4]; [a[1..3], a[1..=3], a[-2..9], a[3..1], a[1..=-1]]",
            "[[1, 2], [1, 2, 3], [3, 4], [], [1, 2, 3, 4]]",
        ),
        ("let m = #{ a: [1, 2, 3] }; m.a[0..2].len() + m.a[1..3][0]", "4"),
        ("let n = 2; [[1, 2, 3][0..n], \"tensor\"[0..3], ones([3])[0..n].shape]", "[[1, 2], \"ten\", [2]]"),
        ("let x = zeros([3]); x[0..2] = 1; x.to_array()", "[1.0, 1.0, 0.0]"),
        ("let x = arange(6).reshape(2, 3); x.shape[0..1]", "[2]"),
    ]);
}

#[test]
fn closures_may_read_the_array_whose_method_runs_them() {
    all(&[
        ("let w = [3.0, 1.0]; w.map(|v| v / w.len())", "[1.5, 0.5]"),
        ("let w = [3, 1, 2]; w.filter(|v| v < w[0])", "[1, 2]"),
        ("let w = [3, 1]; w.map(|v| w.map(|u| u + v))", "[[6, 4], [4, 2]]"),
        ("let w = [3, 1]; w.push(2); w.all(|v| v <= w[0])", "true"),
    ]);
    fail(&[("let w = [3, 1];\nw.retain(|v| v < w[0])", &["in use", " --> ", ":2:"])]);
}

#[test]
fn catch_receives_an_error_with_a_kind() {
    let kinds = [
        ("[1, 2][7]", "value"),
        ("\"ab\"[9]", "value"),
        ("nothing_of_that_name(1)", "name"),
        ("zeros()", "type"),
        ("schedule::edm(noise::edm(), 5.0)", "type"),
        ("#{ a: 1 }.b", "name"),
        ("ones([2]).shpe", "name"),
        ("(1).shape", "name"),
        ("throw \"too many\"", "script"),
        ("let x = \"a\"; x -= 1", "type"),
        ("let n = 5; for i in n { }", "type"),
        ("9223372036854775807 + 1", "value"),
        ("const C = 1; let f = || { C = 2; }; f.call()", "script"),
        ("let f = |x| x; f.call(1, 2)", "name"),
        ("ones([2]) + ones([3])", "shape"),
        ("state::load(\"no such file\")", "io"),
    ];
    for (code, kind) in kinds {
        let text =
            format!("let r = \"none\"; try {{ {code}; }} catch (e) {{ r = [type_of(e), e.kind, e.message]; }} r");
        let got = values(&[text.as_str()])[0].replace("[\n  ", "[").replace("\n ", "");
        let want = format!("[\"Error\", \"{kind}\", ");
        assert!(got.starts_with(&want), "{code}: {got}");
        for never in ["anon$", "i64", "f64", "alloc::", "rhai::", "Dynamic", "candle"] {
            assert!(!got.contains(never), "{never} in {got}");
        }
    }
    all(&[
        // what is thrown and is no text stays what it is
        ("try { throw #{ code: 3 }; } catch (e) { e.code }", "()"),
        ("let c = (); try { throw #{ code: 3 }; } catch (e) { c = e.code; } c", "3"),
        ("let c = (); try { throw \"mine\"; } catch (e) { c = `${e} ${e.message}`; } c", "\"mine mine\""),
        (
            "let k = []; try { try { throw \"a\"; } catch (e) { throw e; } } catch (e) { k.push(e.kind + e.message); } k",
            "[\"scripta\"]",
        ),
    ]);
}

/// A property's value has its methods, whatever the type before it: Rhai would write the value back.
#[test]
fn methods_of_what_a_property_gives() {
    // a value of every type that has properties
    let made = [
        ("Checkpoint", "checkpoint::open(\"models/fashion28-edm.safetensors\")"),
        ("Dataset", "data::of(zeros([2, 1, 4, 4]))"),
        ("Denoiser", "denoiser::gaussian(#{ mean: [0.5] }).counted()"),
        ("Error", "caught()"),
        ("Graph", "graph::trace(|x| x.exp(), [[2]])"),
        ("Image", "image::from(zeros([1, 1, 2, 2]))"),
        ("Noise", "noise::edm()"),
        ("Optimizer", "optim::rmsprop(#{ lr: 0.1 })"),
        ("Plan", "solver::unipc().plan(schedule::logsnr(noise::edm(), 3))"),
        ("Plateau", "optim::plateau(#{})"),
        ("Schedule", "schedule::edm(noise::edm(), 3)"),
        ("FeatureNetwork", "metric::network(\"fashion28\")"),
        ("Statistics", "metric::stats(ones([3, 2]))"),
        ("Solver", "solver::unipc()"),
        ("Tensor", "ones([2, 3])"),
        ("Model", "model::load(\"tests/fixtures/latent/sd-tiny\")"),
    ];
    let missing = session(move |s| {
        let properties: Vec<(String, String)> = s
            .catalogue()
            .iter()
            .filter(|e| e.kind == Kind::Property && e.origin != Origin::Rhai)
            .map(|e| (e.receiver.clone().unwrap_or_default(), e.name.clone()))
            .collect();
        let mut wrong = Vec::new();
        let mut asked = 0;
        for (receiver, name) in properties {
            let Some((_, code)) = made.iter().find(|(r, _)| *r == receiver) else {
                wrong.push(format!("no value of type {receiver}"));
                continue;
            };
            let mut fresh = Session::new(Settings { seed: 0, out: "out".into() });
            let head = "fn caught() { let c = (); try { ones([2]) + ones([3]); } catch (e) { c = e; } c }";
            for rest in ["to_string()", "type_of()", "is_shared()"] {
                // each call of a method changes what it is called on, as far as Rhai knows
                let got = shown(&mut fresh, &format!("{head} let value = {code}; value.{name}.{rest}"));
                asked += 1;
                if got.starts_with("error:") {
                    wrong.push(format!("{receiver}.{name}.{rest}\n{got}"));
                }
            }
        }
        assert!(asked > 100, "{asked}");
        wrong
    });
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    all(&[
        (
            "let x = ones([2, 3]); [x.shape.len(), x.shape.contains(3), x.shape.to_string(), x.dtype.len()]",
            "[2, true, \"[2, 3]\", 3]",
        ),
        ("let x = ones([2, 3]); x.shape.map(|n| n + 1)", "[3, 4]"),
    ]);
    fail(&[
        ("let x = ones([2]); x.shape = [1]", &["`shape` of a Tensor is read only"]),
        ("let x = ones([2]); x.foo = [1]", &["a Tensor has no property `foo`"]),
    ]);
}

#[test]
fn hints() {
    fail(&[
        ("let a = ones([2, 2]) @ ones([2, 2]);", &["`a.matmul(b)`"]),
        ("let x = ones([2, 2]); x[:, 0]", &["`x[[(), 0]]`"]),
        ("let x = [1, 2]; x[0:2]", &["`x[0..2]`"]),
        ("let a, b = [1, 2];", &["each name has its own `let`"]),
        ("print(7 // 2)", &["`//` begins a comment"]),
        ("let q = 7 // 2\nprint(q)", &["`//` begins a comment"]),
        ("let f = |x| x; f(3)", &["`f` is a variable, not a function", "`f.call(…)`"]),
        ("let n = 5; for i in 0..n / 2 { }", &["`0..(n / 2).to_int()`"]),
        ("try { print(\"50\\%\"); } catch (e) { }", &["a backslash is written"]),
        ("try: 1", &["`try { … } catch (e) { … }`"]),
        ("let f = |x| x; f.call(1, 2)", &["this closure does not take 2 arguments"]),
        ("x = inf", &["INF"]),
    ]);
    all(&[
        ("let σ = 2; let λ = -σ; let ξᶜ = 0.5; fn α(σ_max) { 1.0 / σ_max } α(σ) + λ + ξᶜ", "-1.0"),
        ("[INF > 1e300, -INF < INF, min(INF, 3.0), tensor([1.0, INF]).max().item() == INF]", "[true, true, 3.0, true]"),
        ("fn far() { INF } far().is_infinite()", "true"),
        ("(7 / 2).to_int() + (6 / 2).to_int()", "6"),
    ]);
}

/// Every function that a hint calls exists, by its full name.
#[test]
fn hints_call_what_exists() {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shell/hints.rs")).unwrap();
    let text = source.split("#[cfg(test)]").next().unwrap().to_string();
    let (checked, missing) = session(move |s| {
        let names = Names::of(s.engine());
        let known: Vec<String> = names.all().map(String::from).collect();
        let (mut checked, mut missing) = (0, Vec::new());
        // what stands in a hint between backquotes is code
        for code in
            text.lines().filter(|l| !l.trim_start().starts_with("//")).flat_map(|l| l.split('`').skip(1).step_by(2))
        {
            for (i, _) in code.match_indices('(') {
                let head = &code[..i];
                let start = head
                    .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                    .map_or(0, |j| j + head[j..].chars().next().map_or(0, char::len_utf8));
                let name = head[start..].trim_matches(':');
                // of the language itself, and names that stand for the reader's own
                if name.is_empty() || ["f", "fn", "param", "catch", "type_of", "call", "name"].contains(&name) {
                    continue;
                }
                checked += 1;
                if !known.iter().any(|k| k == name) {
                    missing.push(format!("{name} in `{code}`"));
                }
            }
        }
        (checked, missing)
    });
    assert!(checked > 30 && missing.is_empty(), "{checked} checked: {missing:?}");
}

#[test]
fn a_divisor_behind_two_slashes_is_noted() {
    use ld3sh::shell::hints::silent_division;
    for text in ["7 // 2", "fn half(n) {\n    n // 2\n}", "let q = f(x) // 2", "print(1);\nlet q = a[0] // 2.0;"] {
        assert!(silent_division(text, |_| false).is_some(), "{text}");
    }
    for text in ["let k = 2;\nlet q = n // k;", "fn part(n, k) { n // k }", "for k in 1..3 { print(\n8 // k\n) }"] {
        assert!(silent_division(text, |_| false).is_some(), "{text}");
    }
    assert!(silent_division("n // k", |name| name == "k").is_some() && silent_division("n // k", |_| false).is_none());
    for text in [
        "x  // 2",
        "let a = 1; // 2",
        "f(x) // two of them",
        "\"a // 2",
        "// a // 2",
        "[1, // 2",
        "f(k) // k",
        "fn k() {}\nf(2) // k",
    ] {
        assert!(silent_division(text, |_| false).is_none(), "{text}");
    }
}

/// Rhai would hand the closure the function.
#[test]
fn a_closure_that_means_a_variable_gets_no_function() {
    fail(&[
        (
            "fn q(x) { 1 }\nfn f(q) { let g = |n| q[n]; g.call(\"a\") }\nf(#{ a: 3 })",
            &["there is also a function `q`", ":2:"],
        ),
        ("fn q(x) { 1 }\nfn f(k) { let q = 5; [k].map(|n| n + q) }\nf(2)", &["there is also a function `q`"]),
    ]);
    all(&[
        ("fn q(x) { x + 1 } fn f(k) { k.map(|n| q(n)) } f([1, 2])", "[2, 3]"),
        ("fn q(x) { x + 1 } fn f(k) { k.map(q) } f([1, 2])", "[2, 3]"),
        ("fn q(x) { x + 1 } let q = 5; [1].map(|n| n + q)", "[6]"),
    ]);
}

/// An error deep in a recursion, and one in a loop of a module, do not repeat a place.
#[test]
fn frames_of_one_place_fold() {
    let text = values(&["fn down(n) {\n    if n == 0 { [][1] } else { down(n - 1) }\n}\ndown(40)"])[0].clone();
    assert_eq!(text.matches("in `down`, called here").count(), 2, "{text}");
    assert!(text.lines().count() < 20, "{text}");
}

/// Everything that scripts can call has its page in help and reference.
#[test]
fn every_function_has_a_page() {
    let missing = session(|s| {
        let names = Names::of(s.engine());
        let callable: Vec<String> =
            names.all().filter(|n| n.starts_with(char::is_alphabetic)).map(String::from).collect();
        assert!(callable.len() > 300, "{}", callable.len());
        callable.into_iter().filter(|n| s.catalogue().get(n).is_empty()).collect::<Vec<_>>()
    });
    assert!(missing.is_empty(), "{missing:?}");
}

/// What was computed before a file could not be written is not lost: the report says how to reach it.
#[test]
fn a_failing_save_offers_inspect() {
    let dir = tempfile::tempdir().unwrap();
    let run = |code: &str| {
        std::fs::write(dir.path().join("main.rhai"), code).unwrap();
        err(&ld3sh(dir.path(), &dir.path().join("cache")).arg("main.rhai").output().unwrap())
    };
    let text = run("let x = ones([2]);\nsave(\"no/such/folder/x.npy\", x);");
    assert!(text.contains("main.rhai:2:") && text.contains("`--inspect`"), "{text}");
    let text = run("let x = ones([2]);\nx + ones([3]);");
    assert!(!text.contains("--inspect"), "{text}");
}
