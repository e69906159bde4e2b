//! How much memory is left, so that a slip in a shape is an error to catch and not the end of the process.
use crate::access::system as read_to_string;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tensors smaller than this (64 MiB) are made without asking.
pub const SMALL: usize = 64 << 20;

/// `--memory`; `u64::MAX` where it was not given.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Sets the most bytes that this process may take.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// What the limit leaves, where there is one.
fn limit() -> Option<u64> {
    let most = Some(LIMIT.load(Ordering::Relaxed)).filter(|m| *m < u64::MAX)?;
    Some(most.saturating_sub(field(&read_to_string("/proc/self/status").ok()?, "VmRSS:")?))
}

/// The bytes that can still be taken, where the system tells: what is available to the machine, and to this process's
/// control group.
pub fn left() -> Option<u64> {
    let machine = field(&read_to_string("/proc/meminfo").ok()?, "MemAvailable:");
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max").map(|max| {
        let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
        // pages of files count as used, but go when memory is wanted
        let files = read_to_string("/sys/fs/cgroup/memory.stat").ok().and_then(|s| plain(&s, "inactive_file"));
        max.saturating_sub(used.saturating_sub(files.unwrap_or(0)))
    });
    [machine, group, limit()].into_iter().flatten().min()
}

/// A line `Name:   123 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A line `name 123`.
fn plain(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system() {
        let text = "MemTotal:       100 kB\nMemAvailable:   42 kB\n";
        assert_eq!((field(text, "MemAvailable:"), field(text, "MemFree:")), (Some(43008), None));
        assert_eq!(plain("anon 1\ninactive_file 7\n", "inactive_file"), Some(7));
    }
}
