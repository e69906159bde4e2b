//! Autograd: `variable`, `grad`, `vjp`, `no_grad`, `checkpoint`, `detach`.
use super::{Defs, args};
use crate::host::{Callback, Value};
use crate::script::error::RhaiResult;
use crate::script::host::{ScriptHost, callback};
use crate::script::trace;
use crate::script::tree::Tree;
use crate::tensor::grad::{self, Block};
use crate::{Error, Kind};
use candle_core::Tensor;
use rhai::{Array, Dynamic, FnPtr, Map, NativeCallContext};
use std::rc::Rc;

fn variable(x: Tensor) -> RhaiResult<Tensor> {
    crate::tensor::dtype::want_float("variable", &x)?;
    Ok(grad::variable(&x)?)
}

/// Outputs and cotangents, each one tensor or an array of as many.
fn list(what: &str, v: &Dynamic) -> Result<Vec<Tensor>, Error> {
    match v.read_lock::<Array>() {
        Some(l) => args::tensors(what, &l),
        None => Ok(vec![args::tensor(what, v)?]),
    }
}

/// The variables of a tree.
fn variables(what: &str, v: &Dynamic) -> Result<Tree, Error> {
    let tree = Tree::read(&format!("{what}: the variables"), v)?;
    let constant = tree.leaves.iter().zip(&tree.paths).find(|(t, path)| !path.is_empty() && !t.is_variable());
    if let Some((t, path)) = constant {
        let m = format!("{what}: `{path}`, a tensor of shape {:?}, is not a variable", t.dims());
        let e = Error::new(Kind::Value, m).shapes(&[t.dims()]);
        return Err(
            e.hint("make the whole tree one with `let v = variable(tree)` and compute the loss from that same `v`")
        );
    }
    Ok(tree)
}

fn gradient(ctx: NativeCallContext, loss: Tensor, vars: Dynamic) -> RhaiResult<Dynamic> {
    let host = ScriptHost::new(&ctx);
    let tree = variables("grad", &vars)?;
    Ok(tree.build(grad::grad(&host, &loss, &tree.leaves)?))
}

fn variable_tree(tree: Dynamic) -> RhaiResult<Dynamic> {
    let tree = Tree::read("variable: the tree", &tree)?;
    for (t, path) in tree.leaves.iter().zip(&tree.paths) {
        crate::tensor::dtype::want_float("variable", t).map_err(|e| e.context(format!("`{path}`")))?;
    }
    tree.map(grad::variable)
}

fn vjp(ctx: NativeCallContext, outputs: Dynamic, cots: Dynamic, vars: Dynamic) -> RhaiResult<Dynamic> {
    let o = Tree::read("vjp: the outputs", &outputs)?;
    let c = Tree::read("vjp: the cotangents", &cots)?;
    if o.leaves.len() != c.leaves.len() {
        let m = format!("vjp: got {} outputs and {} cotangents", o.leaves.len(), c.leaves.len());
        return Err(Error::value(m).hint("one cotangent for each output, of the same shape").into());
    }
    let c = o.like("the outputs", "vjp: the cotangents", &cots)?;
    let host = ScriptHost::new(&ctx);
    let pairs: Vec<(Tensor, Tensor)> = o.leaves.into_iter().zip(c.leaves).collect();
    let tree = variables("vjp", &vars)?;
    Ok(tree.build(grad::vjp(&host, &pairs, &tree.leaves)?))
}

fn no_grad(ctx: NativeCallContext, f: FnPtr) -> RhaiResult<Dynamic> {
    // what happens inside is recorded like all else, and would have gradients
    trace::refuse("`no_grad` in it");
    grad::no_grad(|| f.call_raw(&ctx, None, []))
}

