//! What the command line allows a script to touch, and whether it is a script that asks.
//!
//! The rule for who is asking: code in a file (a script, a module, standard input) is a stranger's, from the moment that its
//! text is evaluated or one of its functions is called until that returns; what the user types at the prompt or after `-e`,
//! and the built-in modules that it calls, is the user's own.
use super::refused;
use super::resolve::resolve;
use crate::{Error, Kind, Result};
use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Looking at a file or folder.
    Read,
    /// Making or replacing it.
    Write,
    /// Deleting it.
    Delete,
}

/// What scripts may touch.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `--untrusted`: reads are narrowed too, writes to the output folder, and what is typed is no exception.
    pub untrusted: bool,
    /// `--offline`: nothing is fetched.
    pub offline: bool,
    /// `--out`. One that was not typed must not be a link.
    pub out: PathBuf,
    /// Whether the user typed `--out`.
    pub out_typed: bool,
    /// The cache folder, where there is one.
    pub cache: Option<PathBuf>,
    /// What the product itself reads (its settings) and writes (the cache, the history), out of scripts' reach.
    pub own_read: Vec<PathBuf>,
    /// See `own_read`.
    pub own_write: Vec<PathBuf>,
    /// Where the script and its modules are.
    pub scripts: Vec<PathBuf>,
    /// `--allow-read`.
    pub read: Vec<PathBuf>,
    /// `--allow-write`, and the paths in the script's parameters.
    pub write: Vec<PathBuf>,
}

static POLICY: RwLock<Option<Policy>> = RwLock::new(None);
/// Whether there is a policy: without one nothing is judged.
static JUDGED: AtomicBool = AtomicBool::new(false);
/// Whether code of a file is running.
static FILE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread does what the product does by itself, at places that no script names.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Puts a policy in force.
pub(super) fn set(policy: Policy) {
    *POLICY.write().unwrap_or_else(|e| e.into_inner()) = Some(policy);
    JUDGED.store(true, Ordering::Release);
}

fn with<R>(f: impl FnOnce(&mut Policy) -> R) -> Option<R> {
    if !JUDGED.load(Ordering::Acquire) {
        return None;
    }
    POLICY.write().unwrap_or_else(|e| e.into_inner()).as_mut().map(f)
}

/// Whether `--offline` was given.
pub fn offline() -> bool {
    with(|p| p.offline).unwrap_or(false)
}

/// Whether `--untrusted` was given.
pub fn untrusted() -> bool {
    with(|p| p.untrusted).unwrap_or(false)
}

/// Puts a state back when it is dropped, however that comes.
#[must_use]
pub struct Until(bool, fn(bool));

impl Drop for Until {
    fn drop(&mut self) {
        (self.1)(self.0);
    }
}

fn set_file(on: bool) {
    FILE.store(on, Ordering::Relaxed);
}

/// From here on code of a file runs.
pub fn enter_file() -> Until {
    Until(FILE.swap(true, Ordering::Relaxed), set_file)
}
/// From here on code of the product runs: a built-in module is loaded.
pub fn enter_built_in() -> Until {
    Until(FILE.swap(false, Ordering::Relaxed), set_file)
}
/// Whether code of a file is running.
pub fn in_file() -> bool {
    FILE.load(Ordering::Relaxed)
}

/// From here on this thread works for the product itself, at places that no script names: a download, the history.
pub fn own() -> Until {
    Until(OWN.replace(true), |before| OWN.set(before))
}

/// Allows to read and write `path` and what is below it: the user typed it.
pub fn grant(path: impl AsRef<Path>) {
    let path = path.as_ref().to_path_buf();
    with(|p| p.write.push(path));
}

/// Takes grants back when it is dropped: those that were given since.
#[must_use]
pub struct Grants(usize);

impl Drop for Grants {
    fn drop(&mut self) {
        with(|p| p.write.truncate(self.0));
    }
}

/// Grants from here on are for as long as the returned value lives.
pub fn grants() -> Grants {
    Grants(with(|p| p.write.len()).unwrap_or(0))
}

/// The place of `path`, if it may be touched.
pub(super) fn judge(doing: Doing, path: &Path) -> Result<PathBuf> {
    if !JUDGED.load(Ordering::Acquire) || OWN.get() {
        return Ok(path.to_path_buf());
    }
    let policy = POLICY.read().unwrap_or_else(|e| e.into_inner());
    match &*policy {
        Some(p) if p.untrusted || (doing != Doing::Read && in_file()) => p.judge(doing, path),
        _ => Ok(path.to_path_buf()),
    }
}

