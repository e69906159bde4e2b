//! EDM2's networks (Karras et al. 2024), in the pickles in which they are published: magnitude-preserving U-Nets in EDM's preconditioning.
mod config;
mod unet;

pub use config::Config;

use super::edm;
use super::family::{Described, Family, Part, Parts, Role};
use super::network::{Card, Net};
use super::runner::Runner;
use super::weights::File;
use crate::denoise::{Predicts, TimeInput};
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Kind, Result};
use candle_core::DType;

/// The row; it is asked before EDM's, whose containers these are.
pub const FAMILY: Family = Family { name: "EDM2", recognises, build, builtin: &[] };

/// The class that joins preconditioning and network.
const PRECOND: &str = "Precond";
/// The noise levels between which EDM2 samples.
const SAMPLED: [f64; 2] = [0.002, 80.0];
/// What estimates how uncertain a prediction is, in training alone.
const UNUSED: &str = "logvar_";

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let found = edm::find_network(checkpoint)?;
    Ok(found.filter(|(_, metadata)| metadata.get("precond").is_some_and(|p| p == PRECOND)))
}

fn build(file: &mut File) -> Result<Parts> {
    if !matches!(file.dtype, DType::F32 | DType::F64) {
        return Err(Error::new(Kind::Device, "EDM2's networks run in f32 and f64 here").hint("leave out `dtype`"));
    }
    let json = file.metadata("config").unwrap_or("{}").to_string();
    let config = Config::parse(&json)?;
    let hash = file.hash(&format!("{json}\n{} {PRECOND}", file.dtype.as_str()))?;
    file.allow_more("the file may be cut off, or its `config` that of another network");
    let (device, dtype) = (file.device.clone(), file.dtype);
    let graph = unet::unet(file, &config, dtype, &device)?;
    if let Some(name) = file.names("").into_iter().find(|n| !n.starts_with(UNUSED)) {
        let m = format!("the file holds tensors that this network does not have, such as `{name}`");
        return Err(Error::new(Kind::Format, m).hint("does its `config` describe this network?"));
    }
    let card = Card {
        kind: "EDM2",
        architecture: "U-Net",
        predicts: Predicts::EdmF { sigma_data: config.sigma_data },
        time: TimeInput::LnSigmaOver4,
        trained: SAMPLED,
        sampled: SAMPLED,
        classes: (0..config.label_dim).map(|i| i.to_string()).collect(),
        half: config.use_fp16,
    };
    let net = Net::new(Runner::new(graph, &device, dtype), card, hash);
    Ok([(Role::Denoiser, Part::Denoiser(net))].into())
}
