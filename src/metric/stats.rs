//! Mean and covariance of features, gathered batch by batch in bounded memory, joined, and kept in files.
use super::frechet::{checked, symmetric};
use crate::files::npy;
use crate::host::{check_cancelled, note};
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};
use std::path::Path;

/// Rows whose products are summed together. Blocks begin at every multiple of it, so that sums do not depend on how the rows
/// came.
const BLOCK: usize = 256;
/// The widest features that are taken: a covariance takes the square of it.
const WIDEST: usize = 1 << 14;
/// What two statistics that are joined may say differently: which samples, and how many.
const PARTS: [&str; 2] = ["samples", "first"];

/// What is known of the features.
#[derive(Debug, Clone)]
enum Body {
    /// Sums that more rows can be added to.
    Sums {
        /// Rows in the sums.
        count: u64,
        mean: Vec<f64>,
        /// Σ (x − mean)(x − mean)ᵀ.
        scatter: Vec<f64>,
        /// Rows that are not in the sums yet, fewer than a block.
        pending: Vec<f64>,
    },
    /// Of a file that does not say of how many rows it is.
    Fixed { mean: Vec<f64>, cov: Vec<f64> },
}

/// Count, mean and unbiased covariance of rows of features, in f64.
///
/// The same rows in the same order give the same bits, whatever the batches that they come in.
#[derive(Debug, Clone)]
pub struct Stats {
    /// 0 before the first row.
    width: usize,
    body: Body,
    /// How the features were made: network, resize, sampler, … goes into files.
    pub about: Map<String, Value>,
}

impl Default for Stats {
    fn default() -> Self {
        let body = Body::Sums { count: 0, mean: vec![], scatter: vec![], pending: vec![] };
        Stats { width: 0, body, about: Map::new() }
    }
}

impl Stats {
    /// Of known mean [D] and covariance [D, D], over `count` rows where that is known.
    ///
    /// Errors: shapes, values that are not finite, a covariance that is not symmetric.
    pub fn of(mean: &Tensor, cov: &Tensor, count: Option<u64>) -> Result<Stats> {
        let (mean, cov) = checked("statistics", mean, cov)?;
        let width = mean.len();
        let body = match count {
            Some(count) => {
                let scatter = cov.iter().map(|c| c * count.saturating_sub(1) as f64).collect();
                Body::Sums { count, mean, scatter, pending: vec![] }
            }
            None => Body::Fixed { mean, cov },
        };
        Ok(Stats { width, body, about: Map::new() })
    }

    /// The features' width D; 0 before the first row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many rows; unknown where a file did not say.
    pub fn count(&self) -> Option<u64> {
        match &self.body {
            Body::Sums { count, pending, .. } => Some(count + (pending.len() / self.width.max(1)) as u64),
            Body::Fixed { .. } => None,
        }
    }

    /// Adds rows [N, D].
    ///
    /// Errors: another width, values that are not finite (the message names the row), statistics whose count is not known.
    pub fn add(&mut self, features: &Tensor) -> Result<()> {
        let &[n, d] = features.dims() else {
            let m = format!("statistics: features must be [N, D], not {:?}", features.dims());
            return Err(Error::shape(m, &[features.dims()]));
        };
        if d == 0 || d > WIDEST || (self.width > 0 && d != self.width) {
            let wanted = if self.width > 0 { self.width.to_string() } else { format!("1 to {WIDEST}") };
            let m = format!("statistics: features have width {d}, expected {wanted}");
            return Err(Error::shape(m, &[features.dims()]));
        }
        let rows: Vec<f64> =
            features.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        if let Some(i) = rows.iter().position(|v| !v.is_finite()) {
            let e = Error::value(format!("statistics: row {} of the features is not finite", i / d));
            return Err(e.hint("does the sample have NaN in it? Nothing of this batch was added"));
        }
        if self.width == 0 {
            memory::room("statistics of features", d * d * 16)?;
        }
        let Body::Sums { count, mean, scatter, pending } = &mut self.body else {
            return Err(unknown_count());
        };
        if self.width == 0 {
            (*mean, *scatter) = (vec![0.0; d], vec![0.0; d * d]);
        }
        self.width = d;
        let mut rest = &rows[..];
        while !rest.is_empty() {
            check_cancelled()?;
            let take = (BLOCK * d - pending.len()).min(rest.len());
            pending.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
            if pending.len() == BLOCK * d {
                let (block_mean, block_scatter) = sums(pending, d)?;
                join(count, mean, scatter, BLOCK as u64, &block_mean, &block_scatter);
                pending.clear();
            }
        }
        debug_assert_eq!(n * d, rows.len());
        Ok(())
    }

