//! Data sets as other programs write them, pictures prepared as Pillow does, and what is not whole.
use crate::code::{session, shown};
use candle_core::{DType, Device, Tensor};
use ld3sh::data::{Dataset, FILTERS, Labels, Opening, Prepare, Resize, open};
use ld3sh::files::image::Image;
use ld3sh::files::npy::read_npz;
use ld3sh::{Error, Kind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const PLAIN: Opening = Opening { labels: Labels::Auto, part: "train", how: Prepare { resize: None, channels: None } };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data").join(name)
}
fn bytes(x: &Tensor) -> Vec<i64> {
    let x = x.affine(127.5, 127.5).unwrap().round().unwrap();
    x.flatten_all().unwrap().to_dtype(DType::I64).unwrap().to_vec1().unwrap()
}
fn all(set: &Dataset) -> Vec<usize> {
    (0..set.len()).collect()
}
fn refused(path: &Path) -> Error {
    match open(path, &PLAIN) {
        Ok(set) => panic!("{} was opened: {set}", path.display()),
        Err(e) => e,
    }
}
/// Pixels [H, W, 3] or [H, W] of Pillow's as bytes [C, H, W].
fn pillow() -> BTreeMap<String, Vec<i64>> {
    let arrays = read_npz(fixture("pillow.npz")).unwrap();
    let planes = |t: Tensor| if t.rank() == 3 { t.permute((2, 0, 1)).unwrap() } else { t };
    let one = |(name, t): (String, Tensor)| {
        let t = planes(t).contiguous().unwrap().flatten_all().unwrap();
        (name, t.to_dtype(DType::I64).unwrap().to_vec1().unwrap())
    };
    arrays.into_iter().map(one).collect()
}
#[track_caller]
fn near(name: &str, ours: &[i64], theirs: &[i64], most: i64) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).max().unwrap();
    assert!(worst <= most, "{name}: differs by {worst} of 255");
}

