//! Networks of docking against numbers from DiffDock's code: e3nn's products, the score model, the confidence model, their gradients.
use super::helpers::{fixture, read, values};
use candle_core::{DType, Device, Tensor};
use ld3sh::files::complex::{Atoms, Complex, Ligand, Receptor};
use ld3sh::geometry::wigner::joint;
use ld3sh::geometry::{Motion, Torsions, Turn, Vec3};
use ld3sh::model::{self, Source};
use ld3sh::nets::docking::{Confidence, Level, Score};
use ld3sh::nets::family::{Part, Parts};
use ld3sh::nets::kernels::irreps::{Irrep, Irreps, connected, full, weights, width};
use ld3sh::nets::kernels::{
    Arrive, Bumps, Categories, Coupled, Directed, Edgewise, Frozen, Gather, Harmonics, Length, Spread, View, Widen,
    apply,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

pub type Named = HashMap<String, Tensor>;

/// Metadata of a fixture: the arguments of the network.
pub fn arguments(name: &str) -> Value {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
    let mut out = json!({});
    for (key, text) in header["__metadata__"].as_object().unwrap() {
        let text = text.as_str().unwrap();
        out[key] = match text {
            "True" => json!(true),
            "False" => json!(false),
            _ => text.parse::<f64>().map_or(json!(text), |v| json!(v)),
        };
    }
    out
}

/// A converted file of a fixture's weights.
pub fn written(io: &Named, parameters: &Value) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docking.safetensors");
    let own: Named = io.iter().filter_map(|(n, t)| Some((n.strip_prefix("w.")?.to_string(), t.clone()))).collect();
    let metadata = [("docking".to_string(), parameters.to_string())].into();
    safetensors::serialize_to_file(&own, Some(metadata), &path).unwrap();
    (dir, path)
}

pub fn load(path: &Path, dtype: DType) -> ld3sh::Result<Parts> {
    model::load(&Source::Path(path.into()), &Device::Cpu, dtype)
}

pub fn score(name: &str, dtype: DType) -> (Score, Named) {
    let io = read(name);
    let (_dir, path) = written(&io, &arguments(name));
    match load(&path, dtype).unwrap().into_values().next() {
        Some(Part::Score(net)) => (net, io),
        _ => panic!("no score model"),
    }
}

fn confidence(dtype: DType) -> (Confidence, Named) {
    let name = "docking/confidence.safetensors";
    let io = read(name);
    let (_dir, path) = written(&io, &arguments(name));
    match load(&path, dtype).unwrap().into_values().next() {
        Some(Part::Confidence(net)) => (net, io),
        _ => panic!("no confidence model"),
    }
}

pub fn points(t: &Tensor) -> Vec<Vec3> {
    values(t).chunks(3).map(|c| [c[0], c[1], c[2]]).collect()
}

fn whole(t: &Tensor) -> Vec<usize> {
    values(t).into_iter().map(|v| v as usize).collect()
}

/// Rows of the graph `g` of a batch, and the number of the first.
fn span(batch: &Tensor, g: usize) -> (usize, usize) {
    let all = whole(batch);
    let first = all.iter().position(|b| *b == g).unwrap();
    (first, all.iter().filter(|b| **b == g).count())
}

pub fn part(t: &Tensor, (first, n): (usize, usize)) -> Tensor {
    t.narrow(0, first, n).unwrap()
}

/// Edges whose receiver is in a span, numbered from its start and from that of the other end's.
fn edges(t: &Tensor, to: (usize, usize), from: (usize, usize)) -> [Vec<usize>; 2] {
    let all = whole(t);
    let (a, b) = all.split_at(all.len() / 2);
    let inside = a.iter().zip(b).filter(|(i, _)| (to.0..to.0 + to.1).contains(i));
    inside.map(|(i, j)| (i - to.0, j - from.0)).unzip::<_, _, Vec<_>, Vec<_>>().into()
}

