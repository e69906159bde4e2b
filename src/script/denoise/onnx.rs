//! `denoiser::onnx`: a network from an ONNX file, as a graph of the networks' kernels.
use super::make::{Meaning, shape_option};
use crate::denoise::{CLASSES, DynDenoiser, Predicts, TimeInput};
use crate::nets::network::{Card, Net, STATE, TIME};
use crate::script::error::RhaiResult;
use crate::script::options::Options;
use crate::script::trace::{Imported, trace};
use crate::{Error, Kind, Result};
use candle_core::{DType, Tensor};
use rhai::{Dynamic, Map};
use std::path::Path;
use std::rc::Rc;

/// An input of the network: its name here, its name in the file, one sample's sizes, whether the file takes integers there.
struct Taken {
    name: String,
    own: String,
    sizes: Vec<usize>,
    whole: bool,
}

/// Which input of the file is which, by `inputs` or by their order.
fn taken(path: &str, model: &Imported, inputs: Option<Map>, shape: Option<Vec<usize>>) -> Result<Vec<Taken>> {
    let ports = model.inputs();
    let names = || ports.iter().map(|p| &*p.0);
    let mut wanted: Vec<(String, String)> = vec![];
    for (key, v) in inputs.unwrap_or_default() {
        let own = v.into_string().map_err(|t| {
            Error::new(Kind::Type, format!("denoiser::onnx: `inputs` must say names of the file, not {t} for `{key}`"))
        })?;
        if !names().any(|n| n == own) {
            return Err(Error::unknown("input of the file", &own, names()));
        }
        wanted.push((key.to_string(), own));
    }
    for (place, key) in [STATE, "time"].into_iter().enumerate() {
        if wanted.iter().all(|(k, _)| k != key) {
            let free = ports.get(place).filter(|p| wanted.iter().all(|(_, own)| *own != p.0));
            let free = free.ok_or_else(|| {
                Error::value(format!("denoiser::onnx: say which input of `{path}` is `{key}`")).hint(format!(
                    "`inputs: #{{ x: …, time: … }}`; the file has {}",
                    names().collect::<Vec<_>>().join(", ")
                ))
            })?;
            wanted.push((key.to_string(), free.0.clone()));
        }
    }
    if let Some((name, ..)) = ports.iter().find(|p| wanted.iter().all(|(_, own)| *own != p.0)) {
        return Err(Error::value(format!("denoiser::onnx: `{path}` takes `{name}` too"))
            .hint(format!("make it a condition: `inputs: #{{ {name}: \"{name}\" }}`")));
    }
    // the state first, then the time, then conditions by name
    wanted.sort_by_key(|(k, _)| (k != STATE, k != "time", k.clone()));
    let one = |(key, own): (String, String)| {
        let port = ports.iter().find(|p| p.0 == own);
        let (sizes, whole) = port.map_or((vec![], false), |p| (p.1.clone(), p.2));
        let rest: Option<Vec<usize>> = sizes.get(1..).and_then(|s| s.iter().copied().collect());
        let sizes = match (&*key, &shape, rest) {
            (STATE, Some(shape), _) => shape.clone(),
            ("time", _, Some(rest)) if !rest.is_empty() => {
                let m = format!("denoiser::onnx: the time `{own}` must have the shape [batch], not {sizes:?}");
                return Err(Error::shape(m, &[]));
            }
            (_, _, Some(rest)) => rest,
            (STATE, ..) => {
                let e = Error::value(format!("denoiser::onnx: `{path}` leaves the shape of `{own}` open"));
                return Err(e.hint("say one sample's: `shape: [3, 32, 32]`"));
            }
            _ => {
                let e =
                    Error::value(format!("denoiser::onnx: the input `{own}` of `{path}` has no batch of known shape"));
                return Err(e.hint("export it with a batch in front, and all other sizes fixed"));
            }
        };
        Ok(Taken { name: if key == "time" { TIME.into() } else { key }, own, sizes, whole })
    };
    wanted.into_iter().map(one).collect()
}

/// The denoiser of a file.
pub fn load(path: &str, options: Map) -> RhaiResult<DynDenoiser> {
    let mut o = Options::new("denoiser::onnx", options);
    let how = Meaning::read("denoiser::onnx", &mut o)?;
    let inputs = o.take("inputs").map(|v: Dynamic| {
        let wrong = |v: Dynamic| {
            Error::new(Kind::Type, format!("denoiser::onnx: `inputs` must be a map, not {}", v.type_name()))
        };
        v.try_cast_result::<Map>().map_err(wrong)
    });
    let (inputs, output, shape) = (inputs.transpose()?, o.string("output")?, shape_option(&mut o)?);
    o.finish()?;
    let model = Imported::read(Path::new(path))?;
    let missing = model.missing();
    if !missing.is_empty() {
        return Err(Error::new(
            Kind::Format,
            format!("`{path}`: operations that are not known: {}", missing.join(", ")),
        )
        .into());
    }
    let takes = taken(path, &model, inputs, shape)?;
    let names = model.outputs();
    let output = match output {
        Some(name) if !names.contains(&name) => {
            return Err(Error::unknown("output of the file", &name, names.iter().map(|n| &**n)).into());
        }
        Some(name) => name,
        None => names.first().cloned().ok_or_else(|| Error::new(Kind::Format, format!("`{path}` has no output")))?,
    };
    let arguments: Vec<_> = takes.iter().map(|t| (&*t.name, t.sizes.clone(), t.name == CLASSES)).collect();
    let run = |given: &[Tensor]| -> Result<Tensor> {
        let typed = |(t, x): (&Taken, &Tensor)| match t.whole {
            true => Ok((t.own.clone(), model.cast(x, DType::I64)?)),
            false => Ok((t.own.clone(), x.clone())),
        };
        let given = takes.iter().zip(given).map(typed).collect::<Result<Vec<_>>>()?;
        let given: Vec<(&str, Tensor)> = given.iter().map(|(n, t)| (&**n, t.clone())).collect();
        let y = model.run(&given, &output)?;
        if y.dims().get(1..) != Some(&takes[0].sizes[..]) {
            let m = format!("`{path}`: `{output}` must have the shape of `{}`, not {:?}", takes[0].own, y.dims());
            return Err(Error::shape(m, &[y.dims()]));
        }
        Ok(y)
    };
    let traced = match trace::<Error>(&arguments, run)? {
        Ok(traced) => traced,
        Err(refusal) => {
            return Err(Error::new(Kind::Format, format!("`{path}` cannot be run as a graph: {}", refusal.why)).into());
        }
    };
    let card = Card {
        kind: "ONNX",
        architecture: "graph",
        predicts: Predicts::Noise,
        time: TimeInput::T,
        trained: [0.0, f64::INFINITY],
        sampled: [0.0, f64::INFINITY],
        classes: vec![],
        half: false,
    };
    how.denoiser(Rc::new(Net::new(traced.runner, card, traced.hash)))
}
