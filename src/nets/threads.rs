//! Work that is spread over threads: helpers that stay awake.
use rayon::Yield;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a thread that [`awake`] holds looks for work in vain before it naps, and how long it naps: whoever else wants its
/// core gets it, and it is preferred when it comes back.
const PATIENCE: Duration = Duration::from_micros(100);
const NAP: Duration = Duration::from_micros(50);

/// Clears a flag, or sets it, when it goes out of scope, a panic included.
struct AtEnd<'a>(&'a AtomicBool, bool);
impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Release);
    }
}

/// Runs `f`, whose operations are each spread over all threads, while the other threads look for work without sleeping: waking
/// one takes longer (50 to 100 µs) than many an operation.
pub(crate) fn awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    // only one at a time: two that waited for work could each be given the other's loop to run, and end never
    static ACTIVE: AtomicBool = AtomicBool::new(false);
    if rayon::current_num_threads() < 2 || ACTIVE.swap(true, Ordering::Acquire) {
        return f();
    }
    let _inactive = AtEnd(&ACTIVE, false);
    let done = AtomicBool::new(false);
    let done = &done;
    rayon::scope(|s| {
        let owner = rayon::current_thread_index();
        s.spawn_broadcast(move |_, thread| {
            let mut worked = Instant::now();
            while Some(thread.index()) != owner && !done.load(Ordering::Acquire) {
                match rayon::yield_now() {
                    Some(Yield::Executed) => worked = Instant::now(),
                    _ if worked.elapsed() < PATIENCE => std::hint::spin_loop(),
                    _ => std::thread::sleep(NAP),
                }
            }
        });
        let _done = AtEnd(done, true);
        f()
    })
}
