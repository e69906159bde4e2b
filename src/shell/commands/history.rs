//! `:save`: the inputs that succeeded, as a script that runs.
use super::files::path;
use super::{Answer, Done, Session, State};
use crate::files::atomic;
use crate::{Error, Kind, Result};
use std::collections::BTreeSet;

/// The inputs that succeeded, oldest first.
#[derive(Default)]
pub struct History(Vec<Input>);

struct Input {
    text: String,
    /// The file that it is the text of, with its settings.
    file: Option<(String, Vec<String>)>,
    /// The functions that it defines: name, number of parameters, and the bytes of the definition.
    functions: Vec<(String, usize, std::ops::Range<usize>)>,
}

impl History {
    /// Takes an input that has been evaluated.
    pub fn push(&mut self, session: &Session, text: &str) {
        if !text.trim().is_empty() {
            self.0.push(Input { text: text.into(), file: None, functions: session.definitions(text) });
        }
    }
    /// Takes the text of a file that has been run, without its parameters.
    pub(super) fn push_file(&mut self, session: &Session, file: &str, settings: &[String], text: &str) {
        let functions = session.definitions(text);
        self.0.push(Input { text: text.into(), file: Some((file.into(), settings.to_vec())), functions });
    }

    /// A script of all inputs. A function that was defined again later is there once, as it was last.
    pub fn script(&self) -> String {
        let mut later: BTreeSet<(&str, usize)> = BTreeSet::new();
        let mut parts = vec![];
        for input in self.0.iter().rev() {
            let mut text = input.text.clone();
            for (name, n, range) in input.functions.iter().rev() {
                if !later.insert((name, *n)) {
                    text.replace_range(range.clone(), "");
                }
            }
            let text = text.trim();
            if !text.is_empty() {
                parts.push(part(input, text));
            }
        }
        parts.reverse();
        format!("// Saved from a session of ld3sh {}.\n{}", crate::VERSION, parts.concat())
    }
}

/// An input as a part of a script.
fn part(input: &Input, text: &str) -> String {
    let mut out = String::new();
    if let Some((file, settings)) = &input.file {
        let set: Vec<String> = settings.iter().map(|s| format!(" --set {s}")).collect();
        out = format!("// {file}{}\n", set.concat());
    }
    out += text;
    let last = text.lines().last().unwrap_or_default();
    let only_functions = !input.functions.is_empty() && last.trim_end().ends_with('}');
    if !last.trim_end().ends_with(';') && !only_functions {
        // behind a comment it would not count
        out += if last.contains("//") { "\n;" } else { ";" };
    }
    out.push('\n');
    out
}

pub(super) fn save(_: &mut Session, state: &mut State, rest: &str) -> Done {
    let (replace, name) = match rest.strip_prefix('!') {
        Some(name) => (true, name.trim()),
        None => (false, rest),
    };
    if name.is_empty() {
        return Err(Error::value("`:save` needs a file").hint("`:save session.rhai`").into());
    }
    let mut file = path(name);
    if file.extension().is_none() {
        file.set_extension("rhai");
    }
    if !replace && file.exists() {
        let e = Error::new(Kind::Io, format!("`{}` is there already", file.display()));
        return Err(e.hint(format!("`:save! {name}` replaces it")).into());
    }
    write(&file, &state.history)?;
    state.front.print(&format!("saved {}", file.display()));
    Ok(Answer::Done)
}

fn write(file: &std::path::Path, history: &History) -> Result<()> {
    if history.0.is_empty() {
        return Err(Error::value("there is no input to save yet"));
    }
    // the user typed the name
    let _own = crate::access::policy::own();
    atomic::write(file, history.script().as_bytes())
}
