//! What a network is made of, read off the names and shapes of its tensors.
use crate::{Error, Kind, Result};
use std::collections::BTreeMap;

/// Names with shapes.
pub struct Shapes(pub BTreeMap<String, Vec<usize>>);

impl Shapes {
    /// Whether a name begins so.
    pub fn any(&self, prefix: &str) -> bool {
        self.0.range(prefix.to_string()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }
    /// Whether there is this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
    /// Dimension `i` of a tensor, if there is one.
    pub fn dim(&self, name: &str, i: usize) -> Option<usize> {
        self.0.get(name)?.get(i).copied()
    }
    /// The shape of a tensor that must be there, with at least so many dimensions, none of them empty.
    pub fn of(&self, name: &str, rank: usize) -> Result<&[usize]> {
        match self.0.get(name) {
            Some(dims) if dims.len() >= rank && !dims.contains(&0) => Ok(dims),
            Some(dims) => {
                let m = format!("`{name}` has shape {dims:?}, expected {rank} dimensions");
                Err(Error::new(Kind::Format, m).hint("the file is damaged, or of another kind of network"))
            }
            None => Err(Error::new(Kind::Format, format!("the tensor `{name}` is missing"))
                .hint("the file may be cut off, or of another kind of network")),
        }
    }
    /// How many groups there are: `prefix.0.`, `prefix.1.`, ….
    pub fn count(&self, prefix: &str) -> usize {
        (0..).take_while(|i| self.any(&format!("{prefix}.{i}."))).count()
    }
}
