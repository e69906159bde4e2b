//! Classifier-free guidance.
use super::query::{self, scale_rows};
use super::{CLASSES, Cond, Denoiser, DynDenoiser, InputGrad, Prediction, Pullback, Query, State};
use crate::host::Host;
use crate::noise::Noise;
use crate::{Error, Result};
use candle_core::Tensor;

/// Classifier-free guidance (Ho & Salimans 2022): m = m_u + w (m_c − m_u), m_c the conditional and m_u the unconditional
/// prediction, so w = 1 is no guidance and w = 0 ignores the condition. Data and noise predictions are guided alike. With an
/// interval [lo, hi] of noise levels σ/α, w applies inside and 1 outside (Kynkäänniemi et al. 2024); the switch has no
/// gradient in t.
///
/// Both runs go through the inner denoiser as one batch of 2B where conditions are rows. Without a condition there is
/// nothing to guide: one unconditional run.
///
/// The other run may be another, worse network's (autoguidance, Karras et al. 2024): then m_u is its prediction under the same condition,
/// or under [`Guided::uncond`] where that is given, and there is something to guide without a condition too.
pub struct Guided {
    inner: DynDenoiser,
    scale: f64,
    interval: Option<(f64, f64)>,
    uncond: Cond,
    /// What makes the other run, where that is not the denoiser itself.
    other: Option<DynDenoiser>,
}

/// What an evaluation has to run.
enum Runs {
    /// One run, as asked.
    Asked,
    /// One run without the condition.
    Unconditional,
    /// Both; the conditional run's weight, for each time.
    Both(Vec<f64>),
}

impl Guided {
    /// Guides `inner` with weight `scale`.
    pub fn new(inner: DynDenoiser, scale: f64) -> Result<Self> {
        if !scale.is_finite() {
            return Err(Error::value(format!("the guidance scale must be a finite number, not {scale}")));
        }
        Ok(Guided { inner, scale, interval: None, uncond: Cond::None, other: None })
    }
    /// Guides only at noise levels σ/α from `lo` to `hi`.
    pub fn interval(mut self, lo: f64, hi: f64) -> Result<Self> {
        if !(0.0..=hi).contains(&lo) {
            return Err(Error::value(format!("the guidance interval must be 0 ≤ lo ≤ hi, not {lo} to {hi}")));
        }
        self.interval = Some((lo, hi));
        Ok(self)
    }
    /// What the unconditional run is told: "no condition", a null or a negative prompt's embedding. Each of its tensors has one row for
    /// all samples or one for each, of the shape of the condition of its name; what it does not name is zeros.
    pub fn uncond(mut self, cond: Cond) -> Self {
        self.uncond = match cond {
            Cond::Named(all) => Cond::Named(all.into_iter().map(|(name, t)| (name, t.detach())).collect()),
            other => other,
        };
        self
    }

    /// Leads away from what another denoiser predicts.
    ///
    /// Fails where that is not in the same noise schedule.
    pub fn by(mut self, other: DynDenoiser) -> Result<Self> {
        let (own, its) = (self.inner.noise().spec(), other.noise().spec());
        if own != its {
            let m = format!("the other network runs in the noise schedule {its}, this one in {own}");
            return Err(Error::value(m).hint("bring it there: `other.with_noise(net.noise)`"));
        }
        self.other = Some(other);
        Ok(self)
    }

