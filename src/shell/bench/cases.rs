//! What can be timed: operations, network evaluations, training steps, teacher pairs, each with its inputs.
use crate::denoise::{Cond, DynDenoiser, NetPullback, Network, Preconditioned, Predicts};
use crate::discretize::Schedule;
use crate::host::{Host, Quiet};
use crate::nets::edm::{self, Config};
use crate::nets::kernels::{self, Attention, Conv, Frozen, GroupNorm, Modulation, View};
use crate::nets::network::Net;
use crate::nets::threads::awake;
use crate::plan::{Remat, SolveOptions};
use crate::solve::{IPNDM, Solver, UNIPC};
use crate::tensor::device::default_device;
use crate::tensor::grad;
use crate::{Error, Kind, Result, noise};
use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use serde_json::json;
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is timed, as the metadata entry `case` of a file or a row of [`CASES`] says it.
#[derive(Deserialize, Clone, Debug)]
#[serde(tag = "what", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Case {
    /// A 3×3 convolution of `channels` to `channels`, or its input gradient.
    Conv { channels: usize, size: usize, batch: usize, gradient: bool },
    /// Group norm over 32 groups and SiLU, or its input gradient.
    Norm { channels: usize, size: usize, batch: usize, gradient: bool },
    /// Attention of `heads` heads over size × size tokens, or value and input gradient.
    Attention { channels: usize, size: usize, batch: usize, heads: usize, gradient: bool },
    /// A network evaluation, or evaluation and vector-Jacobian product.
    Net { net: String, batch: usize, gradient: bool },
    /// A training step of LD3: sample in `nfe` evaluations, squared distance to the target, gradients in noise, steps and
    /// evaluation times.
    Step { net: String, batch: usize, nfe: usize, solver: String, remat: bool },
    /// A tensor operation of scripts at size 0, 1 or 2, or its value and the gradients of all of its inputs.
    Op { op: String, size: usize, gradient: bool },
    /// Teacher samples for pairs: UniPC(3) in `nfe` evaluations, without gradients.
    Pairs { net: String, batch: usize, nfe: usize },
}

