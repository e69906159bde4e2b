//! Losses and metrics: values, gradients against finite differences, reductions, bad input.
use crate::caught::caught;
use candle_core::{DType, Device, Tensor};
use ld3sh::Kind;
use ld3sh::host::Quiet;
use ld3sh::loss::{Loss, Reduction};
use ld3sh::metric::{frechet_distance, gaussian, mse, psnr};
use ld3sh::tensor::grad::{grad, variable};

fn t(v: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(v, shape, &Device::Cpu).unwrap()
}
fn v(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}
const ALL: [Loss; 6] =
    [Loss::L1, Loss::L2, Loss::Huber(0.5), Loss::Huber(2.0), Loss::PseudoHuber(0.03), Loss::PseudoHuber(1.0)];

fn one(loss: Loss, d: f64) -> f64 {
    match loss {
        Loss::L1 => d.abs(),
        Loss::L2 => d * d,
        Loss::Huber(c) if d.abs() <= c => 0.5 * d * d,
        Loss::Huber(c) => c * (d.abs() - 0.5 * c),
        Loss::PseudoHuber(c) => c * c * ((1.0 + (d / c).powi(2)).sqrt() - 1.0),
    }
}

const X: [f64; 6] = [0.3, -1.2, 2.5, 0.0, -0.7, 1.0];
const Y: [f64; 6] = [0.1, 0.4, -0.6, 0.0, -0.7, 3.5];

#[test]
fn values_and_reductions() {
    for loss in ALL {
        let each: Vec<f64> = X.iter().zip(&Y).map(|(x, y)| one(loss, x - y)).collect();
        let (x, y) = (t(&X, &[2, 3, 1]), t(&Y, &[2, 3, 1]));
        let sum: f64 = each.iter().sum();
        let close = |got: &Tensor, want: &[f64]| {
            assert!(v(got).iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-13), "{loss:?} {:?} {want:?}", v(got));
        };
        close(&loss.eval(&x, &y, Reduction::Sum).unwrap(), &[sum]);
        close(&loss.eval(&x, &y, Reduction::Mean).unwrap(), &[sum / 6.0]);
        let rows = loss.eval(&x, &y, Reduction::None).unwrap();
        assert_eq!(rows.dims(), [2]);
        close(&rows, &[each[..3].iter().sum::<f64>() / 3.0, each[3..].iter().sum::<f64>() / 3.0]);
    }
}

#[test]
fn gradients_match_finite_differences_in_both_arguments() {
    for loss in ALL {
        let at = |x: &[f64], y: &[f64]| v(&loss.eval(&t(x, &[6]), &t(y, &[6]), Reduction::Mean).unwrap())[0];
        let (x, y) = (variable(&t(&X, &[6])).unwrap(), variable(&t(&Y, &[6])).unwrap());
        let g = grad(&Quiet, &loss.eval(&x, &y, Reduction::Mean).unwrap(), &[x.clone(), y.clone()]).unwrap();
        for i in 0..6 {
            // central differences of |d| at 0 are 0, which is the gradient wanted there
            let h = 1e-6;
            let mut moved = [X, X];
            moved[0][i] += h;
            moved[1][i] -= h;
            let fd = (at(&moved[0], &Y) - at(&moved[1], &Y)) / (2.0 * h);
            assert!((v(&g[0])[i] - fd).abs() < 1e-8, "{loss:?} [{i}] {} {fd}", v(&g[0])[i]);
            assert!((v(&g[1])[i] + fd).abs() < 1e-8, "{loss:?} [{i}] target");
        }
        assert_eq!(v(&g[0])[3], 0.0, "{loss:?}: no gradient where equal");
    }
}

#[test]
fn small_differences_do_not_cancel() {
    let (x, y) = (t(&[1e-9], &[1]), t(&[0.0], &[1]));
    let got = v(&Loss::PseudoHuber(1.0).eval(&x, &y, Reduction::Mean).unwrap())[0];
    assert!((got / 0.5e-18 - 1.0).abs() < 1e-12, "{got:e}");
}