/// Complex `g` of a fixture.
pub fn complex(io: &Named, g: usize) -> Complex {
    let (lig, rec) = (span(&io["lig.batch"], g), span(&io["rec.batch"], g));
    let bonds = edges(&io["lig.edge_index"], lig, lig);
    let all = whole(&io["lig.edge_index"]);
    let mine: Vec<usize> = (0..all.len() / 2).filter(|e| (lig.0..lig.0 + lig.1).contains(&all[*e])).collect();
    let kinds: Vec<usize> =
        values(&io["lig.edge_attr"]).chunks(4).map(|row| row.iter().position(|v| *v == 1.0).unwrap()).collect();
    let mask = whole(&io["lig.edge_mask"]);
    let marked: Vec<usize> = mine.iter().enumerate().filter(|(_, e)| mask[**e] == 1).map(|(k, _)| k).collect();
    let rotate = whole(&io[&format!("lig.mask_rotate.{g}")]);
    let turn = |(e, row): (&usize, &[usize])| Turn {
        from: bonds[0][*e],
        to: bonds[1][*e],
        moved: (0..lig.1).filter(|k| row[*k] == 1).collect(),
    };
    let torsions = Torsions::new(lig.1, marked.iter().zip(rotate.chunks(lig.1)).map(turn).collect()).unwrap();
    let rows = part(&io["rec.x"], rec);
    let columns = rows.dim(1).unwrap();
    let language = (columns > 1).then(|| values(&rows.narrow(1, 1, columns - 1).unwrap().contiguous().unwrap()));
    let atoms = io.get("atom.batch").map(|batch| {
        let atom = span(batch, g);
        Atoms {
            x: whole(&part(&io["atom.x"], atom)),
            positions: points(&part(&io["atom.pos"], atom)),
            edges: edges(&io["atom.edge_index"], atom, atom),
            residue: edges(&io["atom_rec.edge_index"], atom, rec)[1].clone(),
        }
    });
    Complex {
        ligand: Ligand {
            x: whole(&part(&io["lig.x"], lig)),
            positions: points(&part(&io["lig.pos"], lig)),
            bonds,
            kinds: mine.iter().map(|e| kinds[*e]).collect(),
            torsions,
        },
        receptor: Receptor {
            x: whole(&rows.narrow(1, 0, 1).unwrap().contiguous().unwrap()),
            positions: points(&part(&io["rec.pos"], rec)),
            edges: edges(&io["rec.edge_index"], rec, rec),
            language,
        },
        atoms,
        centre: [0.0; 3],
    }
}

/// The fixture's outputs, and what they are pulled back from, as tangents of each complex.
fn wanted(io: &Named, what: &str) -> Vec<Motion> {
    let (tr, rot, tor) = (&io[&format!("{what}.tr")], &io[&format!("{what}.rot")], values(&io[&format!("{what}.tor")]));
    let mut rest = &tor[..];
    (0..tr.dim(0).unwrap())
        .map(|g| {
            let turns = io[&format!("lig.mask_rotate.{g}")].dim(0).unwrap();
            let (own, after) = rest.split_at(turns);
            rest = after;
            Motion::from_row(&[values(&part(tr, (g, 1))), values(&part(rot, (g, 1))), own.to_vec()].concat())
        })
        .collect()
}

pub fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / most
}

/// What the fixture's network was told, to the last bit: the reference's time embedding, and norms that it drew at random.
fn told(net: &Score, io: &Named, g: usize) -> Level {
    let own = net.level(values(&io["t"])[g]);
    let scales = match net.facts().scaled {
        true => [
            1.0 / values(&io["sigma.tr"])[g],
            values(&io["score_norm.rot"])[g],
            // the reference takes this root in f32
            f64::from((values(&io["score_norm.tor"])[g] as f32).sqrt()),
        ],
        false => [1.0; 3],
    };
    Level { embedding: values(&part(&io["emb.t"], (g, 1))), scales, ..own }
}

