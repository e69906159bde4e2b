//! The one door to files: whatever is opened, made, renamed or deleted by its name passes here, and is judged where a stranger's
//! script may have named it.
//!
//! [`read`], [`write`] and [`delete`] judge a path and return the place, on which alone the file can be opened; no other part of
//! the crate opens files by name (`tests/access/source.rs` reads the sources for it). What is allowed is the process's own
//! ([`policy`]), as the threads of a pool write for the script's thread. Without a policy, which is how the library is used by
//! others, everything is as the system allows it.
mod clean;
#[cfg(target_os = "linux")]
mod landlock;
mod place;
pub mod policy;
mod resolve;

pub use clean::{clean, for_terminal};
pub use place::{Source, Target};
pub use policy::Policy;

use crate::{Error, Kind, Result};
use policy::Doing;
use std::path::Path;

/// A file or folder that may be read.
///
/// # Errors
/// [`Kind::Permission`] where a script may not read it.
pub fn read(path: impl AsRef<Path>) -> Result<Source> {
    policy::judge(Doing::Read, path.as_ref()).map(Source)
}

/// A file or folder that may be made or replaced.
///
/// # Errors
/// [`Kind::Permission`] where a script may not write it.
pub fn write(path: impl AsRef<Path>) -> Result<Target> {
    policy::judge(Doing::Write, path.as_ref()).map(Target)
}

/// A file or folder that may be deleted: of a link that is the link.
///
/// # Errors
/// [`Kind::Permission`] where a script may not delete it.
pub fn delete(path: impl AsRef<Path>) -> Result<Target> {
    policy::judge(Doing::Delete, path.as_ref()).map(Target)
}

/// What the system tells in a file of its own, below `/proc` or `/sys`: never named by a script.
///
/// # Errors
/// That of the system.
pub fn system(path: impl AsRef<Path>) -> std::io::Result<String> {
    of_the_system(path.as_ref()).and_then(std::fs::read_to_string)
}

/// A folder of the system's own, as [`system`].
///
/// # Errors
/// That of the system.
pub fn system_folder(path: impl AsRef<Path>) -> std::io::Result<std::fs::ReadDir> {
    of_the_system(path.as_ref()).and_then(std::fs::read_dir)
}

/// The terminal of this process, for reading and writing.
///
/// # Errors
/// That of the system: there may be none.
pub fn terminal() -> std::io::Result<std::fs::File> {
    std::fs::File::options().read(true).write(true).open("/dev/tty")
}

fn of_the_system(path: &Path) -> std::io::Result<&Path> {
    // the tests' systems are folders of their own
    match cfg!(test) || ["/proc", "/sys"].iter().any(|root| path.starts_with(root)) {
        true => Ok(path),
        false => Err(std::io::Error::other("no file of the system's")),
    }
}

/// Confines the process to `policy`. Call it before other threads are started: Landlock binds the thread that asks for it
/// and those that it starts later. Returns what the user should know.
pub fn confine(policy: Policy) -> Option<String> {
    let note = match policy.untrusted {
        true => behind(&policy),
        false => None,
    };
    policy::set(policy);
    note
}

#[cfg(target_os = "linux")]
fn behind(policy: &Policy) -> Option<String> {
    landlock::confine(policy).err()
}
#[cfg(not(target_os = "linux"))]
fn behind(_: &Policy) -> Option<String> {
    Some("this system has no Landlock: ld3sh's own checks alone keep the script in".into())
}

/// The error for a path that a script may not touch, with the flag that allows it.
fn refused(doing: Doing, path: &Path, why: String, allow: &Path) -> Error {
    let (verb, flag) = match doing {
        Doing::Read => ("read", "--allow-read"),
        Doing::Write => ("write", "--allow-write"),
        Doing::Delete => ("delete", "--allow-write"),
    };
    let e = Error::new(Kind::Permission, format!("this script may not {verb} `{}`: {why}", path.display()));
    e.hint(format!("if you trust it with that, allow it: `{flag}={}`", allow.display()))
}
