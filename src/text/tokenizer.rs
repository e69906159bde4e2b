//! CLIP's tokenizer: NFC, one space for each run of white space, lower case letter by letter, then merges of bytes within words. The
//! steps are those of Hugging Face's library, and so are its answers where others' differ: quotes, ligatures and HTML stay as they are.
use super::vocabulary::{END_OF_WORD, ENDS, Vocabulary};
use crate::tensor::{aside, memory};
use crate::{Error, Kind, Result};
use std::sync::{Arc, LazyLock};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{self, Lowercase, NFC, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// What is a word: an end, a contraction, letters, a digit, or signs.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// The longest text in bytes; an encoder reads a few hundred.
const LONGEST: usize = 4 << 20;
/// Memory for each byte of it while it is taken apart: where each came from is kept at every step.
const EACH: usize = 128;
/// Texts from here on are worth a thread of their own, so that Ctrl-C ends them.
const LONG: usize = 1 << 14;

/// Makes tokens of texts; cheap to clone.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    steps: tokenizers::Tokenizer,
    first: Option<u32>,
    last: u32,
    padding: Option<u32>,
    size: usize,
}

/// A text as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// The token before a text where there is one, its own, and the one behind it.
    pub ids: Vec<u32>,
    /// What did not fit.
    pub cut: Option<Cut>,
}

/// The end of a text for which there was no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// How many tokens it has.
    pub tokens: usize,
    /// The byte of the text at which it begins.
    pub at: usize,
}

impl Tokenizer {
    /// From a vocabulary.
    pub fn new(vocabulary: Vocabulary) -> Result<Tokenizer> {
        let (size, padding) = (vocabulary.size(), vocabulary.padding);
        let end = |t: &str| vocabulary.ids.get(t).copied();
        let (Some(first), Some(last)) = (end(ENDS[0]), end(ENDS[1])) else {
            return Err(Error::new(Kind::Internal, "a vocabulary without ends"));
        };
        let steps = steps(vocabulary).map_err(internal)?;
        Ok(Tokenizer(Arc::new(Inner { steps, first: Some(first), last, padding, size })))
    }

    /// From steps of another kind: no token before a text, one behind it, what texts are filled up with, and how many there are.
    pub(super) fn of(steps: tokenizers::Tokenizer, last: u32, padding: u32, size: usize) -> Tokenizer {
        Tokenizer(Arc::new(Inner { steps, first: None, last, padding: Some(padding), size }))
    }

    /// That of OpenAI's and OpenCLIP's encoders.
    pub fn shipped() -> Result<Tokenizer> {
        static SHIPPED: LazyLock<Result<Tokenizer>> = LazyLock::new(|| Vocabulary::shipped().and_then(Tokenizer::new));
        SHIPPED.as_ref().map(Tokenizer::clone).map_err(|e| Error::new(e.kind(), e.message().to_string()))
    }

    /// The tokens of a text, at most `most` with those at its ends, which are always there.
    ///
    /// Fails where the text is longer than any that is meant.
    pub fn tokens(&self, text: &str, most: usize) -> Result<Tokens> {
        if text.len() > LONGEST {
            let m = format!("a text may have at most {} MiB, got {} bytes", LONGEST >> 20, text.len());
            return Err(Error::value(m).hint("is it the text itself, and not what a file holds?"));
        }
        memory::room("the tokens of a text", text.len() * EACH)?;
        if text.len() < LONG {
            return self.0.tokens(text, most);
        }
        let (own, text) = (self.0.clone(), text.to_string());
        aside::run(usize::MAX, move || own.tokens(&text, most))
    }

    /// The token before a text, where there is one.
    pub fn first(&self) -> Option<u32> {
        self.0.first
    }

    /// The token behind a text.
    pub fn last(&self) -> u32 {
        self.0.last
    }

    /// How many of the tokens that an encoder reads are a text's own.
    pub fn room(&self, most: usize) -> usize {
        self.0.room(most)
    }

    /// The token that texts are filled up with, where its files say which.
    pub fn padding(&self) -> Option<u32> {
        self.0.padding
    }

    /// How many rows an embedding for it must have.
    pub fn size(&self) -> usize {
        self.0.size
    }
}

impl Inner {
    fn room(&self, most: usize) -> usize {
        most.saturating_sub(1 + usize::from(self.first.is_some()))
    }
    fn tokens(&self, text: &str, most: usize) -> Result<Tokens> {
        let found = self.steps.encode(text, false).map_err(internal)?;
        let (own, room) = (found.get_ids(), self.room(most));
        let kept = &own[..own.len().min(room)];
        let ids = self.first.iter().chain(kept).chain([&self.last]).copied().collect();
        let at = found.get_offsets().get(room).map(|(at, _)| *at);
        Ok(Tokens { ids, cut: at.map(|at| Cut { tokens: own.len() - room, at }) })
    }
}

fn steps(Vocabulary { ids, merges, .. }: Vocabulary) -> tokenizers::Result<tokenizers::Tokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(ids.into_iter().collect::<Vocab>(), merges)
        .end_of_word_suffix(END_OF_WORD.into())
        .build()?;
    let mut steps = tokenizers::Tokenizer::new(model);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    steps.with_normalizer(Some(normalizers::Sequence::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    // with its own cut into words, which leaves alone all of these but an end in capitals
    let bytes = ByteLevel::new(false, true, true);
    steps.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
    steps.add_special_tokens(ENDS.map(|t| AddedToken::from(t, true)))?;
    Ok(steps)
}

fn internal(e: tokenizers::Error) -> Error {
    Error::new(Kind::Internal, format!("the tokenizer failed: {e}"))
}
