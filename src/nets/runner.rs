//! Runs any graph on a device, in a dtype: on plain buffers with all threads where that is f32 on the CPU, on candle tensors elsewhere.
use super::graph::{Absent, Graph, Layout, Port};
use super::tape::{Candle, Shapes, Tape, Value};
use super::threads::awake;
use super::weights::wide;
use crate::files::hash::hex;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Samples that run together on one thread: enough to use the weights more than once while they are in cache, few enough for the
/// activations to stay there.
const CHUNK: usize = 4;

/// Values that candle keeps for the pull-back of a composed network, per value that an operation returns: as measured by the tests of
/// what networks keep.
const COMPOSED: u64 = 5;

/// Values for the inputs of a graph, by name.
pub type Given<'a> = [(&'a str, &'a Tensor)];

/// The gradients with respect to the inputs that were asked for, from the outputs' cotangents, of which some may be absent.
pub type Pull = Box<dyn FnOnce(&[Option<&Tensor>]) -> Result<Vec<Tensor>>>;

/// A graph on a device, in a dtype; cheap to clone. A sample's result does not depend on the batch that it is in, nor on the number of
/// threads.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    graph: Graph,
    device: Device,
    /// The type of the images inside; what is no image is in f32 or f64.
    dtype: DType,
    hash: OnceLock<String>,
}

/// Values of all samples, and the shape of one.
pub type Plain<'a> = (&'a [f32], Vec<usize>);

/// Inputs as plain values, for [`Runner::start`], by port.
pub struct Batch<'a> {
    /// The values; none for an input that is left out.
    pub values: Vec<Option<Plain<'a>>>,
    /// How many samples there are.
    pub count: usize,
    /// The ports with respect to which gradients will be wanted.
    pub wanted: Vec<usize>,
}

/// Some samples that went through the graph together.
struct Part {
    tape: Tape,
    inputs: Vec<Option<Value>>,
    outputs: Vec<Value>,
}

/// A batch after its forward run on plain buffers.
pub struct Run {
    parts: Vec<Part>,
    per: usize,
    count: usize,
    wanted: Vec<usize>,
    awake: bool,
}

/// Cotangents by part and output.
pub struct Cotangents(Vec<Vec<Option<Vec<f32>>>>);

impl Run {
    /// Output `k` of sample `i`.
    pub fn sample(&self, k: usize, i: usize) -> &[f32] {
        let part = &self.parts[i / self.per];
        let (data, n) = (part.outputs[k].data(), part.outputs[k].dims()[0]);
        let len = data.len() / n;
        &data[i % self.per * len..][..len]
    }
    /// The shape of output `k` of one sample.
    pub fn dims(&self, k: usize) -> &[usize] {
        self.parts.first().map_or(&[], |p| &p.outputs[k].dims()[1..])
    }
    /// Output `k` of all samples.
    pub fn output(&self, k: usize) -> Vec<f32> {
        self.parts.iter().flat_map(|p| p.outputs[k].data()).copied().collect()
    }
    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.count
    }
    /// The cotangents of the outputs for which `given`, which `fill(k, i, to)` adds to zeros for output `k` of sample `i`.
    pub fn cotangents(&self, given: &[bool], fill: impl Fn(usize, usize, &mut [f32]) + Sync) -> Cotangents {
        let part = |(p, part): (usize, &Part)| {
            let output = |(k, value): (usize, &Value)| {
                given[k].then(|| {
                    let mut to = vec![0.0; value.data().len()];
                    let len = to.len() / value.dims()[0];
                    to.chunks_exact_mut(len.max(1)).enumerate().for_each(|(j, to)| fill(k, p * self.per + j, to));
                    to
                })
            };
            part.outputs.iter().enumerate().map(output).collect()
        };
        Cotangents(self.parts.par_iter().enumerate().map(part).collect())
    }
    /// The gradients with respect to the inputs that were wanted, for all samples.
    pub fn pull(self, cots: Cotangents) -> Result<Vec<Vec<f32>>> {
        let wanted = &self.wanted;
        let one = |(part, cots): (Part, Vec<Option<Vec<f32>>>)| -> Result<Vec<Vec<f32>>> {
            let Part { tape, inputs, outputs } = part;
            let outs = outputs.iter().zip(cots).filter_map(|(v, c)| Some((v, c?))).collect();
            let lost = || Error::new(Kind::Internal, "a gradient for an input that was left out");
            let wanted =
                wanted.iter().map(|k| inputs[*k].as_ref().ok_or_else(lost)).collect::<Result<Vec<&Value>>>()?;
            tape.pull(outs, &wanted)
        };
        let work: Vec<_> = self.parts.into_iter().zip(cots.0).collect();
        let all = || work.into_par_iter().map(one).collect::<Vec<_>>();
        let mut grads = vec![vec![]; wanted.len()];
        for part in if self.awake { awake(all) } else { all() } {
            for (to, from) in grads.iter_mut().zip(part?) {
                to.extend_from_slice(&from);
            }
        }
        Ok(grads)
    }
}

