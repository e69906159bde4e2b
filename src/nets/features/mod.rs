//! Feature networks for perceptual losses: VGG16, AlexNet, SqueezeNet 1.1 (torchvision's weights), and a small built-in one.
mod pooled;
mod spec;

pub use pooled::{fashion28, reference};
pub use spec::{DISTS, SPECS, Spec};

use super::build::{Builder, ConvSize, Id, graph};
use super::family::{Described, Family, Part, Parts, Role};
use super::graph::{Absent, Dim, Layout};
use super::kernels::{Channels, Down2, MaxPool, RootPool};
use super::runner::Runner;
use super::weights::{File, Weights};
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use spec::Layer;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Weights by name, as in torchvision's state dict; tensors that a trunk does not know are ignored.
pub type State = BTreeMap<String, Tensor>;

/// The feature network compiled in.
const FASHION28: &[u8] = include_bytes!("../../../models/fashion28-features.safetensors");

/// What to do where a tensor does not fit.
const ADVICE: &str = "the file must hold torchvision's state dict of this network";

/// The entry of the metadata that names the trunk.
const TRUNK: &str = "trunk";

/// Feature networks as torchvision publishes them, told by the names and shapes of their tensors.
pub const FAMILY: Family = Family { name: "torchvision", recognises, build, builtin: &[] };

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let shape = |name: &str| checkpoint.tensors().get(name).map(|v| v.shape().to_vec());
    let fits =
        |s: &&Spec| s.file.is_some() && s.weights().iter().all(|(name, dims)| shape(name).as_ref() == Some(dims));
    let Some(spec) = SPECS.iter().find(fits) else { return Ok(None) };
    let metadata = [(TRUNK.to_string(), spec.name.to_string())].into();
    Ok(Some((Cow::Borrowed(checkpoint.tensors()), Cow::Owned(metadata))))
}

fn build(file: &mut File) -> Result<Parts> {
    let spec = spec(file.metadata(TRUNK).unwrap_or_default())?;
    let (device, dtype) = (file.device.clone(), file.dtype);
    // the classifier behind the trunk stays in the file
    file.allow_more(ADVICE);
    let trunk = Trunk::from_weights(spec, file, false, dtype, &device)?;
    Ok([(Role::Features, Part::Features(trunk))].into())
}

/// The trunk called `name`.
pub fn spec(name: &str) -> Result<&'static Spec> {
    let found = SPECS.iter().find(|s| s.name == name);
    found.ok_or_else(|| Error::unknown("feature network", name, SPECS.iter().map(|s| s.name)))
}

impl Spec {
    /// The weights, where they are compiled in.
    pub fn builtin(&self) -> Result<Option<State>> {
        match self.file {
            None => Ok(Some(candle_core::safetensors::load_buffer(FASHION28, &Device::Cpu)?.into_iter().collect())),
            Some(_) => Ok(None),
        }
    }
    /// Whether a name in a state dict belongs to the trunk.
    pub fn uses(&self, name: &str) -> bool {
        self.weights().iter().any(|(n, _)| n == name)
    }
}

/// A frozen feature network in one dtype on one device; cheap to clone.
#[derive(Clone)]
pub struct Trunk {
    /// What it is.
    pub spec: &'static Spec,
    /// Its graph, with an output for each tap: features [B, H', W', C'].
    pub runner: Runner,
}

impl Trunk {
    /// Builds the trunk from its weights. Inputs are in [−1, 1], or in [0, 1] where `unit_range`.
    ///
    /// Errors name the tensor that is missing, of another shape or not finite.
    pub fn build(spec: &'static Spec, state: &State, unit_range: bool, dtype: DType, device: &Device) -> Result<Trunk> {
        Trunk::from_weights(spec, &mut File::some(state, ADVICE, device, dtype), unit_range, dtype, device)
    }

    fn from_weights(
        spec: &'static Spec,
        weights: &mut dyn Weights,
        unit_range: bool,
        dtype: DType,
        device: &Device,
    ) -> Result<Trunk> {
        let graph = graph(weights, "", dtype, |b| layers(b, spec, unit_range).map(drop))?;
        Ok(Trunk { spec, runner: Runner::new(graph, device, dtype) })
    }

