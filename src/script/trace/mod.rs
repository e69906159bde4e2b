//! Functions of scripts as graphs: run once on probes, every tensor operation recorded, and from then on run by kernels without Rhai.
//!
//! A probe is a tensor of random values. The function runs on a batch of two and on one of three: what differs between the two runs
//! other than sizes that grow with the batch depends on values, and cannot be a graph.
mod api;
mod held;
mod images;
mod kernels;
mod log;
mod lower;
mod native;
mod network;
mod record;

pub use api::{SCHEMAS, TracedGraph, register};
pub use held::Held;
pub use log::{Refusal, Trace};
pub use network::TracedNetwork;
pub use record::{Watched, is_traced, noted, refuse};

use crate::nets::graph::Graph;
use crate::nets::runner::Runner;
use crate::tensor::random;
use candle_core::{DType, Device, Tensor};
use record::record;
use rhai::Position;

/// How far values of a graph may be from those of the function, relative to the largest of these: f32 sums in other orders, and
/// Winograd's rounding.
pub const TOLERANCE: f64 = 5e-4;

/// The batches on which a function is traced.
const BATCHES: [usize; 2] = [2, 3];

/// A function as a graph.
pub struct Traced {
    /// What runs it.
    pub runner: Runner,
    /// SHA-256 of operations and constants.
    pub hash: String,
}

/// The argument `i` of a probe: normal values for samples, numbers between 0.3 and 0.9 for what is one number each, rows of a class
/// each for `classes`.
fn probe(i: usize, batch: usize, sizes: &[usize], rows: bool) -> candle_core::Result<Tensor> {
    let (seed, dims) = ((17 * batch + i) as u64, [&[batch], sizes].concat());
    let n: usize = dims.iter().product();
    let own = |e: crate::Error| candle_core::Error::Msg(e.to_string());
    if rows {
        let width = sizes.last().copied().unwrap_or(1).max(1);
        let one = |k: usize| if k % width == (seed as usize + k / width) % width { 1.0f32 } else { 0.0 };
        return Tensor::from_vec((0..n).map(one).collect(), dims, &Device::Cpu);
    }
    let stream = random::stream::NORMAL;
    let x = random::normal(seed, 0, &dims, stream, DType::F32, &Device::Cpu).map_err(own)?;
    // numbers stand for noise levels: above 0 and below 1
    if sizes.is_empty() { x.tanh()?.affine(0.3, 0.6) } else { Ok(x) }
}

/// The graph of `f` on arguments with these sizes for each sample, by name, and whether they are rows of classes; checked against `f`
/// for each sample by itself. The outer error is one of `f`'s own.
pub fn trace<E: From<crate::Error>>(
    arguments: &[(&str, Vec<usize>, bool)],
    f: impl Fn(&[Tensor]) -> Result<Tensor, E>,
) -> Result<Result<Traced, Refusal>, E> {
    let internal = |e: candle_core::Error| E::from(crate::Error::from(e));
    let probes = |batch: usize| -> candle_core::Result<Vec<Tensor>> {
        arguments.iter().enumerate().map(|(i, (_, sizes, rows))| probe(i, batch, sizes, *rows)).collect()
    };
    let [few, more] = BATCHES.map(probes);
    let (few, more) = (few.map_err(internal)?, more.map_err(internal)?);
    let a = record(BATCHES[0], &few, || f(&few))?;
    if let Some(why) = a.log.refused {
        return Ok(Err(why));
    }
    let mut wanted = None;
    let b = record(BATCHES[1], &more, || {
        let y = f(&more)?;
        wanted = Some(y.detach());
        Ok::<_, E>(y)
    })?;
    let trace = match Trace::of(arguments.len(), &a, &b) {
        Ok(trace) => trace,
        Err(why) => return Ok(Err(why)),
    };
    let names: Vec<&str> = arguments.iter().map(|(name, ..)| *name).collect();
    let Some(wanted) = wanted else { return Ok(Err(Refusal::new("there is no result", Position::NONE))) };
    Ok(built(&trace, &names, &more, &wanted).map_err(|e| Refusal::new(e.message().to_string(), Position::NONE)))
}

/// The graph of a trace, when its values for each sample alone are those that the function gave for all together.
fn built(trace: &Trace, names: &[&str], given: &[Tensor], wanted: &Tensor) -> crate::Result<Traced> {
    let graph: Graph = lower::lower(trace, names)?;
    let runner = Runner::new(graph, &Device::Cpu, DType::F32);
    for i in 0..wanted.dims().first().copied().unwrap_or(0) {
        let one = given.iter().map(|t| t.narrow(0, i, 1)?.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
        let inputs: Vec<(&str, &Tensor)> = names.iter().copied().zip(&one).collect();
        let got = runner.forward(&inputs)?.remove(0);
        if !near(&got, &wanted.narrow(0, i, 1)?)? {
            return Err(crate::Error::value("samples of a batch have an effect on each other"));
        }
    }
    let together: Vec<(&str, &Tensor)> = names.iter().copied().zip(given).collect();
    if !near(&runner.forward(&together)?.remove(0), wanted)? {
        return Err(crate::Error::value("the graph gives other values"));
    }
    Ok(Traced { runner, hash: trace.hash()? })
}

/// Whether values are within [`TOLERANCE`] of those that were wanted; what is no number there may be none here.
fn near(got: &Tensor, wanted: &Tensor) -> crate::Result<bool> {
    let values = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (a, b) = (values(got)?, values(wanted)?);
    let most = b.iter().filter(|v| v.is_finite()).fold(0f64, |m, v| m.max(v.abs()));
    let fits = |(a, b): (&f64, &f64)| !b.is_finite() || (a - b).abs() <= TOLERANCE * most + 1e-9;
    Ok(got.dims() == wanted.dims() && a.iter().zip(&b).all(fits))
}
