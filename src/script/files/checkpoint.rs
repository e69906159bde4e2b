//! Rhai functions to look into checkpoints and to take tensors out of them.
use crate::files::checkpoint::{self, Checkpoint, damaged};
use crate::files::pickle::Id;
use crate::files::torch::{Item, Part};
use crate::script::error::RhaiResult;
use crate::{Error, Kind, Result};
use candle_core::Tensor;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, Map};
use std::collections::BTreeSet;
use std::rc::Rc;

/// A checkpoint in a script.
#[derive(Clone)]
pub struct ScriptCheckpoint {
    path: String,
    inner: Rc<Checkpoint>,
}

/// How deep values are shown to a script, and how many; each KiB of data counts as one.
const DEPTH: usize = 64;
const VALUES: usize = 1 << 22;
/// How many tensors are listed when a checkpoint is printed.
const LISTED: usize = 40;

/// Adds this area's types and functions to `engine`.
pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<ScriptCheckpoint>("Checkpoint");
    engine.register_static_module("checkpoint", rhai::exported_module!(checkpoint_api).into());
    engine.register_global_module(rhai::exported_module!(methods).into());
}

impl ScriptCheckpoint {
    fn view(&self, name: &str) -> Result<&crate::files::torch::View> {
        match self.inner.tensors().get(name) {
            Some(v) => Ok(v),
            // the same error as for the tensor itself
            None => Err(self.inner.tensor(name).err().unwrap_or_else(|| Error::new(Kind::Name, "no such tensor"))),
        }
    }
    /// Tensors whose names begin with `prefix`, which is taken off.
    fn under(&self, prefix: &str) -> Result<Map> {
        let tensors = self.inner.readable(prefix)?;
        let out: Map = tensors.into_iter().map(|(name, t)| (name.into(), Dynamic::from(t))).collect();
        if out.is_empty() && !prefix.is_empty() {
            let heads: BTreeSet<&str> =
                self.inner.tensors().keys().filter_map(|k| k.split_inclusive('.').next()).collect();
            return Err(Error::unknown("prefix of tensors' names", prefix, heads));
        }
        Ok(out)
    }
}

/// A value of a pickle as a script's value.
fn value(c: &Checkpoint, id: Id, depth: usize, left: &mut usize) -> Result<Dynamic> {
    let too_much = |what: &str| {
        Error::value(format!("the pickle's value is {what}")).hint("ask for a part of it: `.value(\"path.to.part\")`")
    };
    let Some(doc) = c.document() else { return Ok(Dynamic::UNIT) };
    let charge = |bytes: usize, left: &mut usize| match left.checked_sub(1 + bytes / 1024) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => Err(too_much("too large for a script")),
    };
    charge(0, left)?;
    if depth == 0 {
        return Err(too_much("nested too deeply, or a part of itself"));
    }
    let all = |parts: Vec<Part>, left: &mut usize| -> Result<Map> {
        parts.into_iter().map(|(k, v)| Ok((k.as_ref().into(), value(c, v, depth - 1, left)?))).collect()
    };
    let list =
        |ids: &[Id], left: &mut usize| -> Result<Array> { ids.iter().map(|i| value(c, *i, depth - 1, left)).collect() };
    let item = match doc.item(id) {
        Err(f) if f.unknown => return Ok(Map::from([("unreadable".into(), f.message.into())]).into()),
        item => item.map_err(damaged)?,
    };
    Ok(match item {
        Item::None => Dynamic::UNIT,
        Item::Bool(b) => b.into(),
        Item::Int(i) => i.into(),
        // the nearest float
        Item::Big(bytes) => {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let digit = |b: u8| if negative { !b } else { b } as f64;
            let v = bytes.iter().rev().fold(0.0, |v, b| v * 256.0 + digit(*b));
            (if negative { -v - 1.0 } else { v }).into()
        }
        Item::Float(f) => f.into(),
        Item::Text(t) => {
            charge(t.len(), left)?;
            t.into_owned().into()
        }
        Item::Bytes(b) => {
            charge(b.len(), left)?;
            Dynamic::from_blob(b.to_vec())
        }
        Item::Sequence(ids) => list(ids, left)?.into(),
        Item::Map(pairs) => all(doc.keyed(&pairs), left)?.into(),
        Item::Tensor(view) => {
            charge(view.len(), left)?;
            Dynamic::from(checkpoint::tensor(&view)?)
        }
        Item::Storage(s) => {
            charge(s.bytes.len(), left)?;
            Dynamic::from_blob(s.bytes.read()?.to_vec())
        }
        Item::Class(module, name) => format!("{module}.{name}").into(),
        Item::Object(o) => {
            let mut out = Map::from([("class".into(), o.class.clone().into())]);
            out.insert("args".into(), list(o.args, left)?.into());
            // what an object carried as source text was called with is its description, which is taken apart already
            let attributes = doc.attributes(&o).map_err(damaged)?;
            out.insert("attributes".into(), all(attributes, left)?.into());
            out.insert("items".into(), list(o.items, left)?.into());
            out.insert("entries".into(), all(doc.keyed(o.pairs), left)?.into());
            out.retain(|_, v| {
                !v.read_lock::<Array>().is_some_and(|a| a.is_empty())
                    && !v.read_lock::<Map>().is_some_and(|m| m.is_empty())
            });
            out.into()
        }
    })
}

