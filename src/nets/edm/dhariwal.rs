//! DhariwalUNet: ADM (Dhariwal & Nichol 2021, as configured in Karras et al. 2022, table 1 and appendix F).
use super::Inputs;
use super::blocks::{Style, Turn, add_condition, layers};
use super::config::Config;
use crate::Result;
use crate::nets::build::{Builder, ConvSize, Id};
use crate::nets::kernels::Waves;

/// The network that `config` describes; `out` is the number of output channels that the file has, of which the image's own are kept.
pub(super) fn build(b: &mut Builder, config: &Config, given: &Inputs, out: usize) -> Result<Id> {
    let style = Style { eps: 1e-5, adaptive: true, sum: 1.0, project: false, head: Some(64), filter: vec![1.0, 1.0] };
    let emb = embedding(b, config, given)?;
    let levels = config.levels();
    let attends = |res: usize| config.attn_resolutions.contains(&res);

    let (mut x, mut skips) = (given.x, vec![]);
    for (level, (res, width)) in levels.iter().enumerate() {
        let b = &mut b.under("enc");
        let name = |part: &str| format!("{res}x{res}_{part}");
        let c = b.channels(x);
        x = match level {
            0 => b.under(&name("conv")).conv(x, ConvSize::same(*width, 3))?,
            _ => style.block(&mut b.under(&name("down")), x, emb, c, Turn::Down, false)?,
        };
        skips.push(x);
        for i in 0..config.num_blocks {
            let b = &mut b.under(&name(&format!("block{i}")));
            x = style.block(b, x, emb, *width, Turn::Keep, attends(*res))?;
            skips.push(x);
        }
    }

    for (level, (res, width)) in levels.iter().enumerate().rev() {
        let b = &mut b.under("dec");
        let name = |part: &str| format!("{res}x{res}_{part}");
        let c = b.channels(x);
        if level + 1 == levels.len() {
            x = style.block(&mut b.under(&name("in0")), x, emb, c, Turn::Keep, true)?;
            x = style.block(&mut b.under(&name("in1")), x, emb, c, Turn::Keep, false)?;
        } else {
            x = style.block(&mut b.under(&name("up")), x, emb, c, Turn::Up, false)?;
        }
        for i in 0..=config.num_blocks {
            let b = &mut b.under(&name(&format!("block{i}")));
            if let Some(skip) = skips.pop() {
                x = b.under("concat").concat(x, skip)?;
            }
            x = style.block(b, x, emb, *width, Turn::Keep, attends(*res))?;
        }
    }
    let x = style.norm(&mut b.under("out_norm"), x, None, true)?;
    b.under("out_conv").conv_first(x, ConvSize::same(out, 3), config.img_channels)
}

/// From noise level and conditions to the embedding that all blocks see; classes are added after both layers.
fn embedding(b: &mut Builder, config: &Config, given: &Inputs) -> Result<Id> {
    let mc = config.model_channels;
    let width = mc * config.channel_mult_emb;
    let classes = given.classes.map(|rows| b.under("map_label").linear_unbiased(rows, width)).transpose()?;
    let augment = given.augment.map(|rows| b.under("map_augment").linear_unbiased(rows, mc)).transpose()?;
    let mut emb = b.under("map_noise").apply(Waves::positional(mc, false, false), &[given.c_noise])?;
    emb = add_condition(b, "map_augment.sum", emb, augment)?;
    emb = layers(b, emb, width)?;
    emb = add_condition(b, "map_label.sum", emb, classes)?;
    b.under("map_layer1.silu").silu(emb)
}
