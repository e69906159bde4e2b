//! Files: atomic writes, images, plots, tables, schedule files, state; round trips, and hostile or truncated input.
use crate::cases::cases;
use crate::caught::caught;
use candle_core::{DType, Device, Tensor};
use ld3sh::discretize::Schedule;
use ld3sh::draw::plot::{LinesOptions, SchedulesOptions, Series, Space, lines, schedules};
use ld3sh::draw::sheet::{SheetOptions, sheet};
use ld3sh::files::image::{GridOptions, Image, grid};
use ld3sh::files::state::{self, Data};
use ld3sh::files::table::{Table, number};
use ld3sh::files::{atomic, hash, result};
use ld3sh::noise::from_spec;
use ld3sh::{Kind, Result};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn kind<T>(r: Result<T>) -> Kind {
    r.err().expect("an error").kind()
}
fn edm(t: &[f64], name: &str) -> Schedule {
    Schedule::from_steps(from_spec(&json!({ "name": "edm" })).unwrap(), t, name).unwrap()
}
fn batch(b: usize, c: usize, h: usize, w: usize) -> Tensor {
    let n = b * c * h * w;
    let v: Vec<f64> = (0..n).map(|i| (i as f64 * 0.7).sin() * 1.2).collect();
    Tensor::from_vec(v, (b, c, h, w), &Device::Cpu).unwrap()
}

// ------------------------------------------------------------------------------------------------ atomic writes

#[test]
fn a_write_replaces_the_whole_file_and_leaves_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    atomic::write(&path, b"a long first version").unwrap();
    atomic::write(&path, b"second").unwrap();
    assert_eq!(atomic::read_text(&path).unwrap(), "second");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(hash::sha256_file(&path).unwrap(), hash::sha256(b"second"));
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    atomic::write(&path, b"old").unwrap();
    let full = |f: &mut dyn std::io::Write| {
        f.write_all(b"half")?;
        Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
    };
    let e = atomic::write_with(&path, full).unwrap_err();
    assert!(e.message().contains("a.txt") && e.fix().unwrap().contains("full"), "{e}");
    assert_eq!(atomic::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn errors_of_writing_name_the_path_and_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    atomic::write(&file, b"x").unwrap();
    let says = |path: &std::path::Path, want: &str| {
        let e = atomic::write(path, b"x").unwrap_err();
        assert_eq!(e.kind(), Kind::Io);
        assert!(e.to_string().contains(want) && e.message().contains(&path.display().to_string()), "{e}");
    };
    says(&file.join("below"), "not a directory");
    says(&dir.path().join("missing/a"), "directory does not exist");
    says(dir.path(), "it is a directory");
    let mut p = std::fs::metadata(&file).unwrap().permissions();
    p.set_readonly(true);
    std::fs::set_permissions(&file, p).unwrap();
    says(&file, "read-only");
    assert_eq!(atomic::read(&file).unwrap(), b"x");
    let e = atomic::read(dir.path().join("fil")).unwrap_err();
    assert!(e.fix().unwrap().contains("file"), "{e}");
    assert_eq!(kind(atomic::read(dir.path())), Kind::Io);
    atomic::write(dir.path().join("bin"), &[b'a', 0xff]).unwrap();
    assert_eq!(kind(atomic::read_text(dir.path().join("bin"))), Kind::Format);
}

#[cfg(target_os = "linux")]
#[test]
fn devices_are_written_to_and_links_followed() {
    let e = atomic::write("/dev/full", &[0; 1 << 16]).unwrap_err();
    assert!(e.kind() == Kind::Io && e.fix().unwrap().contains("full"), "{e}");
    atomic::write("/dev/null", b"x").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    atomic::write(&file, b"old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    atomic::write(&link, b"new").unwrap();
    assert_eq!(atomic::read(&file).unwrap(), b"new");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
}

// -------------------------------------------------------------------------------------------------------- images

#[test]
fn an_image_reads_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    for c in [1, 3] {
        let image = Image::from_tensor(&batch(1, c, 5, 7)).unwrap();
        let path = dir.path().join(format!("{c}.png"));
        image.save(&path).unwrap();
        let back = Image::load(&path).unwrap();
        assert_eq!(back, image);
        // a tensor made from bytes gives the same bytes
        let tensor = back.to_tensor().unwrap();
        assert_eq!(tensor.dims(), [c, 5, 7]);
        assert_eq!(Image::from_tensor(&tensor).unwrap(), image);
        let want = batch(1, c, 5, 7).squeeze(0).unwrap().clamp(-1.0, 1.0).unwrap().to_dtype(DType::F32).unwrap();
        let worst = (tensor - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst <= 1.0 / 255.0 + 1e-6, "{worst}");
    }
}

