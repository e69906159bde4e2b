//! The networks of EDM (Karras et al. 2022): loading, checking, running; one file per architecture.
mod blocks;
mod config;
mod dhariwal;
mod pickle;
mod precond;
mod songunet;
mod unet;
mod weights;

pub use config::{Config, PRECONDS};
pub use pickle::{Described, describe, find_network};
pub use precond::Precond;

use super::tape::{Candle, Exec, Shapes, Tape, Value};
use super::threads::{awake, collect, portable};
use crate::denoise::{Cond, NetPullback, Network, Preconditioned, TimeInput};
use crate::files::checkpoint::{self, Checkpoint};
use crate::files::pickle::Shared;
use crate::host::Host;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use unet::{Given, UNet};
use weights::{File, Names, Random, Weights, wide};

/// Images that run together through the network on one thread: enough to use the weights more than once while they are
/// in cache, few enough for the activations to stay there.
const CHUNK: usize = 4;

/// Values that candle keeps for the pull-back of a composed network, per value that an operation returns: as measured by
/// tests/kept.rs.
const COMPOSED: u64 = 5;

/// The networks compiled into the binary: name and safetensors file.
const BUILTIN: [(&str, &[u8]); 1] = [("fashion28", include_bytes!("../../../models/fashion28-edm.safetensors"))];

/// Where a network comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A safetensors file with `config` and `precond` in its metadata, or a pickle as NVIDIA publishes them.
    Path(PathBuf),
    /// A network compiled in, by name (see [`builtins`]).
    Builtin(&'static str),
}

/// The names that [`Source::Builtin`] knows.
pub fn builtins() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// What a user needs to know of a network.
#[derive(Debug, Clone)]
pub struct Meta {
    /// "DDPM++", "NCSN++", "ADM", or "SongUNet" for what lies between the first two.
    pub architecture: &'static str,
    /// How D(x; σ) is made from it.
    pub precond: Precond,
    /// The standard deviation of the training data.
    pub sigma_data: f64,
    /// The lowest noise level at which it is sampled by default.
    pub sigma_min: f64,
    /// The highest noise level at which it is sampled by default.
    pub sigma_max: f64,
    /// Height and width in pixels.
    pub resolution: usize,
    /// Colour channels.
    pub channels: usize,
    /// Names of the classes, numbers where the file has none; empty for an unconditional network.
    pub classes: Vec<String>,
    /// The number of classes; 0 for an unconditional network.
    pub label_dim: usize,
    /// The width of augmentation labels; 0 for a network without.
    pub augment_dim: usize,
    /// Whether its file says that it was meant for half precision on a GPU.
    pub use_fp16: bool,
}

/// A frozen EDM network F(x_in, c_noise, labels), with or without [`EdmNet::denoiser`] around it; cheap to clone.
///
/// In f32 on the CPU it runs on its own kernels, elsewhere as a composition of candle operations. A sample's result does
/// not depend on the batch that it is in, nor on the number of threads.
#[derive(Clone)]
pub struct EdmNet(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    unet: Arc<UNet>,
    /// Whether the weights outgrow the caches: then a few images at a time share all threads, because reading (and
    /// transforming) the weights once for each image costs more than threads that wait for each other.
    wide: bool,
    meta: Meta,
    hash: String,
    /// The type of the images inside; in half precision the embedding, norms and softmax are f32.
    dtype: DType,
    device: Device,
    /// Augmentation labels of every sample.
    augment: Option<Vec<f64>>,
}

/// Loads a network onto a device, in f32, f64, f16 or bf16 (bf16 on a GPU only; f16 on the CPU works, but slowly).
///
/// Fails with [`Kind::Io`] where the file cannot be read, and with [`Kind::Format`], naming the file and the tensor or
/// configuration key, where its content is not a complete network of a known architecture.
pub fn load(source: &Source, device: &Device, dtype: DType) -> Result<EdmNet> {
    if !matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16) {
        return Err(Error::value(format!("a network runs in f32, f64, f16 or bf16, not {}", dtype.as_str())));
    }
    if dtype == DType::BF16 && device.is_cpu() {
        return Err(Error::new(Kind::Device, "bf16 has no matrix product on the CPU").hint("use f32, or a GPU"));
    }
    match source {
        Source::Path(path) => {
            let checkpoint = checkpoint::open(path)?;
            from(&checkpoint, device, dtype).map_err(|e| named(e, path))
        }
        Source::Builtin(name) => match BUILTIN.iter().find(|(n, _)| n == name) {
            Some((_, bytes)) => from(&checkpoint::from_bytes(&Shared::new(bytes), true)?, device, dtype),
            None => Err(Error::unknown("built-in network", name, builtins())),
        },
    }
}

