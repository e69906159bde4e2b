//! Rhai functions that find and read files: `glob`, `read_text`, `csv::load`.
use super::data::CSV_LOAD;
use crate::access;
use crate::files::atomic;
use crate::host::check_cancelled;
use crate::script::error::RhaiResult;
use crate::{Error, Kind, Result};
use glob::{MatchOptions, Pattern};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, ImmutableString, Map};
use std::path::{Path, PathBuf};

/// The most paths that a pattern may find.
const MOST: usize = 10_000_000;
/// Folders within folders that `**` goes into.
const DEPTH: usize = 64;
/// `*` leaves hidden names alone, as a shell's does.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Adds this area's functions to `engine`.
pub(super) fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(api).into());
}

/// The paths that match, sorted.
fn find(pattern: &str) -> Result<Vec<PathBuf>> {
    // a pattern may name what a script may not see as a path may
    access::read(pattern)?;
    let parts: Vec<&str> = pattern.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let start = if pattern.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() };
    let mut found = vec![];
    walk(&start, &parts, DEPTH, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// The names in a folder, those that can be read as text; none where it cannot be listed, as a shell has it.
fn names(dir: &Path) -> Result<Vec<String>> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let source = access::read(dir)?;
    let Ok(entries) = source.list() else { return Ok(vec![]) };
    Ok(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
}

fn walk(dir: &Path, parts: &[&str], depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    check_cancelled()?;
    let Some((part, rest)) = parts.split_first() else {
        found.push(dir.to_path_buf());
        return match found.len() > MOST {
            true => Err(Error::value(format!("glob: more than {MOST} paths match"))),
            false => Ok(()),
        };
    };
    if *part == "**" {
        walk(dir, rest, depth, found)?;
        if depth == 0 {
            return Ok(());
        }
        for name in names(dir)?.iter().filter(|n| !n.starts_with('.')) {
            let inner = dir.join(name);
            // a link may lead back to where it stands
            if inner.is_dir() && !inner.is_symlink() {
                walk(&inner, parts, depth - 1, found)?;
            }
        }
        return Ok(());
    }
    if !part.contains(['*', '?', '[']) {
        let next = dir.join(part);
        // whether a folder on the way is there, its list tells
        return match rest.is_empty() && access::read(&next)?.meta().is_err() {
            true => Ok(()),
            false => walk(&next, rest, depth, found),
        };
    }
    let bad = |e: glob::PatternError| Error::value(format!("glob: `{part}` is no pattern: {}", e.msg));
    let pattern = Pattern::new(part).map_err(bad)?;
    for name in names(dir)?.iter().filter(|n| pattern.matches_with(n, MATCH)) {
        let next = dir.join(name);
        if rest.is_empty() || next.is_dir() {
            walk(&next, rest, depth, found)?;
        }
    }
    Ok(())
}

/// A cell of a CSV file: an integer, a number, or text.
fn cell(text: &str) -> Dynamic {
    match (text.parse::<INT>(), text.parse::<FLOAT>()) {
        (Ok(i), _) if text == i.to_string() => Dynamic::from_int(i),
        (_, Ok(x)) => Dynamic::from_float(x),
        _ => text.to_string().into(),
    }
}

/// The rows of a CSV file, and its titles.
pub(super) fn load_csv(path: &str, options: Map) -> RhaiResult<Map> {
    let o = CSV_LOAD.read(options)?;
    let (header, separator) = (o.flag("header"), o.text("separator"));
    let [separator] = separator.as_bytes() else {
        return Err(Error::value(format!("csv::load: separator must be one ASCII character, not {separator:?}")).into());
    };
    let text = atomic::read_text(path)?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(header)
        .delimiter(*separator)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let bad = |e: csv::Error| {
        let line = e.position().map(|p| format!(":{}", p.line())).unwrap_or_default();
        let why = match e.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} cells where the first line has {expected_len}")
            }
            _ => e.to_string(),
        };
        Error::new(Kind::Format, format!("{path}{line}: {why}"))
    };
    let titles: Array = match header {
        true => reader.headers().map_err(bad)?.iter().map(|t| t.to_string().into()).collect(),
        false => vec![],
    };
    let mut rows: Array = vec![];
    for record in reader.records() {
        check_cancelled()?;
        rows.push(record.map_err(bad)?.iter().map(cell).collect::<Array>().into());
    }
    Ok(Map::from([("header".into(), titles.into()), ("rows".into(), rows.into())]))
}

#[export_module]
mod api {
    /// The paths that match a pattern, sorted: `*` and `?` within a name, `[a-z]`, and `**` for any folders. Hidden names match only where
    /// the pattern writes the dot.
    ///
    /// Example: `save(out("a1.npy"), zeros([1])); save(out("a2.npy"), zeros([1])); glob(out("a?.npy")).len()` is 2
    #[rhai_fn(return_raw)]
    pub fn glob(pattern: &str) -> RhaiResult<Array> {
        Ok(find(pattern)?.into_iter().map(|p| p.display().to_string().into()).collect())
    }
    /// The text in a file, UTF-8.
    ///
    /// Errors: kind `io` where it cannot be read, `format` where it is no text.
    ///
    /// Example: `csv::save(out("t.csv"), [["a", 1]]); read_text(out("t.csv"))` is "a,1\n"
    #[rhai_fn(return_raw)]
    pub fn read_text(path: &str) -> RhaiResult<ImmutableString> {
        Ok(atomic::read_text(path)?.into())
    }
}