impl Runner {
    /// A graph whose weights are on `device`, with images in `dtype`.
    pub fn new(graph: Graph, device: &Device, dtype: DType) -> Runner {
        Runner(Arc::new(Inner { graph, device: device.clone(), dtype, hash: OnceLock::new() }))
    }

    /// What it runs.
    pub fn graph(&self) -> &Graph {
        &self.0.graph
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The type of the images inside.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Whether it runs on plain buffers.
    pub fn fast(&self) -> bool {
        self.0.device.is_cpu() && self.0.dtype == DType::F32
    }

    /// All outputs, like the first input in dtype and device. Differentiable by candle where an input is.
    ///
    /// Fails with the name of an input that is missing, unknown, or of another shape.
    pub fn forward(&self, given: &Given) -> Result<Vec<Tensor>> {
        if !self.fast() || given.iter().any(|(_, t)| t.track_op()) {
            return self.composed(given, &mut Candle::default());
        }
        let run = self.run(given, &[])?;
        (0..self.0.graph.outputs.len()).map(|k| self.result(&run, k, given)).collect()
    }

    /// All outputs in candle operations, with these weights in the place of its own, differentiable in both: for training. Weights have
    /// the names and shapes of [`Graph::weights`].
    pub fn trained(&self, given: &Given, weights: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>> {
        self.composed(given, &mut Candle { weights: Some(weights) })
    }

    /// All outputs, detached, and the pull-back to the inputs called `wanted`.
    pub fn linearize(&self, given: &Given, wanted: &[&str]) -> Result<(Vec<Tensor>, Pull)> {
        if !self.fast() {
            return self.linearize_composed(given, wanted);
        }
        let run = self.run(given, wanted)?;
        let outs = (0..self.0.graph.outputs.len()).map(|k| self.result(&run, k, given)).collect::<Result<Vec<_>>>()?;
        let shapes: Vec<Vec<usize>> = outs.iter().map(|t| t.dims().to_vec()).collect();
        let find = |name: &&str| given.iter().find(|(n, _)| n == name).map(|(_, t)| t.detach());
        let likes: Vec<Tensor> = wanted.iter().filter_map(find).collect();
        let this = self.clone();
        let pull: Pull = Box::new(move |cots| {
            let mut flat = vec![];
            for (k, (cot, shape)) in cots.iter().zip(&shapes).enumerate() {
                flat.push(match cot {
                    Some(c) if c.dims() != &shape[..] => {
                        let m = "the cotangent must have the network output's shape";
                        return Err(Error::shape(m, &[shape, c.dims()]));
                    }
                    Some(c) => Some(flat_values(&inside(
                        &c.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?,
                        this.0.graph.outputs[k].layout,
                    )?)?),
                    None => None,
                });
            }
            let present: Vec<bool> = flat.iter().map(Option::is_some).collect();
            let count = run.count();
            let cots = run.cotangents(&present, |k, i, to| {
                if let Some(all) = &flat[k] {
                    let len = all.len() / count;
                    to.copy_from_slice(&all[i * len..][..len]);
                }
            });
            let ports = run.wanted.clone();
            let grads = run.pull(cots)?;
            let one = |((g, port), x): ((Vec<f32>, usize), &Tensor)| {
                outside(g, x.dims(), this.0.graph.inputs[port].layout).and_then(|g| like(&g, x))
            };
            grads.into_iter().zip(ports).zip(&likes).map(one).collect()
        });
        Ok((outs, pull))
    }

    /// Bytes that one evaluation of a batch leaves behind for its pull-back to `wanted`, by a run on shapes alone.
    pub fn kept(&self, batch: usize, wanted: &[&str]) -> Result<u64> {
        let mut run = Shapes::default();
        let (rows, times) = if self.0.graph.alone { (1, batch as u64) } else { (batch, 1) };
        let inputs = self.0.graph.inputs.iter().map(|p| match p.absent {
            Absent::LeftOut => None,
            _ => Some(run.value(&[&[rows], &p.sizes()[..]].concat(), wanted.contains(&&*p.name))),
        });
        let inputs = inputs.collect();
        for out in self.0.graph.run(&mut run, inputs)? {
            run.keep(&out);
        }
        Ok(match self.fast() {
            true => run.kept * 4 * times,
            // candle keeps every result, and what the compositions make in between
            false => run.made * COMPOSED * self.0.dtype.size_in_bytes() as u64 * times,
        })
    }

    /// The shapes of all outputs for inputs of these shapes, one for each port, as they are outside and with the batch. Nothing is computed.
    pub fn shapes(&self, inputs: &[Vec<usize>]) -> Result<Vec<Vec<usize>>> {
        let mut run = Shapes::default();
        let given = inputs.iter().zip(&self.0.graph.inputs).map(|(dims, port)| {
            let mut dims = dims.clone();
            if port.layout == Layout::Image && dims.len() > 1 {
                dims[1..].rotate_left(1);
            }
            Some(run.value(&dims, false))
        });
        let given = given.collect();
        let outs = self.0.graph.run(&mut run, given)?;
        let outside = |(out, port): (super::tape::Shape, &super::graph::Output)| {
            let mut dims = out.dims().to_vec();
            if port.layout == Layout::Image {
                dims[1..].rotate_right(1);
            }
            dims
        };
        Ok(outs.into_iter().zip(&self.0.graph.outputs).map(outside).collect())
    }

    /// SHA-256 of the graph and of the values of all its weights; they are read once.
    pub fn hash(&self) -> Result<String> {
        if let Some(known) = self.0.hash.get() {
            return Ok(known.clone());
        }
        let mut h = Sha256::new();
        h.update(self.0.graph.to_string());
        for node in &self.0.graph.nodes {
            for t in node.op.weights()? {
                let values = super::kernels::host_f32(&t)?;
                values.iter().for_each(|v| h.update(v.to_le_bytes()));
            }
        }
        let found: String = hex(&h.finalize());
        Ok(self.0.hash.get_or_init(|| found).clone())
    }

    /// Runs batches on plain buffers over all threads, in f32 on the CPU whatever the device is. They are cut into parts of a few samples.
    pub fn start(&self, batches: &[Batch]) -> Result<Vec<Run>> {
        let graph = &self.0.graph;
        let total: usize = batches.iter().map(|b| b.count).sum();
        let threads = rayon::current_num_threads().max(1);
        let chunk = graph.together.unwrap_or(CHUNK).max(CHUNK);
        let per = match graph.wide {
            _ if graph.alone => 1,
            true => chunk,
            false => chunk.min(total.div_ceil(threads)).max(1),
        };
        let pieces = |(i, b): (usize, &Batch)| (0..b.count).step_by(per).map(move |s| (i, s)).collect::<Vec<_>>();
        let work: Vec<(usize, usize)> = batches.iter().enumerate().flat_map(pieces).collect();
        let par = work.len() < threads;
        let one = |(i, start): (usize, usize)| -> Result<(usize, Part)> {
            let batch = &batches[i];
            let (n, mut tape) = (per.min(batch.count - start), Tape::new(!batch.wanted.is_empty(), par));
            let value = |(port, v): (usize, &Option<Plain>)| {
                let (data, sizes) = v.as_ref()?;
                let len: usize = sizes.iter().product();
                let (data, dims) = (&data[start * len..(start + n) * len], [&[n], &sizes[..]].concat());
                Some(match batch.wanted.contains(&port) {
                    true => tape.variable(data, dims),
                    false => Tape::constant(data, dims),
                })
            };
            let inputs: Vec<Option<Value>> = batch.values.iter().enumerate().map(value).collect();
            let outputs = graph.run(&mut tape, inputs.clone())?;
            Ok((i, Part { tape, inputs, outputs }))
        };
        let all = || work.into_par_iter().map(one).collect::<Vec<_>>();
        let parts = if par { awake(all) } else { all() };
        let run = |b: &Batch| Run { parts: vec![], per, count: b.count, wanted: b.wanted.clone(), awake: par };
        let mut runs: Vec<Run> = batches.iter().map(run).collect();
        // the error of the first that failed
        for part in parts {
            let (i, part) = part?;
            runs[i].parts.push(part);
        }
        Ok(runs)
    }

    /// One batch on plain buffers.
    fn run(&self, given: &Given, wanted: &[&str]) -> Result<Run> {
        let detached: Vec<(&str, Tensor)> = given.iter().map(|(n, t)| (*n, t.detach())).collect();
        let given: Vec<(&str, &Tensor)> = detached.iter().map(|(n, t)| (*n, t)).collect();
        let inputs = self.prepare(&given)?;
        let values = inputs.iter().map(|t| t.as_ref().map(flat_values).transpose()).collect::<Result<Vec<_>>>()?;
        let batch = Batch {
            values: values
                .iter()
                .zip(&inputs)
                .map(|(v, t)| Some((v.as_deref()?, t.as_ref()?.dims()[1..].to_vec())))
                .collect(),
            count: inputs.iter().flatten().next().map_or(0, |t| t.dims()[0]),
            wanted: wanted.iter().map(|name| self.port(name)).collect::<Result<_>>()?,
        };
        self.start(&[batch])?.pop().ok_or_else(|| Error::new(Kind::Internal, "a batch got lost"))
    }

    fn port(&self, name: &str) -> Result<usize> {
        let ports = &self.0.graph.inputs;
        let found = ports.iter().position(|p| p.name == name);
        found.ok_or_else(|| Error::unknown("input of the network", name, ports.iter().map(|p| &*p.name)))
    }

    /// Output `k` of a run, like the first input.
    fn result(&self, run: &Run, k: usize, given: &Given) -> Result<Tensor> {
        let layout = self.0.graph.outputs[k].layout;
        let mut dims = [&[run.count()], run.dims(k)].concat();
        if layout == Layout::Image {
            dims[1..].rotate_right(1);
        }
        like(&outside(run.output(k), &dims, layout)?, self.first(given)?)
    }

    fn first<'a>(&self, given: &Given<'a>) -> Result<&'a Tensor> {
        let name = self.0.graph.inputs.first().map_or("", |p| &p.name);
        let found = given.iter().find(|(n, _)| *n == name).map(|(_, t)| *t);
        found.ok_or_else(|| Error::value(format!("the network needs its input `{name}`")))
    }

