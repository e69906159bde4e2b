//! EDM's networks from the pickles in which they are published.
use super::{fixture, open, same_tensors};
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Network};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source};
use ld3sh::nets::edm;
use ld3sh::nets::family::{FAMILIES, recognise};
use ld3sh::nets::network::Net;
use ld3sh::{Kind, files::checkpoint};
use serde_json::Value;

pub fn load(path: impl Into<std::path::PathBuf>) -> Net {
    model::denoiser(&Source::Path(path.into()), &Device::Cpu, DType::F32).unwrap()
}

/// What the network gives for a fixed input, to the bit.
pub fn output(net: &Net) -> Vec<u32> {
    let x: Vec<f32> = (0..2 * 3 * 16 * 16).map(|i| ((i * 37 % 101) as f32 - 50.0) / 30.0).collect();
    let x = Tensor::from_vec(x, (2, 3, 16, 16), &Device::Cpu).unwrap();
    let c = Tensor::new(&[-0.5f32, 0.8], &Device::Cpu).unwrap();
    let y = net.forward(&Quiet, &x, &c, &Cond::None).unwrap().flatten_all().unwrap();
    y.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_published_pickle_is_the_network_of_the_safetensors_file() {
    for name in ["ddpmpp_edm", "adm_edm_cond"] {
        let (pickle, file) = (open(&format!("edm/{name}.pkl")), open(&format!("edm/{name}.weights.safetensors")));
        let (tensors, metadata) = edm::describe(&pickle).unwrap();
        same_tensors(&*tensors, &file, name);
        assert_eq!(*metadata, *file.metadata(), "{name}");
        assert!(tensors.values().all(|v| v.bytes().is_ok_and(|b| b.len() == v.len())), "{name}");
    }
    let (pickle, file) = (load(fixture("edm/ddpmpp_edm.pkl")), load(fixture("edm/ddpmpp_edm.weights.safetensors")));
    assert!(pickle.hash().is_some());
    assert_eq!(pickle.hash(), file.hash());
    assert_eq!(output(&pickle), output(&file));
}

#[test]
fn all_outer_classes_bare_and_in_snapshots() {
    for (file, expected) in [
        ("vp_bare_p4.pkl", "vp"),
        ("vp_snapshot_p5.pkl", "vp"),
        ("vp_training_state.pt", "vp"),
        ("iddpm_p3.pkl", "iddpm"),
    ] {
        let c = open(&format!("pickle/{file}"));
        let (tensors, metadata) = edm::describe(&c).unwrap();
        same_tensors(&*tensors, &open(&format!("pickle/expected/{expected}.safetensors")), file);
        let json = std::fs::read(fixture(&format!("pickle/expected/{expected}.json"))).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["precond"], metadata["precond"].as_str(), "{file}");
        assert_eq!(json["config"], serde_json::from_str::<Value>(&metadata["config"]).unwrap(), "{file}");
    }
}

#[test]
fn what_is_no_edm_network_says_what_it_is() {
    for (file, parts) in [
        ("mixer_p4.pkl", &["holds no EDM network", "`ema`: Mixer", "`checkpoint::open`"][..]),
        ("state_p4.pt", &["a dictionary with `types.float16`: a tensor"]),
        ("numpy_p4.pkl", &["`arrays`: a dictionary"]),
    ] {
        let e =
            model::denoiser(&Source::Path(fixture(&format!("pickle/{file}"))), &Device::Cpu, DType::F32).err().unwrap();
        let text = e.to_string();
        assert!(e.kind() == Kind::Format && parts.iter().all(|p| text.contains(p)) && text.contains(file), "{text}");
    }
    let c = checkpoint::open(fixture("pickle/mixer_p4.pkl")).unwrap();
    assert!(recognise(FAMILIES, &c).unwrap().is_none());
}