#[test]
fn values_map_to_levels_and_nan_to_black() {
    let t = Tensor::new(&[[-1.0, 1.0, 0.0, -9.0, 9.0, f64::NAN]], &Device::Cpu).unwrap();
    assert_eq!(Image::from_tensor(&t).unwrap().data, [0, 255, 128, 0, 255, 0]);
}

#[test]
fn a_grid_places_pictures_in_rows() {
    let t = batch(5, 1, 2, 3);
    let o = GridOptions { cols: Some(3), scale: 2, pad: 1, background: 77 };
    let g = grid(&t, &o).unwrap();
    assert_eq!((g.width, g.height, g.channels), (3 * 7 + 1, 2 * 5 + 1, 1));
    for (i, (x, y)) in [(0, (1, 1)), (2, (15, 1)), (3, (1, 6)), (4, (8, 6))] {
        let one = Image::from_tensor(&t.get(i).unwrap()).unwrap();
        assert_eq!(g.data[y * g.width + x], one.data[0], "picture {i}");
        assert_eq!(g.data[(y + 3) * g.width + x + 5], one.data[5], "last pixel of picture {i}");
    }
    assert_eq!((g.data[0], g.data[6 * g.width + 16]), (77, 77));
    assert_eq!(grid(&t, &GridOptions::default()).unwrap().width, 3 * 5 + 2);
}

#[test]
fn bad_pictures() {
    let f =
        |dims: &[usize]| kind(grid(&Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap(), &GridOptions::default()));
    assert_eq!([f(&[2, 2, 4, 4]), f(&[3]), f(&[0, 1, 4, 4]), f(&[1, 1, 1, 4, 4])], [Kind::Shape; 4]);
    assert_eq!(kind(Image::from_tensor(&batch(2, 1, 2, 2))), Kind::Shape);
    let huge = GridOptions { scale: usize::MAX, ..GridOptions::default() };
    assert_eq!(kind(grid(&batch(1, 1, 2, 2), &huge)), Kind::Value);
    let zero = GridOptions { scale: 0, ..GridOptions::default() };
    assert_eq!(kind(grid(&batch(1, 1, 2, 2), &zero)), Kind::Value);
    assert!(Image::from_tensor(&batch(1, 1, 2, 2)).unwrap().save("x.bmp").unwrap_err().message().contains(".png"));
}

#[test]
fn a_truncated_or_altered_png_is_an_error() {
    let png = Image::from_tensor(&batch(1, 3, 6, 5)).unwrap().to_png().unwrap();
    for n in 0..png.len() {
        assert_eq!(kind(Image::from_png(&png[..n])), Kind::Format, "cut at {n}");
    }
    for i in 0..png.len() {
        let mut bad = png.clone();
        bad[i] ^= 0x55;
        // every byte is covered by the signature, a length or a checksum
        assert!(Image::from_png(&bad).is_err(), "byte {i}");
    }
}

#[test]
fn a_contact_sheet_shows_labels_and_pictures() {
    let rows = [("teacher\nNFE 20".to_string(), batch(3, 1, 4, 4)), ("LD3".to_string(), batch(2, 3, 4, 4))];
    let o =
        SheetOptions {
            scale: Some(10), title: Some("Ω".into()), columns: vec!["a".into()], ..SheetOptions::default()
        };
    let s = sheet(&rows, &o).unwrap();
    assert_eq!(s.channels, 3);
    // letters were drawn left of the pictures, and the last picture of row 1 stands at the right edge
    let dark = |x: std::ops::Range<usize>| {
        (0..s.height)
            .flat_map(|y| x.clone().map(move |x| (x, y)))
            .filter(|(x, y)| s.data[(y * s.width + x) * 3] < 100)
            .count()
    };
    assert!(dark(0..s.width - 3 * 44 - 16) > 50);
    let corner = Image::from_tensor(&batch(3, 1, 4, 4).get(2).unwrap()).unwrap().data[3];
    let row = (0..s.height).find(|y| s.data[(y * s.width + s.width - 16) * 3] != 255).unwrap();
    assert_eq!(s.data[(row * s.width + s.width - 16) * 3], corner);
    assert_eq!(kind(sheet(&[], &o)), Kind::Value);
    let mixed = [("a".to_string(), batch(1, 1, 4, 4)), ("b".to_string(), batch(1, 1, 5, 4))];
    assert!(sheet(&mixed, &o).unwrap_err().message().contains("`b`"));
}

