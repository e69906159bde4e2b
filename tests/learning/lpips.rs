//! Perceptual losses against the `lpips` package and DISTS's code (fixtures by tests/fixtures/make_lpips.py and make_vision.py), their kernels,
//! and bad input.
use crate::cases::cases;
use crate::caught::caught;
use crate::process;
use crate::trunks::{filled, state, uniform};
use candle_core::{DType, Device, Tensor, Var};
use ld3sh::Kind;
use ld3sh::host::Quiet;
use ld3sh::loss::Reduction;
use ld3sh::loss::perceptual::{Compare, Perceptual, Settings};
use ld3sh::nets::features::{State, spec};
use ld3sh::nets::kernels::{Channels, Conv, Frozen, MaxPool, Relu, RootPool, apply};
use ld3sh::tensor::grad::{grad, live_records, no_grad, variable};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Coarse blocks and fine noise, as the generator makes them, in f32.
fn image(name: &str, [b, c, h, w]: [usize; 4]) -> Tensor {
    let (ch, cw) = (h.div_ceil(4), w.div_ceil(4));
    let coarse = uniform(&format!("{name}.coarse"), b * c * ch * cw);
    let fine = uniform(&format!("{name}.fine"), b * c * h * w);
    let at = |i: usize| {
        let (n, y, x) = (i / (h * w), i / w % h, i % w);
        (coarse[(n * ch + y / 4) * cw + x / 4] * 0.6 + fine[i] * 0.4) as f32
    };
    Tensor::from_vec((0..b * c * h * w).map(at).collect::<Vec<_>>(), (b, c, h, w), &Device::Cpu).unwrap()
}

fn lpips(net: &str) -> Perceptual {
    Perceptual::new(spec(net).unwrap(), state(net), Compare::Lpips).unwrap()
}

fn reference(file: &str) -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest entry of `b`.
fn error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (flat(a), flat(b));
    let top = b.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / top
}

/// Value and gradients in both images, sample k weighted by k + 1.
fn differentiate(loss: &Perceptual, x: &Tensor, y: &Tensor) -> [Tensor; 3] {
    let (x, y) = (variable(x).unwrap(), variable(y).unwrap());
    let value = loss.eval(&x, &y, Reduction::None).unwrap();
    let n = x.dim(0).unwrap();
    let weights = Tensor::new((1..=n).map(|k| k as f64).collect::<Vec<_>>(), &Device::Cpu).unwrap();
    let sum = (&value * weights.to_dtype(value.dtype()).unwrap()).unwrap().sum_all().unwrap();
    let mut g = grad(&Quiet, &sum, &[x, y]).unwrap();
    let gy = g.pop().unwrap();
    [value.detach(), g.pop().unwrap(), gy]
}

/// Compares with a fixture on the kernels in f32 and on candle's operations in f64 (whose reference is stored in f32).
fn parity(key: &str, of: &str, size: [usize; 4], loss: &Perceptual) {
    let fixture = reference(if key.starts_with("dists") { "vision.safetensors" } else { "lpips.safetensors" });
    let (x, y) = (image(&format!("{of}.x"), size), image(&format!("{of}.target"), size));
    for (dtype, values, grads) in [(DType::F32, 1e-4, 1e-4), (DType::F64, 1e-10, 1e-6)] {
        let cast = |t: &Tensor| t.to_dtype(dtype).unwrap();
        let got = differentiate(loss, &cast(&x), &cast(&y));
        let names = ["value", "grad_x", "grad_target"];
        for ((got, name), tolerance) in got.iter().zip(names).zip([values, grads, grads]) {
            let Some(want) = fixture.get(&format!("{key}.{name}")) else { continue };
            let e = error(got, want);
            eprintln!("{key}.{name} in {dtype:?}: {e:.1e}");
            assert!(e < tolerance, "{key}.{name} in {dtype:?} is off by {e:e}");
        }
    }
}

#[test]
fn vgg_matches_the_package() {
    let loss = lpips("vgg");
    parity("vgg.64", "vgg.b", [2, 3, 64, 64], &loss);
    parity("vgg.51", "vgg.51", [1, 3, 51, 45], &loss);
}

#[test]
fn alex_matches_the_package() {
    let loss = lpips("alex");
    parity("alex.64", "alex.64", [2, 3, 64, 64], &loss);
    parity("alex.51", "alex.51", [1, 3, 51, 45], &loss);
    let some = Settings { layers: Some(vec![1, 3]), ..Compare::Plain.into() };
    let plain = Perceptual::new(spec("alex").unwrap(), state("alex"), some).unwrap();
    parity("alex.plain", "alex.51", [1, 3, 51, 45], &plain);
}

