//! CIFAR-10 and CIFAR-100 as they are published: pickles for Python, or files of bytes.
use super::arrays::{self, Arrays};
use crate::files::pickle::Value;
use crate::files::{atomic, checkpoint};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};

/// Values of a picture: 32×32 in three colours, one colour after the other.
const PIXELS: usize = 3072;

/// The files of a part ("train" or "test") in a folder of CIFAR; none where the folder is none.
pub(super) fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let batches: Vec<String> = (1..=5).map(|i| format!("data_batch_{i}")).collect();
    let names: Vec<&str> = batches.iter().map(String::as_str).collect();
    let of = match part {
        "test" => [vec!["test_batch"], vec!["test"]],
        _ => [names, vec!["train"]],
    };
    for names in of {
        for ending in ["", ".bin"] {
            let all: Vec<PathBuf> = names.iter().map(|n| dir.join(format!("{n}{ending}"))).collect();
            if all.iter().all(|f| f.is_file()) {
                return all;
            }
        }
    }
    vec![]
}

/// Whether a file's name and size are those of CIFAR's binary version, and the bytes of its labels.
fn binary(path: &Path, size: u64) -> Option<usize> {
    let named = path.extension().is_some_and(|e| e == "bin");
    let fits = |labels: usize| size > 0 && size.is_multiple_of((PIXELS + labels) as u64);
    [1, 2].into_iter().find(|labels| named && fits(*labels))
}

/// Whether a file is of CIFAR by its beginning, name and size.
pub(super) fn is_cifar(path: &Path, head: &[u8]) -> bool {
    head.starts_with(b"\x80\x02") || atomic::existing(path).is_ok_and(|m| binary(path, m.len()).is_some())
}

/// The pictures of some files, one after the other, and their labels; and the names of the classes where the folder tells them.
pub(super) fn open(paths: &[PathBuf], labels: bool) -> Result<(Arrays, Vec<String>)> {
    let mut pixels = vec![];
    let mut classes: Option<Vec<i64>> = labels.then(Vec::new);
    for path in paths {
        let (x, y) = one(path).map_err(|e| e.context(path.display()))?;
        pixels.push(x);
        classes = classes.zip(y).map(|(mut all, y)| {
            all.extend(y);
            all
        });
    }
    let of = match paths {
        [one] => one.display().to_string(),
        _ => paths.first().and_then(|p| p.parent()).map(|p| p.display().to_string()).unwrap_or_default(),
    };
    let most = classes.as_ref().and_then(|c| c.iter().max().copied());
    let names = paths.first().map(|p| names(p)).unwrap_or_default();
    // names of another set than the labels' are none
    let names = if most.is_some_and(|m| (m as usize) < names.len()) { names } else { vec![] };
    Ok((arrays::of(&Tensor::cat(&pixels, 0)?, classes, &of)?, names))
}

/// Pictures [N, 3, 32, 32] and labels of a file.
fn one(path: &Path) -> Result<(Tensor, Option<Vec<i64>>)> {
    let size = atomic::existing(path)?.len();
    let (rows, labels) = match binary(path, size) {
        Some(bytes) => of_bytes(&atomic::read(path)?, bytes)?,
        None => of_pickle(path)?,
    };
    let n = rows.dim(0)?;
    Ok((rows.reshape((n, 3, 32, 32))?, labels))
}

fn of_bytes(bytes: &[u8], labels: usize) -> Result<(Tensor, Option<Vec<i64>>)> {
    let rows = bytes.chunks_exact(labels + PIXELS);
    // of CIFAR-100 the second is the fine label
    let classes = rows.clone().map(|r| i64::from(r[labels - 1])).collect();
    let pixels: Vec<u8> = rows.flat_map(|r| &r[labels..]).copied().collect();
    let n = pixels.len() / PIXELS;
    Ok((Tensor::from_vec(pixels, (n, PIXELS), &Device::Cpu)?, Some(classes)))
}

fn of_pickle(path: &Path) -> Result<(Tensor, Option<Vec<i64>>)> {
    let file = checkpoint::open(path)?;
    let data = file.tensors().contains_key("data").then(|| file.tensor("data")).transpose()?;
    let Some(rows) = data.filter(|t| t.dtype() == DType::U8 && t.rank() == 2 && t.dims()[1] == PIXELS) else {
        let e = Error::new(Kind::Format, "a pickle, but none of CIFAR: it has no array `data` of bytes [N, 3072]");
        return Err(e.hint("`checkpoint::open` shows what is in it"));
    };
    let mut labels = None;
    for name in ["labels", "fine_labels"] {
        let Some(document) = file.document() else { continue };
        let Some(id) = document.find(name)? else { continue };
        let tree = document.tree();
        let Value::List(items) = tree.value(id) else { continue };
        let number = |i: &_| match tree.value(*i) {
            Value::Int(l) => Ok(*l),
            _ => Err(Error::new(Kind::Format, format!("`{name}` holds something that is no integer"))),
        };
        labels = Some(items.iter().map(number).collect::<Result<Vec<i64>>>()?);
    }
    Ok((rows, labels))
}

/// The names of the classes, from the file beside a batch that has them.
fn names(batch: &Path) -> Vec<String> {
    let text = ["batches.meta.txt", "fine_label_names.txt"]
        .iter()
        .find_map(|name| atomic::read_text(batch.with_file_name(name)).ok().filter(|t| !t.trim().is_empty()));
    if let Some(text) = text {
        return text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_string).collect();
    }
    let meta = ["batches.meta", "meta"].iter().find_map(|name| checkpoint::open(batch.with_file_name(name)).ok());
    let Some(document) = meta.as_ref().and_then(|m| m.document()) else { return vec![] };
    let found = ["label_names", "fine_label_names"].iter().find_map(|name| document.find(name).ok()?);
    match found.map(|id| document.tree().value(id)) {
        Some(Value::List(items)) => {
            items.iter().filter_map(|i| document.tree().text(*i)).map(|t| t.into_owned()).collect()
        }
        _ => vec![],
    }
}
