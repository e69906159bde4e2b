//! Docking's poses as states of plans: the published ODE step by step, gradients through solves, solvers in the tangent space.
use super::docking::{Named, SCORES, apart, arguments, complex, load, score, written};
use super::helpers::{read, values};
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Denoiser, DynDenoiser, Prediction, Query};
use ld3sh::discretize::Schedule;
use ld3sh::geometry::{Motion, Vec3};
use ld3sh::host::Quiet;
use ld3sh::nets::docking::{Docking, Variable};
use ld3sh::nets::family::Part;
use ld3sh::plan::{Remat, SolveOptions};
use ld3sh::solve::{Solver, TABLE};
use ld3sh::tensor::grad;
use serde_json::json;
use std::rc::Rc;
use std::sync::Arc;

fn f64s(values: &[f64]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap()
}

/// The network and the complex that the fixture's sampler ran with.
fn published(dtype: DType, variable: Variable) -> Docking {
    let (net, io) = score(SCORES[0], dtype);
    Docking::new(net, Arc::new(complex(&io, 0)), variable).unwrap()
}

/// A network without an embedding of time and without norms that are tables: all that is left is smooth in the time.
fn smooth(variable: Variable, dtype: DType) -> Docking {
    let io = read(SCORES[1]);
    let mut told = arguments(SCORES[1]);
    told["embedding_scale"] = json!(0.0);
    let (_dir, path) = written(&io, &told);
    match load(&path, dtype).unwrap().into_values().next() {
        Some(Part::Score(net)) => Docking::new(net, Arc::new(complex(&io, 0)), variable).unwrap(),
        _ => panic!("no score model"),
    }
}

fn rows(t: &Tensor, i: usize) -> Vec<Vec<f64>> {
    t.get(i).unwrap().to_vec2().unwrap()
}

fn poses(t: &Tensor) -> Vec<Vec<Vec3>> {
    let one = |p: Vec<Vec<f64>>| p.into_iter().map(|p| [p[0], p[1], p[2]]).collect();
    t.to_dtype(DType::F64).unwrap().to_vec3().unwrap().into_iter().map(one).collect()
}

/// The steps that a case of the fixture was run over: its times, and 0 after the last one that was used.
fn steps(io: &Named, case: &str) -> Vec<f64> {
    let used = io[&format!("{case}.positions")].dim(0).unwrap();
    let mut t = values(&io[&format!("{case}.schedule")])[..used].to_vec();
    t.push(0.0);
    t
}

#[test]
fn moves_of_the_published_ode() {
    let io = read("docking/sampling.safetensors");
    let net = published(DType::F64, Variable::Time);
    for case in ["ode6", "ode18of20", "ode_custom"] {
        let t = steps(&io, case);
        let at = |what: &str, i: usize| rows(&io[&format!("{case}.{what}")], i);
        let positions = &io[&format!("{case}.positions")];
        for i in 0..t.len() - 1 {
            let here = positions.get(i).unwrap();
            let there =
                if i + 2 < t.len() { positions.get(i + 1).unwrap() } else { io[&format!("{case}.final")].clone() };
            let state = net.state(&here).unwrap();
            let q = Query { x: &state, t: &[t[i]], cond: &Cond::None };
            let out = net.eval(&Quiet, &q, Prediction::Noise).unwrap();
            let out = out.parts()[0].value.to_vec2::<f64>().unwrap();
            for (b, out) in out.iter().enumerate() {
                let want: Vec<f64> =
                    [at("tr", i)[b].clone(), at("rot", i)[b].clone(), at("tor", i)[b].clone()].concat();
                let got: Vec<f64> = out.iter().map(|v| v * (t[i + 1] - t[i])).collect();
                // shift and rotation up to the sines of the time; torsions up to norms that the reference drew at random
                assert!(apart(&got[..6], &want[..6]) < 2e-3, "{case} {i}: {got:?} against {want:?}");
                assert!(apart(&got[6..], &want[6..]) < 2.5e-2, "{case} {i}: {got:?} against {want:?}");
                let moved = Motion::from_row(&want).apply(&net.complex().ligand.torsions, &poses(&here)[b]).positions();
                let off = apart(moved.as_flattened(), poses(&there)[b].as_flattened());
                assert!(off < 1e-12, "{case} {i}: {off}");
            }
        }
    }
}

fn solve(net: &DynDenoiser, docking: &Docking, solver: &str, t: &Tensor, x: &Tensor, remat: Remat) -> Tensor {
    let schedule = Schedule::new(net.noise().clone(), t, "test").unwrap();
    let plan = Solver::named(solver).unwrap().plan(&schedule).unwrap();
    let options = SolveOptions { remat, ..SolveOptions::default() };
    let done = plan.solve(net, &Quiet, &docking.state(x).unwrap(), &options, None).unwrap();
    done.x.parts()[0].value.clone()
}

