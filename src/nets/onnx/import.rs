//! From a model to a network: which input is which, which sizes they have, and a graph for batches of any size, or for one sample at a time.
use super::data::{Beside, Elem};
use super::lower::{Lower, V};
use super::num::{Size, told};
use super::ops;
use super::read::{self, Along, Model, Tensor as Info};
use crate::denoise::{CLASSES, Predicts, TimeInput};
use crate::files::hash::sha256;
use crate::nets::graph::{Absent, Dim, Graph, Layout, Port};
use crate::nets::kernels::Linear;
use crate::nets::network::{Card, Net, STATE, TIME};
use crate::nets::runner::Runner;
use crate::tensor::random;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Values of a sample's results up to which it is tried whether samples have an effect on each other.
const TRIED: u64 = 1 << 25;

/// Bytes of weights that outgrow the caches (see [`Graph::wide`]).
const WIDE: u64 = 64 << 20;

/// What an input of a model stands for.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// The model's name for it.
    pub input: String,
    /// One sample's shape, where the model leaves it open.
    pub shape: Option<Vec<usize>>,
    /// How many classes there are, where it takes their numbers.
    pub classes: Option<usize>,
    /// The number that says "no class".
    pub none: Option<usize>,
    /// The same number for every entry of every sample.
    pub value: Option<f64>,
}

/// What a user says of a model.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The input that is the state.
    pub x: Option<String>,
    /// The input that is the time; `Some(None)` where there is none.
    pub time: Option<Option<String>>,
    /// Other inputs, by the names that they get.
    pub conditions: Vec<(String, Condition)>,
    /// One sample's shape, where the model leaves it open.
    pub shape: Option<Vec<usize>>,
    /// The output that is the prediction.
    pub output: Option<String>,
    /// What it is called.
    pub name: Option<String>,
}

/// What a port of the graph is.
#[derive(Clone, Debug)]
enum Role {
    /// Numbers as they are.
    Values,
    /// A number for each sample, in the shape that the model has it.
    Time,
    /// Rows of classes, of which the model takes the numbers.
    Labels { classes: usize, none: Option<usize> },
    /// The same number everywhere; no port.
    Held(f64),
}

/// An input of the model with all that is known of it.
#[derive(Clone, Debug)]
struct Given<'m> {
    info: &'m Info,
    port: String,
    role: Role,
    /// The sizes after the batch.
    sizes: Vec<usize>,
    absent: Absent,
}

/// A model as a graph.
pub struct Imported {
    /// What runs it.
    pub runner: Runner,
    /// SHA-256 of the file, of what it read beside it, and of what its inputs were told to be.
    pub hash: String,
}

fn listed<'a>(all: impl IntoIterator<Item = &'a Info>) -> String {
    all.into_iter().map(Info::to_string).collect::<Vec<_>>().join(", ")
}

/// An input or output by its name.
fn by_name<'m>(all: &'m [Info], what: &str, name: &str) -> Result<&'m Info> {
    let found = all.iter().find(|i| i.name == name);
    found.ok_or_else(|| Error::unknown(&format!("{what} of the model"), name, all.iter().map(|i| &*i.name)))
}

