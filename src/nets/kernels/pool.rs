//! Buffers that are used again: a network allocates the same sizes over and over, and fresh pages cost more than the
//! arithmetic on them.
use std::cell::RefCell;
use std::collections::VecDeque;

/// Floats that a thread keeps for later at most (64 MiB), unless told otherwise.
const KEEP: usize = 16 << 20;
/// Smaller buffers are left to the allocator.
const SMALL: usize = 1 << 12;

struct Free {
    /// The longest unused first.
    buffers: VecDeque<Vec<f32>>,
    total: usize,
    keep: usize,
}

thread_local! {
    static FREE: RefCell<Free> = const { RefCell::new(Free { buffers: VecDeque::new(), total: 0, keep: KEEP }) };
}

/// Lets this thread keep at most `floats` from here on; 0 makes memory follow use exactly.
pub fn limit(floats: usize) {
    FREE.with_borrow_mut(|free| *free = Free { buffers: VecDeque::new(), total: 0, keep: floats });
}

/// A buffer of length `n` with any content: the caller overwrites all of it.
pub fn take(n: usize) -> Vec<f32> {
    if n < SMALL {
        return vec![0.0; n];
    }
    let found = FREE.with_borrow_mut(|free| {
        let fits = |v: &Vec<f32>| v.len() >= n && v.len() <= 2 * n;
        let i = (0..free.buffers.len()).filter(|i| fits(&free.buffers[*i])).min_by_key(|i| free.buffers[*i].len())?;
        let v = free.buffers.remove(i)?;
        free.total -= v.len();
        Some(v)
    });
    match found {
        Some(mut v) => {
            v.truncate(n);
            v
        }
        None => vec![0.0; n],
    }
}

/// Keeps a buffer for later; those that were unused the longest make room for it.
pub fn give(v: Vec<f32>) {
    if v.len() < SMALL {
        return;
    }
    // at the end of a thread the pool may already be gone
    let _ = FREE.try_with(|free| {
        if let Ok(mut free) = free.try_borrow_mut()
            && v.len() <= free.keep
        {
            while free.total + v.len() > free.keep
                && let Some(old) = free.buffers.pop_front()
            {
                free.total -= old.len();
            }
            free.total += v.len();
            free.buffers.push_back(v);
        }
    });
}