// --------------------------------------------------------------------------------------------------------- plots

fn series(name: &str, x: &[f64], y: &[f64]) -> Series {
    Series { name: name.into(), x: x.to_vec(), y: y.to_vec(), line: true, points: true, band: None }
}

#[test]
fn plots_are_written_as_png_and_svg() {
    let dir = tempfile::tempdir().unwrap();
    let s = [series("train <1>", &[1.0, 2.0, 3.0], &[0.1, f64::NAN, 10.0]), series("", &[1.0, 3.0], &[0.5, -1.0])];
    let o = LinesOptions {
        title: "loss & co".into(),
        y_label: "loss".into(),
        x_label: "step".into(),
        log_y: true,
        ..LinesOptions::default()
    };
    let p = lines(&s, &o).unwrap();
    let svg = p.to_svg();
    assert!(
        svg.contains("train &lt;1&gt;")
            && svg.contains("loss &amp; co")
            && svg.contains(">0.1<")
            && !svg.contains("NaN")
    );
    p.save(dir.path().join("p.svg"), 2).unwrap();
    p.save(dir.path().join("p.png"), 2).unwrap();
    let image = Image::load(dir.path().join("p.png")).unwrap();
    assert_eq!((image.width, image.height), (1440, 880));
    // both colours and dark text are there
    let near = |rgb: [u8; 3]| image.data.chunks_exact(3).filter(|p| *p == rgb).count();
    assert!(near([0, 114, 178]) > 50 && near([213, 94, 0]) > 50 && near([34, 34, 40]) > 20);
    assert_eq!(kind(p.save(dir.path().join("p.gif"), 2)), Kind::Value);
    assert_eq!(kind(p.to_image(0)), Kind::Value);
}

#[test]
fn schedules_have_a_tick_at_each_step() {
    let a = edm(&[80.0, 10.0, 2.0, 0.5, 0.002], "edm");
    let b = edm(&[80.0, 7.0, 1.0, 0.2, 0.002], "ld3");
    let eval = Tensor::new(&[80.0, 7.5, 1.1, 0.2, 0.002], &Device::Cpu).unwrap();
    let b = b.with_eval(Some(&eval)).unwrap();
    for space in [Space::Sigma, Space::Lambda, Space::Time] {
        let p =
            schedules(&[a.clone(), b.clone()], &SchedulesOptions { space, title: "steps".into(), width: 720 }).unwrap();
        let svg = p.to_svg();
        assert_eq!(svg.matches("stroke-width=\"2.2\"").count(), 10);
        assert_eq!(svg.matches("<circle").count(), 5);
        // the first step, with the most noise, is on the left
        let xs: Vec<f64> = svg
            .lines()
            .filter(|l| l.contains("stroke-width=\"2.2\""))
            .map(|l| l.split("points=\"").nth(1).unwrap().split(',').next().unwrap().parse().unwrap())
            .collect();
        assert!(xs[..5].windows(2).all(|w| w[0] < w[1]), "{space:?} {xs:?}");
        assert!((xs[0] - xs[5]).abs() < 1e-9 && (xs[4] - xs[9]).abs() < 1e-9);
        p.to_image(1).unwrap();
    }
}