#[test]
fn squeeze_matches_the_package_with_its_options() {
    let loss = lpips("squeeze");
    parity("squeeze.64", "squeeze.64", [2, 3, 64, 64], &loss);
    parity("squeeze.51", "squeeze.51", [1, 3, 51, 45], &loss);
    let of = |compare, unit_range| {
        let settings = Settings { unit_range, ..Settings::from(compare) };
        Perceptual::new(spec("squeeze").unwrap(), state("squeeze"), settings).unwrap()
    };
    parity("squeeze.baseline", "squeeze.51", [1, 3, 51, 45], &of(Compare::Unit, false));
    parity("squeeze.normalize", "squeeze.51", [1, 3, 51, 45], &of(Compare::Lpips, true));
}

fn dists() -> Perceptual {
    Perceptual::dists(state("vgg"), false, None).unwrap()
}

#[test]
fn dists_matches_its_own_code() {
    parity("dists.32e", "dists.32e", [2, 3, 32, 24], &dists());
    parity("dists.33", "dists.33", [1, 3, 33, 45], &dists());
}

#[test]
fn dists_is_zero_for_equal_images_and_takes_grey_ones() {
    let loss = dists();
    let (x, y) = (image("p", [2, 1, 20, 18]), image("q", [2, 1, 20, 18]));
    let v = variable(&x).unwrap();
    let d = loss.eval(&v, &v, Reduction::None).unwrap();
    assert!(flat(&d).iter().all(|d| d.abs() < 1e-7), "{d}");
    assert!(flat(&grad(&Quiet, &d.sum_all().unwrap(), &[v]).unwrap()[0]).iter().all(|g| g.abs() < 1e-7));
    let three = |t: &Tensor| t.repeat((1, 3, 1, 1)).unwrap();
    let ([a, grey, _], [b, colour, _]) = (differentiate(&loss, &x, &y), differentiate(&loss, &three(&x), &three(&y)));
    assert!(error(&a, &b) < 1e-6 && error(&grey, &colour.sum_keepdim(1).unwrap()) < 1e-5);
    assert!(flat(&a).iter().all(|d| *d > 0.01), "{a}");
    // [0, 1] is the same with other numbers
    let unit = Perceptual::dists(state("vgg"), true, None).unwrap();
    let half = |t: &Tensor| t.affine(0.5, 0.5).unwrap();
    assert!(error(&unit.eval(&half(&x), &half(&y), Reduction::None).unwrap(), &a) < 1e-5);
    // one pixel is enough; a constant image has no variance to divide by
    let flat_ones = Tensor::ones((1, 3, 1, 1), DType::F32, &Device::Cpu).unwrap();
    assert!(flat(&loss.eval(&flat_ones, &flat_ones.neg().unwrap(), Reduction::Mean).unwrap())[0].is_finite());
    let weights = |n: usize| Tensor::ones((1, n, 1, 1), DType::F32, &Device::Cpu).unwrap();
    let of = |all: &[(&str, usize)]| {
        let all: State = all.iter().map(|(name, n)| (name.to_string(), weights(*n))).collect();
        Perceptual::dists(state("vgg"), false, Some(all)).err().map(|e| e.to_string())
    };
    assert_eq!(of(&[("alpha", 1475), ("beta", 1475)]), None);
    assert!(of(&[("alpha", 1475)]).unwrap().contains("no `beta`"));
    assert!(of(&[("alpha", 1475), ("beta", 1472)]).unwrap().contains("expected [1, 1475, 1, 1]"));
}

#[test]
fn built_in_features_match_their_description() {
    let of = |compare| Perceptual::new(spec("fashion28").unwrap(), state("fashion28"), compare).unwrap();
    let (plain, unit) = (of(Compare::Plain), of(Compare::Unit));
    for size in [[3, 1, 28, 28], [1, 1, 20, 12]] {
        let key = format!("fashion28.{}", size[2]);
        parity(&format!("{key}.plain"), &key, size, &plain);
        parity(&format!("{key}.unit"), &key, size, &unit);
    }
}

