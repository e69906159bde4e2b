//! Distances by kernels: KID, and whether two sets of features come from one distribution.
use super::rows::{Rows, chosen};
use crate::host::check_cancelled;
use crate::tensor::random::{generator, shuffled, stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// Rows of each side that [`two_sample`] takes at most: it holds the kernel of all pairs.
const MOST: usize = 4000;

/// (x·y/D + 1)³ of all pairs of rows, row by row.
fn cubic(x: &Rows, y: &Rows) -> Result<Vec<f64>> {
    let d = x.width() as f64;
    let mut k = x.products(y)?;
    k.iter_mut().for_each(|v| *v = (*v / d + 1.0).powi(3));
    Ok(k)
}

/// The unbiased estimate of the squared maximum mean discrepancy from kernels of all pairs within and between.
fn unbiased(xx: &[f64], yy: &[f64], xy: &[f64], m: usize, n: usize) -> f64 {
    let off = |k: &[f64], n: usize| {
        let all: f64 = k.iter().sum();
        let diagonal: f64 = (0..n).map(|i| k[i * n + i]).sum();
        (all - diagonal) / (n * (n - 1)) as f64
    };
    off(xx, m) + off(yy, n) - 2.0 * xy.iter().sum::<f64>() / (m * n) as f64
}

/// The kernel inception distance of two sets of features (Bińkowski et al. 2018): mean and standard deviation, over random subsets of
/// `size` rows of each, of the unbiased squared MMD with the kernel (x·y/D + 1)³. A set that has no more than `size` rows is
/// taken whole; where both are, there is one subset.
pub fn kid(x: &Rows, y: &Rows, subsets: usize, size: usize, seed: u64) -> Result<(f64, f64)> {
    x.same_width("kid", y)?;
    let (m, n) = (size.min(x.len()), size.min(y.len()));
    if m < 2 || n < 2 || subsets == 0 {
        let m = format!("kid: needs at least 2 rows of each and a subset, not {}, {}, {subsets}", x.len(), y.len());
        return Err(Error::value(m));
    }
    let subsets = if m == x.len() && n == y.len() { 1 } else { subsets };
    let mut each = vec![];
    for i in 0..subsets as u64 {
        check_cancelled()?;
        let (a, b) = (chosen(x, m, seed, 2 * i)?, chosen(y, n, seed, 2 * i + 1)?);
        each.push(unbiased(&cubic(&a, &a)?, &cubic(&b, &b)?, &cubic(&a, &b)?, m, n));
    }
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    let variance = each.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / each.len() as f64;
    Ok((mean, variance.sqrt()))
}

/// The maximum mean discrepancy of two sets of features by a Gaussian kernel, e^(−|x − y|² / 2σ²), times `scale`: the biased estimate, whose
/// diagonals count. CMMD (Jayasumana et al. 2024) where they are CLIP's of unit length, with σ = 10 and a scale of 1000.
pub fn cmmd(x: &Rows, y: &Rows, sigma: f64, scale: f64) -> Result<f64> {
    x.same_width("cmmd", y)?;
    if !(sigma > 0.0 && sigma.is_finite() && scale.is_finite()) {
        let m = format!("cmmd: sigma must be a finite number above 0 and the scale finite, not {sigma} and {scale}");
        return Err(Error::value(m));
    }
    let factor = -0.5 / (sigma * sigma);
    // e^t − 1 is added up, since the kernel is close to 1: what is left of its mean would be lost
    let mean = |a: &Rows, b: &Rows| -> Result<f64> {
        let mut sum = 0.0;
        a.distances(b, |_, row| sum += row.iter().map(|d| (factor * d).exp_m1()).sum::<f64>())?;
        Ok(sum / (a.len() * b.len()) as f64)
    };
    Ok(scale * (mean(x, x)? + mean(y, y)? - 2.0 * mean(x, y)?))
}

/// What a test by permutations found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tested {
    /// The statistic of the data as they are.
    pub value: f64,
    /// How often a permutation has a statistic at least as large (or as far from 0): (1 + those) / (1 + permutations).
    pub p: f64,
    /// Rows of each side that were looked at.
    pub rows: [usize; 2],
}

