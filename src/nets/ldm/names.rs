//! The names of latent diffusion's tensors: CompVis's, which the graphs use, from those of diffusers and from other places in a file.
use crate::files::torch::View;
use std::collections::BTreeMap;

/// Before the names of the denoiser's network.
pub const UNET: &str = "model.diffusion_model.";
/// Before the names of the autoencoder.
pub const STAGE: &str = "first_stage_model.";
/// Before the names of the averaged weights, each without its dots.
pub const EMA: &str = "model_ema.";
/// What the denoiser's names begin with inside the wrapper whose weights are averaged.
const WRAPPED: &str = "diffusion_model.";
/// The embedding of classes.
pub const CLASSES: &str = "cond_stage_model.embedding.weight";
/// ᾱ of the training steps.
pub const ALPHAS: &str = "alphas_cumprod";
/// The factor between latents and what the denoiser sees.
pub const SCALE: &str = "scale_factor";

/// Where a denoiser may stand in a checkpoint, the most telling first.
const UNETS: [&str; 6] = [UNET, "unet/", "state_dict.model.diffusion_model.", "diffusion_model.", "module.", ""];
/// Where an autoencoder may stand.
const STAGES: [&str; 5] = [STAGE, "vae/", "state_dict.first_stage_model.", "state_dict.", ""];

/// The averaged weight of a denoiser's tensor: dots taken out, so it can be found by name but not told from it.
pub fn averaged(name: &str) -> String {
    format!("{EMA}{}", format!("{WRAPPED}{name}").replace('.', ""))
}

/// A checkpoint's tensors of latent diffusion by CompVis's names, if it holds a denoiser or an autoencoder of this kind.
pub fn canonical(tensors: &BTreeMap<String, View>) -> Option<BTreeMap<String, View>> {
    let (unet, stage) = (denoiser(tensors), autoencoder(tensors));
    if unet.is_none() && stage.is_none() {
        return None;
    }
    let mut out = BTreeMap::new();
    let mut add = |found: Option<(&str, Rename)>, to: &str| {
        let Some((prefix, rename)) = found else { return };
        for (name, view) in tensors {
            if let Some(name) = name.strip_prefix(prefix).and_then(&rename) {
                out.insert(format!("{to}{name}"), view.clone());
            }
        }
    };
    add(unet, UNET);
    add(stage, STAGE);
    for (name, view) in tensors {
        let bare = name.strip_prefix("state_dict.").unwrap_or(name);
        if bare.starts_with(EMA) || [CLASSES, ALPHAS, SCALE].contains(&bare) {
            out.insert(bare.to_string(), view.clone());
        }
    }
    Some(out)
}

/// The tensors of an autoencoder of this kind in a checkpoint, by CompVis's names after `STAGE`; none where there is none.
pub fn stage(tensors: &BTreeMap<String, View>) -> BTreeMap<String, View> {
    let Some((prefix, rename)) = autoencoder(tensors) else { return BTreeMap::new() };
    let own = |(name, view): (&String, &View)| {
        Some((format!("{STAGE}{}", name.strip_prefix(prefix).and_then(&rename)?), view.clone()))
    };
    tensors.iter().filter_map(own).collect()
}

/// A name by CompVis, of one after its prefix; none for what is no part of the network.
type Rename = Box<dyn Fn(&str) -> Option<String>>;

fn denoiser(tensors: &BTreeMap<String, View>) -> Option<(&'static str, Rename)> {
    let has = |prefix: &str, name: &str| tensors.contains_key(&format!("{prefix}{name}"));
    for prefix in UNETS {
        if has(prefix, "input_blocks.0.0.weight") && has(prefix, "time_embed.0.weight") {
            return Some((prefix, Box::new(|n| of_unet(n).then(|| n.to_string()))));
        }
        if has(prefix, "time_embedding.linear_1.weight") && has(prefix, "down_blocks.0.resnets.0.norm1.weight") {
            let per = (0..).take_while(|j| has(prefix, &format!("down_blocks.0.resnets.{j}.norm1.weight"))).count();
            let middle = has(prefix, "mid_block.attentions.0.norm.weight");
            let attends: Vec<bool> =
                (0..8).map(|i| has(prefix, &format!("up_blocks.{i}.attentions.0.norm.weight"))).collect();
            // what is not known stays, to be named as left over
            return Some((
                prefix,
                Box::new(move |n| Some(unet_name(n, per, middle, &attends).unwrap_or(n.to_string()))),
            ));
        }
    }
    None
}

fn of_unet(name: &str) -> bool {
    ["time_embed.", "label_emb.", "input_blocks.", "middle_block.", "output_blocks.", "out."]
        .iter()
        .any(|p| name.starts_with(p))
}

fn of_stage(name: &str) -> bool {
    ["encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize.embedding."]
        .iter()
        .any(|p| name.starts_with(p))
}

fn autoencoder(tensors: &BTreeMap<String, View>) -> Option<(&'static str, Rename)> {
    let has = |prefix: &str, name: &str| tensors.contains_key(&format!("{prefix}{name}"));
    for prefix in STAGES {
        if !has(prefix, "decoder.conv_in.weight") {
            continue;
        }
        if has(prefix, "decoder.mid.block_1.norm1.weight") {
            return Some((prefix, Box::new(|n| of_stage(n).then(|| n.to_string()))));
        }
        if has(prefix, "decoder.mid_block.resnets.0.norm1.weight") {
            let up = |i: &usize| has(prefix, &format!("decoder.up_blocks.{i}.resnets.0.norm1.weight"));
            let levels = (0..).take_while(up).count();
            return Some((prefix, Box::new(move |n| of_stage(n).then(|| stage_name(n, levels)).flatten())));
        }
    }
    None
}

