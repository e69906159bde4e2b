//! Values limited to an interval around zero.
use super::{Frozen, View, pool};
use candle_core::Tensor;

/// min(max(x, −limit), limit); no gradient flows where it is outside.
pub struct Clip(pub f64);

impl Frozen for Clip {
    fn name(&self) -> &'static str {
        "clip"
    }
    fn detail(&self) -> String {
        format!("{}", self.0)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].to_vec())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let limit = self.0 as f32;
        // not clamp: what is NaN stays it either way, and this is a loop that vectors can follow
        out.iter_mut().zip(inputs[0].data).for_each(|(o, x)| {
            *o = if *x > limit {
                limit
            } else if *x < -limit {
                -limit
            } else {
                *x
            }
        });
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let limit = self.0 as f32;
        let mut grad = pool::take(cot.len());
        let all = grad.iter_mut().zip(cot).zip(inputs[0].data);
        all.for_each(|((g, c), x)| *g = if x.abs() <= limit { *c } else { 0.0 });
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        let inside = x.detach().abs()?.le(self.0)?;
        // a product would turn what is outside into NaN where it is infinite
        let edge = x.detach().clamp(-self.0, self.0)?;
        inside.where_cond(x, &edge)
    }
}
