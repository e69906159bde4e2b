//! What is often taken for a network: by the names of its tensors, what it is, and what to do.
use crate::files::torch::View;
use std::collections::BTreeMap;

/// What a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A denoiser.
    Denoiser,
    /// An autoencoder of images.
    Stage,
    /// A text encoder.
    Text,
    /// Nothing that is ever read alone.
    Other,
}

/// A kind of checkpoint that is known by its names.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Parts with which names of its tensors begin, or with which they end.
    marks: &'static [&'static str],
    /// What it holds.
    pub holds: Holds,
    /// The same in words, after "holds".
    pub what: &'static str,
    /// What to do.
    pub fix: &'static str,
}

const fn known(marks: &'static [&'static str], holds: Holds, what: &'static str, fix: &'static str) -> Known {
    Known { marks, holds, what, fix }
}

const THAT: &str = "load the model that it was made for";

/// The most telling first.
const TABLE: [Known; 13] = [
    known(
        &["lora_", ".lora_A.weight", ".lora_down.weight", ".lora.down.weight", ".hada_w1_a", ".lokr_w1"],
        Holds::Other,
        "changes of other weights (LoRA), not a network",
        "load the model that they were made for",
    ),
    known(
        &["control_model.", "controlnet_cond_embedding.", "controlnet_down_blocks."],
        Holds::Other,
        "a ControlNet, which is not read",
        THAT,
    ),
    known(
        &["ip_adapter.", "image_proj."],
        Holds::Other,
        "an adapter for images as prompts (IP-Adapter), which is not read",
        THAT,
    ),
    known(
        &["string_to_param.", "emb_params"],
        Holds::Other,
        "an embedding of a new word (textual inversion), which is not read",
        THAT,
    ),
    known(
        &["state.0.", "optimizer_states.0.", "optimizer."],
        Holds::Other,
        "the state of an optimizer, not a network",
        "load the `ema_…` or `model…` file beside it",
    ),
    known(
        &["double_blocks.", "single_transformer_blocks."],
        Holds::Denoiser,
        "a part of a FLUX transformer",
        "get the whole file",
    ),
    known(
        &["joint_blocks.", "context_embedder."],
        Holds::Denoiser,
        "a part of a Stable Diffusion 3 transformer",
        "get the whole file",
    ),
    known(
        &["caption_projection.", "adaln_single."],
        Holds::Denoiser,
        "a part of a PixArt transformer",
        "get the whole file",
    ),
    known(
        &["encoder.block.0.layer.0.SelfAttention.", "shared.weight"],
        Holds::Text,
        "a T5 text encoder",
        "`text::load` reads it",
    ),
    known(
        &["vision_model.", "visual."],
        Holds::Other,
        "an image encoder",
        "load the text encoder or the model beside it",
    ),
    known(
        &["input_blocks.", "down_blocks.0."],
        Holds::Denoiser,
        "a denoiser",
        "load its own text encoder's file or folder, or the folder that both are in",
    ),
    known(
        &["first_stage_model.decoder.", "decoder.conv_in.weight"],
        Holds::Stage,
        "an autoencoder of images",
        "load the model beside it",
    ),
    known(
        &["text_model.", "cond_stage_model.transformer.", "transformer.resblocks."],
        Holds::Text,
        "a text encoder",
        "`text::load` reads it",
    ),
];

/// What stands before names without meaning anything here.
const BEFORE: [&str; 4] = ["state_dict.", "model.diffusion_model.", "unet.", "module."];

/// What these tensors are, where whoever asks did not find what was wanted.
pub fn told(tensors: &BTreeMap<String, View>, wanted: Holds) -> Option<&'static Known> {
    let bare = |name: &'_ str| -> String {
        let mut name = name;
        while let Some(rest) = BEFORE.iter().find_map(|b| name.strip_prefix(b)) {
            name = rest;
        }
        name.to_string()
    };
    let names: Vec<String> = tensors.keys().map(|n| bare(n)).collect();
    let is = |k: &&Known| k.marks.iter().any(|m| names.iter().any(|n| n.starts_with(m) || n.ends_with(m)));
    // what was wanted and is only not whole is told by whoever asks
    let whole = |k: &&Known| k.holds != wanted || ["not read", "a part"].iter().any(|w| k.what.contains(w));
    TABLE.iter().filter(whole).find(is)
}