/// Checkpoints: tensors by name, from safetensors, pickle and PyTorch files.
#[export_module]
mod checkpoint_api {
    /// Opens a checkpoint: a `.safetensors` file, or what Python's pickle and PyTorch write (`.pkl`, `.pt`, `.pth`, `.ckpt`), told apart by content.
    ///
    /// Nothing in a pickle is executed. Tensors go by the path to them, joined with dots, modules as in `state_dict()`:
    /// `"ema.model.conv.weight"`. A tensor's data are read when it is asked for; a file that was changed by then is an error, and so is a
    /// checksum that does not fit. What is not read (sparse, quantized, nested tensors) is listed when the checkpoint is printed.
    /// Errors name the file and the byte.
    ///
    /// Example: `let c = checkpoint::open("models/fashion28-edm.safetensors"); print(c); let w = c[c.names[0]];`
    #[rhai_fn(return_raw)]
    pub fn open(path: &str) -> RhaiResult<ScriptCheckpoint> {
        Ok(ScriptCheckpoint { path: path.into(), inner: Rc::new(checkpoint::open(path)?) })
    }
}

/// What a checkpoint can be asked.
#[export_module]
mod methods {
    /// The names of a checkpoint's tensors, sorted.
    ///
    /// Example: `checkpoint::open("models/fashion28-edm.safetensors").names`
    #[rhai_fn(get = "names", pure)]
    pub fn names(c: &mut ScriptCheckpoint) -> Array {
        c.inner.tensors().keys().map(|k| k.clone().into()).collect()
    }
    /// The metadata of a safetensors file, a map of strings; empty for other formats.
    ///
    /// Example: `checkpoint::open("models/fashion28-edm.safetensors").metadata.keys()`
    #[rhai_fn(get = "metadata", pure)]
    pub fn metadata(c: &mut ScriptCheckpoint) -> Map {
        c.inner.metadata().iter().map(|(k, v)| (k.as_str().into(), v.clone().into())).collect()
    }
    /// The tensor of that name, on the CPU. bool and u8 become u8, i8 i16, u16 u32, u64 i64, FP8 f32, all others keep their dtype.
    ///
    /// Errors where there is none, naming the nearest.
    ///
    /// Example: `let c = checkpoint::open("models/fashion28-edm.safetensors"); c.tensor(c.names[0])`
    #[rhai_fn(name = "tensor", index_get, return_raw, pure)]
    pub fn tensor(c: &mut ScriptCheckpoint, name: &str) -> RhaiResult<Tensor> {
        Ok(c.inner.tensor(name)?)
    }
    /// All tensors, a map by name; what is not read is left out with a note.
    ///
    /// Example: `let weights = checkpoint::open("models/fashion28-edm.safetensors").tensors();`
    #[rhai_fn(return_raw, pure)]
    pub fn tensors(c: &mut ScriptCheckpoint) -> RhaiResult<Map> {
        Ok(c.under("")?)
    }
    /// The tensors whose names begin with `prefix`, a map by the rest of the name.
    ///
    /// Errors where there are none.
    ///
    /// Example: `let weights = checkpoint::open("models/fashion28-edm.safetensors").tensors("model.dec.");`
    #[rhai_fn(name = "tensors", return_raw, pure)]
    pub fn tensors_under(c: &mut ScriptCheckpoint, prefix: &str) -> RhaiResult<Map> {
        Ok(c.under(prefix)?)
    }
    /// The shape of a tensor in the file, without reading its data.
    ///
    /// Example: `let c = checkpoint::open("models/fashion28-edm.safetensors"); c.shape(c.names[0])`
    #[rhai_fn(return_raw, pure)]
    pub fn shape(c: &mut ScriptCheckpoint, name: &str) -> RhaiResult<Array> {
        Ok(c.view(name)?.shape().iter().map(|d| Dynamic::from_int(*d as i64)).collect())
    }
    /// The dtype of a tensor in the file, as safetensors names it: "F32", "BF16", "BOOL", …
    ///
    /// Example: `let c = checkpoint::open("models/fashion28-edm.safetensors"); c.dtype(c.names[0])` is "F32"
    #[rhai_fn(return_raw, pure)]
    pub fn dtype(c: &mut ScriptCheckpoint, name: &str) -> RhaiResult<String> {
        Ok(format!("{:?}", c.view(name)?.dtype()))
    }
    /// Anything in a pickle by its path, `""` for all of it: numbers, texts, arrays, maps, tensors; `None` is ().
    ///
    /// An object that means nothing here is a map of `class` and, where it has them, `args`, `attributes`, `items` and `entries`.
    /// Errors where the path leads nowhere, on a safetensors file, and on values that are parts of themselves.
    ///
    /// Example: `try { checkpoint::open("models/fashion28-edm.safetensors").value("config.width"); } catch (e) { print(e.message); }`
    #[rhai_fn(name = "value", return_raw, pure)]
    pub fn value_at(c: &mut ScriptCheckpoint, path: &str) -> RhaiResult<Dynamic> {
        let Some(doc) = c.inner.document() else {
            let e = Error::value("a safetensors file holds tensors and metadata only");
            return Err(e.hint("`.names`, `.tensor(name)`, `.metadata`").into());
        };
        match doc.find(path).map_err(damaged)? {
            Some(id) => Ok(value(&c.inner, id, DEPTH, &mut { VALUES })?),
            None => Err(Error::new(Kind::Name, format!("`{path}` leads nowhere in this checkpoint"))
                .hint("`.value(\"\")` shows all of it, `.names` lists the tensors")
                .into()),
        }
    }
    /// A list of the tensors.
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn checkpoint_to_string(c: &mut ScriptCheckpoint) -> String {
        let tensors = c.inner.tensors();
        let bytes: usize = tensors.values().map(|v| v.len()).sum();
        let mut out = format!("{}: {} tensors, {:.1} MB", c.path, tensors.len(), bytes as f64 / 1e6);
        let width = tensors.keys().take(LISTED).map(|k| k.chars().count()).max().unwrap_or_default();
        for (name, v) in tensors.iter().take(LISTED) {
            out += &format!("\n  {name:<width$}  {:?} {:?}", v.dtype(), v.shape());
        }
        for (name, what) in c.inner.unreadable().iter().take(LISTED) {
            out += &format!("\n  {name:<width$}  not readable: {what}");
        }
        if tensors.len() > LISTED {
            out += &format!("\n  and {} more: `.names` lists them", tensors.len() - LISTED);
        }
        // names come from the file
        crate::access::clean(&out).into_owned()
    }
}
