//! Frozen group normalization, with the embedding's modulation and SiLU in the same pass.
// indices run over several arrays of vectors at once
#![allow(clippy::needless_range_loop)]
#[path = "gpu/norm.rs"]
mod gpu;

use super::gpu::{Gpu, Kept};
use super::pointwise::silu_and_slope;
use super::simd::dispatch;
use super::{Frozen, View, host_f32, image, pool};
use candle_core::{D, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// A sample's values and cotangent, and where its gradients go: the values' and the embedding's.
type PerSample<'a> = ((&'a [f32], &'a [f32]), (&'a mut [f32], &'a mut Vec<f32>));

/// Pixels that one task of a pass over a sample takes.
const PIECE: usize = 128;

/// How the embedding, a second input, enters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Modulation {
    /// Not at all: one input.
    None,
    /// [B, C], added to every pixel before the normalization.
    Add,
    /// [B, 2C] = scale | shift: normalized · (1 + scale) + shift.
    ScaleShift,
}

/// y = norm(x) · weight + bias over groups of channels and all pixels, modulated, and through SiLU where asked:
/// [B, H, W, C] → the same.
pub struct GroupNorm {
    channels: usize,
    groups: usize,
    eps: f64,
    modulation: Modulation,
    silu: bool,
    weight: Tensor,
    bias: Tensor,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    kept: Kept,
}

impl GroupNorm {
    /// From weight and bias [C]; `groups` must divide C.
    pub fn new(
        weight: Tensor,
        bias: Tensor,
        groups: usize,
        eps: f64,
        modulation: Modulation,
        silu: bool,
    ) -> candle_core::Result<Self> {
        let channels = weight.dims1()?;
        if groups == 0 || channels % groups != 0 {
            candle_core::bail!("group norm: {channels} channels do not divide into {groups} groups");
        }
        let (gamma, beta) = (host_f32(&weight)?, host_f32(&bias)?);
        Ok(GroupNorm { channels, groups, eps, modulation, silu, weight, bias, gamma, beta, kept: Kept::default() })
    }

    /// What a pass over one sample needs for each channel: n = (x − mean) · rstd, u = n · a + k.
    fn coefficients(&self, x: &[f32], e: &[f32], par: bool) -> Channels {
        let c = self.channels;
        let per = c / self.groups;
        let pixels = (x.len() / c).max(1);
        let add = |i: usize| if self.modulation == Modulation::Add { e[i] as f64 } else { 0.0 };
        let over = |of: &dyn Fn(usize) -> f64, g: usize| (g * per..(g + 1) * per).map(of).sum::<f64>();
        let n = (pixels * per) as f64;
        let sums = column_sums(x, c, &vec![0.0; c], false, par);
        let mut mean = vec![0f32; c];
        for g in 0..self.groups {
            let m = over(&|i| sums[i] + pixels as f64 * add(i), g) / n;
            (g * per..(g + 1) * per).for_each(|i| mean[i] = (m - add(i)) as f32);
        }
        let squares = column_sums(x, c, &mean, true, par);
        let mut out = Channels { mean, rstd: vec![0.0; c], a: self.gamma.clone(), k: self.beta.clone(), sums };
        for g in 0..self.groups {
            let r = 1.0 / (over(&|i| squares[i], g) / n + self.eps).sqrt();
            out.rstd[g * per..(g + 1) * per].fill(r as f32);
        }
        if self.modulation == Modulation::ScaleShift {
            for i in 0..c {
                out.a[i] *= 1.0 + e[i];
                out.k[i] = out.k[i] * (1.0 + e[i]) + e[c + i];
            }
        }
        out
    }

