//! A family of networks as small as one can be: its configuration, and its graphs. CONTRIBUTING.md walks through it.
use candle_core::DType;
use ld3sh::Result;
use ld3sh::denoise::{Predicts, TimeInput};
use ld3sh::files::checkpoint::Checkpoint;
use ld3sh::nets::build::{Builder, ConvSize, graph};
use ld3sh::nets::family::{Described, Family, Part, Parts, Role};
use ld3sh::nets::graph::{Absent, Dim, Graph, Layout};
use ld3sh::nets::kernels::{Modulation, Waves};
use ld3sh::nets::network::{Card, Net, STATE, TIME};
use ld3sh::nets::runner::Runner;
use ld3sh::nets::weights::{File, Weights};
use ld3sh::{Error, Kind};
use std::borrow::Cow;

/// The row.
pub const FAMILY: Family = Family { name: "toy", recognises, build, builtin: &[] };

/// A file is ours if its metadata says how wide the network is.
fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let (tensors, metadata) = (checkpoint.tensors(), checkpoint.metadata());
    Ok(metadata.contains_key("toy.width").then(|| (Cow::Borrowed(tensors), Cow::Borrowed(metadata))))
}

/// What the toy is.
pub fn card() -> Card {
    Card {
        kind: "toy",
        architecture: "MLP of pixels",
        predicts: Predicts::Noise,
        time: TimeInput::LnSigmaOver4,
        trained: [0.01, 50.0],
        sampled: [0.01, 50.0],
        classes: vec![],
        half: false,
    }
}

fn build(file: &mut File) -> Result<Parts> {
    let width = file.metadata("toy.width").and_then(|w| w.parse().ok());
    let width = width.ok_or_else(|| Error::new(Kind::Format, "`toy.width` must be a number of channels"))?;
    let (device, dtype, hash) = (file.device.clone(), file.dtype, file.hash("toy")?);
    file.allow_more("does `toy.width` describe this network?");
    let denoiser = Runner::new(denoiser(file, width, dtype)?, &device, dtype);
    let decoder = Runner::new(decoder(file, dtype)?, &device, dtype);
    Ok(Parts::from([
        (Role::Denoiser, Part::Denoiser(Net::new(denoiser, card(), hash))),
        (Role::Decoder, Part::Graph(decoder)),
    ]))
}

/// A convolution, a norm that the noise level and a text modulate, a gate, and a convolution.
pub fn denoiser(weights: &mut dyn Weights, width: usize, dtype: DType) -> Result<Graph> {
    graph(weights, "denoiser.", dtype, |b| {
        let x = b.input(STATE, &[4, 4, 2].map(Dim::Exactly), Layout::Image, Absent::Error)?;
        let time = b.input(TIME, &[], Layout::Plain, Absent::Error)?;
        let text = b.input("text", &[Dim::Exactly(3)], Layout::Plain, Absent::LeftOut)?;
        let waves = b.under("waves").apply(Waves::positional(8, false, false), &[time])?;
        let mut emb = b.under("time").linear(waves, 2 * width)?;
        let words = b.under("text").linear(text, 2 * width)?;
        emb = b.under("told").sum(emb, words, 1.0)?;
        let h = b.under("in").conv(x, ConvSize::same(2 * width, 3))?;
        let h = b.under("norm").group_norm(h, 2, 1e-5, Some((Modulation::Add, emb)), false)?;
        let y = gated(b, h, width)?;
        let y = b.under("out").conv(y, ConvSize::same(2, 3))?;
        b.output("y", y, Layout::Image);
        Ok(())
    })
}

/// One half of the channels beside SiLU of the other.
fn gated(b: &mut Builder, h: ld3sh::nets::build::Id, width: usize) -> Result<ld3sh::nets::build::Id> {
    let halves = b.under("halves").split(h, &[width, width])?;
    let gate = b.under("gate").silu(halves[1])?;
    b.under("gated").concat(halves[0], gate)
}

fn decoder(weights: &mut dyn Weights, dtype: DType) -> Result<Graph> {
    graph(weights, "decoder.", dtype, |b| {
        let z = b.input("z", &[Dim::About(4), Dim::About(4), Dim::Exactly(2)], Layout::Image, Absent::Error)?;
        let image = b.under("conv").conv(z, ConvSize::same(3, 1))?;
        b.output("image", image, Layout::Image);
        Ok(())
    })
}
