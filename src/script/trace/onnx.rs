//! Runs ONNX graphs by the tensor operations of scripts: once, to be traced. Shapes are computed as they are met.
use super::native::call;
use crate::files::onnx::{Graph, Model, Node, dtype};
use crate::tensor::create::{to_f64, to_i64};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rhai::{Array, Dynamic, Map};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A model with its constants.
pub struct Imported {
    path: PathBuf,
    graph: Graph,
    constants: HashMap<String, Tensor>,
}

/// Functions of each value, by ONNX's name and by that in scripts.
const FUNCTIONS: [(&str, &str); 26] = [
    ("Abs", "abs"),
    ("Acos", "acos"),
    ("Asin", "asin"),
    ("Atan", "atan"),
    ("Ceil", "ceil"),
    ("Cos", "cos"),
    ("Cosh", "cosh"),
    ("Erf", "erf"),
    ("Exp", "exp"),
    ("Floor", "floor"),
    ("IsNaN", "isnan"),
    ("Log", "log"),
    ("Neg", "neg"),
    ("Not", "!"),
    ("Reciprocal", "recip"),
    ("Relu", "relu"),
    ("Round", "round"),
    ("Sigmoid", "sigmoid"),
    ("Sign", "sign"),
    ("Sin", "sin"),
    ("Sinh", "sinh"),
    ("Softplus", "softplus"),
    ("Sqrt", "sqrt"),
    ("Swish", "silu"),
    ("Tan", "tan"),
    ("Tanh", "tanh"),
];

/// Operations on two values.
const PAIRS: [(&str, &str); 13] = [
    ("Add", "+"),
    ("Sub", "-"),
    ("Mul", "*"),
    ("Div", "/"),
    ("And", "&"),
    ("Or", "|"),
    ("Xor", "^"),
    ("Equal", "=="),
    ("Greater", ">"),
    ("GreaterOrEqual", ">="),
    ("Less", "<"),
    ("LessOrEqual", "<="),
    ("MatMul", "matmul"),
];

/// Reductions.
const REDUCTIONS: [(&str, &str); 7] = [
    ("ReduceSum", "sum"),
    ("ReduceMean", "mean"),
    ("ReduceMax", "max"),
    ("ReduceMin", "min"),
    ("ReduceProd", "prod"),
    ("ReduceL2", "norm"),
    ("ReduceLogSumExp", "logsumexp"),
];

impl Imported {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Imported> {
        let model: Model = crate::files::onnx::read(path)?;
        let graph = model.graph.unwrap_or_default();
        let mut constants = HashMap::new();
        for stored in &graph.constants {
            constants.insert(stored.name.clone(), stored.tensor(path)?);
        }
        Ok(Imported { path: path.into(), graph, constants })
    }

    /// The inputs that are no constants, each with its sizes, and whether it takes integers.
    pub fn inputs(&self) -> Vec<(String, Vec<Option<usize>>, bool)> {
        let free = self.graph.inputs.iter().filter(|p| !self.constants.contains_key(&p.name));
        let whole = |kind: i32| dtype(kind).is_some_and(|d| d.is_int());
        free.map(|p| (p.name.clone(), p.sizes().unwrap_or_default(), whole(p.kind()))).collect()
    }

    /// The names of the outputs.
    pub fn outputs(&self) -> Vec<String> {
        self.graph.outputs.iter().map(|p| p.name.clone()).collect()
    }

    /// The operations that are not known, each once, with the first node that has it.
    pub fn missing(&self) -> Vec<String> {
        let mut found: Vec<(&str, String)> = vec![];
        for node in &self.graph.nodes {
            if !known(node) && !found.iter().any(|(op, _)| *op == node.op) {
                found.push((&node.op, format!("`{}` (node `{}`)", node.op, node.name)));
            }
        }
        found.into_iter().map(|f| f.1).collect()
    }

    /// A tensor in another type, recorded.
    pub fn cast(&self, x: &Tensor, to: DType) -> Result<Tensor> {
        one("to", vec![value(x), to.as_str().to_string().into()])
    }

    /// The output of that name.
    pub fn run(&self, given: &[(&str, Tensor)], output: &str) -> Result<Tensor> {
        let mut values = self.constants.clone();
        values.extend(given.iter().map(|(name, t)| (name.to_string(), t.clone())));
        for node in &self.graph.nodes {
            let told = |e: Error| {
                let m = format!("`{}`: node `{}` ({}): {}", self.path.display(), node.name, node.op, e.message());
                Error::new(Kind::Format, m)
            };
            let results = At { node, values: &values, path: &self.path }.run().map_err(told)?;
            for (name, t) in node.outputs.iter().zip(results) {
                values.insert(name.clone(), t);
            }
            if values.contains_key(output) {
                break;
            }
        }
        let lost = || Error::new(Kind::Format, format!("`{}` does not compute `{output}`", self.path.display()));
        values.remove(output).ok_or_else(lost)
    }
}

