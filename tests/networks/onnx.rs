//! Networks that other frameworks exported: values and gradients beside theirs, every operation beside onnxruntime, damaged files by name.
use crate::code::{session, shown};
use crate::helpers::{error, fixture, read, values};
use crate::process;
use candle_core::{DType, Device, Tensor};
use ld3sh::nets::onnx::{self, Asked, Condition};
use ld3sh::nets::runner::Runner;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A model's file, unpacked beside the others if need be.
fn model(name: &str) -> PathBuf {
    let packed = fixture("onnx").join(format!("{name}.onnx.gz"));
    if !packed.exists() {
        return fixture("onnx").join(format!("{name}.onnx"));
    }
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("onnx");
    std::fs::create_dir_all(&dir).unwrap();
    // tests may want the same at the same time
    let mut file = tempfile::NamedTempFile::new_in(&dir).unwrap();
    file.write_all(&unpacked(&packed)).unwrap();
    let path = dir.join(format!("{name}.onnx"));
    file.persist(&path).unwrap();
    path
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = vec![];
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// What a network is made of, and what PyTorch makes of it: (model's input, its name here).
struct Case {
    name: &'static str,
    asked: Asked,
    inputs: &'static [(&'static str, &'static str)],
    /// Classes of the input that is labels.
    classes: usize,
    /// How far values may be, relative to the largest.
    within: f64,
}

fn conditions(all: &[(&str, Condition)]) -> Vec<(String, Condition)> {
    all.iter().map(|(n, c)| (n.to_string(), c.clone())).collect()
}

fn labels(input: &str, none: Option<usize>) -> Asked {
    let classes = Condition { input: input.into(), classes: Some(4), none, ..Condition::default() };
    Asked { conditions: conditions(&[("classes", classes)]), ..Asked::default() }
}

fn cases() -> Vec<Case> {
    let text = Condition { input: "encoder_hidden_states".into(), ..Condition::default() };
    let unet: &[(&str, &str)] = &[("sample", "x"), ("timestep", "c_noise"), ("class_labels", "classes")];
    vec![
        Case {
            name: "mixer",
            asked: Asked::default(),
            inputs: &[("x", "x"), ("t", "c_noise")],
            classes: 0,
            within: 3e-5,
        },
        Case { name: "unet", asked: labels("class_labels", None), inputs: unet, classes: 4, within: 3e-5 },
        Case { name: "unet13", asked: labels("class_labels", Some(2)), inputs: unet, classes: 4, within: 3e-5 },
        Case {
            name: "mixer1",
            asked: Asked::default(),
            inputs: &[("x", "x"), ("t", "c_noise")],
            classes: 0,
            within: 3e-5,
        },
        Case {
            name: "dit",
            asked: labels("y_labels", None),
            inputs: &[("x", "x"), ("t", "c_noise"), ("y_labels", "classes")],
            classes: 4,
            within: 3e-5,
        },
        Case {
            name: "diffusers-unet",
            asked: Asked::default(),
            inputs: &[("sample", "x"), ("timestep", "c_noise")],
            classes: 0,
            within: 3e-5,
        },
        Case {
            name: "diffusers-text",
            asked: Asked { conditions: conditions(&[("text", text)]), ..Asked::default() },
            inputs: &[("sample", "x"), ("timestep", "c_noise"), ("encoder_hidden_states", "text")],
            classes: 0,
            within: 3e-5,
        },
        Case {
            name: "diffusers-dit",
            asked: labels("class_labels", None),
            inputs: &[("hidden_states", "x"), ("timestep", "c_noise"), ("class_labels", "classes")],
            classes: 4,
            within: 3e-5,
        },
    ]
}

/// The inputs of a case, by their names here; labels as rows.
fn inputs(io: &HashMap<String, Tensor>, names: &[(&str, &str)], classes: usize) -> Vec<(String, Tensor)> {
    let one = |(theirs, ours): &(&str, &str)| {
        let t = io[&format!("in.{theirs}")].clone();
        if *ours != "classes" {
            return (ours.to_string(), t);
        }
        let at = values(&t);
        let rows: Vec<f32> =
            at.iter().flat_map(|k| (0..classes).map(move |c| if c == *k as usize { 1.0 } else { 0.0 })).collect();
        (ours.to_string(), Tensor::from_vec(rows, (at.len(), classes), &Device::Cpu).unwrap())
    };
    names.iter().map(one).collect()
}

fn given(all: &[(String, Tensor)]) -> Vec<(&str, &Tensor)> {
    all.iter().map(|(n, t)| (n.as_str(), t)).collect()
}

/// The first channels of what theirs gives, where it gives variances too.
fn like(t: &Tensor, x: &Tensor) -> Tensor {
    t.narrow(1, 0, x.dim(1).unwrap()).unwrap().contiguous().unwrap()
}

#[test]
fn networks_give_what_pytorch_gives_with_their_gradients() {
    for case in cases() {
        let io = read(&format!("onnx/{}.io.safetensors", case.name));
        for dtype in [DType::F32, DType::F64] {
            let net = onnx::network(&model(case.name), &case.asked, &Device::Cpu, dtype).unwrap();
            let own = inputs(&io, case.inputs, case.classes);
            let x = &own[0].1;
            let y = like(&io["y"], x);
            let wanted: Vec<&str> = own[..2].iter().map(|(n, _)| n.as_str()).collect();
            let (outs, pull) = net.runner().linearize(&given(&own), &wanted).unwrap();
            let off = error(&outs[0], &y);
            assert!(off < case.within, "{} in {dtype:?}: off by {off:e}", case.name);
            // each sample alone
            for i in 0..x.dim(0).unwrap() {
                let one: Vec<_> =
                    own.iter().map(|(n, t)| (n.clone(), t.narrow(0, i, 1).unwrap().contiguous().unwrap())).collect();
                let alone = net.runner().forward(&given(&one)).unwrap().remove(0);
                let off = error(&alone, &outs[0].narrow(0, i, 1).unwrap());
                assert!(off < 1e-6, "{}: sample {i} alone is off by {off:e}", case.name);
            }
            if io["cotangent"].dims() != x.dims() {
                continue;
            }
            let grads = pull(&[Some(&io["cotangent"])]).unwrap();
            for ((theirs, ours), g) in case.inputs.iter().zip(grads) {
                let Some(wanted) = io.get(&format!("grad.{theirs}")) else { continue };
                let off = error(&g, wanted);
                assert!(off < 1e-4, "{} in {dtype:?}: the gradient of {ours} is off by {off:e}", case.name);
            }
        }
    }
}

/// A function's value and the gradient of <cotangent, value> in its first input, by kernels.
fn pulled(runner: &Runner, own: &[(String, Tensor)], cot: &Tensor) -> (Tensor, Tensor) {
    let (mut outs, pull) = runner.linearize(&given(own), &[own[0].0.as_str()]).unwrap();
    (outs.remove(0), pull(&[Some(cot)]).unwrap().remove(0))
}

#[test]
fn any_network_is_a_function() {
    for (name, input, within) in [
        ("decoder", "z", 3e-5),
        ("decoder16", "z", 2e-3),
        ("trunk", "image", 3e-5),
        ("diffusers-vae", "latent_sample", 3e-5),
    ] {
        let io = read(&format!("onnx/{name}.io.safetensors"));
        let made = onnx::function(&model(name), None, None, DType::F32).unwrap();
        let own = vec![(input.to_string(), io[&format!("in.{input}")].clone())];
        let (y, g) = pulled(&made.runner, &own, &io["cotangent"]);
        let (off, apart) = (error(&y, &io["y"]), error(&g, &io[&format!("grad.{input}")]));
        assert!(off < within && apart < within.max(1e-4), "{name}: off by {off:e}, its gradient by {apart:e}");
    }
}

/// Numbers between −1 and 1, the same for every run.
fn some(seed: u64, dims: &[usize]) -> Tensor {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    Tensor::from_vec((0..dims.iter().product::<usize>()).map(next).collect(), dims, &Device::Cpu).unwrap()
}

/// The single operations, by name.
fn operations() -> Vec<(String, Vec<u8>, Vec<Tensor>, Tensor)> {
    let bytes = unpacked(&fixture("onnx/operations.safetensors.gz"));
    let io = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let mut names: Vec<&str> = io.keys().filter_map(|k| k.strip_suffix("/model")).collect();
    names.sort_unstable();
    let one = |name: &str| {
        let bytes = io[&format!("{name}/model")].to_vec1::<u8>().unwrap();
        let xs = (0..).map_while(|k| io.get(&format!("{name}/x{k}")).cloned()).collect();
        (name.to_string(), bytes, xs, io[&format!("{name}/y")].clone())
    };
    names.into_iter().map(one).collect()
}

#[test]
fn every_operation_gives_what_onnxruntime_gives_and_its_slope() {
    let dir = tempfile::tempdir().unwrap();
    let mut problems = vec![];
    let all = operations();
    assert!(all.len() > 120, "{}", all.len());
    for (name, bytes, xs, y) in all {
        let path = dir.path().join("operation.onnx");
        std::fs::write(&path, &bytes).unwrap();
        let made = match onnx::function(&path, None, None, DType::F32) {
            Ok(made) => made,
            Err(e) => {
                problems.push(format!("{name}: {e}"));
                continue;
            }
        };
        let own: Vec<(String, Tensor)> =
            made.runner.graph().inputs.iter().zip(&xs).map(|(p, x)| (p.name.clone(), x.clone())).collect();
        let got = made.runner.forward(&given(&own)).unwrap().remove(0);
        let off = error(&got, &y);
        if got.dims() != y.dims() || off.is_nan() || off >= 3e-5 {
            problems.push(format!("{name}: {:?} beside {:?}, off by {off:e}", got.dims(), y.dims()));
            continue;
        }
        // values and gradients by kernels beside those of the composition in f64
        let composition = onnx::function(&path, None, None, DType::F64).unwrap().runner;
        let cot = some(1, y.dims());
        for (wanted, x) in &own {
            let pull = |runner: &Runner| {
                let (mut outs, pull) = runner.linearize(&given(&own), &[wanted]).unwrap();
                (outs.remove(0), pull(&[Some(&cot)]).unwrap().remove(0))
            };
            let ((_, g), (composed, theirs)) = (pull(&made.runner), pull(&composition));
            let off = error(&composed, &y);
            if off.is_nan() || off >= 3e-5 {
                problems.push(format!("{name}: its composition is off by {off:e}"));
            }
            let most = values(&theirs).iter().chain(&values(&g)).fold(1e-3, |m: f64, v| m.max(v.abs()));
            let apart = values(&g).iter().zip(values(&theirs)).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / most;
            if apart.is_nan() || apart >= 1e-4 || g.dims() != x.dims() {
                problems
                    .push(format!("{name}: its gradient and that of its composition are {apart:e} apart in {wanted}"));
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn the_kernels_agree_with_differences() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, xs, y) in operations() {
        // what has steps or bends has no differences
        let bent = [
            "Ceil",
            "Floor",
            "Round",
            "Sign",
            "Max",
            "Min",
            "Relu",
            "Abs",
            "Clip",
            "Where",
            "Hard",
            "Gather table",
            "OneHot",
            "Elu",
            "PRelu",
            "Selu",
        ];
        if bent.iter().any(|b| name.contains(b)) {
            continue;
        }
        let path = dir.path().join("operation.onnx");
        std::fs::write(&path, &bytes).unwrap();
        let made = onnx::function(&path, None, None, DType::F32).unwrap();
        let own: Vec<(String, Tensor)> =
            made.runner.graph().inputs.iter().zip(&xs).map(|(p, x)| (p.name.clone(), x.clone())).collect();
        let cot = some(1, y.dims());
        let (_, g) = pulled(&made.runner, &own, &cot);
        let way = some(2, own[0].1.dims());
        let at = |h: f64| {
            let mut moved = own.clone();
            moved[0].1 = (&own[0].1 + (&way * h).unwrap()).unwrap();
            let y = made.runner.forward(&given(&moved)).unwrap().remove(0);
            values(&y).iter().zip(values(&cot)).map(|(a, b)| a * b).sum::<f64>()
        };
        let h = 4e-3;
        let slope = (8.0 * (at(h) - at(-h)) - at(2.0 * h) + at(-2.0 * h)) / (12.0 * h);
        let told: f64 = values(&g).iter().zip(values(&way)).map(|(a, b)| a * b).sum();
        let size: f64 = values(&g).iter().map(|a| a.abs()).sum::<f64>().max(1e-2);
        assert!((slope - told).abs() < 2e-3 * size, "{name}: {told} beside a difference of {slope}");
    }
}

#[test]
fn a_missing_label_is_that_of_no_class() {
    let io = read("onnx/unet13.io.safetensors");
    let net = onnx::network(&model("unet13"), &labels("class_labels", Some(2)), &Device::Cpu, DType::F32).unwrap();
    let own = inputs(&io, &[("sample", "x"), ("timestep", "c_noise")], 0);
    let without = net.runner().forward(&given(&own)).unwrap().remove(0);
    let mut told = own.clone();
    let row = Tensor::new(&[[0f32, 0.0, 1.0, 0.0]], &Device::Cpu).unwrap().repeat((3, 1)).unwrap();
    told.push(("classes".into(), row));
    let with = net.runner().forward(&given(&told)).unwrap().remove(0);
    assert_eq!(values(&without), values(&with));
    let strict = onnx::network(&model("unet13"), &labels("class_labels", None), &Device::Cpu, DType::F32).unwrap();
    let e = strict.runner().forward(&given(&own)).unwrap_err();
    assert!(e.message().contains("classes"), "{e}");
}

#[test]
fn group_norms_and_silu_are_one_operation() {
    for name in ["unet", "unet13", "diffusers-unet", "decoder"] {
        let made = if name == "decoder" {
            onnx::function(&model(name), None, None, DType::F32).unwrap().runner
        } else {
            let asked = if name == "diffusers-unet" { Asked::default() } else { labels("class_labels", None) };
            onnx::network(&model(name), &asked, &Device::Cpu, DType::F32).unwrap().runner().clone()
        };
        let text = made.graph().to_string();
        let count = |what: &str| text.lines().filter(|l| l.contains(what)).count();
        assert!(count("= frozen group norm") >= 4, "{name}:\n{text}");
        assert_eq!(count("= frozen layer norm"), 0, "{name}:\n{text}");
    }
}

#[test]
fn the_page_lists_what_is_read() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/onnx.md")).unwrap();
    let listed: Vec<&str> = page.split(|c: char| !c.is_alphanumeric()).collect();
    let missing: Vec<&str> = onnx::names().filter(|n| !listed.contains(n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let [first, newest] = onnx::OPSETS;
    assert!(page.contains(&format!("Opsets {first} to {newest}")));
}

#[test]
fn a_network_has_an_identity() {
    let net = |asked: &Asked| onnx::network(&model("mixer"), asked, &Device::Cpu, DType::F32).unwrap();
    let hash = |asked: &Asked| ld3sh::denoise::Network::hash(&net(asked)).unwrap();
    let named = Asked { name: Some("mine".into()), ..Asked::default() };
    assert_eq!(hash(&Asked::default()), hash(&named));
    assert_eq!(ld3sh::denoise::Network::describe(&net(&named)), "mine 8×8×1, unconditional");
    assert_ne!(hash(&labels_of("unet", None)), hash(&labels_of("unet", Some(1))));
}

fn labels_of(_: &str, none: Option<usize>) -> Asked {
    // the mixer has no labels: its time is held instead, and told apart by that
    let held = Condition { input: "t".into(), value: Some(none.map_or(0.5, |n| n as f64)), ..Condition::default() };
    Asked { time: Some(None), conditions: conditions(&[("held", held)]), ..Asked::default() }
}

/// What a script says of a call that fails.
fn refused(dir: &Path, bytes: &[u8]) -> String {
    let path = dir.join("broken.onnx");
    std::fs::write(&path, bytes).unwrap();
    match onnx::function(&path, None, None, DType::F32) {
        Ok(_) => "nothing was wrong".into(),
        Err(e) => format!("{} {}", e.message(), e.fix().unwrap_or_default()),
    }
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(model("trunk")).unwrap();
    for at in (0..whole.len()).step_by(97) {
        let told = refused(dir.path(), &whole[..at]);
        assert!(told.contains("broken.onnx"), "cut at {at}: {told}");
    }
    // any byte another one: an error or a network, and no end of the program
    for at in (0..whole.len()).step_by(61) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        refused(dir.path(), &bytes);
    }
    for (bytes, words) in [
        (&b"version https://git-lfs.github.com/spec/v1\n"[..], "git-lfs"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"<!DOCTYPE html>", "a text"),
        (b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors"),
        (b"", "empty"),
        (b"\x00\x01\x02\x03", "no ONNX file"),
    ] {
        let told = refused(dir.path(), bytes);
        assert!(told.contains(words), "{told}");
    }
}

/// A model by hand: each argument a field of protobuf.
mod by_hand {
    fn varint(mut v: u64) -> Vec<u8> {
        let mut out = vec![];
        while v > 127 {
            out.push((v & 127) as u8 | 128);
            v >>= 7;
        }
        out.push(v as u8);
        out
    }
    pub fn int(tag: u64, v: i64) -> Vec<u8> {
        [varint(tag << 3), varint(v as u64)].concat()
    }
    pub fn bytes(tag: u64, b: &[u8]) -> Vec<u8> {
        [varint(tag << 3 | 2), varint(b.len() as u64), b.to_vec()].concat()
    }
    pub fn text(tag: u64, s: &str) -> Vec<u8> {
        bytes(tag, s.as_bytes())
    }
    pub fn node(op: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
        let inputs: Vec<u8> = inputs.iter().flat_map(|i| text(1, i)).collect();
        let attributes: Vec<u8> = attributes.iter().flat_map(|a| bytes(5, a)).collect();
        [inputs, text(2, output), text(3, "the_node"), text(4, op), attributes].concat()
    }
    pub fn info(name: &str, dims: &[i64]) -> Vec<u8> {
        let dim = |d: &i64| bytes(1, &if *d < 0 { text(2, "batch") } else { int(1, *d) });
        let shape: Vec<u8> = dims.iter().flat_map(dim).collect();
        let kind = bytes(1, &[int(1, 1), bytes(2, &shape)].concat());
        [text(1, name), bytes(2, &kind)].concat()
    }
    pub fn tensor(name: &str, kind: i64, dims: &[i64], rest: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|d| int(1, *d)).collect();
        [dims, int(2, kind), text(8, name), rest.to_vec()].concat()
    }
    pub fn model(opset: i64, nodes: &[Vec<u8>], weights: &[Vec<u8>], inputs: &[Vec<u8>]) -> Vec<u8> {
        let part = |tag: u64, all: &[Vec<u8>]| all.iter().flat_map(|b| bytes(tag, b)).collect::<Vec<u8>>();
        let graph = [part(1, nodes), part(5, weights), part(11, inputs), bytes(12, &info("y", &[-1, 4]))].concat();
        [int(1, 9), bytes(7, &graph), bytes(8, &[text(1, ""), int(2, opset)].concat())].concat()
    }
}

#[test]
fn hostile_models_are_refused_by_the_place() {
    use by_hand::*;
    let dir = tempfile::tempdir().unwrap();
    let x = || vec![info("x", &[-1, 4])];
    let entry = |k: &str, v: &str| bytes(13, &[text(1, k), text(2, v)].concat());
    let external = |location: &str, more: &[u8]| {
        let rest = [entry("location", location), more.to_vec(), int(14, 1)].concat();
        model(18, &[node("Add", &["x", "w"], "y", &[])], &[tensor("w", 1, &[4], &rest)], &x())
    };
    std::fs::write(dir.path().join("short.weights"), [0u8; 8]).unwrap();
    std::fs::write(dir.path().join("good.weights"), [0u8; 32]).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), [0u8; 64]).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("link.weights")).unwrap();
    let huge = |dims: &[i64]| {
        let shape = tensor(
            "s",
            7,
            &[dims.len() as i64],
            &bytes(9, &dims.iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<_>>()),
        );
        model(18, &[node("ConstantOfShape", &["s"], "c", &[]), node("Add", &["x", "c"], "y", &[])], &[shape], &x())
    };
    let axis = |a: i64| [text(1, "axis"), int(3, a), int(20, 2)].concat();
    let cases: Vec<(Vec<u8>, &[&str])> = vec![
        (model(18, &[node("NoSuchThing", &["x"], "y", &[])], &[], &x()), &["the_node", "NoSuchThing", "not known"]),
        (model(18, &[node("If", &["x"], "y", &[])], &[], &x()), &["the_node", "If", "control flow", "export"]),
        (model(18, &[node("Loop", &["x"], "y", &[])], &[], &x()), &["Loop", "control flow"]),
        (
            model(18, &[node("Dropout", &["x", "", "t"], "y", &[])], &[tensor("t", 9, &[], &bytes(9, &[1]))], &x()),
            &["the_node", "training mode", "eval"],
        ),
        (model(18, &[node("Concat", &["x", "x"], "y", &[axis(0)])], &[], &x()), &["`y`", "batch in front"]),
        (model(11, &[node("Relu", &["x"], "y", &[])], &[], &x()), &["opset 11", "13"]),
        (model(18, &[node("Add", &["x", "nothing"], "y", &[])], &[], &x()), &["the_node", "`nothing`"]),
        (
            model(
                18,
                &[node("Add", &["x", "b"], "a", &[]), node("Relu", &["a"], "b", &[]), node("Relu", &["b"], "y", &[])],
                &[],
                &x(),
            ),
            &["`b`", "circle"],
        ),
        (model(18, &[node("Relu", &["x"], "other", &[])], &[], &x()), &["`y`"]),
        (model(18, &[node("Softmax", &["x"], "y", &[axis(7)])], &[], &x()), &["the_node", "axis 7"]),
        (
            model(18, &[node("Add", &["x", "w"], "y", &[])], &[tensor("w", 1, &[3], &bytes(9, &[0; 12]))], &x()),
            &["the_node", "broadcast"],
        ),
        (
            model(18, &[node("Add", &["x", "w"], "y", &[])], &[tensor("w", 1, &[4], &bytes(9, &[0; 12]))], &x()),
            &["`w`", "[4]"],
        ),
        (
            model(18, &[node("Add", &["x", "w"], "y", &[])], &[tensor("w", 1, &[1 << 40, 1 << 40], &[])], &x()),
            &["`w`", "shape"],
        ),
        (model(18, &[node("Add", &["x", "w"], "y", &[])], &[tensor("w", 1, &[-4], &[])], &x()), &["`w`", "shape"]),
        (model(18, &[node("Add", &["x", "w"], "y", &[])], &[tensor("w", 8, &[4], &[])], &x()), &["`w`", "string"]),
        (model(18, &[node("Add", &["x", "w"], "y", &[])], &[tensor("w", 99, &[4], &[])], &x()), &["`w`", "99"]),
        (huge(&[1 << 40]), &["the_node", "too large"]),
        (huge(&[1 << 31, 1 << 31, 1 << 31]), &["the_node", "large"]),
        (huge(&[-3]), &["the_node", "size"]),
        (external("../secret", &[]), &["`w`", "folder"]),
        (external("/etc/passwd", &[]), &["`w`", "folder"]),
        (external("a/../../secret", &[]), &["`w`", "folder"]),
        (external("link.weights", &[]), &["`w`", "folder"]),
        (external("absent.weights", &[]), &["`w`", "absent.weights", "beside"]),
        (external("short.weights", &[]), &["`w`", "short.weights", "8"]),
        (external("good.weights", &entry("offset", "20")), &["`w`", "20"]),
        (external("good.weights", &entry("offset", "18446744073709551615")), &["`w`", "good.weights"]),
        (external("good.weights", &entry("length", "3")), &["`w`", "3 bytes", "16"]),
        (external("good.weights", &entry("offset", "many")), &["`w`", "offset"]),
        (model(18, &[node("Relu", &["x"], "y", &[])], &[], &[info("x", &[5, 4])]), &["batches of 5", "dynamic"]),
        (model(18, &[node("Relu", &["x"], "y", &[])], &[], &[]), &["no inputs"]),
    ];
    for (bytes, words) in cases {
        let told = refused(dir.path(), &bytes);
        for word in words {
            assert!(told.contains(word), "`{word}` is not in: {told}");
        }
    }
    let path = dir.path().join("good.onnx");
    std::fs::write(&path, external("good.weights", &entry("offset", "16"))).unwrap();
    onnx::function(&path, None, None, DType::F32).unwrap();
}

