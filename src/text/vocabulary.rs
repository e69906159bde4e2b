//! Vocabularies of CLIP's tokenizer: the one that is compiled in, and those in files.
use crate::files::{atomic, json, sniff, utf8};
use crate::{Error, Kind, Result, access};
use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// OpenAI's merges, one a line.
const MERGES: &[u8] = include_bytes!("../../models/clip-merges.txt.gz");
/// How many of them there are. OpenAI's own file goes on with some that were never used.
const COUNT: usize = 48_894;
/// The most bytes that a vocabulary may have, packed or not; those in use have a few million.
const LARGEST: u64 = 64 << 20;
/// The most tokens that one may have, which is more than any embedding has rows.
const TOKENS: u64 = 1 << 22;
/// What stands behind the last token of a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// The token before a text, and the one behind it.
pub(super) const ENDS: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

/// The files that are looked for in a folder.
const FILES: &str = "`vocab.json` and `merges.txt`, or `tokenizer.json`, or `bpe_simple_vocab_16e6.txt.gz`";

/// Tokens by number, and which two of them become one.
pub struct Vocabulary {
    /// The number of each token.
    pub ids: HashMap<String, u32>,
    /// The pairs that become one token, the first ones first.
    pub merges: Vec<(String, String)>,
    /// The token that texts are filled up with, where a file says which.
    pub padding: Option<u32>,
}

impl Vocabulary {
    /// That of OpenAI's and OpenCLIP's encoders: 49408 tokens.
    pub fn shipped() -> Result<Vocabulary> {
        from_merges(&unpacked(MERGES)?)
    }

    /// From a tokenizer's folder as diffusers or transformers write it, or from one of its files: `vocab.json` with `merges.txt`
    /// beside it, `tokenizer.json`, or OpenAI's `bpe_simple_vocab_16e6.txt.gz`.
    ///
    /// Fails with [`Kind::Io`] where nothing can be read, and with [`Kind::Format`], naming file and token, where it is no vocabulary
    /// of CLIP's tokenizer.
    pub fn open(path: &Path) -> Result<Vocabulary> {
        match access::read(path)?.is_dir() {
            true => of_folder(path),
            false => of_file(path).map_err(|e| e.context(format!("`{}`", path.display()))),
        }
    }

    /// One more than the largest number.
    pub fn size(&self) -> usize {
        self.ids.values().max().map_or(0, |n| *n as usize + 1)
    }

    /// Itself, if a tokenizer can be made of it.
    fn checked(self) -> Result<Vocabulary> {
        let alphabet = alphabet().flat_map(|c| [c.to_string(), format!("{c}{END_OF_WORD}")]);
        if let Some(lost) = alphabet.chain(ENDS.map(String::from)).find(|t| !self.ids.contains_key(t)) {
            let e = damaged(format!("it has no token `{lost}`, as every vocabulary of CLIP's tokenizer has"));
            return Err(e.hint("is it that of another network?"));
        }
        let mut by_number: HashMap<u32, &str> = HashMap::new();
        for (token, number) in &self.ids {
            if let Some(other) = by_number.insert(*number, token) {
                let [a, b] = if other < token.as_str() { [other, token] } else { [token, other] };
                return Err(damaged(format!("the tokens `{a}` and `{b}` have the same number {number}")));
            }
        }
        for (k, (a, b)) in self.merges.iter().enumerate() {
            if let Some(lost) = [a.clone(), b.clone(), format!("{a}{b}")].iter().find(|t| !self.ids.contains_key(*t)) {
                let m = format!("merge {} is of `{a}` and `{b}`, but there is no token `{lost}`", k + 1);
                return Err(damaged(m).hint("are merges and tokens of the same vocabulary?"));
            }
        }
        Ok(self)
    }
}

fn damaged(message: String) -> Error {
    Error::new(Kind::Format, message)
}

/// The characters that stand for the 256 bytes, in the order of their tokens: printable ones for themselves.
fn alphabet() -> impl Iterator<Item = char> {
    let own = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    own.chain((256..256 + 68).filter_map(char::from_u32))
}

fn of_folder(folder: &Path) -> Result<Vocabulary> {
    let at = |name: &str| folder.join(name);
    let there = |name: &str| access::read(at(name)).is_ok_and(|f| f.is_file());
    let name = ["vocab.json", "tokenizer.json", "bpe_simple_vocab_16e6.txt.gz"].into_iter().find(|n| there(n));
    let Some(name) = name else {
        let e = Error::new(Kind::Io, format!("there is no vocabulary in `{}`", folder.display()));
        return Err(e.hint(format!("put {FILES} there")));
    };
    let mut vocabulary = Vocabulary::open(&at(name))?;
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        if vocabulary.padding.is_none() && there(name) {
            let value = json::parse(&text(&at(name))?).map_err(|e| e.context(format!("`{}`", at(name).display())))?;
            vocabulary.padding = token(&value["pad_token"]).and_then(|t| vocabulary.ids.get(t).copied());
        }
    }
    Ok(vocabulary)
}

/// A token as configurations have it: by itself, or with what is special about it.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

