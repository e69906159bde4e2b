//! Finds text encoders and their tokenizers: in one checkpoint with the rest of a model, and in folders as diffusers and transformers
//! write them.
use super::encoder::{Joined, Reader, Sentences, TextEncoder};
use super::sentence;
use super::tokenizer::Tokenizer;
use super::vocabulary::Vocabulary;
use crate::files::checkpoint::{self, Checkpoint};
use crate::files::torch::View;
use crate::files::{atomic, json, shards};
use crate::host::note;
use crate::nets::clip::{self, Reads};
use crate::nets::instead::{self, Holds};
use crate::nets::t5;
use crate::nets::weights::File;
use crate::{Error, Kind, Result, access};
use candle_core::{DType, Device};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The names that weights have in a folder, the first one that is there.
const WEIGHTS: [&str; 7] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "model.safetensors.index.fp16.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.fp16.bin",
];

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
/// `path` is a checkpoint that holds them (a model's single file, or an encoder's own), a folder that diffusers wrote, or the
/// `text_encoder` folder in one. The tokenizer is the one beside it, else for CLIP's the one that is compiled in, or what the user says.
///
/// Errors name the file, what it holds instead, or what must be put where.
pub fn load(path: &Path, says: Says, device: &Device, dtype: DType) -> Result<TextEncoder> {
    load_all(&[path], says, device, dtype)
}

/// Loads a model's text encoders from files of their own, in the order in which the denoiser reads them: T5's behind one of CLIP's are
/// FLUX.1's, behind two of them Stable Diffusion 3's.
pub fn load_all(paths: &[&Path], says: Says, device: &Device, dtype: DType) -> Result<TextEncoder> {
    let several = paths.len() > 1;
    let mut how = How { given: None, sentences: None, quick: says.quick, several, device, dtype };
    if let Some(path) = says.tokenizer {
        match sentence::found(path)? {
            Some(file) => how.sentences = Some(sentence::open(&file)?),
            None => how.given = Some(Vocabulary::open(path).and_then(Tokenizer::new)?),
        }
    }
    if let [path] = paths {
        return match access::read(path)?.is_dir() {
            true => how.of_folder(path),
            false => how.of_file(path),
        };
    }
    let mut found = Found::default();
    for path in paths {
        match access::read(path)?.is_dir() {
            true => {
                let (folder, beside) = beside(path)?;
                found.add(how.part(&folder, &beside)?);
            }
            false => how.of_checkpoint(path, &mut found)?,
        }
    }
    found.joined(None)
}

/// What stands in files and folders, before it is known what it is together.
#[derive(Default)]
struct Found {
    /// CLIP's encoders with their tokenizers, how each is read where its place says so, and whether a tokenizer was given.
    clips: Vec<(Tokenizer, clip::Encoder, Option<Reads>, bool)>,
    /// What to say where a tokenizer does not fit, by encoder.
    lacking: Vec<Option<PathBuf>>,
    t5: Option<Sentences>,
}

/// What a part of a folder is.
enum Part {
    Clip(Tokenizer, Box<clip::Encoder>, bool, Option<PathBuf>),
    T5(Sentences),
}

/// The model that encoders are of, where its folder says so.
#[derive(Clone, Copy)]
enum Model {
    /// Stable Diffusion 3, whose texts have this width.
    Sd3(usize),
    /// PixArt, whose texts have this many tokens.
    PixArt(usize),
}

impl Found {
    fn add(&mut self, part: Part) {
        match part {
            Part::Clip(tokenizer, clip, given, lacking) => {
                self.clips.push((tokenizer, *clip, None, given));
                self.lacking.push(lacking);
            }
            Part::T5(t5) => self.t5 = Some(t5),
        }
    }

    /// All of it, as the denoiser of such encoders reads them.
    fn joined(self, model: Option<Model>) -> Result<TextEncoder> {
        let count = self.clips.len();
        let width = self.t5.as_ref().map(|t| t.t5().config().width);
        let joined = match (count, width, model) {
            (0, Some(_), Some(Model::PixArt(tokens))) => Joined::Alone { lower: true, tokens },
            (0, Some(_), _) => Joined::Alone { lower: false, tokens: 300 },
            (1, Some(_), _) => Joined::Apart,
            (_, Some(width), _) => Joined::Behind(width),
            (2.., None, Some(Model::Sd3(width))) => {
                note("there is no T5 (`text_encoder_3`): its rows are zeros, as the model was trained to take them");
                Joined::Behind(width)
            }
            (_, None, _) => Joined::Beside,
        };
        // a pair is read before its last layers, and the second one as a whole, too
        let usual = |i: usize| match joined {
            Joined::Beside => Reads { skip: usize::from(count == 2), normed: count != 2, pooled: count == 2 && i == 1 },
            Joined::Behind(_) => Reads { skip: 1, normed: false, pooled: true },
            Joined::Apart | Joined::Alone { .. } => Reads { skip: 0, normed: true, pooled: true },
        };
        let mut clips = vec![];
        for (i, ((tokenizer, clip, own, given), lacking)) in self.clips.into_iter().zip(self.lacking).enumerate() {
            let reads = if joined == Joined::Beside { own } else { None }.unwrap_or_else(|| usual(i));
            clips.push(reader(tokenizer, clip, reads, given, lacking)?);
        }
        TextEncoder::new(clips, self.t5, joined)
    }
}

