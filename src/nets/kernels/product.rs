//! Matrix products of two values, or of a constant and a value, over leading dimensions that broadcast.
use super::arithmetic::{Side, sides, tensor_sides, told};
use super::lines::{Lines, broadcast, broadcast_strides, strides};
use super::simd::{MatMul, Packed};
use super::{Frozen, View, pool};
use crate::tensor::linalg;
use candle_core::Tensor;
use rayon::prelude::*;
use std::cell::RefCell;

/// a [.., n, k] times b [.., k, m]: [.., n, m].
pub struct Product(pub [Side; 2]);

thread_local! {
    static PANELS: RefCell<Packed> = RefCell::new(Packed::default());
}

/// The sizes of a product: which matrices meet, [result, left, right], counted in matrices; then n, k and m.
struct Sizes {
    leading: Vec<usize>,
    meet: Vec<[usize; 3]>,
    n: usize,
    k: usize,
    m: usize,
}

fn sizes(a: &[usize], b: &[usize]) -> Option<Sizes> {
    let ((la, [n, k]), (lb, [inner, m])) = (a.split_last_chunk::<2>()?, b.split_last_chunk::<2>()?);
    let leading = broadcast(la, lb).filter(|_| k == inner)?;
    let lines =
        Lines::new(&leading, [strides(&leading), broadcast_strides(la, &leading), broadcast_strides(lb, &leading)]);
    let mut meet = vec![];
    lines.each(0, [0; 3], |at| meet.push(at));
    Some(Sizes { leading, meet, n: *n, k: *k, m: *m })
}

impl Product {
    /// Runs `one` for each piece of `out`, of `size` values each.
    fn spread(out: &mut [f32], size: usize, par: bool, one: impl Fn(usize, &mut [f32]) + Sync) {
        if par {
            out.par_chunks_mut(size.max(1)).enumerate().for_each(|(i, out)| one(i, out));
        } else {
            out.chunks_mut(size.max(1)).enumerate().for_each(|(i, out)| one(i, out));
        }
    }
}

/// out [rows, w.n] = a · w, of rows `lda` apart whose elements are `step` apart.
fn multiply(a: &[f32], lda: usize, step: usize, w: &Packed, out: &mut [f32]) {
    let m = out.len() / w.n.max(1);
    MatMul { a, lda, step, m, w, panels: w.panels(), out, ldc: w.n }.run();
}

impl Frozen for Product {
    fn name(&self) -> &'static str {
        "matrix product"
    }
    fn detail(&self) -> String {
        told(&self.0)
    }
    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let views: Vec<View> = inputs.iter().map(|dims| View { data: &[], dims }).collect();
        let [a, b] = sides(&self.0, &views);
        let s = sizes(a.dims, b.dims).ok_or_else(|| format!("matrices do not fit: {:?} and {:?}", a.dims, b.dims))?;
        Ok([&s.leading[..], &[s.n, s.m]].concat())
    }
    fn run(&self, inputs: &[View], out: &mut [f32], par: bool) {
        let [a, b] = sides(&self.0, inputs);
        let Some(Sizes { meet, n, k, m, .. }) = sizes(a.dims, b.dims) else { return };
        if k == 0 {
            return out.fill(0.0);
        }
        Product::spread(out, n * m, par, |i, out| {
            let [_, ia, ib] = meet[i];
            PANELS.with_borrow_mut(|w| {
                w.pack_rows(k, m, &b.data[ib * k * m..][..k * m], m);
                multiply(&a.data[ia * n * k..][..n * k], k, 1, w, out);
            });
        });
    }
    fn saves(&self) -> bool {
        true
    }
    fn pull(&self, inputs: &[View], cot: &[f32], par: bool) -> Vec<Vec<f32>> {
        let [a, b] = sides(&self.0, inputs);
        let Some(Sizes { meet, n, k, m, .. }) = sizes(a.dims, b.dims) else { return vec![] };
        let mut grads = vec![];
        for (side, of) in self.0.iter().enumerate() {
            if matches!(of, Side::Fixed(_)) {
                continue;
            }
            // the gradient of each product's own matrix; then those of one matrix are summed
            let (view, size) = if side == 0 { (a, n * k) } else { (b, k * m) };
            let mut each = pool::take(meet.len() * size);
            Product::spread(&mut each, size, par, |i, out| {
                let [_, ia, ib] = meet[i];
                let g = &cot[i * n * m..][..n * m];
                PANELS.with_borrow_mut(|w| match side {
                    0 => {
                        w.pack_columns(m, k, &b.data[ib * k * m..][..k * m], m);
                        multiply(g, m, 1, w, out);
                    }
                    _ => {
                        w.pack_rows(n, m, g, m);
                        multiply(&a.data[ia * n * k..][..n * k], 1, k, w, out);
                    }
                });
            });
            if each.len() == view.data.len() {
                grads.push(each);
                continue;
            }
            let mut grad = pool::zeros(view.data.len());
            for (own, at) in each.chunks_exact(size.max(1)).zip(&meet) {
                grad[at[1 + side] * size..][..size].iter_mut().zip(own).for_each(|(to, g)| *to += g);
            }
            pool::give(each);
            grads.push(grad);
        }
        grads
    }
    fn compose(&self, inputs: &[&Tensor]) -> candle_core::Result<Tensor> {
        let [a, b] = tensor_sides(&self.0, inputs)?;
        linalg::matmul(&a, &b).map_err(|e| candle_core::Error::Msg(e.to_string()))
    }
}
