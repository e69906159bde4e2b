//! What rustyline asks while a line is typed: completion, hints, colours, whether it is complete.
use super::completion::{Candidate, Imported, Known, complete, types::Shape};
use super::hints::{self, Hint};
use super::{highlight, validator};
use crate::shell::commands::{COMMANDS, Command};
use crate::shell::session::Session;
use crate::shell::show::value::cut;
use rustyline::completion::Completer;
use rustyline::config::CompletionType;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use unicode_width::UnicodeWidthStr;

/// Up to so many candidates are listed with signature and description.
const EXPLAINED: usize = 20;
/// Up to so many candidates can be gone through by pressing Tab again.
const CYCLED: usize = 100;

/// A candidate as rustyline lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    shown: String,
    text: String,
}

impl rustyline::completion::Candidate for Row {
    fn display(&self) -> &str {
        &self.shown
    }
    fn replacement(&self) -> &str {
        &self.text
    }
}

/// The candidates that were listed last, and the text and cursor after that: Tab then goes through them.
struct Cycle {
    text: String,
    at: usize,
    start: usize,
    rows: Vec<Row>,
    next: usize,
}

/// See the module's description.
pub struct Typing<'s> {
    /// The session whose names are completed.
    pub session: &'s mut Session,
    /// The commands with their `:`, and what they do.
    commands: Vec<(String, &'static str)>,
    /// Whether the line is drawn for the last time, without the marks for the cursor.
    last: Cell<bool>,
    cycle: RefCell<Option<Cycle>>,
}

impl<'s> Typing<'s> {
    /// For a session.
    pub fn new(session: &'s mut Session) -> Self {
        let named = |c: &'static Command| c.names.iter().map(|name| (format!(":{name}"), c.summary));
        let commands = COMMANDS.iter().flat_map(named).collect();
        Typing { session, commands, last: Cell::new(false), cycle: RefCell::new(None) }
    }

    fn known(&self) -> Known<'_> {
        let session = &*self.session;
        let shape = |v: &rhai::Dynamic| Shape::from_value(session.engine(), v);
        let variables = session.scope().iter_raw().map(|(name, _, v)| (name.to_string(), shape(v))).collect();
        let imports = session.imported_modules().map(|(alias, module)| {
            let built_in = module.id().and_then(|id| id.strip_prefix("stdlib/")?.strip_suffix(".rhai"));
            let mut functions: Vec<String> = module.gen_fn_signatures_with_mapper(|s| s.into()).collect();
            functions.retain(|f| !f.contains('$'));
            let variables = module.iter_var().map(|(name, _)| name.to_string()).collect();
            (alias.to_string(), Imported { built_in: built_in.map(Into::into), functions, variables })
        });
        Known {
            catalogue: session.catalogue(),
            variables,
            functions: session.function_signatures(),
            imports: imports.collect(),
            commands: &self.commands,
            folder: std::env::current_dir().unwrap_or_default(),
        }
    }
}

/// Candidates as they are listed in a terminal of `columns`: a few with signature and description, many in columns.
fn rows(found: &[Candidate], columns: usize) -> Vec<Row> {
    let columns = columns.saturating_sub(1).max(1);
    let head = |c: &Candidate| match c.signature.starts_with(c.text.trim_end_matches("::")) {
        true => c.signature.clone(),
        false if c.signature.is_empty() => c.text.clone(),
        false => format!("{} {}", c.text.trim_end(), c.signature),
    };
    let explained = found.len() <= EXPLAINED && found.iter().any(|c| !c.signature.is_empty() || !c.doc.is_empty());
    let widest = found.iter().map(|c| head(c).width()).max().unwrap_or(0).min(columns * 3 / 5);
    let shown = |c: &Candidate| {
        if !explained {
            return cut(c.text.trim_end(), columns);
        }
        let head = cut(&head(c), if c.doc.is_empty() { columns } else { widest.max(columns * 2 / 5) });
        let pad = " ".repeat(widest.saturating_sub(head.width()));
        match c.doc.is_empty() {
            true => head,
            false => cut(&format!("{head}{pad}  {}", c.doc), columns),
        }
    };
    found.iter().map(|c| Row { shown: shown(c), text: c.text.clone() }).collect()
}

/// What all rows begin with.
fn common(rows: &[Row]) -> &str {
    let Some((first, rest)) = rows.split_first() else { return "" };
    let shared = |n: usize, r: &Row| {
        let same = first.text.char_indices().zip(r.text.chars()).take_while(|((_, a), b)| a == b);
        n.min(same.last().map_or(0, |((i, c), _)| i + c.len_utf8()))
    };
    &first.text[..rest.iter().fold(first.text.len(), shared)]
}