fn named(e: Error, path: &Path) -> Error {
    e.context(format!("`{}`", path.display()))
}

fn from(checkpoint: &Checkpoint, device: &Device, dtype: DType) -> Result<EdmNet> {
    let (tensors, metadata) = describe(checkpoint)?;
    network(File::new(&tensors, &metadata, device, dtype))
}

/// The network that a file's metadata and tensors describe.
fn network(mut file: File) -> Result<EdmNet> {
    let missing = |key: &str| {
        Error::new(Kind::Format, format!("the safetensors metadata has no `{key}`"))
            .hint("an EDM network needs `config` (JSON) and `precond` (\"EDMPrecond\") in its metadata")
    };
    let precond = file.metadata("precond").ok_or_else(|| missing("precond"))?.to_string();
    let json = file.metadata("config").ok_or_else(|| missing("config"))?.to_string();
    // where the configuration does not name its architecture, the tensors do
    let like = if file.has("model.out_norm.weight") { "DhariwalUNet" } else { "SongUNet" };
    let config = Config::parse_as(&json, like)?.with_precond(&precond)?;
    let classes = class_names(file.metadata("classes"), config.label_dim)?;
    let (device, dtype) = (file.device.clone(), file.dtype);
    // names the kind where it is not EDM's own: what was cached before there were others stays valid
    let kind = if precond == "EDMPrecond" { "" } else { &*precond };
    let hash = file.hash(&format!("{json}\n{}{kind}", dtype.as_str()))?;
    EdmNet::build(&config, &mut file, classes, hash, &device, dtype)
}

/// The tensors that a checkpoint of this configuration holds, by name and shape, in the order of the architecture. It builds the
/// network with zeros, so it takes the memory of one.
pub fn tensors(config: &Config) -> Result<Vec<(String, Vec<usize>)>> {
    let mut names = Names::default();
    EdmNet::build(config, &mut names, vec![], String::new(), &Device::Cpu, DType::F32)?;
    Ok(names.0)
}

fn class_names(json: Option<&str>, n: usize) -> Result<Vec<String>> {
    let Some(json) = json else { return Ok((0..n).map(|i| i.to_string()).collect()) };
    let names: Vec<String> = serde_json::from_str(json).map_err(|e| {
        Error::new(Kind::Format, format!("`classes` in the metadata cannot be read: {e}"))
            .hint("it must be a JSON array of strings")
    })?;
    match names.len() == n {
        true => Ok(names),
        false => Err(Error::new(Kind::Format, format!("`classes` has {} names, `label_dim` is {n}", names.len()))),
    }
}

/// One chunk of a batch after its forward run: the tape, its inputs, and the result.
struct Part {
    tape: Tape,
    x: Value,
    c_noise: Value,
    out: Value,
}

impl EdmNet {
    fn build(
        config: &Config,
        weights: &mut dyn Weights,
        classes: Vec<String>,
        hash: String,
        device: &Device,
        dtype: DType,
    ) -> Result<EdmNet> {
        let precond = Precond::build(config, weights)?;
        // iDDPM's networks also predict variances
        let out = config.img_channels * if config.precond == "iDDPMPrecond" { 2 } else { 1 };
        let unet = match &*config.model_type {
            "DhariwalUNet" => dhariwal::build(config, out, weights, dtype)?,
            _ => songunet::build(config, out, weights, dtype)?,
        };
        weights.finish()?;
        let [sigma_min, sigma_max] = precond.sampled();
        let meta = Meta {
            architecture: config.architecture(),
            precond,
            sigma_data: config.sigma_data,
            sigma_min,
            sigma_max,
            resolution: config.img_resolution,
            channels: config.img_channels,
            classes,
            label_dim: config.label_dim,
            augment_dim: config.augment_dim,
            use_fp16: config.use_fp16,
        };
        let (unet, device) = (Arc::new(unet), device.clone());
        let wide = config.model_channels >= 64;
        Ok(EdmNet(Arc::new(Inner { unet, wide, meta, hash, dtype, device, augment: None })))
    }

    /// A network with random f32 weights, for tests and benches: same seed, same weights.
    pub fn random(config: &Config, seed: u64, device: &Device) -> Result<EdmNet> {
        EdmNet::random_in(config, seed, device, DType::F32)
    }

