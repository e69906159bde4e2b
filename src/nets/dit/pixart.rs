//! The graph of PixArt-α and -Σ: DiT's blocks with attention to a text between, and one modulation for all blocks, to which each adds its own.
use super::blocks::{IMAGE, Parts};
use super::graphs::Network;
use super::names::ROOT;
use crate::nets::build::{Builder, Id};
use crate::nets::graph::{Absent, Dim, Layout};
use crate::nets::kernels::{Gelu, Offset, Waves};
use crate::nets::ldm::{CONTEXT, SIZES};
use crate::{Error, Kind, Result};
use std::sync::Arc;

/// The condition that says which rows of the context count: [B, tokens], 1 or 0; all of them where it is not given.
pub const MASK: &str = "mask";

/// Channels of the embeddings of numbers.
const WAVES: usize = 256;
/// Pixels to a latent.
const PIXELS: f64 = 8.0;
/// The modulation's parts of a block.
const PARTS: usize = 6;

/// Height, width, and height over width, of a whole image of the size that is denoised.
pub fn sizes([h, w]: [usize; 2]) -> Vec<f64> {
    vec![h as f64 * PIXELS, w as f64 * PIXELS, h as f64 / w as f64]
}

impl Network<'_> {
    /// The rows of a table with values [B, rows · C] added, as parts.
    fn shifted(&self, b: &mut Builder, table: &str, values: Id, rows: usize) -> Result<Parts> {
        let c = b.channels(values) / rows.max(1);
        let (t, weight) = b.weight(table, &[rows, c], &[])?;
        let place = table.trim_end_matches(".scale_shift_table");
        let mut b = b.under(place);
        let mut b = b.under("modulation");
        let h = b.under("rows").shaped(values, &[rows, c])?;
        let h = b.add(Arc::new(Offset(t)), &[h], vec![weight])?[0];
        let h = b.under("row").shaped(h, &[rows * c])?;
        Ok(Parts::of(b.under("parts").split(h, &vec![c; rows])?))
    }

    /// The embedding of sizes, for networks that are told them.
    fn sized(&self, b: &mut Builder, sizes: Id) -> Result<Id> {
        let of = &self.of;
        let parts = b.under("adaln_single.emb.sizes").split(sizes, &[2, 1])?;
        let mut all = None;
        for (name, numbers) in ["resolution", "aspect_ratio"].into_iter().zip(parts) {
            let place = format!("adaln_single.emb.{name}_embedder");
            let n = b.channels(numbers);
            let waves = b.under(&place).under("waves").apply(Waves::positional(WAVES, false, false), &[numbers])?;
            let each = b.under(&place).under("each").shaped(waves, &[n, WAVES])?;
            let each = of.embedding(b, &place, each)?;
            let width = b.channels(each);
            let own = b.under(&place).under("all").shaped(each, &[n * width])?;
            all = Some(match all {
                None => own,
                Some(before) => b.under("adaln_single.emb.beside").concat(before, own)?,
            });
        }
        all.ok_or_else(|| Error::new(Kind::Internal, "no sizes"))
    }

    /// Attention of the image's tokens to the text's.
    fn told(&self, b: &mut Builder, at: &str, x: Id, text: Id, mask: Id) -> Result<Id> {
        let of = &self.of;
        let place = format!("{at}.attn2");
        let q = of.linear(b, &format!("{place}.to_q"), x)?;
        let [k, v] = match of.has(&place, "to_kv.weight") {
            true => {
                let both = of.linear(b, &format!("{place}.to_kv"), text)?;
                let c = b.channels(both) / 2;
                match b.under(&place).under("to_kv.parts").split(both, &[c; 2])?[..] {
                    [k, v] => [k, v],
                    _ => return Err(Error::new(Kind::Internal, "k and v are not two")),
                }
            }
            false => [of.linear(b, &format!("{place}.to_k"), text)?, of.linear(b, &format!("{place}.to_v"), text)?],
        };
        let h = b.under(&place).under("attention").masked_attention([q, k, v], mask, of.heads)?;
        let h = of.linear(b, &format!("{place}.to_out.0"), h)?;
        b.under(at).under("told").sum(x, h, 1.0)
    }

    /// The whole network.
    pub(super) fn pixart(&self, b: &mut Builder) -> Result<()> {
        let of = &self.of;
        let channels = of.shapes.of("pos_embed.proj.weight", 4)?[1];
        let [x, time] = self.input(b, channels)?;
        let width = of.shapes.of("caption_projection.linear_1.weight", 2)?[1];
        let context = b.input(CONTEXT, &[Dim::About(300), Dim::Exactly(width)], Layout::Plain, Absent::Error)?;
        let mask = b.input(MASK, &[Dim::About(300)], Layout::Plain, Absent::Zeros)?;
        let sizes = match of.shapes.any("adaln_single.emb.resolution_embedder.") {
            true => Some(b.input(SIZES, &[Dim::Exactly(3)], Layout::Plain, Absent::Zeros)?),
            false => None,
        };
        let b = &mut b.under(ROOT.trim_end_matches('.'));
        let mut h = self.patches(b, x)?;
        let mut emb = of.number(b, "adaln_single.emb.timestep_embedder", time, false)?;
        if let Some(sizes) = sizes {
            let own = self.sized(b, sizes)?;
            emb = b.under("adaln_single.emb.sum").sum(emb, own, 1.0)?;
        }
        let lit = b.under("adaln_single.silu").silu(emb)?;
        let all = of.linear(b, "adaln_single.linear", lit)?;
        let text = of.linear(b, "caption_projection.linear_1", context)?;
        let text = b.under("caption_projection.gelu").gelu(text, Gelu::Tanh)?;
        let text = of.linear(b, "caption_projection.linear_2", text)?;
        for i in 0..of.shapes.count("transformer_blocks") {
            let at = format!("transformer_blocks.{i}");
            let m = self.shifted(b, &format!("{at}.scale_shift_table"), all, PARTS)?;
            let y = of.normed(b, &format!("{at}.norm1"), h, [m.at(0)?, m.at(1)?])?;
            let qkv = of.qkv(b, &format!("{at}.attn1"), y, &IMAGE)?;
            let y = of.attention(b, &format!("{at}.attn1"), qkv)?;
            let y = of.linear(b, &format!("{at}.attn1.to_out.0"), y)?;
            h = of.gated(b, &format!("{at}.attended"), h, y, m.at(2)?)?;
            h = self.told(b, &at, h, text, mask)?;
            let y = of.normed(b, &format!("{at}.norm2"), h, [m.at(3)?, m.at(4)?])?;
            let y = of.maps(b, &format!("{at}.ff"), y)?;
            h = of.gated(b, &format!("{at}.mapped"), h, y, m.at(5)?)?;
        }
        let both = b.under("norm_out.both").concat(emb, emb)?;
        let last = self.shifted(b, "scale_shift_table", both, 2)?;
        self.finished(b, h, [last.at(0)?, last.at(1)?], channels)
    }
}
