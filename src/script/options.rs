//! Options in `#{ … }`: typed reading with defaults; an unknown key fails with the nearest name.
use super::error::RhaiResult;
use crate::{Error, Kind};
use rhai::{Array, Dynamic, FnPtr, Map};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

thread_local! {
    /// The keys that each function knew, while somebody wants to know.
    static KNOWN: RefCell<Option<BTreeMap<String, BTreeSet<String>>>> = const { RefCell::new(None) };
}

/// Starts to collect, on this thread, the keys that functions accept.
pub fn collect_keys() {
    KNOWN.set(Some(BTreeMap::new()));
}

/// The keys collected since [`collect_keys`], by function; ends the collection.
pub fn collected_keys() -> BTreeMap<String, BTreeSet<String>> {
    KNOWN.take().unwrap_or_default()
}

/// Adds keys that function `of` accepts to the collection, if there is one.
pub fn note_keys<'a>(of: &str, keys: impl IntoIterator<Item = &'a str>) {
    KNOWN.with_borrow_mut(|known| {
        if let Some(known) = known {
            known.entry(of.to_string()).or_default().extend(keys.into_iter().map(str::to_string));
        }
    });
}

/// A map of options being read. Take each known option, then call [`Options::finish`].
pub struct Options {
    of: String,
    map: Map,
    known: BTreeSet<&'static str>,
}

impl Options {
    /// The options that function `of` (as a user would write it) received.
    pub fn new(of: &str, map: Map) -> Self {
        Options { of: of.into(), map, known: BTreeSet::new() }
    }
    /// The function whose options these are.
    pub fn of(&self) -> &str {
        &self.of
    }
    /// The options that were not taken, for another function to read.
    pub fn rest(self) -> Map {
        note_keys(&self.of, self.known.iter().copied());
        self.map
    }
    /// Removes and returns an option as it is; `()` counts as absent.
    pub fn take(&mut self, key: &'static str) -> Option<Dynamic> {
        self.known.insert(key);
        self.map.remove(key).filter(|v| !v.is_unit())
    }
    fn typed<T>(
        &mut self,
        key: &'static str,
        what: &str,
        f: impl FnOnce(&Dynamic) -> Option<T>,
    ) -> RhaiResult<Option<T>> {
        match self.take(key) {
            None => Ok(None),
            Some(v) => match f(&v) {
                Some(x) => Ok(Some(x)),
                None => {
                    let m = format!(
                        "{}: option `{key}` must be {what}, not {} ({v})",
                        self.of,
                        crate::script::error::type_of(&v)
                    );
                    Err(Error::new(Kind::Type, m).into())
                }
            },
        }
    }
    /// A number (an integer will do).
    pub fn float(&mut self, key: &'static str) -> RhaiResult<Option<f64>> {
        self.typed(key, "a number", |v| v.as_float().ok().or_else(|| v.as_int().ok().map(|i| i as f64)))
    }
    /// An integer.
    pub fn int(&mut self, key: &'static str) -> RhaiResult<Option<i64>> {
        self.typed(key, "an integer", |v| v.as_int().ok())
    }
    /// An integer that is not negative.
    pub fn count(&mut self, key: &'static str) -> RhaiResult<Option<usize>> {
        self.typed(key, "a count (an integer ≥ 0)", |v| v.as_int().ok().and_then(|i| usize::try_from(i).ok()))
    }
    /// true or false.
    pub fn bool(&mut self, key: &'static str) -> RhaiResult<Option<bool>> {
        self.typed(key, "true or false", |v| v.as_bool().ok())
    }
    /// A string.
    pub fn string(&mut self, key: &'static str) -> RhaiResult<Option<String>> {
        self.typed(key, "a string", |v| v.clone().into_string().ok())
    }
    /// One of a few strings.
    pub fn one_of(&mut self, key: &'static str, choices: &[&'static str]) -> RhaiResult<Option<&'static str>> {
        let Some(s) = self.string(key)? else { return Ok(None) };
        match choices.iter().find(|c| **c == s) {
            Some(c) => Ok(Some(c)),
            None => {
                Err(Error::unknown(&format!("value for option `{key}` of {}", self.of), &s, choices.iter().copied())
                    .into())
            }
        }
    }
    /// An array.
    pub fn array(&mut self, key: &'static str) -> RhaiResult<Option<Array>> {
        self.typed(key, "an array", |v| v.clone().into_array().ok())
    }
    /// A closure or function pointer.
    pub fn function(&mut self, key: &'static str) -> RhaiResult<Option<FnPtr>> {
        self.typed(key, "a function", |v| v.clone().try_cast::<FnPtr>())
    }
    /// A value of a native type.
    pub fn native<T: Clone + 'static>(&mut self, key: &'static str, what: &str) -> RhaiResult<Option<T>> {
        self.typed(key, what, |v| v.clone().try_cast::<T>())
    }
    /// Fails if an option is left that nobody asked for.
    pub fn finish(self) -> RhaiResult<()> {
        note_keys(&self.of, self.known.iter().copied());
        match self.map.keys().next() {
            None => Ok(()),
            Some(k) => Err(Error::unknown(&format!("option of {}", self.of), k, self.known.iter().copied()).into()),
        }
    }
}
