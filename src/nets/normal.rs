//! Layer and group norm of scripts: one pass for the moments and one for the values, and as few backwards, in f32 on the CPU.
use super::kernels::simd::dispatch;
use crate::tensor::custom::{Back, op};
use crate::tensor::nn;
use crate::{Error, Kind, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// How rows are scaled and shifted after they have mean 0 and variance 1.
#[derive(Clone, Copy)]
enum Scale {
    /// Each column by its own weight.
    Columns,
    /// Runs of `run` values by the weight of their channel; a row has `per` channels of `of`.
    Channels { run: usize, per: usize, of: usize },
}

/// Rows of `len` values, with what follows them.
#[derive(Clone, Copy)]
struct Rows {
    len: usize,
    scale: Scale,
    eps: f32,
}

/// Values that one task takes, at least.
const PIECE: usize = 1 << 15;
/// Values that are summed in f32 before the sum goes into f64.
const BLOCK: usize = 4096;

/// Σ f over two arrays: sixteen running sums, a fixed order that vectors can follow.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let mut all = 0.0;
    for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
        let mut lanes = [0f32; 16];
        for (a, b) in a.chunks(16).zip(b.chunks(16)) {
            lanes.iter_mut().zip(a).zip(b).for_each(|((l, a), b)| *l += f(*a, *b));
        }
        all += f64::from(lanes.iter().sum::<f32>());
    }
    all
}

#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f64;
    let mean = (sum(x, x, |x, _| x) / n) as f32;
    let var = sum(x, x, |x, _| (x - mean) * (x - mean)) / n;
    (mean, (1.0 / (var + f64::from(eps)).sqrt()) as f32)
}

impl Rows {
    /// The runs of row `r` that share a weight: where each begins, its length, its weight's place. One run of all for columns.
    #[inline(always)]
    fn runs(self, r: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let (run, per, first) = match self.scale {
            Scale::Columns => (self.len, 1, 0),
            Scale::Channels { run, per, of } => (run, per, r * per % of),
        };
        (0..per).map(move |k| (k * run, run, first + k))
    }
    fn by_column(self) -> bool {
        matches!(self.scale, Scale::Columns)
    }
    /// Rows of one task.
    fn piece(self) -> usize {
        PIECE.div_ceil(self.len).max(1)
    }
}

struct Forward<'a> {
    rows: Rows,
    first: usize,
    x: &'a [f32],
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Forward { rows, first, x, weight, bias, out } = self;
        for (r, (x, out)) in x.chunks_exact(rows.len).zip(out.chunks_exact_mut(rows.len)).enumerate() {
            let (mean, rstd) = moments(x, rows.eps);
            if rows.by_column() {
                match (weight, bias) {
                    (Some(w), Some(b)) => {
                        let all = out.iter_mut().zip(x).zip(w).zip(b);
                        all.for_each(|(((o, x), w), b)| *o = (x - mean) * rstd * w + b);
                    }
                    (Some(w), None) => out.iter_mut().zip(x).zip(w).for_each(|((o, x), w)| *o = (x - mean) * rstd * w),
                    (None, Some(b)) => out.iter_mut().zip(x).zip(b).for_each(|((o, x), b)| *o = (x - mean) * rstd + b),
                    (None, None) => out.iter_mut().zip(x).for_each(|(o, x)| *o = (x - mean) * rstd),
                }
                continue;
            }
            for (at, n, c) in rows.runs(first + r) {
                let (w, b) = (rstd * weight.map_or(1.0, |w| w[c]), bias.map_or(0.0, |b| b[c]));
                out[at..at + n].iter_mut().zip(&x[at..at + n]).for_each(|(o, x)| *o = (x - mean) * w + b);
            }
        }
    }
}

