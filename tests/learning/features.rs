//! Features and what is made of them: statistics in batches, parts and files; distances, scores and tests against other packages
//! (fixtures by tests/fixtures/make_inception.py); FID's network; bad input.
use crate::process::{err, ld3sh, out};
use crate::trunks::uniform;
use candle_core::{DType, Device, Tensor, Var};
use ld3sh::Kind;
use ld3sh::files::npy;
use ld3sh::metric::{Extractor, Reads, Rows, Stats};
use ld3sh::metric::{
    bootstrap, cmmd, frechet, frechet_distance, gaussian, inception_score, kid, nearer, neighbours, paired,
};
use ld3sh::metric::{ssim, two_sample};
use ld3sh::nets::inception::FAMILY;
use ld3sh::nets::kernels::{AveragePool, Bilinear, Conv, Corners, Frozen, GlobalMean, Pillow, apply};
use ld3sh::nets::weights::{File, Names};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn matrix(name: &str, dims: &[usize], scale: f64, shift: f64) -> Tensor {
    let v: Vec<f64> = uniform(name, dims.iter().product()).into_iter().map(|u| u * scale + shift).collect();
    Tensor::from_vec(v, dims, &Device::Cpu).unwrap()
}

fn rows(t: &Tensor) -> Rows {
    Rows::new("test", t).unwrap()
}

#[track_caller]
fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} {b}");
}

fn found() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("metrics.json")).unwrap()).unwrap()
}

fn stats(parts: &[Tensor]) -> Stats {
    let mut s = Stats::default();
    parts.iter().for_each(|p| s.add(p).unwrap());
    s
}

#[test]
fn statistics_do_not_depend_on_batches_and_join() {
    let x = matrix("stats", &[1000, 7], 3.0, 100.0);
    let (mean, cov) = gaussian(&x).unwrap();
    let bits = |s: &Stats| {
        let (m, c) = s.moments().unwrap();
        (values(&m), values(&c))
    };
    let whole = bits(&stats(std::slice::from_ref(&x)));
    for size in [1, 3, 256, 300, 999] {
        let parts: Vec<Tensor> = (0..1000).step_by(size).map(|i| x.narrow(0, i, size.min(1000 - i)).unwrap()).collect();
        assert_eq!(bits(&stats(&parts)), whole, "{size}");
    }
    let near = |(m, c): &(Vec<f64>, Vec<f64>)| {
        m.iter().zip(values(&mean)).chain(c.iter().zip(values(&cov))).for_each(|(a, b)| close(*a, b, 1e-12));
    };
    near(&whole);
    // three parts of different sizes, one of them empty
    let part = |from, n| stats(&[x.narrow(0, from, n).unwrap()]);
    let mut joined = part(0, 300);
    joined.merge(&Stats::default()).unwrap();
    joined.merge(&part(300, 690)).unwrap();
    joined.merge(&part(990, 10)).unwrap();
    assert_eq!(joined.count(), Some(1000));
    near(&bits(&joined));
    // and more rows after that
    joined.add(&x).unwrap();
    assert_eq!(joined.count(), Some(2000));
}

#[test]
fn statistics_go_to_files_that_others_read_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.npz");
    let mut s = stats(&[matrix("file", &[50, 3], 1.0, 0.0)]);
    s.about.insert("network".into(), "mine".into());
    s.save(&path).unwrap();
    let arrays = npy::read_npz(&path).unwrap();
    let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["mu", "sigma", "n", "about"]);
    let back = Stats::load(&path, false).unwrap();
    assert_eq!((back.count(), back.about["network"].as_str()), (Some(50), Some("mine")));
    assert!(frechet(&s, &back).unwrap() < 1e-12);
    // as EDM and pytorch-fid write them: without a count, so nothing can be added
    npy::write_npz(&path, &arrays[..2]).unwrap();
    let mut fixed = Stats::load(&path, false).unwrap();
    assert_eq!(fixed.count(), None);
    assert!(frechet(&s, &fixed).unwrap() < 1e-12);
    assert!(fixed.add(&matrix("more", &[2, 3], 1.0, 0.0)).unwrap_err().message().contains("not known"));
    // as ADM does
    let spatial = [("mu_s".to_string(), arrays[0].1.clone()), ("sigma_s".to_string(), arrays[1].1.clone())];
    npy::write_npz(&path, &spatial).unwrap();
    assert_eq!(Stats::load(&path, true).unwrap().width(), 3);
    let e = Stats::load(&path, false).unwrap_err();
    assert!(e.kind() == Kind::Format && e.message().contains("mu_s") && e.message().contains("s.npz"), "{e}");
    let text = [("mu".to_string(), arrays[0].1.clone()), ("sigma".to_string(), arrays[0].1.clone())];
    npy::write_npz(&path, &text).unwrap();
    assert_eq!(Stats::load(&path, false).unwrap_err().kind(), Kind::Shape);
}

