//! Opens a model's file and tells what it is, before anything is made of it.
use super::data::{self, Elem};
use super::proto::{self, Extent};
use crate::files::atomic;
use crate::files::hash::sha256;
use crate::{Error, Kind, Result};
use prost::Message;
use prost::bytes::Bytes;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The versions of ONNX's operations that are read.
pub const OPSETS: [i64; 2] = [13, 28];

/// Operations that a file may have: more are not meant.
const MOST_NODES: usize = 1 << 20;

/// A size of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Along {
    /// This one.
    Size(usize),
    /// One that varies, by its name, which may be empty.
    Named(String),
}

/// An input or output of a model.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub elem: Elem,
    /// Its sizes; none where the file does not say.
    pub dims: Option<Vec<Along>>,
}

impl std::fmt::Display for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let one = |d: &Along| match d {
            Along::Size(n) => n.to_string(),
            Along::Named(s) if s.is_empty() => "?".into(),
            Along::Named(s) => s.clone(),
        };
        let kind = match self.elem {
            Elem::Float => "",
            Elem::Int => " of whole numbers",
            Elem::Bool => " of truth values",
        };
        match &self.dims {
            Some(dims) => write!(f, "`{}` [{}]{kind}", self.name, dims.iter().map(one).collect::<Vec<_>>().join(", ")),
            None => write!(f, "`{}`{kind}", self.name),
        }
    }
}

/// A model's file.
pub struct Model {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub hash: String,
    /// How long it is.
    pub bytes: u64,
    /// What it takes.
    pub inputs: Vec<Tensor>,
    /// What it gives.
    pub outputs: Vec<Tensor>,
    /// Its operations.
    pub graph: proto::Graph,
    /// Functions of its own.
    pub functions: Vec<proto::Function>,
}

fn format(m: impl Into<String>) -> Error {
    Error::new(Kind::Format, m)
}

/// Opens a model. Errors name the file.
pub fn open(path: &Path) -> Result<Model> {
    let bytes: Bytes = atomic::read(path)?.into();
    parse(path, bytes).map_err(|e| e.context(format!("`{}`", path.display())))
}

/// What a file is that is no model.
fn instead(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let starts = |s: &[u8]| bytes.starts_with(s);
    Some(match bytes {
        _ if bytes.is_empty() => ("it is empty", "copy or export it again"),
        _ if starts(b"version https://git-lfs") => {
            ("it is a pointer of git-lfs, not the file", "fetch the file itself: `git lfs pull`")
        }
        _ if starts(b"PK") => (
            "it is a zip archive (PyTorch's checkpoints are), not an ONNX file",
            "export the network: `torch.onnx.export`",
        ),
        _ if starts(b"\x89HDF") => ("it is an HDF5 file, not an ONNX file", "export the network, as with `tf2onnx`"),
        _ if starts(b"<") || starts(b"{") => ("it is a text, not an ONNX file", "was a page downloaded in its place?"),
        [a, b, c, d, 0, 0, 0, 0, b'{', ..] if u32::from_le_bytes([*a, *b, *c, *d]) > 1 => (
            "it is a safetensors file, which holds weights and no operations",
            "`denoiser::load` reads those of known networks; for others export the network",
        ),
        _ => return None,
    })
}

fn parse(path: &Path, bytes: Bytes) -> Result<Model> {
    if let Some((what, fix)) = instead(&bytes) {
        return Err(format(what).hint(fix));
    }
    let (hash, length) = (sha256(&bytes), bytes.len() as u64);
    let model = proto::Model::decode(bytes).map_err(|e| {
        let m = format!(
            "it is no ONNX file, or is damaged or cut short ({})",
            e.to_string().trim_start_matches("failed to decode Protobuf message: ")
        );
        format(m).hint("copy or export it again")
    })?;
    let standard = |d: &str| d.is_empty() || d == "ai.onnx";
    let opset = model.opsets.iter().find(|o| standard(&o.domain)).map(|o| o.version);
    let (Some(graph), true) = (model.graph, model.ir_version > 0) else {
        return Err(format("it is no ONNX file, or is cut short: it holds no graph").hint("copy or export it again"));
    };
    let opset = opset.ok_or_else(|| {
        format("it does not say which version of ONNX's operations it uses").hint("copy or export it again")
    })?;
    if opset < OPSETS[0] {
        let e = format(format!("it uses opset {opset} of ONNX; {} and later ones are read", OPSETS[0]));
        return Err(e.hint(format!(
            "export it with `opset_version={}` or later, or convert it: `onnx.version_converter`",
            OPSETS[0].max(17)
        )));
    }
    if opset > OPSETS[1] {
        let m = format!(
            "`{}`: its opset {opset} is newer than {}, the newest that is known here",
            path.display(),
            OPSETS[1]
        );
        crate::host::note(&format!("{m}: compare its values with the exporter's"));
    }
    if graph.nodes.len() > MOST_NODES {
        return Err(format(format!("it has {} operations, more than {MOST_NODES}", graph.nodes.len())));
    }
    if !graph.sparse.is_empty() {
        return Err(format("it has sparse weights, which are not read").hint("export it with dense ones"));
    }
    if graph.outputs.is_empty() {
        return Err(format("its graph has no output: is the file cut short?").hint("copy or export it again"));
    }
    let constants: BTreeSet<&str> = graph.initializers.iter().map(|t| &*t.name).collect();
    let inputs = graph.inputs.iter().filter(|i| !constants.contains(&*i.name)).map(told).collect::<Result<_>>()?;
    let outputs = graph.outputs.iter().map(told).collect::<Result<_>>()?;
    Ok(Model { path: path.into(), hash, bytes: length, inputs, outputs, graph, functions: model.functions })
}

fn told(v: &proto::ValueInfo) -> Result<Tensor> {
    let about = |e: Error| e.context(format!("`{}`", v.name));
    let Some(kind) = v.kind.as_ref().and_then(|k| k.tensor.as_ref()) else {
        return Err(about(format("it is a sequence, a map or an optional value; only tensors can go in and out")));
    };
    let elem = data::elem(kind.element).map_err(about)?;
    let one = |d: &proto::Dimension| match &d.extent {
        Some(Extent::Size(n)) => match usize::try_from(*n).ok().filter(|n| *n > 0 && *n < 1 << 40) {
            Some(n) => Ok(Along::Size(n)),
            // how some exporters write what may vary
            None if *n <= 0 => Ok(Along::Named(String::new())),
            None => Err(about(format(format!("its size {n} is none")))),
        },
        Some(Extent::Named(s)) => Ok(Along::Named(s.clone())),
        None => Ok(Along::Named(String::new())),
    };
    let dims = kind.shape.as_ref().map(|s| s.dims.iter().map(one).collect::<Result<Vec<_>>>()).transpose()?;
    Ok(Tensor { name: v.name.clone(), elem, dims })
}
