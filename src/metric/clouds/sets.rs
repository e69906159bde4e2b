//! Two sets of clouds beside each other by their distances: minimum matching distance, coverage, and the nearest-neighbour classifier.
//!
//! Distances come in blocks of rows and are forgotten; what is kept grows with the number of clouds, not with its square.
use super::assignment::{mean_matched, same_points};
use super::{Clouds, Columns, Number, Pair, chamfer};
use crate::{Error, Result, host};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of distances that are in memory together.
const BLOCK: usize = 32;

/// How far two clouds are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// Mean squared distance to the nearest point, both ways summed.
    Chamfer,
    /// Mean distance in the best pairing.
    EarthMover,
}

/// What two sets of clouds are to each other, with standard errors over the clouds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// The mean over the references of the distance to the nearest sample.
    pub mmd: f64,
    /// Its standard error.
    pub mmd_error: f64,
    /// The same over samples, to the nearest reference.
    pub mmd_samples: f64,
    /// The share of references that are the nearest of some sample.
    pub coverage: f64,
    /// Its standard error, as if references were covered independently of each other.
    pub coverage_error: f64,
    /// The accuracy of the nearest-neighbour classifier that tells samples from references: [of all, of references, of samples].
    pub accuracy: Option<[f64; 3]>,
    /// The standard error of its accuracy, as if neighbours were independent.
    pub accuracy_error: f64,
}

/// Calls `f(row, from, distances)` for rows `0..a` in order, each with its distances to `columns(row)` of `b`.
fn each_row(
    a: &Clouds,
    b: &Clouds,
    how: Distance,
    columns: impl Fn(usize) -> Range<usize> + Sync,
    mut f: impl FnMut(usize, Range<usize>, Vec<f64>),
) -> Result<()> {
    let pair = Pair::of(a, b);
    let exact = |rows: Range<usize>| -> Result<Vec<Vec<f64>>> {
        let stop = host::Stop::here();
        let one = |i: usize, j: usize| match stop.requested() {
            true => Err(Error::cancelled()),
            false => mean_matched(a, i, b, j),
        };
        let row = |i: usize| columns(i).into_par_iter().map(|j| one(i, j)).collect::<Result<Vec<f64>>>();
        rows.map(row).collect()
    };
    fn quick<T: Number>(
        x: &Columns<T>,
        y: &Columns<T>,
        rows: Range<usize>,
        columns: impl Fn(usize) -> Range<usize> + Sync,
    ) -> Result<Vec<Vec<f64>>> {
        chamfer::rows(x, y, rows, columns)
    }
    for from in (0..a.len()).step_by(BLOCK) {
        let rows = from..(from + BLOCK).min(a.len());
        let block = match (how, &pair) {
            (Distance::EarthMover, _) => exact(rows.clone())?,
            (Distance::Chamfer, Pair::Single(x, y)) => quick(x, y, rows.clone(), &columns)?,
            (Distance::Chamfer, Pair::Double(x, y)) => quick(x, y, rows.clone(), &columns)?,
        };
        rows.zip(block).for_each(|(i, row)| f(i, columns(i), row));
    }
    Ok(())
}

/// The distances of each cloud of `a` to each of `b`, row by row.
pub fn distances(a: &Clouds, b: &Clouds, how: Distance) -> Result<Vec<f64>> {
    if how == Distance::EarthMover {
        same_points("cloud_distances", a, b)?;
    }
    crate::tensor::memory::room("distances of clouds", a.len().saturating_mul(b.len()).saturating_mul(8))?;
    let mut out = Vec::with_capacity(a.len() * b.len());
    each_row(a, b, how, |_| 0..b.len(), |_, _, row| out.extend(row))?;
    Ok(out)
}

/// The nearest others of a cloud: how far, and whether a reference; of equal distances the earlier comes first, references before samples.
struct Neighbours {
    k: usize,
    best: Vec<(f64, bool, usize)>,
}

