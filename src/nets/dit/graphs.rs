//! The graphs of DiT and SiT, of Stable Diffusion 3, and of FLUX.1, as their tensors' names and shapes tell them.
use super::blocks::{Blocks, IMAGE, TEXT};
use super::names::{Kind as Which, ROOT};
use crate::nets::build::{Builder, ConvSize, Id, graph};
use crate::nets::graph::{Absent, Dim, Graph, Layout};
use crate::nets::kernels::{Channels, Gelu, Moved, Offset, Scale};
use crate::nets::ldm::{CONTEXT, POOLED, Shapes};
use crate::nets::network::{CLASSES, STATE, TIME};
use crate::nets::weights::{File, Weights, wide};
use crate::{Error, Kind, Result};
use candle_core::Tensor;

/// The condition of guidance-distilled networks that says how much: [B, 1].
pub const GUIDANCE: &str = "guidance";
/// What times and guidances between 0 and 1 are multiplied by before they are embedded.
const THOUSAND: f64 = 1000.0;

/// What the shapes do not tell.
#[derive(Clone, Debug)]
pub struct How {
    /// Which network.
    pub kind: Which,
    /// Whether its names were the original code's.
    pub original: bool,
    /// Height and width of what it denoises.
    pub size: [usize; 2],
    /// Heads of each attention.
    pub heads: usize,
    /// Whether it is told 1 − t and predicts x_0 − ε: SiT.
    pub velocity: bool,
    /// Of FLUX: channels of each head that turn with the first, second and third coordinate.
    pub axes: [usize; 3],
    /// Of DiT and PixArt: tokens along a side that its places were trained with.
    pub base: usize,
    /// What places are divided by.
    pub apart: f64,
}

/// The angles of FLUX's rotary embedding of h × w tokens, whose first coordinate is 0.
fn angles([h, w]: [usize; 2], axes: [usize; 3]) -> Vec<f64> {
    let of = |place: usize, n: usize| (0..n / 2).map(move |i| place as f64 / 1e4f64.powf(2.0 * i as f64 / n as f64));
    let token = |i: usize| of(0, axes[0]).chain(of(i / w, axes[1])).chain(of(i % w, axes[2]));
    (0..h * w).flat_map(token).collect()
}

/// DiT's sines and cosines of places: half of the channels by the column, half by the row.
fn places([h, w]: [usize; 2], c: usize, base: usize, apart: f64) -> Vec<f64> {
    let of = |place: f64| {
        let n = c / 4;
        let angle = move |i: usize| place / 1e4f64.powf(i as f64 / n as f64);
        (0..n).map(move |i| angle(i).sin()).chain((0..n).map(move |i| angle(i).cos()))
    };
    let scaled = |i: usize, n: usize| i as f64 / (n as f64 / base as f64) / apart;
    (0..h * w).flat_map(|i| of(scaled(i % w, w)).chain(of(scaled(i / w, h)))).collect()
}

/// The order of an image's values [H, W, C] in tokens of p × p pixels: place of (token, channel, row, column) in the image.
fn packed([h, w]: [usize; 2], c: usize, p: usize) -> Moved {
    let per = c * p * p;
    Moved::new(h * w * c, &[h / p * (w / p), per], |i| {
        let (token, rest) = (i / per, i % per);
        let (channel, y, x) = (rest / (p * p), rest / p % p, rest % p);
        ((token / (w / p) * p + y) * w + token % (w / p) * p + x) * c + channel
    })
}

/// The way back, where a token has its values in that order if `channels_first`, else row, column, channel, of `given` channels, of
/// which the image has the first `c`.
fn unpacked([h, w]: [usize; 2], c: usize, given: usize, p: usize, channels_first: bool) -> Moved {
    let per = given * p * p;
    Moved::new(h / p * (w / p) * per, &[h, w, c], |i| {
        let (y, x, channel) = (i / c / w, i / c % w, i % c);
        let within = match channels_first {
            true => (channel * p + y % p) * p + x % p,
            false => (y % p * p + x % p) * given + channel,
        };
        (y / p * (w / p) + x / p) * per + within
    })
}

