//! The directory of a zip archive whose entries are stored as they are, as PyTorch writes them: for reading in place.
use crate::files::pickle::{Fault, Outcome, Shared};
use std::collections::HashMap;

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where the directory names it.
    at: usize,
    header: usize,
    len: usize,
    stored: bool,
}

/// The entries of an archive by name.
pub struct Archive {
    data: Shared,
    entries: HashMap<String, Entry>,
}

/// The little-endian number of `n` bytes at `at`.
fn number(data: &[u8], at: usize, n: usize) -> Option<usize> {
    let b = data.get(at..at.checked_add(n)?)?;
    usize::try_from(b.iter().rev().fold(0u64, |v, b| v << 8 | *b as u64)).ok()
}

impl Archive {
    /// Reads the directory at the end of the archive.
    pub fn open(data: &Shared) -> Outcome<Archive> {
        let base = data.start();
        let cut = || Fault::new(base + data.len(), "the zip archive ends without its directory: the file is cut off");
        // the end record has 22 bytes and a comment of at most 65535
        let from = data.len().saturating_sub(22 + 0xffff);
        let tail = &data[from..];
        let end = from + tail.windows(4).rposition(|w| w == b"PK\x05\x06").ok_or_else(cut)?;
        let broken = |at: usize| Fault::new(base + at, "the zip archive's directory is damaged");
        let field = |at: usize, n: usize| number(data, at, n).ok_or_else(|| broken(at));
        if number(data, end + 20, 2).is_none_or(|comment| end + 22 + comment > data.len()) {
            return Err(cut());
        }
        let (mut count, mut pos) = (field(end + 10, 2)?, field(end + 16, 4)?);
        let wide = end.checked_sub(20).filter(|l| data.get(*l..*l + 4) == Some(b"PK\x06\x07"));
        if let Some(locator) = wide {
            let record = field(locator + 8, 8)?;
            if data.get(record..record.saturating_add(4)) != Some(b"PK\x06\x06") {
                return Err(broken(locator));
            }
            (count, pos) = (field(record + 32, 8)?, field(record + 48, 8)?);
        }
        let mut entries = HashMap::new();
        for _ in 0..count {
            // each entry takes 46 bytes at least, so a wrong count ends here soon
            if data.get(pos..pos.saturating_add(4)) != Some(b"PK\x01\x02") {
                return Err(broken(pos));
            }
            let (mut packed, mut len, mut header) = (field(pos + 20, 4)?, field(pos + 24, 4)?, field(pos + 42, 4)?);
            let (name_len, extra_len, comment_len) = (field(pos + 28, 2)?, field(pos + 30, 2)?, field(pos + 32, 2)?);
            let name = data.get(pos + 46..pos + 46 + name_len).ok_or_else(|| broken(pos))?;
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
            let plain = field(pos + 8, 2)? & 1 == 0;
            let entry = Entry { at: pos, header, len, stored: field(pos + 10, 2)? == 0 && plain && packed == len };
            if entries.insert(String::from_utf8_lossy(name).into_owned(), entry).is_some() {
                let m = format!("the zip archive has two entries `{}`", String::from_utf8_lossy(name));
                return Err(Fault::new(base + pos, m));
            }
            pos = extra_end + comment_len;
        }
        Ok(Archive { data: data.clone(), entries })
    }

    /// The names of the entries.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The data of an entry; `None` if there is none of that name.
    pub fn get(&self, name: &str) -> Outcome<Option<Shared>> {
        let Some(e) = self.entries.get(name) else { return Ok(None) };
        let fault = |m: String| Fault::new(self.data.start() + e.at, m);
        if !e.stored {
            return Err(fault(format!(
                "the zip entry `{name}` is compressed or encrypted; PyTorch stores entries as they are"
            )));
        }
        let broken = || fault(format!("the zip entry `{name}` of {} bytes is not where the directory says", e.len));
        if self.data.get(e.header..e.header.saturating_add(4)) != Some(b"PK\x03\x04") {
            return Err(broken());
        }
        let n = |at: usize| number(&self.data, e.header + at, 2).ok_or_else(broken);
        let start = e.header + 30 + n(26)? + n(28)?;
        self.data.part(start, e.len).map(Some).ok_or_else(broken)
    }
}
