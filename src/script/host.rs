//! The [`Host`] of a running script: calls its functions for native code, and shows progress on stderr.
use super::error::carry;
use crate::access::{clean, for_terminal};
use crate::host::{Callback, Host, Progress, Value};
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rhai::{Dynamic, FLOAT, FnPtr, INT, NativeCallContext};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by `--quiet`: no progress at all.
static QUIET: AtomicBool = AtomicBool::new(false);

/// The characters of a label that a bar shows.
const LABEL: usize = 16;

/// Switches progress reports off (or on again).
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// What native code may ask of the script that called it. Made from the call context of a native function, and valid
/// for that call.
pub struct ScriptHost<'a> {
    context: &'a NativeCallContext<'a>,
}

impl<'a> ScriptHost<'a> {
    /// The host for the native call that `context` describes.
    pub fn new(context: &'a NativeCallContext<'a>) -> Self {
        ScriptHost { context }
    }
}

/// A script's function as native objects store it.
pub fn callback(f: FnPtr) -> Callback {
    Callback(Rc::new(f))
}

/// A native value as scripts see it.
pub fn to_dynamic(v: Value) -> Dynamic {
    match v {
        Value::Tensor(t) => Dynamic::from(t),
        Value::Float(x) => Dynamic::from_float(x),
        Value::Int(i) => Dynamic::from_int(i),
        Value::Opaque(o) => o.downcast_ref::<Dynamic>().cloned().unwrap_or(Dynamic::UNIT),
        Value::Named(all) => {
            let entry = |(name, t): (String, Tensor)| (name.into(), Dynamic::from(t));
            Dynamic::from_map(all.into_iter().map(entry).collect())
        }
        Value::Unit => Dynamic::UNIT,
    }
}

/// A script's value as native code sees it: what native code does not know is handed through as it is.
pub fn from_dynamic(v: Dynamic) -> Value {
    let v = v.flatten();
    if v.is_unit() {
        Value::Unit
    } else if let Ok(x) = v.as_float() as std::result::Result<FLOAT, _> {
        Value::Float(x)
    } else if let Ok(i) = v.as_int() as std::result::Result<INT, _> {
        Value::Int(i)
    } else {
        match v.try_cast_result::<Tensor>() {
            Ok(t) => Value::Tensor(t),
            Err(v) => Value::Opaque(Rc::new(v)),
        }
    }
}

impl Host for ScriptHost<'_> {
    fn call(&self, f: &Callback, args: Vec<Value>) -> Result<Value> {
        let Some(f) = f.0.downcast_ref::<FnPtr>() else {
            return Err(Error::new(Kind::Internal, "a callback that is not a script's function"));
        };
        crate::host::check_cancelled()?;
        let args: Vec<Dynamic> = args.into_iter().map(to_dynamic).collect();
        f.call_raw(self.context, None, args).map(from_dynamic).map_err(carry)
    }

    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        report(label, total)
    }
}

/// The host of a command beside scripts: shows progress as scripts do, and has no script to call.
pub struct Terminal;

impl Host for Terminal {
    fn call(&self, f: &Callback, args: Vec<Value>) -> Result<Value> {
        crate::host::Quiet.call(f, args)
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        report(label, total)
    }
}

/// Starts a progress report on stderr.
fn report(label: &str, total: u64) -> Box<dyn Progress> {
    let label = &*for_terminal(&std::io::stderr(), label);
    if QUIET.load(Ordering::Relaxed) {
        Box::new(Hidden)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bar::new(label, total))
    } else {
        let (label, note) = (label.into(), String::new());
        Box::new(Lines { label, total, done: 0, note, start: Instant::now(), next: 10 })
    }
}

/// No progress report.
struct Hidden;
impl Progress for Hidden {
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, _: &str) {}
}

thread_local! {
    /// The bars on the terminal. Lines that are printed meanwhile go above them.
    static BARS: MultiProgress =
        MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    /// How many there are.
    static SHOWN: Cell<usize> = const { Cell::new(0) };
    /// Whether the echo of Ctrl-C below them has been taken away.
    static ECHO_GONE: Cell<bool> = const { Cell::new(false) };
}

/// Does what writes to the terminal, with the bars out of the way.
pub fn above_bars<R>(write: impl FnOnce() -> R) -> R {
    match SHOWN.get() {
        0 => write(),
        _ => BARS.with(|bars| bars.suspend(write)),
    }
}

/// A bar with rate and time left, drawn on the terminal and removed at the end, however it comes: by success, by an error,
/// by Ctrl-C, or by a panic.
struct Bar {
    bar: ProgressBar,
    note: String,
    told: Instant,
}

impl Bar {
    fn new(label: &str, total: u64) -> Self {
        let bar = BARS.with(|bars| bars.add(ProgressBar::new(total)));
        SHOWN.set(SHOWN.get() + 1);
        // the message is cut to what is left of the line, however narrow the terminal
        if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:10} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(label.chars().take(LABEL).collect::<String>());
        Bar { bar, note: String::new(), told: Instant::now() }
    }
    fn tell(&mut self) {
        let (rate, left) = (self.bar.per_sec(), self.bar.eta().as_secs());
        let left = match left {
            0..120 => format!("{left} s"),
            120..7200 => format!("{} min", left / 60),
            _ => format!("{} h", left / 3600),
        };
        self.bar.set_message(format!("{rate:.1}/s, {left} left {}", self.note));
    }
}
impl Progress for Bar {
    fn advance(&mut self, n: u64) {
        // the cursor is no longer where the bar left it
        if crate::host::cancel_requested() {
            return;
        }
        self.bar.inc(n);
        if self.told.elapsed() > Duration::from_millis(100) {
            self.told = Instant::now();
            self.tell();
        }
    }
    fn note(&mut self, text: &str) {
        self.note = clean(text).into_owned();
    }
}
impl Drop for Bar {
    fn drop(&mut self) {
        if crate::host::cancel_requested() && !ECHO_GONE.replace(true) {
            // the cursor waits at the end of the bar, so the terminal's `^C` stands in a line of its own below it
            let _ = write!(std::io::stderr(), "\r\x1b[2K\x1b[A");
        }
        self.bar.finish_and_clear();
        SHOWN.set(SHOWN.get().saturating_sub(1));
        BARS.with(|bars| {
            bars.remove(&self.bar);
            if SHOWN.get() == 0 {
                ECHO_GONE.set(false);
                // a terminal that does not take it shows nothing anyway
                let _ = bars.clear();
            }
        });
    }
}

/// Where stderr is a file or a pipe: a plain line now and then.
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
