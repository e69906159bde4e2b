//! Everything that a script can name, as the engine knows it: for help, completion, suggestions, `check` and the reference.
mod collect;
pub mod doc;
mod search;
pub mod words;

use crate::schema::Schema;
use rhai::{Dynamic, Engine};
use std::collections::BTreeSet;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A group of functions, `solver` in `solver::unipc`.
    Module,
    /// A type of values.
    Type,
    /// A function, called as `f(x)` (and, as every function in Rhai, as `x.f()`).
    Function,
    /// A function that belongs to its receiver, called as `x.f()`.
    Method,
    /// A value read as `x.name`.
    Property,
    /// A constant, called as a function: `PI()`.
    Constant,
    /// A word of the language.
    Keyword,
}

impl Kind {
    /// The kind as one word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Module => "module",
            Kind::Type => "type",
            Kind::Function => "function",
            Kind::Method => "method",
            Kind::Property => "property",
            Kind::Constant => "constant",
            Kind::Keyword => "keyword",
        }
    }
}

/// Who defines a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// ld3sh, natively.
    Native,
    /// A module written in Rhai that is compiled in; it must be imported.
    Stdlib,
    /// Rhai itself and its standard library.
    Rhai,
}

/// The options of all native functions, but for those of solvers, whose rows document themselves.
pub fn schemas() -> impl Iterator<Item = Schema> {
    crate::script::schemas().chain(super::show::SCHEMAS.iter().copied())
}

/// A key of a function's last argument `#{ … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionKey {
    /// The key.
    pub name: String,
    /// The default as the documentation writes it, if it names one.
    pub default: Option<String>,
    /// What it does.
    pub doc: String,
}

/// A name, with all functions that share it and their receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, with its module: `solver::unipc`; of methods and properties without the receiver: `alpha`.
    pub name: String,
    /// What it stands for.
    pub kind: Kind,
    /// The type before the dot of methods and properties. Also of functions whose first argument is a native object.
    pub receiver: Option<String>,
    /// How it is called, one for each set of arguments, shortest first, in the users' names of types; methods without
    /// their receiver. Empty for modules, types and keywords.
    pub signatures: Vec<String>,
    /// The type of the result; `None` if there is none or it depends on the arguments.
    pub returns: Option<String>,
    /// One sentence.
    pub summary: String,
    /// The documentation after the summary, without options and example, as Markdown.
    pub doc: String,
    /// The keys of its options.
    pub options: Vec<OptionKey>,
    /// A script that shows it.
    pub example: Option<String>,
    /// Who defines it.
    pub origin: Origin,
    /// How many arguments it can take, the receiver included.
    pub arities: BTreeSet<usize>,
    /// Whether a property can be assigned.
    pub writable: bool,
}

impl Entry {
    /// The name with the receiver of a method or property: `Noise.alpha`.
    pub fn title(&self) -> String {
        match (&self.receiver, self.kind) {
            (Some(r), Kind::Method | Kind::Property) => format!("{r}.{}", self.name),
            _ => self.name.clone(),
        }
    }
    /// The module before `::`, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.name.rsplit_once("::").map(|(ns, _)| ns)
    }
    /// The name without its module.
    pub fn bare(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }
    /// The signatures as they are written after a dot: without the receiver.
    pub fn as_method(&self) -> Vec<String> {
        match self.kind {
            Kind::Function => self.signatures.iter().map(|s| without_first(s)).collect(),
            _ => self.signatures.clone(),
        }
    }
    /// The options, those together that share what they do, with what they do.
    pub fn option_groups(&self) -> Vec<(Vec<&OptionKey>, &str)> {
        let mut groups: Vec<(Vec<&OptionKey>, &str)> = Vec::new();
        for o in &self.options {
            match groups.last_mut() {
                Some((keys, text)) if *text == o.doc => keys.push(o),
                _ => groups.push((vec![o], &o.doc)),
            }
        }
        groups
    }
    /// Whether it can be written after a dot behind a value of its receiver.
    pub fn follows_dot(&self) -> bool {
        self.receiver.is_some() && matches!(self.kind, Kind::Function | Kind::Method | Kind::Property)
    }
}

