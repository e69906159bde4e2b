//! Many samples into a folder of PNG files or one `.npz`: in batches, in shards, and on from where a run stopped.
//!
//! Sample i is the same whatever batch or shard draws it, so what is on disk says what is left to do. A manifest with a
//! hash of all that determines the samples stands beside them; files of another run are refused.
mod folder;
pub mod merge;
mod npz;

use super::hash;
use crate::host::{Host, check_cancelled};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a manifest says it is.
const FORMAT: &str = "ld3sh.generate";
/// The version of the manifest, and of the rules by which samples get their numbers and bytes.
const VERSION: u64 = 1;
/// The most samples that one run may have.
const MOST: u64 = 1_000_000_000;

pub use crate::world::Shard;

/// What is to be made.
pub struct Job {
    /// A folder, or a file name that ends in `.npz`.
    pub out: PathBuf,
    /// The numbers of all samples of the run, all shards together.
    pub numbers: Range<u64>,
    /// The part of them to make here.
    pub shard: Shard,
    /// Samples at a time, at least 1.
    pub batch: usize,
    /// Channels, height and width of a sample.
    pub shape: [usize; 3],
    /// The class of a sample by its number; goes into the `.npz` as `arr_1`.
    pub label: Option<Box<dyn Fn(u64) -> i64 + Send + Sync>>,
    /// All that determines the samples; `None` where something cannot be known (a script's function).
    pub identity: Option<Map<String, Value>>,
    /// What else the manifest records.
    pub about: Map<String, Value>,
    /// Replace the files of another run.
    pub overwrite: bool,
    /// A folder gets a subfolder for each thousand samples.
    pub subfolders: bool,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Report {
    /// The folder or file that holds this shard's samples (the whole run's, when it is complete).
    pub out: PathBuf,
    /// Samples that this call drew; the others were there already.
    pub made: u64,
    /// Whether the samples of all shards are there.
    pub complete: bool,
    /// The hash of all that determines the samples, where known.
    pub run: Option<String>,
}

/// Where samples go.
trait Sink {
    /// The numbers of this shard that are not there yet.
    fn missing(&self) -> Result<Vec<Range<u64>>>;
    /// Stores samples from number `start` on: 8-bit pixels, [·, H, W, C].
    fn put(&mut self, start: u64, pixels: &[u8]) -> Result<()>;
    /// Called when nothing of this shard is missing; says what holds its samples, and whether the run is complete.
    fn finish(&mut self) -> Result<(PathBuf, bool)>;
}

/// Draws what is missing with `draw(first, count)`, which returns [count, C, H, W] with values in [−1, 1].
///
/// Values become bytes by EDM's rule, ⌊127.5 x + 128⌋ cut to 0..255.
///
/// # Errors
/// Files of another run that are not to be overwritten, whatever `draw` and writing fail with, cancellation. What was
/// stored until then stays, and the next call goes on from it.
pub fn generate(job: &Job, host: &dyn Host, draw: &mut dyn FnMut(u64, usize) -> Result<Tensor>) -> Result<Report> {
    check(job)?;
    let manifest = Manifest::new(job);
    let mut sink: Box<dyn Sink + '_> = match is_npz(&job.out) {
        true => Box::new(npz::Npz::open(job, &manifest)?),
        false => Box::new(folder::Folder::open(job, &manifest)?),
    };
    let missing = sink.missing()?;
    let total: u64 = missing.iter().map(|r| r.end - r.start).sum();
    if total > 0 {
        let mut progress = host.progress("generate", total);
        for range in missing {
            let mut start = range.start;
            while start < range.end {
                check_cancelled()?;
                let count = (range.end - start).min(job.batch as u64);
                let x = draw(start, count as usize)?;
                sink.put(start, &pixels(&x, count as usize, job.shape)?)?;
                start += count;
                progress.advance(count);
            }
        }
    }
    let (out, complete) = sink.finish()?;
    Ok(Report { out, made: total, complete, run: manifest.run.clone() })
}

fn is_npz(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"))
}

fn check(job: &Job) -> Result<()> {
    let n = job.numbers.end.saturating_sub(job.numbers.start);
    if !(1..=MOST).contains(&n) {
        return Err(Error::value(format!("generate: the number of samples must be from 1 to {MOST}, but is {n}")));
    }
    if job.batch == 0 {
        return Err(Error::value("generate: option `batch` must be at least 1"));
    }
    let [c, h, w] = job.shape;
    if c == 0 || h == 0 || w == 0 || c.checked_mul(h).and_then(|x| x.checked_mul(w)).is_none_or(|x| x > 1 << 28) {
        return Err(Error::shape("generate: samples of this shape cannot be stored", &[&job.shape]));
    }
    let npz = is_npz(&job.out);
    if !npz && !matches!(c, 1 | 3) {
        let e = Error::shape(format!("generate: a PNG file has 1 or 3 channels, not {c}"), &[&job.shape]);
        return Err(e.hint("a name that ends in `.npz` takes any number"));
    }
    let extension = job.out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    if job.out.as_os_str().is_empty() || ["png", "npy", "zip", "jpg", "json"].contains(&extension.as_str()) {
        let e = Error::value(format!("generate: `{}` names neither a folder nor a `.npz` file", job.out.display()));
        return Err(e.hint("for example `out: \"samples\"` or `out: \"samples.npz\"`"));
    }
    if npz && job.subfolders {
        return Err(Error::value("generate: option `subfolders` is for folders, not for a `.npz` file"));
    }
    if job.identity.is_none() && job.shard.count > 1 {
        let e = Error::value(
            "generate: shards cannot tell that they belong to one run: a function of the script's own makes the samples",
        );
        return Err(e.hint("give the run a name with option `key`, and change it when the function changes"));
    }
    Ok(())
}

