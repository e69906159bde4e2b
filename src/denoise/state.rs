//! What a denoiser is given and a plan combines: named parts, each with its geometry.
use crate::geometry::{Motion, Torsions, Vec3};
use crate::tensor::vector::{self, Scalar};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// In what space a part lives, which decides how a plan may combine it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Geometry {
    /// Vectors: any linear combination is one.
    Euclidean,
    /// Angles: a state moves by a sum of tangents, modulo 2π.
    Torus,
    /// Rotations: a state moves by the rotation of a sum of tangents.
    Rotations,
    /// Places of a molecule's atoms [B, N, 3]: a state moves by a sum of tangents [B, 6 + bonds], each a shift, a rotation about the
    /// molecule's centre, and an angle for each bond that turns.
    Pose(Arc<Torsions>),
}

impl Geometry {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Geometry::Euclidean => "Euclidean",
            Geometry::Torus => "a torus",
            Geometry::Rotations => "rotations",
            Geometry::Pose(_) => "poses",
        }
    }

    /// The shape of the tangents at states of this shape: what a denoiser returns.
    pub fn tangents(&self, states: &[usize]) -> Vec<usize> {
        match self {
            Geometry::Pose(torsions) => vec![states.first().copied().unwrap_or(0), 6 + torsions.turns().len()],
            _ => states.to_vec(),
        }
    }
}

/// A part of a state: one row per sample.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name; the only part of an image's state is called "x".
    pub name: &'static str,
    /// [B, …].
    pub value: Tensor,
    /// In what space it lives.
    pub geometry: Geometry,
}

/// The states of a batch of samples.
#[derive(Debug, Clone)]
pub struct State(Vec<Part>);

impl From<Tensor> for State {
    fn from(value: Tensor) -> State {
        State(vec![Part { name: "x", value, geometry: Geometry::Euclidean }])
    }
}

impl From<&Tensor> for State {
    fn from(value: &Tensor) -> State {
        value.clone().into()
    }
}

impl State {
    /// From its parts, of which there is at least one; all have the same number of rows.
    pub fn new(parts: Vec<Part>) -> Result<State> {
        let rows = |p: &Part| p.value.dims().first().copied();
        let Some(first) = parts.first() else { return Err(Error::value("a state needs at least one part")) };
        match parts.iter().find(|p| rows(p).is_none() || rows(p) != rows(first)) {
            None => Ok(State(parts)),
            Some(odd) => {
                let m = format!("the parts `{}` and `{}` of a state have other numbers of rows", first.name, odd.name);
                Err(Error::shape(m, &[first.value.dims(), odd.value.dims()]))
            }
        }
    }

    /// Its parts.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The tensor of a state that is one Euclidean part, as an image's is.
    pub fn tensor(&self) -> Result<&Tensor> {
        match &self.0[..] {
            [Part { value, geometry: Geometry::Euclidean, .. }] => Ok(value),
            parts => {
                let all: Vec<String> = parts.iter().map(|p| format!("`{}` ({})", p.name, p.geometry.name())).collect();
                Err(Error::value(format!("expected states of one Euclidean part, got {}", all.join(", "))))
            }
        }
    }

    /// The tensor of a state that is one Euclidean part.
    pub fn into_tensor(self) -> Result<Tensor> {
        self.tensor().cloned()
    }

    /// How many samples there are.
    pub fn batch(&self) -> usize {
        self.0.first().and_then(|p| p.value.dims().first().copied()).unwrap_or(0)
    }