#[test]
fn plots_check_what_they_get() {
    let o = LinesOptions::default();
    assert_eq!(kind(lines(&[], &o)), Kind::Value);
    assert_eq!(kind(lines(&[series("a", &[1.0], &[])], &o)), Kind::Shape);
    assert_eq!(kind(lines(&[series("a", &[1.0], &[f64::NAN])], &o)), Kind::Value);
    assert_eq!(kind(lines(&[series("a", &[1.0], &[-1.0])], &LinesOptions { log_y: true, ..o.clone() })), Kind::Value);
    assert_eq!(kind(lines(&[series("a", &[1.0], &[1.0])], &LinesOptions { size: (10, 10), ..o.clone() })), Kind::Value);
    assert_eq!(kind(lines(&[series(&"m".repeat(500), &[1.0], &[1.0])], &o)), Kind::Value);
    let none = SchedulesOptions { space: Space::Time, title: String::new(), width: 720 };
    assert_eq!(kind(schedules(&[], &none)), Kind::Value);
    // extremes are drawn, not panicked over
    let wild = [series("", &[f64::MIN, f64::MAX], &[1e308, -1e308]), series("", &[0.0], &[5e-324])];
    lines(&wild, &o).unwrap().to_image(1).unwrap();
    lines(&[series("", &[5e-324, 1e308], &[1.0, 1.0])], &LinesOptions { log_x: true, ..o })
        .unwrap()
        .to_image(1)
        .unwrap();
}

// -------------------------------------------------------------------------------------------------------- tables

#[test]
fn tables_align_and_mark_the_best() {
    let cells = |r: &[&str]| r.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    let mut t = Table {
        header: cells(&["method", "loss"]),
        rows: vec![cells(&["naïve 日本", "0.5"]), cells(&["ld3", "0.125"]), cells(&["none"])],
        markdown: false,
        best: vec![(1, false)],
    };
    let want = "method        loss\n──────────────────\nnaïve 日本    0.5 \nld3         0.125*\nnone\n";
    let got: Vec<String> = t.to_string().lines().map(|l| l.trim_end().to_string()).collect();
    let want: Vec<String> = want.lines().map(|l| l.trim_end().to_string()).collect();
    assert_eq!(got, want);
    t.markdown = true;
    let md = t.to_string();
    assert!(md.contains("| ld3        | **0.125** |") && md.lines().nth(1).unwrap().ends_with("-: |"), "{md}");
    assert_eq!(Table::default().to_string(), "");
}

#[test]
fn numbers_have_significant_digits() {
    let cases = [(0.123456, "0.1235"), (12.0, "12.00"), (1234.5678, "1235"), (99999.6, "100000"), (1.0e7, "1.000e7")];
    for (v, want) in cases.into_iter().chain([(0.0, "0"), (-0.5, "-0.5000"), (1.5e-6, "1.500e-6"), (f64::NAN, "nan")]) {
        assert_eq!(number(v, 4), want);
    }
}

// ------------------------------------------------------------------------------------------------ schedule files

fn meta() -> serde_json::Map<String, Value> {
    let Value::Object(m) = json!({
        "solver": { "name": "unipc", "order": 3 }, "seed": 7, "losses": { "valid": 0.012 },
        "model": { "name": "fashion28", "hash": "ab" }, "made": { "seconds": 71.5 },
    }) else {
        panic!()
    };
    m
}

#[test]
fn a_schedule_reads_back_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.json");
    let t = [80.0, 0.1 + 0.2, 1.0 / 7.0, 0.002];
    let eval = Tensor::new(&[80.0, 0.31, 0.15, 0.002], &Device::Cpu).unwrap();
    let s = edm(&t, "ld3").with_eval(Some(&eval)).unwrap();
    result::save(&path, &s, meta()).unwrap();
    let back = result::load(&path, false).unwrap();
    assert_eq!(back.schedule.times().unwrap(), t);
    assert_eq!(back.schedule.eval_times().unwrap(), [80.0, 0.31, 0.15, 0.002]);
    assert_eq!(back.schedule.name, "ld3");
    assert_eq!(back.schedule.noise.spec(), s.noise.spec());
    assert_eq!((&back.body["nfe"], &back.body["seed"]), (&json!(3), &json!(7)));
    assert_eq!(back.body["made"]["seconds"], json!(71.5));
    assert_eq!(back.body["versions"]["ld3sh"], json!(ld3sh::VERSION));
    assert_eq!(back.body["sigma"][1], json!(0.1 + 0.2));
    // dates and durations stand outside the hash; nothing else does
    let mut later = meta();
    later["made"] = json!({ "date": "2001-01-01T00:00:00Z", "seconds": 1 });
    assert_eq!(result::to_json(&s, later).unwrap()["sha256"], back.body["sha256"]);
    let mut other = meta();
    other["seed"] = json!(8);
    assert_ne!(result::to_json(&s, other).unwrap()["sha256"], back.body["sha256"]);
    let e = result::to_json(&s, serde_json::Map::from_iter([("sead".to_string(), json!(1))])).unwrap_err();
    assert!(e.fix().unwrap().contains("`seed`"));
}

