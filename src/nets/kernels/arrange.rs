//! Tokens cut apart, moved, turned by their place, and shifted by it.
use super::{Frozen, Op, View, pool};
use candle_core::{D, Device, Result, Tensor};
use std::sync::Arc;

/// The tokens before the last ones, and these: [B, m + n, C] → [B, m, C] and [B, n, C].
pub struct Cut {
    /// How many are the last.
    pub last: usize,
}

impl Op for Cut {
    fn name(&self) -> &'static str {
        "cut tokens"
    }
    fn detail(&self) -> String {
        format!("the last {}", self.last)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<Vec<usize>>, String> {
        match *inputs[0] {
            [b, t, c] if t > self.last && self.last > 0 => Ok(vec![vec![b, t - self.last, c], vec![b, self.last, c]]),
            ref d => Err(format!("expected more than {} tokens [B, tokens, C], got {d:?}", self.last)),
        }
    }
    fn run(&self, inputs: &[View], outs: &mut [Vec<f32>], _: bool) {
        let (t, c) = (inputs[0].dims[1], inputs[0].dims[2]);
        let first = (t - self.last) * c;
        for (i, x) in inputs[0].data.chunks_exact((t * c).max(1)).enumerate() {
            outs[0][i * first..][..first].copy_from_slice(&x[..first]);
            outs[1][i * (t * c - first)..][..t * c - first].copy_from_slice(&x[first..]);
        }
    }
    fn saves(&self) -> bool {
        false
    }
    fn pull(&self, inputs: &[View], cots: &[Option<&[f32]>], _: bool) -> Vec<Vec<f32>> {
        let (t, c) = (inputs[0].dims[1], inputs[0].dims[2]);
        let (first, last) = ((t - self.last) * c, self.last * c);
        let mut grad = pool::zeros(inputs[0].dims.iter().product());
        for (i, to) in grad.chunks_exact_mut((t * c).max(1)).enumerate() {
            if let Some(cot) = cots[0] {
                to[..first].copy_from_slice(&cot[i * first..][..first]);
            }
            if let Some(cot) = cots[1] {
                to[first..].copy_from_slice(&cot[i * last..][..last]);
            }
        }
        vec![grad]
    }
    fn apply(self: Arc<Self>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.compose_with(inputs, &[])
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![])
    }
    fn compose_with(&self, inputs: &[&Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let first = inputs[0].dim(1)? - self.last;
        Ok(vec![inputs[0].narrow(1, 0, first)?.contiguous()?, inputs[0].narrow(1, first, self.last)?.contiguous()?])
    }
}

/// Values of a sample at other places, each at most once: patches of an image as tokens, and back.
pub struct Moved {
    dims: Vec<usize>,
    size: usize,
    from: Vec<u32>,
}

impl Moved {
    /// A result of shape `dims` whose value i is value `from(i)` of a sample of `size` values.
    pub fn new(size: usize, dims: &[usize], from: impl Fn(usize) -> usize) -> Moved {
        let from = (0..dims.iter().product()).map(|i| from(i) as u32).collect();
        Moved { dims: dims.to_vec(), size, from }
    }
}

