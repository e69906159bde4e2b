//! The engine with everything registered.
use super::context::SharedRun;
use super::error::Caught;
use super::host::above_bars;
use super::modules::Resolver;
use super::{
    bulk, closures, context, denoise, discretize, files, identity, loss, maps, method, noise, numbers, optim, plan,
    profile, schema, sizes, tensor, waiting, zoo,
};
use crate::access::{clean, for_terminal};
use crate::tensor::memory;
use rhai::packages::Package;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, ImmutableString, OptimizationLevel};
use std::io::Write;

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
    engine.on_progress(|_| crate::host::cancel_requested().then(|| Dynamic::from(closures::Stopped::default())));
    crate::host::on_note(note_line);
    engine.on_print(|text| print_line(&for_terminal(&std::io::stdout(), text)));
    engine.on_debug(|text, source, at| {
        let text = match source {
            Some(s) if !at.is_none() => format!("{s}:{at:?}: {text}"),
            _ => text.to_string(),
        };
        report_line(&for_terminal(&std::io::stderr(), &text))
    });
    numbers::register(&mut engine);
    sizes::register(&mut engine);
    maps::register(&mut engine);
    waiting::register(&mut engine);
    caught(&mut engine);
    closures::register(&mut engine);
    profile::register(&mut engine);
    context::register(&mut engine, run);
    for area in [
        tensor::register,
        noise::register,
        denoise::register,
        plan::register,
        discretize::register,
        optim::register,
        loss::register,
        files::register,
        bulk::register,
        method::register,
        schema::register,
        identity::register,
        zoo::register,
    ] {
        area(&mut engine);
    }
    engine
}

/// The exit code of a process that ends because nobody reads what it writes: as the shell tells it of other tools.
const NOBODY_READS: i32 = 141;

fn line(mut to: impl Write, text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush())
}

/// Tells a note.
fn note_line(text: &str) {
    // names from files stand in it
    report_line(&format!("note: {}", clean(text)));
}

/// Writes a line to standard error.
pub fn report_line(text: &str) {
    // nowhere is left to say that this failed
    let _ = above_bars(|| line(std::io::stderr(), text));
}

/// Writes a line to standard output. A result that cannot be written (the disk is full) ends the process with an error:
/// it must not look as if all went well. A reader that has gone away (`| head`) ends it as it ends other tools: quietly.
pub fn print_line(text: &str) {
    if let Err(e) = above_bars(|| line(std::io::stdout(), text)) {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(NOBODY_READS);
        }
        report_line(&format!("error: cannot write to standard output: {e}"));
        std::process::exit(1);
    }
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