impl Info {
    /// Dimensions that are not the batch.
    fn rest(&self) -> &[Along] {
        self.dims.as_deref().and_then(|d| d.get(1..)).unwrap_or_default()
    }
    /// Whether it is one number for each sample.
    fn is_number(&self) -> bool {
        self.dims.as_ref().is_some_and(|d| d.len() < 2 || (d.len() == 2 && d[1] == Along::Size(1)))
    }
    /// Whether it fixes a batch of one.
    fn alone(&self) -> bool {
        match self.dims.as_deref() {
            Some([]) => true,
            Some([first, ..]) => *first == Along::Size(1),
            None => false,
        }
    }
    /// The sizes after the batch: those that the file fixes, those that were said, those of names that are known.
    fn resolved(&self, said: Option<&[usize]>, names: &BTreeMap<String, usize>, option: &str) -> Result<Vec<usize>> {
        let Some(dims) = &self.dims else {
            let missing = || {
                let e = Error::value(format!("the model does not say which shape its input `{}` has", self.name));
                e.hint(format!("say one sample's, without the batch: `{option}`"))
            };
            return said.map(<[usize]>::to_vec).ok_or_else(missing);
        };
        if let Some(Along::Size(n)) = dims.first()
            && *n > 1
        {
            let e = Error::value(format!("the model was exported for batches of {n}: {self}"));
            return Err(e.hint("export it with a dynamic batch (`dynamic_shapes`, `dynamic_axes`), or for one sample"));
        }
        if let Some(said) = said
            && said.len() != self.rest().len()
        {
            let m =
                format!("the shape {said:?} does not fit the model's input {self}, whose first dimension is the batch");
            return Err(Error::shape(m, &[said]));
        }
        let one = |(i, d): (usize, &Along)| match (d, said.map(|s| s[i])) {
            (Along::Size(n), Some(s)) if s != *n => Err(Error::shape(
                format!("the model's input {self} is fixed to {n} where the shape says {s}"),
                &[&[s], &[*n]],
            )),
            (Along::Size(n), _) => Ok(*n),
            (Along::Named(_), Some(s)) => Ok(s),
            (Along::Named(name), None) => names.get(name).filter(|_| !name.is_empty()).copied().ok_or_else(|| {
                let e = Error::value(format!("the model leaves sizes of its input {self} open"));
                e.hint(format!("say one sample's shape, without the batch: `{option}`"))
            }),
        };
        self.rest().iter().enumerate().map(one).collect()
    }
    /// Notes which sizes the names of an input's dimensions have.
    fn names(&self, sizes: &[usize], names: &mut BTreeMap<String, usize>) {
        for (d, n) in self.rest().iter().zip(sizes) {
            if let Along::Named(name) = d {
                names.insert(name.clone(), *n);
            }
        }
    }
}

/// Whether a name is one that times have.
fn is_time(name: &str) -> bool {
    let name = name.to_lowercase();
    let known = [
        "t",
        "time",
        "times",
        "timestep",
        "timesteps",
        "sigma",
        "sigmas",
        "c_noise",
        "noise_labels",
        "noise_level",
        "log_snr",
        "temb",
        "step",
    ];
    known.contains(&&*name) || name.contains("timestep") || name.contains("sigma")
}

/// Which inputs are the state and the time, where the user does not say.
fn found<'m>(model: &'m Model, asked: &Asked) -> Result<(&'m Info, Option<&'m Info>)> {
    let said = |i: &&Info| asked.conditions.iter().any(|(_, c)| c.input == i.name);
    let unclear = |what: &str| {
        let e = Error::value(format!("which input of the model is {what}? it takes {}", listed(&model.inputs)));
        e.hint("say so: `inputs: #{ x: \"sample\", time: \"timestep\" }`")
    };
    let x = match &asked.x {
        Some(name) => by_name(&model.inputs, "input", name)?,
        None => {
            let fits = |i: &&Info| i.elem == Elem::Float && !i.is_number() && !said(i) && !is_time(&i.name);
            let all: Vec<&Info> = model.inputs.iter().filter(fits).collect();
            match all[..] {
                [x] => x,
                [x, ..]
                    if ["x", "sample", "input", "latent", "latents", "image"].contains(&&*x.name.to_lowercase()) =>
                {
                    x
                }
                _ => return Err(unclear("the state x")),
            }
        }
    };
    let time = match &asked.time {
        Some(None) => None,
        Some(Some(name)) => Some(by_name(&model.inputs, "input", name)?),
        None => {
            let rest: Vec<&Info> =
                model.inputs.iter().filter(|i| i.name != x.name && i.is_number() && !said(i)).collect();
            let named: Vec<&&Info> = rest.iter().filter(|i| is_time(&i.name)).collect();
            match (&named[..], &rest[..]) {
                ([t], _) => Some(**t),
                ([], []) => None,
                ([], [t]) if t.elem == Elem::Float => Some(*t),
                _ => return Err(unclear("the time")),
            }
        }
    };
    Ok((x, time))
}

