//! 3×3 convolution with stride 1 and padding 1 by Winograd's F(4×4, 3×3) (Lavin and Gray 2016) on [B, H, W, C].
//!
//! Channels lie innermost, so the transforms run over whole vectors of channels and the 36 products are rows (tiles) times
//! panels of weights. A 4×4 tile of outputs costs 36 multiplications per channel pair instead of 144; the price is an error
//! of about 1e-6 (rms, relative). The weights are transformed as they are used, 32 output channels at a time: that costs
//! less than reading weights of four times the size from memory, and no memory at all.
// indices run over several arrays of vectors at once
#![allow(clippy::needless_range_loop)]
use super::half::{Form, Store};
use super::simd::{Aligned, DEPTH, PANEL, Product, dispatch, groups, packed_len, share};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Between the 36 planes, so that they do not fall on the same cache sets.
const GAP: usize = 16;
/// Tiles that are transformed at a time, at most: few enough that input, products and weights in use stay in the second-level
/// cache, enough that the weights' transform is a small part.
const BLOCK: usize = 64;
/// Input channels whose weights are transformed at a time: these weights stay in the second-level cache.
const CHUNK: usize = 64;
/// Floats of one of the 36 transformed blocks of weights, with a gap.
const ONE: usize = DEPTH * PANEL + GAP;
/// Floats of a tile's 36 products, with a gap.
const TILE: usize = 36 * PANEL + GAP;

thread_local! {
    static SCRATCH: RefCell<Aligned> = RefCell::new(Aligned::default());
    /// Weights of some channels that lie in 16 bits.
    static WIDE: RefCell<Aligned> = RefCell::new(Aligned::default());
}

/// The weights of a k×k convolution as the kernels read them, front to back: [cout/32][cin][taps][32]. Channels that do not
/// exist have zeros.
pub struct Taps {
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    taps: usize,
    data: Store,
    bias: Aligned,
}

impl Taps {
    /// From the bits that `at(co, ci, tap)` gives of numbers in any form; `bias` of `cout` values, or empty.
    pub fn of_bits(
        form: Form,
        cin: usize,
        cout: usize,
        taps: usize,
        bias: &[f32],
        at: impl Fn(usize, usize, usize) -> u32,
    ) -> Self {
        let panels = cout.div_ceil(PANEL);
        let mut data = Store::zeros(form, panels * cin * taps * PANEL);
        for p in 0..panels {
            let width = (cout - p * PANEL).min(PANEL);
            for ci in 0..cin {
                for t in 0..taps {
                    let from = ((p * cin + ci) * taps + t) * PANEL;
                    data.set(from..from + width, |j| at(p * PANEL + j, ci, t));
                }
            }
        }
        let padded = cout.next_multiple_of(PANEL);
        let mut b = Aligned::zeros(padded);
        b.take(padded).iter_mut().zip(bias).for_each(|(b, v)| *b = *v);
        Taps { cin, cout, taps, data, bias: b }
    }
    /// Panel `p`: the input channels `channels` and all taps for 32 output channels, widened into `scratch` where need be.
    #[inline(always)]
    pub fn panel<'a, S: Simd>(
        &'a self,
        simd: S,
        p: usize,
        channels: Range<usize>,
        scratch: &'a mut Aligned,
    ) -> &'a [f32] {
        let (from, one) = (p * self.cin, self.taps * PANEL);
        self.data.part(simd, (from + channels.start) * one..(from + channels.end) * one, scratch)
    }
    /// Element (co, ci, tap).
    pub fn at(&self, co: usize, ci: usize, tap: usize) -> f32 {
        self.form().value(self.bits(co, ci, tap))
    }
    /// The bits of element (co, ci, tap), in its form.
    pub fn bits(&self, co: usize, ci: usize, tap: usize) -> u32 {
        self.data.bits(((co / PANEL * self.cin + ci) * self.taps + tap) * PANEL + co % PANEL)
    }
    /// How its elements lie.
    pub fn form(&self) -> Form {
        self.data.form()
    }
    /// The number of taps.
    pub fn taps(&self) -> usize {
        self.taps
    }
    /// Bytes that the weights take.
    pub fn bytes(&self) -> usize {
        self.data.bytes() + 4 * self.bias.slice().len()
    }
    /// The bias of panel `p`.
    pub fn bias(&self, p: usize) -> &[f32; PANEL] {
        &self.bias.slice().as_chunks::<PANEL>().0[p]
    }
}