    /// Checks the inputs and brings them into the network's layout, dtype and device; one for each port.
    fn prepare(&self, given: &Given) -> Result<Vec<Option<Tensor>>> {
        let ports = &self.0.graph.inputs;
        for (name, _) in given {
            self.port(name)?;
        }
        let batch = match self.first(given)?.dims() {
            [b, ..] if *b > 0 => *b,
            dims => return Err(misfit(&ports[0], None, dims)),
        };
        let one = |port: &Port| {
            let Some((_, t)) = given.iter().find(|(n, _)| *n == port.name) else { return self.absent(port, batch) };
            let outside = port.outside();
            let fits = t.rank() == outside.len() + 1
                && t.dims()[0] == batch
                && t.dims()[1..].iter().zip(&outside).all(|(n, w)| w.is_none_or(|w| w == *n));
            if !fits {
                let first = port.name == ports[0].name;
                return Err(misfit(port, (!first).then_some(batch), t.dims()));
            }
            let t = t.to_device(&self.0.device)?.to_dtype(self.dtype_of(port))?;
            Ok(Some(inside(&t, port.layout)?))
        };
        ports.iter().map(one).collect()
    }

    fn dtype_of(&self, port: &Port) -> DType {
        if port.layout == Layout::Image { self.0.dtype } else { wide(self.0.dtype) }
    }

