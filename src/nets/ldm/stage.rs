//! First stages: the autoencoders between images and latents, with a quantizer (VQ) or a normal distribution (KL).
use super::shapes::Shapes;
use crate::nets::build::{Builder, ConvSize, Id, graph};
use crate::nets::graph::{Absent, Dim, Graph, Layout};
use crate::nets::kernels::{Channels, Deviation, Up2};
use crate::nets::weights::Weights;
use crate::{Error, Kind, Result};
use candle_core::DType;

/// The eps of all its norms.
const EPS: f64 = 1e-6;
/// Pixels of the latents that a graph is printed for.
const ABOUT: usize = 64;

/// What the shapes do not tell.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Groups of all group norms.
    pub groups: usize,
    /// What the denoiser's latents are of the autoencoder's.
    pub scale: f64,
    /// What is taken from the autoencoder's before that, as newer models have it.
    pub shift: f64,
    /// Whether a decoder with codes takes the nearest of them first.
    pub quantize: bool,
}

/// Whether it has a quantizer.
pub fn has_codes(shapes: &Shapes) -> bool {
    shapes.has("quantize.embedding.weight")
}

struct Blocks<'a> {
    shapes: &'a Shapes,
    how: Stage,
}

/// From latents, as the denoiser has them, to images.
pub fn decoder(
    weights: &mut dyn Weights,
    root: &'static str,
    shapes: &Shapes,
    how: Stage,
    dtype: DType,
) -> Result<Graph> {
    graph(weights, root, dtype, |b| {
        let of = Blocks { shapes, how };
        let inner = shapes.of("decoder.conv_in.weight", 4)?[1];
        let channels = match shapes.has("post_quant_conv.weight") {
            true => shapes.of("post_quant_conv.weight", 2)?[1],
            false => inner,
        };
        let size = [Dim::About(ABOUT), Dim::About(ABOUT), Dim::Exactly(channels)];
        let mut h = b.input("z", &size, Layout::Image, Absent::Error)?;
        if how.scale != 1.0 {
            h = b.under("scale").scale(h, 1.0 / how.scale)?;
        }
        if how.shift != 0.0 {
            h = shifted(b, h, how.shift)?;
        }
        if how.quantize && has_codes(shapes) {
            let codes = shapes.of("quantize.embedding.weight", 2)?[0];
            h = b.under("quantize.embedding").nearest(h, codes)?;
        }
        if shapes.has("post_quant_conv.weight") {
            h = of.pointwise(b, "post_quant_conv", h)?;
        }
        h = of.conv(b, "decoder.conv_in", h)?;
        h = of.middle(b, "decoder.mid", h)?;
        for i in (0..shapes.count("decoder.up")).rev() {
            let at = format!("decoder.up.{i}");
            h = of.level(b, &at, h)?;
            if shapes.has(&format!("{at}.upsample.conv.weight")) {
                h = b.under(&at).under("upsample.nearest").apply(Up2, &[h])?;
                h = of.conv(b, &format!("{at}.upsample.conv"), h)?;
            }
        }
        h = of.norm(b, "decoder.norm_out", h, true)?;
        h = of.conv(b, "decoder.conv_out", h)?;
        b.output("x", h, Layout::Image);
        Ok(())
    })
}

/// The output of an encoder with a distribution that is its deviation, as the denoiser has latents.
pub const DEVIATION: &str = "deviation";