impl Completer for Typing<'_> {
    type Candidate = Row;

    fn complete(&self, text: &str, at: usize, _: &Context) -> rustyline::Result<(usize, Vec<Row>)> {
        let mut cycle = self.cycle.borrow_mut();
        if let Some(c) = cycle.as_mut().filter(|c| c.at == at && c.text == text) {
            let row = c.rows[c.next % c.rows.len()].clone();
            c.next += 1;
            c.text = format!("{}{}{}", &text[..c.start], row.text, &text[at..]);
            c.at = c.start + row.text.len();
            return Ok((c.start, vec![row]));
        }
        let (start, found) = complete(&mut self.known(), text, at);
        let rows = rows(&found, self.session.front().look().width());
        let extended = common(&rows);
        let typed = if extended.len() > at - start { extended } else { &text[start..at] };
        let after = format!("{}{typed}{}", &text[..start], &text[at..]);
        let again = Cycle { at: start + typed.len(), text: after, start, rows: rows.clone(), next: 0 };
        *cycle = (2..=CYCLED).contains(&rows.len()).then_some(again);
        Ok((start, rows))
    }
}

impl Hinter for Typing<'_> {
    type Hint = Hint;

    fn hint(&self, text: &str, at: usize, context: &Context) -> Option<Hint> {
        // without colour they could not be told from what was typed
        if !self.session.front().look().color || at < text.len() || self.last.get() {
            return None;
        }
        let earlier = hints::from_history(context.history(), text);
        let parameters = |call: &str| hints::parameters(self.session.catalogue(), call);
        earlier.or_else(|| match hints::call_at_end(text) {
            Some(call) => parameters(&call),
            // a name that Tab has completed
            None => parameters(&hints::name_at_end(text)?).map(|h| Hint { shown: format!("({}", h.shown), ..h }),
        })
    }
}

impl Highlighter for Typing<'_> {
    fn highlight<'l>(&self, text: &'l str, at: usize) -> Cow<'l, str> {
        Cow::Owned(highlight::paint(text, (!self.last.get()).then_some(at)))
    }
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, default: bool) -> Cow<'b, str> {
        match default {
            true => Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m")),
            false => Cow::Borrowed(prompt),
        }
    }
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
    fn highlight_candidate<'c>(&self, candidate: &'c str, _: CompletionType) -> Cow<'c, str> {
        match candidate.split_once("  ") {
            Some((head, doc)) => Cow::Owned(format!("{head}\x1b[90m  {doc}\x1b[0m")),
            None => Cow::Borrowed(candidate),
        }
    }
    fn highlight_char(&self, text: &str, at: usize, kind: CmdKind) -> bool {
        self.last.set(kind == CmdKind::ForcedRefresh);
        match kind {
            CmdKind::MoveCursor => highlight::at_bracket(text, at),
            CmdKind::Other => true,
            CmdKind::ForcedRefresh => false,
        }
    }
}

impl Validator for Typing<'_> {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        match validator::is_open(context.input()) {
            true => Ok(ValidationResult::Incomplete),
            false => Ok(ValidationResult::Valid(None)),
        }
    }
}

impl Helper for Typing<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(text: &str, signature: &str, doc: &str) -> Candidate {
        Candidate { text: text.into(), signature: signature.into(), doc: doc.into() }
    }

    #[test]
    fn lists_fit_the_terminal() {
        let found = [
            candidate("unipc", "unipc(options: map) -> Solver", "UniPC, a predictor-corrector of any order."),
            candidate("nfe: ", "= 10", "evaluations"),
            candidate("ld3::", "", "LD3"),
            candidate("x", "Tensor", ""),
        ];
        let shown: Vec<String> = rows(&found, 80).into_iter().map(|r| r.shown).collect();
        assert_eq!(shown[0], "unipc(options: map) -> Solver  UniPC, a predictor-corrector of any order.");
        assert_eq!(shown[1], "nfe: = 10                      evaluations");
        assert_eq!(shown[3], "x Tensor");
        for columns in [0, 1, 2, 10, 40] {
            assert!(rows(&found, columns).iter().all(|r| r.shown.width() < columns.max(2)), "{columns}");
        }
        let many: Vec<Candidate> = (0..30).map(|i| candidate(&format!("f{i}"), "f()", "doc")).collect();
        assert_eq!(rows(&many, 80)[3].shown, "f3");
    }

    #[test]
    fn common_beginnings() {
        let row = |t: &&str| Row { shown: String::new(), text: t.to_string() };
        for (all, shared) in
            [(&["abc", "abd"][..], "ab"), (&["éa", "éb"], "é"), (&["a"], "a"), (&[], ""), (&["a", "b"], "")]
        {
            assert_eq!(common(&all.iter().map(row).collect::<Vec<_>>()), shared);
        }
    }
}
