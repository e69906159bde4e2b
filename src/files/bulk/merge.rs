//! Joins shards of one `.npz` that came together from several places, by what their manifests say.
use super::npz::{self, Npz};
use super::{FORMAT, Job, Manifest, Report, Shard, Sink};
use crate::{Error, Kind, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The shards of `NAME.npz` that stand beside it, in order.
pub fn shards(out: &Path) -> Result<Vec<(Shard, PathBuf)>> {
    let mut all = npz::shard_files(out)?;
    all.sort_by_key(|(s, _)| (s.count, s.index));
    Ok(all)
}

/// Joins the shards beside `out` into it, and removes them.
///
/// # Errors
/// Shards of different runs, damaged ones, and missing ones, each with the shard to run again.
pub fn merge(out: &Path) -> Result<Report> {
    let found = shards(out)?;
    let mut first: Option<(PathBuf, Value)> = None;
    let mut labels = BTreeMap::new();
    for (shard, path) in &found {
        let again = |e: Error| e.hint(format!("make it again: `--shard {shard}`"));
        let (manifest, own) = npz::contents(path).map_err(again)?;
        let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        if manifest["format"] != FORMAT {
            return Err(again(Error::new(Kind::Format, format!("`{}` is no shard of samples", path.display()))));
        }
        if let Some((other, same)) = &first
            && same["run"] != manifest["run"]
        {
            return Err(different(other, path, same, &manifest));
        }
        let numbers = numbers(&manifest, path)?;
        labels.extend(shard.of(&numbers).zip(own));
        first.get_or_insert_with(|| (path.clone(), manifest));
    }
    let Some((path, manifest)) = first else {
        return Err(Error::new(Kind::Io, format!("there are no shards of `{}`", out.display())));
    };
    let map = |v: &Value| v.as_object().cloned().unwrap_or_default();
    let shape: Vec<usize> = serde_json::from_value(manifest["identity"]["shape"].clone()).unwrap_or_default();
    let Ok(shape) = <[usize; 3]>::try_from(shape) else { return Err(unreadable(&path)) };
    let labelled = !labels.is_empty();
    let job = Job {
        out: out.to_path_buf(),
        numbers: numbers(&manifest, &path)?,
        shard: Shard::WHOLE,
        batch: 1,
        shape,
        label: labelled.then(|| -> Box<dyn Fn(u64) -> i64 + Send + Sync> {
            Box::new(move |i| labels.get(&i).copied().unwrap_or_default())
        }),
        identity: Some(map(&manifest["identity"])),
        about: map(&manifest["about"]),
        overwrite: false,
        subfolders: false,
    };
    let whole = Manifest::new(&job);
    if whole.run.as_deref() != manifest["run"].as_str() {
        return Err(unreadable(&path));
    }
    let mut sink = Npz::open(&job, &whole)?;
    let missing = sink.missing()?;
    if let Some(gap) = missing.first() {
        let count = found[0].0.count;
        let absent = (1..=count).filter(|i| !found.iter().any(|(s, _)| s.index == *i && s.count == count));
        let absent: Vec<String> = absent.map(|i| format!("{i}/{count}")).collect();
        let m =
            format!("`{}` lacks shard {} (samples {} to {})", out.display(), absent.join(", "), gap.start, gap.end - 1);
        return Err(Error::new(Kind::Io, m).hint("run it, or name its folder too"));
    }
    let (out, complete) = sink.finish()?;
    Ok(Report { out, made: 0, complete, run: whole.run })
}

fn numbers(manifest: &Value, path: &Path) -> Result<std::ops::Range<u64>> {
    let [from, to] = [0, 1].map(|i| manifest["identity"]["numbers"][i].as_u64());
    match (from, to) {
        (Some(a), Some(b)) if a < b => Ok(a..b),
        _ => Err(unreadable(path)),
    }
}

fn unreadable(path: &Path) -> Error {
    let e = Error::new(Kind::Format, format!("`{}` does not say of which run it is", path.display()));
    e.hint("its shards can be joined by running any of them again where all are")
}

/// The error for parts of two runs.
pub fn different(a: &Path, b: &Path, one: &Value, other: &Value) -> Error {
    let of = |m: &Value| m["identity"].as_object().cloned().unwrap_or_default();
    let (one, other) = (of(one), of(other));
    let differ: Vec<&str> = one.iter().filter(|(k, v)| other.get(*k) != Some(*v)).map(|(k, _)| k.as_str()).collect();
    let what = if differ.is_empty() { String::new() } else { format!(", which differ in {}", differ.join(", ")) };
    let e = Error::value(format!("`{}` and `{}` are of different runs{what}", a.display(), b.display()));
    e.hint("join parts of one run only; others into a folder of their own (`--into`)")
}
