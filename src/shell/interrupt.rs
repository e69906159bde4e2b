//! Ctrl-C: the first asks the running work to stop. The second ends the process, or, where there is a prompt, goes back to it also when
//! the work does not look for Ctrl-C: in a new session, since nothing else can end it.
use crate::host;
use crate::script::front::{Front, Plain};
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Stopped by Ctrl-C: the exit code.
pub const INTERRUPTED: u8 = 130;
/// Work that has not stopped so long after Ctrl-C does not look.
const DEAF: Duration = Duration::from_secs(1);

/// How a second Ctrl-C ends the process.
pub enum End {
    /// With an exit code.
    Code(u8),
    /// By becoming a program with these words anew.
    Anew(Vec<OsString>),
}

/// Whether there is a prompt to go back to.
static PROMPT: AtomicBool = AtomicBool::new(false);
/// Counts up when work begins and when it ends: odd while something runs.
static WORK: AtomicU64 = AtomicU64::new(0);
/// The work of this number did not look: the next Ctrl-C leaves it behind.
static DEAF_WORK: AtomicU64 = AtomicU64::new(0);

/// Handles Ctrl-C from here on. `words` are those of the command line; `end` ends the process.
pub fn listen(words: Vec<OsString>, end: fn(End)) {
    // without a handler Ctrl-C ends the process, which is no worse than failing here
    let _ = ctrlc::set_handler(move || {
        let again = host::cancel_requested();
        let work = WORK.load(Ordering::SeqCst);
        let prompt = PROMPT.load(Ordering::SeqCst);
        if again && !prompt {
            end(End::Code(INTERRUPTED));
        }
        if again && work == DEAF_WORK.load(Ordering::SeqCst) && work % 2 == 1 {
            end(End::Anew(anew(&words)));
        }
        host::cancel();
        if prompt && work % 2 == 1 {
            // no thread to be had: then there is no second way out
            let _ = std::thread::Builder::new().name("ctrl-c".into()).spawn(move || offer(work));
        }
    });
}

/// The words that open a session without running the script again.
fn anew(words: &[OsString]) -> Vec<OsString> {
    let mut words = words.to_vec();
    if !words.iter().any(|w| w == "--anew") {
        words.insert(1.min(words.len()), "--anew".into());
    }
    words
}

/// Offers to leave the work of this number behind, if it still runs after a while.
fn offer(work: u64) {
    std::thread::sleep(DEAF);
    if WORK.load(Ordering::SeqCst) == work && DEAF_WORK.swap(work, Ordering::SeqCst) != work {
        Plain::default().report(
            "note: what runs has not heard Ctrl-C yet. Press it again to leave it: a new session begins, and variables are lost.",
        );
    }
}

/// From here on there is a prompt to go back to.
pub fn prompt() {
    PROMPT.store(true, Ordering::SeqCst);
}

/// While this lives, something runs.
pub struct Work(());

/// Says that something runs, until what this returns is dropped.
pub fn work() -> Work {
    WORK.fetch_add(1, Ordering::SeqCst);
    Work(())
}

impl Drop for Work {
    fn drop(&mut self) {
        WORK.fetch_add(1, Ordering::SeqCst);
    }
}
