//! Softmax attention of one sample, head by head, in blocks of queries: probabilities of all of them are never held at once, and the
//! pull-back computes them again.
use super::pointwise::exp;
use super::pool;
use super::simd::{MatMul, Packed, dispatch};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Probabilities of a block, forward: few, so that they stay in cache and all threads have work.
const FORWARD: usize = 1 << 18;
/// Probabilities of a block of the pull-back, where each block adds to the gradients of all keys.
const BACK: usize = 1 << 20;
/// Runs of blocks that add up their gradients apart from each other: a fixed number, so that bits do not depend on threads.
const RUNS: usize = 4;

/// Memory that one block needs, kept per thread.
#[derive(Default)]
struct Scratch {
    packed: Packed,
    p: Vec<f32>,
    dp: Vec<f32>,
    part: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Where rows of all heads lie: in which buffer, from which element on, and how far apart.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub buffer: usize,
    pub at: usize,
    pub stride: usize,
}

/// What is added to scores before the softmax.
#[derive(Clone, Copy)]
pub(super) enum Bias<'a> {
    None,
    /// For each head, by how far a key lies behind the query, from `reach` before it to as many behind it; what lies farther has the
    /// value at that end.
    Relative {
        values: &'a [f32],
        reach: usize,
    },
    /// For each key.
    Keys(&'a [f32]),
}

/// The sizes of an attention, and where its queries, keys and values are; their gradients lie alike.
pub(super) struct Heads<'a> {
    pub heads: usize,
    /// Columns of a head.
    pub d: usize,
    pub queries: usize,
    pub keys: usize,
    /// Whether a query sees only the keys up to its own place.
    pub causal: bool,
    /// What scores and bias are multiplied by.
    pub scale: f32,
    pub bias: Bias<'a>,
    pub places: [Place; 3],
}

/// What queries and keys are multiplied by together, so that scores of d channels stay of one size.
pub(super) fn usual(d: usize) -> f32 {
    1.0 / (d.max(1) as f32).sqrt()
}

impl Bias<'_> {
    /// Adds it to the scores of a head's queries from place `first` on.
    fn add(self, p: &mut [f32], keys: usize, head: usize, first: usize) {
        match self {
            Bias::None => {}
            Bias::Keys(bias) => {
                p.chunks_exact_mut(keys).for_each(|row| row.iter_mut().zip(bias).for_each(|(p, b)| *p += b));
            }
            Bias::Relative { values, reach } => {
                let of = &values[head * (2 * reach + 1)..][..2 * reach + 1];
                for (query, row) in (first..).zip(p.chunks_exact_mut(keys)) {
                    // before what is told apart, in it, and behind
                    let near = query.saturating_sub(reach).min(keys)..(query + reach + 1).min(keys);
                    let from = near.start + reach - query.min(near.start + reach);
                    row[..near.start].iter_mut().for_each(|p| *p += of[0]);
                    row[near.end..].iter_mut().for_each(|p| *p += of[2 * reach]);
                    row[near].iter_mut().zip(&of[from..]).for_each(|(p, b)| *p += b);
                }
            }
        }
    }
}

/// Rows of probabilities, in place; of the first row `seen` entries count, of each following one more.
struct Softmax<'a> {
    p: &'a mut [f32],
    n: usize,
    scale: f32,
    seen: Option<usize>,
}
impl WithSimd for Softmax<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Softmax { p, n, scale, seen } = self;
        for (i, row) in p.chunks_exact_mut(n).enumerate() {
            let (row, unseen) = row.split_at_mut(seen.map_or(n, |s| (s + i).min(n)));
            unseen.fill(0.0);
            let max = |m: f32, v: &f32| if *v > m { *v } else { m };
            // sixteen running maxima and sums: a fixed order that vectors can follow
            let mut lanes = [f32::NEG_INFINITY; 16];
            for part in row.chunks(16) {
                lanes.iter_mut().zip(part).for_each(|(l, v)| *l = max(*l, v));
            }
            let top = lanes.iter().fold(f32::NEG_INFINITY, max);
            row.iter_mut().for_each(|v| *v = exp((*v - top) * scale));
            let mut lanes = [0f32; 16];
            for part in row.chunks(16) {
                lanes.iter_mut().zip(part).for_each(|(l, v)| *l += v);
            }
            let total = 1.0 / lanes.iter().sum::<f32>();
            row.iter_mut().for_each(|v| *v *= total);
        }
    }
}

