//! Reads the engine's metadata into entries.
use super::words::{BUILT_IN, KEYWORDS, TYPES};
use super::{Entry, Kind, OptionKey, Origin, doc};
use crate::schema::Schema;
use crate::script::modules::STDLIB;
use crate::script::schema::{self, Source};
use rhai::Engine;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Module {
    modules: BTreeMap<String, Module>,
    custom_types: Vec<CustomType>,
    functions: Vec<Function>,
    doc: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomType {
    display_name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Param {
    name: Option<String>,
    r#type: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Function {
    full_hash: u64,
    access: String,
    name: String,
    num_params: usize,
    params: Vec<Param>,
    return_type: String,
    doc_comments: Vec<String>,
}

/// The first generic argument of a type, if it is one of these.
fn inside<'a>(raw: &'a str, wrappers: &[&str]) -> Option<&'a str> {
    let (base, rest) = raw.split_once('<')?;
    let base = base.rsplit("::").next()?.trim();
    if !wrappers.contains(&base) {
        return None;
    }
    let mut depth = 0;
    let end = rest.char_indices().find(|(_, c)| {
        let done = depth == 0 && matches!(c, ',' | '>');
        depth += i32::from(matches!(c, '<' | '(' | '[')) - i32::from(matches!(c, '>' | ')' | ']'));
        done
    });
    end.map(|(end, _)| &rest[..end])
}

/// The users' name of a Rust type; `None` if scripts have no such values.
pub(super) fn user_type(raw: &str) -> Option<String> {
    let mut raw = raw.trim();
    for prefix in ["&mut ", "&", "mut "] {
        raw = raw.strip_prefix(prefix).unwrap_or(raw).trim();
    }
    if let Some(value) = inside(raw, &["Result", "RhaiResult", "RhaiResultOf"]) {
        return user_type(value);
    }
    if raw.is_empty() || raw == "()" {
        return Some(String::new());
    }
    let base = raw.split('<').next().unwrap_or(raw);
    let base = base.rsplit("::").next().unwrap_or(base).trim();
    TYPES.iter().find(|t| t.name == base || t.rust.contains(&base)).map(|t| t.name.to_string())
}

/// A name that scripts can write.
fn writable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with("__")
}

/// A function's overload on its way into an entry.
struct Overload {
    params: Vec<(String, String)>,
    returns: String,
    by_reference: bool,
    doc: doc::Doc,
}

/// The overloads of one name and receiver.
#[derive(Default)]
struct Group {
    overloads: Vec<Overload>,
    arities: BTreeSet<usize>,
    property: bool,
    set: bool,
    origin: Option<Origin>,
}

type Groups = BTreeMap<(String, Option<String>, bool), Group>;

/// A type in a signature: nothing where it says nothing.
fn typed(name: &str, ty: &str) -> String {
    if ty.is_empty() || ty == "any" { name.to_string() } else { format!("{name}: {ty}") }
}

/// The options of a native function, as its schema has them.
fn listed(schemas: &[Schema], name: &str, receiver: Option<&str>) -> Vec<OptionKey> {
    let own = schemas.iter().find(|s| s.of == name && (s.receiver.is_empty() || Some(s.receiver) == receiver));
    let key = |o: &'static crate::schema::Opt| OptionKey {
        name: o.name.into(),
        default: o.default_words(),
        doc: o.described(),
    };
    own.into_iter().flat_map(Schema::options).map(key).collect()
}

