//! Text encoders with their tokenizers: from texts to the conditions that denoisers take.
use super::tokenizer::{Cut, Tokenizer};
use crate::host::note;
use crate::nets::clip::{self, Reads};
use crate::nets::t5;
use crate::{Error, Kind, Result};
use candle_core::{D, Tensor};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The condition with a row for each token, [B, tokens, width].
pub const CONTEXT: &str = "context";
/// The condition with a row for each text, [B, width].
pub const POOLED: &str = "pooled";

/// How much of what is cut off is shown.
const SHOWN: usize = 60;

/// The condition that says which rows of [`CONTEXT`] are a text's own, [B, tokens]: 1, or 0 for what they are filled up with.
pub const MASK: &str = "mask";

/// One of CLIP's encoders with the tokenizer that it was trained with.
pub struct Reader {
    tokenizer: Tokenizer,
    clip: clip::Encoder,
    reads: Reads,
}

/// T5's encoder with its tokenizer.
pub struct Sentences {
    tokenizer: Tokenizer,
    t5: t5::Encoder,
}

/// How a denoiser takes what its encoders make of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Joined {
    /// Stable Diffusion 1, 2 and XL: CLIP's rows side by side.
    Beside,
    /// Stable Diffusion 3: the same, filled up with zeros to this width, then T5's rows, or zeros without a T5; CLIP's rows of whole
    /// texts side by side.
    Behind(usize),
    /// FLUX.1: T5's rows, and CLIP's row of the whole text.
    Apart,
    /// PixArt: T5's rows, and which of them count; texts in lower case if so.
    Alone {
        /// Whether texts are put in lower case.
        lower: bool,
        /// How many tokens are read if nobody says.
        tokens: usize,
    },
}

/// All encoders that a denoiser reads; cheap to clone.
#[derive(Clone)]
pub struct TextEncoder(Rc<Inner>);

struct Inner {
    clips: Vec<Reader>,
    t5: Option<Sentences>,
    joined: Joined,
}

/// What may be asked of an encoding beyond what the denoiser reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// Layers at the end that are left out, beyond those that always are.
    pub skip: usize,
    /// A row for each text where the denoiser takes none.
    pub pooled: bool,
    /// How many of its tokens T5 reads, where not as many as the model's pipeline lets it.
    pub tokens: Option<usize>,
}

/// The most tokens that are given to T5.
const LONGEST: usize = 1 << 14;

impl Reader {
    /// An encoder that denoisers read in this way.
    ///
    /// Fails where the tokenizer's vocabulary is not that of the encoder's embedding. One that was `given` may be smaller.
    pub fn new(tokenizer: Tokenizer, clip: clip::Encoder, reads: Reads, given: bool) -> Result<Reader> {
        let (have, rows) = (tokenizer.size(), clip.config().tokens);
        if have > rows || (have < rows && !given) {
            let m = format!("the tokenizer has {have} tokens, the text encoder's embedding {rows}");
            let e = Error::new(Kind::Format, m);
            return Err(
                e.hint("give the tokenizer that was published with it: `text::load(path, #{ tokenizer: folder })`")
            );
        }
        Ok(Reader { tokenizer, clip, reads })
    }

    /// The encoder.
    pub fn clip(&self) -> &clip::Encoder {
        &self.clip
    }

    /// How denoisers read it.
    pub fn reads(&self) -> Reads {
        self.reads
    }

    /// What texts are filled up with: OpenCLIP's encoders were trained with zeros behind them.
    fn padding(&self) -> u32 {
        let known = if self.clip.config().quick { self.tokenizer.last() } else { 0 };
        self.tokenizer.padding().unwrap_or(known)
    }

    /// As many token numbers as the encoder reads.
    fn filled(&self, text: &str) -> Result<Vec<u32>> {
        let most = self.clip.config().positions;
        let found = self.tokenizer.tokens(text, most)?;
        if let Some(cut) = found.cut {
            note(&told(text, cut, self.tokenizer.room(most)));
        }
        let mut ids = found.ids;
        ids.resize(most, self.padding());
        Ok(ids)
    }
}

/// What is told of a text that was cut.
fn told(text: &str, Cut { tokens, at }: Cut, most: usize) -> String {
    let rest = text.get(at..).unwrap_or_default().trim();
    let mut shown: String = rest.chars().take(SHOWN).collect();
    if shown.len() < rest.len() {
        shown += "…";
    }
    format!("a text is {tokens} tokens longer than the {most} that are read: `{shown}` is left out")
}

