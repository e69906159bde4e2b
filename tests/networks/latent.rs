//! Latent diffusion's networks and autoencoders, Stable Diffusion's and improved-diffusion's, against the public code's numbers.
use crate::helpers::latent as fixture;
use candle_core::safetensors::{MmapedSafetensors, load};
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Given, Source, through};
use ld3sh::nets::family::{Part, Parts, Role};
use ld3sh::nets::network::Net;
use ld3sh::nets::runner::Runner;
use ld3sh::tensor::grad;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

pub type Named = HashMap<String, Tensor>;

fn io(name: &str) -> Named {
    load(fixture(&format!("{name}.io.safetensors")), &Device::Cpu).unwrap()
}

fn given(options: serde_json::Value) -> Given {
    options.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn parts_of(path: &Path, dtype: DType, options: serde_json::Value) -> ld3sh::Result<Parts> {
    model::load_given(&Source::Path(path.into()), &Device::Cpu, dtype, given(options))
}

fn parts(name: &str, dtype: DType, options: serde_json::Value) -> Parts {
    parts_of(&fixture(&format!("{name}.weights.safetensors")), dtype, options).unwrap()
}

pub fn net(mut parts: Parts) -> Net {
    match parts.remove(&Role::Denoiser) {
        Some(Part::Denoiser(net)) => net,
        _ => panic!("no denoiser"),
    }
}

pub fn graph(parts: &Parts, role: Role) -> Runner {
    match parts.get(&role) {
        Some(Part::Graph(runner)) => runner.clone(),
        _ => panic!("no {}", role.name()),
    }
}

/// Fails unless `got` is as near as it must be; an exact zero must stay one.
pub fn near(what: &str, got: &Tensor, wanted: &Tensor, tolerance: f64) {
    let top = wanted.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
    if top == 0.0 {
        let most = got.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        assert!(most < 1e-5, "{what}: {most:e} instead of 0");
        return;
    }
    let e = super::nets::error(got, wanted);
    eprintln!("{what}: {e:.1e}");
    assert!(e < tolerance, "{what} is off by {e:e}");
}

fn context(t: &Tensor) -> Cond {
    Cond::Named([("context".to_string(), t.clone())].into())
}

/// Value and gradients of a network as the fixture has them, in f32 and in f64.
fn parity(name: &str, options: serde_json::Value, cond: impl Fn(&Named) -> Cond) {
    let io = io(name);
    for dtype in [DType::F32, DType::F64] {
        let net = net(parts(name, dtype, options.clone()));
        network_parity(&format!("{name} {dtype:?}"), &net, &io, &cond(&io));
    }
}

pub fn network_parity(what: &str, net: &Net, io: &Named, cond: &Cond) {
    let (y, pull) = net.linearize(&Quiet, &io["io.x"], &io["io.t"], cond).unwrap();
    // a learned variance is dropped, and with it its share of the gradients
    let channels = y.dim(1).unwrap();
    let whole = io["io.out"].dim(1).unwrap() == channels;
    near(&format!("{what} out"), &y, &io["io.out"].narrow(1, 0, channels).unwrap(), 3e-5);
    if whole {
        let (gx, gt) = pull(&Quiet, &io["io.cotangent"]).unwrap();
        near(&format!("{what} grad x"), &gx, &io["io.grad_x"], 1e-4);
        near(&format!("{what} grad t"), &gt, &io["io.grad_t"], 1e-4);
    }
}

#[test]
fn the_unconditional_network_is_that_of_the_code() {
    parity("ldm_uncond", json!({}), |_| Cond::None);
}

#[test]
fn stable_diffusions_network_is_that_of_the_code() {
    parity("sd_compvis", json!({}), |io| context(&io["io.context"]));
    let io = io("sd_compvis");
    context_gradient("sd_compvis", net(parts("sd_compvis", DType::F32, json!({}))), &io);
}

/// The gradient in what attention looks at.
fn context_gradient(name: &str, net: Net, io: &Named) {
    let given = [("x", &io["io.x"]), ("c_noise", &io["io.t"]), ("context", &io["io.context"])];
    let (_, pull) = net.runner().linearize(&given, &["context"]).unwrap();
    let g = pull(&[Some(&io["io.cotangent"])]).unwrap().remove(0);
    near(&format!("{name} grad context"), &g, &io["io.grad_context"], 1e-4);
}

/// A file of the same tensors, with names changed or left out.
fn changed(name: &str, metadata: bool, change: impl Fn(&str) -> Option<String>) -> (tempfile::TempDir, PathBuf) {
    let path = fixture(&format!("{name}.weights.safetensors"));
    let all = load(&path, &Device::Cpu).unwrap();
    let tensors: HashMap<String, Tensor> = all.into_iter().filter_map(|(n, t)| Some((change(&n)?, t))).collect();
    let bytes = std::fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("changed.safetensors");
    let metadata = if metadata { header.metadata().clone() } else { None };
    safetensors::serialize_to_file(&tensors, metadata, &to).unwrap();
    (dir, to)
}

#[test]
fn the_class_conditional_network_is_that_of_the_code() {
    let io = io("ldm_class");
    let labels: Vec<i64> = io["io.class"].to_vec1().unwrap();
    // the last entry of its embedding is no class: it has ten
    let rows = |dtype| {
        let one_hot = ld3sh::denoise::one_hot(&labels, 10, dtype, &Device::Cpu).unwrap();
        Cond::classes(one_hot)
    };
    parity("ldm_class", json!({}), |_| rows(DType::F32));
    let net = net(parts("ldm_class", DType::F32, json!({})));
    assert_eq!(net.classes(), 10);
    let without = net.forward(&Quiet, &io["io.x"], &io["io.t"], &Cond::None).unwrap();
    near("no class", &without, &io["io.out_uncond"], 3e-5);
    let with = net.forward(&Quiet, &io["io.x"], &io["io.t"], &rows(DType::F32)).unwrap();
    let guided = (&without + ((with - &without).unwrap() * 2.0).unwrap()).unwrap();
    near("guided by 2", &guided, &io["io.out_guided_2"], 6e-5);
    // without its embedder the context itself is asked for
    let (_dir, path) = changed("ldm_class", true, |n| (!n.starts_with("cond_stage")).then(|| n.into()));
    let bare = self::net(parts_of(&path, DType::F32, json!({})).unwrap());
    network_parity("ldm_class by context", &bare, &io, &context(&io["io.context"]));
    context_gradient("ldm_class", bare, &io);
}

#[test]
fn improved_diffusions_network_drops_its_variances() {
    let options = json!({ "schedule": "iddpm_cosine", "size": 8 });
    let io = io("iddpm_scale_shift");
    for dtype in [DType::F32, DType::F64] {
        let net = net(parts("iddpm_scale_shift", dtype, options.clone()));
        network_parity(&format!("iddpm {dtype:?}"), &net, &io, &Cond::None);
        assert_eq!(net.sample_shape().unwrap()[0], 3);
    }
    let net = net(parts("iddpm_scale_shift", DType::F32, options));
    assert!(net.describe().starts_with("iDDPM U-Net 8×8×3"), "{}", net.describe());
    let untold = parts_of(&fixture("iddpm_scale_shift.weights.safetensors"), DType::F32, json!({})).err().unwrap();
    assert!(untold.fix().unwrap().contains("`schedule`"), "{untold}");
    let d = net.denoiser().unwrap();
    let noise = ld3sh::denoise::Denoiser::noise(&d);
    assert_eq!((noise.name(), noise.t_min()), ("vp_discrete", 1.0 / 4000.0));
}

pub fn stage_parity(
    what: &str,
    runner: &Runner,
    name: &'static str,
    which: usize,
    x: &Tensor,
    io: &Named,
    of: [&str; 3],
) {
    let x = grad::variable(x).unwrap();
    let y = through(runner, name, which, &x).unwrap();
    near(&format!("{what} out"), &y.detach(), &io[of[0]], 3e-5);
    let bar = io[of[1]].to_dtype(y.dtype()).unwrap();
    let loss = (&y * bar).unwrap().sum_all().unwrap();
    let g = grad::grad(&Quiet, &loss, std::slice::from_ref(&x)).unwrap().remove(0);
    near(&format!("{what} grad"), &g, &io[of[2]], 1e-4);
    // a second pull-back runs it again
    let again = grad::grad(&Quiet, &loss, &[x]).unwrap().remove(0);
    assert_eq!(super::nets::flat(&again), super::nets::flat(&g));
}

#[test]
fn the_autoencoder_with_codes_is_that_of_the_code() {
    let io = io("vq_f4");
    for dtype in [DType::F32, DType::F64] {
        let both = parts("vq_f4", dtype, json!({}));
        let (decode, encode) = (graph(&both, Role::Decoder), graph(&both, Role::Encoder));
        let names = ["io.decode_out", "io.decode_cotangent", "io.decode_grad_z"];
        stage_parity("vq decode", &decode, "z", 0, &io["io.z"], &io, names);
        let names = ["io.encode_out", "io.encode_cotangent", "io.encode_grad_image"];
        stage_parity("vq encode", &encode, "x", 0, &io["io.image"], &io, names);
        let plain = graph(&parts("vq_f4", dtype, json!({ "quantize": false })), Role::Decoder);
        let names = ["io.decode_unquantized_out", "io.decode_unquantized_cotangent", "io.decode_unquantized_grad_z"];
        stage_parity("vq decode, not quantized", &plain, "z", 0, &io["io.z"], &io, names);
    }
}

fn renamed(name: &str) -> (tempfile::TempDir, PathBuf) {
    let text = std::fs::read_to_string(fixture(&format!("{name}.diffusers-names.json"))).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names: BTreeMap<String, String> = serde_json::from_value(all["names"].clone()).unwrap();
    changed(name, false, |n| names.get(n).cloned())
}

#[test]
fn the_autoencoder_with_a_distribution_is_that_of_the_code() {
    let io = io("kl_f2");
    let (_dir, diffusers) = renamed("kl_f2");
    for path in [fixture("kl_f2.weights.safetensors"), diffusers] {
        let both = parts_of(&path, DType::F32, json!({ "scale_factor": 1.0 })).unwrap();
        let names = ["io.decode_out", "io.decode_cotangent", "io.decode_grad_z"];
        stage_parity("kl decode", &graph(&both, Role::Decoder), "z", 0, &io["io.z"], &io, names);
        let names = ["io.encode_out", "io.encode_cotangent", "io.encode_grad_image"];
        let encode = graph(&both, Role::Encoder);
        stage_parity("kl encode", &encode, "x", 1, &io["io.image"], &io, names);
        near("kl mean", &through(&encode, "x", 0, &io["io.image"]).unwrap(), &io["io.encode_mean"], 3e-5);
        // by the file's factor, or that of what is published
        let scaled = parts_of(&path, DType::F32, json!({})).unwrap();
        let z = (&io["io.z"] * 0.18215).unwrap();
        near("kl scaled", &through(&graph(&scaled, Role::Decoder), "z", 0, &z).unwrap(), &io["io.decode_out"], 3e-5);
    }
}

#[test]
fn an_encoder_with_a_distribution_gives_its_deviation() {
    let io = io("kl_f2");
    let both = parts("kl_f2", DType::F64, json!({ "scale_factor": 0.5 }));
    let encode = graph(&both, Role::Encoder);
    let x = grad::variable(&io["io.image"].to_dtype(DType::F64).unwrap()).unwrap();
    let found = model::through_some(&encode, "x", &[2, 1], &x).unwrap();
    assert_eq!(encode.graph().outputs[2].name, ld3sh::nets::ldm::DEVIATION);
    // exp(v/2) of the log variance, as the denoiser has latents
    let v = found[1].narrow(1, 4, 4).unwrap();
    let wanted = ((v.detach() * 0.5).unwrap().exp().unwrap() * 0.5).unwrap();
    near("deviation", &found[0].detach(), &wanted, 1e-12);
    // its gradient is that of the formula
    let formula = (((&v * 0.5).unwrap().exp().unwrap() * 0.5).unwrap()).sum_all().unwrap();
    let one = |loss: &Tensor| grad::grad(&Quiet, loss, std::slice::from_ref(&x)).unwrap().remove(0);
    near("deviation grad", &one(&found[0].sum_all().unwrap()), &one(&formula), 1e-12);
}

#[test]
fn latents_need_not_be_square() {
    let options = json!({ "height": 8, "width": 12 });
    let path = fixture("ldm_uncond.weights.safetensors");
    let wide = net(parts_of(&path, DType::F32, options).unwrap());
    assert_eq!(wide.sample_shape().unwrap(), [3, 8, 12]);
    assert!(wide.describe().contains("8×12×3"), "{}", wide.describe());
    let x = uniform_f32("wide", &[1, 3, 8, 12]);
    let t = Tensor::new(&[500f32], &Device::Cpu).unwrap();
    let y = wide.forward(&Quiet, &x, &t, &Cond::None).unwrap();
    // turned round, with the network's kernels turned, it would be the same; here: columns are columns
    let tall = net(parts_of(&path, DType::F32, json!({ "height": 12, "width": 8 })).unwrap());
    let turned = tall.forward(&Quiet, &x.transpose(2, 3).unwrap().contiguous().unwrap(), &t, &Cond::None).unwrap();
    assert_eq!((y.dims(), turned.dims()), (&[1, 3, 8, 12][..], &[1, 3, 12, 8][..]));
    assert!(super::nets::flat(&y).iter().all(|v| v.is_finite()));
    let e = parts_of(&path, DType::F32, json!({ "height": 9, "width": 8 })).err().unwrap();
    assert!(e.to_string().contains("9×8") && e.fix().unwrap().contains("multiples of 2"), "{e}");
}

fn uniform_f32(name: &str, dims: &[usize]) -> Tensor {
    super::helpers::uniform(name, dims).to_dtype(DType::F32).unwrap()
}

/// An archive that stores files as they are.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (vec![], vec![]);
    for (name, data) in files {
        let at = out.len() as u32;
        let mut crc = crc32fast::Hasher::new();
        crc.update(data);
        let mut head = vec![];
        // version, flags, method, time, date
        head.extend([20u16, 0, 0, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
        let sizes = [crc.finalize(), data.len() as u32, data.len() as u32];
        head.extend(sizes.iter().flat_map(|v| v.to_le_bytes()));
        head.extend([name.len() as u16, 0].iter().flat_map(|v| v.to_le_bytes()));
        out.extend(b"PK\x03\x04".iter().chain(&head).chain(name.as_bytes()).chain(*data));
        directory.extend(b"PK\x01\x02\x14\0".iter().chain(&head));
        directory.extend([0u16, 0, 0, 0, 0].iter().flat_map(|v| v.to_le_bytes()));
        directory.extend(at.to_le_bytes().iter().chain(name.as_bytes()));
    }
    let (at, size, n) = (out.len() as u32, directory.len() as u32, files.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([n, n].iter().flat_map(|v| v.to_le_bytes()));
    out.extend([size, at].iter().flat_map(|v| v.to_le_bytes()).chain([0, 0]));
    out
}

/// Latent diffusion publishes some of its checkpoints in archives, with a configuration beside them.
#[test]
fn a_checkpoint_within_an_archive_is_read() {
    let ckpt = std::fs::read(fixture("ldm_lightning.ckpt")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("published.zip");
    std::fs::write(&path, archive(&[("config.yaml", b"model: {}"), ("model.ckpt", &ckpt)])).unwrap();
    let options = json!({ "heads": 1, "size": 6, "scale_factor": 1.0 });
    let all = parts_of(&path, DType::F32, options).unwrap();
    let io = io("ldm_lightning");
    near("decode", &through(&graph(&all, Role::Decoder), "z", 0, &io["io.z"]).unwrap(), &io["io.decode_out"], 3e-5);
    // which of two is not known
    std::fs::write(&path, archive(&[("a.ckpt", &ckpt), ("b.ckpt", &ckpt)])).unwrap();
    let e = parts_of(&path, DType::F32, json!({})).err().unwrap();
    assert!(e.to_string().contains("data.pkl"), "{e}");
}

#[test]
fn diffusers_names_mean_the_same_network() {
    let io = io("sd_compvis");
    let (_dir, path) = renamed("sd_compvis");
    let e = parts_of(&path, DType::F32, json!({})).err().unwrap();
    assert!(e.to_string().contains("heads") && e.fix().unwrap().contains("`heads`"), "{e}");
    let net = net(parts_of(&path, DType::F32, json!({ "heads": 4, "size": 8 })).unwrap());
    network_parity("sd_compvis by diffusers' names", &net, &io, &context(&io["io.context"]));
}

#[test]
fn a_lightning_checkpoint_says_which_weights_were_read() {
    let io = io("ldm_lightning");
    let labels: Vec<i64> = io["io.class"].to_vec1().unwrap();
    // the last of five entries is no class: a row of zeros
    let all = ld3sh::denoise::one_hot(&labels, 5, DType::F32, &Device::Cpu).unwrap();
    let rows = Cond::classes(all.narrow(1, 0, 4).unwrap().contiguous().unwrap());
    for (ema, wanted) in [(true, "io.out_ema"), (false, "io.out_raw")] {
        let options = json!({ "ema": ema, "heads": 1, "size": 6, "scale_factor": 1.0 });
        let all = parts_of(&fixture("ldm_lightning.ckpt"), DType::F32, options).unwrap();
        near("decode", &through(&graph(&all, Role::Decoder), "z", 0, &io["io.z"]).unwrap(), &io["io.decode_out"], 3e-5);
        let net = net(all);
        near(wanted, &net.forward(&Quiet, &io["io.x"], &io["io.t"], &rows).unwrap(), &io[wanted], 3e-5);
        assert!(net.notes().iter().any(|n| n.contains("averaged")), "{:?}", net.notes());
    }
}

#[test]
fn noise_schedules_are_those_of_the_code() {
    // SAFETY: nobody writes the file meanwhile
    let file = unsafe { MmapedSafetensors::new(fixture("schedules.safetensors")) }.unwrap();
    for (name, key) in [
        ("ldm", "ldm_lsun_imagenet"),
        ("sd", "stable_diffusion"),
        ("iddpm_cosine", "iddpm_cosine_4000"),
        ("iddpm_linear", "iddpm_linear_1000"),
    ] {
        let wanted: Vec<f64> = file.load(&format!("{key}.alphas_cumprod"), &Device::Cpu).unwrap().to_vec1().unwrap();
        let got = ld3sh::noise::preset_alphas(name).unwrap();
        assert_eq!(got.len(), wanted.len(), "{name}");
        for (i, (a, b)) in got.iter().zip(&wanted).enumerate() {
            assert!((a / b - 1.0).abs() < 1e-10, "{name} [{i}]: {a} and not {b}");
        }
    }
}

#[test]
fn a_diffusers_folder_is_its_unet_and_its_autoencoder() {
    let io = load(fixture("sd-tiny.io.safetensors"), &Device::Cpu).unwrap();
    let all = parts_of(&fixture("sd-tiny"), DType::F32, json!({})).unwrap();
    let names = ["io.decode_out", "io.decode_cotangent", "io.decode_grad_z"];
    stage_parity("folder decode", &graph(&all, Role::Decoder), "z", 0, &io["io.z"], &io, names);
    let names = ["io.encode_out", "io.encode_cotangent", "io.encode_grad_image"];
    stage_parity("folder encode", &graph(&all, Role::Encoder), "x", 1, &io["io.image"], &io, names);
    let found = model::find(fixture("sd-tiny").to_str().unwrap(), &Quiet).unwrap();
    assert_eq!(found, Source::Path(fixture("sd-tiny")));
    let net = net(all);
    assert_eq!(net.describe(), "LDM U-Net 8×8×4, told `context`");
    let (x, t) = (&io["io.x"], &io["io.t"]);
    let run = |text: &str| net.linearize(&Quiet, x, t, &context(&io[text])).unwrap();
    let ((with, pull_with), (none, pull_none)) = (run("io.text"), run("io.text_uncond"));
    near("with the text", &with, &io["io.out_cond"], 3e-5);
    near("without", &none, &io["io.out_uncond"], 3e-5);
    let guided = (&none + ((&with - &none).unwrap() * 7.5).unwrap()).unwrap();
    near("guided", &guided, &io["io.out"], 1e-4);
    let bar = &io["io.cotangent"];
    let (a, b) =
        (pull_with(&Quiet, &(bar * 7.5).unwrap()).unwrap(), pull_none(&Quiet, &(bar * -6.5).unwrap()).unwrap());
    near("guided grad x", &(a.0 + b.0).unwrap(), &io["io.grad_x"], 2e-4);
    near("guided grad t", &(a.1 + b.1).unwrap(), &io["io.grad_t"], 2e-4);
    // half of it, and none of it
    let dir = tempfile::tempdir().unwrap();
    let e = parts_of(dir.path(), DType::F32, json!({})).err().unwrap();
    assert!(e.to_string().contains("folder without a model"), "{e}");
    std::fs::create_dir(dir.path().join("unet")).unwrap();
    std::fs::copy(fixture("sd-tiny/unet/config.json"), dir.path().join("unet/config.json")).unwrap();
    let e = parts_of(dir.path(), DType::F32, json!({})).err().unwrap();
    assert!(e.to_string().contains("no weights"), "{e}");
    let index = json!({ "weight_map": { "conv_in.weight": "part-1-of-2.safetensors" } }).to_string();
    std::fs::write(dir.path().join("unet/diffusion_pytorch_model.safetensors.index.json"), index).unwrap();
    let e = parts_of(dir.path(), DType::F32, json!({})).err().unwrap();
    assert!(e.to_string().contains("part-1-of-2") && e.fix().unwrap().contains("not whole"), "{e}");
}

#[test]
fn what_is_not_a_model_is_called_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.safetensors");
    let one = |names: &[(&str, &[usize])]| {
        let tensors: HashMap<String, Tensor> =
            names.iter().map(|(n, d)| (n.to_string(), Tensor::zeros(*d, DType::F32, &Device::Cpu).unwrap())).collect();
        safetensors::serialize_to_file(&tensors, None, &path).unwrap();
        parts_of(&path, DType::F32, json!({})).err().unwrap().to_string()
    };
    let e = one(&[("lora_unet_down_blocks_0.lora_up.weight", &[4, 2])]);
    assert!(e.contains("LoRA"), "{e}");
    for (name, what) in [
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", "LoRA"),
        ("controlnet_cond_embedding.conv_in.weight", "ControlNet"),
        ("ip_adapter.1.to_k_ip.weight", "IP-Adapter"),
        ("string_to_param.*", "textual inversion"),
        ("text_model.encoder.layers.0.mlp.fc1.bias", "text encoder"),
        ("vision_model.embeddings.class_embedding", "image encoder"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "of the text encoder is missing"),
    ] {
        let e = one(&[(name, &[4, 2])]);
        assert!(e.contains(what), "{name}: {e}");
    }
    let inpainting: [(&str, &[usize]); 3] = [
        ("model.diffusion_model.input_blocks.0.0.weight", &[32, 9, 3, 3]),
        ("model.diffusion_model.time_embed.0.weight", &[128, 32]),
        ("model.diffusion_model.out.2.weight", &[4, 32, 3, 3]),
    ];
    let e = one(&inpainting);
    assert!(e.contains("inpainting"), "{e}");
    let e = one(&[("state.0.exp_avg", &[4, 2])]);
    assert!(e.contains("optimizer"), "{e}");
    let gguf = dir.path().join("model.ckpt");
    std::fs::write(&gguf, b"GGUF\x03\0\0\0").unwrap();
    let e = parts_of(&gguf, DType::F32, json!({})).err().unwrap();
    assert!(e.to_string().contains("GGUF"), "{e}");
    // an autoencoder is no denoiser
    let alone = ld3sh::nets::family::denoiser(parts("vq_f4", DType::F32, json!({}))).err().unwrap();
    assert!(alone.to_string().contains("an encoder and a decoder, not a denoiser"), "{alone}");
    // options that it does not have, and values that they do not take
    let e = parts_of(&fixture("ldm_uncond.weights.safetensors"), DType::F32, json!({ "head": 3 })).err().unwrap();
    assert!(e.to_string().contains("`head`"), "{e}");
    let e = parts_of(&fixture("ldm_uncond.weights.safetensors"), DType::F32, json!({ "heads": 5 })).err().unwrap();
    assert!(e.to_string().contains("do not divide"), "{e}");
    // a part of the averaged weights
    let (_dir, path) = changed("ldm_uncond", true, |n| Some(n.to_string()));
    let mut tensors = load(&path, &Device::Cpu).unwrap();
    let t = tensors["model.diffusion_model.out.2.weight"].clone();
    tensors.insert("model_ema.diffusion_modelout2weight".into(), t);
    safetensors::serialize_to_file(&tensors, None, &path).unwrap();
    let e = parts_of(&path, DType::F32, json!({ "head_width": 16 })).err().unwrap();
    assert!(e.to_string().contains("averaged weights"), "{e}");
}

/// Samples from the fixture's noise: a solver over these times, guided away from the text without words.
fn sampled(options: serde_json::Value, solver: &str, times: &[f64], scale: f64) -> Tensor {
    use ld3sh::denoise::{DynDenoiser, Guided};
    use ld3sh::discretize::Schedule;
    use ld3sh::plan::SolveOptions;
    let io = load(fixture("sd-tiny.io.safetensors"), &Device::Cpu).unwrap();
    let net: DynDenoiser =
        std::rc::Rc::new(net(parts_of(&fixture("sd-tiny"), DType::F32, options).unwrap()).denoiser().unwrap());
    let noise = net.noise().clone();
    let guided: DynDenoiser = std::rc::Rc::new(Guided::new(net, scale).unwrap().uncond(context(&io["io.text_uncond"])));
    let schedule = Schedule::from_steps(noise, times, "by hand").unwrap();
    let plan = ld3sh::solve::Solver::named(solver).unwrap().plan(&schedule).unwrap();
    let opts = SolveOptions { cond: context(&io["io.text"]), ..SolveOptions::default() };
    let out = plan.solve(&guided, &Quiet, &(&io["io.noise"]).into(), &opts, None).unwrap();
    out.x.into_tensor().unwrap()
}

#[test]
fn ddim_on_stable_diffusions_steps_is_that_of_diffusers() {
    let io = load(fixture("sd-tiny.io.safetensors"), &Device::Cpu).unwrap();
    let steps: Vec<i64> = io["io.ddim4_timesteps"].to_vec1().unwrap();
    // step i of training is time (i + 1)/1000; the last step goes to the first of them
    let mut times: Vec<f64> = steps.iter().map(|i| (*i + 1) as f64 / 1000.0).collect();
    times.push(1.0 / 1000.0);
    near("ddim 4", &sampled(json!({}), "ddim", &times, 7.5), &io["io.ddim4_guided7p5"], 1e-4);
}

#[test]
fn a_rectified_flow_runs_from_noise_to_data() {
    let io = load(fixture("sd-tiny.io.safetensors"), &Device::Cpu).unwrap();
    let wanted = &io["io.rectified_flow_euler4_guided1p5"];
    let times = [1.0, 0.75, 0.5, 0.25, 0.0];
    near("euler 4", &sampled(json!({ "predicts": "velocity" }), "euler", &times, 1.5), wanted, 1e-4);
}

/// The tensors under a heading of the published names.
fn published(heading: &str) -> Vec<(String, Vec<usize>)> {
    let text = std::fs::read_to_string(fixture("published_names.tsv")).unwrap();
    let rows = text.lines().skip_while(|l| !l.starts_with(&format!("# {heading}:"))).skip(1);
    let row = |l: &str| {
        let mut columns = l.split('\t');
        let name = columns.next().unwrap().to_string();
        let dims = columns.next().unwrap().split('x').map(|n| n.parse().unwrap()).collect();
        (name, dims)
    };
    rows.take_while(|l| !l.starts_with('#')).filter(|l| !l.is_empty()).map(row).collect()
}

const PUBLISHED: [(&str, usize); 7] = [
    ("iddpm imagenet64_uncond_100M_1500K", 121_063_942),
    ("iddpm lsun_uncond_100M", 113_676_678),
    ("ldm vq-f4", 55_322_782),
    ("sd-1.x vae", 83_653_863),
    ("ldm lsun_beds256 unet", 274_056_163),
    ("ldm cin256-v2 unet", 401_433_091),
    ("sd-1.x unet", 859_520_964),
];

/// Builds each from random weights of the published names and shapes, which it must use up, and runs it in both directions. With
/// `LD3SH_NETWORK` only those whose name holds it.
#[test]
#[ignore = "writes, loads and runs the full-size networks, up to 860M parameters: minutes each"]
fn full_size_networks_have_the_published_names_and_run() {
    use super::helpers::{peak, timed, uniform, write_full};
    let only = std::env::var("LD3SH_NETWORK").unwrap_or_default();
    for (name, count) in PUBLISHED.iter().filter(|p| p.0.contains(&only)) {
        let tensors = published(name);
        assert_eq!(tensors.iter().map(|(_, d)| d.iter().product::<usize>()).sum::<usize>(), *count, "{name}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full.safetensors");
        write_full(&path, "{}", &tensors);
        let (all, loading) = timed(|| parts_of(&path, DType::F32, json!({})).unwrap());
        println!("{name}: loaded in {loading:.1} s, peak {}", peak());
        let mut used: Vec<String> = vec![];
        for part in all.values() {
            let graph = match part {
                Part::Denoiser(net) => net.runner().graph(),
                Part::Graph(runner) => runner.graph(),
                _ => panic!("{name} has neither"),
            };
            used.extend(graph.weights().map(|w| w.name.clone()));
        }
        used.sort();
        used.dedup();
        let mut wanted: Vec<String> = tensors.iter().map(|(n, _)| n.clone()).collect();
        wanted.sort();
        let bare = |n: &String| n.trim_start_matches("model.diffusion_model.").to_string();
        assert_eq!(used.iter().map(bare).collect::<Vec<_>>(), wanted.iter().map(bare).collect::<Vec<_>>(), "{name}");
        for (role, part) in &all {
            let (runner, mut given) = match part {
                Part::Denoiser(net) => {
                    (net.runner().clone(), vec![("c_noise", Tensor::new(&[500.5f32], &Device::Cpu).unwrap())])
                }
                Part::Graph(runner) => (runner.clone(), vec![]),
                _ => continue,
            };
            for port in &runner.graph().inputs {
                if port.name == "c_noise" {
                    continue;
                }
                let mut dims = vec![1];
                dims.extend(port.outside().iter().zip(port.sizes()).map(|(d, about)| d.unwrap_or(about)));
                // images as large as the latents that the decoder is asked for
                if role == &Role::Encoder {
                    dims = vec![1, 3, 256, 256];
                } else if role == &Role::Decoder {
                    dims = vec![1, dims[1], 32, 32];
                } else if port.layout == ld3sh::nets::graph::Layout::Plain && port.name == "context" {
                    dims[1] = 77;
                }
                let t = uniform(&port.name, &dims).to_dtype(DType::F32).unwrap();
                given.push((Box::leak(port.name.clone().into_boxed_str()), t));
            }
            let given: Vec<(&str, &Tensor)> = given.iter().map(|(n, t)| (*n, t)).collect();
            let first = runner.graph().inputs[0].name.clone();
            let run = || runner.forward(&given).unwrap().remove(0);
            let ((y, packed), (_, warm)) = (timed(run), timed(run));
            println!("{name}, {}: evaluation {packed:.1} s, then {warm:.2} s, peak {}", role.name(), peak());
            let pull = || {
                let (outs, pull) = runner.linearize(&given, &[&first]).unwrap();
                let cots: Vec<Option<&Tensor>> = outs.iter().enumerate().map(|(k, t)| (k == 0).then_some(t)).collect();
                pull(&cots).unwrap().remove(0)
            };
            let ((g, packed), (_, warm)) = (timed(pull), timed(pull));
            println!("{name}, {}: with gradient {packed:.1} s, then {warm:.2} s, peak {}", role.name(), peak());
            for t in [&y, &g] {
                let v = super::nets::flat(t);
                assert!(v.iter().all(|v| v.is_finite()) && v.iter().any(|v| *v != 0.0), "{name}");
            }
        }
    }
}

/// improved-diffusion's `ddim5` on its network: indices 0, T/N, …, so it starts from pure noise at T − T/N; the last step goes to no
/// noise; x_0 is clipped to [−1, 1] by default, and the noise follows from it.
#[test]
fn improved_diffusions_ddim_is_ddim_on_its_indices() {
    use ld3sh::denoise::{DynDenoiser, Rule, Thresholded};
    use ld3sh::discretize::Schedule;
    use ld3sh::plan::SolveOptions;
    let io = io("iddpm_scale_shift");
    let indices: Vec<i64> = io["io.ddim_timesteps"].to_vec1().unwrap();
    let mut times: Vec<f64> = indices.iter().map(|i| (*i + 1) as f64 / 4000.0).collect();
    times.sort_by(|a, b| b.total_cmp(a));
    let options = json!({ "schedule": "iddpm_cosine", "size": 8 });
    let net: DynDenoiser = std::rc::Rc::new(net(parts("iddpm_scale_shift", DType::F32, options)).denoiser().unwrap());
    let schedule = Schedule::from_steps(net.noise().clone(), &times, "ddim5").unwrap();
    let solver = ld3sh::solve::Solver::named("ddim").unwrap().with("denoise_to_zero", true).unwrap();
    let plan = solver.plan(&schedule).unwrap();
    assert_eq!(plan.plan().nfe(), indices.len());
    let clipped: DynDenoiser =
        std::rc::Rc::new(Thresholded::new(net.clone(), Rule::Clamp { lo: -1.0, hi: 1.0 }).unwrap());
    for (net, wanted) in [(net, "io.ddim_sample_unclipped"), (clipped, "io.ddim_sample_clipped")] {
        let start = (&io["io.ddim_noise"]).into();
        let out = plan.solve(&net, &Quiet, &start, &SolveOptions::default(), None).unwrap();
        near(wanted, &out.x.into_tensor().unwrap(), &io[wanted], 1e-4);
    }
}

#[test]
fn an_autoencoders_folder_alone_may_shift_its_latents() {
    let io = load(fixture("sd-tiny.io.safetensors"), &Device::Cpu).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(fixture("sd-tiny/vae/config.json")).unwrap();
    let config = config.replace("\"shift_factor\": null", "\"shift_factor\": 0.125");
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let weights = "diffusion_pytorch_model.safetensors";
    std::fs::copy(fixture(&format!("sd-tiny/vae/{weights}")), dir.path().join(weights)).unwrap();
    let both = parts_of(dir.path(), DType::F32, json!({})).unwrap();
    assert_eq!(both.len(), 2);
    // latents are (mean − shift) · scale
    let z = (&io["io.z"] - 0.125 * 0.18215).unwrap();
    near("shifted", &through(&graph(&both, Role::Decoder), "z", 0, &z).unwrap(), &io["io.decode_out"], 3e-5);
    let z = through(&graph(&both, Role::Encoder), "x", 0, &io["io.image"]).unwrap();
    let mean = io["io.encode_out"].narrow(1, 0, 4).unwrap();
    near("shifted mean", &z, &((mean - 0.125).unwrap() * 0.18215).unwrap(), 3e-5);
}
