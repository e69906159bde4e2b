//! A pickle together with the data that it refers to.
use super::data::Data;
use super::dtype::{of_storage, size};
use super::legacy;
use super::zip::{Archive, is_zip};
use crate::files::pickle::{Fault, Id, Outcome, Shared, Tree, Value, parse};
use safetensors::Dtype;
use std::cell::RefCell;
use std::collections::HashMap;

/// The data of a storage, as they lie in the file.
#[derive(Debug, Clone)]
pub struct Slot {
    pub bytes: Data,
    pub big_endian: bool,
}

/// A storage: the data that tensors are views of.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Its bytes.
    pub bytes: Data,
    /// What its values are; `None` for bytes without a type.
    pub dtype: Option<Dtype>,
    /// Whether the most significant byte of a value comes first.
    pub big_endian: bool,
}

/// How a pickle refers to a storage outside of it.
pub struct Reference {
    pub key: String,
    pub width: usize,
    dtype: Option<Dtype>,
    count: usize,
    /// First value and number of values, where it is a part of a larger one.
    part: Option<(usize, usize)>,
}

impl Storage {
    /// Reads `("storage", class, key, location, count[, part])`; `None` if the name is something else.
    pub fn reference(tree: &Tree, name: Id) -> Outcome<Option<Reference>> {
        let Value::Tuple(fields) = tree.value(name) else { return Ok(None) };
        let (class, key, count) = match **fields {
            [kind, class, key, _, count, ..] if tree.name(kind) == Some("storage") => (class, key, count),
            _ => return Ok(None),
        };
        let fault = |m: String| Fault::new(tree.offset(name), m);
        let class = tree.global(class).map(|(_, name)| name);
        let Some(dtype) = class.and_then(of_storage) else {
            let m = format!("a storage of class `{}`, which is not known", class.unwrap_or_default());
            return Err(Fault::unknown(tree.offset(name), m));
        };
        let key = match tree.value(key) {
            Value::Int(i) => Some(i.to_string()),
            _ => tree.name(key).map(str::to_string),
        };
        let (Some(key), Some(count)) = (key, tree.natural(count)) else {
            return Err(fault("a storage without a name or a number of values".into()));
        };
        let part = match fields.get(5).and_then(|p| tree.sequence(*p)) {
            Some([_, start, len]) => match tree.natural(*start).zip(tree.natural(*len)) {
                None => return Err(fault(format!("storage `{key}` is a part that is not well described"))),
                part => part,
            },
            _ => None,
        };
        Ok(Some(Reference { key, width: dtype.map_or(1, size), dtype, count, part }))
    }
}

/// The only checkpoint that an archive packs, as latent diffusion's are published: with a configuration beside it, perhaps.
fn packed(zip: &Archive) -> Option<&str> {
    let is = |n: &&str| [".ckpt", ".pt", ".pth"].iter().any(|e| n.ends_with(e)) && !n.starts_with("__MACOSX/");
    let mut found = zip.names().filter(is);
    found.next().filter(|_| found.next().is_none())
}

/// A pickle, and the storages that it refers to.
pub struct Document {
    pub(super) tree: Tree,
    slots: HashMap<String, Slot>,
    /// Storages that stand inside the pickle as files of their own, by the node that holds the bytes.
    inner: RefCell<HashMap<Id, Storage>>,
    /// Bytes that stand in the pickle as text.
    pub(super) decoded: RefCell<HashMap<Id, Shared>>,
}

impl Document {
    /// Reads a bare pickle or a PyTorch file of either kind, told apart by their content.
    pub fn open(data: &Data) -> Outcome<Document> {
        if is_zip(&data.head(4)?) {
            return Document::archive(data);
        }
        // a stream tells where anything is only to whoever reads it from the beginning
        let data = &data.read()?;
        let (tree, slots) = match legacy::is_legacy(data) {
            true => legacy::open(data)?,
            false => (parse(data, 0)?.0, HashMap::new()),
        };
        Ok(Document::with(tree, slots))
    }

    fn with(tree: Tree, slots: HashMap<String, Slot>) -> Document {
        Document { tree, slots, inner: RefCell::default(), decoded: RefCell::default() }
    }

