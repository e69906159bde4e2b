//! guided-diffusion's networks (ADM) against its own code (tests/fixtures/adm/make_adm.py).
use crate::helpers::{error, fixture, read};
use candle_core::{DType, Device, Tensor};
use ld3sh::Error;
use ld3sh::denoise::{Cond, Network, one_hot};
use ld3sh::files::safetensors;
use ld3sh::host::Quiet;
use ld3sh::model::{self, Given, Source};
use ld3sh::nets::network::Net;
use std::path::Path;

fn load(path: &Path, dtype: DType, more: serde_json::Value) -> Result<Net, Error> {
    let mut given: Given =
        [("head_width", 4), ("groups", 4), ("size", 16)].map(|(k, v)| (k.to_string(), v.into())).into();
    given.insert("schedule".into(), "iddpm_linear".into());
    given.extend(more.as_object().unwrap().clone());
    model::denoiser_given(&Source::Path(path.into()), &Device::Cpu, dtype, given)
}

fn near(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let e = error(got, wanted);
    eprintln!("{what}: {e:.1e}");
    assert!(e < bound, "{what} is off by {e:e}");
}

#[test]
fn the_network_is_that_of_its_authors() {
    let path = fixture("adm/adm.safetensors");
    for (name, order) in [("adm", "heads"), ("adm_new_order", "parts")] {
        let io = read(&format!("adm/{name}.io.safetensors"));
        for dtype in [DType::F32, DType::F64] {
            let net = load(&path, dtype, serde_json::json!({ "attention_order": order })).unwrap();
            let own = |t: &Tensor| t.to_dtype(dtype).unwrap();
            let cond = Cond::classes(one_hot(&[2, 4], 5, dtype, &Device::Cpu).unwrap());
            let (y, pull) = net.linearize(&Quiet, &own(&io["x"]), &own(&io["t"]), &cond).unwrap();
            near(&format!("{name} {dtype:?} out"), &y, &io["out"], 3e-5);
            let (gx, gt) = pull(&Quiet, &own(&io["cotangent"])).unwrap();
            near(&format!("{name} {dtype:?} grad x"), &gx, &io["grad_x"], 1e-4);
            near(&format!("{name} {dtype:?} grad t"), &gt, &io["grad_t"], 1e-4);
        }
    }
    let net = load(&path, DType::F32, serde_json::json!({})).unwrap();
    assert!(net.describe().starts_with("ADM U-Net 16×16×3, 5 classes"), "{}", net.describe());
    let e = load(&path, DType::F32, serde_json::json!({ "size": 18 })).err().unwrap();
    assert!(
        e.message().contains("halves what it denoises 2 times") && e.fix().unwrap().contains("multiples of 4"),
        "{e}"
    );
}

/// What is published beside it and is something else.
#[test]
fn classifiers_and_upsamplers_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let all: Vec<(String, Tensor)> = read("adm/adm.safetensors").into_iter().collect();
    let upsampler: Vec<(String, Tensor)> = all
        .iter()
        .map(|(n, t)| match &**n {
            "input_blocks.0.0.weight" => (n.clone(), Tensor::cat(&[t, t], 1).unwrap()),
            _ => (n.clone(), t.clone()),
        })
        .collect();
    safetensors::write(&path, &upsampler, &[]).unwrap();
    let e = load(&path, DType::F32, serde_json::json!({})).err().unwrap();
    assert!(e.message().contains("an upsampler") && e.fix().is_some(), "{e}");
    let classifier: Vec<(String, Tensor)> = all.into_iter().filter(|(n, _)| !n.starts_with("output_blocks.")).collect();
    safetensors::write(&path, &classifier, &[]).unwrap();
    let e = load(&path, DType::F32, serde_json::json!({})).err().unwrap();
    assert!(e.message().contains("a classifier") && e.fix().is_some(), "{e}");
}
