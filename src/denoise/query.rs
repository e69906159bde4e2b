//! What every denoiser checks of a query, and per-sample coefficients of t with their pull-back.
use super::{Cond, Prediction, Query};
use crate::real::{Real, Tape};
use crate::{Error, Kind, Result};
use candle_core::{D, DType, Device, Tensor};
use sha2::{Digest, Sha256};

/// Checks dtype, shape, times and condition of a query. `shape` is one sample's, where fixed; `classes` is the width of
/// the condition rows (0: no condition is taken; `None`: anything goes). Returns x, which must be one Euclidean part, without candle's graph.
pub(crate) fn check(q: &Query, shape: Option<&[usize]>, classes: Option<usize>) -> Result<Tensor> {
    let x = q.x.tensor()?;
    let dims = x.dims();
    if !matches!(x.dtype(), DType::F32 | DType::F64) {
        let e = Error::new(Kind::Type, format!("a denoiser takes f32 or f64 states, not {}", x.dtype().as_str()));
        return Err(e.hint("convert with `x.to(\"f32\")`"));
    }
    let Some(batch) = dims.first().copied().filter(|_| x.elem_count() > 0) else {
        return Err(Error::shape("a denoiser takes states [B, …] with at least one sample", &[dims]));
    };
    if let Some(shape) = shape.filter(|s| **s != dims[1..]) {
        let e = Error::shape(format!("expected states [B, {}], got {dims:?}", list(shape)), &[shape, dims]);
        let one = *shape == *dims;
        return Err(if one { e.hint("add the batch dimension: `x.unsqueeze(0)`") } else { e });
    }
    if q.t.len() != 1 && q.t.len() != batch {
        let m = format!("expected one time or {batch} (one per sample), got {}", q.t.len());
        return Err(Error::shape(m, &[&[q.t.len()], dims]));
    }
    if let Some(t) = q.t.iter().find(|t| !t.is_finite()) {
        return Err(Error::value(format!("a denoiser was asked at time {t}")));
    }
    if classes == Some(0) && !matches!(q.cond, Cond::None) {
        return Err(Error::value("this denoiser takes no condition").hint("leave `cond` out"));
    }
    if let Cond::Named(all) = q.cond
        && let Some((name, t)) = all.iter().find(|(_, t)| t.dims().first() != Some(&batch))
    {
        let what = if name == super::CLASSES { "condition rows".into() } else { format!("rows of `{name}`") };
        let m = format!("expected {batch} {what}, one per sample, got shape {:?}", t.dims());
        return Err(Error::shape(m, &[t.dims(), dims]));
    }
    if let Some(rows) = q.cond.rows() {
        match classes {
            Some(k) if rows.dims() != [batch, k] => {
                let m = format!("expected condition rows [{batch}, {k}] (one-hot), got shape {:?}", rows.dims());
                return Err(Error::shape(m, &[&[batch, k], rows.dims()]).hint("make them with `net.cond([3, 5, …])`"));
            }
            _ => {}
        }
    }
    Ok(x.detach())
}