    /// The same up to tap `count`, which is as far as it runs.
    pub fn first_taps(&self, count: usize) -> Result<Trunk> {
        let names: Vec<String> = (0..count).map(tap).collect();
        let graph = self.runner.graph().only(&names.iter().map(|n| &**n).collect::<Vec<_>>())?;
        let runner = Runner::new(graph, self.runner.device(), self.runner.dtype());
        Ok(Trunk { spec: self.spec, runner })
    }

    /// Fails unless images of shape [B, C, H, W] can go through: C is the trunk's, or 1, which stands for equal channels.
    pub fn check(&self, what: &str, dims: &[usize]) -> Result<()> {
        let Spec { title, channels, multiple, .. } = *self.spec;
        let low = self.spec.minimum();
        let wrong = |m: String, hint: &str| Err(Error::shape(format!("{what}: {m}"), &[dims]).hint(hint));
        let &[_, c, h, w] = dims else {
            return wrong(format!("needs images [B, C, H, W], got {dims:?}"), "reshape them first");
        };
        if c != channels && c != 1 {
            let grey = if channels == 3 { "3 channels, or 1 (grey)" } else { "1 channel" };
            return wrong(format!("{title} takes images of {grey}, got {c}"), "choose or average channels first");
        }
        if h < low || w < low {
            let m = format!("{title} needs images of at least {low}×{low} pixels, got {h}×{w}");
            return wrong(m, "enlarge the images first, or use another network");
        }
        if h % multiple + w % multiple > 0 {
            let m = format!("{title} needs a height and width that {multiple} divides, got {h}×{w}");
            return wrong(m, "crop or pad the images first");
        }
        Ok(())
    }
}

/// The name of a tap among the graph's outputs.
fn tap(k: usize) -> String {
    format!("tap{k}")
}

/// The layers of a trunk; gives its last value.
fn layers(b: &mut Builder, spec: &Spec, unit_range: bool) -> Result<Id> {
    let side = Dim::About(spec.minimum());
    let x = b.input("x", &[side, side, Dim::About(spec.channels)], Layout::Image, Absent::Error)?;
    // ((gain·x + offset) − shift) / scale
    let (gain, offset) = if unit_range { (2.0, -1.0) } else { (1.0, 0.0) };
    let each = |(shift, scale): &(f32, f32)| (gain / *scale as f64, (offset - *shift as f64) / *scale as f64);
    let mut taps = 0;
    if spec.image {
        // from [−1, 1] to [0, 1]; a grey one becomes one of all channels
        let range = if unit_range { (1.0, 0.0) } else { (0.5, 0.5) };
        let image = b.under("image").apply(Channels::new(vec![range; spec.channels]), &[x])?;
        b.output(&tap(taps), image, Layout::Plain);
        taps += 1;
    }
    let mut x = b.under("scaling").apply(Channels::new(spec.scaling.iter().map(each)), &[x])?;
    for (i, layer) in spec.layers.iter().enumerate() {
        match *layer {
            Layer::Conv(name, channels, window, stride, padding) => {
                x = b.under(name).conv(x, ConvSize { channels, window, stride, padding: [padding; 2] })?;
                x = b.under(name).under("relu").relu(x)?;
            }
            Layer::MaxPool(window, stride, ceil) => {
                x = b.under(&format!("pool{i}")).max_pool(x, MaxPool { window, stride, ceil })?;
            }
            Layer::MeanPool => x = b.under(&format!("pool{i}")).apply(Down2, &[x])?,
            Layer::RootPool => x = b.under(&format!("pool{i}")).apply(RootPool, &[x])?,
            Layer::Fire(name, squeeze, each) => {
                let b = &mut b.under(name);
                x = b.under("squeeze").conv(x, ConvSize::same(squeeze, 1))?;
                x = b.under("squeeze.relu").relu(x)?;
                let small = b.under("expand1x1").conv(x, ConvSize::same(each, 1))?;
                let large = b.under("expand3x3").conv(x, ConvSize::same(each, 3))?;
                x = b.under("concat").concat(small, large)?;
                x = b.under("relu").relu(x)?;
            }
            Layer::Tap => {
                b.output(&tap(taps), x, Layout::Plain);
                taps += 1;
            }
        }
    }
    Ok(x)
}
