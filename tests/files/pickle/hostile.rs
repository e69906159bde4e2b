//! Files that are cut off, damaged, or made to do harm.
use super::{from_bytes, open, read};
use crate::cases::cases;
use ld3sh::files::checkpoint::Checkpoint;
use ld3sh::{Kind, Result};
use proptest::prelude::*;

/// One clear sentence that names the byte, of the kind for broken content.
#[track_caller]
fn refused(result: Result<Checkpoint>, part: &str) {
    let e = result.err().unwrap_or_else(|| panic!("should be refused: {part}"));
    assert_eq!(e.kind(), Kind::Format, "{e}");
    assert!(e.message().contains(part), "`{}` should mention {part}", e.message());
    assert!(e.message().lines().count() == 1 && e.message().len() < 400, "{}", e.message());
}

#[test]
fn files_cut_off_at_any_byte() {
    for (name, step) in [
        ("pickle/vp_bare_p4.pkl", 1),
        ("pickle/numpy_p0.pkl", 13),
        ("pickle/numpy_p5.pkl", 1),
        ("pickle/state_legacy_p2.pth", 1),
        ("pickle/training.ckpt", 1),
    ] {
        let whole = read(name);
        assert!(from_bytes(&whole[..]).is_ok(), "{name}");
        for n in (0..whole.len()).step_by(step) {
            let e =
                from_bytes(&whole[..n]).err().unwrap_or_else(|| panic!("{name} is accepted without its end, at {n}"));
            assert!(e.kind() == Kind::Format && (n == 0 || e.message().starts_with("byte ")), "{name} at {n}: {e}");
        }
    }
}

#[test]
fn files_with_one_damaged_byte() {
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize
    };
    let mut refused = 0;
    for name in [
        "pickle/mixer_p2.pkl",
        "pickle/vp_bare_p4.pkl",
        "pickle/numpy_p1.pkl",
        "pickle/numpy_p4.pkl",
        "pickle/state_p4.pt",
        "pickle/state_legacy_p4.pth",
        "pickle/training.ckpt",
        "pickle/training_legacy.ckpt",
    ] {
        let whole = read(name);
        for _ in 0..800 {
            let (at, change) = (random() % whole.len(), 1 + random() % 255);
            let mut bytes = whole.clone();
            bytes[at] ^= change as u8;
            match from_bytes(bytes) {
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Format, "{name} at {at}: {e}");
                    refused += 1;
                }
                // a damaged number or text is another number or text; what is there must be readable
                Ok(c) => c.tensors().values().for_each(|v| assert_eq!(v.bytes().map_or(v.len(), |b| b.len()), v.len())),
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn nothing_is_ever_called() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("harm");
    for payload in [
        format!("cos\nsystem\n(S'touch {}'\ntR.", mark.display()),
        format!("c__builtin__\neval\n(S'open(\"{}\", \"w\")'\ntR.", mark.display()),
        format!("(S'touch {}'\nios\nsystem\n.", mark.display()),
        format!("(cos\nsystem\nS'touch {}'\no.", mark.display()),
    ] {
        let c = from_bytes(payload.as_bytes()).unwrap();
        assert!(c.tensors().is_empty());
        let e = ld3sh::nets::edm::describe(&c).err().unwrap();
        assert!(e.message().contains("os.system") || e.message().contains("__builtin__.eval"), "{e}");
    }
    assert!(!mark.exists());
}

#[test]
fn lengths_and_numbers_beyond_the_file() {
    let le = |n: u64| n.to_le_bytes();
    refused(
        from_bytes([&b"\x80\x04\x8e"[..], &le(1 << 62), b"abc."].concat()),
        "byte 2: a value of 4611686018427387904 bytes",
    );
    refused(from_bytes([&b"\x80\x04\x8d"[..], &le(u64::MAX), b"."].concat()), "byte 2: a text of");
    refused(from_bytes([&b"\x80\x05\x96"[..], &le(u64::MAX), b"."].concat()), "bytes, but the file ends after 1");
    refused(from_bytes([&b"\x80\x04\x95"[..], &le(1 << 40), b"N."].concat()), "a frame of 1099511627776 bytes");
    refused(from_bytes(&b"B\xff\xff\xff\xffx."[..]), "a value of 4294967295 bytes");
    refused(from_bytes(&b"\x8b\xff\xff\xff\xffx."[..]), "an integer of 4294967295 bytes");
    refused(from_bytes([&b"L"[..], &[b'9'; 5000], b"L\n."].concat()), "is no integer of at most 4300 digits");
    refused(from_bytes(&b"\x80\x06N."[..]), "protocol 6 is not known");
    refused(from_bytes(&b"\x80\x04N"[..]), "byte 3");
    refused(from_bytes(&b"NN."[..]), "values left on the stack");
    refused(from_bytes(&b"N(."[..]), "the stack is empty");
    refused(from_bytes(&b"\x80\x05\x97."[..]), "buffers that were sent apart");
    for bad in [
        &b"."[..],
        b"0.",
        b"1.",
        b"2.",
        b"R.",
        b"NR.",
        b"\x93.",
        b"NN\x93.",
        b"a.",
        b"Na.",
        b"NNa.",
        b"}(Nu.",
        b"NNb.",
        b"t.",
        b"(o.",
    ] {
        assert_eq!(from_bytes(bad).err().map(|e| e.kind()), Some(Kind::Format), "{bad:?}");
    }
}

