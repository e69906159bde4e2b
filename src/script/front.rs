//! Where everything goes that a script or the shell shows: one object, which the session holds.
//!
//! A terminal, a pipe, a file, a buffer, and later a notebook or an editor are implementations of [`Front`]; nothing else writes to
//! standard output or standard error.
use crate::files::image::Image;
use crate::host::{Callback, Host, Progress, Value};
use crate::{Error, Result};
use rhai::{Dynamic, Engine, NativeCallContext};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How text may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// The columns of the terminal, if it is one.
    pub columns: Option<usize>,
    /// The rows of the screen, if there is one: a longer report says its message again at the end.
    pub rows: Option<usize>,
    /// Whether escapes may colour it.
    pub color: bool,
}

impl Look {
    /// The columns to wrap at: the terminal's, or what `COLUMNS` says, or 80. At least 20.
    pub fn width(self) -> usize {
        let said = || std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        self.columns.or_else(said).unwrap_or(80).max(20)
    }
}

/// A text for no terminal, coloured or not.
impl From<bool> for Look {
    fn from(color: bool) -> Self {
        Look { color, ..Look::default() }
    }
}

/// Something that shows as a picture, or in characters.
pub trait Drawing {
    /// Its pixels; plots with `scale` of them per unit.
    ///
    /// # Errors
    /// What cannot be drawn.
    fn image(&self, scale: usize) -> Result<Image>;
    /// In at most so many characters; None where only a picture will do.
    ///
    /// # Errors
    /// What cannot be drawn.
    fn text(&self, columns: usize, rows: usize) -> Result<Option<String>>;
}

/// See the module's description.
pub trait Front {
    /// Shows a line of results: what `print` writes, and values.
    fn print(&self, text: &str);
    /// Shows a line beside them: errors, notes.
    fn report(&self, text: &str);
    /// Starts a progress report.
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress>;
    /// Shows a picture, in at most so many columns; false where this front has no way to.
    ///
    /// # Errors
    /// What cannot be drawn; settings of the front that are wrong.
    fn draw(&self, drawing: &dyn Drawing, columns: Option<usize>) -> Result<bool>;
    /// A text that a script, a file or a network gave, as results may hold it: without what a terminal would obey.
    fn foreign<'a>(&self, text: &'a str) -> Cow<'a, str> {
        text.into()
    }
    /// The same for lines beside them.
    fn foreign_report<'a>(&self, text: &'a str) -> Cow<'a, str> {
        text.into()
    }
    /// How lines of results may be set.
    fn look(&self) -> Look {
        Look::default()
    }
    /// How lines beside them may be set.
    fn report_look(&self) -> Look {
        self.look()
    }
    /// Whether results can no longer be shown; the script then ends.
    fn is_closed(&self) -> bool {
        false
    }
    /// Why they cannot, if that is an error. (A reader that has gone away, as `head` does, is none.)
    fn failure(&self) -> Option<Error> {
        None
    }
    /// The last report, where this front keeps it to itself.
    fn told_last(&self) -> Option<String> {
        None
    }
    /// Begins a line of its own after Ctrl-C, whose echo may stand where the next report would.
    fn interrupted(&self) {}
    /// A prompt reads from the front, which has this many columns and rows.
    fn prompts(&self, _columns: usize, _rows: usize) {}
}

/// A front as the parts of a session share it.
#[derive(Clone)]
pub struct Shared(Rc<dyn Front>);

impl Shared {
    /// Shares a front.
    pub fn new(front: impl Front + 'static) -> Self {
        Shared(Rc::new(front))
    }
    /// The front of an engine's session; plain lines if it has none.
    pub fn of(engine: &Engine) -> Shared {
        engine.default_tag().clone().try_cast::<Shared>().unwrap_or_default()
    }
    /// Lets an engine, and all that runs on it, show things here.
    pub(super) fn register(&self, engine: &mut Engine) {
        engine.set_default_tag(Dynamic::from(self.clone()));
        let front = self.clone();
        engine.on_print(move |text| {
            super::trace::refuse("it prints");
            front.print(&front.foreign(text))
        });
        let front = self.clone();
        engine.on_debug(move |text, source, at| {
            super::trace::refuse("it prints");
            let text = match source {
                Some(s) if !at.is_none() => format!("{s}:{at:?}: {text}"),
                _ => text.to_string(),
            };
            front.report(&front.foreign_report(&text))
        });
    }
}

