//! That nothing goes around the check, and that the tables are whole.
use crate::world::{OTHERS, READERS, WRITERS};
use std::path::Path;

/// No source file opens files by name but those of `access`.
#[test]
fn one_door() {
    const OPENINGS: [&str; 22] = [
        "fs::canonicalize",
        "fs::copy",
        "fs::create_dir",
        "fs::exists",
        "fs::hard_link",
        "fs::metadata",
        "fs::read",
        "fs::remove_",
        "fs::rename",
        "fs::set_permissions",
        "fs::symlink_metadata",
        "fs::write",
        "fs::soft_link",
        "File::open",
        "File::create",
        "File::options",
        "OpenOptions",
        "DirBuilder",
        "tempfile_in(",
        "tempfile::tempfile",
        "NamedTempFile",
        ".read_dir()",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut seen, mut found) = (vec![src.clone()], 0, vec![]);
    while let Some(folder) = folders.pop() {
        for e in std::fs::read_dir(folder).unwrap() {
            let path = e.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !path.starts_with(src.join("access"))
                && path.file_stem().is_some_and(|n| n != "tests")
            {
                seen += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                // tests make their own files
                let code = text.split("#[cfg(test)]").next().unwrap();
                let lines = code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//"));
                found.extend(lines.filter_map(|(i, l)| {
                    let hit = OPENINGS.iter().find(|o| l.contains(**o))?;
                    Some(format!("{}:{}: {hit}", path.strip_prefix(&src).unwrap().display(), i + 1))
                }));
            }
        }
    }
    assert!(seen > 200, "{seen} files were read");
    assert!(found.is_empty(), "these go around `access`:\n{}", found.join("\n"));
}

/// The list of what takes a path is the engine's own: a new function fails here until it stands in one of the tables.
#[test]
fn the_tables_are_whole() {
    use ld3sh::shell::session::{Session, Settings};
    let body = || {
        let session = Session::new(Settings { seed: 0, out: "out".into() });
        let known: Vec<&str> = WRITERS
            .iter()
            .chain(READERS)
            .filter_map(|(n, _)| n.split(' ').next())
            .chain(OTHERS.iter().copied())
            .collect();
        let path = |e: &&ld3sh::shell::catalogue::Entry| {
            e.signatures.iter().any(|s| s.contains("path"))
                || e.options.iter().any(|o| {
                    ["out", "checkpoint"].contains(&o.name.as_str()) || o.doc.contains("file") || o.doc.contains("path")
                })
        };
        let missing: Vec<String> = session
            .catalogue()
            .iter()
            .filter(path)
            .map(|e| e.title())
            .filter(|t| !known.contains(&t.as_str()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
        let titles: Vec<String> = session.catalogue().iter().map(|e| e.title()).collect();
        let listed = |k: &&str| titles.iter().any(|t| t == k);
        let gone: Vec<&str> = known.into_iter().filter(|k| !listed(k)).collect();
        assert!(gone.is_empty(), "{gone:?}");
    };
    std::thread::Builder::new().stack_size(ld3sh::script::engine::STACK).spawn(body).unwrap().join().unwrap();
}