#[test]
fn bombs_of_the_memo_and_of_counts() {
    // entry 2³² − 1 of a memo that is an array in Python takes no memory here
    assert!(from_bytes(&b"Nr\xff\xff\xff\xff."[..]).is_ok());
    assert!(from_bytes(&b"Np18446744073709551615\n."[..]).is_ok());
    refused(from_bytes(&b"j\xff\xff\xff\xff."[..]), "memo entry 4294967295 is used before it is set");
    refused(from_bytes(&b"Np-1\n."[..]), "is no memo index");
    refused(from_bytes(vec![b'N'; 5 << 20]), "more than 4194304 values");
    refused(from_bytes([vec![b'N'], vec![b'2'; 17 << 20]].concat()), "more than 16777216 values waiting");
    refused(from_bytes(vec![b'('; 17 << 20]), "more than 16777216 marks");
}

/// `array([…])` of the given bytes as f4, as numpy pickles it, with the given number of values.
fn array(count: u8, data: &[u8]) -> Vec<u8> {
    let mut out = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01K".to_vec();
    out.extend([count, 0x85]);
    out.extend(b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4K\x00K\x01tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C");
    out.push(data.len() as u8);
    out.extend(data);
    out.extend(b"tb");
    out
}

#[test]
fn nesting_circles_and_laughs() {
    let deep = |n: usize| [vec![b']'; n], array(1, &[0; 4]), vec![b'a'; n], vec![b'.']].concat();
    assert_eq!(from_bytes(deep(90)).unwrap().tensors().len(), 1);
    refused(from_bytes(deep(200)), "nested more than 100 deep");
    refused(from_bytes(deep(1_000_000)), "nested more than 100 deep");
    refused(from_bytes([&[b')'][..], &vec![0x85; 1_000_000], b"."].concat()), "nested more than 100 deep");
    // values that are parts of themselves
    assert!(from_bytes(&b"]q\x00h\x00a."[..]).unwrap().tensors().is_empty());
    assert!(from_bytes(&b"}q\x00X\x01\x00\x00\x00ah\x00s."[..]).unwrap().tensors().is_empty());
    // 2⁶⁰ paths to one value: to nothing, and to a tensor
    let laughs = |bottom: &[u8]| {
        let mut out = bottom.to_vec();
        out.extend(b"q\x00");
        for level in 0..60u8 {
            out.extend([b'h', level, b'h', level, 0x86, b'q', level + 1]);
            // the lower level is in the memo, and goes off the stack
        }
        out.extend(b"q\xff1h\xff.");
        [&b"("[..], &out].concat()
    };
    assert!(from_bytes(laughs(b"]")).unwrap().tensors().is_empty());
    refused(from_bytes(laughs(&array(1, &[0; 4]))), "too long");
    // and by doubling the stack
    let doubled = [&b"("[..], &[b'N'][..], &vec![b'2'; 1 << 16], b"l."].concat();
    assert!(from_bytes(doubled).unwrap().tensors().is_empty());
}

/// A file of PyTorch's old format with one tensor, that has `count` values of four bytes, which are 0, 1, 2, …
fn tensor_file(count: u8, offset: &[u8], shape: &[u8], strides: &[u8], stored: u64) -> Vec<u8> {
    let storage = |count: u8| {
        [
            &b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK"[..],
            &[count],
            b"NtQ",
        ]
        .concat()
    };
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.".to_vec();
    out.extend(b"\x80\x02}X\x01\x00\x00\x00tctorch._utils\n_rebuild_tensor_v2\n(");
    out.extend(storage(count));
    out.extend([offset, b"(", shape, b"t(", strides, b"t\x89NtRs."].concat());
    out.extend(b"\x80\x02]X\x01\x00\x00\x000a.");
    out.extend(stored.to_le_bytes());
    (0..stored.min(64)).for_each(|i| out.extend((i as f32).to_le_bytes()));
    out
}

#[test]
fn tensors_stay_inside_their_storages() {
    let good = from_bytes(tensor_file(12, b"K\x01", b"K\x02K\x03", b"K\x04K\x01", 12)).unwrap();
    let t = good.tensor("t").unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(t, [[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]);
    let billion = b"J\x00\x00\x00\x40";
    for (count, offset, shape, strides, stored, part) in [
        (12, &b"K\x02"[..], &b"K\x03K\x03"[..], &b"K\x04K\x01"[..], 12, "reaches beyond its 48 bytes"),
        (12, b"K\x0c", b"", b"", 12, "reaches beyond"),
        (12, b"J\xff\xff\xff\xff", b"K\x02", b"K\x01", 12, "negative offset -1"),
        (12, b"K\x00", b"K\x02", b"J\xff\xff\xff\xff", 12, "the strides of a tensor must be whole numbers"),
        (12, b"K\x00", b"J\xff\xff\xff\xff", b"K\x01", 12, "the shape of a tensor must be"),
        (12, b"K\x00", b"K\x02K\x02", b"K\x01", 12, "2 dimensions and 1 strides"),
        (
            12,
            b"K\x00",
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"K\x00K\x00",
            12,
            "reaches beyond",
        ),
        (12, b"K\x00", billion, b"K\x00", 12, "repeats 48 bytes of data into 4294967296"),
        (12, b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01", b"K\x01", b"K\x01", 12, "offset is no number"),
        (13, b"K\x00", b"K\x02", b"K\x01", 12, "storage `0` of 13 values from 0 on, but its data are 48 bytes"),
        (12, b"K\x00", b"K\x02", b"K\x01", 1 << 40, "storage `0` of 1099511627776 values, but the file ends"),
        (12, b"K\x00", b"K\x02", b"K\x01", u64::MAX, "but the file ends"),
        (12, b"K\x00", b"N", b"K\x01", 12, "the shape of a tensor must be"),
    ] {
        refused(from_bytes(tensor_file(count, offset, shape, strides, stored)), part);
    }
    let dims = [b"K\x01".repeat(65), b"K\x01".repeat(65)];
    refused(from_bytes(tensor_file(12, b"K\x00", &dims[0], &dims[1], 12)), "65 dimensions");
    let keyless = tensor_file(12, b"K\x00", b"K\x02", b"K\x01", 12);
    let at = keyless.windows(4).rposition(|w| w == b"0a.\x0c").unwrap();
    let mut keyless = keyless;
    keyless[at] = b'7';
    refused(from_bytes(keyless), "nothing refers to storage `7`");
    refused(from_bytes([array(9, &[0; 8]), b".".to_vec()].concat()), "reaches beyond its 8 bytes");
    refused(from_bytes(&b"ctorch.storage\n_load_from_bytes\nC\x03abc\x85R."[..]), "not in PyTorch's format");
    refused(from_bytes(&b"ctorch._utils\n_rebuild_tensor_v2\n)R."[..]), "without storage, offset, shape and strides");
}

#[test]
fn archives_that_lie_and_files_that_are_something_else() {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("a/data.pkl", options.compression_method(zip::CompressionMethod::Deflated)).unwrap();
    zip.write_all(&[b'N'; 1000]).unwrap();
    refused(from_bytes(zip.finish().unwrap().into_inner()), "the file ends after 0");
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    zip.start_file("x.npy", options).unwrap();
    refused(from_bytes(zip.finish().unwrap().into_inner()), "without `data.pkl`");

    let whole = read("pickle/training.ckpt");
    // PyTorch writes the record for large archives always, and that is what counts
    let end = whole.windows(4).rposition(|w| w == b"PK\x06\x06").unwrap();
    for (at, bytes) in [(end + 48, &[0xff; 8][..]), (end + 48, &[0; 8]), (end + 32, &[0xff; 2]), (end, &[0; 4])] {
        let mut lying = whole.clone();
        lying[at..at + bytes.len()].copy_from_slice(bytes);
        refused(from_bytes(lying), "directory is damaged");
    }
    for (bytes, part) in [
        (&b""[..], "an empty file"),
        (b"  <!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"\x1f\x8b\x08\x00", "a gzip file"),
        (b"\x93NUMPY\x01\x00", "a numpy array"),
        (b"?hello", "byte 0: 0x3f is no instruction"),
    ] {
        refused(from_bytes(bytes), part);
    }
    assert!(open("pickle/training.ckpt").document().is_some());
}

/// Pieces that pickles are made of.
const PIECES: [&[u8]; 42] = [
    b"N",
    b"]",
    b"}",
    b")",
    b"(",
    b"t",
    b"l",
    b"d",
    b"a",
    b"e",
    b"s",
    b"u",
    b"0",
    b"1",
    b"2",
    b"b",
    b"R",
    b"\x81",
    b"\x92",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x88",
    b"\x8f",
    b"\x90",
    b"\x91",
    b"\x93",
    b"\x94",
    b"q\x00",
    b"h\x00",
    b"q\x01",
    b"h\x01",
    b"K\x02",
    b"Q",
    b"X\x01\x00\x00\x00a",
    b"C\x04abcd",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"cnumpy\ndtype\n",
    b"X\x02\x00\x00\x00f4",
    b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n",
    b"ccollections\nOrderedDict\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
];

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn any_sequence_of_instructions_ends(pieces in prop::collection::vec(0..PIECES.len(), 0..120)) {
        let mut bytes: Vec<u8> = pieces.iter().flat_map(|p| PIECES[*p]).copied().collect();
        bytes.push(b'.');
        if let Err(e) = from_bytes(bytes) {
            prop_assert_eq!(e.kind(), Kind::Format);
        }
    }

    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = from_bytes(bytes);
    }
}