    fn archive(data: &Data) -> Outcome<Document> {
        let zip = Archive::open(data)?;
        let has_pickle = zip.names().any(|n| n == "data.pkl" || n.ends_with("/data.pkl"));
        if let (false, Some(only)) = (has_pickle, packed(&zip)) {
            let inner = zip.get(only)?.ok_or_else(|| Fault::new(data.start(), format!("no entry `{only}`")))?;
            // an archive in an archive in an archive is no way to publish a network
            return match is_zip(&inner.head(4)?) {
                true => Document::of_archive(&inner, &Archive::open(&inner)?),
                false => Document::open(&inner),
            };
        }
        Document::of_archive(data, &zip)
    }

    fn of_archive(data: &Data, zip: &Archive) -> Outcome<Document> {
        let Some(pickle) = zip.names().filter(|n| *n == "data.pkl" || n.ends_with("/data.pkl")).min_by_key(|n| n.len())
        else {
            return Err(Fault::new(data.start(), "a zip archive without `data.pkl`: not a PyTorch file"));
        };
        let prefix = pickle.strip_suffix("data.pkl").unwrap_or_default().to_string();
        let get = |name: &str| zip.get(name)?.ok_or_else(|| Fault::new(data.start(), format!("no entry `{name}`")));
        // one that goes by another name in the directory than where it lies would seem not to be there
        zip.names().try_for_each(|name| get(name).map(drop))?;
        let (tree, _) = parse(&get(pickle)?.read()?, 0)?;
        let big_endian = zip.get(&format!("{prefix}byteorder"))?.map(|b| b.head(16)).transpose()?;
        let big_endian = big_endian.is_some_and(|b| b.trim_ascii() == b"big");
        let mut slots = HashMap::new();
        let folder = format!("{prefix}data/");
        for name in zip.names() {
            if let Some(key) = name.strip_prefix(&folder) {
                slots.insert(key.to_string(), Slot { bytes: get(name)?, big_endian });
            }
        }
        Ok(Document::with(tree, slots))
    }

    /// The values of the pickle.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The storage that a persistent name stands for; `None` if it stands for something else.
    pub(super) fn outside(&self, name: Id) -> Outcome<Option<Storage>> {
        let Some(r) = Storage::reference(&self.tree, name)? else { return Ok(None) };
        let fault = |m: String| Fault::new(self.tree.offset(name), m);
        let slot =
            self.slots.get(&r.key).ok_or_else(|| fault(format!("the file has no data for storage `{}`", r.key)))?;
        let (start, count) = r.part.unwrap_or((0, r.count));
        let part = start.checked_mul(r.width).zip(count.checked_mul(r.width)).and_then(|(s, n)| slot.bytes.part(s, n));
        let Some(bytes) = part else {
            let have = slot.bytes.len();
            return Err(fault(format!(
                "storage `{}` of {count} values from {start} on, but its data are {have} bytes",
                r.key
            )));
        };
        Ok(Some(Storage { bytes, dtype: r.dtype, big_endian: slot.big_endian }))
    }

    /// The storage that `torch.storage._load_from_bytes` would make of the bytes of a node.
    pub(super) fn inside(&self, bytes: Id) -> Outcome<Storage> {
        // bytes that are written as text stand in many records perhaps, but once in the file
        let key = match self.tree.value(bytes) {
            Value::Record(r) => self.tree.sequence(r.args).and_then(|a| a.first()).copied().unwrap_or(bytes),
            _ => bytes,
        };
        if let Some(s) = self.inner.borrow().get(&key) {
            return Ok(s.clone());
        }
        let fault = |m: &str| Fault::new(self.tree.offset(bytes), m);
        let data = self.bytes_of(bytes)?.ok_or_else(|| fault("a storage that should be bytes is something else"))?;
        if !legacy::is_legacy(&data) && !is_zip(&data) {
            return Err(fault("the bytes of a storage are not in PyTorch's format"));
        }
        let doc = Document::open(&data.into())?;
        let storage = match doc.tree.value(doc.tree.root()) {
            Value::Persistent(name) => doc.outside(*name)?,
            _ => None,
        };
        let storage = storage.ok_or_else(|| fault("the bytes of a storage hold something else"))?;
        self.inner.borrow_mut().insert(key, storage.clone());
        Ok(storage)
    }
}
