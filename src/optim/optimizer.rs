//! Optimizers: an update rule, its learning rate, and what it remembers about each parameter.
use super::fused::{finite, takes};
use super::{Rule, in_range, muon, update};
use crate::tensor::grad::variable;
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What an optimizer remembers about one parameter.
#[derive(Debug, Clone, Default)]
pub struct Slot {
    /// Updates made so far.
    pub step: u64,
    /// Running averages by name, each of the parameter's shape.
    pub buffers: BTreeMap<String, Tensor>,
}

/// All that is needed to go on with the same bits: see [`Optimizer::state`].
#[derive(Debug, Clone)]
pub struct State {
    /// The rule's name; restoring into another rule is an error.
    pub rule: String,
    /// The learning rate.
    pub lr: f64,
    /// One entry per parameter, by position.
    pub slots: Vec<Slot>,
    /// The path of each in its tree; empty where they had none.
    pub paths: Vec<String>,
}

/// An update rule, its learning rate, and its state by the position of each parameter.
#[derive(Debug, Clone)]
pub struct Optimizer {
    rule: Rule,
    lr: f64,
    slots: Vec<Slot>,
    paths: Vec<String>,
}

impl Optimizer {
    /// An optimizer without history. `lr` must be finite and not negative.
    pub fn new(rule: Rule, lr: f64) -> Result<Self> {
        rule.check()?;
        Ok(Optimizer { lr: in_range("the learning rate", lr, 0.0, f64::INFINITY)?, rule, slots: vec![], paths: vec![] })
    }
    /// The update rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.lr
    }
    /// Changes the learning rate (finite, not negative).
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.lr = in_range("the learning rate", lr, 0.0, f64::INFINITY)?;
        Ok(())
    }
    /// Updates made to the first parameter so far.
    pub fn steps(&self) -> u64 {
        self.slots.first().map_or(0, |s| s.step)
    }

    /// One update: from parameters and their gradients (same shapes) to fresh variables with the new values. State is
    /// kept by position, so parameters come in the same order every time. On any error the state is as before.
    ///
    /// Errors: another number of parameters than before, shapes that differ, gradients that are not finite.
    pub fn step(&mut self, params: &[Tensor], grads: &[Tensor]) -> Result<Vec<Tensor>> {
        self.step_named(&[], params, grads)
    }

    /// [`Optimizer::step`] of parameters with names, by which errors call them; an error where they had others before.
    pub fn step_named(&mut self, paths: &[String], params: &[Tensor], grads: &[Tensor]) -> Result<Vec<Tensor>> {
        if params.len() != grads.len() {
            let m = format!("step: {} parameters but {} gradients", params.len(), grads.len());
            return Err(Error::value(m).hint("pass one gradient per parameter, in the same order"));
        }
        if !self.slots.is_empty() && self.slots.len() != params.len() {
            let m = format!("step: {} parameters, but there were {} before", params.len(), self.slots.len());
            return Err(Error::value(m).hint("state is kept by position: use one optimizer per list of parameters"));
        }
        if let Some((now, before)) = paths.iter().zip(&self.paths).find(|(now, before)| now != before) {
            let m = format!("step: {} came where {} was before", called(now, 0), called(before, 0));
            return Err(Error::value(m).hint("use one optimizer for one tree of parameters"));
        }
        let mut slots = self.slots.clone();
        slots.resize_with(params.len(), Slot::default);
        for (i, ((p, g), slot)) in params.iter().zip(grads).zip(&slots).enumerate() {
            let what = called(paths.get(i).map_or("", |p| p), i);
            let (pd, gd) = (p.dims(), g.dims());
            if pd != gd {
                let m = format!("step: {what} has shape {pd:?} but its gradient has shape {gd:?}");
                return Err(Error::shape(m, &[pd, gd]));
            }
            if let Some(b) = slot.buffers.values().find(|b| b.dims() != pd) {
                let m = format!("step: {what} has shape {pd:?}, but had {:?} before", b.dims());
                return Err(Error::shape(m, &[pd, b.dims()]));
            }
            if !p.dtype().is_float() {
                let m = format!("step: {what} must be floating point, not {:?}", p.dtype());
                return Err(Error::new(Kind::Type, m));
            }
            if !finite(g)? {
                let e = Error::value(format!("step: the gradient of {what} is not finite (NaN or infinite)"));
                return Err(
                    e.hint("look at the loss that it came from; lower the learning rate or clip with clip_norm")
                );
            }
        }
        let all: Vec<(usize, (&Tensor, &Tensor))> = params.iter().zip(grads).enumerate().collect();
        let done = all.into_par_iter().zip(&mut slots).map(|((i, (p, g)), slot)| {
            let path = paths.get(i).map_or("", |p| p);
            let new = self.update(path, &p.detach(), &g.detach().to_dtype(p.dtype())?, slot)?;
            slot.step += 1;
            Ok(new)
        });
        let new = done.collect::<Result<Vec<Tensor>>>()?;
        let out = new.iter().map(variable).collect::<Result<Vec<Tensor>>>()?;
        self.slots = slots;
        if !paths.is_empty() {
            self.paths = paths.to_vec();
        }
        Ok(out)
    }

    /// The new value of one parameter.
    fn update(&self, path: &str, p: &Tensor, g: &Tensor, slot: &mut Slot) -> Result<Tensor> {
        let (rule, factor) = self.rule.of(path, p.dims());
        let lr = self.lr * factor;
        match (&*rule, p.dtype()) {
            (Rule::Muon { .. }, _) => muon::update(&rule, lr, p, g, slot),
            (_, DType::F32) if takes(p) && takes(g) => update::fused::<f32>(&rule, lr, p, g, slot),
            (_, DType::F64) if takes(p) && takes(g) => update::fused::<f64>(&rule, lr, p, g, slot),
            _ => update::composed(&rule, lr, p, g, slot),
        }
    }

    /// Everything needed to continue with the same bits.
    pub fn state(&self) -> State {
        State { rule: self.rule.name().into(), lr: self.lr, slots: self.slots.clone(), paths: self.paths.clone() }
    }
    /// Restores what [`Optimizer::state`] returned, into an optimizer of the same rule (its constants are this
    /// optimizer's own). Errors leave the state as it was.
    pub fn load_state(&mut self, state: State) -> Result<()> {
        if state.rule != self.rule.name() {
            let m = format!("load_state: this is the state of `{}`, not of `{}`", state.rule, self.rule.name());
            return Err(Error::value(m).hint("make the optimizer with the rule that it was saved with"));
        }
        let lr = in_range("load_state: the learning rate", state.lr, 0.0, f64::INFINITY)?;
        for slot in &state.slots {
            for name in slot.buffers.keys() {
                if !self.rule.buffer_names().contains(&name.as_str()) {
                    let what = format!("buffer in the state of `{}`", self.rule.name());
                    return Err(Error::unknown(&what, name, self.rule.buffer_names().iter().copied()));
                }
            }
        }
        if !state.paths.is_empty() && state.paths.len() != state.slots.len() {
            let m = format!("load_state: {} paths for {} parameters", state.paths.len(), state.slots.len());
            return Err(Error::value(m));
        }
        self.lr = lr;
        self.slots = state.slots;
        self.paths = state.paths;
        Ok(())
    }
}

/// How errors call a parameter: by its path, or by its number where it has none or stands in one array.
fn called(path: &str, i: usize) -> String {
    match path.strip_prefix('[').and_then(|p| p.strip_suffix(']')) {
        Some(n) if n.parse::<usize>().is_ok() => format!("parameter {n}"),
        _ if path.is_empty() => format!("parameter {i}"),
        _ => format!("`{path}`"),
    }
}
