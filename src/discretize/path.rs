//! Choosing steps from a grid: the cheapest path for any pairwise cost, the costs of GITS, and the search of OSS, which carries the
//! student's own states along.
use crate::real::host_values;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// The cheapest path from the first point of a grid to its last in exactly `steps` jumps: indices, the ends included. `cost[i][j]` is
/// that of the jump from i to j > i; other entries are not read. With c = `coeff`, a path's cost is
/// V(j, k) = min_i cost[j][i] + c V(i, k − 1): c > 1 makes late jumps dearer (GITS). Of equal ones the first is taken.
///
/// # Errors
/// More steps than the grid has; a cost that is NaN; no path with finite cost.
pub fn cheapest_path(cost: &[Vec<f64>], steps: usize, coeff: f64) -> Result<Vec<usize>> {
    let last = cost.len().saturating_sub(1);
    if steps == 0 || steps > last {
        let e = Error::value(format!("a path of {steps} steps over a grid of {} points", cost.len()));
        return Err(e.hint(format!("give 1 to {last} steps, or a finer grid")));
    }
    if let Some((i, row)) = cost.iter().enumerate().find(|(_, row)| row.len() != cost.len()) {
        let m = format!("costs are a square [points, points], but row {i} has {} of {}", row.len(), cost.len());
        return Err(Error::shape(m, &[&[cost.len(), row.len()]]));
    }
    if let Some((i, j)) = pairs(cost.len()).find(|(i, j)| cost[*i][*j].is_nan()) {
        return Err(Error::value(format!("the cost of the jump from {i} to {j} is not a number")));
    }
    let mut value: Vec<f64> = cost.iter().map(|row| row[last]).collect();
    value[last] = f64::INFINITY;
    let mut next: Vec<Vec<usize>> = vec![vec![last; cost.len()]];
    for _ in 1..steps {
        crate::host::check_cancelled()?;
        let mut longer = vec![f64::INFINITY; cost.len()];
        let mut to = vec![last; cost.len()];
        for (j, i) in pairs(last) {
            let v = cost[j][i] + coeff * value[i];
            if v < longer[j] {
                (longer[j], to[j]) = (v, i);
            }
        }
        value = longer;
        next.push(to);
    }
    if !value[0].is_finite() {
        return Err(Error::value(format!("no path of {steps} steps has a finite cost")));
    }
    let mut path = vec![0];
    for to in next.iter().rev() {
        path.push(to[path[path.len() - 1]]);
    }
    Ok(path)
}

/// (i, j) with i < j < n, in order.
fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// How the end of a jump is compared with the teacher's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The distance from the straight line through the teacher's first and last state, minus that of the teacher's own state.
    Deviation,
    /// Σ |difference|.
    L1,
    /// √Σ difference².
    L2,
}

/// Rows of a tensor whose first dimension is the grid: [points][samples][values].
fn states(t: &Tensor) -> Result<Vec<Vec<Vec<f64>>>> {
    if t.rank() < 2 || t.dims()[0] == 0 {
        return Err(Error::shape("states must be [points, samples, …], with a point at least", &[t.dims()]));
    }
    let (points, samples) = (t.dims()[0], t.dims()[1]);
    let flat = host_values(&t.detach())?;
    let width = flat.len() / (points * samples).max(1);
    let point = |p: usize| (0..samples).map(|s| flat[(p * samples + s) * width..][..width].to_vec()).collect();
    Ok((0..points).map(point).collect())
}

/// GITS's costs (Chen et al., 2024): [points, points] with, for i < j, the mean over samples of how far the Euler jump from the
/// teacher's state i along `slopes[i]` = dx/dσ ends from its state j, in σ; other entries are 0. The sum, not the mean, if `sum`.
pub fn jump_costs(x: &Tensor, slopes: &Tensor, sigma: &[f64], metric: Metric) -> Result<Tensor> {
    let n = sigma.len();
    if x.dims().first() != Some(&n) || slopes.rank() != x.rank() || slopes.dims()[1..] != x.dims()[1..] {
        let m = format!(
            "{n} noise levels take states [{n}, samples, …] and slopes of the same shape, without the last or with it"
        );
        return Err(Error::shape(m, &[x.dims(), slopes.dims()]));
    }
    if slopes.dims()[0] + 1 < n {
        return Err(Error::shape("a slope is needed at every point but the last", &[slopes.dims()]));
    }
    let (x, d) = (states(x)?, states(slopes)?);
    let samples = x[0].len();
    let mut cost = vec![0.0; n * n];
    for s in 0..samples {
        crate::host::check_cancelled()?;
        let line = Line::new(&x[0][s], &x[n - 1][s]);
        let own: Vec<f64> = match metric {
            // the ends are on the line
            Metric::Deviation => (0..n).map(|j| if j + 1 == n { 0.0 } else { line.distance(&x[j][s]) }).collect(),
            _ => vec![],
        };
        let mut end = vec![0.0; x[0][s].len()];
        for (i, j) in pairs(n) {
            let h = sigma[j] - sigma[i];
            end.iter_mut().zip(x[i][s].iter().zip(&d[i][s])).for_each(|(e, (x, d))| *e = x + h * d);
            let differences = end.iter().zip(&x[j][s]).map(|(a, b)| a - b);
            cost[i * n + j] += match metric {
                Metric::Deviation => line.distance(&end) - own[j],
                Metric::L1 => differences.map(f64::abs).sum::<f64>(),
                Metric::L2 => differences.map(|v| v * v).sum::<f64>().sqrt(),
            };
        }
    }
    cost.iter_mut().for_each(|c| *c /= samples.max(1) as f64);
    Ok(Tensor::from_vec(cost, (n, n), &Device::Cpu)?)
}