impl Default for Shared {
    fn default() -> Self {
        Shared::new(Plain::default())
    }
}
impl std::ops::Deref for Shared {
    type Target = dyn Front;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

thread_local! {
    /// The old names of which a note was shown.
    static NOTED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Shows a note, once, that a function has another name now.
pub fn note_renamed(context: &NativeCallContext, old: &'static str, new: &str) {
    if NOTED.with_borrow_mut(|noted| noted.insert(old)) {
        Shared::of(context.engine())
            .report(&format!("note: `{old}` is `{new}` now; the old name goes with version 0.2"));
    }
}

/// The host of a command beside scripts: shows progress as scripts do, and has no script to call.
pub struct Beside<'a>(pub &'a dyn Front);

impl Host for Beside<'_> {
    fn call(&self, f: &Callback, args: Vec<Value>) -> Result<Value> {
        crate::host::Quiet.call(f, args)
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        self.0.progress(label, total)
    }
}

/// Writes a line at once.
fn write_line(mut to: impl Write, text: &str) -> std::io::Result<()> {
    to.write_all(text.as_bytes()).and_then(|()| to.write_all(b"\n")).and_then(|()| to.flush())
}

/// Plain lines on standard output and standard error, where they are files or pipes.
#[derive(Default)]
pub struct Plain {
    closed: Cell<bool>,
    failure: RefCell<Option<String>>,
}

impl Front for Plain {
    fn print(&self, text: &str) {
        if self.closed.get() {
            return;
        }
        if let Err(e) = write_line(std::io::stdout(), text) {
            self.closed.set(true);
            if e.kind() != ErrorKind::BrokenPipe {
                // the disk is full, say: it must not look as if all went well
                self.failure.replace(Some(e.to_string()));
            }
        }
    }
    fn report(&self, text: &str) {
        // nowhere is left to say that this failed
        let _ = write_line(std::io::stderr(), text);
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        Box::new(Lines { label: label.into(), total, done: 0, note: String::new(), start: Instant::now(), next: 10 })
    }
    fn draw(&self, _: &dyn Drawing, _: Option<usize>) -> Result<bool> {
        Ok(false)
    }
    fn is_closed(&self) -> bool {
        self.closed.get()
    }
    fn failure(&self) -> Option<Error> {
        let told = |e: &String| Error::new(crate::Kind::Io, format!("cannot write to standard output: {e}"));
        self.failure.borrow().as_ref().map(told)
    }
}

/// A plain line of progress now and then.
struct Lines {
    label: String,
    total: u64,
    done: u64,
    note: String,
    start: Instant,
    /// Seconds after which the next line is due: 10, 20, 40, … so that a long run's log stays short.
    next: u64,
}

impl Progress for Lines {
    fn advance(&mut self, n: u64) {
        self.done += n;
        let elapsed = self.start.elapsed();
        if elapsed < Duration::from_secs(self.next) || self.done == 0 {
            return;
        }
        self.next = (self.next * 2).min(self.next + 600);
        let rate = self.done as f64 / elapsed.as_secs_f64();
        let left = self.total.saturating_sub(self.done) as f64 / rate;
        let (label, done, total, note) = (&self.label, self.done, self.total, &self.note);
        // a closed stderr must not stop the computation
        let _ = writeln!(std::io::stderr(), "{label}: {done}/{total}, {rate:.1}/s, {left:.0} s left {note}");
    }
    fn note(&mut self, text: &str) {
        self.note = text.to_string();
    }
}

/// Another front without its progress reports.
pub struct Quiet(pub Shared);