#[test]
fn smallest_sizes_are_the_package_s() {
    for (net, low) in [("vgg", 16), ("alex", 31), ("squeeze", 17)] {
        // the generator tried them: it stores the smallest in the fixture's metadata
        let bytes =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lpips.safetensors")).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()[net], low.to_string());
        assert_eq!(spec(net).unwrap().minimum(), low);
    }
    assert_eq!(spec("fashion28").unwrap().minimum(), 4);
    let loss = lpips("squeeze");
    let at = |h: usize, w: usize| {
        let (x, y) = (image("a", [1, 3, h, w]), image("b", [1, 3, h, w]));
        loss.eval(&x, &y, Reduction::Mean)
    };
    assert!(flat(&at(17, 18).unwrap())[0] > 0.0);
    let e = at(17, 16).unwrap_err();
    assert!(e.kind() == Kind::Shape && e.message().contains("17×17"), "{e}");
}

/// The smaller built-in network, for what does not depend on the trunk.
fn fashion(compare: Compare) -> Perceptual {
    Perceptual::new(spec("fashion28").unwrap(), state("fashion28"), compare).unwrap()
}

#[test]
fn samples_do_not_depend_on_their_batch_nor_on_what_was_seen_before() {
    let (x, y) = (image("p", [11, 1, 12, 12]), image("q", [11, 1, 12, 12]));
    let loss = fashion(Compare::Unit);
    let [all, gx, gy] = differentiate(&loss, &x, &y);
    let constant = |loss: &Perceptual, x: &Tensor, y: &Tensor| flat(&loss.eval(x, y, Reduction::None).unwrap());
    assert_eq!(constant(&loss, &x, &y), flat(&all), "a target without gradient");
    assert_eq!(constant(&loss, &x, &y), flat(&all), "a target seen before");
    // other targets, some of them seen before, in another order
    let (xr, yr) = ([7u32, 3, 0], [7u32, 3, 0].map(|i| i as usize));
    let rows = Tensor::new(&xr, &Device::Cpu).unwrap();
    let moved = (&y + 0.25).unwrap();
    let mixed = Tensor::cat(&[&y.index_select(&rows, 0).unwrap(), &moved.narrow(0, 2, 1).unwrap()], 0).unwrap();
    let xs = Tensor::cat(&[&x.index_select(&rows, 0).unwrap(), &x.narrow(0, 2, 1).unwrap()], 0).unwrap();
    let got = constant(&loss, &xs, &mixed);
    assert_eq!(got[..3], yr.map(|i| flat(&all)[i]));
    assert_eq!(
        got[3],
        constant(&fashion(Compare::Unit), &x.narrow(0, 2, 1).unwrap(), &moved.narrow(0, 2, 1).unwrap())[0]
    );
    // gradients in one of the two, and the same record pulled twice
    let v = variable(&x).unwrap();
    let weights = Tensor::arange(1f32, 12.0, &Device::Cpu).unwrap();
    let sum = (loss.eval(&v, &y, Reduction::None).unwrap() * weights).unwrap().sum_all().unwrap();
    for _ in 0..2 {
        let g = grad(&Quiet, &sum, std::slice::from_ref(&v)).unwrap().pop().unwrap();
        assert_eq!(flat(&g), flat(&gx));
    }
    let v = variable(&y).unwrap();
    let weights = Tensor::arange(1f32, 12.0, &Device::Cpu).unwrap();
    let sum = (loss.eval(&x, &v, Reduction::None).unwrap() * weights).unwrap().sum_all().unwrap();
    assert_eq!(flat(&grad(&Quiet, &sum, &[v]).unwrap()[0]), flat(&gy));
}

#[test]
fn values_of_equal_images_are_zero_and_records_end() {
    let before = live_records();
    let x = image("p", [2, 1, 12, 12]);
    for compare in [Compare::Unit, Compare::Plain] {
        let loss = fashion(compare);
        let v = variable(&x).unwrap();
        let d = loss.eval(&v, &v, Reduction::Sum).unwrap();
        assert_eq!(flat(&d), [0.0]);
        let g = grad(&Quiet, &d, std::slice::from_ref(&v)).unwrap();
        assert!(flat(&g[0]).iter().all(|g| *g == 0.0));
        assert!(!no_grad(|| loss.eval(&v, &x, Reduction::Mean)).unwrap().track_op());
        // black images: features without length have no gradient of their own, rather than NaN
        let dark = variable(&Tensor::full(-1f32, (1, 1, 8, 8), &Device::Cpu).unwrap()).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let y = image("q", [1, 1, 8, 8]).to_dtype(dtype).unwrap();
            let d = loss.eval(&dark.to_dtype(dtype).unwrap(), &y, Reduction::Mean).unwrap();
            let g = grad(&Quiet, &d, std::slice::from_ref(&dark)).unwrap();
            assert!(flat(&g[0]).iter().all(|g| g.is_finite()));
        }
    }
    assert_eq!(live_records(), before);
}

