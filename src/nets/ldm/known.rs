//! What a file of latent diffusion does not say of itself: from the user, from what stands beside it, and by what is published.
use super::names;
use super::shapes::Shapes;
use super::stage::{self, Stage};
use super::unet::{Added, Heads, Unet, context_width, turning};
use crate::denoise::{Predicts, TimeInput};
use crate::nets::weights::File;
use crate::noise::preset_alphas;
use crate::schema::{Opt, Value, count, flag, number, word};
use crate::{Error, Kind, Result};
use serde_json::{Value as Json, json};

/// How many heads each attention has.
pub const HEADS: Opt =
    count("heads", 1, [1, 1024], "heads of each attention, for latent diffusion and its kin, as are all that follow")
        .or("as published");
const WIDTH: Opt =
    count("head_width", 1, [1, 1 << 16], "channels of each head, in the place of `heads`").or("as published");
const ORDER: Opt = word(
    "attention_order",
    &["heads", "parts"],
    "what stands together in the outputs of attention's first map: q, k and v of a head, or (\"parts\") q, k or v of all heads",
)
.or("as published, else \"heads\"");
/// Height and width of what is denoised.
pub const SIZE: Opt =
    count("size", 64, [1, 1 << 14], "height and width of what is denoised").or("as published, else 64");
/// Its height, where it is no square.
pub const HEIGHT: Opt = count("height", 64, [1, 1 << 14], "where it is no square").or("`size`");
/// Its width, where it is no square.
pub const BREADTH: Opt = count("width", 64, [1, 1 << 14], "where it is no square").or("`size`");
const EMA: Opt = flag("ema", true, "read the averaged weights where the file has them");
const PREDICTS: Opt = word(
    "predicts",
    &["noise", "data", "v", "flow", "velocity"],
    "or \"data\", \"v\", \"flow\" (ε − x_0), \"velocity\" (x_0 − ε, as InstaFlow and SiT have it)",
)
.or("\"noise\"");
const SCHEDULE: Opt = word(
    "schedule",
    &["sd", "ldm", "iddpm_cosine", "iddpm_linear", "adm_cosine"],
    "a preset of `noise::vp_discrete`: \"sd\", \"ldm\", \"iddpm_cosine\", \"iddpm_linear\", \"adm_cosine\"",
)
.or("the file's, or as published");
const RESCALE: Opt = flag("rescale_timesteps", true, "tell it training steps on a scale of 1000").or("as published");
const QUANTIZE: Opt =
    flag("quantize", true, "whether an autoencoder with codes takes the nearest of them before it decodes");
const FACTOR: Opt = number("scale_factor", 1.0, [1e-6, 1e6], "latents over what the autoencoder gives")
    .or("the file's, or as published");
const GROUPS: Opt = count("groups", 32, [1, 1024], "groups of each group norm").or("32");

/// The options of this family.
pub const OPTIONS: [Opt; 13] =
    [HEADS, WIDTH, ORDER, SIZE, HEIGHT, BREADTH, EMA, PREDICTS, SCHEDULE, RESCALE, QUANTIZE, FACTOR, GROUPS];

/// A published network, told by its shapes.
struct Known {
    title: &'static str,
    base: usize,
    context: Option<usize>,
    learned_variance: bool,
    scale_shift: bool,
    heads: Heads,
    size: usize,
    schedule: &'static str,
    /// Input blocks of a network that changes the size within residual blocks; none of others.
    turning: Option<usize>,
    /// Whether q, k and v of all heads stand together.
    parts: bool,
    /// Latents over what its autoencoder gives.
    factor: f64,
}

const LDM: Known = Known {
    title: "LDM",
    base: 224,
    context: None,
    learned_variance: false,
    scale_shift: false,
    heads: Heads::Width(32),
    size: 64,
    schedule: "ldm",
    turning: None,
    parts: false,
    factor: SD_FACTOR,
};