#[test]
fn statistics_refuse_what_does_not_fit() {
    let mut s = stats(&[matrix("a", &[4, 3], 1.0, 0.0)]);
    assert_eq!(s.add(&matrix("b", &[4, 2], 1.0, 0.0)).unwrap_err().kind(), Kind::Shape);
    let bad = Tensor::new(&[[0.0, 0.0, 0.0], [0.0, f64::NAN, 0.0]], &Device::Cpu).unwrap();
    let e = s.add(&bad).unwrap_err();
    assert!(e.message().contains("row 1"), "{e}");
    assert_eq!(s.count(), Some(4), "nothing of a bad batch was added");
    let mut other = stats(&[matrix("b", &[4, 3], 1.0, 0.0)]);
    other.about.insert("seed".into(), 1.into());
    s.about.insert("seed".into(), 0.into());
    let e = s.merge(&other).unwrap_err();
    assert!(e.message().contains("`seed` is 0 in one and 1 in the other"), "{e}");
    let one = stats(&[matrix("c", &[1, 3], 1.0, 0.0)]);
    assert!(frechet(&one, &other).unwrap_err().message().contains("at least 2 rows"));
}

#[test]
fn distances_are_those_of_other_packages() {
    let known = found();
    let (x, y) = (matrix("metric.x", &[300, 8], 1.0, 0.0), matrix("metric.y", &[260, 8], 0.8, 0.1));
    let of =
        |x: &Tensor, y: &Tensor| frechet(&stats(std::slice::from_ref(x)), &stats(std::slice::from_ref(y))).unwrap();
    close(of(&x, &y), known["frechet"].as_f64().unwrap(), 1e-9);
    let n = neighbours(&rows(&x), &rows(&y), 5).unwrap();
    for (key, got) in
        [("precision", n.precision), ("recall", n.recall), ("density", n.density), ("coverage", n.coverage)]
    {
        close(got, known["prdc"][key].as_f64().unwrap(), 1e-12);
    }
    let (mmd, spread) = kid(&rows(&x.narrow(0, 0, 260).unwrap()), &rows(&y), 100, 1000, 0).unwrap();
    close(mmd, known["mmd"].as_f64().unwrap(), 1e-10);
    assert_eq!(spread, 0.0, "all of both is one subset");
    let (mean, std) = inception_score(&matrix("metric.logits", &[120, 10], 4.0, 0.0), 10).unwrap();
    close(mean, known["isc"]["mean"].as_f64().unwrap(), 1e-12);
    close(std, known["isc"]["std"].as_f64().unwrap(), 1e-9);
    let image = |k: &str, s| matrix(&format!("metric.image.{k}"), &[2, 3, 17, 20], s, 0.5);
    let got = values(&ssim(&image("x", 0.5), &image("y", 0.4), 1.0).unwrap());
    got.iter().zip(known["ssim"].as_array().unwrap()).for_each(|(a, b)| close(*a, b.as_f64().unwrap(), 1e-6));
    assert_eq!(got.len(), 2);
    // fewer rows than columns: singular
    let (x, y) = (matrix("metric.wide.x", &[30, 50], 1.0, 0.0), matrix("metric.wide.y", &[40, 50], 1.0, 0.0));
    close(of(&x, &y), known["frechet_singular"].as_f64().unwrap(), 1e-6);
}

