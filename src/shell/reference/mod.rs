//! `ld3sh definitions` and `ld3sh reference`: the documentation of all functions as files.
mod definitions;
mod pages;

use super::session::{Session, Settings};
use crate::script::engine::print_line;
use crate::{Error, Result, files::atomic};
use std::path::{Path, PathBuf};

pub use definitions::definitions;
pub use pages::pages;

/// The folder of the reference pages in the repository.
const PAGES: &str = "docs/reference";

fn session() -> Session {
    Session::new(Settings { seed: 0, out: PathBuf::from("out") })
}

/// Writes files into a folder, which is made if need be, and tells how many.
fn write(dir: &Path, files: &[(String, String)]) -> Result<()> {
    crate::access::write(dir)?.make_folder().map_err(|e| Error::io(dir, "create folder", e))?;
    for (name, text) in files {
        atomic::write(dir.join(name), text.as_bytes())?;
    }
    print_line(&format!("{} files in {}", files.len(), dir.display()));
    Ok(())
}

/// `ld3sh definitions DIR`: `.d.rhai` files, from which editors complete and document.
///
/// # Errors
/// Other arguments than one folder; [`crate::Kind::Io`] if the files cannot be written.
pub fn write_definitions(words: &[String]) -> Result<()> {
    match words {
        [dir] if !dir.starts_with('-') => write(Path::new(dir), &definitions(session().engine())),
        _ => Err(Error::value("`ld3sh definitions` needs a folder").hint("`ld3sh definitions .rhai/definitions`")),
    }
}

/// `ld3sh reference [--out DIR]`: the reference pages in Markdown.
///
/// # Errors
/// Other arguments; [`crate::Kind::Io`] if the files cannot be written.
pub fn write_reference(words: &[String]) -> Result<()> {
    let dir = match words {
        [] => PAGES,
        [flag, dir] if flag == "--out" => dir,
        _ => {
            let e = Error::value(format!("`ld3sh reference` does not take `{}`", words.join(" ")));
            return Err(e.hint("`ld3sh reference --out docs/reference`"));
        }
    };
    write(Path::new(dir), &pages(session().catalogue()))
}
