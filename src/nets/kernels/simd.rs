//! The matrix product under every kernel: rows times packed panels of weights, in whatever vectors the CPU has.
//!
//! Each element of the result is one chain of multiply-adds over k in order, whatever the number of rows and however the
//! rows are split over threads: bits do not depend on the batch or on scheduling.
// indices run over several arrays of vectors at once
#![allow(clippy::needless_range_loop)]
use pulp::{Arch, Simd, WithSimd};

/// Rows that one register tile holds.
const ROWS: usize = 6;

/// Runs a kernel with the best instruction set of this CPU.
pub fn dispatch<O: WithSimd>(op: O) -> O::Output {
    Arch::new().dispatch(op)
}

/// A buffer whose first element lies on a cache line: split loads would halve the rate of the inner loops.
#[derive(Default)]
pub struct Aligned {
    data: Vec<f32>,
    start: usize,
}

impl Aligned {
    /// `n` zeros.
    pub fn zeros(n: usize) -> Self {
        let data = vec![0.0; n + 16];
        let start = match data.as_ptr().align_offset(64) {
            s if s <= 16 => s,
            _ => 0,
        };
        Aligned { data, start }
    }
    /// Makes room for at least `n` elements (of any value) and returns the first `n`.
    pub fn take(&mut self, n: usize) -> &mut [f32] {
        if self.data.len() < n + 16 {
            *self = Aligned::zeros(n);
        }
        &mut self.data[self.start..][..n]
    }
    /// All elements.
    pub fn slice(&self) -> &[f32] {
        &self.data[self.start..self.data.len() - 16 + self.start]
    }
}

/// Columns `col..col + width` of a packed matrix; `vectors` SIMD vectors wide.
#[derive(Clone, Copy)]
pub struct Panel {
    /// The first column.
    pub col: usize,
    /// SIMD vectors in a row of the panel.
    pub vectors: usize,
    /// Floats in a row of the panel, with padding.
    pub width: usize,
    offset: usize,
}

/// `count` matrices [k, n] of the same size, cut into panels that the inner loop reads front to back.
#[derive(Default)]
pub struct Packed {
    /// The depth.
    pub k: usize,
    /// The number of columns.
    pub n: usize,
    /// The panels, by column.
    pub panels: Vec<Panel>,
    data: Aligned,
    bias: Aligned,
}

struct Isa;
impl WithSimd for Isa {
    type Output = (usize, usize);
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (usize, usize) {
        (S::F32_LANES, if S::REGISTER_COUNT >= 32 { 4 } else { 2 })
    }
}

impl Packed {
    /// Packs `count` matrices; `at(matrix, row, column)` gives their elements, `bias` (of n, or empty) is added to every row.
    pub fn new(count: usize, k: usize, n: usize, bias: &[f32], at: impl Fn(usize, usize, usize) -> f32) -> Self {
        let mut packed = Packed::default();
        packed.pack(count, k, n, at);
        let padded = packed.panels.iter().map(|p| p.width).sum();
        packed.bias = Aligned::zeros(padded);
        for (b, v) in packed.bias.take(padded).iter_mut().zip(bias) {
            *b = *v;
        }
        packed
    }
    /// Packs anew, without bias, into the memory already held.
    pub fn pack(&mut self, count: usize, k: usize, n: usize, at: impl Fn(usize, usize, usize) -> f32) {
        let (lanes, most) = dispatch(Isa);
        let vectors = n.div_ceil(lanes);
        let panels = vectors.div_ceil(most).max(1);
        (self.k, self.n) = (k, n);
        self.panels.clear();
        let (mut col, mut offset) = (0, 0);
        for i in 0..panels {
            let vectors = vectors / panels + usize::from(i < vectors % panels);
            let width = vectors * lanes;
            self.panels.push(Panel { col, vectors, width, offset });
            col += width;
            offset += count * k * width;
        }
        let data = self.data.take(offset);
        for p in &self.panels {
            for m in 0..count {
                for row in 0..k {
                    let to = &mut data[p.offset + (m * k + row) * p.width..][..p.width];
                    for (c, v) in to.iter_mut().enumerate() {
                        *v = if p.col + c < n { at(m, row, p.col + c) } else { 0.0 };
                    }
                }
            }
        }
        if self.bias.data.len() < col + 16 {
            self.bias = Aligned::zeros(col);
        }
    }
    /// Matrix `m` in panel `p`: k rows of `p.width` floats.
    #[inline(always)]
    pub fn panel(&self, p: &Panel, m: usize) -> &[f32] {
        let len = self.k * p.width;
        &self.data.slice()[p.offset + m * len..][..len]
    }
    /// The bias of panel `p`, padded with zeros.
    #[inline(always)]
    pub fn bias(&self, p: &Panel) -> &[f32] {
        &self.bias.slice()[p.col..][..p.width]
    }
}