/// The graph of a network; `shapes` are those of the names after [`ROOT`].
pub fn network(file: &mut File, shapes: &Shapes, how: &How) -> Result<Graph> {
    let (dtype, device) = (file.dtype, file.device.clone());
    let table = match how.kind {
        Which::Flux => None,
        Which::Dit | Which::PixArt => Some(dit_places(file, shapes, how)?),
        Which::Sd3 => Some(sd3_places(file, shapes, how)?),
    };
    let table = table.map(|t| t.to_dtype(wide(dtype))?.to_device(&device)).transpose()?;
    let patch = match how.kind {
        Which::Flux => 2,
        _ => shapes.of("pos_embed.proj.weight", 4)?[2],
    };
    let grid = [how.size[0] / patch, how.size[1] / patch];
    if how.size.iter().any(|n| *n == 0 || !n.is_multiple_of(patch)) {
        let m = format!("{}×{} cannot be cut into patches of {patch}×{patch}", how.size[0], how.size[1]);
        return Err(Error::value(m).hint(format!("give `height` and `width` that are multiples of {patch}")));
    }
    let rotary = match how.kind {
        Which::Flux => Some((angles(grid, how.axes), how.axes.iter().sum::<usize>() / 2)),
        _ => None,
    };
    let of = Blocks { shapes, heads: how.heads, tokens: grid[0] * grid[1], rotary, dtype, device };
    let all = Network { of, how, patch, table };
    graph(file, "", dtype, |b| match how.kind {
        Which::Dit => all.dit(b),
        Which::PixArt => all.pixart(b),
        Which::Sd3 | Which::Flux => all.joint(b),
    })
}

/// DiT's places, from the file or by their formula.
fn dit_places(file: &mut File, shapes: &Shapes, how: &How) -> Result<Tensor> {
    let dims = shapes.of("pos_embed.proj.weight", 4)?.to_vec();
    let (c, p) = (dims[0], dims[2].max(1));
    let grid = [how.size[0] / p, how.size[1] / p];
    let name = format!("{ROOT}pos_embed.table");
    if let Some(own) = shapes.0.get("pos_embed.table") {
        if own[..] != [1, grid[0] * grid[1], c] {
            let m = format!(
                "its places are for {:?} tokens, not {} of {}×{}",
                own,
                grid[0] * grid[1],
                how.size[0],
                how.size[1]
            );
            return Err(Error::value(m).hint("leave out `size`"));
        }
        return Ok(file.take(&name, &[1, grid[0] * grid[1], c])?.squeeze(0)?);
    }
    if c % 4 != 0 {
        return Err(Error::new(Kind::Format, format!("{c} channels cannot hold places")));
    }
    Ok(Tensor::from_vec(places(grid, c, how.base, how.apart), (grid[0] * grid[1], c), &candle_core::Device::Cpu)?)
}

/// SD3's places: the middle of a larger table.
fn sd3_places(file: &mut File, shapes: &Shapes, how: &How) -> Result<Tensor> {
    let p = shapes.of("pos_embed.proj.weight", 4)?[2].max(1);
    let dims = shapes.of("pos_embed.pos_embed", 3)?.to_vec();
    let side = (dims[1] as f64).sqrt().round() as usize;
    let [h, w] = [how.size[0] / p, how.size[1] / p];
    if side * side != dims[1] || h > side || w > side {
        let m = format!(
            "{}×{} is larger than the {}×{} that it has places for",
            how.size[0],
            how.size[1],
            side * p,
            side * p
        );
        return Err(Error::value(m).hint("give a smaller `size`"));
    }
    let all = file.take(&format!("{ROOT}pos_embed.pos_embed"), &dims)?.reshape((side, side, dims[2]))?;
    Ok(all.narrow(0, (side - h) / 2, h)?.narrow(1, (side - w) / 2, w)?.reshape((h * w, dims[2]))?)
}

/// A network that is being made.
pub(super) struct Network<'a> {
    pub(super) of: Blocks<'a>,
    pub(super) how: &'a How,
    pub(super) patch: usize,
    table: Option<Tensor>,
}

