//! A download that can be interrupted at any moment and gone on with.
//!
//! Bytes go to `NAME.part`, what they came from to `NAME.part.json`; the complete, checked file is renamed to `NAME`. A lock on
//! `.NAME.lock` keeps other processes waiting; the operating system drops it with the process that holds it.
use super::Settings;
use super::http::{self, Event, Failure, Head, Request};
use super::hub;
use super::record::{Origin, Record};
use super::wanted::Wanted;
use crate::access;
use crate::host::{Host, Progress, check_cancelled};
use crate::{Error, Kind, Result};
use std::fs::{File, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often Ctrl-C is looked for.
const POLL: Duration = Duration::from_millis(25);
/// The most bytes of a file whose size was not published: no network here has a tenth of that.
const LARGEST: u64 = 16 << 30;
/// Bytes in the unit of the progress report.
const MB: u64 = 1_000_000;

/// Where the bytes of an unfinished download are.
pub fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Why an attempt ended.
enum Stop {
    /// The exchange with the server failed.
    Failed(Failure),
    /// Anything else: stopped by Ctrl-C, the disk is full.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Error(e)
    }
}
impl From<Failure> for Stop {
    fn from(f: Failure) -> Self {
        Stop::Failed(f)
    }
}

/// Downloads the file; false if another process put it there meanwhile.
pub fn fetch(wanted: &Wanted, host: &dyn Host, settings: &Settings) -> Result<bool> {
    let path = wanted.path.clone();
    let folder = path.parent().unwrap_or(&settings.folder);
    let made = access::write(folder)?.make_folder().map_err(|e| Error::io(folder, "create", e));
    made.map_err(|e| e.hint("set LD3SH_CACHE to a folder that you may write to"))?;
    let _lock = lock(wanted, host)?;
    if path.exists() {
        return Ok(false);
    }
    let mut job = Job { wanted, host, settings, part: part(&path), path, bar: None, shown: 0 };
    let (mut tries, mut farthest) = (1, 0);
    loop {
        let failure = match job.attempt() {
            Ok(()) => return Ok(true),
            Err(Stop::Error(e)) => return Err(e),
            Err(Stop::Failed(f)) => f,
        };
        let got = job.length();
        // an attempt that got further than all before was worth it
        tries = if got > farthest { 1 } else { tries + 1 };
        farthest = farthest.max(got);
        if !failure.transient || tries > settings.attempts {
            return Err(job.explain(failure, got));
        }
        let wait = settings.backoff.saturating_mul(1 << (tries - 1).min(10));
        job.note(&format!("{}; trying again", failure.what));
        let start = Instant::now();
        while start.elapsed() < wait {
            check_cancelled()?;
            std::thread::sleep(POLL.min(wait));
        }
    }
}

/// Waits for the right to write this file. The lock's file stays: removing it would let two processes lock two files.
fn lock(wanted: &Wanted, host: &dyn Host) -> Result<File> {
    let own = wanted.path.file_name().unwrap_or_default().to_string_lossy();
    let path = wanted.path.with_file_name(format!(".{own}.lock"));
    let file = access::write(&path)?.open_or_make();
    let file = file.map_err(|e| Error::io(&path, "open", e))?;
    let mut told = None;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                told.get_or_insert_with(|| host.progress(&format!("{}: another process fetches it", wanted.name), 1));
                check_cancelled()?;
                std::thread::sleep(POLL);
            }
            Err(TryLockError::Error(e)) => {
                let e = Error::io(&path, "lock", e);
                return Err(e.hint("set LD3SH_CACHE to a folder on a file system that has locks"));
            }
        }
    }
}

