//! Data that may still lie in a file: read when they are asked for, and checked against what the file says of them.
use crate::files::pickle::{Fault, Outcome, Shared};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

/// Bytes that are read at a time where not all are wanted at once.
const PIECE: usize = 1 << 20;

/// A file that was opened, as it was then.
struct Opened {
    file: Mutex<File>,
    len: u64,
    changed: Option<SystemTime>,
}

/// An entry of a zip archive.
pub(super) struct Entry {
    pub name: String,
    /// As it lies in the archive.
    pub packed: Data,
    pub len: usize,
    pub crc: u32,
    pub deflated: bool,
    /// What came of reading it for the first time: the content of a packed one; nothing to keep of one that lies there as it is.
    pub seen: OnceLock<Outcome<Option<Shared>>>,
}

#[derive(Clone)]
enum Place {
    Memory(Shared),
    File(Arc<Opened>),
    Entry(Arc<Entry>),
}

/// Bytes in memory, in a file or in an entry of a zip archive; a clone or a part of them is another reference.
#[derive(Clone)]
pub struct Data {
    place: Place,
    range: Range<usize>,
}

impl From<Shared> for Data {
    fn from(bytes: Shared) -> Data {
        let range = 0..bytes.len();
        Data { place: Place::Memory(bytes), range }
    }
}

impl From<Entry> for Data {
    fn from(entry: Entry) -> Data {
        let range = 0..entry.len;
        Data { place: Place::Entry(Arc::new(entry)), range }
    }
}

impl Data {
    /// The content of a regular file. It is read when it is asked for; that it has been changed by then is a fault.
    pub fn file(file: File) -> io::Result<Data> {
        let meta = file.metadata()?;
        let len = usize::try_from(meta.len()).map_err(io::Error::other)?;
        let opened = Opened { file: Mutex::new(file), len: meta.len(), changed: meta.modified().ok() };
        Ok(Data { place: Place::File(Arc::new(opened)), range: 0..len })
    }
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
    /// Where they begin in the file, for faults.
    pub fn start(&self) -> usize {
        match &self.place {
            Place::Memory(bytes) => bytes.start() + self.range.start,
            Place::File(_) => self.range.start,
            Place::Entry(e) => e.packed.start() + if e.deflated { 0 } else { self.range.start },
        }
    }
    /// The part from `start` on, `len` bytes; `None` where that reaches beyond the end.
    pub fn part(&self, start: usize, len: usize) -> Option<Data> {
        let begin = self.range.start.checked_add(start)?;
        let end = begin.checked_add(len)?;
        (end <= self.range.end).then(|| Data { place: self.place.clone(), range: begin..end })
    }
    /// The first `n` bytes, or as many as there are.
    pub fn head(&self, n: usize) -> Outcome<Shared> {
        match self.part(0, n.min(self.len())) {
            Some(part) => part.read(),
            None => Ok(Shared::new([])),
        }
    }
    /// The bytes. Faults where the file was changed or cut off since it was opened, or an entry's checksum does not fit.
    pub fn read(&self) -> Outcome<Shared> {
        match &self.place {
            Place::Memory(bytes) => bytes.part(self.range.start, self.len()).ok_or_else(|| self.fault("no such bytes")),
            Place::File(opened) => opened.read(&self.range).map(Shared::new).map_err(|m| self.fault(m)),
            Place::Entry(e) => e.read(&self.range),
        }
    }
    /// The bytes one after the other, in pieces.
    pub fn reader(&self) -> Box<dyn Read + '_> {
        match &self.place {
            Place::Entry(e) if self.range == (0..e.len) => Box::new(e.reader()),
            _ => Box::new(Pieces { data: self, at: 0, piece: Shared::new([]) }),
        }
    }
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.start(), message)
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {}", self.len(), self.start())
    }
}

