//! PyTorch's file format before 1.6: a magic number, a version, sizes of types, the object and the names of the
//! storages as five pickles, then each storage's data.
use super::document::{Slot, Storage};
use crate::files::pickle::{Fault, Outcome, Shared, Tree, Value, parse};
use std::collections::HashMap;

/// The pickle with which the format begins: the integer 0x1950a86a20f9469cfc6c.
const MAGIC: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Whether these bytes begin such a file.
pub fn is_legacy(data: &[u8]) -> bool {
    matches!(data, [0x80, 2..=5, rest @ ..] if rest.starts_with(MAGIC) || rest.get(9..).is_some_and(|r| r.starts_with(MAGIC)))
}

/// The object of such a file, and its storages by name.
pub fn open(data: &Shared) -> Outcome<(Tree, HashMap<String, Slot>)> {
    let (_, at) = parse(data, 0)?;
    let (version, at) = parse(data, at)?;
    if !matches!(version.value(version.root()), Value::Int(1001)) {
        let at = version.offset(version.root());
        return Err(Fault::new(at, "a PyTorch file of the old kind must have the protocol version 1001"));
    }
    let (system, at) = parse(data, at)?;
    let little = match system.value(system.root()) {
        Value::Dict(pairs) => pairs.iter().rev().find(|(k, _)| system.name(*k) == Some("little_endian")),
        _ => None,
    };
    let big_endian = little.is_some_and(|(_, v)| matches!(system.value(*v), Value::Bool(false)));
    let (tree, at) = parse(data, at)?;
    let (keys, mut at) = parse(data, at)?;
    // how many bytes a value of a storage has stands only where the object refers to it
    let mut widths = HashMap::new();
    for id in tree.ids() {
        if let Value::Persistent(name) = tree.value(id)
            && let Some(s) = Storage::reference(&tree, *name)?
        {
            widths.insert(s.key, s.width);
        }
    }
    let mut slots = HashMap::new();
    for id in keys.sequence(keys.root()).unwrap_or_default() {
        let fault = |at: usize, m: String| Fault::new(data.start() + at, m);
        let Some(key) = keys.name(*id) else {
            return Err(Fault::new(keys.offset(*id), "a storage whose name is no short text"));
        };
        let count = data.get(at..at.saturating_add(8)).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let Some(count) = count else {
            return Err(fault(at, format!("the file ends before the data of storage `{key}`")));
        };
        let Some(width) = widths.get(key) else {
            return Err(fault(at, format!("nothing refers to storage `{key}`, so its size is not known")));
        };
        at += 8;
        let bytes = usize::try_from(count).ok().and_then(|n| n.checked_mul(*width));
        let Some(part) = bytes.and_then(|n| data.part(at, n)) else {
            let left = data.len().saturating_sub(at);
            return Err(fault(at, format!("storage `{key}` of {count} values, but the file ends after {left} bytes")));
        };
        at += part.len();
        slots.insert(key.to_string(), Slot { bytes: part.into(), big_endian });
    }
    Ok((tree, slots))
}
