//! `load` and `save` for arrays: .npy, .npz, .safetensors.
use super::{Defs, args};
use crate::files::{npy, safetensors};
use crate::script::error::RhaiResult;
use crate::tensor::aside;
use crate::tensor::device::default_device;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::{Dynamic, Map};
use std::path::Path;

const KNOWN: [&str; 3] = ["npy", "npz", "safetensors"];

/// The format that the extension of `path` names.
fn format(path: &str) -> Result<&'static str> {
    let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    match KNOWN.iter().find(|k| **k == extension) {
        Some(k) => Ok(k),
        None if extension.is_empty() => {
            let e = Error::value(format!("`{path}` has no extension that says what it holds"));
            Err(e.hint("known: .npy, .npz, .safetensors"))
        }
        None => Err(Error::unknown("array format", &extension, KNOWN)),
    }
}

fn map(list: Vec<(String, Tensor)>) -> Dynamic {
    list.into_iter().map(|(k, t)| (k.into(), Dynamic::from(t))).collect::<Map>().into()
}

fn load(path: &str) -> RhaiResult<Dynamic> {
    let (format, path) = (format(path)?, path.to_string());
    let mut list = aside::run(usize::MAX, move || match format {
        "npy" => Ok(vec![(String::new(), npy::read_npy(path)?)]),
        "npz" => npy::read_npz(path),
        _ => Ok(safetensors::read(path)?.tensors),
    })?;
    let device = default_device();
    for (_, t) in &mut list {
        *t = t.to_device(&device).map_err(Error::from)?;
    }
    Ok(match format {
        "npy" => Dynamic::from(list.remove(0).1),
        _ => map(list),
    })
}

fn save_map(path: &str, m: Map) -> RhaiResult<()> {
    let list = m
        .iter()
        .map(|(k, v)| Ok((k.to_string(), args::tensor(&format!("save: entry `{k}`"), v)?)))
        .collect::<Result<Vec<_>>>()?;
    match format(path)? {
        "npy" => {
            let e = Error::new(Kind::Type, "save: a .npy file holds one tensor, not a map");
            return Err(e.hint("use .npz or .safetensors").into());
        }
        "npz" => npy::write_npz(path, &list)?,
        _ => safetensors::write(path, &list, &[])?,
    }
    Ok(())
}

fn save(path: &str, t: Tensor) -> RhaiResult<()> {
    match format(path)? {
        "npy" => Ok(npy::write_npy(path, &t)?),
        kind => {
            let e = Error::new(Kind::Type, format!("save: a .{kind} file holds named tensors"));
            Err(e.hint("pass a map, `#{ x: tensor }`, or use .npy").into())
        }
    }
}

pub(super) fn register(d: &mut Defs) {
    let doc = "Reads a .npy file (a tensor), or a .npz or .safetensors file (a map of tensors), onto the CPU.\n\n\
               FP8 becomes f32. What is no array of numbers (texts, Python objects, complex numbers) is left out of a map with a note.\n\n\
               Errors: a missing file, a damaged one, a name that comes twice, nothing in it that is read.\n\nExample: `save(out(\"noise.npy\"), randn([2, 3])); load(out(\"noise.npy\")).shape` is [2, 3]";
    d.add("load", "path: string -> any", doc, load);
    let doc = "Writes a tensor to a .npy file, or a map of tensors to .npz or .safetensors; replaces the file as a whole.\n\n\
               Example: `save(out(\"samples.npz\"), #{ x: ones([2]), labels: arange(2) })`";
    d.add("save", "path: string, x: Tensor", doc, save);
    d.add("save", "path: string, tensors: map", doc, save_map);
}
