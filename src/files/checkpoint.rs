//! Checkpoints of any format that is read here: tensors by dotted name, whatever the file is.
//!
//! `.safetensors`, and what Python's pickle and PyTorch write (`.pkl`, `.pt`, `.pth`, `.ckpt`), told apart by content. A file
//! is mapped, not read: a tensor's data are looked at when it is asked for. Pickles are never executed ([`super::pickle`]).
use super::pickle::{Fault, Shared};
use super::torch::{Document, View};
use super::{atomic, safetensors as st};
use crate::{Error, Kind, Result};
use ::safetensors::tensor::SafeTensors;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// An opened checkpoint.
pub struct Checkpoint {
    tensors: BTreeMap<String, View>,
    metadata: BTreeMap<String, String>,
    document: Option<Document>,
}

/// A fault of a pickle as an error.
pub fn damaged(f: Fault) -> Error {
    Error::new(Kind::Format, f.to_string())
}

/// Opens a checkpoint: a safetensors file, a pickle, or what `torch.save` writes.
///
/// A pickle's tensors are named by the path to them, joined with dots: `ema.model.enc.weight`; modules as in
/// `state_dict()`. Fails with [`Kind::Io`] where the file cannot be read and with [`Kind::Format`], naming the file and where
/// it is damaged, where its content is not that of a checkpoint.
pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
    let path = path.as_ref();
    atomic::existing(path)?;
    let file = crate::access::read(path)?.open().map_err(|e| Error::io(path, "open", e))?;
    // SAFETY: the mapping is read-only and private; a file that another process truncates meanwhile is outside what a
    // reader can guard against.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, "read", e))?;
    let named_so = path.extension().is_some_and(|e| e == "safetensors");
    from_bytes(&Shared::new(map), named_so).map_err(|e| e.context(format!("`{}`", path.display())))
}

/// Opens a checkpoint in memory; `safetensors` if it can be nothing else, whatever its content looks like.
pub fn from_bytes(data: &Shared, safetensors: bool) -> Result<Checkpoint> {
    if safetensors || looks_like_safetensors(data) {
        return from_safetensors(data);
    }
    if let Some((what, hint)) = something_else(data) {
        return Err(Error::new(Kind::Format, format!("no checkpoint but {what}")).hint(hint));
    }
    let fail = |f: Fault| {
        damaged(f).hint("the file may be cut off, damaged or of another format: known are safetensors, pickles and what torch.save writes")
    };
    let document = Document::open(data).map_err(fail)?;
    let tensors = document.tensors(document.tree().root()).map_err(fail)?;
    Ok(Checkpoint { tensors, metadata: BTreeMap::new(), document: Some(document) })
}

/// Whether it begins with the length of a header that fits, and with a JSON object.
fn looks_like_safetensors(data: &[u8]) -> bool {
    let length = data.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    length.is_some_and(|n| n < data.len() as u64) && data.get(8) == Some(&b'{')
}

/// Files that end up under a checkpoint's name by mistake: what they are, and what to do.
fn something_else(data: &[u8]) -> Option<(&'static str, &'static str)> {
    let head = data[..data.len().min(512)].trim_ascii_start();
    let page = [&b"<!doctype"[..], b"<html", b"<?xml"]
        .iter()
        .any(|p| head.get(..p.len()).is_some_and(|h| h.eq_ignore_ascii_case(p)));
    let again = "download it again, and see that the address is that of the file itself";
    match () {
        _ if data.is_empty() => Some(("an empty file", again)),
        _ if page => Some(("a web page", again)),
        _ if head.starts_with(b"version https://git-lfs") => {
            Some(("a pointer of Git LFS", "fetch the file that it stands for: `git lfs pull`"))
        }
        _ if data.starts_with(&[0x1f, 0x8b]) => Some(("a gzip file", "unpack it first")),
        _ if data.starts_with(b"\x93NUMPY") => Some(("a numpy array", "read it with `load_npy`")),
        _ if data.get(257..262) == Some(b"ustar") => {
            Some(("a tar archive, as PyTorch wrote before 0.2", "save it again with a newer PyTorch"))
        }
        _ => None,
    }
}

