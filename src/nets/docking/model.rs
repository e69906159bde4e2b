//! Networks of docking as they are run: on poses of a prepared complex, with gradients with respect to their places.
use super::confidence::CONFIDENCE;
use super::facts::Facts;
use super::scene::{Filled, Ports, fixed, moving};
use super::score::POSITIONS;
use crate::files::complex::Complex;
use crate::geometry::{Motion, Vec3, so3, torus};
use crate::nets::runner::{Batch, Pull, Run, Runner};
use crate::nets::weights::wide;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Poses of a ligand.
pub type Poses = Vec<Vec<Vec3>>;

/// Gradients with respect to poses, from those of scores.
pub type PosePull = Box<dyn FnOnce(&[Motion]) -> Result<Poses>>;

/// What both networks are.
#[derive(Clone)]
struct Net {
    runner: Runner,
    facts: Arc<Facts>,
    language: bool,
    hash: String,
}

/// Results of a run for some poses, and how to pull back through it.
enum Ran {
    Fast(Vec<Run>),
    Composed(Vec<Vec<Tensor>>, Vec<Pull>),
}

impl Net {
    /// The receptor's part of what a complex needs for this network.
    fn check(&self, complex: &Complex) -> Result<()> {
        match self.language && complex.receptor.language.is_none() {
            false => Ok(()),
            true => Err(Error::value(
                "this network is told a language model's numbers of each residue, and the complex has none",
            )
            .hint("the tensor `rec.language` of its file holds them: 1280 of ESM2 for each residue")),
        }
    }

    /// Runs poses by themselves; `outputs` says which results are wanted, `pulled` whether there will be a pull-back.
    fn run(&self, fixed: &Ports, moving: &[Ports], outputs: &[&str], pulled: bool) -> Result<Ran> {
        let graph = match outputs.len() == self.runner.graph().outputs.len() {
            true => self.runner.clone(),
            false => {
                Runner::new(self.runner.graph().only(outputs)?.one_by_one(), self.runner.device(), self.runner.dtype())
            }
        };
        if !graph.fast() {
            return composed(&graph, fixed, moving, pulled);
        }
        let narrow = |f: &Filled| (f.data.iter().map(|v| *v as f32).collect::<Vec<f32>>(), f.dims.clone());
        let same: BTreeMap<&str, _> = fixed.iter().map(|(k, f)| (*k, narrow(f))).collect();
        let own: Vec<BTreeMap<&str, _>> =
            moving.iter().map(|p| p.iter().map(|(k, f)| (*k, narrow(f))).collect()).collect();
        let ports = &graph.graph().inputs;
        let batches: Vec<Batch> = own
            .iter()
            .map(|own| Batch {
                values: ports
                    .iter()
                    .map(|p| own.get(&*p.name).or(same.get(&*p.name)).map(|(data, dims)| (&data[..], dims.clone())))
                    .collect(),
                count: 1,
                wanted: if pulled { vec![0] } else { vec![] },
            })
            .collect();
        Ok(Ran::Fast(graph.start(&batches)?))
    }
}

