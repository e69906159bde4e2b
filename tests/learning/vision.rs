//! Vision transformers against DINOv2's and CLIP's own code (fixtures by tests/fixtures/make_vision.py), their way from a file to features,
//! Pillow's resizing byte by byte, and bad input.
use crate::trunks::uniform;
use candle_core::{DType, Device, Tensor};
use ld3sh::metric::{Extractor, Reads};
use ld3sh::model::{Source, load_by};
use ld3sh::nets::family::FAMILIES;
use ld3sh::nets::kernels::{Frozen, Pillow, apply};
use ld3sh::nets::vision::FAMILY;
use ld3sh::nets::weights::File;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

type State = BTreeMap<String, Tensor>;
/// What is done to weights that were whole.
type Damage<'a> = &'a dyn Fn(&mut State);

fn known() -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vision.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The generator's formula.
fn filled(name: &str, dims: &[usize]) -> Tensor {
    let last = name.rsplit('.').next().unwrap();
    let (scale, shift) = match (last, dims.len()) {
        ("gamma", _) => (0.1, 0.5),
        ("weight", _) if name.contains("norm") => (0.1, 1.0),
        (_, 1) => (0.1, 0.0),
        _ => ((6.0 / dims[1..].iter().product::<usize>() as f64).sqrt(), 0.0),
    };
    let v: Vec<f32> = uniform(name, dims.iter().product()).into_iter().map(|u| (u * scale + shift) as f32).collect();
    Tensor::from_vec(v, dims, &Device::Cpu).unwrap()
}

fn state(list: &[(String, Vec<usize>)]) -> State {
    list.iter().map(|(name, dims)| (name.clone(), filled(name, dims))).collect()
}

/// A linear map's or a norm's two tensors.
fn both(name: &str, dims: &[usize]) -> [(String, Vec<usize>); 2] {
    [(format!("{name}.weight"), dims.to_vec()), (format!("{name}.bias"), dims[..1].to_vec())]
}

fn dino() -> State {
    let mut all = vec![
        ("cls_token".to_string(), vec![1, 1, 128]),
        ("pos_embed".into(), vec![1, 26, 128]),
        ("mask_token".into(), vec![1, 128]),
    ];
    all.extend(both("patch_embed.proj", &[128, 3, 14, 14]).into_iter().chain(both("norm", &[128])));
    for i in 0..2 {
        let at = |name: &str| format!("blocks.{i}.{name}");
        all.extend(["ls1.gamma", "ls2.gamma"].map(|n| (at(n), vec![128])));
        let maps =
            [("norm1", vec![128]), ("norm2", vec![128]), ("attn.qkv", vec![384, 128]), ("attn.proj", vec![128, 128])];
        let maps = maps.into_iter().chain([("mlp.fc1", vec![512, 128]), ("mlp.fc2", vec![128, 512])]);
        maps.for_each(|(name, dims)| all.extend(both(&at(name), &dims)));
    }
    state(&all)
}

fn clip() -> State {
    let under = |name: &str| format!("vision_model.{name}");
    let mut all = vec![
        (under("embeddings.class_embedding"), vec![128]),
        (under("embeddings.patch_embedding.weight"), vec![128, 3, 14, 14]),
        (under("embeddings.position_embedding.weight"), vec![10, 128]),
        ("visual_projection.weight".into(), vec![48, 128]),
    ];
    all.extend(["pre_layrnorm", "post_layernorm"].iter().flat_map(|n| both(&under(n), &[128])));
    for i in 0..2 {
        let at = |name: &str| under(&format!("encoder.layers.{i}.{name}"));
        let square = ["q", "k", "v", "out"].map(|n| (format!("self_attn.{n}_proj"), vec![128, 128]));
        let maps = [
            ("layer_norm1", vec![128]),
            ("layer_norm2", vec![128]),
            ("mlp.fc1", vec![256, 128]),
            ("mlp.fc2", vec![128, 256]),
        ];
        let maps = square.into_iter().chain(maps.map(|(n, d)| (n.to_string(), d)));
        maps.for_each(|(name, dims)| all.extend(both(&at(&name), &dims)));
    }
    state(&all)
}

/// Pictures of random bytes, in [−1, 1].
fn pictures(name: &str, dims: [usize; 4]) -> Tensor {
    let byte = |u: f64| ((u + 1.0) * 128.0).floor().clamp(0.0, 255.0);
    let v: Vec<f32> =
        uniform(name, dims.iter().product()).into_iter().map(|u| (byte(u) / 127.5 - 1.0) as f32).collect();
    Tensor::from_vec(v, &dims, &Device::Cpu).unwrap()
}

