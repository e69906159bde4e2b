//! The matrix product under every kernel: packed rows times panels of weights, in whatever vectors the CPU has.
//!
//! Each element of the result is one chain of multiply-adds over k in order, whatever the number of rows and however the
//! rows are split over threads: bits do not depend on the batch or on scheduling. Layouts do not depend on the instruction
//! set, so it may be changed at any time.
// indices run over several arrays of vectors at once
#![allow(clippy::needless_range_loop)]
use super::half::{Form, Store};
use crate::{Error, Result};
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::RwLock;

/// Columns of a panel: two of the widest vectors.
pub const PANEL: usize = 32;
/// Depths that lie together in packed rows: one of the widest vectors.
pub const DEPTH: usize = 16;
/// Rows that are packed together: with two vectors of columns they fill the 32 registers of the widest instruction sets.
pub const GROUP: usize = 12;

static FORCED: RwLock<Option<Arch>> = RwLock::new(None);

thread_local! {
    static ROWS: RefCell<Aligned> = RefCell::new(Aligned::default());
    /// A panel of weights that lie in 16 bits.
    static WIDE: RefCell<Aligned> = RefCell::new(Aligned::default());
}

/// The instruction sets that this machine can run, by the names that `LD3SH_SIMD` takes, the widest last.
pub fn available() -> Vec<(&'static str, Arch)> {
    let mut all = vec![("scalar", scalar())];
    #[cfg(target_arch = "x86_64")]
    {
        all.extend(pulp::x86::V3::try_new().map(|s| ("v3", Arch::V3(s))));
        all.extend(pulp::x86::V4::try_new().map(|s| ("v4", Arch::V4(s))));
    }
    #[cfg(target_arch = "aarch64")]
    all.push(("neon", Arch::new()));
    all
}

fn scalar() -> Arch {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return Arch::Scalar;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Arch::new();
}

/// Makes every kernel of this process use one instruction set from here on.
pub fn force(arch: Arch) {
    *FORCED.write().unwrap_or_else(|e| e.into_inner()) = Some(arch);
}

/// Does what `LD3SH_SIMD` asks for; fails with the names that this machine knows where it is none of them.
pub fn force_from_environment() -> Result<()> {
    let Some(name) = std::env::var_os("LD3SH_SIMD") else { return Ok(()) };
    let name = name.to_string_lossy();
    match available().iter().find(|(n, _)| *n == name) {
        Some((_, arch)) => {
            force(*arch);
            Ok(())
        }
        None => Err(Error::unknown("instruction set in LD3SH_SIMD", &name, available().iter().map(|(n, _)| *n))),
    }
}

/// Runs a kernel with the instruction set that was forced, or the best one of this CPU.
pub fn dispatch<O: WithSimd>(op: O) -> O::Output {
    let forced = *FORCED.read().unwrap_or_else(|e| e.into_inner());
    forced.unwrap_or_default().dispatch(op)
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

/// Where the groups of `rows` packed rows begin and how many rows each has: as equal as possible, at most [`GROUP`].
#[inline(always)]
pub fn groups(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let n = rows.div_ceil(GROUP).max(1);
    let (each, more) = (rows / n, rows % n);
    (0..n).map(move |g| (g * each + g.min(more), each + usize::from(g < more)))
}

/// Rows of depth k, packed: for each group [k/16][rows of the group][16]; the last block of depths may be partly unused.
#[inline(always)]
pub fn packed_len(rows: usize, k: usize) -> usize {
    rows * k.next_multiple_of(DEPTH)
}

/// out[rows, n ≤ 32] += rows · panel.
pub struct Product<'a> {
    /// One group of packed rows: [blocks][rows][16].
    pub a: &'a [f32],
    /// Floats from one block of rows to the next.
    pub apart: usize,
    /// The number of rows, at most [`GROUP`].
    pub rows: usize,
    /// The number of blocks that take part, of which all from `full` on have `tail` depths that count.
    pub blocks: usize,
    /// The number of whole blocks, which come first.
    pub full: usize,
    /// Depths in the others.
    pub tail: usize,
    /// The panel: for each block, `stride` floats that begin with 16 rows of 32.
    pub w: &'a [f32],
    /// Floats from one block of the panel to the next.
    pub stride: usize,
    /// What each row begins with: 32 values; without them the product is added to `out`, whose rows must be padded to whole
    /// vectors.
    pub init: Option<&'a [f32; PANEL]>,
    /// The result's first row; `rows` rows of stride `ldc`.
    pub out: &'a mut [f32],
    /// The result's row stride.
    pub ldc: usize,
    /// How many of the panel's columns the result has.
    pub n: usize,
}