#[test]
fn whole_runs_end_where_the_published_ones_do() {
    let io = read("docking/sampling.safetensors");
    for dtype in [DType::F64, DType::F32] {
        let docking = published(dtype, Variable::Time);
        let net: DynDenoiser = Rc::new(docking.clone());
        for case in ["ode6", "ode18of20", "ode_custom"] {
            let x = io["start"].to_dtype(dtype).unwrap();
            let end = solve(&net, &docking, "euler", &f64s(&steps(&io, case)), &x, Remat::Auto);
            let (got, want) = (poses(&end), poses(&io[&format!("{case}.final")]));
            let start = poses(&io["start"]);
            for b in 0..2 {
                let far = |a: &[Vec3], b: &[Vec3]| {
                    a.as_flattened().iter().zip(b.as_flattened()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
                };
                let (off, moved) = (far(&got[b], &want[b]), far(&start[b], &want[b]));
                assert!(off < 2e-2 * moved, "{case}, {dtype:?}: {off} of {moved}");
            }
        }
    }
}

#[test]
fn gradients_through_solves_match_differences() {
    for variable in [Variable::Time, Variable::Sigma] {
        let docking = smooth(variable, DType::F64);
        let net: DynDenoiser = Rc::new(docking.clone());
        let (low, high) = match variable {
            Variable::Time => (0.55, 0.8),
            Variable::Sigma => (4.0, 9.0),
        };
        let t = f64s(&[high, high - 0.4 * (high - low), low, low - 0.3 * (high - low)]);
        let n = docking.complex().ligand.positions.len();
        let own = docking.complex().ligand.positions.as_flattened().to_vec();
        let x = Tensor::from_vec(own, (1, n, 3), &Device::Cpu).unwrap();
        let bar = super::helpers::uniform("bar", &[1, n, 3]);
        let along = (super::helpers::uniform("x", &[1, n, 3]), f64s(&[0.3, -0.5, 0.4, 0.2]));
        let solvers: &[&str] = if variable == Variable::Time { &["euler", "ipndm", "heun"] } else { &["euler"] };
        for solver in solvers {
            let loss = |x: &Tensor, t: &Tensor, remat| {
                (solve(&net, &docking, solver, t, x, remat) * &bar).unwrap().sum_all().unwrap()
            };
            let mut got = vec![];
            for remat in [Remat::Always, Remat::Never] {
                let (vx, vt) = (grad::variable(&x).unwrap(), grad::variable(&t).unwrap());
                let grads = grad::grad(&Quiet, &loss(&vx, &vt, remat), &[vx, vt]).unwrap();
                let dot = |a: &Tensor, b: &Tensor| (a * b).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
                got.push([dot(&grads[0], &along.0), dot(&grads[1], &along.1)]);
            }
            assert_eq!(got[0], got[1], "{solver}");
            let difference = |f: &dyn Fn(f64) -> f64| {
                let h = 1e-5;
                (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)
            };
            let value = |x: &Tensor, t: &Tensor| loss(x, t, Remat::Auto).to_scalar::<f64>().unwrap();
            let moved = |a: &Tensor, d: &Tensor, h: f64| (a + (d * h).unwrap()).unwrap();
            let want = [
                difference(&|h| value(&moved(&x, &along.0, h), &t)),
                difference(&|h| value(&x, &moved(&t, &along.1, h))),
            ];
            for (got, want) in got[0].iter().zip(want) {
                assert!(
                    (got - want).abs() < 1e-5 * want.abs().max(1e-3),
                    "{solver} in {variable:?}: {got} against {want}"
                );
            }
        }
    }
}

#[test]
fn solvers_move_poses_or_say_why_not() {
    let docking = smooth(Variable::Time, DType::F32);
    let net: DynDenoiser = Rc::new(docking.clone());
    let n = docking.complex().ligand.positions.len();
    let own = docking.complex().ligand.positions.as_flattened().to_vec();
    let x = Tensor::from_vec(own, (1, n, 3), &Device::Cpu).unwrap();
    let t = f64s(&[0.9, 0.6, 0.4, 0.2, 0.0]);
    let mut moved = vec![];
    for &row in TABLE {
        let schedule = Schedule::new(net.noise().clone(), &t, "test").unwrap();
        let plan = Solver::named(row.name).unwrap().plan(&schedule).unwrap();
        match plan.solve(&net, &Quiet, &docking.state(&x).unwrap(), &SolveOptions::default(), None) {
            Ok(done) => {
                assert!(values(&done.x.parts()[0].value).iter().all(|v| v.is_finite()), "{}", row.name);
                moved.push(row.name);
            }
            Err(e) => {
                let e = e.to_string();
                assert!(
                    e.contains("tangents") || e.contains("noise") || e.contains("data prediction"),
                    "{}: {e}",
                    row.name
                );
            }
        }
    }
    for name in ["euler", "heun", "ipndm", "ipndm_v", "deis"] {
        assert!(moved.contains(&name), "{name} moves no poses: {moved:?}");
    }
    let scaled = Solver::named("euler").unwrap();
    let plan = scaled.plan(&Schedule::new(net.noise().clone(), &t, "test").unwrap()).unwrap();
    let e = plan.sample(net.noise(), &net, &Quiet, &docking.state(&x).unwrap(), &SolveOptions::default(), None);
    assert!(e.err().unwrap().to_string().contains("unit noise"));
    let e = docking.state(&x.narrow(1, 0, n - 1).unwrap()).unwrap_err().to_string();
    assert!(e.contains(&format!("[B, {n}, 3]")), "{e}");
}

#[test]
fn poses_turn_with_the_complex() {
    let docking = published(DType::F64, Variable::Time);
    let r = ld3sh::geometry::rotation([0.4, -1.3, 0.8]);
    let there = |all: &[Vec3]| -> Vec<Vec3> {
        let at = |p: &Vec3| ld3sh::geometry::vectors::add(ld3sh::geometry::vectors::times(&r, *p), [3.0, -7.0, 11.0]);
        all.iter().map(at).collect()
    };
    let mut turned = (**docking.complex()).clone();
    turned.receptor.positions = there(&turned.receptor.positions);
    let other = Docking::new(docking.score().clone(), Arc::new(turned), Variable::Time).unwrap();
    let start = docking.complex().ligand.positions.clone();
    let tensor = |p: &[Vec3]| Tensor::from_vec(p.as_flattened().to_vec(), (1, p.len(), 3), &Device::Cpu).unwrap();
    let t = f64s(&[0.6, 0.4, 0.2, 0.0]);
    let run = |d: &Docking, x: &[Vec3]| {
        let net: DynDenoiser = Rc::new(d.clone());
        poses(&solve(&net, d, "ipndm", &t, &tensor(x), Remat::Auto)).remove(0)
    };
    let (here, moved) = (run(&docking, &start), run(&other, &there(&start)));
    let off = apart(moved.as_flattened(), there(&here).as_flattened());
    assert!(off < 1e-5, "{off}");
}

#[test]
fn walks_are_the_published_ones() {
    let io = read("docking/sampling.safetensors");
    let docking = published(DType::F64, Variable::Time);
    let far = |a: &[Vec3], b: &[Vec3]| {
        a.as_flattened().iter().zip(b.as_flattened()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let start = poses(&io["start"]);
    let mut t = values(&io["sde5.schedule"])[..5].to_vec();
    t.push(0.0);
    let mut given = |i: usize| {
        let row = |b: usize| {
            let of = |part: &str| rows(&io[&format!("sde5.z_{part}")], i)[b].clone();
            Motion::from_row(&[of("tr"), of("rot"), of("tor")].concat())
        };
        Ok((0..2).map(row).collect())
    };
    let end = docking.walk(&start, &t, Some(&mut given), false).unwrap();
    for (b, want) in poses(&io["sde5.final"]).iter().enumerate() {
        let (off, moved) = (far(&end[b], want), far(&start[b], want));
        assert!(off < 2e-2 * moved, "{off} of {moved}");
    }
    // without noise it is the ODE that plans solve
    let t = steps(&io, "ode6");
    let end = docking.walk(&start, &t, None, false).unwrap();
    let net: DynDenoiser = Rc::new(docking.clone());
    let solved = poses(&solve(&net, &docking, "euler", &f64s(&t), &io["start"], Remat::Auto));
    assert!((0..2).all(|b| far(&end[b], &solved[b]) < 1e-9));
    for bad in [&[1.0][..], &[0.5, 0.7], &[1.2, 0.1], &[0.5, f64::NAN]] {
        assert!(docking.walk(&start, bad, None, false).unwrap_err().to_string().contains("must fall within [0, 1]"));
    }
}

#[test]
fn starts_depend_on_their_number_alone() {
    let docking = published(DType::F32, Variable::Time);
    let all = docking.start(200, 5, 0).unwrap();
    assert_eq!(docking.start(3, 5, 7).unwrap(), all[7..10]);
    assert_ne!(docking.start(1, 6, 0).unwrap()[0], all[0]);
    assert_eq!(docking.noises(2, 5, 3, 1).unwrap()[0], docking.noises(5, 5, 1, 1).unwrap()[2]);
    // bonds keep their lengths, and centres have the spread of the largest noise
    let ligand = &docking.complex().ligand;
    let length = |pose: &[Vec3], k: usize| {
        let [a, b] = [0, 1].map(|end| pose[ligand.bonds[end][k]]);
        ld3sh::geometry::vectors::length(ld3sh::geometry::vectors::sub(a, b))
    };
    for pose in &all[..5] {
        (0..ligand.kinds.len()).for_each(|k| assert!((length(pose, k) - length(&ligand.positions, k)).abs() < 1e-9));
    }
    let centres: Vec<Vec3> = all.iter().map(|p| ld3sh::geometry::vectors::mean(p)).collect();
    let square = centres.iter().flatten().map(|v| v * v).sum::<f64>() / 600.0;
    assert!((square.sqrt() / 19.0 - 1.0).abs() < 0.1, "{}", square.sqrt());
}