    /// Adds the gradients of one sample: into x's and, where there is one, into the embedding's row.
    fn pull_sample(&self, x: &[f32], e: &[f32], cot: &[f32], grad: &mut [f32], e_grad: &mut [f32], par: bool) {
        let c = self.channels;
        let per = c / self.groups;
        let pixels = (x.len() / c).max(1);
        let ch = self.coefficients(x, e, par);
        let size = PIECE * c;
        // Σ ū and Σ ū n over pixels, ū the cotangent before SiLU (left in grad)
        let work = x.chunks(size).zip(cot.chunks(size)).zip(grad.chunks_mut(size)).collect();
        let sums = each(work, par, |((x, cot), grad)| dispatch(Slope { x, cot, ch: &ch, silu: self.silu, grad }));
        let (p, q): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
        let (p, q) = (in_order(p, c), in_order(q, c));
        let (mut m1, mut m2) = (vec![0f32; c], vec![0f32; c]);
        let n = (pixels * per) as f64;
        for g in 0..self.groups {
            let channels = g * per..(g + 1) * per;
            let s1: f64 = channels.clone().map(|i| ch.a[i] as f64 * p[i]).sum();
            let s2: f64 = channels.clone().map(|i| ch.a[i] as f64 * q[i]).sum();
            m1[channels.clone()].fill((s1 / n) as f32);
            m2[channels].fill((s2 / n) as f32);
        }
        let work = x.chunks(size).zip(grad.chunks_mut(size)).collect();
        each(work, par, |(x, grad)| dispatch(Finish { x, ch: &ch, m1: &m1, m2: &m2, grad }));
        match self.modulation {
            Modulation::None => {}
            Modulation::Add => {
                for i in 0..c {
                    let n_sum = (ch.sums[i] - pixels as f64 * ch.mean[i] as f64) * ch.rstd[i] as f64;
                    let sum = ch.a[i] as f64 * p[i] - pixels as f64 * m1[i] as f64 - m2[i] as f64 * n_sum;
                    e_grad[i] = (ch.rstd[i] as f64 * sum) as f32;
                }
            }
            Modulation::ScaleShift => {
                for i in 0..c {
                    e_grad[i] = (self.gamma[i] as f64 * q[i] + self.beta[i] as f64 * p[i]) as f32;
                    e_grad[c + i] = p[i] as f32;
                }
            }
        }
    }

    fn embedding_width(&self) -> usize {
        match self.modulation {
            Modulation::None => 0,
            Modulation::Add => self.channels,
            Modulation::ScaleShift => 2 * self.channels,
        }
    }
}

struct Channels {
    mean: Vec<f32>,
    rstd: Vec<f32>,
    a: Vec<f32>,
    k: Vec<f32>,
    /// Σ x over pixels.
    sums: Vec<f64>,
}

/// Σ over pixels of (x − shift), or of its square: short f32 sums collected in f64.
fn column_sums(x: &[f32], c: usize, shift: &[f32], square: bool, par: bool) -> Vec<f64> {
    struct Sums<'a>(&'a [f32], usize, &'a [f32], bool);
    impl WithSimd for Sums<'_> {
        type Output = Vec<f64>;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
            let Sums(x, c, shift, square) = self;
            let (mut total, mut part) = (vec![0f64; c], vec![0f32; c]);
            for block in x.chunks(32 * c) {
                part.fill(0.0);
                for px in block.chunks_exact(c) {
                    for ((s, x), m) in part.iter_mut().zip(px).zip(shift) {
                        let d = x - m;
                        *s += if square { d * d } else { d };
                    }
                }
                total.iter_mut().zip(&part).for_each(|(t, s)| *t += *s as f64);
            }
            total
        }
    }
    let work = x.chunks(PIECE * c).collect();
    in_order(each(work, par, |x| dispatch(Sums(x, c, shift, square))), c)
}

/// Does each piece of work, spread over threads where that is allowed; the results stay in order.
fn each<W: Send, T: Send>(work: Vec<W>, par: bool, f: impl Fn(W) -> T + Sync + Send) -> Vec<T> {
    if par && work.len() > 1 { work.into_par_iter().map(f).collect() } else { work.into_iter().map(f).collect() }
}

