//! What is held in memory, by an allocator that counts for the whole process: one test at a time.
#[path = "../common/counting.rs"]
mod counting;
mod kept;
#[path = "../common/methods.rs"]
mod methods;
mod network;
mod solver;

use counting::LIVE;
use ld3sh::nets::kernels::pool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Memory is counted for the whole process: one test at a time, on one thread (workspaces of a second one would come and go by
/// chance), and no buffers kept for later.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    let held = LOCK.lock().unwrap_or_else(|e| e.into_inner());
    // fails where an earlier test has done it
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().ok();
    rayon::broadcast(|_| pool::limit(0));
    pool::limit(0);
    // the thread of the test before gives back what it holds when it ends, which is after its test
    let mut live = LIVE.load(Relaxed);
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = LIVE.load(Relaxed);
        if now == live {
            return held;
        }
        live = now;
    }
}
