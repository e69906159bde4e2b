//! The functions of module `denoiser`.
use super::args::{number, tensor_of};
use super::onnx;
use crate::denoise::{
    DynDenoiser, Empirical, FnNetwork, Gaussian, Mixture, Network, Preconditioned, Predicts, Reparam, TimeInput,
};
use crate::model::{self, Given};
use crate::nets::family::{self, Parts};
use crate::nets::network::Net;
use crate::noise::{self, Noise};
use crate::real::host_values;
use crate::script::error::RhaiResult;
use crate::script::host::{ScriptHost, callback};
use crate::script::identity::Own;
use crate::script::options::Options;
use crate::script::trace::{Held, TracedNetwork};
use crate::tensor::device::{default_device, parse_device};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, FnPtr, ImmutableString, Map, NativeCallContext};
use std::path::Path;
use std::rc::Rc;

fn edm_noise() -> Result<Noise> {
    noise::from_spec(&serde_json::json!({ "name": "edm" }))
}

/// Option `noise`; EDM's schedule where it is left out.
fn noise_option(o: &mut Options) -> RhaiResult<Noise> {
    match o.native::<Noise>("noise", "a noise schedule (`noise::edm()`, …)")? {
        Some(n) => Ok(n),
        None => Ok(edm_noise()?),
    }
}

fn missing(of: &str, key: &str, example: &str) -> Error {
    Error::value(format!("{of} needs the option `{key}`")).hint(format!("for example `{key}: {example}`"))
}

fn shape_option(o: &mut Options) -> RhaiResult<Option<Vec<usize>>> {
    let Some(a) = o.array("shape")? else { return Ok(None) };
    let dim = |v: &Dynamic| v.as_int().ok().and_then(|i| usize::try_from(i).ok()).filter(|d| *d > 0);
    match a.iter().map(dim).collect::<Option<Vec<_>>>() {
        Some(s) => Ok(Some(s)),
        None => Err(Error::value("`shape` must be an array of sizes ≥ 1, one sample's without the batch").into()),
    }
}

/// The options that say of a network what its file does not, by the name of each.
const GIVEN: [&str; 14] = [
    "heads",
    "head_width",
    "attention_order",
    "size",
    "height",
    "width",
    "ema",
    "predicts",
    "schedule",
    "rescale_timesteps",
    "quantize",
    "scale_factor",
    "groups",
    "points",
];

