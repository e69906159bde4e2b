//! Tar archives of pictures as WebDataset has them: what has one name but for its ending is one sample.
use super::folder::ENDINGS;
use super::{Picture, Source};
use crate::files::image::Image;
use crate::files::torch::Data;
use crate::files::{atomic, json};
use crate::host::check_cancelled;
use crate::{Error, Kind, Result};
use std::path::{Path, PathBuf};

/// The most samples that are listed.
const MOST: usize = 100_000_000;
/// The most bytes of what a label stands in.
const LABEL: u64 = 1 << 20;

/// A picture in an archive.
#[derive(Debug)]
struct Sample {
    file: u32,
    start: u64,
    size: u64,
    name: String,
    label: Option<u32>,
}

/// The pictures of some archives.
#[derive(Debug)]
pub(super) struct Shards {
    paths: Vec<PathBuf>,
    files: Vec<Data>,
    samples: Vec<Sample>,
}

/// Lists what is in the archives; nothing is unpacked.
pub(super) fn open(paths: Vec<PathBuf>, labels: bool) -> Result<Shards> {
    let mut out = Shards { paths, files: vec![], samples: vec![] };
    for i in 0..out.paths.len() {
        let path = out.paths[i].clone();
        let data = Data::file(atomic::open(&path)?.0).map_err(|e| Error::io(&path, "read", e))?;
        list(&data, i as u32, labels, &mut out.samples).map_err(|e| e.context(path.display()))?;
        out.files.push(data);
    }
    if out.samples.is_empty() {
        let e = Error::new(Kind::Format, format!("there are no pictures in `{}`", out.paths[0].display()));
        return Err(e.hint("pictures are entries whose names end in .png, .jpg or .jpeg; their labels, in .cls"));
    }
    Ok(out)
}

fn list(data: &Data, file: u32, labels: bool, samples: &mut Vec<Sample>) -> Result<()> {
    let damaged = |e: std::io::Error| Error::new(Kind::Format, format!("a damaged tar archive: {e}"));
    let mut archive = tar::Archive::new(data.reader());
    let first = samples.len();
    // a label may stand before its picture or behind it
    let mut waiting: Option<(String, u32)> = None;
    for entry in archive.entries().map_err(damaged)? {
        check_cancelled()?;
        let mut entry = entry.map_err(damaged)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        // the first dot of the file's own name parts key and ending
        let base = name.rfind('/').map_or(0, |i| i + 1);
        let Some(dot) = name[base..].find('.').map(|i| base + i) else { continue };
        let (key, ending) = (name[..dot].to_string(), name[dot + 1..].to_lowercase());
        let (start, size) = (entry.raw_file_position(), entry.size());
        if start.checked_add(size).is_none_or(|end| end > data.len() as u64) {
            return Err(Error::new(Kind::Format, format!("`{name}` is cut off")));
        }
        if ENDINGS.contains(&ending.as_str()) {
            let label = waiting.take_if(|(k, _)| *k == key).map(|(_, label)| label);
            samples.push(Sample { file, start, size, name, label });
            if samples.len() > MOST {
                return Err(Error::value(format!("data: more than {MOST} pictures")));
            }
        } else if labels && matches!(ending.as_str(), "cls" | "json") && size <= LABEL {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).map_err(damaged)?;
            let Some(label) = label(&text, &ending).map_err(|e| e.context(format!("`{name}`")))? else { continue };
            let stem = |s: &Sample| {
                s.name.len() > key.len() && s.name.starts_with(&key) && s.name.as_bytes()[key.len()] == b'.'
            };
            match samples[first..].last_mut().filter(|s| stem(s)) {
                Some(sample) => sample.label = Some(label),
                None => waiting = Some((key, label)),
            }
        }
    }
    Ok(())
}

/// A label: the number in a `.cls` file, or `label` in a `.json` file.
fn label(text: &str, ending: &str) -> Result<Option<u32>> {
    let number = match ending {
        "cls" => Some(text.trim().parse::<i64>().map_err(|_| Error::value(format!("{:?} is no label", text.trim())))?),
        _ => json::parse(text)?.get("label").and_then(serde_json::Value::as_i64),
    };
    let fits =
        |n: i64| u32::try_from(n).map_err(|_| Error::value(format!("{n} is no label")).hint("labels count from 0"));
    number.map(fits).transpose()
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.samples.len()
    }
    fn read(&self, i: usize) -> Result<Picture> {
        let s = &self.samples[i];
        let named = |e: Error| e.context(self.name(i));
        let part = self.files[s.file as usize].part(s.start as usize, s.size as usize);
        let part = part.ok_or_else(|| named(Error::new(Kind::Format, "it is cut off")))?;
        let bytes = part.read().map_err(|f| named(f.into()))?;
        Ok(Picture::Bytes(Image::from_bytes(&bytes).map_err(named)?))
    }
    fn trace(&self, i: usize) -> u64 {
        self.samples[i].size
    }
    fn name(&self, i: usize) -> String {
        let s = &self.samples[i];
        format!("{}/{}", Path::new(&self.paths[s.file as usize]).display(), s.name)
    }
    fn label(&self, i: usize) -> Option<usize> {
        self.samples[i].label.map(|l| l as usize)
    }
}
