//! Tokens on their way into a network, and one of them out of it again.
use super::{Frozen, View, host_f32, pool};
use candle_core::{CpuStorage, D, DType, Device, Result, Storage, Tensor};
use std::borrow::Cow;

/// A row of a table for each token, and a row for its place: [B, T] whole numbers → [B, T, C].
pub struct TokenEmbedding {
    table: Tensor,
    places: Tensor,
}

impl TokenEmbedding {
    /// From a table [tokens, C] and its places [T or more, C], in the dtype and on the device that the composed form shall use.
    pub fn new(table: Tensor, places: Tensor) -> Result<Self> {
        let ((rows, c), (most, c2)) = (table.dims2()?, places.dims2()?);
        if rows * c * most == 0 || c != c2 {
            candle_core::bail!(
                "a token embedding needs tables of one width, got {:?} and {:?}",
                table.dims(),
                places.dims()
            );
        }
        Ok(TokenEmbedding { table: table.contiguous()?, places: places.contiguous()? })
    }
    fn sizes(&self) -> [usize; 3] {
        let (rows, c) = (self.table.dims()[0], self.table.dims()[1]);
        [rows, self.places.dims()[0], c]
    }
}

/// Calls `f` with a weight's values in f32, which are not copied where they are that already.
fn values(t: &Tensor, f: impl FnOnce(&[f32])) {
    let (storage, layout) = t.storage_and_layout();
    let own = match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(v)), Some((start, end))) => Cow::Borrowed(&v[start..end]),
        // on the host, which cannot fail
        _ => Cow::Owned(host_f32(t).unwrap_or_default()),
    };
    f(&own);
}

impl Frozen for TokenEmbedding {
    fn name(&self) -> &'static str {
        "token embedding"
    }
    fn detail(&self) -> String {
        let [rows, places, c] = self.sizes();
        format!("{rows} tokens at {places} places, {c} channels")
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        let [_, places, c] = self.sizes();
        match *inputs[0] {
            [b, t] if t <= places => Ok(vec![b, t, c]),
            ref d => Err(format!("expected [B, tokens] with at most {places} tokens, got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let [rows, _, c] = self.sizes();
        let t = inputs[0].dims[1].max(1);
        values(&self.table, |table| {
            values(&self.places, |places| {
                for (i, (id, out)) in inputs[0].data.iter().zip(out.chunks_exact_mut(c)).enumerate() {
                    let (row, place) = (&table[(*id as usize).min(rows - 1) * c..][..c], &places[i % t * c..][..c]);
                    out.iter_mut().zip(row).zip(place).for_each(|((o, a), b)| *o = a + b);
                }
            });
        });
    }
    fn pull(&self, inputs: &[View], _: &[f32], _: bool) -> Vec<Vec<f32>> {
        // numbers of tokens are no quantities
        vec![pool::zeros(inputs[0].dims.iter().product())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.compose_with(inputs, &[self.table.clone(), self.places.clone()])
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![self.table.clone(), self.places.clone()])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        let (b, t) = inputs[0].dims2()?;
        let ids = inputs[0].detach().to_dtype(DType::U32)?.flatten_all()?;
        let rows = weights[0].index_select(&ids, 0)?.reshape((b, t, self.sizes()[2]))?;
        rows.broadcast_add(&weights[1].narrow(0, 0, t)?.unsqueeze(0)?)
    }
}

/// One token of each sample: [B, T, C] and the places [B] → [B, C].
pub struct Pick;

impl Pick {
    /// Where in a batch the picked rows begin.
    fn rows(inputs: &[View]) -> impl Iterator<Item = usize> {
        let (t, c) = (inputs[0].dims[1], inputs[0].dims[2]);
        let places: Vec<usize> = inputs[1].data.iter().map(|p| (*p as usize).min(t - 1)).collect();
        places.into_iter().enumerate().map(move |(i, p)| (i * t + p) * c)
    }
}

impl Frozen for Pick {
    fn name(&self) -> &'static str {
        "one token"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match (inputs[0], inputs[1]) {
            (&[b, t, c], &[places]) if b == places && t > 0 => Ok(vec![b, c]),
            (x, at) => Err(format!("expected [B, tokens, C] and [B], got {x:?} and {at:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let c = inputs[0].dims[2].max(1);
        for (out, at) in out.chunks_exact_mut(c).zip(Pick::rows(inputs)) {
            out.copy_from_slice(&inputs[0].data[at..][..c]);
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let c = inputs[0].dims[2].max(1);
        let mut grad = pool::zeros(inputs[0].dims.iter().product());
        for (cot, at) in cot.chunks_exact(c).zip(Pick::rows(inputs)) {
            grad[at..][..c].copy_from_slice(cot);
        }
        vec![grad, pool::zeros(inputs[1].data.len())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (x, at) = (inputs[0], inputs[1].detach());
        let (_, t, _) = x.dims3()?;
        let places = Tensor::arange(0u32, t as u32, &Device::Cpu)?.to_dtype(at.dtype())?.to_device(at.device())?;
        let here = at.unsqueeze(1)?.broadcast_eq(&places.unsqueeze(0)?)?.to_dtype(x.dtype())?;
        x.broadcast_mul(&here.unsqueeze(D::Minus1)?)?.sum(1)
    }
}