    fn absent(&self, port: &Port, batch: usize) -> Result<Option<Tensor>> {
        match port.absent {
            Absent::LeftOut => Ok(None),
            Absent::Zeros => {
                let dims = [&[batch], &port.sizes()[..]].concat();
                Ok(Some(Tensor::zeros(dims, self.dtype_of(port), &self.0.device)?))
            }
            Absent::Error => Err(Error::value(format!("the network needs its input `{}`", port.name))),
        }
    }

    /// All outputs as candle operations throughout; on a GPU in as many pieces of the batch as its kernels' 32-bit counts need.
    fn composed(&self, given: &Given, e: &mut Candle) -> Result<Vec<Tensor>> {
        match self.0.device.is_cuda() {
            _ if self.0.graph.alone => self.in_pieces(given, e, 1),
            true => self.composed_within(given, e, i32::MAX as u64),
            false => self.composed_whole(given, e),
        }
    }

    /// All outputs, with no result of an operation of more than `most` values.
    fn composed_within(&self, given: &Given, e: &mut Candle, most: u64) -> Result<Vec<Tensor>> {
        let batch = self.first(given)?.dims().first().copied().unwrap_or(0);
        let mut run = Shapes::default();
        let prepared = self.prepare(given)?;
        let mut shape = |t: Tensor| run.value(t.dims(), false);
        let inputs = prepared.into_iter().map(|t| t.map(&mut shape)).collect::<Vec<_>>();
        self.0.graph.run(&mut run, inputs)?;
        let pieces = run.largest.div_ceil(most.max(1)).max(1) as usize;
        if pieces == 1 || batch < 2 {
            return self.composed_whole(given, e);
        }
        self.in_pieces(given, e, batch.div_ceil(pieces.min(batch)))
    }

