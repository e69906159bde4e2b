//! The rotation and shift that bring points closest to others (Kabsch 1976), with their gradient.
use super::vectors::{Mat3, Vec3, add, back, mean, outer, product, scale, skew, sub, times, transpose, unskew};
use nalgebra::Matrix3;

/// A rigid motion that was found, with what its pull-back needs.
pub struct Aligned {
    /// Its rotation.
    pub rotation: Mat3,
    from: Vec<Vec3>,
    onto: Vec<Vec3>,
    centre: Vec3,
    target: Vec3,
    /// Rᵀ Σ onto fromᵀ, which is symmetric.
    stretch: Mat3,
}

/// The motion that brings `from` closest to `onto`: as many points, at least one. Mirror images are not used.
pub fn align(from: &[Vec3], onto: &[Vec3]) -> Aligned {
    let (centre, target) = (mean(from), mean(onto));
    let from: Vec<Vec3> = from.iter().map(|p| sub(*p, centre)).collect();
    let onto: Vec<Vec3> = onto.iter().map(|p| sub(*p, target)).collect();
    let m = outer(onto.iter().copied().zip(from.iter().copied()));
    let svd = Matrix3::from_fn(|i, j| m[i][j]).svd(true, true);
    let rotation = match (svd.u, svd.v_t) {
        (Some(mut u), Some(vt)) => {
            if (u * vt).determinant() < 0.0 {
                // the direction with the least to lose is turned round
                let least = svd.singular_values.imin();
                u.column_mut(least).neg_mut();
            }
            let r = u * vt;
            std::array::from_fn(|i| std::array::from_fn(|j| r[(i, j)]))
        }
        // both were asked for
        _ => super::vectors::IDENTITY,
    };
    let stretch = product(&transpose(&rotation), &m);
    Aligned { rotation, from, onto, centre, target, stretch }
}

impl Aligned {
    /// The shift after the rotation.
    pub fn shift(&self) -> Vec3 {
        sub(self.target, times(&self.rotation, self.centre))
    }

    /// The points `from`, moved.
    pub fn moved(&self) -> Vec<Vec3> {
        self.from.iter().map(|p| add(times(&self.rotation, *p), self.target)).collect()
    }

    /// The gradients with respect to `from` and `onto`, given that of the moved points.
    ///
    /// Where the points leave a rotation undetermined, as those on a line do, nothing is passed on for that rotation.
    pub fn pull(&self, cot: &[Vec3]) -> (Vec<Vec3>, Vec<Vec3>) {
        let all = cot.iter().copied().fold([0.0; 3], add);
        let each = scale(all, 1.0 / cot.len() as f64);
        let bar = outer(cot.iter().copied().zip(self.from.iter().copied()));
        // a rotation R + R skew(w): w answers to a change dM of the moments by (tr P − P) w = unskew(Rᵀ dM)
        let w = unskew(&product(&transpose(&self.rotation), &bar));
        let moments = product(&self.rotation, &skew(solved(&self.stretch, w)));
        let from =
            cot.iter().zip(&self.onto).map(|(g, p)| add(back(&self.rotation, sub(*g, each)), back(&moments, *p)));
        let onto = self.from.iter().map(|p| add(each, times(&moments, *p)));
        (from.collect(), onto.collect())
    }
}

/// z with (tr P − P) z = w for a symmetric P, without the directions in which that says nothing.
fn solved(p: &Mat3, w: Vec3) -> Vec3 {
    let trace = p[0][0] + p[1][1] + p[2][2];
    // what rounding made unsymmetric is none of it
    let entry = |i: usize, j: usize| (if i == j { trace } else { 0.0 }) - 0.5 * (p[i][j] + p[j][i]);
    let own = Matrix3::from_fn(entry).symmetric_eigen();
    let largest = own.eigenvalues.amax();
    (0..3).fold([0.0; 3], |sum, k| {
        let (value, direction) = (own.eigenvalues[k], own.eigenvectors.column(k));
        let direction = [direction[0], direction[1], direction[2]];
        if value.abs() <= 1e-9 * largest || largest == 0.0 {
            return sum;
        }
        add(sum, scale(direction, super::vectors::dot(direction, w) / value))
    })
}
