//! Metrics of point clouds against numbers from the public code, the earth mover's distance against all pairings, and the Chamfer loss.
use candle_core::{DType, Device, Tensor};
use ld3sh::host::Quiet;
use ld3sh::metric::clouds::{
    Clouds, Distance, assigned, chamfer, chamfer_loss, compare, distances, earth_mover, frame, nearest, occupancy,
};
use ld3sh::tensor::{grad, random};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/points").join(name)
}

fn numbers() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("metrics.json")).unwrap()).unwrap()
}

fn raw(name: &str) -> Tensor {
    candle_core::safetensors::load(fixture("clouds.safetensors"), &Device::Cpu).unwrap().remove(name).unwrap()
}

fn set(name: &str) -> Clouds {
    Clouds::new("test", &raw(name)).unwrap()
}

fn all(v: &Value) -> Vec<f64> {
    match v {
        Value::Array(a) => a.iter().flat_map(all).collect(),
        v => vec![v.as_f64().unwrap()],
    }
}

#[track_caller]
fn same(what: &str, got: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1e-3), "{what}[{i}]: {a} {b}");
    }
}

fn drawn(seed: u64, shape: &[usize], dtype: DType) -> Tensor {
    random::normal(seed, 0, shape, 0, dtype, &Device::Cpu).unwrap()
}

#[test]
fn all_metrics_are_those_of_the_code() {
    let numbers = numbers();
    for how in ["shape_unit", "shape_bbox"] {
        let wanted = &numbers["results"][how];
        let (samples, references) = (set(&format!("{how}.sample")), set(&format!("{how}.ref")));
        same("paired", &chamfer(&references, &samples).unwrap(), &all(&wanted["paired_cd"]), 1e-10);
        for (name, a, b) in [
            ("M_ref_sample", &references, &samples),
            ("M_ref_ref", &references, &references),
            ("M_sample_sample", &samples, &samples),
        ] {
            same(name, &distances(a, b, Distance::Chamfer).unwrap(), &all(&wanted[name]), 1e-10);
        }
        let found = compare(&samples, &references, Distance::Chamfer, 1).unwrap();
        let number = |name: &str| wanted[name].as_f64().unwrap();
        same("mmd", &[found.mmd, found.mmd_samples], &[number("lgan_mmd-CD"), number("lgan_mmd_smp-CD")], 1e-10);
        same("coverage", &[found.coverage], &[number("lgan_cov-CD")], 1e-10);
        // computed in f32 there
        let classes = ["1-NN-CD-acc", "1-NN-CD-acc_t", "1-NN-CD-acc_f"].map(number);
        same("1-NN", &found.accuracy.unwrap(), &classes, 1e-6);
        let three = compare(&samples, &references, Distance::Chamfer, 3).unwrap().accuracy.unwrap();
        let of = |name: &str| wanted["knn3"][name].as_f64().unwrap();
        same("3-NN", &three, &[of("acc"), of("acc_t"), of("acc_f")], 1e-6);
        let filled = occupancy(&samples, &references, 28).unwrap();
        assert_eq!(filled.nodes as f64, number("cells_28"));
        same("jsd", &[filled.jsd, filled.entropy], &[number("jsd"), number("occupancy_entropy_sample_28")], 1e-9);
        let coarse = occupancy(&samples, &references, 12).unwrap();
        assert_eq!(coarse.nodes as f64, number("cells_12"));
        same("jsd at 12", &[coarse.jsd], &[number("jsd_resolution_12")], 1e-9);
        let half = |name: &str| Clouds::new("test", &(raw(&format!("{how}.{name}")) * 0.5).unwrap()).unwrap();
        let halved = occupancy(&half("sample"), &half("ref"), 28).unwrap();
        same("jsd at half size", &[halved.jsd], &[number("jsd_half_scale")], 1e-9);
        assert!(
            filled.error > 0.0 && found.mmd_error > 0.0 && found.coverage_error > 0.0 && found.accuracy_error > 0.0
        );
    }
}

