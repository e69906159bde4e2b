//! Networks whose features Fréchet distances and their like are of.
use super::stats::Stats;
use crate::nets::family::{Part, Parts, Role};
use crate::nets::features;
use crate::nets::runner::Runner;
use crate::nets::vision::Vision;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use std::rc::Rc;

/// The networks that are known by name: the built-in one, FID's, DINOv2's in two sizes, and CLIP's.
pub const NAMES: [&str; 5] = ["fashion28", "inception", "dinov2", "dinov2-b", "clip"];

/// What is read of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A row of features for an image.
    Features,
    /// The logits of its classes.
    Logits,
    /// Features that know places, of which ADM's sFID is.
    Spatial,
}

impl Reads {
    /// The output of the graph.
    fn output(self) -> &'static str {
        match self {
            Reads::Features => "features",
            Reads::Logits => "logits",
            Reads::Spatial => "spatial",
        }
    }
}

/// A network from images to features [D] and logits [C]; cheap to clone.
#[derive(Clone)]
pub struct Extractor(Rc<Inner>);

struct Inner {
    name: String,
    /// What statistics say of their features: network, resize, how values become pixels.
    about: Map<String, Value>,
    runner: Runner,
    channels: usize,
    /// Height and width must be multiples of it.
    multiple: usize,
    /// Images that go through the network together.
    block: usize,
    /// Mean, covariance and count of real images by the name of their set, where they are compiled in.
    builtin: bool,
}

impl Extractor {
    /// The built-in classifier of 28×28 grey images: 128 features, 10 classes.
    pub fn fashion28(device: &Device) -> Result<Extractor> {
        let runner = features::fashion28(DType::F32, device)?;
        let about = Map::from_iter([("network".to_string(), json!("fashion28")), ("resize".into(), json!("none"))]);
        Ok(Extractor(Rc::new(Inner {
            name: "fashion28".into(),
            about,
            runner,
            channels: 1,
            multiple: 4,
            block: 64,
            builtin: true,
        })))
    }

    /// FID's InceptionV3 among the parts of a file; `resize` says how it was built.
    ///
    /// Errors: a file that holds something else.
    pub fn inception(parts: Parts, resize: &str) -> Result<Extractor> {
        let held: Vec<&str> = parts.keys().map(|r| r.name()).collect();
        let Some(Part::Graph(runner)) = parts.get(&Role::Features) else {
            let e = Error::value(format!("this is {}, not FID's InceptionV3", held.join(" and ")));
            return Err(e.hint("`ld3sh models path inception` says where that belongs"));
        };
        let about = Map::from_iter([
            ("network".to_string(), json!("inception-2015-12-05")),
            ("resize".into(), json!(format!("{resize}, 299"))),
        ]);
        let (name, runner) = ("inception".to_string(), runner.clone());
        Ok(Extractor(Rc::new(Inner { name, about, runner, channels: 3, multiple: 1, block: 64, builtin: false })))
    }

    /// A vision transformer among the parts of a file: "dinov2", "dinov2-b" or "clip", which is CLIP's image tower.
    ///
    /// Errors: a file that holds something else.
    pub fn transformer(name: &str, parts: Parts) -> Result<Extractor> {
        let held: Vec<&str> = parts.keys().map(|r| r.name()).collect();
        let Some(Part::Image(Vision { runner, kind, size, width })) = parts.get(&Role::Features) else {
            return Err(Error::value(format!("this is {}, not a vision transformer", held.join(" and "))));
        };
        if (name == "clip") != (*kind == "CLIP") {
            let e = Error::value(format!("this is {kind}, which is not \"{name}\""));
            return Err(e.hint("FD-DINOv2 is of \"dinov2\", CMMD of \"clip\""));
        }
        let about = Map::from_iter([
            ("network".to_string(), json!(format!("{kind}, {width} channels"))),
            ("resize".into(), json!(format!("Pillow's bicubic, {size}"))),
        ]);
        let (name, runner) = (name.to_string(), runner.clone());
        Ok(Extractor(Rc::new(Inner { name, about, runner, channels: 3, multiple: 1, block: 8, builtin: false })))
    }