#[test]
fn pictures_are_prepared_as_pillow_does() {
    let wanted = pillow();
    for filter in FILTERS {
        for [w, h] in [[7, 9], [40, 31]] {
            let how = Prepare { resize: Some(Resize { size: [h, w], crop: false, filter }), channels: None };
            let set = open(fixture("picture.png").parent().unwrap().join("only"), &Opening { how, ..PLAIN });
            assert!(set.is_err(), "there is no such folder");
            let x = Image::load(fixture("picture.png")).unwrap();
            let dir = tempfile::tempdir().unwrap();
            x.save(dir.path().join("a.png")).unwrap();
            let set = open(dir.path(), &Opening { how, ..PLAIN }).unwrap();
            let name = format!("{filter}_{w}x{h}");
            // Pillow rounds to bytes between rows and columns
            near(&name, &bytes(&set.get(0).unwrap()), &wanted[&name], 1);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("picture.png"), dir.path().join("a.png")).unwrap();
    let how = Prepare { resize: None, channels: Some(1) };
    let grey = open(dir.path(), &Opening { how, ..PLAIN }).unwrap().get(0).unwrap();
    near("grey", &bytes(&grey), &wanted["grey"], 0);
    let jpeg = Image::load(fixture("picture.jpg")).unwrap().to_tensor().unwrap();
    near("jpeg", &bytes(&jpeg), &wanted["jpg"], 2);
}

#[test]
fn what_other_programs_write() {
    let labels = |set: &Dataset| set.labels(&all(set)).unwrap();
    let idx = open(fixture("tiny-images-idx3-ubyte.gz"), &PLAIN).unwrap();
    assert_eq!((idx.len(), labels(&idx)), (2, Some(vec![3, 1])));
    assert_eq!(bytes(&idx.get(1).unwrap()), (12..24).collect::<Vec<_>>());
    let cifar = open(fixture("cifar"), &Opening { part: "test", ..PLAIN }).unwrap();
    assert_eq!(labels(&cifar), Some(vec![1, 0]));
    assert_eq!(cifar.classes(), ["airplane", "automobile"]);
    assert_eq!(cifar.get(0).unwrap().dims(), [3, 32, 32]);
    assert_eq!(bytes(&cifar.get(0).unwrap())[..1025], [vec![200; 1024], vec![0]].concat());
    assert_eq!(bytes(&cifar.get(1).unwrap())[1024..2048], [100; 1024]);
    let shard = open(fixture("shard.tar"), &PLAIN).unwrap();
    assert_eq!(labels(&shard), Some(vec![4, 2, 7]));
    for i in 0..3 {
        assert_eq!(bytes(&shard.get(i).unwrap()), [50 * (i as i64 + 1); 18]);
    }
    assert!(shard.name(2).unwrap().ends_with("shard.tar/train/002.png"));
    // CIFAR's binary version, of both sets
    for (extra, label) in [(0, 1i64), (1, 9)] {
        let dir = tempfile::tempdir().unwrap();
        let mut record = vec![1u8; 1];
        record.extend(vec![9; extra]);
        record.extend([[7u8; 1024], [8; 1024], [9; 1024]].concat());
        std::fs::write(dir.path().join("test_batch.bin"), record.repeat(3)).unwrap();
        let set = open(dir.path(), &Opening { part: "test", ..PLAIN }).unwrap();
        assert_eq!((set.len(), labels(&set)), (3, Some(vec![label; 3])));
        assert_eq!(bytes(&set.get(2).unwrap())[1023..1025], [7, 8]);
    }
}

#[test]
fn folders_are_classes() {
    let dir = tempfile::tempdir().unwrap();
    let picture = |at: &str, grey: u8, side: usize| {
        let path = dir.path().join(at);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        Image::filled(side, side, 1, [grey; 3]).unwrap().save(path).unwrap();
    };
    picture("cat/a.png", 10, 2);
    picture("cat/deep/b.png", 20, 2);
    picture("dog/c.jpg", 30, 2);
    picture(".hidden/d.png", 40, 2);
    std::fs::write(dir.path().join("dog/notes.txt"), "no picture").unwrap();
    let set = open(dir.path(), &PLAIN).unwrap();
    assert_eq!((set.len(), set.classes()), (3, &["cat".to_string(), "dog".to_string()][..]));
    assert_eq!(set.labels(&[2, 0]).unwrap(), Some(vec![1, 0]));
    assert_eq!(set.only(1).unwrap().len(), 1);
    picture("beside.png", 50, 2);
    assert_eq!(open(dir.path(), &PLAIN).unwrap().labels(&[0, 1]).unwrap(), None);
    let e = open(dir.path(), &Opening { labels: Labels::Folders, ..PLAIN }).unwrap_err();
    assert!(e.message().contains("beside.png"), "{e}");
    // one of another size, by both names
    picture("cat/z.png", 10, 3);
    let set = open(dir.path(), &PLAIN).unwrap();
    let e = set.batch(&all(&set)).unwrap_err();
    assert!(e.message().contains("z.png") && e.fix().unwrap().contains("size"), "{e}");
    let how = Prepare { resize: Some(Resize { size: [2, 2], crop: true, filter: "lanczos" }), channels: None };
    assert_eq!(
        open(dir.path(), &Opening { how, ..PLAIN }).unwrap().batch(&[0, 1, 2, 3, 4]).unwrap().dims(),
        [5, 1, 2, 2]
    );
}

#[test]
fn a_broken_picture_is_named_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..4 {
        Image::filled(8, 8, 3, [i; 3]).unwrap().save(dir.path().join(format!("{i}.jpg"))).unwrap();
    }
    let whole = std::fs::read(dir.path().join("2.jpg")).unwrap();
    for cut in [0, 3, 20, whole.len() / 2, whole.len() - 2] {
        std::fs::write(dir.path().join("2.jpg"), &whole[..cut]).unwrap();
        let set = open(dir.path(), &PLAIN).unwrap();
        let e = set.batch(&all(&set)).unwrap_err();
        assert!(e.message().contains("2.jpg"), "{e}");
        let broken = set.broken(&mut |_| {}).unwrap();
        assert_eq!(broken.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [2], "cut at {cut}");
        assert_eq!(set.without(&[2]).batch(&[0, 1, 2]).unwrap().dims(), [3, 3, 8, 8]);
    }
}

#[test]
fn minibatches_depend_on_their_step_alone() {
    let x =
        Tensor::arange(0u32, 10, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().reshape((10, 1, 1, 1)).unwrap();
    let set = Dataset::of(&x, None, Prepare::default()).unwrap();
    let forward: Vec<Vec<usize>> = (0..9).map(|s| set.minibatch(s, 3, 5).unwrap()).collect();
    let back: Vec<Vec<usize>> = (0..9).rev().map(|s| set.minibatch(s, 3, 5).unwrap()).collect();
    assert_eq!(forward, back.into_iter().rev().collect::<Vec<_>>());
    for round in forward.chunks(3) {
        let mut seen = round.concat();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 9, "each picture once a round");
    }
    assert_ne!(forward[0..3], forward[3..6]);
    assert_eq!(set.minibatch(0, 11, 0).unwrap_err().kind(), Kind::Value);
}

