//! Rhai functions for features and their statistics: types `FeatureNetwork` and `Statistics`.
use crate::data::{self, Dataset, Labels, Opening, Prepare};
use crate::metric::{Extractor, NAMES, Reads, Stats};
use crate::nets::inception::RESIZE;
use crate::nets::vision;
use crate::schema::{Kind as Of, Opt, Schema, count, flag, value};
use crate::script::error::RhaiResult;
use crate::script::files::{from_json, to_json};
use crate::script::host::ScriptHost;
use crate::script::options::Given;
use crate::tensor::aside;
use crate::tensor::device::default_device;
use crate::{Error, model, zoo};
use candle_core::{DType, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, FLOAT, INT, ImmutableString, Map, NativeCallContext};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

/// Statistics as scripts hold them: copies are the same statistics.
#[derive(Clone)]
pub struct ScriptStats(pub Rc<RefCell<Stats>>);

/// A feature network as scripts hold it.
#[derive(Clone)]
pub struct ScriptExtractor(Extractor);

impl From<Stats> for ScriptStats {
    fn from(stats: Stats) -> Self {
        ScriptStats(Rc::new(RefCell::new(stats)))
    }
}

/// Adds the types and their methods to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<ScriptStats>("Statistics");
    engine.register_type_with_name::<ScriptExtractor>("FeatureNetwork");
    engine.register_global_module(rhai::exported_module!(methods).into());
}

const NETWORK: Schema = Schema::new(
    "metric::network",
    &[
        value(
            "file",
            Of::Text,
            "the published one",
            "pytorch-fid's `pt_inception-2015-12-05`, DINOv2 without registers (of any size), or CLIP as transformers has it; `.pth`, `.bin` or safetensors",
        ),
        RESIZE,
    ],
);
const QUANTIZE: Opt =
    flag("quantize", false, "as if the images had been written to 8-bit files first, by EDM's rule ⌊127.5 x + 128⌋");
const SPATIAL: Opt = flag(
    "spatial",
    false,
    "features [B, 2023] that know places, of \"inception\" only: the first 7 channels of `mixed_6/conv`, of which ADM's sFID is",
);
const FEATURES: Schema = Schema::new("features", &[QUANTIZE, SPATIAL]);
const LOGITS: Schema = Schema::new("logits", &[QUANTIZE]);
const STATS_OF: Schema = Schema::new(
    "stats_of",
    &[
        count("batch", 64, [1, usize::MAX], "pictures at a time"),
        count("most", 0, [0, usize::MAX], "take the first so many, of files in the order of their names").or("all"),
        SPATIAL,
    ],
);
const LOAD_STATS: Schema = Schema::new(
    "metric::load_stats",
    &[flag("spatial", false, "take `mu_s` and `sigma_s`, which ADM's sFID compares")],
);
const STATS: Schema = Schema::method("FeatureNetwork", "stats", &[SPATIAL]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[NETWORK, STATS, FEATURES, LOGITS, STATS_OF, LOAD_STATS];

fn network_with(ctx: &NativeCallContext, name: &str, map: Map) -> RhaiResult<ScriptExtractor> {
    let o = NETWORK.read(map)?;
    let file = o.some_text("file");
    let device = default_device();
    match name {
        "fashion28" if file.is_some() => {
            Err(Error::value("metric::network: \"fashion28\" is built in: it has no `file`").into())
        }
        _ if o.has("resize") && name != "inception" && NAMES.contains(&name) => {
            let e = Error::value(format!("metric::network: `resize` is for \"inception\", not for \"{name}\""));
            Err(e.hint("the others have one way to resize, or take images as they are").into())
        }
        "fashion28" => Ok(ScriptExtractor(Extractor::fashion28(&device)?)),
        "inception" => {
            let path = match file {
                Some(path) => PathBuf::from(path),
                None => zoo::locate("inception", &ScriptHost::new(ctx))?,
            };
            let resize = o.word("resize");
            let given = [(RESIZE.name.to_string(), resize.into())].into();
            let parts = model::load_given(&model::Source::Path(path), &device, DType::F32, given)?;
            Ok(ScriptExtractor(Extractor::inception(parts, resize)?))
        }
        "dinov2" | "dinov2-b" | "clip" => {
            let path = match file {
                Some(path) => PathBuf::from(path),
                None => zoo::locate(published(name), &ScriptHost::new(ctx))?,
            };
            let parts = model::load_by(&[vision::FAMILY], &model::Source::Path(path), &device, DType::F32)?;
            Ok(ScriptExtractor(Extractor::transformer(name, parts)?))
        }
        _ => Err(Error::unknown("feature network", name, NAMES).into()),
    }
}

/// The published file of a vision transformer.
fn published(name: &str) -> &'static str {
    match name {
        "clip" => "clip-vit-large-patch14-336",
        "dinov2-b" => "dinov2_vitb14",
        _ => "dinov2_vitl14",
    }
}