/// dS = P ∘ (dP − ⟨P, dP⟩ by row), into dP.
struct SoftmaxPull<'a>(&'a [f32], &'a mut [f32], usize, f32);
impl WithSimd for SoftmaxPull<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let SoftmaxPull(p, dp, n, scale) = self;
        for (p, d) in p.chunks_exact(n).zip(dp.chunks_exact_mut(n)) {
            let mut lanes = [0f32; 16];
            for (p, d) in p.chunks(16).zip(d.chunks(16)) {
                lanes.iter_mut().zip(p).zip(d).for_each(|((l, p), d)| *l += p * d);
            }
            let dot: f32 = lanes.iter().sum();
            d.iter_mut().zip(p).for_each(|(d, p)| *d = p * (*d - dot) * scale);
        }
    }
}

/// out = a · w with a's two strides.
fn product(a: &[f32], [lda, step]: [usize; 2], m: usize, w: &Packed, out: &mut [f32], ldc: usize) {
    MatMul { a, lda, step, m, w, panels: w.panels(), out, ldc }.run();
}

/// Some queries of one head.
#[derive(Clone)]
struct Block {
    head: usize,
    rows: Range<usize>,
}

/// What a run of blocks gives: the gradient of its queries, and its part of those of keys and values.
struct Pulled {
    head: usize,
    rows: Range<usize>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Heads<'_> {
    /// The blocks of one head with room for so many probabilities.
    fn blocks(&self, room: usize, head: usize) -> impl Iterator<Item = Block> + use<> {
        let (n, per) = (self.queries, (room / self.keys.max(1)).clamp(64, self.queries.max(64)));
        (0..n).step_by(per).map(move |first| Block { head, rows: first..(first + per).min(n) })
    }

