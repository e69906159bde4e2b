//! ONNX files: protobuf messages, of which those fields are declared that are read, and tensors in all the ways in which they are stored.
use crate::access;
use crate::{Error, Kind, Result};
use candle_core::{DType, Device, Tensor};
use prost::Message;
use std::path::Path;

/// A model.
#[derive(Clone, PartialEq, Message)]
pub struct Model {
    /// The graph.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    /// Versions of the sets of operations.
    #[prost(message, repeated, tag = "8")]
    pub opsets: Vec<Opset>,
}

/// A set of operations.
#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    /// Whose; empty for ONNX's own.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// Its version.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A graph.
#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    /// Operations in an order in which they can run.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<Node>,
    /// Constants by name.
    #[prost(message, repeated, tag = "5")]
    pub constants: Vec<Stored>,
    /// Inputs, in old files constants among them.
    #[prost(message, repeated, tag = "11")]
    pub inputs: Vec<Port>,
    /// Outputs.
    #[prost(message, repeated, tag = "12")]
    pub outputs: Vec<Port>,
}

/// An operation.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Values that it takes; empty for one that is left out.
    #[prost(string, repeated, tag = "1")]
    pub inputs: Vec<String>,
    /// Values that it gives.
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// What it does.
    #[prost(string, tag = "4")]
    pub op: String,
    /// Options.
    #[prost(message, repeated, tag = "5")]
    pub attributes: Vec<Attribute>,
    /// Whose operation it is; empty for ONNX's own.
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// An option of an operation.
#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A number.
    #[prost(float, tag = "2")]
    pub f: f32,
    /// An integer.
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// A text.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    /// A tensor.
    #[prost(message, optional, tag = "5")]
    pub t: Option<Stored>,
    /// Numbers.
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
}

/// A tensor as it is stored.
#[derive(Clone, PartialEq, Message)]
pub struct Stored {
    /// Its shape.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// The number of its type.
    #[prost(int32, tag = "2")]
    pub kind: i32,
    /// f32 values.
    #[prost(float, repeated, tag = "4")]
    pub floats: Vec<f32>,
    /// Values of small integer types, and the bits of half-precision ones.
    #[prost(int32, repeated, tag = "5")]
    pub ints: Vec<i32>,
    /// i64 values.
    #[prost(int64, repeated, tag = "7")]
    pub longs: Vec<i64>,
    /// Its name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// The bytes of the values, little-endian.
    #[prost(bytes = "vec", tag = "9")]
    pub raw: Vec<u8>,
    /// f64 values.
    #[prost(double, repeated, tag = "10")]
    pub doubles: Vec<f64>,
    /// Where in another file the bytes are.
    #[prost(message, repeated, tag = "13")]
    pub external: Vec<Entry>,
    /// 1 where they are in another file.
    #[prost(int32, tag = "14")]
    pub elsewhere: i32,
}

/// A text under a name.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// An input or output.
#[derive(Clone, PartialEq, Message)]
pub struct Port {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its type.
    #[prost(message, optional, tag = "2")]
    pub of: Option<Type>,
}

/// A type.
#[derive(Clone, PartialEq, Message)]
pub struct Type {
    /// A tensor's.
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

/// The type of a tensor.
#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    /// The number of its elements' type.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// Its shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

/// A shape.
#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    /// Its sizes.
    #[prost(message, repeated, tag = "1")]
    pub dims: Vec<Size>,
}

/// A size.
#[derive(Clone, PartialEq, Message)]
pub struct Size {
    /// The number; 0 where it is open.
    #[prost(int64, tag = "1")]
    pub value: i64,
}

impl Port {
    /// The number of its elements' type.
    pub fn kind(&self) -> i32 {
        self.of.as_ref().and_then(|t| t.tensor.as_ref()).map_or(0, |t| t.kind)
    }
    /// Its sizes, none for those that are open; nothing where the file does not tell.
    pub fn sizes(&self) -> Option<Vec<Option<usize>>> {
        let shape = self.of.as_ref()?.tensor.as_ref()?.shape.as_ref()?;
        Some(shape.dims.iter().map(|d| usize::try_from(d.value).ok().filter(|n| *n > 0)).collect())
    }
}

fn bad(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Format, format!("`{}`: {what}", path.display()))
}

/// Reads a file.
///
/// # Errors
/// Where it cannot be read, is no ONNX file, or is of an operation set before 13.
pub fn read(path: &Path) -> Result<Model> {
    let bytes = access::read(path)?.bytes().map_err(|e| Error::io(path, "read", e))?;
    let model = Model::decode(&*bytes).map_err(|e| bad(path, format!("not an ONNX file ({e})")))?;
    if model.graph.is_none() {
        return Err(bad(path, "not an ONNX file: it has no graph"));
    }
    match model.opset() {
        0..13 => Err(bad(path, format!("its operation set is {}, those from 13 on are read", model.opset()))
            .hint("export it with `opset_version=18`")),
        _ => Ok(model),
    }
}

impl Model {
    /// The version of ONNX's own operations.
    pub fn opset(&self) -> i64 {
        self.opsets.iter().find(|o| o.domain.is_empty() || o.domain == "ai.onnx").map_or(0, |o| o.version)
    }
}

/// Numbers of element types.
pub mod kinds {
    /// f32.
    pub const F32: i32 = 1;
    /// u8.
    pub const U8: i32 = 2;
    /// i8.
    pub const I8: i32 = 3;
    /// i16.
    pub const I16: i32 = 5;
    /// i32.
    pub const I32: i32 = 6;
    /// i64.
    pub const I64: i32 = 7;
    /// True and false.
    pub const BOOL: i32 = 9;
    /// f16.
    pub const F16: i32 = 10;
    /// f64.
    pub const F64: i32 = 11;
    /// bf16.
    pub const BF16: i32 = 16;
}