impl Opened {
    fn read(&self, range: &Range<usize>) -> Result<Vec<u8>, String> {
        let mut out = vec![];
        out.try_reserve_exact(range.len()).map_err(|_| format!("there is no memory for {} bytes", range.len()))?;
        let mut file = self.file.lock().map_err(|_| "another thread failed while it read the file")?;
        let changed = || "the file was changed after it was opened".to_string();
        file.seek(SeekFrom::Start(range.start as u64)).map_err(|e| e.to_string())?;
        (&mut *file).take(range.len() as u64).read_to_end(&mut out).map_err(|e| e.to_string())?;
        let now = file.metadata().map_err(|e| e.to_string())?;
        match out.len() == range.len() && now.len() == self.len && now.modified().ok() == self.changed {
            true => Ok(out),
            false => Err(changed()),
        }
    }
}

impl Entry {
    fn fault(&self, e: impl std::fmt::Display) -> Fault {
        Fault::new(self.packed.start(), format!("the zip entry `{}`: {e}", self.name))
    }
    fn reader(&self) -> impl Read + '_ {
        let packed = Pieces { data: &self.packed, at: 0, piece: Shared::new([]) };
        let inner: Box<dyn Read> = match self.deflated {
            true => Box::new(flate2::read::DeflateDecoder::new(packed)),
            false => Box::new(packed),
        };
        Checked { inner, crc: crc32fast::Hasher::new(), left: self.len, expected: self.crc }
    }
    /// A part of its content; all of it is checked once.
    fn read(&self, range: &Range<usize>) -> Outcome<Shared> {
        let all = || -> Outcome<Shared> {
            let mut out = vec![];
            out.try_reserve_exact(self.len).map_err(|_| self.fault(format!("no memory for {} bytes", self.len)))?;
            self.reader().read_to_end(&mut out).map_err(|e| self.fault(e))?;
            Ok(Shared::new(out))
        };
        // memory is no place to copy from
        let in_memory = matches!(self.packed.place, Place::Memory(_));
        if !self.deflated && !in_memory && self.seen.get().is_none() && *range == (0..self.len) {
            let all = all()?;
            let _ = self.seen.set(Ok(None));
            return Ok(all);
        }
        let first = || match self.deflated {
            true => all().map(Some),
            false => io::copy(&mut self.reader(), &mut io::sink()).map(|_| None).map_err(|e| self.fault(e)),
        };
        let part = match self.seen.get_or_init(first).clone()? {
            Some(content) => content.part(range.start, range.len()),
            None => self.packed.part(range.start, range.len()).map(|p| p.read()).transpose()?,
        };
        part.ok_or_else(|| self.fault("no such bytes"))
    }
}

/// Data as a stream.
struct Pieces<'a> {
    data: &'a Data,
    at: usize,
    piece: Shared,
}

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let n = PIECE.min(self.data.len() - self.at);
            let Some(part) = self.data.part(self.at, n) else { return Ok(0) };
            self.piece = part.read().map_err(|f| io::Error::other(f.message))?;
            self.at += n;
        }
        let n = to.len().min(self.piece.len());
        to[..n].copy_from_slice(&self.piece[..n]);
        self.piece = self.piece.part(n, self.piece.len() - n).unwrap_or_else(|| Shared::new([]));
        Ok(n)
    }
}

/// The content of an entry: as many bytes as the directory says, with the checksum that it says.
struct Checked<'a> {
    inner: Box<dyn Read + 'a>,
    crc: crc32fast::Hasher,
    left: usize,
    expected: u32,
}

impl Read for Checked<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        // one byte more than is left, to see the end
        let most = to.len().min(self.left.saturating_add(1));
        let n = self.inner.read(&mut to[..most])?;
        if n > self.left {
            return wrong("it is longer than the archive's directory says");
        }
        self.crc.update(&to[..n]);
        self.left -= n;
        match n {
            0 if most == 0 => Ok(0),
            0 if self.left > 0 => wrong("it ends before its length"),
            0 if self.crc.clone().finalize() != self.expected => {
                wrong("its content does not have the checksum (CRC-32)")
            }
            n => Ok(n),
        }
    }
}
