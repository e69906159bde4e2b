//! The earth mover's distance of two clouds: the mean distance of the best pairing of their points, found exactly.
//!
//! The method is that of Jonker & Volgenant (1987): prices of columns by reductions, then a shortest augmenting path for each row that is
//! left. It is O(n³) at worst; two clouds of 2,048 points take about a second.
use super::Clouds;
use crate::tensor::memory;
use crate::{Error, Result, host};
use rayon::prelude::*;

const NONE: usize = usize::MAX;

/// The column of each row in an assignment of least total cost, `cost` row by row, n × n, finite.
///
/// Errors only by Ctrl-C.
pub fn assigned(n: usize, cost: &[f64]) -> Result<Vec<usize>> {
    let mut all = Solver { n, cost, price: vec![0.0; n], of_row: vec![NONE; n], of_column: vec![NONE; n] };
    let free = all.reduce_columns();
    let free = all.reduce_rows(free);
    all.augment(free)?;
    Ok(all.of_row)
}

struct Solver<'a> {
    n: usize,
    cost: &'a [f64],
    /// What each column costs; a row takes the column where cost less price is least.
    price: Vec<f64>,
    of_row: Vec<usize>,
    of_column: Vec<usize>,
}

impl Solver<'_> {
    fn row(&self, i: usize) -> &[f64] {
        &self.cost[i * self.n..][..self.n]
    }

    /// Gives each column its cheapest row, the first that asks; returns the rows that have none.
    fn reduce_columns(&mut self) -> Vec<usize> {
        let n = self.n;
        let mut best = vec![(f64::INFINITY, 0); n];
        for i in 0..n {
            for (b, c) in best.iter_mut().zip(&self.cost[i * n..][..n]) {
                if *c < b.0 {
                    *b = (*c, i);
                }
            }
        }
        let mut wanted = vec![0usize; n];
        for j in (0..n).rev() {
            let (least, i) = best[j];
            self.price[j] = least;
            wanted[i] += 1;
            if wanted[i] == 1 {
                (self.of_row[i], self.of_column[j]) = (j, i);
            }
        }
        // a row that one column alone wanted lowers that one's price as far as it stays its best
        for i in (0..n).filter(|i| wanted[*i] == 1) {
            let own = self.of_row[i];
            let others = self.row(i).iter().zip(&self.price).enumerate().filter(|(j, _)| *j != own);
            let least = others.map(|(_, (c, v))| c - v).fold(f64::INFINITY, f64::min);
            if least.is_finite() {
                self.price[own] -= least.max(0.0);
            }
        }
        (0..n).filter(|i| wanted[*i] == 0).collect()
    }

    /// Lets free rows bid for their best columns, twice; returns those that are left.
    fn reduce_rows(&mut self, mut free: Vec<usize>) -> Vec<usize> {
        for _ in 0..2 {
            let mut queue: std::collections::VecDeque<usize> = free.drain(..).collect();
            // rounding could let two rows outbid each other for ever
            let mut bids = 8 * self.n;
            while let Some(i) = queue.pop_front() {
                let (mut first, mut second) = ((f64::INFINITY, NONE), (f64::INFINITY, NONE));
                for (j, (c, v)) in self.row(i).iter().zip(&self.price).enumerate() {
                    let d = c - v;
                    if d < second.0 {
                        if d < first.0 {
                            (first, second) = ((d, j), first);
                        } else {
                            second = (d, j);
                        }
                    }
                }
                let mut column = first.1;
                let gap = second.0 - first.0;
                let strict = gap > 0.0 && gap.is_finite() && bids > 0;
                if strict {
                    self.price[column] -= gap;
                } else if self.of_column[column] != NONE && second.1 != NONE && gap <= 0.0 {
                    column = second.1;
                }
                bids = bids.saturating_sub(1);
                let before = self.of_column[column];
                if before != NONE && !strict && gap > 0.0 {
                    // out of bids: an augmenting path finds it a column
                    free.push(i);
                    continue;
                }
                (self.of_row[i], self.of_column[column]) = (column, i);
                if before != NONE {
                    self.of_row[before] = NONE;
                    if strict { queue.push_front(before) } else { free.push(before) }
                }
            }
        }
        free
    }

    /// A shortest path from each free row to a free column, along which rows change columns.
    fn augment(&mut self, free: Vec<usize>) -> Result<()> {
        let n = self.n;
        let (mut distance, mut from) = (vec![0.0; n], vec![0usize; n]);
        // columns: those that are done, those at the least distance, and the rest
        let mut columns: Vec<usize> = (0..n).collect();
        for start in free {
            host::check_cancelled()?;
            for (j, (c, v)) in self.row(start).iter().zip(&self.price).enumerate() {
                (distance[j], from[j], columns[j]) = (c - v, start, j);
            }
            let (mut low, mut up, mut least) = (0, 0, 0.0);
            let (end, done) = 'found: loop {
                if low == up {
                    least = columns[up..].iter().fold(f64::INFINITY, |m, j| distance[*j].min(m));
                    let first = up;
                    for k in first..n {
                        if distance[columns[k]] <= least {
                            columns.swap(k, up);
                            up += 1;
                        }
                    }
                    // columns before `low` are done; all up to `up` are at the least distance
                    if let Some(j) = columns[low..up].iter().copied().find(|j| self.of_column[*j] == NONE) {
                        break 'found (j, low);
                    }
                }
                let via = columns[low];
                low += 1;
                let i = self.of_column[via];
                let (row, price) = (&self.cost[i * n..][..n], &self.price);
                let h = row[via] - price[via] - least;
                let mut k = up;
                while k < n {
                    let j = columns[k];
                    let d = row[j] - price[j] - h;
                    if d < distance[j] {
                        (distance[j], from[j]) = (d, i);
                        if d <= least {
                            if self.of_column[j] == NONE {
                                break 'found (j, low);
                            }
                            columns.swap(k, up);
                            up += 1;
                        }
                    }
                    k += 1;
                }
            };
            for j in &columns[..done] {
                self.price[*j] += distance[*j] - least;
            }
            let mut column = end;
            loop {
                let i = from[column];
                self.of_column[column] = i;
                let before = std::mem::replace(&mut self.of_row[i], column);
                if i == start {
                    break;
                }
                column = before;
            }
        }
        Ok(())
    }
}