/// The users' name of a value's type: `Tensor`, `int`, `function`.
pub fn type_name(engine: &Engine, value: &Dynamic) -> String {
    let name = engine.map_type_name(value.type_name());
    match collect::user_type(name) {
        Some(n) if n.is_empty() => "()".into(),
        Some(n) => n,
        None => name.to_string(),
    }
}

/// `f(x: A, y: B) -> C` without its first parameter.
fn without_first(signature: &str) -> String {
    let Some((name, rest)) = signature.split_once('(') else { return signature.to_string() };
    match (rest.find(", "), rest.find(')')) {
        (Some(comma), Some(end)) if comma < end => format!("{name}({}", &rest[comma + 2..]),
        (_, Some(end)) => format!("{name}({}", &rest[end..]),
        _ => signature.to_string(),
    }
}

/// See the module's description. Entries are sorted by name, then receiver.
pub struct Catalogue {
    entries: Vec<Entry>,
}

impl Catalogue {
    /// Collects everything from an engine, the modules compiled in, and the language.
    pub fn of(engine: &Engine) -> Self {
        let mut entries = collect::all(engine);
        entries.sort_by(|a, b| (&a.name, &a.receiver, a.kind).cmp(&(&b.name, &b.receiver, b.kind)));
        Catalogue { entries }
    }
    /// All entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
    /// The entries of exactly this name, such as `solver::unipc` or `save`; one for each receiver.
    pub fn get(&self, name: &str) -> &[Entry] {
        let start = self.entries.partition_point(|e| e.name.as_str() < name);
        let end = self.entries.partition_point(|e| e.name.as_str() <= name);
        &self.entries[start..end]
    }
    /// What a user may mean by `text`: a name, `Type.method`, or a name without its module (`unipc`).
    pub fn find(&self, text: &str) -> Vec<&Entry> {
        let exact: Vec<&Entry> = match text.split_once('.') {
            Some((r, name)) => self.get(name).iter().filter(|e| e.receiver.as_deref() == Some(r)).collect(),
            None => self.get(text).iter().collect(),
        };
        if !exact.is_empty() || text.contains("::") || text.contains('.') {
            return exact;
        }
        self.iter().filter(|e| e.namespace().is_some() && e.bare() == text).collect()
    }
    /// What is in a module.
    pub fn namespace<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.iter().filter(move |e| e.namespace() == Some(name))
    }
    /// The names of the modules that a script can use without importing them.
    pub fn namespaces(&self) -> BTreeSet<&str> {
        self.iter().filter(|e| e.kind == Kind::Module && e.origin == Origin::Native).map(|e| e.name.as_str()).collect()
    }
    /// What can stand after a dot behind a value of this type (a user's name of it, such as `Tensor` or `string`).
    pub fn methods_of<'a>(&'a self, receiver: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.iter().filter(move |e| e.follows_dot() && e.receiver.as_deref() == Some(receiver))
    }
    /// The options of the functions of that name.
    pub fn options_of(&self, name: &str) -> Vec<&OptionKey> {
        self.find(name).into_iter().flat_map(|e| &e.options).collect()
    }
    /// The names of all functions and methods.
    pub fn callable(&self) -> impl Iterator<Item = &str> {
        let called = |e: &&Entry| matches!(e.kind, Kind::Function | Kind::Method | Kind::Constant);
        self.iter().filter(called).map(|e| e.name.as_str())
    }
    /// How many arguments the functions of exactly this name can take, receivers included.
    pub fn arities(&self, name: &str) -> BTreeSet<usize> {
        self.get(name).iter().flat_map(|e| e.arities.iter().copied()).collect()
    }
    /// The entries that have to do with `text`, the most likely first.
    pub fn search(&self, text: &str) -> Vec<&Entry> {
        search::search(&self.entries, text)
    }
    /// The title of the entry whose name is nearest to `name`, if one is near enough to be a likely slip.
    pub fn nearest(&self, name: &str) -> Option<String> {
        search::nearest(&self.entries, name)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signatures_after_a_dot() {
        for (s, want) in [
            ("sum(x: Tensor) -> Tensor", "sum() -> Tensor"),
            ("sum(x: Tensor, dims: array) -> Tensor", "sum(dims: array) -> Tensor"),
            ("f()", "f()"),
        ] {
            assert_eq!(super::without_first(s), want);
        }
    }
}
