//! One `.npz` with `arr_0`, uint8 [N, H, W, C] (and `arr_1`, the classes), as ADM's evaluator reads it.
//!
//! Batches are kept as raw files in `NAME.npz.parts/` and joined at the end. A shard joins its own into
//! `NAME.shard-2-of-4.npz`; whoever finds all shards there, or runs without a shard, joins those into `NAME.npz`. The
//! archive's comment is the manifest.
use super::{Job, Manifest, Shard, Sink, refused, wait_for};
use crate::access;
use crate::files::{atomic, npy};
use crate::{Error, Kind, Result};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

const MANIFEST: &str = "generate.json";

pub(super) struct Npz<'a> {
    job: &'a Job,
    manifest: &'a Manifest,
    range: Range<u64>,
    /// This shard's file; the run's own where it is not sharded.
    mine: PathBuf,
    parts: PathBuf,
    /// This shard (or run) is on disk already.
    done: bool,
    /// Keeps a second process out of the parts; given back when dropped.
    _lock: Option<File>,
}

/// Samples on disk: the bytes of `range` begin at `offset` of the file, or of its entry `arr_0.npy`.
struct Piece {
    path: PathBuf,
    range: Range<u64>,
    archive: bool,
}

fn shard_name(target: &Path, s: Shard) -> PathBuf {
    let stem = target.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    target.with_file_name(format!("{stem}.shard-{}-of-{}.npz", s.index, s.count))
}

/// The folder that a file is in.
fn home(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn broken(path: &Path, e: impl std::fmt::Display) -> Error {
    Error::new(Kind::Format, format!("`{}`: not a valid npz archive: {e}", path.display()))
        .hint("remove it: `generate` makes it again")
}

fn archive(path: &Path) -> Result<ZipArchive<io::BufReader<File>>> {
    let file = access::read(path)?.open().map_err(|e| Error::io(path, "read", e))?;
    ZipArchive::new(io::BufReader::new(file)).map_err(|e| broken(path, e))
}

/// The files beside `target` that are named as its shards are.
pub(super) fn shard_files(target: &Path) -> Result<Vec<(Shard, PathBuf)>> {
    let prefix = format!("{}.shard-", target.file_stem().unwrap_or_default().to_string_lossy());
    let dir = home(target);
    let failed = |e| Error::io(dir, "list", e);
    let mut out = vec![];
    for entry in access::read(dir)?.list().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(&prefix));
        let Some(text) = name.and_then(|n| n.strip_suffix(".npz")) else { continue };
        out.extend(Shard::parse(&text.replacen("-of-", "/", 1)).ok().map(|s| (s, path)));
    }
    Ok(out)
}

/// The manifest and the classes (none where there are none) of an archive, whose samples are compared with their checksum.
pub(super) fn contents(path: &Path) -> Result<(Vec<u8>, Vec<i64>)> {
    let mut archive = archive(path)?;
    let read = |e: &dyn std::fmt::Display| broken(path, e);
    exactly_rest(&mut archive.by_name("arr_0.npy").map_err(|e| read(&e))?).map_err(|e| read(&e))?;
    let mut labels = vec![];
    if archive.index_for_name("arr_1.npy").is_some() {
        let mut bytes = vec![];
        archive.by_name("arr_1.npy").map_err(|e| read(&e))?.read_to_end(&mut bytes).map_err(|e| read(&e))?;
        let header = bytes.get(8..10).map_or(0, |h| 10 + usize::from(u16::from_le_bytes([h[0], h[1]])));
        let body = bytes.get(header..).unwrap_or_default();
        labels = body.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    }
    Ok((archive.comment().to_vec(), labels))
}

