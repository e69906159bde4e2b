//! `ld3sh merge`: brings together what shards wrote in different folders, and joins samples, statistics and tables.
mod join;

use super::args::MergeArgs;
use crate::files::bulk::merge::different;
use crate::files::{atomic, json, state};
use crate::host::{check_cancelled, note};
use crate::script::front::Front;
use crate::{Error, Kind, Result, access};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How deep below the folders that are named files are looked for.
const DEPTH: usize = 4;
/// Bytes of a file that is compared as a whole.
const COMPARED: u64 = 64 << 20;

/// What a file of a shard is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// `generate.json`: which run the pictures beside it are of.
    Manifest,
    /// `NAME.pieces/000003.state`: rows of a tensor.
    Piece,
    /// JSON, which may be a cell of a table.
    Json,
    /// A picture, the same whichever shard drew it.
    Picture,
    /// Something else.
    Other,
}

pub(super) fn sort(path: &Path) -> Sort {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let parent = path.parent().and_then(|p| p.extension()).and_then(|e| e.to_str());
    match extension {
        _ if path.file_name().is_some_and(|n| n == "generate.json") => Sort::Manifest,
        "state" if parent == Some("pieces") => Sort::Piece,
        "json" => Sort::Json,
        "png" => Sort::Picture,
        _ => Sort::Other,
    }
}

/// Files by their path in a folder of the run, each with the places where it is.
type Files = BTreeMap<PathBuf, Vec<PathBuf>>;

/// See the module's description.
///
/// # Errors
/// No such folder; parts of different runs; damaged parts; and, after all that is whole was joined, missing ones.
pub fn run(args: &MergeArgs, front: &dyn Front) -> Result<()> {
    let mut files = Files::new();
    for folder in &args.folders {
        if !folder.is_dir() {
            return Err(Error::new(Kind::Io, format!("there is no folder `{}`", folder.display())));
        }
        list(folder, Path::new(""), DEPTH, &mut files)?;
    }
    let into = if args.folders.len() == 1 { &args.folders[0] } else { &args.into };
    if files.is_empty() {
        return Err(Error::value("merge: there are no files in the folders that were named"));
    }
    // nothing is written before all is known to fit
    files.iter().try_for_each(|(_, places)| agree(places))?;
    for (relative, places) in &files {
        check_cancelled()?;
        bring(&places[0], &into.join(relative))?;
    }
    let mut missing = vec![];
    let joined = join::all(into, files.keys(), front, &mut missing)?;
    if joined == 0 && missing.is_empty() {
        let e = Error::value(format!("merge: `{}` holds no parts of samples, statistics or tables", into.display()));
        return Err(e.hint("`--shard 1/2` and `--shard 2/2` write them"));
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error::new(Kind::Io, format!("merge: {}", missing.join("; ")))
            .hint("what is missing is made by running its shard again; name its folder too")),
    }
}

/// Adds the files below `root/at`.
fn list(root: &Path, at: &Path, depth: usize, files: &mut Files) -> Result<()> {
    let folder = root.join(at);
    let failed = |e| Error::io(&folder, "list", e);
    for entry in access::read(&folder)?.list().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, kind) = (entry.file_name(), entry.file_type().map_err(failed)?);
        // temporary files and the parts of shards that are being written
        let unfinished = [".", ".part"].iter().any(|p| name.to_string_lossy().starts_with(p));
        if unfinished || name.to_string_lossy().ends_with(".npz.parts") {
            continue;
        }
        let relative = at.join(&name);
        if kind.is_dir() && depth > 0 {
            list(root, &relative, depth - 1, files)?;
        } else if kind.is_file() {
            files.entry(relative).or_default().push(root.join(at).join(&name));
        }
    }
    Ok(())
}

/// What tells of which run a part is; nothing for files that are no parts.
fn run_of(path: &Path) -> Result<Option<Value>> {
    Ok(match sort(path) {
        Sort::Manifest => Some(json::parse(&atomic::read_text(path)?).map_err(|e| e.context(path.display()))?),
        Sort::Piece => match state::load(path)? {
            state::Data::Map(m) => match m.get("key") {
                Some(state::Data::Str(key)) => Some(serde_json::json!({ "run": key })),
                _ => None,
            },
            _ => None,
        },
        Sort::Json => {
            let cell = json::parse(&atomic::read_text(path)?).map_err(|e| e.context(path.display()))?;
            let key = cell.get("key").filter(|_| cell.get("value").is_some());
            key.map(|key| serde_json::json!({ "run": key }))
        }
        _ => None,
    })
}

/// Refuses parts that cannot be read, and places of one file that are of different runs; what is no part and differs is told by a note.
fn agree(places: &[PathBuf]) -> Result<()> {
    let Some((first, others)) = places.split_first() else { return Ok(()) };
    // a damaged part is found here, before it is copied
    let known = run_of(first)?;
    for other in others {
        check_cancelled()?;
        match (&known, run_of(other)?) {
            (Some(a), Some(b)) if a["run"] != b["run"] => return Err(different(first, other, a, &b)),
            (Some(_), Some(_)) => {}
            _ if same(first, other)? => {}
            _ if sort(first) == Sort::Picture => {
                return Err(different(first, other, &Value::Null, &Value::Null));
            }
            _ => note(&format!("`{}` differs from `{}`, which is taken", other.display(), first.display())),
        }
    }
    Ok(())
}

/// Whether two files are the same, large ones by their length.
fn same(a: &Path, b: &Path) -> Result<bool> {
    let length = |p: &Path| Ok::<_, Error>(access::read(p)?.meta().map_err(|e| Error::io(p, "read", e))?.len());
    let (x, y) = (length(a)?, length(b)?);
    Ok(x == y && (x > COMPARED || atomic::read(a)? == atomic::read(b)?))
}

/// Copies a file to its place, unless it is there.
fn bring(from: &Path, to: &Path) -> Result<()> {
    if to.exists() && (access::whole(from).ok() == access::whole(to).ok() || same(from, to)?) {
        return Ok(());
    }
    if to.exists() {
        agree(&[to.to_path_buf(), from.to_path_buf()])?;
        return Ok(());
    }
    access::write(to)?.make_parent().map_err(|e| Error::io(to, "create the folder of", e))?;
    let mut file = access::read(from)?.open().map_err(|e| Error::io(from, "read", e))?;
    atomic::write_with(to, |out| std::io::copy(&mut file, out).map(drop))
}