/// init + a[MR rows of stride lda, k] · w[k, NV vectors].
#[inline(always)]
fn tile<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: &[f32],
    lda: usize,
    w: &[[S::f32s; NV]],
    init: &[S::f32s; NV],
) -> [[S::f32s; NV]; MR] {
    let k = w.len();
    // no closures around vectors: the compiler may leave one outside the function that has the instruction set
    let mut rows = [&a[..k]; MR];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = &a[i * lda..][..k];
    }
    let mut acc = [*init; MR];
    for (kk, w) in w.iter().enumerate() {
        for i in 0..MR {
            let s = simd.splat_f32s(rows[i][kk]);
            for j in 0..NV {
                acc[i][j] = simd.mul_add_e_f32s(s, w[j], acc[i][j]);
            }
        }
    }
    acc
}

/// Stores a tile's rows: all `n` columns of them that exist.
#[inline(always)]
fn put<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    acc: [[S::f32s; NV]; MR],
    out: &mut [f32],
    ldc: usize,
    n: usize,
) {
    for (i, row) in acc.into_iter().enumerate() {
        let to = &mut out[i * ldc..][..n];
        if n == NV * S::F32_LANES {
            for (t, v) in S::as_mut_simd_f32s(to).0.iter_mut().zip(row) {
                *t = v;
            }
        } else {
            for (t, v) in to.chunks_mut(S::F32_LANES).zip(row) {
                simd.partial_store_f32s(t, v);
            }
        }
    }
}

/// One product's operands: out[m rows of stride ldc, n] = bias + a[m rows of stride lda, k] · w.
pub struct Rows<'a> {
    /// The left-hand side.
    pub a: &'a [f32],
    /// Its row stride.
    pub lda: usize,
    /// The number of rows.
    pub m: usize,
    /// The result.
    pub out: &'a mut [f32],
    /// Its row stride.
    pub ldc: usize,
    /// How many of the panel's columns the result has.
    pub n: usize,
}

/// One panel's part of a product.
#[inline(always)]
pub fn rows_by_panel<S: Simd>(simd: S, r: Rows, vectors: usize, w: &[f32], bias: &[f32]) {
    match vectors {
        1 => panel_of::<S, 1>(simd, r, w, bias),
        2 => panel_of::<S, 2>(simd, r, w, bias),
        3 => panel_of::<S, 3>(simd, r, w, bias),
        _ => panel_of::<S, 4>(simd, r, w, bias),
    }
}

#[inline(always)]
fn panel_of<S: Simd, const NV: usize>(simd: S, r: Rows, w: &[f32], bias: &[f32]) {
    let w = S::as_simd_f32s(w).0.as_chunks::<NV>().0;
    let bias = S::as_simd_f32s(bias).0;
    let mut init = [simd.splat_f32s(0.0); NV];
    init.copy_from_slice(&bias[..NV]);
    let mut i = 0;
    while i + ROWS <= r.m {
        let acc = tile::<S, ROWS, NV>(simd, &r.a[i * r.lda..], r.lda, w, &init);
        put(simd, acc, &mut r.out[i * r.ldc..], r.ldc, r.n);
        i += ROWS;
    }
    while i + 2 <= r.m {
        let acc = tile::<S, 2, NV>(simd, &r.a[i * r.lda..], r.lda, w, &init);
        put(simd, acc, &mut r.out[i * r.ldc..], r.ldc, r.n);
        i += 2;
    }
    if i < r.m {
        let acc = tile::<S, 1, NV>(simd, &r.a[i * r.lda..], r.lda, w, &init);
        put(simd, acc, &mut r.out[i * r.ldc..], r.ldc, r.n);
    }
}

/// out = bias + a · w for a whole packed matrix.
pub struct MatMul<'a> {
    /// The left-hand side, `m` rows of stride `lda` and depth `w.k`.
    pub a: &'a [f32],
    /// Its row stride.
    pub lda: usize,
    /// The number of rows.
    pub m: usize,
    /// The right-hand side.
    pub w: &'a Packed,
    /// The result, `m` rows of stride `ldc` and width `w.n`.
    pub out: &'a mut [f32],
    /// Its row stride.
    pub ldc: usize,
}

impl WithSimd for MatMul<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for p in &self.w.panels {
            let n = p.width.min(self.w.n - p.col);
            let out = &mut self.out[p.col..];
            let r = Rows { a: self.a, lda: self.lda, m: self.m, out, ldc: self.ldc, n };
            rows_by_panel(simd, r, p.vectors, self.w.panel(p, 0), self.w.bias(p));
        }
    }
}
