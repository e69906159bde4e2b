//! Rhai function `generate`: many samples into a folder of PNG files or one `.npz`.
use super::error::{RhaiResult, carry};
use super::host::ScriptHost;
use super::model::Model;
use super::options::{Given, SEED, read};
use super::plan::ScriptSolver;
use super::plan::solve::Sampler;
use crate::Error;
use crate::denoise::{Cond, DynDenoiser, draw_labels, one_hot};
use crate::discretize::Schedule;
use crate::files::bulk::{self, Job, Shard};
use crate::host::{Callback, Host, Progress, Quiet, Value};
use crate::plan::{SolveOptions, Tracked};
use crate::real::host_values;
use crate::schema::{Kind as Of, Opt, Schema, count, flag, value};
use crate::tensor::device::{default_device, device_name};
use crate::tensor::grad::no_grad;
use crate::tensor::random::{self, stream};
use crate::world::{self, Link};
use candle_core::{DType, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, Map, NativeCallContext};
use serde_json::{Value as Json, json};

/// Bytes that a batch may take by the default rule.
const BUDGET: usize = 1 << 30;
/// Bytes that an evaluation may take per value of a sample: the order of magnitude of U-Nets with 64 to 128 channels.
const PER_VALUE: usize = 4096;
/// The largest batch by the default rule: a larger one is hardly faster, and an interrupted run loses more.
const LARGEST: usize = 64;

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(api).into());
}

/// A host without progress reports of its own: `generate` shows one for all batches.
struct Hushed<'a>(&'a dyn Host);

impl Host for Hushed<'_> {
    fn call(&self, f: &Callback, args: Vec<Value>) -> crate::Result<Value> {
        self.0.call(f, args)
    }
    fn progress(&self, label: &str, total: u64) -> Box<dyn Progress> {
        Quiet.progress(label, total)
    }
}

/// How samples get their classes.
#[derive(Clone, Copy)]
enum Classes {
    None,
    /// Drawn by seed.
    Uniform(usize),
    /// Sample i has class i mod n.
    Cycle(usize),
    One(usize),
}

impl Classes {
    fn parse(given: Option<Dynamic>, net: &DynDenoiser) -> RhaiResult<Classes> {
        let n = net.classes();
        let Some(v) = given else { return Ok(if n > 0 { Classes::Uniform(n) } else { Classes::None }) };
        let text = v.clone().into_immutable_string().ok();
        let class = v.as_int().ok();
        match (text.as_deref(), class) {
            (Some("uniform" | "cycle"), _) | (_, Some(_)) if n == 0 => {
                let e = Error::value(format!("generate: option `cond` is {v}, but the denoiser has no classes"));
                Err(e.hint("leave `cond` out").into())
            }
            (Some("uniform"), _) => Ok(Classes::Uniform(n)),
            (Some("cycle"), _) => Ok(Classes::Cycle(n)),
            (_, None) => Ok(Classes::None),
            (_, Some(c)) => match usize::try_from(c) {
                Ok(c) if c < n => Ok(Classes::One(c)),
                _ => Err(Error::value(format!("generate: class {c} does not exist: there are 0 to {}", n - 1)).into()),
            },
        }
    }
    fn of(self, seed: u64, i: u64) -> Option<i64> {
        match self {
            Classes::None => None,
            Classes::Uniform(n) => draw_labels(seed, i, 1, n).first().copied(),
            Classes::Cycle(n) => Some((i % n as u64) as i64),
            Classes::One(c) => Some(c as i64),
        }
    }
    fn name(self) -> Json {
        match self {
            Classes::None => json!("none"),
            Classes::Uniform(_) => json!("uniform"),
            Classes::Cycle(_) => json!("cycle"),
            Classes::One(c) => json!(c),
        }
    }
}

