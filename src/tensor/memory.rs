//! How much memory is left, so that a slip in a shape is an error to catch and not the end of the process.
//!
//! Nothing is asked for small things one by one: what they take together is counted, and every [`SMALL`] bytes the system is asked
//! what is left. What comes between two such looks is held back as a reserve.
use crate::access::system as read_to_string;
use crate::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that are taken without asking (32 MiB).
pub const SMALL: usize = 32 << 20;
/// Bytes that always stay: for what is taken between two looks, and for telling that there is no more.
const RESERVE: u64 = 96 << 20;

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

/// What was taken since the system was last asked.
static SINCE: AtomicUsize = AtomicUsize::new(0);

/// The bytes that can still be taken, where the system tells: what is available to the machine, to the control groups that
/// this process is in, and below its own limits.
pub fn left() -> Option<u64> {
    let machine = machine(&read_to_string("/proc/meminfo").unwrap_or_default());
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups.lines().filter_map(memory_group).flat_map(|(folder, files)| {
        // a limit of a group above holds for those below
        folder.ancestors().map(|f| files.left(f)).collect::<Vec<_>>()
    });
    [machine, address_space(), limit()].into_iter().chain(groups).flatten().min()
}

/// Fails with kind `memory` where `bytes` more would not fit; `what` is to take them.
pub fn room(what: &str, bytes: usize) -> Result<()> {
    let since = SINCE.fetch_add(bytes.min(usize::MAX / 4), Ordering::Relaxed).saturating_add(bytes);
    if since <= SMALL {
        return Ok(());
    }
    SINCE.store(0, Ordering::Relaxed);
    match left() {
        Some(left) if left < RESERVE.saturating_add(bytes as u64) => {
            let e = Error::new(Kind::Memory, format!("{what}: there is no memory for {} more", size(bytes as u64)));
            Err(e.hint(format!(
                "{} are left; is a size wrong, or is something kept that is no longer needed?",
                size(left)
            )))
        }
        _ => Ok(()),
    }
}

/// Counts `bytes` that an operation takes for a while or may take; fails with kind `memory` where hardly any are left.
pub fn count(bytes: usize) -> Result<()> {
    SINCE.fetch_add(bytes.min(SMALL + 1), Ordering::Relaxed);
    room("this operation", 0)
}

/// The stack of a thread that runs scripts, or walks the graph of a tensor: 1 GiB, which takes address space and hardly any memory;
/// less where `ulimit -v` leaves little of that.
pub fn stack() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| match address_space() {
        // two such threads, and most for the tensors
        Some(left) if left < 8 << 30 => {
            usize::try_from(left / 16).unwrap_or(LARGEST_STACK).clamp(16 << 20, LARGEST_STACK)
        }
        _ => LARGEST_STACK,
    })
}
const LARGEST_STACK: usize = 1 << 30;

/// Bytes in a unit that is easy to read.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e13 => format!("{:.1} TiB", b / 2f64.powi(40)),
        b if b >= 1e8 => format!("{:.1} GiB", b / 2f64.powi(30)),
        b if b >= 1e5 => format!("{:.1} MiB", b / 2f64.powi(20)),
        _ => format!("{bytes} bytes"),
    }
}

/// What is available to the machine, but for a fiftieth of it: other processes grow too, and the system ends one before all is gone.
fn machine(meminfo: &str) -> Option<u64> {
    let kept = field(meminfo, "MemTotal:").unwrap_or(0) / 50;
    Some(field(meminfo, "MemAvailable:")?.saturating_sub(kept))
}

/// What `ulimit -v` leaves of the address space.
fn address_space() -> Option<u64> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    let most: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(most.saturating_sub(field(&read_to_string("/proc/self/status").ok()?, "VmSize:")?))
}

/// The names of a control group's files.
struct Files {
    root: &'static str,
    most: &'static str,
    used: &'static str,
    inactive: &'static str,
}

const V1: Files = Files {
    root: "/sys/fs/cgroup/memory",
    most: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};
const V2: Files =
    Files { root: "/sys/fs/cgroup", most: "memory.max", used: "memory.current", inactive: "inactive_file" };

/// The folder that a line of `/proc/self/cgroup` names, `0::/a/b` (version 2) or `9:memory:/a/b` (version 1).
fn memory_group(line: &str) -> Option<(PathBuf, Files)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let files = match controllers {
        "" => V2,
        c if c.split(',').any(|c| c == "memory") => V1,
        _ => return None,
    };
    Some((Path::new(files.root).join(path.trim_start_matches('/')), files))
}

impl Files {
    /// What the limit of the group at `folder` leaves, if it has one.
    fn left(&self, folder: &Path) -> Option<u64> {
        let read = |name: &str| read_to_string(folder.join(name)).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let most = number(self.most)?;
        let used = number(self.used).unwrap_or(0);
        // pages of files count as used, but go when memory is wanted
        let files = read("memory.stat").and_then(|s| plain(&s, self.inactive));
        Some(most.saturating_sub(used.saturating_sub(files.unwrap_or(0))))
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
        assert_eq!(machine(text), Some(43008 - 2048));
        assert_eq!(plain("anon 1\ninactive_file 7\n", "inactive_file"), Some(7));
    }

    #[test]
    fn groups_of_both_versions() {
        let folder = |line: &str| memory_group(line).map(|(f, _)| f.display().to_string());
        assert_eq!(folder("0::/user.slice/job_7"), Some("/sys/fs/cgroup/user.slice/job_7".into()));
        assert_eq!(folder("0::/"), Some("/sys/fs/cgroup/".into()));
        assert_eq!(folder("9:memory:/slurm/uid_1"), Some("/sys/fs/cgroup/memory/slurm/uid_1".into()));
        assert_eq!(folder("4:cpu,cpuacct:/x"), None);
        assert_eq!(folder(""), None);
    }

    #[test]
    fn a_group_leaves_what_its_limit_says() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(V2.left(dir.path()), None);
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 600\ninactive_file 50\n");
        assert_eq!(V2.left(dir.path()), Some(350));
        write("memory.max", "max\n");
        assert_eq!(V2.left(dir.path()), None);
        write("memory.limit_in_bytes", "500\n");
        write("memory.usage_in_bytes", "900\n");
        assert_eq!(V1.left(dir.path()), Some(0));
    }

    #[test]
    fn small_things_count_together() {
        // nothing here can have all of the address space
        assert!(room("test", usize::MAX / 8).is_err());
        assert!(room("test", 1).is_ok());
    }
}
