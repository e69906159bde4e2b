//! The pages of help: what the catalogue tells of names, as text.
use super::page::{Page, Style};
use super::topics::TOPICS;
use crate::shell::catalogue::{Catalogue, Entry, Kind, OptionKey, Origin, doc};
use rhai::plugin::*;
use rhai::{Engine, NativeCallContext};

/// How many answers `apropos` gives.
const ANSWERS: usize = 25;

/// The page about a name.
pub fn help(c: &Catalogue, topic: &str, style: Style) -> String {
    if topic.is_empty() {
        return overview(c, style);
    }
    if let Some(list) = index(c, topic, style) {
        return list;
    }
    let found = c.find(topic);
    if found.is_empty() { unknown(c, topic, style) } else { entries(c, &found, style) }
}

/// `help functions` and other lists of all names of a kind.
fn index(c: &Catalogue, topic: &str, style: Style) -> Option<String> {
    let (kind, what) = match topic {
        "functions" => (Kind::Function, "Functions outside modules"),
        "modules" => (Kind::Module, "Modules"),
        "types" => (Kind::Type, "Types"),
        "keywords" => (Kind::Keyword, "Words of the language"),
        _ => return None,
    };
    let mut page = Page::new(style);
    page.title(topic, what);
    page.blank();
    if kind == Kind::Function {
        let mut names: Vec<&str> = c
            .iter()
            .filter(|e| e.kind == kind && e.origin == Origin::Native && e.namespace().is_none())
            .map(|e| e.name.as_str())
            .collect();
        names.dedup();
        page.names(&names);
        page.blank();
        page.prose("`help Tensor` and other types tell of methods.", 0);
    } else {
        page.list(&rows(c.iter().filter(|e| e.kind == kind)));
    }
    Some(page.finish())
}

fn rows<'a>(list: impl Iterator<Item = &'a Entry>) -> Vec<(String, String)> {
    list.map(|e| (e.title(), e.summary.clone())).collect()
}

pub(super) fn unknown(c: &Catalogue, topic: &str, style: Style) -> String {
    let mut page = Page::new(style);
    let near = c.nearest(topic).map_or(String::new(), |n| format!(" Did you mean `{n}`?"));
    page.prose(&format!("There is no `{topic}`.{near} `apropos {topic}` searches all documentation."), 0);
    page.finish()
}

/// The overview by topic.
pub fn overview(c: &Catalogue, style: Style) -> String {
    let mut page = Page::new(style);
    page.title(&format!("ld3sh {}", crate::VERSION), "help");
    page.prose(
        "Ask with `help NAME` or `NAME?` about a function, `help MODULE`, `help TYPE` or `help KEYWORD`; with `x.method?` \
         about a method of a variable; with `apropos TEXT` where the name is not known.",
        0,
    );
    for (title, names) in TOPICS {
        page.heading(title);
        page.names(names);
    }
    page.heading("Modules");
    page.list(&rows(c.iter().filter(|e| e.kind == Kind::Module)));
    page.blank();
    page.prose("`help functions`, `help types` and `help keywords` list all.", 0);
    page.finish()
}

/// What `apropos` finds.
pub fn apropos(c: &Catalogue, text: &str, style: Style) -> String {
    let found = c.search(text);
    let mut page = Page::new(style);
    if text.trim().is_empty() || found.is_empty() {
        let near = c.nearest(text).map_or(String::new(), |n| format!(" Did you mean `{n}`?"));
        let why = if text.trim().is_empty() {
            "`apropos TEXT` needs a text.".into()
        } else {
            format!("Nothing is about `{text}`.{near}")
        };
        page.prose(&why, 0);
        return page.finish();
    }
    page.list(&rows(found.iter().take(ANSWERS).copied()));
    if found.len() > ANSWERS {
        page.prose(&format!("… and {} more", found.len() - ANSWERS), 2);
    }
    page.finish()
}

/// The page of the first of some entries, and a line for each of the others.
pub(super) fn entries(c: &Catalogue, found: &[&Entry], style: Style) -> String {
    let mut sorted = found.to_vec();
    sorted.sort_by_key(|e| (e.origin == Origin::Rhai, e.kind == Kind::Property));
    let Some((first, others)) = sorted.split_first() else { return String::new() };
    let mut page = Page::new(style);
    entry(&mut page, first);
    match first.kind {
        Kind::Module => members(&mut page, c.namespace(&first.name).collect()),
        Kind::Type => members(&mut page, c.methods_of(&first.name).filter(|e| e.name != "to_debug").collect()),
        _ => {}
    }
    if !others.is_empty() {
        page.heading("Also");
        page.list(&rows(others.iter().copied()));
    }
    page.finish()
}

/// What is in a module, or can stand behind the dot of a type.
fn members(page: &mut Page, list: Vec<&Entry>) {
    for (kind, title) in [(Kind::Property, "Properties"), (Kind::Method, "Methods"), (Kind::Function, "Functions")] {
        let list: Vec<&Entry> = list.iter().filter(|e| e.kind == kind).copied().collect();
        if !list.is_empty() {
            page.heading(title);
            page.list(&list.iter().map(|e| (e.name.clone(), e.summary.clone())).collect::<Vec<_>>());
        }
    }
}

/// Name, signatures, documentation, options and example of an entry.
fn entry(page: &mut Page, e: &Entry) {
    let kind = match (e.kind, e.writable) {
        (Kind::Property, true) => "property, can be assigned".to_string(),
        (k, _) => k.word().to_string(),
    };
    page.title(&e.title(), &kind);
    for s in &e.signatures {
        page.signature(s);
    }
    page.blank();
    page.prose(&e.summary, 0);
    page.prose(&e.doc, 0);
    if !e.options.is_empty() {
        page.heading("Options");
        let name = |o: &&OptionKey| match &o.default {
            Some(d) => format!("{} ({d})", o.name),
            None => o.name.clone(),
        };
        for (keys, text) in e.option_groups() {
            page.item(&keys.iter().map(name).collect::<Vec<_>>().join(", "), text);
        }
    }
    if let Some(example) = &e.example {
        page.heading("Example");
        page.code(example);
    }
}

/// The page of a script's own function.
pub(super) fn script_entry(page: &mut Page, title: &str, signature: &str, comments: &[&str]) {
    let d = doc::parse(comments);
    page.title(title, "function of a script");
    page.signature(signature);
    page.blank();
    page.prose(&d.summary, 0);
    page.prose(&d.text, 0);
    if !d.options.is_empty() {
        page.heading("Options");
        page.list(&d.options.iter().map(|o| (o.name.clone(), o.doc.clone())).collect::<Vec<_>>());
    }
    if let Some(example) = &d.example {
        page.heading("Example");
        page.code(example);
    }
}

/// Adds `help` and `apropos` for scripts to `engine`.
pub fn register(engine: &mut Engine) {
    engine.register_global_module(rhai::exported_module!(functions).into());
}

#[export_module]
mod functions {
    /// The documentation of a function, method, property, module, type or keyword, as text.
    ///
    /// In the REPL, `help unipc` and `unipc?` print it.
    ///
    /// Example: `print(help("solver::unipc"));`
    pub fn help(context: NativeCallContext, topic: &str) -> String {
        super::help(&Catalogue::of(context.engine()), topic, Style::PLAIN)
    }
    /// The names that have to do with some words, as text; the likeliest first.
    ///
    /// In the REPL, `apropos schedule` prints it.
    ///
    /// Example: `print(apropos("even steps"));`
    pub fn apropos(context: NativeCallContext, words: &str) -> String {
        super::apropos(&Catalogue::of(context.engine()), words, Style::PLAIN)
    }
}
