//! Hostile variants of every format that is read, made at random from sound files: bits flipped, bytes set, parts cut off, left out or
//! doubled, numbers blown up. No reader may panic or hang; where a format has a checksum, nothing may be read but what was written.
//!
//! A few seconds by default; `LD3SH_VARIANTS=60` makes it run for about that many seconds a format.
use candle_core::{DType, Device, Tensor};
use ld3sh::files::image::Image;
use ld3sh::files::pickle::Shared;
use ld3sh::files::state::{self, Data};
use ld3sh::files::{checkpoint, cloud, image, json, npy, result, safetensors};
use ld3sh::script::modules;
use ld3sh::shell::lex;
use ld3sh::text::{Tokenizer, Vocabulary};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// What is read, as text that tells every bit of it; an error is its message.
type Read = fn(&[u8]) -> Result<BTreeMap<String, String>, String>;

struct Format {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    read: Read,
    /// Whether all of its values are under checksums.
    sealed: bool,
}

fn tensors(list: impl IntoIterator<Item = (String, Tensor)>) -> BTreeMap<String, String> {
    let bits = |t: &Tensor| {
        let bytes = state::to_bytes(&Data::Tensor(t.clone())).unwrap();
        format!("{:?} {:?} {}", t.dtype(), t.dims(), ld3sh::files::hash::sha256(&bytes))
    };
    list.into_iter().map(|(name, t)| (name, bits(&t))).collect()
}

fn text(e: ld3sh::Error) -> String {
    e.to_string()
}

fn read_npy(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    Ok(tensors([(String::new(), npy::from_bytes(bytes).map_err(text)?)]))
}
fn read_npz(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    Ok(tensors(npy::read_archive(&Shared::new(bytes.to_vec()).into()).map_err(text)?))
}
fn read_checkpoint(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let c = checkpoint::from_bytes(&Shared::new(bytes.to_vec()), false).map_err(text)?;
    let mut all = tensors(c.readable("").map_err(text)?);
    all.extend(c.metadata().iter().map(|(k, v)| (format!("metadata {k}"), v.clone())));
    Ok(all)
}
fn read_png(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let i = Image::from_png(bytes).map_err(text)?;
    Ok([(String::new(), format!("{}×{}×{} {:?}", i.width, i.height, i.channels, i.data))].into())
}
fn read_schedule(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let loaded = result::parse(&String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())?, false).map_err(text)?;
    // dates stand outside of the hash
    let body = loaded.body.into_iter().filter(|(k, _)| k != "made" && k != "sha256");
    Ok(body.map(|(k, v)| (k, result::canonical(&v))).collect())
}
fn read_json(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    json::parse(&String::from_utf8_lossy(bytes)).map_err(text).map(|v| [(String::new(), v.to_string())].into())
}
fn read_state(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let again = state::to_bytes(&state::from_bytes(bytes).map_err(text)?).map_err(text)?;
    Ok([(String::new(), ld3sh::files::hash::sha256(&again))].into())
}
fn read_script(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let script = String::from_utf8_lossy(bytes).into_owned();
    let l = lex::lex(&script);
    assert!(l.tokens.iter().all(|t| t.start < t.end && script.get(t.start..t.end).is_some()));
    let mut engine = rhai::Engine::new_raw();
    // as the product's, and not fewer with debug assertions
    engine.set_max_expr_depths(512, 512);
    modules::compile(&engine, "x", &script).map_err(|e| e.to_string())?;
    Ok(BTreeMap::new())
}

fn read_ply(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    Ok(tensors([(String::new(), cloud::ply::read(bytes).and_then(cloud::Points::tensor).map_err(text)?)]))
}
fn read_xyz(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    Ok(tensors([(String::new(), cloud::xyz::read(bytes).and_then(cloud::Points::tensor).map_err(text)?)]))
}

/// A cloud as PLY with faces behind its vertices, big-endian.
fn meshed() -> Vec<u8> {
    let mut out = b"ply\nformat binary_big_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty double z\nproperty list uchar int near\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n".to_vec();
    for i in 0..3i32 {
        out.extend((i as f32).to_be_bytes());
        out.extend(0.5f32.to_be_bytes());
        out.extend(f64::from(i).sqrt().to_be_bytes());
        out.push(1);
        out.extend(i.to_be_bytes());
    }
    out.push(3);
    (0..3i32).for_each(|i| out.extend(i.to_be_bytes()));
    out
}

