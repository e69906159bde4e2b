//! EDM2's networks in their pickles against NVIDIA's own code (tests/fixtures/edm2/make_edm2.py), and guidance by a second network.
use crate::helpers::{error, fixture, read};
use candle_core::{DType, Device, Tensor};
use ld3sh::Kind;
use ld3sh::denoise::{Cond, Denoiser, DynDenoiser, Guided, Network, Prediction, Query, one_hot};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source};
use ld3sh::nets::network::Net;
use std::rc::Rc;

fn net(name: &str, dtype: DType) -> Net {
    model::denoiser(&Source::Path(fixture("edm2").join(format!("{name}.pkl"))), &Device::Cpu, dtype).unwrap()
}

fn near(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let e = error(got, wanted);
    eprintln!("{what}: {e:.1e}");
    assert!(e < bound, "{what} is off by {e:e}");
}

#[test]
fn the_network_is_that_of_its_authors() {
    for (name, classes) in [("edm2", 5), ("edm2_guide", 0)] {
        let io = read(&format!("edm2/{name}.io.safetensors"));
        for dtype in [DType::F32, DType::F64] {
            let net = net(name, dtype);
            let as_own = |t: &Tensor| t.to_dtype(dtype).unwrap();
            let cond = match classes {
                0 => Cond::None,
                n => Cond::classes(one_hot(&io["labels"].to_vec1::<i64>().unwrap(), n, dtype, &Device::Cpu).unwrap()),
            };
            let (x, t) = (as_own(&io["x"]), as_own(&io["t"]));
            let (y, pull) = net.linearize(&Quiet, &x, &t, &cond).unwrap();
            near(&format!("{name} {dtype:?} out"), &y, &io["out"], 3e-5);
            let (gx, gt) = pull(&Quiet, &as_own(&io["cotangent"])).unwrap();
            near(&format!("{name} {dtype:?} grad x"), &gx, &io["grad_x"], 1e-4);
            near(&format!("{name} {dtype:?} grad t"), &gt, &io["grad_t"], 1e-4);
            let denoiser = net.denoiser().unwrap();
            let sigma: Vec<f64> = io["sigma"].to_dtype(DType::F64).unwrap().to_vec1().unwrap();
            for (cond, wanted) in [(&cond, "denoised"), (&Cond::None, "denoised_null")] {
                let state: ld3sh::denoise::State = x.clone().into();
                let q = Query { x: &state, t: &sigma, cond };
                let d = denoiser.eval(&Quiet, &q, Prediction::Data).unwrap();
                near(&format!("{name} {dtype:?} {wanted}"), d.tensor().unwrap(), &io[wanted], 3e-5);
            }
        }
        let net = net(name, DType::F32);
        assert!(net.describe().starts_with("EDM2 U-Net 8×8×4"), "{}", net.describe());
        assert!(net.notes().iter().any(|n| n.contains("half precision")), "{:?}", net.notes());
        assert_eq!(Network::classes(&net), classes);
    }
}

/// m_g + w (m − m_g): the other network under the same condition, or under none where it takes none.
#[test]
fn a_second_network_guides() {
    let dynamic = |name: &str| -> DynDenoiser { Rc::new(net(name, DType::F64).denoiser().unwrap()) };
    let (main, guide) = (dynamic("edm2"), dynamic("edm2_guide"));
    let io = read("edm2/edm2.io.safetensors");
    let x = io["x"].to_dtype(DType::F64).unwrap();
    let rows = one_hot(&[2, 4], 5, DType::F64, &Device::Cpu).unwrap();
    let data = |d: &DynDenoiser, cond: &Cond| {
        let state: ld3sh::denoise::State = x.clone().into();
        d.eval(&Quiet, &Query { x: &state, t: &[1.5], cond }, Prediction::Data).unwrap().tensor().unwrap().clone()
    };
    let cond = Cond::classes(rows);
    let guided: DynDenoiser = Rc::new(Guided::new(main.clone(), 2.5).unwrap().by(guide.clone()).unwrap());
    assert_eq!(guided.runs_per_eval(), 2);
    assert!(guided.describe().contains("away from EDM2"), "{}", guided.describe());
    let plain = Guided::new(main.clone(), 2.5).unwrap();
    assert_ne!(guided.hash(), plain.hash());
    for cond in [&cond, &Cond::None] {
        let (m, g) = (data(&main, cond), data(&guide, &Cond::None));
        let wanted = ((m * 2.5).unwrap() - (g * 1.5).unwrap()).unwrap();
        near("guided", &data(&guided, cond), &wanted, 1e-12);
        // gradients are of both
        let state: ld3sh::denoise::State = x.clone().into();
        let query = Query { x: &state, t: &[1.5], cond };
        let none = Query { cond: &Cond::None, ..query };
        let bar: ld3sh::denoise::State = x.ones_like().unwrap().into();
        let pulled =
            |d: &DynDenoiser, q: &Query| (d.linearize(&Quiet, q, Prediction::Data).unwrap().1)(&Quiet, &bar).unwrap();
        let (all, a, b) = (pulled(&guided, &query), pulled(&main, &query), pulled(&guide, &none));
        let wanted = ((a.x.tensor().unwrap() * 2.5).unwrap() - (b.x.tensor().unwrap() * 1.5).unwrap()).unwrap();
        near("gradient", all.x.tensor().unwrap(), &wanted, 1e-12);
        assert!((all.t[0] - (2.5 * a.t[0] - 1.5 * b.t[0])).abs() < 1e-9 * all.t[0].abs().max(1.0));
    }
    // a network of the same conditions is told the same
    let same: DynDenoiser = Rc::new(Guided::new(main.clone(), 2.5).unwrap().by(main.clone()).unwrap());
    near("itself", &data(&same, &cond), &data(&main, &cond), 1e-12);
    // one that is in another noise schedule is refused
    let flow = ld3sh::noise::from_spec(&serde_json::json!({ "name": "flow" })).unwrap();
    let other = ld3sh::denoise::Reparam::wrap(guide, flow);
    let e = Guided::new(main, 2.5).unwrap().by(other).err().unwrap();
    assert!(e.kind() == Kind::Value && e.fix().unwrap().contains("with_noise"), "{e}");
}

/// What it is made from is checked, and weights that it does not have are named.
#[test]
fn damaged_pickles_are_refused() {
    let bytes = std::fs::read(fixture("edm2/edm2.pkl")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edm2.pkl");
    let find = |what: &[u8]| bytes.windows(what.len()).position(|w| w == what).unwrap();
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        model::denoiser(&Source::Path(path.clone()), &Device::Cpu, DType::F32).err().unwrap()
    };
    // another class, and other names of arguments and weights
    for (from, to, why) in [
        (&b"Precond"[..], &b"Unknown"[..], "no EDM network"),
        (b"emb_linear", b"emb_linead", "emb_linear"),
        (b"out_gain", b"out_gaim", "out_gain"),
    ] {
        let mut other = bytes.clone();
        // each place where it stands
        let mut at = find(from);
        while let Some(next) = other[at..].windows(from.len()).position(|w| w == from) {
            at += next;
            other[at..at + to.len()].copy_from_slice(to);
        }
        let e = load(&other);
        assert!(e.kind() == Kind::Format && e.to_string().contains(why), "{why}: {e}");
    }
    assert_eq!(load(&bytes[..bytes.len() / 2]).kind(), Kind::Format);
}
