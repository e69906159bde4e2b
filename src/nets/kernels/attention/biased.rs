//! Attention with something added to its scores: by how far tokens are apart, or to leave out keys.
use super::super::heads::{Bias, Heads};
use super::super::{Frozen, View, host_f32, pool};
use super::{apart, composed, fits, flat, pull_apart, run_apart, tokens};
use candle_core::{DType, Result, Tensor};

/// What scores of keys that do not count are lowered by.
const AWAY: f32 = -1e30;

/// softmax(q kᵀ + b) v for each head, with b by how far a key lies behind the query: q, k, v [B, T, C] → [B, T, C]. Scores are not
/// divided by √d.
pub struct RelativeAttention {
    heads: usize,
    /// A row for each bucket, a column for each head.
    table: Tensor,
    /// The bucket of each distance from −reach to reach.
    buckets: Vec<u32>,
    /// The bias of each head at each of these.
    values: Vec<f32>,
}

impl RelativeAttention {
    /// From a table [buckets, heads], and the bucket of each distance key − query from −r to r; what is farther is taken to be at −r or r.
    pub fn new(table: Tensor, buckets: Vec<u32>) -> Result<Self> {
        let (rows, heads) = table.dims2()?;
        if heads == 0 || buckets.len().is_multiple_of(2) || buckets.iter().any(|b| *b as usize >= rows) {
            candle_core::bail!("a bias of {rows} rows does not fit {} distances", buckets.len());
        }
        let host = host_f32(&table)?;
        let values =
            (0..heads).flat_map(|h| buckets.iter().map(move |b| (h, *b))).map(|(h, b)| host[b as usize * heads + h]);
        Ok(RelativeAttention { heads, values: values.collect(), table, buckets })
    }
    fn heads_of(&self, inputs: &[View]) -> Heads<'_> {
        let bias = Bias::Relative { values: &self.values, reach: self.buckets.len() / 2 };
        Heads { scale: 1.0, bias, ..apart(self.heads, &[inputs[0].dims, inputs[1].dims]) }
    }
}

impl Frozen for RelativeAttention {
    fn name(&self) -> &'static str {
        "frozen relative attention"
    }
    fn detail(&self) -> String {
        format!("{} heads, {} distances", self.heads, self.buckets.len())
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        fits(self.heads, true, inputs)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        run_apart(|_| self.heads_of(inputs), inputs, out, par);
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        pull_apart(|_| self.heads_of(inputs), inputs, cot, par)
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.compose_with(inputs, std::slice::from_ref(&self.table))
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![self.table.clone()])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        let (t, reach) = (tokens(inputs[0].dims()), self.buckets.len() / 2);
        let bucket = |i: usize| self.buckets[(i % t + reach).saturating_sub(i / t).min(2 * reach)];
        let ids = Tensor::from_vec((0..t * t).map(bucket).collect(), t * t, weights[0].device())?;
        let bias = weights[0].index_select(&ids, 0)?.t()?.reshape((1, self.heads, t, t))?;
        let [q, k, v] = flat(inputs)?;
        composed([&q, &k, &v], self.heads, false, Some(1.0), Some(&bias))?.reshape(inputs[0].dims())
    }
}

/// softmax(q kᵀ / √d) v for each head over the keys that count: q [B, .., C], k and v [B, keys, C], and for each key [B, keys] 1 where it
/// counts and 0 where not → [B, .., C] as q. Keys beyond the mask do not count; where none does, all do.
pub struct MaskedAttention {
    /// The number of heads; divides C.
    pub heads: usize,
}

impl Frozen for MaskedAttention {
    fn name(&self) -> &'static str {
        "frozen masked attention"
    }
    fn detail(&self) -> String {
        format!("{} heads", self.heads)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs {
            [q, k, v, mask] if k.len() == 3 && mask.len() == 2 && mask[0] == k[0] => {
                fits(self.heads, false, &[q, k, v])
            }
            _ => Err(format!("expected q, k, v and a mask [B, keys], got {inputs:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let keys = inputs[1].dims[1];
        let bias = lowered(&inputs[3], keys);
        run_apart(|i| self.heads_of(inputs, &bias[i * keys..][..keys]), inputs, out, par);
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let keys = inputs[1].dims[1];
        let bias = lowered(&inputs[3], keys);
        let mut grads = pull_apart(|i| self.heads_of(inputs, &bias[i * keys..][..keys]), inputs, cot, par);
        // whether a key counts is no quantity
        grads.push(pool::zeros(inputs[3].data.len()));
        grads
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let [q, k, v] = flat(inputs)?;
        let ((b, given), keys) = (inputs[3].dims2()?, k.dim(1)?);
        let counts = inputs[3].detach().gt(0.5)?.to_dtype(q.dtype())?;
        let counts = counts.narrow(1, 0, given.min(keys))?.pad_with_zeros(1, 0, keys - given.min(keys))?;
        // where no key counts all do
        let none = counts.sum_keepdim(1)?.eq(0.0)?.to_dtype(q.dtype())?;
        let away = if q.dtype() == DType::F16 { -6e4 } else { f64::from(AWAY) };
        let bias = (counts.broadcast_add(&none)?.affine(-away, away)?).reshape((b, 1, 1, keys))?;
        composed([&q, &k, &v], self.heads, false, None, Some(&bias))?.reshape(inputs[0].dims())
    }
}

impl MaskedAttention {
    fn heads_of<'a>(&self, inputs: &[View], bias: &'a [f32]) -> Heads<'a> {
        Heads { bias: Bias::Keys(bias), ..apart(self.heads, &[inputs[0].dims, inputs[1].dims]) }
    }
}

/// What is added to the score of each of so many keys, for samples of a mask.
fn lowered(mask: &View, keys: usize) -> Vec<f32> {
    let mut bias = vec![AWAY; mask.dims[0] * keys];
    for (row, given) in bias.chunks_mut(keys.max(1)).zip(mask.data.chunks(mask.dims[1].max(1))) {
        row.iter_mut().zip(given).filter(|(_, m)| **m > 0.5).for_each(|(b, _)| *b = 0.0);
        if row.iter().all(|b| *b < 0.0) {
            row.fill(0.0);
        }
    }
    bias
}
