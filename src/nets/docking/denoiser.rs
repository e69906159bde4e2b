//! A score model and a complex as a denoiser of poses: what its ODE moves a pose by, in one of two variables.
use super::model::Score;
use crate::denoise::{Denoiser, Geometry, InputGrad, Part, Prediction, Pullback, Query, State};
use crate::files::complex::Complex;
use crate::files::hash::sha256;
use crate::geometry::{Motion, Vec3, so3, torus};
use crate::host::Host;
use crate::noise::{Noise, from_spec};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use serde_json::json;
use std::sync::Arc;

/// In which variable steps are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The time of training, from 1 to 0: as the published sampler steps.
    Time,
    /// The noise of the shift, in Å.
    Sigma,
}

impl Variable {
    /// Its name in scripts.
    pub fn name(self) -> &'static str {
        match self {
            Variable::Time => "t",
            Variable::Sigma => "sigma",
        }
    }
}

/// ½ g² is so many times σ dσ/dt, for shift, rotation and torsions: the rotation's noise is that of twice the time.
pub const SHARE: [f64; 3] = [1.0, 2.0, 1.0];

/// Poses of a complex's ligand. Its state is one part, the atoms' places [B, N, 3]; its noise prediction is what a pose moves by as the
/// variable grows by 1: dx/du = −½ g² score · dt/du.
#[derive(Clone)]
pub struct Docking {
    net: Score,
    complex: Arc<Complex>,
    variable: Variable,
    noise: Noise,
    hash: String,
}

/// What the noise is at a value of the variable.
struct At {
    t: f64,
    /// What scores are multiplied by, and the logarithm's derivative of that in the variable, the network's output being held fixed.
    factors: [f64; 3],
    slopes: [f64; 3],
}

impl Docking {
    /// From a model and a complex.
    pub fn new(net: Score, complex: Arc<Complex>, variable: Variable) -> Result<Docking> {
        let top = match variable {
            Variable::Time => 1.0,
            Variable::Sigma => net.facts().sigma[0][1],
        };
        let noise = from_spec(&json!({ "name": "edm", "sigma_min": 0.0, "sigma_max": top }))?;
        let hash = sha256(format!("{} {complex:?} {}", net.hash(), variable.name()).as_bytes());
        Ok(Docking { net, complex, variable, noise, hash })
    }

    /// The complex.
    pub fn complex(&self) -> &Arc<Complex> {
        &self.complex
    }

    /// The score model.
    pub fn score(&self) -> &Score {
        &self.net
    }

    /// How a state of it is moved.
    pub fn geometry(&self) -> Geometry {
        Geometry::Pose(Arc::new(self.complex.ligand.torsions.clone()))
    }

    /// Poses [B, N, 3] as a state.
    pub fn state(&self, poses: &Tensor) -> Result<State> {
        let n = self.complex.ligand.positions.len();
        match poses.dims() {
            [_, atoms, 3] if *atoms == n => {
                State::new(vec![Part { name: "pose", value: poses.clone(), geometry: self.geometry() }])
            }
            other => Err(Error::shape(format!("poses of this ligand are [B, {n}, 3], got {other:?}"), &[other])),
        }
    }

    fn at(&self, u: f64) -> Result<At> {
        let facts = self.net.facts();
        let rates = facts.sigma.map(|[low, high]| (high / low).ln());
        let [low, _] = facts.sigma[0];
        let (t, dt) = match self.variable {
            Variable::Time => (u, 1.0),
            Variable::Sigma => ((u / low).ln() / rates[0], 1.0 / (rates[0] * u)),
        };
        // a noise that was rounded on its way may lie a little outside
        if !(-1e-6..=1.0 + 1e-6).contains(&t) {
            let [low, high] = match self.variable {
                Variable::Time => [0.0, 1.0],
                Variable::Sigma => facts.sigma[0],
            };
            let e =
                Error::value(format!("the score model knows {} from {low} to {high}, not {u}", self.variable.name()));
            return Err(e.hint("only the last step may end at 0"));
        }
        let sigmas = facts.sigmas(t);
        let scaled = match facts.scaled {
            true => {
                let [square, slope] = torus::norm(sigmas[2]);
                [-rates[0], rates[1] * so3::slope(sigmas[1]) / so3::norm(sigmas[1]), 0.5 * rates[2] * slope / square]
            }
            false => [0.0; 3],
        };
        let of = |k: usize| -SHARE[k] * sigmas[k] * sigmas[k] * rates[k] * dt;
        let own = if self.variable == Variable::Sigma { -1.0 / u } else { 0.0 };
        let slope = |k: usize| (2.0 * rates[k] + scaled[k]) * dt + own;
        Ok(At { t, factors: [0, 1, 2].map(of), slopes: [0, 1, 2].map(slope) })
    }

