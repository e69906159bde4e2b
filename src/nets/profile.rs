//! Where the time of frozen networks on the CPU goes, by operation.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one kind of operation took in all.
#[derive(Clone, Copy, Default, Debug)]
pub struct Time {
    /// Forward.
    pub run: Duration,
    /// Pull-backs.
    pub pull: Duration,
    /// How often it ran forward.
    pub calls: usize,
}

static ON: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<&'static str, Time>> = Mutex::new(BTreeMap::new());

/// Runs `f` and returns the time of each kind of operation, by name, the longest first. Parts of a batch that run side by side
/// count with all their time. One at a time.
pub fn collect<T>(f: impl FnOnce() -> T) -> (T, Vec<(&'static str, Time)>) {
    std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner));
    ON.store(true, Ordering::Relaxed);
    let out = f();
    ON.store(false, Ordering::Relaxed);
    let mut times: Vec<_> =
        std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect();
    times.sort_by_key(|(_, t)| std::cmp::Reverse(t.run + t.pull));
    (out, times)
}

/// Does what an operation called `name` does, and adds its time where somebody collects.
pub(super) fn timed<T>(name: &'static str, pull: bool, f: impl FnOnce() -> T) -> T {
    if !ON.load(Ordering::Relaxed) {
        return f();
    }
    let start = Instant::now();
    let out = f();
    let took = start.elapsed();
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    let time = times.entry(name).or_default();
    if pull {
        time.pull += took;
    } else {
        time.run += took;
        time.calls += 1;
    }
    out
}