#[test]
fn cmmd_is_what_it_says() {
    let known = candle_core::safetensors::load(fixture("vision.safetensors"), &Device::Cpu).unwrap();
    let unit = |name: &str, n: usize, shift: f64| {
        let x = matrix(name, &[n, 16], 1.0, shift);
        let length = x.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap();
        rows(&x.broadcast_div(&length).unwrap())
    };
    let (x, y) = (unit("cmmd.x", 300, 0.0), unit("cmmd.y", 260, 0.1));
    let want = values(&known["cmmd"])[0];
    let got = cmmd(&x, &y, 10.0, 1000.0).unwrap();
    assert!((got / want - 1.0).abs() < 1e-9, "{got} {want}");
    assert_eq!(cmmd(&x, &x, 10.0, 1000.0).unwrap(), 0.0);
    assert!(cmmd(&x, &y, 0.0, 1.0).is_err());
    assert_eq!(cmmd(&x, &rows(&matrix("w", &[5, 2], 1.0, 0.0)), 1.0, 1.0).unwrap_err().kind(), Kind::Shape);
}

#[test]
fn no_covariance_is_told() {
    let t = |v: &[f64], d: &[usize]| Tensor::from_slice(v, d, &Device::Cpu).unwrap();
    let (m, c) = (t(&[0.0, 0.0], &[2]), t(&[1.0, 0.0, 0.0, 1.0], &[2, 2]));
    for bad in [[1.0, 2.0, 2.0, 1.0], [0.0, 1.0, 1.0, 0.0], [-1.0, 0.0, 0.0, -1.0]] {
        for e in [frechet_distance(&m, &t(&bad, &[2, 2]), &m, &c), frechet_distance(&m, &c, &m, &t(&bad, &[2, 2]))] {
            assert!(e.unwrap_err().message().contains("negative eigenvalue"), "{bad:?}");
        }
    }
}

#[test]
fn intervals_hold_what_they_say() {
    // the distance of 200 samples of width 4 to what they come from, many times
    let reference = stats(&[matrix("truth", &[100_000, 4], 1.0, 0.0)]);
    let draw = |i: usize| matrix(&format!("draw{i}"), &[200, 4], 1.0, 0.0);
    let of = |x: &Tensor| frechet(&stats(std::slice::from_ref(x)), &reference).unwrap();
    let each: Vec<f64> = (0..60).map(|i| of(&draw(i))).collect();
    let mean = each.iter().sum::<f64>() / 60.0;
    let spread = (each.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 59.0).sqrt();
    let intervals: Vec<_> =
        (0..60).map(|i| bootstrap(&rows(&draw(i)), &reference, 100, 0.95, i as u64).unwrap()).collect();
    let errors = intervals.iter().map(|i| i.error).sum::<f64>() / 60.0;
    let inside = intervals.iter().filter(|i| i.low <= mean && mean <= i.high).count();
    println!("mean {mean:.4}, spread {spread:.4}, errors {errors:.4}, {inside} of 60 intervals hold it");
    assert!(errors > 0.7 * spread && errors < 1.8 * spread, "{errors} {spread}");
    assert!(inside >= 50, "{inside} of 60");
    let i = intervals[0];
    close(i.value, each[0], 1e-10);
    assert!(i.low <= i.value && i.value <= i.high && i.bias > 0.0);
    assert_eq!(bootstrap(&rows(&draw(0)), &reference, 100, 0.95, 0).unwrap(), i, "the same seed, the same bits");
    assert!(bootstrap(&rows(&draw(0)), &reference, 100, 1.0, 0).is_err());
}