    /// The same weights in a network that runs in another type.
    pub fn random_in(config: &Config, seed: u64, device: &Device, dtype: DType) -> Result<EdmNet> {
        config.check()?;
        let classes = class_names(None, config.label_dim)?;
        let json = serde_json::to_string(config).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        let hash = match dtype {
            DType::F32 => format!("random {seed} {json}"),
            _ => format!("random {seed} {} {json}", dtype.as_str()),
        };
        EdmNet::build(config, &mut Random::new(seed, device), classes, hash, device, dtype)
    }

    /// What a user needs to know.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// What a user may want to know when it is loaded: where it does not do what might be expected.
    pub fn notes(&self) -> Vec<String> {
        let Inner { meta, dtype, device, .. } = &*self.0;
        let mut notes = vec![];
        if let TimeInput::Nearest(u) = &meta.precond.time {
            notes.push(format!(
                "it knows {} noise levels from {:.4} to {:.4}, and between them is told the nearest; `net.round_sigma(sigma)` rounds steps to them",
                u.len() - 1, meta.precond.trained[0], meta.precond.trained[1],
            ));
        }
        if meta.use_fp16 && *dtype == DType::F32 {
            notes.push(match device.is_cpu() {
                true => "its file asks for half precision on a GPU; on the CPU it runs in f32, as in EDM's code".into(),
                false => "its file asks for half precision; it runs in f32 unless loaded with `dtype: \"f16\"`".into(),
            });
        }
        notes
    }

    /// The same network with these augmentation labels for every sample: what training told it about how an image was
    /// changed (EDM's nine numbers). Without them, and with zeros, it makes images as they are.
    pub fn augmented(&self, labels: &[f64]) -> Result<EdmNet> {
        let n = self.0.meta.augment_dim;
        if n == 0 {
            return Err(Error::value("this network takes no augmentation labels"));
        }
        if labels.len() != n || labels.iter().any(|v| !v.is_finite()) {
            return Err(Error::value(format!("expected {n} finite augmentation labels, got {labels:?}")));
        }
        let hash = format!("{} augment {labels:?}", self.0.hash);
        Ok(EdmNet(Arc::new(Inner { augment: Some(labels.to_vec()), hash, ..(*self.0).clone() })))
    }

    /// D(x; σ): the network with its preconditioning, in EDM's noise schedule between the noise levels of [`Meta`].
    pub fn denoiser(self) -> Result<Preconditioned> {
        let Meta { precond, sigma_min, sigma_max, .. } = self.meta().clone();
        let own = serde_json::json!({ "name": "edm", "sigma_min": sigma_min, "sigma_max": sigma_max });
        let [lowest, highest] = precond.trained;
        let ends = [lowest, highest] == [sigma_min, sigma_max];
        let d = Preconditioned::new(Rc::new(self), crate::noise::from_spec(&own)?, precond.predicts)?;
        let d = d.with_time(precond.time)?;
        if ends { Ok(d) } else { d.with_range(lowest, highest) }
    }

    /// F for x [B, H, W, C] and c_noise [B], without condition, on whatever runs frozen operations.
    pub fn run<E: Exec>(&self, e: &mut E, x: &E::Value, c_noise: &E::Value) -> Result<E::Value> {
        self.0.unet.run(e, x, c_noise, &Given { labels: None, augment: None })
    }

    fn fast(&self) -> bool {
        self.0.device.is_cpu() && self.0.dtype == DType::F32
    }

