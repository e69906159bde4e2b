//! 3×3 convolution with stride 1 and padding 1 by Winograd's F(4×4, 3×3) (Lavin and Gray 2016) on [B, H, W, C].
//!
//! Channels lie innermost, so the transforms run over whole vectors of channels and the 36 products are rows (tiles)
//! times packed weights. A 4×4 tile of outputs costs 36 multiplications per channel pair instead of 144; the price is 4×
//! the weights' memory per direction and an error of about 1e-6 (rms, relative).
// indices run over several arrays of vectors at once
#![allow(clippy::needless_range_loop)]
use super::simd::{Aligned, Packed, Rows, dispatch, rows_by_panel};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::array::from_fn;
use std::cell::RefCell;

/// Floats of workspace that one block of tiles may take: it should stay in the second-level cache.
const WORKSPACE: usize = 256 * 1024;
/// Between the 36 planes, so that they do not fall on the same cache sets.
const GAP: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Aligned> = RefCell::new(Aligned::default());
}

/// One direction of a frozen 3×3 convolution.
pub struct Winograd {
    cin: usize,
    cout: usize,
    /// 36 matrices [cin, cout].
    u: Packed,
}

impl Winograd {
    /// Transforms the weights; `at(co, ci, tap)` with tap = 3·row + column.
    pub fn new(cin: usize, cout: usize, bias: &[f32], at: impl Fn(usize, usize, usize) -> f32) -> Self {
        const G: [[f64; 3]; 6] = [
            [1. / 4., 0., 0.],
            [-1. / 6., -1. / 6., -1. / 6.],
            [-1. / 6., 1. / 6., -1. / 6.],
            [1. / 24., 1. / 12., 1. / 6.],
            [1. / 24., -1. / 12., 1. / 6.],
            [0., 0., 1.],
        ];
        let mut u = vec![0f32; 36 * cin * cout];
        for ci in 0..cin {
            for co in 0..cout {
                let g: [f64; 9] = from_fn(|t| at(co, ci, t) as f64);
                for (a, ga) in G.iter().enumerate() {
                    let row: [f64; 3] = from_fn(|c| (0..3).map(|r| ga[r] * g[3 * r + c]).sum());
                    for (b, gb) in G.iter().enumerate() {
                        u[((6 * a + b) * cin + ci) * cout + co] = (0..3).map(|c| row[c] * gb[c]).sum::<f64>() as f32;
                    }
                }
            }
        }
        let u = Packed::new(36, cin, cout, bias, |m, ci, co| u[(m * cin + ci) * cout + co]);
        Winograd { cin, cout, u }
    }

    /// Convolves x [b, h, w, cin] into out [b, h, w, cout].
    pub fn run(&self, x: &[f32], [b, h, w]: [usize; 3], out: &mut [f32], par: bool) {
        let (tiles_y, tiles_x) = (h.div_ceil(4), w.div_ceil(4));
        let rows = b * tiles_y;
        if rows * tiles_x == 0 || self.cout == 0 {
            return;
        }
        let widest = self.u.panels.iter().map(|p| p.width).max().unwrap_or(1);
        let fit = (WORKSPACE / (36 * (self.cin + widest))).clamp(12, 64);
        let mut per_block = fit.div_ceil(tiles_x);
        if par {
            per_block = per_block.min(rows.div_ceil(rayon::current_num_threads()));
        }
        // cut the output at rows of tiles: each block owns a contiguous piece of it
        let mut blocks = Vec::with_capacity(rows.div_ceil(per_block));
        let (mut rest, mut first) = (out, 0);
        let pixel_row = |r: usize| (r / tiles_y) * h + (r % tiles_y) * 4;
        while first < rows {
            let last = (first + per_block).min(rows);
            let (mine, tail) = rest.split_at_mut((pixel_row(last) - pixel_row(first)) * w * self.cout);
            let shape = Shape { h, w, tiles_y, tiles_x, first, last };
            blocks.push((mine, shape));
            (rest, first) = (tail, last);
        }
        // the scratch is borrowed out here: a closure inside the vectorized function might not be compiled as part of it
        let run =
            |(out, shape)| SCRATCH.with_borrow_mut(|scratch| dispatch(Block { op: self, x, out, shape, scratch }));
        if par && blocks.len() > 1 {
            blocks.into_par_iter().for_each(run);
        } else {
            blocks.into_iter().for_each(run);
        }
    }
}