/// A result that several threads write to, each its own columns of pixels.
#[derive(Clone, Copy)]
pub(super) struct Columns<'o> {
    data: *mut f32,
    len: usize,
    /// It is that slice, borrowed for as long as any copy of this lives.
    of: PhantomData<&'o mut [f32]>,
}
// SAFETY: whoever makes one gives each thread other elements to write (see `Columns::at`).
unsafe impl Send for Columns<'_> {}
unsafe impl Sync for Columns<'_> {}

impl<'o> Columns<'o> {
    pub(super) fn new(out: &'o mut [f32]) -> Self {
        Columns { data: out.as_mut_ptr(), len: out.len(), of: PhantomData }
    }
    /// `n` elements from `i` on.
    ///
    /// # Safety
    /// No other reference to any of them may exist while this one is used.
    #[inline(always)]
    pub(super) unsafe fn at(self, i: usize, n: usize) -> &'o mut [f32] {
        assert!(i + n <= self.len);
        // SAFETY: in bounds by the line above; not aliased by the caller's promise
        unsafe { std::slice::from_raw_parts_mut(self.data.add(i), n) }
    }
}

/// Cycles for 16 input channels, about: to transform a tile's input; to transform 32 output channels' weights; to multiply a
/// tile with them. They decide how work is cut, never what comes out.
const INTO: usize = 300;
const WEIGHTS: usize = 3200;
const PRODUCTS: usize = 576;
/// Work (in units of the above) below which no second thread is asked.
const ALONE: usize = 60_000;

/// Into how many parts the tiles and the panels are cut, one job for each pair: what lets the slowest of at most `threads`
/// jobs end first. Each part of the tiles transforms the weights anew, each part of the panels the input.
fn cut(tiles: usize, panels: usize, cin: usize, threads: usize) -> [usize; 2] {
    let cost = |[a, b]: [usize; 2]| {
        let (n, p) = (tiles.div_ceil(a), panels.div_ceil(b));
        (n * INTO + n.div_ceil(BLOCK) * p * WEIGHTS + n * p * PRODUCTS) * cin.div_ceil(DEPTH)
    };
    if cost([1, 1]) < ALONE {
        return [1, 1];
    }
    let cuts = (1..=threads.min(panels)).map(|b| [(threads / b).min(tiles), b]);
    cuts.min_by_key(|c| cost(*c)).unwrap_or([1, 1])
}

/// Convolves x [b, h, w, cin] into out [b, h, w, cout] with 3×3 taps.
pub fn convolve(op: &Taps, x: &[f32], [b, h, w]: [usize; 3], out: &mut [f32], par: bool) {
    let (tiles_y, tiles_x) = (h.div_ceil(4), w.div_ceil(4));
    let (total, panels) = (b * tiles_y * tiles_x, op.cout.div_ceil(PANEL));
    if total == 0 || panels == 0 {
        return;
    }
    let out = Columns::new(out);
    let job = |tiles: Range<usize>, panels: Range<usize>| {
        let blocks = tiles.len().div_ceil(BLOCK);
        for i in 0..blocks {
            let Range { start, end } = share(tiles.len(), blocks, i);
            let shape = Shape { h, w, tiles_y, tiles_x, first: tiles.start + start, tiles: end - start };
            SCRATCH.with_borrow_mut(|scratch| {
                WIDE.with_borrow_mut(|wide| {
                    dispatch(Block { op, x, shape, panels: panels.clone(), out, scratch, wide });
                });
            });
        }
    };
    let threads = if par { rayon::current_num_threads() } else { 1 };
    match cut(total, panels, op.cin, threads) {
        [1, 1] => job(0..total, 0..panels),
        [a, b] => (0..a * b)
            .into_par_iter()
            .with_max_len(1)
            .for_each(|i| job(share(total, a, i / b), share(panels, b, i % b))),
    }
}

