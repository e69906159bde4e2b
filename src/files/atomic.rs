//! Writing a file as a whole: to a temporary name beside it, flushed to disk, then renamed.
use crate::host::check_cancelled;
use crate::tensor::aside;
use crate::{Error, Kind, Result};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The most bytes that [`read`] takes: more is a slip, not a checkpoint.
const LARGEST: u64 = 64 << 30;
/// The most bytes that [`read_text`] takes.
const LARGEST_TEXT: u64 = 1 << 30;

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
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    match fs::metadata(&target) {
        Ok(m) if m.is_dir() => {
            let e = Error::new(Kind::Io, format!("cannot write `{}`: it is a directory", path.display()));
            return Err(e.hint("add a file name"));
        }
        // renaming over a device would remove the device
        Ok(m) if !m.is_file() => {
            let mut file = Pieces(fs::OpenOptions::new().write(true).open(&target).map_err(fail)?);
            return f(&mut file).and_then(|()| file.flush()).map_err(fail);
        }
        Ok(m) if m.permissions().readonly() => {
            let e = Error::new(Kind::Io, format!("cannot write `{}`: it is read-only", path.display()));
            return Err(e.hint("choose another name, or make it writable"));
        }
        _ => {}
    }
    let dir = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ld3sh-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&target).map_or(0o666, |m| m.permissions().mode() & 0o777);
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    let mut temporary = builder.tempfile_in(&dir).map_err(fail)?;
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
    if let Ok(d) = fs::File::open(&dir) {
        let _ = d.sync_all();
    }
    Ok(())
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
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => {
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
    let meta = fs::metadata(path).map_err(|e| not_read(path, e))?;
    match meta.is_dir() {
        true => Err(Error::new(Kind::Io, format!("cannot read `{}`: it is a directory", path.display()))),
        false => Ok(meta),
    }
}

fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let meta = existing(path)?;
    if meta.len() > most {
        let m = format!(
            "cannot read `{}`: {} bytes are more than the {most} that are read at once",
            path.display(),
            meta.len()
        );
        return Err(Error::new(Kind::Memory, m));
    }
    let file = fs::File::open(path).map_err(|e| not_read(path, e))?;
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    loop {
        check_cancelled()?;
        if (&file).take(PIECE as u64).read_to_end(&mut bytes).map_err(|e| not_read(path, e))? == 0 {
            return Ok(bytes);
        }
    }
}

fn not_read(path: &Path, e: std::io::Error) -> Error {
    let missing = e.kind() == std::io::ErrorKind::NotFound;
    let error = Error::io(path, "read", e);
    if !missing {
        return error;
    }
    // the nearest name in the same directory, where there is one
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = fs::read_dir(dir)
        .map(|d| d.filter_map(|f| f.ok()?.file_name().into_string().ok()).take(10_000).collect())
        .unwrap_or_default();
    let wanted = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    match crate::error::nearest(wanted, names.iter().map(String::as_str)) {
        Some(n) => error.hint(format!("did you mean `{}`?", dir.join(n).display())),
        None => error,
    }
}

/// Reads a whole file as UTF-8 text.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read_at_most(path, LARGEST_TEXT)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::new(Kind::Format, format!("`{}` is not UTF-8 text (byte {at})", path.display()))
    })
}
