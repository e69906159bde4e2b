//! What networks predict, other schedules, guidance, thresholding, counting, and networks that are functions.
use super::helpers::*;
use candle_core::{D, DType, Device, Tensor};
use ld3sh::denoise::*;
use ld3sh::host::{Callback, Host, Progress, Quiet, Value};
use ld3sh::tensor::grad;
use ld3sh::{Kind, Result};
use serde_json::json;
use std::rc::Rc;

#[test]
fn every_prediction_in_every_schedule_follows_its_formula() {
    let cond = Cond::classes(one_hot(&[2, 0, 1], 3, DType::F64, &Device::Cpu).unwrap());
    for (noise, t) in schedules() {
        let level = |t: f64| (noise.alpha(&t.into()).v(), noise.sigma(&t.into()).v());
        let x =
            Tensor::cat(&[0, 1, 2].map(|i| (wave(&[1, 2, 3], i as f64) * (level(t[i]).0 + level(t[i]).1)).unwrap()), 0)
                .unwrap();
        for predicts in predictions() {
            let d = toy(noise.clone(), predicts);
            let (data, eps) = (eval(&*d, &x, &t, &cond, WANTS[0]), eval(&*d, &x, &t, &cond, WANTS[1]));
            for (i, &t) in t.iter().enumerate() {
                let (a, s) = level(t);
                let x = x.narrow(0, i, 1).unwrap();
                let cond = cond.narrow(i, 1).unwrap();
                let run = |x_in: &Tensor, c: f64| {
                    let c = Tensor::new(&[c], &Device::Cpu).unwrap();
                    Toy { shape: vec![2, 3], classes: 3 }.forward(&Quiet, x_in, &c, &cond).unwrap()
                };
                // as the papers write them
                let (x0, from_eps) = match predicts {
                    Predicts::Noise => {
                        let f = run(&x, t);
                        (((&x - (&f * s).unwrap()).unwrap() / a).unwrap(), Some(f))
                    }
                    Predicts::Data => (run(&x, t), None),
                    Predicts::Score => {
                        let f = run(&x, t);
                        (((&x + (&f * (s * s)).unwrap()).unwrap() / a).unwrap(), Some((f * -s).unwrap()))
                    }
                    Predicts::V => {
                        let v = run(&x, t);
                        let q = a * a + s * s;
                        (((&x * a).unwrap() - (v * s).unwrap()).unwrap().affine(1.0 / q, 0.0).unwrap(), None)
                    }
                    Predicts::Flow => {
                        // x_0 = x − t u for the flow's own time
                        let u = run(&x, s / (a + s));
                        ((&x - (u * s).unwrap()).unwrap().affine(1.0 / (a + s), 0.0).unwrap(), None)
                    }
                    Predicts::UnitNoise => {
                        let (x, s) = ((&x / a).unwrap(), s / a);
                        let f = run(&(&x / (s * s + 1.0).sqrt()).unwrap(), t);
                        ((&x - (&f * s).unwrap()).unwrap(), Some(f))
                    }
                    Predicts::NegativeNoise => {
                        let (x, s) = ((&x / a).unwrap(), s / a);
                        let f = run(&x, t);
                        ((&x + (&f * s).unwrap()).unwrap(), Some(f.neg().unwrap()))
                    }
                    Predicts::EdmF { sigma_data: d } => {
                        let (x, s) = ((&x / a).unwrap(), s / a);
                        let q = s * s + d * d;
                        let f = run(&(&x / q.sqrt()).unwrap(), s.ln() / 4.0);
                        (((&x * (d * d / q)).unwrap() + (f * (s * d / q.sqrt())).unwrap()).unwrap(), None)
                    }
                };
                let e = from_eps.unwrap_or_else(|| ((&x - (&x0 * a).unwrap()).unwrap() / s).unwrap());
                // dividing by a small σ (or α) magnifies the rounding of this check's own subtraction
                close(&data.narrow(0, i, 1).unwrap(), &x0, 1e-12 * (1.0 + 0.01 * s / a));
                close(&eps.narrow(0, i, 1).unwrap(), &e, 1e-12 * (1.0 + 0.01 * a / s));
            }
            // one time for all samples is the same as that time for each
            let one = eval(&*d, &x, &t[..1], &cond, WANTS[1]);
            close(&one, &eval(&*d, &x, &[t[0]; 3], &cond, WANTS[1]), 1e-14);
        }
    }
}

