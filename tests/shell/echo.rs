//! How values print at the prompt, at every width.
use ld3sh::shell::show::value::echo;
use rhai::Dynamic;
use unicode_width::UnicodeWidthStr;

fn echoed(code: &str, width: usize) -> String {
    let engine = ld3sh::script::engine::new(&Default::default());
    echo(&engine, &engine.eval::<Dynamic>(code).unwrap(), width)
}

#[test]
fn arrays_and_maps() {
    assert_eq!(echoed("0.1 + 0.2", 80), "0.30000000000000004");
    assert_eq!(echoed("[1, 2]", 80), "[1, 2]");
    assert_eq!(echoed("[]", 80), "[]");
    assert_eq!(echoed("#{ a: 1, b: \"x\" }", 80), "#{ a: 1, b: \"x\" }");
    assert_eq!(echoed("[1, [2, [3, [4, [5]]]]]", 80), "[1, [2, [3, [… 2 values]]]]");
    assert_eq!(echoed("let a = []; for i in 0..30 { a.push(i); } a", 20).lines().next(), Some("[ 0,  1,  2,  3,"));
    let long = echoed("let a = []; for i in 0..1000 { a.push(i * 1.5); } a", 60);
    assert!(long.contains("… 985 more …") && long.contains("1498.5]"), "{long}");
    let m = echoed("#{ loss: 0.125, steps: [80.0, 24.4, 5.8, 0.96, 0.085, 0.002, 1.0, 2.0], name: \"edm\" }", 30);
    assert_eq!(m, "#{\n  loss:  0.125,\n  name:  \"edm\",\n  steps: [80.0, 24.4, 5.8, …],\n}");
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    let codes = [
        "let a = []; for i in 0..300 { a.push(i); } a",
        "let a = []; for i in 0..20 { a.push(\"text \" + i); } a",
        "let m = #{}; for i in 0..80 { m.set(\"a rather long key \" + i, [i, [i, i]]); } m",
        "[#{ a: [1, 2, 3], b: \"xxxxxxxxxxxxxxxxxxxxxxxxx\" }, 1, |x| x]",
    ];
    for code in codes {
        for width in [0, 1, 8, 20, 40, 80] {
            for line in echoed(code, width).lines() {
                assert!(line.width() <= width.max(24), "{width}: {line}");
            }
        }
    }
}

#[test]
fn functions_and_strings() {
    assert_eq!(echoed("|x| x", 80), "closure");
    assert_eq!(echoed("Fn(\"abs\")", 80), "function abs");
    assert_eq!(echoed("\"a\\\"b\\n\"", 80), "\"a\\\"b\\n\"");
    let long = echoed("let s = \"\"; s.pad(5000, 'x'); s", 80);
    assert!(long.ends_with("(5000 characters)") && long.len() < 2100, "{}", long.len());
    assert_eq!(echoed("#{ f: |x| x, s: 'c' }", 80), "#{ f: closure, s: c }");
}

#[test]
fn blocks() {
    let s = echoed("schedule::edm(noise::edm(), 5)", 80);
    assert!(s.contains("5 steps in the time of edm"), "{s}");
    assert!(s.ends_with("steps in ln sigma ▁▂▃▄█ 1.1871 … 3.75053"), "{s}");
    assert!(echoed("solver::unipc().plan(schedule::edm(noise::edm(), 3))", 80).contains("x_0"));
    assert_eq!(
        echoed("noise::edm()", 80),
        "noise::edm(#{ sigma_min: 0.002, sigma_max: 80.0 })\n  t       80.0 … 0.002\n  alpha   1.0 … 1.0\n  \
         sigma   80.0 … 0.002\n  lambda  -4.38203 … 6.21461"
    );
    let net = echoed("denoiser::gaussian(#{ mean: [0.5], std: 0.3 }).counted()", 80);
    assert!(net.contains("  noise  noise::edm(") && net.contains("0 evaluations so far"), "{net}");
    assert!(echoed("solver::heun()", 80).contains("evaluations  10 for 5 steps, 20 for 10 steps"));
}

#[test]
fn tensors_of_all_shapes_at_all_widths() {
    for code in ["zeros([0])", "zeros([2, 0, 3])", "ones([3, 4, 5]) / 0", "arange(0, 2000)", "tensor(1.5)"] {
        for width in [0, 1, 8, 40, 80] {
            assert!(!echoed(code, width).is_empty(), "{code}");
        }
    }
    let t = echoed("arange(0, 50)", 40);
    assert!(t.lines().all(|l| l.width() <= 40), "{t}");
}

#[test]
fn narrow_terminals() {
    for code in [
        "schedule::edm(noise::edm(), 50)",
        "solver::unipc().plan(schedule::edm(noise::edm(), 9))",
        "noise::vp_linear()",
        "solver::unipc()",
        "denoiser::gaussian(#{ mean: [0.5], std: 0.3 })",
    ] {
        for width in [1, 10, 40] {
            let text = echoed(code, width);
            assert!(text.lines().all(|l| l.width() <= width.max(8)), "{width}\n{text}");
        }
    }
}
