//! Module `tree`: what is done to whole trees of tensors.
use super::{Tree, nest};
use crate::Error;
use crate::optim::fused;
use crate::script::error::RhaiResult;
use crate::script::tensor::number_of as number;
use crate::script::trace;
use crate::tensor::aside;
use crate::tensor::grad::result;
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Dynamic, Engine, FnPtr, INT, Map, NativeCallContext};

/// Adds the module to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_static_module("tree", rhai::exported_module!(tree_api).into());
}

/// What an operation gives for all leaves at once; no operation of a graph.
fn done(
    tree: &Tree,
    others: Vec<Tensor>,
    f: impl FnOnce(&[Tensor], &[Tensor]) -> crate::Result<Vec<Tensor>> + Send + 'static,
) -> RhaiResult<Dynamic> {
    let leaves = tree.leaves.clone();
    if leaves.iter().chain(&others).any(trace::is_traced) {
        trace::refuse("arithmetic of whole trees in it");
    }
    let load = aside::load(&leaves.iter().collect::<Vec<_>>());
    Ok(tree.build(aside::run(load, move || f(&leaves, &others))?))
}

/// Trees of tensors: maps and arrays, one in the other, whose leaves are tensors, as the parameters of a network are.
#[export_module]
pub mod tree_api {
    /// The tree of what `f` makes of each tensor.
    ///
    /// Example: `tree::map(#{ w: ones([2]), layers: [#{ b: ones([3]) }] }, |x| x * 2.0).layers[0].b` is [2, 2, 2]
    #[rhai_fn(return_raw)]
    pub fn map(context: NativeCallContext, tree: Dynamic, f: FnPtr) -> RhaiResult<Dynamic> {
        let tree = Tree::read("tree::map: the tree", &tree)?;
        let mut made = vec![];
        for (leaf, path) in tree.leaves.iter().zip(&tree.paths) {
            let v: Dynamic = f.call_raw(&context, None, [Dynamic::from(leaf.clone())])?;
            let kind = crate::script::error::type_of(&v).to_string();
            let wrong = |_| {
                let at = if path.is_empty() { String::new() } else { format!(" at `{path}`") };
                Error::new(crate::Kind::Type, format!("tree::map: the function must return a tensor, not {kind}{at}"))
            };
            made.push(v.flatten().try_cast_result::<Tensor>().map_err(wrong)?);
        }
        Ok(tree.build(made))
    }
    /// The tensors by their paths with dots, as files have them: a map without maps in it.
    ///
    /// Example: `tree::flat(#{ layers: [#{ w: ones([2]) }] }).keys()` is ["layers.0.w"]
    #[rhai_fn(return_raw)]
    pub fn flat(tree: Dynamic) -> RhaiResult<Map> {
        let tree = Tree::read("tree::flat: the tree", &tree)?;
        let names = tree.dotted().map_err(|e| e.context("tree::flat"))?;
        Ok(names.into_iter().zip(tree.leaves).map(|(k, t)| (k.into(), Dynamic::from(t))).collect())
    }
    /// The tree of tensors by dotted names, as PyTorch's files have them: `layers.2.weight` becomes `layers[2].weight`.
    ///
    /// Names 0, 1, … without a gap make an array, all others a map. Errors where a name is a tensor's and the beginning of another's.
    ///
    /// Example: `tree::nest(#{ "layers.0.w": ones([2]), "layers.1.w": ones([3]) }).layers[1].w.shape` is [3]
    #[rhai_fn(name = "nest", return_raw)]
    pub fn nest_map(tensors: Map) -> RhaiResult<Dynamic> {
        let what = "tree::nest: the tensors";
        let flat = Tree::read(what, &tensors.clone().into())?;
        if !flat.is_flat() {
            return Err(Error::value(format!("{what} must be a map of tensors by name, without maps in it")).into());
        }
        Ok(nest(tensors.keys().map(|k| k.to_string()).zip(flat.leaves).collect())?)
    }
    /// How many values all tensors have together.
    ///
    /// Example: `tree::size(#{ w: ones([2, 3]), b: [ones([2])] })` is 8
    #[rhai_fn(return_raw)]
    pub fn size(tree: Dynamic) -> RhaiResult<INT> {
        let tree = Tree::read("tree::size: the tree", &tree)?;
        Ok(tree.leaves.iter().map(|t| t.elem_count() as INT).sum())
    }
    /// a + b for two trees of the same structure and shapes, as for the gradients of several batches; not differentiated.
    ///
    /// Example: `tree::add(#{ w: ones([2]) }, #{ w: ones([2]) }).w` is [2, 2]
    #[rhai_fn(return_raw)]
    pub fn add(a: Dynamic, b: Dynamic) -> RhaiResult<Dynamic> {
        let (a, b) = two("tree::add", &a, &b)?;
        done(&a, b.leaves, |a, b| fused::blend(a, b, 1.0, 1.0))
    }
    /// Every value times a number; not differentiated.
    ///
    /// Example: `tree::scale([ones([2])], 0.5)[0]` is [0.5, 0.5]
    #[rhai_fn(return_raw)]
    pub fn scale(tree: Dynamic, by: Dynamic) -> RhaiResult<Dynamic> {
        let by = number("tree::scale: the factor", &by)?;
        let tree = Tree::read("tree::scale: the tree", &tree)?;
        done(&tree, vec![], move |a, _| a.iter().map(|t| Ok(t.detach().affine(by, 0.0)?)).collect())
    }
    /// (1 − w)·a + w·b for two trees of the same structure and shapes: a step of a running mean; not differentiated.
    ///
    /// The exponential moving average of parameters with decay 0.999 is `mean = tree::lerp(mean, parameters, 0.001)`.
    ///
    /// Example: `tree::lerp(#{ w: zeros([2]) }, #{ w: ones([2]) }, 0.25).w` is [0.25, 0.25]
    #[rhai_fn(return_raw)]
    pub fn lerp(a: Dynamic, b: Dynamic, w: Dynamic) -> RhaiResult<Dynamic> {
        let w = number("tree::lerp: the weight", &w)?;
        let (a, b) = two("tree::lerp", &a, &b)?;
        done(&a, b.leaves, move |a, b| fused::blend(a, b, 1.0 - w, w))
    }
    /// The path of the first tensor with a value that is not finite (NaN or infinite); () if all are finite.
    ///
    /// Example: `tree::not_finite(#{ layers: [#{ w: ones([2]) / 0.0 }] })` is "layers[0].w"
    #[rhai_fn(return_raw)]
    pub fn not_finite(tree: Dynamic) -> RhaiResult<Dynamic> {
        let tree = Tree::read("tree::not_finite: the tree", &tree)?;
        if tree.leaves.iter().any(trace::is_traced) {
            trace::refuse("`tree::not_finite` reads values");
        }
        for (t, path) in tree.leaves.iter().zip(tree.paths) {
            if !fused::finite(t)? {
                return Ok(path.into());
            }
        }
        Ok(Dynamic::UNIT)
    }
    /// The tree of the same values as constants, through which no gradient flows.
    ///
    /// Example: `tree::detach(variable(#{ w: ones([2]) })).w.tracked` is false
    #[rhai_fn(return_raw)]
    pub fn detach(tree: Dynamic) -> RhaiResult<Dynamic> {
        let tree = Tree::read("tree::detach: the tree", &tree)?;
        if tree.leaves.iter().any(trace::is_traced) {
            trace::refuse("`tree::detach` in it");
        }
        tree.map(|t| Ok(result(t.detach())))
    }
}

/// Two trees of the same structure and shapes.
fn two(what: &str, a: &Dynamic, b: &Dynamic) -> crate::Result<(Tree, Tree)> {
    let a = Tree::read(&format!("{what}: the first tree"), a)?;
    let b = a.like("the first", &format!("{what}: the second tree's parts"), b)?;
    a.same_sizes(&b, what)?;
    Ok((a, b))
}