#[test]
fn gradients_of_every_prediction_in_every_schedule_are_exact() {
    let x = wave(&[3, 2, 3], 0.4);
    for (noise, t) in schedules() {
        for predicts in predictions() {
            let d = toy(noise.clone(), predicts);
            // an input of x/α magnifies a difference's step
            let tolerance = if predicts == Predicts::NegativeNoise { 2e-6 } else { 2e-8 };
            check_gradients(&Quiet, &*d, &x, &t, &Cond::None, tolerance);
            check_gradients(&Quiet, &*d, &x, &t[1..2], &Cond::None, tolerance);
        }
    }
}

#[test]
fn every_time_input_tells_the_network_what_it_says() {
    // F = c_noise everywhere, so the data prediction shows it
    struct Echo;
    impl Network for Echo {
        fn describe(&self) -> String {
            "echo".into()
        }
        fn hash(&self) -> Option<String> {
            None
        }
        fn sample_shape(&self) -> Option<Vec<usize>> {
            None
        }
        fn classes(&self) -> usize {
            0
        }
        fn forward(&self, _: &dyn Host, x: &Tensor, c: &Tensor, _: &Cond) -> Result<Tensor> {
            Ok(c.reshape((x.dim(0)?, 1))?.broadcast_as(x.shape())?.contiguous()?)
        }
    }
    let sd = noise(json!({"name": "vp_discrete", "preset": "sd"}));
    let t = 0.5004;
    let s = sd.ve_sigma(&t.into()).v();
    let (alpha, sigma) = (sd.alpha(&t.into()).v(), sd.sigma(&t.into()).v());
    let vp_time = ((0.01 + 39.8 * (1.0 + s * s).ln()).sqrt() - 0.1) / 19.9;
    for (input, expected) in [
        (TimeInput::LnSigmaOver4, s.ln() / 4.0),
        (TimeInput::Sigma, s),
        (TimeInput::T, t),
        (TimeInput::Discrete { steps: 1000 }, (t - 1e-3) * 1000.0),
        (TimeInput::Scaled(999.0), 999.0 * t),
        (TimeInput::FlowTime, sigma / (alpha + sigma)),
        (TimeInput::LnHalfSigma, (s / 2.0).ln()),
        (TimeInput::VpSteps { beta_d: 19.9, beta_min: 0.1, steps: 1000 }, 999.0 * vp_time),
        (TimeInput::Nearest(vec![100.0, 2.0 * s, 1.4 * s, 0.3 * s, 0.0].into()), 1.0),
    ] {
        let d =
            Preconditioned::new(Rc::new(Echo), sd.clone(), Predicts::Data).unwrap().with_time(input.clone()).unwrap();
        let told = values(&eval(&d, &wave(&[2, 1], 0.0), &[t], &Cond::None, Prediction::Data));
        assert!(told.iter().all(|v| (v - expected).abs() <= 1e-12 * expected.abs()), "{input:?}: {told:?} {expected}");
        check_gradients(&Quiet, &d, &wave(&[2, 1], 0.0), &[t, 0.3003], &Cond::None, 1e-8);
    }
}

#[test]
fn noise_levels_outside_the_trained_range_fail_or_are_clamped() {
    let x = wave(&[1, 2, 3], 0.0);
    let make = || Preconditioned::new(Toy::net(3), edm(), Predicts::EdmF { sigma_data: 0.5 }).unwrap();
    for t in [0.001, 100.0] {
        let e = error(&make(), &x, &[t], &Cond::None);
        assert_eq!(e.kind(), Kind::Value);
        assert!(e.message().contains(&t.to_string()) && e.fix().unwrap().contains("clamp_time"), "{e}");
    }
    // the network hears the nearest end, the coefficients stay exact
    let clamped = make().clamp_time(true);
    let d = eval(&clamped, &x, &[100.0], &Cond::None, Prediction::Data);
    let root = (100f64.powi(2) + 0.25).sqrt();
    let c = Tensor::new(&[80f64.ln() / 4.0], &Device::Cpu).unwrap();
    let f = Toy { shape: vec![2, 3], classes: 3 }.forward(&Quiet, &(&x / root).unwrap(), &c, &Cond::None).unwrap();
    let expected = ((&x * (0.25 / root.powi(2))).unwrap() + (f * (100.0 * 0.5 / root)).unwrap()).unwrap();
    close(&d, &expected, 1e-13);
    check_gradients(&Quiet, &clamped, &x, &[100.0], &Cond::None, 1e-8);
}

