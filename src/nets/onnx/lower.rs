//! From a model's operations to a graph: each is lowered in order, with the values that are known by then.
use super::data::{self, Beside, Elem};
use super::num::{Num, Size};
use super::{ops, proto};
use crate::nets::graph::{Graph, Layout, Node, Output, Port};
use crate::nets::weights::wide;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// A value of the graph that is being made.
pub type Id = usize;

/// A value of the model.
pub type V = usize;

/// Calls of functions within functions.
const DEPTH: usize = 32;

/// Operations with those of functions as often as they are called: few lines can call each other without end.
const MOST_STEPS: usize = 1 << 20;

/// What is known of a value.
#[derive(Clone)]
pub enum Held {
    /// Whole numbers, which may grow with the batch.
    Nums(Rc<[Num]>),
    /// A constant; where its sizes grow with the batch, it is the same for each sample and held once.
    Const(Tensor),
    /// In the graph, as the model has it, with channels last, or both.
    Graph {
        /// As the model has it.
        plain: Option<Id>,
        /// With the second dimension last.
        last: Option<Id>,
    },
}

/// A value of the model, as far as it is known.
#[derive(Clone)]
pub struct Val {
    /// What it holds.
    pub elem: Elem,
    /// Its sizes.
    pub sizes: Vec<Size>,
    /// Where it is.
    pub held: Held,
    /// How it came about, for operations that together are one kernel.
    pub note: Option<ops::Note>,
}

/// An operation of the model.
pub struct Step<'m> {
    /// It, as the file has it.
    pub node: &'m proto::Node,
    /// Its inputs; none where one is left out.
    pub inputs: Vec<Option<V>>,
    /// What is added to its result, where nothing else uses that: a bias may go into the operation.
    pub added: Option<V>,
    /// Values of the attributes of the function around it.
    outer: Option<&'m BTreeMap<String, proto::Attribute>>,
}

/// The names of values within a graph or function, and weights that were not read yet.
struct Scope<'a, 'm> {
    names: HashMap<&'m str, V>,
    weights: &'a HashMap<&'m str, &'m proto::Tensor>,
}

/// A graph that is being made.
pub struct Lower<'m> {
    pub(super) functions: &'m [proto::Function],
    pub(super) beside: &'m mut Beside,
    /// Whether samples go through one by one, so that no size grows with the batch.
    pub alone: bool,
    pub(super) dtype: DType,
    pub(super) device: Device,
    pub(super) ports: Vec<Port>,
    pub(super) nodes: Vec<Arc<Node>>,
    /// The sizes of each value of the graph, and its bytes of constants.
    pub(super) sizes: Vec<Vec<Size>>,
    pub(super) vals: Vec<Val>,
    pub(super) at: String,
    pub(super) counted: usize,
    steps: usize,
}

