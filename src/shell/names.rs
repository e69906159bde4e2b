//! Every function that a script can call, by name: for suggestions and for `ld3sh check`.
use super::catalogue::Catalogue;
use rhai::Engine;
use std::collections::BTreeSet;

/// The functions of a [`Catalogue`].
pub struct Names {
    catalogue: Catalogue,
}

impl Names {
    /// Collects the names from an engine.
    pub fn of(engine: &Engine) -> Self {
        Names { catalogue: Catalogue::of(engine) }
    }
    /// The names.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.catalogue.callable()
    }
    /// The signatures of a function; empty if there is none of that name.
    pub fn signatures(&self, name: &str) -> Vec<String> {
        self.catalogue.get(name).iter().flat_map(|e| e.signatures.clone()).collect()
    }
    /// How many arguments a function can take.
    pub fn arities(&self, name: &str) -> BTreeSet<usize> {
        self.catalogue.arities(name)
    }
    /// The namespaces (`solver`, `schedule`, …).
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.catalogue.namespaces()
    }
}
