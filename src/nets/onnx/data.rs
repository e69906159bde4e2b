//! Constant arrays of a file: every kind of number, in the file itself or in one beside it.
use super::proto;
use crate::files::atomic;
use crate::files::hash::hex;
use crate::tensor::dtype::elements;
use crate::{Error, Kind, Result, access};
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use prost::bytes::Bytes;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// What an array holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elem {
    /// Fractional numbers, of whatever precision.
    Float,
    /// Whole numbers.
    Int,
    /// True and false.
    Bool,
}

/// The values of an array.
pub enum Values {
    /// Fractional numbers as they are stored.
    Floats(Tensor),
    /// Whole numbers; 0 and 1 for truth.
    Ints(Vec<i64>),
}

/// An array of a file.
pub struct Array {
    /// Its sizes.
    pub dims: Vec<usize>,
    /// What it holds.
    pub elem: Elem,
    /// Its values.
    pub values: Values,
}

/// What a number of ONNX's table of types holds.
pub fn elem(kind: i32) -> Result<Elem> {
    match kind {
        1 | 10 | 11 | 16 => Ok(Elem::Float),
        2..=7 | 12 | 13 => Ok(Elem::Int),
        9 => Ok(Elem::Bool),
        _ => Err(Error::new(Kind::Format, format!("{} is no type of number that a network can have here", name(kind)))),
    }
}

/// The name of a type.
pub fn name(kind: i32) -> String {
    let known = [
        "undefined",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
        "float8e8m0",
        "uint2",
        "int2",
    ];
    let found = usize::try_from(kind).ok().and_then(|k| known.get(k));
    found.map_or_else(|| format!("type {kind}"), |s| format!("`{s}`"))
}

/// Bytes that one value takes.
fn width(kind: i32) -> usize {
    match kind {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        _ => 8,
    }
}

/// Where the arrays of a model come from that are not in its own file.
pub struct Beside {
    /// The model's file.
    model: PathBuf,
    /// Files that were read, with the hashes of what was read of each.
    read: BTreeMap<String, Vec<String>>,
    bytes: u64,
}

impl Beside {
    /// Beside this model.
    pub fn new(model: &Path) -> Beside {
        Beside { model: model.to_path_buf(), read: BTreeMap::new(), bytes: 0 }
    }
    /// How much was read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// What tells all that was read.
    pub fn told(&self) -> String {
        self.read.iter().map(|(name, hashes)| format!("{name} {}\n", hashes.join(" "))).collect()
    }

    /// The path of a file beside the model, which stays in the model's folder.
    fn path(&self, location: &str) -> Result<PathBuf> {
        let relative = Path::new(location);
        let inside = !location.is_empty()
            && relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let out = || {
            let m = format!("its data is said to be in `{location}`, which is not in the folder of the model");
            Error::new(Kind::Format, m)
                .hint("external data must lie beside the model; export it again, or do not trust this file")
        };
        if !inside || location.contains('\\') {
            return Err(out());
        }
        let folder = self.model.parent().unwrap_or(Path::new(""));
        let path = folder.join(relative);
        // links may lead out of the folder only to where the model's own link leads
        let homes: Vec<PathBuf> = [Some(folder), None]
            .iter()
            .filter_map(|f| match f {
                Some(f) if f.as_os_str().is_empty() => access::whole(".").ok(),
                Some(f) => access::whole(f).ok(),
                None => access::whole(&self.model).ok()?.parent().map(Path::to_path_buf),
            })
            .collect();
        if let Ok(whole) = access::whole(&path)
            && !homes.iter().any(|h| whole.starts_with(h))
        {
            return Err(out());
        }
        Ok(path)
    }

