//! Prepared complexes: read, written, and refused by the name of what is wrong.
use candle_core::{Device, Tensor};
use ld3sh::files::complex::Complex;
use ld3sh::files::sdf::{Record, write};
use std::collections::HashMap;
use std::path::PathBuf;

type Named = HashMap<String, Tensor>;

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/docking/complex_6moa.safetensors")
}

#[test]
fn a_complex_is_read_and_written_back() {
    let read = Complex::load(fixture()).unwrap();
    assert_eq!((read.ligand.positions.len(), read.receptor.x.len()), (30, 109));
    let mean = ld3sh::geometry::vectors::mean(&read.receptor.positions);
    assert!(ld3sh::geometry::vectors::length(mean) < 1e-9);
    assert!((read.centre[1] - 68.285412604656).abs() < 1e-6, "{:?}", read.centre);
    assert_eq!(read.ligand.torsions.turns().len(), 3);
    assert_eq!(read.atoms.as_ref().unwrap().edges[0].len(), 7134);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("again.safetensors");
    read.save(&path).unwrap();
    let again = Complex::load(&path).unwrap();
    let near = |a: &[[f64; 3]], b: &[[f64; 3]]| {
        a.as_flattened().iter().zip(b.as_flattened()).all(|(a, b)| (a - b).abs() < 1e-9)
    };
    assert!(
        near(&again.ligand.positions, &read.ligand.positions)
            && near(&again.receptor.positions, &read.receptor.positions)
    );
    assert_eq!(
        (&again.ligand.x, &again.ligand.bonds, &again.ligand.kinds),
        (&read.ligand.x, &read.ligand.bonds, &read.ligand.kinds)
    );
    assert_eq!(again.ligand.torsions, read.ligand.torsions);
    assert_eq!((&again.receptor.edges, &again.receptor.x), (&read.receptor.edges, &read.receptor.x));
    assert_eq!(again.atoms.unwrap().residue, read.atoms.unwrap().residue);
}

#[test]
fn torsions_follow_from_bonds() {
    let read = Complex::load(fixture()).unwrap();
    let mut held: Named = candle_core::safetensors::load(fixture(), &Device::Cpu).unwrap();
    held.remove("lig.mask_rotate");
    held.remove("lig.edge_mask");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plain.safetensors");
    safetensors::serialize_to_file(&held, None, &path).unwrap();
    assert_eq!(Complex::load(&path).unwrap().ligand.torsions, read.ligand.torsions);
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.safetensors");
    let held: Named = candle_core::safetensors::load(fixture(), &Device::Cpu).unwrap();
    let said = |change: &dyn Fn(&mut Named)| {
        let mut own = held.clone();
        change(&mut own);
        safetensors::serialize_to_file(&own, None, &path).unwrap();
        Complex::load(&path).unwrap_err().to_string()
    };
    let without = |name: &'static str| said(&move |n: &mut Named| drop(n.remove(name)));
    for name in [
        "lig.pos",
        "lig.x",
        "lig.edge_index",
        "lig.edge_type",
        "lig.edge_mask",
        "rec.pos",
        "rec.residue_type",
        "atom.x",
    ] {
        let e = without(name);
        assert!(e.contains(&format!("needs the tensor `{name}`")) && e.contains("bad.safetensors"), "{e}");
    }
    let scaled = |name: &'static str, by: f64| {
        said(&move |n: &mut Named| {
            let t = n[name].to_dtype(candle_core::DType::F64).unwrap();
            n.insert(name.into(), (t * by).unwrap());
        })
    };
    assert!(scaled("lig.x", 40.0).contains("`lig.x` holds"), "{}", scaled("lig.x", 40.0));
    assert!(scaled("rec.edge_index", 2.0).contains("no number below 109"));
    assert!(scaled("lig.edge_type", 0.5).contains("`lig.edge_type` holds"));
    assert!(scaled("rec.pos", f64::NAN).contains("`rec.pos` holds NaN"));
    let e = said(&|n: &mut Named| drop(n.insert("lig.x".into(), n["lig.x"].narrow(0, 0, 29).unwrap())));
    assert!(e.contains("[29, 16], expected [30, 16]"), "{e}");
    let e = said(&|n: &mut Named| {
        let t = n["lig.edge_index"].flip(&[0]).unwrap().narrow(1, 1, 68).unwrap().contiguous().unwrap();
        n.insert("lig.edge_index".into(), t);
    });
    assert!(e.contains("twice in a row"), "{e}");
    let e = said(&|n: &mut Named| {
        let t = n["lig.mask_rotate"].zeros_like().unwrap();
        n.insert("lig.mask_rotate".into(), t);
    });
    assert!(e.contains("rotatable bond 0"), "{e}");
}

#[test]
fn poses_are_written_as_sdf() {
    let complex = Complex::load(fixture()).unwrap();
    let (n, m) = (complex.ligand.positions.len(), complex.ligand.kinds.len() / 2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("poses.sdf");
    let pose = |name: &str| Record {
        name: name.into(),
        positions: complex.ligand.positions.clone(),
        properties: vec![("confidence".into(), "-0.25".into()), ("rank".into(), "1".into())],
    };
    write(&path, &complex, &[pose("first"), pose("second")]).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let records: Vec<&str> = text.split("$$$$\n").filter(|r| !r.is_empty()).collect();
    assert_eq!(records.len(), 2);
    let lines: Vec<&str> = records[1].lines().collect();
    assert_eq!((lines[0], lines[3]), ("second", &*format!("{n:>3}{m:>3}  0  0  0  0  0  0  0  0999 V2000")));
    // the places of the file, not those around the origin
    let places = candle_core::safetensors::load(fixture(), &Device::Cpu).unwrap()["lig.pos"].to_vec2::<f32>().unwrap();
    for (line, p) in lines[4..4 + n].iter().zip(places) {
        for (k, v) in p.into_iter().enumerate() {
            let got: f32 = line[10 * k..10 * k + 10].trim().parse().unwrap();
            assert!((got - v).abs() < 1e-3, "{line}");
        }
    }
    assert_eq!(lines[4][31..34].trim(), "C");
    // an aromatic bond is of kind 4
    assert!(lines[4 + n..4 + n + m].iter().any(|l| l[6..9].trim() == "4"));
    assert!(records[1].contains("M  END\n> <confidence>\n-0.25\n\n> <rank>\n1\n\n"));
    let mut charged = complex.clone();
    charged.ligand.x[3] = 6;
    write(&path, &charged, &[pose("first")]).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("M  CHG  1   1   1\n"));
    let said = |record: Record| write(&path, &complex, &[record]).unwrap_err().to_string();
    assert!(said(Record { positions: vec![[0.0; 3]], ..pose("x") }).contains("has 1 atoms, the ligand 30"));
    assert!(said(Record { name: "a\nb".into(), ..pose("x") }).contains("several lines"));
    assert!(said(Record { properties: vec![("a>".into(), "".into())], ..pose("x") }).contains("name of a property"));
}