/// The next event, as soon as it comes; fails on Ctrl-C.
fn next<T>(from: &Receiver<T>) -> Result<Option<T>> {
    loop {
        check_cancelled()?;
        match from.recv_timeout(POLL) {
            Ok(e) => return Ok(Some(e)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// One file's download.
struct Job<'a> {
    wanted: &'a Wanted,
    host: &'a dyn Host,
    settings: &'a Settings,
    path: PathBuf,
    part: PathBuf,
    bar: Option<Box<dyn Progress>>,
    /// The megabytes that the bar shows.
    shown: u64,
}

impl Job<'_> {
    fn length(&self) -> u64 {
        access::read(&self.part).ok().and_then(|p| p.meta().ok()).map_or(0, |m| m.len())
    }

    fn note(&mut self, text: &str) {
        if let Some(bar) = &mut self.bar {
            bar.note(text);
        }
    }

    fn show(&mut self, bytes: u64) {
        let now = bytes / MB;
        if let Some(bar) = &mut self.bar
            && now > self.shown
        {
            bar.advance(now - self.shown);
            self.shown = now;
        }
    }

    fn start_bar(&mut self, total: Option<u64>) {
        if self.bar.is_none() {
            let size = total.unwrap_or(0).div_ceil(MB);
            let mut bar = self.host.progress(&format!("downloading {}, MB", self.wanted.name), size);
            bar.note(&format!("licence: {}", self.wanted.licence));
            self.bar = Some(bar);
        }
    }

    /// The error that the user sees.
    fn explain(&self, f: Failure, got: u64) -> Error {
        let e = Error::new(Kind::Io, format!("cannot download `{}`: {}", self.wanted.file, f.what));
        let mut hints: Vec<String> = f.fix.map(str::to_string).into_iter().collect();
        if f.transient && got > 0 {
            hints.push(format!("run it again later: it goes on after the {got} bytes that are here"));
        }
        hints.push(self.wanted.by_hand());
        e.hint(hints.join("; or "))
    }

    fn refused(&self, what: String) -> Error {
        let e = Error::new(Kind::Format, format!("cannot download `{}`: {what}", self.wanted.file));
        e.hint(self.wanted.by_hand())
    }

    fn unwritten(&self, e: std::io::Error) -> Error {
        let full = matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        let e = Error::io(&self.path, "write", e);
        match full {
            true => e.hint("the disk is full: free some space and run it again, or set LD3SH_CACHE to another place"),
            false => e.hint("set LD3SH_CACHE to a folder that you may write to"),
        }
    }

    /// Drops what was downloaded so far.
    fn restart(&self) -> Result<()> {
        Origin::forget(&self.part);
        match access::delete(&self.part)?.remove() {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.unwritten(e)),
            _ => Ok(()),
        }
    }

    /// Asks once, and writes what comes.
    fn attempt(&mut self) -> std::result::Result<(), Stop> {
        check_cancelled()?;
        let address = self.wanted.address.clone();
        let mut file = access::write(&self.part)?.open_or_make();
        let file = file.as_mut().map_err(|e| self.unwritten(std::io::Error::new(e.kind(), e.to_string())))?;
        let before = Origin::read(&self.part).filter(|o| o.address == address).unwrap_or_default();
        let have = self.length();
        // bytes can be gone on with where the server, or in the end the checksum, tells that they belong together
        let known = before.validator().is_some() || self.wanted.sha256.is_some();
        let from = if known && before.address == address { have } else { 0 };
        if before.size.is_some() && before.size == Some(from) {
            return self.finish(file, true);
        }

        let validator = before.validator().cloned();
        let token = hub::token(&address);
        let request = Request { address: address.clone(), from, validator, token, patience: self.settings.patience };
        let events = http::start(request).map_err(|e| Error::new(Kind::Internal, format!("no thread: {e}")))?;
        let lost = || Failure::passing("the download ended without a word");
        let head = match next(&events)?.ok_or_else(lost)? {
            Event::Head(h) => h,
            Event::Failed(f) => return Err(f.into()),
            Event::Piece(_) | Event::End => return Err(lost().into()),
        };
        let (mut at, total) = match self.begin(&head, from, &before) {
            Ok(x) => x,
            Err(e) => {
                if matches!(&e, Stop::Failed(f) if f.transient) && matches!(head.status, 206 | 416) {
                    self.restart()?;
                }
                return Err(e);
            }
        };
        if at == 0 && have > 0 {
            file.set_len(0).map_err(|e| self.unwritten(e))?;
        }
        file.seek(SeekFrom::Start(at)).map_err(|e| self.unwritten(e))?;
        let resumed = at > 0;
        Origin { address, size: total, etag: head.etag, modified: head.modified }.write(&self.part)?;
        self.start_bar(total);
        self.show(at);
        loop {
            match next(&events)?.ok_or_else(lost)? {
                Event::Piece(bytes) => {
                    at += bytes.len() as u64;
                    if total.is_some_and(|t| at > t) {
                        return Err(self.refused("the server sends more than it announced".into()).into());
                    }
                    self.bounded(at)?;
                    file.write_all(&bytes).map_err(|e| self.unwritten(e))?;
                    self.show(at);
                }
                Event::End if total.is_none_or(|t| at == t) => return self.finish(file, resumed),
                Event::End => return Err(Failure::passing(ended(at, total)).into()),
                Event::Failed(mut f) => {
                    if f.transient {
                        f.what = format!("{} ({})", f.what, ended(at, total));
                    }
                    return Err(f.into());
                }
                Event::Head(_) => {}
            }
        }
    }

    /// Where the body of an answer begins, and how large the whole file is.
    fn begin(&self, head: &Head, from: u64, before: &Origin) -> std::result::Result<(u64, Option<u64>), Stop> {
        let (at, total) = match head.status {
            200 => (0, head.length),
            206 => {
                let (first, total) = head.range.unwrap_or((from, None));
                let same = before.etag.is_none() || head.etag.is_none() || before.etag == head.etag;
                let total = total.or(head.length.map(|l| first + l));
                let sizes = before.size.is_none() || total.is_none() || before.size == total;
                if first != from || !same || !sizes {
                    return Err(Failure::passing("the file changed at its source").into());
                }
                (from, total)
            }
            416 if from > 0 => return Err(Failure::passing("the file changed at its source").into()),
            408 | 425 | 429 | 500..=599 => {
                return Err(Failure::passing(format!("the server answered {}", status(head.status))).into());
            }
            s @ (401 | 403) if hub::is(&self.wanted.address) => {
                return Err(Failure::lasting(format!("the server answered {}", status(s))).fix(hub::GATED).into());
            }
            s => return Err(Failure::lasting(format!("the server answered {}", status(s))).into()),
        };
        if head.media.starts_with("text/html") {
            return Err(self.refused("the server sent a web page instead of the file".into()).into());
        }
        if let (Some(t), Some(size)) = (total, self.wanted.size)
            && t != size
        {
            return Err(self.refused(format!("the server offers {t} bytes, the published file has {size}")).into());
        }
        self.bounded(total.unwrap_or(0))?;
        Ok((at, total))
    }

    /// Refuses what would fill the disk.
    fn bounded(&self, bytes: u64) -> Result<()> {
        let most = self.wanted.size.unwrap_or(LARGEST);
        match bytes > most {
            true => Err(self.refused(format!("the server offers {bytes} bytes, more than the {most} that are taken"))),
            false => Ok(()),
        }
    }

    /// Checks the complete part and gives it its name.
    fn finish(&mut self, file: &mut File, resumed: bool) -> std::result::Result<(), Stop> {
        let failed = |e| self.unwritten(e);
        let disk = file.try_clone().map_err(failed)?;
        let (send, done) = channel();
        // flushing half a gigabyte takes a while: Ctrl-C does not wait for it
        std::thread::spawn(move || send.send(disk.sync_all()));
        next(&done)?.unwrap_or(Ok(())).map_err(failed)?;
        let sha256 = crate::files::hash::sha256_file(&self.part)?;
        if let Some(expected) = &self.wanted.sha256
            && sha256 != *expected
        {
            self.restart()?;
            let what = format!("its SHA-256 is {sha256}, the published file has {expected}");
            return Err(match resumed {
                // the parts may have come from different files
                true => Failure::passing(what).into(),
                false => self.refused(what).into(),
            });
        }
        access::write(&self.part)?.rename(&self.path).map_err(failed)?;
        Origin::forget(&self.part);
        let meta = crate::files::atomic::existing(&self.path)?;
        Record::new(&self.wanted.file, Some(self.wanted.address.clone()), sha256, &meta).write(&self.path)?;
        Ok(())
    }
}

fn ended(at: u64, total: Option<u64>) -> String {
    match total {
        Some(t) => format!("{at} of {t} bytes came"),
        None => format!("{at} bytes came"),
    }
}

/// A status code with its meaning, where it is one that a download meets.
fn status(code: u16) -> String {
    let meaning = match code {
        401 => " Unauthorized",
        403 => " Forbidden",
        404 => " Not Found",
        410 => " Gone",
        416 => " Range Not Satisfiable",
        429 => " Too Many Requests",
        500 => " Internal Server Error",
        502 => " Bad Gateway",
        503 => " Service Unavailable",
        504 => " Gateway Timeout",
        _ => "",
    };
    format!("{code}{meaning}")
}
