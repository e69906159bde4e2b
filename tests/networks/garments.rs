//! The small latent models that are compiled in, against values and gradients from PyTorch (models/train/reference.py).
use super::helpers::read;
use super::latent::{Named, graph, net, network_parity, stage_parity};
use candle_core::{DType, Device};
use ld3sh::denoise::{Cond, Denoiser};
use ld3sh::model::{self, Source};
use ld3sh::nets::family::Role;

const NAMES: [&str; 3] = ["fashion28-latent", "fashion28-flow", "fashion28-reflow"];

/// A part of the fixture, by the names that others have: `latent.out` as `io.out`.
fn part(io: &Named, name: &str) -> Named {
    let of = |k: &String| k.strip_prefix(&format!("{name}.")).map(|k| format!("io.{k}"));
    io.iter().filter_map(|(k, t)| Some((of(k)?, t.clone()))).collect()
}

#[test]
fn compiled_in_latent_models_match_in_value_and_gradients() {
    let io = read("latent/fashion28.io.safetensors");
    let names = ["io.out", "io.cotangent", "io.grad_z"];
    for name in NAMES {
        for dtype in [DType::F32, DType::F64] {
            let all = model::load(&Source::Builtin(name), &Device::Cpu, dtype).unwrap();
            let (decode, encode) = (part(&io, "decode"), part(&io, "encode"));
            stage_parity(
                &format!("{name} decode"),
                &graph(&all, Role::Decoder),
                "z",
                0,
                &decode["io.z"],
                &decode,
                names,
            );
            let names = ["io.out", "io.cotangent", "io.grad_x"];
            stage_parity(
                &format!("{name} encode"),
                &graph(&all, Role::Encoder),
                "x",
                1,
                &encode["io.x"],
                &encode,
                names,
            );
            // the third row of the labels is that of no class
            let rows = Cond::classes(io["label"].clone());
            network_parity(name, &net(all), &part(&io, name.trim_start_matches("fashion28-")), &rows);
        }
    }
}

#[test]
fn they_know_their_classes_and_schedules() {
    let load = |name| model::denoiser(&Source::Builtin(name), &Device::Cpu, DType::F32).unwrap();
    for name in NAMES {
        let net = load(name);
        assert!(net.notes().is_empty(), "{name}: {:?}", net.notes());
        let denoiser = net.denoiser().unwrap();
        assert_eq!(denoiser.classes(), 10, "{name}");
        assert_eq!(denoiser.sample_shape().as_deref(), Some(&[4, 7, 7][..]), "{name}");
        let wanted = if name == "fashion28-latent" { "vp_discrete" } else { "flow" };
        assert_eq!(denoiser.noise().spec()["name"], wanted, "{name}");
    }
}