    /// Where a head's rows begin, from row `first` on, and how far they are apart.
    fn rows<'a>(&self, which: usize, from: &[&'a [f32]], head: usize, first: usize) -> (&'a [f32], usize) {
        let Place { buffer, at, stride } = self.places[which];
        (&from[buffer][at + head * self.d + first * stride..], stride)
    }

    /// P of a block, into `s.p`.
    fn probabilities(&self, x: &[&[f32]], Block { head, rows }: &Block, s: &mut Scratch) {
        let (keys, d) = (self.keys, self.d);
        let (k, apart) = self.rows(1, x, *head, 0);
        s.packed.pack_columns(d, keys, k, apart);
        s.p.resize(rows.len() * keys, 0.0);
        let (q, apart) = self.rows(0, x, *head, rows.start);
        product(q, [apart, 1], rows.len(), &s.packed, &mut s.p, keys);
        self.bias.add(&mut s.p, keys, *head, rows.start);
        let seen = self.causal.then_some(rows.start + 1);
        dispatch(Softmax { p: &mut s.p, n: keys, scale: self.scale, seen });
    }

    /// A block's rows of the result, [rows, d].
    fn run_block(&self, x: &[&[f32]], b: &Block, s: &mut Scratch) -> Vec<f32> {
        self.probabilities(x, b, s);
        let (v, apart) = self.rows(2, x, b.head, 0);
        s.packed.pack_rows(self.keys, self.d, v, apart);
        let mut out = pool::take(b.rows.len() * self.d);
        product(&s.p, [self.keys, 1], b.rows.len(), &s.packed, &mut out, self.d);
        out
    }

    /// Into `out` [queries, heads · d], from a sample's buffers.
    pub fn run(&self, x: &[&[f32]], out: &mut [f32], par: bool) {
        let blocks: Vec<Block> = (0..self.heads).flat_map(|h| self.blocks(FORWARD, h)).collect();
        let one = |b: &Block| SCRATCH.with_borrow_mut(|s| self.run_block(x, b, s));
        let done: Vec<Vec<f32>> = if par && blocks.len() > 1 {
            blocks.par_iter().map(one).collect()
        } else {
            blocks.iter().map(one).collect()
        };
        let c = self.heads * self.d;
        for (b, part) in blocks.iter().zip(done) {
            for (row, from) in b.rows.clone().zip(part.chunks_exact(self.d)) {
                out[row * c + b.head * self.d..][..self.d].copy_from_slice(from);
            }
            pool::give(part);
        }
    }

    /// Adds a block's part to the gradients of its head's run.
    fn pull_block(&self, x: &[&[f32]], cot: &[f32], b: &Block, first: bool, to: &mut Pulled, s: &mut Scratch) {
        let (keys, d, m, c) = (self.keys, self.d, b.rows.len(), self.heads * self.d);
        let cot = &cot[b.rows.start * c + b.head * d..];
        self.probabilities(x, b, s);
        let add = |to: &mut [f32], s: &mut Scratch, a: fn(&Scratch) -> &[f32]| {
            if first {
                return product(a(s), [1, keys], keys, &s.packed, to, d);
            }
            let mut part = std::mem::take(&mut s.part);
            part.resize(keys * d, 0.0);
            product(a(s), [1, keys], keys, &s.packed, &mut part, d);
            to.iter_mut().zip(&part).for_each(|(t, p)| *t += p);
            s.part = part;
        };
        // dV = Pᵀ dO
        s.packed.pack_rows(m, d, cot, c);
        add(&mut to.dv, s, |s| &s.p);
        // dP = dO Vᵀ, then dS
        s.dp.resize(m * keys, 0.0);
        let (v, apart) = self.rows(2, x, b.head, 0);
        s.packed.pack_columns(d, keys, v, apart);
        product(cot, [c, 1], m, &s.packed, &mut s.dp, keys);
        dispatch(SoftmaxPull(&s.p, &mut s.dp, keys, self.scale));
        // dQ = dS K
        let (k, apart) = self.rows(1, x, b.head, 0);
        s.packed.pack_rows(keys, d, k, apart);
        product(&s.dp, [keys, 1], m, &s.packed, &mut to.dq[(b.rows.start - to.rows.start) * d..], d);
        // dK = dSᵀ Q
        let (q, apart) = self.rows(0, x, b.head, b.rows.start);
        s.packed.pack_rows(m, d, q, apart);
        add(&mut to.dk, s, |s| &s.dp);
    }

    fn pull_run(&self, x: &[&[f32]], cot: &[f32], blocks: &[Block]) -> Pulled {
        let (head, start) = blocks.first().map_or((0, 0), |b| (b.head, b.rows.start));
        let rows = start..blocks.last().map_or(start, |b| b.rows.end);
        let take = |n: usize| pool::take(n * self.d);
        let mut to = Pulled { head, dq: take(rows.len()), dk: take(self.keys), dv: take(self.keys), rows };
        SCRATCH.with_borrow_mut(|s| {
            for (i, b) in blocks.iter().enumerate() {
                self.pull_block(x, cot, b, i == 0, &mut to, s);
            }
        });
        to
    }

    /// The gradients of a sample's buffers, which it overwrites where queries, keys and values lie.
    pub fn pull(&self, x: &[&[f32]], cot: &[f32], grads: &mut [&mut [f32]], par: bool) {
        let runs = |h: usize| {
            let blocks: Vec<Block> = self.blocks(BACK, h).collect();
            let per = blocks.len().div_ceil(RUNS).max(1);
            blocks.chunks(per).map(<[Block]>::to_vec).collect::<Vec<_>>()
        };
        let runs: Vec<Vec<Block>> = (0..self.heads).flat_map(runs).collect();
        let one = |blocks: &Vec<Block>| self.pull_run(x, cot, blocks);
        let done: Vec<Pulled> =
            if par && runs.len() > 1 { runs.par_iter().map(one).collect() } else { runs.iter().map(one).collect() };
        for Pulled { head, rows, dq, dk, dv } in done {
            let fresh = rows.start == 0;
            for (which, from, first) in [(0, dq, rows.start), (1, dk, 0), (2, dv, 0)] {
                let Place { buffer, at, stride } = self.places[which];
                let to = &mut grads[buffer][at + head * self.d..];
                for (i, from) in from.chunks_exact(self.d).enumerate() {
                    let to = &mut to[(first + i) * stride..][..self.d];
                    match fresh || which == 0 {
                        true => to.copy_from_slice(from),
                        false => to.iter_mut().zip(from).for_each(|(t, f)| *t += f),
                    }
                }
                pool::give(from);
            }
        }
    }
}
