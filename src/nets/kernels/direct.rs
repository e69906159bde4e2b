//! Convolutions without Winograd: pixels gathered into rows, times the weights. Any size, stride and padding, both directions.
use super::simd::{Aligned, DEPTH, GROUP, PANEL, Product, dispatch, groups, packed_len};
use super::winograd::{Columns, Taps};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;

/// Pixels that one job gathers before the weights pass over them.
const PASS: usize = 4 * GROUP;

thread_local! {
    static ROWS: RefCell<[Aligned; 2]> = RefCell::default();
}

/// Where a tap of an output pixel lies in the input, along one axis: (`mul` · y + tap − `pad`) / `div` where that is whole.
///
/// A convolution has div = 1 and mul = its stride; its transpose, whose taps are flipped, has mul = 1 and div = the stride.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Taps along the axis.
    pub size: usize,
    /// Steps of the input for one of the output.
    pub mul: usize,
    /// Steps of the output for one of the input.
    pub div: usize,
    /// Zeros before the first element, or elements left out if negative.
    pub pad: isize,
}

impl Walk {
    #[inline(always)]
    fn source(&self, y: usize, tap: usize, n: usize) -> Option<usize> {
        let at = (self.mul * y + tap) as isize - self.pad;
        let (at, div) = (usize::try_from(at).ok()?, self.div);
        (at.is_multiple_of(div) && at / div < n).then_some(at / div)
    }
}

/// x [b, h, w, cin] → out [b, oh, ow, cout] with walks along both axes; `op` holds the taps row by row.
pub fn convolve(
    op: &Taps,
    walks: [Walk; 2],
    x: &[f32],
    dims: [usize; 3],
    out: &mut [f32],
    size: [usize; 2],
    par: bool,
) {
    let pixels = dims[0] * size[0] * size[1];
    let target = Columns::new(out);
    let job = |first: usize| {
        let rows = PASS.min(pixels - first);
        ROWS.with_borrow_mut(|scratch| {
            dispatch(Job { op, walks, x, dims, size, first, rows, out: target, scratch });
        });
    };
    let firsts = 0..pixels.div_ceil(PASS);
    if par {
        firsts.into_par_iter().for_each(|i| job(i * PASS));
    } else {
        firsts.for_each(|i| job(i * PASS));
    }
}

struct Job<'a> {
    op: &'a Taps,
    walks: [Walk; 2],
    x: &'a [f32],
    dims: [usize; 3],
    size: [usize; 2],
    first: usize,
    rows: usize,
    out: Columns<'a>,
    /// For the pixels, and for weights that lie in 16 bits.
    scratch: &'a mut [Aligned; 2],
}

impl Job<'_> {
    /// Rows of depth (channel, tap), in that order, as the weights have it.
    #[inline(always)]
    fn gather(&self, packed: &mut [f32]) {
        let (cin, [wy, wx], [_, h, w]) = (self.op.cin, self.walks, self.dims);
        let (taps, [oh, ow]) = (wy.size * wx.size, self.size);
        for (g, n) in groups(self.rows) {
            let to = &mut packed[packed_len(g, taps * cin)..][..packed_len(n, taps * cin)];
            for r in 0..n {
                let pixel = self.first + g + r;
                let (b, y, x) = (pixel / ow / oh, pixel / ow % oh, pixel % ow);
                for tap in 0..taps {
                    let source = wy.source(y, tap / wx.size, h).zip(wx.source(x, tap % wx.size, w));
                    let from = source.map(|(y, x)| &self.x[((b * h + y) * w + x) * cin..][..cin]);
                    for c in 0..cin {
                        let k = c * taps + tap;
                        to[(k / DEPTH * n + r) * DEPTH + k % DEPTH] = from.map_or(0.0, |from| from[c]);
                    }
                }
            }
        }
    }
}

impl WithSimd for Job<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let k = self.op.cin * self.walks[0].size * self.walks[1].size;
        let mut scratch = std::mem::take(self.scratch);
        let [rows, wide] = &mut scratch;
        let packed = rows.take(packed_len(self.rows, k));
        self.gather(packed);
        let cout = self.op.cout;
        for p in 0..cout.div_ceil(PANEL) {
            let n = (cout - p * PANEL).min(PANEL);
            let panel = self.op.panel(simd, p, 0..self.op.cin, wide);
            for (g, rows) in groups(self.rows) {
                let mut part = [0.0; GROUP * PANEL];
                simd.vectorize(Product {
                    a: &packed[packed_len(g, k)..],
                    apart: rows * DEPTH,
                    rows,
                    blocks: k.div_ceil(DEPTH),
                    full: k / DEPTH,
                    tail: k % DEPTH,
                    w: panel,
                    stride: DEPTH * PANEL,
                    init: Some(self.op.bias(p)),
                    out: &mut part,
                    ldc: PANEL,
                    n: PANEL,
                });
                for (r, part) in part.as_chunks::<PANEL>().0.iter().enumerate().take(rows) {
                    // SAFETY: every pixel belongs to one job alone
                    let to = unsafe { self.out.at((self.first + g + r) * cout + p * PANEL, n) };
                    to.copy_from_slice(&part[..n]);
                }
            }
        }
        *self.scratch = scratch;
    }
}
