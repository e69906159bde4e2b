//! SongUNet: DDPM++ and NCSN++ and what lies between them (Song et al. 2021, as configured in Karras et al. 2022, table 1 and
//! appendix F).
use super::Inputs;
use super::blocks::{Style, Turn, add_condition, layers};
use super::config::Config;
use crate::Result;
use crate::nets::build::{Builder, ConvSize, Id};
use crate::nets::kernels::Waves;
use std::f64::consts::FRAC_1_SQRT_2;

/// The network that `config` describes; `out` is the number of output channels that the file has, of which the image's own are kept.
pub(super) fn build(b: &mut Builder, config: &Config, given: &Inputs, out: usize) -> Result<Id> {
    let mc = config.model_channels;
    let style = Style {
        eps: 1e-6,
        adaptive: false,
        sum: FRAC_1_SQRT_2,
        project: true,
        head: None,
        filter: config.resample_filter.clone(),
    };
    let emb = embedding(b, config, given)?;
    let levels = config.levels();
    let attends = |res: usize| config.attn_resolutions.contains(&res);

    // the second path of NCSN++'s variants
    let (mut x, mut aux, mut skips) = (given.x, given.x, vec![]);
    for (level, (res, width)) in levels.iter().enumerate() {
        let b = &mut b.under("enc");
        let name = |part: &str| format!("{res}x{res}_{part}");
        let c = b.channels(x);
        if level == 0 {
            x = b.under(&name("conv")).conv(x, ConvSize::same(mc, 3))?;
        } else {
            x = style.block(&mut b.under(&name("down")), x, emb, c, Turn::Down, false)?;
            match &*config.encoder_type {
                "skip" => {
                    aux = style.turn(&mut b.under(&name("aux_down")), aux, Turn::Down)?;
                    let more = b.under(&name("aux_skip")).conv(aux, ConvSize::same(c, 1))?;
                    x = b.under(&name("aux_sum")).sum(x, more, 1.0)?;
                }
                "residual" => {
                    let more = style.fused_down(&mut b.under(&name("aux_residual")), aux, c)?;
                    x = b.under(&name("aux_sum")).sum(x, more, FRAC_1_SQRT_2)?;
                    aux = x;
                }
                _ => {}
            }
        }
        skips.push(x);
        for i in 0..config.num_blocks {
            let b = &mut b.under(&name(&format!("block{i}")));
            x = style.block(b, x, emb, *width, Turn::Keep, attends(*res))?;
            skips.push(x);
        }
    }

    let mut image = None;
    for (level, (res, width)) in levels.iter().enumerate().rev() {
        let b = &mut b.under("dec");
        let name = |part: &str| format!("{res}x{res}_{part}");
        let deepest = level + 1 == levels.len();
        let c = b.channels(x);
        if deepest {
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
            let attention = i == config.num_blocks && attends(*res);
            x = style.block(b, x, emb, *width, Turn::Keep, attention)?;
        }
        let skip = config.decoder_type == "skip";
        if let (true, Some(small)) = (skip && !deepest, image) {
            image = Some(style.turn(&mut b.under(&name("aux_up")), small, Turn::Up)?);
        }
        if skip || level == 0 {
            let h = style.norm(&mut b.under(&name("aux_norm")), x, None, true)?;
            let size = ConvSize::same(out, 3);
            let h = b.under(&name("aux_conv")).conv_first(h, size, config.img_channels)?;
            image = Some(match image {
                Some(coarse) => b.under(&name("aux_sum")).sum(h, coarse, 1.0)?,
                None => h,
            });
        }
    }
    // the highest resolution always makes one
    Ok(image.unwrap_or(x))
}

/// From noise level and conditions to the embedding that all blocks see.
fn embedding(b: &mut Builder, config: &Config, given: &Inputs) -> Result<Id> {
    let noise = config.model_channels * config.channel_mult_noise;
    let waves = match &*config.embedding_type {
        "fourier" => Waves::fourier(&b.under("map_noise").values("freqs", &[noise / 2])?, true),
        _ => Waves::positional(noise, true, true),
    };
    let mut emb = b.under("map_noise").apply(waves, &[given.c_noise])?;
    if let Some(rows) = given.classes {
        let rows = b.under("map_label.scale").scale(rows, (config.label_dim as f64).sqrt())?;
        let mapped = b.under("map_label").linear(rows, noise)?;
        emb = add_condition(b, "map_label.sum", emb, Some(mapped))?;
    }
    if let Some(rows) = given.augment {
        let mapped = b.under("map_augment").linear_unbiased(rows, noise)?;
        emb = add_condition(b, "map_augment.sum", emb, Some(mapped))?;
    }
    emb = layers(b, emb, config.model_channels * config.channel_mult_emb)?;
    b.under("map_layer1.silu").silu(emb)
}
