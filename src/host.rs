//! The handle that long computations receive: cancellation, progress, and calls back into a script.
use crate::access::{system, system_folder};
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Set by Ctrl-C; every native loop polls it between evaluations with [`check_cancelled`].
static CANCEL: AtomicBool = AtomicBool::new(false);

/// What was told since the computation started: a loop tells nothing twice.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Told texts that are remembered.
const REMEMBERED: usize = 1000;

/// Takes a note.
type Taker = Rc<dyn Fn(&str)>;

thread_local! {
    /// Where this thread's notes go; to standard error where nobody said.
    static NOTES: RefCell<Option<Taker>> = const { RefCell::new(None) };
}

/// Sets where notes of this thread go.
pub fn on_note(to: impl Fn(&str) + 'static) {
    NOTES.set(Some(Rc::new(to)));
}
/// Tells the user, without stopping, that something is not as it may have been meant.
pub fn note(text: &str) {
    let new = TOLD.lock().is_ok_and(|mut told| told.len() < REMEMBERED && told.insert(text.to_string()));
    match NOTES.with_borrow(Clone::clone) {
        _ if !new => {}
        Some(to) => to(text),
        None => eprintln!("note: {}", crate::access::clean(text)),
    }
}
/// Lets a write beyond the limit on the size of files fail as any other, where the system would end the process.
pub fn fail_large_writes() {
    #[cfg(unix)]
    // SAFETY: sets how one signal is treated, to a treatment that the system provides; no other thread sets that of this signal
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Asks the running computation to stop (called from the signal handler's thread).
pub fn cancel() {
    CANCEL.store(true, Ordering::SeqCst);
}
/// Forgets an earlier request to stop (called when a new computation starts).
pub fn clear_cancel() {
    if let Ok(mut told) = TOLD.lock() {
        told.clear();
    }
    CANCEL.store(false, Ordering::SeqCst);
}
/// Whether a stop was requested and not yet cleared; on a thread that works for another, whether that one went away.
pub fn cancel_requested() -> bool {
    Stop::here().requested()
}
/// Fails with [`Kind::Cancelled`] if a stop was requested.
pub fn check_cancelled() -> Result<()> {
    if cancel_requested() { Err(Error::cancelled()) } else { Ok(()) }
}

thread_local! {
    /// On a thread that works for another: set when that one waits no longer.
    static LEFT: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// From here on this thread works for another: `left` says when that one waits no longer.
pub(crate) fn work_aside(left: Arc<AtomicBool>) {
    LEFT.set(Some(left));
}
/// Runs `f` as work that is handed to no other thread: on a thread of a pool, where whoever waits for one that waits for the pool
/// waits forever.
pub(crate) fn undivided<T>(f: impl FnOnce() -> T) -> T {
    struct Back(Option<Arc<AtomicBool>>);
    impl Drop for Back {
        fn drop(&mut self) {
            LEFT.set(self.0.take());
        }
    }
    let before = LEFT.with_borrow(Clone::clone);
    let own = before.clone().unwrap_or_default();
    let _back = Back(before);
    LEFT.set(Some(own));
    f()
}
/// Whether this thread works for another.
pub(crate) fn is_aside() -> bool {
    LEFT.with_borrow(Option::is_some)
}

/// What [`cancel_requested`] says on this thread, for the threads of a pool that share its work.
pub(crate) struct Stop(Option<Arc<AtomicBool>>);

impl Stop {
    /// As this thread sees it.
    pub(crate) fn here() -> Stop {
        Stop(LEFT.with_borrow(Clone::clone))
    }
    /// Whether a stop was requested.
    pub(crate) fn requested(&self) -> bool {
        self.0.as_deref().unwrap_or(&CANCEL).load(Ordering::SeqCst)
    }
}

thread_local! {
    static EVALUATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts an evaluation of a network (or of a closed form in its place), for `:time` and `:profile`.
pub fn count_evaluation() {
    EVALUATIONS.set(EVALUATIONS.get() + 1);
}
/// The evaluations that this thread has made.
pub fn evaluations() -> u64 {
    EVALUATIONS.get()
}

/// The CPU time of this process's threads, where the system tells.
pub fn cpu_time() -> Option<Duration> {
    let mut nanoseconds = 0u64;
    for task in system_folder("/proc/self/task").ok()? {
        let stat = system(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += stat.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// A function defined in a script, as native objects store it: opaque here, an `FnPtr` to the script layer.
#[derive(Clone)]
pub struct Callback(pub Rc<dyn Any>);

/// A value that crosses between native code and a script's function.
#[derive(Clone)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// A floating-point number.
    Float(f64),
    /// An integer.
    Int(i64),
    /// Tensors by name.
    Named(BTreeMap<String, Tensor>),
    /// Anything of the script layer's own (a condition that native code only hands through).
    Opaque(Rc<dyn Any>),
    /// Nothing.
    Unit,
}

impl Value {
    /// The tensor in it, or an error that says what `from` should have returned.
    pub fn tensor(self, from: &str) -> Result<Tensor> {
        match self {
            Value::Tensor(t) => Ok(t),
            _ => Err(Error::new(Kind::Type, format!("{from} must return a tensor"))),
        }
    }
}

/// What a native computation may ask of whoever started it.
pub trait Host {
    /// Calls a script's function.
    fn call(&self, f: &Callback, args: Vec<Value>) -> Result<Value>;
    /// Starts a progress report of `total` steps; ends when the returned value is dropped.
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress>;
}

/// A running progress report.
pub trait Progress {
    /// Advances by `n` steps.
    fn advance(&mut self, n: u64);
    /// Shows a short text beside the bar (a loss, a rate).
    fn note(&mut self, text: &str);
}

/// A host without a script: shows nothing, and cannot call back. For tests, benches and plain Rust users.
pub struct Quiet;
struct Silent;

impl Host for Quiet {
    fn call(&self, _: &Callback, _: Vec<Value>) -> Result<Value> {
        Err(Error::new(Kind::Script, "a script's function was called where no script is running"))
    }
    fn progress(&self, _: &str, _: u64) -> Box<dyn Progress> {
        Box::new(Silent)
    }
}
impl Progress for Silent {
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, _: &str) {}
}
