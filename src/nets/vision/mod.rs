//! Vision transformers whose features distances of pictures are of: DINOv2, and CLIP's image tower.
mod names;
mod places;

use super::build::{Builder, Id, graph};
use super::family::{Described, Family, Part, Parts, Role};
use super::graph::{Absent, Dim, Graph, Layout};
use super::kernels::{Channels, Conv, Cut, Fixed, Gelu, Join, Offset, Pillow, RmsNorm, Side};
use super::runner::Runner;
use super::weights::{File, Weights};
use crate::files::checkpoint::Checkpoint;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use names::{CLIP, DINO, Names};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The family's row.
pub const FAMILY: Family = Family { name: "vision transformers", recognises, build, builtin: &[] };

/// DINOv2 and CLIP alike have heads of so many channels.
const HEAD: usize = 64;

/// A vision transformer: images [B, H, W, 3] (or 1, grey) of any size in [−1, 1]; `features` [B, D].
#[derive(Clone)]
pub struct Vision {
    /// What runs it.
    pub runner: Runner,
    /// What kind it is: `DINOv2` or `CLIP`.
    pub kind: &'static str,
    /// Height and width of the pictures that it looks at, to which others are resized.
    pub size: usize,
    /// Its channels.
    pub width: usize,
}

/// Which of the two a checkpoint holds.
fn kind(has: impl Fn(&str) -> bool) -> Option<&'static Names> {
    [&DINO, &CLIP].into_iter().find(|n| has(n.class) && has(n.places) && has(&format!("{}.weight", n.patches)))
}

fn recognises(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let found = kind(|name| checkpoint.tensors().contains_key(name));
    Ok(found.map(|_| (Cow::Borrowed(checkpoint.tensors()), Cow::Borrowed(checkpoint.metadata()))))
}

fn build(file: &mut File) -> Result<Parts> {
    let names = kind(|name| file.has(name));
    let names = names.ok_or_else(|| Error::new(Kind::Format, "it holds no vision transformer"))?;
    let config = Config::read(names, file)?;
    // what masks patches in training, and CLIP's text tower
    file.allow_more(names.advice);
    let (device, dtype) = (file.device.clone(), super::weights::wide(file.dtype));
    let places = places::table(file, names, config.grid(), config.width)?;
    let mut weights = Scaled::new(file, names, &config)?;
    let network = network(&mut weights, names, &config, places, dtype)?;
    let (runner, Config { size, width, .. }) = (Runner::new(network, &device, dtype), config);
    Ok([(Role::Features, Part::Image(Vision { runner, kind: names.kind, size, width }))].into())
}

/// The sizes of a network.
struct Config {
    width: usize,
    /// Height and width of a patch, and of the picture.
    patch: usize,
    size: usize,
    depth: usize,
    /// Channels between the two maps of a layer.
    inner: usize,
    /// Channels of the result, where it is mapped.
    projection: Option<usize>,
}

impl Config {
    /// From the shapes of the weights.
    fn read(names: &'static Names, file: &File) -> Result<Config> {
        if file.has("register_tokens") {
            let e =
                Error::new(Kind::Format, "this DINOv2 has registers, and the network that distances are of has none");
            return Err(e.hint(names.advice));
        }
        let patches = format!("{}.weight", names.patches);
        let shape = |name: &str| -> Result<Vec<usize>> {
            let missing = || Error::new(Kind::Format, format!("the tensor `{name}` is missing")).hint(names.advice);
            Ok(file.dims(name).ok_or_else(missing)?.to_vec())
        };
        let wrong = |name: &str, dims: &[usize], wanted: &str| {
            let m = format!("`{name}` has shape {dims:?}, expected {wanted}");
            Error::new(Kind::Format, m).shapes(&[dims]).hint(names.advice)
        };
        let (width, patch) = match shape(&patches)?[..] {
            [c, 3, p, q] if p == q && p > 0 && c > 0 && c % HEAD == 0 => (c, p),
            ref d => {
                return Err(wrong(
                    &patches,
                    d,
                    &format!("[channels, 3, size, size], the channels a multiple of {HEAD}"),
                ));
            }
        };
        let all = shape(names.places)?;
        let rows = all.iter().product::<usize>() / width;
        let side = rows.saturating_sub(1).isqrt();
        if all.last() != Some(&width) || side * side + 1 != rows || side == 0 {
            return Err(wrong(
                names.places,
                &all,
                &format!("a row of {width} for the class and for each patch of a square"),
            ));
        }
        let maps = |i: usize| format!("{}.{i}.{}.weight", names.layer, names.maps[0]);
        let depth = (0..).take_while(|i| file.has(&maps(*i))).count();
        let inner = shape(&maps(0))?.first().copied().unwrap_or_default();
        let projection = match names.projection {
            Some(name) => Some(shape(&format!("{name}.weight"))?.first().copied().unwrap_or_default()),
            None => None,
        };
        Ok(Config { width, patch, size: names.size.unwrap_or(side * patch), depth, inner, projection })
    }
    /// Patches along a side.
    fn grid(&self) -> usize {
        self.size / self.patch
    }
}

/// Weights of a file, the maps that end a layer's halves multiplied by its scales.
struct Scaled<'f, 'a> {
    file: &'f mut File<'a>,
    scales: BTreeMap<String, Tensor>,
}