/// Some output channels of a block of tiles.
struct Block<'a> {
    op: &'a Taps,
    x: &'a [f32],
    shape: Shape,
    panels: Range<usize>,
    out: Columns<'a>,
    scratch: &'a mut Aligned,
    wide: &'a mut Aligned,
}

impl WithSimd for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Block { op, x, shape, panels, out, scratch, wide } = self;
        let depth = op.cin.next_multiple_of(DEPTH);
        let chunk = CHUNK.min(depth);
        let sizes = [depth, 36 * depth * shape.tiles, chunk / DEPTH * 36 * ONE, shape.tiles * TILE];
        let (zeros, rest) = scratch.take(sizes.iter().sum()).split_at_mut(sizes[0]);
        let (v, rest) = rest.split_at_mut(sizes[1]);
        let (u, m) = rest.split_at_mut(sizes[2]);
        zeros.fill(0.0);
        for (from, n) in groups(shape.tiles) {
            let v = &mut v[36 * depth * from..][..36 * depth * n];
            simd.vectorize(Into { x, c: op.cin, shape, from, n, v, zeros });
        }
        for p in panels {
            simd.vectorize(OnePanel { op, p, shape, v, u, m, out, wide });
        }
    }
}

/// A block of tiles.
#[derive(Clone, Copy)]
struct Shape {
    h: usize,
    w: usize,
    tiles_y: usize,
    tiles_x: usize,
    /// The first tile, counted through the batch.
    first: usize,
    tiles: usize,
}

impl Shape {
    /// (image, tile row, tile column) of tile `t` of this block.
    #[inline(always)]
    fn tile(&self, t: usize) -> (usize, usize, usize) {
        let row = (self.first + t) / self.tiles_x;
        (row / self.tiles_y, row % self.tiles_y, (self.first + t) % self.tiles_x)
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
    let (two, four, five) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(-5.0));
    let minus = s.splat_f32s(-4.0);
    let a = s.mul_add_e_f32s(minus, d[2], d[4]);
    let b = s.mul_add_e_f32s(minus, d[1], d[3]);
    let c = s.sub_f32s(d[4], d[2]);
    let e = s.mul_f32s(two, s.sub_f32s(d[3], d[1]));
    let first = s.mul_add_e_f32s(four, d[0], s.mul_add_e_f32s(five, d[2], d[4]));
    let last = s.mul_add_e_f32s(four, d[1], s.mul_add_e_f32s(five, d[3], d[5]));
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

/// G g for one line of three.
#[inline(always)]
fn weight_line<S: Simd>(s: S, g: [S::f32s; 3]) -> [S::f32s; 6] {
    let (quarter, sixth) = (s.splat_f32s(0.25), s.splat_f32s(-1.0 / 6.0));
    let (twelfth, fourth) = (s.splat_f32s(1.0 / 12.0), s.splat_f32s(1.0 / 24.0));
    let sum = s.add_f32s(g[0], g[2]);
    let c = s.mul_add_e_f32s(fourth, g[0], s.mul_f32s(s.splat_f32s(1.0 / 6.0), g[2]));
    let d = s.mul_f32s(twelfth, g[1]);
    [
        s.mul_f32s(quarter, g[0]),
        s.mul_f32s(sixth, s.add_f32s(sum, g[1])),
        s.mul_f32s(sixth, s.sub_f32s(sum, g[1])),
        s.add_f32s(c, d),
        s.sub_f32s(c, d),
        g[2],
    ]
}

/// The input transform of tiles from..from+n, one group of packed rows, into [blocks][36][n][16].
struct Into<'a> {
    x: &'a [f32],
    c: usize,
    shape: Shape,
    from: usize,
    n: usize,
    v: &'a mut [f32],
    zeros: &'a [f32],
}