    /// The same parts with other values.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<State> {
        let part = |p: &Part| Ok(Part { value: f(&p.value)?, ..p.clone() });
        Ok(State(self.0.iter().map(part).collect::<Result<_>>()?))
    }

    /// Without candle's graph.
    pub fn detach(&self) -> State {
        State(self.0.iter().map(|p| Part { value: p.value.detach(), ..p.clone() }).collect())
    }

    /// Samples `start..start + len`.
    pub fn narrow(&self, start: usize, len: usize) -> Result<State> {
        self.map(|t| Ok(t.narrow(0, start, len)?))
    }

    /// The samples of all, in order.
    pub fn cat(all: &[&State]) -> Result<State> {
        let Some(first) = all.first() else { return Err(Error::value("no states to join")) };
        all.iter().try_for_each(|s| first.same(s))?;
        let part = |(i, p): (usize, &Part)| {
            let values: Vec<&Tensor> = all.iter().map(|s| &s.0[i].value).collect();
            Ok(Part { value: Tensor::cat(&values, 0)?, ..p.clone() })
        };
        Ok(State(first.0.iter().enumerate().map(part).collect::<Result<_>>()?))
    }

    /// The values of all parts.
    pub fn values(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter().map(|p| &p.value)
    }

    /// The same parts with these values, one each.
    pub fn with_values(&self, values: impl IntoIterator<Item = Tensor>) -> State {
        State(self.0.iter().zip(values).map(|(p, value)| Part { value, ..p.clone() }).collect())
    }

    /// Whether a part is curved, so that what it moves by is of another kind than itself.
    pub fn is_curved(&self) -> bool {
        self.0.iter().any(|p| p.geometry != Geometry::Euclidean)
    }

    fn same(&self, other: &State) -> Result<()> {
        let alike = |(a, b): (&Part, &Part)| (a.name, &a.geometry) == (b.name, &b.geometry);
        match self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(alike) {
            true => Ok(()),
            false => Err(Error::new(Kind::Internal, "states of different parts were combined")),
        }
    }

    /// Σ c · v, with the shapes, dtypes and devices of `like`; in a curved part one state, moved by Σ c · v over tangents.
    ///
    /// Fails in a part whose moves nothing implements yet.
    pub fn combine(terms: &[(f64, &State)], like: &State) -> Result<State> {
        terms.iter().try_for_each(|(_, s)| like.same(s))?;
        let part = |(i, p): (usize, &Part)| {
            let terms: Vec<(f64, &Tensor)> = terms.iter().map(|(c, s)| (*c, &s.0[i].value)).collect();
            let value = match &p.geometry {
                Geometry::Euclidean => vector::combine(&terms, &p.value)?,
                Geometry::Pose(torsions) => poses::moved(torsions, &poses::split(p.name, &terms)?)?,
                Geometry::Torus | Geometry::Rotations => {
                    let m = format!("states with a part `{}` on {} cannot be solved yet", p.name, p.geometry.name());
                    return Err(Error::value(m));
                }
            };
            Ok(Part { value, ..p.clone() })
        };
        Ok(State(like.0.iter().enumerate().map(part).collect::<Result<_>>()?))
    }

    /// Σ c · v of cotangents, which are vectors in every part.
    pub fn sum(terms: &[(f64, &State)], like: &State) -> Result<State> {
        terms.iter().try_for_each(|(_, s)| like.same(s))?;
        let part = |(i, p): (usize, &Part)| {
            let terms: Vec<(f64, &Tensor)> = terms.iter().map(|(c, s)| (*c, &s.0[i].value)).collect();
            Ok(Part { value: vector::combine(&terms, &p.value)?, ..p.clone() })
        };
        Ok(State(like.0.iter().enumerate().map(part).collect::<Result<_>>()?))
    }

    /// What a cotangent of [`State::combine`] is for the states among its terms, and what for the tangents; each is to be multiplied by
    /// the term's coefficient. Where no part is curved, both are the cotangent itself.
    pub fn pull(terms: &[(f64, &State)], cot: &State) -> Result<[State; 2]> {
        let mut both = [cot.clone(), cot.clone()];
        for (i, p) in cot.0.iter().enumerate() {
            if let Geometry::Pose(torsions) = &p.geometry {
                let terms: Vec<(f64, &Tensor)> = terms.iter().map(|(c, s)| (*c, &s.0[i].value)).collect();
                let pulled = poses::pulled(torsions, &poses::split(p.name, &terms)?, &p.value)?;
                both.iter_mut().zip(pulled).for_each(|(to, value)| to.0[i].value = value);
            }
        }
        Ok(both)
    }

    /// ⟨a, b⟩ in f64, a number for each part, which are to be added: of a cotangent and what a coefficient multiplies. Poses are not
    /// multiplied by theirs, which is 1.
    pub fn dot(&self, other: &State) -> Result<Vec<Scalar>> {
        self.same(other)?;
        let one = |(a, b): (&Part, &Part)| match a.geometry {
            Geometry::Pose(_) if b.value.rank() == 3 => Ok(Scalar::Known(0.0)),
            _ => vector::dot(&a.value, &b.value),
        };
        self.0.iter().zip(&other.0).map(one).collect()
    }

    /// For each part 0 if all its elements are finite, anything else (NaN) if not.
    pub fn oddities(&self) -> Result<Vec<Scalar>> {
        self.values().map(vector::oddity).collect()
    }
}

