//! Writing a file as a whole: to a temporary name beside it, flushed to disk, then renamed.
use super::utf8;
use crate::access;
use crate::host::check_cancelled;
use crate::tensor::{aside, memory};
use crate::{Error, Kind, Result};
use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

/// The most bytes that [`read`] takes: more is a slip, not a checkpoint.
const LARGEST: u64 = 64 << 30;
/// The most bytes that [`read_text`] takes: of a file, and of a pipe or device, which may never end.
const LARGEST_TEXT: u64 = 1 << 30;
const LARGEST_STREAM: u64 = 64 << 20;

/// How the names of temporary files begin and end; between them stand the process and a random part.
const BEFORE: &str = ".ld3sh-";
const BEHIND: &str = ".part";
/// A temporary file whose process cannot be told is left over after so long.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// The files that this process wrote, by their absolute paths.
static WRITTEN: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// Replaces the file at `path` by `bytes`: whoever reads it finds the old content or the new, never a part. Devices
/// and pipes (`/dev/stdout`) are written to directly.
///
/// Errors name the path: no such directory, not writable, disk full.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_with(path, |f| f.write_all(bytes))
}

/// As [`write()`], with the content written by `f`. Ctrl-C between two pieces ends it with [`Kind::Cancelled`], and leaves
/// what was there before.
pub fn write_with(path: impl AsRef<Path>, f: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    // a piece that was not written because of Ctrl-C is no fault of the file's
    let fail = |e: std::io::Error| check_cancelled().err().unwrap_or_else(|| explain(path, e));
    // a link is followed, so that the file behind it is replaced and not the link
    let target = access::write(path)?.behind_links();
    match target.meta() {
        Ok(m) if m.is_dir() => {
            let e = Error::new(Kind::Io, format!("cannot write `{}`: it is a directory", path.display()));
            return Err(e.hint("add a file name"));
        }
        // renaming over a device would remove the device
        Ok(m) if !m.is_file() => {
            let mut file = Pieces(target.open().map_err(fail)?);
            return f(&mut file).and_then(|()| file.flush()).map_err(fail);
        }
        Ok(m) if m.permissions().readonly() => {
            let e = Error::new(Kind::Io, format!("cannot write `{}`: it is read-only", path.display()));
            return Err(e.hint("choose another name, or make it writable"));
        }
        _ => {}
    }
    let dir = target.home();
    sweep(&dir);
    let prefix = format!("{BEFORE}{}-", std::process::id());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(BEHIND);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = target.meta().map_or(0o666, |m| m.permissions().mode() & 0o777);
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    let mut temporary = dir.temporary(&builder).map_err(fail)?;
    // whoever finds the file knows by the lock that it is being written; a file system without locks has the name alone
    let _ = temporary.as_file().try_lock();
    {
        let mut buffered = std::io::BufWriter::new(Pieces(temporary.as_file_mut()));
        f(&mut buffered).and_then(|()| buffered.flush()).map_err(fail)?;
    }
    let file = temporary.as_file().try_clone().map_err(fail)?;
    // gigabytes take the disk seconds
    aside::run(usize::MAX, move || Ok(file.sync_all())).and_then(|synced| synced.map_err(fail))?;
    temporary.persist(&target).map_err(|e| fail(e.error))?;
    // the rename itself reaches the disk with the directory; where a directory cannot be synced, nothing is lost
    // that the operating system would not write by itself
    let _ = dir.sync_folder();
    if let (Ok(mut all), Ok(whole)) = (WRITTEN.lock(), access::whole(&target)) {
        all.insert(whole);
    }
    Ok(())
}

/// Whether this process wrote the file.
pub fn is_own(path: &Path) -> bool {
    access::whole(path).is_ok_and(|whole| WRITTEN.lock().is_ok_and(|all| all.contains(&whole)))
}

