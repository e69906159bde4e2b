//! .npy, .npz and .safetensors: round trips, numpy's own bytes, damaged and hostile files.
use candle_core::{DType, Device, Tensor};
use ld3sh::files::{npy, safetensors};
use ld3sh::tensor::create;
use ld3sh::{Kind, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

const ALL: [DType; 9] =
    [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64, DType::BF16, DType::F16, DType::F32, DType::F64];

fn sample(dtype: DType) -> Tensor {
    Tensor::new(&[[0f64, 1.0, 2.5], [7.0, 100.0, 3.0]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}
fn same(a: &Tensor, b: &Tensor) {
    assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()));
    assert_eq!(create::to_f64(a).unwrap(), create::to_f64(b).unwrap());
}
fn in_dir(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    (dir, path)
}
fn kind<T>(r: Result<T>) -> (Kind, String) {
    match r {
        Ok(_) => panic!("was read"),
        Err(e) => (e.kind(), e.to_string()),
    }
}
fn read_bytes(bytes: &[u8]) -> Result<Tensor> {
    let (_dir, path) = in_dir("x.npy");
    std::fs::write(&path, bytes).unwrap();
    npy::read_npy(path)
}
/// An npy file with this header text and data.
fn npy_file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

#[test]
fn npy_round_trips() {
    let (_dir, path) = in_dir("x.npy");
    for dtype in ALL {
        let t = sample(dtype);
        npy::write_npy(&path, &t).unwrap();
        let expected = if dtype == DType::BF16 { t.to_dtype(DType::F32).unwrap() } else { t };
        same(&npy::read_npy(&path).unwrap(), &expected);
    }
    let shapes: [&[usize]; 4] = [&[], &[0, 3], &[5], &[1, 2, 1, 3]];
    for shape in shapes {
        let t = Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        npy::write_npy(&path, &t).unwrap();
        same(&npy::read_npy(&path).unwrap(), &t);
    }
    // a view writes what it shows
    let t = sample(DType::F32).t().unwrap().narrow(0, 1, 2).unwrap();
    npy::write_npy(&path, &t).unwrap();
    same(&npy::read_npy(&path).unwrap(), &t);
}

#[test]
fn bytes_are_those_of_numpy() {
    let (_dir, path) = in_dir("x.npy");
    npy::write_npy(&path, &Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap()).unwrap();
    // np.save(path, np.array([1, 2], dtype='float32')), numpy 2
    let mut text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".to_string();
    text.push_str(&" ".repeat(117 - text.len()));
    text.push('\n');
    assert_eq!(std::fs::read(&path).unwrap(), npy_file(&text, &[0, 0, 128, 63, 0, 0, 0, 64]));
}

#[test]
fn foreign_layouts_are_read() {
    let fortran =
        npy_file("{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3)}\n", &[0, 0, 3, 0, 1, 0, 4, 0, 2, 0, 5, 0]);
    let t = read_bytes(&fortran).unwrap();
    assert_eq!(create::to_i64(&t).unwrap(), [0, 1, 2, 3, 4, 5]);
    let big = npy_file("{\"descr\": \">f8\", \"fortran_order\": False, \"shape\": (1,)}", &1.5f64.to_be_bytes());
    assert_eq!(create::to_f64(&read_bytes(&big).unwrap()).unwrap(), [1.5]);
    let flags = npy_file("{'shape': (3,), 'descr': '|b1', 'fortran_order': False}", &[0, 1, 255]);
    let t = read_bytes(&flags).unwrap();
    assert_eq!((t.dtype(), create::to_i64(&t).unwrap()), (DType::U8, vec![0, 1, 1]));
    let signed = npy_file("{'descr': '|i1', 'fortran_order': False, 'shape': (2,)}", &[255, 5]);
    assert_eq!(create::to_i64(&read_bytes(&signed).unwrap()).unwrap(), [-1, 5]);
    let scalar = npy_file("{'descr': '<u8', 'fortran_order': False, 'shape': ()}", &7u64.to_le_bytes());
    assert_eq!(create::to_i64(&read_bytes(&scalar).unwrap()).unwrap(), [7]);
    let (k, _) = kind(read_bytes(&npy_file("{'descr': '<u8', 'fortran_order': False, 'shape': ()}", &[255; 8])));
    assert_eq!(k, Kind::Format);
}

#[test]
fn damaged_and_hostile_npy_files_are_errors() {
    let header =
        |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let good = npy_file(&header("'<f4'", "(2,)"), &[0; 8]);
    assert!(read_bytes(&good).is_ok());
    for n in 0..good.len() {
        assert_eq!(kind(read_bytes(&good[..n])).0, Kind::Format, "cut to {n} bytes");
    }
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("empty", vec![], "an empty file"),
        ("text", b"hello, this is not numpy".to_vec(), "magic"),
        ("version", [b"\x93NUMPY\x09\x00".as_slice(), &[0; 20]].concat(), "version 9"),
        ("huge header", [b"\x93NUMPY\x02\x00".as_slice(), &[255; 20]].concat(), "header of"),
        ("absurd shape", npy_file(&header("'<f4'", "(99999999999, 99999999999)"), &[]), "too large"),
        ("empty, and absurd", npy_file(&header("'<f4'", "(0, 99999999999, 99999999999)"), &[]), "too large"),
        ("overflow", npy_file(&header("'<f4'", "(99999999999999999999999,)"), &[]), "size"),
        ("more than there is", npy_file(&header("'<f4'", "(1000000000,)"), &[0; 8]), "more than the file has"),
        ("negative", npy_file(&header("'<f4'", "(-1,)"), &[0; 8]), "size `-1`"),
        ("objects", npy_file(&header("'|O'", "(1,)"), &[0; 8]), "Python objects"),
        ("records", npy_file(&header("[('a', '<f4')]", "(1,)"), &[0; 8]), "records"),
        ("complex", npy_file(&header("'<c8'", "(1,)"), &[0; 8]), "not supported"),
        ("nesting", npy_file(&"(".repeat(60_000), &[]), "nested too deeply"),
    ];
    for (name, bytes, words) in cases {
        let (_, text) = kind(read_bytes(&bytes));
        assert!(text.contains(words), "{name}: {text}");
    }
    let (k, text) = kind(npy::read_npy("/nowhere/x.npy"));
    assert!(k == Kind::Io && text.contains("/nowhere/x.npy"), "{text}");
}

