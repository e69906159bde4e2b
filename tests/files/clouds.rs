//! Point clouds as PLY, XYZ and npy: round trips, files of other programs, damaged and hostile ones.
use candle_core::{DType, Device, Tensor};
use ld3sh::files::cloud::{Points, load, ply, save};
use ld3sh::tensor::{create, random};
use ld3sh::{Kind, Result};
use std::path::PathBuf;

fn in_dir(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    (dir, path)
}

fn drawn(shape: &[usize], dtype: DType) -> Tensor {
    random::normal(1, 0, shape, 0, dtype, &Device::Cpu).unwrap()
}

fn refused<T>(r: Result<T>) -> String {
    match r {
        Ok(_) => panic!("was read"),
        Err(e) => {
            assert_ne!(e.kind(), Kind::Internal);
            e.to_string()
        }
    }
}

#[test]
fn what_is_written_is_read_back_bit_by_bit() {
    for (name, ascii, dtypes) in [
        ("x.ply", false, &[DType::F32, DType::F64][..]),
        ("x.ply", true, &[DType::F32, DType::F64]),
        ("x.PLY", false, &[DType::F32]),
        ("x.xyz", false, &[DType::F32]),
        ("x.txt", false, &[DType::F32]),
        ("x.npy", false, &[DType::F32, DType::F64]),
    ] {
        for dtype in dtypes {
            let (_dir, path) = in_dir(name);
            let x = drawn(&[37, 3], *dtype);
            save(&path, &x, ascii).unwrap();
            let back = load(&path).unwrap();
            assert_eq!((back.dims(), back.dtype()), (x.dims(), *dtype), "{name}");
            assert_eq!(create::to_f64(&back).unwrap(), create::to_f64(&x).unwrap(), "{name} {dtype:?}");
        }
    }
    // several, and halves as f32
    let (_dir, path) = in_dir("x.npy");
    save(&path, &drawn(&[2, 5, 3], DType::F32), false).unwrap();
    assert_eq!(load(&path).unwrap().dims(), [2, 5, 3]);
    let (_dir, path) = in_dir("x.ply");
    save(&path, &drawn(&[1, 5, 3], DType::F16), false).unwrap();
    assert_eq!(load(&path).unwrap().dims(), [5, 3]);
}

#[test]
fn files_of_other_programs() {
    let read = |text: &str| ply::read(text.as_bytes()).unwrap();
    // colours and normals beside, faces before and behind, names of types of either kind, Windows' ends of lines
    let text = "ply\r\nformat ascii 1.0\r\ncomment made by hand\r\nobj_info x\r\nelement face 1\r\nproperty list uint8 int32 vertex_indices\r\nelement vertex 2\r\nproperty uchar red\r\nproperty float32 z\r\nproperty float32 x\r\nproperty short y\r\nproperty list uchar float tail\r\nend_header\r\n3 0 1 2\r\n255 3 1 2 2 9 9\r\n0 6 4 5 0\r\n";
    assert_eq!(read(text), Points::Single(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let text = "ply\nformat ascii 1.0\nelement vertex 1\nproperty double x\nproperty double y\nproperty double z\nend_header\n0.1 0.2 0.3\n";
    assert_eq!(read(text), Points::Double(vec![0.1, 0.2, 0.3]));
    let mut big = b"ply\nformat binary_big_endian 1.0\nelement vertex 1\nproperty uchar id\nproperty float x\nproperty float y\nproperty float z\nend_header\n".to_vec();
    big.push(7);
    [1.5f32, -2.0, 3.25].iter().for_each(|v| big.extend(v.to_be_bytes()));
    assert_eq!(ply::read(&big).unwrap(), Points::Single(vec![1.5, -2.0, 3.25]));
}

#[test]
fn faults_are_named() {
    let head = |elements: &str| format!("ply\nformat ascii 1.0\n{elements}end_header\n");
    let xyz = "property float x\nproperty float y\nproperty float z\n";
    let vertex = |count: &str| head(&format!("element vertex {count}\n{xyz}"));
    for (text, words) in [
        ("solid cube\n".to_string(), "does not begin with `ply`"),
        ("ply\nformat ascii 1.0\nelement vertex 1\n".into(), "no `end_header`"),
        ("ply\nformat ascii 2.0\nend_header\n".into(), "line 2"),
        ("ply\nformat text 1.0\nend_header\n".into(), "`text` is no format"),
        ("ply\nend_header\n".into(), "names no format"),
        (head("element face 0\n"), "no element `vertex`"),
        (head("property float x\n"), "line 3: a property before the first element"),
        (head(&format!("element vertex 1\n{xyz}property float x\n")), "line 7: the property `x` is there twice"),
        (head("element vertex 1\nelement vertex 1\n"), "the element `vertex` is there twice"),
        (head("element vertex -1\n"), "`-1` is no number of elements"),
        (head("element vertex 1\nproperty floaty x\n"), "`floaty` is no type"),
        (head("element vertex 1\nproperty float x\nproperty float y\n") + "1 2\n", "its vertices have no `z`"),
        (
            head("element vertex 1\nproperty list uchar float x\nproperty float y\nproperty float z\n") + "1 2 3 4\n",
            "its vertices have no `x`",
        ),
        (vertex("2") + "1 2 3\n4 5\n", "vertex 1 of 2: the file ends there"),
        (vertex("1") + "1 2 three\n", "vertex 0 of 1: `three` is no number"),
        (vertex("18446744073709551615"), "cannot be in the 0 bytes that follow"),
        (
            head(&format!("element vertex 1\n{xyz}property list int int n\n")) + "1 2 3 99999999999 1\n",
            "a list of 99999999999 entries",
        ),
        ("<!DOCTYPE html><html>".into(), "web page"),
    ] {
        let e = refused(ply::read(text.as_bytes()).and_then(Points::tensor));
        assert!(e.contains(words), "{text:?}: {e}");
    }
    assert!(refused(ply::read(vertex("0").as_bytes()).and_then(Points::tensor)).contains("no points"));
    let mut cut = b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n".to_vec();
    cut.extend([0; 20]);
    let e = refused(ply::read(&cut));
    assert!(e.contains("2 elements `vertex` cannot be in the 20 bytes"), "{e}");

    let x = drawn(&[4, 3], DType::F32);
    let (_dir, path) = in_dir("x.obj");
    assert!(refused(save(&path, &x, false)).contains(".ply, .xyz"));
    let (_dir, path) = in_dir("x.ply");
    assert!(refused(save(&path, &drawn(&[2, 4, 3], DType::F32), false)).contains("one cloud in a file"));
    assert!(refused(save(&path, &drawn(&[4, 2], DType::F32), false)).contains("expected a cloud [N, 3]"));
    let nan = (x.clone() / 0.0).unwrap();
    assert!(refused(save(&path, &nan, false)).contains("point 0 is not finite"));
    assert!(!path.exists());
    assert!(refused(load(&path)).contains("x.ply"));
    std::fs::write(&path, "ply\nformat ascii 1.0\n").unwrap();
    let e = refused(load(&path));
    assert!(e.contains("x.ply") && e.contains("end_header"), "{e}");
    let (_dir, path) = in_dir("x.xyz");
    assert!(refused(save(&path, &x, true)).contains("`ascii` is of PLY"));
    std::fs::write(&path, "").unwrap();
    assert!(refused(load(&path)).contains("no points"));
    let (_dir, path) = in_dir("x.npy");
    ld3sh::files::npy::write_npy(&path, &drawn(&[4, 2], DType::F32)).unwrap();
    assert!(refused(load(&path)).contains("holds an array [4, 2]"));
}
