//! The parts that EDM's architectures share, made from weights by name: convolutions, norms, residual blocks, attention.
use super::weights::Weights;
use crate::nets::kernels::{
    AddScale, Attention, Conv, Down2, Frozen, GroupNorm, Linear, Modulation, Pad, Resample, Up2, Within,
};
use crate::nets::tape::Exec;
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;

pub(super) type Op = Arc<dyn Frozen>;

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
    /// Width of the embedding.
    pub embedding: usize,
}

/// Takes weights by name and makes operations of them.
pub(super) struct Build<'a> {
    pub w: &'a mut dyn Weights,
    pub style: Style,
    /// The type of the images between operations; weights come in f32 or f64, which is also the embedding's type.
    pub trunk: DType,
}

impl Build<'_> {
    /// A weight in the type of the images.
    fn trunk(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let t = self.w.take(name, shape)?;
        if t.dtype() == self.trunk {
            return Ok(t);
        }
        let half = t.to_dtype(self.trunk)?;
        let largest = half.to_dtype(DType::F32)?.abs()?.max_all()?.to_scalar::<f32>()?;
        if !largest.is_finite() {
            let m = format!("`{name}` holds values that {} cannot represent", self.trunk.as_str());
            return Err(Error::new(Kind::Format, m).hint("run the network in f32, or in bf16 on a GPU"));
        }
        Ok(half)
    }
    /// An operation on images that computes in f32 where the images are of half precision.
    fn wide(&self, op: impl Frozen + 'static) -> Op {
        match self.trunk {
            DType::F16 | DType::BF16 => Arc::new(Within { op: Arc::new(op), dtype: DType::F32 }),
            _ => Arc::new(op),
        }
    }
    /// A 3×3 convolution of images, of which the first `keep` output channels are wanted.
    pub fn conv3(&mut self, name: &str, cin: usize, cout: usize, keep: usize) -> Result<Op> {
        let weight = self.trunk(&format!("{name}.weight"), &[cout, cin, 3, 3])?.narrow(0, 0, keep)?;
        let bias = self.trunk(&format!("{name}.bias"), &[cout])?.narrow(0, 0, keep)?;
        Ok(Arc::new(Conv::new(weight.contiguous()?, bias.contiguous()?)?))
    }
    fn conv1_weights(&mut self, name: &str, cin: usize, cout: usize) -> Result<(Tensor, Tensor)> {
        let weight = self.trunk(&format!("{name}.weight"), &[cout, cin, 1, 1])?.reshape((cout, cin))?;
        Ok((weight, self.trunk(&format!("{name}.bias"), &[cout])?))
    }
    /// A 1×1 convolution of images.
    pub fn conv1(&mut self, name: &str, cin: usize, cout: usize) -> Result<Op> {
        let (weight, bias) = self.conv1_weights(name, cin, cout)?;
        Ok(Arc::new(Linear::new(&weight, bias)?))
    }
    /// A linear map of the embedding.
    pub fn linear(&mut self, name: &str, cin: usize, cout: usize, bias: bool) -> Result<Op> {
        let weight = self.w.take(&format!("{name}.weight"), &[cout, cin])?;
        let bias = match bias {
            true => self.w.take(&format!("{name}.bias"), &[cout])?,
            false => Tensor::zeros(cout, weight.dtype(), weight.device())?,
        };
        Ok(Arc::new(Linear::new(&weight, bias)?))
    }
    /// A group norm of images, with SiLU after it where asked.
    pub fn norm(&mut self, name: &str, c: usize, modulation: Modulation, silu: bool) -> Result<Op> {
        let groups = (c / 4).min(32);
        if groups == 0 || !c.is_multiple_of(groups) {
            let e = Error::new(Kind::Format, format!("`{name}`: {c} channels do not divide into {groups} groups"));
            return Err(e.hint("check `model_channels` and `channel_mult`"));
        }
        let weight = self.w.take(&format!("{name}.weight"), &[c])?;
        let bias = self.w.take(&format!("{name}.bias"), &[c])?;
        Ok(self.wide(GroupNorm::new(weight, bias, groups, self.style.eps, modulation, silu)?))
    }
    /// Checks the filter that a checkpoint stores with a resampling convolution against that of the configuration.
    fn filter(&mut self, name: &str) -> Result<()> {
        let f = &self.style.filter;
        let sum: f64 = f.iter().sum();
        let expected: Vec<f64> = f.iter().flat_map(|a| f.iter().map(move |b| a * b / (sum * sum))).collect();
        let name = format!("{name}.resample_filter");
        let stored = self.w.buffer(&name, &[1, 1, f.len(), f.len()], &expected)?;
        let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        match stored.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6 * largest) {
            true => Ok(()),
            false => Err(Error::new(Kind::Format, format!("`{name}` is not the filter {f:?} of `resample_filter`"))
                .hint("does the `config` describe this network?")),
        }
    }
    fn is_box(&self) -> bool {
        matches!(self.style.filter[..], [a, b] if a == b)
    }
    /// Half or double resolution, in a convolution `name` that stores the filter.
    pub fn turn(&mut self, name: &str, turn: Turn) -> Result<Option<Op>> {
        if turn == Turn::Keep {
            return Ok(None);
        }
        self.filter(name)?;
        let filter = &self.style.filter;
        Ok(Some(match (turn, self.is_box()) {
            (Turn::Up, true) => Arc::new(Up2),
            (_, true) => Arc::new(Down2),
            (Turn::Up, false) => Arc::new(Resample::up(filter)),
            (_, false) => Arc::new(Resample::down(filter)),
        }))
    }
    /// A 3×3 convolution followed by a downsampling that sees what the convolution makes of the padding.
    pub fn fused_down(&mut self, name: &str, cin: usize, cout: usize) -> Result<Vec<Op>> {
        self.filter(name)?;
        let mut ops: Vec<Op> = vec![];
        let pad = Resample::padding(&self.style.filter);
        if pad > 0 {
            ops.push(Arc::new(Pad(pad)));
        }
        ops.push(self.conv3(name, cin, cout, cout)?);
        ops.push(match self.is_box() {
            true => Arc::new(Down2),
            false => Arc::new(Resample::down_inside(&self.style.filter)),
        });
        Ok(ops)
    }
    /// A residual block.
    pub fn block(&mut self, name: &str, cin: usize, cout: usize, turn: Turn, attention: bool) -> Result<Block> {
        let n = |part: &str| format!("{name}.{part}");
        let (modulation, width) = match self.style.adaptive {
            true => (Modulation::ScaleShift, 2 * cout),
            false => (Modulation::Add, cout),
        };
        let norm0 = self.norm(&n("norm0"), cin, Modulation::None, true)?;
        let resample = self.turn(&n("conv0"), turn)?;
        if turn != Turn::Keep {
            self.filter(&n("skip"))?;
        }
        let project = cin != cout || (turn != Turn::Keep && self.style.project);
        Ok(Block {
            norm0,
            resample,
            project_first: turn == Turn::Up && self.is_box(),
            conv0: self.conv3(&n("conv0"), cin, cout, cout)?,
            affine: self.linear(&n("affine"), self.style.embedding, width, true)?,
            norm1: self.norm(&n("norm1"), cout, modulation, true)?,
            conv1: self.conv3(&n("conv1"), cout, cout, cout)?,
            skip: if project { Some(self.conv1(&n("skip"), cin, cout)?) } else { None },
            sum: Arc::new(AddScale(self.style.sum)),
            attention: if attention { self.attention(name, cout)? } else { None },
        })
    }
    fn attention(&mut self, name: &str, c: usize) -> Result<Option<[Op; 4]>> {
        let heads = self.style.head.map_or(1, |d| c / d);
        if heads == 0 {
            return Ok(None);
        }
        if !c.is_multiple_of(heads) {
            let m = format!("`{name}.qkv`: {c} channels do not divide into {heads} attention heads");
            return Err(Error::new(Kind::Format, m).hint("check `model_channels` and `channel_mult`"));
        }
        let norm = self.norm(&format!("{name}.norm2"), c, Modulation::None, false)?;
        let (weight, bias) = self.conv1_weights(&format!("{name}.qkv"), c, 3 * c)?;
        // EDM interleaves q, k and v channel by channel; ours stand one after the other
        let apart = |t: Tensor, shape: &[usize]| -> Result<Tensor> {
            let rest: usize = shape.iter().skip(1).product();
            Ok(t.reshape((c, 3, rest))?.transpose(0, 1)?.contiguous()?.reshape(shape)?)
        };
        let qkv = Linear::new(&apart(weight, &[3 * c, c])?, apart(bias, &[3 * c])?)?;
        let proj = self.conv1(&format!("{name}.proj"), c, c)?;
        Ok(Some([norm, Arc::new(qkv), self.wide(Attention { heads }), proj]))
    }
}

/// A residual block with optional resampling and attention.
pub(super) struct Block {
    norm0: Op,
    resample: Option<Op>,
    /// Repetition commutes with a map of single pixels, which is cheaper before it.
    project_first: bool,
    conv0: Op,
    affine: Op,
    norm1: Op,
    conv1: Op,
    skip: Option<Op>,
    sum: Op,
    attention: Option<[Op; 4]>,
}

impl Block {
    pub fn run<E: Exec>(&self, e: &mut E, x: E::Value, emb: &E::Value) -> Result<E::Value> {
        let mut h = e.apply(&self.norm0, &[&x])?;
        if let Some(op) = &self.resample {
            h = e.apply(op, &[&h])?;
        }
        h = e.apply(&self.conv0, &[&h])?;
        let affine = e.apply(&self.affine, &[emb])?;
        h = e.apply(&self.norm1, &[&h, &affine])?;
        h = e.apply(&self.conv1, &[&h])?;
        let mut path: Vec<&Op> = self.resample.iter().chain(&self.skip).collect();
        if self.project_first {
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
