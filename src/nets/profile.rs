//! Where the time of frozen networks on the CPU goes, by place in the network and kind of operation.
use super::graph::Node;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one operation took in all.
#[derive(Clone, Copy, Default, Debug)]
pub struct Time {
    /// Forward.
    pub run: Duration,
    /// Pull-backs.
    pub pull: Duration,
    /// How often it ran forward.
    pub calls: usize,
}

impl Time {
    /// Forward and pull-backs.
    pub fn total(&self) -> Duration {
        self.run + self.pull
    }
}

/// An operation's place in the network and its kind.
pub type Place = (String, &'static str);

static ON: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<Place, Time>> = Mutex::new(BTreeMap::new());

fn take() -> BTreeMap<Place, Time> {
    std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs `f` and returns the time of each operation, the longest first. Parts of a batch that run side by side count with all their
/// time. One at a time.
pub fn collect<T>(f: impl FnOnce() -> T) -> (T, Vec<(Place, Time)>) {
    take();
    ON.store(true, Ordering::Relaxed);
    let out = f();
    ON.store(false, Ordering::Relaxed);
    (out, sorted(take()))
}

/// The same times by kind of operation.
pub fn by_kind(times: &[(Place, Time)]) -> Vec<(&'static str, Time)> {
    let mut kinds: BTreeMap<&'static str, Time> = BTreeMap::new();
    for ((_, kind), t) in times {
        let sum = kinds.entry(kind).or_default();
        *sum = Time { run: sum.run + t.run, pull: sum.pull + t.pull, calls: sum.calls + t.calls };
    }
    sorted(kinds)
}

fn sorted<K>(times: BTreeMap<K, Time>) -> Vec<(K, Time)> {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_by_key(|(_, t)| std::cmp::Reverse(t.total()));
    times
}

/// Does what a node does, and adds its time where somebody collects.
pub(super) fn timed<T>(node: &Node, pull: bool, f: impl FnOnce() -> T) -> T {
    if !ON.load(Ordering::Relaxed) {
        return f();
    }
    let start = Instant::now();
    let out = f();
    let took = start.elapsed();
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    let time = times.entry((node.name.clone(), node.op.name())).or_default();
    if pull {
        time.pull += took;
    } else {
        time.run += took;
        time.calls += 1;
    }
    out
}