/// The same in candle's operations.
fn composed(runner: &Runner, fixed: &Ports, moving: &[Ports], pulled: bool) -> Result<Ran> {
    let (device, dtype) = (runner.device(), wide(runner.dtype()));
    let tensor = |f: &Filled| -> Result<Tensor> {
        let dims = [&[1], &f.dims[..]].concat();
        Ok(Tensor::from_vec(f.data.clone(), dims, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    };
    let known = |name: &str| runner.graph().inputs.iter().any(|p| p.name == name);
    let (mut results, mut pulls) = (vec![], vec![]);
    for own in moving {
        let all = fixed.iter().chain(own).filter(|(k, _)| known(k));
        let all = all.map(|(k, f)| Ok((*k, tensor(f)?))).collect::<Result<Vec<(&str, Tensor)>>>()?;
        let given: Vec<(&str, &Tensor)> = all.iter().map(|(k, t)| (*k, t)).collect();
        if pulled {
            let (outs, pull) = runner.linearize(&given, &[POSITIONS])?;
            results.push(outs);
            pulls.push(pull);
        } else {
            results.push(runner.forward(&given)?);
        }
    }
    Ok(Ran::Composed(results, pulls))
}

impl Ran {
    /// Output `k` of pose `i`.
    fn output(&self, i: usize, k: usize) -> Result<Vec<f64>> {
        Ok(match self {
            Ran::Fast(runs) => runs[i].sample(k, 0).iter().map(|v| f64::from(*v)).collect(),
            Ran::Composed(all, _) => {
                all[i][k].to_dtype(candle_core::DType::F64)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?
            }
        })
    }

    /// Gradients with respect to the places of each pose, from those of its outputs.
    fn pull(self, cots: &[Vec<Vec<f64>>]) -> Result<Poses> {
        let grads: Vec<Vec<f64>> = match self {
            Ran::Fast(runs) => runs
                .into_iter()
                .zip(cots)
                .map(|(run, cots)| {
                    let present = vec![true; cots.len()];
                    let cots = run.cotangents(&present, |k, _, to| {
                        to.iter_mut().zip(&cots[k]).for_each(|(t, c)| *t = *c as f32);
                    });
                    Ok(run.pull(cots)?.remove(0).into_iter().map(f64::from).collect())
                })
                .collect::<Result<_>>()?,
            Ran::Composed(outs, pulls) => outs
                .iter()
                .zip(pulls)
                .zip(cots)
                .map(|((outs, pull), cots)| {
                    let cots = outs.iter().zip(cots).map(|(out, c)| {
                        Ok(Tensor::from_vec(c.clone(), out.dims(), &Device::Cpu)?
                            .to_dtype(out.dtype())?
                            .to_device(out.device())?)
                    });
                    let cots = cots.collect::<Result<Vec<Tensor>>>()?;
                    let grads = pull(&cots.iter().map(Some).collect::<Vec<_>>())?;
                    Ok(grads[0].to_dtype(candle_core::DType::F64)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
                })
                .collect::<Result<_>>()?,
        };
        Ok(grads.into_iter().map(|g| g.chunks(3).map(|p| [p[0], p[1], p[2]]).collect()).collect())
    }
}

/// What a score model is told of the noise.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// The time, for messages.
    pub t: f64,
    /// Its embedding.
    pub embedding: Vec<f64>,
    /// Up to which distance ligand and receptor hear each other.
    pub reach: f64,
    /// What shift, rotation and torsions are multiplied by.
    pub scales: [f64; 3],
}

/// The score model.
#[derive(Clone)]
pub struct Score(Net);

impl Score {
    /// From its graph. `language` says whether it is told a language model's numbers, `hash` is of weights and parameters.
    pub fn new(runner: Runner, facts: Facts, language: bool, hash: String) -> Score {
        Score(Net { runner, facts: Arc::new(facts), language, hash })
    }

    /// What its training parameters say.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// What runs it.
    pub fn runner(&self) -> &Runner {
        &self.0.runner
    }

    /// SHA-256 of weights and parameters.
    pub fn hash(&self) -> &str {
        &self.0.hash
    }

    /// The outputs for a ligand.
    fn outputs(&self, complex: &Complex) -> &'static [&'static str] {
        match self.facts().torsion && !complex.ligand.torsions.turns().is_empty() {
            true => &["tr", "rot", "tor"],
            false => &["tr", "rot"],
        }
    }

    /// What the network is told at a time from 0 to 1, and how its outputs are scaled there.
    pub fn level(&self, t: f64) -> Level {
        let facts = self.facts();
        let [tr, rot, tor] = facts.sigmas(t);
        let scales = match facts.scaled {
            true => [1.0 / tr, so3::norm(rot), torus::norm(tor)[0].sqrt()],
            false => [1.0; 3],
        };
        Level { t, embedding: facts.embedding(t).into_iter().map(f64::from).collect(), reach: facts.reach(tr), scales }
    }

    fn started(&self, complex: &Complex, poses: &[Vec<Vec3>], at: &Level, pulled: bool) -> Result<(Ran, usize)> {
        self.0.check(complex)?;
        let fixed = fixed(complex, self.0.language, false);
        let moving: Vec<Ports> =
            poses.iter().map(|p| moving(complex, self.facts().radius, p, &at.embedding, at.reach, false)).collect();
        let outputs = self.outputs(complex);
        Ok((self.0.run(&fixed, &moving, outputs, pulled)?, outputs.len()))
    }

    fn motions(&self, ran: &Ran, poses: usize, outputs: usize, at: &Level, turns: usize) -> Result<Vec<Motion>> {
        let one = |i: usize| -> Result<Motion> {
            let mut row = vec![];
            for (k, scale) in at.scales.iter().enumerate().take(outputs) {
                row.extend(ran.output(i, k)?.into_iter().map(|v| v * scale));
            }
            match row.iter().all(|v| v.is_finite()) {
                true => {
                    // a network without torsions leaves bonds as they are
                    row.resize(6 + turns, 0.0);
                    Ok(Motion::from_row(&row))
                }
                false => Err(Error::value(format!("the score of pose {i} has NaN or infinite values (t = {})", at.t))
                    .hint("look at the places of atoms, and at the weights")),
            }
        };
        (0..poses).map(one).collect()
    }

    /// The scores of poses at a noise.
    ///
    /// # Errors
    /// A complex that lacks what the network is told, and a score that is not finite.
    pub fn eval(&self, complex: &Complex, poses: &[Vec<Vec3>], at: &Level) -> Result<Vec<Motion>> {
        let (ran, outputs) = self.started(complex, poses, at, false)?;
        self.motions(&ran, poses.len(), outputs, at, complex.ligand.torsions.turns().len())
    }

    /// The same, and their pull-back to the poses. What follows from which atoms are near each other, and the time, are held fixed.
    pub fn linearize(&self, complex: &Complex, poses: &[Vec<Vec3>], at: &Level) -> Result<(Vec<Motion>, PosePull)> {
        let (ran, outputs) = self.started(complex, poses, at, true)?;
        let motions = self.motions(&ran, poses.len(), outputs, at, complex.ligand.torsions.turns().len())?;
        let scales = at.scales;
        let pull = move |bars: &[Motion]| {
            let one = |bar: &Motion| -> Vec<Vec<f64>> {
                let parts = [bar.shift.to_vec(), bar.turn.to_vec(), bar.torsions.clone()];
                let scaled = parts.into_iter().zip(scales).map(|(p, s)| p.into_iter().map(|v| v * s).collect());
                scaled.take(outputs).collect()
            };
            ran.pull(&bars.iter().map(one).collect::<Vec<_>>())
        };
        Ok((motions, Box::new(pull)))
    }
}

/// The confidence model.
#[derive(Clone)]
pub struct Confidence(Net);

impl Confidence {
    /// From its graph, as [`Score::new`].
    pub fn new(runner: Runner, facts: Facts, language: bool, hash: String) -> Confidence {
        Confidence(Net { runner, facts: Arc::new(facts), language, hash })
    }

    /// SHA-256 of weights and parameters.
    pub fn hash(&self) -> &str {
        &self.0.hash
    }

    /// What runs it.
    pub fn runner(&self) -> &Runner {
        &self.0.runner
    }

    fn started(&self, complex: &Complex, poses: &[Vec<Vec3>], pulled: bool) -> Result<Ran> {
        self.0.check(complex)?;
        if complex.atoms.is_none() {
            return Err(Error::value("the confidence model looks at the protein's atoms, and the complex has none")
                .hint("the tensors `atom.x`, `atom.pos`, `atom.edge_index`, `atom.residue` of its file hold them"));
        }
        let facts = &self.0.facts;
        let fixed = fixed(complex, self.0.language, true);
        // it sees what comes out: no noise is left
        let reach = facts.reach(0.0);
        let embedding: Vec<f64> = facts.embedding(0.0).into_iter().map(f64::from).collect();
        let moving: Vec<Ports> =
            poses.iter().map(|p| moving(complex, facts.radius, p, &embedding, reach, true)).collect();
        self.0.run(&fixed, &moving, &[CONFIDENCE], pulled)
    }

    /// For each pose the network's numbers, of which the first one ranks: the logit of being within 2 Å.
    pub fn eval(&self, complex: &Complex, poses: &[Vec<Vec3>]) -> Result<Vec<Vec<f64>>> {
        let ran = self.started(complex, poses, false)?;
        let all: Vec<Vec<f64>> = (0..poses.len()).map(|i| ran.output(i, 0)).collect::<Result<_>>()?;
        match all.iter().position(|c| c.iter().any(|v| !v.is_finite())) {
            None => Ok(all),
            Some(i) => Err(Error::value(format!("the confidence of pose {i} is not finite"))),
        }
    }

    /// The same, and their pull-back to the poses.
    pub fn linearize(&self, complex: &Complex, poses: &[Vec<Vec3>]) -> Result<(Vec<Vec<f64>>, ConfidencePull)> {
        let ran = self.started(complex, poses, true)?;
        let all = (0..poses.len()).map(|i| ran.output(i, 0)).collect::<Result<_>>()?;
        let pull = move |bars: &[Vec<f64>]| ran.pull(&bars.iter().map(|b| vec![b.clone()]).collect::<Vec<_>>());
        Ok((all, Box::new(pull)))
    }
}

/// Gradients with respect to poses, from those of confidences.
pub type ConfidencePull = Box<dyn FnOnce(&[Vec<f64>]) -> Result<Poses>>;
