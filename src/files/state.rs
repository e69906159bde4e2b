//! State to resume from: nested plain data with tensors of every dtype, exact to the bit, in one atomic file.
//!
//! The file is a safetensors file, readable by anything that reads those. Its metadata holds the structure as JSON under
//! `ld3sh.state`, in which `{"$": "tensor", "key": k}` stands for tensor k, `{"$": "float", "bits": hex}` for a float that
//! JSON lacks, and `{"$": "map", "of": {…}}` for a map that has a key `$` itself. Numbers with a point or exponent are
//! floats, others integers.
use super::npy::{self, Element};
use super::pickle::Shared;
use super::torch::Data as Stored;
use super::{atomic, hash, json, safetensors as st, sniff};
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// Plain data as it can be saved.
#[derive(Debug, Clone)]
pub enum Data {
    /// Nothing.
    Unit,
    /// true or false.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float, NaN and infinities included.
    Float(f64),
    /// Text.
    Str(String),
    /// A tensor of any dtype; loaded onto the CPU.
    Tensor(Tensor),
    /// Values in order.
    Array(Vec<Data>),
    /// Values by name.
    Map(BTreeMap<String, Data>),
}

/// Values inside values inside values: as deep as JSON readers go, and far deeper than anything meant.
const DEEPEST: usize = 60;
const KEY: &str = "ld3sh.state";
const HASH: &str = "ld3sh.sha256";
const OWNER: &str = "ld3sh.owner";

struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for &Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// Writes `data` (a map at the top) as a whole. Errors: too deep, values that cannot be written, and those of
/// [`atomic::write`].
pub fn save(path: impl AsRef<Path>, data: &Data) -> Result<()> {
    atomic::write(path, &to_bytes(data)?)
}

/// Reads what [`save`] wrote. A file that is truncated, altered or something else is an error that says so.
pub fn load(path: impl AsRef<Path>) -> Result<Data> {
    let path = path.as_ref();
    from_bytes(&atomic::read(path)?).map_err(|e| e.context(path.display()))
}

/// As [`save`], for an `owner`, a text that stands for what the state is of: nothing but a state of the same owner is replaced.
pub fn save_for(owner: &str, path: impl AsRef<Path>, data: &Data) -> Result<()> {
    let path = path.as_ref();
    if path.exists() {
        check_owner(path, owner)?;
    }
    atomic::write(path, &encoded(data, Some(owner))?)
}

/// As [`load`], of what [`save_for`] wrote for the same `owner`; another's is an error.
pub fn load_for(owner: &str, path: impl AsRef<Path>) -> Result<Data> {
    check_owner(path.as_ref(), owner)?;
    load(path)
}

/// Deletes a state that [`save_for`] wrote for this `owner`; nothing happens if there is no file. Any other file is an error, and stays.
pub fn remove(path: impl AsRef<Path>, owner: &str) -> Result<()> {
    let path = path.as_ref();
    let target = crate::access::delete(path)?;
    if !path.exists() {
        return Ok(());
    }
    check_owner(path, owner)?;
    target.remove().map_err(|e| Error::io(path, "delete", e))
}

/// Whether the file has the mark of a state, whoever's and whether or not it is whole.
pub fn is_state(path: &Path) -> bool {
    metadata(path).is_ok_and(|m| m.contains_key(KEY))
}

fn metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let data = Stored::file(atomic::open(path)?.0).map_err(|e| Error::io(path, "read", e))?;
    Ok(st::header(&data)?.metadata)
}

