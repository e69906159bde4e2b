//! What the values of a pickle mean, where that is known.
use super::document::{Document, Storage};
use super::dtype::{of_numpy, of_torch, size};
use super::view::{DIMENSIONS, Sign, View, strides};
use crate::files::pickle::{Fault, Id, Outcome, Record, Shared, Value};
use safetensors::Dtype;
use std::borrow::Cow;

/// The most entries in the description of an object whose source text travels in the file.
const DESCRIPTION: usize = 64;

/// What PyTorch makes tensors by that are not dense values in a storage.
const OTHER_TENSORS: [(&str, &str); 9] = [
    ("_rebuild_sparse_tensor", "a sparse tensor"),
    ("_rebuild_sparse_csr_tensor", "a sparse tensor"),
    ("_rebuild_nested_tensor", "a nested tensor"),
    ("_rebuild_qtensor", "a quantized tensor"),
    ("_rebuild_meta_tensor_no_storage", "a meta tensor, which has no values"),
    ("_rebuild_wrapper_subclass", "a tensor of a class of its own"),
    ("_rebuild_device_tensor_from_numpy", "a tensor of a device that is not known"),
    ("_rebuild_device_tensor_from_cpu_tensor", "a tensor of a device that is not known"),
    ("_rebuild_xla_tensor", "a tensor of a device that is not known"),
];