/// The type in which values of a kind are held: half precision is widened to f32, integers to i64, truth values are u8.
pub fn dtype(kind: i32) -> Option<DType> {
    Some(match kind {
        kinds::F32 | kinds::F16 | kinds::BF16 => DType::F32,
        kinds::F64 => DType::F64,
        kinds::I8 | kinds::I16 | kinds::I32 | kinds::I64 => DType::I64,
        kinds::U8 | kinds::BOOL => DType::U8,
        _ => return None,
    })
}

impl Stored {
    /// Its values; `path` is the model's file, beside which others may lie.
    pub fn tensor(&self, path: &Path) -> Result<Tensor> {
        let who =
            || if self.name.is_empty() { "a constant".to_string() } else { format!("the tensor `{}`", self.name) };
        let dims = self.dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<Vec<_>>>();
        let dims = dims.ok_or_else(|| bad(path, format!("{} has the shape {:?}", who(), self.dims)))?;
        let n = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let n = n.ok_or_else(|| bad(path, format!("{} has the shape {dims:?}", who())))?;
        let dtype = dtype(self.kind)
            .ok_or_else(|| bad(path, format!("{} is of a type that is not read (number {})", who(), self.kind)))?;
        let outside = if self.elsewhere == 1 { Some(self.outside(path)?) } else { None };
        let raw = outside.as_deref().unwrap_or(&self.raw);
        let values = self
            .values(raw)
            .filter(|v| v.len() == n)
            .ok_or_else(|| bad(path, format!("{} has not the values that its shape {dims:?} needs", who())))?;
        let device = Device::Cpu;
        Ok(match values {
            Values::Floats(v) => Tensor::from_vec(v, dims, &device)?,
            Values::Doubles(v) => Tensor::from_vec(v, dims, &device)?,
            Values::Ints(v) => Tensor::from_vec(v, dims, &device)?.to_dtype(dtype)?,
        })
    }

    /// The bytes from another file.
    fn outside(&self, path: &Path) -> Result<Vec<u8>> {
        let entry = |key: &str| self.external.iter().find(|e| e.key == key).map(|e| &*e.value);
        let name = entry("location").unwrap_or_default();
        let plain = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if name.is_empty() || !plain {
            return Err(bad(
                path,
                format!("the tensor `{}` is said to be in `{name}`, which is no file beside it", self.name),
            ));
        }
        let file = path.with_file_name("").join(name);
        let bytes = access::read(&file)?.bytes().map_err(|e| Error::io(&file, "read", e))?;
        let number = |key: &str| entry(key).map_or(Ok(None), |v| v.parse::<usize>().map(Some));
        let (Ok(offset), Ok(length)) = (number("offset"), number("length")) else {
            return Err(bad(path, format!("the tensor `{}` has no place in `{name}`", self.name)));
        };
        let start = offset.unwrap_or(0);
        let end = length.map_or(Some(bytes.len()), |n| start.checked_add(n));
        let part = end.and_then(|end| bytes.get(start..end));
        part.map(<[u8]>::to_vec).ok_or_else(|| bad(&file, format!("it ends before the tensor `{}` does", self.name)))
    }

    fn values(&self, raw: &[u8]) -> Option<Values> {
        fn each<const N: usize, T>(raw: &[u8], f: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
            raw.len().is_multiple_of(N).then(|| raw.as_chunks::<N>().0.iter().map(|b| f(*b)).collect())
        }
        let half = |bits: u16| half::f16::from_bits(bits).to_f32();
        let brain = |bits: u16| half::bf16::from_bits(bits).to_f32();
        let small = || self.ints.iter().map(|i| i64::from(*i)).collect();
        if raw.is_empty() {
            return Some(match self.kind {
                kinds::F32 => Values::Floats(self.floats.clone()),
                kinds::F64 => Values::Doubles(self.doubles.clone()),
                kinds::F16 => Values::Floats(self.ints.iter().map(|i| half(*i as u16)).collect()),
                kinds::BF16 => Values::Floats(self.ints.iter().map(|i| brain(*i as u16)).collect()),
                kinds::I64 => Values::Ints(self.longs.clone()),
                _ => Values::Ints(small()),
            });
        }
        Some(match self.kind {
            kinds::F32 => Values::Floats(each(raw, f32::from_le_bytes)?),
            kinds::F64 => Values::Doubles(each(raw, f64::from_le_bytes)?),
            kinds::F16 => Values::Floats(each(raw, |b| half(u16::from_le_bytes(b)))?),
            kinds::BF16 => Values::Floats(each(raw, |b| brain(u16::from_le_bytes(b)))?),
            kinds::I64 => Values::Ints(each(raw, i64::from_le_bytes)?),
            kinds::I32 => Values::Ints(each(raw, |b| i64::from(i32::from_le_bytes(b)))?),
            kinds::I16 => Values::Ints(each(raw, |b| i64::from(i16::from_le_bytes(b)))?),
            kinds::I8 => Values::Ints(each(raw, |b| i64::from(i8::from_le_bytes(b)))?),
            _ => Values::Ints(raw.iter().map(|b| i64::from(*b)).collect()),
        })
    }
}

/// Values in one of the types in which they are held.
enum Values {
    Floats(Vec<f32>),
    Doubles(Vec<f64>),
    Ints(Vec<i64>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Floats(v) => v.len(),
            Values::Doubles(v) => v.len(),
            Values::Ints(v) => v.len(),
        }
    }
}
