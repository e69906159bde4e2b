//! What a denoiser is given and a plan combines: named parts, each with its geometry.
use crate::tensor::vector::{self, Scalar};
use crate::{Error, Kind, Result};
use candle_core::Tensor;

/// In what space a part lives, which decides how a plan may combine it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    /// Vectors: any linear combination is one.
    Euclidean,
    /// Angles: a state moves by a sum of tangents, modulo 2π.
    Torus,
    /// Rotations: a state moves by the rotation of a sum of tangents.
    Rotations,
}

impl Geometry {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Geometry::Euclidean => "Euclidean",
            Geometry::Torus => "a torus",
            Geometry::Rotations => "rotations",
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

    fn same(&self, other: &State) -> Result<()> {
        let alike = |(a, b): (&Part, &Part)| (a.name, a.geometry) == (b.name, b.geometry);
        match self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(alike) {
            true => Ok(()),
            false => Err(Error::new(Kind::Internal, "states of different parts were combined")),
        }
    }

    /// Σ c · v, with the shapes, dtypes and devices of `like`, in Euclidean parts.
    ///
    /// Fails in a part with another geometry, whose moves nothing implements yet.
    pub fn combine(terms: &[(f64, &State)], like: &State) -> Result<State> {
        terms.iter().try_for_each(|(_, s)| like.same(s))?;
        let part = |(i, p): (usize, &Part)| {
            if p.geometry != Geometry::Euclidean {
                let m = format!("states with a part `{}` on {} cannot be solved yet", p.name, p.geometry.name());
                return Err(Error::value(m));
            }
            let terms: Vec<(f64, &Tensor)> = terms.iter().map(|(c, s)| (*c, &s.0[i].value)).collect();
            Ok(Part { value: vector::combine(&terms, &p.value)?, ..p.clone() })
        };
        Ok(State(like.0.iter().enumerate().map(part).collect::<Result<_>>()?))
    }

    /// ⟨a, b⟩ in f64, a number for each part, which are to be added.
    pub fn dot(&self, other: &State) -> Result<Vec<Scalar>> {
        self.same(other)?;
        self.0.iter().zip(&other.0).map(|(a, b)| vector::dot(&a.value, &b.value)).collect()
    }

    /// For each part 0 if all its elements are finite, anything else (NaN) if not.
    pub fn oddities(&self) -> Result<Vec<Scalar>> {
        self.values().map(vector::oddity).collect()
    }
}
