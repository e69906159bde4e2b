//! How far a Fréchet distance can be trusted: intervals by resampling, and whether one sampler is nearer than another.
use super::frechet::{Root, same_features};
use super::kernel::Tested;
use super::rows::Rows;
use super::stats::Stats;
use crate::host::check_cancelled;
use crate::tensor::random::{below, generator, stream};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rand_chacha::rand_core::Rng;

/// A Fréchet distance with what resampling says of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The distance.
    pub value: f64,
    /// The interval's low end.
    pub low: f64,
    /// The interval's high end.
    pub high: f64,
    /// The standard error.
    pub error: f64,
    /// The mean of the resampled distances less the distance: about as much as the number of samples adds to it.
    pub bias: f64,
}

/// Mean and unbiased covariance, row by row, of rows that count `weights` times.
fn weighted(x: &Rows, weights: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let (n, d) = (x.len(), x.width());
    let total: f64 = weights.iter().sum();
    let mut mean = vec![0.0; d];
    for (i, w) in weights.iter().enumerate() {
        mean.iter_mut().zip(x.row(i)).for_each(|(m, v)| *m += w * v);
    }
    mean.iter_mut().for_each(|m| *m /= total);
    let mut scaled = Vec::with_capacity(n * d);
    for (i, w) in weights.iter().enumerate() {
        let root = w.sqrt();
        scaled.extend(x.row(i).iter().zip(&mean).map(|(v, m)| root * (v - m)));
    }
    let c = Tensor::from_vec(scaled, (n, d), &Device::Cpu)?;
    let cov = (c.t()?.matmul(&c)? / (total - 1.0))?;
    Ok((mean, cov.flatten_all()?.to_vec1()?))
}

/// The Fréchet distance of features to a reference, with an interval at `level` from `replicates` draws of as many rows with
/// replacement. The interval is that of the draws around their own mean, laid around the distance: a draw has fewer different rows,
/// which adds to every distance and is not an error of this one.
///
/// Errors: widths that differ, fewer than 2 rows or draws, a level outside (0, 1).
pub fn bootstrap(x: &Rows, reference: &Stats, replicates: usize, level: f64, seed: u64) -> Result<Interval> {
    if replicates < 2 || !(level > 0.0 && level < 1.0) || x.len() < 2 {
        let m = format!("bootstrap: {replicates} replicates of {} rows at level {level}", x.len());
        return Err(Error::value(m).hint("at least 2 rows, 2 replicates, and a level between 0 and 1"));
    }
    let root = root(x, reference)?;
    let (mean, cov) = weighted(x, &vec![1.0; x.len()])?;
    let value = root.distance(&mean, cov)?;
    let mut each = vec![];
    for i in 0..replicates {
        check_cancelled()?;
        let mut rng = generator(seed, stream::METRIC, i as u64);
        let mut weights = vec![0.0; x.len()];
        (0..x.len()).for_each(|_| weights[below(&mut rng, x.len() as u64) as usize] += 1.0);
        let (mean, cov) = weighted(x, &weights)?;
        each.push(root.distance(&mean, cov)?);
    }
    each.sort_by(f64::total_cmp);
    let centre = each.iter().sum::<f64>() / replicates as f64;
    let variance = each.iter().map(|v| (v - centre) * (v - centre)).sum::<f64>() / (replicates - 1) as f64;
    let at = |q: f64| value + quantile(&each, q) - centre;
    let (low, high) = (at((1.0 - level) / 2.0).max(0.0), at((1.0 + level) / 2.0));
    Ok(Interval { value, low, high, error: variance.sqrt(), bias: centre - value })
}

/// The reference's side, after checking that the features fit.
fn root(x: &Rows, reference: &Stats) -> Result<Root> {
    let mut own = Stats::default();
    own.add(&Tensor::zeros((1, x.width()), candle_core::DType::F64, &Device::Cpu)?)?;
    same_features(&own, reference)?;
    Root::of_stats(reference)
}

/// Between sorted values, linearly.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] * (1.0 - part) + sorted[high] * part
}

/// Whether features x are as far from a reference as y: the difference of their Fréchet distances, against that after swapping x_i and
/// y_i at random; p is two-sided. Rows of one number belong together, as of samples from the same noise.
///
/// Errors: other widths, other numbers of rows.
pub fn nearer(x: &Rows, y: &Rows, reference: &Stats, permutations: usize, seed: u64) -> Result<Tested> {
    x.same_width("nearer", y)?;
    if x.len() != y.len() || x.len() < 2 || permutations == 0 {
        let m = format!("nearer: needs as many rows of both, at least 2, not {} and {}", x.len(), y.len());
        return Err(Error::shape(m, &[&[x.len(), x.width()], &[y.len(), y.width()]]));
    }
    let root = root(x, reference)?;
    let (n, d) = (x.len(), x.width());
    let (both, ones) = (x.with(y), vec![1.0; n]);
    // the rows of one side, by whether a pair is swapped
    let side = |swapped: &dyn Fn(usize) -> bool, second: bool| -> Result<f64> {
        let rows = (0..n).flat_map(|i| both.row(if swapped(i) != second { n + i } else { i }));
        let rows = Rows::new("nearer", &Tensor::from_vec(rows.copied().collect::<Vec<f64>>(), (n, d), &Device::Cpu)?)?;
        let (mean, cov) = weighted(&rows, &ones)?;
        root.distance(&mean, cov)
    };
    let difference = |swapped: &dyn Fn(usize) -> bool| Ok::<f64, Error>(side(swapped, false)? - side(swapped, true)?);
    let value = difference(&|_| false)?;
    let mut hits = 0;
    for i in 0..permutations {
        check_cancelled()?;
        let mut rng = generator(seed, stream::METRIC, i as u64);
        let bits: Vec<u64> = (0..n.div_ceil(64)).map(|_| rng.next_u64()).collect();
        let swapped = |i: usize| bits[i / 64] >> (i % 64) & 1 == 1;
        hits += usize::from(difference(&swapped)?.abs() >= value.abs() * (1.0 - 1e-12));
    }
    Ok(Tested { value, p: (1 + hits) as f64 / (1 + permutations) as f64, rows: [n; 2] })
}
