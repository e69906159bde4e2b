//! What a text encoder's file and the configuration beside it state, and what is said where that cannot be.
use super::weights::File;
use crate::{Error, Kind, Result};
use serde_json::Value;

/// What transformers writes beside the weights: the metadata entry `config`, nothing where there is none.
pub fn config(file: &File) -> Result<Value> {
    match file.metadata("config") {
        Some(text) => crate::files::json::parse(text).map_err(|e| e.context("the text encoder's configuration")),
        None => Ok(Value::Null),
    }
}

/// What norms add under their root.
pub fn eps(config: &Value, key: &str, default: f64) -> Result<f64> {
    let eps = config[key].as_f64().unwrap_or(default);
    match eps > 0.0 && eps < 1.0 {
        true => Ok(eps),
        false => Err(unknown(key, &eps.to_string(), "small numbers above 0")),
    }
}

/// The two sizes of a weight that must be there.
pub fn shape(file: &File, name: &str) -> Result<[usize; 2]> {
    match file.dims(name) {
        Some(&[a, b]) if a > 0 && b > 0 => Ok([a, b]),
        Some(d) => Err(Error::new(Kind::Format, format!("`{name}` has shape {d:?}, expected two sizes")).shapes(&[d])),
        None => Err(missing(name)),
    }
}

/// A value of the configuration that is none of those that are known.
pub fn unknown(key: &str, value: &str, known: &str) -> Error {
    Error::new(Kind::Format, format!("the text encoder's configuration says `{key}: {value}`; known are {known}"))
        .hint("is its `config.json` that of another kind of network?")
}

/// A weight that is not there.
pub fn missing(name: &str) -> Error {
    let e = Error::new(Kind::Format, format!("the tensor `{name}` of the text encoder is missing"));
    e.hint("the file must hold all of it")
}
