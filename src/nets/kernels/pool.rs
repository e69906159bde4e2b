//! Buffers that are used again: a network allocates the same sizes over and over, and fresh pages cost more than the
//! arithmetic on them.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// Floats that are kept for later at most (1 GiB), unless told otherwise: what a differentiated evaluation of a large network
/// holds.
const KEEP: usize = 256 << 20;
/// Smaller buffers are left to the allocator.
const SMALL: usize = 1 << 12;

struct Free {
    /// By length, then by when they were given.
    buffers: BTreeMap<(usize, u64), Vec<f32>>,
    total: usize,
    keep: usize,
    /// How many were given so far.
    given: u64,
}

static FREE: Mutex<Free> = Mutex::new(Free { buffers: BTreeMap::new(), total: 0, keep: KEEP, given: 0 });

impl Free {
    fn lock() -> MutexGuard<'static, Free> {
        FREE.lock().unwrap_or_else(|e| e.into_inner())
    }
    fn remove(&mut self, key: (usize, u64)) -> Option<Vec<f32>> {
        let v = self.buffers.remove(&key)?;
        self.total -= key.0;
        Some(v)
    }
    /// Takes out those that were unused the longest until at most `floats` are left.
    fn shrink(&mut self, floats: usize) -> Vec<Vec<f32>> {
        let mut out = vec![];
        while self.total > floats
            && let Some(oldest) = self.buffers.keys().min_by_key(|k| k.1).copied()
        {
            out.extend(self.remove(oldest));
        }
        out
    }
}

/// Keeps at most `floats` from here on; 0 makes memory follow use exactly.
pub fn limit(floats: usize) {
    let mut free = Free::lock();
    free.keep = floats;
    // freed when the lock is open again
    let _old = free.shrink(floats);
    drop(free);
}

/// A buffer of length `n` with any content: the caller overwrites all of it.
pub fn take(n: usize) -> Vec<f32> {
    if n < SMALL {
        return vec![0.0; n];
    }
    let found = {
        let mut free = Free::lock();
        // little longer than asked: what is cut off would be lost to later takers
        let key = free.buffers.range((n, 0)..(n + n / 4 + 1, 0)).next().map(|(k, _)| *k);
        key.and_then(|k| free.remove(k))
    };
    match found {
        Some(mut v) => {
            v.truncate(n);
            v
        }
        None => vec![0.0; n],
    }
}

/// A buffer of `n` zeros.
pub fn zeros(n: usize) -> Vec<f32> {
    let mut v = take(n);
    v.fill(0.0);
    v
}

/// Keeps a buffer for later; those that were unused the longest make room for it.
pub fn give(v: Vec<f32>) {
    if v.len() < SMALL {
        return;
    }
    let mut free = Free::lock();
    let Some(room) = free.keep.checked_sub(v.len()) else { return };
    let _old = free.shrink(room);
    let key = (v.len(), free.given);
    free.given += 1;
    free.total += v.len();
    free.buffers.insert(key, v);
    drop(free);
}
