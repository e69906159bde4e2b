//! Closed-form denoisers: Gaussian mixtures, and the empirical distribution of a data set (a mixture of points).
use super::query::{self, Coefs, times};
use super::{Denoiser, InputGrad, Prediction, Pullback, Query, State};
use crate::host::{Host, check_cancelled};
use crate::noise::Noise;
use crate::{Error, Kind, Result};
use candle_core::{D, DType, Tensor};
use std::cell::OnceCell;
use std::rc::Rc;

/// Up to this many components, |x − α μ_k|² is summed directly; above, by a matrix product (|x|² − 2α⟨x, μ_k⟩ + α²|μ_k|²).
const DIRECT: usize = 64;
/// The most f64 values in one temporary.
const BLOCK: usize = 1 << 22;

/// Σ_k w_k N(μ_k, s_k² I), the s_k possibly 0. All arithmetic is f64, whatever x's dtype.
struct Components {
    /// [K, d], in the dtype that was given; converted to f64 block by block.
    means: Tensor,
    /// |μ_k|², [1, K].
    norm2: Tensor,
    /// s_k², [1, K]; [1, 1] where all are equal.
    var: Tensor,
    /// The smallest s_k².
    least: f64,
    /// ln w_k, [1, K]; absent where all are equal.
    log_w: Option<Tensor>,
    /// One sample's shape.
    shape: Vec<usize>,
    noise: Noise,
    /// Of all values above, made when first asked for.
    content: OnceCell<Option<String>>,
}

/// The exact denoiser of a mixture of isotropic Gaussians: posterior mean of x_0, or of ε, given x_t = α x_0 + σ ε
/// with x_0 ~ Σ_k w_k N(μ_k, s_k² I). Computed in f64; gradients in x and t are analytic.
pub struct Mixture(Rc<Components>);

/// The exact denoiser of a finite data set: the posterior mean is a softmax-weighted mean of the data
/// (σ > 0). Computed in f64, in blocks of bounded memory; gradients in x and t are analytic.
pub struct Empirical(Rc<Components>);

impl Mixture {
    /// From means [K, …], standard deviations (one, or one per component, ≥ 0) and weights (none: equal; normalized here).
    pub fn new(means: &Tensor, stds: &[f64], weights: Option<&[f64]>, noise: Noise) -> Result<Self> {
        let k = means.dims().first().copied().unwrap_or(0);
        if stds.len() != k && stds.len() != 1 {
            let m = format!("expected {k} standard deviations, one per mean, got {}", stds.len());
            return Err(Error::shape(m, &[means.dims(), &[stds.len()]]));
        }
        if let Some(s) = stds.iter().find(|s| !(s.is_finite() && **s >= 0.0)) {
            return Err(Error::value(format!("a standard deviation must be a number ≥ 0, not {s}")));
        }
        if let Some(w) = weights {
            if w.len() != k {
                let m = format!("expected {k} weights, one per mean, got {}", w.len());
                return Err(Error::shape(m, &[means.dims(), &[w.len()]]));
            }
            if let Some(w) = w.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
                return Err(Error::value(format!("a weight must be a number ≥ 0, not {w}")));
            }
            if w.iter().sum::<f64>() <= 0.0 {
                return Err(Error::value("at least one weight must be above 0"));
            }
        }
        Ok(Mixture(Components::new(means, stds, weights, noise)?))
    }
}

impl Empirical {
    /// From data [M, …].
    pub fn new(data: &Tensor, noise: Noise) -> Result<Self> {
        Ok(Empirical(Components::new(data, &[0.0], None, noise)?))
    }
}

/// The posterior over components of a block of samples.
struct Posterior {
    /// p_k, [b, K].
    p: Tensor,
    /// |x − α μ_k|², [b, K].
    r2: Tensor,
    /// α² s_k² + σ², [b or 1, K or 1].
    v: Tensor,
}

/// A block of samples with its levels: x [b, d], α and σ [b or 1, 1].
struct Rows {
    x: Tensor,
    alpha: Tensor,
    sigma: Tensor,
}

