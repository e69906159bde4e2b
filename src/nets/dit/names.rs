//! The names of diffusion transformers' tensors: those of diffusers, which the graphs use, from those of the original code.
use crate::files::torch::View;
use std::collections::BTreeMap;

/// Before the names of the denoiser's network.
pub const ROOT: &str = "transformer.";

/// Which of the networks it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DiT and SiT: latents and a class.
    Dit,
    /// Stable Diffusion 3 and 3.5.
    Sd3,
    /// FLUX.1.
    Flux,
    /// PixArt-α and -Σ.
    PixArt,
}

/// A network in a checkpoint.
pub struct Found {
    /// Which one.
    pub kind: Kind,
    /// Whether its names are those of the original code, whose last modulation has its halves in the other order.
    pub original: bool,
    /// Its tensors by diffusers' names after [`ROOT`].
    pub tensors: BTreeMap<String, View>,
}

/// Where a denoiser may stand in a checkpoint.
const PLACES: [&str; 6] = ["transformer/", "model.diffusion_model.", "diffusion_model.", "module.", "state_dict.", ""];

/// Two names by which a network is known; whether they are the original code's.
const MARKS: [(Kind, bool, [&str; 2]); 8] = [
    (
        Kind::Dit,
        false,
        ["transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight", "pos_embed.proj.weight"],
    ),
    (Kind::Sd3, false, ["transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"]),
    (Kind::Flux, false, ["single_transformer_blocks.0.proj_mlp.weight", "x_embedder.weight"]),
    (Kind::Dit, true, ["blocks.0.adaLN_modulation.1.weight", "y_embedder.embedding_table.weight"]),
    (Kind::Sd3, true, ["joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight"]),
    (Kind::Flux, true, ["double_blocks.0.img_attn.qkv.weight", "img_in.weight"]),
    (Kind::PixArt, false, ["adaln_single.linear.weight", "pos_embed.proj.weight"]),
    (Kind::PixArt, true, ["t_block.1.weight", "x_embedder.proj.weight"]),
];

/// A table of beginnings of names.
type Table = &'static [(&'static str, &'static str)];

