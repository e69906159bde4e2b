//! How much memory is left, so that a slip in a shape is an error to catch and not the end of the process.
use std::fs::read_to_string;

/// Tensors smaller than this (64 MiB) are made without asking.
pub const SMALL: usize = 64 << 20;

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
    match (machine, group) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
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
