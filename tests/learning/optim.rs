//! Optimizers against PyTorch's formulas written out element by element; clipping, projection, plateaus, state.
use crate::cases::cases;
use crate::caught::caught;
use candle_core::{DType, Device, Tensor};
use ld3sh::Kind;
use ld3sh::optim::{Optimizer, Plateau, Rule, clip_norm, project_ball};
use proptest::prelude::*;

fn t(v: &[f64]) -> Tensor {
    Tensor::new(v, &Device::Cpu).unwrap()
}
fn v(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// One element of a parameter, updated as the pseudo-code in PyTorch's documentation says.
#[derive(Clone, Default)]
struct Element {
    t: i32,
    b: Option<f64>,
    v: f64,
    mean: f64,
    m: f64,
    top: f64,
}

fn reference(rule: &Rule, lr: f64, p: f64, g: f64, e: &mut Element) -> f64 {
    e.t += 1;
    match *rule {
        Rule::Sgd { momentum: mu, dampening, weight_decay, nesterov } => {
            let g = g + weight_decay * p;
            if mu == 0.0 {
                return p - lr * g;
            }
            let b = e.b.map_or(g, |b| mu * b + (1.0 - dampening) * g);
            e.b = Some(b);
            p - lr * if nesterov { g + mu * b } else { b }
        }
        Rule::RmsProp { alpha, eps, weight_decay, momentum, centered } => {
            let g = g + weight_decay * p;
            e.v = alpha * e.v + (1.0 - alpha) * g * g;
            e.mean = alpha * e.mean + (1.0 - alpha) * g;
            let var = if centered { e.v - e.mean * e.mean } else { e.v };
            let d = g / (var.sqrt() + eps);
            let b = momentum * e.b.unwrap_or(0.0) + d;
            e.b = Some(b);
            p - lr * if momentum > 0.0 { b } else { d }
        }
        Rule::Adam { betas: (b1, b2), eps, weight_decay, amsgrad, decoupled } => {
            let p = if decoupled { p - lr * weight_decay * p } else { p };
            let g = if decoupled { g } else { g + weight_decay * p };
            e.m = b1 * e.m + (1.0 - b1) * g;
            e.v = b2 * e.v + (1.0 - b2) * g * g;
            e.top = e.top.max(e.v);
            let m_hat = e.m / (1.0 - b1.powi(e.t));
            let v_hat = if amsgrad { e.top } else { e.v } / (1.0 - b2.powi(e.t));
            p - lr * m_hat / (v_hat.sqrt() + eps)
        }
        // of matrices, not of elements: tests/learning/trees.rs
        Rule::Muon { .. } => f64::NAN,
    }
}

fn rules() -> Vec<Rule> {
    let sgd = |momentum, dampening, weight_decay, nesterov| Rule::Sgd { momentum, dampening, weight_decay, nesterov };
    let rms =
        |weight_decay, momentum, centered| Rule::RmsProp { alpha: 0.9, eps: 1e-8, weight_decay, momentum, centered };
    let adam = |weight_decay, amsgrad, decoupled| Rule::Adam {
        betas: (0.8, 0.95),
        eps: 1e-6,
        weight_decay,
        amsgrad,
        decoupled,
    };
    vec![
        Rule::sgd(),
        sgd(0.9, 0.0, 0.0, false),
        sgd(0.9, 0.3, 0.05, false),
        sgd(0.7, 0.0, 0.05, true),
        Rule::rmsprop(),
        rms(0.1, 0.9, false),
        rms(0.0, 0.5, true),
        Rule::adam(),
        Rule::adamw(),
        adam(0.1, false, false),
        adam(0.1, true, false),
        adam(0.1, true, true),
    ]
}

/// A gradient with curvature, noise and sign changes.
fn gradient(p: &[f64], step: usize) -> Vec<f64> {
    p.iter().enumerate().map(|(i, p)| (p * (1.0 + i as f64)).sin() + 0.3 * ((step * 7 + i * 3) as f64).cos()).collect()
}

#[test]
fn every_rule_follows_pytorch_over_many_steps() {
    for rule in rules() {
        let lr = 0.05;
        let mut opt = Optimizer::new(rule.clone(), lr).unwrap();
        let mut want: Vec<Vec<f64>> = vec![vec![1.0, -2.0, 0.5], vec![3.0, 0.0]];
        let mut elements = vec![vec![Element::default(); 3], vec![Element::default(); 2]];
        let mut params: Vec<Tensor> = want.iter().map(|p| t(p)).collect();
        for step in 0..200 {
            let grads: Vec<Tensor> = params.iter().map(|p| t(&gradient(&v(p), step))).collect();
            for (p, e) in want.iter_mut().zip(&mut elements) {
                let g = gradient(p, step);
                for ((p, g), e) in p.iter_mut().zip(g).zip(e) {
                    *p = reference(&rule, lr, *p, g, e);
                }
            }
            params = opt.step(&params, &grads).unwrap();
            for (got, want) in params.iter().zip(&want) {
                for (a, b) in v(got).iter().zip(want) {
                    assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{rule:?} step {step}: {a} {b}");
                }
            }
        }
        assert_eq!(opt.steps(), 200);
        assert!(params.iter().all(Tensor::is_variable));
    }
}

#[test]
fn defaults_are_those_of_pytorch() {
    assert_eq!(
        [Rule::sgd(), Rule::rmsprop(), Rule::adam(), Rule::adamw()].map(|r| r.default_lr()),
        [1e-3, 1e-2, 1e-3, 1e-3]
    );
    assert!(matches!(Rule::adamw(), Rule::Adam { weight_decay: 0.01, eps: 1e-8, betas: (0.9, 0.999), .. }));
    assert!(matches!(Rule::rmsprop(), Rule::RmsProp { alpha: 0.99, eps: 1e-8, centered: false, .. }));
}

#[test]
fn a_restored_state_goes_on_with_the_same_bits() {
    for rule in rules() {
        for dtype in [DType::F32, DType::F64] {
            let run = |opt: &mut Optimizer, mut p: Tensor, from: usize, to: usize| {
                for step in from..to {
                    let g = t(&gradient(&v(&p), step)).to_dtype(dtype).unwrap();
                    p = opt.step(&[p], &[g]).unwrap().remove(0);
                }
                p
            };
            let start = t(&[1.0, -2.0, 0.5]).to_dtype(dtype).unwrap();
            let mut a = Optimizer::new(rule.clone(), 0.05).unwrap();
            let whole = run(&mut a, start.clone(), 0, 30);
            let mut b = Optimizer::new(rule.clone(), 0.05).unwrap();
            let half = run(&mut b, start, 0, 13);
            let mut c = Optimizer::new(rule.clone(), 0.7).unwrap();
            c.load_state(b.state()).unwrap();
            assert_eq!(c.lr(), 0.05);
            let resumed = run(&mut c, half, 13, 30);
            assert_eq!(resumed.dtype(), dtype);
            assert_eq!(v(&whole), v(&resumed), "{rule:?}");
        }
    }
}

#[test]
fn errors_name_the_parameter_and_leave_the_state_alone() {
    let mut opt = Optimizer::new(Rule::adam(), 0.1).unwrap();
    let (p, g) = (t(&[1.0, 2.0]), t(&[0.1, 0.2]));
    opt.step(&[p.clone(), p.clone()], &[g.clone(), g.clone()]).unwrap();
    let before = format!("{:?}", opt.state());
    let kind = |r: ld3sh::Result<Vec<Tensor>>, says: &str| {
        let e = r.unwrap_err();
        assert!(e.message().contains(says), "{}", e.message());
        e.kind()
    };
    let bad = t(&[f64::NAN, 0.0]);
    assert_eq!(kind(opt.step(&[p.clone(), p.clone()], &[g.clone(), bad]), "gradient of parameter 1"), Kind::Value);
    let inf = t(&[f64::INFINITY, 0.0]);
    assert_eq!(kind(opt.step(&[p.clone(), p.clone()], &[inf, g.clone()]), "gradient of parameter 0"), Kind::Value);
    assert_eq!(kind(opt.step(&[p.clone(), p.clone()], &[g.clone(), t(&[1.0])]), "[2]"), Kind::Shape);
    assert_eq!(kind(opt.step(&[t(&[1.0]), p.clone()], &[t(&[1.0]), g.clone()]), "before"), Kind::Shape);
    assert_eq!(kind(opt.step(std::slice::from_ref(&p), std::slice::from_ref(&g)), "2 before"), Kind::Value);
    assert_eq!(kind(opt.step(&[p.clone(), p.clone()], std::slice::from_ref(&g)), "1 gradients"), Kind::Value);
    let ints = Tensor::new(&[1i64, 2], &Device::Cpu).unwrap();
    assert_eq!(kind(Optimizer::new(Rule::sgd(), 0.1).unwrap().step(&[ints], &[g]), "floating"), Kind::Type);
    assert_eq!(format!("{:?}", opt.state()), before);
    assert!(Optimizer::new(Rule::sgd(), f64::NAN).is_err());
    assert!(Optimizer::new(Rule::sgd(), -1.0).is_err());
    assert!(opt.set_lr(f64::INFINITY).is_err());
    let nesterov = Rule::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: true };
    assert!(Optimizer::new(nesterov, 0.1).is_err());
    let one = Rule::Adam { betas: (1.0, 0.9), eps: 1e-8, weight_decay: 0.0, amsgrad: false, decoupled: false };
    assert!(Optimizer::new(one, 0.1).is_err());
    let mut sgd = Optimizer::new(Rule::sgd(), 0.1).unwrap();
    assert_eq!(sgd.load_state(opt.state()).unwrap_err().kind(), Kind::Value);
}

