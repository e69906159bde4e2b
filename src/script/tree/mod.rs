//! Trees of tensors: maps and arrays, one in the other, whose leaves are tensors. Read leaf by leaf, each with its path.
//!
//! A map's entries come in the order of their keys, as Rhai keeps them, so trees of one structure have their leaves in one order.
mod api;
mod names;

pub use api::register;
pub use names::{KEY, nest, parse};

use super::error::{RhaiResult, type_of};
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::{Array, Dynamic, Map};

/// Trees within trees: far deeper than anything meant.
const DEEPEST: usize = 40;

/// What a tree is without its tensors.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A tensor.
    Leaf,
    /// Parts in order.
    Array(Vec<Shape>),
    /// Parts by name, in the order of the names.
    Map(Vec<(String, Shape)>),
}

impl Shape {
    fn kind(&self) -> &'static str {
        match self {
            Shape::Leaf => "a tensor",
            Shape::Array(_) => "an array",
            Shape::Map(_) => "a map",
        }
    }

    /// The tree of this structure with these leaves, of which there are as many as it needs.
    pub fn build(&self, leaves: &mut impl Iterator<Item = Tensor>) -> Dynamic {
        match self {
            Shape::Leaf => leaves.next().map_or(Dynamic::UNIT, Dynamic::from),
            Shape::Array(parts) => parts.iter().map(|p| p.build(leaves)).collect::<Array>().into(),
            Shape::Map(parts) => {
                parts.iter().map(|(k, p)| (k.as_str().into(), p.build(leaves))).collect::<Map>().into()
            }
        }
    }

    /// Where two structures part: the path, and what is wrong there with the second.
    fn differs(&self, other: &Shape, path: &str) -> Option<String> {
        let at = spoken(path);
        match (self, other) {
            (Shape::Leaf, Shape::Leaf) => None,
            (Shape::Array(a), Shape::Array(b)) if a.len() != b.len() => {
                Some(format!("{at}: {} entries, not {}", b.len(), a.len()))
            }
            (Shape::Array(a), Shape::Array(b)) => {
                a.iter().zip(b).enumerate().find_map(|(i, (a, b))| a.differs(b, &item(path, i)))
            }
            (Shape::Map(a), Shape::Map(b)) => {
                let lacks = |a: &[(String, Shape)], b: &[(String, Shape)]| {
                    a.iter().find(|(k, _)| !b.iter().any(|(l, _)| k == l)).map(|(k, _)| key(path, k))
                };
                if let Some(missing) = lacks(a, b) {
                    return Some(format!("`{missing}` is missing"));
                }
                if let Some(more) = lacks(b, a) {
                    return Some(format!("`{more}` is one too many"));
                }
                a.iter().zip(b).find_map(|((k, a), (_, b))| a.differs(b, &key(path, k)))
            }
            (a, b) => Some(format!("{at}: {}, not {}", b.kind(), a.kind())),
        }
    }
}

/// A path as messages name it.
fn spoken(path: &str) -> String {
    if path.is_empty() { "at the top".into() } else { format!("`{path}`") }
}

/// The path of an array's entry.
fn item(path: &str, i: usize) -> String {
    format!("{path}[{i}]")
}

/// The path of a map's entry.
fn key(path: &str, key: &str) -> String {
    let plain = key.chars().all(|c| c.is_alphanumeric() || c == '_') && !key.starts_with(|c: char| c.is_ascii_digit());
    match (plain && !key.is_empty(), path.is_empty()) {
        (true, true) => key.into(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[\"{key}\"]"),
    }
}

/// A tree of tensors, read.
#[derive(Debug, Clone)]
pub struct Tree {
    /// Its structure.
    pub shape: Shape,
    /// Its tensors.
    pub leaves: Vec<Tensor>,
    /// The path of each: `layers[2].weight`; empty where the tree is one tensor.
    pub paths: Vec<String>,
}

impl Tree {
    /// Reads a tensor, or maps and arrays of them. `what` names it in errors: "grad: the variables".
    pub fn read(what: &str, v: &Dynamic) -> Result<Tree> {
        let mut tree = Tree { shape: Shape::Leaf, leaves: vec![], paths: vec![] };
        tree.shape = tree.take(what, v, String::new(), 0)?;
        Ok(tree)
    }

    fn take(&mut self, what: &str, v: &Dynamic, path: String, depth: usize) -> Result<Shape> {
        if depth > DEEPEST {
            return Err(Error::value(format!("{what}: more than {DEEPEST} maps and arrays within each other")));
        }
        if let Some(t) = v.read_lock::<Tensor>() {
            self.leaves.push(t.clone());
            self.paths.push(path);
            return Ok(Shape::Leaf);
        }
        if let Some(list) = v.read_lock::<Array>() {
            let parts = list.iter().enumerate().map(|(i, v)| self.take(what, v, item(&path, i), depth + 1));
            return Ok(Shape::Array(parts.collect::<Result<_>>()?));
        }
        if let Some(map) = v.read_lock::<Map>() {
            let parts = map.iter().map(|(k, v)| {
                let shape = self.take(what, v, key(&path, k), depth + 1)?;
                Ok((k.to_string(), shape))
            });
            return Ok(Shape::Map(parts.collect::<Result<_>>()?));
        }
        let found = type_of(v);
        let found = if v.is_unit() { "nothing" } else { found };
        let m = match path.is_empty() {
            true => format!("{what} must be a tensor or a tree of tensors, not {found}"),
            false => format!("{what} must be tensors, not {found} at `{path}`"),
        };
        let e = Error::new(Kind::Type, m);
        Err(e.hint("a tree of tensors is made of maps and arrays; numbers and texts stand outside of it"))
    }

    /// Reads a tree of this one's structure; `this` and `what` name the two in errors.
    pub fn like(&self, this: &str, what: &str, v: &Dynamic) -> Result<Tree> {
        let other = Tree::read(what, v)?;
        match self.shape.differs(&other.shape, "") {
            None => Ok(other),
            Some(why) => {
                let e = Error::value(format!("{what} are another tree than {this}: {why}"));
                Err(e.hint("both must have the same keys, and arrays of the same length"))
            }
        }
    }

    /// The tree of this structure with other tensors, as many.
    pub fn build(&self, leaves: Vec<Tensor>) -> Dynamic {
        self.shape.build(&mut leaves.into_iter())
    }

    /// The tree of this structure with what `f` makes of each tensor.
    pub fn map(&self, f: impl FnMut(&Tensor) -> Result<Tensor>) -> RhaiResult<Dynamic> {
        Ok(self.build(self.leaves.iter().map(f).collect::<Result<_>>()?))
    }

    /// Fails unless tensors at the same places have the same shape.
    pub fn same_sizes(&self, other: &Tree, what: &str) -> Result<()> {
        for ((a, b), path) in self.leaves.iter().zip(&other.leaves).zip(&self.paths) {
            if a.dims() != b.dims() {
                let at = if path.is_empty() { String::new() } else { format!(" at `{path}`") };
                let m = format!("{what}: shapes {:?} and {:?}{at} differ", a.dims(), b.dims());
                return Err(Error::shape(m, &[a.dims(), b.dims()]));
            }
        }
        Ok(())
    }
}
