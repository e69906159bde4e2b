//! A graph of a model as a differentiable function of one tensor.
use crate::host::Host;
use crate::nets::runner::{Pull, Runner};
use crate::tensor::grad;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::cell::RefCell;

/// Output `which` of a graph whose input `name` is `x`; recorded for [`grad::grad`] where x is tracked. A second pull-back through the
/// same record runs the graph again.
pub fn through(runner: &Runner, name: &'static str, which: usize, x: &Tensor) -> Result<Tensor> {
    let lost = || Error::new(Kind::Internal, "a graph without a result");
    if !grad::is_tracked(x) {
        return runner.forward(&[(name, &x.detach())])?.into_iter().nth(which).ok_or_else(lost);
    }
    let own = x.detach();
    let (outs, pull) = runner.linearize(&[(name, &own)], &[name])?;
    let count = outs.len();
    let (runner, kept) = (runner.clone(), RefCell::new(Some(pull)));
    let back: grad::RecordPullback = Box::new(move |_: &dyn Host, bars| {
        let [Some(bar)] = bars else { return Ok(vec![None]) };
        let first: Option<Pull> = kept.borrow_mut().take();
        let pull = match first {
            Some(pull) => pull,
            None => runner.linearize(&[(name, &own)], &[name])?.1,
        };
        let bars: Vec<Option<&Tensor>> = (0..count).map(|k| (k == which).then_some(bar)).collect();
        Ok(vec![pull(&bars)?.pop()])
    });
    let out = outs.into_iter().nth(which).ok_or_else(lost)?;
    grad::record(vec![out], std::slice::from_ref(x), back)?.pop().ok_or_else(lost)
}