/// (1 + hits) / (1 + permutations), over permutations that each have a generator of their own; `one(rng)` says whether it hits.
fn permuted(
    permutations: usize,
    seed: u64,
    one: impl Fn(&mut rand_chacha::ChaCha8Rng) -> Result<bool> + Sync,
) -> Result<f64> {
    if permutations == 0 {
        return Err(Error::value("a test needs at least 1 permutation"));
    }
    let stop = crate::host::Stop::here();
    let hit = |i: usize| match stop.requested() {
        true => Err(Error::cancelled()),
        false => one(&mut generator(seed, stream::METRIC, i as u64)),
    };
    let hits: Vec<Result<bool>> = (0..permutations).into_par_iter().map(hit).collect();
    let hits = hits.into_iter().collect::<Result<Vec<bool>>>()?.into_iter().filter(|h| *h).count();
    Ok((1 + hits) as f64 / (1 + permutations) as f64)
}

/// Whether two sets of features come from one distribution: the unbiased squared MMD (as [`kid`]) of at most `most` rows of each,
/// against that of the same rows shared out at random (Gretton et al. 2012).
pub fn two_sample(x: &Rows, y: &Rows, most: usize, permutations: usize, seed: u64) -> Result<Tested> {
    x.same_width("two_sample", y)?;
    let most = most.min(MOST);
    let (a, b) = (chosen(x, most, seed, 0)?, chosen(y, most, seed, 1)?);
    let (m, n) = (a.len(), b.len());
    if m < 2 || n < 2 {
        return Err(Error::value(format!("two_sample: needs at least 2 rows of each, not {m} and {n}")));
    }
    let all = a.with(&b);
    let k = cubic(&all, &all)?;
    let size = m + n;
    // labels: the first m of `order` are of one side
    let statistic = |order: &[usize]| {
        let mut sums = [0.0; 3];
        let mut first = vec![false; size];
        order[..m].iter().for_each(|i| first[*i] = true);
        for (i, row) in k.chunks_exact(size).enumerate() {
            let (mut within, mut all) = (0.0, 0.0);
            for (j, v) in row.iter().enumerate() {
                let v = if i == j { 0.0 } else { *v };
                all += v;
                within += if first[j] { v } else { 0.0 };
            }
            match first[i] {
                true => {
                    sums[0] += within;
                    sums[2] += all - within;
                }
                false => sums[1] += all - within,
            }
        }
        sums[0] / (m * (m - 1)) as f64 + sums[1] / (n * (n - 1)) as f64 - 2.0 * sums[2] / (m * n) as f64
    };
    let value = statistic(&(0..size).collect::<Vec<_>>());
    // sums of the same numbers in another order differ by rounding
    let slack = 1e-12 * k.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let p = permuted(permutations, seed, |rng| Ok(statistic(&shuffled(rng, size)?) >= value - slack))?;
    Ok(Tested { value, p, rows: [m, n] })
}

/// Whether the mean of paired differences a − b is 0: signs are drawn at random, and p is two-sided.
pub fn paired(a: &[f64], b: &[f64], permutations: usize, seed: u64) -> Result<Tested> {
    use rand_chacha::rand_core::Rng;
    if a.len() != b.len() || a.len() < 2 {
        let m = format!("paired: needs as many values of both, at least 2, not {} and {}", a.len(), b.len());
        return Err(Error::shape(m, &[&[a.len()], &[b.len()]]));
    }
    if a.iter().chain(b).any(|v| !v.is_finite()) {
        return Err(Error::value("paired: there are values that are not finite"));
    }
    let d: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let n = d.len() as f64;
    let value = d.iter().sum::<f64>() / n;
    let slack = 1e-12 * d.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let one = |rng: &mut rand_chacha::ChaCha8Rng| {
        let mut bits = 0u64;
        let mut sum = 0.0;
        for (i, v) in d.iter().enumerate() {
            if i % 64 == 0 {
                bits = rng.next_u64();
            }
            sum += if bits >> (i % 64) & 1 == 1 { *v } else { -v };
        }
        Ok((sum / n).abs() >= value.abs() - slack)
    };
    let p = permuted(permutations, seed, one)?;
    Ok(Tested { value, p, rows: [d.len(); 2] })
}
