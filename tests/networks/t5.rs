//! T5's encoder and tokenizer against transformers' (tests/fixtures/t5/make_t5.py), alone and beside CLIP's as denoisers read them.
use crate::helpers::{error, fixture, latent, read};
use candle_core::{DType, Device, Tensor};
use ld3sh::files::safetensors;
use ld3sh::nets::clip::{self, Reads};
use ld3sh::nets::t5::Encoder;
use ld3sh::nets::weights::File;
use ld3sh::text::{self, Ask, Joined, Says, TextEncoder, Tokenizer};
use ld3sh::{Error, Kind};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

type Named = HashMap<String, Tensor>;

const TOKENIZER: &str = "t5/tokenizer";
const WEIGHTS: &str = "t5/text_encoder/model.safetensors";

fn near(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let e = error(got, wanted);
    eprintln!("{what}: {e:.1e}");
    assert!(e < bound, "{what} is off by {e:e}");
}

fn tokenizer(path: &Path) -> Result<Tokenizer, Error> {
    text::sentence(&text::sentence_file(path)?.unwrap())
}

fn says(tokenizer: &Path) -> Says<'_> {
    Says { tokenizer: Some(tokenizer), quick: None }
}

fn load_in(path: &Path, dtype: DType) -> Result<TextEncoder, Error> {
    text::load(path, says(&fixture(TOKENIZER)), &Device::Cpu, dtype)
}

fn refused(path: &Path) -> Error {
    load_in(path, DType::F32).err().unwrap()
}

fn encoder(of: &TextEncoder) -> &Encoder {
    of.t5().unwrap().t5()
}

fn ids(t: &Tensor) -> Vec<Vec<u32>> {
    t.to_dtype(DType::U32).unwrap().to_vec2().unwrap()
}

/// The same from either of the files that are published.
#[test]
fn ids_are_those_of_the_real_tokenizer() {
    let known: Value = serde_json::from_slice(&std::fs::read(fixture("t5/tokenizer.json")).unwrap()).unwrap();
    let most = known["most"].as_u64().unwrap() as usize;
    for file in ["", "tokenizer.json", "spiece.model"] {
        let t5 = tokenizer(&fixture(TOKENIZER).join(file)).unwrap();
        assert_eq!((t5.first(), t5.last(), t5.padding(), t5.size()), (None, 1, Some(0), 196));
        for case in known["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let found = t5.tokens(text, most).unwrap();
            assert_eq!(serde_json::json!(found.ids), case["ids"], "{file} {text:?}");
            let cut = found.cut.map_or(0, |c| c.tokens);
            assert_eq!((found.ids.len() + cut) as u64, case["whole"].as_u64().unwrap(), "{file} {text:?}");
        }
    }
    // without what says how many gaps there are, there are a hundred
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture(TOKENIZER).join("spiece.model"), dir.path().join("spiece.model")).unwrap();
    assert_eq!(tokenizer(dir.path()).unwrap().size(), 196);
    std::fs::write(dir.path().join("tokenizer_config.json"), r#"{"extra_ids": 3}"#).unwrap();
    let t5 = tokenizer(dir.path()).unwrap();
    assert_eq!((t5.size(), t5.tokens("<extra_id_2>", 9).unwrap().ids), (99, vec![96, 1]));
}

#[test]
fn outputs_are_those_of_the_real_encoder() {
    let io = read("t5/io.safetensors");
    for (dtype, bound) in [(DType::F32, 3e-5), (DType::F64, 3e-7)] {
        let of = load_in(&fixture(WEIGHTS), dtype).unwrap();
        assert_eq!(of.describe(), "T5 encoder, 3 layers of 32, 256 tokens");
        let t5 = encoder(&of);
        near("texts", &t5.encode(&ids(&io["ids"])).unwrap(), &io["out"], bound);
        near("distances of hundreds", &t5.encode(&ids(&io["long"])).unwrap(), &io["long_out"], bound);
        // a text's rows do not depend on the others
        let alone = t5.encode(&ids(&io["ids"])[1..]).unwrap();
        let both = t5.encode(&ids(&io["ids"])).unwrap();
        assert_eq!(error(&alone, &both.narrow(0, 1, 1).unwrap()), 0.0);
    }
    let of = load_in(&fixture("t5/text_encoder"), DType::F32).unwrap();
    let t5 = encoder(&of);
    assert!(t5.encode(&[]).unwrap_err().message().contains("no text"));
    assert_eq!(t5.encode(&[vec![1, 2], vec![1]]).unwrap_err().kind(), Kind::Shape);
    assert!(t5.encode(&[vec![256]]).unwrap_err().message().contains("beyond the text encoder's 256"));
}

