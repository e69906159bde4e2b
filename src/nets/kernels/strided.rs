//! Values in another order or form: dimensions exchanged, cut, repeated, or named anew.
use super::lines::{Lines, strides};
use super::{Frozen, View, pool};
use candle_core::Tensor;

/// A view of a value, copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strided {
    /// The dimensions in this order.
    Permute(Vec<usize>),
    /// `len` entries of a dimension, from `start`, every `step`-th.
    Slice {
        /// The dimension.
        dim: usize,
        /// The first entry.
        start: usize,
        /// How many.
        len: usize,
        /// From one to the next.
        step: usize,
    },
    /// Dimensions of size 1 repeated to these sizes; none keeps what is there. New ones stand in front.
    Expand(Vec<Option<usize>>),
}

/// A view's shape, its strides in the original, and where it begins there.
type Seen = (Vec<usize>, Vec<isize>, isize);

impl Strided {
    fn seen(&self, dims: &[usize]) -> Option<Seen> {
        let own = strides(dims);
        match self {
            Strided::Permute(order) if order.len() == dims.len() && order.iter().all(|d| *d < dims.len()) => {
                Some((order.iter().map(|d| dims[*d]).collect(), order.iter().map(|d| own[*d]).collect(), 0))
            }
            Strided::Slice { dim, start, len, step } if start + len.saturating_sub(1) * step < *dims.get(*dim)? => {
                let (mut dims, mut by) = (dims.to_vec(), own.clone());
                (dims[*dim], by[*dim]) = (*len, own[*dim] * *step as isize);
                Some((dims, by, (own[*dim] as usize * start) as isize))
            }
            Strided::Expand(to) if to.len() >= dims.len() => {
                let new = to.len() - dims.len();
                let (mut all, mut by) = (vec![], vec![]);
                for (i, n) in to.iter().enumerate() {
                    let have = if i < new { 1 } else { dims[i - new] };
                    let n = n.unwrap_or(have);
                    if n != have && have != 1 {
                        return None;
                    }
                    all.push(n);
                    by.push(if i < new || n != have { 0 } else { own[i - new] });
                }
                Some((all, by, 0))
            }
            _ => None,
        }
    }
}

/// Edge of the blocks in which a transposition works: both sides stay in the first-level cache.
const TILE: usize = 16;

/// out = x, seen with these strides.
fn copy(x: &[f32], (dims, by, start): &Seen, out: &mut [f32]) {
    let lines = Lines::new(dims, [strides(dims), by.clone()]);
    let (n, [_, step]) = (lines.len(), lines.along());
    if step == 1 {
        return lines.each(1, [0, *start], |[o, i]| out[o..o + n].copy_from_slice(&x[i..i + n]));
    }
    let rank = lines.dims.len();
    if rank > 1 && step > 1 && lines.strides[1][rank - 2] == 1 {
        let (rows, step) = (lines.dims[rank - 2], step as usize);
        return lines.each(2, [0, *start], |[o, i]| {
            let (out, x) = (&mut out[o..o + rows * n], &x[i..]);
            for first in (0..rows).step_by(TILE) {
                let high = TILE.min(rows - first);
                for c in (0..n).step_by(TILE) {
                    for c in c..(c + TILE).min(n) {
                        for (r, v) in x[c * step + first..][..high].iter().enumerate() {
                            out[(first + r) * n + c] = *v;
                        }
                    }
                }
            }
        });
    }
    lines.each(1, [0, *start], |[o, i]| {
        out[o..o + n].iter_mut().enumerate().for_each(|(k, o)| *o = x[(i as isize + k as isize * step) as usize]);
    });
}

