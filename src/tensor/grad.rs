//! Two tapes, one [`grad`]. Tensor expressions are differentiated by candle. What candle cannot express (a sample, a script
//! closure, host-side scalar work) is recorded here as a *leaf with a pull-back*: [`record`] returns tensors that candle
//! sees as variables behind an identity operation, and [`grad`] alternates between candle's backward pass down to such
//! leaves and their pull-backs, newest first.
//!
//! A record lives exactly as long as some tensor that depends on it: the identity operation carries a guard whose
//! drop removes the record.
use super::aside;
use crate::host::{Host, check_cancelled};
use crate::{Error, Kind, Result};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Storage, Tensor, TensorId, Var};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes the cotangents of the recorded outputs (`None`: not reached) and returns one for each input (`None`: zero).
pub type RecordPullback = Box<dyn Fn(&dyn Host, &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>>>;

struct Record {
    inputs: Vec<Tensor>,
    /// The variables behind the outputs, alive in the registry as long as any output is.
    leaves: Vec<Var>,
    pullback: RecordPullback,
}

thread_local! {
    /// Records by creation number. Entries leave when the last guard of a record drops.
    static RECORDS: RefCell<BTreeMap<u64, Rc<Record>>> = const { RefCell::new(BTreeMap::new()) };
    static LIVE: RefCell<HashMap<u64, usize>> = RefCell::new(HashMap::new());
    static NO_GRAD: Cell<bool> = const { Cell::new(false) };
}
static NEXT: AtomicU64 = AtomicU64::new(0);
/// Records whose guards were dropped on another thread than their own.
static DROPPED: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Identity on a record's leaf; its drop releases the record.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        if !release(self.0)
            && let Ok(mut dropped) = DROPPED.lock()
        {
            dropped.push(self.0);
        }
    }
}

/// Counts a guard of record `id` down; false where this thread has no such record.
fn release(id: u64) -> bool {
    // `try_with`: at thread exit the registry may already be gone
    let last = LIVE.try_with(|l| {
        let mut l = l.borrow_mut();
        match l.get_mut(&id) {
            Some(n) if *n > 1 => {
                *n -= 1;
                Some(false)
            }
            Some(_) => {
                l.remove(&id);
                Some(true)
            }
            None => None,
        }
    });
    if let Ok(Some(true)) = last {
        // dropped outside the borrow: a record's inputs may hold the last guard of another record
        let record = RECORDS.try_with(|r| r.borrow_mut().remove(&id));
        drop(record);
    }
    !matches!(last, Ok(None))
}

/// Releases the records of this thread whose guards another thread dropped: what Ctrl-C left behind on `aside`'s.
fn sweep() {
    let ours = match DROPPED.lock() {
        Ok(mut dropped) => {
            let of = |id: &u64| LIVE.with(|l| l.borrow().contains_key(id));
            dropped.extract_if(.., |id| of(id)).collect::<Vec<_>>()
        }
        Err(_) => vec![],
    };
    ours.into_iter().for_each(|id| {
        release(id);
    });
}

impl CustomOp1 for Guard {
    fn name(&self) -> &'static str {
        "recorded"
    }
    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((s.try_clone(l)?, l.shape().clone()))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s: &candle_core::CudaStorage,
        l: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        Ok((s.try_clone(l)?, l.shape().clone()))
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(g.clone()))
    }
}

/// Whether gradients are being recorded (false inside [`no_grad`]).
pub fn enabled() -> bool {
    !NO_GRAD.get()
}

/// Whether gradients flow through `t`.
pub fn is_tracked(t: &Tensor) -> bool {
    enabled() && (t.is_variable() || t.track_op())
}

/// Puts the flag back when dropped.
struct Restore(bool);
impl Drop for Restore {
    fn drop(&mut self) {
        NO_GRAD.set(self.0);
    }
}

/// Runs `f` without recording gradients (restored also when `f` fails).
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    let _restore = Restore(NO_GRAD.replace(true));
    f()
}

/// Runs `f` recording gradients, also inside [`no_grad`] (restored also when `f` fails). Pull-backs run so: they may
/// differentiate inside.
pub fn with_grad<T>(f: impl FnOnce() -> T) -> T {
    let _restore = Restore(NO_GRAD.replace(false));
    f()
}