impl WithSimd for Into<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Into { x, c, shape, from, n, v, zeros } = self;
        let (lanes, full) = (S::F32_LANES, c / S::F32_LANES);
        let block = 36 * n * DEPTH;
        let v = &mut v[..packed_len(n, c) * 36];
        for t in 0..n {
            let (b, ty, tx) = shape.tile(from + t);
            let mut patch = [zeros[..c].as_ptr(); 36];
            for (i, patch) in patch.iter_mut().enumerate() {
                // one pixel of padding on the left and above
                let (y, x_) = (4 * ty + i / 6, 4 * tx + i % 6);
                if (1..=shape.h).contains(&y) && (1..=shape.w).contains(&x_) {
                    *patch = x[((b * shape.h + y - 1) * shape.w + x_ - 1) * c..][..c].as_ptr();
                }
            }
            for j in 0..c.div_ceil(lanes) {
                let mut k = [[simd.splat_f32s(0.0); 6]; 6];
                for col in 0..6 {
                    let mut d = [simd.splat_f32s(0.0); 6];
                    for r in 0..6 {
                        // SAFETY: every patch has c floats
                        unsafe {
                            let from = patch[6 * r + col].add(j * lanes);
                            d[r] = if j < full {
                                from.cast::<S::f32s>().read_unaligned()
                            } else {
                                simd.partial_load_f32s(std::slice::from_raw_parts(from, c - full * lanes))
                            };
                        }
                    }
                    k[col] = input_line(simd, d);
                }
                let at = j * lanes / DEPTH * block + t * DEPTH + j * lanes % DEPTH;
                assert!(at + 35 * n * DEPTH + lanes <= v.len());
                let to = v[at..].as_mut_ptr();
                for r in 0..6 {
                    let q = input_line(simd, [k[0][r], k[1][r], k[2][r], k[3][r], k[4][r], k[5][r]]);
                    for col in 0..6 {
                        // SAFETY: in bounds by the assertion
                        unsafe { to.add((6 * r + col) * n * DEPTH).cast::<S::f32s>().write_unaligned(q[col]) };
                    }
                }
            }
        }
    }
}

/// Everything for 32 output channels of a block of tiles: weights, products, output transform.
struct OnePanel<'a> {
    op: &'a Taps,
    p: usize,
    shape: Shape,
    v: &'a [f32],
    u: &'a mut [f32],
    m: &'a mut [f32],
    out: Columns<'a>,
    wide: &'a mut Aligned,
}

impl WithSimd for OnePanel<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let OnePanel { op, p, shape, v, u, m, out, wide: widened } = self;
        let n = (op.cout - p * PANEL).min(PANEL);
        let wide = n.next_multiple_of(S::F32_LANES);
        let chunk = CHUNK.min(op.cin.next_multiple_of(DEPTH));
        for (i, first) in (0..op.cin).step_by(chunk.max(1)).enumerate() {
            let g = op.panel(simd, p, first..(first + chunk).min(op.cin), widened);
            simd.vectorize(Transform { g, n, u: &mut *u });
            let depth = g.len() / (9 * PANEL);
            let (blocks, full, tail) = (depth.div_ceil(DEPTH), depth / DEPTH, depth % DEPTH);
            // the transform of a constant bias is not constant: it is added at the end
            let init = if i == 0 { Some(&[0.0; PANEL]) } else { None };
            for xi in 0..36 {
                let (w, stride, skip) = (&u[xi * ONE..], 36 * ONE, i * chunk / DEPTH);
                for (first, rows) in groups(shape.tiles) {
                    let a = &v[36 * packed_len(first, op.cin) + (36 * skip + xi) * rows * DEPTH..];
                    let apart = 36 * rows * DEPTH;
                    let out = &mut m[first * TILE + xi * PANEL..];
                    simd.vectorize(Product {
                        a,
                        apart,
                        rows,
                        blocks,
                        full,
                        tail,
                        w,
                        stride,
                        init,
                        out,
                        ldc: TILE,
                        n: wide,
                    });
                }
            }
        }
        simd.vectorize(OutOf { m, shape, out, cout: op.cout, first: p * PANEL, n, bias: op.bias(p) });
    }
}

