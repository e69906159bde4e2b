//! From a trace to a graph: each call becomes kernels where there are some for it, and an operation of scripts otherwise.
use super::log::{Arg, Call, Trace};
use super::native::Native;
use super::{images, kernels};
use crate::nets::graph::{Absent, Dim, Graph, Layout, Node, Output, Port, Size};
use crate::nets::kernels::{Op, Strided};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// A value of the graph that is being made.
pub(super) type Id = usize;

/// A traced value in the graph: as the script has it, with channels last (if it is images), or both.
#[derive(Clone, Copy, Default)]
struct Held {
    plain: Option<Id>,
    last: Option<Id>,
}

/// A graph that is being made from a trace.
pub(super) struct Lower<'t> {
    pub trace: &'t Trace,
    nodes: Vec<Arc<Node>>,
    /// The shape of each value of the graph, for one sample, its batch included.
    dims: Vec<Vec<usize>>,
    held: Vec<Held>,
    /// The calls that use each traced value; the result is used once more.
    users: Vec<Vec<usize>>,
    at: String,
}

/// Values of one thread's share of a batch: enough to fill vectors, few enough for the caches.
const SHARE: usize = 1 << 14;

/// The graph of a trace, whose inputs get these names.
pub fn lower(trace: &Trace, names: &[&str]) -> Result<Graph> {
    let needed = needed(trace);
    let mut users = vec![vec![]; trace.values.len()];
    for (c, call) in trace.calls.iter().enumerate().filter(|(c, _)| needed[*c]) {
        call.args.iter().for_each(|a| a.values(&mut |v| users[v].push(c)));
    }
    users[trace.output].push(usize::MAX);
    let sample = |v: usize| -> Vec<usize> { trace.values[v].1.iter().map(|s| s.of(1)).collect() };
    let (held, dims) = (vec![Held::default(); trace.values.len()], (0..trace.inputs).map(sample).collect());
    let mut low = Lower { trace, nodes: vec![], dims, held, users, at: String::new() };
    for v in 0..trace.inputs {
        low.held[v].plain = Some(v);
    }
    for (c, call) in trace.calls.iter().enumerate().filter(|(c, _)| needed[*c]) {
        if call.results.iter().all(|v| low.known(*v)) {
            // done with what stands before it
            continue;
        }
        low.at = format!("{}.{}", call.name.trim_start_matches("get$").trim_end_matches('$').replace('$', "."), c + 1);
        if !low.by_kernels(call)? {
            low.by_itself(call)?;
        }
    }
    let value = low.plain(trace.output)?;
    let port = |(v, name): (usize, &&str)| Port {
        name: name.to_string(),
        dims: sample(v)[1..].iter().map(|n| Dim::Exactly(*n)).collect(),
        layout: Layout::Plain,
        absent: Absent::Error,
    };
    let inputs = names.iter().enumerate().map(|(v, name)| port((v, name))).collect();
    let output = Output { name: "y".into(), value, layout: Layout::Plain };
    let most = low.dims.iter().map(|d| d.iter().product::<usize>()).max().unwrap_or(1).max(1);
    Ok(Graph::new(inputs, low.nodes, vec![output], false).in_parts_of(SHARE / most))
}

/// Which calls the result needs.
fn needed(trace: &Trace) -> Vec<bool> {
    let mut values = vec![false; trace.values.len()];
    values[trace.output] = true;
    let mut calls = vec![false; trace.calls.len()];
    for (c, call) in trace.calls.iter().enumerate().rev() {
        if call.results.iter().any(|v| values[*v]) {
            calls[c] = true;
            call.args.iter().for_each(|a| a.values(&mut |v| values[v] = true));
        }
    }
    calls
}

