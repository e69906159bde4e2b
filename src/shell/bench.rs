//! `ld3sh bench`: times the kernels, network evaluations and training steps of this binary on this machine.
//!
//! With `--serve FILE` it is one side of a comparison: inputs come from a safetensors file whose metadata names the case,
//! results go to FILE.out, and then each line on standard input asks for one run, answered with milliseconds.
use crate::denoise::{Cond, DynDenoiser, Network, Preconditioned, Predicts};
use crate::discretize::Schedule;
use crate::host::Quiet;
use crate::nets::edm::{self, Config, EdmNet, Source};
use crate::nets::kernels::{self, Attention, Conv, Frozen, GroupNorm, Modulation, View};
use crate::plan::{Remat, SolveOptions, Tracked};
use crate::script::engine::print_line;
use crate::solve::{Method, Solver, UnipcOptions};
use crate::tensor::device::{default_device, parse_device, set_default_device};
use crate::tensor::dtype::parse as parse_dtype;
use crate::tensor::grad;
use crate::{Error, Kind, Result, noise};
use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use serde_json::json;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// What is timed, as the metadata entry `case` of a file or a row of [`CASES`] says it.
#[derive(Deserialize, Clone, Debug)]
#[serde(tag = "what", rename_all = "lowercase", deny_unknown_fields)]
enum Case {
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
}

