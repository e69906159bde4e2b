//! What a prompt takes besides code: `:load`, `:time`, `!ls` and so on, a row of [`COMMANDS`] each.
//!
//! A command works on a [`Session`] and a [`State`] and speaks through the latter, so that any front end can offer them.
use super::outcome::Failure;
use super::report;
use super::screen::wrap;
use super::session::Session;
use crate::script::front::Shared as Front;
use crate::{Error, Result};

mod files;
mod history;
mod run;
mod shell;
mod time;

pub use history::History;
pub use run::{startup, startup_file};
pub use time::Watch;

/// A command of the prompt.
pub struct Command {
    /// Its name without the colon, and other names for it.
    pub names: &'static [&'static str],
    /// What follows the name.
    pub usage: &'static str,
    /// One line for `:help`.
    pub summary: &'static str,
    /// Does the work with the text after the name.
    pub run: fn(&mut Session, &mut State, &str) -> std::result::Result<Answer, Problem>,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is code, to be evaluated.
    Code,
    /// It was a command, and is done.
    Done,
    /// The session is to end with this exit code.
    Leave(u8),
}

/// Why a command failed.
pub enum Problem {
    /// The command itself was wrong, or could not be done.
    Plain(Error),
    /// The code that it ran failed.
    Code(Box<Failure>),
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        Problem::Plain(e)
    }
}
impl From<Failure> for Problem {
    fn from(f: Failure) -> Self {
        Problem::Code(Box::new(f))
    }
}

/// What a command returns.
pub type Done = std::result::Result<Answer, Problem>;

/// All commands, in the order in which `:help` lists them.
pub const COMMANDS: &[Command] = &[
    Command {
        names: &["help"],
        usage: "[COMMAND]",
        summary: "these commands, or one of them",
        run: |_, state, about| help(state, about),
    },
    Command {
        names: &["load"],
        usage: "FILE",
        summary: "run a script in the session; its variables and functions stay",
        run: run::load,
    },
    Command {
        names: &["run"],
        usage: "SCRIPT [--set NAME=VALUE]…",
        summary: "the same with parameters",
        run: run::run,
    },
    Command {
        names: &["reload"],
        usage: "",
        summary: "read the imported modules and the last loaded file again",
        run: run::reload,
    },
    Command {
        names: &["time"],
        usage: "CODE | on | off",
        summary: "evaluate, and say how long it took; of every input with `on`",
        run: time::time,
    },
    Command {
        names: &["profile"],
        usage: "CODE",
        summary: "evaluate, and list the calls, time and network evaluations of each function",
        run: time::profile,
    },
    Command {
        names: &["save"],
        usage: "FILE",
        summary: "write the inputs that succeeded as a script; `:save! FILE` replaces a file",
        run: history::save,
    },
    Command {
        names: &["vars"],
        usage: "[PART OF A NAME]",
        summary: "the variables with their types, shapes and memory",
        run: |session, state, part| told(state, super::help::vars(session, part)?),
    },
    Command {
        names: &["type"],
        usage: "CODE",
        summary: "evaluate, and say of what type and shape the value is",
        run: |session, state, code| {
            let text = super::help::type_of(session, code)?;
            told(state, text)
        },
    },
    Command {
        names: &["source"],
        usage: "FUNCTION | MODULE",
        summary: "the text of a function of a script or module",
        run: |session, state, name| told(state, super::help::source(session, name)?),
    },
    Command { names: &["cd"], usage: "[FOLDER]", summary: "change the working folder", run: files::cd },
    Command { names: &["pwd"], usage: "", summary: "the working folder", run: files::pwd },
    Command {
        names: &["clear", "reset"],
        usage: "",
        summary: "forget all variables, functions, imports and inputs",
        run: |session, state, rest| {
            nothing("clear", rest)?;
            session.clear();
            state.history = History::default();
            Ok(Answer::Done)
        },
    },
    Command {
        names: &["quit", "exit", "q"],
        usage: "",
        summary: "leave; so do `exit` and Ctrl-D",
        run: |_, _, rest| Ok(nothing("quit", rest).map(|()| Answer::Leave(0))?),
    },
];

/// What commands know beyond the session.
pub struct State {
    /// Where commands speak: the session's front.
    front: Front,
    /// Whether the time of every input is told.
    pub time_all: bool,
    /// The inputs that succeeded.
    pub history: History,
    /// The last file of `:load` or `:run`, with its settings.
    loaded: Option<(String, Vec<String>)>,
}