#[test]
fn a_small_probability_keeps_its_logarithm() {
    use by_hand::*;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.onnx");
    std::fs::write(&path, model(18, &[node("LogSoftmax", &["x"], "y", &[])], &[], &[info("x", &[-1, 4])])).unwrap();
    let made = onnx::function(&path, None, None, DType::F32).unwrap();
    let own = vec![("x".to_string(), Tensor::new(&[[0f32, -300.0, -400.0, -500.0]], &Device::Cpu).unwrap())];
    let (y, g) = pulled(&made.runner, &own, &Tensor::new(&[[0f32, 1.0, 0.0, 0.0]], &Device::Cpu).unwrap());
    assert_eq!(values(&y), [0.0, -300.0, -400.0, -500.0]);
    assert_eq!(values(&g), [-1.0, 1.0, 0.0, 0.0]);
}

fn told(code: &str) -> String {
    let code = code.replace("ONNX", &fixture("onnx").display().to_string());
    session(move |s| shown(s, &code))
}

#[test]
fn scripts_say_what_is_what() {
    let of = |rest: &str| {
        format!("denoiser::onnx(\"ONNX/unet.onnx\", #{{ noise: noise::edm(), predicts: \"noise\"{rest} }})")
    };
    for (code, words) in [
        (of(""), &["class_labels", "classes: 10"][..]),
        (of(", inputs: #{ classes: #{ input: \"class_label\", classes: 4 } }"), &["class_labels"]),
        (of(", inputs: #{ x: \"samples\" }"), &["sample"]),
        (of(", inputs: #{ x: 3 }"), &["inputs.x", "name"]),
        (of(", inputs: 3"), &["`inputs`", "map"]),
        (of(", shape: [2, 8, 8], inputs: #{ classes: #{ input: \"class_labels\", classes: 4 } }"), &["fixed to 1"]),
        (
            of(", output: \"z\", inputs: #{ classes: #{ input: \"class_labels\", classes: 4 } }"),
            &["output of the model", "`z`"],
        ),
        (of(", inputs: #{ classes: #{ input: \"class_labels\", classes: 99 } }"), &["table", "99 classes"]),
        (of(", inputs: #{ labels: #{ input: \"class_labels\", classes: 4 } }"), &["`classes`", "`labels`"]),
        ("denoiser::onnx(\"ONNX/mixer.onnx\", #{ predicts: \"noise\" })".into(), &["needs the option `noise`"]),
        (
            "denoiser::onnx(\"ONNX/trunk.onnx\", #{ noise: noise::edm(), predicts: \"noise\" })".into(),
            &["has shape", "graph::onnx"],
        ),
        ("denoiser::load(\"ONNX/mixer.onnx\")".into(), &["ONNX file", "denoiser::onnx"]),
        ("graph::onnx(\"ONNX/mixer.onnx\", #{ shapes: [[1, 8, 8]] })".into(), &["`t`"]),
    ] {
        let report = told(&code);
        for word in words {
            assert!(report.contains(word), "{code}: `{word}` is not in: {report}");
        }
    }
}