fn reads(o: &Given) -> Reads {
    if o.flag("spatial") { Reads::Spatial } else { Reads::Features }
}

fn run(net: &ScriptExtractor, images: &Tensor, o: &Given, of: Reads) -> RhaiResult<Tensor> {
    let [values] = net.0.run(images, [of], o.flag("quantize"))?;
    Ok(values)
}

/// The data set at a path, its pictures as they are.
fn pictures(path: &str) -> RhaiResult<Dataset> {
    let path = path.to_string();
    let opening = Opening { labels: Labels::None, part: "train", how: Prepare::default() };
    Ok(aside::run(usize::MAX, move || data::open(path, &opening))?)
}

fn stats_of(ctx: &NativeCallContext, net: &ScriptExtractor, set: &Dataset, map: Map) -> RhaiResult<ScriptStats> {
    use crate::host::Host;
    let o = STATS_OF.read(map)?;
    let batch = o.count("batch");
    let n = o.some_count("most").unwrap_or(usize::MAX).min(set.len());
    let mut stats = net.0.stats(reads(&o));
    let mut progress = ScriptHost::new(ctx).progress("features", n as u64);
    for from in (0..n).step_by(batch) {
        let places: Vec<usize> = (from..n.min(from + batch)).collect();
        let [features] = net.0.run(&set.batch(&places)?, [reads(&o)], false)?;
        stats.add(&features)?;
        progress.advance(places.len() as u64);
    }
    stats.about.insert("samples".into(), set.path().into());
    Ok(stats.into())
}

/// Statistics of features.
#[export_module]
pub mod stats_api {
    /// A network whose features are measured, by name.
    ///
    /// Example: `metric::network("fashion28").width` is 128
    #[rhai_fn(return_raw)]
    pub fn network(ctx: NativeCallContext, name: &str) -> RhaiResult<ScriptExtractor> {
        network_with(&ctx, name, Map::new())
    }
    /// A network whose features are measured, by name: "fashion28", built in (128 features, 10 classes), "inception", FID's InceptionV3
    /// (2048 features, 1008 classes), "dinov2" or "dinov2-b", DINOv2's ViT-L/14 or ViT-B/14 (1024 or 768 features: FD-DINOv2), or "clip",
    /// CLIP's ViT-L/14 at 336 pixels (768 features of unit length: CMMD). Published weights are downloaded once to the cache folder.
    ///
    /// DINOv2 and CLIP look at 8-bit pictures, as their tools read files: images become such, and are resized as Pillow does (bicubic; to
    /// 224×224, or the middle square to 336×336).
    ///
    /// Example: `let k = (); try { metric::network("inception", #{ file: "absent.pth", resize: "torch" }); } catch (e) { k = e.kind; } k` is "io"
    #[rhai_fn(name = "network", return_raw)]
    pub fn network_options(ctx: NativeCallContext, name: &str, options: Map) -> RhaiResult<ScriptExtractor> {
        network_with(&ctx, name, options)
    }
    /// Empty statistics, to which `add` adds features.
    ///
    /// Memory is that of a covariance, however many features come. The same rows in the same order give the same bits, whatever the
    /// batches.
    ///
    /// Example: `let s = metric::stats(); s.add(ones([3, 2])); s.count` is 3
    pub fn stats() -> ScriptStats {
        Stats::default().into()
    }
    /// Statistics of features [N, D].
    ///
    /// Example: `metric::stats(tensor([[0.0, 2.0], [2.0, 2.0]])).mean` is [1, 2]
    #[rhai_fn(name = "stats", return_raw)]
    pub fn stats_of_features(features: Tensor) -> RhaiResult<ScriptStats> {
        Ok(aside::run(aside::load_of_pairs(&[&features, &features]), move || {
            let mut stats = Stats::default();
            stats.add(&features)?;
            Ok(stats)
        })?
        .into())
    }
    /// Statistics in a file: `mu` and `sigma` of an `.npz`, as `save`, pytorch-fid, EDM and ADM write them.
    ///
    /// How many samples they are of is known where the file has `n`.
    ///
    /// Example: `metric::stats(randn([9, 2], #{ seed: 0 })).save(out("ref.npz")); metric::load_stats(out("ref.npz")).count` is 9
    #[rhai_fn(return_raw)]
    pub fn load_stats(path: ImmutableString) -> RhaiResult<ScriptStats> {
        load_stats_with(path, Map::new())
    }
    /// Statistics in a file, with a choice among those of ADM's.
    ///
    /// Example: `metric::stats(randn([9, 2], #{ seed: 0 })).save(out("ref.npz")); metric::load_stats(out("ref.npz"), #{ spatial: false }).width` is 2
    #[rhai_fn(name = "load_stats", return_raw)]
    pub fn load_stats_with(path: ImmutableString, options: Map) -> RhaiResult<ScriptStats> {
        let spatial = LOAD_STATS.read(options)?.flag("spatial");
        let path = path.to_string();
        Ok(aside::run(usize::MAX, move || Stats::load(path, spatial))?.into())
    }
    /// The Fréchet distance between two statistics: FID, when they are of the features of "inception".
    ///
    /// Too few samples for the features' width are told by a note. Errors: statistics of different networks, or of images that were resized
    /// differently.
    ///
    /// Example: `let r = metric::network("fashion28"); metric::frechet(r.reference("train"), r.reference("test"))`
    #[rhai_fn(name = "frechet", return_raw)]
    pub fn frechet_of(a: ScriptStats, b: ScriptStats) -> RhaiResult<FLOAT> {
        let (a, b) = (a.0.borrow().clone(), b.0.borrow().clone());
        a.warn("the first of the Fréchet distance");
        b.warn("the second of the Fréchet distance");
        // eigenvalues take the cube of the width
        Ok(aside::run(a.width().saturating_pow(3), move || crate::metric::frechet(&a, &b))?)
    }
}

