//! Models that are published as folders, as diffusers writes them: which there are, and how they get here, file by file.
use super::hub::{self, Listed};
use super::wanted::Wanted;
use super::{Settings, State, absent, fetch, licence, verify};
use crate::host::Host;
use crate::{Error, Kind, Result, access};
use std::path::{Path, PathBuf};

/// A folder at the hub.
#[derive(Debug, Clone, Copy)]
pub struct Folder {
    /// The name that scripts use, and that it has here.
    pub name: &'static str,
    /// Its repository at the hub.
    pub repository: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// The licence under which it is published.
    pub licence: &'static str,
    /// Whether the licence asks to be accepted before.
    pub asks: bool,
}

const fn folder_of(
    name: &'static str,
    repository: &'static str,
    about: &'static str,
    licence: &'static str,
    asks: bool,
) -> Folder {
    Folder { name, repository, about, licence, asks }
}

const STABILITY: &str = "Stability AI Community License";

/// All folders that are known by name.
pub const FOLDERS: &[Folder] = &[
    folder_of(
        "sdxl-base",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "Stable Diffusion XL",
        "CreativeML Open RAIL++-M",
        false,
    ),
    folder_of(
        "2-rectified-flow",
        "XCLiu/2_rectified_flow_from_sd_1_5",
        "2-rectified flow from Stable Diffusion 1.5 (with `predicts: \"velocity\"`)",
        "CC BY-NC 4.0 and CreativeML OpenRAIL-M",
        false,
    ),
    folder_of(
        "sd3-medium",
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "Stable Diffusion 3 medium, with T5",
        STABILITY,
        true,
    ),
    folder_of(
        "sd35-medium",
        "stabilityai/stable-diffusion-3.5-medium",
        "Stable Diffusion 3.5 medium, with T5",
        STABILITY,
        true,
    ),
    folder_of("flux1-schnell", "black-forest-labs/FLUX.1-schnell", "FLUX.1 [schnell], with T5", "Apache-2.0", false),
    folder_of(
        "flux1-dev",
        "black-forest-labs/FLUX.1-dev",
        "FLUX.1 [dev], with T5",
        "FLUX.1 [dev] Non-Commercial License",
        true,
    ),
    folder_of(
        "pixart-sigma-1024",
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        "PixArt-Σ 1024, with T5",
        "CreativeML Open RAIL++-M",
        false,
    ),
    folder_of("dit-xl-2-256", "facebook/DiT-XL-2-256", "DiT-XL/2, ImageNet 256×256", "CC BY-NC 4.0", false),
];

/// Parts that networks are read from, and what their weights are called.
const NETWORKS: [(&str, &str); 6] = [
    ("unet", "diffusion_pytorch_model"),
    ("transformer", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("text_encoder_3", "model"),
];
/// Parts of which all small files are read.
const SMALL: [&str; 4] = ["scheduler", "tokenizer", "tokenizer_2", "tokenizer_3"];

/// The folder of that name.
pub fn folder(name: &str) -> Option<&'static Folder> {
    FOLDERS.iter().find(|f| f.name == name)
}

/// The place of a folder on this machine; downloads it first where it is not there.
///
/// Files come one after the other, each as a single published file does: with progress, going on where an earlier download was
/// interrupted, compared with the SHA-256 that the hub tells. Errors say what is missing, and what to do.
pub fn locate_folder(name: &str, host: &dyn Host) -> Result<PathBuf> {
    match folder(name) {
        Some(f) => locate_folder_with(f, host, &Settings::from_env()?),
        None => Err(Error::unknown("published folder", name, FOLDERS.iter().map(|f| f.name))),
    }
}

/// As [`locate_folder`], with settings of one's own.
pub fn locate_folder_with(of: &Folder, host: &dyn Host, settings: &Settings) -> Result<PathBuf> {
    let path = settings.folder.join(of.name);
    let _own = access::policy::own();
    if access::read(&path)?.is_dir() {
        return Ok(path);
    }
    let by_hand = format!(
        "fetch the files of {} yourself and put them into `{}`, in folders as there",
        hub::page(of.repository),
        path.display()
    );
    if settings.offline {
        return Err(absent(of.name).hint(by_hand));
    }
    if of.asks && !licence::accepted()?.contains(of.name) {
        let m = format!("the licence of `{}` asks to be accepted first: {}", of.name, of.licence);
        let page = hub::page(of.repository);
        return Err(
            Error::new(Kind::Permission, m).hint(format!("read it at {page}, then `ld3sh models accept {}`", of.name))
        );
    }
    let part = settings.folder.join(format!("{}.incoming", of.name));
    let chosen = chosen(&hub::list(of.repository, settings).map_err(|e| e.context(format!("`{}`", of.name)))?);
    if chosen.is_empty() {
        let m = format!("`{}` holds no model as diffusers writes it", of.repository);
        return Err(Error::new(Kind::Format, m).hint(by_hand));
    }
    let count = chosen.len();
    for (i, file) in chosen.into_iter().enumerate() {
        let wanted = Wanted {
            name: format!("{} {}/{count} {}", of.name, i + 1, file.path),
            file: format!("{}/{}", of.name, file.path),
            address: hub::address(of.repository, &file.path),
            path: part.join(&file.path),
            licence: of.licence.into(),
            size: Some(file.size),
            sha256: file.sha256(),
        };
        // what is there already was checked when it came, or is now
        if !wanted.path.exists() && fetch::fetch(&wanted, host, settings)? {
            continue;
        }
        verify(&wanted, false)?;
    }
    access::write(&part)?.rename(&path).map_err(|e| Error::io(&path, "create", e))?;
    Ok(path)
}

