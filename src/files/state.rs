//! State to resume from: nested plain data with tensors of every dtype, exact to the bit, in one atomic file.
//!
//! The file is a safetensors file, readable by anything that reads those. Its metadata holds the structure as JSON under
//! `ld3sh.state`, in which `{"$": "tensor", "key": k}` stands for tensor k, `{"$": "float", "bits": hex}` for a float that
//! JSON lacks, and `{"$": "map", "of": {…}}` for a map that has a key `$` itself. Numbers with a point or exponent are
//! floats, others integers.
use super::{atomic, hash, npy};
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
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

/// The content of the file that [`save`] writes: same data, same bytes.
pub fn to_bytes(data: &Data) -> Result<Vec<u8>> {
    let mut tensors = vec![];
    let structure = encode(data, &mut tensors, 0)?.to_string();
    let mut whole = structure.clone().into_bytes();
    for t in &tensors {
        whole.extend_from_slice(hash::sha256(&t.data).as_bytes());
    }
    let meta = HashMap::from([(KEY.to_string(), structure), (HASH.to_string(), hash::sha256(&whole))]);
    // the crate writes metadata in the order of a HashMap, which differs from run to run: it is put in afterwards
    let named = tensors.iter().enumerate().map(|(i, t)| (format!("{i:06}"), t));
    let plain = safetensors::serialize(named, None)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot encode the state: {e}")))?;
    with_metadata(&plain, meta.into_iter().collect())
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
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| bad(e.to_string()))?;
    let meta = header.metadata().as_ref();
    let find = |key: &str| meta.and_then(|m| m.get(key)).ok_or_else(|| bad(format!("it has no `{key}`")));
    let (structure, expected) = (find(KEY)?, find(HASH)?);
    let file = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    let mut names = file.names();
    names.sort_unstable();
    let mut whole = structure.clone().into_bytes();
    for name in names {
        let view = file.tensor(name).map_err(|e| bad(e.to_string()))?;
        whole.extend_from_slice(hash::sha256(view.data()).as_bytes());
    }
    if hash::sha256(&whole) != *expected {
        return Err(bad("its content does not have the hash that was recorded".into()));
    }
    let value: Value = serde_json::from_str(structure).map_err(|e| bad(format!("its structure is not JSON: {e}")))?;
    decode(&value, &|key| {
        let view = file.tensor(key).map_err(|e| bad(e.to_string()))?;
        let dtype: DType = view.dtype().try_into().map_err(|_| bad(format!("tensor {key} has an unknown dtype")))?;
        tensor(view.data(), dtype, view.shape())
    })
    .map_err(|e| if e.kind() == Kind::Format { bad(e.message().to_string()) } else { e })
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

fn tensor(data: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
    if !matches!(
        dtype,
        DType::U8
            | DType::U32
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::BF16
            | DType::F16
            | DType::F32
            | DType::F64
    ) {
        return Err(Error::new(Kind::Format, format!("it holds a tensor of dtype {dtype:?}")));
    }
    Ok(Tensor::from_raw_buffer(data, dtype, shape, &Device::Cpu)?)
}
