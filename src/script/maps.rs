//! Maps without silence: reading a key that is not there is an error that names the nearest one. `m.get(key)`, `m.key ?? other`
//! and `key in m` ask without one.
use super::caught::{Blamed, Cause};
use super::error::RhaiResult;
use crate::{Error, Kind};
use rhai::{Dynamic, Engine, EvalContext, ImmutableString, Map, Target};
use std::rc::Rc;

/// Stands before a key that an assignment may add; no key of a script begins with it.
const ADDED: char = '\u{10FFFE}';

/// A key as an assignment writes it.
pub fn added(key: &str) -> ImmutableString {
    format!("{ADDED}{key}").into()
}

/// The error of a key that is not among `known`.
fn unknown(key: &str, known: Vec<&str>) -> Error {
    /// So many keys a hint lists.
    const LISTED: usize = 12;
    let listed = known.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let keys = match known.len() {
        0 => "it is empty".to_string(),
        n if n <= LISTED => format!("its keys: {listed}"),
        n => format!("{LISTED} of its {n} keys: {listed}"),
    };
    let e = Error::new(Kind::Name, format!("the map has no key `{key}`"));
    match crate::error::nearest(key, known) {
        Some(near) => e.hint(format!("did you mean `{near}`? ({keys})")),
        None => e.hint(format!("{keys}; `m.get(\"{key}\")` is () without it, `m.{key} ?? other` is `other`")),
    }
}

/// Rhai asks here for every key that is not in a map.
fn ask<'a>(map: &'a mut Map, key: &str, _: EvalContext) -> RhaiResult<Target<'a>> {
    if let Some(key) = key.strip_prefix(ADDED) {
        return map.entry(key.into()).or_insert(Dynamic::UNIT).try_into();
    }
    let error = unknown(key, map.keys().map(|k| k.as_str()).collect());
    Err(Blamed(Rc::new(error), Cause::MissingKey).into())
}

/// Makes reading a missing key an error.
pub fn register(engine: &mut Engine) {
    engine.on_map_missing_property(ask);
}
