//! A network as data: named inputs, operations in order, named outputs. It is what a plan is to a solver.
use super::kernels::Op;
use crate::files::hash::sha256;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::fmt;
use std::sync::Arc;

/// A size of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// This one only.
    Exactly(usize),
    /// Any that the operations can take; this one where the graph is printed.
    About(usize),
}

impl Dim {
    /// The number.
    pub fn size(self) -> usize {
        match self {
            Dim::Exactly(n) | Dim::About(n) => n,
        }
    }
}

/// A dimension of a value in a network whose batch is not yet known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// The same for every batch.
    Fixed(usize),
    /// So many for each sample.
    Per(usize),
}

impl Size {
    /// For a batch of `n`.
    pub fn of(self, n: usize) -> usize {
        match self {
            Size::Fixed(k) => k,
            Size::Per(k) => k.saturating_mul(n),
        }
    }
    /// Where it does not depend on the batch.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Size::Fixed(k) => Some(k),
            Size::Per(_) => None,
        }
    }
}

/// How a value lies outside the network; inside, channels are last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As inside.
    Plain,
    /// [B, C, H, W], which is [B, H, W, C] inside, in the type of the images.
    Image,
}

/// What it means that an input is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// An error.
    Error,
    /// Zeros.
    Zeros,
    /// What is made of it alone is left out, and a sum that it takes part in is the rest.
    LeftOut,
}

/// A named input.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The shape of one sample inside the network.
    pub dims: Vec<Dim>,
    /// How it is given.
    pub layout: Layout,
    /// What happens without it.
    pub absent: Absent,
}

impl Port {
    /// The sizes of one sample, inside.
    pub fn sizes(&self) -> Vec<usize> {
        self.dims.iter().map(|d| d.size()).collect()
    }
    /// The shape of one sample as it is given; none for a size that may vary.
    pub fn outside(&self) -> Vec<Option<usize>> {
        let fixed = |d: &Dim| match d {
            Dim::Exactly(n) => Some(*n),
            Dim::About(_) => None,
        };
        let mut dims: Vec<_> = self.dims.iter().map(fixed).collect();
        if self.layout == Layout::Image {
            dims.rotate_right(1);
        }
        dims
    }
}

/// A weight of an operation: where it is in a checkpoint, and how it gets from there to the operation.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape there.
    pub dims: Vec<usize>,
    /// What is done to it, one after the other.
    pub adapt: Vec<Adapt>,
}

/// What is done to a weight between checkpoint and operation, differentiably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adapt {
    /// Another shape of the same values.
    Reshape(Vec<usize>),
    /// The first entries only.
    First(usize),
    /// Rows as columns: a map that is kept as [in, out].
    Transpose,
    /// Runs of `width` entries that alternate between `parts`, put part after part: channels of q, k and v.
    Apart {
        /// How many parts.
        parts: usize,
        /// Entries in a row that belong to one part.
        width: usize,
    },
    /// All rows but the last, each less the last.
    AgainstLast,
    /// The last row.
    Last,
    /// Rows of one magnitude: each over its own root mean square, and over the root of how many entries it has.
    Magnitude,
}

impl Adapt {
    /// Does it.
    pub fn apply(&self, t: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Adapt::Reshape(dims) => t.reshape(&dims[..]),
            Adapt::First(n) => t.narrow(0, 0, *n)?.contiguous(),
            Adapt::Transpose => t.t()?.contiguous(),
            Adapt::AgainstLast => {
                let n = t.dim(0)?;
                t.narrow(0, 0, n - 1)?.broadcast_sub(&t.narrow(0, n - 1, 1)?)
            }
            Adapt::Last => t.get(t.dim(0)? - 1)?.contiguous(),
            Adapt::Magnitude => {
                /// What the reference adds to the root, so that it is never 0.
                const EPS: f64 = 1e-4;
                let (n, rest) = (t.dim(0)?, t.elem_count() / t.dim(0)?.max(1));
                let rows = t.reshape((n, rest))?;
                let root = ((rows.sqr()?.sum_keepdim(1)? / rest as f64)?.sqrt()? + EPS)?;
                (rows.broadcast_div(&root)? / (rest as f64).sqrt())?.reshape(t.dims())
            }
            Adapt::Apart { parts, width } => {
                let (n, rest) = (t.dim(0)?, t.elem_count() / t.dim(0)?.max(1));
                t.reshape((n / (parts * width), *parts, width * rest))?.transpose(0, 1)?.contiguous()?.reshape(t.dims())
            }
        }
    }
}