    /// How many runs an evaluation takes: with weight 1 or 0 one of the two says all.
    fn both(&self) -> usize {
        if [0.0, 1.0].contains(&self.scale) { 1 } else { 2 }
    }
    fn runs(&self, q: &Query) -> Runs {
        if matches!(q.cond, Cond::None) && self.other.is_none() {
            return Runs::Asked;
        }
        let weight = |t: &f64| match self.interval {
            Some((lo, hi)) if !(lo..=hi).contains(&self.inner.noise().ve_sigma(&(*t).into()).v()) => 1.0,
            _ => self.scale,
        };
        let w: Vec<f64> = q.t.iter().map(weight).collect();
        match w {
            _ if w.iter().all(|w| *w == 1.0) => Runs::Asked,
            _ if w.iter().all(|w| *w == 0.0) => Runs::Unconditional,
            _ => Runs::Both(w),
        }
    }
    /// What makes the other run.
    fn guide(&self) -> &DynDenoiser {
        self.other.as_ref().unwrap_or(&self.inner)
    }
    /// The condition of the unconditional run.
    fn without(&self, cond: &Cond) -> Result<Cond> {
        if let (Some(other), Cond::None) = (&self.other, &self.uncond) {
            // a network of the same conditions is told the same; one without any, nothing
            let told = other.classes() == self.inner.classes() && other.conditions() == self.inner.conditions();
            return if told { Ok(cond.clone()) } else { Ok(Cond::None) };
        }
        let none = match (cond, &self.uncond) {
            (Cond::Named(all), Cond::Named(none)) => {
                if let Some(odd) = none.keys().find(|name| !all.contains_key(*name)) {
                    return Err(Error::unknown("condition to guide away from", odd, all.keys().map(|k| &**k)));
                }
                Some(none)
            }
            (Cond::Named(_), Cond::None) => None,
            (Cond::Named(_), Cond::Opaque(_)) => {
                return Err(Error::value("guidance with condition rows needs unconditional rows"));
            }
            _ => return Ok(self.uncond.clone()),
        };
        cond.map(|name, rows| match none.and_then(|none| none.get(name)) {
            Some(u) => alike(u, rows),
            None => Ok(rows.zeros_like()?.detach()),
        })
    }
    /// The batch of both runs, first the conditional, then the unconditional; none where a script's value conditions it.
    fn doubled(&self, x: &Tensor, q: &Query) -> Result<Option<(Tensor, Vec<f64>, Cond)>> {
        if !matches!(q.cond, Cond::Named(_)) || self.other.is_some() {
            return Ok(None);
        }
        let Cond::Named(none) = self.without(q.cond)? else { return Ok(None) };
        let t = if q.t.len() == 1 { q.t.to_vec() } else { [q.t, q.t].concat() };
        let both = q.cond.map(|name, rows| Ok(Tensor::cat(&[rows, &none[name]], 0)?))?;
        Ok(Some((Tensor::cat(&[x, x], 0)?, t, both)))
    }
}

/// One row for all samples or one for each, as `rows` has them.
fn alike(u: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let fits = u.rank() == rows.rank() && u.dims()[1..] == rows.dims()[1..];
    if !fits || (u.dim(0)? != 1 && u.dim(0)? != rows.dim(0)?) {
        let m = format!("the unconditional rows {:?} do not fit the conditions {:?}", u.dims(), rows.dims());
        return Err(Error::shape(m, &[u.dims(), rows.dims()]));
    }
    Ok(u.to_device(rows.device())?.to_dtype(rows.dtype())?.broadcast_as(rows.shape())?.contiguous()?)
}

/// a_b·a + (1 − a_b)·b for each sample.
fn mix(w: &[f64], a: &State, b: &State) -> Result<State> {
    Ok((scale_rows(a.tensor()?, w)? + scale_rows(b.tensor()?, &rest(w))?)?.into())
}
fn rest(w: &[f64]) -> Vec<f64> {
    w.iter().map(|w| 1.0 - w).collect()
}

