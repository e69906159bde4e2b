//! Denoisers: the trait that solvers evaluate, adapters for what a network predicts, guidance, closed forms.
use crate::host::Host;
use crate::noise::Noise;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;

mod at_level;
mod closed;
mod counting;
mod from_fn;
mod gaussian;
mod guidance;
mod labels;
pub(crate) mod precond;
pub(crate) mod query;
mod reparam;
mod state;
mod threshold;

pub use at_level::{at_level, hidden_at_level};
pub use closed::{Empirical, Mixture};
pub use counting::{Counter, Counting};
pub use from_fn::FnNetwork;
pub use gaussian::Gaussian;
pub use guidance::Guided;
pub use labels::{draw_labels, one_hot};
pub use precond::{Preconditioned, Predicts, TimeInput};
pub use reparam::Reparam;
pub use state::{Geometry, Part, State};
pub use threshold::{Rule, Thresholded};

/// What an evaluation should return: the data prediction x̂_0 or the noise prediction ε̂, at the same (x, t).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prediction {
    /// x̂_0(x, t), the posterior mean of the data.
    Data,
    /// ε̂(x, t) = (x − α x̂_0) / σ.
    Noise,
}

/// What a denoiser is conditioned on.
#[derive(Clone, Default)]
pub enum Cond {
    /// Nothing: a class-conditional network gets a zero row ("no class").
    #[default]
    None,
    /// Tensors by the names of the network's conditions ("classes", "text", …), each with one row per sample.
    Named(BTreeMap<String, Tensor>),
    /// A value of the script layer's own, handed through unchanged to a script's network.
    Opaque(Rc<dyn Any>),
}

/// The name of the condition that is a row for each class.
pub const CLASSES: &str = "classes";

impl Cond {
    /// One row per sample: [B, classes] one-hot rows (or soft ones), or any tensor that a script's network takes.
    pub fn classes(rows: Tensor) -> Cond {
        Cond::Named([(CLASSES.to_string(), rows)].into())
    }
    /// The rows of classes, where these are what is given.
    pub fn rows(&self) -> Option<&Tensor> {
        match self {
            Cond::Named(all) => all.get(CLASSES).filter(|_| all.len() == 1),
            _ => None,
        }
    }
    /// The same with each tensor changed.
    pub fn map(&self, f: impl Fn(&str, &Tensor) -> Result<Tensor>) -> Result<Cond> {
        Ok(match self {
            Cond::Named(all) => {
                let each = all.iter().map(|(name, t)| Ok((name.clone(), f(name, t)?)));
                Cond::Named(each.collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }
    /// The conditions of samples `start..start + len`.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Cond> {
        self.map(|_, t| Ok(t.narrow(0, start, len)?))
    }
}

/// One evaluation: states `x` of B samples at times `t` (one for all, or one per sample) under `cond`.
pub struct Query<'a> {
    /// The noisy states, in the noise schedule's own scaling α x_0 + σ ε; floating point, any device.
    pub x: &'a State,
    /// Times in the noise schedule's own units: length 1 (for all samples) or B.
    pub t: &'a [f64],
    /// Conditions for these B samples.
    pub cond: &'a Cond,
}

/// The gradient of an evaluation with respect to its inputs.
pub struct InputGrad {
    /// With respect to x, of x's parts, shapes, dtypes and devices; tangents where a part is curved.
    pub x: State,
    /// With respect to t, of t's length.
    pub t: Vec<f64>,
}

/// The pull-back of one evaluation: takes the cotangent of the prediction, may be called once.
pub type Pullback = Box<dyn FnOnce(&dyn Host, &State) -> Result<InputGrad>>;

/// A pretrained (frozen) denoiser. Results have x's parts, shapes, dtypes and devices, whatever precision the network runs in,
/// and are detached from candle's graph: gradients come from [`Denoiser::linearize`] alone.
pub trait Denoiser {
    /// The noise schedule in which x and t are expressed.
    fn noise(&self) -> &Noise;
    /// One line for printing (`"EDM DDPM++ 28×28×1, 10 classes"`).
    fn describe(&self) -> String;
    /// A hash of all that determines its outputs (weights and configuration), for results and caches. `None` when it
    /// cannot be known (a script's closure): such a denoiser is not cached.
    fn hash(&self) -> Option<String>;
    /// The denoiser around which an adapter is built: it answers what the adapter leaves as it is.
    fn inner(&self) -> Option<&dyn Denoiser> {
        None
    }
    /// The shape of one sample without the batch dimension, where it is fixed.
    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.inner()?.sample_shape()
    }
    /// The number of classes for one-hot condition rows; 0 when not class-conditional.
    fn classes(&self) -> usize {
        self.inner().map_or(0, Denoiser::classes)
    }
    /// The names of the conditions that it takes, where it takes some by name.
    fn conditions(&self) -> Vec<String> {
        self.inner().map_or_else(Vec::new, Denoiser::conditions)
    }
    /// How many network runs one evaluation costs (guidance: 2). NFE counts it as one.
    fn runs_per_eval(&self) -> usize {
        self.inner().map_or(1, Denoiser::runs_per_eval)
    }
    /// The only noise levels σ/α that the network was trained at, falling, where there are such.
    fn known_levels(&self) -> Option<&[f64]> {
        self.inner()?.known_levels()
    }
    /// The counter of a counted denoiser, also through the adapters around it.
    fn counter(&self) -> Option<&Counter> {
        self.inner()?.counter()
    }
    /// The bytes that the pull-back of one evaluation of `batch` samples holds, where they are known: a script's network knows them
    /// when it was linearized once.
    fn kept(&self, batch: usize) -> Option<u64> {
        self.inner()?.kept(batch)
    }
    /// The names of the places in its network whose values [`Denoiser::hidden`] gives, in the order in which they are computed.
    fn places(&self) -> Vec<String> {
        self.inner().map_or_else(Vec::new, Denoiser::places)
    }
    /// What the network computes at a place on its way, without gradient: features of the state. Of a guided denoiser, under the
    /// condition.
    ///
    /// # Errors
    /// The network has no such place, or none at all.
    fn hidden(&self, host: &dyn Host, q: &Query, place: &str) -> Result<Tensor> {
        match self.inner() {
            Some(inner) => inner.hidden(host, q, place),
            None => Err(no_places(&self.describe())),
        }
    }
    /// Evaluates.
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<State>;
    /// Evaluates and keeps what a pull-back needs (a network's activations).
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)>;
}

