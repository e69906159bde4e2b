//! The U-Net of latent diffusion, Stable Diffusion and improved-diffusion, as its tensors' names and shapes tell it.
use super::shapes::Shapes;
use crate::nets::build::{Builder, ConvSize, Id, graph};
use crate::nets::graph::{Absent, Adapt, Dim, Graph, Layout};
use crate::nets::kernels::{Down2, Modulation, Up2, Waves};
use crate::nets::network::{CLASSES, STATE, TIME};
use crate::nets::weights::Weights;
use crate::{Error, Kind, Result};
use candle_core::DType;

/// The name of the condition that attention looks at: tokens [B, tokens, width].
pub const CONTEXT: &str = "context";

/// How many heads the attention over so many channels has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heads {
    /// So many, whatever the channels.
    Count(usize),
    /// So many that each has this width.
    Width(usize),
}

/// The conditions beside the context of a network that is told sizes: a row for each text, [B, width].
pub const POOLED: &str = "pooled";
/// Height and width of the original, top and left of the crop, height and width that are wanted, in pixels: [B, 6]. SDXL's refiner has an
/// aesthetic score in the place of the last two.
pub const SIZES: &str = "sizes";

/// What a network is told beside its context.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    /// Width of the rows of texts.
    pub pooled: usize,
    /// How many sizes.
    pub sizes: usize,
    /// Width of the embedding of each.
    pub width: usize,
}

/// What the shapes do not tell.
#[derive(Clone, Debug)]
pub struct Unet {
    /// Height and width of what it denoises.
    pub size: [usize; 2],
    /// Heads of all attentions.
    pub heads: Heads,
    /// Whether q, k and v of all heads stand together, and not those of each head.
    pub parts: bool,
    /// Residual blocks of each level, of a network whose size changes within such blocks.
    pub turning: Option<usize>,
    /// Groups of all group norms.
    pub groups: usize,
    /// Entries and width of an embedding of classes, and whether the last of them is no class.
    pub classes: Option<([usize; 2], bool)>,
    /// Whether the output is minus what is predicted.
    pub negative: bool,
    /// What it is told beside its context.
    pub added: Option<Added>,
}

impl Unet {
    /// Sizes for an image that is as large as the latents are for, for one that is told sizes and is not told which.
    pub fn sizes(&self) -> Option<Vec<f64>> {
        /// Pixels of a latent.
        const PIXELS: usize = 8;
        let [h, w] = self.size.map(|n| (PIXELS * n) as f64);
        let all = self.added?.sizes;
        // an aesthetic score of 6 is usual where there is one
        let last = if all == 5 { vec![6.0] } else { vec![h, w] };
        let mut sizes = [vec![h, w, 0.0, 0.0], last].concat();
        sizes.resize(all, 0.0);
        Some(sizes)
    }
}

impl Heads {
    /// For so many channels.
    fn of(self, channels: usize, place: &str) -> Result<usize> {
        let n = match self {
            Heads::Count(n) => n,
            Heads::Width(w) => channels / w.max(1),
        };
        if n > 0 && channels.is_multiple_of(n) && !matches!(self, Heads::Width(w) if n * w != channels) {
            return Ok(n);
        }
        let m = format!("`{place}`: {channels} channels do not divide into heads as told ({self:?})");
        Err(Error::value(m).hint("give the option `heads` or `head_width` that it was trained with"))
    }
}

/// What the blocks are built from.
struct Blocks<'a> {
    shapes: &'a Shapes,
    how: &'a Unet,
    /// SiLU of the embedding of time and class.
    emb: Id,
    context: Option<Id>,
}

/// Residual blocks of each level, where the size changes within residual blocks, as in guided-diffusion's networks: then the last group of
/// outputs of each level but the lowest has another one for that.
pub fn turning(shapes: &Shapes) -> Option<usize> {
    let residual = |i: usize, j: usize| shapes.has(&format!("output_blocks.{i}.{j}.in_layers.0.weight"));
    (0..shapes.count("output_blocks")).find(|i| (1..3).any(|j| residual(*i, j)))
}

/// In which direction a block changes the size.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Keep,
    Up,
    Down,
}

/// The width of the context that its attention looks at, if any.
pub fn context_width(shapes: &Shapes) -> Option<usize> {
    let key = |(name, dims): (&String, &Vec<usize>)| {
        (name.ends_with("transformer_blocks.0.attn2.to_k.weight") && dims.len() == 2).then(|| dims[1])
    };
    shapes.0.iter().find_map(key)
}

