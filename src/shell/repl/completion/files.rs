//! Completion of paths, and of the modules that `import` finds.
use super::Candidate;
use crate::access::clean;
use crate::script::modules::STDLIB;
use std::path::{Path, PathBuf};

/// More files of one folder than this are not listed.
const MOST: usize = 500;

/// `~/` as the home folder.
fn expanded(folder: &str, current: &Path) -> PathBuf {
    match folder.strip_prefix("~/") {
        Some(rest) => etcetera::home_dir().map_or_else(|_| current.join(folder), |h| h.join(rest)),
        None => current.join(folder),
    }
}

/// The files for a path that begins at byte `start`: where its last part begins, and what may stand there.
pub fn paths(current: &Path, text: &str, start: usize) -> (usize, Vec<Candidate>) {
    let typed = &text[start..];
    let split = typed.rfind('/').map_or(0, |i| i + 1);
    let (folder, prefix) = typed.split_at(split);
    let mut found = entries(&expanded(folder, current), prefix);
    found.truncate(MOST);
    (start + split, found.into_iter().map(|(name, doc)| Candidate::new(name, "", doc)).collect())
}

/// The files of a folder that begin with `prefix`, folders with a `/`; hidden ones only where a dot was typed.
fn entries(folder: &Path, prefix: &str) -> Vec<(String, String)> {
    let Ok(Ok(all)) = crate::access::read(folder).map(|f| f.list()) else { return vec![] };
    let one = |e: std::io::Result<std::fs::DirEntry>| {
        let e = e.ok()?;
        // a name with control characters is not offered: the list would show it as it is
        let name = e.file_name().into_string().ok().filter(|n| clean(n) == n.as_str())?;
        let shown = name.starts_with(prefix) && (prefix.starts_with('.') || !name.starts_with('.'));
        // follows links
        let is_folder = shown && e.path().is_dir();
        shown.then(|| (if is_folder { format!("{name}/") } else { name }, String::new()))
    };
    let mut found: Vec<(String, String)> = all.filter_map(one).collect();
    found.sort();
    found
}

/// The modules for an `import "` that begins at byte `start`.
pub fn modules(current: &Path, text: &str, start: usize) -> (usize, Vec<Candidate>) {
    let typed = &text[start..];
    let split = typed.rfind('/').map_or(0, |i| i + 1);
    let (folder, prefix) = typed.split_at(split);
    let mut found: Vec<Candidate> = vec![];
    if folder.is_empty() {
        let built_in = STDLIB.iter().filter(|(n, _)| n.starts_with(prefix));
        let summary =
            |text: &str| text.lines().next().unwrap_or_default().trim_start_matches(['/', '!', ' ']).to_string();
        found.extend(built_in.map(|(n, text)| Candidate::new(*n, "", summary(text))));
    }
    let mut folders = vec![current.to_path_buf()];
    if let Some(path) = std::env::var_os("LD3SH_PATH") {
        folders.extend(std::env::split_paths(&path).filter(|p| !p.as_os_str().is_empty()));
    }
    for f in folders {
        for (name, _) in entries(&f.join(folder), prefix) {
            match name.strip_suffix(".rhai") {
                Some(module) => found.push(Candidate::new(module, "", "")),
                None if name.ends_with('/') => found.push(Candidate::new(name, "", "")),
                None => {}
            }
        }
    }
    (start + split, found)
}
