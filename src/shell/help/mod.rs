//! `help`, `apropos`, `name?`: answers from the catalogue, for the REPL and for scripts.
mod ask;
pub mod page;
pub mod pages;
mod topics;

pub use ask::{source, type_of, vars};

use super::catalogue::{Entry, type_name};
use super::outcome::Next;
use super::session::Session;
use crate::access::clean;
use page::{Page, Style};
use pages::{apropos, entries, help, overview, unknown};

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
    let look = session.front().look();
    answer_in(session, line, Style { width: look.width(), color: look.color })
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
    session.front().print(&answer(session, input)?);
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
