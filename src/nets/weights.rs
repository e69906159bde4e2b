//! Weights by name: from a safetensors file, checked against what the architecture asks for, or random.
use crate::files::checkpoint;
use crate::files::hash::hex;
use crate::files::torch::View;
use crate::schema::{Opt, Value};
use crate::{Error, Kind, Result};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use safetensors::Dtype;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The type of weights and embedding in a network whose images have type `dtype`: half precision is for images only.
pub fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Where an architecture takes its weights from: each name once, with the shape that it must have.
pub trait Weights {
    /// The tensor `name`, of exactly this shape, in f64 or f32 (see [`wide`]) on the network's device.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor>;
    /// The same, in the 16 bits in which it is stored where an f32 network on the CPU can keep it in them.
    fn take_stored(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.take(name, shape)
    }
    /// Values that are computed and not trained: what the file holds, or `computed` where there is no file.
    fn buffer(&mut self, name: &str, shape: &[usize], _computed: &[f64]) -> Result<Vec<f64>> {
        Ok(self.take(name, shape)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    }
    /// Fails if anything is left that the architecture did not ask for.
    fn finish(&mut self) -> Result<()>;
}

/// Where a weight of a file is.
pub enum Stored<'a> {
    /// In a checkpoint, not looked at yet.
    View(&'a View),
    /// In memory already.
    Tensor(&'a Tensor),
}

impl Stored<'_> {
    fn dims(&self) -> &[usize] {
        match self {
            Stored::View(v) => v.shape(),
            Stored::Tensor(t) => t.dims(),
        }
    }
    /// The values in f32 or f64 on the CPU, or in the 16 bits that they have if `as_stored`; or the type that they have and must not.
    fn read(&self, dtype: DType, as_stored: bool) -> std::result::Result<Result<Tensor>, String> {
        let raw = match self {
            Stored::View(v) => {
                let stored = match v.dtype() {
                    // widened as they are read, exactly
                    Dtype::F8_E4M3 | Dtype::F8_E5M2 => {
                        let dtype = if as_stored { DType::F16 } else { dtype };
                        return Ok(checkpoint::tensor(v).and_then(|t| Ok(t.to_dtype(dtype)?)));
                    }
                    Dtype::F16 => DType::F16,
                    Dtype::BF16 => DType::BF16,
                    Dtype::F32 => DType::F32,
                    Dtype::F64 => DType::F64,
                    other => return Err(format!("{other:?}")),
                };
                match v.bytes() {
                    Ok(bytes) => Tensor::from_raw_buffer(&bytes, stored, v.shape(), &Device::Cpu),
                    Err(e) => return Ok(Err(e.into())),
                }
            }
            Stored::Tensor(t) if !t.dtype().is_float() => return Err(t.dtype().as_str().to_uppercase()),
            Stored::Tensor(t) => t.detach().to_device(&Device::Cpu),
        };
        let keep = |t: &Tensor| as_stored && matches!(t.dtype(), DType::F16 | DType::BF16);
        Ok(raw.and_then(|t| if keep(&t) { Ok(t) } else { t.to_dtype(dtype) }).map_err(Error::from))
    }
}

/// Tensors by name, with the metadata that describes the network: what every kind of checkpoint is turned into.
pub struct File<'a> {
    tensors: BTreeMap<&'a str, Stored<'a>>,
    metadata: &'a BTreeMap<String, String>,
    /// Whether more may be in the file than the network asks for.
    more: bool,
    /// What to do where a tensor is missing or of another shape.
    advice: &'static str,
    /// Options that nobody has asked for yet, and the names of those that somebody has.
    options: BTreeMap<String, serde_json::Value>,
    asked: Vec<&'static str>,
    /// Options that several parts ask for.
    again: BTreeMap<String, serde_json::Value>,
    /// Where the network is to run.
    pub device: Device,
    /// What it is to run in.
    pub dtype: DType,
}

/// No metadata.
static NOTHING: BTreeMap<String, String> = BTreeMap::new();