/// A network with a state, a time and conditions. Errors name the file.
pub fn network(path: &Path, asked: &Asked, device: &Device, dtype: DType) -> Result<Net> {
    let model = read::open(path)?;
    let about = |e: Error| if e.kind() == Kind::Cancelled { e } else { e.context(format!("`{}`", path.display())) };
    of_model(&model, asked, device, dtype).map_err(about)
}

fn of_model(model: &Model, asked: &Asked, device: &Device, dtype: DType) -> Result<Net> {
    let (x, time) = found(model, asked)?;
    let mut names = BTreeMap::new();
    let shape = x.resolved(asked.shape.as_deref(), &names, "shape: [3, 64, 64]")?;
    x.names(&shape, &mut names);
    let mut given =
        vec![Given { info: x, port: STATE.into(), role: Role::Values, sizes: shape, absent: Absent::Error }];
    if let Some(time) = time {
        if !time.is_number() && time.dims.is_some() {
            return Err(Error::value(format!(
                "the model's input {time} is no time: that is one number for each sample"
            )));
        }
        given.push(Given { info: time, port: TIME.into(), role: Role::Time, sizes: vec![], absent: Absent::Error });
    }
    let mut conditions = asked.conditions.clone();
    for i in &model.inputs {
        if given.iter().all(|g| g.info.name != i.name) && conditions.iter().all(|(_, c)| c.input != i.name) {
            conditions.push((i.name.clone(), Condition { input: i.name.clone(), ..Condition::default() }));
        }
    }
    for (name, c) in &conditions {
        given.push(condition(model, name, c, &given, &mut names)?);
    }
    let wanted = match &asked.output {
        Some(name) => by_name(&model.outputs, "output", name)?,
        None if model.outputs.len() == 1 => &model.outputs[0],
        None => {
            let e = Error::value(format!(
                "which output of the model is the prediction? it gives {}",
                listed(&model.outputs)
            ));
            return Err(e.hint(format!("say so: `output: \"{}\"`", model.outputs[0].name)));
        }
    };
    let made = import(model, &given, &[wanted], device, dtype, true)?;
    let name = asked.name.clone().or_else(|| model.path.file_stem().map(|s| s.to_string_lossy().into_owned()));
    let card = Card {
        kind: "ONNX",
        architecture: "graph",
        predicts: Predicts::Noise,
        time: TimeInput::T,
        trained: [0.002, 80.0],
        sampled: [0.002, 80.0],
        classes: vec![],
        half: false,
    };
    let net = Net::new(made.runner, card, made.hash);
    Ok(net.named(&name.unwrap_or_else(|| "ONNX".into())))
}

/// What a condition is.
fn condition<'m>(
    model: &'m Model,
    name: &str,
    c: &Condition,
    before: &[Given],
    names: &mut BTreeMap<String, usize>,
) -> Result<Given<'m>> {
    let info = by_name(&model.inputs, "input", &c.input)?;
    if [STATE, TIME].contains(&name) {
        return Err(Error::value(format!("a condition cannot be called `{name}`"))
            .hint("give it another name: `inputs: #{ text: \"…\" }`"));
    }
    if before.iter().any(|g| g.port == name || g.info.name == info.name) {
        return Err(Error::value(format!("the model's input `{}` is told to be two things", info.name)));
    }
    let (port, absent) = (name.to_string(), Absent::Error);
    let option = format!("inputs: #{{ {name}: #{{ input: \"{}\", shape: [77, 768] }} }}", info.name);
    if let Some(v) = c.value {
        let sizes = info.resolved(c.shape.as_deref(), names, &option)?;
        return Ok(Given { info, port, role: Role::Held(v), sizes, absent });
    }
    if let (Some(n), true) = (c.classes, info.is_number()) {
        if name != CLASSES {
            return Err(Error::value(format!("class labels are the condition `{CLASSES}`, not `{name}`"))
                .hint(format!("`inputs: #{{ {CLASSES}: #{{ input: \"{}\", classes: {n} }} }}`", info.name)));
        }
        let absent = if c.none.is_some() { Absent::Zeros } else { Absent::Error };
        return Ok(Given { info, port, role: Role::Labels { classes: n, none: c.none }, sizes: vec![n], absent });
    }
    if info.elem != Elem::Float && info.is_number() {
        let e = Error::value(format!("the model's input {info} is a class, or another number that must be told"));
        return Err(e.hint(format!(
            "say how many classes there are, and which number means none: `inputs: #{{ {CLASSES}: #{{ input: \"{}\", classes: 10, none: 10 }} }}`; or hold it: `#{{ input: \"{}\", value: 0 }}`",
            info.name, info.name
        )));
    }
    let sizes = info.resolved(c.shape.as_deref(), names, &option)?;
    info.names(&sizes, names);
    let absent = if name == CLASSES { Absent::Zeros } else { absent };
    Ok(Given { info, port, role: Role::Values, sizes, absent })
}

