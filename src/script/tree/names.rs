//! Trees in files: each leaf under its path with dots, `layers.2.weight`, and the structure beside them, as JSON.
use super::{Shape, Tree};
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::{Array, Dynamic, Map};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The entry of a file's metadata that holds the structure.
pub const KEY: &str = "ld3sh.tree";

impl Tree {
    /// The names of the leaves with dots, as PyTorch has them.
    ///
    /// Errors: two leaves of one name (a key may have a dot itself), a tree that is a tensor alone.
    pub fn dotted(&self) -> Result<Vec<String>> {
        let mut names = vec![];
        dots(&self.shape, String::new(), &mut names);
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|n| !seen.insert(n.as_str())) {
            let e = Error::value(format!("two tensors of the tree would be called `{twice}`"));
            return Err(e.hint("use keys without dots"));
        }
        Ok(names)
    }

    /// Whether it is a map of tensors, which needs no structure beside it.
    pub fn is_flat(&self) -> bool {
        matches!(&self.shape, Shape::Map(parts) if parts.iter().all(|(_, p)| *p == Shape::Leaf))
    }

    /// The structure as JSON: arrays, maps, and the name of each leaf.
    pub fn structure(&self, names: &[String]) -> String {
        json(&self.shape, &mut names.iter()).to_string()
    }
}

fn dots(shape: &Shape, name: String, names: &mut Vec<String>) {
    let under = |k: &str| if name.is_empty() { k.to_string() } else { format!("{name}.{k}") };
    match shape {
        Shape::Leaf => names.push(name),
        Shape::Array(parts) => parts.iter().enumerate().for_each(|(i, p)| dots(p, under(&i.to_string()), names)),
        Shape::Map(parts) => parts.iter().for_each(|(k, p)| dots(p, under(k), names)),
    }
}

fn json<'a>(shape: &Shape, names: &mut impl Iterator<Item = &'a String>) -> Value {
    match shape {
        Shape::Leaf => names.next().map_or(Value::Null, |n| n.as_str().into()),
        Shape::Array(parts) => parts.iter().map(|p| json(p, names)).collect::<Vec<_>>().into(),
        Shape::Map(parts) => Value::Object(parts.iter().map(|(k, p)| (k.clone(), json(p, names))).collect()),
    }
}

/// The tree of this structure from a file's tensors.
///
/// Errors: no structure, a leaf that the file lacks, tensors that are no leaves.
pub fn parse(structure: &str, tensors: Vec<(String, Tensor)>) -> Result<Dynamic> {
    let broken = || Error::new(Kind::Format, format!("`{KEY}` in the metadata is no structure of a tree"));
    let value = crate::files::json::parse(structure).map_err(|_| broken())?;
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let tree = read(&value, &mut tensors, &broken)?;
    match tensors.keys().next() {
        None => Ok(tree),
        Some(name) => Err(Error::new(Kind::Format, format!("the tensor `{name}` has no place in the tree"))),
    }
}

fn read(v: &Value, tensors: &mut BTreeMap<String, Tensor>, broken: &dyn Fn() -> Error) -> Result<Dynamic> {
    Ok(match v {
        Value::String(name) => match tensors.remove(name) {
            Some(t) => Dynamic::from(t),
            None => return Err(Error::new(Kind::Format, format!("the tensor `{name}` of the tree is missing"))),
        },
        Value::Array(parts) => parts.iter().map(|p| read(p, tensors, broken)).collect::<Result<Array>>()?.into(),
        Value::Object(parts) => {
            let parts = parts.iter().map(|(k, p)| Ok((k.as_str().into(), read(p, tensors, broken)?)));
            parts.collect::<Result<Map>>()?.into()
        }
        _ => return Err(broken()),
    })
}

/// A part of a tree that is being made from names.
#[derive(Default)]
struct Node {
    leaf: Option<Tensor>,
    parts: BTreeMap<String, Node>,
}

/// The tree of tensors by dotted names, as PyTorch's files have them: `layers.2.weight` becomes `layers[2].weight`. Names 0, 1, … without
/// a gap make an array, all others a map.
///
/// Errors: a name that is a tensor's and the beginning of another's.
pub fn nest(tensors: Vec<(String, Tensor)>) -> Result<Dynamic> {
    let mut top = Node::default();
    for (name, t) in tensors {
        let mut at = &mut top;
        for part in name.split('.') {
            at = at.parts.entry(part.into()).or_default();
        }
        at.leaf = Some(t);
    }
    top.made("")
}

impl Node {
    fn made(self, path: &str) -> Result<Dynamic> {
        if let Some(t) = self.leaf {
            if let Some(more) = self.parts.keys().next() {
                let m = format!("tree::nest: `{path}` is a tensor, and `{path}.{more}` would lie in it");
                return Err(Error::value(m));
            }
            return Ok(Dynamic::from(t));
        }
        let n = self.parts.len();
        let listed = n > 0 && (0..n).all(|i| self.parts.contains_key(&i.to_string()));
        let mut made = self.parts.into_iter().map(|(k, p)| {
            let path = if path.is_empty() { k.clone() } else { format!("{path}.{k}") };
            Ok::<_, Error>((k, p.made(&path)?))
        });
        if !listed {
            let map = made.by_ref().map(|e| e.map(|(k, v)| (k.as_str().into(), v)));
            return Ok(map.collect::<Result<Map>>()?.into());
        }
        let mut all: Vec<(usize, Dynamic)> =
            made.map(|e| e.map(|(k, v)| (k.parse().unwrap_or(0), v))).collect::<Result<_>>()?;
        all.sort_by_key(|(i, _)| *i);
        Ok(all.into_iter().map(|(_, v)| v).collect::<Array>().into())
    }
}