impl Weight {
    /// The operation's weight, from the checkpoint's.
    pub fn adapted(&self, stored: &Tensor) -> candle_core::Result<Tensor> {
        self.adapt.iter().try_fold(stored.clone(), |t, a| a.apply(&t))
    }
}

/// An operation with the values that it takes and gives.
pub struct Node {
    /// Where it stands in the network: `enc.32x32_block0.conv1`.
    pub name: String,
    /// What it computes.
    pub op: Arc<dyn Op>,
    /// The values that it takes, by number.
    pub inputs: Vec<usize>,
    /// The number of its first result; the others follow.
    pub first: usize,
    /// The shapes of its results for one sample of the sizes that the ports name.
    pub dims: Vec<Vec<usize>>,
    /// Its weights, in the order in which the operation has them.
    pub weights: Vec<Weight>,
}

impl Node {
    /// Its results' shapes, or an error that names it.
    pub fn check(&self, inputs: &[&[usize]]) -> Result<Vec<Vec<usize>>> {
        self.op.dims(inputs).map_err(|e| Error::shape(format!("{} ({}): {e}", self.name, self.op.name()), inputs))
    }
}

/// A named result.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// The value's number.
    pub value: usize,
    /// How it is handed out.
    pub layout: Layout,
}

/// A network. Values are numbered: the inputs, then the results of the operations in order.
#[derive(Clone, Default)]
pub struct Graph {
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it does.
    pub nodes: Vec<Arc<Node>>,
    /// What it gives.
    pub outputs: Vec<Output>,
    /// Whether the weights outgrow the caches: then a few samples at a time share all threads, because reading (and transforming)
    /// the weights once for each sample costs more than threads that wait for each other.
    pub wide: bool,
    /// Samples that go through it together on one thread, where that is not for the runner to say: many where there is little to do
    /// for each.
    pub together: Option<usize>,
    /// Whether samples go through it one at a time: it is written for a batch of one.
    pub alone: bool,
    /// For each node the values that nobody needs after it.
    last: Vec<Vec<usize>>,
}

/// Runs operations on values of its own kind.
pub trait Exec {
    /// What flows through the network.
    type Value: Clone;
    /// Applies a node's operation.
    fn apply(&mut self, node: &Arc<Node>, inputs: &[&Self::Value]) -> Result<Vec<Self::Value>>;
}

impl Graph {
    /// From its parts.
    pub fn new(inputs: Vec<Port>, nodes: Vec<Arc<Node>>, outputs: Vec<Output>, wide: bool) -> Graph {
        Graph { inputs, nodes, outputs, wide, together: None, alone: false, last: vec![] }.finished()
    }

    /// The same, with `n` samples together on a thread (at least as many as the runner takes by itself).
    pub fn in_parts_of(self, n: usize) -> Graph {
        Graph { together: Some(n), ..self }
    }

    /// The same, for one sample at a time.
    pub fn one_by_one(self) -> Graph {
        Graph { alone: true, ..self }
    }

    /// The part of it that these outputs need, in this order.
    pub fn only(&self, outputs: &[&str]) -> Result<Graph> {
        let find = |name: &&str| match self.outputs.iter().find(|o| o.name == *name) {
            Some(o) => Ok(o.clone()),
            None => Err(Error::unknown("output of the network", name, self.outputs.iter().map(|o| &*o.name))),
        };
        Ok(self.needing(outputs.iter().map(find).collect::<Result<Vec<_>>>()?))
    }

    /// The part of it that leads to what the operation at `place` gives, or the last of those below it (`enc.8x8_block1` is all of
    /// that block).
    ///
    /// # Errors
    /// There is no such place.
    pub fn up_to(&self, place: &str) -> Result<Graph> {
        let below =
            |n: &&Arc<Node>| n.name.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let Some(node) = self.nodes.iter().rfind(below) else {
            let e = Error::new(Kind::Name, format!("the network has no place `{place}`"));
            return Err(match crate::error::nearest(place, self.nodes.iter().map(|n| &*n.name)) {
                Some(near) => e.hint(format!("did you mean `{near}`? `net.places` lists them")),
                None => e.hint("`net.places` lists them"),
            });
        };
        let pictures = self.inputs.first().is_some_and(|p| p.layout == Layout::Image);
        let layout = match node.dims.first() {
            Some(dims) if dims.len() == 3 && pictures => Layout::Image,
            _ => Layout::Plain,
        };
        Ok(self.needing(vec![Output { name: place.to_string(), value: node.first, layout }]))
    }

