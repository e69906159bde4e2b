//! Where text encoders stand in checkpoints, how their weights are named there, and how the denoiser beside them reads them.
use crate::files::checkpoint::Checkpoint;
use crate::files::torch::View;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What PyTorch Lightning puts before all names.
const LIGHTNING: &str = "state_dict.";

/// What is taken from an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads {
    /// Layers at the end that are left out.
    pub skip: usize,
    /// Whether the final norm comes after the last layer that is read.
    pub normed: bool,
    /// Whether there is a row for the whole text, too.
    pub pooled: bool,
}

/// The names of weights after the root.
#[derive(Debug)]
pub(super) struct Names {
    /// The embedding of tokens, and that of places.
    pub table: &'static str,
    pub places: &'static str,
    /// What stands before a layer's number.
    pub layer: &'static str,
    /// The norms of a layer.
    pub norms: [&'static str; 2],
    pub attention: &'static str,
    /// q, k and v, where they are not one weight.
    pub qkv: Option<[&'static str; 3]>,
    pub out: &'static str,
    /// The maps of a layer.
    pub maps: [&'static str; 2],
    /// The final norm.
    pub norm: &'static str,
    /// The map of the pooled output, and whether it is kept as [in, out].
    pub projection: &'static str,
    pub transposed: bool,
}

macro_rules! transformers {
    ($tower:literal) => {
        Names {
            table: concat!($tower, "embeddings.token_embedding.weight"),
            places: concat!($tower, "embeddings.position_embedding.weight"),
            layer: concat!($tower, "encoder.layers"),
            norms: ["layer_norm1", "layer_norm2"],
            attention: "self_attn",
            qkv: Some(["q_proj", "k_proj", "v_proj"]),
            out: "out_proj",
            maps: ["mlp.fc1", "mlp.fc2"],
            norm: concat!($tower, "final_layer_norm"),
            projection: "text_projection.weight",
            transposed: false,
        }
    };
}

static TRANSFORMERS: Names = transformers!("text_model.");
/// As transformers 5 writes them.
static BARE: Names = transformers!("");
static OPEN_CLIP: Names = Names {
    table: "token_embedding.weight",
    places: "positional_embedding",
    layer: "transformer.resblocks",
    norms: ["ln_1", "ln_2"],
    attention: "attn",
    qkv: None,
    out: "out_proj",
    maps: ["mlp.c_fc", "mlp.c_proj"],
    norm: "ln_final",
    projection: "text_projection",
    transposed: true,
};

/// A place of a text encoder in checkpoints.
#[derive(Debug)]
pub struct Place {
    /// What stands before all names.
    pub root: &'static str,
    /// How the denoiser beside it reads it; one that stands alone is read to its end.
    pub reads: Reads,
    pub(super) names: &'static Names,
}

const fn place(root: &'static str, names: &'static Names, skip: usize, normed: bool, pooled: bool) -> Place {
    Place { root, names, reads: Reads { skip, normed, pooled } }
}

/// All places that are known. Those of one checkpoint are in the order in which its denoiser reads them.
pub static PLACES: [Place; 10] = [
    // Stable Diffusion 1 and 2
    place("cond_stage_model.transformer.", &TRANSFORMERS, 0, true, false),
    place("cond_stage_model.model.", &OPEN_CLIP, 1, true, false),
    // SDXL, and its refiner
    place("conditioner.embedders.0.transformer.", &TRANSFORMERS, 1, false, false),
    place("conditioner.embedders.0.model.", &OPEN_CLIP, 1, false, true),
    place("conditioner.embedders.1.model.", &OPEN_CLIP, 1, false, true),
    // Stable Diffusion 3 and FLUX.1, with all encoders in a single file
    place("text_encoders.clip_l.transformer.", &TRANSFORMERS, 1, false, true),
    place("text_encoders.clip_g.transformer.", &TRANSFORMERS, 1, false, true),
    // alone
    place("", &TRANSFORMERS, 0, true, false),
    place("", &BARE, 0, true, false),
    place("", &OPEN_CLIP, 0, true, false),
];

impl Place {
    /// The name of the embedding of tokens, by which it is known.
    pub fn table(&self) -> String {
        self.full(self.names.table)
    }
    /// A name in the checkpoint.
    pub(super) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.root)
    }
    /// The name of a weight of layer `i`.
    pub(super) fn of_layer(&self, i: usize, name: &str) -> String {
        self.full(&format!("{}.{i}.{name}", self.names.layer))
    }
    /// Whether weights are named as transformers names them.
    pub(super) fn is_transformers(&self) -> bool {
        !self.names.transposed
    }
}

/// The places at which a checkpoint has a text encoder.
pub fn places(tensors: &BTreeMap<String, View>) -> Vec<&'static Place> {
    PLACES.iter().filter(|p| tensors.get(&p.table()).is_some_and(|t| t.shape().len() == 2)).collect()
}

/// A checkpoint's tensors by the names that they have in the network.
pub fn state(checkpoint: &Checkpoint) -> Cow<'_, BTreeMap<String, View>> {
    let all = checkpoint.tensors();
    let under = |(k, v): (&String, &View)| Some((k.strip_prefix(LIGHTNING)?.to_string(), v.clone()));
    let inner: BTreeMap<String, View> = all.iter().filter_map(under).collect();
    if inner.is_empty() { Cow::Borrowed(all) } else { Cow::Owned(inner) }
}