    /// Checks the inputs and brings them into the network's layout, dtype and device: x [B, H, W, C], c_noise [B], and
    /// labels [B, classes], scaled as the architecture wants them.
    fn inputs(&self, x: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let Inner { meta, dtype, device, .. } = &*self.0;
        let base = wide(*dtype);
        let (c, r, n) = (meta.channels, meta.resolution, meta.label_dim);
        let b = match *x.dims() {
            [b, c_, h, w] if (c_, h, w) == (c, r, r) && b > 0 => b,
            _ => {
                let e = Error::shape(
                    format!("the network takes x of shape [B, {c}, {r}, {r}], got {:?}", x.dims()),
                    &[x.dims()],
                );
                return Err(e.hint("pass a batch of at least one image of the network's own size"));
            }
        };
        if c_noise.dims() != [b] {
            let message = format!("c_noise must have one entry for each of {b} images, got {:?}", c_noise.dims());
            return Err(Error::shape(message, &[x.dims(), c_noise.dims()]));
        }
        let labels = match cond {
            Cond::None if n == 0 => None,
            Cond::None => Some(Tensor::zeros((b, n), base, device)?),
            Cond::Rows(rows) if n > 0 && rows.dims() == [b, n] => {
                Some((rows.detach().to_device(device)?.to_dtype(base)? * self.0.unet.label_scale())?)
            }
            Cond::Rows(rows) if n == 0 => {
                let e = Error::shape("this network has no classes, but class rows were given", &[rows.dims()]);
                return Err(e.hint("leave the condition out"));
            }
            Cond::Rows(rows) => {
                let message = format!("class rows must have shape [{b}, {n}], got {:?}", rows.dims());
                return Err(
                    Error::shape(message, &[rows.dims()]).hint(format!("one row of {n} numbers for each image"))
                );
            }
            Cond::Opaque(_) => {
                let e = Error::new(Kind::Type, "this network takes class rows as its condition, not a script's value");
                return Err(e.hint(format!("pass a tensor of shape [{b}, {n}], or nothing")));
            }
        };
        let into = |t: &Tensor, dtype: DType| -> Result<Tensor> { Ok(t.to_device(device)?.to_dtype(dtype)?) };
        Ok((into(x, *dtype)?.permute((0, 2, 3, 1))?.contiguous()?, into(c_noise, base)?, labels))
    }

