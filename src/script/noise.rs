//! Rhai functions for noise schedules: module `noise`, and the methods of type `Noise`.
mod from_fn;

use super::error::RhaiResult;
use super::files::convert::{from_json, to_json};
use super::options::number_of;
use crate::noise::{Noise, NoiseSchedule, Spec, check_time};
use crate::real::{Real, host_values, through_tensors};
use crate::schema::{Kind as Of, Opt, Schema, above, number, value};
use crate::{Error, Kind};
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, FLOAT, ImmutableString, Map};

/// Adds this area's types and functions to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Noise>("Noise");
    let mut noise = rhai::exported_module!(noise_api);
    noise.combine(rhai::exported_module!(from_fn::api));
    engine.register_static_module("noise", noise.into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

/// A list of numbers as a 1-D tensor: a tensor as it is, or an array of integers and floats.
pub(super) fn numbers(what: &str, v: Dynamic) -> crate::Result<Tensor> {
    let v = match v.try_cast_result::<Tensor>() {
        Ok(t) => return Ok(t),
        Err(v) => v,
    };
    let wrong =
        |came: &str| Error::new(Kind::Type, format!("{what} must be a tensor or an array of numbers, not {came}"));
    let array = v.into_array().map_err(wrong)?;
    let values = array.iter().enumerate().map(|(i, v)| match (v.as_float(), v.as_int()) {
        (Ok(x), _) => Ok(x),
        (_, Ok(i)) => Ok(i as f64),
        _ => Err(wrong(&format!("an array with {} at [{i}]", v.type_name()))),
    });
    Ok(Tensor::new(values.collect::<crate::Result<Vec<f64>>>()?, &Device::Cpu)?)
}

const POSITIVE: [f64; 2] = [0.0, f64::MAX];
const UNIT: [f64; 2] = [0.0, 1.0];
const EDM: Schema = Schema::new(
    "noise::edm",
    &[
        number("sigma_min", 0.002, POSITIVE, "the ends of time"),
        number("sigma_max", 80.0, POSITIVE, "the ends of time"),
    ],
);
const VP_LINEAR: Schema = Schema::new(
    "noise::vp_linear",
    &[
        number("beta_min", 0.1, POSITIVE, "β at t = 0 and t = 1"),
        number("beta_max", 20.0, POSITIVE, "β at t = 0 and t = 1"),
        above("t_min", 1e-3, UNIT, "the ends of time"),
        above("t_max", 1.0, UNIT, "the ends of time"),
    ],
);
const VP_COSINE: Schema = Schema::new(
    "noise::vp_cosine",
    &[
        number("s", 0.008, POSITIVE, "the offset at t = 0"),
        above("t_min", 1e-3, UNIT, "the ends of time"),
        above("t_max", 0.9946, UNIT, "the ends of time"),
    ],
);
const VP_DISCRETE: Schema = Schema::new(
    "noise::vp_discrete",
    &[
        value("betas", Of::NUMBERS, "none", "β_1…β_N in (0, 1), an array or a tensor"),
        value("alphas_cumprod", Of::NUMBERS, "none", "α_1²…α_N², descending in (0, 1), an array or a tensor"),
        value(
            "preset",
            Of::Text,
            "none",
            "\"sd\", \"ldm\", \"iddpm_cosine\", \"iddpm_linear\", \"adm_cosine\", or \"dmpg\" (100 steps, of point clouds)",
        ),
    ],
);
const FLOW: Schema = Schema::new(
    "noise::flow",
    &[
        above("shift", 1.0, [0.0, f64::MAX], "s"),
        value("mu", Of::NUMBER, "0.0", "ln s, in place of `shift`"),
        number("t_min", 0.0, UNIT, "the ends of time"),
        number("t_max", 1.0, UNIT, "the ends of time"),
    ],
);
const fn column(name: &'static str, doc: &'static str) -> Opt {
    value(name, Of::NUMBERS, "", doc).needed("[0.0, 1.0]")
}
const TABLE: Schema = Schema::new(
    "noise::table",
    &[
        column("t", "the times, ascending, 2 to 8192, an array or a tensor"),
        column("log_alpha", "ln α at each"),
        column("log_sigma", "ln σ at each"),
        column("dlog_alpha", "d ln α/dt at each"),
        column("dlog_sigma", "d ln σ/dt at each"),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[EDM, VP_LINEAR, VP_COSINE, VP_DISCRETE, FLOW, TABLE, from_fn::FROM_FN];

/// Reads a schedule's options over its defaults and makes it.
fn build(name: &str, map: Map) -> RhaiResult<Noise> {
    let of = format!("noise::{name}");
    let o = Schema::among(SCHEMAS, &of)?.read(map)?;
    let vector = |key: &str| -> crate::Result<Option<Vec<f64>>> {
        let given = o.get(key).map(|v| numbers(&format!("{of}: option `{key}`"), v)).transpose()?;
        given.map(|t| host_values(&t)).transpose()
    };
    let spec = match name {
        "edm" => Spec::Edm { sigma_min: o.number("sigma_min"), sigma_max: o.number("sigma_max") },
        "vp_linear" => Spec::VpLinear {
            beta_min: o.number("beta_min"),
            beta_max: o.number("beta_max"),
            t_min: o.number("t_min"),
            t_max: o.number("t_max"),
        },
        "vp_cosine" => Spec::VpCosine { s: o.number("s"), t_min: o.number("t_min"), t_max: o.number("t_max") },
        "vp_discrete" => {
            let preset = o.some_text("preset");
            Spec::VpDiscrete { preset, betas: vector("betas")?, alphas_cumprod: vector("alphas_cumprod")? }
        }
        "table" => {
            let column = |key: &str| vector(key).map(Option::unwrap_or_default);
            Spec::Table {
                t: column("t")?,
                log_alpha: column("log_alpha")?,
                log_sigma: column("log_sigma")?,
                dlog_alpha: column("dlog_alpha")?,
                dlog_sigma: column("dlog_sigma")?,
            }
        }
        _ => {
            if o.has("shift") && o.has("mu") {
                return Err(Error::value("noise::flow: `mu` is ln(shift): give one of the two").into());
            }
            let shift = o.some_number("mu").map_or_else(|| o.number("shift"), f64::exp);
            Spec::Flow { shift, t_min: o.number("t_min"), t_max: o.number("t_max") }
        }
    };
    Ok(spec.build()?)
}

/// Applies `f` to a number or, element by element, to a tensor (tracked where it is).
fn apply(
    what: &str,
    x: Dynamic,
    check: impl Fn(f64) -> crate::Result<()>,
    f: impl Fn(&Real) -> Real,
) -> RhaiResult<Dynamic> {
    if let Some(v) = number_of(&x) {
        check(v).map_err(|e| e.context(what))?;
        return Ok(Dynamic::from_float(f(&v.into()).v()));
    }
    let came = x.type_name();
    let Some(t) = x.try_cast::<Tensor>() else {
        return Err(Error::new(Kind::Type, format!("{what}: expected a number or a tensor, not {came}")).into());
    };
    for v in host_values(&t)? {
        check(v).map_err(|e| e.context(what))?;
    }
    let shape = t.shape().clone();
    let out = through_tensors(std::slice::from_ref(&t), |v| Ok(vec![(v.iter().flatten().map(f).collect(), shape)]))?;
    let dtype = if t.dtype().is_float() { t.dtype() } else { candle_core::DType::F64 };
    let out = out[0].to_dtype(dtype).and_then(|o| o.to_device(t.device())).map_err(Error::from)?;
    Ok(Dynamic::from(out))
}

/// The call that makes the schedule, long lists by their length: `noise::edm(#{ sigma_min: 0.002, sigma_max: 80.0 })`.
pub(crate) fn describe(noise: &dyn NoiseSchedule) -> String {
    let spec = noise.spec();
    let options = spec.as_object().into_iter().flatten().filter(|(k, _)| *k != "name").map(|(k, v)| match v {
        serde_json::Value::Array(a) => format!("{k}: [{} values]", a.len()),
        v => format!("{k}: {v}"),
    });
    format!("noise::{}(#{{ {} }})", noise.name(), options.collect::<Vec<_>>().join(", "))
}

/// Noise schedules: α(t) and σ(t) of x_t = α x_0 + σ ε.
#[export_module]
mod noise_api {
    /// The schedule that `to_map` described.
    ///
    /// Example: `noise::from_map(noise::flow(#{ shift: 3.0 }).to_map()).describe() == noise::flow(#{ shift: 3.0 }).describe()` is true
    #[rhai_fn(return_raw)]
    pub fn from_map(map: Map) -> RhaiResult<Noise> {
        Ok(crate::noise::from_spec(&to_json(&map.into(), false)?)?)
    }
    /// The variance-exploding schedule of EDM with σ from 0.002 to 80: α = 1, σ = t.
    #[rhai_fn(return_raw)]
    pub fn edm() -> RhaiResult<Noise> {
        build("edm", Map::new())
    }
    /// The variance-exploding schedule of EDM: α = 1, σ = t.
    ///
    /// Karras et al., 2022.
    ///
    /// Errors unless 0 ≤ sigma_min < sigma_max.
    ///
    /// Example: `noise::edm(#{ sigma_max: 160.0 })`
    #[rhai_fn(name = "edm", return_raw)]
    pub fn edm_with(options: Map) -> RhaiResult<Noise> {
        build("edm", options)
    }
    /// The variance-preserving schedule with β from 0.1 to 20, linear in time.
    #[rhai_fn(return_raw)]
    pub fn vp_linear() -> RhaiResult<Noise> {
        build("vp_linear", Map::new())
    }
    /// The variance-preserving schedule with β linear in time (Song et al., 2021).
    ///
    /// Errors unless 0 ≤ beta_min ≤ beta_max and 0 < t_min < t_max ≤ 1.
    ///
    /// Example: `noise::vp_linear(#{ t_min: 1e-4 })`
    #[rhai_fn(name = "vp_linear", return_raw)]
    pub fn vp_linear_with(options: Map) -> RhaiResult<Noise> {
        build("vp_linear", options)
    }
    /// The variance-preserving cosine schedule with t from 1e-3 to 0.9946.
    #[rhai_fn(return_raw)]
    pub fn vp_cosine() -> RhaiResult<Noise> {
        build("vp_cosine", Map::new())
    }
    /// The variance-preserving cosine schedule (Nichol & Dhariwal, 2021, continuous as in DPM-Solver).
    ///
    /// Errors unless 0 < t_min < t_max < 1.
    ///
    /// Example: `noise::vp_cosine(#{ s: 0.008 })`
    #[rhai_fn(name = "vp_cosine", return_raw)]
    pub fn vp_cosine_with(options: Map) -> RhaiResult<Noise> {
        build("vp_cosine", options)
    }
    /// The schedule of a published network that was trained at discrete steps, by name: `"sd"`, `"ldm"`, `"iddpm_cosine"`, `"iddpm_linear"` or `"adm_cosine"`.
    ///
    /// `"sd"` is Stable Diffusion (√β linear from √0.00085 to √0.012, 1000 steps), `"ldm"` latent diffusion (√0.0015 to √0.0195, 1000
    /// steps), `"iddpm_cosine"` improved-diffusion's ImageNet-64 (α a cosine, β at most 0.999, 4000 steps), `"iddpm_linear"` its LSUN (β
    /// linear from 0.0001 to 0.02, 1000 steps), `"adm_cosine"` guided-diffusion's ImageNet-64 (the cosine in 1000 steps). Time runs from 1/N
    /// to 1.
    ///
    /// Example: `noise::vp_discrete("sd")`
    #[rhai_fn(return_raw)]
    pub fn vp_discrete(preset: ImmutableString) -> RhaiResult<Noise> {
        build("vp_discrete", Map::from([("preset".into(), preset.into())]))
    }
    /// The variance-preserving schedule of a network trained at N discrete steps: ln α is linear between t = 1/N, 2/N, …, 1.
    ///
    /// Exactly one of its options must be given.
    ///
    /// Example: `noise::vp_discrete(#{ alphas_cumprod: [0.99, 0.7, 0.2, 0.01] })`
    #[rhai_fn(name = "vp_discrete", return_raw)]
    pub fn vp_discrete_with(options: Map) -> RhaiResult<Noise> {
        build("vp_discrete", options)
    }
    /// Rectified flow from t = 1 (noise) to t = 0 (data): α = 1 − t, σ = t.
    #[rhai_fn(return_raw)]
    pub fn flow() -> RhaiResult<Noise> {
        build("flow", Map::new())
    }
    /// Rectified flow, α = 1 − σ, with an optional resolution shift: σ = s t / (1 + (s − 1) t).
    ///
    /// λ is infinite at t = 0 and t = 1. A network trained for flow matching takes σ(t) as its time, which is t without a
    /// shift.
    ///
    /// Errors unless s > 0 and 0 ≤ t_min < t_max ≤ 1.
    ///
    /// Example: `noise::flow(#{ shift: 3.0 })`
    #[rhai_fn(name = "flow", return_raw)]
    pub fn flow_with(options: Map) -> RhaiResult<Noise> {
        build("flow", options)
    }
}

/// What a noise schedule can be asked.
#[export_module]
mod methods {
    /// The schedule as data, a map for `noise::from_map` and `json::save`.
    ///
    /// Example: `noise::edm().to_map().name` is "edm"
    #[rhai_fn(pure)]
    pub fn to_map(noise: &mut Noise) -> Dynamic {
        from_json(&noise.spec())
    }
    /// The name of the function in module `noise` that makes this schedule.
    #[rhai_fn(get = "name", pure)]
    pub fn noise_name(noise: &mut Noise) -> ImmutableString {
        noise.name().into()
    }
    /// The noise schedule in a few words: the call that makes it.
    ///
    /// Example: `noise::flow().describe()`
    #[rhai_fn(name = "describe", pure)]
    pub fn noise_describe(noise: &mut Noise) -> String {
        describe(&**noise)
    }
    /// The time with the least noise, where sampling ends.
    #[rhai_fn(get = "t_min", pure)]
    pub fn t_min(noise: &mut Noise) -> FLOAT {
        noise.t_min()
    }
    /// The time with the most noise, T, where sampling starts.
    #[rhai_fn(get = "t_max", pure)]
    pub fn t_max(noise: &mut Noise) -> FLOAT {
        noise.t_max()
    }
    /// α(t) in x_t = α x_0 + σ ε, for a number or a tensor of times.
    ///
    /// A tensor gives a tensor of its shape, through which gradients flow. Errors where t is not in [t_min, t_max].
    ///
    /// Example: `noise::flow().alpha(0.25)` is 0.75
    #[rhai_fn(return_raw, pure)]
    pub fn alpha(noise: &mut Noise, t: Dynamic) -> RhaiResult<Dynamic> {
        apply("alpha", t, |t| check_time(noise.as_ref(), t), |t| noise.alpha(t))
    }
    /// σ(t) in x_t = α x_0 + σ ε, for a number or a tensor of times. For the VE noise level σ/α see `ve_sigma`.
    ///
    /// A tensor gives a tensor of its shape, through which gradients flow. Errors where t is not in [t_min, t_max].
    ///
    /// Example: `noise::flow().sigma(0.25)` is 0.25
    #[rhai_fn(return_raw, pure)]
    pub fn sigma(noise: &mut Noise, t: Dynamic) -> RhaiResult<Dynamic> {
        apply("sigma", t, |t| check_time(noise.as_ref(), t), |t| noise.sigma(t))
    }
    /// The VE noise level σ(t)/α(t), for a number or a tensor of times.
    ///
    /// A tensor gives a tensor of its shape, through which gradients flow. Errors where t is not in [t_min, t_max].
    ///
    /// Example: `noise::vp_discrete("sd").ve_sigma(1.0)` is about 14.6
    #[rhai_fn(return_raw, pure)]
    pub fn ve_sigma(noise: &mut Noise, t: Dynamic) -> RhaiResult<Dynamic> {
        apply("ve_sigma", t, |t| check_time(noise.as_ref(), t), |t| noise.ve_sigma(t))
    }
    /// λ(t) = ln α − ln σ, half the log signal-to-noise ratio, for a number or a tensor of times.
    ///
    /// A tensor gives a tensor of its shape, through which gradients flow. Errors where t is not in [t_min, t_max].
    ///
    /// Example: `noise::edm().lambda(1.0)` is 0
    #[rhai_fn(return_raw, pure)]
    pub fn lambda(noise: &mut Noise, t: Dynamic) -> RhaiResult<Dynamic> {
        apply("lambda", t, |t| check_time(noise.as_ref(), t), |t| noise.lambda(t))
    }
    /// The time at which λ has the given value, for a number or a tensor.
    ///
    /// A tensor gives a tensor of its shape, through which gradients flow. Errors where λ is NaN; a λ beyond those
    /// of t_min and t_max gives a time outside of them.
    ///
    /// Example: `noise::edm().inverse_lambda(0.0)` is 1
    #[rhai_fn(return_raw, pure)]
    pub fn inverse_lambda(noise: &mut Noise, lambda: Dynamic) -> RhaiResult<Dynamic> {
        let check = |l: f64| match l.is_nan() {
            true => Err(Error::value("λ is NaN")),
            false => Ok(()),
        };
        apply("inverse_lambda", lambda, check, |l| noise.inverse_lambda(l))
    }
    /// The time at which the VE noise level σ/α has the given value, for a number or a tensor.
    ///
    /// A tensor gives a tensor of its shape, through which gradients flow. Errors where the value is negative or NaN.
    ///
    /// Example: `noise::vp_discrete("sd").t_of_sigma(1.0)`
    #[rhai_fn(return_raw, pure)]
    pub fn t_of_sigma(noise: &mut Noise, sigma: Dynamic) -> RhaiResult<Dynamic> {
        let check = |s: f64| match s >= 0.0 {
            true => Ok(()),
            false => Err(Error::value(format!("a noise level σ/α must be at least 0, not {s}"))),
        };
        apply("t_of_sigma", sigma, check, |s| noise.t_of_sigma(s))
    }
    /// One line that makes this schedule again.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn noise_to_string(noise: &mut Noise) -> String {
        describe(noise.as_ref())
    }
}
