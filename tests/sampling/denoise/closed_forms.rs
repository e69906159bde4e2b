//! Closed forms against naive f64 loops, finite differences and the reference numbers.
use super::helpers::*;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::*;
use ld3sh::host::Quiet;
use ld3sh::noise::Noise;
use ld3sh::{Kind, Result};
use serde_json::{Value, json};

fn tensor(v: Vec<f64>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(v, shape, &Device::Cpu).unwrap()
}

/// E[x_0 | x_t = x] and E[ε | x_t = x] of a mixture, one sample, as the formulas stand.
fn posterior(x: &[f64], a: f64, s: f64, means: &[Vec<f64>], stds: &[f64], w: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let d = x.len() as f64;
    let log_p: Vec<f64> = (0..means.len())
        .map(|k| {
            let v = a * a * stds[k] * stds[k] + s * s;
            let r2: f64 = x.iter().zip(&means[k]).map(|(x, m)| (x - a * m).powi(2)).sum();
            w[k].ln() - 0.5 * d * v.ln() - r2 / (2.0 * v)
        })
        .collect();
    let top = log_p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = log_p.iter().map(|l| (l - top).exp()).collect();
    let z: f64 = p.iter().sum();
    let (mut x0, mut eps) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for k in 0..means.len() {
        let v = a * a * stds[k] * stds[k] + s * s;
        for i in 0..x.len() {
            let r = x[i] - a * means[k][i];
            x0[i] += p[k] / z * (means[k][i] + a * stds[k] * stds[k] / v * r);
            eps[i] += p[k] / z * s / v * r;
        }
    }
    (x0, eps)
}

/// States x_t = α x_0 + σ ε near the means, one for each time.
fn states(noise: &Noise, t: &[f64], means: &Tensor) -> Tensor {
    let each: Vec<Tensor> = t
        .iter()
        .enumerate()
        .map(|(i, t)| {
            let (a, s) = (noise.alpha(&(*t).into()).v(), noise.sigma(&(*t).into()).v());
            let x0 = means.narrow(0, i % means.dim(0).unwrap(), 1).unwrap();
            let eps = wave(x0.dims(), i as f64 * 0.37);
            ((x0 * a).unwrap() + (eps * s).unwrap()).unwrap()
        })
        .collect();
    Tensor::cat(&each, 0).unwrap()
}

fn check_against_loops(d: &dyn Denoiser, t: &[f64], means: &Tensor, stds: &[f64], w: &[f64], tol: f64) {
    let rows: Vec<Vec<f64>> = means.reshape((w.len(), ())).unwrap().to_vec2().unwrap();
    let x = states(d.noise(), t, means);
    let each: Vec<Vec<f64>> = x.reshape((t.len(), ())).unwrap().to_vec2().unwrap();
    let (data, eps) = (eval(d, &x, t, &Cond::None, WANTS[0]), eval(d, &x, t, &Cond::None, WANTS[1]));
    for (i, t) in t.iter().enumerate() {
        let (a, s) = (d.noise().alpha(&(*t).into()).v(), d.noise().sigma(&(*t).into()).v());
        let (x0, e) = posterior(&each[i], a, s, &rows, stds, w);
        let (g0, g1) =
            (gap(&values(&data.narrow(0, i, 1).unwrap()), &x0), gap(&values(&eps.narrow(0, i, 1).unwrap()), &e));
        assert!(g0 <= tol && g1 <= tol, "{} at {t}: {g0:e} and {g1:e}", d.describe());
    }
}

