//! The closed-form denoiser of one Gaussian with a diagonal covariance.
use super::query::{self, Coefs, times};
use super::{Denoiser, InputGrad, Prediction, Pullback, Query, State};
use crate::host::Host;
use crate::noise::Noise;
use crate::{Error, Kind, Result};
use candle_core::{D, DType, Tensor};
use std::rc::Rc;

/// The exact denoiser of x_0 ~ N(μ, diag(s²)): x̂_0 = μ + α s²/v (x − α μ) and ε̂ = σ/v (x − α μ), with v = α² s² + σ².
/// Computed in f64; gradients in x and t are analytic.
pub struct Gaussian(Rc<Parts>);

struct Parts {
    /// [1, d], f64.
    mean: Tensor,
    /// s², [1, d] or [1, 1], f64.
    var: Tensor,
    shape: Vec<usize>,
    noise: Noise,
}

/// A batch with its levels: r = x − α μ [B, d], α and σ [B or 1, 1], v [B or 1, d or 1].
struct Batch {
    r: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    v: Tensor,
}

impl Gaussian {
    /// From a mean of one sample's shape and standard deviations: of the same shape, or a single number; all ≥ 0.
    pub fn new(mean: &Tensor, std: &Tensor, noise: Noise) -> Result<Self> {
        let shape = mean.dims().to_vec();
        if mean.elem_count() == 0 {
            return Err(Error::shape("the mean of a Gaussian must have one sample's shape", &[&shape]));
        }
        if std.elem_count() != 1 && std.dims() != shape {
            let m = format!(
                "expected one standard deviation, or one per entry of the mean {shape:?}, got {:?}",
                std.dims()
            );
            return Err(Error::shape(m, &[&shape, std.dims()]));
        }
        let flat = |t: &Tensor| -> Result<Tensor> {
            let t = t.detach().to_device(mean.device())?.to_dtype(DType::F64)?.reshape((1, ()))?.contiguous()?;
            let finite = t.to_vec2::<f64>()?.concat().iter().all(|v| v.is_finite());
            if finite { Ok(t) } else { Err(Error::value("the mean or std contains NaN or infinity")) }
        };
        let (mean, std) = (flat(mean)?, flat(std)?);
        if std.min_all()?.to_scalar::<f64>()? < 0.0 {
            return Err(Error::value("a standard deviation must be ≥ 0"));
        }
        Ok(Gaussian(Rc::new(Parts { mean, var: std.sqr()?, shape, noise })))
    }
}

impl Parts {
    fn batch(&self, x: &Tensor, c: &Coefs<2>) -> Result<Batch> {
        let (alpha, sigma) = (c.column(0, x)?, c.column(1, x)?);
        let flat = x.to_dtype(DType::F64)?.reshape((x.dim(0)?, ()))?;
        let r = flat.broadcast_sub(&alpha.broadcast_mul(&self.mean)?)?;
        let v = alpha.sqr()?.broadcast_mul(&self.var)?.broadcast_add(&sigma.sqr()?)?;
        Ok(Batch { r, alpha, sigma, v })
    }
    /// ∂m/∂x: α s²/v or σ/v.
    fn gain(&self, b: &Batch, want: Prediction) -> Result<Tensor> {
        let top = match want {
            Prediction::Data => b.alpha.broadcast_mul(&self.var)?,
            Prediction::Noise => b.sigma.clone(),
        };
        Ok(top.broadcast_div(&b.v)?)
    }
    fn predict(&self, b: &Batch, want: Prediction) -> Result<Tensor> {
        let m = b.r.broadcast_mul(&self.gain(b, want)?)?;
        Ok(if want == Prediction::Data { m.broadcast_add(&self.mean)? } else { m })
    }
    fn pull(&self, b: &Batch, want: Prediction, bar: &Tensor) -> Result<(Tensor, [Vec<f64>; 2])> {
        let gain = self.gain(b, want)?;
        let x_bar = bar.broadcast_mul(&gain)?;
        let gap = b.alpha.sqr()?.broadcast_mul(&self.var)?.broadcast_sub(&b.sigma.sqr()?)?; // α² s² − σ²
        let cross = b.alpha.broadcast_mul(&self.var)?.broadcast_mul(&b.sigma)?.affine(-2.0, 0.0)?;
        let (by_alpha, by_sigma) = match want {
            Prediction::Data => (gap.neg()?.broadcast_mul(&self.var)?, cross),
            Prediction::Noise => (cross, gap),
        };
        let v2 = b.v.sqr()?;
        let slope = |top: Tensor| -> Result<Tensor> { Ok((bar * b.r.broadcast_mul(&top.broadcast_div(&v2)?)?)?) };
        // r itself falls with α by μ
        let alpha_bar = (slope(by_alpha)? - x_bar.broadcast_mul(&self.mean)?)?.sum(D::Minus1)?.to_vec1()?;
        let sigma_bar = slope(by_sigma)?.sum(D::Minus1)?.to_vec1()?;
        Ok((x_bar, [alpha_bar, sigma_bar]))
    }
    fn levels(&self, q: &Query) -> Result<(Tensor, Coefs<2>)> {
        crate::host::count_evaluation();
        let x = query::check(q, Some(&self.shape), Some(0))?;
        if !x.device().same_device(self.mean.device()) {
            let e = Error::new(Kind::Device, "the states are on another device than the denoiser's mean");
            return Err(e.hint("make the denoiser from tensors on the device of the states"));
        }
        let c = Coefs::new(q.t, "the noise schedule", |t| [self.noise.alpha(t), self.noise.sigma(t)])?;
        let least = self.var.min_all()?.to_scalar::<f64>()?;
        if let Some(s) = c.values(1).into_iter().find(|s| *s < 0.0 || (*s == 0.0 && least == 0.0)) {
            return Err(Error::value(format!("this denoiser needs σ > 0, not {s}")));
        }
        Ok((x, c))
    }
}

impl Denoiser for Gaussian {
    fn noise(&self) -> &Noise {
        &self.0.noise
    }
    fn describe(&self) -> String {
        format!("exact denoiser of a Gaussian {}, {}", times(&self.0.shape), self.0.noise.name())
    }
    fn hash(&self) -> Option<String> {
        let (mean, var) = (query::content(&self.0.mean).ok()?, query::content(&self.0.var).ok()?);
        let how = format!("gaussian {:?} {}", self.0.shape, self.0.noise.spec());
        Some(query::digest(&[how.as_bytes(), mean.as_bytes(), var.as_bytes()]))
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        Some(self.0.shape.clone())
    }
    fn eval(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        let (x, c) = self.0.levels(q)?;
        let m = self.0.predict(&self.0.batch(&x, &c)?, want)?;
        Ok(m.reshape(x.shape())?.to_dtype(x.dtype())?.into())
    }
    fn linearize(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let (x, c) = self.0.levels(q)?;
        let b = self.0.batch(&x, &c)?;
        let m = self.0.predict(&b, want)?.reshape(x.shape())?.to_dtype(x.dtype())?;
        let this = self.0.clone();
        let pull: Pullback = Box::new(move |_, bar| {
            let bar = bar.tensor()?.detach().to_dtype(DType::F64)?.reshape((x.dim(0)?, ()))?;
            let (x_bar, levels) = this.pull(&b, want, &bar)?;
            Ok(InputGrad { x: x_bar.reshape(x.shape())?.to_dtype(x.dtype())?.into(), t: c.pull(levels) })
        });
        Ok((m.into(), pull))
    }
}
