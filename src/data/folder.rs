//! Pictures in a folder and the folders in it, whose names are their classes.
use super::{Labels, Picture, Source};
use crate::files::image::Image;
use crate::host::check_cancelled;
use crate::{Error, Kind, Result, access};
use std::path::{Path, PathBuf};

/// How pictures' names end.
pub(super) const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Folders within folders.
const DEPTH: usize = 16;
/// The most files that are listed.
const MOST: usize = 100_000_000;

/// The pictures below a folder, by name.
#[derive(Debug)]
pub(super) struct Folder {
    files: Vec<(PathBuf, Option<u32>)>,
}

/// Finds the pictures below `dir`; their classes' names.
pub(super) fn open(dir: &Path, labels: Labels) -> Result<(Folder, Vec<String>)> {
    let mut files = vec![];
    list(dir, &mut files, DEPTH)?;
    files.sort();
    if files.is_empty() {
        let e = Error::new(Kind::Format, format!("there are no pictures in `{}`", dir.display()));
        return Err(e.hint("pictures are files whose names end in .png, .jpg or .jpeg"));
    }
    // a class is a folder right below `dir`
    let class = |file: &PathBuf| {
        let inner = file.strip_prefix(dir).ok()?.parent()?.components().next()?;
        Some(inner.as_os_str().to_string_lossy().into_owned())
    };
    let named: Vec<Option<String>> = match labels {
        Labels::None => vec![None; files.len()],
        _ => files.iter().map(class).collect(),
    };
    let mut classes: Vec<String> = named.iter().flatten().cloned().collect();
    classes.sort();
    classes.dedup();
    match files.iter().zip(&named).find(|(_, class)| class.is_none()) {
        Some((file, _)) if labels == Labels::Folders => {
            let e = Error::value(format!("data: `{}` is in no folder that names its class", file.display()));
            return Err(e.hint("put it into one, or leave labels out: `labels: \"none\"`"));
        }
        // some pictures beside the folders: no classes
        Some(_) => classes.clear(),
        None => {}
    }
    let label = |class: &Option<String>| classes.binary_search(class.as_ref()?).ok().map(|i| i as u32);
    let files = files.into_iter().zip(&named).map(|(file, class)| (file, label(class))).collect();
    Ok((Folder { files }, classes))
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e))
}

fn list(dir: &Path, files: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    let failed = |e| Error::io(dir, "list", e);
    check_cancelled()?;
    for entry in access::read(dir)?.list().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden {
            continue;
        }
        if path.is_dir() {
            match depth {
                0 => return Err(Error::value(format!("data: `{}` is more than {DEPTH} folders deep", path.display()))),
                _ => list(&path, files, depth - 1)?,
            }
        } else if is_picture(&path) {
            files.push(path);
            if files.len() > MOST {
                return Err(Error::value(format!("data: there are more than {MOST} pictures in `{}`", dir.display())));
            }
        }
    }
    Ok(())
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }
    fn read(&self, i: usize) -> Result<Picture> {
        Ok(Picture::Bytes(Image::load(&self.files[i].0)?))
    }
    fn trace(&self, i: usize) -> u64 {
        crate::files::atomic::existing(&self.files[i].0).map_or(0, |m| m.len())
    }
    fn name(&self, i: usize) -> String {
        self.files[i].0.display().to_string()
    }
    fn label(&self, i: usize) -> Option<usize> {
        self.files[i].1.map(|l| l as usize)
    }
}
