//! Published files by name: where they are on this machine, and how they get here.
//!
//! A file lies in `models/` of the cache folder ([`crate::files::cache::folder`]) under the name that it is published under, and may be
//! put there by hand. Beside it `NAME.json` records its size and SHA-256; a file that was changed later is told from it.
mod fetch;
mod folders;
mod http;
mod hub;
mod licence;
mod record;
mod table;
mod wanted;

pub use folders::{FOLDERS, Folder, folder, locate_folder, locate_folder_with, state_of_folder};
pub use licence::{accept, accepted};
pub use table::{ENTRIES, Entry, Role};
use wanted::Wanted;

use crate::host::Host;
use crate::{Error, Kind, Result, access};
use record::Record;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where files are kept and fetched, and how patiently.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder with the files.
    pub folder: PathBuf,
    /// An address in whose folder all files lie side by side, instead of their public addresses.
    pub mirror: Option<String>,
    /// Fetch nothing.
    pub offline: bool,
    /// How often to try without getting any further.
    pub attempts: u32,
    /// The wait before the second attempt; doubled before each further one.
    pub backoff: Duration,
    /// How long to wait for a connection, an answer or more bytes.
    pub patience: Duration,
}

impl Settings {
    /// `LD3SH_CACHE`, `LD3SH_MIRROR` (an address) and `LD3SH_OFFLINE` (anything but empty and `0`: nothing is fetched).
    ///
    /// Fails where there is no cache folder.
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        Ok(Settings {
            folder: crate::files::cache::folder()?.join("models"),
            mirror: var("LD3SH_MIRROR"),
            offline: access::policy::offline() || var("LD3SH_OFFLINE").is_some_and(|v| v != "0"),
            attempts: 5,
            backoff: Duration::from_millis(500),
            patience: Duration::from_secs(30),
        })
    }
    /// Where the file is, or is to be put.
    pub fn path(&self, entry: &Entry) -> PathBuf {
        self.folder.join(entry.file)
    }
    /// The address that the file is fetched from.
    pub fn address(&self, entry: &Entry) -> String {
        match &self.mirror {
            Some(m) => format!("{}/{}", m.trim_end_matches('/'), entry.file),
            None => entry.address(),
        }
    }
}

/// What is there of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All of it, so many bytes.
    Here(u64),
    /// The first so many bytes, of an interrupted download.
    Part(u64),
    /// Nothing.
    Absent,
}

/// The file of that name: `edm-ffhq-64x64-uncond-vp`, with or without its extension, or the name of the file itself.
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES
        .iter()
        .find(|e| e.name == name || e.file == name || e.file.rsplit_once('.').is_some_and(|(stem, _)| stem == name))
}

/// As [`find`]; an unknown name is an error with the nearest known one.
pub fn named(name: &str) -> Result<&'static Entry> {
    find(name).ok_or_else(|| Error::unknown("published file", name, ENTRIES.iter().map(|e| e.name)))
}

/// The path of a published file on this machine; downloads it first where it is not there.
///
/// The download shows its progress, goes on where an earlier one was interrupted, stops on Ctrl-C, and waits for another
/// process that fetches the same file. Errors (kind `io`, or `format` for a wrong length or checksum) say what to
/// fetch from where and where to put it.
pub fn locate(name: &str, host: &dyn Host) -> Result<PathBuf> {
    locate_with(named(name)?, host, &Settings::from_env()?)
}

/// As [`locate`], with settings of one's own.
pub fn locate_with(entry: &Entry, host: &dyn Host, settings: &Settings) -> Result<PathBuf> {
    let path = settings.path(entry);
    let _own = access::policy::own();
    if !path.exists() {
        let wanted = Wanted::of(entry, settings);
        if settings.offline {
            return Err(absent(entry.file).hint(wanted.by_hand()));
        }
        if fetch::fetch(&wanted, host, settings)? {
            return Ok(path);
        }
    }
    verify(&Wanted::of(entry, settings), false)?;
    Ok(path)
}

/// The error for what is not here and may not be fetched.
fn absent(name: &str) -> Error {
    let why = if access::policy::offline() { "`--offline` was given" } else { "LD3SH_OFFLINE is set" };
    Error::new(Kind::Io, format!("`{name}` is not on this machine, and {why}"))
}

/// What is there of a file, without looking into it.
pub fn state(entry: &Entry, settings: &Settings) -> State {
    let path = settings.path(entry);
    let len = |p: &Path| crate::access::read(p).ok()?.meta().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
    match (len(&path), len(&fetch::part(&path)).filter(|n| *n > 0)) {
        (Some(n), _) => State::Here(n),
        (None, Some(n)) => State::Part(n),
        (None, None) => State::Absent,
    }
}

/// Reads the whole file and compares it with its SHA-256: the published one where that is known, else the one recorded when
/// the file came. Returns the SHA-256.
pub fn check(entry: &Entry, settings: &Settings) -> Result<String> {
    let path = settings.path(entry);
    let _own = access::policy::own();
    let wanted = Wanted::of(entry, settings);
    crate::files::atomic::existing(&path).map_err(|e| e.hint(wanted.by_hand()))?;
    verify(&wanted, true)
}

/// Compares a file with what is known of it, and records what was not. Its content is read only where it may have
/// changed since it was last read, or if `thorough`.
fn verify(wanted: &Wanted, thorough: bool) -> Result<String> {
    let path = &*wanted.path;
    let meta = crate::files::atomic::existing(path)?;
    let recorded = Record::read(path);
    let wrong = |what: String| {
        let e = Error::new(Kind::Format, format!("`{}` is not the published file: {what}", path.display()));
        e.hint("delete it: it is then downloaded again, or can be put there anew")
    };
    if let Some(size) = wanted.size.filter(|s| *s != meta.len()) {
        return Err(wrong(format!("it has {} bytes, expected {size}", meta.len())));
    }
    match &recorded {
        Some(r) if !thorough && r.describes(&meta) => return Ok(r.sha256.clone()),
        _ => {}
    }
    let sha256 = crate::files::hash::sha256_file(path)?;
    let expected = wanted.sha256.clone().or_else(|| recorded.as_ref().map(|r| r.sha256.clone()));
    if let Some(e) = expected.filter(|e| *e != sha256) {
        let known = if wanted.sha256.is_some() { "the published file has" } else { "when it came it had" };
        return Err(wrong(format!("its SHA-256 is {sha256}, {known} {e}")));
    }
    let address = recorded.and_then(|r| r.address);
    // a shared folder may be read-only: the file is then read again next time
    let _ = Record::new(&wanted.file, address, sha256.clone(), &meta).write(path);
    Ok(sha256)
}