/// The operations that [`At::run`] knows besides those of the tables.
const OTHERS: [&str; 46] = [
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "Dropout",
    "Einsum",
    "Elu",
    "Expand",
    "Flatten",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GroupNormalization",
    "HardSigmoid",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "LogSoftmax",
    "Max",
    "MaxPool",
    "Min",
    "Mod",
    "Pad",
    "Pow",
    "RMSNormalization",
    "Range",
    "ReduceSumSquare",
    "Reshape",
    "Resize",
    "Shape",
    "Size",
    "Slice",
    "Softmax",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

fn known(node: &Node) -> bool {
    let op = &*node.op;
    let listed = |list: &[(&str, &str)]| list.iter().any(|(name, _)| *name == op);
    (node.domain.is_empty() || node.domain == "ai.onnx")
        && (listed(&FUNCTIONS) || listed(&PAIRS) || listed(&REDUCTIONS) || OTHERS.contains(&op) || op == "Where")
}

/// A node with the values before it.
struct At<'a> {
    node: &'a Node,
    values: &'a HashMap<String, Tensor>,
    path: &'a Path,
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(Kind::Format, what.into())
}

fn list(all: impl IntoIterator<Item = i64>) -> Dynamic {
    all.into_iter().map(Dynamic::from_int).collect::<Array>().into()
}

fn one(name: &str, args: Vec<Dynamic>) -> Result<Tensor> {
    call(name, args)?.pop().ok_or_else(|| refused(format!("`{name}` gave nothing")))
}

fn value(t: &Tensor) -> Dynamic {
    Dynamic::from(t.clone())
}

fn options<const N: usize>(all: [(&str, Dynamic); N]) -> Dynamic {
    all.into_iter().filter(|(_, v)| !v.is_unit()).map(|(k, v)| (k.into(), v)).collect::<Map>().into()
}

/// A dimension, negative ones from the end.
fn axis(i: i64, rank: usize) -> Result<usize> {
    let at = if i < 0 { i + rank as i64 } else { i };
    usize::try_from(at).ok().filter(|a| *a < rank.max(1)).ok_or_else(|| refused(format!("there is no dimension {i}")))
}

