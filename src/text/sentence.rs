//! T5's tokenizer: SentencePiece's pieces with scores, of which a text takes the most likely ones. Read from `tokenizer.json` or
//! `spiece.model`; the steps are those of Hugging Face's library, and so are its answers where SentencePiece's own differ.
use super::charsmap;
use super::tokenizer::Tokenizer;
use super::vocabulary::text;
use crate::files::{atomic, json};
use crate::{Error, Kind, Result, access};
use base64::Engine;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, PreTokenizerWrapper};

/// The files that are looked for in a folder.
pub const FILES: &str = "`tokenizer.json` or `spiece.model`";
const JSON: &str = "tokenizer.json";
const PIECES: &str = "spiece.model";
/// The most pieces, which is more than any embedding has rows, and the most bytes of a file.
const MOST: usize = 1 << 22;
const LARGEST: u64 = 64 << 20;
/// Words that T5 has for gaps in its training texts, where nothing says how many.
const GAPS: u64 = 100;
/// The only pattern that published normalizers have.
const SPACES: &str = " {2,}";

/// The file of a T5 tokenizer at a path, which may be a folder; none where what is there is another tokenizer, or nothing.
pub fn found(path: &Path) -> Result<Option<PathBuf>> {
    let place = access::read(path)?;
    if place.is_dir() {
        for name in [JSON, PIECES] {
            let at = path.join(name);
            if access::read(&at)?.is_file() && is(&at)? {
                return Ok(Some(at));
            }
        }
        return Ok(None);
    }
    Ok((place.is_file() && is(path)?).then(|| path.to_path_buf()))
}

/// Whether a file begins as those of SentencePiece do, or is a `tokenizer.json` of its kind.
fn is(path: &Path) -> Result<bool> {
    match atomic::head(path)?.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => {
            let all = json::parse(&text(path)?).map_err(|e| e.context(format!("`{}`", path.display())))?;
            Ok(all["model"]["type"].as_str() == Some("Unigram"))
        }
        // a protocol buffer whose first field is a piece; that field's tag counts as white space
        _ => {
            Ok(atomic::head(path)?.first() == Some(&0x0a)
                && !path.extension().is_some_and(|e| e == "json" || e == "txt"))
        }
    }
}

/// The tokenizer in a file that [`found`] gave.
///
/// Fails with [`Kind::Format`], naming the file, where it is damaged or of another kind.
pub fn open(path: &Path) -> Result<Tokenizer> {
    let size = atomic::existing(path)?.len();
    let all = || match size > LARGEST {
        true => Err(damaged(format!("it has {size} bytes: it is no vocabulary"))),
        false if atomic::head(path)?.first() == Some(&0x0a) => of_pieces(path),
        false => of_json(&text(path)?),
    };
    all().map_err(|e| e.context(format!("`{}`", path.display())))
}

fn damaged(message: String) -> Error {
    Error::new(Kind::Format, message).hint(format!("T5's tokenizer is {FILES}, as published beside it"))
}

fn library(e: tokenizers::Error) -> Error {
    damaged(format!("the tokenizer cannot be made: {e}"))
}

/// A tokenizer with these steps, whose ends have the usual names.
fn finished(steps: tokenizers::Tokenizer) -> Result<Tokenizer> {
    let number = |token: &str| {
        steps
            .token_to_id(token)
            .ok_or_else(|| damaged(format!("it has no token `{token}`, as every tokenizer of T5's has")))
    };
    let (last, padding) = (number("</s>")?, number("<pad>")?);
    let size = steps.get_vocab(true).values().max().map_or(0, |n| *n as usize + 1);
    if size > MOST {
        return Err(damaged(format!("it has a token of number {}", size - 1)));
    }
    Ok(Tokenizer::of(steps, last, padding, size))
}