#[test]
fn a_mixture_is_its_posterior_mean_in_every_schedule() {
    let means = wave(&[4, 2, 3], 0.2);
    let (stds, weights) = ([0.25, 0.0, 0.4, 0.15], [0.5, 1.0, 0.3, 0.0]);
    for (noise, t) in schedules() {
        let d = Mixture::new(&means, &stds, Some(&weights), noise.clone()).unwrap();
        check_against_loops(&d, &t, &means, &stds, &weights, 1e-12);
        let x = states(&noise, &t, &means);
        check_gradients(&Quiet, &d, &x, &t, &Cond::None, 2e-7);
        check_gradients(&Quiet, &d, &x, &t[..1], &Cond::None, 2e-7);
        let equal = Mixture::new(&means, &[0.3], None, noise).unwrap();
        check_against_loops(&equal, &t, &means, &[0.3; 4], &[1.0; 4], 1e-12);
        check_gradients(&Quiet, &equal, &x, &t, &Cond::None, 2e-7);
    }
}

#[test]
fn many_components_go_through_matrix_products() {
    let means = wave(&[200, 2, 3], 0.2);
    let stds: Vec<f64> = (0..200).map(|k| 0.1 + 0.002 * f64::from(k)).collect();
    for (noise, t) in schedules() {
        let d = Mixture::new(&means, &stds, None, noise.clone()).unwrap();
        check_against_loops(&d, &t, &means, &stds, &vec![1.0; 200], 1e-11);
        check_gradients(&Quiet, &d, &states(&noise, &t, &means), &t, &Cond::None, 2e-7);
        let d = Empirical::new(&means, noise.clone()).unwrap();
        check_against_loops(&d, &t, &means, &vec![0.0; 200], &vec![1.0; 200], 1e-9);
        check_gradients(&Quiet, &d, &states(&noise, &t, &means), &t, &Cond::None, 2e-6);
    }
}

#[test]
fn large_data_sets_are_taken_in_blocks() {
    // 4100 × 2049 values are more than one block of components, and of rows
    let data = wave(&[4100, 2049], 0.2).to_dtype(DType::F32).unwrap();
    let d = Empirical::new(&data, edm()).unwrap();
    let x = (wave(&[1100, 2049], 0.7) * 3.0).unwrap();
    let q = Query { x: &(&x).into(), t: &[20.0], cond: &Cond::None };
    let all = d.eval(&Quiet, &q, Prediction::Data).unwrap().into_tensor().unwrap();
    let rows: Vec<Vec<f64>> = data.to_dtype(DType::F64).unwrap().to_vec2().unwrap();
    let n = rows.len();
    for i in [0, 1023, 1024, 1099] {
        let one = values(&x.narrow(0, i, 1).unwrap());
        let (x0, _) = posterior(&one, 1.0, 20.0, &rows, &vec![0.0; n], &vec![1.0; n]);
        assert!(gap(&values(&all.narrow(0, i, 1).unwrap()), &x0) < 1e-10, "row {i}");
    }
}

#[test]
fn nothing_overflows_at_either_end() {
    let data = wave(&[3, 64], 0.2);
    for (d, name) in [
        (Empirical::new(&data, edm()).unwrap(), "direct"),
        (Empirical::new(&wave(&[100, 64], 0.2), edm()).unwrap(), "by products"),
    ] {
        // at the smallest noise level the nearest datum is all that is left, in single precision too
        for dtype in [DType::F32, DType::F64] {
            let x = (data.narrow(0, 1, 1).unwrap() + 1e-3).unwrap();
            let x = x.to_dtype(dtype).unwrap();
            let x0 = eval(&d, &x, &[0.002], &Cond::None, Prediction::Data);
            assert_eq!(x0.dtype(), dtype);
            if name == "direct" {
                close(&x0.to_dtype(DType::F64).unwrap(), &data.narrow(0, 1, 1).unwrap(), 1e-7);
            }
            assert!(values(&eval(&d, &x, &[0.002], &Cond::None, Prediction::Noise)).iter().all(|v| v.is_finite()));
        }
        // far away from everything, the log-densities are huge
        let x = (wave(&[1, 64], 0.0) * 1e6).unwrap();
        assert!(values(&eval(&d, &x, &[0.002], &Cond::None, Prediction::Data)).iter().all(|v| v.is_finite()));
        assert!(values(&eval(&d, &x, &[80.0], &Cond::None, Prediction::Data)).iter().all(|v| v.is_finite()));
    }
}

