//! Two tapes, one [`grad`]. Tensor expressions are differentiated by candle. What candle cannot express (a sample, a script
//! closure, host-side scalar work) is recorded here as a *leaf with a pull-back*: [`record`] returns tensors that candle
//! sees as variables behind an identity operation, and [`grad`] alternates between candle's backward pass down to such
//! leaves and their pull-backs, newest first.
//!
//! A record lives exactly as long as some tensor that depends on it: the identity operation carries a guard whose
//! drop removes the record.
use crate::host::Host;
use crate::{Error, Kind, Result};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, TensorId, Var};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
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

/// Identity on a record's leaf; its drop releases the record.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        // `try_with`: at thread exit the registry may already be gone
        let last = LIVE.try_with(|l| {
            let mut l = l.borrow_mut();
            match l.get_mut(&self.0) {
                Some(n) if *n > 1 => {
                    *n -= 1;
                    false
                }
                Some(_) => {
                    l.remove(&self.0);
                    true
                }
                None => false,
            }
        });
        if let Ok(true) = last {
            // dropped outside the borrow: a record's inputs may hold the last guard of another record
            let record = RECORDS.try_with(|r| r.borrow_mut().remove(&self.0));
            drop(record);
        }
    }
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

/// Runs `f` without recording gradients (restored also when `f` fails).
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            NO_GRAD.set(self.0);
        }
    }
    let _restore = Restore(NO_GRAD.replace(true));
    f()
}

/// Runs `f` recording gradients, also inside [`no_grad`] (restored also when `f` fails). Pull-backs run so: they may
/// differentiate inside.
pub fn with_grad<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            NO_GRAD.set(self.0);
        }
    }
    let _restore = Restore(NO_GRAD.replace(false));
    f()
}

/// A fresh variable with the value of `t`: what `grad` can be taken with respect to.
pub fn variable(t: &Tensor) -> Result<Tensor> {
    Ok(Var::from_tensor(&t.detach())?.into_inner())
}

/// Turns `outputs`, computed outside candle's graph from `inputs`, into tensors through which [`grad`] flows by way of
/// `pullback`. Returns the outputs unchanged when no input is tracked.
pub fn record(outputs: Vec<Tensor>, inputs: &[Tensor], pullback: RecordPullback) -> Result<Vec<Tensor>> {
    if !inputs.iter().any(is_tracked) {
        return Ok(outputs);
    }
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let leaves =
        outputs.iter().map(|o| Ok(Var::from_tensor(&o.detach().contiguous()?)?)).collect::<Result<Vec<_>>>()?;
    LIVE.with(|l| l.borrow_mut().insert(id, leaves.len()));
    let guarded = leaves.iter().map(|v| Ok(v.as_tensor().apply_op1(Guard(id))?)).collect::<Result<Vec<_>>>()?;
    let record = Rc::new(Record { inputs: inputs.to_vec(), leaves, pullback });
    RECORDS.with(|r| r.borrow_mut().insert(id, record));
    Ok(guarded)
}

/// How many records are alive (for tests of leaks).
pub fn live_records() -> usize {
    RECORDS.with(|r| r.borrow().len())
}

/// Gradients by the id of the variable (or recorded leaf) that they belong to.
#[derive(Default)]
struct Acc(HashMap<TensorId, Tensor>);

impl Acc {
    fn add(&mut self, id: TensorId, g: Tensor) -> Result<()> {
        let sum = match self.0.remove(&id) {
            Some(old) => (old + g)?,
            None => g,
        };
        self.0.insert(id, sum);
        Ok(())
    }
    /// Adds ⟨cot, t⟩'s gradients, for t anywhere in candle's graph.
    fn pull(&mut self, t: &Tensor, cot: &Tensor) -> Result<()> {
        if t.is_variable() {
            return self.add(t.id(), cot.clone());
        }
        if !t.track_op() {
            return Ok(());
        }
        let grads = (t * cot.detach())?.sum_all()?.backward()?;
        let ids: Vec<TensorId> = grads.get_ids().copied().collect();
        for id in ids {
            if let Some(g) = grads.get_id(id) {
                self.add(id, g.detach())?;
            }
        }
        Ok(())
    }
}

/// The vector-Jacobian product Σ ⟨cot_k, output_k⟩ differentiated with respect to `vars`; zeros where nothing flows.
pub fn vjp(host: &dyn Host, outputs: &[(Tensor, Tensor)], vars: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut acc = Acc::default();
    for (out, cot) in outputs {
        if out.dims() != cot.dims() {
            return Err(Error::shape("vjp: a cotangent must have its output's shape", &[out.dims(), cot.dims()]));
        }
        acc.pull(out, &cot.to_dtype(out.dtype())?)?;
    }
    // newest first: a record's outputs can only feed records made later
    let ids: Vec<u64> = RECORDS.with(|r| r.borrow().keys().rev().copied().collect());
    for id in ids {
        let Some(rec) = RECORDS.with(|r| r.borrow().get(&id).cloned()) else { continue };
        let cots: Vec<Option<Tensor>> = rec.leaves.iter().map(|l| acc.0.get(&l.as_tensor().id()).cloned()).collect();
        if cots.iter().all(Option::is_none) {
            continue;
        }
        crate::host::check_cancelled()?;
        let back = with_grad(|| (rec.pullback)(host, &cots))?;
        if back.len() != rec.inputs.len() {
            return Err(Error::new(Kind::Internal, "a pull-back returned the wrong number of cotangents"));
        }
        for (input, cot) in rec.inputs.iter().zip(back) {
            if let Some(cot) = cot {
                acc.pull(input, &cot.to_dtype(input.dtype())?)?;
            }
        }
    }
    vars.iter()
        .map(|v| {
            if !v.is_variable() {
                let e = Error::new(Kind::Value, "grad: not a variable: gradients are taken with respect to variables");
                return Err(e.hint("make one with `variable(t)` and compute the loss from that"));
            }
            match acc.0.get(&v.id()) {
                Some(g) => Ok(g.reshape(v.shape())?.to_dtype(v.dtype())?),
                None => Ok(v.zeros_like()?.detach()),
            }
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
