//! Rhai functions that compare sets of features: scores, intervals and tests.
use super::stats::ScriptStats;
use crate::metric::{self, Rows, Tested};
use crate::real::host_values;
use crate::schema::{Opt, Schema, above, count};
use crate::script::error::{RhaiResult, type_of};
use crate::script::options::{SEED, number_of};
use crate::tensor::aside;
use crate::{Error, Kind};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Array, Dynamic, FLOAT, INT, Map};

/// All of it runs beside the script.
fn aside<T: Send + 'static>(work: impl FnOnce() -> crate::Result<T> + Send + 'static) -> RhaiResult<T> {
    Ok(aside::run(usize::MAX, work)?)
}

fn pair(mean: f64, std: f64) -> Map {
    Map::from([("mean".into(), mean.into()), ("std".into(), std.into())])
}

fn tested(t: Tested) -> Map {
    let rows: Array = t.rows.iter().map(|n| Dynamic::from_int(*n as INT)).collect();
    Map::from([("value".into(), t.value.into()), ("p".into(), t.p.into()), ("rows".into(), rows.into())])
}

const MOST: usize = usize::MAX;
const DRAWS: &[&[Opt]] = &[&[SEED]];
const KID: Schema = Schema::new(
    "metric::kid",
    &[count("subsets", 100, [1, MOST], "how many subsets"), count("size", 1000, [2, MOST], "samples in each subset")],
)
.with(DRAWS);
const INCEPTION_SCORE: Schema = Schema::new(
    "metric::inception_score",
    &[count(
        "splits",
        10,
        [1, MOST],
        "parts of the samples, in their order, over which mean and standard deviation are",
    )],
);
const NEIGHBOURS: Schema = Schema::new(
    "metric::neighbours",
    &[count(
        "k",
        5,
        [1, MOST],
        "a neighbourhood reaches to the k-th neighbour; precision and recall are published with 3",
    )],
);
const BOOTSTRAP: Schema = Schema::new(
    "metric::bootstrap",
    &[count("replicates", 200, [2, MOST], "resamplings"), above("level", 0.95, [0.0, 1.0], "of the interval")],
)
.with(DRAWS);
const TWO_SAMPLE: Schema = Schema::new(
    "metric::two_sample",
    &[
        count("rows", 1000, [2, MOST], "of each set at most, drawn at random; 4000 at most"),
        count("permutations", 500, [1, MOST], "relabellings; p is at least 1 / (1 + permutations)"),
    ],
)
.with(DRAWS);
const PAIRED: Schema = Schema::new(
    "metric::paired",
    &[count("permutations", 9999, [1, MOST], "draws of random signs of the differences")],
)
.with(DRAWS);
const NEARER: Schema =
    Schema::new("metric::nearer", &[count("permutations", 200, [1, MOST], "random exchanges")]).with(DRAWS);
