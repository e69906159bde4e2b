//! Graphs, whatever the family: a toy one is loaded, run, pulled back, trained and printed.
use super::toy;
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::model::{Source, load_by};
use ld3sh::nets::family::{FAMILIES, Family, Part, Role, denoiser};
use ld3sh::nets::network::Net;
use ld3sh::nets::weights::{Names, Random};
use ld3sh::tensor::grad;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;

/// A row more.
fn all() -> Vec<Family> {
    [FAMILIES, &[toy::FAMILY]].concat()
}

fn random(name: &str, dims: &[usize]) -> Tensor {
    super::helpers::uniform(name, dims)
}

/// A checkpoint of the toy's, with weights by name.
fn checkpoint(change: impl Fn(&mut BTreeMap<String, Tensor>)) -> (TempDir, PathBuf) {
    let mut names = Names::default();
    toy::denoiser(&mut names, 4, DType::F32).unwrap();
    names.0.push(("decoder.conv.weight".into(), vec![3, 2, 1, 1]));
    names.0.push(("decoder.conv.bias".into(), vec![3]));
    let each = names.0.into_iter().map(|(n, dims)| (n.clone(), random(&n, &dims).to_dtype(DType::F32).unwrap()));
    let mut tensors: BTreeMap<String, Tensor> = each.collect();
    change(&mut tensors);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("toy.safetensors");
    let metadata = [("toy.width".to_string(), "4".to_string())].into();
    safetensors::serialize_to_file(&tensors, Some(metadata), &path).unwrap();
    (dir, path)
}

fn net(dtype: DType) -> Net {
    let (_dir, path) = checkpoint(|_| {});
    denoiser(load_by(&all(), &Source::Path(path), &Device::Cpu, dtype).unwrap()).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    super::helpers::error(a, b)
}

#[test]
fn a_family_is_a_folder_and_a_row() {
    let (_dir, path) = checkpoint(|_| {});
    let parts = load_by(&all(), &Source::Path(path.clone()), &Device::Cpu, DType::F32).unwrap();
    let Some(Part::Graph(decoder)) = parts.get(&Role::Decoder) else { panic!("no decoder") };
    let z = random("z", &[3, 2, 5, 7]);
    let image = decoder.forward(&[("z", &z)]).unwrap().remove(0);
    assert_eq!((image.dims(), image.dtype()), (&[3, 3, 5, 7][..], DType::F64));
    let net = denoiser(parts).unwrap();
    assert_eq!(net.describe(), "toy MLP of pixels 4×4×2, unconditional");
    assert_eq!(net.conditions(), ["text"]);
    net.denoiser().unwrap();
    // who does not know the family says what is there
    let e = load_by(FAMILIES, &Source::Path(path), &Device::Cpu, DType::F32).err().unwrap();
    assert!(e.to_string().contains("has no `precond`"), "{e}");
}

#[test]
fn damaged_files_name_the_tensor() {
    for (change, part) in [
        ((|t| t.remove("denoiser.norm.weight")) as fn(&mut BTreeMap<String, Tensor>) -> Option<Tensor>, "is missing"),
        (|t| t.insert("denoiser.out.bias".into(), random("b", &[3])), "expected [2]"),
        (|t| t.insert("denoiser.out.bias".into(), Tensor::new(&[f64::NAN, 0.0], &Device::Cpu).unwrap()), "NaN"),
    ] {
        let (_dir, path) = checkpoint(|t| {
            change(t);
        });
        let e = load_by(&all(), &Source::Path(path), &Device::Cpu, DType::F32).err().unwrap();
        assert!(e.to_string().contains(part) && e.to_string().contains("denoiser."), "{e}");
    }
}

#[test]
fn both_ways_of_running_agree_and_conditions_may_be_left_out() {
    let (fast, composed) = (net(DType::F32), net(DType::F64));
    let (x, c, cot) = (random("x", &[5, 2, 4, 4]), random("c", &[5]), random("cot", &[5, 2, 4, 4]));
    let text = |t: Tensor| Cond::Named([("text".to_string(), t)].into());
    for cond in [Cond::None, text(random("text", &[5, 3]))] {
        let run = |net: &Net| {
            let (y, pull) = net.linearize(&Quiet, &x, &c, &cond).unwrap();
            let (gx, gc) = pull(&Quiet, &cot).unwrap();
            [y, gx, gc]
        };
        for (a, b) in run(&fast).iter().zip(&run(&composed)) {
            assert!(difference(a, b) < 2e-5, "{}", difference(a, b));
        }
    }
    let with = fast.forward(&Quiet, &x, &c, &text(random("text", &[5, 3]))).unwrap();
    assert!(difference(&with, &fast.forward(&Quiet, &x, &c, &Cond::None).unwrap()) > 1e-3, "the text is heard");
    let e = fast.forward(&Quiet, &x, &c, &Cond::classes(random("rows", &[5, 3]))).err().unwrap();
    assert!(e.to_string().contains("`classes`") && e.to_string().contains("condition"), "{e}");
    let e = fast.forward(&Quiet, &x, &c, &text(random("text", &[4, 3]))).err().unwrap();
    assert!(e.to_string().contains("`text` of shape [5, 3], got [4, 3]"), "{e}");
}

