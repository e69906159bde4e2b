//! Rhai functions for tensors, autograd, and arrays on disk.
//!
//! Rhai's "Tensor" is `candle_core::Tensor` itself. Every function is registered with its signature and doc comment
//! (they feed `help`); operations return detached results inside `no_grad`.
mod args;
mod create;
mod elementwise;
mod files;
mod grad;
mod index;
mod nn;
mod operators;
mod reduce;
mod shape;

pub(in crate::script) use args::number as number_of;
pub(in crate::script) use args::tensors as list_of;
pub(in crate::script) use index::part_of;

use crate::schema::Schema;
use crate::script::error::RhaiResult;
use crate::script::trace::Watched;
use crate::tensor::aside;
use candle_core::{Device, Tensor};
use rhai::{Engine, FuncRegistration, RhaiNativeFunc, Variant};

/// Options of this area's functions.
pub const SCHEMAS: &[&[Schema]] = &[create::SCHEMAS, nn::SCHEMAS];

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Tensor>("Tensor");
    let mut defs = Defs { engine };
    create::register(&mut defs);
    operators::register(&mut defs);
    elementwise::register(&mut defs);
    reduce::register(&mut defs);
    shape::register(&mut defs);
    index::register(&mut defs);
    nn::register(&mut defs);
    grad::register(&mut defs);
    files::register(&mut defs);
}

/// Functions that may give another result for the same arguments.
const VOLATILE: [&str; 10] =
    ["randn", "rand", "noise", "randint", "permutation", "manual_seed", "variable", "no_grad", "load", "save"];

/// Registers functions with their documentation.
struct Defs<'e> {
    engine: &'e mut Engine,
}

impl Defs<'_> {
    /// A global function: `signature` is `"x: Tensor, dim: int -> Tensor"`, `doc` its doc comment (the first line one
    /// sentence).
    fn add<A: 'static, const N: usize, const X: bool, R: Variant + Clone, const F: bool>(
        &mut self,
        name: &str,
        signature: &str,
        doc: &str,
        f: impl RhaiNativeFunc<A, N, X, R, F> + 'static,
    ) {
        let (params, out) = signature.split_once("->").unwrap_or((signature, "()"));
        let params = params.split(',').map(str::trim).filter(|p| !p.is_empty()).chain([out.trim()]);
        let comment: Vec<String> = doc.lines().map(|l| format!("/// {}", l.trim())).collect();
        FuncRegistration::new(name)
            .in_global_namespace()
            // a constant may be printed, indexed and reduced
            .with_purity(true)
            .with_volatility(VOLATILE.contains(&name))
            .with_params_info(params)
            .with_comments([comment.join("\n")])
            .register_into_engine(self.engine, Watched { name: name.into(), f });
    }
    /// A property.
    fn getter<A: 'static, const X: bool, R: Variant + Clone, const F: bool>(
        &mut self,
        name: &str,
        out: &str,
        doc: &str,
        f: impl RhaiNativeFunc<A, 1, X, R, F> + 'static,
    ) {
        self.add(&format!("get${name}"), &format!("x: Tensor -> {out}"), doc, f);
    }
}

/// The result of an operation on some tensors as scripts get it; Ctrl-C need not wait for it.
fn on<const N: usize>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&Tensor; N]) -> crate::Result<Tensor> + Send + 'static,
) -> RhaiResult<Tensor> {
    heavy(aside::load(&tensors), tensors, f)
}

/// [`on`] for an operation that touches `load` values.
fn heavy<const N: usize>(
    load: usize,
    tensors: [&Tensor; N],
    f: impl FnOnce([&Tensor; N]) -> crate::Result<Tensor> + Send + 'static,
) -> RhaiResult<Tensor> {
    let tensors = tensors.map(Tensor::clone);
    done(aside::run(load, move || f(tensors.each_ref())))
}

/// The values in a tensor of that shape on that device, as a load.
fn size(shape: &[usize], device: &Device) -> usize {
    if device.is_cpu() { shape.iter().fold(1, |n: usize, d| n.saturating_mul(*d)) } else { 0 }
}

/// The result of a cheap operation as scripts get it.
fn done(t: crate::Result<Tensor>) -> RhaiResult<Tensor> {
    Ok(crate::tensor::grad::result(t?))
}
