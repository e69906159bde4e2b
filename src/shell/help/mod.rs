//! `help`, `apropos`, `name?`: answers from the catalogue, for the REPL and for scripts.
mod ask;
pub mod page;
mod topics;

pub use ask::{source, type_of, vars};

use super::catalogue::{Catalogue, Entry, Kind, Origin, doc, type_name};
use super::repl::Next;
use super::screen;
use super::session::Session;
use crate::access::clean;
use crate::script::engine::print_line;
use page::{Page, Style};
use rhai::plugin::*;
use rhai::{Engine, NativeCallContext};
use std::io::IsTerminal;
use topics::TOPICS;

/// How many answers `apropos` gives.
const ANSWERS: usize = 25;

/// A question in an input.
#[derive(Debug, PartialEq, Eq)]
enum Question<'a> {
    Help(&'a str),
    Apropos(&'a str),
}

/// The text between `f(` and `)`, or after `f `, without quotes.
fn argument<'a>(line: &'a str, f: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(f)?;
    if !rest.is_empty() && !rest.starts_with([' ', '(']) {
        return None;
    }
    let rest = rest.trim();
    let rest = match rest.strip_prefix('(') {
        Some(inner) => inner.strip_suffix(')')?.trim(),
        None => rest,
    };
    let quoted = rest.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
    Some(quoted.unwrap_or(rest).trim())
}

/// Whether text can be a name that one asks about.
fn is_topic(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || "_:.".contains(c)) && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn question(line: &str) -> Option<Question<'_>> {
    let line = line.trim().trim_end_matches(';').trim_end();
    if let Some(topic) = line.strip_suffix('?').or_else(|| line.strip_prefix('?')) {
        let topic = topic.trim().trim_end_matches("()");
        return is_topic(topic).then_some(Question::Help(topic));
    }
    if let Some(topic) = argument(line, "help") {
        let topic = topic.trim_end_matches("()");
        return is_topic(topic).then_some(Question::Help(topic));
    }
    let text = argument(line, "apropos")?;
    (!text.starts_with(['=', '.'])).then_some(Question::Apropos(text))
}

/// The answer to an input of a REPL that asks for help: `help`, `help X`, `X?`, `x.method?`, `apropos TEXT`. `None` if it does not.
pub fn answer(session: &Session, line: &str) -> Option<String> {
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    answer_in(session, line, Style { width: screen::width(), color })
}

/// As [`answer`], in a given style.
pub fn answer_in(session: &Session, line: &str, style: Style) -> Option<String> {
    let asked = question(line)?;
    // a variable of that name is the user's: `help = 3`, `apropos(x)` of a function of one's own
    if session.scope().contains("help") && line.trim().starts_with("help") {
        return None;
    }
    let c = session.catalogue();
    Some(match asked {
        Question::Help("") => overview(c, style),
        Question::Help(topic) => about_value(session, topic, style)
            .or_else(|| ask::about_script_function(session, topic, style))
            .unwrap_or_else(|| help(c, topic, style)),
        Question::Apropos(text) => apropos(c, text, style),
    })
}

/// Takes the inputs that ask for help.
pub fn handle(session: &mut Session, input: &str) -> Option<Next> {
    print_line(&answer(session, input)?);
    Some(Next::Prompt)
}

/// `x?` and `x.name?` of a variable.
fn about_value(session: &Session, topic: &str, style: Style) -> Option<String> {
    let (name, member) = match topic.split_once('.') {
        Some((n, m)) => (n, Some(m)),
        None => (topic, None),
    };
    let value = session.scope().get(name)?;
    let ty = type_name(session.engine(), value);
    let Some(member) = member else {
        let mut page = Page::new(style);
        page.title(name, &format!("variable, {ty}"));
        page.prose(&clean(&session.show(value)).lines().take(8).collect::<Vec<_>>().join("\n\n"), 2);
        page.prose(&format!("`help {ty}` tells what can be done with it."), 0);
        return Some(page.finish());
    };
    let c = session.catalogue();
    let full = format!("{ty}.{member}");
    let found: Vec<&Entry> = c.methods_of(&ty).filter(|e| e.name == member).collect();
    // what takes any value has no receiver
    let other: Vec<&Entry> = c.get(member).iter().filter(|e| e.receiver.is_none()).collect();
    Some(match (found.is_empty(), other.is_empty()) {
        (true, true) => unknown(c, &full, style),
        (true, false) => entries(c, &other, style),
        _ => entries(c, &found, style),
    })
}

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

fn unknown(c: &Catalogue, topic: &str, style: Style) -> String {
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
fn entries(c: &Catalogue, found: &[&Entry], style: Style) -> String {
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
        let name = |o: &&super::catalogue::OptionKey| match &o.default {
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
fn script_entry(page: &mut Page, title: &str, signature: &str, comments: &[&str]) {
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

#[cfg(test)]
mod tests {
    use super::{Question, question};

    #[test]
    fn questions() {
        for (line, topic) in [
            ("help", ""),
            ("?", ""),
            (" help() ", ""),
            ("help unipc", "unipc"),
            ("help(\"unipc\")", "unipc"),
            ("help solver::unipc;", "solver::unipc"),
            ("unipc?", "unipc"),
            ("x.alpha?", "x.alpha"),
            ("solver::unipc()?", "solver::unipc"),
            ("?tau", "tau"),
        ] {
            assert_eq!(question(line), Some(Question::Help(topic)), "{line}");
        }
        assert_eq!(question("apropos \"even steps\""), Some(Question::Apropos("even steps")));
        assert_eq!(question("apropos even steps"), Some(Question::Apropos("even steps")));
        for line in ["helper(1)", "help = 3", "help + 1", "let help = 1", "1 + 2", "x ?? 3", "apropos = 1", ""] {
            assert_eq!(question(line), None, "{line}");
        }
    }
}