/// Named network sizes, with random weights.
const SIZES: [(&str, &str); 2] = [
    ("cifar10", r#"{"img_resolution": 32, "img_channels": 3, "augment_dim": 9, "channel_mult": [2, 2, 2]}"#),
    ("ffhq64", r#"{"img_resolution": 64, "img_channels": 3, "augment_dim": 9, "channel_mult": [1, 2, 2, 2]}"#),
];

/// What `ld3sh bench` times when it is not told, as name and case.
pub(super) const CASES: [(&str, &str); 12] = [
    ("conv", r#"{"what": "conv", "channels": 128, "size": 32, "batch": 2, "gradient": false}"#),
    ("conv", r#"{"what": "conv", "channels": 256, "size": 16, "batch": 2, "gradient": false}"#),
    ("conv", r#"{"what": "conv", "channels": 64, "size": 64, "batch": 2, "gradient": false}"#),
    ("conv", r#"{"what": "conv", "channels": 256, "size": 32, "batch": 2, "gradient": false}"#),
    ("norm", r#"{"what": "norm", "channels": 128, "size": 32, "batch": 2, "gradient": false}"#),
    ("norm", r#"{"what": "norm", "channels": 128, "size": 32, "batch": 2, "gradient": true}"#),
    ("attention", r#"{"what": "attention", "channels": 256, "size": 16, "batch": 2, "heads": 1, "gradient": true}"#),
    ("net", r#"{"what": "net", "net": "fashion28", "batch": 16, "gradient": false}"#),
    ("net", r#"{"what": "net", "net": "fashion28", "batch": 16, "gradient": true}"#),
    ("step", r#"{"what": "step", "net": "fashion28", "batch": 2, "nfe": 5, "solver": "unipc", "remat": true}"#),
    ("step", r#"{"what": "step", "net": "fashion28", "batch": 2, "nfe": 5, "solver": "unipc", "remat": false}"#),
    ("pairs", r#"{"what": "pairs", "net": "fashion28", "batch": 50, "nfe": 20}"#),
];

pub(super) type Tensors = HashMap<String, Tensor>;

/// How a case is run.
pub(super) struct Run {
    call: Box<dyn FnMut() -> Result<Tensors>>,
    /// How often one call does what is timed.
    pub(super) times: u32,
    /// The time that a call has spent inside the network, where there is one within something larger.
    network: Option<Rc<Cell<Duration>>>,
}

/// What a run took, per time that it did what is timed.
pub(super) struct Took {
    pub(super) ms: f64,
    /// The part of the time that was spent outside the network.
    pub(super) outside: Option<f64>,
}

impl Run {
    fn once(call: impl FnMut() -> Result<Tensors> + 'static) -> Run {
        Run { call: Box::new(call), times: 1, network: None }
    }
    /// One that does what is timed several times.
    pub(super) fn repeated(mut once: impl FnMut() -> Result<Tensors> + 'static, times: u32) -> Run {
        let call = move || {
            for _ in 1..times {
                once()?;
            }
            once()
        };
        Run { call: Box::new(call), times, network: None }
    }
    /// The results by name.
    pub(super) fn results(&mut self) -> Result<Tensors> {
        (self.call)()
    }
    /// Runs it once, to the end also on a GPU.
    pub(super) fn time(&mut self) -> Result<Took> {
        if let Some(inside) = &self.network {
            inside.set(Duration::ZERO);
        }
        let start = Instant::now();
        (self.call)()?;
        // what a GPU was told to do is done when it says so
        default_device().synchronize()?;
        let all = start.elapsed().as_secs_f64();
        let outside = self.network.as_ref().map(|inside| 1.0 - inside.get().as_secs_f64() / all);
        Ok(Took { ms: all * 1e3 / f64::from(self.times), outside })
    }
}

/// A network that says how long it ran.
struct Timed {
    net: Net,
    spent: Rc<Cell<Duration>>,
}

fn timed<T>(spent: &Cell<Duration>, f: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = f();
    spent.set(spent.get() + start.elapsed());
    out
}

impl Network for Timed {
    fn describe(&self) -> String {
        self.net.describe()
    }
    fn hash(&self) -> Option<String> {
        self.net.hash()
    }
    fn sample_shape(&self) -> Option<Vec<usize>> {
        self.net.sample_shape()
    }
    fn classes(&self) -> usize {
        self.net.classes()
    }
    fn forward(&self, host: &dyn Host, x: &Tensor, c: &Tensor, cond: &Cond) -> Result<Tensor> {
        timed(&self.spent, || self.net.forward(host, x, c, cond))
    }
    fn linearize(&self, host: &dyn Host, x: &Tensor, c: &Tensor, cond: &Cond) -> Result<(Tensor, NetPullback)> {
        let (y, pull) = timed(&self.spent, || self.net.linearize(host, x, c, cond))?;
        let spent = self.spent.clone();
        Ok((y, Box::new(move |host, cot| timed(&spent, || pull(host, cot)))))
    }
}

/// Times that one run of an operation does it: threads are awake in all but the first, as they are within a network.
const BURST: u32 = 10;

thread_local! {
    /// The type of networks inside.
    pub(super) static DTYPE: Cell<DType> = const { Cell::new(DType::F32) };
}

fn load(name: &str) -> Result<Net> {
    let (device, dtype) = (default_device(), DTYPE.get());
    if let Some((_, config)) = SIZES.iter().find(|(n, _)| *n == name) {
        return edm::random_in(&Config::parse(config)?, 0, &device, dtype);
    }
    crate::model::denoiser(&crate::model::find(name, &Quiet)?, &device, dtype)
}

/// The inputs of a case, where no file gives them: normal numbers of the shapes that the case needs.
pub(super) struct Inputs(pub(super) Tensors);

impl Inputs {
    pub(super) fn get(&self, name: &str, dims: &[usize]) -> Result<Tensor> {
        match self.0.get(name) {
            Some(t) if t.dims() == dims => Ok(t.to_dtype(DType::F32)?.to_device(&default_device())?),
            Some(t) => {
                Err(Error::shape(format!("`{name}` has shape {:?}, expected {dims:?}", t.dims()), &[t.dims(), dims]))
            }
            None => {
                let seed = name.bytes().fold(1, |s, b| s * 31 + b as u64);
                let like = Tensor::zeros(dims, DType::F32, &Device::Cpu)?;
                Ok((crate::plan::rows::normal_like(seed, 0, 0, &like)? * 0.5)?.to_device(&default_device())?)
            }
        }
    }
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.flatten_all()?.to_vec1()?)
}

/// Runs an operation as networks do: on plain buffers, or on a GPU as a candle operation.
fn kernel(op: impl Frozen + 'static, x: &Tensor, cot: &Tensor, gradient: bool, both: bool) -> Result<Run> {
    if !x.device().is_cpu() {
        let op: Arc<dyn Frozen> = Arc::new(op);
        let (x, cot) = (Var::from_tensor(&x.to_dtype(DTYPE.get())?)?, cot.to_dtype(DTYPE.get())?);
        return Ok(Run::once(move || {
            let y = kernels::apply(&op, &[&x])?;
            if !gradient {
                return Ok([("y".to_string(), y)].into());
            }
            let grads = (&y * &cot)?.sum_all()?.backward()?;
            let missing = || Error::new(Kind::Internal, "an operation without a gradient");
            let gx = grads.get(&x).cloned().ok_or_else(missing)?;
            Ok([("y".to_string(), y), ("gx".into(), gx)].into())
        }));
    }
    let (dims, out_dims) = (x.dims().to_vec(), cot.dims().to_vec());
    let (x, cot) = (values(x)?, values(cot)?);
    let mut out = vec![0.0; cot.len()];
    let call = move || {
        let view = [View { data: &x, dims: &dims }];
        let grad = awake(|| {
            let mut grad = vec![];
            for _ in 0..BURST {
                if !gradient || both {
                    op.run(&view, &mut out, true);
                }
                if gradient {
                    kernels::pool::give(std::mem::replace(&mut grad, op.pull(&view, &cot, true).swap_remove(0)));
                }
            }
            grad
        });
        let mut results = Tensors::new();
        if !gradient || both {
            results.insert("y".into(), Tensor::from_slice(&out, &out_dims[..], &Device::Cpu)?);
        }
        if gradient {
            results.insert("gx".into(), Tensor::from_slice(&grad, &dims[..], &Device::Cpu)?);
            kernels::pool::give(grad);
        }
        Ok(results)
    };
    Ok(Run { call: Box::new(call), times: BURST, network: None })
}

/// Makes a case ready to run.
pub(super) fn prepare(case: &Case, inputs: &Inputs) -> Result<Run> {
    match case {
        Case::Conv { channels: c, size, batch, gradient } => {
            let dims = [*batch, *size, *size, *c];
            let weight = (inputs.get("weight", &[*c, *c, 3, 3])? / if inputs.0.is_empty() { 20.0 } else { 1.0 })?;
            let op = Conv::new(weight, inputs.get("bias", &[*c])?)?;
            kernel(op, &inputs.get("x", &dims)?, &inputs.get("cot", &dims)?, *gradient, false)
        }
        Case::Norm { channels: c, size, batch, gradient } => {
            let dims = [*batch, *size, *size, *c];
            let (w, b) = (inputs.get("weight", &[*c])?, inputs.get("bias", &[*c])?);
            let op = GroupNorm::new(w, b, 32.min(*c), 1e-6, Modulation::None, true)?;
            kernel(op, &inputs.get("x", &dims)?, &inputs.get("cot", &dims)?, *gradient, false)
        }
        Case::Attention { channels: c, size, batch, heads, gradient } => {
            let x = inputs.get("x", &[*batch, *size, *size, 3 * c])?;
            kernel(Attention { heads: *heads }, &x, &inputs.get("cot", &[*batch, *size, *size, *c])?, *gradient, true)
        }
        Case::Op { op, size, gradient } => super::ops::prepare(op, *size, *gradient, inputs),
        Case::Net { net, batch, gradient } => network(load(net)?, *batch, *gradient, inputs),
        Case::Step { net, batch, nfe, solver, remat } => step(load(net)?, *batch, *nfe, solver, *remat, inputs),
        Case::Pairs { net, batch, nfe } => pairs(load(net)?, *batch, *nfe, inputs),
    }
}

fn network(net: Net, batch: usize, gradient: bool, inputs: &Inputs) -> Result<Run> {
    let dims = dims(&net, batch);
    let (x, cot) = (inputs.get("x", &dims)?, inputs.get("cot", &dims)?);
    let c = inputs.get("c_noise", &[batch])?;
    Ok(Run::once(move || {
        if !gradient {
            return Ok([("y".to_string(), net.forward(&Quiet, &x, &c, &Cond::None)?)].into());
        }
        let (y, pull) = net.linearize(&Quiet, &x, &c, &Cond::None)?;
        let (gx, gc) = pull(&Quiet, &cot)?;
        Ok([("y".to_string(), y), ("gx".into(), gx), ("gc".into(), gc)].into())
    }))
}

/// A denoiser around a network that is timed.
struct Bench {
    den: DynDenoiser,
    noise: noise::Noise,
    spent: Rc<Cell<Duration>>,
}

impl Bench {
    fn new(net: Net) -> Result<Bench> {
        // random weights mean nothing else
        let predicts = Predicts::EdmF { sigma_data: 0.5 };
        let noise = noise::from_spec(&json!({ "name": "edm" }))?;
        let spent = Rc::new(Cell::new(Duration::ZERO));
        let net = Timed { net, spent: spent.clone() };
        let den = Rc::new(Preconditioned::new(Rc::new(net), noise.clone(), predicts)?);
        Ok(Bench { den, noise, spent })
    }
}

/// EDM's steps from 80 to 0.002.
fn steps(nfe: usize) -> Vec<f64> {
    let (from, to) = (80f64.powf(1.0 / 7.0), 0.002f64.powf(1.0 / 7.0));
    (0..=nfe).map(|i| (from + (to - from) * i as f64 / nfe as f64).powi(7)).collect()
}

fn unipc() -> Solver {
    Solver::of(&UNIPC)
}

fn dims(net: &Net, batch: usize) -> Vec<usize> {
    [&[batch], &net.sample_shape().unwrap_or_default()[..]].concat()
}

fn pairs(net: Net, batch: usize, nfe: usize, inputs: &Inputs) -> Result<Run> {
    let x = (inputs.get("x", &dims(&net, batch))? * 80.0)?;
    let Bench { den, noise, spent } = Bench::new(net)?;
    let t = steps(nfe);
    let call = move || {
        let schedule = Schedule::new(noise.clone(), &Tensor::from_slice(&t, nfe + 1, &Device::Cpu)?, "bench")?;
        let y = unipc().plan(&schedule)?.solve(&den, &Quiet, &(&x).into(), &SolveOptions::default(), None)?.x;
        Ok([("y".to_string(), y.tensor()?.clone())].into())
    };
    Ok(Run { call: Box::new(call), times: 1, network: Some(spent) })
}

fn step(net: Net, batch: usize, nfe: usize, solver: &str, remat: bool, inputs: &Inputs) -> Result<Run> {
    let dims = dims(&net, batch);
    let solver = match solver {
        "ipndm" => Solver::of(&IPNDM),
        "unipc" => unipc(),
        other => return Err(Error::unknown("solver", other, ["ipndm", "unipc"])),
    };
    let (x, target) = ((inputs.get("x", &dims)? * 80.0)?, inputs.get("target", &dims)?);
    let Bench { den, noise, spent } = Bench::new(net)?;
    let t = steps(nfe);
    let e: Vec<f64> = t.iter().map(|t| (t * 0.98).max(0.002)).collect();
    let remat = if remat { Remat::Always } else { Remat::Never };
    let opts = SolveOptions { remat, ..SolveOptions::default() };
    let call = move || {
        let t = grad::variable(&Tensor::from_slice(&t, nfe + 1, &Device::Cpu)?)?;
        let e = grad::variable(&Tensor::from_slice(&e, nfe + 1, &Device::Cpu)?)?;
        let x = grad::variable(&x)?;
        let schedule = Schedule::new(noise.clone(), &t, "bench")?.with_eval(Some(&e))?;
        let y = solver.plan(&schedule)?.solve(&den, &Quiet, &(&x).into(), &opts, None)?.x;
        let y = y.tensor()?;
        let loss = (y - &target)?.sqr()?.mean_all()?;
        let g = grad::grad(&Quiet, &loss, &[x, t, e])?;
        let names = ["gx", "gt", "ge"].into_iter().map(String::from);
        let mut out: Tensors = names.zip(g).collect();
        out.insert("y".into(), y.detach());
        Ok(out)
    };
    Ok(Run { call: Box::new(call), times: 1, network: Some(spent) })
}