impl Group {
    fn entry(mut self, name: String, receiver: Option<String>, schemas: &[Schema]) -> Option<Entry> {
        let kind = match () {
            () if self.property => Kind::Property,
            () if receiver.is_some() && self.overloads.iter().any(|o| o.by_reference) => Kind::Method,
            () => Kind::Function,
        };
        // a function that ld3sh registers over one of Rhai's stands twice: the documented one tells more
        // (the engine lists functions in the order of a hash table: the sort must decide everything)
        self.overloads.sort_by_cached_key(|o| {
            (o.params.len(), o.doc.summary.is_empty(), o.params.clone(), o.returns.clone(), o.doc.summary.clone())
        });
        let mut seen: Vec<Vec<String>> = Vec::new();
        self.overloads.retain(|o| {
            let types: Vec<String> = o.params.iter().map(|(_, t)| t.clone()).collect();
            let new = !seen.contains(&types);
            seen.push(types);
            new
        });
        let skip = usize::from(kind == Kind::Method);
        let mut signatures: Vec<String> = Vec::new();
        let mut returns = BTreeSet::new();
        let bare = name.rsplit("::").next().unwrap_or(&name).to_string();
        for o in &self.overloads {
            let params: Vec<String> = o.params.iter().skip(skip).map(|(n, t)| typed(n, t)).collect();
            let arrow =
                if o.returns.is_empty() || o.returns == "any" { String::new() } else { format!(" -> {}", o.returns) };
            let signature = match kind {
                Kind::Property => format!("{bare}{}", arrow.replace(" -> ", ": ")),
                Kind::Method => format!("{bare}({}){arrow}", params.join(", ")),
                _ => format!("{name}({}){arrow}", params.join(", ")),
            };
            if !signatures.contains(&signature) {
                signatures.push(signature);
            }
            returns.insert(o.returns.clone());
        }
        let only = if returns.len() == 1 { returns.pop_first() } else { None };
        // the fullest comment is the documentation of all; an option or example of another one is not lost
        let takes = |o: &Overload| o.params.iter().any(|(name, _)| name == "options");
        let options = match self.overloads.iter().any(takes) {
            true => listed(schemas, &name, receiver.as_deref()),
            false => vec![],
        };
        let full = |o: &&Overload| {
            let d = &o.doc;
            let lists = d.options.len() + usize::from(!options.is_empty() && takes(o) && d.example.is_some());
            d.text.len() + d.summary.len() + 1000 * lists + 200 * usize::from(d.example.is_some())
        };
        let best = self.overloads.iter().max_by_key(full)?.doc.clone();
        let example = best.example.or_else(|| self.overloads.iter().find_map(|o| o.doc.example.clone()));
        Some(Entry {
            kind: if kind == Kind::Function && matches!(name.as_str(), "PI" | "E") { Kind::Constant } else { kind },
            name,
            receiver,
            signatures,
            returns: only.filter(|r| !r.is_empty() && r != "any"),
            summary: best.summary,
            doc: best.text,
            options: if options.is_empty() { best.options } else { options },
            example,
            origin: self.origin.unwrap_or(Origin::Native),
            arities: self.arities,
            writable: self.set,
        })
    }
}