impl Frozen for Moved {
    fn name(&self) -> &'static str {
        "moved values"
    }
    fn detail(&self) -> String {
        // an order by its checksum
        let sum = self.from.iter().fold(0u64, |h, v| h.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*v));
        format!("{} to {:?}, {sum:x}", self.size, self.dims)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs[0].split_first() {
            Some((b, rest)) if rest.iter().product::<usize>() == self.size => Ok([&[*b], &self.dims[..]].concat()),
            _ => Err(format!("expected {} values of each sample, got {:?}", self.size, inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        for (x, out) in inputs[0].data.chunks_exact(self.size).zip(out.chunks_exact_mut(self.from.len())) {
            out.iter_mut().zip(&self.from).for_each(|(o, i)| *o = x[*i as usize]);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::zeros(inputs[0].dims.iter().product());
        for (g, cot) in grad.chunks_exact_mut(self.size).zip(cot.chunks_exact(self.from.len())) {
            cot.iter().zip(&self.from).for_each(|(v, i)| g[*i as usize] = *v);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let b = inputs[0].dim(0)?;
        let from = Tensor::new(&self.from[..], &Device::Cpu)?.to_device(inputs[0].device())?;
        let all = inputs[0].reshape((b, self.size))?.index_select(&from, 1)?;
        all.reshape([&[b], &self.dims[..]].concat())
    }
}

/// A row of a table added to each token: [B, T, C] → the same.
pub struct Offset(pub Tensor);

impl Frozen for Offset {
    fn name(&self) -> &'static str {
        "places"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match (inputs[0], self.0.dims()) {
            (&[_, t, c], &[rows, width]) if (t, c) == (rows, width) => Ok(inputs[0].to_vec()),
            (d, own) => Err(format!("expected [B, {own:?}], got {d:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        // on the host, which cannot fail
        let table = super::host_f32(&self.0).unwrap_or_default();
        for (x, out) in inputs[0].data.chunks_exact(table.len()).zip(out.chunks_exact_mut(table.len())) {
            out.iter_mut().zip(x).zip(&table).for_each(|((o, x), t)| *o = x + t);
        }
    }
    fn pull(&self, _: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        grad.copy_from_slice(cot);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        inputs[0].broadcast_add(&self.0.to_device(inputs[0].device())?.to_dtype(inputs[0].dtype())?)
    }
    fn weights(&self) -> Result<Vec<Tensor>> {
        Ok(vec![self.0.clone()])
    }
    fn compose_with(&self, inputs: &[&Tensor], weights: &[Tensor]) -> Result<Tensor> {
        inputs[0].broadcast_add(&weights[0])
    }
}

/// Rotary embedding of the last tokens, head by head: each pair of channels turned by an angle of the token's place.
/// [B, T, heads · d] → the same; tokens before them stay as they are.
pub struct Rotary {
    /// cos and sin, [tokens, d/2] each.
    cos: Vec<f64>,
    sin: Vec<f64>,
    pairs: usize,
}

impl Rotary {
    /// From the angles [tokens, pairs].
    pub fn new(angles: &[f64], pairs: usize) -> Rotary {
        let (sin, cos) = angles.iter().map(|a| a.sin_cos()).unzip();
        Rotary { cos, sin, pairs: pairs.max(1) }
    }
    fn tokens(&self) -> usize {
        self.cos.len() / self.pairs
    }
    fn turn(&self, dims: &[usize], x: &[f32], out: &mut [f32], sign: f32) {
        let (t, c) = (dims[1], dims[2]);
        let before = (t - self.tokens()) * c;
        let [cos, sin] = [&self.cos, &self.sin].map(|v| v.iter().map(|v| *v as f32).collect::<Vec<f32>>());
        for (x, out) in x.chunks_exact((t * c).max(1)).zip(out.chunks_exact_mut((t * c).max(1))) {
            out[..before].copy_from_slice(&x[..before]);
            let rows = x[before..].chunks_exact(c).zip(out[before..].chunks_exact_mut(c));
            for ((x, out), (cos, sin)) in rows.zip(cos.chunks(self.pairs).zip(sin.chunks(self.pairs))) {
                for (x, out) in x.chunks_exact(2 * self.pairs).zip(out.chunks_exact_mut(2 * self.pairs)) {
                    let pairs = x.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<2>().0);
                    for ((x, out), (c, s)) in pairs.zip(cos.iter().zip(sin)) {
                        *out = [x[0] * c - sign * x[1] * s, x[1] * c + sign * x[0] * s];
                    }
                }
            }
        }
    }
}

impl Frozen for Rotary {
    fn name(&self) -> &'static str {
        "rotary embedding"
    }
    fn detail(&self) -> String {
        let sum: f64 = self.cos.iter().zip(&self.sin).enumerate().map(|(i, (c, s))| (c - s) * (i + 1) as f64).sum();
        format!("the last {} tokens, {} channels, {sum:e}", self.tokens(), 2 * self.pairs)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match *inputs[0] {
            [_, t, c] if t >= self.tokens() && c > 0 && c % (2 * self.pairs) == 0 => Ok(inputs[0].to_vec()),
            ref d => Err(format!(
                "expected at least {} tokens of a multiple of {} channels, got {d:?}",
                self.tokens(),
                2 * self.pairs
            )),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        self.turn(inputs[0].dims, inputs[0].data, out, 1.0);
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let mut grad = pool::take(cot.len());
        self.turn(inputs[0].dims, cot, &mut grad, -1.0);
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let x = inputs[0];
        let ((b, t, c), p) = (x.dims3()?, self.pairs);
        let n = self.tokens();
        let of =
            |v: &[f64]| Tensor::new(v, &Device::Cpu)?.reshape((1, n, 1, p))?.to_dtype(x.dtype())?.to_device(x.device());
        let (cos, sin) = (of(&self.cos)?, of(&self.sin)?);
        let pairs = x.narrow(1, t - n, n)?.contiguous()?.reshape((b, n, c / (2 * p), p, 2))?;
        let part = |k: usize| pairs.narrow(4, k, 1)?.contiguous()?.squeeze(4);
        let (x0, x1) = (part(0)?, part(1)?);
        let y0 = (x0.broadcast_mul(&cos)? - x1.broadcast_mul(&sin)?)?;
        let y1 = (x1.broadcast_mul(&cos)? + x0.broadcast_mul(&sin)?)?;
        let turned = Tensor::stack(&[y0, y1], D::Minus1)?.reshape((b, n, c))?;
        match t - n {
            0 => Ok(turned),
            before => Tensor::cat(&[x.narrow(1, 0, before)?.contiguous()?, turned], 1),
        }
    }
}
