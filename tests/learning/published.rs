//! `compat: "reference"` follows the authors' trainer update by update, on the built-in network, from the same pairs in the same order.
use crate::process::{err, ld3sh, out};

/// Trains from the fixture's pairs for `updates` updates, and prints the largest deviations of ξ, ξᶜ and of the best validation loss (relative)
/// over them. The published trainer ran in f64, and so do we.
fn deviations(which: &str, updates: usize, solver: &str, learn: &str) -> [f64; 3] {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "import \"ld3\" as ld3; import \"learn\" as learn;
        let p = load(\"{root}/pairs.npz\");
        let wide = |x| x.to(\"f64\");
        let pairs = #{{
            train: #{{ name: \"train\", z: wide.call(p.z), target: wide.call(p.target), cond: p.cond }},
            valid: #{{ name: \"valid\", z: wide.call(p.valid_z), target: wide.call(p.valid_target), cond: p.valid_cond }},
            orders: p.orders.to_array(),
        }};
        let track = json::load(\"{root}/{which}.json\").track;
        let net = denoiser::load(\"fashion28\");
        let worst = [0.0, 0.0, 0.0];
        let look = |s| {{
            // a row for each validation: one at the start of an epoch, one after each update
            let row = s.epoch * 26 + 1 + s.at;
            let off = |got, want, range| (got - tensor(want, #{{ dtype: \"f64\" }}))[range].abs().max().item();
            // ξ₀ is inert
            worst[0] = max(worst[0], off.call(s.params.xi, track.xi[row], 1..6));
            worst[1] = max(worst[1], off.call(s.params.xi_c, track.xi_c[row], 0..6));
            worst[2] = max(worst[2], abs(s.best.loss - track.best[row]) / track.best[row]);
            s.iteration < {updates}
        }};
        let solver = {solver};
        let options = #{{ nfe: 5, init: \"uniform\", compat: \"reference\", space: \"lambda\" }};
        let run = {learn};
        if run.iterations != {updates} {{ throw `${{run.iterations}} updates`; }}
        print(worst);",
        root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/trainer"),
    );
    std::fs::write(dir.path().join("main.rhai"), script).unwrap();
    let o = ld3sh(dir.path(), &dir.path().join("cache")).args(["--quiet", "main.rhai"]).output().unwrap();
    assert!(o.status.success(), "{}", err(&o));
    let worst: Vec<f64> = serde_json::from_str(out(&o).trim()).unwrap();
    println!("{which}: ξ {:.1e}, ξᶜ {:.1e}, best loss {:.1e} after {updates} updates", worst[0], worst[1], worst[2]);
    worst.try_into().unwrap()
}

const TRAIN: &str = "ld3::train(net, solver, pairs, options + #{ callback: look })";

#[track_caller]
fn follows(which: &str, updates: usize, solver: &str, learn: &str) {
    let worst = deviations(which, updates, solver, learn);
    // a loss moves by some ten times what ξ does
    let bounds = [1e-5, 1e-5, 1e-4];
    assert!(worst.iter().zip(bounds).all(|(w, b)| *w <= b), "{which}: {worst:?}");
}

#[test]
fn the_first_updates_of_ipndm() {
    follows("ipndm-5", 20, "solver::ipndm(#{ order: 3 })", TRAIN);
}

#[test]
fn the_first_updates_of_unipc_with_constant_ratios() {
    follows("unipc-5", 12, "solver::unipc(#{ order: 3 })", TRAIN);
}

/// As the published trainer would go if r_k stayed in the graph: the family itself, with the solver as it is.
#[test]
fn unipc_with_exact_ratios() {
    let learn = "learn::train(net, ld3::family(net, solver, options), pairs, #{ compat: \"reference\", lr_x: 2.4, callback: look })";
    follows("unipc-5-exact-r", 5, "solver::unipc(#{ order: 3 })", learn);
}

#[test]
#[ignore = "minutes: a whole run"]
fn the_whole_run_of_ipndm() {
    follows("ipndm-5", 175, "solver::ipndm(#{ order: 3 })", TRAIN);
}

#[test]
#[ignore = "minutes: a whole run"]
fn the_whole_run_of_unipc() {
    follows("unipc-5", 175, "solver::unipc(#{ order: 3 })", TRAIN);
}