/// The sum of each channel's partial sums, in order: the same bits whoever computed them.
fn in_order(parts: Vec<Vec<f64>>, c: usize) -> Vec<f64> {
    let mut total = vec![0.0; c];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

struct Forward<'a> {
    x: &'a [f32],
    ch: &'a Channels,
    silu: bool,
    out: &'a mut [f32],
}
impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Channels { mean, rstd, a, k, .. } = self.ch;
        let c = mean.len();
        let (scale, mut shift) = (rstd.iter().zip(a).map(|(r, a)| r * a).collect::<Vec<_>>(), k.clone());
        shift.iter_mut().zip(mean).zip(&scale).for_each(|((k, m), s)| *k -= m * s);
        for (px, to) in self.x.chunks_exact(c).zip(self.out.chunks_exact_mut(c)) {
            for (((o, x), s), k) in to.iter_mut().zip(px).zip(&scale).zip(&shift) {
                let u = x * s + k;
                *o = if self.silu { silu_and_slope(u).0 } else { u };
            }
        }
    }
}

struct Slope<'a> {
    x: &'a [f32],
    cot: &'a [f32],
    ch: &'a Channels,
    silu: bool,
    grad: &'a mut [f32],
}
impl WithSimd for Slope<'_> {
    type Output = (Vec<f64>, Vec<f64>);
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (Vec<f64>, Vec<f64>) {
        let Channels { mean, rstd, a, k, .. } = self.ch;
        let c = mean.len();
        let (mut p, mut q) = (vec![0f64; c], vec![0f64; c]);
        let (mut sp, mut sq) = (vec![0f32; c], vec![0f32; c]);
        let blocks = self.x.chunks(32 * c).zip(self.cot.chunks(32 * c)).zip(self.grad.chunks_mut(32 * c));
        for ((x, g), o) in blocks {
            sp.fill(0.0);
            sq.fill(0.0);
            for ((x, g), o) in x.chunks_exact(c).zip(g.chunks_exact(c)).zip(o.chunks_exact_mut(c)) {
                // equal lengths, stated once, so that the loop needs no checks
                let (x, g, o, mean, rstd) = (&x[..c], &g[..c], &mut o[..c], &mean[..c], &rstd[..c]);
                let (a, k, sp, sq) = (&a[..c], &k[..c], &mut sp[..c], &mut sq[..c]);
                for i in 0..c {
                    let n = (x[i] - mean[i]) * rstd[i];
                    let slope = if self.silu { silu_and_slope(n * a[i] + k[i]).1 } else { 1.0 };
                    let u = g[i] * slope;
                    o[i] = u;
                    sp[i] += u;
                    sq[i] += u * n;
                }
            }
            p.iter_mut().zip(&sp).for_each(|(t, s)| *t += *s as f64);
            q.iter_mut().zip(&sq).for_each(|(t, s)| *t += *s as f64);
        }
        (p, q)
    }
}

/// x̄ = rstd · (a ū − mean(a ū) − n · mean(a ū n)).
struct Finish<'a> {
    x: &'a [f32],
    ch: &'a Channels,
    m1: &'a [f32],
    m2: &'a [f32],
    grad: &'a mut [f32],
}
impl WithSimd for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Channels { mean, rstd, a, .. } = self.ch;
        let c = mean.len();
        for (x, o) in self.x.chunks_exact(c).zip(self.grad.chunks_exact_mut(c)) {
            let (x, o, mean, rstd) = (&x[..c], &mut o[..c], &mean[..c], &rstd[..c]);
            let (a, m1, m2) = (&a[..c], &self.m1[..c], &self.m2[..c]);
            for i in 0..c {
                let n = (x[i] - mean[i]) * rstd[i];
                o[i] = rstd[i] * (a[i] * o[i] - m1[i] - n * m2[i]);
            }
        }
    }
}

/// Runs over samples, each with its row of the embedding (empty where there is none).
fn row<'a>(inputs: &[View<'a>], b: usize, width: usize) -> &'a [f32] {
    inputs.get(1).map_or(&[][..], |e| &e.data[b * width..][..width])
}