    /// The part of it that these outputs need.
    fn needing(&self, outputs: Vec<Output>) -> Graph {
        let mut needed = vec![false; self.values()];
        outputs.iter().for_each(|o| needed[o.value] = true);
        for node in self.nodes.iter().rev() {
            if (node.first..node.first + node.dims.len()).any(|v| needed[v]) {
                node.inputs.iter().for_each(|v| needed[*v] = true);
            }
        }
        let live = |n: &&Arc<Node>| (n.first..n.first + n.dims.len()).any(|v| needed[v]);
        let nodes = self.nodes.iter().filter(live).cloned().collect();
        Graph { nodes, outputs, ..self.clone() }.finished()
    }

    /// How many values there are.
    fn values(&self) -> usize {
        self.nodes.last().map_or(self.inputs.len(), |n| n.first + n.dims.len())
    }

    /// Notes after which node each value is used up.
    fn finished(mut self) -> Graph {
        let mut later = vec![false; self.values()];
        self.outputs.iter().for_each(|o| later[o.value] = true);
        self.last = vec![vec![]; self.nodes.len()];
        for (node, last) in self.nodes.iter().zip(&mut self.last).rev() {
            for v in node.inputs.iter().copied().chain(node.first..node.first + node.dims.len()) {
                if !std::mem::replace(&mut later[v], true) {
                    last.push(v);
                }
            }
        }
        self
    }

    /// All weights in the order of the operations; one that several operations share stands there once for each.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.nodes.iter().flat_map(|n| &n.weights)
    }

    /// Runs it: one value for each input, absent only where the port allows it, and one for each output.
    pub fn run<E: Exec>(&self, e: &mut E, inputs: Vec<Option<E::Value>>) -> Result<Vec<E::Value>> {
        let mut values = inputs;
        values.resize_with(self.values(), || None);
        for (node, last) in self.nodes.iter().zip(&self.last) {
            let given: Vec<&E::Value> = node.inputs.iter().filter_map(|v| values[*v].as_ref()).collect();
            let results = match given.len() {
                n if n == node.inputs.len() => e.apply(node, &given)?,
                0 => vec![],
                1 if node.op.joins() => vec![given[0].clone()],
                _ => {
                    let m = format!("{} ({}) has some of its inputs only", node.name, node.op.name());
                    return Err(Error::new(Kind::Internal, m));
                }
            };
            for (slot, value) in values[node.first..].iter_mut().zip(results) {
                *slot = Some(value);
            }
            last.iter().for_each(|v| values[*v] = None);
        }
        let lost = |o: &Output| Error::new(Kind::Internal, format!("the network did not compute `{}`", o.name));
        self.outputs.iter().map(|o| values[o.value].clone().ok_or_else(|| lost(o))).collect()
    }

    /// SHA-256 of what is printed: names, operations with their sizes and options, and how they hang together; not the weights.
    pub fn hash(&self) -> String {
        sha256(self.to_string().as_bytes())
    }

    fn name(&self, value: usize) -> String {
        if let Some(port) = self.inputs.get(value) {
            return port.name.clone();
        }
        match self.nodes.iter().find(|n| (n.first..n.first + n.dims.len()).contains(&value)) {
            Some(n) if n.dims.len() == 1 => n.name.clone(),
            Some(n) => format!("{}#{}", n.name, value - n.first),
            None => format!("#{value}"),
        }
    }
}

/// One line for each input, operation and output, with the shape of a sample.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for Port { name, dims, absent, .. } in &self.inputs {
            let dims: Vec<String> = dims
                .iter()
                .map(|d| match d {
                    Dim::Exactly(n) => n.to_string(),
                    Dim::About(n) => format!("~{n}"),
                })
                .collect();
            let without = match absent {
                Absent::Error => "",
                Absent::Zeros => ", or zeros",
                Absent::LeftOut => ", or left out",
            };
            writeln!(f, "input {name} [{}]{without}", dims.join(", "))?;
        }
        for node in &self.nodes {
            let inputs: Vec<String> = node.inputs.iter().map(|v| self.name(*v)).collect();
            let dims: Vec<String> = node.dims.iter().map(|d| format!("{d:?}")).collect();
            let (kind, detail) = (node.op.name(), node.op.detail());
            let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
            writeln!(f, "{} = {kind}{detail} of {} → {}", node.name, inputs.join(", "), dims.join(", "))?;
        }
        for o in &self.outputs {
            writeln!(f, "output {} = {}", o.name, self.name(o.value))?;
        }
        Ok(())
    }
}