/// guided-diffusion's networks of ImageNet and, without classes, LSUN, at 256 pixels.
const ADM: Known = Known {
    title: "ADM",
    base: 256,
    learned_variance: true,
    scale_shift: true,
    heads: Heads::Width(64),
    size: 256,
    schedule: "iddpm_linear",
    turning: Some(18),
    ..LDM
};

const SDXL: Known = Known {
    title: "SDXL",
    base: 320,
    context: Some(2048),
    heads: Heads::Width(64),
    size: 128,
    schedule: "sd",
    factor: 0.13025,
    ..LDM
};

const KNOWN: [Known; 12] = [
    ADM,
    Known { size: 512, turning: Some(21), ..ADM },
    Known { heads: Heads::Count(4), size: 128, turning: Some(15), ..ADM },
    Known { base: 192, size: 64, schedule: "adm_cosine", turning: Some(16), parts: true, ..ADM },
    SDXL,
    // its refiner
    Known { base: 384, context: Some(1280), ..SDXL },
    LDM,
    // ImageNet-256, cin256-v2
    Known { base: 192, context: Some(512), heads: Heads::Count(1), ..LDM },
    Known { title: "Stable Diffusion", base: 320, context: Some(768), heads: Heads::Count(8), schedule: "sd", ..LDM },
    Known { title: "Stable Diffusion", base: 320, context: Some(1024), heads: Heads::Width(64), schedule: "sd", ..LDM },
    // ImageNet-64 and LSUN-256
    Known {
        title: "iDDPM",
        base: 128,
        learned_variance: true,
        scale_shift: true,
        heads: Heads::Count(4),
        schedule: "iddpm_cosine",
        ..LDM
    },
    Known {
        title: "iDDPM",
        base: 128,
        learned_variance: true,
        heads: Heads::Count(1),
        size: 256,
        schedule: "iddpm_linear",
        ..LDM
    },
];

/// The autoencoder's factor where four latent channels have a distribution: that of Stable Diffusion.
const SD_FACTOR: f64 = 0.18215;

/// All that is needed beside shapes.
pub struct Facts {
    /// What it is, in a word.
    pub title: &'static str,
    /// For the denoiser's graph.
    pub unet: Unet,
    /// For the autoencoder's graphs.
    pub stage: Stage,
    /// Whether averaged weights are wanted.
    pub ema: bool,
    /// What the denoiser's output means.
    pub predicts: Predicts,
    /// What it is told about the noise.
    pub time: TimeInput,
    /// Its noise schedule.
    pub noise: Json,
    /// What users should know.
    pub notes: Vec<String>,
}

/// JSON beside the weights: in the metadata of a file, or in a folder.
fn beside(file: &File, key: &str) -> Json {
    file.metadata(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Json::Null)
}

fn whole(json: &Json, key: &str) -> Option<usize> {
    json.get(key).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0)
}

/// Heads as a configuration of CompVis or of diffusers says it.
fn configured(config: &Json, diffusers: &Json) -> Result<Option<Heads>> {
    if let Some(width) = whole(config, "num_head_channels") {
        return Ok(Some(Heads::Width(width)));
    }
    if let Some(n) = whole(config, "num_heads") {
        return Ok(Some(Heads::Count(n)));
    }
    if let Some(n) = whole(diffusers, "num_attention_heads") {
        return Ok(Some(Heads::Count(n)));
    }
    // by a mistake that diffusers keeps, this is the number of heads
    match diffusers.get("attention_head_dim") {
        Some(Json::Array(each)) => {
            let channels = diffusers.get("block_out_channels").and_then(Json::as_array);
            let widths: Option<Vec<u64>> = channels.and_then(|c| {
                c.iter().zip(each).map(|(c, n)| Some(c.as_u64()? / n.as_u64().filter(|n| *n > 0)?)).collect()
            });
            match widths.as_deref() {
                Some([first, rest @ ..]) if rest.iter().all(|w| w == first) => Ok(Some(Heads::Width(*first as usize))),
                _ => {
                    let m = format!("heads of different widths, `attention_head_dim` {each:?}, are not read yet");
                    Err(Error::new(Kind::Format, m))
                }
            }
        }
        _ => Ok(whole(diffusers, "attention_head_dim").map(Heads::Count)),
    }
}

