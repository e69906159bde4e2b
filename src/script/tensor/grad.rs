//! Autograd: `variable`, `grad`, `vjp`, `no_grad`, `checkpoint`, `detach`.
use super::{Defs, args};
use crate::host::{Callback, Value};
use crate::script::error::RhaiResult;
use crate::script::host::{ScriptHost, callback};
use crate::script::trace;
use crate::tensor::grad::{self, Block};
use crate::{Error, Kind};
use candle_core::Tensor;
use rhai::{Array, Dynamic, FnPtr, NativeCallContext};
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

/// Gradients in the form in which the variables were given: one, or an array.
fn like(vars: &Dynamic, grads: Vec<Tensor>) -> Dynamic {
    let mut grads = grads.into_iter().map(Dynamic::from);
    if vars.is_array() { grads.collect::<Array>().into() } else { grads.next().unwrap_or(Dynamic::UNIT) }
}

fn gradient(ctx: NativeCallContext, loss: Tensor, vars: Dynamic) -> RhaiResult<Dynamic> {
    let host = ScriptHost::new(&ctx);
    let grads = grad::grad(&host, &loss, &list("grad: the variables", &vars)?)?;
    Ok(like(&vars, grads))
}

fn vjp(ctx: NativeCallContext, outputs: Dynamic, cots: Dynamic, vars: Dynamic) -> RhaiResult<Dynamic> {
    let (o, c) = (list("vjp: the outputs", &outputs)?, list("vjp: the cotangents", &cots)?);
    if o.len() != c.len() {
        let m = format!("vjp: got {} outputs and {} cotangents", o.len(), c.len());
        return Err(Error::value(m).hint("one cotangent for each output, of the same shape").into());
    }
    let host = ScriptHost::new(&ctx);
    let pairs: Vec<(Tensor, Tensor)> = o.into_iter().zip(c).collect();
    let grads = grad::vjp(&host, &pairs, &list("vjp: the variables", &vars)?)?;
    Ok(like(&vars, grads))
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
    let doc = "The gradient of a scalar loss with respect to a variable, or to each in an array.\n\n\
               Zeros where nothing flows. It goes through tensors, samples, denoisers and `checkpoint` alike.\n\n\
               Example: `let a = variable(ones([2])); let b = variable(ones([2])); grad((a * b * b).sum(), [a, b])`";
    d.add("grad", "loss: Tensor, vars: array -> array", doc, gradient);
    let doc = "Σ ⟨cotangent, output⟩ differentiated with respect to variables: the vector-Jacobian product.\n\n\
               Outputs and cotangents are tensors, or arrays of as many, of the same shapes.\n\n\
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