#[test]
fn frames_are_those_of_the_code() {
    for (name, how) in [("unit", "shape_unit"), ("bbox", "shape_bbox")] {
        for part in ["ref", "sample"] {
            let x = raw(&format!("raw.{part}"));
            let got = frame(&x, name).unwrap().normalized(&x).unwrap();
            let got: Vec<f64> = got.flatten_all().unwrap().to_vec1().unwrap();
            same(how, &got, &raw(&format!("{how}.{part}")).flatten_all().unwrap().to_vec1::<f64>().unwrap(), 1e-10);
        }
    }
    // factors of the unit frame, and one size for the whole set
    let x = raw("raw.ref");
    let size = |name: &str| frame(&x, name).unwrap().scale.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let unit = size("unit");
    same("half", &size("half"), &unit.iter().map(|s| s * 2.0).collect::<Vec<_>>(), 1e-12);
    same("34", &size("34"), &unit.iter().map(|s| s / 0.75).collect::<Vec<_>>(), 1e-12);
    assert!(size("global").windows(2).all(|w| w[0] == w[1]));
    // one cloud is a set of one
    let one = x.get(0).unwrap();
    let alone = frame(&one, "bbox").unwrap();
    assert_eq!((alone.shift.dims(), alone.scale.dims()), (&[1, 3][..], &[1, 1][..]));
    let e = frame(&Tensor::ones((2, 5, 3), DType::F64, &Device::Cpu).unwrap(), "bbox").unwrap_err().to_string();
    assert!(e.contains("cloud 0 has no extent"), "{e}");
    assert!(frame(&one, "boxx").unwrap_err().to_string().contains("bbox"));
}

#[test]
fn the_chamfer_distance_is_that_of_its_definition() {
    // sizes that are no multiples of vectors, and differ
    for (n, m) in [(1, 1), (3, 8), (37, 50), (64, 5)] {
        for dtype in [DType::F32, DType::F64] {
            let (x, y) = (drawn(1, &[2, n, 3], dtype), drawn(2, &[2, m, 3], dtype));
            let got = chamfer(&Clouds::new("x", &x).unwrap(), &Clouds::new("y", &y).unwrap()).unwrap();
            let rows = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec3::<f64>().unwrap();
            let one_way = |a: &[Vec<f64>], b: &[Vec<f64>]| {
                let square = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| (p - q) * (p - q)).sum::<f64>();
                let near = |p: &Vec<f64>| b.iter().map(|q| square(p, q)).fold(f64::INFINITY, f64::min);
                a.iter().map(near).sum::<f64>() / a.len() as f64
            };
            let wanted: Vec<f64> = rows(&x).iter().zip(&rows(&y)).map(|(a, b)| one_way(a, b) + one_way(b, a)).collect();
            same(&format!("{n} and {m} points"), &got, &wanted, if dtype == DType::F32 { 2e-6 } else { 1e-14 });
            // the loss is the same number, and finds the same points
            let loss: Vec<f64> = chamfer_loss(&x, &y).unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
            same("loss", &loss, &wanted, if dtype == DType::F32 { 2e-6 } else { 1e-14 });
        }
    }
}

#[test]
fn the_nearest_points_are_the_first_of_the_nearest() {
    let y = Tensor::new(&[[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]], &Device::Cpu).unwrap();
    let x = Tensor::new(&[[[0.1, 0.0, 0.0], [0.9, 0.0, 0.0], [0.5, 0.0, 0.0]]], &Device::Cpu).unwrap();
    let (x, y) = (Clouds::new("x", &x).unwrap(), Clouds::new("y", &y).unwrap());
    assert_eq!(nearest(&x, &y), [0, 1, 0]);
}

