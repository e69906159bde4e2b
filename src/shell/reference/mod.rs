//! `ld3sh definitions` and `ld3sh reference`: the documentation of all functions as files.
mod definitions;
mod pages;

use super::session::{Session, Settings};
use crate::script::front::Front;
use crate::{Error, Result, files::atomic};
use std::path::{Path, PathBuf};

pub use definitions::definitions;
pub use pages::pages;

fn session() -> Session {
    Session::new(Settings { seed: 0, out: PathBuf::from("out") })
}

/// Writes files into a folder, which is made if need be, and tells how many.
fn write(dir: &Path, files: &[(String, String)], front: &dyn Front) -> Result<()> {
    crate::access::write(dir)?.make_folder().map_err(|e| Error::io(dir, "create folder", e))?;
    for (name, text) in files {
        atomic::write(dir.join(name), text.as_bytes())?;
    }
    front.print(&format!("{} files in {}", files.len(), dir.display()));
    Ok(())
}

/// `ld3sh definitions DIR`: `.d.rhai` files, from which editors complete and document.
///
/// # Errors
/// [`crate::Kind::Io`] if the files cannot be written.
pub fn write_definitions(dir: &Path, front: &dyn Front) -> Result<()> {
    write(dir, &definitions(session().engine()), front)
}

/// `ld3sh reference [--out DIR]`: the reference pages in Markdown.
///
/// # Errors
/// [`crate::Kind::Io`] if the files cannot be written.
pub fn write_reference(dir: &Path, front: &dyn Front) -> Result<()> {
    write(dir, &pages(session().catalogue()), front)
}