#[export_module]
mod methods {
    /// Adds features [N, D].
    ///
    /// Errors: another width, values that are not finite: then nothing was added.
    ///
    /// Example: `let s = metric::stats(); s.add(ones([3, 2])); s.add(zeros([1, 2])); s.mean` is [0.75, 0.75]
    #[rhai_fn(return_raw, pure)]
    pub fn add(stats: &mut ScriptStats, features: Tensor) -> RhaiResult<()> {
        Ok(stats.0.borrow_mut().add(&features)?)
    }
    /// Adds all that other statistics are of, as of another part of the same samples.
    ///
    /// Errors: another width, and entries of `about` that differ (beside `samples` and `first`): parts of different runs.
    ///
    /// Example: `let s = metric::stats(ones([3, 2])); s.merge(metric::stats(zeros([3, 2]))); s.count` is 6
    #[rhai_fn(return_raw, pure)]
    pub fn merge(stats: &mut ScriptStats, other: ScriptStats) -> RhaiResult<()> {
        let other = other.0.borrow().clone();
        Ok(stats.0.borrow_mut().merge(&other)?)
    }
    /// Writes `mu` and `sigma` to an `.npz` as other tools read them, with `n`, the count, and `about` as JSON.
    ///
    /// Example: `metric::stats(ones([3, 2])).save(out("stats.npz"))`
    #[rhai_fn(name = "save", return_raw, pure)]
    pub fn save_stats(stats: &mut ScriptStats, path: ImmutableString) -> RhaiResult<()> {
        let (stats, path) = (stats.0.borrow().clone(), path.to_string());
        Ok(aside::run(usize::MAX, move || stats.save(path))?)
    }
    /// Says more of how the features came about; kept in the file, and compared by `merge`.
    ///
    /// Example: `let s = metric::stats(ones([3, 2])); s.describe(#{ model: "mine", seed: 0 }); s.about.model` is "mine"
    #[rhai_fn(return_raw, pure)]
    pub fn describe(stats: &mut ScriptStats, about: Map) -> RhaiResult<()> {
        if let serde_json::Value::Object(map) = to_json(&Dynamic::from_map(about), true)? {
            stats.0.borrow_mut().about.extend(map);
        }
        Ok(())
    }
    /// How many samples, or () where a file did not say.
    ///
    /// Example: `metric::stats(ones([3, 2])).count` is 3
    #[rhai_fn(get = "count", pure)]
    pub fn stats_count(stats: &mut ScriptStats) -> Dynamic {
        stats.0.borrow().count().map_or(Dynamic::UNIT, |n| Dynamic::from_int(n as INT))
    }
    /// The features' width; 0 before the first were added.
    ///
    /// Example: `metric::stats(ones([3, 2])).width` is 2
    #[rhai_fn(get = "width", pure)]
    pub fn stats_width(stats: &mut ScriptStats) -> INT {
        stats.0.borrow().width() as INT
    }
    /// The mean [D] in f64.
    ///
    /// Example: `metric::stats(ones([3, 2])).mean` is [1, 1]
    #[rhai_fn(get = "mean", return_raw, pure)]
    pub fn stats_mean(stats: &mut ScriptStats) -> RhaiResult<Tensor> {
        Ok(stats.0.borrow().moments()?.0)
    }
    /// The unbiased covariance [D, D] in f64.
    ///
    /// Example: `metric::stats(tensor([[0.0], [2.0]])).cov` is [[2]]
    #[rhai_fn(get = "cov", return_raw, pure)]
    pub fn stats_cov(stats: &mut ScriptStats) -> RhaiResult<Tensor> {
        Ok(stats.0.borrow().moments()?.1)
    }
    /// What is known of how the features came about, a map.
    ///
    /// Example: `metric::network("fashion28").stats().about.network` is "fashion28"
    #[rhai_fn(get = "about", pure)]
    pub fn stats_about(stats: &mut ScriptStats) -> Dynamic {
        from_json(&serde_json::Value::Object(stats.0.borrow().about.clone()))
    }
    /// One line that says what the statistics are of.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn stats_text(stats: &mut ScriptStats) -> ImmutableString {
        let stats = stats.0.borrow();
        let count = stats.count().map_or("an unknown number of".to_string(), |n| n.to_string());
        let of = stats.about.get("network").and_then(|n| n.as_str()).map(|n| format!(" ({n})")).unwrap_or_default();
        format!("statistics of {count} samples, {} features{of}", stats.width()).into()
    }
    /// Features [B, D] in f32 of images [B, C, H, W] in [−1, 1].
    ///
    /// Example: `metric::network("fashion28").features(zeros([2, 1, 28, 28])).shape` is [2, 128]
    #[rhai_fn(return_raw, pure)]
    pub fn features(net: &mut ScriptExtractor, images: Tensor) -> RhaiResult<Tensor> {
        features_with(net, images, Map::new())
    }
    /// Features [B, D] in f32 of images [B, C, H, W] in [−1, 1].
    ///
    /// Example: `metric::network("fashion28").features(zeros([2, 1, 28, 28]), #{ quantize: true }).shape` is [2, 128]
    #[rhai_fn(name = "features", return_raw, pure)]
    pub fn features_with(net: &mut ScriptExtractor, images: Tensor, options: Map) -> RhaiResult<Tensor> {
        let o = FEATURES.read(options)?;
        run(net, &images, &o, reads(&o))
    }
    /// Logits [B, C] in f32 of images [B, C, H, W] in [−1, 1], for `metric::inception_score`; those of "inception" without their bias, as
    /// the score has them.
    ///
    /// Example: `metric::network("fashion28").logits(zeros([2, 1, 28, 28])).shape` is [2, 10]
    #[rhai_fn(return_raw, pure)]
    pub fn logits(net: &mut ScriptExtractor, images: Tensor) -> RhaiResult<Tensor> {
        run(net, &images, &LOGITS.read(Map::new())?, Reads::Logits)
    }
    /// Logits [B, C] in f32 of images [B, C, H, W] in [−1, 1].
    ///
    /// Example: `metric::network("fashion28").logits(zeros([2, 1, 28, 28]), #{ quantize: true }).shape` is [2, 10]
    #[rhai_fn(name = "logits", return_raw, pure)]
    pub fn logits_with(net: &mut ScriptExtractor, images: Tensor, options: Map) -> RhaiResult<Tensor> {
        run(net, &images, &LOGITS.read(options)?, Reads::Logits)
    }
    /// Empty statistics for this network's features.
    ///
    /// Example: `metric::network("fashion28").stats().about.resize` is "none"
    #[rhai_fn(name = "stats", pure)]
    pub fn stats_for(net: &mut ScriptExtractor) -> ScriptStats {
        net.0.stats(Reads::Features).into()
    }
    /// Empty statistics for this network's features.
    ///
    /// Example: `metric::network("fashion28").stats(#{ spatial: true }).about.layer` is "spatial"
    #[rhai_fn(name = "stats", return_raw, pure)]
    pub fn stats_for_some(net: &mut ScriptExtractor, options: Map) -> RhaiResult<ScriptStats> {
        Ok(net.0.stats(reads(&STATS.read(options)?)).into())
    }
    /// Statistics of real images that are built in: "train" (60,000) or "test" (10,000) of "fashion28".
    ///
    /// Example: `metric::network("fashion28").reference("test").count` is 10000
    #[rhai_fn(return_raw, pure)]
    pub fn reference(net: &mut ScriptExtractor, set: &str) -> RhaiResult<ScriptStats> {
        Ok(net.0.reference(set)?.into())
    }
    /// Statistics of pictures on disk, whatever `data::open` reads: a folder of PNG files or an `.npz` as `generate` writes them, a data set.
    ///
    /// Example: `let net = metric::network("fashion28"); image::grid(zeros([1, 1, 28, 28]), #{ pad: 0 }).save(out("p/0.png")); net.stats_of(out("p")).count` is 1
    #[rhai_fn(name = "stats_of", return_raw, pure)]
    pub fn stats_of_pictures(ctx: NativeCallContext, net: &mut ScriptExtractor, path: &str) -> RhaiResult<ScriptStats> {
        stats_of(&ctx, net, &pictures(path)?, Map::new())
    }
    /// Statistics of pictures on disk, some of them at a time.
    ///
    /// Example: `let net = metric::network("fashion28"); image::grid(zeros([1, 1, 28, 28]), #{ pad: 0 }).save(out("p/0.png")); net.stats_of(out("p"), #{ batch: 8, most: 1 }).count` is 1
    #[rhai_fn(name = "stats_of", return_raw, pure)]
    pub fn stats_of_some(
        ctx: NativeCallContext,
        net: &mut ScriptExtractor,
        path: &str,
        options: Map,
    ) -> RhaiResult<ScriptStats> {
        stats_of(&ctx, net, &pictures(path)?, options)
    }
    /// Statistics of a data set, prepared as it says.
    ///
    /// Example: `metric::network("fashion28").stats_of(data::of(zeros([3, 1, 28, 28]))).count` is 3
    #[rhai_fn(name = "stats_of", return_raw, pure)]
    pub fn stats_of_data(ctx: NativeCallContext, net: &mut ScriptExtractor, set: Dataset) -> RhaiResult<ScriptStats> {
        stats_of(&ctx, net, &set, Map::new())
    }
    /// Statistics of a data set, some pictures of it at a time.
    ///
    /// Example: `metric::network("fashion28").stats_of(data::of(zeros([3, 1, 28, 28])), #{ batch: 2, most: 2 }).count` is 2
    #[rhai_fn(name = "stats_of", return_raw, pure)]
    pub fn stats_of_some_data(
        ctx: NativeCallContext,
        net: &mut ScriptExtractor,
        set: Dataset,
        options: Map,
    ) -> RhaiResult<ScriptStats> {
        stats_of(&ctx, net, &set, options)
    }
    /// The network's name.
    ///
    /// Example: `metric::network("fashion28").name` is "fashion28"
    #[rhai_fn(get = "name", pure)]
    pub fn network_name(net: &mut ScriptExtractor) -> ImmutableString {
        net.0.name().into()
    }
    /// How many features an image has.
    ///
    /// Example: `metric::network("fashion28").width` is 128
    #[rhai_fn(get = "width", pure)]
    pub fn network_width(net: &mut ScriptExtractor) -> INT {
        net.0.width() as INT
    }
    /// How many classes its logits are of; 0 where it has none.
    ///
    /// Example: `metric::network("fashion28").classes` is 10
    #[rhai_fn(get = "classes", pure)]
    pub fn network_classes(net: &mut ScriptExtractor) -> INT {
        net.0.classes() as INT
    }
    /// One line that says what the network is.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn network_text(net: &mut ScriptExtractor) -> ImmutableString {
        format!("feature network {}, {} features, {} classes", net.0.name(), net.0.width(), net.0.classes()).into()
    }
}
