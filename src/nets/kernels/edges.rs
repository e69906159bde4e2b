//! Values of nodes on the edges between them, and back: rows by number, means over the edges of a node, a row for all.
//!
//! A number beyond the last node means no node: nothing arrives there. So a scene without edges has one that leads nowhere.
use super::{Frozen, View, pool};
use candle_core::{DType, Result, Tensor};

/// Row ids[e] of x for each edge: [B, N, C] and [B, E] → [B, E, C]; the last row for a number beyond it.
pub struct Gather;

/// The mean of the edges' rows that arrive at each node, 0 where none does: [B, E, C], the receivers [B, E], and anything [B, N, ..] that
/// tells how many nodes there are → [B, N, C].
pub struct Arrive;

/// One row for all: [B, C] and anything [B, N, ..] → [B, N, C].
pub struct Spread;

/// Zeros after the last channel, up to so many.
pub struct Widen(pub usize);

/// Where each sample's row of an id lies, if it is one.
fn rows(ids: View, nodes: usize) -> impl Iterator<Item = Option<usize>> {
    let each = ids.dims[1].max(1);
    let ids = ids.data.iter().enumerate();
    // numbers are counts; those that are not, and negative ones, are no node's
    ids.map(move |(i, id)| (*id >= 0.0 && (*id as usize) < nodes).then_some((i / each) * nodes + *id as usize))
}

fn add(to: &mut [f32], from: &[f32], factor: f32) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
}

/// The same rows on the host for candle's operations, with `none` for no node.
fn numbers(ids: &Tensor, nodes: usize, none: impl Fn(usize) -> usize) -> Result<Vec<u32>> {
    let each = ids.dim(1)?.max(1);
    let ids: Vec<f64> = ids.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    let row = |(i, id): (usize, &f64)| {
        let sample = i / each;
        if *id >= 0.0 && (*id as usize) < nodes { sample * nodes + *id as usize } else { none(sample) }
    };
    Ok(ids.iter().enumerate().map(|n| row(n) as u32).collect())
}

