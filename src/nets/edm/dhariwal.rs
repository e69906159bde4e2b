//! DhariwalUNet: ADM (Dhariwal & Nichol 2021, as configured in Karras et al. 2022, table 1 and appendix F).
use super::blocks::{Build, Style, Turn};
use super::config::Config;
use super::unet::{Conditions, Mapping, Shared, Step, UNet};
use super::weights::Weights;
use crate::Result;
use crate::nets::kernels::{Modulation, Waves};
use candle_core::DType;
use std::sync::Arc;

/// Builds the network that `config` describes from `weights`, whose names EDM gives (`model.enc.…`); `out` is the number of output
/// channels that the file has, of which the image's own are kept.
pub(super) fn build(config: &Config, out: usize, w: &mut dyn Weights, trunk: DType) -> Result<UNet> {
    let mc = config.model_channels;
    let embedding = mc * config.channel_mult_emb;
    let style = Style {
        eps: 1e-5,
        adaptive: true,
        sum: 1.0,
        project: false,
        head: Some(64),
        filter: vec![1.0, 1.0],
        embedding,
    };
    let mut b = Build { w, style, trunk };
    let optional = |b: &mut Build, name: &str, n: usize, to: usize| match n {
        0 => Ok(None),
        n => b.linear(name, n, to, false).map(Some),
    };
    let mapping = Mapping {
        waves: Arc::new(Waves::positional(mc, false, false)),
        conditions: Conditions {
            label: optional(&mut b, "model.map_label", config.label_dim, embedding)?,
            augment: optional(&mut b, "model.map_augment", config.augment_dim, mc)?,
        },
        layers: [
            b.linear("model.map_layer0", mc, embedding, true)?,
            b.linear("model.map_layer1", embedding, embedding, true)?,
        ],
        label_late: true,
        label_scale: 1.0,
    };
    let levels: Vec<(usize, usize)> =
        config.channel_mult.iter().enumerate().map(|(l, m)| (config.img_resolution >> l, mc * m)).collect();
    let attends = |res: usize| config.attn_resolutions.contains(&res);

    let (mut encoder, mut skips, mut c) = (vec![], vec![], config.img_channels);
    for (level, (res, width)) in levels.iter().enumerate() {
        let name = |part: &str| format!("model.enc.{res}x{res}_{part}");
        if level == 0 {
            encoder.push(Step::Conv(b.conv3(&name("conv"), c, *width, *width)?));
            c = *width;
        } else {
            encoder.push(Step::Down(b.block(&name("down"), c, c, Turn::Down, false)?));
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
        if level + 1 == levels.len() {
            decoder.push(Step::Up(b.block(&name("in0"), c, c, Turn::Keep, true)?));
            decoder.push(Step::Up(b.block(&name("in1"), c, c, Turn::Keep, false)?));
        } else {
            decoder.push(Step::Up(b.block(&name("up"), c, c, Turn::Up, false)?));
        }
        for i in 0..=config.num_blocks {
            let cin = c + skips.pop().unwrap_or_default();
            let name = name(&format!("block{i}"));
            decoder.push(Step::Join(b.block(&name, cin, *width, Turn::Keep, attends(*res))?));
            c = *width;
        }
    }
    let norm = b.norm("model.out_norm", c, Modulation::None, true)?;
    decoder.push(Step::Out(norm, b.conv3("model.out_conv", c, out, config.img_channels)?));
    Ok(UNet { mapping, encoder, decoder, shared: Shared::default() })
}
