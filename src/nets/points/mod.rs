//! Generators of point clouds (Luo & Hu 2021, diffusion-point-cloud): PointwiseNet, told a latent of the whole cloud, and the prior of that.
mod facts;
mod graphs;
mod pickle;

pub use facts::OPTIONS;
pub use graphs::{LATENT, PRIOR_INPUT};

use super::family::{Described, Family, Files, Part, Parts, Role};
use super::ldm::Shapes;
use super::network::{Card, Net};
use super::runner::Runner;
use super::weights::File;
use crate::denoise::{Predicts, TimeInput};
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Kind, Result};
use candle_core::DType;
use facts::Facts;

/// The row.
pub const FAMILY: Family = Family { name: "point cloud", recognises, build, builtin: BUILTIN };

/// A small one: the shapes of module `shapes` by 512 points (models/README.md).
const BUILTIN: &[(&str, Files)] = &[("shapes", &[include_bytes!("../../../models/shapes-points.safetensors")])];

/// The entry of a file's metadata that says it is of this family: the training arguments as JSON.
const ENTRY: &str = "pointcloud";
/// Before the names of the denoiser's layers, and of the prior's.
const NET: &str = "diffusion.net.";
const FLOW: &str = "flow.";
/// A tensor that every such network has.
const MARK: &str = "diffusion.net.layers.0._layer.weight";
/// What to do where a tensor does not fit.
const ADVICE: &str = "the file may be cut off, or of another kind of network";

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    pickle::find(checkpoint)
}

fn build(file: &mut File) -> Result<Parts> {
    file.allow_more(ADVICE);
    if !matches!(file.dtype, DType::F32 | DType::F64) {
        return Err(
            Error::new(Kind::Device, "networks of point clouds run in f32 and f64 here").hint("leave out `dtype`")
        );
    }
    let (net, flow) = (Shapes(file.shapes(NET)), Shapes(file.shapes(FLOW)));
    let facts = Facts::new(file, &net, &flow)?;
    let (device, dtype) = (file.device.clone(), file.dtype);
    let hash = file.hash(&format!("{} {:?} {}", dtype.as_str(), facts.how, facts.noise))?;
    let graph = graphs::network(file, NET, &facts.how, dtype)?;
    file.none_left(NET)?;
    let card = Card {
        kind: "point cloud",
        architecture: "PointwiseNet",
        predicts: Predicts::Noise,
        time: TimeInput::Beta(facts.betas.into()),
        trained: [0.0, f64::INFINITY],
        sampled: [0.0, f64::INFINITY],
        classes: vec![],
        half: false,
    };
    let net = Net::new(Runner::new(graph, &device, dtype), card, hash).trained_in(facts.noise, facts.notes);
    let mut parts = Parts::from([(Role::Denoiser, Part::Denoiser(net))]);
    if facts.prior {
        let graph = graphs::prior(file, FLOW, facts.how.latent, &facts.couplings, dtype)?;
        file.none_left(FLOW)?;
        parts.insert(Role::Prior, Part::Graph(Runner::new(graph, &device, dtype)));
    }
    Ok(parts)
}
