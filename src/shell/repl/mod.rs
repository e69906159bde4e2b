//! The REPL: reads an input, asks who takes it, evaluates it, echoes its value; Ctrl-C stops a computation and keeps the
//! session.
pub mod completion;
pub mod highlight;
pub mod hints;
pub mod history;
pub mod typing;
pub mod validator;

use super::commands::{self, Answer, State};
use super::outcome::{Next, Outcome, exit_code};
use super::session::Session;
use super::{help, report};
use crate::access;
use etcetera::BaseStrategy;
use history::Inputs;
use rustyline::config::{BellStyle, CompletionType};
use rustyline::error::ReadlineError;
use rustyline::{Cmd, Config, Editor, KeyCode, KeyEvent, Modifiers};
use std::path::PathBuf;
use typing::Typing;

/// Takes an input, or leaves it (None) to the next in line.
pub type Handler = fn(&mut Session, &mut State, &str) -> Option<Next>;

/// Who is asked about an input, in order, before it is evaluated as a script.
const HANDLERS: &[Handler] = &[leave, |session, _, input| help::handle(session, input), command];

/// Lines that begin with `:` or `!`.
fn command(session: &mut Session, state: &mut State, input: &str) -> Option<Next> {
    match commands::dispatch(session, state, input) {
        Answer::Code => None,
        Answer::Done => Some(Next::Prompt),
        Answer::Leave(code) => Some(Next::Leave(code)),
    }
}

/// `exit` and `quit` without parentheses.
fn leave(_: &mut Session, _: &mut State, input: &str) -> Option<Next> {
    matches!(input.trim(), "exit" | "quit" | "exit;" | "quit;").then_some(Next::Leave(0))
}

/// The user's state folder.
pub fn state_folder() -> Option<PathBuf> {
    let dirs = etcetera::choose_base_strategy().ok()?;
    Some(dirs.state_dir().unwrap_or_else(|| dirs.data_dir()).join("ld3sh"))
}

/// Where the history is kept.
fn history_file() -> Option<PathBuf> {
    let dir = state_folder()?;
    let _own = access::policy::own();
    let file = access::write(dir.join("history.txt")).ok()?;
    file.make_parent().ok()?;
    // one of an earlier version may be there for all to read
    let _ = file.make_private();
    Some(file.to_path_buf())
}

/// Reads and evaluates until Ctrl-D or `exit`; returns the exit code.
pub fn run(session: &mut Session, mut state: State) -> u8 {
    let config = Config::builder()
        .auto_add_history(true)
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .bell_style(BellStyle::None)
        .tab_stop(4)
        .build();
    let front = session.front();
    let mut editor = match Editor::<Typing, Inputs>::with_history(config, Inputs::default()) {
        Ok(e) => e,
        Err(e) => {
            front.report(&format!("error: cannot use this terminal: {e}"));
            return 1;
        }
    };
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
    editor.set_helper(Some(Typing::new(session)));
    let history = history_file();
    if let Some(file) = &history {
        // there is none the first time
        let _ = editor.load_history(file);
    }
    front.print(&format!("ld3sh {}. `help` helps, Tab completes, Ctrl-D leaves.", crate::VERSION));
    loop {
        if let Some((columns, rows)) = editor.dimensions() {
            front.prompts(columns.into(), rows.into());
        }
        match editor.readline("ld3> ") {
            Ok(line) => {
                if let Some(file) = &history {
                    // a history that cannot be written is no reason to stop
                    let _ = editor.append_history(file);
                }
                // the helper, which was set above, holds the session
                let Some(Typing { session, .. }) = editor.helper_mut() else { break 1 };
                let next = HANDLERS.iter().find_map(|handler| handler(session, &mut state, &line));
                if let Next::Leave(code) = next.unwrap_or_else(|| evaluate(session, &mut state, &line)) {
                    break code;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break 0,
            Err(e) => {
                front.report(&format!("error: cannot read from this terminal: {e}"));
                break 1;
            }
        }
    }
}

/// Evaluates an input as a script and echoes its value.
pub fn evaluate(session: &mut Session, state: &mut State, input: &str) -> Next {
    if input.trim().is_empty() {
        return Next::Prompt;
    }
    let watch = state.begin();
    let result = session.evaluate_line(input);
    let succeeded = result.is_ok();
    match result {
        Ok(Outcome::Exit(v)) => return Next::Leave(exit_code(&v, &*session.front())),
        Ok(Outcome::Value(v)) => {
            if !v.is_unit() && !input.trim_end().ends_with(';') {
                session.front().print(&session.front().foreign(&session.show(&v)));
            }
        }
        Err(f) => {
            report::tell(f, session);
        }
    }
    state.end(session, &watch, input, succeeded);
    Next::Prompt
}