impl State {
    /// The state beside a session.
    pub fn new(session: &Session) -> Self {
        State { front: session.front(), time_all: false, history: History::default(), loaded: None }
    }
    /// Begins to watch the evaluation of an input.
    pub fn begin(&self) -> Watch {
        Watch::start()
    }
    /// Ends it: an input that succeeded is kept for `:save`, and with `:time on` its time is told.
    pub fn end(&mut self, session: &Session, watch: &Watch, input: &str, succeeded: bool) {
        if succeeded {
            self.history.push(session, input);
        }
        if self.time_all {
            self.front.print(&watch.told());
        }
    }
}

/// Does what a line asks for if it is a command: a word after a colon, or a line for the shell after `!`.
pub fn dispatch(session: &mut Session, state: &mut State, line: &str) -> Answer {
    let line = line.trim();
    let done = if let Some(command) = line.strip_prefix('!') {
        shell::run(state, command)
    } else if let Some(rest) = line.strip_prefix(':').filter(|r| !r.starts_with(':')) {
        // `:save! f` is the command `save` with the text `! f`
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        match find(name) {
            Ok(c) => (c.run)(session, state, rest.trim()),
            Err(e) => Err(e.into()),
        }
    } else {
        return Answer::Code;
    };
    match done {
        Ok(answer) => return answer,
        Err(Problem::Plain(e)) => state.front.report(&report::render_plain(&e, state.front.report_look())),
        Err(Problem::Code(f)) => report::tell(*f, session),
    }
    Answer::Done
}

/// The command of that name.
///
/// # Errors
/// None is; the nearest name is suggested.
pub fn find(name: &str) -> Result<&'static Command> {
    COMMANDS.iter().find(|c| c.names.contains(&name)).ok_or_else(|| {
        let known = COMMANDS.iter().flat_map(|c| c.names.iter().copied());
        let e = Error::new(crate::Kind::Name, format!("unknown command `:{name}`"));
        match crate::error::nearest(name, known) {
            Some(near) => e.hint(format!("did you mean `:{near}`? `:help` lists the commands")),
            None => e.hint("`:help` lists the commands"),
        }
    })
}

/// Shows a command's answer.
fn told(state: &State, text: String) -> Done {
    state.front.print(&crate::access::clean(&text));
    Ok(Answer::Done)
}

/// Fails if there is text after a command that takes none.
fn nothing(command: &str, rest: &str) -> Result<()> {
    match rest {
        "" => Ok(()),
        _ => Err(Error::value(format!("`:{command}` takes nothing, not `{rest}`"))),
    }
}

/// The text after a command that needs some.
fn needed<'a>(command: &Command, rest: &'a str) -> Result<&'a str> {
    match rest {
        "" => {
            let name = command.names.first().copied().unwrap_or_default();
            Err(Error::value(format!("`:{name}` needs something after it"))
                .hint(format!("`:{name} {}`", command.usage)))
        }
        _ => Ok(rest),
    }
}

fn help(state: &State, about: &str) -> Done {
    let line = |c: &Command| {
        let names: Vec<String> = c.names.iter().map(|n| format!(":{n}")).collect();
        format!("{} {}", names.join(", "), c.usage).trim_end().to_string()
    };
    let shell = ("! COMMAND".to_string(), "run a line in the shell");
    let about = about.trim_start_matches(':');
    if !about.is_empty() {
        let c = find(about)?;
        let summary = wrap(c.summary, state.front.look().width().saturating_sub(2)).join("\n  ");
        state.front.print(&format!("{}\n  {summary}", line(c)));
        return Ok(Answer::Done);
    }
    let rows = COMMANDS.iter().map(|c| (line(c), c.summary)).chain([shell]);
    // below each other, which any width of the terminal can show
    let text: Vec<String> = rows.map(|(usage, what)| format!("{usage}\n    {what}")).collect();
    state.front.print(&text.join("\n"));
    Ok(Answer::Done)
}

/// Seconds as text, with three digits: `1.25 ms`.
fn seconds(s: f64) -> String {
    let (value, unit) = match s {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    let digits = if value >= 100.0 { 0 } else { if value >= 10.0 { 1 } else { 2 } };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (s, want) in
            [(0.0, "0.00 µs"), (1.5e-6, "1.50 µs"), (0.0123, "12.3 ms"), (0.999, "999 ms"), (75.0, "75.0 s")]
        {
            assert_eq!(seconds(s), want);
        }
    }

    #[test]
    fn names_are_unique_and_slips_are_seen() {
        let mut names: Vec<&str> = COMMANDS.iter().flat_map(|c| c.names.iter().copied()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(find("laod").err().unwrap().fix().unwrap().contains("`:load`"));
    }
}
