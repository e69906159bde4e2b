//! A ligand's pose and how it moves: as a whole, by a shift and a rotation, and inside, by torsions that carry no motion of the whole.
use super::align::{Aligned, align};
use super::rotation::{pulled, rotation, torque};
use super::torsions::{Torsions, Turned};
use super::vectors::{Mat3, Vec3, add, back, mean, scale, sub, times};

/// A tangent at a pose.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Motion {
    /// How far the ligand is shifted.
    pub shift: Vec3,
    /// About which axis through its centre it is turned, and by what angle.
    pub turn: Vec3,
    /// By what angle each rotatable bond is turned.
    pub torsions: Vec<f64>,
}

/// A move that was made, with what its pull-back needs.
pub struct Moved {
    rotation: Mat3,
    centred: Vec<Vec3>,
    rigid: Vec<Vec3>,
    inside: Option<(Turned, Aligned)>,
}

impl Motion {
    /// Numbers of a tangent in a row: 3 + 3 + a number for each torsion.
    pub fn from_row(row: &[f64]) -> Motion {
        let three = |from: usize| std::array::from_fn(|k| row[from + k]);
        Motion { shift: three(0), turn: three(3), torsions: row[6..].to_vec() }
    }

    /// The same numbers in a row.
    pub fn row(&self) -> Vec<f64> {
        self.shift.iter().chain(&self.turn).chain(&self.torsions).copied().collect()
    }

    /// Its shift, its rotation and its torsions, multiplied by a number each.
    pub fn scaled(&self, by: [f64; 3]) -> Motion {
        let torsions = self.torsions.iter().map(|v| v * by[2]).collect();
        Motion { shift: scale(self.shift, by[0]), turn: scale(self.turn, by[1]), torsions }
    }

    /// The sum of two tangents at one pose.
    pub fn plus(&self, other: &Motion) -> Motion {
        let torsions = self.torsions.iter().zip(&other.torsions).map(|(a, b)| a + b).collect();
        Motion { shift: add(self.shift, other.shift), turn: add(self.turn, other.turn), torsions }
    }

    /// Moves a pose of at least one atom: turned about its centre, shifted, its bonds turned one after the other, and then brought
    /// closest to where it was before they turned.
    pub fn apply(&self, torsions: &Torsions, positions: &[Vec3]) -> Moved {
        let centre = mean(positions);
        let r = rotation(self.turn);
        let centred: Vec<Vec3> = positions.iter().map(|p| sub(*p, centre)).collect();
        let rigid: Vec<Vec3> = centred.iter().map(|p| add(times(&r, *p), add(self.shift, centre))).collect();
        let inside = (!self.torsions.is_empty()).then(|| {
            let turned = torsions.turned(&rigid, &self.torsions);
            let aligned = align(turned.positions(), &rigid);
            (turned, aligned)
        });
        Moved { rotation: r, centred, rigid, inside }
    }
}

impl Moved {
    /// The new pose.
    pub fn positions(&self) -> Vec<Vec3> {
        self.inside.as_ref().map_or_else(|| self.rigid.clone(), |(_, aligned)| aligned.moved())
    }

    /// The gradients with respect to the pose before and to the motion, given that of the new pose.
    pub fn pull(&self, torsions: &Torsions, motion: &Motion, cot: &[Vec3]) -> (Vec<Vec3>, Motion) {
        let mut rigid = cot.to_vec();
        let mut bar = Motion::default();
        if let Some((turned, aligned)) = &self.inside {
            let (from, onto) = aligned.pull(cot);
            let (before, angles) = turned.pull(torsions, &motion.torsions, &from);
            rigid = before.into_iter().zip(onto).map(|(a, b)| add(a, b)).collect();
            bar.torsions = angles;
        }
        let mut twist = [0.0; 3];
        let mut held = [0.0; 3];
        let mut positions = vec![];
        for (p, g) in self.centred.iter().zip(&rigid) {
            twist = add(twist, torque(times(&self.rotation, *p), *g));
            let there = back(&self.rotation, *g);
            held = add(held, sub(*g, there));
            bar.shift = add(bar.shift, *g);
            positions.push(there);
        }
        bar.turn = pulled(motion.turn, twist);
        let each = scale(held, 1.0 / positions.len() as f64);
        (positions.into_iter().map(|p| add(p, each)).collect(), bar)
    }
}