impl Neighbours {
    fn meet(&mut self, distance: f64, reference: bool, number: usize) {
        let at = self.best.partition_point(|b| (b.0, !b.1, b.2) < (distance, !reference, number));
        if at < self.k {
            self.best.insert(at, (distance, reference, number));
            self.best.truncate(self.k);
        }
    }
    /// Whether it is taken for a reference: by at least half of its neighbours.
    fn says_reference(&self) -> bool {
        2 * self.best.iter().filter(|b| b.1).count() >= self.k
    }
}

/// Compares samples with references. With `neighbours` k, also by the classifier of the k nearest others (1 as published), for which all
/// pairs within both sets are looked at, too.
///
/// Errors: clouds of different sizes where their points are paired, k that is not below the number of clouds.
pub fn compare(samples: &Clouds, references: &Clouds, how: Distance, neighbours: usize) -> Result<Compared> {
    let (s, r) = (samples.len(), references.len());
    if how == Distance::EarthMover {
        same_points("clouds", samples, references)?;
    }
    if neighbours >= s + r {
        let m = format!("clouds: {neighbours} neighbours among {s} samples and {r} references");
        return Err(Error::value(m).hint("`neighbours` must be below the number of all clouds; published is 1"));
    }
    let new = || Neighbours { k: neighbours, best: vec![] };
    let (mut of_references, mut of_samples): (Vec<_>, Vec<_>) =
        ((0..r).map(|_| new()).collect(), (0..s).map(|_| new()).collect());
    let mut nearest_sample = vec![f64::INFINITY; r];
    let mut nearest_reference = vec![(f64::INFINITY, 0usize); s];
    each_row(
        references,
        samples,
        how,
        |_| 0..s,
        |i, _, row| {
            for (j, d) in row.into_iter().enumerate() {
                nearest_sample[i] = nearest_sample[i].min(d);
                if d < nearest_reference[j].0 {
                    nearest_reference[j] = (d, i);
                }
                if neighbours > 0 {
                    of_references[i].meet(d, false, j);
                    of_samples[j].meet(d, true, i);
                }
            }
        },
    )?;
    let mut covered = vec![false; r];
    nearest_reference.iter().for_each(|(_, i)| covered[*i] = true);
    let coverage = covered.iter().filter(|c| **c).count() as f64 / r as f64;
    let mean = |v: &mut dyn Iterator<Item = f64>, n: usize| v.sum::<f64>() / n as f64;
    let mmd = mean(&mut nearest_sample.iter().copied(), r);
    let spread = mean(&mut nearest_sample.iter().map(|d| (d - mmd) * (d - mmd)), r.max(2) - 1);
    let binomial = |p: f64, n: usize| (p * (1.0 - p) / n as f64).sqrt();
    let (mut accuracy, mut accuracy_error) = (None, 0.0);
    if neighbours > 0 {
        for (set, found, reference) in [(references, &mut of_references, true), (samples, &mut of_samples, false)] {
            let n = set.len();
            each_row(
                set,
                set,
                how,
                |i| i + 1..n,
                |i, columns, row| {
                    for (j, d) in columns.zip(row) {
                        found[i].meet(d, reference, j);
                        found[j].meet(d, reference, i);
                    }
                },
            )?;
        }
        let right = [
            of_references.iter().filter(|n| n.says_reference()).count(),
            of_samples.iter().filter(|n| !n.says_reference()).count(),
        ];
        let all = (right[0] + right[1]) as f64 / (r + s) as f64;
        accuracy = Some([all, right[0] as f64 / r as f64, right[1] as f64 / s as f64]);
        accuracy_error = binomial(all, r + s);
    }
    Ok(Compared {
        mmd,
        mmd_error: (spread / r as f64).sqrt(),
        mmd_samples: mean(&mut nearest_reference.iter().map(|d| d.0), s),
        coverage,
        coverage_error: binomial(coverage, r),
        accuracy,
        accuracy_error,
    })
}
