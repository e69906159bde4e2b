//! Rhai module `model`: models of several parts, of which the denoiser is one.
use super::denoise::{Loading, denoiser_of};
use super::error::RhaiResult;
use super::options::Options;
use crate::denoise::DynDenoiser;
use crate::model::through;
use crate::nets::family::{Part, Parts, Role};
use crate::nets::runner::Runner;
use crate::{Error, Result};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use std::rc::Rc;

/// Adds this area's functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Model>("Model");
    engine.register_static_module("model", rhai::exported_module!(model_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

/// A model's parts.
#[derive(Clone)]
pub struct Model(Rc<Inner>);

struct Inner {
    name: String,
    parts: Parts,
    denoiser: Option<DynDenoiser>,
}

impl Model {
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
    let mut o = Options::new("model::load", options);
    let loading = Loading::new(&mut o)?;
    o.finish()?;
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
    /// A model from a file or folder, as it is published: latent diffusion, Stable Diffusion 1 and 2, an autoencoder alone; or a small one
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
    /// Options:
    /// - `dtype` ("f32"): or "f64"; on a GPU also "f16" and "bf16"
    /// - `device` (that of `--device`): "cpu" or "cuda:0"
    /// - `noise` (its own): expresses the denoiser in another noise schedule
    /// - `clamp_time` (false): let the denoiser run at noise levels that it was not trained at, telling it the nearest one
    /// - `augment` (none): augmentation labels for all samples, where the network was trained with them
    /// - `heads` (as published): heads of each attention, for latent diffusion and its kin, as are all that follow
    /// - `head_width` (as published): channels of each head, in the place of `heads`
    /// - `size` (as published, else 64): height and width of what is denoised
    /// - `ema` (true): read the averaged weights where the file has them
    /// - `predicts` ("noise"): or "data", "v", "flow" (ε − x_0), "velocity" (x_0 − ε, as InstaFlow has it)
    /// - `schedule` (the file's, or as published): a preset of `noise::vp_discrete`: "sd", "ldm", "iddpm_cosine", "iddpm_linear"
    /// - `rescale_timesteps` (as published): tell it training steps on a scale of 1000
    /// - `groups` (32): groups of each group norm
    /// - `quantize` (true): whether an autoencoder with codes takes the nearest of them before it decodes
    /// - `scale_factor` (the file's, or as published): latents over what the autoencoder gives
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
        Ok(through(model.graph(Role::Decoder)?, "z", 0, &z)?)
    }
    /// Latents [B, C, h, w], as the denoiser has them, from images `x` [B, 3, H, W] in [−1, 1].
    ///
    /// Of an autoencoder with a distribution the mean; of one with codes what comes before them. Differentiable in `x`. Errors where the
    /// model has no encoder, and on a wrong shape.
    ///
    /// Example: `model::load("autoencoder.safetensors").encode(zeros([2, 3, 16, 16])).shape` is [2, 3, 4, 4]
    #[rhai_fn(return_raw, pure)]
    pub fn encode(model: &mut Model, x: Tensor) -> RhaiResult<Tensor> {
        Ok(through(model.graph(Role::Encoder)?, "x", 0, &x)?)
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
