//! Latent diffusion (Rombach et al. 2022), Stable Diffusion, rectified flows made of it, and improved-diffusion: one U-Net, and the
//! first stages beside it.
mod known;
mod names;
mod shapes;
mod stage;
mod unet;

pub use known::{BREADTH, HEADS, HEIGHT, OPTIONS, SIZE};
pub use names::stage as first_stage_of;
pub(super) use shapes::Shapes;
pub use stage::DEVIATION;
pub use unet::{CONTEXT, POOLED, SIZES};

use super::family::{Described, Family, Files, Part, Parts, Role};
use super::network::{Card, Net};
use super::runner::Runner;
use super::weights::File;
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Kind, Result};
use known::Facts;
use std::borrow::Cow;

/// The row.
pub const FAMILY: Family = Family { name: "latent diffusion", recognises, build, builtin: BUILTIN };

/// Small ones: garments as 4×7×7 latents, each a denoiser's file beside that of the first stage (models/README.md).
const BUILTIN: &[(&str, Files)] = &[
    ("fashion28-latent", &[STAGE, include_bytes!("../../../models/fashion28-latent.safetensors")]),
    ("fashion28-flow", &[STAGE, include_bytes!("../../../models/fashion28-flow.safetensors")]),
    ("fashion28-reflow", &[STAGE, include_bytes!("../../../models/fashion28-reflow.safetensors")]),
];
const STAGE: &[u8] = include_bytes!("../../../models/fashion28-stage.safetensors");

/// What to do where a tensor does not fit.
const ADVICE: &str = "the file may be cut off, or of another kind of network";

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let found = names::canonical(checkpoint.tensors());
    Ok(found.map(|tensors| (Cow::Owned(tensors), Cow::Borrowed(checkpoint.metadata()))))
}

fn build(file: &mut File) -> Result<Parts> {
    file.allow_more(ADVICE);
    let mut parts = Parts::new();
    let (unet, stage) = (Shapes(file.shapes(names::UNET)), Shapes(file.shapes(names::STAGE)));
    let facts = Facts::new(file, &unet, &stage)?;
    if !unet.0.is_empty() {
        parts.insert(Role::Denoiser, Part::Denoiser(denoiser(file, &unet, &facts)?));
    }
    add_stage(file, &mut parts, &stage, facts.stage)?;
    Ok(parts)
}

fn add_stage(file: &mut File, parts: &mut Parts, shapes: &Shapes, how: stage::Stage) -> Result<()> {
    let (device, dtype) = (file.device.clone(), file.dtype);
    if shapes.any("decoder.") {
        let graph = stage::decoder(file, names::STAGE, shapes, how, dtype)?;
        parts.insert(Role::Decoder, Part::Graph(Runner::new(graph, &device, dtype)));
    }
    if shapes.any("encoder.") {
        let graph = stage::encoder(file, names::STAGE, shapes, how, dtype)?;
        parts.insert(Role::Encoder, Part::Graph(Runner::new(graph, &device, dtype)));
    }
    Ok(())
}

/// Adds the autoencoder beside a denoiser of another family, whose published factor and shift are these. Asks the file for the options
/// that autoencoders have.
pub(super) fn first_stage(file: &mut File, parts: &mut Parts, published: [f64; 2]) -> Result<()> {
    let shapes = Shapes(file.shapes(names::STAGE));
    let how = known::stage_of(file, &shapes, published)?;
    add_stage(file, parts, &shapes, how)
}

/// Puts the averaged weights in the place of the others, where there are any. Says whether there are.
fn average(file: &mut File) -> Result<bool> {
    let names = file.names(names::UNET);
    let short = |n: &str| names::averaged(&n[names::UNET.len()..]);
    let there = names.iter().filter(|n| file.has(&short(n))).count();
    if there > 0 && there < names.len() {
        let m = format!("only {there} of {} averaged weights are in the file", names.len());
        return Err(Error::new(Kind::Format, m).hint("load it with `ema: false`, or get the whole file"));
    }
    Ok(names.into_iter().filter(|n| file.instead(n, &short(n))).count() > 0)
}

fn denoiser(file: &mut File, shapes: &Shapes, facts: &Facts) -> Result<Net> {
    let mut notes = facts.notes.clone();
    let averaged = file.has(&names::averaged("out.2.weight"));
    if averaged {
        match facts.ema {
            true => drop(average(file)?),
            false => notes.push("its weights as they were trained last (`ema: false`), not the averaged ones".into()),
        }
    }
    if averaged && facts.ema {
        notes.push("its averaged weights (EMA); `ema: false` reads the others".into());
    }
    let (device, dtype) = (file.device.clone(), file.dtype);
    let hash = file.hash(&format!("{:?} {} {} {averaged}", facts.unet, facts.noise, facts.ema))?;
    let graph = unet::unet(file, names::UNET, shapes, &facts.unet, dtype)?;
    file.none_left(names::UNET)?;
    let card = Card {
        kind: facts.title,
        architecture: "U-Net",
        predicts: facts.predicts,
        time: facts.time.clone(),
        trained: [0.0, f64::INFINITY],
        sampled: [0.0, f64::INFINITY],
        classes: vec![],
        half: false,
    };
    let net = Net::new(Runner::new(graph, &device, dtype), card, hash).trained_in(facts.noise.clone(), notes);
    Ok(match facts.unet.sizes() {
        Some(sizes) => net.unless_told(unet::SIZES, sizes),
        None => net,
    })
}
