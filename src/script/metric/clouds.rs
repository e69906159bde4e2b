//! Rhai functions that compare point clouds, and sets of them.
use crate::metric::clouds::{self, Clouds, Distance, frame};
use crate::schema::{Schema, count, word};
use crate::script::error::RhaiResult;
use crate::script::options::Given;
use crate::tensor::aside;
use candle_core::{Device, Tensor};
use rhai::plugin::*;
use rhai::{Dynamic, Map};

/// All of it runs beside the script.
fn aside<T: Send + 'static>(work: impl FnOnce() -> crate::Result<T> + Send + 'static) -> RhaiResult<T> {
    Ok(aside::run(usize::MAX, work)?)
}

const DISTANCES: &[&str] = &["chamfer", "emd"];
const CLOUD_DISTANCES: Schema = Schema::new("metric::cloud_distances", &[word("distance", DISTANCES, "")]);
const CLOUDS: Schema = Schema::new(
    "metric::clouds",
    &[
        word(
            "frame",
            &["bbox", "unit", "half", "34", "global", "none"],
            "how each cloud is normalized before, by a name of `cloud::normalize`: \"unit\", \"half\", \"34\", \"global\"; \"none\": not at all",
        ),
        word("distance", DISTANCES, "or \"emd\", which takes about a second for two clouds of 2,048 points"),
        count("neighbours", 1, [0, usize::MAX], "of the classifier; 0: without it, for a third of the distances"),
        count("resolution", 28, [0, usize::MAX], "nodes of the grid along an axis, for the JSD; 0: without it"),
    ],
);
/// Options of this area's functions.
pub const SCHEMAS: &[Schema] = &[CLOUD_DISTANCES, CLOUDS];

fn distance(o: &Given) -> Distance {
    if o.is("distance", "emd") { Distance::EarthMover } else { Distance::Chamfer }
}

fn paired(
    x: Tensor,
    y: Tensor,
    what: &'static str,
    f: fn(&Clouds, &Clouds) -> crate::Result<Vec<f64>>,
) -> RhaiResult<Tensor> {
    aside(move || {
        let d = f(&Clouds::new(what, &x)?, &Clouds::new(what, &y)?)?;
        let n = d.len();
        Ok(Tensor::from_vec(d, n, &Device::Cpu)?)
    })
}

