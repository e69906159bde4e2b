//! Schedules without gradients of a network: DMN, the KLUB of Gaussian data, densities, resampling, published tables, natively; GITS, OSS
//! and AYS as scripts, against the numbers of their public code.
use crate::common::*;
use crate::fixtures::{fixture, numbers};
use crate::simple::Simple;
use ld3sh::discretize::*;
use ld3sh::script::engine::STACK;
use ld3sh::shell::session::{Outcome, Session, Settings};
use std::time::Instant;

fn sigmas(s: &Schedule) -> Vec<f64> {
    values(&s.sigmas().unwrap())
}
#[track_caller]
fn near(a: &[f64], b: &[f64], relative: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= relative * b.abs(), "[{i}]: {a} {b}");
    }
}

#[test]
fn dmn_reaches_the_published_objective() {
    let all = fixture("discretize.json");
    let mut seen = 0;
    for c in all["discretizations"].as_array().unwrap().iter().filter(|c| c["kind"] == "dmn") {
        seen += 1;
        let n = c["nfe"].as_u64().unwrap() as usize;
        let name = c["schedule"].as_str().unwrap();
        let error = if name == "ve_edm" { DataError::Pixel } else { DataError::Latent };
        // the published rule
        let apart = Some(if n <= 7 { 3 } else { 0 });
        let noise = Simple::make(name);
        let theirs = Schedule::from_steps(noise.clone(), &numbers(&c["t"]), "published").unwrap();
        let objective = c["objective"].as_f64().unwrap();
        // their ends are rounded to f32
        assert!((dmn_bound(&theirs, error, apart).unwrap() / objective - 1.0).abs() < 1e-7, "{name} {n}");
        for start in [Start::LogSnr, Start::Time] {
            let before = Instant::now();
            let (s, value) =
                dmn(&noise, n, &DmnOptions { error, apart, start: Some(start), ..DmnOptions::default() }).unwrap();
            assert!(before.elapsed().as_secs_f64() < 1.0, "{name} {n}");
            assert!((dmn_bound(&s, error, apart).unwrap() / value - 1.0).abs() < 1e-9);
            assert!(value <= objective * (1.0 + 1e-8), "{name} {n} {start:?}: {value} {objective}");
        }
    }
    assert_eq!(seen, 6);
}

#[test]
fn dmn_on_other_noise_schedules() {
    for name in ["ve_edm", "vp_linear", "vp_discrete_sd", "flow"] {
        let noise = Simple::make(name);
        let interval = match name {
            "flow" => Interval { from: Some(0.999), to: Some(0.001) },
            _ => Interval::default(),
        };
        for n in [1, 2, 3, 5, 9, 20] {
            for error in [DataError::Pixel, DataError::Latent] {
                let before = Instant::now();
                let (s, value) = dmn(&noise, n, &DmnOptions { error, interval, ..DmnOptions::default() }).unwrap();
                assert!(before.elapsed().as_secs_f64() < 1.0, "{name} {n}");
                let start = Heuristic::LogSnr.schedule(&noise, n, interval).unwrap();
                let (at_start, times) = (dmn_bound(&start, error, None).unwrap(), s.times().unwrap());
                assert_eq!(s.nfe(), n);
                assert!(value <= at_start * (1.0 + 1e-12), "{name} {n}: {value} {at_start}");
                assert_eq!((times[0], times[n]), interval.resolve(noise.as_ref()).unwrap());
            }
        }
    }
    assert!(dmn(&Simple::make("flow"), 4, &DmnOptions::default()).is_err());
}