impl Frozen for GroupNorm {
    fn name(&self) -> &'static str {
        "frozen group norm"
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [b, ..] = image(inputs[0], self.channels)?;
        let wanted = (self.modulation != Modulation::None).then(|| vec![b, self.embedding_width()]);
        match (wanted, inputs.get(1)) {
            (None, None) => {}
            (Some(w), Some(e)) if w == *e => {}
            (w, e) => return Err(format!("expected an embedding of shape {w:?}, got {e:?}")),
        }
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let size = inputs[0].dims[1..].iter().product::<usize>().max(1);
        let width = self.embedding_width();
        let sample = |(b, (x, out)): (usize, (&[f32], &mut [f32]))| {
            let ch = self.coefficients(x, row(inputs, b, width), par);
            let work = x.chunks(PIECE * self.channels).zip(out.chunks_mut(PIECE * self.channels)).collect();
            each(work, par, |(x, out)| dispatch(Forward { x, ch: &ch, silu: self.silu, out }));
        };
        let x = inputs[0].data;
        if par {
            x.par_chunks(size).zip(out.par_chunks_mut(size)).enumerate().for_each(sample);
        } else {
            x.chunks(size).zip(out.chunks_mut(size)).enumerate().for_each(sample);
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let x = inputs[0].data;
        let size = inputs[0].dims[1..].iter().product::<usize>().max(1);
        let width = self.embedding_width();
        let mut grad = pool::take(x.len());
        let mut e_grads = vec![vec![0.0; width]; x.len() / size];
        let sample = |(b, ((x, cot), (grad, e_grad))): (usize, PerSample)| {
            self.pull_sample(x, row(inputs, b, width), cot, grad, e_grad, par);
        };
        if par {
            let outs = grad.par_chunks_mut(size).zip(e_grads.par_iter_mut());
            x.par_chunks(size).zip(cot.par_chunks(size)).zip(outs).enumerate().for_each(sample);
        } else {
            let outs = grad.chunks_mut(size).zip(e_grads.iter_mut());
            x.chunks(size).zip(cot.chunks(size)).zip(outs).enumerate().for_each(sample);
        }
        match self.modulation {
            Modulation::None => vec![grad],
            _ => vec![grad, e_grads.concat()],
        }
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        self.compose_with(inputs, &self.weights()?)
    }
    fn weights(&self) -> candle_core::Result<Vec<Tensor>> {
        Ok(vec![self.weight.clone(), self.bias.clone()])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> candle_core::Result<Tensor> {
        let (b, h, w, c) = inputs[0].dims4()?;
        let (g, per) = (self.groups, c / self.groups);
        let x = match self.modulation {
            Modulation::Add => inputs[0].broadcast_add(&inputs[1].reshape((b, 1, 1, c))?)?,
            _ => inputs[0].clone(),
        };
        let x = x.reshape((b, h * w, g, per))?.transpose(1, 2)?.reshape((b, g, h * w * per))?;
        let n = (h * w * per) as f64;
        let x = x.broadcast_sub(&(x.sum_keepdim(D::Minus1)? / n)?)?;
        let var = (x.sqr()?.sum_keepdim(D::Minus1)? / n)?;
        let x = x.broadcast_div(&(var + self.eps)?.sqrt()?)?;
        let x = x.reshape((b, g, h * w, per))?.transpose(1, 2)?.reshape((b, h, w, c))?;
        let x = x.broadcast_mul(&weights[0])?.broadcast_add(&weights[1])?;
        let x = match self.modulation {
            Modulation::ScaleShift => {
                let e = inputs[1].reshape((b, 1, 1, 2 * c))?;
                let scale = (e.narrow(3, 0, c)? + 1.0)?;
                x.broadcast_mul(&scale)?.broadcast_add(&e.narrow(3, c, c)?)?
            }
            _ => x,
        };
        if self.silu { x.silu() } else { Ok(x) }
    }
    fn detail(&self) -> String {
        let silu = if self.silu { ", silu" } else { "" };
        format!("{} channels in {} groups, eps {:e}, {:?}{silu}", self.channels, self.groups, self.eps, self.modulation)
    }
    fn gpu(&self) -> Option<&dyn Gpu> {
        Some(self)
    }
}