impl At<'_> {
    fn maybe(&self, i: usize) -> Option<&Tensor> {
        self.values.get(self.node.inputs.get(i).filter(|n| !n.is_empty())?)
    }
    fn input(&self, i: usize) -> Result<&Tensor> {
        self.maybe(i).ok_or_else(|| refused(format!("its input {i} is missing")))
    }
    fn attribute(&self, name: &str) -> Option<&crate::files::onnx::Attribute> {
        self.node.attributes.iter().find(|a| a.name == name)
    }
    fn integer(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }
    fn float(&self, name: &str, default: f32) -> f64 {
        // as the decimal number that was meant: 1e-5 is not 1e-5 widened from f32
        self.attribute(name).map_or(default, |a| a.f).to_string().parse().unwrap_or(f64::from(default))
    }
    fn text(&self, name: &str) -> String {
        self.attribute(name).map_or(String::new(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }
    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|a| a.ints.clone())
    }
    /// Integers that are an input, or in older sets an option.
    fn ints(&self, i: usize, name: &str) -> Result<Option<Vec<i64>>> {
        match self.maybe(i) {
            Some(t) => Ok(Some(self.whole(t)?)),
            None => Ok(self.integers(name)),
        }
    }
    /// The integers in a tensor that does not depend on the network's inputs.
    fn whole(&self, t: &Tensor) -> Result<Vec<i64>> {
        if super::record::is_traced(t) {
            return Err(refused("a shape or an index depends on values"));
        }
        to_i64(t)
    }
    fn number(&self, t: &Tensor) -> Result<f64> {
        match super::record::is_traced(t) {
            false if t.elem_count() == 1 => Ok(to_f64(t)?[0]),
            _ => Err(refused("a number depends on values")),
        }
    }
    /// The same number along all axes.
    fn same(&self, name: &str, default: i64) -> Result<i64> {
        match self.integers(name).as_deref() {
            None | Some([]) => Ok(default),
            Some([first, rest @ ..]) if rest.iter().all(|n| n == first) => Ok(*first),
            Some(other) => Err(refused(format!("`{name}` of {other:?} is not supported"))),
        }
    }
    /// Padding of images: left, right, top, bottom.
    fn sides(&self) -> Result<[i64; 4]> {
        if !["", "NOTSET", "VALID"].contains(&&*self.text("auto_pad")) {
            return Err(refused("`auto_pad` is not supported"));
        }
        match self.integers("pads").as_deref() {
            None | Some([]) => Ok([0; 4]),
            Some(&[top, left, bottom, right]) => Ok([left, right, top, bottom]),
            Some(other) => Err(refused(format!("`pads` of {other:?} is not supported: images only"))),
        }
    }
    /// The same padding on all sides.
    fn padding(&self) -> Result<i64> {
        match self.sides()? {
            [a, b, c, d] if a == b && a == c && a == d => Ok(a),
            other => Err(refused(format!("padding of {other:?} is not supported"))),
        }
    }

    fn run(&self) -> Result<Vec<Tensor>> {
        let op = &*self.node.op;
        let listed = |table: &[(&str, &'static str)]| table.iter().find(|(name, _)| *name == op).map(|(_, f)| *f);
        if !known(self.node) {
            return Err(refused("this operation is not known"));
        }
        if let Some(f) = listed(&FUNCTIONS) {
            return call(f, vec![value(self.input(0)?)]);
        }
        if let Some(f) = listed(&PAIRS) {
            return self.pair(f).map(|t| vec![t]);
        }
        if let Some(f) = listed(&REDUCTIONS) {
            return self.reduce(f, self.input(0)?).map(|t| vec![t]);
        }
        if op == "Split" {
            return self.split();
        }
        Ok(vec![match op {
            "Identity" | "Dropout" => self.input(0)?.clone(),
            "Constant" => self.constant()?,
            "Shape" | "Size" | "ConstantOfShape" | "Range" | "Gather" | "Cast" | "CastLike" | "Mod" => self.made()?,
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Expand" | "Tile" | "Concat" | "Slice"
            | "Pad" => self.shaped()?,
            "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "Resize" => self.image()?,
            "InstanceNormalization"
            | "GroupNormalization"
            | "LayerNormalization"
            | "BatchNormalization"
            | "RMSNormalization" => self.norm()?,
            "Gemm" => self.gemm()?,
            "Einsum" => {
                let all: Array =
                    (0..self.node.inputs.len()).map(|i| Ok(value(self.input(i)?))).collect::<Result<_>>()?;
                one("einsum", vec![self.text("equation").replace(' ', "").into(), all.into()])?
            }
            "Softmax" | "LogSoftmax" => {
                let f = if op == "Softmax" { "softmax" } else { "log_softmax" };
                one(f, vec![value(self.input(0)?), self.integer("axis", -1).into()])?
            }
            _ => self.pointwise()?,
        }])
    }

    fn pair(&self, f: &str) -> Result<Tensor> {
        let (a, b) = (self.input(0)?, self.input(1)?);
        if f == "/" && a.dtype().is_int() && b.dtype().is_int() {
            let (a, b) = (one("to", vec![value(a), "f64".into()])?, one("to", vec![value(b), "f64".into()])?);
            let quotient = one("trunc", vec![value(&one(f, vec![value(&a), value(&b)])?)])?;
            return one("to", vec![value(&quotient), "i64".into()]);
        }
        one(f, vec![value(a), value(b)])
    }

    fn reduce(&self, f: &str, x: &Tensor) -> Result<Tensor> {
        let keep = self.integer("keepdims", 1) != 0;
        let axes = self.ints(1, "axes")?.filter(|a| !a.is_empty());
        let axes = match axes {
            None if self.integer("noop_with_empty_axes", 0) != 0 => return Ok(x.clone()),
            None => (0..x.rank() as i64).collect(),
            Some(a) => a,
        };
        one(f, vec![value(x), list(axes), keep.into()])
    }

    fn constant(&self) -> Result<Tensor> {
        let device = Device::Cpu;
        let empty = || refused("a constant without a value");
        let a = self.node.attributes.first().ok_or_else(empty)?;
        Ok(match &*a.name {
            "value" => a.t.as_ref().ok_or_else(empty)?.tensor(self.path)?,
            "value_float" => Tensor::new(a.f, &device)?,
            "value_int" => Tensor::new(a.i, &device)?,
            "value_floats" => Tensor::new(&a.floats[..], &device)?,
            "value_ints" => Tensor::new(&a.ints[..], &device)?,
            other => return Err(refused(format!("a constant by `{other}` is not supported"))),
        })
    }

    fn made(&self) -> Result<Tensor> {
        let device = Device::Cpu;
        Ok(match &*self.node.op {
            "Shape" => {
                let dims: Vec<i64> = self.input(0)?.dims().iter().map(|n| *n as i64).collect();
                let rank = dims.len() as i64;
                let at = |i: i64| (if i < 0 { i + rank } else { i }).clamp(0, rank) as usize;
                let (start, end) = (at(self.integer("start", 0)), at(self.integer("end", rank)));
                Tensor::new(&dims[start.min(end)..end], &device)?
            }
            "Size" => Tensor::new(self.input(0)?.elem_count() as i64, &device)?,
            "ConstantOfShape" => {
                let dims = self.whole(self.input(0)?)?.into_iter().map(|n| n.max(0) as usize).collect::<Vec<_>>();
                let fill = match self.attribute("value").and_then(|a| a.t.as_ref()) {
                    Some(t) => t.tensor(self.path)?.flatten_all()?,
                    None => Tensor::zeros(1, DType::F32, &device)?,
                };
                fill.reshape(vec![1; dims.len()])?.broadcast_as(dims)?.contiguous()?
            }
            "Range" => {
                let (a, b, s) = (self.input(0)?, self.input(1)?, self.input(2)?);
                if a.dtype().is_int() {
                    let first = |t: &Tensor| self.whole(t)?.first().copied().ok_or_else(|| refused("an empty bound"));
                    crate::tensor::create::arange_int(first(a)?, first(b)?, first(s)?, DType::I64, &device)?
                } else {
                    let [x, y, z] = [self.number(a)?, self.number(b)?, self.number(s)?];
                    crate::tensor::create::arange(x, y, z, a.dtype(), &device)?
                }
            }
            "Gather" => {
                let (x, at) = (self.input(0)?, self.input(1)?);
                let d = axis(self.integer("axis", 0), x.rank())?;
                if super::record::is_traced(at) {
                    match d {
                        0 if !super::record::is_traced(x) => one("embedding", vec![value(x), value(at)])?,
                        _ => return Err(refused("an index depends on values")),
                    }
                } else if at.rank() == 0 {
                    one("select", vec![value(x), (d as i64).into(), (self.number(at)? as i64).into()])?
                } else {
                    let n = x.dims()[d] as i64;
                    let places: Vec<i64> = self.whole(at)?.into_iter().map(|i| if i < 0 { i + n } else { i }).collect();
                    let taken = one("index", vec![value(x), (d as i64).into(), list(places)])?;
                    if at.rank() == 1 {
                        taken
                    } else {
                        let dims = [&x.dims()[..d], at.dims(), &x.dims()[d + 1..]].concat();
                        one("reshape", vec![value(&taken), list(dims.into_iter().map(|n| n as i64))])?
                    }
                }
            }
            "Mod" => {
                let (a, b) = (self.input(0)?, self.input(1)?);
                if self.integer("fmod", 0) != 0 {
                    return Err(refused("`fmod` is not supported"));
                }
                one("%", vec![value(a), value(b)])?
            }
            _ => {
                let x = self.input(0)?;
                let to = match &*self.node.op {
                    "Cast" => dtype(self.integer("to", 1) as i32),
                    _ => Some(self.input(1)?.dtype()),
                };
                let to = to.ok_or_else(|| refused("a type that is not supported"))?;
                if x.dtype() == to {
                    return Ok(x.clone());
                }
                one("to", vec![value(x), to.as_str().to_string().into()])?
            }
        })
    }

    fn gemm(&self) -> Result<Tensor> {
        let turned = |i: usize, name: &str| -> Result<Tensor> {
            let t = self.input(i)?;
            if self.integer(name, 0) != 0 { one("t", vec![value(t)]) } else { Ok(t.clone()) }
        };
        let (alpha, beta) = (self.float("alpha", 1.0), self.float("beta", 1.0));
        let mut y = one("matmul", vec![value(&turned(0, "transA")?), value(&turned(1, "transB")?)])?;
        if alpha != 1.0 {
            y = one("*", vec![value(&y), alpha.into()])?;
        }
        let Some(c) = self.maybe(2) else { return Ok(y) };
        let c = if beta == 1.0 { c.clone() } else { one("*", vec![value(c), beta.into()])? };
        one("+", vec![value(&y), value(&c)])
    }
}

/// Shapes, images and norms.
#[path = "onnx_layers.rs"]
mod layers;