const NUMBERED: &str = "of the noise; the number of the first sample";
const GENERATE: Schema = Schema::new(
    "generate",
    &[
        value(
            "out",
            Of::Text,
            "",
            "a folder (`000000.png`, …) or a name ending in `.npz` (`arr_0`: uint8 [N, H, W, C]; `arr_1`: the classes, where there are any)",
        )
        .needed("\"samples\""),
        Opt { doc: NUMBERED, ..SEED },
        count("first", 0, [0, usize::MAX], NUMBERED),
        value("batch", Of::Count(1, usize::MAX), "as many as take about 1 GiB, at most 64", "samples at a time"),
        value(
            "cond",
            Of::Either(&[Of::Integer, Of::Word(&["uniform", "cycle", "none"])]),
            "\"uniform\" for a network with classes, else \"none\"",
            "a class, \"uniform\": drawn by seed, \"cycle\": i mod classes, \"none\"",
        ),
        value(
            "shard",
            Of::Either(&[Of::Text, Of::Map]),
            "what `--shard` or MPI says",
            "\"2/4\": the second quarter",
        ),
        flag("overwrite", false, "replace the files of another run"),
        flag("subfolders", false, "one per thousand, as EDM's `--subdirs`"),
        value("shape", Of::SIZES, "the denoiser's", "[C, H, W], where the denoiser does not fix it"),
        value(
            "decode",
            Of::Native("Model", "model (`model::load`)"),
            "none",
            "the model (`model::load`) that makes images of the denoiser's latents",
        ),
        value(
            "key",
            Of::Text,
            "none",
            "text that stands for a network or solver that is a function of the script's own: without it such a run cannot be gone on with",
        ),
    ],
);
/// A part of a run, as a map.
const SHARD: &[Opt] = &[count("index", 1, [1, usize::MAX], ""), count("count", 1, [1, usize::MAX], "")];
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[GENERATE];

fn shard(o: &Given) -> RhaiResult<Shard> {
    let Some(v) = o.get("shard") else { return Ok(world::current().shard) };
    let Some(map) = v.read_lock::<Map>().map(|m| m.clone()) else { return Ok(Shard::parse(&v.to_string())?) };
    let o = read("generate: shard", SHARD.iter(), map)?;
    Ok(Shard::new(o.count("index") as i64, o.count("count") as i64)?)
}

fn shape(o: &Given, net: &DynDenoiser) -> RhaiResult<[usize; 3]> {
    let Some(dims) = o.counts("shape").or_else(|| net.sample_shape()) else {
        let e = Error::value("generate: this denoiser does not fix the shape of its samples");
        return Err(e.hint("give it: `shape: [3, 32, 32]`").into());
    };
    images(dims)
}

fn images(dims: Vec<usize>) -> RhaiResult<[usize; 3]> {
    dims.as_slice().try_into().map_err(|_| {
        let m = format!("generate: samples must be images [C, H, W], but are {dims:?}");
        Error::shape(m, &[&dims]).into()
    })
}

fn default_batch(shape: [usize; 3]) -> usize {
    let one = shape.iter().fold(PER_VALUE, |n, d| n.saturating_mul(*d));
    (BUDGET / one.max(1)).clamp(1, LARGEST)
}

/// What the manifest records of a schedule, to read.
fn about_schedule(s: &Schedule) -> crate::Result<Json> {
    let t_eval = s.t_eval.as_ref().map(|t| host_values(&t.detach())).transpose()?;
    Ok(json!({ "name": s.name, "noise": s.noise.spec(), "t": host_values(&s.t.detach())?, "t_eval": t_eval }))
}

