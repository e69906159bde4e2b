//! Runs the binary in a temporary folder, and judges how it took an error.
#![allow(dead_code)]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The binary, in `dir`, with a cache of its own that leaves `dir` alone.
pub fn ld3sh(dir: &Path, cache: &Path) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ld3sh"));
    c.current_dir(dir).env("LD3SH_CACHE", cache).env("RUST_BACKTRACE", "1").env_remove("LD3SH_PATH");
    c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    c
}

pub fn out(o: &Output) -> String {
    String::from_utf8_lossy(&o.stdout).into_owned()
}
pub fn err(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// Every file below `dir` with its content.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // links (to /dev/full, say) are not followed
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(files(&path));
        } else {
            let content = if kind.is_file() { std::fs::read(&path).unwrap() } else { vec![] };
            found.insert(path, content);
        }
    }
    found
}

/// What is wrong with how the binary answered: the exit code, the number of errors, traces of its own workings, words that
/// the message lacks.
pub fn faults(o: &Output, code: i32, words: &[&str]) -> Vec<String> {
    let text = err(o);
    let mut wrong = vec![];
    if o.status.code() != Some(code) {
        wrong.push(format!("exit {:?}, expected {code}", o.status.code()));
    }
    let errors = text.lines().filter(|l| l.starts_with("error:")).count();
    if errors != 1 {
        wrong.push(format!("{errors} lines begin with `error:`"));
    }
    for never in ["panicked", "backtrace", "RUST_BACKTRACE", "itself failed", ".part"] {
        if text.contains(never) {
            wrong.push(format!("the message contains `{never}`"));
        }
    }
    wrong.extend(words.iter().filter(|w| !text.contains(**w)).map(|w| format!("the message lacks `{w}`")));
    wrong
}

/// Sends a signal.
pub fn kill(child: &std::process::Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}