    /// All outputs, `size` samples after `size` samples.
    fn in_pieces(&self, given: &Given, e: &mut Candle, size: usize) -> Result<Vec<Tensor>> {
        let batch = self.first(given)?.dims().first().copied().unwrap_or(0);
        // which says what does not fit
        let prepared = self.prepare(given)?;
        drop(prepared);
        let mut parts = vec![];
        for at in (0..batch).step_by(size) {
            let count = size.min(batch - at);
            let cut =
                |t: &Tensor| if t.dims().first() == Some(&batch) { t.narrow(0, at, count) } else { Ok(t.clone()) };
            let own = given.iter().map(|(_, t)| cut(t)).collect::<candle_core::Result<Vec<_>>>()?;
            let given: Vec<(&str, &Tensor)> = given.iter().zip(&own).map(|((n, _), t)| (*n, t)).collect();
            parts.push(self.composed_whole(&given, e)?);
        }
        let joined = |k: usize| Tensor::cat(&parts.iter().map(|p| &p[k]).collect::<Vec<_>>(), 0);
        Ok((0..self.0.graph.outputs.len()).map(joined).collect::<candle_core::Result<_>>()?)
    }

    fn composed_whole(&self, given: &Given, e: &mut Candle) -> Result<Vec<Tensor>> {
        let outs = self.0.graph.run(e, self.prepare(given)?)?;
        let first = self.first(given)?;
        let one = |(t, o): (Tensor, &super::graph::Output)| match o.layout {
            Layout::Image => like(&t.permute((0, 3, 1, 2))?.contiguous()?, first),
            Layout::Plain => like(&t, first),
        };
        outs.into_iter().zip(&self.0.graph.outputs).map(one).collect()
    }