impl Front for Quiet {
    fn print(&self, text: &str) {
        self.0.print(text)
    }
    fn report(&self, text: &str) {
        self.0.report(text)
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        crate::host::Quiet.progress(label, total)
    }
    fn draw(&self, drawing: &dyn Drawing, columns: Option<usize>) -> Result<bool> {
        self.0.draw(drawing, columns)
    }
    fn foreign<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.0.foreign(text)
    }
    fn foreign_report<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.0.foreign_report(text)
    }
    fn look(&self) -> Look {
        self.0.look()
    }
    fn report_look(&self) -> Look {
        self.0.report_look()
    }
    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
    fn failure(&self) -> Option<Error> {
        self.0.failure()
    }
    fn told_last(&self) -> Option<String> {
        self.0.told_last()
    }
    fn interrupted(&self) {
        self.0.interrupted()
    }
    fn prompts(&self, columns: usize, rows: usize) {
        self.0.prompts(columns, rows)
    }
}

/// A front for ranks that do not speak for the run: nothing is shown, and what was reported last is kept for the case that it ends it.
pub struct Silent {
    inner: Shared,
    last: RefCell<Option<String>>,
}

impl Silent {
    /// Instead of another front.
    pub fn instead_of(inner: Shared) -> Silent {
        Silent { inner, last: RefCell::default() }
    }
}

impl Front for Silent {
    fn print(&self, _: &str) {}
    fn report(&self, text: &str) {
        self.last.replace(Some(text.to_string()));
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        crate::host::Quiet.progress(label, total)
    }
    fn draw(&self, _: &dyn Drawing, _: Option<usize>) -> Result<bool> {
        Ok(true)
    }
    fn told_last(&self) -> Option<String> {
        self.last.borrow().clone()
    }
    fn look(&self) -> Look {
        self.inner.look()
    }
    fn report_look(&self) -> Look {
        self.inner.report_look()
    }
}

/// What was shown, in memory: for tests, and for programs that hold a session.
#[derive(Clone, Default)]
pub struct Buffer(Rc<RefCell<Kept>>);

/// What a [`Buffer`] holds.
#[derive(Default)]
struct Kept {
    results: String,
    reports: String,
    pictures: Vec<Image>,
    progress: Vec<(String, u64)>,
}

impl Buffer {
    /// The lines of results.
    pub fn results(&self) -> String {
        self.0.borrow().results.clone()
    }
    /// The lines beside them.
    pub fn reports(&self) -> String {
        self.0.borrow().reports.clone()
    }
    /// The pictures.
    pub fn pictures(&self) -> Vec<Image> {
        self.0.borrow().pictures.clone()
    }
    /// The progress reports: label and steps done.
    pub fn progress(&self) -> Vec<(String, u64)> {
        self.0.borrow().progress.clone()
    }
}

impl Front for Buffer {
    fn print(&self, text: &str) {
        let results = &mut self.0.borrow_mut().results;
        results.push_str(text);
        results.push('\n');
    }
    fn report(&self, text: &str) {
        let reports = &mut self.0.borrow_mut().reports;
        reports.push_str(text);
        reports.push('\n');
    }
    fn progress(&self, label: &str, _: u64) -> Box<dyn Progress> {
        let all = &mut self.0.borrow_mut().progress;
        all.push((label.into(), 0));
        Box::new(Counted(self.clone(), all.len() - 1))
    }
    fn draw(&self, drawing: &dyn Drawing, _: Option<usize>) -> Result<bool> {
        let image = drawing.image(1)?;
        self.0.borrow_mut().pictures.push(image);
        Ok(true)
    }
}

/// A progress report of a [`Buffer`].
struct Counted(Buffer, usize);

impl Progress for Counted {
    fn advance(&mut self, n: u64) {
        if let Some((_, done)) = self.0.0.borrow_mut().progress.get_mut(self.1) {
            *done += n;
        }
    }
    fn note(&mut self, _: &str) {}
}
