//! Files and situations that programs of this kind have met, from two tables: `cases.tsv` (a command for bash, its exit code, a text that is
//! told) and `reliability/cases.tsv` (a file, what is run, what must come of it).
#![cfg(unix)]
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A copy of a folder of cases, without its subfolders, and an empty cache.
fn copy(of: &str) -> (tempfile::TempDir, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join(of)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    (dir, tempfile::tempdir().unwrap())
}

fn run(mut command: Command, dir: &Path, cache: &Path) -> Output {
    command
        .current_dir(dir)
        .env("LD3SH_CACHE", cache)
        .env("LD3SH", env!("CARGO_BIN_EXE_ld3sh"))
        .env("FIXTURES", fixtures());
    command.env_remove("LD3SH_PATH").stdin(Stdio::null()).output().unwrap()
}

fn bash(code: &str) -> Command {
    let mut c = Command::new("timeout");
    c.args(["120", "bash", "-c", code]);
    c
}

fn told(o: &Output) -> String {
    String::from_utf8_lossy(&[&o.stdout[..], &o.stderr].concat()).into_owned()
}

/// The rows of a table.
fn table(of: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(fixtures().join(of)).unwrap();
    text.lines().map(|l| l.split('\t').map(str::to_string).collect()).collect()
}

#[test]
fn public_cases() {
    let mut failed = vec![];
    for row in table("cases/cases.tsv") {
        let [code, status, text] = &row[..] else { panic!("{row:?}") };
        let (dir, cache) = copy("cases");
        let o = run(bash(code), dir.path(), cache.path());
        let bug = ["panicked", "itself failed"].iter().any(|w| told(&o).contains(w));
        if o.status.code() != status.parse().ok() || !told(&o).contains(text.as_str()) || bug {
            failed.push(format!("{code}\n  expected {status} and `{text}`, got {:?}:\n{}", o.status.code(), told(&o)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn reliability() {
    let mut failed = vec![];
    for row in table("cases/reliability/cases.tsv") {
        let [file, code, want] = &row[..] else { panic!("{row:?}") };
        let (dir, cache) = copy("cases/reliability");
        let command = match (want.as_str(), code.as_str()) {
            ("sh", _) => bash(&format!("source {file}")),
            (_, "") => bash(&format!("ulimit -v 6291456; \"$LD3SH\" --threads 1 --quiet {file}")),
            _ => {
                let code = code.replace("FILE", file);
                bash(&format!("ulimit -v 6291456; \"$LD3SH\" --threads 1 --quiet -e '{code}'"))
            }
        };
        let o = run(command, dir.path(), cache.path());
        let (text, status) = (told(&o), o.status.code());
        let good = match want.as_str() {
            "sh" => status == Some(0),
            "reject" => status == Some(1) && text.contains("error") && !text.contains("itself failed"),
            // escapes of a file are pictures in what is printed
            "plain" => status == Some(0) && text.contains('␛') && !text.contains('\u{1b}'),
            other => panic!("{other}"),
        };
        if !good {
            failed.push(format!("{file}: expected {want}, got {status:?}:\n{text}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
