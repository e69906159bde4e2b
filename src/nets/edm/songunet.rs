//! SongUNet in its DDPM++ form: positional noise embedding, standard encoder and decoder, box resampling (Song et al. 2021,
//! as configured in Karras et al. 2022, table 1 and appendix F).
use super::config::Config;
use super::weights::Weights;
use crate::nets::kernels::{
    AddScale, Attention, Concat, Conv3x3, Down2, Frozen, GroupNorm, Linear, Modulation, Positional, Silu, Up2,
};
use crate::nets::tape::Exec;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::f64::consts::FRAC_1_SQRT_2;
use std::sync::Arc;

type Op = Arc<dyn Frozen>;

/// Epsilon of every group norm in this network.
const EPS: f64 = 1e-6;

#[derive(Clone, Copy, PartialEq)]
enum Resample {
    Keep,
    Up,
    Down,
}

/// The network F(x_in, c_noise, labels).
pub struct SongUNet {
    positional: Op,
    label: Option<Op>,
    map0: Op,
    map1: Op,
    silu: Op,
    plus: Op,
    concat: Op,
    first: Op,
    encoder: Vec<Block>,
    /// Each with whether it takes a skip connection.
    decoder: Vec<(Block, bool)>,
    out_norm: Op,
    out_conv: Op,
}

/// A residual block with optional resampling and attention.
struct Block {
    norm0: Op,
    resample: Option<Op>,
    up: bool,
    conv0: Op,
    affine: Op,
    norm1: Op,
    conv1: Op,
    skip: Option<Op>,
    sum: Op,
    attention: Option<[Op; 4]>,
}

/// Takes weights by name and makes operations of them.
struct Build<'a> {
    w: &'a mut dyn Weights,
    embedding: usize,
}

