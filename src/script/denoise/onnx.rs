//! The options of `denoiser::onnx`: which input of a model is what.
use crate::nets::onnx::{Asked, Condition};
use crate::script::error::{RhaiResult, type_of};
use crate::script::options::Options;
use crate::{Error, Kind};
use rhai::{Array, Dynamic, Map};

/// The sizes of one sample.
fn sizes(of: &str, all: &Array) -> RhaiResult<Vec<usize>> {
    let one = |v: &Dynamic| v.as_int().ok().and_then(|i| usize::try_from(i).ok()).filter(|n| *n > 0);
    let found = all.iter().map(one).collect::<Option<Vec<_>>>();
    Ok(found.ok_or_else(|| {
        Error::value(format!("{of}: a shape must be an array of sizes ≥ 1, one sample's without the batch"))
    })?)
}

/// One sample's shape for each input.
pub fn shapes(of: &str, all: &Array) -> RhaiResult<Vec<Vec<usize>>> {
    let one = |v: &Dynamic| match v.read_lock::<Array>() {
        Some(a) => sizes(of, &a),
        None => Err(Error::new(
            Kind::Type,
            format!("{of}: the shapes must be arrays, one for each input, not {}", type_of(v)),
        )
        .into()),
    };
    all.iter().map(one).collect()
}

/// What an input stands for: a name, a number that it is held at, or a map.
fn condition(of: &str, name: &str, v: Dynamic) -> RhaiResult<Condition> {
    if let Ok(input) = v.clone().into_string() {
        return Ok(Condition { input, ..Condition::default() });
    }
    let number = v
        .as_float()
        .ok()
        .or_else(|| v.as_int().ok().map(|i| i as f64))
        .or_else(|| v.as_bool().ok().map(|b| f64::from(u8::from(b))));
    if number.is_some() {
        return Ok(Condition { input: name.into(), value: number, ..Condition::default() });
    }
    let kind = type_of(&v);
    let Some(map) = v.try_cast::<Map>() else {
        let e = Error::new(
            Kind::Type,
            format!("{of}: `inputs.{name}` must be the name of an input, a number, or a map, not {kind}"),
        );
        return Err(e.hint("`#{ input: \"class_labels\", classes: 10, none: 10 }`").into());
    };
    let mut o = Options::new(&format!("{of}: inputs.{name}"), map);
    let input = o.string("input")?.unwrap_or_else(|| name.into());
    let shape = o.array("shape")?.map(|a| sizes(of, &a)).transpose()?;
    let (classes, none, value) = (o.count("classes")?, o.count("none")?, o.float("value")?);
    o.finish()?;
    if none.is_some() && classes.is_none() {
        return Err(Error::value(format!("{of}: `none` of `inputs.{name}` goes with `classes`")).into());
    }
    if classes.is_some_and(|n| n == 0 || n > 1 << 24) {
        return Err(Error::value(format!("{of}: `classes` of `inputs.{name}` must be at least 1")).into());
    }
    Ok(Condition { input, shape, classes, none, value })
}

/// Options `inputs`, `shape`, `output`; `name` is taken elsewhere.
pub fn asked(of: &str, o: &mut Options) -> RhaiResult<Asked> {
    let mut asked = Asked { output: o.string("output")?, ..Asked::default() };
    asked.shape = o.array("shape")?.map(|a| sizes(of, &a)).transpose()?;
    let Some(inputs) = o.take("inputs") else { return Ok(asked) };
    let kind = type_of(&inputs);
    let inputs = inputs.try_cast::<Map>().ok_or_else(|| {
        let e = Error::new(Kind::Type, format!("{of}: `inputs` must be a map, not {kind}"));
        e.hint("`inputs: #{ x: \"sample\", time: \"timestep\" }`")
    })?;
    for (name, v) in inputs {
        let input = |v: Dynamic| -> RhaiResult<String> {
            let kind = type_of(&v);
            let wrong = || {
                Error::new(
                    Kind::Type,
                    format!("{of}: `inputs.{name}` must be the name of an input of the model, not {kind}"),
                )
            };
            Ok(v.into_string().map_err(|_| wrong())?)
        };
        match &*name {
            "x" => asked.x = Some(input(v)?),
            "time" if v.is_unit() || v.as_bool() == Ok(false) => asked.time = Some(None),
            "time" => asked.time = Some(Some(input(v)?)),
            _ => asked.conditions.push((name.to_string(), condition(of, &name, v)?)),
        }
    }
    Ok(asked)
}
