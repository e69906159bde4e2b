//! `:load`, `:run`, `:reload`, and the startup file.
use super::files::path;
use super::{Answer, COMMANDS, Command, Done, Session, State, needed, nothing};
use crate::access::policy;
use crate::script::modules;
use crate::shell::report;
use crate::{Error, Kind, Result};
use etcetera::BaseStrategy;
use std::path::PathBuf;

fn command(name: &str) -> &'static Command {
    COMMANDS.iter().find(|c| c.names.contains(&name)).unwrap_or(&COMMANDS[0])
}

/// The words of a command line; quotes (`"a b"`) keep spaces.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut any, mut quote) = (vec![], String::new(), false, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => (quote, any) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            (_, c) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::value("a quote is left open"));
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// The script and the settings in `SCRIPT --set a=1 --set b=2`.
fn script_and_settings(text: &str) -> Result<(String, Vec<String>)> {
    let (mut script, mut settings) = (None, vec![]);
    let mut words = words(text)?.into_iter();
    while let Some(w) = words.next() {
        if w == "--set" {
            let e = || Error::value("`--set` needs a setting").hint("like `--set nfe=6`");
            settings.push(words.next().ok_or_else(e)?);
        } else if let Some(s) = w.strip_prefix("--set=") {
            settings.push(s.to_string());
        } else if w.starts_with("--") {
            return Err(Error::unknown("option of :run", &w, ["--set"]));
        } else if script.is_some() {
            let e = Error::value(format!("unexpected argument `{w}`"));
            return Err(e.hint(format!("parameters are set with `--set name=value`, like `--set {w}`")));
        } else {
            script = Some(w);
        }
    }
    match script {
        Some(s) => Ok((s, settings)),
        None => Err(Error::value("there is no script").hint("`:run SCRIPT --set name=value`")),
    }
}

fn go(session: &mut Session, state: &mut State, file: &str, settings: &[String]) -> Done {
    let text = {
        // the user typed the name
        let _own = policy::own();
        modules::read_text(&path(file))?
    };
    let (outcome, plain) = {
        let _file = policy::enter_file();
        session.run_script(file, &text, settings)?
    };
    // a script that failed can be mended and loaded again
    state.loaded = Some((file.to_string(), settings.to_vec()));
    // one that ended by `exit` ended itself, not the session
    outcome?;
    state.history.push_file(session, file, settings, &plain);
    Ok(Answer::Done)
}

pub(super) fn load(session: &mut Session, state: &mut State, file: &str) -> Done {
    let file = needed(command("load"), file)?;
    let file = path(file).display().to_string();
    go(session, state, &file, &[])
}

pub(super) fn run(session: &mut Session, state: &mut State, text: &str) -> Done {
    let (file, settings) = script_and_settings(needed(command("run"), text)?)?;
    go(session, state, &file, &settings)
}

pub(super) fn reload(session: &mut Session, state: &mut State, rest: &str) -> Done {
    nothing("reload", rest)?;
    let modules = session.reload_modules()?;
    if modules.is_empty() && state.loaded.is_none() {
        let e = Error::new(Kind::Name, "nothing has been imported or loaded yet");
        return Err(e.hint("`:load FILE`, or `import \"FILE\" as name;`").into());
    }
    for m in modules {
        state.front.print(&format!("reloaded {m}"));
    }
    match state.loaded.clone() {
        Some((file, settings)) => {
            go(session, state, &file, &settings)?;
            state.front.print(&format!("reloaded {file}"));
            Ok(Answer::Done)
        }
        None => Ok(Answer::Done),
    }
}

/// Where the startup file lies: `ld3sh/startup.rhai` in the user's folder for configuration.
pub fn startup_file() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.config_dir().join("ld3sh/startup.rhai"))
}

/// Runs the startup file if there is one; its errors are reported, and the session goes on.
pub fn startup(session: &mut Session, state: &State) {
    let Some(file) = startup_file().filter(|f| f.is_file()) else { return };
    let text = {
        let _own = policy::own();
        modules::read_text(&file)
    };
    let text = match text {
        Ok(text) => text,
        Err(e) => return state.front.report(&report::render_plain(&e, state.front.report_look())),
    };
    let failed = match session.run_script(&file.display().to_string(), &text, &[]) {
        Ok((Ok(_), _)) => return,
        Ok((Err(f), _)) | Err(f) => f,
    };
    report::tell(failed, session);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_settings() {
        let (script, set) = script_and_settings("a.rhai --set n=3 --set 'name=a b' --set=x=\"\"").unwrap();
        assert_eq!((script.as_str(), set), ("a.rhai", vec!["n=3".into(), "name=a b".into(), "x=".into()]));
        for bad in ["", "--set", "--set a=1", "a b", "a --sett x", "\"a"] {
            assert!(script_and_settings(bad).is_err(), "{bad}");
        }
    }
}
