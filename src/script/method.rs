//! Rhai functions that methods written as scripts are built from: progress, the cache folder.
use super::error::RhaiResult;
use super::files::{from_data, to_data};
use super::host::ScriptHost;
use crate::Error;
use crate::access;
use crate::files::{atomic, result, state};
use crate::host::{Host, Progress};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, ImmutableString, Map};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

mod cached;

/// A progress report that a script advances.
#[derive(Clone)]
struct Bar(Rc<RefCell<Box<dyn Progress>>>);

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Bar>("Progress");
    engine.register_global_module(rhai::exported_module!(api).into());
}

#[export_module]
mod api {
    /// Starts a progress bar of `total` steps on the terminal; it ends when its variable goes.
    ///
    /// Methods: `advance()`, `advance(n)`, `note(text)`.
    ///
    /// Nothing is drawn where the output is no terminal, or with `--quiet`.
    ///
    /// Example: `let bar = progress("training", 10); bar.advance();`
    #[rhai_fn(return_raw)]
    pub fn progress(context: NativeCallContext, label: &str, total: INT) -> RhaiResult<Bar> {
        let total = u64::try_from(total).map_err(|_| Error::value(format!("progress: {total} steps")))?;
        Ok(Bar(Rc::new(RefCell::new(ScriptHost::new(&context).progress(label, total)))))
    }
    /// Advances a progress bar by one step.
    ///
    /// Example: `let bar = progress("training", 2); bar.advance();`
    #[rhai_fn(pure)]
    pub fn advance(bar: &mut Bar) {
        bar.0.borrow_mut().advance(1);
    }
    /// Advances a progress bar by `n` steps (1).
    ///
    /// Example: `let bar = progress("training", 10); bar.advance(5);`
    #[rhai_fn(name = "advance", pure)]
    pub fn advance_by(bar: &mut Bar, n: INT) {
        bar.0.borrow_mut().advance(n.max(0) as u64);
    }
    /// Shows a short text beside a progress bar.
    ///
    /// Example: `let bar = progress("training", 2); bar.note("loss 0.01"); bar.advance();`
    #[rhai_fn(pure)]
    pub fn note(bar: &mut Bar, text: &str) {
        bar.0.borrow_mut().note(text);
    }
    /// The path of a file in the cache folder (`LD3SH_CACHE`, by default the user's), which is created if need be.
    ///
    /// Example: `cache_path("pairs.state")`
    #[rhai_fn(return_raw)]
    pub fn cache_path(name: &str) -> RhaiResult<ImmutableString> {
        let dir = crate::files::cache::folder()?;
        // the folder is the product's own, whoever asks where it is
        let _own = crate::access::policy::own();
        crate::access::write(&dir)?.make_folder().map_err(|e| Error::io(&dir, "create", e))?;
        Ok(dir.join(name).display().to_string().into())
    }
    /// The value that is cached under `name` and `key` (a map: everything that determines it), as `#{ value }`; () where there is none.
    ///
    /// What else decides bits counts by itself: the version of ld3sh, `--exact-conv`, `--tf32`, the instruction set and the device. A
    /// damaged entry, and a cache that cannot be read, cost a note.
    ///
    /// Example: `cache_write("nine", #{ x: 3 }, 9); cache_read("nine", #{ x: 3 }).value` is 9
    #[rhai_fn(return_raw)]
    pub fn cache_read(name: &str, key: Map) -> RhaiResult<Dynamic> {
        let id = cached::id(key)?;
        let Some(value) = cached::read(name, &id)? else { return Ok(Dynamic::UNIT) };
        Ok(Map::from([("value".into(), from_data(value)?)]).into())
    }
    /// Keeps a value in the cache under `name` and `key` (a map: everything that determines it).
    ///
    /// A cache that cannot be written costs a note. Errors on functions and other values that are not data.
    ///
    /// Example: `cache_write("nine", #{ x: 3 }, 9); cache_read("nine", #{ x: 4 })` is ()
    #[rhai_fn(return_raw)]
    pub fn cache_write(name: &str, key: Map, value: Dynamic) -> RhaiResult<()> {
        let id = cached::id(key)?;
        Ok(cached::write(name, &id, to_data(&value)?)?)
    }
    /// Tells the user something on standard error, as a note; the same text once.
    ///
    /// Example: `note("the last epoch was not the best one");`
    #[rhai_fn(name = "note")]
    pub fn note_text(text: &str) {
        crate::host::note(text);
    }
    /// Deletes a file that ld3sh made: in this run, or a state or a schedule of any run. Nothing happens if there is none.
    ///
    /// Errors, kind `value`, on any other file, which stays.
    ///
    /// Example: `state::save(out("old.state"), #{ a: 1 }); remove_file(out("old.state"));`
    #[rhai_fn(return_raw)]
    pub fn remove_file(path: &str) -> RhaiResult<()> {
        let target = access::delete(path)?;
        let file = Path::new(path);
        if !file.exists() {
            return Ok(());
        }
        if !atomic::is_own(file) && !state::is_state(file) && !result::is_schedule(file) {
            let e =
                Error::value(format!("`{path}` was not made by ld3sh, as far as it can be told: it is not deleted"));
            return Err(e.hint("delete it yourself if it is no longer needed").into());
        }
        Ok(target.remove().map_err(|e| Error::io(file, "delete", e))?)
    }
}
