//! The graph of EDM2's U-Net: every map, sum and nonlinearity keeps magnitudes.
use super::config::Config;
use crate::nets::build::{Builder, Id, graph};
use crate::nets::graph::{Absent, Adapt, Dim, Graph, Layout};
use crate::nets::kernels::{Arithmetic, Broadcast, Clip, Down2, Fixed, Join, Resample, RmsNorm, Side, Up2, Waves};
use crate::nets::network::{CLASSES, STATE, TIME};
use crate::nets::weights::{Weights, wide};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::f64::consts::{SQRT_2, TAU};

/// What the reference adds to roots.
const EPS: f64 = 1e-4;
/// What SiLU of unit noise is divided by.
const SILU: f64 = 0.596;

/// In which direction a block changes the resolution.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Keep,
    Up,
    Down,
}

/// The graph of a configuration, its weights' names after `unet.`.
pub fn unet(weights: &mut dyn Weights, c: &Config, dtype: DType, device: &Device) -> Result<Graph> {
    graph(weights, "", dtype, |b| {
        b.wide(c.model_channels >= 64);
        let [h, n] = [c.img_resolution, c.img_channels].map(Dim::Exactly);
        let x = b.input(STATE, &[h, h, n], Layout::Image, Absent::Error)?;
        let time = b.input(TIME, &[], Layout::Plain, Absent::Error)?;
        let classes = match c.label_dim {
            0 => None,
            n => Some(b.input(CLASSES, &[Dim::Exactly(n)], Layout::Plain, Absent::Zeros)?),
        };
        let b = &mut b.under("unet");
        let blocks = Blocks { c, dtype, device };
        let emb = blocks.embedding(b, time, classes)?;
        let y = blocks.all(b, x, emb)?;
        b.output("y", y, Layout::Image);
        Ok(())
    })
}

struct Blocks<'a> {
    c: &'a Config,
    dtype: DType,
    device: &'a Device,
}

/// Which half of the network a block is in.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    Encoder,
    Decoder,
}

/// In what blocks differ beside their channels.
#[derive(Clone, Copy)]
struct Form {
    half: Half,
    turn: Turn,
    attention: bool,
}