const CMMD: Schema = Schema::new(
    "metric::cmmd",
    &[
        above("sigma", 10.0, [0.0, f64::MAX], "the kernel's width: e^(−|x − y|² / 2 sigma²)"),
        above("scale", 1000.0, [0.0, f64::MAX], "the factor of the result"),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[KID, CMMD, INCEPTION_SCORE, NEIGHBOURS, BOOTSTRAP, TWO_SAMPLE, PAIRED, NEARER];

/// Values [N] from a tensor or an array of numbers.
fn values(what: &str, v: &Dynamic) -> RhaiResult<Vec<f64>> {
    if let Some(t) = v.read_lock::<Tensor>() {
        return Ok(host_values(&t.detach())?);
    }
    let wrong = |v: &Dynamic| Error::new(Kind::Type, format!("{what} must be numbers, not {}", type_of(v)));
    let a = v.read_lock::<Array>().ok_or_else(|| wrong(v))?;
    let number = |v: &Dynamic| number_of(v).ok_or_else(|| wrong(v).into());
    a.iter().map(number).collect()
}

/// Comparisons of features [N, D].
#[export_module]
pub mod compare_api {
    /// The kernel inception distance of two sets of features [N, D], `#{ mean, std }` over 100 random subsets of 1000.
    ///
    /// Example: `let x = randn([20, 3], #{ seed: 0 }); metric::kid(x, x).std` is 0
    #[rhai_fn(return_raw)]
    pub fn kid(x: Tensor, y: Tensor) -> RhaiResult<Map> {
        kid_with(x, y, Map::new())
    }
    /// The kernel inception distance of two sets of features [N, D]: mean and standard deviation, over random subsets, of the unbiased squared
    /// MMD with the kernel (x·y/D + 1)³.
    ///
    /// It may be below 0, and does not depend on the number of samples in the mean. A set with no more samples than `size` is taken whole;
    /// where both are, there is one subset. Bińkowski et al. 2018.
    ///
    /// Example: `metric::kid(randn([20, 3], #{ seed: 0 }), randn([20, 3], #{ seed: 1 }), #{ subsets: 5, size: 10 })`
    #[rhai_fn(name = "kid", return_raw)]
    pub fn kid_with(x: Tensor, y: Tensor, options: Map) -> RhaiResult<Map> {
        let o = KID.read(options)?;
        let (subsets, size, seed) = (o.count("subsets"), o.count("size"), o.seed());
        let (mean, std) =
            aside(move || metric::kid(&Rows::new("kid", &x)?, &Rows::new("kid", &y)?, subsets, size, seed))?;
        Ok(pair(mean, std))
    }
    /// CMMD of two sets of features [N, D] of "clip".
    ///
    /// Example: `let x = randn([20, 3], #{ seed: 0 }); metric::cmmd(x, x)` is 0
    #[rhai_fn(return_raw)]
    pub fn cmmd(x: Tensor, y: Tensor) -> RhaiResult<FLOAT> {
        cmmd_with(x, y, Map::new())
    }
    /// CMMD of two sets of features [N, D] of "clip": the squared maximum mean discrepancy by a Gaussian kernel of width 10, times 1000.
    ///
    /// It does not take features for a Gaussian's, and needs fewer samples than Fréchet distances. Jayasumana et al. 2024.
    ///
    /// Example: `let x = zeros([2, 1]); metric::cmmd(x, x + 2, #{ sigma: 1.0, scale: 1 })` is about 1.73
    #[rhai_fn(name = "cmmd", return_raw)]
    pub fn cmmd_with(x: Tensor, y: Tensor, options: Map) -> RhaiResult<FLOAT> {
        let o = CMMD.read(options)?;
        let (sigma, scale) = (o.number("sigma"), o.number("scale"));
        aside(move || metric::cmmd(&Rows::new("cmmd", &x)?, &Rows::new("cmmd", &y)?, sigma, scale))
    }
    /// The Inception Score from logits [N, C], `#{ mean, std }` over 10 parts.
    ///
    /// Example: `metric::inception_score(eye(10) * 1000).mean` is 1
    #[rhai_fn(return_raw)]
    pub fn inception_score(logits: Tensor) -> RhaiResult<Map> {
        inception_score_with(logits, Map::new())
    }
    /// The Inception Score from logits [N, C]: exp of the mean KL divergence of a sample's classes from those of all; `#{ mean, std }`.
    ///
    /// Salimans et al. 2016.
    ///
    /// Example: `metric::inception_score(eye(10) * 1000, #{ splits: 1 }).mean` is 10
    #[rhai_fn(name = "inception_score", return_raw)]
    pub fn inception_score_with(logits: Tensor, options: Map) -> RhaiResult<Map> {
        let splits = INCEPTION_SCORE.read(options)?.count("splits");
        let (mean, std) = aside(move || metric::inception_score(&logits, splits))?;
        Ok(pair(mean, std))
    }
    /// Precision, recall, density and coverage of samples' features [N, D] beside real ones [M, D], with 5 neighbours.
    ///
    /// Example: `let x = randn([20, 3], #{ seed: 0 }); metric::neighbours(x, x).coverage` is 1
    #[rhai_fn(return_raw)]
    pub fn neighbours(real: Tensor, samples: Tensor) -> RhaiResult<Map> {
        neighbours_with(real, samples, Map::new())
    }
    /// Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) of samples' features [N, D] beside real ones
    /// [M, D]: `#{ precision, recall, density, coverage }`.
    ///
    /// Example: `metric::neighbours(randn([20, 3], #{ seed: 0 }), randn([20, 3], #{ seed: 1 }), #{ k: 3 })`
    #[rhai_fn(name = "neighbours", return_raw)]
    pub fn neighbours_with(real: Tensor, samples: Tensor, options: Map) -> RhaiResult<Map> {
        let k = NEIGHBOURS.read(options)?.count("k");
        let n = aside(move || {
            metric::neighbours(&Rows::new("neighbours", &real)?, &Rows::new("neighbours", &samples)?, k)
        })?;
        let all = [("precision", n.precision), ("recall", n.recall), ("density", n.density), ("coverage", n.coverage)];
        Ok(all.into_iter().map(|(k, v)| (k.into(), Dynamic::from_float(v))).collect())
    }
    /// The Fréchet distance of features [N, D] to a reference, with a 95 % interval from 200 resamplings.
    ///
    /// Example: `let x = randn([50, 2], #{ seed: 0 }); metric::bootstrap(x, metric::stats(x)).value < 1e-9` is true
    #[rhai_fn(return_raw)]
    pub fn bootstrap(features: Tensor, reference: ScriptStats) -> RhaiResult<Map> {
        bootstrap_with(features, reference, Map::new())
    }
    /// The Fréchet distance of features [N, D] to a reference, with an interval: `#{ value, low, high, error, bias }`.
    ///
    /// The interval is that of resampled distances around their mean, laid around the value; `error` is the standard error, `bias` about how
    /// much the number of samples adds to the value. The reference counts as exact.
    ///
    /// Example: `let x = randn([50, 2], #{ seed: 0 }); metric::bootstrap(x, metric::stats(randn([50, 2], #{ seed: 1 })), #{ replicates: 20 })`
    #[rhai_fn(name = "bootstrap", return_raw)]
    pub fn bootstrap_with(features: Tensor, reference: ScriptStats, options: Map) -> RhaiResult<Map> {
        let o = BOOTSTRAP.read(options)?;
        let (replicates, level, seed) = (o.count("replicates"), o.number("level"), o.seed());
        let reference = reference.0.borrow().clone();
        // on this thread, whose notes go where the script's do
        reference.warn("the reference of the Fréchet distance");
        if let &[n, width] = features.dims() {
            metric::few("the samples of the Fréchet distance", n as u64, width);
        }
        let i =
            aside(move || metric::bootstrap(&Rows::new("bootstrap", &features)?, &reference, replicates, level, seed))?;
        let all = [("value", i.value), ("low", i.low), ("high", i.high), ("error", i.error), ("bias", i.bias)];
        Ok(all.into_iter().map(|(k, v)| (k.into(), Dynamic::from_float(v))).collect())
    }
    /// Whether two sets of features [N, D] come from one distribution, from 1000 rows of each and 500 permutations.
    ///
    /// Example: `let x = randn([20, 3], #{ seed: 0 }); metric::two_sample(x, x).p` is 1
    #[rhai_fn(return_raw)]
    pub fn two_sample(x: Tensor, y: Tensor) -> RhaiResult<Map> {
        two_sample_with(x, y, Map::new())
    }
    /// Whether two sets of features [N, D] come from one distribution: `#{ value, p, rows }`.
    ///
    /// `value` is the unbiased squared MMD with the kernel (x·y/D + 1)³, `p` the part of random relabellings with at least as large a value,
    /// `rows` how many rows of each were looked at. Gretton et al. 2012.
    ///
    /// Example: `metric::two_sample(randn([20, 3], #{ seed: 0 }), randn([20, 3], #{ seed: 1 }) + 3, #{ permutations: 99 }).p` is 0.01
    #[rhai_fn(name = "two_sample", return_raw)]
    pub fn two_sample_with(x: Tensor, y: Tensor, options: Map) -> RhaiResult<Map> {
        let o = TWO_SAMPLE.read(options)?;
        let (rows, permutations, seed) = (o.count("rows"), o.count("permutations"), o.seed());
        let of = "two_sample";
        let t = aside(move || metric::two_sample(&Rows::new(of, &x)?, &Rows::new(of, &y)?, rows, permutations, seed))?;
        Ok(tested(t))
    }
    /// Whether paired values a_i and b_i (losses from the same noises) have one mean, by 9999 random signs.
    ///
    /// Example: `metric::paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p` is 1
    #[rhai_fn(return_raw)]
    pub fn paired(a: Dynamic, b: Dynamic) -> RhaiResult<Map> {
        paired_with(a, b, Map::new())
    }
    /// Whether paired values a_i and b_i (losses from the same noises) have one mean: `#{ value, p, rows }`, with the mean of a − b and the
    /// two-sided p of its sign.
    ///
    /// Example: `metric::paired([1.0, 2.0, 3.0], [0.9, 1.8, 2.9], #{ permutations: 99 }).value` is about 0.1333
    #[rhai_fn(name = "paired", return_raw)]
    pub fn paired_with(a: Dynamic, b: Dynamic, options: Map) -> RhaiResult<Map> {
        let o = PAIRED.read(options)?;
        let (permutations, seed) = (o.count("permutations"), o.seed());
        let (a, b) = (values("metric::paired: a", &a)?, values("metric::paired: b", &b)?);
        Ok(tested(aside(move || metric::paired(&a, &b, permutations, seed))?))
    }
    /// Whether features x are as far from a reference as features y, by 200 permutations.
    ///
    /// Example: `let x = randn([20, 2], #{ seed: 0 }); metric::nearer(x, x, metric::stats(x)).p` is 1
    #[rhai_fn(return_raw)]
    pub fn nearer(x: Tensor, y: Tensor, reference: ScriptStats) -> RhaiResult<Map> {
        nearer_with(x, y, reference, Map::new())
    }
    /// Whether features x are as far from a reference as features y: `#{ value, p, rows }`.
    ///
    /// `value` is the Fréchet distance of x less that of y, `p` the part of random exchanges of x_i and y_i with at least as large a
    /// difference. Row i of both must belong together, as samples from one noise do.
    ///
    /// Example: `let r = randn([50, 2], #{ seed: 0 }); metric::nearer(r, r + 2, metric::stats(r), #{ permutations: 19 }).p` is 0.05
    #[rhai_fn(name = "nearer", return_raw)]
    pub fn nearer_with(x: Tensor, y: Tensor, reference: ScriptStats, options: Map) -> RhaiResult<Map> {
        let o = NEARER.read(options)?;
        let (permutations, seed) = (o.count("permutations"), o.seed());
        let reference = reference.0.borrow().clone();
        let of = "nearer";
        let t =
            aside(move || metric::nearer(&Rows::new(of, &x)?, &Rows::new(of, &y)?, &reference, permutations, seed))?;
        Ok(tested(t))
    }
}