/// `tokenizer.json`: tokens, and the steps before they are looked up.
fn of_json(text: &str) -> Result<Tokenizer> {
    let Value::Object(all) = json::parse(text)? else { return Err(damaged("it is no tokenizer".into())) };
    let kind = all.get("model").and_then(|m| m["type"].as_str()).unwrap_or("another kind");
    if kind != "Unigram" {
        return Err(damaged(format!("it describes a tokenizer of {kind}, not T5's, which is of Unigram")));
    }
    let ids = all["model"]["vocab"].as_array().map_or(0, Vec::len);
    if !(1..=MOST).contains(&ids) || all["model"]["unk_id"].as_u64().is_none_or(|n| n >= ids as u64) {
        return Err(damaged(format!("it has {ids} pieces and `unk_id: {}`", all["model"]["unk_id"])));
    }
    let added = all.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    if let Some(far) = added.filter_map(|t| t["id"].as_u64()).find(|n| *n >= MOST as u64) {
        return Err(damaged(format!("it has a token of number {far}")));
    }
    let kept: Map<String, Value> = ["version", "added_tokens", "normalizer", "pre_tokenizer", "model"]
        .into_iter()
        .filter_map(|key| Some((key.to_string(), all.get(key)?.clone())))
        .collect();
    for part in ["normalizer", "pre_tokenizer"] {
        checked(kept.get(part).unwrap_or(&Value::Null))?;
    }
    let steps = tokenizers::Tokenizer::from_bytes(Value::Object(kept).to_string()).map_err(library)?;
    finished(steps)
}

/// Fails where steps are none that published tokenizers of T5 have, or hold a map of characters that leads out of itself.
fn checked(step: &Value) -> Result<()> {
    let unknown = |what: String| Err(damaged(format!("it has a step of another kind: {what}")));
    let kind = step["type"].as_str().unwrap_or_default();
    let inner = |key: &str| step[key].as_array().into_iter().flatten().try_for_each(checked);
    match kind {
        "" if step.is_null() => Ok(()),
        "Sequence" => inner("normalizers").and_then(|()| inner("pretokenizers")),
        "Precompiled" => {
            let map = step["precompiled_charsmap"].as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(map);
            charsmap::check(&bytes.map_err(|e| damaged(format!("its map of characters cannot be read: {e}")))?)
        }
        "Replace" => match &step["pattern"] {
            Value::Object(p) if p.get("Regex").is_none_or(|r| r == SPACES) => Ok(()),
            other => unknown(format!("it replaces `{other}`")),
        },
        "Strip" | "WhitespaceSplit" | "Metaspace" | "NFC" | "NFKC" | "NFD" | "NFKD" | "Lowercase" | "Prepend" => Ok(()),
        other => unknown(format!("`{other}`")),
    }
}

/// `spiece.model`, with `tokenizer_config.json` beside it where that says how many gaps there are.
fn of_pieces(path: &Path) -> Result<Tokenizer> {
    let model = super::spiece::Model::read(&atomic::read(path)?)?;
    let beside = path.with_file_name("tokenizer_config.json");
    let mut gaps = GAPS;
    if access::read(&beside)?.is_file() {
        let config = json::parse(&text(&beside)?).map_err(|e| e.context(format!("`{}`", beside.display())))?;
        gaps = config["extra_ids"].as_u64().filter(|n| *n <= 1 << 16).unwrap_or(GAPS);
    }
    let gap = |n: u64| format!("<extra_id_{n}>");
    // the last ones come first
    let pieces: Vec<(String, f64)> =
        model.pieces.iter().map(|p| (p.text.clone(), p.score)).chain((0..gaps).rev().map(|n| (gap(n), 0.0))).collect();
    let special = model.pieces.iter().filter(|p| p.special).map(|p| p.text.clone()).chain((0..gaps).map(gap));
    let special: Vec<AddedToken> = special.map(|t| AddedToken::from(t, true)).collect();
    let unknown = Unigram::from(pieces, Some(model.unknown), model.bytes).map_err(library)?;
    let mut steps = tokenizers::Tokenizer::new(unknown);
    if !model.map.is_empty() {
        charsmap::check(&model.map)?;
        let map = Precompiled::from(&model.map).map_err(|e| damaged(format!("its map of characters: {e}")))?;
        steps.with_normalizer(Some(NormalizerWrapper::Precompiled(map))).map_err(library)?;
    }
    let prefix = if model.prefix { PrependScheme::Always } else { PrependScheme::Never };
    let words: [PreTokenizerWrapper; 2] = [WhitespaceSplit.into(), Metaspace::new('▁', prefix, true).into()];
    steps.with_pre_tokenizer(Some(Sequence::new(words.into())));
    steps.add_special_tokens(special).map_err(library)?;
    finished(steps)
}