#[test]
fn weights_may_be_inputs_and_have_gradients() {
    let net = net(DType::F64);
    let graph = net.runner().graph();
    let mut weights: BTreeMap<String, Tensor> = BTreeMap::new();
    for w in graph.weights() {
        let t = random(&w.name, &w.dims).to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap();
        weights.insert(w.name.clone(), grad::variable(&t).unwrap());
    }
    let (x, c, text) = (random("x", &[2, 2, 4, 4]), random("c", &[2]), random("text", &[2, 3]));
    let given = [("x", &x), ("c_noise", &c), ("text", &text)];
    let frozen = net.runner().forward(&given).unwrap().remove(0);
    let loss = |weights: &BTreeMap<String, Tensor>| {
        net.runner().trained(&given, weights).unwrap().remove(0).sqr().unwrap().sum_all().unwrap()
    };
    let trained = net.runner().trained(&given, &weights).unwrap().remove(0);
    assert!(difference(&trained.detach(), &frozen) < 1e-12, "the same weights give the same values");
    let wanted: Vec<Tensor> = weights.values().cloned().collect();
    let grads = grad::grad(&Quiet, &loss(&weights), &wanted).unwrap();
    for ((name, w), g) in weights.iter().zip(&grads) {
        let v = random(&format!("{name} direction"), w.dims());
        let h = 1e-5;
        let at = |sign: f64| {
            let moved = (w.detach() + (&v * (sign * h)).unwrap()).unwrap();
            let mut other = weights.clone();
            other.insert(name.clone(), moved);
            loss(&other).to_scalar::<f64>().unwrap()
        };
        let fd = (at(1.0) - at(-1.0)) / (2.0 * h);
        let exact: f64 = (g * &v).unwrap().sum_all().unwrap().to_scalar().unwrap();
        assert!((fd - exact).abs() < 1e-6 * (1.0 + exact.abs()), "{name}: {fd} against {exact}");
    }
    let mut short = weights.clone();
    short.remove("denoiser.in.weight");
    let e = net.runner().trained(&given, &short).err().unwrap();
    assert!(e.to_string().contains("denoiser.in.weight"), "{e}");
}

#[test]
fn a_graph_prints_hashes_and_is_cut() {
    let graph = net(DType::F32).runner().graph().clone();
    let text = graph.to_string();
    for line in [
        "input x [4, 4, 2]",
        "input text [3], or left out",
        "halves = split ([4, 4]) of norm → [4, 4, 4], [4, 4, 4]",
        "gate = silu of halves#1 → [4, 4, 4]",
        "output y = out",
    ] {
        assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
    }
    assert_eq!(graph.hash(), net(DType::F32).runner().graph().hash());
    let wider = toy::denoiser(&mut Random::new(1, &Device::Cpu, DType::F32), 5, DType::F32).unwrap();
    assert_ne!(graph.hash(), wider.hash());
    let e = graph.only(&["z"]).err().unwrap();
    assert!(e.to_string().contains("`z`"), "{e}");
    assert_eq!(graph.only(&["y"]).unwrap().hash(), graph.hash(), "all of it is needed");
}

#[test]
fn an_operation_that_does_not_fit_is_named_by_its_place() {
    let mut weights = Random::new(1, &Device::Cpu, DType::F32);
    let e = ld3sh::nets::build::graph(&mut weights, "", DType::F32, |b| {
        use ld3sh::nets::graph::{Absent, Dim, Layout};
        let x = b.input("x", &[Dim::Exactly(3)], Layout::Plain, Absent::Error)?;
        b.under("enc").under("halves").split(x, &[1, 1])?;
        Ok(())
    });
    let e = e.err().unwrap().to_string();
    assert!(e.contains("enc.halves (split)") && e.contains("[1, 3]"), "{e}");
}

#[test]
fn a_network_is_looked_into_at_its_places() {
    let net = net(DType::F32);
    let (x, time) = (random("x", &[3, 2, 4, 4]), random("t", &[3]));
    let places = net.places();
    let at = |place: &str| net.hidden(&Quiet, &x, &time, &Cond::None, place);
    // the last of them is what it gives
    let last = at(places.last().unwrap()).unwrap();
    let out = net.forward(&Quiet, &x, &time, &Cond::None).unwrap();
    assert_eq!(last.dims(), out.dims());
    assert_eq!(difference(&last, &out), 0.0);
    let e = at("nowhere").unwrap_err();
    assert_eq!(e.kind(), ld3sh::Kind::Name);
    // through a change of the noise schedule it sees what it saw
    let code = "let net = denoiser::load(\"fashion28\"); let x = randn([2, 1, 28, 28], #{ seed: 1 }) * 3.0;
        let vp = net.with_noise(noise::vp_linear()); let alpha = 1.0 / sqrt(1.0 + 9.0);
        let a = net.hidden(x, 3.0, [1, 2], \"enc.7x7_block0\"); let b = vp.guided(2.0).hidden(x * alpha, 3.0, [1, 2], \"enc.7x7_block0\");
        let block = net.places.filter(|p| p.starts_with(\"enc.7x7_block0.\"));
        let c = net.hidden(x, 3.0, [1, 2], block[block.len - 1]);
        [a.shape, (a - b).abs().max().item() < 1e-3 * a.abs().max().item(), (a - c).abs().max().item() == 0.0]";
    let shown = crate::code::session(move |s| crate::code::shown(s, code));
    assert!(shown.contains("true, true]") && shown.contains("7, 7]"), "{shown}");
}
