//! safetensors, in and out: names, tensors, and the metadata beside them.
use super::atomic;
use super::npy::{Element, encode};
use crate::{Error, Kind, Result};
use ::safetensors::tensor::{Dtype, SafeTensors};
use candle_core::{DType, Tensor};
use std::path::Path;

/// Names, tensors and metadata of a file.
#[derive(Debug, Default)]
pub struct Contents {
    /// Names and tensors, sorted by name.
    pub tensors: Vec<(String, Tensor)>,
    /// Metadata, sorted by key.
    pub metadata: Vec<(String, String)>,
}

/// Reads a `.safetensors` file, on the CPU; dtypes as [`super::npy::read_npy`], and bf16.
pub fn read(path: impl AsRef<Path>) -> Result<Contents> {
    let path = path.as_ref();
    from_bytes(&atomic::read(path)?).map_err(|e| e.context(path.display()))
}

/// Reads safetensors from memory.
pub fn from_bytes(bytes: &[u8]) -> Result<Contents> {
    let bad =
        |e: ::safetensors::SafeTensorError| Error::new(Kind::Format, format!("not a valid safetensors file: {e}"));
    let (_, meta) = SafeTensors::read_metadata(bytes).map_err(bad)?;
    let file = SafeTensors::deserialize(bytes).map_err(bad)?;
    let mut metadata: Vec<(String, String)> =
        meta.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    metadata.sort();
    let mut tensors = vec![];
    for (name, view) in file.iter() {
        let element = element(view.dtype()).map_err(|e| e.context(format!("tensor `{name}`")))?;
        let t = element.decode(view.data(), view.shape()).map_err(|e| e.context(format!("tensor `{name}`")))?;
        tensors.push((name.to_string(), t));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Contents { tensors, metadata })
}

/// How values of a type in a file become a tensor's.
pub(super) fn element(dtype: Dtype) -> Result<Element> {
    Ok(match dtype {
        Dtype::BOOL => Element::Bool,
        Dtype::U8 => Element::Same(DType::U8),
        Dtype::I8 => Element::I8,
        Dtype::I16 => Element::Same(DType::I16),
        Dtype::U16 => Element::U16,
        Dtype::F16 => Element::Same(DType::F16),
        Dtype::BF16 => Element::Same(DType::BF16),
        Dtype::I32 => Element::Same(DType::I32),
        Dtype::U32 => Element::Same(DType::U32),
        Dtype::F32 => Element::Same(DType::F32),
        Dtype::F64 => Element::Same(DType::F64),
        Dtype::I64 => Element::Same(DType::I64),
        Dtype::U64 => Element::U64,
        other => return Err(Error::new(Kind::Format, format!("dtype {other:?} is not supported"))),
    })
}

/// Writes tensors and metadata; the same contents give the same bytes (the reference writer orders metadata at random).
pub fn write(path: impl AsRef<Path>, tensors: &[(String, Tensor)], metadata: &[(String, String)]) -> Result<()> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let meta = metadata.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        header.insert("__metadata__".into(), serde_json::Value::Object(meta));
    }
    // wide dtypes first, as the reference writer does, so that every tensor lies at a multiple of its value's size
    let mut order: Vec<&(String, Tensor)> = tensors.iter().collect();
    order.sort_by(|a, b| b.1.dtype().size_in_bytes().cmp(&a.1.dtype().size_in_bytes()).then_with(|| a.0.cmp(&b.0)));
    let (mut data, mut end) = (vec![], 0);
    for (name, t) in order {
        let (start, bytes) = (end, encode(t)?);
        end += bytes.len();
        data.push(bytes);
        let entry = serde_json::json!({
            "dtype": t.dtype().as_str().to_uppercase(),
            "shape": t.dims(),
            "data_offsets": [start, end],
        });
        if header.insert(name.clone(), entry).is_some() {
            return Err(Error::value(format!("safetensors: the name `{name}` appears twice or is reserved")));
        }
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    atomic::write_with(path, |f| {
        f.write_all(&(text.len() as u64).to_le_bytes())?;
        f.write_all(&text)?;
        data.iter().try_for_each(|bytes| f.write_all(bytes))
    })
}