impl<'a> Npz<'a> {
    /// Makes the folder for the parts ready, or refuses files of another run.
    pub fn open(job: &'a Job, manifest: &'a Manifest) -> Result<Self> {
        let range = job.shard.of(&job.numbers);
        let mine = match job.shard.count {
            1 => job.out.clone(),
            _ => shard_name(&job.out, job.shard),
        };
        let mut parts = mine.clone().into_os_string();
        parts.push(".parts");
        let mut this = Npz { job, manifest, range, mine, parts: parts.into(), done: false, _lock: None };
        this.done = this.ours(&job.out)? || this.ours(&this.mine)? || this.range.is_empty();
        if !this.done {
            this.prepare()?;
        }
        Ok(this)
    }
    /// Whether the file is there and of this run; one of another run is an error unless it may be overwritten.
    fn ours(&self, path: &Path) -> Result<bool> {
        if !path.exists() {
            return Ok(false);
        }
        let comment = archive(path).ok().map(|a| a.comment().to_vec());
        match self.manifest.differs(comment.as_deref()) {
            None => Ok(true),
            Some(_) if self.job.overwrite => Ok(false),
            Some(why) => Err(refused(path, &why)),
        }
    }
    fn prepare(&mut self) -> Result<()> {
        let dir = &self.parts;
        access::write(dir)?.make_folder().map_err(|e| Error::io(dir, "create folder", e))?;
        let lock = access::read(dir)?.open().map_err(|e| Error::io(dir, "open", e))?;
        // where the file system knows no locks, it goes without
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            let e = Error::new(Kind::Io, format!("generate: another process is writing `{}`", self.mine.display()));
            return Err(e.hint("wait for it, or share the work with `--shard 1/2` and `--shard 2/2`"));
        }
        self._lock = Some(lock);
        let path = dir.join(MANIFEST);
        if path.exists() {
            match self.manifest.differs(Some(&atomic::read(&path)?)) {
                None => return Ok(()),
                Some(why) if !self.job.overwrite => return Err(refused(dir, &why)),
                Some(_) => self.remove_parts()?,
            }
        }
        atomic::write(&path, self.manifest.text().as_bytes())
    }
    fn remove_parts(&self) -> Result<()> {
        for piece in self.own_pieces()? {
            access::delete(&piece.path)?.remove().map_err(|e| Error::io(&piece.path, "remove", e))?;
        }
        Ok(())
    }
    fn size(&self) -> u64 {
        self.job.shape.iter().map(|d| *d as u64).product()
    }
    /// The batches in this shard's folder of parts.
    fn own_pieces(&self) -> Result<Vec<Piece>> {
        if !self.parts.is_dir() {
            return Ok(vec![]);
        }
        let failed = |e| Error::io(&self.parts, "list", e);
        let mut out = vec![];
        for entry in access::read(&self.parts)?.list().map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".u8"));
            let ends = name.and_then(|n| n.split_once('-')).map(|(a, b)| (a.parse::<u64>(), b.parse::<u64>()));
            if let Some((Ok(start), Ok(end))) = ends {
                let size = access::read(&path)?.meta().map_err(failed)?.len();
                if start < end && size == (end - start) * self.size() {
                    out.push(Piece { path, range: start..end, archive: false });
                }
            }
        }
        Ok(out)
    }
    /// The finished shards of this run, however many shards it was cut into.
    fn shards(&self) -> Result<Vec<Piece>> {
        let mut out = vec![];
        for (shard, path) in shard_files(&self.job.out)? {
            let comment = archive(&path).ok().map(|a| a.comment().to_vec());
            if self.manifest.differs(comment.as_deref()).is_none() {
                out.push(Piece { path, range: shard.of(&self.job.numbers), archive: true });
            }
        }
        Ok(out)
    }
    fn pieces(&self) -> Result<Vec<Piece>> {
        let mut all = self.own_pieces()?;
        if self.job.shard.count == 1 {
            all.extend(self.shards()?);
        }
        Ok(all)
    }
    /// Joins `pieces` into one file with the samples of `range`.
    fn join(&self, target: &Path, range: &Range<u64>, pieces: &[Piece]) -> Result<()> {
        let [c, h, w] = self.job.shape;
        let n = (range.end - range.start) as usize;
        let write = |to: &mut dyn Write| -> io::Result<()> {
            let mut zip = ZipWriter::new_stream(to);
            let options = |bytes: u64| {
                SimpleFileOptions::default()
                    .compression_method(CompressionMethod::Stored)
                    .last_modified_time(DateTime::default())
                    .large_file(bytes >= u64::from(u32::MAX))
            };
            zip.start_file("arr_0.npy", options(n as u64 * self.size() + 1024))?;
            zip.write_all(&npy::header("|u1", &[n, h, w, c]))?;
            let mut at = range.start;
            while at < range.end {
                let piece = covering(pieces, at).ok_or_else(|| io::Error::other(format!("sample {at} is missing")))?;
                let end = piece.range.end.min(range.end);
                copy(piece, at, end, self.size(), &mut zip)?;
                at = end;
            }
            if let Some(label) = &self.job.label {
                zip.start_file("arr_1.npy", options(n as u64 * 8 + 1024))?;
                zip.write_all(&npy::header("<i8", &[n]))?;
                for i in range.clone() {
                    zip.write_all(&label(i).to_le_bytes())?;
                }
            }
            zip.set_comment(self.comment())?;
            zip.finish()?;
            Ok(())
        };
        atomic::write_with(target, write)
    }
    /// The manifest, or, were it too long for an archive's comment, what tells runs apart.
    fn comment(&self) -> String {
        let text = self.manifest.body.to_string();
        match text.len() < 1 << 16 {
            true => text,
            false => {
                let b = &self.manifest.body;
                serde_json::json!({ "format": b["format"], "version": b["version"], "run": b["run"] }).to_string()
            }
        }
    }
}

