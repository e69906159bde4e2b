//! A network that is a function of a script, run as a graph where it can be one.
use super::held::Held;
use super::{Refusal, Traced, near, trace};
use crate::denoise::{CLASSES, Cond, FnNetwork, NetPullback, Network};
use crate::files::hash::sha256;
use crate::host::Host;
use crate::nets::network::{STATE, TIME};
use crate::nets::runner::{Given, Runner};
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};
use rhai::Position;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The sizes of one sample, and of its conditions by name.
type Sizes = (Vec<usize>, Vec<(String, Vec<usize>)>);

/// What a function is for inputs of some sizes, while it holds what it held.
struct Found {
    held: String,
    traced: Option<Rc<Traced>>,
    /// Whether it was compared with the function on a real input.
    checked: Cell<bool>,
}

/// A function of a script as a network: traced at the first evaluation (or when it is made, if the shape of a sample is given), checked
/// against the function then, and run as a graph from there on. It is run as it is where it cannot be traced, in other types than f32,
/// and on GPUs.
pub struct TracedNetwork {
    inner: FnNetwork,
    /// Whether the script says what tells it from others.
    said: bool,
    /// What it holds; none where it shall not be traced.
    held: Option<Held>,
    found: RefCell<BTreeMap<Sizes, Rc<Found>>>,
    /// What the graphs were told to be when it was made, with what it held then.
    identity: RefCell<Option<(String, String)>>,
}

impl TracedNetwork {
    /// A function with all that it holds; `said` if the script says what tells it from others.
    pub fn new(inner: FnNetwork, held: Option<Held>, said: bool) -> TracedNetwork {
        TracedNetwork { inner, said, held, found: RefCell::default(), identity: RefCell::default() }
    }

    /// Traces it, if the shape of a sample is known: then it has an identity.
    pub fn prepare(&self, host: &dyn Host) -> Result<()> {
        let Some(shape) = self.inner.shape.clone() else { return Ok(()) };
        let Some(held) = self.held.as_ref().and_then(Held::now) else { return Ok(()) };
        let mut parts = vec![];
        let rows = (self.inner.classes > 0).then(|| vec![(CLASSES.to_string(), vec![self.inner.classes])]);
        for cond in [vec![]].into_iter().chain(rows) {
            // a function that wants a condition fails without; that is for the evaluation to say
            let found = self.find(host, (shape.clone(), cond), false)?;
            parts.push(found.and_then(|f| f.traced.clone()).map_or(String::new(), |t| t.hash.clone()));
        }
        if parts.last().is_some_and(|p| !p.is_empty()) {
            *self.identity.borrow_mut() = Some((held, parts.join(" ")));
        }
        Ok(())
    }

    /// The graph for inputs of these sizes, traced now if need be. Tells what stands in the way of one, once.
    fn find(&self, host: &dyn Host, sizes: Sizes, tell: bool) -> Result<Option<Rc<Found>>> {
        let Some(held) = self.held.as_ref().and_then(Held::now) else { return Ok(None) };
        if let Some(found) = self.found.borrow().get(&sizes).filter(|f| f.held == held) {
            return Ok(Some(found.clone()));
        }
        let (shape, cond) = &sizes;
        let mut arguments = vec![(STATE, shape.clone(), false), (TIME, vec![], false)];
        arguments.extend(cond.iter().map(|(name, c)| (&**name, c.clone(), name == CLASSES)));
        let run = |given: &[Tensor]| {
            let all = cond.iter().map(|c| c.0.clone()).zip(given[2..].iter().cloned());
            let cond = if cond.is_empty() { Cond::None } else { Cond::Named(all.collect()) };
            self.inner.call(host, &given[0], &given[1], &cond)
        };
        let mut traced = match trace::<Error>(&arguments, run) {
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            // the function's own errors come when it is really called
            Err(_) => Err(None),
            Ok(traced) => traced.map_err(Some),
        };
        if self.held.as_ref().and_then(Held::now).as_ref() != Some(&held) {
            traced = Err(Some(Refusal::new("it changes what it captures", Position::NONE)));
        }
        if let (Err(Some(refusal)), true) = (&traced, tell) {
            self.told(refusal);
        }
        let found = Rc::new(Found { held, traced: traced.ok().map(Rc::new), checked: Cell::new(false) });
        self.found.borrow_mut().insert(sizes, found.clone());
        Ok(Some(found))
    }

    fn told(&self, refusal: &Refusal) {
        let at = match refusal.at.is_none() {
            true => String::new(),
            false => format!(" at {}", refusal.at),
        };
        log_refusal(&format!("{}: {}{at}", self.inner.describe(), refusal.why));
    }