/// x̄ = rstd · (w ȳ − mean(w ȳ) − n · mean(w ȳ n)), n = (x − mean) · rstd; and what the rows add to the weight's and bias's gradients.
struct Backward<'a> {
    rows: Rows,
    first: usize,
    x: &'a [f32],
    weight: Option<&'a [f32]>,
    cot: &'a [f32],
    grad: Option<&'a mut [f32]>,
    weight_grad: &'a mut [f32],
    bias_grad: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Backward { rows, first, x, weight, cot, mut grad, weight_grad, bias_grad } = self;
        let len = rows.len;
        for (r, (x, cot)) in x.chunks_exact(len).zip(cot.chunks_exact(len)).enumerate() {
            let (mean, rstd) = moments(x, rows.eps);
            let normal = |x: f32| (x - mean) * rstd;
            if rows.by_column() {
                weight_grad.iter_mut().zip(cot).zip(x).for_each(|((s, g), x)| *s += g * normal(*x));
                bias_grad.iter_mut().zip(cot).for_each(|(s, g)| *s += g);
            } else {
                for (at, n, c) in rows.runs(first + r) {
                    if !weight_grad.is_empty() {
                        weight_grad[c] += sum(&cot[at..at + n], &x[at..at + n], |g, x| g * normal(x)) as f32;
                    }
                    if !bias_grad.is_empty() {
                        bias_grad[c] += sum(&cot[at..at + n], &cot[at..at + n], |g, _| g) as f32;
                    }
                }
            }
            let Some(grad) = grad.as_mut().map(|g| &mut g[r * len..][..len]) else { continue };
            if let (true, Some(w)) = (rows.by_column(), weight) {
                grad.iter_mut().zip(cot).zip(w).for_each(|((o, g), w)| *o = g * w);
            } else {
                for (at, n, c) in rows.runs(first + r) {
                    let w = weight.filter(|_| !rows.by_column()).map_or(1.0, |w| w[c]);
                    grad[at..at + n].iter_mut().zip(&cot[at..at + n]).for_each(|(o, g)| *o = g * w);
                }
            }
            let m1 = (sum(grad, grad, |u, _| u) / len as f64) as f32;
            let m2 = (sum(grad, x, |u, x| u * normal(x)) / len as f64) as f32;
            grad.iter_mut().zip(x).for_each(|(o, x)| *o = rstd * (*o - m1 - normal(*x) * m2));
        }
    }
}

/// The values of a contiguous f32 tensor on the CPU.
fn with_values<T>(t: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(v)) => Ok(f(&v[layout.start_offset()..][..t.elem_count()])),
        _ => Err(Error::new(Kind::Internal, "a norm of another type or device")),
    }
}

fn with_maybe<T>(t: Option<&Tensor>, f: impl FnOnce(Option<&[f32]>) -> T) -> Result<T> {
    match t {
        Some(t) => with_values(t, |v| f(Some(v))),
        None => Ok(f(None)),
    }
}

/// Whether this file takes them: all in f32 on the CPU.
fn takes(all: [Option<&Tensor>; 3]) -> bool {
    all.into_iter().flatten().all(|t| t.dtype() == DType::F32 && t.device().is_cpu() && t.elem_count() > 0)
}

fn normalized(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, rows: Rows) -> Result<Tensor> {
    let mut out = vec![0.0; x.elem_count()];
    let size = rows.piece() * rows.len;
    with_values(&x.detach(), |x| {
        with_maybe(weight.map(Tensor::detach).as_ref(), |weight| {
            with_maybe(bias.map(Tensor::detach).as_ref(), |bias| {
                x.par_chunks(size).zip(out.par_chunks_mut(size)).enumerate().for_each(|(i, (x, out))| {
                    dispatch(Forward { rows, first: i * rows.piece(), x, weight, bias, out });
                });
            })
        })
    })???;
    let out = Tensor::from_vec(out, x.shape(), &Device::Cpu)?;
    let (has_weight, has_bias) = (weight.is_some(), bias.is_some());
    let args: Vec<&Tensor> = [Some(x), weight, bias].into_iter().flatten().collect();
    op("norm", &args, out, move |b| pulled(b, rows, has_weight, has_bias))
}