/// Fails unless the file is a state of this owner.
fn check_owner(path: &Path, owner: &str) -> Result<()> {
    let why = match metadata(path) {
        Ok(m) if m.get(OWNER).is_some_and(|o| o == owner) => return Ok(()),
        Ok(m) if m.contains_key(OWNER) => "is the state of another run".to_string(),
        Ok(m) if m.contains_key(KEY) => "is a state that was saved for something else".to_string(),
        Ok(_) => "is a safetensors file, not a state".to_string(),
        Err(e) if e.kind() == Kind::Io => return Err(e),
        Err(_) => match atomic::head(path).ok().and_then(|h| sniff::sniff(&h)) {
            Some((what, _)) if what != "a safetensors file" => format!("is {what}, not a state"),
            _ => "is no state, or one that was damaged".to_string(),
        },
    };
    let e = Error::value(format!("`{}` {why}: it is neither read nor replaced", path.display()));
    Err(e.hint("choose another name, or delete the file if it is no longer needed"))
}

/// The content of the file that [`save`] writes: same data, same bytes.
pub fn to_bytes(data: &Data) -> Result<Vec<u8>> {
    encoded(data, None)
}

/// As [`to_bytes`], for a file that belongs to an owner.
pub fn encoded(data: &Data, owner: Option<&str>) -> Result<Vec<u8>> {
    let mut tensors = vec![];
    let structure = encode(data, &mut tensors, 0)?.to_string();
    let mut whole = structure.clone().into_bytes();
    tensors.iter().for_each(|t| seal(&mut whole, t.dtype, &t.shape, &t.data));
    let mut meta = BTreeMap::from([(KEY.to_string(), structure), (HASH.to_string(), hash::sha256(&whole))]);
    meta.extend(owner.map(|o| (OWNER.to_string(), o.to_string())));
    // the crate writes metadata in the order of a HashMap, which differs from run to run: it is put in afterwards
    let named = tensors.iter().enumerate().map(|(i, t)| (format!("{i:06}"), t));
    let plain = safetensors::serialize(named, None)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot encode the state: {e}")))?;
    with_metadata(&plain, meta)
}

/// The safetensors file `plain` (which has no metadata) with `meta` in its header.
fn with_metadata(plain: &[u8], meta: BTreeMap<String, String>) -> Result<Vec<u8>> {
    let broken = || Error::new(Kind::Internal, "cannot encode the state: unexpected header");
    let length = plain.first_chunk::<8>().map(|n| u64::from_le_bytes(*n) as usize).ok_or_else(broken)?;
    let (head, body) = plain[8..].split_at_checked(length).ok_or_else(broken)?;
    let old: serde_json::Map<String, Value> = serde_json::from_slice(head).map_err(|_| broken())?;
    let mut new = serde_json::Map::from_iter([("__metadata__".to_string(), json!(meta))]);
    new.extend(old);
    let mut head = Value::Object(new).to_string().into_bytes();
    head.resize(head.len().next_multiple_of(8), b' ');
    Ok([&(head.len() as u64).to_le_bytes(), &head[..], body].concat())
}

/// Reads the content of a state file.
pub fn from_bytes(bytes: &[u8]) -> Result<Data> {
    let bad = |m: String| {
        Error::new(Kind::Format, format!("not a complete state file: {m}"))
            .hint("it was cut off, altered, or is another kind of file")
    };
    // one copy, so that its parts can be shared
    let stored = Stored::from(Shared::new(bytes.to_vec()));
    let header = st::header(&stored).map_err(|e| bad(e.message().to_string()))?;
    let find = |key: &str| header.metadata.get(key).ok_or_else(|| bad(format!("it has no `{key}`")));
    let (structure, expected) = (find(KEY)?, find(HASH)?);
    let part = |name: &str| {
        let info = header.tensors.get(name).ok_or_else(|| bad(format!("it has no tensor {name}")))?;
        let (start, end) = info.data_offsets;
        let part = stored.part(header.start + start, end - start).ok_or_else(|| bad("it is cut off".into()))?;
        Ok::<_, Error>((part.read()?, info))
    };
    let mut whole = structure.clone().into_bytes();
    for name in header.tensors.keys() {
        let (bytes, info) = part(name)?;
        seal(&mut whole, info.dtype, &info.shape, &bytes);
    }
    if hash::sha256(&whole) != *expected {
        return Err(bad("its content does not have the hash that was recorded".into()));
    }
    let value = json::parse(structure).map_err(|e| bad(format!("its structure is {}", e.message())))?;
    decode(&value, &|key| {
        let (bytes, info) = part(key)?;
        match st::element(info.dtype) {
            Ok(element @ Element::Same(_)) => element.decode(&bytes, &info.shape),
            _ => Err(bad(format!("tensor {key} is of a type that no state has ({:?})", info.dtype))),
        }
    })
    .map_err(|e| if e.kind() == Kind::Format { bad(e.message().to_string()) } else { e })
}

