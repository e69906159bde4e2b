//! SongUNet: DDPM++ and NCSN++ and what lies between them (Song et al. 2021, as configured in Karras et al. 2022, table 1 and
//! appendix F).
use super::blocks::{Build, Style, Turn};
use super::config::Config;
use super::unet::{Conditions, Mapping, Shared, Step, UNet};
use super::weights::Weights;
use crate::Result;
use crate::nets::kernels::{Modulation, Waves};
use candle_core::DType;
use std::f64::consts::FRAC_1_SQRT_2;
use std::sync::Arc;

/// Builds the network that `config` describes from `weights`, whose names EDM gives (`model.enc.…`); `out` is the number of output
/// channels that the file has, of which the image's own are kept.
pub(super) fn build(config: &Config, out: usize, w: &mut dyn Weights, trunk: DType) -> Result<UNet> {
    let mc = config.model_channels;
    let (noise, embedding) = (mc * config.channel_mult_noise, mc * config.channel_mult_emb);
    let style = Style {
        eps: 1e-6,
        adaptive: false,
        sum: FRAC_1_SQRT_2,
        project: true,
        head: None,
        filter: config.resample_filter.clone(),
        embedding,
    };
    let mut b = Build { w, style, trunk };
    let mapping = mapping(config, &mut b, noise)?;
    let levels: Vec<(usize, usize)> =
        config.channel_mult.iter().enumerate().map(|(l, m)| (config.img_resolution >> l, mc * m)).collect();
    let attends = |res: usize| config.attn_resolutions.contains(&res);

    let mut encoder = vec![];
    let (mut c, mut aux, mut skips) = (mc, config.img_channels, vec![]);
    for (level, (res, width)) in levels.iter().enumerate() {
        let name = |part: &str| format!("model.enc.{res}x{res}_{part}");
        if level == 0 {
            encoder.push(Step::Conv(b.conv3(&name("conv"), aux, mc, mc)?));
        } else {
            encoder.push(Step::Down(b.block(&name("down"), c, c, Turn::Down, false)?));
            match &*config.encoder_type {
                "skip" => {
                    encoder.extend(b.turn(&name("aux_down"), Turn::Down)?.map(Step::Aux));
                    encoder.push(Step::AddAux(b.conv1(&name("aux_skip"), aux, c)?));
                }
                "residual" => {
                    encoder.push(Step::Residual(b.fused_down(&name("aux_residual"), aux, c)?));
                    aux = c;
                }
                _ => {}
            }
        }
        skips.push(c);
        for i in 0..config.num_blocks {
            encoder.push(Step::Down(b.block(&name(&format!("block{i}")), c, *width, Turn::Keep, attends(*res))?));
            c = *width;
            skips.push(c);
        }
    }

    let mut decoder = vec![];
    for (level, (res, width)) in levels.iter().enumerate().rev() {
        let name = |part: &str| format!("model.dec.{res}x{res}_{part}");
        let deepest = level + 1 == levels.len();
        if deepest {
            decoder.push(Step::Up(b.block(&name("in0"), c, c, Turn::Keep, true)?));
            decoder.push(Step::Up(b.block(&name("in1"), c, c, Turn::Keep, false)?));
        } else {
            decoder.push(Step::Up(b.block(&name("up"), c, c, Turn::Up, false)?));
        }
        for i in 0..=config.num_blocks {
            let cin = c + skips.pop().unwrap_or_default();
            let attention = i == config.num_blocks && attends(*res);
            decoder.push(Step::Join(b.block(&name(&format!("block{i}")), cin, *width, Turn::Keep, attention)?));
            c = *width;
        }
        let skip = config.decoder_type == "skip";
        if skip && !deepest {
            decoder.extend(b.turn(&name("aux_up"), Turn::Up)?.map(Step::Aux));
        }
        if skip || level == 0 {
            let norm = b.norm(&name("aux_norm"), c, Modulation::None, true)?;
            decoder.push(Step::Out(norm, b.conv3(&name("aux_conv"), c, out, config.img_channels)?));
        }
    }
    Ok(UNet { mapping, encoder, decoder, shared: Shared::default() })
}

fn mapping(config: &Config, b: &mut Build, noise: usize) -> Result<Mapping> {
    let waves = match &*config.embedding_type {
        "fourier" => {
            let f = b.w.take("model.map_noise.freqs", &[noise / 2])?;
            Waves::fourier(&f.to_dtype(DType::F64)?.to_vec1()?, true)
        }
        _ => Waves::positional(noise, true, true),
    };
    let embedding = b.style.embedding;
    Ok(Mapping {
        waves: Arc::new(waves),
        conditions: Conditions {
            label: match config.label_dim {
                0 => None,
                n => Some(b.linear("model.map_label", n, noise, true)?),
            },
            augment: match config.augment_dim {
                0 => None,
                n => Some(b.linear("model.map_augment", n, noise, false)?),
            },
        },
        layers: [
            b.linear("model.map_layer0", noise, embedding, true)?,
            b.linear("model.map_layer1", embedding, embedding, true)?,
        ],
        label_late: false,
        label_scale: (config.label_dim as f64).sqrt(),
    })
}
