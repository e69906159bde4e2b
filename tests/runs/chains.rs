//! Chains of 100,000 tensor operations through the real binary: their gradient, and every way in which a script or a session drops
//! one. Candle walks and drops a graph by recursion, and an overflow of the stack cannot be caught.
use crate::process::{self, faults, ld3sh, out};
use crate::terminal::Terminal;
use std::time::Duration;

/// y ← y/2 + x, again and again: dy/dx = 2.
const CHAIN: &str = "fn chain(x) { let y = x; for i in 0..50_000 { y = y * 0.5 + x; } y }
let x = variable(tensor([0.25], #{ dtype: \"f64\" }));
";

fn run(rest: &str) -> std::process::Output {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(dir.path().join("s.rhai"), format!("{CHAIN}{rest}")).unwrap();
    ld3sh(dir.path(), cache.path()).arg("s.rhai").output().unwrap()
}

#[track_caller]
fn prints(rest: &str, lines: &[&str]) {
    let o = run(rest);
    assert!(o.status.success(), "{rest}\n{:?} {}", o.status, process::err(&o));
    assert_eq!(out(&o).lines().collect::<Vec<_>>(), lines, "{rest}");
}

#[test]
fn gradients() {
    prints("print(grad(chain(x).sum(), x)[0].item());", &["2.0"]);
    prints("print((vjp(chain(x), tensor([3.0], #{ dtype: \"f64\" }), x)[0].item() - 6.0).abs() < 1e-12);", &["true"]);
    // a block that is run again in the backward pass
    prints("print(grad(checkpoint(|v| chain(v), x).sum(), x)[0].item());", &["2.0"]);
    // a script's network, the identity: x stays at 80 z
    prints(
        "let net = denoiser::from_fn(#{ noise: noise::edm(), predicts: \"data\", shape: [1] }, |v, t, c| chain(v) * 0.5);
         let z = variable(tensor([[0.25]]));
         let y = sample(net, solver::euler(), schedule::edm(net.noise, 1), z);
         print((grad(y.sum(), z)[0].item() - 80.0).abs() < 0.01);",
        &["true"],
    );
}

#[test]
fn dropped_unused() {
    prints(
        "chain(x);
         let y = chain(x);
         y = 1;
         let list = [chain(x), #{ a: chain(x) }];
         list.clear();
         let f = { let held = chain(x); || held * 1 };
         f = ();
         { let inside = chain(x); }
         no_grad(|| chain(x));
         fn leaves(x) { let y = chain(x); if true { return 7; } y }
         print(leaves(x));",
        &["7"],
    );
    // alive when the script ends
    prints("let y = chain(x); let g = grad(y.sum(), x); print(1);", &["1"]);
    assert_eq!(run("let y = chain(x); exit(3);").status.code(), Some(3));
}

#[test]
fn dropped_by_errors() {
    prints(
        "fn fails(x) { let y = chain(x); throw \"mine\"; }
         try { fails(x); } catch (e) { print(e); }
         try { throw #{ held: chain(x) }; } catch (e) { print(type_of(e)); }
         try { let y = chain(x); grad(y, zeros([1])); } catch (e) { print(e.kind); }
         try { chain(x).reshape([7]); } catch (e) { print(e.kind); }",
        &["mine", "map", "value", "shape"],
    );
    let faults = faults(&run("let y = chain(x); fails_to_exist(y);"), 1, &["fails_to_exist"]);
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn dropped_by_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().display().to_string();
    let folders = ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "LD3SH_CACHE", "HOME"];
    let mut variables: Vec<(&str, &str)> = folders.iter().map(|f| (*f, home.as_str())).collect();
    variables.push(("NO_COLOR", "1"));
    let mut t = Terminal::open_with(dir.path(), 40, 80, &[], &variables);
    t.patience = Duration::from_secs(60);
    for line in CHAIN.lines() {
        t.ask(line);
    }
    assert_eq!(t.ask("let y = chain(x);"), "");
    // another value under the same name, the value that `_` holds, an error that holds one
    assert_eq!(t.ask("let y = 1;"), "");
    assert!(t.ask("chain(x)").contains("0.5"));
    assert_eq!(t.ask("grad(chain(x).sum(), x)[0].item()"), "2.0\n");
    assert!(t.ask("throw chain(x)").starts_with("error:"));
    assert!(t.ask("let z = chain(x); nothing(z)").contains("unknown function `nothing`"));
    assert_eq!(t.ask("let last = chain(x);"), "");
    assert_eq!(t.ask("1 + 1"), "2\n");
    // and one that lives until the end
    t.send("exit\r");
    assert_eq!(t.exit_code(), 0);
}