/// How far scores and gradients are off in a type, relative to the largest number of each; with the fixture's embedding of time or our own.
fn off(name: &str, dtype: DType, own: bool) -> [f64; 2] {
    let (net, io) = score(name, dtype);
    let (want, bars) = (wanted(&io, "out"), wanted(&io, "grad_out"));
    let mut worst = [0f64; 2];
    for g in 0..want.len() {
        let complex = complex(&io, g);
        let poses = [complex.ligand.positions.clone()];
        let mut level = told(&net, &io, g);
        if own {
            level.embedding = net.level(values(&io["t"])[g]).embedding;
        }
        let (got, pull) = net.linearize(&complex, &poses, &level).unwrap();
        assert_eq!(net.eval(&complex, &poses, &level).unwrap(), got);
        let (a, b) = (&got[0], &want[g]);
        for (a, b) in [(&a.shift[..], &b.shift[..]), (&a.turn, &b.turn), (&a.torsions, &b.torsions)] {
            worst[0] = worst[0].max(apart(a, b));
        }
        let grad = pull(&bars[g..=g]).unwrap().remove(0);
        let want = values(&part(&io["grad.lig_pos"], span(&io["lig.batch"], g)));
        worst[1] = worst[1].max(apart(grad.as_flattened(), &want));
    }
    worst
}

pub const SCORES: [&str; 2] = ["docking/score_a.safetensors", "docking/score_b.safetensors"];

#[test]
fn scores_are_diffdocks() {
    for name in SCORES {
        let exact = off(name, DType::F64, false);
        assert!(exact[0] < 1e-10 && exact[1] < 1e-10, "{name}: {exact:?}");
        let fast = off(name, DType::F32, false);
        assert!(fast[0] < 2e-5 && fast[1] < 1e-4, "{name}: {fast:?}");
        // sines of thousands of radians in f32, which no two libraries have alike
        let own = off(name, DType::F64, true);
        assert!(own[0] < 5e-4 && own[1] < 5e-4, "{name}: {own:?}");
    }
}

#[test]
fn what_scores_are_told_is_diffdocks() {
    for name in SCORES {
        let (net, io) = score(name, DType::F64);
        for (g, t) in values(&io["t"]).into_iter().enumerate() {
            let (own, given) = (net.level(t), told(&net, &io, g));
            assert!(apart(&own.embedding, &given.embedding) < 1e-3);
            let sigmas = net.facts().sigmas(t);
            let want = ["tr", "rot", "tor"].map(|p| values(&io[&format!("sigma.{p}")])[g]);
            assert!(apart(&sigmas, &want) < 1e-12, "{sigmas:?} {want:?}");
            let near = |a: f64, b: f64, by: f64| assert!((a / b - 1.0).abs() < by, "{a} against {b}");
            near(own.scales[0], given.scales[0], 1e-12);
            near(own.scales[1], given.scales[1], 1e-6);
            near(own.scales[2], given.scales[2], 2.5e-2);
        }
    }
}

#[test]
fn confidences_are_diffdocks() {
    for (dtype, value, slope) in [(DType::F64, 1e-12, 1e-10), (DType::F32, 1e-6, 1e-4)] {
        let (net, io) = confidence(dtype);
        let (want, bars) = (values(&io["out.confidence"]), values(&io["grad_out.confidence"]));
        for g in 0..2 {
            let complex = complex(&io, g);
            let poses = [complex.ligand.positions.clone()];
            let (got, pull) = net.linearize(&complex, &poses).unwrap();
            assert_eq!(net.eval(&complex, &poses).unwrap(), got);
            assert!((got[0][0] - want[g]).abs() < value * want[g].abs().max(1.0), "{} against {}", got[0][0], want[g]);
            let grad = pull(&[vec![bars[g]]]).unwrap().remove(0);
            let want = values(&part(&io["grad.lig_pos"], span(&io["lig.batch"], g)));
            let off = apart(grad.as_flattened(), &want);
            assert!(off < slope, "gradient {g}: {off}");
        }
    }
}

/// Irreps as e3nn writes them.
fn irreps(text: &str) -> Irreps {
    let one = |part: &str| {
        let (mul, kind) = part.split_once('x').unwrap();
        let (l, parity) = kind.split_at(kind.len() - 1);
        Irrep::new(mul.parse().unwrap(), l.parse().unwrap(), parity == "o")
    };
    text.split('+').map(one).collect()
}

fn narrow(t: &Tensor) -> Vec<f32> {
    values(t).into_iter().map(|v| v as f32).collect()
}

