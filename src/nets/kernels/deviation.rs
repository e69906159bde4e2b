//! The standard deviation that an autoencoder's log variance means.
use super::pointwise::{each, exp};
use super::{Frozen, View, pool};
use candle_core::Tensor;

/// Log variances are cut to these, as in latent diffusion's code.
const ENDS: [f64; 2] = [-30.0, 20.0];

/// factor · exp(v / 2), v cut to −30…20; no gradient flows where it is cut.
pub struct Deviation(pub f64);

impl Frozen for Deviation {
    fn name(&self) -> &'static str {
        "deviation"
    }
    fn detail(&self) -> String {
        format!("{}", self.0)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let (f, [lo, hi]) = (self.0 as f32, ENDS.map(|e| e as f32));
        each(inputs[0].data, inputs[0].data, out, par, |v, _| f * exp(0.5 * v.clamp(lo, hi)));
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let (f, [lo, hi]) = (self.0 as f32, ENDS.map(|e| e as f32));
        let mut grad = pool::take(cot.len());
        let slope = |v: f32, g: f32| if v < lo || v > hi { 0.0 } else { g * 0.5 * f * exp(0.5 * v) };
        each(inputs[0].data, cot, &mut grad, par, slope);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        (inputs[0].clamp(ENDS[0], ENDS[1])? * 0.5)?.exp()? * self.0
    }
}
