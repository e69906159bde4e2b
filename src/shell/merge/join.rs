//! Joins the parts that lie in one folder: shards of samples, pieces of features, cells of tables.
use super::{Sort, sort};
use crate::files::bulk::merge;
use crate::files::state::{self, Data};
use crate::files::{atomic, json};
use crate::host::check_cancelled;
use crate::metric::Stats;
use crate::script::front::Front;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Joins what `files` (paths in `folder`) are parts of; returns how many things came of it. What is missing is added to `missing`.
pub fn all<'a>(
    folder: &Path,
    files: impl Iterator<Item = &'a PathBuf>,
    front: &dyn Front,
    missing: &mut Vec<String>,
) -> Result<usize> {
    let (mut archives, mut pictures, mut pieces, mut jsons) =
        <(BTreeSet<PathBuf>, BTreeSet<_>, BTreeSet<_>, Vec<_>)>::default();
    for file in files {
        let parent = file.parent().unwrap_or(Path::new("")).to_path_buf();
        match sort(file) {
            Sort::Manifest => pictures.extend([parent]),
            Sort::Piece => pieces.extend([parent]),
            Sort::Json => jsons.push(file.clone()),
            Sort::Other => archives.extend(archive_of(file)),
            Sort::Picture => {}
        }
    }
    let mut joined = 0;
    for name in archives {
        let out = folder.join(&name);
        match merge::merge(&out) {
            Ok(done) => {
                front.print(&format!("{}: joined", done.out.display()));
                joined += 1;
            }
            Err(e) if e.kind() == Kind::Io => missing.push(e.message().to_string()),
            Err(e) => return Err(e),
        }
    }
    for name in pictures {
        joined += samples(&folder.join(name), front, missing)?;
    }
    for name in pieces {
        joined += features(&folder.join(name), front, missing)?;
    }
    Ok(joined + tables(folder, &jsons, front, missing)?)
}

/// The archive that a file is a shard of: `all.npz` of `all.shard-1-of-2.npz`.
fn archive_of(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    let (stem, rest) = name.split_once(".shard-")?;
    let numbers = rest.strip_suffix(".npz")?;
    numbers.split_once("-of-").map(|_| file.with_file_name(format!("{stem}.npz")))
}

/// Numbers as ranges: `3 to 5, 9`.
fn ranges(numbers: &[u64]) -> String {
    let mut out: Vec<(u64, u64)> = vec![];
    for n in numbers {
        match out.last_mut() {
            Some((_, end)) if *end + 1 == *n => *end = *n,
            _ => out.push((*n, *n)),
        }
    }
    let more = out.len().saturating_sub(5);
    let text = |(a, b): &(u64, u64)| if a == b { a.to_string() } else { format!("{a} to {b}") };
    let shown: Vec<String> = out.iter().take(5).map(text).collect();
    format!("{}{}", shown.join(", "), if more > 0 { format!(" and {more} ranges more") } else { String::new() })
}

/// Looks whether the pictures of a folder have all numbers from the first to the last.
fn samples(folder: &Path, front: &dyn Front, missing: &mut Vec<String>) -> Result<usize> {
    let mut numbers = BTreeSet::new();
    let mut todo = vec![folder.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let failed = |e| Error::io(&dir, "list", e);
        for entry in crate::access::read(&dir)?.list().map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
            match (path.extension(), number) {
                (Some(_), Some(n)) => numbers.extend([n]),
                (None, Some(_)) if path.is_dir() => todo.push(path),
                _ => {}
            }
        }
    }
    let (Some(first), Some(last)) = (numbers.first().copied(), numbers.last().copied()) else { return Ok(0) };
    let gaps: Vec<u64> = (first..=last).filter(|n| !numbers.contains(n)).collect();
    if !gaps.is_empty() {
        missing.push(format!("`{}` lacks samples {}", folder.display(), ranges(&gaps)));
        return Ok(0);
    }
    front.print(&format!("{}: {} samples, {first} to {last}", folder.display(), numbers.len()));
    Ok(1)
}

/// A piece as `shares::pieces` keeps it.
struct Piece {
    key: String,
    at: u64,
    of: u64,
    about: Value,
    features: Option<Tensor>,
}

fn piece(path: &Path) -> Result<Piece> {
    let again = |e: Error| e.hint("delete it, and run the shard again that made it");
    let Data::Map(mut m) = state::load(path).map_err(again)? else { return Err(no_piece(path)) };
    let about = m.remove("about").map_or(Value::Null, plain);
    match (m.remove("key"), m.remove("at"), m.remove("of"), m.remove("value")) {
        (Some(Data::Str(key)), Some(Data::Int(at)), Some(Data::Int(of)), value) if at >= 0 && at < of => Ok(Piece {
            key,
            at: at as u64,
            of: of as u64,
            about,
            features: value.and_then(|v| if let Data::Tensor(t) = v { Some(t) } else { None }),
        }),
        _ => Err(no_piece(path)),
    }
}

