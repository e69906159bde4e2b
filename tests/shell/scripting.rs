//! What scripts rely on, beyond Rhai: arithmetic, closures that keep their home, modules, parameters, caught errors.
use ld3sh::host::{Callback, Host, Value};
use ld3sh::script::error::RhaiResult;
use ld3sh::script::host::{ScriptHost, callback};
use ld3sh::shell::report;
use ld3sh::shell::session::{Outcome, Session, Settings};
use ld3sh::{Error, Kind};
use rhai::{FnPtr, NativeCallContext};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

/// A native object that calls back: what a denoiser does, in small.
#[derive(Clone)]
struct Net(Rc<RefCell<Option<Callback>>>);

/// Runs `test` with a fresh session on a thread with the stack that the engine needs.
fn session<T: Send + 'static>(test: impl FnOnce(&mut Session) -> T + Send + 'static) -> T {
    let run = move || {
        let mut s = Session::new(Settings { seed: 7, out: "out".into() });
        let e = s.engine_mut();
        e.register_type_with_name::<Net>("Net");
        e.register_fn("make_net", || Net(Rc::default()));
        e.register_fn("keep", |net: &mut Net, f: FnPtr| *net.0.borrow_mut() = Some(callback(f)));
        e.register_fn("g", |_: &mut Net, x: i64| x * 2);
        e.register_fn("f", |context: NativeCallContext, _: &mut Net, f: FnPtr| call(&context, &callback(f)));
        e.register_fn("run", |context: NativeCallContext, net: &mut Net| {
            let kept = net.0.borrow().clone();
            call(&context, &kept.ok_or_else(|| Error::value("nothing kept"))?)
        });
        e.register_fn("refuse", || -> RhaiResult<()> {
            Err(Error::shape("shapes differ", &[&[2, 3], &[4]]).hint("reshape one").into())
        });
        e.register_fn("fall", || -> i64 { panic!("a native bug") });
        test(&mut s)
    };
    std::thread::Builder::new().stack_size(ld3sh::script::engine::STACK).spawn(run).unwrap().join().unwrap()
}

fn call(context: &NativeCallContext, f: &Callback) -> RhaiResult<i64> {
    match ScriptHost::new(context).call(f, vec![Value::Int(21)])? {
        Value::Int(i) => Ok(i),
        _ => Err(Error::new(Kind::Type, "expected an integer").into()),
    }
}

