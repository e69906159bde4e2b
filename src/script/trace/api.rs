//! Module `graph`: functions of scripts and networks of other frameworks as graphs, for scripts.
use super::{Traced, trace};
use crate::nets::onnx::{self, Imported};
use crate::schema::{Kind as Of, Schema, value};
use crate::script::error::RhaiResult;
use crate::tensor::grad::result;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, INT, ImmutableString, Map, NativeCallContext};
use std::path::Path;
use std::rc::Rc;

const ONNX: Schema = Schema::new(
    "graph::onnx",
    &[
        value(
            "shapes",
            Of::List(&Of::SIZES, 0),
            "the file's",
            "one sample's shape for each input, where the file leaves sizes open",
        ),
        value("output", Of::Text, "the first", "the name of the output"),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[ONNX];

/// A traced function as scripts hold it.
#[derive(Clone)]
pub struct TracedGraph(Rc<Traced>);

impl TracedGraph {
    fn run(&self, given: &[&Tensor]) -> RhaiResult<Tensor> {
        let ports = &self.0.runner.graph().inputs;
        if ports.len() != given.len() {
            let m = format!("this graph takes {} arguments, got {}", ports.len(), given.len());
            return Err(Error::value(m).into());
        }
        let given: Vec<(&str, &Tensor)> = ports.iter().map(|p| &*p.name).zip(given.iter().copied()).collect();
        let mut outs = self.0.runner.forward(&given)?;
        let lost = || Error::new(Kind::Internal, "a graph without a result");
        Ok(result(outs.pop().ok_or_else(lost)?))
    }
}

/// Adds the module to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<TracedGraph>("Graph");
    engine.register_static_module("graph", rhai::exported_module!(graph_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

/// The sizes of one sample of an argument.
fn sizes(v: &Dynamic) -> Result<Vec<usize>> {
    let wrong = || {
        let e = Error::new(Kind::Type, "graph::trace: the shapes must be arrays of sizes ≥ 1, one for each argument");
        e.hint("one sample's, without the batch: `[[3, 8, 8], []]` for images and a number each")
    };
    let list = v.read_lock::<Array>().ok_or_else(wrong)?;
    let size = |v: &Dynamic| v.as_int().ok().and_then(|i| usize::try_from(i).ok()).filter(|n| *n > 0);
    list.iter().map(|v| size(v).ok_or_else(wrong)).collect()
}

/// Functions of scripts as graphs.
#[export_module]
pub mod graph_api {
    /// The graph of a function of tensors: run once on probes and recorded, it is run by kernels from then on, without the script.
    ///
    /// `shapes` has one sample's shape for each argument, without the batch, which may then have any size. The function returns a tensor
    /// with the batch in front, and treats each sample by itself. Tensors that it captures are constants. Values are within 5e-4 of
    /// the function's, relative to the largest, or this is an error. Arithmetic is f32.
    ///
    /// Errors where the function cannot be a graph, and says where: what it does must not depend on values (`item()`, loops until
    /// something is small), nor on other samples of the batch.
    ///
    /// Example: `let g = graph::trace(|x, t| x * t.reshape([-1, 1]), [[4], []]); g.run(ones([2, 4]), ones([2])).shape` is [2, 4]
    #[rhai_fn(name = "trace", return_raw)]
    pub fn trace_function(context: NativeCallContext, function: FnPtr, shapes: Array) -> RhaiResult<TracedGraph> {
        let shapes = shapes.iter().map(sizes).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = (1..=shapes.len()).map(|i| format!("x{i}")).collect();
        let arguments: Vec<_> = names.iter().zip(shapes).map(|(n, s)| (&**n, s, false)).collect();
        let made = trace::<Box<EvalAltResult>>(&arguments, |given| {
            let args: Vec<Dynamic> = given.iter().cloned().map(Dynamic::from).collect();
            let y = function.call_raw(&context, None, args)?;
            let kind = context.engine().map_type_name(y.type_name()).to_string();
            let wrong =
                |_| Error::new(Kind::Type, format!("graph::trace: the function must return a tensor, not {kind}"));
            Ok(y.flatten().try_cast_result::<Tensor>().map_err(wrong)?)
        })?;
        match made {
            Ok(traced) => Ok(TracedGraph(Rc::new(traced))),
            Err(refusal) => {
                let at = if refusal.at.is_none() { String::new() } else { format!(" ({})", refusal.at) };
                let e = Error::value(format!("graph::trace: the function cannot be a graph: {}{at}", refusal.why));
                Err(e.hint("what it does may depend on shapes, not on values or on other samples").into())
            }
        }
    }
    /// Any network of an ONNX file as a graph: an autoencoder's decoder, a trunk of features. Its inputs are the graph's arguments in order, each
    /// with the batch in front; its first output is the graph's value.
    ///
    /// Arithmetic is f32. Errors name the file, and the operation and node that cannot be run.
    ///
    /// Example: `graph::onnx("network.onnx").run(zeros([2, 1, 8, 8]), ones([2])).shape` is [2, 1, 8, 8]
    #[rhai_fn(name = "onnx", return_raw)]
    pub fn from_onnx(path: ImmutableString) -> RhaiResult<TracedGraph> {
        imported(&path, None, None)
    }
    /// Any network of an ONNX file as a graph: an autoencoder's decoder, a trunk of features, with options.
    ///
    /// Its inputs are the graph's arguments in order, each with the batch in front. Arithmetic is f32. Errors name the file, and the operation and
    /// node that cannot be run.
    ///
    /// Example: `graph::onnx("network.onnx", #{ shapes: [[1, 8, 8], []] }).run(zeros([2, 1, 8, 8]), ones([2])).shape` is [2, 1, 8, 8]
    #[rhai_fn(name = "onnx", return_raw)]
    pub fn from_onnx_options(path: ImmutableString, options: Map) -> RhaiResult<TracedGraph> {
        let o = ONNX.read(options)?;
        let shapes = o.lists("shapes").map(|all| all.iter().map(|s| s.iter().map(|n| *n as usize).collect()).collect());
        let shapes: Option<Vec<Vec<usize>>> = shapes;
        imported(&path, shapes.as_deref(), o.some_text("output").as_deref())
    }
}

/// A graph from a file.
fn imported(path: &str, shapes: Option<&[Vec<usize>]>, output: Option<&str>) -> RhaiResult<TracedGraph> {
    let Imported { runner, hash } = onnx::function(Path::new(path), shapes, output, candle_core::DType::F32)?;
    Ok(TracedGraph(Rc::new(Traced { runner, hash })))
}

/// What a graph can be asked.
#[export_module]
mod methods {
    /// The graph's value for a batch, a tensor like its first argument in type; differentiable in its arguments.
    ///
    /// Errors on shapes other than those that it was traced for.
    ///
    /// Example: `graph::trace(|x| x.exp(), [[3]]).run(zeros([2, 3]))`
    #[rhai_fn(return_raw, pure)]
    pub fn run(graph: &mut TracedGraph, x: Tensor) -> RhaiResult<Tensor> {
        graph.run(&[&x])
    }
    /// The same for a graph of two arguments.
    ///
    /// Example: `graph::trace(|x, t| x + t.reshape([-1, 1]), [[3], []]).run(zeros([2, 3]), ones([2]))`
    #[rhai_fn(name = "run", return_raw, pure)]
    pub fn run_two(graph: &mut TracedGraph, x: Tensor, y: Tensor) -> RhaiResult<Tensor> {
        graph.run(&[&x, &y])
    }
    /// The same for a graph of any number of arguments.
    ///
    /// Example: `graph::trace(|a, b, c| a * b + c, [[2], [2], [2]]).run([ones([1, 2]), ones([1, 2]), ones([1, 2])])`
    #[rhai_fn(name = "run", return_raw, pure)]
    pub fn run_all(graph: &mut TracedGraph, arguments: Array) -> RhaiResult<Tensor> {
        let given = crate::script::tensor::list_of("run: the arguments", &arguments)?;
        graph.run(&given.iter().collect::<Vec<_>>())
    }
    /// SHA-256 of the operations and all constants: what tells this graph from others.
    ///
    /// Example: `graph::trace(|x| x + 1, [[2]]).hash == graph::trace(|x| x + 2, [[2]]).hash` is false
    #[rhai_fn(get = "hash", pure)]
    pub fn hash(graph: &mut TracedGraph) -> ImmutableString {
        (&*graph.0.hash).into()
    }
    /// How many operations the graph has.
    ///
    /// Example: `graph::trace(|x| x.exp(), [[2]]).operations` is 1
    #[rhai_fn(get = "operations", pure)]
    pub fn operations(graph: &mut TracedGraph) -> INT {
        graph.0.runner.graph().nodes.len() as INT
    }
    /// Inputs, operations and outputs, a line for each.
    #[rhai_fn(global, name = "to_string", name = "to_debug", pure)]
    pub fn text(graph: &mut TracedGraph) -> String {
        graph.0.runner.graph().to_string().trim_end().to_string()
    }
}
