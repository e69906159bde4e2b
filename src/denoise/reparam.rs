//! A denoiser re-expressed in another noise schedule: the same noise levels σ/α, another scaling and another time.
use super::query::{self, Coefs};
use super::{Denoiser, DynDenoiser, InputGrad, Prediction, Pullback, Query, State};
use crate::Result;
use crate::host::Host;
use crate::noise::Noise;
use crate::real::Real;
use candle_core::Tensor;
use std::rc::Rc;

/// `inner` in the noise schedule `noise`: m(x, t) = inner(k(t)·x, t′(t)), where t′ is the inner schedule's time of the same VE
/// noise level σ/α, and k = α′(t′)/α(t). Data and noise predictions carry over unchanged. Gradients in x and t are exact.
pub struct Reparam {
    inner: DynDenoiser,
    noise: Noise,
}

impl Reparam {
    /// Re-expresses `inner` in `noise`; `inner` itself where that is its own schedule already.
    pub fn wrap(inner: DynDenoiser, noise: Noise) -> DynDenoiser {
        if inner.noise().spec() == noise.spec() { inner } else { Rc::new(Reparam { inner, noise }) }
    }
    /// (k, t′) at each time.
    fn coefs(&self, t: &[f64]) -> Result<Coefs<2>> {
        let inner = self.inner.noise();
        Coefs::new(t, "the inner denoiser's time", |t: &Real| {
            let at = inner.t_of_sigma(&self.noise.ve_sigma(t));
            let (alpha, sigma) = (self.noise.alpha(t), self.noise.sigma(t));
            // the same number either way; the larger divisor is never zero
            let k = if alpha.v() > sigma.v() { inner.alpha(&at) / alpha } else { inner.sigma(&at) / sigma };
            [k, at]
        })
    }
}

impl Denoiser for Reparam {
    fn noise(&self) -> &Noise {
        &self.noise
    }
    fn describe(&self) -> String {
        format!("{}, expressed in {}", self.inner.describe(), self.noise.name())
    }
    fn hash(&self) -> Option<String> {
        let noise = self.noise.spec().to_string();
        self.inner.hash().map(|h| query::digest(&[b"reparam", h.as_bytes(), noise.as_bytes()]))
    }
    fn inner(&self) -> Option<&dyn Denoiser> {
        Some(&*self.inner)
    }
    fn hidden(&self, host: &dyn Host, q: &Query, place: &str) -> Result<Tensor> {
        let x = query::check(q, None, None)?;
        let c = self.coefs(q.t)?;
        self.inner.hidden(host, &Query { x: &c.scale(0, &x)?.into(), t: &c.values(1), cond: q.cond }, place)
    }
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        let x = query::check(q, None, None)?;
        let c = self.coefs(q.t)?;
        self.inner.eval(host, &Query { x: &c.scale(0, &x)?.into(), t: &c.values(1), cond: q.cond }, want)
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let x = query::check(q, None, None)?;
        let c = self.coefs(q.t)?;
        let inner = Query { x: &c.scale(0, &x)?.into(), t: &c.values(1), cond: q.cond };
        let (m, inner_pull) = self.inner.linearize(host, &inner, want)?;
        let pull: Pullback = Box::new(move |host, m_bar| {
            let g = inner_pull(host, m_bar)?;
            let x_bar = g.x.tensor()?;
            let t = c.pull([query::dots(x_bar, &x)?, g.t]);
            Ok(InputGrad { x: c.scale(0, x_bar)?.into(), t })
        });
        Ok((m, pull))
    }
}