/// Replaces the first entry that `name` begins with.
fn begin(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

/// `blocks.3.rest` as (3, "rest").
fn numbered<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let (n, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((n.parse().ok()?, rest))
}

/// A name within a residual block of a denoiser.
fn residual(rest: &str) -> Option<String> {
    begin(
        rest,
        &[
            ("norm1.", "in_layers.0."),
            ("conv1.", "in_layers.2."),
            ("time_emb_proj.", "emb_layers.1."),
            ("norm2.", "out_layers.0."),
            ("conv2.", "out_layers.3."),
            ("conv_shortcut.", "skip_connection."),
        ],
    )
}

/// diffusers' name of a denoiser's tensor by CompVis, for `per` residual blocks at each resolution on the way down.
fn unet_name(name: &str, per: usize, middle: bool, attends: &[bool]) -> Option<String> {
    let whole = [
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_in.", "input_blocks.0.0."),
        ("conv_norm_out.", "out.0."),
        ("conv_out.", "out.2."),
        ("mid_block.attentions.0.", "middle_block.1."),
        ("add_embedding.linear_1.", "label_emb.0.0."),
        ("add_embedding.linear_2.", "label_emb.0.2."),
    ];
    if let Some(found) = begin(name, &whole) {
        return Some(found);
    }
    if let Some((j, rest)) = numbered(name, "mid_block.resnets.") {
        let at = if j == 1 && middle { 2 } else { j };
        return Some(format!("middle_block.{at}.{}", residual(rest)?));
    }
    if let Some((i, rest)) = numbered(name, "down_blocks.") {
        let first = 1 + i * (per + 1);
        if let Some((j, rest)) = numbered(rest, "resnets.") {
            return Some(format!("input_blocks.{}.0.{}", first + j, residual(rest)?));
        }
        if let Some((j, rest)) = numbered(rest, "attentions.") {
            return Some(format!("input_blocks.{}.1.{rest}", first + j));
        }
        return Some(format!("input_blocks.{}.0.op.{}", first + per, rest.strip_prefix("downsamplers.0.conv.")?));
    }
    let (i, rest) = numbered(name, "up_blocks.")?;
    let first = i * (per + 1);
    if let Some((j, rest)) = numbered(rest, "resnets.") {
        return Some(format!("output_blocks.{}.0.{}", first + j, residual(rest)?));
    }
    if let Some((j, rest)) = numbered(rest, "attentions.") {
        return Some(format!("output_blocks.{}.1.{rest}", first + j));
    }
    let place = if attends.get(i) == Some(&true) { 2 } else { 1 };
    Some(format!("output_blocks.{}.{place}.conv.{}", first + per, rest.strip_prefix("upsamplers.0.conv.")?))
}

/// diffusers' name of an autoencoder's tensor by CompVis, for a decoder of so many resolutions.
fn stage_name(name: &str, levels: usize) -> Option<String> {
    let Some((side, rest)) = name.split_once('.').filter(|(side, _)| ["encoder", "decoder"].contains(side)) else {
        return Some(name.to_string());
    };
    let block = |rest: &str| match rest.strip_prefix("conv_shortcut.") {
        Some(rest) => format!("nin_shortcut.{rest}"),
        None => rest.to_string(),
    };
    let attention = |rest: &str| {
        let table = [
            ("group_norm.", "norm."),
            ("to_q.", "q."),
            ("to_k.", "k."),
            ("to_v.", "v."),
            ("to_out.0.", "proj_out."),
            ("query.", "q."),
            ("key.", "k."),
            ("value.", "v."),
            ("proj_attn.", "proj_out."),
        ];
        begin(rest, &table)
    };
    let inner = if let Some(found) = begin(rest, &[("conv_norm_out.", "norm_out.")]) {
        found
    } else if let Some((j, rest)) = numbered(rest, "mid_block.resnets.") {
        format!("mid.block_{}.{}", j + 1, block(rest))
    } else if let Some(rest) = rest.strip_prefix("mid_block.attentions.0.") {
        format!("mid.attn_1.{}", attention(rest)?)
    } else if let Some((i, rest)) = numbered(rest, "down_blocks.") {
        match numbered(rest, "resnets.") {
            Some((j, rest)) => format!("down.{i}.block.{j}.{}", block(rest)),
            None => format!("down.{i}.downsample.conv.{}", rest.strip_prefix("downsamplers.0.conv.")?),
        }
    } else if let Some((i, rest)) = numbered(rest, "up_blocks.") {
        // CompVis counts from the highest resolution
        let i = levels.checked_sub(i + 1)?;
        match numbered(rest, "resnets.") {
            Some((j, rest)) => format!("up.{i}.block.{j}.{}", block(rest)),
            None => format!("up.{i}.upsample.conv.{}", rest.strip_prefix("upsamplers.0.conv.")?),
        }
    } else {
        rest.to_string()
    };
    Some(format!("{side}.{inner}"))
}