#[test]
fn klub_of_gaussian_data() {
    let all = fixture("learned/klub_gaussian.json");
    for c in all["cases"].as_array().unwrap() {
        let get = |k: &str| c[k].as_f64().unwrap();
        for v in c["values"].as_array().unwrap() {
            let value = klub(&numbers(&v["sigmas"]), get("std")).unwrap();
            assert!((value / v["klub_per_dim"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{value} {v}");
        }
        let spec = serde_json::json!({ "name": "edm", "sigma_min": get("sigma_min"), "sigma_max": get("sigma_max") });
        let noise = ld3sh::noise::from_spec(&spec).unwrap();
        let n = c["steps"].as_u64().unwrap() as usize;
        let s = klub_optimum(&noise, n, get("std"), Interval::default()).unwrap();
        near(&sigmas(&s), &numbers(&c["optimum"]["sigmas"]), 1e-4);
        assert!(klub_of(&s, get("std")).unwrap() <= c["optimum"]["klub_per_dim"].as_f64().unwrap() * (1.0 + 1e-8));
    }
}

#[test]
fn importance_sampling_has_the_share_as_its_mean() {
    // for Gaussian data of the density's own scale, factor · (D's variance gained) is constant: the share itself
    let (hi, lo, c) = (3.0, 0.4, 0.5);
    let u: Vec<f64> = (0..200).map(|k| (k as f64 + 0.5) / 200.0).collect();
    let (t, factor) = klub_quantiles(hi, lo, &u, c).unwrap();
    let gained = |t: f64| c.powi(4) * (1.0 / (c * c + t * t) - 1.0 / (c * c + hi * hi));
    let share = klub(&[hi, lo], c).unwrap();
    for (t, f) in t.iter().zip(&factor) {
        assert!((f * gained(*t) / share - 1.0).abs() < 1e-9, "{t}");
    }
    // and for data of another scale it is right in the mean
    let s: f64 = 1.1;
    let gained = |t: f64| s.powi(4) * (1.0 / (s * s + t * t) - 1.0 / (s * s + hi * hi));
    let mean: f64 = t.iter().zip(&factor).map(|(t, f)| f * gained(*t)).sum::<f64>() / 200.0;
    assert!((mean / klub(&[hi, lo], s).unwrap() - 1.0).abs() < 1e-3, "{mean}");
    assert!(klub_quantiles(1.0, 2.0, &u, c).is_err() && klub_quantiles(2.0, 1.0, &[1.5], c).is_err());
}

#[test]
fn densities_become_quantiles() {
    let noise = Simple::make("ve_edm");
    let even = from_density(&noise, 6, &[-5.0, 7.0], &[2.0, 2.0], Interval::default()).unwrap();
    near(&sigmas(&even), &sigmas(&Heuristic::LogSnr.schedule(&noise, 6, Interval::default()).unwrap()), 1e-12);
    // e^−λ over λ: even in σ
    let (a, b) = (-(80f64.ln()), -(0.002f64.ln()));
    let lambda: Vec<f64> = (0..=40_000).map(|i| a + (b - a) * i as f64 / 40_000.0).collect();
    let density: Vec<f64> = lambda.iter().map(|l| (-l).exp()).collect();
    let s = from_density(&noise, 4, &lambda, &density, Interval::default()).unwrap();
    near(
        &sigmas(&s),
        &sigmas(&Heuristic::Polynomial { rho: 1.0 }.schedule(&noise, 4, Interval::default()).unwrap()),
        1e-6,
    );
    for (lambda, density) in [
        (&[-5.0, 7.0][..], &[1.0, -1.0][..]),
        (&[-5.0, 7.0], &[0.0, 0.0]),
        (&[-5.0, 7.0], &[1.0, f64::NAN]),
        (&[7.0, -5.0], &[1.0, 1.0]),
        (&[0.0, 1.0], &[1.0, 1.0]),
        (&[-5.0, 7.0], &[1.0]),
    ] {
        assert!(from_density(&noise, 4, lambda, density, Interval::default()).is_err(), "{lambda:?} {density:?}");
    }
}

#[test]
fn resampling_keeps_ends_and_smoothness() {
    let noise = Simple::make("ve_edm");
    let logsnr = |n| Heuristic::LogSnr.schedule(&noise, n, Interval::default()).unwrap();
    for how in [Resampling::LogLinear, Resampling::Tau] {
        for n in [1, 3, 10, 33] {
            near(&sigmas(&logsnr(10).resample(n, how, None).unwrap()), &sigmas(&logsnr(n)), 1e-12);
        }
        let edm = Heuristic::named("edm").unwrap().schedule(&noise, 10, Interval::default()).unwrap();
        near(&sigmas(&edm.resample(10, how, None).unwrap()), &sigmas(&edm), 1e-12);
    }
    // a flow's ends, where λ is infinite, stay
    let flow = Simple::make("flow");
    let s = Schedule::from_steps(flow, &[1.0, 0.8, 0.5, 0.2, 0.0], "list").unwrap();
    let t = s.resample(6, Resampling::LogLinear, None).unwrap().times().unwrap();
    assert_eq!((t[0], t[1], t[5], t[6]), (1.0, 0.8, 0.2, 0.0));
    assert!(s.resample(2, Resampling::LogLinear, None).is_err() && s.resample(0, Resampling::Tau, None).is_err());
    // decoupled times go with their steps
    let e = candle_core::Tensor::new(&[80.0, 1.1, 0.002], &candle_core::Device::Cpu).unwrap();
    let s = Schedule::from_steps(noise, &[80.0, 1.0, 0.002], "list").unwrap().with_eval(Some(&e)).unwrap();
    let (t, e) = {
        let r = s.resample(4, Resampling::LogLinear, None).unwrap();
        (r.times().unwrap(), r.eval_times().unwrap())
    };
    assert!((e[2] / t[2] - 1.1).abs() < 1e-9 && (e[1] / t[1] - 1.1f64.sqrt()).abs() < 1e-9, "{t:?} {e:?}");
}

#[test]
fn published_tables_are_those_of_the_tools() {
    // the σ in which ComfyUI has AYS's table for Stable Diffusion 1.5, to three digits
    let theirs = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];
    near(&sigmas(&published("ays_sd15", None).unwrap()), &theirs, 8e-3);
    for t in &PUBLISHED {
        let s = published(t.name, None).unwrap();
        assert_eq!(published(t.name, Some(s.nfe() * 2)).unwrap().nfe(), s.nfe() * 2);
    }
    assert!(published("ays", None).is_err());
}

/// Runs a script; it throws where something is not as it must be.
fn script(code: String) {
    let run = move || {
        let mut s = Session::new(Settings { seed: 0, out: "out".into() });
        match s.evaluate_line(&code) {
            Ok(Outcome::Value(_)) => {}
            Ok(_) => panic!("an exit"),
            Err(f) => panic!("{}", ld3sh::shell::report::render(f, &s, false)),
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
}

const SETUP: &str = r#"
import "gits" as gits; import "oss" as oss; import "ays" as ays;
let root = "ROOT/tests/fixtures/";
let gm = json::load(root + "solvers.json").gmm;
let mixture = |noise| denoiser::mixture(#{ means: tensor(gm.means, #{ dtype: "f64" }), stds: gm.stds, weights: gm.weights, noise: noise });
let same = |what, a, b| if a != b { throw `${what}: ${a} instead of ${b}`; };
"#;

fn with_setup(code: &str) -> String {
    SETUP.replace("ROOT", env!("CARGO_MANIFEST_DIR")) + code
}

#[test]
fn gits_finds_the_published_paths() {
    script(with_setup(
        r#"
let fx = json::load(root + "learned/gits.json");
let net = mixture.call(noise::edm());
let z = tensor(fx.latents, #{ dtype: "f64" });
for c in fx.cases {
    let teacher = if c.teacher == "euler" { solver::euler() } else { solver::ipndm(#{ order: c.teacher_order }) };
    let cost = gits::costs(net, z, #{ grid: schedule::list(net.noise, c.sigmas), teacher: teacher, metric: c.metric });
    for i in 0..(c.points - 1) {
        for j in (i + 1)..c.points {
            let (want) = c.cost_upper[i][j - i - 1];
            if abs(cost[i][j].item() - want) > 1e-9 * max(abs(want), 1e-3) { throw `${c.metric} ${i} ${j}: ${cost[i][j].item()} instead of ${want}`; }
        }
    }
    for p in c.paths { same.call(`${c.teacher} ${c.metric} ${p.steps} ${p.coeff}`, search::path(cost, p.steps, #{ coeff: p.coeff }), p.path); }
}
for a in fx.afs {
    let student = if a.student == "euler" { solver::euler() } else { solver::named(a.student, #{ order: a.order }) };
    let o = #{ z: z, metric: a.metric, coeff: a.coeff, student: student, points: a.points, teacher: solver::ipndm(#{ order: a.order }) };
    let found = gits::search(net, a.steps, o + #{ afs: "evident" });
    same.call("evident", found.path, a.path);
    if a.student != "dpmpp" {
        for (t, k) in found.tried { if abs(t.distance / a.distance_by_inserted_index[k] - 1.0) > 1e-9 { throw `${a.student}: ${t} ${a.distance_by_inserted_index[k]}`; } }
    }
    let found = gits::search(net, a.steps, o + #{ afs: "published" });
    same.call("published", found.path, a.published.path);
    for (want, k) in a.published.cost_first_row {
        if abs(found.cost[0][k + 1].item() - want) > 1e-9 * max(abs(want), 1e-3) { throw `first row ${k}: ${found.cost[0][k + 1].item()} instead of ${want}`; }
    }
}
// of several coefficients that whose samples come nearest
let swept = gits::search(net, 5, #{ z: z, coeff: [0.8, 1.0, 1.2], student: solver::ipndm() });
same.call("tried", swept.tried.len, 3);
let least = swept.tried[0];
for t in swept.tried { if t.distance < least.distance { least = t; } }
same.call("least", swept.path, least.path);
"#
        .replace("let (want) =", "let want =")
        .as_str(),
    ));
}

#[test]
fn oss_finds_the_published_paths() {
    script(with_setup(
        r#"
let net = mixture.call(noise::flow());
for c in json::load(root + "learned/oss.json").cases {
    let t = c.grid;
    t.reverse();
    let grid = schedule::list(net.noise, t);
    let z = tensor(c.noise, #{ dtype: "f64" });
    let last = t.len - 1;
    for s in c.searches {
        let found = oss::search(net, s.steps, #{ grid: grid, z: z, published: true });
        for (path, b) in found.paths {
            let theirs = path.map(|i| last - i);
            theirs.reverse();
            same.call("path", theirs, [0] + s.paths[b]);
            let x = solve(net, solver::euler(), grid.pick(path), z[b..b + 1], #{ batch: 1 });
            let far = (x - tensor(s.x_0[b], #{ dtype: "f64" })).abs().max().item();
            if far > 1e-9 { throw `x_0 ${far}`; }
        }
        // the evident form: from the first point, all steps
        let own = oss::search(net, s.steps, #{ grid: grid, z: z });
        for p in own.paths { same.call("whole", [p[0], p.len, p[p.len - 1]], [0, s.steps + 1, last]); }
    }
}
"#,
    ));
}

#[test]
fn ays_comes_near_the_optimum_of_gaussian_data() {
    script(with_setup(
        r#"
let net = denoiser::gaussian(#{ mean: [0.0], std: 0.5 });
let data = 0.5 * randn([400, 1], #{ seed: 3 });
let start = schedule::edm(net.noise, 5);
let estimate = ays::klub(net, data, start, #{});
if abs(estimate / start.gaussian_klub(0.5) - 1.0) > 0.1 { throw `estimate ${estimate}`; }
let found = ays::optimize(net, data, 5, #{});
let best = schedule::klub(net.noise, 5).gaussian_klub(0.5);
if found.schedule.gaussian_klub(0.5) > 1.06 * best { throw `found ${found.schedule.gaussian_klub(0.5)}, best ${best}`; }
for i in 1..found.rounds.len { if found.rounds[i] > found.rounds[i - 1] { throw "a pass made it worse"; } }
same.call("doubled", ays::doubled(found.schedule).nfe, 10);
same.call("same noises", ays::klub(net, data, start, #{}), estimate);
"#,
    ));
}

/// No argument reaches what it would break.
#[test]
fn what_no_search_can_take_is_refused_by_name() {
    script(with_setup(
        r#"
let e = noise::edm();
let x = randn([3, 1, 2]);
let none = zeros([0, 1, 2]);
let refused = |word, f| {
    let caught = ();
    try { f.call(); } catch (e) { caught = e; }
    if caught == () { throw `not refused: ${word}`; }
    if caught.kind == "internal" || !caught.message.contains(word) { throw `${word}: ${caught.kind}: ${caught.message}`; }
};
for make in [
    || schedule::klub(e, 0), || schedule::dmn(e, 0), || schedule::from_density(e, 0, [1.0, 1.0]), || schedule::edm(e, 4).resample(0),
    || schedule::from_density(e, 10000000, [1.0, 1.0]), || schedule::edm(e, 4).resample(10000000), || schedule::published("ays_sd15", 0),
] { refused.call("a schedule has 1 to 1000000 steps", make); }
refused.call("memory", || schedule::klub(e, 1000000));
refused.call("at least", || search::jumps(none, none, [], "l2"));
refused.call("at least", || search::carry(none, none, none, [], ones([0, 1]), ()));
let before = |points, costs| #{ states: zeros([points, 1, 2]), cost: zeros([costs, 1]), parent: zeros([costs, 1]) };
refused.call("the level before", || search::carry(x, x, x, [2.0, 1.0, 0.0], ones([3, 1]), before.call(2, 2)));
refused.call("the level before", || search::carry(x, x, x, [2.0, 1.0, 0.0], ones([3, 1]), before.call(3, 2)));
refused.call("0 points", || search::path(zeros([0, 0]), 1));
refused.call("a cost must be a number", || search::path(|i, j| "far", 2, #{ points: 4 }));
refused.call("must return a number", || schedule::from_density(e, 3, |l| "much"));
refused.call("no index", || schedule::edm(e, 4).pick([0, 9]));
"#,
    ));
}
