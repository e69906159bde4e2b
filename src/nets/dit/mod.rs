//! Diffusion transformers: DiT and SiT, Stable Diffusion 3 and 3.5, FLUX.1, PixArt; their autoencoders are those of latent diffusion.
mod blocks;
mod facts;
mod graphs;
mod names;
mod pixart;

pub use facts::OPTIONS;
pub use graphs::GUIDANCE;
pub use pixart::MASK;

use super::family::{Described, Family, Part, Parts, Role};
use super::ldm::{self, Shapes};
use super::network::{Card, Net};
use super::runner::Runner;
use super::weights::File;
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Kind, Result};
use candle_core::DType;
use facts::Facts;
use std::borrow::Cow;

/// The row.
pub const FAMILY: Family = Family { name: "diffusion transformer", recognises, build, builtin: &[] };

/// What to do where a tensor does not fit.
const ADVICE: &str = "the file may be cut off, or of another kind of network";
/// The guidance that FLUX.1 [dev] is told without being told one.
const GUIDED: f64 = 3.5;

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let Some(found) = names::find(checkpoint.tensors()) else { return Ok(None) };
    let mut tensors = found.tensors;
    tensors.extend(ldm::first_stage_of(checkpoint.tensors()));
    let mut metadata = checkpoint.metadata().clone();
    metadata.insert(facts::KIND.into(), facts::word(found.kind).into());
    metadata.insert(facts::ORIGINAL.into(), found.original.to_string());
    Ok(Some((Cow::Owned(tensors), Cow::Owned(metadata))))
}

fn build(file: &mut File) -> Result<Parts> {
    file.allow_more(ADVICE);
    if !matches!(file.dtype, DType::F32 | DType::F64) {
        return Err(
            Error::new(Kind::Device, "diffusion transformers run in f32 and f64 here").hint("leave out `dtype`")
        );
    }
    let shapes = Shapes(file.shapes(names::ROOT));
    let facts = Facts::new(file, &shapes)?;
    let mut parts = Parts::new();
    let hash = file.hash(&format!("{:?}", facts.how))?;
    let graph = graphs::network(file, &shapes, &facts.how)?;
    file.none_left(names::ROOT)?;
    let card = Card {
        kind: facts.title,
        architecture: "transformer",
        predicts: facts.predicts,
        time: facts.time.clone(),
        trained: [0.0, f64::INFINITY],
        sampled: [0.0, f64::INFINITY],
        classes: vec![],
        half: false,
    };
    let takes = |name: &str| graph.inputs.iter().any(|p| p.name == name);
    let (guided, sized) = (takes(GUIDANCE), takes(ldm::SIZES));
    let (device, dtype) = (file.device.clone(), file.dtype);
    let net =
        Net::new(Runner::new(graph, &device, dtype), card, hash).trained_in(facts.noise.clone(), facts.notes.clone());
    let net = if guided { net.unless_told(GUIDANCE, vec![GUIDED]) } else { net };
    let net = if sized { net.unless_told(ldm::SIZES, pixart::sizes(facts.how.size)) } else { net };
    parts.insert(Role::Denoiser, Part::Denoiser(net));
    ldm::first_stage(file, &mut parts, facts.stage)?;
    Ok(parts)
}