    /// `len` bytes of an array's file.
    fn part(&mut self, t: &proto::Tensor, len: usize) -> Result<Bytes> {
        let entry = |key: &str| t.external.iter().find(|e| e.key == key).map(|e| e.value.trim());
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(v) => v
                .parse::<u64>()
                .map(Some)
                .map_err(|_| Error::new(Kind::Format, format!("its data's {key} is no number: `{v}`"))),
        };
        let location = entry("location")
            .ok_or_else(|| Error::new(Kind::Format, "its data is said to be elsewhere, but not where"))?;
        let (path, offset, length) = (self.path(location)?, number("offset")?.unwrap_or(0), number("length")?);
        let (mut file, meta) = atomic::open(&path).map_err(|e| match e.kind() {
            Kind::Io => e.hint(format!("the model's weights are in `{location}`, which must lie beside it")),
            _ => e,
        })?;
        if length.is_some_and(|l| l != len as u64) {
            let m = format!("its data in `{location}` has {} bytes, but its shape needs {len}", length.unwrap_or(0));
            return Err(Error::new(Kind::Format, m));
        }
        if offset.checked_add(len as u64).is_none_or(|end| end > meta.len()) {
            let m = format!(
                "its data should be bytes {offset} to {} of `{location}`, which has {}",
                offset.saturating_add(len as u64),
                meta.len()
            );
            return Err(Error::new(Kind::Format, m).hint("is the file whole? copy it again"));
        }
        crate::tensor::memory::room("reading weights", len)?;
        let mut bytes = vec![0; len];
        let done = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
        done.map_err(|e| Error::io(&path, "read", e))?;
        self.bytes += len as u64;
        self.read.entry(location.to_string()).or_default().push(hex(&Sha256::digest(&bytes)));
        Ok(bytes.into())
    }
}

/// Reads an array. Errors name what is wrong with it, not which it is.
pub fn read(t: &proto::Tensor, beside: &mut Beside) -> Result<Array> {
    let elem = elem(t.kind)?;
    let dims = t.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<usize>>>();
    let n = dims.as_deref().and_then(elements);
    let len = n.and_then(|n| n.checked_mul(width(t.kind)));
    let (Some(dims), Some(n), Some(len)) = (dims, n, len) else {
        return Err(Error::new(Kind::Format, format!("its shape {:?} is none", t.dims)));
    };
    let raw = if t.location == 1 { Some(beside.part(t, len)?) } else { (!t.raw.is_empty()).then(|| t.raw.clone()) };
    if let Some(raw) = &raw
        && raw.len() != len
    {
        return Err(wrong(&dims, raw.len() / width(t.kind).max(1)));
    }
    let values = match raw {
        Some(raw) => from_bytes(&raw, t.kind, &dims)?,
        None => from_lists(t, n, &dims)?,
    };
    Ok(Array { dims, elem, values })
}

fn wrong(dims: &[usize], have: usize) -> Error {
    Error::new(Kind::Format, format!("its shape is {dims:?}, but it has {have} values"))
}

fn from_bytes(raw: &[u8], kind: i32, dims: &[usize]) -> Result<Values> {
    let stored = match kind {
        1 => Some(DType::F32),
        10 => Some(DType::F16),
        11 => Some(DType::F64),
        16 => Some(DType::BF16),
        _ => None,
    };
    if let Some(dtype) = stored {
        crate::tensor::memory::room("reading weights", raw.len())?;
        return Ok(Values::Floats(Tensor::from_raw_buffer(raw, dtype, dims, &Device::Cpu)?));
    }
    let w = width(kind);
    crate::tensor::memory::room("reading weights", (raw.len() / w).saturating_mul(8))?;
    let signed = matches!(kind, 3 | 5 | 6 | 7);
    let one = |b: &[u8]| {
        let mut wide = [if signed && b.last().is_some_and(|b| *b > 127) { 255 } else { 0 }; 8];
        wide[..w].copy_from_slice(b);
        i64::from_le_bytes(wide)
    };
    Ok(Values::Ints(raw.chunks_exact(w).map(one).collect()))
}

fn from_lists(t: &proto::Tensor, n: usize, dims: &[usize]) -> Result<Values> {
    let check = |have: usize| if have == n { Ok(()) } else { Err(wrong(dims, have)) };
    let floats = |v: Vec<f32>| -> Result<Values> {
        check(v.len())?;
        Ok(Values::Floats(Tensor::from_vec(v, dims, &Device::Cpu)?))
    };
    let half = |f: fn(u16) -> f32| t.int32s.iter().map(|b| f(*b as u16)).collect::<Vec<f32>>();
    match t.kind {
        1 => floats(t.floats.clone()),
        10 => floats(half(|b| f16::from_bits(b).to_f32())),
        16 => floats(half(|b| bf16::from_bits(b).to_f32())),
        11 => {
            check(t.doubles.len())?;
            Ok(Values::Floats(Tensor::from_slice(&t.doubles, dims, &Device::Cpu)?))
        }
        7 => check(t.int64s.len()).map(|()| Values::Ints(t.int64s.clone())),
        12 | 13 => check(t.uint64s.len()).map(|()| Values::Ints(t.uint64s.iter().map(|v| *v as i64).collect())),
        _ => check(t.int32s.len()).map(|()| Values::Ints(t.int32s.iter().map(|v| i64::from(*v)).collect())),
    }
}