/// Alone it is read as PixArt does: padding does not count, and is not attended to.
#[test]
fn alone_it_says_which_rows_count() {
    let io = read("t5/io.safetensors");
    let of = load_in(&fixture(WEIGHTS), DType::F32).unwrap();
    assert_eq!(of.joined(), Joined::Alone { lower: false, tokens: 300 });
    let texts: Vec<String> = ["a red apple on a white table", "A Photograph of an Astronaut"].map(String::from).into();
    let ask = Ask { tokens: Some(24), ..Ask::default() };
    let all = of.encode(&texts, ask).unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["context", "mask"]);
    let mask: Vec<Vec<f32>> = all["mask"].to_vec2().unwrap();
    for (i, (row, ids)) in mask.iter().zip(ids(&io["ids"])).enumerate() {
        let own = ids.iter().filter(|n| **n != 0).count();
        assert_eq!((row.iter().sum::<f32>(), row[own - 1]), (own as f32, 1.0));
        let part = |t: &Tensor| t.narrow(0, i, 1).unwrap().narrow(1, 0, own).unwrap();
        near("rows that count", &part(&all["context"]), &part(&io["masked_out"]), 3e-5);
        let rest = all["context"].narrow(0, i, 1).unwrap().narrow(1, own, 24 - own).unwrap();
        assert_eq!(rest.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }
    assert_eq!(of.encode(&texts[..1], Ask::default()).unwrap()["context"].dims(), [1, 300, 32]);
    for n in [0, 1, 1 << 20] {
        let e = of.encode(&texts, Ask { tokens: Some(n), ..Ask::default() }).unwrap_err();
        assert!(e.kind() == Kind::Value && e.message().contains("tokens"), "{e}");
    }
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A folder of diffusers with these text encoders, `clip` or `t5`.
fn folder(parts: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (part, end) in parts.iter().zip(["", "_2", "_3"]) {
        let (encoder, tokenizer) = match *part {
            "clip" => (latent("sd-tiny/text_encoder"), latent("sd-tiny/tokenizer")),
            _ => (fixture("t5/text_encoder"), fixture(TOKENIZER)),
        };
        copied(&encoder, &dir.path().join(format!("text_encoder{end}")));
        copied(&tokenizer, &dir.path().join(format!("tokenizer{end}")));
    }
    dir
}

fn at(path: &Path) -> Result<TextEncoder, Error> {
    text::load(path, Says::default(), &Device::Cpu, DType::F32)
}

#[test]
fn folders_give_what_their_denoisers_read() {
    let texts: Vec<String> = ["a cat", "the night sky"].map(String::from).into();
    let io = |of: &TextEncoder, ask: Ask| of.encode(&texts, ask).unwrap();
    let ask = Ask { tokens: Some(12), ..Ask::default() };
    let clip = at(&latent("sd-tiny")).unwrap();
    let own = io(&clip, Ask { pooled: true, ..Ask::default() });
    let before_last = {
        let ids: Vec<Vec<u32>> = texts.iter().map(|t| clip.filled(t).unwrap()).collect();
        let reads = Reads { skip: 1, normed: false, pooled: false };
        clip.readers()[0].clip().encode(&ids, reads).unwrap().context
    };
    let t5 = encoder(&load_in(&fixture(WEIGHTS), DType::F32).unwrap()).clone();
    let tokenizer = tokenizer(&fixture(TOKENIZER)).unwrap();
    let filled = |t: &String| -> Vec<u32> {
        let mut ids = tokenizer.tokens(t, 12).unwrap().ids;
        ids.resize(12, 0);
        ids
    };
    let rows = t5.encode(&texts.iter().map(filled).collect::<Vec<_>>()).unwrap();

    // FLUX.1
    let flux = folder(&["clip", "t5"]);
    let of = at(flux.path()).unwrap();
    assert_eq!(of.joined(), Joined::Apart);
    let found = io(&of, ask);
    near("flux context", &found["context"], &rows, 1e-6);
    near("flux pooled", &found["pooled"], &own["pooled"], 1e-6);
    assert_eq!(io(&of, Ask::default())["context"].dims(), [2, 512, 32]);

    // Stable Diffusion 3: here T5 is as narrow as one of CLIP's, so that two of them do not fit
    let sd3 = folder(&["clip", "clip", "t5"]);
    let of = at(sd3.path()).unwrap();
    assert_eq!(of.joined(), Joined::Behind(32));
    let e = of.encode(&texts, ask).unwrap_err();
    assert!(e.message().contains("64 channels, and T5's 32"), "{e}");
    // without T5 there are zeros in its place
    std::fs::remove_dir_all(sd3.path().join("text_encoder_3")).unwrap();
    std::fs::create_dir(sd3.path().join("transformer")).unwrap();
    let config = r#"{"_class_name": "SD3Transformer2DModel", "joint_attention_dim": 80}"#;
    std::fs::write(sd3.path().join("transformer/config.json"), config).unwrap();
    let told = std::rc::Rc::new(std::cell::RefCell::new(vec![]));
    let to = told.clone();
    ld3sh::host::on_note(move |text| to.borrow_mut().push(text.to_string()));
    let of = at(sd3.path()).unwrap();
    assert!(told.borrow().iter().any(|n| n.contains("there is no T5")), "{:?}", told.borrow());
    let found = io(&of, ask);
    let (context, pooled) = (&found["context"], &found["pooled"]);
    assert_eq!((context.dims(), pooled.dims()), (&[2, 77 + 12, 80][..], &[2, 64][..]));
    let part = |rows: usize, n: usize, from: usize, c: usize| {
        context.narrow(1, rows, n).unwrap().narrow(2, from, c).unwrap().contiguous().unwrap()
    };
    for from in [0, 32] {
        near("sd3 rows", &part(0, 77, from, 32), &before_last, 1e-6);
        near("sd3 pooled", &pooled.narrow(1, from, 32).unwrap(), &own["pooled"], 1e-6);
    }
    for zeros in [part(0, 77, 64, 16), part(77, 12, 0, 80)] {
        assert_eq!(zeros.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }

    // PixArt's texts are in lower case
    let pixart = folder(&["t5"]);
    let class = r#"{"_class_name": "PixArtSigmaPipeline"}"#;
    std::fs::write(pixart.path().join("model_index.json"), class).unwrap();
    let of = at(pixart.path()).unwrap();
    assert_eq!(of.joined(), Joined::Alone { lower: true, tokens: 300 });
    assert_eq!(of.tokens(" A CAT ").unwrap(), tokenizer.tokens("a cat", 300).unwrap().ids);
}

fn tensors() -> Vec<(String, Tensor)> {
    read(WEIGHTS).into_iter().collect()
}

fn under(root: &str, list: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    list.into_iter().map(|(n, t)| (format!("{root}{n}"), t)).collect()
}

fn written(dir: &Path, name: &str, list: &[(String, Tensor)]) -> PathBuf {
    let path = dir.join(name);
    safetensors::write(&path, list, &[]).unwrap();
    path
}

/// Files of one encoder each, and single files with all of them.
#[test]
fn files_of_their_own_are_read_together() {
    let dir = tempfile::tempdir().unwrap();
    let io = read("t5/io.safetensors");
    let own: Vec<(String, Tensor)> = {
        let own: Named = read("latent/sd-tiny/text_encoder/model.safetensors");
        own.into_iter().map(|(n, t)| (format!("text_model.{}", n.trim_start_matches("text_model.")), t)).collect()
    };
    let config = std::fs::read_to_string(latent("sd-tiny/text_encoder/config.json")).unwrap();
    let metadata = [("config".to_string(), config)];
    let clip_at = dir.path().join("clip_l.safetensors");
    // a map that FLUX.1 and Stable Diffusion 3 do not use
    let mapped = |list: &[(String, Tensor)], root: &str| {
        let map = Tensor::randn(0f32, 1.0, (32, 32), &Device::Cpu).unwrap();
        [under(root, list.to_vec()), vec![(format!("{root}text_projection.weight"), map)]].concat()
    };
    safetensors::write(&clip_at, &mapped(&own, ""), &metadata).unwrap();
    let t5_at = written(dir.path(), "t5xxl_fp16.safetensors", &tensors());
    let tokenizers = [latent("sd-tiny/tokenizer"), fixture(TOKENIZER)];
    let flux = text::load_all(&[&clip_at, &t5_at], says(&tokenizers[1]), &Device::Cpu, DType::F32);
    // CLIP's tokenizer that is compiled in is larger than this tiny encoder's
    assert!(flux.err().unwrap().message().contains("49408 tokens"));
    // whoever loads it for these models says that its map is none of theirs
    let held = ld3sh::files::checkpoint::open(&clip_at).unwrap();
    for (bare, projection) in [(false, Some(32)), (true, None)] {
        let more = bare.then(|| (clip::BARE.to_string(), String::new()));
        let metadata = held.metadata().clone().into_iter().chain(more).collect();
        let mut file = File::new(held.tensors(), &metadata, &Device::Cpu, DType::F32);
        let place = clip::places(held.tensors())[0];
        assert_eq!(clip::Encoder::build(place, &mut file).unwrap().config().projection, projection);
    }
    let one = text::load(&t5_at, says(&tokenizers[1]), &Device::Cpu, DType::F32).unwrap();
    near("a file", &encoder(&one).encode(&ids(&io["ids"])).unwrap(), &io["out"], 3e-5);

    for root in ["text_encoders.t5xxl.transformer.", "state_dict."] {
        let path = written(dir.path(), "all.safetensors", &under(root, tensors()));
        near(root, &encoder(&load_in(&path, DType::F32).unwrap()).encode(&ids(&io["ids"])).unwrap(), &io["out"], 3e-5);
    }
    let folder = folder(&["clip", "t5"]);
    let parts = ["text_encoder", "text_encoder_2"].map(|p| folder.path().join(p));
    let two = text::load_all(&[&parts[0], &parts[1]], Says::default(), &Device::Cpu, DType::F32).unwrap();
    assert_eq!(two.joined(), Joined::Apart);
    let ask = Ask { tokens: Some(12), ..Ask::default() };
    let whole = at(folder.path()).unwrap().encode(&["a cat".into()], ask).unwrap();
    let found = two.encode(&["a cat".into()], ask).unwrap();
    for name in ["context", "pooled"] {
        assert_eq!(error(&found[name], &whole[name]), 0.0);
    }
    // cut into several files, as large ones are
    let folder = tempfile::tempdir().unwrap();
    copied(&fixture(TOKENIZER), &folder.path().join("tokenizer"));
    let at_own = folder.path().join("text_encoder");
    std::fs::create_dir(&at_own).unwrap();
    let mut map = serde_json::Map::new();
    for (k, part) in tensors().chunks(9).enumerate() {
        let name = format!("model-{k:05}.safetensors");
        written(&at_own, &name, part);
        map.extend(part.iter().map(|(n, _)| (n.clone(), name.clone().into())));
    }
    let index = serde_json::json!({ "weight_map": map });
    std::fs::write(at_own.join("model.safetensors.index.json"), index.to_string()).unwrap();
    near("shards", &encoder(&at(folder.path()).unwrap()).encode(&ids(&io["ids"])).unwrap(), &io["out"], 3e-5);
    std::fs::remove_file(at_own.join("model-00001.safetensors")).unwrap();
    let e = at(folder.path()).err().unwrap();
    assert!(e.message().contains("model-00001.safetensors` is missing"), "{e}");
}

/// The value of a byte as FP8 with four bits of exponent has it.
fn e4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
    let size = if exponent == 0 { fraction * 2f32.powi(-6) } else { (1.0 + fraction) * 2f32.powi(exponent - 7) };
    if byte >> 7 == 1 { -size } else { size }
}

/// Weights in 8 bits, in units of their own or not, are what they are in f32, exactly.
#[test]
fn weights_of_8_bits_are_widened() {
    let dir = tempfile::tempdir().unwrap();
    for scaled in [false, true] {
        let (mut header, mut data, mut wide) = (serde_json::Map::new(), vec![], vec![]);
        let mut put = |name: &str, kind: &str, dims: &[usize], bytes: Vec<u8>| {
            let from = data.len();
            data.extend(bytes);
            let entry = serde_json::json!({ "dtype": kind, "shape": dims, "data_offsets": [from, data.len()] });
            header.insert(name.into(), entry);
        };
        let mut all = tensors();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        for (k, (name, t)) in all.iter().enumerate() {
            let map = t.rank() == 2 && name.contains(".layer.") && !name.contains("bias");
            if !map {
                let values: Vec<f32> = t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                put(name, "F32", t.dims(), values.iter().flat_map(|v| v.to_le_bytes()).collect());
                wide.push((name.clone(), t.clone()));
                continue;
            }
            // finite values below 1/2
            let unit = if scaled { 0.37 + 0.1 * k as f32 } else { 1.0 };
            let bytes: Vec<u8> = (0..t.elem_count()).map(|i| ((i * 37 % 48) | ((i * 11 % 2) << 7)) as u8).collect();
            let values: Vec<f32> = bytes.iter().map(|b| e4m3(*b) * unit).collect();
            wide.push((name.clone(), Tensor::from_vec(values, t.dims(), &Device::Cpu).unwrap()));
            put(name, "F8_E4M3", t.dims(), bytes);
            if scaled {
                put(&name.replace(".weight", ".scale_weight"), "F32", &[], unit.to_le_bytes().to_vec());
            }
        }
        if scaled {
            put("scaled_fp8", "F8_E4M3", &[0], vec![]);
        }
        let header = Value::Object(header).to_string();
        let path = dir.path().join("t5xxl_fp8_e4m3fn.safetensors");
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        std::fs::write(&path, bytes).unwrap();
        let tokens = vec![vec![4, 64, 14, 44, 3, 16, 4, 1]];
        let found = encoder(&load_in(&path, DType::F32).unwrap()).encode(&tokens).unwrap();
        let wide = written(dir.path(), "wide.safetensors", &wide);
        let wanted = encoder(&load_in(&wide, DType::F32).unwrap()).encode(&tokens).unwrap();
        near("8 bits", &found, &wanted, 1e-5);
    }
}

#[test]
fn what_is_not_whole_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = tensors();
    let without = |part: &str| whole.iter().filter(|(n, _)| !n.contains(part)).cloned().collect::<Vec<_>>();
    for (part, told) in [
        ("shared", "shared.weight"),
        ("relative_attention_bias", "relative_attention_bias"),
        ("block.1.layer.0.SelfAttention.k", "block.1.layer.0.SelfAttention.k"),
        ("wi_1", "wi_1"),
        ("final_layer_norm", "final_layer_norm"),
    ] {
        let e = refused(&written(dir.path(), "t5.safetensors", &without(part)));
        assert!(e.kind() == Kind::Format && e.message().contains(told), "{part}: {e}");
    }
    // no tokenizer beside a file, and none in a folder
    let alone = written(dir.path(), "t5.safetensors", &whole);
    let e = at(&alone).err().unwrap();
    assert!(e.message().contains("tokenizer of its T5 is missing") && e.fix().unwrap().contains("tokenizer:"), "{e}");
    let folder = folder(&["clip", "t5"]);
    std::fs::remove_dir_all(folder.path().join("tokenizer_2")).unwrap();
    let e = at(folder.path()).err().unwrap();
    assert!(e.fix().unwrap().contains("tokenizer_2") && e.fix().unwrap().contains("spiece.model"), "{e}");
    // CLIP's tokenizer in the place of T5's
    let e = text::load(&alone, says(&latent("sd-tiny/tokenizer")), &Device::Cpu, DType::F32).err().unwrap();
    assert!(e.message().contains("tokenizer of its T5 is missing"), "{e}");
    // one with more tokens than rows
    let small: Vec<(String, Tensor)> = whole
        .iter()
        .map(|(n, t)| {
            (
                n.clone(),
                if n == "shared.weight" { t.narrow(0, 0, 100).unwrap().contiguous().unwrap() } else { t.clone() },
            )
        })
        .collect();
    let e = refused(&written(dir.path(), "t5.safetensors", &small));
    assert!(e.message().contains("196 tokens") && e.message().contains("100"), "{e}");
    let metadata = |text: &str| [("config".to_string(), text.to_string())];
    for (config, why) in [
        (r#"{"feed_forward_proj": "relu"}"#, "feed_forward_proj: relu"),
        (r#"{"layer_norm_epsilon": 2}"#, "layer_norm_epsilon: 2"),
        (r#"{"relative_attention_max_distance": 3}"#, "relative_attention_max_distance: 3"),
    ] {
        let path = dir.path().join("t5.safetensors");
        safetensors::write(&path, &whole, &metadata(config)).unwrap();
        let e = refused(&path);
        assert!(e.message().contains(why), "{e}");
    }
}

/// Tokenizers that are cut off, of another kind, or lead out of themselves.
#[test]
fn damaged_tokenizers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = std::fs::read(fixture(TOKENIZER).join("spiece.model")).unwrap();
    let path = dir.path().join("spiece.model");
    let put = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        text::sentence(&path)
    };
    let e = put(&model[..model.len() / 2]).err().unwrap();
    assert!(e.kind() == Kind::Format && e.message().contains("spiece.model"), "{e}");
    // every byte of a varint set, a huge length
    let e = put(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").err().unwrap();
    assert_eq!(e.kind(), Kind::Format, "{e}");
    // whatever byte is wrong, it is read or refused, and what is read does not fail on texts
    for at in (0..model.len()).step_by(7) {
        let mut bytes = model.clone();
        bytes[at] ^= 0x5b;
        if let Ok(t) = put(&bytes) {
            t.tokens("a ﬁne ＡＢＣ é \u{212b} 日本 cat", 40).unwrap();
        }
    }
    let json = std::fs::read_to_string(fixture(TOKENIZER).join("tokenizer.json")).unwrap();
    let value: Value = serde_json::from_str(&json).unwrap();
    let path = dir.path().join("tokenizer.json");
    let changed = |f: &dyn Fn(&mut Value)| {
        let mut v = value.clone();
        f(&mut v);
        std::fs::write(&path, v.to_string()).unwrap();
        text::sentence(&path).err().unwrap()
    };
    type Damage<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Damage, &str); 9] = [
        (&|v| v["model"]["unk_id"] = 1e6.into(), "unk_id"),
        (&|v| v["model"]["vocab"] = Value::Array(vec![]), "0 pieces"),
        (&|v| v["model"]["type"] = "BPE".into(), "a tokenizer of BPE"),
        (&|v| v["normalizer"]["precompiled_charsmap"] = "////fw==".into(), "map of characters"),
        (&|v| v["normalizer"]["precompiled_charsmap"] = "?".into(), "map of characters"),
        (
            &|v| {
                let pattern = serde_json::json!({ "Regex": "(a*)*b" });
                v["normalizer"] = serde_json::json!({ "type": "Replace", "pattern": pattern, "content": "" });
            },
            "replaces",
        ),
        (&|v| v["pre_tokenizer"] = serde_json::json!({ "type": "BertPreTokenizer" }), "another kind"),
        (&|v| v["added_tokens"][1]["id"] = 1e12.into(), "cannot be made"),
        (
            &|v| {
                v["model"]["vocab"][0] = serde_json::json!(["<nothing>", 0.0]);
                v["added_tokens"] = serde_json::json!([]);
            },
            "<pad>",
        ),
    ];
    for (f, why) in cases {
        let e = changed(f);
        assert!(e.kind() == Kind::Format && e.message().contains("tokenizer.json"), "{e}");
        assert!(e.message().contains(why), "{why}: {e}");
    }
}
