//! A denoiser as a differentiable tensor function of the state and its noise level.
use super::query::Coefs;
use super::{Cond, DynDenoiser, Prediction, Pullback, Query};
use crate::host::Host;
use crate::real::host_values;
use crate::tensor::grad;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::cell::RefCell;

/// What the network of `d` computes at a place, for states and levels as [`at_level`] takes them; without gradient.
pub fn hidden_at_level(
    host: &dyn Host,
    d: &DynDenoiser,
    x: &Tensor,
    sigma: &Tensor,
    cond: &Cond,
    place: &str,
) -> Result<Tensor> {
    let t = times(d, x, sigma)?.values(0);
    d.hidden(host, &Query { x: &x.detach().into(), t: &t, cond }, place)
}

/// The times of `d` at levels `sigma`, one value or one for each sample.
fn times(d: &DynDenoiser, x: &Tensor, sigma: &Tensor) -> Result<Coefs<1>> {
    let batch = x.dims().first().copied().unwrap_or(0);
    let per_sample = sigma.elem_count() == batch && sigma.dims().first() == Some(&batch);
    if sigma.elem_count() != 1 && !per_sample {
        let m = format!("sigma must be one number or a tensor [{batch}], one per sample, not {:?}", sigma.dims());
        return Err(Error::shape(m, &[sigma.dims(), x.dims()]));
    }
    let levels = host_values(sigma)?;
    if let Some(s) = levels.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        let e = Error::value(format!("sigma must be a finite number above 0, not {s}"));
        return Err(e.hint("sigma is the VE noise level σ/α; `noise.ve_sigma(t)` gives that of a time"));
    }
    let noise = d.noise();
    Coefs::new(&levels, "the time of sigma", |s| [noise.t_of_sigma(s)])
}

/// The prediction of `d` for states `x` [B, …] (in the denoiser's own scaling α x_0 + σ ε) at VE noise levels `sigma` = σ/α
/// (one value, or B). Recorded for [`grad::grad`] where x or sigma is tracked: then the evaluation keeps its pull-back, and
/// runs again only for a second backward pass. Otherwise it is a plain evaluation.
pub fn at_level(
    host: &dyn Host,
    d: &DynDenoiser,
    x: &Tensor,
    sigma: &Tensor,
    cond: &Cond,
    want: Prediction,
) -> Result<Tensor> {
    let times = times(d, x, sigma)?;
    let t = times.values(0);
    if !grad::is_tracked(x) && !grad::is_tracked(sigma) {
        return Ok(d.eval(host, &Query { x: &x.into(), t: &t, cond }, want)?.tensor()?.clone());
    }
    let (m, pull) = d.linearize(host, &Query { x: &x.into(), t: &t, cond }, want)?;
    let inputs = [x.clone(), sigma.clone()];
    let place: (Vec<usize>, Device) = (sigma.dims().to_vec(), sigma.device().clone());
    let (d, x, cond, kept) = (d.clone(), x.detach(), cond.clone(), RefCell::new(Some(pull)));
    let back: grad::RecordPullback = Box::new(move |host, bars| {
        let [Some(bar)] = bars else { return Ok(vec![None, None]) };
        let first: Option<Pullback> = kept.borrow_mut().take();
        let pull = match first {
            Some(pull) => pull,
            None => d.linearize(host, &Query { x: &(&x).into(), t: &t, cond: &cond }, want)?.1,
        };
        let g = pull(host, &bar.detach().to_dtype(x.dtype())?.into())?;
        let s_bar = Tensor::from_vec(times.pull([g.t]), place.0.clone(), &Device::Cpu)?;
        Ok(vec![Some(g.x.tensor()?.clone()), Some(s_bar.to_dtype(DType::F64)?.to_device(&place.1)?)])
    });
    let mut out = grad::record(vec![m.tensor()?.clone()], &inputs, back)?;
    out.pop().ok_or_else(|| Error::new(Kind::Internal, "a record without an output"))
}
