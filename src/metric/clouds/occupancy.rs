//! How sets of clouds fill space: the Jensen–Shannon divergence of their points over a ball of grid nodes.
//!
//! As diffusion-point-cloud counts them: the grid spans [−0.5, 0.5]³ and nodes beyond radius 0.5 are left out, whatever the clouds' own size
//! is; each point goes to its nearest node, so that what lies outside of the ball piles up on its surface. Clouds in [−1, 1] are not scaled
//! to the grid there, and not here.
use super::Clouds;
use crate::{Error, Result, host};
use rayon::prelude::*;

/// Parts of a set that are left out in turn for the standard error.
const PARTS: usize = 20;
/// The finest grid that is taken.
const FINEST: usize = 128;

/// How differently two sets fill space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occupancy {
    /// The Jensen–Shannon divergence of the two distributions of points over nodes, in bits.
    pub jsd: f64,
    /// Its standard error over the clouds of both sets, by leaving parts out.
    pub error: f64,
    /// The mean over nodes of the entropy, in nats, of whether a sample has a point there.
    pub entropy: f64,
    /// Nodes of the grid.
    pub nodes: usize,
}

/// The nodes of a grid of `resolution`³ over a ball of radius 0.5.
struct Ball {
    resolution: usize,
    /// The number of a node at a place of the full grid; `u32::MAX` beyond the ball.
    number: Vec<u32>,
    /// Coordinate of a place along each axis, in f32 as published.
    at: Vec<f64>,
    /// Nodes with a neighbour beyond the ball or the grid: coordinates and numbers. What lies outside is nearest to one of these.
    rim: Vec<([f64; 3], u32)>,
    nodes: usize,
}

impl Ball {
    fn new(n: usize) -> Ball {
        let spacing = 1.0 / (n - 1) as f64;
        let at: Vec<f32> = (0..n).map(|i| (i as f64 * spacing - 0.5) as f32).collect();
        let inside = |i: usize, j: usize, k: usize| {
            // in f32, as numpy's norm of f32 rows
            let [x, y, z] = [at[i], at[j], at[k]];
            (x * x + y * y + z * z).sqrt() <= 0.5
        };
        let (mut number, mut nodes) = (vec![u32::MAX; n * n * n], 0u32);
        for i in 0..n {
            for j in 0..n {
                for k in (0..n).filter(|k| inside(i, j, *k)) {
                    number[(i * n + j) * n + k] = nodes;
                    nodes += 1;
                }
            }
        }
        let at: Vec<f64> = at.into_iter().map(f64::from).collect();
        let mut ball = Ball { resolution: n, number, at, rim: vec![], nodes: nodes as usize };
        for i in 0..n {
            for j in 0..n {
                for k in 0..n {
                    let own = ball.node([i, j, k]);
                    let out = |axis: usize, up: bool| {
                        let mut p = [i, j, k];
                        p[axis] = match up {
                            true if p[axis] + 1 < n => p[axis] + 1,
                            false if p[axis] > 0 => p[axis] - 1,
                            _ => return true,
                        };
                        ball.node(p).is_none()
                    };
                    let rim = (0..3).any(|axis| out(axis, true) || out(axis, false));
                    if let (Some(own), true) = (own, rim) {
                        ball.rim.push(([ball.at[i], ball.at[j], ball.at[k]], own));
                    }
                }
            }
        }
        ball
    }
    fn node(&self, [i, j, k]: [usize; 3]) -> Option<u32> {
        let n = self.resolution;
        Some(self.number[(i * n + j) * n + k]).filter(|n| *n != u32::MAX)
    }
    /// The node nearest to a point.
    fn nearest(&self, p: [f64; 3]) -> u32 {
        let last = (self.resolution - 1) as f64;
        let place = p.map(|v| ((v + 0.5) * last).round().clamp(0.0, last) as usize);
        // the nearest of the full grid, where it is one of the ball's
        if let Some(node) = self.node(place) {
            return node;
        }
        let square = |q: &[f64; 3]| (0..3).map(|c| (p[c] - q[c]) * (p[c] - q[c])).sum::<f64>();
        let mut best = (f64::INFINITY, 0);
        for (q, node) in &self.rim {
            let d = square(q);
            if d < best.0 {
                best = (d, *node);
            }
        }
        best.1
    }
}