impl Components {
    fn new(means: &Tensor, stds: &[f64], weights: Option<&[f64]>, noise: Noise) -> Result<Rc<Self>> {
        let dims = means.dims();
        if dims.len() < 2 || means.elem_count() == 0 {
            let e = Error::shape("expected a tensor [K, …] of at least one sample", &[dims]);
            return Err(e.hint("the first dimension counts the components or data, the others are one sample's shape"));
        }
        let (k, shape) = (dims[0], dims[1..].to_vec());
        let float = matches!(means.dtype(), DType::F32 | DType::F64);
        let means = if float { means.detach() } else { means.detach().to_dtype(DType::F32)? };
        let means = means.reshape((k, ()))?.contiguous()?;
        let dev = means.device().clone();
        let blocks = blocks(k, means.dim(1)?)
            .map(|(at, n)| Ok(means.narrow(0, at, n)?.to_dtype(DType::F64)?.sqr()?.sum_keepdim(1)?))
            .collect::<Result<Vec<_>>>()?;
        let norm2 = Tensor::cat(&blocks, 0)?.t()?.contiguous()?;
        if !norm2.sum_all()?.to_scalar::<f64>()?.is_finite() {
            return Err(Error::value("the means or data contain NaN or infinity"));
        }
        let uniform = stds.iter().all(|s| *s == stds[0]);
        let var: Vec<f64> = stds.iter().take(if uniform { 1 } else { k }).map(|s| s * s).collect();
        let least = var.iter().copied().fold(f64::INFINITY, f64::min);
        let var = Tensor::from_slice(&var, (1, var.len()), &dev)?;
        let log_w = match weights {
            Some(w) if w.iter().any(|x| *x != w[0]) => {
                let sum: f64 = w.iter().sum();
                let log: Vec<f64> = w.iter().map(|w| (w / sum).ln()).collect();
                Some(Tensor::from_vec(log, (1, k), &dev)?)
            }
            _ => None,
        };
        Ok(Rc::new(Components { means, norm2, var, least, log_w, shape, noise, content: OnceCell::new() }))
    }
    fn count(&self) -> usize {
        self.means.dims()[0]
    }
    fn size(&self) -> usize {
        self.means.dims()[1]
    }
    /// a μᵀ, [b, K].
    fn onto_means(&self, a: &Tensor) -> Result<Tensor> {
        let parts = blocks(self.count(), self.size())
            .map(|(at, n)| Ok(a.matmul(&self.means.narrow(0, at, n)?.to_dtype(DType::F64)?.t()?)?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }
    /// Σ_k c_k μ_k, [b, d], for c [b, K].
    fn combine(&self, c: &Tensor) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (at, n) in blocks(self.count(), self.size()) {
            check_cancelled()?;
            let part = c.narrow(1, at, n)?.contiguous()?.matmul(&self.means.narrow(0, at, n)?.to_dtype(DType::F64)?)?;
            sum = Some(match sum {
                Some(s) => (s + part)?,
                None => part,
            });
        }
        sum.ok_or_else(|| Error::new(Kind::Internal, "a mixture without components"))
    }
    /// |x − α μ_k|², [b, K].
    fn distances(&self, r: &Rows) -> Result<Tensor> {
        if self.count() <= DIRECT {
            let means = self.means.to_dtype(DType::F64)?;
            let each = (0..self.count())
                .map(|k| {
                    let scaled = r.alpha.broadcast_mul(&means.narrow(0, k, 1)?)?;
                    Ok(r.x.broadcast_sub(&scaled)?.sqr()?.sum_keepdim(1)?)
                })
                .collect::<Result<Vec<_>>>()?;
            return Ok(Tensor::cat(&each, 1)?);
        }
        let cross = self.onto_means(&r.x)?.broadcast_mul(&r.alpha)?;
        let own = r.alpha.sqr()?.broadcast_mul(&self.norm2)?;
        let r2 = (cross.affine(-2.0, 0.0)?.broadcast_add(&own))?.broadcast_add(&r.x.sqr()?.sum_keepdim(1)?)?;
        Ok(r2.relu()?) // rounding may leave a tiny negative number
    }
    fn posterior(&self, r: &Rows) -> Result<Posterior> {
        check_cancelled()?;
        let r2 = self.distances(r)?;
        let v = r.alpha.sqr()?.broadcast_mul(&self.var)?.broadcast_add(&r.sigma.sqr()?)?;
        let mut l = r2.broadcast_div(&v.affine(-2.0, 0.0)?)?;
        if self.var.elem_count() > 1 {
            l = l.broadcast_sub(&v.log()?.affine(0.5 * self.size() as f64, 0.0)?)?;
        }
        if let Some(w) = &self.log_w {
            l = l.broadcast_add(w)?;
        }
        let p = l.broadcast_sub(&l.max_keepdim(1)?)?.exp()?;
        let p = p.broadcast_div(&p.sum_keepdim(1)?)?;
        Ok(Posterior { p, r2, v })
    }
    /// A and B of component k's own prediction A_k x + B_k μ_k, [b or 1, K or 1].
    fn parts(&self, r: &Rows, v: &Tensor, want: Prediction) -> Result<[Tensor; 2]> {
        let (a, b) = match want {
            Prediction::Data => (r.alpha.broadcast_mul(&self.var)?, r.sigma.sqr()?),
            Prediction::Noise => (r.sigma.clone(), (&r.alpha * &r.sigma)?.neg()?),
        };
        Ok([a.broadcast_div(v)?, b.broadcast_div(v)?])
    }
    /// ∂A/∂α, ∂A/∂σ, ∂B/∂α, ∂B/∂σ.
    fn part_slopes(&self, r: &Rows, v: &Tensor, want: Prediction) -> Result<[Tensor; 4]> {
        let (a, s, v2) = (&r.alpha, &r.sigma, v.sqr()?);
        let a2 = a.sqr()?.broadcast_mul(&self.var)?;
        let gap = a2.broadcast_sub(&s.sqr()?)?; // α² s_k² − σ²
        let as_var = a.broadcast_mul(&self.var)?;
        let slopes = match want {
            Prediction::Data => [
                gap.neg()?.broadcast_mul(&self.var)?,
                as_var.broadcast_mul(s)?.affine(-2.0, 0.0)?,
                as_var.broadcast_mul(&s.sqr()?)?.affine(-2.0, 0.0)?,
                a2.broadcast_mul(s)?.affine(2.0, 0.0)?,
            ],
            Prediction::Noise => [
                as_var.broadcast_mul(s)?.affine(-2.0, 0.0)?,
                gap.clone(),
                gap.broadcast_mul(s)?,
                gap.broadcast_mul(a)?.neg()?,
            ],
        };
        let [aa, as_, ba, bs] = slopes;
        Ok([aa.broadcast_div(&v2)?, as_.broadcast_div(&v2)?, ba.broadcast_div(&v2)?, bs.broadcast_div(&v2)?])
    }
    /// The prediction for a block, [b, d].
    fn predict(&self, r: &Rows, want: Prediction) -> Result<Tensor> {
        let post = self.posterior(r)?;
        let [a, b] = self.parts(r, &post.v, want)?;
        let own = r.x.broadcast_mul(&post.p.broadcast_mul(&a)?.sum_keepdim(1)?)?;
        Ok((own + self.combine(&post.p.broadcast_mul(&b)?)?)?)
    }
    /// The cotangents of x [b, d], α and σ (each [b]) for the cotangent `c` [b, d] of the prediction.
    fn pull(&self, r: &Rows, want: Prediction, c: &Tensor) -> Result<(Tensor, Vec<f64>, Vec<f64>)> {
        let Posterior { p, r2, v } = self.posterior(r)?;
        let [a, b] = self.parts(r, &v, want)?;
        let (cx, cm) = ((c * &r.x)?.sum_keepdim(1)?, self.onto_means(c)?);
        // component k contributes u_k to ⟨c, prediction⟩, and its log-weight gets the cotangent q_k
        let u = cm.broadcast_mul(&b)?.broadcast_add(&a.broadcast_mul(&cx)?)?;
        let q = (&p * u.broadcast_sub(&(&p * &u)?.sum_keepdim(1)?)?)?;
        let qv = q.broadcast_div(&v)?;
        let x_bar = (c.broadcast_mul(&p.broadcast_mul(&a)?.sum_keepdim(1)?)?
            - r.x.broadcast_mul(&qv.sum_keepdim(1)?)?)?
        .add(&self.combine(&qv)?.broadcast_mul(&r.alpha)?)?;

        // log-weight: −d/2 ln v − r²/2v, with ∂r²/∂α = −2⟨x − α μ, μ⟩
        let l_v = ((r2.broadcast_div(&v)? - self.size() as f64)? * 0.5)?.broadcast_div(&v)?;
        let along = self.onto_means(&r.x)?.broadcast_sub(&r.alpha.broadcast_mul(&self.norm2)?)?;
        let v_alpha = r.alpha.broadcast_mul(&self.var)?.affine(2.0, 0.0)?;
        let l_alpha = (l_v.broadcast_mul(&v_alpha)? + along.broadcast_div(&v)?)?;
        let l_sigma = l_v.broadcast_mul(&r.sigma.affine(2.0, 0.0)?)?;
        let [aa, as_, ba, bs] = self.part_slopes(r, &v, want)?;
        let bar = |l: Tensor, da: Tensor, db: Tensor| -> Result<Vec<f64>> {
            let own = cm.broadcast_mul(&db)?.broadcast_add(&da.broadcast_mul(&cx)?)?;
            Ok(((&q * l)? + (&p * own)?)?.sum(D::Minus1)?.to_vec1()?)
        };
        let (alpha_bar, sigma_bar) = (bar(l_alpha, aa, ba)?, bar(l_sigma, as_, bs)?);
        Ok((x_bar, alpha_bar, sigma_bar))
    }

    fn levels(&self, q: &Query) -> Result<(Tensor, Coefs<2>)> {
        let x = query::check(q, Some(&self.shape), Some(0))?;
        if !x.device().same_device(self.means.device()) {
            let e = Error::new(Kind::Device, "the states are on another device than the denoiser's data");
            return Err(e.hint("make the denoiser from tensors on the device of the states"));
        }
        let c = Coefs::new(q.t, "the noise schedule", |t| [self.noise.alpha(t), self.noise.sigma(t)])?;
        if let Some(s) = c.values(1).into_iter().find(|s| *s < 0.0 || (*s == 0.0 && self.least == 0.0)) {
            return Err(Error::value(format!("this denoiser needs σ > 0, not {s}")));
        }
        Ok((x, c))
    }
    /// The samples in blocks whose [b, K] temporaries stay below [`BLOCK`]: (first row, block).
    fn rows(&self, x: &Tensor, c: &Coefs<2>) -> Result<Vec<(usize, Rows)>> {
        let b = x.dim(0)?;
        let flat = x.to_dtype(DType::F64)?.reshape((b, ()))?.contiguous()?;
        let (alpha, sigma) = (c.column(0, x)?, c.column(1, x)?);
        let cut = |t: &Tensor, at, n| if t.dims()[0] == 1 { Ok(t.clone()) } else { t.narrow(0, at, n)?.contiguous() };
        blocks(b, self.count().max(self.size()))
            .map(|(at, n)| {
                let x = flat.narrow(0, at, n)?.contiguous()?;
                Ok((at, Rows { x, alpha: cut(&alpha, at, n)?, sigma: cut(&sigma, at, n)? }))
            })
            .collect()
    }
    fn eval(&self, q: &Query, want: Prediction) -> Result<Tensor> {
        let (x, c) = self.levels(q)?;
        self.predict_all(&x, &c, want)
    }
    fn predict_all(&self, x: &Tensor, c: &Coefs<2>, want: Prediction) -> Result<Tensor> {
        let parts = self.rows(x, c)?.iter().map(|(_, r)| self.predict(r, want)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?.reshape(x.shape())?.to_dtype(x.dtype())?)
    }
    /// The pull-back computes the posterior again rather than keep its [B, K] values.
    fn linearize(self: &Rc<Self>, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let (x, c) = self.levels(q)?;
        let m = self.predict_all(&x, &c, want)?;
        let this = self.clone();
        let pull: Pullback = Box::new(move |_, bar| {
            let bar = bar.tensor()?.detach().to_dtype(DType::F64)?.reshape((x.dim(0)?, ()))?;
            let (mut xs, mut alphas, mut sigmas) = (vec![], vec![], vec![]);
            for (at, r) in this.rows(&x, &c)? {
                let part = bar.narrow(0, at, r.x.dim(0)?)?.contiguous()?;
                let (x_bar, alpha_bar, sigma_bar) = this.pull(&r, want, &part)?;
                xs.push(x_bar);
                alphas.extend(alpha_bar);
                sigmas.extend(sigma_bar);
            }
            let x_bar = Tensor::cat(&xs, 0)?.reshape(x.shape())?.to_dtype(x.dtype())?;
            Ok(InputGrad { x: x_bar.into(), t: c.pull([alphas, sigmas]) })
        });
        Ok((m.into(), pull))
    }
    fn hash(&self, kind: &str) -> Option<String> {
        let content = || -> Result<String> {
            let (means, var) = (query::content(&self.means)?, query::content(&self.var)?);
            let w = self.log_w.as_ref().map_or(Ok(String::new()), query::content)?;
            Ok(query::digest(&[means.as_bytes(), var.as_bytes(), w.as_bytes()]))
        };
        let content = self.content.get_or_init(|| content().ok()).as_ref()?;
        let how = format!("{kind} {:?} {}", self.shape, self.noise.spec());
        Some(query::digest(&[how.as_bytes(), content.as_bytes()]))
    }
}

/// (first, count) of the blocks of `n` rows of `width` values that hold at most [`BLOCK`] values each.
fn blocks(n: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = (BLOCK / width.max(1)).max(1);
    (0..n).step_by(step).map(move |at| (at, step.min(n - at)))
}

macro_rules! closed_form {
    ($t:ident, $kind:literal, $what:literal) => {
        impl Denoiser for $t {
            fn noise(&self) -> &Noise {
                &self.0.noise
            }
            fn describe(&self) -> String {
                let (k, shape, noise) = (self.0.count(), times(&self.0.shape), self.0.noise.name());
                format!(concat!("exact denoiser of {} ", $what, " {}, {}"), k, shape, noise)
            }
            fn hash(&self) -> Option<String> {
                self.0.hash($kind)
            }
            fn sample_shape(&self) -> Option<Vec<usize>> {
                Some(self.0.shape.clone())
            }
            fn eval(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
                crate::host::count_evaluation();
                Ok(self.0.eval(q, want)?.into())
            }
            fn linearize(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
                crate::host::count_evaluation();
                self.0.linearize(q, want)
            }
        }
    };
}
closed_form!(Mixture, "mixture", "Gaussians");
closed_form!(Empirical, "empirical", "samples");