#[test]
fn edited_newer_and_broken_schedule_files_are_refused() {
    let good = Value::from(result::to_json(&edm(&[80.0, 1.0, 0.002], "a"), meta()).unwrap());
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut v = good.clone();
        edit(&mut v);
        v.to_string()
    };
    let says = |text: &str, accept: bool, want: &str| {
        let e = result::parse(text, accept).err().expect(want);
        assert!(e.to_string().contains(want), "{want}: {e}");
    };
    assert!(result::parse(&good.to_string(), false).is_ok());
    let edited = with(&|v| v["t"][1] = json!(1.5));
    says(&edited, false, "accept_edits");
    assert_eq!(result::parse(&edited, true).unwrap().schedule.times().unwrap()[1], 1.5);
    says(&with(&|v| v["losses"] = json!(null)), false, "edited");
    says(&with(&|v| v["version"] = json!(2)), false, "newer");
    says(&with(&|v| v["version"] = json!("1")), true, "version");
    says(&with(&|v| v["format"] = json!("other")), true, "`other`");
    says(&with(&|v| drop(v.as_object_mut().unwrap().remove("sha256"))), false, "no `sha256`");
    says(&with(&|v| v["t"] = json!([80.0, 1.0, 1.5])), true, "descend");
    says(&with(&|v| v["t"] = json!([80.0, null, 0.002])), true, "[1] is null");
    says(&with(&|v| v["t"] = json!([80.0, 0.002])), true, "3 entries");
    says(&with(&|v| v["t"] = json!({})), true, "list of numbers");
    says(&with(&|v| v["t"] = json!([80.0, -1.0, -2.0])), true, "t[");
    says(&with(&|v| v["t_eval"] = json!([80.0, 1.0])), true, "t_eval");
    says(&with(&|v| v["noise"] = json!({ "name": "emd" })), true, "noise");
    says(&with(&|v| drop(v.as_object_mut().unwrap().remove("noise"))), true, "no `noise`");
    says("[1, 2]", true, "not an object");
    says("{}", true, "json::load");
    says(&"[".repeat(100_000), true, "JSON");
    let text = good.to_string();
    for n in (0..text.len()).filter(|n| text.is_char_boundary(*n)) {
        says(&text[..n], true, "JSON");
    }
}

// --------------------------------------------------------------------------------------------------------- state

/// Equal to the bit, tensors' dtypes and shapes included.
fn same(a: &Data, b: &Data) -> bool {
    match (a, b) {
        (Data::Float(a), Data::Float(b)) => a.to_bits() == b.to_bits(),
        (Data::Tensor(a), Data::Tensor(b)) => {
            let bits = |t: &Tensor| state::to_bytes(&Data::Tensor(t.clone())).unwrap();
            a.dtype() == b.dtype() && a.dims() == b.dims() && bits(a) == bits(b)
        }
        (Data::Array(a), Data::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Data::Map(a), Data::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        _ => format!("{a:?}") == format!("{b:?}"),
    }
}

fn tensors() -> impl Strategy<Value = Data> {
    let dtypes =
        [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64, DType::BF16, DType::F16, DType::F32, DType::F64];
    (0..dtypes.len(), 0..4usize, 0..3usize, prop::collection::vec(0.0..200.0f64, 12)).prop_map(move |(d, a, b, v)| {
        let t = Tensor::from_slice(&v[..a * b], (a, b), &Device::Cpu).unwrap();
        // transposed: saved in logical, not in memory order
        Data::Tensor(t.t().unwrap().to_dtype(dtypes[d]).unwrap())
    })
}

fn any_data() -> impl Strategy<Value = Data> {
    let leaf = prop_oneof![
        Just(Data::Unit),
        any::<bool>().prop_map(Data::Bool),
        any::<i64>().prop_map(Data::Int),
        any::<u64>().prop_map(|b| Data::Float(f64::from_bits(b))),
        (-1000i32..1000).prop_map(|i| Data::Float(f64::from(i))),
        ".{0,8}".prop_map(Data::Str),
        tensors(),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Data::Array),
            prop::collection::btree_map("[$a-c]{0,2}", inner, 0..5).prop_map(Data::Map),
        ]
    })
}

