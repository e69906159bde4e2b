//! Checks SentencePiece's compiled maps of characters: a tree in an array, and the texts that its leaves point into. What reads them
//! believes every number.
use crate::{Error, Kind, Result};

/// Fails where a step through the tree could leave it, or a leaf point beside the texts.
pub fn check(map: &[u8]) -> Result<()> {
    let wrong = |what: &str| {
        let m = format!("its map of characters is damaged: {what}");
        Err(Error::new(Kind::Format, m).hint("download the tokenizer again"))
    };
    let Some((head, rest)) = map.split_first_chunk::<4>() else { return wrong("it has no length") };
    let bytes = u32::from_le_bytes(*head) as usize;
    if bytes == 0 || !bytes.is_multiple_of(4) || bytes > rest.len() {
        return wrong("its tree is longer than it, or empty");
    }
    let (tree, texts) = rest.split_at(bytes);
    let Ok(texts) = std::str::from_utf8(texts) else { return wrong("its texts are not UTF-8") };
    let units: Vec<usize> = tree.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect();
    for (i, unit) in units.iter().enumerate().filter(|(_, u)| **u >> 31 == 0) {
        // as the reader goes: from a place by its offset, and from there by a byte
        let to = i ^ ((unit >> 10) << ((unit & (1 << 9)) >> 6));
        if to | 0xff >= units.len() {
            return wrong("a branch of its tree leads out of it");
        }
        let leaf = (unit >> 8) & 1 == 1;
        if leaf && !texts.is_char_boundary(units[to] & ((1 << 31) - 1)) {
            return wrong("a leaf of its tree points beside its texts");
        }
    }
    Ok(())
}