/// The graph, its images in `dtype`; `shapes` are those of the names after `root`.
pub fn unet(weights: &mut dyn Weights, root: &str, shapes: &Shapes, how: &Unet, dtype: DType) -> Result<Graph> {
    if shapes.any("out.2.positional_embedding") || (shapes.any("out.0.") && !shapes.any("output_blocks.0.")) {
        let e = Error::new(Kind::Format, "a classifier of noisy images (guided-diffusion), which is not read");
        return Err(e.hint("load the diffusion model that it guides"));
    }
    let first = shapes.of("input_blocks.0.0.weight", 4)?;
    let (base, channels) = (shapes.of("time_embed.0.weight", 2)?[1], first[1]);
    let outputs = shapes.of("out.2.weight", 4)?[0];
    if how.turning.is_some() && (channels, outputs) == (6, 6) {
        let e =
            Error::new(Kind::Format, "an upsampler (guided-diffusion), which also takes a small image and is not read");
        return Err(e.hint("load the model whose images it makes larger"));
    }
    if outputs != channels && outputs != 2 * channels {
        return Err(match channels == 2 * outputs + 1 {
            true => {
                Error::new(Kind::Format, format!("an inpainting network of {channels} channels, which are not read"))
                    .hint("it also takes a mask and a masked image; load the model that it was made from")
            }
            false => {
                Error::new(Kind::Format, format!("a network from {channels} to {outputs} channels is no denoiser"))
            }
        });
    }
    let halved = match how.turning {
        Some(n) => (shapes.count("input_blocks").max(1) - 1) / (n + 1),
        None => shapes.0.keys().filter(|n| n.starts_with("input_blocks.") && n.ends_with(".op.weight")).count(),
    };
    if how.size.iter().any(|n| !n.is_multiple_of(1 << halved.min(16))) {
        let m = format!(
            "this network halves what it denoises {halved} times, which {}×{} cannot be",
            how.size[0], how.size[1]
        );
        return Err(
            Error::value(m).hint(format!("give `height` and `width` that are multiples of {}", 1 << halved.min(16)))
        );
    }
    graph(weights, "", dtype, |b| {
        b.wide(base >= 64);
        let [h, w] = how.size.map(Dim::Exactly);
        let x = b.input(STATE, &[h, w, Dim::Exactly(channels)], Layout::Image, Absent::Error)?;
        let time = b.input(TIME, &[], Layout::Plain, Absent::Error)?;
        let labels = match shapes.0.get("label_emb.weight") {
            Some(dims) if dims.len() == 2 => Some([dims[0], dims[1]]),
            _ => None,
        };
        let given = match (how.classes, labels, context_width(shapes)) {
            (Some(([n, _], none)), ..) => {
                let n = if none { n - 1 } else { n };
                Some(b.input(CLASSES, &[Dim::Exactly(n)], Layout::Plain, Absent::Zeros)?)
            }
            (None, Some([n, _]), _) => Some(b.input(CLASSES, &[Dim::Exactly(n)], Layout::Plain, Absent::LeftOut)?),
            (None, None, Some(width)) => {
                Some(b.input(CONTEXT, &[Dim::About(77), Dim::Exactly(width)], Layout::Plain, Absent::Error)?)
            }
            (None, None, None) => None,
        };
        let added = match how.added {
            Some(a) => {
                let pooled = b.input(POOLED, &[Dim::Exactly(a.pooled)], Layout::Plain, Absent::Error)?;
                Some((a, pooled, b.input(SIZES, &[Dim::Exactly(a.sizes)], Layout::Plain, Absent::Zeros)?))
            }
            None => None,
        };
        let mut context = given;
        if let (Some((size, none)), Some(rows)) = (how.classes, given) {
            let token = b.under("cond_stage_model.embedding").embedding(rows, size, none)?;
            context = Some(b.under("cond_stage_model.token").shaped(token, &[1, size[1]])?);
        }
        let b = &mut b.under(root.trim_end_matches('.'));
        let waves = b.under("time_embed.waves").apply(Waves::positional(base, false, false), &[time])?;
        let width = shapes.of("time_embed.0.weight", 2)?[0];
        let mut emb = b.under("time_embed.0").linear(waves, width)?;
        emb = b.under("time_embed.1").silu(emb)?;
        emb = b.under("time_embed.2").linear(emb, width)?;
        if let (None, Some(size), Some(rows)) = (how.classes, labels, given) {
            let class = b.under("label_emb").embedding(rows, size, false)?;
            emb = b.under("label_emb.sum").sum(emb, class, 1.0)?;
            context = None;
        }
        if let Some((a, pooled, sizes)) = added {
            let waves = b.under("label_emb.sizes").apply(Waves::positional(a.width, false, false), &[sizes])?;
            let all = b.under("label_emb.all").concat(pooled, waves)?;
            let all = b.under("label_emb.0.0").linear(all, width)?;
            let all = b.under("label_emb.0.1").silu(all)?;
            let all = b.under("label_emb.0.2").linear(all, width)?;
            emb = b.under("label_emb.sum").sum(emb, all, 1.0)?;
        }
        let emb = b.under("emb").silu(emb)?;
        let y = Blocks { shapes, how, emb, context }.all(b, x, channels)?;
        b.output("y", y, Layout::Image);
        Ok(())
    })
}

