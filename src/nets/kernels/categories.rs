//! Features that are one of several, each: a row of a table for each column, added.
use super::{Frozen, View, host_f32, pool};
use candle_core::{DType, Result, Tensor};

/// Σ over columns of row x[.., k] of table k: whole numbers [B, N, columns] → [B, N, C]. A number beyond a table is its last row.
pub struct Categories {
    tables: Vec<Tensor>,
    values: Vec<Vec<f32>>,
    width: usize,
}

impl Categories {
    /// From tables [entries, C] of one width.
    pub fn new(tables: Vec<Tensor>) -> Result<Categories> {
        let width = tables.first().map_or(Ok(0), |t| t.dim(1))?;
        if tables.iter().any(|t| t.dims2().map_or(true, |(n, w)| n == 0 || w != width)) {
            candle_core::bail!("tables of categories need one width and at least an entry");
        }
        let values = tables.iter().map(host_f32).collect::<Result<_>>()?;
        Ok(Categories { tables, values, width })
    }
}

impl Frozen for Categories {
    fn name(&self) -> &'static str {
        "categories"
    }
    fn detail(&self) -> String {
        let sizes: Vec<usize> = self.tables.iter().map(|t| t.dims()[0]).collect();
        format!("of {sizes:?}")
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match *inputs[0] {
            [b, n, k] if k == self.tables.len() => Ok(vec![b, n, self.width]),
            ref d => Err(format!("expected [B, N, {}], got {d:?}", self.tables.len())),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let (k, c) = (self.tables.len().max(1), self.width.max(1));
        for (x, out) in inputs[0].data.chunks_exact(k).zip(out.chunks_exact_mut(c)) {
            out.fill(0.0);
            for (x, table) in x.iter().zip(&self.values) {
                let row = (*x as usize).min(table.len() / c - 1);
                out.iter_mut().zip(&table[row * c..]).for_each(|(o, v)| *o += v);
            }
        }
    }
    fn pull(&self, inputs: &[View], _: &[f32], _: bool) -> Vec<Vec<f32>> {
        // which of several is no quantity
        vec![pool::zeros(inputs[0].dims.iter().product())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.compose_with(inputs, &self.tables)
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(self.tables.clone())
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        let (b, n, k) = inputs[0].dims3()?;
        let all: Vec<f64> = inputs[0].detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        let mut sum: Option<Tensor> = None;
        for (column, table) in weights.iter().enumerate() {
            let last = table.dim(0)? - 1;
            let ids: Vec<u32> = all.iter().skip(column).step_by(k).map(|v| (*v as usize).min(last) as u32).collect();
            let rows = table.index_select(&Tensor::from_vec(ids, b * n, table.device())?, 0)?;
            sum = Some(match sum {
                Some(sum) => (sum + rows)?,
                None => rows,
            });
        }
        match sum {
            Some(sum) => sum.reshape((b, n, self.width)),
            None => Tensor::zeros((b, n, self.width), inputs[0].dtype(), inputs[0].device()),
        }
    }
}
