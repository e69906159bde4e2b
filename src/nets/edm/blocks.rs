//! The parts that EDM's architectures share: norms, resampling, residual blocks, attention, the embedding's layers.
use crate::nets::build::{Builder, ConvSize, Id};
use crate::nets::graph::Adapt;
use crate::nets::kernels::{Down2, Modulation, Pad, Resample, Up2};
use crate::{Error, Kind, Result};

/// In which direction a block changes the resolution.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Turn {
    Keep,
    Up,
    Down,
}

/// In what the architectures' residual blocks differ.
pub(super) struct Style {
    /// Epsilon of every group norm.
    pub eps: f64,
    /// The embedding scales and shifts after the norm; otherwise it is added before.
    pub adaptive: bool,
    /// The factor of every sum of two paths.
    pub sum: f64,
    /// Whether a skip path that only changes the resolution has a 1×1 convolution.
    pub project: bool,
    /// Channels of an attention head; `None` is one head of all channels.
    pub head: Option<usize>,
    /// The resampling filter.
    pub filter: Vec<f64>,
}

impl Style {
    /// A group norm of images, with SiLU after it where asked.
    pub fn norm(&self, b: &mut Builder, x: Id, by: Option<(Modulation, Id)>, silu: bool) -> Result<Id> {
        let c = b.channels(x);
        let groups = (c / 4).min(32);
        if groups == 0 || !c.is_multiple_of(groups) {
            let e =
                Error::new(Kind::Format, format!("`{}`: {c} channels do not divide into {groups} groups", b.place()));
            return Err(e.hint("check `model_channels` and `channel_mult`"));
        }
        b.group_norm(x, groups, self.eps, by, silu)
    }

    /// Checks the filter that a checkpoint stores with a resampling convolution against that of the configuration.
    fn check_filter(&self, b: &mut Builder) -> Result<()> {
        let f = &self.filter;
        let sum: f64 = f.iter().sum();
        let expected: Vec<f64> = f.iter().flat_map(|a| f.iter().map(move |b| a * b / (sum * sum))).collect();
        let stored = b.buffer("resample_filter", &[1, 1, f.len(), f.len()], &expected)?;
        let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        if stored.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6 * largest) {
            return Ok(());
        }
        let m = format!("`{}` is not the filter {f:?} of `resample_filter`", b.full("resample_filter"));
        Err(Error::new(Kind::Format, m).hint("does the `config` describe this network?"))
    }

    fn is_box(&self) -> bool {
        matches!(self.filter[..], [a, b] if a == b)
    }

    fn resample(&self, b: &mut Builder, x: Id, turn: Turn) -> Result<Id> {
        let b = &mut b.under("resample");
        match (turn, self.is_box()) {
            (Turn::Keep, _) => Ok(x),
            (Turn::Up, true) => b.apply(Up2, &[x]),
            (Turn::Down, true) => b.apply(Down2, &[x]),
            (Turn::Up, false) => b.apply(Resample::up(&self.filter), &[x]),
            (Turn::Down, false) => b.apply(Resample::down(&self.filter), &[x]),
        }
    }

    /// Half or double resolution, where the filter is stored.
    pub fn turn(&self, b: &mut Builder, x: Id, turn: Turn) -> Result<Id> {
        if turn != Turn::Keep {
            self.check_filter(b)?;
        }
        self.resample(b, x, turn)
    }

    /// A 3×3 convolution followed by a downsampling that sees what the convolution makes of the padding.
    pub fn fused_down(&self, b: &mut Builder, x: Id, cout: usize) -> Result<Id> {
        self.check_filter(b)?;
        let pad = Resample::padding(&self.filter);
        let x = if pad > 0 { b.under("pad").apply(Pad(pad), &[x])? } else { x };
        let x = b.conv(x, ConvSize::same(cout, 3))?;
        let b = &mut b.under("resample");
        match self.is_box() {
            true => b.apply(Down2, &[x]),
            false => b.apply(Resample::down_inside(&self.filter), &[x]),
        }
    }

    /// A residual block with optional resampling and attention.
    pub fn block(&self, b: &mut Builder, x: Id, emb: Id, cout: usize, turn: Turn, attention: bool) -> Result<Id> {
        let (modulation, width) = match self.adaptive {
            true => (Modulation::ScaleShift, 2 * cout),
            false => (Modulation::Add, cout),
        };
        let project = b.channels(x) != cout || (turn != Turn::Keep && self.project);
        // repetition commutes with a map of single pixels, which is cheaper before it
        let project_first = turn == Turn::Up && self.is_box();

        let mut h = self.norm(&mut b.under("norm0"), x, None, true)?;
        h = self.turn(&mut b.under("conv0"), h, turn)?;
        if turn != Turn::Keep {
            self.check_filter(&mut b.under("skip"))?;
        }
        h = b.under("conv0").conv(h, ConvSize::same(cout, 3))?;
        let affine = b.under("affine").linear(emb, width)?;
        h = self.norm(&mut b.under("norm1"), h, Some((modulation, affine)), true)?;
        h = b.under("conv1").conv(h, ConvSize::same(cout, 3))?;

        let b_skip = &mut b.under("skip");
        let mut skip = x;
        if project && project_first {
            skip = b_skip.conv(skip, ConvSize::same(cout, 1))?;
        }
        skip = self.resample(b_skip, skip, turn)?;
        if project && !project_first {
            skip = b_skip.conv(skip, ConvSize::same(cout, 1))?;
        }
        h = b.under("sum").sum(h, skip, self.sum)?;
        if attention { self.attention(b, h) } else { Ok(h) }
    }

    fn attention(&self, b: &mut Builder, x: Id) -> Result<Id> {
        let c = b.channels(x);
        let heads = self.head.map_or(1, |d| c / d);
        if heads == 0 {
            return Ok(x);
        }
        if !c.is_multiple_of(heads) {
            let m = format!("`{}.qkv`: {c} channels do not divide into {heads} attention heads", b.place());
            return Err(Error::new(Kind::Format, m).hint("check `model_channels` and `channel_mult`"));
        }
        let mut a = self.norm(&mut b.under("norm2"), x, None, false)?;
        // EDM interleaves q, k and v channel by channel; ours stand one after the other
        a = b.under("qkv").conv1_apart(a, &[3 * c, c, 1, 1], Adapt::Apart { parts: 3, width: 1 })?;
        a = b.under("attention").attention(a, heads)?;
        a = b.under("proj").conv(a, ConvSize::same(c, 1))?;
        b.under("attended").sum(a, x, self.sum)
    }
}

/// Adds what a linear map makes of a condition, where there is one.
pub(super) fn add_condition(b: &mut Builder, name: &str, emb: Id, mapped: Option<Id>) -> Result<Id> {
    match mapped {
        Some(more) => b.under(name).sum(emb, more, 1.0),
        None => Ok(emb),
    }
}

/// The two layers after the noise embedding, with SiLU between them.
pub(super) fn layers(b: &mut Builder, emb: Id, width: usize) -> Result<Id> {
    let emb = b.under("map_layer0").linear(emb, width)?;
    let emb = b.under("map_layer0.silu").silu(emb)?;
    b.under("map_layer1").linear(emb, width)
}
