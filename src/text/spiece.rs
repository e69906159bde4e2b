//! Reads SentencePiece's model files, which are protocol buffers: pieces with scores, and the steps before them.
use crate::{Error, Kind, Result};

/// A piece of texts.
pub struct Piece {
    /// Its letters, with `▁` for a space.
    pub text: String,
    /// The logarithm of how likely it is.
    pub score: f64,
    /// Whether it is none that texts are made of.
    pub special: bool,
}

/// What a model file holds.
pub struct Model {
    /// The pieces in the order of their numbers.
    pub pieces: Vec<Piece>,
    /// The number of what no piece fits.
    pub unknown: usize,
    /// Whether that is told byte by byte.
    pub bytes: bool,
    /// The compiled map of characters; empty where there is none.
    pub map: Vec<u8>,
    /// Whether a space is put before every text.
    pub prefix: bool,
}

/// A field's value.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Single(f32),
    Other,
}

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

fn damaged(what: &str) -> Error {
    Error::new(Kind::Format, format!("it is no whole model of SentencePiece: {what}"))
        .hint("download the tokenizer again")
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut n = 0u64;
        for shift in (0..70).step_by(7) {
            let Some((byte, rest)) = self.0.split_first() else { return Err(damaged("it ends within a number")) };
            self.0 = rest;
            n |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(damaged("a number is too long"))
    }
    fn bytes(&mut self, n: u64) -> Result<&'a [u8]> {
        let split = usize::try_from(n).ok().and_then(|n| self.0.split_at_checked(n));
        let (own, rest) = split.ok_or_else(|| damaged("it ends within a field"))?;
        self.0 = rest;
        Ok(own)
    }
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                self.bytes(8)?;
                Value::Other
            }
            2 => {
                let n = self.varint()?;
                Value::Bytes(self.bytes(n)?)
            }
            5 => {
                let own = self.bytes(4)?;
                Value::Single(f32::from_le_bytes([own[0], own[1], own[2], own[3]]))
            }
            _ => return Err(damaged("it has a field of no kind")),
        };
        Ok(Some((tag >> 3, value)))
    }
}

/// The kinds of pieces that texts are made of.
const NORMAL: u64 = 1;
const USER: u64 = 4;
const BYTE: u64 = 6;
/// The kind of piece for what no piece fits.
const UNKNOWN: u64 = 2;

impl Model {
    /// From the bytes of a file.
    ///
    /// Fails where it is cut off, holds no pieces, or is a model of another kind than Unigram.
    pub fn read(bytes: &[u8]) -> Result<Model> {
        let mut model = Model { pieces: vec![], unknown: 0, bytes: false, map: vec![], prefix: true };
        let mut all = Fields(bytes);
        let (mut told, mut marked) = (None, None);
        while let Some((field, value)) = all.next()? {
            match (field, value) {
                (1, Value::Bytes(b)) => {
                    let (piece, kind) = piece(b)?;
                    if kind == UNKNOWN {
                        marked = marked.or(Some(model.pieces.len()));
                    }
                    model.pieces.push(piece);
                }
                (2, Value::Bytes(b)) => told = model.trainer(b)?.or(told),
                (3, Value::Bytes(b)) => model.normalizer(b)?,
                _ => {}
            }
        }
        let unknown = marked.or(told).filter(|n| *n < model.pieces.len());
        model.unknown = unknown.ok_or_else(|| damaged("it has no piece for what is unknown"))?;
        Ok(model)
    }

    /// What the trainer says; the number of what is unknown, where it does.
    fn trainer(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let (mut all, mut unknown) = (Fields(bytes), None);
        while let Some((field, value)) = all.next()? {
            match (field, value) {
                (3, Value::Number(1)) => {}
                (3, Value::Number(_)) => {
                    let m = "it is a model of byte pairs, words or letters; T5's is of Unigram";
                    return Err(
                        Error::new(Kind::Format, m).hint("give the tokenizer that was published with the text encoder")
                    );
                }
                (35, Value::Number(n)) => self.bytes = n != 0,
                (40, Value::Number(n)) => unknown = usize::try_from(n).ok(),
                _ => {}
            }
        }
        Ok(unknown)
    }

    fn normalizer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut all = Fields(bytes);
        while let Some((field, value)) = all.next()? {
            match (field, value) {
                (2, Value::Bytes(map)) => self.map = map.to_vec(),
                (3, Value::Number(n)) => self.prefix = n != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn piece(bytes: &[u8]) -> Result<(Piece, u64)> {
    let (mut all, mut kind) = (Fields(bytes), NORMAL);
    let mut piece = Piece { text: String::new(), score: 0.0, special: false };
    while let Some((field, value)) = all.next()? {
        match (field, value) {
            (1, Value::Bytes(b)) => {
                piece.text = String::from_utf8(b.to_vec()).map_err(|_| damaged("a piece is not UTF-8"))?;
            }
            (2, Value::Single(score)) if score.is_finite() => piece.score = f64::from(score),
            (2, _) => return Err(damaged("a score is no number")),
            (3, Value::Number(n)) => kind = n,
            _ => {}
        }
    }
    piece.special = ![NORMAL, USER, BYTE].contains(&kind);
    Ok((piece, kind))
}
