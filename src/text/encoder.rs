//! Text encoders with their tokenizers: from texts to the conditions that denoisers take.
use super::tokenizer::{Cut, Tokenizer};
use crate::host::note;
use crate::nets::clip::{self, Reads};
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

/// One encoder with the tokenizer that it was trained with.
pub struct Reader {
    tokenizer: Tokenizer,
    clip: clip::Encoder,
    reads: Reads,
}

/// All encoders that a denoiser reads; cheap to clone.
#[derive(Clone)]
pub struct TextEncoder(Rc<Vec<Reader>>);

/// What may be asked of an encoding beyond what the denoiser reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// Layers at the end that are left out, beyond those that always are.
    pub skip: usize,
    /// A row for each text where the denoiser takes none.
    pub pooled: bool,
}

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
        let known = if self.clip.config().quick { self.tokenizer.ends()[1] } else { 0 };
        self.tokenizer.padding().unwrap_or(known)
    }

    /// As many token numbers as the encoder reads.
    fn filled(&self, text: &str) -> Result<Vec<u32>> {
        let most = self.clip.config().positions;
        let found = self.tokenizer.tokens(text, most)?;
        if let Some(cut) = found.cut {
            note(&told(text, cut, most.saturating_sub(2)));
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

impl TextEncoder {
    /// From the encoders in the order in which the denoiser reads them.
    pub fn new(readers: Vec<Reader>) -> Result<TextEncoder> {
        match readers.is_empty() {
            true => Err(Error::new(Kind::Internal, "a text encoder without an encoder")),
            false => Ok(TextEncoder(Rc::new(readers))),
        }
    }

    /// The encoders.
    pub fn readers(&self) -> &[Reader] {
        &self.0
    }

    /// The token numbers of a text with those at its ends, cut where it is too long, not filled up.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let first = &self.0[0];
        Ok(first.tokenizer.tokens(text, first.clip.config().positions)?.ids)
    }

    /// The token numbers of a text as the encoder gets them, filled up.
    pub fn filled(&self, text: &str) -> Result<Vec<u32>> {
        self.0[0].filled(text)
    }

    /// The conditions that these texts are for a denoiser, by name, with a row for each text: [`CONTEXT`], and [`POOLED`] where the
    /// denoiser takes it or it is asked for.
    ///
    /// What does not fit into an encoder is cut off with a note. Fails where there is no text, and where more layers are left out than
    /// there are.
    pub fn encode(&self, texts: &[String], ask: Ask) -> Result<BTreeMap<String, Tensor>> {
        let (mut contexts, mut last) = (vec![], None);
        for reader in &*self.0 {
            let ids = texts.iter().map(|t| reader.filled(t)).collect::<Result<Vec<_>>>()?;
            let own = reader.reads;
            let reads = Reads { skip: own.skip.saturating_add(ask.skip), pooled: own.pooled || ask.pooled, ..own };
            let clip::Encoded { context, pooled } = reader.clip.encode(&ids, reads)?;
            contexts.push(context);
            last = pooled.or(last);
        }
        let context = Tensor::cat(&contexts, D::Minus1)?;
        let pooled = last.map(|t| (POOLED.to_string(), t));
        Ok([(CONTEXT.to_string(), context)].into_iter().chain(pooled).collect())
    }

    /// One line for printing.
    pub fn describe(&self) -> String {
        self.0.iter().map(|r| r.clip.describe()).collect::<Vec<_>>().join(", and ")
    }
}