impl Denoiser for Guided {
    fn noise(&self) -> &Noise {
        self.inner.noise()
    }
    fn describe(&self) -> String {
        let from = self.other.as_ref().map_or(String::new(), |o| format!(" away from {}", o.describe()));
        match self.interval {
            Some((lo, hi)) => {
                format!("{}, guided by {}{from} at σ from {lo} to {hi}", self.inner.describe(), self.scale)
            }
            None => format!("{}, guided by {}{from}", self.inner.describe(), self.scale),
        }
    }
    fn hash(&self) -> Option<String> {
        let how = format!("{:?} {:?}", self.scale, self.interval);
        let uncond = match &self.uncond {
            // rows of classes hash as they did when there were no names
            Cond::Named(all) => {
                let each = |(name, t): (&String, &Tensor)| {
                    let name = if name == CLASSES { "" } else { name };
                    Some(format!("{name}{}", query::content(t).ok()?))
                };
                all.iter().map(each).collect::<Option<String>>()?
            }
            _ => String::new(),
        };
        let uncond = match &self.other {
            Some(other) => format!("{uncond}by {}", other.hash()?),
            None => uncond,
        };
        self.inner.hash().map(|h| query::digest(&[b"guided", h.as_bytes(), how.as_bytes(), uncond.as_bytes()]))
    }
    fn inner(&self) -> Option<&dyn Denoiser> {
        Some(&*self.inner)
    }
    fn runs_per_eval(&self) -> usize {
        match (&self.other, self.both()) {
            (Some(other), 2) => self.inner.runs_per_eval() + other.runs_per_eval(),
            (_, both) => both * self.inner.runs_per_eval(),
        }
    }
    fn kept(&self, batch: usize) -> Option<u64> {
        match (&self.other, self.both()) {
            (Some(other), 2) => Some(self.inner.kept(batch)? + other.kept(batch)?),
            (_, both) => self.inner.kept(both * batch),
        }
    }
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        let x = query::check(q, None, None)?;
        let w = match self.runs(q) {
            Runs::Asked => return self.inner.eval(host, q, want),
            Runs::Unconditional => {
                return self.guide().eval(host, &Query { cond: &self.without(q.cond)?, ..*q }, want);
            }
            Runs::Both(w) => w,
        };
        if let Some((both, t, cond)) = self.doubled(&x, q)? {
            let (b, x) = (x.dim(0)?, both);
            let m = self.inner.eval(host, &Query { x: &x.into(), t: &t, cond: &cond }, want)?;
            return mix(&w, &m.narrow(0, b)?, &m.narrow(b, b)?);
        }
        let with = self.inner.eval(host, q, want)?;
        let none = self.guide().eval(host, &Query { cond: &self.without(q.cond)?, ..*q }, want)?;
        mix(&w, &with, &none)
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let x = query::check(q, None, None)?;
        let w = match self.runs(q) {
            Runs::Asked => return self.inner.linearize(host, q, want),
            Runs::Unconditional => {
                return self.guide().linearize(host, &Query { cond: &self.without(q.cond)?, ..*q }, want);
            }
            Runs::Both(w) => w,
        };
        if let Some((both, t, cond)) = self.doubled(&x, q)? {
            let (b, x) = (x.dim(0)?, both);
            let (m, inner) = self.inner.linearize(host, &Query { x: &x.into(), t: &t, cond: &cond }, want)?;
            let m = mix(&w, &m.narrow(0, b)?, &m.narrow(b, b)?)?;
            let pull: Pullback = Box::new(move |host, m_bar| {
                let m_bar = m_bar.tensor()?;
                let both = Tensor::cat(&[scale_rows(m_bar, &w)?, scale_rows(m_bar, &rest(&w))?], 0)?;
                let g = inner(host, &both.into())?;
                let t = match g.t.split_at(w.len().min(g.t.len())) {
                    (a, []) => a.to_vec(),
                    (a, b) => a.iter().zip(b).map(|(a, b)| a + b).collect(),
                };
                let (with, none) = (g.x.narrow(0, b)?, g.x.narrow(b, b)?);
                Ok(InputGrad { x: (with.tensor()? + none.tensor()?)?.into(), t })
            });
            return Ok((m, pull));
        }
        let (with, pull_with) = self.inner.linearize(host, q, want)?;
        let (none, pull_none) = self.guide().linearize(host, &Query { cond: &self.without(q.cond)?, ..*q }, want)?;
        let m = mix(&w, &with, &none)?;
        let pull: Pullback = Box::new(move |host, m_bar| {
            let m_bar = m_bar.tensor()?;
            let a = pull_with(host, &scale_rows(m_bar, &w)?.into())?;
            let b = pull_none(host, &scale_rows(m_bar, &rest(&w))?.into())?;
            let t = a.t.iter().zip(&b.t).map(|(a, b)| a + b).collect();
            Ok(InputGrad { x: (a.x.tensor()? + b.x.tensor()?)?.into(), t })
        });
        Ok((m, pull))
    }
}
