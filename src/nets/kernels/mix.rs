//! A sparse linear map along one dimension: entries picked, repeated, mirrored, padded with zeros, averaged, or interpolated.
use super::windows::Windows;
use super::{Frozen, View, pool};
use candle_core::{Device, Result, Tensor};

/// out[.., j, ..] = Σ weight · x[.., i, ..] along a dimension, with a few (i, weight) for each j.
pub struct Mix {
    dim: usize,
    from: usize,
    what: &'static str,
    /// Where the taps of each entry of the result begin; one more at the end.
    starts: Vec<u32>,
    taps: Vec<(u32, f32)>,
}

/// Values below which one thread does it.
const SMALL: usize = 1 << 15;

impl Mix {
    /// Along `dim` of `from` entries; `each` are the taps of each entry of the result, all of them below `from`. `what` names it.
    pub fn new(what: &'static str, dim: usize, from: usize, each: impl IntoIterator<Item = Vec<(usize, f64)>>) -> Mix {
        let (mut starts, mut taps) = (vec![0], vec![]);
        for entry in each {
            taps.extend(entry.iter().filter(|(i, w)| *i < from && *w != 0.0).map(|(i, w)| (*i as u32, *w as f32)));
            starts.push(taps.len() as u32);
        }
        Mix { dim, from, what, starts, taps }
    }
    /// Entries of a dimension in any order, any number of times.
    pub fn picked(dim: usize, from: usize, at: impl IntoIterator<Item = usize>) -> Mix {
        Mix::new("picked entries", dim, from, at.into_iter().map(|i| vec![(i, 1.0)]))
    }
    fn to(&self) -> usize {
        self.starts.len() - 1
    }
    fn of(&self, j: usize) -> &[(u32, f32)] {
        &self.taps[self.starts[j] as usize..self.starts[j + 1] as usize]
    }
    /// Entries before and after the dimension.
    fn around(&self, dims: &[usize]) -> [usize; 2] {
        [dims[..self.dim].iter().product(), dims[self.dim + 1..].iter().product()]
    }
    fn forward(&self, x: &[f32], out: &mut [f32], inner: usize) {
        for (j, out) in out.chunks_exact_mut(inner).enumerate() {
            match self.of(j) {
                [(i, 1.0)] => out.copy_from_slice(&x[*i as usize * inner..][..inner]),
                taps => {
                    out.fill(0.0);
                    for (i, w) in taps {
                        let x = &x[*i as usize * inner..][..inner];
                        out.iter_mut().zip(x).for_each(|(o, x)| *o += w * x);
                    }
                }
            }
        }
    }
    fn back(&self, cot: &[f32], grad: &mut [f32], inner: usize) {
        grad.fill(0.0);
        for (j, cot) in cot.chunks_exact(inner).enumerate() {
            for (i, w) in self.of(j) {
                let to = &mut grad[*i as usize * inner..][..inner];
                to.iter_mut().zip(cot).for_each(|(o, g)| *o += w * g);
            }
        }
    }
    /// Runs `one` on each run of entries, `a` to `b` values long.
    fn spread(from: &[f32], to: &mut [f32], [a, b]: [usize; 2], par: bool, one: impl Fn(&[f32], &mut [f32]) + Sync) {
        if from.is_empty() || to.is_empty() {
            return to.fill(0.0);
        }
        let par = par && to.len() > SMALL;
        Windows::images(from, to, [a, b], par, one);
    }
}

impl Frozen for Mix {
    fn name(&self) -> &'static str {
        self.what
    }
    fn detail(&self) -> String {
        let sum = self.starts.iter().copied().chain(self.taps.iter().flat_map(|(i, w)| [*i, w.to_bits()]));
        let sum = sum.fold(0u64, |h, v| h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(v));
        format!("dimension {}: {} to {}, {sum:x}", self.dim, self.from, self.to())
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        let mut dims = inputs[0].to_vec();
        match dims.get_mut(self.dim) {
            Some(n) if *n == self.from => *n = self.to(),
            _ => return Err(format!("expected {} entries in dimension {}, got {:?}", self.from, self.dim, inputs[0])),
        }
        Ok(dims)
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let [_, inner] = self.around(inputs[0].dims);
        let size = [self.from * inner, self.to() * inner];
        Mix::spread(inputs[0].data, out, size, par, |x, out| self.forward(x, out, inner));
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let [outer, inner] = self.around(inputs[0].dims);
        let mut grad = pool::take(outer * self.from * inner);
        let size = [self.to() * inner, self.from * inner];
        Mix::spread(cot, &mut grad, size, par, |cot, grad| self.back(cot, grad, inner));
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        let [outer, inner] = self.around(x.dims());
        let mut dims = x.dims().to_vec();
        dims[self.dim] = self.to();
        let plain = (0..self.to()).map(|j| match self.of(j) {
            [(i, 1.0)] => Some(*i),
            _ => None,
        });
        if let Some(at) = plain.collect::<Option<Vec<u32>>>() {
            return x.contiguous()?.index_select(&Tensor::from_vec(at, self.to(), x.device())?, self.dim);
        }
        let mut matrix = vec![0f64; self.to() * self.from];
        for j in 0..self.to() {
            self.of(j).iter().for_each(|(i, w)| matrix[j * self.from + *i as usize] += f64::from(*w));
        }
        let matrix = Tensor::from_vec(matrix, (1, self.to(), self.from), &Device::Cpu)?;
        let matrix = matrix.to_dtype(x.dtype())?.to_device(x.device())?;
        matrix.broadcast_matmul(&x.contiguous()?.reshape((outer, self.from, inner))?)?.reshape(dims)
    }
}
