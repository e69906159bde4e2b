//! CLIP's tokenizer against the ids of the published one, and what it does with files and texts that are not meant.
use crate::cases::cases;
use crate::helpers::latent as fixture;
use flate2::{Compression, write::GzEncoder};
use ld3sh::text::{Tokenizer, Vocabulary};
use ld3sh::{Error, Kind};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn folder() -> PathBuf {
    fixture("sd-tiny/tokenizer")
}

fn open(path: &Path) -> Tokenizer {
    Vocabulary::open(path).and_then(Tokenizer::new).unwrap()
}

fn refused(path: &Path) -> Error {
    Vocabulary::open(path).err().unwrap()
}

/// All 38 texts, those that are cut included, and the digest of what they are filled up to.
#[test]
fn ids_are_those_of_the_published_tokenizer() {
    let known: Value = serde_json::from_slice(&std::fs::read(fixture("clip_tokenizer.json")).unwrap()).unwrap();
    let (cases, clip) = (known["cases"].as_array().unwrap(), Tokenizer::shipped().unwrap());
    assert_eq!((cases.len(), clip.size(), (clip.first(), clip.last())), (38, 49408, (Some(49406), 49407)));
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let found = clip.tokens(text, 77).unwrap();
        assert_eq!(json!(found.ids), case["ids"], "{text}");
        let cut = found.cut.map_or(0, |c| c.tokens);
        assert_eq!(json!(found.ids.len() + cut), case["untruncated_length"], "{text}");
        let mut padded = found.ids;
        padded.resize(77, 49407);
        let bytes: Vec<u8> = padded.iter().flat_map(|i| i.to_le_bytes()).collect();
        let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, case["padded_sha256"].as_str().unwrap(), "{text}");
    }
}

#[test]
fn a_cut_begins_at_the_first_token_that_does_not_fit() {
    let clip = Tokenizer::shipped().unwrap();
    let text = format!("{}and é a horse", "word ".repeat(75));
    let cut = clip.tokens(&text, 77).unwrap().cut.unwrap();
    assert_eq!((&text[cut.at..], cut.tokens), ("and é a horse", 4));
    assert_eq!(clip.tokens("word ".repeat(75).trim(), 77).unwrap().cut, None);
    assert_eq!(clip.tokens("a b", 2).unwrap().ids, [49406, 49407]);
    assert_eq!(clip.tokens("a b", 0).unwrap().ids, [49406, 49407]);
}

/// The forms in which a vocabulary is published are the same vocabulary.
#[test]
fn every_form_of_a_vocabulary_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (folder, text) = (open(&folder()), "a photo of the night sky, in 3 colours!");
    let wanted = folder.tokens(text, 77).unwrap();
    assert_eq!((folder.size(), (folder.first(), folder.last()), folder.padding()), (714, (Some(712), 713), Some(713)));

    let read = |name: &str| std::fs::read_to_string(self::folder().join(name)).unwrap();
    let vocab: Value = serde_json::from_str(&read("vocab.json")).unwrap();
    let lines: Vec<String> = read("merges.txt").lines().skip(1).map(String::from).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|l| l.split(' ').collect()).collect();
    let forms = [json!(lines), json!(pairs)];
    for merges in forms {
        let all = json!({ "model": { "type": "BPE", "vocab": vocab, "merges": merges } });
        std::fs::write(at("tokenizer.json"), all.to_string()).unwrap();
        assert_eq!(open(&at("tokenizer.json")).tokens(text, 77).unwrap(), wanted);
    }
    // a folder as transformers 5 writes it, where texts are filled up with `!`
    std::fs::write(at("tokenizer_config.json"), r#"{"pad_token": {"content": "!"}}"#).unwrap();
    let written = open(dir.path());
    assert_eq!((written.tokens(text, 77).unwrap(), written.padding()), (wanted.clone(), Some(0)));

    // OpenAI's form holds the merges alone
    let mut packed = GzEncoder::new(vec![], Compression::fast());
    packed.write_all(format!("\"bpe_simple_vocab_16e6.txt#version: 0.2\n{}\n", lines.join("\n")).as_bytes()).unwrap();
    std::fs::write(at("bpe.txt.gz"), packed.finish().unwrap()).unwrap();
    assert_eq!(open(&at("bpe.txt.gz")).tokens(text, 77).unwrap(), wanted);
}