/// Plain data as JSON.
fn plain(data: Data) -> Value {
    match data {
        Data::Bool(b) => b.into(),
        Data::Int(i) => i.into(),
        Data::Float(f) => f.into(),
        Data::Str(s) => s.into(),
        Data::Array(a) => a.into_iter().map(plain).collect(),
        Data::Map(m) => Value::Object(m.into_iter().map(|(k, v)| (k, plain(v))).collect()),
        Data::Unit | Data::Tensor(_) => Value::Null,
    }
}

fn no_piece(path: &Path) -> Error {
    Error::new(Kind::Format, format!("`{}` is no piece of shared work", path.display()))
}

/// Adds the features in a folder of pieces to statistics, piece by piece in their order, as one process does.
fn features(folder: &Path, front: &dyn Front, missing: &mut Vec<String>) -> Result<usize> {
    let failed = |e| Error::io(folder, "list", e);
    let mut paths = vec![];
    for entry in crate::access::read(folder)?.list().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "state") {
            paths.push(path);
        }
    }
    paths.sort();
    let (mut stats, mut next, mut absent) = (Stats::default(), 0, vec![]);
    let mut first: Option<(PathBuf, String, u64)> = None;
    for path in &paths {
        check_cancelled()?;
        let p = piece(path)?;
        match &first {
            Some((other, key, _)) if *key != p.key => {
                return Err(merge::different(other, path, &Value::Null, &Value::Null));
            }
            Some(_) => {}
            None => first = Some((path.clone(), p.key, p.of)),
        }
        absent.extend(next..p.at);
        next = p.at + 1;
        // what is no features (teacher pairs, say) is joined by its script
        let (Some(rows), Value::Object(about)) = (p.features, p.about) else { continue };
        stats.add(&rows).map_err(|e| e.context(path.display()))?;
        stats.about = about;
    }
    let Some((_, _, of)) = first else { return Ok(0) };
    absent.extend(next..of);
    if !absent.is_empty() {
        missing.push(format!("`{}` lacks pieces {} of {of}, counted from 0", folder.display(), ranges(&absent)));
        return Ok(0);
    }
    if stats.width() == 0 {
        return Ok(0);
    }
    let out = folder.with_extension("npz");
    stats.save(&out)?;
    front.print(&format!("{}: statistics of {} samples", out.display(), stats.count().unwrap_or_default()));
    Ok(1)
}

/// A cell as `shares::cells` keeps it: its labels, and the numbers and texts of its value.
type Row = Vec<(String, Value)>;

/// Writes `TABLE-cells.csv` for each table whose cells are all there.
fn tables(folder: &Path, files: &[PathBuf], front: &dyn Front, missing: &mut Vec<String>) -> Result<usize> {
    let mut tables: BTreeMap<PathBuf, (u64, BTreeMap<u64, Row>)> = BTreeMap::new();
    for file in files {
        let path = folder.join(file);
        let found = json::parse(&atomic::read_text(&path)?).map_err(|e| e.context(path.display()))?;
        let (cell, value) = (&found["cell"], &found["value"]);
        let (Some(table), Some(at), Some(of)) = (cell["table"].as_str(), cell["at"].as_u64(), cell["of"].as_u64())
        else {
            continue;
        };
        let plain = |v: &Value| v.is_number() || v.is_string() || v.is_boolean();
        let entries = |v: &Value| -> Row {
            let all = v.as_object().into_iter().flatten();
            all.filter(|(_, v)| plain(v)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let name = file.parent().unwrap_or(Path::new("")).join(table);
        let (count, rows) = tables.entry(name).or_default();
        if *count != 0 && *count != of {
            let e = Error::value(format!("`{}` is of a table of {of} cells, others of one of {count}", path.display()));
            return Err(e.hint("join parts of one run only"));
        }
        *count = of;
        rows.insert(at, [entries(&cell["labels"]), entries(value)].concat());
    }
    let mut joined = 0;
    for (name, (of, rows)) in tables {
        let absent: Vec<u64> = (0..of).filter(|i| !rows.contains_key(i)).map(|i| i + 1).collect();
        if !absent.is_empty() {
            missing.push(format!("the table `{}` lacks cells {} of {of}", name.display(), ranges(&absent)));
            continue;
        }
        let out = folder.join(format!("{}-cells.csv", name.display()));
        atomic::write(&out, csv(rows.values()).as_bytes())?;
        front.print(&format!("{}: {of} cells", out.display()));
        joined += 1;
    }
    Ok(joined)
}

/// Rows under all names that any of them has.
fn csv<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> String {
    let mut header: Vec<&str> = vec![];
    for (name, _) in rows.clone().flatten() {
        if !header.contains(&name.as_str()) {
            header.push(name);
        }
    }
    let field = |text: &str| match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    };
    let cell = |row: &Row, name: &str| {
        let value = row.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        field(&value.map_or(String::new(), |v| v.as_str().map_or(v.to_string(), str::to_string)))
    };
    let line = |row: &Row| header.iter().map(|n| cell(row, n)).collect::<Vec<_>>().join(",");
    let head = header.iter().map(|n| field(n)).collect::<Vec<_>>().join(",");
    std::iter::once(head).chain(rows.map(line)).map(|l| l + "\n").collect()
}
