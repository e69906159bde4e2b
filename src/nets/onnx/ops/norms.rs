//! Norms, and group norms that exporters write as other operations.
use super::super::lower::{Lower, Step, V};
use super::super::num::Size;
use super::{Note, axis, elementwise};
use crate::nets::kernels::{Arithmetic, Channels, GroupNorm, LayerNorm, Modulation, RmsNorm};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};

/// A group norm that what comes after may still join.
#[derive(Clone)]
pub struct Norm {
    /// What is normalized.
    source: V,
    groups: usize,
    eps: f64,
    weight: Vec<f64>,
    bias: Vec<f64>,
    /// Whether the bias is still open.
    open: bool,
}

/// The channels of images.
fn channels(low: &Lower, v: V) -> Result<usize> {
    let found = low.sizes(v).get(1).and_then(|s| s.fixed()).filter(|c| *c > 0 && low.is_image(v));
    found.ok_or_else(|| {
        Error::new(
            Kind::Format,
            format!("it takes images [B, C, …] of fixed sizes, got {}", super::super::num::told(low.sizes(v))),
        )
    })
}

/// The values of a constant, one for each of `n`.
fn each_of(low: &Lower, v: V, n: usize, what: &str) -> Result<Vec<f64>> {
    let all = low.weight(v, what)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    match all.len() == n {
        true => Ok(all),
        false => Err(Error::new(Kind::Format, format!("its {what} has {} values for {n}", all.len()))),
    }
}

fn row(low: &Lower, all: &[f64]) -> Result<Tensor> {
    Ok(Tensor::new(all, &Device::Cpu)?.to_dtype(low.dtype())?.to_device(low.device())?)
}

impl Norm {
    fn made(&self, low: &mut Lower, silu: bool) -> Result<V> {
        let (w, b) = (row(low, &self.weight)?, row(low, &self.bias)?);
        // pixels of any kind in a row
        let sizes = low.sizes(self.source).to_vec();
        let pixels = sizes[2..].iter().filter_map(|s| s.fixed()).product();
        let x = match sizes.len() {
            4 => self.source,
            _ => low.reshaped(self.source, vec![sizes[0], sizes[1], Size::Fixed(1), Size::Fixed(pixels)])?,
        };
        let y = low.image(GroupNorm::new(w, b, self.groups, self.eps, Modulation::None, silu)?, x)?;
        let y = low.reshaped(y, sizes)?;
        if !silu {
            low.note(y, Note::Norm(self.clone()));
        }
        Ok(y)
    }
}

/// Groups of channels of `source`, normalized.
pub fn of_groups(low: &mut Lower, source: V, groups: usize, eps: f64) -> Result<V> {
    let c = channels(low, source)?;
    Norm { source, groups, eps, weight: vec![1.0; c], bias: vec![0.0; c], open: true }.made(low, false)
}

/// The values of a constant that has one for each channel of images of this rank, wherever it is to be broadcast.
fn by_channel(low: &Lower, v: V, rank: usize, c: usize) -> Result<Option<Vec<f64>>> {
    let sizes = low.sizes(v);
    let place = (rank - 1).checked_sub(1).and_then(|back| sizes.len().checked_sub(1 + back));
    let alone = sizes.iter().enumerate().all(|(i, s)| Some(i) == place || *s == Size::Fixed(1));
    if !alone || place.is_none_or(|p| sizes[p] != Size::Fixed(c)) {
        return Ok(None);
    }
    match low.tensor(v, false)? {
        Some(t) => Ok(Some(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)),
        None => Ok(None),
    }
}

/// The norm that one of two values is, with what the other has for each channel.
fn norm_and_rest(low: &Lower, a: V, b: V) -> Result<Option<(Norm, Vec<f64>)>> {
    for (x, other) in [(a, b), (b, a)] {
        if let Some(Note::Norm(norm)) = &low.val(x).note
            && let Some(all) = by_channel(low, other, low.rank(x), norm.weight.len())?
        {
            return Ok(Some((norm.clone(), all)));
        }
    }
    Ok(None)
}

