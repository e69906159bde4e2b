//! Point clouds in files: PLY, XYZ and npy, told apart by the name's ending.
pub mod ply;
pub mod xyz;

use super::{atomic, npy};
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// The endings by which clouds are read and written.
pub const ENDINGS: [&str; 4] = ["ply", "xyz", "txt", "npy"];

/// What a file is by its name.
enum Format {
    Ply,
    Xyz,
    Npy,
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        match &*ending {
            "ply" => Ok(Format::Ply),
            "xyz" | "txt" => Ok(Format::Xyz),
            "npy" => Ok(Format::Npy),
            _ => {
                let m = format!("`{}`: a cloud's file ends in .{}", path.display(), ENDINGS.join(", ."));
                Err(Error::value(m).hint("choose one of these by the name"))
            }
        }
    }
}

/// Numbers of points as they stand in a file, in the narrowest type that holds them.
#[derive(Debug, PartialEq)]
pub enum Points {
    /// Three for each point.
    Single(Vec<f32>),
    /// The same.
    Double(Vec<f64>),
}

impl Points {
    /// As a tensor [N, 3]. Errors where there are none.
    pub fn tensor(self) -> Result<Tensor> {
        let of = |len: usize| match len / 3 {
            0 => Err(Error::new(Kind::Format, "the file holds no points").hint("a cloud needs at least one")),
            n => Ok((n, 3)),
        };
        Ok(match self {
            Points::Single(v) => Tensor::from_vec(v.clone(), of(v.len())?, &Device::Cpu)?,
            Points::Double(v) => Tensor::from_vec(v.clone(), of(v.len())?, &Device::Cpu)?,
        })
    }
}

/// Reads one cloud [N, 3] from PLY, XYZ or npy, or several [B, N, 3] from npy; f32, or f64 where the file has them so.
///
/// Errors name the file, and the line, point or byte that is at fault.
pub fn load(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let read = || match Format::of(path)? {
        Format::Npy => {
            let t = npy::read_npy(path)?;
            let fits = matches!(t.dims(), [.., 3]) && (2..=3).contains(&t.rank()) && t.elem_count() > 0;
            if !fits {
                let m = format!("`{}` holds an array {:?}, and no clouds", path.display(), t.dims());
                return Err(Error::shape(m, &[t.dims()]).hint("clouds are [N, 3], or several [B, N, 3]"));
            }
            Ok(if t.dtype().is_float() { t } else { t.to_dtype(DType::F32)? })
        }
        Format::Ply => ply::read(&bytes(path)?)?.tensor(),
        Format::Xyz => xyz::read(&bytes(path)?)?.tensor(),
    };
    let within = format!("`{}`", path.display());
    read().map_err(|e| if e.message().contains(&within) { e } else { e.context(within) })
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let size = crate::access::read(path)?.meta().map_or(0, |m| m.len());
    memory::room("reading a cloud", usize::try_from(size).unwrap_or(usize::MAX).saturating_mul(2))?;
    atomic::read(path)
}

/// Writes one cloud [N, 3] as PLY or XYZ, and one or several [B, N, 3] as npy, as a whole or not at all; `ascii` for a PLY as text.
///
/// Errors: several clouds in a file of one, numbers that are not finite, an ending that is not known.
pub fn save(path: impl AsRef<Path>, x: &Tensor, ascii: bool) -> Result<()> {
    let path = path.as_ref();
    let format = Format::of(path)?;
    let x = x.detach().to_device(&Device::Cpu)?;
    let wrong = |m: String, hint: &str| Err(Error::shape(m, &[x.dims()]).hint(hint));
    match (x.dims(), &format) {
        ([n, 3], _) if *n > 0 => {}
        ([1, n, 3], _) if *n > 0 => {}
        ([b, n, 3], Format::Npy) if b * n > 0 => {}
        ([_, _, 3], _) => {
            let m = format!("`{}`: there is one cloud in a file of this kind, not {:?}", path.display(), x.dims());
            return wrong(m, "save them one by one, or all of them as .npy");
        }
        (dims, _) => {
            return wrong(format!("cloud::save: expected a cloud [N, 3], got {dims:?}"), "each point is x, y, z");
        }
    }
    if ascii && !matches!(format, Format::Ply) {
        return Err(Error::value("cloud::save: `ascii` is of PLY").hint("XYZ is text anyway, and npy is not"));
    }
    let flat = x.flatten_all()?;
    let points = match x.dtype() {
        DType::F64 => Points::Double(flat.to_vec1()?),
        _ => Points::Single(flat.to_dtype(DType::F32)?.to_vec1()?),
    };
    let finite = match &points {
        Points::Single(v) => v.iter().position(|v| !v.is_finite()),
        Points::Double(v) => v.iter().position(|v| !v.is_finite()),
    };
    if let Some(at) = finite {
        return Err(
            Error::value(format!("cloud::save: point {} is not finite", at / 3)).hint("look at what made the cloud")
        );
    }
    match format {
        Format::Npy => npy::write_npy(path, &x),
        Format::Ply => atomic::write_with(path, |f| ply::write(f, &points, ascii)),
        Format::Xyz => atomic::write_with(path, |f| xyz::write(f, &points)),
    }
}
