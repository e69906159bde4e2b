//! Any number of values and constants joined along a dimension.
use super::arithmetic::Side;
use super::lines::{Lines, broadcast_strides, strides};
use super::{Frozen, View, pool};
use candle_core::Tensor;

/// The shape of a part in the result, and where along the dimension it begins.
type Places = Vec<(Vec<usize>, usize)>;

/// The parts side by side along `dim`; where a constant has size 1 in another dimension, it is repeated.
pub struct Join {
    /// The dimension.
    pub dim: usize,
    /// The parts in order.
    pub parts: Vec<Side>,
}

impl Join {
    /// Tokens of two kinds one after the other: [B, n, C] and [B, m, C] → [B, n + m, C].
    pub fn tokens() -> Join {
        Join { dim: 1, parts: vec![Side::Input, Side::Input] }
    }
    fn views<'a>(&'a self, inputs: &[View<'a>]) -> Vec<View<'a>> {
        let mut given = inputs.iter().copied();
        let one = |s: &'a Side| match s {
            Side::Input => given.next().unwrap_or(View { data: &[], dims: &[] }),
            Side::Fixed(f) => f.view(),
        };
        self.parts.iter().map(one).collect()
    }
    /// The shape of each part in the result, and where it begins there; the result's shape last.
    fn places(&self, views: &[View]) -> Option<(Places, Vec<usize>)> {
        let first = self.parts.iter().position(|p| matches!(p, Side::Input))?;
        let like = views.get(first)?.dims;
        let mut at = 0;
        let mut places = vec![];
        for (v, part) in views.iter().zip(&self.parts) {
            if v.dims.len() != like.len() || self.dim >= like.len() {
                return None;
            }
            let mut dims = like.to_vec();
            dims[self.dim] = v.dims[self.dim];
            let fixed = matches!(part, Side::Fixed(_));
            if dims.iter().zip(v.dims).any(|(want, n)| want != n && !(fixed && *n == 1)) {
                return None;
            }
            places.push((dims, at));
            at += v.dims[self.dim];
        }
        let mut all = like.to_vec();
        all[self.dim] = at;
        Some((places, all))
    }
}

impl Frozen for Join {
    fn name(&self) -> &'static str {
        "joining"
    }
    fn detail(&self) -> String {
        let fixed = |s: &Side| match s {
            Side::Input => "…".to_string(),
            Side::Fixed(f) => format!("constant {:?}", f.view().dims),
        };
        format!("along {}: {}", self.dim, self.parts.iter().map(fixed).collect::<Vec<_>>().join(", "))
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let views: Vec<View> = inputs.iter().map(|dims| View { data: &[], dims }).collect();
        let found = self.places(&self.views(&views)).map(|p| p.1);
        found.ok_or_else(|| format!("shapes do not join along {}: {inputs:?}", self.dim))
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let views = self.views(inputs);
        let Some((places, all)) = self.places(&views) else { return };
        let by = strides(&all);
        for (v, (dims, at)) in views.iter().zip(&places) {
            let lines = Lines::new(dims, [by.clone(), broadcast_strides(v.dims, dims)]);
            let (n, [to, step]) = (lines.len(), lines.along());
            let start = *at as isize * by[self.dim];
            lines.each(1, [start, 0], |[o, i]| match (to, step) {
                (1, 0) => out[o..o + n].fill(v.data[i]),
                (1, 1) => out[o..o + n].copy_from_slice(&v.data[i..i + n]),
                // a column, or less
                _ => (0..n).for_each(|k| out[o + k * to as usize] = v.data[i + k * step as usize]),
            });
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let views = self.views(inputs);
        let Some((places, all)) = self.places(&views) else { return vec![] };
        let by = strides(&all);
        let mut grads = vec![];
        for (part, (dims, at)) in self.parts.iter().zip(&places) {
            if matches!(part, Side::Fixed(_)) {
                continue;
            }
            let mut grad = pool::take(dims.iter().product());
            let lines = Lines::new(dims, [by.clone(), strides(dims)]);
            let (n, [from, step]) = (lines.len(), lines.along());
            let start = *at as isize * by[self.dim];
            lines.each(1, [start, 0], |[o, i]| match (from, step) {
                (1, 1) => grad[i..i + n].copy_from_slice(&cot[o..o + n]),
                _ => (0..n).for_each(|k| grad[i + k * step as usize] = cot[o + k * from as usize]),
            });
            grads.push(grad);
        }
        grads
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let first = inputs[0];
        let mut given = inputs.iter();
        let mut parts = vec![];
        for part in &self.parts {
            parts.push(match part {
                Side::Input => given.next().map(|t| (*t).clone()).unwrap_or_else(|| first.clone()),
                Side::Fixed(f) => {
                    let t = f.like(first)?;
                    let mut dims = first.dims().to_vec();
                    dims[self.dim] = t.dim(self.dim)?;
                    t.broadcast_as(dims)?.contiguous()?
                }
            });
        }
        Tensor::cat(&parts, self.dim)
    }
}
