//! Checkpoints of any format that is read here: tensors by dotted name, whatever the file is.
//!
//! `.safetensors`, and what Python's pickle and PyTorch write (`.pkl`, `.pt`, `.pth`, `.ckpt`), told apart by content. Data stay in
//! the file until a tensor is asked for; a file that was changed by then is an error. Pickles are never executed ([`super::pickle`]).
use super::pickle::{Fault, Shared};
use super::torch::{Contents, Data, Document, View, is_zip};
use super::{atomic, safetensors as st, sniff};
use crate::host::note;
use crate::tensor::memory;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// An opened checkpoint.
pub struct Checkpoint {
    tensors: BTreeMap<String, View>,
    unreadable: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
    document: Option<Document>,
}

/// What a file may be that is read as a checkpoint.
const FINE: [&str; 3] = ["a zip archive", "a pickle", "a safetensors file"];

/// A fault of a pickle as an error.
pub fn damaged(f: Fault) -> Error {
    Error::new(Kind::Format, f.to_string())
}

impl From<Fault> for Error {
    fn from(f: Fault) -> Error {
        damaged(f)
    }
}

/// Opens a checkpoint: a safetensors file, a pickle, or what `torch.save` writes.
///
/// A pickle's tensors are named by the path to them, joined with dots: `ema.model.enc.weight`; modules as in
/// `state_dict()`. Fails with [`Kind::Io`] where the file cannot be read and with [`Kind::Format`], naming the file and where
/// it is damaged, where its content is not that of a checkpoint.
pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
    let path = path.as_ref();
    let named_so = path.extension().is_some_and(|e| e == "safetensors");
    from_data(&data(path)?, named_so).map_err(|e| e.context(format!("`{}`", path.display())))
}

/// Opens a file that can be nothing else but a safetensors file, whatever its name.
pub fn open_safetensors(path: impl AsRef<Path>) -> Result<Checkpoint> {
    let path = path.as_ref();
    from_data(&data(path)?, true).map_err(|e| e.context(format!("`{}`", path.display())))
}

fn data(path: &Path) -> Result<Data> {
    Data::file(atomic::open(path)?.0).map_err(|e| Error::io(path, "read", e))
}

/// Opens a checkpoint in memory; `safetensors` if it can be nothing else, whatever its content looks like.
pub fn from_bytes(data: &Shared, safetensors: bool) -> Result<Checkpoint> {
    from_data(&data.clone().into(), safetensors)
}

fn from_data(data: &Data, safetensors: bool) -> Result<Checkpoint> {
    let head = data.head(512)?;
    if safetensors || looks_like_safetensors(&head, data.len()) {
        return from_safetensors(data);
    }
    if let Some(e) = sniff::instead(&head, "checkpoint", &FINE) {
        return Err(e);
    }
    let fail = |f: Fault| {
        damaged(f).hint("the file may be cut off, damaged or of another format: known are safetensors, pickles and what torch.save writes")
    };
    // a bare pickle is read as a whole
    if !is_zip(&head) {
        memory::room("reading the checkpoint", data.len())?;
    }
    let document = Document::open(data).map_err(fail)?;
    let Contents { tensors, unreadable } = document.contents(document.tree().root()).map_err(fail)?;
    Ok(Checkpoint { tensors, unreadable, metadata: BTreeMap::new(), document: Some(document) })
}

/// Whether it begins with the length of a header that fits, and with a JSON object.
fn looks_like_safetensors(head: &[u8], len: usize) -> bool {
    let length = head.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    length.is_some_and(|n| n < len as u64) && head.get(8) == Some(&b'{')
}

fn from_safetensors(data: &Data) -> Result<Checkpoint> {
    let header = st::header(data)?;
    let (mut tensors, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
    for (name, info) in header.tensors {
        let (start, end) = info.data_offsets;
        let strides = View::row_major(&info.shape);
        let part =
            data.part(header.start + start, end - start).ok_or_else(|| "its data lie outside of the file".to_string());
        match part.and_then(|p| View::new(p, info.dtype, false, 0, info.shape, strides)) {
            Ok(view) => drop(tensors.insert(name, view)),
            // values smaller than a byte
            Err(why) => drop(unreadable.insert(name, why)),
        }
    }
    Ok(Checkpoint { tensors, unreadable, metadata: header.metadata, document: None })
}

impl Checkpoint {
    /// One made of several files: tensors and metadata by names that tell them apart.
    pub fn joined(tensors: BTreeMap<String, View>, metadata: BTreeMap<String, String>) -> Checkpoint {
        Checkpoint { tensors, unreadable: BTreeMap::new(), metadata, document: None }
    }
    /// The same with an entry of metadata more, unless it has that already.
    pub fn told(mut self, name: &str, text: String) -> Checkpoint {
        self.metadata.entry(name.into()).or_insert(text);
        self
    }
    /// Its tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, View> {
        &self.tensors
    }
    /// The names of what stands where a tensor would and is not read, each with what it is.
    pub fn unreadable(&self) -> &BTreeMap<String, String> {
        &self.unreadable
    }
    /// Tells by a note what is not read among the names that begin with `prefix`.
    pub fn tell_unreadable(&self, prefix: &str) {
        for (name, what) in self.unreadable.iter().filter(|(name, _)| name.starts_with(prefix)) {
            note(&format!("`{name}` is left out: {what}"));
        }
    }
    /// The tensors whose names begin with `prefix`, which is taken off. What is of a dtype that is not read is left out with a note.
    pub fn readable(&self, prefix: &str) -> Result<Vec<(String, Tensor)>> {
        self.tell_unreadable(prefix);
        let mut views = vec![];
        for (name, view) in &self.tensors {
            let Some(rest) = name.strip_prefix(prefix) else { continue };
            match st::element(view.dtype()) {
                Ok(_) => views.push((name, rest, view)),
                Err(e) => note(&format!("`{name}` is left out: {}", e.message())),
            }
        }
        memory::room("these tensors", views.iter().map(|(_, _, v)| v.len()).fold(0, usize::saturating_add))?;
        let one = |(name, rest, view): (&String, &str, &View)| match tensor(view) {
            Ok(t) => Ok((rest.to_string(), t)),
            Err(e) => Err(e.context(format!("tensor `{name}`"))),
        };
        views.into_iter().map(one).collect()
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
            None if self.unreadable.contains_key(name) => {
                let what = &self.unreadable[name];
                Err(Error::new(Kind::Format, format!("`{name}` is {what}, which is not read here"))
                    .hint("save it as an ordinary (dense) tensor of floating-point numbers or integers"))
            }
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

/// The tensor of a view, on the CPU. bool and u8 become u8, i8 i16, u16 u32, u64 i64, FP8 f32, all others keep their type.
pub fn tensor(view: &View) -> Result<Tensor> {
    let element = st::element(view.dtype())?;
    memory::room("a tensor of the checkpoint", view.count().saturating_mul(element.dtype().size_in_bytes()))?;
    element.decode(&view.bytes()?, view.shape())
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
                false => f.write_all(&v.bytes().map_err(|f| std::io::Error::other(f.to_string()))?)?,
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