/// Any model as a function of its inputs, in order, with its first output or one of a name. `shapes` are of one sample each, for what the
/// model leaves open. It runs on the CPU, in f32 or f64.
pub fn function(path: &Path, shapes: Option<&[Vec<usize>]>, output: Option<&str>, dtype: DType) -> Result<Imported> {
    let model = read::open(path)?;
    let made = || -> Result<Imported> {
        if shapes.is_some_and(|s| s.len() != model.inputs.len()) {
            return Err(Error::value(format!(
                "shapes for {} inputs, but it takes {}",
                shapes.map_or(0, <[_]>::len),
                listed(&model.inputs)
            )));
        }
        let (mut names, mut given) = (BTreeMap::new(), vec![]);
        for (i, info) in model.inputs.iter().enumerate() {
            let said = shapes.map(|s| &s[i][..]);
            let scalar = info.dims.as_ref().is_some_and(Vec::is_empty);
            let sizes =
                if scalar { vec![] } else { info.resolved(said, &names, "graph::onnx(path, [[3, 64, 64], []])")? };
            info.names(&sizes, &mut names);
            let role = if scalar { Role::Time } else { Role::Values };
            given.push(Given { info, port: info.name.clone(), role, sizes, absent: Absent::Error });
        }
        let wanted = match output {
            Some(name) => by_name(&model.outputs, "output", name)?,
            None => &model.outputs[0],
        };
        import(&model, &given, &[wanted], &Device::Cpu, dtype, false)
    };
    made().map_err(|e| if e.kind() == Kind::Cancelled { e } else { e.context(format!("`{}`", path.display())) })
}

/// The graph of a model: for batches if it can be one, else for one sample at a time.
fn import(
    model: &Model,
    given: &[Given],
    wanted: &[&Info],
    device: &Device,
    dtype: DType,
    like_x: bool,
) -> Result<Imported> {
    if given.is_empty() {
        return Err(Error::value("the model has no inputs"));
    }
    let fixed = given.iter().find(|g| g.info.alone());
    let mut why = fixed.map(|g| format!("it was exported for one sample ({})", g.info));
    let mut made = None;
    if why.is_none() {
        match build(model, given, wanted, device, dtype, false, like_x) {
            Ok(found) => match independent(&found.runner, given)? {
                true => made = Some(found),
                false => why = Some("samples of a batch have an effect on each other".into()),
            },
            Err(e) if matches!(e.kind(), Kind::Cancelled | Kind::Memory | Kind::Io | Kind::Permission) => {
                return Err(e);
            }
            Err(e) => why = Some(e.message().to_string()),
        }
    }
    match made {
        Some(found) => Ok(found),
        None => {
            let found = build(model, given, wanted, device, dtype, true, like_x)?;
            if let (None, Some(why)) = (fixed, why) {
                crate::host::note(&format!("`{}` runs one sample at a time: {why}", model.path.display()));
            }
            Ok(found)
        }
    }
}