impl Facts {
    /// Of a file with these shapes; asks it for all options of the family.
    pub fn new(file: &mut File, unet: &Shapes, stage: &Shapes) -> Result<Facts> {
        let (config, diffusers) = (beside(file, "config"), beside(file, "unet.config"));
        let scheduler = beside(file, "scheduler.config");
        let mut notes = vec![];
        let known = known(unet);
        let set = |v: Value| if let Value::Count(n) = v { Some(n) } else { None };
        let (heads, width, size) = (set(file.option(&HEADS)?), set(file.option(&WIDTH)?), set(file.option(&SIZE)?));
        let told = width.map(Heads::Width).or(heads.map(Heads::Count));
        let heads = match told.or(configured(&config, &diffusers)?).or(known.map(|k| k.heads)) {
            Some(heads) => heads,
            None if unet.0.keys().any(|n| n.ends_with("qkv.weight") || n.ends_with("attn1.to_q.weight")) => {
                let m = "how many heads the attention of this network has cannot be read off its weights";
                return Err(Error::value(m).hint("give the option `heads`, or `head_width` for channels of each"));
            }
            None => Heads::Count(1),
        };
        let parts = match file.option(&ORDER)? {
            Value::Word(w) => w == "parts",
            _ => known.is_some_and(|k| k.parts),
        };
        let size = size.or(whole(&config, "image_size")).or(whole(&diffusers, "sample_size"));
        let size = size.or(known.map(|k| k.size)).unwrap_or(64);
        let size = [set(file.option(&HEIGHT)?).unwrap_or(size), set(file.option(&BREADTH)?).unwrap_or(size)];
        let predicts = match file.option(&PREDICTS)? {
            Value::Word(w) => w,
            _ => match scheduler.get("prediction_type").and_then(Json::as_str).or(file.metadata(PREDICTS.name)) {
                Some("v_prediction") => "v",
                Some("sample") => "data",
                // of a rectified flow, in the metadata of its file
                Some("velocity") => "velocity",
                _ => "noise",
            },
        };
        let flow = ["flow", "velocity"].contains(&predicts);
        let noise = match flow {
            true => json!({ "name": "flow" }),
            false => schedule(file, &scheduler, known, unet, &mut notes)?,
        };
        if flow {
            // asked for, so that it is not called unknown, and of no use
            file.option(&SCHEDULE)?;
        }
        let steps = steps(&noise)?;
        let rescaled = match file.option(&RESCALE)? {
            Value::Flag(on) => on,
            _ => learned_variance(unet),
        };
        let time = match (flow, rescaled) {
            (true, _) => TimeInput::Scaled(1000.0),
            (_, true) => TimeInput::PerMille { steps },
            _ => TimeInput::Discrete { steps },
        };
        let groups = set(file.option_again(&GROUPS)?).or(whole(&diffusers, "norm_num_groups")).unwrap_or(32);
        let stage = stage_of(file, stage, [known.map_or(SD_FACTOR, |k| k.factor), 0.0])?;
        Ok(Facts {
            title: known.map_or_else(|| likely(unet), |k| k.title),
            unet: Unet {
                size,
                added: added(unet, &diffusers),
                heads,
                parts,
                turning: turning(unet),
                groups,
                classes: classes(file, unet)?,
                negative: predicts == "velocity",
            },
            stage,
            ema: file.option(&EMA)? == Value::Flag(true),
            predicts: match predicts {
                "data" => Predicts::Data,
                "v" => Predicts::V,
                "flow" | "velocity" => Predicts::Flow,
                _ => Predicts::Noise,
            },
            time,
            noise,
            notes,
        })
    }
}

