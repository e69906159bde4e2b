//! The tensors of a document by dotted names, as `state_dict()` would name them, and its values by path.
use super::document::Document;
use super::item::{Item, Object};
use super::view::View;
use crate::files::pickle::{Fault, Id, Outcome, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

/// How deep tensors may lie.
const DEPTH: usize = 100;
/// The most values that are looked at: one value may be found along many paths.
const VISITS: usize = 1 << 23;
/// The most bytes of one name, and of all together.
const NAME: usize = 1 << 12;
const NAMES: usize = 1 << 26;

/// The most bytes that tensors which repeat their data may take in all beyond these.
const REPEATED: usize = 2 << 30;

/// What is found in a value.
#[derive(Debug, Default)]
pub struct Contents {
    /// Its tensors by name.
    pub tensors: BTreeMap<String, View>,
    /// What else stands where a tensor would, and what it is.
    pub unreadable: BTreeMap<String, String>,
}

/// A part of a value: its name within it, and the node.
pub type Part<'t> = (Cow<'t, str>, Id);

impl Document {
    /// The attributes of an object, in order; one that is set twice comes once.
    pub fn attributes<'t>(&'t self, object: &Object<'t>) -> Outcome<Vec<Part<'t>>> {
        let Some(state) = object.state else { return Ok(vec![]) };
        match self.item(state)? {
            Item::Map(pairs) => Ok(self.keyed(&pairs)),
            // an object with slots: its dictionary, and the slots'
            Item::Sequence([a, b]) => {
                let mut out = vec![];
                for half in [a, b] {
                    if let Item::Map(pairs) = self.item(*half)? {
                        out.extend(self.keyed(&pairs));
                    }
                }
                Ok(out)
            }
            _ => Ok(vec![]),
        }
    }

    /// An attribute of an object.
    pub fn attribute(&self, object: &Object, name: &str) -> Outcome<Option<Id>> {
        Ok(self.attributes(object)?.into_iter().find(|(k, _)| k == name).map(|(_, v)| v))
    }

    /// Entries by name; of equal keys the last counts, as when Python sets one after the other.
    pub fn keyed<'t>(&'t self, pairs: &[(Id, Id)]) -> Vec<Part<'t>> {
        let mut seen = HashSet::new();
        let mut out: Vec<Part> = vec![];
        for (i, (key, value)) in pairs.iter().enumerate().rev() {
            let name = match self.tree().value(*key) {
                Value::Text(_) => self.tree().name(*key).map(Cow::Borrowed),
                Value::Int(n) => Some(Cow::Owned(n.to_string())),
                Value::Bool(b) => Some(Cow::Borrowed(if *b { "True" } else { "False" })),
                _ => None,
            };
            // keys of other kinds, and texts that are no names, go by their position
            let name = name.unwrap_or_else(|| Cow::Owned(format!("#{i}")));
            if seen.insert(name.clone()) {
                out.push((name, *value));
            }
        }
        out.reverse();
        out
    }

    /// The entries of the dictionary that is attribute `name` of an object; none if it has no such attribute.
    fn entries<'t>(&'t self, attributes: &[Part<'t>], name: &str) -> Outcome<Vec<Part<'t>>> {
        match attributes.iter().find(|(k, _)| k == name) {
            None => Ok(vec![]),
            Some((_, id)) => match self.item(*id)? {
                Item::Map(pairs) => Ok(self.keyed(&pairs)),
                _ => Ok(vec![]),
            },
        }
    }

    /// The parts of a value in which tensors may be: all but numbers and texts. A `torch.nn.Module` has its parameters,
    /// its buffers except those that it does not save, and its submodules; another object its attributes, members and entries.
    fn parts<'t>(&'t self, item: &Item<'t>, budget: &mut usize, at: usize) -> Outcome<Vec<Part<'t>>> {
        let mut charge = |n: usize| match budget.checked_sub(n) {
            Some(left) => {
                *budget = left;
                Ok(())
            }
            None => Err(Fault::new(at, format!("more than {VISITS} values to look at for tensors"))),
        };
        let deep = |id: Id| {
            use Value::*;
            matches!(self.tree().value(id), List(_) | Tuple(_) | Set(_) | Dict(_) | Persistent(_) | Record(_))
        };
        let members = |ids: &[Id]| -> Vec<Part<'t>> {
            let deep = ids.iter().enumerate().filter(|(_, id)| deep(**id));
            deep.map(|(i, id)| (Cow::Owned(i.to_string()), *id)).collect()
        };
        let mut out = match item {
            Item::Sequence(ids) => {
                charge(ids.len())?;
                members(ids)
            }
            Item::Map(pairs) => {
                charge(pairs.len())?;
                self.keyed(pairs)
            }
            Item::Object(o) => {
                let attributes = self.attributes(o)?;
                charge(attributes.len() + o.items.len() + o.pairs.len())?;
                let has = |name: &str| attributes.iter().any(|(k, _)| k == name);
                if has("_parameters") && has("_modules") {
                    let mut out = self.entries(&attributes, "_parameters")?;
                    let unsaved = attributes.iter().find(|(k, _)| k == "_non_persistent_buffers_set");
                    let unsaved = match unsaved.map(|(_, id)| self.item(*id)).transpose()? {
                        Some(Item::Sequence(ids)) => ids.iter().filter_map(|i| self.tree().name(*i)).collect(),
                        _ => HashSet::new(),
                    };
                    let buffers = self.entries(&attributes, "_buffers")?;
                    out.extend(buffers.into_iter().filter(|(k, _)| !unsaved.contains(&**k)));
                    out.extend(self.entries(&attributes, "_modules")?);
                    charge(out.len() + unsaved.len())?;
                    out
                } else {
                    let mut out = attributes;
                    out.extend(members(o.items));
                    out.extend(self.keyed(o.pairs));
                    out
                }
            }
            _ => vec![],
        };
        out.retain(|(_, id)| deep(*id));
        Ok(out)
    }

    /// All tensors within a value, by names of its parts joined with dots; those of a kind that is not read are left out.
    pub fn tensors(&self, root: Id) -> Outcome<BTreeMap<String, View>> {
        Ok(self.contents(root)?.tensors)
    }

    /// All tensors within a value, by names of its parts joined with dots, and what is not read.
    pub fn contents(&self, root: Id) -> Outcome<Contents> {
        let mut walk = Walk {
            doc: self,
            out: Contents::default(),
            repeated: 0,
            visits: VISITS,
            bytes: NAMES,
            barren: HashSet::new(),
            path: vec![],
        };
        walk.visit(root, "")?;
        Ok(walk.out)
    }

    /// The node that a path of names joined with dots leads to: attributes, entries and positions, modules and their
    /// parameters as in [`Document::tensors`]. Names may hold dots themselves. `None` if it leads nowhere.
    pub fn find(&self, path: &str) -> Outcome<Option<Id>> {
        let (mut id, mut rest, mut budget) = (self.tree().root(), path, VISITS);
        while !rest.is_empty() {
            let item = self.item(id)?;
            let mut parts = match &item {
                Item::Object(o) => self.attributes(o)?,
                _ => vec![],
            };
            match &item {
                Item::Sequence(ids) => parts.extend(ids.iter().enumerate().map(|(i, id)| (i.to_string().into(), *id))),
                Item::Map(pairs) => parts.extend(self.keyed(pairs)),
                Item::Object(o) => {
                    parts.extend(self.keyed(o.pairs));
                    parts.extend(o.items.iter().enumerate().map(|(i, id)| (i.to_string().into(), *id)));
                    parts.extend(self.parts(&item, &mut budget, self.tree().offset(id))?);
                }
                _ => {}
            }
            // the longest name that fits
            let fits = |name: &str| match rest.strip_prefix(name) {
                Some("") => true,
                Some(more) => !name.is_empty() && more.starts_with('.'),
                None => false,
            };
            let best = parts.iter().filter(|(name, _)| fits(name)).max_by_key(|(name, _)| name.len());
            let Some((name, next)) = best else { return Ok(None) };
            rest = rest[name.len()..].trim_start_matches('.');
            id = *next;
        }
        Ok(Some(id))
    }
}