/// A fresh variable with the value of `t`: what `grad` can be taken with respect to.
pub fn variable(t: &Tensor) -> Result<Tensor> {
    Ok(Var::from_tensor(&t.detach())?.into_inner())
}

/// `t` as it is while gradients are recorded, detached inside [`no_grad`]: what a script's operation returns.
pub fn result(t: Tensor) -> Tensor {
    if enabled() || !t.track_op() || t.is_variable() { t } else { t.detach() }
}

/// Turns `outputs`, computed outside candle's graph from `inputs`, into tensors through which [`grad`] flows by way of
/// `pullback`. Returns the outputs (detached) when no input is tracked.
pub fn record(outputs: Vec<Tensor>, inputs: &[Tensor], pullback: RecordPullback) -> Result<Vec<Tensor>> {
    if !inputs.iter().any(is_tracked) {
        return Ok(outputs.iter().map(Tensor::detach).collect());
    }
    sweep();
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let leaves =
        outputs.iter().map(|o| Ok(Var::from_tensor(&o.detach().contiguous()?)?)).collect::<Result<Vec<_>>>()?;
    let guarded = leaves.iter().map(|v| guard(v.as_tensor(), id)).collect::<Result<Vec<_>>>()?;
    let record = Rc::new(Record { inputs: inputs.to_vec(), leaves, pullback });
    RECORDS.with(|r| r.borrow_mut().insert(id, record));
    Ok(guarded)
}

/// The leaf of record `id` behind one more guard, which keeps the record alive.
fn guard(leaf: &Tensor, id: u64) -> Result<Tensor> {
    LIVE.with(|l| *l.borrow_mut().entry(id).or_insert(0) += 1);
    // from here on the guard's drop counts down, also when candle fails
    Ok(leaf.apply_op1(Guard(id))?)
}

/// How many records are alive (for tests of leaks).
pub fn live_records() -> usize {
    sweep();
    RECORDS.with(|r| r.borrow().len())
}

/// The bytes that the graph behind `t` holds for its gradient: each storage once, records not counted.
pub fn held_bytes(t: &Tensor) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for node in t.sorted_nodes() {
        let (storage, _) = node.storage_and_layout();
        if seen.insert(std::ptr::from_ref(&*storage)) {
            let len = match &*storage {
                Storage::Cpu(s) if super::custom::len(s) != usize::MAX => super::custom::len(s),
                _ => node.elem_count(),
            };
            bytes += (len * node.dtype().size_in_bytes()) as u64;
        }
    }
    bytes
}

/// The number that the next record will get: what is made from now on has this number or a higher one.
fn mark() -> u64 {
    NEXT.load(Ordering::Relaxed)
}

/// Gradients by the id of the variable (or recorded leaf) that they belong to.
struct Acc {
    grads: HashMap<TensorId, Tensor>,
    /// What anyone will ask for; the rest (candle also differentiates constants) is let go at once.
    wanted: HashSet<TensorId>,
}

impl Acc {
    fn add(&mut self, id: TensorId, g: Tensor) -> Result<()> {
        if !self.wanted.contains(&id) {
            return Ok(());
        }
        let sum = match self.grads.remove(&id) {
            Some(old) => (old + g)?,
            None => g,
        };
        self.grads.insert(id, sum);
        Ok(())
    }
    /// Adds ⟨cot, t⟩'s gradients, for t anywhere in candle's graph.
    fn pull(&mut self, t: &Tensor, cot: &Tensor) -> Result<()> {
        if !t.track_op() || !t.dtype().is_float() {
            return Ok(());
        }
        let cot = cot.detach().to_dtype(t.dtype())?.to_device(t.device())?;
        if t.is_variable() {
            return self.add(t.id(), cot);
        }
        // candle differentiates a scalar from a one on: this scalar's gradient is the cotangent, whatever its value
        let (t, load) = (t.clone(), if t.device().is_cpu() { usize::MAX } else { 0 });
        let grads = aside::run(load, move || {
            let zero = Tensor::zeros((), t.dtype(), t.device())?;
            Ok(with_grad(|| super::custom::op1("seed", &t, zero, move |_, _, _| Ok(cot.clone())))?.backward()?)
        })?;
        let ids: Vec<TensorId> = grads.get_ids().copied().filter(|id| self.wanted.contains(id)).collect();
        for id in ids {
            if let Some(g) = grads.get_id(id) {
                self.add(id, g.detach())?;
            }
        }
        Ok(())
    }
}

