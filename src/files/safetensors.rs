//! safetensors, in and out: names, tensors, and the metadata beside them.
use super::checkpoint::{self, Checkpoint};
use super::npy::{Element, encode};
use super::pickle::Shared;
use super::torch::Data;
use super::{atomic, json, sniff};
use crate::tensor::dtype::elements;
use crate::{Error, Kind, Result};
use ::safetensors::SafeTensorError as Broken;
use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// A longer header is no header: as in the reference reader.
const LONGEST_HEADER: usize = 100_000_000;

/// Names, tensors and metadata of a file.
#[derive(Debug, Default)]
pub struct Contents {
    /// Names and tensors, sorted by name.
    pub tensors: Vec<(String, Tensor)>,
    /// Metadata, sorted by key.
    pub metadata: Vec<(String, String)>,
}

/// Reads a `.safetensors` file, on the CPU; dtypes as [`super::npy::read_npy`], bf16, and FP8 as f32. Tensors of other dtypes are left
/// out, with a note.
pub fn read(path: impl AsRef<Path>) -> Result<Contents> {
    let path = path.as_ref();
    contents(&checkpoint::open_safetensors(path)?).map_err(|e| e.context(path.display()))
}

/// Reads safetensors from memory.
pub fn from_bytes(bytes: &[u8]) -> Result<Contents> {
    contents(&checkpoint::from_bytes(&Shared::new(bytes.to_vec()), true)?)
}

fn contents(file: &Checkpoint) -> Result<Contents> {
    Ok(Contents { tensors: file.readable("")?, metadata: file.metadata().clone().into_iter().collect() })
}

/// What a header says of its file.
pub(super) struct Header {
    /// Where the data begin.
    pub start: usize,
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
}

/// Reads the header, and checks that the tensors lie in the file one behind the other, without gaps, to its end.
pub(super) fn header(data: &Data) -> Result<Header> {
    let broken = |e: Broken| {
        Error::new(Kind::Format, format!("not a readable safetensors file: {e}"))
            .hint("the file may be truncated or of another format: download or convert it again")
    };
    let head = data.head(512)?;
    // what begins as another kind of file does has a length that no header has
    let other = |e: Broken| match sniff::instead(&head, "safetensors file", &["a safetensors file"]) {
        Some(what) => what,
        None => broken(e),
    };
    let n = head.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)).ok_or_else(|| other(Broken::HeaderTooSmall))?;
    let n = usize::try_from(n).ok().filter(|n| *n <= LONGEST_HEADER).ok_or_else(|| other(Broken::HeaderTooLarge))?;
    let text = data.part(8, n).ok_or_else(|| other(Broken::InvalidHeaderLength))?.read()?;
    let text = str::from_utf8(&text).map_err(|e| broken(Broken::InvalidHeader(e)))?;
    let meta: Metadata = serde_json::from_str(text).map_err(|e| broken(Broken::InvalidHeaderDeserialization(e)))?;
    // the format forbids a name that comes twice, of which the reader above takes the last
    json::parse(text).map_err(|e| e.context("the header of the safetensors file"))?;
    let mut order: Vec<(String, &TensorInfo)> = meta.tensors().into_iter().collect();
    order.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    let mut at = 0;
    for (name, info) in &order {
        let (start, end) = info.data_offsets;
        let bits = elements(&info.shape).and_then(|n| n.checked_mul(info.dtype.bitsize()));
        let bits = bits.ok_or_else(|| broken(Broken::ValidationOverflow))?;
        if start != at || end < start {
            return Err(broken(Broken::InvalidOffset(name.clone())));
        }
        if bits % 8 != 0 {
            return Err(broken(Broken::MisalignedSlice));
        }
        if end - start != bits / 8 {
            return Err(broken(Broken::TensorInvalidInfo));
        }
        at = end;
    }
    if at.checked_add(8 + n) != Some(data.len()) {
        return Err(broken(Broken::MetadataIncompleteBuffer));
    }
    let metadata = meta.metadata().clone().unwrap_or_default().into_iter().collect();
    let tensors = order.into_iter().map(|(name, info)| (name, info.clone())).collect();
    Ok(Header { start: 8 + n, tensors, metadata })
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
        Dtype::F8_E4M3 => Element::F8E4M3,
        Dtype::F8_E5M2 => Element::F8E5M2,
        other => return Err(Error::new(Kind::Format, format!("values of type {other:?} are not read"))),
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
