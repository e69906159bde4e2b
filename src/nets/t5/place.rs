//! Where T5 encoders stand in checkpoints.
use crate::files::torch::View;
use crate::nets::weights::File;
use std::collections::BTreeMap;

/// A place of an encoder in checkpoints.
#[derive(Debug)]
pub struct Place {
    /// What stands before all names.
    pub root: &'static str,
}

/// By what it is known.
const MARK: &str = "encoder.block.0.layer.0.SelfAttention.q.weight";

/// All places that are known.
static PLACES: [Place; 4] = [
    Place { root: "" },
    // single files of Stable Diffusion 3 and FLUX.1 with their text encoders
    Place { root: "text_encoders.t5xxl.transformer." },
    Place { root: "text_encoders.t5xxl." },
    Place { root: "t5xxl.transformer." },
];

impl Place {
    /// A name in the checkpoint.
    pub(super) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.root)
    }
    /// The name of the embedding of tokens, which some files have as the encoder's own.
    pub(super) fn table(&self, file: &File) -> String {
        let own = self.full("encoder.embed_tokens.weight");
        if file.has(&own) { own } else { self.full("shared.weight") }
    }
}

/// The place at which a checkpoint has a T5 encoder.
pub fn place(tensors: &BTreeMap<String, View>) -> Option<&'static Place> {
    PLACES.iter().find(|p| tensors.contains_key(&p.full(MARK)))
}