impl Policy {
    fn judge(&self, doing: Doing, path: &Path) -> Result<PathBuf> {
        if doing != Doing::Delete && standard(path) {
            return Ok(path.to_path_buf());
        }
        let real = resolve(path, doing != Doing::Delete).map_err(|e| match doing {
            Doing::Read => Error::io(path, "read", e),
            _ => refused(doing, path, e.to_string(), path),
        })?;
        let mut why = None;
        for root in self.roots(doing) {
            let Some(below) = real.strip_prefix(&root).ok().or_else(|| self.beside(&real, &root)) else { continue };
            match forbidden(doing, below) {
                None => return Ok(real),
                Some(w) => why = Some(w),
            }
        }
        let same = std::path::absolute(path).is_ok_and(|p| p == real);
        let leads = if same { String::new() } else { format!("it leads to `{}`, ", real.display()) };
        Err(match why {
            Some(why) => refused(doing, path, why.into(), &real),
            None => refused(doing, path, format!("{leads}outside of {}", self.inside(doing)), &real),
        })
    }
    /// The places below which `doing` is allowed, as far as they are there.
    fn roots(&self, doing: Doing) -> Vec<PathBuf> {
        let there = |p: &PathBuf| resolve(p, true).ok();
        let mut roots: Vec<PathBuf> = self.write.iter().filter_map(there).collect();
        roots.extend(self.out_root());
        if doing == Doing::Read {
            roots.extend(self.read.iter().chain(&self.scripts).filter_map(there));
        } else if !self.untrusted {
            roots.extend(there(&PathBuf::from(".")));
        }
        if doing == Doing::Read || !self.untrusted {
            roots.extend(self.cache.as_ref().and_then(there));
        }
        roots
    }
    /// `real` as seen from the folder of a granted path, where it has its name with another ending: `all.npz.parts` and
    /// `all.shard-1-of-2.npz` of `all.npz`.
    fn beside<'a>(&self, real: &'a Path, granted: &Path) -> Option<&'a Path> {
        if !self.write.iter().any(|p| resolve(p, true).is_ok_and(|p| p == granted)) {
            return None;
        }
        let below = real.strip_prefix(granted.parent()?).ok()?;
        let (name, stem) = (below.iter().next()?.as_encoded_bytes(), granted.file_stem()?.as_encoded_bytes());
        name.strip_prefix(stem)?.starts_with(b".").then_some(below)
    }
    /// The output folder. The default one could be a link that came with the script.
    pub(super) fn out_root(&self) -> Option<PathBuf> {
        let real = resolve(&self.out, true).ok()?;
        (self.out_typed || resolve(Path::new("."), true).is_ok_and(|here| real == here.join(&self.out))).then_some(real)
    }
    fn inside(&self, doing: Doing) -> &'static str {
        match (doing, self.untrusted) {
            (Doing::Read, _) => "the script's folder, --out and the cache",
            (_, true) => "--out",
            _ => "the working folder, --out and the cache",
        }
    }
}

/// Why nothing is done to a file of that name, seen from the folder that is allowed; a file that is itself allowed may
/// have any name.
fn forbidden(doing: Doing, below: &Path) -> Option<&'static str> {
    let hidden = |c: &OsStr| c.as_encoded_bytes().starts_with(b".");
    if below.iter().any(hidden) {
        return Some("hidden files may hold settings and keys");
    }
    let script = below.extension().is_some_and(|e| e.eq_ignore_ascii_case("rhai"));
    (script && doing != Doing::Read).then_some("it would run as a script")
}

/// What the user connected the process to, unless that is a terminal, which would obey what is written.
fn standard(path: &Path) -> bool {
    use std::io::IsTerminal;
    match path.to_str() {
        Some("/dev/null") => true,
        Some("/dev/stdout") => !std::io::stdout().is_terminal(),
        Some("/dev/stderr") => !std::io::stderr().is_terminal(),
        Some("/dev/stdin") => !std::io::stdin().is_terminal(),
        _ => false,
    }
}

/// The error of a module that would take a built-in one's place in a run of `--untrusted`.
pub fn shadowed(path: &Path, name: &str) -> Error {
    let e = Error::new(Kind::Permission, format!("`{}` would replace the built-in module `{name}`", path.display()));
    e.hint("give it another name, or run the script without `--untrusted`")
}
