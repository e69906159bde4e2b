//! `:cd` and `:pwd`.
use super::{Answer, Done, Session, State, nothing};
use crate::{Error, Result};
use std::path::PathBuf;

/// A path as the user wrote it, with `~` for the home folder and quotes taken off.
pub(super) fn path(text: &str) -> PathBuf {
    let text = text.trim();
    let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    match (bare.strip_prefix('~'), etcetera::home_dir()) {
        (Some(""), Ok(home)) => home,
        (Some(rest), Ok(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(bare),
    }
}

pub(super) fn cd(_: &mut Session, state: &mut State, to: &str) -> Done {
    let to = path(if to.is_empty() { "~" } else { to });
    std::env::set_current_dir(&to).map_err(|e| Error::io(&to, "change to", e))?;
    state.front.print(&here()?);
    Ok(Answer::Done)
}

pub(super) fn pwd(_: &mut Session, state: &mut State, rest: &str) -> Done {
    nothing("pwd", rest)?;
    state.front.print(&here()?);
    Ok(Answer::Done)
}

fn here() -> Result<String> {
    let here = std::env::current_dir().map_err(|e| Error::io(".", "find", e))?;
    Ok(here.display().to_string())
}