impl WithSimd for Product<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut p = self;
        let lanes = S::F32_LANES;
        for j in (0..p.n.div_ceil(lanes)).step_by(2) {
            let most = if S::REGISTER_COUNT >= 32 { GROUP } else { GROUP / 2 };
            let mut at = 0;
            while at < p.rows {
                let m = (p.rows - at).min(most);
                if (j + 1) * lanes < p.n {
                    by_rows::<S, 2>(simd, &mut p, at, m, j);
                } else {
                    by_rows::<S, 1>(simd, &mut p, at, m, j);
                }
                at += m;
            }
        }
    }
}

#[inline(always)]
fn by_rows<S: Simd, const NV: usize>(simd: S, p: &mut Product, at: usize, m: usize, j: usize) {
    macro_rules! cases {
        ($($n:literal)*) => {
            match m {
                $($n if S::REGISTER_COUNT >= 32 || $n <= GROUP / 2 => tile::<S, $n, NV>(simd, p, at, j),)*
                _ => {}
            }
        };
    }
    cases!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// MR rows, the `at`-th of a group and following, times NV vectors of columns.
#[inline(always)]
fn tile<S: Simd, const MR: usize, const NV: usize>(simd: S, p: &mut Product, at: usize, j: usize) {
    let lanes = S::F32_LANES;
    let mut acc = [[simd.splat_f32s(0.0); NV]; MR];
    match p.init {
        Some(init) => {
            let init = S::as_simd_f32s(init).0;
            for i in 0..MR {
                acc[i].copy_from_slice(&init[j..j + NV]);
            }
        }
        None => {
            for i in 0..MR {
                let from = &p.out[(at + i) * p.ldc + j * lanes..][..NV * lanes];
                for v in 0..NV {
                    acc[i][v] = S::as_simd_f32s(&from[v * lanes..(v + 1) * lanes]).0[0];
                }
            }
        }
    }
    let blocks = p.a.chunks(p.apart).zip(p.w.chunks(p.stride)).take(p.blocks);
    let mut left = p.full;
    // no closures around vectors: the compiler may leave one outside the function that has the instruction set
    for (a, w) in blocks {
        let Some(a) = a.as_chunks::<DEPTH>().0[at..].first_chunk::<MR>() else { return };
        let w = w.as_chunks::<PANEL>().0;
        if left > 0 {
            left -= 1;
            let Some(w) = w.first_chunk::<DEPTH>() else { return };
            for kk in (0..DEPTH).step_by(4) {
                step::<S, MR, NV>(simd, a, kk, &w[kk], j, &mut acc);
                step::<S, MR, NV>(simd, a, kk + 1, &w[kk + 1], j, &mut acc);
                step::<S, MR, NV>(simd, a, kk + 2, &w[kk + 2], j, &mut acc);
                step::<S, MR, NV>(simd, a, kk + 3, &w[kk + 3], j, &mut acc);
            }
        } else {
            for (kk, w) in w.iter().enumerate().take(p.tail.min(DEPTH)) {
                step::<S, MR, NV>(simd, a, kk, w, j, &mut acc);
            }
        }
    }
    let n = p.n - j * lanes;
    if n >= NV * lanes {
        for i in 0..MR {
            let to = &mut p.out[(at + i) * p.ldc + j * lanes..][..NV * lanes];
            for v in 0..NV {
                S::as_mut_simd_f32s(&mut to[v * lanes..(v + 1) * lanes]).0[0] = acc[i][v];
            }
        }
    } else {
        for i in 0..MR {
            let to = &mut p.out[(at + i) * p.ldc + j * lanes..][..n];
            for v in 0..NV {
                simd.partial_store_f32s(&mut to[(v * lanes).min(n)..((v + 1) * lanes).min(n)], acc[i][v]);
            }
        }
    }
}

#[inline(always)]
fn step<S: Simd, const MR: usize, const NV: usize>(
    simd: S,
    a: &[[f32; DEPTH]; MR],
    kk: usize,
    w: &[f32; PANEL],
    j: usize,
    acc: &mut [[S::f32s; NV]; MR],
) {
    let w = S::as_simd_f32s(w).0;
    let Some(w) = w[j..].first_chunk::<NV>() else { return };
    for i in 0..MR {
        let s = simd.splat_f32s(a[i][kk]);
        for v in 0..NV {
            acc[i][v] = simd.mul_add_e_f32s(s, w[v], acc[i][v]);
        }
    }
}

/// A matrix [k, n] cut into panels of 32 columns that the inner loop reads front to back.
#[derive(Default)]
pub struct Packed {
    /// The depth.
    pub k: usize,
    /// The number of columns.
    pub n: usize,
    data: Store,
    bias: Vec<f32>,
}

impl Packed {
    /// Packs a matrix whose elements' bits `at(row, column)` gives, of numbers in any form; `bias` (of n, or empty) is added to every row
    /// of a product.
    pub fn of_bits(form: Form, k: usize, n: usize, bias: &[f32], at: impl Fn(usize, usize) -> u32) -> Self {
        let panels = n.div_ceil(PANEL);
        let mut data = Store::zeros(form, panels * k * PANEL);
        for p in 0..panels {
            let width = (n - p * PANEL).min(PANEL);
            for row in 0..k {
                let from = (p * k + row) * PANEL;
                data.set(from..from + width, |j| at(row, p * PANEL + j));
            }
        }
        let mut all = vec![0.0; n.next_multiple_of(PANEL)];
        all[..bias.len()].copy_from_slice(bias);
        Packed { k, n, data, bias: all }
    }
    /// Packs anew k rows of n values, `stride` apart, without bias, into the memory already held.
    pub fn pack_rows(&mut self, k: usize, n: usize, a: &[f32], stride: usize) {
        self.fill(k, n, |first, panel| {
            let width = (n - first).min(PANEL);
            for (row, to) in panel.iter_mut().enumerate() {
                to[..width].copy_from_slice(&a[row * stride + first..][..width]);
            }
        });
    }
    /// Packs anew n columns of k values, each contiguous, `stride` apart, without bias, into the memory already held.
    pub fn pack_columns(&mut self, k: usize, n: usize, a: &[f32], stride: usize) {
        self.fill(k, n, |first, panel| {
            for col in 0..(n - first).min(PANEL) {
                let from = &a[(first + col) * stride..][..k];
                panel.iter_mut().zip(from).for_each(|(to, v)| to[col] = *v);
            }
        });
    }
    /// Has each panel filled, given its first column; columns that do not exist are zeros.
    fn fill(&mut self, k: usize, n: usize, fill: impl Fn(usize, &mut [[f32; PANEL]])) {
        (self.k, self.n) = (k, n);
        if self.data.form() != Form::F32 {
            self.data = Store::default();
        }
        let Store::Wide(data) = &mut self.data else { return };
        let data = data.take(n.div_ceil(PANEL) * k * PANEL);
        for (p, panel) in data.chunks_exact_mut((k * PANEL).max(1)).enumerate() {
            let panel = panel.as_chunks_mut::<PANEL>().0;
            if n - p * PANEL < PANEL {
                panel.iter_mut().for_each(|row| *row = [0.0; PANEL]);
            }
            fill(p * PANEL, panel);
        }
        self.bias.clear();
        self.bias.resize(n.next_multiple_of(PANEL), 0.0);
    }
    /// Element (row, column).
    pub fn at(&self, row: usize, column: usize) -> f32 {
        self.form().value(self.bits(row, column))
    }
    /// The bits of element (row, column), in its form.
    pub fn bits(&self, row: usize, column: usize) -> u32 {
        self.data.bits((column / PANEL * self.k + row) * PANEL + column % PANEL)
    }
    /// How its elements lie.
    pub fn form(&self) -> Form {
        self.data.form()
    }
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.data.bytes() + 4 * self.bias.len()
    }
    /// All panels.
    pub fn panels(&self) -> Range<usize> {
        0..self.n.div_ceil(PANEL)
    }
    /// Panel `p`: k rows of 32, widened into `scratch` where need be.
    #[inline(always)]
    pub fn panel<'a, S: Simd>(&'a self, simd: S, p: usize, scratch: &'a mut Aligned) -> &'a [f32] {
        self.data.part(simd, p * self.k * PANEL..(p + 1) * self.k * PANEL, scratch)
    }
}

