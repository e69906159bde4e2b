//! The walks of CONTRIBUTING.md to the letter: their code blocks are applied to a copy of the repository.
//!
//! A block that begins in a paragraph with "`PATH`, a new file:" becomes that file. Each `diff` block changes the file that was named last:
//! its lines with a blank or a minus stand in the file once, one after the other; plus lines are put in where they stand.
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What a block of a walk does.
struct Change {
    file: String,
    /// The whole text of a new file, or the lines of a diff.
    text: String,
    new: bool,
}

/// The changes of the walk below a heading.
fn walk(heading: &str) -> Vec<Change> {
    let page = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let part = page.split("\n## ").find(|p| p.starts_with(heading)).unwrap_or_else(|| panic!("no part `{heading}`"));
    let (mut changes, mut file, mut new, mut block): (Vec<Change>, String, bool, Option<(String, bool)>) =
        (vec![], String::new(), false, None);
    for line in part.lines() {
        let line = line.strip_prefix("   ").unwrap_or(line);
        match (&mut block, line.strip_prefix("```")) {
            (Some(_), Some("")) => {
                if let Some((text, diff)) = block.take() {
                    assert!(!file.is_empty() && (diff || new), "a block of no file:\n{text}");
                    changes.push(Change { file: file.clone(), text, new: !diff });
                }
            }
            (Some((text, _)), _) => *text += &format!("{line}\n"),
            (None, Some(kind)) => block = Some((String::new(), kind == "diff")),
            (None, None) => {
                let named = line.split('`').skip(1).step_by(2).find(|w| w.starts_with("src/") && w.ends_with(".rs"));
                if let Some(name) = named {
                    (file, new) = (name.to_string(), line.ends_with("a new file:"));
                }
            }
        }
    }
    assert!(changes.len() >= 2, "{heading}: {} changes", changes.len());
    changes
}

/// The text with a diff applied.
fn patched(text: &str, diff: &str, what: &str) -> String {
    let of = |marks: &[char]| -> String {
        let kept = diff.lines().filter(|l| l.starts_with(marks));
        kept.map(|l| format!("{}\n", &l[1..])).collect()
    };
    let (before, after) = (of(&[' ', '-']), of(&[' ', '+']));
    assert_eq!(text.matches(&before).count(), 1, "{what}: these lines should stand in the file once:\n{before}");
    text.replacen(&before, &after, 1)
}

/// Applies a walk in `dir`, which looks like the repository.
fn apply(heading: &str, dir: &Path) {
    for change in walk(heading) {
        let path = dir.join(&change.file);
        if change.new {
            assert!(!path.exists(), "{} is there already", change.file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, change.text).unwrap();
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, patched(&text, &change.text, &change.file)).unwrap();
        }
    }
}

/// A copy of what a clone has.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git");
    for name in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|n| !n.is_empty()) {
        let (from, to) = (root().join(name), dir.path().join(name));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        if from.is_file() {
            std::fs::copy(from, to).unwrap();
        }
    }
    dir
}

const WALKS: [&str; 3] = ["Add a solver", "Add a network family", "Add a metric"];

/// The lines that the walks change are there.
#[test]
fn the_walks_fit_the_sources() {
    for heading in WALKS {
        let dir = tempfile::tempdir().unwrap();
        for change in walk(heading) {
            let to = dir.path().join(&change.file);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            if !change.new && !to.exists() {
                std::fs::copy(root().join(&change.file), to).unwrap();
            }
        }
        apply(heading, dir.path());
    }
}

/// All walks at once, with the commands that they name: the reference is written, and the tests over all solvers and examples pass.
#[test]
#[ignore = "builds ld3sh once more: minutes"]
fn the_walks_work() {
    let dir = copy();
    WALKS.iter().for_each(|heading| apply(heading, dir.path()));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let cargo = |args: &[&str]| {
        let out = Command::new("cargo").args(args).current_dir(dir.path()).env("CARGO_TARGET_DIR", &target).output();
        let out = out.expect("cargo");
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "cargo {}\n{text}", args.join(" "));
    };
    let fmt = Command::new("cargo").args(["fmt", "--check"]).current_dir(dir.path()).output().expect("cargo fmt");
    assert!(fmt.status.success(), "{}", String::from_utf8_lossy(&fmt.stdout));
    cargo(&["run", "--release", "--", "reference"]);
    for (page, words) in [("solver.md", "ab2"), ("metric.md", "largest")] {
        let text = std::fs::read_to_string(dir.path().join("docs/reference").join(page)).unwrap();
        assert!(text.contains(words), "{page}");
    }
    cargo(&["test", "--release", "--test", "sampling", "--test", "reference"]);
}