impl<'m> Lower<'m> {
    /// For a model's operations.
    pub fn new(
        model: &'m super::read::Model,
        beside: &'m mut Beside,
        ports: Vec<(Port, Vec<Size>)>,
        dtype: DType,
        device: &Device,
    ) -> Lower<'m> {
        let (ports, sizes): (Vec<Port>, Vec<Vec<Size>>) = ports.into_iter().unzip();
        Lower {
            functions: &model.functions,
            beside,
            alone: sizes.iter().flatten().all(|s| s.fixed().is_some()),
            dtype: wide(dtype),
            device: device.clone(),
            ports,
            nodes: vec![],
            sizes,
            vals: vec![],
            at: String::new(),
            counted: 0,
            steps: 0,
        }
    }

    /// The value of port `p`.
    pub fn port(&mut self, p: usize, elem: Elem) -> V {
        let sizes = self.sizes[p].clone();
        self.value(Val { elem, sizes, held: Held::Graph { plain: Some(p), last: None }, note: None })
    }

    /// Goes through a graph's operations; `given` are its inputs by name. The values of its outputs.
    pub fn graph(&mut self, graph: &'m proto::Graph, given: Vec<(&'m str, V)>, wanted: &[&str]) -> Result<Vec<V>> {
        let mut names: HashMap<&str, V> = HashMap::new();
        let weights: HashMap<&str, &proto::Tensor> = graph.initializers.iter().map(|t| (&*t.name, t)).collect();
        names.extend(given);
        self.walk(&graph.nodes, names, &weights, wanted, None, 0)
    }

    fn walk(
        &mut self,
        nodes: &'m [proto::Node],
        names: HashMap<&'m str, V>,
        weights: &HashMap<&'m str, &'m proto::Tensor>,
        wanted: &[&str],
        outer: Option<&BTreeMap<String, proto::Attribute>>,
        depth: usize,
    ) -> Result<Vec<V>> {
        let mut users: HashMap<&str, Vec<usize>> = HashMap::new();
        let needed = needed(nodes, wanted, &mut users);
        let mut scope = Scope { names, weights };
        for (i, node) in nodes.iter().enumerate().filter(|(i, _)| needed[*i]) {
            crate::host::check_cancelled()?;
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err(Error::new(
                    Kind::Memory,
                    format!("its functions come to more than {MOST_STEPS} operations"),
                ));
            }
            let name = match (&*node.name, node.outputs.first()) {
                ("", Some(out)) => out.clone(),
                ("", None) => format!("{}.{}", node.op, i + 1),
                (name, _) => name.to_string(),
            };
            if depth == 0 {
                self.at.clone_from(&name);
            }
            let told = |e: Error| match e.kind() {
                Kind::Cancelled | Kind::Memory => e,
                _ => e.context(format!("node `{name}` ({})", node.op)),
            };
            let inputs =
                node.inputs.iter().map(|n| self.named(n, &mut scope)).collect::<Result<Vec<_>>>().map_err(told)?;
            let mut added = None;
            if let ("MatMul", Some(out)) = (&*node.op, node.outputs.first())
                && let Some([next]) = users.get(&**out).map(|u| &u[..])
                && let ("Add", [a, b]) = (&*nodes[*next].op, &nodes[*next].inputs[..])
                && !wanted.contains(&&**out)
            {
                // unless it is made only later
                let other = if a == out { b } else { a };
                if scope.names.contains_key(&**other) || scope.weights.contains_key(&**other) {
                    added = self.named(other, &mut scope)?;
                }
            }
            let step = Step { node, inputs, added, outer };
            let made = self.one(&step, depth).map_err(told)?;
            for (name, v) in node.outputs.iter().zip(made) {
                if !name.is_empty() && scope.names.insert(name, v).is_some() {
                    return Err(told(Error::new(Kind::Format, format!("it makes `{name}`, which is made before it"))));
                }
            }
        }
        let find = |n: &&str| {
            let lost = || Error::new(Kind::Format, format!("no operation makes its output `{n}`"));
            self.named(n, &mut scope)?.ok_or_else(lost)
        };
        wanted.iter().map(find).collect()
    }

    /// The value of a name; weights are read when they are first asked for.
    fn named(&mut self, name: &str, scope: &mut Scope<'_, 'm>) -> Result<Option<V>> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(v) = scope.names.get(name) {
            return Ok(Some(*v));
        }
        let Some((name, t)) = scope.weights.get_key_value(name) else {
            let m = format!("it takes `{name}`, which nothing before it makes");
            return Err(Error::new(Kind::Format, m).hint("the file is damaged, or its operations go in a circle"));
        };
        let array = data::read(t, self.beside).map_err(|e| e.context(format!("the weight `{name}`")))?;
        let v = self.array(array)?;
        scope.names.insert(name, v);
        Ok(Some(v))
    }

    fn one(&mut self, step: &Step<'_>, depth: usize) -> Result<Vec<V>> {
        let node = step.node;
        let own =
            self.functions.iter().find(|f| f.name == node.op && f.domain == node.domain && f.overload == node.overload);
        let Some(function) = own else { return ops::lower(self, step) };
        if depth >= DEPTH {
            return Err(Error::new(Kind::Format, format!("functions within functions, more than {DEPTH} deep")));
        }
        let mut attributes: BTreeMap<String, proto::Attribute> = BTreeMap::new();
        for a in function.defaults.iter().chain(&node.attributes) {
            attributes.insert(a.name.clone(), step.resolved(a).cloned().unwrap_or_else(|| a.clone()));
        }
        let names = function.inputs.iter().zip(&step.inputs).filter_map(|(n, v)| Some((&**n, (*v)?))).collect();
        let wanted: Vec<&str> = function.outputs.iter().map(|s| &**s).collect();
        self.walk(&function.nodes, names, &HashMap::new(), &wanted, Some(&attributes), depth + 1)
    }

    /// The graph with these outputs, and what it takes of the memory.
    pub fn finished(mut self, outputs: &[(String, V)]) -> Result<Graph> {
        /// Values of one thread's share of a batch: enough to fill vectors, few enough for the caches.
        const SHARE: usize = 1 << 14;
        let mut outs = vec![];
        for (name, v) in outputs {
            if !self.in_graph(*v) {
                return Err(Error::value(format!("its output `{name}` does not depend on its inputs")));
            }
            let value = self.plain(*v)?;
            outs.push(Output { name: name.clone(), value, layout: Layout::Plain });
        }
        let most = self.sizes.iter().map(|s| s.iter().map(|s| s.of(1)).product::<usize>()).max().unwrap_or(1).max(1);
        let names: Vec<&str> = outputs.iter().map(|(n, _)| &**n).collect();
        let graph = Graph::new(self.ports, self.nodes, outs, false).only(&names)?.in_parts_of(SHARE / most);
        Ok(if self.alone { graph.one_by_one() } else { graph })
    }
}