/// What a network is that is none of those published.
fn likely(unet: &Shapes) -> &'static str {
    match (turning(unet), learned_variance(unet)) {
        (Some(_), _) => "ADM",
        (None, true) => "iDDPM",
        (None, false) => "LDM",
    }
}

/// Whether a network gives twice as many channels as it takes: improved-diffusion's, whose second half are variances.
fn learned_variance(unet: &Shapes) -> bool {
    let (out, given) = (unet.dim("out.2.weight", 0), unet.dim("input_blocks.0.0.weight", 1));
    out.zip(given).is_some_and(|(out, given)| out == 2 * given)
}

/// The published network of these shapes.
fn known(unet: &Shapes) -> Option<&'static Known> {
    let base = unet.dim("time_embed.0.weight", 1)?;
    let learned = learned_variance(unet);
    let scale_shift = unet.dim("input_blocks.1.0.emb_layers.1.weight", 0)?
        == 2 * unet.dim("input_blocks.1.0.out_layers.0.weight", 0)?;
    let context = context_width(unet);
    let turning = turning(unet).map(|_| unet.count("input_blocks"));
    let own = (base, context, learned, scale_shift, turning);
    let fits = |k: &&Known| (k.base, k.context, k.learned_variance, k.scale_shift, k.turning) == own;
    KNOWN.iter().find(fits)
}

/// The embedding of classes in a file whose network looks at one token of that width.
fn classes(file: &File, unet: &Shapes) -> Result<Option<([usize; 2], bool)>> {
    let Some(width) = context_width(unet) else { return Ok(None) };
    let found = file.shapes(names::CLASSES);
    match found.get("").map(Vec::as_slice) {
        None => Ok(None),
        // ImageNet's thousand classes and none beside them
        Some(&[n, w]) if w == width && n > 1 => Ok(Some(([n, w], n != 1000))),
        Some(dims) => {
            let m = format!("`{}` has shape {dims:?}, expected [classes, {width}]", names::CLASSES);
            Err(Error::new(Kind::Format, m))
        }
    }
}

/// What a network is told beside its context: rows of SDXL's second text encoder, and sizes.
fn added(unet: &Shapes, diffusers: &Json) -> Option<Added> {
    /// Width of the rows of the published networks.
    const POOLED: usize = 1280;
    let told = diffusers.get("addition_embed_type").and_then(Json::as_str) == Some("text_time");
    let known = context_width(unet).is_some_and(|c| [2048, 1280].contains(&c));
    let all = unet.dim("label_emb.0.0.weight", 1).filter(|_| told || known)?;
    let width = whole(diffusers, "addition_time_embed_dim").unwrap_or(256);
    let pooled = match all.checked_sub(POOLED) {
        Some(rest) if rest > 0 && rest % width == 0 => POOLED,
        _ => all.checked_sub(6 * width)?,
    };
    Some(Added { pooled, sizes: (all - pooled) / width, width })
}

/// What is to be known of an autoencoder whose published factor and shift are these.
pub fn stage_of(file: &mut File, stage: &Shapes, [published, shift]: [f64; 2]) -> Result<Stage> {
    let config = beside(file, "vae.config");
    let groups = match file.option_again(&GROUPS)? {
        Value::Count(n) => Some(n),
        _ => None,
    };
    let own = config.get("shift_factor").and_then(Json::as_f64);
    Ok(Stage {
        groups: groups.or(whole(&config, "norm_num_groups")).unwrap_or(32),
        scale: factor(file, &config, stage, published)?,
        shift: own.unwrap_or(if config.is_null() { shift } else { 0.0 }),
        quantize: file.option(&QUANTIZE)? == Value::Flag(true),
    })
}

