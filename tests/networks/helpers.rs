//! The cases of tests/fixtures/edm/networks.py: weights and inputs by its formula, checkpoints written from them.
use candle_core::{DType, Device, Tensor};
use ld3sh::denoise::{Cond, Denoiser, Prediction, Query};
use ld3sh::host::Quiet;
use ld3sh::model::{self, Source};
use ld3sh::nets::edm::{self, Config};
use ld3sh::nets::network::Net;
use serde_json::Value;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A file of the fixtures of latent models.
pub fn latent(name: &str) -> PathBuf {
    fixture("latent").join(name)
}

pub fn read(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

pub fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub fn f32(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F32).unwrap()
}

/// The largest difference, relative to the largest entry of `b`.
pub fn error(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    let largest =
        |v: &mut dyn Iterator<Item = f64>| v.fold(0.0, |m: f64, v| if v.abs() > m || v.is_nan() { v.abs() } else { m });
    largest(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / largest(&mut b.iter().copied())
}

/// The largest such difference of any one sample of a batch of images; of anything else together.
pub fn each_error(a: &Tensor, b: &Tensor) -> f64 {
    if b.rank() < 4 {
        return error(a, b);
    }
    let one = |t: &Tensor, i: usize| t.narrow(0, i, 1).unwrap();
    (0..b.dim(0).unwrap()).map(|i| error(&one(a, i), &one(b, i))).fold(0.0, f64::max)
}

/// Numbers in [-1, 1) by name: SplitMix64 from the name's FNV-1a hash.
pub fn uniform(name: &str, shape: &[usize]) -> Tensor {
    let start = name.bytes().fold(0xcbf29ce484222325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100000001b3));
    let at = |i: u64| {
        let mut z = start.wrapping_add((i + 1).wrapping_mul(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let data: Vec<f64> = (0..shape.iter().product::<usize>() as u64).map(at).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

/// What a parameter is.
fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let u = values(&uniform(name, shape));
    let fan_in: usize = shape.iter().skip(1).product();
    let centre = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
    let of = |u: f64| match shape.len() {
        _ if name.ends_with("freqs") => 16.0 * u,
        1 => centre + 0.2 * u,
        _ => u * (3.0 / fan_in as f64).sqrt(),
    };
    u.into_iter().map(|u| of(u) as f32).collect()
}

/// D(x; σ) of a batch, and the gradients of ⟨D, cot⟩ in x and σ.
pub fn denoise(net: Net, x: &Tensor, sigma: &[f64], cond: &Cond, cot: &Tensor) -> [Tensor; 3] {
    let d = net.denoiser().unwrap();
    let (m, pull) = d.linearize(&Quiet, &Query { x: &x.into(), t: sigma, cond }, Prediction::Data).unwrap();
    let g = pull(&Quiet, &cot.into()).unwrap();
    [m.into_tensor().unwrap(), g.x.into_tensor().unwrap(), Tensor::from_vec(g.t, sigma.len(), &Device::Cpu).unwrap()]
}

/// One of the reference's networks.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    precond: String,
    json: Value,
    pub config: Config,
    pub sigma: Vec<f64>,
    tensors: usize,
}

pub fn cases() -> Vec<Case> {
    let bytes = std::fs::read(fixture("edm/networks.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap();
    let of = |c: Value| {
        let text = |key: &str| c[key].as_str().unwrap().to_string();
        let config = Config::parse(&c["config"].to_string()).unwrap().with_precond(&text("precond")).unwrap();
        Case {
            name: text("name"),
            precond: text("precond"),
            json: c["config"].clone(),
            config,
            sigma: c["sigma"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect(),
            tensors: c["tensors"].as_u64().unwrap() as usize,
        }
    };
    cases.into_iter().map(of).collect()
}

pub fn case(name: &str) -> Case {
    cases().into_iter().find(|c| c.name == name).unwrap()
}

impl Case {
    /// A number for each pixel, by name; the states are scaled with their noise.
    pub fn given(&self, what: &str) -> Tensor {
        let (n, c, r) = (self.sigma.len(), self.config.img_channels, self.config.img_resolution);
        let u = uniform(&format!("{}.{what}", self.name), &[n, c, r, r]);
        let scale: Vec<f64> = self.sigma.iter().map(|s| if what == "x" { 1.0 + s } else { 1.0 }).collect();
        u.broadcast_mul(&Tensor::from_vec(scale, (n, 1, 1, 1), &Device::Cpu).unwrap()).unwrap()
    }
    /// No class, then class 2.
    pub fn cond(&self, dtype: DType) -> Cond {
        let n = self.config.label_dim;
        if n == 0 {
            return Cond::None;
        }
        let mut rows = vec![0.0; 2 * n];
        rows[n + 2] = 1.0;
        Cond::classes(Tensor::from_vec(rows, (2, n), &Device::Cpu).unwrap().to_dtype(dtype).unwrap())
    }
    /// The same with its configuration changed, weights and all.
    pub fn with(mut self, change: impl Fn(&mut Value)) -> Case {
        change(&mut self.json);
        self
    }
    /// Writes a checkpoint as `net.safetensors`, its configuration changed after the weights were made.
    pub fn write(&self, change: impl FnOnce(&mut Value)) -> TempDir {
        self.write_with(change, |_, _| {})
    }
    /// The same with the tensors changed.
    pub fn write_with(&self, change: impl FnOnce(&mut Value), edit: impl Fn(&str, &mut Vec<f32>)) -> TempDir {
        let names = edm::tensors(&self.config).unwrap();
        let buffer = |name: &str| name == "u" || name.ends_with("resample_filter");
        assert_eq!(names.iter().filter(|(n, _)| n != "u").count(), self.tensors, "{}", self.name);
        let taps = &self.config.resample_filter;
        let sum: f64 = taps.iter().sum();
        let tensors: HashMap<String, Tensor> = names
            .into_iter()
            .map(|(name, shape)| {
                let mut v = match (&*name, buffer(&name)) {
                    ("u", _) => values(&read("edm/networks.safetensors")[&format!("{}.u", self.name)])
                        .iter()
                        .map(|v| *v as f32)
                        .collect(),
                    (_, true) => {
                        taps.iter().flat_map(|a| taps.iter().map(move |b| (a * b / (sum * sum)) as f32)).collect()
                    }
                    _ => weight(&name, &shape),
                };
                edit(&name, &mut v);
                (name, Tensor::from_vec(v, shape, &Device::Cpu).unwrap())
            })
            .collect();
        let mut json = self.json.clone();
        change(&mut json);
        let metadata = [("precond", self.precond.clone()), ("config", json.to_string())];
        let metadata = metadata.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        let dir = tempfile::tempdir().unwrap();
        safetensors::serialize_to_file(&tensors, Some(metadata), &dir.path().join("net.safetensors")).unwrap();
        dir
    }
    /// Loaded from such a checkpoint, without augmentation labels.
    pub fn plain(&self, dtype: DType) -> Net {
        let dir = self.write(|_| {});
        model::denoiser(&Source::Path(dir.path().join("net.safetensors")), &Device::Cpu, dtype).unwrap()
    }
    /// Loaded, with the reference's augmentation labels.
    pub fn load(&self, dtype: DType) -> Net {
        let net = self.plain(dtype);
        match self.config.augment_dim {
            0 => net,
            n => net.augmented(&values(&uniform(&format!("{}.augment", self.name), &[n]))).unwrap(),
        }
    }
    /// Value and gradients as the reference has them.
    pub fn denoise(&self, net: Net, dtype: DType) -> [Tensor; 3] {
        let to = |t: Tensor| t.to_dtype(dtype).unwrap();
        denoise(net, &to(self.given("x")), &self.sigma, &self.cond(dtype), &to(self.given("cotangent")))
    }
}

/// Writes random weights of these shapes, without holding them all.
pub fn write_full(path: &Path, json: &str, tensors: &[(String, Vec<usize>)]) {
    let metadata = serde_json::json!({ "precond": "EDMPrecond", "config": json });
    let mut header = serde_json::Map::from_iter([("__metadata__".to_string(), metadata)]);
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        header.insert(name.clone(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    // a prime number of them, used over and over
    let random = values(&uniform("full", &[65537]));
    for (name, shape) in tensors {
        let n = shape.iter().product::<usize>();
        let (scale, centre) = match shape.len() {
            _ if name.ends_with("resample_filter") => {
                let f = if n == 4 { vec![0.5; 2] } else { vec![0.125, 0.375, 0.375, 0.125] };
                let f: Vec<u8> =
                    f.iter().flat_map(|a| f.iter().flat_map(move |b| ((a * b) as f32).to_le_bytes())).collect();
                file.write_all(&f).unwrap();
                continue;
            }
            1 => (0.2, if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 }),
            _ => ((3.0 / shape.iter().skip(1).product::<usize>() as f64).sqrt(), 0.0),
        };
        let bytes: Vec<u8> = random.iter().flat_map(|u| ((centre + scale * u) as f32).to_le_bytes()).collect();
        let mut left = 4 * n;
        while left > 0 {
            let part = left.min(bytes.len());
            file.write_all(&bytes[..part]).unwrap();
            left -= part;
        }
    }
    file.flush().unwrap();
}

pub fn timed<T>(f: impl FnOnce() -> T) -> (T, f64) {
    let start = std::time::Instant::now();
    let out = f();
    (out, start.elapsed().as_secs_f64())
}

/// The process's largest resident memory so far, where the system tells.
pub fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).and_then(|l| l.trim().strip_suffix("kB"));
    match line.and_then(|l| l.trim().parse::<f64>().ok()) {
        Some(kib) => format!("{:.2} GiB", kib / (1 << 20) as f64),
        None => "unknown".into(),
    }
}
