//! Tab: what may stand at the cursor. A pure function of the text and of what is [`Known`].
mod files;
pub mod types;

use super::validator::indent;
use crate::shell::catalogue::{Catalogue, Entry, Kind as EntryKind, Origin};
use crate::shell::lex::{Inside, KEYWORDS, Kind, Lexed, Token, lex};
use std::collections::BTreeMap;
use std::path::PathBuf;
use types::{Shape, chain_start, infer, map_keys, top_level};

/// A thing that may stand at the cursor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// What is put in place of the word at the cursor.
    pub text: String,
    /// How it is called, or what its type is; may be empty.
    pub signature: String,
    /// One line about it; may be empty.
    pub doc: String,
}

impl Candidate {
    fn new(text: impl Into<String>, signature: impl Into<String>, doc: impl Into<String>) -> Self {
        Candidate { text: text.into(), signature: signature.into(), doc: doc.into() }
    }
}

/// A module that was imported.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    /// The module's name in the catalogue, if it is one of those compiled in.
    pub built_in: Option<String>,
    /// Its functions' signatures, `f(x, y)`.
    pub functions: Vec<String>,
    /// Its variables.
    pub variables: Vec<String>,
}

/// What can be named at the prompt.
pub struct Known<'a> {
    /// The engine's functions, types and modules.
    pub catalogue: &'a Catalogue,
    /// The session's variables.
    pub variables: BTreeMap<String, Shape>,
    /// The signatures of the session's own functions, `f(x, y)`.
    pub functions: Vec<String>,
    /// What was imported, by the name given to it.
    pub imports: BTreeMap<String, Imported>,
    /// The shell's commands with their `:`, and what they do.
    pub commands: &'a [(String, &'a str)],
    /// The current folder.
    pub folder: PathBuf,
}

impl Known<'_> {
    fn variable(&self, name: &str) -> Option<&Shape> {
        self.variables.get(name)
    }
    /// A function's name in the catalogue: `method::train` is `ld3::train` after `import "ld3" as method`.
    fn real_name(&self, name: &str) -> String {
        let built_in = |alias: &str| self.imports.get(alias)?.built_in.as_deref();
        match name.split_once("::") {
            Some((alias, rest)) => built_in(alias).map_or(name.into(), |m| format!("{m}::{rest}")),
            None => name.into(),
        }
    }
}

/// What may stand at byte `at` of `text`: the byte from which the candidates replace, and the candidates, sorted.
pub fn complete(known: &mut Known, text: &str, at: usize) -> (usize, Vec<Candidate>) {
    let before = text.get(..at).unwrap_or(text);
    let (start, mut found) = place(known, before);
    found.sort();
    found.dedup_by(|a, b| a.text == b.text);
    (start, found)
}

fn place(known: &mut Known, text: &str) -> (usize, Vec<Candidate>) {
    let line = text.rfind('\n').map_or(0, |i| i + 1);
    if line > 0 && text[line..].trim().is_empty() {
        // an empty line of a longer input: as far in as its brackets say
        let blanks = " ".repeat(indent(&text[..line]));
        return match blanks.len() > text.len() - line {
            true => (line, vec![Candidate::new(blanks, "", "")]),
            false => (text.len(), vec![]),
        };
    }
    let word = text.rfind(char::is_whitespace).map_or(0, |i| i + 1);
    if let Some(name) = text.strip_prefix(':') {
        let Some((command, _)) = name.split_once(char::is_whitespace) else {
            let fits = known.commands.iter().filter(|(c, _)| c.starts_with(text));
            return (0, fits.map(|(c, doc)| Candidate::new(c.clone(), "", *doc)).collect());
        };
        if matches!(command, "load" | "run" | "save" | "cd" | "reload") {
            return files::paths(&known.folder, text, word);
        }
        // what follows is code, or a name
        let rest = text.len() - name[command.len()..].len() + 1;
        let (start, found) = code(known, &text[rest..]);
        return (rest + start, found);
    }
    if text.starts_with('!') {
        return files::paths(&known.folder, text, word.max(1));
    }
    for topic in ["help ", "apropos "] {
        if text.starts_with(topic) {
            let fits = known.catalogue.iter().filter(|e| e.title().starts_with(&text[word..]));
            return (word, fits.map(|e| from_entry(e, e.title(), false)).collect());
        }
    }
    code(known, text)
}

/// A catalogue's entry as a candidate that inserts `text`.
fn from_entry(e: &Entry, text: String, method: bool) -> Candidate {
    let signatures = if method { e.as_method() } else { e.signatures.clone() };
    // the one with all arguments tells most; those that only count them, n0, n1, …, tell less than a list
    let signature = signatures
        .iter()
        .rfind(|s| !s.contains("n1:"))
        .map(|s| s.strip_prefix(e.namespace().unwrap_or_default()).unwrap_or(s));
    let signature = signature.map(|s| s.trim_start_matches("::")).unwrap_or_default().to_string();
    Candidate::new(text, signature, e.summary.clone())
}