fn check_cotangent(what: &str, of: &Tensor, cot: &Tensor) -> Result<()> {
    if of.dims() == cot.dims() {
        return Ok(());
    }
    let m = format!("{what}: a cotangent of shape {:?} does not fit a value of shape {:?}", cot.dims(), of.dims());
    Err(Error::shape(m, &[of.dims(), cot.dims()]))
}

/// The vector-Jacobian product Σ ⟨cot_k, output_k⟩ differentiated with respect to `vars`; zeros where nothing flows.
pub fn vjp(host: &dyn Host, outputs: &[(Tensor, Tensor)], vars: &[Tensor]) -> Result<Vec<Tensor>> {
    vjp_since(host, outputs, vars, 0)
}

/// [`vjp`] that pulls through records from number `since` on; older ones end the walk.
fn vjp_since(host: &dyn Host, outputs: &[(Tensor, Tensor)], vars: &[Tensor], since: u64) -> Result<Vec<Tensor>> {
    if let Some(v) = vars.iter().find(|v| !v.is_variable()) {
        let m = format!("grad: the tensor of shape {:?} is not a variable", v.dims());
        let e = Error::new(Kind::Value, m).shapes(&[v.dims()]);
        return Err(e.hint("make one with `let v = variable(t)` and compute the loss from that same `v`"));
    }
    let (ids, leaves): (Vec<u64>, Vec<TensorId>) = RECORDS.with(|r| {
        let r = r.borrow();
        let leaves = r.range(since..).flat_map(|(_, r)| r.leaves.iter().map(|l| l.as_tensor().id())).collect();
        // newest first: a record's outputs can only feed records made later
        (r.range(since..).rev().map(|(id, _)| *id).collect(), leaves)
    });
    let wanted = leaves.into_iter().chain(vars.iter().map(|v| v.id())).collect();
    let mut acc = Acc { grads: HashMap::new(), wanted };
    for (out, cot) in outputs {
        check_cotangent("vjp", out, cot)?;
        acc.pull(out, cot)?;
    }
    for id in ids {
        let Some(rec) = RECORDS.with(|r| r.borrow().get(&id).cloned()) else { continue };
        let cots: Vec<Option<Tensor>> =
            rec.leaves.iter().map(|l| acc.grads.get(&l.as_tensor().id()).cloned()).collect();
        if cots.iter().all(Option::is_none) {
            continue;
        }
        check_cancelled()?;
        let back = with_grad(|| (rec.pullback)(host, &cots))?;
        if back.len() != rec.inputs.len() {
            let m = format!("a pull-back returned {} cotangents for {} inputs", back.len(), rec.inputs.len());
            return Err(Error::new(Kind::Internal, m));
        }
        for (input, cot) in rec.inputs.iter().zip(back) {
            if let Some(cot) = cot {
                check_cotangent("a pull-back", input, &cot)?;
                acc.pull(input, &cot)?;
            }
        }
    }
    vars.iter()
        .map(|v| match acc.grads.get(&v.id()) {
            Some(g) => Ok(g.reshape(v.shape())?.to_dtype(v.dtype())?.detach()),
            None => Ok(v.zeros_like()?.detach()),
        })
        .collect()
}

/// The gradient of the scalar `loss` with respect to `vars`.
pub fn grad(host: &dyn Host, loss: &Tensor, vars: &[Tensor]) -> Result<Vec<Tensor>> {
    if loss.elem_count() != 1 {
        let e = Error::shape("grad: the loss must be a scalar", &[loss.dims()]);
        return Err(e.hint("reduce it first, e.g. `mean(loss)`, or use `vjp`"));
    }
    vjp(host, &[(loss.clone(), loss.ones_like()?.detach())], vars)
}