impl Blocks<'_> {
    /// (a (1 − t) + b t) of one magnitude.
    fn sum(&self, b: &mut Builder, place: &str, [x, y]: [Id; 2], t: f64) -> Result<Id> {
        let mut b = b.under(place);
        let x = b.under("first").scale(x, 1.0 - t)?;
        let y = b.under("second").scale(y, t)?;
        b.sum(x, y, 1.0 / ((1.0 - t).powi(2) + t * t).sqrt())
    }

    fn silu(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let mut b = b.under(place);
        let y = b.silu(x)?;
        b.under("magnitude").scale(y, 1.0 / SILU)
    }

    /// Side by side, each of the magnitude that its channels and `t` say.
    fn concat(&self, b: &mut Builder, place: &str, [x, y]: [Id; 2], t: f64) -> Result<Id> {
        let (nx, ny) = (b.channels(x) as f64, b.channels(y) as f64);
        let all = ((nx + ny) / ((1.0 - t).powi(2) + t * t)).sqrt();
        let mut b = b.under(place);
        let x = b.under("first").scale(x, all / nx.sqrt() * (1.0 - t))?;
        let y = b.under("second").scale(y, all / ny.sqrt() * t)?;
        b.concat(x, y)
    }

    fn constant(&self, values: Vec<f64>, dims: &[usize], dtype: DType) -> Result<Side> {
        let t = Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)?.to_device(self.device)?;
        Ok(Side::Fixed(Fixed::new(&t)?))
    }

    /// √2 cos(f x + φ), of which the file has f and φ.
    fn fourier(&self, b: &mut Builder, time: Id) -> Result<Id> {
        let n = self.c.noise();
        let mut b = b.under("emb_fourier");
        let (freqs, phases) = (b.values("freqs", &[n])?, b.values("phases", &[n])?);
        let freqs: Vec<f64> = freqs.iter().map(|f| f / TAU).collect();
        let both = b.under("waves").apply(Waves::fourier(&freqs, false), &[time])?;
        let [cos, sin] = b.under("parts").split(both, &[n, n])?[..] else {
            return Err(Error::new(Kind::Internal, "cos and sin are not two"));
        };
        let dtype = wide(self.dtype);
        let mut turned = |name: &str, x: Id, f: fn(f64) -> f64| -> Result<Id> {
            let by = self.constant(phases.iter().map(|p| SQRT_2 * f(*p)).collect(), &[n], dtype)?;
            b.under(name).apply(Broadcast { op: Arithmetic::Product, sides: [Side::Input, by] }, &[x])
        };
        let (cos, sin) = (turned("cos", cos, f64::cos)?, turned("sin", sin, |p| -p.sin())?);
        b.under("turned").sum(cos, sin, 1.0)
    }

    /// From noise level and class to what all blocks see.
    fn embedding(&self, b: &mut Builder, time: Id, classes: Option<Id>) -> Result<Id> {
        let (c, width) = (self.c, self.c.embedding());
        let waves = self.fourier(b, time)?;
        let mut emb = b.under("emb_noise").magnitude(waves, width, None, None)?;
        if let Some(rows) = classes {
            let rows = b.under("emb_label").under("rows").scale(rows, (c.label_dim as f64).sqrt())?;
            let label = b.under("emb_label").magnitude(rows, width, None, None)?;
            emb = self.sum(b, "emb_sum", [emb, label], c.label_balance)?;
        }
        self.silu(b, "emb", emb)
    }

    fn all(&self, b: &mut Builder, x: Id, emb: Id) -> Result<Id> {
        let (c, levels) = (self.c, self.c.levels());
        let attends = |res: usize| c.attn_resolutions.contains(&res);
        let form = |half, turn, attention| Form { half, turn, attention };
        let one = self.constant(vec![1.0], &[1, 1, 1, 1], self.dtype)?;
        let mut h = b.under("ones").apply(Join { dim: 3, parts: vec![Side::Input, one] }, &[x])?;
        let mut skips = vec![];
        for (level, (res, width)) in levels.iter().enumerate() {
            let b = &mut b.under("enc");
            let from = b.channels(h);
            h = match level {
                0 => b.under(&format!("{res}x{res}_conv")).magnitude(h, *width, Some(3), None)?,
                _ => {
                    self.block(b, &format!("{res}x{res}_down"), h, emb, from, form(Half::Encoder, Turn::Down, false))?
                }
            };
            skips.push(h);
            for i in 0..c.num_blocks {
                let place = format!("{res}x{res}_block{i}");
                h = self.block(b, &place, h, emb, *width, form(Half::Encoder, Turn::Keep, attends(*res)))?;
                skips.push(h);
            }
        }
        for (level, (res, width)) in levels.iter().enumerate().rev() {
            let b = &mut b.under("dec");
            let add = |b: &mut Builder, part: &str, h: Id, width: usize, turn: Turn, attention: bool| {
                self.block(b, &format!("{res}x{res}_{part}"), h, emb, width, form(Half::Decoder, turn, attention))
            };
            let from = b.channels(h);
            if level + 1 == levels.len() {
                h = add(b, "in0", h, from, Turn::Keep, true)?;
                h = add(b, "in1", h, from, Turn::Keep, false)?;
            } else {
                h = add(b, "up", h, from, Turn::Up, false)?;
            }
            for i in 0..=c.num_blocks {
                let part = format!("block{i}");
                if let Some(skip) = skips.pop() {
                    h = self.concat(b, &format!("{res}x{res}_{part}.beside"), [h, skip], c.concat_balance)?;
                }
                h = add(b, &part, h, *width, Turn::Keep, attends(*res))?;
            }
        }
        let gain = b.values("out_gain", &[])?;
        let y = b.under("out_conv").magnitude(h, c.img_channels, Some(3), None)?;
        b.under("out_conv.gain").scale(y, gain.first().copied().unwrap_or_default())
    }

    fn turned(&self, b: &mut Builder, x: Id, turn: Turn) -> Result<Id> {
        let filter = &self.c.resample_filter;
        let even = matches!(filter[..], [a, b] if a == b);
        let mut b = b.under("resample");
        match (turn, even) {
            (Turn::Keep, _) => Ok(x),
            (Turn::Up, true) => b.apply(Up2, &[x]),
            (Turn::Down, true) => b.apply(Down2, &[x]),
            (Turn::Up, false) => b.apply(Resample::up(filter), &[x]),
            (Turn::Down, false) => b.apply(Resample::down(filter), &[x]),
        }
    }

    /// Over runs of so many channels.
    fn normed(&self, b: &mut Builder, place: &str, x: Id, n: usize) -> Result<Id> {
        let like = Tensor::zeros(1, wide(self.dtype), self.device)?;
        b.under(place).apply(RmsNorm::magnitude(n, EPS, &like)?, &[x])
    }

    /// A residual block, with attention behind it.
    fn block(
        &self,
        b: &mut Builder,
        place: &str,
        x: Id,
        emb: Id,
        width: usize,
        Form { half, turn, attention }: Form,
    ) -> Result<Id> {
        let c = self.c;
        let b = &mut b.under(place);
        let mut x = self.turned(b, x, turn)?;
        let mapped = b.channels(x) != width;
        if half == Half::Encoder {
            if mapped {
                x = b.under("conv_skip").magnitude(x, width, Some(1), None)?;
            }
            x = self.normed(b, "norm", x, width)?;
        }
        let h = self.silu(b, "silu0", x)?;
        let h = b.under("conv_res0").magnitude(h, width, Some(3), None)?;
        let gain = b.values("emb_gain", &[])?.first().copied().unwrap_or_default();
        let by = b.under("emb_linear").magnitude(emb, width, None, None)?;
        let by = b.under("emb_linear.gain").scale(by, gain)?;
        let one = self.constant(vec![1.0], &[1], wide(self.dtype))?;
        let by =
            b.under("emb_linear.one").apply(Broadcast { op: Arithmetic::Sum, sides: [Side::Input, one] }, &[by])?;
        let by = b.under("emb_linear.row").shaped(by, &[1, 1, width])?;
        let product = Broadcast { op: Arithmetic::Product, sides: [Side::Input, Side::Input] };
        let h = b.under("told").apply(product, &[h, by])?;
        let h = self.silu(b, "silu1", h)?;
        let h = b.under("conv_res1").magnitude(h, width, Some(3), None)?;
        if half == Half::Decoder && mapped {
            x = b.under("conv_skip").magnitude(x, width, Some(1), None)?;
        }
        x = self.sum(b, "sum", [x, h], c.res_balance)?;
        let heads = if attention { width / c.channels_per_head } else { 0 };
        if heads > 0 {
            if !width.is_multiple_of(heads) {
                let m = format!("`{}`: {width} channels do not divide into {heads} heads", b.place());
                return Err(Error::new(Kind::Format, m));
            }
            // q, k and v alternate channel by channel; ours stand one after the other
            let apart = Adapt::Apart { parts: 3, width: 1 };
            let h = b.under("attn_qkv").magnitude(x, 3 * width, Some(1), Some(apart))?;
            let h = self.normed(b, "attn_norm", h, width / heads)?;
            let h = b.under("attention").attention(h, heads)?;
            let h = b.under("attn_proj").magnitude(h, width, Some(1), None)?;
            x = self.sum(b, "attended", [x, h], c.attn_balance)?;
        }
        match c.clip_act {
            Some(limit) => b.under("clip").apply(Clip(limit), &[x]),
            None => Ok(x),
        }
    }
}