#[test]
fn an_imported_denoiser_goes_all_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let code = r#"
        import "ld3" as ld3;
        let net = denoiser::onnx("ONNX/mixer.onnx", #{ noise: noise::edm(), predicts: "data", time: "log", name: "mixer" });
        let pairs = ld3::pairs(net, solver::unipc(), schedule::logsnr(net.noise, 6), #{ train: 4, valid: 2 });
        let run = ld3::train(net, solver::ipndm(#{ order: 2 }), pairs, #{ nfe: 3, phase1: 1, phase2: 1 });
        run.schedule.save("mixer-3.json");
        let steps = schedule::load("mixer-3.json");
        let x = sample(net, solver::ipndm(#{ order: 2 }), steps, noise([2, 1, 8, 8], #{ seed: 5 }));
        print(`${net.describe()} ${x.shape} ${key_of(net) == ()} ${x.isfinite().all()}`);
    "#;
    let code = code.replace("ONNX", &fixture("onnx").display().to_string());
    std::fs::write(dir.path().join("s.rhai"), code).unwrap();
    let cache = dir.path().join("cache");
    let run = || process::ld3sh(dir.path(), &cache).args(["--quiet", "s.rhai"]).output().unwrap();
    let (first, second) = (run(), run());
    for o in [&first, &second] {
        let text = process::out(o);
        assert!(o.status.success() && text.contains("mixer 8×8×1"), "{text}{}", process::err(o));
        assert!(text.contains("[2, 1, 8, 8] false true"), "{text}");
    }
    // its pairs are cached, under its hash
    assert!(
        process::files(&cache).keys().any(|p| p.to_string_lossy().contains("pairs")),
        "{:?}",
        process::files(&cache).keys()
    );
}

#[test]
fn gradients_of_a_denoiser_follow_differences() {
    let report = told(
        r#"
        let net = denoiser::onnx("ONNX/mixer.onnx", #{ noise: noise::edm(), predicts: "data", time: "log" });
        let x = randn([2, 1, 8, 8], #{ seed: 1 });
        let way = randn([2, 1, 8, 8], #{ seed: 2 });
        let cot = randn([2, 1, 8, 8], #{ seed: 3 });
        let v = variable(x);
        let s = variable(tensor([0.7, 0.4]));
        let g = vjp(net.denoise(v, s), cot, [v, s]);
        let value = |h, k| (net.denoise(x + h * way, tensor([0.7, 0.4]) + k) * cot).sum().item();
        let h = 0.05;
        let by_x = (8.0 * (value.call(h, 0.0) - value.call(-h, 0.0)) - value.call(2.0 * h, 0.0) + value.call(-2.0 * h, 0.0)) / (12.0 * h);
        let k = 0.02;
        let by_s = (8.0 * (value.call(0.0, k) - value.call(0.0, -k)) - value.call(0.0, 2.0 * k) + value.call(0.0, -2.0 * k)) / (12.0 * k);
        [((g[0] * way).sum().item() - by_x).abs() < 1e-3 * by_x.abs() + 1e-3, (g[1].sum().item() - by_s).abs() < 1e-3 * by_s.abs() + 1e-3]
        "#,
    );
    assert_eq!(report, "[true, true]");
}