/// Adds a tensor to what the hash of a state is of: the same bytes are other values in another type or shape.
fn seal(whole: &mut Vec<u8>, dtype: Dtype, shape: &[usize], data: &[u8]) {
    whole.extend_from_slice(format!("{dtype:?} {shape:?} {}", hash::sha256(data)).as_bytes());
}

fn encode(data: &Data, tensors: &mut Vec<Bytes>, depth: usize) -> Result<Value> {
    if depth > DEEPEST {
        return Err(Error::value(format!("the state is nested more than {DEEPEST} levels deep")));
    }
    Ok(match data {
        Data::Unit => Value::Null,
        Data::Bool(b) => json!(b),
        Data::Int(i) => json!(i),
        Data::Float(f) if f.is_finite() => json!(f),
        Data::Float(f) => json!({"$": "float", "bits": format!("{:016x}", f.to_bits())}),
        Data::Str(s) => json!(s),
        Data::Tensor(t) => {
            let key = format!("{:06}", tensors.len());
            tensors.push(bytes_of(t)?);
            json!({"$": "tensor", "key": key})
        }
        Data::Array(a) => a.iter().map(|d| encode(d, tensors, depth + 1)).collect::<Result<Vec<_>>>()?.into(),
        Data::Map(m) => {
            let of: serde_json::Map<String, Value> =
                m.iter().map(|(k, d)| Ok((k.clone(), encode(d, tensors, depth + 1)?))).collect::<Result<_>>()?;
            if of.contains_key("$") { json!({"$": "map", "of": of}) } else { Value::Object(of) }
        }
    })
}

fn decode(value: &Value, find: &dyn Fn(&str) -> Result<Tensor>) -> Result<Data> {
    let bad = || Error::new(Kind::Format, "its structure is not one that ld3sh writes");
    let map = |m: &serde_json::Map<String, Value>| -> Result<Data> {
        Ok(Data::Map(m.iter().map(|(k, v)| Ok((k.clone(), decode(v, find)?))).collect::<Result<_>>()?))
    };
    Ok(match value {
        Value::Null => Data::Unit,
        Value::Bool(b) => Data::Bool(*b),
        Value::Number(n) => match n.as_i64() {
            Some(i) => Data::Int(i),
            None => Data::Float(n.as_f64().ok_or_else(bad)?),
        },
        Value::String(s) => Data::Str(s.clone()),
        Value::Array(a) => Data::Array(a.iter().map(|v| decode(v, find)).collect::<Result<_>>()?),
        Value::Object(m) => match m.get("$").map(|t| t.as_str().unwrap_or_default()) {
            None => map(m)?,
            Some("tensor") => Data::Tensor(find(m.get("key").and_then(Value::as_str).ok_or_else(bad)?)?),
            Some("float") => {
                let bits = m.get("bits").and_then(Value::as_str).and_then(|s| u64::from_str_radix(s, 16).ok());
                Data::Float(f64::from_bits(bits.ok_or_else(bad)?))
            }
            Some("map") => map(m.get("of").and_then(Value::as_object).ok_or_else(bad)?)?,
            Some(_) => return Err(bad()),
        },
    })
}

fn bytes_of(t: &Tensor) -> Result<Bytes> {
    Ok(Bytes { dtype: t.dtype().into(), shape: t.dims().to_vec(), data: npy::encode(t)? })
}
