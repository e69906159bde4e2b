//! The largest or smallest value of each row, and rows of a table by number.
use super::arithmetic::Fixed;
use super::pointwise::last;
use super::{Frozen, View, pool};
use candle_core::{D, DType, Result, Tensor};

/// The largest value over the last dimension, or the smallest: [.., n] → [.., 1]; the gradient is shared by those that are alike.
pub struct Largest {
    /// Whether it is the smallest.
    pub smallest: bool,
}

impl Largest {
    fn of(&self, row: &[f32]) -> f32 {
        match self.smallest {
            true => row.iter().fold(f32::INFINITY, |m, x| if *x < m || x.is_nan() { *x } else { m }),
            false => row.iter().fold(f32::NEG_INFINITY, |m, x| if *x > m || x.is_nan() { *x } else { m }),
        }
    }
}

impl Frozen for Largest {
    fn name(&self) -> &'static str {
        if self.smallest { "smallest of a row" } else { "largest of a row" }
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs[0].split_last() {
            Some((n, rest)) if *n > 0 => Ok([rest, &[1]].concat()),
            _ => Err(format!("expected a dimension of at least 1, got {:?}", inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let n = last(inputs[0].dims);
        inputs[0].data.chunks_exact(n).zip(out).for_each(|(row, o)| *o = self.of(row));
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let n = last(inputs[0].dims);
        let mut grad = pool::zeros(inputs[0].data.len());
        for ((row, to), g) in inputs[0].data.chunks_exact(n).zip(grad.chunks_exact_mut(n)).zip(cot) {
            let most = self.of(row);
            let alike = row.iter().filter(|x| **x == most).count().max(1) as f32;
            to.iter_mut().zip(row).filter(|(_, x)| **x == most).for_each(|(t, _)| *t = g / alike);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        let most =
            if self.smallest { x.detach().min_keepdim(D::Minus1)? } else { x.detach().max_keepdim(D::Minus1)? };
        let here = x.detach().broadcast_eq(&most)?.to_dtype(x.dtype())?;
        let share = here.broadcast_div(&here.sum_keepdim(D::Minus1)?)?;
        (x * share)?.sum_keepdim(D::Minus1)
    }
}

/// Rows of a constant table [entries, C] by number: [..] → [.., C]; numbers are cut to whole ones within the table (negative ones
/// count from its end), and have no gradient.
pub struct Lookup(pub Fixed);

impl Lookup {
    fn sizes(&self) -> [usize; 2] {
        match *self.0.view().dims {
            [n, c] => [n, c],
            _ => [0, 0],
        }
    }
    fn place(n: usize, at: f32) -> usize {
        let at = at.trunc() as i64;
        (if at < 0 { at + n as i64 } else { at }).clamp(0, n as i64 - 1) as usize
    }
}

impl Frozen for Lookup {
    fn name(&self) -> &'static str {
        "rows of a table"
    }
    fn detail(&self) -> String {
        let [n, c] = self.sizes();
        format!("{n} rows of {c}")
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match self.sizes() {
            [n, c] if n * c > 0 => Ok([inputs[0], &[c]].concat()),
            s => Err(format!("a table must have rows, got {s:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let ([n, c], table) = (self.sizes(), self.0.view().data);
        for (at, out) in inputs[0].data.iter().zip(out.chunks_exact_mut(c.max(1))) {
            out.copy_from_slice(&table[Lookup::place(n, *at) * c..][..c]);
        }
    }
    fn pull(&self, inputs: &[View], _: &[f32], _: bool) -> Vec<Vec<f32>> {
        vec![pool::zeros(inputs[0].dims.iter().product())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let [n, c] = self.sizes();
        let at = inputs[0].detach().flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let at: Vec<u32> = at.into_iter().map(|at| Lookup::place(n, at) as u32).collect();
        let at = Tensor::new(&at[..], inputs[0].device())?;
        self.0.like(inputs[0])?.index_select(&at, 0)?.reshape([inputs[0].dims(), &[c]].concat())
    }
}