#[test]
fn the_chamfer_loss_has_the_gradients_of_differences() {
    let (x, y) = (drawn(3, &[2, 9, 3], DType::F64), drawn(4, &[2, 7, 3], DType::F64));
    let (vx, vy) = (grad::variable(&x).unwrap(), grad::variable(&y).unwrap());
    let loss = chamfer_loss(&vx, &vy).unwrap().sum_all().unwrap();
    let grads = grad::grad(&Quiet, &loss, &[vx, vy]).unwrap();
    let (dx, dy) = (drawn(5, &[2, 9, 3], DType::F64), drawn(6, &[2, 7, 3], DType::F64));
    let at = |s: f64| {
        let moved = |t: &Tensor, d: &Tensor| (t + (d * s).unwrap()).unwrap();
        chamfer_loss(&moved(&x, &dx), &moved(&y, &dy)).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let dot = |a: &Tensor, b: &Tensor| (a * b).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
    let (slope, h) = (dot(&grads[0], &dx) + dot(&grads[1], &dy), 1e-6);
    let difference = (at(h) - at(-h)) / (2.0 * h);
    assert!((slope - difference).abs() < 1e-7 * slope.abs().max(1.0), "{slope} {difference}");
}

/// The least cost over all pairings, one by one.
fn least(n: usize, cost: &[f64]) -> f64 {
    fn go(row: usize, n: usize, cost: &[f64], taken: &mut Vec<bool>) -> f64 {
        if row == n {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for j in 0..n {
            if !taken[j] {
                taken[j] = true;
                best = best.min(cost[row * n + j] + go(row + 1, n, cost, taken));
                taken[j] = false;
            }
        }
        best
    }
    go(0, n, cost, &mut vec![false; n])
}

#[test]
fn an_assignment_is_the_best_of_all() {
    for n in 1..=7usize {
        for seed in 0..12u64 {
            let mut cost: Vec<f64> = drawn(seed, &[n * n], DType::F64).to_vec1().unwrap();
            if seed % 3 == 0 {
                // many ties
                cost.iter_mut().for_each(|c| *c = c.round());
            }
            let pairs = assigned(n, &cost).unwrap();
            let mut seen = pairs.clone();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
            let total: f64 = pairs.iter().enumerate().map(|(i, j)| cost[i * n + j]).sum();
            assert!((total - least(n, &cost)).abs() < 1e-12, "{n} {seed}: {total} {}", least(n, &cost));
        }
    }
}

#[test]
fn a_large_assignment_has_prices_that_prove_it() {
    // a pairing is best if no cycle of rows that pass their columns on is cheaper: none of negative length in the exchange graph
    let n = 120;
    let (x, y) = (drawn(7, &[1, n, 3], DType::F64), drawn(8, &[1, n, 3], DType::F64));
    let (a, b) = (x.get(0).unwrap().to_vec2::<f64>().unwrap(), y.get(0).unwrap().to_vec2::<f64>().unwrap());
    let far = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| (p - q) * (p - q)).sum::<f64>().sqrt();
    let cost: Vec<f64> = a.iter().flat_map(|p| b.iter().map(|q| far(p, q)).collect::<Vec<_>>()).collect();
    let pairs = assigned(n, &cost).unwrap();
    // Bellman and Ford: row i takes the column of row k
    let mut distance = vec![0.0f64; n];
    for _ in 0..n {
        for i in 0..n {
            for k in 0..n {
                let step = cost[i * n + pairs[k]] - cost[k * n + pairs[k]];
                distance[i] = distance[i].min(distance[k] + step);
            }
        }
    }
    let before = distance.clone();
    for i in 0..n {
        for k in 0..n {
            let step = cost[i * n + pairs[k]] - cost[k * n + pairs[k]];
            assert!(before[k] + step > before[i] - 1e-9, "a cheaper exchange from {k} to {i}");
        }
    }
    let total: f64 = pairs.iter().enumerate().map(|(i, j)| cost[i * n + j]).sum::<f64>() / n as f64;
    let d = earth_mover(&Clouds::new("x", &x).unwrap(), &Clouds::new("y", &y).unwrap()).unwrap();
    assert!((d[0] - total).abs() < 1e-12);
    // itself in another order is at no distance
    let order: Vec<u32> = (0..n as u32).rev().collect();
    let turned = x.get(0).unwrap().index_select(&Tensor::new(order, &Device::Cpu).unwrap(), 0).unwrap();
    let same = earth_mover(&Clouds::new("x", &x).unwrap(), &Clouds::new("y", &turned).unwrap()).unwrap();
    assert!(same[0] < 1e-12);
}

#[test]
fn what_is_no_cloud_is_named() {
    let new = |t: &Tensor| Clouds::new("metric::x", t).err().map(|e| e.to_string()).unwrap_or_default();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    assert!(new(&zeros(&[4, 5, 2])).contains("expected clouds [B, N, 3]"));
    assert!(new(&zeros(&[0, 5, 3])).contains("there are no points"));
    assert!(new(&zeros(&[5, 0, 3])).contains("there are no points"));
    assert!(new(&zeros(&[2, 2, 5, 3])).contains("expected clouds"));
    let mut bad = vec![0f32; 2 * 4 * 3];
    bad[4 * 3 + 2 * 3 + 1] = f32::NAN;
    let e = new(&Tensor::from_vec(bad, (2, 4, 3), &Device::Cpu).unwrap());
    assert!(e.contains("point 2 of cloud 1 is not finite"), "{e}");
    let (two, three) = (Clouds::new("x", &zeros(&[2, 4, 3])).unwrap(), Clouds::new("x", &zeros(&[3, 5, 3])).unwrap());
    assert!(chamfer(&two, &three).unwrap_err().to_string().contains("2 and 3 clouds cannot be paired"));
    assert!(earth_mover(&two, &two).is_ok());
    let e = distances(&two, &three, Distance::EarthMover).unwrap_err().to_string();
    assert!(e.contains("not of 4 and 5"), "{e}");
    let e = compare(&two, &two, Distance::Chamfer, 4).unwrap_err().to_string();
    assert!(e.contains("4 neighbours among 2 samples and 2 references"), "{e}");
    assert!(occupancy(&two, &two, 1).unwrap_err().to_string().contains("from 2 to 128"));
}
