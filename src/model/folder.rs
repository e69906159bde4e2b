//! Models as diffusers writes them: a folder with a part in each of its folders, or one such part.
use crate::files::checkpoint::{self, Checkpoint};
use crate::files::{atomic, json};
use crate::{Error, Kind, Result, access};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Parts that are read from here, by the folder and by the class in its configuration.
const PARTS: [(&str, &[&str]); 3] = [
    ("unet", &["UNet2DConditionModel"]),
    (
        "transformer",
        &["DiTTransformer2DModel", "Transformer2DModel", "SD3Transformer2DModel", "FluxTransformer2DModel"],
    ),
    ("vae", &["AutoencoderKL"]),
];
/// What a part's weights are called, the first one that is there; an index lists several files.
const WEIGHTS: [&str; 6] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.fp16.bin",
];
const CONFIG: &str = "config.json";

/// The tensors of a folder's parts, as `unet/…` and `vae/…`, with the configurations as metadata `unet.config`, `vae.config` and
/// `scheduler.config`.
pub fn open(folder: &Path) -> Result<Checkpoint> {
    let (mut tensors, mut metadata) = (BTreeMap::new(), BTreeMap::new());
    let alone = access::read(folder.join(CONFIG))?.exists();
    for (name, classes) in PARTS {
        let at = if alone { folder.to_path_buf() } else { folder.join(name) };
        let config = at.join(CONFIG);
        if !access::read(&config)?.exists() {
            continue;
        }
        let text = atomic::read_text(&config)?;
        let parsed = json::parse(&text).map_err(|e| e.context(format!("`{}`", config.display())))?;
        let own = parsed.get("_class_name").and_then(|c| c.as_str()).unwrap_or(classes[0]);
        if !classes.contains(&own) {
            if alone {
                continue;
            }
            let m = format!("`{}` is of class {own}, which is not read yet; {} is", at.display(), classes.join(", "));
            return Err(Error::new(Kind::Format, m));
        }
        for (key, view) in weights(&at)? {
            tensors.insert(format!("{name}/{key}"), view);
        }
        metadata.insert(format!("{name}.config"), text);
    }
    let scheduler = folder.join("scheduler").join("scheduler_config.json");
    if access::read(&scheduler)?.exists() {
        metadata.insert("scheduler.config".into(), atomic::read_text(&scheduler)?);
    }
    match tensors.is_empty() {
        false => Ok(Checkpoint::joined(tensors, metadata)),
        true => Err(Error::new(Kind::Format, format!("`{}` is a folder without a model", folder.display())).hint(
            "a model's folder has `unet`, `transformer` or `vae` in it, each with `config.json` and weights, as diffusers writes them",
        )),
    }
}

type Views = BTreeMap<String, crate::files::torch::View>;

/// The tensors of one part, of one file or of several.
fn weights(folder: &Path) -> Result<Views> {
    for name in WEIGHTS {
        let path = folder.join(name);
        if !access::read(&path)?.exists() {
            continue;
        }
        if !name.ends_with(".json") {
            return Ok(checkpoint::open(&path)?.tensors().clone());
        }
        return sharded(folder, &path);
    }
    let m = format!("`{}` has a configuration but no weights", folder.display());
    Err(Error::new(Kind::Format, m).hint(format!("put `{}` there", WEIGHTS[0])))
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
