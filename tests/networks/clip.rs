//! CLIP's text encoders against reference numbers, in every layout in which they are published, and files that are something else.
use crate::helpers::latent as fixture;
use candle_core::{D, DType, Device, Tensor};
use ld3sh::files::safetensors;
use ld3sh::model::{self, Source};
use ld3sh::nets::clip::{Config, Encoder, End, PLACES, Place, Reads, tensors};
use ld3sh::nets::family::{Part, Role};
use ld3sh::text::{self, Ask, Says, TextEncoder};
use ld3sh::{Error, Kind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

type State = HashMap<String, Tensor>;

fn read(name: &str) -> State {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

/// The largest difference, relative to the largest entry of `b`.
fn error(a: &Tensor, b: &Tensor) -> f64 {
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let max = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    assert_eq!(a.dims(), b.dims());
    max(&(wide(a) - wide(b)).unwrap()) / max(&wide(b))
}

fn close(what: &str, a: &Tensor, b: &Tensor, bound: f64) {
    let e = error(a, b);
    eprintln!("{what}: {e:.1e}");
    assert!(e < bound, "{what} is off by {e:e}");
}

fn ids(t: &Tensor) -> Vec<Vec<u32>> {
    t.to_dtype(DType::U32).unwrap().to_vec2().unwrap()
}

const TOKENIZER: &str = "sd-tiny/tokenizer";

fn load_in(path: &Path, dtype: DType) -> Result<TextEncoder, Error> {
    let at = fixture(TOKENIZER);
    text::load(path, Says { tokenizer: Some(&at), quick: None }, &Device::Cpu, dtype)
}

fn load(path: &Path) -> Result<TextEncoder, Error> {
    load_in(path, DType::F32)
}

/// How the outputs of the fixture are read.
const READS: [(&str, usize, bool); 3] =
    [("last_hidden_state", 0, true), ("penultimate", 1, false), ("penultimate_normed", 1, true)];

fn parity(encoder: &Encoder, io: &State, bound: f64) {
    let texts = ids(&io["io.input_ids"]);
    for (name, skip, normed) in READS {
        let found = encoder.encode(&texts, Reads { skip, normed, pooled: true }).unwrap();
        close(name, &found.context, &io[&format!("io.{name}")], bound);
        close("pooled", &found.pooled.unwrap(), &io["io.pooled"], bound);
    }
    // a text's rows do not depend on the others
    let alone = encoder.encode(&texts[1..2], Reads { skip: 0, normed: true, pooled: false }).unwrap();
    assert!(alone.pooled.is_none());
    let together = encoder.encode(&texts, Reads { skip: 0, normed: true, pooled: false }).unwrap().context;
    assert_eq!(error(&alone.context, &together.narrow(0, 1, 1).unwrap()), 0.0);
}

#[test]
fn outputs_are_those_of_the_reference() {
    let io = read("clip_text.io.safetensors");
    for (dtype, bound) in [(DType::F32, 3e-5), (DType::F64, 3e-7)] {
        let encoder = load_in(&fixture("clip_text.weights.safetensors"), dtype).unwrap();
        let reader = &encoder.readers()[0];
        assert_eq!(reader.reads(), Reads { skip: 0, normed: true, pooled: false });
        assert_eq!(reader.clip().config().end, End::First(713));
        parity(reader.clip(), &io, bound);
    }
}

/// The reference's state, without what stands before its names.
fn tower() -> Vec<(String, Tensor)> {
    let root = "cond_stage_model.transformer.text_model.";
    let state = read("clip_text.weights.safetensors").into_iter();
    state.filter(|(n, _)| !n.ends_with("position_ids")).map(|(n, t)| (n[root.len()..].to_string(), t)).collect()
}

/// The same in OpenCLIP's names, q, k and v as one weight.
fn open_clip() -> Vec<(String, Tensor)> {
    let all: State = tower().into_iter().collect();
    let mut out: Vec<(String, Tensor)> = vec![];
    for (name, t) in &all {
        let mut name = name.replace("embeddings.token_embedding", "token_embedding");
        for (old, new) in [
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("encoder.layers", "transformer.resblocks"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("self_attn", "attn"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
            ("final_layer_norm", "ln_final"),
        ] {
            name = name.replace(old, new);
        }
        match name.split_once(".q_proj.") {
            Some((layer, end)) => {
                let part = |p: &str| {
                    all[&format!(
                        "{}.{p}.{end}",
                        layer.replace("transformer.resblocks", "encoder.layers").replace("attn", "self_attn")
                    )]
                        .clone()
                };
                let fused = Tensor::cat(&["q_proj", "k_proj", "v_proj"].map(part), 0).unwrap();
                out.push((format!("{layer}.in_proj_{end}"), fused));
            }
            None if name.contains(".k_proj.") || name.contains(".v_proj.") => {}
            None => out.push((name, t.clone())),
        }
    }
    out
}

fn under(root: &str, list: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    list.into_iter().map(|(n, t)| (format!("{root}{n}"), t)).collect()
}

const CONFIG: &str = r#"{"num_attention_heads": 4, "hidden_act": "quick_gelu", "eos_token_id": 713}"#;

/// A file of these tensors with the reference's configuration.
fn written(dir: &Path, list: &[(String, Tensor)]) -> PathBuf {
    let path = dir.join("model.safetensors");
    safetensors::write(&path, list, &[("config".to_string(), CONFIG.to_string())]).unwrap();
    path
}

#[test]
fn every_layout_is_the_same_network() {
    let (dir, io) = (tempfile::tempdir().unwrap(), read("clip_text.io.safetensors"));
    let last = Reads { skip: 0, normed: true, pooled: false };
    let layouts = [
        (under("text_model.", tower()), last),
        (tower(), last),
        (open_clip(), last),
        (under("state_dict.cond_stage_model.transformer.text_model.", tower()), last),
        (under("cond_stage_model.model.", open_clip()), Reads { skip: 1, ..last }),
        (under("conditioner.embedders.0.model.", open_clip()), Reads { skip: 1, normed: false, pooled: true }),
    ];
    for (list, reads) in layouts {
        let encoder = load(&written(dir.path(), &list)).unwrap();
        let [reader] = encoder.readers() else { panic!("{}", encoder.describe()) };
        assert_eq!(reader.reads(), reads, "{}", list[0].0);
        parity(reader.clip(), &io, 3e-5);
    }
}

/// SDXL reads two encoders before their last layers, and the second one's mapped row.
#[test]
fn a_pair_of_encoders_is_read_side_by_side() {
    let (dir, io) = (tempfile::tempdir().unwrap(), read("clip_text.io.safetensors"));
    let map = Tensor::randn(0f32, 1.0, (32, 48), &Device::Cpu).unwrap();
    let mut list = under("conditioner.embedders.0.transformer.text_model.", tower());
    list.extend(under("conditioner.embedders.1.model.", open_clip()));
    list.push(("conditioner.embedders.1.model.text_projection".into(), map.clone()));
    let pair = load(&written(dir.path(), &list)).unwrap();
    let mapped = io["io.pooled"].matmul(&map).unwrap();
    let texts = ids(&io["io.input_ids"]);
    let [first, second] = pair.readers() else { panic!("{}", pair.describe()) };
    let found = [first, second].map(|r| r.clip().encode(&texts, r.reads()).unwrap());
    found.iter().for_each(|f| close("penultimate", &f.context, &io["io.penultimate"], 3e-5));
    assert!(found[0].pooled.is_none());
    close("mapped", found[1].pooled.as_ref().unwrap(), &mapped, 3e-5);
    let all = pair.encode(&["a cat".into()], Ask::default()).unwrap();
    assert_eq!((all["context"].dims(), all["pooled"].dims()), (&[1, 77, 64][..], &[1, 48][..]));

    // as transformers keeps it, [out, in], in the folder of a pair
    for (folder, extra) in
        [("text_encoder", vec![]), ("text_encoder_2", vec![("text_projection.weight", map.t().unwrap())])]
    {
        let at = dir.path().join("sdxl").join(folder);
        std::fs::create_dir_all(&at).unwrap();
        let mut list = under("text_model.", tower());
        list.extend(extra.into_iter().map(|(n, t)| (n.to_string(), t.contiguous().unwrap())));
        written(&at, &list);
        std::fs::write(at.join("config.json"), CONFIG).unwrap();
    }
    let same = load(&dir.path().join("sdxl")).unwrap().encode(&["a cat".into()], Ask::default()).unwrap();
    for name in ["context", "pooled"] {
        close(name, &same[name], &all[name], 1e-6);
    }
}

/// A folder as diffusers writes it, tokenizer included.
#[test]
fn a_diffusers_folder_gives_the_conditions_of_its_pipeline() {
    let io = read("sd-tiny.io.safetensors");
    let prompts: Vec<String> = ["a photo of a cat", "the night sky in the rain"].map(String::from).into();
    for path in ["sd-tiny", "sd-tiny/text_encoder"] {
        let encoder = text::load(&fixture(path), Says::default(), &Device::Cpu, DType::F32).unwrap();
        let filled = |texts: &[String]| -> Vec<Vec<u32>> { texts.iter().map(|t| encoder.filled(t).unwrap()).collect() };
        assert_eq!(filled(&prompts), ids(&io["io.prompt_ids"]));
        assert_eq!(filled(&["".into(), "".into()]), ids(&io["io.uncond_ids"]));
        let all = encoder.encode(&prompts, Ask::default()).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["context"]);
        close("text", &all["context"], &io["io.text"], 3e-5);
        let none = encoder.encode(&["".into(), "".into()], Ask::default()).unwrap();
        close("without text", &none["context"], &io["io.text_uncond"], 3e-5);
        // the row of a whole text is that of the first of its last tokens
        let pooled = encoder.encode(&prompts, Ask { pooled: true, ..Ask::default() }).unwrap();
        let end = encoder.tokens(&prompts[1]).unwrap().len() - 1;
        let row = pooled["context"].narrow(0, 1, 1).unwrap().narrow(1, end, 1).unwrap().squeeze(1).unwrap();
        assert_eq!(error(&pooled["pooled"].narrow(0, 1, 1).unwrap(), &row), 0.0);
        let skipped = encoder.encode(&prompts, Ask { skip: 1, ..Ask::default() }).unwrap();
        assert!(error(&skipped["context"], &all["context"]) > 0.01);
        let e = encoder.encode(&prompts, Ask { skip: 2, ..Ask::default() }).unwrap_err();
        assert!(e.kind() == Kind::Value && e.fix() == Some("at most 1"), "{e}");
    }
}

#[test]
fn what_is_cut_off_is_told() {
    let encoder = text::load(&fixture("sd-tiny"), Says::default(), &Device::Cpu, DType::F32).unwrap();
    let told: Rc<RefCell<Vec<String>>> = Rc::default();
    let to = told.clone();
    ld3sh::host::on_note(move |text| to.borrow_mut().push(text.into()));
    let text = format!("{}and a red house", "a ".repeat(74));
    assert_eq!(encoder.filled(&text).unwrap().len(), 77);
    let told = told.borrow();
    assert!(told.len() == 1 && told[0].contains("longer than the 75") && told[0].contains("red house"), "{told:?}");
    assert!(!told[0].contains("`and"), "{told:?}");
}

#[test]
fn both_ways_of_finding_a_texts_end() {
    for (tokens, largest, first) in [([5, 9, 9, 7], 1, 3), ([7, 9, 7, 7], 1, 0), ([1, 2, 3, 4], 3, 0)] {
        assert_eq!((End::Largest.place(&tokens), End::First(7).place(&tokens)), (largest, first));
    }
}

fn refused(path: &Path) -> Error {
    load(path).err().unwrap()
}

/// Files that hold something else, or less.
#[test]
fn what_is_no_text_encoder_is_named_for_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let one = |name: &str| vec![(name.to_string(), Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap())];
    let others = [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "changes of other weights"),
        ("unet.down_blocks.0.lora_A.weight", "changes of other weights"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a denoiser"),
        ("down_blocks.0.resnets.0.conv1.weight", "a denoiser"),
        ("decoder.conv_in.weight", "an autoencoder"),
        ("decoder.block.0.layer.0.SelfAttention.q.weight", "tensors such as"),
        ("x.y", "1 tensors such as `x.y`"),
    ];
    for (name, what) in others {
        let e = refused(&written(dir.path(), &one(name)));
        assert!(
            e.kind() == Kind::Format && e.message().contains(what) && e.message().contains("model.safetensors"),
            "{e}"
        );
        assert!(e.fix().is_some());
    }
    assert!(refused(&written(dir.path(), &[])).message().contains("no tensors"));
    let e = refused(dir.path().join("empty").as_path());
    assert!(e.kind() == Kind::Io, "{e}");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let e = refused(dir.path().join("empty").as_path());
    assert!(e.kind() == Kind::Io && e.fix().unwrap().contains("`model.safetensors`"), "{e}");

    let whole = under("text_model.", tower());
    let at = |name: &str| whole.iter().position(|(n, _)| n.ends_with(name)).unwrap();
    // each weight, left out, too small, or with a value that is none
    for name in [
        "position_embedding.weight",
        "layers.0.layer_norm1.weight",
        "layers.2.self_attn.k_proj.bias",
        "mlp.fc2.weight",
        "final_layer_norm.bias",
    ] {
        let k = at(name);
        let mut list = whole.clone();
        let (full, t) = list.remove(k);
        let e = refused(&written(dir.path(), &list));
        assert!(e.kind() == Kind::Format && e.message().contains(full.trim_end_matches("weight")), "{e}");
        list.push((full.clone(), Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap()));
        let e = refused(&written(dir.path(), &list));
        assert!(e.kind() == Kind::Format && e.message().contains("shape"), "{name}: {e}");
        list.pop();
        list.push((full.clone(), (t.to_dtype(DType::F32).unwrap() * f64::NAN).unwrap()));
        let e = refused(&written(dir.path(), &list));
        assert!(e.message().contains("NaN"), "{name}: {e}");
    }
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let list = under("text_model.", tower());
    for (config, why) in [
        (r#"{"num_attention_heads": 0}"#, "`num_attention_heads: 0`"),
        (r#"{"num_attention_heads": 5}"#, "cannot be cut into 5"),
        (r#"{"num_attention_heads": -4}"#, "`num_attention_heads: -4`"),
        (r#"{"num_attention_heads": "4"}"#, "num_attention_heads"),
        (r#"{"num_attention_heads": 1e30}"#, "num_attention_heads"),
        (r#"{}"#, "how many heads"),
        (r#"{"num_attention_heads": 4, "hidden_act": "relu"}"#, "`hidden_act: relu`"),
        (r#"{"num_attention_heads": 4, "layer_norm_eps": -1}"#, "`layer_norm_eps: -1`"),
        (r#"{"num_attention_heads": 4, "num_attention_heads": 4}"#, "appears twice"),
        ("{", "not valid JSON"),
    ] {
        safetensors::write(&path, &list, &[("config".to_string(), config.to_string())]).unwrap();
        let e = refused(&path);
        assert!(e.kind() == Kind::Format && e.message().contains(why), "{why}: {e}");
    }
    // a whole CLIP's configuration has one of each tower
    let nested = format!(r#"{{"text_config": {CONFIG}}}"#);
    safetensors::write(&path, &list, &[("config".to_string(), nested)]).unwrap();
    parity(load(&path).unwrap().readers()[0].clip(), &read("clip_text.io.safetensors"), 3e-5);
}

/// OpenAI's own files and OpenCLIP's have the same names, and another GELU.
#[test]
fn which_gelu_it_is_is_not_guessed() {
    let (dir, io) = (tempfile::tempdir().unwrap(), read("clip_text.io.safetensors"));
    let path = dir.path().join("model.safetensors");
    let config = |act: &str| [("config".to_string(), format!(r#"{{"num_attention_heads": 4{act}}}"#))];
    let (at, texts) = (fixture(TOKENIZER), ids(&io["io.input_ids"]));
    let load = |quick| text::load(&path, Says { tokenizer: Some(&at), quick }, &Device::Cpu, DType::F32);
    let last = Reads { skip: 0, normed: true, pooled: false };
    let off = |quick| {
        let found = load(quick).unwrap().readers()[0].clip().encode(&texts, last).unwrap();
        error(&found.context, &io["io.last_hidden_state"])
    };
    safetensors::write(&path, &open_clip(), &config("")).unwrap();
    let e = load(None).err().unwrap();
    assert!(e.kind() == Kind::Format && e.fix().unwrap().contains("gelu: \"quick\""), "{e}");
    assert!(off(Some(true)) < 3e-5 && off(Some(false)) > 1e-3);
    // said by the user against the configuration
    safetensors::write(&path, &open_clip(), &config(r#", "hidden_act": "gelu""#)).unwrap();
    assert!(off(None) > 1e-3 && off(Some(true)) < 3e-5);
    // within Stable Diffusion's files it is known
    for (root, list, quick) in
        [("cond_stage_model.transformer.text_model.", tower(), true), ("cond_stage_model.model.", open_clip(), false)]
    {
        safetensors::write(&path, &under(root, list), &config("")).unwrap();
        assert_eq!(load(None).unwrap().readers()[0].clip().config().quick, quick);
    }
}

#[test]
fn a_tokenizer_of_another_network_is_refused() {
    let without = |path: &Path| text::load(path, Says::default(), &Device::Cpu, DType::F32).err().unwrap();
    let e = without(&fixture("clip_text.weights.safetensors"));
    assert!(e.kind() == Kind::Format && e.message().contains("49408 tokens, the text encoder's embedding 714"), "{e}");
    assert!(e.fix().unwrap().contains("tokenizer: folder"), "{e}");
    // a folder whose tokenizer was not copied says where it belongs
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("model/text_encoder");
    std::fs::create_dir_all(&copy).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("sd-tiny/text_encoder").join(name), copy.join(name)).unwrap();
    }
    for path in [dir.path().join("model"), copy] {
        let e = without(&path);
        let fix = e.fix().unwrap();
        assert!(fix.contains("`vocab.json` and `merges.txt`") && fix.contains("model/tokenizer`"), "{e}");
    }
}

#[test]
fn numbers_beyond_the_embedding_are_refused() {
    let encoder = load(&fixture("clip_text.weights.safetensors")).unwrap();
    let clip = encoder.readers()[0].clip();
    let last = Reads { skip: 0, normed: true, pooled: false };
    let refused = |texts: &[Vec<u32>]| clip.encode(texts, last).err().unwrap();
    assert!(refused(&[vec![714; 77]]).message().contains("token 714 is beyond"));
    assert_eq!(refused(&[vec![0; 76]]).kind(), Kind::Shape);
    assert!(refused(&[]).message().contains("no text"));
}

/// A text encoder's file is one wherever models are loaded.
#[test]
fn it_is_a_family_of_its_own() {
    let path = fixture("sd-tiny/text_encoder/model.safetensors");
    // nothing in the file itself says how many heads there are
    let e = model::load(&Source::Path(path), &Device::Cpu, DType::F32).err().unwrap();
    assert!(e.message().contains("how many heads"), "{e}");
    let source = Source::Path(fixture("clip_text.weights.safetensors"));
    let parts = model::load(&source, &Device::Cpu, DType::F32).unwrap();
    assert!(matches!(parts.get(&Role::Text), Some(Part::Text(_))));
    let e = model::denoiser(&source, &Device::Cpu, DType::F32).err().unwrap();
    assert!(e.message().contains("a text encoder, not a denoiser"), "{e}");
}

fn vit_l() -> Config {
    Config {
        tokens: 49408,
        positions: 77,
        width: 768,
        layers: 12,
        heads: 12,
        inner: 3072,
        projection: None,
        quick: true,
        eps: 1e-5,
        end: End::Largest,
    }
}

/// Names and shapes are those of the published file.
#[test]
fn a_full_size_encoder_has_the_published_names() {
    let place: &'static Place = &PLACES[0];
    let mut found: Vec<String> = tensors(place, &vit_l())
        .unwrap()
        .into_iter()
        .map(|(n, s)| format!("{n}\t{}", s.iter().map(usize::to_string).collect::<Vec<_>>().join("x")))
        .collect();
    let published = std::fs::read_to_string(fixture("published_names.tsv")).unwrap();
    let mut wanted: Vec<&str> = published.lines().filter(|l| l.starts_with("cond_stage_model.transformer.")).collect();
    assert_eq!(wanted.len(), 196);
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

/// A single file of full size, in f16, with random weights: times to read, not to hold to.
#[test]
#[ignore = "takes a gigabyte and seconds"]
fn a_full_size_encoder_is_loaded_and_run() {
    let dir = tempfile::tempdir().unwrap();
    let random = |(name, dims): (String, Vec<usize>)| {
        let t = Tensor::randn(0f32, 0.03, dims, &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
        (name, t)
    };
    let list: Vec<_> = tensors(&PLACES[0], &vit_l()).unwrap().into_iter().map(random).collect();
    let path = dir.path().join("model.safetensors");
    safetensors::write(&path, &list, &[]).unwrap();
    drop(list);
    let clock = Instant::now();
    let encoder = text::load(&path, Says::default(), &Device::Cpu, DType::F32).unwrap();
    eprintln!("loaded in {:?}: {}", clock.elapsed(), encoder.describe());
    assert_eq!(encoder.readers()[0].clip().config(), &vit_l());
    for n in [1, 2, 4] {
        let texts = vec!["a photograph of an astronaut riding a horse".to_string(); n];
        let once = || {
            let clock = Instant::now();
            let found = encoder.encode(&texts, Ask::default()).unwrap().remove("context").unwrap();
            assert_eq!(found.dims(), [n, 77, 768]);
            assert!(found.sum_all().unwrap().to_scalar::<f32>().unwrap().is_finite());
            clock.elapsed()
        };
        eprintln!("{n} texts in {:?}", (0..5).map(|_| once()).min().unwrap());
    }
}

/// The operations on tokens against their composed forms, values and gradients.
#[test]
fn operations_on_tokens_are_their_compositions() {
    use candle_core::Var;
    use ld3sh::nets::kernels::{Frozen, Pick, TokenEmbedding, View, apply};
    use std::sync::Arc;
    let random = |dims: &[usize]| Tensor::randn(0f32, 1.0, dims, &Device::Cpu).unwrap();
    let ids = Tensor::new(&[[3f32, 0.0, 3.0], [6.0, 1.0, 2.0]], &Device::Cpu).unwrap();
    let embedding = TokenEmbedding::new(random(&[7, 5]), Some(random(&[4, 5]))).unwrap();
    let composed = embedding.compose(&[&ids]).unwrap();
    let op: Arc<dyn Frozen> = Arc::new(embedding);
    assert_eq!(error(&apply(&op, &[&ids]).unwrap(), &composed), 0.0);
    assert!(op.dims(&[&[2, 5]]).is_err() && op.dims(&[&[2]]).is_err());
    assert!(TokenEmbedding::new(random(&[7, 5]), Some(random(&[4, 6]))).is_err());
    // a number that is no token reads within the table
    let mut out = vec![0.0; 15];
    op.run(&[View { data: &[1e30, f32::NAN, -4.0], dims: &[1, 3] }], &mut out, false);

    let x = Var::from_tensor(&random(&[2, 3, 4])).unwrap();
    let at = Tensor::new(&[2f32, 0.0], &Device::Cpu).unwrap();
    let cot = random(&[2, 4]);
    let op: Arc<dyn Frozen> = Arc::new(Pick);
    let mut grads = vec![];
    let mut values = vec![];
    for y in [apply(&op, &[&x, &at]).unwrap(), Pick.compose(&[&x, &at]).unwrap()] {
        let all = (&y * &cot).unwrap().sum_all().unwrap().backward().unwrap();
        grads.push(all.get(&x).unwrap().clone());
        values.push(y);
    }
    assert_eq!((error(&values[0], &values[1]), error(&grads[0], &grads[1])), (0.0, 0.0));
    assert_eq!(
        grads[0]
            .sum(D::Minus1)
            .unwrap()
            .ne(0f32)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap(),
        2.0
    );
    assert!(op.dims(&[&[2, 3, 4], &[3]]).is_err());
}

/// What a session answers to a line, as text.
fn evaluate(out: &Path, line: &str) -> String {
    use ld3sh::shell::session::{Outcome, Session, Settings};
    let (out, line) = (out.to_path_buf(), line.to_string());
    let work = move || {
        let mut session = Session::new(Settings { seed: 0, out });
        match session.evaluate_line(&line) {
            Ok(Outcome::Value(v)) => v.to_string(),
            Ok(_) => panic!("{line}: no value"),
            Err(f) => panic!("{line}: {}", ld3sh::shell::report::render(f, &session, false)),
        }
    };
    let thread = std::thread::Builder::new().stack_size(ld3sh::script::engine::STACK).spawn(work);
    thread.unwrap().join().unwrap()
}

/// Scripts encode, keep and use conditions; one row stands for all samples.
#[test]
fn scripts_make_conditions_of_texts() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        r#"
        let e = text::load("{}");
        let one = e.encode("a cat");
        save(out("one.safetensors"), one);
        let kept = load(out("one.safetensors"));
        let same = (kept.context - one.context).abs().max().item();
        let many = e.encode(["a cat", "the night sky", ""]);
        let skipped = e.encode("a cat", #{{ clip_skip: 1, pooled: true }});
        let net = denoiser::from_fn(#{{ noise: noise::edm(), predicts: "data" }}, |x, s, c| x * 0.0 + c.context.mean());
        let x = ones([2, 3]);
        let plain = net.denoise(x, 1.0, one).mean().item();
        let away = net.guided(2.0, #{{ negative: e.encode("") }}).denoise(x, 1.0, one).mean().item();
        let expected = 2.0 * one.context.mean().item() - e.encode("").context.mean().item();
        json::stringify([
            e.tokens("a cat").len, e.tokens(["a", "b"]).len, many.context.shape, many.keys(), skipped.pooled.shape, same,
            (plain - one.context.mean().item()).abs() < 1e-6, (away - expected).abs() < 1e-5, `${{e}}`,
        ])"#,
        fixture("sd-tiny").display()
    );
    let got = evaluate(dir.path(), &script);
    let words =
        r#"[5,2,[3,77,32],["context"],[1,32],0.0,true,true,"CLIP text encoder, 2 layers of 32, 77 tokens of 714"]"#;
    assert_eq!(got, words);
    for (line, why) in [
        ("text::load(\"nowhere.safetensors\")", "nowhere.safetensors"),
        ("text::load(\"E\").encode(3)", "takes a text or an array of texts"),
        ("text::load(\"E\").encode([\"a\", 3])", "takes a text or an array of texts"),
        ("text::load(\"E\").encode([])", "no text to encode"),
        ("text::load(\"E\").encode(\"a\", #{ clip_skip: 2 })", "cannot be left out"),
        ("text::load(\"E\").encode(\"a\", #{ clip_skip: -1 })", "clip_skip"),
        ("text::load(\"E\", #{ tokenizer: \"nowhere\" })", "nowhere"),
        ("text::load(\"E\", #{ tokeniser: \"E\" })", "tokenizer"),
    ] {
        let line = line.replace("\"E\"", &format!("{:?}", fixture("sd-tiny")));
        let got =
            evaluate(dir.path(), &format!("let said = \"\"; try {{ {line}; }} catch (e) {{ said = `${{e}}`; }} said"));
        assert!(got.contains(why), "{line}: {got}");
    }
}

/// A condition of one row is that of every sample, where a network takes it by name.
#[test]
fn one_row_stands_for_all_samples() {
    use ld3sh::denoise::{Cond, DynDenoiser};
    use ld3sh::nets::network::Net;
    use ld3sh::nets::runner::Runner;
    use ld3sh::nets::weights::Random;
    use ld3sh::script::denoise::cond_of;
    use rhai::Dynamic;
    let graph = super::toy::denoiser(&mut Random::new(0, &Device::Cpu, DType::F32), 4, DType::F32).unwrap();
    let net = Net::new(Runner::new(graph, &Device::Cpu, DType::F32), super::toy::card(), String::new());
    let net: DynDenoiser = Rc::new(net.denoiser().unwrap());
    let x = Tensor::zeros((3, 2, 4, 4), DType::F32, &Device::Cpu).unwrap();
    let text = Tensor::new(&[[1f32, -2.0, 0.5]], &Device::Cpu).unwrap();
    let cond = |t: Tensor| cond_of(&net, &x, Dynamic::from_map([("text".into(), Dynamic::from(t))].into()));
    let Cond::Named(all) = cond(text.clone()).unwrap() else { panic!("no condition by name") };
    assert_eq!(all["text"].to_vec2::<f32>().unwrap(), vec![vec![1.0, -2.0, 0.5]; 3]);
    let e = cond(Tensor::cat(&[&text, &text], 0).unwrap()).err().unwrap();
    assert!(e.message().contains("expected 3 rows of `text`"), "{e}");
}

/// From texts to latents as diffusers' pipeline has them, in a script and from the folder alone.
#[test]
fn a_script_goes_from_texts_to_latents_and_images() {
    let dir = tempfile::tempdir().unwrap();
    let io = read("sd-tiny.io.safetensors");
    let steps: Vec<i64> = io["io.ddim4_timesteps"].to_vec1().unwrap();
    let times: Vec<String> = steps.iter().map(|i| format!("{}", (*i + 1) as f64 / 1000.0)).collect();
    let script = format!(
        r#"
        let sd = model::load("{folder}");
        let texts = text::load("{folder}");
        let io = load("{folder}.io.safetensors");
        let net = sd.denoiser.guided(7.5, #{{ negative: texts.encode("") }});
        let steps = schedule::list(net.noise, [{times}, 0.001]);
        let cond = texts.encode(["a photo of a cat", "the night sky in the rain"]);
        let run = |cond| solve(net, solver::ddim(), steps, io["io.noise"], #{{ cond: cond }});
        let off = (run.call(cond) - io["io.ddim4_guided7p5"]).abs().max().item();
        let off = off / io["io.ddim4_guided7p5"].abs().max().item();
        // one text for both
        let one = run.call(texts.encode("a photo of a cat"));
        let same = (one[0] - run.call(cond)[0]).abs().max().item();
        json::stringify([off < 1e-4, same < 1e-6, sd.decode(one).shape])"#,
        folder = fixture("sd-tiny").display(),
        times = times.join(", ")
    );
    assert_eq!(evaluate(dir.path(), &script), "[true,true,[2,3,16,16]]");
}