/// Samples [n, C, H, W] in [−1, 1] as 8-bit pixels [n, H, W, C].
fn pixels(x: &Tensor, n: usize, shape: [usize; 3]) -> Result<Vec<u8>> {
    let [c, h, w] = shape;
    if x.dims() != [n, c, h, w] {
        let m = format!("generate: samples of shape {:?} came where {:?} were expected", x.dims(), [n, c, h, w]);
        return Err(Error::shape(m, &[x.dims(), &[n, c, h, w]]));
    }
    let values = x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.permute((0, 2, 3, 1))?;
    let values = values.flatten_all()?.to_vec1::<f64>()?;
    if let Some(i) = values.iter().position(|v| v.is_nan()) {
        let e = Error::value(format!("generate: sample {} of the batch has NaN in it", i / (c * h * w).max(1)));
        return Err(e.hint("nothing of this batch was stored: is a step of the schedule, or the network, at fault?"));
    }
    // a cast to an integer truncates, as EDM's generate.py does
    Ok(values.into_iter().map(|v| (v * 127.5 + 128.0).clamp(0.0, 255.0) as u8).collect())
}

/// What stands beside the samples, or in the `.npz` as the archive's comment.
struct Manifest {
    run: Option<String>,
    body: Value,
}

impl Manifest {
    fn new(job: &Job) -> Manifest {
        let identity = job.identity.clone().map(|mut m| {
            m.insert("shape".into(), json!(job.shape));
            match is_npz(&job.out) {
                // an array has all of its samples or is not there; a folder may grow
                true => m.insert("numbers".into(), json!([job.numbers.start, job.numbers.end])),
                false => m.insert("subfolders".into(), json!(job.subfolders)),
            };
            m
        });
        let run = identity.as_ref().map(|m| hash::sha256(json!([VERSION, m]).to_string().as_bytes()));
        let body =
            json!({ "format": FORMAT, "version": VERSION, "run": run, "identity": identity, "about": job.about });
        Manifest { run, body }
    }
    /// One entry to a line.
    fn text(&self) -> String {
        format!("{:#}\n", self.body)
    }
    /// Why files with the manifest `found` are not of this run; `None` when they are.
    fn differs(&self, found: Option<&[u8]>) -> Option<String> {
        let found: Option<Value> = found.and_then(|b| serde_json::from_slice(b).ok());
        let Some(found) = found.filter(|f| f["format"] == FORMAT) else {
            return Some("it was not made by `generate`".into());
        };
        if self.run.is_none() {
            let why = "whether it is of this run cannot be told without option `key`, for a function of the script's own \
                       makes the samples";
            return Some(why.into());
        }
        if found["run"] == self.body["run"] {
            return None;
        }
        if found["version"] != VERSION {
            return Some(format!("it is of another version of `generate` ({})", found["version"]));
        }
        let mine = self.body["identity"].as_object().into_iter().flatten();
        let other: Vec<&str> =
            mine.filter(|(k, v)| found["identity"].get(k) != Some(v)).map(|(k, _)| k.as_str()).collect();
        Some(match other.is_empty() {
            true => "it is of another run".into(),
            false => format!("it is of a run that differs in {}", other.join(", ")),
        })
    }
}

/// The error for files that another run made.
fn refused(path: &Path, why: &str) -> Error {
    let e = Error::new(Kind::Value, format!("generate: `{}` is in the way: {why}", path.display()));
    e.hint("choose another name, or replace it with `overwrite: true`")
}

/// Keeps other processes out while it lives, where the file system can; waits for its turn.
fn wait_for(dir: &Path) -> Option<File> {
    let file = crate::access::read(dir).ok()?.open().ok()?;
    file.lock().ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_edm() {
        let x = [-2.0, -1.0, -0.999, 0.0, 0.00393, 0.9999, 1.0, 3.0];
        let t = Tensor::new(&x, &Device::Cpu).unwrap().reshape((1, 1, 2, 4)).unwrap();
        assert_eq!(pixels(&t, 1, [1, 2, 4]).unwrap(), [0, 0, 0, 128, 128, 255, 255, 255]);
        assert!(pixels(&t, 2, [1, 2, 4]).is_err());
    }
}
