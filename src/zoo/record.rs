//! The small JSON files beside a published file: what it is, and where an unfinished download came from.
use crate::files::atomic;
use crate::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What is recorded of a file that is here: `NAME.json` beside `NAME`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The file's name.
    pub file: String,
    /// Where it was downloaded from; none where it was put here by hand.
    pub address: Option<String>,
    /// Its bytes.
    pub size: u64,
    /// Of its content, in lower-case hexadecimal.
    pub sha256: String,
    /// When it was last changed, in nanoseconds since 1970, where the file system tells.
    pub changed: Option<u64>,
}

/// Where the bytes of an unfinished download came from: `NAME.part.json` beside `NAME.part`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The address.
    pub address: String,
    /// The whole file's bytes, where the server told.
    pub size: Option<u64>,
    /// The server's strong entity tag.
    pub etag: Option<String>,
    /// When the file was last changed, in the server's words.
    pub modified: Option<String>,
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

fn changed(meta: &Metadata) -> Option<u64> {
    u64::try_from(meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    // one that cannot be read is as good as none: it is made anew
    serde_json::from_str(&atomic::read_text(beside(path)).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    atomic::write(beside(path), (text + "\n").as_bytes())
}

impl Record {
    /// The record of a file as it is now.
    pub fn new(file: &str, address: Option<String>, sha256: String, meta: &Metadata) -> Self {
        Record { file: file.into(), address, size: meta.len(), sha256, changed: changed(meta) }
    }
    /// The record beside `path`.
    pub fn read(path: &Path) -> Option<Self> {
        read(path)
    }
    /// Writes the record beside `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, self)
    }
    /// Whether the file has not been changed since.
    pub fn describes(&self, meta: &Metadata) -> bool {
        self.size == meta.len() && self.changed.is_some() && self.changed == changed(meta)
    }
}

impl Origin {
    /// The origin of the part at `path`.
    pub fn read(path: &Path) -> Option<Self> {
        read(path)
    }
    /// Writes the origin beside `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, self)
    }
    /// Forgets the origin of the part at `path`.
    pub fn forget(path: &Path) {
        // nothing there is what is wanted
        let _ = crate::access::delete(beside(path)).map(|f| f.remove());
    }
    /// What a server compares to tell whether its file is still the same.
    pub fn validator(&self) -> Option<&String> {
        self.etag.as_ref().or(self.modified.as_ref())
    }
}