#[test]
fn a_gaussian_is_its_posterior_mean() {
    let (mean, std) = (wave(&[2, 3], 0.2), (wave(&[2, 3], 0.5).abs().unwrap() + 0.1).unwrap());
    let one = Tensor::new(0.6f64, &Device::Cpu).unwrap();
    for (noise, t) in schedules() {
        let iso = Gaussian::new(&mean, &one, noise.clone()).unwrap();
        let means = mean.unsqueeze(0).unwrap();
        check_against_loops(&iso, &t, &means, &[0.6], &[1.0], 1e-12);
        let diagonal = Gaussian::new(&mean, &std, noise.clone()).unwrap();
        let x = states(&noise, &t, &means);
        check_gradients(&Quiet, &iso, &x, &t, &Cond::None, 2e-8);
        check_gradients(&Quiet, &diagonal, &x, &t, &Cond::None, 2e-8);
        check_gradients(&Quiet, &diagonal, &x, &t[1..2], &Cond::None, 2e-8);
        // each entry by itself
        let all = eval(&diagonal, &x, &t, &Cond::None, Prediction::Data);
        for i in 0..6 {
            let at = |t: &Tensor| t.reshape(((), 6)).unwrap().narrow(1, i, 1).unwrap().contiguous().unwrap();
            let (m, s) = (at(&mean).reshape(1).unwrap(), at(&std).reshape(1).unwrap());
            let entry = Gaussian::new(&m, &s, noise.clone()).unwrap();
            close(&at(&all), &eval(&entry, &at(&x), &t, &Cond::None, Prediction::Data), 1e-14);
        }
    }
}

/// A (nested) array of numbers and its shape.
fn array(v: &Value) -> Tensor {
    fn walk(v: &Value, shape: &mut Vec<usize>, out: &mut Vec<f64>, depth: usize) {
        match v {
            Value::Array(a) => {
                if shape.len() == depth {
                    shape.push(a.len());
                }
                a.iter().for_each(|v| walk(v, shape, out, depth + 1));
            }
            v => out.push(v.as_f64().unwrap()),
        }
    }
    let (mut shape, mut out) = (vec![], vec![]);
    walk(v, &mut shape, &mut out, 0);
    tensor(out, &shape)
}

#[test]
fn dpm_solver_pp_1_by_hand_gives_the_reference_numbers() {
    let all: Value = serde_json::from_str(include_str!("../../fixtures/solvers.json")).unwrap();
    let gmm = &all["gmm"];
    let (means, stds, weights) = (array(&gmm["means"]), values(&array(&gmm["stds"])), values(&array(&gmm["weights"])));
    let mut checked = 0;
    for case in all["cases"].as_array().unwrap() {
        if case["solver"] != "dpm_solver++" || case["order"] != 1 {
            continue;
        }
        let noise = noise(match case["schedule"].as_str().unwrap() {
            "ve_edm" => json!({"name": "edm"}),
            "vp_linear" => json!({"name": "vp_linear"}),
            _ => json!({"name": "vp_discrete", "preset": "sd"}),
        });
        let d = Mixture::new(&means, &stds, Some(&weights), noise.clone()).unwrap();
        let (t, t_eval) = (values(&array(&case["t"])), values(&array(&case["t_eval"])));
        let mut x = array(&case["x_T"]);
        let mut steps = vec![];
        for i in 0..t.len() - 1 {
            let level = |t: f64| (noise.alpha(&t.into()).v(), noise.sigma(&t.into()).v());
            let ((a0, s0), (a1, s1)) = (level(t[i]), level(t[i + 1]));
            let ratio = s1 / s0;
            let gain = a1 - ratio * a0; // α′(1 − e^{−h})
            let q = Query { x: &(&x).into(), t: &t_eval[i..=i], cond: &Cond::None };
            let (m, pull) = d.linearize(&Quiet, &q, Prediction::Data).unwrap();
            x = ((&x * ratio).unwrap() + (m.into_tensor().unwrap() * gain).unwrap()).unwrap();
            steps.push((ratio, gain, pull));
        }
        let g = gap(&values(&x), &values(&array(&case["x_0"])));
        assert!(g < 1e-9, "x_0: {g:e}");
        let mut bar = array(&case["cotangent"]);
        let mut t_bar = vec![];
        for (ratio, gain, pull) in steps.into_iter().rev() {
            let g = pull(&Quiet, &(&bar * gain).unwrap().into()).unwrap();
            bar = ((bar * ratio).unwrap() + g.x.tensor().unwrap()).unwrap();
            t_bar.insert(0, g.t[0]);
        }
        let g = gap(&values(&bar), &values(&array(&case["grad_x_T"])));
        assert!(g < 1e-8, "grad_x_T: {g:e}");
        let reference = values(&array(&case["grad_t_eval"]));
        let inner = 1..reference.len() - 1; // the ends of the discrete schedule are knots
        let g = gap(&t_bar[inner.clone()], &reference[inner]);
        assert!(g < 1e-8, "grad_t_eval: {g:e}");
        checked += 1;
    }
    assert_eq!(checked, 6);
}