/// Removes what killed runs left in a folder, the first time that this process writes there.
fn sweep(dir: &Path) {
    static SWEPT: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let Ok(whole) = access::whole(dir) else { return };
    if !SWEPT.lock().is_ok_and(|mut all| all.insert(whole)) {
        return;
    }
    // the names are the product's own, and hidden from scripts
    let _own = access::policy::own();
    let entries = access::read(dir).ok().and_then(|d| d.list().ok());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let middle = name.to_str().and_then(|n| n.strip_prefix(BEFORE)?.strip_suffix(BEHIND));
        if middle.is_some_and(|m| is_left_over(&entry, m)) {
            // what cannot be removed costs only space
            let _ = access::delete(entry.path()).map(|f| f.remove());
        }
    }
}

/// Whether nobody writes a temporary file any more: its process is gone, or it is old; and nobody holds its lock.
fn is_left_over(entry: &fs::DirEntry, middle: &str) -> bool {
    let Ok(meta) = entry.metadata() else { return false };
    let old = meta.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|age| age > STALE);
    let process = middle.split_once('-').and_then(|(id, _)| id.parse::<u32>().ok());
    // where the system does not list processes, only age tells
    let gone =
        process.is_some_and(|id| Path::new("/proc/self").exists() && !Path::new(&format!("/proc/{id}")).exists());
    meta.is_file()
        && (old || gone)
        && access::read(entry.path()).is_ok_and(|f| f.open().is_ok_and(|f| f.try_lock().is_ok()))
}

/// Bytes between two looks at Ctrl-C.
pub(super) const PIECE: usize = 8 << 20;

/// Hands writes on in pieces, and fails after Ctrl-C.
struct Pieces<W>(W);

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        stopped()?;
        self.0.write(&bytes[..bytes.len().min(PIECE)])
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Ctrl-C as an error of reading or writing.
pub(super) fn stopped() -> std::io::Result<()> {
    check_cancelled().map_err(|e| std::io::Error::other(e.to_string()))
}

fn explain(path: &Path, e: std::io::Error) -> Error {
    use std::io::ErrorKind as K;
    // the temporary file's own path would only confuse
    let e = match e.to_string().split_once(" at path ") {
        Some((what, _)) => std::io::Error::new(e.kind(), what.to_string()),
        None => e,
    };
    let hint = match e.kind() {
        K::NotFound => Some("its directory does not exist: make it first, or choose another"),
        K::NotADirectory => Some("a part of the path is a file, not a directory"),
        K::FileTooLarge => Some("a limit on the size of files (`ulimit -f`) is reached: nothing was changed"),
        K::StorageFull | K::QuotaExceeded => {
            Some("the disk is full: nothing was changed; free some space, or choose another place")
        }
        K::PermissionDenied | K::ReadOnlyFilesystem => Some("choose a directory that you may write to"),
        _ => None,
    };
    let error = Error::io(path, "write", e);
    match hint {
        Some(h) => error.hint(h),
        None => error,
    }
}

/// Reads a whole file. Errors name the path; a directory, and a file too large to be meant, are errors.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    read_at_most(path.as_ref(), LARGEST)
}

/// The metadata of a file that is there to be read. Errors name the path, and the nearest name beside it; a directory is one.
pub fn existing(path: impl AsRef<Path>) -> Result<fs::Metadata> {
    let path = path.as_ref();
    let meta = access::read(path)?.meta().map_err(|e| not_read(path, e))?;
    match meta.is_dir() {
        true => Err(Error::new(Kind::Io, format!("cannot read `{}`: it is a directory", path.display()))),
        false => Ok(meta),
    }
}

/// Opens a file to be read. Errors: none of that name, a directory, and whatever has no end and no size, as devices and pipes.
pub fn open(path: impl AsRef<Path>) -> Result<(fs::File, fs::Metadata)> {
    let path = path.as_ref();
    let meta = existing(path)?;
    if !meta.is_file() {
        let e = Error::new(Kind::Io, format!("cannot read `{}`: it is a device or a pipe, not a file", path.display()));
        return Err(e.hint("write what it gives to a file first"));
    }
    Ok((access::read(path)?.open().map_err(|e| not_read(path, e))?, meta))
}