proptest! {
    #![proptest_config(cases(200))]
    #[test]
    fn state_reads_back_to_the_bit(data in any_data()) {
        let bytes = state::to_bytes(&data).unwrap();
        let back = state::from_bytes(&bytes).unwrap();
        prop_assert!(same(&data, &back), "{data:?} {back:?}");
        prop_assert_eq!(state::to_bytes(&back).unwrap(), bytes);
    }
    #[test]
    fn altered_state_is_an_error_and_never_a_panic(i in any::<prop::sample::Index>(), x in 1..=255u8) {
        let mut bytes = state::to_bytes(&example()).unwrap();
        let i = i.index(bytes.len());
        bytes[i] ^= x;
        // a flip in the padding or of a dtype may go unnoticed only if the data are the same
        if let Ok(back) = state::from_bytes(&bytes) {
            prop_assert!(same(&back, &example()), "byte {i} ^ {x}");
        }
    }
}

fn example() -> Data {
    let t = Tensor::new(&[[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::Cpu).unwrap();
    let slots = Data::Array(vec![Data::Tensor(t.clone()), Data::Float(f64::NAN), Data::Int(3)]);
    Data::Map(BTreeMap::from([("xi".into(), Data::Tensor(t)), ("slots".into(), slots), ("$".into(), Data::Unit)]))
}

#[test]
fn truncated_and_foreign_state_files_are_errors() {
    let bytes = state::to_bytes(&example()).unwrap();
    for n in 0..bytes.len() {
        assert_eq!(kind(state::from_bytes(&bytes[..n])), Kind::Format, "cut at {n}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.state");
    // safetensors, but not state
    candle_core::safetensors::save(
        &std::collections::HashMap::from([("a", Tensor::new(&[1f32], &Device::Cpu).unwrap())]),
        &path,
    )
    .unwrap();
    let e = state::load(&path).unwrap_err();
    assert!(e.message().contains("run.state") && e.message().contains("ld3sh.state"), "{e}");
    assert_eq!(kind(state::load(dir.path().join("none"))), Kind::Io);
    let mut deep = Data::Unit;
    for _ in 0..100_000 {
        deep = Data::Array(vec![deep]);
    }
    assert_eq!(kind(state::to_bytes(&deep)), Kind::Value);
    // dropping it by recursion would overflow the stack
    while let Data::Array(mut a) = deep {
        deep = a.pop().unwrap();
    }
}

#[test]
fn state_is_also_a_safetensors_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.state");
    state::save(&path, &example()).unwrap();
    assert_eq!(candle_core::safetensors::load(&path, &Device::Cpu).unwrap().len(), 2);
}

// ------------------------------------------------------------------------------------------------------- scripts

fn engine() -> rhai::Engine {
    let mut e = rhai::Engine::new();
    e.register_type_with_name::<Tensor>("Tensor");
    e.register_fn("batch", |b: i64| batch(b as usize, 1, 4, 4).to_dtype(DType::F32).unwrap());
    e.register_fn("same", |a: Tensor, b: Tensor| a.dtype() == b.dtype() && same(&Data::Tensor(a), &Data::Tensor(b)));
    ld3sh::script::noise::register(&mut e);
    ld3sh::script::discretize::register(&mut e);
    ld3sh::script::files::register(&mut e);
    e
}

#[test]
fn scripts_write_and_read_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut scope = rhai::Scope::new();
    scope.push("dir", dir.path().display().to_string());
    let script = r#"
        let x = batch(5);
        image::grid(x, #{ cols: 2, scale: 3 }).save(`${dir}/g.png`);
        let back = image::load(`${dir}/g.png`);
        assert(back.width == 2 * 14 + 2 && back.tensor != (), "grid");
        image::sheet([["a\nb", x], ["c", x]], #{ columns: ["0", 1], title: "t" }).save(`${dir}/s.png`);
        let n = noise::edm();
        let s = schedule::edm(n, 5);
        plot::schedules([s, schedule::logsnr(n, 5)], #{ axis: "lambda" }).save(`${dir}/p.svg`);
        plot::lines(#{ series: [#{ name: "a", y: [1, 2.5, ()] }], log_y: true }).save(`${dir}/l.png`, #{ scale: 1 });
        s.save(`${dir}/s.json`, #{ seed: 3, losses: #{ valid: 0.5 } });
        let r = schedule::load(`${dir}/s.json`);
        assert(json::stringify(r) == json::stringify(s), "schedule");
        assert(schedule::info(`${dir}/s.json`).losses.valid == 0.5, "info");
        assert(hash_of(schedule::from_map(s.to_map()).to_map()) == hash_of(s.to_map()), "map");
        json::save(`${dir}/j.json`, #{ a: [1, 2.5, "x", (), true], x: x });
        let j = json::load(`${dir}/j.json`);
        assert(j.a == [1, 2.5, "x", (), true] && j.x.len == 5, "json");
        state::save(`${dir}/r.state`, #{ x: x, n: #{ i: 7, f: 0.1, e: [x, "s"] } });
        let st = state::load(`${dir}/r.state`);
        assert(same(st.x, x) && same(st.n.e[0], x) && st.n.i == 7 && st.n.f == 0.1, "state");
        assert(file_exists(`${dir}/r.state`) && !file_exists(`${dir}/none`), "exists");
        assert(sha256(`${dir}/r.state`).len == 64, "sha256");
        csv::save(`${dir}/c.csv`, [["a,b", 0.1], ["c", ()]], #{ header: ["name", "v"] });
        let t = table([["a", 0.25], ["b", 1]], #{ header: ["m", "v"], lowest: ["v"] });
        t.save(`${dir}/t.txt`);
        `${t}`
    "#;
    let mut e = engine();
    e.register_fn("assert", |ok: bool, what: &str| -> std::result::Result<(), Box<rhai::EvalAltResult>> {
        if ok { Ok(()) } else { Err(what.into()) }
    });
    let t: String = e.eval_with_scope(&mut scope, script).unwrap();
    assert!(t.contains("0.2500*"), "{t}");
    assert_eq!(atomic::read_text(dir.path().join("c.csv")).unwrap(), "name,v\n\"a,b\",0.1\nc,\n");
}

#[test]
fn script_errors_are_clear() {
    let fails = |script: &str, says: &str| {
        let text = caught(script, engine().eval::<rhai::Dynamic>(script)).to_string();
        assert!(text.contains(says), "{script}: {text}");
    };
    fails("json::stringify(#{ a: [1.0, 0.0 / 0.0] })", "`a.1`");
    fails("json::stringify(#{ f: || 1 })", "`f`");
    fails("json::parse(\"{\")", "JSON");
    fails("json::load(\"/nowhere/x.json\")", "/nowhere/x.json");
    fails("state::save(\"/nowhere/x\", #{ a: 1 })", "directory");
    fails("state::save(\"x\", #{ a: [|| 1] })", "`a.0`");
    fails("state::save(\"x\", #{ s: schedule::edm(noise::edm(), 2) })", "to_map");
    fails("image::grid(batch(2), #{ colls: 2 })", "cols");
    fails("image::sheet([[1, 2]])", "row 0");
    fails("plot::lines(#{ series: [1] })", "series 0");
    fails("plot::schedules([1])", "int");
    fails("plot::schedules([], #{ axis: \"sigmas\" })", "sigma");
    fails("table([1])", "row 0");
    fails("table([[1]], #{ header: [\"loss\"], lowest: [\"los\"] })", "loss");
    fails("sha256(\"/nowhere\")", "/nowhere");
    fails("schedule::edm(noise::edm(), 2).save(\"s.txt\")", ".json");
    fails("schedule::from_map(#{ t: [1, 0] })", "noise");
    fails("image::load(\"Cargo.toml\")", "PNG");
}
