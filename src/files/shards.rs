//! Weights of one network in a folder: in one file by one of several names, or cut into several with an index of which has what.
use super::checkpoint;
use super::torch::View;
use super::{atomic, json};
use crate::{Error, Kind, Result, access};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Tensors by name.
pub type Views = BTreeMap<String, View>;

/// The tensors in the first of these files that a folder has; what ends in `.json` is an index. None where it has none of them.
///
/// Fails where a file that an index names is missing, or lacks a tensor that it should have.
pub fn weights(folder: &Path, names: &[&str]) -> Result<Option<Views>> {
    for name in names {
        let path = folder.join(name);
        if !access::read(&path)?.exists() {
            continue;
        }
        if !name.ends_with(".json") {
            return Ok(Some(checkpoint::open(&path)?.tensors().clone()));
        }
        return sharded(folder, &path).map(Some);
    }
    Ok(None)
}

fn sharded(folder: &Path, index: &Path) -> Result<Views> {
    let wrong = || Error::new(Kind::Format, format!("`{}` has no `weight_map` of names to files", index.display()));
    let parsed = json::parse(&atomic::read_text(index)?)?;
    let map = parsed.get("weight_map").and_then(|m| m.as_object()).ok_or_else(wrong)?;
    let files: BTreeSet<&str> = map.values().map(|f| f.as_str().ok_or_else(wrong)).collect::<Result<_>>()?;
    let mut all = BTreeMap::new();
    for name in files {
        // a name and no path: the index may not lead elsewhere
        if Path::new(name).components().count() != 1 || name == ".." {
            return Err(wrong());
        }
        let path = folder.join(name);
        if !access::read(&path)?.exists() {
            let m = format!("`{}` is missing, one of the files that the weights are cut into", path.display());
            return Err(Error::new(Kind::Format, m).hint("download it too: the folder is not whole"));
        }
        all.extend(checkpoint::open(&path)?.tensors().clone());
    }
    match map.keys().find(|name| !all.contains_key(*name)) {
        None => Ok(all),
        Some(name) => {
            Err(Error::new(Kind::Format, format!("no file has the tensor `{name}` of `{}`", index.display())))
        }
    }
}
