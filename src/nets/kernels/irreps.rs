//! Features that turn with the scene, by kind of turning, and the products that keep it: e3nn's bookkeeping.
use crate::geometry::wigner::joint;
use std::fmt;

/// A run of vectors of one kind: `mul` times 2l + 1 numbers, one vector after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Irrep {
    /// How many.
    pub mul: usize,
    /// Of which kind: 0 is a number, 1 a vector.
    pub l: usize,
    /// Whether a mirror at the origin changes the sign.
    pub odd: bool,
}

impl Irrep {
    /// `mul` vectors of kind `l`, odd or even.
    pub const fn new(mul: usize, l: usize, odd: bool) -> Irrep {
        Irrep { mul, l, odd }
    }
    /// Numbers in it.
    pub fn len(self) -> usize {
        self.mul * self.each()
    }
    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.mul == 0
    }
    /// Numbers of one vector.
    pub fn each(self) -> usize {
        2 * self.l + 1
    }
}

/// As e3nn writes it: 24x1o.
impl fmt::Display for Irrep {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}x{}{}", self.mul, self.l, if self.odd { 'o' } else { 'e' })
    }
}

/// Runs side by side.
pub type Irreps = Vec<Irrep>;

/// Numbers in all runs.
pub fn width(all: &[Irrep]) -> usize {
    all.iter().map(|i| i.len()).sum()
}

/// As e3nn writes them: 48x0e+10x1o.
pub fn written(all: &[Irrep]) -> String {
    all.iter().map(Irrep::to_string).collect::<Vec<_>>().join("+")
}

/// Where each run begins.
fn starts(all: &[Irrep]) -> Vec<usize> {
    let next = |at: &mut usize, i: &Irrep| {
        let here = *at;
        *at += i.len();
        Some(here)
    };
    all.iter().scan(0, next).collect()
}

/// A product of a run of each of two features into a run of a third.
#[derive(Debug, Clone)]
pub struct Path {
    /// The first run and where it begins.
    pub a: (Irrep, usize),
    /// The second, of one vector.
    pub b: (Irrep, usize),
    /// The result's.
    pub out: (Irrep, usize),
    /// Where its weights [mul of the first, mul of the result] begin.
    pub weights: usize,
    /// The coefficients [each of the first, each of the second, each of the result], the path's own factor in them.
    pub joint: Vec<f64>,
}

/// e3nn's FullyConnectedTensorProduct: every run of `a` with every run of `b` into every run of `out` that they can give. Runs of `b` are
/// single vectors. Components of the result have a variance of 1 where weights and features do.
pub fn connected(a: &[Irrep], b: &[Irrep], out: &[Irrep]) -> Vec<Path> {
    let (sa, sb, so) = (starts(a), starts(b), starts(out));
    let mut paths = vec![];
    let mut weights = 0;
    for (a, at) in a.iter().zip(sa) {
        for (b, bt) in b.iter().zip(&sb) {
            for (out, ot) in out.iter().zip(&so) {
                if (a.odd != b.odd) != out.odd {
                    continue;
                }
                if let Some(joint) = joint(a.l, b.l, out.l) {
                    paths.push(Path { a: (*a, at), b: (*b, *bt), out: (*out, *ot), weights, joint });
                    weights += a.mul * out.mul;
                }
            }
        }
    }
    // what arrives in one run together has the variance of one
    for (run, at) in out.iter().zip(so) {
        let into = |p: &&mut Path| p.out.1 == at;
        let terms: usize = paths.iter_mut().filter(into).map(|p| p.a.0.mul).sum();
        let factor = (run.each() as f64 / terms.max(1) as f64).sqrt();
        paths.iter_mut().filter(into).for_each(|p| p.joint.iter_mut().for_each(|c| *c *= factor));
    }
    paths
}

/// How many weights the paths have.
pub fn weights(paths: &[Path]) -> usize {
    paths.last().map_or(0, |p| p.weights + p.a.0.mul * p.out.0.mul)
}

/// e3nn's FullTensorProduct of single vectors up to kind `most`: a result for each pair and kind, sorted by kind, odd ones first, and in
/// the order of their pairs.
pub fn full(a: &[Irrep], b: &[Irrep], most: usize) -> (Vec<Path>, Irreps) {
    let (sa, sb) = (starts(a), starts(b));
    let mut paths = vec![];
    for (a, at) in a.iter().zip(sa) {
        for (b, bt) in b.iter().zip(&sb) {
            for l in a.l.abs_diff(b.l)..=(a.l + b.l).min(most) {
                let out = Irrep::new(1, l, a.odd != b.odd);
                let factor = (out.each() as f64).sqrt();
                // where the result begins is known when all are sorted
                let of = |joint: Vec<f64>| Path {
                    a: (*a, at),
                    b: (*b, *bt),
                    out: (out, 0),
                    weights: 0,
                    joint: joint.into_iter().map(|c| c * factor).collect(),
                };
                paths.extend(joint(a.l, b.l, l).map(of));
            }
        }
    }
    paths.sort_by_key(|p| (p.out.0.l, !p.out.0.odd));
    let irreps: Irreps = paths.iter().map(|p| p.out.0).collect();
    paths.iter_mut().zip(starts(&irreps)).for_each(|(p, at)| p.out.1 = at);
    (paths, irreps)
}
