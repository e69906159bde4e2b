//! `load` and `save` for arrays: .npy, .npz, .safetensors.
use super::Defs;
use crate::files::{npy, safetensors};
use crate::script::error::RhaiResult;
use crate::script::tree::{self, Tree};
use crate::tensor::aside;
use crate::tensor::device::default_device;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::{Array, Dynamic, Map};
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
    let (format, file) = (format(path)?, path.to_string());
    let (mut list, structure) = aside::run(usize::MAX, move || match format {
        "npy" => Ok((vec![(String::new(), npy::read_npy(file)?)], None)),
        "npz" => Ok((npy::read_npz(file)?, None)),
        _ => {
            let found = safetensors::read(file)?;
            Ok((found.tensors, found.metadata.into_iter().find(|(k, _)| k == tree::KEY).map(|(_, v)| v)))
        }
    })?;
    let device = default_device();
    for (_, t) in &mut list {
        *t = t.to_device(&device).map_err(Error::from)?;
    }
    Ok(match (format, structure) {
        ("npy", _) => Dynamic::from(list.remove(0).1),
        (_, Some(structure)) => tree::parse(&structure, list).map_err(|e| e.context(path))?,
        _ => map(list),
    })
}

fn save_tree(path: &str, v: Dynamic, metadata: Map) -> RhaiResult<()> {
    let tree = Tree::read("save: the entries", &v)?;
    let text = |(k, v): (&rhai::Identifier, &Dynamic)| {
        let wrong = |t| Error::new(Kind::Type, format!("save: metadata `{k}` must be a text, not {t}"));
        Ok::<_, Error>((k.to_string(), v.clone().into_string().map_err(wrong)?))
    };
    let mut metadata = metadata.iter().map(text).collect::<Result<Vec<_>>>()?;
    if metadata.iter().any(|(k, _)| k == tree::KEY) {
        return Err(Error::value(format!("save: metadata `{}` is written by save itself", tree::KEY)).into());
    }
    let format = format(path)?;
    let names = tree.dotted().map_err(|e| e.context("save"))?;
    if format == "npz" && !(tree.is_flat() && metadata.is_empty()) {
        let e = Error::new(Kind::Type, "save: a .npz file holds tensors by name, no tree of them and no metadata");
        return Err(e.hint("use .safetensors").into());
    }
    if !tree.is_flat() {
        metadata.push((tree::KEY.into(), tree.structure(&names)));
    }
    let list: Vec<(String, Tensor)> = names.into_iter().zip(tree.leaves).collect();
    match format {
        "npy" => {
            let e = Error::new(Kind::Type, "save: a .npy file holds one tensor, not a map");
            return Err(e.hint("use .npz or .safetensors").into());
        }
        "npz" => npy::write_npz(path, &list)?,
        _ => safetensors::write(path, &list, &metadata)?,
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
               A .safetensors file into which `save` wrote a tree gives the tree back; `tree::nest` makes one of any other's dotted names. FP8 becomes f32. What is no array of numbers (texts, Python objects, complex numbers) is left out of a map with a note.\n\n\
               Errors: a missing file, a damaged one, a name that comes twice, nothing in it that is read.\n\nExample: `save(out(\"noise.npy\"), randn([2, 3])); load(out(\"noise.npy\")).shape` is [2, 3]";
    d.add("load", "path: string -> any", doc, load);
    let doc = "Writes a tensor to a .npy file, or a map of tensors to .npz or .safetensors; replaces the file as a whole.\n\n\
               Example: `save(out(\"samples.npz\"), #{ x: ones([2]), labels: arange(2) })`";
    d.add("save", "path: string, x: Tensor", doc, save);
    let doc = "Writes a map of tensors to .npz or .safetensors, or a tree of them (maps and arrays, one in the other) to .safetensors; replaces the file as a whole.\n\n\
               In the file the tensors of a tree have dotted names (`layers.2.weight`), as PyTorch's have, and `load` gives the tree back. `metadata`: texts by name, \
               for `checkpoint::open(path).metadata`. Errors name the entry that is no tensor.\n\n\
               Example: `save(out(\"net.safetensors\"), #{ layers: [#{ w: ones([2]) }] }); load(out(\"net.safetensors\")).layers[0].w` is [1, 1]";
    d.add("save", "path: string, tensors: map", doc, |path: &str, m: Map| save_tree(path, m.into(), Map::new()));
    d.add("save", "path: string, tensors: map, metadata: map", doc, |path: &str, m: Map, meta: Map| {
        save_tree(path, m.into(), meta)
    });
    d.add("save", "path: string, tensors: array", doc, |path: &str, a: Array| save_tree(path, a.into(), Map::new()));
}
