//! The REPL: line editing, history, input over several lines, Ctrl-C that stops a computation and keeps the session.
use super::cli::exit_code;
use super::help;
use super::report;
use super::screen;
use super::session::{Outcome, Session};
use crate::script::engine::{print_line, report_line};
use etcetera::BaseStrategy;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Config, Editor, Helper, completion::Completer, highlight::Highlighter, hint::Hinter};
use std::path::PathBuf;

/// Lines of history that are kept.
const HISTORY: usize = 10_000;

/// Plain input that may span lines.
struct Lines;

impl Helper for Lines {}
impl Highlighter for Lines {}
impl Hinter for Lines {
    type Hint = String;
}
impl Completer for Lines {
    type Candidate = String;
}

impl Validator for Lines {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(if is_open(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

/// Whether a bracket, string or comment is open at the end of `text`.
pub fn is_open(text: &str) -> bool {
    // what is open, innermost last: a closing bracket to come, '`' for a template, '$' for code inside a template
    let mut open: Vec<char> = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if open.last() == Some(&'`') {
            match c {
                '`' => drop(open.pop()),
                '\\' => drop(chars.next()),
                '$' if chars.peek() == Some(&'{') => {
                    chars.next();
                    open.push('$');
                }
                _ => {}
            }
            continue;
        }
        match c {
            '"' => loop {
                match chars.next() {
                    None => return true,
                    Some('\\') => drop(chars.next()),
                    Some('"') => break,
                    Some(_) => {}
                }
            },
            '\'' => {
                // a character: at most an escape and a quote away
                let mut ahead = chars.clone();
                let first = ahead.next();
                let closes = match first {
                    Some('\\') => ahead.find(|c| *c == '\'').is_some(),
                    Some(_) => ahead.next() == Some('\''),
                    None => false,
                };
                if closes {
                    chars = ahead;
                }
            }
            '/' if chars.peek() == Some(&'/') => {
                let more = chars.by_ref().any(|c| c == '\n');
                if !more {
                    break;
                }
            }
            '/' if chars.peek() == Some(&'*') => {
                chars.next();
                let (mut depth, mut last) = (1, ' ');
                while depth > 0 {
                    let Some(c) = chars.next() else { return true };
                    match (last, c) {
                        ('*', '/') => depth -= 1,
                        ('/', '*') => depth += 1,
                        _ => {
                            last = c;
                            continue;
                        }
                    }
                    last = ' ';
                }
            }
            '`' => open.push('`'),
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' => match open.last() {
                Some('$') if c == '}' => drop(open.pop()),
                Some(o) if *o == c => drop(open.pop()),
                // the parser reports a bracket that does not match
                _ => return false,
            },
            _ => {}
        }
    }
    !open.is_empty()
}

/// What happens after an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The next prompt.
    Prompt,
    /// The session ends with this exit code.
    Leave(u8),
}

/// Takes an input, or leaves it (None) to the next in line.
pub type Handler = fn(&mut Session, &str) -> Option<Next>;

/// Who is asked about an input, in order, before it is evaluated as a script.
const HANDLERS: &[Handler] = &[leave, help::handle];

/// `exit` and `quit` without parentheses.
fn leave(_: &mut Session, input: &str) -> Option<Next> {
    matches!(input.trim(), "exit" | "quit" | "exit;" | "quit;").then_some(Next::Leave(0))
}

/// Where the history is kept: the user's state folder.
fn history_file() -> Option<PathBuf> {
    let dirs = etcetera::choose_base_strategy().ok()?;
    let dir = dirs.state_dir().unwrap_or_else(|| dirs.data_dir()).join("ld3sh");
    std::fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history.txt"))
}

/// Reads and evaluates until Ctrl-D or `exit`; returns the exit code.
pub fn run(session: &mut Session) -> u8 {
    let config = Config::builder().max_history_size(HISTORY).map(|b| b.auto_add_history(true).build());
    let editor = config.and_then(Editor::<Lines, FileHistory>::with_config);
    let mut editor = match editor {
        Ok(e) => e,
        Err(e) => {
            report_line(&format!("error: cannot use this terminal: {e}"));
            return 1;
        }
    };
    editor.set_helper(Some(Lines));
    let history = history_file();
    if let Some(file) = &history {
        // there is none the first time
        let _ = editor.load_history(file);
    }
    print_line(&format!("ld3sh {}. Leave with `exit` or Ctrl-D.", crate::VERSION));
    loop {
        screen::set_width(editor.dimensions().map(|(columns, _)| columns.into()));
        match editor.readline("ld3> ") {
            Ok(line) => {
                if let Some(file) = &history {
                    // a history that cannot be written is no reason to stop
                    let _ = editor.append_history(file);
                }
                let next = HANDLERS.iter().find_map(|handler| handler(session, &line));
                if let Next::Leave(code) = next.unwrap_or_else(|| evaluate(session, &line)) {
                    break code;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break 0,
            Err(e) => {
                report_line(&format!("error: cannot read from this terminal: {e}"));
                break 1;
            }
        }
    }
}

/// Evaluates an input as a script and echoes its value.
pub fn evaluate(session: &mut Session, input: &str) -> Next {
    if input.trim().is_empty() {
        return Next::Prompt;
    }
    match session.evaluate_line(input) {
        Ok(Outcome::Exit(v)) => return Next::Leave(exit_code(&v)),
        Ok(Outcome::Value(v)) => {
            if !v.is_unit() && !input.trim_end().ends_with(';') {
                print_line(&session.show(&v));
            }
        }
        Err(f) => {
            let color = std::env::var_os("NO_COLOR").is_none();
            report_line(&report::render(f, session, color));
        }
    }
    Next::Prompt
}

#[cfg(test)]
mod tests {
    use super::is_open;

    #[test]
    fn open_and_closed_input() {
        for open in
            ["fn f(x) {", "[1, 2", "f(1,", "\"abc", "`a ${b", "`abc", "/* a", "/* /* */", "#{ a: 1", "'(' (", "\"\\\""]
        {
            assert!(is_open(open), "{open}");
        }
        for closed in [
            "",
            "1 + 1",
            "f(1)",
            "\"(\"",
            "'('",
            "// (",
            "/* ( */ 1",
            "`${f(`a`)}`",
            "1)",
            "\"\\\"\"",
            "`a\nb`",
            "'\\'' + 1",
            "#{ a: 1 }",
        ] {
            assert!(!is_open(closed), "{closed}");
        }
    }
}
