//! The options of `denoiser::onnx`: which input of a model is what.
use crate::nets::onnx::{Asked, Condition};
use crate::schema::{Kind as Of, Opt, value};
use crate::script::error::{RhaiResult, type_of};
use crate::script::options::{Given, read};
use crate::{Error, Kind};
use rhai::{Dynamic, Map};

/// What a map says of an input.
const CONDITION: &[Opt] = &[
    value("input", Of::Text, "", ""),
    value("shape", Of::SIZES, "", ""),
    value("classes", Of::Count(1, 1 << 24), "", ""),
    value("none", Of::COUNT, "", ""),
    value("value", Of::NUMBER, "", ""),
];

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
    let o = read(&format!("{of}: inputs.{name}"), CONDITION.iter(), map)?;
    let input = o.some_text("input").unwrap_or_else(|| name.into());
    let (shape, value) = (o.counts("shape"), o.some_number("value"));
    let (classes, none) = (o.some_count("classes"), o.some_count("none"));
    if none.is_some() && classes.is_none() {
        return Err(Error::value(format!("{of}: `none` of `inputs.{name}` goes with `classes`")).into());
    }
    Ok(Condition { input, shape, classes, none, value })
}

/// Options `inputs`, `shape`, `output` and `name`.
pub fn asked(o: &Given) -> RhaiResult<Asked> {
    let of = o.of();
    let (output, shape, name) = (o.some_text("output"), o.counts("shape"), o.some_text("name"));
    let mut asked = Asked { output, shape, name, ..Asked::default() };
    for (name, v) in o.native::<Map>("inputs").unwrap_or_default() {
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