impl Network<'_> {
    pub(super) fn input(&self, b: &mut Builder, channels: usize) -> Result<[Id; 2]> {
        b.wide(true);
        let [h, w] = self.how.size.map(Dim::Exactly);
        let x = b.input(STATE, &[h, w, Dim::Exactly(channels)], Layout::Image, Absent::Error)?;
        Ok([x, b.input(TIME, &[], Layout::Plain, Absent::Error)?])
    }

    /// Tokens of an image, by a convolution.
    pub(super) fn patches(&self, b: &mut Builder, x: Id) -> Result<Id> {
        let dims = self.of.shapes.of("pos_embed.proj.weight", 4)?;
        let size = ConvSize { channels: dims[0], window: dims[2], stride: dims[2], padding: [0, 0] };
        let h = b.under("pos_embed.proj").conv(x, size)?;
        let h = b.under("pos_embed.tokens").shaped(h, &[self.of.tokens, dims[0]])?;
        match &self.table {
            Some(table) => b.under("pos_embed.places").apply(Offset(table.clone()), &[h]),
            None => Ok(h),
        }
    }

    /// The last norm and map, and the image.
    fn image(&self, b: &mut Builder, x: Id, emb: Id, channels: usize) -> Result<()> {
        let c = b.channels(x);
        let parts = self.of.modulation(b, "norm_out.linear", emb, c)?;
        let shift_first = self.how.original || self.how.kind == Which::Dit;
        let rows = if shift_first { [parts.at(0)?, parts.at(1)?] } else { [parts.at(1)?, parts.at(0)?] };
        self.finished(b, x, rows, channels)
    }

    /// The same with shift and scale that are there.
    pub(super) fn finished(&self, b: &mut Builder, x: Id, rows: [Id; 2], channels: usize) -> Result<()> {
        let h = self.of.normed(b, "norm_out", x, rows)?;
        let h = self.of.linear(b, "proj_out", h)?;
        let given = b.channels(h) / (self.patch * self.patch);
        if given < channels {
            return Err(Error::new(
                Kind::Format,
                format!("a network from {channels} to {given} channels is no denoiser"),
            ));
        }
        let moved = unpacked(self.how.size, channels, given, self.patch, self.how.kind == Which::Flux);
        let mut y = b.under("image").apply(moved, &[h])?;
        if self.how.velocity {
            y = b.under("negative").apply(Scale(-1.0), &[y])?;
        }
        b.output("y", y, Layout::Image);
        Ok(())
    }

    /// A block of DiT.
    fn block(&self, b: &mut Builder, at: &str, x: Id, emb: Id) -> Result<Id> {
        let (of, c) = (&self.of, b.channels(x));
        let m = of.modulation(b, &format!("{at}.norm1.linear"), emb, c)?;
        let h = of.normed(b, &format!("{at}.norm1"), x, [m.at(0)?, m.at(1)?])?;
        let qkv = of.qkv(b, &format!("{at}.attn"), h, &IMAGE)?;
        let h = of.attention(b, &format!("{at}.attn"), qkv)?;
        let h = of.linear(b, &format!("{at}.attn.to_out.0"), h)?;
        let x = of.gated(b, &format!("{at}.attended"), x, h, m.at(2)?)?;
        let h = of.normed(b, &format!("{at}.norm2"), x, [m.at(3)?, m.at(4)?])?;
        let h = of.maps(b, &format!("{at}.ff"), h)?;
        of.gated(b, &format!("{at}.mapped"), x, h, m.at(5)?)
    }

    fn dit(&self, b: &mut Builder) -> Result<()> {
        let of = &self.of;
        let channels = of.shapes.of("pos_embed.proj.weight", 4)?[1];
        let [x, time] = self.input(b, channels)?;
        // the original code has one embedding; diffusers keeps it in every block
        let own = |i: usize| match of.shapes.any("emb.") {
            true => "emb".to_string(),
            false => format!("transformer_blocks.{i}.norm1.emb"),
        };
        let labels = of.shapes.of(&format!("{}.class_embedder.embedding_table.weight", own(0)), 2)?.to_vec();
        let classes = Dim::Exactly(labels[0].saturating_sub(1).max(1));
        let rows = b.input(CLASSES, &[classes], Layout::Plain, Absent::Zeros)?;
        let b = &mut b.under(ROOT.trim_end_matches('.'));
        let time = match self.how.velocity {
            // it counts from noise to data
            true => {
                let t = b.under("emb.time").shaped(time, &[1])?;
                b.under("emb.turned").apply(Channels::new([(-1.0, 1.0)]), &[t])?
            }
            false => time,
        };
        let mut h = self.patches(b, x)?;
        let mut first = None;
        let mut last = None;
        for i in 0..of.shapes.count("transformer_blocks") {
            let place = own(i);
            let emb = match last {
                Some((ref known, emb)) if *known == place => emb,
                _ => {
                    let e = of.number(b, &format!("{place}.timestep_embedder"), time, !self.how.original)?;
                    let table = format!("{place}.class_embedder.embedding_table");
                    let class = b.under(&table).embedding(rows, [labels[0], labels[1]], true)?;
                    let e = b.under(&format!("{place}.sum")).sum(e, class, 1.0)?;
                    b.under(&format!("{place}.silu")).silu(e)?
                }
            };
            last = Some((place, emb));
            first = first.or(Some(emb));
            h = self.block(b, &format!("transformer_blocks.{i}"), h, emb)?;
        }
        let Some(emb) = first else { return Err(Error::new(Kind::Format, "a transformer without blocks")) };
        self.image(b, h, emb, channels)
    }

    /// A block with tokens of image and text, each by its own weights; the last one of SD3 leaves the text as it is.
    fn double(&self, b: &mut Builder, at: &str, [x, text]: [Id; 2], emb: Id) -> Result<[Id; 2]> {
        let (of, c) = (&self.of, b.channels(x));
        let m = of.modulation(b, &format!("{at}.norm1.linear"), emb, c)?;
        let t = of.modulation(b, &format!("{at}.norm1_context.linear"), emb, c)?;
        let h = of.normed(b, &format!("{at}.norm1"), x, [m.at(0)?, m.at(1)?])?;
        // some blocks of SD3.5 have another attention over the image alone
        let alone = match of.shapes.any(&format!("{at}.attn2.")) {
            true => Some(of.normed(b, &format!("{at}.norm1_2"), x, [m.at(6)?, m.at(7)?])?),
            false => None,
        };
        let goes_on = of.has(at, "attn.to_add_out.weight");
        let rows = if goes_on || self.how.original { [t.at(0)?, t.at(1)?] } else { [t.at(1)?, t.at(0)?] };
        let told = of.normed(b, &format!("{at}.norm1_context"), text, rows)?;
        let place = format!("{at}.attn");
        let image = of.qkv(b, &place, h, &IMAGE)?;
        let words = of.qkv(b, &place, told, &TEXT)?;
        let mut all = vec![];
        for (k, (word, pixel)) in words.into_iter().zip(image).enumerate() {
            all.push(of.join(b, &format!("{place}.all_{k}"), word, pixel)?);
        }
        let [q, k, v] = all[..] else { return Err(Error::new(Kind::Internal, "q, k and v are not three")) };
        let both = of.attention(b, &place, [q, k, v])?;
        let [from_text, from_image] = of.cut(b, &format!("{place}.apart"), both)?;
        let a = of.linear(b, &format!("{place}.to_out.0"), from_image)?;
        let mut x = of.gated(b, &format!("{at}.attended"), x, a, m.at(2)?)?;
        if let Some(h) = alone {
            let place = format!("{at}.attn2");
            let qkv = of.qkv(b, &place, h, &IMAGE)?;
            let h = of.attention(b, &place, qkv)?;
            let h = of.linear(b, &format!("{place}.to_out.0"), h)?;
            x = of.gated(b, &format!("{at}.attended_2"), x, h, m.at(8)?)?;
        }
        let h = of.normed(b, &format!("{at}.norm2"), x, [m.at(3)?, m.at(4)?])?;
        let h = of.maps(b, &format!("{at}.ff"), h)?;
        x = of.gated(b, &format!("{at}.mapped"), x, h, m.at(5)?)?;
        if !goes_on {
            return Ok([x, text]);
        }
        let a = of.linear(b, &format!("{at}.attn.to_add_out"), from_text)?;
        let text = of.gated(b, &format!("{at}.attended_context"), text, a, t.at(2)?)?;
        let h = of.normed(b, &format!("{at}.norm2_context"), text, [t.at(3)?, t.at(4)?])?;
        let h = of.maps(b, &format!("{at}.ff_context"), h)?;
        Ok([x, of.gated(b, &format!("{at}.mapped_context"), text, h, t.at(5)?)?])
    }

    /// A block over all tokens, attention and maps side by side: FLUX's.
    fn single(&self, b: &mut Builder, at: &str, x: Id, emb: Id) -> Result<Id> {
        let (of, c) = (&self.of, b.channels(x));
        let m = of.modulation(b, &format!("{at}.norm.linear"), emb, c)?;
        let h = of.normed(b, &format!("{at}.norm"), x, [m.at(0)?, m.at(1)?])?;
        let (place, joined) = (format!("{at}.attn"), format!("{at}.linear1"));
        let (qkv, maps) = match of.has(at, "linear1.weight") {
            true => {
                let all = of.linear(b, &joined, h)?;
                let rest = b.channels(all).saturating_sub(3 * c).max(1);
                let [q, k, v, maps] = b.under(&joined).under("parts").split(all, &[c, c, c, rest])?[..] else {
                    return Err(Error::new(Kind::Internal, "q, k, v and maps are not four"));
                };
                let q = of.head_norm(b, &place, "norm_q", q)?;
                ([q, of.head_norm(b, &place, "norm_k", k)?, v], maps)
            }
            false => (of.qkv(b, &place, h, &IMAGE)?, of.linear(b, &format!("{at}.proj_mlp"), h)?),
        };
        let a = of.attention(b, &place, qkv)?;
        let maps = b.under(at).under("gelu").gelu(maps, Gelu::Tanh)?;
        let all = b.under(at).under("beside").concat(a, maps)?;
        let h = of.linear(b, &format!("{at}.proj_out"), all)?;
        of.gated(b, &format!("{at}.gated"), x, h, m.at(2)?)
    }

    /// SD3 and FLUX.
    fn joint(&self, b: &mut Builder) -> Result<()> {
        let (of, flux) = (&self.of, self.how.kind == Which::Flux);
        let channels = match flux {
            true => of.shapes.of("x_embedder.weight", 2)?[1] / (self.patch * self.patch),
            false => of.shapes.of("pos_embed.proj.weight", 4)?[1],
        };
        let [x, time] = self.input(b, channels)?;
        let width = of.shapes.of("context_embedder.weight", 2)?[1];
        let context = b.input(CONTEXT, &[Dim::About(77), Dim::Exactly(width)], Layout::Plain, Absent::Error)?;
        let pooled = of.shapes.of("time_text_embed.text_embedder.linear_1.weight", 2)?[1];
        let pooled = b.input(POOLED, &[Dim::Exactly(pooled)], Layout::Plain, Absent::Error)?;
        let guided = of.shapes.any("time_text_embed.guidance_embedder.");
        let guidance = match guided {
            true => Some(b.input(GUIDANCE, &[Dim::Exactly(1)], Layout::Plain, Absent::Zeros)?),
            false => None,
        };
        let b = &mut b.under(ROOT.trim_end_matches('.'));
        let mut h = match flux {
            true => {
                let h = b.under("tokens").apply(packed(self.how.size, channels, self.patch), &[x])?;
                of.linear(b, "x_embedder", h)?
            }
            false => self.patches(b, x)?,
        };
        let time = if flux { b.under("time_text_embed.steps").scale(time, THOUSAND)? } else { time };
        let mut emb = of.number(b, "time_text_embed.timestep_embedder", time, false)?;
        if let Some(g) = guidance {
            let g = b.under("time_text_embed.guidance").scale(g, THOUSAND)?;
            let g = of.number(b, "time_text_embed.guidance_embedder", g, false)?;
            emb = b.under("time_text_embed.guided").sum(emb, g, 1.0)?;
        }
        let told = of.embedding(b, "time_text_embed.text_embedder", pooled)?;
        emb = b.under("time_text_embed.sum").sum(emb, told, 1.0)?;
        let emb = b.under("time_text_embed.silu").silu(emb)?;
        let mut text = of.linear(b, "context_embedder", context)?;
        for i in 0..of.shapes.count("transformer_blocks") {
            [h, text] = self.double(b, &format!("transformer_blocks.{i}"), [h, text], emb)?;
        }
        let singles = of.shapes.count("single_transformer_blocks");
        if singles > 0 {
            let mut all = of.join(b, "single_transformer_blocks.all", text, h)?;
            for i in 0..singles {
                all = self.single(b, &format!("single_transformer_blocks.{i}"), all, emb)?;
            }
            h = of.cut(b, "single_transformer_blocks.apart", all)?[1];
        }
        self.image(b, h, emb, channels)
    }
}