#[test]
fn clipping_scales_by_the_total_norm() {
    let grads = [t(&[3.0, 0.0]), t(&[4.0])];
    let (clipped, norm) = clip_norm(&grads, 1.0).unwrap();
    assert_eq!(norm, 5.0);
    assert_eq!(v(&clipped[0]), [3.0 / (5.0 + 1e-6), 0.0]);
    assert!((v(&clipped[1])[0] - 4.0 / (5.0 + 1e-6)).abs() < 1e-15);
    let (same, _) = clip_norm(&grads, 5.1).unwrap();
    assert_eq!(v(&same[0]), [3.0, 0.0]);
    assert_eq!(clip_norm(&[t(&[0.0])], 1.0).unwrap().1, 0.0);
    assert_eq!(clip_norm(&[t(&[f64::NAN])], 1.0).unwrap_err().kind(), Kind::Value);
    assert!(clip_norm(&grads, 0.0).is_err() && clip_norm(&grads, f64::NAN).is_err());
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn projection_is_the_nearest_point_of_each_samples_ball(
        x in prop::collection::vec(-5.0..5.0f64, 12), c in prop::collection::vec(-5.0..5.0f64, 12), r in 0.0..6.0f64,
    ) {
        let shape = (3, 2, 2);
        let (xt, ct) = (t(&x).reshape(shape).unwrap(), t(&c).reshape(shape).unwrap());
        let p = v(&project_ball(&xt, &ct, r).unwrap());
        for s in 0..3 {
            let (x, c, p) = (&x[4 * s..4 * s + 4], &c[4 * s..4 * s + 4], &p[4 * s..4 * s + 4]);
            let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            if distance(x, c) <= r {
                prop_assert_eq!(p, x);
            } else {
                prop_assert!((distance(p, c) - r).abs() < 1e-12);
                // the nearest point of a ball lies on the way to its center
                prop_assert!((distance(p, x) + distance(p, c) - distance(x, c)).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn projection_checks_what_it_gets() {
    let x = t(&[1.0, 2.0]);
    assert_eq!(project_ball(&x, &t(&[1.0]), 1.0).unwrap_err().kind(), Kind::Shape);
    assert!(project_ball(&x, &x, -1.0).is_err());
    assert_eq!(project_ball(&t(&[f64::NAN]), &t(&[0.0]), 1.0).unwrap_err().kind(), Kind::Value);
    let empty = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(project_ball(&empty, &empty, 1.0).unwrap().dims(), [0, 3]);
    // a radius of 0 gives the center
    let (x, c) = (t(&[1.0, 2.0]).reshape((1, 2)).unwrap(), t(&[0.5, 2.5]).reshape((1, 2)).unwrap());
    assert_eq!(v(&project_ball(&x, &c, 0.0).unwrap()), [0.5, 2.5]);
}

#[test]
fn a_plateau_decays_after_patience_and_stops_at_the_floor() {
    let mut p = Plateau::new(0.5, 2, 0.2).unwrap();
    let said: Vec<bool> = [3.0, 2.0, 2.0, 2.5, f64::NAN, 1.0, 1.0, 1.5].iter().map(|l| p.step(*l)).collect();
    assert_eq!(said, [false, false, false, true, false, false, false, true]);
    assert_eq!((p.best, p.bad, p.decays), (1.0, 0, 2));
    assert_eq!([p.decay(1.0), p.decay(0.3), p.decay(0.2), p.decay(0.1)], [0.5, 0.2, 0.2, 0.1]);
    assert_eq!(p.floored, 2);
    assert!(
        Plateau::new(0.0, 2, 0.0).is_err() && Plateau::new(1.5, 2, 0.0).is_err() && Plateau::new(0.5, 0, 0.0).is_err()
    );
}

/// An engine with tensors from arrays and the functions of this area.
fn engine() -> rhai::Engine {
    let mut e = rhai::Engine::new();
    e.register_type_with_name::<Tensor>("Tensor");
    e.register_fn("tensor", |a: rhai::Array| {
        Tensor::new(a.iter().map(|x| x.as_float().unwrap()).collect::<Vec<f64>>(), &Device::Cpu).unwrap()
    });
    e.register_fn("sum", |t: Tensor| v(&t).iter().sum::<f64>());
    ld3sh::script::optim::register(&mut e);
    e
}

#[test]
fn scripts_train_save_and_restore() {
    let out: rhai::Array = engine()
        .eval(
            r#"
            let opt = optim::adam(#{ lr: 0.1, betas: [0.9, 0.99] });
            let x = tensor([1.0, -1.0]);
            for i in 0..5 { x = opt.step([x], [x])[0]; }
            let other = optim::adam(#{ betas: [0.9, 0.99] });
            other.load_state(opt.state());
            let a = opt.step([x], [x])[0];
            let b = other.step([x], [x])[0];
            opt.lr = 1;
            let p = optim::plateau(#{ patience: 1, floor: 0.5 });
            p.step(1); let bad = p.step(2.0);
            let q = optim::plateau();
            q.load_state(p.state());
            let c = clip_norm([tensor([3.0, 4.0])], 1);
            [sum(a) == sum(b), opt.lr, other.steps, bad, p.decay(0.6), q.best, c.norm, sum(project_ball(tensor([3.0]), tensor([0.0]), 1))]
            "#,
        )
        .unwrap();
    let text: Vec<String> = out.iter().map(|d| d.to_string()).collect();
    assert_eq!(text, ["true", "1.0", "6", "true", "0.5", "1.0", "5.0", "1.0"]);
}

#[test]
fn script_errors_are_clear() {
    let fails = |script: &str, says: &str| {
        let text = caught(script, engine().eval::<rhai::Dynamic>(script)).to_string();
        assert!(text.contains(says), "{script}: {text}");
    };
    fails("optim::adam(#{ beta: [0.9, 0.99] })", "betas");
    fails("optim::adam(#{ betas: 0.9 })", "array");
    fails("optim::adam(#{ betas: [0.9] })", "array of 2 numbers");
    fails("optim::sgd(#{ lr: \"fast\" })", "a number");
    fails("optim::sgd(#{ lr: -1 })", "a number ≥ 0");
    fails("optim::sgd().step([1], [2])", "int at `[0]`");
    fails("optim::sgd().load_state(#{ lr: 0.1 })", "no `rule`");
    fails("optim::sgd().load_state(optim::adam().state())", "`adam`");
    fails("optim::plateau(#{ patience: 0 })", "patience");
    fails("clip_norm(3.0, 1)", "tree of tensors");
}