/// Points at each node by part of the set, and the number of clouds that have one there.
struct Counts {
    parts: Vec<Vec<u64>>,
    clouds: Vec<u64>,
}

impl Counts {
    fn new(ball: &Ball, clouds: &Clouds) -> Result<Counts> {
        let stop = host::Stop::here();
        let one = |k: usize| match stop.requested() {
            true => Err(Error::cancelled()),
            false => Ok((0..clouds.points()).map(|i| ball.nearest(clouds.point(k, i))).collect::<Vec<u32>>()),
        };
        let parts = PARTS.min(clouds.len());
        let mut out = Counts { parts: vec![vec![0; ball.nodes]; parts], clouds: vec![0; ball.nodes] };
        // some clouds at a time
        for from in (0..clouds.len()).step_by(64) {
            let range = from..(from + 64).min(clouds.len());
            let found = range.clone().into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
            for (k, mut nodes) in range.zip(found) {
                nodes.iter().for_each(|n| out.parts[k % parts][*n as usize] += 1);
                nodes.sort_unstable();
                nodes.dedup();
                nodes.iter().for_each(|n| out.clouds[*n as usize] += 1);
            }
        }
        Ok(out)
    }
    /// The counts of all parts but one.
    fn without(&self, part: Option<usize>) -> Vec<u64> {
        let mut sum = vec![0; self.clouds.len()];
        for counts in self.parts.iter().enumerate().filter(|(i, _)| Some(*i) != part).map(|(_, c)| c) {
            sum.iter_mut().zip(counts).for_each(|(a, b)| *a += b);
        }
        sum
    }
}

/// The divergence of two histograms, in bits.
fn divergence(a: &[u64], b: &[u64]) -> f64 {
    let total = |v: &[u64]| v.iter().sum::<u64>() as f64;
    let (na, nb) = (total(a), total(b));
    let plogp = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
    let (mut of_a, mut of_b, mut of_both) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (p, q) = (*x as f64 / na, *y as f64 / nb);
        (of_a, of_b, of_both) = (of_a + plogp(p), of_b + plogp(q), of_both + plogp(0.5 * (p + q)));
    }
    of_both - 0.5 * (of_a + of_b)
}

/// The variance of a statistic by leaving out parts: (n − 1)/n Σ (θ_i − mean)².
fn jackknife(each: &[f64]) -> f64 {
    let n = each.len() as f64;
    let mean = each.iter().sum::<f64>() / n;
    (n - 1.0) / n * each.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>()
}

/// Compares how samples and references fill space, over a grid of `resolution`³ nodes (28 as published), of which those in the ball count.
///
/// Errors: a resolution below 2 or above 128.
pub fn occupancy(samples: &Clouds, references: &Clouds, resolution: usize) -> Result<Occupancy> {
    if !(2..=FINEST).contains(&resolution) {
        let m = format!("clouds: the grid must have from 2 to {FINEST} nodes along an axis, not {resolution}");
        return Err(Error::value(m).hint("published is 28"));
    }
    let ball = Ball::new(resolution);
    if ball.nodes == 0 {
        return Err(
            Error::value(format!("clouds: a grid of {resolution}³ has no nodes in its ball")).hint("published is 28")
        );
    }
    let (a, b) = (Counts::new(&ball, samples)?, Counts::new(&ball, references)?);
    let (all_a, all_b) = (a.without(None), b.without(None));
    let mut variance = 0.0;
    if a.parts.len() > 1 {
        variance += jackknife(&(0..a.parts.len()).map(|i| divergence(&a.without(Some(i)), &all_b)).collect::<Vec<_>>());
    }
    if b.parts.len() > 1 {
        variance += jackknife(&(0..b.parts.len()).map(|i| divergence(&all_a, &b.without(Some(i)))).collect::<Vec<_>>());
    }
    let plogp = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    let share = |n: &u64| *n as f64 / samples.len() as f64;
    let entropy = a.clouds.iter().map(share).map(|p| plogp(p) + plogp(1.0 - p)).sum::<f64>() / ball.nodes as f64;
    Ok(Occupancy { jsd: divergence(&all_a, &all_b), error: variance.sqrt(), entropy, nodes: ball.nodes })
}