fn add(groups: &mut Groups, f: &Function, module: Option<&str>, origin: Origin, own: &BTreeSet<String>) {
    if f.access == "private" {
        return;
    }
    let (property, bare) = match (f.name.strip_prefix("get$"), f.name.strip_prefix("set$")) {
        (Some(n), _) | (_, Some(n)) => (true, n),
        _ => (false, f.name.as_str()),
    };
    let setter = f.name.starts_with("set$");
    if !writable(bare) || (origin == Origin::Rhai && BUILT_IN.iter().any(|b| b.0 == bare)) {
        return;
    }
    let name = module.map_or(bare.to_string(), |m| format!("{m}::{bare}"));
    let param = |(i, p): (usize, &Param)| {
        let name = p.name.clone().unwrap_or_else(|| if i == 0 { "value".into() } else { format!("argument{i}") });
        let name = name.trim_start_matches("mut ").trim_start_matches('_').to_string();
        let ty = p.r#type.as_deref().map_or(Some("any".to_string()), user_type);
        ty.map(|t| (name, if t.is_empty() { "()".into() } else { t }))
    };
    let params: Option<Vec<(String, String)>> = f.params.iter().enumerate().map(param).collect();
    let returns = user_type(&f.return_type);
    let first = params.as_ref().and_then(|p| p.first()).map(|(_, t)| t.clone());
    let receiver = first.filter(|t| {
        module.is_none()
            && (own.contains(t) || (origin == Origin::Rhai && !["any", "number", "()"].contains(&t.as_str())))
    });
    // a function on numbers belongs to no receiver in particular
    let receiver = receiver.filter(|t| property || !["int", "float"].contains(&t.as_str()));
    let known = params.zip(returns).filter(|_| f.params.len() == f.num_params);
    let group = groups.entry((name, receiver, property)).or_default();
    group.property = property;
    if group.origin.is_none() || origin == Origin::Rhai {
        group.origin = Some(origin);
    }
    if setter {
        group.set = true;
        return;
    }
    group.arities.insert(f.num_params);
    if let Some((params, returns)) = known {
        let by_reference = f.params.first().and_then(|p| p.r#type.as_deref()).is_some_and(|t| t.starts_with("&mut"))
            || origin == Origin::Rhai;
        let comments: Vec<&str> = f.doc_comments.iter().map(String::as_str).collect();
        group.overloads.push(Overload { params, returns, by_reference, doc: doc::parse(&comments) });
    }
}

fn plain(name: &str, kind: Kind, origin: Origin, summary: &str, text: &str, example: Option<&str>) -> Entry {
    Entry {
        name: name.into(),
        kind,
        receiver: None,
        signatures: vec![],
        returns: None,
        summary: summary.into(),
        doc: text.into(),
        options: vec![],
        example: example.map(str::to_string),
        origin,
        arities: BTreeSet::new(),
        writable: false,
    }
}

/// The functions of a module in Rhai, and the module itself.
fn stdlib(name: &str, source: &Source, all: &BTreeMap<&str, Source>, out: &mut Vec<Entry>, groups: &mut Groups) {
    let Source { ast, text } = source;
    let head: Vec<&str> = text.lines().take_while(|l| l.starts_with("//!")).collect();
    let d = doc::parse(&[&head.join("\n")]);
    let usage = format!("{}\n\nImport it first: `import \"{name}\" as {name};`", d.text);
    let mut module = plain(name, Kind::Module, Origin::Stdlib, &d.summary, usage.trim(), d.example.as_deref());
    module.options = d.options;
    out.push(module);
    let mut declared = schema::written(source, all);
    for f in ast.iter_functions().filter(|f| f.access == rhai::FnAccess::Public && writable(f.name)) {
        let group = groups.entry((format!("{name}::{}", f.name), None, false)).or_default();
        group.origin = Some(Origin::Stdlib);
        group.arities.insert(f.params.len());
        group.overloads.push(Overload {
            params: f.params.iter().map(|p| (p.to_string(), "any".into())).collect(),
            returns: "any".into(),
            by_reference: false,
            doc: doc::parse(&f.comments),
        });
    }
    for (of, options) in &mut declared {
        let group = groups.get_mut(&(of.clone(), None, false));
        // the version with the most arguments takes them
        if let Some(o) = group.and_then(|g| g.overloads.iter_mut().max_by_key(|o| o.params.len())) {
            let key = |w: schema::Written| OptionKey { name: w.name, default: Some(w.default), doc: w.doc };
            o.doc.options.extend(options.drain(..).map(key));
        }
    }
}

/// Every entry, in no order.
pub(super) fn all(engine: &Engine) -> Vec<Entry> {
    let read = |standard: bool| -> Module {
        let json = engine.gen_fn_metadata_to_json(standard).unwrap_or_default();
        serde_json::from_str(&json).unwrap_or_default()
    };
    let (own, whole) = (read(false), read(true));
    let own_types: BTreeSet<String> = own.custom_types.iter().map(|t| t.display_name.clone()).collect();
    // what is registered in place of one of Rhai's functions is there twice, and stays a part of the language
    let count = |m: &Module| {
        m.functions.iter().fold(BTreeMap::new(), |mut n: BTreeMap<u64, usize>, f| {
            *n.entry(f.full_hash).or_default() += 1;
            n
        })
    };
    let (of_own, of_all) = (count(&own), count(&whole));
    let native: BTreeSet<u64> = of_own.into_iter().filter(|(h, n)| of_all.get(h) == Some(n)).map(|(h, _)| h).collect();
    let (mut out, mut groups) = (Vec::new(), Groups::new());
    for f in &whole.functions {
        let origin = if native.contains(&f.full_hash) { Origin::Native } else { Origin::Rhai };
        add(&mut groups, f, None, origin, &own_types);
    }
    for (name, module) in &whole.modules {
        let d = doc::parse(&[&module.doc]);
        out.push(plain(name, Kind::Module, Origin::Native, &d.summary, &d.text, d.example.as_deref()));
        for f in &module.functions {
            add(&mut groups, f, Some(name), Origin::Native, &own_types);
        }
    }
    let parsed: Vec<_> =
        STDLIB.iter().filter_map(|(name, text)| Some((*name, engine.compile(text).ok()?, *text))).collect();
    let sources = BTreeMap::from_iter(parsed.iter().map(|(name, ast, text)| (*name, Source { ast, text })));
    for (name, source) in &sources {
        stdlib(name, source, &sources, &mut out, &mut groups);
    }
    for t in TYPES.iter().filter(|t| t.name != "any") {
        let origin = if own_types.contains(t.name) { Origin::Native } else { Origin::Rhai };
        // `x[…]` has no name of its own
        let index = |f: &&Function| {
            let first = f.params.first().and_then(|p| p.r#type.as_deref()).and_then(user_type);
            f.name == "index$get$" && first.as_deref() == Some(t.name)
        };
        let comments = own.functions.iter().find(index).map(|f| f.doc_comments.join("\n"));
        let d = comments.map(|c| doc::parse(&[&c])).unwrap_or_default();
        let text = if d.summary.is_empty() { String::new() } else { format!("`x[…]`: {}\n\n{}", d.summary, d.text) };
        out.push(plain(t.name, Kind::Type, origin, t.summary, &text, d.example.as_deref()));
    }
    for (name, summary, example) in KEYWORDS {
        out.push(plain(name, Kind::Keyword, Origin::Rhai, summary, "", Some(example)));
    }
    for (name, signature, summary, example) in BUILT_IN {
        let mut e = plain(name, Kind::Function, Origin::Rhai, summary, "", Some(example));
        e.signatures = vec![signature.to_string()];
        if crate::script::numbers::constant(name).is_some() {
            e.kind = Kind::Constant;
        }
        out.push(e);
    }
    let schemas: Vec<Schema> = super::schemas().collect();
    out.extend(groups.into_iter().filter_map(|((name, receiver, _), g)| g.entry(name, receiver, &schemas)));
    out
}
