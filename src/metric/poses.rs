//! How far poses of a molecule are from a reference, whichever of its alike atoms is which.
use crate::geometry::Vec3;
use crate::geometry::vectors::apart;
use crate::{Error, Result};

/// Trials after which a molecule of very many symmetries has what was found by then.
const TRIALS: usize = 10_000_000;

/// A molecule's heavy atoms as a graph: atoms that a symmetry of it exchanges cannot be told apart in a pose.
#[derive(Debug, Clone)]
pub struct Molecule {
    near: Vec<Vec<usize>>,
    /// Atoms of other colours are never exchanged.
    colours: Vec<usize>,
    /// An order in which each atom but the first of a piece is bonded to one before it.
    order: Vec<usize>,
}

impl Molecule {
    /// From atomic numbers (or anything that tells atoms apart) and bonds, whose kinds are not looked at.
    ///
    /// # Errors
    /// No atoms, or a bond to an atom that there is not.
    pub fn new(elements: &[usize], bonds: &[[usize; 2]]) -> Result<Molecule> {
        let n = elements.len();
        if n == 0 {
            return Err(Error::value("a molecule needs at least one atom"));
        }
        let mut near = vec![vec![]; n];
        for [a, b] in bonds {
            if a.max(b) >= &n || a == b {
                return Err(Error::value(format!("there is no bond between atoms {a} and {b} of {n}")));
            }
            near[*a].push(*b);
            near[*b].push(*a);
        }
        near.iter_mut().for_each(|all| {
            all.sort_unstable();
            all.dedup();
        });
        let colours = coloured(elements, &near);
        let mut order: Vec<usize> = vec![];
        let mut seen = vec![false; n];
        for start in 0..n {
            let mut at = order.len();
            if !std::mem::replace(&mut seen[start], true) {
                order.push(start);
            }
            while at < order.len() {
                for b in &near[order[at]] {
                    if !std::mem::replace(&mut seen[*b], true) {
                        order.push(*b);
                    }
                }
                at += 1;
            }
        }
        Ok(Molecule { near, colours, order })
    }

    /// √(mean d²) between atoms of the same number, without moving the pose.
    pub fn rmsd(&self, pose: &[Vec3], reference: &[Vec3]) -> Result<f64> {
        self.check(pose, reference)?;
        let sum: f64 = pose.iter().zip(reference).map(|(a, b)| apart(*a, *b)).sum();
        Ok((sum / pose.len() as f64).sqrt())
    }

    /// The least of these over all ways to number the molecule's atoms that keep elements and bonds.
    ///
    /// # Errors
    /// Poses of another number of atoms.
    pub fn symmetric_rmsd(&self, pose: &[Vec3], reference: &[Vec3]) -> Result<f64> {
        self.check(pose, reference)?;
        let n = pose.len();
        let costs: Vec<Vec<f64>> = pose.iter().map(|a| reference.iter().map(|b| apart(*a, *b)).collect()).collect();
        let alike = |i: usize| (0..n).filter(move |j| self.colours[*j] == self.colours[i]);
        // what the atoms from each place of the order on cost at least
        let mut rest = vec![0.0; n + 1];
        for k in (0..n).rev() {
            let i = self.order[k];
            rest[k] = rest[k + 1] + alike(i).map(|j| costs[i][j]).fold(f64::INFINITY, f64::min);
        }
        // atoms as they are numbered are one of the ways
        let own = (0..n).map(|i| costs[i][i]).sum();
        let mut search =
            Search { of: self, costs, rest, onto: vec![None; n], taken: vec![false; n], best: own, trials: 0 };
        search.extend(0, 0.0);
        Ok((search.best / n as f64).sqrt())
    }

