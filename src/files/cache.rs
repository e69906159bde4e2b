//! The folder for what is costly to make or to fetch.
use crate::{Error, Kind, Result};
use etcetera::BaseStrategy;
use std::path::PathBuf;

/// `LD3SH_CACHE`, else `ld3sh` in the user's cache folder (`XDG_CACHE_HOME`, by default `~/.cache`). It need not exist yet.
///
/// Fails where there is neither that variable nor a home folder.
pub fn folder() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("LD3SH_CACHE").filter(|d| !d.is_empty()) {
        return Ok(dir.into());
    }
    match etcetera::choose_base_strategy() {
        Ok(base) => Ok(base.cache_dir().join("ld3sh")),
        Err(_) => Err(Error::new(Kind::Io, "there is no home folder to keep a cache in")
            .hint("say where: set LD3SH_CACHE to a folder")),
    }
}
