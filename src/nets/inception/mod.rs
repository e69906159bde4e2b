//! The InceptionV3 of FID: TensorFlow's network of 2015-12-05 with 1008 outputs, as `pt_inception-2015-12-05` has its weights.
mod blocks;

use super::build::graph;
use super::family::{Described, Family, Part, Parts, Role};
use super::runner::Runner;
use super::weights::{File, Weights};
use crate::files::checkpoint::Checkpoint;
use crate::schema::{Opt, Value, word};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The family's row.
pub const FAMILY: Family = Family { name: "FID's InceptionV3", recognises, build, builtin: &[] };

/// How images come to 299×299 pixels.
pub const RESIZE: Opt = word(
    "resize",
    &["tf1", "torch"],
    "bilinear to 299×299 as TensorFlow 1 has it, which is what FID means (NVIDIA's and ADM's evaluations, torch-fidelity), or \"torch\", \
     as pytorch-fid has it: the two give different distances",
);

/// What to do where a tensor does not fit.
const ADVICE: &str = "the file must hold pytorch-fid's `pt_inception-2015-12-05`";
/// The outputs of the network; torchvision's own InceptionV3 has 1000, and another last block.
const CLASSES: usize = 1008;
/// What batch norms add to variances.
const EPS: f64 = 1e-3;

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let shape = |name: &str| checkpoint.tensors().get(name).map(|v| v.shape().to_vec());
    let stem = shape("Conv2d_1a_3x3.conv.weight").is_some_and(|s| s == [32, 3, 3, 3]);
    if !stem {
        return Ok(None);
    }
    match shape("fc.weight").as_deref() {
        Some([CLASSES, 2048]) | None => {
            Ok(Some((Cow::Borrowed(checkpoint.tensors()), Cow::Borrowed(checkpoint.metadata()))))
        }
        Some(other) => {
            let m = format!("an InceptionV3 whose `fc.weight` is {other:?} is not FID's, which has [{CLASSES}, 2048]");
            Err(Error::new(Kind::Format, m).hint(ADVICE))
        }
    }
}

fn build(file: &mut File) -> Result<Parts> {
    let resize = match file.option(&RESIZE)? {
        Value::Word("torch") => Resize::Torch,
        _ => Resize::TensorFlow1,
    };
    let (device, dtype) = (file.device.clone(), file.dtype);
    // the batches counted in training, and the bias of the classifier, which scores leave out
    file.allow_more(ADVICE);
    let folded = folded(file, dtype)?;
    let mut weights = File::some(&folded, ADVICE, &device, dtype);
    let graph = graph(&mut weights, "", dtype, |b| blocks::layers(b, resize))?;
    Ok([(Role::Features, Part::Graph(Runner::new(graph, &device, dtype)))].into())
}

/// Asks `weights` for all that the graph takes, with batch norms in the convolutions.
pub fn names(weights: &mut dyn Weights) -> Result<()> {
    graph(weights, "", DType::F32, |b| blocks::layers(b, Resize::TensorFlow1)).map(drop)
}

/// How images come to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resize {
    TensorFlow1,
    Torch,
}

/// Every convolution with its batch norm in it, by the names `PLACE.weight` and `PLACE.bias`; computed in f64.
fn folded(file: &mut File, dtype: DType) -> Result<BTreeMap<String, Tensor>> {
    let mut all = BTreeMap::new();
    for (place, dims) in blocks::convolutions() {
        let mut take = |name: &str, dims: &[usize]| -> Result<Vec<f64>> {
            let t = file.take(&format!("{place}.{name}"), dims)?;
            Ok(t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
        };
        let mut w = take("conv.weight", &dims)?;
        let (gain, shift) = (take("bn.weight", &dims[..1])?, take("bn.bias", &dims[..1])?);
        let (mean, variance) = (take("bn.running_mean", &dims[..1])?, take("bn.running_var", &dims[..1])?);
        if let Some(v) = variance.iter().find(|v| **v < 0.0) {
            let m = format!("`{place}.bn.running_var` holds the negative variance {v}");
            return Err(Error::new(Kind::Format, m).hint(ADVICE));
        }
        let per = w.len() / dims[0];
        let scale: Vec<f64> = gain.iter().zip(&variance).map(|(g, v)| g / (v + EPS).sqrt()).collect();
        w.chunks_exact_mut(per).zip(&scale).for_each(|(w, s)| w.iter_mut().for_each(|w| *w *= s));
        let bias: Vec<f64> = shift.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        let dtype = super::weights::wide(dtype);
        all.insert(format!("{place}.weight"), Tensor::from_vec(w, &dims[..], &Device::Cpu)?.to_dtype(dtype)?);
        all.insert(format!("{place}.bias"), Tensor::from_vec(bias, dims[0], &Device::Cpu)?.to_dtype(dtype)?);
    }
    all.insert("fc.weight".into(), file.take("fc.weight", &[CLASSES, 2048])?);
    Ok(all)
}