impl Sentences {
    /// An encoder and its tokenizer.
    ///
    /// Fails where the tokenizer has more tokens than the encoder's embedding; it may have fewer, as the published one does.
    pub fn new(tokenizer: Tokenizer, t5: t5::Encoder) -> Result<Sentences> {
        let (have, rows) = (tokenizer.size(), t5.config().tokens);
        match have > rows {
            false => Ok(Sentences { tokenizer, t5 }),
            true => {
                let m = format!("the tokenizer has {have} tokens, T5's embedding {rows}");
                Err(Error::new(Kind::Format, m).hint("give the tokenizer that was published with it"))
            }
        }
    }

    /// The encoder.
    pub fn t5(&self) -> &t5::Encoder {
        &self.t5
    }

    /// The token numbers of a text, at most `most`, not filled up.
    fn own(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        let found = self.tokenizer.tokens(text, most)?;
        if let Some(cut) = found.cut {
            note(&told(text, cut, self.tokenizer.room(most)));
        }
        Ok(found.ids)
    }

    /// As many token numbers as are asked for.
    fn filled(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        let mut ids = self.own(text, most)?;
        ids.resize(most, self.tokenizer.padding().unwrap_or_default());
        Ok(ids)
    }

    /// A row for each of `most` tokens; padding is attended to, as in training.
    fn rows(&self, texts: &[String], most: usize) -> Result<Tensor> {
        let ids = texts.iter().map(|t| self.filled(t, most)).collect::<Result<Vec<_>>>()?;
        self.t5.encode(&ids)
    }

    /// A row for each of `most` tokens, zeros behind a text's own, and which are its own.
    fn masked(&self, texts: &[String], most: usize) -> Result<[Tensor; 2]> {
        let (mut rows, mut masks) = (vec![], vec![]);
        for text in texts {
            let ids = self.own(text, most)?;
            let mask: Vec<f32> = (0..most).map(|i| f32::from(u8::from(i < ids.len()))).collect();
            let left = most - ids.len();
            let own = self.t5.encode(&[ids])?;
            masks.push(Tensor::from_vec(mask, (1, most), own.device())?.to_dtype(own.dtype())?);
            rows.push(own.pad_with_zeros(1, 0, left)?);
        }
        Ok([Tensor::cat(&rows, 0)?, Tensor::cat(&masks, 0)?])
    }
}

impl TextEncoder {
    /// From CLIP's encoders in the order in which the denoiser reads them, and T5's.
    ///
    /// Fails where there are fewer than the denoiser reads.
    pub fn new(clips: Vec<Reader>, t5: Option<Sentences>, joined: Joined) -> Result<TextEncoder> {
        let whole = match joined {
            Joined::Beside | Joined::Behind(_) => !clips.is_empty(),
            Joined::Apart => !clips.is_empty() && t5.is_some(),
            Joined::Alone { .. } => t5.is_some(),
        };
        match whole {
            false => Err(Error::new(Kind::Internal, "a text encoder without an encoder")),
            true => Ok(TextEncoder(Rc::new(Inner { clips, t5, joined }))),
        }
    }

    /// CLIP's encoders.
    pub fn readers(&self) -> &[Reader] {
        &self.0.clips
    }

    /// T5's.
    pub fn t5(&self) -> Option<&Sentences> {
        self.0.t5.as_ref()
    }

    /// How the denoiser takes what they make.
    pub fn joined(&self) -> Joined {
        self.0.joined
    }

    /// How many tokens T5 reads.
    fn read(&self, asked: Option<usize>) -> Result<usize> {
        let usual = match self.0.joined {
            Joined::Beside | Joined::Behind(_) => 256,
            Joined::Apart => 512,
            Joined::Alone { tokens, .. } => tokens,
        };
        match asked.unwrap_or(usual) {
            n @ 2..=LONGEST => Ok(n),
            n => Err(Error::value(format!("T5 reads between 2 and {LONGEST} tokens, not {n}"))),
        }
    }

    /// Texts as the model's pipeline hands them on.
    fn prepared(&self, text: &str) -> String {
        match self.0.joined {
            Joined::Alone { lower: true, .. } => text.to_lowercase().trim().to_string(),
            _ => text.to_string(),
        }
    }

