//! All of EDM's architectures and preconditionings: parity with reference numbers, finite differences, options, bad files.

use crate::helpers::{self, *};
use crate::process;
use candle_core::{DType, Device, Tensor};
use ld3sh::Kind;
use ld3sh::denoise::{Cond, Denoiser, Network, Prediction, Query};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source};
use ld3sh::nets::edm::{self, Config};
use ld3sh::nets::network::Net;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::rc::Rc;

#[test]
fn fixtures_match_in_value_and_both_gradients() {
    for name in ["ddpmpp_edm", "ddpmpp_vp", "ncsnpp_edm", "adm_edm_cond"] {
        let io = read(&format!("edm/{name}.io.safetensors"));
        let cond = io.get("io.class_labels").map_or(Cond::None, |l| Cond::classes(l.clone()));
        for dtype in [DType::F32, DType::F64] {
            let path = fixture(&format!("edm/{name}.weights.safetensors"));
            let net = model::denoiser(&Source::Path(path), &Device::Cpu, dtype).unwrap();
            let io = |key: &str| io[&format!("io.{key}")].to_dtype(dtype).unwrap();
            let got = denoise(net, &io("x"), &values(&io("sigma")), &cond, &io("cotangent"));
            let wanted = [io("denoised"), io("grad_x"), io("grad_sigma")];
            let e: Vec<f64> = got.iter().zip(&wanted).map(|(a, b)| each_error(a, b)).collect();
            println!("{name} {}: value {:.1e}, gradients {:.1e} {:.1e}", dtype.as_str(), e[0], e[1], e[2]);
            // the reference is f32 itself
            let bound = if dtype == DType::F64 { 1e-4 } else { 2e-4 };
            assert!(e.iter().all(|e| *e < bound), "{name}: {e:?}");
        }
    }
}