fn run(
    ctx: &NativeCallContext,
    net: &DynDenoiser,
    sampler: &Sampler,
    n: INT,
    options: Map,
    how: [(&str, Json); 2],
) -> RhaiResult<Map> {
    let o = GENERATE.read(options)?;
    let (seed, first) = (o.seed(), o.count("first") as u64);
    let latent = shape(&o, net)?;
    let decoder: Option<Model> = o.native("decode");
    let shape = match &decoder {
        Some(model) => images(model.decoded(&latent)?)?,
        None => latent,
    };
    let batch = o.some_count("batch").unwrap_or_else(|| default_batch(shape));
    let classes = Classes::parse(o.get("cond"), net)?;
    let shard = shard(&o)?;
    let key = o.some_text("key");
    let n = u64::try_from(n).map_err(|_| Error::value(format!("generate: the number of samples is {n}")))?;
    let end = first.checked_add(n).ok_or_else(|| Error::value("generate: `first` is too large"))?;

    let plan = match sampler {
        Sampler::Plan(plan) => Some(plan.plan().hash()),
        Sampler::Steps(..) => None,
    };
    let model = net.hash();
    let decoding = decoder.as_ref().map(Model::key);
    let known = key.is_some() || (plan.is_some() && model.is_some() && decoding != Some(None));
    let device = default_device();
    let mut identity = json!({
        "model": model, "noise": net.noise().spec(), "plan": plan, "seed": seed, "cond": classes.name(), "key": key,
    });
    if let Some(key) = decoding {
        identity["decode"] = key.into();
    }
    let mut about = json!({
        "model": net.describe(), "versions": { "ld3sh": crate::VERSION }, "device": device_name(&device),
    });
    for (name, value) in how {
        about[name] = value;
    }
    let map = |v: Json| v.as_object().cloned().unwrap_or_default();
    let labelled = !matches!(classes, Classes::None);
    let job = Job {
        out: o.text("out").into(),
        numbers: first..end,
        shard,
        batch,
        shape,
        label: labelled
            .then(|| -> Box<dyn Fn(u64) -> i64 + Send + Sync> { Box::new(move |i| classes.of(seed, i).unwrap_or(0)) }),
        identity: known.then(|| map(identity)),
        about: map(about),
        overwrite: o.flag("overwrite"),
        subfolders: o.flag("subfolders"),
    };
    let host = ScriptHost::new(ctx);
    let mut draw = |start: u64, count: usize| -> crate::Result<Tensor> {
        let [c, h, w] = latent;
        let z = random::normal(seed, start, &[count, c, h, w], stream::NORMAL, DType::F32, &device)?;
        let labels: Option<Vec<i64>> = (start..start + count as u64).map(|i| classes.of(seed, i)).collect();
        let cond = match labels {
            Some(l) => Cond::classes(one_hot(&l, net.classes(), DType::F32, &device)?),
            None => Cond::None,
        };
        let options = SolveOptions { cond, seed, first_sample: start, ..SolveOptions::default() };
        let x = no_grad(|| sampler.draw(ctx, &Hushed(&host), net, &z, &options)).map_err(carry)?;
        match &decoder {
            Some(model) => model.decode(&x),
            None => Ok(x),
        }
    };
    let mut report = bulk::generate(&job, &host, &mut draw)?;
    let world = world::current();
    if world.link == Link::Mpi && world.shard == job.shard {
        // whoever was done before the last one looks again
        world.meet()?;
        if !report.complete {
            report = bulk::Report { made: report.made, ..bulk::generate(&job, &host, &mut draw)? };
        }
        world.meet()?;
    }
    Ok(Map::from([
        ("out".into(), report.out.display().to_string().into()),
        ("samples".into(), (n as INT).into()),
        ("made".into(), (report.made as INT).into()),
        ("complete".into(), report.complete.into()),
        ("run".into(), report.run.map_or(Dynamic::UNIT, Into::into)),
    ]))
}

#[export_module]
mod api {
    /// Draws n samples into a folder of PNG files or one `.npz`, and goes on where an interrupted run stopped.
    ///
    /// Samples have the numbers `first` to `first + n - 1`; sample i depends on `seed` and i only, and is the one that
    /// `sample(net, solver, schedule, 1, #{ seed, first: i })` draws, whatever the batch or shard.
    ///
    /// Values in [−1, 1] become bytes by EDM's rule ⌊127.5 x + 128⌋, cut to 0..255. A folder has a `generate.json` with what made it and may
    /// grow (a larger n); an `.npz` is kept in parts until it is whole. Shards write `NAME.shard-2-of-4.npz`; the last one
    /// joins them. The same bits for any batch hold on the CPU for built-in networks.
    ///
    /// Returns `#{ out, samples, made, complete, run }`: n, how many were drawn now, whether all shards are there, the run's hash.
    /// Errors: kind `value` where files of another run are in the way.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: 0.0, std: 0.5, shape: [1, 8, 8] }); generate(net, solver::unipc(), schedule::logsnr(net.noise, 5), 4, #{ out: out("samples") }).samples` is 4
    #[rhai_fn(name = "generate", return_raw)]
    pub fn generate(
        ctx: NativeCallContext,
        net: DynDenoiser,
        solver: ScriptSolver,
        schedule: Schedule,
        n: INT,
        options: Map,
    ) -> RhaiResult<Map> {
        let sampler = Sampler::new(&ctx, &net, &solver, &schedule)?;
        let how = [("solver", json!(solver.describe())), ("schedule", about_schedule(&schedule)?)];
        run(&ctx, &net, &sampler, n, options, how)
    }
    /// Draws n samples with a plan; options as with a solver and a schedule.
    ///
    /// Example: `let net = denoiser::gaussian(#{ mean: 0.0, shape: [1, 8, 8] }); generate(net, solver::ddim().plan(schedule::edm(net.noise, 5)), 4, #{ out: out("samples.npz") }).complete` is true
    #[rhai_fn(name = "generate", return_raw)]
    pub fn generate_plan(
        ctx: NativeCallContext,
        net: DynDenoiser,
        plan: Tracked,
        n: INT,
        options: Map,
    ) -> RhaiResult<Map> {
        let how = [("solver", json!(plan.plan().name)), ("schedule", Json::Null)];
        run(&ctx, &net, &Sampler::Plan(plan), n, options, how)
    }
}