#[test]
fn reductions_and_grey_images() {
    let loss = lpips("squeeze");
    let (x, y) = (image("p", [3, 1, 20, 18]), image("q", [3, 1, 20, 18]));
    let eval = |x: &Tensor, y: &Tensor, r| flat(&loss.eval(x, y, r).unwrap());
    let each = eval(&x, &y, Reduction::None);
    let sum: f64 = each.iter().sum();
    assert!((eval(&x, &y, Reduction::Sum)[0] - sum).abs() < 1e-6 * sum);
    assert!((eval(&x, &y, Reduction::Mean)[0] - sum / 3.0).abs() < 1e-6 * sum);
    // grey: all three channels alike; the gradient is the sum of theirs
    let three = |t: &Tensor| t.repeat((1, 3, 1, 1)).unwrap();
    assert_eq!(eval(&three(&x), &three(&y), Reduction::None), each);
    let ([_, grey, _], [_, colour, _]) = (differentiate(&loss, &x, &y), differentiate(&loss, &three(&x), &three(&y)));
    assert!(error(&grey, &colour.sum_keepdim(1).unwrap()) < 1e-5);
}

#[test]
fn bad_input_is_refused() {
    let loss = fashion(Compare::Plain);
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let fails = |x: &[usize], y: &[usize], want: &str| {
        let e = loss.eval(&zeros(x), &zeros(y), Reduction::Mean).unwrap_err();
        assert!(e.kind() == Kind::Shape && e.message().contains(want), "{x:?}: {e}");
    };
    fails(&[1, 1, 28, 28], &[2, 1, 28, 28], "shapes differ");
    fails(&[0, 1, 28, 28], &[0, 1, 28, 28], "empty");
    fails(&[1, 3, 28, 28], &[1, 3, 28, 28], "1 channel");
    fails(&[1, 28, 28], &[1, 28, 28], "[B, C, H, W]");
    fails(&[1, 1, 26, 28], &[1, 1, 26, 28], "4 divides");
    fails(&[1, 1, 0, 4], &[1, 1, 0, 4], "empty");
    let ints = Tensor::zeros((1, 1, 28, 28), DType::U32, &Device::Cpu).unwrap();
    assert_eq!(loss.eval(&ints, &ints, Reduction::Mean).unwrap_err().kind(), Kind::Type);

    let make = |net: &str, change: &dyn Fn(&mut State), compare: Compare, layers: Option<&[usize]>| {
        let mut weights = state(net);
        change(&mut weights);
        let settings = Settings { layers: layers.map(<[usize]>::to_vec), ..compare.into() };
        Perceptual::new(spec(net).unwrap(), weights, settings).map(|_| ()).unwrap_err()
    };
    let name = "features.9.squeeze.weight";
    let e = make("squeeze", &|s| drop(s.remove(name)), Compare::Lpips, None);
    assert!(e.kind() == Kind::Format && e.message().contains(name), "{e}");
    let e = make("squeeze", &|s| drop(s.insert(name.into(), zeros(&[48, 256]))), Compare::Lpips, None);
    assert!(e.kind() == Kind::Format && e.message().contains("[48, 256, 1, 1]"), "{e}");
    let odd = (zeros(&[48, 256, 1, 1]) + f64::NAN).unwrap();
    let e = make("squeeze", &|s| drop(s.insert(name.into(), odd.clone())), Compare::Lpips, None);
    assert!(e.message().contains("NaN"), "{e}");
    assert_eq!(make("fashion28", &|_| (), Compare::Lpips, None).kind(), Kind::Name);
    assert!(make("fashion28", &|_| (), Compare::Plain, Some(&[3])).message().contains("no layer 3"));
    assert!(make("fashion28", &|_| (), Compare::Plain, Some(&[])).message().contains("no layers"));
    assert!(spec("vgg19").unwrap_err().fix().unwrap().contains("vgg"));
}