/// From images to latents: `z` as the denoiser has them (for a distribution its mean), `moments`, which are as the encoder gives
/// them: latents before quantization, or mean and log variance; and for a distribution [`DEVIATION`].
pub fn encoder(
    weights: &mut dyn Weights,
    root: &'static str,
    shapes: &Shapes,
    how: Stage,
    dtype: DType,
) -> Result<Graph> {
    graph(weights, root, dtype, |b| {
        let of = Blocks { shapes, how };
        let channels = shapes.of("encoder.conv_in.weight", 4)?[1];
        let levels = shapes.count("encoder.down");
        let about = Dim::About(8 << levels.min(8));
        let x = b.input("x", &[about, about, Dim::Exactly(channels)], Layout::Image, Absent::Error)?;
        let mut h = of.conv(b, "encoder.conv_in", x)?;
        for i in 0..levels {
            let at = format!("encoder.down.{i}");
            h = of.level(b, &at, h)?;
            let down = format!("{at}.downsample.conv");
            if shapes.has(&format!("{down}.weight")) {
                let dims = shapes.of(&format!("{down}.weight"), 4)?;
                // zeros to the right and below only
                let size = ConvSize { channels: dims[0], window: dims[2], stride: 2, padding: [0, 1] };
                h = b.under(&down).conv(h, size)?;
            }
        }
        h = of.middle(b, "encoder.mid", h)?;
        h = of.norm(b, "encoder.norm_out", h, true)?;
        h = of.conv(b, "encoder.conv_out", h)?;
        if shapes.has("quant_conv.weight") {
            h = of.pointwise(b, "quant_conv", h)?;
        }
        let all = b.channels(h);
        let (mut z, variance) = match has_codes(shapes) {
            true => (h, None),
            false if all % 2 == 0 => match b.under("mean").split(h, &[all / 2, all / 2])?[..] {
                [mean, variance] => (mean, Some(variance)),
                _ => return Err(Error::new(Kind::Internal, "mean and log variance are not two")),
            },
            false => {
                let m = format!("an encoder that gives {all} channels has no mean and log variance");
                return Err(Error::new(Kind::Format, m).hint("an autoencoder with a quantizer needs its codes"));
            }
        };
        if how.shift != 0.0 {
            z = shifted(b, z, -how.shift)?;
        }
        if how.scale != 1.0 {
            z = b.under("scale").scale(z, how.scale)?;
        }
        b.output("z", z, Layout::Image);
        b.output("moments", h, Layout::Image);
        if let Some(v) = variance {
            let d = b.under(DEVIATION).apply(Deviation(how.scale), &[v])?;
            b.output(DEVIATION, d, Layout::Image);
        }
        Ok(())
    })
}

/// x + by.
fn shifted(b: &mut Builder, x: Id, by: f64) -> Result<Id> {
    let c = b.channels(x);
    b.under("shift").apply(Channels::new(vec![(1.0, by); c]), &[x])
}

impl Blocks<'_> {
    fn norm(&self, b: &mut Builder, place: &str, x: Id, silu: bool) -> Result<Id> {
        b.under(place).group_norm(x, self.how.groups, EPS, None, silu)
    }

    fn conv(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let dims = self.shapes.of(&format!("{place}.weight"), 4)?;
        b.under(place).conv(x, ConvSize::same(dims[0], dims[2]))
    }

    fn pointwise(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let dims = self.shapes.of(&format!("{place}.weight"), 2)?;
        b.under(place).pointwise(x, dims)
    }

    fn residual(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let h = self.norm(b, &format!("{place}.norm1"), x, true)?;
        let h = self.conv(b, &format!("{place}.conv1"), h)?;
        let h = self.norm(b, &format!("{place}.norm2"), h, true)?;
        let h = self.conv(b, &format!("{place}.conv2"), h)?;
        let skip = format!("{place}.nin_shortcut");
        let x = if self.shapes.any(&format!("{skip}.")) { self.pointwise(b, &skip, x)? } else { x };
        b.under(place).under("sum").sum(x, h, 1.0)
    }

    fn attention(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let h = self.norm(b, &format!("{place}.norm"), x, false)?;
        let mut part = |name: &str| self.pointwise(b, &format!("{place}.{name}"), h);
        let qkv = [part("q")?, part("k")?, part("v")?];
        let h = b.under(place).under("attention").cross_attention(qkv, 1, false)?;
        let h = self.pointwise(b, &format!("{place}.proj_out"), h)?;
        b.under(place).under("sum").sum(x, h, 1.0)
    }

    fn middle(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let mut h = self.residual(b, &format!("{place}.block_1"), x)?;
        if self.shapes.any(&format!("{place}.attn_1.")) {
            h = self.attention(b, &format!("{place}.attn_1"), h)?;
        }
        self.residual(b, &format!("{place}.block_2"), h)
    }

    /// The blocks at one resolution, each with its attention where there is one.
    fn level(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let mut h = x;
        for j in 0..self.shapes.count(&format!("{place}.block")) {
            h = self.residual(b, &format!("{place}.block.{j}"), h)?;
            if self.shapes.any(&format!("{place}.attn.{j}.")) {
                h = self.attention(b, &format!("{place}.attn.{j}"), h)?;
            }
        }
        Ok(h)
    }
}
