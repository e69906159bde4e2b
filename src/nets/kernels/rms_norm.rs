//! Frozen root-mean-square normalization of runs of channels: of each head's queries and keys.
use super::{Frozen, View, host_f32, pool};
use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

/// x / √(mean(x²) + eps) · weight over runs of as many channels as there are weights: [.., k·C] → the same. Or x / (√mean(x²) + eps).
pub struct RmsNorm {
    eps: f64,
    /// Whether eps is added to the root.
    beside: bool,
    weight: Tensor,
    gamma: Vec<f32>,
}

/// Runs that one task takes.
const PIECE: usize = 256;

impl RmsNorm {
    /// From a weight [C].
    pub fn new(weight: Tensor, eps: f64) -> Result<Self> {
        let gamma = host_f32(&weight)?;
        if gamma.is_empty() {
            candle_core::bail!("a norm of no channels");
        }
        Ok(RmsNorm { eps, beside: false, weight, gamma })
    }
    /// Without weights, over runs of `n` channels, with eps added to the root: what magnitude-preserving networks have.
    pub fn magnitude(n: usize, eps: f64, like: &Tensor) -> Result<Self> {
        let ones = Tensor::ones(n, like.dtype(), like.device())?;
        Ok(RmsNorm { beside: true, ..RmsNorm::new(ones, eps)? })
    }
    /// The reciprocal of a run's root mean square.
    fn scale(&self, x: &[f32]) -> f32 {
        let square: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let mean = square / x.len() as f64;
        match self.beside {
            true => (1.0 / (mean.sqrt() + self.eps)) as f32,
            false => (1.0 / (mean + self.eps).sqrt()) as f32,
        }
    }
    /// What the gradient along x is multiplied by, for a run of this scale.
    fn along(&self, r: f32) -> f32 {
        match self.beside {
            // the root itself is 1/r − eps; where it is 0, x is
            true => r / (1.0 / r - self.eps as f32).max(f32::MIN_POSITIVE),
            false => r * r,
        }
    }
}

impl Frozen for RmsNorm {
    fn name(&self) -> &'static str {
        "root-mean-square norm"
    }
    fn detail(&self) -> String {
        format!(
            "{} channels, eps {:e}{}",
            self.gamma.len(),
            self.eps,
            if self.beside { " beside the root" } else { "" }
        )
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs[0].last() {
            Some(c) if *c > 0 && c % self.gamma.len() == 0 => Ok(inputs[0].to_vec()),
            _ => Err(format!("expected a multiple of {} channels, got {:?}", self.gamma.len(), inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let n = self.gamma.len();
        let run = |(x, out): (&[f32], &mut [f32])| {
            for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
                let r = self.scale(x);
                out.iter_mut().zip(x).zip(&self.gamma).for_each(|((o, x), g)| *o = x * r * g);
            }
        };
        match par {
            true => inputs[0].data.par_chunks(PIECE * n).zip(out.par_chunks_mut(PIECE * n)).for_each(run),
            false => run((inputs[0].data, out)),
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let n = self.gamma.len();
        let mut grad = pool::take(cot.len());
        let run = |((x, cot), grad): ((&[f32], &[f32]), &mut [f32])| {
            for ((x, cot), grad) in x.chunks_exact(n).zip(cot.chunks_exact(n)).zip(grad.chunks_exact_mut(n)) {
                let r = self.scale(x);
                grad.iter_mut().zip(cot).zip(&self.gamma).for_each(|((o, y), g)| *o = y * g);
                let along: f64 = grad.iter().zip(x).map(|(u, x)| f64::from(*u) * f64::from(*x)).sum();
                let back = (along / n as f64) as f32 * self.along(r);
                grad.iter_mut().zip(x).for_each(|(o, x)| *o = r * (*o - x * back));
            }
        };
        let x = inputs[0].data;
        match par {
            true => {
                x.par_chunks(PIECE * n).zip(cot.par_chunks(PIECE * n)).zip(grad.par_chunks_mut(PIECE * n)).for_each(run)
            }
            false => run(((x, cot), &mut grad[..])),
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.compose_with(inputs, &self.weights()?)
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![self.weight.clone()])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        let (x, n) = (inputs[0], self.gamma.len());
        let runs = x.reshape((x.elem_count() / n, n))?;
        let mean = (runs.sqr()?.sum_keepdim(D::Minus1)? / n as f64)?;
        let size = match self.beside {
            // no root of 0, which has no gradient
            true => ((mean + 1e-30)?.sqrt()? + self.eps)?,
            false => (mean + self.eps)?.sqrt()?,
        };
        let y = runs.broadcast_div(&size)?;
        let weight = weights[0].to_device(x.device())?.to_dtype(x.dtype())?;
        y.broadcast_mul(&weight)?.reshape(x.dims())
    }
}
