//! Shared by the solver tests: an exact Gaussian-mixture denoiser, and a counter of evaluations.
use candle_core::{DType, Device, Tensor, Var};
use ld3sh::denoise::{Denoiser, DynDenoiser, InputGrad, Prediction, Pullback, Query, State};
use ld3sh::host::{Host, Quiet};
use ld3sh::noise::Noise;
use ld3sh::real::Tape;
use ld3sh::{Error, Kind, Result};
use std::cell::Cell;
use std::rc::Rc;

/// The exact posterior mean of a mixture of isotropic Gaussians, written with candle operations.
pub struct Gmm {
    pub noise: Noise,
    pub means: Tensor,
    pub stds: Vec<f64>,
    pub weights: Vec<f64>,
    pub evals: Cell<usize>,
    pub linearized: Cell<usize>,
}

impl Gmm {
    pub fn new(noise: Noise, means: Tensor, stds: Vec<f64>, weights: Vec<f64>) -> Rc<Gmm> {
        Rc::new(Gmm { noise, means, stds, weights, evals: Cell::new(0), linearized: Cell::new(0) })
    }
    /// x̂_0 or ε̂ at x [B, …] under α, σ given as scalar tensors.
    fn predict(&self, x: &Tensor, alpha: &Tensor, sigma: &Tensor, want: Prediction) -> candle_core::Result<Tensor> {
        let n = self.stds.len();
        let b = x.dim(0)?;
        let d = x.elem_count() / b;
        let dt = x.dtype();
        let flat = x.reshape((b, 1, d))?;
        let means = self.means.reshape((1, n, d))?.to_dtype(dt)?;
        let var = Tensor::new(self.stds.iter().map(|s| s * s).collect::<Vec<_>>(), x.device())?.to_dtype(dt)?;
        let logw = Tensor::new(self.weights.iter().map(|w| w.ln()).collect::<Vec<_>>(), x.device())?.to_dtype(dt)?;
        let total = (var.broadcast_mul(&alpha.sqr()?)?.broadcast_add(&sigma.sqr()?))?;
        let diff = flat.broadcast_sub(&means.broadcast_mul(alpha)?)?;
        let sq = diff.sqr()?.sum(2)?;
        let logp = (sq.broadcast_div(&(&total * 2.0)?)?.neg()?.broadcast_add(&logw)?)
            .broadcast_sub(&(total.log()? * (d as f64 / 2.0))?)?;
        let logp = logp.broadcast_sub(&logp.max_keepdim(1)?.detach())?;
        let p = logp.exp()?;
        let p = p.broadcast_div(&p.sum_keepdim(1)?)?.unsqueeze(2)?;
        let gain = var.broadcast_mul(alpha)?.broadcast_div(&total)?.reshape((1, n, 1))?;
        let post = means.broadcast_add(&diff.broadcast_mul(&gain)?)?;
        let x0 = post.broadcast_mul(&p)?.sum(1)?.reshape(x.shape())?;
        match want {
            Prediction::Data => Ok(x0),
            Prediction::Noise => x.broadcast_sub(&x0.broadcast_mul(alpha)?)?.broadcast_div(sigma),
        }
    }
    fn coefficients(&self, t: f64, dtype: DType) -> candle_core::Result<([Var; 2], [f64; 2])> {
        let tape = Tape::new();
        let leaf = tape.leaf(t);
        let (a, s) = (self.noise.alpha(&leaf), self.noise.sigma(&leaf));
        let d = [tape.backward(&[(&a, 1.0)]).of(&leaf), tape.backward(&[(&s, 1.0)]).of(&leaf)];
        let var = |v: f64| Var::from_tensor(&Tensor::new(v, &Device::Cpu)?.to_dtype(dtype)?);
        Ok(([var(a.v())?, var(s.v())?], d))
    }
}

impl Denoiser for Gmm {
    fn noise(&self) -> &Noise {
        &self.noise
    }
    fn describe(&self) -> String {
        "test mixture".into()
    }
    fn hash(&self) -> Option<String> {
        None
    }
    fn eval(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        self.evals.set(self.evals.get() + 1);
        let x = q.x.tensor()?;
        let ([a, s], _) = self.coefficients(q.t[0], x.dtype())?;
        Ok(self.predict(&x.detach(), &a.as_tensor().detach(), &s.as_tensor().detach(), want)?.into())
    }
    fn linearize(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        self.linearized.set(self.linearized.get() + 1);
        let x = Var::from_tensor(&q.x.tensor()?.detach())?;
        let ([a, s], [da, ds]) = self.coefficients(q.t[0], x.dtype())?;
        let y = self.predict(x.as_tensor(), a.as_tensor(), s.as_tensor(), want)?;
        let out = y.detach();
        let pull: Pullback = Box::new(move |_, cot| {
            let g = (&y * cot.tensor()?)?.sum_all()?.backward()?;
            let scalar = |v: &Var| -> Result<f64> {
                match g.get(v.as_tensor()) {
                    Some(g) => Ok(g.to_dtype(DType::F64)?.sum_all()?.to_scalar()?),
                    None => Ok(0.0),
                }
            };
            let t = scalar(&a)? * da + scalar(&s)? * ds;
            let gx = g.get(x.as_tensor()).ok_or_else(|| Error::new(Kind::Internal, "no gradient"))?;
            Ok(InputGrad { x: gx.into(), t: vec![t] })
        });
        Ok((out.into(), pull))
    }
}

pub fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}
/// The largest difference, relative to the largest value (at least 1e-300).
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().all(|x| x.is_finite()), "{a:?}");
    let scale = b.iter().fold(1e-300f64, |m, x| m.max(x.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / scale
}
pub const HOST: Quiet = Quiet;
pub fn dynamic(net: &Rc<Gmm>) -> DynDenoiser {
    net.clone()
}
