//! Features as rows of f64 numbers, with the products and distances of all pairs in blocks.
use crate::host::check_cancelled;
use crate::tensor::memory;
use crate::tensor::random::{generator, shuffled, stream};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// Rows whose distances to all others are in memory together.
const BLOCK: usize = 256;

/// Finite features, [N, D].
#[derive(Debug, Clone)]
pub struct Rows {
    data: Vec<f64>,
    width: usize,
}

impl Rows {
    /// Of a tensor [N, D], N and D at least 1. Errors name the row that is not finite.
    pub fn new(what: &str, features: &Tensor) -> Result<Rows> {
        let &[n, width] = features.dims() else {
            let m = format!("{what}: features must be [N, D], not {:?}", features.dims());
            return Err(Error::shape(m, &[features.dims()]));
        };
        if n * width == 0 {
            return Err(Error::shape(
                format!("{what}: there are no features ({:?})", features.dims()),
                &[features.dims()],
            ));
        }
        memory::room(what, n * width * 8)?;
        let data: Vec<f64> =
            features.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        if let Some(i) = data.iter().position(|v| !v.is_finite()) {
            return Err(Error::value(format!("{what}: row {} of the features is not finite", i / width)));
        }
        Ok(Rows { data, width })
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.data.len() / self.width
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
    /// D.
    pub fn width(&self) -> usize {
        self.width
    }
    /// One of them.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.width..][..self.width]
    }
    /// All of them, one after the other.
    pub fn data(&self) -> &[f64] {
        &self.data
    }
    /// Fails unless the two are as wide.
    pub fn same_width(&self, what: &str, other: &Rows) -> Result<()> {
        if self.width == other.width {
            return Ok(());
        }
        let m = format!("{what}: features of width {} and {} are of different networks", self.width, other.width);
        Err(Error::shape(m, &[&[self.len(), self.width], &[other.len(), other.width]]))
    }
    /// Those of `self`, then those of `other`.
    pub fn with(&self, other: &Rows) -> Rows {
        Rows { data: [&self.data[..], &other.data].concat(), width: self.width }
    }
    /// A block as a tensor.
    fn block(&self, from: usize, to: usize) -> Result<Tensor> {
        let data = self.data[from * self.width..to * self.width].to_vec();
        Ok(Tensor::from_vec(data, (to - from, self.width), &Device::Cpu)?)
    }
    /// Row i · row j of `other`, [N, M].
    pub fn products(&self, other: &Rows) -> Result<Vec<f64>> {
        memory::room("products of features", self.len() * other.len() * 8)?;
        let y = other.block(0, other.len())?.t()?;
        let mut out = Vec::with_capacity(self.len() * other.len());
        for from in (0..self.len()).step_by(BLOCK) {
            check_cancelled()?;
            let x = self.block(from, (from + BLOCK).min(self.len()))?;
            out.extend(x.matmul(&y)?.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok(out)
    }
    /// Calls `f(i, squared distances of row i to all of other)` for each row, block by block.
    pub fn distances(&self, other: &Rows, mut f: impl FnMut(usize, &mut [f64])) -> Result<()> {
        let square = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>();
        let norms: Vec<f64> = (0..other.len()).map(|j| square(other.row(j))).collect();
        let y = other.block(0, other.len())?.t()?;
        for from in (0..self.len()).step_by(BLOCK) {
            check_cancelled()?;
            let to = (from + BLOCK).min(self.len());
            let mut products: Vec<f64> = self.block(from, to)?.matmul(&y)?.flatten_all()?.to_vec1()?;
            for (i, row) in products.chunks_exact_mut(other.len()).enumerate() {
                let own = square(self.row(from + i));
                row.iter_mut().zip(&norms).for_each(|(p, n)| *p = (own + n - 2.0 * *p).max(0.0));
                f(from + i, row);
            }
        }
        Ok(())
    }
}

/// `most` rows drawn without replacement, in the order of the draw; all of them, in their own order, where there are no more.
pub(super) fn chosen(x: &Rows, most: usize, seed: u64, draw: u64) -> Result<Rows> {
    if x.len() <= most {
        return Ok(x.clone());
    }
    let order = shuffled(&mut generator(seed, stream::METRIC, draw), x.len())?;
    Ok(Rows { data: order[..most].iter().flat_map(|i| x.row(*i)).copied().collect(), width: x.width })
}
