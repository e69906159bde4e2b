//! Networks in the pickles in which NVIDIA publishes them: objects whose class travels as source text, which is not
//! looked at. Their arguments become the configuration, their parameters and buffers the weights.
use crate::files::checkpoint::{Checkpoint, damaged};
use crate::files::pickle::{Id, Outcome};
use crate::files::torch::{Document, Item, Object};
use crate::nets::family::Described;
use crate::{Error, Kind, Result};
use serde_json::ser::Formatter;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The classes that join preconditioning and network, and the names of their arguments in order.
const PRECONDITIONED: [(&str, &[&str]); 5] = [
    // EDM2's; what follows are arguments of its U-Net
    ("Precond", &["img_resolution", "img_channels", "label_dim", "use_fp16", "sigma_data", "logvar_channels"]),
    (
        "EDMPrecond",
        &[
            "img_resolution",
            "img_channels",
            "label_dim",
            "use_fp16",
            "sigma_min",
            "sigma_max",
            "sigma_data",
            "model_type",
        ],
    ),
    (
        "VPPrecond",
        &[
            "img_resolution",
            "img_channels",
            "label_dim",
            "use_fp16",
            "beta_d",
            "beta_min",
            "M",
            "epsilon_t",
            "model_type",
        ],
    ),
    ("VEPrecond", &["img_resolution", "img_channels", "label_dim", "use_fp16", "sigma_min", "sigma_max", "model_type"]),
    ("iDDPMPrecond", &["img_resolution", "img_channels", "label_dim", "use_fp16", "C_1", "C_2", "M", "model_type"]),
];

/// Where a training run keeps the network, best first.
const PLACES: [&str; 5] = ["ema", "G_ema", "net", "model", "denoiser"];

/// How deep an argument may be nested, and how many values it may have.
const DEPTH: usize = 8;
const VALUES: usize = 10_000;

/// The network in a checkpoint of any format: a safetensors file says itself what it holds.
///
/// Fails with [`Kind::Format`] where it holds no network of EDM's.
pub fn describe(checkpoint: &Checkpoint) -> Result<Described<'_>> {
    find_network(checkpoint)?.ok_or_else(|| match checkpoint.document() {
        Some(doc) => nothing_known(doc, checkpoint),
        None => super::missing("precond"),
    })
}

/// As [`describe`], with `None` for a checkpoint that holds no network of EDM's.
///
/// Fails with [`Kind::Format`] where it holds one that is not complete.
pub fn find_network(checkpoint: &Checkpoint) -> Result<Option<Described<'_>>> {
    let Some(doc) = checkpoint.document() else {
        let metadata = checkpoint.metadata();
        let own = ["config", "precond"].iter().any(|key| metadata.contains_key(*key));
        return Ok(own.then(|| (Cow::Borrowed(checkpoint.tensors()), Cow::Borrowed(metadata))));
    };
    let Some((id, object, (precond, names))) = find(doc).map_err(damaged)? else { return Ok(None) };
    let config = config(doc, &object, precond, names)?;
    let tensors = doc.tensors(id).map_err(damaged)?;
    let metadata = [("config".to_string(), config), ("precond".to_string(), precond.to_string())].into();
    Ok(Some((Cow::Owned(tensors), Cow::Owned(metadata))))
}

