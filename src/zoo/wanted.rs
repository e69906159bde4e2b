//! A file that is wanted: what is known of it, where it comes from and where it goes.
use super::Settings;
use super::table::Entry;
use std::path::PathBuf;

/// One file, of the table or of a folder.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What it is called while it comes.
    pub name: String,
    /// What it is called in messages and records.
    pub file: String,
    /// Where it is published.
    pub address: String,
    /// Where it is, or is to be put.
    pub path: PathBuf,
    /// The licence under which it is published.
    pub licence: String,
    /// Bytes, where known.
    pub size: Option<u64>,
    /// SHA-256 in lower-case hexadecimal, where known.
    pub sha256: Option<String>,
}

impl Wanted {
    /// A file of the table.
    pub fn of(entry: &Entry, settings: &Settings) -> Wanted {
        Wanted {
            name: entry.name.into(),
            file: entry.file.into(),
            address: settings.address(entry),
            path: settings.path(entry),
            licence: entry.licence.into(),
            size: entry.size,
            sha256: entry.sha256.map(str::to_string),
        }
    }

    /// What to do without a download.
    pub fn by_hand(&self) -> String {
        format!("fetch {} yourself and put it at `{}`", self.address, self.path.display())
    }
}
