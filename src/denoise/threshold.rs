//! Thresholding of the data prediction, static and dynamic.
use super::query::{self, Coefs, dots};
use super::{Denoiser, DynDenoiser, Prediction, Pullback, Query, State};
use crate::host::Host;
use crate::noise::Noise;
use crate::real::Real;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// How x̂_0 is kept in the data's range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// x̂_0 limited to [lo, hi]. The gradient is zero where it is outside.
    Clamp {
        /// The smallest value.
        lo: f64,
        /// The largest value.
        hi: f64,
    },
    /// Dynamic thresholding (Imagen, Saharia et al. 2022, section 2.3): with s the given quantile of |x̂_0| over a sample's entries
    /// (interpolated linearly), or `max` if that is larger, x̂_0 is limited to [−s, s] and multiplied by max/s. The quantile is
    /// differentiated too; the gradient is zero where x̂_0 is outside.
    Dynamic {
        /// The quantile, from 0 to 1 (0.995).
        percentile: f64,
        /// The largest absolute value of the data (1).
        max: f64,
    },
}

/// `inner` with its data prediction thresholded; the noise prediction follows from it, ε = (x − α x̂_0)/σ.
pub struct Thresholded {
    inner: DynDenoiser,
    rule: Rule,
}

/// What the pull-back of a rule needs.
enum Trace {
    Clamp { inside: Tensor },
    Dynamic { inside: Tensor, s: Vec<Quantile> },
}

/// max/s of one sample, and how s depends on the sample's entries: (index, ∂s/∂x̂_0 there).
struct Quantile {
    gain: f64,
    slope: f64,
    from: Vec<(usize, f64)>,
}

impl Thresholded {
    /// Thresholds `inner` by `rule`.
    pub fn new(inner: DynDenoiser, rule: Rule) -> Result<Self> {
        // NaN fails every comparison
        let wrong = match rule {
            Rule::Clamp { lo, hi } if lo < hi => None,
            Rule::Clamp { lo, hi } => {
                Some(Error::value(format!("the clamp's limits must be lo < hi, not {lo} and {hi}")))
            }
            Rule::Dynamic { percentile, .. } if !(percentile > 0.0 && percentile <= 1.0) => {
                let e = Error::value(format!("percentile must be above 0 and at most 1, not {percentile}"));
                Some(e.hint("0.995 keeps all but the largest 0.5 % of the entries"))
            }
            Rule::Dynamic { max, .. } if max > 0.0 && max.is_finite() => None,
            Rule::Dynamic { max, .. } => Some(Error::value(format!("max must be a positive number, not {max}"))),
        };
        match wrong {
            Some(e) => Err(e),
            None => Ok(Thresholded { inner, rule }),
        }
    }

    /// The thresholded x̂_0.
    fn apply(&self, d: &Tensor) -> Result<(Tensor, Trace)> {
        match self.rule {
            Rule::Clamp { lo, hi } => {
                let inside = mask(&d.ge(lo)?, &d.le(hi)?, d.dtype())?;
                Ok((d.clamp(lo, hi)?, Trace::Clamp { inside }))
            }
            Rule::Dynamic { percentile, max } => {
                let b = d.dim(0)?;
                let flat = d.reshape((b, ()))?;
                let host: Vec<Vec<f64>> = flat.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec2()?;
                let (limits, s): (Vec<f64>, Vec<Quantile>) =
                    host.iter().map(|row| quantile(row, percentile, max)).unzip();
                let limit =
                    Tensor::from_vec(limits, (b, 1), d.device())?.to_dtype(d.dtype())?.broadcast_as(flat.shape())?;
                let inside = mask(&flat.ge(&limit.neg()?)?, &flat.le(&limit)?, d.dtype())?.reshape(d.shape())?;
                let kept = flat.minimum(&limit)?.maximum(&limit.neg()?)?.reshape(d.shape())?;
                let gains: Vec<f64> = s.iter().map(|q| q.gain).collect();
                Ok((query::scale_rows(&kept, &gains)?, Trace::Dynamic { inside, s }))
            }
        }
    }
    /// (1/σ, α/σ) at each time.
    fn coefs(&self, t: &[f64]) -> Result<Coefs<2>> {
        let noise = self.inner.noise();
        Coefs::new(t, query::name(Prediction::Noise), |t: &Real| {
            let r = 1.0 / noise.sigma(t);
            [r.clone(), noise.alpha(t) * r]
        })
    }
}