    /// F as candle operations throughout, in x_in's dtype and on its device.
    fn composed(&self, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor> {
        let (x, c, labels) = self.inputs(x_in, c_noise, cond)?;
        let augment = match &self.0.augment {
            None => None,
            Some(row) => {
                let row = Tensor::new(&row[..], &self.0.device)?.to_dtype(c.dtype())?.unsqueeze(0)?;
                Some(row.broadcast_as((c.dim(0)?, self.0.meta.augment_dim))?.contiguous()?)
            }
        };
        let given = Given { labels: labels.as_ref(), augment: augment.as_ref() };
        let y = self.0.unet.run(&mut Candle, &x, &c, &given)?;
        like(&y.permute((0, 3, 1, 2))?.contiguous()?, x_in)
    }

    /// Runs the batch in chunks, each on one thread where there are enough of them.
    fn chunks(&self, x_in: &Tensor, c_noise: &Tensor, cond: &Cond, record: bool) -> Result<Vec<Part>> {
        let (x, c, labels) = self.inputs(&x_in.detach(), &c_noise.detach(), cond)?;
        let host = |t: &Tensor| -> Result<Vec<f32>> { Ok(t.flatten_all()?.to_vec1()?) };
        let (x, c) = (host(&x)?, host(&c)?);
        let labels = labels.as_ref().map(host).transpose()?;
        let meta = &self.0.meta;
        let (r, n) = (meta.resolution, meta.label_dim);
        let size = r * r * meta.channels;
        let threads = rayon::current_num_threads().max(1);
        let per = if self.0.wide { CHUNK } else { CHUNK.min(c.len().div_ceil(threads)).max(1) };
        let par = c.len().div_ceil(per) < threads;
        let starts: Vec<usize> = (0..c.len()).step_by(per).collect();
        let run = |start: usize| -> Result<Part> {
            let (end, mut tape) = ((start + per).min(c.len()), Tape::new(record, par));
            let b = end - start;
            let x = tape.variable(&x[start * size..end * size], vec![b, r, r, meta.channels]);
            let c_noise = tape.variable(&c[start..end], vec![b]);
            let rows = labels.as_ref().map(|l| Tape::constant(&l[start * n..end * n], vec![b, n]));
            let augment = self.0.augment.as_ref().map(|row| {
                let row: Vec<f32> = row.iter().map(|v| *v as f32).collect();
                Tape::constant(&row.repeat(b), vec![b, row.len()])
            });
            let given = Given { labels: rows.as_ref(), augment: augment.as_ref() };
            let out = self.0.unet.run(&mut tape, &x, &c_noise, &given)?;
            Ok(Part { tape, x, c_noise, out })
        };
        let all = || starts.into_par_iter().map(|s| run(s).map_err(portable)).collect();
        collect(if par { awake(all) } else { all() })
    }

    /// What one evaluation of a batch leaves behind for its pull-back, by a run on shapes alone.
    fn shapes(&self, batch: usize) -> Result<Shapes> {
        let Meta { resolution: r, channels, label_dim, augment_dim, .. } = self.0.meta;
        let mut run = Shapes::default();
        let x = run.value(&[batch, r, r, channels], true);
        let c_noise = run.value(&[batch], true);
        let labels = (label_dim > 0).then(|| run.value(&[batch, label_dim], false));
        let augment = self.0.augment.as_ref().map(|_| run.value(&[batch, augment_dim], false));
        let given = Given { labels: labels.as_ref(), augment: augment.as_ref() };
        let out = self.0.unet.run(&mut run, &x, &c_noise, &given)?;
        run.keep(&out);
        Ok(run)
    }

    /// A batch [B, H, W, C] of f32 as an image tensor like `x`: [B, C, H, W], its dtype and device.
    fn image(&self, data: Vec<f32>, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        like(&Tensor::from_vec(data, (b, h, w, c), &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?, x)
    }
}

fn like(t: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(t.to_device(x.device())?.to_dtype(x.dtype())?)
}

impl Network for EdmNet {
    fn describe(&self) -> String {
        let m = &self.0.meta;
        let classes = match m.label_dim {
            0 => "unconditional".to_string(),
            n => format!("{n} classes"),
        };
        format!("{} {} {r}×{r}×{}, {classes}", m.precond.name, m.architecture, m.channels, r = m.resolution)
    }
    fn hash(&self) -> Option<String> {
        Some(self.0.hash.clone())
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        let m = &self.0.meta;
        Some(vec![m.channels, m.resolution, m.resolution])
    }
    fn classes(&self) -> usize {
        self.0.meta.label_dim
    }
    fn kept(&self, batch: usize) -> Option<u64> {
        let run = self.shapes(batch).ok()?;
        Some(match self.fast() {
            true => run.kept * 4,
            // candle keeps every result, and what the compositions make in between
            false => run.made * COMPOSED * self.0.dtype.size_in_bytes() as u64,
        })
    }
    fn forward(&self, _: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor> {
        if !self.fast() || x_in.track_op() || c_noise.track_op() {
            return self.composed(x_in, c_noise, cond);
        }
        let parts = self.chunks(x_in, c_noise, cond, false)?;
        self.image(parts.iter().flat_map(|p| p.out.data()).copied().collect(), x_in)
    }
    fn linearize(
        &self,
        host: &dyn Host,
        x_in: &Tensor,
        c_noise: &Tensor,
        cond: &Cond,
    ) -> Result<(Tensor, NetPullback)> {
        if !self.fast() {
            return Composed(self).linearize(host, x_in, c_noise, cond);
        }
        let parts = self.chunks(x_in, c_noise, cond, true)?;
        let out = self.image(parts.iter().flat_map(|p| p.out.data()).copied().collect(), x_in)?;
        let (net, x, c) = (self.clone(), x_in.detach(), c_noise.detach());
        let pull: NetPullback = Box::new(move |_, cot| {
            if cot.dims() != x.dims() {
                return Err(Error::shape(
                    "the cotangent must have the network output's shape",
                    &[x.dims(), cot.dims()],
                ));
            }
            let cot = cot.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.permute((0, 2, 3, 1))?;
            let cot: Vec<f32> = cot.contiguous()?.flatten_all()?.to_vec1()?;
            let mut start = 0;
            let work: Vec<(Part, Vec<f32>)> = parts
                .into_iter()
                .map(|p| {
                    let len = p.out.data().len();
                    start += len;
                    (p, cot[start - len..start].to_vec())
                })
                .collect();
            let par = work.iter().any(|(p, _)| p.tape.par());
            let one = |(p, cot): (Part, Vec<f32>)| p.tape.pull(&p.out, cot, &[&p.x, &p.c_noise]).map_err(portable);
            let all = || work.into_par_iter().map(one).collect();
            let (mut gx, mut gc) = (vec![], vec![]);
            for g in collect(if par { awake(all) } else { all() })? {
                for (to, from) in [&mut gx, &mut gc].into_iter().zip(g) {
                    to.extend_from_slice(&from);
                }
            }
            let gc = Tensor::from_vec(gc, c.dims(), &Device::Cpu)?;
            Ok((net.image(gx, &x)?, like(&gc, &c)?))
        });
        Ok((out, pull))
    }
}

/// The network with candle's own backward.
struct Composed<'a>(&'a EdmNet);

impl Network for Composed<'_> {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn hash(&self) -> Option<String> {
        self.0.hash()
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.0.sample_shape()
    }
    fn classes(&self) -> usize {
        self.0.classes()
    }
    fn forward(&self, _: &dyn Host, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor> {
        self.0.composed(x_in, c_noise, cond)
    }
}
