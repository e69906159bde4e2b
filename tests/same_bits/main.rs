//! The bits of networks' outputs and gradients, and their hashes, are those that were recorded: results and caches of earlier versions
//! stay valid. Alone in its process, because it forces instruction sets.
//!
//! `LD3SH_RECORD=1` writes the record again, for a change of bits that is meant.
#[path = "../networks/helpers.rs"]
#[allow(dead_code)]
mod helpers;
#[path = "../common/trunks.rs"]
#[allow(dead_code)]
mod trunks;

use candle_core::{DType, Device, Tensor};
use helpers::{cases, fixture, uniform};
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::loss::Reduction;
use ld3sh::loss::perceptual::{Compare, Perceptual, Settings};
use ld3sh::model::{self, Source};
use ld3sh::nets::edm::{self, Config};
use ld3sh::nets::features::spec;
use ld3sh::nets::kernels::simd;
use ld3sh::nets::network::Net;
use ld3sh::tensor::grad;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What was recorded: "what instruction-set" → SHA-256, or a network's hash.
type Record = BTreeMap<String, String>;

fn digest(tensors: &[Tensor]) -> String {
    let mut h = Sha256::new();
    for t in tensors {
        h.update(format!("{:?}", t.dims()));
        for v in helpers::values(t) {
            h.update(v.to_le_bytes());
        }
    }
    h.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
}

/// Value and gradients of F on inputs made by name.
fn network(name: &str, net: &Net, batch: usize, dtype: DType) -> String {
    let shape = [&[batch], &net.sample_shape().unwrap()[..]].concat();
    let given = |what: &str, shape: &[usize]| uniform(&format!("{name}.{what}"), shape).to_dtype(dtype).unwrap();
    let (x, c, cot) = (given("x", &shape), given("c", &[batch]), given("cot", &shape));
    let cond = match net.classes() {
        0 => Cond::None,
        n => Cond::classes(given("labels", &[batch, n])),
    };
    let (y, pull) = net.linearize(&Quiet, &x, &c, &cond).unwrap();
    let plain = net.forward(&Quiet, &x, &c, &cond).unwrap();
    assert_eq!(helpers::values(&y), helpers::values(&plain), "{name}: recording changes no bits");
    let (gx, gc) = pull(&Quiet, &cot).unwrap();
    digest(&[y, gx, gc])
}

fn perceptual(name: &str, layers: Option<Vec<usize>>) -> String {
    let s = spec(name).unwrap();
    let compare = if name == "fashion28" { Compare::Plain } else { Compare::Lpips };
    let loss = Perceptual::new(s, trunks::state(name), Settings { layers, ..compare.into() }).unwrap();
    let shape = [3, s.channels, 64, 48];
    let image = |what: &str| grad::variable(&uniform(&format!("{name}.{what}"), &shape).to_dtype(DType::F32).unwrap());
    let (x, y) = (image("x").unwrap(), image("y").unwrap());
    let value = loss.eval(&x, &y, Reduction::None).unwrap();
    let sum = value.sum_all().unwrap();
    let g = grad::grad(&Quiet, &sum, &[x.clone(), y.clone()]).unwrap();
    let seen = loss.eval(&x.detach(), &y.detach(), Reduction::None).unwrap();
    digest(&[value.detach(), g[0].clone(), g[1].clone(), seen])
}

/// Configurations without a file, each with what others lack.
const RANDOM: [(&str, &str); 4] = [
    (
        "wide",
        r#"{"img_resolution": 16, "img_channels": 3, "augment_dim": 9, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8], "model_channels": 64}"#,
    ),
    (
        "residual",
        r#"{"img_resolution": 16, "img_channels": 3, "model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8], "embedding_type": "fourier", "encoder_type": "residual", "resample_filter": [1, 3, 3, 1], "label_dim": 4}"#,
    ),
    (
        "skips",
        r#"{"img_resolution": 16, "img_channels": 3, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 2, "attn_resolutions": [8], "encoder_type": "skip", "decoder_type": "skip"}"#,
    ),
    (
        "adm",
        r#"{"model_type": "DhariwalUNet", "img_resolution": 16, "img_channels": 3, "model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8], "label_dim": 5, "augment_dim": 3}"#,
    ),
];

fn networks(dtype: DType) -> Vec<(String, Net)> {
    let cpu = Device::Cpu;
    let mut all = vec![("fashion28".to_string(), model::denoiser(&Source::Builtin("fashion28"), &cpu, dtype).unwrap())];
    for file in [
        "ddpmpp_edm.pkl",
        "ddpmpp_edm.weights.safetensors",
        "ddpmpp_vp.weights.safetensors",
        "ncsnpp_edm.weights.safetensors",
        "adm_edm_cond.pkl",
    ] {
        let path = fixture(&format!("edm/{file}"));
        all.push((file.into(), model::denoiser(&Source::Path(path), &cpu, dtype).unwrap()));
    }
    all.extend(cases().into_iter().map(|c| (c.name.clone(), c.load(dtype))));
    // random weights are made in f32
    for (name, json) in RANDOM.into_iter().filter(|_| dtype == DType::F32) {
        let config = Config::parse(json).unwrap();
        all.push((format!("random {name}"), edm::random_in(&config, 7, &cpu, dtype).unwrap()));
    }
    all
}

/// Everything on this machine.
fn now() -> Record {
    let mut record = Record::new();
    let nets = networks(DType::F32);
    let sets = simd::available();
    for (set, arch) in &sets {
        simd::force(*arch);
        for (name, net) in &nets {
            record.insert(format!("{name} {set}"), network(name, net, 5, DType::F32));
        }
        for s in ["fashion28", "alex", "squeeze", "vgg"] {
            // VGG's first taps hold all its kinds of layers
            let layers = (s == "vgg").then(|| vec![0, 2]);
            record.insert(format!("trunk {s} {set}"), perceptual(s, layers));
        }
    }
    for (name, net) in &nets {
        record.insert(format!("{name} hash"), net.hash().unwrap());
    }
    let widest = sets.last().unwrap().0;
    for (name, net) in networks(DType::F64) {
        record.insert(format!("{name} hash in f64"), net.hash().unwrap());
        // candle's products use the widest set, whatever is forced
        record.insert(format!("{name} f64 on {widest}"), network(&name, &net, 2, DType::F64));
    }
    record
}

#[test]
fn networks_give_the_bits_that_were_recorded() {
    let path = fixture("bits.json");
    let now = now();
    if std::env::var_os("LD3SH_RECORD").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
        return;
    }
    let recorded: Record = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let other: Vec<&String> = now.keys().filter(|k| recorded.get(*k).is_some_and(|r| *r != now[*k])).collect();
    assert!(other.is_empty(), "other bits than recorded: {other:#?}");
    // an instruction set that was not at hand when it was recorded has nothing to be compared with
    let compared = now.keys().filter(|k| recorded.contains_key(*k)).count();
    assert!(compared > 60, "only {compared} of {} were recorded", now.len());
}