fn no_places(network: &str) -> Error {
    let e = Error::new(Kind::Name, format!("{network} has no places with names"));
    e.hint("networks that are loaded have; what is a function of the script can give its features itself")
}

/// A denoiser shared by scripts, adapters and solvers.
pub type DynDenoiser = Rc<dyn Denoiser>;

/// A network as it was trained: F(x_in, c_noise, cond), before any interpretation of what it predicts. Implementations run
/// in their own dtype (cast x_in on entry), and must be differentiable by candle in `x_in` and `c_noise` when asked through
/// [`Network::linearize`]'s default.
pub trait Network {
    /// One line for printing.
    fn describe(&self) -> String;
    /// A hash of weights and configuration; `None` when unknowable.
    fn hash(&self) -> Option<String>;
    /// The shape of one sample, where it is fixed.
    fn sample_shape(&self) -> Option<Vec<usize>>;
    /// The number of classes; 0 when not class-conditional.
    fn classes(&self) -> usize;
    /// The names of the conditions that it takes, where it takes some by name.
    fn conditions(&self) -> Vec<String> {
        vec![]
    }
    /// The bytes that the pull-back of one evaluation of `batch` samples holds, where they are known.
    fn kept(&self, _batch: usize) -> Option<u64> {
        None
    }
    /// The names of the places whose values [`Network::hidden`] gives.
    fn places(&self) -> Vec<String> {
        vec![]
    }
    /// What is computed at a place on the way to F.
    ///
    /// # Errors
    /// There is no such place.
    fn hidden(&self, _: &dyn Host, _x_in: &Tensor, _c_noise: &Tensor, _: &Cond, _place: &str) -> Result<Tensor> {
        Err(no_places(&self.describe()))
    }
    /// F(x_in [B, …], c_noise [B], cond): same shape as x_in.
    fn forward(&self, host: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor>;
    /// Forward with a pull-back that gives (x̄_in, c̄_noise). The default lets candle differentiate `forward`; networks that are
    /// script closures override it.
    fn linearize(
        &self,
        host: &dyn Host,
        x_in: &Tensor,
        c_noise: &Tensor,
        cond: &Cond,
    ) -> Result<(Tensor, NetPullback)> {
        let x = candle_core::Var::from_tensor(&x_in.detach())?;
        let c = candle_core::Var::from_tensor(&c_noise.detach())?;
        let y = self.forward(host, x.as_tensor(), c.as_tensor(), cond)?;
        let out = y.detach();
        let pull: NetPullback = Box::new(move |_, cot| {
            let grads = (&y * cot.to_dtype(y.dtype())?)?.sum_all()?.backward()?;
            let of = |v: &candle_core::Var| match grads.get(v.as_tensor()) {
                Some(g) => Ok(g.clone()),
                None => v.zeros_like(),
            };
            Ok((of(&x)?, of(&c)?))
        });
        Ok((out, pull))
    }
}

/// The pull-back of a network: cotangent of F to (x̄_in, c̄_noise).
pub type NetPullback = Box<dyn FnOnce(&dyn Host, &Tensor) -> Result<(Tensor, Tensor)>>;
