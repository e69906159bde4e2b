//! Families of networks: who recognises which checkpoint, and what is built from it; a row each.
use super::features::Trunk;
use super::network::Net;
use super::runner::Runner;
use super::weights::File;
use super::{clip, dit, docking, edm, edm2, features, inception, ldm, points, t5, vision};
use crate::files::checkpoint::Checkpoint;
use crate::files::torch::View;
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The tensors of a network in a checkpoint, and the metadata that describe it, as its safetensors file has them.
pub type Described<'a> = (Cow<'a, BTreeMap<String, View>>, Cow<'a, BTreeMap<String, String>>);

/// What a part of a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// From a noisy state to data or noise.
    Denoiser,
    /// From images to latents.
    Encoder,
    /// From latents to images.
    Decoder,
    /// From tokens to embeddings.
    Text,
    /// From images to features.
    Features,
    /// From Gaussian numbers to a latent that the denoiser is told.
    Prior,
    /// From poses of a ligand to how they are to move.
    Score,
    /// From poses of a ligand to how sure it is of each.
    Confidence,
}

impl Role {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Denoiser => "a denoiser",
            Role::Encoder => "an encoder",
            Role::Decoder => "a decoder",
            Role::Text => "a text encoder",
            Role::Features => "a feature network",
            Role::Prior => "a prior",
            Role::Score => "a score model of docking",
            Role::Confidence => "a confidence model of docking",
        }
    }
}

/// A part of a model.
#[derive(Clone)]
pub enum Part {
    /// A denoiser's network, with what makes a denoiser of it.
    Denoiser(Net),
    /// A feature network.
    Features(Trunk),
    /// A text encoder.
    Text(clip::Encoder),
    /// Another one, of T5's kind.
    T5(t5::Encoder),
    /// A vision transformer.
    Image(vision::Vision),
    /// A graph that needs nothing else.
    Graph(Runner),
    /// Docking's score model.
    Score(docking::Score),
    /// Docking's confidence model.
    Confidence(docking::Confidence),
}

/// Safetensors files that are one model together.
pub type Files = &'static [&'static [u8]];

/// A published thing: parts by what they are for.
pub type Parts = BTreeMap<Role, Part>;

/// One family: its configuration, and its graphs.
#[derive(Clone, Copy)]
pub struct Family {
    /// Its name in messages.
    pub name: &'static str,
    /// The network that a checkpoint holds, if it is of this family. Fails where it is, but not complete.
    pub recognises: for<'a> fn(&'a Checkpoint) -> Result<Option<Described<'a>>>,
    /// Builds all parts. Fails with the name of what is missing, left over, or does not fit.
    pub build: fn(&mut File) -> Result<Parts>,
    /// Models compiled into the binary, by name.
    pub builtin: &'static [(&'static str, Files)],
}

/// All families, asked in this order.
pub static FAMILIES: &[Family] = &[
    dit::FAMILY,
    ldm::FAMILY,
    points::FAMILY,
    docking::FAMILY,
    clip::FAMILY,
    t5::FAMILY,
    edm2::FAMILY,
    edm::FAMILY,
    features::FAMILY,
    inception::FAMILY,
    vision::FAMILY,
];

/// The family of a checkpoint, among `families`, and the network in it.
pub fn recognise<'a, 'c>(
    families: &'a [Family],
    checkpoint: &'c Checkpoint,
) -> Result<Option<(&'a Family, Described<'c>)>> {
    for family in families {
        if let Some(described) = (family.recognises)(checkpoint)? {
            return Ok(Some((family, described)));
        }
    }
    Ok(None)
}

/// The denoiser among the parts.
pub fn denoiser(parts: Parts) -> Result<Net> {
    let held: Vec<&str> = parts.keys().map(|r| r.name()).collect();
    let held = held.join(" and ");
    match parts.into_iter().find(|(role, _)| *role == Role::Denoiser) {
        Some((_, Part::Denoiser(net))) => Ok(net),
        _ => Err(Error::value(format!("this is {held}, not a denoiser")).hint("`ld3sh models` lists what there is")),
    }
}
