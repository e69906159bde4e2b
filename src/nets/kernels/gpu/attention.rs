//! Launches of attention: products by cuBLAS, softmax of rows by our own kernels. Probabilities live in memory for one sample at
//! a time (or some, where there is one head), and are computed again for the gradient.
use super::Attention;
use crate::nets::kernels::gpu::{Array, Gemm, Gpu, Input, Machine, Matrix, args};
use candle_core::{DType, Result};

/// The matrices that are taken together: heads of one sample, or samples with one head.
struct Part {
    /// The first sample.
    sample: usize,
    matrices: usize,
    /// Elements of qkv from matrix to matrix; a third of it in the result.
    step: usize,
    out_step: usize,
}

struct Sizes {
    batch: usize,
    tokens: usize,
    c: usize,
    heads: usize,
    /// What a machine has room for.
    room: usize,
}

impl Sizes {
    fn d(&self) -> usize {
        self.c / self.heads
    }
    fn scale(&self) -> f32 {
        1.0 / (self.d().max(1) as f32).sqrt()
    }
    /// Matrices of the largest part.
    fn most(&self) -> usize {
        match self.heads {
            1 => (self.room / self.tokens.pow(2).max(1)).clamp(1, self.batch.max(1)),
            n => n,
        }
    }
    fn parts(&self) -> impl Iterator<Item = Part> {
        let (samples, heads) = if self.heads == 1 { (self.most(), 1) } else { (1, self.heads) };
        let (batch, one, d) = (self.batch, self.tokens * self.c, self.d());
        (0..batch).step_by(samples).map(move |sample| match heads {
            1 => Part { sample, matrices: samples.min(batch - sample), step: 3 * one, out_step: one },
            n => Part { sample, matrices: n, step: d, out_step: d },
        })
    }
}

/// Memory for the largest part: scores and probabilities in f32, and again in the images' type.
struct Scratch {
    p: Array,
    narrow: Array,
}

impl Scratch {
    fn new(m: &mut dyn Machine, s: &Sizes, t: DType) -> Result<Scratch> {
        let n = s.most() * s.tokens.pow(2);
        let p = m.alloc(n, DType::F32)?;
        Ok(Scratch { p, narrow: if t == DType::F32 { p } else { m.alloc(n, t)? } })
    }
}

impl Attention {
    fn sizes(&self, dims: &[usize], room: usize) -> Sizes {
        Sizes { batch: dims[0], tokens: dims[1] * dims[2], c: dims[3] / 3, heads: self.heads, room }
    }
}

/// The products of a part: [tokens, tokens] or [tokens, d] results.
struct Products<'a> {
    s: &'a Sizes,
    part: &'a Part,
}

impl Products<'_> {
    /// q, k or v of a part, in qkv or its gradient.
    fn third(&self, qkv: Array, which: usize) -> Matrix {
        let Sizes { tokens, c, .. } = *self.s;
        let at = self.part.sample * tokens * 3 * c + which * c;
        Matrix::new(qkv.at(at), 3 * c).each(self.part.step)
    }
    /// The result, or its cotangent.
    fn out(&self, out: Array) -> Matrix {
        let Sizes { tokens, c, .. } = *self.s;
        Matrix::new(out.at(self.part.sample * tokens * c), c).each(self.part.out_step)
    }
    fn square(&self, p: Array) -> Matrix {
        let t = self.s.tokens;
        Matrix::new(p, t).each(t * t)
    }
    /// a [tokens, d] · bᵀ into a square.
    fn outer(&self, m: &mut dyn Machine, a: Matrix, b: Matrix, to: Array) -> Result<()> {
        let t = self.s.tokens;
        let (size, batch) = ([t, t, self.s.d()], self.part.matrices);
        m.gemm(&Gemm { size, a, b: b.t(), out: self.square(to), add: false, batch })
    }
    /// A square times b [tokens, d].
    fn times(&self, m: &mut dyn Machine, p: Matrix, b: Matrix, to: Matrix) -> Result<()> {
        let t = self.s.tokens;
        let (size, batch) = ([t, self.s.d(), t], self.part.matrices);
        m.gemm(&Gemm { size, a: p, b, out: to, add: false, batch })
    }
    fn probabilities(&self, m: &mut dyn Machine, qkv: Array, scratch: &Scratch) -> Result<()> {
        self.outer(m, self.third(qkv, 0), self.third(qkv, 1), scratch.p)?;
        let (t, rows) = (self.s.tokens, self.part.matrices * self.s.tokens);
        m.rows("softmax", qkv.dtype, rows, args![scratch.p, scratch.narrow, t, self.s.scale()])
    }
}

impl Gpu for Attention {
    fn enqueue(&self, m: &mut dyn Machine, inputs: &[Input]) -> Result<Array> {
        let Input { array: qkv, dims } = inputs[0];
        let s = self.sizes(dims, m.room());
        let scratch = Scratch::new(m, &s, qkv.dtype)?;
        let out = m.alloc(s.batch * s.tokens * s.c, qkv.dtype)?;
        for part in s.parts() {
            let of = Products { s: &s, part: &part };
            of.probabilities(m, qkv, &scratch)?;
            of.times(m, of.square(scratch.narrow), of.third(qkv, 2), of.out(out))?;
        }
        Ok(out)
    }

    fn enqueue_pull(&self, m: &mut dyn Machine, inputs: &[Input], cot: Array) -> Result<Vec<Array>> {
        let Input { array: qkv, dims } = inputs[0];
        let (s, t) = (self.sizes(dims, m.room()), qkv.dtype);
        let scratch = Scratch::new(m, &s, t)?;
        let bar = Scratch::new(m, &s, t)?;
        let grad = m.alloc(3 * s.batch * s.tokens * s.c, t)?;
        for part in s.parts() {
            let of = Products { s: &s, part: &part };
            of.probabilities(m, qkv, &scratch)?;
            // v̄ = pᵀ ō, p̄ = ō vᵀ
            of.times(m, of.square(scratch.narrow).t(), of.out(cot), of.third(grad, 2))?;
            of.outer(m, of.out(cot), of.third(qkv, 2), bar.p)?;
            let rows = part.matrices * s.tokens;
            m.rows("softmax_pull", t, rows, args![scratch.p, bar.p, bar.narrow, s.tokens, s.scale()])?;
            // q̄ = s̄ k, k̄ = s̄ᵀ q
            of.times(m, of.square(bar.narrow), of.third(qkv, 1), of.third(grad, 0))?;
            of.times(m, of.square(bar.narrow).t(), of.third(qkv, 0), of.third(grad, 1))?;
        }
        Ok(vec![grad])
    }
}
