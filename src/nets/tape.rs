//! What runs graphs: candle tensors, plain buffers with a tape of its own, or shapes alone.
//!
//! The tape exists because candle's backward starts every gradient as zeros and an addition, keeps every intermediate value, and is
//! recursive; ours keeps only what a pull-back reads.
use super::graph::{Exec, Node};
use super::kernels::{View, pool};
use super::profile;
use crate::{Error, Result};
use candle_core::Tensor;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Candle tensors of any float dtype on any device, differentiable by candle.
#[derive(Default)]
pub struct Candle<'a> {
    /// Weights by their names in the checkpoint, in the place of the operations' own: differentiable too.
    pub weights: Option<&'a BTreeMap<String, Tensor>>,
}

impl Exec for Candle<'_> {
    type Value = Tensor;
    fn apply(&mut self, node: &Arc<Node>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        crate::host::check_cancelled()?;
        node.check(&inputs.iter().map(|t| t.dims()).collect::<Vec<_>>())?;
        let Some(given) = self.weights.filter(|_| !node.weights.is_empty()) else {
            return Ok(node.op.clone().apply(inputs)?);
        };
        // an operation may have more than the checkpoint has for it, such as a bias of zeros
        let mut weights = node.op.weights()?;
        for (own, w) in weights.iter_mut().zip(&node.weights) {
            let t = given.get(&w.name).ok_or_else(|| Error::unknown("weight", &w.name, given.keys().map(|k| &**k)))?;
            if t.dims() != w.dims {
                let m = format!("the weight `{}` must have shape {:?}, got {:?}", w.name, w.dims, t.dims());
                return Err(Error::shape(m, &[&w.dims, t.dims()]));
            }
            *own = w.adapted(t)?;
        }
        Ok(node.op.compose_with(inputs, &weights)?)
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

impl Shape {
    /// The shape, with the batch.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }
}

/// Runs on shapes alone, to know what a [`Tape`] keeps for its pull-back before anything is computed.
#[derive(Default)]
pub struct Shapes {
    /// Floats that the tape holds until its pull-back.
    pub kept: u64,
    /// Floats of all results together.
    pub made: u64,
    /// Floats of the largest result.
    pub largest: u64,
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
    fn apply(&mut self, node: &Arc<Node>, inputs: &[&Shape]) -> Result<Vec<Shape>> {
        let dims = node.check(&inputs.iter().map(|v| &*v.dims).collect::<Vec<_>>())?;
        let tracked = inputs.iter().any(|v| v.tracked);
        if tracked && node.op.saves() {
            inputs.iter().for_each(|v| self.keep(v));
        }
        let value = |d: Vec<usize>| {
            let size = d.iter().product::<usize>() as u64;
            self.made += size;
            self.largest = self.largest.max(size);
            Shape { dims: d.into(), tracked, counted: Rc::default() }
        };
        Ok(dims.into_iter().map(value).collect())
    }
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
    place: Option<usize>,
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
    node: Arc<Node>,
    inputs: Vec<Value>,
    /// The place of its first result on the tape.
    first: usize,
}

/// f32 buffers on the CPU.
pub struct Tape {
    record: bool,
    par: bool,
    places: usize,
    steps: Vec<Step>,
}

impl Tape {
    /// `record` keeps what [`Tape::pull`] needs; `par` lets each operation use all threads.
    pub fn new(record: bool, par: bool) -> Self {
        Tape { record, par, places: 0, steps: vec![] }
    }
    /// Whether each operation may use all threads.
    pub fn par(&self) -> bool {
        self.par
    }
    /// An input with respect to which gradients are wanted.
    pub fn variable(&mut self, data: &[f32], dims: Vec<usize>) -> Value {
        self.places += 1;
        Value { data: Buffer::of(data), dims, place: Some(self.places - 1) }
    }
    /// An input that is held fixed.
    pub fn constant(data: &[f32], dims: Vec<usize>) -> Value {
        Value { data: Buffer::of(data), dims, place: None }
    }
    /// The gradients of Σ ⟨cot_k, out_k⟩ with respect to `wanted`; consumes the tape, freeing as it goes.
    pub fn pull(mut self, outs: Vec<(&Value, Vec<f32>)>, wanted: &[&Value]) -> Result<Vec<Vec<f32>>> {
        let mut grads: Vec<Option<Vec<f32>>> = vec![None; self.places];
        let add = |grads: &mut Vec<Option<Vec<f32>>>, value: &Value, g: Vec<f32>| match value.place {
            Some(p) => match &mut grads[p] {
                Some(sum) => {
                    super::kernels::accumulate(sum, &g, self.par);
                    pool::give(g);
                }
                slot => *slot = Some(g),
            },
            None => pool::give(g),
        };
        for (out, cot) in outs {
            add(&mut grads, out, cot);
        }
        while let Some(step) = self.steps.pop() {
            let results = step.first..step.first + step.node.dims.len();
            let cots: Vec<Option<Vec<f32>>> = grads[results].iter_mut().map(Option::take).collect();
            if cots.iter().all(Option::is_none) {
                continue;
            }
            crate::host::check_cancelled()?;
            let views: Vec<View> = step.inputs.iter().map(|v| View { data: &v.data.0, dims: &v.dims }).collect();
            let given: Vec<Option<&[f32]>> = cots.iter().map(Option::as_deref).collect();
            let pulled = profile::timed(&step.node, true, || step.node.op.pull(&views, &given, self.par));
            for (g, input) in pulled.into_iter().zip(&step.inputs) {
                add(&mut grads, input, g);
            }
            cots.into_iter().flatten().for_each(pool::give);
        }
        let of = |v: &&Value| match v.place.and_then(|p| grads[p].take()) {
            Some(g) => g,
            None => vec![0.0; v.data.0.len()],
        };
        Ok(wanted.iter().map(of).collect())
    }
}

impl Exec for Tape {
    type Value = Value;
    fn apply(&mut self, node: &Arc<Node>, inputs: &[&Value]) -> Result<Vec<Value>> {
        crate::host::check_cancelled()?;
        let op = &node.op;
        let dims = node.check(&inputs.iter().map(|v| &v.dims[..]).collect::<Vec<_>>())?;
        let views: Vec<View> = inputs.iter().map(|v| View { data: &v.data.0, dims: &v.dims }).collect();
        let mut outs: Vec<Vec<f32>> = dims.iter().map(|d| pool::take(d.iter().product())).collect();
        profile::timed(node, false, || op.run(&views, &mut outs, self.par));
        let record = self.record && inputs.iter().any(|v| v.place.is_some());
        let first = self.places;
        if record {
            let keep = |v: &&Value| match op.saves() {
                true => (*v).clone(),
                false => Value { data: Arc::new(Buffer(vec![])), dims: v.dims.clone(), place: v.place },
            };
            self.steps.push(Step { node: node.clone(), inputs: inputs.iter().map(keep).collect(), first });
            self.places += outs.len();
        }
        let value = |(k, (data, dims)): (usize, (Vec<f32>, Vec<usize>))| Value {
            data: Arc::new(Buffer(data)),
            dims,
            place: record.then_some(first + k),
        };
        Ok(outs.into_iter().zip(dims).enumerate().map(value).collect())
    }
}
