//! The grey text behind the cursor: the rest of an earlier input, or a call's parameters.
use super::validator::is_command;
use crate::shell::catalogue::{Catalogue, Entry};
use crate::shell::lex::{Kind, lex};
use rustyline::history::{History, SearchDirection};

/// What is offered behind the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// What is shown.
    pub shown: String,
    /// What the right arrow key inserts.
    pub inserted: Option<String>,
}

impl rustyline::hint::Hint for Hint {
    fn display(&self) -> &str {
        &self.shown
    }
    fn completion(&self) -> Option<&str> {
        self.inserted.as_deref()
    }
}

/// The rest of the latest input that began like this; of one with several lines, the first of them shows.
pub fn from_history(history: &dyn History, text: &str) -> Option<Hint> {
    if text.trim().is_empty() {
        return None;
    }
    let mut from = history.len().checked_sub(1)?;
    let entry = loop {
        let hit = history.starts_with(text, from, SearchDirection::Reverse).ok()??;
        if hit.entry.len() > text.len() {
            break hit.entry;
        }
        from = hit.idx.checked_sub(1)?;
    };
    let rest = &entry[text.len()..];
    let shown = match rest.split_once('\n') {
        Some((line, _)) => format!("{line} …"),
        None => rest.to_string(),
    };
    Some(Hint { shown, inserted: Some(rest.to_string()) })
}

/// The function whose opening parenthesis ends the text: its name with its module, or `.name` of a method.
pub fn call_at_end(text: &str) -> Option<String> {
    if is_command(text) || !text.ends_with('(') {
        return None;
    }
    let l = lex(text);
    let [before @ .., name, open] = l.tokens.as_slice() else { return None };
    if name.kind != Kind::Name || open.kind != Kind::Open || name.end != open.start {
        return None;
    }
    let name = name.of(text);
    match before {
        [.., module, sep] if sep.of(text) == "::" => Some(format!("{}::{name}", module.of(text))),
        [.., dot] if dot.of(text) == "." => Some(format!(".{name}")),
        [.., word] if word.of(text) == "fn" => None,
        _ => Some(name.to_string()),
    }
}

/// The call that a module's function or a method at the end of the text would begin.
pub fn name_at_end(text: &str) -> Option<String> {
    let named = text.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    call_at_end(&format!("{text}(")).filter(|call| named && (call.starts_with('.') || call.contains("::")))
}

/// The parameters of a function, for behind its opening parenthesis.
pub fn parameters(catalogue: &Catalogue, call: &str) -> Option<Hint> {
    let method = call.strip_prefix('.');
    let entries = catalogue.get(method.unwrap_or(call)).iter();
    let signatures = |e: &Entry| match method {
        Some(_) if e.follows_dot() => e.as_method(),
        Some(_) => vec![],
        None => e.signatures.clone(),
    };
    let all: Vec<String> = entries.flat_map(signatures).collect();
    // the longest tells most, but for one that counts: n0, n1, …
    let longest = all.iter().filter(|s| !s.contains("n1:")).max_by_key(|s| s.len())?;
    let inner = longest.split_once('(')?.1;
    Some(Hint { shown: inner.to_string(), inserted: None })
}

#[cfg(test)]
mod tests {
    use super::super::history::Inputs;
    use super::*;

    #[test]
    fn the_latest_that_begins_so() {
        let mut h = Inputs::default();
        for line in ["let a = 1;", "let b = 2;", "fn f() {\n    1\n}"] {
            h.add(line).unwrap();
        }
        let hint = |text: &str| from_history(&h, text);
        assert_eq!(hint("let"), Some(Hint { shown: " b = 2;".into(), inserted: Some(" b = 2;".into()) }));
        assert_eq!(hint("fn f"), Some(Hint { shown: "() { …".into(), inserted: Some("() {\n    1\n}".into()) }));
        assert_eq!(hint(""), None);
        assert_eq!(hint("let b = 2;"), None);
    }

    #[test]
    fn calls() {
        for (text, call) in [
            ("solver::unipc(", Some("solver::unipc")),
            ("f(", Some("f")),
            ("x.sum(", Some(".sum")),
            ("a + f(", Some("f")),
            ("fn f(", None),
            ("f (", None),
            ("(", None),
            ("\"f(", None),
            ("f", None),
            (":time f(", None),
        ] {
            assert_eq!(call_at_end(text).as_deref(), call, "{text}");
        }
    }
}