fn code(known: &mut Known, text: &str) -> (usize, Vec<Candidate>) {
    let l = lex(text);
    let last = l.tokens.last().copied();
    match l.inside {
        Inside::Comment => return (text.len(), vec![]),
        Inside::String | Inside::Lines => {
            let Some(t) = last else { return (text.len(), vec![]) };
            let start = t.start + t.of(text).find(['"', '`']).map_or(0, |i| i + 1);
            let import = l.tokens.iter().rev().nth(1).is_some_and(|t| t.of(text) == "import");
            return if import { files::modules(&known.folder, text, start) } else { paths(known, text, start) };
        }
        Inside::Code => {}
    }
    if last.is_some_and(|t| t.kind == Kind::Comment && t.end == text.len()) {
        return (text.len(), vec![]);
    }
    let typed = last.filter(|t| matches!(t.kind, Kind::Name | Kind::Keyword) && t.end == text.len());
    let start = typed.map_or(text.len(), |t| t.start);
    let prefix = &text[start..];
    let tokens = &l.tokens[..l.tokens.len() - usize::from(typed.is_some())];
    locals(known, text, tokens);
    let found = match tokens.last().map(|t| t.of(text)) {
        Some("." | "?.") => {
            let end = tokens.len() - 1;
            let shape = infer(known, text, &tokens[chain_start(text, tokens, end)..end]);
            members(known, shape.as_ref(), prefix)
        }
        Some("::") => {
            let path = &tokens[chain_start(text, tokens, tokens.len() - 1)..tokens.len() - 1];
            let path: String = path.iter().map(|t| t.of(text)).collect();
            inside_module(known, &path, prefix)
        }
        _ => match option_keys(known, text, &l, tokens) {
            Some(keys) => keys.into_iter().filter(|c| c.text.starts_with(prefix)).collect(),
            None => names(known, prefix),
        },
    };
    (start, found)
}

fn paths(known: &Known, text: &str, start: usize) -> (usize, Vec<Candidate>) {
    files::paths(&known.folder, text, start)
}

/// Adds the variables, parameters and functions that the input itself declares.
fn locals(known: &mut Known, text: &str, tokens: &[Token]) {
    let name = |i: usize| tokens.get(i).filter(|t| t.kind == Kind::Name).map(|t| t.of(text).to_string());
    let any = || Shape::of("any");
    for (i, t) in tokens.iter().enumerate() {
        match t.of(text) {
            "let" | "const" => {
                let Some(n) = name(i + 1) else { continue };
                let value = tokens.get(i + 2).filter(|t| t.of(text) == "=").map(|_| &tokens[i + 3..]);
                let end = value.and_then(|v| Some(&v[..top_level(text, v, ";")?]));
                let shape = end.and_then(|v| infer(known, text, v)).unwrap_or_else(any);
                known.variables.insert(n, shape);
            }
            "for" => {
                if let Some(n) = name(i + 1) {
                    known.variables.insert(n, any());
                }
            }
            "fn" => {
                let (Some(n), Some("(")) = (name(i + 1), tokens.get(i + 2).map(|t| t.of(text))) else { continue };
                let params = tokens[i + 3..].iter().take_while(|t| matches!(t.kind, Kind::Name) || t.of(text) == ",");
                let params: Vec<String> =
                    params.filter(|t| t.kind == Kind::Name).map(|t| t.of(text).to_string()).collect();
                known.functions.push(format!("{n}({})", params.join(", ")));
                params.into_iter().for_each(|p| drop(known.variables.insert(p, any())));
            }
            "|" => {
                // a closure's parameters: names and commas up to the next bar
                let inner = &tokens[i + 1..];
                let end = inner.iter().position(|t| t.kind != Kind::Name && t.of(text) != ",");
                if end.is_some_and(|e| e > 0 && inner[e].of(text) == "|") {
                    let names = inner.iter().take_while(|t| t.of(text) != "|").filter(|t| t.kind == Kind::Name);
                    names.for_each(|t| drop(known.variables.insert(t.of(text).into(), any())));
                }
            }
            _ => {}
        }
    }
}