/// The bytes of a file that `write` makes.
fn file(name: &str, write: impl FnOnce(&Path) -> ld3sh::Result<()>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    write(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// A vocabulary by what becomes of a text.
fn read_vocabulary(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vocabulary");
    std::fs::write(&path, bytes).unwrap();
    let tokenizer = Vocabulary::open(&path).and_then(Tokenizer::new).map_err(text)?;
    let tokens = tokenizer.tokens("the other thing, in 3 colours: é!", 77).map_err(text)?;
    Ok([("tokens".into(), format!("{tokens:?} {}", tokenizer.size()))].into())
}

/// The merges alone, packed, and a tokenizer with tokens and merges.
fn vocabularies() -> [Vec<u8>; 2] {
    use std::io::Write;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/latent/sd-tiny/tokenizer");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    packed.write_all(read("merges.txt").as_bytes()).unwrap();
    let merges: Vec<String> = read("merges.txt").lines().skip(1).map(String::from).collect();
    let vocab: serde_json::Value = serde_json::from_str(&read("vocab.json")).unwrap();
    let whole = serde_json::json!({ "model": { "type": "BPE", "vocab": vocab, "merges": merges } });
    [packed.finish().unwrap(), whole.to_string().into_bytes()]
}

fn formats() -> Vec<Format> {
    let values = |shape: &[usize], dtype| {
        let n: usize = shape.iter().product();
        let v = (0..n).map(|i| i as f64 * 0.75 - 3.0).collect::<Vec<_>>();
        Tensor::from_vec(v, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    let fixture =
        |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap();
    let named: Vec<(String, Tensor)> = [DType::F32, DType::F64, DType::I64, DType::U8, DType::F16]
        .iter()
        .enumerate()
        .map(|(i, d)| (format!("x{i}"), values(&[2, i + 1], *d)))
        .collect();
    let map: BTreeMap<String, Data> = named.iter().map(|(k, t)| (k.clone(), Data::Tensor(t.clone()))).collect();
    let steps = ld3sh::discretize::Schedule::from_steps(
        ld3sh::noise::from_spec(&serde_json::json!({ "name": "edm" })).unwrap(),
        &[80.0, 3.0, 0.5, 0.002],
        "test",
    );
    let grey = Image { width: 5, height: 4, channels: 1, data: (0..20).map(|i| i * 12).collect() };
    let rgb = image::grid(&values(&[2, 3, 4, 4], DType::F32), &image::GridOptions::default()).unwrap();
    vec![
        Format {
            name: "npy",
            seeds: vec![
                file("a.npy", |p| npy::write_npy(p, &values(&[3, 4], DType::F32))),
                file("a.npy", |p| npy::write_npy(p, &values(&[7], DType::I64))),
            ],
            read: read_npy,
            sealed: false,
        },
        Format { name: "npz", seeds: vec![file("a.npz", |p| npy::write_npz(p, &named))], read: read_npz, sealed: true },
        Format {
            name: "safetensors",
            seeds: vec![file("a.safetensors", |p| safetensors::write(p, &named, &[("k".into(), "v".into())]))],
            read: read_checkpoint,
            sealed: false,
        },
        Format {
            name: "ply",
            seeds: vec![
                file("a.ply", |p| cloud::save(p, &values(&[4, 3], DType::F32), false)),
                file("a.ply", |p| cloud::save(p, &values(&[4, 3], DType::F64), true)),
                meshed(),
            ],
            read: read_ply,
            sealed: false,
        },
        Format {
            name: "xyz",
            seeds: vec![
                file("a.xyz", |p| cloud::save(p, &values(&[4, 3], DType::F32), false)),
                b"# scan\n1.5, 2e-1; -3 255 0 0\n4 5 6 1 2 3 // last\n".to_vec(),
            ],
            read: read_xyz,
            sealed: false,
        },
        Format { name: "pt", seeds: vec![fixture("pickle/state_p4.pt")], read: read_checkpoint, sealed: true },
        Format {
            name: "pickle",
            seeds: vec![fixture("pickle/numpy_p2.pkl"), fixture("pickle/state_legacy_p2.pth")],
            read: read_checkpoint,
            sealed: false,
        },
        Format {
            name: "png",
            seeds: vec![grey.to_png().unwrap(), rgb.to_png().unwrap()],
            read: read_png,
            sealed: true,
        },
        Format {
            name: "schedule",
            seeds: vec![file("a.json", |p| result::save(p, &steps.unwrap(), Default::default()))],
            read: read_schedule,
            sealed: true,
        },
        Format {
            name: "json",
            seeds: vec![br#"{"a": [1, -2.5e3, "x\u00e9\n", null], "b": {"c": true, "d": {}}}"#.to_vec()],
            read: read_json,
            sealed: false,
        },
        Format { name: "packed merges", seeds: vec![vocabularies()[0].clone()], read: read_vocabulary, sealed: true },
        Format { name: "tokenizer", seeds: vec![vocabularies()[1].clone()], read: read_vocabulary, sealed: false },
        Format {
            name: "state",
            seeds: vec![state::to_bytes(&Data::Map(map)).unwrap()],
            read: read_state,
            sealed: true,
        },
        Format {
            name: "script",
            seeds: vec![
                include_bytes!("../stdlib/cache.rhai").to_vec(),
                b"let x = `a${1 + \"b\"}`; /* c */ #{ a: [1, 2] }.a[0]".to_vec(),
            ],
            read: read_script,
            sealed: false,
        },
    ]
}

/// A variant of `seed`, one to three changes away.
fn variant(seed: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..1 + random.next_u32() % 3 {
        if out.is_empty() {
            break;
        }
        // the beginning and the end hold what decides
        let near = match random.next_u32() % 3 {
            0 => out.len().min(200),
            _ => out.len(),
        };
        let mut at = random.next_u64() as usize % near;
        if random.next_u32().is_multiple_of(3) {
            at = out.len() - 1 - at;
        }
        let n = 1 + random.next_u64() as usize % 16.min(out.len() - at);
        match random.next_u32() % 8 {
            0..=2 => out[at] ^= 1 << (random.next_u32() % 8),
            3 => out[at] = random.next_u32() as u8,
            4 => out.truncate(at),
            5 => drop(out.drain(at..at + n)),
            6 => {
                let part = out[at..at + n].to_vec();
                out.splice(at..at, part);
            }
            // a size, blown up
            _ => out[at..at + n.min(8)].fill([0xff, 0x7f, 0x39][random.next_u32() as usize % 3]),
        }
    }
    out
}

#[test]
fn variants_are_refused_or_read_right() {
    ld3sh::script::panics::quiet();
    let seconds = std::env::var("LD3SH_VARIANTS").ok().and_then(|s| s.parse().ok()).unwrap_or(0.4);
    let mut wrong = vec![];
    for format in formats() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let sound: Vec<_> =
            format.seeds.iter().map(|s| (format.read)(s).unwrap_or_else(|e| panic!("{}: {e}", format.name))).collect();
        let (start, mut made, mut refused, mut slowest) = (Instant::now(), 0, 0, Duration::ZERO);
        while start.elapsed() < Duration::from_secs_f64(seconds) {
            let i = made % format.seeds.len();
            let bytes = variant(&format.seeds[i], &mut random);
            let begin = Instant::now();
            let read = catch_unwind(AssertUnwindSafe(|| (format.read)(&bytes)));
            slowest = slowest.max(begin.elapsed());
            made += 1;
            let why = match read {
                Err(_) => Some("panics".to_string()),
                Ok(Err(_)) => {
                    refused += 1;
                    None
                }
                // what is left out is told by a note; what is there must be what was written
                Ok(Ok(all)) if format.sealed => {
                    all.iter().find(|(k, v)| sound[i].get(*k) != Some(v)).map(|(k, _)| format!("`{k}` is read wrong"))
                }
                Ok(Ok(_)) => None,
            };
            if let Some(why) = why {
                let path = std::env::temp_dir().join(format!("ld3sh-variant-{}-{made}", format.name));
                std::fs::write(&path, &bytes).unwrap();
                wrong.push(format!("{}: {} {why}", format.name, path.display()));
            }
        }
        println!("{}: {made} variants, {refused} refused, the slowest took {slowest:?}", format.name);
        assert!(made > 20 && refused > made / 10, "{}: only {refused} of {made} were refused", format.name);
        assert!(slowest < Duration::from_secs(10), "{}: {slowest:?}", format.name);
    }
    assert!(wrong.is_empty(), "{} of these:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