/// A class of [`PRECONDITIONED`].
type Known = (&'static str, &'static [&'static str]);

fn known(doc: &Document, id: Id) -> Outcome<Option<(Id, Object<'_>, Known)>> {
    let Item::Object(object) = doc.item(id)? else { return Ok(None) };
    let name = object.class.rsplit('.').next().unwrap_or_default();
    let class = PRECONDITIONED.iter().find(|(n, _)| *n == name).copied();
    Ok(class.map(|c| (id, object, c)))
}

/// The network: the whole file, or an entry of its dictionary.
fn find(doc: &Document) -> Outcome<Option<(Id, Object<'_>, Known)>> {
    let root = doc.tree().root();
    if let Item::Map(pairs) = doc.item(root)? {
        let entries = doc.keyed(&pairs);
        for place in PLACES {
            if let Some((_, id)) = entries.iter().find(|(k, _)| k == place)
                && let Some(found) = known(doc, *id)?
            {
                return Ok(Some(found));
            }
        }
    }
    known(doc, root)
}

fn nothing_known(doc: &Document, checkpoint: &Checkpoint) -> Error {
    let class = |id: Id| match doc.item(id) {
        Ok(Item::Object(o)) => o.class,
        Ok(Item::Map(_)) => "a dictionary".into(),
        Ok(Item::Tensor(_)) => "a tensor".into(),
        _ => "a value".into(),
    };
    let root = doc.tree().root();
    let found = match doc.item(root) {
        Ok(Item::Map(pairs)) => {
            let keys: Vec<String> =
                doc.keyed(&pairs).iter().take(6).map(|(k, v)| format!("`{k}`: {}", class(*v))).collect();
            format!("a dictionary with {}", if keys.is_empty() { "no entries".into() } else { keys.join(", ") })
        }
        _ => class(root),
    };
    let e = Error::new(Kind::Format, format!("the pickle holds no EDM network but {found}"));
    match checkpoint.tensors().is_empty() {
        true => {
            e.hint("expected is an EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond or (EDM2) Precond, alone or as `ema` of a dictionary")
        }
        false => e.hint(format!(
            "it holds {} tensors: `checkpoint::open` reads them for a network of your own (`denoiser::from_fn`)",
            checkpoint.tensors().len()
        )),
    }
}

/// The configuration as JSON: the arguments with which the network was made.
fn config(doc: &Document, object: &Object, precond: &str, names: &[&str]) -> Result<String> {
    let attribute = |name: &str| doc.attribute(object, name).map_err(damaged);
    let missing = || {
        let e = Error::new(
            Kind::Format,
            format!("the {precond} in the pickle does not say with which arguments it was made"),
        );
        e.hint("pickles of EDM's training code hold `_init_args` and `_init_kwargs`")
    };
    let (args, kwargs) = attribute("_init_args")?.zip(attribute("_init_kwargs")?).ok_or_else(missing)?;
    let (args, kwargs) = match (doc.item(args).map_err(damaged)?, doc.item(kwargs).map_err(damaged)?) {
        (Item::Sequence(args), Item::Map(kwargs)) => (args, kwargs),
        _ => return Err(missing()),
    };
    let mut left = VALUES;
    let mut out = Map::new();
    if args.len() > names.len() {
        let m = format!("{precond} takes {} arguments, but the pickle has {}", names.len(), args.len());
        return Err(Error::new(Kind::Format, m));
    }
    let named = names.iter().map(|n| Cow::Borrowed(*n)).zip(args.iter().copied());
    for (name, id) in named.chain(doc.keyed(&kwargs)) {
        let value =
            json(doc, id, DEPTH, &mut left).map_err(|e| e.context(format!("argument `{name}` of {precond}")))?;
        // an infinite or zero bound is no bound, and JSON has no infinity: what is left out has its default
        let unbounded = precond == "EDMPrecond"
            && match &*name {
                "sigma_min" => value.as_f64() == Some(0.0),
                "sigma_max" => value.is_null(),
                _ => false,
            };
        if !unbounded && !value.is_null() {
            out.insert(name.into_owned(), value);
        }
    }
    // the default of `model_type` differs between the classes; the network itself says what it is
    if !out.contains_key("model_type")
        && let Some(modules) = attribute("_modules")?
        && let Item::Map(modules) = doc.item(modules).map_err(damaged)?
        && let Some((_, id)) = doc.keyed(&modules).into_iter().find(|(k, _)| k == "model")
        && let Item::Object(model) = doc.item(id).map_err(damaged)?
    {
        let class = model.class.rsplit('.').next().unwrap_or_default();
        out.insert("model_type".into(), class.into());
    }
    Ok(as_python_writes_it(&Value::Object(out)))
}

/// Plain data as JSON, of bounded depth and number; infinities and NaN as null.
pub fn plain_values(doc: &Document, id: Id) -> Result<Value> {
    json(doc, id, DEPTH, &mut VALUES.clone())
}

/// The same, with `left` values to go.
fn json(doc: &Document, id: Id, depth: usize, left: &mut usize) -> Result<Value> {
    let unfit = |what: &str| Error::new(Kind::Format, format!("{what} cannot be part of a configuration"));
    *left = left.checked_sub(1).ok_or_else(|| unfit("so many values"))?;
    if depth == 0 {
        return Err(unfit("so deep a value"));
    }
    Ok(match doc.item(id).map_err(damaged)? {
        Item::None => Value::Null,
        Item::Bool(b) => b.into(),
        Item::Int(i) => i.into(),
        Item::Float(f) => f.into(),
        Item::Text(t) => t.into(),
        Item::Sequence(ids) => ids.iter().map(|i| json(doc, *i, depth - 1, left)).collect::<Result<Vec<_>>>()?.into(),
        Item::Map(pairs) => {
            let mut out = Map::new();
            for (k, v) in doc.keyed(&pairs) {
                out.insert(k.into_owned(), json(doc, v, depth - 1, left)?);
            }
            out.into()
        }
        Item::Class(module, name) => format!("{module}.{name}").into(),
        Item::Object(o) => return Err(unfit(&format!("an object of class `{}`", o.class))),
        Item::Tensor(_) => return Err(unfit("a tensor")),
        _ => return Err(unfit("such a value")),
    })
}

/// The text that Python's `json.dumps` writes, with blanks after commas and colons: so a network converted by Python
/// and one converted here have the same configuration, and the same hash.
fn as_python_writes_it(value: &Value) -> String {
    use serde::Serialize;
    let mut out = vec![];
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced));
    match written.map(|()| String::from_utf8(out)) {
        Ok(Ok(text)) => text,
        _ => value.to_string(),
    }
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, w: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        w.write_all(b": ")
    }
}