impl Blocks<'_> {
    fn all(&self, b: &mut Builder, x: Id, channels: usize) -> Result<Id> {
        let (mut h, mut skips) = (x, vec![]);
        for i in 0..self.shapes.count("input_blocks") {
            h = self.group(b, &format!("input_blocks.{i}"), h)?;
            skips.push(h);
        }
        h = self.group(b, "middle_block", h)?;
        for i in 0..self.shapes.count("output_blocks") {
            let at = format!("output_blocks.{i}");
            let Some(skip) = skips.pop() else {
                let m = format!("`{at}` has no counterpart among the input blocks");
                return Err(Error::new(Kind::Format, m).hint("the file is damaged, or of another kind of network"));
            };
            let joined = b.under(&at).under("skip").concat(h, skip)?;
            h = self.group(b, &at, joined)?;
        }
        h = b.under("out.0").group_norm(h, self.how.groups, 1e-5, None, true)?;
        let [outputs, _, window, _] = *self.shapes.of("out.2.weight", 4)? else { return Ok(h) };
        let y = b.under("out.2").conv_first(h, ConvSize::same(outputs, window), channels)?;
        if self.how.negative { b.under("negative").scale(y, -1.0) } else { Ok(y) }
    }

    /// The layers `place.0`, `place.1`, …, each told by the names in it.
    fn group(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let mut h = x;
        for j in 0..self.shapes.count(place) {
            let at = format!("{place}.{j}");
            let has = |name: &str| self.shapes.has(&format!("{at}.{name}"));
            h = match () {
                _ if has("in_layers.0.weight") => self.residual(b, &at, h, self.turn(place, j))?,
                _ if has("transformer_blocks.0.norm1.weight") => self.transformer(b, &at, h)?,
                _ if has("qkv.weight") => self.attention(b, &at, h)?,
                _ if has("op.weight") => self.conv(b, &format!("{at}.op"), h, 2)?,
                _ if has("conv.weight") => {
                    let up = b.under(&at).under("nearest").apply(Up2, &[h])?;
                    self.conv(b, &format!("{at}.conv"), up, 1)?
                }
                _ if has("weight") => self.conv(b, &at, h, 1)?,
                _ => {
                    let m = format!("`{}{at}` is no layer that is known here", b.place());
                    return Err(Error::new(Kind::Format, m));
                }
            };
        }
        Ok(h)
    }

    /// A convolution that keeps the size, or halves it.
    fn conv(&self, b: &mut Builder, place: &str, x: Id, stride: usize) -> Result<Id> {
        let dims = self.shapes.of(&format!("{place}.weight"), 4)?;
        let padding = [dims[2] / 2; 2];
        b.under(place).conv(x, ConvSize { channels: dims[0], window: dims[2], stride, padding })
    }

    /// How residual block `j` of a group changes the size.
    fn turn(&self, place: &str, j: usize) -> Turn {
        let Some(blocks) = self.how.turning else { return Turn::Keep };
        let number = |prefix: &str| place.strip_prefix(prefix)?.parse::<usize>().ok();
        match (number("input_blocks."), number("output_blocks.")) {
            (Some(i), _) if i > 0 && i.is_multiple_of(blocks + 1) => Turn::Down,
            (_, Some(_)) if j > 0 => Turn::Up,
            _ => Turn::Keep,
        }
    }

    fn turned(&self, b: &mut Builder, place: &str, x: Id, turn: Turn) -> Result<Id> {
        match turn {
            Turn::Keep => Ok(x),
            Turn::Up => b.under(place).apply(Up2, &[x]),
            Turn::Down => b.under(place).apply(Down2, &[x]),
        }
    }

    fn residual(&self, b: &mut Builder, place: &str, x: Id, turn: Turn) -> Result<Id> {
        let groups = self.how.groups;
        let h = b.under(place).under("in_layers.0").group_norm(x, groups, 1e-5, None, true)?;
        let h = self.turned(b, &format!("{place}.h_upd"), h, turn)?;
        let x = self.turned(b, &format!("{place}.x_upd"), x, turn)?;
        let h = self.conv(b, &format!("{place}.in_layers.2"), h, 1)?;
        let width = self.shapes.of(&format!("{place}.emb_layers.1.weight"), 2)?[0];
        let emb = b.under(place).under("emb_layers.1").linear(self.emb, width)?;
        let modulation = if width == 2 * b.channels(h) { Modulation::ScaleShift } else { Modulation::Add };
        let h = b.under(place).under("out_layers.0").group_norm(h, groups, 1e-5, Some((modulation, emb)), true)?;
        let h = self.conv(b, &format!("{place}.out_layers.3"), h, 1)?;
        let skip = match self.shapes.has(&format!("{place}.skip_connection.weight")) {
            true => self.conv(b, &format!("{place}.skip_connection"), x, 1)?,
            false => x,
        };
        b.under(place).under("sum").sum(skip, h, 1.0)
    }

    /// A linear map over channels, whatever ones its weight has beside [out, in].
    fn pointwise(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let dims = self.shapes.of(&format!("{place}.weight"), 2)?;
        b.under(place).pointwise(x, dims)
    }

    fn attention(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let c = b.channels(x);
        let heads = self.how.heads.of(c, place)?;
        let h = b.under(place).under("norm").group_norm(x, self.how.groups, 1e-5, None, false)?;
        // q, k and v stand beside each other for each head; ours one after the other
        let dims = self.shapes.of(&format!("{place}.qkv.weight"), 2)?;
        let apart = Adapt::Apart { parts: 3, width: c / heads };
        let h = match self.how.parts {
            true => b.under(place).under("qkv").pointwise(h, dims)?,
            false => b.under(place).under("qkv").conv1_apart(h, dims, apart)?,
        };
        let h = b.under(place).under("attention").attention(h, heads)?;
        let h = self.pointwise(b, &format!("{place}.proj_out"), h)?;
        b.under(place).under("sum").sum(x, h, 1.0)
    }

    fn transformer(&self, b: &mut Builder, place: &str, x: Id) -> Result<Id> {
        let h = b.under(place).under("norm").group_norm(x, self.how.groups, 1e-6, None, false)?;
        let mut h = self.pointwise(b, &format!("{place}.proj_in"), h)?;
        for k in 0..self.shapes.count(&format!("{place}.transformer_blocks")) {
            let at = format!("{place}.transformer_blocks.{k}");
            let n = b.under(&at).under("norm1").layer_norm(h, 1e-5)?;
            let a = self.attend(b, &format!("{at}.attn1"), n, n)?;
            h = b.under(&at).under("sum1").sum(h, a, 1.0)?;
            let n = b.under(&at).under("norm2").layer_norm(h, 1e-5)?;
            let a = self.attend(b, &format!("{at}.attn2"), n, self.context.unwrap_or(n))?;
            h = b.under(&at).under("sum2").sum(h, a, 1.0)?;
            let n = b.under(&at).under("norm3").layer_norm(h, 1e-5)?;
            let wide = self.shapes.of(&format!("{at}.ff.net.0.proj.weight"), 2)?[0];
            let g = b.under(&at).under("ff.net.0.proj").map(n, wide)?;
            let g = b.under(&at).under("ff.gate").geglu(g)?;
            let width = b.channels(h);
            let g = b.under(&at).under("ff.net.2").map(g, width)?;
            h = b.under(&at).under("sum3").sum(h, g, 1.0)?;
        }
        let h = self.pointwise(b, &format!("{place}.proj_out"), h)?;
        b.under(place).under("sum").sum(x, h, 1.0)
    }

    /// Attention of `x` to the tokens `to`.
    fn attend(&self, b: &mut Builder, place: &str, x: Id, to: Id) -> Result<Id> {
        let inner = self.shapes.of(&format!("{place}.to_q.weight"), 2)?[0];
        let heads = self.how.heads.of(inner, place)?;
        let q = b.under(place).under("to_q").map_unbiased(x, inner)?;
        let own = to == x;
        let mut part = |name: &str| match own {
            true => b.under(place).under(name).map_unbiased(to, inner),
            // a context is no image: it stays in f32
            false => b.under(place).under(name).linear_unbiased(to, inner),
        };
        let (k, v) = (part("to_k")?, part("to_v")?);
        let h = b.under(place).under("attention").cross_attention([q, k, v], heads, false)?;
        let width = self.shapes.of(&format!("{place}.to_out.0.weight"), 2)?[0];
        b.under(place).under("to_out.0").map(h, width)
    }
}
