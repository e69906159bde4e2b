//! The record of a run: lines of JSON in `run.jsonl`, each written as a whole, so that a killed run keeps what it recorded.
//!
//! ```json
//! {"event":"start","format":"ld3sh.run","version":1,"date":"…","script":{…},"params":{…},"seed":0,"device":"cpu", …}
//! {"event":"metric","seconds":3.2,"values":{"nfe":4,"loss":0.01}}
//! {"event":"end","seconds":8.1,"status":"ok"}
//! ```
//!
//! A file has the starts of all runs in its folder; what is said of a run stands between its start and the next.
use super::{json, result};
use crate::access;
use crate::host::note;
use crate::world::Shard;
use crate::{Error, Kind, Result};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The file's name in a run's folder.
pub const NAME: &str = "run.jsonl";
/// How the names of the files of shards begin and end.
const OF_SHARDS: (&str, &str) = ("run.shard-", ".jsonl");

/// The name of the file in which a shard records; that of the whole is [`NAME`].
pub fn name(shard: Shard) -> String {
    match shard.count {
        1 => NAME.into(),
        n => format!("{}{}-of-{n}{}", OF_SHARDS.0, shard.index, OF_SHARDS.1),
    }
}

/// The shards that recorded in a folder, the whole first.
fn parts(folder: &Path) -> Result<Vec<Shard>> {
    let mut all = vec![];
    let failed = |e| Error::io(folder, "list", e);
    for entry in access::read(folder)?.list().map_err(failed)? {
        let file = entry.map_err(failed)?.file_name();
        let file = file.to_string_lossy();
        let numbers = file.strip_prefix(OF_SHARDS.0).and_then(|f| f.strip_suffix(OF_SHARDS.1));
        let shard = numbers.and_then(|n| Shard::parse(&n.replacen("-of-", "/", 1)).ok());
        all.extend(if file == NAME { Some(Shard::WHOLE) } else { shard });
    }
    all.sort_by_key(|s| (s.count, s.index));
    Ok(all)
}

/// The last run that each shard recorded in a folder; of a folder without shards, its last run.
pub fn latest(folder: &Path) -> Result<Vec<Recorded>> {
    let mut all = vec![];
    for shard in parts(folder)? {
        all.extend(read_part(folder, shard)?.pop());
    }
    Ok(all)
}
/// What the first line of a run says it is.
const FORMAT: &str = "ld3sh.run";
/// The newest version of the format.
const VERSION: u64 = 1;
/// The longest file that is read: 256 MiB.
const LONGEST: u64 = 256 << 20;

/// A run that is being recorded.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    began: Instant,
}

impl Record {
    /// Starts the record of a run in `folder`, which is made if need be, with what is known of the run.
    pub fn start(folder: &Path, shard: Shard, head: Map<String, Value>) -> Result<Record> {
        let path = folder.join(name(shard));
        access::write(&path)?.make_parent().map_err(|e| Error::io(folder, "create", e))?;
        let record = Record { path, began: Instant::now() };
        let mut line = Map::from_iter([
            ("event".to_string(), json!("start")),
            ("format".into(), json!(FORMAT)),
            ("version".into(), json!(VERSION)),
            ("date".into(), json!(result::now())),
        ]);
        line.extend(head);
        record.append(line)?;
        Ok(record)
    }
    /// Adds what was measured.
    pub fn metric(&self, values: Map<String, Value>) -> Result<()> {
        self.event("metric", Map::from_iter([("values".to_string(), Value::Object(values))]))
    }
    /// Says how the run ended: `"ok"`, `"failed"` or `"stopped"`, and what else is known then.
    pub fn end(&self, status: &str, more: Map<String, Value>) -> Result<()> {
        let mut line = Map::from_iter([("status".to_string(), json!(status))]);
        line.extend(more);
        self.event("end", line)
    }
    fn event(&self, event: &str, more: Map<String, Value>) -> Result<()> {
        let seconds = (self.began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        let mut line = Map::from_iter([("event".to_string(), json!(event)), ("seconds".into(), json!(seconds))]);
        line.extend(more);
        self.append(line)
    }
    fn append(&self, line: Map<String, Value>) -> Result<()> {
        let failed = |e| Error::io(&self.path, "write", e);
        let mut file = access::write(&self.path)?.open_to_read_and_append().map_err(failed)?;
        // where the file system knows no locks, it goes without
        let _ = file.lock();
        append(&mut file, &format!("{}\n", Value::Object(line))).map_err(failed)
    }
}

/// Adds a line in one piece, after what a killed process left of its last.
fn append(file: &mut File, line: &str) -> std::io::Result<()> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut last = [b'\n'];
    if end > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let before = if last[0] == b'\n' { "" } else { "\n" };
    file.write_all(format!("{before}{line}").as_bytes())?;
    file.sync_data()
}

