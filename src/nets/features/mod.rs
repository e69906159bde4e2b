//! Feature networks for perceptual losses: VGG16, AlexNet, SqueezeNet 1.1 (torchvision's weights), and a small built-in one.
mod spec;

pub use spec::{SPECS, Spec};

use super::kernels::{Channels, Concat, Conv, Down2, Frozen, Linear, MaxPool, Relu};
use super::tape::Exec;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use spec::Layer;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Weights by name, as in torchvision's state dict; tensors that a trunk does not know are ignored.
pub type State = BTreeMap<String, Tensor>;

/// The feature network compiled in.
const FASHION28: &[u8] = include_bytes!("../../../models/fashion28-features.safetensors");

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
        name.rsplit_once('.').is_some_and(|(at, _)| {
            self.layers.iter().any(|layer| match layer {
                Layer::Conv(n, ..) => at == *n,
                Layer::Fire(n, ..) => at.strip_prefix(n).is_some_and(|rest| rest.starts_with('.')),
                Layer::MaxPool(..) | Layer::MeanPool | Layer::Tap => false,
            })
        })
    }
}

type Op = Arc<dyn Frozen>;

enum Step {
    Apply(Op),
    /// SqueezeNet's fire module: what is in front, then the two whose results stand side by side.
    Fire([Op; 3]),
    Tap,
}

/// A frozen feature network in one dtype on one device.
pub struct Trunk {
    /// What it is.
    pub spec: &'static Spec,
    steps: Vec<Step>,
    scaling: Op,
    relu: Op,
    concat: Op,
}

/// Takes weights by name and makes operations of them.
struct Build<'a> {
    state: &'a State,
    dtype: DType,
    device: &'a Device,
}

impl Build<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(t) = self.state.get(name) else {
            let e = Error::new(Kind::Format, format!("the tensor `{name}` is missing"));
            return Err(e.hint("the file must hold torchvision's state dict of this network"));
        };
        if t.dims() != shape || !t.dtype().is_float() {
            let m = format!(
                "`{name}` is {} of shape {:?}, expected floats of shape {shape:?}",
                t.dtype().as_str(),
                t.dims()
            );
            return Err(Error::new(Kind::Format, m).shapes(&[t.dims(), shape]).hint("the file is of another network"));
        }
        let t = t.detach().to_dtype(self.dtype)?;
        if !super::is_finite(&t)? {
            return Err(Error::new(Kind::Format, format!("`{name}` holds NaN or infinite values")));
        }
        Ok(t.to_device(self.device)?)
    }
    fn conv(&self, name: &str, [cin, cout, k, stride, padding]: [usize; 5]) -> Result<Op> {
        let weight = self.take(&format!("{name}.weight"), &[cout, cin, k, k])?;
        let bias = self.take(&format!("{name}.bias"), &[cout])?;
        Ok(match (k, stride, padding) {
            (1, 1, 0) => Arc::new(Linear::new(&weight.reshape((cout, cin))?, bias)?),
            _ => Arc::new(Conv::with(weight, bias, stride, padding)?),
        })
    }
}

impl Trunk {
    /// Builds the trunk from its weights. Inputs are in [−1, 1], or in [0, 1] where `unit_range`.
    ///
    /// Errors name the tensor that is missing, of another shape or not finite.
    pub fn build(spec: &'static Spec, state: &State, unit_range: bool, dtype: DType, device: &Device) -> Result<Trunk> {
        let b = Build { state, dtype, device };
        let (mut c, mut steps) = (spec.channels, vec![]);
        for layer in spec.layers {
            match *layer {
                Layer::Conv(name, cout, k, stride, padding) => {
                    steps.push(Step::Apply(b.conv(name, [c, cout, k, stride, padding])?));
                    steps.push(Step::Apply(Arc::new(Relu)));
                    c = cout;
                }
                Layer::MaxPool(window, stride, ceil) => {
                    steps.push(Step::Apply(Arc::new(MaxPool { window, stride, ceil })));
                }
                Layer::MeanPool => steps.push(Step::Apply(Arc::new(Down2))),
                Layer::Fire(name, squeeze, each) => {
                    let front = b.conv(&format!("{name}.squeeze"), [c, squeeze, 1, 1, 0])?;
                    let small = b.conv(&format!("{name}.expand1x1"), [squeeze, each, 1, 1, 0])?;
                    let large = b.conv(&format!("{name}.expand3x3"), [squeeze, each, 3, 1, 1])?;
                    steps.push(Step::Fire([front, small, large]));
                    c = 2 * each;
                }
                Layer::Tap => steps.push(Step::Tap),
            }
        }
        // ((gain·x + offset) − shift) / scale
        let (gain, offset) = if unit_range { (2.0, -1.0) } else { (1.0, 0.0) };
        let each = |(shift, scale): &(f32, f32)| (gain / *scale as f64, (offset - *shift as f64) / *scale as f64);
        let scaling = Arc::new(Channels::new(spec.scaling.iter().map(each)));
        Ok(Trunk { spec, steps, scaling, relu: Arc::new(Relu), concat: Arc::new(Concat) })
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

    /// The features of images x [B, H, W, C], one value [B, H', W', C'] for each of the first `count` taps.
    pub fn run<E: Exec>(&self, e: &mut E, x: &E::Value, count: usize) -> Result<Vec<E::Value>> {
        let mut x = e.apply(&self.scaling, &[x])?;
        let mut taps = vec![];
        for step in &self.steps {
            if taps.len() >= count {
                break;
            }
            match step {
                Step::Apply(op) => x = e.apply(op, &[&x])?,
                Step::Fire([front, small, large]) => {
                    x = e.apply(front, &[&x])?;
                    x = e.apply(&self.relu, &[&x])?;
                    let a = e.apply(small, &[&x])?;
                    let b = e.apply(large, &[&x])?;
                    x = e.apply(&self.concat, &[&a, &b])?;
                    x = e.apply(&self.relu, &[&x])?;
                }
                Step::Tap => taps.push(x.clone()),
            }
        }
        Ok(taps)
    }
}
