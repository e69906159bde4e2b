//! Seeded random tensors. Sample i of the first dimension depends on the seed, the stream and i alone: not on how many
//! samples are drawn together, on the device or on the dtype (values are drawn in f64 and cast).
use super::create;
use super::dtype::check_size;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use std::cell::Cell;

/// Streams keep independent uses of one seed apart.
pub mod stream {
    /// x_T and other normal noise that scripts draw with `noise` and `randn`.
    pub const NORMAL: u64 = 0;
    /// Uniform numbers.
    pub const UNIFORM: u64 = 1;
    /// Random integers (class labels among them).
    pub const INTEGER: u64 = 2;
    /// Permutations.
    pub const PERMUTATION: u64 = 3;
    /// The noise that stochastic samplers add.
    pub const SAMPLER: u64 = 4;
    /// Conditions drawn by `sample`.
    pub const CONDITION: u64 = 5;
    /// Rows that metrics draw.
    pub const METRIC: u64 = 6;
    /// Latents that a model's prior draws.
    pub const LATENT: u64 = 7;
}

thread_local! {
    static SESSION: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Seeds the draws that are given no seed (`--seed`, `manual_seed`), and starts their sequence anew.
pub fn set_session_seed(seed: u64) {
    SESSION.set((seed, 0));
}

/// The seed for a draw that is given none: the n-th such draw of a session always gets the same.
pub fn next_session_seed() -> u64 {
    let (seed, n) = SESSION.get();
    SESSION.set((seed, n.wrapping_add(1)));
    // splitmix64 of the pair: neighbouring sessions share no draw
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.wrapping_add(0x5851_f42d_4c95_7f2d);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The generator of sample `index` under `seed` in `stream`.
pub fn generator(seed: u64, stream: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&stream.to_le_bytes());
    key[16..].copy_from_slice(b"ld3sh/sample/v01");
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}

/// Numbers that a thread draws between looks at Ctrl-C.
const BLOCK: usize = 1 << 18;

fn draw(
    seed: u64,
    first: u64,
    shape: &[usize],
    stream: u64,
    one: impl Fn(&mut ChaCha8Rng) -> f64 + Sync,
) -> Result<Vec<f64>> {
    let n = check_size("random numbers", shape, DType::F64)?;
    let stop = crate::host::Stop::here();
    let mut out = vec![0.0; n];
    // a scalar is one sample
    let samples = shape.first().copied().unwrap_or(1);
    if n > 0 {
        out.par_chunks_mut(n / samples).enumerate().for_each(|(i, chunk)| {
            let mut rng = generator(seed, stream, first.wrapping_add(i as u64));
            for block in chunk.chunks_mut(BLOCK) {
                if stop.requested() {
                    return;
                }
                block.iter_mut().for_each(|v| *v = one(&mut rng));
            }
        });
    }
    crate::host::check_cancelled()?;
    Ok(out)
}

/// Standard normal numbers. The first dimension counts samples: row i is sample `first + i` under (`seed`, `stream`).
pub fn normal(seed: u64, first: u64, shape: &[usize], stream: u64, dtype: DType, device: &Device) -> Result<Tensor> {
    let values = draw(seed, first, shape, stream, |rng| StandardNormal.sample(rng))?;
    create::from_f64(values, shape, dtype, device)
}

/// Numbers uniform in [0, 1), by the same rule. The upper bound holds in f64 and f32; f16 and bf16 may round up to 1.
pub fn uniform(seed: u64, first: u64, shape: &[usize], stream: u64, dtype: DType, device: &Device) -> Result<Tensor> {
    // 24 bits: exact in f32, so that rounding cannot reach 1
    let values = draw(seed, first, shape, stream, |rng| (rng.next_u64() >> 40) as f64 / (1u64 << 24) as f64)?;
    create::from_f64(values, shape, dtype, device)
}

/// Integers uniform in [low, high), by the same rule.
pub fn integers(seed: u64, first: u64, low: i64, high: i64, shape: &[usize], device: &Device) -> Result<Tensor> {
    let span = high.checked_sub(low).filter(|s| *s > 0 && *s <= 1 << 52);
    let Some(span) = span else {
        return Err(Error::value(format!("randint: needs low < high (at most 2^52 apart), got {low} and {high}")));
    };
    let values = draw(seed, first, shape, stream::INTEGER, |rng| below(rng, span as u64) as f64)?;
    create::from_i64(values.into_iter().map(|v| low + v as i64).collect(), shape, DType::I64, device)
}

/// A number in [0, n), without bias.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    let zone = u64::MAX - u64::MAX % n;
    loop {
        let v = rng.next_u64();
        if v < zone {
            return v % n;
        }
    }
}

/// A random order of 0..n.
pub(crate) fn shuffled(rng: &mut ChaCha8Rng, n: usize) -> Result<Vec<usize>> {
    let mut v: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        if i.is_multiple_of(BLOCK) {
            crate::host::check_cancelled()?;
        }
        v.swap(i, below(rng, i as u64 + 1) as usize);
    }
    Ok(v)
}

/// A random order of 0..n, i64 [n].
pub fn permutation(seed: u64, n: usize, device: &Device) -> Result<Tensor> {
    check_size("permutation", &[n], DType::I64)?;
    let order = shuffled(&mut generator(seed, stream::PERMUTATION, 0), n)?;
    create::from_i64(order.into_iter().map(|i| i as i64).collect(), &[n], DType::I64, device)
}
