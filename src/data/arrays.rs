//! Pictures in arrays: `.npy`, `.npz`, and tensors of a script.
use super::{Picture, Source};
use crate::files::image::Image;
use crate::files::npy;
use crate::host::note;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// What arrays of pictures and of labels are called, in the order of preference.
const PICTURES: [&str; 5] = ["arr_0", "x", "images", "samples", "data"];
const LABELS: [&str; 4] = ["arr_1", "y", "labels", "label"];

/// An array of pictures.
#[derive(Debug)]
pub(super) struct Arrays {
    /// Bytes [N, H, W, C], or numbers [N, C, H, W].
    pixels: Tensor,
    labels: Option<Vec<i64>>,
    /// What they are from.
    of: String,
}

/// The arrays of a `.npy` or `.npz` file.
pub(super) fn open(path: &Path, labels: bool) -> Result<Arrays> {
    let of = path.display().to_string();
    let archive = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    let mut arrays = match archive {
        true => npy::read_npz(path)?,
        false => vec![("arr_0".into(), npy::read_npy(path)?)],
    };
    let mut take = |names: &[&str]| {
        let at = names.iter().find_map(|name| arrays.iter().position(|(n, _)| n == name));
        at.map(|i| arrays.swap_remove(i).1)
    };
    let Some(pixels) = take(&PICTURES) else {
        let names: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
        let e = Error::new(Kind::Format, format!("`{of}` has no array of pictures, but {}", names.join(", ")));
        return Err(e.hint(format!("pictures are the array {}: [N, H, W, C] or [N, C, H, W]", PICTURES.join(" or "))));
    };
    let found = if labels { take(&LABELS) } else { None };
    let classes = found.map(|t| numbers(&t, &of)).transpose()?;
    self::of(&pixels, classes, &of)
}

/// Labels [N], or one-hot rows [N, classes].
fn numbers(t: &Tensor, of: &str) -> Result<Vec<i64>> {
    let flat = match *t.dims() {
        [_] | [_, 1] => t.flatten_all()?,
        [_, _] => t.argmax(1)?,
        _ => return Err(Error::shape(format!("`{of}`: labels are [N] or rows [N, classes]"), &[t.dims()])),
    };
    Ok(flat.to_dtype(DType::I64)?.to_vec1()?)
}

/// Pictures that are there, with labels or none: bytes [N, H, W, C], [N, C, H, W] or [N, H, W], numbers [N, C, H, W] or [N, H, W].
pub(super) fn of(x: &Tensor, labels: Option<Vec<i64>>, of: &str) -> Result<Arrays> {
    let last = |dims: &[usize]| matches!(dims.last(), Some(1 | 3));
    let x = x.detach().to_device(&Device::Cpu)?;
    let shape = x.dims().to_vec();
    let pixels = match (x.dtype() == DType::U8, x.rank()) {
        (true, 3) => x.unsqueeze(3)?,
        (true, 4) if last(x.dims()) => {
            if matches!(x.dims()[1], 1 | 3) {
                note(&format!("`{of}`: {:?} is read as [N, H, W, C]", x.dims()));
            }
            x
        }
        (true, 4) if matches!(x.dims()[1], 1 | 3) => x.permute((0, 2, 3, 1))?,
        (false, 3) => x.unsqueeze(1)?,
        (false, 4) => x,
        _ => {
            let m = format!("`{of}` holds no pictures of 1 or 3 channels: its shape is {:?}", x.dims());
            return Err(Error::shape(m, &[x.dims()]).hint("pictures are [N, H, W, C], [N, C, H, W] or [N, H, W]"));
        }
    };
    if pixels.elem_count() == 0 {
        return Err(Error::shape(format!("`{of}` holds no pictures: its shape is {shape:?}"), &[&shape]));
    }
    let n = pixels.dim(0)?;
    if let Some(labels) = &labels {
        if labels.len() != n {
            return Err(Error::value(format!("`{of}`: {} labels for {n} pictures", labels.len())));
        }
        if let Some(bad) = labels.iter().find(|l| **l < 0) {
            return Err(Error::value(format!("`{of}`: {bad} is no label")).hint("labels count from 0"));
        }
    }
    Ok(Arrays { pixels: pixels.contiguous()?, labels, of: of.into() })
}

/// The values as bytes.
fn bits(t: &Tensor) -> Result<Vec<u8>> {
    let t = t.flatten_all()?;
    if t.dtype() == DType::U8 {
        return Ok(t.to_vec1()?);
    }
    Ok(t.to_dtype(DType::F64)?.to_vec1::<f64>()?.into_iter().flat_map(f64::to_le_bytes).collect())
}

impl Source for Arrays {
    fn len(&self) -> usize {
        self.pixels.dims()[0]
    }
    fn read(&self, i: usize) -> Result<Picture> {
        let one = self.pixels.get(i)?;
        if one.dtype() != DType::U8 {
            return Ok(Picture::Values(one));
        }
        let (height, width, channels) = one.dims3()?;
        Ok(Picture::Bytes(Image { width, height, channels, data: one.flatten_all()?.to_vec1()? }))
    }
    fn trace(&self, i: usize) -> u64 {
        let bytes = self.pixels.get(i).map_err(crate::Error::from).and_then(|t| bits(&t));
        bytes.map_or(0, |b| u64::from(crc32fast::hash(&b)))
    }
    fn name(&self, i: usize) -> String {
        format!("{}[{i}]", self.of)
    }
    fn label(&self, i: usize) -> Option<usize> {
        self.labels.as_ref().and_then(|l| usize::try_from(l[i]).ok())
    }
}