#[test]
fn a_denoiser_in_another_schedule_is_the_same_denoiser() {
    // a range that holds every noise level below
    let wide = || noise(json!({"name": "edm", "sigma_max": 1000.0}));
    let ve = toy(wide(), Predicts::EdmF { sigma_data: 0.7 });
    assert!(Rc::ptr_eq(&ve, &Reparam::wrap(ve.clone(), wide())));
    let x = wave(&[3, 2, 3], 0.4);
    for (noise, t) in schedules() {
        let other = Reparam::wrap(ve.clone(), noise.clone());
        // EDM's formulas hold in any schedule, so the same network can be put there directly
        let direct = toy(noise.clone(), Predicts::EdmF { sigma_data: 0.7 });
        for want in WANTS {
            close(&eval(&*other, &x, &t, &Cond::None, want), &eval(&*direct, &x, &t, &Cond::None, want), 1e-11);
        }
        check_gradients(&Quiet, &*other, &x, &t, &Cond::None, 2e-8);
        check_gradients(&Quiet, &*other, &x, &t[1..2], &Cond::None, 2e-8);
        // there and back
        let back = Reparam::wrap(other, wide());
        let (a, b) = (eval(&*back, &x, &[3.0], &Cond::None, WANTS[0]), eval(&*ve, &x, &[3.0], &Cond::None, WANTS[0]));
        close(&a, &b, 1e-11);
    }
}

#[test]
fn guidance_is_a_weighted_sum_of_two_runs() {
    let counted = Rc::new(Counting::new(toy(edm(), Predicts::EdmF { sigma_data: 0.7 })));
    let inner: DynDenoiser = counted.clone();
    let x = wave(&[2, 2, 3], 0.4);
    let rows = one_hot(&[2, 0], 3, DType::F64, &Device::Cpu).unwrap();
    let (zero, cond) = (Cond::classes(rows.zeros_like().unwrap()), Cond::classes(rows.clone()));
    let t = [5.0, 0.3];
    for want in WANTS {
        let (c, u) = (eval(&*inner, &x, &t, &cond, want), eval(&*inner, &x, &t, &zero, want));
        let expected = (&u + ((&c - &u).unwrap() * 2.5).unwrap()).unwrap();
        let guided = Guided::new(inner.clone(), 2.5).unwrap();
        counted.counter().unwrap().reset();
        close(&eval(&guided, &x, &t, &cond, want), &expected, 1e-14);
        let count = guided.counter().unwrap();
        assert_eq!((count.nfe(), count.samples(), guided.runs_per_eval()), (1, 4, 2), "one batch of both runs");
        for alone in [0.0, 1.0] {
            assert_eq!(Guided::new(inner.clone(), alone).unwrap().runs_per_eval(), 1, "one of the two says all");
        }
        // within the interval only: the first sample is outside, so it keeps the conditional prediction
        let part = Guided::new(inner.clone(), 2.5).unwrap().interval(0.1, 1.0).unwrap();
        let mixed = eval(&part, &x, &t, &cond, want);
        close(&mixed.narrow(0, 0, 1).unwrap(), &c.narrow(0, 0, 1).unwrap(), 1e-14);
        close(&mixed.narrow(0, 1, 1).unwrap(), &expected.narrow(0, 1, 1).unwrap(), 1e-14);
        // scales 1 and 0 and no condition need one run
        for (scale, cond, expected) in [(1.0, &cond, &c), (0.0, &cond, &u), (2.5, &Cond::None, &u)] {
            let d = Guided::new(inner.clone(), scale).unwrap();
            counted.counter().unwrap().reset();
            close(&eval(&d, &x, &t, cond, want), expected, 1e-14);
            assert_eq!(d.counter().unwrap().samples(), 2);
        }
        // unconditional rows of one's own
        let other = one_hot(&[1], 3, DType::F64, &Device::Cpu).unwrap();
        let u = eval(&*inner, &x, &t, &Cond::classes(Tensor::cat(&[&other, &other], 0).unwrap()), want);
        let expected = (&u + ((&c - &u).unwrap() * 2.5).unwrap()).unwrap();
        close(
            &eval(&Guided::new(inner.clone(), 2.5).unwrap().uncond(Cond::classes(other)), &x, &t, &cond, want),
            &expected,
            1e-14,
        );
    }
    for t in [&t[..], &t[..1]] {
        let guided = Guided::new(inner.clone(), 2.5).unwrap();
        check_gradients(&Quiet, &guided, &x, t, &cond, 2e-8);
        check_gradients(&Quiet, &guided.interval(0.1, 1.0).unwrap(), &x, t, &cond, 2e-8);
    }
}

