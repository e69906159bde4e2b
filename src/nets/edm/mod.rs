//! The networks of EDM (Karras et al. 2022): loading, checking, running; one file per architecture.
mod config;
mod songunet;
mod weights;

pub use config::Config;

use super::tape::{Candle, Tape, Value};
use crate::denoise::{Cond, NetPullback, Network};
use crate::host::Host;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use songunet::SongUNet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weights::{File, Random, Weights};

/// Images that run together through the network on one thread: enough to use the weights more than once while they are
/// in cache, few enough for the activations to stay there.
const CHUNK: usize = 4;

/// The networks compiled into the binary: name and safetensors file.
const BUILTIN: [(&str, &[u8]); 1] = [("fashion28", include_bytes!("../../../models/fashion28-edm.safetensors"))];

/// Where a network comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A safetensors file with `config` and `precond` in its metadata.
    Path(PathBuf),
    /// A network compiled in, by name (see [`builtins`]).
    Builtin(&'static str),
}

/// The names that [`Source::Builtin`] knows.
pub fn builtins() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// What the preconditioning and a user need to know of a network.
#[derive(Debug, Clone)]
pub struct Meta {
    /// The standard deviation of the training data.
    pub sigma_data: f64,
    /// The lowest noise level it is meant for.
    pub sigma_min: f64,
    /// The highest noise level it is meant for.
    pub sigma_max: f64,
    /// Height and width in pixels.
    pub resolution: usize,
    /// Colour channels.
    pub channels: usize,
    /// Names of the classes, numbers where the file has none; empty for an unconditional network.
    pub classes: Vec<String>,
    /// The number of classes; 0 for an unconditional network.
    pub label_dim: usize,
}

/// A frozen EDM network F(x_in, c_noise, labels) with c_noise = ln(σ)/4; cheap to clone.
///
/// In f32 on the CPU it runs on its own kernels, elsewhere as a composition of candle operations. A sample's result does
/// not depend on the batch that it is in, nor on the number of threads.
#[derive(Clone)]
pub struct EdmNet(Arc<Inner>);

struct Inner {
    unet: SongUNet,
    /// Whether the weights outgrow the caches: then a few images at a time share all threads, because reading (and
    /// transforming) the weights once for each image costs more than threads that wait for each other.
    wide: bool,
    meta: Meta,
    hash: String,
    dtype: DType,
    device: Device,
}

/// Loads a network in f32 or f64 onto a device.
///
/// Fails with [`Kind::Io`] where the file cannot be read, and with [`Kind::Format`], naming the file and the tensor or
/// configuration key, where its content is not a complete network of a known architecture.
pub fn load(source: &Source, device: &Device, dtype: DType) -> Result<EdmNet> {
    if !matches!(dtype, DType::F32 | DType::F64) {
        return Err(Error::value(format!("a network runs in f32 or f64, not {}", dtype.as_str())));
    }
    match source {
        Source::Path(path) => {
            let file = std::fs::File::open(path).map_err(|e| Error::io(path, "open", e))?;
            // SAFETY: the mapping is read-only and private to this call; a file that another process truncates meanwhile
            // is outside what a reader can guard against.
            let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, "read", e))?;
            parse(&map, device, dtype).map_err(|e| named(e, path))
        }
        Source::Builtin(name) => match BUILTIN.iter().find(|(n, _)| n == name) {
            Some((_, bytes)) => parse(bytes, device, dtype),
            None => Err(Error::unknown("built-in network", name, builtins())),
        },
    }
}

fn named(e: Error, path: &Path) -> Error {
    e.context(format!("`{}`", path.display()))
}