/// The values of several pieces of code, evaluated one after the other in one session; an error's report counts as a value.
fn lines<const N: usize>(code: [&'static str; N]) -> [String; N] {
    session(move |s| {
        code.map(|c| match s.evaluate_line(c) {
            Ok(Outcome::Value(v)) => s.show(&v),
            Ok(Outcome::Exit(v)) => format!("exit {v}"),
            Err(f) => report::render(f, s, false),
        })
    })
}

fn value(code: &'static str) -> String {
    lines([code])[0].clone()
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

#[test]
fn integer_division_and_powers() {
    for (code, want) in [
        ("12 / 5", "2.4"),
        ("12 / 4", "3"),
        ("type_of(12 / 4)", "\"i64\""),
        ("2 ** -1", "0.5"),
        ("2 ** 10", "1024"),
        ("const N = 12 / 5; N", "2.4"),
        ("let x = 7; x /= 2; x", "3.5"),
        ("let x = 2; x **= -2; x", "0.25"),
        ("let a = [7]; a[0] /= 2; a", "[3.5]"),
        ("1 + 0.5", "1.5"),
        ("2.0 * 3", "6.0"),
        ("7 % 4", "3"),
        ("let nfe = 5; 12 / nfe", "2.4"),
    ] {
        assert_eq!(value(code), want, "{code}");
    }
    for code in ["9223372036854775807 + 1", "2 ** 64", "1 / 0", "-9223372036854775807 - 2", "3 ** 9223372036854775807"]
    {
        assert!(value(code).starts_with("error: "), "{code}: {}", value(code));
    }
}

#[test]
fn floats_compare_exactly() {
    for (code, want) in [
        ("0.1 < 1.0 / 0.0", "true"),
        ("-1.0 / 0.0 < 0.1 && 1 < 1.0 / 0.0 && 1.0 / 0.0 > 1", "true"),
        ("1.0 / 0.0 == 1.0 / 0.0", "true"),
        (
            "let n = 0.0 / 0.0; [n == n, n != n, n < 1.0, n > 1.0, n <= 1, 1 >= n]",
            "[false, true, false, false, false, false]",
        ),
        ("let a = 0.1 + 0.2; [a == 0.3, a != 0.3, a > 0.3, a <= 0.3]", "[false, true, true, false]"),
        ("[0.5 < 1, 1 == 1.0, 2 > 1.5, 0.0 == -0.0]", "[true, true, true, true]"),
        ("let best = 1.0 / 0.0; for l in [0.5, 0.25] { if l < best { best = l; } } best", "0.25"),
        ("switch 0.5 { 0.5 => 1, _ => 2 }", "1"),
    ] {
        assert_eq!(value(code), want, "{code}");
    }
}

#[test]
fn closure_that_captures_the_object_it_is_given_to() {
    assert_eq!(value("let net = make_net(); net.f(|x| net.g(x))"), "42");
    assert_eq!(value("let net = make_net(); let h = |x| net.g(x); net.f(h) + net.f(h)"), "84");
    assert_eq!(value("fn start() { let net = make_net(); net.f(|x| net.g(x)) } start()"), "42");
    assert_eq!(value("let net = make_net(); net.keep(|x| net.g(x) + 1); net.run()"), "43");
}

#[test]
fn captured_numbers_are_still_shared() {
    assert_eq!(value("let n = 0; let add = |x| { n += x; }; add.call(2); add.call(3); n"), "5");
    assert_eq!(value("let a = [1]; let f = || a.len(); a.push(2); f.call()"), "2");
    assert_eq!(value("let best = (); let f = |x| { best = x; }; f.call(4); best"), "4");
}

#[test]
fn array_functions_leave_the_elements_where_they_are() {
    for (code, want) in [
        ("let a = [1, 2, 3]; [a.filter(|x| x > 1), a]", "[[2, 3], [1, 2, 3]]"),
        ("let a = [#{ n: 1 }, #{ n: 2 }]; [a.find(|m| m.n == 2), a.len()]", "[#{ n: 2 }, 2]"),
        ("let k = 2; let a = [1, 2]; [a.find(|x| x == k), a.index_of(|x| x == k), a]", "[2, 1, [1, 2]]"),
        (
            "let a = [1, 2]; [a.some(|x| x == 2), a.all(|x| x > 0), a.reduce(|s, x| s + x, 0), a]",
            "[true, true, 3, [1, 2]]",
        ),
        ("let a = [3, 1, 2]; a.sort(|x, y| x - y); a", "[1, 2, 3]"),
        ("let a = [[1], [2]]; [a.map(|x| x[0]), a]", "[[1, 2], [[1], [2]]]"),
        ("let a = [1, 2, 3]; a.retain(|x| x != 2); a", "[1, 3]"),
        ("let a = [1, 2]; a.for_each(|| this += 1); a", "[2, 3]"),
        ("let a = [1, 2]; let t = 0; a.for_each(|x| t += x); [t, a]", "[3, [1, 2]]"),
        ("let m = #{ a: 1, b: 2 }; [m.filter(|k, v| v > 1), m]", "[#{ b: 2 }, #{ a: 1, b: 2 }]"),
        ("let f = |a| { a.push(1); a.len() }; let a = [0]; [f.call(a), a]", "[2, [0]]"),
    ] {
        assert_eq!(value(code), want, "{code}");
    }
}

#[test]
fn closures_of_modules_keep_their_home() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "home.rhai",
        "const K = 100;
         fn helper(x) { x + global::K }
         fn make() { |x| helper(x) }
         fn make_with(k) { |x| helper(x) + k }
         fn kept() { let net = make_net(); net.keep(|x| helper(x)); net }
         fn apply(f, x) { f.call(x) }
         fn apply_native(f) { make_net().f(f) }
         fn apply_in_map(o, x) { let f = o.loss; f.call(x) }",
    );
    write(
        dir.path(),
        "main.rhai",
        "import \"home\" as m;
         const K = 1;
         fn helper(x) { x + global::K }
         fn local() { |x| helper(x) }
         let out = [];
         out.push(m::make().call(10));
         out.push(m::make_with(1000).call(10));
         out.push(m::kept().run());
         out.push([1, 2].map(m::make()));
         out.push(m::apply(|x| helper(x), 10));
         out.push(m::apply(local(), 10));
         out.push(m::apply(helper, 10));
         out.push(m::apply(Fn(\"helper\"), 10));
         out.push(m::apply_native(|x| helper(x)));
         out.push(m::apply_native(helper));
         out.push(m::apply_in_map(#{ loss: |x| helper(x) }, 10));
         let inside = (); { import \"home\" as n; inside = n::make(); }
         out.push(inside.call(10));
         out",
    );
    let path = dir.path().join("main.rhai").display().to_string();
    let shown = session(move |s| {
        let text = std::fs::read_to_string(&path).unwrap();
        s.set_script(&path, &text);
        let ast = s.parse(&path, &text).map_err(|f| report::render(f, s, false)).unwrap();
        match s.evaluate(&ast) {
            Ok(Outcome::Value(v)) => s.show(&v),
            Ok(Outcome::Exit(_)) => "exit".into(),
            Err(f) => report::render(f, s, false),
        }
    });
    assert_eq!(shown, "[110, 1110, 121, [101, 102], 11, 11, 11, 11, 22, 22, 11, 110]");
}

#[test]
fn earlier_lines_live_on() {
    let out = lines([
        "fn twice(x) { 2 * x }",
        "let k = 1;",
        "let f = |x| twice(x) + k;",
        "f.call(10)",
        "let net = make_net(); net.keep(|x| twice(x));",
        "net.run()",
        "net.f(f)",
        "fn twice(x) { 20 * x }",
        "f.call(10)",
        "net.f(twice)",
        "import \"cache\" as c;",
        "c::get(\"x\", #{ unknown: () }, || twice(3))",
        "const C = 3; fn c() { global::C }",
        "c() + C",
    ]);
    for (i, want) in [(3, "21"), (5, "42"), (6, "43"), (8, "201"), (9, "420"), (11, "60"), (13, "6")] {
        assert_eq!(out[i], want, "line {i}");
    }
}

#[test]
fn errors_leave_the_session_alive() {
    let out = lines(["let a = 1;", "let b = nothing(a);", "fall()", "a + 1", "b", "make_net().f(|x| throw \"mine\")"]);
    assert!(out[1].starts_with("error: unknown function `nothing`"), "{}", out[1]);
    assert!(out[2].starts_with("error: ld3sh itself failed: a native bug"), "{}", out[2]);
    assert!(!out[2].contains("backtrace"));
    assert_eq!(out[3], "2");
    assert!(out[4].starts_with("error: unknown variable `b`"), "{}", out[4]);
    assert!(out[5].starts_with("error: mine"), "{}", out[5]);
}

#[test]
fn native_errors_can_be_caught() {
    let code = "let r = (); try { refuse(); } catch (e) { r = [e.kind, e.message, e.hint, e.shapes]; } r";
    assert_eq!(value(code), "[\"shape\", \"shapes differ\", \"reshape one\", [[2, 3], [4]]]");
    assert_eq!(value("let r = (); try { make_net().f(|x| throw #{ mine: x }); } catch (e) { r = e.mine; } r"), "21");
    assert_eq!(value("let r = (); try { make_net().f(|x| refuse()); } catch (e) { r = e.kind; } r"), "\"shape\"");
    assert!(value("refuse()").contains("help: reshape one"), "{}", value("refuse()"));
}

#[test]
fn deep_recursion_and_nesting_are_errors() {
    assert!(value("fn f(n) { 1 + f(n + 1) } f(0)").starts_with("error: calls are nested too deeply"));
    assert_eq!(value("fn f(n) { if n == 0 { 0 } else { 1 + f(n - 1) } } f(5000)"), "5000");
    let through_native = "fn again(net) { net.f(|x| again(net)) } again(make_net())";
    assert!(value(through_native).starts_with("error: calls are nested too deeply"), "{}", value(through_native));
    let deep: &'static str = Box::leak(format!("{}1{}", "(".repeat(5000), ")".repeat(5000)).into_boxed_str());
    assert!(value(deep).starts_with("error: this expression is nested too deeply"));
}

#[test]
fn versions_seed_and_folders() {
    assert_eq!(value("require(\"0.1\"); seed()"), "7");
    assert!(value("require(\"9.9\")").contains("this script needs ld3sh 9.9"));
    assert!(value("require(\"new\")").contains("is not a version"));
    assert_eq!(value("device()"), "\"cpu\"");
    assert_eq!(value("provenance().seed"), "7");
    assert_eq!(value("exit(3)"), "exit 3");
}

#[test]
fn functions_see_the_top_level_as_it_is() {
    for (code, want) in [
        ("let k = 3; fn f(x) { x + k } f(2)", "5"),
        ("fn f(x) { x + k } let k = 3; f(2)", "5"),
        ("const K = 3; fn f() { [1, 2].map(|x| x * K) } f()", "[3, 6]"),
        // each change is seen, in loops, in place, from other functions
        ("let k = 1; fn f() { k } let a = []; for i in 0..3 { k += i; a.push(f()); } a", "[1, 2, 4]"),
        ("let a = [1]; fn f() { a.len() } a.push(1); [f(), a.push(3), f()]", "[2, (), 3]"),
        ("let m = #{ x: 1 }; fn f() { m.x } m.x = 5; f()", "5"),
        ("let n = 0; fn count() { n += 1; } count(); count(); n", "2"),
        ("let n = 0; [1, 2, 3].for_each(|x| add(x)); fn add(x) { n += x; } n", "6"),
        ("let k = 1; let k = 2; fn f() { k } f()", "2"),
        // what is nearer comes first
        ("let k = 1; fn f(k) { k } f(7)", "7"),
        ("let k = 1; fn f() { let k = 8; k } [f(), k]", "[8, 1]"),
        ("let k = 1; fn f() { k } { let k = 9; f() }", "1"),
        ("let f = 5; fn f() { 6 } [f, f()]", "[5, 6]"),
        // object handles stay as they are, whoever holds them
        (
            "let net = denoiser::gaussian(#{ mean: [0.5], std: 0.3 }); fn f(x) { net.denoise(x, 1.0) }
             let other = denoiser::from_fn(#{ noise: net.noise, predicts: \"data\" }, |x, s, c| f(x) + net.denoise(x, 1.0));
             other.denoise(ones([1, 1]), 1.0).shape",
            "[1, 1]",
        ),
        ("let t = ones([2]); fn f() { t.sum().item() } t = t * 3.0; f()", "6.0"),
        ("let t = ones([2]); fn f() { t += 1.0; } f(); t.sum().item()", "4.0"),
        ("let d = 0; fn depth(n) { if n == 0 { return d; } d += 1; depth(n - 1) } depth(50)", "50"),
        ("let k = 2; fn f(v) { grad((v * v).sum() * k, [v])[0].sum().item() } f(variable(ones([2])))", "8.0"),
    ] {
        assert_eq!(value(code), want, "{code}");
    }
    assert!(value("const K = 1; fn f() { K = 2; } f()").contains("`K` is a constant"));
    assert!(value("const A = [1]; fn f() { A.push(2); } f()").contains("constant"));
}

#[test]
fn closures_in_maps_and_without_parameters() {
    for (code, want) in [
        ("[1, 2].map(|| 7)", "[7, 7]"),
        ("let k = 3; [1, 2].map(|| k)", "[3, 3]"),
        ("let m = #{ f: |x| x + 1 }; m.f(2)", "3"),
        ("let k = 3; let m = #{ f: |x| x + k }; [m.f(2), m.f(3)]", "[5, 6]"),
        ("let k = 3; let m = #{ f: || k }; m.f()", "3"),
        ("let m = #{ n: 3, f: |x| this.n + x }; m.f(2)", "5"),
        ("let m = #{ inner: #{ f: |x, y| x * y } }; m.inner.f(2, 4)", "8"),
        ("fn make(k) { #{ f: |x| x * k } } make(4).f(5)", "20"),
        ("let k = 3; [1, 2].map(|| this * k)", "[3, 6]"),
        ("let k = 3; [[1, 2].filter(|x, i| i + k == 4), [1, 2].filter(|x| x + k == 4)]", "[[2], [1]]"),
        (
            "let m = #{ a: 1, b: 2 }; [m.filter(|k, v| v > 1), m.filter(|k| k == \"a\"), m.filter(|k| this > 1)]",
            "[#{ b: 2 }, #{ a: 1 }, #{ b: 2 }]",
        ),
        // a wrong number of arguments is still an error
        ("try { [1, 2].reduce(|x| x); } catch { return \"error\"; }", "\"error\""),
        ("let f = |x| x; try { f.call(1, 2); } catch { return \"error\"; }", "\"error\""),
    ] {
        assert_eq!(value(code), want, "{code}");
    }
}

#[test]
fn try_blocks_keep_their_flow() {
    for (code, want) in [
        ("fn f(n) { if n == 0 { return 0; } try { return f(n - 1) + 1; } catch { return -1; } } f(5)", "5"),
        ("let t = 0; for i in 0..5 { try { if i == 2 { continue; } if i == 4 { break; } t += i; } catch { } } t", "4"),
        ("let x = 1; try { let x = 2; throw 3; } catch (e) { x += e; } x", "4"),
        ("let l = []; try { try { throw 1; } catch (e) { l.push(e); throw 2; } } catch (e) { l.push(e); } l", "[1, 2]"),
    ] {
        assert_eq!(value(code), want, "{code}");
    }
}

#[test]
fn unknown_names_get_suggestions() {
    for (code, want) in [
        ("let schedule_a = 1; schedul_a", "did you mean `schedule_a`?"),
        ("fn my_loss(x) { x } my_los(1)", "did you mean `my_loss`?"),
        ("prnt(1)", "did you mean `print`?"),
        ("cache::get(\"a\", #{}, || 1)", "import \"cache\" as cache;"),
        ("import \"cashe\" as c;", "did you mean `cache`?"),
        ("fn f() { k } f(); let k = 1;", "declare `k` at the top level"),
        ("{ let k = 1; } fn f() { k } f()", "a variable ends with its block"),
        ("seed(1)", "it takes one of"),
        ("fn mine(x) { x } mine(1, 2)", "there is no `mine` that takes 2 arguments"),
    ] {
        assert!(value(code).contains(want), "{code}:\n{}", value(code));
    }
}

#[test]
fn a_stepped_solver_keeps_the_dtype_of_its_noise() {
    let own = "let net = denoiser::gaussian(#{ mean: [0.5], std: 0.3 });
        sample(net, solver::from_fn(|s| s.x * (s.t_next / s.t)), schedule::edm(net.noise, 3), 2).dtype";
    assert!(value(own).contains("f32"), "{}", value(own));
}

#[test]
fn small_tensors_pay_nothing_for_ctrl_c() {
    let [time, _] = lines([
        "let x = rand([10_000], #{ seed: 0 }); let best = 1e9;
         for round in 0..5 {
             let start = timestamp();
             for i in 0..25 { let y = x * 2.0 + 1.0; y.exp(); y.sum(); }
             best = min(best, start.elapsed);
         }
         best < 0.05",
        "best",
    ]);
    assert_eq!(time, "true", "100 operations on 10,000 values take more than 50 ms");
}

#[test]
fn reports_find_the_input_that_a_function_is_from() {
    let [.., two, closure] = lines([
        "fn bad(x) { let y = x; nosuch(y) }",
        "fn outer(x) { bad(x) }",
        "let c = |x| outer(x);",
        "outer(1)",
        "[1].map(c)",
    ]);
    let chain = "error: unknown function `nosuch`\n --> input 1:1:24\n  |\n1 | fn bad(x) { let y = x; nosuch(y) }\n  |                        ^^^^^^ called with (int)";
    assert!(two.starts_with(chain), "{two}");
    assert!(two.contains("note: in `bad`, called here\n --> input 2:1:15\n"), "{two}");
    assert!(two.contains("note: in `outer`, called here\n --> input 4:1:1\n"), "{two}");
    assert!(
        closure.starts_with(chain) && closure.contains("in `outer`, called here\n --> input 3:1:13\n"),
        "{closure}"
    );
    // what is caught is the error itself
    let [.., caught, returned] = lines([
        "fn bad(x) { throw #{ code: x } }",
        "fn early(x) { if x > 0 { return 7; } 8 }",
        "let code = 0; try { bad(3) } catch (e) { code = e.code; } code",
        "[early(1), early(-1)]",
    ]);
    assert_eq!((caught.as_str(), returned.as_str()), ("3", "[7, 8]"));
}

#[test]
fn lengths_for_which_there_is_no_memory() {
    for code in [
        "let a = []; a.pad(N, 0)",
        "let s = \"x\"; s.pad(N, \"yz\")",
        "let s = \"x\"; s.pad(N, 'y')",
        "blob(N)",
        "blob(N, 1)",
        "let b = blob(1); b.pad(N, 1)",
    ] {
        let code: &str = Box::leak(
            format!(
                "let kind = (); try {{ {} }} catch (e) {{ kind = e.kind; }} kind",
                code.replace('N', "1_000_000_000_000_000")
            )
            .into(),
        );
        assert_eq!(value(code), "\"memory\"", "{code}");
    }
    assert_eq!(
        value("let a = [1]; a.pad(3, 0); let s = \"a\"; s.pad(4, \"xy\"); s.pad(2, 'z'); [a, s, blob(2).len]"),
        "[[1, 0, 0], \"axyx\", 2]"
    );
}

#[test]
fn slips_of_those_who_come_from_elsewhere() {
    for (code, says) in [
        ("_", "there was none yet"),
        ("grad", "`grad` is a function"),
        ("let x = ones([2]); x.grad", "gradients are a function: `grad(loss, x)`"),
        ("let x = ones([2]); x.shap", "did you mean `shape`?"),
        ("let x = ones([2]); x.sum", "a method is called with brackets: `x.sum()`"),
        ("let net = denoiser::load(\"fashion28\"); net.denoise", "call the method: `.denoise(…)`"),
        ("randn(2, 3)", "got int"),
        ("\"a\" - 1", "-(a: Tensor, b: int)"),
    ] {
        let report = value(code);
        assert!(report.contains(says) && !report.contains("f32"), "{code}: {report}");
    }
}
