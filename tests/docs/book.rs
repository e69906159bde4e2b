//! Every code block of README.md and docs/, every script in scripts/ and every example runs.
//!
//! A `rhai` block is run as a script. In a `sh` block each `ld3sh …` or `cargo run --release -- …` line is run; what follows
//! `# small:` in the line above it is added, so that large jobs run in a small mode. A `console` block is a session at the prompt, which tests/tour.rs types. Other
//! blocks are output.
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A place to run in that looks like the repository to relative paths.
fn workplace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["scripts", "examples", "models", "stdlib", "tests"] {
        std::os::unix::fs::symlink(root().join(name), dir.path().join(name)).expect("a link");
    }
    dir
}

fn run(dir: &Path, args: &[String], what: &str) {
    let out = Command::new(env!("CARGO_BIN_EXE_ld3sh"))
        .args(args)
        .current_dir(dir)
        .env("LD3SH_CACHE", dir.join("cache"))
        .output()
        .expect("ld3sh starts");
    assert!(
        out.status.success(),
        "{what}: ld3sh {} failed with {}\n{}{}",
        args.join(" "),
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Splits as a shell does, as far as the docs need: blanks, and quotes that keep blanks.
fn words(line: &str) -> Vec<String> {
    let (mut out, mut word, mut quote) = (vec![], String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') if word.is_empty() => {}
            (None, ' ') => out.push(std::mem::take(&mut word)),
            (None, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

fn blocks(text: &str) -> Vec<(usize, String, String)> {
    let (mut out, mut open): (Vec<_>, Option<(usize, String, String)>) = (vec![], None);
    for (i, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => open = Some((i + 1, info.trim().to_string(), String::new())),
            (Some(_), Some(_)) => out.extend(open.take()),
            (Some((_, _, body)), None) => body.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    out
}

fn run_page(page: &Path) -> usize {
    let text = std::fs::read_to_string(page).expect("a page");
    let dir = workplace();
    let mut ran = 0;
    for (line, info, body) in blocks(&text) {
        let what = format!("{}:{line}", page.display());
        match info.as_str() {
            "rhai" => {
                let script = dir.path().join(format!("block{line}.rhai"));
                std::fs::write(&script, &body).expect("a script");
                run(dir.path(), &["--quiet".into(), script.display().to_string()], &what);
                ran += 1;
            }
            "sh" => {
                let mut small = vec![];
                for l in body.lines() {
                    if let Some(s) = l.strip_prefix("# small:") {
                        small = words(s);
                    } else if let Some(c) =
                        l.strip_prefix("ld3sh ").or_else(|| l.strip_prefix("cargo run --release -- "))
                    {
                        let mut args = words(c.split(" #").next().unwrap_or(c));
                        args.append(&mut small);
                        run(dir.path(), &args, &what);
                        ran += 1;
                    }
                }
            }
            _ => {}
        }
    }
    ran
}

fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut v: Vec<PathBuf> = std::fs::read_dir(root().join(dir))
        .expect("a directory")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    v.sort();
    v
}

#[test]
fn readme_runs() {
    assert!(run_page(&root().join("README.md")) > 0, "README.md has no block that runs");
}

#[test]
fn docs_run() {
    let pages = files("docs", "md");
    assert!(!pages.is_empty());
    assert!(pages.iter().map(|p| run_page(p)).sum::<usize>() > 0);
}

#[test]
fn examples_run() {
    let dir = workplace();
    let examples = files("examples", "rhai");
    assert!(!examples.is_empty());
    for e in examples {
        run(dir.path(), &["--quiet".into(), e.display().to_string()], "example");
    }
}

/// A script's small mode stands in its own text, in a line `// small: --set …`.
#[test]
fn scripts_run_in_small_mode() {
    let scripts = files("scripts", "rhai");
    assert!(!scripts.is_empty());
    for s in scripts {
        let dir = workplace();
        let text = std::fs::read_to_string(&s).expect("a script");
        let small = text.lines().find_map(|l| l.strip_prefix("// small:")).map(words);
        let mut args = vec!["--quiet".to_string(), s.display().to_string()];
        args.extend(small.unwrap_or_else(|| panic!("{} says no `// small:` mode", s.display())));
        run(dir.path(), &args, "script");
    }
}
