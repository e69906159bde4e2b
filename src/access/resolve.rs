//! Where a path really leads: links and `..` followed as the system does, also where its end does not exist yet.
use std::io::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// The place of `path` without links and dots. With `last`, a link at its end is followed too.
///
/// # Errors
/// A link that leads nowhere, or in circles: what it would make is not known.
pub fn resolve(path: &Path, last: bool) -> Result<PathBuf> {
    let full = std::path::absolute(path)?;
    let mut real = PathBuf::new();
    let mut parts = full.components().peekable();
    while let Some(part) = parts.next() {
        match part {
            Component::CurDir => {}
            // what stands so far has no links: its parent is the one that the system means
            Component::ParentDir => {
                real.pop();
            }
            Component::Normal(name) => {
                let here = real.join(name);
                let link = std::fs::symlink_metadata(&here).is_ok_and(|m| m.file_type().is_symlink());
                real = match link && (last || parts.peek().is_some()) {
                    true => {
                        std::fs::canonicalize(&here).map_err(|e| Error::new(e.kind(), "a link that leads nowhere"))?
                    }
                    false => here,
                };
            }
            root => real.push(root),
        }
    }
    Ok(real)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_dots_lead_where_the_system_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("f"), "").unwrap();
        symlink(root.join("a/b"), root.join("in")).unwrap();
        symlink("../f", root.join("a/up")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let at = |p: &str, last| resolve(&root.join(p), last).map(|p| p.strip_prefix(&root).unwrap().to_path_buf());
        for (path, want) in [
            ("a/./b", "a/b"),
            ("a/../f", "f"),
            // the parent of a link's target, not of the link
            ("in/../new", "a/new"),
            ("in/x/y", "a/b/x/y"),
            ("no/such/../file", "no/file"),
            ("a/up", "f"),
        ] {
            assert_eq!(at(path, true).unwrap(), Path::new(want), "{path}");
        }
        assert_eq!(at("a/up", false).unwrap(), Path::new("a/up"));
        assert!(at("dangling", true).is_err() && at("loop/x", true).is_err());
        assert_eq!(at("dangling", false).unwrap(), Path::new("dangling"));
    }

    /// In folders full of links, whatever is there is found where the system finds it; and what is not there lies in the folder in
    /// which the system would make it.
    #[test]
    fn as_the_system_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        let mut state = 7u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let mut names = ["a", "b", "c", "l0", "l1", "l2", "..", ".", "no", "f"].map(String::from).to_vec();
        names.push(root.display().to_string());
        let mut path = |most: usize| -> PathBuf {
            let n = 1 + below(most);
            let parts: Vec<&str> = (0..n).map(|_| names[below(names.len())].as_str()).collect();
            parts.join("/").into()
        };
        for folder in ["a/b/c", "b/a", "c"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (i, place) in ["", "a", "a/b", "b", "c"].iter().enumerate() {
            std::fs::write(root.join(place).join("f"), "").unwrap();
            for link in 0..3 {
                let to = if (i + link) % 4 == 0 { root.join(path(2)) } else { path(4) };
                symlink(to, root.join(place).join(format!("l{link}"))).unwrap();
            }
        }
        let (mut there, mut made) = (0, 0);
        for _ in 0..20_000 {
            let p = root.join(path(7));
            let ours = resolve(&p, true);
            if let Ok(real) = std::fs::canonicalize(&p) {
                assert_eq!(ours.unwrap(), real, "{}", p.display());
                there += 1;
            } else if let (Some(home), Some(name), Ok(ours)) = (p.parent(), p.file_name(), ours)
                // to the system a file is no folder: `file/.` is nothing
                && !p.as_os_str().as_encoded_bytes().ends_with(b"/.")
                && let Ok(home) = std::fs::canonicalize(home)
            {
                assert_eq!(ours, home.join(name), "{}", p.display());
                made += 1;
            }
        }
        assert!(there > 1000 && made > 1000, "{there} {made}");
    }
}