/// A norm times a weight for each channel, as one operation.
pub fn scaled(low: &mut Lower, a: V, b: V) -> Result<Option<V>> {
    let Some((mut norm, w)) = norm_and_rest(low, a, b)? else { return Ok(None) };
    norm.weight.iter_mut().zip(&w).for_each(|(n, w)| *n *= w);
    norm.bias.iter_mut().zip(&w).for_each(|(n, w)| *n *= w);
    norm.made(low, false).map(Some)
}

/// A norm and a bias for each channel, as one operation.
pub fn shifted(low: &mut Lower, a: V, b: V) -> Result<Option<V>> {
    let Some((mut norm, w)) = norm_and_rest(low, a, b)? else { return Ok(None) };
    if !norm.open {
        return Ok(None);
    }
    norm.open = false;
    norm.bias.iter_mut().zip(&w).for_each(|(n, w)| *n += w);
    norm.made(low, false).map(Some)
}

/// A norm with SiLU after it, as one operation.
pub fn with_silu(low: &mut Lower, x: V) -> Result<Option<V>> {
    match low.val(x).note.clone() {
        Some(Note::Norm(norm)) => norm.made(low, true).map(Some),
        _ => Ok(None),
    }
}

/// Each channel normalized by itself.
pub fn instance(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let (sizes, eps) = (low.sizes(x).to_vec(), step.float("epsilon", 1e-5));
    let [_, Size::Fixed(c), rest @ ..] = &sizes[..] else {
        return Err(Error::new(Kind::Format, "it takes values [B, C, …]"));
    };
    let c = *c;
    let pixels: usize = rest.iter().map(|s| s.fixed()).collect::<Option<Vec<_>>>().map_or(0, |r| r.iter().product());
    let (w, b) = (each_of(low, step.input(1)?, c, "scale")?, each_of(low, step.input(2)?, c, "bias")?);
    if pixels == 0 {
        return Err(Error::value("its pixels are of no fixed number"));
    }
    let grouped = match low.val(x).note {
        Some(Note::Grouped(source, groups)) if groups == c => Some(source),
        _ => None,
    };
    let unit = w.iter().all(|v| *v == 1.0) && b.iter().all(|v| *v == 0.0);
    let flat = low.reshaped(x, vec![sizes[0], sizes[1], Size::Fixed(pixels)])?;
    let (ones, zeros) = (row(low, &vec![1.0; pixels])?, row(low, &vec![0.0; pixels])?);
    let y = low.apply(LayerNorm::new(ones, zeros, eps)?, flat)?;
    let mut y = low.reshaped(y, sizes.clone())?;
    if let (true, Some(source)) = (unit, grouped) {
        low.note(y, Note::Normed(source, c, eps));
        return Ok(y);
    }
    let along = |all: &[f64]| Ok::<_, Error>(row(low, all)?.reshape([&[c], &vec![1; rest.len()][..]].concat())?);
    if !unit {
        let (w, b) = (along(&w)?, along(&b)?);
        let (w, b) = (low.fixed(w), low.fixed(b));
        y = elementwise::binary(low, Arithmetic::Product, y, w)?;
        y = elementwise::binary(low, Arithmetic::Sum, y, b)?;
    }
    Ok(y)
}

/// Groups of channels normalized together.
pub fn group(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let (c, eps) = (channels(low, x)?, step.float("epsilon", 1e-5));
    let groups = usize::try_from(step.int("num_groups", 0)).ok().filter(|g| *g > 0 && c % g == 0);
    let groups = groups.ok_or_else(|| Error::new(Kind::Format, format!("its groups do not divide {c} channels")))?;
    // one value for each channel, in the operation's first version one for each group
    let values = |i: usize, what: &str| -> Result<Vec<f64>> {
        let v = step.input(i)?;
        let n = low.at_one(v).iter().product::<usize>();
        match n == groups && n != c {
            true => {
                Ok(each_of(low, v, groups, what)?.iter().flat_map(|w| std::iter::repeat_n(*w, c / groups)).collect())
            }
            false => each_of(low, v, c, what),
        }
    };
    let (weight, bias) = (values(1, "scale")?, values(2, "bias")?);
    Norm { source: x, groups, eps, weight, bias, open: false }.made(low, false)
}

