//! The directory of a zip archive, and its entries: read in place, checked against their checksums.
use super::data::{Data, Entry};
use crate::files::pickle::{Fault, Outcome};
use std::collections::HashMap;
use std::sync::OnceLock;

/// An archive that unpacks to more than this and to more than [`RATIO`] times its size is taken for a trap.
pub const SUSPICIOUS: usize = 2 << 30;
/// See [`SUSPICIOUS`].
pub const RATIO: usize = 100;
/// The most bytes of a directory: that of the largest archives that are meant.
const DIRECTORY: usize = 1 << 28;

/// What the directory says of an entry.
struct Listed {
    name: String,
    /// Where the directory names it.
    at: usize,
    header: usize,
    packed: usize,
    len: usize,
    crc: u32,
    method: usize,
    encrypted: bool,
}

/// The entries of an archive, in its order.
pub struct Archive {
    data: Data,
    entries: Vec<Listed>,
    by_name: HashMap<String, usize>,
}

/// The little-endian number of `n` bytes at `at`.
fn number(data: &[u8], at: usize, n: usize) -> Option<usize> {
    let b = data.get(at..at.checked_add(n)?)?;
    usize::try_from(b.iter().rev().fold(0u64, |v, b| v << 8 | *b as u64)).ok()
}

/// Whether these bytes begin a zip archive.
pub fn is_zip(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

impl Archive {
    /// Reads the directory at the end of the archive. Two entries of one name are a fault.
    pub fn open(data: &Data) -> Outcome<Archive> {
        let base = data.start();
        let cut = || Fault::new(base + data.len(), "the zip archive ends without its directory: the file is cut off");
        let broken = |at: usize| Fault::new(base + at, "the zip archive's directory is damaged");
        let part = |at: usize, n: usize| data.part(at, n).ok_or_else(|| broken(at))?.read();
        // the end record has 22 bytes and a comment of at most 65535; before it may stand a locator of 20
        let from = data.len().saturating_sub(22 + 0xffff + 20);
        let tail = part(from, data.len() - from)?;
        let end = tail.windows(4).rposition(|w| w == b"PK\x05\x06").ok_or_else(cut)?;
        let field = |at: usize, n: usize| number(&tail, at, n).ok_or_else(|| broken(from + at));
        if number(&tail, end + 20, 2).is_none_or(|comment| end + 22 + comment > tail.len()) {
            return Err(cut());
        }
        let (mut count, mut size, mut pos) = (field(end + 10, 2)?, field(end + 12, 4)?, field(end + 16, 4)?);
        if field(end + 8, 2)? != count {
            return Err(broken(from + end));
        }
        let wide = end.checked_sub(20).filter(|l| tail.get(*l..*l + 4) == Some(b"PK\x06\x07"));
        if let Some(locator) = wide {
            let at = field(locator + 8, 8)?;
            let record = part(at, 56)?;
            if record.get(..4) != Some(b"PK\x06\x06") {
                return Err(broken(from + locator));
            }
            let field = |i: usize| number(&record, i, 8).ok_or_else(|| broken(at));
            (count, size, pos) = (field(32)?, field(40)?, field(48)?);
        }
        if size > DIRECTORY || pos.checked_add(size).is_none_or(|behind| behind > from + end) {
            return Err(broken(pos));
        }
        let mut archive = Archive { data: data.clone(), entries: vec![], by_name: HashMap::new() };
        archive.list(&part(pos, size)?, count, base + pos)?;
        Ok(archive)
    }

    fn list(&mut self, directory: &[u8], count: usize, base: usize) -> Outcome<()> {
        let broken = |at: usize| Fault::new(base + at, "the zip archive's directory is damaged");
        let field = |at: usize, n: usize| number(directory, at, n).ok_or_else(|| broken(at));
        let mut pos = 0;
        for _ in 0..count {
            // each entry takes 46 bytes at least, so a wrong count ends here soon
            if directory.get(pos..pos + 4) != Some(b"PK\x01\x02") {
                return Err(broken(pos));
            }
            let (mut packed, mut len, mut header) = (field(pos + 20, 4)?, field(pos + 24, 4)?, field(pos + 42, 4)?);
            let (name_len, extra_len, comment_len) = (field(pos + 28, 2)?, field(pos + 30, 2)?, field(pos + 32, 2)?);
            let name = directory.get(pos + 46..pos + 46 + name_len).ok_or_else(|| broken(pos))?;
            // sizes beyond 4 GiB stand in an extra field, those that do not fit above, in this order
            let (mut x, extra_end) = (pos + 46 + name_len, pos + 46 + name_len + extra_len);
            while x + 4 <= extra_end {
                let (kind, n) = (field(x, 2)?, field(x + 2, 2)?);
                if kind == 1 {
                    let mut y = x + 4;
                    for value in [&mut len, &mut packed, &mut header] {
                        if *value == 0xffff_ffff {
                            *value = field(y, 8)?;
                            y += 8;
                        }
                    }
                }
                x += 4 + n;
            }
            let name = String::from_utf8_lossy(name).into_owned();
            if self.by_name.insert(name.clone(), self.entries.len()).is_some() {
                return Err(Fault::new(base + pos, format!("the zip archive has two entries `{name}`")));
            }
            self.entries.push(Listed {
                name,
                at: base + pos,
                header,
                packed,
                len,
                crc: field(pos + 16, 4)? as u32,
                method: field(pos + 10, 2)?,
                encrypted: field(pos + 8, 2)? & 1 == 1,
            });
            pos = extra_end + comment_len;
        }
        // a count that is too small would leave entries out
        if pos == directory.len() { Ok(()) } else { Err(broken(pos)) }
    }

    /// The names of the entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    /// The data of an entry; `None` if there is none of that name.
    pub fn get(&self, name: &str) -> Outcome<Option<Data>> {
        let Some(e) = self.by_name.get(name).and_then(|i| self.entries.get(*i)) else { return Ok(None) };
        let fault = |m: String| Fault::new(e.at, m);
        let deflated = match (e.method, e.encrypted) {
            (0, false) if e.packed == e.len => false,
            (8, false) => true,
            _ => {
                return Err(fault(format!(
                    "the zip entry `{name}` is encrypted or compressed in a way that is not known"
                )));
            }
        };
        if e.len > SUSPICIOUS.max(self.data.len().saturating_mul(RATIO)) {
            return Err(fault(format!(
                "the zip entry `{name}` unpacks to {} bytes, over {RATIO} times the file",
                e.len
            )));
        }
        let broken = || fault(format!("the zip entry `{name}` of {} bytes is not where the directory says", e.len));
        let local = self.data.part(e.header, 30).ok_or_else(broken)?.read()?;
        let n = |at: usize| number(&local, at, 2).ok_or_else(broken);
        let (name_len, extra_len) = (n(26)?, n(28)?);
        let written = self.data.part(e.header + 30, name_len).ok_or_else(broken)?.read()?;
        if !local.starts_with(b"PK\x03\x04") || String::from_utf8_lossy(&written) != e.name {
            return Err(broken());
        }
        let packed = self.data.part(e.header + 30 + name_len + extra_len, e.packed).ok_or_else(broken)?;
        let entry = Entry { name: e.name.clone(), packed, len: e.len, crc: e.crc, deflated, seen: OnceLock::new() };
        Ok(Some(entry.into()))
    }
}