/// An encoder with its tokenizer; says where another one should be if it does not fit.
fn reader(
    tokenizer: Tokenizer,
    clip: clip::Encoder,
    reads: Reads,
    given: bool,
    lacking: Option<PathBuf>,
) -> Result<Reader> {
    Reader::new(tokenizer, clip, reads, given).map_err(|e| match lacking {
        Some(place) if !given => {
            let files = "`vocab.json` and `merges.txt` (or `tokenizer.json`)";
            e.hint(format!("its own tokenizer is missing: put {files} of the published model at `{}`", place.display()))
        }
        _ => e,
    })
}

/// The folder of one encoder, and where its tokenizer would be.
fn beside(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let own = match folder.file_name().and_then(|n| n.to_str()) {
        Some("text_encoder_2") => "tokenizer_2",
        Some("text_encoder_3") => "tokenizer_3",
        _ => "tokenizer",
    };
    // transformers' own folders hold both
    for name in ["vocab.json", "tokenizer.json", "spiece.model"] {
        if access::read(folder.join(name))?.is_file() {
            return Ok((folder.to_path_buf(), folder.to_path_buf()));
        }
    }
    Ok((folder.to_path_buf(), folder.with_file_name(own)))
}

/// A configuration in a folder, `null` where there is none.
fn config(folder: &Path, name: &str) -> Result<Value> {
    let at = folder.join(name);
    match access::read(&at)?.is_file() {
        true => json::parse(&atomic::read_text(&at)?).map_err(|e| e.context(format!("`{}`", at.display()))),
        false => Ok(Value::Null),
    }
}

/// Which model a folder says that it is.
fn model(folder: &Path) -> Result<Option<Model>> {
    let index = config(folder, "model_index.json")?;
    let part = config(&folder.join("transformer"), "config.json")?;
    let is = |what: &str| [&index, &part].iter().any(|c| c["_class_name"].as_str().is_some_and(|n| n.contains(what)));
    Ok(if is("StableDiffusion3") || is("SD3") {
        let width = part["joint_attention_dim"].as_u64().filter(|n| (1..=MOST).contains(n)).unwrap_or(4096);
        Some(Model::Sd3(width as usize))
    } else if is("PixArt") {
        Some(Model::PixArt(if is("PixArtAlpha") { 120 } else { 300 }))
    } else {
        None
    })
}

/// The widest rows of texts that are believed.
const MOST: u64 = 1 << 20;

struct How<'a> {
    /// The tokenizer that the user gave: CLIP's, or T5's.
    given: Option<Tokenizer>,
    sentences: Option<Tokenizer>,
    quick: Option<bool>,
    /// Whether there are several files or folders.
    several: bool,
    device: &'a Device,
    dtype: DType,
}