/// out = bias + a · w for a packed matrix, or some panels of it.
pub struct MatMul<'a> {
    /// The left-hand side, `m` rows of stride `lda` and depth `w.k`.
    pub a: &'a [f32],
    /// Its row stride.
    pub lda: usize,
    /// Its stride along a row: 1, or more where it is the transpose of what lies in memory.
    pub step: usize,
    /// The number of rows.
    pub m: usize,
    /// The right-hand side.
    pub w: &'a Packed,
    /// The panels of it that take part.
    pub panels: Range<usize>,
    /// The result for these panels, `m` rows of stride `ldc`.
    pub out: &'a mut [f32],
    /// Its row stride.
    pub ldc: usize,
}

/// Rows that are packed before the panels pass over them: they stay in the second-level cache.
const PASS: usize = 8 * GROUP;

impl MatMul<'_> {
    /// Computes it, on this thread.
    pub fn run(self) {
        ROWS.with_borrow_mut(|rows| WIDE.with_borrow_mut(|wide| dispatch(Packing(self, rows, wide))));
    }
}

struct Packing<'a>(MatMul<'a>, &'a mut Aligned, &'a mut Aligned);

impl WithSimd for Packing<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Packing(MatMul { a, lda, step, m, w, panels, out, ldc }, scratch, wide) = self;
        let k = w.k;
        for first in (0..m).step_by(PASS) {
            let rows = PASS.min(m - first);
            let packed = scratch.take(packed_len(rows, k));
            for (g, n) in groups(rows) {
                let to = &mut packed[packed_len(g, k)..][..packed_len(n, k)];
                let a = &a[(first + g) * lda..];
                if step == 1 {
                    (0..n).for_each(|r| pack_row(&a[r * lda..][..k], to, r, n));
                } else {
                    for depth in 0..k {
                        let at = depth / DEPTH * n * DEPTH + depth % DEPTH;
                        (0..n).for_each(|r| to[at + r * DEPTH] = a[depth * step + r * lda]);
                    }
                }
            }
            let bias = w.bias.as_chunks::<PANEL>().0;
            for p in panels.clone() {
                let panel = w.panel(simd, p, wide);
                for (g, n) in groups(rows) {
                    simd.vectorize(Product {
                        a: &packed[packed_len(g, k)..],
                        apart: n * DEPTH,
                        rows: n,
                        blocks: k.div_ceil(DEPTH),
                        full: k / DEPTH,
                        tail: k % DEPTH,
                        w: panel,
                        stride: DEPTH * PANEL,
                        init: Some(&bias[p]),
                        out: &mut out[(first + g) * ldc + (p - panels.start) * PANEL..],
                        ldc,
                        n: (w.n - p * PANEL).min(PANEL),
                    });
                }
            }
        }
    }
}

/// Writes row `r` of a group of `n` rows.
#[inline(always)]
pub fn pack_row(row: &[f32], group: &mut [f32], r: usize, n: usize) {
    for (block, part) in row.chunks(DEPTH).enumerate() {
        group[(block * n + r) * DEPTH..][..part.len()].copy_from_slice(part);
    }
}

/// Part `i` of `0..n` cut into `parts`.
pub fn share(n: usize, parts: usize, i: usize) -> Range<usize> {
    i * n / parts..(i + 1) * n / parts
}
