//! The engine with everything registered.
use super::context::SharedRun;
use super::error::Caught;
use super::modules::Resolver;
use super::{
    bulk, closures, context, data, denoise, discretize, export, files, identity, loss, maps, method, metric, model,
    noise, numbers, optim, plan, profile, record, schema, search, sizes, tensor, text, tokens, trace, tree, waiting,
    world, zoo,
};
use crate::access::clean;
use crate::tensor::memory;
use rhai::packages::Package;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, ImmutableString, OptimizationLevel};

/// The size of the stack that the engine's thread needs for the limits set here, unless [`memory::stack`] is less.
pub const STACK: usize = 1 << 30;
/// The stack for a level of calls. Each level of a script function costs some kilobytes of stack, each passage through native
/// code more.
const LEVEL: usize = 128 << 10;
/// How deep expressions and blocks may nest in a script's text.
const NESTING: usize = 512;

/// An engine whose scripts belong to `run`. Must be used on a thread with a stack of [`STACK`] bytes.
pub fn new(run: &SharedRun) -> Engine {
    let mut engine = Engine::new_raw();
    rhai::packages::StandardPackage::new().register_into_engine(&mut engine);
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_max_call_levels(memory::stack().min(STACK) / LEVEL).set_max_expr_depths(NESTING, NESTING);
    engine.set_module_resolver(Resolver::new(run.clone()));
    let front = run.borrow().front.clone();
    front.register(&mut engine);
    let notes = front.clone();
    // names from files stand in them
    crate::host::on_note(move |text| notes.report(&format!("note: {}", clean(text))));
    engine.on_progress(move |_| match crate::host::cancel_requested() {
        true => Some(Dynamic::from(closures::Stopped::default())),
        // nobody sees what the script would still print
        false => front.is_closed().then_some(Dynamic::UNIT),
    });
    tokens::register(&mut engine, |_| None);
    numbers::register(&mut engine);
    sizes::register(&mut engine);
    maps::register(&mut engine);
    waiting::register(&mut engine);
    caught(&mut engine);
    closures::register(&mut engine);
    profile::register(&mut engine);
    context::register(&mut engine, run);
    record::register(&mut engine, run);
    for area in [
        tensor::register,
        noise::register,
        denoise::register,
        trace::register,
        tree::register,
        plan::register,
        discretize::register,
        search::register,
        export::register,
        optim::register,
        loss::register,
        metric::register,
        files::register,
        bulk::register,
        data::register,
        world::register,
        method::register,
        schema::register,
        identity::register,
        text::register,
        zoo::register,
        model::register,
    ] {
        area(&mut engine);
    }
    engine
}

/// What `catch (e)` receives for a native error.
fn caught(engine: &mut Engine) {
    engine.register_type_with_name::<Caught>("Error").register_global_module(rhai::exported_module!(caught_api).into());
}

/// What an error can be asked.
#[export_module]
mod caught_api {
    /// What kind of error it is: "shape", "type", "value", "name", "io", "permission", "format", "device", "memory", "script" or "internal".
    ///
    /// Example: `try { ones([2]) + ones([3]); } catch (e) { print(e.kind); }`
    #[rhai_fn(get = "kind", pure)]
    pub fn kind(error: &mut Caught) -> ImmutableString {
        error.0.kind().name().into()
    }
    /// The sentence that tells what went wrong.
    ///
    /// Example: `try { noise::edm().sigma(-1); } catch (e) { print(e.message); }`
    #[rhai_fn(get = "message", pure)]
    pub fn message(error: &mut Caught) -> ImmutableString {
        error.0.message().into()
    }
    /// How to mend it, or ().
    ///
    /// Example: `try { solver::named("unipcc", #{}); } catch (e) { print(e.hint); }`
    #[rhai_fn(get = "hint", pure)]
    pub fn hint(error: &mut Caught) -> Dynamic {
        error.0.fix().map_or(Dynamic::UNIT, |h| h.to_string().into())
    }
    /// The shapes that did not fit, an array of arrays; empty for other errors.
    ///
    /// Example: `try { ones([2]) + ones([3]); } catch (e) { print(e.shapes); }`
    #[rhai_fn(get = "shapes", pure)]
    pub fn shapes(error: &mut Caught) -> Array {
        let shape = |s: &Vec<usize>| s.iter().map(|d| Dynamic::from(*d as i64)).collect::<Array>().into();
        error.0.shapes_involved().iter().map(shape).collect()
    }
    /// The message with its hint.
    #[rhai_fn(pure)]
    pub fn to_string(error: &mut Caught) -> String {
        error.0.to_string()
    }
    /// The kind, then the message with its hint.
    #[rhai_fn(pure)]
    pub fn to_debug(error: &mut Caught) -> String {
        format!("{}: {}", error.0.kind().name(), error.0)
    }
}
