//! Fidelity and diversity by nearest neighbours: precision and recall, density and coverage.
use super::rows::Rows;
use crate::{Error, Result};

/// How far two sets of features cover each other, each from 0 (bad) to 1 (density may be above).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbours {
    /// The part of the samples that lie within a real one's k-th neighbour (Kynkäänniemi et al. 2019).
    pub precision: f64,
    /// The part of the real ones that lie within a sample's k-th neighbour.
    pub recall: f64,
    /// How many real neighbourhoods a sample lies in, over k (Naeem et al. 2020).
    pub density: f64,
    /// The part of the real ones whose neighbourhood has a sample in it.
    pub coverage: f64,
}

/// The squared distance of each row to its k-th neighbour among the others.
fn radii(x: &Rows, k: usize) -> Result<Vec<f64>> {
    let mut out = Vec::with_capacity(x.len());
    x.distances(x, |i, row| {
        // itself, whatever rounding made of it
        row[i] = f64::INFINITY;
        out.push(*row.select_nth_unstable_by(k - 1, f64::total_cmp).1);
    })?;
    Ok(out)
}

/// Compares samples with real ones, with neighbourhoods that reach to the k-th neighbour.
///
/// Errors: other widths, k that is 0 or not below the number of rows of either.
pub fn neighbours(real: &Rows, samples: &Rows, k: usize) -> Result<Neighbours> {
    real.same_width("neighbours", samples)?;
    if k == 0 || k >= real.len() || k >= samples.len() {
        let m = format!("neighbours: {k} neighbours among {} and {} rows", real.len(), samples.len());
        return Err(Error::value(m).hint("k must be at least 1 and below the number of rows of either"));
    }
    let (of_real, of_samples) = (radii(real, k)?, radii(samples, k)?);
    let mut within = vec![0usize; samples.len()];
    let (mut recalled, mut covered) = (0usize, 0usize);
    real.distances(samples, |i, row| {
        let (mut recall, mut cover) = (false, false);
        for (j, d) in row.iter().enumerate() {
            recall |= *d < of_samples[j];
            let inside = *d < of_real[i];
            cover |= inside;
            within[j] += usize::from(inside);
        }
        recalled += usize::from(recall);
        covered += usize::from(cover);
    })?;
    let share = |n: usize, of: usize| n as f64 / of as f64;
    Ok(Neighbours {
        precision: share(within.iter().filter(|n| **n > 0).count(), samples.len()),
        recall: share(recalled, real.len()),
        density: share(within.iter().sum(), k * samples.len()),
        coverage: share(covered, real.len()),
    })
}