/// What may stand behind the dot of a value; of all types where the value's is not known.
fn members(known: &Known, of: Option<&Shape>, prefix: &str) -> Vec<Candidate> {
    let mut found = vec![];
    if let Some(Shape::Map(keys)) = of {
        let fits = keys.iter().filter(|(k, _)| k.starts_with(prefix) && k.chars().all(crate::shell::lex::is_word));
        found.extend(fits.map(|(k, v)| Candidate::new(k, v.type_name(), "")));
    }
    let ty = of.map(Shape::type_name).filter(|t| *t != "any");
    let here = |e: &&Entry| match ty {
        Some(ty) => e.receiver.as_deref() == Some(ty),
        // of any value: only what was begun, and not the many methods of Rhai's own types
        None => !prefix.is_empty() && e.origin == Origin::Native,
    };
    let all = known.catalogue.iter().filter(|e| e.follows_dot() && e.bare() == e.name && e.name.starts_with(prefix));
    found.extend(all.filter(here).map(|e| from_entry(e, e.name.clone(), true)));
    found
}

fn inside_module(known: &Known, path: &str, prefix: &str) -> Vec<Candidate> {
    let named = |s: &String| s.split('(').next().unwrap_or(s).to_string();
    let imported = known.imports.get(path);
    let module = imported.and_then(|i| i.built_in.as_deref()).unwrap_or(path);
    let entries = known.catalogue.namespace(module).filter(|e| e.bare().starts_with(prefix));
    let mut found: Vec<Candidate> = entries.map(|e| from_entry(e, e.bare().into(), false)).collect();
    if let Some(i) = imported.filter(|_| found.is_empty()) {
        let fits = i.functions.iter().filter(|s| s.starts_with(prefix));
        found.extend(fits.map(|s| Candidate::new(named(s), s, "")));
        found.extend(i.variables.iter().filter(|v| v.starts_with(prefix)).map(|v| Candidate::new(v, "", "")));
    }
    found
}

/// The keys for the map of options that the cursor is in, where a key may stand; None where it is in no such place.
fn option_keys(known: &Known, text: &str, l: &Lexed, tokens: &[Token]) -> Option<Vec<Candidate>> {
    let map = *l.open.last()?;
    if l.tokens[map].of(text) != "#{" || !matches!(tokens.last()?.of(text), "#{" | ",") {
        return None;
    }
    // the call in whose parentheses the map stands
    let call = *l.open.iter().rev().nth(1)?;
    let name = call.checked_sub(1).map(|i| tokens[i]).filter(|t| t.kind == Kind::Name)?;
    if l.tokens[call].of(text) != "(" {
        return None;
    }
    let start = chain_start(text, tokens, call);
    let chain = &tokens[start..call];
    let dot = chain.iter().rposition(|t| matches!(t.of(text), "." | "?."));
    let entries: Vec<&Entry> = match dot {
        Some(d) => {
            let shape = infer(known, text, &chain[..d]);
            let ty = shape.as_ref().map(Shape::type_name);
            let all = known.catalogue.get(name.of(text)).iter();
            all.filter(|e| e.follows_dot() && (ty.is_none() || e.receiver.as_deref() == ty)).collect()
        }
        None => {
            let path: String = chain.iter().map(|t| t.of(text)).collect();
            known.catalogue.get(&known.real_name(&path)).iter().collect()
        }
    };
    let given: Vec<String> = map_keys(text, &tokens[map + 1..]).into_iter().map(|(k, _)| k).collect();
    let keys = entries.iter().flat_map(|e| &e.options).filter(|o| !given.contains(&o.name));
    let candidate = |o: &crate::shell::catalogue::OptionKey| {
        let default = o.default.as_ref().map(|d| format!("= {d}")).unwrap_or_default();
        Candidate::new(format!("{}: ", o.name), default, o.doc.clone())
    };
    Some(keys.map(candidate).collect())
}

/// Variables, functions, modules and words of the language. Where nothing was begun: what is the session's own, and
/// modules.
fn names(known: &Known, prefix: &str) -> Vec<Candidate> {
    let own = known.variables.iter().filter(|(n, _)| *n != "_").map(|(n, s)| Candidate::new(n, s.type_name(), ""));
    let mut found: Vec<Candidate> = own.collect();
    let function = |s: &String| Candidate::new(s.split('(').next().unwrap_or(s), s, "");
    found.extend(known.functions.iter().map(function));
    found.extend(known.imports.keys().map(|alias| Candidate::new(format!("{alias}::"), "", "an imported module")));
    for e in known.catalogue.iter().filter(|e| !e.name.contains("::")) {
        match e.kind {
            EntryKind::Module if e.origin != Origin::Stdlib => {
                found.push(Candidate::new(format!("{}::", e.name), "", e.summary.clone()));
            }
            EntryKind::Function | EntryKind::Constant if !prefix.is_empty() => {
                found.push(from_entry(e, e.name.clone(), false));
            }
            _ => {}
        }
    }
    if !prefix.is_empty() {
        found.extend(KEYWORDS.iter().map(|k| Candidate::new(*k, "", "")));
        found.extend(["help", "apropos", "exit"].map(|k| Candidate::new(k, "", "")));
    }
    found.retain(|c| c.text.starts_with(prefix));
    found
}