impl Build<'_> {
    fn conv3(&mut self, name: &str, cin: usize, cout: usize) -> Result<Op> {
        let weight = self.w.take(&format!("{name}.weight"), &[cout, cin, 3, 3])?;
        let bias = self.w.take(&format!("{name}.bias"), &[cout])?;
        Ok(Arc::new(Conv3x3::new(weight, bias)?))
    }
    fn conv1_weights(&mut self, name: &str, cin: usize, cout: usize) -> Result<(Tensor, Tensor)> {
        let weight = self.w.take(&format!("{name}.weight"), &[cout, cin, 1, 1])?.reshape((cout, cin))?;
        Ok((weight, self.w.take(&format!("{name}.bias"), &[cout])?))
    }
    fn conv1(&mut self, name: &str, cin: usize, cout: usize) -> Result<Op> {
        let (weight, bias) = self.conv1_weights(name, cin, cout)?;
        Ok(Arc::new(Linear::new(&weight, bias)?))
    }
    fn linear(&mut self, name: &str, cin: usize, cout: usize) -> Result<Op> {
        let weight = self.w.take(&format!("{name}.weight"), &[cout, cin])?;
        Ok(Arc::new(Linear::new(&weight, self.w.take(&format!("{name}.bias"), &[cout])?)?))
    }
    fn norm(&mut self, name: &str, c: usize, modulation: Modulation, silu: bool) -> Result<Op> {
        let groups = (c / 4).min(32);
        if groups == 0 || !c.is_multiple_of(groups) {
            let e = Error::new(Kind::Format, format!("`{name}`: {c} channels do not divide into {groups} groups"));
            return Err(e.hint("check `model_channels` and `channel_mult`"));
        }
        let weight = self.w.take(&format!("{name}.weight"), &[c])?;
        let bias = self.w.take(&format!("{name}.bias"), &[c])?;
        Ok(Arc::new(GroupNorm::new(weight, bias, groups, EPS, modulation, silu)?))
    }
    /// EDM stores the resampling filter with the convolution; ours is fixed, so it must be the one that we have.
    fn box_filter(&mut self, name: &str) -> Result<()> {
        let name = format!("{name}.resample_filter");
        let f = self.w.take(&name, &[1, 1, 2, 2])?;
        let values: Vec<f64> = f.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1()?;
        match values.iter().all(|v| (v - 0.25).abs() < 1e-6) {
            true => Ok(()),
            false => {
                Err(Error::new(Kind::Format, format!("`{name}` is {values:?}, supported is a mean of 2×2 pixels")))
            }
        }
    }
    fn block(&mut self, name: &str, cin: usize, cout: usize, resample: Resample, attention: bool) -> Result<Block> {
        let n = |part: &str| format!("{name}.{part}");
        if resample != Resample::Keep {
            self.box_filter(&n("conv0"))?;
            self.box_filter(&n("skip"))?;
        }
        let needs_skip = cin != cout || resample != Resample::Keep;
        Ok(Block {
            norm0: self.norm(&n("norm0"), cin, Modulation::None, true)?,
            resample: match resample {
                Resample::Keep => None,
                Resample::Up => Some(Arc::new(Up2)),
                Resample::Down => Some(Arc::new(Down2)),
            },
            up: resample == Resample::Up,
            conv0: self.conv3(&n("conv0"), cin, cout)?,
            affine: self.linear(&n("affine"), self.embedding, cout)?,
            norm1: self.norm(&n("norm1"), cout, Modulation::Add, true)?,
            conv1: self.conv3(&n("conv1"), cout, cout)?,
            skip: if needs_skip { Some(self.conv1(&n("skip"), cin, cout)?) } else { None },
            sum: Arc::new(AddScale(FRAC_1_SQRT_2)),
            attention: if attention { Some(self.attention(name, cout)?) } else { None },
        })
    }
    fn attention(&mut self, name: &str, c: usize) -> Result<[Op; 4]> {
        let norm = self.norm(&format!("{name}.norm2"), c, Modulation::None, false)?;
        let (weight, bias) = self.conv1_weights(&format!("{name}.qkv"), c, 3 * c)?;
        // EDM interleaves q, k and v channel by channel; ours stand one after the other
        let apart = |t: Tensor, shape: &[usize]| -> Result<Tensor> {
            let rest: usize = shape.iter().skip(1).product();
            Ok(t.reshape((c, 3, rest))?.transpose(0, 1)?.contiguous()?.reshape(shape)?)
        };
        let qkv = Linear::new(&apart(weight, &[3 * c, c])?, apart(bias, &[3 * c])?)?;
        let proj = self.conv1(&format!("{name}.proj"), c, c)?;
        Ok([norm, Arc::new(qkv), Arc::new(Attention { heads: 1 }), proj])
    }
}

impl SongUNet {
    /// Builds the network that `config` describes from `weights`, whose names EDM gives (`model.enc.…`).
    pub fn build(config: &Config, weights: &mut dyn Weights) -> Result<SongUNet> {
        let mc = config.model_channels;
        let noise = mc * config.channel_mult_noise;
        let embedding = mc * config.channel_mult_emb;
        let mut b = Build { w: weights, embedding };
        let label = match config.label_dim {
            0 => None,
            n => Some(b.linear("model.map_label", n, noise)?),
        };
        if config.augment_dim > 0 {
            // of training only: without augmentation its input is zero
            b.w.take("model.map_augment.weight", &[noise, config.augment_dim])?;
        }
        let map0 = b.linear("model.map_layer0", noise, embedding)?;
        let map1 = b.linear("model.map_layer1", embedding, embedding)?;

        let levels: Vec<(usize, usize)> =
            config.channel_mult.iter().enumerate().map(|(l, m)| (config.img_resolution >> l, mc * m)).collect();
        let attends = |res: usize| config.attn_resolutions.contains(&res);
        let top = config.img_resolution;
        let first = b.conv3(&format!("model.enc.{top}x{top}_conv"), config.img_channels, mc)?;
        let (mut c, mut skips, mut encoder) = (mc, vec![mc], vec![]);
        for (level, (res, width)) in levels.iter().enumerate() {
            let name = |part: &str| format!("model.enc.{res}x{res}_{part}");
            if level > 0 {
                encoder.push(b.block(&name("down"), c, c, Resample::Down, false)?);
                skips.push(c);
            }
            for i in 0..config.num_blocks {
                encoder.push(b.block(&name(&format!("block{i}")), c, *width, Resample::Keep, attends(*res))?);
                c = *width;
                skips.push(c);
            }
        }
        let mut decoder = vec![];
        for (level, (res, width)) in levels.iter().enumerate().rev() {
            let name = |part: &str| format!("model.dec.{res}x{res}_{part}");
            if level + 1 == levels.len() {
                decoder.push((b.block(&name("in0"), c, c, Resample::Keep, true)?, false));
                decoder.push((b.block(&name("in1"), c, c, Resample::Keep, false)?, false));
            } else {
                decoder.push((b.block(&name("up"), c, c, Resample::Up, false)?, false));
            }
            for i in 0..=config.num_blocks {
                let cin = c + skips.pop().unwrap_or_default();
                let attention = i == config.num_blocks && attends(*res);
                decoder.push((b.block(&name(&format!("block{i}")), cin, *width, Resample::Keep, attention)?, true));
                c = *width;
            }
        }
        let out_norm = b.norm(&format!("model.dec.{top}x{top}_aux_norm"), c, Modulation::None, true)?;
        let out_conv = b.conv3(&format!("model.dec.{top}x{top}_aux_conv"), c, config.img_channels)?;
        b.w.finish()?;
        Ok(SongUNet {
            positional: Arc::new(Positional::new(noise)),
            label,
            map0,
            map1,
            silu: Arc::new(Silu),
            plus: Arc::new(AddScale(1.0)),
            concat: Arc::new(Concat),
            first,
            encoder,
            decoder,
            out_norm,
            out_conv,
        })
    }

