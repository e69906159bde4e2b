//! Tokens on their way into a network, and one of them out of it again.
use super::{Frozen, View, pool};
use candle_core::{CpuStorage, D, DType, Device, Result, Storage, Tensor};

/// A row of a table for each token, and where there are places a row for its place: [B, T] whole numbers → [B, T, C].
pub struct TokenEmbedding {
    table: Tensor,
    places: Option<Tensor>,
}

impl TokenEmbedding {
    /// From a table [tokens, C] and its places [T or more, C], in the dtype and on the device that the composed form shall use. The table
    /// of one that runs in f32 on the CPU may be of 16 bits: its rows are widened as they are taken.
    pub fn new(table: Tensor, places: Option<Tensor>) -> Result<Self> {
        let (rows, c) = table.dims2()?;
        let fits = match &places {
            Some(p) => p.dims2().is_ok_and(|(n, width)| n > 0 && width == c),
            None => true,
        };
        if rows * c == 0 || !fits {
            candle_core::bail!(
                "a token embedding needs tables of one width, got {:?} and {:?}",
                table.dims(),
                places.map(|p| p.dims().to_vec())
            );
        }
        Ok(TokenEmbedding { table: table.contiguous()?, places: places.map(|p| p.contiguous()).transpose()? })
    }
    /// Rows of the table, places, channels.
    fn sizes(&self) -> [usize; 3] {
        let (rows, c) = (self.table.dims()[0], self.table.dims()[1]);
        [rows, self.places.as_ref().map_or(usize::MAX, |p| p.dims()[0]), c]
    }
}

/// Adds row `row` of a table on the host to `out`.
fn add_row(table: &Tensor, row: usize, out: &mut [f32]) {
    let (storage, layout) = table.storage_and_layout();
    let at = layout.start_offset() + row * out.len();
    let span = at..at + out.len();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(v)) => out.iter_mut().zip(&v[span]).for_each(|(o, v)| *o += v),
        Storage::Cpu(CpuStorage::F16(v)) => out.iter_mut().zip(&v[span]).for_each(|(o, v)| *o += v.to_f32()),
        Storage::Cpu(CpuStorage::BF16(v)) => out.iter_mut().zip(&v[span]).for_each(|(o, v)| *o += v.to_f32()),
        // plain buffers are of f32 networks, whose tables are of these
        _ => out.fill(f32::NAN),
    }
}

impl Frozen for TokenEmbedding {
    fn name(&self) -> &'static str {
        "token embedding"
    }
    fn detail(&self) -> String {
        let [rows, places, c] = self.sizes();
        match self.places {
            Some(_) => format!("{rows} tokens at {places} places, {c} channels"),
            None => format!("{rows} tokens, {c} channels"),
        }
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
        for (i, (id, out)) in inputs[0].data.iter().zip(out.chunks_exact_mut(c)).enumerate() {
            out.fill(0.0);
            add_row(&self.table, (*id as usize).min(rows - 1), out);
            if let Some(places) = &self.places {
                add_row(places, i % t, out);
            }
        }
    }
    fn pull(&self, inputs: &[View], _: &[f32], _: bool) -> Vec<Vec<f32>> {
        // numbers of tokens are no quantities
        vec![pool::zeros(inputs[0].dims.iter().product())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.compose_with(inputs, &Frozen::weights(self)?)
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok([Some(self.table.clone()), self.places.clone()].into_iter().flatten().collect())
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        let (b, t) = inputs[0].dims2()?;
        let ids = inputs[0].detach().to_dtype(DType::U32)?.flatten_all()?;
        let rows = weights[0].index_select(&ids, 0)?.reshape((b, t, self.sizes()[2]))?;
        let rows = if matches!(rows.dtype(), DType::F16 | DType::BF16) { rows.to_dtype(DType::F32)? } else { rows };
        match weights.get(1) {
            Some(places) => rows.broadcast_add(&places.narrow(0, 0, t)?.unsqueeze(0)?),
            None => Ok(rows),
        }
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