#[test]
fn samples_do_not_depend_on_their_batch() {
    let d = Mixture::new(&wave(&[4, 2, 3], 0.2), &[0.2], None, edm()).unwrap();
    let x = wave(&[5, 2, 3], 0.4);
    let all = eval(&d, &x, &[0.5], &Cond::None, Prediction::Noise);
    for i in 0..5 {
        let one = eval(&d, &x.narrow(0, i, 1).unwrap(), &[0.5], &Cond::None, Prediction::Noise);
        assert_eq!(values(&one), values(&all.narrow(0, i, 1).unwrap()));
    }
}

#[test]
fn bad_distributions_and_queries_are_named() {
    let means = wave(&[3, 2, 3], 0.2);
    let value = |r: Result<Mixture>| assert_eq!(r.err().unwrap().kind(), Kind::Value);
    let shape = |r: Result<Mixture>| assert_eq!(r.err().unwrap().kind(), Kind::Shape);
    shape(Mixture::new(&means, &[0.1, 0.2], None, edm()));
    shape(Mixture::new(&means, &[], None, edm()));
    shape(Mixture::new(&means, &[0.1], Some(&[1.0]), edm()));
    shape(Mixture::new(&wave(&[3], 0.0), &[0.1], None, edm()));
    value(Mixture::new(&means, &[-0.1], None, edm()));
    value(Mixture::new(&means, &[f64::NAN], None, edm()));
    value(Mixture::new(&means, &[0.1], Some(&[0.0; 3]), edm()));
    value(Mixture::new(&means, &[0.1], Some(&[1.0, -1.0, 1.0]), edm()));
    value(Mixture::new(&(&means / 0.0).unwrap(), &[0.1], None, edm()));
    assert!(Empirical::new(&Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap(), edm()).is_err());
    assert!(Gaussian::new(&wave(&[2], 0.0), &wave(&[3], 0.0), edm()).is_err());
    assert!(Gaussian::new(&wave(&[2], 0.0), &tensor(vec![-1.0], &[1]), edm()).is_err());

    let d = Empirical::new(&means, edm()).unwrap();
    let x = wave(&[2, 2, 3], 0.4);
    assert_eq!(error(&d, &wave(&[2, 6], 0.0), &[1.0], &Cond::None).kind(), Kind::Shape);
    assert_eq!(error(&d, &x, &[1.0], &Cond::classes(wave(&[2, 3], 0.0))).kind(), Kind::Value);
    assert_eq!(error(&d, &x, &[0.0], &Cond::None).kind(), Kind::Value);
    assert_eq!(error(&d, &x, &[-1.0], &Cond::None).kind(), Kind::Value);
}