/// The first bytes of a file, for telling what it is.
pub fn head(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    open(path)?.0.take(512).read_to_end(&mut bytes).map_err(|e| not_read(path, e))?;
    Ok(bytes)
}

fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, meta) = open(path)?;
    if meta.len() > most {
        let m = format!(
            "cannot read `{}`: {} bytes are more than the {most} that are read at once",
            path.display(),
            meta.len()
        );
        return Err(Error::new(Kind::Memory, m));
    }
    memory::room("reading a file", meta.len() as usize)?;
    all_of(file, path, meta.len() as usize, most)
}

/// All that `from` gives, which is no more than `most` bytes, or an error.
fn all_of(from: impl Read, path: &Path, expected: usize, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(expected);
    let mut from = from.take(most + 1);
    loop {
        check_cancelled()?;
        let n = from.by_ref().take(PIECE as u64).read_to_end(&mut bytes).map_err(|e| not_read(path, e))?;
        if bytes.len() as u64 > most {
            let m = format!("cannot read `{}`: it gives more than {most} bytes", path.display());
            return Err(Error::new(Kind::Memory, m).hint("does it end?"));
        }
        if n == 0 {
            return Ok(bytes);
        }
    }
}

/// All bytes of a pipe or device that ends soon. Ctrl-C ends the wait for them.
pub fn read_stream(from: impl Read + Send + 'static, name: &str) -> Result<Vec<u8>> {
    let name = PathBuf::from(name);
    aside::run(usize::MAX, move || all_of(from, &name, 0, LARGEST_STREAM))
}

fn not_read(path: &Path, e: std::io::Error) -> Error {
    let missing = e.kind() == std::io::ErrorKind::NotFound;
    let error = Error::io(path, "read", e);
    if !missing {
        return error;
    }
    // the nearest name in the same directory, where there is one
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = access::read(dir)
        .and_then(|d| d.list().map_err(|e| Error::io(dir, "list", e)))
        .map(|d| d.filter_map(|f| f.ok()?.file_name().into_string().ok()).take(10_000).collect())
        .unwrap_or_default();
    let wanted = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    match crate::error::nearest(wanted, names.iter().map(String::as_str)) {
        Some(n) => error.hint(format!("did you mean `{}`?", dir.join(n).display())),
        None => error,
    }
}

/// Reads a whole file, or what comes from a pipe, as UTF-8 text; a byte order mark is skipped.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = match existing(path)?.is_file() {
        true => read_at_most(path, LARGEST_TEXT)?,
        false => {
            // a pipe is opened only when somebody writes to it
            let (name, source) = (path.to_path_buf(), access::read(path)?);
            let open = move || source.open().map_err(|e| not_read(&name, e));
            read_stream(aside::run(usize::MAX, open)?, &path.display().to_string())?
        }
    };
    utf8::decode(bytes, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_runs_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let alive = format!(".ld3sh-{}-abc.part", std::process::id());
        // no system has processes with so large numbers
        for name in [
            ".ld3sh-4294967295-abc.part",
            &alive,
            ".ld3sh-locked.part",
            ".ld3sh-young.part",
            ".ld3sh-old.part",
            "x.part",
        ] {
            fs::write(at(name), "x").unwrap();
        }
        let old = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
        let locked = fs::File::options().write(true).open(at(".ld3sh-locked.part")).unwrap();
        locked.set_modified(old).unwrap();
        locked.lock().unwrap();
        fs::File::options().write(true).open(at(".ld3sh-old.part")).unwrap().set_modified(old).unwrap();
        write(at("result.txt"), b"x").unwrap();
        let mut left: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [alive.as_str(), ".ld3sh-locked.part", ".ld3sh-young.part", "result.txt", "x.part"]);
        assert!(is_own(&at("result.txt")) && !is_own(&at("x.part")));
    }
}
