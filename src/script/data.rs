//! Rhai functions for data sets: module `data`, type `Dataset` and its batches.
use super::error::RhaiResult;
use super::host::ScriptHost;
use super::options::{Given, SESSION_SEED};
use crate::data::{self, Dataset, FILTERS, Labels, Opening, Prepare, Resize};
use crate::host::Host;
use crate::schema::{Kind as Of, Opt, Schema, count, flag, value, word};
use crate::tensor::aside;
use crate::{Error, Kind};
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};
use std::ops::Range;

/// Minibatches in an order, as a `for` takes them.
#[derive(Clone)]
pub struct Batches {
    set: Dataset,
    size: usize,
    seed: Option<u64>,
    epochs: u64,
    rest: bool,
    next: (u64, usize),
}

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Dataset>("Dataset");
    engine.register_type_with_name::<Batches>("Batches");
    engine.register_iterator_result::<Batches, Dynamic>();
    engine.register_static_module("data", rhai::exported_module!(data_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

impl Iterator for Batches {
    type Item = RhaiResult<Dynamic>;

    fn next(&mut self) -> Option<Self::Item> {
        let (epoch, from) = self.next;
        let n = self.set.len();
        let to = (from + self.size).min(n);
        if epoch >= self.epochs || to == from {
            return None;
        }
        let left = n - to;
        let over = left == 0 || (!self.rest && left < self.size);
        self.next = if over { (epoch + 1, 0) } else { (epoch, to) };
        let order = match self.seed {
            Some(seed) => self.set.order(seed, epoch).map(|o| o[from..to].to_vec()),
            None => Ok((from..to).collect()),
        };
        let batch = order.map_err(Into::into).and_then(|places| batch(&self.set, places));
        Some(batch.map(|mut map| {
            map.insert("epoch".into(), Dynamic::from_int(epoch as INT));
            map.into()
        }))
    }
}

/// `#{ x, label, place }` of pictures by their places.
fn batch(set: &Dataset, places: Vec<usize>) -> RhaiResult<Map> {
    let label = match set.labels(&places)? {
        None => Dynamic::UNIT,
        Some(l) => Dynamic::from(Tensor::from_slice(&l, l.len(), &Device::Cpu).map_err(Error::from)?),
    };
    let at: Array = places.iter().map(|i| Dynamic::from_int(*i as INT)).collect();
    let read = set.clone();
    let x = aside::run(usize::MAX, move || read.batch(&places))?;
    Ok(Map::from([("x".into(), Dynamic::from(x)), ("label".into(), label), ("place".into(), at.into())]))
}

fn place(what: &str, i: INT) -> RhaiResult<usize> {
    usize::try_from(i)
        .map_err(|_| Error::value(format!("{what}: there is no place {i}")).hint("places count from 0").into())
}

fn places(what: &str, all: &Array) -> RhaiResult<Vec<usize>> {
    let one = |v: &Dynamic| match v.as_int() {
        Ok(i) => place(what, i),
        Err(kind) => Err(Error::new(Kind::Type, format!("{what}: places must be integers, not {kind}")).into()),
    };
    all.iter().map(one).collect()
}

const PIXELS: Of = Of::Count(1, 1 << 16);
/// How pictures are prepared.
const PREPARE: &[Opt] = &[
    value("size", Of::Either(&[PIXELS, Of::List(&PIXELS, 2)]), "as they are", "pixels, or [rows, columns]"),
    word(
        "crop",
        &["center", "none"],
        "the middle is cut out in the new proportions before it gets its size; \"none\": all is squeezed into it",
    ),
    word("filter", &FILTERS, "as Pillow's, which average where a picture shrinks (antialiasing)"),
    value("channels", Of::Count(1, 3), "as they are", "1, grey by 0.299 R + 0.587 G + 0.114 B, or 3"),
];
const OPEN: Schema = Schema::new(
    "data::open",
    &[
        word(
            "labels",
            &["auto", "folders", "none"],
            "where there are any; \"folders\": a picture in no folder is an error; \"none\": without",
        ),
        word("part", &["train", "test"], "or \"test\": of a folder of CIFAR"),
    ],
)
.with(&[PREPARE]);
const BATCHES: Schema = Schema::new(
    "batches",
    &[
        Opt {
            doc: "in an order drawn by it, another one each round; without, in their own order",
            ..SESSION_SEED.or("none")
        },
        count("epochs", 1, [0, usize::MAX], "rounds"),
        flag("rest", true, "a last batch that is smaller is given too"),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[OPEN, BATCHES];

/// How pictures are prepared, by these options.
fn prepare(o: &Given) -> RhaiResult<Prepare> {
    let wrong = |m: String| Error::value(format!("{}: {m}", o.of()));
    let size = match (o.some_count("size"), o.counts("size").as_deref()) {
        (Some(n), _) => Some([n, n]),
        (None, Some(&[rows, columns])) => Some([rows, columns]),
        _ => None,
    };
    if size.is_none() && (o.has("crop") || o.has("filter")) {
        return Err(wrong("`crop` and `filter` say how pictures get their new size, and there is none".into())
            .hint("give it: `size: 32`")
            .into());
    }
    let channels = o.some_count("channels");
    if let Some(bad) = channels.filter(|c| ![1, 3].contains(c)) {
        return Err(wrong(format!("channels must be 1 (grey) or 3 (colours), not {bad}")).into());
    }
    let resize = size.map(|size| Resize { size, crop: o.is("crop", "center"), filter: o.word("filter") });
    Ok(Prepare { resize, channels })
}

fn open_with(path: &str, options: Map) -> RhaiResult<Dataset> {
    let o = OPEN.read(options)?;
    let how = prepare(&o)?;
    let labels = match o.word("labels") {
        "folders" => Labels::Folders,
        "none" => Labels::None,
        _ => Labels::Auto,
    };
    let (part, path) = (o.word("part"), path.to_string());
    Ok(aside::run(usize::MAX, move || data::open(path, &Opening { labels, part, how }))?)
}

fn labels_of(v: &Dynamic) -> RhaiResult<Vec<i64>> {
    let wrong = || Error::new(Kind::Type, "data::of: labels must be integers, an array or a tensor [N]");
    if let Some(t) = v.read_lock::<Tensor>() {
        let t = t.detach().to_device(&Device::Cpu).map_err(Error::from)?;
        if t.rank() != 1 || t.dtype().is_float() {
            return Err(wrong().into());
        }
        return Ok(t.to_dtype(candle_core::DType::I64).and_then(|t| t.to_vec1()).map_err(Error::from)?);
    }
    let Some(a) = v.read_lock::<Array>() else { return Err(wrong().into()) };
    a.iter().map(|l| l.as_int().map_err(|_| wrong().into())).collect()
}

/// Pictures with labels, read as they are asked for.
#[export_module]
mod data_api {
    /// Opens a data set: a folder of PNG and JPEG files, an array, MNIST's or CIFAR's files, tar shards. Its content says what it is.
    ///
    /// See `data::open` with options.
    ///
    /// Example: `save(out("pictures.npy"), zeros([5, 3, 8, 8])); data::open(out("pictures.npy")).count` is 5
    #[rhai_fn(return_raw)]
    pub fn open(path: &str) -> RhaiResult<Dataset> {
        open_with(path, Map::new())
    }
    /// Opens a data set: nothing but the names, labels and sizes is read; pictures are when they are asked for.
    ///
    /// What `path` may be:
    /// - a folder of `.png`, `.jpg`, `.jpeg`, and the folders in it (hidden ones aside), in the order of their paths; where all pictures are in
    ///   folders of it, those are their classes, by name
    /// - a folder of `.tar` files, or one of them, as WebDataset has them: `0007.png` with `0007.cls`, or `label` in `0007.json`
    /// - `.npz` with pictures in `arr_0`, `x`, `images`, `samples` or `data` and labels in `arr_1`, `y`, `labels` or `label`; or `.npy`: bytes
    ///   [N, H, W, C], [N, C, H, W] or [N, H, W]; or numbers [N, C, H, W] or [N, H, W], which are taken as they are
    /// - an idx file of pictures (MNIST, Fashion-MNIST), packed by gzip or not; its labels are in the file beside it that is named alike
    /// - a folder of CIFAR-10 or CIFAR-100, the Python or the binary version, or one of its files
    ///
    /// Bytes become [−1, 1] in f32, 0 → −1 and 255 → 1. Transparency is laid over white. A picture that cannot be read fails when it is asked
    /// for, by name; `broken` finds such pictures before.
    ///
    /// Errors: kind `io` where nothing is there, `format` where it is something else.
    ///
    /// Example: `save(out("p.npz"), #{ x: zeros([4, 1, 8, 8]), y: tensor([0, 1, 0, 1]) }); data::open(out("p.npz"), #{ channels: 1 }).batch(0, 4).label.to_array()` is [0, 1, 0, 1]
    #[rhai_fn(name = "open", return_raw)]
    pub fn open_options(path: &str, options: Map) -> RhaiResult<Dataset> {
        open_with(path, options)
    }
    /// A data set of pictures [N, C, H, W] that are at hand, taken as they are; of bytes (`uint8`) as `data::open` takes arrays.
    ///
    /// Example: `data::of(randn([6, 1, 8, 8])).count` is 6
    #[rhai_fn(return_raw)]
    pub fn of(x: Tensor) -> RhaiResult<Dataset> {
        Ok(Dataset::of(&x, None, Prepare::default())?)
    }
    /// A data set of pictures that are at hand, with a label (an integer from 0) for each, an array or a tensor [N].
    ///
    /// Example: `data::of(randn([3, 1, 8, 8]), [2, 0, 2]).only(2).count` is 2
    #[rhai_fn(name = "of", return_raw)]
    pub fn of_labels(x: Tensor, labels: Dynamic) -> RhaiResult<Dataset> {
        Ok(Dataset::of(&x, Some(labels_of(&labels)?), Prepare::default())?)
    }
}

/// What a data set can be asked.
#[export_module]
mod methods {
    /// How many pictures there are.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).count` is 6
    #[rhai_fn(get = "count", pure)]
    pub fn count(set: &mut Dataset) -> INT {
        set.len() as INT
    }
    /// The names of the classes in the order of their labels; empty where they have no names.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).classes` is []
    #[rhai_fn(get = "classes", pure)]
    pub fn classes(set: &mut Dataset) -> Array {
        set.classes().iter().map(|c| c.clone().into()).collect()
    }
    /// What it was opened from.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).path` is "a tensor"
    #[rhai_fn(get = "path", pure)]
    pub fn path(set: &mut Dataset) -> ImmutableString {
        set.path().into()
    }
    /// A picture by its place.
    ///
    /// Returns `#{ x, label, name }`: [C, H, W], its class or (), what it is called.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).get(5).x.shape` is [1, 8, 8]
    #[rhai_fn(return_raw, pure)]
    pub fn get(set: &mut Dataset, i: INT) -> RhaiResult<Map> {
        let i = place("get", i)?;
        let label = set.label(i)?.map_or(Dynamic::UNIT, |l| Dynamic::from_int(l as INT));
        let (x, name) = (set.get(i)?, set.name(i)?);
        Ok(Map::from([("x".into(), Dynamic::from(x)), ("label".into(), label), ("name".into(), name.into())]))
    }
    /// Pictures by their places.
    ///
    /// Returns `#{ x, label, place }`: [B, C, H, W]; classes, i64 [B], or () where there are none; the places.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).batch([5, 0, 5]).x.shape` is [3, 1, 8, 8]
    #[rhai_fn(name = "batch", return_raw, pure)]
    pub fn batch_of(set: &mut Dataset, places: Array) -> RhaiResult<Map> {
        batch(set, super::places("batch", &places)?)
    }
    /// The `n` pictures from place `from` on, as `batch` of their places gives them.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).batch(2, 3).place` is [2, 3, 4]
    #[rhai_fn(name = "batch", return_raw, pure)]
    pub fn batch_from(set: &mut Dataset, from: INT, n: INT) -> RhaiResult<Map> {
        let (from, n) = (place("batch", from)?, place("batch", n)?);
        if from.saturating_add(n) > set.len() {
            let e =
                Error::value(format!("batch: places {from} to {} of {} pictures", from.saturating_add(n), set.len()));
            return Err(e.into());
        }
        batch(set, (from..from + n).collect())
    }
    /// Minibatch `step` (from 0) of `size` pictures, out of rounds through all of them, each in an order drawn by `seed`.
    ///
    /// It depends on its arguments alone, so a training that goes on at step 1,000 sees what it would have seen. Pictures that fill no
    /// minibatch are left out of their round.
    ///
    /// Returns what `batch` does.
    ///
    /// Example: `let d = data::of(zeros([6, 1, 8, 8])); d.minibatch(7, 2, 0).place == d.minibatch(7, 2, 0).place` is true
    #[rhai_fn(return_raw, pure)]
    pub fn minibatch(set: &mut Dataset, step: INT, size: INT, seed: INT) -> RhaiResult<Map> {
        let (step, size) = (place("minibatch", step)?, place("minibatch", size)?);
        let places = set.minibatch(step as u64, size, seed as u64)?;
        batch(set, places)
    }
    /// All pictures in batches of `size`, in their order, for `for`.
    ///
    /// Example: `let n = 0; for b in data::of(zeros([6, 1, 8, 8])).batches(4) { n += b.x.shape[0]; } n` is 6
    #[rhai_fn(return_raw, pure)]
    pub fn batches(set: &mut Dataset, size: INT) -> RhaiResult<Batches> {
        batches_with(set, size, Map::new())
    }
    /// Pictures in batches of `size`, for `for`: each gives what `batch` does, and `epoch`, from 0.
    ///
    /// Example: `let n = 0; for b in data::of(zeros([6, 1, 8, 8])).batches(4, #{ seed: 1, epochs: 3, rest: false }) { n += b.x.shape[0]; } n` is 12
    #[rhai_fn(name = "batches", return_raw, pure)]
    pub fn batches_with(set: &mut Dataset, size: INT, options: Map) -> RhaiResult<Batches> {
        let o = BATCHES.read(options)?;
        let seed = o.int("seed").map(|s| s as u64);
        let (epochs, rest) = (o.count("epochs") as u64, o.flag("rest"));
        let size = usize::try_from(size).ok().filter(|n| *n > 0);
        let size = size.ok_or_else(|| Error::value("batches: a batch has at least one picture"))?;
        if !rest && size > set.len() {
            let e = Error::value(format!("batches: {} pictures fill no batch of {size}", set.len()));
            return Err(e.hint("leave out `rest: false`").into());
        }
        Ok(Batches { set: set.clone(), size, seed, epochs, rest, next: (0, 0) })
    }
    /// The pictures at the places of a range, as `0..100`.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).part(1..4).count` is 3
    #[rhai_fn(return_raw, pure)]
    pub fn part(set: &mut Dataset, range: Range<INT>) -> RhaiResult<Dataset> {
        Ok(set.part(place("part", range.start)?..place("part", range.end)?)?)
    }
    /// The pictures with this label.
    ///
    /// Example: `data::of(zeros([3, 1, 8, 8]), [1, 0, 1]).only(1).count` is 2
    #[rhai_fn(name = "only", return_raw, pure)]
    pub fn only(set: &mut Dataset, label: INT) -> RhaiResult<Dataset> {
        Ok(set.only(place("only", label)?)?)
    }
    /// The pictures of the class with this name.
    ///
    /// Example: `let why = ""; try { data::of(zeros([3, 1, 8, 8]), [1, 0, 1]).only("cat"); } catch (e) { why = e.kind; } why` is "name"
    #[rhai_fn(name = "only", return_raw, pure)]
    pub fn only_class(set: &mut Dataset, class: &str) -> RhaiResult<Dataset> {
        match set.classes().iter().position(|c| c == class) {
            Some(label) => Ok(set.only(label)?),
            None => Err(Error::unknown("class", class, set.classes().iter().map(String::as_str)).into()),
        }
    }
    /// The same pictures in an order drawn by `seed`.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).shuffled(1).part(0..2).count` is 2
    #[rhai_fn(return_raw, pure)]
    pub fn shuffled(set: &mut Dataset, seed: INT) -> RhaiResult<Dataset> {
        Ok(set.shuffled(seed as u64)?)
    }
    /// The set without the pictures at some places, as `broken` finds them.
    ///
    /// Example: `data::of(zeros([6, 1, 8, 8])).without([0, 3]).count` is 4
    #[rhai_fn(return_raw, pure)]
    pub fn without(set: &mut Dataset, places: Array) -> RhaiResult<Dataset> {
        Ok(set.without(&super::places("without", &places)?))
    }
    /// Reads every picture, and tells which cannot be used: an array of `#{ place, name, message }`.
    ///
    /// Example: `let d = data::of(zeros([6, 1, 8, 8])); d.without(d.broken().map(|b| b.place)).count` is 6
    #[rhai_fn(return_raw, pure)]
    pub fn broken(context: NativeCallContext, set: &mut Dataset) -> RhaiResult<Array> {
        let mut progress = ScriptHost::new(&context).progress("pictures", set.len() as u64);
        let found = set.broken(&mut |n| progress.advance(n as u64))?;
        let one = |(place, why): (usize, Error)| -> RhaiResult<Dynamic> {
            Ok(Map::from([
                ("place".into(), Dynamic::from_int(place as INT)),
                ("name".into(), set.name(place)?.into()),
                ("message".into(), why.message().to_string().into()),
            ])
            .into())
        };
        found.into_iter().map(one).collect()
    }
    /// One line about the data set.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn dataset_to_string(set: &mut Dataset) -> String {
        set.to_string()
    }
    /// One line about the batches.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn batches_to_string(batches: &mut Batches) -> String {
        format!("batches of {} of {}", batches.size, batches.set)
    }
}
