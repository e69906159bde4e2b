//! Long work of candle's, which Ctrl-C must not wait for: it runs on a thread beside the script's, which waits for the
//! result or for Ctrl-C, whichever comes first.
//!
//! A kernel of candle's has no way in, and cutting each into pieces would change sums and multiply the nodes of the
//! graph. On another thread it is the same call with the same bits, backward passes included. What is left behind by
//! Ctrl-C ends when its kernel does: between kernels and between the blocks of a product it sees that nobody waits.
use super::{grad, memory};
use crate::{Error, Kind, Result, host};
use candle_core::Tensor;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Values touched, below which work is done where it is: a millisecond or a few. Handing over takes some 20 µs.
const WORTH: usize = 1 << 20;
/// A look at Ctrl-C happens so often.
const LOOK: Duration = Duration::from_millis(5);

type Job = Box<dyn FnOnce() + Send>;

thread_local! {
    /// The thread that works for this one, between two jobs.
    static WORKER: RefCell<Option<Sender<Job>>> = const { RefCell::new(None) };
}

/// Does `work`, which touches about `load` values, so that Ctrl-C stops the wait for it with [`Kind::Cancelled`].
pub fn run<T: Send + 'static>(load: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // an f32 for each value; what is read or written is counted where that is done
    if load < usize::MAX {
        memory::count(load.saturating_mul(4))?;
    }
    if load < WORTH || host::is_aside() {
        return work();
    }
    host::check_cancelled()?;
    let left = Arc::new(AtomicBool::new(false));
    let (give, take) = channel();
    let (flag, recording) = (left.clone(), grad::enabled());
    let job = Box::new(move || {
        host::work_aside(flag);
        let work = || if recording { work() } else { grad::no_grad(work) };
        let done = catch_unwind(AssertUnwindSafe(work));
        // nobody waits any more: dropped
        let _ = give.send(done);
    });
    let worker = hand_over(job)?;
    loop {
        match take.recv_timeout(LOOK) {
            Ok(done) => {
                WORKER.set(Some(worker));
                // a pool's threads may have heard it first
                host::check_cancelled()?;
                return done.unwrap_or_else(|panic| resume_unwind(panic));
            }
            Err(RecvTimeoutError::Timeout) if host::cancel_requested() => {
                // the worker goes on until it sees this, and ends because its channel does
                left.store(true, Ordering::SeqCst);
                return Err(Error::cancelled());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::new(Kind::Internal, "the thread for long work ended before its work"));
            }
        }
    }
}

/// Gives `job` to this thread's worker, or to a new one.
fn hand_over(mut job: Job) -> Result<Sender<Job>> {
    if let Some(worker) = WORKER.take() {
        match worker.send(job) {
            Ok(()) => return Ok(worker),
            Err(unsent) => job = unsent.0,
        }
    }
    let (worker, jobs) = channel::<Job>();
    let thread = std::thread::Builder::new().name("tensors".into()).stack_size(memory::stack());
    thread
        .spawn(move || jobs.into_iter().for_each(|job| job()))
        .map_err(|e| Error::new(Kind::Memory, format!("cannot start a thread for long work: {e}")))?;
    // cannot fail: the thread has just begun to listen
    let _ = worker.send(job);
    Ok(worker)
}

/// The load of an operation on `tensors`: the values in them, or in the shape to which they broadcast. None on a GPU, whose
/// kernels run beside the script anyway.
pub fn load(tensors: &[&Tensor]) -> usize {
    if tensors.iter().any(|t| !t.device().is_cpu()) {
        return 0;
    }
    let rank = tensors.iter().map(|t| t.rank()).max().unwrap_or(0);
    let size = |i: usize| tensors.iter().filter_map(|t| t.dims().iter().rev().nth(i)).max().copied().unwrap_or(1);
    let broadcast = (0..rank).fold(1usize, |n, i| n.saturating_mul(size(i)));
    tensors.iter().map(|t| t.elem_count()).sum::<usize>().max(broadcast)
}

/// The load where each value of one tensor may meet each of the others (products, convolutions, entries by lists): a
/// multiplication in a block costs far less than a value in memory.
pub fn load_of_pairs(tensors: &[&Tensor]) -> usize {
    match load(tensors) {
        0 => 0,
        n => n.max(tensors.iter().fold(1, |n: usize, t| n.saturating_mul(t.elem_count().max(1))) / 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn loads() {
        let ones = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
        let (row, column, none) = (ones(&[1, 30]), ones(&[20, 1]), ones(&[0, 3]));
        assert_eq!((load(&[&row]), load(&[&row, &column]), load(&[])), (30, 600, 1));
        assert_eq!((load_of_pairs(&[&row, &column]), load(&[&none]), load_of_pairs(&[&none])), (600, 0, 0));
        assert_eq!(load_of_pairs(&[&ones(&[8, 100]), &ones(&[100, 8])]), 10_000);
    }

    #[test]
    fn results_errors_panics_and_the_gradient_flag_come_back() {
        assert_eq!(run(WORTH, || Ok(7)).unwrap(), 7);
        let e = run(WORTH, || Err::<(), _>(Error::shape("no", &[&[2]]).hint("yes"))).unwrap_err();
        let same = (e.kind(), e.message(), e.fix(), e.shapes_involved());
        assert_eq!(same, (Kind::Shape, "no", Some("yes"), &[vec![2]][..]));
        let panic = catch_unwind(|| run(WORTH, || -> Result<()> { panic!("here") })).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"here"));
        // the worker outlives a panic, and is not this thread
        let here = std::thread::current().id();
        let there = || run(WORTH, || Ok(std::thread::current().id())).unwrap();
        assert!(there() != here && there() == there());
        assert!(run(WORTH, || Ok(grad::enabled())).unwrap());
        assert!(!grad::no_grad(|| run(WORTH, || Ok(grad::enabled()))).unwrap());
        // small work, and work inside such work, stays where it is
        assert_eq!(run(WORTH - 1, || Ok(std::thread::current().id())).unwrap(), here);
        assert!(
            run(WORTH, || Ok(run(WORTH, || Ok(std::thread::current().id()))? == std::thread::current().id())).unwrap()
        );
    }
}