impl<'a> File<'a> {
    /// Tensors and metadata of a checkpoint; the data are looked at when a tensor is taken.
    pub fn new(
        tensors: &'a BTreeMap<String, View>,
        metadata: &'a BTreeMap<String, String>,
        device: &Device,
        dtype: DType,
    ) -> File<'a> {
        let tensors = tensors.iter().map(|(name, v)| (&**name, Stored::View(v))).collect();
        let advice = "does the `config` in the file's metadata describe this network?";
        let (options, asked, again) = Default::default();
        File { tensors, metadata, more: false, advice, options, asked, again, device: device.clone(), dtype }
    }
    /// Tensors in memory, of which a network may take some.
    pub fn some(
        tensors: &'a BTreeMap<String, Tensor>,
        advice: &'static str,
        device: &Device,
        dtype: DType,
    ) -> File<'a> {
        let tensors = tensors.iter().map(|(name, t)| (&**name, Stored::Tensor(t))).collect();
        let (options, asked, again) = Default::default();
        File { tensors, metadata: &NOTHING, more: true, advice, options, asked, again, device: device.clone(), dtype }
    }
    /// From here on more may be in the file than the network asks for.
    pub fn allow_more(&mut self, advice: &'static str) {
        (self.more, self.advice) = (true, advice);
    }
    /// From here on this is what to do where a tensor does not fit.
    pub fn advise(&mut self, advice: &'static str) {
        self.advice = advice;
    }
    /// A metadata entry.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
    /// Whether there is a tensor of this name, not taken yet.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
    /// The shape of a tensor of this name, not taken yet.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Stored::dims)
    }
    /// The shapes of the tensors whose names begin with `prefix`, which is taken off; of those not taken yet.
    pub fn shapes(&self, prefix: &str) -> BTreeMap<String, Vec<usize>> {
        let under = |(name, t): (&&str, &Stored)| Some((name.strip_prefix(prefix)?.to_string(), t.dims().to_vec()));
        self.tensors.iter().filter_map(under).collect()
    }
    /// The names that begin with `prefix`, of tensors not taken yet.
    pub fn names(&self, prefix: &str) -> Vec<&'a str> {
        self.tensors.keys().copied().filter(|n| n.starts_with(prefix)).collect()
    }
    /// Fails with its name where a tensor whose name begins with `prefix` was not taken.
    pub fn none_left(&self, prefix: &str) -> Result<()> {
        let Some(name) = self.names(prefix).into_iter().next() else { return Ok(()) };
        let m = format!("the file holds tensors that this network does not have, such as `{name}`");
        Err(Error::new(Kind::Format, m).hint("it is of a kind that is not read yet"))
    }
    /// Takes a tensor's values without asking for a shape; none where there is no such tensor.
    pub fn take_values(&mut self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some(dims) = self.tensors.get(name).map(|t| t.dims().to_vec()) else { return Ok(None) };
        Ok(Some(self.take(name, &dims)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?))
    }
    /// Reads what one name means under another, where the other is there. Says whether it is.
    pub fn instead(&mut self, name: &'a str, other: &str) -> bool {
        let found = self.tensors.remove(other);
        let is = found.is_some();
        if let Some(t) = found {
            self.tensors.insert(name, t);
        }
        is
    }
    /// What the user says of the network that its file does not.
    pub fn given(&mut self, options: BTreeMap<String, serde_json::Value>) {
        self.options = options;
    }
    /// The value of an option, or its default; fails where it is none that the option takes.
    pub fn option(&mut self, option: &Opt) -> Result<Value> {
        let given = self.options.remove(option.name).unwrap_or_default();
        self.asked.push(option.name);
        option.from_json("this network", &given)
    }
    /// The same of an option that several parts of a model have.
    pub fn option_again(&mut self, option: &Opt) -> Result<Value> {
        let given = self.options.get(option.name).cloned();
        let value = self.option(option)?;
        if let Some(given) = given {
            self.again.insert(option.name.into(), given);
        } else if let Some(given) = self.again.get(option.name) {
            return option.from_json("this network", given);
        }
        Ok(value)
    }
    /// Fails where the user gave an option that the network does not have.
    pub fn all_asked(&self) -> Result<()> {
        match self.options.keys().next() {
            Some(key) => Err(Error::unknown("option of this network", key, self.asked.iter().copied())),
            None => Ok(()),
        }
    }
    /// SHA-256 over names, types, shapes and data in the order of the names, and over `also`.
    pub fn hash(&self, also: &str) -> Result<String> {
        let mut h = Sha256::new();
        for (name, t) in &self.tensors {
            if let Stored::View(t) = t {
                h.update(format!("{name} {:?} {:?}\n", t.dtype(), t.shape()));
                h.update(t.bytes()?);
            }
        }
        h.update(also);
        Ok(hex(&h.finalize()))
    }
}

impl File<'_> {
    fn taken(&mut self, name: &str, shape: &[usize], as_stored: bool) -> Result<Tensor> {
        let Some(t) = self.tensors.remove(name) else {
            let e = Error::new(Kind::Format, format!("the tensor `{name}` is missing"));
            return Err(match crate::error::nearest(name, self.tensors.keys().copied()) {
                Some(n) => e.hint(format!("the file has `{n}`; {}", self.advice)),
                None => e.hint(self.advice),
            });
        };
        if t.dims() != shape {
            let e = Error::new(Kind::Format, format!("`{name}` has shape {:?}, expected {shape:?}", t.dims()));
            return Err(e.shapes(&[t.dims(), shape]).hint(self.advice));
        }
        let tensor = t.read(wide(self.dtype), as_stored).map_err(|other| {
            let m = format!("`{name}` is of type {other}, expected F32, F64, F16 or BF16");
            Error::new(Kind::Format, m).hint("save the weights in floating point")
        })??;
        if !is_finite(&tensor) {
            let e = Error::new(Kind::Format, format!("`{name}` holds NaN or infinite values"));
            return Err(e.hint("the checkpoint is damaged, or its values do not fit the dtype asked for"));
        }
        Ok(tensor.to_device(&self.device)?)
    }
}

