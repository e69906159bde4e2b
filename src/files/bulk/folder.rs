//! A folder of PNG files, named by the samples' numbers.
use super::{Job, Manifest, Sink, refused, wait_for};
use crate::access;
use crate::files::atomic;
use crate::files::image::Image;
use crate::host::{check_cancelled, note};
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "generate.json";

pub(super) struct Folder<'a>(&'a Job);

impl<'a> Folder<'a> {
    /// Makes the folder ready, or refuses one of another run.
    pub fn open(job: &'a Job, manifest: &Manifest) -> Result<Self> {
        let dir = &job.out;
        access::write(dir)?.make_folder().map_err(|e| Error::io(dir, "create folder", e))?;
        // shards may start together: one of them writes the manifest
        let _turn = wait_for(dir);
        let path = dir.join(MANIFEST);
        let found = match path.exists() {
            true => Some(atomic::read(&path)?),
            false => None,
        };
        if found.is_some() || !pictures(dir)?.is_empty() {
            let Some(why) = manifest.differs(found.as_deref()) else { return Ok(Folder(job)) };
            if !job.overwrite {
                return Err(refused(dir, &why));
            }
            // the manifest goes last: an interrupted removal is gone on with
            for picture in pictures(dir)? {
                access::delete(&picture)?.remove().map_err(|e| Error::io(&picture, "remove", e))?;
            }
        }
        atomic::write(&path, manifest.text().as_bytes())?;
        Ok(Folder(job))
    }
    fn path(&self, number: u64) -> PathBuf {
        let name = format!("{number:06}.png");
        match self.0.subfolders {
            true => self.0.out.join(format!("{:06}", number - number % 1000)).join(name),
            false => self.0.out.join(name),
        }
    }
}

impl Folder<'_> {
    /// Whether the picture of that number is there, whole and of the run's size. A damaged one is told by a note.
    fn is_whole(&self, number: u64) -> bool {
        let path = self.path(number);
        if !path.exists() || crate::host::cancel_requested() {
            return false;
        }
        let [channels, height, width] = self.0.shape;
        let why = match atomic::read(&path).and_then(|bytes| Image::from_png(&bytes)) {
            Ok(i) if [i.channels, i.height, i.width] == [channels, height, width] => return true,
            Ok(_) => "it has another size".to_string(),
            Err(e) => e.message().to_string(),
        };
        note(&format!("`{}` is drawn again: {why}", path.display()));
        false
    }
}

fn is_number(name: &str) -> bool {
    name.len() >= 6 && name.bytes().all(|b| b.is_ascii_digit())
}

/// The files in `dir` and in its numbered subfolders that have names as samples have.
fn pictures(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = |dir: &Path| -> Result<Vec<PathBuf>> {
        let failed = |e| Error::io(dir, "list", e);
        access::read(dir)?.list().map_err(failed)?.map(|e| Ok(e.map_err(failed)?.path())).collect()
    };
    let named = |p: &Path, extension: Option<&str>| {
        p.extension().and_then(|e| e.to_str()) == extension
            && p.file_stem().and_then(|s| s.to_str()).is_some_and(is_number)
    };
    let mut all = entries(dir)?;
    for sub in all.clone() {
        if named(&sub, None) && sub.is_dir() {
            all.extend(entries(&sub)?);
        }
    }
    all.retain(|p| named(p, Some("png")));
    Ok(all)
}

impl Sink for Folder<'_> {
    fn missing(&self) -> Result<Vec<Range<u64>>> {
        let numbers: Vec<u64> = self.0.shard.of(&self.0.numbers).collect();
        let there: Vec<bool> = numbers.par_iter().map(|i| self.is_whole(*i)).collect();
        check_cancelled()?;
        let mut out: Vec<Range<u64>> = vec![];
        for (i, _) in numbers.into_iter().zip(there).filter(|(_, there)| !there) {
            match out.last_mut() {
                Some(last) if last.end == i => last.end = i + 1,
                _ => out.push(i..i + 1),
            }
        }
        Ok(out)
    }
    fn put(&mut self, start: u64, pixels: &[u8]) -> Result<()> {
        let [channels, height, width] = self.0.shape;
        if self.0.subfolders {
            // a batch may span several subfolders
            let count = (pixels.len() / (channels * height * width)) as u64;
            for thousand in start / 1000..(start + count).div_ceil(1000) {
                let dir = self.0.out.join(format!("{:06}", thousand * 1000));
                access::write(&dir)?.make_folder().map_err(|e| Error::io(&dir, "create folder", e))?;
            }
        }
        let one = |(i, data): (usize, &[u8])| {
            let image = Image { width, height, channels, data: data.to_vec() };
            image.save(self.path(start + i as u64))
        };
        pixels.par_chunks(channels * height * width).enumerate().try_for_each(one)
    }
    fn finish(&mut self) -> Result<(PathBuf, bool)> {
        let complete = self.0.shard.count == 1 || self.0.numbers.clone().all(|i| self.path(i).exists());
        Ok((self.0.out.clone(), complete))
    }
}