fn of_file(path: &Path) -> Result<Vocabulary> {
    let text = text(path)?;
    if !text.trim_start().starts_with('{') {
        return match text.lines().next().is_some_and(|l| l.contains("#version")) {
            true => from_merges(&text),
            false => Err(sniff::instead(text.as_bytes(), "vocabulary", &[])
                .unwrap_or_else(|| damaged("it is no vocabulary of CLIP's tokenizer".into()))
                .hint(format!("known are {FILES}"))),
        };
    }
    match json::parse(&text)? {
        Value::Object(all) if all.contains_key("model") => from_tokenizer(&all),
        Value::Object(all) => from_tokens(&all, path),
        _ => Err(damaged("it is no vocabulary of CLIP's tokenizer".into())),
    }
}

/// `vocab.json`, with the merges beside it.
fn from_tokens(tokens: &Map<String, Value>, path: &Path) -> Result<Vocabulary> {
    let merges = path.with_file_name("merges.txt");
    let lines = text(&merges).map_err(|e| match e.kind() {
        Kind::Io => e.hint("a vocabulary is two files: put the merges beside `vocab.json`"),
        _ => e,
    })?;
    let merges = pairs(&lines).map_err(|e| e.context(format!("`{}`", merges.display())))?;
    Vocabulary { ids: numbers(tokens)?, merges, padding: None }.checked()
}

/// `tokenizer.json`: its tokens and merges. What else stands there describes the steps that are taken here anyway.
fn from_tokenizer(all: &Map<String, Value>) -> Result<Vocabulary> {
    let model = &all["model"];
    let (Some(tokens), Some(list)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        let kind = model["type"].as_str().unwrap_or("another kind");
        let e = damaged(format!("it describes a tokenizer of {kind}, not CLIP's, which has `vocab` and `merges`"));
        return Err(e.hint("give the tokenizer that was published with the text encoder"));
    };
    let mut ids = numbers(tokens)?;
    for added in all.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        if let (Some(t), Some(n)) = (token(added), added["id"].as_u64().filter(|n| *n < TOKENS)) {
            ids.insert(t.into(), n as u32);
        }
    }
    let pair = |(k, merge): (usize, &Value)| {
        let parts: Option<Vec<&str>> = match merge {
            Value::String(s) => Some(s.split(' ').collect()),
            Value::Array(parts) => parts.iter().map(Value::as_str).collect(),
            _ => None,
        };
        match parts.as_deref() {
            Some([a, b]) => Ok((a.to_string(), b.to_string())),
            _ => Err(damaged(format!("`model.merges` {} is not a pair of tokens", k + 1))),
        }
    };
    let merges = list.iter().enumerate().map(pair).collect::<Result<_>>()?;
    Vocabulary { ids, merges, padding: None }.checked()
}

fn numbers(tokens: &Map<String, Value>) -> Result<HashMap<String, u32>> {
    let one = |(token, number): (&String, &Value)| match number.as_u64().filter(|n| *n < TOKENS) {
        Some(n) => Ok((token.clone(), n as u32)),
        None => Err(damaged(format!("the token `{token}` has the number {number}, which is none below {TOKENS}"))),
    };
    tokens.iter().map(one).collect()
}

/// Tokens follow from merges: the bytes, the bytes at the end of a word, what merges make, and the two ends.
fn from_merges(text: &str) -> Result<Vocabulary> {
    let merges = pairs(text)?;
    let bytes = || alphabet().map(String::from);
    let made = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let all = bytes().chain(bytes().map(|t| t + END_OF_WORD)).chain(made).chain(ENDS.map(String::from));
    let mut ids = HashMap::new();
    for (n, token) in all.enumerate() {
        if ids.insert(token.clone(), n as u32).is_some() {
            return Err(damaged(format!("two merges make the same token `{token}`")));
        }
    }
    Vocabulary { ids, merges, padding: None }.checked()
}

/// The pairs of a list of merges.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let head = usize::from(text.lines().next().is_some_and(|l| l.contains("#version")));
    let lines = text.lines().enumerate().skip(head).take(COUNT).filter(|(_, l)| !l.trim().is_empty());
    let pair = |(n, line): (usize, &str)| match line.split(' ').collect::<Vec<_>>()[..] {
        [a, b] if !a.is_empty() && !b.is_empty() => Ok((a.to_string(), b.to_string())),
        _ => Err(damaged(format!("line {} is not a pair of tokens", n + 1))),
    };
    lines.map(pair).collect()
}

/// A file's text, unpacked where it is packed.
pub(super) fn text(path: &Path) -> Result<String> {
    let meta = atomic::existing(path)?;
    if meta.len() > LARGEST {
        return Err(damaged(format!("`{}` has {} bytes: it is no vocabulary", path.display(), meta.len())));
    }
    let bytes = atomic::read(path)?;
    match bytes.starts_with(b"\x1f\x8b") {
        true => unpacked(&bytes),
        false => utf8::decode(bytes, &path.display().to_string()),
    }
}

fn unpacked(packed: &[u8]) -> Result<String> {
    let mut bytes = vec![];
    let read = GzDecoder::new(packed).take(LARGEST + 1).read_to_end(&mut bytes);
    match read {
        Ok(n) if n as u64 > LARGEST => Err(damaged("it unpacks to more bytes than a vocabulary has".into())),
        Ok(_) => utf8::decode(bytes, "the unpacked vocabulary"),
        Err(e) => Err(damaged(format!("it cannot be unpacked: {e}")).hint("download it again")),
    }
}