    /// All rows in the sums: count, mean, scatter.
    fn gathered(&self) -> Result<(u64, Vec<f64>, Vec<f64>)> {
        let Body::Sums { count, mean, scatter, pending } = &self.body else { return Err(unknown_count()) };
        let (mut count, mut mean, mut scatter) = (*count, mean.clone(), scatter.clone());
        if !pending.is_empty() {
            let (m, s) = sums(pending, self.width)?;
            join(&mut count, &mut mean, &mut scatter, (pending.len() / self.width) as u64, &m, &s);
        }
        Ok((count, mean, scatter))
    }

    /// Adds all rows of another. What both say of themselves (beside `samples` and `first`) must agree.
    ///
    /// Errors: another width, other entries in `about`, a count that is not known.
    pub fn merge(&mut self, other: &Stats) -> Result<()> {
        if other.width == 0 {
            return Ok(());
        }
        if self.width == 0 {
            if self.about.is_empty() {
                self.about = other.about.clone();
            }
            (self.width, self.body) = (other.width, other.body.clone());
            return Ok(());
        }
        if self.width != other.width {
            let m = format!("statistics: features of width {} and {} cannot be joined", self.width, other.width);
            return Err(Error::shape(m, &[&[self.width], &[other.width]]));
        }
        let differs = |(k, v): &(&String, &Value)| !PARTS.contains(&k.as_str()) && self.about.get(*k) != Some(*v);
        if let Some((k, v)) = other.about.iter().find(differs) {
            let own = self.about.get(k).unwrap_or(&Value::Null);
            let e = Error::value(format!("statistics of different runs: `{k}` is {own} in one and {v} in the other"));
            return Err(e.hint("join parts of one run only: the same network, sampler and reference"));
        }
        let ((mut count, mut mean, mut scatter), (n, m, s)) = (self.gathered()?, other.gathered()?);
        join(&mut count, &mut mean, &mut scatter, n, &m, &s);
        self.body = Body::Sums { count, mean, scatter, pending: vec![] };
        Ok(())
    }

    /// Mean [D] and unbiased covariance [D, D] in f64 on the CPU. Errors: fewer than 2 rows.
    pub fn moments(&self) -> Result<(Tensor, Tensor)> {
        let d = self.width;
        let (mean, cov) = match &self.body {
            Body::Fixed { mean, cov } => (mean.clone(), cov.clone()),
            Body::Sums { .. } => {
                let (count, mean, scatter) = self.gathered()?;
                if count < 2 {
                    return Err(Error::value(format!("statistics: a covariance needs at least 2 rows, not {count}")));
                }
                (mean, scatter.into_iter().map(|s| s / (count - 1) as f64).collect())
            }
        };
        Ok((Tensor::from_vec(mean, d, &Device::Cpu)?, Tensor::from_vec(cov, (d, d), &Device::Cpu)?))
    }

    /// As [`few`], where the count is known.
    pub fn warn(&self, which: &str) {
        if let Some(n) = self.count() {
            few(which, n, self.width);
        }
    }