impl Frozen for Gather {
    fn name(&self) -> &'static str {
        "rows of nodes"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match (inputs[0], inputs[1]) {
            (&[b, n, c], &[same, e]) if b == same && n > 0 => Ok(vec![b, e, c]),
            (x, ids) => Err(format!("expected [B, nodes, C] and [B, edges], got {x:?} and {ids:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let (n, c, e) = (inputs[0].dims[1], inputs[0].dims[2], inputs[1].dims[1].max(1));
        for (i, (out, at)) in out.chunks_exact_mut(c.max(1)).zip(rows(inputs[1], n)).enumerate() {
            let at = at.unwrap_or((i / e + 1) * n - 1);
            out.copy_from_slice(&inputs[0].data[at * c..][..c]);
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let (n, c, e) = (inputs[0].dims[1], inputs[0].dims[2], inputs[1].dims[1].max(1));
        let mut grad = pool::zeros(inputs[0].dims.iter().product());
        for (i, (cot, at)) in cot.chunks_exact(c.max(1)).zip(rows(inputs[1], n)).enumerate() {
            add(&mut grad[at.unwrap_or((i / e + 1) * n - 1) * c..][..c], cot, 1.0);
        }
        vec![grad, pool::zeros(inputs[1].data.len())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let (b, n, c) = inputs[0].dims3()?;
        let ids = numbers(inputs[1], n, |sample| (sample + 1) * n - 1)?;
        let e = ids.len() / b.max(1);
        let ids = Tensor::from_vec(ids, b * e, inputs[0].device())?;
        inputs[0].contiguous()?.reshape((b * n, c))?.index_select(&ids, 0)?.reshape((b, e, c))
    }
}

/// How many edges arrive at each node of each sample.
fn counts(ids: View, nodes: usize) -> Vec<f32> {
    let mut counts = vec![0f32; ids.dims[0] * nodes];
    rows(ids, nodes).flatten().for_each(|at| counts[at] += 1.0);
    counts
}

impl Frozen for Arrive {
    fn name(&self) -> &'static str {
        "mean of edges"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match (inputs[0], inputs[1], inputs[2]) {
            (&[b, e, c], &[b1, e1], &[b2, n, ..]) if b == b1 && b == b2 && e == e1 => Ok(vec![b, n, c]),
            (x, ids, n) => {
                Err(format!("expected [B, edges, C], [B, edges], [B, nodes, ..], got {x:?}, {ids:?}, {n:?}"))
            }
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let (c, n) = (inputs[0].dims[2].max(1), inputs[2].dims[1]);
        out.fill(0.0);
        for (x, at) in inputs[0].data.chunks_exact(c).zip(rows(inputs[1], n)) {
            if let Some(at) = at {
                add(&mut out[at * c..][..c], x, 1.0);
            }
        }
        for (out, count) in out.chunks_exact_mut(c).zip(counts(inputs[1], n)) {
            out.iter_mut().for_each(|o| *o /= count.max(1.0));
        }
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let (c, n) = (inputs[0].dims[2].max(1), inputs[2].dims[1]);
        let counts = counts(inputs[1], n);
        let mut grad = pool::zeros(inputs[0].dims.iter().product());
        for (to, at) in grad.chunks_exact_mut(c).zip(rows(inputs[1], n)) {
            if let Some(at) = at {
                add(to, &cot[at * c..][..c], 1.0 / counts[at]);
            }
        }
        vec![grad, pool::zeros(inputs[1].data.len()), pool::zeros(inputs[2].dims.iter().product())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let ((b, e, c), n) = (inputs[0].dims3()?, inputs[2].dim(1)?);
        // what arrives nowhere goes into a row after the last, which is left out
        let ids = numbers(inputs[1], n, |_| b * n)?;
        let mut counts = vec![0f64; b * n + 1];
        ids.iter().for_each(|at| counts[*at as usize] += 1.0);
        let (dtype, device) = (inputs[0].dtype(), inputs[0].device());
        let shares: Vec<f64> = counts.iter().map(|n| 1.0 / n.max(1.0)).collect();
        let shares = Tensor::from_vec(shares, (b * n + 1, 1), device)?.to_dtype(dtype)?;
        let ids = Tensor::from_vec(ids, b * e, device)?;
        let sums = Tensor::zeros((b * n + 1, c), dtype, device)?;
        let sums = sums.index_add(&ids, &inputs[0].contiguous()?.reshape((b * e, c))?, 0)?;
        sums.broadcast_mul(&shares)?.narrow(0, 0, b * n)?.contiguous()?.reshape((b, n, c))
    }
}

impl Frozen for Spread {
    fn name(&self) -> &'static str {
        "a row for all"
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match (inputs[0], inputs[1]) {
            (&[b, c], &[same, n, ..]) if b == same => Ok(vec![b, n, c]),
            (x, like) => Err(format!("expected [B, C] and [B, nodes, ..], got {x:?} and {like:?}")),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let (c, n) = (inputs[0].dims[1].max(1), inputs[1].dims[1].max(1));
        for (i, out) in out.chunks_exact_mut(c).enumerate() {
            out.copy_from_slice(&inputs[0].data[i / n * c..][..c]);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let (c, n) = (inputs[0].dims[1].max(1), inputs[1].dims[1].max(1));
        let mut grad = pool::zeros(inputs[0].dims.iter().product());
        for (i, cot) in cot.chunks_exact(c).enumerate() {
            add(&mut grad[i / n * c..][..c], cot, 1.0);
        }
        vec![grad, pool::zeros(inputs[1].dims.iter().product())]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let ((b, c), n) = (inputs[0].dims2()?, inputs[1].dim(1)?);
        inputs[0].unsqueeze(1)?.broadcast_as((b, n, c))?.contiguous()
    }
}

impl Frozen for Widen {
    fn name(&self) -> &'static str {
        "zeros behind"
    }
    fn detail(&self) -> String {
        format!("to {}", self.0)
    }
    fn dims(&self, inputs: &[&[usize]]) -> std::result::Result<Vec<usize>, String> {
        match inputs[0].split_last() {
            Some((c, rest)) if *c <= self.0 => Ok([rest, &[self.0]].concat()),
            _ => Err(format!("expected [.., C] with C up to {}, got {:?}", self.0, inputs[0])),
        }
    }
    fn run(&self, inputs: &[View], out: &mut [f32], _: bool) {
        let c = inputs[0].dims.last().copied().unwrap_or(0).max(1);
        for (x, out) in inputs[0].data.chunks_exact(c).zip(out.chunks_exact_mut(self.0)) {
            out[..c].copy_from_slice(x);
            out[c..].fill(0.0);
        }
    }
    fn pull(&self, inputs: &[View], cot: &[f32], _: bool) -> Vec<Vec<f32>> {
        let c = inputs[0].dims.last().copied().unwrap_or(0).max(1);
        let mut grad = pool::take(inputs[0].dims.iter().product());
        for (g, cot) in grad.chunks_exact_mut(c).zip(cot.chunks_exact(self.0)) {
            g.copy_from_slice(&cot[..c]);
        }
        vec![grad]
    }
    fn compose(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let last = inputs[0].rank() - 1;
        inputs[0].pad_with_zeros(last, 0, self.0 - inputs[0].dim(last)?)
    }
}