impl Lower<'_> {
    /// Adds an operation.
    pub fn add(&mut self, op: impl Op + 'static, inputs: &[Id]) -> Result<Id> {
        Ok(self.add_all(Arc::new(op), inputs)?.start)
    }

    /// Adds an operation with one result.
    pub fn add_shared(&mut self, op: Arc<dyn Op>, inputs: &[Id]) -> Result<Id> {
        Ok(self.add_all(op, inputs)?.start)
    }

    fn add_all(&mut self, op: Arc<dyn Op>, inputs: &[Id]) -> Result<std::ops::Range<Id>> {
        let first = self.dims.len();
        let given: Vec<&[usize]> = inputs.iter().map(|i| &self.dims[*i][..]).collect();
        let mut node =
            Node { name: self.at.clone(), op, inputs: inputs.to_vec(), first, dims: vec![], weights: vec![] };
        let dims = node.check(&given)?;
        // as they print: without the batch where that stands in front
        node.dims = dims.iter().map(|d| if d.first() == Some(&1) { d[1..].to_vec() } else { d.clone() }).collect();
        self.dims.extend(dims);
        self.nodes.push(Arc::new(node));
        Ok(first..self.dims.len())
    }

    /// The shape of a value of the graph, for one sample.
    pub fn dims(&self, id: Id) -> &[usize] {
        &self.dims[id]
    }
    /// The sizes of a traced value.
    pub fn sizes(&self, v: usize) -> &[Size] {
        &self.trace.values[v].1
    }
    /// The size of each dimension of a traced value that does not depend on the batch.
    pub fn fixed(&self, v: usize, d: usize) -> Option<usize> {
        self.sizes(v).get(d)?.fixed()
    }
    /// Whether a traced value is in f32.
    pub fn floats(&self, v: usize) -> bool {
        self.trace.values[v].0 == DType::F32
    }
    /// Whether a traced value is images whose batch stands in front.
    pub fn is_image(&self, v: usize) -> bool {
        matches!(self.sizes(v), [Size::Per(1), Size::Fixed(_), Size::Fixed(_), Size::Fixed(_)])
    }
    /// Whether a traced value is in the graph already.
    fn known(&self, v: usize) -> bool {
        self.held[v].plain.is_some() || self.held[v].last.is_some()
    }
    /// Whether a traced value lies with channels last, and not as the script has it.
    pub fn only_last(&self, v: usize) -> bool {
        self.held[v].plain.is_none() && self.held[v].last.is_some()
    }
    /// The one call that uses a traced value, if there is only one.
    pub fn only_user(&self, v: usize) -> Option<&Call> {
        match self.users[v][..] {
            [c] => self.trace.calls.get(c),
            _ => None,
        }
    }

    /// A traced value as the script has it.
    pub fn plain(&mut self, v: usize) -> Result<Id> {
        let id = match self.held[v] {
            Held { plain: Some(id), .. } => id,
            Held { last: Some(id), .. } => self.add(Strided::Permute(vec![0, 3, 1, 2]), &[id])?,
            _ => return Err(Error::value("a value of the trace was used before it was made")),
        };
        self.held[v].plain = Some(id);
        Ok(id)
    }
    /// A traced value, images, with channels last.
    pub fn last(&mut self, v: usize) -> Result<Id> {
        let id = match self.held[v].last {
            Some(id) => id,
            None => {
                let id = self.plain(v)?;
                self.add(Strided::Permute(vec![0, 2, 3, 1]), &[id])?
            }
        };
        self.held[v].last = Some(id);
        Ok(id)
    }
    /// Says where in the graph a traced value is, as the script has it.
    pub fn is(&mut self, v: usize, id: Id) {
        self.held[v].plain = Some(id);
    }
    /// Says where in the graph images are, with channels last.
    pub fn is_last(&mut self, v: usize, id: Id) {
        self.held[v].last = Some(id);
    }

    /// Adds kernels for a call; false where there are none for it.
    fn by_kernels(&mut self, call: &Call) -> Result<bool> {
        let mut all: Vec<usize> = call.results.clone();
        call.args.iter().for_each(|a| a.values(&mut |v| all.push(v)));
        if !all.iter().all(|v| self.floats(*v)) {
            return Ok(false);
        }
        Ok(images::lower(self, call)? || kernels::lower(self, call)?)
    }

    /// Adds a call as it is.
    fn by_itself(&mut self, call: &Call) -> Result<()> {
        let mut given: Vec<usize> = vec![];
        let mut number = |v: usize| {
            let known = given.iter().position(|g| *g == v);
            known.unwrap_or_else(|| {
                given.push(v);
                given.len() - 1
            })
        };
        let args: Vec<Arg> = call.args.iter().map(|a| a.renumbered(&mut number)).collect();
        let of = |all: &[usize]| all.iter().map(|v| self.trace.values[*v].clone()).collect();
        let op = Native { name: call.name.clone(), args, inputs: of(&given), results: of(&call.results) };
        let ids = given.iter().map(|v| self.plain(*v)).collect::<Result<Vec<_>>>()?;
        let made = self.add_all(Arc::new(op), &ids)?;
        for (v, id) in call.results.iter().zip(made) {
            self.is(*v, id);
        }
        Ok(())
    }
}

/// The entry of a call's options.
pub(super) fn option<'c>(call: &'c Call, name: &str) -> Option<&'c Arg> {
    call.args.iter().find_map(|a| match a {
        Arg::Map(all) => all.iter().find(|(k, _)| k == name).map(|(_, v)| v),
        _ => None,
    })
}

/// Whether a call has no other options than these.
pub(super) fn only_options(call: &Call, names: &[&str]) -> bool {
    call.args.iter().all(|a| match a {
        Arg::Map(all) => all.iter().all(|(k, _)| names.contains(&&**k)),
        _ => true,
    })
}

/// A whole number ≥ 0.
pub(super) fn count(a: &Arg) -> Option<usize> {
    match a {
        Arg::Int(i) => usize::try_from(*i).ok(),
        _ => None,
    }
}

/// A dimension, negative ones from the end.
pub(super) fn dimension(a: &Arg, rank: usize) -> Option<usize> {
    match a {
        Arg::Int(i) if *i < 0 => usize::try_from(*i + rank as i64).ok(),
        Arg::Int(i) => usize::try_from(*i).ok().filter(|d| *d < rank),
        _ => None,
    }
}

/// A constant of that shape, or `fill` where the option is left out; `None` where it is something else.
pub(super) fn constant(a: Option<&Arg>, dims: &[usize], fill: f64) -> Option<Tensor> {
    let new = || Tensor::full(fill as f32, dims, &candle_core::Device::Cpu).ok();
    match a {
        None | Some(Arg::Unit) => new(),
        Some(Arg::Const(t)) if t.dims() == dims => t.to_dtype(DType::F32).ok(),
        _ => None,
    }
}