/// Latents over what the autoencoder gives.
fn factor(file: &mut File, config: &Json, stage: &Shapes, published: f64) -> Result<f64> {
    let own = file.take_values(names::SCALE)?.and_then(|v| v.first().copied());
    let written = file.metadata(names::SCALE).and_then(|t| t.parse().ok());
    if let Value::Number(x) = file.option(&FACTOR)? {
        return Ok(x);
    }
    let published = if stage::has_codes(stage) { 1.0 } else { published };
    let found = own.or(written).or(config.get("scaling_factor").and_then(Json::as_f64)).unwrap_or(published);
    match found.is_finite() && found > 0.0 {
        true => Ok(found),
        false => Err(Error::new(Kind::Format, format!("the scale factor {found} is not above 0"))),
    }
}

/// How many training steps a noise schedule has; 1000 where it has none.
fn steps(noise: &Json) -> Result<usize> {
    let t_min = crate::noise::from_spec(noise)?.t_min();
    Ok(if t_min > 0.0 { (1.0 / t_min).round() as usize } else { 1000 })
}

/// The noise schedule: the user's, a folder's, a file's own table, what is published, or the likeliest.
fn schedule(
    file: &mut File,
    scheduler: &Json,
    known: Option<&Known>,
    unet: &Shapes,
    notes: &mut Vec<String>,
) -> Result<Json> {
    let named = |name: &str| json!({ "name": "vp_discrete", "preset": name });
    let table = file.take_values(names::ALPHAS)?;
    if let Value::Word(name) = file.option(&SCHEDULE)? {
        return Ok(named(name));
    }
    if let Some(n) = whole(scheduler, "num_train_timesteps") {
        return betas(scheduler, n);
    }
    if let Some(table) = table {
        // a buffer in f32: the exact one, where it is one of those
        let same = |name: &&str| {
            preset_alphas(name).is_some_and(|p| {
                p.len() == table.len() && p.iter().zip(&table).all(|(p, t)| (p - t).abs() <= 1e-6 * p.abs() + 1e-9)
            })
        };
        return Ok(match crate::noise::PRESETS.iter().map(|p| p.0).find(|p| same(p)) {
            Some(name) => named(name),
            None => json!({ "name": "vp_discrete", "alphas_cumprod": table }),
        });
    }
    if let Some(k) = known {
        return Ok(named(k.schedule));
    }
    if learned_variance(unet) {
        let m = "which noise schedule this network was trained in cannot be read off its weights";
        return Err(
            Error::value(m).hint("give the option `schedule`: \"iddpm_cosine\", \"adm_cosine\" or \"iddpm_linear\"")
        );
    }
    let likely = if context_width(unet).is_some() && !file.has(names::CLASSES) { "sd" } else { "ldm" };
    if !unet.0.is_empty() {
        notes.push(format!("its noise schedule is taken to be \"{likely}\"; the option `schedule` says otherwise"));
    }
    Ok(named(likely))
}

/// A diffusers scheduler's β.
fn betas(config: &Json, n: usize) -> Result<Json> {
    let number = |key: &str, default: f64| config.get(key).and_then(Json::as_f64).unwrap_or(default);
    let (first, last) = (number("beta_start", 1e-4), number("beta_end", 0.02));
    let between =
        |f: &dyn Fn(f64) -> f64| -> Vec<f64> { (0..n).map(|i| f(i as f64 / (n.max(2) - 1) as f64)).collect() };
    let kind = config.get("beta_schedule").and_then(Json::as_str).unwrap_or("linear");
    let betas = match kind {
        "scaled_linear" if (n, first, last) == (1000, 0.00085, 0.012) => {
            return Ok(json!({ "name": "vp_discrete", "preset": "sd" }));
        }
        "scaled_linear" => between(&|p| (first.sqrt() + (last.sqrt() - first.sqrt()) * p).powi(2)),
        "linear" => between(&|p| first + (last - first) * p),
        other => {
            return Err(Error::new(Kind::Format, format!("the `beta_schedule` \"{other}\" is not read"))
                .hint("give the option `schedule`"));
        }
    };
    Ok(json!({ "name": "vp_discrete", "betas": betas }))
}