/// Which operations the outputs need; notes who uses what.
fn needed<'m>(nodes: &'m [proto::Node], wanted: &[&str], users: &mut HashMap<&'m str, Vec<usize>>) -> Vec<bool> {
    let mut names: std::collections::HashSet<&str> = wanted.iter().copied().collect();
    let mut needed = vec![false; nodes.len()];
    for (i, node) in nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|o| names.contains(&**o)) {
            needed[i] = true;
            for n in node.inputs.iter().filter(|n| !n.is_empty()) {
                names.insert(n);
                users.entry(n).or_default().push(i);
            }
        }
    }
    needed
}

impl<'m> Step<'m> {
    /// The attribute that one stands for, inside a function.
    fn resolved<'a>(&'a self, a: &'a proto::Attribute) -> Option<&'a proto::Attribute> {
        if a.stands_for.is_empty() {
            return Some(a);
        }
        self.outer.and_then(|o| o.get(&a.stands_for))
    }
    /// An attribute by its name.
    pub fn attribute(&self, name: &str) -> Option<&proto::Attribute> {
        self.node.attributes.iter().find(|a| a.name == name).and_then(|a| self.resolved(a))
    }
    /// A whole number.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }
    /// A number.
    pub fn float(&self, name: &str, default: f64) -> f64 {
        // the shortest decimal: 1e-5 and not 9.999999747378752e-6
        self.attribute(name).map_or(default, |a| a.f.to_string().parse().unwrap_or(f64::from(a.f)))
    }
    /// A text.
    pub fn text(&self, name: &str, default: &str) -> String {
        self.attribute(name).map_or(default.into(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }
    /// Whole numbers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| &a.ints[..])
    }
    /// An input that may be left out.
    pub fn maybe(&self, i: usize) -> Option<V> {
        self.inputs.get(i).copied().flatten()
    }
    /// An input.
    pub fn input(&self, i: usize) -> Result<V> {
        self.maybe(i).ok_or_else(|| Error::new(Kind::Format, format!("its input {} is missing", i + 1)))
    }
}