impl Weights for File<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.taken(name, shape, false)
    }
    fn take_stored(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let keeps = self.dtype == DType::F32 && self.device.is_cpu();
        self.taken(name, shape, keeps)
    }
    fn finish(&mut self) -> Result<()> {
        match self.tensors.keys().next() {
            Some(name) if !self.more => {
                let n = self.tensors.len();
                let m = format!("the file holds {n} tensors that this network does not have, such as `{name}`");
                Err(Error::new(Kind::Format, m).hint(self.advice))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a weight on the CPU holds neither NaN nor ±Inf, whose exponents are all ones.
fn is_finite(t: &Tensor) -> bool {
    /// The largest of all exponents: a loop that vectors can follow.
    fn below<T: Copy>(all: &[T], ones: u64, exponent: impl Fn(T) -> u64) -> bool {
        all.iter().fold(0, |m, v| exponent(*v).max(m)) < ones
    }
    let (storage, _) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F64(v)) => below(v, 0x7ff << 52, |v| v.to_bits() & (0x7ff << 52)),
        Storage::Cpu(CpuStorage::F32(v)) => below(v, 0xff << 23, |v| u64::from(v.to_bits() & (0xff << 23))),
        Storage::Cpu(CpuStorage::F16(v)) => below(v, 0x1f << 10, |v| u64::from(v.to_bits() & (0x1f << 10))),
        Storage::Cpu(CpuStorage::BF16(v)) => below(v, 0xff << 7, |v| u64::from(v.to_bits() & (0xff << 7))),
        _ => true,
    }
}

/// Fails where a network that is made here, and not read from a file of its size, would be absurdly large.
fn bounded(total: usize) -> Result<usize> {
    match total <= 1 << 29 {
        true => Ok(total),
        false => Err(Error::new(Kind::Memory, "a network without a file may have at most 2²⁹ weights")
            .hint("use fewer channels, levels or blocks")),
    }
}

/// Gaussian weights with standard deviation 1/√fan_in, biases small: a network of the right cost with no file.
pub struct Random {
    rng: ChaCha8Rng,
    device: Device,
    dtype: DType,
    total: usize,
}

impl Random {
    /// Starts from a seed, for a network that runs in `dtype`.
    pub fn new(seed: u64, device: &Device, dtype: DType) -> Self {
        Random { rng: ChaCha8Rng::seed_from_u64(seed), device: device.clone(), dtype: wide(dtype), total: 0 }
    }
    fn normal(&mut self) -> f32 {
        // Box–Muller; 1 − u keeps the logarithm finite
        let mut unit = || (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let (u, v) = (1.0 - unit(), unit());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
}

impl Weights for Random {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        self.total = bounded(self.total + n)?;
        let fan_in = shape.iter().skip(1).product::<usize>().max(1);
        let norm_weight = name.contains("norm") && name.ends_with("weight");
        let (scale, centre) = match (shape.len(), norm_weight, name.ends_with("freqs")) {
            // Fourier features as they are drawn before training
            (_, _, true) => (16.0, 0.0),
            (_, true, _) => (0.1, 1.0),
            (1, ..) => (0.1, 0.0),
            _ => ((1.0 / fan_in as f32).sqrt(), 0.0),
        };
        let data: Vec<f32> = (0..n).map(|_| centre + scale * self.normal()).collect();
        Ok(Tensor::from_vec(data, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
    fn buffer(&mut self, _: &str, _: &[usize], computed: &[f64]) -> Result<Vec<f64>> {
        Ok(computed.to_vec())
    }
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Notes what an architecture asks for, and gives zeros.
#[derive(Default)]
pub struct Names(pub Vec<(String, Vec<usize>)>);

impl Weights for Names {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.0.push((name.to_string(), shape.to_vec()));
        bounded(self.0.iter().map(|(_, s)| s.iter().product::<usize>()).sum())?;
        Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
    }
    fn buffer(&mut self, name: &str, shape: &[usize], computed: &[f64]) -> Result<Vec<f64>> {
        self.0.push((name.to_string(), shape.to_vec()));
        Ok(computed.to_vec())
    }
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