#[test]
fn thresholding_limits_the_data_prediction() {
    let vp = noise(json!({"name": "vp_linear"}));
    let inner = toy(vp.clone(), Predicts::Noise);
    let (x, t) = (wave(&[3, 2, 3], 0.4), [0.4, 0.2, 0.45]);
    let d = eval(&*inner, &x, &t, &Cond::None, WANTS[0]);
    let rows: Vec<Vec<f64>> = d.reshape((3, 6)).unwrap().to_vec2().unwrap();
    assert!(values(&d).iter().any(|v| v.abs() > 1.0) && values(&d).iter().any(|v| v.abs() < 1.0), "{rows:?}");
    let clamp = Thresholded::new(inner.clone(), Rule::Clamp { lo: -1.0, hi: 1.0 }).unwrap();
    let expected: Vec<f64> = values(&d).iter().map(|v| v.clamp(-1.0, 1.0)).collect();
    assert!(gap(&values(&eval(&clamp, &x, &t, &Cond::None, WANTS[0])), &expected) < 1e-15);

    for (percentile, max) in [(0.7, 1.0), (0.83, 0.5), (1.0, 1.0), (0.5, 4.0)] {
        let dynamic = Thresholded::new(inner.clone(), Rule::Dynamic { percentile, max }).unwrap();
        let expected: Vec<f64> = rows
            .iter()
            .flat_map(|row| {
                let mut sizes: Vec<f64> = row.iter().map(|v| v.abs()).collect();
                sizes.sort_by(f64::total_cmp);
                let at = percentile * 5.0;
                let (k, f) = (at as usize, at.fract());
                let s = (sizes[k] * (1.0 - f) + sizes[(k + 1).min(5)] * f).max(max);
                row.iter().map(move |v| v.clamp(-s, s) * max / s).collect::<Vec<_>>()
            })
            .collect();
        let kept = eval(&dynamic, &x, &t, &Cond::None, WANTS[0]);
        assert!(gap(&values(&kept), &expected) < 1e-14);
        let eps = eval(&dynamic, &x, &t, &Cond::None, WANTS[1]);
        for (i, t) in t.iter().enumerate() {
            let (a, s) = (vp.alpha(&(*t).into()).v(), vp.sigma(&(*t).into()).v());
            let row = |m: &Tensor| m.narrow(0, i, 1).unwrap();
            close(&row(&eps), &((row(&x) - (row(&kept) * a).unwrap()).unwrap() / s).unwrap(), 1e-13);
        }
        check_gradients(&Quiet, &dynamic, &x, &t, &Cond::None, 1e-7);
        check_gradients(&Quiet, &dynamic, &x, &t[..1], &Cond::None, 1e-7);
    }
    check_gradients(&Quiet, &clamp, &x, &t, &Cond::None, 1e-7);
    // where everything is outside there is no gradient
    let far = Thresholded::new(inner, Rule::Clamp { lo: 50.0, hi: 60.0 }).unwrap();
    let (_, pull) = far.linearize(&Quiet, &Query { x: &(&x).into(), t: &t, cond: &Cond::None }, WANTS[0]).unwrap();
    let g = pull(&Quiet, &wave(&[3, 2, 3], 0.1).into()).unwrap();
    assert!(values(g.x.tensor().unwrap()).iter().chain(&g.t).all(|v| *v == 0.0));
}

#[test]
fn single_precision_states_and_wrappers_of_wrappers() {
    let (x, t) = (wave(&[2, 2, 3], 0.4), [0.4, 0.2]);
    let rows = Cond::classes(one_hot(&[2, 0], 3, DType::F32, &Device::Cpu).unwrap());
    let ve = toy(edm(), Predicts::EdmF { sigma_data: 0.7 });
    let guided: DynDenoiser = Rc::new(Guided::new(ve, 3.0).unwrap());
    let dynamic = Thresholded::new(guided, Rule::Dynamic { percentile: 0.8, max: 0.3 }).unwrap();
    let all = Reparam::wrap(Rc::new(dynamic), noise(json!({"name": "flow"})));
    check_gradients(&Quiet, &*all, &x, &t, &rows, 1e-7);
    let x32 = x.to_dtype(DType::F32).unwrap();
    for want in WANTS {
        let m = eval(&*all, &x32, &t, &rows, want);
        assert_eq!(m.dtype(), DType::F32);
        close(&m.to_dtype(DType::F64).unwrap(), &eval(&*all, &x, &t, &rows, want), 3e-6);
        let (_, pull) = all.linearize(&Quiet, &Query { x: &(&x32).into(), t: &t, cond: &rows }, want).unwrap();
        assert_eq!(pull(&Quiet, &(&x32).into()).unwrap().x.tensor().unwrap().dtype(), DType::F32);
        // no graph may hang on the results, even for tracked inputs
        let tracked = grad::variable(&x).unwrap();
        assert!(!grad::is_tracked(&eval(&*all, &tracked, &t, &rows, want)));
    }
}

