//! What a node of a graph computes: any number of inputs, any number of results.
use super::{Frozen, View, apply, pool};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// An operation of a graph. One with a single result is written as [`Frozen`], which makes it one of these.
pub trait Op: Send + Sync {
    /// A name for errors and profiles.
    fn name(&self) -> &'static str;
    /// What distinguishes it from others of its name: sizes and options, not weights.
    fn detail(&self) -> String;
    /// The results' shapes; a message that names expected and actual where the inputs do not fit.
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<Vec<usize>>, String>;
    /// Computes the results into `outs`, which have the right lengths and any content.
    fn run(&self, inputs: &[View], outs: &mut [Vec<f32>], par: bool);
    /// Whether [`Op::pull`] looks at the inputs' values.
    fn saves(&self) -> bool;
    /// The gradients with respect to the inputs, one each, given the results' cotangents; one that is absent is zero, and at least
    /// one is there.
    fn pull(&self, inputs: &[View], cots: &[Option<&[f32]>], par: bool) -> Vec<Vec<f32>>;
    /// Applies it to candle tensors, differentiably, by its kernels where there are some.
    fn apply(self: Arc<Self>, inputs: &[&Tensor]) -> Result<Vec<Tensor>>;
    /// Its weights as tensors.
    fn weights(&self) -> Result<Vec<Tensor>>;
    /// The same function in candle operations, with these weights in the place of its own, differentiable in both.
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>>;
    /// Whether it joins optional values: where only some of its inputs are given, the result is the one that is.
    fn joins(&self) -> bool {
        false
    }
    /// Itself, if it has a single result.
    fn frozen(&self) -> Option<&dyn Frozen> {
        None
    }
}

impl<F: Frozen + 'static> Op for F {
    fn name(&self) -> &'static str {
        Frozen::name(self)
    }
    fn detail(&self) -> String {
        Frozen::detail(self)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<Vec<usize>>, String> {
        Ok(vec![Frozen::dims(self, inputs)?])
    }
    fn run(&self, inputs: &[View], outs: &mut [Vec<f32>], par: bool) {
        for out in outs {
            Frozen::run(self, inputs, out, par);
        }
    }
    fn saves(&self) -> bool {
        Frozen::saves(self)
    }
    fn pull(&self, inputs: &[View], cots: &[Option<&[f32]>], par: bool) -> Vec<Vec<f32>> {
        match cots {
            [Some(cot)] => Frozen::pull(self, inputs, cot, par),
            _ => inputs.iter().map(|v| pool::zeros(v.dims.iter().product())).collect(),
        }
    }
    fn apply(self: Arc<Self>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let op: Arc<dyn Frozen> = self;
        Ok(vec![apply(&op, inputs)?])
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Frozen::weights(self)
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![Frozen::compose_with(self, inputs, weights)?])
    }
    fn joins(&self) -> bool {
        Frozen::joins(self)
    }
    fn frozen(&self) -> Option<&dyn Frozen> {
        Some(self)
    }
}