    fn poses(&self, q: &Query) -> Result<Vec<Vec<Vec3>>> {
        let [part] = q.x.parts() else {
            return Err(Error::value("a state of docking is one part, the ligand's poses"));
        };
        self.state(&part.value)?;
        let flat =
            part.value.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let n = 3 * self.complex.ligand.positions.len();
        Ok(flat.chunks_exact(n).map(|p| p.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect()).collect())
    }

    /// The times of the query with the samples that each is for, in order.
    fn runs(&self, q: &Query, poses: usize) -> Vec<(f64, std::ops::Range<usize>)> {
        if q.t.len() == 1 {
            return vec![(q.t[0], 0..poses)];
        }
        q.t.iter().take(poses).enumerate().map(|(i, t)| (*t, i..i + 1)).collect()
    }

    fn told(want: Prediction) -> Result<()> {
        match want {
            Prediction::Noise => Ok(()),
            Prediction::Data => Err(Error::value("docking has no data prediction: poses are no mean of others")
                .hint("use a solver of noise predictions whose steps move one state: euler, ipndm, deis, heun")),
        }
    }

    /// Tangents in rows, like the state.
    fn tangents(&self, q: &Query, rows: &[Vec<f64>]) -> Result<State> {
        let like = &q.x.parts()[0].value;
        let dims = self.geometry().tangents(like.dims());
        let t =
            Tensor::from_vec(rows.concat(), dims, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?;
        Ok(q.x.with_values([t]))
    }
}

impl Denoiser for Docking {
    fn noise(&self) -> &Noise {
        &self.noise
    }
    fn describe(&self) -> String {
        let (lig, rec) = (&self.complex.ligand, &self.complex.receptor);
        let (n, m, r) = (lig.positions.len(), lig.torsions.turns().len(), rec.x.len());
        format!("docking of {n} atoms with {m} torsions to {r} residues, steps in {}", self.variable.name())
    }
    fn hash(&self) -> Option<String> {
        Some(self.hash.clone())
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        Some(vec![self.complex.ligand.positions.len(), 3])
    }
    fn eval(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        Docking::told(want)?;
        let poses = self.poses(q)?;
        let mut rows = vec![];
        for (u, span) in self.runs(q, poses.len()) {
            let at = self.at(u)?;
            let scores = self.net.eval(&self.complex, &poses[span], &self.net.level(at.t))?;
            rows.extend(scores.iter().map(|s| s.scaled(at.factors).row()));
        }
        self.tangents(q, &rows)
    }
    fn linearize(&self, _: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        Docking::told(want)?;
        let poses = self.poses(q)?;
        let (mut rows, mut kept) = (vec![], vec![]);
        for (u, span) in self.runs(q, poses.len()) {
            let at = self.at(u)?;
            let (scores, pull) = self.net.linearize(&self.complex, &poses[span.clone()], &self.net.level(at.t))?;
            let moves: Vec<Motion> = scores.iter().map(|s| s.scaled(at.factors)).collect();
            rows.extend(moves.iter().map(Motion::row));
            kept.push((at, moves, pull));
        }
        let out = self.tangents(q, &rows)?;
        let (like, times) = (q.x.detach(), q.t.len());
        let back: Pullback = Box::new(move |_, bar| {
            let [part] = bar.parts() else {
                return Err(Error::new(Kind::Internal, "a cotangent of docking has one part"));
            };
            let flat = part.value.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            let width = flat.len() / like.batch().max(1);
            let mut bars = flat.chunks_exact(width.max(1)).map(Motion::from_row);
            let (mut xs, mut ts) = (vec![], vec![]);
            for (at, moves, pull) in kept {
                let own: Vec<Motion> = bars.by_ref().take(moves.len()).collect();
                // the time's own embedding is held fixed: its slope is thousands of times that of all else, and a fast wiggle
                let along = own
                    .iter()
                    .zip(&moves)
                    .map(|(bar, m)| bar.row().iter().zip(m.scaled(at.slopes).row()).map(|(a, b)| a * b).sum::<f64>());
                ts.push(along.sum::<f64>());
                let scores: Vec<Motion> = own.iter().map(|bar| bar.scaled(at.factors)).collect();
                xs.extend(pull(&scores)?.into_iter().flatten().flatten());
            }
            let x = &like.parts()[0].value;
            let grad = Tensor::from_vec(xs, x.dims(), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
            ts.resize(times, 0.0);
            Ok(InputGrad { x: like.with_values([grad]), t: ts })
        });
        Ok((out, back))
    }
}