    /// F for x [B, H, W, C], c_noise [B] and, where the network has classes, labels [B, classes] already times √classes.
    pub fn run<E: Exec>(
        &self,
        e: &mut E,
        x: &E::Value,
        c_noise: &E::Value,
        labels: Option<&E::Value>,
    ) -> Result<E::Value> {
        let mut emb = e.apply(&self.positional, &[c_noise])?;
        if let (Some(map), Some(labels)) = (&self.label, labels) {
            let label = e.apply(map, &[labels])?;
            emb = e.apply(&self.plus, &[&emb, &label])?;
        }
        for map in [&self.map0, &self.map1] {
            emb = e.apply(map, &[&emb])?;
            emb = e.apply(&self.silu, &[&emb])?;
        }
        let mut x = e.apply(&self.first, &[x])?;
        let mut skips = vec![x.clone()];
        for block in &self.encoder {
            x = block.run(e, x, &emb)?;
            skips.push(x.clone());
        }
        for (block, takes_skip) in &self.decoder {
            if let Some(skip) = skips.pop_if(|_| *takes_skip) {
                x = e.apply(&self.concat, &[&x, &skip])?;
            }
            x = block.run(e, x, &emb)?;
        }
        x = e.apply(&self.out_norm, &[&x])?;
        e.apply(&self.out_conv, &[&x])
    }
}

impl Block {
    fn run<E: Exec>(&self, e: &mut E, x: E::Value, emb: &E::Value) -> Result<E::Value> {
        let mut h = e.apply(&self.norm0, &[&x])?;
        if let Some(op) = &self.resample {
            h = e.apply(op, &[&h])?;
        }
        h = e.apply(&self.conv0, &[&h])?;
        let shift = e.apply(&self.affine, &[emb])?;
        h = e.apply(&self.norm1, &[&h, &shift])?;
        h = e.apply(&self.conv1, &[&h])?;
        // repetition commutes with a map of single pixels, which is cheaper before it
        let mut path: Vec<&Op> = self.resample.iter().chain(&self.skip).collect();
        if self.up {
            path.reverse();
        }
        let mut skip = x;
        for op in path {
            skip = e.apply(op, &[&skip])?;
        }
        h = e.apply(&self.sum, &[&h, &skip])?;
        if let Some([norm, qkv, attention, proj]) = &self.attention {
            let mut a = e.apply(norm, &[&h])?;
            for op in [qkv, attention, proj] {
                a = e.apply(op, &[&a])?;
            }
            h = e.apply(&self.sum, &[&a, &h])?;
        }
        Ok(h)
    }
}