    /// How many ways there are to number its atoms that keep elements and bonds; at most `most` are counted.
    pub fn symmetries(&self, most: usize) -> usize {
        let n = self.colours.len();
        let (costs, rest) = (vec![vec![0.0; n]; n], vec![0.0; n + 1]);
        let (onto, taken) = (vec![None; n], vec![false; n]);
        let mut search = Search { of: self, costs, rest, onto, taken, best: f64::INFINITY, trials: 0 };
        search.count(0, most)
    }

    fn check(&self, pose: &[Vec3], reference: &[Vec3]) -> Result<()> {
        let n = self.colours.len();
        match pose.len() == n && reference.len() == n {
            true => Ok(()),
            false => {
                let m = format!("poses of {} and {} atoms of a molecule of {n}", pose.len(), reference.len());
                Err(Error::shape(m, &[&[pose.len(), 3], &[reference.len(), 3]]))
            }
        }
    }
}

/// Colours by element, refined by those of the neighbours until no more are told apart.
fn coloured(elements: &[usize], near: &[Vec<usize>]) -> Vec<usize> {
    let mut colours = numbered(elements.iter().map(|e| vec![*e]).collect());
    loop {
        let told = |i: usize| {
            let mut around: Vec<usize> = near[i].iter().map(|j| colours[*j]).collect();
            around.sort_unstable();
            [vec![colours[i]], around].concat()
        };
        let next = numbered((0..colours.len()).map(told).collect());
        let count = |c: &[usize]| c.iter().max().map_or(0, |m| m + 1);
        if count(&next) == count(&colours) {
            return next;
        }
        colours = next;
    }
}

/// The number of each among the sorted ones.
fn numbered(all: Vec<Vec<usize>>) -> Vec<usize> {
    let mut sorted = all.clone();
    sorted.sort();
    sorted.dedup();
    all.iter().map(|a| sorted.partition_point(|s| s < a)).collect()
}

/// Numberings, atom by atom in the molecule's order, as far as they may be better than the best.
struct Search<'m> {
    of: &'m Molecule,
    costs: Vec<Vec<f64>>,
    rest: Vec<f64>,
    onto: Vec<Option<usize>>,
    taken: Vec<bool>,
    best: f64,
    trials: usize,
}

impl Search<'_> {
    /// Where atom `i` may go, the cheapest first.
    fn choices(&self, i: usize) -> Vec<usize> {
        let Molecule { near, colours, .. } = self.of;
        let keeps = |j: &usize| {
            // bonds to atoms that have their places, as many there as here
            let here = near[i].iter().filter_map(|k| self.onto[*k]);
            let there = near[*j].iter().filter(|k| self.taken[**k]).count();
            let mut count = 0;
            let all = here.inspect(|_| count += 1).all(|k| near[*j].binary_search(&k).is_ok());
            all && count == there
        };
        let fits = |j: &usize| !self.taken[*j] && colours[*j] == colours[i] && keeps(j);
        let mut found: Vec<usize> = (0..colours.len()).filter(fits).collect();
        found.sort_by(|a, b| self.costs[i][*a].total_cmp(&self.costs[i][*b]));
        found
    }

    fn extend(&mut self, k: usize, cost: f64) {
        if cost + self.rest[k] >= self.best || self.trials > TRIALS {
            return;
        }
        let Some(i) = self.of.order.get(k).copied() else {
            self.best = cost;
            return;
        };
        for j in self.choices(i) {
            self.trials += 1;
            (self.onto[i], self.taken[j]) = (Some(j), true);
            self.extend(k + 1, cost + self.costs[i][j]);
            (self.onto[i], self.taken[j]) = (None, false);
        }
    }

    fn count(&mut self, k: usize, most: usize) -> usize {
        let Some(i) = self.of.order.get(k).copied() else { return 1 };
        let mut found = 0;
        for j in self.choices(i) {
            (self.onto[i], self.taken[j]) = (Some(j), true);
            found += self.count(k + 1, most - found.min(most));
            (self.onto[i], self.taken[j]) = (None, false);
            if found >= most {
                break;
            }
        }
        found
    }
}