#[test]
fn scripts_make_perceptual_losses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("squeeze.safetensors");
    let weights: HashMap<String, Tensor> = state("squeeze").into_iter().collect();
    candle_core::safetensors::save(&weights, &path).unwrap();
    // heads as the package stores them: twice its own give twice the distance
    let shipped = candle_core::safetensors::load(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lpips-heads.safetensors"),
        &Device::Cpu,
    );
    let twice = |(k, w): (String, Tensor)| {
        let w = (w.reshape((1, w.elem_count(), 1, 1)).unwrap() * 2.0).unwrap();
        Some((format!("{}.model.1.weight", k.strip_prefix("squeeze.")?), w))
    };
    let heads: HashMap<String, Tensor> = shipped.unwrap().into_iter().filter_map(twice).collect();
    assert_eq!(heads.len(), 7);
    let heads_path = dir.path().join("heads.safetensors");
    candle_core::safetensors::save(&heads, &heads_path).unwrap();
    let mut e = rhai::Engine::new();
    e.register_type_with_name::<Tensor>("Tensor");
    e.register_fn("item", |x: &mut Tensor| flat(x)[0]);
    ld3sh::script::loss::register(&mut e);
    let mut scope = rhai::Scope::new();
    scope.push("x", image("p", [2, 1, 20, 20]));
    scope.push("y", image("q", [2, 1, 20, 20]));
    scope.push("path", path.to_str().unwrap().to_string());
    scope.push("heads", heads_path.to_str().unwrap().to_string());
    let script = r#"
        let f = loss::lpips("squeeze", #{ trunk: path });
        let g = loss::lpips("squeeze", #{ trunk: path, lpips: false, normalize: true, reduction: "sum" });
        let h = loss::features("fashion28");
        let i = loss::features("fashion28", #{ layers: [2], unit: true });
        let j = loss::lpips("squeeze", #{ trunk: path, heads: heads });
        [f, g, h, i, j].map(|f| f.call(x, y).item())
    "#;
    let values = e.eval_with_scope::<rhai::Array>(&mut scope, script).unwrap();
    let values: Vec<f64> = values.iter().map(|v| v.as_float().unwrap()).collect();
    assert!(values.iter().all(|v| *v > 0.0), "{values:?}");
    assert!((values[4] / values[0] - 2.0).abs() < 1e-6, "{values:?}");
    let mut says = |script: &str, want: &str| {
        let error = caught(script, e.eval_with_scope::<rhai::Dynamic>(&mut scope, script));
        assert!(error.to_string().contains(want), "{script}: {error}");
    };
    says("loss::lpips(\"vg\")", "`vgg`");
    says("loss::lpips(\"fashion28\")", "no heads");
    says("loss::lpips(\"alex\", #{ trunk: path })", "features.0.weight");
    says("loss::lpips(\"squeeze\", #{ trunk: path, heads: path })", "lin0.model.1.weight");
    says("loss::lpips(\"alex\", #{ trunk: \"nowhere.safetensors\" })", "nowhere.safetensors");
    says("loss::features(\"fashion28\", #{ layers: [9] })", "no layer 9");
    says("loss::features(\"fashion28\", #{ layer: [1] })", "layers");
    says("loss::features(\"fashion28\", #{ layers: [-1] })", "integers");
    says("loss::features(\"fashion28\").call(x, 3)", "argument 2");
    says("loss::dists(#{ trunk: path })", "features.2.weight");
    says("loss::dists(#{ trunk: path, weights: path })", "no `alpha`");
    says("loss::features(\"dists\")", "`dists`");
}

#[test]
fn published_weights_are_found_by_name() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (net, file) in
        [("vgg", "vgg16-397923af.pth"), ("alex", "alexnet-owt-7be5be79.pth"), ("squeeze", "squeezenet1_1-b8a52dc0.pth")]
    {
        let script = format!("loss::lpips(\"{net}\")");
        let run =
            process::ld3sh(dir.path(), cache.path()).env("LD3SH_OFFLINE", "1").args(["-e", &script]).output().unwrap();
        let error = process::err(&run);
        assert!(run.status.code() == Some(1) && error.contains(file) && error.contains("LD3SH_OFFLINE"), "{error}");
    }
}

/// Max pooling by PyTorch's words: the first of the largest values in each window, row by row.
#[test]
fn pooling_gives_ties_to_the_first() {
    let op = |window, stride, ceil| -> Arc<dyn Frozen> { Arc::new(MaxPool { window, stride, ceil }) };
    let x =
        Tensor::new(&[[2f32, 2., 1., 3.], [2., 0., 3., 3.], [1., 5., 4., 4.], [5., 5., 4., 4.]], &Device::Cpu).unwrap();
    let cases = [
        (op(2, 2, false), vec![2., 3., 5., 4.], vec![(0, 1), (3, 1), (9, 1), (10, 1)]),
        (op(3, 2, false), vec![5.], vec![(9, 1)]),
        (op(3, 2, true), vec![5., 4., 5., 4.], vec![(9, 2), (10, 2)]),
    ];
    for (op, want, places) in cases {
        for dtype in [DType::F32, DType::F64] {
            let x = Var::from_tensor(&x.to_dtype(dtype).unwrap().reshape((1, 4, 4, 1)).unwrap()).unwrap();
            let y = apply(&op, &[&x]).unwrap();
            assert_eq!(flat(&y), want);
            let g = flat(y.sum_all().unwrap().backward().unwrap().get(&x).unwrap());
            let mut expected = [0.0; 16];
            places.iter().for_each(|(at, n)| expected[*at] = *n as f64);
            assert_eq!(g, expected, "{dtype:?} {want:?}");
        }
    }
}

#[test]
fn relu_has_no_slope_at_zero() {
    let op: Arc<dyn Frozen> = Arc::new(Relu);
    for dtype in [DType::F32, DType::F64] {
        let x = Tensor::new(&[-1f64, 0.0, -0.0, 2.0, f64::NAN], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let x = Var::from_tensor(&x).unwrap();
        let y = apply(&op, &[&x]).unwrap();
        assert!(flat(&y)[..4] == [0.0, 0.0, 0.0, 2.0] && flat(&y)[4].is_nan());
        let g = y.narrow(0, 0, 4).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(flat(g.get(&x).unwrap())[..4], [0.0, 0.0, 0.0, 1.0]);
    }
}

/// The f32 kernel against its composed form in f64: value and gradient.
fn agrees(make: &dyn Fn(DType) -> Arc<dyn Frozen>, dims: &[usize]) {
    let x: Vec<f64> = uniform("x", dims.iter().product());
    let x = Tensor::from_vec(x, dims, &Device::Cpu).unwrap();
    let both: Vec<(Tensor, Tensor)> = [DType::F32, DType::F64]
        .into_iter()
        .map(|dtype| {
            let x = Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap();
            let y = apply(&make(dtype), &[&x]).unwrap();
            let cot = Tensor::from_vec(uniform("cot", y.elem_count()), y.dims(), &Device::Cpu).unwrap();
            let sum = (&y * cot.to_dtype(dtype).unwrap()).unwrap().sum_all().unwrap();
            (y.detach(), sum.backward().unwrap().get(&x).unwrap().clone())
        })
        .collect();
    let (value, gradient) = (error(&both[0].0, &both[1].0), error(&both[0].1, &both[1].1));
    assert!(value < 1e-5 && gradient < 1e-5, "{dims:?}: {value:e} {gradient:e}");
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn convolution_of_any_window_matches_its_composed_form(
        b in 1usize..3, h in 1usize..20, w in 1usize..20, cin in 1usize..5, cout in 1usize..20,
        kh in 1usize..6, kw in 1usize..6, stride in 1usize..5, padding in 0usize..6,
    ) {
        prop_assume!(h + 2 * padding >= kh && w + 2 * padding >= kw);
        let make = |dtype: DType| -> Arc<dyn Frozen> {
            let of = |name: &str, shape: &[usize]| filled(name, shape).to_dtype(dtype).unwrap();
            Arc::new(Conv::with(of("w", &[cout, cin, kh, kw]), of("b", &[cout]), stride, padding).unwrap())
        };
        agrees(&make, &[b, h, w, cin]);
    }

    #[test]
    fn pooling_and_scaling_match_their_composed_forms(
        b in 1usize..3, h in 1usize..12, w in 1usize..12, c in 1usize..5,
        window in 1usize..4, stride in 1usize..4, ceil in any::<bool>(),
    ) {
        let pool = MaxPool { window, stride, ceil };
        // PyTorch wants that the last window begins inside
        prop_assume!(stride <= window && pool.windows(h) * pool.windows(w) > 0);
        agrees(&|_| Arc::new(MaxPool { window, stride, ceil }), &[b, h, w, c]);
        agrees(&|_| Arc::new(RootPool), &[b, h, w, c]);
        agrees(&|_| Arc::new(Channels::new([(2.0, 0.5), (-1.0, 0.0), (0.3, -0.7)])), &[b, h, w, if c > 2 { 3 } else { 1 }]);
    }
}