/// Distances of point clouds.
#[export_module]
pub mod clouds_api {
    /// The Chamfer distance of each cloud of `x` to the one at its place in `y`, [B] in f64.
    ///
    /// Clouds [B, N, 3] and [B, M, 3], or two clouds. It is (1/N) Σ min ‖x − y‖² + (1/M) Σ min ‖y − x‖²: squared, and both ways summed, as
    /// diffusion-point-cloud and PyTorch3D have it. `loss::chamfer` is differentiable.
    ///
    /// Example: `metric::chamfer(zeros([1, 4, 3]), ones([1, 5, 3]))` is [6]
    #[rhai_fn(return_raw)]
    pub fn chamfer(x: Tensor, y: Tensor) -> RhaiResult<Tensor> {
        paired(x, y, "metric::chamfer", clouds::chamfer)
    }
    /// The earth mover's distance of each cloud of `x` to the one at its place in `y`, of as many points, [B] in f64.
    ///
    /// It is the mean of ‖x − y‖ over the best pairing of points, found exactly. Published numbers of EMD mostly come from an approximation
    /// whose pairing is soft, and cannot be compared with it. Two clouds of 2,048 points take about a second.
    ///
    /// Example: `metric::emd(tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]), tensor([[[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]]]))` is [1.5]
    #[rhai_fn(return_raw)]
    pub fn emd(x: Tensor, y: Tensor) -> RhaiResult<Tensor> {
        paired(x, y, "metric::emd", clouds::earth_mover)
    }
    /// The Chamfer distance of each cloud of `a` [A, N, 3] to each of `b` [B, M, 3], a tensor [A, B] in f64.
    ///
    /// Example: `metric::cloud_distances(zeros([2, 4, 3]), ones([3, 4, 3])).shape` is [2, 3]
    #[rhai_fn(return_raw)]
    pub fn cloud_distances(a: Tensor, b: Tensor) -> RhaiResult<Tensor> {
        cloud_distances_with(a, b, Map::new())
    }
    /// The distances of each cloud of `a` to each of `b`, a tensor [A, B] in f64.
    ///
    /// Example: `metric::cloud_distances(zeros([2, 4, 3]), ones([3, 4, 3]), #{ distance: "emd" }).shape` is [2, 3]
    #[rhai_fn(name = "cloud_distances", return_raw)]
    pub fn cloud_distances_with(a: Tensor, b: Tensor, options: Map) -> RhaiResult<Tensor> {
        let of = CLOUD_DISTANCES.of;
        let how = distance(&CLOUD_DISTANCES.read(options)?);
        aside(move || {
            let (a, b) = (Clouds::new(of, &a)?, Clouds::new(of, &b)?);
            let d = clouds::distances(&a, &b, how)?;
            Ok(Tensor::from_vec(d, (a.len(), b.len()), &Device::Cpu)?)
        })
    }
    /// How samples [S, N, 3] compare with reference clouds [R, M, 3]: CD-MMD, CD-COV, 1-NNA and JSD, with standard errors.
    #[rhai_fn(return_raw)]
    pub fn clouds(samples: Tensor, references: Tensor) -> RhaiResult<Map> {
        clouds_with(samples, references, Map::new())
    }
    /// How samples [S, N, 3] compare with reference clouds [R, M, 3], as diffusion-point-cloud evaluates its generators.
    ///
    /// A map: `mmd` (the mean over references of the distance to the nearest sample), `mmd_samples` (the same the other way round),
    /// `coverage` (the share of references that are the nearest of some sample), `accuracy` (of the classifier by nearest neighbours that tells
    /// samples from references; 0.5 is best), `accuracy_references`, `accuracy_samples`, `jsd` (in bits, over the nodes of a ball of radius
    /// 0.5, to which the clouds are not scaled there), `entropy`; and the standard errors `mmd_error`, `coverage_error`, `accuracy_error`,
    /// `jsd_error` over the clouds. Tables print `mmd` and `jsd` times 1000. Achlioptas et al. 2018, Yang et al. 2019, Luo & Hu 2021.
    ///
    /// Distances are not kept: memory grows with the number of clouds. In f32 where both sets are.
    ///
    /// Errors: clouds that are no points x, y, z, empty sets, the cloud and point of a number that is not finite.
    ///
    /// Example: `let x = randn([4, 32, 3], #{ seed: 0 }); metric::clouds(x, x, #{ neighbours: 0 }).mmd` is 0
    #[rhai_fn(name = "clouds", return_raw)]
    pub fn clouds_with(samples: Tensor, references: Tensor, options: Map) -> RhaiResult<Map> {
        let of = CLOUDS.of;
        let o = CLOUDS.read(options)?;
        let (how, by) = (o.word("frame"), distance(&o));
        let (neighbours, resolution) = (o.count("neighbours"), o.count("resolution"));
        let (found, filled) = aside(move || {
            let read = |what: &str, x: &Tensor| {
                let what = format!("{of}: {what}");
                // what is no cloud is named before it is normalized
                let own = Clouds::new(&what, x)?;
                match how {
                    "none" => Ok(own),
                    how => Clouds::new(&what, &frame(x, how).map_err(|e| e.context(what.clone()))?.normalized(x)?),
                }
            };
            let (samples, references) = (read("the samples", &samples)?, read("the references", &references)?);
            let filled = match resolution {
                0 => None,
                n => Some(clouds::occupancy(&samples, &references, n)?),
            };
            Ok((clouds::compare(&samples, &references, by, neighbours)?, filled))
        })?;
        let mut out = Map::new();
        let mut put = |name: &str, v: f64| out.insert(name.into(), Dynamic::from_float(v));
        put("mmd", found.mmd);
        put("mmd_error", found.mmd_error);
        put("mmd_samples", found.mmd_samples);
        put("coverage", found.coverage);
        put("coverage_error", found.coverage_error);
        if let Some([all, references, samples]) = found.accuracy {
            put("accuracy", all);
            put("accuracy_references", references);
            put("accuracy_samples", samples);
            put("accuracy_error", found.accuracy_error);
        }
        if let Some(filled) = filled {
            put("jsd", filled.jsd);
            put("jsd_error", filled.error);
            put("entropy", filled.entropy);
        }
        Ok(out)
    }
}