/// An operation on plain buffers, as one batch: its result, and the gradients for a cotangent.
fn plain(op: &dyn Frozen, inputs: &[&Tensor], cot: Option<&Tensor>) -> (Vec<f32>, Vec<Vec<f32>>) {
    let all: Vec<(Vec<f32>, Vec<usize>)> = inputs.iter().map(|t| (narrow(t), [&[1], t.dims()].concat())).collect();
    let views: Vec<View> = all.iter().map(|(data, dims)| View { data, dims }).collect();
    let dims = op.dims(&views.iter().map(|v| v.dims).collect::<Vec<_>>()).unwrap();
    let mut runs = [false, true].map(|par| {
        let mut out = vec![f32::NAN; dims.iter().product()];
        op.run(&views, &mut out, par);
        let grads = cot.map_or(vec![], |c| op.pull(&views, &narrow(c), par));
        (out, grads)
    });
    assert_eq!(runs[0], runs[1], "{}: threads change bits", op.name());
    std::mem::take(&mut runs[0])
}

/// The same composed of candle's operations, in f64.
fn wide(op: Arc<dyn Frozen>, inputs: &[&Tensor], cot: Option<&Tensor>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let var =
        |t: &&Tensor| candle_core::Var::from_tensor(&t.to_dtype(DType::F64).unwrap().unsqueeze(0).unwrap()).unwrap();
    let vars: Vec<_> = inputs.iter().map(var).collect();
    let out = apply(&op, &vars.iter().map(|v| v.as_tensor()).collect::<Vec<_>>()).unwrap();
    let grads = cot.map_or(vec![], |c| {
        let sum = (&out * c.to_dtype(DType::F64).unwrap().reshape(out.shape()).unwrap()).unwrap().sum_all().unwrap();
        let grads = sum.backward().unwrap();
        vars.iter().map(|v| grads.get(v).map_or(vec![0.0; v.elem_count()], values)).collect()
    });
    (values(&out), grads)
}

fn off32(a: &[f32], b: &[f64]) -> f64 {
    apart(&a.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), b)
}

#[test]
fn products_are_e3nns() {
    let io = read("docking/e3nn.safetensors");
    let told: Value = serde_json::from_str(&std::fs::read_to_string(fixture("docking/e3nn.json")).unwrap()).unwrap();
    for (name, t) in io.iter().filter(|(n, _)| n.starts_with("w3j.")) {
        let l: Vec<usize> = name[4..].chars().map(|c| c.to_digit(10).unwrap() as usize).collect();
        let got = joint(l[0], l[1], l[2]).unwrap();
        let off = got.iter().zip(values(t)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-12, "{name}: {off}");
    }
    assert!(joint(1, 1, 3).is_none());
    for k in 0..8 {
        let t = |part: &str| &io[&format!("fctp{k}.{part}")];
        let about = &told[format!("fctp{k}")];
        let [a, s, out] = ["irreps_in1", "irreps_in2", "irreps_out"].map(|n| irreps(about[n].as_str().unwrap()));
        if s.iter().any(|i| i.l > 2 && i.mul != 1) || out.iter().any(|i| i.l > 2) {
            continue;
        }
        let paths = connected(&a, &s, &out);
        // the weights themselves are given: a linear map that changes nothing makes them
        let n = t("w").dim(1).unwrap();
        let one = Tensor::eye(n, DType::F64, &Device::Cpu).unwrap();
        let none = Tensor::zeros(n, DType::F64, &Device::Cpu).unwrap();
        let sizes = [width(&a), width(&s), width(&out)];
        let op = Arc::new(Edgewise::new(paths, sizes, &one, none, String::new()).unwrap());
        let inputs = [t("w"), t("x"), t("y")];
        let (out, grads) = wide(op.clone(), &inputs, Some(t("grad_out")));
        assert!(apart(&out, &values(t("out"))) < 1e-12, "fctp{k}");
        let (fast, fast_grads) = plain(&*op, &inputs, Some(t("grad_out")));
        assert!(off32(&fast, &out) < 1e-6, "fctp{k} in f32");
        for (which, name) in ["grad_w", "grad_x", "grad_y"].iter().enumerate() {
            assert!(apart(&grads[which], &values(t(name))) < 1e-12, "fctp{k} {name}");
            assert!(off32(&fast_grads[which], &grads[which]) < 1e-6, "fctp{k} {name} in f32");
        }
    }
}

