//! The files that `tests/fixtures/pickle/generate.py` makes, in protocols 0 to 5 and all three containers.
use super::{fixture, open, same_tensors};
use ld3sh::files::checkpoint::{self, Checkpoint};
use ld3sh::files::torch::Item;

#[test]
fn tensors_of_all_types_views_and_modules_come_out_to_the_bit() {
    let index = std::fs::read(fixture("pickle/expected/index.json")).unwrap();
    let index: Vec<(String, String)> = serde_json::from_slice(&index).unwrap();
    assert!(index.len() > 20);
    for (file, expected) in index {
        let expected = open(&format!("pickle/expected/{expected}.safetensors"));
        same_tensors(open(&format!("pickle/{file}")).tensors(), &expected, &file);
    }
}

#[test]
fn views_of_one_storage_have_its_values() {
    for file in ["state_p4.pt", "state_legacy_p4.pth", "state_bare_p4.pkl"] {
        let c = open(&format!("pickle/{file}"));
        // the views are views of one storage
        let (base, turned) = (c.tensor("views.base").unwrap(), c.tensor("views.transposed").unwrap());
        let values = |t: candle_core::Tensor| t.contiguous().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(base.t().unwrap()), values(turned), "{file}");
    }
}

fn item<'a>(c: &'a Checkpoint, path: &str) -> Item<'a> {
    let doc = c.document().unwrap();
    doc.item(doc.find(path).unwrap().unwrap_or_else(|| panic!("{path}"))).unwrap()
}

/// A value without its parts, as text.
fn plain(c: &Checkpoint, path: &str) -> String {
    match item(c, path) {
        Item::Float(f) => format!("{f:?}"),
        Item::Int(i) => i.to_string(),
        Item::Bool(b) => b.to_string(),
        Item::Text(t) => t.into_owned(),
        Item::None => "None".into(),
        Item::Sequence(s) => format!("{} members", s.len()),
        Item::Map(m) => format!("{} entries", m.len()),
        Item::Bytes(b) => format!("{} bytes, {:?} to {:?}", b.len(), b.first(), b.last()),
        Item::Big(b) => format!("{b:02x?}"),
        Item::Class(module, name) => format!("{module}.{name}"),
        Item::Object(o) => format!("a {}", o.class),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn plain_values_are_the_same_in_every_protocol() {
    for protocol in 0..6 {
        let c = open(&format!("pickle/numpy_p{protocol}.pkl"));
        for (path, expected) in [
            ("double", "0.3333333333333333"),
            ("single", "0.5"),
            ("half", "-2.0"),
            ("long", "-5"),
            ("byte", "200"),
            ("flag", "true"),
            ("text", "€ and 😀, \\u0041 \n"),
            ("raw", "256 bytes, Some(0) to Some(255)"),
            ("none", "None"),
            ("yes", "true"),
            ("no", "false"),
            ("nested", "3 members"),
            ("nested.0", "1"),
            ("nested.1.0", "2.5"),
            ("nested.1.1", "0 members"),
            ("nested.1.2", "0 entries"),
            ("nested.2.k", "-1"),
            ("ordered", "2 entries"),
            ("ordered.b", "2"),
            ("counts.a", "2"),
            ("default.x.0", "1"),
            ("many", "300 members"),
            ("many.299", "299"),
            ("small", "-2147483648"),
            ("wide", "1099511627776"),
            ("infinite", "inf"),
        ] {
            assert_eq!(plain(&c, path), expected, "protocol {protocol}: {path}");
        }
        // 10⁴⁰, and an array of Python objects, which is no tensor
        assert!(
            plain(&c, "big").starts_with("[00, 00, 00, 00, 00, 61, f5, b9, ab, bf, a4, 5c, c3, f1, 29, 63, 1d"),
            "{}",
            plain(&c, "big")
        );
        assert!(plain(&c, "objects").ends_with("_reconstruct"));
        assert_eq!(plain(&c, "long_text").len(), 300);
        assert!(c.document().unwrap().find("nested.7").unwrap().is_none());
    }
}

#[test]
fn objects_of_unknown_classes_are_records() {
    for file in ["training.ckpt", "training_legacy.ckpt"] {
        let c = open(&format!("pickle/{file}"));
        for (path, expected) in [
            ("epoch", "3"),
            ("global_step", "1200"),
            ("loss", "0.25"),
            ("hyper_parameters", "a argparse.Namespace"),
            ("hyper_parameters.width", "8"),
            ("hyper_parameters.betas.1", "0.999"),
            ("optimizer_states.0.param_groups.0.lr", "0.001"),
            ("slotted", "a dnnlib.util.Slotted"),
            ("slotted.name", "slotted"),
            ("dtype", "torch.float16"),
            ("size", "2 members"),
            ("negative", "-1099511627776"),
        ] {
            assert_eq!(plain(&c, path), expected, "{file}: {path}");
        }
    }
    let c = open("pickle/mixer_p2.pkl");
    assert_eq!(plain(&c, "ema"), "a Mixer");
    assert_eq!(plain(&c, "ema.note"), "a text with é and 😀");
    assert_eq!(plain(&c, "dataset_kwargs.size"), "32");
    assert!(matches!(item(&c, "teacher.net.layers.0.weight"), Item::Tensor(_)));
    // a module that refers to itself
    assert_eq!(plain(&c, "ema.parent.0.parent.0.note"), plain(&c, "ema.note"));
}

#[test]
fn tensors_by_name_for_networks_of_ones_own() {
    let c = open("pickle/training.ckpt");
    assert_eq!(c.tensor("optimizer_states.0.state.0.step").unwrap().to_scalar::<f32>().unwrap(), 7.0);
    assert_eq!(c.tensor("state_dict.bias").unwrap().dtype(), candle_core::DType::BF16);
    let e = c.tensor("state_dict.biass").unwrap_err();
    assert!(e.kind() == ld3sh::Kind::Name && e.fix().unwrap().contains("`state_dict.bias`"), "{e}");
    let e = checkpoint::open(fixture("pickle/nothing.pkl")).err().unwrap();
    assert_eq!(e.kind(), ld3sh::Kind::Io);
}