#[derive(Clone, Copy)]
struct Shape {
    h: usize,
    w: usize,
    tiles_y: usize,
    tiles_x: usize,
    /// Rows of tiles, counted through the batch.
    first: usize,
    last: usize,
}

impl Shape {
    /// (image, tile row, tile column) of tile `t` of this block.
    #[inline(always)]
    fn tile(&self, t: usize) -> (usize, usize, usize) {
        let row = self.first + t / self.tiles_x;
        (row / self.tiles_y, row % self.tiles_y, t % self.tiles_x)
    }
    fn tiles(&self) -> usize {
        (self.last - self.first) * self.tiles_x
    }
}

struct Block<'a> {
    op: &'a Winograd,
    x: &'a [f32],
    out: &'a mut [f32],
    shape: Shape,
    scratch: &'a mut Aligned,
}

impl WithSimd for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { op, x, out, shape, scratch } = self;
        let tiles = shape.tiles();
        let v_plane = (tiles * op.cin).next_multiple_of(16) + GAP;
        let widest = op.u.panels.iter().map(|p| p.width).max().unwrap_or(1);
        let m_plane = tiles * widest + GAP;
        let all = scratch.take(36 * (v_plane + m_plane) + op.cin.next_multiple_of(16));
        let (v, rest) = all.split_at_mut(36 * v_plane);
        let (m, zeros) = rest.split_at_mut(36 * m_plane);
        zeros.fill(0.0);
        into_planes(simd, x, op.cin, &shape, v, v_plane, &zeros[..op.cin]);
        for p in &op.u.panels {
            for (xi, (v, m)) in v.chunks_exact(v_plane).zip(m.chunks_exact_mut(m_plane)).enumerate() {
                let r = Rows { a: v, lda: op.cin, m: tiles, out: m, ldc: p.width, n: p.width };
                // the transform of a constant bias is not constant: it is added at the end
                rows_by_panel(simd, r, p.vectors, op.u.panel(p, xi), &[0.0; 64]);
            }
            let n = p.width.min(op.cout - p.col);
            out_of_planes(simd, m, m_plane, p.width, &shape, &mut out[p.col..], op.cout, n, op.u.bias(p));
        }
    }
}

/// The vector that `x` begins with.
#[inline(always)]
fn vector<S: Simd>(x: &[f32]) -> S::f32s {
    S::as_simd_f32s(&x[..S::F32_LANES]).0[0]
}

/// Bᵀ d for one line of six.
#[inline(always)]
fn input_line<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
    let (two, four, five) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(5.0));
    let a = s.sub_f32s(d[4], s.mul_f32s(four, d[2]));
    let b = s.sub_f32s(d[3], s.mul_f32s(four, d[1]));
    let c = s.sub_f32s(d[4], d[2]);
    let e = s.mul_f32s(two, s.sub_f32s(d[3], d[1]));
    let first = s.mul_add_e_f32s(four, d[0], s.sub_f32s(d[4], s.mul_f32s(five, d[2])));
    let last = s.mul_add_e_f32s(four, d[1], s.sub_f32s(d[5], s.mul_f32s(five, d[3])));
    [first, s.add_f32s(a, b), s.sub_f32s(a, b), s.add_f32s(c, e), s.sub_f32s(c, e), last]
}

/// Aᵀ m for one line of six.
#[inline(always)]
fn output_line<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
    let (two, four, eight) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(8.0));
    let (a, b) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
    let (c, d) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
    [
        s.add_f32s(m[0], s.add_f32s(a, c)),
        s.mul_add_e_f32s(two, d, b),
        s.mul_add_e_f32s(four, c, a),
        s.add_f32s(s.mul_add_e_f32s(eight, d, b), m[5]),
    ]
}

/// Bᵀ d B of a 6×6 patch.
#[inline(always)]
fn input_patch<S: Simd>(s: S, d: [S::f32s; 36]) -> [[S::f32s; 6]; 6] {
    let zero = [s.splat_f32s(0.0); 6];
    let (mut k, mut out) = ([zero; 6], [zero; 6]);
    for c in 0..6 {
        k[c] = input_line(s, [d[c], d[6 + c], d[12 + c], d[18 + c], d[24 + c], d[30 + c]]);
    }
    for r in 0..6 {
        out[r] = input_line(s, [k[0][r], k[1][r], k[2][r], k[3][r], k[4][r], k[5][r]]);
    }
    out
}