fn two() -> Vec<(String, Tensor)> {
    vec![("b".into(), sample(DType::F32)), ("a".into(), sample(DType::I64))]
}

#[test]
fn npz_round_trips_in_order() {
    let (_dir, path) = in_dir("x.npz");
    npy::write_npz(&path, &two()).unwrap();
    let back = npy::read_npz(&path).unwrap();
    assert_eq!(back.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    back.iter().zip(&two()).for_each(|(x, y)| same(&x.1, &y.1));
    let first = std::fs::read(&path).unwrap();
    npy::write_npz(&path, &two()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the same arrays give the same bytes");
    // np.savez_compressed
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    zip.start_file("x.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&npy_file("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", &1f32.to_le_bytes())).unwrap();
    zip.finish().unwrap();
    assert_eq!(create::to_f64(&npy::read_npz(&path).unwrap()[0].1).unwrap(), [1.0]);
}

#[test]
fn damaged_and_hostile_npz_files_are_errors() {
    let (_dir, path) = in_dir("x.npz");
    npy::write_npz(&path, &two()).unwrap();
    let good = std::fs::read(&path).unwrap();
    for n in [0, 1, 10, good.len() / 2, good.len() - 1] {
        std::fs::write(&path, &good[..n]).unwrap();
        assert_eq!(kind(npy::read_npz(&path)).0, Kind::Format, "cut to {n} bytes");
    }
    // every single byte changed: an error or other values, no panic
    for i in 0..good.len() {
        let mut bytes = good.clone();
        bytes[i] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        let _ = npy::read_npz(&path);
    }
    assert!(kind(npy::write_npz(&path, &[("../x".into(), sample(DType::F32))])).1.contains("cannot name"));
}

#[test]
fn a_zip_bomb_is_refused_before_memory_is_taken() {
    let (_dir, path) = in_dir("x.npz");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    // the last array alone is within the bound of 2 GiB, with the others it is not
    for i in 0..2 {
        zip.start_file(format!("{i}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&npy_file("{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", &[0; 3])).unwrap();
    }
    zip.start_file("x.npy", zip::write::SimpleFileOptions::default()).unwrap();
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2147483643,)}";
    zip.write_all(&npy_file(header, &vec![0; 1 << 20])).unwrap();
    zip.finish().unwrap();
    let (k, text) = kind(npy::read_npz(&path));
    assert!(k == Kind::Memory && text.contains("times the file"), "{text}");
}

#[test]
fn safetensors_round_trips() {
    let (_dir, path) = in_dir("x.safetensors");
    let list: Vec<(String, Tensor)> = ALL.iter().map(|d| (d.as_str().to_string(), sample(*d))).collect();
    let meta: Vec<(String, String)> = (0..5).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
    safetensors::write(&path, &list, &meta).unwrap();
    let back = safetensors::read(&path).unwrap();
    assert_eq!(back.metadata, meta);
    assert_eq!(back.tensors.len(), ALL.len());
    for (name, t) in &list {
        same(&back.tensors.iter().find(|(n, _)| n == name).unwrap().1, t);
    }
    // candle, another reader, agrees
    let other = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    same(&other["f64"], &sample(DType::F64));
    let first = std::fs::read(&path).unwrap();
    safetensors::write(&path, &list, &meta).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
}

#[test]
fn damaged_safetensors_files_are_errors() {
    let (_dir, path) = in_dir("x.safetensors");
    safetensors::write(&path, &two(), &[]).unwrap();
    let good = std::fs::read(&path).unwrap();
    for n in 0..good.len() {
        assert_eq!(kind(safetensors::from_bytes(&good[..n])).0, Kind::Format, "cut to {n} bytes");
    }
    for i in 0..good.len() {
        let mut bytes = good.clone();
        bytes[i] ^= 0x55;
        let _ = safetensors::from_bytes(&bytes);
    }
    assert_eq!(kind(safetensors::from_bytes(&[255; 64])).0, Kind::Format);
    // an empty tensor has strides, too, which are made of its other sizes
    let header = r#"{"a": {"dtype": "F32", "shape": [0, 99999999999, 99999999999], "data_offsets": [0, 0]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    assert_eq!(kind(safetensors::from_bytes(&bytes)).0, Kind::Format);
}

#[test]
fn writing_leaves_the_old_file_when_it_fails() {
    let (dir, path) = in_dir("x.npy");
    npy::write_npy(&path, &sample(DType::F32)).unwrap();
    let (k, text) = kind(npy::write_npy(dir.path().join("no/such/dir/x.npy"), &sample(DType::F32)));
    assert!(k == Kind::Io && text.contains("no/such/dir"), "{text}");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["x.npy"], "no temporary file is left");
    same(&npy::read_npy(&path).unwrap(), &sample(DType::F32));
}

#[test]
fn scripts_load_and_save() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = rhai::Engine::new();
    ld3sh::script::tensor::register(&mut e);
    let run = |script: &str| e.eval::<rhai::Dynamic>(&script.replace("DIR", &dir.path().display().to_string()));
    let path = |n: &str| Path::new(dir.path()).join(n).exists();
    let _ = run("save(\"DIR/x.npy\", ones([2])); save(\"DIR/x.npz\", #{ a: ones([2]) }); save(\"DIR/x.safetensors\", #{ a: ones([2]) })")
        .unwrap();
    assert!(path("x.npy") && path("x.npz") && path("x.safetensors"));
    let sum = "load(\"DIR/x.npy\").sum() + load(\"DIR/x.npz\").a.sum() + load(\"DIR/x.safetensors\").a.sum()";
    assert_eq!(run(&format!("({sum}).item()")).unwrap().as_float(), Ok(6.0));
    for bad in [
        "load(\"DIR/x.pt\")",
        "load(\"DIR/x\")",
        "save(\"DIR/y.npy\", #{})",
        "save(\"DIR/y.npz\", ones([1]))",
        "save(\"DIR/y.npz\", #{ a: 1 })",
    ] {
        assert!(run(bad).is_err(), "{bad}");
    }
    assert!(!path("y.npy") && !path("y.npz"));
}