#[test]
fn every_option_matches_an_independent_implementation() {
    let reference = read("edm/networks.safetensors");
    for case in cases() {
        let wanted = ["denoised", "grad_x", "grad_sigma"].map(|key| &reference[&format!("{}.{key}", case.name)]);
        for (dtype, bound) in [(DType::F64, 1e-9), (DType::F32, 2e-4)] {
            let got = case.denoise(case.load(dtype), dtype);
            let e: Vec<f64> = got.iter().zip(wanted).map(|(a, b)| each_error(a, b)).collect();
            println!("{} {}: value {:.1e}, gradients {:.1e} {:.1e}", case.name, dtype.as_str(), e[0], e[1], e[2]);
            assert!(e.iter().all(|e| *e < bound), "{}: {e:?}", case.name);
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for case in cases() {
        let d = Rc::new(case.load(DType::F64).denoiser().unwrap());
        let (x, cot) = (case.given("x"), case.given("cotangent"));
        let cond = case.cond(DType::F64);
        let value = |x: &Tensor, sigma: &[f64]| -> f64 {
            let m = d
                .eval(&Quiet, &Query { x: &x.into(), t: sigma, cond: &cond }, Prediction::Data)
                .unwrap()
                .into_tensor()
                .unwrap();
            (m * &cot).unwrap().sum_all().unwrap().to_scalar().unwrap()
        };
        let q = Query { x: &(&x).into(), t: &case.sigma, cond: &cond };
        let (_, pull) = d.linearize(&Quiet, &q, Prediction::Data).unwrap();
        let g = pull(&Quiet, &(&cot).into()).unwrap();
        let direction = case.given("direction");
        let eps = 1e-5;
        let moved = |by: f64| value(&(&x + (&direction * by).unwrap()).unwrap(), &case.sigma);
        let numeric = (moved(eps) - moved(-eps)) / (2.0 * eps);
        let exact: f64 = (g.x.tensor().unwrap() * &direction).unwrap().sum_all().unwrap().to_scalar().unwrap();
        assert!((numeric - exact).abs() < 1e-6 * (1.0 + exact.abs()), "{}: {numeric} {exact}", case.name);
        for i in 0..case.sigma.len() {
            let moved = |by: f64| {
                let mut sigma = case.sigma.clone();
                sigma[i] *= 1.0 + by;
                value(&x, &sigma)
            };
            let numeric = (moved(eps) - moved(-eps)) / (2.0 * eps);
            let exact = g.t[i] * case.sigma[i];
            assert!((numeric - exact).abs() < 1e-5 * (1.0 + exact.abs()), "{}: {numeric} {exact}", case.name);
        }
    }
}

#[test]
fn half_precision_stays_near_full_precision() {
    for case in ["ve_ncsnpp", "skips", "iddpm_adm", "flat"].map(case) {
        let full = case.denoise(case.load(DType::F32), DType::F32);
        let half = case.denoise(case.load(DType::F16), DType::F32);
        let e: Vec<f64> = half.iter().zip(&full).map(|(a, b)| each_error(a, b)).collect();
        println!("{} in f16: value {:.1e}, gradients {:.1e} {:.1e}", case.name, e[0], e[1], e[2]);
        assert!(e[0] < 0.01 && e[1] < 0.05 && e[0] > 0.0, "{}: {e:?}", case.name);
        assert!(half.iter().all(|t| values(t).iter().all(|v| v.is_finite())));
    }
    let path = cases()[0].write(|_| {});
    let e =
        model::denoiser(&Source::Path(path.path().join("net.safetensors")), &Device::Cpu, DType::BF16).err().unwrap();
    assert_eq!(e.kind(), Kind::Device);
}

#[test]
fn samples_do_not_depend_on_their_batch() {
    for case in ["ve_ncsnpp", "lopsided", "iddpm_adm", "flat"].map(case) {
        let net = edm::random(&case.config, 3, &Device::Cpu).unwrap();
        let (c, r) = (case.config.img_channels, case.config.img_resolution);
        let x = f32(&uniform("batch", &[5, c, r, r]));
        let c_noise = f32(&uniform("noise", &[5]));
        let both = |x: &Tensor, c: &Tensor| {
            let (y, pull) = net.linearize(&Quiet, x, c, &Cond::None).unwrap();
            let (gx, gc) = pull(&Quiet, &y).unwrap();
            [values(&y), values(&gx), values(&gc)]
        };
        let all = both(&x, &c_noise);
        assert!(all.iter().flatten().all(|v| v.is_finite()) && all[0].iter().any(|v| *v != 0.0));
        let one = both(&x.narrow(0, 3, 1).unwrap(), &c_noise.narrow(0, 3, 1).unwrap());
        for (one, all) in one.iter().zip(&all) {
            assert_eq!(one[..], all[3 * one.len()..4 * one.len()], "{}", case.name);
        }
        assert_eq!(values(&net.forward(&Quiet, &x, &c_noise, &Cond::None).unwrap()), all[0]);
    }
}

#[test]
fn a_network_says_what_it_is() {
    let says = |name: &str| {
        let net = case(name).load(DType::F32);
        (net.describe(), net.card().architecture, net.notes().len())
    };
    assert_eq!(says("ve_ncsnpp"), ("VE NCSN++ 8×8×3, unconditional".into(), "NCSN++", 0));
    assert_eq!(says("vp_labels"), ("VP DDPM++ 8×8×3, 5 classes".into(), "DDPM++", 0));
    assert_eq!(says("iddpm_adm"), ("iDDPM ADM 8×8×3, 6 classes".into(), "ADM", 1));
    assert_eq!(says("skips").1, "SongUNet");
    let half = case("flat").with(|c| c["use_fp16"] = json!(true)).load(DType::F32);
    assert!(half.notes()[0].contains("half precision"), "{:?}", half.notes());
}

#[test]
fn noise_levels_are_those_of_training() {
    let ends = |name: &str| {
        let meta = case(name).load(DType::F32).card().clone();
        (meta.trained, meta.sampled)
    };
    assert_eq!(ends("ve_ncsnpp"), ([0.02, 100.0], [0.02, 80.0]));
    assert_eq!(ends("flat"), ([0.002, 80.0], [0.002, 80.0]));
    let (vp, sampled) = ends("vp_labels");
    // σ(t)² = exp(β_d t²/2 + β_min t) − 1 at 1e-5 and 1
    assert!((vp[0] - 1.0007e-3).abs() < 1e-6 && (vp[1] - 7.6f64.exp_m1().sqrt()).abs() < 1e-9, "{vp:?}");
    assert_eq!(sampled, [0.002, vp[1]]);

    let x = case("ve_ncsnpp").given("x");
    let at = |name: &str, sigma: f64, clamp: bool| {
        let d = case(name).load(DType::F64).denoiser().unwrap().clamp_time(clamp);
        d.eval(&Quiet, &Query { x: &(&x).into(), t: &[sigma], cond: &Cond::None }, Prediction::Data)
    };
    // beyond where it is sampled, but not beyond what it knows
    at("ve_ncsnpp", 99.0, false).unwrap();
    for (name, sigma) in [("ve_ncsnpp", 0.01), ("ve_ncsnpp", 120.0), ("vp_labels", 60.0), ("iddpm_song", 1e9)] {
        let e = at(name, sigma, false).unwrap_err();
        assert!(e.kind() == Kind::Value && e.message().contains("outside the network's range"), "{e}");
        at(name, sigma, true).unwrap();
    }
}

#[test]
fn iddpm_is_told_the_nearest_level_and_nothing_else_is_rounded() {
    let d = Rc::new(case("iddpm_song").load(DType::F64).denoiser().unwrap());
    let levels = d.known_levels().unwrap().to_vec();
    assert_eq!(levels.len(), 40);
    let x = case("iddpm_song").given("x");
    let (u, v) = (levels[20], levels[20] + 0.2 * (levels[19] - levels[20]));
    // the network's input is x/√(1 + σ²): at u and at v the same input gives the same F
    let noise = |sigma: f64| {
        let x = (&x * (1.0 + sigma * sigma).sqrt()).unwrap();
        d.eval(&Quiet, &Query { x: &(&x).into(), t: &[sigma], cond: &Cond::None }, Prediction::Noise)
            .unwrap()
            .into_tensor()
            .unwrap()
    };
    assert!(error(&noise(u), &noise(v)) < 1e-12);
    assert!(error(&noise(u), &noise(levels[19])) > 1e-6);
}

#[test]
fn augmentation_labels_reach_the_network() {
    let case = case("skips");
    let plain = case.plain(DType::F32);
    let (x, c) = (f32(&case.given("x")), f32(&uniform("noise", &[2])));
    let run = |net: &Net| values(&net.forward(&Quiet, &x, &c, &Cond::None).unwrap());
    let other = plain.augmented(&[0.5; 9]).unwrap();
    assert_ne!(run(&plain), run(&other));
    assert_ne!(plain.hash(), other.hash());
    assert_eq!(run(&plain), run(&plain.augmented(&[0.0; 9]).unwrap()));
    assert!(plain.augmented(&[0.0; 8]).err().unwrap().message().contains("expected 9"));
    assert!(plain.augmented(&[f64::NAN; 9]).is_err());
    let without = helpers::case("flat").plain(DType::F32);
    assert!(without.augmented(&[0.0; 9]).err().unwrap().message().contains("no augmentation labels"));
}

#[test]
fn labels_of_the_wrong_kind_are_refused() {
    let d = case("iddpm_adm").load(DType::F32).denoiser().unwrap();
    let x = f32(&case("iddpm_adm").given("x"));
    let rows = |dims: &[usize]| Cond::classes(Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap());
    for (cond, part) in [(rows(&[2, 5]), "[2, 6]"), (rows(&[3, 6]), "2 condition rows")] {
        let e = d.eval(&Quiet, &Query { x: &(&x).into(), t: &[1.0], cond: &cond }, Prediction::Data).unwrap_err();
        assert!(e.message().contains(part), "{e}");
    }
    for label in [-1, 6] {
        assert!(ld3sh::denoise::one_hot(&[0, label], 6, DType::F32, &Device::Cpu).is_err());
    }
}

/// E4M3: 0x38 is 1, 0xC0 is −2. Such weights give what the same values in f32 give.
#[test]
fn weights_of_eight_bits_are_widened_as_they_are_read() {
    let bytes = std::fs::read(fixture("edm/ddpmpp_edm.weights.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str, dtype: Dtype, two: [&[u8]; 2]| {
        let mut all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = vec![];
        for (name, view) in file.tensors() {
            let n = view.shape().iter().product::<usize>();
            all.push(if name.ends_with("conv0.weight") {
                let data = (0..n).flat_map(|i| two[usize::from(i % 3 == 0)].to_vec()).collect();
                (name, dtype, view.shape().to_vec(), data)
            } else {
                (name, view.dtype(), view.shape().to_vec(), view.data().to_vec())
            });
        }
        let views = all.iter().map(|(n, d, s, b)| (n, TensorView::new(*d, s.clone(), b).unwrap()));
        let path = dir.path().join(name);
        safetensors::serialize_to_file(views, header.metadata().clone(), &path).unwrap();
        let net = model::denoiser(&Source::Path(path), &Device::Cpu, DType::F32).unwrap();
        let x = Tensor::ones((1, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
        values(&denoise(net, &x, &[1.0], &Cond::None, &x)[0])
    };
    let small = load("e4m3.safetensors", Dtype::F8_E4M3, [&[0x38], &[0xc0]]);
    let wide = load("f32.safetensors", Dtype::F32, [&1f32.to_le_bytes(), &(-2f32).to_le_bytes()]);
    assert!(small == wide && small.iter().all(|x| x.is_finite()));
}

#[test]
fn the_architecture_is_told_by_the_tensors_where_the_configuration_is_silent() {
    let case = case("adm_heads").with(|c| {
        c.as_object_mut().unwrap().remove("model_type");
    });
    assert_eq!(case.load(DType::F32).card().architecture, "ADM");
}

#[test]
fn inconsistent_checkpoints_are_refused_by_name() {
    let refused = |name: &str, key: &str, value: serde_json::Value, part: &str| {
        let dir = case(name).write(|c| c[key] = value);
        let path = dir.path().join("net.safetensors");
        let e = model::denoiser(&Source::Path(path), &Device::Cpu, DType::F32).err().expect(part);
        assert!(e.kind() == Kind::Format && e.to_string().contains(part), "{key}: expected {part}, got {e}");
    };
    refused("adm_heads", "encoder_type", json!("residual"), "`encoder_type` is not an option of DhariwalUNet");
    refused("adm_heads", "resample_filter", json!([1, 3, 3, 1]), "`resample_filter` is not an option");
    refused("adm_heads", "channel_mult_noise", json!(2), "`channel_mult_noise` is not an option");
    refused("adm_heads", "attn_resolutions", json!([8]), "18 tensors that this network does not have");
    refused("adm_heads", "num_blocks", json!(2), "is missing");
    refused("ve_ncsnpp", "sigma_max", json!(0.01), "sigma_min");
    refused("ve_ncsnpp", "resample_filter", json!([1, 1]), "resample_filter");
    refused("ve_ncsnpp", "resample_filter", json!([1, 3, 2, 1]), "is not the filter");
    refused("ve_ncsnpp", "embedding_type", json!("positional"), "model.map_noise.freqs");
    refused("iddpm_song", "M", json!(41), "`u` has shape [41], expected [42]");
    refused("vp_labels", "label_dim", json!(0), "map_label");
    refused("vp_labels", "beta_d", json!(1e5), "noise levels from");
    refused("skips", "augment_dim", json!(0), "map_augment");
    refused("skips", "img_channels", json!(4), "shape");
    refused("skips", "img_resolution", json!(9), "cannot be halved");

    let error = |json: serde_json::Value| {
        let c = Config::parse(&json.to_string());
        c.and_then(|c| edm::tensors(&c)).err().unwrap().to_string()
    };
    let adm = |mc: usize| json!({"img_resolution": 8, "img_channels": 3, "model_type": "DhariwalUNet", "model_channels": mc, "channel_mult": [1], "num_blocks": 1});
    assert!(error(adm(200)).contains("do not divide"), "{}", error(adm(200)));
    assert!(error(adm(416)).contains("416 channels do not divide into 6 attention heads"), "{}", error(adm(416)));
    assert!(error(adm(50)).contains("50 channels do not divide into 12 groups"), "{}", error(adm(50)));
    assert!(error(adm(0)).contains("model_channels"));
    let mut huge = adm(2048);
    huge["channel_mult"] = json!([16]);
    huge["channel_mult_emb"] = json!(1);
    assert!(error(huge).contains("at most 2²⁹ weights"));

    // a table of noise levels that rises
    let dir = case("iddpm_song").write_with(
        |_| {},
        |name, values| {
            if name == "u" {
                values.swap(3, 4);
            }
        },
    );
    let path = dir.path().join("net.safetensors");
    let e = model::denoiser(&Source::Path(path), &Device::Cpu, DType::F32).err().unwrap();
    assert!(e.to_string().contains("`u`"), "{e}");
}

#[test]
fn scripts_load_every_kind() {
    let run = |case: &Case, script: &str| {
        let dir = case.write(|_| {});
        let mut c = process::ld3sh(dir.path(), &dir.path().join("cache"));
        c.args(["-e", script]).output().unwrap()
    };
    let text = |o: &std::process::Output| (process::out(o), process::err(o));
    let (out, err) = text(&run(
        &case("iddpm_song"),
        "let net = denoiser::load(\"net.safetensors\"); print(net); print(net.round_sigma(4.0) == 4.0);
        print(net.round_sigma(net.round_sigma(4.0)) == net.round_sigma(4.0)); print(net.round_sigma(tensor([1.0, 4.0])).shape);
        print(sample(net, solver::ddim(), schedule::edm(net.noise, 2), 2, #{ seed: 1 }).shape);",
    ));
    assert!(out.contains("iDDPM DDPM++ 8×8×3") && out.contains("false\ntrue\n[2]\n[2, 3, 8, 8]"), "{out} {err}");
    assert!(err.contains("note: net.safetensors: it knows 40 noise levels"), "{err}");
    let (out, err) = text(&run(
        &case("skips"),
        "let x = noise([2, 3, 8, 8], #{ seed: 1 });
        let net = denoiser::load(\"net.safetensors\", #{ dtype: \"f16\" });
        let other = denoiser::load(\"net.safetensors\", #{ augment: [0.0, 0, 0, 0, 0, 0, 0, 0, 1] });
        print((net.denoise(x, 1.0) - other.denoise(x, 1.0)).abs().max() > 1e-4); print(net.round_sigma(2));",
    ));
    assert_eq!(out, "true\n2\n", "{err}");
    assert!(err.contains("note: net.safetensors: f16 is for GPUs; on the CPU it runs in f32"), "{err}");
    let (_, err) = text(&run(&case("skips"), "denoiser::load(\"net.safetensors\", #{ augment: [1.0] });"));
    assert!(err.contains("expected 9 finite augmentation labels"), "{err}");
    let (_, err) = text(&run(
        &case("iddpm_adm"),
        "let net = denoiser::load(\"net.safetensors\"); net.denoise(noise([1, 3, 8, 8]), 1.0, [6]);",
    ));
    assert!(err.contains("error") && err.contains('6'), "{err}");
}

/// Architectures as published: number of tensors, of parameters, and hash of the sorted names and shapes, all from
/// `networks.py --sizes`.
const PUBLISHED: [(&str, usize, usize, &str, &str); 6] = [
    (
        "cifar10-uncond-ddpmpp",
        425,
        55733891,
        "6062f651cb0795d8ec158a4c2e60909d5eb5351b7a2cc5a5daea77bccf584701",
        r#"{"img_resolution": 32, "channel_mult": [2, 2, 2], "augment_dim": 9}"#,
    ),
    (
        "cifar10-cond-ddpmpp",
        427,
        55735299,
        "bedbebceefe0b84e08060178021acb15f81d47b2467506503c24b987ffcdb060",
        r#"{"img_resolution": 32, "channel_mult": [2, 2, 2], "augment_dim": 9, "label_dim": 10}"#,
    ),
    (
        "cifar10-uncond-ncsnpp",
        432,
        56397827,
        "6e870eac25cb91f61ee695038c8aee378331fccdc6d134116c34f8aa27ffe7f1",
        r#"{"img_resolution": 32, "channel_mult": [2, 2, 2], "augment_dim": 9, "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}"#,
    ),
    (
        "ffhq-afhqv2-64-ddpmpp",
        553,
        61805571,
        "04d2cd5976af1a87169a87482dfde27bbdf893ec1e2c881e2a4ee15114900289",
        r#"{"img_resolution": 64, "channel_mult": [1, 2, 2, 2], "augment_dim": 9}"#,
    ),
    (
        "ffhq-afhqv2-64-ncsnpp",
        563,
        62761091,
        "b1fc7e05016df1a3b128ca4da98ede0f3870376858a6ebf656b280035ff31658",
        r#"{"img_resolution": 64, "channel_mult": [1, 2, 2, 2], "augment_dim": 9, "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}"#,
    ),
    (
        "imagenet-64-adm",
        553,
        295899267,
        "e22fc8a6327f2a606ee9c5fc5d5486beafbc568509ddeffb05fed2e0b7fa571a",
        r#"{"img_resolution": 64, "label_dim": 1000, "model_type": "DhariwalUNet"}"#,
    ),
];

/// The configuration of a published network and its tensors, checked against the reference's.
fn published(name: &str) -> (String, Vec<(String, Vec<usize>)>) {
    let (_, count, parameters, hash, json) = PUBLISHED.iter().find(|p| p.0 == name).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
    json["img_channels"] = 3.into();
    let json = json.to_string();
    let mut tensors = edm::tensors(&Config::parse(&json).unwrap()).unwrap();
    tensors.sort();
    let buffer = |name: &str| name.ends_with("resample_filter") || name.ends_with("freqs");
    let trained = tensors.iter().filter(|(n, _)| !buffer(n)).map(|(_, s)| s.iter().product::<usize>());
    assert_eq!((tensors.len(), trained.sum::<usize>()), (*count, *parameters), "{name}");
    let lines: String = tensors.iter().map(|(n, s)| format!("{n} {s:?}\n")).collect();
    let got: String = Sha256::digest(lines).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(got, *hash, "{name}");
    (json, tensors)
}

#[test]
fn small_published_architectures_have_their_names_and_shapes() {
    for name in ["cifar10-cond-ddpmpp", "cifar10-uncond-ncsnpp"] {
        published(name);
    }
}

/// The network of this name with random weights, read from a file.
fn full_size(name: &str) -> Net {
    let (json, tensors) = published(name);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("net.safetensors");
    write_full(&path, &json, &tensors);
    let _ = std::fs::write("/proc/self/clear_refs", "5"); // starts the peak anew
    let (net, load) = timed(|| model::denoiser(&Source::Path(path), &Device::Cpu, DType::F32).unwrap());
    println!("{name}: load {load:.1} s, peak {}", peak());
    net
}

#[test]
#[ignore = "builds and loads the full-size networks, up to 296M parameters"]
fn full_size_networks_have_their_names_and_shapes_and_load() {
    for (name, ..) in PUBLISHED {
        full_size(name);
    }
}

#[test]
#[ignore = "runs the full-size networks in both directions: minutes; LD3SH_NETWORK picks those whose name holds it"]
fn full_size_networks_run_and_pull_back() {
    let only = std::env::var("LD3SH_NETWORK").unwrap_or_default();
    for (name, ..) in PUBLISHED.iter().filter(|p| p.0.contains(&only)) {
        let net = full_size(name);
        let (r, n) = (net.sample_shape().unwrap()[1], net.classes());
        let x = f32(&uniform("full", &[1, 3, r, r]));
        let cond = if n > 0 { Cond::classes(f32(&uniform("full.labels", &[1, n]))) } else { Cond::None };
        let d = net.clone().denoiser().unwrap();
        let q = Query { x: &(&x).into(), t: &[1.5], cond: &cond };
        let run = || d.eval(&Quiet, &q, Prediction::Data).unwrap().into_tensor().unwrap();
        let ((first, packed), (_, warm)) = (timed(run), timed(run));
        let resident = peak();
        let pull = || {
            let (m, pull) = d.linearize(&Quiet, &q, Prediction::Data).unwrap();
            (pull(&Quiet, &(&x).into()).unwrap(), m)
        };
        let (((g, m), packed_both), (_, warm_both)) = (timed(pull), timed(pull));
        println!("{name}: evaluation {packed:.1} s, then {warm:.2} s, peak {resident}");
        println!("{name}: with gradient {packed_both:.1} s, then {warm_both:.2} s, peak {}", peak());
        let (m, gx) = (m.into_tensor().unwrap(), g.x.into_tensor().unwrap());
        assert_eq!(values(&m), values(&first));
        for v in [values(&m), values(&gx), g.t] {
            assert!(v.iter().all(|v| v.is_finite()) && v.iter().any(|v| *v != 0.0), "{name}");
        }
    }
}