#[test]
fn what_is_no_data_set_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let gz = std::fs::read(fixture("tiny-images-idx3-ubyte.gz")).unwrap();
    let tar = std::fs::read(fixture("shard.tar")).unwrap();
    let pickle = std::fs::read(fixture("cifar/test_batch")).unwrap();
    let idx = [&[0u8, 0, 8, 3][..], &[255; 12]].concat();
    for (name, content, words) in [
        ("a.bin", b"%PDF-1.4 and so on".to_vec(), "a PDF document"),
        ("b.idx", idx, "too large"),
        ("c.gz", gz[..gz.len() - 9].to_vec(), "cut off"),
        ("d.tar", tar[..700].to_vec(), "damaged tar archive"),
        ("e", pickle[..300].to_vec(), ""),
        ("f", b"\x80\x02}q\0.".to_vec(), "none of CIFAR"),
        ("g.npy", b"\x93NUMPY\x01\x00".to_vec(), ""),
        ("h", b"".to_vec(), "an empty file"),
        ("i.idx", vec![0, 0, 8, 1, 0, 0, 0, 1, 5], "holds no pictures"),
    ] {
        let path = write(name, &content);
        let e = refused(&path);
        assert!(e.message().contains(words) && e.message().contains(name), "{name}: {e}");
    }
    assert!(refused(&dir.path().join("absent")).message().contains("absent"));
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(empty.path()).message().contains("no pictures"));
    // labels that do not fit
    let x = Tensor::zeros((3, 4, 4), DType::U8, &Device::Cpu).unwrap();
    for labels in [vec![0, 1], vec![0, 1, -1]] {
        assert!(Dataset::of(&x, Some(labels), Prepare::default()).is_err());
    }
}

#[test]
fn flipped_bits_make_errors_or_other_pictures() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["picture.jpg", "shard.tar", "tiny-images-idx3-ubyte.gz", "cifar/test_batch"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 97 + 1) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let path = dir.path().join(Path::new(name).file_name().unwrap());
            std::fs::write(&path, bytes).unwrap();
            // whatever comes of it: no panic, no endless loop
            if name.ends_with(".jpg") {
                let _ = Image::load(&path);
            } else if let Ok(set) = open(&path, &PLAIN) {
                let _ = set.broken(&mut |_| {});
            }
        }
    }
}

#[test]
fn scripts_open_data() {
    let run = |code: &str| {
        let code = code.to_string();
        session(move |s| shown(s, &code))
    };
    let shard = fixture("shard.tar");
    let open = format!("let d = data::open(\"{}\");", shard.display());
    let ok = |code: &str| run(&format!("{open}{code}"));
    assert_eq!(ok("let all = []; for b in d.batches(2) { all.push(b.label.to_array()); } all"), "[[4, 2], [7]]");
    assert_eq!(
        ok("let n = []; for b in d.batches(2, #{ rest: false, epochs: 2, seed: 1 }) { n.push(b.epoch); } n"),
        "[0, 1]"
    );
    assert_eq!(ok("d.get(1).label"), "2");
    for (code, words) in [
        ("d.get(3)", "no picture 3 among 3"),
        ("d.get(-1)", "no place -1"),
        ("d.batch([0, 0.5])", "integers"),
        ("d.only(\"cat\")", "cat"),
        ("d.batches(0)", "at least one"),
        ("d.batches(5, #{ rest: false })", "fill no batch"),
        ("data::open(d.path, #{ crop: \"none\" })", "`crop`"),
        ("data::open(d.path, #{ channels: 2 })", "channels"),
        ("data::open(d.path, #{ size: 0 })", "size"),
        ("data::open(d.path, #{ filter: \"box\", size: 8 })", "box"),
        ("data::open(d.path, #{ colour: 3 })", "colour"),
        ("data::of(ones([2, 1, 4, 4]), [0.5, 1])", "labels"),
    ] {
        let e = run(&format!("{open}{code}"));
        assert!(e.contains("error") && e.contains(words), "{code}: {e}");
    }
}