/// A value of a document, one level deep: its parts are numbers of further nodes.
#[derive(Debug)]
pub enum Item<'t> {
    /// `None`.
    None,
    /// `True`, `False`, also numpy's.
    Bool(bool),
    /// An integer, also numpy's.
    Int(i64),
    /// An integer beyond 64 bits: little-endian, two's complement.
    Big(&'t [u8]),
    /// A float, also numpy's.
    Float(f64),
    /// Text.
    Text(Cow<'t, str>),
    /// Bytes.
    Bytes(Shared),
    /// A list, tuple, set, `torch.Size`.
    Sequence(&'t [Id]),
    /// A dictionary of any kind.
    Map(Cow<'t, [(Id, Id)]>),
    /// A tensor, a parameter, or a numpy array of numbers.
    Tensor(View),
    /// Data without a shape.
    Storage(Storage),
    /// A class or function: module and name.
    Class(Cow<'t, str>, Cow<'t, str>),
    /// Any other object.
    Object(Object<'t>),
}

/// An object of a class that means nothing here.
#[derive(Debug)]
pub struct Object<'t> {
    /// Its class: `module.name`, or the bare name for one whose source text travelled in the file.
    pub class: String,
    /// What its class would be called with.
    pub args: &'t [Id],
    /// Its attributes, as a rule a dictionary.
    pub state: Option<Id>,
    /// Its members, if it is a kind of list.
    pub items: &'t [Id],
    /// Its entries, if it is a kind of dictionary.
    pub pairs: &'t [(Id, Id)],
}

impl Document {
    fn fault<T>(&self, id: Id, message: impl Into<String>) -> Outcome<T> {
        Err(Fault::new(self.tree.offset(id), message))
    }

    /// What a node means.
    pub fn item(&self, id: Id) -> Outcome<Item<'_>> {
        let tree = &self.tree;
        Ok(match tree.value(id) {
            Value::None => Item::None,
            Value::Bool(b) => Item::Bool(*b),
            Value::Int(i) => Item::Int(*i),
            Value::Big(b) => Item::Big(tree.blob(b)),
            Value::Float(f) => Item::Float(*f),
            Value::Text(b) => Item::Text(String::from_utf8_lossy(tree.blob(b))),
            Value::Bytes(b) => Item::Bytes(tree.share(b)),
            Value::List(v) | Value::Set(v) => Item::Sequence(v),
            Value::Tuple(v) => Item::Sequence(v),
            Value::Dict(p) => Item::Map(Cow::Borrowed(p)),
            Value::Global(module, name) => {
                Item::Class(tree.name(*module).unwrap_or("?").into(), tree.name(*name).unwrap_or("?").into())
            }
            Value::Extension(n) => Item::Class("copyreg".into(), format!("extension {n}").into()),
            Value::Persistent(name) => self.persistent(*name)?,
            Value::Record(r) => self.record(id, r)?,
        })
    }

    fn persistent(&self, name: Id) -> Outcome<Item<'_>> {
        if let Some(storage) = self.outside(name)? {
            return Ok(Item::Storage(storage));
        }
        // old files name a class together with its source text
        if let Some([kind, class, ..]) = self.tree.sequence(name)
            && self.tree.name(*kind) == Some("module")
            && let Some((module, name)) = self.tree.global(*class)
        {
            return Ok(Item::Class(module.into(), name.into()));
        }
        self.fault(name, "a reference to an object outside of the file, of a kind that is not known")
    }

    fn record<'t>(&'t self, id: Id, r: &'t Record) -> Outcome<Item<'t>> {
        let args = self.tree.sequence(r.args).unwrap_or_default();
        let object =
            |class: String| Item::Object(Object { class, args, state: r.state, items: &r.items, pairs: &r.pairs });
        let Some((module, name)) = self.tree.global(r.class) else {
            // a class that is known by its source text, or no class at all
            return Ok(object(match self.tree.value(r.class) {
                Value::Persistent(p) => match self.persistent(*p)? {
                    Item::Class(module, name) => format!("{module}.{name}"),
                    _ => "?".into(),
                },
                _ => "?".into(),
            }));
        };
        let known = match (module, name) {
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => self.same_as(args.first())?,
            ("torch._utils", name) if name.starts_with("_rebuild_") => {
                Some(Item::Tensor(self.rebuilt(id, name, args)?))
            }
            ("torch._tensor", "_rebuild_from_type_v2") => match (args.first(), args.get(2)) {
                (Some(f), Some(a)) => match self.tree.global(*f) {
                    Some(("torch._utils", name)) if name.starts_with("_rebuild_") => {
                        let args = self.tree.sequence(*a).unwrap_or_default();
                        Some(Item::Tensor(self.rebuilt(id, name, args)?))
                    }
                    _ => None,
                },
                _ => None,
            },
            ("torch.storage", "_load_from_bytes") => match args {
                [bytes] => Some(Item::Storage(self.inside(*bytes)?)),
                _ => return self.fault(id, "`_load_from_bytes` without bytes"),
            },
            ("torch.storage", "TypedStorage") => None,
            ("torch", "Size") => args.first().and_then(|a| self.tree.sequence(*a)).map(Item::Sequence),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                self.array(id, r)?.map(Item::Tensor)
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => self.scalar(args)?,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => self.buffer(id, args)?.map(Item::Tensor),
            ("_codecs", "encode") | ("builtins" | "__builtin__", "bytes" | "bytearray") => {
                self.bytes_of(id)?.map(Item::Bytes)
            }
            ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple") if r.items.is_empty() => match args {
                [] => Some(Item::Sequence(&[])),
                [a] => self.tree.sequence(*a).map(Item::Sequence),
                _ => None,
            },
            ("collections", "OrderedDict" | "defaultdict" | "Counter") | ("builtins" | "__builtin__", "dict") => {
                Some(Item::Map(self.dictionary(args, &r.pairs)))
            }
            ("torch_utils.persistence", "_reconstruct_persistent_obj") => {
                match args.first().map(|a| self.tree.value(*a)) {
                    Some(Value::Dict(meta)) if meta.len() <= DESCRIPTION => Some(self.carried(meta, args)),
                    _ => return self.fault(id, "a persistent object without its description"),
                }
            }
            // how protocols 0 and 1 make objects: the class comes first among the arguments
            ("copy_reg" | "copyreg", "_reconstructor" | "__newobj__") => {
                let class = args.first().and_then(|c| self.tree.global(*c)).map(|(m, n)| format!("{m}.{n}"));
                class.map(object)
            }
            _ => None,
        };
        Ok(known.unwrap_or_else(|| object(format!("{module}.{name}"))))
    }

    /// The tensor that a parameter wraps.
    fn same_as(&self, data: Option<&Id>) -> Outcome<Option<Item<'_>>> {
        let Some(Value::Record(r)) = data.map(|d| self.tree.value(*d)) else { return Ok(None) };
        let Some((module, name)) = self.tree.global(r.class) else { return Ok(None) };
        let Some(data) = data else { return Ok(None) };
        // only one level: a parameter of a parameter does not exist
        match (module, name) {
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Ok(None),
            _ => match self.record(*data, r)? {
                t @ Item::Tensor(_) => Ok(Some(t)),
                _ => Ok(None),
            },
        }
    }

    /// The entries of a dictionary that was made by calling its class: `OrderedDict([(key, value), …])`, then set.
    fn dictionary<'t>(&'t self, args: &[Id], pairs: &'t [(Id, Id)]) -> Cow<'t, [(Id, Id)]> {
        let mut given: Vec<(Id, Id)> = vec![];
        for arg in args {
            match self.tree.value(*arg) {
                Value::Dict(p) => given.extend(p),
                _ => {
                    let members = self.tree.sequence(*arg).unwrap_or_default().iter();
                    given.extend(members.filter_map(|m| match self.tree.sequence(*m) {
                        Some([k, v]) => Some((*k, *v)),
                        _ => None,
                    }));
                }
            }
        }
        match given.is_empty() {
            true => Cow::Borrowed(pairs),
            false => Cow::Owned(given.into_iter().chain(pairs.iter().copied()).collect()),
        }
    }

    /// An object whose class travels in the file as source text (`torch_utils.persistence`).
    fn carried<'t>(&'t self, meta: &'t [(Id, Id)], args: &'t [Id]) -> Item<'t> {
        let get = |key: &str| meta.iter().rev().find(|(k, _)| self.tree.name(*k) == Some(key)).map(|(_, v)| *v);
        let class = get("class_name").and_then(|c| self.tree.name(c)).unwrap_or("?").to_string();
        Item::Object(Object { class, args, state: get("state"), items: &[], pairs: &[] })
    }

    /// The bytes of a node, in any of the ways in which pickles write them.
    pub(super) fn bytes_of(&self, id: Id) -> Outcome<Option<Shared>> {
        let r = match self.tree.value(id) {
            Value::Bytes(b) => return Ok(Some(self.tree.share(b))),
            Value::Record(r) => r,
            _ => return Ok(None),
        };
        let args = self.tree.sequence(r.args).unwrap_or_default();
        let (class, first) = (self.tree.global(r.class), args.first());
        match (class, first) {
            // before protocol 3, bytes are text of the characters 0 to 255
            (Some(("_codecs", "encode")), Some(text)) => self.latin1(*text),
            (Some(("builtins" | "__builtin__", "bytes" | "bytearray")), None) => Ok(Some(Shared::new([]))),
            (Some(("builtins" | "__builtin__", "bytes" | "bytearray")), Some(a)) => match self.tree.value(*a) {
                Value::Bytes(b) => Ok(Some(self.tree.share(b))),
                Value::Text(_) => self.latin1(*a),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn latin1(&self, text: Id) -> Outcome<Option<Shared>> {
        if let Some(done) = self.decoded.borrow().get(&text) {
            return Ok(Some(done.clone()));
        }
        let Value::Text(blob) = self.tree.value(text) else { return Ok(None) };
        let Ok(utf8) = str::from_utf8(self.tree.blob(blob)) else {
            return self.fault(text, "bytes written as text, but the text is not UTF-8");
        };
        let bytes: Option<Vec<u8>> = utf8.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let Some(bytes) = bytes else {
            return self.fault(text, "bytes written as text, but with a character that is no byte");
        };
        let shared = Shared::new(bytes);
        self.decoded.borrow_mut().insert(text, shared.clone());
        Ok(Some(shared))
    }

    fn sizes(&self, id: Id, what: &str) -> Outcome<Vec<usize>> {
        let list = match self.tree.value(id) {
            Value::Record(r) if self.tree.global(r.class) == Some(("torch", "Size")) => {
                self.tree.sequence(r.args).and_then(|a| self.tree.sequence(*a.first()?))
            }
            _ => self.tree.sequence(id),
        };
        if let Some(list) = list.filter(|l| l.len() > DIMENSIONS) {
            return self.fault(id, format!("a tensor with {} dimensions, more than {DIMENSIONS}", list.len()));
        }
        match list.and_then(|l| l.iter().map(|i| self.tree.natural(*i)).collect()) {
            Some(sizes) => Ok(sizes),
            None => self.fault(id, format!("{what} of a tensor must be whole numbers ≥ 0")),
        }
    }

    /// The tensor that `torch._utils.NAME(args)` makes.
    fn rebuilt(&self, id: Id, name: &str, args: &[Id]) -> Outcome<View> {
        let at = self.tree.offset(id);
        match (name, OTHER_TENSORS.iter().find(|(n, _)| *n == name)) {
            ("_rebuild_tensor" | "_rebuild_tensor_v2", _) => self.tensor(id, args, None, args.get(6)),
            ("_rebuild_tensor_v3", _) => self.tensor(id, args, args.get(6), args.get(7)),
            (_, Some((_, what))) => Err(Fault::unknown(at, *what)),
            _ => Err(Fault::unknown(at, format!("a tensor made by `torch._utils.{name}`, which is not known"))),
        }
    }

    /// The bits of a tensor that is only read as negated or conjugated.
    fn sign(&self, id: Id, bits: Option<&Id>) -> Outcome<Sign> {
        let mut sign = Sign::default();
        let pairs = match bits.map(|b| self.tree.value(*b)) {
            Some(Value::Dict(pairs)) => pairs,
            None | Some(Value::None) => return Ok(sign),
            _ => return self.fault(id, "a tensor whose further properties are no dictionary"),
        };
        for (key, value) in pairs {
            let on = !matches!(self.tree.value(*value), Value::Bool(false) | Value::None);
            match self.tree.name(*key) {
                Some("neg") => sign.negated = on,
                Some("conj") => sign.conjugated = on,
                other => {
                    let m = format!("a tensor with the property `{}`, which is not known", other.unwrap_or("?"));
                    return Err(Fault::unknown(self.tree.offset(id), m));
                }
            }
        }
        Ok(sign)
    }

    /// `_rebuild_tensor…(storage, offset, shape, strides, requires_grad, hooks, …)`, with a type of its own, and bits, where given.
    fn tensor(&self, id: Id, args: &[Id], dtype: Option<&Id>, bits: Option<&Id>) -> Outcome<View> {
        let [storage, offset, shape, strides, ..] = args else {
            return self.fault(id, "a tensor without storage, offset, shape and strides");
        };
        let named = dtype.and_then(|d| self.tree.global(*d)).filter(|(m, _)| *m == "torch");
        let named = match named {
            None => None,
            Some((_, name)) => match of_torch(name) {
                None => {
                    let m = format!("a tensor of type torch.{name}, which is not known");
                    return Err(Fault::unknown(self.tree.offset(id), m));
                }
                dtype => dtype,
            },
        };
        let data = match self.tree.value(*storage) {
            Value::Persistent(name) => self.outside(*name)?,
            Value::Record(r) => self.stored(*storage, r)?,
            _ => None,
        };
        let Some(data) = data else {
            return self.fault(*storage, "a tensor whose data are no storage");
        };
        let Some(dtype) = named.or(data.dtype) else {
            return self.fault(id, "a tensor whose data have no type");
        };
        let Value::Int(offset) = self.tree.value(*offset) else {
            return self.fault(id, "a tensor whose offset is no number");
        };
        let Ok(offset) = usize::try_from(*offset) else {
            return self.fault(id, format!("a tensor with the negative offset {offset}"));
        };
        let (shape, strides) = (self.sizes(*shape, "the shape")?, self.sizes(*strides, "the strides")?);
        let view = View::new(data.bytes, dtype, data.big_endian, offset, shape, strides);
        Ok(view.or_else(|m| self.fault(id, m))?.signed(self.sign(id, bits)?))
    }

    /// A storage that is written out inside the pickle.
    fn stored(&self, id: Id, r: &Record) -> Outcome<Option<Storage>> {
        let args = self.tree.sequence(r.args).unwrap_or_default();
        match (self.tree.global(r.class), args) {
            (Some((m, n)), [bytes]) if m == "torch.storage" && n == "_load_from_bytes" => {
                Ok(Some(self.inside(*bytes)?))
            }
            _ => self.fault(id, "a storage made in a way that is not known"),
        }
    }

    /// numpy's type object: the type, and whether its bytes are in the other order. `None` for types that are no numbers.
    fn numpy_type(&self, id: Id) -> Option<(Dtype, bool)> {
        let Value::Record(r) = self.tree.value(id) else { return None };
        let (module, name) = self.tree.global(r.class)?;
        if module != "numpy" || name != "dtype" {
            return None;
        }
        let code = self.tree.name(*self.tree.sequence(r.args)?.first()?)?;
        let dtype = of_numpy(code.trim_start_matches(['<', '>', '|', '=']))?;
        let order = r.state.and_then(|s| self.tree.sequence(s)).and_then(|s| self.tree.name(*s.get(1)?));
        Some((dtype, order == Some(">") || code.starts_with('>')))
    }

    /// `_reconstruct(ndarray, …)` with the state `(1, shape, type, fortran, data)`. `None` for arrays of objects.
    fn array(&self, id: Id, r: &Record) -> Outcome<Option<View>> {
        let Some(state) = r.state.and_then(|s| self.tree.sequence(s)) else { return Ok(None) };
        let [.., shape, dtype, fortran, data] = state else { return Ok(None) };
        let Some((dtype, big_endian)) = self.numpy_type(*dtype) else { return Ok(None) };
        let fortran = match self.tree.value(*fortran) {
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            _ => return self.fault(id, "an array without the order of its values"),
        };
        // Python 2 had one type for text and bytes
        let bytes = match self.tree.value(*data) {
            Value::Text(b) => Some(self.tree.share(b)),
            _ => self.bytes_of(*data)?,
        };
        let Some(bytes) = bytes else {
            return self.fault(*data, "the data of an array are no bytes");
        };
        self.dense(id, bytes, dtype, big_endian, self.sizes(*shape, "the shape")?, fortran).map(Some)
    }

    /// `_frombuffer(data, type, shape, order)`, of protocol 5.
    fn buffer(&self, id: Id, args: &[Id]) -> Outcome<Option<View>> {
        let [data, dtype, shape, order] = args else {
            return self.fault(id, "an array without data, type, shape and order");
        };
        let Some((dtype, big_endian)) = self.numpy_type(*dtype) else { return Ok(None) };
        let Some(bytes) = self.bytes_of(*data)? else {
            return self.fault(*data, "the data of an array are no bytes");
        };
        let fortran = self.tree.name(*order) == Some("F");
        self.dense(id, bytes, dtype, big_endian, self.sizes(*shape, "the shape")?, fortran).map(Some)
    }

    fn dense(
        &self,
        id: Id,
        bytes: Shared,
        dtype: Dtype,
        big_endian: bool,
        shape: Vec<usize>,
        fortran: bool,
    ) -> Outcome<View> {
        let strides = strides(&shape, fortran);
        View::new(bytes.into(), dtype, big_endian, 0, shape, strides).or_else(|m| self.fault(id, m))
    }

    /// `scalar(type, data)`; `None` for types that are no real numbers.
    fn scalar(&self, args: &[Id]) -> Outcome<Option<Item<'_>>> {
        let [dtype, data] = args else { return Ok(None) };
        let Some((dtype, big_endian)) = self.numpy_type(*dtype) else { return Ok(None) };
        let bytes = match self.tree.value(*data) {
            Value::Text(b) => Some(self.tree.share(b)),
            _ => self.bytes_of(*data)?,
        };
        let Some(mut bytes) = bytes.filter(|b| b.len() == size(dtype)).map(|b| b.to_vec()) else {
            return self.fault(*data, format!("the data of a number must be {} bytes", size(dtype)));
        };
        if big_endian {
            bytes.reverse();
        }
        let unsigned = bytes.iter().rev().fold(0u64, |v, b| v << 8 | *b as u64);
        Ok(Some(match dtype {
            Dtype::BOOL => Item::Bool(unsigned != 0),
            Dtype::F64 => Item::Float(f64::from_bits(unsigned)),
            Dtype::F32 => Item::Float(f32::from_bits(unsigned as u32) as f64),
            Dtype::F16 => Item::Float(half::f16::from_bits(unsigned as u16).to_f64()),
            Dtype::I8 => Item::Int(unsigned as u8 as i8 as i64),
            Dtype::I16 => Item::Int(unsigned as u16 as i16 as i64),
            Dtype::I32 => Item::Int(unsigned as u32 as i32 as i64),
            Dtype::I64 => Item::Int(unsigned as i64),
            Dtype::U8 | Dtype::U16 | Dtype::U32 => Item::Int(unsigned as i64),
            Dtype::U64 => match i64::try_from(unsigned) {
                Ok(i) => Item::Int(i),
                Err(_) => Item::Float(unsigned as f64),
            },
            _ => return Ok(None),
        }))
    }
}