/// What is there of a folder.
pub fn state_of_folder(of: &Folder, settings: &Settings) -> State {
    let size = |path: &Path| -> Option<u64> { access::read(path).ok().filter(|p| p.is_dir()).map(|_| total(path, 4)) };
    match (size(&settings.folder.join(of.name)), size(&settings.folder.join(format!("{}.incoming", of.name)))) {
        (Some(n), _) => State::Here(n),
        (None, Some(n)) => State::Part(n),
        (None, None) => State::Absent,
    }
}

/// Bytes of all files below a folder.
fn total(folder: &Path, depth: usize) -> u64 {
    let Ok(Ok(entries)) = access::read(folder).map(|f| f.list()) else { return 0 };
    let one = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() && depth > 0 => total(&entry.path(), depth - 1),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(one).sum()
}

/// The files of a repository that are read: of each network its configuration and one form of its weights, and what is small.
fn chosen(all: &[Listed]) -> Vec<Listed> {
    let mut names: Vec<String> = vec!["model_index.json".into()];
    let within = |part: &str| -> Vec<&str> {
        all.iter().filter_map(|f| f.path.strip_prefix(part)?.strip_prefix('/')).filter(|n| !n.contains('/')).collect()
    };
    for part in SMALL {
        let small = |n: &&str| [".json", ".txt", ".model"].iter().any(|end| n.ends_with(end));
        names.extend(within(part).into_iter().filter(small).map(|n| format!("{part}/{n}")));
    }
    for (part, stem) in NETWORKS {
        let there = within(part);
        if there.contains(&"config.json") {
            names.push(format!("{part}/config.json"));
        }
        names.extend(weights(&there, stem).into_iter().map(|n| format!("{part}/{n}")));
    }
    all.iter().filter(|f| names.contains(&f.path)).cloned().collect()
}

/// One form of a network's weights among the files beside them: safetensors before pickles, whole numbers before halves.
fn weights<'a>(there: &[&'a str], stem: &str) -> Vec<&'a str> {
    for (variant, kind) in [("", "safetensors"), (".fp16", "safetensors"), ("", "bin"), (".fp16", "bin")] {
        let stem = if kind == "bin" && stem == "model" { "pytorch_model" } else { stem };
        let (whole, shard) = (format!("{stem}{variant}.{kind}"), format!("{stem}{variant}-"));
        if let Some(one) = there.iter().find(|n| **n == whole) {
            return vec![*one];
        }
        let numbered = |n: &str| {
            let middle = n.strip_prefix(&shard).and_then(|n| n.strip_suffix(&format!(".{kind}")));
            middle.is_some_and(|m| {
                m.split_once("-of-").is_some_and(|(a, b)| [a, b].iter().all(|d| d.bytes().all(|b| b.is_ascii_digit())))
            })
        };
        let index = format!("{stem}.{kind}.index{variant}.json");
        let all: Vec<&str> = there.iter().copied().filter(|n| numbered(n) || *n == index).collect();
        if all.len() > 1 && all.contains(&&*index) {
            return all;
        }
    }
    vec![]
}

#[cfg(test)]
mod tests {
    use super::weights;

    #[test]
    fn one_form_of_the_weights_is_taken() {
        let stem = "diffusion_pytorch_model";
        let all = [
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.non_ema.safetensors",
        ];
        assert_eq!(weights(&all, stem), ["diffusion_pytorch_model.safetensors"]);
        assert_eq!(weights(&all[..3], stem), ["diffusion_pytorch_model.fp16.safetensors"]);
        assert_eq!(weights(&all[..2], stem), ["diffusion_pytorch_model.bin"]);
        assert!(weights(&all[..1], stem).is_empty());
        let shards = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "model.fp16.safetensors",
        ];
        assert_eq!(weights(&shards, "model"), shards[..3]);
        // an index without what it lists, and numbers without an index, are not whole
        assert_eq!(weights(&shards[2..], "model"), ["model.fp16.safetensors"]);
        assert_eq!(weights(&[shards[0], shards[3]], "model"), ["model.fp16.safetensors"]);
        assert_eq!(weights(&["pytorch_model.bin"], "model"), ["pytorch_model.bin"]);
    }
}