#[test]
fn products_have_the_published_sizes() {
    let sh = irreps("1x0e+1x1o+1x2e");
    let rounds = ["48x0e", "48x0e+10x1o", "48x0e+10x1o+10x1e", "48x0e+10x1o+10x1e+48x0o"];
    let count = |a: &str, s: &[Irrep], out: &str| weights(&connected(&irreps(a), s, &irreps(out)));
    let sizes = [0, 1, 2, 3].map(|k| count(rounds[k], &sh, rounds[(k + 1).min(3)]));
    assert_eq!(sizes, [2784, 3564, 4344, 7128]);
    assert_eq!(count(rounds[3], &sh, "2x1o+2x1e"), 312);
    assert_eq!(count(rounds[3], &full(&sh, &irreps("1x2e"), 2).1, "48x0o+48x0e"), 6528);
}

#[test]
fn full_products_are_e3nns() {
    let io = read("docking/e3nn.safetensors");
    let sh = irreps("1x0e+1x1o+1x2e");
    let (paths, kinds) = full(&sh, &irreps("1x2e"), 2);
    assert_eq!(kinds, irreps("1x0e+1x1o+1x1e+1x2o+1x2e+1x2e"));
    let op = Arc::new(Coupled::new(paths, [9, 5, 22]));
    // kinds 3 and 4 come last, and are not made
    let (want, bar) = (io["full.out"].narrow(1, 0, 22).unwrap(), io["full.grad_out"].narrow(1, 0, 22).unwrap());
    let (bar, inputs) = (bar.contiguous().unwrap(), [&io["full.x"], &io["full.y"]]);
    let (out, grads) = wide(op.clone(), &inputs, Some(&bar));
    assert!(apart(&out, &values(&want.contiguous().unwrap())) < 1e-12);
    let (fast, fast_grads) = plain(&*op, &inputs, Some(&bar));
    assert!(off32(&fast, &out) < 1e-6);
    (0..2).for_each(|k| assert!(off32(&fast_grads[k], &grads[k]) < 1e-6));
}

