//! States of several parts: solved as one, each part by the same plan; curved parts take only rows that start from one state.
use candle_core::{DType, Device, Tensor};
use ld3sh::Result;
use ld3sh::denoise::{Denoiser, DynDenoiser, Gaussian, Geometry, InputGrad, Part, Prediction, Pullback, Query, State};
use ld3sh::discretize::Schedule;
use ld3sh::host::{Host, Quiet};
use ld3sh::noise::Noise;
use ld3sh::plan::SolveOptions;
use ld3sh::solve::{Solver, TABLE};
use ld3sh::tensor::grad;
use std::rc::Rc;

fn noise() -> Noise {
    ld3sh::noise::from_spec(&serde_json::json!({ "name": "edm" })).unwrap()
}

fn gaussian(mean: &[f64], std: f64) -> Gaussian {
    let mean = Tensor::new(mean, &Device::Cpu).unwrap();
    Gaussian::new(&mean, &Tensor::new(std, &Device::Cpu).unwrap(), noise()).unwrap()
}

/// A denoiser for each part.
struct Pair([Gaussian; 2], Noise);

impl Denoiser for Pair {
    fn noise(&self) -> &Noise {
        &self.1
    }
    fn describe(&self) -> String {
        "a pair".into()
    }
    fn hash(&self) -> Option<String> {
        None
    }
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        Ok(self.linearize(host, q, want)?.0)
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let (mut values, mut pulls) = (vec![], vec![]);
        for (d, x) in self.0.iter().zip(q.x.values()) {
            let (m, pull) = d.linearize(host, &Query { x: &x.into(), ..*q }, want)?;
            values.push(m.into_tensor()?);
            pulls.push(pull);
        }
        let like = q.x.detach();
        let pull: Pullback = Box::new(move |host, bar| {
            let (mut xs, mut t) = (vec![], 0.0);
            for (pull, bar) in pulls.into_iter().zip(bar.values()) {
                let g = pull(host, &bar.into())?;
                xs.push(g.x.into_tensor()?);
                t += g.t.iter().sum::<f64>();
            }
            Ok(InputGrad { x: like.with_values(xs), t: vec![t] })
        });
        Ok((q.x.with_values(values), pull))
    }
}

fn part(name: &'static str, value: &Tensor, geometry: Geometry) -> Part {
    Part { name, value: value.clone(), geometry }
}

fn steps() -> Tensor {
    let t: Vec<f64> = (0..=5).map(|i| 40.0 * (0.01f64 / 40.0).powf(i as f64 / 5.0)).collect();
    Tensor::new(t, &Device::Cpu).unwrap()
}

/// x_0, and the gradients of its squares' sum in x_T's parts and the steps.
fn solved(net: &DynDenoiser, solver: &Solver, x: &[Part]) -> (Vec<Tensor>, Vec<Tensor>) {
    let tracked: Vec<Part> = x.iter().map(|p| Part { value: grad::variable(&p.value).unwrap(), ..p.clone() }).collect();
    let t = grad::variable(&steps()).unwrap();
    let plan = solver.plan(&Schedule::new(noise(), &t, "test").unwrap()).unwrap();
    let state = State::new(tracked.clone()).unwrap();
    let end = plan.solve(net, &Quiet, &state, &SolveOptions::default(), None).unwrap().x;
    let squares = |v: &Tensor| v.sqr().unwrap().sum_all().unwrap();
    let loss = end.values().map(squares).reduce(|a, b| (a + b).unwrap()).unwrap();
    let wanted: Vec<Tensor> = tracked.into_iter().map(|p| p.value).chain([t]).collect();
    (end.values().map(Tensor::detach).collect(), grad::grad(&Quiet, &loss, &wanted).unwrap())
}

fn close(a: &Tensor, b: &Tensor) {
    let d: f64 = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar().unwrap();
    assert!(d < 1e-10, "{a} against {b}");
}

#[test]
fn parts_are_solved_side_by_side() {
    let x = Tensor::new(&[[30.0, -11.0], [4.0, 7.0]], &Device::Cpu).unwrap();
    let y = Tensor::new(&[[-20.0], [15.0]], &Device::Cpu).unwrap();
    let [a, b] = [part("x", &x, Geometry::Euclidean), part("y", &y, Geometry::Euclidean)];
    let [left, right] = [|| gaussian(&[0.5, -0.5], 0.3), || gaussian(&[1.0], 0.8)];
    let pair: DynDenoiser = Rc::new(Pair([left(), right()], noise()));
    let (left, right): (DynDenoiser, DynDenoiser) = (Rc::new(left()), Rc::new(right()));
    for &row in TABLE {
        let solver = Solver::named(row.name).unwrap();
        let schedule = Schedule::new(noise(), &steps(), "test").unwrap();
        if solver.plan(&schedule).unwrap().plan().is_stochastic() {
            // noise of a part depends on its place among the parts
            continue;
        }
        let (both, grads) = solved(&pair, &solver, &[a.clone(), b.clone()]);
        let (one, g1) = solved(&left, &solver, std::slice::from_ref(&a));
        let (two, g2) = solved(&right, &solver, &[part("x", &y, Geometry::Euclidean)]);
        close(&both[0], &one[0]);
        close(&both[1], &two[0]);
        close(&grads[0], &g1[0]);
        close(&grads[1], &g2[0]);
        close(&grads[2], &(&g1[1] + &g2[1]).unwrap());
    }
}

#[test]
fn curved_parts_take_only_rows_that_move_one_state() {
    let of =
        |geometry| State::new(vec![part("turn", &Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap(), geometry)]);
    let plan = |name: &str| {
        let schedule = Schedule::new(noise(), &steps(), "test").unwrap();
        Solver::named(name).unwrap().plan(&schedule).unwrap().plan().clone()
    };
    for geometry in [Geometry::Torus, Geometry::Rotations] {
        let state = of(geometry.clone()).unwrap();
        plan("euler").check_parts(&state).unwrap();
        // a data prediction shrinks the state: no tangent does
        let e = plan("dpmpp").check_parts(&state).unwrap_err().to_string();
        assert!(e.contains("`turn`") && e.contains(geometry.name()), "{e}");
    }
    plan("dpmpp").check_parts(&of(Geometry::Euclidean).unwrap()).unwrap();
}

#[test]
fn parts_of_other_batches_are_refused() {
    let of = |n: usize| Tensor::zeros((n, 2), DType::F64, &Device::Cpu).unwrap();
    let e = State::new(vec![part("x", &of(2), Geometry::Euclidean), part("turn", &of(3), Geometry::Rotations)]);
    assert!(e.err().unwrap().to_string().contains("`x` and `turn`"));
    assert!(State::new(vec![]).is_err());
    let two = State::new(vec![part("x", &of(2), Geometry::Euclidean), part("turn", &of(2), Geometry::Rotations)]);
    let e = two.unwrap().into_tensor().unwrap_err().to_string();
    assert!(e.contains("`x` (Euclidean), `turn` (rotations)"), "{e}");
}
