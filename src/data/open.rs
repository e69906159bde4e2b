//! What a path holds, told by its content, and the data set of it.
use super::{Dataset, Prepare, Source, arrays, cifar, folder, idx, shards};
use crate::files::{atomic, sniff};
use crate::{Error, Kind, Result, access};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Labels {
    /// Where there are any: of folders, where all pictures are in some.
    #[default]
    Auto,
    /// The folders right below; a picture beside them is an error.
    Folders,
    /// No labels.
    None,
}

/// How a data set is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Where labels come from.
    pub labels: Labels,
    /// "train" or "test", of what has both (CIFAR).
    pub part: &'static str,
    /// What is done to each picture.
    pub how: Prepare,
}

/// Opens a folder of pictures or of tar shards, `.npy`, `.npz`, idx files, CIFAR's batches, a tar archive.
///
/// # Errors
/// There is no such file, or it is none of these; the message names what it is.
pub fn open(path: impl AsRef<Path>, o: &Opening) -> Result<Dataset> {
    let path = path.as_ref();
    let labels = o.labels != Labels::None;
    let made = |source: Arc<dyn Source>, classes| Dataset::new(source, &path.display().to_string(), classes, o.how);
    let plain = |source: arrays::Arrays| made(Arc::new(source), vec![]);
    if access::read(path)?.is_dir() {
        let batches = cifar::files(path, o.part);
        if !batches.is_empty() {
            let (source, classes) = cifar::open(&batches, labels)?;
            return Ok(made(Arc::new(source), classes));
        }
        let tars = tars(path)?;
        if !tars.is_empty() {
            return Ok(made(Arc::new(shards::open(tars, labels)?), vec![]));
        }
        let (source, classes) = folder::open(path, o.labels)?;
        return Ok(made(Arc::new(source), classes));
    }
    let head = atomic::head(path)?;
    let named = |ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    match () {
        _ if head.starts_with(b"\x93NUMPY") || named("npz") || named("npy") => arrays::open(path, labels).map(plain),
        _ if idx::is_idx(&head) || head.starts_with(b"\x1f\x8b") && !named("tgz") => idx::open(path, labels).map(plain),
        _ if head.get(257..262) == Some(b"ustar") => {
            Ok(made(Arc::new(shards::open(vec![path.to_path_buf()], labels)?), vec![]))
        }
        _ if cifar::is_cifar(path, &head) => {
            let (source, classes) = cifar::open(&[path.to_path_buf()], labels)?;
            Ok(made(Arc::new(source), classes))
        }
        _ => {
            let what = sniff::sniff(&head)
                .map_or("not a data set that is known".into(), |(what, _)| format!("no data set but {what}"));
            let e = Error::new(Kind::Format, format!("`{}` is {what}", path.display()));
            Err(e.hint("a folder of .png and .jpg, .npz, .npy, idx files (MNIST), CIFAR's batches, or a tar archive of pictures"))
        }
    }
}

/// The tar archives right in a folder, by name.
fn tars(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(dir, "list", e);
    let mut found = vec![];
    for entry in access::read(dir)?.list().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "tar") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