#[test]
fn harmonics_are_e3nns() {
    let io = read("docking/e3nn.safetensors");
    let (v, want) = (&io["sh.vectors"], &io["sh.component.normalized"]);
    let op = Arc::new(Harmonics);
    let first = v.narrow(0, 0, 20).unwrap();
    let (out, _) = wide(op.clone(), &[v], None);
    assert!(apart(&out, &values(want)) < 1e-12);
    let (out, grads) = wide(op.clone(), &[&first], Some(&io["sh.grad_y"]));
    assert!(apart(&grads[0], &values(&io["sh.grad_vectors"])) < 1e-12);
    let (fast, fast_grads) = plain(&*op, &[&first], Some(&io["sh.grad_y"]));
    assert!(off32(&fast, &out) < 1e-6 && off32(&fast_grads[0], &grads[0]) < 1e-6);
    // a vector without direction has no gradient, and is no NaN
    let none = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
    let bar = Tensor::ones((2, 9), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(wide(op.clone(), &[&none], Some(&bar)).1[0], [0.0; 6]);
    assert_eq!(plain(&*op, &[&none], Some(&bar)).1[0], [0.0; 6]);
}

/// Numbers in [-1, 1) that differ by name.
fn some(name: &str, shape: &[usize]) -> Tensor {
    super::helpers::uniform(name, shape)
}

#[test]
fn operations_of_edges_run_alike_everywhere() {
    let ids = |all: &[f64]| Tensor::new(all, &Device::Cpu).unwrap();
    let (nodes, edges) = (some("nodes", &[4, 5]), some("edges", &[6, 5]));
    // one leads nowhere
    let to = ids(&[2.0, 0.0, 2.0, 4.0, 2.0, 0.0]);
    let v = some("vectors", &[6, 3]);
    let tables = [some("a", &[4, 5]), some("b", &[2, 5])].to_vec();
    let x = ids(&[0.0, 1.0, 3.0, 0.0, 9.0, 1.0]).reshape((3, 2)).unwrap();
    let cases: Vec<(Arc<dyn Frozen>, Vec<&Tensor>)> = vec![
        (Arc::new(Gather), vec![&nodes, &to]),
        (Arc::new(Arrive), vec![&edges, &to, &nodes]),
        (Arc::new(Widen(9)), vec![&nodes]),
        (Arc::new(Bumps { range: [0.0, 2.0], count: 7 }), vec![&v]),
        (Arc::new(Length), vec![&v]),
        (Arc::new(Categories::new(tables).unwrap()), vec![&x]),
    ];
    for (op, inputs) in cases {
        let n = wide(op.clone(), &inputs, None).0.len();
        let bar = some(op.name(), &[n]);
        let (out, grads) = wide(op.clone(), &inputs, Some(&bar));
        let (fast, fast_grads) = plain(&*op, &inputs, Some(&bar));
        assert!(off32(&fast, &out) < 1e-6, "{}", op.name());
        for (a, b) in fast_grads.iter().zip(&grads).filter(|(_, b)| b.iter().any(|v| *v != 0.0)) {
            assert!(off32(a, b) < 1e-6, "gradient of {}", op.name());
        }
    }
    // nothing arrived at nodes 1 and 3
    let (mean, _) = plain(&Arrive, &[&edges, &to, &nodes], None);
    assert!(mean[5..10].iter().chain(&mean[15..]).all(|v| *v == 0.0));
    let row = some("row", &[5]);
    let (spread, grads) = plain(&Spread, &[&row, &nodes], Some(&Tensor::ones(20, DType::F64, &Device::Cpu).unwrap()));
    assert_eq!((&spread[5..10], &grads[0][..]), (&narrow(&row)[..], &[4.0; 5][..]));
}

#[test]
fn directions_by_lengths() {
    let (v, s) = (some("v", &[4, 3]), some("s", &[4, 1]));
    let bar = some("bar", &[12]);
    let op = Arc::new(Directed);
    let (out, grads) = wide(op.clone(), &[&v, &s], Some(&bar));
    let (fast, fast_grads) = plain(&*op, &[&v, &s], Some(&bar));
    assert!(off32(&fast, &out) < 1e-6 && (0..2).all(|k| off32(&fast_grads[k], &grads[k]) < 1e-6));
    let none = v.zeros_like().unwrap();
    assert_eq!(plain(&*op, &[&none, &s], Some(&bar)).0, [0.0; 12]);
    assert!(wide(op, &[&none, &s], Some(&bar)).1.iter().flatten().all(|v| v.is_finite()));
}

/// The first complex of the published kind, its score model, and a noise.
fn first(dtype: DType) -> (Score, Complex, Level) {
    let (net, io) = score(SCORES[0], dtype);
    let level = net.level(0.4);
    (net, complex(&io, 0), level)
}

fn shaken(pose: &[Vec3], name: &str, by: f64) -> Vec<Vec3> {
    let noise = values(&some(name, &[pose.len(), 3]));
    pose.iter().zip(noise.chunks(3)).map(|(p, n)| [0, 1, 2].map(|k| p[k] + by * n[k])).collect()
}

#[test]
fn poses_are_evaluated_by_themselves() {
    for dtype in [DType::F32, DType::F64] {
        let (net, complex, level) = first(dtype);
        let poses: Vec<Vec<Vec3>> =
            (0..5).map(|k| shaken(&complex.ligand.positions, &format!("pose {k}"), 3.0)).collect();
        let (all, pull) = net.linearize(&complex, &poses, &level).unwrap();
        let bars: Vec<Motion> = (0..5).map(|k| Motion::from_row(&values(&some(&format!("bar {k}"), &[11])))).collect();
        let grads = pull(&bars).unwrap();
        for (k, pose) in poses.iter().enumerate() {
            let (one, pull) = net.linearize(&complex, std::slice::from_ref(pose), &level).unwrap();
            assert_eq!(one[0], all[k]);
            assert_eq!(pull(&bars[k..=k]).unwrap()[0], grads[k]);
        }
    }
}

#[test]
fn gradients_of_scores_match_differences() {
    let (net, complex, level) = first(DType::F64);
    // near enough for edges to stay as they are
    let start = &complex.ligand.positions;
    let (_, pull) = net.linearize(&complex, std::slice::from_ref(start), &level).unwrap();
    let bar = Motion::from_row(&values(&some("bar", &[11])));
    let grad = pull(std::slice::from_ref(&bar)).unwrap().remove(0);
    let h = 1e-5;
    let at = |h: f64| {
        let got = net.eval(&complex, &[shaken(start, "direction", h)], &level).unwrap().remove(0);
        got.row().iter().zip(bar.row()).map(|(a, b)| a * b).sum::<f64>()
    };
    let want = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
    let got: f64 =
        grad.as_flattened().iter().zip(values(&some("direction", &[start.len(), 3]))).map(|(a, b)| a * b).sum();
    assert!((got / want - 1.0).abs() < 1e-7, "{got} against {want}");
}

#[test]
fn scores_turn_with_the_complex() {
    let (net, complex, level) = first(DType::F64);
    let r = ld3sh::geometry::rotation([0.4, -1.3, 0.8]);
    let there = |all: &[Vec3]| -> Vec<Vec3> {
        let at = |p: &Vec3| ld3sh::geometry::vectors::add(ld3sh::geometry::vectors::times(&r, *p), [3.0, -7.0, 11.0]);
        all.iter().map(at).collect()
    };
    let mut turned = complex.clone();
    turned.receptor.positions = there(&complex.receptor.positions);
    let pose = &complex.ligand.positions;
    let here = net.eval(&complex, std::slice::from_ref(pose), &level).unwrap().remove(0);
    let moved = net.eval(&turned, &[there(pose)], &level).unwrap().remove(0);
    let turn = |v: Vec3| ld3sh::geometry::vectors::times(&r, v);
    assert!(apart(&moved.shift, &turn(here.shift)) < 1e-10);
    assert!(apart(&moved.turn, &turn(here.turn)) < 1e-10);
    assert!(apart(&moved.torsions, &here.torsions) < 1e-10);
}

#[test]
fn odd_ligands_have_scores() {
    for dtype in [DType::F32, DType::F64] {
        let (net, complex, level) = first(dtype);
        let finite = |complex: &Complex, turns: usize| {
            let poses = [complex.ligand.positions.clone()];
            let (got, pull) = net.linearize(complex, &poses, &level).unwrap();
            assert_eq!(got[0].torsions.len(), turns);
            let grad = pull(&got).unwrap().remove(0);
            assert!(grad.iter().flatten().all(|v| v.is_finite()));
            got
        };
        // no bond that turns
        let mut stiff = complex.clone();
        stiff.ligand.torsions = Torsions::new(stiff.ligand.positions.len(), vec![]).unwrap();
        let (stiff, all) = (finite(&stiff, 0), finite(&complex, 5));
        assert_eq!((stiff[0].shift, stiff[0].turn), (all[0].shift, all[0].turn));
        // out of the receptor's reach
        let mut far = complex.clone();
        far.ligand.positions.iter_mut().for_each(|p| p[0] += 1e4);
        finite(&far, 5);
        // a single atom, and a receptor of one residue, so that nobody hears anybody
        let mut lone = complex.clone();
        lone.ligand.x.truncate(16);
        lone.ligand.positions.truncate(1);
        lone.ligand.bonds = Default::default();
        lone.ligand.kinds.clear();
        lone.ligand.torsions = Torsions::new(1, vec![]).unwrap();
        finite(&lone, 0);
        lone.receptor.x.truncate(1);
        lone.receptor.positions.truncate(1);
        lone.receptor.edges = Default::default();
        lone.receptor.language.iter_mut().for_each(|l| l.truncate(1280));
        lone.ligand.positions[0][0] += 1e4;
        finite(&lone, 0);
    }
}

#[test]
fn folders_of_diffdock_are_read() {
    let io = read(SCORES[1]);
    let (dir, path) = written(&io, &json!({}));
    let plain = dir.path().join("model.safetensors");
    let own: Named = io.iter().filter_map(|(n, t)| Some((n.strip_prefix("w.")?.to_string(), t.clone()))).collect();
    safetensors::serialize_to_file(&own, None, &plain).unwrap();
    let mut text = String::from("# of a training run\ncache_ids_to_combine:\n- '1'\n- '2'\n");
    for (key, value) in arguments(SCORES[1]).as_object().unwrap() {
        text.push_str(&format!("{key}: {}\n", value.to_string().trim_matches('"')));
    }
    std::fs::write(dir.path().join("model_parameters.yml"), &text).unwrap();
    let (want, _) = score(SCORES[1], DType::F32);
    for path in [dir.path(), &plain] {
        match load(path, DType::F32).unwrap().into_values().next() {
            Some(Part::Score(net)) => assert_eq!(net.facts(), want.facts()),
            _ => panic!("no score model"),
        }
    }
    // a converted file has the parameters with it, wherever it goes
    let elsewhere = tempfile::tempdir().unwrap();
    let converted = elsewhere.path().join("converted.safetensors");
    let run =
        std::process::Command::new(env!("CARGO_BIN_EXE_ld3sh")).arg("convert").args([&plain, &converted]).output();
    assert!(run.unwrap().status.success());
    match load(&converted, DType::F32).unwrap().into_values().next() {
        Some(Part::Score(net)) => assert_eq!(net.facts(), want.facts()),
        _ => panic!("no score model"),
    }
    let said = |path: &Path| load(path, DType::F32).err().unwrap().to_string();
    // a file's own metadata count before what is beside it; here they are empty
    let without = said(&path);
    assert!(without.contains("has no `ns`"), "{without}");
    std::fs::write(dir.path().join("model_parameters.yml"), text.replace("nv: 2", "nv: 3")).unwrap();
    let other = said(&plain);
    assert!(other.contains("has shape") && other.contains("does the model_parameters.yml beside it"), "{other}");
    std::fs::write(dir.path().join("model_parameters.yml"), text.replace("tr_sigma_max: 19.0", "tr_sigma_max: 0.01"))
        .unwrap();
    assert!(said(&plain).contains("`tr_sigma_max` of model_parameters.yml must be above"), "{}", said(&plain));
    std::fs::write(dir.path().join("model_parameters.yml"), "what is this\n").unwrap();
    assert!(said(&plain).contains("line 1 of model_parameters.yml"));
    std::fs::remove_file(dir.path().join("model_parameters.yml")).unwrap();
    assert!(said(&plain).contains("needs `model_parameters.yml`, which is not beside it"));
    let e = model::denoiser(&Source::Path(written(&io, &arguments(SCORES[1])).1), &Device::Cpu, DType::F32).err();
    assert!(e.is_some());
    // half precision, and a file that lacks a tensor
    assert!(load(&path, DType::F16).err().unwrap().to_string().contains("run in f32 and f64"));
    let mut short = io.clone();
    short.remove("w.tor_final_layer.3.weight");
    let (_dir, path) = written(&short, &arguments(SCORES[1]));
    assert!(said(&path).contains("`tor_final_layer.3.weight` is missing"), "{}", said(&path));
    let mut damaged = read(SCORES[0]);
    let name = "lig_conv_layers.1.batch_norm.running_var";
    let negative = (&damaged[&format!("w.{name}")] * -1.0).unwrap();
    damaged.insert(format!("w.{name}"), negative);
    let (_dir, path) = written(&damaged, &arguments(SCORES[0]));
    assert!(said(&path).contains(&format!("`{name}` holds")), "{}", said(&path));
}

#[test]
fn networks_name_what_a_complex_lacks() {
    let (net, mut complex, level) = first(DType::F32);
    complex.receptor.language = None;
    let poses = [complex.ligand.positions.clone()];
    assert!(net.eval(&complex, &poses, &level).unwrap_err().to_string().contains("rec.language"));
    let (net, _) = confidence(DType::F32);
    let (_, complex, _) = first(DType::F32);
    assert!(net.eval(&complex, &poses).unwrap_err().to_string().contains("looks at the protein's atoms"));
}