    /// The token numbers of a text with those at its ends, cut where it is too long, not filled up: of the first of CLIP's encoders, or
    /// of T5 where it is alone.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        match (self.0.clips.first(), &self.0.t5) {
            (Some(first), _) => Ok(first.tokenizer.tokens(text, first.clip.config().positions)?.ids),
            (None, Some(t5)) => Ok(t5.tokenizer.tokens(&self.prepared(text), self.read(None)?)?.ids),
            (None, None) => Err(lost()),
        }
    }

    /// The token numbers of a text as the encoder gets them, filled up.
    pub fn filled(&self, text: &str) -> Result<Vec<u32>> {
        match (self.0.clips.first(), &self.0.t5) {
            (Some(first), _) => first.filled(text),
            (None, Some(t5)) => t5.filled(&self.prepared(text), self.read(None)?),
            (None, None) => Err(lost()),
        }
    }

    /// The conditions that these texts are for a denoiser, by name, with a row for each text: [`CONTEXT`], [`POOLED`] where the
    /// denoiser takes it or it is asked for, and [`MASK`] where it takes that.
    ///
    /// What does not fit into an encoder is cut off with a note. Fails where there is no text, and where more layers are left out than
    /// there are.
    pub fn encode(&self, texts: &[String], ask: Ask) -> Result<BTreeMap<String, Tensor>> {
        if texts.is_empty() {
            return Err(Error::value("there is no text to encode"));
        }
        let Inner { clips, t5, joined } = &*self.0;
        let (mut contexts, mut rows) = (vec![], vec![]);
        for reader in clips {
            let ids = texts.iter().map(|t| reader.filled(t)).collect::<Result<Vec<_>>>()?;
            let own = reader.reads;
            let reads = Reads { skip: own.skip.saturating_add(ask.skip), pooled: own.pooled || ask.pooled, ..own };
            let clip::Encoded { context, pooled } = reader.clip.encode(&ids, reads)?;
            contexts.push(context);
            rows.extend(pooled);
        }
        let said = |list: Vec<(&str, Tensor)>| list.into_iter().map(|(n, t)| (n.to_string(), t)).collect();
        let sentences = || t5.as_ref().ok_or_else(lost);
        match joined {
            Joined::Beside => {
                let last = rows.pop().map(|t| (POOLED, t));
                Ok(said([(CONTEXT, Tensor::cat(&contexts, D::Minus1)?)].into_iter().chain(last).collect()))
            }
            Joined::Behind(width) => {
                let clip = Tensor::cat(&contexts, D::Minus1)?;
                let missing = width.checked_sub(clip.dim(D::Minus1)?).ok_or_else(|| narrow(&clip, *width))?;
                let clip = clip.pad_with_zeros(D::Minus1, 0, missing)?;
                let most = self.read(ask.tokens)?;
                let told = match t5 {
                    Some(t5) => t5.rows(texts, most)?,
                    None => Tensor::zeros((texts.len(), most, *width), clip.dtype(), clip.device())?,
                };
                let pooled = Tensor::cat(&rows, D::Minus1)?;
                Ok(said(vec![(CONTEXT, Tensor::cat(&[clip, told], 1)?), (POOLED, pooled)]))
            }
            Joined::Apart => {
                let context = sentences()?.rows(texts, self.read(ask.tokens)?)?;
                Ok(said(vec![(CONTEXT, context), (POOLED, rows.pop().ok_or_else(lost)?)]))
            }
            Joined::Alone { .. } => {
                let texts: Vec<String> = texts.iter().map(|t| self.prepared(t)).collect();
                let [context, mask] = sentences()?.masked(&texts, self.read(ask.tokens)?)?;
                Ok(said(vec![(CONTEXT, context), (MASK, mask)]))
            }
        }
    }

    /// One line for printing.
    pub fn describe(&self) -> String {
        let clips = self.0.clips.iter().map(|r| r.clip.describe());
        clips.chain(self.0.t5.iter().map(|s| s.t5.describe())).collect::<Vec<_>>().join(", and ")
    }
}

fn lost() -> Error {
    Error::new(Kind::Internal, "a text encoder without an encoder")
}

fn narrow(clip: &Tensor, width: usize) -> Error {
    let m =
        format!("CLIP's encoders give {} channels, and T5's {width}", clip.dims().last().copied().unwrap_or_default());
    Error::new(Kind::Format, m).hint("are they of one model?")
}
