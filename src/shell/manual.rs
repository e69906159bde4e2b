//! What the command line's grammar tells of itself: help, completions of shells, manual pages.
use super::args::grammar;
use crate::files::atomic;
use crate::script::front::Front;
use crate::{Error, Result};
use clap_complete::Shell;
use clap_mangen::Man;
use std::path::Path;

/// `ld3sh --help`.
pub fn help() -> String {
    grammar().render_help().to_string()
}

/// `ld3sh COMMAND --help`.
pub fn help_of(command: &str) -> String {
    let mut all = grammar();
    all.build();
    all.find_subcommand_mut(command).map(|c| c.render_help().to_string()).unwrap_or_default()
}

/// `ld3sh completions SHELL`.
///
/// # Errors
/// Completions that are no text.
pub fn completions(shell: Shell, front: &dyn Front) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut grammar(), "ld3sh", &mut text);
    front.print(as_text(text)?.trim_end());
    Ok(())
}

/// `ld3sh man [DIR]`: the page of ld3sh itself, or files with those of all commands.
///
/// # Errors
/// [`crate::Kind::Io`] if a file cannot be written.
pub fn man(dir: Option<&Path>, front: &dyn Front) -> Result<()> {
    let page = |command: clap::Command| -> Result<(String, Vec<u8>)> {
        let (page, mut text) = (Man::new(command), Vec::new());
        page.render(&mut text).map_err(|e| Error::io("the manual page", "write", e))?;
        Ok((page.get_filename(), text))
    };
    let mut all = grammar();
    all.build();
    let Some(dir) = dir else {
        front.print(as_text(page(all)?.1)?.trim_end());
        return Ok(());
    };
    crate::access::write(dir)?.make_folder().map_err(|e| Error::io(dir, "create folder", e))?;
    let below: Vec<clap::Command> = all.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect();
    let count = below.len() + 1;
    for command in below.into_iter().chain([all]) {
        let (name, text) = page(command)?;
        atomic::write(dir.join(name), &text)?;
    }
    front.print(&format!("{count} pages in {}", dir.display()));
    Ok(())
}

fn as_text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| Error::new(crate::Kind::Internal, e.to_string()))
}