/// A script's function as a block to run and run again.
fn block(f: Callback) -> Block {
    Rc::new(move |host, inputs| {
        let args = inputs.iter().cloned().map(Value::Tensor).collect();
        match host.call(&f, args)? {
            Value::Tensor(t) => Ok(vec![t]),
            _ => {
                let e = Error::new(Kind::Type, "checkpoint: the function must return a tensor");
                Err(e.hint("to keep several results, `cat` or `stack` them"))
            }
        }
    })
}

fn checkpoint(ctx: NativeCallContext, f: FnPtr, x: Dynamic) -> RhaiResult<Tensor> {
    let inputs = list("checkpoint: the arguments", &x)?;
    let host = ScriptHost::new(&ctx);
    let mut outs = grad::checkpoint(&host, block(callback(f)), &inputs)?;
    Ok(outs.remove(0))
}

pub(super) fn register(d: &mut Defs) {
    let doc = "A fresh variable with the values of `x`: what `grad` differentiates with respect to.\n\n\
               Errors on integers: only floating point has gradients.\n\nExample: `let v = variable(tensor([1.0, 2.0])); grad((v * v).sum(), v)` is [2, 4]";
    d.add("variable", "x: Tensor -> Tensor", doc, variable);
    let doc = "The tree of fresh variables with the values of a tree of tensors (maps and arrays, one in the other).\n\n\
               Errors name the leaf that is no floating-point tensor.\n\nExample: `let p = variable(#{ w: ones([2]), layers: [#{ b: zeros([2]) }] }); grad((p.w * 3.0 + p.layers[0].b).sum(), p).layers[0].b` is [1, 1]";
    d.add("variable", "tree: map -> map", doc, |m: Map| variable_tree(m.into()));
    d.add("variable", "tree: array -> array", doc, |a: Array| variable_tree(a.into()));
    let doc = "The gradient of a scalar loss with respect to a variable, or to each in a tree (maps and arrays, one in the other), of that structure.\n\n\
               Zeros where nothing flows. Errors name the leaf that is no variable. It goes through tensors, samples, denoisers and `checkpoint` alike.\n\n\
               Example: `let a = variable(ones([2])); let b = variable(ones([2])); grad((a * b * b).sum(), [a, b])`";
    d.add("grad", "loss: Tensor, vars: array -> array", doc, gradient);
    let doc = "Σ ⟨cotangent, output⟩ differentiated with respect to variables: the vector-Jacobian product.\n\n\
               Outputs and cotangents are tensors, or trees of the same structure and shapes; variables are a tensor or a tree.\n\n\
               Example: `let v = variable(tensor([1.0, 2.0])); let y = v * v; vjp(y, ones_like(y), v)` is [2, 4]";
    d.add("vjp", "outputs: array, cotangents: array, vars: array -> array", doc, vjp);
    let doc = "Runs a function without recording gradients: its tensors are constants.\n\n\
               Example: `let v = variable(ones([2])); no_grad(|| v * 2.0).tracked` is false";
    d.add("no_grad", "f: Fn -> any", doc, no_grad);
    let doc = "f(x) without keeping what lies between: the backward pass runs f again.\n\n\
               `x` is a tensor or an array of tensors (the arguments of f), the result a tensor. Gradients also flow to \
               variables that f captures. f must do the same both times.\n\nExample: `let v = variable(ones([2])); grad(checkpoint(|x| x.exp().sin(), v).sum(), v)`";
    d.add("checkpoint", "f: Fn, x: Tensor -> Tensor", doc, checkpoint);
    let doc = "The same values as a constant, through which no gradient flows.\n\nExample: `let v = variable(ones([2])); (v * 2.0).detach().tracked` is false";
    d.add("detach", "x: Tensor -> Tensor", doc, |x: Tensor| -> RhaiResult<Tensor> {
        let out = x.detach();
        // a constant is its own; where it is recorded it must be told from itself
        Ok(if trace::is_traced(&x) { out.reshape(x.shape()).map_err(Error::from)? } else { out })
    });
    d.getter("tracked", "bool", "Whether gradients flow through the tensor.", |x: &mut Tensor| grad::is_tracked(x));
}
