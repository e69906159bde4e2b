//! What a pickle describes: nodes that refer to one another by number.
use super::Shared;
use std::borrow::Cow;
use std::sync::Arc;

/// The most bytes of a name: of a class, a key, a storage. Values that refer to one long text many times cost nothing
/// so long as nobody reads it as a name.
pub const LONGEST_NAME: usize = 1024;

/// A node of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub(super) u32);

/// Bytes that lie in the file, or that had to be decoded.
#[derive(Debug, Clone)]
pub enum Blob {
    /// Offset and length in the file.
    Here(usize, usize),
    /// Decoded from an escaped form.
    Own(Arc<[u8]>),
}

/// A value as the pickle gives it.
#[derive(Debug, Clone)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// Any other integer: little-endian, two's complement.
    Big(Blob),
    /// A float.
    Float(f64),
    /// A string; UTF-8 as a rule, but nothing guarantees it.
    Text(Blob),
    /// `bytes` or `bytearray`.
    Bytes(Blob),
    /// A list.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Box<[Id]>),
    /// A set or frozenset.
    Set(Vec<Id>),
    /// A dictionary, in the order of insertion; a key may come twice, the last counts.
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function: module and name, two texts.
    Global(Id, Id),
    /// A class number of the sender's registry.
    Extension(u32),
    /// An object that the file keeps elsewhere, by its name.
    Persistent(Id),
    /// Anything made by calling something.
    Record(Box<Record>),
}

/// An object that Python would make by calling a class or function. Nothing is called: this is what was asked for.
#[derive(Debug, Clone)]
pub struct Record {
    /// What would be called: a [`Value::Global`] as a rule.
    pub class: Id,
    /// The arguments: a [`Value::Tuple`] as a rule.
    pub args: Id,
    /// The keyword arguments.
    pub kwargs: Option<Id>,
    /// The state that it would be given afterwards.
    pub state: Option<Id>,
    /// What would be appended or added to it.
    pub items: Vec<Id>,
    /// Keys and values that would be set in it.
    pub pairs: Vec<(Id, Id)>,
}

/// The values of one pickle.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(super) data: Shared,
    pub(super) nodes: Vec<Value>,
    pub(super) offsets: Vec<usize>,
    pub(super) root: Id,
}

impl Tree {
    /// The value that the pickle as a whole stands for.
    pub fn root(&self) -> Id {
        self.root
    }
    /// A node's value. A number that is not of this tree gives `None`.
    pub fn value(&self, id: Id) -> &Value {
        self.nodes.get(id.0 as usize).unwrap_or(&Value::None)
    }
    /// Where in the file the instruction stands that made the node.
    pub fn offset(&self, id: Id) -> usize {
        self.offsets.get(id.0 as usize).copied().unwrap_or_default()
    }
    /// The nodes in the order in which they were made.
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        (0..self.nodes.len() as u32).map(Id)
    }
    /// The bytes of a blob.
    pub fn blob<'a>(&'a self, blob: &'a Blob) -> &'a [u8] {
        match blob {
            Blob::Here(start, len) => self.data.get(*start..start.saturating_add(*len)).unwrap_or_default(),
            Blob::Own(bytes) => bytes,
        }
    }
    /// The bytes of a blob, sharing the file where they lie in it.
    pub fn share(&self, blob: &Blob) -> Shared {
        match blob {
            Blob::Here(start, len) => self.data.part(*start, *len).unwrap_or_else(|| Shared::new([])),
            Blob::Own(bytes) => Shared::new(bytes.clone()),
        }
    }
    /// The text of a node, if it is one.
    pub fn text(&self, id: Id) -> Option<Cow<'_, str>> {
        match self.value(id) {
            Value::Text(blob) => Some(String::from_utf8_lossy(self.blob(blob))),
            _ => None,
        }
    }
    /// The text of a node that is a name: UTF-8 of at most [`LONGEST_NAME`] bytes.
    pub fn name(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(blob) => {
                Some(self.blob(blob)).filter(|b| b.len() <= LONGEST_NAME).and_then(|b| str::from_utf8(b).ok())
            }
            _ => None,
        }
    }
    /// Module and name of a class or function.
    pub fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.value(id) {
            Value::Global(module, name) => Some((self.name(*module)?, self.name(*name)?)),
            _ => None,
        }
    }
    /// The whole number ≥ 0 of a node.
    pub fn natural(&self, id: Id) -> Option<usize> {
        match self.value(id) {
            Value::Int(i) => usize::try_from(*i).ok(),
            _ => None,
        }
    }
    /// The members of a list, tuple or set.
    pub fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::List(v) | Value::Set(v) => Some(v),
            Value::Tuple(v) => Some(v),
            _ => None,
        }
    }
}