fn small() -> Tensor {
    pictures("vision.small", [2, 3, 20, 31])
}
fn large() -> Tensor {
    pictures("vision.large", [1, 3, 300, 260])
}

fn extractor(name: &str, weights: &State) -> ld3sh::Result<Extractor> {
    let mut file = File::some(weights, "", &Device::Cpu, DType::F32);
    Extractor::transformer(name, (FAMILY.build)(&mut file)?)
}

#[test]
fn features_are_those_of_their_own_code() {
    let known = known();
    for (name, key, weights, width) in [("dinov2", "dinov2", dino(), 128), ("clip", "clip", clip(), 48)] {
        let net = extractor(name, &weights).unwrap();
        assert_eq!((net.width(), net.classes()), (width, 0));
        for (of, x) in [("small", small()), ("large", large())] {
            let [got] = net.run(&x, [Reads::Features], false).unwrap();
            let (got, want) = (values(&got), values(&known[&format!("{key}.{of}")]));
            let top = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let off = got.iter().zip(&want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / top;
            println!("{key} {of}: {off:.1e}");
            assert!(got.len() == want.len() && off < 1e-5, "{key} {of} is off by {off:e}");
        }
        // grey is grey in all colours
        let grey = small().narrow(1, 0, 1).unwrap();
        let run = |x: &Tensor| net.run(x, [Reads::Features], false).map(|[f]| values(&f)).unwrap();
        assert_eq!(run(&grey), run(&grey.repeat((1, 3, 1, 1)).unwrap()));
        for (of, what) in [(Reads::Logits, "logits"), (Reads::Spatial, "spatial")] {
            let e = net.run(&grey, [of], false).unwrap_err();
            assert!(e.message().contains(&format!("has no {what}")), "{e}");
        }
    }
}

#[test]
fn pictures_are_resized_as_pillow_does() {
    let known = known();
    let cases = [("small", small(), 37, false), ("large", large(), 23, false), ("square", small(), 28, true)];
    for (key, x, size, crop) in cases {
        let op: Arc<dyn Frozen> = Arc::new(Pillow { size, crop });
        for dtype in [DType::F32, DType::F64] {
            let x = x.to_dtype(dtype).unwrap().permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            let y = apply(&op, &[&x]).unwrap().permute((0, 3, 1, 2)).unwrap();
            let bytes: Vec<f64> = values(&y).into_iter().map(|v| (v * 127.5 + 127.5).round()).collect();
            assert_eq!(bytes, values(&known[&format!("pillow.{key}")]), "{key} in {dtype:?}");
        }
    }
}

#[test]
fn files_are_told_by_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let save = |name: &str, state: &State| {
        let path = dir.path().join(name);
        let all: HashMap<String, Tensor> = state.clone().into_iter().collect();
        candle_core::safetensors::save(&all, &path).unwrap();
        path
    };
    let load = |path: &Path| load_by(FAMILIES, &Source::Path(path.into()), &Device::Cpu, DType::F32);
    let x = small();
    for (name, weights) in [("dinov2", dino()), ("clip", clip())] {
        let parts = load(&save(&format!("{name}.safetensors"), &weights)).unwrap();
        let read = Extractor::transformer(name, parts).unwrap().run(&x, [Reads::Features], false).unwrap();
        let own = extractor(name, &weights).unwrap().run(&x, [Reads::Features], false).unwrap();
        assert_eq!(values(&read[0]), values(&own[0]));
    }
    let e = extractor("clip", &dino()).err().unwrap();
    assert!(e.message().contains("this is DINOv2, which is not \"clip\""), "{e}");
    let damaged = |change: Damage| {
        let mut state = dino();
        change(&mut state);
        extractor("dinov2", &state).err().unwrap().to_string()
    };
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let cases: [(Damage, &str); 6] = [
        (&|s| drop(s.insert("register_tokens".into(), zeros(&[1, 4, 128]))), "registers"),
        (&|s| drop(s.remove("blocks.1.attn.proj.bias")), "`blocks.1.attn.proj.bias` is missing"),
        (&|s| drop(s.remove("blocks.0.ls2.gamma")), "`blocks.0.ls2.gamma` is missing"),
        (&|s| drop(s.remove("blocks.0.mlp.fc1.weight")), "`blocks.0.mlp.fc1.weight` is missing"),
        (&|s| drop(s.insert("pos_embed".into(), zeros(&[1, 27, 128]))), "a square"),
        (&|s| drop(s.insert("patch_embed.proj.weight".into(), zeros(&[100, 3, 14, 14]))), "a multiple of 64"),
    ];
    for (change, says) in cases {
        let e = damaged(change);
        assert!(e.contains(says), "{e}");
    }
}