/// The piece with sample `at` that reaches furthest.
fn covering(pieces: &[Piece], at: u64) -> Option<&Piece> {
    pieces.iter().filter(|p| p.range.contains(&at)).max_by_key(|p| p.range.end)
}

/// The numbers in `range` that no piece has.
fn gaps(range: &Range<u64>, pieces: &[Piece]) -> Vec<Range<u64>> {
    let mut out = vec![];
    let mut at = range.start;
    while at < range.end {
        match covering(pieces, at) {
            Some(p) => at = p.range.end,
            None => {
                let next = pieces.iter().map(|p| p.range.start).filter(|s| *s > at).min();
                let end = next.unwrap_or(range.end).min(range.end);
                out.push(at..end);
                at = end;
            }
        }
    }
    out
}

fn opened(piece: &Piece) -> io::Result<File> {
    access::read(&piece.path).map_err(|e| io::Error::other(e.to_string()))?.open()
}

/// Copies samples `from..to` of a piece.
fn copy(piece: &Piece, from: u64, to: u64, size: u64, out: &mut impl Write) -> io::Result<()> {
    let (skip, need) = ((from - piece.range.start) * size, (to - from) * size);
    if piece.archive {
        let mut archive = ZipArchive::new(io::BufReader::new(opened(piece)?))?;
        let mut entry = archive.by_name("arr_0.npy")?;
        let mut head = [0; 10];
        entry.read_exact(&mut head)?;
        let header = u64::from(u16::from_le_bytes([head[8], head[9]]));
        exactly(&mut entry, header + skip, &mut io::sink())?;
        exactly(&mut entry, need, out)?;
        // the checksum is compared at the end of the entry
        exactly_rest(&mut entry)
    } else {
        let mut file = opened(piece)?;
        file.seek(SeekFrom::Start(skip))?;
        exactly(&mut file, need, out)
    }
}

/// Copies `n` bytes in blocks, and stops on Ctrl-C.
fn exactly(from: &mut impl Read, n: u64, to: &mut impl Write) -> io::Result<()> {
    let mut left = n;
    while left > 0 {
        if crate::host::cancel_requested() {
            return Err(io::Error::other("stopped"));
        }
        let block = left.min(1 << 20);
        if io::copy(&mut from.take(block), to)? != block {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= block;
    }
    Ok(())
}

/// Reads to the end, in blocks, and stops on Ctrl-C.
fn exactly_rest(from: &mut impl Read) -> io::Result<()> {
    while io::copy(&mut from.take(1 << 20), &mut io::sink())? > 0 {
        if crate::host::cancel_requested() {
            return Err(io::Error::other("stopped"));
        }
    }
    Ok(())
}

impl Sink for Npz<'_> {
    fn missing(&self) -> Result<Vec<Range<u64>>> {
        match self.done {
            true => Ok(vec![]),
            false => Ok(gaps(&self.range, &self.pieces()?)),
        }
    }
    fn put(&mut self, start: u64, pixels: &[u8]) -> Result<()> {
        let end = start + pixels.len() as u64 / self.size();
        atomic::write(self.parts.join(format!("{start:09}-{end:09}.u8")), pixels)
    }
    fn finish(&mut self) -> Result<(PathBuf, bool)> {
        if !self.done {
            self.join(&self.mine, &self.range, &self.pieces()?)?;
        }
        // the samples are in their file: what is left over, perhaps by a run that was killed just here, costs only space
        let _ = access::delete(&self.parts).map(|f| f.remove_folder());
        if self.job.shard.count > 1 {
            // one shard at a time joins them, and the others find it done
            let _turn = wait_for(home(&self.job.out));
            if !self.ours(&self.job.out)? {
                let shards = self.shards()?;
                if !gaps(&self.job.numbers, &shards).is_empty() {
                    return Ok((self.mine.clone(), false));
                }
                self.join(&self.job.out, &self.job.numbers, &shards)?;
            }
        }
        for shard in self.shards()? {
            let _ = access::delete(shard.path).map(|f| f.remove());
        }
        Ok((self.job.out.clone(), true))
    }
}