/// Named network sizes, with random weights.
const SIZES: [(&str, &str); 2] = [
    ("cifar10", r#"{"img_resolution": 32, "img_channels": 3, "augment_dim": 9, "channel_mult": [2, 2, 2]}"#),
    ("ffhq64", r#"{"img_resolution": 64, "img_channels": 3, "augment_dim": 9, "channel_mult": [1, 2, 2, 2]}"#),
];

/// What `ld3sh bench` times when it is not told, as name and case.
const CASES: [(&str, &str); 10] = [
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
];

type Tensors = HashMap<String, Tensor>;
/// One run of a case: its results by name.
type Run = Box<dyn FnMut() -> Result<Tensors>>;

thread_local! {
    /// The type of networks inside.
    static DTYPE: Cell<DType> = const { Cell::new(DType::F32) };
}

fn load(name: &str) -> Result<EdmNet> {
    let (device, dtype) = (default_device(), DTYPE.get());
    if let Some((_, config)) = SIZES.iter().find(|(n, _)| *n == name) {
        return EdmNet::random_in(&Config::parse(config)?, 0, &device, dtype);
    }
    let source = match edm::builtins().find(|n| *n == name) {
        Some(n) => Source::Builtin(n),
        None => Source::Path(name.into()),
    };
    edm::load(&source, &device, dtype)
}

/// The inputs of a case, where no file gives them: normal numbers of the shapes that the case needs.
struct Inputs(Tensors);

impl Inputs {
    fn get(&self, name: &str, dims: &[usize]) -> Result<Tensor> {
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
        return Ok(Box::new(move || {
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
    Ok(Box::new(move || {
        let view = [View { data: &x, dims: &dims }];
        let mut results = Tensors::new();
        if !gradient || both {
            op.run(&view, &mut out, true);
            results.insert("y".into(), Tensor::from_slice(&out, &out_dims[..], &Device::Cpu)?);
        }
        if gradient {
            let g = op.pull(&view, &cot, true).swap_remove(0);
            results.insert("gx".into(), Tensor::from_vec(g, &dims[..], &Device::Cpu)?);
        }
        Ok(results)
    }))
}

fn prepare(case: &Case, inputs: &Inputs) -> Result<Run> {
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
        Case::Net { net, batch, gradient } => network(load(net)?, *batch, *gradient, inputs),
        Case::Step { net, batch, nfe, solver, remat } => step(load(net)?, *batch, *nfe, solver, *remat, inputs),
    }
}

fn network(net: EdmNet, batch: usize, gradient: bool, inputs: &Inputs) -> Result<Run> {
    let m = net.meta();
    let dims = [batch, m.channels, m.resolution, m.resolution];
    let (x, cot) = (inputs.get("x", &dims)?, inputs.get("cot", &dims)?);
    let c = inputs.get("c_noise", &[batch])?;
    Ok(Box::new(move || {
        if !gradient {
            return Ok([("y".to_string(), net.forward(&Quiet, &x, &c, &Cond::None)?)].into());
        }
        let (y, pull) = net.linearize(&Quiet, &x, &c, &Cond::None)?;
        let (gx, gc) = pull(&Quiet, &cot)?;
        Ok([("y".to_string(), y), ("gx".into(), gx), ("gc".into(), gc)].into())
    }))
}

fn step(net: EdmNet, batch: usize, nfe: usize, solver: &str, remat: bool, inputs: &Inputs) -> Result<Run> {
    let m = net.meta();
    let dims = [batch, m.channels, m.resolution, m.resolution];
    let predicts = Predicts::EdmF { sigma_data: m.sigma_data };
    let solver = Solver::from(match solver {
        "ipndm" => Method::Ipndm { order: 3 },
        "unipc" => Method::Unipc { order: 3, options: UnipcOptions::default() },
        other => return Err(Error::unknown("solver", other, ["ipndm", "unipc"])),
    });
    let spec = json!({ "name": "edm" });
    let noise = noise::from_spec(&spec)?;
    let den: DynDenoiser = Rc::new(Preconditioned::new(Rc::new(net), noise.clone(), predicts)?);
    let (x, target) = ((inputs.get("x", &dims)? * 80.0)?, inputs.get("target", &dims)?);
    let t: Vec<f64> = (0..=nfe)
        .map(|i| {
            let (from, to) = (80f64.powf(1.0 / 7.0), 0.002f64.powf(1.0 / 7.0));
            (from + (to - from) * i as f64 / nfe as f64).powi(7)
        })
        .collect();
    let e: Vec<f64> = t.iter().map(|t| (t * 0.98).max(0.002)).collect();
    let remat = if remat { Remat::Always } else { Remat::Never };
    let opts = SolveOptions { remat, ..SolveOptions::default() };
    Ok(Box::new(move || {
        let t = grad::variable(&Tensor::from_slice(&t, nfe + 1, &Device::Cpu)?)?;
        let e = grad::variable(&Tensor::from_slice(&e, nfe + 1, &Device::Cpu)?)?;
        let x = grad::variable(&x)?;
        let schedule = Schedule::new(noise.clone(), &t, "bench")?.with_eval(Some(&e))?;
        let y = Tracked::new(&solver, &schedule)?.solve(&den, &Quiet, &x, &opts, None)?.x;
        let loss = (&y - &target)?.sqr()?.mean_all()?;
        let g = grad::grad(&Quiet, &loss, &[x, t, e])?;
        let names = ["gx", "gt", "ge"].into_iter().map(String::from);
        let mut out: Tensors = names.zip(g).collect();
        out.insert("y".into(), y.detach());
        Ok(out)
    }))
}

/// The largest resident size of this process so far in MiB, where the system tells.
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

fn serve(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let bad = |e: String| Error::new(Kind::Format, e).context(format!("`{}`", path.display()));
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let case = header.metadata().as_ref().and_then(|m| m.get("case")).ok_or_else(|| bad("no `case`".into()))?;
    let case: Case = serde_json::from_str(case).map_err(|e| bad(e.to_string()))?;
    let mut run = prepare(&case, &Inputs(candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?))?;
    candle_core::safetensors::save(&run()?, path.with_extension("out"))?;
    let say = |v: serde_json::Value| {
        print_line(&v.to_string());
        std::io::stdout().flush().map_err(|e| Error::io(Path::new("standard output"), "write", e))
    };
    say(json!({ "ready": true }))?;
    for line in std::io::stdin().lock().lines() {
        line.map_err(|e| Error::io(Path::new("standard input"), "read", e))?;
        let start = Instant::now();
        run()?;
        say(json!({ "ms": start.elapsed().as_secs_f64() * 1e3, "peak_mib": peak_mib() }))?;
    }
    Ok(())
}

/// Runs at least three times and for about a second; milliseconds, best and median.
fn time(run: &mut Run) -> Result<(f64, f64, usize)> {
    run()?;
    let (mut ms, begin) = (vec![], Instant::now());
    // what a GPU was told to do is done when it says so
    let device = default_device();
    device.synchronize()?;
    while ms.len() < 3 || (begin.elapsed().as_secs_f64() < 1.0 && ms.len() < 1000) {
        crate::host::check_cancelled()?;
        let start = Instant::now();
        run()?;
        device.synchronize()?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    ms.sort_by(f64::total_cmp);
    Ok((ms[0], ms[ms.len() / 2], ms.len()))
}

/// `ld3sh bench [conv|norm|attention|net|step|CASE…] [--json] [--exact-conv] [--device=cuda] [--dtype=bf16] [--tf32]`, or
/// `ld3sh bench --serve FILE`.
pub fn run(words: &[String]) -> Result<()> {
    if let [flag, path] = words
        && flag == "--serve"
    {
        return serve(Path::new(path));
    }
    let (flags, names): (Vec<&String>, Vec<&String>) = words.iter().partition(|w| w.starts_with("--"));
    let known = ["--json", "--exact-conv", "--tf32", "--device=cuda", "--dtype=bf16", "--serve"];
    for f in &flags {
        match f.split_once('=') {
            Some(("--device", name)) => set_default_device(parse_device(name)?),
            Some(("--dtype", name)) => DTYPE.set(parse_dtype(name)?),
            None if known[..3].contains(&f.as_str()) => {}
            _ => return Err(Error::unknown("option of `bench`", f, known)),
        }
    }
    let given = |name: &str| flags.iter().any(|f| *f == name);
    kernels::set_exact(given("--exact-conv"));
    candle_core::cuda::set_gemm_reduced_precision_f32(given("--tf32"));
    let as_json = given("--json");
    let mut cases: Vec<Case> = vec![];
    let parse = |text: &str| {
        serde_json::from_str(text).map_err(|e| Error::value(format!("`{text}` is not a case of `bench`: {e}")))
    };
    for name in names {
        let named: Vec<&str> = CASES.iter().filter(|(n, _)| n == name).map(|(_, c)| *c).collect();
        match (named.is_empty(), name.starts_with('{')) {
            (true, true) => cases.push(parse(name)?),
            (true, false) => return Err(Error::unknown("case of `bench`", name, CASES.iter().map(|(n, _)| *n))),
            _ => cases.extend(named.into_iter().map(parse).collect::<Result<Vec<_>>>()?),
        }
    }
    if cases.is_empty() {
        cases = CASES.iter().map(|(_, c)| parse(c)).collect::<Result<_>>()?;
    }
    if !as_json {
        print_line(&format!(
            "{:>10} {:>10} {:>6}  case ({} threads)",
            "best ms",
            "median ms",
            "runs",
            rayon::current_num_threads()
        ));
    }
    for case in &cases {
        let mut run = prepare(case, &Inputs(Tensors::new()))?;
        let (best, median, runs) = time(&mut run)?;
        if as_json {
            let name = format!("{case:?}");
            print_line(&format!(
                "{}",
                json!({ "case": name, "ms": best, "median_ms": median, "runs": runs, "peak_mib": peak_mib() })
            ));
        } else {
            print_line(&format!("{best:10.3} {median:10.3} {runs:6}  {case:?}"));
        }
    }
    if let (false, Some(peak)) = (as_json, peak_mib()) {
        print_line(&format!("peak resident size {peak:.0} MiB"));
    }
    Ok(())
}
