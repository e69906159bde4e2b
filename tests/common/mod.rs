//! Shared by the solver tests: small noise schedules, an exact Gaussian-mixture denoiser, and a counter of evaluations.
use candle_core::{DType, Device, Tensor, Var};
use ld3sh::denoise::{Cond, Denoiser, DynDenoiser, InputGrad, Prediction, Pullback, Query};
use ld3sh::host::{Host, Quiet};
use ld3sh::noise::{Noise, NoiseSchedule};
use ld3sh::real::{Real, Tape};
use ld3sh::{Error, Kind, Result};
use std::cell::Cell;
use std::rc::Rc;

/// A noise schedule from ln α, ln σ and the inverse of λ.
pub struct Simple {
    pub name: &'static str,
    pub ends: (f64, f64),
    pub ve: bool,
}

/// √β linear, as Stable Diffusion: ln α_n at the 1000 training steps, t = n/1000.
fn sd_knots() -> Vec<f64> {
    let (a, b) = (0.00085f64.sqrt(), 0.012f64.sqrt());
    let mut sum = 0.0;
    (0..1000)
        .map(|i| {
            let beta = (a + (b - a) * f64::from(i) / 999.0).powi(2);
            sum += 0.5 * (-beta).ln_1p();
            sum
        })
        .collect()
}

thread_local! { static KNOTS: Vec<f64> = sd_knots(); }

fn slope_at(t: f64) -> (usize, f64) {
    let i = ((t * 1000.0 - 1.0).floor().max(0.0) as usize).min(998);
    (i, KNOTS.with(|k| (k[i + 1] - k[i]) * 1000.0))
}

impl Simple {
    pub fn make(name: &str) -> Noise {
        Rc::new(match name {
            "ve_edm" => Simple { name: "ve_edm", ends: (80.0, 0.002), ve: true },
            "vp_linear" => Simple { name: "vp_linear", ends: (1.0, 1e-3), ve: false },
            "vp_discrete_sd" => Simple { name: "vp_discrete_sd", ends: (1.0, 1e-3), ve: false },
            "flow" => Simple { name: "flow", ends: (1.0, 0.0), ve: true },
            other => panic!("{other}"),
        })
    }
}

impl NoiseSchedule for Simple {
    fn name(&self) -> &str {
        self.name
    }
    fn spec(&self) -> serde_json::Value {
        serde_json::json!(self.name)
    }
    fn t_max(&self) -> f64 {
        self.ends.0
    }
    fn t_min(&self) -> f64 {
        self.ends.1
    }
    fn log_alpha(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" => 0.0.into(),
            "vp_linear" => t.square() * (-0.25 * 19.9) - t * 0.05,
            "flow" => (1.0 - t).ln(),
            _ => {
                let (i, slope) = slope_at(t.v());
                (t - (i + 1) as f64 / 1000.0) * slope + KNOTS.with(|k| k[i])
            }
        }
    }
    fn log_sigma(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" | "flow" => t.ln(),
            _ => (-(self.log_alpha(t) * 2.0).exp_m1()).ln() * 0.5,
        }
    }
    fn dlog_alpha(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" => 0.0.into(),
            "vp_linear" => t * (-0.5 * 19.9) - 0.05,
            "flow" => -1.0 / (1.0 - t),
            _ => slope_at(t.v()).1.into(),
        }
    }
    fn dlambda(&self, t: &Real) -> Real {
        match self.name {
            "ve_edm" => -1.0 / t,
            "flow" => -1.0 / (1.0 - t) - 1.0 / t,
            _ => self.dlog_alpha(t) / self.sigma(t).square(),
        }
    }
    fn inverse_lambda(&self, l: &Real) -> Real {
        match self.name {
            "ve_edm" => (-l).exp(),
            "flow" => 1.0 / (l.exp() + 1.0),
            _ => {
                // ln α = −½ ln(1 + e^(−2λ))
                let la = (l * -2.0).exp().ln_1p() * -0.5;
                if self.name == "vp_linear" {
                    let root = (0.05f64.powi(2) - la * (4.0 * 0.25 * 19.9)).sqrt();
                    return (root - 0.05) / (2.0 * 0.25 * 19.9).into_real();
                }
                KNOTS.with(|k| {
                    let i = k.partition_point(|x| *x > la.v()).clamp(1, 999) - 1;
                    (la - k[i]) / ((k[i + 1] - k[i]) * 1000.0).into_real() + (i + 1) as f64 / 1000.0
                })
            }
        }
    }
    fn prior_std(&self, t: f64) -> f64 {
        if self.ve { t } else { 1.0 }
    }
    fn alpha(&self, t: &Real) -> Real {
        match self.name {
            "flow" => 1.0 - t,
            _ => self.log_alpha(t).exp(),
        }
    }
    fn sigma(&self, t: &Real) -> Real {
        if self.ve { t.clone() } else { self.log_sigma(t).exp() }
    }
}

pub trait IntoReal {
    fn into_real(self) -> Real;
}
impl IntoReal for f64 {
    fn into_real(self) -> Real {
        self.into()
    }
}

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
    /// A mixture of three in 2 dimensions [1, 1, 2].
    pub fn small(noise: Noise) -> Rc<Gmm> {
        let means = Tensor::new(&[[1.0, -0.5], [-1.2, 0.3], [0.2, 1.4]], &Device::Cpu).unwrap();
        Gmm::new(noise, means.reshape((3, 1, 1, 2)).unwrap(), vec![0.3, 0.5, 0.2], vec![0.5, 0.3, 0.2])
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
    fn eval(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<Tensor> {
        self.evals.set(self.evals.get() + 1);
        let ([a, s], _) = self.coefficients(q.t[0], q.x.dtype())?;
        Ok(self.predict(&q.x.detach(), &a.as_tensor().detach(), &s.as_tensor().detach(), want)?)
    }
    fn linearize(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<(Tensor, Pullback)> {
        self.linearized.set(self.linearized.get() + 1);
        let x = Var::from_tensor(&q.x.detach())?;
        let ([a, s], [da, ds]) = self.coefficients(q.t[0], q.x.dtype())?;
        let y = self.predict(x.as_tensor(), a.as_tensor(), s.as_tensor(), want)?;
        let out = y.detach();
        let pull: Pullback = Box::new(move |_, cot| {
            let g = (&y * cot)?.sum_all()?.backward()?;
            let scalar = |v: &Var| -> Result<f64> {
                match g.get(v.as_tensor()) {
                    Some(g) => Ok(g.to_dtype(DType::F64)?.sum_all()?.to_scalar()?),
                    None => Ok(0.0),
                }
            };
            let t = scalar(&a)? * da + scalar(&s)? * ds;
            let gx = g.get(x.as_tensor()).ok_or_else(|| Error::new(Kind::Internal, "no gradient"))?;
            Ok(InputGrad { x: gx.clone(), t: vec![t] })
        });
        Ok((out, pull))
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
