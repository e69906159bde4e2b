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
    /// DISTS: Σ_c α_c (1 − l_c) + β_c (1 − s_c), with l of the means of a channel over positions and s of its variances and covariance; the
    /// weights α, then β.
    Structure([Vec<f64>; 2]),
}

/// DISTS's constants, which keep both quotients finite.
const SMALL: f64 = 1e-6;

/// Of a channel over positions, for both features: the means, the variances, and the covariance.
#[derive(Clone, Copy, Default)]
struct Moments {
    mean: [f64; 2],
    variance: [f64; 2],
    covariance: f64,
}

fn moments(f: &[f32], g: &[f32], c: usize) -> Vec<Moments> {
    let n = (f.len() / c.max(1)) as f64;
    let mut all = vec![Moments::default(); c];
    let pixels = || f.chunks_exact(c).zip(g.chunks_exact(c));
    for (f, g) in pixels() {
        for ((m, f), g) in all.iter_mut().zip(f).zip(g) {
            m.mean[0] += f64::from(*f) / n;
            m.mean[1] += f64::from(*g) / n;
        }
    }
    for (f, g) in pixels() {
        for ((m, f), g) in all.iter_mut().zip(f).zip(g) {
            let (f, g) = (f64::from(*f) - m.mean[0], f64::from(*g) - m.mean[1]);
            m.variance[0] += f * f / n;
            m.variance[1] += g * g / n;
            m.covariance += f * g / n;
        }
    }
    all
}

impl Moments {
    /// l and its denominator.
    fn luminance(&self) -> (f64, f64) {
        let [a, b] = self.mean;
        let under = a * a + b * b + SMALL;
        ((2.0 * a * b + SMALL) / under, under)
    }
    /// s and its denominator.
    fn structure(&self) -> (f64, f64) {
        let under = self.variance[0] + self.variance[1] + SMALL;
        ((2.0 * self.covariance + SMALL) / under, under)
    }
}

fn length(f: &[f32]) -> f64 {
    f.iter().map(|v| *v as f64 * *v as f64).sum::<f64>().sqrt()
}

impl Measure {
    fn weight(&self, c: usize) -> f64 {
        match self {
            Measure::Weighted(w) => w[c] as f64,
            Measure::Unit | Measure::Plain | Measure::Structure(_) => 1.0,
        }
    }
    /// The distance of one image's features, `c` channels each.
    pub(super) fn value(&self, f: &[f32], g: &[f32], c: usize) -> f64 {
        if let Measure::Plain = self {
            return f.iter().zip(g).map(|(f, g)| ((f - g) as f64).powi(2)).sum::<f64>() / f.len() as f64;
        }
        if let Measure::Structure([alpha, beta]) = self {
            let each = |((m, a), b): ((Moments, &f64), &f64)| a * (1.0 - m.luminance().0) + b * (1.0 - m.structure().0);
            return moments(f, g, c).into_iter().zip(alpha).zip(beta).map(each).sum();
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
        if let Measure::Structure([alpha, beta]) = self {
            let n = (f.len() / c) as f64;
            // ∂/∂f is a constant, and a multiple of f and of g, for each channel
            let each = |((m, a), b): ((Moments, &f64), &f64)| {
                let ((l, under_l), (s, under_s)) = (m.luminance(), m.structure());
                let (along_g, along_f) = (2.0 * b / under_s, 2.0 * b * s / under_s);
                let constant = 2.0 * a * (m.mean[1] - m.mean[0] * l) / under_l;
                let k = -cot / n;
                [k * (constant - along_g * m.mean[1] + along_f * m.mean[0]), -k * along_f, k * along_g]
            };
            let slopes: Vec<[f64; 3]> = moments(f, g, c).into_iter().zip(alpha).zip(beta).map(each).collect();
            for ((o, f), g) in out.chunks_exact_mut(c).zip(f.chunks_exact(c)).zip(g.chunks_exact(c)) {
                for (((o, f), g), [k, by_f, by_g]) in o.iter_mut().zip(f).zip(g).zip(&slopes) {
                    *o = (k + by_f * f64::from(*f) + by_g * f64::from(*g)) as f32;
                }
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
        if let Measure::Structure(weights) = self {
            let over = |t: &Tensor| t.mean_keepdim((1, 2));
            let (a, b) = (over(f)?, over(g)?);
            let (f, g) = (f.broadcast_sub(&a)?, g.broadcast_sub(&b)?);
            let quotient = |half: &Tensor, squares: &Tensor| half.affine(2.0, SMALL)?.div(&squares.affine(1.0, SMALL)?);
            let l = quotient(&(&a * &b)?, &(a.sqr()? + b.sqr()?)?)?;
            let s = quotient(&over(&(&f * &g)?)?, &(over(&f.sqr()?)? + over(&g.sqr()?)?)?)?;
            let weighted = |q: &Tensor, w: &[f64]| -> Result<Tensor> {
                let w = Tensor::new(w, &candle_core::Device::Cpu)?.to_dtype(q.dtype())?.to_device(q.device())?;
                Ok(q.affine(-1.0, 1.0)?.flatten_from(1)?.broadcast_mul(&w)?.sum(D::Minus1)?)
            };
            return Ok((weighted(&l, &weights[0])? + weighted(&s, &weights[1])?)?);
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