#[test]
fn a_target_of_another_dtype_is_cast_and_f32_stays_f32() {
    let x = t(&X, &[6]).to_dtype(DType::F32).unwrap();
    let l = Loss::L2.eval(&x, &t(&Y, &[6]), Reduction::Mean).unwrap();
    assert_eq!(l.dtype(), DType::F32);
}

#[test]
fn bad_input() {
    let kind = |x: &Tensor, y: &Tensor, r| Loss::L2.eval(x, y, r).unwrap_err().kind();
    let (a, b) = (t(&X, &[6]), t(&X, &[2, 3]));
    assert_eq!(kind(&a, &b, Reduction::Mean), Kind::Shape);
    assert_eq!(kind(&t(&[1.0], &[1]), &a, Reduction::Mean), Kind::Shape);
    let i = Tensor::new(&[1i64], &Device::Cpu).unwrap();
    assert_eq!(kind(&i, &i, Reduction::Mean), Kind::Type);
    let e = Tensor::zeros((0, 3), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(kind(&e, &e, Reduction::Mean), Kind::Shape);
    let s = t(&[1.0], &[]);
    assert_eq!(kind(&s, &s, Reduction::None), Kind::Shape);
    assert!(Loss::of("huber", Some(0.0)).is_err() && Loss::of("huber", Some(f64::NAN)).is_err());
    assert!(Loss::of("l2", Some(1.0)).is_err());
    assert!(Loss::of("hubber", None).unwrap_err().fix().unwrap().contains("`huber`"));
}

#[test]
fn psnr_and_mse_per_sample() {
    let (x, y) = (t(&[0.0, 0.0, 1.0, 1.0], &[2, 2]), t(&[0.2, -0.2, 1.0, 1.0], &[2, 2]));
    assert!((v(&mse(&x, &y).unwrap())[0] - 0.04).abs() < 1e-15);
    let db = v(&psnr(&x, &y, 2.0).unwrap());
    assert!((db[0] - 20.0).abs() < 1e-12 && db[1] == f64::INFINITY);
    assert!(psnr(&x, &y, 0.0).is_err());
    assert_eq!(mse(&x, &t(&[1.0], &[1])).unwrap_err().kind(), Kind::Shape);
}

#[test]
fn frechet_distance_of_gaussians() {
    let close = |a: f64, b: f64, tol: f64| assert!((a - b).abs() < tol, "{a} {b}");
    // diagonal covariances: Σ (m₁ − m₂)² + (s₁ − s₂)²
    let diagonal = |s: [f64; 3]| t(&[s[0] * s[0], 0.0, 0.0, 0.0, s[1] * s[1], 0.0, 0.0, 0.0, s[2] * s[2]], &[3, 3]);
    let (m1, m2) = (t(&[1.0, 2.0, 3.0], &[3]), t(&[1.5, 2.0, 1.0], &[3]));
    let (s1, s2) = ([1.0, 2.0, 0.0], [3.0, 0.5, 1.0]);
    let want = 0.25 + 4.0 + 4.0 + 2.25 + 1.0;
    close(frechet_distance(&m1, &diagonal(s1), &m2, &diagonal(s2)).unwrap(), want, 1e-12);
    // full 2×2 covariances: tr √(Σ₁Σ₂) = √(tr(Σ₁Σ₂) + 2 √det(Σ₁Σ₂))
    let (a, b) = ([2.0, 0.5, 0.5, 1.0], [1.5, -0.7, -0.7, 3.0]);
    let product = [a[0] * b[0] + a[1] * b[2], a[2] * b[1] + a[3] * b[3]];
    let det = (a[0] * a[3] - a[1] * a[2]) * (b[0] * b[3] - b[1] * b[2]);
    let root = (product[0] + product[1] + 2.0 * f64::sqrt(det)).sqrt();
    let zero = t(&[0.0, 0.0], &[2]);
    let got = frechet_distance(&zero, &t(&a, &[2, 2]), &zero, &t(&b, &[2, 2])).unwrap();
    close(got, 3.0 + 4.5 - 2.0 * root, 1e-12);
    // from features: zero to itself, and the distance of a shift
    let features: Vec<f64> = (0..60).map(|i| ((i * i * 7 + i) as f64 * 0.37).sin()).collect();
    let x = t(&features, &[12, 5]);
    let (m, c) = gaussian(&x).unwrap();
    let (m_shifted, c_shifted) = gaussian(&(&x + 0.5).unwrap()).unwrap();
    close(frechet_distance(&m, &c, &m, &c).unwrap(), 0.0, 1e-7);
    close(frechet_distance(&m, &c, &m_shifted, &c_shifted).unwrap(), 1.25, 1e-7);
    let by_hand: f64 = {
        let mean = (0..12).map(|i| features[5 * i]).sum::<f64>() / 12.0;
        (0..12).map(|i| (features[5 * i] - mean).powi(2)).sum::<f64>() / 11.0
    };
    close(v(&c)[0], by_hand, 1e-14);
}

#[test]
fn frechet_checks_what_it_gets() {
    let (m, c) = (t(&[0.0, 0.0], &[2]), t(&[1.0, 0.0, 0.0, 1.0], &[2, 2]));
    let kind = |c2: &Tensor| frechet_distance(&m, &c, &m, c2).unwrap_err().kind();
    assert_eq!(kind(&t(&[1.0], &[1, 1])), Kind::Shape);
    assert_eq!(kind(&t(&[1.0, 0.5, 0.0, 1.0], &[2, 2])), Kind::Value);
    assert_eq!(kind(&t(&[1.0, f64::NAN, 0.0, 1.0], &[2, 2])), Kind::Value);
    let negative = t(&[-1.0, 0.0, 0.0, 1.0], &[2, 2]);
    assert_eq!(frechet_distance(&m, &negative, &m, &c).unwrap_err().kind(), Kind::Value);
    assert_eq!(gaussian(&t(&[1.0, 2.0], &[1, 2])).unwrap_err().kind(), Kind::Shape);
}

#[test]
fn scripts_call_losses_and_pass_them_as_values() {
    let mut e = rhai::Engine::new();
    e.register_type_with_name::<Tensor>("Tensor");
    e.register_fn("item", |x: &mut Tensor| v(x)[0]);
    ld3sh::script::loss::register(&mut e);
    ld3sh::script::metric::register(&mut e);
    let mut scope = rhai::Scope::new();
    scope.push("x", t(&X, &[2, 3]));
    scope.push("y", t(&Y, &[2, 3]));
    let script = r#"
        fn apply(f, x, y) { f.call(x, y).item() }
        let a = loss::huber(x, y, #{ delta: 0.5 }).item();
        let b = apply(loss::get("huber", #{ delta: 0.5 }), x, y);
        let c = apply(|x, y| loss::huber(x, y, #{ delta: 0.5 }), x, y);
        let d = metric::frechet(metric::gaussian(x), metric::gaussian(x));
        a == b && b == c && d < 1e-6 && loss::l1(x, y).item() > 0.0 && loss::l2(x, y, #{ reduction: "none" }).item() > 0.0
            && metric::psnr(x, y, #{ range: 20 }).item() > 0.0
    "#;
    assert!(e.eval_with_scope::<bool>(&mut scope, script).unwrap());
    let mut says = |script: &str, want: &str| {
        let text = caught(script, e.eval_with_scope::<rhai::Dynamic>(&mut scope, script)).to_string();
        assert!(text.contains(want), "{script}: {text}");
    };
    says("loss::l2(x, y, #{ reduction: \"men\" })", "mean");
    says("loss::l2(x, y, #{ delta: 1 })", "delta");
    says("loss::get(\"l3\")", "l1");
    says("loss::get(\"l1\").call(x, 3)", "argument 2 is int");
    says("metric::frechet(#{ mean: x }, #{})", "cov");
}