fn build(
    model: &Model,
    given: &[Given],
    wanted: &[&Info],
    device: &Device,
    dtype: DType,
    alone: bool,
    like_x: bool,
) -> Result<Imported> {
    let batch = if alone { Size::Fixed(1) } else { Size::Per(1) };
    let with_batch =
        |sizes: &[usize]| [&[batch], &sizes.iter().map(|n| Size::Fixed(*n)).collect::<Vec<_>>()[..]].concat();
    let mut ports = vec![];
    for g in given.iter().filter(|g| !matches!(g.role, Role::Held(_))) {
        let dims = g.sizes.iter().map(|n| Dim::Exactly(*n)).collect();
        let port = Port { name: g.port.clone(), dims, layout: Layout::Plain, absent: g.absent };
        ports.push((port, with_batch(&g.sizes)));
    }
    // every network has a time, even one that does not ask for it
    if like_x && !ports.iter().any(|(p, _)| p.name == TIME) {
        let port = Port { name: TIME.into(), dims: vec![], layout: Layout::Plain, absent: Absent::Error };
        ports.insert(1, (port, with_batch(&[])));
    }
    let order: Vec<String> = ports.iter().map(|(p, _)| p.name.clone()).collect();
    let mut beside = Beside::new(&model.path);
    let mut low = Lower::new(model, &mut beside, ports, dtype, device);
    let mut values: Vec<(&str, V)> = vec![];
    for g in given {
        let v = match (&g.role, order.iter().position(|n| *n == g.port)) {
            (Role::Held(x), _) => {
                let dims: Vec<usize> = with_batch(&g.sizes).iter().map(|s| s.of(1)).collect();
                low.room(&dims)?;
                let t = Tensor::full(*x as f32, dims, &Device::Cpu)?;
                low.constant(g.info.elem, with_batch(&g.sizes), t)
            }
            (role, Some(p)) => {
                let v = low.port(p, g.info.elem);
                match role {
                    Role::Labels { classes, none } => {
                        // Σ (k − none) · row_k + none: the number of the row's class, or that of none
                        let none = none.unwrap_or(0) as f64;
                        let row: Vec<f64> = (0..*classes).map(|k| k as f64 - none).collect();
                        let like = |t: Tensor| Ok::<_, Error>(t.to_dtype(low.dtype())?.to_device(low.device())?);
                        let (w, b) = (
                            like(Tensor::from_vec(row, (1, *classes), &Device::Cpu)?)?,
                            like(Tensor::new(&[none], &Device::Cpu)?)?,
                        );
                        let v = low.apply(Linear::new(&w, b)?, v)?;
                        let v = shaped_as(&mut low, v, g.info, batch)?;
                        low.note(v, ops::Note::Classes(*classes));
                        v
                    }
                    Role::Time => shaped_as(&mut low, v, g.info, batch)?,
                    _ => v,
                }
            }
            (_, None) => return Err(Error::new(Kind::Internal, "an input of the model was lost")),
        };
        values.push((&g.info.name, v));
    }
    let names: Vec<&str> = wanted.iter().map(|w| &*w.name).collect();
    let mut made = low.graph(&model.graph, values, &names)?;
    if like_x {
        let x = with_batch(&given[0].sizes);
        made[0] = predicted(&mut low, made[0], &x, names[0])?;
    } else {
        for (v, name) in made.iter_mut().zip(&names) {
            if low.sizes(*v).first() != Some(&batch) {
                let m = format!("its output `{name}` {} does not have the batch in front", told(low.sizes(*v)));
                return Err(Error::value(m));
            }
        }
    }
    let outputs: Vec<(String, V)> = names.iter().map(|n| n.to_string()).zip(made).collect();
    let mut graph: Graph = low.finished(&outputs)?;
    graph.wide = model.bytes.saturating_add(beside.bytes()) > WIDE;
    let roles: Vec<String> =
        given.iter().map(|g| format!("{} {} {:?} {:?}", g.info.name, g.port, g.role, g.sizes)).collect();
    let hash = sha256(format!("onnx {} {} {} {names:?}", model.hash, beside.told(), roles.join("; ")).as_bytes());
    Ok(Imported { runner: Runner::new(graph, device, dtype), hash })
}

