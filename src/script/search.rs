//! Rhai functions for schedules without gradients of a network: what stands in module `schedule` beside the heuristics, the methods
//! `resample` and `pick`, and module `search` with the inner loops of GITS, OSS and AYS.
use super::discretize::{ENDS, count, interval, space};
use super::error::RhaiResult;
use super::host::{ScriptHost, callback, number};
use super::noise::numbers;
use super::options::Given;
use crate::discretize::{
    DataError, DmnOptions, Level, Metric, POINTS, PUBLISHED, Resampling, Schedule, Start, carry as carry_on,
    cheapest_path, dmn as dmn_of, dmn_bound, from_density as density_of, jump_costs, klub_of, klub_optimum,
    klub_quantiles, published as table,
};
use crate::host::{Host, Value};
use crate::noise::Noise;
use crate::real::host_values;
use crate::schema::{Kind as Of, Opt, Schema, above, count as counted, number as numeric, value, word};
use crate::{Error, Kind};
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FnPtr, INT, Map, NativeCallContext};

/// Adds this area's functions to `engine`; those of module `schedule` are joined to it by its own area.
pub fn register(engine: &mut Engine) {
    engine.register_static_module("search", rhai::exported_module!(search_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

/// The options of DMN's bound.
const BOUND: &[Opt] = &[
    word("error", &["pixel", "latent"], "the error of an evaluation at λ is taken to be σ/α; \"latent\": σ²/α"),
    counted(
        "apart",
        3,
        [0, usize::MAX],
        "steps from the start whose weights are not joined with those of others; published are 3 for n ≤ 7 and 0 beyond, where the least \
         bound makes errors cancel between steps and samples far worse",
    ),
];
const DMN: Schema = Schema::new(
    "schedule::dmn",
    &[word("start", &["logsnr", "time"], "steps from which the search starts")
        .or("\"logsnr\" for pixels, \"time\" for latents")],
)
.with(&[BOUND, ENDS]);
const DMN_BOUND: Schema = Schema::new("dmn_bound", BOUND);
const KLUB: Schema =
    Schema::new("schedule::klub", &[above("std", 0.5, [0.0, f64::MAX], "the standard deviation of the data")])
        .with(&[ENDS]);
const DENSITY: Schema = Schema::new(
    "schedule::from_density",
    &[
        value("lambda", Of::NUMBERS, "even from end to end", "the points, ascending, that cover the interval"),
        counted("points", POINTS, [2, usize::MAX], "how many points, where the density is a function"),
    ],
)
.with(&[ENDS]);
const RESAMPLE: Schema = Schema::new(
    "resample",
    &[
        word(
            "by",
            &["log-linear", "tau"],
            "linear between neighbouring steps, as tools do with AYS's tables; \"tau\": the logarithms of the gaps (ξ) are interpolated, \
             which keeps a smooth schedule smooth",
        ),
        word("space", &["lambda", "time"], ""),
    ],
);
const PATH: Schema = Schema::new(
    "search::path",
    &[
        numeric(
            "coeff",
            1.0,
            [0.0, f64::MAX],
            "V(j, k) = min_i cost[j][i] + coeff · V(i, k − 1); above 1 later steps cost more (GITS)",
        ),
        value("points", Of::Count(2, usize::MAX), "none", "how many points, where the cost is a function"),
    ],
);
/// A level of OSS's search, as `search::carry` returns it.
const LEVEL: Schema = Schema::new(
    "search::carry: the level before",
    &[
        value("states", Of::TENSOR, "", "").needed("before.states"),
        value("cost", Of::TENSOR, "", "").needed("before.cost"),
        value("parent", Of::TENSOR, "", "").needed("before.parent"),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[DMN, DMN_BOUND, KLUB, DENSITY, RESAMPLE, PATH];

/// The options of DMN but for its ends.
fn dmn_options(o: &Given) -> DmnOptions {
    let error = if o.is("error", "latent") { DataError::Latent } else { DataError::Pixel };
    DmnOptions { error, apart: o.some_count("apart"), ..DmnOptions::default() }
}

fn dmn_schedule(noise: &Noise, n: INT, map: Map) -> RhaiResult<Schedule> {
    let o = DMN.read(map)?;
    let start = o.some_word("start").map(|s| if s == "logsnr" { Start::LogSnr } else { Start::Time });
    let options = DmnOptions { start, interval: interval(&o), ..dmn_options(&o) };
    Ok(dmn_of(noise, count("schedule::dmn: the number of steps", n)?, &options)?.0)
}

fn klub_schedule(noise: &Noise, n: INT, map: Map) -> RhaiResult<Schedule> {
    let o = KLUB.read(map)?;
    let n = count("schedule::klub: the number of steps", n)?;
    Ok(klub_optimum(noise, n, o.number("std"), interval(&o))?)
}

fn density(context: &NativeCallContext, noise: &Noise, n: INT, d: Dynamic, map: Map) -> RhaiResult<Schedule> {
    const OF: &str = DENSITY.of;
    let o = DENSITY.read(map)?;
    let lambda = o.get("lambda").map(|v| numbers("from_density: option `lambda`", v)).transpose()?;
    let (points, ends) = (o.count("points"), interval(&o));
    let n = count("schedule::from_density: the number of steps", n)?;
    let (from, to) = ends.resolve(noise.as_ref())?;
    let level = |t: f64| noise.lambda(&t.into()).v();
    let (a, b) = (level(from), level(to));
    let even = |points: usize| -> crate::Result<Vec<f64>> {
        if points < 2 || !(a.is_finite() && b.is_finite()) {
            let m = format!("{OF}: {points} points from λ = {a} to {b}");
            return Err(Error::value(m).hint("at least 2 points, and ends at which λ is finite, with `from` and `to`"));
        }
        Ok((0..points).map(|i| a + (b - a) * (i as f64 / (points - 1) as f64)).collect())
    };
    let d = match d.try_cast_result::<FnPtr>() {
        Err(values) => {
            let values = host_values(&numbers("schedule::from_density: the density", values)?)?;
            let lambda = match &lambda {
                Some(l) => host_values(l)?,
                None => even(values.len())?,
            };
            return Ok(density_of(noise, n, &lambda, &values, ends)?);
        }
        Ok(f) => f,
    };
    let lambda = match &lambda {
        Some(l) => host_values(l)?,
        None => even(points)?,
    };
    let (host, f) = (ScriptHost::new(context), callback(d));
    let wrong = || Error::new(Kind::Type, format!("{OF}: the function must return a number for each λ"));
    let ask = |l: &f64| number(host.call(&f, vec![Value::Float(*l)])?)?.ok_or_else(wrong);
    let values = lambda.iter().map(ask).collect::<crate::Result<Vec<f64>>>()?;
    Ok(density_of(noise, n, &lambda, &values, ends)?)
}

/// Schedules that are searched for without a network, and published tables.
#[export_module]
pub(super) mod in_schedule {
    /// The steps of DMN (Xue et al., 2024), with its settings for networks on pixels.
    ///
    /// Example: `schedule::dmn(noise::edm(), 6)`
    #[rhai_fn(return_raw)]
    pub fn dmn(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        dmn_schedule(&noise, n, Map::new())
    }
    /// The steps of DMN: those for which errors of the network weigh least in the result of a multistep method of order 3 (Xue et al.,
    /// 2024, "Accelerating diffusion sampling with optimized time steps"). Takes milliseconds; no network is asked.
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Example: `schedule::dmn(noise::vp_discrete(#{ preset: "sd" }), 6, #{ error: "latent" }).nfe` is 6
    #[rhai_fn(name = "dmn", return_raw)]
    pub fn dmn_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        dmn_schedule(&noise, n, options)
    }
    /// The steps with the least KLUB (AYS) for Gaussian data of standard deviation 0.5.
    ///
    /// Example: `schedule::klub(noise::edm(), 10)`
    #[rhai_fn(return_raw)]
    pub fn klub(noise: Noise, n: INT) -> RhaiResult<Schedule> {
        klub_schedule(&noise, n, Map::new())
    }
    /// The steps with the least KLUB, the bound of AYS (Sabour et al., 2024), for Gaussian data, where it is known in closed form. For
    /// a network see module `ays`. σ/α must be finite and above 0 at the ends.
    ///
    /// Arguments: the noise schedule, the number of steps n ≥ 1.
    ///
    /// Example: `schedule::klub(noise::edm(), 5, #{ std: 0.5 }).sigmas[1].item()` is 0.1756484
    #[rhai_fn(name = "klub", return_raw)]
    pub fn klub_with(noise: Noise, n: INT, options: Map) -> RhaiResult<Schedule> {
        klub_schedule(&noise, n, options)
    }
    /// The steps at even quantiles of a density over λ.
    ///
    /// Example: `schedule::from_density(noise::edm(), 8, |l| exp(-l * l / 8.0))`
    #[rhai_fn(return_raw)]
    pub fn from_density(context: NativeCallContext, noise: Noise, n: INT, d: Dynamic) -> RhaiResult<Schedule> {
        density(&context, &noise, n, d, Map::new())
    }
    /// The steps at even quantiles of a density over λ: the form of TORS, SharpEuler, SDM and CRS, each with a density of its own.
    ///
    /// Arguments: the noise schedule; the number of steps n ≥ 1; the density, up to a factor: a function of λ, or its values (an array or a
    /// tensor) at points between which it is linear. λ must be finite at the ends.
    ///
    /// Example: `schedule::from_density(noise::edm(), 5, [1.0, 1.0]).nfe` is 5
    #[rhai_fn(name = "from_density", return_raw)]
    pub fn from_density_with(
        context: NativeCallContext,
        noise: Noise,
        n: INT,
        d: Dynamic,
        options: Map,
    ) -> RhaiResult<Schedule> {
        density(&context, &noise, n, d, options)
    }
    /// A schedule that was published as a table, in the time of its own noise schedule.
    ///
    /// Names: "ays_sd15", "ays_sdxl", "ays_svd", "gits_sd_4" to "gits_sd_7", "oss_flux". Those of Stable Diffusion end at its last training
    /// step (σ = 0.0292).
    ///
    /// Example: `schedule::published("ays_sd15").nfe` is 10
    #[rhai_fn(return_raw)]
    pub fn published(name: &str) -> RhaiResult<Schedule> {
        Ok(table(name, None)?)
    }
    /// A published schedule with another number of steps, by log-linear interpolation, as AYS says.
    ///
    /// Example: `schedule::published("ays_svd", 20).nfe` is 20
    #[rhai_fn(name = "published", return_raw)]
    pub fn published_steps(name: &str, n: INT) -> RhaiResult<Schedule> {
        Ok(table(name, Some(count("schedule::published: the number of steps", n)?))?)
    }
    /// The names of the published schedules.
    ///
    /// Example: `schedule::tables().len()` is 8
    pub fn tables() -> Array {
        PUBLISHED.iter().map(|t| Dynamic::from(t.name)).collect()
    }
}

fn resampled(schedule: &Schedule, n: INT, map: Map) -> RhaiResult<Schedule> {
    let o = RESAMPLE.read(map)?;
    let how = if o.is("by", "tau") { Resampling::Tau } else { Resampling::LogLinear };
    Ok(schedule.resample(count("resample: the number of steps", n)?, how, space(&o)?)?)
}

#[export_module]
mod methods {
    /// The schedule with n steps between the same ends, by log-linear interpolation.
    ///
    /// Example: `schedule::edm(noise::edm(), 10).resample(5).nfe` is 5
    #[rhai_fn(return_raw, pure)]
    pub fn resample(schedule: &mut Schedule, n: INT) -> RhaiResult<Schedule> {
        resampled(schedule, n, Map::new())
    }
    /// The schedule with n steps between the same ends; decoupled evaluation times go with their steps. An end where λ is infinite stays.
    ///
    /// Example: `schedule::logsnr(noise::edm(), 10).resample(4, #{ by: "tau" }).t[1].item()` is 5.656854
    #[rhai_fn(name = "resample", return_raw, pure)]
    pub fn resample_with(schedule: &mut Schedule, n: INT, options: Map) -> RhaiResult<Schedule> {
        resampled(schedule, n, options)
    }
    /// The schedule with only the steps of these indices, ascending: a choice from a grid.
    ///
    /// Example: `schedule::edm(noise::edm(), 60).pick([0, 20, 40, 60]).nfe` is 3
    #[rhai_fn(return_raw, pure)]
    pub fn pick(schedule: &mut Schedule, indices: Array) -> RhaiResult<Schedule> {
        let last = schedule.nfe();
        let each = indices.iter().map(|i| match i.as_int().ok().and_then(|i| usize::try_from(i).ok()) {
            Some(i) if i <= last => Ok(i as u32),
            _ => Err(Error::value(format!("pick: {i} is no index of a schedule with entries 0 to {last}"))),
        });
        let indices = each.collect::<crate::Result<Vec<u32>>>()?;
        let n = indices.len();
        let at = Tensor::from_vec(indices, n, &Device::Cpu).map_err(Error::from)?;
        let of = |t: &Tensor| t.index_select(&at, 0).map_err(Error::from);
        let t_eval = schedule.t_eval.as_ref().map(of).transpose()?;
        let made = Schedule::new(schedule.noise.clone(), &of(&schedule.t)?, schedule.name.clone())?;
        Ok(made.with_eval(t_eval.as_ref())?)
    }
    /// The value of DMN's bound at this schedule, with its settings for networks on pixels.
    ///
    /// Example: `schedule::dmn(noise::edm(), 6).dmn_bound() < schedule::logsnr(noise::edm(), 6).dmn_bound()` is true
    #[rhai_fn(name = "dmn_bound", return_raw, pure)]
    pub fn bound(schedule: &mut Schedule) -> RhaiResult<f64> {
        Ok(dmn_bound(schedule, DataError::Pixel, None)?)
    }
    /// The value of DMN's bound at this schedule.
    ///
    /// Example: `schedule::logsnr(noise::edm(), 4).dmn_bound(#{ error: "latent" })`
    #[rhai_fn(name = "dmn_bound", return_raw, pure)]
    pub fn bound_with(schedule: &mut Schedule, options: Map) -> RhaiResult<f64> {
        let DmnOptions { error, apart, .. } = dmn_options(&DMN_BOUND.read(options)?);
        Ok(dmn_bound(schedule, error, apart)?)
    }
    /// The KLUB of this schedule per dimension of Gaussian data with that standard deviation.
    ///
    /// Example: `schedule::edm(noise::edm(), 5).gaussian_klub(0.5)` is 887.142946
    #[rhai_fn(return_raw, pure)]
    pub fn gaussian_klub(schedule: &mut Schedule, std: f64) -> RhaiResult<f64> {
        Ok(klub_of(schedule, std)?)
    }
}

/// Costs [points, points] as rows: a tensor, or a function |i, j|.
fn costs(context: &NativeCallContext, cost: Dynamic, points: Option<usize>) -> RhaiResult<Vec<Vec<f64>>> {
    let f = match cost.try_cast_result::<FnPtr>() {
        Ok(f) => f,
        Err(cost) => {
            let Some(t) = cost.clone().try_cast::<Tensor>() else {
                let m = format!(
                    "search::path: costs are a tensor [points, points] or a function |i, j|, not {}",
                    cost.type_name()
                );
                return Err(Error::new(Kind::Type, m).into());
            };
            if t.rank() != 2 || t.dims()[0] != t.dims()[1] {
                return Err(Error::shape("search::path: costs must be [points, points]", &[t.dims()]).into());
            }
            let (n, flat) = (t.dims()[0], host_values(&t.detach())?);
            return Ok(flat.chunks(n.max(1)).map(<[f64]>::to_vec).collect());
        }
    };
    let Some(n) = points else {
        return Err(
            Error::value("search::path: with a function, option `points` says how many points there are").into()
        );
    };
    let (host, f) = (ScriptHost::new(context), callback(f));
    let mut all = vec![vec![0.0; n]; n];
    for (i, row) in all.iter_mut().enumerate() {
        for (j, cost) in row.iter_mut().enumerate().skip(i + 1) {
            let given = number(host.call(&f, vec![Value::Int(i as i64), Value::Int(j as i64)])?)?;
            *cost = given.ok_or_else(|| Error::new(Kind::Type, "search::path: a cost must be a number"))?;
        }
    }
    Ok(all)
}

fn level(map: Map) -> RhaiResult<Level> {
    let o = LEVEL.read(map)?;
    let get = |key| -> RhaiResult<Tensor> {
        Ok(o.native(key).ok_or_else(|| Error::value(format!("search::carry: the level before has no `{key}`")))?)
    };
    Ok(Level { states: get("states")?, cost: get("cost")?, parent: get("parent")? })
}

/// The inner loops of searches over a grid of steps.
#[export_module]
mod search_api {
    /// The cheapest path over a grid from its first point to its last, in exactly n steps; indices, both ends included.
    ///
    /// Example: `search::path(tensor([[0.0, 1.0, 9.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), 2)` is [0, 1, 2]
    #[rhai_fn(return_raw)]
    pub fn path(context: NativeCallContext, cost: Dynamic, n: INT) -> RhaiResult<Array> {
        path_with(context, cost, n, Map::new())
    }
    /// The cheapest path over a grid from its first point to its last, in exactly n steps, by dynamic programming.
    ///
    /// Arguments: the costs, a tensor [points, points] (entry i, j is that of the step from i to j > i; others are not read) or a function
    /// |i, j|; the number of steps. Returns n + 1 indices, for `pick`.
    ///
    /// Example: `search::path(|i, j| (j - i) ** 2, 3, #{ points: 7 })` is [0, 2, 4, 6]
    #[rhai_fn(name = "path", return_raw)]
    pub fn path_with(context: NativeCallContext, cost: Dynamic, n: INT, options: Map) -> RhaiResult<Array> {
        let o = PATH.read(options)?;
        let cost = costs(&context, cost, o.some_count("points"))?;
        let path = cheapest_path(&cost, count("search::path: the number of steps", n)?, o.number("coeff"))?;
        Ok(path.into_iter().map(|i| Dynamic::from_int(i as INT)).collect())
    }
    /// GITS's costs of Euler jumps between the points of a teacher's trajectory (Chen et al., 2024).
    ///
    /// Arguments: the teacher's states [points, B, …] in VE scaling (x/α); its slopes dx/dσ there; σ/α at the points (an array or a
    /// tensor); how the end of the jump from i to j is compared with the teacher's state j: "dev" (their distances from the
    /// straight line through the teacher's ends, one less the other), "l1" or "l2". Returns [points, points], means over the B samples.
    ///
    /// Example: `search::jumps(randn([3, 2, 4]), randn([3, 2, 4]), [2.0, 1.0, 0.0], "l2").shape` is [3, 3]
    #[rhai_fn(return_raw)]
    pub fn jumps(states: Tensor, slopes: Tensor, sigmas: Dynamic, metric: &str) -> RhaiResult<Tensor> {
        let metric = match metric {
            "dev" => Metric::Deviation,
            "l1" => Metric::L1,
            "l2" => Metric::L2,
            _ => return Err(Error::unknown("metric of search::jumps", metric, ["dev", "l1", "l2"]).into()),
        };
        let sigmas = host_values(&numbers("search::jumps: the noise levels", sigmas)?)?;
        Ok(jump_costs(&states, &slopes, &sigmas, metric)?)
    }
    /// One level of OSS's search (Pei et al., 2025): from each state one Euler jump to every later point, of which the one nearest to the
    /// teacher is kept.
    ///
    /// Arguments: the student's states [points, B, …]; their slopes dx/dσ; the teacher's states; σ at the points; `open` [points, B], 1
    /// where a state may be left; the level before, whose results stay where they are better, or (). Returns `#{ states, cost, parent }`
    /// with mean squared distances and where each came from, [points, B].
    ///
    /// Example: `let x = randn([3, 1, 2]); search::carry(x, x, x, [2.0, 1.0, 0.0], ones([3, 1]), ()).keys()` is ["cost", "parent", "states"]
    #[rhai_fn(return_raw)]
    pub fn carry(
        states: Tensor,
        slopes: Tensor,
        teacher: Tensor,
        sigmas: Dynamic,
        open: Tensor,
        before: Dynamic,
    ) -> RhaiResult<Map> {
        let sigmas = host_values(&numbers("search::carry: the noise levels", sigmas)?)?;
        let before = match before.try_cast_result::<Map>() {
            Ok(map) => Some(level(map)?),
            Err(d) if d.is_unit() => None,
            Err(d) => {
                return Err(
                    Error::new(Kind::Type, format!("search::carry: the level before is {}", d.type_name())).into()
                );
            }
        };
        let next = carry_on(&states, &slopes, &teacher, &sigmas, &open, before.as_ref())?;
        Ok(Map::from([
            ("states".into(), Dynamic::from(next.states)),
            ("cost".into(), Dynamic::from(next.cost)),
            ("parent".into(), Dynamic::from(next.parent)),
        ]))
    }
    /// The noise levels at which AYS asks the network within a step from `hi` to `lo`, at quantiles `u` of its importance density
    /// t⁻³ (1/(t² + c²) − 1/(hi² + c²)).
    ///
    /// Returns `#{ t, factor }`: the mean of factor · ‖D(x_t, t) − D(x_hi, hi)‖² estimates the step's share of the KLUB.
    ///
    /// Example: `search::klub_levels(80.0, 1.0, [0.0, 1.0], 0.5).t.to_array()` is [1.0, 80.0]
    #[rhai_fn(return_raw)]
    pub fn klub_levels(hi: f64, lo: f64, u: Dynamic, c: f64) -> RhaiResult<Map> {
        let u = host_values(&numbers("search::klub_levels: the quantiles", u)?)?;
        let (t, factor) = klub_quantiles(hi, lo, &u, c)?;
        let of = |v: Vec<f64>| Tensor::new(v, &Device::Cpu).map_err(Error::from);
        Ok(Map::from([("t".into(), Dynamic::from(of(t)?)), ("factor".into(), Dynamic::from(of(factor)?))]))
    }
}