    fn linearize_composed(&self, given: &Given, wanted: &[&str]) -> Result<(Vec<Tensor>, Pull)> {
        let mut vars = vec![];
        for name in wanted {
            let find = given.iter().find(|(n, _)| n == name);
            let (_, t) = find.ok_or_else(|| Error::value(format!("the network needs its input `{name}`")))?;
            vars.push(Var::from_tensor(&t.detach())?);
        }
        let tracked = |(name, t): &(&str, &Tensor)| match wanted.iter().position(|w| w == name) {
            Some(i) => vars[i].as_tensor().clone(),
            None => t.detach(),
        };
        let own: Vec<Tensor> = given.iter().map(tracked).collect();
        let given: Vec<(&str, &Tensor)> = given.iter().zip(&own).map(|((n, _), t)| (*n, t)).collect();
        let ys = self.composed(&given, &mut Candle::default())?;
        let outs = ys.iter().map(Tensor::detach).collect();
        let pull: Pull = Box::new(move |cots| {
            let mut sum: Option<Tensor> = None;
            for (y, cot) in ys.iter().zip(cots) {
                let Some(cot) = cot else { continue };
                let term = (y * cot.to_dtype(y.dtype())?)?.sum_all()?;
                sum = Some(match sum {
                    Some(s) => (s + term)?,
                    None => term,
                });
            }
            let Some(sum) = sum else { return vars.iter().map(|v| Ok(v.zeros_like()?)).collect() };
            let grads = sum.backward()?;
            let of = |v: &Var| match grads.get(v.as_tensor()) {
                Some(g) => Ok(g.clone()),
                None => Ok(v.zeros_like()?),
            };
            vars.iter().map(of).collect()
        });
        Ok((outs, pull))
    }
}

fn misfit(port: &Port, batch: Option<usize>, dims: &[usize]) -> Error {
    let sizes: Vec<String> = port.outside().iter().map(|d| d.map_or("…".into(), |n| n.to_string())).collect();
    let batch = batch.map_or("B".into(), |b| b.to_string());
    let wanted = [&[batch], &sizes[..]].concat().join(", ");
    Error::shape(format!("the network takes `{}` of shape [{wanted}], got {dims:?}", port.name), &[dims])
}

/// From the layout outside to that inside.
fn inside(t: &Tensor, layout: Layout) -> candle_core::Result<Tensor> {
    match layout {
        Layout::Image => t.permute((0, 2, 3, 1))?.contiguous(),
        Layout::Plain => t.contiguous(),
    }
}

/// Values inside as a tensor whose shape outside is `dims`.
fn outside(data: Vec<f32>, dims: &[usize], layout: Layout) -> Result<Tensor> {
    Ok(match (layout, dims) {
        (Layout::Image, &[b, c, h, w]) => {
            Tensor::from_vec(data, (b, h, w, c), &Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?
        }
        _ => Tensor::from_vec(data, dims, &Device::Cpu)?,
    })
}

fn flat_values(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.flatten_all()?.to_vec1()?)
}

fn like(t: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(t.to_device(x.device())?.to_dtype(x.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::edm::{Config, random_in};

    #[test]
    fn a_batch_in_pieces_is_the_batch() -> Result<()> {
        let config = Config::parse(
            r#"{"img_resolution": 8, "img_channels": 1, "model_channels": 16, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [8]}"#,
        )?;
        let net = random_in(&config, 3, &Device::Cpu, DType::F64)?;
        let x = Var::from_tensor(&Tensor::randn(0.0, 1.0, (5, 1, 8, 8), &Device::Cpu)?)?;
        let t = Tensor::new(&[0.1, 0.2, 0.3, 0.4, 0.5], &Device::Cpu)?;
        let ports = &net.runner().graph().inputs;
        let given = [(ports[0].name.as_str(), x.as_tensor()), (ports[1].name.as_str(), &t)];
        let run = |most| -> Result<(Vec<f64>, Vec<f64>)> {
            let y = net.runner().composed_within(&given, &mut Candle::default(), most)?.remove(0);
            let grads = y.sqr()?.sum_all()?.backward()?;
            let gradient = grads.get(&x).map_or_else(|| x.zeros_like(), |g| Ok(g.clone()))?;
            Ok((y.flatten_all()?.to_vec1()?, gradient.flatten_all()?.to_vec1()?))
        };
        let (whole, gradient) = run(u64::MAX)?;
        // no room for two samples, for two, and for none
        for most in [2000, 4500, 1] {
            let (pieces, its) = run(most)?;
            let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
            assert_eq!(pieces.len(), whole.len());
            assert!(apart(&whole, &pieces) < 1e-12 && apart(&gradient, &its) < 1e-11, "{most}");
        }
        Ok(())
    }
}