    /// The graph for this evaluation, compared with the function at the first one.
    fn graph(&self, host: &dyn Host, x: &Tensor, c: &Tensor, cond: &Cond) -> Result<Option<Runner>> {
        let plain = |t: &Tensor| t.dtype() == DType::F32 && t.device().is_cpu();
        let batch = x.dims().first().copied().unwrap_or(0);
        let own = |name: &str| name != STATE && name != TIME;
        let fits = match cond {
            Cond::None => true,
            Cond::Named(all) => all.iter().all(|(k, t)| own(k) && plain(t) && t.dims().first() == Some(&batch)),
            Cond::Opaque(_) => false,
        };
        if !fits || batch == 0 || !plain(x) || !plain(c) || c.dims() != [batch] {
            return Ok(None);
        }
        let conds = conditions(cond).map(|(k, t)| (k.to_string(), t.dims()[1..].to_vec())).collect();
        let sizes: Sizes = (x.dims()[1..].to_vec(), conds);
        let Some(found) = self.find(host, sizes.clone(), true)? else { return Ok(None) };
        let Some(traced) = found.traced.clone() else { return Ok(None) };
        if !found.checked.replace(true) {
            let wanted = self.inner.forward(host, x, c, cond)?;
            let got = one(traced.runner.forward(&given(x, c, cond))?)?;
            if !near(&got, &wanted)? {
                self.told(&Refusal::new("its graph gives other values", Position::NONE));
                let none = Found { held: found.held.clone(), traced: None, checked: Cell::new(true) };
                self.found.borrow_mut().insert(sizes, Rc::new(none));
                *self.identity.borrow_mut() = None;
                return Ok(None);
            }
        }
        Ok(Some(traced.runner.clone()))
    }
}

/// Tells that a function stays one.
fn log_refusal(why: &str) {
    crate::host::note(&format!("{why}; it runs in the script, one operation after the other"));
}

/// The conditions by name.
fn conditions(cond: &Cond) -> impl Iterator<Item = (&str, &Tensor)> {
    let all = if let Cond::Named(all) = cond { Some(all) } else { None };
    all.into_iter().flatten().map(|(k, t)| (&**k, t))
}

fn given<'a>(x: &'a Tensor, c: &'a Tensor, cond: &'a Cond) -> Vec<(&'a str, &'a Tensor)> {
    [(STATE, x), (TIME, c)].into_iter().chain(conditions(cond)).collect()
}

fn one<T>(mut all: Vec<T>) -> Result<T> {
    all.pop().ok_or_else(|| Error::new(Kind::Internal, "a traced function without a result"))
}

impl Network for TracedNetwork {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn hash(&self) -> Option<String> {
        if self.said {
            return self.inner.hash();
        }
        match &*self.identity.borrow() {
            Some((held, graphs)) if self.held.as_ref().and_then(Held::now).as_ref() == Some(held) => {
                let told = self.inner.describe();
                Some(sha256(format!("traced {graphs} {told}").as_bytes()))
            }
            _ => self.inner.hash(),
        }
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.inner.sample_shape()
    }
    fn classes(&self) -> usize {
        self.inner.classes()
    }
    fn kept(&self, batch: usize) -> Option<u64> {
        let found = self.found.borrow();
        let traced = found.values().find_map(|f| f.traced.clone());
        traced.and_then(|t| t.runner.kept(batch, &[STATE, TIME]).ok()).or_else(|| self.inner.kept(batch))
    }
    fn forward(&self, host: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor> {
        let Some(runner) = self.graph(host, x_in, c_noise, cond)? else {
            return self.inner.forward(host, x_in, c_noise, cond);
        };
        let (x, c) = (x_in.detach(), c_noise.detach());
        let given: &Given = &given(&x, &c, cond);
        one(runner.forward(given)?)
    }
    fn linearize(
        &self,
        host: &dyn Host,
        x_in: &Tensor,
        c_noise: &Tensor,
        cond: &Cond,
    ) -> Result<(Tensor, NetPullback)> {
        let Some(runner) = self.graph(host, x_in, c_noise, cond)? else {
            return self.inner.linearize(host, x_in, c_noise, cond);
        };
        let (mut outs, pull) = runner.linearize(&given(x_in, c_noise, cond), &[STATE, TIME])?;
        let lost = || Error::new(Kind::Internal, "two gradients were expected");
        let pull: NetPullback = Box::new(move |_, cot| {
            let mut grads = pull(&[Some(cot)])?.into_iter();
            Ok((grads.next().ok_or_else(lost)?, grads.next().ok_or_else(lost)?))
        });
        Ok((outs.pop().ok_or_else(lost)?, pull))
    }
}