fn from_safetensors(data: &Shared) -> Result<Checkpoint> {
    let broken = |e: ::safetensors::SafeTensorError| {
        Error::new(Kind::Format, format!("not a readable safetensors file: {e}"))
            .hint("the file may be truncated or of another format: download or convert it again")
    };
    let (header, meta) = SafeTensors::read_metadata(data).map_err(broken)?;
    // this checks that every tensor lies inside the file
    SafeTensors::deserialize(data).map_err(broken)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in meta.tensors() {
        let (start, end) = info.data_offsets;
        let part = data.part(8 + header + start, end - start);
        let strides = View::row_major(&info.shape);
        let view = part.ok_or_else(|| "its data lie outside of the file".to_string());
        let view = view.and_then(|p| View::new(p, info.dtype, false, 0, info.shape.clone(), strides));
        let view = view.map_err(|m| Error::new(Kind::Format, format!("tensor `{name}`: {m}")))?;
        tensors.insert(name, view);
    }
    let metadata = meta.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Checkpoint { tensors, metadata, document: None })
}

impl Checkpoint {
    /// Its tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, View> {
        &self.tensors
    }
    /// The metadata of a safetensors file; empty for other formats.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
    /// The pickle; `None` for a safetensors file.
    pub fn document(&self) -> Option<&Document> {
        self.document.as_ref()
    }
    /// A tensor on the CPU. Fails with [`Kind::Name`] where there is none of that name, suggesting the nearest.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.tensors.get(name) {
            Some(view) => tensor(view).map_err(|e| e.context(format!("tensor `{name}`"))),
            None => {
                let e = Error::new(Kind::Name, format!("the checkpoint has no tensor `{name}`"));
                let near = crate::error::nearest(name, self.tensors.keys().map(String::as_str));
                Err(e.hint(match near {
                    Some(n) => format!("did you mean `{n}`?"),
                    None => format!("it has {} tensors: `.names` lists them", self.tensors.len()),
                }))
            }
        }
    }
}

/// The tensor of a view, on the CPU. bool and u8 become u8, i8 i16, u16 u32, u64 i64, all others keep their type.
pub fn tensor(view: &View) -> Result<Tensor> {
    st::element(view.dtype())?.decode(&view.bytes(), view.shape())
}

/// Writes tensors as they are and metadata to a safetensors file, tensor by tensor, as a whole or not at all.
///
/// With `half`, tensors of f32 and f64 are written as f16; values beyond its range are an error.
pub fn write(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, View>,
    metadata: &BTreeMap<String, String>,
    half: bool,
) -> Result<()> {
    use ::safetensors::Dtype;
    let narrow = |v: &View| half && matches!(v.dtype(), Dtype::F32 | Dtype::F64);
    let width = |v: &View| if narrow(v) { Dtype::F16 } else { v.dtype() }.bitsize();
    // wide types first, as the reference writer does, so that every tensor lies at a multiple of its value's size
    let mut order: Vec<(&String, &View)> = tensors.iter().collect();
    order.sort_by_key(|(_, v)| std::cmp::Reverse(width(v)));
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for (name, v) in &order {
        let start = end;
        end += v.count() * width(v) / 8;
        let dtype = if narrow(v) { Dtype::F16 } else { v.dtype() };
        let entry = serde_json::json!({ "dtype": dtype, "shape": v.shape(), "data_offsets": [start, end] });
        if header.insert((*name).clone(), entry).is_some() {
            return Err(Error::value(format!("the tensor name `{name}` is reserved in safetensors files")));
        }
        if narrow(v) {
            to_half(v).map_err(|e| e.context(format!("tensor `{name}`")))?;
        }
    }
    let mut text = serde_json::Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    atomic::write_with(path, |f| {
        f.write_all(&(text.len() as u64).to_le_bytes())?;
        f.write_all(&text)?;
        for (_, v) in &order {
            match narrow(v) {
                true => f.write_all(&to_half(v).map_err(|e| std::io::Error::other(e.to_string()))?)?,
                false => f.write_all(&v.bytes())?,
            }
        }
        Ok(())
    })
}

fn to_half(view: &View) -> Result<Vec<u8>> {
    let values = tensor(view)?.flatten_all()?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>()?;
    let mut out = Vec::with_capacity(2 * values.len());
    for v in values {
        let h = half::f16::from_f64(v);
        if v.is_finite() && !h.is_finite() {
            return Err(Error::value(format!("{v} does not fit into half precision, which ends at 65504"))
                .hint("leave out `--half`"));
        }
        out.extend(h.to_le_bytes());
    }
    Ok(out)
}
