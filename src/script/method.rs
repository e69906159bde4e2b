//! Rhai functions that methods written as scripts are built from: progress, the cache folder.
use super::error::RhaiResult;
use super::host::ScriptHost;
use crate::Error;
use crate::host::{Host, Progress};
use rhai::plugin::*;
use rhai::{Engine, INT, ImmutableString};
use std::cell::RefCell;
use std::rc::Rc;

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
    /// Tells the user something, on standard error: results stay apart.
    ///
    /// Example: `note("nothing is cached");`
    #[rhai_fn(name = "note")]
    pub fn tell(text: &str) {
        super::super::engine::report_line(&format!("note: {text}"));
    }
    /// Deletes a file; nothing happens if there is none.
    ///
    /// Errors if it cannot be deleted.
    ///
    /// Example: `remove_file(out("old.state"));`
    #[rhai_fn(return_raw)]
    pub fn remove_file(path: &str) -> RhaiResult<()> {
        match crate::access::delete(path)?.remove() {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "delete", e).into()),
            _ => Ok(()),
        }
    }
}