/// The gradients of x, weight and bias, those that are there and wanted.
fn pulled(b: &Back, rows: Rows, has_weight: bool, has_bias: bool) -> Result<Vec<Option<Tensor>>> {
    let weight = has_weight.then(|| &b.args[1]);
    let place = |k: usize| b.want.get(k).copied().unwrap_or(false);
    let wanted = [place(0), has_weight && place(1), has_bias && place(1 + usize::from(has_weight))];
    let count = |k: usize, of: usize| if wanted[k] { b.args[of].elem_count() } else { 0 };
    let [weights, biases] = [count(1, 1.min(b.args.len() - 1)), count(2, b.args.len() - 1)];
    let mut grad = vec![0.0; if wanted[0] { b.args[0].elem_count() } else { 0 }];
    let (piece, size) = (rows.piece(), rows.piece() * rows.len);
    let sums = with_values(&b.args[0], |x| {
        with_values(b.g, |cot| {
            with_maybe(weight, |weight| {
                let one = |i: usize, x: &[f32], cot: &[f32], grad: Option<&mut [f32]>| {
                    let (mut w, mut bias) = (vec![0.0; weights], vec![0.0; biases]);
                    let (weight_grad, bias_grad) = (&mut w[..], &mut bias[..]);
                    let first = i * piece;
                    dispatch(Backward { rows, first, x, weight, cot, grad, weight_grad, bias_grad });
                    (w, bias)
                };
                let both = x.par_chunks(size).zip(cot.par_chunks(size));
                match wanted[0] {
                    true => {
                        let all = both.zip(grad.par_chunks_mut(size)).enumerate();
                        all.map(|(i, ((x, cot), grad))| one(i, x, cot, Some(grad))).collect::<Vec<_>>()
                    }
                    false => both.enumerate().map(|(i, (x, cot))| one(i, x, cot, None)).collect(),
                }
            })
        })
    })???;
    // in the order of the rows, whatever thread each was on
    let add = |to: &mut Vec<f32>, from: Vec<f32>| to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
    let (mut w, mut bias) = (vec![0.0; weights], vec![0.0; biases]);
    for (a, b) in sums {
        add(&mut w, a);
        add(&mut bias, b);
    }
    let tensor = |v: Vec<f32>, like: &Tensor| Tensor::from_vec(v, like.shape(), &Device::Cpu);
    let mut all = vec![if wanted[0] { Some(tensor(grad, &b.args[0])?) } else { None }];
    if has_weight {
        all.push(if wanted[1] { Some(tensor(w, &b.args[1])?) } else { None });
    }
    if has_bias {
        let like = &b.args[b.args.len() - 1];
        all.push(if wanted[2] { Some(tensor(bias, like)?) } else { None });
    }
    Ok(all)
}

/// [`nn::layer_norm`].
pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let k = weight.or(bias).map_or(1, |w| w.rank());
    let over = x.rank().checked_sub(k).map(|s| &x.dims()[s..]);
    let fits = |w: Option<&Tensor>| w.is_none_or(|w| Some(w.dims()) == over);
    let len: usize = over.iter().copied().flatten().product();
    if !takes([Some(x), weight, bias]) || over.is_none() || k == 0 || len == 0 || !fits(weight) || !fits(bias) {
        // which says what does not fit
        return nn::layer_norm(x, weight, bias, eps);
    }
    normalized(x, weight, bias, Rows { len, scale: Scale::Columns, eps: eps as f32 })
}

/// [`nn::group_norm`].
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let c = x.dims().get(1).copied().unwrap_or(0);
    let fits = |w: Option<&Tensor>| w.is_none_or(|w| w.dims() == [c]);
    if !takes([Some(x), weight, bias])
        || groups == 0
        || c == 0
        || !c.is_multiple_of(groups)
        || !fits(weight)
        || !fits(bias)
    {
        return nn::group_norm(x, groups, weight, bias, eps);
    }
    let run = x.dims()[2..].iter().product::<usize>();
    let per = c / groups;
    normalized(x, weight, bias, Rows { len: per * run, scale: Scale::Channels { run, per, of: c }, eps: eps as f32 })
}