struct Walk<'t> {
    doc: &'t Document,
    out: Contents,
    repeated: usize,
    visits: usize,
    bytes: usize,
    /// Values in which there are no tensors.
    barren: HashSet<Id>,
    /// The values that are being looked into.
    path: Vec<Id>,
}

impl Walk<'_> {
    /// Collects the tensors in a value. Whether there may be any.
    fn visit(&mut self, id: Id, name: &str) -> Outcome<bool> {
        let at = self.doc.tree().offset(id);
        if self.barren.contains(&id) {
            return Ok(false);
        }
        // a module that refers to its parent
        if self.path.contains(&id) {
            return Ok(true);
        }
        if self.path.len() > DEPTH {
            return Err(Fault::new(at, format!("values nested more than {DEPTH} deep")));
        }
        let item = match self.doc.item(id) {
            Err(f) if f.unknown => {
                self.out.unreadable.insert(name.to_string(), f.message);
                return Ok(true);
            }
            item => item?,
        };
        match item {
            Item::Tensor(view) => {
                self.repeated = self.repeated.saturating_add(view.repeated());
                if self.repeated > REPEATED {
                    let m = format!("tensors that repeat their data into more than {REPEATED} bytes in all");
                    return Err(Fault::new(at, m));
                }
                return match self.out.tensors.insert(name.to_string(), view) {
                    None => Ok(true),
                    Some(_) => Err(Fault::new(at, format!("two tensors with the name `{name}`"))),
                };
            }
            Item::Object(o) if o.class.starts_with("numpy") && o.class.ends_with("multiarray._reconstruct") => {
                let what = "an array of values that are no numbers".to_string();
                self.out.unreadable.insert(name.to_string(), what);
                return Ok(true);
            }
            _ => {}
        }
        let parts = self.doc.parts(&item, &mut self.visits, at)?;
        self.path.push(id);
        let mut found = false;
        for (key, part) in parts {
            let full = if name.is_empty() { key.into_owned() } else { format!("{name}.{key}") };
            match self.bytes.checked_sub(full.len()) {
                Some(left) if full.len() <= NAME => self.bytes = left,
                _ => return Err(Fault::new(at, "the names of the tensors are too long")),
            }
            found |= self.visit(part, &full)?;
        }
        self.path.pop();
        if !found {
            self.barren.insert(id);
        }
        Ok(found)
    }
}
