//! Rhai module `model`: models of several parts, of which the denoiser is one.
use super::denoise::{FIRST, LOADING, Loading, denoiser_of};
use super::error::RhaiResult;
use super::options::SESSION_SEED;
use crate::denoise::DynDenoiser;
use crate::model::{through, through_some};
use crate::nets::family::{Part, Parts, Role};
use crate::nets::ldm::DEVIATION;
use crate::nets::points::PRIOR_INPUT;
use crate::nets::runner::Runner;
use crate::nets::weights::wide;
use crate::schema::{Opt, Schema, flag};
use crate::tensor::random::{self, stream};
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};
use std::rc::Rc;

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Model>("Model");
    engine.register_static_module("model", rhai::exported_module!(model_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

const LOAD: Schema = Schema::new("model::load", &[]).with(LOADING);
const ENCODE: Schema = Schema::method(
    "Model",
    "encode",
    &[
        flag("sample", false, "draw from the distribution; false: its mean"),
        SESSION_SEED,
        Opt { doc: "number of the first image, for the draw", ..FIRST },
    ],
);
const PRIOR: Schema = Schema::new("prior", &[SESSION_SEED, FIRST]);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[LOAD, ENCODE, PRIOR];

/// A model's parts.
#[derive(Clone)]
pub struct Model(Rc<Inner>);

struct Inner {
    name: String,
    parts: Parts,
    denoiser: Option<DynDenoiser>,
}

impl Model {
    /// A hash of all its parts; `None` where that cannot be known.
    pub fn key(&self) -> Option<String> {
        let part = |(role, part): (&Role, &Part)| {
            let hash = match part {
                Part::Denoiser(_) => self.0.denoiser.as_ref()?.hash()?,
                Part::Graph(runner) => runner.hash().ok()?,
                Part::Score(net) => net.hash().to_string(),
                Part::Confidence(net) => net.hash().to_string(),
                Part::Features(_) | Part::Text(_) | Part::T5(_) | Part::Image(_) => return None,
            };
            Some(format!("{} {hash}\n", role.name()))
        };
        self.0.parts.iter().map(part).collect()
    }
    /// The shape of what a sample of this shape [C, h, w] is decoded to.
    pub fn decoded(&self, latent: &[usize]) -> Result<Vec<usize>> {
        let shapes = self.graph(Role::Decoder)?.shapes(&[[&[1], latent].concat()])?;
        Ok(shapes.first().map_or(vec![], |s| s[1..].to_vec()))
    }
    /// Images from latents, differentiable in them.
    pub fn decode(&self, z: &Tensor) -> Result<Tensor> {
        through(self.graph(Role::Decoder)?, "z", 0, z)
    }
    /// Latents from images, by these options of scripts.
    fn encode(&self, x: &Tensor, options: Map) -> RhaiResult<Tensor> {
        let o = ENCODE.read(options)?;
        let runner = self.graph(Role::Encoder)?;
        if !o.flag("sample") {
            return Ok(through(runner, "x", 0, x)?);
        }
        let Some(which) = runner.graph().outputs.iter().position(|o| o.name == DEVIATION) else {
            let m = format!("`{}` has codes and no distribution: there is nothing to draw a latent from", self.0.name);
            return Err(Error::value(m).hint("leave out `sample`").into());
        };
        let mut outs = through_some(runner, "x", &[0, which], x)?;
        let (Some(deviation), Some(mean)) = (outs.pop(), outs.pop()) else {
            return Err(Error::new(Kind::Internal, "an encoder without a result").into());
        };
        let (seed, first) = (o.seed(), o.count("first") as u64);
        let noise = random::normal(seed, first, mean.dims(), stream::NORMAL, mean.dtype(), mean.device())?;
        let drawn = (deviation * noise).and_then(|d| mean + d);
        Ok(drawn.map_err(Error::from)?)
    }
    /// Latents from standard normal numbers [n, latent], differentiable in them.
    fn prior_of(&self, w: &Tensor) -> Result<Tensor> {
        through(self.graph(Role::Prior)?, PRIOR_INPUT, 0, w)
    }
    /// Latents of samples `first` on, drawn from the prior.
    fn prior(&self, n: INT, options: Map) -> RhaiResult<Tensor> {
        let o = PRIOR.read(options)?;
        let runner = self.graph(Role::Prior)?;
        let count = usize::try_from(n).ok().filter(|n| *n > 0);
        let count = count.ok_or_else(|| Error::value(format!("prior: at least one latent is to be drawn, not {n}")))?;
        let width = runner.graph().inputs.first().map_or(0, |p| p.sizes().iter().product());
        let dtype = wide(runner.dtype());
        let w =
            random::normal(o.seed(), o.count("first") as u64, &[count, width], stream::LATENT, dtype, runner.device())?;
        Ok(self.prior_of(&w)?)
    }
    fn graph(&self, role: Role) -> Result<&Runner> {
        match self.0.parts.get(&role) {
            Some(Part::Graph(runner)) => Ok(runner),
            _ => Err(self.without(role)),
        }
    }
    fn without(&self, role: Role) -> Error {
        let held: Vec<&str> = self.0.parts.keys().map(|r| r.name()).collect();
        Error::value(format!("`{}` is {}, without {}", self.0.name, held.join(" and "), role.name()))
            .hint("load the whole model, or that part's own file")
    }
}

fn load_with(ctx: &NativeCallContext, name: &str, options: Map) -> RhaiResult<Model> {
    let loading = Loading::new(&LOAD.read(options)?)?;
    let parts = loading.parts(ctx, name)?;
    let denoiser = match parts.get(&Role::Denoiser) {
        Some(Part::Denoiser(net)) => Some(denoiser_of(name, net.clone(), &loading)?),
        _ => None,
    };
    Ok(Model(Rc::new(Inner { name: name.into(), parts, denoiser })))
}

/// Models: a denoiser together with what turns its latents into images and back.
#[export_module]
pub mod model_api {
    /// A model from a file or folder, as it is published: denoiser and autoencoder.
    ///
    /// Latent diffusion, Stable Diffusion 1, 2, XL and 3, FLUX.1, DiT and SiT, improved-diffusion, or an autoencoder alone; or a small one
    /// that is compiled in: "fashion28-latent", "fashion28-flow", "fashion28-reflow".
    ///
    /// `.denoiser` is what `denoiser::load` gives; `.decode(z)` and `.encode(x)` go between latents and images. A file is a checkpoint with
    /// all parts in it (`.ckpt`, `.safetensors`), a folder is one that diffusers wrote. Errors say what a file holds instead.
    ///
    /// Example: `model::load("autoencoder.safetensors").decode(zeros([1, 3, 4, 4])).shape` is [1, 3, 16, 16]
    #[rhai_fn(return_raw)]
    pub fn load(ctx: NativeCallContext, path: ImmutableString) -> RhaiResult<Model> {
        load_with(&ctx, &path, Map::new())
    }
    /// A model from a file or folder, with what its weights do not say of it.
    ///
    /// Example: `model::load("autoencoder.safetensors", #{ quantize: false }).decode(zeros([1, 3, 4, 4])).shape` is [1, 3, 16, 16]
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_options(ctx: NativeCallContext, path: ImmutableString, options: Map) -> RhaiResult<Model> {
        load_with(&ctx, &path, options)
    }
}

#[export_module]
mod methods {
    /// The model's denoiser, in the noise schedule that it was trained in.
    #[rhai_fn(get = "denoiser", return_raw, pure)]
    pub fn model_denoiser(model: &mut Model) -> RhaiResult<DynDenoiser> {
        Ok(model.0.denoiser.clone().ok_or_else(|| model.without(Role::Denoiser))?)
    }
    /// Images [B, 3, H, W], in about [−1, 1] and not limited to it, from the latents `z` [B, C, h, w] of the denoiser.
    ///
    /// Differentiable in `z`; where codes are looked up, as if they were not. `checkpoint` around it saves the memory of what a gradient
    /// needs. Errors where the model has no decoder, and on a wrong shape.
    ///
    /// Example: `model::load("autoencoder.safetensors").decode(zeros([2, 3, 4, 4])).shape` is [2, 3, 16, 16]
    #[rhai_fn(return_raw, pure)]
    pub fn decode(model: &mut Model, z: Tensor) -> RhaiResult<Tensor> {
        Ok(Model::decode(model, &z)?)
    }
    /// Latents [B, C, h, w], as the denoiser has them, from images `x` [B, 3, H, W] in [−1, 1].
    ///
    /// Of an autoencoder with a distribution the mean; of one with codes what comes before them. Differentiable in `x`. Errors where the
    /// model has no encoder, and on a wrong shape.
    ///
    /// Example: `model::load("autoencoder.safetensors").encode(zeros([2, 3, 16, 16])).shape` is [2, 3, 4, 4]
    #[rhai_fn(return_raw, pure)]
    pub fn encode(model: &mut Model, x: Tensor) -> RhaiResult<Tensor> {
        Model::encode(model, &x, Map::new())
    }
    /// Latents from images, drawn from the autoencoder's distribution where that is asked for, as in training.
    ///
    /// Example: `model::load("sd15").encode(zeros([1, 3, 16, 16]), #{ sample: true, seed: 0 }).shape[0]` is 1
    #[rhai_fn(name = "encode", return_raw, pure)]
    pub fn encode_options(model: &mut Model, x: Tensor, options: Map) -> RhaiResult<Tensor> {
        Model::encode(model, &x, options)
    }
    /// Latents [n, latent] of `n` clouds, drawn from the model's prior: its denoiser's condition `z`.
    ///
    /// Errors where the model has no prior.
    ///
    /// Example: `model::load("shapes").prior(4).shape` is [4, 32]
    #[rhai_fn(return_raw, pure)]
    pub fn prior(model: &mut Model, n: INT) -> RhaiResult<Tensor> {
        Model::prior(model, n, Map::new())
    }
    /// Latents of clouds, drawn by seed: the condition `z` of samples. A sample's latent depends on the seed and its number alone.
    ///
    /// A generator of clouds has two noises: the one that its latent is drawn by, and that of its points. The same seed serves both.
    ///
    /// Example: `model::load("shapes").prior(4, #{ seed: 0 })`
    #[rhai_fn(name = "prior", return_raw, pure)]
    pub fn prior_options(model: &mut Model, n: INT, options: Map) -> RhaiResult<Tensor> {
        Model::prior(model, n, options)
    }
    /// The latents that the model's prior makes of standard normal numbers `w` [n, latent]; differentiable in them.
    ///
    /// Example: `let all = model::load("shapes"); all.prior(randn([2, 32], #{ seed: 0 })).shape` is [2, 32]
    #[rhai_fn(name = "prior", return_raw, pure)]
    pub fn prior_of(model: &mut Model, w: Tensor) -> RhaiResult<Tensor> {
        Ok(Model::prior_of(model, &w)?)
    }
    /// The names of the model's parts, as an array.
    ///
    /// Example: `model::load("autoencoder.safetensors").parts` is ["an encoder", "a decoder"]
    #[rhai_fn(get = "parts", pure)]
    pub fn model_parts(model: &mut Model) -> rhai::Array {
        model.0.parts.keys().map(|r| Dynamic::from(r.name())).collect()
    }
    /// One line that says what the model is.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn model_text(model: &mut Model) -> ImmutableString {
        let held: Vec<&str> = model.0.parts.keys().map(|r| r.name()).collect();
        format!("{}: {}", model.0.name, held.join(", ")).into()
    }
}
