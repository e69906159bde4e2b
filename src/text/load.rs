//! Finds text encoders and their tokenizers: in one checkpoint with the rest of a model, and in folders as diffusers and transformers
//! write them.
use super::encoder::{Reader, TextEncoder};
use super::tokenizer::Tokenizer;
use super::vocabulary::Vocabulary;
use crate::files::atomic;
use crate::files::checkpoint::{self, Checkpoint};
use crate::files::torch::View;
use crate::nets::clip::{self, Reads};
use crate::nets::instead::{self, Holds};
use crate::nets::weights::File;
use crate::{Error, Kind, Result, access};
use candle_core::{DType, Device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The names that weights have in a folder, the first one that is there.
const WEIGHTS: [&str; 4] =
    ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin"];

/// What a user may say of a model's text encoders.
#[derive(Debug, Clone, Copy, Default)]
pub struct Says<'a> {
    /// Where the tokenizer is.
    pub tokenizer: Option<&'a Path>,
    /// Whether they have quick GELU.
    pub quick: Option<bool>,
}

/// Loads the text encoders of a model, with their tokenizers, onto a device, in f32 or f64.
///
/// `path` is a checkpoint that holds one (Stable Diffusion's single files, or an encoder's own), a folder that diffusers wrote, or the
/// `text_encoder` folder in one. The tokenizer is the one beside it, else the one that is compiled in, or what the user says.
///
/// Errors name the file, what it holds instead, or what must be put where.
pub fn load(path: &Path, says: Says, device: &Device, dtype: DType) -> Result<TextEncoder> {
    let given = says.tokenizer.map(|t| Vocabulary::open(t).and_then(Tokenizer::new)).transpose()?;
    let how = How { given, quick: says.quick, device, dtype };
    match access::read(path)?.is_dir() {
        true => how.of_folder(path),
        false => how.of_file(path),
    }
}

struct How<'a> {
    /// The tokenizer that the user gave.
    given: Option<Tokenizer>,
    quick: Option<bool>,
    device: &'a Device,
    dtype: DType,
}