    /// The name that scripts use.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// D.
    pub fn width(&self) -> usize {
        self.size(Reads::Features)
    }
    /// C; 0 where the network has no classes.
    pub fn classes(&self) -> usize {
        self.size(Reads::Logits)
    }
    fn size(&self, of: Reads) -> usize {
        let graph = self.0.runner.graph();
        let value = graph.outputs.iter().find(|o| o.name == of.output()).map(|o| o.value);
        let node = graph.nodes.iter().find(|n| value.is_some_and(|v| (n.first..n.first + n.dims.len()).contains(&v)));
        node.and_then(|n| n.dims.first()?.last().copied()).unwrap_or_default()
    }
    /// What statistics of its features say of them.
    pub fn about(&self) -> &Map<String, Value> {
        &self.0.about
    }
    /// Empty statistics for what is read of it.
    pub fn stats(&self, of: Reads) -> Stats {
        let mut stats = Stats::default();
        stats.about = self.0.about.clone();
        if of != Reads::Features {
            stats.about.insert("layer".into(), json!(of.output()));
        }
        stats
    }

    /// What is read of the network, each [B, …] in f32, for images [B, C, H, W] with values in [−1, 1]. With `quantize` each value becomes
    /// that of the 8-bit pixel that EDM's rule writes, ⌊127.5 x + 128⌋, as for a file.
    ///
    /// Errors: images of another shape, values that are not finite (the message names the image), what the network does not have.
    pub fn run<const N: usize>(&self, images: &Tensor, of: [Reads; N], quantize: bool) -> Result<[Tensor; N]> {
        let Inner { name, runner, channels, multiple, block, .. } = &*self.0;
        if let Some(absent) = of.iter().find(|o| self.size(**o) == 0) {
            let m = format!("{name}: the network has no {}", absent.output());
            return Err(Error::value(m).hint("\"inception\" has features, logits and spatial features"));
        }
        let graph = runner.graph().only(&of.map(Reads::output))?;
        let runner = Runner::new(graph, runner.device(), runner.dtype());
        let wrong = |m: String, hint: &str| Err(Error::shape(format!("{name}: {m}"), &[images.dims()]).hint(hint));
        let &[n, c, h, w] = images.dims() else {
            return wrong(format!("needs images [B, C, H, W], got {:?}", images.dims()), "reshape them first");
        };
        if c != *channels && c != 1 {
            return wrong(
                format!("takes images of {channels} channels or 1, got {c}"),
                "choose or average channels first",
            );
        }
        if n * h * w == 0 || h % multiple + w % multiple > 0 {
            let m = format!("needs images with a height and width that {multiple} divides, got {n} of {h}×{w}");
            return wrong(m, "crop or pad the images first");
        }
        let images = images.detach().to_device(runner.device())?;
        let mut all = [const { vec![] }; N];
        for from in (0..n).step_by(*block) {
            crate::host::check_cancelled()?;
            let x = images.narrow(0, from, (*block).min(n - from))?.to_dtype(DType::F32)?.contiguous()?;
            let finite = x.flatten_from(1)?.affine(0.0, 0.0)?.abs()?.sum(1)?.to_vec1::<f32>()?;
            if let Some(i) = finite.iter().position(|s| *s != 0.0) {
                let e = Error::value(format!("{name}: image {} has values that are not finite", from + i));
                return Err(e.hint("is a step of the schedule, or the network that drew it, at fault?"));
            }
            let x = match quantize {
                true => x.affine(127.5, 128.0)?.clamp(0f32, 255f32)?.floor()?.affine(1.0 / 127.5, -1.0)?,
                false => x,
            };
            let out = runner.forward(&[("x", &x)])?;
            for (all, out) in all.iter_mut().zip(out) {
                all.push(out.to_device(&Device::Cpu)?);
            }
        }
        let whole = all.iter().map(|parts| Tensor::cat(parts, 0)).collect::<candle_core::Result<Vec<Tensor>>>()?;
        whole.try_into().map_err(|_| Error::new(Kind::Internal, "an output got lost"))
    }

    /// Statistics of real images that are compiled in: "train" or "test" of the built-in network.
    pub fn reference(&self, set: &str) -> Result<Stats> {
        if !self.0.builtin {
            let e = Error::value(format!("{}: there are no built-in statistics of real images", self.0.name));
            return Err(e.hint("read published ones with `metric::load_stats`"));
        }
        let (mean, cov, count) = features::reference(set)?;
        let mut stats = Stats::of(&mean, &cov, Some(count))?;
        stats.about = self.0.about.clone();
        stats.about.insert("samples".into(), json!(format!("Fashion-MNIST {set}, {count} images")));
        Ok(stats)
    }
}