/// A number, a word, or true or false.
fn plain(key: &str, v: &Dynamic) -> Result<serde_json::Value> {
    let found = v.as_int().map(Into::into).or(v.as_float().map(Into::into)).or(v.as_bool().map(Into::into));
    found.or(v.clone().into_string().map(Into::into)).map_err(|t| {
        Error::new(Kind::Type, format!("option `{key}` must be a number, a word, or true or false, not {t}"))
    })
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
    /// Takes these options.
    pub fn new(o: &mut Options) -> RhaiResult<Loading> {
        let dtype = match o.one_of("dtype", &["f32", "f64", "f16", "bf16"])? {
            Some("f64") => DType::F64,
            Some("f16") => DType::F16,
            Some("bf16") => DType::BF16,
            _ => DType::F32,
        };
        let augment = o.take("augment").map(|a| host_values(&tensor_of("`augment`", a)?)).transpose()?;
        let device = o.string("device")?.map_or_else(|| Ok(default_device()), |d| parse_device(&d))?;
        let clamp = o.bool("clamp_time")?.unwrap_or(false);
        let noise = o.native::<Noise>("noise", "a noise schedule (`noise::edm()`, …)")?;
        let mut given = Given::new();
        for key in GIVEN {
            let Some(v) = o.take(key) else { continue };
            given.insert(key.into(), plain(key, &v)?);
        }
        Ok(Loading { dtype, device, augment, clamp, noise, given })
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
    let mut o = Options::new("denoiser::load", options);
    let loading = Loading::new(&mut o)?;
    o.finish()?;
    Ok(denoiser_of(name, family::denoiser(loading.parts(ctx, name)?)?, &loading)?)
}

/// What option `time` of a network means.
fn time_input(of: &str, given: Option<Dynamic>, noise: &Noise, predicts: Predicts) -> RhaiResult<TimeInput> {
    let default = if predicts == Predicts::Flow { TimeInput::FlowTime } else { TimeInput::Sigma };
    let Some(v) = given else { return Ok(default) };
    if v.is_int() || v.is_float() {
        return Ok(TimeInput::Scaled(number("time", &v)?));
    }
    let name = v
        .into_string()
        .map_err(|t| Error::new(Kind::Type, format!("{of}: `time` must be a name or a factor of t, not {t}")))?;
    Ok(match name.as_str() {
        "sigma" => TimeInput::Sigma,
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
        _ => {
            let known = ["sigma", "t", "log", "flow", "steps"];
            return Err(Error::unknown(&format!("value for option `time` of {of}"), &name, known).into());
        }
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
    /// By the options `noise`, `predicts`, `sigma_data`, `time` and `clamp_time` of the function `of`.
    fn read(of: &str, o: &mut Options) -> RhaiResult<Meaning> {
        let noise = o.native::<Noise>("noise", "a noise schedule (`noise::edm()`, …)")?;
        let predicts = o.one_of("predicts", &["noise", "data", "score", "v", "flow", "edm"])?;
        let sigma_data = o.float("sigma_data")?;
        let (time, clamp) = (o.take("time"), o.bool("clamp_time")?.unwrap_or(false));
        let noise = noise.ok_or_else(|| missing(of, "noise", "noise::edm()"))?;
        let predicts = match predicts.ok_or_else(|| missing(of, "predicts", "\"noise\""))? {
            "noise" => Predicts::Noise,
            "data" => Predicts::Data,
            "score" => Predicts::Score,
            "v" => Predicts::V,
            "flow" => Predicts::Flow,
            _ => Predicts::EdmF { sigma_data: sigma_data.unwrap_or(0.5) },
        };
        if sigma_data.is_some() && !matches!(predicts, Predicts::EdmF { .. }) {
            return Err(Error::value(format!("{of}: `sigma_data` belongs to `predicts: \"edm\"`")).into());
        }
        let time = time_input(of, time, &noise, predicts)?;
        Ok(Meaning { noise, predicts, time, clamp })
    }
    /// The denoiser of a network.
    fn denoiser(self, net: Rc<dyn Network>) -> RhaiResult<DynDenoiser> {
        let Meaning { noise, predicts, time, clamp } = self;
        Ok(Rc::new(Preconditioned::new(net, noise, predicts)?.with_time(time)?.clamp_time(clamp)))
    }
}

/// The type and the device of option `dtype` and `device`, for networks whose weights are in f32 or f64.
fn place(o: &mut Options) -> RhaiResult<(DType, Device)> {
    let dtype = if o.one_of("dtype", &["f32", "f64"])? == Some("f64") { DType::F64 } else { DType::F32 };
    Ok((dtype, o.string("device")?.map_or_else(|| Ok(default_device()), |d| parse_device(&d))?))
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
    /// Options:
    /// - `dtype` ("f32"): or "f64"; on a GPU also "f16" and "bf16"
    /// - `device` (that of `--device`): "cpu" or "cuda:0"
    /// - `noise` (its own, EDM's): expresses it in another noise schedule
    /// - `clamp_time` (false): let it run at noise levels that it was not trained at, telling it the nearest one
    /// - `augment` (none): augmentation labels for all samples, where the network was trained with them
    /// - `heads` (as published): heads of each attention, for latent diffusion and its kin, as are all that follow
    /// - `head_width` (as published): channels of each head, in the place of `heads`
    /// - `attention_order` (as published, else "heads"): what stands together in the outputs of attention's first map: q, k and v of a head, or ("parts") q, k or v of all heads
    /// - `size` (as published, else 64): height and width of what is denoised
    /// - `height`, `width` (both `size`): where it is no square
    /// - `ema` (true): read the averaged weights where the file has them
    /// - `predicts` ("noise"): or "data", "v", "flow" (ε − x_0), "velocity" (x_0 − ε, as InstaFlow and SiT have it)
    /// - `schedule` (the file's, or as published): a preset of `noise::vp_discrete`: "sd", "ldm", "iddpm_cosine", "iddpm_linear", "adm_cosine"
    /// - `rescale_timesteps` (as published): tell it training steps on a scale of 1000
    /// - `groups` (32): groups of each group norm
    /// - `quantize` (true): whether an autoencoder with codes takes the nearest of them before it decodes
    /// - `scale_factor` (the file's, or as published): latents over what the autoencoder gives
    /// - `points` (the file's, or 2048): points of a cloud, of networks of these
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
    /// Options:
    /// - `mean` (0.0): a tensor or nested array of one sample's shape; or a number, with `shape`
    /// - `std` (1.0): a number, or one per entry
    /// - `shape` (that of `mean`): one sample's, where the mean is a number
    /// - `noise` (`noise::edm()`): the noise schedule
    ///
    /// Example: `denoiser::gaussian(#{ mean: [0.5, -0.5], std: 0.3 })`
    #[rhai_fn(return_raw)]
    pub fn gaussian(options: Map) -> RhaiResult<DynDenoiser> {
        let of = "denoiser::gaussian";
        let mut o = Options::new(of, options);
        let noise = noise_option(&mut o)?;
        let mut mean = tensor_of("`mean`", o.take("mean").unwrap_or(0.0.into()))?;
        let std = tensor_of("`std`", o.take("std").unwrap_or(1.0.into()))?;
        let shape = shape_option(&mut o)?;
        o.finish()?;
        match shape {
            Some(s) if mean.elem_count() == 1 => {
                mean = mean.reshape(()).and_then(|m| m.broadcast_as(s)).map_err(Error::from)?;
            }
            Some(s) if s != mean.dims() => {
                return Err(
                    Error::shape("denoiser::gaussian: `shape` is not that of `mean`", &[&s, mean.dims()]).into()
                );
            }
            None if mean.rank() == 0 => return Err(missing(of, "shape", "[1, 28, 28]").into()),
            _ => {}
        }
        Ok(Rc::new(Gaussian::new(&mean, &std, noise)?))
    }
    /// The exact denoiser of a mixture of Gaussians with isotropic standard deviations.
    ///
    /// Its arithmetic is f64.
    ///
    /// Options:
    /// - `means`: a tensor [K, …], an array of K tensors, or nested arrays
    /// - `stds`: K numbers ≥ 0, or one for all
    /// - `weights` (equal): K numbers ≥ 0, normalized here
    /// - `noise` (`noise::edm()`): the noise schedule
    ///
    /// Example: `denoiser::mixture(#{ means: [[-1.0, 0.0], [1.0, 0.0]], stds: 0.2 })`
    #[rhai_fn(return_raw)]
    pub fn mixture(options: Map) -> RhaiResult<DynDenoiser> {
        let of = "denoiser::mixture";
        let mut o = Options::new(of, options);
        let noise = noise_option(&mut o)?;
        let (means, stds, weights) = (o.take("means"), o.take("stds"), o.take("weights"));
        o.finish()?;
        let means = tensor_of("`means`", means.ok_or_else(|| missing(of, "means", "[[-1.0, 0.0], [1.0, 0.0]]"))?)?;
        let stds = host_values(&tensor_of("`stds`", stds.ok_or_else(|| missing(of, "stds", "0.2"))?)?)?;
        let weights = weights.map(|w| host_values(&tensor_of("`weights`", w)?)).transpose()?;
        Ok(Rc::new(Mixture::new(&means, &stds, weights.as_deref(), noise)?))
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
    /// Options:
    /// - `noise` (`noise::edm()`): the noise schedule
    ///
    /// Example: `denoiser::empirical(randn([10, 2], #{ seed: 0 }), #{ noise: noise::flow() }).denoise(ones([1, 2]), 0.5)`
    #[rhai_fn(name = "empirical", return_raw)]
    pub fn empirical_with(data: Tensor, options: Map) -> RhaiResult<DynDenoiser> {
        let mut o = Options::new("denoiser::empirical", options);
        let noise = noise_option(&mut o)?;
        o.finish()?;
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
    /// Options:
    /// - `noise`: the schedule in which it was trained
    /// - `predicts`: what it returns: "noise" ε, "data" x_0, "score" −ε/σ, "v" α ε − σ x_0, "flow" ε − x_0, or "edm" F_θ
    /// - `sigma_data` (0.5): the data's standard deviation, of "edm"
    /// - `time` ("sigma", for "flow" "flow"): the second argument: "sigma", "t", "log" (ln(s)/4, as EDM's networks take it),
    ///   "flow" (σ/(α + σ)), "steps" (the training step, 0 to N − 1), or a factor k for k·t
    /// - `classes` (0): the width of one-hot conditions
    /// - `shape` (any): one sample's, if only one will do
    /// - `clamp_time` (false): run at noise levels outside the schedule's range too, told the nearest one
    /// - `name` ("script function"): in tables and records
    /// - `key` (a hash of the function, where nothing that it captures or reads can change): data by which caches and checkpoints know it
    ///
    /// Example: `denoiser::from_fn(#{ noise: noise::edm(), predicts: "data" }, |x, sigma, cond| x / (1.0 + sigma.reshape([-1, 1]) ** 2))`
    #[rhai_fn(return_raw)]
    pub fn from_fn(context: NativeCallContext, options: Map, network: FnPtr) -> RhaiResult<DynDenoiser> {
        let of = "denoiser::from_fn";
        let mut o = Options::new(of, options);
        let how = Meaning::read(of, &mut o)?;
        let (classes, shape) = (o.count("classes")?.unwrap_or(0), shape_option(&mut o)?);
        let own = Own::new(&context, &mut o, network)?;
        o.finish()?;
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
    /// Options:
    /// - `noise`: the schedule in which it was trained
    /// - `predicts`: what it returns: "noise" ε, "data" x_0, "score" −ε/σ, "v" α ε − σ x_0, "flow" ε − x_0, or "edm" F_θ
    /// - `inputs` (by name and shape): a map: `x` and `time` are names of its inputs (`time: false` where there is none); any other key is the name of a
    ///   condition, with the name of its input, a number at which it is held, or a map: `input`, `shape` (where the file leaves it open), `value`, or for labels
    ///   `classes` and the number that means `none`, under the key `classes`
    /// - `time` ("sigma", for "flow" "flow"): what it is told: "sigma", "t", "log" (ln(s)/4), "flow" (σ/(α + σ)), "steps" (the
    ///   training step, 0 to N − 1), or a factor k for k·t
    /// - `sigma_data` (0.5): the data's standard deviation, of "edm"
    /// - `shape` (the file's): one sample's, where the file leaves it open
    /// - `output` (the only one): the name of the output
    /// - `clamp_time` (false): run at noise levels outside the schedule's range too, told the nearest one
    /// - `dtype` ("f32"): or "f64"
    /// - `device` (that of `--device`): "cpu" or "cuda:0"
    /// - `name` (the file's): in tables and records
    ///
    /// Example: `denoiser::onnx("network.onnx", #{ noise: noise::edm(), predicts: "data", time: "log" }).denoise(zeros([2, 1, 8, 8]), 0.5).shape` is [2, 1, 8, 8]
    #[rhai_fn(name = "onnx", return_raw)]
    pub fn from_onnx(path: ImmutableString, options: Map) -> RhaiResult<DynDenoiser> {
        let of = "denoiser::onnx";
        let mut o = Options::new(of, options);
        let how = Meaning::read(of, &mut o)?;
        let mut asked = onnx::asked(of, &mut o)?;
        asked.name = o.string("name")?;
        let (dtype, device) = place(&mut o)?;
        o.finish()?;
        let net = crate::nets::onnx::network(Path::new(path.as_str()), &asked, &device, dtype)?;
        how.denoiser(Rc::new(net))
    }
}
