//! Models as diffusers writes them: a folder with a part in each of its folders, or one such part.
use crate::files::checkpoint::{self, Checkpoint};
use crate::files::{atomic, json, shards};
use crate::nets::docking::{self, PARAMETERS};
use crate::{Error, Kind, Result, access};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Parts that are read from here, by the folder and by the class in its configuration.
const PARTS: [(&str, &[&str]); 3] = [
    ("unet", &["UNet2DConditionModel"]),
    (
        "transformer",
        &[
            "DiTTransformer2DModel",
            "Transformer2DModel",
            "SD3Transformer2DModel",
            "FluxTransformer2DModel",
            "PixArtTransformer2DModel",
        ],
    ),
    ("vae", &["AutoencoderKL"]),
];
/// What a part's weights are called, the first one that is there; an index lists several files.
const WEIGHTS: [&str; 7] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.fp16.bin",
];
const CONFIG: &str = "config.json";

/// What DiffDock calls its weights, the first one that is there.
const DOCKING: [&str; 3] = ["model.safetensors", "best_ema_inference_epoch_model.pt", "best_model_epoch75.pt"];

/// A checkpoint with the training parameters that stand beside it, where it holds a network that needs them.
pub fn beside(path: &Path, checkpoint: Checkpoint) -> Result<Checkpoint> {
    let parameters = path.with_file_name(PARAMETERS);
    let there = || access::read(&parameters).is_ok_and(|file| file.exists());
    match docking::holds(&checkpoint) && there() {
        true => Ok(checkpoint.told(PARAMETERS, atomic::read_text(&parameters)?)),
        false => Ok(checkpoint),
    }
}

/// The weights in a folder of DiffDock's.
fn of_docking(folder: &Path) -> Result<PathBuf> {
    for name in DOCKING {
        let path = folder.join(name);
        if access::read(&path)?.exists() {
            return Ok(path);
        }
    }
    let m = format!("`{}` has `{PARAMETERS}` but no weights that are known by name", folder.display());
    Err(Error::new(Kind::Format, m).hint(format!("known are {}; or load the file itself", DOCKING.join(", "))))
}

/// The tensors of a folder's parts, as `unet/…` and `vae/…`, with the configurations as metadata `unet.config`, `vae.config` and
/// `scheduler.config`.
pub fn open(folder: &Path) -> Result<Checkpoint> {
    if access::read(folder.join(PARAMETERS))?.exists() {
        let path = of_docking(folder)?;
        return beside(&path, checkpoint::open(&path)?);
    }
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

/// The tensors of one part, of one file or of several.
fn weights(folder: &Path) -> Result<shards::Views> {
    shards::weights(folder, &WEIGHTS)?.ok_or_else(|| {
        let m = format!("`{}` has a configuration but no weights", folder.display());
        Error::new(Kind::Format, m).hint(format!("put `{}` there", WEIGHTS[0]))
    })
}