#[inline(always)]
fn into_planes<S: Simd>(simd: S, x: &[f32], c: usize, shape: &Shape, v: &mut [f32], plane: usize, zeros: &[f32]) {
    let mut planes = v.chunks_exact_mut(plane);
    let planes: [&mut [f32]; 36] = from_fn(|_| planes.next().unwrap_or_default());
    let (full, lanes) = (c / S::F32_LANES, S::F32_LANES);
    for t in 0..shape.tiles() {
        let (b, ty, tx) = shape.tile(t);
        // no closures around vectors: the compiler may leave one outside the function that has the instruction set
        let mut patch = [zeros; 36];
        for (i, patch) in patch.iter_mut().enumerate() {
            // one pixel of padding on the left and above
            let (y, x_) = (4 * ty + i / 6, 4 * tx + i % 6);
            if (1..=shape.h).contains(&y) && (1..=shape.w).contains(&x_) {
                *patch = &x[((b * shape.h + y - 1) * shape.w + x_ - 1) * c..][..c];
            }
        }
        let mut d = [simd.splat_f32s(0.0); 36];
        for j in 0..full {
            for i in 0..36 {
                d[i] = vector::<S>(&patch[i][j * lanes..]);
            }
            let q = input_patch(simd, d);
            for i in 0..36 {
                S::as_mut_simd_f32s(&mut planes[i][t * c + j * lanes..][..lanes]).0[0] = q[i / 6][i % 6];
            }
        }
        if full * lanes < c {
            for i in 0..36 {
                d[i] = simd.partial_load_f32s(&patch[i][full * lanes..]);
            }
            let q = input_patch(simd, d);
            for i in 0..36 {
                simd.partial_store_f32s(&mut planes[i][t * c + full * lanes..(t + 1) * c], q[i / 6][i % 6]);
            }
        }
    }
}

/// The inverse transform of `n` channels (out starts at the first of them).
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn out_of_planes<S: Simd>(
    simd: S,
    m: &[f32],
    plane: usize,
    width: usize,
    shape: &Shape,
    out: &mut [f32],
    cout: usize,
    n: usize,
    bias: &[f32],
) {
    let mut planes = m.chunks_exact(plane);
    let planes: [&[f32]; 36] = from_fn(|_| planes.next().unwrap_or_default());
    let lanes = S::F32_LANES;
    let pixel_row = |b: usize, ty: usize| b * shape.h + 4 * ty;
    let base = pixel_row(shape.first / shape.tiles_y, shape.first % shape.tiles_y);
    for t in 0..shape.tiles() {
        let (b, ty, tx) = shape.tile(t);
        let (ny, nx) = ((shape.h - 4 * ty).min(4), (shape.w - 4 * tx).min(4));
        let corner = ((pixel_row(b, ty) - base) * shape.w + 4 * tx) * cout;
        for j in 0..n.div_ceil(lanes) {
            let at = t * width + j * lanes;
            let add = vector::<S>(&bias[j * lanes..]);
            let mut k = [[add; 4]; 6];
            for c in 0..6 {
                let mut line = [add; 6];
                for r in 0..6 {
                    line[r] = vector::<S>(&planes[6 * r + c][at..]);
                }
                k[c] = output_line(simd, line);
            }
            let left = (n - j * lanes).min(lanes);
            for r in 0..4 {
                let y = output_line(simd, [k[0][r], k[1][r], k[2][r], k[3][r], k[4][r], k[5][r]]);
                if r < ny {
                    for (q, y) in y.into_iter().enumerate().take(nx) {
                        let to = &mut out[corner + (r * shape.w + q) * cout + j * lanes..][..left];
                        let y = simd.add_f32s(y, add);
                        match S::as_mut_simd_f32s(to).0.first_mut() {
                            Some(to) => *to = y,
                            None => simd.partial_store_f32s(to, y),
                        }
                    }
                }
            }
        }
    }
}
