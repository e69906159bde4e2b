//! Launches of attention: products by cuBLAS, softmax of rows by our own kernels. Probabilities live in memory for some queries of
//! one sample at a time (or for some samples, where there is one head), and are computed again for the gradient.
use super::{Attention, CrossAttention, tokens};
use crate::nets::kernels::gpu::{Array, Gemm, Gpu, Input, Machine, Matrix, args, count, narrowed};
use candle_core::{DType, Result};

/// Queries that are taken together at least: fewer would leave a GPU idle.
const ROWS: usize = 256;

/// The matrices that are taken together: heads of one sample, or samples with one head; and the queries of each.
struct Part {
    /// The first sample.
    sample: usize,
    matrices: usize,
    /// The first query, and how many.
    first: usize,
    rows: usize,
}

struct Sizes {
    batch: usize,
    queries: usize,
    keys: usize,
    d: usize,
    heads: usize,
    causal: bool,
    /// What a machine has room for.
    room: usize,
}

/// Queries, keys, values, the result, or a gradient of these: rows of all heads, `ld` apart.
#[derive(Clone, Copy)]
struct Operand {
    array: Array,
    tokens: usize,
    ld: usize,
}

impl Sizes {
    fn scale(&self) -> f32 {
        1.0 / (self.d.max(1) as f32).sqrt()
    }
    /// Matrices of the largest part.
    fn most(&self) -> usize {
        match self.heads {
            1 => (self.room / (self.queries * self.keys).max(1)).clamp(1, self.batch.max(1)),
            n => n,
        }
    }
    /// Queries of the largest part.
    fn rows(&self) -> usize {
        (self.room / (self.most() * self.keys).max(1)).max(ROWS).min(self.queries)
    }
    fn parts(&self) -> impl Iterator<Item = Part> {
        let samples = if self.heads == 1 { self.most() } else { 1 };
        let (batch, queries, rows) = (self.batch, self.queries, self.rows().max(1));
        let matrices = move |sample: usize| if self.heads == 1 { samples.min(batch - sample) } else { self.heads };
        (0..batch).step_by(samples).flat_map(move |sample| {
            let part = move |first| Part { sample, matrices: matrices(sample), first, rows: rows.min(queries - first) };
            (0..queries).step_by(rows).map(part)
        })
    }
    /// An operand's matrices, from row `first` on.
    fn of(&self, o: Operand, part: &Part, first: usize) -> Matrix {
        let step = if self.heads == 1 { o.tokens * o.ld } else { self.d };
        Matrix::new(o.array.at((part.sample * o.tokens + first) * o.ld), o.ld).each(step)
    }
    /// The type in which gradients of keys and values are summed: over several parts, half precision would lose too much.
    fn sums(&self, t: DType) -> DType {
        if self.rows() < self.queries { DType::F32 } else { t }
    }
}

/// Memory for the largest part: scores and probabilities in f32, and again in the images' type.
struct Scratch {
    p: Array,
    narrow: Array,
}

impl Scratch {
    fn new(m: &mut dyn Machine, s: &Sizes, t: DType) -> Result<Scratch> {
        let n = s.most() * s.rows() * s.keys;
        let p = m.alloc(n, DType::F32)?;
        Ok(Scratch { p, narrow: if t == DType::F32 { p } else { m.alloc(n, t)? } })
    }
}

/// The products of a part.
struct Products<'a> {
    s: &'a Sizes,
    part: &'a Part,
}

impl Products<'_> {
    /// A part's rows of queries, or of what is shaped like them.
    fn queries(&self, o: Operand) -> Matrix {
        self.s.of(o, self.part, self.part.first)
    }
    /// All keys or values.
    fn keys(&self, o: Operand) -> Matrix {
        self.s.of(o, self.part, 0)
    }
    /// Probabilities [rows, keys], or what is shaped like them.
    fn scores(&self, p: Array) -> Matrix {
        Matrix::new(p, self.s.keys).each(self.part.rows * self.s.keys)
    }
    /// a [rows, d] · bᵀ [d, keys] into scores.
    fn outer(&self, m: &mut dyn Machine, a: Matrix, b: Matrix, to: Array) -> Result<()> {
        let (size, batch) = ([self.part.rows, self.s.keys, self.s.d], self.part.matrices);
        m.gemm(&Gemm { size, a, b: b.t(), out: self.scores(to), add: false, batch })
    }
    /// Scores times b [keys, d].
    fn times(&self, m: &mut dyn Machine, p: Array, b: Matrix, to: Matrix) -> Result<()> {
        let (size, batch) = ([self.part.rows, self.s.d, self.s.keys], self.part.matrices);
        m.gemm(&Gemm { size, a: self.scores(p), b, out: to, add: false, batch })
    }
    /// Transposed scores times b [rows, d], added to what earlier parts of these matrices gave.
    fn collect(&self, m: &mut dyn Machine, p: Array, b: Matrix, to: Matrix) -> Result<()> {
        let (size, batch) = ([self.s.keys, self.s.d, self.part.rows], self.part.matrices);
        m.gemm(&Gemm { size, a: self.scores(p).t(), b, out: to, add: self.part.first > 0, batch })
    }
    fn probabilities(&self, m: &mut dyn Machine, [q, k]: [Operand; 2], scratch: &Scratch) -> Result<()> {
        self.outer(m, self.queries(q), self.keys(k), scratch.p)?;
        let Part { matrices, first, rows, .. } = *self.part;
        let seen = if self.s.causal { first as isize + 1 } else { self.s.keys as isize };
        let args = args![scratch.p, scratch.narrow, self.s.keys, self.s.scale(), rows, seen, self.s.causal];
        m.rows("softmax", q.array.dtype, matrices * rows, args)
    }
}