impl<'f, 'a> Scaled<'f, 'a> {
    fn new(file: &'f mut File<'a>, names: &Names, config: &Config) -> Result<Self> {
        let mut scales = BTreeMap::new();
        for (name, map) in names.scales.iter().zip([names.out, names.maps[1]]) {
            for i in 0..config.depth {
                let scale = file.take(&format!("{}.{i}.{name}", names.layer), &[config.width])?;
                scales.insert(format!("{}.{i}.{map}", names.layer), scale);
            }
        }
        Ok(Scaled { file, scales })
    }
}

impl Weights for Scaled<'_, '_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let t = self.file.take(name, shape)?;
        match name.rsplit_once('.').and_then(|(place, _)| self.scales.get(place)) {
            Some(scale) if shape.len() == 2 => Ok(t.broadcast_mul(&scale.unsqueeze(1)?)?),
            Some(scale) => Ok(t.mul(scale)?),
            None => Ok(t),
        }
    }
    fn finish(&mut self) -> Result<()> {
        self.file.finish()
    }
}

/// The graph; `places` is the table of places [1 + patches, width], which has been taken from the file.
fn network(weights: &mut dyn Weights, names: &Names, config: &Config, places: Tensor, dtype: DType) -> Result<Graph> {
    let Config { width, patch, size, .. } = *config;
    let n = config.grid().pow(2);
    // [1, 1, channels] or [channels]
    let class = if names.kind == DINO.kind { vec![1, 1, width] } else { vec![width] };
    graph(weights, "", dtype, |b| {
        b.wide(true);
        let any = Dim::About(size);
        let x = b.input("x", &[any, any, Dim::About(3)], Layout::Image, Absent::Error)?;
        let x = b.under("resize").apply(Pillow { size, crop: names.crop }, &[x])?;
        // (x/2 + 1/2 − mean) / deviation
        let each = names.mean.iter().zip(&names.deviation).map(|(m, d)| (0.5 / d, (0.5 - m) / d));
        let x = b.under("scaling").apply(Channels::new(each), &[x])?;
        let x = patches(&mut b.under(names.patches), x, width, patch, names.biased)?;
        let x = b.under("tokens").shaped(x, &[n, width])?;
        let x = b.under("places").apply(Offset(places.narrow(0, 1, n)?.contiguous()?), &[x])?;
        let (class, _) = b.weight(names.class, &class, &[])?;
        let class = class.reshape((1, 1, width))?.broadcast_add(&places.narrow(0, 0, 1)?)?;
        let parts = vec![Side::Fixed(Fixed::new(&class)?), Side::Input];
        let mut x = b.under("class").apply(Join { dim: 1, parts }, &[x])?;
        if let Some(before) = names.before {
            x = b.under(before).layer_norm(x, names.eps)?;
        }
        for i in 0..config.depth {
            x = block(&mut b.under(&format!("{}.{i}", names.layer)), x, names, config)?;
        }
        let x = b.under("first").add(Arc::new(Cut { last: n }), &[x], vec![])?[0];
        let x = b.under("first.row").shaped(x, &[width])?;
        let mut x = b.under(names.norm).layer_norm(x, names.eps)?;
        if let Some((name, n)) = names.projection.zip(config.projection) {
            x = b.under(name).linear_unbiased(x, n)?;
            let length = Tensor::full(1.0 / (n as f32).sqrt(), n, &Device::Cpu)?.to_dtype(dtype)?;
            x = b.under("length").apply(RmsNorm::new(length, 0.0)?, &[x])?;
        }
        b.output("features", x, Layout::Plain);
        Ok(())
    })
}

/// A convolution whose windows lie side by side.
fn patches(b: &mut Builder, x: Id, width: usize, patch: usize, biased: bool) -> Result<Id> {
    let (w, weight) = b.weight("weight", &[width, 3, patch, patch], &[])?;
    let (bias, held) = match biased {
        true => {
            let (bias, held) = b.weight("bias", &[width], &[])?;
            (bias, vec![weight, held])
        }
        false => (Tensor::zeros(width, w.dtype(), w.device())?, vec![weight]),
    };
    Ok(b.add(Arc::new(Conv::with(w, bias, patch, 0)?), &[x], held)?[0])
}

/// Attention of all tokens to all, and two maps with a GELU between them; a norm before each.
fn block(b: &mut Builder, x: Id, names: &Names, config: &Config) -> Result<Id> {
    let c = config.width;
    let h = b.under(names.norms[0]).layer_norm(x, names.eps)?;
    let qkv = match names.qkv {
        [all] => {
            let all = b.under(all).linear(h, 3 * c)?;
            b.under("parts").split(all, &[c; 3])?
        }
        parts => parts.iter().map(|name| b.under(name).linear(h, c)).collect::<Result<_>>()?,
    };
    let [q, k, v] = qkv[..] else { return Err(Error::new(Kind::Internal, "q, k and v are not three")) };
    let h = b.under("attention").cross_attention([q, k, v], c / HEAD, false)?;
    let h = b.under(names.out).linear(h, c)?;
    let x = b.under("attended").sum(x, h, 1.0)?;
    let h = b.under(names.norms[1]).layer_norm(x, names.eps)?;
    let h = b.under(names.maps[0]).linear(h, config.inner)?;
    let h = b.under("gelu").gelu(h, if names.quick { Gelu::Quick } else { Gelu::Exact })?;
    let h = b.under(names.maps[1]).linear(h, c)?;
    b.under("mapped").sum(x, h, 1.0)
}
