//! Bonds that turn: which there are in a molecule, which atoms each moves, and how.
use super::rotation::{across, rotation, torque};
use super::vectors::{Vec3, add, back, dot, length, scale, sub, times};
use crate::{Error, Result};

/// A bond that turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The atom at its end that stays.
    pub from: usize,
    /// The atom at the end that turns.
    pub to: usize,
    /// The atoms that turn, rising; `to` is one of them.
    pub moved: Vec<usize>,
}

/// The bonds of a molecule that turn, in the order in which they do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Torsions {
    atoms: usize,
    turns: Vec<Turn>,
}

/// What turning leaves for its pull-back: the positions before each bond turned.
pub struct Turned {
    before: Vec<Vec<Vec3>>,
    after: Vec<Vec3>,
}

impl Torsions {
    /// From turns that are known, for a molecule of `atoms` atoms.
    ///
    /// # Errors
    /// An atom that there is not, a bond whose end that stays is among what it moves, or whose other end is not.
    pub fn new(atoms: usize, turns: Vec<Turn>) -> Result<Torsions> {
        for (i, Turn { from, to, moved }) in turns.iter().enumerate() {
            if let Some(bad) = moved.iter().chain([from, to]).find(|a| **a >= atoms) {
                return Err(Error::value(format!("rotatable bond {i}: no atom {bad} in a ligand of {atoms}")));
            }
            if moved.contains(from) || !moved.contains(to) {
                let m = format!("rotatable bond {i} from atom {from} to atom {to} must move {to} and not {from}");
                return Err(Error::value(m).hint("it moves all atoms on the side of its second one"));
            }
        }
        Ok(Torsions { atoms, turns })
    }

    /// From the bonds of a molecule, each once: all whose removal leaves two parts of at least two atoms, of which the smaller one
    /// turns, or that of the first atom where both are alike. No bond order is looked at, as in DiffDock.
    ///
    /// # Errors
    /// A bond to an atom that there is not or to itself, and bonds that do not join all atoms.
    pub fn of_bonds(atoms: usize, bonds: &[[usize; 2]]) -> Result<Torsions> {
        if let Some([a, b]) = bonds.iter().find(|[a, b]| a.max(b) >= &atoms || a == b) {
            return Err(Error::value(format!("there is no bond between atoms {a} and {b} of {atoms}")));
        }
        let mut near = vec![vec![]; atoms];
        for [a, b] in bonds {
            near[*a].push(*b);
            near[*b].push(*a);
        }
        if atoms > 0 && side(&near, 0, None).len() < atoms {
            return Err(Error::value("the ligand is in several pieces: no bonds join all of its atoms")
                .hint("dock each molecule by itself; counter-ions and water are no part of a ligand"));
        }
        let mut turns = vec![];
        for [a, b] in bonds {
            let first = side(&near, *a, Some([*a, *b]));
            if first.contains(b) {
                continue; // in a ring
            }
            let second: Vec<usize> = (0..atoms).filter(|k| first.binary_search(k).is_err()).collect();
            let lowest = first.first() < second.first();
            let turns_first = first.len() < second.len() || (first.len() == second.len() && lowest);
            let (from, to, moved) = if turns_first { (*b, *a, first) } else { (*a, *b, second) };
            if moved.len() > 1 {
                turns.push(Turn { from, to, moved });
            }
        }
        Ok(Torsions { atoms, turns })
    }

    /// How many atoms the molecule has.
    pub fn atoms(&self) -> usize {
        self.atoms
    }

    /// The bonds that turn.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Turns one bond after the other, each by its angle; 0 changes nothing.
    pub fn turned(&self, positions: &[Vec3], angles: &[f64]) -> Turned {
        let mut after = positions.to_vec();
        let mut before = vec![];
        for (turn, angle) in self.turns.iter().zip(angles) {
            before.push(after.clone());
            if *angle != 0.0 {
                let (axis, _, pivot) = axis(&after, turn);
                let r = rotation(scale(axis, *angle));
                for k in &turn.moved {
                    after[*k] = add(times(&r, sub(after[*k], pivot)), pivot);
                }
            }
        }
        Turned { before, after }
    }
}

/// The direction of a turn's axis, the length of its bond, and where the axis begins.
fn axis(positions: &[Vec3], turn: &Turn) -> (Vec3, f64, Vec3) {
    let pivot = positions[turn.to];
    let bond = sub(positions[turn.from], pivot);
    let n = length(bond);
    // atoms in one place have no axis between them: nothing turns
    (if n > 0.0 { scale(bond, 1.0 / n) } else { [0.0; 3] }, n, pivot)
}

/// The atoms that are reached from one without going along a bond, rising.
fn side(near: &[Vec<usize>], start: usize, without: Option<[usize; 2]>) -> Vec<usize> {
    let mut seen = vec![false; near.len()];
    let mut waiting = vec![start];
    seen[start] = true;
    while let Some(a) = waiting.pop() {
        for b in &near[a] {
            let cut = without.is_some_and(|[p, q]| (a, *b) == (p, q) || (a, *b) == (q, p));
            if !cut && !std::mem::replace(&mut seen[*b], true) {
                waiting.push(*b);
            }
        }
    }
    (0..near.len()).filter(|k| seen[*k]).collect()
}

impl Turned {
    /// The positions.
    pub fn positions(&self) -> &[Vec3] {
        &self.after
    }

    /// The gradients with respect to positions and angles, given that of the turned positions.
    pub fn pull(&self, torsions: &Torsions, angles: &[f64], cot: &[Vec3]) -> (Vec<Vec3>, Vec<f64>) {
        let mut bar = cot.to_vec();
        let mut turned = vec![0.0; angles.len()];
        let all = torsions.turns.iter().zip(angles).zip(&self.before).zip(&mut turned);
        for (((turn, angle), before), to) in all.rev() {
            let (axis, n, pivot) = axis(before, turn);
            let r = rotation(scale(axis, *angle));
            let (mut twist, mut held) = ([0.0; 3], [0.0; 3]);
            for k in &turn.moved {
                let (q, g) = (times(&r, sub(before[*k], pivot)), bar[*k]);
                twist = add(twist, torque(q, g));
                bar[*k] = back(&r, g);
                held = add(held, sub(g, bar[*k]));
            }
            *to = dot(axis, twist);
            bar[turn.to] = add(bar[turn.to], held);
            if n > 0.0 {
                // the axis follows the bond, as far as it turns it
                let of_axis = scale(super::rotation::pulled(scale(axis, *angle), twist), *angle);
                let along = scale(across(axis, of_axis), 1.0 / n);
                bar[turn.from] = add(bar[turn.from], along);
                bar[turn.to] = sub(bar[turn.to], along);
            }
        }
        (bar, turned)
    }
}