impl How<'_> {
    /// One checkpoint: what stands in it, as its place says.
    fn of_file(&self, path: &Path) -> Result<TextEncoder> {
        let checkpoint = checkpoint::open(path)?;
        let named = |e: Error| e.context(format!("`{}`", path.display()));
        let tensors = clip::state(&checkpoint);
        let places = clip::places(&tensors);
        if places.is_empty() {
            return Err(named(instead(&tensors)));
        }
        let metadata = self.described(&checkpoint);
        let one = |place: &&'static clip::Place| {
            let mut file = File::new(&tensors, &metadata, self.device, self.dtype);
            self.reader(clip::Encoder::build(place, &mut file)?, None, place.reads, None)
        };
        TextEncoder::new(places.iter().map(one).collect::<Result<_>>().map_err(named)?)
    }

    /// A checkpoint's metadata with what the user says.
    fn described(&self, checkpoint: &Checkpoint) -> BTreeMap<String, String> {
        let gelu = self.quick.map(|q| (clip::GELU.to_string(), if q { "quick_gelu" } else { "gelu" }.to_string()));
        checkpoint.metadata().clone().into_iter().chain(gelu).collect()
    }

    fn of_folder(&self, folder: &Path) -> Result<TextEncoder> {
        let parts = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];
        let mut found = vec![];
        for (encoder, tokenizer) in parts {
            if access::read(folder.join(encoder))?.is_dir() {
                found.push((folder.join(encoder), folder.join(tokenizer)));
            }
        }
        if found.is_empty() {
            let own = match folder.file_name().and_then(|n| n.to_str()) {
                Some("text_encoder_2") => "tokenizer_2",
                _ => "tokenizer",
            };
            // transformers' own folders hold both
            let beside = match access::read(folder.join("vocab.json"))?.is_file()
                || access::read(folder.join("tokenizer.json"))?.is_file()
            {
                true => folder.to_path_buf(),
                false => folder.with_file_name(own),
            };
            let reads = Reads { skip: 0, normed: true, pooled: false };
            return TextEncoder::new(vec![self.part(folder, &beside, reads)?]);
        }
        // a pair is read before its last layers, and the second one as a whole, too
        let pair = found.len() == 2;
        let reads = |i: usize| Reads { skip: usize::from(pair), normed: !pair, pooled: pair && i == 1 };
        let one = |(i, (encoder, tokenizer)): (usize, &(PathBuf, PathBuf))| self.part(encoder, tokenizer, reads(i));
        TextEncoder::new(found.iter().enumerate().map(one).collect::<Result<_>>()?)
    }

    /// The folder of one encoder, and where its tokenizer would be.
    fn part(&self, folder: &Path, tokenizer: &Path, reads: Reads) -> Result<Reader> {
        let mut weights = None;
        for name in WEIGHTS {
            if weights.is_none() && access::read(folder.join(name))?.is_file() {
                weights = Some(folder.join(name));
            }
        }
        let Some(weights) = weights else {
            let m = format!("there are no weights of a text encoder in `{}`", folder.display());
            let e = Error::new(Kind::Io, m);
            return Err(e.hint(format!("put `{}` there, or name the folder with `text_encoder` in it", WEIGHTS[0])));
        };
        let checkpoint = checkpoint::open(&weights)?;
        let named = |e: Error| e.context(format!("`{}`", weights.display()));
        let tensors = clip::state(&checkpoint);
        let Some(place) = clip::places(&tensors).into_iter().next() else {
            return Err(named(instead(&tensors)));
        };
        let mut metadata = self.described(&checkpoint);
        let config = folder.join("config.json");
        if access::read(&config)?.is_file() {
            metadata.insert("config".into(), atomic::read_text(&config)?);
        }
        let mut file = File::new(&tensors, &metadata, self.device, self.dtype);
        let clip = clip::Encoder::build(place, &mut file).map_err(named)?;
        let own = match &self.given {
            None if access::read(tokenizer)?.is_dir() => Some(Vocabulary::open(tokenizer).and_then(Tokenizer::new)?),
            _ => None,
        };
        self.reader(clip, own, reads, Some(tokenizer))
    }

    /// An encoder with its tokenizer: the one that was given, its own, or the one compiled in where there is none at `beside`.
    fn reader(
        &self,
        clip: clip::Encoder,
        own: Option<Tokenizer>,
        reads: Reads,
        beside: Option<&Path>,
    ) -> Result<Reader> {
        let (given, lacking) = (self.given.is_some(), beside.filter(|_| own.is_none()));
        let tokenizer = match (&self.given, own) {
            (Some(t), _) => t.clone(),
            (None, Some(t)) => t,
            (None, None) => Tokenizer::shipped()?,
        };
        Reader::new(tokenizer, clip, reads, given).map_err(|e| match lacking {
            Some(place) if !given => {
                let files = "`vocab.json` and `merges.txt` (or `tokenizer.json`)";
                e.hint(format!(
                    "its own tokenizer is missing: put {files} of the published model at `{}`",
                    place.display()
                ))
            }
            _ => e,
        })
    }
}

/// The error for a checkpoint without a text encoder, which says what it holds.
fn instead(tensors: &BTreeMap<String, View>) -> Error {
    let e = |what: &str| Error::new(Kind::Format, format!("it holds no text encoder{what}"));
    match (instead::told(tensors, Holds::Text), tensors.keys().next()) {
        (Some(known), _) => e(&format!(" but {}", known.what)).hint(known.fix),
        (None, Some(first)) => {
            let m = format!(", but {} tensors such as `{first}`", tensors.len());
            e(&m).hint("CLIP's text encoders are known, as Stable Diffusion's files and folders have them")
        }
        (None, None) => e(": there are no tensors in it").hint("is it the file that was meant?"),
    }
}