/// `1, 28, 28` for messages.
pub(crate) fn list(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// `1×28×28` for descriptions.
pub(crate) fn times(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// The SHA-256 of a list of parts, as hex; parts cannot run into each other.
pub(crate) fn digest(parts: &[&[u8]]) -> String {
    let mut h = Sha256::new();
    for p in parts {
        h.update((p.len() as u64).to_le_bytes());
        h.update(p);
    }
    hex(h)
}

/// The SHA-256 of a tensor's dtype, shape and values, as hex.
pub(crate) fn content(t: &Tensor) -> Result<String> {
    let head = format!("{} {:?}", t.dtype().as_str(), t.dims());
    let values = t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let mut h = Sha256::new();
    h.update(head);
    values.iter().for_each(|v| h.update(v.to_le_bytes()));
    Ok(hex(h))
}

fn hex(h: Sha256) -> String {
    h.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// N coefficients as functions of each of a query's times (one time for all samples, or one per sample), remembered on
/// a tape so that cotangents of the coefficients become cotangents of the times.
pub(crate) struct Coefs<const N: usize> {
    tape: Tape,
    t: Vec<Real>,
    c: Vec<[Real; N]>,
}

impl<const N: usize> Coefs<N> {
    /// Evaluates `f` at each time; fails where a coefficient is not finite.
    pub(crate) fn new(t: &[f64], what: &str, f: impl Fn(&Real) -> [Real; N]) -> Result<Self> {
        let tape = Tape::new();
        let t = tape.leaves(t);
        let c: Vec<[Real; N]> = t.iter().map(f).collect();
        for (t, c) in t.iter().zip(&c) {
            if c.iter().any(|c| !c.v().is_finite()) {
                let m = format!("{what} has no finite value at time {} of this noise schedule", t.v());
                return Err(Error::value(m).hint("keep times inside the schedule's range, where σ > 0"));
            }
        }
        Ok(Coefs { tape, t, c })
    }
    /// Coefficient `i` at each time.
    pub(crate) fn values(&self, i: usize) -> Vec<f64> {
        self.c.iter().map(|c| c[i].v()).collect()
    }
    /// Coefficient `i` for each of `batch` samples.
    pub(crate) fn rows(&self, i: usize, batch: usize) -> Vec<f64> {
        if self.c.len() == 1 { vec![self.c[0][i].v(); batch] } else { self.values(i) }
    }
    /// Coefficient `i` as an f64 column [T, 1] (T times) on the device of `like`.
    pub(crate) fn column(&self, i: usize, like: &Tensor) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.values(i), (self.c.len(), 1), like.device())?)
    }
    /// `x`, each sample times its coefficient `i`.
    pub(crate) fn scale(&self, i: usize, x: &Tensor) -> Result<Tensor> {
        scale_rows(x, &self.values(i))
    }
    /// From cotangents of the coefficients, per sample or per time, to those of the times.
    pub(crate) fn pull(&self, bars: [Vec<f64>; N]) -> Vec<f64> {
        let mut seeds = Vec::with_capacity(N * self.c.len());
        for (i, bar) in bars.iter().enumerate() {
            if self.c.len() == 1 {
                seeds.push((&self.c[0][i], bar.iter().sum()));
            } else {
                seeds.extend(self.c.iter().map(|c| &c[i]).zip(bar.iter().copied()));
            }
        }
        let g = self.tape.backward(&seeds);
        self.t.iter().map(|t| g.of(t)).collect()
    }
}

/// `x` [B, …] times `c`, of length 1 or B.
pub(crate) fn scale_rows(x: &Tensor, c: &[f64]) -> Result<Tensor> {
    if let [c] = c {
        return Ok(if *c == 1.0 { x.clone() } else { x.affine(*c, 0.0)? });
    }
    let mut shape = vec![1; x.rank()];
    shape[0] = c.len();
    let c = Tensor::from_slice(c, shape, x.device())?.to_dtype(x.dtype())?;
    Ok(x.broadcast_mul(&c)?)
}

/// ⟨a_b, b_b⟩ for each sample [B], summed in f64.
pub(crate) fn products(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let p = (a.to_dtype(DType::F64)? * b.to_dtype(DType::F64)?)?;
    Ok(p.reshape((a.dim(0)?, ()))?.sum(D::Minus1)?)
}

/// The same on the host.
pub(crate) fn dots(a: &Tensor, b: &Tensor) -> Result<Vec<f64>> {
    Ok(products(a, b)?.to_vec1()?)
}

/// f64 rows [B] of one device on the host, with one transfer.
pub(crate) fn read<const N: usize>(rows: [Tensor; N]) -> Result<[Vec<f64>; N]> {
    let mut all = Tensor::stack(&rows, 0)?.to_vec2()?.into_iter();
    Ok(std::array::from_fn(|_| all.next().unwrap_or_default()))
}

/// What a value is called in messages.
pub(crate) fn name(want: Prediction) -> &'static str {
    match want {
        Prediction::Data => "the data prediction",
        Prediction::Noise => "the noise prediction",
    }
}