#[test]
fn tests_find_what_is_there_and_no_more() {
    let x = |i: usize, shift: f64| rows(&matrix(&format!("test{i}"), &[60, 3], 1.0, shift));
    let same: Vec<f64> =
        (0..40).map(|i| two_sample(&x(2 * i, 0.0), &x(2 * i + 1, 0.0), 100, 99, 0).unwrap().p).collect();
    let low = same.iter().filter(|p| **p <= 0.1).count();
    println!("{low} of 40 at or below 0.1");
    assert!((1..=10).contains(&low), "{same:?}");
    assert_eq!(two_sample(&x(0, 0.0), &x(1, 1.0), 100, 99, 0).unwrap().p, 0.01);
    // pairs: a small difference in the same direction is found, signs at random are not
    let a: Vec<f64> = uniform("pairs", 50);
    let b: Vec<f64> = a.iter().map(|v| v + 0.01).collect();
    let t = paired(&a, &b, 999, 0).unwrap();
    assert!((t.value + 0.01).abs() < 1e-12 && t.p == 0.001, "{t:?}");
    let p = paired(&a, &uniform("others", 50), 999, 0).unwrap().p;
    assert!(p > 0.05, "{p}");
    let reference = stats(&[matrix("test0", &[60, 3], 1.0, 0.0)]);
    assert_eq!(nearer(&x(0, 0.0), &x(0, 2.0), &reference, 99, 0).unwrap().p, 0.01);
    assert!(nearer(&x(1, 0.0), &x(2, 0.0), &reference, 99, 0).unwrap().p > 0.02);
    assert_eq!(
        two_sample(&x(0, 0.0), &rows(&matrix("w", &[5, 2], 1.0, 0.0)), 9, 9, 0).unwrap_err().kind(),
        Kind::Shape
    );
    assert!(
        neighbours(&x(0, 0.0), &x(1, 0.0), 60).is_err() && inception_score(&matrix("l", &[3, 2], 1.0, 0.0), 4).is_err()
    );
}

#[test]
fn the_built_in_network_is_what_its_statistics_are_of() {
    let net = Extractor::fashion28(&Device::Cpu).unwrap();
    assert_eq!((net.width(), net.classes()), (128, 10));
    let (train, test) = (net.reference("train").unwrap(), net.reference("test").unwrap());
    let d = frechet(&train, &test).unwrap();
    assert!((d - 0.065).abs() < 0.001, "{d}: models/README.md says 0.065");
    assert!(net.reference("valid").unwrap_err().to_string().contains("train"));
    // features do not depend on the batch, and stand between the taps and the head
    let x = matrix("pictures", &[70, 1, 28, 28], 1.0, 0.0).to_dtype(DType::F32).unwrap();
    let [all, logits] = net.run(&x, [Reads::Features, Reads::Logits], false).unwrap();
    let [one] = net.run(&x.narrow(0, 66, 1).unwrap(), [Reads::Features], false).unwrap();
    assert_eq!(values(&all.narrow(0, 66, 1).unwrap()), values(&one));
    assert_eq!((all.dims(), logits.dims()), (&[70, 128][..], &[70, 10][..]));
    // 8-bit: what is read from a file gives the same features as what was to be written
    let bytes = ((&x * 127.5).unwrap() + 128.0).unwrap().clamp(0f32, 255f32).unwrap().to_dtype(DType::U8).unwrap();
    let file = (bytes.to_dtype(DType::F32).unwrap() / 127.5)
        .unwrap()
        .broadcast_sub(&Tensor::new(1f32, &Device::Cpu).unwrap())
        .unwrap();
    let features = |x: &Tensor, quantize| net.run(x, [Reads::Features], quantize).map(|[features]| features);
    let (quantized, read) = (features(&x, true).unwrap(), features(&file, false).unwrap());
    quantized_close(&quantized, &read);
    assert!(values(&quantized) != values(&all));
    let nan = (x.narrow(0, 0, 3).unwrap() * f64::NAN).unwrap();
    let e = features(&Tensor::cat(&[&x, &nan], 0).unwrap(), false).unwrap_err();
    assert!(e.message().contains("image 70"), "{e}");
    assert_eq!(features(&matrix("p", &[1, 3, 28, 28], 1.0, 0.0), false).unwrap_err().kind(), Kind::Shape);
    assert_eq!(features(&matrix("p", &[1, 1, 27, 28], 1.0, 0.0), false).unwrap_err().kind(), Kind::Shape);
}

fn quantized_close(a: &Tensor, b: &Tensor) {
    values(a).iter().zip(values(b)).for_each(|(a, b)| close(*a, b, 1e-5));
}

