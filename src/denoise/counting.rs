//! A denoiser that counts its evaluations.
use super::{Denoiser, DynDenoiser, Prediction, Pullback, Query, State};
use crate::Result;
use crate::host::Host;
use crate::noise::Noise;
use std::cell::Cell;
use std::rc::Rc;

/// What a [`Counting`] denoiser has counted.
#[derive(Default)]
pub struct Counter {
    evals: Cell<u64>,
    linearizations: Cell<u64>,
    samples: Cell<u64>,
    pulls: Cell<u64>,
    pulled: Cell<u64>,
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
    /// Pull-backs that were called.
    pub fn pulls(&self) -> u64 {
        self.pulls.get()
    }
    /// The pull-backs' batch sizes, summed.
    pub fn pulled(&self) -> u64 {
        self.pulled.get()
    }
    /// Starts from zero again.
    pub fn reset(&self) {
        for cell in [&self.evals, &self.linearizations, &self.samples, &self.pulls, &self.pulled] {
            cell.set(0);
        }
    }
}

/// One more call, of a batch of `rows`.
fn count(calls: &Cell<u64>, samples: &Cell<u64>, rows: u64) {
    calls.set(calls.get() + 1);
    samples.set(samples.get() + rows);
}

fn rows(q: &Query) -> u64 {
    q.x.batch() as u64
}

/// `inner`, counted. Failed evaluations do not count.
pub struct Counting {
    inner: DynDenoiser,
    /// Shared with the pull-backs.
    counter: Rc<Counter>,
}

impl Counting {
    /// Counts the evaluations of `inner` that go through the returned denoiser.
    pub fn new(inner: DynDenoiser) -> Self {
        Counting { inner, counter: Rc::default() }
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
    fn eval(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<State> {
        let m = self.inner.eval(host, q, want)?;
        count(&self.counter.evals, &self.counter.samples, rows(q));
        Ok(m)
    }
    fn linearize(&self, host: &dyn Host, q: &Query, want: Prediction) -> Result<(State, Pullback)> {
        let (m, inner) = self.inner.linearize(host, q, want)?;
        count(&self.counter.linearizations, &self.counter.samples, rows(q));
        let (counter, rows) = (self.counter.clone(), rows(q));
        let pull: Pullback = Box::new(move |host, cot| {
            let grad = inner(host, cot)?;
            count(&counter.pulls, &counter.pulled, rows);
            Ok(grad)
        });
        Ok((m, pull))
    }
}