/// A straight line through two states.
struct Line<'a> {
    from: &'a [f64],
    along: Vec<f64>,
}

impl<'a> Line<'a> {
    fn new(from: &'a [f64], to: &[f64]) -> Line<'a> {
        let along: Vec<f64> = to.iter().zip(from).map(|(a, b)| a - b).collect();
        let length = along.iter().map(|v| v * v).sum::<f64>().sqrt();
        let along = along.into_iter().map(|v| if length > 0.0 { v / length } else { 0.0 }).collect();
        Line { from, along }
    }
    fn distance(&self, x: &[f64]) -> f64 {
        let relative = || x.iter().zip(self.from).map(|(a, b)| a - b);
        let along: f64 = relative().zip(&self.along).map(|(r, a)| r * a).sum();
        relative().zip(&self.along).map(|(r, a)| (r - along * a).powi(2)).sum::<f64>().sqrt()
    }
}

/// One level of OSS's search (Pei et al., 2025): what it holds for each sample and point of the grid.
#[derive(Clone)]
pub struct Level {
    /// The student's best states, [points, samples, …].
    pub states: Tensor,
    /// Their mean squared distances to the teacher's, [points, samples].
    pub cost: Tensor,
    /// From which point each came, [points, samples].
    pub parent: Tensor,
}

/// The next level: from each of the states `from` one Euler jump along its slope to every later point, of which the one that ends
/// nearest to the teacher's state is kept. `sigma` descends. With `before`, a point keeps state, cost and parent of the level before
/// where no jump of this one is better, as the published code does (a path may then have fewer steps than asked for); `open` says which
/// points may be left (those that a path of the steps so far reaches).
pub fn carry(
    from: &Tensor,
    slopes: &Tensor,
    teacher: &Tensor,
    sigma: &[f64],
    open: &Tensor,
    before: Option<&Level>,
) -> Result<Level> {
    let n = sigma.len();
    let dims = from.dims().to_vec();
    if dims.first() != Some(&n) || teacher.dims() != dims || slopes.dims() != dims {
        let m = format!("{n} noise levels take states, slopes and teacher of shape [{n}, samples, …]");
        return Err(Error::shape(m, &[&dims, slopes.dims(), teacher.dims()]));
    }
    let (x, d, goal, open) = (states(from)?, states(slopes)?, states(teacher)?, host_values(open)?);
    let samples = x[0].len();
    if open.len() != n * samples {
        return Err(Error::shape(format!("`open` must be [{n}, {samples}]"), &[&[open.len()]]));
    }
    let (mut states_, mut cost, mut parent) = match before {
        Some(b) if b.states.dims() != dims || [&b.cost, &b.parent].iter().any(|t| t.elem_count() != n * samples) => {
            let m = format!("the level before must have states {dims:?}, costs and parents [{n}, {samples}]");
            return Err(Error::shape(m, &[b.states.dims(), b.cost.dims(), b.parent.dims()]));
        }
        Some(b) => (states(&b.states)?, host_values(&b.cost)?, host_values(&b.parent)?),
        None => (x.clone(), vec![f64::INFINITY; n * samples], vec![0.0; n * samples]),
    };
    let width = x[0].first().map_or(0, Vec::len).max(1) as f64;
    for s in 0..samples {
        crate::host::check_cancelled()?;
        for (i, j) in pairs(n).filter(|(i, _)| open[i * samples + s] != 0.0) {
            let h = sigma[j] - sigma[i];
            let end = || x[i][s].iter().zip(&d[i][s]).map(|(x, d)| x + h * d);
            let far = end().zip(&goal[j][s]).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / width;
            let at = j * samples + s;
            if far < cost[at] {
                (cost[at], parent[at]) = (far, i as f64);
                states_[j][s] = end().collect();
            }
        }
    }
    let flat: Vec<f64> = states_.into_iter().flatten().flatten().collect();
    let cpu = &Device::Cpu;
    Ok(Level {
        states: Tensor::from_vec(flat, dims, cpu)?,
        cost: Tensor::from_vec(cost, (n, samples), cpu)?,
        parent: Tensor::from_vec(parent, (n, samples), cpu)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_cheapest_of_all() {
        // against all paths, with costs from a fixed sequence
        let n = 8;
        let mut seed = 7u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 40) as f64 / (1u64 << 24) as f64
        };
        let cost: Vec<Vec<f64>> = (0..n).map(|_| (0..n).map(|_| next() - 0.3).collect()).collect();
        for coeff in [0.8, 1.0, 1.15] {
            for steps in 1..n {
                let found = cheapest_path(&cost, steps, coeff).unwrap();
                let value = |p: &[usize]| p.windows(2).rev().fold(0.0, |v, w| cost[w[0]][w[1]] + coeff * v);
                let mut least = f64::INFINITY;
                for mask in 0..1u32 << (n - 2) {
                    if mask.count_ones() as usize == steps - 1 {
                        let inner = (1..n - 1).filter(|i| mask >> (i - 1) & 1 == 1);
                        let p: Vec<usize> = [0].into_iter().chain(inner).chain([n - 1]).collect();
                        least = least.min(value(&p));
                    }
                }
                assert_eq!(found.len(), steps + 1);
                assert!((value(&found) - least).abs() < 1e-12, "{coeff} {steps}: {found:?}");
            }
        }
        assert!(cheapest_path(&cost, 0, 1.0).is_err() && cheapest_path(&cost, n, 1.0).is_err());
    }
}