/// Weights of FID's network by the generator's formula.
fn inception() -> BTreeMap<String, Tensor> {
    let bound = |name: &str, dims: &[usize]| match dims.len() {
        1 => 0.1,
        _ => (6.0 / dims[1..].iter().product::<usize>() as f64).sqrt() * f64::from(u8::from(!name.is_empty())),
    };
    let filled = |name: &str, dims: &[usize]| {
        let (scale, shift) = match name {
            n if n.ends_with("running_var") => (0.5, 1.0),
            n if n.ends_with("bn.weight") => (0.1, 1.0),
            n => (bound(n, dims), 0.0),
        };
        matrix(name, dims, scale, shift).to_dtype(DType::F32).unwrap()
    };
    let mut all = BTreeMap::new();
    // the names of the graph's own weights, which have the batch norms in them
    let mut names = Names::default();
    ld3sh::nets::inception::names(&mut names).unwrap();
    for (name, dims) in names.0 {
        match name.strip_suffix(".weight") {
            Some("fc") => drop(all.insert(name.clone(), filled(&name, &dims))),
            Some(place) => {
                let conv = format!("{place}.conv.weight");
                all.insert(conv.clone(), filled(&conv, &dims));
                for part in ["weight", "bias", "running_mean", "running_var"] {
                    let name = format!("{place}.bn.{part}");
                    all.insert(name.clone(), filled(&name, &dims[..1]));
                }
            }
            None => {}
        }
    }
    all
}

fn extractor(resize: &str, weights: &BTreeMap<String, Tensor>) -> Extractor {
    let mut file = File::some(weights, "", &Device::Cpu, DType::F32);
    file.given([("resize".to_string(), resize.into())].into());
    Extractor::inception((FAMILY.build)(&mut file).unwrap(), resize).unwrap()
}