const DIT_SAVED: Table = &[("proj_out_1.", "norm_out.linear."), ("proj_out_2.", "proj_out.")];
const DIT_SAVED_BLOCK: Table = &[("attn1.", "attn.")];
const DIT: Table = &[
    ("x_embedder.proj.", "pos_embed.proj."),
    ("pos_embed", "pos_embed.table"),
    ("t_embedder.mlp.0.", "emb.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "emb.timestep_embedder.linear_2."),
    ("y_embedder.embedding_table.", "emb.class_embedder.embedding_table."),
    ("final_layer.linear.", "proj_out."),
    ("final_layer.adaLN_modulation.1.", "norm_out.linear."),
];
const PIXART: Table = &[
    ("x_embedder.proj.", "pos_embed.proj."),
    ("t_embedder.mlp.0.", "adaln_single.emb.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "adaln_single.emb.timestep_embedder.linear_2."),
    ("csize_embedder.mlp.0.", "adaln_single.emb.resolution_embedder.linear_1."),
    ("csize_embedder.mlp.2.", "adaln_single.emb.resolution_embedder.linear_2."),
    ("ar_embedder.mlp.0.", "adaln_single.emb.aspect_ratio_embedder.linear_1."),
    ("ar_embedder.mlp.2.", "adaln_single.emb.aspect_ratio_embedder.linear_2."),
    ("t_block.1.", "adaln_single.linear."),
    ("y_embedder.y_proj.fc1.", "caption_projection.linear_1."),
    ("y_embedder.y_proj.fc2.", "caption_projection.linear_2."),
    ("final_layer.linear.", "proj_out."),
    ("final_layer.scale_shift_table", "scale_shift_table"),
];
const PIXART_BLOCK: Table = &[
    ("scale_shift_table", "scale_shift_table"),
    ("attn.qkv.", "attn1.to_qkv."),
    ("attn.proj.", "attn1.to_out.0."),
    ("cross_attn.q_linear.", "attn2.to_q."),
    ("cross_attn.kv_linear.", "attn2.to_kv."),
    ("cross_attn.proj.", "attn2.to_out.0."),
    ("mlp.fc1.", "ff.net.0.proj."),
    ("mlp.fc2.", "ff.net.2."),
];
/// What PixArt's original files hold beside the network: its places, which follow from the size, and the text that stands for none.
const PIXART_BESIDE: [&str; 2] = ["pos_embed", "y_embedder.y_embedding"];
const SD3: Table = &[
    ("x_embedder.proj.", "pos_embed.proj."),
    ("pos_embed", "pos_embed.pos_embed"),
    ("context_embedder.", "context_embedder."),
    ("t_embedder.mlp.0.", "time_text_embed.timestep_embedder.linear_1."),
    ("t_embedder.mlp.2.", "time_text_embed.timestep_embedder.linear_2."),
    ("y_embedder.mlp.0.", "time_text_embed.text_embedder.linear_1."),
    ("y_embedder.mlp.2.", "time_text_embed.text_embedder.linear_2."),
    ("final_layer.linear.", "proj_out."),
    ("final_layer.adaLN_modulation.1.", "norm_out.linear."),
];
/// What DiT's blocks and the image's side of SD3's have.
const BLOCK: Table = &[
    ("attn.qkv.", "attn.to_qkv."),
    ("attn.proj.", "attn.to_out.0."),
    ("attn.ln_", "attn.norm_"),
    ("attn2.qkv.", "attn2.to_qkv."),
    ("attn2.proj.", "attn2.to_out.0."),
    ("attn2.ln_", "attn2.norm_"),
    ("mlp.fc1.", "ff.net.0.proj."),
    ("mlp.fc2.", "ff.net.2."),
    ("adaLN_modulation.1.", "norm1.linear."),
];
/// The text's side of SD3's.
const CONTEXT: Table = &[
    ("attn.qkv.", "attn.add_qkv."),
    ("attn.proj.", "attn.to_add_out."),
    ("attn.ln_", "attn.norm_added_"),
    ("mlp.fc1.", "ff_context.net.0.proj."),
    ("mlp.fc2.", "ff_context.net.2."),
    ("adaLN_modulation.1.", "norm1_context.linear."),
];
const FLUX: Table = &[
    ("img_in.", "x_embedder."),
    ("txt_in.", "context_embedder."),
    ("time_in.in_layer.", "time_text_embed.timestep_embedder.linear_1."),
    ("time_in.out_layer.", "time_text_embed.timestep_embedder.linear_2."),
    ("vector_in.in_layer.", "time_text_embed.text_embedder.linear_1."),
    ("vector_in.out_layer.", "time_text_embed.text_embedder.linear_2."),
    ("guidance_in.in_layer.", "time_text_embed.guidance_embedder.linear_1."),
    ("guidance_in.out_layer.", "time_text_embed.guidance_embedder.linear_2."),
    ("final_layer.linear.", "proj_out."),
    ("final_layer.adaLN_modulation.1.", "norm_out.linear."),
];
const DOUBLE: Table = &[
    ("img_mod.lin.", "norm1.linear."),
    ("txt_mod.lin.", "norm1_context.linear."),
    ("img_attn.qkv.", "attn.to_qkv."),
    ("txt_attn.qkv.", "attn.add_qkv."),
    ("img_attn.norm.query_norm.scale", "attn.norm_q.weight"),
    ("img_attn.norm.key_norm.scale", "attn.norm_k.weight"),
    ("txt_attn.norm.query_norm.scale", "attn.norm_added_q.weight"),
    ("txt_attn.norm.key_norm.scale", "attn.norm_added_k.weight"),
    ("img_attn.proj.", "attn.to_out.0."),
    ("txt_attn.proj.", "attn.to_add_out."),
    ("img_mlp.0.", "ff.net.0.proj."),
    ("img_mlp.2.", "ff.net.2."),
    ("txt_mlp.0.", "ff_context.net.0.proj."),
    ("txt_mlp.2.", "ff_context.net.2."),
];
const SINGLE: Table = &[
    ("linear1.", "linear1."),
    ("linear2.", "proj_out."),
    ("modulation.lin.", "norm.linear."),
    ("norm.query_norm.scale", "attn.norm_q.weight"),
    ("norm.key_norm.scale", "attn.norm_k.weight"),
];

/// Replaces the first entry that `name` begins with.
fn begin(name: &str, table: Table) -> Option<String> {
    table.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

/// A name within block `n` of `blocks.n.part.…`, renamed by a table.
fn block(name: &str, blocks: &str, part: &str, to: &str, table: Table) -> Option<String> {
    let (n, rest) = name.strip_prefix(blocks)?.split_once('.')?;
    n.parse::<usize>().ok()?;
    Some(format!("{to}.{n}.{}", begin(rest.strip_prefix(part)?, table)?))
}

/// A name by diffusers; one that is not known stays, to be named as left over.
fn renamed(name: &str, kind: Kind, original: bool) -> String {
    const BLOCKS: &str = "transformer_blocks";
    let found = match (kind, original) {
        (Kind::Dit, false) => {
            begin(name, DIT_SAVED).or_else(|| block(name, "transformer_blocks.", "", BLOCKS, DIT_SAVED_BLOCK))
        }
        (_, false) => None,
        (Kind::Dit, true) => block(name, "blocks.", "", BLOCKS, BLOCK).or_else(|| begin(name, DIT)),
        (Kind::Sd3, true) => block(name, "joint_blocks.", "x_block.", BLOCKS, BLOCK)
            .or_else(|| block(name, "joint_blocks.", "context_block.", BLOCKS, CONTEXT))
            .or_else(|| begin(name, SD3)),
        (Kind::PixArt, true) => block(name, "blocks.", "", BLOCKS, PIXART_BLOCK).or_else(|| begin(name, PIXART)),
        (Kind::Flux, true) => block(name, "double_blocks.", "", BLOCKS, DOUBLE)
            .or_else(|| block(name, "single_blocks.", "", "single_transformer_blocks", SINGLE))
            .or_else(|| begin(name, FLUX)),
    };
    found.unwrap_or_else(|| name.to_string())
}

/// The diffusion transformer in a checkpoint, if there is one.
pub fn find(tensors: &BTreeMap<String, View>) -> Option<Found> {
    for place in PLACES {
        let has = |name: &&str| tensors.contains_key(&format!("{place}{name}"));
        let Some((kind, original, _)) = MARKS.iter().find(|(_, _, marks)| marks.iter().all(&has)) else {
            continue;
        };
        let own = |(name, view): (&String, &View)| {
            let name = renamed(name.strip_prefix(place)?, *kind, *original);
            Some((format!("{ROOT}{name}"), view.clone()))
        };
        // alone in a file or among other parts: then those have other names
        let others = ["vae/", "first_stage_model.", "text_encoders.", "cond_stage_model.", "vae."];
        let beside =
            |name: &str| *kind == Kind::PixArt && name.strip_prefix(place).is_some_and(|n| PIXART_BESIDE.contains(&n));
        let mine = |(name, _): &(&String, &View)| !others.iter().any(|o| name.starts_with(o)) && !beside(name);
        let tensors = tensors.iter().filter(mine).filter_map(own).collect();
        return Some(Found { kind: *kind, original: *original, tensors });
    }
    None
}
