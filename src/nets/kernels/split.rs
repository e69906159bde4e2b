//! Values cut along their last dimension.
use super::{Op, View, pool};
use candle_core::{D, Result, Tensor};
use std::sync::Arc;

/// [.., Σ widths] → [.., width] for each width: the inverse of a concatenation.
pub struct Split(pub Vec<usize>);

impl Split {
    fn total(&self) -> usize {
        self.0.iter().sum()
    }
    fn starts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().scan(0, |at, w| {
            *at += w;
            Some((*at - w, *w))
        })
    }
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "split"
    }
    fn detail(&self) -> String {
        format!("{:?}", self.0)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<Vec<usize>>, String> {
        match inputs[0].split_last() {
            Some((n, rest)) if *n == self.total() && self.0.iter().all(|w| *w > 0) => {
                Ok(self.0.iter().map(|w| [rest, &[*w]].concat()).collect())
            }
            _ => Err(format!("expected [.., {}] to cut into {:?}, got {:?}", self.total(), self.0, inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], outs: &mut [Vec<f32>], _: bool) {
        for ((start, width), out) in self.starts().zip(outs) {
            for (row, to) in inputs[0].data.chunks_exact(self.total()).zip(out.chunks_exact_mut(width)) {
                to.copy_from_slice(&row[start..start + width]);
            }
        }
    }
    fn saves(&self) -> bool {
        false
    }
    fn pull(&self, inputs: &[View], cots: &[Option<&[f32]>], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::zeros(inputs[0].dims.iter().product());
        for ((start, width), cot) in self.starts().zip(cots) {
            let Some(cot) = cot else { continue };
            for (to, row) in grad.chunks_exact_mut(self.total()).zip(cot.chunks_exact(width)) {
                to[start..start + width].copy_from_slice(row);
            }
        }
        vec![grad]
    }
    fn apply(self: Arc<Self>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.compose_with(inputs, &[])
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![])
    }
    fn compose_with(&self, inputs: &[&Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        self.starts().map(|(start, width)| inputs[0].narrow(D::Minus1, start, width)?.contiguous()).collect()
    }
}