#[test]
fn fid_s_network_is_that_of_other_packages() {
    let weights = inception();
    let mut known = candle_core::safetensors::load(fixture("inception.safetensors"), &Device::Cpu).unwrap();
    known.extend(candle_core::safetensors::load(fixture("vision.safetensors"), &Device::Cpu).unwrap());
    for resize in ["torch", "tf1"] {
        let net = extractor(resize, &weights);
        assert_eq!((net.width(), net.classes()), (2048, 1008));
        assert_eq!(net.stats(Reads::Spatial).about["layer"], "spatial");
        for (key, dims) in [("32", [2, 3, 32, 32]), ("40", [1, 3, 40, 56])] {
            // pixels as bytes, in [−1, 1]
            let p = uniform(&format!("inception.{key}"), dims.iter().product());
            let p: Vec<f32> =
                p.into_iter().map(|u| (((u + 1.0) * 128.0).floor().clamp(0.0, 255.0) / 127.5 - 1.0) as f32).collect();
            let x = Tensor::from_vec(p, &dims, &Device::Cpu).unwrap();
            let got = net.run(&x, [Reads::Features, Reads::Logits, Reads::Spatial], false).unwrap();
            for (name, got) in ["features", "logits", "spatial"].iter().zip(&got) {
                let Some(want) = known.get(&format!("{resize}.{key}.{name}")) else { continue };
                let (got, want) = (values(got), values(want));
                let top = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let off = got.iter().zip(&want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / top;
                println!("{resize} {key} {name}: {off:.1e}");
                assert!(got.len() == want.len() && off < 1e-4, "{resize} {key} {name} is off by {off:e}");
            }
        }
    }
    let mut damaged = weights.clone();
    damaged.remove("Mixed_6c.branch7x7_2.bn.running_mean");
    let mut file = File::some(&damaged, "", &Device::Cpu, DType::F32);
    let e = (FAMILY.build)(&mut file).err().unwrap();
    assert!(e.message().contains("Mixed_6c.branch7x7_2.bn.running_mean"), "{e}");
}

#[test]
fn scripts_measure_what_generate_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
        let net = denoiser::load("fashion28");
        let features = metric::network("fashion28");
        let steps = schedule::edm(net.noise, 3);
        generate(net, solver::ddim(), steps, 6, #{ out: "samples", seed: 5, cond: "none" });
        generate(net, solver::ddim(), steps, 6, #{ out: "samples.npz", seed: 5, cond: "none" });
        let a = features.stats_of("samples");
        let b = features.stats_of("samples.npz", #{ batch: 4 });
        let c = features.stats();
        for i in 0..3 {
            let x = sample(net, solver::ddim(), steps, 2, #{ seed: 5, first: 2 * i, cond: "none" });
            c.add(features.features(x, #{ quantize: true }));
        }
        print([a.count, b.count, c.count]);
        print(metric::frechet(a, b));
        print(metric::frechet(a, c) < 1e-6);
        try { features.stats_of("nowhere"); } catch (e) { print(e.kind); }
    "#;
    std::fs::write(dir.path().join("main.rhai"), script).unwrap();
    let o = ld3sh(dir.path(), &dir.path().join("cache")).args(["--quiet", "main.rhai"]).output().unwrap();
    assert!(o.status.success(), "{}", err(&o));
    let text = out(&o);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2], lines[3]), ("[6, 6, 6]", "true", "io"), "{text}");
    assert!(lines[1].parse::<f64>().unwrap() < 1e-9, "{text}");
    assert!(err(&o).contains("their covariance needs 129"), "{}", err(&o));
}

/// Values and gradients of the frozen kernels against the composition of candle's operations in f64.
#[test]
fn kernels_are_what_they_are_composed_of() {
    let weight = |name: &str, dims: &[usize]| matrix(name, dims, 0.3, 0.0).to_dtype(DType::F32).unwrap();
    let conv = |kernel: [usize; 2], padding: [[usize; 2]; 2], stride: usize| -> Arc<dyn Frozen> {
        let w = weight("w", &[5, 3, kernel[0], kernel[1]]);
        Arc::new(Conv::oblong(w, weight("b", &[5]), stride, padding).unwrap())
    };
    let all: Vec<(Arc<dyn Frozen>, [usize; 4])> = vec![
        (Arc::new(AveragePool { window: 3 }), [2, 5, 7, 3]),
        (Arc::new(AveragePool { window: 5 }), [1, 4, 1, 2]),
        (Arc::new(GlobalMean), [2, 5, 7, 3]),
        (Arc::new(Bilinear { size: 13, corners: Corners::TensorFlow1 }), [2, 5, 7, 3]),
        (Arc::new(Bilinear { size: 13, corners: Corners::Centres }), [2, 5, 7, 3]),
        (Arc::new(Bilinear { size: 4, corners: Corners::Centres }), [1, 9, 11, 1]),
        (Arc::new(Bilinear { size: 6, corners: Corners::TensorFlow1 }), [1, 6, 6, 2]),
        (Arc::new(Pillow { size: 9, crop: false }), [2, 5, 7, 3]),
        (Arc::new(Pillow { size: 4, crop: true }), [1, 6, 11, 3]),
        (Arc::new(Pillow { size: 5, crop: true }), [1, 9, 5, 1]),
        (conv([1, 7], [[0, 0], [3, 3]], 1), [2, 5, 9, 3]),
        (conv([7, 1], [[3, 3], [0, 0]], 1), [2, 9, 5, 3]),
        (conv([3, 1], [[0, 2], [1, 0]], 2), [1, 8, 6, 3]),
        (conv([3, 3], [[1, 1], [1, 1]], 1), [1, 8, 6, 3]),
    ];
    for (op, dims) in all {
        let x = matrix("x", &dims, 1.0, 0.0);
        let of = |dtype: DType| {
            let x = Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap();
            let y = apply(&op, &[x.as_tensor()]).unwrap();
            let weights = matrix("c", y.dims(), 1.0, 0.0).to_dtype(dtype).unwrap();
            let g = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
            (values(&y), values(g.get(x.as_tensor()).unwrap()))
        };
        let ((y, g), (want_y, want_g)) = (of(DType::F32), of(DType::F64));
        for (got, want) in [(y, want_y), (g, want_g)] {
            assert_eq!(got.len(), want.len());
            got.iter().zip(&want).for_each(|(a, b)| close(*a, *b, 1e-5));
        }
        assert!(op.dims(&[&[1, 0, 3, 3]]).is_err(), "{}", op.detail());
    }
}
