//! Where poses start, and the published samplers: steps in the time of training, of the ODE or with noise.
use super::denoiser::{Docking, SHARE};
use super::model::Poses;
use crate::geometry::vectors::{Mat3, Vec3, add, mean, scale, sub, times};
use crate::geometry::{Motion, Torsions};
use crate::host::check_cancelled;
use crate::tensor::random::{normal, stream};
use crate::{Error, Result};
use candle_core::{DType, Device};

/// Noise for a step, the same in each pose's own numbers: a tangent of unit normal numbers for each pose.
pub type Noises<'a> = &'a mut dyn FnMut(usize) -> Result<Vec<Motion>>;

impl Docking {
    /// Poses to start from: torsions and rotation uniform, the centre normal around the receptor's with the largest noise. Pose `i`
    /// depends on `seed` and `first + i` alone.
    pub fn start(&self, count: usize, seed: u64, first: u64) -> Result<Poses> {
        let ligand = &self.complex().ligand;
        let width = 3 + 4 + 2 * ligand.torsions.turns().len();
        let largest = self.score().facts().sigma[0][1];
        let all = normal(seed, first, &[count, width], stream::NORMAL, DType::F64, &Device::Cpu)?.to_vec2::<f64>()?;
        let one = |row: &Vec<f64>| started(&ligand.torsions, &ligand.positions, largest, row);
        Ok(all.iter().map(one).collect())
    }

    /// Unit normal numbers for step `step` of the published stochastic sampler, a tangent for each of `count` poses.
    pub fn noises(&self, count: usize, seed: u64, first: u64, step: usize) -> Result<Vec<Motion>> {
        let width = 6 + self.complex().ligand.torsions.turns().len();
        let stream = stream::SAMPLER | (step as u64) << 32;
        let all = normal(seed, first, &[count, width], stream, DType::F64, &Device::Cpu)?.to_vec2::<f64>()?;
        Ok(all.iter().map(|row| Motion::from_row(row)).collect())
    }

    /// The published sampler from `poses` over falling times `t` of training, the last of which may be 0; without `noise` that of the
    /// ODE. With it each step but the last one takes it (`last`: that too).
    ///
    /// # Errors
    /// Times that do not fall within [0, 1], and scores that are not finite.
    pub fn walk(&self, poses: &Poses, t: &[f64], mut noise: Option<Noises>, last: bool) -> Result<Poses> {
        let falls = t.windows(2).all(|w| w[0] > w[1]) && t.iter().all(|t| (0.0..=1.0).contains(t));
        if t.len() < 2 || !falls {
            return Err(Error::value(format!("the times of a walk must fall within [0, 1], not {t:?}"))
                .hint("the published ones are 1, 1 − 1/n, …, 0"));
        }
        let (facts, torsions) = (self.score().facts(), &self.complex().ligand.torsions);
        let rates = facts.sigma.map(|[low, high]| (high / low).ln());
        let mut here = poses.clone();
        for (i, w) in t.windows(2).enumerate() {
            check_cancelled()?;
            let dt = w[0] - w[1];
            let scores = self.score().eval(self.complex(), &here, &self.score().level(w[0]))?;
            let sigmas = facts.sigmas(w[0]);
            // g² dt
            let spread = [0, 1, 2].map(|k| 2.0 * SHARE[k] * sigmas[k] * sigmas[k] * rates[k] * dt);
            let drift = spread.map(|g| if noise.is_some() { g } else { 0.5 * g });
            let drawn = match noise.as_mut() {
                Some(noise) if last || i + 2 < t.len() => Some(noise(i)?),
                _ => None,
            };
            for (k, pose) in here.iter_mut().enumerate() {
                let mut motion = scores[k].scaled(drift);
                if let Some(z) = drawn.as_ref().and_then(|d| d.get(k)) {
                    motion = motion.plus(&z.scaled(spread.map(f64::sqrt)));
                }
                *pose = motion.apply(torsions, pose).positions();
            }
        }
        Ok(here)
    }
}

/// A pose from unit normal numbers: three of the shift, four of the rotation, two of each torsion.
fn started(torsions: &Torsions, positions: &[Vec3], largest: f64, row: &[f64]) -> Vec<Vec3> {
    // the direction of two normal numbers is uniform on the circle, that of four on the rotations
    let angles: Vec<f64> = row[7..].chunks_exact(2).map(|p| p[0].atan2(p[1])).collect();
    let turned = torsions.turned(positions, &angles);
    let r = quaternion([row[3], row[4], row[5], row[6]]);
    let (centre, shift) = (mean(turned.positions()), scale([row[0], row[1], row[2]], largest));
    turned.positions().iter().map(|p| add(times(&r, sub(*p, centre)), shift)).collect()
}

/// The rotation of a quaternion of any length.
fn quaternion(q: [f64; 4]) -> Mat3 {
    let n = q.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    let [w, x, y, z] = q.map(|v| v / n);
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ]
}
