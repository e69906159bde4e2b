//! Distances between feature maps [B, H, W, C], with their gradient: on buffers, and in candle operations.
use crate::Result;
use candle_core::{D, Tensor};

/// The reference's epsilon in f / (‖f‖ + ε).
const EPS: f64 = 1e-10;

/// How two feature maps are compared; each is a mean over positions.
#[derive(Debug, Clone)]
pub(super) enum Measure {
    /// Σ_c w_c (f̂ − ĝ)², with f̂ = f / (‖f‖ + ε) over channels (LPIPS's linear head).
    Weighted(Vec<f32>),
    /// The same with all w_c = 1 (LPIPS's baseline).
    Unit,
    /// The mean over channels of (f − g)².
    Plain,
}

fn length(f: &[f32]) -> f64 {
    f.iter().map(|v| *v as f64 * *v as f64).sum::<f64>().sqrt()
}

impl Measure {
    fn weight(&self, c: usize) -> f64 {
        match self {
            Measure::Weighted(w) => w[c] as f64,
            Measure::Unit | Measure::Plain => 1.0,
        }
    }
    /// The distance of one image's features, `c` channels each.
    pub(super) fn value(&self, f: &[f32], g: &[f32], c: usize) -> f64 {
        if let Measure::Plain = self {
            return f.iter().zip(g).map(|(f, g)| ((f - g) as f64).powi(2)).sum::<f64>() / f.len() as f64;
        }
        let pixel = |(f, g): (&[f32], &[f32])| -> f64 {
            let (p, q) = (1.0 / (length(f) + EPS), 1.0 / (length(g) + EPS));
            let each = |(i, (f, g)): (usize, (&f32, &f32))| self.weight(i) * (*f as f64 * p - *g as f64 * q).powi(2);
            f.iter().zip(g).enumerate().map(each).sum()
        };
        f.chunks_exact(c).zip(g.chunks_exact(c)).map(pixel).sum::<f64>() * c as f64 / f.len() as f64
    }
    /// `cot` times the gradient of [`Measure::value`] in f, written to `out`. The distance is symmetric.
    pub(super) fn pull(&self, f: &[f32], g: &[f32], c: usize, cot: f64, out: &mut [f32]) {
        if let Measure::Plain = self {
            let s = 2.0 * cot / f.len() as f64;
            for ((o, f), g) in out.iter_mut().zip(f).zip(g) {
                *o = (s * (f - g) as f64) as f32;
            }
            return;
        }
        let s = 2.0 * cot * c as f64 / f.len() as f64;
        for ((o, f), g) in out.chunks_exact_mut(c).zip(f.chunks_exact(c)).zip(g.chunks_exact(c)) {
            let n = length(f);
            if n == 0.0 {
                // where no feature is active nothing flows on through the ReLUs in front (the reference has NaN here)
                o.fill(0.0);
                continue;
            }
            let (p, q) = (1.0 / (n + EPS), 1.0 / (length(g) + EPS));
            // h = ∂/∂f̂; ∂/∂f = p h − f ⟨h, f⟩ p² / n
            let h = |i: usize| s * self.weight(i) * (f[i] as f64 * p - g[i] as f64 * q);
            let along = f.iter().enumerate().map(|(i, f)| h(i) * *f as f64).sum::<f64>() * p * p / n;
            for (i, o) in o.iter_mut().enumerate() {
                *o = (p * h(i) - along * f[i] as f64) as f32;
            }
        }
    }
    /// The distance of each image, [B], in candle operations.
    pub(super) fn compose(&self, f: &Tensor, g: &Tensor) -> Result<Tensor> {
        if let Measure::Plain = self {
            return Ok((f - g)?.sqr()?.flatten_from(1)?.mean(D::Minus1)?);
        }
        let unit = |f: &Tensor| -> Result<Tensor> {
            let square = f.sqr()?.sum_keepdim(D::Minus1)?;
            // √ has no slope at 0; what is added there is taken away again
            let none = square.detach().eq(0.0)?.to_dtype(f.dtype())?;
            let n = ((square + &none)?.sqrt()? - none)?;
            Ok(f.broadcast_div(&(n + EPS)?)?)
        };
        let mut d = (unit(f)? - unit(g)?)?.sqr()?;
        if let Measure::Weighted(w) = self {
            d = d.broadcast_mul(
                &Tensor::new(&w[..], &candle_core::Device::Cpu)?.to_dtype(d.dtype())?.to_device(d.device())?,
            )?;
        }
        Ok(d.sum(D::Minus1)?.flatten_from(1)?.mean(D::Minus1)?)
    }
}