#[test]
fn counting_counts_successful_evaluations() {
    let counting = Rc::new(Counting::new(toy(edm(), Predicts::Data)));
    let guided = Guided::new(counting.clone(), 2.0).unwrap();
    let x = wave(&[2, 2, 3], 0.4);
    for _ in 0..3 {
        eval(&guided, &x, &[1.0], &Cond::None, WANTS[0]);
    }
    let _ = guided.linearize(&Quiet, &Query { x: &(&x).into(), t: &[1.0], cond: &Cond::None }, WANTS[0]).unwrap();
    error(&guided, &x, &[f64::NAN], &Cond::None);
    let c = counting.counter().unwrap();
    assert_eq!((c.nfe(), c.linearizations(), c.samples()), (4, 1, 8));
    c.reset();
    assert_eq!(guided.counter().unwrap().nfe(), 0);
}

#[test]
fn hashes_tell_denoisers_apart() {
    let inner = || toy(edm(), Predicts::Data);
    let all: Vec<DynDenoiser> = vec![
        inner(),
        toy(edm(), Predicts::Noise),
        toy(edm(), Predicts::EdmF { sigma_data: 0.5 }),
        toy(edm(), Predicts::EdmF { sigma_data: 0.6 }),
        toy(noise(json!({"name": "vp_linear"})), Predicts::Data),
        Rc::new(Guided::new(inner(), 2.0).unwrap()),
        Rc::new(Guided::new(inner(), 2.0).unwrap().uncond(Cond::classes(wave(&[1, 3], 0.0)))),
        Rc::new(Thresholded::new(inner(), Rule::Clamp { lo: -1.0, hi: 1.0 }).unwrap()),
        Reparam::wrap(inner(), noise(json!({"name": "flow"}))),
    ];
    let hashes: std::collections::BTreeSet<String> = all.iter().map(|d| d.hash().unwrap()).collect();
    assert_eq!(hashes.len(), all.len());
    assert_eq!(inner().hash(), Counting::new(inner()).hash(), "counting changes nothing");
}

/// A host whose callbacks are Rust functions.
struct Rusty;
type Function = Box<dyn Fn(Vec<Value>) -> Result<Value>>;
impl Host for Rusty {
    fn call(&self, f: &Callback, args: Vec<Value>) -> Result<Value> {
        f.0.downcast_ref::<Function>().unwrap()(args)
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        Quiet.progress(label, total)
    }
}
fn from_fn(f: impl Fn(Tensor, Tensor) -> Result<Tensor> + 'static) -> Preconditioned {
    let f: Function = Box::new(move |args| {
        let mut tensors = args.into_iter().take(2).map(|a| a.tensor("an argument").unwrap());
        Ok(Value::Tensor(f(tensors.next().unwrap(), tensors.next().unwrap())?))
    });
    let net = FnNetwork::new(Callback(Rc::new(f)), None, 0);
    Preconditioned::new(Rc::new(net), edm(), Predicts::V).unwrap()
}