fn parse(bytes: &[u8], device: &Device, dtype: DType) -> Result<EdmNet> {
    let mut file = File::parse(bytes, device, dtype)?;
    let missing = |key: &str| {
        Error::new(Kind::Format, format!("the safetensors metadata has no `{key}`"))
            .hint("an EDM network needs `config` (JSON) and `precond` (\"EDMPrecond\") in its metadata")
    };
    let precond = file.metadata("precond").ok_or_else(|| missing("precond"))?;
    if precond != "EDMPrecond" {
        let e = Error::new(Kind::Format, format!("`precond` is \"{precond}\", supported is \"EDMPrecond\""));
        return Err(e.hint("networks trained with VP, VE or iDDPM preconditioning cannot be loaded yet"));
    }
    let json = file.metadata("config").ok_or_else(|| missing("config"))?.to_string();
    let config = Config::parse(&json)?;
    let classes = class_names(file.metadata("classes"), config.label_dim)?;
    let hash = file.hash(&format!("{json}\n{}", dtype.as_str()));
    EdmNet::build(&config, &mut file, classes, hash, device, dtype)
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

/// An error that can cross threads.
type Portable = (Kind, String);

fn portable(e: Error) -> Portable {
    (e.kind(), e.message().to_string())
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
        let unet = SongUNet::build(config, weights)?;
        let meta = Meta {
            sigma_data: config.sigma_data,
            sigma_min: config.sigma_min,
            sigma_max: config.sigma_max,
            resolution: config.img_resolution,
            channels: config.img_channels,
            classes,
            label_dim: config.label_dim,
        };
        let wide = config.model_channels >= 64;
        Ok(EdmNet(Arc::new(Inner { unet, wide, meta, hash, dtype, device: device.clone() })))
    }

    /// A network with random f32 weights, for tests and benches: same seed, same weights.
    pub fn random(config: &Config, seed: u64, device: &Device) -> Result<EdmNet> {
        config.check()?;
        let classes = class_names(None, config.label_dim)?;
        let json = serde_json::to_string(config).map_err(|e| Error::new(Kind::Internal, e.to_string()))?;
        let hash = format!("random {seed} {json}");
        EdmNet::build(config, &mut Random::new(seed, device), classes, hash, device, DType::F32)
    }

    /// What the preconditioning and a user need to know.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    fn fast(&self) -> bool {
        self.0.device.is_cpu() && self.0.dtype == DType::F32
    }

    /// Checks the inputs and brings them into the network's layout, dtype and device: x [B, H, W, C], c_noise [B], and
    /// labels [B, classes] times √classes.
    fn inputs(&self, x: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<(Tensor, Tensor, Option<Tensor>)> {
        let Inner { meta, dtype, device, .. } = &*self.0;
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
            Cond::None => Some(Tensor::zeros((b, n), *dtype, device)?),
            Cond::Rows(rows) if n > 0 && rows.dims() == [b, n] => {
                Some((rows.detach().to_device(device)?.to_dtype(*dtype)? * (n as f64).sqrt())?)
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
        let into = |t: &Tensor| -> Result<Tensor> { Ok(t.to_device(device)?.to_dtype(*dtype)?) };
        Ok((into(x)?.permute((0, 2, 3, 1))?.contiguous()?, into(c_noise)?, labels))
    }

    /// F as candle operations throughout, in x_in's dtype and on its device.
    fn composed(&self, x_in: &Tensor, c_noise: &Tensor, cond: &Cond) -> Result<Tensor> {
        let (x, c, labels) = self.inputs(x_in, c_noise, cond)?;
        let y = self.0.unet.run(&mut Candle, &x, &c, labels.as_ref())?;
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
            let out = self.0.unet.run(&mut tape, &x, &c_noise, rows.as_ref())?;
            Ok(Part { tape, x, c_noise, out })
        };
        let parts: Vec<_> = starts.into_par_iter().map(|s| run(s).map_err(portable)).collect();
        collect(parts)
    }

    /// A batch [B, H, W, C] of f32 as an image tensor like `x`: [B, C, H, W], its dtype and device.
    fn image(&self, data: Vec<f32>, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        like(&Tensor::from_vec(data, (b, h, w, c), &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?, x)
    }
}

fn collect<T>(parts: Vec<std::result::Result<T, Portable>>) -> Result<Vec<T>> {
    parts.into_iter().map(|p| p.map_err(|(kind, message)| Error::new(kind, message))).collect()
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
        format!("EDM DDPM++ {r}×{r}×{}, {classes}", m.channels, r = m.resolution)
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
            let grads: Vec<_> = work
                .into_par_iter()
                .map(|(p, cot)| p.tape.pull(&p.out, cot, &[&p.x, &p.c_noise]).map_err(portable))
                .collect();
            let (mut gx, mut gc) = (vec![], vec![]);
            for g in collect(grads)? {
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
