//! A denoiser that counts its evaluations.
use super::{Denoiser, DynDenoiser, Prediction, Pullback, Query};
use crate::Result;
use crate::host::Host;
use crate::noise::Noise;
use candle_core::Tensor;
use std::cell::Cell;

/// What a [`Counting`] denoiser has counted.
#[derive(Default)]
pub struct Counter {
    evals: Cell<u64>,
    linearizations: Cell<u64>,
    samples: Cell<u64>,
}

impl Counter {
    /// Evaluations, with and without a pull-back: the NFE of one sampled batch.
    pub fn nfe(&self) -> u64 {
        self.evals.get() + self.linearizations.get()
    }
    /// Those among them that prepared a pull-back.
    pub fn linearizations(&self) -> u64 {
        self.linearizations.get()
    }
    /// The evaluations' batch sizes, summed.
    pub fn samples(&self) -> u64 {
        self.samples.get()
    }
    /// Starts from zero again.
    pub fn reset(&self) {
        self.evals.set(0);
        self.linearizations.set(0);
        self.samples.set(0);
    }
    fn count(&self, which: &Cell<u64>, q: &Query) {
        which.set(which.get() + 1);
        self.samples.set(self.samples.get() + q.x.dims().first().copied().unwrap_or(0) as u64);
    }
}

/// `inner`, counted. Failed evaluations do not count.
pub struct Counting {
    inner: DynDenoiser,
    counter: Counter,
}

impl Counting {
    /// Counts the evaluations of `inner` that go through the returned denoiser.
    pub fn new(inner: DynDenoiser) -> Self {
        Counting { inner, counter: Counter::default() }
    }
}

impl Denoiser for Counting {
    fn noise(&self) -> &Noise {
        self.inner.noise()
    }
    fn describe(&self) -> String {
        format!("{}, counted", self.inner.describe())
    }
    fn hash(&self) -> Option<String> {
        self.inner.hash()
    }
    fn inner(&self) -> Option<&dyn Denoiser> {
        Some(&*self.inner)
    }
    fn counter(&self) -> Option<&Counter> {
        Some(&self.counter)
    }
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<Tensor> {
        let m = self.inner.eval(host, q, want)?;
        self.counter.count(&self.counter.evals, q);
        Ok(m)
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(Tensor, Pullback)> {
        let m = self.inner.linearize(host, q, want)?;
        self.counter.count(&self.counter.linearizations, q);
        Ok(m)
    }
}
