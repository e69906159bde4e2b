//! How a network of frozen operations is run: on candle tensors, on plain buffers with a tape of its own, or on shapes alone.
//!
//! A network is written once over [`Exec`]. The tape exists because candle's backward starts every gradient as zeros and an
//! addition, keeps every intermediate value, and is recursive; ours keeps only what a pull-back reads.
use super::kernels::{Frozen, View, apply, pool};
use super::profile;
use crate::{Error, Result};
use candle_core::Tensor;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Runs frozen operations on values of its own kind.
pub trait Exec {
    /// What flows through the network.
    type Value: Clone;
    /// Applies an operation to one or two values.
    fn apply(&mut self, op: &Arc<dyn Frozen>, inputs: &[&Self::Value]) -> Result<Self::Value>;
}

/// Candle tensors of any float dtype on any device, differentiable by candle.
pub struct Candle;

impl Exec for Candle {
    type Value = Tensor;
    fn apply(&mut self, op: &Arc<dyn Frozen>, inputs: &[&Tensor]) -> Result<Tensor> {
        crate::host::check_cancelled()?;
        Ok(apply(op, inputs)?)
    }
}

/// A value of which only the shape is known.
#[derive(Clone)]
pub struct Shape {
    dims: Rc<[usize]>,
    tracked: bool,
    /// Whether its data is among [`Shapes::kept`] already; shared by all uses of the value.
    counted: Rc<Cell<bool>>,
}

/// Runs on shapes alone, to know what a [`Tape`] keeps for its pull-back before anything is computed.
#[derive(Default)]
pub struct Shapes {
    /// Floats that the tape holds until its pull-back.
    pub kept: u64,
    /// Floats of all results together.
    pub made: u64,
}

impl Shapes {
    /// A value of this shape; one with respect to which gradients are wanted is kept.
    pub fn value(&mut self, dims: &[usize], tracked: bool) -> Shape {
        let shape = Shape { dims: dims.into(), tracked, counted: Rc::default() };
        if tracked {
            self.keep(&shape);
        }
        shape
    }
    /// Counts the data of `value` once.
    pub fn keep(&mut self, value: &Shape) {
        if !value.counted.replace(true) {
            self.kept += value.dims.iter().product::<usize>() as u64;
        }
    }
}

impl Exec for Shapes {
    type Value = Shape;
    fn apply(&mut self, op: &Arc<dyn Frozen>, inputs: &[&Shape]) -> Result<Shape> {
        let dims = checked(op, &inputs.iter().map(|v| &*v.dims).collect::<Vec<_>>())?;
        self.made += dims.iter().product::<usize>() as u64;
        let tracked = inputs.iter().any(|v| v.tracked);
        if tracked && op.saves() {
            inputs.iter().for_each(|v| self.keep(v));
        }
        Ok(Shape { dims: dims.into(), tracked, counted: Rc::default() })
    }
}

/// The result's shape, or an error that names the operation.
fn checked(op: &Arc<dyn Frozen>, shapes: &[&[usize]]) -> Result<Vec<usize>> {
    op.dims(shapes).map_err(|e| Error::shape(format!("{}: {e}", op.name()), shapes))
}

/// Data that goes back to the pool.
struct Buffer(Vec<f32>);

impl Buffer {
    /// A copy in a buffer that came from the pool: what goes back and was never taken would only fill it up.
    fn of(data: &[f32]) -> Arc<Buffer> {
        let mut own = pool::take(data.len());
        own.copy_from_slice(data);
        Arc::new(Buffer(own))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.0));
    }
}

/// A value on the tape.
#[derive(Clone)]
pub struct Value {
    data: Arc<Buffer>,
    dims: Vec<usize>,
    /// Its place on the tape; constants have none.
    node: Option<usize>,
}

impl Value {
    /// The elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data.0
    }
    /// The shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }
}

struct Step {
    op: Arc<dyn Frozen>,
    inputs: Vec<Value>,
    node: usize,
}