/// One number for each sample in the shape that the model has it.
fn shaped_as(low: &mut Lower, v: V, info: &Info, batch: Size) -> Result<V> {
    let rank = info.dims.as_ref().map_or(1, Vec::len);
    let sizes = match rank {
        0 => vec![],
        1 => vec![batch],
        _ => vec![batch, Size::Fixed(1)],
    };
    low.reshaped(v, sizes)
}

/// The prediction: of the state's shape, or the first half of the channels where variances follow it.
fn predicted(low: &mut Lower, v: V, x: &[Size], name: &str) -> Result<V> {
    let have = low.sizes(v).to_vec();
    if have == x {
        return Ok(v);
    }
    if let (Some(Size::Fixed(c)), Some(Size::Fixed(twice))) = (x.get(1), have.get(1))
        && have.len() == x.len()
        && *twice == 2 * c
        && have[2..] == x[2..]
    {
        return ops::first(low, v, *c);
    }
    let m = format!("its output `{name}` has shape {}, but the state has {}", told(&have), told(x));
    Err(Error::value(m)
        .hint("a denoiser predicts something of its input's shape; `graph::onnx` runs any other network"))
}

/// Whether each sample of a batch gets what it gets alone, on random inputs; taken for granted where that would take long.
fn independent(runner: &Runner, given: &[Given]) -> Result<bool> {
    let ports = &runner.graph().inputs;
    let wanted: Vec<&str> = ports.iter().map(|p| &*p.name).collect();
    let cost: u64 = runner.graph().nodes.iter().flat_map(|n| &n.dims).map(|d| d.iter().product::<usize>() as u64).sum();
    if cost > TRIED || runner.kept(2, &wanted).is_err() {
        return Ok(true);
    }
    let mut probes = vec![];
    for (i, port) in ports.iter().enumerate() {
        let dims = [&[3], &port.sizes()[..]].concat();
        let role = given.iter().find(|g| g.port == port.name).map(|g| (&g.role, g.info.elem));
        let n: usize = dims.iter().product();
        probes.push(match role {
            Some((Role::Labels { classes, .. }, _)) => {
                let one = |k: usize| if k % classes == (k / classes) % classes { 1f32 } else { 0.0 };
                Tensor::from_vec((0..n).map(one).collect(), dims, &Device::Cpu)?
            }
            // small numbers, which any table has
            Some((_, Elem::Int | Elem::Bool)) => {
                Tensor::from_vec((0..n).map(|k| (k % 2) as f32).collect::<Vec<_>>(), dims, &Device::Cpu)?
            }
            _ => {
                let x = random::normal(i as u64 + 1, 0, &dims, random::stream::NORMAL, DType::F32, &Device::Cpu)?;
                if port.dims.is_empty() { x.tanh()?.affine(0.3, 0.6)? } else { x }
            }
        });
    }
    let run = |of: &[Tensor]| -> Result<Vec<f32>> {
        let all: Vec<(&str, &Tensor)> = wanted.iter().copied().zip(of).collect();
        let y = runner.forward(&all)?.remove(0);
        Ok(y.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    };
    let together = run(&probes)?;
    let len = together.len() / 3;
    let most = together.iter().filter(|v| v.is_finite()).fold(0f32, |m, v| m.max(v.abs()));
    for i in 0..3 {
        let one = probes.iter().map(|t| t.narrow(0, i, 1)?.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
        let alone = run(&one)?;
        let near = |(a, b): (&f32, &f32)| !b.is_finite() || (a - b).abs() <= 5e-4 * most + 1e-9;
        if alone.len() != len || !alone.iter().zip(&together[i * len..]).all(near) {
            return Ok(false);
        }
    }
    Ok(true)
}