/// G g Gᵀ of one panel of weights, into [blocks of 16 input channels][36][16][32] with gaps.
struct Transform<'a> {
    g: &'a [f32],
    n: usize,
    u: &'a mut [f32],
}

impl WithSimd for Transform<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Transform { g, n, u } = self;
        let lanes = S::F32_LANES;
        let blocks = g.chunks(9 * DEPTH * PANEL).zip(u.as_chunks_mut::<{ 36 * ONE }>().0);
        for (g, u) in blocks {
            for (row, g) in g.as_chunks::<{ 9 * PANEL }>().0.iter().enumerate() {
                for j in 0..n.div_ceil(lanes) {
                    let zero = simd.splat_f32s(0.0);
                    let mut k = [[zero; 6]; 3];
                    for c in 0..3 {
                        let mut line = [zero; 3];
                        for r in 0..3 {
                            line[r] = vector::<S>(&g[(3 * r + c) * PANEL + j * lanes..]);
                        }
                        k[c] = weight_line(simd, line);
                    }
                    let at = row * PANEL + j * lanes;
                    for r in 0..6 {
                        let q = weight_line(simd, [k[0][r], k[1][r], k[2][r]]);
                        for c in 0..6 {
                            S::as_mut_simd_f32s(&mut u[(6 * r + c) * ONE + at..][..lanes]).0[0] = q[c];
                        }
                    }
                }
            }
        }
    }
}

/// The inverse transform of `n` channels from `first` on.
struct OutOf<'a> {
    m: &'a [f32],
    shape: Shape,
    out: Columns<'a>,
    cout: usize,
    first: usize,
    n: usize,
    bias: &'a [f32; PANEL],
}

impl WithSimd for OutOf<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let OutOf { m, shape, out, cout, first, n, bias } = self;
        let lanes = S::F32_LANES;
        for (t, m) in m.as_chunks::<TILE>().0.iter().enumerate().take(shape.tiles) {
            let (b, ty, tx) = shape.tile(t);
            let (ny, nx) = ((shape.h - 4 * ty).min(4), (shape.w - 4 * tx).min(4));
            let corner = ((b * shape.h + 4 * ty) * shape.w + 4 * tx) * cout + first;
            for j in 0..n.div_ceil(lanes) {
                let add = vector::<S>(&bias[j * lanes..]);
                let mut k = [[add; 4]; 6];
                for c in 0..6 {
                    let mut line = [add; 6];
                    for r in 0..6 {
                        line[r] = vector::<S>(&m[(6 * r + c) * PANEL + j * lanes..]);
                    }
                    k[c] = output_line(simd, line);
                }
                let left = (n - j * lanes).min(lanes);
                for r in 0..4 {
                    let y = output_line(simd, [k[0][r], k[1][r], k[2][r], k[3][r], k[4][r], k[5][r]]);
                    for q in 0..4 {
                        if r >= ny || q >= nx {
                            continue;
                        }
                        // SAFETY: these channels of these pixels belong to this panel and block alone
                        let to = unsafe { out.at(corner + (r * shape.w + q) * cout + j * lanes, left) };
                        let y = simd.add_f32s(y[q], add);
                        if left == lanes {
                            S::as_mut_simd_f32s(to).0[0] = y;
                        } else {
                            simd.partial_store_f32s(to, y);
                        }
                    }
                }
            }
        }
    }
}