/// f32 buffers on the CPU.
pub struct Tape {
    record: bool,
    par: bool,
    nodes: usize,
    steps: Vec<Step>,
}

impl Tape {
    /// `record` keeps what [`Tape::pull`] needs; `par` lets each operation use all threads.
    pub fn new(record: bool, par: bool) -> Self {
        Tape { record, par, nodes: 0, steps: vec![] }
    }
    /// Whether each operation may use all threads.
    pub fn par(&self) -> bool {
        self.par
    }
    /// An input with respect to which gradients are wanted.
    pub fn variable(&mut self, data: &[f32], dims: Vec<usize>) -> Value {
        self.nodes += 1;
        Value { data: Buffer::of(data), dims, node: Some(self.nodes - 1) }
    }
    /// An input that is held fixed.
    pub fn constant(data: &[f32], dims: Vec<usize>) -> Value {
        Value { data: Buffer::of(data), dims, node: None }
    }
    /// The gradients of ⟨cot, out⟩ with respect to `wanted`; consumes the tape, freeing as it goes.
    pub fn pull(self, out: &Value, cot: Vec<f32>, wanted: &[&Value]) -> Result<Vec<Vec<f32>>> {
        self.pull_all(vec![(out, cot)], wanted)
    }
    /// The gradients of Σ ⟨cot_k, out_k⟩ with respect to `wanted`; consumes the tape, freeing as it goes.
    pub fn pull_all(mut self, outs: Vec<(&Value, Vec<f32>)>, wanted: &[&Value]) -> Result<Vec<Vec<f32>>> {
        let mut grads: Vec<Option<Vec<f32>>> = vec![None; self.nodes];
        for (out, cot) in outs {
            match out.node.map(|n| &mut grads[n]) {
                Some(Some(sum)) => super::kernels::accumulate(sum, &cot, self.par),
                Some(slot) => *slot = Some(cot),
                None => {}
            }
        }
        while let Some(step) = self.steps.pop() {
            let Some(cot) = grads[step.node].take() else { continue };
            crate::host::check_cancelled()?;
            let views: Vec<View> = step.inputs.iter().map(|v| View { data: &v.data.0, dims: &v.dims }).collect();
            let pulled = profile::timed(step.op.name(), true, || step.op.pull(&views, &cot, self.par));
            for (g, input) in pulled.into_iter().zip(&step.inputs) {
                match input.node.map(|n| &mut grads[n]) {
                    Some(Some(sum)) => {
                        super::kernels::accumulate(sum, &g, self.par);
                        pool::give(g);
                    }
                    Some(slot) => *slot = Some(g),
                    None => pool::give(g),
                }
            }
            pool::give(cot);
        }
        let of = |v: &&Value| match v.node.and_then(|n| grads[n].take()) {
            Some(g) => g,
            None => vec![0.0; v.data.0.len()],
        };
        Ok(wanted.iter().map(of).collect())
    }
}

impl Exec for Tape {
    type Value = Value;
    fn apply(&mut self, op: &Arc<dyn Frozen>, inputs: &[&Value]) -> Result<Value> {
        crate::host::check_cancelled()?;
        let dims = checked(op, &inputs.iter().map(|v| &v.dims[..]).collect::<Vec<_>>())?;
        let views: Vec<View> = inputs.iter().map(|v| View { data: &v.data.0, dims: &v.dims }).collect();
        let mut out = pool::take(dims.iter().product());
        profile::timed(op.name(), false, || op.run(&views, &mut out, self.par));
        let mut node = None;
        if self.record && inputs.iter().any(|v| v.node.is_some()) {
            node = Some(self.nodes);
            let keep = |v: &&Value| match op.saves() {
                true => (*v).clone(),
                false => Value { data: Arc::new(Buffer(vec![])), dims: v.dims.clone(), node: v.node },
            };
            self.steps.push(Step { op: op.clone(), inputs: inputs.iter().map(keep).collect(), node: self.nodes });
            self.nodes += 1;
        }
        Ok(Value { data: Arc::new(Buffer(out)), dims, node })
    }
}