/// A run as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The folder that it wrote to.
    pub folder: PathBuf,
    /// What was known at its start: `date`, `script`, `params`, `seed`, `versions`, `device`.
    pub head: Map<String, Value>,
    /// What was measured, in order.
    pub metrics: Vec<Map<String, Value>>,
    /// How it ended; none where it was killed, or runs still.
    pub end: Option<Map<String, Value>>,
}

impl Recorded {
    /// `"ok"`, `"failed"`, `"stopped"`, or `"unfinished"`.
    pub fn status(&self) -> &str {
        self.end.as_ref().and_then(|e| e.get("status")?.as_str()).unwrap_or("unfinished")
    }
    /// How long it took, where it ended.
    pub fn seconds(&self) -> Option<f64> {
        self.end.as_ref()?.get("seconds")?.as_f64()
    }
    /// The last value of each measure.
    pub fn last(&self) -> Map<String, Value> {
        self.metrics.iter().flat_map(|m| m.clone()).collect()
    }
}

/// The runs that were recorded in a folder, the last one last. A line that was cut off is told by a note.
///
/// Errors: no record, one of a newer version, a file that is none.
pub fn read(folder: &Path) -> Result<Vec<Recorded>> {
    read_part(folder, Shard::WHOLE)
}

/// As [`read`], what a shard recorded.
pub fn read_part(folder: &Path, shard: Shard) -> Result<Vec<Recorded>> {
    let path = folder.join(name(shard));
    let meta = super::atomic::existing(&path).map_err(|e| match e.kind() {
        Kind::Io => {
            let e = Error::new(Kind::Io, format!("there is no record of a run in `{}`", folder.display()));
            e.hint("`ld3sh SCRIPT --out DIR` makes one; name DIR")
        }
        _ => e,
    })?;
    if meta.len() > LONGEST {
        let m = format!("`{}` is too long to be a record of runs: {} bytes", path.display(), meta.len());
        return Err(Error::new(Kind::Memory, m));
    }
    let text = super::atomic::read_text(&path)?;
    let mut runs: Vec<Recorded> = vec![];
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let Ok(Value::Object(mut line)) = json::parse(line) else {
            note(&format!("line {} of `{}` was cut off, and is left out", i + 1, path.display()));
            continue;
        };
        let event = line.remove("event");
        let event = event.as_ref().and_then(Value::as_str).unwrap_or_default();
        if event == "start" && line.get("format").and_then(Value::as_str) == Some(FORMAT) {
            let version = line.get("version").and_then(Value::as_u64).unwrap_or_default();
            if version > VERSION {
                let m = format!("`{}` has version {version}; this ld3sh reads up to {VERSION}", path.display());
                return Err(Error::new(Kind::Format, m).hint("it was written by a newer ld3sh: update this one"));
            }
            let folder = folder.to_path_buf();
            runs.push(Recorded { folder, head: line, metrics: vec![], end: None });
            continue;
        }
        let Some(run) = runs.last_mut() else { continue };
        match (event, line.remove("values")) {
            ("metric", Some(Value::Object(values))) => run.metrics.push(values),
            ("end", _) => run.end = Some(line),
            _ => {}
        }
    }
    match runs.is_empty() {
        true => Err(Error::new(Kind::Format, format!("`{}` is no record of runs", path.display()))),
        false => Ok(runs),
    }
}

/// The folders with records among `folders` and in those below them, `depth` deep, in the order of their names.
pub fn find(folders: &[PathBuf], depth: usize) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for folder in folders {
        if !folder.is_dir() {
            continue;
        }
        if !parts(folder)?.is_empty() {
            found.push(folder.clone());
        }
        if depth == 0 {
            continue;
        }
        let failed = |e| Error::io(folder, "list", e);
        let mut below = vec![];
        for entry in access::read(folder)?.list().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if !hidden && entry.file_type().is_ok_and(|t| t.is_dir()) {
                below.push(entry.path());
            }
        }
        below.sort();
        found.extend(find(&below, depth - 1)?);
    }
    Ok(found)
}
