//! Where a generator of point clouds stands in a checkpoint: as it is published, with its training arguments beside it, or by its tensors.
use super::{ENTRY, MARK, NET};
use crate::files::checkpoint::{Checkpoint, damaged};
use crate::files::torch::{Document, Item, View};
use crate::nets::edm::plain_values;
use crate::nets::family::Described;
use crate::{Error, Kind, Result};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where a training run keeps the weights.
const PLACES: [&str; 2] = ["state_dict.", ""];
/// The training arguments that say what the network is.
const ARGUMENTS: [&str; 10] = [
    "model",
    "latent_dim",
    "num_steps",
    "beta_1",
    "beta_T",
    "sched_mode",
    "residual",
    "flexibility",
    "latent_flow_depth",
    "latent_flow_hidden_dim",
];

/// The network in a checkpoint, its tensors named as the repository's model names them; `None` where it is of another kind.
pub fn find(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let (tensors, metadata) = (checkpoint.tensors(), checkpoint.metadata());
    if metadata.contains_key(ENTRY) {
        return Ok(Some((Cow::Borrowed(tensors), Cow::Borrowed(metadata))));
    }
    let Some(place) = PLACES.iter().find(|p| has_net(tensors, p)) else { return Ok(None) };
    // the encoder, which makes latents in training, and the optimizer are no part of a generator
    let ours = |name: &str| name.starts_with("diffusion.") || name.starts_with("flow.");
    let named = |(name, view): (&String, &View)| Some((name.strip_prefix(place)?.to_string(), view.clone()));
    let mut found: BTreeMap<String, View> = tensors.iter().filter_map(named).collect();
    if let Some(name) = found.keys().find(|n| n.ends_with(".weight_orig")) {
        let m = format!("`{name}`: it was trained with spectral normalization, whose weights are not read");
        return Err(Error::new(Kind::Format, m)
            .hint("fold the norm into the weights in PyTorch (`remove_spectral_norm`) and save it again"));
    }
    found.retain(|name, _| ours(name));
    let mut metadata = metadata.clone();
    if let Some(arguments) = checkpoint.document().map(arguments).transpose()?.flatten() {
        metadata.insert(ENTRY.into(), Value::Object(arguments).to_string());
    }
    Ok(Some((Cow::Owned(found), Cow::Owned(metadata))))
}

fn has_net(tensors: &BTreeMap<String, View>, place: &str) -> bool {
    let mark = MARK.strip_prefix(NET).unwrap_or(MARK);
    ["weight", "weight_orig"].iter().any(|end| {
        let name = format!("{place}{NET}{}", mark.strip_suffix("weight").unwrap_or(mark));
        tensors.contains_key(&format!("{name}{end}"))
    })
}

/// The arguments of the training run: `args` of the file's dictionary, an `argparse.Namespace`, which is not called but read.
fn arguments(doc: &Document) -> Result<Option<Map<String, Value>>> {
    let Item::Map(pairs) = doc.item(doc.tree().root()).map_err(damaged)? else { return Ok(None) };
    let Some((_, id)) = doc.keyed(&pairs).into_iter().find(|(k, _)| k == "args") else { return Ok(None) };
    let entries = match doc.item(id).map_err(damaged)? {
        Item::Object(object) if object.class == "argparse.Namespace" => doc.attributes(&object).map_err(damaged)?,
        Item::Map(pairs) => doc.keyed(&pairs),
        _ => {
            let m = "`args` in the file is neither a namespace of arguments nor a dictionary";
            return Err(Error::new(Kind::Format, m)
                .hint("the repository's training scripts save an `argparse.Namespace` there"));
        }
    };
    let mut out = Map::new();
    for (name, id) in entries {
        if ARGUMENTS.contains(&&*name) {
            let value = plain_values(doc, id).map_err(|e| e.context(format!("`args.{name}`")))?;
            out.insert(name.into_owned(), value);
        }
    }
    Ok(Some(out))
}
