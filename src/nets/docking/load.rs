//! Which checkpoints hold a network of docking, and what is built from them.
use super::facts::{Facts, flat_yaml};
use super::model::{Confidence, Score};
use super::{confidence, score};
use crate::files::checkpoint::Checkpoint;
use crate::files::torch::View;
use crate::nets::family::Described;
use crate::nets::runner::Runner;
use crate::nets::weights::File;
use crate::{Error, Kind, Result};
use candle_core::DType;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The metadata of a file that was converted: the training parameters as JSON.
pub const ENTRY: &str = "docking";
/// The file beside the weights, and the metadata that has its text.
pub const PARAMETERS: &str = "model_parameters.yml";
/// Tensors that every such network has.
const MARK: &str = "rec_node_embedding.atom_embedding_list.0.weight";
const LIGAND: &str = "lig_node_embedding.atom_embedding_list.0.weight";

/// What to do where a tensor does not fit.
const ADVICE: &str = "does the model_parameters.yml beside it describe this network?";

/// One of both networks.
pub enum Built {
    /// The score model.
    Score(Score),
    /// The confidence model.
    Confidence(Confidence),
}

/// What is computed and not trained: products' bookkeeping, places of bumps.
fn computed(name: &str) -> bool {
    name.contains(".tp.")
        || name.starts_with("final_tp_tor.")
        || name.ends_with("_distance_expansion.offset")
        || name.ends_with(".num_batches_tracked")
}

/// Whether a checkpoint holds a network of docking.
pub fn holds(checkpoint: &Checkpoint) -> bool {
    [MARK, LIGAND].iter().all(|name| checkpoint.tensors().contains_key(*name))
}

/// The network in a checkpoint; `None` where it is of another kind.
pub fn find(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let (tensors, metadata) = (checkpoint.tensors(), checkpoint.metadata());
    if !holds(checkpoint) {
        return Ok(None);
    }
    let named = |(name, view): (&String, &View)| (name.clone(), view.clone());
    // batch norms of what has no scalars have tensors without entries
    let kept = |(name, view): &(&String, &View)| !computed(name) && view.count() > 0;
    let own: BTreeMap<String, View> = tensors.iter().filter(kept).map(named).collect();
    let mut metadata = metadata.clone();
    // what a file says of itself counts before what stands beside it
    if let Some(text) = metadata.get(PARAMETERS).filter(|_| !metadata.contains_key(ENTRY)) {
        let parameters = Value::Object(flat_yaml(text)?).to_string();
        metadata.insert(ENTRY.into(), parameters);
    }
    Ok(Some((Cow::Owned(own), Cow::Owned(metadata))))
}

fn format(m: impl Into<String>) -> Error {
    Error::new(Kind::Format, m)
}

/// Builds the network of a file.
///
/// # Errors
/// Parameters that are missing or do not fit, networks of DiffDock that are of other kinds, and tensors that are missing or left over.
pub fn built(file: &mut File) -> Result<Built> {
    if !matches!(file.dtype, DType::F32 | DType::F64) {
        return Err(Error::new(Kind::Device, "networks of docking run in f32 and f64 here").hint("leave out `dtype`"));
    }
    if file.has("rec_node_embedding.additional_features_embedder.weight") {
        return Err(format("it is a network of DiffDock-L, whose layers are other ones")
            .hint("known are the networks of DiffDock v1.0 (ICLR 2023)"));
    }
    let Some(text) = file.metadata(ENTRY) else {
        return Err(format(format!("a network of docking needs `{PARAMETERS}`, which is not beside it"))
            .hint("training wrote it into the folder of the weights: put it there"));
    };
    let parameters: Value = serde_json::from_str(text).map_err(|e| format(format!("`{ENTRY}` is no JSON: {e}")))?;
    let facts = Facts::new(parameters.as_object().ok_or_else(|| format(format!("`{ENTRY}` is no JSON object")))?)?;
    let (atoms, sure) =
        (file.has("atom_node_embedding.linear.weight"), file.dims("confidence_predictor.8.weight").map(|d| d[0]));
    let language = file.has("rec_node_embedding.lm_embedding_layer.weight");
    file.advise(ADVICE);
    let (device, dtype) = (file.device.clone(), file.dtype);
    let hash = file.hash(&format!("{} {facts:?}", dtype.as_str()))?;
    match (atoms, sure) {
        (false, None) => {
            let graph = score::network(file, &facts, language, dtype)?;
            Ok(Built::Score(Score::new(Runner::new(graph, &device, dtype), facts, language, hash)))
        }
        (true, Some(outputs)) => {
            let graph = confidence::network(file, &facts, language, outputs, dtype)?;
            Ok(Built::Confidence(Confidence::new(Runner::new(graph, &device, dtype), facts, language, hash)))
        }
        (true, None) => Err(format("a score model that looks at all atoms is not read here")),
        (false, Some(_)) => Err(format("a confidence model that looks at residues alone is not read here")),
    }
}
