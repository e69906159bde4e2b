//! Rhai functions for text encoders: module `text`, and the methods of type `TextEncoder`.
use super::error::{RhaiResult, type_of};
use super::host::ScriptHost;
use super::options::{DEVICE, PRECISION};
use crate::schema::{Kind as Of, Schema, count, flag, value, word};
use crate::text::{self, Ask, Says, TextEncoder};
use crate::{Error, Kind, Result, access, zoo};
use candle_core::DType;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, Map, NativeCallContext};
use std::path::{Path, PathBuf};

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<TextEncoder>("TextEncoder");
    engine.register_static_module("text", rhai::exported_module!(text_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

/// One path, or an array of them.
fn paths(given: &Dynamic) -> Result<Vec<String>> {
    let wrong = |v: &Dynamic| {
        let e = Error::new(Kind::Type, format!("text::load takes a path or an array of paths, not {}", type_of(v)));
        e.hint("`text::load([\"clip_l.safetensors\", \"t5xxl_fp16.safetensors\"])`")
    };
    let text = |v: &Dynamic| v.clone().into_string().map_err(|_| wrong(v));
    match given.read_lock::<Array>() {
        Some(all) if all.is_empty() => Err(Error::value("text::load takes at least one path")),
        Some(all) => all.iter().map(text).collect(),
        None => Ok(vec![text(given)?]),
    }
}

/// A path, or a published name: of an encoder, or of the model that it is for.
fn place(ctx: &NativeCallContext, path: &str) -> Result<PathBuf> {
    if access::read(path).is_ok_and(|p| p.exists()) {
        return Ok(path.into());
    }
    match (zoo::folder(path), zoo::find(path)) {
        (Some(folder), _) => zoo::locate_folder(folder.name, &ScriptHost::new(ctx)),
        (None, Some(entry)) => zoo::locate(entry.name, &ScriptHost::new(ctx)),
        (None, None) => Ok(path.into()),
    }
}

const LOAD: Schema = Schema::new(
    "text::load",
    &[
        value(
            "tokenizer",
            Of::Text,
            "the one beside it",
            "a folder with `vocab.json` and `merges.txt`, or with `tokenizer.json`; or a file, also OpenAI's `bpe_simple_vocab_16e6.txt.gz`. \
             T5's: a folder with `tokenizer.json` or `spiece.model`, or one of these",
        ),
        word("gelu", &["quick", "exact"], "\"quick\" for OpenAI's encoders, \"exact\" for OpenCLIP's")
            .or("as `config.json` says, or the layout"),
        PRECISION,
        DEVICE,
    ],
);
const ENCODE: Schema = Schema::method(
    "TextEncoder",
    "encode",
    &[
        count(
            "clip_skip",
            0,
            [0, usize::MAX],
            "layers at the encoder's end that are left out beyond those that the model always leaves out, counted as diffusers does; what \
             others call \"clip skip 2\" is 1",
        ),
        flag("pooled", false, "a row `pooled` [B, P] for each text").or("only where the model takes it"),
        value(
            "t5_tokens",
            Of::Count(1, usize::MAX),
            "256 for Stable Diffusion 3, 512 for FLUX.1, 300 for PixArt-Σ and T5 alone, 120 for PixArt-α",
            "how many tokens T5 reads",
        ),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[LOAD, ENCODE];

fn load_with(ctx: &NativeCallContext, given: &Dynamic, options: Map) -> RhaiResult<TextEncoder> {
    let names = paths(given)?;
    let o = LOAD.read(options)?;
    let (dtype, device) = (o.dtype()?.unwrap_or(DType::F32), o.device()?);
    let tokenizer = o.some_text("tokenizer").map(|t| place(ctx, &t)).transpose()?;
    let quick = o.some_word("gelu").map(|g| g == "quick");
    let says = Says { tokenizer: tokenizer.as_deref(), quick };
    let places = names.iter().map(|path| place(ctx, path)).collect::<Result<Vec<_>>>()?;
    let places: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
    let loaded = text::load_all(&places, says, &device, dtype);
    Ok(loaded.map_err(|e| e.context("text::load"))?)
}

/// One text, or an array of them.
fn texts(of: &str, v: &Dynamic) -> Result<Vec<String>> {
    let wrong = |v: &Dynamic| {
        let e = Error::new(Kind::Type, format!("{of} takes a text or an array of texts, not {}", type_of(v)));
        e.hint("`encoder.encode([\"a cat\", \"a dog\"])`")
    };
    let text = |v: &Dynamic| v.clone().into_string().map_err(|_| wrong(v));
    match v.read_lock::<Array>() {
        Some(all) => all.iter().map(text).collect(),
        None => Ok(vec![text(v)?]),
    }
}

fn encode(encoder: &TextEncoder, given: &Dynamic, options: Map) -> RhaiResult<Map> {
    let o = ENCODE.read(options)?;
    let (skip, pooled, tokens) = (o.count("clip_skip"), o.flag("pooled"), o.some_count("t5_tokens"));
    let all = encoder.encode(&texts("encode", given)?, Ask { skip, pooled, tokens })?;
    Ok(all.into_iter().map(|(name, t)| (name.into(), Dynamic::from(t))).collect())
}

/// Text encoders: from texts to what text-conditional denoisers take as `cond`.
#[export_module]
mod text_api {
    /// The text encoders of a model with their tokenizers, from a file or folder, as with options.
    ///
    /// Example: `text::load("sd15").encode("a red apple on a white table").keys()` is ["context"]
    #[rhai_fn(return_raw)]
    pub fn load(ctx: NativeCallContext, path: Dynamic) -> RhaiResult<TextEncoder> {
        load_with(&ctx, &path, Map::new())
    }
    /// The text encoders of a model with their tokenizers: CLIP's and T5's, as Stable Diffusion 1, 2, XL and 3, FLUX.1 and PixArt read them.
    ///
    /// `path` is a published name, a checkpoint with text encoders in it (a single file of the whole model, or an encoder's own), a folder that diffusers
    /// wrote (`text_encoder`, `tokenizer`, with `_2` and `_3` where there are several), or the `text_encoder` folder in one; or an array of files
    /// and folders of one encoder each: CLIP's and then T5's are FLUX.1's, two of CLIP's and then T5's Stable Diffusion 3's. Which
    /// encoder it is, and which of its layers the denoiser reads, is told by names and shapes. The tokenizer is the one beside it; for
    /// files without one, that of OpenAI's CLIP is compiled in. Errors name the file, what it holds instead, and what to put where.
    ///
    /// Example: `text::load("sd15/text_encoder", #{ tokenizer: "sd15/tokenizer" })`
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_options(ctx: NativeCallContext, path: Dynamic, options: Map) -> RhaiResult<TextEncoder> {
        load_with(&ctx, &path, options)
    }
}

/// What a text encoder can be asked.
#[export_module]
mod methods {
    /// The condition that a text, or an array of texts, is for a denoiser, as with options.
    ///
    /// Example: `let e = text::load("sd15"); save(out("prompt.safetensors"), e.encode("a cat")); load(out("prompt.safetensors")).context.shape[1]` is 77
    #[rhai_fn(name = "encode", return_raw, pure)]
    pub fn encode_texts(encoder: &mut TextEncoder, texts: Dynamic) -> RhaiResult<Map> {
        encode(encoder, &texts, Map::new())
    }
    /// The condition that a text, or an array of B texts, is for a denoiser: a map `#{ context: [B, 77, D] }`; for SDXL, Stable Diffusion 3 and
    /// FLUX.1 with `pooled` [B, P], for PixArt with `mask` [B, T]. With a T5, `context` has its rows: [B, 77 + 256, D] for Stable Diffusion 3,
    /// [B, 512, D] for FLUX.1.
    ///
    /// It goes to `denoise` and `sample` as `cond`, and to `guided` as `negative`; without a negative text, guidance leads away from
    /// `encode("")`. `save` and `load` keep it in a `.safetensors` file, so that no text encoder is in memory while a denoiser runs. Texts of
    /// more than 75 tokens are cut, with a note of what is left out; T5's where they have more than `t5_tokens`.
    ///
    /// Example: `text::load("sd15").encode(["a cat", "a dog"], #{ clip_skip: 1, pooled: true }).pooled.shape[0]` is 2
    #[rhai_fn(name = "encode", return_raw, pure)]
    pub fn encode_options(encoder: &mut TextEncoder, texts: Dynamic, options: Map) -> RhaiResult<Map> {
        encode(encoder, &texts, options)
    }
    /// The token numbers of a text, an array of ints with those at its ends, cut where it is too long, not filled up; of an array of texts, an
    /// array of arrays.
    ///
    /// Example: `text::load("sd15").tokens(["a red apple", "a white table"]).len` is 2
    #[rhai_fn(name = "tokens", return_raw, pure)]
    pub fn tokens(encoder: &mut TextEncoder, texts: Dynamic) -> RhaiResult<Array> {
        let one = |t: &String| -> Result<Array> {
            Ok(encoder.tokens(t)?.into_iter().map(|id| Dynamic::from_int(id.into())).collect())
        };
        let mut all = super::texts("tokens", &texts)?.iter().map(one).collect::<Result<Vec<_>>>()?;
        match (texts.is_array(), all.pop()) {
            (false, Some(only)) => Ok(only),
            (_, last) => Ok(all.into_iter().chain(last).map(Dynamic::from_array).collect()),
        }
    }
    /// What it is.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn text_encoder_to_string(encoder: &mut TextEncoder) -> String {
        encoder.describe()
    }
}
