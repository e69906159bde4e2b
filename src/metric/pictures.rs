//! Pictures on disk, batch by batch: a folder of PNG files, or an `.npz` as evaluations read it.
use crate::access;
use crate::files::image::Image;
use crate::files::npy;
use crate::host::check_cancelled;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Calls `f` with pictures [B, C, H, W] with values in [−1, 1], at most `batch` at a time, in the order of their names (an `.npz`'s: of
/// `arr_0`, uint8 [N, H, W, C]), from the first up to `most`. Returns how many there were.
///
/// Errors: no pictures, pictures of different sizes, files that are damaged; each names the file.
pub fn each_batch(path: &Path, batch: usize, most: usize, f: &mut dyn FnMut(&Tensor) -> Result<()>) -> Result<usize> {
    let batch = batch.max(1);
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        return of_npz(path, batch, most, f);
    }
    let mut files = vec![];
    list(path, &mut files, 2)?;
    files.sort();
    files.truncate(most);
    if files.is_empty() {
        let e = Error::new(Kind::Io, format!("there are no PNG files in `{}`", path.display()));
        return Err(e.hint("name a folder with pictures, or an `.npz` with `arr_0`"));
    }
    let mut first: Option<Vec<usize>> = None;
    for files in files.chunks(batch) {
        check_cancelled()?;
        let images: Vec<Result<Tensor>> = files.par_iter().map(|file| Image::load(file)?.to_tensor()).collect();
        let images = images.into_iter().collect::<Result<Vec<Tensor>>>()?;
        for (image, file) in images.iter().zip(files) {
            let dims = first.get_or_insert_with(|| image.dims().to_vec());
            if image.dims() != &dims[..] {
                let m = format!("`{}` has {:?} where the first has {dims:?}", file.display(), image.dims());
                return Err(Error::shape(m, &[image.dims(), dims]).hint("bring the pictures to one size first"));
            }
        }
        f(&Tensor::stack(&images, 0)?)?;
    }
    Ok(files.len())
}

/// The PNG files in a folder and in those that it holds, `depth` deep.
fn list(dir: &Path, files: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    let failed = |e| Error::io(dir, "list", e);
    for entry in access::read(dir)?.list().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && depth > 0 {
            list(&path, files, depth - 1)?;
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            files.push(path);
        }
    }
    Ok(())
}

fn of_npz(path: &Path, batch: usize, most: usize, f: &mut dyn FnMut(&Tensor) -> Result<()>) -> Result<usize> {
    let arrays = npy::read_npz(path)?;
    let found = arrays.into_iter().find(|(name, _)| name == "arr_0").map(|(_, t)| t);
    let Some(pixels) = found.filter(|t| t.dtype() == DType::U8 && t.rank() == 4 && t.elem_count() > 0) else {
        let m = format!("`{}` holds no pictures: expected `arr_0`, uint8 [N, H, W, C]", path.display());
        return Err(Error::new(Kind::Format, m));
    };
    let n = pixels.dim(0)?.min(most);
    for from in (0..n).step_by(batch) {
        check_cancelled()?;
        let x = pixels.narrow(0, from, batch.min(n - from))?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        f(&x.permute((0, 3, 1, 2))?.affine(2.0 / 255.0, -1.0)?.contiguous()?)?;
    }
    Ok(n)
}
