//! The networks of EDM (Karras et al. 2022): their configuration, and a file per architecture.
mod blocks;
mod config;
mod dhariwal;
mod pickle;
mod precond;
mod songunet;

pub use config::{Config, PRECONDS};
pub(super) use pickle::plain_values;
pub use pickle::{describe, find_network};

use super::build::{Id, graph};
use super::family::{Family, Part, Parts, Role};
use super::graph::{Absent, Dim, Graph, Layout};
use super::network::{AUGMENT, CLASSES, Card, Net, STATE, TIME};
use super::runner::Runner;
use super::weights::{File, Names, Random, Weights};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device};

/// EDM's networks, of which a small one is compiled in.
pub const FAMILY: Family = Family {
    name: "EDM",
    recognises: pickle::find_network,
    build: |file| Ok(Parts::from([(Role::Denoiser, Part::Denoiser(network(file)?))])),
    builtin: &[("fashion28", &[include_bytes!("../../../models/fashion28-edm.safetensors")])],
};

/// What the architectures are given.
struct Inputs {
    /// [B, H, W, C].
    x: Id,
    /// [B].
    c_noise: Id,
    /// [B, classes], one-hot.
    classes: Option<Id>,
    /// [B, augment_dim].
    augment: Option<Id>,
}

/// The graph that a configuration describes, its images in `dtype`.
fn unet(config: &Config, weights: &mut dyn Weights, dtype: DType) -> Result<Graph> {
    // iDDPM's networks also predict variances
    let out = config.img_channels * if config.precond == "iDDPMPrecond" { 2 } else { 1 };
    graph(weights, "model.", dtype, |b| {
        b.wide(config.model_channels >= 64);
        let [h, c] = [config.img_resolution, config.img_channels].map(Dim::Exactly);
        let x = b.input(STATE, &[h, h, c], Layout::Image, Absent::Error)?;
        let c_noise = b.input(TIME, &[], Layout::Plain, Absent::Error)?;
        let mut rows = |name: &str, n: usize, absent| match n {
            0 => Ok(None),
            n => b.input(name, &[Dim::Exactly(n)], Layout::Plain, absent).map(Some),
        };
        let classes = rows(CLASSES, config.label_dim, Absent::Zeros)?;
        let augment = rows(AUGMENT, config.augment_dim, Absent::LeftOut)?;
        let given = Inputs { x, c_noise, classes, augment };
        let y = match &*config.model_type {
            "DhariwalUNet" => dhariwal::build(b, config, &given, out)?,
            _ => songunet::build(b, config, &given, out)?,
        };
        b.output("y", y, Layout::Image);
        Ok(())
    })
}

fn build(
    config: &Config,
    weights: &mut dyn Weights,
    classes: Vec<String>,
    hash: String,
    device: &Device,
    dtype: DType,
) -> Result<Net> {
    let precond = precond::Precond::build(config, weights)?;
    let runner = Runner::new(unet(config, weights, dtype)?, device, dtype);
    let sampled = precond.sampled();
    let precond::Precond { name: kind, predicts, time, trained } = precond;
    let architecture = config.architecture();
    let card = Card { kind, architecture, predicts, time, trained, sampled, classes, half: config.use_fp16 };
    Ok(Net::new(runner, card, hash))
}

/// The error for metadata that lack an entry.
fn missing(key: &str) -> Error {
    Error::new(Kind::Format, format!("the safetensors metadata has no `{key}`"))
        .hint("an EDM network needs `config` (JSON) and `precond` (\"EDMPrecond\") in its metadata")
}

/// The network that a file's metadata and tensors describe.
fn network(file: &mut File) -> Result<Net> {
    let precond = file.metadata("precond").ok_or_else(|| missing("precond"))?.to_string();
    let json = file.metadata("config").ok_or_else(|| missing("config"))?.to_string();
    // where the configuration does not name its architecture, the tensors do
    let like = if file.has("model.out_norm.weight") { "DhariwalUNet" } else { "SongUNet" };
    let config = Config::parse_as(&json, like)?.with_precond(&precond)?;
    let classes = class_names(file.metadata("classes"), config.label_dim)?;
    let (device, dtype) = (file.device.clone(), file.dtype);
    // names the kind where it is not EDM's own: what was cached before there were others stays valid
    let kind = if precond == "EDMPrecond" { "" } else { &*precond };
    let hash = file.hash(&format!("{json}\n{}{kind}", dtype.as_str()))?;
    build(&config, file, classes, hash, &device, dtype)
}

/// The tensors that a checkpoint of this configuration holds, by name and shape, in the order of the architecture. It builds the
/// network with zeros, so it takes the memory of one.
pub fn tensors(config: &Config) -> Result<Vec<(String, Vec<usize>)>> {
    let mut names = Names::default();
    build(config, &mut names, vec![], String::new(), &Device::Cpu, DType::F32)?;
    Ok(names.0)
}

fn class_names(json: Option<&str>, n: usize) -> Result<Vec<String>> {
    let Some(json) = json else { return Ok((0..n).map(|i| i.to_string()).collect()) };
    let names: Vec<String> = serde_json::from_str(json).map_err(|e| {
        Error::new(Kind::Format, format!("`classes` in the metadata cannot be read: {e}"))
            .hint("it must be a JSON array of strings")
    })?;
    match names.len() == n {
        true => Ok(names),
        false => Err(Error::new(Kind::Format, format!("`classes` has {} names, `label_dim` is {n}", names.len()))),
    }
}

/// A network with random f32 weights, for tests and benches: same seed, same weights.
pub fn random(config: &Config, seed: u64, device: &Device) -> Result<Net> {
    random_in(config, seed, device, DType::F32)
}

/// The same weights in a network that runs in another type.
pub fn random_in(config: &Config, seed: u64, device: &Device, dtype: DType) -> Result<Net> {
    config.check()?;
    let classes = class_names(None, config.label_dim)?;
    let json = serde_json::to_string(config).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
    let hash = match dtype {
        DType::F32 => format!("random {seed} {json}"),
        _ => format!("random {seed} {} {json}", dtype.as_str()),
    };
    build(config, &mut Random::new(seed, device, dtype), classes, hash, device, dtype)
}