fn mask(a: &Tensor, b: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok((a.to_dtype(dtype)? * b.to_dtype(dtype)?)?)
}

/// The limit s of one sample and its trace. Entries are ranked by size, then by index, so ties are settled always alike.
fn quantile(row: &[f64], p: f64, max: f64) -> (f64, Quantile) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_unstable_by(|&i, &j| row[i].abs().total_cmp(&row[j].abs()).then(i.cmp(&j)));
    let at = p * (row.len() - 1) as f64;
    let k = (at.floor() as usize).min(row.len() - 1);
    let (f, next) = (at - k as f64, (k + 1).min(row.len() - 1));
    let (lo, hi) = (order[k], order[next]);
    let s = (1.0 - f) * row[lo].abs() + f * row[hi].abs();
    if s <= max {
        return (max, Quantile { gain: 1.0, slope: 0.0, from: vec![] });
    }
    let from = vec![(lo, (1.0 - f) * row[lo].signum()), (hi, f * row[hi].signum())];
    (s, Quantile { gain: max / s, slope: -max / (s * s), from })
}

impl Trace {
    /// From the cotangent of the thresholded x̂_0 to that of x̂_0 = `d`.
    fn pull(&self, d: &Tensor, bar: &Tensor) -> Result<Tensor> {
        let (inside, s) = match self {
            Trace::Clamp { inside } => return Ok((bar * inside)?),
            Trace::Dynamic { inside, s } => (inside, s),
        };
        let kept = (bar * inside)?;
        // inside, x̂_0·max/s depends on s; outside it is ±max, whatever s is
        let s_bar = dots(&kept, d)?;
        let n = d.elem_count() / s.len();
        let mut through = vec![0.0; d.elem_count()];
        for (b, (q, s_bar)) in s.iter().zip(s_bar).enumerate() {
            for (i, w) in &q.from {
                through[b * n + i] += s_bar * q.slope * w;
            }
        }
        let through = Tensor::from_vec(through, d.shape(), d.device())?.to_dtype(d.dtype())?;
        let gains: Vec<f64> = s.iter().map(|q| q.gain).collect();
        Ok((query::scale_rows(&kept, &gains)? + through)?)
    }
}

impl Denoiser for Thresholded {
    fn noise(&self) -> &Noise {
        self.inner.noise()
    }
    fn describe(&self) -> String {
        match self.rule {
            Rule::Clamp { lo, hi } => format!("{}, clamped to [{lo}, {hi}]", self.inner.describe()),
            Rule::Dynamic { percentile, max } => {
                format!("{}, thresholded (quantile {percentile}, max {max})", self.inner.describe())
            }
        }
    }
    fn hash(&self) -> Option<String> {
        let how = format!("{:?}", self.rule);
        self.inner.hash().map(|h| query::digest(&[b"threshold", h.as_bytes(), how.as_bytes()]))
    }
    fn inner(&self) -> Option<&dyn Denoiser> {
        Some(&*self.inner)
    }
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        let x = query::check(q, None, None)?;
        let (kept, _) = self.apply(self.inner.eval(host, q, Prediction::Data)?.tensor()?)?;
        match want {
            Prediction::Data => Ok(kept.into()),
            Prediction::Noise => {
                let c = self.coefs(q.t)?;
                Ok((c.scale(0, &x)? - c.scale(1, &kept)?)?.into())
            }
        }
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let x = query::check(q, None, None)?;
        let (d, inner) = self.inner.linearize(host, q, Prediction::Data)?;
        let d = d.tensor()?.clone();
        let (kept, trace) = self.apply(&d)?;
        if want == Prediction::Data {
            let pull: Pullback = Box::new(move |host, bar| inner(host, &trace.pull(&d, bar.tensor()?)?.into()));
            return Ok((kept.into(), pull));
        }
        let c = self.coefs(q.t)?;
        let m = (c.scale(0, &x)? - c.scale(1, &kept)?)?;
        let pull: Pullback = Box::new(move |host, bar| {
            let bar = bar.tensor()?;
            let mut g = inner(host, &trace.pull(&d, &c.scale(1, bar)?.neg()?)?.into())?;
            let minus = dots(bar, &kept)?.iter().map(|v| -v).collect();
            let direct = c.pull([dots(bar, &x)?, minus]);
            g.t.iter_mut().zip(direct).for_each(|(t, d)| *t += d);
            g.x = (g.x.tensor()? + c.scale(0, bar)?)?.into();
            Ok(g)
        });
        Ok((m.into(), pull))
    }
}
