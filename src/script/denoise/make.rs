//! The functions of module `denoiser`.
use super::args::{number, tensor_of};
use super::onnx;
use crate::denoise::{
    DynDenoiser, Empirical, FnNetwork, Gaussian, Mixture, Network, Preconditioned, Predicts, Reparam, TimeInput,
};
use crate::model::{self, Given};
use crate::nets::family::{self, Parts};
use crate::nets::network::Net;
use crate::nets::{ldm, points};
use crate::noise::{self, Noise};
use crate::real::host_values;
use crate::schema::{Kind as Of, Opt, Schema, above, count, flag, text, value, word};
use crate::script::error::RhaiResult;
use crate::script::host::{ScriptHost, callback};
use crate::script::identity::Own;
use crate::script::options::{DEVICE, Given as Asked, PRECISION};
use crate::script::trace::{Held, TracedNetwork};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, ImmutableString, Map, NativeCallContext};
use std::path::Path;
use std::rc::Rc;

fn edm_noise() -> Result<Noise> {
    noise::from_spec(&serde_json::json!({ "name": "edm" }))
}

/// A noise schedule.
pub const NOISE: Of = Of::Native("NoiseSchedule", "noise schedule (`noise::edm()`, …)");
const OWN_NOISE: Opt = value("noise", NOISE, "`noise::edm()`", "the noise schedule");
const TRAINED: Opt = value("noise", NOISE, "", "the schedule in which it was trained").needed("noise::edm()");
const PREDICTS: Opt = word(
    "predicts",
    &["noise", "data", "score", "v", "flow", "edm"],
    "what it returns: \"noise\" ε, \"data\" x_0, \"score\" −ε/σ, \"v\" α ε − σ x_0, \"flow\" ε − x_0, or \"edm\" F_θ",
)
.needed("\"noise\"");
const TIMES: &[&str] = &["sigma", "t", "log", "flow", "steps"];
const TIME: Opt = value(
    "time",
    Of::Either(&[Of::Word(TIMES), Of::NUMBER]),
    "\"sigma\", for \"flow\" \"flow\"",
    "what it is told: \"sigma\", the VE noise level s = σ/α, \"t\", \"log\" (ln(s)/4, as EDM's networks take it), \"flow\" (σ/(α + σ)), \"steps\" \
     (the training step, 0 to N − 1), or a factor k for k·t",
);
const SIGMA_DATA: Opt = above("sigma_data", 0.5, [0.0, f64::MAX], "the data's standard deviation, of \"edm\"");
const CLAMP_TIME: Opt =
    flag("clamp_time", false, "run at noise levels outside the schedule's range too, told the nearest one");