impl How<'_> {
    /// One checkpoint: what stands in it, as its place says.
    fn of_file(&self, path: &Path) -> Result<TextEncoder> {
        let mut found = Found::default();
        self.of_checkpoint(path, &mut found)?;
        // one of Stable Diffusion 3's files has CLIP's two encoders alone
        let pair =
            found.clips.len() == 2 && found.clips.iter().all(|(_, clip, ..)| clip.place().root.contains("clip_"));
        found.joined(pair.then_some(Model::Sd3(4096)))
    }

    /// Adds all encoders of a checkpoint.
    fn of_checkpoint(&self, path: &Path, found: &mut Found) -> Result<()> {
        let checkpoint = checkpoint::open(path)?;
        let named = |e: Error| e.context(format!("`{}`", path.display()));
        let tensors = clip::state(&checkpoint);
        let (places, sentences) = (clip::places(&tensors), t5::place(&tensors));
        if places.is_empty() && sentences.is_none() {
            return Err(named(instead(&tensors)));
        }
        let mut metadata = self.described(&checkpoint);
        // OpenAI's encoder beside others has a map that is not used
        let together = self.several || sentences.is_some() || places.iter().any(|p| p.root.contains("clip_"));
        for place in places {
            let first = found.clips.is_empty() && !place.root.contains("clip_g");
            let bare = (together && first).then(|| (clip::BARE.to_string(), String::new()));
            let metadata = metadata.clone().into_iter().chain(bare).collect();
            let mut file = File::new(&tensors, &metadata, self.device, self.dtype);
            let clip = clip::Encoder::build(place, &mut file).map_err(named)?;
            let (tokenizer, given) = self.tokenizer(None)?;
            found.clips.push((tokenizer, clip, Some(place.reads), given));
            found.lacking.push(None);
        }
        if let Some(place) = sentences {
            metadata.remove(clip::GELU);
            let mut file = File::new(&tensors, &metadata, self.device, self.dtype);
            let t5 = t5::Encoder::build(place, &mut file).map_err(named)?;
            found.t5 = Some(self.sentences(t5, path, None).map_err(named)?);
        }
        Ok(())
    }

    /// T5 with its tokenizer: the one that was given, the one at `beside`, or an error that says what is missing.
    fn sentences(&self, t5: t5::Encoder, of: &Path, beside: Option<&Path>) -> Result<Sentences> {
        let own = match (&self.sentences, beside) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(at)) => sentence::found(at)?.map(|f| sentence::open(&f)).transpose()?,
            (None, None) => None,
        };
        let Some(tokenizer) = own else {
            let e = Error::new(Kind::Io, "the tokenizer of its T5 is missing");
            let files = sentence::FILES;
            return Err(match beside {
                Some(at) => e.hint(format!("put {files} of the published model into `{}`", at.display())),
                None => e.hint(format!(
                    "a single file has none: get {files} (of `google/t5-v1_1-xxl`, say) and give                      `text::load({:?}, #{{ tokenizer: \"…\" }})`",
                    of.file_name().unwrap_or_default().to_string_lossy()
                )),
            });
        };
        Sentences::new(tokenizer, t5)
    }

    /// A checkpoint's metadata with what the user says.
    fn described(&self, checkpoint: &Checkpoint) -> BTreeMap<String, String> {
        let gelu = self.quick.map(|q| (clip::GELU.to_string(), if q { "quick_gelu" } else { "gelu" }.to_string()));
        checkpoint.metadata().clone().into_iter().chain(gelu).collect()
    }

    fn of_folder(&self, folder: &Path) -> Result<TextEncoder> {
        let mut found = Found::default();
        for end in ["", "_2", "_3"] {
            let (encoder, tokenizer) = (format!("text_encoder{end}"), format!("tokenizer{end}"));
            if access::read(folder.join(&encoder))?.is_dir() {
                found.add(self.part(&folder.join(encoder), &folder.join(tokenizer))?);
            }
        }
        if found.clips.is_empty() && found.t5.is_none() {
            let (folder, beside) = beside(folder)?;
            found.add(self.part(&folder, &beside)?);
        }
        found.joined(model(folder)?)
    }

    /// The encoder in a folder, and its tokenizer.
    fn part(&self, folder: &Path, tokenizer: &Path) -> Result<Part> {
        let Some(views) = shards::weights(folder, &WEIGHTS)? else {
            let m = format!("there are no weights of a text encoder in `{}`", folder.display());
            let e = Error::new(Kind::Io, m);
            return Err(e.hint(format!("put `{}` there, or name the folder with `text_encoder` in it", WEIGHTS[0])));
        };
        let checkpoint = Checkpoint::joined(views, BTreeMap::new());
        let named = |e: Error| e.context(format!("`{}`", folder.display()));
        let tensors = clip::state(&checkpoint);
        let mut metadata = self.described(&checkpoint);
        let config = folder.join("config.json");
        if access::read(&config)?.is_file() {
            metadata.insert("config".into(), atomic::read_text(&config)?);
        }
        if let Some(place) = t5::place(&tensors) {
            let mut file = File::new(&tensors, &metadata, self.device, self.dtype);
            let t5 = t5::Encoder::build(place, &mut file).map_err(named)?;
            return Ok(Part::T5(self.sentences(t5, folder, Some(tokenizer)).map_err(named)?));
        }
        let Some(place) = clip::places(&tensors).into_iter().next() else {
            return Err(named(instead(&tensors)));
        };
        let mut file = File::new(&tensors, &metadata, self.device, self.dtype);
        let clip = Box::new(clip::Encoder::build(place, &mut file).map_err(named)?);
        let own = match &self.given {
            None if access::read(tokenizer)?.is_dir() => Some(Vocabulary::open(tokenizer).and_then(Tokenizer::new)?),
            _ => None,
        };
        let lacking = own.is_none().then(|| tokenizer.to_path_buf());
        let (own, given) = self.tokenizer(own)?;
        Ok(Part::Clip(own, clip, given, lacking))
    }

    /// One of CLIP's tokenizers: the one that was given, its own, or the one compiled in; and whether it was given.
    fn tokenizer(&self, own: Option<Tokenizer>) -> Result<(Tokenizer, bool)> {
        match (&self.given, own) {
            (Some(t), _) => Ok((t.clone(), true)),
            (None, Some(t)) => Ok((t, false)),
            (None, None) => Ok((Tokenizer::shipped()?, false)),
        }
    }
}

/// The error for a checkpoint without a text encoder, which says what it holds.
fn instead(tensors: &BTreeMap<String, View>) -> Error {
    let e = |what: &str| Error::new(Kind::Format, format!("it holds no text encoder{what}"));
    match (instead::told(tensors, Holds::Text), tensors.keys().next()) {
        (Some(known), _) => e(&format!(" but {}", known.what)).hint(known.fix),
        (None, Some(first)) => {
            let m = format!(", but {} tensors such as `{first}`", tensors.len());
            e(&m).hint("CLIP's and T5's text encoders are known, as the files and folders of Stable Diffusion and FLUX.1 have them")
        }
        (None, None) => e(": there are no tensors in it").hint("is it the file that was meant?"),
    }
}