    /// Writes `mu` [D] and `sigma` [D, D] in f64, as other tools read them, with `n` and what is known `about` them.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (mean, cov) = self.moments()?;
        let mut arrays = vec![("mu".to_string(), mean), ("sigma".to_string(), cov)];
        if let Some(n) = self.count() {
            arrays.push(("n".into(), Tensor::new(&[n as i64], &Device::Cpu)?));
        }
        if !self.about.is_empty() {
            let text = Value::Object(self.about.clone()).to_string().into_bytes();
            let n = text.len();
            arrays.push(("about".into(), Tensor::from_vec(text, n, &Device::Cpu)?));
        }
        crate::files::image::require_extension(path.as_ref(), &["npz"])?;
        npy::write_npz(path, &arrays)
    }

    /// Reads statistics: `mu` and `sigma` of an `.npz`, as this crate, pytorch-fid, EDM and ADM write them (ADM's with `spatial`:
    /// `mu_s`, `sigma_s`); `n`, where there is one.
    ///
    /// Errors name the file: no such arrays, shapes that do not fit, values that are not finite.
    pub fn load(path: impl AsRef<Path>, spatial: bool) -> Result<Stats> {
        let path = path.as_ref();
        let arrays = npy::read_npz(path)?;
        let find = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        let names = if spatial { ["mu_s", "sigma_s"] } else { ["mu", "sigma"] };
        let read = || {
            let (Some(mean), Some(cov)) = (find(names[0]), find(names[1])) else {
                let there: Vec<&str> = arrays.iter().map(|(n, _)| n.as_str()).collect();
                let m =
                    format!("no statistics: there is no `{}` and `{}` among {}", names[0], names[1], there.join(", "));
                return Err(Error::new(Kind::Format, m).hint("files of statistics hold `mu` [D] and `sigma` [D, D]"));
            };
            let count = match find("n") {
                Some(n) if n.elem_count() == 1 => {
                    let n = n.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?[0];
                    Some(u64::try_from(n).map_err(|_| Error::new(Kind::Format, format!("its count is {n}")))?)
                }
                _ => None,
            };
            let mut stats = Stats::of(mean, cov, count)?;
            if let Some(about) = find("about").filter(|t| t.dtype() == DType::U8) {
                let bytes: Vec<u8> = about.flatten_all()?.to_vec1()?;
                if let Ok(Value::Object(map)) = serde_json::from_slice(&bytes) {
                    stats.about = map;
                }
            }
            Ok(stats)
        };
        read().map_err(|e| e.context(path.display()))
    }
}

/// Tells by a note where there are too few rows for a covariance of full rank; says how many there must be.
pub fn few(which: &str, count: u64, width: usize) {
    let need = width as u64 + 1;
    if count < need {
        note(&format!(
            "{which}: {count} samples are too few for features of width {width}: their covariance needs {need}, and a Fréchet \
             distance is biased far beyond that (tables have 50,000 samples)"
        ));
    }
}

fn unknown_count() -> Error {
    let e = Error::value("statistics: of how many samples they are is not known, so that nothing can be added to them");
    e.hint("the file has `mu` and `sigma` but no `n`; it can be compared with, as a reference")
}

/// The mean and the scatter of rows.
fn sums(rows: &[f64], d: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let n = rows.len() / d;
    let mut mean = vec![0.0; d];
    for row in rows.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += v);
    }
    mean.iter_mut().for_each(|m| *m /= n as f64);
    let centred: Vec<f64> = rows.chunks_exact(d).flat_map(|row| row.iter().zip(&mean).map(|(v, m)| v - m)).collect();
    let c = Tensor::from_vec(centred, (n, d), &Device::Cpu)?;
    let mut scatter: Vec<f64> = c.t()?.matmul(&c)?.flatten_all()?.to_vec1()?;
    symmetric(&mut scatter, d);
    Ok((mean, scatter))
}

/// Joins (n, m, s) to (count, mean, scatter): Chan, Golub & LeVeque 1979.
fn join(count: &mut u64, mean: &mut [f64], scatter: &mut [f64], n: u64, m: &[f64], s: &[f64]) {
    let (a, b) = (*count as f64, n as f64);
    let all = a + b;
    if n == 0 {
        return;
    }
    let delta: Vec<f64> = m.iter().zip(mean.iter()).map(|(m, own)| m - own).collect();
    let d = mean.len();
    for (i, (row, s)) in scatter.chunks_exact_mut(d).zip(s.chunks_exact(d)).enumerate() {
        let f = delta[i] * (a * b / all);
        row.iter_mut().zip(s).zip(&delta).for_each(|((r, s), e)| *r += s + f * e);
    }
    mean.iter_mut().zip(&delta).for_each(|(own, e)| *own += e * (b / all));
    *count += n;
}
