//! A graph of a model as a differentiable function of one tensor.
use crate::host::Host;
use crate::nets::runner::{Pull, Runner};
use crate::tensor::grad;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::cell::RefCell;

/// Output `which` of a graph whose input `name` is `x`, as [`through_some`].
pub fn through(runner: &Runner, name: &'static str, which: usize, x: &Tensor) -> Result<Tensor> {
    through_some(runner, name, &[which], x)?.pop().ok_or_else(lost)
}

/// Some outputs of a graph whose input `name` is `x`; recorded for [`grad::grad`] where x is tracked. A second pull-back through the
/// same record runs the graph again.
pub fn through_some(runner: &Runner, name: &'static str, which: &[usize], x: &Tensor) -> Result<Vec<Tensor>> {
    let pick = |outs: &[Tensor]| which.iter().map(|k| outs.get(*k).cloned().ok_or_else(lost)).collect();
    if !grad::is_tracked(x) {
        return pick(&runner.forward(&[(name, &x.detach())])?);
    }
    let own = x.detach();
    let (outs, pull) = runner.linearize(&[(name, &own)], &[name])?;
    let count = outs.len();
    let (runner, kept, places) = (runner.clone(), RefCell::new(Some(pull)), which.to_vec());
    let back: grad::RecordPullback = Box::new(move |_: &dyn Host, bars| {
        if bars.iter().all(Option::is_none) {
            return Ok(vec![None]);
        }
        let first: Option<Pull> = kept.borrow_mut().take();
        let pull = match first {
            Some(pull) => pull,
            None => runner.linearize(&[(name, &own)], &[name])?.1,
        };
        let of = |k: usize| bars.iter().zip(&places).find(|(_, p)| **p == k).and_then(|(bar, _)| bar.as_ref());
        let bars: Vec<Option<&Tensor>> = (0..count).map(of).collect();
        Ok(vec![pull(&bars)?.pop()])
    });
    grad::record(pick(&outs)?, std::slice::from_ref(x), back)
}

fn lost() -> Error {
    Error::new(Kind::Internal, "a graph without a result")
}