/// x += cot, where it was seen with these strides.
fn add(cot: &[f32], (dims, by, start): &Seen, x: &mut [f32]) {
    let lines = Lines::new(dims, [strides(dims), by.clone()]);
    let (n, [_, step]) = (lines.len(), lines.along());
    lines.each(1, [0, *start], |[o, i]| {
        let from = &cot[o..o + n];
        match step {
            0 => x[i] += from.iter().sum::<f32>(),
            1 => x[i..i + n].iter_mut().zip(from).for_each(|(x, g)| *x += g),
            _ => from.iter().enumerate().for_each(|(k, g)| x[(i as isize + k as isize * step) as usize] += g),
        }
    });
}

impl Frozen for Strided {
    fn name(&self) -> &'static str {
        match self {
            Strided::Permute(_) => "permutation",
            Strided::Slice { .. } => "slice",
            Strided::Expand(_) => "expansion",
        }
    }
    fn detail(&self) -> String {
        match self {
            Strided::Permute(order) => format!("{order:?}"),
            Strided::Slice { dim, start, len, step } => format!("dimension {dim}: {len} from {start} by {step}"),
            Strided::Expand(to) => {
                let sizes: Vec<String> = to.iter().map(|n| n.map_or("…".into(), |n| n.to_string())).collect();
                format!("[{}]", sizes.join(", "))
            }
        }
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.seen(inputs[0]).map(|s| s.0).ok_or_else(|| format!("{self:?} does not fit {:?}", inputs[0]))
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        if let Some(seen) = self.seen(inputs[0].dims) {
            copy(inputs[0].data, &seen, out);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let dims = inputs[0].dims;
        let n = dims.iter().product();
        if let Strided::Permute(order) = self {
            let back = (0..order.len()).map(|d| order.iter().position(|o| *o == d).unwrap_or(d)).collect();
            let there: Vec<usize> = order.iter().map(|d| dims[*d]).collect();
            let mut grad = pool::take(n);
            if let Some(seen) = Strided::Permute(back).seen(&there) {
                copy(cot, &seen, &mut grad);
            }
            return vec![grad];
        }
        let mut grad = pool::zeros(n);
        if let Some(seen) = self.seen(dims) {
            add(cot, &seen, &mut grad);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let x = inputs[0];
        match self {
            Strided::Permute(order) => x.permute(order.clone())?.contiguous(),
            Strided::Slice { dim, start, len, step: 1 } => x.narrow(*dim, *start, *len)?.contiguous(),
            Strided::Slice { dim, start, len, step } => {
                let at: Vec<i64> = (0..*len).map(|i| (start + i * step) as i64).collect();
                x.index_select(&Tensor::from_vec(at, *len, x.device())?, *dim)
            }
            Strided::Expand(_) => {
                let dims = self.seen(x.dims()).map(|s| s.0).unwrap_or_default();
                x.broadcast_as(dims)?.contiguous()
            }
        }
    }
}

/// The same values in another shape of the whole batch; one size is what is left over for it, as −1 in scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshaped(pub Vec<Option<usize>>);

impl Frozen for Reshaped {
    fn name(&self) -> &'static str {
        "reshaping"
    }
    fn detail(&self) -> String {
        let sizes: Vec<String> = self.0.iter().map(|n| n.map_or("…".into(), |n| n.to_string())).collect();
        format!("[{}]", sizes.join(", "))
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let (all, known) = (inputs[0].iter().product::<usize>(), self.0.iter().flatten().product::<usize>());
        let left = all.checked_div(known).unwrap_or(0);
        let dims: Vec<usize> = self.0.iter().map(|n| n.unwrap_or(left)).collect();
        match dims.iter().product::<usize>() == all {
            true => Ok(dims),
            false => Err(format!("{:?} does not reshape to [{}]", inputs[0], self.detail())),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        out.copy_from_slice(inputs[0].data);
    }
    fn pull(&self, _: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        grad.copy_from_slice(cot);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let dims = Frozen::dims(self, &[inputs[0].dims()]).map_err(candle_core::Error::Msg)?;
        inputs[0].contiguous()?.reshape(dims)
    }
}