/// What [`checkpoint`] runs, and runs again in the backward pass.
pub type Block = Rc<dyn Fn(&dyn Host, &[Tensor]) -> Result<Vec<Tensor>>>;

/// Runs `f` on `inputs` and keeps none of its intermediate results: the backward pass runs it again. Gradients flow to
/// the inputs and to every variable (or tensor computed from one) that `f` uses besides. `f` must do the same both
/// times: a second run with another result is an error.
pub fn checkpoint(host: &dyn Host, f: Block, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    if !enabled() {
        return Ok(f(host, inputs)?.iter().map(Tensor::detach).collect());
    }
    let tracked: Vec<bool> = inputs.iter().map(|x| x.track_op() && x.dtype().is_float()).collect();
    let again: Vec<Tensor> = inputs.iter().map(Tensor::detach).collect();
    let fresh = move || {
        let one = |(x, t): (&Tensor, &bool)| if *t { variable(x) } else { Ok(x.clone()) };
        again.iter().zip(&tracked).map(one).collect::<Result<Vec<_>>>()
    };
    let since = mark();
    let vars = fresh()?;
    let outs = f(host, &vars)?;
    let (captured, held) = captured(&outs, &vars, since)?;
    let outs: Vec<Tensor> = outs.iter().map(Tensor::detach).collect();
    let kept = outs.clone();
    let pullback: RecordPullback = Box::new(move |host, cots| {
        let since = mark();
        let vars = fresh()?;
        let outs = f(host, &vars)?;
        if outs.len() != kept.len() || !outs.iter().zip(&kept).all(|(a, b)| same_bits(a, b)) {
            let e = Error::value("checkpoint: the function gave another result when the backward pass ran it again");
            return Err(e.hint("it must depend on its arguments and on variables that do not change in between"));
        }
        let pairs: Vec<(Tensor, Tensor)> =
            outs.into_iter().zip(cots).filter_map(|(o, c)| c.clone().map(|c| (o, c))).collect();
        let wrt: Vec<Tensor> = vars.iter().filter(|v| v.is_variable()).chain(&captured).cloned().collect();
        let mut grads = vjp_since(host, &pairs, &wrt, since)?.into_iter();
        let mut all: Vec<Option<Tensor>> =
            vars.iter().map(|v| v.is_variable().then(|| grads.next()).flatten()).collect();
        all.extend(grads.map(Some));
        Ok(all)
    });
    record(outs, &[inputs, &held].concat(), pullback)
}

/// The variables behind `outs` that were there before record number `since`, without `except`; beside each, the tensor
/// that stands for it as a record's input (for another record's leaf, one that keeps that record alive).
fn captured(outs: &[Tensor], except: &[Tensor], since: u64) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
    let (mut found, mut held) = (vec![], vec![]);
    let mut seen: HashSet<TensorId> = except.iter().map(Tensor::id).collect();
    let mut todo: Vec<Tensor> = outs.to_vec();
    let owners: HashMap<TensorId, u64> = RECORDS.with(|r| {
        let r = r.borrow();
        r.iter().flat_map(|(id, r)| r.leaves.iter().map(|l| (l.as_tensor().id(), *id))).collect()
    });
    while let Some(t) = todo.pop() {
        for v in t.sorted_nodes().into_iter().filter(|n| n.is_variable()) {
            if !seen.insert(v.id()) {
                continue;
            }
            match owners.get(&v.id()) {
                // made inside: what it was made from counts
                Some(id) if *id >= since => {
                    if let Some(r) = RECORDS.with(|r| r.borrow().get(id).cloned()) {
                        todo.extend(r.inputs.iter().cloned());
                    }
                }
                Some(id) => {
                    found.push(v.clone());
                    held.push(guard(v, *id)?);
                }
                None => {
                    found.push(v.clone());
                    held.push(v.clone());
                }
            }
        }
    }
    Ok((found, held))
}

fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    let bits = |t: &Tensor| super::create::to_f64(t).map(|v| v.into_iter().map(f64::to_bits).collect::<Vec<_>>());
    a.dims() == b.dims() && matches!((bits(a), bits(b)), (Ok(x), Ok(y)) if x == y)
}