fn forward(m: &mut dyn Machine, s: &Sizes, [q, k, v, out]: [Operand; 4]) -> Result<()> {
    let scratch = Scratch::new(m, s, q.array.dtype)?;
    for part in s.parts() {
        let of = Products { s, part: &part };
        of.probabilities(m, [q, k], &scratch)?;
        of.times(m, scratch.narrow, of.keys(v), of.queries(out))?;
    }
    Ok(())
}

fn pull(m: &mut dyn Machine, s: &Sizes, [q, k, v, cot]: [Operand; 4], [gq, gk, gv]: [Operand; 3]) -> Result<()> {
    let t = q.array.dtype;
    let scratch = Scratch::new(m, s, t)?;
    let bar = Scratch::new(m, s, t)?;
    for part in s.parts() {
        let of = Products { s, part: &part };
        of.probabilities(m, [q, k], &scratch)?;
        // v̄ = pᵀ ō, p̄ = ō vᵀ
        of.collect(m, scratch.narrow, of.queries(cot), of.keys(gv))?;
        of.outer(m, of.queries(cot), of.keys(v), bar.p)?;
        let rows = part.matrices * part.rows;
        m.rows("softmax_pull", t, rows, args![scratch.p, bar.p, bar.narrow, s.keys, s.scale()])?;
        // q̄ = s̄ k, k̄ = s̄ᵀ q
        of.times(m, bar.narrow, of.keys(k), of.queries(gq))?;
        of.collect(m, bar.narrow, of.queries(q), of.keys(gk))?;
    }
    Ok(())
}

impl Attention {
    fn sizes(&self, dims: &[usize], room: usize) -> Sizes {
        let (n, heads) = (tokens(dims), self.heads);
        Sizes { batch: dims[0], queries: n, keys: n, d: dims[3] / 3 / heads, heads, causal: false, room }
    }
}

/// q, k and v of what lies side by side.
fn thirds(array: Array, tokens: usize, c: usize) -> [Operand; 3] {
    [0, 1, 2].map(|i| Operand { array: array.at(i * c), tokens, ld: 3 * c })
}

impl Gpu for Attention {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: qkv, dims } = inputs[0];
        let s = self.sizes(dims, m.room());
        let (n, c) = (s.queries, s.heads * s.d);
        let out = m.alloc(s.batch * n * c, qkv.dtype)?;
        let [q, k, v] = thirds(qkv, n, c);
        forward(m, &s, [q, k, v, Operand { array: out, tokens: n, ld: c }])?;
        Ok(out)
    }

    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let Input { array: qkv, dims } = inputs[0];
        let s = self.sizes(dims, m.room());
        let (n, c, all) = (s.queries, s.heads * s.d, count(dims));
        let grad = m.alloc(all, s.sums(qkv.dtype))?;
        let [q, k, v] = thirds(qkv, n, c);
        pull(m, &s, [q, k, v, Operand { array: cot, tokens: n, ld: c }], thirds(grad, n, c))?;
        let grad = if grad.dtype == qkv.dtype { grad } else { narrowed(m, grad, all, qkv.dtype)? };
        Ok(vec![grad])
    }
}

impl CrossAttention {
    /// The sizes, and the operands of the inputs.
    fn sizes(&self, inputs: &[Input], room: usize) -> (Sizes, [Operand; 3]) {
        let c = inputs[0].dims.last().copied().unwrap_or(1);
        let [q, k, v] = [0, 1, 2].map(|i| Operand { array: inputs[i].array, tokens: tokens(inputs[i].dims), ld: c });
        let (heads, causal) = (self.heads, self.causal);
        let batch = inputs[0].dims[0];
        (Sizes { batch, queries: q.tokens, keys: k.tokens, d: c / heads, heads, causal, room }, [q, k, v])
    }
}

impl Gpu for CrossAttention {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let (s, [q, k, v]) = self.sizes(inputs, m.room());
        let out = m.alloc(count(inputs[0].dims), q.array.dtype)?;
        forward(m, &s, [q, k, v, Operand { array: out, ..q }])?;
        Ok(out)
    }

    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let (s, [q, k, v]) = self.sizes(inputs, m.room());
        let t = q.array.dtype;
        let mut to = vec![];
        for (o, sums) in [(q, t), (k, s.sums(t)), (v, s.sums(t))] {
            to.push(Operand { array: m.alloc(s.batch * o.tokens * o.ld, sums)?, ..o });
        }
        pull(m, &s, [q, k, v, Operand { array: cot, ..q }], [to[0], to[1], to[2]])?;
        let mut grads = vec![];
        for o in to {
            let narrow = o.array.dtype != t;
            grads.push(if narrow { narrowed(m, o.array, s.batch * o.tokens * o.ld, t)? } else { o.array });
        }
        Ok(grads)
    }
}