/// What a network's output and second input mean.
const MEANING: &[Opt] = &[TRAINED, PREDICTS, SIGMA_DATA, TIME, CLAMP_TIME];
/// What is said of a model that is loaded.
pub const LOADING: &[&[Opt]] = &[
    &[
        word("dtype", &["f32", "f64", "f16", "bf16"], "or \"f64\"; on a GPU also \"f16\" and \"bf16\""),
        DEVICE,
        value("noise", NOISE, "its own", "expresses the denoiser in another noise schedule"),
        flag(
            "clamp_time",
            false,
            "let the denoiser run at noise levels that it was not trained at, telling it the nearest one",
        ),
        value(
            "augment",
            Of::NESTED,
            "none",
            "augmentation labels for all samples, where the network was trained with them",
        ),
    ],
    &ldm::OPTIONS,
    &points::OPTIONS,
];
const LOAD: Schema = Schema::new("denoiser::load", &[]).with(LOADING);
const GAUSSIAN: Schema = Schema::new(
    "denoiser::gaussian",
    &[
        value("mean", Of::NESTED, "0.0", "a tensor or nested array of one sample's shape; or a number, with `shape`"),
        value("std", Of::NESTED, "1.0", "a number, or one per entry"),
        value("shape", Of::SIZES, "that of `mean`", "one sample's, where the mean is a number"),
        OWN_NOISE,
    ],
);
const MIXTURE: Schema = Schema::new(
    "denoiser::mixture",
    &[
        value("means", Of::NESTED, "", "a tensor [K, …], an array of K tensors, or nested arrays")
            .needed("[[-1.0, 0.0], [1.0, 0.0]]"),
        value("stds", Of::NESTED, "", "K numbers ≥ 0, or one for all").needed("0.2"),
        value("weights", Of::NESTED, "equal", "K numbers ≥ 0, normalized here"),
        OWN_NOISE,
    ],
);
const EMPIRICAL: Schema = Schema::new("denoiser::empirical", &[OWN_NOISE]);
const FROM_FN: Schema = Schema::new(
    "denoiser::from_fn",
    &[
        count("classes", 0, [0, 1 << 24], "the width of one-hot conditions"),
        value("shape", Of::SIZES, "any", "one sample's, if only one will do"),
        text("name", "script function", "in tables and records"),
        value(
            "key",
            Of::Any,
            "a hash of the function, where nothing that it captures or reads can change",
            "data by which caches and checkpoints know it",
        ),
    ],
)
.with(&[MEANING]);
const ONNX: Schema = Schema::new(
    "denoiser::onnx",
    &[
        value(
            "inputs",
            Of::Map,
            "by name and shape",
            "a map: `x` and `time` are names of its inputs (`time: false` where there is none); any other key is the name of a condition, with \
             the name of its input, a number at which it is held, or a map: `input`, `shape` (where the file leaves it open), `value`, or for \
             labels `classes` and the number that means `none`, under the key `classes`",
        ),
        value("shape", Of::SIZES, "the file's", "one sample's, where the file leaves it open"),
        value("output", Of::Text, "the only one", "the name of the output"),
        PRECISION,
        DEVICE,
        value("name", Of::Text, "the file's", "in tables and records"),
    ],
)
.with(&[MEANING]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[LOAD, GAUSSIAN, MIXTURE, EMPIRICAL, FROM_FN, ONNX];

/// Option `noise`; EDM's schedule where it is left out.
fn noise_option(o: &Asked) -> Result<Noise> {
    o.native("noise").map_or_else(edm_noise, Ok)
}

/// How a model is to be loaded.
pub struct Loading {
    dtype: DType,
    device: Device,
    augment: Option<Vec<f64>>,
    clamp: bool,
    noise: Option<Noise>,
    given: Given,
}

impl Loading {
    /// By these options.
    pub fn new(o: &Asked) -> Result<Loading> {
        let augment = o.get("augment").map(|a| host_values(&tensor_of("`augment`", a)?)).transpose()?;
        let told = ldm::OPTIONS.iter().chain(&points::OPTIONS);
        let told: Vec<&str> = told.map(|opt| opt.name).filter(|name| o.has(name)).collect();
        Ok(Loading {
            dtype: o.dtype()?.unwrap_or(DType::F32),
            device: o.device()?,
            augment,
            clamp: o.flag("clamp_time"),
            noise: o.native("noise"),
            given: o
                .values()
                .filter(|(opt, _)| told.contains(&opt.name))
                .map(|(opt, value)| (opt.name.into(), value.to_json()))
                .collect(),
        })
    }

    /// The parts of the model of this name.
    pub fn parts(&self, ctx: &NativeCallContext, name: &str) -> Result<Parts> {
        let source = model::find(name, &ScriptHost::new(ctx)).map_err(|e| e.context("denoiser::load"))?;
        let dtype = match self.dtype {
            DType::F16 | DType::BF16 if self.device.is_cpu() => {
                crate::host::note(&format!("{name}: {} is for GPUs; on the CPU it runs in f32", self.dtype.as_str()));
                DType::F32
            }
            dtype => dtype,
        };
        model::load_given(&source, &self.device, dtype, self.given.clone())
    }
}

/// The denoiser of a network, with its notes told.
pub fn denoiser_of(name: &str, net: Net, how: &Loading) -> Result<DynDenoiser> {
    let net = match &how.augment {
        Some(labels) => net.augmented(labels)?,
        None => net,
    };
    for note in net.notes() {
        crate::host::note(&format!("{name}: {note}"));
    }
    let net: DynDenoiser = Rc::new(net.denoiser()?.clamp_time(how.clamp));
    Ok(how.noise.clone().map_or(net.clone(), |n| Reparam::wrap(net, n)))
}

fn load_with(ctx: &NativeCallContext, name: &str, options: Map) -> RhaiResult<DynDenoiser> {
    let loading = Loading::new(&LOAD.read(options)?)?;
    Ok(denoiser_of(name, family::denoiser(loading.parts(ctx, name)?)?, &loading)?)
}

/// What option `time` of a network means.
fn time_input(given: Option<Dynamic>, noise: &Noise, predicts: Predicts) -> RhaiResult<TimeInput> {
    let default = if predicts == Predicts::Flow { TimeInput::FlowTime } else { TimeInput::Sigma };
    let Some(v) = given else { return Ok(default) };
    if v.is_int() || v.is_float() {
        return Ok(TimeInput::Scaled(number("time", &v)?));
    }
    Ok(match v.to_string().as_str() {
        "t" => TimeInput::T,
        "log" => TimeInput::LnSigmaOver4,
        "flow" => TimeInput::FlowTime,
        "steps" => {
            // t starts at 1/N in a schedule of N training steps
            let steps = (1.0 / noise.t_min()).round();
            if noise.name() != "vp_discrete" {
                return Err(Error::value("`time: \"steps\"` needs a noise schedule of training steps")
                    .hint("`noise::vp_discrete(…)`")
                    .into());
            }
            TimeInput::Discrete { steps: steps as usize }
        }
        _ => TimeInput::Sigma,
    })
}

/// What a network's output and second input mean.
struct Meaning {
    noise: Noise,
    predicts: Predicts,
    time: TimeInput,
    clamp: bool,
}

impl Meaning {
    /// By these options.
    fn read(o: &Asked) -> RhaiResult<Meaning> {
        let predicts = match o.word("predicts") {
            "data" => Predicts::Data,
            "score" => Predicts::Score,
            "v" => Predicts::V,
            "flow" => Predicts::Flow,
            "edm" => Predicts::EdmF { sigma_data: o.number("sigma_data") },
            _ => Predicts::Noise,
        };
        if o.has("sigma_data") && !matches!(predicts, Predicts::EdmF { .. }) {
            return Err(Error::value(format!("{}: `sigma_data` belongs to `predicts: \"edm\"`", o.of())).into());
        }
        let noise = noise_option(o)?;
        let time = time_input(o.get("time"), &noise, predicts)?;
        Ok(Meaning { noise, predicts, time, clamp: o.flag("clamp_time") })
    }
    /// The denoiser of a network.
    fn denoiser(self, net: Rc<dyn Network>) -> RhaiResult<DynDenoiser> {
        let Meaning { noise, predicts, time, clamp } = self;
        Ok(Rc::new(Preconditioned::new(net, noise, predicts)?.with_time(time)?.clamp_time(clamp)))
    }
}

/// Denoisers: pretrained networks, exact ones, networks of other frameworks, and functions of a script.
#[export_module]
pub mod denoiser_api {
    /// A pretrained denoiser: a built-in one by name (`"fashion28"`, `"fashion28-latent"`, …), a network from a file (EDM's; latent diffusion, Stable Diffusion,
    /// improved-diffusion) or a folder of diffusers, or a published one by
    /// name (`"edm-ffhq-64x64-uncond-vp"`; `models()` lists them), which is downloaded once to the cache folder.
    ///
    /// It runs in f32 on the default device, in the noise schedule that it was trained in (EDM's for all that are published by name). Errors name the file and what is wrong with it.
    ///
    /// Example: `denoiser::load("fashion28").shape` is [1, 28, 28]
    #[rhai_fn(return_raw)]
    pub fn load(ctx: NativeCallContext, name_or_path: ImmutableString) -> RhaiResult<DynDenoiser> {
        load_with(&ctx, &name_or_path, Map::new())
    }
    /// A pretrained denoiser: built-in, from a file, or published, as with a name alone.
    ///
    /// Example: `denoiser::load("fashion28", #{ noise: noise::vp_linear() })`
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_options(
        ctx: NativeCallContext,
        name_or_path: ImmutableString,
        options: Map,
    ) -> RhaiResult<DynDenoiser> {
        load_with(&ctx, &name_or_path, options)
    }
    /// The exact denoiser of Gaussian data, x_0 ~ N(mean, std²).
    ///
    /// Its arithmetic is f64.
    ///
    /// Example: `denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 })`
    #[rhai_fn(return_raw)]
    pub fn gaussian(options: Map) -> RhaiResult<DynDenoiser> {
        let o = GAUSSIAN.read(options)?;
        let noise = noise_option(&o)?;
        let mut mean = tensor_of("`mean`", o.get("mean").unwrap_or(0.0.into()))?;
        let std = tensor_of("`std`", o.get("std").unwrap_or(1.0.into()))?;
        match o.counts("shape") {
            Some(s) if mean.elem_count() == 1 => {
                mean = mean.reshape(()).and_then(|m| m.broadcast_as(s)).map_err(Error::from)?;
            }
            Some(s) if s != mean.dims() => {
                return Err(
                    Error::shape("denoiser::gaussian: `shape` is not that of `mean`", &[&s, mean.dims()]).into()
                );
            }
            None if mean.rank() == 0 => {
                let e = Error::value("denoiser::gaussian needs the option `shape`");
                return Err(e.hint("for example `shape: [1, 28, 28]`").into());
            }
            _ => {}
        }
        Ok(Rc::new(Gaussian::new(&mean, &std, noise)?))
    }
    /// The exact denoiser of a mixture of Gaussians with isotropic standard deviations.
    ///
    /// Its arithmetic is f64.
    ///
    /// Example: `denoiser::mixture(#{ means: [[-1.0, 0.0], [1.0, 0.0]], stds: 0.2 })`
    #[rhai_fn(return_raw)]
    pub fn mixture(options: Map) -> RhaiResult<DynDenoiser> {
        let o = MIXTURE.read(options)?;
        let tensor = |key: &str| o.get(key).map(|v| tensor_of(&format!("`{key}`"), v)).transpose();
        let host = |key: &str| tensor(key)?.map(|t| host_values(&t)).transpose();
        let (Some(means), Some(stds)) = (tensor("means")?, host("stds")?) else {
            return Err(Error::value("denoiser::mixture needs the options `means` and `stds`").into());
        };
        Ok(Rc::new(Mixture::new(&means, &stds, host("weights")?.as_deref(), noise_option(&o)?)?))
    }
    /// The exact denoiser of a finite data set, in EDM's noise schedule: what a perfectly overfitted network would be.
    ///
    /// `data` is a tensor [M, …] of M samples.
    ///
    /// Example: `denoiser::empirical(randn([10, 2], #{ seed: 0 })).denoise(ones([1, 2]), 0.5)`
    #[rhai_fn(return_raw)]
    pub fn empirical(data: Tensor) -> RhaiResult<DynDenoiser> {
        Ok(Rc::new(Empirical::new(&data, edm_noise()?)?))
    }
    /// The exact denoiser of a finite data set: a mean of the data, weighted by a softmax of the distances.
    ///
    /// `data` is a tensor [M, …] of M samples. The arithmetic is f64; memory is bounded.
    ///
    /// Example: `denoiser::empirical(randn([10, 2], #{ seed: 0 }), #{ noise: noise::flow() }).denoise(ones([1, 2]), 0.5)`
    #[rhai_fn(name = "empirical", return_raw)]
    pub fn empirical_with(data: Tensor, options: Map) -> RhaiResult<DynDenoiser> {
        let noise = noise_option(&EMPIRICAL.read(options)?)?;
        Ok(Rc::new(Empirical::new(&data, noise)?))
    }
    /// A denoiser from a network that is a function of the script: `|x, sigma, cond|` returns what it predicts, of x's shape.
    ///
    /// `x` [B, …] is the network's input: x_t itself, or c_in·x_t for "edm" (1/√(s² + sigma_data²) times x_t/α). The second
    /// argument is a tensor [B]: the VE noise level s = σ/α, unless `time` says otherwise. `cond` is the rows given as
    /// condition, `()` without one, or any value that was given. Both tensors have the states' dtype and device. The function is
    /// differentiated in its first two arguments, as `grad` would; its weights are constants.
    ///
    /// In f32 on the CPU it is recorded and run as a graph by the networks' kernels, where it does the same whatever the values are; it
    /// is compared with the function at the first evaluation (within 5e-4 of the largest value). A note says what keeps it a function.
    /// With `shape`, its operations and weights are its hash.
    ///
    /// Example: `denoiser::from_fn(#{ noise: noise::edm(), predicts: "data" }, |x, sigma, cond| x / (1.0 + sigma.reshape([-1, 1]) ** 2))`
    #[rhai_fn(return_raw)]
    pub fn from_fn(context: NativeCallContext, options: Map, network: FnPtr) -> RhaiResult<DynDenoiser> {
        let o = FROM_FN.read(options)?;
        let how = Meaning::read(&o)?;
        let (classes, shape) = (o.count("classes"), o.counts("shape"));
        let own = Own::new(&context, &o, network)?;
        let (key, said, held) = (own.fixed_key(&context), own.is_said(), Held::of(&context, &own.function));
        let net = FnNetwork { name: own.name, key, ..FnNetwork::new(callback(own.function), shape, classes) };
        let net = TracedNetwork::new(net, held, said);
        net.prepare(&ScriptHost::new(&context))?;
        how.denoiser(Rc::new(net))
    }
    /// A denoiser from a network that another framework exported to an ONNX file (opsets 13 to 28): PyTorch's `torch.onnx.export`, JAX's and
    /// TensorFlow's converters. It runs by the networks' own kernels, with gradients, and needs no runtime.
    ///
    /// A file does not say what its network predicts: `noise` and `predicts` do. Its state, time and output are found by their names and
    /// shapes where these are plain; `inputs` says so where not. All other inputs are conditions, given by name:
    /// `net.denoise(x, sigma, #{ text: rows })`. A batch of any size is run; a file that was exported for one sample is run sample by
    /// sample. Where it gives twice as many channels as the state has, the second half (learned variances) is left out.
    ///
    /// Errors name the file, and the operation and node that cannot be run. Data beside the file is read from its own folder only.
    ///
    /// Example: `denoiser::onnx("network.onnx", #{ noise: noise::edm(), predicts: "data", time: "log" }).denoise(zeros([2, 1, 8, 8]), 0.5).shape` is [2, 1, 8, 8]
    #[rhai_fn(name = "onnx", return_raw)]
    pub fn from_onnx(path: ImmutableString, options: Map) -> RhaiResult<DynDenoiser> {
        let o = ONNX.read(options)?;
        let how = Meaning::read(&o)?;
        let asked = onnx::asked(&o)?;
        let dtype = o.dtype()?.unwrap_or(DType::F32);
        let net = crate::nets::onnx::network(Path::new(path.as_str()), &asked, &o.device()?, dtype)?;
        how.denoiser(Rc::new(net))
    }
}