#[test]
fn a_function_is_a_network_and_both_tapes_differentiate_it() {
    // the function multiplies by c, then squares outside of candle's graph, with a pull-back of its own
    let square = from_fn(|x, c| {
        let y = (x.sin()? * c.reshape((c.dim(0)?, 1, 1))?.broadcast_as(x.shape())?)?;
        let inputs = [y.clone()];
        let pull: grad::RecordPullback = Box::new(move |_, bars| {
            let Some(bar) = &bars[0] else { return Ok(vec![None]) };
            Ok(vec![Some(((bar * y.detach())? * 2.0)?)])
        });
        Ok(grad::record(vec![inputs[0].detach().sqr()?], &inputs, pull)?.remove(0))
    });
    let (x, t) = (wave(&[2, 2, 3], 0.4), [0.4, 2.0]);
    check_gradients(&Rusty, &square, &x, &t, &Cond::None, 2e-8);
    grad::no_grad(|| check_gradients(&Rusty, &square, &x, &t, &Cond::None, 2e-8));
    assert_eq!(grad::live_records(), 0, "an evaluation leaves nothing behind");
    assert_eq!(square.hash(), None);

    let q = Query { x: &(&x).into(), t: &t, cond: &Cond::None };
    let wrong = from_fn(|x, _| Ok(x.sum(D::Minus1)?)).eval(&Rusty, &q, WANTS[0]).unwrap_err();
    assert_eq!(wrong.kind(), Kind::Shape);
    let int = from_fn(|x, _| Ok(x.to_dtype(DType::U8)?)).eval(&Rusty, &q, WANTS[0]).unwrap_err();
    assert_eq!(int.kind(), Kind::Type);
    assert_eq!(square.eval(&Quiet, &q, WANTS[0]).unwrap_err().kind(), Kind::Script, "no script is running");
}

#[test]
fn wrong_queries_are_named() {
    let d = toy(edm(), Predicts::EdmF { sigma_data: 0.7 });
    let x = wave(&[2, 2, 3], 0.4);
    let none = Cond::None;
    let kinds = [
        (error(&*d, &wave(&[2, 3], 0.0), &[1.0], &none), Kind::Shape, "unsqueeze"),
        (error(&*d, &wave(&[2, 4, 3], 0.0), &[1.0], &none), Kind::Shape, "[B, 2, 3]"),
        (error(&*d, &x.to_dtype(DType::U8).unwrap(), &[1.0], &none), Kind::Type, "u8"),
        (error(&*d, &x, &[1.0; 3], &none), Kind::Shape, "one per sample"),
        (error(&*d, &x, &[], &none), Kind::Shape, "one per sample"),
        (error(&*d, &x, &[f64::NAN], &none), Kind::Value, "NaN"),
        (error(&*d, &x, &[0.0], &none), Kind::Value, "outside"),
        (error(&*d, &x, &[-1.0], &none), Kind::Value, "outside"),
        (error(&*d, &x, &[1.0], &Cond::classes(wave(&[2, 5], 0.0))), Kind::Shape, "[2, 3]"),
        (error(&*d, &x, &[1.0], &Cond::classes(wave(&[1, 3], 0.0))), Kind::Shape, "2 condition rows"),
    ];
    for (e, kind, text) in kinds {
        assert_eq!(e.kind(), kind, "{e}");
        assert!(e.to_string().contains(text), "`{e}` should mention {text}");
    }
    // α = 0 at the start of a flow: no x_0 follows from ε there
    let flow = noise(json!({"name": "flow"}));
    let e = error(&*toy(flow.clone(), Predicts::Noise), &x, &[1.0], &none);
    assert!(e.message().contains("data prediction"), "{e}");
    assert!(values(&eval(&*toy(flow, Predicts::Flow), &x, &[1.0], &none, WANTS[0])).iter().all(|v| v.is_finite()));

    let bad = |e: Result<Thresholded>| e.err().unwrap().kind() == Kind::Value;
    assert!(bad(Thresholded::new(d.clone(), Rule::Clamp { lo: 1.0, hi: -1.0 })));
    assert!(bad(Thresholded::new(d.clone(), Rule::Clamp { lo: f64::NAN, hi: 1.0 })));
    assert!(bad(Thresholded::new(d.clone(), Rule::Dynamic { percentile: 99.5, max: 1.0 })));
    assert!(bad(Thresholded::new(d.clone(), Rule::Dynamic { percentile: 0.9, max: -1.0 })));
    assert!(Guided::new(d.clone(), f64::INFINITY).is_err());
    assert!(Guided::new(d.clone(), 2.0).unwrap().interval(3.0, 1.0).is_err());
    let guided = Guided::new(d, 2.0).unwrap().uncond(Cond::classes(wave(&[1, 4], 0.0)));
    let rows = Cond::classes(one_hot(&[0, 1], 3, DType::F64, &Device::Cpu).unwrap());
    assert_eq!(error(&guided, &x, &[1.0], &rows).kind(), Kind::Shape);
    assert!(Preconditioned::new(Toy::net(0), edm(), Predicts::EdmF { sigma_data: 0.0 }).is_err());
}
