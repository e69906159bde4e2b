//! Published models: found by name or file, told by their content, built from their parts.
mod folder;
mod through;

pub use folder::beside;
pub use through::{through, through_some};

use crate::files::checkpoint::{self, Checkpoint};
use crate::files::pickle::Shared;
use crate::host::Host;
use crate::nets::edm;
use crate::nets::family::{self, FAMILIES, Family, Files, Parts};
use crate::nets::instead::{self, Holds};
use crate::nets::network::Net;
use crate::nets::weights::File;
use crate::{Error, Kind, Result, zoo};
use candle_core::{DType, Device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A checkpoint of any family: safetensors, or a pickle as it is published; or a folder as diffusers writes it.
    Path(PathBuf),
    /// A model compiled in, by name (see [`builtins`]).
    Builtin(&'static str),
}

/// The names that [`Source::Builtin`] knows.
pub fn builtins() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|f| f.builtin).map(|(name, _)| *name)
}

/// What a user means by a name: a built-in model, a file, or a published denoiser, which is downloaded where need be.
///
/// Fails with the nearest name where it is none of these.
pub fn find(name: &str, host: &dyn Host) -> Result<Source> {
    if let Some(known) = builtins().find(|b| *b == name) {
        return Ok(Source::Builtin(known));
    }
    let path = Path::new(name);
    let here = || crate::access::read(path).is_ok_and(|file| file.exists());
    if path.components().count() != 1 || here() {
        if !crate::access::read(path)?.is_dir() {
            crate::files::atomic::existing(path)?;
        }
        return Ok(Source::Path(path.into()));
    }
    if zoo::folder(name).is_some() {
        return Ok(Source::Path(zoo::locate_folder(name, host)?));
    }
    match zoo::find(name) {
        Some(e) if e.role == zoo::Role::Denoiser => Ok(Source::Path(zoo::locate(name, host)?)),
        Some(e) => {
            let m = format!("`{name}` is not a denoiser ({})", e.about);
            Err(Error::value(m).hint("`ld3sh models` lists what there is"))
        }
        None => {
            // a file that may not be read is not called absent
            crate::access::read(path)?;
            let networks = zoo::ENTRIES.iter().filter(|e| e.role == zoo::Role::Denoiser).map(|e| e.name);
            let folders = zoo::FOLDERS.iter().map(|f| f.name);
            let known: Vec<&str> = builtins().chain(networks).chain(folders).collect();
            if path.extension().is_some() && crate::error::nearest(name, known.iter().copied()).is_none() {
                crate::files::atomic::existing(path)?;
            }
            Err(Error::unknown("network, and there is no such file:", name, known))
        }
    }
}

/// Loads a model onto a device, in f32, f64, f16 or bf16 (bf16 on a GPU only; f16 on the CPU works, but slowly).
///
/// Fails with [`Kind::Io`] where the file cannot be read, and with [`Kind::Format`], naming the file and the tensor or
/// configuration key, where its content is not a complete network of a known family.
pub fn load(source: &Source, device: &Device, dtype: DType) -> Result<Parts> {
    load_by(FAMILIES, source, device, dtype)
}

/// What the user says of a model that its file does not: options of its family, by name.
pub type Given = BTreeMap<String, serde_json::Value>;

/// The same with options; one that the family does not have is an error.
pub fn load_given(source: &Source, device: &Device, dtype: DType, given: Given) -> Result<Parts> {
    load_from(FAMILIES, source, device, dtype, given)
}

/// The same as [`load`] with families of one's own.
pub fn load_by(families: &[Family], source: &Source, device: &Device, dtype: DType) -> Result<Parts> {
    load_from(families, source, device, dtype, Given::new())
}

fn load_from(families: &[Family], source: &Source, device: &Device, dtype: DType, given: Given) -> Result<Parts> {
    if !matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
        return Err(Error::value(format!("a network runs in f32, f64, f16 or bf16, not {}", dtype.as_str())));
    }
    if dtype == DType::BF16 && device.is_cpu() {
        return Err(Error::new(Kind::Device, "bf16 has no matrix product on the CPU").hint("use f32, or a GPU"));
    }
    match source {
        Source::Path(path) if crate::nets::onnx::is_called(path) => {
            let m = format!("`{}` is an ONNX file, which does not say what its network predicts", path.display());
            let e = Error::new(Kind::Format, m);
            Err(e.hint(format!(
                "say so: `denoiser::onnx(\"{}\", #{{ noise: noise::vp_linear(), predicts: \"noise\" }})`",
                path.display()
            )))
        }
        Source::Path(path) => {
            let checkpoint = match crate::access::read(path)?.is_dir() {
                true => folder::open(path)?,
                false => folder::beside(path, checkpoint::open(path)?)?,
            };
            build(families, &checkpoint, device, dtype, given).map_err(|e| e.context(format!("`{}`", path.display())))
        }
        Source::Builtin(name) => {
            let all = || families.iter().flat_map(|f| f.builtin);
            match all().find(|(n, _)| n == name) {
                Some((_, files)) => build(families, &joined(files)?, device, dtype, given),
                None => Err(Error::unknown("built-in network", name, all().map(|(n, _)| *n))),
            }
        }
    }
}

/// The files of a model that is compiled in, as one checkpoint.
fn joined(files: Files) -> Result<Checkpoint> {
    let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
    for bytes in files {
        let one = checkpoint::from_bytes(&Shared::new(bytes), true)?;
        tensors.extend(one.tensors().clone());
        metadata.extend(one.metadata().clone());
    }
    Ok(Checkpoint::joined(tensors, metadata))
}

fn build(families: &[Family], checkpoint: &Checkpoint, device: &Device, dtype: DType, given: Given) -> Result<Parts> {
    let (family, (tensors, metadata)) = match family::recognise(families, checkpoint)? {
        Some(found) => found,
        // which says what is there instead
        None => {
            what_else(checkpoint)?;
            return edm::describe(checkpoint).and(Err(Error::new(Kind::Format, "it holds no known network")));
        }
    };
    let mut file = File::new(&tensors, &metadata, device, dtype);
    file.given(given);
    let parts = (family.build)(&mut file)?;
    file.all_asked()?;
    Ok(parts)
}

/// Fails with its name where a checkpoint is something else that is known.
fn what_else(checkpoint: &checkpoint::Checkpoint) -> Result<()> {
    match instead::told(checkpoint.tensors(), Holds::Denoiser) {
        Some(known) => Err(Error::new(Kind::Format, format!("the file holds {}", known.what)).hint(known.fix)),
        None => Ok(()),
    }
}

/// The denoiser's network of a model.
pub fn denoiser(source: &Source, device: &Device, dtype: DType) -> Result<Net> {
    family::denoiser(load(source, device, dtype)?)
}

/// The same with options.
pub fn denoiser_given(source: &Source, device: &Device, dtype: DType, given: Given) -> Result<Net> {
    family::denoiser(load_given(source, device, dtype, given)?)
}