/// How poses move.
mod poses {
    use super::*;

    /// A pose and the tangent that it moves by, in rows.
    pub struct Move {
        like: Tensor,
        poses: Vec<Vec<Vec3>>,
        motions: Vec<Motion>,
        width: usize,
    }

    /// The numbers of a tensor, in f64.
    fn numbers(t: &Tensor) -> Result<Vec<f64>> {
        Ok(t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    }

    fn points(row: &[f64]) -> Vec<Vec3> {
        row.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect()
    }

    fn like(values: Vec<f64>, dims: &[usize], like: &Tensor) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?)
    }

    /// The one pose among the terms, and the sum of the tangents.
    pub fn split(name: &str, terms: &[(f64, &Tensor)]) -> Result<Move> {
        let wanted: Vec<_> = terms.iter().filter(|(c, t)| t.rank() == 3 && *c != 0.0).collect();
        let [(1.0, at)] = wanted[..] else {
            let m = format!("the part `{name}` is a pose, which moves by tangents: it cannot be a mixture of poses");
            return Err(Error::value(m));
        };
        let atoms = at.dim(1)?;
        let poses: Vec<Vec<Vec3>> = numbers(at)?.chunks_exact((3 * atoms).max(1)).map(points).collect();
        let mut sum: Vec<f64> = vec![];
        for (c, t) in terms.iter().filter(|(_, t)| t.rank() == 2) {
            let v = numbers(t)?;
            sum.resize(v.len(), 0.0);
            sum.iter_mut().zip(v).for_each(|(s, v)| *s += c * v);
        }
        let width = sum.len() / poses.len().max(1);
        let motions = match width {
            0 => vec![Motion::default(); poses.len()],
            _ => sum.chunks_exact(width).map(Motion::from_row).collect(),
        };
        Ok(Move { like: (*at).clone(), poses, motions, width })
    }

    /// The moved poses.
    pub fn moved(torsions: &Torsions, m: &Move) -> Result<Tensor> {
        let each = m.poses.iter().zip(&m.motions);
        let out = each.flat_map(|(pose, motion)| motion.apply(torsions, pose).positions()).flatten().collect();
        like(out, m.like.dims(), &m.like)
    }

    /// The gradients with respect to the pose and to the tangent.
    pub fn pulled(torsions: &Torsions, m: &Move, cot: &Tensor) -> Result<[Tensor; 2]> {
        let (mut at, mut by) = (vec![], vec![]);
        let atoms = m.like.dim(1)?;
        let cots = numbers(cot)?;
        let each = m.poses.iter().zip(&m.motions).zip(cots.chunks_exact((3 * atoms).max(1)));
        for ((pose, motion), cot) in each {
            let (x, v) = motion.apply(torsions, pose).pull(torsions, motion, &points(cot));
            at.extend(x.into_iter().flatten());
            by.extend(v.row());
        }
        let tangents = if m.width == 0 {
            Tensor::zeros((m.poses.len(), 0), cot.dtype(), cot.device())?
        } else {
            like(by, &[m.poses.len(), m.width], cot)?
        };
        Ok([like(at, m.like.dims(), cot)?, tangents])
    }
}
