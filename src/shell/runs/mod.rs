//! Recorded runs side by side: in the terminal (`ld3sh runs`), and as a page (`ld3sh report`).
mod page;
mod parts;
mod style;

use super::args::{ReportArgs, RunsArgs};
use crate::files::record::{self, Recorded};
use crate::files::table::{Table, number};
use crate::files::{atomic, image};
use crate::script::front::Front;
use crate::{Error, Kind, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How deep below the folders that are named runs are looked for.
const DEPTH: usize = 3;
/// Measures that the terminal's table shows at most.
const MEASURES: usize = 6;

/// The last run of each folder with a record.
fn collect(folders: &[PathBuf]) -> Result<Vec<Recorded>> {
    if let Some(missing) = folders.iter().find(|f| !f.is_dir()) {
        return Err(Error::new(Kind::Io, format!("there is no folder `{}`", missing.display())));
    }
    let mut all = vec![];
    for folder in record::find(folders, DEPTH)? {
        all.extend(record::latest(&folder)?);
    }
    if all.is_empty() {
        let named: Vec<String> = folders.iter().map(|f| format!("`{}`", f.display())).collect();
        let e = Error::new(Kind::Io, format!("there is no record of a run in {}", named.join(", ")));
        return Err(e.hint("`ld3sh SCRIPT --out DIR` makes one"));
    }
    Ok(all)
}

/// A value as a table shows it.
fn shown(v: &Value) -> String {
    match v {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(f64::NAN), 5),
        other => other.to_string(),
    }
}

/// The script's name without its folder.
fn script(run: &Recorded) -> String {
    let path = run.head.get("script").and_then(|s| s.get("name")?.as_str()).unwrap_or("");
    Path::new(path).file_name().map_or(path.into(), |n| n.to_string_lossy().into_owned())
}

/// A setting by its name: a parameter, or `seed`, `device`, `version`, `script`.
fn setting(run: &Recorded, name: &str) -> Value {
    match name {
        "script" => run.head.get("script").and_then(|s| s.get("hash")).cloned().unwrap_or_default(),
        "seed" | "device" | "version" | "shard" => run.head.get(name).cloned().unwrap_or_default(),
        _ => run.head.get("params").and_then(|p| p.get(name)).cloned().unwrap_or_default(),
    }
}

/// The names of the settings in which runs differ, parameters first.
fn differing(runs: &[Recorded]) -> Vec<String> {
    let params: BTreeSet<&str> = runs
        .iter()
        .filter_map(|r| r.head.get("params")?.as_object())
        .flat_map(|p| p.keys().map(String::as_str))
        .collect();
    let all = params.into_iter().chain(["seed", "device", "version", "shard"]);
    let differs = |name: &&str| runs.iter().any(|r| setting(r, name) != setting(&runs[0], name));
    all.filter(differs).map(str::to_string).collect()
}

/// The names of all numbers that were measured, in the order in which they first came.
fn measures(runs: &[Recorded]) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    for key in
        runs.iter().flat_map(|r| &r.metrics).flat_map(|m| m.iter().filter(|(_, v)| v.is_number()).map(|(k, _)| k))
    {
        if !all.contains(key) {
            all.push(key.clone());
        }
    }
    all
}

/// How long a run took, for people.
fn duration(run: &Recorded) -> String {
    match run.seconds() {
        None => String::new(),
        Some(s) if s < 120.0 => format!("{s:.1} s"),
        Some(s) if s < 7200.0 => format!("{:.1} min", s / 60.0),
        Some(s) => format!("{:.1} h", s / 3600.0),
    }
}

/// `ld3sh runs`: a line for each run, with what differs and what was measured last.
///
/// # Errors
/// No such folder, no records.
pub fn list(args: &RunsArgs, front: &dyn Front) -> Result<()> {
    let folders = if args.folders.is_empty() { vec![PathBuf::from(".")] } else { args.folders.clone() };
    let runs = collect(&folders)?;
    let (settings, measures) = (differing(&runs), measures(&runs));
    let measures = &measures[..measures.len().min(MEASURES)];
    let row = |r: &Recorded| {
        let last = r.last();
        let date = r.head.get("date").and_then(Value::as_str).unwrap_or_default();
        let mut row = vec![r.folder.display().to_string(), script(r), date.get(..16).unwrap_or(date).replace('T', " ")];
        row.extend([r.status().to_string(), duration(r)]);
        row.extend(settings.iter().map(|s| shown(&setting(r, s))));
        row.extend(measures.iter().map(|m| last.get(m).map_or_else(String::new, shown)));
        row
    };
    let mut header: Vec<String> = ["run", "script", "started (UTC)", "status", "took"].map(String::from).to_vec();
    header.extend(settings.iter().cloned().chain(measures.iter().cloned()));
    let table = Table { header, rows: runs.iter().map(row).collect(), markdown: args.markdown, ..Table::default() };
    front.print(table.to_string().trim_end());
    Ok(())
}

/// `ld3sh report`: a page that compares runs.
///
/// # Errors
/// No such folder, no records, a page that cannot be written.
pub fn report(args: &ReportArgs, front: &dyn Front) -> Result<()> {
    let runs = collect(&args.folders)?;
    image::require_extension(&args.write, &["html"])?;
    atomic::write(&args.write, page::page(&runs)?.as_bytes())?;
    let many = if runs.len() == 1 { "run" } else { "runs" };
    front.print(&format!("{}: {} {many}", args.write.display(), runs.len()));
    if args.open {
        open(&args.write)?;
    }
    Ok(())
}

/// Shows a page in the user's browser.
fn open(page: &Path) -> Result<()> {
    let tool = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let failed = |e: std::io::Error| {
        let e = Error::new(Kind::Io, format!("cannot start `{tool}`: {e}"));
        e.hint(format!("open `{}` in a browser", page.display()))
    };
    std::process::Command::new(tool).arg(page).spawn().map_err(failed).map(drop)
}