/// Each channel scaled and shifted by what training counted.
pub fn batch(low: &mut Lower, step: &Step) -> Result<V> {
    if step.int("training_mode", 0) != 0 {
        return Err(Error::value("a batch norm in training mode mixes samples")
            .hint("export the network in evaluation mode: `model.eval()`"));
    }
    let x = step.input(0)?;
    let Some(c) = low.sizes(x).get(1).and_then(|s| s.fixed()) else {
        return Err(Error::new(Kind::Format, "it takes values [B, C, …]"));
    };
    let eps = step.float("epsilon", 1e-5);
    let of = |i: usize, what: &str| each_of(low, step.input(i)?, c, what);
    let (w, b, mean, var) = (of(1, "scale")?, of(2, "bias")?, of(3, "mean")?, of(4, "variance")?);
    let scale: Vec<f64> = w.iter().zip(&var).map(|(w, v)| w / (v + eps).sqrt()).collect();
    let shift: Vec<f64> = b.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    let each = Channels::new(scale.into_iter().zip(shift));
    match low.is_image(x) && low.in_graph(x) {
        true => low.image(each, x),
        false if low.rank(x) == 2 => low.apply(each, x),
        false => Err(Error::value("it takes values [B, C] or images of fixed sizes")),
    }
}

/// The last dimensions as one, from an axis on, and how many values they have.
fn from_axis(low: &mut Lower, step: &Step, x: V) -> Result<(V, usize)> {
    let dim = axis(step.int("axis", -1), low.rank(x))?;
    let tail: Option<Vec<usize>> = low.sizes(x)[dim..].iter().map(|s| s.fixed()).collect();
    let n = tail.map_or(0, |t| t.iter().product());
    if n == 0 {
        return Err(Error::value("it normalizes over the samples of a batch, or nothing"));
    }
    let sizes = [&low.sizes(x)[..dim], &[Size::Fixed(n)]].concat();
    Ok((low.reshaped(x, sizes)?, n))
}

/// Each row normalized.
pub fn layer(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    if step.node.outputs.iter().skip(1).any(|o| !o.is_empty()) {
        return Err(Error::value("it gives means and deviations too, which is for training")
            .hint("export the network in evaluation mode: `model.eval()`"));
    }
    let (sizes, eps) = (low.sizes(x).to_vec(), step.float("epsilon", 1e-5));
    let (flat, n) = from_axis(low, step, x)?;
    let w = match step.maybe(1) {
        Some(v) if low.at_one(v).iter().product::<usize>() == 1 => vec![each_of(low, v, 1, "scale")?[0]; n],
        Some(v) => each_of(low, v, n, "scale")?,
        None => vec![1.0; n],
    };
    let b = match step.maybe(2) {
        Some(v) => each_of(low, v, n, "bias")?,
        None => vec![0.0; n],
    };
    let y = low.apply(LayerNorm::new(row(low, &w)?, row(low, &b)?, eps)?, flat)?;
    low.reshaped(y, sizes)
}

/// Each row over its root mean square.
pub fn rms(low: &mut Lower, step: &Step) -> Result<V> {
    let x = step.input(0)?;
    let (sizes, eps) = (low.sizes(x).to_vec(), step.float("epsilon", 1e-5));
    let (flat, n) = from_axis(low, step, x)?;
    let w = each_of(low, step.input(1)?, n, "scale")?;
    let y = low.apply(RmsNorm::new(row(low, &w)?, eps)?, flat)?;
    low.reshaped(y, sizes)
}