#[test]
fn files_that_are_no_vocabulary_are_refused_by_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
    let e = refused(dir.path());
    assert!(e.kind() == Kind::Io && e.fix().unwrap().contains("`vocab.json` and `merges.txt`"), "{e}");

    let vocab = std::fs::read_to_string(folder().join("vocab.json")).unwrap();
    write("vocab.json", &vocab);
    let e = refused(dir.path());
    assert!(e.fix().unwrap().contains("beside `vocab.json`") || e.message().contains("merges"), "{e}");

    let merges = std::fs::read_to_string(folder().join("merges.txt")).unwrap();
    let longest = vocab.split('"').max_by_key(|t| t.len()).unwrap();
    let strange = [
        (vocab.replace("\"!\"", "\"!!\""), merges.clone(), "no token `!`"),
        (vocab.replace("\"!\": 0", "\"!\": 1"), merges.clone(), "the same number 1"),
        (vocab.replace("\"!\": 0", "\"!\": -1"), merges.clone(), "the number -1"),
        (vocab.replace("\"!\": 0", "\"!\": 4194304"), merges.clone(), "the number 4194304"),
        (vocab.replace("\"!\": 0", "\"!\": 0.5"), merges.clone(), "the number 0.5"),
        (vocab.replace("\"!\": 0", "\"!\": 0, \"!\": 0"), merges.clone(), "appears twice"),
        (vocab.clone(), merges.replace("i n\n", "in\n"), "line 2 is not a pair"),
        (vocab.clone(), merges.replace("i n\n", "i n t\n"), "line 2 is not a pair"),
        (vocab.clone(), merges.replace("i n\n", "i  n\n"), "line 2 is not a pair"),
        (vocab.clone(), merges.replace("i n\n", "q q\n"), "merge 1 is of `q` and `q`"),
        // longer together than any token
        (vocab.clone(), format!("{merges}{longest} {longest}\n"), "but there is no token"),
        (vocab[..vocab.len() / 2].to_string(), merges.clone(), "not valid JSON"),
        ("[]".into(), merges.clone(), "no vocabulary"),
        ("{}".into(), merges.clone(), "no token"),
        ("".into(), merges.clone(), "an empty file"),
        ("\u{0}\u{1}".into(), merges, "no vocabulary"),
    ];
    for (vocab, merges, why) in strange {
        write("vocab.json", &vocab);
        write("merges.txt", &merges);
        let e = refused(&at("vocab.json"));
        assert!(e.kind() == Kind::Format && e.message().contains(why), "{why}: {e}");
        assert!(e.message().contains("vocab.json"), "{e}");
    }
    let others = [
        (r#"{"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}"#, "a tokenizer of Unigram"),
        (r#"{"model": 3}"#, "a tokenizer of another kind"),
        (r#"{"model": {"vocab": {"!": 0}, "merges": [["a"]]}}"#, "`model.merges` 1 is not a pair"),
        (r#"{"model": {"vocab": {"!": 0}, "merges": [3]}}"#, "`model.merges` 1 is not a pair"),
    ];
    for (text, why) in others {
        write("tokenizer.json", text);
        let e = refused(&at("tokenizer.json"));
        assert!(e.kind() == Kind::Format && e.message().contains(why), "{why}: {e}");
    }
    for (bytes, why) in [(&b"\x1f\x8b\x08\0\0\0"[..], "cannot be unpacked"), (b"\xff\xfeh\0", "")] {
        std::fs::write(at("bpe.txt.gz"), bytes).unwrap();
        let e = refused(&at("bpe.txt.gz"));
        assert!(e.kind() == Kind::Format && e.message().contains(why), "{e}");
    }
}

/// What unpacks to a thousand times its size is not unpacked to its end.
#[test]
fn a_packed_bomb_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut packed = GzEncoder::new(vec![], Compression::fast());
    let zeros = vec![0u8; 1 << 20];
    (0..80).for_each(|_| packed.write_all(&zeros).unwrap());
    let path = dir.path().join("bpe.txt.gz");
    std::fs::write(&path, packed.finish().unwrap()).unwrap();
    assert!(refused(&path).message().contains("unpacks to more bytes"));
}

/// Texts of a megabyte that make each step work: no step takes the square of their length.
#[test]
fn time_grows_with_the_length_of_a_text_and_not_faster() {
    let clip = Tokenizer::shipped().unwrap();
    let took = |part: &str, bytes: usize| {
        let text = part.repeat(bytes / part.len());
        let clock = Instant::now();
        clip.tokens(&text, 77).unwrap();
        clock.elapsed()
    };
    for part in
        ["x", "ab", " ", "a ", "e\u{301}", "'s", "1", "...", "<|endoftext|>", "<|", "\u{1F469}\u{200D}", "İ", "ﬁ"]
    {
        let (short, long) = (took(part, 1 << 16), took(part, 1 << 20));
        // sixteen times the length: the square would be 256 times the work
        assert!(long < 64 * short + Duration::from_secs(2), "{part:?}: {short:?} and {long:?}");
    }
    let e = clip.tokens(&"x".repeat((4 << 20) + 1), 77).unwrap_err();
    assert!(e.kind() == Kind::Value && e.message().contains("at most 4 MiB"), "{e}");
}

proptest! {
    #![proptest_config(cases(400))]

    /// Any text has tokens, both ends, nothing beyond the vocabulary, and a cut at a letter.
    #[test]
    fn any_text_has_tokens(text in any::<String>(), most in 0usize..100) {
        let clip = Tokenizer::shipped().unwrap();
        let found = clip.tokens(&text, most).unwrap();
        prop_assert!(found.ids.len() >= 2 && found.ids.len() <= most.max(2));
        prop_assert_eq!((found.ids[0], found.ids.last().copied()), (49406, Some(49407)));
        prop_assert!(found.ids.iter().all(|i| *i < 49408));
        if let Some(cut) = found.cut {
            prop_assert!(text.is_char_boundary(cut.at) && cut.at <= text.len() && cut.tokens > 0);
        }
    }
}