/// The earth mover's distance of cloud `i` of `a` and cloud `j` of `b`, of as many points: the least mean of ‖x − y‖ over pairings.
pub fn mean_matched(a: &Clouds, i: usize, b: &Clouds, j: usize) -> Result<f64> {
    let n = a.points();
    memory::room("the distances of two clouds", n.saturating_mul(n).saturating_mul(8))?;
    let mut cost = Vec::with_capacity(n * n);
    let ends: Vec<[f64; 3]> = (0..n).map(|k| b.point(j, k)).collect();
    for k in 0..n {
        let p = a.point(i, k);
        let square = |q: &[f64; 3]| (0..3).map(|c| (p[c] - q[c]) * (p[c] - q[c])).sum::<f64>();
        cost.extend(ends.iter().map(|q| square(q).sqrt()));
    }
    let pairs = assigned(n, &cost)?;
    Ok(pairs.iter().enumerate().map(|(k, l)| cost[k * n + l]).sum::<f64>() / n as f64)
}

/// Fails unless the clouds of both sets have as many points.
pub(super) fn same_points(what: &str, a: &Clouds, b: &Clouds) -> Result<()> {
    match a.points() == b.points() {
        true => Ok(()),
        false => {
            let m = format!(
                "{what}: points can only be paired in clouds of as many, not of {} and {}",
                a.points(),
                b.points()
            );
            Err(Error::shape(m, &[&[a.len(), a.points(), 3], &[b.len(), b.points(), 3]])
                .hint("take as many points of each, or use the Chamfer distance"))
        }
    }
}

/// The earth mover's distance of each cloud to the one at its place.
///
/// Errors where there are not as many clouds, or points, of both.
pub fn earth_mover(a: &Clouds, b: &Clouds) -> Result<Vec<f64>> {
    if a.len() != b.len() {
        let m = format!("emd: {} and {} clouds cannot be paired", a.len(), b.len());
        return Err(Error::shape(m, &[&[a.len(), a.points(), 3], &[b.len(), b.points(), 3]])
            .hint("`metric::cloud_distances` compares each of one set with each of the other"));
    }
    same_points("emd", a, b)?;
    let stop = host::Stop::here();
    let one = |i: usize| match stop.requested() {
        true => Err(Error::cancelled()),
        false => mean_matched(a, i, b, i),
    };
    (0..a.len()).into_par_iter().map(one).collect()
}
